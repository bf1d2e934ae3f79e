"""SLOWLOG, MONITOR, LATENCY, MEMORY and what INFO tells tools: how a running server is looked at."""
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from ev import IS_REDIS, NIL, OK, PONG, Map, Verbatim, eventually, free_port, need, ours, seconds, unsanitized

BLOB = b"b" * 40_000  # long enough to be kept beside its entry
ALL_BYTES = bytes(range(256))


def info(client, section):
    lines = client("INFO", section).decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def pairs(flat):
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2]))


@pytest.fixture
def both(server, oracle):
    """A connection to each of the two servers, both as just started where it matters here."""
    with server.client() as c, oracle.client() as r:
        for client in c, r:
            client("FLUSHALL")
        yield c, r
        for client in c, r:
            client("CONFIG", "SET", "slowlog-log-slower-than", 10_000, "slowlog-max-len", 128)
            client("CONFIG", "SET", "latency-monitor-threshold", 0, "latency-tracking", "yes")
            client("CONFIG", "SET", "latency-tracking-info-percentiles", "50 99 99.9")
            client("SLOWLOG", "RESET")
            client("LATENCY", "RESET")


@pytest.fixture
def quiet(both):
    """The connection to the server under test; its options are put back."""
    return both[0]


@pytest.mark.parametrize("command", [
    "SLOWLOG", "SLOWLOG GET x", "SLOWLOG GET -2", "SLOWLOG GET 1 2", "SLOWLOG LEN 1", "SLOWLOG RESET 1", "SLOWLOG FOO",
    "SLOWLOG RESET", "SLOWLOG GET", "SLOWLOG GET -1", "SLOWLOG LEN", "MONITOR x", "LATENCY", "LATENCY FOO",
    "LATENCY LATEST 1", "LATENCY LATEST", "LATENCY HISTORY", "LATENCY HISTORY nope", "LATENCY RESET nope", "LATENCY RESET",
    "LATENCY DOCTOR x", "LATENCY HISTOGRAM nope", "MEMORY", "MEMORY FOO", "MEMORY USAGE", "MEMORY USAGE nokey",
    "MEMORY USAGE nokey SAMPLES", "MEMORY USAGE nokey SAMPLES x", "MEMORY USAGE nokey SAMPLES -1",
    "MEMORY USAGE nokey FOO 1", "MEMORY USAGE nokey SAMPLES 1 2", "MEMORY USAGE nokey samples 0", "MEMORY STATS x",
    "MEMORY PURGE", "MEMORY PURGE x", "CONFIG SET slowlog-log-slower-than -2", "CONFIG SET slowlog-log-slower-than x",
    "CONFIG SET slowlog-max-len -1", "CONFIG SET latency-monitor-threshold -1", "CONFIG SET latency-tracking maybe",
    "CONFIG SET latency-tracking-info-percentiles x", "CONFIG SET latency-tracking-info-percentiles 101",
    "CONFIG SET latency-tracking-info-percentiles -1", "CONFIG SET latency-tracking-info-percentiles nan",
    "CONFIG SET latency-tracking-info-percentiles 50,99", "CONFIG SET latency-tracking-info-percentiles ",
    "CONFIG GET latency-tracking-info-percentiles", "CONFIG GET slowlog-max-len", "CONFIG GET latency-tracking",
])
def test_replies_and_errors_are_those_of_redis(both, command):
    c, r = both
    assert repr(c(*command.split(" "))) == repr(r(*command.split(" ")))


# ---- the slow log ------------------------------------------------------------------------------------------


def slow(client, count=-1):
    return client("SLOWLOG", "GET", count)


def words(client):
    """The commands in the slow log, the oldest first, without those that read it."""
    return [entry[3] for entry in reversed(slow(client)) if entry[3][0] not in (b"SLOWLOG", b"CONFIG")]


@pytest.mark.parametrize("position", [0, 7, 20, 39])
def test_one_slow_command_is_found_among_many_fast_ones(quiet, position):
    commands = [("SET", f"k{i}", i) for i in range(40)]
    commands[position] = ("DEBUG", "SLEEP", "0.03")
    before = time.time()
    quiet.pipeline(commands)
    (entry,) = slow(quiet)
    assert entry[3] == [b"DEBUG", b"SLEEP", b"0.03"]
    assert 30_000 <= entry[2] < 3_000_000
    assert before - 1 <= entry[1] <= time.time()


def test_several_slow_commands_in_a_row_have_their_own_times(quiet):
    sleeps = ["0.02", "0", "0.04", "0.03"]
    whole = seconds(quiet.pipeline, [("DEBUG", "SLEEP", s) for s in sleeps] + [("PING",)] * 20)
    found = [(entry[3][2], entry[2]) for entry in reversed(slow(quiet))]
    assert [sleep for sleep, _ in found if sleep != b"0"] == [b"0.02", b"0.04", b"0.03"]
    assert all(us >= float(sleep) * 1e6 for sleep, us in found) and sum(us for _, us in found) <= whole * 1e6


@unsanitized
def test_what_is_slow_because_of_the_data_is_found(quiet):
    for i in range(0, 200_000, 10_000):
        quiet("MSET", *(word for k in range(i, i + 10_000) for word in (f"key:{k}", k)))
    quiet("SET", "long", b"x" * 50_000_000)
    quiet("CONFIG", "SET", "slowlog-log-slower-than", 1500)
    quiet("SLOWLOG", "RESET")
    many = [f"key:{k}" for k in range(100_000)]
    for slow_one in ("KEYS", "nothing*"), ("BITCOUNT", "long"), ("EXISTS", *many), ("APPEND", "long", "x" * 20_000_000), ("DEL", *many):
        quiet.pipeline([("GET", "key:1")] * 20 + [slow_one] + [("INCR", "n")] * 20)
    names = [entry[0] for entry in words(quiet)]
    assert [n for n in names if n not in (b"GET", b"INCR")] == [b"KEYS", b"BITCOUNT", b"EXISTS", b"APPEND", b"DEL"]
    assert IS_REDIS or len(names) == 5


def test_arguments_are_cut_as_redis_cuts_them(both):
    for client in both:
        client("CLIENT", "SETNAME", "me")
        client("CONFIG", "SET", "slowlog-log-slower-than", 0)
        client("SLOWLOG", "RESET")
        for n in 0, 1, 127, 128, 129, 1000, 32_767, 32_768, 100_000:
            client("SET", "k", b"x" * n)
        for n in 30, 31, 32, 33, 100:
            client("MGET", *range(n))
        client("SET", ALL_BYTES, ALL_BYTES)
    assert words(both[0]) == words(both[1])
    assert {entry[5] for entry in slow(both[0])} == {b"me"}
    address = b"%s:%d" % (both[0].socket.getsockname()[0].encode(), both[0].socket.getsockname()[1])
    assert {entry[4] for entry in slow(both[0])} == {address}


def test_big_arguments_are_shown_although_their_command_gave_them_away(both):
    other = b"c" * 50_000
    for client in both:
        client("CONFIG", "SET", "slowlog-log-slower-than", 0)
        client("SLOWLOG", "RESET")
        client("MSET", "k", BLOB, "k", other)
        client("SET", "k", BLOB, "PXAT", 1)
        client("GETSET", "k", other)
        client("APPEND", "new", BLOB)
        client("SETNX", "k", BLOB)
        client("SETRANGE", "k", 5, BLOB)
        client("PUBLISH", "channel", BLOB)
        client("GET", BLOB)
        client.transaction(("SET", "k", BLOB), ("DEL", "k"), ("MSETNX", "k", BLOB, "k", other), ("GETDEL", "k"))
    assert words(both[0]) == words(both[1])


def test_a_transaction_is_in_it_command_by_command(both):
    for client in both:
        client("CONFIG", "SET", "slowlog-log-slower-than", 0)
        client("SLOWLOG", "RESET")
        client.transaction(("SET", "a", 1), ("INCR", "a"), ("GET", "a"))
        client("foo")
        client("GET")
        client.pipeline([("MULTI",), ("GET",), ("EXEC",)])
    assert words(both[0]) == words(both[1])
    quiet = both[0]
    quiet("CONFIG", "SET", "slowlog-log-slower-than", 10_000)
    quiet("SLOWLOG", "RESET")
    quiet.transaction(("SET", "a", 1), ("DEBUG", "SLEEP", "0.02"), ("GET", "a"))
    assert [b"DEBUG", b"SLEEP", b"0.02"] in words(quiet) and [b"EXEC"] not in words(quiet)


def test_passwords_are_in_no_one_s_sight(both):
    secrets = [("AUTH", "secret"), ("AUTH", "default", "secret"), ("AUTH", "a", "b", "secret"),
               ("HELLO", 2, "AUTH", "default", "secret"), ("HELLO", 2, "SETNAME", "me", "AUTH", "x", "secret"),
               ("CONFIG", "SET", "requirepass", ""), ("CONFIG", "SET", "maxmemory", 0, "requirepass", ""),
               ("CONFIG", "SET", "MasterAuth", "secret", "masteruser", "secret"),
               ("CONFIG", "SET", "masterauth", "", "masteruser", "")]
    shown = []
    for client in both:
        client("CONFIG", "SET", "slowlog-log-slower-than", 0)
        client("SLOWLOG", "RESET")
        for secret in secrets:
            client(*secret)
        client("CONFIG", "SET", "slowlog-log-slower-than", -1)
        shown.append([entry[3] for entry in slow(client)])
    assert shown[0][1:] == shown[1][1:]
    assert b"(redacted)" in shown[0][1] and not any(b"secret" in words for words in shown[0] if words[0] == b"CONFIG")


def test_its_length_is_bounded_and_its_numbers_go_on(both):
    for client in both:
        client("CONFIG", "SET", "slowlog-log-slower-than", 0)
        client.pipeline([("PING", i) for i in range(200)])
        assert client("SLOWLOG", "LEN") == 128
        assert len(slow(client, 10)) == len(client("SLOWLOG", "GET")) == 10
        newest = slow(client, 1)[0][0]
        client("CONFIG", "SET", "slowlog-max-len", 2)
        client("PING")
        assert [entry[0] for entry in slow(client)] == [newest + 3, newest + 2]
        client("SLOWLOG", "RESET")
        assert [entry[0] for entry in slow(client)] == [newest + 5]
        client("CONFIG", "SET", "slowlog-max-len", 0)
        assert client("SLOWLOG", "LEN") == 0
        client("CONFIG", "SET", "slowlog-max-len", 5, "slowlog-log-slower-than", -1)
        client("SLOWLOG", "RESET")
        client("DEBUG", "SLEEP", "0.02")
        assert slow(client) == []


# ---- MONITOR -----------------------------------------------------------------------------------------------


def masked(lines, client):
    """The lines with their time, and that client's address, struck out; the time must be now."""
    address = "%s:%d" % client.socket.getsockname()
    seen = []
    for line in lines:
        when, rest = line.split(" ", 1)
        assert re.fullmatch(r"\d+\.\d{6}", when) and abs(float(when) - time.time()) < 60
        seen.append(rest.replace(address, "ADDRESS"))
    return seen


def until(monitor, word):
    """The lines up to the one that has the word, which is left out."""
    lines = []
    while word not in (line := monitor.read()):
        lines.append(line)
    return lines


WATCHED = [
    ("SET", "k", ALL_BYTES), ("SET", "a", 'a"b\\c\n\r\t\a\b'), ("SET", "", ""), ("SELECT", 3), ("GET", "k"), ("SELECT", 99),
    ("CONFIG", "GET", "x"), ("AUTH", "pw"), ("AUTH", "u", "pw"), ("HELLO", 2, "AUTH", "default", "x"), ("foo", "bar"), ("GET",),
    ("MULTI",), ("SET", "a", 5), ("INCR", "zz"), ("EXEC",), ("MULTI",), ("DISCARD",), ("MULTI",), ("GET",), ("EXEC",),
    ("EXPIRE", "a", 10), ("INFO", "server"), ("CLIENT", "ID"), ("CLIENT", "LIST"), ("SUBSCRIBE", "x"), ("PING",), ("RESET",),
    ("MULTI",), ("MONITOR",), ("EXEC",), ("COMMAND", "COUNT"), ("SLOWLOG", "LEN"), ("MEMORY", "USAGE", "a"),
    ("LATENCY", "LATEST"), ("DEBUG", "SLEEP", 0), ("WATCH", "q"), ("UNWATCH",), ("KEYS", "*"), ("SET", "a", 12345),
    ("set", "K", BLOB), ("MSET", "k", BLOB, "k", BLOB + b"2"), ("APPEND", "k", BLOB), ("DBSIZE",), ("FLUSHALL",),
]


def test_monitor_shows_what_redis_shows(both, server, oracle):
    shown = []
    for client, at in zip(both, (server, oracle)):
        with at.client() as monitor:
            assert monitor("MONITOR") == OK
            for command in WATCHED:
                client(*command)
            client.pipeline([("SET", f"k{i}", i) for i in range(100)])
            client("ECHO", "the end")
            shown.append(masked(until(monitor, "the end"), client))
    assert shown[0] == shown[1]


def test_a_monitor_sees_all_clients_and_stops_when_it_likes(server, quiet):
    with server.client() as monitor, server.client() as late, server.client() as other:
        assert monitor("MONITOR") == OK
        quiet("SET", "a", 1)
        assert late("MONITOR") == OK
        other("SET", "a", 2)
        assert ['"1"' in line for line in until(monitor, '"2"')] == [True]
        assert '"2"' in late.read()
        assert monitor("RESET") == "RESET"
        other("SET", "a", 3)
        assert (late.read()[-7:], late.read()[-3:]) == ('"RESET"', '"3"')
        assert monitor("PING") == PONG
        assert late.read().endswith('"PING"')
        assert [row for row in quiet("CLIENT", "LIST").split(b"\n") if b"flags=O" in row][0].startswith(b"id=%d " % late("CLIENT", "ID"))


def test_what_a_monitor_may_do_itself(both, server, oracle):
    shown = []
    for client, at in zip(both, (server, oracle)):
        with at.client() as monitor:
            monitor.pipeline([("MONITOR",)])
            for command in ("GET", "a"), ("PUBLISH", "a", "b"), ("MONITOR",), ("PING",), ("MULTI",), ("SET", "a", "c"), ("EXEC",), ("ECHO", "x"):
                monitor.send(b"".join(b"%s " % str(w).encode() for w in command) + b"\r\n")
            monitor.send(b"RESET\r\nPING\r\nMONITOR\r\nQUIT\r\n")
            lines = monitor.rest().decode().split("\r\n")
            shown.append([re.sub(r"^\+\d+\.\d+ \[0 [\d.:]+\]", "TIME", line) for line in lines])
    assert shown[0] == shown[1]


def test_a_monitor_that_does_not_read_is_closed(start):
    server = start(client_output_buffer_limit="normal 1mb 0 0")
    with server.client() as monitor, server.client() as c:
        monitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        monitor("MONITOR")
        for i in range(100):
            c("SET", "k", b"\x01" * 30_000)
            if i % 10 == 9 and b"cmd=monitor" not in c("CLIENT", "LIST"):
                break
        assert b"cmd=monitor" not in c("CLIENT", "LIST")
        assert c("PING") == PONG


def test_monitors_come_and_go_under_load(server, quiet):
    for round_ in range(30):
        with server.client() as a, server.client() as b:
            a.pipeline([("MONITOR",)])
            b.pipeline([("MONITOR",)])
            quiet.pipeline([("SET", f"k{i}", round_) for i in range(50)])
            if round_ % 3 == 0:
                a("RESET")
    assert quiet("PING") == PONG


def test_over_a_unix_socket(start):
    server = start(unixsocket="path.sock")
    with server.client() as monitor, server.client() as c, socket.socket(socket.AF_UNIX) as s:
        monitor("MONITOR")
        c("CONFIG", "SET", "slowlog-log-slower-than", 0)
        s.connect(os.path.join(server.folder, "path.sock"))
        s.sendall(b"PING hello\r\n")
        assert s.recv(100) == b"$5\r\nhello\r\n"
        assert monitor.read().split(" ", 1)[1] == '[0 unix:path.sock] "PING" "hello"'
        assert [entry[4] for entry in slow(c) if entry[3][0] == b"PING"] == [b"path.sock:0"]


# ---- LATENCY -----------------------------------------------------------------------------------------------


def below_the_threshold(client):
    client("LATENCY", "RESET")
    client.pipeline([("PING",)] * 20 + [("DEBUG", "SLEEP", "0.005")] + [("PING",)] * 20)
    return client("LATENCY", "LATEST") == []


def two_in_a_second(client):
    """LATEST's row after two events of which the first took longer; None where they fell into two seconds."""
    client("LATENCY", "RESET")
    eventually(lambda: time.time() % 1 < 0.5)
    client("DEBUG", "SLEEP", "0.2")
    client("DEBUG", "SLEEP", "0.06")
    rows = client("LATENCY", "LATEST")
    return rows[0] if len(rows) == len(client("LATENCY", "HISTORY", "command")) == 1 else None


def test_events_are_kept_from_the_threshold_on(both):
    for client in both:
        client("DEBUG", "SLEEP", "0.02")
        assert client("LATENCY", "LATEST") == []
        client("CONFIG", "SET", "latency-monitor-threshold", 50)
        # Where this machine makes the server wait, it is tried again.
        eventually(lambda: below_the_threshold(client))
        name, when, last, worst = eventually(lambda: two_in_a_second(client))
        assert name == b"command" and last == worst >= 200 and abs(when - time.time()) < 3
        assert client("LATENCY", "HISTORY", "command") == [[when, last]]
        eventually(lambda: time.time() > when + 1)
        client("DEBUG", "SLEEP", "0.06")
        worst = client("LATENCY", "LATEST")[0][3]
        history = client("LATENCY", "HISTORY", "command")
        assert [ms for _, ms in history][0] == last and 60 <= history[1][1] <= worst and history[1][0] > when
        assert client("LATENCY", "LATEST") == [[b"command", history[1][0], history[1][1], worst]]
        assert client("LATENCY", "HISTORY", "fast-command") == []
        assert b"command" in client("LATENCY", "DOCTOR")
        assert client("LATENCY", "RESET", "fast-command", "command", "command") == 1
        assert client("LATENCY", "RESET") == 0 and client("LATENCY", "LATEST") == []


def drawn(name, samples, worst, now):
    """The graph as it should be: each sample in a column, four characters high with three heights each."""
    low, high = min(ms for _, ms in samples), max(ms for _, ms in samples)
    steps = [min(11, (ms - low) * 12 // max(1, high - low)) for _, ms in samples]
    ages = [f"{now - s}s" for s, _ in samples]
    rows = ["".join(" " if step < 9 - 3 * row else "_o#|"[min(3, step - 9 + 3 * row)] for step in steps) for row in range(4)]
    rows += [" " * len(samples)] + ["".join(age[i : i + 1] or " " for age in ages) for i in range(max(map(len, ages)))]
    head = f"{name} - high {high} ms, low {low} ms (all time high {worst} ms)"
    return "\n".join([head, "-" * 80, *rows, ""])


def test_the_graph_has_a_column_for_each_sample(both):
    for client in both:
        client("LATENCY", "RESET")
        client("CONFIG", "SET", "latency-monitor-threshold", 2)
    for ms in 20, 5, 60, 35:
        for client in both:
            client("DEBUG", "SLEEP", ms / 1000)
        time.sleep(1)
    for client in both:
        client("CONFIG", "SET", "latency-monitor-threshold", 0)
        (name, _, _, worst), history = client("LATENCY", "LATEST")[0], client("LATENCY", "HISTORY", "command")

        def agrees():
            now = int(client("TIME")[0])
            graph = client("LATENCY", "GRAPH", "command").decode()
            return int(client("TIME")[0]) == now and graph == drawn("command", history, worst, now)

        assert name == b"command" and len(history) >= 4
        eventually(agrees)


def test_a_transaction_counts_as_a_whole_and_by_its_commands(both):
    for client in both:
        client("CONFIG", "SET", "latency-monitor-threshold", 10)
        client("CONFIG", "RESETSTAT")
        client.transaction(("SET", "a", 1), ("DEBUG", "SLEEP", "0.1"), ("SET", "a", 2))
        stats = info(client, "commandstats")
        usec = {name: int(re.search(r"usec=(\d+)", stats["cmdstat_" + name])[1]) for name in ("exec", "debug", "set")}
        assert usec["exec"] >= usec["debug"] >= 100_000 and usec["set"] < 50_000


@ours
@unsanitized
def test_writing_the_log_is_an_event(start):
    server = start(appendonly="yes")
    with server.client() as c:
        c("CONFIG", "SET", "latency-monitor-threshold", 1)
        assert c("SET", "k", b"x" * 200_000_000) == OK
        assert b"aof-write" in [event[0] for event in c("LATENCY", "LATEST")]
        assert c("LATENCY", "RESET", "aof-write") == 1


def test_the_doctor_is_in(c, c3):
    assert len(c("LATENCY", "DOCTOR")) > 10 and isinstance(c3("LATENCY", "DOCTOR"), Verbatim)
    assert len(c("MEMORY", "DOCTOR")) > 10 and isinstance(c3("MEMORY", "DOCTOR"), Verbatim)
    assert len(c("MEMORY", "MALLOC-STATS")) > 10


# ---- how long commands take --------------------------------------------------------------------------------


def histogram(client, *names):
    return {name: (pairs(row)[b"calls"], pairs(pairs(row)[b"histogram_usec"]))
            for name, row in pairs(client("LATENCY", "HISTOGRAM", *names)).items()}


def test_the_histogram_counts_every_call_by_its_time(both):
    for client in both:
        client("CONFIG", "RESETSTAT")
        client.pipeline([("SET", f"k{i}", i) for i in range(100)] + [("DEBUG", "SLEEP", "0.003")] + [("SET", "k")] * 3)
        client("DEBUG", "SLEEP", "0.01")
        client("INCR", "k1")
        client("SET", "s", "x")
        client("INCR", "s")
        client("CLIENT", "ID")
        client("CLIENT", "GETNAME")
        rows = histogram(client)
        calls = {name: n for name, (n, _) in rows.items()}
        expected = {b"set": 101, b"debug": 2, b"incr": 2, b"client|id": 1, b"client|getname": 1}
        assert {name: calls[name] for name in expected} == expected
        ((total, counts),) = histogram(client, "debug").values()
        assert total == 2 and min(counts) >= 4227 and max(counts) >= 16908  # a busy machine makes it longer, never shorter
        for total, counts in rows.values():
            assert sorted(counts) == list(counts) and sorted(counts.values()) == list(counts.values())
            assert list(counts.values())[-1] == total
        assert sorted(histogram(client, "client")) == [b"client|getname", b"client|id"]
        assert list(histogram(client, "SET", "nosuch", "CLIENT|ID")) == [b"set", b"client|id"]
        for name, (n, _) in rows.items():
            field = info(client, "commandstats").get("cmdstat_" + name.decode())
            assert name == b"latency|histogram" or name == b"info" or field.startswith("calls=%d," % n)


def test_the_bounds_are_named_as_redis_names_them(both):
    ladder = [(1032 << i) // 1000 for i in range(21)]
    for client in both:
        for sleep in 0, 0.0003, 0.0006, 0.001, 0.002, 0.005, 0.02, 0.05:
            client("DEBUG", "SLEEP", sleep)
        seen = {bound for _, counts in histogram(client).values() for bound in counts}
        assert seen <= set(ladder) and len(seen) > 6


def test_the_histogram_is_a_map_in_resp3(c3):
    c3("SET", "a", 1)
    row = c3("LATENCY", "HISTOGRAM", "set")[b"set"]
    assert isinstance(row, Map) and isinstance(row[b"histogram_usec"], Map)


def test_tracking_can_be_off(both):
    for client in both:
        client("CONFIG", "SET", "latency-tracking", "no")
        client("CONFIG", "RESETSTAT")
        client("SET", "a", 1)
        assert pairs(client("LATENCY", "HISTOGRAM", "set")) == {}
        assert "latency_percentiles_usec_set" not in info(client, "latencystats")


def test_info_latencystats(both):
    for client in both:
        client("CONFIG", "SET", "latency-tracking-info-percentiles", "0 50 99.9 100")
        client("CONFIG", "RESETSTAT")
        client.pipeline([("DEBUG", "SLEEP", 0)] * 9 + [("DEBUG", "SLEEP", "0.1")])
        line = info(client, "latencystats")["latency_percentiles_usec_debug"]
        values = {name: float(v) for name, v in (word.split("=") for word in line.split(","))}
        assert list(values) == ["p0", "p50", "p99.9", "p100"] and re.fullmatch(r"(p[\d.]+=\d+\.\d{3},?)+", line)
        assert values["p0"] <= values["p50"] < 50_000 and 100_000 <= values["p99.9"] == values["p100"]
        assert "latencystats" not in client("INFO").decode().lower() and "# Latencystats" in client("INFO", "all").decode()
        client("CONFIG", "SET", "latency-tracking-info-percentiles", "")
        assert info(client, "latencystats")["latency_percentiles_usec_debug"] == ""


def test_a_slow_neighbour_is_not_on_a_fast_command_s_account(quiet):
    quiet("CONFIG", "RESETSTAT")
    quiet.pipeline(([("GET", "a")] * 10 + [("DEBUG", "SLEEP", "0.05")]) * 3)
    stats = info(quiet, "commandstats")
    usec = {name: int(re.search(r"usec=(\d+)", stats["cmdstat_" + name])[1]) for name in ("get", "debug")}
    assert usec["debug"] >= 150_000 and usec["get"] < 50_000


# ---- memory ------------------------------------------------------------------------------------------------


@ours
@pytest.mark.parametrize("length", [0, 1, 16, 1000, 32_767, 32_768, 3_000_000])
@pytest.mark.parametrize("deadline", [(), ("EX", 100)])
def test_memory_usage_is_what_a_key_costs(c, length, deadline):
    before = int(info(c, "memory")["used_memory"])
    c("SET", "key", b"x" * length, *deadline)
    cost = int(info(c, "memory")["used_memory"]) - before
    assert c("MEMORY", "USAGE", "key") == c("MEMORY", "USAGE", "key", "SAMPLES", 5) == cost >= length + len("key")
    assert cost <= length + 80 + length // 20


def test_memory_usage_is_no_use_of_the_key(c):
    c("SET", "x", 1)
    c("RESTORE", "key", 0, c("DUMP", "x"), "IDLETIME", 1000)
    assert c("MEMORY", "USAGE", "key") > 0
    assert c("OBJECT", "IDLETIME", "key") >= 1000
    assert c("MEMORY", "USAGE", "nosuch") == NIL


def test_memory_stats_agrees_with_info(c, c3):
    for i in range(1000):
        c("SET", f"key:{i}", "x" * 16)
    stats, facts = pairs(c("MEMORY", "STATS")), info(c, "memory")
    assert stats[b"keys.count"] == 1000 and isinstance(c3("MEMORY", "STATS"), Map)
    assert stats[b"total.allocated"] <= stats[b"peak.allocated"]
    if not IS_REDIS:
        assert stats[b"clients.normal"] > 0 and stats[b"clients.slaves"] == 0
        assert stats[b"total.allocated"] == int(facts["used_memory"])
        assert stats[b"dataset.bytes"] == int(facts["used_memory_dataset"]) >= 1000 * 23
        assert stats[b"overhead.total"] == int(facts["used_memory_overhead"]) > 0
        assert stats[b"keys.bytes-per-key"] == stats[b"total.allocated"] // 1000


@unsanitized
def test_purge_leaves_all_as_it_is(c):
    for i in range(2000):
        c("SET", f"key:{i}", "x" * 2000)
    for i in range(0, 2000, 2):
        c("DEL", f"key:{i}")
    digest = c("DEBUG", "DIGEST")
    assert c("MEMORY", "PURGE") == OK and c("DEBUG", "DIGEST") == digest


# ---- what tools read ---------------------------------------------------------------------------------------

# Fields that prometheus-redis-exporter makes gauges and counters of, as far as they mean something here.
EXPORTED = """uptime_in_seconds process_id connected_clients blocked_clients maxclients used_memory used_memory_rss
used_memory_peak used_memory_overhead used_memory_dataset maxmemory mem_fragmentation_ratio mem_fragmentation_bytes
mem_clients_normal mem_clients_slaves total_system_memory loading rdb_changes_since_last_save rdb_bgsave_in_progress
rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec aof_enabled
aof_rewrite_in_progress aof_rewrite_scheduled aof_last_rewrite_time_sec aof_current_rewrite_time_sec
aof_last_bgrewrite_status aof_last_write_status aof_current_size aof_base_size aof_pending_rewrite aof_buffer_length
aof_pending_bio_fsync aof_delayed_fsync total_connections_received total_commands_processed instantaneous_ops_per_sec
total_net_input_bytes total_net_output_bytes instantaneous_input_kbps instantaneous_output_kbps rejected_connections
sync_full sync_partial_ok sync_partial_err expired_keys evicted_keys keyspace_hits keyspace_misses pubsub_channels
pubsub_patterns latest_fork_usec total_forks total_error_replies total_reads_processed total_writes_processed connected_slaves
master_repl_offset second_repl_offset repl_backlog_active repl_backlog_size repl_backlog_first_byte_offset
repl_backlog_histlen used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children used_cpu_sys_main_thread
used_cpu_user_main_thread cluster_enabled""".split()


def test_info_has_the_fields_that_tools_read(start):
    server = start(appendonly="yes")
    with server.client() as c:
        fields = info(c, "everything")
        assert [name for name in EXPORTED if name not in fields] == []
        before = {name: int(fields[name]) for name in ("total_reads_processed", "total_writes_processed")}
        for _ in range(10):
            c("PING")
        after = info(c, "stats")
        assert all(10 <= int(after[name]) - was <= 12 for name, was in before.items())


def test_the_prometheus_exporter_reads_a_full_page(start):
    server, port = start(appendonly="yes"), free_port()
    with server.client() as c:
        c("CONFIG", "SET", "latency-monitor-threshold", 1)
        c.pipeline([("SET", "a", 1, "EX", 100), ("GET", "a"), ("GET",), ("DEBUG", "SLEEP", "0.02")])
    exporter = subprocess.Popen(
        [need("prometheus-redis-exporter"), "-redis.addr", f"redis://127.0.0.1:{server.port}", "-web.listen-address", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = eventually(lambda: scraped(port))
    finally:
        exporter.kill()
        exporter.wait()
    assert 'redis_exporter_last_scrape_error{err=""} 0' in page
    assert 'redis_commands_total{cmd="get"} 1\n' in page and 'redis_commands_rejected_calls_total{cmd="get"} 1\n' in page
    for name in "slowlog_length 1", 'db_keys{db="db0"} 1', "memory_used_dataset_bytes ", "total_writes_processed ", \
            'latency_percentiles_usec{cmd="debug",quantile="99"} ', 'latency_spike_duration_seconds{event_name="command"} 0.0':
        assert f"\nredis_{name}" in page


def scraped(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    except OSError:
        return None


def test_redis_cli_stat(server, c):
    c("SET", "a", 1)
    cli = subprocess.Popen([need("redis-cli"), "-p", str(server.port), "--stat", "-i", "0.05"], stdout=subprocess.PIPE)
    try:
        lines = [cli.stdout.readline().decode() for _ in range(5)]
    finally:
        cli.send_signal(signal.SIGKILL)
        cli.communicate()
    assert "clients" in lines[1]
    assert all(re.match(r"1 +[\d.]+[BKM] +\d+ +0 +\d+ \(\+\d+\) +\d+", line) for line in lines[2:])
