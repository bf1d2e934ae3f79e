"""Calls that come back short, interrupted or refused for the moment, and a wall clock that jumps: nobody is to notice.

The shim (fault_shim.c) stands between the server and libc. ECHOVAULT_FAULT_SEEDS sets how many rounds of other faults.
"""
import os
import random
import struct
import subprocess

import pytest

from ev import NIL, OK, ROOT, eventually, ours
from repl_tools import OUR_PAIRS, contents, fill, wait_same, wait_sync

pytestmark = ours
SEEDS = range(int(os.environ.get("ECHOVAULT_FAULT_SEEDS") or 1))
RATE = 200  # of a thousand calls
HOUR = 3600 * 1000


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = str(tmp_path_factory.mktemp("shim") / "fault_shim.so")
    source = os.path.join(ROOT, "tests", "fault_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def preload(shim, monkeypatch):
    def on(**variables):
        monkeypatch.setenv("LD_PRELOAD", shim)
        monkeypatch.setenv("ASAN_OPTIONS", "verify_asan_link_order=0")
        for name, value in variables.items():
            monkeypatch.setenv("FAULT_" + name.upper(), str(value))

    return on


@pytest.fixture
def clock(preload, tmp_path):
    """Servers that start now have a wall clock which is wrong by so many milliseconds as the function is told."""
    path = tmp_path / "clock"
    path.write_bytes(bytes(8))
    preload(clock=path)

    def set_to(ms):
        with open(path, "r+b") as f:
            f.write(struct.pack("q", ms))

    return set_to


# ---- calls that are short, interrupted, refused ----------------------------------------------------------------

# Calls that io_uring makes go by the shim.
PLAIN = {"io_uring": "no"}


def test_a_machine_without_ipv6(start, preload):
    preload(no_ipv6=1)
    with start(bind="127.0.0.1 -::1").client() as client:
        assert client("PING") == "PONG"


@pytest.mark.parametrize("seed", SEEDS)
def test_what_clients_say_and_hear_is_whole(start, preload, seed, tmp_path):
    preload(rate=RATE, seed=seed, count=tmp_path / "count")
    rng = random.Random(seed)
    server = start(**PLAIN)
    values = {b"key:%d" % i: rng.randbytes(rng.choice([0, 1, 100, 20000, 70000])) for i in range(200)}
    clients = [server.client() for _ in range(10)]
    for i, c in enumerate(clients):
        c.mine = [key for n, key in enumerate(values) if n % len(clients) == i]
        assert c.pipeline([("SET", key, values[key]) for key in c.mine]) == [OK] * len(c.mine)
    for c in clients:
        assert c.pipeline([("GET", key) for key in values]) == list(values.values())
        assert c("MGET", *values) == list(values.values())
        c.close()
    big = rng.randbytes(20 << 20)
    with server.client() as c:
        assert c("SET", "big", big) == OK and c("GET", "big") == big
    assert server.end() == 0 and int((tmp_path / "count").read_text()) > 20


@pytest.mark.parametrize("policy", ["always", "everysec"])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_kept_is_whole(node, preload, seed, policy):
    preload(rate=RATE, seed=seed)
    a = node(appendfsync=policy, **PLAIN)
    for n in range(3):
        fill(a, 100, f"life{n}-")
        with a.client() as c:
            assert c.pipeline([("INCR", "counter")] * 100)[-1] == 100 * (n + 1)
            if n == 1:
                assert c("SAVE") == OK
            if n == 2:
                c("BGREWRITEAOF")
        before = contents(a)
        a.kill() if n % 2 else a.leave()
        a.start_again()
        assert contents(a) == before


@pytest.mark.parametrize("leader, follower", OUR_PAIRS)
@pytest.mark.parametrize("seed", SEEDS)
def test_followers_get_all(node, relay, preload, seed, leader, follower):
    plain = {"echovault": PLAIN, "redis": {}}
    preload(rate=RATE // 4, seed=seed)  # redis-server gives a handshake up that is refused for the moment
    a = node(leader, **plain[leader])
    fill(a)
    r = relay(a)
    b = node(follower, follow=r, **plain[follower])
    wait_sync(a, b)
    for n in range(3):
        fill(a, 50, f"round{n}-")
        r.cut()
        a.pipeline([("APPEND", "log", "x" * 1000), ("INCR", "n")] * 300)
    wait_same(a, b)


# ---- a clock that jumps --------------------------------------------------------------------------------------


def test_a_clock_that_jumps_forward(start, clock):
    server = start()
    with server.client() as c:
        c("SET", "soon", "x", "PX", HOUR // 2)
        c("SET", "late", "x", "PX", 3 * HOUR)
        c("SET", "never", "x")
        clock(HOUR)
        assert c("PING") == "PONG"
        assert c("MGET", "soon", "late", "never") == [NIL, b"x", b"x"]
        assert 1.9 * HOUR < c("PTTL", "late") <= 2 * HOUR
        assert int(dict(l.split(b":", 1) for l in c("INFO", "stats").split() if b":" in l)[b"expired_keys"]) == 1


def test_a_clock_that_jumps_back(start, clock):
    clock(2 * HOUR)
    server = start(timeout=1)
    with server.client() as c:
        c("SET", "k", "x", "PX", HOUR)
        clock(0)
        assert c("GET", "k") == b"x"
        assert 2.9 * HOUR < c("PTTL", "k") <= 3 * HOUR, "a deadline is a moment, as it is in Redis"
        c("SET", "soon", "x", "PX", 20)
        eventually(lambda: c("EXISTS", "soon") == 0)
        # What is done ten times a second goes on at once: the sweep takes keys that nobody asks for.
        c.pipeline([("SET", f"swept:{i}", "x", "PX", 20) for i in range(20)])
        eventually(lambda: c("DBSIZE") == 1)


def test_jumps_close_no_connection_and_end_no_wait(node, clock):
    a = node(timeout=100, repl_timeout=60)
    b = node(follow=a)
    wait_sync(a, b)
    with a.client() as c:
        for ms in (HOUR, -HOUR, 24 * HOUR, 0):
            clock(ms)
            assert c("SET", "k", ms) == OK
            assert c("WAIT", 1, 20000) == 1
    assert a.syncs() == (1, 0), "the link has held"
    wait_same(a, b)


def test_the_log_of_a_clock_that_went_back_is_read(node, clock):
    clock(HOUR)
    a = node()
    a("SET", "k", "v", "PX", 10 * HOUR)
    a.kill()
    clock(-HOUR)
    a.start_again()
    assert a("GET", "k") == b"v"
    assert 11.9 * HOUR < a("PTTL", "k") <= 12 * HOUR
