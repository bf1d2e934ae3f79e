"""kill -9 at random moments under concurrent writers, with snapshots in between: every acknowledged write is there
exactly once, and transactions are whole. ECHOVAULT_CRASH_ROUNDS sets how often."""
import os
import random
import threading
import time

import pytest

from ev import NIL, OK, ours
from persist_tools import Durable, info

pytestmark = ours
ROUNDS = int(os.environ.get("ECHOVAULT_CRASH_ROUNDS", 25))


def get(c, key):
    value = c("GET", key)
    return None if value is NIL else value


class Writer(threading.Thread):
    """Sends one command (or transaction) after the other; counts those that were answered."""

    def __init__(self, server, number, acknowledged):
        super().__init__()
        self.server, self.number, self.n = server, number, acknowledged

    def run(self):
        try:
            with self.server.client() as c:
                while True:
                    self.write(c)
                    self.n += 1
        except (OSError, ConnectionError):
            pass


class Incr(Writer):
    def write(self, c):
        assert c("INCR", f"incr{self.number}") == self.n + 1

    def check(self, c):
        there = int(get(c, f"incr{self.number}") or 0)
        assert self.n <= there <= self.n + 1
        return there


class Append(Writer):
    def write(self, c):
        c("APPEND", f"append{self.number}", f"{self.n};")

    def check(self, c):
        there = (get(c, f"append{self.number}") or b"").decode().split(";")[:-1]
        assert there == [str(i) for i in range(len(there))]
        assert self.n <= len(there) <= self.n + 1
        return len(there)


class Set(Writer):
    """Each value is longer than a page."""

    def write(self, c):
        assert c("SET", f"set{self.number}:{self.n % 5}", f"{self.n}:" + "v" * 6000) == OK

    def check(self, c):
        found = [get(c, f"set{self.number}:{i}") for i in range(5)]
        numbers = [int(v.split(b":")[0]) for v in found if v]
        assert all(v is None or v.endswith(b"v" * 6000) for v in found)
        there = max(numbers) + 1 if numbers else 0
        assert sorted(numbers) == list(range(there))[-5:]
        assert self.n <= there <= self.n + 1
        return there


class Transaction(Writer):
    """Moves an amount between two accounts in two databases and counts it."""

    def write(self, c):
        n = self.number
        replies = c.transaction(("DECRBY", f"from{n}", 7), ("SELECT", 1), ("INCRBY", f"to{n}", 7), ("SELECT", 0),
                                ("INCR", f"moves{n}"))
        assert replies[-1] == self.n + 1

    def check(self, c):
        n = self.number
        there = int(get(c, f"moves{n}") or 0)
        taken = int(get(c, f"from{n}") or 0)
        c("SELECT", 1)
        given = int(get(c, f"to{n}") or 0)
        c("SELECT", 0)
        assert (taken, given) == (-7 * there, 7 * there)
        assert self.n <= there <= self.n + 1
        return there


@pytest.mark.parametrize("policy", ["always", "everysec"])
@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_nothing_acknowledged_is_lost(policy, tmp_path):
    rng = random.Random()
    kinds = [Incr, Incr, Append, Set, Transaction, Transaction]
    acknowledged = [0] * len(kinds)
    total = 0
    for _ in range(ROUNDS):
        with Durable(tmp_path, appendfsync=policy, repl_backlog_size=16384, auto_aof_rewrite_min_size=1) as server:
            with server.client() as c:
                there = [kind(server, i, acknowledged[i]).check(c) for i, kind in enumerate(kinds)]
                writers = [kind(server, i, there[i]) for i, kind in enumerate(kinds)]
                for w in writers:
                    w.start()
                until = time.monotonic() + rng.uniform(0.02, 0.5)
                while time.monotonic() < until:
                    if rng.random() < 0.2:
                        c(rng.choice(["BGSAVE", "BGREWRITEAOF"]))
                    time.sleep(rng.uniform(0, 0.02))
                server.kill()
            for w in writers:
                w.join()
            acknowledged = [w.n for w in writers]
            total = sum(acknowledged)
    with Durable(tmp_path) as server, server.client() as c:
        for i, kind in enumerate(kinds):
            kind(server, i, acknowledged[i]).check(c)
        assert info(c, "aof_last_write_status") == "ok"
    assert total > 10 * ROUNDS
