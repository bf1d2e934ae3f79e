"""What the machine around the server expects: systemd, make install, the manual, log files that are moved away, sockets."""
import configparser
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from ev import ECHOVAULT, OK, PONG, ROOT, Client, Server, eventually, flags, free_port, need, ours

pytestmark = ours
DIST = os.path.join(ROOT, "dist")


# ---- systemd -----------------------------------------------------------------------------------------------


class Supervisor:
    """Listens as systemd does, at a path or an abstract name (@...)."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(20)
        self.socket.bind(name.replace("@", "\0", 1))

    def heard(self):
        """The next message, as a dict."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())


@pytest.fixture(params=["a path", "an abstract name"])
def supervisor(request, tmp_path, monkeypatch):
    name = str(tmp_path / "notify") if request.param == "a path" else f"@echovault-test-{os.getpid()}"
    supervisor = Supervisor(name)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    yield supervisor
    supervisor.socket.close()


@pytest.mark.parametrize("how", ["systemd", "auto"])
def test_systemd_hears_of_the_start_and_the_end(start, supervisor, how):
    server = start(supervised=how, daemonize="yes", ready=False)  # which stays where its supervisor sees it
    assert supervisor.heard() == {"STATUS": "Loading the data"}
    assert supervisor.heard() == {"STATUS": "Ready to accept connections", "READY": "1"}
    with server.client() as c:  # at once, without trying
        assert c("PING") == PONG
    server.process.terminate()
    assert supervisor.heard() == {"STATUS": "Stopping", "STOPPING": "1"}


def test_ready_is_said_when_the_data_is_loaded(start, tmp_path, monkeypatch):
    with Server(folder=str(tmp_path), appendonly="yes") as s, s.client() as c:
        c.pipeline([("SET", f"k{i}", "v" * 100) for i in range(20000)])
    supervisor = Supervisor(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", supervisor.name)
    server = start(supervised="systemd", folder=str(tmp_path), appendonly="yes", port=s.port, ready=False)
    while "READY" not in supervisor.heard():
        pass
    with server.client() as c:
        assert c("DBSIZE") == 20000


def test_nobody_is_told_who_did_not_ask(start, supervisor):
    start().end()
    supervisor.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.heard()


def test_a_supervisor_that_is_not_there(start, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nothing"))
    assert "Cannot tell the supervisor at NOTIFY_SOCKET: No such file" in start(supervised="auto").output()
    monkeypatch.setenv("NOTIFY_SOCKET", "x" * 200)
    assert "Cannot tell the supervisor at NOTIFY_SOCKET" in start(supervised="auto").output()
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert "NOTIFY_SOCKET is not set" in start(supervised="systemd").output()
    assert "NOTIFY_SOCKET" not in start(supervised="auto").output()


def test_upstart_is_no_supervisor():
    ended = subprocess.run([ECHOVAULT, "--supervised", "upstart"], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert "supervised upstart: argument(s) must be one of the following: no, systemd, auto" in ended.stderr


# ---- make install ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/usr", "/opt/echo"])
def test_install_and_uninstall(tmp_path, prefix):
    def make(target):
        """With the binary under test, which is not made anew."""
        variables = [f"DESTDIR={tmp_path}", f"PREFIX={prefix}", f"BIN={os.path.relpath(ECHOVAULT, ROOT)}"]
        done = subprocess.run(["make", "-o", variables[2][4:], target, *variables], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}

    folder = prefix.lstrip("/")
    there = make("install")
    assert {name: path.stat().st_mode & 0o777 for name, path in there.items()} == {
        f"{folder}/bin/echovault": 0o755, f"{folder}/share/man/man1/echovault.1": 0o644,
        f"{folder}/lib/systemd/system/echovault.service": 0o644,
        f"{folder}/share/bash-completion/completions/echovault": 0o644,
    }  # fmt: skip
    said = subprocess.run([there[f"{folder}/bin/echovault"], "--version"], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.startswith("EchoVault")
    unit = there[f"{folder}/lib/systemd/system/echovault.service"].read_text()
    assert f"\nExecStart={prefix}/bin/echovault " in unit and "/usr/local" not in unit
    assert make("uninstall") == {}


def test_the_unit_starts_a_server_that_says_when_it_is_ready(start, supervisor):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(os.path.join(DIST, "echovault.service"))
    service = unit["Service"]
    program, *options, last = service["ExecStart"].split()
    assert (service["Type"], last, os.path.basename(program)) == ("notify", "$ECHOVAULT_OPTIONS", "echovault")
    start(**{name[2:]: value for name, value in zip(options[::2], options[1::2])})
    supervisor.heard()
    assert "READY" in supervisor.heard()
    if shutil.which("systemd-analyze"):
        said = subprocess.run(["systemd-analyze", "verify", os.path.join(DIST, "echovault.service")],
                              capture_output=True, text=True)
        said = [line for line in said.stderr.splitlines() if "echovault.service" in line]
        assert [line for line in said if "not executable" not in line and "'man " not in line] == []


def test_the_manual_is_well_formed_and_has_every_option():
    page = subprocess.run([need("groff"), "-mdoc", "-ww", "-Tascii", "-P-cbou", os.path.join(DIST, "echovault.1")],
                          capture_output=True, text=True)
    assert page.returncode == 0 and page.stderr == ""
    options = re.findall(r"^  --(\S+)", subprocess.run([ECHOVAULT, "--help"], capture_output=True, text=True).stdout, re.M)
    assert len(options) > 30
    assert re.findall(r"^ +--(\S+) value$", page.stdout, re.M) == options


@pytest.mark.parametrize("typed, offered", [
    (["--appendf"], "--appendfilename --appendfsync"), (["--appendonly", ""], "yes no"), (["--appendfsync", "e"], "everysec"),
    (["--port", "7000", "--supervised", ""], "no systemd auto"), (["--port", ""], ""), (["--loglevel", "n"], "notice"),
    (["--dir", ROOT + "/dis"], DIST), ([ROOT + "/LIC"], ROOT + "/LICENSE"),
])  # fmt: skip
def test_bash_completes(typed, offered):
    script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _echovault "$1"; echo "${COMPREPLY[*]}"'
    done = subprocess.run(["bash", "-c", script, os.path.join(DIST, "echovault.bash"), ECHOVAULT, *typed],
                          capture_output=True, text=True, timeout=20)
    assert (done.stdout.strip(), done.stderr) == (offered, "")


# ---- log files, sockets, the background --------------------------------------------------------------------


def test_a_log_file_that_was_moved_away_begins_anew(start, tmp_path):
    log, old = tmp_path / "server.log", tmp_path / "server.log.1"
    server = start(logfile=str(log))
    log.rename(old)
    server.process.send_signal(signal.SIGHUP)
    with server.client() as c:
        assert c("PING") == PONG
    assert server.end() == 0
    assert "Ready to accept connections" in old.read_text() and "bye bye" not in old.read_text()
    assert "bye bye" in log.read_text() and "Ready" not in log.read_text()


def test_lines_of_the_log_carry_pid_role_time_and_level(start):
    server = start()
    follower = start(replicaof=["127.0.0.1", str(server.port)])
    assert f"{follower.pid}:S " in follower.output() and f"{follower.pid}:M " not in follower.output()
    with follower.client() as c:
        assert c("REPLICAOF", "NO", "ONE") == OK
    assert follower.end() == 0 and f"{follower.pid}:M " in follower.output()
    for line in server.output().splitlines():
        assert re.fullmatch(rf"{server.pid}:M \d\d [A-Z][a-z][a-z] \d{{4}} \d\d:\d\d:\d\d\.\d{{3}} [.*#-] \S.*", line)


def test_ipv6_alone(start):
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    server = start(bind="::1", ready=False)
    eventually(lambda: "Ready to accept" in server.output())
    with Client(server.port, host="::1") as c:
        assert c("PING") == PONG
        assert b"addr=[::1]:" in c("CLIENT", "INFO")
    with pytest.raises(ConnectionRefusedError):
        Client(server.port)


def test_an_address_that_may_be_missing(start):
    with start(bind=["-192.0.2.1", "127.0.0.1"]).client() as c:
        assert c("PING") == PONG


class UnixClient(Client):
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.input = self.socket.makefile("rb")


@pytest.mark.parametrize("perm", ["0", "600", "777"])
def test_a_unix_socket_alone(start, tmp_path, perm):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:  # left by a crash
        stale.bind(path)
    umask = os.umask(0o027)
    try:
        server = start(port=0, unixsocket=path, unixsocketperm=perm, ready=False)
        eventually(lambda: "Ready to accept" in server.output())
    finally:
        os.umask(umask)
    assert os.stat(path).st_mode & 0o777 == (int(perm, 8) or 0o750)
    with UnixClient(path) as c:
        assert c("SET", "k", "v") == OK
        assert b" flags=U " in c("CLIENT", "INFO")
    assert server.end() == 0
    assert not os.path.exists(path)


def test_in_the_background_with_a_pid_file_and_a_log(tmp_path):
    port = free_port()
    words = flags({"port": port, "daemonize": "yes", "pidfile": "pid", "dir": tmp_path, "logfile": "log", "appendonly": "no"})
    done = subprocess.run([ECHOVAULT, *words], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    eventually(lambda: (tmp_path / "log").exists() and "Ready to accept" in (tmp_path / "log").read_text())
    pid = int((tmp_path / "pid").read_text())
    assert os.getsid(pid) == pid != os.getsid(0)  # no terminal's any more
    with Client(port) as c:
        assert f"process_id:{pid}\r".encode() in c("INFO", "server")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not (tmp_path / "pid").exists())
    eventually(lambda: "bye bye" in (tmp_path / "log").read_text())
