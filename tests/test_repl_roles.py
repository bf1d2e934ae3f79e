"""Roles and what is said of them: REPLICAOF, ROLE, INFO, promotion, FAILOVER, WAIT, and what followers refuse."""
import re
import threading
import time

import pytest

from ev import NIL, OK, QUEUED, Error, encode, ours
from persist_tools import read, write
from repl_tools import (KINDS, OUR_LEADERS, OUR_PAIRS, OURS, REDIS, HandFollower, Node, address, contents,
                        fill, groups, is_error, linked, wait_for, wait_online, wait_same, wait_sync)

our_pairs = pytest.mark.parametrize("leader, follower", OUR_PAIRS)
READONLY = Error("READONLY You can't write against a read only replica.")


# ---- REPLICAOF and promotion ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def right():
    """What redis-server says."""
    with Node(REDIS) as n:
        yield n


@pytest.mark.parametrize("name", ["REPLICAOF", "SLAVEOF", "replicaof"])
def test_replicaof_replies(node, right, name):
    n = node()
    for args in (["NO", "ONE"], ["no", "one"], ["127.0.0.1", "x"], ["127.0.0.1", "70000"], ["127.0.0.1", "-1"],
                 ["127.0.0.1"], ["a", "b", "c"], ["127.0.0.1", 1], ["127.0.0.1", 1], ["NO", "ONE"], ["NO", "ONE"]):  # fmt: skip
        assert n(name, *args) == right(name, *args), args
    assert n.fact("role") == "master"


@our_pairs
def test_replicaof_no_one_keeps_the_data(node, leader, follower):
    a = node(leader)
    fill(a, 30)
    b = node(follower, follow=a)
    wait_same(a, b)
    kept, old = contents(b), b.facts("replication")
    assert b("SLAVEOF", "NO", "ONE") == OK
    now = b.facts("replication")
    assert now["role"] == "master" and contents(b) == kept
    assert now["master_replid"] != old["master_replid"] == now["master_replid2"]
    assert int(now["second_repl_offset"]) == int(old["master_repl_offset"]) + 1
    assert b("SET", "mine", "x") == OK
    a("SET", "yours", "y")
    assert b("GET", "yours") is NIL and a("GET", "mine") is NIL
    wait_for(lambda: a.fact("connected_slaves") == 0)
    b.follow(a)
    wait_same(a, b)
    assert b("GET", "mine") is NIL


@pytest.mark.parametrize("kinds", groups((OURS, OURS, OURS), (OURS, OURS, REDIS), (OURS, REDIS, OURS), (REDIS, OURS, OURS),
                                         (REDIS, OURS, REDIS), (REDIS, REDIS, OURS)))  # fmt: skip
def test_after_a_promotion_the_others_go_on_partially(node, kinds):
    leader, heir, other = (node(kind) for kind in kinds)
    for f in (heir, other):
        f.follow(leader)
    wait_sync(leader, heir, other)
    fill(leader, 30)
    wait_same(leader, heir, other)
    leader.kill()
    assert heir("REPLICAOF", "NO", "ONE") == OK
    heir("SET", "new", "era")
    other.follow(heir)
    wait_same(heir, other)
    assert heir.syncs() == (0, 1)
    fill(heir, 20, "w")
    wait_same(heir, other)


@our_pairs
def test_leader_and_follower_change_places(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    fill(a, 20)
    wait_same(a, b)
    for n in range(2):
        assert b("REPLICAOF", "NO", "ONE") == OK
        b("SET", "n", n)
        a.follow(b)
        wait_same(b, a)
        assert b.syncs() == (0, 1) if n == 0 else b.syncs()[0] <= 1
        a, b = b, a


@our_pairs
def test_what_a_leader_wrote_alone_is_given_up_when_it_follows(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    a("SET", "both", "x")
    wait_same(a, b)
    assert b("REPLICAOF", "NO", "ONE") == OK
    a("SET", "lost", "x")
    b("SET", "kept", "x")
    a.follow(b)
    wait_same(b, a)
    assert a("GET", "lost") is NIL and a("GET", "kept") == b"x"
    assert b.syncs() == (1, 0)


def test_replicaof_inside_a_transaction(node):
    """As Sentinel promotes and demotes."""
    a, b = node(), node()
    fill(a, 10)
    with b.client() as c, b.client() as bystander, b.client() as listener:
        listener("SUBSCRIBE", "x")
        replies = c.transaction(("SLAVEOF", "127.0.0.1", a.port), ("CONFIG", "REWRITE"), ("CLIENT", "KILL", "TYPE", "normal"),
                                ("CLIENT", "KILL", "TYPE", "pubsub"))  # fmt: skip
        assert replies[0] == OK and replies[1] in (OK, Error("ERR The server is running without a config file"))
        assert replies[2:] == [1, 1]
        assert bystander.rest() == b"" and listener.rest() == b""
        wait_same(a, b)
        replies = c.transaction(("SLAVEOF", "NO", "ONE"), ("CLIENT", "KILL", "TYPE", "normal"))
        assert replies == [OK, 0]
        assert c("SET", "k", "v") == OK
    assert b.fact("role") == "master"


@ours
def test_two_that_follow_each_other_and_one_that_follows_itself(node):
    a, b = node(), node()
    fill(a, 10)
    kept = contents(a)
    a.follow(a)
    a.follow(b)
    b.follow(a)
    wait_for(lambda: a.fact("role") == b.fact("role") == "slave")
    assert a("PING") == "PONG" and b("PING") == "PONG"
    assert a("REPLICAOF", "NO", "ONE") == OK
    assert contents(a) == kept
    wait_same(a, b)


def test_a_rewritten_config_remembers_whom_to_follow(node, tmp_path):
    conf = str(tmp_path / "node.conf")
    a = node()
    fill(a, 10)
    write(conf, b"# mine\nreplica-priority 7\n")
    b = node(conf=conf)
    b.follow(a)
    wait_same(a, b)
    assert b("CONFIG", "REWRITE") == OK
    text = read(conf).decode()
    assert re.search(rf"^replicaof 127\.0\.0\.1 {a.port}$", text, re.M) and "# mine" in text
    b.leave()
    a("SET", "k", "v")
    b.start_again(replicaof=None)
    wait_same(a, b)
    assert b("REPLICAOF", "NO", "ONE") == OK and b("CONFIG", "REWRITE") == OK
    assert b"replicaof" not in read(conf) and b"replica-priority 7" in read(conf)


def test_the_option_names_the_leader(node):
    a = node()
    fill(a, 10)
    b = node(replicaof=f"127.0.0.1 {a.port}")
    c = node(replicaof=["127.0.0.1", a.port])
    wait_same(a, b, c)
    assert b("CONFIG", "GET", "replicaof") == [b"replicaof", b"127.0.0.1 %d" % a.port]
    b("REPLICAOF", "NO", "ONE")
    assert b("CONFIG", "GET", "replicaof") == [b"replicaof", b""]


# ---- what is said: INFO, ROLE, CLIENT LIST -------------------------------------------------------------------


def shapes(leader, follower):
    """The names in INFO replication, in order, and the shapes of ROLE's answers, from a pair's whole life."""

    def look(n):
        facts = n.facts("replication")
        lists = [(name, re.sub(r"=[^,]*", "", facts[name])) for name in facts if name.startswith("slave0")]
        role = [[[type(y) for y in x] if isinstance(x, list) else type(x) for x in n("ROLE")[:2]], len(n("ROLE"))]
        return list(facts), lists, role

    a = leader
    found = [look(a)]
    b = follower
    found.append(look(b))
    b.follow(a)
    wait_sync(a, b)
    wait_online(a)
    found += [look(a), look(b)]
    a.kill()
    wait_for(lambda: not linked(b))
    found.append(look(b))
    b("REPLICAOF", "NO", "ONE")
    found.append(look(b))
    return found


def test_the_fields_are_redis_servers_in_its_order(node):
    for mine, theirs in zip(shapes(node(), node()), shapes(node(REDIS), node(REDIS))):
        assert mine == theirs


@our_pairs
def test_what_the_fields_say(node, relay, leader, follower):
    a = node(leader)
    a("SET", "k", "v")
    r = relay(a)
    b = node(follower, follow=r, replica_priority=42)
    wait_sync(a, b)
    wait_online(a)
    wait_for(lambda: f"offset={a.fact('master_repl_offset')}," in a.facts()["slave0"])
    up, down = a.facts("replication"), b.facts("replication")
    at = up["master_repl_offset"]
    assert up["role"] == "master" and up["connected_slaves"] == "1" and up["master_failover_state"] == "no-failover"
    assert re.fullmatch(rf"ip=127\.0\.0\.1,port={b.port},state=online,offset={at},lag=[01]", up["slave0"])
    assert up["repl_backlog_active"] == "1"
    assert (int(up["repl_backlog_first_byte_offset"]) - 1) + int(up["repl_backlog_histlen"]) == int(at)
    assert down["role"] == "slave" and down["master_host"] == "127.0.0.1" and down["master_port"] == str(r.port)
    assert down["master_sync_in_progress"] == "0" and int(down["master_last_io_seconds_ago"]) >= 0
    assert down["slave_priority"] == "42" and down["slave_read_only"] == "1" and down["replica_announced"] == "1"
    assert down["slave_repl_offset"] == down["slave_read_repl_offset"] == down["master_repl_offset"] == at
    assert a("ROLE") == [b"master", int(at), [[b"127.0.0.1", b"%d" % b.port, at.encode()]]]
    assert b("ROLE") == [b"slave", b"127.0.0.1", r.port, b"connected", int(at)]
    assert b"flags=S " in a("CLIENT", "LIST", "TYPE", "replica") and b"flags=M " in b("CLIENT", "LIST", "TYPE", "master")
    assert b("CONFIG", "SET", "replica-priority", "5") == OK and b.fact("slave_priority") == 5
    r.down()
    wait_for(lambda: not linked(b))
    assert b("ROLE")[:4] in ([b"slave", b"127.0.0.1", r.port, state] for state in (b"connect", b"connecting", b"handshake"))
    wait_for(lambda: b.fact("master_link_down_since_seconds") >= 1)
    wait_for(lambda: a.fact("connected_slaves") == 0)


@our_pairs
def test_client_kill_ends_a_link_that_comes_back(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    wait_online(a)
    assert a("CLIENT", "KILL", "TYPE", "replica") == 1
    a("SET", "k", 1)
    wait_for(lambda: a.syncs()[1] == 1)
    wait_same(a, b)
    assert b("CLIENT", "KILL", "TYPE", "master") == 1
    a("SET", "k", 2)
    wait_same(a, b)
    assert a.syncs() == (1, 2)


# ---- what a follower refuses ---------------------------------------------------------------------------------


def test_a_follower_is_read_only(node):
    a = node()
    b = node(follow=a)
    a("SET", "k", "v")
    wait_same(a, b)
    for command in (("SET", "k", "x"), ("DEL", "k"), ("FLUSHALL",), ("EXPIRE", "k", 1), ("SWAPDB", 0, 1), ("GETEX", "k", "PERSIST"),
                    ("INCR", "n"), ("MSET", "a", 1), ("GETDEL", "k"), ("RENAME", "k", "l"), ("BITFIELD", "k", "SET", "u8", 0, 1)):  # fmt: skip
        assert b(*command) == READONLY, command
    assert b("BITFIELD", "k", "GET", "u8", 0) == READONLY or b("BITFIELD_RO", "k", "GET", "u8", 0) == [118]
    assert b("GET", "k") == b"v" and b("DBSIZE") == 1
    with b.client() as c:
        assert c("MULTI") == OK and c("GET", "k") == QUEUED and c("SET", "k", "x") == READONLY
        assert is_error(c("EXEC"), "EXECABORT")
        c("WATCH", "k")
        a("SET", "k", "w")
        wait_sync(a, b)
        assert repr(c.transaction(("GET", "k"))) == "Null(*-1)", "the leader's changes touch watched keys"
    wait_same(a, b)


def test_writes_on_a_follower_that_allows_them_stay_there(node):
    a = node()
    b = node(follow=a)
    wait_sync(a, b)
    wait_online(a)
    assert b("CONFIG", "SET", "replica-read-only", "no") == OK
    assert b.fact("slave_read_only") == 0
    assert b("SET", "mine", "x") == OK and b("GET", "mine") == b"x"
    a("SET", "yours", "y")
    wait_sync(a, b)
    assert b("GET", "yours") == b"y" and a("GET", "mine") is NIL
    assert b("CONFIG", "SET", "replica-read-only", "yes") == OK
    assert b("SET", "mine", "z") == READONLY


@ours
@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_a_follower_that_its_own_clients_changed_is_promoted(node, appendfsync):
    """Their changes are not in its log, which is the leader's; what it acknowledges as a leader builds on them."""
    a = node()
    b = node(follow=a, replica_read_only="no", appendfsync=appendfsync)
    a("SET", "n", "1")
    wait_same(a, b)
    assert b("INCR", "n") == 2 and b("SET", "mine", "x") == OK
    assert b("REPLICAOF", "NO", "ONE") == OK
    wait_for(lambda: b("INCR", "n") == 3)
    with b.client() as c:
        assert c("APPEND", "mine", "y") == 2
        assert c("WAITAOF", 1, 0, 0)[0] == 1
    b.kill()
    b.start_again(replicaof=None)
    assert b("MGET", "n", "mine") == [b"3", b"xy"]


def test_a_follower_that_is_not_announced(node):
    a = node()
    b = node(follow=a)
    wait_sync(a, b)
    assert b.fact("replica_announced") == 1 and b("CONFIG", "SET", "replica-announced", "no") == OK
    assert b.fact("replica_announced") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_followers_connection_runs_nothing_on_keys(node, kind):
    a = node(kind)
    a("SET", "k", "v")
    with HandFollower(a) as f:
        f.snapshot()
        wait_online(a)
        f.send(b"".join(encode(*command) for command in (("INCR", "n"), ("GET", "k"), ("PUBLISH", "a", "b"), ("FLUSHALL",))))
        time.sleep(0.2)
        assert a("MGET", "n", "k") == [NIL, b"v"]


def test_stale_data_may_be_refused(node, right):
    a = node()
    a("SET", "k", "v")
    b = node(follow=a, replica_serve_stale_data="no")
    wait_same(a, b)
    assert b("GET", "k") == b"v"
    a.kill()
    wait_for(lambda: not linked(b))
    down = Error("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.")
    for command in (("GET", "k"), ("DBSIZE",), ("EXISTS", "k"), ("PING",)):
        assert b(*command) == down, command
    with b.client() as c:
        assert b("CONFIG", "GET", "port")[0] == b"port" and c("SUBSCRIBE", "x")[2] == 1
    assert b"role:slave" in b("INFO") and b("ROLE")[0] == b"slave" and b("MULTI") == OK
    assert b("SET", "k", "x") == READONLY
    assert b("CONFIG", "SET", "replica-serve-stale-data", "yes") == OK
    assert b("GET", "k") == b"v"
    b("CONFIG", "SET", "replica-serve-stale-data", "no")
    assert b("REPLICAOF", "NO", "ONE") == OK and b("GET", "k") == b"v"


# ---- what a leader refuses -----------------------------------------------------------------------------------

NOREPLICAS = Error("NOREPLICAS Not enough good replicas to write.")


@pytest.mark.parametrize("leader, follower", OUR_LEADERS)
def test_writes_may_need_followers(node, relay, leader, follower):
    a = node(leader, min_replicas_to_write=1, min_replicas_max_lag=2)
    assert a("SET", "k", "v") == NOREPLICAS and a("GET", "k") is NIL
    r = relay(a)
    b = node(follower, follow=r)
    wait_online(a)
    wait_for(lambda: a("SET", "k", "v") == OK)
    assert a("CONFIG", "SET", "min-replicas-to-write", "2") == OK
    assert a("SET", "k", "w") == NOREPLICAS and a("GET", "k") == b"v"
    with a.client() as c:
        assert c("MULTI") == OK and c("GET", "k") == QUEUED and c("SET", "k", "x") == NOREPLICAS
        assert is_error(c("EXEC"), "EXECABORT")
    assert a("CONFIG", "SET", "min-replicas-to-write", "1") == OK and a("SET", "k", "x") == OK
    r.stall()
    wait_for(lambda: a("SET", "k", "y") == NOREPLICAS)
    assert a.fact("connected_slaves") == 1, "the link is there, but too old"
    r.flow()
    wait_for(lambda: a("SET", "k", "z") == OK)
    wait_same(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transaction_that_may_not_change_anything_is_discarded_whole(node, kind):
    a = node(kind)
    with a.client() as c, a.client() as listener:
        listener("SUBSCRIBE", "jobs")

        def transaction(*commands, then):
            """EXEC's reply, where `then` becomes so between the queueing and EXEC."""
            assert c("MULTI") == OK and [c(*command) for command in commands] == [QUEUED] * len(commands)
            assert a(*then) == OK
            return c("EXEC")

        aborted = "EXECABORT Transaction discarded because of: "
        write = [("PUBLISH", "jobs", "1"), ("SET", "job:1", "x"), ("GET", "k")]
        why = transaction(*write, then=("CONFIG", "SET", "min-replicas-to-write", "2"))
        assert why == Error(aborted + NOREPLICAS)
        assert transaction(("GET", "k"), then=("CONFIG", "SET", "timeout", "0")) == [NIL]
        assert a("CONFIG", "SET", "min-replicas-to-write", "0") == OK and a("SET", "k", "old") == OK
        assert transaction(*write, then=("REPLICAOF", "127.0.0.1", "1")) == Error(aborted + READONLY)
        assert transaction(("GET", "k"), ("CONFIG", "SET", "timeout", "0"),
                           then=("CONFIG", "SET", "replica-serve-stale-data", "no")) == Error(
            aborted + "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.")
        assert c("MULTI") == OK and c("INFO", "server") == QUEUED and b"redis_version" in c("EXEC")[0]
        assert a("REPLICAOF", "NO", "ONE") == OK and a("GET", "job:1") is NIL and a("PUBLISH", "jobs", "2") == 1
        assert listener.read() == [b"message", b"jobs", b"2"], "the one before was not sent"


@pytest.mark.parametrize("kind", KINDS)
def test_a_writable_follower_changes_no_key_that_has_expired(node, kind):
    a = node(kind, replica_read_only="no")
    with a.client() as c:
        assert c("DEBUG", "SET-ACTIVE-EXPIRE", "0") == OK
        for key in "abcd":
            c("SET", key, "10", "PX", "50")
        assert c("REPLICAOF", "127.0.0.1", "1") == OK
        time.sleep(0.1)
        assert c("GET", "a") is NIL and c("INCR", "a") == 1 and c("TTL", "a") == -1
        assert c("APPEND", "b", "x") == 1 and c("GET", "b") == b"x"
        assert c("SETRANGE", "c", "1", "x") == 2 and c("GET", "c") == b"\0x"
        assert c("SETBIT", "d", "1", "1") == 0 and c("GET", "d") == b"@"
        c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


# ---- WAIT and WAITAOF ----------------------------------------------------------------------------------------


def hand_follower(a):
    """A follower whose acknowledgements the test sends: it and the offset of its snapshot."""
    f = HandFollower(a)
    word, _, offset = f.answer.split()
    assert word == "+FULLRESYNC"
    f.snapshot()
    wait_online(a)
    f.ack(offset)
    return f, int(offset)


@pytest.mark.parametrize("kind", KINDS[:1])
def test_wait_counts_acknowledgements(node, kind):
    a = node(kind)
    with a.client() as c:
        assert c("WAIT", 0, 0) == 0
        c("SET", "k", 1)
        assert c("WAIT", 1, 50) == 0
        f, _ = hand_follower(a)
        with f:
            c("SET", "k", 2)
            at = a.fact("master_repl_offset")
            before = time.monotonic()
            assert c("WAIT", 1, 200) == 0
            assert 0.15 < time.monotonic() - before < 2
            words = [f.command()]
            while words[-1] != [b"REPLCONF", b"GETACK", b"*"]:
                words.append(f.command())
            assert [b"SET", b"k", b"2"] in words
            assert a.fact("master_repl_offset") >= at + len(encode("REPLCONF", "GETACK", "*")), "it counts"
            c.send(encode("WAIT", 1, 0))
            f.ack(at)
            before = time.monotonic()
            assert c.read() == 1
            assert time.monotonic() - before < 0.5
            f.ack(a.fact("master_repl_offset"))
            assert c("WAIT", 1, 0) == 1 and c("WAIT", 2, 20) == 1 and c("WAIT", 0, 0) == 1
            c("SET", "k", 3)
            assert c.transaction(("WAIT", 1, 0), ("SET", "k", 4)) == [0, OK], "it never waits inside a transaction"
            with a.client() as idle:
                assert idle("WAIT", 1, 0) == 1, "this client wrote nothing"


def test_wait_replies(node, right):
    a = node()
    for args in ((), (1,), (1, 2, 3), ("x", 0), (0, "x"), (0, -1), (-1, 10), (0, 0), (1, 5)):
        assert a("WAIT", *args) == right("WAIT", *args), args
    b = node(follow=a)
    assert b("WAIT", 0, 0) == Error(
        "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured "
        "to be writable (which is not the default) writes to replicas are just local and are not propagated.")


@our_pairs
def test_wait_is_quick(node, leader, follower):
    """A follower answers GETACK at once, not with its acknowledgement of every second."""
    a = node(leader)
    b = node(follower, follow=a)
    wait_sync(a, b)
    wait_online(a)
    with a.client() as c:
        before = time.monotonic()
        for n in range(50):
            c("SET", "k", n)
            assert c("WAIT", 1, 5000) == 1
            assert b("GET", "k") == b"%d" % n
        assert time.monotonic() - before < 10


def test_clients_that_wait_are_told_when_the_leader_becomes_a_follower(node, right):
    def told(a, b):
        with a.client() as c:
            a("SET", "k", "v")
            c.send(encode("SET", "k", "v") + encode("WAIT", 5, 0))
            assert c.read() == OK
            wait_for(lambda: a.fact("blocked_clients") == 1)
            a.follow(b)
            return c.read(), c.rest()

    assert told(node(), node()) == told(node(REDIS), node(REDIS))


def test_what_comes_behind_wait_waits_too_and_a_client_may_leave(node):
    a = node()
    with a.client() as c, a.client() as leaver:
        c.send(encode("SET", "k", 1) + encode("WAIT", 1, 300) + encode("SET", "k", 2))
        assert c.read() == OK and a("GET", "k") == b"1"
        leaver.send(encode("WAIT", 3, 0))
        wait_for(lambda: a.fact("blocked_clients") == 2)
        leaver.close()
        wait_for(lambda: a.fact("blocked_clients") <= 1)
        assert c.read() == 0 and c.read() == OK
    assert a("GET", "k") == b"2"


@ours
def test_waitaof_counts_followers_whose_disk_has_it(node):
    a = node(appendfsync="always")
    f, _ = hand_follower(a)
    with f, a.client() as c:
        c("SET", "k", 1)
        at = a.fact("master_repl_offset")
        f.ack(at)
        assert c("WAITAOF", 1, 1, 50) == [1, 0], "received is not on the disk"
        f.ack(at, "FACK", at)
        assert c("WAITAOF", 1, 1, 5000) == [1, 1]
    wait_for(lambda: a.fact("connected_slaves") == 0)
    b = node(follow=a, appendfsync="always")
    wait_sync(a, b)
    wait_online(a)
    with a.client() as c:
        c("SET", "k", 2)
        assert c("WAITAOF", 1, 1, 10000) == [1, 1]


# ---- FAILOVER ------------------------------------------------------------------------------------------------


def test_failover_errors(node):
    def replies(a, b):
        found = [a("FAILOVER"), a("FAILOVER", "ABORT")]
        b.follow(a)
        wait_sync(a, b)
        wait_online(a)
        for args in (["TO", "127.0.0.1"], ["TO", "127.0.0.1", "x"], ["TO", "127.0.0.1", 1], ["TIMEOUT", 0], ["TIMEOUT", "x"],
                     ["FORCE"], ["TO", "127.0.0.1", b.port, "FORCE"], ["ABORT", "TIMEOUT", 1], ["WHAT"], ["TIMEOUT", 1, "TIMEOUT", 1],
                     ["TIMEOUT", -1]):  # fmt: skip
            found.append((args[0], a("FAILOVER", *args)))
        found += [b("FAILOVER"), b("FAILOVER", "ABORT")]
        with a.client() as c:
            found += [c("MULTI"), c("FAILOVER", "ABORT"), c("EXEC")]
        return found

    assert replies(node(), node()) == replies(node(REDIS), node(REDIS))


@our_pairs
@pytest.mark.parametrize("to", [True, False])
def test_failover_under_load(node, leader, follower, to):
    a = node(leader)
    b = node(follower, follow=a)
    fill(a, 30)
    wait_same(a, b)
    wait_online(a)
    acknowledged, refused = [0], threading.Event()

    def write():
        with a.client() as c:
            while not isinstance(reply := c("INCR", "n"), Error):
                acknowledged[0] = reply
            assert reply == READONLY
            refused.set()

    writer = threading.Thread(target=write)
    writer.start()
    wait_for(lambda: acknowledged[0] > 100)
    assert a("FAILOVER", *(["TO", *address(b)] if to else []), "TIMEOUT", 10000) == OK
    wait_for(lambda: b.fact("role") == "master" and a.fact("role") == "slave")
    writer.join(20)
    assert refused.is_set(), "writers wait while it lasts, and are refused then"
    assert int(b("GET", "n")) == acknowledged[0]
    b("SET", "after", "x")
    wait_same(b, a)
    assert b.syncs() == (0, 1)
    assert a.facts()["master_failover_state"] == "no-failover"


@our_pairs
@pytest.mark.parametrize("how", ["ABORT", "TIMEOUT"])
def test_a_failover_to_one_that_lags_is_given_up(node, relay, leader, follower, how):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    wait_sync(a, b)
    wait_online(a)
    r.stall()
    a("SET", "k", "v")
    with a.client() as c:
        assert a("FAILOVER", "TO", *address(b), *(["TIMEOUT", 300] if how == "TIMEOUT" else [])) == OK
        if how == "ABORT":
            assert a.fact("master_failover_state") == "waiting-for-sync"
            assert a("FAILOVER") == Error("ERR FAILOVER already in progress.")
            c.send(encode("SET", "waits", "x"))
            assert a("GET", "waits") is NIL
            assert a("FAILOVER", "ABORT") == OK
            assert c.read() == OK
    wait_for(lambda: a.fact("master_failover_state") == "no-failover")
    assert a.fact("role") == "master" and a("SET", "goes", "on") == OK
    r.flow()
    wait_same(a, b)
    assert b.fact("role") == "slave" and a.syncs()[0] == 1


@our_pairs
def test_a_forced_failover_does_not_wait_for_one_that_lags(node, relay, leader, follower):
    a = node(leader)
    r = relay(a)
    b = node(follower, follow=r)
    wait_sync(a, b)
    wait_online(a)
    r.stall()
    a("SET", "lost", "v")
    assert a("FAILOVER", "TO", *address(b), "TIMEOUT", 200, "FORCE") == OK
    wait_for(lambda: b.fact("role") == "master" and a.fact("role") == "slave")
    r.cut()
    wait_same(b, a)
    assert b("GET", "lost") is NIL
