"""Deadlines: setting, reading, passing, and being swept."""
import time

import pytest

from ev import NIL, OK, Client, Error, eventually

FAR = 33177117420  # seconds since 1970, in the year 3021
NOT_INTEGER = Error("ERR value is not an integer or out of range")


def test_the_ways_to_set_a_deadline(c):
    for command, value in [("EXPIRE", 100), ("PEXPIRE", 100000), ("EXPIREAT", int(time.time()) + 100),
                           ("PEXPIREAT", int(time.time() * 1000) + 100000)]:
        c("SET", "k", "v")
        assert c(command, "k", value) == 1
        assert 98 <= c("TTL", "k") <= 100
        assert c(command, "missing", value) == 0


def test_the_ways_to_read_a_deadline(c):
    c("SET", "k", "v")
    for command in ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]:
        assert c(command, "k") == -1
        assert c(command, "missing") == -2
    c("EXPIREAT", "k", FAR)
    assert c("EXPIRETIME", "k") == FAR
    assert c("PEXPIRETIME", "k") == FAR * 1000
    assert abs(c("TTL", "k") - (FAR - time.time())) < 2
    assert abs(c("PTTL", "k") - (FAR - time.time()) * 1000) < 2000


def test_persist(c):
    c("SET", "k", "v", "EX", "100")
    assert c("PERSIST", "k") == 1
    assert c("PERSIST", "k") == 0
    assert c("TTL", "k") == -1
    assert c("PERSIST", "missing") == 0


def test_a_deadline_in_the_past_deletes(c):
    for command, value in [("EXPIRE", 0), ("EXPIRE", -1), ("PEXPIRE", -1), ("EXPIREAT", 1), ("PEXPIREAT", 1)]:
        c("SET", "k", "v")
        assert c(command, "k", value) == 1
        assert c("EXISTS", "k") == 0


def test_nx_xx_gt_lt(c):
    c("SET", "k", "v")
    assert c("EXPIREAT", "k", FAR, "XX") == 0
    assert c("EXPIREAT", "k", FAR, "GT") == 0
    assert c("EXPIREAT", "k", FAR, "NX") == 1
    assert c("EXPIREAT", "k", FAR + 10, "NX") == 0
    assert c("EXPIREAT", "k", FAR + 10, "LT") == 0
    assert c("EXPIREAT", "k", FAR + 10, "GT") == 1
    assert c("EXPIREAT", "k", FAR + 5, "XX", "LT") == 1
    assert c("EXPIRETIME", "k") == FAR + 5
    c("PERSIST", "k")
    assert c("EXPIREAT", "k", FAR, "LT") == 1


def test_expire_refuses(c):
    c("SET", "k", "v")
    not_both = Error("ERR NX and XX, GT or LT options at the same time are not compatible")
    assert c("EXPIRE", "k", "10", "NX", "XX") == not_both
    assert c("EXPIRE", "k", "10", "NX", "GT") == not_both
    assert c("EXPIRE", "k", "10", "GT", "LT") == Error(
        "ERR GT and LT options at the same time are not compatible"
    )
    assert c("EXPIRE", "k", "10", "FOO") == Error("ERR Unsupported option FOO")
    assert c("EXPIRE", "k", "x") == NOT_INTEGER
    assert c("EXPIRE", "k", "1.5") == NOT_INTEGER
    for command in ["EXPIRE", "EXPIREAT", "PEXPIRE"]:
        assert c(command, "k", str(2**63 - 1)) == Error(f"ERR invalid expire time in '{command.lower()}' command")
    assert c("EXPIRE", "k", str(-(2**63))) == Error("ERR invalid expire time in 'expire' command")
    assert c("TTL", "k") == -1


@pytest.mark.parametrize("sweep", ["0", "1"])
def test_no_command_sees_a_key_past_its_deadline(c, sweep):
    c("DEBUG", "SET-ACTIVE-EXPIRE", sweep)
    c("PSETEX", "k", "150", "v")
    assert c("GET", "k") == b"v"
    time.sleep(0.2)
    assert c("EXISTS", "k") == 0
    assert c("GET", "k") is NIL
    assert c("TTL", "k") == -2
    assert c("KEYS", "*") == []
    assert c("EXPIRE", "k", "10") == 0
    assert c("APPEND", "k", "new") == 3
    assert c("TTL", "k") == -1
    c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_setnx_over_an_expired_key(c):
    c("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    c("PSETEX", "k", "10", "v")
    time.sleep(0.03)
    assert c("SETNX", "k", "w") == 1
    assert c("RENAME", "k", "l") == OK
    c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_expired_keys_are_reclaimed_without_being_asked_for(c):
    c.pipeline([("SET", f"k{i}", "v", "PX", 50 + i % 50) for i in range(20000)])
    c("SET", "stays", "v")
    eventually(lambda: c("DBSIZE") == 1)


def test_the_sweep_does_not_stall_the_others(c):
    """200,000 keys reach their deadline in the same millisecond."""
    at = int(time.time() * 1000) + 4000
    c.pipeline([("SET", f"k{i}", "v", "PXAT", at) for i in range(200000)])
    worst = 0
    while c("DBSIZE"):
        before = time.perf_counter()
        c("PING")
        worst = max(worst, time.perf_counter() - before)
        assert time.time() * 1000 < at + 60000
    assert worst < 0.1


def test_info_counts_expired_keys_and_deadlines(c):
    c("CONFIG", "RESETSTAT")
    c("SET", "k", "v", "EX", "100")
    c("SET", "gone", "v", "PX", "1")
    eventually(lambda: c("DBSIZE") == 1)
    info = c("INFO").decode()
    assert "expired_keys:1\r\n" in info
    assert "db0:keys=1,expires=1,avg_ttl=" in info


@pytest.mark.parametrize("events", ["", "KEA"])
@pytest.mark.parametrize("command", ["SET k w", "SETEX k 100 w", "MSET k w", "GETSET k w", "COPY z k", "RENAME z k",
                                     "BITOP NOT k z", "APPEND k x"])
def test_what_is_set_over_an_expired_key_counts_it_as_expired(c, oracle, command, events):
    with oracle.client() as r, oracle.client() as heard_r, Client(c.socket.getpeername()[1]) as heard_c:
        for client, heard in (c, heard_c), (r, heard_r):
            client("FLUSHALL")
            client("CONFIG", "SET", "notify-keyspace-events", events)
            client("DEBUG", "SET-ACTIVE-EXPIRE", "0")
            client("CONFIG", "RESETSTAT")
            heard("SUBSCRIBE", "__keyspace@0__:k")
            client("SET", "z", "1")
            client("SET", "k", "v", "PX", "1")
            time.sleep(0.02)
            client(*command.split())
            assert b"expired_keys:1\r\n" in client("INFO", "stats")
            assert not events or [heard.read()[2] for _ in range(3)] == [b"set", b"expire", b"expired"]
            client("DEBUG", "SET-ACTIVE-EXPIRE", "1")
            client("CONFIG", "SET", "notify-keyspace-events", "")
    assert c("TTL", "k") == (100 if command.startswith("SETEX") else -1)
