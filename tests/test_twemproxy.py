"""twemproxy (Debian's nutcracker) in front of three servers: a client sees one key space."""
import os
import subprocess

import pytest
import redis

from ev import NIL, OK, Client, free_port, need
from repl_tools import Node, wait_for

CONFIG = """
shards:
  listen: 127.0.0.1:{port}
  hash: murmur
  distribution: ketama
  redis: true
  timeout: 5000
  auto_eject_hosts: false
  servers:
{servers}
"""


class Proxy:
    """nutcracker on a free port. The shards have names, so that which key goes where does not depend on their ports."""

    def __init__(self, folder, servers):
        self.port = free_port()
        conf = folder / "nutcracker.yml"
        conf.write_text(CONFIG.format(port=self.port, servers="\n".join(
            f"   - 127.0.0.1:{s.port}:1 shard{i}" for i, s in enumerate(servers))))
        self.process = subprocess.Popen([need("nutcracker"), "-c", conf, "-o", folder / "log", "-s", str(free_port()), "-a", "127.0.0.1"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.answers, tell=lambda: (folder / "log").read_text())

    def answers(self):
        assert self.process.poll() is None
        try:
            with self.client() as c:
                return c("GET", "x") is NIL
        except OSError:
            return False

    def client(self):
        return Client(self.port)

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def shards():
    servers = [Node(appendonly="no") for _ in range(3)]
    yield servers
    for s in servers:
        s.stop()


@pytest.fixture(scope="module")
def proxy(shards, tmp_path_factory):
    proxy = Proxy(tmp_path_factory.mktemp("proxy"), shards)
    yield proxy
    proxy.stop()


@pytest.fixture
def c(shards, proxy):
    for s in shards:
        s("FLUSHALL")
    with proxy.client() as c:
        yield c


def sizes(shards):
    return [s("DBSIZE") for s in shards]


def test_one_key_space_over_all_shards(c, shards):
    n = 600
    values = {f"key:{i}": f"value {i}".encode() for i in range(n)}
    assert c.pipeline([("SET", k, v) for k, v in values.items()]) == [OK] * n
    assert min(sizes(shards)) > n // 10 and sum(sizes(shards)) == n, "every shard has its part"
    assert c.pipeline([("GET", k) for k in values]) == list(values.values())
    for s in shards:
        for key in s("KEYS", "*"):
            assert s("GET", key) == values[key.decode()]


def test_several_keys_of_several_shards(c, shards):
    keys = [f"k{i}" for i in range(200)]
    assert c("MSET", *(w for k in keys for w in (k, k.upper()))) == OK
    assert min(sizes(shards)) > 0
    assert c("MGET", *keys, "nothing") == [k.upper().encode() for k in keys] + [NIL]
    assert c("MGET", *reversed(keys)) == [k.upper().encode() for k in reversed(keys)]
    assert c("DEL", *keys[:150], "nothing") == 150
    assert c("EXISTS", keys[160]) == 1 and c("EXISTS", keys[0]) == 0
    assert sum(sizes(shards)) == 50


def test_commands_of_one_key(c):
    assert c("SET", "s", "10", "EX", 100) == OK and 0 < c("TTL", "s") <= 100
    assert c("INCRBY", "s", 5) == 15 and c("APPEND", "s", "0") == 3 and c("GETRANGE", "s", 0, 1) == b"15"
    assert c("SETEX", "t", 100, "v") == OK and c("PERSIST", "t") == 1 and c("TTL", "t") == -1
    assert c("SETNX", "t", "w") == 0 and c("GETSET", "t", "w") == b"v" and c("STRLEN", "t") == 1
    assert c("SETBIT", "bits", 7, 1) == 0 and c("BITCOUNT", "bits") == 1 and c("TYPE", "bits") == "string"
    payload = c("DUMP", "t")
    assert c("RESTORE", "u", 0, payload) == OK and c("GET", "u") == b"w"
    assert c("PING") == "PONG"


def test_a_long_pipeline_answers_in_order(c):
    commands = []
    for i in range(3000):
        commands += [("SET", f"n{i % 97}", i), ("GET", f"n{i % 97}"), ("INCR", f"count{i % 13}")]
    replies = c.pipeline(commands)
    assert replies[1::3] == [b"%d" % i for i in range(3000)]
    assert replies[2::3] == [i // 13 + 1 for i in range(3000)]


def test_bytes_of_all_kinds_and_sizes(c):
    for n in (0, 1, 100, 16000, 200000, 1 << 20):
        value = os.urandom(n)
        key = b"k\xff\0\r\n%d" % n
        assert c("SET", key, value) == OK
        assert c("GET", key) == value


def test_a_client_library(c, proxy):
    r = redis.Redis(port=proxy.port)
    with r.pipeline(transaction=False) as p:
        for i in range(100):
            p.set(f"lib:{i}", i)
        assert p.execute() == [True] * 100
    assert r.mget([f"lib:{i}" for i in range(100)]) == [b"%d" % i for i in range(100)]
    r.close()


def test_a_shard_that_ends_and_returns(c, shards, proxy):
    """Its keys are missed meanwhile, the others' are not."""
    keys = [f"key:{i}" for i in range(100)]
    assert c.pipeline([("SET", k, "v") for k in keys]) == [OK] * 100
    down = shards[0]
    lost = {k.decode() for k in down("KEYS", "*")}
    assert 10 < len(lost) < 90
    down.kill()
    try:
        for k in keys:
            with proxy.client() as other:
                reply = other("GET", k)
            assert (reply == b"v") == (k not in lost), (k, reply)
    finally:
        down.start_again()
    key = min(lost)
    wait_for(lambda: c("SET", key, "anew") == OK)
    assert c("GET", key) == b"anew"
