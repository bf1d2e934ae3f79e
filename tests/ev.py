"""What the tests share: server processes and a client that keeps the protocol's reply types apart.

ECHOVAULT_BIN names the server under test. Set to redis-server, the suite checks itself: what it asserts about
common behaviour must hold there too.
"""
import contextlib
import itertools
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_name = os.environ.get("ECHOVAULT_BIN") or os.path.join(ROOT, "echovault")
ECHOVAULT = os.path.abspath(shutil.which(_name) or _name)
IS_REDIS = os.path.basename(ECHOVAULT) == "redis-server"
SANITIZED = "san" in os.path.basename(ECHOVAULT)

# For tests of what EchoVault promises and redis-server does not.
ours = pytest.mark.skipif(IS_REDIS, reason="a promise of EchoVault's own")
# For tests of time and memory, which a sanitizer multiplies.
unsanitized = pytest.mark.skipif(SANITIZED, reason="measures what the sanitizer changes")

FAULTS = re.compile(r"Sanitizer|runtime error:|[Aa]ssertion|BUG REPORT")


def need(program):
    """The program's path; without it the test is skipped, or fails where nothing may be missing (CI)."""
    path = shutil.which(program)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    return path


# ---- replies -----------------------------------------------------------------------------------------------
# Bulk strings are bytes, integers int, arrays list. The other types have names of their own, so that a reply
# of the wrong type never equals the right one; a status compares with str.


class Status(str):
    def __repr__(self):
        return "+" + self


class Error(str):
    def __eq__(self, other):
        return isinstance(other, Error) and str.__eq__(self, other)

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__

    def __repr__(self):
        return f"Error({str(self)!r})"


class Null:
    def __init__(self, wire):
        self.wire = wire

    def __repr__(self):
        return f"Null({self.wire})"


NIL, NIL_ARRAY, NIL3 = Null("$-1"), Null("*-1"), Null("_")
OK, QUEUED, PONG = Status("OK"), Status("QUEUED"), Status("PONG")


class Verbatim(bytes):
    def __repr__(self):
        return "Verbatim" + bytes.__repr__(self)


class Set(list):
    def __repr__(self):
        return "Set" + list.__repr__(self)


class Push(list):
    def __repr__(self):
        return "Push" + list.__repr__(self)


class Double(float):
    def __repr__(self):
        return "Double" + float.__repr__(self)


class Map(dict):
    def __repr__(self):
        return "Map" + dict.__repr__(self)


def encode(*args):
    """A command as the array of bulk strings that clients send."""
    args = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


class Client:
    """One connection. Calling it sends a command and returns its reply."""

    def __init__(self, port, proto=2, timeout=20, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        if proto != 2:
            self("HELLO", proto)

    def __call__(self, *args):
        self.send(encode(*args))
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.input.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def pipeline(self, commands):
        """Sends all commands, reading replies meanwhile, and returns the replies."""

        def send():
            with contextlib.suppress(OSError):  # read() will tell
                self.send(b"".join(encode(*c) for c in commands))

        sender = threading.Thread(target=send)
        sender.start()
        replies = [self.read() for _ in commands]
        sender.join()
        return replies

    def transaction(self, *commands):
        """EXEC's reply for these commands."""
        replies = self.pipeline([("MULTI",), *commands, ("EXEC",)])
        assert replies[:-1] == [OK] + [QUEUED] * len(commands)
        return replies[-1]

    def read(self):
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed" if not line else f"cut off: {line!r}")
        kind, rest = line[:1], line[1:-2]
        if kind in b"+-":
            return {b"+": Status, b"-": Error}[kind](rest.decode("latin-1"))
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return NIL3
        if kind == b"#":
            return {b"t": True, b"f": False}[rest]
        if kind == b",":
            return Double(rest)
        n = int(rest)
        if kind in b"$=":
            return NIL if n < 0 else self._string(kind, n)
        if kind == b"*":
            return NIL_ARRAY if n < 0 else [self.read() for _ in range(n)]
        if kind == b"%":
            pairs = [(self.read(), self.read()) for _ in range(n)]
            return Map(pairs)
        return {b"~": Set, b">": Push}[kind](self.read() for _ in range(n))

    def _string(self, kind, n):
        data = self.input.read(n + 2)
        if len(data) < n + 2:
            raise ConnectionError(f"the server closed the connection within a string of {n} bytes")
        assert data[n:] == b"\r\n", f"a string of {n} bytes is not followed by CRLF"
        return data[:n] if kind == b"$" else Verbatim(data[4:n])

    def rest(self):
        """All that comes until the server closes the connection."""
        try:
            return self.input.read()
        except ConnectionResetError:
            return b""


# ---- processes ---------------------------------------------------------------------------------------------


WORKERS, PORTS = 8, 1500
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % WORKERS
port_numbers = itertools.count(random.randrange(PORTS))


def free_port():
    """A port below those that the kernel hands out to the connections of other tests, and from the worker's own share,
    each in turn: whoever answers on it is the server that is about to be started, and not another test's."""
    while True:
        port = 20000 + WORKER * PORTS + next(port_numbers) % PORTS
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def flags(options):
    """{"tcp_backlog": 3} as ["--tcp-backlog", "3"]; a list gives several words, None none at all."""
    words = []
    for name, value in options.items():
        if value is not None:
            words += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, list) else [value])]
    return words


class Server:
    """A server process on a free port, without persistence unless asked for, in a temporary folder.

    args stand before the options (a config file); files is what it may have open; folder outlives the server.
    """

    def __init__(self, *args, binary=None, folder=None, files=None, ready=True, **options):
        binary = binary or ECHOVAULT
        self.port = options.setdefault("port", free_port())
        options = {"appendonly": "no", "save": "", **options}
        if os.path.basename(binary) == "redis-server":
            options.setdefault("enable_debug_command", "yes")
        self.temporary = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="echovault-test-")
        self.log_path = os.path.join(self.folder, "output-%d.txt" % self.port)
        self.process = subprocess.Popen(
            [binary, *args, *flags(options)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=open(self.log_path, "ab"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"},
            preexec_fn=files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))),
        )
        self.pid = self.process.pid
        if ready:
            self.wait_ready()

    def wait_ready(self, seconds=60):
        """Until it answers PING."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, f"the server ended at its start:\n{self.output()}"
            try:
                with Client(self.port, timeout=seconds) as c:
                    if c("PING") in (PONG, Error("NOAUTH Authentication required.")):
                        return
            except OSError:
                pass
            time.sleep(0.001)
        raise AssertionError(f"no answer to PING:\n{self.output()}")

    def client(self, proto=2, **kw):
        return Client(self.port, proto, **kw)

    def output(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024

    def kill(self):
        """Ends it as kill -9 does."""
        self.process.kill()
        self.process.wait()

    def end(self, how=signal.SIGTERM):
        """Asks it to end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)

    def stop(self):
        """Ends it; fails when it had ended badly before, does so now, or reported a fault of its own."""
        try:
            if self.process.returncode != -signal.SIGKILL:
                assert self.end() == 0, f"the server ended with {self.process.returncode}:\n{self.output()[-4000:]}"
            fault = FAULTS.search(self.output())
            assert not fault, f"the server reported a fault:\n{self.output()[max(0, fault.start() - 500):][:8000]}"
        finally:
            self.process.kill()
            self.process.wait()
            if self.temporary:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def seconds(request, *args):
    """How long a call takes."""
    before = time.perf_counter()
    request(*args)
    return time.perf_counter() - before


def best(limit, measure):
    """What measure() gives; the best of five where it is not below the limit at once. A wait of the server's own
    making is there every time, one that other work on this machine causes is not."""
    results = [measure()]
    while results[-1] >= limit and len(results) < 5:
        results.append(measure())
    print("measured:", results)
    return min(results)


def eventually(check, seconds=10):
    """Waits until check() is true."""
    until = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)
    return result
