"""Several hosts: network namespaces joined by a switch, partitions between leader and followers, and their healing."""
import contextlib
import ctypes
import os
import subprocess
import threading

import pytest

from ev import OK, Error, need
from repl_tools import KINDS, OUR_PAIRS, OURS, Node, contents, fill, groups, linked, wait_for, wait_online, wait_same, wait_sync

CLONE_NEWNET = 0x40000000
OPEN = {"bind": "0.0.0.0", "protected_mode": "no", "repl_timeout": 2, "repl_ping_replica_period": 1}


def ip(*args, check=True):
    return subprocess.run(["ip", *args], check=check, capture_output=True, text=True)


def inside(host, f, *args, **kw):
    """f's result, from a thread that stands in the host's network; what it opens and starts stays there."""
    result, error = [], []

    def run():
        try:
            with open(f"/run/netns/{host}") as ns:
                if ctypes.CDLL(None, use_errno=True).setns(ns.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            result.append(f(*args, **kw))
        except BaseException as e:
            error.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


class Host(Node):
    """A server on a host of its own."""

    def __init__(self, host, address, kind, **options):
        self.host, self.address = host, address
        super().__init__(kind, **{**OPEN, **options})

    @classmethod
    def on(cls, host, address, kind, follow=None, **options):
        if follow:
            options["replicaof"] = [follow.address, follow.port]
        return inside(host, cls, host, address, kind, **options)

    def client(self, *args, **kw):
        return inside(self.host, super().client, *args, **kw)


class Network:
    """Hosts at a switch. A host's cable can be pulled and put in again: nobody is told, packets are just lost."""

    def __init__(self):
        self.name = f"ev{os.getpid()}"
        self.hosts = []

    def build(self, stack, n):
        for host in [f"{self.name}sw", *(f"{self.name}h{i}" for i in range(n))]:
            ip("netns", "add", host)
            stack.callback(ip, "netns", "del", host, check=False)
        ip("-n", f"{self.name}sw", "link", "add", "br0", "type", "bridge")
        ip("-n", f"{self.name}sw", "link", "set", "br0", "up")
        for i in range(n):
            host = f"{self.name}h{i}"
            ip("-n", f"{self.name}sw", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", f"{self.name}sw", "link", "set", f"port{i}", "master", "br0", "up")
            ip("-n", host, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", host, "link", "set", device, "up")
            self.hosts.append((host, f"10.77.0.{i + 1}"))
        return self

    def pull(self, i):
        ip("-n", f"{self.name}sw", "link", "set", f"port{i}", "down")

    def put_in(self, i):
        ip("-n", f"{self.name}sw", "link", "set", f"port{i}", "up")


@pytest.fixture(scope="module")
def network():
    need("ip")
    with contextlib.ExitStack() as stack:
        try:
            yield Network().build(stack, 3)
        except subprocess.CalledProcessError as e:
            pytest.skip(f"network namespaces are not permitted here: {e.stderr.strip()}")


@pytest.fixture
def host(network):
    """Starts a server on the host of this number."""
    with contextlib.ExitStack() as stack:
        yield lambda i, kind, **options: stack.enter_context(Host.on(*network.hosts[i], kind, **options))
        for i in range(len(network.hosts)):
            network.put_in(i)


@pytest.mark.parametrize("kinds", groups((OURS, OURS, OURS), (OURS, OURS, "redis"), ("redis", OURS, "redis")))
def test_a_partition_and_its_healing(network, host, kinds):
    a = host(0, kinds[0])
    b = host(1, kinds[1], follow=a)
    c = host(2, kinds[2], follow=a)
    wait_sync(a, b, c)
    fill(a, 20)
    wait_same(a, b, c)
    wait_online(a, 2)
    assert sorted(f[0] for f in a("ROLE")[2]) == [b"10.77.0.2", b"10.77.0.3"], "the leader sees their addresses"
    network.pull(1)
    fill(a, 25, "meanwhile")
    wait_for(lambda: a.fact("connected_slaves") == 1)
    wait_for(lambda: not linked(b))
    wait_same(a, c)
    assert b("GET", "key:1") == b"v1"
    with a.client() as writer:
        assert writer("SET", "k", "v") == OK and writer("WAIT", 2, 200) == 1
    network.put_in(1)
    wait_same(a, b, c)
    full, partial = a.syncs()
    assert full == 2 and partial >= 1


@pytest.mark.parametrize("kinds", OUR_PAIRS)
def test_a_short_partition_is_not_noticed(network, host, kinds):
    a = host(0, kinds[0], repl_timeout=20)
    b = host(1, kinds[1], follow=a, repl_timeout=20)
    wait_sync(a, b)
    network.pull(1)
    fill(a, 10)
    network.put_in(1)
    wait_same(a, b)
    assert a.syncs() == (1, 0)


@pytest.mark.parametrize("kind", KINDS[:1])
def test_a_leader_cut_off_from_all_its_followers_takes_no_writes(network, host, kind):
    """min-replicas-to-write bounds what a leader on the wrong side of a partition accepts; then it gives that up."""
    a = host(0, kind, min_replicas_to_write=1, min_replicas_max_lag=1)
    b = host(1, kind, follow=a)
    c = host(2, kind, follow=a)
    wait_sync(a, b, c)
    wait_for(lambda: a("SET", "k", "v") == OK)
    wait_same(a, b, c)
    network.pull(0)
    accepted = 0
    while (reply := a("INCR", "lost")) == accepted + 1:
        accepted += 1
    assert reply == Error("NOREPLICAS Not enough good replicas to write.")
    assert b("REPLICAOF", "NO", "ONE") == OK
    c("REPLICAOF", b.address, b.port)
    b("SET", "kept", "x")
    wait_same(b, c)
    assert b.syncs() == (0, 1)
    network.put_in(0)
    a("REPLICAOF", b.address, b.port)
    wait_same(b, a)
    assert (0, b"lost") not in contents(a) and (0, b"kept") in contents(a)
