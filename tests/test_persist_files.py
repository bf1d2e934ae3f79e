"""Damaged and foreign files: the right state or a clear refusal, never silently wrong data; nothing thrown away."""
import os
import random
import shutil
import subprocess

import pytest

from ev import OK, Server, eventually, need, ours
from persist_tools import (HEADER, Durable, aof, info, parse_log, rdb, read, state, state_in_redis, try_start,
                           try_variants, wait_saved, write)

pytestmark = ours


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small data set whose server was stopped cleanly: the folder, its state, and the state after each prefix."""
    folder = tmp_path_factory.mktemp("small")
    with Durable(folder) as s, s.client() as c:
        c("SET", "a", "1")
        c("INCR", "a")
        c("SET", "binary\0\r\n", bytes(range(256)))
        c("SELECT", 2)
        c("SET", "deadline", "x", "PXAT", 99999999999999)
        c.transaction(("SET", "t1", "one"), ("SET", "t2", "two"), ("APPEND", "t1", "-more"))
        c("SELECT", 0)
        c("DEL", "a")
        c("SET", "last", "z" * 40)
        found = state(c)
    return folder, found


def prefix_states(data):
    """The states that a log cut at each byte may lead to: [(up to this byte, state)], whole transactions only."""
    states, keys, db, pending = [(HEADER, {})], {}, 0, None
    for end, argv in parse_log(data):
        name = argv[0].upper()
        if name == b"SELECT":
            db = int(argv[1])
        elif name == b"MULTI":
            pending = (dict(keys), db)
        elif name == b"EXEC":
            pending = None
        elif name == b"SET":
            deadline = int(argv[4]) if len(argv) > 4 else -1
            keys[db, argv[1]] = (argv[2], deadline)
        elif name == b"APPEND":
            keys[db, argv[1]] = (keys[db, argv[1]][0] + argv[2], -1)
        elif name == b"INCR":
            keys[db, argv[1]] = (b"%d" % (int(keys[db, argv[1]][0]) + 1), -1)
        elif name == b"DEL":
            del keys[db, argv[1]]
        else:
            assert name == b"PING"
        if pending is None:
            states.append((end, dict(keys)))
    return states


def test_the_log_cut_at_every_byte(small):
    folder, whole = small
    data = read(aof(folder))
    states = prefix_states(data)
    assert states[-1][1] == whole

    def make(to, n):
        write(aof(to), data[:n])

    for n, after, found, said in try_variants(range(len(data)), make):
        name = os.path.basename(aof(folder))
        if n < HEADER:
            assert found is None and name in said and "header" in said
            assert after == {name: data[:n]}
            continue
        end, right = [s for s in states if s[0] <= n][-1]
        assert found == right, f"cut at {n}"
        if n == end:
            continue
        assert "torn end" in said
        (side,) = [content for file, content in after.items() if ".cut-" in file]
        assert data[:n] == data[:end] + side, "the rest was kept"


@pytest.mark.parametrize("flip", [0x01, 0x20, 0xFF, None])
def test_the_log_with_every_byte_flipped(small, flip):
    folder, whole = small
    data = read(aof(folder))
    rng = random.Random(7)

    def make(to, n):
        mask = flip or rng.randrange(1, 256)
        write(aof(to), data[:n] + bytes([data[n] ^ mask]) + data[n + 1 :])

    refused = 0
    for n, after, found, said in try_variants(range(len(data)), make):
        assert found in (None, whole), f"byte {n}"
        refused += found is None
        if found is None:
            assert os.path.basename(aof(folder)) in said
            assert len(after) == 1 and len(after[os.path.basename(aof(folder))]) == len(data), "the file was touched"
    assert refused > (len(data) - HEADER) // 2


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """A small snapshot alone: the folder and its state."""
    folder = tmp_path_factory.mktemp("snapshot")
    with Durable(folder, appendonly="no") as s, s.client() as c:
        for i in (0, -1, 127, 128, -32769, 1 << 31, 12345678901):
            c("SET", f"n{i}", i)
        c("SET", "text", "compressible " * 10)
        c("SELECT", 3)
        c("SET", b"\x00\xff", "v", "PXAT", 99999999999999)
        assert c("SAVE") == OK
        return folder, state(c)


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_the_snapshot_with_every_byte_flipped(snapshot, flip):
    folder, whole = snapshot
    data = read(rdb(folder))

    def make(to, n):
        write(rdb(to), data[:n] + bytes([data[n] ^ flip]) + data[n + 1 :])

    refused = 0
    for n, after, found, said in try_variants(range(len(data)), make):
        assert found in (None, whole), f"byte {n}"
        refused += found is None
        assert found or (os.path.basename(rdb(folder)) in said and len(after) == 1), said
    assert refused > len(data) * 9 // 10


def test_the_snapshot_cut_at_every_byte(snapshot):
    folder, _ = snapshot
    data = read(rdb(folder))

    def make(to, n):
        write(rdb(to), data[:n])

    for n, after, found, said in try_variants(range(len(data)), make):
        assert found is None and "cut off" in said or n < 9, f"cut at {n}: {said}"
        assert after == {os.path.basename(rdb(folder)): data[:n]}


def test_a_torn_end_is_refused_where_the_user_says_so(small, tmp_path):
    folder, _ = small
    write(aof(tmp_path), read(aof(folder))[:-100])
    found, said = try_start(tmp_path, aof_load_truncated="no")
    assert found is None and "aof-load-truncated" in said


def test_what_has_been_synced_is_not_taken_for_a_torn_end(tmp_path):
    """Not even without a clean end: a later checksum says so."""
    with Durable(tmp_path, appendfsync="always") as s, s.client() as c:
        for i in range(20):
            c("SET", "key", f"value {i}")
        s.kill()
    data = read(aof(tmp_path))
    at = data.index(b"value 3")
    write(aof(tmp_path), data[:at] + b"valve" + data[at + 5 :])
    found, said = try_start(tmp_path)
    assert found is None and "safe on the disk" in said


def test_zeros_that_a_power_cut_leaves_in_the_middle_of_a_value(tmp_path):
    """The log's unsynced end may have holes; no checksum covers them yet."""
    with Durable(tmp_path) as s, s.client() as c:
        c("SET", "before", "1")
        s.kill()
    data = read(aof(tmp_path))
    torn = data + b"*3\r\n$3\r\nSET\r\n$4\r\nhole\r\n$4096\r\n" + b"x" * 1500 + b"\0" * 1024 + b"x" * 1572 + b"\r\n"
    write(aof(tmp_path), torn)
    found, said = try_start(tmp_path)
    assert found == {(0, b"before"): (b"1", -1)} and "torn end" in said


# ---- which files go together ---------------------------------------------------------------------------------


def test_a_log_without_its_snapshot_is_refused(tmp_path):
    with Durable(tmp_path, repl_backlog_size=0) as s, s.client() as c:
        c.pipeline([("SET", f"k{i}", "v" * 100) for i in range(5000)])
        c("SAVE")
        wait_saved(c)
        c("SET", "more", "1")
        eventually(lambda: info(c, "aof_current_size") < 300_000)  # the log was trimmed
    os.remove(rdb(tmp_path))
    found, said = try_start(tmp_path)
    assert found is None and "bring back the snapshot before it" in said


def test_a_snapshot_of_another_history_is_refused(tmp_path, small, snapshot):
    shutil.copy(aof(small[0]), aof(tmp_path))
    shutil.copy(rdb(snapshot[0]), rdb(tmp_path))
    found, said = try_start(tmp_path)
    assert found is None and "does not belong" in said
    assert read(aof(tmp_path)) == read(aof(small[0]))


def test_a_log_that_ends_before_the_snapshot_is_set_aside(tmp_path):
    with Durable(tmp_path) as s, s.client() as c:
        c("SET", "a", "1")
        s.kill()
    old = read(aof(tmp_path))
    with Durable(tmp_path) as s, s.client() as c:
        c("SET", "b", "2")
        c("SAVE")
        s.kill()
    write(aof(tmp_path), old)
    found, _ = try_start(tmp_path)
    assert set(found) == {(0, b"a"), (0, b"b")}
    assert any(name.startswith("database_7.aof.old-") for name in os.listdir(tmp_path))
    assert try_start(tmp_path)[0] == found


def test_the_log_after_one_that_was_set_aside_begins_where_its_own_commands_do(tmp_path):
    with Durable(tmp_path, repl_backlog_size=16384) as s, s.client() as c:
        c("SET", "a", "x" * 1000)
        c("SET", "b", "y" * 70000)
        eventually(lambda: b"$4\r\nPING" in read(aof(tmp_path)))
        c("SAVE")
        s.kill()
    data = read(aof(tmp_path))
    write(aof(tmp_path), data[:data.rindex(b"*2\r\n$4\r\nPING")])  # a power cut has taken what followed the last sync
    with Durable(tmp_path, repl_backlog_size=16384) as s, s.client() as c:
        for i in range(4):
            assert c("SET", f"k{i}", "q" * 18000) == OK
            c("BGSAVE")
            eventually(lambda: not info(c, "rdb_bgsave_in_progress") and not info(c, "aof_rewrite_in_progress"))
        expected = state(c)
        s.kill()
    assert "could not be put in place" not in s.output()
    assert try_start(tmp_path)[0] == expected


def test_a_snapshot_put_over_a_log_without_data(tmp_path, snapshot):
    with Durable(tmp_path):
        pass
    shutil.copy(rdb(snapshot[0]), rdb(tmp_path))
    assert try_start(tmp_path)[0] == snapshot[1]


# ---- to and from redis-server ----------------------------------------------------------------------------------

SAMPLE = [
    ("SET", "int", "42"), ("SET", "negative", "-70000"), ("SET", "big", "12345678901234567890"), ("SET", "empty", ""),
    ("SET", b"\x00\xff\r\n", b"\x01\x02"), ("SET", "lzf", "abc" * 1000), ("SET", "long", bytes(range(256)) * 400),
    ("SET", "ttl", "x", "PXAT", "99999999999999"), ("SELECT", "3"), ("SET", "elsewhere", "y"), ("SELECT", "0"),
]  # fmt: skip


def fill(c):
    for command in SAMPLE:
        assert c(*command) == OK
    return state(c)


def test_redis_loads_our_snapshot(tmp_path):
    with Durable(tmp_path, appendonly="no") as s, s.client() as c:
        whole = fill(c)
        c("SAVE")
    check = subprocess.run([need("redis-check-rdb"), rdb(tmp_path)], capture_output=True, text=True)
    assert check.returncode == 0 and "RDB looks OK" in check.stdout, check.stdout
    with Server(binary=need("redis-server"), folder=str(tmp_path), dbfilename=os.path.basename(rdb(tmp_path))) as r:
        with r.client() as c:
            assert state(c) == whole


def test_redis_loads_our_log(tmp_path):
    with Durable(tmp_path) as s, s.client() as c:
        fill(c)
        c.transaction(("SET", "t", "1"), ("INCR", "t"))
        c.pipeline([("APPEND", "grows", "x" * 50) for _ in range(500)])
        whole = state(c)
    assert state_in_redis(tmp_path) == whole


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_a_dump_of_redis_is_taken_over(tmp_path, appendonly):
    with Server(binary=need("redis-server"), folder=str(tmp_path)) as r, r.client() as c:
        whole = fill(c)
        c("SAVE")
    dump = read(tmp_path / "dump.rdb")
    for _ in range(2):
        assert try_start(tmp_path, appendonly=appendonly)[0] == whole
    assert read(tmp_path / "dump.rdb") == dump


def test_an_appendonly_file_of_redis_is_taken_over(tmp_path):
    """It counts more than a dump.rdb, which is older."""
    with Server(binary=need("redis-server"), folder=str(tmp_path), appendonly="yes") as r, r.client() as c:
        c("SET", "a", "1")
        c("SAVE")
        fill(c)
        c("SET", "a", "2")
        whole = state(c)
    found, said = try_start(tmp_path)
    assert found is None and "appendonlydir/" in said and "database_7.aof" in said
    parts = sorted(os.listdir(tmp_path / "appendonlydir"))
    data = b"".join(read(tmp_path / "appendonlydir" / p) for p in parts if not p.endswith("manifest"))
    write(tmp_path / "appendonly.aof", data)
    os.rename(tmp_path / "appendonlydir", tmp_path / "old")
    for _ in range(2):
        assert try_start(tmp_path)[0] == whole
    assert read(tmp_path / "appendonly.aof") == data


def test_an_empty_appendonly_file_is_none(tmp_path):
    """redis-server makes it when appendonly is switched on over a dump.rdb; it has never logged there."""
    with Server(binary=need("redis-server"), folder=str(tmp_path)) as r, r.client() as c:
        whole = fill(c)
        c("SAVE")
    write(tmp_path / "appendonly.aof", b"")
    assert try_start(tmp_path)[0] == whole and try_start(tmp_path)[0] == whole


def test_a_dump_with_other_types_is_refused(tmp_path):
    with Server(binary=need("redis-server"), folder=str(tmp_path)) as r, r.client() as c:
        c("SET", "a", "1")
        c("RPUSH", "my-list", "x")
        c("SAVE")
    found, said = try_start(tmp_path)
    assert found is None and "my-list" in said and "list" in said and "dump.rdb" not in os.listdir(tmp_path)[:0]


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_a_plain_aof_is_imported(tmp_path, preamble):
    options = dict(appendonly="yes", aof_use_rdb_preamble=preamble, aof_timestamp_enabled="yes")
    with Server(binary=need("redis-server"), folder=str(tmp_path), **options) as r, r.client() as c:
        fill(c)
        if preamble == "yes":
            c("BGREWRITEAOF")
            while info(c, "aof_rewrite_in_progress") or info(c, "aof_rewrite_scheduled"):
                pass
        c.transaction(("SET", "t", "1"), ("SET", "u", "1"))
        whole = state(c)
    parts = sorted(os.listdir(tmp_path / "appendonlydir"))
    data = b"".join(read(tmp_path / "appendonlydir" / p) for p in parts if not p.endswith("manifest"))
    write(aof(tmp_path), data)
    assert try_start(tmp_path)[0] == whole
    (kept,) = [name for name in os.listdir(tmp_path) if name.startswith("database_7.aof.imported-")]
    assert read(tmp_path / kept) == data
    assert try_start(tmp_path)[0] == whole
    # stopped between its two renames, it goes on there
    os.rename(tmp_path / kept, aof(tmp_path))
    assert try_start(tmp_path)[0] == whole
