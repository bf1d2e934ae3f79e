"""Many connections, misbehaving ones, and what they may cost."""
import resource
import socket
import time

import pytest

from ev import OK, PONG, Client, Error, best, encode, eventually, ours, seconds, unsanitized

REFUSED = Error("ERR max number of clients reached")
MEGABYTE = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def descriptors():
    """Enough for ten thousand connections of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 10200:
        pytest.fail(f"needs 10200 descriptors, the limit is {hard}")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Many connections that say the same at the same time; bare sockets, for they are many."""

    def __init__(self, port, n):
        self.sockets = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(n)]

    def say(self, data, reply):
        for s in self.sockets:
            s.sendall(data)
        for s in self.sockets:
            got = b""
            while len(got) < len(reply):
                assert (piece := s.recv(len(reply) - len(got)))
                got += piece
            assert got == reply

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets:
            s.close()


def refused(port):
    """The error that a new connection is greeted with, None when it is served."""
    with Client(port) as c:
        reply = c("PING")
        return None if reply == PONG else reply


def connect_until_refused(port, most):
    """All the connections that can be had, and the error that the next one is greeted with."""
    clients = []
    while True:
        client = Client(port)
        reply = client("PING")
        if reply != PONG:
            return clients, reply
        clients.append(client)
        assert len(clients) <= most


def connected(c):
    return int(c("INFO", "clients").split(b"connected_clients:")[1].split()[0])


# ---- many --------------------------------------------------------------------------------------------------


def test_ten_thousand_clients_at_once(start):
    server = start(maxclients=10000)
    with Crowd(server.port, 9999) as crowd, server.client() as c:
        crowd.say(encode("PING"), b"+PONG\r\n")
        crowd.say(encode("INCR", "n")[:9], b"")
        crowd.say(encode("INCR", "n")[9:] + encode("ECHO", "x" * 1000), b"")
        assert connected(c) == 10000
        eventually(lambda: c("GET", "n") == b"9999")
        assert refused(server.port) == REFUSED
    with server.client() as c:
        eventually(lambda: connected(c) == 1)
        assert b"rejected_connections:1\r\n" in c("INFO", "stats")


@ours
@unsanitized
def test_an_idle_connection_costs_at_most_512_bytes(start):
    server = start()
    value = "v" * 1000
    with Crowd(server.port, 100) as few:
        few.say(encode("SET", "k", value), b"+OK\r\n")
        before = server.rss()
        with Crowd(server.port, 9800) as crowd:
            crowd.say(encode("SET", "k", value) + encode("GET", "k"), b"+OK\r\n$1000\r\n%s\r\n" % value.encode())
            crowd.say(encode("PING")[:7], b"")
            crowd.say(encode("PING")[7:], b"+PONG\r\n")
            cost = (server.rss() - before) / 9800
    print(f"{cost:.0f} bytes a connection")
    assert cost <= 512


# ---- limits ------------------------------------------------------------------------------------------------


def test_maxclients(start):
    server = start(maxclients=3)
    clients = [server.client() for _ in range(3)]
    assert [c("PING") for c in clients] == [PONG] * 3
    assert refused(server.port) == REFUSED
    assert clients[0]("CONFIG", "SET", "maxclients", "4") == OK
    assert refused(server.port) is None
    clients.pop().close()
    eventually(lambda: refused(server.port) is None)
    for c in clients:
        assert c("PING") == PONG
        c.close()


def test_a_low_limit_of_descriptors_lowers_maxclients(start):
    server = start(files=100, maxclients=10000)
    clients, reply = connect_until_refused(server.port, 100)
    assert reply == REFUSED
    assert len(clients) > 50
    for c in clients:
        assert c("PING") == PONG
        c.close()


@ours
def test_out_of_descriptors_refuses_the_new_and_serves_the_others(start):
    server = start(maxclients=100)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (40, 40))
    clients, reply = connect_until_refused(server.port, 40)
    assert reply == REFUSED
    assert len(clients) > 10
    for c in clients:
        assert c("SET", "k", "v") == OK
    for c in clients[5:]:
        c.close()
    eventually(lambda: refused(server.port) is None)


def test_timeout_closes_idle_clients_only(start):
    server = start(timeout=1)
    with server.client() as idle, server.client() as busy:
        idle("PING")
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert busy("PING") == PONG
            time.sleep(0.05)
        assert idle.rest() == b""
        assert time.monotonic() - began < 4
        assert busy("CONFIG", "SET", "timeout", "0") == OK
        time.sleep(1.5)
        assert busy("PING") == PONG


# ---- clients that do not read ------------------------------------------------------------------------------


@pytest.fixture
def served(server, c):
    """Checks, when called, that other clients are answered at once."""

    def check():
        assert max(seconds(c, "PING") for _ in range(20)) < 0.2

    return check


@ours
@unsanitized
def test_pipelined_gets_of_a_large_value_without_reading_cost_no_memory(server, c, served):
    value = bytes(MEGABYTE)
    c("SET", "big", value)
    with server.client() as lazy:
        before = server.rss()
        lazy.send(encode("GET", "big") * 3000)
        served()
        time.sleep(0.2)
        assert server.rss() - before < 32 * MEGABYTE
        for _ in range(3000):
            assert lazy.read() == value
        assert lazy("PING") == PONG


@ours
@unsanitized
def test_a_client_that_never_reads_is_closed_at_its_limit(server, c, served):
    """Like Redis, the server goes on reading from it: a client may send a long pipeline before it reads."""
    c("CONFIG", "SET", "client-output-buffer-limit", "normal 16mb 0 0")
    c("SET", "k", "v" * 10000)
    with server.client() as lazy:
        before = server.rss()
        with pytest.raises(ConnectionError):
            for _ in range(10000):
                lazy.send(encode("GET", "k") * 100)
        served()
        assert server.rss() - before < 40 * MEGABYTE
    c("CONFIG", "SET", "client-output-buffer-limit", "normal 1gb 0 0")


def test_one_pipeline_does_not_keep_the_others_waiting(server, c, served):
    with server.client() as busy:
        busy.send(encode("SET", "k", "v") * 200000)
        served()
        assert [busy.read() for _ in range(200000)] == [OK] * 200000


def test_clients_that_go_away_in_the_middle(server, c):
    c("SET", "big", bytes(MEGABYTE))
    for data in [encode("GET", "big") * 50, encode("SET", "k", "v" * 100000)[:50000], encode("PING")[:3], b""]:
        for _ in range(20):
            with server.client() as leaver:
                leaver.send(data)
    eventually(lambda: connected(c) == 1)


def test_connecting_and_leaving_over_and_over(server, c):
    for _ in range(2000):
        with server.client() as visitor:
            assert visitor("PING") == PONG
    eventually(lambda: connected(c) == 1)


def test_what_is_closed_is_gone_at_once_and_its_descriptor_serves_the_next(server, c):
    """Also for the kernel, which may know a socket that is served by io_uring under another name, and keep it."""
    def closed():
        with Crowd(server.port, 40) as crowd:
            crowd.say(encode("PING"), b"+PONG\r\n")
            started = time.monotonic()
            assert c("CLIENT", "KILL", "TYPE", "normal") == 40
            assert [s.recv(1) for s in crowd.sockets] == [b""] * 40
            return time.monotonic() - started

    for _ in range(3):
        assert best(0.5, closed) < 0.5


def test_output_limit_closes_a_client(start):
    server = start(client_output_buffer_limit=["normal", "1mb", "0", "0"])
    with server.client() as c, server.client() as lazy:
        c("SET", "k", "v" * 10000)
        lazy.socket.settimeout(5)
        try:
            lazy.send(encode("MGET", *["k"] * 3000))
        except OSError:
            pass
        eventually(lambda: connected(c) == 1)


@ours
@unsanitized
def test_a_list_of_many_ids_holds_nobody_up(start):
    server = start()
    crowd = Crowd(server.port, 1000)
    with server.client() as c:
        me = c("CLIENT", "ID")
        ids = ["9999999"] * 120000 + [me, me]
        assert c("CLIENT", "LIST", "ID", *ids).count(b"\n") == 1
        assert best(0.3, lambda: seconds(c, "CLIENT", "LIST", "ID", *ids)) < 0.3
    for s in crowd.sockets:
        s.close()


@ours
def test_maxclients_raised_at_run_time_raises_the_limit_of_descriptors(start):
    """Or is lowered to what that may be: the data files must find room."""
    server = start(maxclients=64)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (128, 4096))
    with server.client() as c:
        assert c("CONFIG", "SET", "maxclients", "1000") == OK
        eventually(lambda: resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (1032, 4096))
        assert c("CONFIG", "SET", "maxclients", "100000") == OK
        eventually(lambda: c("CONFIG", "GET", "maxclients") == [b"maxclients", b"4064"])
        assert "maxclients is lowered to 4064" in server.output()


@ours
def test_a_limit_of_descriptors_that_is_lowered_ends_no_server(start):
    server = start(maxclients=64)
    with server.client() as c:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (20, 4096))
        assert c("CONFIG", "SET", "maxclients", "100000") == OK
        eventually(lambda: resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (4096, 4096))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (20, 20))
        time.sleep(0.5)
        assert c("PING") == PONG
