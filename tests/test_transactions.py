"""MULTI, EXEC, DISCARD, WATCH."""
import time

import pytest

from ev import NIL_ARRAY, NIL3, OK, QUEUED, Error, Status, ours

ABORTED = Error("EXECABORT Transaction discarded because of previous errors.")


def test_commands_are_queued_and_run_together(c, other):
    assert c("MULTI") == OK
    assert c("SET", "k", "1") == QUEUED
    assert c("INCR", "k") == QUEUED
    assert other("EXISTS", "k") == 0
    assert c("GET", "k") == QUEUED
    assert c("EXEC") == [OK, 2, b"2"]


def test_an_empty_transaction(c):
    assert c.transaction() == []


def test_errors_while_running_leave_the_rest_in_effect(c):
    replies = c.transaction(("SET", "k", "abc"), ("INCR", "k"), ("APPEND", "k", "d"))
    assert replies == [OK, Error("ERR value is not an integer or out of range"), 4]


@pytest.mark.parametrize("bad", [("NOSUCH",), ("GET",), ("CONFIG", "NOSUCH"), ("OBJECT", "ENCODING")])
def test_errors_while_queueing_discard_all(c, bad):
    c("MULTI")
    c("SET", "k", "v")
    assert isinstance(c(*bad), Error)
    assert c("EXEC") == ABORTED
    assert c("EXISTS", "k") == 0
    assert c("EXEC") == Error("ERR EXEC without MULTI")


def test_discard(c):
    c("MULTI")
    c("SET", "k", "v")
    assert c("DISCARD") == OK
    assert c("EXISTS", "k") == 0
    assert c("DISCARD") == Error("ERR DISCARD without MULTI")


def test_no_nesting(c):
    c("MULTI")
    assert c("MULTI") == Error("ERR MULTI calls can not be nested")
    assert c("WATCH", "k") == Error("ERR WATCH inside MULTI is not allowed")
    c("SET", "k", "v")
    assert c("EXEC") == [OK]


def test_select_within(c):
    assert c.transaction(("SELECT", "3"), ("SET", "k", "v"), ("SELECT", "0")) == [OK, OK, OK]
    assert c("EXISTS", "k") == 0
    c("SELECT", "3")
    assert c("EXISTS", "k") == 1


def test_a_large_transaction_with_large_values(c):
    value = b"x" * 100000
    sets = [("SET", f"k{i}", value) for i in range(200)]
    assert c.transaction(*sets, *[("STRLEN", f"k{i}") for i in range(200)]) == [OK] * 200 + [100000] * 200


@ours
def test_the_clock_stands_still_within(c):
    c("SET", "k", "v", "PX", "1000000")
    replies = c.transaction(("PTTL", "k"), *[("BITCOUNT", "k")] * 5000, ("PTTL", "k"))
    assert replies[0] == replies[-1]


# ---- WATCH -------------------------------------------------------------------------------------------------

CHANGES = [
    "SET k 2", "DEL k", "APPEND k 2", "INCR k", "EXPIRE k 100", "EXPIRE k -1", "FLUSHALL", "FLUSHDB", "RENAME k l",
    "RENAME x k", "COPY x k REPLACE", "MOVE k 1", "SWAPDB 0 1", "MSET a 1 k 2", "SETRANGE k 0 x", "SETBIT k 0 1",
    "GETDEL k", "GETEX k EX 100", "BITOP NOT k x", "BITFIELD k INCRBY u2 0 1", "SET k 1",
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_watched_key_fails_exec(c, other, change):
    c("MSET", "k", "1", "x", "y")
    c("WATCH", "k")
    other(*change.split())
    c("MULTI")
    c("SET", "won", "1")
    assert c("EXEC") is NIL_ARRAY
    assert c("EXISTS", "won") == 0


@pytest.mark.parametrize("harmless", ["GET k", "SET other 1", "TOUCH k", "SETNX k 2", "PERSIST k", "EXPIRE k 10 XX",
                                      "SET k 2 NX", "OBJECT ENCODING k", "SWAPDB 2 3", "GETEX k", "SETRANGE k 5 ''"])
def test_what_changes_nothing_lets_exec_run(c, other, harmless):
    c("SET", "k", "1")
    c("WATCH", "k")
    other(*[word.strip("'") for word in harmless.split()])
    assert c.transaction(("SET", "won", "1")) == [OK]


def test_a_missing_key_that_appears(c, other):
    c("WATCH", "k")
    other("SET", "k", "1")
    c("MULTI")
    assert c("EXEC") is NIL_ARRAY


def test_null_of_resp3(c3, other):
    c3("WATCH", "k")
    other("SET", "k", "1")
    c3("MULTI")
    assert c3("EXEC") is NIL3


def test_the_watchers_own_change_counts(c):
    c("WATCH", "k")
    c("SET", "k", "1")
    c("MULTI")
    assert c("EXEC") is NIL_ARRAY


def test_a_watched_key_that_expires(c):
    c("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    c("SET", "k", "v", "PX", "150")
    c("WATCH", "k")
    time.sleep(0.2)
    c("MULTI")
    c("PING")
    assert c("EXEC") is NIL_ARRAY
    c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_a_key_that_was_expired_when_watched_does_not_count(c):
    c("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    c("SET", "k", "v", "PX", "10")
    time.sleep(0.03)
    c("WATCH", "k")
    assert c.transaction(("PING",)) == [Status("PONG")]
    c("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_flushing_an_empty_database_changes_no_missing_key(c, other):
    c("WATCH", "k")
    other("FLUSHALL")
    assert c.transaction(("PING",)) == [Status("PONG")]


def test_watch_knows_the_database(c, other):
    c("WATCH", "k")
    other("SELECT", "1")
    other("SET", "k", "1")
    assert c.transaction(("PING",)) == [Status("PONG")]


@pytest.mark.parametrize("forget", [["UNWATCH"], ["MULTI", "DISCARD"], ["MULTI", "EXEC"], ["RESET"]])
def test_watches_are_forgotten(c, other, forget):
    c("WATCH", "k", "l", "k")
    for command in forget:
        c(command)
    other("SET", "k", "1")
    assert c.transaction(("PING",)) == [Status("PONG")]


def test_execabort_forgets_watches(c, other):
    c("WATCH", "k")
    c("MULTI")
    c("NOSUCH")
    assert c("EXEC") == ABORTED
    other("SET", "k", "1")
    assert c.transaction(("PING",)) == [Status("PONG")]


def test_many_watchers_of_one_key(server, c):
    clients = [server.client() for _ in range(50)]
    for client in clients:
        client("WATCH", "k")
        client("MULTI")
        client("INCR", "k")
    assert [client("EXEC") for client in clients] == [[1]] + [NIL_ARRAY] * 49
    for client in clients:
        client.close()


def test_a_closed_connection_drops_its_transaction(server, c):
    with server.client() as client:
        client("WATCH", "a")
        client("MULTI")
        client("SET", "k", "v")
    assert c("EXISTS", "k") == 0


def test_optimistic_counters_add_up(server, c):
    """Four connections that increment by WATCH, GET, MULTI, SET, EXEC, interleaved at every step."""
    clients = [server.client() for _ in range(4)]
    won = 0
    for _ in range(100):
        for client in clients:
            client("WATCH", "n")
        values = [int(client("GET", "n")) if client("EXISTS", "n") else 0 for client in clients]
        for client, value in zip(clients, values):
            won += client.transaction(("SET", "n", value + 1)) == [OK]
    assert int(c("GET", "n")) == won == 100
    for client in clients:
        client.close()
