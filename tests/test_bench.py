"""The bench works: its rows in their smallest form, what is made of their results, and its generator."""
import importlib.util
import json
import pathlib
import re
import signal
import subprocess
import sys

import pytest

import readme_tables  # which finds the bench's modules
import figures
import results
import rig
from ev import ECHOVAULT, ROOT, Server, eventually, free_port, need, ours, unsanitized

ROWS = {"cpu", "values", "connections", "keys", "footprint", "latency"}
SERVERS = {"redis", "echovault"}

pytestmark = [ours, unsanitized]


@pytest.fixture
def programs():
    """The bench's own, made anew where they are out of date."""
    for program in ("cc", "taskset"):
        need(program)
    rig.build_programs()


def test_the_rows_in_their_smallest_form(programs, tmp_path, monkeypatch):
    """In one test, as workers that run side by side would each make a run of their own."""
    need("redis-server")
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"other": {"figures": 1}, "keys": {"figures": "old"}}))
    done = subprocess.run([sys.executable, f"{ROOT}/tests/bench.py", "--quick", "--rows", ",".join(ROWS), "--generators", "load",
                           "--echovault", ECHOVAULT, "--results", path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = results.read(path)
    assert rows.pop("other") == {"figures": 1} and set(rows) == ROWS
    check_figures(rows)
    check_sizes(rows)
    check_readme(rows, tmp_path, monkeypatch)
    check_pictures(rows, tmp_path)


def runs(figures_of_row):
    return [case["runs"] for case in figures_of_row]


def check_figures(rows):
    for name, row in rows.items():
        assert {"when", "cpu", "kernel", "echovault", "redis"} <= set(row["machine"]) and row["sizes"]
        if name not in ("footprint", "latency"):
            for each in runs(row["figures"]):
                assert SERVERS <= set(each)
                assert all(one["cpu_us"] > 0 and one["rps"] > 0 for run in each.values() for one in run)
    for each in runs(rows["latency"]["figures"]):
        assert SERVERS <= set(each)
        assert all(0 < one["p50"] <= one["p99"] <= one["p99.9"] <= one["max"] for run in each.values() for one in run)
    assert all(cost > 0 for step in rows["footprint"]["figures"] for cost in step["bytes"].values())


def check_sizes(rows):
    """They reach as far as they should."""
    case = lambda row, field: [one[field] for one in rows[row]["figures"]]  # noqa: E731
    assert {1, 16, 64} == set(case("cpu", "pipeline")) and {"get", "set"} == set(case("cpu", "op"))
    assert (min(case("values", "size")), max(case("values", "size"))) == (16, 1 << 20)
    assert min(case("connections", "connections")) == 1 and {0, 0.99} == set(case("keys", "zipf"))
    has_uring = subprocess.run([rig.BUILD / "bare", "probe"]).returncode == 0
    assert all(("bare-batched" in each) == has_uring for each in runs(rows["cpu"]["figures"]))


def check_readme(rows, tmp_path, monkeypatch):
    """Each row shows its figures, one that was not measured nothing."""
    monkeypatch.setattr(results, "FILE", tmp_path / "these.json")
    results.FILE.write_text(json.dumps(rows))
    text = figures.renewed("".join(f"<!-- figures: {name} -->\n<!-- end -->\n" for name in figures.PARTS))
    for name in ROWS - {"footprint"}:
        part = text.split(f"<!-- figures: {name} -->")[1].split("<!-- end -->")[0]
        assert "redis-server" in part and "| --- |" in part, name
    assert "<!-- figures: hitratio -->\n<!-- end -->" in text


def check_pictures(rows, tmp_path):
    """They are the same each time that they are drawn of the same results."""
    if not importlib.util.find_spec("matplotlib"):
        return
    import plots
    plots.draw_all(rows, tmp_path / "a")
    plots.draw_all({"cpu": rows["cpu"]}, tmp_path / "b")
    drawn = {path.stem: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert set(drawn) == set(figures.PICTURES) - {"memory"}
    for name, picture in drawn.items():
        assert b">redis-server</text>" in picture and b"date" not in picture
    assert all(path.read_bytes() == drawn[path.stem] for path in (tmp_path / "b").iterdir())


def test_the_pictures_that_the_readme_shows_are_there():
    shown = re.findall(r"\]\(docs/(.*?)\)", readme_tables.read(readme_tables.README))
    assert sorted(shown) == sorted(path.name for path in (pathlib.Path(ROOT) / "docs").iterdir())


def load(port, *words):
    return [str(rig.BUILD / "load"), str(port), *map(str, words)]


def cpu_ticks(process):
    return sum(map(int, pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_a_stall_is_felt_by_all_requests_that_were_due_in_it(programs):
    port = free_port()
    with subprocess.Popen([str(rig.BUILD / "bare"), str(port)]) as bare:
        try:
            eventually(lambda: subprocess.run(load(port, "get", "-n", 1, "-c", 1), capture_output=True).returncode == 0, 20)
            bare.send_signal(signal.SIGSTOP)
            with subprocess.Popen(load(port, "get", "-n", 500, "-c", 4, "-R", 1000), stdout=subprocess.PIPE) as generator:
                eventually(lambda: cpu_ticks(generator) >= 20, 60)  # so it has waited for 0.2 s at least
                bare.send_signal(signal.SIGCONT)
                waits = json.loads(generator.communicate(timeout=60)[0])["latency_us"]
        finally:
            bare.kill()
    assert waits["samples"] == 500
    # Four connections: without its corrected times, four samples would have seen the stall, less than one in a hundred.
    assert waits["p99"] > 150_000


def test_zipf_keys_repeat_more_often_than_uniform_ones(programs):
    with Server(appendonly="no", save="") as server, server.client() as c:
        kept = []
        for choice in ("-z", 0.99), ("-z", 0):
            c("FLUSHALL")
            subprocess.run(load(server.port, "set", "-n", 50_000, "-P", 50, "-r", 50_000, *choice), check=True,
                           capture_output=True)
            kept.append(c("DBSIZE"))
        assert 5_000 < kept[0] < 20_000 and 30_000 < kept[1] < 33_000
