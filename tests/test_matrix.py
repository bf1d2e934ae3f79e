"""Clients and tools as people use them, each a process of its own, and the README's table of them.

Nothing is installed here: tests/setup.sh does that. Where a client is missing its test is skipped with the package's
name; in CI, that fails, but for what comes from npm. python3 tests/test_matrix.py runs all and writes the table.
"""
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import urllib.request

import pytest

from ev import OK, PONG, ROOT, SANITIZED, Client, Server, eventually, free_port, need, ours
from test_clients import Terminal

pytestmark = ours
CLIENTS = os.path.join(ROOT, "tests", "clients")
README = os.path.join(ROOT, "README.md")
TABLE = re.compile(r"(<!-- clients -->\n).*?(<!-- end -->)", re.S)


def run(*argv, stdin=None, fails=False):
    """What the program prints; as an error, where it is to fail."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120)
    assert bool(done.returncode) == fails, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stderr if fails else done.stdout


def missing(package, by_npm=False):
    (pytest.fail if os.environ.get("CI") and not by_npm else pytest.skip)(f"{package} is not installed")


# ---- programs that use a client library --------------------------------------------------------------------
# Each prints "version ..." and then "ok ..." for everything that it has done and found right.


def program(*argv):
    said = run(*argv).splitlines()
    assert said[0].startswith("version ") and all(line.startswith("ok ") for line in said[1:]), said
    return said[0][8:], ", ".join(line[3:] for line in said[1:])


def python(name, module, package, *args):
    def of(port):
        if not importlib.util.find_spec(module):
            missing(package)
        return program(sys.executable, os.path.join(CLIENTS, name), str(port), *args)

    return of


def node(name, package, *args):
    def of(port):
        if not os.path.exists(os.path.join(CLIENTS, "node_modules", package)):
            missing(package, by_npm=True)
        return program(need("node"), os.path.join(CLIENTS, name), str(port), *args)

    return of


def php(port):
    if "redis" not in run(need("php"), "-m").splitlines():
        missing("php-redis")
    return program("php", os.path.join(CLIENTS, "php_redis.php"), str(port))


def ruby(port):
    if subprocess.run([need("ruby"), "-e", "require 'redis'"], capture_output=True).returncode:
        missing("ruby-redis")
    return program("ruby", os.path.join(CLIENTS, "ruby_redis.rb"), str(port))


def hiredis(port):
    if not os.path.exists("/usr/include/hiredis/hiredis.h"):
        missing("libhiredis-dev")
    binary = os.path.join(ROOT, "build", f"hiredis-{port}")
    os.makedirs(os.path.dirname(binary), exist_ok=True)
    run(need("cc"), "-Wall", "-Werror", "-o", binary, os.path.join(CLIENTS, "hiredis.c"), "-lhiredis")
    try:
        return program(binary, str(port))
    finally:
        os.remove(binary)


# ---- tools -------------------------------------------------------------------------------------------------


def cli(port, *args, **kw):
    return run(need("redis-cli"), "-p", str(port), *args, **kw)


def cli_version():
    return run(need("redis-cli"), "--version").split()[1]


@contextlib.contextmanager
def filled(port):
    """A keyspace to look at: 300 keys of different length, the longest of them key:299."""
    with Client(port) as c:
        assert c("FLUSHALL") == OK
        assert c.pipeline([("SET", f"key:{i}", "v" * i) for i in range(300)]) == [OK] * 300
        yield c


def cli_looks(port):
    with filled(port):
        assert len(cli(port, "--scan", "--pattern", "key:1?").split()) == 10
        assert re.search(r"Biggest string found \S*key:299\S* has 299 bytes", cli(port, "--bigkeys"))
        with Server(binary=need("redis-server")) as oracle, filled(oracle.port):  # both have no LFU policy
            said = [cli(p, "--hotkeys", fails=True) for p in (port, oracle.port)]
            assert said[0].startswith("Error: ERR An LFU maxmemory policy is not selected") and said[0] == said[1]
    return cli_version(), "--scan, --bigkeys, --hotkeys (refused, as by Redis without its LFU policy)"


def cli_measures(port):
    least, most, mean, samples = map(float, cli(port, "--latency", "--raw", "-i", "0.3").split())
    assert least <= mean <= most and samples > 5
    stat = subprocess.Popen([need("redis-cli"), "-p", str(port), "--stat", "-i", "0.1"], stdout=subprocess.PIPE, text=True)
    try:
        lines = [stat.stdout.readline() for _ in range(5)]
    finally:
        stat.kill()
        stat.communicate()
    assert "keys" in lines[1] and all(re.match(r"\d+ +\d\S* +\d+ +\d+ +\d+ \(\+\d+\)", line) for line in lines[2:]), lines
    return cli_version(), "--latency, --stat"


def cli_pipes(port):
    said = cli(port, "--pipe", stdin="".join(f"SET key:{i} value:{i}\r\n" for i in range(50000)))
    assert "errors: 0, replies: 50000" in said
    assert cli(port, "-3", "--no-raw", "GET", "key:49999") == '"value:49999"\n'
    assert cli(port, "-x", "SET", "k", stdin="from stdin") == "OK\n" and cli(port, "STRLEN", "k") == "10\n"
    return cli_version(), "--pipe with 50,000 commands, -3, -x"


def cli_talks(port):
    terminal = Terminal(need("redis-cli"), "-p", str(port))
    prompt = rf"127\.0\.0\.1:{port}(\[\d+\])?(\(TX\))?> $"
    terminal.until(prompt)
    for line, answer in [("HELP INCREX", "INCREX key .*summary: Adds to a number"), ("help @string", r"GETRANGE key start end"),
                         ("SET k v", "OK"), ("MULTI", "OK"), ("GET k", "QUEUED"), ("EXEC", r'1\) "v"')]:
        os.write(terminal.fd, line.encode() + b"\n")
        shown = re.sub(r"\x1b\[\d*m", "", terminal.until(prompt))  # without the colours
        assert re.search(answer, shown, re.S), (line, shown)
    os.write(terminal.fd, b"QUIT\n")
    terminal.close()
    return cli_version(), "the prompt: commands, a transaction, HELP of a command and of a group"


def benchmark(port):
    tests = ["ping_inline", "ping_mbulk", "set", "get", "incr", "mset"]
    requests = "2000" if SANITIZED else "20000"
    said = run(need("redis-benchmark"), "-p", str(port), "-t", ",".join(tests), "--csv", "-n", requests)
    rows = [line.split('","') for line in said.splitlines()[1:]]
    assert [row[0].strip('"') for row in rows] == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]
    assert all(float(row[1]) > 1000 for row in rows) and "WARN" not in said
    with Client(port) as c:
        assert b"total_error_replies:0\r\n" in c("INFO", "stats")
    return run("redis-benchmark", "--version").split()[1], "50 clients: " + ", ".join(tests)


def exporter(port):
    """Scraped once for a warm-up and once for the page. What the server has no command for yet, it may complain of."""
    at = f"127.0.0.1:{free_port()}"
    with filled(port) as c:
        c("EXPIRE", "key:7", "100")
        lacks = [name for name in ("latency", "slowlog") if name.encode() not in c("COMMAND", "LIST")]
        process = subprocess.Popen(
            [need("prometheus-redis-exporter"), "--redis.addr", f"redis://127.0.0.1:{port}", "--web.listen-address", at,
             "--check-single-keys", "key:299", "--include-system-metrics"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:

            def page():
                with contextlib.suppress(OSError):
                    return urllib.request.urlopen(f"http://{at}/metrics", timeout=20).read().decode()

            eventually(page)
            metrics = dict(line.rsplit(" ", 1) for line in page().splitlines() if line.startswith("redis_"))
        finally:
            process.kill()
            said = process.communicate()[0]
    errors = [line for line in said.splitlines() if "level=error" in line]
    assert [line for line in errors if not any(f"unknown command '{name.upper()}'" in line for name in lacks)] == []
    for name, value in {"redis_up": 1, 'redis_exporter_last_scrape_error{err=""}': 0, 'redis_db_keys{db="db0"}': 300,
                        'redis_db_keys_expiring{db="db0"}': 1, 'redis_key_value_as_string{db="db0",key="key:299",val="x"}': None,
                        'redis_key_size{db="db0",key="key:299"}': 299}.items():
        assert value is None or float(metrics[name]) == value, name
    for name in ["redis_commands_total", "redis_commands_duration_seconds_total"]:
        assert any(metric.startswith(name + '{cmd="set"}') for metric in metrics), name
    assert len(metrics) > 100
    return re.search(r"Exporter (\S+)", run("prometheus-redis-exporter", "--version") or said)[1], "a full page of metrics"


def iredis(port):
    typed = ['SET k "a b"', "GET k", "INCRBY n 5", "INCR k", "MGET k none", "KEYS *", "TTL k"]
    said = run(need("iredis"), "-p", str(port), stdin="\n".join(typed))
    expected = ["OK", "a b", "5", "ERROR value is not an integer or out of range", "a b", "", "k", "n", "-1"]
    assert [said.splitlines()[:6], sorted(said.splitlines()[6:])] == [expected[:6], sorted(expected[6:])], said
    return run("iredis", "--version").split()[-1], "commands, errors"


MATRIX = [
    ("redis-py", python("redis_py.py", "redis", "python3-redis", "python")),
    ("redis-py with hiredis", python("redis_py.py", "hiredis", "python3-hiredis", "hiredis")),
    ("django-redis", python("django_cache.py", "django_redis", "python3-django-redis")),
    ("node-redis, RESP2", node("node_redis.mjs", "redis", "2")),
    ("node-redis, RESP3", node("node_redis.mjs", "redis", "3")),
    ("ioredis", node("ioredis.mjs", "ioredis")),
    ("connect-redis", node("express.mjs", "connect-redis")),
    ("keyv", node("keyv.mjs", "@keyv/redis")),
    ("phpredis", php),
    ("redis-rb", ruby),
    ("hiredis, in C", hiredis),
    ("redis-cli, a person's", cli_talks),
    ("redis-cli, in scripts", cli_pipes),
    ("redis-cli, looking at keys", cli_looks),
    ("redis-cli, measuring", cli_measures),
    ("redis-benchmark", benchmark),
    ("prometheus-redis-exporter", exporter),
    ("iredis", iredis),
]


def table(results):
    """results: (name, version, what was run, result)."""
    rows = ["| client or tool | version | what was run | result |", "| --- | --- | --- | --- |"]
    return "\n".join(rows + [f"| {' | '.join(result)} |" for result in results])


def entries(text):
    """The README's rows: {name: what was run}."""
    rows = [line.strip("| ").split(" | ") for line in TABLE.search(text)[0].splitlines() if line.startswith("| ")][2:]
    assert all(len(row) == 4 and row[3] == "passes" for row in rows)
    return {row[0]: row[2] for row in rows}


@pytest.fixture(scope="module")
def port():
    with Server() as server:
        yield server.port


@pytest.fixture(scope="module")
def readme():
    with open(README) as f:
        return entries(f.read())


@pytest.mark.parametrize("name, work", MATRIX, ids=[name for name, _ in MATRIX])
def test_a_client(port, readme, name, work):
    with Client(port) as c:
        assert c("FLUSHALL") == c("CONFIG", "RESETSTAT") == OK
    version, what = work(port)
    assert version
    assert readme[name] == what, "run tests/test_matrix.py, which writes the README's table"
    with Client(port) as c:
        assert c("PING") == PONG


def test_redis_cli_looks_for_the_keys_that_take_most_memory(port):
    with filled(port) as c:
        assert re.search(r"Biggest string found \S*key:2\d\d\S* has \d+ bytes", cli(port, "--memkeys"))


def test_the_readme_has_a_row_for_each(readme):
    assert list(readme) == [name for name, _ in MATRIX]


def main():
    with Server() as server:
        results = []
        for name, work in MATRIX:
            with Client(server.port) as c:
                c("FLUSHALL")
                c("CONFIG", "RESETSTAT")
            results.append((name, *work(server.port), "passes"))
            print(*results[-1], sep="  ")
    with open(README) as f:
        text = f.read()
    with open(README, "w") as f:
        f.write(TABLE.sub(lambda m: f"{m[1]}\n{table(results)}\n\n{m[2]}", text))


if __name__ == "__main__":
    main()
