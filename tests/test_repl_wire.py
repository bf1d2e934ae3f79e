"""PSYNC byte by byte: a leader and a follower made by hand, which say what they like."""
import os
import re
import threading
import time

import pytest

from ev import IS_REDIS, NIL, OK, Error, encode, ours
from repl_tools import (KINDS, OURS, REDIS, HandFollower, HandLeader, Node, contents, fill, is_error, linked, wait_for,
                        wait_online, wait_same, wait_sync)

REPLID = "0123456789abcdef0123456789abcdef01234567"
GETACK = encode("REPLCONF", "GETACK", "*")
kinds = pytest.mark.parametrize("kind", KINDS[:1])


# ---- a follower by hand --------------------------------------------------------------------------------------


def join(a, *args, **kw):
    """A follower by hand after its full resync: it, the id and the offset, and the snapshot."""
    f = HandFollower(a, *args, **kw)
    assert re.fullmatch(r"\+FULLRESYNC [0-9a-f]{40} \d+", f.answer)
    _, replid, offset = f.answer.split()
    data = f.snapshot()
    wait_online(a)
    f.ack(offset)
    return f, replid, int(offset), data


@kinds
@pytest.mark.parametrize("capa", [(), ("eof",), ("psync2",), ("eof", "psync2", "unheard-of")])
def test_the_snapshot_is_one_that_redis_loads(node, tmp_path, kind, capa):
    a = node(kind)
    fill(a, 20)
    with HandFollower(a, capa=capa) as f:
        assert f.answer.startswith("+FULLRESYNC ")
        (tmp_path / "dump.rdb").write_bytes(f.snapshot())
    assert contents(node(REDIS, dir=tmp_path)) == contents(a)


@kinds
def test_the_stream_says_which_database_first(node, kind):
    a = node(kind)
    a.pipeline([("SELECT", 3), ("SET", "k", "v")])
    f, replid, offset, _ = join(a)
    with f:
        assert a.facts("replication")["master_replid"] == replid
        a.pipeline([("SELECT", 3), ("SET", "k", "w"), ("SELECT", 0), ("SET", "k", "x")])
        said = []
        while said[-1:] != [[b"SET", b"k", b"x"]]:
            said.append(f.command())
        said = [words for words in said if words[0].upper() != b"PING"]
        assert said == [[b"SELECT", b"3"], [b"SET", b"k", b"w"], [b"SELECT", b"0"], [b"SET", b"k", b"x"]]


@kinds
def test_every_byte_counts_and_any_offset_can_be_asked_for(node, kind):
    a = node(kind)
    f, replid, offset, _ = join(a)
    with f:
        a.pipeline([("SET", f"k{i}", os.urandom(i)) for i in range(200)] + [("SELECT", 2), ("SET", "last", 1)])
        end = a.fact("master_repl_offset")
        stream = f.input.read(end - offset)
        assert encode("SET", "last", 1) in stream
    for n in (0, 1, 17, len(stream) // 2, len(stream) - 1):
        with HandFollower(a, replid, offset + n + 1) as g:
            assert g.answer in ("+CONTINUE", f"+CONTINUE {replid}")
            assert g.input.read(len(stream) - n) == stream[n:]
    with HandFollower(a, replid, offset + len(stream) + 1) as g:
        assert g.answer.startswith("+CONTINUE"), "nothing is new"
        a("SET", "k", "v")
        while (words := g.command()) != [b"SET", b"k", b"v"]:
            assert words[0].upper() in (b"SELECT", b"PING")
    assert a.syncs() == (1, 6)


@kinds
def test_what_cannot_be_continued_gets_a_full_resync(node, kind):
    a = node(kind)
    f, replid, offset, _ = join(a)
    f.close()
    for said in ((REPLID, 1), (replid, 10**9), (REPLID, offset + 1), ("?", -1), (replid.upper()[:39] + "?", 1)):
        with HandFollower(a, *said) as g:
            assert g.answer.startswith("+FULLRESYNC "), said
            assert g.snapshot().startswith(b"REDIS")
    assert a.syncs()[1] == 0


@kinds
def test_an_old_follower_says_sync_alone(node, kind):
    a = node(kind)
    a("SET", "k", "v")
    with a.client() as c:
        c.send(b"SYNC\r\n")
        while (line := c.input.readline()) == b"\n":
            pass
        assert re.fullmatch(rb"\$\d+\r\n", line)
        assert c.input.read(int(line[1:])).startswith(b"REDIS")
        a("SET", "k", "w")
        while (words := c.read()) != [b"SET", b"k", b"w"]:
            assert words[0].upper() in (b"SELECT", b"PING")


@kinds
def test_a_leader_pings(node, kind):
    a = node(kind, repl_ping_replica_period=1)
    f, _, _, _ = join(a)
    with f:
        at = a.fact("master_repl_offset")
        assert f.command()[0].upper() == b"PING" and f.command()[0].upper() == b"PING"
        assert a.fact("master_repl_offset") >= at + 2 * len(encode("PING"))


@kinds
def test_a_follower_that_falls_silent_is_dropped(node, kind):
    a = node(kind, repl_timeout=1)
    f, _, _, _ = join(a)
    with f:
        wait_for(lambda: a.fact("connected_slaves") == 0, 10)


def test_followers_that_leave_at_any_moment(node):
    """Before, during and after the snapshot; the leader goes on, and so do the others."""
    a = node()
    a.pipeline([("SET", f"k{i}", os.urandom(1000)) for i in range(2000)])
    stays = node(follow=a)
    wait_sync(a, stays)
    for n in (0, 1, 10, 1000, 100000, 2000000):
        with HandFollower(a) as f:
            f.input.read(n)
        a("SET", "k", n)
    with a.client() as c:
        c.send(encode("REPLCONF", "listening-port", 7) + encode("PSYNC", "?", -1))
    wait_for(lambda: a.fact("connected_slaves") == 1)
    wait_same(a, stays)


def test_replconf_replies(node):
    """REPLCONF of all sorts is answered as redis-server answers it."""
    def replies(n):
        with n.client() as c:
            return [c("REPLCONF", *args) for args in (
                ["listening-port", "7"], ["listening-port", "x"], ["capa", "eof", "capa", "psync2"], ["capa", "x"], ["x", "y"],
                ["ip-address", "1.2.3.4"], ["ip-address", "x" * 300], ["rdb-only", "0"], ["rdb-only", "x"], ["capa"], [],
                ["rdb-filter-only", ""])]  # fmt: skip

    n = node()
    assert replies(n) == replies(node(REDIS))
    assert IS_REDIS or is_error(n("REPLCONF", "rdb-filter-only", "functions"), "ERR"), "they are not sent all keys"
    assert IS_REDIS or str(n("REPLCONF", "ip-address", "1.2.3.4\r\nrole:slave")).startswith("ERR Addresses cannot")
    assert IS_REDIS or str(n("REPLICAOF", "a\nrequirepass x", "1")).startswith("ERR Host names cannot")


def test_the_port_and_address_that_a_follower_names_are_shown(node):
    a = node()
    f = HandFollower(a)
    with f:
        f.snapshot()
        wait_online(a)
        assert re.match(r"ip=127\.0\.0\.1,port=1,state=online,", a.facts()["slave0"])
    b = node(follow=a, replica_announce_ip="10.1.2.3", replica_announce_port=77)
    wait_sync(a, b)
    wait_for(lambda: "ip=10.1.2.3,port=77," in str(a.facts()))
    wait_for(lambda: a("ROLE")[2][-1][:2] == [b"10.1.2.3", b"77"])


@kinds
def test_psync_is_refused_by_a_follower_whose_link_is_down(node, relay, kind):
    a = node(OURS)
    r = relay(a)
    b = node(kind)
    r.down()
    b.follow(r)
    with b.client() as c:
        reply = c("PSYNC", "?", "-1")
        assert reply == Error("NOMASTERLINK Can't SYNC while not connected with my master")


# ---- a leader by hand ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snapshot():
    """A data set as redis-server sends it, and its contents."""
    with Node(REDIS) as a:
        fill(a, 50)
        with HandFollower(a, capa=()) as f:
            return f.snapshot(), contents(a)


@pytest.fixture
def leader():
    leaders = []

    def make(script, **kw):
        leaders.append(HandLeader(script, **kw))
        return leaders[-1]

    yield make
    for one in leaders:
        one.close()


def serve(data, stream=b"", offset=100, hold=None):
    """A script: a full resync, the stream, and then silence until the follower leaves (or hold is set)."""

    def script(link, said):
        link.send(b"+FULLRESYNC %s %d\r\n$%d\r\n" % (REPLID.encode(), offset, len(data)) + data + stream)
        wait_end(link, hold)

    return script


def wait_end(link, hold=None):
    if hold:
        hold.wait(30)
        return
    while link.input.read(1):
        pass


def test_the_handshake_is_redis_servers(node, leader, snapshot):
    def said(n):
        one = leader(serve(snapshot[0]))
        n.follow(one)
        wait_for(lambda: linked(n))
        return [["PORT" if w == str(n.port) else w for w in words] for words in one.handshakes[0]][:-1]

    password = {"masterauth": "a b", "masteruser": "me"}
    assert said(node()) == said(node(REDIS))
    assert said(node(**password)) == said(node(REDIS, **password))


@pytest.mark.parametrize("refuse", [(), ("REPLCONF",)])
def test_a_leader_may_not_know_replconf(node, leader, snapshot, refuse):
    one = leader(serve(snapshot[0]), refuse=refuse)
    b = node()
    b.follow(one)
    wait_for(lambda: linked(b))
    assert contents(b) == snapshot[1]


@ours
def test_the_first_sync_asks_for_everything_and_the_next_for_the_rest(node, leader, snapshot):
    stream = encode("SELECT", 0) + encode("SET", "k", "v")

    def script(link, said):
        if said[-1] == ["PSYNC", REPLID, str(100 + len(stream) + 1)]:
            link.send(b"+CONTINUE\r\n" + encode("SET", "k", "w"))
            wait_end(link)
        else:
            link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(snapshot[0])) + snapshot[0] + stream)
            wait_for(lambda: b("GET", "k") == b"v")

    one = leader(script)
    b = node()
    b.follow(one)
    wait_for(lambda: b("GET", "k") == b"w")
    assert one.handshakes[0][-1] in (["PSYNC", "?", "-1"], ["PSYNC", one.handshakes[0][-1][1], "1"])
    assert b.fact("master_repl_offset") == 100 + len(stream) + len(encode("SET", "k", "w"))


@ours
def test_a_new_id_is_kept_when_the_link_is_cut_before_a_byte_under_it(node, leader, snapshot):
    new = "b" * 40
    asked = []

    def script(link, said):
        asked.append(said[-1])
        if len(asked) == 1:
            link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(snapshot[0])) + snapshot[0])
            wait_for(lambda: linked(b))
        elif len(asked) < 5:
            link.send(b"+CONTINUE %s\r\n" % new.encode())
        else:
            link.send(b"+CONTINUE %s\r\n" % new.encode() + encode("SET", "k", "w"))
            wait_end(link)

    one = leader(script)
    b = node()
    b.follow(one)
    wait_for(lambda: b("GET", "k") == b"w")
    facts = b.facts("replication")
    assert (facts["master_replid"], facts["master_replid2"], facts["second_repl_offset"]) == (new, REPLID, "101")
    assert asked[1:] == [["PSYNC", REPLID, "101"]] * 4, "what it has is still of the old id"


@kinds
def test_keepalives_torn_answers_and_marks(node, leader, snapshot, kind):
    """Newlines before the answer and the snapshot, a snapshot of unknown length, all in pieces of all sizes."""
    mark = os.urandom(20).hex().encode()
    answer = b"\n\n+FULLRESYNC %s 100\r\n\n\n\n$EOF:%s\r\n" % (REPLID.encode(), mark)
    rest = snapshot[0][-200:] + mark

    def script(link, said):
        for i in range(len(answer)):
            link.send(answer[i : i + 1])
        link.send(snapshot[0][:-200])
        for i in range(len(rest)):
            link.send(rest[i : i + 1])
            if i % 20 == 0:
                time.sleep(0.001)
        assert link.read() == [b"REPLCONF", b"ACK", b"100"]
        link.send(encode("SELECT", "1") + encode("SET", "k", "v"))
        wait_end(link)

    b = node(kind)
    b.follow(leader(script))
    wait_for(lambda: linked(b) and (1, b"k") in contents(b), tell=b.output)
    found = contents(b)
    assert found.pop((1, b"k")) == (b"v", -1) and found == snapshot[1]


@ours
@pytest.mark.parametrize("answer", [b"-LOADING Redis is loading the dataset in memory\r\n", b"-NOMASTERLINK Can't SYNC\r\n",
                                    b"-ERR what?\r\n", b"+WHAT\r\n", b"-NOAUTH Authentication required.\r\n", b"",
                                    b"\n", b"+FULLRESYNC %s" % REPLID.encode(), b"\xff" * 1000])  # fmt: skip
def test_an_answer_of_no_use_is_followed_by_another_try(node, leader, snapshot, answer):
    tries = []

    def script(link, said):
        tries.append(1)
        if len(tries) < 3:
            link.send(answer)
        else:
            serve(snapshot[0])(link, said)

    b = node()
    b("SET", "mine", "x")
    b.follow(leader(script))
    wait_for(lambda: linked(b), tell=b.output)
    assert contents(b) == snapshot[1]


def damage(data, how):
    """The snapshot, damaged."""
    at = len(data) // 2
    return {
        "a flipped bit": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "a wrong checksum": data[:-1] + bytes([data[-1] ^ 1]),
        "another magic": b"RADIS" + data[5:],
        "a version too new": b"REDIS0099" + data[9:],
        "an unknown opcode": data[:9] + b"\xe0" + data[10:],
        "nothing": b"",
        "half of it": data[:at],
        "no end": data[:-9],
        "more behind its end": data + b"more",
    }[how]


@ours
@pytest.mark.parametrize("how", ["a flipped bit", "a wrong checksum", "another magic", "a version too new", "an unknown opcode",
                                 "nothing", "half of it", "no end"])  # fmt: skip
def test_a_damaged_snapshot_is_refused(node, leader, snapshot, how):
    tries = []

    def script(link, said):
        tries.append(1)
        if len(tries) < 3:
            data = damage(snapshot[0], how)
            link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(data)) + data + encode("SET", "bad", "x"))
            wait_end(link)
        else:
            assert contents(b) == {(0, b"mine"): (b"x", -1)}
            serve(snapshot[0])(link, said)

    b = node()
    b("SET", "mine", "x")
    b.follow(leader(script))
    wait_for(lambda: linked(b), tell=b.output)
    assert contents(b) == snapshot[1] and len(tries) == 3


@ours
def test_a_snapshot_that_breaks_off_is_dropped(node, leader, snapshot):
    cuts = iter([1, 9, 100, len(snapshot[0]) - 1])

    def script(link, said):
        data = snapshot[0]
        cut = next(cuts, None)
        if cut is None:
            assert contents(b) == {(0, b"mine"): (b"x", -1)}
            serve(data)(link, said)
        else:
            link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(data)) + data[:cut])

    b = node()
    b("SET", "mine", "x")
    b.follow(leader(script))
    wait_for(lambda: linked(b), tell=b.output)
    assert contents(b) == snapshot[1]


@ours
def test_tries_after_a_refusal_come_ever_more_seldom(node, leader, snapshot):
    times = []

    def script(link, said):
        times.append(time.monotonic())
        data = damage(snapshot[0], "a wrong checksum")
        link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(data)) + data)
        wait_end(link)

    b = node()
    b.follow(leader(script))
    wait_for(lambda: len(times) == 5)
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    assert gaps[-1] > 3 * gaps[0] and gaps == sorted(gaps), gaps
    assert b.output().count("checksum") <= len(times)


@kinds
def test_acknowledgements(node, leader, snapshot, kind):
    """At once on GETACK, without that request's own bytes, which count afterwards; else every second."""
    stream = encode("SELECT", 0) + encode("SET", "k", "v")
    acks = []

    def script(link, said):
        link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(snapshot[0])) + snapshot[0])
        wait_for(lambda: linked(b))
        link.send(stream + GETACK + b"*1\r\n$4\r\nping\r\n" + GETACK)
        while len(acks) < 6:
            words = link.read()
            assert words[:2] == [b"REPLCONF", b"ACK"], words
            acks.append((int(words[2]), time.monotonic()))
            if acks[-1][0] == 100 + len(stream) + len(GETACK) + 14:
                acks.append((0, 0))
        wait_end(link)

    b = node(kind)
    b.follow(leader(script))
    wait_for(lambda: len(acks) >= 6, tell=b.output)
    offsets = [offset for offset, _ in acks]
    first, second = 100 + len(stream), 100 + len(stream) + len(GETACK) + 14
    assert first in offsets and second in offsets[offsets.index(first) :]
    end = second + len(GETACK)
    assert offsets[-1] == end and acks[-1][1] - acks[-2][1] < 2.5
    assert b.fact("master_repl_offset") == end


@ours
def test_the_leaders_bytes_are_passed_on_verbatim(node, leader, snapshot):
    """Odd spelling, pings and empty transactions included: a follower of a follower sees the same bytes."""
    stream = (
        encode("select", "5") + b"*1\r\n$4\r\nping\r\n" + encode("sEt", "k", "v", "pxat", "33177117420000") + encode("MULTI")
        + encode("SET", "a", 1) + encode("INCR", "a") + encode("EXEC") + encode("PUBLISH", "x", "y") + GETACK + encode("MULTI")
        + encode("EXEC") + encode("DEL", "nothing") + encode("SET", "end", "x")
    )  # fmt: skip
    at = 1234567890123
    go = threading.Event()

    def script(link, said):
        link.send(b"+FULLRESYNC %s %d\r\n$%d\r\n" % (REPLID.encode(), at, len(snapshot[0])) + snapshot[0])
        go.wait(30)
        for i in range(0, len(stream), 3):
            link.send(stream[i : i + 3])
        wait_end(link)

    b = node()
    b.follow(leader(script))
    wait_for(lambda: linked(b))
    with HandFollower(b) as f:
        wait_for(lambda: b.fact("connected_slaves") == 1)
        go.set()
        wait_for(lambda: b.fact("master_repl_offset") == at + len(stream))
        assert f.answer.startswith(f"+FULLRESYNC {REPLID} ")
        offset = int(f.answer.split()[2])
        f.snapshot()
        assert f.input.read(at + len(stream) - offset) == stream[offset - at :]
    with HandFollower(b, REPLID, at + 1) as f:
        assert f.answer == f"+CONTINUE {REPLID}" or f.answer.startswith("+FULLRESYNC")
        if f.answer.startswith("+CONTINUE"):
            assert f.input.read(len(stream)) == stream
    found = contents(b)
    assert found[5, b"k"] == (b"v", 33177117420000) and found[5, b"a"] == (b"2", -1) and found[5, b"end"] == (b"x", -1)


@ours
@pytest.mark.parametrize("junk", [b"SET inline x\r\n", b"*1\r\n$3\r\nGET\r\n", b"*2\r\n$3\r\nFOO\r\n$1\r\nx\r\n", b"*-5\r\nx",
                                  b"*1\r\n!3\r\nabc\r\n", b"*99999999999\r\n", b"$5\r\n", bytes(range(256)) * 10])  # fmt: skip
def test_junk_in_the_stream_does_no_harm(node, leader, snapshot, junk):
    tries = []

    def script(link, said):
        tries.append(said)
        serve(snapshot[0], junk if len(tries) == 1 else b"")(link, said)

    b = node()
    b.follow(leader(script))
    wait_for(lambda: tries and contents(b).items() >= snapshot[1].items())
    time.sleep(0.05)
    assert b("PING") == "PONG" and snapshot[1].items() <= contents(b).items()


@ours
def test_a_leader_that_answers_nothing(node, leader):
    ended = threading.Event()
    one = leader(lambda link, said: ended.wait(30))
    b = node(repl_timeout=1)
    b("SET", "mine", "x")
    b.follow(one)
    wait_for(lambda: len(one.handshakes) >= 2)
    assert b("GET", "mine") == b"x" and b("REPLICAOF", "NO", "ONE") == OK and b("SET", "k", "v") == OK
    ended.set()


@ours
def test_replicaof_during_a_transfer(node, leader, snapshot):
    """The transfer is dropped, whatever is said next."""
    def script(link, said):
        link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n" % (REPLID.encode(), len(snapshot[0])) + snapshot[0][:1000])
        wait_end(link)

    stalled = leader(script)
    b = node()
    b("SET", "mine", "x")
    for n in range(3):
        b.follow(stalled)
        wait_for(lambda: b.fact("master_sync_in_progress") == 1)
        facts = b.facts("replication")
        assert int(facts["master_sync_total_bytes"]) == len(snapshot[0])
        assert int(facts["master_sync_read_bytes"]) + int(facts["master_sync_left_bytes"]) == len(snapshot[0])
        if n == 1:
            b("REPLICAOF", "127.0.0.1", 1)
        else:
            assert b("REPLICAOF", "NO", "ONE") == OK and b("SET", f"n{n}", n) == OK
        assert b("GET", "mine") == b"x"
    b.follow(leader(serve(snapshot[0])))
    wait_for(lambda: linked(b))
    assert contents(b) == snapshot[1] and b("GET", "mine") is NIL
