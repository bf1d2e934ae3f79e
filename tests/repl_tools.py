"""What the tests of replication share: servers of either kind that follow each other, waiting until they are in sync,
comparing them, a relay that mistreats the link, and random writers."""
import contextlib
import functools
import os
import random
import re
import socket
import struct
import threading
import time

import grammar
from ev import ECHOVAULT, IS_REDIS, OK, Client, Error, Server, encode, need

OURS, REDIS = "echovault", "redis"
KINDS = [REDIS] if IS_REDIS else [OURS, REDIS]


def groups(*kinds):
    """For parametrize: these groups of kinds; where redis-server is under test, it alone plays all roles."""
    return sorted({(REDIS,) * len(group) for group in kinds}) if IS_REDIS else list(kinds)


# (leader, follower): all pairings, and those in which EchoVault has the part that a test is about.
PAIRS = groups((OURS, OURS), (OURS, REDIS), (REDIS, OURS), (REDIS, REDIS))
OUR_LEADERS = groups((OURS, OURS), (OURS, REDIS))
OUR_FOLLOWERS = groups((OURS, OURS), (REDIS, OURS))
OUR_PAIRS = groups((OURS, OURS), (OURS, REDIS), (REDIS, OURS))

# Options that only one kind has, and what the tests want of each.
ONLY_REDIS = {"repl_diskless_sync", "repl_diskless_sync_delay", "repl_diskless_load", "shutdown_timeout"}
DEFAULTS = {
    OURS: {"appendonly": "yes", "repl_backlog_size": "16mb"},
    REDIS: {"repl_diskless_sync_delay": 0, "repl_backlog_size": "16mb", "shutdown_timeout": 0},
}
UNAVAILABLE = re.compile(r"(NOAUTH|LOADING|MASTERDOWN) ")


def address(node):
    """The words of REPLICAOF for a server or a relay."""
    return "127.0.0.1", node.port


class Node(Server):
    """A server of either kind that can be ended and started again on its files and port. Calling it sends one command
    on a connection of its own. follow is a server, or a relay in front of one; conf is a config file."""

    def __init__(self, kind=OURS, follow=None, conf=None, **options):
        if IS_REDIS:
            kind = REDIS
        self.kind, self.conf = kind, [conf] if conf else []
        self.options = {**DEFAULTS[kind], **options}
        if kind == OURS:
            self.options = {name: value for name, value in self.options.items() if name not in ONLY_REDIS}
        if follow:
            self.options["replicaof"] = list(address(follow))
        self.password = options.get("requirepass")
        super().__init__(*self.conf, binary=need("redis-server") if kind == REDIS else ECHOVAULT, **self.options)

    def start_again(self, ready=True, **changes):
        """After kill(), end() or leave(): a new life on the same files; None takes an option away."""
        temporary = self.temporary
        self.options.update(changes)
        super().__init__(*self.conf, binary=self.process.args[0], folder=self.folder, ready=ready,
                         **{**self.options, "port": self.port})
        self.temporary = temporary

    def leave(self):
        """A clean end that keeps the data: redis-server, which has no log here, is told to save it."""
        if self.kind == REDIS:
            with self.client() as c, contextlib.suppress(ConnectionError):
                c("SHUTDOWN", "SAVE", "NOW")
        assert self.end() == 0

    def lose_files(self):
        """The data files are gone."""
        for name in os.listdir(self.folder):
            if name.endswith((".rdb", ".aof")):
                os.unlink(os.path.join(self.folder, name))

    def wait_ready(self, seconds=60):
        """Until it answers, even if it has nothing to serve yet."""
        until = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, f"the server ended at its start:\n{self.output()}"
            with contextlib.suppress(OSError), Client(self.port, timeout=seconds) as c:
                reply = c("PING")
                if reply == "PONG" or UNAVAILABLE.match(reply) and not reply.startswith("LOADING"):
                    return
            assert time.monotonic() < until, f"no answer to PING:\n{self.output()}"
            time.sleep(0.001)

    def client(self, proto=2, **kw):
        c = super().client(**kw)
        if self.password:
            c("AUTH", self.password)
        if proto != 2:
            c("HELLO", proto)
        return c

    def __call__(self, *args):
        with self.client() as c:
            return c(*args)

    def pipeline(self, commands):
        with self.client() as c:
            return c.pipeline(commands)

    def follow(self, node):
        assert self("REPLICAOF", *address(node)) in (OK, "OK Already connected to specified master")

    def facts(self, section="everything"):
        """INFO as a dict of texts in its order."""
        lines = self("INFO", section).decode("latin-1").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")

    def fact(self, name):
        value = self.facts()[name]
        return int(value) if re.fullmatch(r"-?\d+", value) else value

    def syncs(self):
        """How many full resyncs and how many partial ones it gave."""
        facts = self.facts("stats")
        return int(facts["sync_full"]), int(facts["sync_partial_ok"])


# ---- waiting and comparing -----------------------------------------------------------------------------------


def wait_for(check, seconds=30, tell=lambda: ""):
    """Until check() is true, which is returned; a failure says what tell() gives."""
    until = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < until, f"waited in vain. {tell()}"
        time.sleep(0.005)
    return result


def linked(follower):
    return follower.facts("replication").get("master_link_status") == "up"


def replication_of(*nodes):
    """For a failure's text."""
    return "".join(f"\n{n.kind} {n.port}: {n.facts('replication')}\n{n.output()[-1500:]}" for n in nodes)


def in_sync(leader, follower):
    """The follower's link is up, and it stands where its leader stands in the same history."""
    mine, right = follower.facts("replication"), leader.facts("replication")
    return (
        mine.get("master_link_status") == "up"
        and mine["master_replid"] == right["master_replid"]
        and mine["slave_repl_offset"] == mine["master_repl_offset"] == right["master_repl_offset"]
    )


def wait_sync(leader, *followers, seconds=30):
    for f in followers:
        wait_for(lambda f=f: in_sync(leader, f), seconds, lambda f=f: replication_of(leader, f))


def wait_online(leader, n=1):
    """Until so many followers get the stream, and not only are there."""
    wait_for(lambda: leader("INFO", "replication").count(b"state=online") == n, tell=lambda: replication_of(leader))


def contents(node):
    """All keys of all databases with their values and deadlines."""
    found = {}
    with node.client() as c:
        for db in re.findall(rb"^db(\d+):", c("INFO", "keyspace"), re.M):
            c("SELECT", db)
            keys = c("KEYS", "*")
            replies = iter(c.pipeline([(name, key) for key in keys for name in ("GET", "PEXPIRETIME")]))
            found.update(((int(db), key), (next(replies), next(replies))) for key in keys)
    return found


def difference(mine, right):
    keys = sorted(k for k in mine.keys() | right.keys() if mine.get(k) != right.get(k))
    return f"{len(keys)} keys differ: " + repr([(k, mine.get(k), right.get(k)) for k in keys[:5]])[:2000]


def wait_same(leader, *followers, seconds=30):
    """Until the followers are in sync and hold what the leader holds: keys, values, deadlines. Keys that expire
    meanwhile, and their DELs, are the reason why this waits rather than looks once."""

    def same(f):
        return (
            in_sync(leader, f) and leader("DEBUG", "DIGEST") == f("DEBUG", "DIGEST") and contents(leader) == contents(f)
        )

    for f in followers:
        wait_for(lambda f=f: same(f), seconds,
                 lambda f=f: difference(contents(f), contents(leader)) + replication_of(leader, f))


# ---- data sets -----------------------------------------------------------------------------------------------


def fill(node, n=300, mark="v"):
    """Keys in several databases: numbers, bytes of all values, deadlines, an empty one, one of a megabyte."""
    with node.client() as c:
        for db in (0, 3, 15):
            c("SELECT", db)
            c.pipeline([("SET", f"key:{i}", f"{mark}{i}" * (i % 40)) for i in range(n)])
            c.pipeline([("SET", f"due:{i}", i, "PXAT", grammar.FAR + i) for i in range(n // 3)])
            c("SET", b"\0\r\n\xff", bytes(range(256)))
            c("SET", "", "")
        c("SET", "big", os.urandom(1 << 20))


# ---- the relay -----------------------------------------------------------------------------------------------


class Relay:
    """A TCP relay in front of a server: the network on a good day, or on any other.

    stall() holds all bytes back until flow(); cut() ends all connections, and down() keeps them out until up().
    piece: pass on at most so many bytes at once (a random number of them). after(n, relay.cut): call this when n more
    bytes went from the server to its clients, and pass no more of what was read with them.
    """

    def __init__(self, port, piece=None):
        self.target, self.piece = port, piece
        self.flowing = threading.Event()
        self.flowing.set()
        self.let_in = True
        self.budget = self.then = None
        self.lock = threading.Lock()
        self.sockets = []
        self.passed = 0  # bytes from the server
        self.accepted = 0
        self.rng = random.Random()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self):
        self.flowing.clear()

    def flow(self):
        self.flowing.set()

    def after(self, n, then):
        with self.lock:
            self.budget, self.then = n, then

    def cut(self, reset=False):
        with self.lock:
            for s in self.sockets:
                with contextlib.suppress(OSError):
                    if reset:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.shutdown(socket.SHUT_RDWR)
            self.sockets.clear()

    def down(self):
        self.let_in = False
        self.cut()

    def up(self):
        self.let_in = True

    def close(self):
        self.down()
        self.flow()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while True:
            try:
                inner = self.listener.accept()[0]
            except OSError:
                return
            try:
                if not self.let_in:
                    raise OSError("down")
                outer = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                inner.close()
                continue
            outer.settimeout(None)
            self.accepted += 1
            for s in (inner, outer):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.sockets += [inner, outer]
            ends = threading.Barrier(2)
            for pair in ((outer, inner, True), (inner, outer, False)):
                threading.Thread(target=self._pump, args=(*pair, ends), daemon=True).start()
            if not self.let_in:
                self.cut()

    def _pump(self, source, to, from_server, ends):
        with contextlib.suppress(OSError):
            while data := source.recv(self.rng.randint(1, self.piece) if self.piece else 65536):
                self.flowing.wait()
                if from_server:
                    now, data, then = self._spend(data)
                    to.sendall(now)
                    then()
                    self.flowing.wait()
                to.sendall(data)
        for s in (source, to):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        ends.wait()  # a descriptor is closed when neither thread uses it any more
        with self.lock, contextlib.suppress(ValueError):
            self.sockets.remove(source)
        source.close()

    def _spend(self, data):
        """What may still pass, the rest, and what is to be done between them."""
        with self.lock:
            n = len(data) if self.budget is None else min(self.budget, len(data))
            then = self.then if n == self.budget else lambda: None
            self.budget = None if self.budget in (None, n) else self.budget - n
            self.passed += n
        return data[:n], data[n:], then


# ---- random writers ------------------------------------------------------------------------------------------

# Commands of the grammar that say nothing to a follower, or too much.
_PASSED_OVER = {b"CLIENT", b"AUTH", b"HELLO", b"RESET", b"OBJECT", b"SCAN", b"KEYS", b"RANDOMKEY", b"PING", b"ECHO", b"MULTI",
                b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH", b"PUBSUB", b"PUBLISH", b"SPUBLISH", b"LCS", b"DUMP"}  # fmt: skip
_RARE = {b"FLUSHALL", b"FLUSHDB", b"SWAPDB"}


@functools.lru_cache
def command_pool(kind):
    """Some thousands of the grammar's commands. redis-server grows a key, or makes it, for a BITFIELD that then fails by
    OVERFLOW FAIL, and tells no follower of it."""
    rng = random.Random()
    pool = (grammar.command(rng) for _ in range(3000))
    untold = {b"BITFIELD", b"FAIL"} if kind == REDIS else {None}
    return [c for c in pool if c[0] not in _PASSED_OVER and not untold <= {word.upper() for word in c}]


class Chaos(threading.Thread):
    """Writes at random until stop(): the grammar's commands, deadlines that pass at once, values of all sizes, all
    databases, transactions. It connects again whenever the server is there again. done counts its commands."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.done, self.ended = node, 0, threading.Event()
        self.rng = random.Random()
        self.pool = command_pool(node.kind)
        self.start()

    def run(self):
        while not self.ended.is_set():
            try:
                with self.node.client() as c:
                    c("SELECT", self.rng.randrange(16))
                    while not self.ended.is_set():
                        commands = [self.command() for _ in range(self.rng.randint(1, 8))]
                        if self.rng.random() < 0.2:
                            commands = [("MULTI",), *commands, ("EXEC",)]
                        c.pipeline(commands)
                        self.done += len(commands)
            except OSError:
                time.sleep(0.005)

    def command(self):
        r, key = self.rng, f"chaos:{self.rng.randrange(500)}"
        roll = r.random()
        if roll < 0.1:
            return "SET", key, r.random(), "PX", r.randint(1, 300)
        if roll < 0.15:
            return "SET", key, r.randbytes(r.choice([10, 100, 10000, 40000]))
        if roll < 0.25:
            return r.choice([("APPEND", key, "+"), ("INCR", f"n:{key}"), ("PEXPIRE", key, r.randint(1, 500)), ("DEL", key)])
        command = r.choice(self.pool)
        return command if command[0] not in _RARE or r.random() < 0.05 else ("INCR", "n")

    def stop(self):
        self.ended.set()
        self.join()
        return self.done


@contextlib.contextmanager
def chaos(node, writers=2):
    """Random writers while the block runs."""
    threads = [Chaos(node) for _ in range(writers)]
    try:
        wait_for(lambda: all(t.done for t in threads))
        yield threads
    finally:
        done = [t.stop() for t in threads]
    assert all(done), "nothing was written"


# ---- servers and followers by hand ---------------------------------------------------------------------------


class HandFollower(Client):
    """A follower made by hand: it asks for a sync and reads what the leader sends, byte by byte."""

    def __init__(self, leader, replid="?", offset=-1, capa=("eof", "psync2"), greet=True):
        super().__init__(leader.port)
        if greet:
            assert self("PING") == "PONG"
            assert self("REPLCONF", "listening-port", 1) == OK
            assert self("REPLCONF", *(word for name in capa for word in ("capa", name))) == OK
        self.send(encode("PSYNC", replid, offset))
        self.answer = self.line()

    def line(self):
        """The next line that is not a keepalive."""
        while (line := self.input.readline()) == b"\n":
            pass
        if not line.endswith(b"\n"):
            raise ConnectionError(f"cut off: {line!r}")
        return line.strip().decode()

    def snapshot(self):
        """The RDB's bytes, in either form."""
        kind, what = self.line().split("$")[1].partition(":")[::2]
        if kind != "EOF":
            return self.input.read(int(kind))
        data, mark = bytearray(), what.encode()
        while True:
            tail, new = bytes(data[1 - len(mark) :]), self.input.peek()
            if not new:
                raise ConnectionError("cut off in the snapshot")
            at = (tail + new).find(mark)
            data += self.input.read(len(new) if at < 0 else at + len(mark) - len(tail))
            if at >= 0:
                return bytes(data[: -len(mark)])

    def command(self):
        """The next command of the stream."""
        return self.read()

    def ack(self, offset, *more):
        self.send(encode("REPLCONF", "ACK", offset, *more))


class HandLeader:
    """A leader made by hand. script(link, handshake) is called for each connection with the words of each command that
    the follower says up to its PSYNC, the last one's included; it answers that one, and may go on as it likes."""

    def __init__(self, script, refuse=()):
        self.script, self.refuse = script, refuse
        self.handshakes = []
        self.error = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                link = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link):
        c = Client.__new__(Client)
        c.socket, c.input = link, link.makefile("rb")
        said = []
        try:
            while True:
                said.append([w.decode("latin-1") for w in c.read()])
                name = said[-1][0].upper()
                if name == "PSYNC":
                    break
                c.send(b"-ERR no\r\n" if name in self.refuse else b"+PONG\r\n" if name == "PING" else b"+OK\r\n")
            self.handshakes.append(said)
            self.script(c, said)
        except OSError:
            pass
        except AssertionError as e:
            self.error = e
        finally:
            c.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        if self.error:
            raise self.error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_error(reply, code):
    return isinstance(reply, Error) and reply.split()[0] == code

