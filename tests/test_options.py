"""Options on the command line, in a file and by CONFIG; starting and ending."""
import os
import signal
import socket
import subprocess
import time

import pytest

from ev import ECHOVAULT, NIL, OK, PONG, Client, Error, Server, eventually, flags, free_port, need, ours, unsanitized


def run(*args, **kw):
    """Runs the server until it ends by itself."""
    return subprocess.run([ECHOVAULT, *args], capture_output=True, text=True, timeout=20, **kw)


def option(c, name):
    """The option's value as CONFIG GET tells it."""
    reply = c("CONFIG", "GET", name)
    assert reply[::2] == [name.encode()]
    return reply[1].decode()


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "echovault.conf"
        path.write_text(text)
        return str(path)

    return write


# ---- the command line --------------------------------------------------------------------------------------


@ours
def test_help_and_version():
    for flag in ["--help", "-h"]:
        shown = run(flag)
        assert shown.returncode == 0 and "--port" in shown.stdout and "--replicaof" in shown.stdout
    for flag in ["--version", "-v"]:
        shown = run(flag)
        assert shown.returncode == 0 and "echovault" in shown.stdout.lower()
        assert len(shown.stdout.splitlines()) == 1


def test_options_take_effect(start):
    server = start(databases=4, requirepass="pa ss", maxclients=50, timeout=7, tcp_keepalive=60, loglevel="debug")
    with server.client() as c:
        c("AUTH", "pa ss")
        assert c("SELECT", "4") == Error("ERR DB index is out of range")
        for name, value in [("databases", "4"), ("maxclients", "50"), ("timeout", "7"), ("loglevel", "debug"),
                            ("tcp-keepalive", "60"), ("requirepass", "pa ss"), ("port", str(server.port))]:
            assert option(c, name) == value


@ours
@pytest.mark.parametrize(
    "args, named",
    [("--nosuch 1", "nosuch"), ("--port", "port"), ("--port x", "port"), ("--port 70000", "port"),
     ("--appendfsync sometimes", "appendfsync"), ("--maxmemory 1xb", "maxmemory"), ("--save 1", "save"),
     ("--appendonly perhaps", "appendonly"), ("--databases 0", "databases"), ("--loglevel loud", "loglevel"),
     ("--bind 300.1.1.1", "300.1.1.1"), ("--dir /no/such/folder", "/no/such/folder"), ("--replicaof host", "replicaof"),
     ("/no/such/file.conf", "/no/such/file.conf"), ("--maxclients 0", "maxclients"), ("--port 1 2", "port"),
     ("--requirepass foo # my-password", "requirepass"), ("--dir . ..", "dir"), ("--include more.conf", "no include")],
)
def test_a_bad_option_is_named_in_one_line(args, named, tmp_path):
    port = [] if "--port" in args else ["--port", str(free_port())]
    ended = run(*args.split(), *port, cwd=tmp_path)
    said = (ended.stdout + ended.stderr).splitlines()
    assert ended.returncode == 1
    assert len(said) == 1 and named in said[0]


@ours
@pytest.mark.parametrize("args", ["--tls-port 6380", "--aclfile users", "--cluster-enabled yes"])
def test_what_would_leave_it_less_safe_than_asked_is_refused(args, tmp_path):
    ended = run(*args.split(), "--port", str(free_port()), cwd=tmp_path)
    assert ended.returncode == 1
    assert args.split()[0] in ended.stderr


@ours
def test_options_of_redis_without_effect_are_accepted_with_a_notice(start):
    server = start(rdbcompression="yes", list_max_listpack_size="-2", tls_port="0", hz="50")
    assert "The option rdbcompression has no effect here" in server.output()
    with server.client() as c:
        assert c("CONFIG", "SET", "activedefrag", "no") == OK
        assert c("CONFIG", "GET", "activedefrag") == []


@ours
def test_a_port_in_use_is_named_in_one_line(server, tmp_path):
    ended = run("--port", str(server.port), cwd=tmp_path)
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if str(server.port) in line]
    assert ended.returncode == 1
    assert len(said) == 1 and "in use" in said[0]


@ours
def test_listens_on_loopback_only_by_default(server):
    for family, address in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]:
        if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
            continue
        with Client(server.port, host=address) as c:
            assert c("PING") == PONG
    with pytest.raises(ConnectionRefusedError):
        Client(server.port, host="127.0.0.2")


def test_bind(start):
    server = start(bind=["127.0.0.2", "127.0.0.1"])
    with Client(server.port, host="127.0.0.2") as c:
        assert c("PING") == PONG
        assert option(c, "bind") == "127.0.0.2 127.0.0.1"


def test_unixsocket(start, tmp_path):
    path = str(tmp_path / "socket")
    start(unixsocket=path, unixsocketperm="700")
    assert os.stat(path).st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"PING\r\n")
        assert s.recv(100) == b"+PONG\r\n"


@ours
def test_no_nul_in_an_option(start, config_file):
    """It would be taken for the text's end: a shorter password than was asked for."""
    with start().client() as c:
        assert "NUL" in c("CONFIG", "SET", "requirepass", b"abc\0def") and c("CONFIG", "SET", "timeout", "1", "masterauth", b"\0")
        assert option(c, "requirepass") == "" and option(c, "timeout") == "0"
    ended = run(config_file(f'port {free_port()}\nrequirepass "abc\\x00def"\n'))
    assert ended.returncode == 1 and "NUL" in ended.stderr and "requirepass" in ended.stderr


def test_replicaof_no_one_is_nobody(start, config_file):
    with start(config_file("replicaof no one\n")).client() as c:
        assert c("ROLE")[0] == b"master" and option(c, "replicaof") == ""


@ours
def test_a_second_server_leaves_the_firsts_socket_and_pid_file_alone(start, tmp_path):
    path, pid = str(tmp_path / "socket"), str(tmp_path / "pid")
    first = start(port=0, unixsocket=path, pidfile=pid, ready=False)
    eventually(lambda: os.path.exists(path) and os.path.exists(pid) and "Ready" in first.output())
    ended = run("--port", "0", "--unixsocket", path, "--pidfile", pid, "--appendonly", "no", cwd=tmp_path)
    said = (ended.stdout + ended.stderr).splitlines()
    assert ended.returncode == 1 and len(said) == 1 and path in said[0] and "--unixsocket" in said[0]
    with open(pid) as f, socket.socket(socket.AF_UNIX) as s:
        assert int(f.read()) == first.pid
        s.connect(path)
        s.sendall(b"PING\r\n")
        assert s.recv(100) == b"+PONG\r\n"
    first.kill()
    second = start(port=0, unixsocket=path, pidfile=pid, ready=False)
    eventually(lambda: "Ready" in second.output())
    assert second.end() == 0 and not os.path.exists(path) and not os.path.exists(pid)


@ours
def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "letter").write_text("dear")
    ended = run("--port", "0", "--unixsocket", str(tmp_path / "letter"), "--appendonly", "no", cwd=tmp_path)
    assert ended.returncode == 1 and "letter" in ended.stdout and (tmp_path / "letter").read_text() == "dear"


@ours
def test_a_start_that_fails_or_is_stopped_leaves_no_pid_file_or_socket(start, tmp_path):
    """It fails at the snapshot, and is stopped while it loads a large log."""
    path, pid = str(tmp_path / "socket"), str(tmp_path / "pid")
    (tmp_path / "database_7.rdb").write_bytes(b"junk")
    files = ["--dbfilename", "database_7.rdb", "--unixsocket", path, "--pidfile", pid, "--port", str(free_port())]
    ended = run(*files, cwd=tmp_path)
    assert ended.returncode == 1 and "database_7.rdb" in ended.stdout
    assert not os.path.exists(path) and not os.path.exists(pid)
    os.unlink(tmp_path / "database_7.rdb")
    with open(tmp_path / "plain.aof", "wb") as f:
        f.write(b"".join(b"*3\r\n$3\r\nSET\r\n$7\r\n%07d\r\n$1\r\nx\r\n" % n for n in range(1_500_000)))
    s = start(appendonly="yes", appendfilename="plain.aof", folder=str(tmp_path), unixsocket=path, pidfile=pid, ready=False)
    eventually(lambda: os.path.exists(path) and os.path.exists(pid))
    assert s.end() == 0 and "Stopped while loading" in s.output() and "Ready to accept" not in s.output()
    assert not os.path.exists(path) and not os.path.exists(pid)


# ---- the file ----------------------------------------------------------------------------------------------


def test_a_config_file_with_quotes_and_comments(start, config_file):
    path = config_file(
        '# a comment\n\n   timeout    9\nREQUIREPASS "pa\\x20ss\\""\nmaxmemory 3mb\nsave 900 1\nsave 300 10 60 10000\n'
    )
    server = start(path, timeout=11, save=["900", "1", "300", "10"])
    with server.client() as c:
        assert c("AUTH", 'pa ss"') == OK
        assert option(c, "timeout") == "11"
        assert option(c, "maxmemory") == str(3 << 20)


def test_repeated_save_lines_add_up(start, config_file):
    with start(config_file("save 900 1\nsave 300 10\n"), save=None).client() as c:
        assert option(c, "save") == "900 1 300 10"


def test_debians_own_redis_conf_starts_the_server(start, tmp_path):
    need("redis-server")
    with open("/etc/redis/redis.conf") as f:
        path = tmp_path / "redis.conf"
        path.write_text(f.read())
    server = start(str(path), dir=str(tmp_path), logfile="", pidfile="", daemonize="no", supervised="no")
    with server.client() as c:
        assert c("SET", "k", "v") == OK
        assert option(c, "appendfsync") == "everysec"


def test_lists_of_words_and_one_word_in_quotes(start, config_file):
    path = config_file('latency-tracking-info-percentiles 50 90\nrequirepass "a word"\nsave 60 1\n')
    with start(path, save=None).client() as c:
        assert c("AUTH", "a word") == OK and option(c, "save") == "60 1"
        assert option(c, "latency-tracking-info-percentiles") == "50 90"


def test_save_without_a_value_is_never(start):
    with start(save=[]).client() as c:
        assert option(c, "save") == ""


@ours
@pytest.mark.parametrize("line", ["nosuch 1", "port x", 'requirepass "open', "timeout", "requirepass foo # the password"])
def test_a_bad_line_of_a_file_is_named(config_file, line):
    ended = run(config_file(f"port {free_port()}\n" + line + "\n"))
    said = (ended.stdout + ended.stderr).splitlines()
    assert ended.returncode == 1
    assert len(said) == 1 and (line.split()[0] in said[0] or "2" in said[0])


# ---- CONFIG ------------------------------------------------------------------------------------------------


def test_config_get_patterns(c):
    names = c("CONFIG", "GET", "*")[::2]
    assert len(names) == len(set(names)) and b"port" in names and b"save" in names
    assert c("CONFIG", "GET", "nosuch") == []
    assert c("CONFIG", "GET", "PORT", "time?ut") != []
    assert sorted(c("CONFIG", "GET", "maxmemory*", "port")[::2])[0] == b"maxmemory"
    assert c("CONFIG", "GET") == Error("ERR wrong number of arguments for 'config|get' command")


@pytest.mark.parametrize(
    "name, value",
    [("timeout", "5"), ("maxmemory", "1gb"), ("maxmemory", "12345"), ("maxmemory-policy", "noeviction"),
     ("loglevel", "verbose"), ("appendfsync", "always"), ("save", "10 1 20 2"), ("save", ""), ("requirepass", ""),
     ("tcp-keepalive", "0"), ("notify-keyspace-events", "KEA"),
     ("maxclients", "77"), ("auto-aof-rewrite-percentage", "50"),
     ("auto-aof-rewrite-min-size", "1mb"), ("stop-writes-on-bgsave-error", "no"), ("repl-backlog-size", "2mb"),
     ("client-output-buffer-limit", "normal 1mb 1mb 3"), ("proto-max-bulk-len", "2mb")],
)
def test_config_set_and_get_as_redis(start, oracle, name, value):
    with start().client() as c, Server(binary=need("redis-server")) as fresh, fresh.client() as r:
        assert c("CONFIG", "SET", name, value) == r("CONFIG", "SET", name, value) == OK
        assert option(c, name) == option(r, name)


@pytest.mark.parametrize(
    "args",
    ["timeout x", "timeout -1", "timeout 99999999999", "maxmemory 1x", "maxmemory -1", "loglevel loud",
     "appendfsync sometimes", "appendonly perhaps", "nosuch 1", "port", "databases 20", "save x", "save 1",
     "notify-keyspace-events Q", "client-output-buffer-limit normal 1",
     "client-output-buffer-limit foo 1 1 1", "timeout 1 timeout 2", "timeout 1 nosuch 2", "timeout 1 loglevel loud",
     "unixsocket x", "proto-max-bulk-len 1", "maxclients 0", "dir /no/such/folder"],
)
def test_config_set_refuses_as_redis(c, oracle, args):
    with oracle.client() as r:
        refusal = r("CONFIG", "SET", *args.split(" "))
        assert isinstance(refusal, Error)
        assert c("CONFIG", "SET", *args.split(" ")) == refusal
    assert option(c, "timeout") == "0"


def test_config_set_of_several_is_all_or_nothing(c):
    assert c("CONFIG", "SET", "timeout", "100", "loglevel", "loud") != OK
    assert option(c, "timeout") == "0"
    assert c("CONFIG", "SET", "timeout", "100", "tcp-keepalive", "5") == OK
    assert (option(c, "timeout"), option(c, "tcp-keepalive")) == ("100", "5")
    assert c("CONFIG", "SET", "timeout", "0") == OK


def test_config_set_requirepass_takes_effect(start):
    with start().client() as c:
        assert c("CONFIG", "SET", "requirepass", "new") == OK
        assert c("PING") == PONG
        assert c("CONFIG", "SET", "requirepass", "") == OK


def test_proto_max_bulk_len_takes_effect(start):
    with start().client() as c:
        assert c("CONFIG", "SET", "proto-max-bulk-len", "1mb") == OK
        assert c("SETRANGE", "k", str(1 << 20), "x") == Error(
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
        )
        c.send(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n")
        assert c.read() == Error("ERR Protocol error: invalid bulk length")


# ---- starting and ending -----------------------------------------------------------------------------------


@ours
@unsanitized
def test_starts_within_50_ms():
    def seconds_to_pong():
        before = time.perf_counter()
        with Server() as s:
            return time.perf_counter() - before

    assert min(seconds_to_pong() for _ in range(5)) < 0.05


def test_lines_that_tools_wait_for(start):
    server = start()
    assert "Server initialized" in server.output()
    assert "Ready to accept connections" in server.output()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(start, how):
    server = start()
    with server.client() as c:
        c("SET", "k", "v")
        assert server.end(how) == 0
        assert c.rest() == b""


def test_shutdown(start):
    server = start()
    with server.client() as c:
        assert c("SHUTDOWN", "FOO") == Error("ERR syntax error")
        assert c("SHUTDOWN", "SAVE", "NOSAVE") == Error("ERR syntax error")
        c.send(b"SHUTDOWN NOSAVE\r\n")
        assert c.rest() == b""
    assert server.process.wait(10) == 0


def test_data_outlives_a_clean_end(start, tmp_path):
    server = start(folder=str(tmp_path), appendonly="yes")
    with server.client() as c:
        c("SET", "k", "v", "EX", "1000")
        c("SELECT", "3")
        c("SET", "k", "three")
    server.end()
    server = start(folder=str(tmp_path), appendonly="yes", port=server.port)
    with server.client() as c:
        assert c("GET", "k") == b"v"
        assert 900 < c("TTL", "k") <= 1000
        c("SELECT", "3")
        assert c("GET", "k") == b"three"


def test_nothing_is_kept_where_persistence_is_off(start, tmp_path):
    server = start(folder=str(tmp_path))
    with server.client() as c:
        c("SET", "k", "v")
    server.end()
    with start(folder=str(tmp_path)).client() as c:
        assert c("GET", "k") is NIL


def test_logfile_and_pidfile(start, tmp_path):
    log, pid = tmp_path / "server.log", tmp_path / "server.pid"
    server = start(logfile=str(log), pidfile=str(pid))
    assert "Ready to accept connections" in log.read_text()
    assert int(pid.read_text()) == server.pid
    assert server.end() == 0
    assert not pid.exists()


def test_daemonize(tmp_path):
    pid, port = tmp_path / "pid", free_port()
    words = flags({"port": port, "daemonize": "yes", "pidfile": pid, "dir": tmp_path, "save": "", "logfile": "log"})
    assert run(*words, cwd=tmp_path).returncode == 0
    until = time.monotonic() + 10
    while True:
        try:
            with Client(port) as c:
                assert c("PING") == PONG
                c.send(b"SHUTDOWN NOSAVE\r\n")
                assert c.rest() == b""
                return
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.01)


@ours
def test_above_maxmemory_changes_that_need_memory_are_refused(start):
    with start(maxmemory="300kb").client() as c:
        refused = Error("OOM command not allowed when used memory > 'maxmemory'.")
        replies = [c("SET", f"k{n}", "v" * 1000) for n in range(500)]
        assert replies[0] == OK and replies[-1] == refused and 100 < replies.count(OK) < 400
        assert c("GET", "k0") == b"v" * 1000
        assert c("FLUSHALL") == OK
        assert c("SET", "k", "v") == OK


@ours
@pytest.mark.parametrize("options, said", [
    (["--dbfilename", "x", "--appendfilename", "x"], "x: dbfilename and appendfilename cannot be the same"),
    (["--logfile", "/no/such/folder/x"], "The log file /no/such/folder/x cannot be written: No such file or directory"),
])
def test_files_that_cannot_be(tmp_path, options, said):
    done = subprocess.run([ECHOVAULT, "--port", str(free_port()), *options], cwd=tmp_path, capture_output=True, text=True,
                          timeout=20)
    assert done.returncode == 1 and said in done.stderr
