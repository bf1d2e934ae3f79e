"""What idle connections cost: python3 tests/bench/connections.py [--idle 100000] [--few 1000] [--rounds 7]

Two servers, one with few idle connections and one with many, from several 127.x addresses, since one has no more than 28,000
ports. Each connection has set and read a value of 1,000 bytes before it went idle. Counted is what the server's own memory grew
by for each, and beside it what the machine's available memory fell by, both processes' own memory taken off: the kernel's part,
which has both ends of each connection in it. Then 50 active clients (load.c) ask either server in turn at one rate, and what
their requests waited is compared, by the median of the rounds. Needs root, or a limit of descriptors above --idle.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from ev import Server, encode  # noqa: E402
from rig import BUILD, available_memory, build_programs  # noqa: E402

PORTS = 20_000  # of one address


def own_memory(pid):
    """Resident bytes, exactly."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Rss:\s+(\d+)", text)[1]) * 1024


def connect(server, n):
    """So many connections that have worked a little."""
    value = "v" * 1000
    ask, answer = encode("SET", "k", value) + encode("GET", "k"), b"+OK\r\n$1000\r\n%s\r\n" % value.encode()
    sockets = []
    for i in range(n):
        s = socket.socket()
        s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect()
        s.bind((f"127.0.0.{2 + i // PORTS}", 0))
        s.connect(("127.0.0.1", server.port))
        s.sendall(ask)
        got = 0
        while got < len(answer):
            got += len(s.recv(len(answer)))
        sockets.append(s)
    return sockets


def costs(server, n):
    """(connections, the server's bytes for each, the kernel's)."""
    with contextlib.ExitStack() as first:
        for s in connect(server, 100):  # what is there once
            first.enter_context(s)
        time.sleep(1)
        before, free, mine = own_memory(server.pid), available_memory(), own_memory(os.getpid())
        sockets = connect(server, n)
        time.sleep(1)
        grown, own = own_memory(server.pid) - before, own_memory(os.getpid()) - mine
        kernel = free - available_memory() - grown - own
    return sockets, grown / n, kernel / n


def waits(server, rate, seconds):
    """Percentiles of what requests waited, us."""
    command = [str(BUILD / "load"), str(server.port), "get", "-c", "50", "-R", str(rate), "-n", str(rate * seconds), "-r", "10000"]
    done = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["latency_us"]


def cpu_ns(server):
    with open(f"/proc/{server.pid}/schedstat") as f:
        return int(f.read().split()[0])


def upkeep(server, seconds=5):
    """us of CPU time a second while nobody asks."""
    before = cpu_ns(server)
    time.sleep(seconds)
    return (cpu_ns(server) - before) / seconds / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle", type=int, default=100_000)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    build_programs()
    need = options.idle + options.few + 1000
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, max(need, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    except (ValueError, PermissionError):
        sys.exit(f"connections: needs {need} descriptors, and may not have them: raise ulimit -Hn, or say a lower --idle")
    with Server(maxclients=need) as few, Server(maxclients=need) as many, contextlib.ExitStack() as idle:
        for server in few, many:
            os.sched_setaffinity(server.pid, [0])
            with server.client() as c:
                c.pipeline([("SET", f"key:{i:012}", "v" * 16) for i in range(10_000)])
        for server, n in (few, options.few), (many, options.idle):
            sockets, own, kernel = costs(server, n)
            for s in sockets:
                idle.enter_context(s)
            print(f"{n} idle connections: {own:.0f} bytes each of the server's, {kernel:.0f} of the kernel's for both ends", flush=True)
        for server, n in (few, options.few), (many, options.idle):
            print(f"beside {n} idle connections the server spends {upkeep(server):.0f} us a second when nobody asks")
        rounds = [[waits(server, options.rate, options.seconds) for server in (few, many)] for _ in range(options.rounds)]
        print("\n| waited, us | beside %d idle | beside %d idle |" % (options.few, options.idle))
        for label in (name for name in rounds[0][0] if name.startswith("p")):
            print(f"| {label} |", " | ".join(f"{statistics.median(r[i][label] for r in rounds):.0f}" for i in (0, 1)), "|")


if __name__ == "__main__":
    main()
