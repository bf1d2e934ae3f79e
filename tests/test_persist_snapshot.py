"""The snapshot is the state at one offset, whatever is written meanwhile; and what switches it and the log."""
import os
import random
import re
import threading
import time

import pytest

from ev import OK, Status, eventually, ours, unsanitized
from persist_tools import Durable, aof, info, parse_log, rdb, read, state, try_start, wait_saved, write

pytestmark = ours
ACCOUNTS = 5000


def aux(path, name):
    """A field of digits or hex digits that a snapshot says about itself."""
    at = read(path)[:2000].index(name.encode()) + len(name)
    data = read(path)[at : at + 64]
    if data[0] in (0xC0, 0xC1, 0xC2):
        size = 1 << (data[0] & 3)
        return str(int.from_bytes(data[1 : 1 + size], "little", signed=True))
    return data[1 : 1 + data[0]].decode()


def total(found):
    return sum(int(value) for (_, key), (value, _) in found.items() if key.startswith(b"account"))


def test_the_snapshot_alone_has_the_right_sum(tmp_path):
    """Transfers between accounts in two databases while it is written; and it equals the log replayed from empty up
    to its offset."""
    with Durable(tmp_path, repl_backlog_size=1 << 30) as s, s.client() as c:
        for db in (0, 1):
            c("SELECT", db)
            c.pipeline([("SET", f"account{i}", 100) for i in range(ACCOUNTS)])
            c("SET", "big", bytes(1 << 20))
        done = threading.Event()

        def transfer(seed):
            rng = random.Random(seed)
            with s.client() as writer:
                while not done.is_set():
                    n, a, b = rng.randint(1, 50), rng.randrange(ACCOUNTS), rng.randrange(ACCOUNTS)
                    writer.transaction(("SELECT", 0), ("DECRBY", f"account{a}", n), ("SELECT", 1),
                                       ("INCRBY", f"account{b}", n), ("APPEND", "big", "x"), ("DEL", f"gone{n}"),
                                       ("SET", f"gone{n + 1}", "1"), ("SWAPDB", 0, 1) if n == 50 else ("PING",))

        threads = [threading.Thread(target=transfer, args=(i,)) for i in range(3)]
        for t in threads:
            t.start()
        snapshots = []
        for i in range(6):
            time.sleep(0.05)
            assert c("BGSAVE") == Status("Background saving started")
            wait_saved(c)
            snapshots.append((int(aux(rdb(tmp_path), "repl-offset")), read(rdb(tmp_path))))
        done.set()
        for t in threads:
            t.join()
        s.kill()
    log = read(aof(tmp_path))
    assert b" base=0 " in log[:512]
    assert len({offset for offset, _ in snapshots}) == 6
    for offset, snapshot in snapshots:
        alone, replayed = tmp_path / f"rdb{offset}", tmp_path / f"aof{offset}"
        alone.mkdir()
        replayed.mkdir()
        write(rdb(alone), snapshot)
        write(aof(replayed), log[: 1024 + offset])
        found, _ = try_start(alone, appendonly="no")
        assert total(found) == 2 * ACCOUNTS * 100
        again, said = try_start(replayed)
        assert again == found and "torn" not in said


def test_every_key_is_there_once_though_the_tables_are_resized(tmp_path):
    with Durable(tmp_path, appendonly="no") as s, s.client() as c:
        c.pipeline([("SET", f"k{i}", i) for i in range(50000)])
        c("BGSAVE")
        c.pipeline([("SET", f"new{i}", i) for i in range(200000)])
        c.pipeline([("DEL", f"k{i}") for i in range(50000)])
        c("FLUSHALL")
        wait_saved(c)
        s.kill()
    found, _ = try_start(tmp_path, appendonly="no")
    assert found == {(0, b"k%d" % i): (b"%d" % i, -1) for i in range(50000)}


def test_bgsave_within_a_transaction_is_not_in_the_middle_of_it(tmp_path):
    with Durable(tmp_path) as s, s.client() as c:
        c.transaction(("SET", "a", "1"), ("BGSAVE",), ("SET", "b", "1"))
        wait_saved(c)
        s.kill()
    os.remove(aof(tmp_path))
    assert set(try_start(tmp_path)[0]) == {(0, b"a"), (0, b"b")}


def test_deadlines_past_and_to_come(tmp_path):
    """A key that has expired by the start is not seen; replay knows no clock."""
    with Durable(tmp_path) as s, s.client() as c:
        c("SET", "later", "1", "EX", "1000")
        c("SET", "soon", "1", "PX", "300")
        c("SAVE")
        c("SET", "soon2", "1", "PX", "300")
        c("APPEND", "soon2", "1")
        deadline = c("PEXPIRETIME", "later")
        s.kill()
    time.sleep(0.4)
    assert try_start(tmp_path)[0] == {(0, b"later"): (b"1", deadline)}


# ---- when ------------------------------------------------------------------------------------------------------


def test_save_points(tmp_path):
    with Durable(tmp_path, appendonly="no", save=["1", "3"]) as s, s.client() as c:
        c("SET", "a", "1")
        time.sleep(1.5)
        assert info(c, "rdb_changes_since_last_save") == 1 and not os.path.exists(rdb(tmp_path))
        c("SET", "a", "2")
        c("SET", "a", "3")
        eventually(lambda: os.path.exists(rdb(tmp_path)))
        eventually(lambda: info(c, "rdb_changes_since_last_save") == 0)
        assert c("CONFIG", "SET", "save", "1 1") == OK
        before = c("LASTSAVE")
        c("SET", "a", "4")
        eventually(lambda: c("LASTSAVE") > before)


def test_the_log_is_trimmed_when_it_outgrows_the_snapshot(tmp_path):
    with Durable(tmp_path, repl_backlog_size=16384, auto_aof_rewrite_min_size="100kb") as s, s.client() as c:
        for i in range(4000):
            c("SET", f"k{i % 10}", "v" * 100)
        eventually(lambda: not info(c, "aof_rewrite_in_progress") and info(c, "aof_current_size") < 300_000)
        eventually(lambda: info(c, "aof_current_size") == os.path.getsize(aof(tmp_path)))  # a checksum may come in between
        whole = state(c)
        s.kill()
    base = int(re.search(rb" base=(\d+) ", read(aof(tmp_path)))[1])
    assert 0 < base <= int(aux(rdb(tmp_path), "repl-offset")) - 16384
    list(parse_log(read(aof(tmp_path))))
    assert try_start(tmp_path)[0] == whole


@pytest.mark.parametrize("in_transaction", [False, True])
def test_bgrewriteaof(tmp_path, in_transaction):
    with Durable(tmp_path, repl_backlog_size=16384) as s, s.client() as c:
        c.pipeline([("SET", "k", i) for i in range(10000)])
        size = info(c, "aof_current_size")
        assert info(c, "aof_last_rewrite_time_sec") == -1
        asked = c.pipeline([("MULTI",), ("BGREWRITEAOF",), ("EXEC",)])[-1][0] if in_transaction else c("BGREWRITEAOF")
        assert asked == Status("Background append only file rewriting started")
        eventually(lambda: not info(c, "aof_rewrite_in_progress") and info(c, "aof_current_size") < size / 2)
        assert info(c, "aof_last_bgrewrite_status") == "ok" and info(c, "aof_last_rewrite_time_sec") >= 0
        s.kill()
    assert try_start(tmp_path)[0] == {(0, b"k"): (b"9999", -1)}


# ---- switched at run time --------------------------------------------------------------------------------------


def test_a_rewrite_that_waits_for_a_snapshot_is_under_way(tmp_path):
    """Who polls INFO until it is done must not stop too early."""
    with Durable(tmp_path) as s, s.client() as c:
        c("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        c.pipeline([("SET", f"k{i}", "x" * 100) for i in range(200_000)])
        replies = c.pipeline([("BGSAVE",), ("BGREWRITEAOF",), ("INFO", "persistence")])
        assert replies[1] == "Background append only file rewriting scheduled"
        assert b"aof_rewrite_in_progress:1" in replies[2]
        eventually(lambda: not info(c, "aof_rewrite_in_progress"), seconds=20)
        assert info(c, "aof_last_bgrewrite_status") == "ok" and os.path.getsize(aof(tmp_path)) < 20 << 20


def test_appendonly_switched_on_and_off(tmp_path):
    with Durable(tmp_path, appendonly="no") as s, s.client() as c:
        c("SET", "before", "1")
        assert not os.path.exists(aof(tmp_path))
        assert c("CONFIG", "SET", "appendonly", "yes") == OK
        c("SET", "during", "1")
        eventually(lambda: os.path.exists(aof(tmp_path)) and info(c, "aof_current_size") >= 1024)
        c("SET", "after", "1")
        s.kill()
    found, _ = try_start(tmp_path)
    assert set(key for _, key in found) == {b"before", b"during", b"after"}
    with Durable(tmp_path) as s, s.client() as c:
        assert c("CONFIG", "SET", "appendonly", "no") == OK
        time.sleep(0.3)
        size = os.path.getsize(aof(tmp_path))
        c("SET", "uncounted", "1")
        assert os.path.getsize(aof(tmp_path)) == size
        assert c("CONFIG", "SET", "appendonly", "yes") == OK
        eventually(lambda: info(c, "aof_current_size") >= 1024)
        c("SET", "last", "1")
        s.kill()
    assert set(try_start(tmp_path)[0]) == set(found) | {(0, b"uncounted"), (0, b"last")}


def test_appendfsync_switched(tmp_path):
    with Durable(tmp_path) as s, s.client() as c:
        for policy in ("always", "no", "always", "everysec"):
            assert c("CONFIG", "SET", "appendfsync", policy) == OK
            assert c("SET", policy, "1") == OK
        s.kill()
    assert len(try_start(tmp_path)[0]) == 3


def test_lives_with_and_without_a_log(tmp_path):
    """What a life without a log saved counts in the next one with a log, and the other way round."""
    whole = {}
    for life, log in enumerate(["yes", "no", "yes", "no", "no", "yes", "yes"]):
        with Durable(tmp_path, appendonly=log) as s, s.client() as c:
            assert state(c) == whole, f"life {life}"
            c("SET", f"life{life}", log)
            c("INCR", "lives")
            if log == "no":
                c("SAVE")
            whole = state(c)
            s.kill()
    assert try_start(tmp_path)[0] == whole


def test_debug_reload_and_loadaof(tmp_path):
    with Durable(tmp_path) as s, s.client() as c:
        c("SELECT", 2)
        c("SET", "a", "1", "PXAT", 99999999999999)
        c("SELECT", 0)
        c("SET", "b", bytes(100000))
        whole = state(c)
        for command in (("RELOAD",), ("LOADAOF",), ("RELOAD",)):
            assert c("DEBUG", *command) == OK
            assert state(c) == whole
            c("INCR", "counter")
            whole = state(c)
        s.kill()
    assert try_start(tmp_path)[0] == whole


def test_ids_of_the_lives(tmp_path):
    """Each start takes a new id and honours the one before up to the recovered end."""
    before = None
    for _ in range(4):
        with Durable(tmp_path) as s, s.client() as c:
            if before:
                assert info(c, "master_replid2") == before[0]
                assert info(c, "second_repl_offset") == before[1] + 1
            c("SET", "a", "1")
            c("PING")
            s.kill()
            end = os.path.getsize(aof(tmp_path)) - 1024
        ids = [re.search(rb" gen=(\d+) .* id=(\w+) ", read(aof(tmp_path))[at : at + 512]) for at in (0, 512)]
        newest = max(ids, key=lambda m: int(m[1]))[2].decode()
        assert before is None or newest != before[0]
        before = newest, end


def test_two_servers_do_not_write_one_log(tmp_path):
    with Durable(tmp_path) as s:
        found, said = try_start(tmp_path)
        assert found is None and "another process" in said
        with s.client() as c:
            assert c("SET", "a", "1") == OK


def test_shutdown_forms(tmp_path):
    for how, there in ((("NOSAVE",), False), (("SAVE",), True)):
        with Durable(tmp_path, appendonly="no") as s, s.client() as c:
            c("SET", "a", "1")
            c.send(b" ".join([b"SHUTDOWN", *[w.encode() for w in how]]) + b"\r\n")
            assert s.process.wait(10) == 0
        assert os.path.exists(rdb(tmp_path)) == there


@unsanitized
def test_no_request_waits_for_a_snapshot(tmp_path):
    with Durable(tmp_path, appendonly="no") as s, s.client() as c:
        c("DEBUG", "POPULATE", 1000000)
        while c("DBSIZE") < 1000000:
            i = c("DBSIZE")
            c.pipeline([("SET", f"key:{k}", f"value:{k}") for k in range(i, i + 50000)])
        memory = s.rss()
        c("BGSAVE")
        worst, n = 0, 0
        while info(c, "rdb_bgsave_in_progress"):
            for _ in range(20):
                start = time.perf_counter()
                c("SET", f"key:{n * 7919 % 1000000}", "x")
                worst = max(worst, time.perf_counter() - start)
                n += 1
        assert s.rss() < memory * 1.10
        assert worst < 0.050, f"{worst * 1000:.1f} ms"
        assert info(c, "rdb_last_bgsave_status") == "ok"


@pytest.mark.parametrize("how", [["FLUSHALL"], ["FLUSHALL", "ASYNC"]])
def test_flushed_keys_do_not_come_back_where_snapshots_are_all_there_is(tmp_path, how):
    with Durable(tmp_path, appendonly="no", save="900 1") as s, s.client() as c:
        c("SET", "a", "1")
        assert c("SAVE") == OK and c(*how) == OK
        eventually(lambda: info(c, "rdb_changes_since_last_save") == 0)
        s.kill()
    with Durable(tmp_path, appendonly="no", save="") as s, s.client() as c:
        assert c("DBSIZE") == 0
        c("SET", "b", "1")
        assert c("SAVE") == OK and c("FLUSHALL") == OK
        time.sleep(0.3)
        assert info(c, "rdb_changes_since_last_save") > 0, "nobody wants snapshots"
