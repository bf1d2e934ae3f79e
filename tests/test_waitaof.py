"""WAITAOF: a client waits until its changes are on the disk."""
import time

import pytest

from ev import OK, Error, encode, ours
from persist_tools import Durable

pytestmark = ours


@pytest.mark.parametrize("policy", ["everysec", "always"])
def test_it_answers_when_the_log_is_on_the_disk(tmp_path, policy):
    with Durable(tmp_path, appendfsync=policy) as s, s.client() as c:
        for n in range(3):
            c("SET", "k", str(n))
            before = time.monotonic()
            assert c("WAITAOF", "1", "0", "0") == [1, 0]
            assert time.monotonic() - before < 3
        assert c("WAITAOF", "1", "0", "0") == [1, 0]


def test_what_comes_behind_it_waits_too(tmp_path):
    with Durable(tmp_path, appendfsync="no") as s, s.client() as c, s.client() as other:
        c.send(encode("SET", "k", "1") + encode("WAITAOF", "0", "1", "300") + encode("SET", "k", "2"))
        assert c.read() == OK
        before = time.monotonic()
        assert other("GET", "k") == b"1"
        assert c.read()[1] == 0
        assert 0.1 < time.monotonic() - before < 5
        assert c.read() == OK and other("GET", "k") == b"2"


def test_a_client_may_leave_while_it_waits(tmp_path):
    with Durable(tmp_path, appendfsync="no") as s, s.client() as c:
        with s.client() as waiting:
            waiting.send(encode("SET", "k", "1") + encode("WAITAOF", "1", "1", "0"))
            assert waiting.read() == OK
        assert c("GET", "k") == b"1"


def test_inside_a_transaction_it_does_not_wait(tmp_path):
    with Durable(tmp_path, appendfsync="no") as s, s.client() as c:
        replies = c.transaction(("SET", "k", "1"), ("WAITAOF", "1", "1", "0"))
        assert replies[0] == OK and replies[1][1] == 0


def test_errors(tmp_path):
    with Durable(tmp_path) as s, s.client() as c:
        assert c("WAITAOF", "2", "0", "0") == Error("ERR value is out of range, must be between 0 and 1")
        assert c("WAITAOF", "0", "-1", "0") == Error("ERR value is out of range, must be positive")
        assert c("WAITAOF", "1", "0", "x") == Error("ERR timeout is not an integer or out of range")
        assert c("WAITAOF", "1", "0", "-1") == Error("ERR timeout is negative")
        c("CONFIG", "SET", "appendonly", "no")
        assert c("WAITAOF", "0", "0", "0") == [0, 0]
        assert c("WAITAOF", "1", "0", "0") == Error(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
