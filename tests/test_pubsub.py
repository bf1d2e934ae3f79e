"""SUBSCRIBE, PUBLISH and their kin, and keyspace notifications."""
import random
import signal
import subprocess
import time

import pytest
import redis

from ev import NIL, NIL3, OK, PONG, QUEUED, Error, Push, Status, encode, eventually, need

KINDS = [("SUBSCRIBE", "UNSUBSCRIBE"), ("PSUBSCRIBE", "PUNSUBSCRIBE"), ("SSUBSCRIBE", "SUNSUBSCRIBE")]


def say(client, *args, replies=1):
    """Sends a command that is answered with several replies."""
    client.send(encode(*args))
    return [client.read() for _ in range(replies)]


def listen(client, *channels, command="SUBSCRIBE"):
    """Subscribes client and returns it."""
    say(client, command, *channels, replies=len(channels))
    return client


def facts(client, section):
    lines = client("INFO", section).decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


@pytest.fixture
def listeners(server, c):
    """Makes connections; closes them."""
    made = []

    def connect(proto=2):
        made.append(server.client(proto))
        return made[-1]

    yield connect
    for client in made:
        client.close()
    # Until the server has noticed, they would be counted in the next test.
    eventually(lambda: facts(c, "clients")["connected_clients"] == "1")


# ---- subscribing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subscribe, unsubscribe", KINDS)
def test_each_channel_is_confirmed(c, subscribe, unsubscribe):
    on, off = subscribe.lower().encode(), unsubscribe.lower().encode()
    assert say(c, subscribe, "a", "b", "a", replies=3) == [[on, b"a", 1], [on, b"b", 2], [on, b"a", 2]]
    assert say(c, subscribe, b"\0\r\n", "", replies=2) == [[on, b"\0\r\n", 3], [on, b"", 4]]
    assert say(c, unsubscribe, "b", "x", "b", replies=3) == [[off, b"b", 3], [off, b"x", 3], [off, b"b", 3]]
    left = say(c, unsubscribe, replies=3)
    assert [count for _, _, count in left] == [2, 1, 0]
    assert {name for _, name, _ in left} == {b"a", b"\0\r\n", b""}
    assert say(c, unsubscribe) == [[off, NIL, 0]]
    assert say(c, unsubscribe, "a") == [[off, b"a", 0]]


def test_what_is_counted_together(c):
    assert say(c, "SUBSCRIBE", "a") == [[b"subscribe", b"a", 1]]
    assert say(c, "PSUBSCRIBE", "a") == [[b"psubscribe", b"a", 2]]
    assert say(c, "SSUBSCRIBE", "a") == [[b"ssubscribe", b"a", 1]]
    assert say(c, "PUNSUBSCRIBE", "x") == [[b"punsubscribe", b"x", 2]]
    assert say(c, "UNSUBSCRIBE") == [[b"unsubscribe", b"a", 1]]
    assert say(c, "UNSUBSCRIBE") == [[b"unsubscribe", NIL, 1]]
    assert say(c, "PUNSUBSCRIBE") == [[b"punsubscribe", b"a", 0]]
    assert say(c, "SUNSUBSCRIBE") == [[b"sunsubscribe", b"a", 0]]


def test_patterns_are_left_in_the_order_in_which_they_came(c):
    names = [b"p%d" % i for i in range(20)]
    listen(c, *names, command="PSUBSCRIBE")
    say(c, "PUNSUBSCRIBE", "p7")
    assert [name for _, name, _ in say(c, "PUNSUBSCRIBE", replies=19)] == names[:7] + names[8:]


def test_in_resp3_all_that_is_sent_is_a_push(c3, other):
    assert c3("UNSUBSCRIBE") == Push([b"unsubscribe", NIL3, 0])
    assert say(c3, "SUBSCRIBE", "a", "b", replies=2) == [Push([b"subscribe", b"a", 1]), Push([b"subscribe", b"b", 2])]
    assert c3("PSUBSCRIBE", "?") == Push([b"psubscribe", b"?", 3])
    assert c3("SSUBSCRIBE", "a") == Push([b"ssubscribe", b"a", 1])
    assert other("PUBLISH", "a", "1") == 2
    assert other("SPUBLISH", "a", "2") == 1
    messages = [c3.read() for _ in range(3)]
    assert messages == [
        Push([b"message", b"a", b"1"]), Push([b"pmessage", b"?", b"a", b"1"]), Push([b"smessage", b"a", b"2"]),
    ]  # fmt: skip
    assert all(isinstance(message, Push) for message in messages)
    assert c3("PING") == PONG  # and commands go on as ever
    assert c3("SET", "k", "v") == OK
    assert c3("GET", "k") == b"v"


# ---- a RESP2 connection with subscriptions -----------------------------------------------------------------

REFUSED = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"


@pytest.mark.parametrize("subscribe, unsubscribe", KINDS)
def test_it_may_only_deal_with_subscriptions(c, subscribe, unsubscribe):
    listen(c, "a", command=subscribe)
    for said, name in [
        ("GET k", "get"), ("set k v", "set"), ("CLIENT ID", "client|id"), ("PUBLISH a b", "publish"),
        ("MULTI", "multi"), ("HELLO 3", "hello"), ("PUBSUB NUMPAT", "pubsub|numpat"),
    ]:  # fmt: skip
        assert c(*said.split()) == Error(f"ERR Can't execute '{name}': {REFUSED}")
    assert c("EXEC") == Error(f"EXECABORT Transaction discarded because of: Can't execute 'exec': {REFUSED}")
    assert c("GET") == Error("ERR wrong number of arguments for 'get' command")
    assert c("NOSUCH") == Error("ERR unknown command 'NOSUCH', with args beginning with: ")
    say(c, unsubscribe)
    assert c("GET", "k") is NIL
    assert c("PING") == PONG


def test_ping_looks_like_a_message(c):
    listen(c, "a")
    assert c("PING") == [b"pong", b""]
    assert c("PING", "text") == [b"pong", b"text"]
    assert c("PING", "a", "b") == Error("ERR wrong number of arguments for 'ping' command")


def test_quit(c, other):
    listen(other, "a")
    assert other("QUIT") == OK
    assert other.rest() == b""
    eventually(lambda: c("PUBLISH", "a", "1") == 0)


def test_reset_ends_all(c, other):
    for command, _ in KINDS:
        listen(other, "a", "b", command=command)
    assert other("RESET") == Status("RESET")
    assert other("GET", "k") is NIL
    assert c("PUBLISH", "a", "1") == c("SPUBLISH", "a", "1") == c("PUBSUB", "NUMPAT") == 0
    assert say(other, "UNSUBSCRIBE") == [[b"unsubscribe", NIL, 0]]


# ---- messages ----------------------------------------------------------------------------------------------


def test_publish_counts_the_receivers(c, listeners):
    a, b, p, q = listeners(), listeners(), listeners(), listeners(3)
    assert c("PUBLISH", "news.a", "nobody hears") == 0
    listen(a, "news.a", "news.b")
    listen(b, "news.a")
    listen(p, "news.*", "*.a", "sports.*", command="PSUBSCRIBE")
    listen(q, "news.*", command="PSUBSCRIBE")
    listen(q, "news.a")
    assert c("PUBLISH", "news.a", "1") == 6
    assert c("PUBLISH", "news.b", "2") == 3
    assert c("PUBLISH", "sports.x", "3") == 1
    assert [a.read(), a.read()] == [[b"message", b"news.a", b"1"], [b"message", b"news.b", b"2"]]
    assert b.read() == [b"message", b"news.a", b"1"]
    got = sorted(p.read()[1:] for _ in range(4))
    assert got == [
        [b"*.a", b"news.a", b"1"], [b"news.*", b"news.a", b"1"], [b"news.*", b"news.b", b"2"],
        [b"sports.*", b"sports.x", b"3"],
    ]  # fmt: skip
    assert q.read() == Push([b"message", b"news.a", b"1"])  # channels come before patterns
    assert q.read() == Push([b"pmessage", b"news.*", b"news.a", b"1"])
    assert q.read() == Push([b"pmessage", b"news.*", b"news.b", b"2"])


@pytest.mark.parametrize(
    "pattern, heard, unheard",
    [
        (b"h?llo", [b"hello", b"h\0llo"], [b"hllo", b"heello", b"Hello"]),
        (b"h*llo", [b"hllo", b"heeello"], [b"hello2"]),
        (b"h[ae]llo", [b"hallo"], [b"hillo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h\\?llo", [b"h?llo"], [b"hello"]),
        (b"*", [b"x", b"\r\n"], [b""]),
        (b"", [b""], [b"x"]),
    ],
)
def test_patterns(c, other, pattern, heard, unheard):
    listen(other, pattern, command="PSUBSCRIBE")
    for channel in heard:
        assert c("PUBLISH", channel, channel) == 1
        assert other.read() == [b"pmessage", pattern, channel, channel]
    for channel in unheard:
        assert c("PUBLISH", channel, "x") == 0


def test_shard_channels_are_a_name_space_of_their_own(c, listeners):
    a, s = listen(listeners(), "x"), listen(listeners(), "x", "y", command="SSUBSCRIBE")
    listen(listeners(), "*", command="PSUBSCRIBE")
    assert c("SPUBLISH", "x", "1") == 1
    assert c("PUBLISH", "x", "2") == 2
    assert s.read() == [b"smessage", b"x", b"1"]
    assert a.read() == [b"message", b"x", b"2"]
    assert s("PING") == [b"pong", b""]


def test_a_publisher_hears_itself_before_its_reply(c3):
    listen(c3, "a")
    listen(c3, "*", command="PSUBSCRIBE")
    c3.send(encode("PUBLISH", "a", "1") + encode("PING"))
    assert [c3.read() for _ in range(4)] == [
        Push([b"message", b"a", b"1"]), Push([b"pmessage", b"*", b"a", b"1"]), 2, PONG,
    ]  # fmt: skip


def test_in_transactions(c, other):
    listen(other, "a")
    assert [c(*said) for said in [("MULTI",), ("PUBLISH", "a", "1"), ("SUBSCRIBE", "a"), ("PUBLISH", "a", "2")]] == [
        OK, QUEUED, QUEUED, QUEUED,
    ]  # fmt: skip
    c.send(encode("PING") + encode("EXEC"))
    assert c.read() == QUEUED
    # The message to itself stands in front of the reply that EXEC's array counts.
    assert c.input.readline() == b"*4\r\n"
    assert [c.read() for _ in range(5)] == [
        1, [b"subscribe", b"a", 1], [b"message", b"a", b"2"], 2, [b"pong", b""],
    ]  # fmt: skip
    assert [other.read(), other.read()] == [[b"message", b"a", b"1"], [b"message", b"a", b"2"]]


def test_a_discarded_subscription_is_none(c, other):
    say(c, "MULTI")
    say(c, "SUBSCRIBE", "a")
    assert c("DISCARD") == OK
    assert other("PUBLISH", "a", "1") == 0


def test_who_wants_no_replies_gets_messages(c3, other):
    silently = [("CLIENT", "REPLY", "OFF"), ("SUBSCRIBE", "a"), ("GET", "k"), ("PUBLISH", "a", "1")]
    c3.send(b"".join(encode(*said) for said in silently))
    assert c3.read() == Push([b"subscribe", b"a", 1])
    assert c3.read() == Push([b"message", b"a", b"1"])
    other("PUBLISH", "a", "2")
    assert c3.read() == Push([b"message", b"a", b"2"])
    assert c3("CLIENT", "REPLY", "ON") == OK
    c3.send(encode("CLIENT", "REPLY", "SKIP") + encode("UNSUBSCRIBE", "a"))
    assert c3.read() == Push([b"unsubscribe", b"a", 0])
    assert c3("PING") == PONG


@pytest.mark.parametrize("size", [0, 1, 1000, 32767, 32768, 100000, 3000000])
def test_messages_of_all_sizes_arrive_whole(c, listeners, size):
    message = random.Random(size).randbytes(size)
    subscribers = [listen(listeners(proto), "a") for proto in (2, 3, 2, 3, 2)]
    subscribers.append(listen(listeners(), b"\xff" * 40000, command="PSUBSCRIBE"))
    assert c("PUBLISH", "a", message) == 5
    assert c("PUBLISH", b"\xff" * 40000, message) == 1
    for subscriber in subscribers[:5]:
        assert subscriber.read() == [b"message", b"a", message]
    assert subscribers[5].read() == [b"pmessage", b"\xff" * 40000, b"\xff" * 40000, message]
    assert c.transaction(("PUBLISH", "a", message), ("ECHO", "after")) == [5, b"after"]
    assert subscribers[0].read() == [b"message", b"a", message]


def test_a_pipeline_of_messages_keeps_its_order(c, listeners):
    subscribers = [listen(listeners(), "a") for _ in range(20)]
    assert c.pipeline([("PUBLISH", "a", i) for i in range(2000)]) == [20] * 2000
    for subscriber in subscribers:
        assert [subscriber.read()[2] for _ in range(2000)] == [b"%d" % i for i in range(2000)]


# ---- introspection -----------------------------------------------------------------------------------------


def test_pubsub(c, listeners):
    listen(listeners(), "a", "b", "ab")
    listen(listeners(), "a")
    listen(listeners(), "a*", "b*", command="PSUBSCRIBE")
    listen(listeners(3), "a*", command="PSUBSCRIBE")
    listen(listeners(), "s", "t", command="SSUBSCRIBE")
    assert sorted(c("PUBSUB", "CHANNELS")) == [b"a", b"ab", b"b"]
    assert sorted(c("PUBSUB", "CHANNELS", "a*")) == [b"a", b"ab"]
    assert c("PUBSUB", "CHANNELS", "x*") == []
    assert c("PUBSUB", "NUMSUB", "a", "b", "x", "a*", "s") == [b"a", 2, b"b", 1, b"x", 0, b"a*", 0, b"s", 0]
    assert c("PUBSUB", "NUMSUB") == []
    assert c("PUBSUB", "NUMPAT") == 2
    assert sorted(c("pubsub", "shardchannels")) == [b"s", b"t"]
    assert c("PUBSUB", "SHARDCHANNELS", "?") == c("PUBSUB", "SHARDCHANNELS")
    assert c("PUBSUB", "SHARDNUMSUB", "s", "a") == [b"s", 1, b"a", 0]
    stats = facts(c, "stats")
    assert (stats["pubsub_channels"], stats["pubsub_patterns"], stats["pubsubshard_channels"]) == ("3", "2", "2")


def test_client_list_tells_of_subscriptions(c, other):
    listen(other, "a", "b")
    listen(other, "p", command="PSUBSCRIBE")
    listen(other, "s", "t", "u", command="SSUBSCRIBE")
    line = c("CLIENT", "LIST", "TYPE", "PUBSUB").decode()
    assert " flags=P " in line and " sub=2 psub=1 ssub=3 " in line and line.count("\n") == 1
    say(other, "UNSUBSCRIBE", replies=2)
    say(other, "PUNSUBSCRIBE")
    assert " sub=0 psub=0 ssub=3 " in c("CLIENT", "LIST", "TYPE", "PUBSUB").decode()
    say(other, "SUNSUBSCRIBE", replies=3)
    assert c("CLIENT", "LIST", "TYPE", "PUBSUB") == b""
    assert " flags=N " in c("CLIENT", "LIST", "TYPE", "NORMAL").decode()


@pytest.mark.parametrize(
    "said",
    ["PUBSUB", "PUBSUB NOSUCH", "PUBSUB CHANNELS a b", "PUBSUB shardchannels a b", "PUBSUB NUMPAT x", "SUBSCRIBE",
     "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH a", "PUBLISH a b c", "SPUBLISH a", "COMMAND GETKEYS SPUBLISH a b",
     "COMMAND GETKEYS SUBSCRIBE a"],
)  # fmt: skip
def test_errors_are_those_of_redis(c, oracle, said):
    with oracle.client() as right:
        assert c(*said.split()) == right(*said.split())


def test_help(c):
    lines = c("PUBSUB", "HELP")
    assert lines[0] == "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    assert any(line.startswith("SHARDNUMSUB") for line in lines)


# ---- the end of a connection -------------------------------------------------------------------------------


def test_who_is_gone_is_counted_no_more(c, server):
    for proto in (2, 3):
        gone = server.client(proto)
        for command, _ in KINDS:
            listen(gone, *(f"{i}" for i in range(100)), command=command)
        assert len(c("PUBSUB", "CHANNELS")) == 100
        gone.close()
        eventually(lambda: c("PUBSUB", "CHANNELS") == [])
        assert c("PUBSUB", "SHARDCHANNELS") == []
        assert c("PUBSUB", "NUMPAT") == c("PUBLISH", "1", "x") == 0


@pytest.mark.parametrize(
    "limit, message, seconds", [("1mb 0 0", 5000, 0), ("1mb 0 0", 100000, 0), ("0 1mb 1", 5000, 1)]
)
def test_who_does_not_read_is_closed_at_the_limit(start, limit, message, seconds):
    server = start(client_output_buffer_limit=f"pubsub {limit}")
    with server.client() as c, server.client() as slow, server.client() as quick:
        listen(slow, "a")
        listen(quick, "a")
        begin = time.monotonic()
        while c("PUBLISH", "a", b"x" * message) == 2:
            assert len(quick.read()[2]) == message
            assert time.monotonic() < begin + 60
            time.sleep(0.0005)
        assert time.monotonic() >= begin + seconds
        assert quick.read()[2] == b"x" * message
        slow.rest()  # ends, since the connection does
        assert c("PUBSUB", "NUMSUB", "a") == [b"a", 1]


def test_an_idle_subscriber_is_not_closed(start):
    with start(timeout=1).client() as c:
        listen(c, "a")
        time.sleep(2.5)
        assert c("PING") == [b"pong", b""]


# ---- many --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_random_comings_and_goings(c, server, seed):
    """Against a model: sets of names by connection and kind."""
    rng = random.Random(seed)
    clients, model = [], []
    for _ in range(400):
        if len(clients) < 2 or (len(clients) < 12 and rng.random() < 0.05):
            clients.append(server.client(rng.choice([2, 3])))
            model.append([set(), set(), set()])
        at, kind = rng.randrange(len(clients)), rng.randrange(3)
        names = [b"%d" % rng.randrange(30) for _ in range(rng.randrange(1, 8))]
        mine = model[at][kind]
        what = rng.random()
        if what < 0.55:
            listen(clients[at], *names, command=KINDS[kind][0])
            mine.update(names)
        elif what < 0.9:
            say(clients[at], KINDS[kind][1], *names, replies=len(names))
            mine.difference_update(names)
        elif what < 0.95:
            say(clients[at], KINDS[kind][1], replies=max(1, len(mine)))
            mine.clear()
        else:
            clients.pop(at).close()
            model.pop(at)
            eventually(lambda: facts(c, "clients")["connected_clients"] == str(len(clients) + 1))
        everyone = [set().union(*(m[k] for m in model)) for k in range(3)]
        assert sorted(c("PUBSUB", "CHANNELS")) == sorted(everyone[0])
        assert c("PUBSUB", "NUMPAT") == len(everyone[1])
        assert sorted(c("PUBSUB", "SHARDCHANNELS")) == sorted(everyone[2])
        name = names[0]
        assert c("PUBSUB", "NUMSUB", name)[1] == sum(name in m[0] for m in model)
        assert c("PUBLISH", name, "x") == sum((name in m[0]) + (name in m[1]) for m in model)
        assert c("SPUBLISH", name, "x") == sum(name in m[2] for m in model)
        for client, m in zip(clients, model):
            due = (name in m[0]) + (name in m[1]) + (name in m[2])
            assert [client.read()[-1] for _ in range(due)] == [b"x"] * due
    for client in clients:
        client.close()
    eventually(lambda: facts(c, "clients")["connected_clients"] == "1")


def test_many_channels_and_many_subscribers(c, listeners):
    names = [f"channel:{i}" for i in range(20000)]
    one = listeners()
    replies = one.pipeline([("SUBSCRIBE", name) for name in names])
    assert [count for _, _, count in replies] == list(range(1, 20001))
    crowd = [listen(listeners(), "channel:77") for _ in range(200)]
    assert c("PUBLISH", "channel:77", "x") == 201
    assert c("PUBSUB", "NUMSUB", "channel:19999", "channel:77") == [b"channel:19999", 1, b"channel:77", 201]
    for client in [one, *crowd]:
        assert client.read() == [b"message", b"channel:77", b"x"]
    assert [count for _, _, count in say(one, "UNSUBSCRIBE", replies=20000)] == list(range(19999, -1, -1))
    assert c("PUBLISH", "channel:77", "x") == 200


# ---- keyspace notifications --------------------------------------------------------------------------------


def notify(client, flags):
    assert client("CONFIG", "SET", "notify-keyspace-events", flags) == OK


@pytest.fixture
def events(c):
    """Switches them on for a test."""
    yield lambda flags: notify(c, flags)
    notify(c, "")


def test_both_forms_of_an_event(c, other, events):
    events("KEA")
    listen(other, "__key*__:*", command="PSUBSCRIBE")
    c("SELECT", "3")
    c("SET", "k", "v")
    assert other.read() == [b"pmessage", b"__key*__:*", b"__keyspace@3__:k", b"set"]
    assert other.read() == [b"pmessage", b"__key*__:*", b"__keyevent@3__:set", b"k"]


@pytest.mark.parametrize("flags, heard", [
    ("", []), ("A", []), ("g$", []), ("KA", ["space del", "space set"]), ("EA", ["event del", "event set"]),
    ("Kg", ["space del"]), ("E$", ["event set"]), ("KE$", ["event set", "space set"]), ("Kx", []), ("KEm", []),
    ("En", ["event new"]), ("EAn", ["event del", "event new", "event set"]), ("KEg$lshzxetdm", [
        "event del", "event set", "space del", "space set"]),
])  # fmt: skip
def test_flags(c, other, events, flags, heard):
    events(flags)
    listen(other, "*", command="PSUBSCRIBE")
    c("SET", "k", "v")
    c("DEL", "k")
    c("PUBLISH", "done", "done")
    got = []
    while (message := other.read())[2] != b"done":
        channel, payload = message[2].decode(), message[3].decode()
        got.append(f"space {payload}" if "keyspace" in channel else f"event {channel.split(':')[1]}")
    assert sorted(got) == heard


@pytest.mark.parametrize(
    "flags", ["A", "AKE", "EKA", "KEAn", "AKEm", "gxKE", "Kd", "KEg$lshzxetdnm", "E", "dtexzhsl$g", "q", ""]
)
def test_flags_are_kept_as_redis_keeps_them(c, oracle, events, flags):
    with oracle.client() as right:
        for said in [("CONFIG", "SET", "notify-keyspace-events", flags), ("CONFIG", "GET", "notify-keyspace-events")]:
            assert c(*said) == right(*said)
        notify(right, "")


# What happens to keys, one step a line; "~" waits until a deadline has passed.
STORY = """
    SET k v|SET k v EX 100|SET k v PX 100000|SET k v NX|SET k v XX|SET k v XX GET|SET k v KEEPTTL|SET k v EXAT 1
    GET k|GET nope|SETNX a 1|SETNX a 1|SETEX a 100 v|PSETEX a 10000 v|GETSET a b|GETSET newg b|GETDEL a|GETDEL a
    SET k v|GETEX k EX 100|GETEX k PERSIST|GETEX k PERSIST|GETEX k|GETEX k EXAT 1|GETEX nope|MSET a 1 b 2 a 3
    MSETNX a 1 z 2|MSETNX y 1 z 2|APPEND a x|APPEND nn x|SETRANGE a 0 zz|SETRANGE sr 3 zz|SETRANGE a 9 x|SET n 5
    INCR n|DECR n|INCRBY n 5|DECRBY n 2|INCRBYFLOAT n 1.5|INCR newn|INCRBYFLOAT newf 1.5|INCR a|MGET a nope b
    STRLEN nope|GETRANGE nope 0 1|EXISTS nope a|DEL nope|DEL a b|UNLINK z y nope|TYPE nope|TTL nope|TTL n
    TOUCH nope n|SETBIT bit 3 1|SETBIT bit 3 1|GETBIT nope 3|BITCOUNT nope|BITPOS nope 1|BITOP AND d bit bit
    BITOP AND d nope nope|BITOP OR d2 bit x|BITOP AND nod nope|BITFIELD bit SET u8 0 255|BITFIELD bit INCRBY u8 0 0
    BITFIELD nope GET u8 0|BITFIELD_RO nope GET u8 0|BITFIELD bf2 OVERFLOW FAIL INCRBY u2 0 4
    BITFIELD bf3 SET u8 0 0|SET e v|EXPIRE e 100|EXPIRE e 100 NX|PEXPIRE e 100000|EXPIREAT e 99999999999|PERSIST e
    PERSIST e|EXPIRE e -1|EXPIRE nope 10|SET e v|PEXPIREAT e 1|SET r v|RENAME r r2|RENAME r2 r2|RENAMENX r2 r3
    SET r4 v|RENAMENX r3 r4|RENAME r3 r4|RENAME nope x|COPY r4 c4|COPY r4 c4|COPY nope c4|COPY r4 c4 REPLACE
    COPY r4 c4 DB 2|MOVE r4 1|MOVE r4 1|SWAPDB 0 1|SWAPDB 0 1|DUMP nope|OBJECT ENCODING nope|LCS no pe|SET f v
    FLUSHDB|SET f v|FLUSHALL|SET x 1 PX 9|~|GET x|SET x 1 PX 9|~|SET x 2|SET x 1 PX 9|~|INCR x|SET x 1 PX 9|~
    MGET x x|SET x 1 PX 9|~|DEL x|SET x 1 PX 9|~|EXISTS x|SET x 1 PX 9|~|APPEND x y|SET x 1 PX 9|~|EXPIRE x 100
    SET x 1 PX 9|~|RENAME x y|SET x 1 PX 9|~|SET y 1|RENAME y x|SET x 1 PX 9|~|SETNX x 3|SET x 1 PX 9|~|COPY x q
    SET x 1 PX 9|~|SET x 1 NX|SET x 1 PX 9|~|MSET x 1|SET x 1 PX 9|~|SETBIT x 1 1|SET x 1 PX 9|~|BITOP NOT zz x
    SET x 1 PX 9|~|MOVE x 3|SET x 1 PX 9|~|PERSIST x|SET x 1 PX 9|~|STRLEN x|SET x 1 PX 9|~|GETEX x
"""


def told(server, alone):
    """What a listener to everything hears of each step; alone: it is the one who takes the steps."""
    heard = []
    with server.client(3) as c, server.client(2) as another, server.client() as admin:
        admin("FLUSHALL")
        admin("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        notify(admin, "KEAnm")
        listener = listen(c if alone else another, "*", command="PSUBSCRIBE")
        for step in STORY.strip().replace("\n", "|").split("|"):
            if step.strip() == "~":
                time.sleep(0.012)
                continue
            c.send(encode(*step.split()) + encode("PUBLISH", "done", "done"))
            got = []
            while not isinstance(message := listener.read(), list) or message[-1] != b"done":
                got.append(repr(message))
            heard.append((step.strip(), got))
        notify(admin, "")
        admin("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    return heard


@pytest.mark.parametrize("alone", [False, True])
def test_every_command_tells_what_redis_tells(server, oracle, alone):
    mine, right = told(server, alone), told(oracle, alone)
    assert len(mine) == len(right) > 120
    assert [pair for pair in zip(mine, right) if pair[0] != pair[1]] == []


def test_keys_that_nobody_looks_at_expire_with_an_event(c, other, events):
    events("Ex")
    listen(other, "__keyevent@0__:expired")
    c("SET", "k", "v", "PX", "10")
    c("SET", "l", "v")
    assert other.read() == [b"message", b"__keyevent@0__:expired", b"k"]
    assert c("KEYS", "*") == [b"l"]


def test_keys_of_any_bytes_and_length(c, other, events):
    events("KE$")
    listen(other, "*", command="PSUBSCRIBE")
    for key in [b"", b"\0\r\n\xff", b"k" * 70000]:
        c("SET", key, "v")
        assert other.read()[2:] == [b"__keyspace@0__:" + key, b"set"]
        assert other.read()[2:] == [b"__keyevent@0__:set", key]


def test_events_in_transactions_come_with_exec(c, other, events):
    events("E$")
    listen(other, "__keyevent@0__:incrby")
    assert c.transaction(("INCR", "n"), ("INCR", "n")) == [1, 2]
    assert [other.read()[2] for _ in range(2)] == [b"n", b"n"]


# ---- clients -----------------------------------------------------------------------------------------------


def test_redis_py(server, c):
    heard = []
    with redis.Redis(port=server.port, decode_responses=True) as r, r.pubsub(ignore_subscribe_messages=True) as p:
        p.subscribe(a=heard.append)
        p.psubscribe(**{"b*": heard.append})
        thread = p.run_in_thread(sleep_time=0.01)
        eventually(lambda: r.pubsub_numsub("a") == [("a", 1)] and r.pubsub_numpat() == 1)
        assert r.publish("a", "1") == r.publish("bb", "2") == 1
        eventually(lambda: [message["data"] for message in heard] == ["1", "2"])
        thread.stop()
        thread.join()
    with redis.Redis(port=server.port, decode_responses=True) as r, r.pubsub() as p:
        p.subscribe("a")
        p.psubscribe("c*")
        assert [p.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
        assert r.publish("a", "1") == r.publish("cc", "2") == 1
        assert p.get_message(timeout=5) == {"type": "message", "pattern": None, "channel": "a", "data": "1"}
        assert p.get_message(timeout=5) == {"type": "pmessage", "pattern": "c*", "channel": "cc", "data": "2"}
        p.ping("are you there")
        assert p.get_message(timeout=5)["data"] == "are you there"
        p.unsubscribe()
        assert p.get_message(timeout=5) == {"type": "unsubscribe", "pattern": None, "channel": "a", "data": 1}


def test_redis_cli(server, c):
    reader = subprocess.Popen(
        [need("redis-cli"), "-p", str(server.port), "SUBSCRIBE", "a", "b"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert [reader.stdout.readline().strip() for _ in range(6)] == ["subscribe", "a", "1", "subscribe", "b", "2"]
        assert c("PUBLISH", "b", "some text") == 1
        assert [reader.stdout.readline().strip() for _ in range(3)] == ["message", "b", "some text"]
    finally:
        reader.send_signal(signal.SIGTERM)
        reader.wait()
        reader.stdout.close()
    eventually(lambda: c("PUBSUB", "CHANNELS") == [])
