"""Three redis-sentinels watch one leader and two followers. The leader is killed under load, a follower takes its
place, the old leader returns as a follower; no write that a follower had acknowledged is lost.

ECHOVAULT_SENTINEL_ROUNDS sets how often.
"""
import contextlib
import itertools
import os
import time

import pytest

from ev import Client, Server, need
from repl_tools import KINDS, Node, linked, replication_of, wait_for, wait_online, wait_same, wait_sync
from writers import Append, Incr, Refused, Transaction, writing

ROUNDS = int(os.environ.get("ECHOVAULT_SENTINEL_ROUNDS") or 1)

# Sentinel pings once a second, and cuts the other sentinels' connections when it promotes: with less than that until a
# server counts as down, a new leader sometimes does at once.
CONFIG = """
dir {folder}
sentinel monitor the-leader 127.0.0.1 {port} 2
sentinel down-after-milliseconds the-leader 2000
sentinel failover-timeout the-leader 6000
sentinel parallel-syncs the-leader 2
"""


class Sentinels:
    """Three of them, in agreement about who there is."""

    def __init__(self, leader, folder, stack):
        self.sentinels = []
        for n in range(3):
            place = folder / str(n)
            place.mkdir()
            conf = place / "sentinel.conf"
            conf.write_text(CONFIG.format(folder=place, port=leader.port))
            self.sentinels.append(stack.enter_context(
                Server(str(conf), binary=need("redis-sentinel"), folder=str(place), appendonly=None, save=None)))

    def each(self, *args):
        for s in self.sentinels:
            with s.client() as c:
                yield c("SENTINEL", *args)

    def know(self, followers):
        """All of them know these followers to be up, and each other."""

        def fields(reply):
            return dict(zip(reply[::2], reply[1::2]))

        for leader, replicas in zip(self.each("MASTER", "the-leader"), self.each("REPLICAS", "the-leader")):
            up = {int(r[b"port"]) for r in map(fields, replicas) if r[b"flags"] == b"slave"}
            if int(fields(leader)[b"num-other-sentinels"]) < 2 or up != followers:
                return False
        return True

    def leader(self):
        """The port of the one that all, or the first that answers, takes for the leader."""
        return int(next(self.each("GET-MASTER-ADDR-BY-NAME", "the-leader"))[1])

    def client(self):
        """A connection to whoever takes writes now, as a client library finds it."""
        return Client(self.leader(), timeout=3)


def follows(n):
    with contextlib.suppress(ConnectionError):  # a sentinel that changes a role cuts the connections
        return n.fact("role") == "slave" and linked(n)


def kept(c):
    """A follower has what this connection wrote."""
    reply = c("WAIT", 1, 2000)
    if not isinstance(reply, int):
        raise Refused(reply)
    return reply >= 1


def watched(kind, folder, stack, **options):
    """A leader with two followers, and the sentinels that know them."""
    a, b, c = nodes = [stack.enter_context(Node(kind, **options)) for _ in range(3)]
    for n in (b, c):
        n.follow(a)
    wait_sync(a, b, c)
    wait_online(a, 2)
    sentinels = Sentinels(a, folder, stack)
    wait_for(lambda: sentinels.know({b.port, c.port}), 40)
    return nodes, sentinels


@pytest.mark.parametrize("kind", KINDS[:1])
@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_the_leader_fails_under_load(kind, tmp_path):
    with contextlib.ExitStack() as stack:
        nodes, sentinels = watched(kind, tmp_path, stack, repl_ping_replica_period=1)
        _, b, c = nodes
        writers = [kind(sentinels.client, i, kept) for i, kind in enumerate([Incr, Append, Transaction, Incr])]
        with writing(*writers):
            for n in range(ROUNDS):
                before = [w.acknowledged for w in writers]
                wait_for(lambda: all(w.acknowledged > m + 30 for w, m in zip(writers, before)), tell=lambda: replication_of(*nodes))
                (old,) = [n for n in nodes if n.port == sentinels.leader()]
                old.kill()
                killed = time.monotonic()
                wait_for(lambda: sentinels.leader() != old.port, tell=lambda: replication_of(b, c))
                (new,) = [n for n in nodes if n.port == sentinels.leader()]
                before = [w.acknowledged for w in writers]
                wait_for(lambda: all(w.acknowledged > m for w, m in zip(writers, before)), tell=lambda: replication_of(new))
                took = time.monotonic() - killed
                assert took < 15, f"the failover took {took} seconds"
                print(f"round {n}: writes go on {took:.1f} seconds after the leader's death")
                old.start_again(replicaof=None)
                wait_for(lambda: follows(old), 60, lambda: replication_of(old, new))
                followers = {n.port for n in nodes if n is not new}
                wait_for(lambda: sentinels.know(followers), 60, lambda: replication_of(*nodes))
        others = [n for n in nodes if n is not new]
        wait_same(new, *others)
        for n, w in itertools.product(nodes, writers):
            with n.client() as c:
                w.check(c)
        assert sum(w.acknowledged for w in writers) > 200 * ROUNDS


@pytest.mark.parametrize("kind", KINDS[:1])
@pytest.mark.timeout(180)
def test_the_leaders_disk_fails(kind, tmp_path):
    """It refuses changes, and its PING says so: the sentinels let another lead."""
    with contextlib.ExitStack() as stack:
        (a, b, c), sentinels = watched(kind, tmp_path, stack, save="3600 1", appendonly="no")
        a("SET", "k", "v")
        wait_same(a, b, c)
        snapshot = os.path.join(a.folder, a("CONFIG", "GET", "dbfilename")[1].decode())
        with contextlib.suppress(FileNotFoundError):  # redis-server has none yet
            os.unlink(snapshot)
        os.mkdir(snapshot)
        a("BGSAVE")
        wait_for(lambda: str(a("PING")).startswith("MISCONF"))
        assert str(a("SET", "k", "w")).startswith("MISCONF")
        wait_for(lambda: sentinels.leader() in (b.port, c.port), 30)
        with sentinels.client() as new:
            assert new("GET", "k") == b"v" and new("SET", "k", "w") == "OK"
        os.rmdir(snapshot)
        wait_for(lambda: follows(a) and a("GET", "k") == b"w", 60, lambda: replication_of(a, b, c))
