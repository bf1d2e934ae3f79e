"""What the tests of persistence share: data sets, files, and starts that may be refused."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import tempfile
import time

from ev import ECHOVAULT, Client, Server, flags, free_port, need

HEADER = 1024  # bytes of the log file before the log's own
PORT_NAME = 7  # the port that stands in the data files' names, whatever port is used

ON = {"appendonly": "yes"}


def files(port=PORT_NAME):
    """Options that give the data files one name on every port."""
    return {"dbfilename": f"database_{port}.rdb", "appendfilename": f"database_{port}.aof"}


def rdb(folder):
    return os.path.join(folder, f"database_{PORT_NAME}.rdb")


def aof(folder):
    return os.path.join(folder, f"database_{PORT_NAME}.aof")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def state(c, databases=4):
    """All keys with values and deadlines, by database."""
    found = {}
    for db in range(databases):
        c("SELECT", db)
        for key in c("KEYS", "*"):
            found[db, key] = (c("GET", key), c("PEXPIRETIME", key))
    c("SELECT", 0)
    return found


def state_in_redis(folder):
    """What a redis-server makes of the log, which redis-check-aof finds well."""
    check = subprocess.run([need("redis-check-aof"), aof(folder)], capture_output=True, text=True)
    assert check.returncode == 0 and "is valid" in check.stdout, check.stdout
    parts = os.path.join(folder, "appendonlydir")
    os.mkdir(parts)
    shutil.copy(aof(folder), os.path.join(parts, "a.aof.1.incr.aof"))
    write(os.path.join(parts, "a.aof.manifest"), b"file a.aof.1.incr.aof seq 1 type i\n")
    with Server(binary=need("redis-server"), folder=str(folder), appendonly="yes", appendfilename="a.aof") as r:
        with r.client() as c:
            return state(c)


def info(c, field):
    value = re.search(rb"^%s:(.*?)\r$" % field.encode(), c("INFO", "everything"), re.M)[1].decode()
    return int(value) if re.fullmatch(r"-?\d+", value) else value


def wait_saved(c, seconds=60):
    """Until no snapshot runs; fails when the last one did."""
    until = time.monotonic() + seconds
    while info(c, "rdb_bgsave_in_progress"):
        assert time.monotonic() < until
        time.sleep(0.005)
    assert info(c, "rdb_last_bgsave_status") == "ok"


def try_start(folder, environment=None, **options):
    """Starts a server on the folder's files: (its state, what it said), with None for a start that was refused."""
    while "Address already in use" in (result := _try_start(folder, environment, options))[1]:
        pass
    return result


def _try_start(folder, environment, options):
    options = {**ON, "save": "", **files(), "port": free_port(), **options}
    process = subprocess.Popen([ECHOVAULT, *flags(options)], cwd=folder, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})})
    try:
        until = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < until:
            try:
                with Client(options["port"]) as c:
                    if c("PING") == "PONG":
                        found = state(c)
                        process.kill()
                        return found, process.communicate()[0].decode("latin-1")
            except OSError:
                time.sleep(0.001)
        assert process.poll() is not None, "neither ready nor refused"
        assert process.returncode == 1, f"ended with {process.returncode}: {process.communicate()[0]}"
        return None, process.communicate()[0].decode("latin-1")
    finally:
        process.kill()
        process.wait()


def try_variants(variants, make):
    """For each variant: make(folder, variant) fills a folder, a start is tried on it. Yields (variant, folder's
    content after it, state, output)."""

    def one(variant):
        folder = tempfile.mkdtemp(prefix="echovault-files-")
        try:
            make(folder, variant)
            found, said = try_start(folder)
            return variant, {name: read(os.path.join(folder, name)) for name in os.listdir(folder)}, found, said
        finally:
            shutil.rmtree(folder)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield from pool.map(one, variants)


def parse_log(data):
    """The log's commands: (end in the file, arguments)."""
    at = HEADER
    while at < len(data):
        n, at = _count(data, at, b"*")
        argv = []
        for _ in range(n):
            size, at = _count(data, at, b"$")
            argv.append(data[at : at + size])
            at += size + 2
        yield at, argv


def _count(data, at, mark):
    end = data.index(b"\r\n", at)
    assert data[at : at + 1] == mark
    return int(data[at + 1 : end]), end + 2


class Durable(Server):
    """A server that keeps a log, in a folder that outlives it."""

    def __init__(self, folder, **options):
        super().__init__(folder=str(folder), **{**ON, **files(), **options})
