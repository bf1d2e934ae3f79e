"""What keeps an attacker's gain small: how the binary is built, --user, --seccomp."""
import os
import platform
import pwd
import re
import signal
import socket
import stat
import subprocess

import pytest

from ev import ECHOVAULT, OK, PONG, ROOT, SANITIZED, Client, Error, Server, encode, eventually, flags, free_port, need, ours

pytestmark = ours
USER = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
# The sanitizers' own threads and traces are not among the calls.
filtered = pytest.mark.skipif(SANITIZED or platform.machine() not in ("x86_64", "aarch64"), reason="no filter for this build")


def said(*args, **options):
    """What a start that fails says, the lines' beginnings left out."""
    options = {"port": free_port(), "appendonly": "no", "save": "", **options}
    done = subprocess.run([ECHOVAULT, *args, *flags(options)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return re.sub(r"^\d+:M .{24} # ", "", done.stdout, flags=re.M)


# ---- the binary --------------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="built for finding faults")
def test_the_binary_is_hardened():
    read = subprocess.run([need("readelf"), "-hldW", "--dyn-syms", ECHOVAULT], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Type:\s+DYN", read) and re.search(r"FLAGS_1.*PIE", read), "the code is always at the same place"
    assert "GNU_RELRO" in read and "BIND_NOW" in read, "addresses of functions can be written to"
    assert re.search(r"GNU_STACK\s.*\sRW\s", read) and not re.search(r"LOAD .* RWE", read), "memory is written and run"
    assert "__stack_chk_fail" in read, "stacks have no canaries"
    assert "__snprintf_chk" in read or "__memcpy_chk" in read, "libc does not check lengths"


# ---- --user ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path_factory):
    """One that the user may reach and write."""
    path = tmp_path_factory.mktemp("of-the-user")
    for parent in (path, *path.parents):
        if not os.stat(parent).st_mode & stat.S_IXOTH and os.geteuid() == 0 and str(parent).startswith("/tmp"):
            parent.chmod(0o711)
    os.chown(path, pwd.getpwnam(USER).pw_uid, -1)
    return path


@as_root
def test_root_becomes_the_user(start, folder):
    user = pwd.getpwnam(USER)
    server = start(user=USER, folder=str(folder), appendonly="yes", unixsocket="socket", pidfile="pid", logfile="log")
    with open(f"/proc/{server.pid}/status") as f:
        status = f.read()
    assert re.search(r"Uid:(.*)", status)[1].split() == [str(user.pw_uid)] * 4
    assert re.search(r"Gid:(.*)", status)[1].split() == [str(user.pw_gid)] * 4
    assert set(re.search(r"Groups:(.*)", status)[1].split()) <= {str(user.pw_gid)}
    assert re.search(r"CapEff:\s+(\w+)", status)[1] == "0" * 16
    with server.client() as c:
        assert c("SET", "k", "v") == OK
        assert c("SAVE") == OK
    for name in "socket", "log", f"database_{server.port}.aof", f"database_{server.port}.rdb":
        assert os.stat(folder / name).st_uid == user.pw_uid, name
    assert (folder / "pid").read_text() == f"{server.pid}\n"
    assert server.end() == 0
    assert not (folder / "socket").exists() and not (folder / "pid").exists()


@as_root
def test_a_port_of_root_s(start, folder):
    for port in range(1023, 900, -1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                break
            except OSError:
                continue
    with start(port=port, user=USER, folder=str(folder)).client() as c:
        assert c("PING") == PONG


def test_a_user_that_there_is_not(tmp_path):
    assert said(user="nobody-at-all", dir=tmp_path) == "--user nobody-at-all: there is no such user. Make it with useradd\n"


@as_root
def test_a_folder_or_a_log_that_the_user_may_not_write(folder, tmp_path):
    tmp_path.chmod(0o700)
    line = said(user=USER, dir=tmp_path)
    assert line.startswith(f"--user nobody: it may not write in the folder {tmp_path}: Permission denied.")
    assert line.count("\n") == 1
    done = subprocess.run([ECHOVAULT, *flags({"user": USER, "dir": folder, "logfile": tmp_path / "log", "port": free_port()})],
                          capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[0] == f"The log file {tmp_path}/log cannot be written: Permission denied"


@as_root
def test_what_is_said_early_makes_no_log_file_of_roots(folder):
    """Such a line comes before the server is the user, who could not write the file then."""
    done = subprocess.run([ECHOVAULT, *flags({"user": USER, "dir": folder, "logfile": "log", "hz": 10, "port": 0})],
                          capture_output=True, text=True, timeout=60)
    assert "The option hz has no effect here" in done.stdout and "cannot be written" not in done.stderr


@as_root
def test_who_is_not_root_stays_who_he_is(folder):
    options = flags({"port": free_port(), "dir": folder, "appendonly": "no", "save": ""})
    binary = folder / "echovault"
    binary.write_bytes(open(ECHOVAULT, "rb").read())
    binary.chmod(0o755)
    run = lambda user: subprocess.Popen([binary, *options, "--user", user], stdout=subprocess.PIPE, text=True, user=USER)  # noqa: E731
    refused = run("root")
    assert refused.communicate(timeout=60)[0].endswith(
        "--user root: only root can become another user. Start it as root, or without --user.\n")
    assert refused.returncode == 1
    himself = run(USER)
    assert any("Ready to accept" in line for line in himself.stdout)
    himself.terminate()
    himself.communicate(timeout=60)
    assert himself.returncode == 0


# ---- --seccomp ---------------------------------------------------------------------------------------------


@filtered
@pytest.mark.parametrize("io_uring", ["yes", "no"])
def test_everything_works_with_the_filter(start, tmp_path, io_uring):
    """A leader with a file, a log and a Unix socket, and its follower, found by name; all that makes calls of its own."""
    conf = tmp_path / "conf"
    conf.write_text("")
    leader = start(str(conf), seccomp="yes", io_uring=io_uring, appendonly="yes", appendfsync="always", unixsocket="socket",
                   logfile="log", folder=str(tmp_path), replica_announce_ip="127.0.0.1", repl_backlog_size="1mb")
    with open(f"/proc/{leader.pid}/status") as f:
        assert re.search(r"Seccomp:\s+2\n", f.read())
    follower = start(seccomp="yes", io_uring=io_uring, appendonly="yes", replicaof=["localhost", str(leader.port)])
    with leader.client() as c, leader.client() as other, follower.client() as f:
        link = lambda: b"master_link_status:up" in f("INFO", "replication")  # noqa: E731
        eventually(link, 30)
        big = "v" * (2 << 20)
        c.pipeline([("SET", f"k{i}", "v" * i) for i in range(2000)] + [("SET", "big", big), ("APPEND", "big", big)])
        c.send(encode("GET", "big") + encode("SETEX", "gone", "100", "x"))
        other.send(encode("GET", "big"))
        assert [len(c.read()), c.read(), len(other.read())] == [4 << 20, OK, 4 << 20]
        assert c.transaction(("SET", "a", "1"), ("INCR", "a")) == [OK, 2]
        assert c("WAIT", 1, 10000) == 1 and c("WAITAOF", 1, 1, 10000) == [1, 1]
        assert (c("SAVE"), c("BGSAVE")) == (OK, "Background saving started")
        saved = lambda: b"rdb_bgsave_in_progress:0" in c("INFO", "persistence")  # noqa: E731
        eventually(saved)
        c("BGREWRITEAOF")
        eventually(lambda: b"aof_rewrite_in_progress:0" in c("INFO", "persistence"))
        for reload in ("RELOAD",), ("LOADAOF",), ("DIGEST",), ("SLEEP", "0.01"), ("OBJECT", "a"):
            assert not isinstance(c("DEBUG", *reload), Error), reload
        eventually(link, 30)
        assert c("CONFIG", "SET", "maxmemory", "1gb", "timeout", "0") == OK and c("CONFIG", "REWRITE") == OK
        assert "maxmemory 1gb" in conf.read_text()
        for words in ("INFO", "everything"), ("MEMORY", "PURGE"), ("MEMORY", "STATS"), ("CLIENT", "LIST"), ("TIME",), ("ROLE",):
            assert not isinstance(c(*words), Error), words
        os.rename(tmp_path / "log", tmp_path / "log.1")
        leader.process.send_signal(signal.SIGHUP)
        assert c("FLUSHALL", "ASYNC") == OK and c("SET", "a", "3") == OK and c("WAIT", 1, 10000) == 1
        assert f("FAILOVER") == Error("ERR FAILOVER is not valid when server is a replica.")
        assert c("FAILOVER", "TO", "127.0.0.1", follower.port) == OK
        eventually(lambda: b"role:slave" in c("INFO", "replication") and b"master_link_status:up" in c("INFO", "replication"), 30)
        assert f("DEBUG", "CHANGE-REPL-ID") == OK and f("SET", "a", "4") == OK and f("WAIT", 1, 10000) == 1 and c("GET", "a") == b"4"
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(tmp_path / "socket"))
            s.sendall(b"PING\r\n")
            assert s.recv(7) == b"+PONG\r\n"
        assert isinstance(c("REPLICAOF", "no.such.name.invalid", "1"), str)
    assert follower.end() == leader.end() == 0
    assert "bye bye" in (tmp_path / "log").read_text()


def test_the_readme_names_the_calls():
    with open(os.path.join(ROOT, "sandbox.c")) as f:
        calls = re.findall(r"CALL\((\w+)\)[,}]", f.read())
    with open(os.path.join(ROOT, "README.md")) as f:
        lists = f.read().split("Allowed are\n")[1].split("Calls that came with")[0]
    named = [name for text in re.findall(r"^\* .*?: (.*?)[;.]$", lists, re.M | re.S) for name in re.split(r",\s+", text)]
    assert sorted(named) == sorted([*calls, "and clone for a thread"])


# What runs in the server at a SIGUSR1, as an attacker's code would.
INTRUDER = """
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
static void intrude(int s) {
    (void)s;
    if (!((CALL) == -1 && errno == ENOSYS)) _exit(99);
}
__attribute__((constructor)) static void load(void) { signal(SIGUSR1, intrude); }
"""
CALLS = {"execve": "syscall(SYS_execve, 0, 0, 0)", "fork": "syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)",
         "ptrace": "syscall(SYS_ptrace, 0, 0, 0, 0)", "another numbering": "syscall(0x40000000 | SYS_getppid)",
         "a newer one": "syscall(SYS_clone3, 0, 0)"}  # fmt: skip


@filtered
@pytest.mark.parametrize("call", CALLS)
def test_other_calls_end_the_server(start, tmp_path, monkeypatch, call):
    shim = str(tmp_path / "shim.so")
    subprocess.run([need("cc"), "-shared", "-fPIC", f"-DCALL={CALLS[call]}", "-xc", "-o", shim, "-"], input=INTRUDER, text=True,
                   check=True)
    monkeypatch.setenv("LD_PRELOAD", shim)
    server = start(seccomp="yes")
    monkeypatch.delenv("LD_PRELOAD")
    server.process.send_signal(signal.SIGUSR1)
    if call == "a newer one":
        with server.client() as c:
            assert c("PING") == PONG
    else:
        assert server.process.wait(20) == -signal.SIGSYS
        server.process.returncode = -signal.SIGKILL  # as it should be: nothing for stop() to complain of
