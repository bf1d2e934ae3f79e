"""Random writes while the link is stalled, torn and cut at random bytes, and while either side is killed: at the end
of each round the data sets, the deadlines and the offsets are equal, and nobody ever needs a second full resync.

ECHOVAULT_REPL_ROUNDS sets how many rounds.
"""
import os
import random
import time

import pytest

from ev import SANITIZED
from repl_tools import KINDS, OUR_PAIRS, OURS, REDIS, Chaos, fill, linked, replication_of, wait_for, wait_same, wait_sync

ROUNDS = int(os.environ.get("ECHOVAULT_REPL_ROUNDS") or (2 if SANITIZED else 4))


def mistreat(relay, rng):
    """One thing that happens to the link."""
    kind = rng.choice(["cut", "reset", "bytes", "bytes", "stall", "tear", "down"])
    if kind == "stall":
        relay.stall()
        time.sleep(rng.uniform(0, 0.1))
        if rng.random() < 0.5:
            relay.cut()
        relay.flow()
    elif kind == "tear":
        relay.piece = rng.choice([None, 50, 500, 5000])
        relay.cut()
    elif kind == "bytes":
        relay.after(rng.randrange(1, rng.choice([100, 3000, 50000])), lambda: relay.cut(reset=rng.random() < 0.3))
    elif kind == "down":
        relay.down()
        time.sleep(rng.uniform(0, 0.1))
        relay.up()
    else:
        relay.cut(reset=kind == "reset")


class Count:
    """The full resyncs that a leader gave in all its lives."""

    def __init__(self, leader):
        self.leader, self.before = leader, 0

    def kill(self):
        self.before += self.leader.syncs()[0]
        self.leader.kill()
        self.leader.start_again()

    def full(self):
        return self.before + self.leader.syncs()[0]


def torture(node, relay, kinds, kill):
    rng = random.Random()
    # A log that is shortened all the time, but reaches back far enough.
    small = {} if REDIS in kinds else {"auto_aof_rewrite_min_size": 1, "auto_aof_rewrite_percentage": 10}
    a = node(kinds[0], repl_backlog_size="32mb", **small)
    r = relay(a)
    b = node(kinds[1], follow=r, **small)
    wait_sync(a, b)
    fill(a, 50)
    wait_same(a, b)
    wait_for(lambda: b.kind == REDIS or b.fact("rdb_bgsave_in_progress") == 0)
    full = Count(a)
    for n in range(ROUNDS):
        writers = [Chaos(a) for _ in range(2)]
        for _ in range(rng.randint(1, 3)):
            time.sleep(rng.uniform(0, 0.1))
            mistreat(r, rng)
            if kill and rng.random() < 0.5:
                if rng.random() < 0.5:
                    full.kill()
                else:
                    b.kill()
                    b.start_again()
        time.sleep(rng.uniform(0, 0.1))
        for w in writers:
            w.stop()
        r.after(None, None)
        wait_same(a, b, seconds=60)
        assert full.full() == 1, f"round {n}: {replication_of(a, b)}"
    assert r.accepted > ROUNDS // 2


@pytest.mark.parametrize("kinds", OUR_PAIRS)
@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_a_link_cut_at_random(node, relay, kinds):
    torture(node, relay, kinds, kill=False)


@pytest.mark.skipif(KINDS == [REDIS], reason="redis-server loses its place when it is killed")
@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_both_sides_killed_at_random(node, relay):
    torture(node, relay, (OURS, OURS), kill=True)


@pytest.mark.parametrize("kinds", OUR_PAIRS)
@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_places_changed_at_random(node, relay, kinds):
    """Promotions under load, one after the other; what the old leader wrote last is given up."""
    rng = random.Random()
    a, b = (node(kind, repl_backlog_size="32mb") for kind in kinds)
    b.follow(a)
    wait_sync(a, b)
    for _ in range(ROUNDS):
        writers = [Chaos(a) for _ in range(2)]
        time.sleep(rng.uniform(0, 0.1))
        if rng.random() < 0.5:
            for w in writers:
                w.stop()
            wait_sync(a, b)
        assert b("REPLICAOF", "NO", "ONE") == "OK"
        b("SET", "era", rng.random())
        a.follow(b)
        for w in writers:
            w.stop()
        wait_for(lambda: linked(a), tell=lambda: replication_of(a, b))
        wait_same(b, a)
        a, b = b, a
