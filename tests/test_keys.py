"""Keys, databases, SCAN, DUMP and RESTORE."""
import random

import pytest

from ev import NIL, OK, Error, Status, eventually

NOT_INTEGER = Error("ERR value is not an integer or out of range")
SYNTAX = Error("ERR syntax error")


def scan(c, *options):
    """All keys that a whole iteration answers, repetitions included."""
    cursor, keys = b"0", []
    while True:
        cursor, some = c("SCAN", cursor, *options)
        keys += some
        if cursor == b"0":
            return keys


# ---- existence ---------------------------------------------------------------------------------------------


def test_del_unlink_exists_touch(c):
    c("MSET", "a", "1", "b", "2", "c", "3")
    assert c("EXISTS", "a", "a", "missing") == 2
    assert c("TOUCH", "a", "b", "missing") == 2
    assert c("DEL", "a", "a", "missing") == 1
    assert c("UNLINK", "b", "missing") == 1
    assert c("EXISTS", "a", "b") == 0
    assert c("DBSIZE") == 1


def test_type(c):
    c("SET", "k", "v")
    assert c("TYPE", "k") == Status("string")
    assert c("TYPE", "missing") == Status("none")


def test_randomkey(c):
    assert c("RANDOMKEY") is NIL
    c("MSET", "a", "1", "b", "2", "c", "3")
    assert {c("RANDOMKEY") for _ in range(200)} == {b"a", b"b", b"c"}


def test_randomkey_passes_over_expired_keys(c):
    c("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    c.pipeline([("SET", f"dead{i}", "v", "PX", "1") for i in range(100)])
    c("SET", "alive", "v")
    eventually(lambda: c("RANDOMKEY") == b"alive" and c("EXISTS", *[f"dead{i}" for i in range(100)]) == 0)
    c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


# ---- patterns ----------------------------------------------------------------------------------------------

NAMES = ["hello", "hallo", "hxllo", "hllo", "heeeello", "h*llo", "h[llo", "HELLO", "a^b", "-", "h\\llo"]


@pytest.mark.parametrize(
    "pattern",
    ["*", "h?llo", "h*llo", "h[ae]llo", "h[^e]llo", "h[a-b]llo", "h[b-a]llo", r"h\*llo", r"h\[llo", "h[", "h[a",
     "h[^", "hello", "", "**", "*l*o", "?*", "[-]", "[a]^b", r"h[\a]llo", "h\\", "h\\\\llo", "[h-", "HEL?O", "h[a-"],
)
def test_patterns_match_as_redis_matches(c, oracle, pattern):
    with oracle.client() as r:
        r("FLUSHALL")
        for name in NAMES:
            c("SET", name, "v")
            r("SET", name, "v")
        right = sorted(r("KEYS", pattern))
        assert sorted(c("KEYS", pattern)) == right
        assert sorted(scan(c, "MATCH", pattern)) == right


def test_a_pattern_of_many_stars_ends_soon(c):
    c("SET", "a" * 60, "v")
    assert c("KEYS", "a*" * 30 + "b") == []


# ---- SCAN --------------------------------------------------------------------------------------------------


def test_scan_answers_every_key_once_while_nothing_changes(c):
    keys = [b"key:%d" % i for i in range(5000)]
    c.pipeline([("SET", k, "v") for k in keys])
    assert sorted(set(scan(c))) == sorted(keys)
    assert sorted(set(scan(c, "COUNT", "1000"))) == sorted(keys)
    assert sorted(set(scan(c, "TYPE", "string"))) == sorted(keys)
    assert scan(c, "TYPE", "list") == []
    assert sorted(set(scan(c, "MATCH", "key:1??", "COUNT", "100"))) == sorted(b"key:1%02d" % i for i in range(100))


@pytest.mark.parametrize("change", ["grow", "shrink"])
def test_scan_misses_no_lasting_key_while_the_table_changes_its_size(c, change):
    lasting = {b"lasting:%d" % i for i in range(300)}
    passing = [f"passing:{i}" for i in range(20000)]
    c.pipeline([("SET", k, "v") for k in lasting])
    if change == "shrink":
        c.pipeline([("SET", k, "v") for k in passing])
    cursor, seen = b"0", set()
    while True:
        cursor, some = c("SCAN", cursor, "COUNT", "20")
        seen.update(some)
        if cursor == b"0":
            break
        some, passing = passing[:1000], passing[1000:]
        c.pipeline([("SET", k, "v") if change == "grow" else ("DEL", k) for k in some])
    assert seen >= lasting


def test_scan_leaves_out_what_expired(c):
    c("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    c("SET", "dead", "v", "PX", "1")
    c("SET", "alive", "v")
    eventually(lambda: scan(c) == [b"alive"])
    c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_scan_refuses(c):
    assert c("SCAN", "x") == Error("ERR invalid cursor")
    assert c("SCAN", "18446744073709551616") == Error("ERR invalid cursor")
    assert c("SCAN", "0", "COUNT", "0") == SYNTAX
    assert c("SCAN", "0", "COUNT", "x") == NOT_INTEGER
    assert c("SCAN", "0", "MATCH") == SYNTAX
    assert c("SCAN", "0", "FOO", "x") == SYNTAX


def test_scan_takes_any_cursor(c):
    c("SET", "k", "v")
    for cursor in ["1", "123456789", "18446744073709551615"]:
        assert isinstance(c("SCAN", cursor), list)


# ---- moving ------------------------------------------------------------------------------------------------


def test_rename(c):
    no_key = Error("ERR no such key")
    assert c("RENAME", "a", "b") == no_key
    assert c("RENAMENX", "a", "b") == no_key
    c("SET", "a", "1", "EX", "100")
    c("SET", "b", "2")
    assert c("RENAMENX", "a", "b") == 0
    assert c("RENAME", "a", "b") == OK
    assert c("GET", "b") == b"1"
    assert c("TTL", "b") == 100
    assert c("RENAME", "b", "b") == OK
    assert c("RENAMENX", "b", "b") == 0
    assert c("RENAMENX", "b", "c") == 1
    assert c("KEYS", "*") == [b"c"]


def test_copy(c):
    c("SET", "a", "1", "EX", "100")
    assert c("COPY", "a", "b") == 1
    assert c("COPY", "a", "b") == 0
    assert c("TTL", "b") == 100
    c("SET", "a", "2")
    assert c("GET", "b") == b"1"
    assert c("COPY", "a", "b", "REPLACE") == 1
    assert c("TTL", "b") == -1
    assert c("COPY", "missing", "b") == 0
    assert c("COPY", "a", "a") == Error("ERR source and destination objects are the same")
    assert c("COPY", "a", "a", "DB", "1") == 1
    assert c("COPY", "a", "b", "DB", "16") == Error("ERR DB index is out of range")
    assert c("COPY", "a", "b", "DB", "x") == Error("ERR value is not an integer or out of range")
    assert c("COPY", "a", "b", "FOO") == SYNTAX


def test_databases_are_apart(c):
    c("SET", "k", "zero")
    assert c("SELECT", "15") == OK
    assert c("GET", "k") is NIL
    c("SET", "k", "fifteen")
    c("SELECT", "0")
    assert c("GET", "k") == b"zero"
    assert c("SELECT", "16") == Error("ERR DB index is out of range")
    assert c("SELECT", "-1") == Error("ERR DB index is out of range")
    assert c("SELECT", "x") == Error("ERR value is not an integer or out of range")


def test_move(c):
    c("SET", "k", "v", "EX", "100")
    assert c("MOVE", "k", "0") == Error("ERR source and destination objects are the same")
    assert c("MOVE", "k", "1") == 1
    assert c("MOVE", "k", "1") == 0
    c("SET", "k", "other")
    assert c("MOVE", "k", "1") == 0
    assert c("MOVE", "k", "16") == Error("ERR DB index is out of range")
    assert c("MOVE", "k", "x") == Error("ERR value is not an integer or out of range")
    c("SELECT", "1")
    assert c("GET", "k") == b"v"
    assert c("TTL", "k") == 100


def test_swapdb(c, other):
    c("SET", "k", "zero")
    other("SELECT", "1")
    assert c("SWAPDB", "0", "1") == OK
    assert c("GET", "k") is NIL
    assert other("GET", "k") == b"zero"
    assert c("SWAPDB", "0", "0") == OK
    assert c("SWAPDB", "0", "16") == Error("ERR DB index is out of range")
    assert c("SWAPDB", "x", "1") == Error("ERR invalid first DB index")
    assert c("SWAPDB", "0", "x") == Error("ERR invalid second DB index")


def test_flush(c):
    c("SET", "k", "v")
    c("SELECT", "1")
    c("SET", "k", "v")
    assert c("FLUSHDB") == OK
    assert c("DBSIZE") == 0
    c("SELECT", "0")
    assert c("DBSIZE") == 1
    assert c("FLUSHALL", "ASYNC") == OK
    assert c("DBSIZE") == 0
    assert c("FLUSHALL", "SYNC") == OK
    assert c("FLUSHDB", "FOO") == SYNTAX
    assert c("FLUSHALL", "SYNC", "ASYNC") == SYNTAX


# ---- OBJECT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, encoding",
    [("1", b"int"), ("-9223372036854775808", b"int"), ("9223372036854775808", b"embstr"), ("01", b"embstr"),
     ("", b"embstr"), ("x" * 44, b"embstr"), ("x" * 45, b"raw"), ("1.5", b"embstr")],
)
def test_object_encoding(c, value, encoding):
    c("SET", "k", value)
    assert c("OBJECT", "ENCODING", "k") == encoding


def test_object_encoding_of_edited_values(c):
    c("SET", "k", "abc")
    c("APPEND", "k", "d")
    assert c("OBJECT", "ENCODING", "k") == b"raw"
    c("SET", "n", "10")
    c("INCR", "n")
    assert c("OBJECT", "ENCODING", "n") == b"int"
    assert c("OBJECT", "ENCODING", "missing") is NIL


def test_object_idletime_and_freq(c):
    c("SET", "k", "v")
    assert c("OBJECT", "IDLETIME", "k") == 0
    assert c("OBJECT", "REFCOUNT", "k") == 1
    assert c("OBJECT", "FREQ", "k") == Error(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when "
        "switching between policies at runtime LRU and LFU data will take some time to adjust."
    )
    assert c("OBJECT", "FOO", "k") == Error("ERR unknown subcommand 'FOO'. Try OBJECT HELP.")


# ---- DUMP and RESTORE --------------------------------------------------------------------------------------


def values():
    rng = random.Random(7)
    yield from (b"", b"a", b"123", b"-1", b"127", b"128", b"-32769", b"2147483648", b"007", b" 1", b"x" * 64)
    yield from (b"x" * 70000, rng.randbytes(20000), b"abc" * 7000 + rng.randbytes(1000), bytes(100000))


def test_dump_and_restore(c):
    for value in values():
        c("SET", "k", value)
        assert c("RESTORE", "copy", "0", c("DUMP", "k"), "REPLACE") == OK
        assert c("GET", "copy") == value
    assert c("DUMP", "missing") is NIL


def test_dump_and_restore_across_servers(c, oracle):
    with oracle.client() as r:
        for value in values():
            c("SET", "k", value)
            r("SET", "k", value)
            assert r("RESTORE", "k", "0", c("DUMP", "k"), "REPLACE") == OK
            assert c("RESTORE", "k", "0", r("DUMP", "k"), "REPLACE") == OK
            assert c("GET", "k") == r("GET", "k") == value


def test_restore_options(c):
    c("SET", "k", "v")
    dump = c("DUMP", "k")
    assert c("RESTORE", "k", "0", dump) == Error("BUSYKEY Target key name already exists.")
    assert c("RESTORE", "k", "100000", dump, "REPLACE") == OK
    assert c("TTL", "k") == 100
    assert c("RESTORE", "k", "33177117420000", dump, "REPLACE", "ABSTTL") == OK
    assert c("PEXPIRETIME", "k") == 33177117420000
    assert c("RESTORE", "k", "1", dump, "REPLACE", "ABSTTL") == OK
    assert c("EXISTS", "k") == 0
    assert c("RESTORE", "k", "0", dump, "IDLETIME", "1000") == OK
    assert c("OBJECT", "IDLETIME", "k") in (1000, 1001)
    assert c("RESTORE", "k", "-1", dump, "REPLACE") == Error("ERR Invalid TTL value, must be >= 0")
    assert c("RESTORE", "k", "x", dump, "REPLACE") == NOT_INTEGER
    assert c("RESTORE", "k", "0", dump, "FOO") == SYNTAX
    assert c("RESTORE", "k", "0", dump, "REPLACE", "IDLETIME", "-1") == Error(
        "ERR Invalid IDLETIME value, must be >= 0"
    )
    assert c("RESTORE", "k", "0", dump, "REPLACE", "FREQ", "256") == Error(
        "ERR Invalid FREQ value, must be >= 0 and <= 255"
    )


def test_restore_refuses_damage_at_every_byte(c):
    c("SET", "k", "some value")
    dump = c("DUMP", "k")
    damaged = Error("ERR DUMP payload version or checksum are wrong")
    for i in range(len(dump)):
        assert c("RESTORE", "new", "0", dump[:i]) == damaged
        assert c("RESTORE", "new", "0", dump[:i] + bytes([dump[i] ^ 1]) + dump[i + 1 :]) == damaged
    assert c("EXISTS", "new") == 0
