"""How many instructions a command costs: python3 tests/bench/instructions.py [BINARY ...]

Counted by valgrind's callgrind in the server's process, so that the figures are the same on a busy machine: for SET and
GET of 1,000 keys with values of 16 bytes, by one client that sends 1, 16 and 64 commands at a time. What the start costs
is taken off by counting two runs of different lengths. Given several binaries, say of before and after a change, their
figures stand side by side. What the kernel does for the system calls is not counted.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from ev import ECHOVAULT, Client, encode, eventually, free_port  # noqa: E402

KEYS = 1000
ROUNDS = 2000, 12_000


def connected(port):
    try:
        return Client(port)
    except OSError:
        return None


def instructions(binary, op, pipeline, rounds):
    """All that a server executes in its life, in which it serves so many pipelines."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, "--port", str(port), "--dir", folder,
             "--appendonly", "no", "--save", ""],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with eventually(lambda: connected(port), 60) as client:
            client.pipeline([("SET", f"key:{i:012}", "x" * 16) for i in range(KEYS)])
            tails = ["x" * 16] if op == "SET" else []
            commands = [encode(op, f"key:{i * 7919 % KEYS:012}", *tails) for i in range(KEYS)]
            reply = len(b"+OK\r\n" if op == "SET" else b"$16\r\n0123456789abcdef\r\n")
            for i in range(rounds):
                client.send(b"".join(commands[(i * pipeline + k) % KEYS] for k in range(pipeline)))
                client.input.read(reply * pipeline)
        server.send_signal(signal.SIGTERM)
        return int(re.search(r"Collected : (\d+)", server.communicate()[1])[1])


def main():
    binaries = sys.argv[1:] or [ECHOVAULT]
    print("| commands in a pipeline | op |", " | ".join(binaries), "|")
    for op in "GET", "SET":
        for pipeline in 1, 16, 64:
            short, long = (max(64, n // pipeline) for n in ROUNDS)
            costs = [(instructions(b, op, pipeline, long) - instructions(b, op, pipeline, short)) / (long - short) / pipeline
                     for b in binaries]
            print(f"| {pipeline} | {op} |", " | ".join(f"{cost:.0f}" for cost in costs), "|", flush=True)


if __name__ == "__main__":
    main()
