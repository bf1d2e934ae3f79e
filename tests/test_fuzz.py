"""Fuzzing (fuzz/): the inputs that are kept, and a look at whether the fuzzers themselves run.

Needs no server: the targets have the product's files in them, built with sanitizers of their own.
"""
import fcntl
import os
import re
import subprocess
import sys

import pytest

from ev import IS_REDIS, ROOT, SANITIZED, need

pytestmark = pytest.mark.skipif(IS_REDIS or SANITIZED, reason="would be the same again")

FUZZ = os.path.join(ROOT, "tests", "fuzz")
BUILD = os.path.join(ROOT, "build", "fuzz")
TARGETS = re.search(r"^TARGETS = (.*)", open(os.path.join(FUZZ, "Makefile")).read(), re.M)[1].split()


def run(*args, seconds=200, **options):
    done = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=seconds, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def build(*programs):
    """One worker builds, the others wait for it."""
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "LD_PRELOAD")}
    os.makedirs(BUILD, exist_ok=True)
    with open(os.path.join(BUILD, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("make", "-s", "-j2", "-C", FUZZ, f"PYTHON={sys.executable}", *programs, env=env)


def need_fuzzer(folder):
    """clang without its runtime (libclang-rt-14-dev) is as good as none."""
    source = "int LLVMFuzzerTestOneInput(const char *p, long n) { return p[n]; }"
    done = subprocess.run([need("clang"), "-fsanitize=fuzzer,address", "-xc", "-", "-o", folder / "probe"], input=source,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    if done.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("clang's fuzzer (libclang-rt-*-dev) is not installed")


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs(target):
    need("cc")
    program = os.path.join(BUILD, "replay_" + target)
    build(*("../../build/fuzz/replay_" + name for name in TARGETS))
    kept = os.path.join(FUZZ, "kept", target)
    assert run(program, kept).endswith(f": {len(os.listdir(kept))} inputs\n")


def test_the_fuzzers_run(tmp_path):
    """Each for two seconds, from nothing but its seeds and the kept inputs."""
    need_fuzzer(tmp_path)
    build(*("../../build/fuzz/fuzz_" + name for name in TARGETS))
    for name in TARGETS:
        os.symlink(os.path.join(BUILD, "fuzz_" + name), tmp_path / ("fuzz_" + name))
    said = run(sys.executable, os.path.join(FUZZ, "run.py"), str(tmp_path), "2", *TARGETS)
    counts = dict(re.findall(r"^(\w+): (\d+) executions", said, re.M))
    assert sorted(counts) == sorted(TARGETS) and all(int(n) > 100 for n in counts.values()), said
