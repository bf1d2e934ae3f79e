"""Leaders and followers of either kind: full and partial resync, and what passes through the link."""
import os
import random
import re
import signal
import subprocess
import threading
import time

import pytest

from ev import NIL, OK, Client, Error, Push, Status, encode, need, ours, unsanitized
from grammar import FAR
from repl_tools import (OUR_FOLLOWERS, OUR_LEADERS, OUR_PAIRS, OURS, PAIRS, REDIS, contents, fill, groups, in_sync, is_error,
                        linked, replication_of, wait_for, wait_online, wait_same, wait_sync)

pairs = pytest.mark.parametrize("leader, follower", PAIRS)
our_pairs = pytest.mark.parametrize("leader, follower", OUR_PAIRS)


# ---- full resync ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diskless", ["yes", "no"])
@pairs
def test_a_full_resync_replaces_what_the_follower_had(node, leader, follower, diskless):
    """diskless says how a redis-server sends the snapshot, and how it loads one."""
    a = node(leader, repl_diskless_sync=diskless)
    b = node(follower, repl_diskless_load="swapdb" if diskless == "yes" else "disabled")
    fill(a)
    fill(b, 20, "other")
    b("SET", "mine", "x")
    assert b("REPLICAOF", "127.0.0.1", a.port) == OK
    wait_same(a, b)
    assert b("GET", "mine") is NIL and b("GET", "key:39") == b"v39" * 39
    assert a.syncs()[0] == 1
    fill(a, 30, "later")
    a("DEL", "big")
    wait_same(a, b)
    assert a.syncs() == (1, 0)


@our_pairs
def test_an_empty_leader(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    assert b("DBSIZE") == 0
    a("SET", "k", "v")
    wait_same(a, b)


@ours
def test_a_write_right_behind_the_request_does_not_delay_it(node):
    """The snapshot that the request began has no keys any more to be judged by: another one follows at once."""
    a = node(OURS)
    late = []
    for i in range(10):
        a("FLUSHALL")
        with Client(a.port) as follower, Client(a.port) as writer:
            follower.send(encode("PSYNC", "?", -1))
            begun = time.monotonic()
            while "slave0" not in str(a("INFO", "replication")) and time.monotonic() - begun < 0.05:
                pass
            writer("SET", "k", i)
            while (line := follower.input.readline()) == b"\n":
                pass
            assert line.startswith(b"+FULLRESYNC"), line
            late.append(time.monotonic() - begun)
    assert max(late) < 0.9, late


@our_pairs
def test_a_sync_in_small_pieces(node, relay, leader, follower):
    a = node(leader)
    a.pipeline([("SET", f"k{i}", os.urandom(i)) for i in range(100)])
    r = relay(a, piece=5)
    b = node(follower, follow=r)
    wait_same(a, b)
    r.cut()
    a.pipeline([("APPEND", f"k{i}", "\r\n*3\r\n$") for i in range(100)])
    wait_same(a, b)
    assert a.syncs() == (1, 1)


@pytest.mark.parametrize("leader, follower", OUR_FOLLOWERS)
def test_a_full_resync_cut_at_random_bytes_begins_anew(node, relay, leader, follower):
    a = node(leader)
    a.pipeline([("SET", f"k{i}", os.urandom(1000)) for i in range(300)])
    r = relay(a)
    for n in [1, 30, random.randrange(100, 300000), 299000]:
        b = node(follower)
        b("SET", "mine", "x")
        r.after(n, r.down)
        b.follow(r)
        wait_for(lambda: not r.let_in, tell=lambda: replication_of(a, b))
        assert b("GET", "mine") == b"x" and b("DBSIZE") == 1, f"after {n} bytes"
        r.up()
        wait_same(a, b)
        b.kill()


@pytest.mark.parametrize("leader, follower", OUR_FOLLOWERS)
def test_the_old_data_is_served_until_the_new_is_whole(node, relay, leader, follower):
    a = node(leader)
    a.pipeline([("SET", f"k{i}", os.urandom(1000)) for i in range(1000)])
    r = relay(a)
    b = node(follower)
    b("SET", "mine", "x")
    r.after(500000, r.stall)
    b.follow(r)
    wait_for(lambda: not r.flowing.is_set() and b.fact("master_sync_in_progress") == 1)
    facts = b.facts("replication")
    assert facts["master_link_status"] == "down"
    assert b("GET", "mine") == b"x" and b("DBSIZE") == 1
    assert is_error(b("SET", "k", "v"), "READONLY")
    assert b("ROLE")[3] in (b"sync", b"connecting")
    r.flow()
    wait_same(a, b)
    assert b("GET", "mine") is NIL


@pytest.mark.parametrize("leader, follower", OUR_LEADERS)
def test_writes_during_a_full_resync(node, relay, leader, follower):
    a = node(leader)
    fill(a, 50)
    r = relay(a)
    r.after(300000, r.stall)
    b = node(follower, follow=r)
    wait_for(lambda: not r.flowing.is_set())
    fill(a, 100, "meanwhile")
    a.pipeline([("INCR", "n")] * 100)
    a("DEL", "key:7")
    r.flow()
    wait_same(a, b)
    assert a.syncs() == (1, 0)


@ours
def test_ten_followers_join_at_once(node):
    a = node()
    fill(a)
    followers = [node(follow=a) for _ in range(10)]
    wait_same(a, *followers)
    assert a.syncs() == (10, 0)
    assert a.fact("connected_slaves") == 10
    a("SET", "one more", "x")
    wait_same(a, *followers)


# ---- partial resync ------------------------------------------------------------------------------------------


@pairs
def test_a_cut_link_goes_on_where_it_was(node, relay, leader, follower):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    fill(a, 50)
    wait_same(a, b)
    r.down()
    wait_for(lambda: not linked(b))
    fill(a, 70, "w")
    a("SELECT", 5)
    a.pipeline([("SELECT", 5), ("SET", "five", 5)])
    assert b("GET", "key:1") == b"v1", "stale data is served"
    assert int(b.facts()["master_link_down_since_seconds"]) >= 0
    r.up()
    wait_same(a, b)
    assert a.syncs() == (1, 1) and a.fact("sync_partial_err") <= 1


@our_pairs
def test_a_link_cut_again_and_again(node, relay, leader, follower):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    wait_sync(a, b)
    for i in range(5):
        before = r.accepted
        r.after(random.randrange(1, 3000), lambda: r.cut(reset=random.random() < 0.5))
        a.pipeline([("SET", f"k{n}", "v" * n) for n in range(100)])
        wait_for(lambda: r.accepted > before)
    wait_same(a, b)
    full, partial = a.syncs()
    assert full == 1 and partial >= 1, "a connection may be cut before it has asked"


@our_pairs
def test_a_history_that_is_gone_needs_a_full_resync(node, relay, leader, follower):
    a = node(leader, repl_backlog_size=16384)
    r = relay(a)
    b = node(follower, follow=r)
    wait_sync(a, b)
    at = b.fact("master_repl_offset")
    r.down()
    wait_for(lambda: a.fact("connected_slaves") == 0)
    for i in range(300):
        a("SET", f"k{i % 100}", os.urandom(1000))
    wait_for(lambda: a("BGREWRITEAOF") and a.fact("repl_backlog_first_byte_offset") > at + 1)
    r.up()
    wait_same(a, b)
    assert a.syncs() == (2, 0)


@pytest.mark.parametrize("leader, follower", OUR_LEADERS)
def test_a_leader_without_files(node, relay, leader, follower):
    a = node(leader, appendonly="no", repl_backlog_size="1mb")
    fill(a, 100)
    r = relay(a)
    b = node(follower, follow=r)
    wait_same(a, b)
    r.down()
    fill(a, 20, "w")
    a("DEL", "big")
    r.up()
    wait_same(a, b)
    r.down()
    a.pipeline([("SET", "x", os.urandom(1000))] * 3000)
    r.up()
    wait_same(a, b)
    full, partial = a.syncs()
    assert full == 2 and partial in (0, 1), "a megabyte goes partially if it still fits, three do not"


@pytest.mark.parametrize("leader, follower", OUR_FOLLOWERS)
def test_a_follower_without_files(node, relay, leader, follower):
    a = node(leader)
    fill(a, 100)
    r = relay(a)
    b = node(follower, follow=r, appendonly="no")
    wait_same(a, b)
    r.cut()
    a("SET", "k", "v")
    wait_same(a, b)
    assert a.syncs() == (1, 1)


# ---- the stream ----------------------------------------------------------------------------------------------

STREAM = """
    SET a 1|SET b text EX 1000|SET c x PX 100000|SET b other KEEPTTL|SET b y GET|SET a z XX GET|SETEX d 100 v|PSETEX e 100000 v
    INCR n|INCRBY n 40|DECR n|INCRBYFLOAT f 10.25|INCRBYFLOAT f -3e-2|APPEND a more|SETRANGE a 3 ranges|SETBIT bits 77 1
    BITOP XOR x a b|BITFIELD bf SET u8 0 255 INCRBY i5 #3 9|GETSET a 5|GETDEL c|GETEX b PERSIST|GETEX b EX 500|MSET p 1 q 2 r 3
    MSETNX p 9 zz 9|MSETNX s 1 t 2|SETNX u 1|SETNX u 2|EXPIRE p 100|PEXPIRE q 100000 NX|EXPIREAT r 33177117420|PEXPIRE r 1 GT
    PERSIST p|EXPIRE s -1|EXPIREAT t 1|RENAME u v|RENAMENX v u|COPY u w|COPY u w REPLACE|COPY u w DB 2|MOVE u 3|DEL w nothing
    SELECT 2|SET two 2|SWAPDB 0 2|SET zero 0|SELECT 9|SET nine 9|FLUSHDB|SET again 9|SELECT 0|UNLINK a b|SET lower case
    MULTI|SET m 1|SELECT 7|SET m 2|INCR m|EXEC|MULTI|GET m|EXEC|MULTI|SET m 3|EXEC|MULTI|SET m 4|DISCARD|MULTI|INCR m|INCR m|EXEC
    SELECT 1|MULTI|DEL none|SET one 1|EXPIRE one 1000|EXEC|TOUCH one|PUBLISH channel hello|SET one 2 PXAT 1
"""


@our_pairs
def test_every_command_arrives(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    commands = [c.split() for line in STREAM.strip().splitlines() for c in line.strip().split("|")]
    with a.client() as c:
        for n in range(3):
            replies = c.pipeline(commands)
            assert not [r for r in replies if isinstance(r, Error)]
            c("SET", "dumped", n)
            assert c("RESTORE", f"copy{n}", 50000, c("DUMP", "dumped"), "REPLACE") == OK
            wait_same(a, b)
            c("SELECT", n)
        assert len(contents(a)) > 10
        assert c("FLUSHALL") == OK
    wait_same(a, b)
    assert contents(b) == {}
    a("SET", "after", "all")
    wait_same(a, b)
    assert a.syncs() == (1, 0)


@our_pairs
def test_values_of_all_sizes_and_bytes(node, relay, leader, follower):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    wait_sync(a, b)
    sizes = [0, 1, 43, 44, 45, 16383, 16384, 32767, 32768, 32769, 65536, 1 << 20, 7 << 20]
    with a.client() as c:
        for n in sizes:
            c("SET", f"size:{n}", os.urandom(n))
            c("SET", b"key\0\r\n" + os.urandom(n % 5000), n)
        c("APPEND", "size:32768", b"\r\n" * 40000)
        c("SETRANGE", "hole", 3000000, "end")
    wait_same(a, b)
    r.piece = 3000
    r.cut()
    a("SET", "torn", os.urandom(3 << 20))
    wait_same(a, b)
    assert a.syncs() == (1, 1)


@our_pairs
def test_transactions_arrive_whole(node, relay, leader, follower):
    a = node(leader)
    r = relay(a, piece=9)
    b = node(follower, follow=r)
    wait_sync(a, b)
    ended = threading.Event()

    def write():
        with a.client() as c:
            for n in range(400):
                c.transaction(("SET", "x", n), ("SET", "filler", "f" * 100), ("SET", "y", n))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks, seen = 0, set()
    with b.client() as c:
        while not (ended.is_set() and in_sync(a, b)):
            x, y = c("MGET", "x", "y")
            assert x == y
            looks, seen = looks + 1, seen | {x}
    writer.join()
    assert looks > 20 and len(seen) > 5
    wait_same(a, b)


@our_pairs
def test_a_transaction_cut_in_its_middle(node, relay, leader, follower):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    wait_sync(a, b)
    a.pipeline([("SET", f"t{i}", "before") for i in range(2000)])
    wait_same(a, b)
    before = contents(b)
    r.after(40000, r.down)
    with a.client() as c:
        c.transaction(*[("SET", f"t{i}", "after") for i in range(2000)])
    wait_for(lambda: not r.let_in and not linked(b))
    assert contents(b) == before
    r.up()
    wait_same(a, b)
    assert set(contents(b).values()) == {(b"after", -1)}
    assert a.syncs() == (1, 1)


@our_pairs
def test_an_expired_key_is_hidden_until_the_leader_deletes_it(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    for s in (a, b):
        assert s("DEBUG", "SET-ACTIVE-EXPIRE", "0") == OK
    a("SET", "k", "v", "PX", 60)
    a("SET", "stays", "v")
    wait_for(lambda: b("DBSIZE") == 2)
    due = b("PEXPIRETIME", "k")
    wait_for(lambda: time.time() * 1000 > due + 1)
    with b.client() as c:
        assert c("GET", "k") is NIL and c("EXISTS", "k") == 0 and c("PTTL", "k") == -2 and c("STRLEN", "k") == 0
        assert c("KEYS", "*") == [b"stays"] and c("SCAN", 0, "COUNT", 100) == [b"0", [b"stays"]]
        assert c("MGET", "k", "stays") == [NIL, b"v"] and c("TYPE", "k") == Status("none")
        assert c("RANDOMKEY") == b"stays"
        at = a.fact("master_repl_offset")
        assert c("DBSIZE") == 2, "it is there until the leader says DEL"
    assert at == a.fact("master_repl_offset")
    assert a("GET", "k") is NIL
    wait_for(lambda: b("DBSIZE") == 1)
    assert a.fact("master_repl_offset") > at
    wait_same(a, b)


@our_pairs
def test_the_leaders_sweep_reaches_the_follower(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    a.pipeline([("SET", f"k{i}", "v", "PX", 1 + i % 100) for i in range(500)] + [("SET", "stays", "v")])
    wait_for(lambda: b("DBSIZE") == 1)
    wait_same(a, b)


@our_pairs
def test_a_deadline_passes_while_the_link_is_down(node, relay, leader, follower):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    a.pipeline([("SET", f"k{i}", "v", "PX", 150) for i in range(50)] + [("SET", "stays", "v")])
    wait_sync(a, b)
    r.down()
    wait_for(lambda: a("DBSIZE") == 1)
    assert b("KEYS", "*") == [b"stays"]
    a("SET", "k1", "anew")
    assert b("GET", "k1") is NIL
    r.up()
    wait_same(a, b)
    assert b("GET", "k1") == b"anew" and b("DBSIZE") == 2


@our_pairs
def test_a_snapshot_with_expired_keys(node, leader, follower):
    a = node(leader)
    a("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    a.pipeline([("SET", f"k{i}", "v", "PX", 1) for i in range(50)] + [("SET", "stays", "v", "PXAT", FAR)])
    time.sleep(0.002)
    b = node(follower, follow=a)
    wait_sync(a, b)
    assert b("KEYS", "*") == [b"stays"]
    a("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    wait_for(lambda: b("DBSIZE") == 1)
    wait_same(a, b)


@our_pairs
def test_published_messages_reach_the_followers_subscribers(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    with b.client() as c, b.client(proto=3) as pattern:
        assert c("SUBSCRIBE", "news")[2] == 1
        assert pattern("PSUBSCRIBE", "n*") == Push([b"psubscribe", b"n*", 1])
        c.socket.settimeout(10)
        assert a("PUBLISH", "news", "hello\r\n") == 0
        with a.client() as teller:
            teller.transaction(("SET", "k", "v"), ("PUBLISH", "news", "again"))
        assert c.read() == [b"message", b"news", b"hello\r\n"]
        assert c.read() == [b"message", b"news", b"again"]
        assert pattern.read() == Push([b"pmessage", b"n*", b"news", b"hello\r\n"])
        assert b("PUBLISH", "news", "local") == 2
        assert c.read() == [b"message", b"news", b"local"]
    wait_same(a, b)


@ours
@unsanitized
def test_a_slow_follower_costs_the_leader_no_memory(node, relay):
    a = node()
    r = relay(a)
    b = node(follow=r)
    wait_sync(a, b)
    value = os.urandom(100000)
    a.pipeline([("SET", "k", value)] * 100)
    wait_sync(a, b)
    r.stall()
    before = a.rss()
    with a.client() as c:
        for _ in range(10):
            c.pipeline([("SET", "k", value)] * 100)
    grown = a.rss() - before
    assert grown < 24 << 20, f"{grown} bytes for 100 MB that a follower has not read yet"
    assert linked(b)
    r.flow()
    wait_same(a, b)
    assert a.syncs() == (1, 0), "the log is its buffer"


# ---- followers of followers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", groups((OURS, OURS, OURS), (OURS, REDIS, OURS), (REDIS, OURS, REDIS), (OURS, OURS, REDIS),
                                         (REDIS, REDIS, OURS)))  # fmt: skip
def test_a_chain(node, relay, kinds):
    a = node(kinds[0])
    fill(a, 30)
    r = relay(a)
    b = node(kinds[1], follow=r)
    wait_sync(a, b)
    r2 = relay(b)
    c = node(kinds[2], follow=r2)
    wait_same(a, b, c)
    assert [n.fact("connected_slaves") for n in (a, b, c)] == [1, 1, 0]
    fill(a, 20, "w")
    with a.client() as writer:
        writer.transaction(("SET", "t", 1), ("SET", "u", 2))
    wait_same(a, b, c)
    r.down()
    r2.down()
    wait_for(lambda: not linked(b) and not linked(c))
    fill(a, 25, "x")
    r.up()
    wait_same(a, b)
    r2.up()
    wait_same(a, b, c)
    assert a.syncs() == (1, 1) and b.syncs() == (1, 1)
    assert c("ROLE")[:3] == [b"slave", b"127.0.0.1", r2.port]


@pytest.mark.parametrize("kinds", groups((OURS, OURS, OURS), (REDIS, OURS, OURS), (OURS, REDIS, OURS), (OURS, OURS, REDIS)))
def test_a_chain_whose_middle_gets_a_full_resync(node, kinds):
    """What stands behind it must not go on with the old history."""
    old, new, middle = node(kinds[0]), node(kinds[0]), node(kinds[1])
    fill(old, 20)
    fill(new, 30, "new")
    middle.follow(old)
    wait_sync(old, middle)
    last = node(kinds[2], follow=middle)
    wait_same(old, middle, last)
    middle.follow(new)
    wait_same(new, middle, last)
    new("SET", "k", "v")
    wait_same(new, middle, last)


# ---- leaders that a follower must not believe ----------------------------------------------------------------

FOREIGN = {
    "list": ("RPUSH", "queue:1", "a"),
    "hash": ("HSET", "user:1", "name", "x"),
    "set": ("SADD", "tags", "a", "b"),
    "sorted set": ("ZADD", "ranks", "1", "a"),
    "stream": ("XADD", "events", "*", "a", "b"),
}


@ours
@pytest.mark.parametrize("diskless", ["yes", "no"])
@pytest.mark.parametrize("type_name", FOREIGN)
def test_a_leader_with_other_types_is_refused(node, type_name, diskless):
    a = node(REDIS, repl_diskless_sync=diskless)
    fill(a, 20)
    a(*FOREIGN[type_name])
    b = node()
    fill(b, 10, "mine")
    mine = contents(b)
    b.follow(a)
    key = FOREIGN[type_name][1]
    lines = wait_for(lambda: [line for line in b.output().splitlines() if key in line], tell=b.output)
    assert all(type_name in line for line in lines)
    assert len(lines) <= a.syncs()[0], "one line for each try"
    assert not linked(b) and contents(b) == mine
    a("DEL", key)
    wait_same(a, b, seconds=60)


@ours
def test_another_type_in_the_stream(node):
    """The follower cannot hold it; it says so, keeps what it has, and is equal again when the key is gone."""
    a = node(REDIS)
    fill(a, 20)
    b = node(follow=a)
    wait_same(a, b)
    a("RPUSH", "queue:1", "a")
    a("SET", "later", "x")
    wait_for(lambda: re.search("rpush", b.output(), re.I), tell=b.output)
    assert b("GET", "key:1") == b"v1"
    a("DEL", "queue:1")
    wait_same(a, b, seconds=60)


@pytest.mark.parametrize("leader", [OURS, REDIS])
@ours
def test_an_empty_leader_may_be_refused(node, leader):
    a = node(leader, appendonly="no")
    a.pipeline([("SET", f"k{i}", i) for i in range(100)])
    b = node(follow=a, replica_refuse_empty_sync="yes")
    wait_same(a, b)
    full = contents(b)
    a.kill()
    a.lose_files()
    a.start_again()
    assert a("DBSIZE") == 0
    wait_for(lambda: a.syncs()[0] >= 1 or "empty" in b.output(), tell=b.output)
    wait_for(lambda: re.search("empty", b.output()), tell=b.output)
    assert contents(b) == full and not linked(b)
    assert b("CONFIG", "GET", "replica-refuse-empty-sync")[1] == b"yes"
    a("SET", "new", "life")
    wait_same(a, b, seconds=60)


@ours
def test_an_empty_leader_is_followed_by_default(node):
    a = node(appendonly="no")
    a("SET", "k", "v")
    b = node(follow=a)
    wait_same(a, b)
    a.kill()
    a.lose_files()
    a.start_again()
    wait_same(a, b)
    assert b("DBSIZE") == 0


@ours
def test_an_empty_follower_takes_an_empty_leader(node):
    a = node(REDIS)
    b = node(follow=a, replica_refuse_empty_sync="yes")
    wait_sync(a, b)
    a("SET", "k", "v")
    a("DEL", "k")
    wait_same(a, b)


# ---- passwords and timeouts ----------------------------------------------------------------------------------


@our_pairs
@pytest.mark.parametrize("user", [None, "default"])
def test_a_leader_with_a_password(node, leader, follower, user):
    a = node(leader, requirepass="secret word")
    fill(a, 10)
    b = node(follower, masterauth="wrong", masteruser=user)
    b("SET", "mine", "x")
    b.follow(a)
    wait_for(lambda: a.fact("total_error_replies") > 0)
    assert not linked(b) and b("GET", "mine") == b"x"
    assert b("CONFIG", "SET", "masterauth", "secret word") == OK
    wait_same(a, b)
    assert a.syncs() == (1, 0)


@pytest.mark.parametrize("leader, follower", groups((OURS, OURS)))
def test_a_silent_link_ends_by_timeout_on_both_sides(node, relay, leader, follower):
    a = node(leader, repl_timeout=2, repl_ping_replica_period=1)
    r = relay(a)
    b = node(follower, follow=r, repl_timeout=2)
    wait_sync(a, b)
    r.stall()
    wait_for(lambda: a.fact("connected_slaves") == 0)
    wait_for(lambda: not linked(b))
    a("SET", "k", "v")
    r.cut()
    r.flow()
    wait_same(a, b)
    assert a.syncs() == (1, 1)


@pytest.mark.parametrize("leader, follower", groups((OURS, REDIS), (REDIS, OURS)))
def test_an_idle_link_stays(node, leader, follower):
    """Pings and acknowledgements keep it, however little there is to say."""
    a = node(leader, repl_timeout=2, repl_ping_replica_period=1)
    b = node(follower, follow=a, repl_timeout=2)
    wait_sync(a, b)
    wait_online(a)
    at = a.fact("master_repl_offset")
    wait_for(lambda: a.fact("master_repl_offset") >= at + 3 * len(encode("PING")))
    assert a.syncs() == (1, 0) and linked(b)
    wait_same(a, b)


# ---- redis-cli as a follower ---------------------------------------------------------------------------------


def test_redis_cli_rdb(node, tmp_path):
    a = node()
    fill(a)
    path = tmp_path / "copy.rdb"
    r = subprocess.run([need("redis-cli"), "-p", str(a.port), "--rdb", path], capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stdout + r.stderr
    assert subprocess.run(["redis-check-rdb", path], capture_output=True, timeout=60).returncode == 0
    assert contents(node(REDIS, dir=tmp_path, dbfilename="copy.rdb")) == contents(a)


def test_redis_cli_replica(node):
    a = node()
    fill(a, 10)
    with subprocess.Popen([need("redis-cli"), "-p", str(a.port), "--replica"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as p:  # fmt: skip
        try:
            said = []
            reader = threading.Thread(target=lambda: said.extend(iter(p.stdout.readline, "")))
            reader.start()
            wait_for(lambda: "SYNC done" in "".join(said), tell=lambda: "".join(said))
            a.pipeline([("SELECT", 4), ("SET", "seen by", "redis-cli")])
            wait_for(lambda: '"SET","seen by","redis-cli"' in "".join(said), tell=lambda: "".join(said))
        finally:
            p.send_signal(signal.SIGTERM)
            reader.join()
