"""What clients may cost that send or take too much, too slowly, too often, or never end; and that the others are served meanwhile."""
import contextlib
import re
import resource
import socket
import threading
import time

import pytest

from ev import OK, PONG, QUEUED, Client, Error, encode, eventually, ours, unsanitized
from repl_tools import HandLeader

pytestmark = ours
KB, MB = 1 << 10, 1 << 20
NOAUTH = Error("NOAUTH Authentication required.")


def facts(c):
    """CLIENT LIST, as dicts by id."""
    rows = [dict(pair.split("=", 1) for pair in line.split(" ")) for line in c("CLIENT", "LIST").decode().splitlines()]
    return {int(row["id"]): row for row in rows}


def info(c, field):
    return int(re.search(rb"^%s:(\d+)" % field.encode(), c("INFO", "everything"), re.M)[1])


def gone(client, seconds=20):
    """Has the server closed it? Its replies are read."""
    client.socket.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        while client.socket.recv(1 << 16):
            pass
    return True


def p99(c, n=300):
    """Milliseconds that PINGs take, all but the slowest hundredth."""
    times = []
    for _ in range(n):
        before = time.perf_counter()
        assert c("PING") == PONG
        times.append((time.perf_counter() - before) * 1000)
    return sorted(times)[n * 99 // 100]


@contextlib.contextmanager
def meanwhile(work):
    """work() over and over, in a thread, until the block ends; it may fail as connections do."""
    end = threading.Event()

    def run():
        while not end.is_set():
            with contextlib.suppress(OSError):
                work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


# ---- before the password -----------------------------------------------------------------------------------

HALF = 8 * MB
UNAUTHED = {
    "a bulk string": b"*2\r\n$4\r\nAUTH\r\n$16384\r\n" + b"x" * HALF,
    "one that waits for its end": b"*2\r\n$4\r\nAUTH\r\n$16384\r\n" + b"x" * 16000,
    "a huge one": b"*2\r\n$4\r\nAUTH\r\n$500000000\r\n" + b"x" * HALF,
    "ten of the largest": b"*10\r\n" + b"$16384\r\n" + (b"x" * 16384 + b"\r\n$16384\r\n") * 9 + b"x" * 16383,
    "many arguments": b"*1000000\r\n" + b"$1\r\nx\r\n" * 500000,
    "a line without an end": b"x" * HALF,
    "a header without an end": b"*1\r\n$" + b"1" * HALF,
    "a pipeline": encode("GET", "k") * 200000,
    "a pipeline of HELLO": encode("HELLO", "3") * 200000,
    "a pipeline of MULTI and SET": encode("MULTI") + encode("SET", "k", "v" * 10000) * 500,
    "lines": b"PING\r\n" * 500000,
    "lines almost too long": (b"x" * 16000 + b"\r\n") * 300,
}


@unsanitized
@pytest.mark.parametrize("what", UNAUTHED)
def test_who_has_shown_no_password_costs_no_more_than_64_kb(start, what):
    """By the server's own word, and by what it takes from the system, for 40 of them; none of them reads."""
    server = start(requirepass="secret")
    crowd = 40
    with server.client() as c:
        assert c("AUTH", "secret") == OK
        before, most = server.rss(), 0
        clients = [server.client() for _ in range(crowd)]
        unsent = [memoryview(UNAUTHED[what]) for _ in clients]
        until = time.monotonic() + 1.5
        while any(unsent) and time.monotonic() < until:
            for i, client in enumerate(clients):
                client.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    try:
                        unsent[i] = unsent[i][client.socket.send(unsent[i][: 256 * KB]):]
                    except ConnectionError:
                        unsent[i] = unsent[i][:0]
            most = max([most] + [int(row["tot-mem"]) for row in facts(c).values() if row["cmd"] != "client|list"])
        assert c("PING") == PONG
        cost = (server.rss() - before) / crowd
        print(f"{what}: CLIENT LIST {most} bytes, resident {cost:.0f} bytes a client")
        assert most <= 64 * KB
        assert cost <= 64 * KB + 2 * MB / crowd  # the turn's own buffers are there once
        for client in clients:
            client.close()


def test_the_password_may_come_with_what_it_is_for(start):
    server = start(requirepass="secret")
    with server.client() as c:
        replies = c.pipeline([("GET", "k"), ("AUTH", "secret")] + [("SET", "k", "v" * 50000)] * 50 + [("STRLEN", "k")])
        assert replies == [NOAUTH, OK] + [OK] * 50 + [50000]


# ---- limits of input and output ----------------------------------------------------------------------------


def test_an_unfinished_command_is_bounded(start):
    """All of its arguments count, those that are there already too."""
    server = start(client_query_buffer_limit="2mb")
    for data in (b"*2\r\n$3\r\nGET\r\n$4000000\r\n" + b"x" * 3 * MB, b"*100\r\n" + (b"$500000\r\n" + b"x" * 500000 + b"\r\n") * 6,
                 b"*1000000\r\n" + b"$1\r\nx\r\n" * 400000):  # fmt: skip
        with server.client() as c:
            with contextlib.suppress(ConnectionError):
                c.send(data)
            assert gone(c)
    eventually(lambda: server.output().count("is longer than client-query-buffer-limit") == 3)
    with server.client() as c:
        assert c("SET", "k", "v" * MB) == OK


def test_watched_keys_are_bounded(start):
    server = start(client_query_buffer_limit="1mb")
    with server.client() as c, server.client() as other:
        for _ in range(50):
            assert c.pipeline([("WATCH", "a", "b")] * 1000) == [OK] * 1000
        assert int(facts(other)[c_id(other, c)]["multi-mem"]) < 1000  # each is watched once
        with contextlib.suppress(ConnectionError):
            for i in range(200):
                assert c("WATCH", *(f"key:{i}:{n}" for n in range(100))) == OK
        assert gone(c)
        assert 90 < i < 110
        assert other("SET", "key:0:0", "1") == OK


def test_a_transaction_is_bounded(start):
    server = start(client_query_buffer_limit="1mb")
    with server.client() as c, server.client() as other:
        assert c("MULTI") == OK
        with contextlib.suppress(ConnectionError):
            for i in range(200):
                assert c("SET", f"k{i}", "v" * 10000) == QUEUED
                assert int(facts(other)[c_id(other, c)]["tot-mem"]) < 2 * MB if i % 50 == 0 else True
        assert gone(c)
        assert 90 < i < 110
        assert other("DBSIZE") == 0


def c_id(c, client):
    """The number that the server knows a client by."""
    name = "%s:%d" % client.socket.getsockname()
    return next(i for i, row in facts(c).items() if row["addr"] == name)


def test_output_limits_by_class(start):
    server = start(client_output_buffer_limit=["normal", "4mb", "0", "0", "replica", "2mb", "0", "0", "pubsub", "1mb", "0", "0"])
    with server.client() as c:
        c("SET", "k", "v" * 30000)
        subscriber, lazy, follower = server.client(), server.client(), server.client()
        subscriber("SUBSCRIBE", "news")
        follower.send(b"PSYNC ? -1\r\n")
        eventually(lambda: info(c, "connected_slaves") == 1)
        for i in range(200):
            c("PUBLISH", "news", "v" * 100000)
        eventually(lambda: "client-output-buffer-limit" in server.output())
        assert gone(subscriber)
        with contextlib.suppress(ConnectionError):
            lazy.send(encode("MGET", *["k"] * 100) * 5)
        eventually(lambda: server.output().count("client-output-buffer-limit") == 2)
        assert gone(lazy)
        before = info(c, "mem_clients_slaves")
        for i in range(200):  # a follower is a position in the log, whatever it does not read
            c("SET", "k", "v" * 100000)
        assert info(c, "mem_clients_slaves") < before + 4 * MB
        for client in subscriber, lazy, follower:
            client.close()


# ---- the slow, the many, the endless -----------------------------------------------------------------------


def test_slow_readers_and_slow_writers(start):
    """A byte at a time, 200 of either; the others do not notice."""
    server = start()
    with server.client() as c:
        c("SET", "big", "v" * MB)
        clients = [server.client() for _ in range(400)]
        for reader in clients[:200]:
            reader.send(encode("GET", "big"))
        command = encode("SET", "slow", "v" * 100)
        for byte in range(40):
            for writer in clients[200:]:
                writer.send(command[byte : byte + 1])
            for reader in clients[:200]:
                reader.socket.recv(1)
        worst = p99(c)
        total = sum(int(row["tot-mem"]) for row in facts(c).values())
        print(f"p99 {worst:.1f} ms, {total / 400:.0f} bytes a client")
        assert worst < 50
        assert total < 400 * 24 * KB  # the value that they read is there once
        for client in clients:
            client.close()


def test_a_flood_of_connections(start):
    server = start(maxclients=100)

    def flood():
        for s in [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(50)]:
            s.close()

    with server.client() as c:
        with meanwhile(flood), meanwhile(flood):
            worst = p99(c, 1000)
            print(f"p99 {worst:.1f} ms, {info(c, 'total_connections_received')} connections")
            assert worst < 50
        eventually(lambda: info(c, "connected_clients") == 1)
        with server.client() as again:
            assert again("PING") == PONG


def test_no_descriptors_left(start):
    server = start(maxclients=100)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (40, 40))
    with server.client() as c:
        crowd = [Client(server.port) for _ in range(60)]
        replies = []
        for one in crowd:
            with contextlib.suppress(ConnectionError):
                replies.append(one("PING"))
        assert PONG in replies and set(replies) <= {PONG, Error("ERR max number of clients reached")}
        assert "Connections are refused: all descriptors that ulimit -n allows are in use" in server.output()
        assert c("SET", "k", "v") == OK
        for one in crowd:
            one.close()
        eventually(lambda: info(c, "connected_clients") == 1)
        with server.client() as again:
            assert again("GET", "k") == b"v"


@unsanitized
def test_a_pipeline_without_an_end_leaves_the_others_their_turns(start):
    server = start()
    with server.client() as c, server.client() as busy:
        c.pipeline([("SET", f"k{i}", "v" * 100) for i in range(1000)])
        data = b"".join(encode("GET", f"k{i}") for i in range(1000))
        with meanwhile(lambda: busy.send(data)), meanwhile(lambda: busy.socket.recv(1 << 20)):
            worst = p99(c, 500)
            busy.socket.shutdown(socket.SHUT_RDWR)
        print(f"p99 beside an endless pipeline: {worst:.1f} ms")
        assert worst < 50


@unsanitized
def test_keys_of_a_million(start):
    server = start()
    with server.client() as c, server.client() as other:
        for first in range(0, 1_000_000, 10_000):
            c.send(b"".join(encode("MSET", *[w for i in range(k, k + 100) for w in (f"key:{i:07}", "v")])
                            for k in range(first, first + 10_000, 100)))  # fmt: skip
        assert [c.read() for _ in range(10_000)] == [OK] * 10_000
        before = server.rss()
        c.send(encode("KEYS", "*"))
        assert other("PING") == PONG
        assert len(c.read()) == 1_000_000
        eventually(lambda: server.rss() - before < 8 * MB)  # what the reply took goes back


# ---- maxmemory-clients -------------------------------------------------------------------------------------


def test_maxmemory_clients_as_an_option(start):
    with start().client() as c:
        for given, kept in ("100mb", b"104857600"), ("5%", b"5%"), ("0", b"0"):
            assert c("CONFIG", "SET", "maxmemory-clients", given) == OK
            assert c("CONFIG", "GET", "maxmemory-clients") == [b"maxmemory-clients", kept]
        for bad in "101%", "-1", "x", "", "%":
            assert isinstance(c("CONFIG", "SET", "maxmemory-clients", bad), Error)


@pytest.mark.parametrize("limit", ["4mb", "10%"])
def test_the_largest_client_is_closed_first(start, limit):
    server = start(maxmemory_clients=limit, maxmemory="40mb")
    with server.client() as c, server.client() as large, server.client() as small, server.client() as spared:
        assert spared("CLIENT", "NO-EVICT", "on") == OK
        part = lambda n: b"*2\r\n$4\r\nECHO\r\n$10000000\r\n" + b"x" * n  # noqa: E731
        spared.send(part(8 * MB))
        small.send(part(1 * MB))
        large.send(part(2 * MB))
        eventually(lambda: sum(int(row["qbuf"]) for row in facts(c).values()) > 11 * MB)
        time.sleep(0.3)
        assert info(c, "evicted_clients") == 0  # who is spared does not count
        with contextlib.suppress(ConnectionError):
            large.send(b"x" * 2 * MB)
        assert gone(large)
        assert info(c, "evicted_clients") == 1
        assert len(facts(c)) == 3
        assert re.search(r"Client 127\.0\.0\.1:\d+ closed: it takes \d+ bytes, and all together are above maxmemory-clients",
                         server.output())


def test_the_names_that_a_client_gives_itself_count(start):
    server = start(maxmemory_clients="4mb")
    with server.client() as c, server.client() as large:
        for command in ("SETNAME",), ("SETINFO", "LIB-NAME"):
            assert large("CLIENT", *command, "n" * (MB * 3 // 2)) == OK and c("PING") == PONG
        large.send(encode("CLIENT", "SETINFO", "LIB-VER", "n" * (MB * 3 // 2)))
        assert gone(large) and c("PING") == PONG


def test_output_and_transactions_count_too(start):
    server = start(maxmemory_clients="3mb")
    with server.client() as c:
        c("SET", "k", "v" * 30000)
        with server.client() as lazy:
            with contextlib.suppress(ConnectionError):
                lazy.send(encode("MGET", *["k"] * 100) * 10)
            eventually(lambda: info(c, "evicted_clients") == 1)
        with server.client() as queues:
            queues("MULTI")
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    queues("SET", "k", "v" * 10000)
            assert info(c, "evicted_clients") == 2


@unsanitized
def test_big_values_of_many_clients_stay_within_it(start):
    """50 of them send 16 MB each and 50 read as much, at 32 MB for all. What a turn brings comes on top."""
    server = start(maxmemory_clients="32mb")
    value = b"v" * 16 * MB
    with server.client() as c:
        c("SET", "big", value)
        before, most, stop = server.rss(), [0], threading.Event()

        def watch():
            while not stop.is_set():
                most[0] = max(most[0], server.rss())
                time.sleep(0.005)

        def use(n):
            with contextlib.suppress(ConnectionError), server.client() as client:
                assert client("SET", "own", value) == OK if n % 2 else client("GET", "big") == value

        watcher = threading.Thread(target=watch)
        users = [threading.Thread(target=use, args=[n]) for n in range(100)]
        watcher.start()
        for user in users:
            user.start()
        for user in users:
            user.join()
        stop.set()
        watcher.join()
        print(f"{(most[0] - before) / MB:.0f} MB at most, {info(c, 'evicted_clients')} clients closed")
        assert most[0] - before < 256 * MB
        assert c("GET", "big") == value


LONG_REPLIES = {
    "MGET": encode("MGET", *["k"] * 20000),
    "EXEC": encode("MULTI") + encode("GET", "k") * 20000 + encode("SET", "last", "1") + encode("EXEC"),
    "EXEC of a value that changes": encode("MULTI") + (encode("SETRANGE", "big", "0", "x") + encode("GET", "big")) * 200 +
    encode("SET", "last", "1") + encode("EXEC"),
    "COMMAND DOCS": encode("COMMAND", "DOCS", *["client"] * 30000),
    "COMMAND INFO": encode("COMMAND", "INFO", *["client"] * 30000),
}


@unsanitized
@pytest.mark.parametrize("what", LONG_REPLIES)
def test_one_commands_reply_is_bounded(start, what):
    """No more of it is made than may wait; what EXEC runs is run, and the server serves on."""
    server = start(client_output_buffer_limit=["normal", "10mb", "0", "0"])
    with server.client() as c, server.client() as greedy:
        assert c("MSET", "k", "x" * 30000, "big", "x" * MB) == OK
        greedy.send(LONG_REPLIES[what])
        assert gone(greedy)
        with open(f"/proc/{server.pid}/status") as f:
            assert int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) < 64 * KB
        assert "bytes of output wait for it (client-output-buffer-limit)" in server.output()
        assert c("EXISTS", "last") == what.startswith("EXEC")


def test_a_value_that_is_sent_again_and_again_waits_once(start):
    with start(client_output_buffer_limit=["normal", "10mb", "0", "0"]).client() as c:
        assert c("MSET", "big", "x" * MB, "k", "v") == OK
        for _ in range(2):
            replies = c.transaction(*[("GET", "big"), ("GET", "k"), ("GET", "big")] * 50)
            assert [len(r) for r in replies] == [MB, 1, MB] * 50


@pytest.mark.parametrize("command", ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"])
def test_subscriptions_are_bounded(start, command):
    server = start(client_query_buffer_limit="1mb")
    with server.client() as c, server.client() as other:
        with contextlib.suppress(ConnectionError):
            for i in range(100):
                c.pipeline([(command, f"{'x' * 1000}{i}:{n}") for n in range(20)])
                if i == 10:
                    assert int(facts(other)[c_id(other, c)]["tot-mem"]) > 200 * KB
        assert gone(c)
        assert 25 < i < 60
        assert other("PUBSUB", "NUMPAT") == 0


def test_bursts_that_are_read_are_not_above_the_soft_limit_all_the_time(start):
    server = start(client_output_buffer_limit=["normal", "0", "1000", "1"])
    with server.client() as c:
        assert c("SET", "k", "x" * (40 << 20)) == OK
        for _ in range(3):
            assert len(c("GET", "k")) == 40 << 20
            time.sleep(2.2)


# ---- a leader that never ends ------------------------------------------------------------------------------


def test_a_transaction_of_the_leaders_is_bounded(start):
    source = start()
    with source.client() as c:
        assert c("SAVE") == OK
        with open(f"{source.folder}/database_{source.port}.rdb", "rb") as f:
            snapshot = f.read()

    def script(link, said):
        link.send(b"+FULLRESYNC %s 100\r\n$%d\r\n%s" % (b"a" * 40, len(snapshot), snapshot))
        link.send(encode("MULTI"))
        for _ in range(9):
            link.send(large)
        link.rest()

    large = encode("SET", "k", "v" * (64 << 20))

    with HandLeader(script) as leader:
        follower = start(replicaof=["127.0.0.1", str(leader.port)], client_query_buffer_limit="1mb", appendonly="yes")
        told = "an unfinished command or transaction of it is far above client-query-buffer-limit"
        eventually(lambda: told in follower.output(), seconds=30)
        with follower.client() as c:
            assert c("EXISTS", "k") == 0
