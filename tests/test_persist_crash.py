"""kill -9 at random moments under concurrent writers, with snapshots in between: every acknowledged write is there
exactly once, and transactions are whole. ECHOVAULT_CRASH_ROUNDS sets how often."""
import os
import random
import time

import pytest

from ev import ours
from persist_tools import Durable, info
from writers import Append, Incr, Set, Transaction, writing

pytestmark = ours
ROUNDS = int(os.environ.get("ECHOVAULT_CRASH_ROUNDS", 25))
KINDS = [Incr, Incr, Append, Set, Transaction, Transaction]


@pytest.mark.parametrize("policy", ["always", "everysec"])
@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_nothing_acknowledged_is_lost(policy, tmp_path):
    rng = random.Random()
    writers = [kind(None, i) for i, kind in enumerate(KINDS)]
    for _ in range(ROUNDS):
        with Durable(tmp_path, appendfsync=policy, repl_backlog_size=16384, auto_aof_rewrite_min_size=1) as server:
            with server.client() as c:
                writers = [type(w)(server.client, w.number, made=w.check(c)) for w in writers]
                with writing(*writers):
                    until = time.monotonic() + rng.uniform(0.02, 0.5)
                    while time.monotonic() < until:
                        if rng.random() < 0.2:
                            c(rng.choice(["BGSAVE", "BGREWRITEAOF"]))
                        time.sleep(rng.uniform(0, 0.02))
                    server.kill()
    with Durable(tmp_path) as server, server.client() as c:
        for w in writers:
            w.check(c)
        assert info(c, "aof_last_write_status") == "ok"
    assert sum(w.acknowledged for w in writers) > 10 * ROUNDS
