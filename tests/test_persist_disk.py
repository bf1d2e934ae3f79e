"""What a disk can do: power cuts, failing writes and syncs, no room, a folder that vanishes.

ECHOVAULT_POWER_CUTS sets how many power cuts are tried.
"""
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from ev import OK, ROOT, SANITIZED, Error, eventually, ours
from persist_tools import Durable, aof, info, rdb, read, state, try_start, try_variants, write

pytestmark = [ours, pytest.mark.skipif(SANITIZED, reason="the shim and the sanitizer both want to be first")]
CUTS = int(os.environ.get("ECHOVAULT_POWER_CUTS", 150))


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = str(tmp_path_factory.mktemp("shim") / "disk_shim.so")
    source = os.path.join(ROOT, "tests", "disk_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def shimmed(shim, monkeypatch, tmp_path):
    """Servers that start now run under the shim. Returns a function that makes calls fail, or none."""
    faults = tmp_path / "faults"
    monkeypatch.setenv("LD_PRELOAD", shim)
    monkeypatch.setenv("DISK_FAULTS", str(faults))
    monkeypatch.setenv("DISK_TRACE", str(tmp_path / "trace"))

    def fail(what=None, error=0, where="", ms=0):
        if what:
            write(tmp_path / "new", f"{what} {error} {where} {ms}".encode())
            os.rename(tmp_path / "new", faults)
        elif faults.exists():
            os.remove(faults)

    return fail


# ---- power cuts ----------------------------------------------------------------------------------------------
# The trace is replayed on a model of a disk. At a power cut each file holds what was written before its last
# sync, and of the writes since then any, in any order, each whole, torn between sectors or not at all. Each
# name stands for any file that it stood for since the folder's last sync.


class Inode:
    def __init__(self):
        self.durable, self.pending = b"", []
        self.settled = 0  # operations that have become durable

    def content(self, operations):
        data = bytearray(self.durable)
        for at, piece in operations:
            if piece is None:
                del data[at:]
                data.extend(bytes(at - len(data)))
            else:
                data.extend(bytes(max(0, at + len(piece) - len(data))))
                data[at : at + len(piece)] = piece
        return bytes(data)


class Disk:
    def __init__(self):
        self.names = {}  # name: what it stood for since the folder's last sync, oldest first; None: nothing
        self.open, self.syncing = {}, {}
        self.synced = 0  # the newest SET seq that a synced log held, and a record in it covered: nobody was told of others
        self.acknowledged = 0

    def name(self, name, inode):
        self.names.setdefault(name, [None]).append(inode)

    def now(self, name):
        return self.names.get(name, [None])[-1]

    def apply(self, op, fd, a, b, data):
        if op == "open":
            name = data.decode()
            if name == ".":
                self.open[fd] = "folder"
                return
            if not a:
                self.name(name, Inode())
            self.open[fd] = self.now(name)
            if b:
                self.open[fd].pending.append((0, None))
        elif op == "close":
            self.open.pop(fd, None)
        elif op == "pwrite":
            self.open[fd].pending.append((a, data))
        elif op == "truncate":
            self.open[fd].pending.append((a, None))
        elif op == "sync-begins":
            file = self.open[fd]
            now = dict(self.names) if file == "folder" else file.settled + len(file.pending)
            self.syncing.setdefault(fd, []).append(now)  # a header's sync and the helper's may overlap
        elif op == "sync-ends":
            self.sync_ends(self.open[fd], self.syncing[fd].pop(0))
        elif op == "rename":
            old, new = data.decode().split(" ")
            self.name(new, self.now(old))
            self.name(old, None)
        elif op == "link":
            old, new = data.decode().split(" ")
            self.name(new, self.now(old))
        elif op == "unlink":
            self.name(data.decode(), None)
        elif op == "reply":
            for n in re.findall(rb"\*3\r\n\+OK\r\n\+OK\r\n:(\d+)\r\n", data):
                self.acknowledged = max(self.acknowledged, int(n))

    def sync_ends(self, file, upto):
        if file == "folder":
            self.names.update((name, self.names[name][-1:]) for name in upto)
        else:
            n = max(0, upto - file.settled)
            file.durable = file.content(file.pending[:n])
            file.pending = file.pending[n:]
            file.settled += n
        for name, stood_for in self.names.items():
            if name.endswith(".aof") and len(stood_for) == 1 and stood_for[0]:
                covered = stood_for[0].durable.rpartition(b"*2\r\n$4\r\nPING\r\n")[0]
                numbers = re.findall(rb"\$3\r\nseq\r\n\$\d+\r\n(\d+)\r\n", covered)
                self.synced = max([self.synced, *map(int, numbers)])

    def after_power_cut(self, rng):
        """The files that a power cut now might leave."""
        mode = rng.choice(["nothing", "all", "prefix", "some", "torn"])
        found = {}
        for name, stood_for in self.names.items():
            inode = {"nothing": stood_for[0], "all": stood_for[-1]}.get(mode, rng.choice(stood_for))
            if inode is None:
                continue
            pending = inode.pending
            if mode == "nothing":
                pending = []
            elif mode == "prefix":
                pending = pending[: rng.randint(0, len(pending))]
            elif mode in ("some", "torn"):
                keep = rng.random()
                pending = [p for p in pending if rng.random() < keep]
            if mode == "torn":
                pending = [piece for p in pending for piece in torn(rng, *p)]
            found[name] = inode.content(pending)
        return found


def torn(rng, at, data):
    """Some of the sectors that a write touches."""
    if data is None:
        yield at, data
        return
    start = 0
    while start < len(data):
        end = min(len(data), start + 512 - (at + start) % 512)
        if rng.random() < 0.8:
            yield at + start, data[start:end]
        start = end


def read_trace(path):
    with open(path, "rb") as f:
        while line := f.readline():
            op, fd, a, b, n = line.split(b" ")
            yield op.decode(), int(fd), int(a), int(b), f.read(int(n))


def payload(n):
    return b"%d:" % n + b"p" * (n * 397 % 3000)


def expected(n):
    """The state after n transactions."""
    if n == 0:
        return {}
    found = {(0, b"seq"): (b"%d" % n, -1), (0, b"counter"): (b"%d" % n, -1)}
    for i in range(max(1, n - 4), n + 1):
        found[0, b"v%d" % (i % 5)] = (payload(i), -1)
    return found


@pytest.mark.parametrize("policy", ["always", "everysec"])
@pytest.mark.timeout(120 + CUTS)
def test_power_cuts(shimmed, tmp_path, policy, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    n = 0
    for life in range(3):
        with Durable(folder, appendfsync=policy, repl_backlog_size=16384) as s, s.client() as c:
            for step in range(120):
                n += 1
                c.transaction(("SET", "seq", n), ("SET", f"v{n % 5}", payload(n)), ("INCR", "counter"))
                if step % 50 == 25:
                    c("BGSAVE")
                if policy == "everysec" and step % 60 == 59:
                    time.sleep(1.2)
            if life < 2:
                s.kill()
    monkeypatch.delenv("LD_PRELOAD")
    trace = list(read_trace(tmp_path / "trace"))
    rng = random.Random(1)
    moments = sorted(rng.sample(range(len(trace) + 1), min(CUTS, len(trace))))
    disk, images, at = Disk(), [], 0
    for moment in moments:
        for operation in trace[at:moment]:
            disk.apply(*operation)
        at = moment
        least = disk.acknowledged if policy == "always" else disk.synced
        images.append((moment, least, disk.after_power_cut(rng)))
    assert images[-1][1] > 100, "the trace shows that much was safe"

    def make(to, image):
        for name, content in image[2].items():
            write(os.path.join(to, name), content)

    right = {}
    for (moment, least, _), _, found, said in try_variants(images, make):
        assert found is not None, f"power cut after {moment} operations: refused: {said}"
        there = int(found.get((0, b"seq"), (b"0",))[0])
        assert found == right.setdefault(there, expected(there)), f"power cut after {moment} operations: torn"
        assert least <= there <= n, f"power cut after {moment} operations"


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_power_cuts_during_full_resyncs(shimmed, tmp_path, policy, node, monkeypatch):
    """Whatever a power cut leaves of a follower's files is the data of before a full resync or of after it."""
    preload = os.environ["LD_PRELOAD"]
    monkeypatch.delenv("LD_PRELOAD")
    leaders = [node(), node("redis"), node()]
    for i, leader in enumerate(leaders):
        leader.pipeline([("SET", f"{i}:{k}", payload(k)) for k in range(50)])
    monkeypatch.setenv("LD_PRELOAD", preload)
    (tmp_path / "data").mkdir()
    states, rng = [], random.Random()
    with Durable(tmp_path / "data", appendfsync=policy) as s, s.client() as c:
        monkeypatch.delenv("LD_PRELOAD")
        for leader in [None, *leaders, leaders[0]]:
            if leader:
                assert c("REPLICAOF", "127.0.0.1", leader.port) == OK
                patient = rng.random() < 0.5  # until there are files of the new data
                eventually(lambda: info(c, "master_link_status") == "up" and
                           not (patient and info(c, "aof_rewrite_in_progress")))
                states.append(state(c))
                assert c("REPLICAOF", "NO", "ONE") == OK
            c("SET", "own", len(states))
            states.append(state(c))
        s.kill()
    assert [len(found) for found in states] == [1] + [50, 51] * 4
    trace = list(read_trace(tmp_path / "trace"))
    disk, images = Disk(), []
    for moment, operation in enumerate(trace):
        disk.apply(*operation)
        if operation[0] != "reply":
            images += [(moment, disk.after_power_cut(rng)) for _ in range(2)]
    print(len(images), "power cuts")

    def make(to, image):
        for name, content in image[1].items():
            write(os.path.join(to, name), content)

    for (moment, _), _, found, said in try_variants(images, make):
        where = f"power cut after {moment} operations, {trace[moment - 3 : moment + 1]}"
        assert found is not None, f"{where}: refused: {said}"
        assert found in [{}, *states], f"{where}: {len(found)} keys: {said}"


# ---- failing calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["always", "everysec"])
@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_the_log_cannot_be_kept(shimmed, tmp_path, policy, call):
    """Changes are refused, reads go on, the reason is said; when it works again, the log goes on in a fresh file."""
    with Durable(tmp_path, appendfsync=policy) as s, s.client() as c, s.client() as other:
        assert c("SET", "before", "1") == OK
        shimmed(call, errno.EIO, ".aof")
        c.send(b"SET during 1\r\n")
        eventually(lambda: info(other, "aof_last_write_status") == "err")
        assert str(other("SET", "x", "1")).startswith("MISCONF Errors writing to the AOF file")
        assert other("GET", "before") == b"1"
        assert "Input/output error" in s.output()
        shimmed()
        eventually(lambda: info(other, "aof_last_write_status") == "ok", seconds=15)
        assert c.read() == OK and other("SET", "x", "2") == OK
        assert c("SET", "after", "1") == OK
        whole = state(c)
        s.kill()
    assert try_start(tmp_path)[0] == whole


def test_a_torn_header_line_leaves_the_other(shimmed, tmp_path):
    """However often the ids cannot be written down, one of the two lines is whole."""
    with Durable(tmp_path) as s, s.client() as c:
        assert c("SET", "a", "1") == OK
        shimmed("header", errno.ENOSPC, ".aof")
        for _ in range(3):
            assert c("DEBUG", "CHANGE-REPL-ID") == OK
        assert "header: No space left on device. Changes are refused" in s.output()
        s.kill()
    shimmed()
    assert try_start(tmp_path)[0] == {(0, b"a"): (b"1", -1)}


def test_a_history_whose_end_could_not_be_written_has_ended(shimmed, tmp_path, node, monkeypatch):
    """A promoted follower goes its own way. If the disk did not take the line that says so, it must not let others of
    its leader's history go on by its own offsets after a restart."""
    preload = os.environ["LD_PRELOAD"]
    monkeypatch.delenv("LD_PRELOAD")
    leader = node("redis")
    monkeypatch.setenv("LD_PRELOAD", preload)
    leader("SET", "k", "0")
    with Durable(tmp_path) as s, s.client() as c:
        assert c("REPLICAOF", "127.0.0.1", leader.port) == OK
        eventually(lambda: info(c, "master_link_status") == "up" and os.path.exists(aof(tmp_path)) and
                   not info(c, "aof_rewrite_in_progress"))
        leader("SET", "k", "1")
        eventually(lambda: c("GET", "k") == b"1")
        shimmed("pwrite", errno.ENOSPC, ".aof")
        assert c("REPLICAOF", "NO", "ONE") == OK
        shimmed()
        eventually(lambda: c("SET", "k", "own") == OK, seconds=15)
        c.pipeline([("SET", "k", f"own{i}") for i in range(20)])
        leader("SET", "k", "theirs")
        leader("SET", "only", "theirs")
        s.kill()
    monkeypatch.delenv("LD_PRELOAD")
    with Durable(tmp_path, port=s.port) as s, s.client() as c:
        leader.follow(s)
        eventually(lambda: leader.facts()["master_link_status"] == "up")
        eventually(lambda: leader("GET", "k") == b"own19" and leader("EXISTS", "only") == 0)
        assert info(c, "sync_partial_ok") == 0


def test_an_end_that_would_lose_the_data_does_not_come(shimmed, tmp_path):
    """The last snapshot cannot be written: the server says so, and goes on until it can be, or is forced to end."""
    with Durable(tmp_path, appendonly="no", save="3600 1") as s, s.client() as c:
        assert c("SET", "a", "1") == OK
        shimmed("open", errno.ENOSPC, ".rdb.tmp")
        for times in (1, 2):
            s.process.send_signal(signal.SIGTERM)
            eventually(lambda: s.output().count("the server stays") == times)
            assert c("GET", "a") == b"1"
        shimmed()
        assert s.end() == 0
    assert try_start(tmp_path)[0] == {(0, b"a"): (b"1", -1)}


def test_a_failed_sync_is_not_forgotten(shimmed, tmp_path):
    """Under always, what a failed sync covered is only acknowledged when a fresh file has it."""
    with Durable(tmp_path, appendfsync="always") as s, s.client() as c:
        c("SET", "a", "1")
        old = os.stat(aof(tmp_path)).st_ino
        shimmed("fdatasync", errno.EIO, ".aof")
        c.send(b"SET a 2\r\n")
        time.sleep(0.3)
        shimmed()
        assert c.read() == OK
        assert os.stat(aof(tmp_path)).st_ino != old
        s.kill()
    assert try_start(tmp_path)[0] == {(0, b"a"): (b"2", -1)}


@pytest.mark.parametrize("call", ["fdatasync", "header"])
def test_ids_that_cannot_be_written(shimmed, tmp_path, call):
    """The sync of the ids was the log's, and they tell whose its next bytes are: it goes on in a fresh file only."""
    with Durable(tmp_path) as s, s.client() as c:
        c("SET", "a", "1")
        old = os.stat(aof(tmp_path)).st_ino
        shimmed(call, errno.EIO, ".aof")
        assert c("DEBUG", "CHANGE-REPL-ID") == OK
        assert str(c("SET", "a", "2")).startswith("MISCONF Errors writing to the AOF file")
        shimmed()
        eventually(lambda: info(c, "aof_last_write_status") == "ok", seconds=15)
        assert c("SET", "a", "3") == OK and c("WAITAOF", 1, 0, 0) == [1, 0]
        assert os.stat(aof(tmp_path)).st_ino != old
        s.kill()
    assert try_start(tmp_path)[0] == {(0, b"a"): (b"3", -1)}


def test_an_end_while_the_log_breaks(shimmed, tmp_path):
    """The end waits for a sync and for a log that is trimmed, and neither will be: it is refused, not hung up."""
    with Durable(tmp_path, save="", repl_backlog_size="16kb") as s, s.client() as c:
        c.pipeline([("SET", f"k{i % 10}", "v" * 20) for i in range(10000)])
        assert c("WAITAOF", 1, 0, 0) == [1, 0]
        time.sleep(1.2)  # the record that says so is synced, too
        shimmed("fsync", 0, ".rdb", 1800)
        c("BGSAVE")
        time.sleep(0.3)
        shimmed("fdatasync", errno.EIO, ".aof", 2000)
        c("SET", "x", "1")
        eventually(lambda: info(c, "aof_rewrite_in_progress") and not info(c, "rdb_bgsave_in_progress"))
        assert str(c("SHUTDOWN")).startswith("ERR Errors trying to SHUTDOWN")
        shimmed()
        s.kill()


def test_loadaof_while_no_log_is_there_yet(shimmed, tmp_path):
    """Until the first snapshot is, what lies in the folder is not the state."""
    with Durable(tmp_path, save="", appendonly="no") as s, s.client() as c:
        c("SET", "a", "1")
        assert c("SAVE") == OK and c("SET", "a", "2") == OK
        shimmed("fsync", 0, ".rdb", 1000)
        assert c("CONFIG", "SET", "appendonly", "yes") == OK
        assert isinstance(c("DEBUG", "LOADAOF"), Error) and c("GET", "a") == b"2"
        s.kill()


def test_no_acknowledgement_before_there_is_a_log(shimmed, tmp_path):
    """Under always, a change that comes before the first snapshot has made a log waits for it."""
    with Durable(tmp_path, save="", appendonly="no", appendfsync="always") as s, s.client() as c:
        shimmed("fsync", 0, ".rdb", 1000)
        assert c("CONFIG", "SET", "appendonly", "yes") == OK and c("SET", "a", "1") == OK
        s.kill()
    shimmed()
    assert try_start(tmp_path)[0] == {(0, b"a"): (b"1", -1)}


@pytest.mark.parametrize("where", [".rdb", ".aof.tmp"])
def test_a_log_that_cannot_begin(shimmed, tmp_path, where):
    """Changes are refused until it can, or until nobody wants it any more."""
    with Durable(tmp_path, save="", appendonly="no", appendfsync="always") as s, s.client() as c, s.client() as other:
        for give_up in (True, False):
            shimmed("open", errno.EACCES, where)
            c.send(b"CONFIG SET appendonly yes\r\nSET a 1\r\n")
            eventually(lambda: info(other, "aof_last_write_status") == "err", seconds=15)
            assert str(other("SET", "a", "2")).startswith("MISCONF Errors writing to the AOF file")
            if give_up:
                assert other("CONFIG", "SET", "appendonly", "no") == OK
            shimmed()
            assert c.read() == OK and c.read() == OK
        s.kill()
    assert try_start(tmp_path)[0] == {(0, b"a"): (b"1", -1)}


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "rename"])
def test_the_snapshot_cannot_be_written(shimmed, tmp_path, call):
    with Durable(tmp_path, save="3600 1") as s, s.client() as c:
        c("SET", "a", "1")
        c("SAVE")
        old = read(rdb(tmp_path))
        c("SET", "a", "2")
        shimmed(call, errno.EIO, ".rdb")
        c("BGSAVE")
        eventually(lambda: not info(c, "rdb_bgsave_in_progress"))
        assert info(c, "rdb_last_bgsave_status") == "err"
        assert str(c("SET", "a", "3")).startswith("MISCONF Redis is configured to save RDB snapshots")
        assert c("PING") == c("SET", "a", "3"), "as redis-server: who watches is told"
        assert c("GET", "a") == b"2" and read(rdb(tmp_path)) == old
        assert isinstance(c("SAVE"), Error)
        shimmed()
        assert c("SAVE") == OK and c("SET", "a", "3") == OK
        assert not os.path.exists(rdb(tmp_path) + ".tmp")


def test_the_folder_vanishes(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with Durable(folder) as s, s.client() as c:
        c("SET", "a", "1")
        shutil.rmtree(folder)
        s.log_path = os.devnull

        def refused():
            try:
                with s.client(timeout=0.5) as writer:
                    return str(writer("SET", "a", "2")).startswith("MISCONF")
            except TimeoutError:  # this one's reply waits until there is a log again
                return False

        eventually(refused, seconds=5)
        assert c("GET", "a") in (b"1", b"2")
        s.kill()


# ---- no room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_a_full_disk(small_disk, policy):
    """Nothing acknowledged is lost; the server goes on when there is room again."""
    acknowledged = {}
    ballast = os.path.join(small_disk, "ballast")
    write(ballast, bytes(1 << 20))
    with Durable(small_disk, appendfsync=policy) as s, s.client() as c, s.client() as writer:
        done = threading.Event()

        def fill():
            n = 0
            while not done.is_set():
                n += 1
                key, value = b"k%d" % (n % 40), b"%d:" % n + b"x" * 2000
                if writer("SET", key, value) == OK:
                    acknowledged[0, key] = (value, -1)

        thread = threading.Thread(target=fill)
        thread.start()
        eventually(lambda: info(c, "aof_last_write_status") == "err")
        assert "No space left" in s.output()
        assert str(c("SET", "refused", "1")).startswith("MISCONF")
        assert c("GET", "k1")[-1:] == b"x"
        os.remove(ballast)
        eventually(lambda: c("SET", "room", "again") == OK)
        done.set()
        thread.join()
        acknowledged[0, b"room"] = (b"again", -1)
        found = state(c)
        s.kill()
    again, _ = try_start(small_disk)
    assert again == found
    assert {key: again.get(key) for key in acknowledged} == acknowledged


# ---- blocks ahead ------------------------------------------------------------------------------------------------


def test_a_busy_log_has_blocks_for_what_comes_next(tmp_path):
    """Else a write has to wait while a sync finds some. They are no part of the file, and go back at the end."""
    probe = tmp_path / "probe"
    probe.touch()
    if subprocess.run(["fallocate", "--keep-size", "--length", "1M", str(probe)]).returncode:
        pytest.skip("this file system has no fallocate()")
    load = [("SET", f"k{i}", "x" * 1000) for i in range(2000)]

    def ahead():
        c.pipeline(load)
        st = os.stat(aof(tmp_path))
        return st.st_blocks * 512 - st.st_size

    with Durable(tmp_path, appendfsync="everysec", auto_aof_rewrite_percentage=0) as s, s.client() as c:
        eventually(lambda: ahead() > 2 << 20, seconds=10)
        s.kill()
    whole = {(0, f"k{i}".encode()): (b"x" * 1000, -1) for i in range(2000)}
    with Durable(tmp_path, appendfsync="everysec", auto_aof_rewrite_percentage=0) as s, s.client() as c:
        assert state(c) == whole and not [n for n in os.listdir(tmp_path) if ".cut-" in n]
        eventually(lambda: ahead() > 2 << 20, seconds=10)
        assert s.end() == 0
    assert os.stat(aof(tmp_path)).st_blocks * 512 - os.stat(aof(tmp_path)).st_size < 64 << 10
    assert try_start(tmp_path)[0] == whole
