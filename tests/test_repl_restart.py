"""Servers that end and start again: followers and leaders, cleanly and by kill -9, also in the middle of a full resync.
Nobody needs a second full resync for that, and no data are lost."""
import os
import random
import time

import pytest

from ev import ours
from persist_tools import parse_log, read, write
from repl_tools import (KINDS, OUR_FOLLOWERS, OUR_LEADERS, OUR_PAIRS, OURS, REDIS, address, chaos, contents, difference, fill,
                        groups, linked, wait_for, wait_same, wait_sync)

WAYS = ["kill", "clean"]
ways = pytest.mark.parametrize("how", WAYS)


def end(n, how):
    n.kill() if how == "kill" else n.leave()


def wait_kept(leader, follower):
    """Until what a full resync brought is on the follower's disk."""
    path = os.path.join(follower.folder, f"database_{follower.port}.rdb")
    replid = leader.facts("replication")["master_replid"].encode()
    wait_for(lambda: os.path.exists(path) and replid in read(path)[:1000])


def aof(n):
    return os.path.join(n.folder, f"database_{n.port}.aof")


# ---- the follower --------------------------------------------------------------------------------------------


# redis-server has no log here, so that it knows its place only after a clean end.
@pytest.mark.parametrize("kinds, how", [(kinds, how) for kinds in OUR_PAIRS for how in WAYS[kinds[1] == REDIS:]])
@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_follower_goes_on_where_it_was(node, kinds, meanwhile, how):
    a = node(kinds[0])
    b = node(kinds[1], follow=a)
    wait_sync(a, b)
    fill(a, 40)
    wait_same(a, b)
    if how == "kill":
        wait_kept(a, b)
    end(b, how)
    if meanwhile:
        fill(a, 60, "w")
        a("FLUSHDB")
        a("SET", "k", "v")
    b.start_again()
    wait_same(a, b)
    assert a.syncs() == (1, 1)


@ours
@pytest.mark.parametrize("kinds", OUR_FOLLOWERS)
def test_a_follower_killed_under_load(node, kinds):
    a = node(kinds[0], repl_backlog_size="32mb")
    b = node(kinds[1], follow=a, repl_backlog_size=100000, auto_aof_rewrite_min_size=1)
    wait_sync(a, b)
    wait_for(lambda: "state=online" in a.facts("replication")["slave0"])  # else its copy has not ended for a
    with chaos(a):
        wait_kept(a, b)
        for n in range(3):
            at = a.fact("master_repl_offset")
            wait_for(lambda: b.fact("master_repl_offset") > at + 20000)
            if n:
                b("BGSAVE")
            b.kill()
            b.start_again()
            wait_for(lambda: linked(b))
    wait_same(a, b)
    assert a.syncs() == (1, 3)


@ours
def test_a_follower_serves_its_data_before_its_leader_is_back(node):
    a = node()
    fill(a, 40)
    b = node(follow=a)
    wait_same(a, b)
    kept = contents(b)
    a.kill()
    b.kill()
    b.start_again()
    assert b.fact("role") == "slave" and not linked(b) and contents(b) == kept
    b("REPLICAOF", "NO", "ONE")
    b("SET", "k", "v")
    end(b, "kill")
    b.start_again(replicaof=None)
    assert {key: value for key, value in contents(b).items() if key != (0, b"k")} == kept


def test_after_a_leader_with_a_shorter_log_the_promoted_ones_is_summed_up(node):
    """Though the one that the start found was longer."""
    a, b = node(), node()
    b.pipeline([("SET", f"k{i}", "v" * 100) for i in range(1000)])
    b.leave()
    b.start_again()
    b.follow(a)
    wait_sync(a, b)
    wait_kept(a, b)
    b("REPLICAOF", "NO", "ONE")
    b("SET", "mine", "1")
    wait_for(lambda: b"mine" in read(aof(b)) and list(parse_log(read(aof(b))))[-1][1][0] == b"PING")



@ours
@ways
def test_a_promoted_follower_remembers_both_histories(node, how):
    """Followers of the old leader may go on at it, also after its restart."""
    a = node()
    b = node(follow=a)
    c = node(follow=a)
    fill(a, 20)
    wait_same(a, b, c)
    a.kill()
    b("REPLICAOF", "NO", "ONE")
    b("SET", "k", "v")
    c.follow(b)
    wait_same(b, c)
    assert b.syncs() == (0, 1)
    end(b, how)
    b.start_again(replicaof=None)
    wait_same(b, c)
    assert b.syncs() == (0, 1)


@ours
@ways
def test_the_old_leader_returns_as_a_follower(node, how):
    a = node()
    b = node(follow=a)
    fill(a, 20)
    wait_same(a, b)
    end(a, how)
    b("REPLICAOF", "NO", "ONE")
    fill(b, 30, "w")
    a.start_again(replicaof=list(address(b)))
    wait_same(b, a)
    assert b.syncs() == (0, 1), "it had nothing that the new one does not have"


@ours
def test_an_old_leader_that_knew_more_starts_anew(node, relay):
    a = node()
    r = relay(a)
    b = node(follow=r)
    fill(a, 20)
    wait_same(a, b)
    r.down()
    a("SET", "lost", "x")
    a.kill()
    b("REPLICAOF", "NO", "ONE")
    b("SET", "k", "v")
    a.start_again(replicaof=list(address(b)))
    wait_same(b, a)
    assert b.syncs() == (1, 0)
    wait_for(lambda: not a.fact("aof_rewrite_in_progress"))  # its files of that
    a.kill()
    a.start_again()
    wait_same(b, a)
    assert b.syncs() == (1, 1)


# ---- the leader ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", OUR_PAIRS)
def test_a_leader_that_ended_cleanly(node, kinds):
    a = node(kinds[0])
    b = node(kinds[1], follow=a)
    fill(a, 40)
    wait_same(a, b)
    old = a.facts("replication")
    a.leave()
    a.start_again()
    wait_same(a, b)
    now = a.facts("replication")
    assert now["master_replid"] != old["master_replid"] == now["master_replid2"]
    fill(a, 20, "w")
    wait_same(a, b)
    assert a.syncs() == (0, 1)


@ours
@pytest.mark.parametrize("kinds", OUR_LEADERS)
def test_a_leader_that_ended_three_times_while_its_follower_was_away(node, relay, kinds):
    a = node(kinds[0])
    r = relay(a)
    b = node(kinds[1], follow=r)
    fill(a, 40)
    wait_same(a, b)
    r.down()
    wait_for(lambda: not linked(b))
    for n in range(3):
        a.kill()
        a.start_again()
        fill(a, 5, f"life{n}-")
    r.up()
    wait_same(a, b)
    assert a.syncs() == (0, 1)


@ours
@pytest.mark.parametrize("kinds", OUR_FOLLOWERS)
def test_a_follower_that_ended_three_times_while_its_leader_was_away(node, relay, kinds):
    a = node(kinds[0])
    r = relay(a)
    b = node(kinds[1], follow=r)
    fill(a, 40)
    wait_same(a, b)
    synced = a.syncs()
    r.down()
    for _ in range(3):
        b.kill()
        b.start_again()
    fill(a, 5, "w")
    r.up()
    wait_same(a, b)
    assert a.syncs() == (synced[0], synced[1] + 1)


@ours
@pytest.mark.parametrize("kinds", OUR_LEADERS)
def test_a_killed_leader(node, kinds):
    a = node(kinds[0], auto_aof_rewrite_min_size=1, repl_backlog_size=100000)
    b = node(kinds[1], follow=a)
    wait_sync(a, b)
    for n in range(3):
        with chaos(a):
            at = a.fact("master_repl_offset")
            wait_for(lambda: a.fact("master_repl_offset") > at + 20000)
            if n == 1:
                a("BGSAVE")
            a.kill()
            assert n or a.process.returncode
        wait_for(lambda: not linked(b))
        a.start_again()
        wait_same(a, b)
        assert a.syncs() == (0, 1)


@ours
@pytest.mark.parametrize("kinds", groups((OURS, OURS, OURS), (OURS, REDIS, OURS)))
def test_a_killed_leader_of_a_chain(node, kinds):
    a = node(kinds[0])
    b = node(kinds[1], follow=a)
    wait_sync(a, b)
    c = node(kinds[2], follow=b)
    fill(a, 20)
    wait_same(a, b, c)
    a.kill()
    a.start_again()
    a("SET", "k", "v")
    wait_same(a, b, c)
    assert a.syncs() == (0, 1) and b.syncs()[0] == 1


@ours
@pytest.mark.parametrize("kinds", OUR_LEADERS)
def test_a_follower_that_knows_more_than_the_leaders_disk_kept_starts_anew(node, kinds):
    """A power cut takes what was not synced."""
    a = node(kinds[0])
    b = node(kinds[1], follow=a)
    wait_sync(a, b)
    a.pipeline([("SET", f"k{i}", "v" * i) for i in range(100)])
    wait_same(a, b)
    a.kill()
    log = read(aof(a))
    ends = [end for end, _ in parse_log(log)]
    write(aof(a), log[: ends[len(ends) // 2]])
    a.start_again()
    a("SET", "k1", "another history")
    assert 10 < a("DBSIZE") < 90
    wait_same(a, b)
    assert a.syncs() == (1, 0)


@ours
def test_both_killed_at_once(node):
    a = node()
    b = node(follow=a)
    wait_sync(a, b)
    wait_for(lambda: not b.fact("aof_rewrite_in_progress"))  # until its files are there, it would have to begin anew
    with chaos(a):
        at = a.fact("master_repl_offset")
        wait_for(lambda: b.fact("master_repl_offset") > at + 20000)
        b.kill()
        a.kill()
    a.start_again()
    b.start_again()
    wait_same(a, b)
    assert a.syncs() == (0, 1)


# ---- killed in the middle of a full resync -------------------------------------------------------------------


@pytest.fixture
def torn(node, relay):
    """A follower in sync with one leader, and another leader with other data behind a relay."""

    def make(kind, n=3000):
        old, new = node(kind), node(kind)
        old.pipeline([("SET", f"old{i}", "v" * i) for i in range(300)])
        new.pipeline([("SET", f"new{i}", os.urandom(100)) for i in range(n)])
        b = node(follow=old)
        wait_same(old, b)
        wait_kept(old, b)
        return old, new, relay(new), b

    return make


@ours
@pytest.mark.parametrize("leader", KINDS)
def test_killed_while_the_snapshot_comes_in(torn, leader):
    old, new, r, b = torn(leader)
    before = contents(old)
    for n in [0, 200, random.randrange(200, 300000), 299000]:
        r.after(n + 100, r.stall)
        b.follow(r)
        wait_for(lambda: not r.flowing.is_set())
        assert contents(b) == before
        b.kill()
        r.cut()
        r.flow()
        b.start_again(replicaof=list(address(old)))
        assert contents(b) == before
        wait_same(old, b)
    assert old.syncs() == (1, 4), "it is still in its old leader's history"
    b.follow(r)
    wait_same(new, b)


@ours
@pytest.mark.parametrize("leader", KINDS)
def test_killed_at_any_moment_of_a_full_resync(torn, leader):
    """What is found afterwards is the old data or the new, whole."""
    old, new, r, b = torn(leader, n=10000)
    rng = random.Random()
    right = [contents(old), contents(new)]
    found = [0, 0]
    for n in range(8):
        b.follow(r)
        time.sleep(rng.uniform(0.1, 0.25))
        b.kill()
        b.start_again(replicaof=None)
        there = contents(b)
        assert there in right, difference(there, right[0]) + difference(there, right[1]) + b.output()[-3000:]
        found[right.index(there)] += 1
        if there == right[1]:
            b.follow(old)
            wait_same(old, b)
            wait_kept(old, b)
    print("found the old, the new:", found)
    b.follow(r)
    wait_same(new, b)


@ours
def test_a_leader_killed_while_it_sends_its_snapshot(node, relay):
    a = node()
    a.pipeline([("SET", f"k{i}", os.urandom(1000)) for i in range(1000)])
    r = relay(a)
    r.after(300000, r.stall)
    b = node()
    b("SET", "mine", "x")
    b.follow(r)
    wait_for(lambda: not r.flowing.is_set())
    r.down()
    a.kill()
    r.flow()
    wait_for(lambda: b.fact("master_sync_in_progress") == 0)
    assert b("GET", "mine") == b"x" and b("DBSIZE") == 1
    a.start_again()
    r.up()
    wait_same(a, b)


@ours
@ways
def test_in_sync_with_a_leader_that_says_nothing(node, how):
    """Its offset is 0, and may stay so for long. All the same its data are kept, and passed on."""
    a = node(REDIS)
    fill(a, 100)
    b = node()
    b("SET", "mine", "x")
    b.follow(a)
    c = node(follow=b)
    wait_same(a, b, c, seconds=5)
    assert b.fact("master_repl_offset") == 0
    if how == "kill":
        wait_kept(a, b)
    end(b, how)
    b.start_again(replicaof=None)
    assert contents(b) == contents(a)
