"""The rows of persistence: what durability, snapshots and starts cost, beside redis-server.

Data files go to the folder for temporary files, which must be on a real disk for the figures of fsync to mean
anything; the first table says which one it is. The log is never rewritten on its own here, so that a row measures
either the log or a snapshot. Where a server is pinned, its helper threads and children share its core.
"""
import contextlib
import statistics
import tempfile
import time

from rig import RAN, WARM_BYTES_A_KEY, fail, row, run, spread, warm_memory

EVERYSEC_COST_TARGET = 0.15  # of the throughput without persistence
BGSAVE_STALL_MS_TARGET = 5
BGSAVE_MEMORY_TARGET = 0.05
SAVE_CPU_TARGET = 0.5  # of redis-server's
LOAD_SPEED_TARGET = 2  # times redis-server's
PATIENCE_TARGET = 2  # times the p99 without writers

LOG = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0", "--aof-use-rdb-preamble", "no", "--appendfsync")
OFF, EVERYSEC, ALWAYS = ("--appendonly", "no"), (*LOG, "everysec"), (*LOG, "always")
POLL_SECONDS = 0.02


@row
def durable(bench):
    """Throughput and CPU time of SET without a log, with everysec and with always: 50 clients."""
    names, rounds = bench.names("redis", "echovault"), bench.options.persistence_rounds
    cases = {("off", 16): (OFF, bench.options.durable_requests),
             ("everysec", 16): (EVERYSEC, bench.options.durable_requests),
             **{("always", p): (ALWAYS, bench.options.always_requests * p) for p in (1, 16)}}
    runs = {case: {name: [] for name in names} for case in cases}
    for (case, (policy, requests)), name in [(c, n) for _ in range(rounds) for c in cases.items() for n in names]:
        runs[case][name].append(measure_durable(bench, name, policy, requests, pipeline=case[1]))
    bench.data["durable"] = [{"appendfsync": f, "pipeline": p, "runs": each} for (f, p), each in runs.items()]
    disk = " ".join(run(["df", "--output=fstype,source", tempfile.gettempdir()]).split()[-2:])
    bench.table("SET with and without a log, 50 clients",
                ["log", "pipeline", *(f"{name}: {what}" for name in names for what in (
                    "requests a second", "main thread's CPU us", "all threads'", "cost")), "target", "ok"],
                [durable_line(bench, names, case, each, runs["off", 16]) for case, each in runs.items()],
                f"Files on {disk}. CPU time is that of one SET. Each server is pinned to one core, which its helper "
                "threads share; the load has another. cost: the share of the throughput without a log that is lost.")


def measure_durable(bench, name, policy, requests, pipeline):
    with bench.server(name, *policy) as server:
        bench.fill(server, bench.options.keys)
        main, every = server.seconds(RAN, server.process.pid), server.seconds(RAN)
        rps = bench.load(server, "set", requests, pipeline=pipeline)
        return {"rps": rps, "main_us": (server.seconds(RAN, server.process.pid) - main) / requests * 1e6,
                "cpu_us": (server.seconds(RAN) - every) / requests * 1e6}


def durable_line(bench, names, case, each, off):
    costs, cells = {}, []
    for name in names:
        costs[name] = statistics.median(1 - a["rps"] / b["rps"] for a, b in zip(each[name], off[name]))
        cells += [f"{statistics.median(one['rps'] for one in each[name]):,.0f}",
                  *(spread(one[field] for one in each[name]) for field in ("main_us", "cpu_us")),
                  f"{costs[name]:.1%}" if case[0] == "everysec" else ""]
    if case[0] == "everysec" and "echovault" in names:
        cells += bench.check("Throughput that everysec costs: SET, 16 in a pipeline", costs["echovault"],
                             EVERYSEC_COST_TARGET)
    if case[0] == "always" and {"redis", "echovault"} <= set(names):
        ratio = median_ratio(each["echovault"], each["redis"], "rps")
        cells += bench.check(f"Requests a second over redis-server's under always: SET, {case[1]} in a pipeline",
                             ratio, "at least 1", holds=ratio >= 1)
    return [*case, *cells]


def median_ratio(ours, theirs, field):
    """The median over the rounds of one figure's ratio within a round."""
    return statistics.median(a[field] / b[field] for a, b in zip(ours, theirs))


@row
def bgsave(bench):
    """What BGSAVE costs clients that read and write meanwhile, and how much memory it takes."""
    keys, names = bench.options.snapshot_keys, bench.names("redis", "echovault")
    runs = {name: [] for name in names}
    with warm_memory(2 * keys * WARM_BYTES_A_KEY):
        for name in names * bench.options.persistence_rounds:
            runs[name].append(measure_bgsave(bench, name, keys))
    bench.data["bgsave"] = runs
    lines = []
    for name, each in runs.items():
        for phase in ("BGSAVE", "control"):
            windows = [one[phase] for one in each]
            waits = [[w["latency_us"][point] / 1000 for w in windows] for point in ("p50", "p99", "p99.9", "max")]
            lines.append([name, phase, *map(spread, waits), spread((w["wake_us"]["max"] / 1000 for w in windows)),
                          spread((w["seconds"] for w in windows), 1), spread((w["rps"] for w in windows), 0)])
        lines[-2].append(f"{statistics.median(one['growth'] for one in each):.1%}")
    bench.table(f"BGSAVE of {keys:,} keys while 8 clients SET them at random, 16 in a pipeline",
                ["server", "window", "GET's ms: p50", "p99", "p99.9", "max", "probe late", "seconds",
                 "SETs a second", "memory growth"], lines,
                "Not pinned to one core: a server, its threads and its child have the load's core, too. No log. "
                "control: the same load for as long without BGSAVE. Memory growth is that of a second BGSAVE, which no "
                "probe watches: the most against what was resident before the first, a child's own pages included.")
    if "echovault" in names:
        check_bgsave(bench, runs)


def measure_bgsave(bench, name, keys):
    with bench.server(name, *OFF, cores=[bench.options.server_core, bench.options.load_core]) as server:
        bench.fill(server, keys)
        with bench.steady_load(server, "set", connections=8, pipeline=16, keys=keys):
            time.sleep(1)
            before = server.resident_with_children()
            saving = watch(bench, server, lambda: save_in_background(server))
            control = watch(bench, server, lambda: time.sleep(saving["seconds"]))
            growth = max(save_in_background(server, server.resident_with_children)) / before - 1
    return {"BGSAVE": saving, "control": control, "growth": growth}


def watch(bench, server, act):
    """The probe's figures while act() runs, how long that took and how many SETs a second were served."""
    with bench.probe(server) as figures:
        started, sets = time.perf_counter(), served_sets(server)
        act()
        figures["seconds"] = time.perf_counter() - started
        figures["rps"] = (served_sets(server) - sets) / figures["seconds"]
    return figures


def served_sets(server):
    return int(server.info("commandstats", "cmdstat_set:calls"))


def save_in_background(server, sample=lambda: None):
    """BGSAVE from its start to its end; samples taken meanwhile."""
    if not server.ask("BGSAVE").startswith(b"+"):
        fail(f"{server.name} does not begin a BGSAVE")
    samples = [sample()]
    while server.info("persistence", "rdb_bgsave_in_progress") != "0":
        samples.append(sample())
        time.sleep(POLL_SECONDS)
    if server.info("persistence", "rdb_last_bgsave_status") != "ok":
        fail(f"{server.name}'s BGSAVE failed")
    return samples


def check_bgsave(bench, runs):
    ours = runs["echovault"]
    longest = [[one[phase]["latency_us"]["max"] / 1000 for one in ours] for phase in ("BGSAVE", "control")]
    # A stall of the server's own is there in every round, so the least disturbed round shows it.
    bench.check("Longest GET during BGSAVE over the control's, quietest rounds", min(longest[0]) - min(longest[1]),
                BGSAVE_STALL_MS_TARGET, "ms")
    bench.check("Growth of resident memory during BGSAVE", statistics.median(one["growth"] for one in ours),
                BGSAVE_MEMORY_TARGET)
    if "redis" in runs:
        ratio = median_ratio([one["BGSAVE"] for one in ours], [one["BGSAVE"] for one in runs["redis"]], "rps")
        bench.check("SETs a second during BGSAVE over redis-server's", ratio, "at least 1", holds=ratio >= 1)


@row
def save(bench):
    """CPU time of SAVE."""
    keys, names = bench.options.snapshot_keys, bench.names("redis", "echovault")
    runs = {name: [] for name in names}
    with warm_memory(len(names) * keys * WARM_BYTES_A_KEY), contextlib.ExitStack() as stack:
        servers = [stack.enter_context(bench.server(name, *OFF)) for name in names]
        for server in servers:
            bench.fill(server, keys)
        for server in servers * bench.options.persistence_rounds:
            cpu, started = server.seconds(RAN), time.perf_counter()
            save_at_once(server)
            runs[server.name].append({"cpu": server.seconds(RAN) - cpu, "wall": time.perf_counter() - started})
    bench.data["save"], lines = runs, []
    for name, each in runs.items():
        lines.append([name, *(spread(one[field] for one in each) for field in ("cpu", "wall"))])
        if name == "echovault" and "redis" in names:
            share = median_ratio(each, runs["redis"], "cpu")
            lines[-1] += [f"{share:.3f}", *bench.check("CPU share of redis-server's: SAVE", share, SAVE_CPU_TARGET)]
    bench.table(f"Seconds for SAVE of {keys:,} keys", ["server", "CPU, all threads", "wall", "CPU echovault/redis",
                                                       "target", "ok"], lines)


def save_at_once(server):
    if server.ask("SAVE") != b"+OK\r\n":
        fail(f"{server.name} does not SAVE")


@row
def load(bench):
    """From starting the process to the first PONG, with a snapshot or a log to load."""
    keys, names, lines = bench.options.snapshot_keys, bench.names("redis", "echovault"), []
    for source, policy in (("snapshot", OFF), ("log", EVERYSEC)):
        runs = measure_load(bench, names, keys, source, policy)
        bench.data.setdefault("load", {})[source] = runs
        for field in ("cpu", "wall"):
            lines.append([source, field, *(spread(one[field] for one in each) for each in runs.values())])
            if {"redis", "echovault"} <= set(names):
                ratio = median_ratio(runs["redis"], runs["echovault"], field)
                lines[-1] += [f"{ratio:.2f}", *bench.check(
                    f"Speed over redis-server's at a start from a {source}, by {field} seconds", ratio,
                    f"at least {LOAD_SPEED_TARGET}", holds=ratio >= LOAD_SPEED_TARGET)]
    bench.table(f"Seconds of a start with {keys:,} keys",
                ["from", "seconds", *names, "redis/echovault", "target", "ok"], lines,
                "Each loads the file that it wrote, from the page cache, on one core. cpu: of all threads.")


def measure_load(bench, names, keys, source, policy):
    runs = {name: [] for name in names}
    with warm_memory(len(names) * keys * WARM_BYTES_A_KEY), contextlib.ExitStack() as stack:
        servers = [stack.enter_context(bench.server(name, *policy)) for name in names]
        for server in servers:
            bench.fill(server, keys)
            if source == "snapshot":
                save_at_once(server)
        for server in servers * bench.options.persistence_rounds:
            server.restart(policy)
            runs[server.name].append({"cpu": server.seconds(RAN), "wall": server.ready_ms / 1000})
            if server.ask("DBSIZE") != b":%d\r\n" % keys:
                fail(f"{server.name} did not load {keys} keys from its {source}")
    return runs


@row
def patience(bench):
    """GETs' latency while others wait for fsync, and without those."""
    names, lines = bench.names("redis", "echovault"), []
    runs = {name: [] for name in names}
    for name in names * bench.options.persistence_rounds:
        runs[name].append(measure_patience(bench, name))
    bench.data["patience"] = runs
    for name, each in runs.items():
        for phase in ("no writers", "writers"):
            lines.append([name, phase, *(spread(one[phase]["latency_us"][point] / 1000 for one in each)
                                         for point in ("p50", "p99", "p99.9", "max"))])
        ratio = statistics.median(one["writers"]["latency_us"]["p99"] / one["no writers"]["latency_us"]["p99"]
                                  for one in each)
        lines[-1].append(f"{ratio:.2f}")
        if name == "echovault":
            lines[-1] += bench.check("GETs' p99 with writers under always over that without", ratio, PATIENCE_TARGET)
    bench.table("A GET's milliseconds while 20 clients SET under appendfsync always",
                ["server", "load", "p50", "p99", "p99.9", "max", "p99 with/without", "target", "ok"], lines,
                "Each server is pinned to one core, which its helper threads share; load and probe have another.")


def measure_patience(bench, name):
    with bench.server(name, *ALWAYS) as server:
        bench.fill(server, bench.options.keys)
        with bench.probe(server) as resting:
            time.sleep(bench.options.probe_seconds)
        with bench.steady_load(server, "set", connections=20, pipeline=1, keys=bench.options.keys):
            with bench.probe(server) as writing:
                time.sleep(bench.options.probe_seconds)
    return {"no writers": resting, "writers": writing}
