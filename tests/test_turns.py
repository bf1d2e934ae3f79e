"""What a turn of the loop must not mix up: many connections, much input at once, replies that have to wait."""
import socket
import time

import pytest

from ev import OK, encode, eventually, ours

pytestmark = ours


def ask(server, data, half_close=False):
    """What one connection is answered to data until the server closes it (or, left open, until PING's answer)."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(data if half_close else data + encode("QUIT"))
        if half_close:
            s.shutdown(socket.SHUT_WR)
        replies = b""
        while part := s.recv(1 << 20):
            replies += part
        return replies


def test_inline_commands_that_have_to_wait_are_not_mangled(server, c):
    c("SET", "big", "x" * 40000)
    reply = b"$40000\r\n" + b"x" * 40000 + b"\r\n"
    assert ask(server, b'GET "big"\r\n' * 200) == reply * 200 + b"+OK\r\n"
    assert ask(server, b'SET a 1\r\nWAITAOF 0 1 100\r\nSET "k" v\r\n') == b"+OK\r\n*2\r\n:0\r\n:0\r\n+OK\r\n+OK\r\n"


@pytest.mark.parametrize("commands", [b"PING\r\n" * 900, encode("PING") * 50000], ids=["inline", "frames"])
def test_a_client_that_closed_its_half_gets_all_replies(server, commands):
    assert ask(server, commands, half_close=True) == b"+PONG\r\n" * (commands.count(b"PING"))


def test_half_closed_under_always(start, tmp_path):
    server = start(appendonly="yes", appendfsync="always")
    assert ask(server, encode("SET", "a", "1") * 20000, half_close=True) == b"+OK\r\n" * 20000


def test_two_protocol_errors_in_one_turn_keep_their_texts(server, c):
    with server.client() as sleeper, server.client() as a, server.client() as b:
        sleeper.send(encode("DEBUG", "SLEEP", "0.3"))
        time.sleep(0.05)
        a.send(b"*1\r\n+4\r\nPING\r\n")
        b.send(b"*zz\r\n")
        assert str(a.read()) == "ERR Protocol error: expected '$', got '+'"
        assert str(b.read()) == "ERR Protocol error: invalid multibulk length"


def test_nothing_runs_after_a_shutdown_has_saved(start):
    server = start()
    with server.client() as sleeper, server.client() as a, server.client() as b:
        sleeper.send(encode("DEBUG", "SLEEP", "0.3"))
        time.sleep(0.05)
        a.send(encode("SHUTDOWN", "SAVE"))
        time.sleep(0.05)
        b.send(encode("SET", "late", "1"))
        with pytest.raises(ConnectionError):
            b.read()
    assert server.process.wait(10) == 0


def test_earlier_replies_do_not_wait_for_waitaof(start):
    server = start(appendonly="yes", appendfsync="always")
    with server.client() as c:
        c.send(encode("SET", "a", "1") + encode("WAITAOF", "1", "1", "0"))
        assert c.read() == OK


def test_clients_that_leave_while_they_wait_are_forgotten(server, c):
    for _ in range(20):
        with server.client() as waiting:
            waiting.send(encode("WAITAOF", "0", "1", "0"))
    time.sleep(0.3)
    assert len(c("CLIENT", "LIST").splitlines()) <= 2


@pytest.mark.parametrize("wait", [("WAIT", "1", "0"), ("WAITAOF", "0", "1", "0")], ids=lambda words: words[0])
def test_a_client_that_waits_with_its_socket_full_both_ways_costs_nothing(server, c, wait):
    def ran_seconds():
        with open(f"/proc/{server.process.pid}/schedstat") as f:
            return int(f.read().split()[0]) / 1e9

    value = "x" * (10 << 20)
    c("SET", "big", value)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.settimeout(20)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(encode("GET", "big"))
        time.sleep(0.3)
        stuck.sendall(encode(*wait))
        waiting = eventually(lambda: [line for line in c("CLIENT", "LIST").splitlines() if b"flags=b" in line])[0]
        stuck.sendall(encode("PING"))
        time.sleep(0.1)
        before = ran_seconds()
        time.sleep(0.5)
        assert ran_seconds() - before < 0.25
        assert c("CLIENT", "UNBLOCK", waiting.split()[0].removeprefix(b"id=")) == 1
        with stuck.makefile("rb") as replies:
            assert replies.readline() == b"$%d\r\n" % len(value) and len(replies.read(len(value) + 2)) == len(value) + 2
            if wait[0] == "WAIT":
                assert replies.readline() == b":0\r\n"
            else:
                assert [replies.readline() for _ in range(3)] == [b"*2\r\n", b":0\r\n", b":0\r\n"]
            assert replies.readline() == b"+PONG\r\n"


def test_no_reply_to_a_waitaof_that_is_to_be_skipped(server):
    assert ask(server, b"CLIENT REPLY SKIP\r\nWAITAOF 0 1 100\r\nPING\r\n") == b"+PONG\r\n+OK\r\n"


def test_a_soft_limit_closes_a_client_whose_socket_is_stuck(start):
    server = start(client_output_buffer_limit="pubsub 0 1mb 1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stuck, server.client() as c:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(encode("SUBSCRIBE", "news"))
        time.sleep(0.1)
        for _ in range(12):
            c("PUBLISH", "news", "x" * 500_000)
        time.sleep(3.5)
        assert c("PUBLISH", "news", "x") == 0
