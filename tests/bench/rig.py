"""The bench's rig: the list of rows, servers on one core, generators on the other, and facts about the machine."""
import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "bench"
RAN, WAITED = 0, 1  # fields of /proc/PID/task/TID/schedstat
PATIENCE_SECONDS = 600  # for one reply, and for a start with data
WARM_BYTES_A_KEY = 200
# More work where an operation takes less, by commands in a pipeline.
WORK = {1: 1, 16: 6, 64: 10}
ROWS = {}


def row(function):
    """Registers a row under its function's name, for --rows."""
    ROWS[function.__name__] = function
    return function


def spread(values, digits=3):
    """Median (lowest) of one figure over the rounds."""
    values = list(values)
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f})"


def fail(why):
    sys.exit(f"bench: {why}")


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        fail(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def build_programs():
    BUILD.mkdir(parents=True, exist_ok=True)
    root = HERE.parents[1]
    for source in HERE.glob("*.c"):
        program, sources = BUILD / source.stem, [source, *([root / "uring.c"] if source.stem == "bare" else [])]
        if not program.exists() or program.stat().st_mtime < max(each.stat().st_mtime for each in sources):
            draft = program.with_suffix(f".{os.getpid()}")  # another bench may be using the old one, or making it, too
            run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-g", f"-I{root}", "-o", str(draft),
                 *map(str, sources), "-lm"])
            os.replace(draft, program)


def frame(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)


def receive(link, length):
    while length > 0:
        part = link.recv(length)
        if not part:
            fail("a server closed a connection")
        length -= len(part)


def memory_field(pid, field):
    """Bytes of a process's memory, counted page by page: the kernel's quick counters may lag."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in smaps_rollup")


def available_memory():
    """Bytes that programs may still take."""
    return int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) * 1024


class Server:
    """A server process that keeps to its cores, with a port and a data folder of its own."""

    def __init__(self, name, options, cores):
        self.name, self.kind = name, name.split("-")[0]  # of echovault there is echovault-plain, of bare bare-batched
        self.quiet_seconds = options.settle_seconds
        self.folder = tempfile.mkdtemp(prefix=f"bench-{name}-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.line = ["taskset", "-c", ",".join(map(str, cores)), *self.command(options)]

    def start(self, extra, seconds=10):
        """Starts it on what its folder holds; extra are further options. Waits until that is loaded."""
        self.started = time.perf_counter()
        self.process = subprocess.Popen([*self.line, *extra, *self.variant()], cwd=self.folder, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE)
        self.wait_until_ready(seconds)
        self.ready_ms = (time.perf_counter() - self.started) * 1000

    def restart(self, extra):
        self.process.terminate()
        self.process.communicate()
        self.start(extra, seconds=PATIENCE_SECONDS)

    def command(self, options):
        if self.kind == "bare":
            return [str(BUILD / "bare"), str(self.port)]
        if self.kind == "memcached":
            return [options.memcached, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-t", "1", "-u", "root",
                    "-m", "65536", "-c", "12000"]
        return [getattr(options, self.kind), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
                "--save", "", "--appendonly", "no", "--loglevel", "warning", "--maxclients", "12000"]

    def variant(self):
        """What the command line ends with."""
        return {"echovault-plain": ["--io-uring", "no"], "bare-batched": ["batched"]}.get(self.name, [])

    def wait_until_ready(self, seconds):
        question, answer = (b"version\r\n", b"VERSION") if self.kind == "memcached" else (frame("PING"), b"+PONG")
        while time.perf_counter() < self.started + seconds:
            if self.process.poll() is not None:
                fail(f"{self.name} ended at once: {self.process.stderr.read().decode().strip()}")
            try:
                with self.connect() as link:
                    link.sendall(question)
                    if link.recv(100).startswith(answer):
                        return
            except ConnectionError:
                pass
            time.sleep(0.0002)  # also after -LOADING
        fail(f"{self.name} is not ready after {seconds} s")

    def connect(self):
        link = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def ask(self, *words):
        """One command with a short reply."""
        with self.connect() as link:
            link.sendall(frame(*words))
            return link.recv(65536)

    def info(self, section, field):
        """The number or word behind field: or field= in a short section of INFO."""
        found = re.search(rf"\b{field}[:=](\w+)", self.ask("INFO", section).decode())
        return found[1] if found else fail(f"{self.name}: no {field} in INFO {section}")

    def seconds(self, field, thread="*"):
        """Seconds that its threads RAN, or WAITED for a core that others had; the kernel counts nanoseconds."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob(f"{thread}/schedstat")
        return sum(int(task.read_text().split()[field]) for task in tasks) / 1e9

    def rested_seconds(self, at_most_seconds=5):
        """Seconds that it ran, once it rests: the kernel counts a thread's time when that leaves its core."""
        state, until = pathlib.Path(f"/proc/{self.process.pid}/stat"), time.monotonic() + at_most_seconds
        while state.read_text().rpartition(")")[2].split()[0] == "R" and time.monotonic() < until:
            time.sleep(0.001)
        return self.seconds(RAN)

    def resident(self):
        return memory_field(self.process.pid, "Rss")

    def resident_with_children(self):
        """Resident bytes of it and its children, with pages that they share counted once."""
        pid = self.process.pid
        total = memory_field(pid, "Pss")
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError, RuntimeError):  # it has just ended
                total += memory_field(child, "Pss")
        return total

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak(self):
        """The most bytes that were resident since then."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024

    def settled_resident(self, at_most_seconds=30):
        """Resident bytes once they have stopped changing, as after a table's rehash."""
        end, last, since = time.time() + at_most_seconds, self.resident(), time.time()
        while time.time() < min(end, since + self.quiet_seconds):
            time.sleep(self.quiet_seconds / 10)
            now = self.resident()
            if now != last:
                last, since = now, time.time()
        return last

    def stop(self):
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


class Rig:
    """Starts servers and generators as the options say."""

    def __init__(self, options):
        self.options = options

    @contextlib.contextmanager
    def server(self, name, *extra, cores=None):
        """A fresh server; extra are further options of its command line."""
        server = Server(name, self.options, cores or [self.options.server_core])
        try:
            server.start(extra)
            yield server
        finally:
            server.stop()

    def on_load_core(self, *command):
        return ["taskset", "-c", str(self.options.load_core), *map(str, command)]

    def load(self, server, op, requests, **how):
        """Runs load.c; its requests a second. See load_command()."""
        return json.loads(run(self.load_command(server, op, requests, **how)))["rps"]

    def load_command(self, server, op, requests, connections=50, pipeline=1, keys=None, size=16, zipf=0, rate=0,
                     first=None):
        op = "mc" + op if server.kind == "memcached" else op
        command = [BUILD / "load", server.port, op, "-c", connections, "-P", pipeline, "-n", requests,
                   "-r", keys or self.options.keys, "-d", size, "-z", zipf, "-R", rate,
                   *(["-s", first] if first is not None else [])]
        # In the open loop a delay of the generator would be taken for the server's. The tests run --quick beside others.
        urgent = rate and os.geteuid() == 0 and not self.options.quick
        urgent = urgent and self.options.load_core != self.options.server_core
        return self.on_load_core(*(["nice", "-n", "-20"] if urgent else []), *command)

    def measure(self, server, op, requests, generate=None, **how):
        """The server's CPU time an operation and operations a second."""
        before = server.rested_seconds()
        rps = (generate or self.load)(server, op, requests, **how)
        return {"cpu_us": (server.rested_seconds() - before) / requests * 1e6, "rps": rps}

    @contextlib.contextmanager
    def steady_load(self, server, op, connections, pipeline, keys):
        """Runs load.c meanwhile."""
        endless = 10 ** 15
        process = subprocess.Popen(self.load_command(server, op, endless, connections=connections,
                                                      pipeline=pipeline, keys=keys))
        try:
            yield
            if process.poll() is not None:
                fail("the load ended before its time")
        finally:
            process.kill()
            process.wait()

    def redis_benchmark(self, server, op, requests, pipeline):
        """Runs redis-benchmark over the same keys and sizes of values; its requests a second."""
        command = self.on_load_core("redis-benchmark", "-p", server.port, "-t", op, "-n", requests, "-P", pipeline,
                                    "-c", 50, "-d", 16, "-r", self.options.keys, "--csv")
        return float(run(command).splitlines()[-1].split(",")[1].strip('"'))

    def fill(self, server, keys, op="set", first=0, pipeline=64, **how):
        """Stores keys of the numbers from first up to keys, each once; the server must then have so many."""
        self.load(server, op, keys - first, pipeline=pipeline, keys=keys, first=first, **how)
        if server.kind in ("echovault", "redis") and server.ask("DBSIZE") != b":%d\r\n" % keys:
            fail(f"{server.name} does not hold {keys} keys after as many SETs")

    @contextlib.contextmanager
    def probe(self, server, interval_us=500):
        """Runs probe.c meanwhile; the dictionary has its figures afterwards."""
        command = self.on_load_core(BUILD / "probe", server.port, interval_us)
        process, figures = subprocess.Popen(command, stdout=subprocess.PIPE), {}
        try:
            time.sleep(0.2)
            waited = server.seconds(WAITED)
            yield figures
            figures["waited_ms"] = (server.seconds(WAITED) - waited) * 1000
            process.send_signal(signal.SIGTERM)
            figures.update(json.loads(process.communicate()[0]))
        finally:
            process.kill()


@contextlib.contextmanager
def own_network():
    """A loopback interface of the bench's own meanwhile, with the congestion control that Linux has where nobody chooses.

    One that the machine has for another purpose may hold long values back: bbr sends at a pace that it measures, also
    where nothing is narrow. Who may not have a network gets the machine's.
    """
    libc, new_network = ctypes.CDLL(None), 0x40000000
    with open("/proc/self/ns/net") as home:
        apart = shutil.which("ip") and libc.unshare(new_network) == 0
        try:
            if apart:
                run(["ip", "link", "set", "lo", "up"])
                pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("cubic")
            else:
                print("bench: needs root and ip for a network of its own: it uses the machine's", file=sys.stderr)
            yield
        finally:
            if apart:
                libc.setns(home.fileno(), new_network)


@contextlib.contextmanager
def warm_memory(size):
    """Keeps so many bytes of free memory backed by the hypervisor meanwhile.

    In a virtual machine the first touch of a page may leave to the host, some 10 microseconds each, and free memory in
    blocks of 2 MB goes back to it within seconds. A growing server would be measured by its host. So the size is touched
    here and given back but for one page in 64: free, and in no block that is large enough to go. (With every other page
    kept, the kernel set about compacting what was free, in turns of milliseconds on the server's core.)
    """
    with mmap.mmap(-1, size) as ballast:
        ballast.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(ballast), mmap.PAGESIZE):
            ballast[at] = 1
        for at in range(0, len(ballast), 64 * mmap.PAGESIZE):
            ballast.madvise(mmap.MADV_DONTNEED, at, min(63 * mmap.PAGESIZE, len(ballast) - at))
        yield


def machine_time():
    """Ticks of the machine's cores so far: all, those that the hypervisor kept for others, and those of other programs.

    The kernel's own threads count as others.
    """
    user, nice, system, idle, iowait, irq, softirq, stolen = (
        int(n) for n in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    busy = user + nice + system + irq + softirq
    ours = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")  # with the children's that have ended
    return {"all": busy + idle + iowait + stolen, "stolen": stolen, "others": busy - ours}


def shares_since(before):
    """What share of the machine's time since then was whose."""
    now = machine_time()
    spent = max(1, now["all"] - before["all"])
    return {whose: max(0, now[whose] - before[whose]) / spent for whose in ("stolen", "others")}


def describe_machine(options):
    model = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    kinds = dict.fromkeys(name.split("-")[0] for name in options.servers)
    versions = {kind: version(getattr(options, kind)) for kind in kinds if kind != "bare"}
    return {"when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "cpu": f"{os.cpu_count()} x {model}",
            "kernel": platform.release(), **versions}


def version(program):
    """The number in what it says of itself."""
    said = run([program, "--version"])
    return re.search(r"(?:v=)?(\d+\.\d+\.\d+)", said)[1]
