"""Connections seen, ended and held by others; who may come in; the file that CONFIG REWRITE writes."""
import pytest

from ev import OK, PONG, Error, encode, eventually


@pytest.fixture(params=["mine", "right"])
def both(request, server, oracle):
    """This server and redis-server, one after the other."""
    return server if request.param == "mine" else oracle


def ended(client):
    """Has the server closed the connection?"""
    return client.rest() == b""


def address(client):
    return "%s:%d" % client.socket.getsockname()


# ---- CLIENT KILL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    ["", "x", "127.0.0.1:1", "ID", "ID 0", "ID -1", "ID x", "ID 99999999", "TYPE foo", "TYPE master", "USER foo", "ADDR",
     "SKIPME x", "SKIPME", "ADDR 1:1 FOO", "ADDR 1:1 FOO x", "LADDR 1:1", "id 99999999 skipme NO", "TYPE replica USER default"],
)
def test_kill_answers_as_redis(c, oracle, args):
    with oracle.client() as r:
        assert c("CLIENT", "KILL", *args.split()) == r("CLIENT", "KILL", *args.split())


def test_kill_by_address_old_and_new(both):
    with both.client() as c, both.client() as first, both.client() as second, both.client() as third:
        assert c("CLIENT", "KILL", address(first)) == OK and ended(first)
        assert c("CLIENT", "KILL", address(first)) == Error("ERR No such client")
        assert c("CLIENT", "KILL", "ADDR", address(second)) == 1 and ended(second)
        assert c("CLIENT", "KILL", "LADDR", f"127.0.0.1:{both.port}", "ADDR", address(second)) == 0
        assert c("CLIENT", "KILL", "LADDR", f"127.0.0.1:{both.port}", "ADDR", address(third)) == 1 and ended(third)
        assert c("PING") == PONG


def test_kill_by_id(both):
    with both.client() as c, both.client() as other:
        number = other("CLIENT", "ID")
        assert c("CLIENT", "KILL", "ID", number, "TYPE", "pubsub") == 0
        assert c("CLIENT", "KILL", "ID", number) == 1 and ended(other)
        assert c("CLIENT", "KILL", "ID", number) == 0


def test_kill_spares_the_caller_unless_told_otherwise(both):
    with both.client() as c, both.client() as again:
        me = c("CLIENT", "ID")
        assert c("CLIENT", "KILL", "ID", me) == 0
        assert c("CLIENT", "KILL", "ID", me, "SKIPME", "yes") == 0
        assert c("CLIENT", "KILL", "ID", me, "SKIPME", "no") == 1 and ended(c)
        again.send(encode("CLIENT", "KILL", address(again)) + encode("PING"))
        assert again.read() == OK and ended(again)


def test_kill_by_type_and_user(both):
    with both.client() as c, both.client() as plain, both.client() as listener:
        listener("SUBSCRIBE", "a")
        assert c("CLIENT", "KILL", "TYPE", "pubsub") == 1 and ended(listener)
        assert plain("PING") == PONG
        assert c("CLIENT", "KILL", "USER", "default", "ADDR", address(plain)) == 1 and ended(plain)
        assert c("CLIENT", "KILL", "TYPE", "slave") == 0


def test_kill_as_sentinel_sends_it(both):
    with both.client() as c, both.client() as plain, both.client() as listener:
        listener("SUBSCRIBE", "a")
        killed = c.transaction(("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "KILL", "TYPE", "pubsub"))
        assert killed[0] >= 1 and killed[1] == 1
        assert ended(plain) and ended(listener) and c("PING") == PONG


def test_what_the_killed_one_sent_behind_is_not_run(both):
    with both.client() as c, both.client() as other:
        other("SET", "n", "0")
        c.send(encode("CLIENT", "KILL", address(other)) + encode("PING"))
        assert c.read() == OK and c.read() == PONG and ended(other)
        eventually(lambda: address(other).encode() not in c("CLIENT", "LIST"))
