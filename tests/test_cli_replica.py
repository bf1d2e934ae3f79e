"""redis-cli as a follower: it fetches a snapshot (--rdb) and prints the stream of changes (--replica)."""
import os
import re
import select
import subprocess
import time

import pytest

from ev import OK, Server, eventually, need, ours
from persist_tools import state

pytestmark = ours


def fill(c):
    for command in [("SET", "a", "1"), ("SET", "binary", b"\0\r\n\xff" * 20000), ("SET", "ttl", "x", "PXAT", "99999999999999"),
                    ("SELECT", "3"), ("SET", "elsewhere", "y"), ("SELECT", "0")]:
        assert c(*command) == OK


@pytest.mark.parametrize("persistence", [{}, {"appendonly": "yes"}])
def test_rdb(start, tmp_path, persistence):
    server = start(**persistence)
    with server.client() as c:
        fill(c)
        whole = state(c)
        fetched = tmp_path / "fetched.rdb"
        done = subprocess.run([need("redis-cli"), "-p", str(server.port), "--rdb", str(fetched)],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "Transfer finished with success" in done.stdout + done.stderr
        check = subprocess.run([need("redis-check-rdb"), str(fetched)], capture_output=True, text=True)
        assert check.returncode == 0 and "RDB looks OK" in check.stdout
        assert c("PING") == "PONG"
    with Server(binary=need("redis-server"), folder=str(tmp_path), dbfilename="fetched.rdb") as r, r.client() as c:
        assert state(c) == whole
    assert fetched.stat().st_size > 20000


class Stream:
    """A redis-cli --replica whose lines are read as they come."""

    def __init__(self, port):
        self.process = subprocess.Popen([need("redis-cli"), "-p", str(port), "--replica"],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.shown = b""

    def until(self, pattern, seconds=20):
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            ready = select.select([self.process.stdout], [], [], until - time.monotonic())[0]
            assert ready and (data := os.read(self.process.stdout.fileno(), 65536)), f"waited in vain for {pattern}: {self.shown}"
            self.shown += data
        return found

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_replica(start):
    server = start()
    stream = Stream(server.port)
    try:
        with server.client() as c:
            fill(c)
            eventually(lambda: b"connected_slaves:1\r" in c("INFO", "replication"))
            stream.until(rb"SYNC done\. Logging commands from master")
            c("SET", "seen", "a b", "EX", "100")
            c("SELECT", "3")
            c.transaction(("INCR", "n"), ("APPEND", "elsewhere", "z"))
            c("DELIFEQ", "elsewhere", "yz")
            stream.until(rb'"SELECT","0"(?s:.*)"SET","seen","a b","PXAT","\d+"(?s:.*)"SELECT","3"')
            stream.until(rb'"MULTI"(?s:.*)"INCR","n"(?s:.*)"APPEND","elsewhere","z"(?s:.*)"EXEC"(?s:.*)"DEL","elsewhere"')
            stream.close()
            eventually(lambda: b"connected_slaves:0\r" in c("INFO", "replication"))
            assert c("GET", "n") == b"1"
    finally:
        stream.close()
