"""Runs fuzz targets, two at a time: python3 run.py BUILD SECONDS TARGET...

Each begins with its seeds, the kept inputs and what it has found before (BUILD/corpus). Prints a line for each, and ends
with status 1 where one has failed: a crash, a hang, a sanitizer's word. The input is then in BUILD/found.

python3 run.py BUILD keep TARGET... puts the least inputs that reach all that was reached into kept/, beside those there.
"""
import concurrent.futures
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LONGEST = {"parser": 700, "dump": 1000, "rdb": 2000, "config": 1000, "log": 3000, "server": 3000, "follower": 2000}
BAD = re.compile(r"^.*(?:ERROR: |SUMMARY: |runtime error|Assertion `).*$", re.M)
SLOW = {"server", "follower", "log"}  # have so many inputs that choosing among them by rarity takes much of the time


def options(build, target):
    words, found = os.path.join(build, "seeds", target + ".dict"), os.path.join(build, "found", target)
    os.makedirs(os.path.dirname(found), exist_ok=True)
    return (["-timeout=20", "-rss_limit_mb=1500", "-print_final_stats=1", f"-max_len={LONGEST[target]}",
             f"-artifact_prefix={found}-"] + [f"-dict={words}"] * (os.path.getsize(words) > 0)
            + ["-entropic=0"] * (target in SLOW))  # fmt: skip


def folders(build, target):
    """Of its inputs; what is new goes into the first."""
    all_of_them = [os.path.join(build, "corpus", target), os.path.join(build, "seeds", target), kept(target)]
    os.makedirs(all_of_them[0], exist_ok=True)
    return [path for path in all_of_them if os.path.isdir(path)]


def kept(target):
    return os.path.join(HERE, "kept", target)


def run(build, target, seconds):
    try:
        done = subprocess.run(
            [os.path.join(build, "fuzz_" + target), f"-max_total_time={seconds}", *options(build, target),
             *folders(build, target)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 300,
        )  # fmt: skip
        text, status = done.stdout.decode("latin-1"), done.returncode
    except subprocess.TimeoutExpired as late:
        text, status = (late.stdout or b"").decode("latin-1") + "\nERROR: it does not end", 1
    counts = re.search(r"number_of_executed_units: (\d+)", text)
    edges = re.findall(r" cov: (\d+)", text)
    n, bad = int(counts[1]) if counts else 0, BAD.search(text)
    verdict = f", FAILED: {bad[0] if bad else f'status {status}'}" if bad or status else ""
    line = f"{target}: {n} executions, {n / max(seconds, 1):.0f} a second, {edges[-1] if edges else 0} edges{verdict}\n"
    print(line, end="", flush=True)  # in one go: others print theirs at the same moment
    if verdict:
        print("\n".join(line for line in text.splitlines() if not re.match(r"#\d+\s+[A-Z]|\s+NEW_FUNC", line))[-6000:], flush=True)
    return n, bool(verdict)


def keep(build, target):
    """By edges alone, not by how often each is passed."""
    os.makedirs(kept(target), exist_ok=True)
    subprocess.run([os.path.join(build, "fuzz_" + target), "-set_cover_merge=1", "-use_counters=0", *options(build, target),
                    kept(target), *folders(build, target)], check=True, stderr=subprocess.DEVNULL)  # fmt: skip
    sizes = [os.path.getsize(os.path.join(kept(target), name)) for name in os.listdir(kept(target))]
    print(f"{target}: {len(sizes)} inputs, {sum(sizes)} bytes")


if __name__ == "__main__":
    build, seconds, targets = sys.argv[1], sys.argv[2], sys.argv[3:]
    subprocess.run([sys.executable, os.path.join(HERE, "seeds.py"), os.path.join(build, "seeds")], check=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        if seconds == "keep":
            list(pool.map(lambda target: keep(build, target), targets))
            sys.exit()
        results = list(pool.map(lambda target: run(build, target, int(seconds)), targets))
    print(f"{sum(n for n, _ in results)} executions in all")
    sys.exit(any(failed for _, failed in results))
