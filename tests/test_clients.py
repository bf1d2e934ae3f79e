"""The clients people use: redis-cli, redis-py, redis-benchmark, netcat."""
import os
import pty
import re
import select
import subprocess
import time

import pytest
import redis

from ev import SANITIZED, encode, need


def cli(server, *args, stdin=""):
    """What redis-cli prints."""
    done = subprocess.run(
        [need("redis-cli"), "-p", str(server.port), *args], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- redis-cli ---------------------------------------------------------------------------------------------


def test_redis_cli_one_command(server, c):
    assert cli(server, "SET", "k", "v") == "OK\n"
    assert cli(server, "GET", "k") == "v\n"
    assert cli(server, "-3", "--no-raw", "MGET", "k", "x") == '1) "v"\n2) (nil)\n'


def test_redis_cli_piped(server, c):
    assert cli(server, stdin='SET k "a b"\nINCR n\nGET k\nNOSUCH\n') == (
        "OK\n1\na b\nERR unknown command 'NOSUCH', with args beginning with: \n\n"
    )


def test_redis_cli_database_and_value_from_stdin(server, c):
    assert cli(server, "-n", "3", "-x", "SET", "k", stdin="from stdin") == "OK\n"
    assert cli(server, "-n", "3", "GET", "k") == "from stdin\n"


def test_redis_cli_repeats(server, c):
    assert cli(server, "-r", "5", "INCR", "n") == "1\n2\n3\n4\n5\n"


def test_redis_cli_mass_insertion(server, c):
    said = cli(server, "--pipe", stdin="".join(f"SET key:{i} value:{i}\r\n" for i in range(50000)))
    assert "errors: 0, replies: 50000" in said
    assert c("DBSIZE") == 50000
    assert c("GET", "key:49999") == b"value:49999"


def test_redis_cli_looks_at_the_keyspace(server, c):
    c.pipeline([("SET", f"key:{i}", "v" * i) for i in range(300)])
    assert "Sampled 300 keys" in cli(server, "--bigkeys")
    assert sorted(cli(server, "--scan", "--pattern", "key:1?").split()) == [f"key:1{i}" for i in range(10)]


class Terminal:
    """redis-cli as a person sees it."""

    def __init__(self, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="dumb", HOME="/nonexistent")
            os.execv(argv[0], argv)

    def until(self, pattern):
        """All that is shown up to the first match."""
        shown = ""
        while not re.search(pattern, shown):
            assert select.select([self.fd], [], [], 20)[0], f"waited in vain for {pattern!r}:\n{shown}"
            shown += os.read(self.fd, 65536).decode()
        return shown

    def close(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def test_redis_cli_interactive(server, c):
    terminal = Terminal(need("redis-cli"), "-p", str(server.port))
    prompt = rf"127\.0\.0\.1:{server.port}(\[\d+\])?(\(TX\))?> $"
    terminal.until(prompt)
    for line, answer in [
        ("SET greeting hello", "OK"),
        ("GET greeting", '"hello"'),
        ("INCR greeting", r"\(error\) ERR value is not an integer or out of range"),
        ("HELLO 3", '1# "server" => "redis"'),
        ("GET missing", r"\(nil\)"),
        ("MULTI", "OK"),
        ("INCR n", "QUEUED"),
        ("EXEC", r"1\) \(integer\) 1"),
        ("SELECT 2", "OK"),
        ("DBSIZE", r"\(integer\) 0"),
    ]:
        os.write(terminal.fd, line.encode() + b"\n")
        assert re.search(answer, terminal.until(prompt)), line
    os.write(terminal.fd, b"QUIT\n")
    terminal.close()


# ---- redis-py ----------------------------------------------------------------------------------------------


@pytest.fixture
def r(server, c):
    with redis.Redis(port=server.port, client_name="tests", health_check_interval=1) as client:
        yield client


def test_redis_py_strings(r):
    assert r.set("k", "v", ex=100, nx=True) is True
    assert r.set("k", "w", nx=True) is None
    assert r.set("k", "w", keepttl=True, get=True) == b"v"
    assert r.ttl("k") == 100
    assert r.getex("k", persist=True) == b"w"
    assert r.mset({"a": 1, "b": b"\0\xff"}) is True
    assert r.mget("a", "b", "c") == [b"1", b"\0\xff", None]
    assert r.incrbyfloat("a", 1.5) == 2.5
    assert r.execute_command("LCS", "a", "b") == b""
    assert r.bitfield("bits").set("u8", "#1", 7).get("u8", 8).execute() == [0, 7]
    with pytest.raises(redis.ResponseError, match="^value is not an integer or out of range$"):
        r.incr("b")


def test_redis_py_keys(r):
    r.mset({f"k{i}": i for i in range(1000)})
    assert sorted(r.scan_iter(match="k*", count=100)) == sorted(b"k%d" % i for i in range(1000))
    assert len(r.keys("k1*")) == 111
    assert r.rename("k1", "renamed") is True
    assert r.copy("renamed", "copied") is True
    assert r.pexpireat("renamed", 33177117420000) is True
    assert r.execute_command("EXPIRETIME", "renamed") == 33177117420
    assert r.restore("restored", 0, r.dump("copied")) == b"OK"
    assert r.delete("renamed", "copied", "nothing") == 2
    assert r.flushall() is True


def test_redis_py_pipelines_and_transactions(r):
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"k{i}", i).get(f"k{i}")
        assert pipe.execute()[1::2] == [b"%d" % i for i in range(1000)]

    def double(pipe):
        value = int(pipe.get("k21"))
        pipe.multi()
        pipe.set("k21", value * 2)

    assert r.transaction(double, "k21") == [True]
    assert r.get("k21") == b"42"
    with r.pipeline() as pipe:
        pipe.watch("k21")
        r.set("k21", 0)
        pipe.multi()
        pipe.get("k21")
        with pytest.raises(redis.WatchError):
            pipe.execute()


def test_redis_py_reads_the_servers_facts(r):
    info = r.info()
    assert info["redis_version"] == "7.0.15"
    assert info["connected_clients"] >= 1
    assert r.info("keyspace") == {}
    r.set("k", "v")
    assert r.info("keyspace")["db0"]["keys"] == 1
    assert r.config_get("max*")["maxclients"] == "10000"
    assert r.client_getname() == "tests"
    assert any(client["name"] == "tests" and client["cmd"] == "client|list" for client in r.client_list())
    assert r.command_count() >= 80
    assert r.command()["get"]["arity"] == 2
    assert abs(r.time()[0] - time.time()) < 5
    assert r.ping() is True and r.echo("x") == b"x"


def test_redis_py_with_a_password(server, c):
    c("CONFIG", "SET", "requirepass", "secret")
    try:
        with redis.Redis(port=server.port, password="secret", db=5) as r:
            assert r.set("k", "v") and r.get("k") == b"v"
        with redis.Redis(port=server.port, username="default", password="wrong") as r:
            with pytest.raises(redis.ResponseError, match="^WRONGPASS"):
                r.ping()
        with redis.Redis(port=server.port) as r, pytest.raises(redis.AuthenticationError):
            r.ping()
    finally:
        c("AUTH", "secret")
        c("CONFIG", "SET", "requirepass", "")


# ---- redis-benchmark and netcat ----------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["1", "16", "100"])
def test_redis_benchmark(server, c, depth):
    requests = 2000 if SANITIZED else 20000
    c("CONFIG", "RESETSTAT")
    done = subprocess.run(
        [need("redis-benchmark"), "-p", str(server.port), "-t", "ping,set,get,incr,mset", "-n", str(requests),
         "-P", depth, "-r", "1000", "--csv"],
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0
    assert "WARN" not in done.stdout + done.stderr
    tests = [line.split(",")[0] for line in done.stdout.splitlines()[1:]]
    assert tests == ['"PING_INLINE"', '"PING_MBULK"', '"SET"', '"GET"', '"INCR"', '"MSET (10 keys)"']
    assert int(c("INFO", "stats").split(b"total_error_replies:")[1].split()[0]) == 0


def test_netcat(server, c):
    said = subprocess.run(
        [need("nc"), "-N", "127.0.0.1", str(server.port)],
        input=b"SET k \"a b\"\nGET k\n" + encode("STRLEN", "k") + b"QUIT\n", capture_output=True, timeout=20,
    )
    assert said.stdout == b"+OK\r\n$3\r\na b\r\n:3\r\n+OK\r\n"
