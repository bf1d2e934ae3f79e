#!/usr/bin/python3
"""Measures EchoVault beside redis-server, memcached and the bare limit, and prints tables.

    tests/bench.py                          everything, 70 minutes
    tests/bench.py --quick                  tiny sizes: does the bench itself work?
    tests/bench.py --rows cpu --rounds 3    some rows only

Servers run on one core and generators on another, in turn within a round, and each round starts them afresh. A figure
is the median over the rounds, with the lowest (the one least disturbed) in brackets. A share is taken within a round,
since the machine's speed drifts: the median of the rounds' shares, and in brackets that of the lowest figures. Nothing
is kept on disk unless a row says so. `bare` (tests/bench/bare.c) answers canned replies and stores nothing: what it
costs is the kernel's, and no server with plain reads and writes gets below it; `bare-batched` is the same with a turn's
reads and writes batched through io_uring, as EchoVault does, and `echovault-plain` is EchoVault without that.

There are two generators. redis-benchmark is the known one, but spends more CPU time on a request than the servers do,
so without pipelining it sets the pace, and an idling server serves fewer sockets a turn at a higher cost each.
tests/bench/load.c saturates every server here, bare included (see the column "busy"), so its figures are the sharper.

The first rows stand here, the others in tests/bench: scale.py, latency.py, persistence.py, replication.py, hitratio.py.
A new row is one function marked @row: it gets the Bench, starts servers with bench.server(), keeps its raw figures in
bench.data, shows them with bench.table() and judges them with bench.check().

Each row's figures take the place of its last ones in tests/bench/results.json (with --quick, and wherever --results
says, in another file), from which tests/bench/figures.py then makes the README's section of figures and
tests/bench/plots.py its pictures. The tables of a run are kept in build/bench/results.md.
"""
import argparse
import contextlib
import os
import pathlib
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
from rig import (BUILD, ROWS, WARM_BYTES_A_KEY, WORK, Rig, build_programs, describe_machine, frame,  # noqa: E402
                 machine_time, own_network, receive, row, shares_since, spread, warm_memory)
import results  # noqa: E402

# What EchoVault must reach. CPU: its share of redis-server's CPU time an operation, by commands in a pipeline, and of
# the bare limit's without pipelining, with and without io_uring.
CPU_TARGET = {1: 0.84, 16: 0.42, 64: 0.25}
BARE_TARGET = {"echovault": 0.98, "echovault-plain": 1.08}
BYTES_A_KEY_TARGET = {"set": 30, "setex": 38}
GROWTH_STALL_MS_TARGET = 5
IDLE_CONNECTION_BYTES_TARGET = 512
STARTUP_MS_TARGET = 50

PAYLOAD = 16 + 16  # bytes of a key's name and of its value
# Sizes of the rows: in full, and with --quick.
SIZES = {"rounds": (5, 1), "requests": (300_000, 100), "keys": (1_000_000, 2_000),
         "memory-keys": (3_000_000, 100_000), "growth-keys": (5_000_000, 200_000), "growth-rounds": (3, 1),
         "settle-seconds": (1.0, 0.02), "probe-seconds": (2.0, 0.5), "connections": (10_000, 20), "startups": (10, 2),
         "scale-rounds": (3, 1), "value-connections": (10, 10), "value-most": (1 << 20, 1 << 20),
         "value-bytes": (2 << 30, 4 << 20), "most-keys": (50_000_000, 1_000),
         "footprint-keys": (10_000_000, 20_000), "footprint-steps": (10, 2),
         "latency-rounds": (5, 1), "latency-seconds": (5.0, 0.01),
         "persistence-rounds": (3, 1), "durable-requests": (6_000_000, 50_000), "always-requests": (50_000, 1_000),
         "snapshot-keys": (5_000_000, 50_000), "replication-rounds": (3, 1), "resync-keys": (2_000_000, 50_000),
         "join-keys": (1_000_000, 20_000),
         "hitratio-seeds": (3, 1), "hitratio-seconds": (60, 4), "hitratio-rate": (5_000, 5_000)}


class Sizes:
    """The options, and which sizes a row has used of them."""

    def __init__(self, options):
        self.given, self.used = vars(options), {}

    def __getattr__(self, name):
        if name.replace("_", "-") in SIZES:
            self.used[name] = self.given[name]
        return self.given[name]


class Bench(Rig):
    """The rig, and the figures gathered so far."""

    def __init__(self, options):
        super().__init__(options)
        self.all_options, self.text, self.checks, self.data = options, [], [], {}

    def measure_row(self, name):
        """A row's entry for the file of results."""
        self.options, since, checked = Sizes(self.all_options), machine_time(), len(self.checks)
        machine, started = describe_machine(self.all_options), time.monotonic()
        ROWS[name](self)
        machine |= shares_since(since)
        return {"machine": machine, "seconds": round(time.monotonic() - started), "sizes": self.options.used,
                "checks": self.checks[checked:], "figures": self.data[name]}

    def names(self, *wanted):
        return [name for name in wanted if name in self.options.servers]

    def say(self, *lines):
        self.text += lines
        print("\n".join(lines), flush=True)

    def table(self, title, columns, lines, note=""):
        self.say(f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns))
        for cells in lines:
            self.say("| " + " | ".join([*map(str, cells), *[""] * (len(columns) - len(cells))]) + " |")
        self.say("", *([note, ""] if note else []))

    def check(self, what, value, target, unit="", holds=None):
        """Notes whether value is at most target, or what holds says; gives the cells "target" and "ok" of a line."""
        verdict = "pass" if (value <= target if holds is None else holds) else "MISS"
        self.checks.append({"what": what, "value": round(value, 3), "target": target, "unit": unit, "ok": verdict})
        return [target, verdict]


@row
def cpu(bench):
    """CPU time an operation and operations a second: 50 clients, 16-byte values, uniformly random keys."""
    names = bench.names("redis", "memcached", "echovault", "echovault-plain", "bare", "bare-batched")
    cases = [(g, p, op) for g in bench.options.generators for p in CPU_TARGET for op in ("set", "get")]
    runs = {case: {name: [] for name in names if case[0] == "load" or name in ("redis", "echovault", "bare")}
            for case in cases}
    for _ in range(bench.options.rounds):
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(bench.server(name)) for name in names]
            for server in servers:
                if server.kind != "bare":
                    bench.fill(server, bench.options.keys)
            for generator, pipeline, op in cases:
                generate = bench.redis_benchmark if generator == "redis-benchmark" else None
                for server in servers:
                    if server.name in runs[generator, pipeline, op]:
                        runs[generator, pipeline, op][server.name].append(bench.measure(
                            server, op, bench.options.requests * WORK[pipeline], generate, pipeline=pipeline))
    bench.data["cpu"] = [{"generator": g, "pipeline": p, "op": op, "runs": runs[g, p, op]} for g, p, op in cases]
    report_cpu(bench, names, runs)
    report_throughput(bench, names, runs)


def report_cpu(bench, names, runs):
    pairs = [("echovault", "redis"), ("echovault", "bare"), ("echovault-plain", "bare"), ("bare", "redis")]
    pairs, lines = [pair for pair in pairs if set(pair) <= set(names)], []
    for (generator, pipeline, op), case in runs.items():
        cost = {name: [one["cpu_us"] for one in each] for name, each in case.items()}
        what = f"{op.upper()}, {pipeline} in a pipeline, {generator}"
        shares = {(a, b): [x / y for x, y in zip(cost[a], cost[b])] for a, b in pairs if a in cost and b in cost}
        cells = [spread(cost[name]) if name in cost else "" for name in names]
        cells += [f"{statistics.median(shares[a, b]):.3f} ({min(cost[a]) / min(cost[b]):.3f})" if (a, b) in shares else ""
                  for a, b in pairs]
        if ("echovault", "redis") in shares:
            cells += bench.check(f"CPU share of redis-server's: {what}", statistics.median(shares["echovault", "redis"]),
                                 CPU_TARGET[pipeline])
        for name, target in BARE_TARGET.items():
            if pipeline == 1 and generator == "load" and (name, "bare") in shares:
                bench.check(f"CPU of {name} over the bare limit's, lowest of the rounds: {what}",
                            min(cost[name]) / min(cost["bare"]), target)
        lines.append([generator, pipeline, op.upper(), *cells])
    bench.table(f"Server CPU seconds a million operations, {bench.options.keys:,} keys",
                ["generator", "pipeline", "op", *names, *map("/".join, pairs), "target", "ok"], lines)


def report_throughput(bench, names, runs):
    lines = []
    for (generator, pipeline, op), case in runs.items():
        rates = {name: statistics.median(one["rps"] for one in each) for name, each in case.items()}
        busy = {name: statistics.median(one["cpu_us"] * one["rps"] / 1e6 for one in each) for name, each in case.items()}
        cells = [f"{rates[name]:,.0f}" if name in rates else "" for name in names]
        cells.append(" / ".join(f"{busy[name]:.0%}" if name in busy else "" for name in names))
        if "echovault" in names and "redis" in names:
            ratio, saturated = rates["echovault"] / rates["redis"], busy["echovault"] >= 0.95
            what = f"Requests a second over redis-server's: {op.upper()}, {pipeline} in a pipeline, {generator}"
            cells += [f"{ratio:.2f}", *(bench.check(what, ratio, "over 1", holds=ratio > 1) if saturated
                                        else ("over 1", "not saturated"))]
        lines.append([generator, pipeline, op.upper(), *cells])
    bench.table("Requests a second", ["generator", "pipeline", "op", *names, "busy: " + " / ".join(names),
                                      "echovault/redis", "target", "ok"], lines,
                "busy: how much of its core each server used.")


@row
def memory(bench):
    """Resident bytes a key above its payload, with and without a deadline."""
    keys, lines, names = bench.options.memory_keys, [], bench.names("redis", "memcached", "echovault")
    for op, label in (("set", "without TTL"), ("setex", "with TTL")):
        cost = {name: bytes_a_key(bench, name, keys, op) for name in names}
        bench.data.setdefault("memory", {})[op] = cost
        lines.append([label, *(f"{value:.1f}" for value in cost.values())])
        if "echovault" in cost:
            lines[-1] += bench.check(f"Bytes a key above the payload, {label}", cost["echovault"],
                                     BYTES_A_KEY_TARGET[op])
    bench.table(f"Resident bytes a key above the payload, {keys:,} keys of 16+16 bytes",
                ["keys", *names, "target", "ok"], lines)


def bytes_a_key(bench, name, keys, op):
    with bench.server(name) as server:
        before = server.settled_resident()
        bench.fill(server, keys, op)
        if name != "memcached":
            bench.load(server, "get", keys, pipeline=64, keys=keys)  # look-ups help a running rehash to its end
        return (server.settled_resident() - before) / keys - PAYLOAD


@row
def growth(bench):
    """What one more client waits while the table grows, and under the same load on a table that does not."""
    keys, names = bench.options.growth_keys, bench.names("redis", "echovault", "bare")
    phases = ("idle", "growing", "overwriting")
    runs = {(name, phase): [] for name in names for phase in phases}
    with warm_memory(keys * WARM_BYTES_A_KEY):
        for name in names * bench.options.growth_rounds:
            for phase, figures in zip(phases, measure_growth(bench, name, keys)):
                runs[name, phase].append(figures)
    bench.data["growth"] = [{"server": name, "load": phase, "runs": each} for (name, phase), each in runs.items()]
    lines = []
    for (name, phase), each in runs.items():
        waits = [[one["latency_us"][point] / 1000 for one in each] for point in ("p50", "p99", "p99.9", "max")]
        lines.append([name, phase, *map(spread, waits), spread(one["wake_us"]["max"] / 1000 for one in each),
                      spread((one["waited_ms"] for one in each), 1)])
        if (name, phase) == ("echovault", "growing"):
            # A stall of the server's own is there in every round, so the least disturbed round shows it.
            lines[-1] += bench.check(f"Longest request while growing to {keys:,} keys, quietest round",
                                     min(waits[-1]), GROWTH_STALL_MS_TARGET, "ms")
    bench.table(f"A GET's milliseconds while 8 clients SET {keys:,} keys, 16 in a pipeline",
                ["server", "load", "p50", "p99", "p99.9", "max", "probe late", "server waited", "target", "ok"], lines,
                "idle: no load. overwriting: the same SETs again, so that the table stays. The last two are noise that "
                "the others hold too: how late the kernel woke the probe, how long the server waited for its core.")


def measure_growth(bench, name, keys):
    with bench.server(name) as server:
        bench.load(server, "set", 1, connections=1, keys=1)  # the key that the probe asks for
        with bench.probe(server) as resting:
            time.sleep(bench.options.probe_seconds)
        with bench.probe(server) as growing:
            bench.fill(server, keys, connections=8, pipeline=16)
        with bench.probe(server) as overwriting:
            bench.fill(server, keys, connections=8, pipeline=16)
        return resting, growing, overwriting


@row
def idle(bench):
    """Server memory a connection that has been used and now idles."""
    count, lines = bench.options.connections, []
    for name in bench.names("redis", "echovault"):
        at_once, settled = measure_idle(bench, name, count)
        bench.data.setdefault("idle", {})[name] = {"at_once": at_once, "settled": settled}
        lines.append([name, f"{at_once:,.0f}", f"{settled:,.0f}"])
        if name == "echovault":
            lines[-1] += bench.check("Bytes an idle connection", settled, IDLE_CONNECTION_BYTES_TARGET)
    bench.table(f"Server bytes an idle connection, {count:,} of them",
                ["server", "at once", "after 5 s", "target", "ok"], lines,
                "Each has sent a SET and a GET in one pipeline, and a GET torn in two.")


def measure_idle(bench, name, count):
    with bench.server(name) as server, contextlib.ExitStack() as stack:
        links = [stack.enter_context(server.connect())]
        use_connection(links[0])
        before = server.settled_resident()
        for _ in range(count):
            links.append(stack.enter_context(server.connect()))
            use_connection(links[-1])
        at_once = server.resident()
        time.sleep(5 * bench.options.settle_seconds)
        return (at_once - before) / count, (server.settled_resident() - before) / count


def use_connection(link, key="key:000000000000"):
    torn = frame("GET", key)
    link.sendall(frame("SET", key, "x" * 16) + frame("GET", key) + torn[:20])
    receive(link, len("+OK\r\n$16\r\n") + 18)
    link.sendall(torn[20:])
    receive(link, len("$16\r\n") + 18)


@row
def startup(bench):
    """From starting the process to the first PONG, with nothing to load."""
    names, lines = bench.names("redis", "memcached", "echovault"), []
    times = {name: [] for name in names}
    for name in names * bench.options.startups:
        with bench.server(name) as server:
            times[name].append(server.ready_ms)
    bench.data["startup"] = times
    for name, ms in times.items():
        lines.append([name, spread(ms, 1), f"{max(ms):.1f}"])
        if name == "echovault":
            lines[-1] += bench.check("Startup to the first PONG", statistics.median(ms), STARTUP_MS_TARGET, "ms")
    bench.table("Milliseconds from start to the first PONG",
                ["server", "median (lowest)", "max", "target", "ok"], lines)


import scale  # noqa: E402,F401  these rows come after those above
import latency  # noqa: E402,F401
import persistence  # noqa: E402,F401
import replication  # noqa: E402,F401
import hitratio  # noqa: E402,F401


def read_options():
    parser = argparse.ArgumentParser(description="Measures EchoVault beside its peers and the bare limit.")
    parser.add_argument("--rows", default=",".join(ROWS), help="of %(default)s")
    parser.add_argument("--servers", default="echovault,redis,memcached,bare,echovault-plain,bare-batched",
                        help="of %(default)s")
    parser.add_argument("--generators", default="load,redis-benchmark", help="for the CPU row, of %(default)s")
    parser.add_argument("--echovault", default=str(ROOT / "echovault"), help="the server under test")
    parser.add_argument("--redis", default="redis-server")
    parser.add_argument("--memcached", default="memcached")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--results", type=pathlib.Path, help=f"instead of {results.FILE.relative_to(ROOT)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    for name, (full, quick) in SIZES.items():
        parser.add_argument("--" + name, type=type(full), help=f"{full}, or {quick} with --quick")
    options = parser.parse_args()
    given = vars(options)
    for name, sizes in SIZES.items():
        field = name.replace("-", "_")
        given[field] = sizes[options.quick] if given[field] is None else given[field]
    for field in ("rows", "servers", "generators"):
        unknown = set(given[field].split(",")) - set(parser.get_default(field).split(","))
        if unknown:
            parser.error(f"--{field}: no {', '.join(unknown)}")
        given[field] = given[field].split(",")
    given["results"] = given["results"] or (BUILD / "results.json" if options.quick else results.FILE)
    find_servers(parser, given)
    return options


def find_servers(parser, given):
    """Makes the servers' paths absolute. A peer that is not installed is left out; EchoVault must be there."""
    for name in [name for name in given["servers"] if name in given]:
        path = shutil.which(given[name])
        if path:
            given[name] = os.path.abspath(path)
        elif name == "echovault":
            parser.error(f"no {given[name]}: make it, name another, or leave it out of --servers")
        else:
            given["servers"].remove(name)
            print(f"bench: {name} is not installed and left out", file=sys.stderr)
    if not shutil.which("redis-benchmark"):
        given["generators"] = ["load"]


def leave_out_batched(options):
    """Where the kernel or a sandbox refuses io_uring, EchoVault does without it, and there is no such limit."""
    if "bare-batched" in options.servers and subprocess.run([BUILD / "bare", "probe"]).returncode:
        print("bench: no io_uring here: bare-batched is left out", file=sys.stderr)
        options.servers.remove("bare-batched")


def publish():
    """Renews what the README shows."""
    import figures
    figures.renew()
    try:
        import plots
    except ImportError:
        print("bench: the pictures are not drawn anew: no matplotlib here (Debian: python3-matplotlib)", file=sys.stderr)
    else:
        plots.draw_all(results.read(results.FILE), ROOT / "docs")


def main():
    options = read_options()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {options.load_core})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: told to end"))  # and so to stop its servers
    build_programs()
    leave_out_batched(options)
    bench = Bench(options)
    bench.say("# EchoVault measured", "", *(f"* {what}: {value}" for what, value in describe_machine(options).items()), "")
    with own_network():
        for name in options.rows:
            print(f"bench: {name}: {ROWS[name].__doc__}", file=sys.stderr, flush=True)
            results.update(options.results, name, bench.measure_row(name))
    bench.table("Targets", ["what", "measured", "target", "ok"],
                [[c["what"], f"{c['value']} {c['unit']}", c["target"], c["ok"]] for c in bench.checks])
    (BUILD / "results.md").write_text("\n".join(bench.text))
    if options.results == results.FILE:
        publish()
    return int(options.strict and any(c["ok"] == "MISS" for c in bench.checks))


if __name__ == "__main__":
    sys.exit(main())
