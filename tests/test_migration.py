"""Moving from redis-server to EchoVault and back while clients write: each server follows the one before it and takes
its place; no write is lost, and none is made twice."""
import time

import pytest

from ev import OK
from repl_tools import OURS, REDIS, address, fill, in_sync, linked, replication_of, wait_for, wait_online, wait_same
from writers import Append, Incr, Set, Transaction, writing

WRITERS = [Incr, Append, Set, Transaction, Transaction, Incr]


def refuse(old, new):
    """As README has it: no more changes at the old one, until the new one has all."""
    assert old("CONFIG", "SET", "min-replicas-to-write", 9) == OK
    take_over(old, new)


def pause(old, new):
    """Clients wait until the old one ends, and then find the new one."""
    assert old("CLIENT", "PAUSE", 60000, "WRITE") == OK
    take_over(old, new)


def take_over(old, new):
    wait_for(lambda: in_sync(old, new), tell=lambda: replication_of(old, new))
    assert new("REPLICAOF", "NO", "ONE") == OK
    old.kill()


def failover(old, new):
    """The old one waits for the new one, and follows it then."""
    assert old("FAILOVER", "TO", *address(new), "TIMEOUT", 20000) == OK
    wait_for(lambda: new.fact("role") == "master", tell=lambda: replication_of(old, new))
    wait_for(lambda: old.fact("role") == "slave", tell=lambda: replication_of(old, new))


@pytest.mark.parametrize("move", [refuse, pause, failover])
def test_there_and_back_under_load(node, move):
    current = node(REDIS)
    fill(current, 200)
    writers = [kind(lambda: current.client(timeout=30), i) for i, kind in enumerate(WRITERS)]
    interruptions = []
    with writing(*writers):
        for n, kind in enumerate([OURS, REDIS]):
            busy(writers)
            new = node(kind, follow=current)
            wait_for(lambda: linked(new))
            wait_online(current)
            busy(writers)
            old, before = current, time.monotonic()
            move(old, new)
            current = new
            busy(writers, 1)
            interruptions.append(time.monotonic() - before)
            if move is failover:
                wait_for(lambda: linked(old))
                assert old.syncs()[0] == 1 and new.syncs() == (0, 1)
                assert old.end() == 0
        busy(writers)
    print("no writes for", interruptions)
    with current.client() as c:
        for w in writers:
            w.check(c)
        assert c("GET", "key:199") == b"v199" * 39 and c("PEXPIRETIME", "due:1") == 33177117420001
    assert max(interruptions) < 10


def busy(writers, n=30):
    """Until every one of them has made so many more changes."""
    before = [w.acknowledged for w in writers]
    wait_for(lambda: all(w.error or w.acknowledged >= m + n for w, m in zip(writers, before)))


@pytest.mark.parametrize("kinds", [(REDIS, OURS), (OURS, REDIS)])
def test_the_copy_is_exact(node, kinds):
    old = node(kinds[0])
    fill(old)
    new = node(kinds[1], follow=old)
    wait_same(old, new)
    new("REPLICAOF", "NO", "ONE")
    assert old("DEBUG", "DIGEST") == new("DEBUG", "DIGEST")
