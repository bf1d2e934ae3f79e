"""Where the address space has a limit (ulimit -v), what cannot have memory is refused with -OOM, and the server lives."""
import contextlib
import re
import resource
import time

import pytest

from ev import OK, PONG, Error, encode, eventually, ours, unsanitized

pytestmark = [ours, unsanitized]
OOM = Error("OOM the system has no memory for this (ulimit -v)")
MB = 1 << 20


@pytest.fixture
def limit(start):
    """A server that may take so many MB more than it has."""

    def make(mb, **options):
        server = start(**options)
        with open(f"/proc/{server.pid}/status") as f:
            has = int(re.search(r"VmSize:\s+(\d+)", f.read())[1]) * 1024
        resource.prlimit(server.pid, resource.RLIMIT_AS, (has + mb * MB, resource.RLIM_INFINITY))
        time.sleep(0.3)  # it looks ten times a second
        return server

    return make


def fill(c, mb):
    """Large values until there is no room for another; how many there are."""
    for i in range(1000):
        if (reply := c("SETRANGE", f"fill:{i}", mb * MB - 1, "x")) != mb * MB:
            assert reply == OOM
            return i


def test_a_value_that_there_is_no_room_for(limit):
    server = limit(200)
    with server.client() as c, server.client() as big:
        with contextlib.suppress(ConnectionError):  # it is told with its header, and closed
            big.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000000\r\n")
            assert big.read() == OOM
            assert big.rest() == b""
        assert c("SET", "k", b"v" * 100 * MB) == OK
        assert c("EXISTS", "k") == 1


@pytest.mark.parametrize("command", [
    ("SETRANGE", "k", 400 * MB, "x"), ("SETRANGE", "new", 400 * MB, "x"),
    ("SETBIT", "k", 400 * MB * 8, 1), ("SETBIT", "new", 400 * MB * 8, 1), ("BITFIELD", "k", "SET", "u8", 400 * MB * 8, 1),
    ("BITOP", "NOT", "to", "k"), ("DUMP", "k"), ("GETRANGE", "k", 1, -1),
])  # fmt: skip
def test_what_would_take_too_much(limit, command):
    server = limit(200)
    with server.client() as c:
        assert c("SETRANGE", "k", 100 * MB - 1, "x") == 100 * MB
        fill(c, 8)
        assert c(*command) == OOM
        assert c("STRLEN", "k") == 100 * MB
        assert c("DEL", *[f"fill:{i}" for i in range(1000)]) > 0
        assert c("SET", "small", "v") == OK


def test_large_values_are_read_however_little_is_left(limit):
    """They are sent from where they are."""
    server = limit(300)
    with server.client() as c:
        assert c("SETRANGE", "k", 200 * MB - 1, "x") == 200 * MB
        n = fill(c, 8)
        clients = [server.client() for _ in range(10)]
        for one in clients:
            one.send(encode("GET", "k") + encode("MGET", "k", "fill:0", "k"))
        for one in clients:
            one.socket.recv(100)
        assert c("PING") == PONG
        for one in clients[1:]:
            one.close()
        clients[0].close()
        values = c("MGET", *[f"fill:{i}" for i in range(n)])
        assert {len(v) for v in values} == {8 * MB}
        assert len(c("GET", "k")) == 200 * MB


def test_appends_until_there_is_no_more(limit):
    server = limit(200, appendonly="yes")
    with server.client() as c:
        length, reply = 0, 0
        while not isinstance(reply, Error):
            length = reply
            try:
                reply = c("APPEND", "k", "x" * 4 * MB)
            except ConnectionError:  # refused at its header: the reply may be lost with the rest
                reply = OOM
        assert reply == OOM and length > 50 * MB
    with server.client() as c:
        assert c("STRLEN", "k") == length
        assert c("DEL", "k") == 1
        eventually(lambda: c("SET", "small", "v") == OK)


def test_small_values_until_there_is_no_more(limit):
    server = limit(150)
    with server.client() as c:
        n, replies = 0, [OK]
        while OOM not in replies:
            replies = c.pipeline([("SET", f"key:{i:09}", "v" * 200) for i in range(n, n + 5000)])
            assert set(replies) <= {OK, OOM}
            n += 5000
            assert n < 2_000_000
        assert c("GET", "key:000000000") == b"v" * 200
        assert c("DEL", "key:000000000") == 1
        assert c("FLUSHALL") == OK
        eventually(lambda: c("SET", "small", "v") == OK)
