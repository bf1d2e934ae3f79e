"""Growing from nothing to millions of keys: no request waits because the table gets larger, or smaller.

ECHOVAULT_GROWTH_KEYS sets how many keys; 5000000 is the full size.
"""
import contextlib
import multiprocessing
import os
import time

import pytest

from ev import Client, best, ours, seconds, unsanitized

KEYS = int(os.environ.get("ECHOVAULT_GROWTH_KEYS", 1000000))
LIMIT = 0.005
BATCH = 50


def load(port, command):
    """Sends command % i for all keys, a batch at a time."""
    with Client(port) as c:
        for first in range(0, KEYS, BATCH):
            c.send(b"".join(command % ((i,) * command.count(b"%")) for i in range(first, first + BATCH)))
            for _ in range(BATCH):
                c.input.readline()


def pause():
    """Between requests, lest the kernel hold back a process that runs before all others for too long."""
    time.sleep(0.0005)


def longest_wait_beside(server, command):
    """Loads in a process of its own; returns the longest that a request of this one took meanwhile."""
    loader = multiprocessing.get_context("fork").Process(target=load, args=(server.port, command))
    took = []
    with server.client() as c:
        loader.start()
        while loader.is_alive():
            took.append(seconds(c, "PING"))
            pause()
    loader.join()
    assert loader.exitcode == 0
    return max(took)


@pytest.fixture(autouse=True)
def undisturbed(server):
    """This process and the server run before all others, where that is allowed: it is not they who are measured."""

    def schedule(policy, priority):
        for pid in (0, server.pid):
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(pid, policy, os.sched_param(priority))

    schedule(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 1)
    yield
    schedule(os.SCHED_OTHER, 0)


SET = b"*3\r\n$3\r\nSET\r\n$16\r\n%016d\r\n$16\r\n%016d\r\n"
DEL = b"*2\r\n$3\r\nDEL\r\n$16\r\n%016d\r\n"


@ours
@unsanitized
@pytest.mark.timeout(600)
def test_no_request_waits_while_the_table_grows_and_shrinks(server, c):
    def grow():
        c("FLUSHALL")
        return longest_wait_beside(server, SET)

    def shrink():
        if not c("DBSIZE"):
            load(server.port, SET)
        return longest_wait_beside(server, DEL)

    assert best(LIMIT, grow) < LIMIT
    assert c("DBSIZE") == KEYS
    assert best(LIMIT, shrink) < LIMIT
    assert c("DBSIZE") == 0


@ours
@unsanitized
def test_flushing_millions_of_keys_makes_no_request_wait(server, c):
    def flush():
        load(server.port, SET)
        return max(seconds(c, "FLUSHALL"), *(pause() or seconds(c, "PING") for _ in range(2000)))

    assert best(0.02, flush) < 0.02
