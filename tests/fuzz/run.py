"""Runs fuzz targets one after the other: python3 run.py BUILD SECONDS TARGET...

Each begins with its seeds, the kept inputs and what it has found before (BUILD/corpus). Prints a line for each, and ends
with status 1 where one has failed; the input is then in BUILD/found.
"""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LONGEST = {"parser": 700, "dump": 1000, "rdb": 2000, "config": 1000, "log": 3000, "server": 3000, "follower": 2000}


def run(build, target, seconds):
    corpus, found = os.path.join(build, "corpus", target), os.path.join(build, "found", target)
    os.makedirs(corpus, exist_ok=True)
    os.makedirs(os.path.dirname(found), exist_ok=True)
    kept = [path for path in (os.path.join(build, "seeds", target), os.path.join(HERE, "kept", target)) if os.path.isdir(path)]
    done = subprocess.run(
        [os.path.join(build, "fuzz_" + target), f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=1500",
         "-print_final_stats=1", f"-max_len={LONGEST.get(target, 2000)}", f"-dict={build}/seeds/{target}.dict",
         f"-artifact_prefix={found}-", corpus, *kept],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 300,
    )  # fmt: skip
    text = done.stdout.decode("latin-1")
    executions = re.search(r"number_of_executed_units: (\d+)", text)
    coverage = re.findall(r" cov: (\d+) ft: (\d+)", text)
    n = int(executions[1]) if executions else 0
    print(f"{target}: {n} executions, {n / max(seconds, 1):.0f} a second, {coverage[-1][0] if coverage else 0} edges", flush=True)
    if done.returncode:
        print("\n".join(line for line in text.splitlines() if not re.match(r"#\d+\s+(NEW|REDUCE|pulse)|\s+NEW_FUNC", line))[-6000:])
    return n, done.returncode


if __name__ == "__main__":
    build, seconds, targets = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    subprocess.run([sys.executable, os.path.join(HERE, "seeds.py"), os.path.join(build, "seeds")], check=True)
    results = [run(build, target, seconds) for target in targets]
    print(f"{sum(n for n, _ in results)} executions in all")
    sys.exit(any(status for _, status in results))
