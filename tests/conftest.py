"""The fixtures: c, other and c3 are connections to one server a test module, whose keyspace each test finds empty."""
import contextlib
import os
import subprocess
import tempfile

import pytest

from ev import Server, need
from repl_tools import Node, Relay


@pytest.fixture(scope="module")
def server():
    with Server() as s:
        yield s


@pytest.fixture
def c(server):
    with server.client() as client:
        client("FLUSHALL")
        yield client


@pytest.fixture
def other(server, c):
    """A second connection beside c."""
    with server.client() as client:
        yield client


@pytest.fixture
def c3(server, c):
    """A connection that speaks RESP3."""
    with server.client(proto=3) as client:
        yield client


@pytest.fixture(scope="session")
def oracle():
    """The redis-server whose replies are the right ones."""
    with Server(binary=need("redis-server")) as s:
        yield s


@pytest.fixture
def start():
    """Starts servers with options of the test's own; stops them after it."""
    servers = []

    def start_one(*args, **options):
        servers.append(Server(*args, **options))
        return servers[-1]

    yield start_one
    for s in servers:
        s.stop()


@pytest.fixture
def node():
    """Starts servers of either kind; see repl_tools.Node."""
    with contextlib.ExitStack() as nodes:
        yield lambda *args, **options: nodes.enter_context(Node(*args, **options))


@pytest.fixture
def relay():
    """Starts relays in front of servers; see repl_tools.Relay."""
    with contextlib.ExitStack() as relays:
        yield lambda server, **options: relays.enter_context(Relay(server.port, **options))


@pytest.fixture
def small_disk():
    """A folder with room for 2 MiB."""
    folder = tempfile.mkdtemp(prefix="echovault-small-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        os.rmdir(folder)
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder])
    os.rmdir(folder)
