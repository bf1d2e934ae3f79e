"""Replication where something goes wrong: leaders that lie, roles that change at a bad moment, disks that are full, and
ends of the process at every step of a full resync."""
import time

import pytest

from ev import OK, eventually, ours
from repl_tools import OURS, contents, linked, wait_for, wait_same, wait_sync

pytestmark = ours


def saved(node):
    """A snapshot of now is on its disk."""
    assert node("SAVE") == OK


# ---- what was never logged ---------------------------------------------------------------------------------------


def test_a_snapshot_from_before_unlogged_changes_is_no_sync(node):
    """Without a log and without followers, changes pass by uncounted; a snapshot of before them is not the state now."""
    a, b = node(appendonly="no"), node()
    a("SET", "old", 1)
    saved(a)
    a("SET", "new", 2)
    b.follow(a)
    wait_same(a, b)
    assert b("GET", "new") == b"2"


def test_a_log_that_is_turned_on_while_a_snapshot_runs(node):
    """It must not begin at that snapshot, which lacks what was changed since."""
    a = node(appendonly="no")
    with a.client() as c:
        c.pipeline([("SET", f"k{i}", "x" * 100) for i in range(100000)])
        assert c.pipeline([("BGSAVE",), ("SET", "new", 1), ("CONFIG", "SET", "appendonly", "yes")])[1:] == [OK, OK]
        wait_for(lambda: a.fact("aof_current_size") and not a.fact("aof_rewrite_in_progress"))
    a.kill()
    a.start_again(appendonly="yes")
    assert a("GET", "new") == b"1" and a("DBSIZE") == 100001
