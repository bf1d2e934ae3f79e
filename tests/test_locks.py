"""Compare-and-set, compare-and-delete, MSETEX and INCREX: what Redis 7.0 needs a script for, as its successors define it.

The oracle does not know these commands; what they answer is taken from the documentation of Redis 8.8 and Valkey 9,
and INCREX is compared with a model. That a redis-server 7.0 can read what they log is tested with one.
"""
import random
import time

import pytest

from ev import NIL, OK, Double, Error, ours
from persist_tools import Durable, aof, parse_log, read, state, state_in_redis

pytestmark = ours
SYNTAX = Error("ERR syntax error")
LEAST, MOST = -(1 << 63), (1 << 63) - 1


# ---- SET IFEQ and IFNE, DELIFEQ, DELEX ---------------------------------------------------------------------


def test_set_ifeq(c):
    assert c("SET", "k", "new", "IFEQ", "old") is NIL
    assert c("EXISTS", "k") == 0
    c("SET", "k", "old")
    assert c("SET", "k", "new", "IFEQ", "other") is NIL
    assert c("GET", "k") == b"old"
    assert c("SET", "k", "new", "ifeq", "old", "EX", "100") == OK
    assert (c("GET", "k"), c("TTL", "k")) == (b"new", 100)
    assert c("SET", "k", "newer", "IFEQ", "new", "KEEPTTL") == OK
    assert c("TTL", "k") == 100


def test_set_ifne(c):
    assert c("SET", "k", "1", "IFNE", "2") == OK
    assert c("SET", "k", "2", "IFNE", "1") is NIL
    assert c("SET", "k", "2", "IFNE", "3") == OK
    assert c("GET", "k") == b"2"


def test_a_condition_with_get_answers_the_old_value(c):
    assert c("SET", "k", "v", "IFEQ", "x", "GET") is NIL
    assert c("EXISTS", "k") == 0
    assert c("SET", "k", "v", "IFNE", "x", "GET") is NIL
    assert c("GET", "k") == b"v"
    assert c("SET", "k", "w", "GET", "IFEQ", "x") == b"v"
    assert c("SET", "k", "w", "GET", "IFEQ", "v") == b"v"
    assert c("GET", "k") == b"w"


@pytest.mark.parametrize("value", [b"", b"\0\xff\r\n", b"12345", b"x" * 40000])
def test_values_are_compared_byte_by_byte(c, value):
    for other in [value + b"y", value[:-1] + b"z"]:
        c("SET", "k", value)
        assert c("SET", "k", "w", "IFEQ", other) is NIL
        assert c("DELIFEQ", "k", other) == 0
        assert c("SET", "k", "w", "IFEQ", value) == OK
    c("SET", "k", value)
    assert c("DELIFEQ", "k", value) == 1
    assert c("EXISTS", "k") == 0


@pytest.mark.parametrize("options", ["IFEQ", "IFEQ a NX", "XX IFNE a", "IFEQ a IFNE b", "IFEQ a IFEQ a", "IFDEQ 0"])
def test_contradicting_conditions(c, options):
    assert c("SET", "k", "v", *options.split()) == SYNTAX
    assert c("GETEX", "k", *options.split()) == SYNTAX


def test_delifeq_and_delex(c):
    assert c("DELIFEQ", "k", "v") == c("DELEX", "k") == c("DELEX", "k", "IFEQ", "v") == c("DELEX", "k", "IFNE", "v") == 0
    c("MSET", "a", "1", "b", "1", "c", "1", "d", "1")
    assert c("DELIFEQ", "a", "2") == c("DELEX", "b", "ifeq", "2") == c("DELEX", "c", "IFNE", "1") == 0
    assert c("DBSIZE") == 4
    assert c("DELIFEQ", "a", "1") == c("DELEX", "b", "IFEQ", "1") == c("DELEX", "c", "ifne", "2") == c("DELEX", "d") == 1
    assert c("DBSIZE") == 0


def test_what_delex_refuses(c):
    c("SET", "k", "v")
    for words in ["IFEQ", "IFEQ v x"]:
        assert c("DELEX", "k", *words.split()) == Error("ERR wrong number of arguments for 'delex' command")
    assert c("DELEX", "k", "NX", "v") == Error("ERR Invalid condition. Use IFEQ or IFNE")
    assert c("DELIFEQ", "k") == Error("ERR wrong number of arguments for 'delifeq' command")
    assert c("GET", "k") == b"v"


def test_a_lock_whose_time_is_over_is_nobodys(c):
    c("SET", "lock", "mine", "PX", "20")
    time.sleep(0.03)
    assert c("DELIFEQ", "lock", "mine") == 0
    assert c("SET", "lock", "mine", "IFEQ", "mine") is NIL
    assert c("SET", "lock", "yours", "NX", "PX", "1000") == OK


# ---- MSETEX ------------------------------------------------------------------------------------------------


def test_msetex_sets_all_or_none(c):
    assert c("MSETEX", "2", "a", "1", "b", "2") == 1
    assert (c("MGET", "a", "b"), c("TTL", "a")) == ([b"1", b"2"], -1)
    assert c("MSETEX", "2", "b", "3", "c", "3", "NX") == c("MSETEX", "2", "b", "3", "c", "3", "XX") == 0
    assert c("MGET", "b", "c") == [b"2", NIL]
    assert c("MSETEX", "2", "c", "3", "d", "4", "nx", "EX", "100") == 1
    assert c("TTL", "c") == c("TTL", "d") == 100
    assert c("MSETEX", "2", "a", "5", "c", "5", "KEEPTTL", "XX") == 1
    assert (c("TTL", "a"), c("TTL", "c"), c("MGET", "a", "c")) == (-1, 100, [b"5", b"5"])
    assert c("MSETEX", "2", "k", "1", "k", "2", "PXAT", str(int(time.time() * 1000) + 50000)) == 1
    assert (c("GET", "k"), c("TTL", "k")) == (b"2", 50)


@pytest.mark.parametrize("args, error", [
    ("0 a 1", "invalid numkeys value"), ("x a 1", "invalid numkeys value"), ("2147483648 a 1", "invalid numkeys value"),
    ("2 a 1 b", "wrong number of key-value pairs"), ("2147483647 a 1", "wrong number of key-value pairs"),
    ("1 a 1 b", "syntax error"), ("1 a 1 NX XX", "syntax error"), ("1 a 1 EX", "syntax error"),
    ("1 a 1 EX 1 PX 1", "syntax error"), ("1 a 1 KEEPTTL EX 1", "syntax error"), ("1 a 1 GET", "syntax error"),
    ("1 a 1 IFEQ 1", "syntax error"), ("1 a 1 EX 0", "invalid expire time in 'msetex' command"),
    ("1 a", "wrong number of arguments for 'msetex' command"),
])  # fmt: skip
def test_what_msetex_refuses(c, args, error):
    assert c("MSETEX", *args.split()) == Error(f"ERR {error}")
    assert c("DBSIZE") == 0


def test_keys_of_msetex(c):
    assert c("COMMAND", "GETKEYS", "MSETEX", "2", "a", "1", "b", "2", "NX") == [b"a", b"b"]
    assert c("COMMAND", "GETKEYS", "MSETEX", "3", "a", "1", "b", "2") == Error(
        "ERR Invalid arguments specified for command"
    )


# ---- INCREX ------------------------------------------------------------------------------------------------


def test_increx_counts_by_one_from_nothing(c):
    assert [c("INCREX", "n") for _ in range(3)] == [[1, 1], [2, 1], [3, 1]]
    assert (c("GET", "n"), c("TTL", "n")) == (b"3", -1)


def test_increx_is_a_rate_limiter(c):
    hit = lambda: c("INCREX", "r", "UBOUND", "3", "PX", "60", "ENX")  # noqa: E731
    assert [hit() for _ in range(5)] == [[1, 1], [2, 1], [3, 1], [3, 0], [3, 0]]
    time.sleep(0.08)
    assert hit() == [1, 1]


def test_increx_and_deadlines(c):
    c("SET", "n", "1", "EX", "100")
    assert c("INCREX", "n") == [2, 1] and c("TTL", "n") == 100
    assert c("INCREX", "n", "EX", "50", "ENX") == [3, 1] and c("TTL", "n") == 100
    assert c("INCREX", "n", "EXAT", "1", "ENX") == [4, 1] and c("TTL", "n") == 100
    assert c("INCREX", "n", "PX", "50000") == [5, 1] and c("TTL", "n") == 50
    assert c("INCREX", "n", "BYINT", "9", "UBOUND", "10", "EX", "100") == [5, 0] and c("TTL", "n") == 50
    assert c("INCREX", "n", "BYINT", "9", "UBOUND", "10", "SATURATE", "EX", "100") == [10, 5] and c("TTL", "n") == 100
    assert c("INCREX", "n", "BYINT", "0", "PERSIST") == [10, 0] and c("TTL", "n") == -1
    assert c("INCREX", "n", "EX", "10", "ENX") == [11, 1] and c("TTL", "n") == 10
    assert c("INCREX", "n", "EXAT", "1") == [12, 1] and c("EXISTS", "n") == 0
    assert c("INCREX", "n", "PXAT", "1") == [1, 1] and c("EXISTS", "n") == 0


def test_increx_by_fractions(c, c3):
    assert c("INCREX", "f", "BYFLOAT", "1.5") == [b"1.5", b"1.5"]
    assert c3("INCREX", "f", "BYFLOAT", "-0.25") == [Double("1.25"), Double("-0.25")]
    assert c("INCREX", "f", "BYFLOAT", "10", "UBOUND", "1.5") == [b"1.25", b"0"]
    assert c("INCREX", "f", "BYFLOAT", "10", "UBOUND", "1.5", "SATURATE") == [b"1.5", b"0.25"]
    assert c("INCREX", "f") == Error("ERR value is not an integer or out of range")
    assert c("INCREX", "f", "BYFLOAT", "inf") == [b"1.5", b"0"]
    assert isinstance(c("INCREX", "f", "BYFLOAT", "1", "LBOUND", "inf", "UBOUND", "inf", "SATURATE"), Error)
    assert c("GET", "f") == b"1.5"


@pytest.mark.parametrize("args, error", [
    ("FOO", "syntax error"), ("BYINT", "syntax error"), ("BYINT 1 BYFLOAT 1", "syntax error"), ("NX", "syntax error"),
    ("BYINT 1 BYINT 2", "syntax error"), ("EX 10 EX 10", "syntax error"), ("SATURATE SATURATE", "syntax error"),
    ("EX 10 PERSIST", "syntax error"), ("PERSIST ENX", "syntax error"), ("UBOUND 1 UBOUND 2", "syntax error"),
    ("ENX", "ENX flag requires an expiration"), ("EX 0", "invalid expire time in 'increx' command"),
    ("BYINT 1.5", "Increment is not an integer or out of range"), ("BYFLOAT x", "Increment is not a valid float"),
    ("LBOUND x", "LBOUND is not an integer or out of range"), ("BYFLOAT 1 UBOUND x", "UBOUND is not a valid float"),
    ("LBOUND 2 UBOUND 1", "LBOUND can't be greater than UBOUND"),
])  # fmt: skip
def test_what_increx_refuses(c, args, error):
    assert c("INCREX", "n", *args.split()) == Error(f"ERR {error}")
    assert c("EXISTS", "n") == 0


def model(value, by, least, most, saturate):
    """What INCREX answers with integers; None: an error."""
    total = value + by
    if not least <= total <= most:
        total = min(max(total, least), most) if saturate else value
    return [total, total - value] if LEAST <= total - value <= MOST else None


def test_increx_agrees_with_a_model(c):
    r = random.Random(7)
    numbers = [LEAST, LEAST + 1, -7, -1, 0, 1, 3, 1000, MOST - 1, MOST]
    for _ in range(2000):
        value, by, (least, most), saturate = *r.choices(numbers, k=2), sorted(r.choices(numbers, k=2)), r.random() < 0.5
        c("SET", "n", value)
        reply = c("INCREX", "n", "LBOUND", least, "BYINT", by, *["SATURATE"] * saturate, "UBOUND", most)
        expected = model(value, by, least, most, saturate)
        assert isinstance(reply, Error) if expected is None else reply == expected, (value, by, least, most, saturate)
        assert c("GET", "n") == str(value if expected is None else expected[0]).encode()


# ---- what is told and what is logged -----------------------------------------------------------------------


def test_events(c, other):
    c("CONFIG", "SET", "notify-keyspace-events", "KEA")
    other("PSUBSCRIBE", "__keyevent@0__:*")
    c("MSETEX", "2", "a", "1", "b", "1", "EX", "100")
    c("INCREX", "a", "PERSIST")
    c("INCREX", "a", "BYFLOAT", "1", "EX", "10")
    c("INCREX", "a", "UBOUND", "0")
    c("DELEX", "b", "IFNE", "1")
    c("DELIFEQ", "b", "1")
    events = "set:a expire:a set:b expire:b incrby:a persist:a incrbyfloat:a expire:a del:b"
    c("CONFIG", "SET", "notify-keyspace-events", "")
    for event in events.split():
        name, key = event.split(":")
        assert other.read()[2:] == [f"__keyevent@0__:{name}".encode(), key.encode()]


WORK = [
    ("SET", "k", "1"), ("SET", "k", "2", "IFEQ", "1"), ("SET", "k", "3", "IFEQ", "1"),
    ("SET", "k", "4", "IFNE", "0", "EX", "900"), ("SET", "gone", "x"), ("DELIFEQ", "gone", "y"), ("DELIFEQ", "gone", "x"),
    ("SET", "gone", "x"), ("DELEX", "gone", "IFNE", "y"),
    ("MSETEX", "2", "a", "1", "b", "2"), ("MSETEX", "1", "a", "1", "NX"), ("MSETEX", "2", "c", "1", "d", "2", "EX", "900"),
    ("MSETEX", "3", "c", "3", "a", "3", "e", "3", "KEEPTTL"),
    ("INCREX", "n"), ("INCREX", "n", "BYINT", "5", "UBOUND", "4", "SATURATE", "EX", "900"), ("INCREX", "n", "PERSIST"),
    ("INCREX", "f", "BYFLOAT", "0.1"), ("INCREX", "f", "BYFLOAT", "0.2", "EX", "900", "ENX"), ("INCREX", "x", "EX", "900"),
    ("INCREX", "x", "EXAT", "1"), ("MSETEX", "2", "late", "1", "later", "1", "PXAT", "1"),
]  # fmt: skip


def test_the_log_is_plain_redis_70(tmp_path):
    """Within MULTI and without, the log is MULTI, EXEC, SET with no condition but a time, and DEL; redis-check-aof
    finds it well; a redis-server and a second start make the same data of it."""
    with Durable(tmp_path) as s, s.client() as c:
        for command in [("MSETEX", "2", "big", "x" * 50000, "big", "y" * 50000, "PX", "900000"), *WORK]:
            assert not isinstance(c(*command), Error), command
        c("SELECT", "1")
        assert len(c.transaction(*WORK)) == len(WORK)
        whole = state(c)
    log = [argv for _, argv in parse_log(read(aof(tmp_path))) if argv[0] not in (b"PING", b"SELECT")]
    assert {argv[0] for argv in log} == {b"SET", b"DEL", b"MULTI", b"EXEC"}
    assert {argv[3] for argv in log if argv[0] == b"SET" and len(argv) > 3} == {b"PXAT", b"KEEPTTL"}
    names = [argv[0] for argv in log]
    assert [name for name in names if name in (b"MULTI", b"EXEC")] == [b"MULTI", b"EXEC"] * 6  # of two pairs or more
    with Durable(tmp_path) as s, s.client() as c:
        assert state(c) == whole
    assert state_in_redis(tmp_path) == whole
