"""Replication where something goes wrong: leaders that lie, roles that change at a bad moment, disks that are full, and
ends of the process at every step of a full resync."""
import contextlib
import os
import re
import signal
import socket
import time

import pytest

from ev import NIL, OK, Error, encode, eventually, ours
from repl_tools import (OUR_FOLLOWERS, HandFollower, HandLeader, Node, linked, replication_of, wait_for, wait_same,
                        wait_sync)

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


# ---- leaders that lie --------------------------------------------------------------------------------------------

ID = "c0ffee" * 6 + "beef"


@pytest.fixture(scope="module")
def empty_snapshot():
    with Node() as a:
        saved(a)
        with open(f"{a.folder}/database_{a.port}.rdb", "rb") as f:
            return f.read()


@pytest.fixture
def lied_to(node, empty_snapshot):
    """Starts a follower of a leader that sends these bytes after a full resync at this offset. Gives the follower and
    what the leader heard: how each PSYNC asked, and what came after it."""
    with contextlib.ExitStack() as leaders:

        def start(stream, offset=1):
            heard = []

            def script(link, said):
                heard.append(said[-1])
                link.send(b"+FULLRESYNC %s %s\r\n$%d\r\n" % (ID.encode(), str(offset).encode(), len(empty_snapshot)))
                link.send(empty_snapshot + stream)
                while True:
                    heard.append(link.read())

            leader = leaders.enter_context(HandLeader(script))
            return node(follow=leader), heard

        yield start


MULTI, EXEC, SET = encode("MULTI"), encode("EXEC"), encode("SET", "k", "v")


@pytest.mark.parametrize("stream", [
    encode("SET"), MULTI + encode("SET", "k") + SET + EXEC,  # too few arguments
    EXEC, MULTI + MULTI,
    encode("RESET") + SET, encode("QUIT"), encode("SUBSCRIBE", "x"), MULTI + SET + encode("DISCARD") + SET,
    b"SET k v\r\n", b"\r\n", b"*0\r\n", b"*-1\r\n",  # no stream's form: their log has another length
    b"*1\r\n$-1\r\n", b"*01\r\n$4\r\nPING\r\n", encode("SELECT", 99),
])  # fmt: skip
def test_what_is_no_stream_is_refused(lied_to, stream):
    good = encode("SET", "before", 1)
    b, heard = lied_to(good + stream)
    wait_for(lambda: ["PSYNC", "?", "-1"] in heard, tell=b.output)
    assert b("GET", "before") == b"1" and b("GET", "k") is NIL
    assert b.fact("slave_repl_offset") == 1 + len(good)
    assert not [words for words in heard if isinstance(words, str)], "nobody answers a leader"


@pytest.mark.parametrize("offset", [-1, 2**64 - 1, 2**63 - 1, 10**30, "", "x"])
def test_an_impossible_offset_is_refused(lied_to, offset):
    b, heard = lied_to(SET, offset)
    wait_for(lambda: len(heard) > 1, tell=b.output)
    assert not linked(b) and b.fact("master_repl_offset") == 0 and b("DBSIZE") == 0
    assert "does not let us follow" in b.output()


def test_a_continuation_that_nobody_asked_for_is_refused(node, empty_snapshot):
    """Once a follower has lost its place, only a full resync will do."""
    asked = []

    def script(link, said):
        asked.append(said[-1][1])
        if len(asked) == 1:
            link.send(b"+FULLRESYNC %s 1\r\n$%d\r\n%s" % (ID.encode(), len(empty_snapshot), empty_snapshot + encode("SET")))
        else:
            link.send(b"+CONTINUE\r\n" + SET)
        link.rest()

    with HandLeader(script) as leader:
        b = node(follow=leader)
        wait_for(lambda: asked[1:3] == ["?", "?"], tell=b.output)
        assert b("GET", "k") is NIL
        b.kill()


# ---- roles that change -------------------------------------------------------------------------------------------


def test_a_full_resync_drops_the_followers_of_the_old_history(node, empty_snapshot):
    """Even where the offset is the same by chance: they would take the new stream for the old one's."""
    leaders = iter([(ID, encode("SET", "old", 1)), ("f" * 40, b"")])
    links = []

    def script(link, said):
        replid, stream = next(leaders)
        offset = 1 if stream else 1 + len(encode("SET", "old", 1))
        links.append(link)
        link.send(b"+FULLRESYNC %s %d\r\n$%d\r\n%s" % (replid.encode(), offset, len(empty_snapshot), empty_snapshot + stream))
        link.rest()

    with HandLeader(script) as leader:
        b = node(follow=leader)
        c = node(follow=b)
        wait_for(lambda: c("GET", "old") == b"1" and b("INFO", "replication").count(b"state=online") == 1)
        links[0].socket.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: b("GET", "old") is NIL, tell=b.output)
        links[-1].send(encode("SET", "new", 1))
        wait_for(lambda: c("GET", "new") == b"1")
        assert c("GET", "old") is NIL
        b.kill()


def test_promotion_and_commands_in_one_breath(node):
    """What has expired must be gone, in the log too, for the first command that a leader runs."""
    a = node()
    b, c = node(follow=a), node()
    a("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    a.pipeline([(name, f"{name}:{i}", *more) for i in range(3) for name, *more in [("SET", 5, "PX", 50)]])
    wait_sync(a, b)
    c.follow(b)
    wait_sync(b, c)
    b("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    time.sleep(0.1)
    assert b.pipeline([("REPLICAOF", "NO", "ONE"), ("INCR", "SET:0"), ("APPEND", "SET:1", "x"), ("DBSIZE",)]) == [OK, 1, 1, 3]
    wait_same(b, c)
    b.kill()
    b.start_again(replicaof=None)
    assert b("GET", "SET:0") == b"1" and b("GET", "SET:1") == b"x"


@pytest.mark.parametrize("how", ["TERM", "SHUTDOWN", "SAVE"])
def test_an_end_while_a_full_resync_is_loaded(node, how):
    """It does not wait for the load, and leaves the old data."""
    a, b = node(), node(appendfsync="always")
    with a.client() as c:
        c.pipeline([("SET", f"k{i}", i) for i in range(200000)])
    b("SET", "mine", 1)
    with b.client() as c:
        b.follow(a)
        while b"master_link_status:down" in (info := c("INFO", "replication")):
            if (left := re.search(rb"sync_left_bytes:(\d+)", info)) and left[1] == b"0":
                break
        if how == "TERM":
            b.process.send_signal(signal.SIGTERM)
        else:
            with pytest.raises(ConnectionError):
                raise AssertionError(c("SHUTDOWN", *([how] if how == "SAVE" else [])))
    assert b.process.wait(20) == 0
    assert "Full resync done" not in b.output(), "the load was too quick for this test"
    b.start_again(replicaof=None)
    assert b("GET", "mine") == b"1" and b("DBSIZE") == 1


# ---- disks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leader, follower", OUR_FOLLOWERS)
def test_a_followers_log_is_trimmed(node, leader, follower):
    a = node(leader)
    b = node(follower, follow=a, repl_backlog_size="1mb", auto_aof_rewrite_percentage=0)
    wait_sync(a, b)
    for _ in range(3):
        a.pipeline([("SET", f"k{i % 50}", "x" * 1000) for i in range(2000)])
        wait_sync(a, b)
        wait_for(lambda: not b.fact("aof_rewrite_in_progress"))  # the one that a full copy brings
        assert not isinstance(b("BGREWRITEAOF"), Error)
        wait_for(lambda: not b.fact("aof_rewrite_in_progress"))
    assert b.fact("aof_current_size") < 3 << 20 and b.fact("repl_backlog_histlen") >= 1 << 20
    assert b("DEBUG", "LOADAOF") == OK
    wait_same(a, b)
    b.kill()
    b.start_again()
    wait_same(a, b)
    assert a.syncs()[0] == 1


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_a_followers_full_disk_stops_the_stream(small_disk, node, policy):
    """What cannot be kept is not taken, so the log does not grow in memory; it goes on when there is room again."""
    ballast = os.path.join(small_disk, "ballast")
    a = node()
    b = node(follow=a, folder=small_disk, appendfsync=policy, repl_backlog_size="1mb")
    wait_sync(a, b)
    wait_for(lambda: not b.fact("aof_rewrite_in_progress"))  # it has files that can become too long
    with open(ballast, "wb") as f:
        f.write(bytes(1 << 20))
    a.pipeline([("SET", f"k{i % 10}", os.urandom(10000)) for i in range(110)])
    wait_for(lambda: not linked(b), tell=b.output)
    assert "cannot be kept" in b.output() and b.fact("aof_last_write_status") == "err"
    stopped = b.fact("master_repl_offset")
    a.pipeline([("SET", f"k{i % 10}", os.urandom(10000)) for i in range(50)])
    time.sleep(0.5)
    assert b.fact("master_repl_offset") == stopped
    os.remove(ballast)
    wait_for(lambda: linked(b), tell=b.output)
    wait_same(a, b)
    b.kill()


def test_a_leader_whose_disk_fails_keeps_its_followers(node, relay):
    """Its PING says so, for those who watch; what a follower lacks of the log needs no disk."""
    a = node(appendonly="no", save="3600 1")
    r = relay(a)
    b = node(follow=r)
    a("SET", "k", "v")
    wait_same(a, b)
    name = os.path.join(a.folder, a("CONFIG", "GET", "dbfilename")[1].decode())
    os.unlink(name)
    os.mkdir(name)
    a("BGSAVE")
    wait_for(lambda: str(a("PING")).startswith("MISCONF"))
    before = a.fact("sync_partial_ok")
    r.cut()
    wait_for(lambda: a.fact("sync_partial_ok") > before and linked(b), tell=b.output)
    os.rmdir(name)
    assert a("SAVE") == OK and a("SET", "k", "w") == OK
    wait_same(a, b)


def test_a_leaders_command_may_be_longer_than_a_clients(node):
    a = node()
    b = node(follow=a, client_query_buffer_limit="1mb", proto_max_bulk_len="1mb")
    wait_sync(a, b)
    a("SET", "big", os.urandom(3 << 20))
    a("SET", "bigger", os.urandom(20 << 20), "EX", 1000)
    a("MSET", *(word for i in range(30) for word in (f"k{i}", os.urandom(30000))), *(["x", "y"] * 20000))
    wait_same(a, b)
    assert a.syncs() == (1, 0)


def test_a_follower_that_does_not_read_its_snapshot_is_dropped(node):
    """It would keep the log from being trimmed for ever."""
    a = node(repl_timeout=1)
    a("SET", "big", os.urandom(64 << 20))
    with HandFollower(a) as f:
        wait_for(lambda: a("INFO", "replication").count(b"connected_slaves:0"), tell=lambda: replication_of(a))
        assert "nothing was heard" in a.output() and f.answer.startswith("+FULLRESYNC")
