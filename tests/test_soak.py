"""Everything at once, for a while: writers that count, random commands, expiry and eviction, messages, snapshots, slow
and rude clients, followers that come and go, a link that is cut, and kill -9 of the leader. At the end no change is
lost, the data sets are equal, memory is where it was, and no server has said anything that was not meant to happen.

ECHOVAULT_SOAK_SECONDS sets how long.
"""
import contextlib
import os
import random
import threading
import time

import pytest

from ev import OK, SANITIZED, Error, encode, ours
from repl_tools import Node, Relay, wait_same, wait_sync
from writers import Append, Incr, Set, Transaction, writing

pytestmark = ours
SECONDS = float(os.environ.get("ECHOVAULT_SOAK_SECONDS") or 8)
# What the servers may say above notice: what this test does to them.
EXPECTED = ("The leader 127.0.0.1:", "A follower was dropped:", "the log has a torn end", "The log's last",
            "closed: its output", "Trying again.", "output limit", "Client ")


class Bystander(threading.Thread):
    """Does something again and again, on a connection of its own, until stop(). It bears with cut connections."""

    def __init__(self, node, act):
        super().__init__(daemon=True)
        self.node, self.act, self.ended, self.error, self.rounds = node, act, threading.Event(), None, 0
        self.rng = random.Random()
        self.start()

    def run(self):
        while not self.ended.is_set():
            try:
                with self.node.client(timeout=10) as c:
                    while not self.ended.is_set():
                        self.act(c, self.rng)
                        self.rounds += 1
            except (OSError, ValueError):  # ValueError: it has closed its own connection
                time.sleep(0.02)
            except Exception as e:
                self.error = e
                return

    def stop(self):
        self.ended.set()
        self.join()
        if self.error:
            raise self.error
        assert self.rounds, "it never got to do anything"


def fill_with_expiring(c, rng):
    """Far more than maxmemory lets in; evicted or expired, whichever comes first."""
    commands = [("SET", f"bulk:{rng.randrange(100000)}", rng.randbytes(rng.choice([10, 100, 2000])), "PX",
                 rng.choice([rng.randint(1, 2000), 10**7, 10**7])) for _ in range(100)]
    assert all(r in (OK, None) or isinstance(r, Error) for r in c.pipeline(commands))
    time.sleep(0.01)


def read_much(c, rng):
    c.pipeline([("GET", f"bulk:{rng.randrange(100000)}") for _ in range(200)])
    c("SCAN", rng.randrange(1 << 16), "COUNT", 100)
    c("INFO")
    time.sleep(0.01)


def subscribe(c, rng):
    """Messages of one publisher come in its order."""
    c("SUBSCRIBE", "news")
    last = {}
    for _ in range(100):
        _, _, message = c.read()
        who, n = message.split()
        assert last.get(who, -1) < int(n)
        last[who] = int(n)
    c.close()


def publish(c, rng):
    me = rng.getrandbits(32)
    for n in range(100):
        c("PUBLISH", "news", f"{me} {n}")
        time.sleep(0.001)


def save(c, rng):
    c(rng.choice(["BGSAVE", "BGREWRITEAOF"]))
    time.sleep(rng.uniform(0.2, 1))


def be_rude(c, rng):
    """Asks for much and reads nothing; says half a command; says nonsense; leaves."""
    what = rng.randrange(3)
    if what == 0:
        c.send(encode("KEYS", "*") * 500)
    elif what == 1:
        c.send(encode("SET", "bulk:x", "y" * 10000)[: rng.randrange(1, 9000)])
    else:
        c.send(rng.randbytes(100) + b"\r\n")
    time.sleep(0.1)
    c.close()


class ShortAppend(Append):
    """Does not grow for ever: memory must stay where it was."""

    ANEW = 10_000


@pytest.mark.timeout(300 + 2 * SECONDS)
def test_everything_at_once(tmp_path):
    with contextlib.ExitStack() as stack:
        options = {"maxmemory": "8mb", "maxmemory-policy": "volatile-lru", "auto_aof_rewrite_min_size": "1mb",
                   "client_output_buffer_limit": ["normal", "32mb", "16mb", "5"], "repl_backlog_size": "32mb",
                   "repl_ping_replica_period": 1}
        a = stack.enter_context(Node(**options))
        r = stack.enter_context(Relay(a.port))
        b = stack.enter_context(Node(follow=r, **options))
        c = stack.enter_context(Node(follow=a, **options))
        wait_sync(a, b, c)
        writers = [kind(lambda: a.client(timeout=10), i) for i, kind in enumerate([Incr, ShortAppend, Set, Transaction])]
        acts = [fill_with_expiring, fill_with_expiring, read_much, subscribe, publish, save, be_rude]
        bystanders = [Bystander(a, act) for act in acts]
        sizes, kills, rng, began = [], 0, random.Random(), time.monotonic()
        with writing(*writers):
            while time.monotonic() - began < SECONDS:
                time.sleep(rng.uniform(0.2, 1))
                roll = rng.random()
                if roll < 0.3:
                    r.cut()
                elif roll < 0.45:
                    c.kill() if rng.random() < 0.5 else c.leave()
                    c.start_again()
                elif roll < 0.6:
                    a.kill()
                    a.start_again()
                    kills += 1
                sizes.append(b.rss())
            for s in bystanders:
                s.ended.set()
            for s in bystanders:
                s.stop()
        for w in writers:
            with a.client() as one:
                w.check(one)
            assert w.acknowledged
        with a.client() as one:  # what has expired goes now: the sweep would take its time
            one.pipeline([("EXISTS", *(f"bulk:{i + n}" for i in range(100))) for n in range(0, 100000, 100)])
        wait_same(a, b, c, seconds=60)
        if len(sizes) > 100 and not SANITIZED:
            middle, last = sizes[len(sizes) // 3 : len(sizes) // 2], sizes[-len(sizes) // 6 :]
            assert max(last) < max(middle) * 1.1 + (4 << 20), "memory grows"
        for n in (a, b, c):
            loud = [line for line in n.output().splitlines() if " # " in line and not any(e in line for e in EXPECTED)]
            assert not loud, loud[:10]
        print(f"{kills} kills, {[w.acknowledged for w in writers]} changes, {[s.rounds for s in bystanders]} rounds, "
              f"{sizes[0] >> 20} to {sizes[-1] >> 20} MB")
