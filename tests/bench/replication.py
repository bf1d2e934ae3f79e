"""The rows of replication: what followers cost their leader, and how soon they serve, beside redis-server.

A leader and its followers are of the same kind. The leader has one core, which its helper thread or its children share.
The followers share the other one with the load: what they use of it, the load has not.
"""
import contextlib
import statistics
import time

from persistence import EVERYSEC, OFF, POLL_SECONDS, median_ratio, save_in_background
from rig import PATIENCE_SECONDS, RAN, WARM_BYTES_A_KEY, fail, row, spread, warm_memory

FOLLOWERS_COST_TARGET = 0.25  # of the throughput without them
RESYNC_MEMORY_TARGET = 0.01
JOINS_STALL_MS_TARGET = 5

LOGS = {"off": OFF, "everysec": EVERYSEC}
AT_ONCE = ("--repl-diskless-sync-delay", "0")  # redis-server waits 5 seconds for more followers
BACKLOG = ("--repl-backlog-size", "16mb")
FOLLOWERS, JOINS = 2, 10
# Log, server, whether there is a snapshot already. Without a log, none goes on being good.
RESYNCS = [("off", "redis", False), ("off", "echovault", False), ("everysec", "redis", False),
           ("everysec", "echovault", False), ("everysec", "echovault", True)]


def leader_of(bench, name, log):
    return bench.server(name, *LOGS[log], *AT_ONCE, *BACKLOG)


def follower_of(bench, leader, log, *extra):
    return bench.server(leader.name, *LOGS[log], *BACKLOG, *extra, cores=[bench.options.load_core])


def wait_for(what, reached):
    until = time.perf_counter() + PATIENCE_SECONDS
    while not reached():
        if time.perf_counter() > until:
            fail(f"a follower does not {what}")
        time.sleep(POLL_SECONDS)


def wait_serving(follower, keys):
    """Until its link is up and it has all keys."""
    wait_for("serve all keys", lambda: follower.info("replication", "master_link_status") == "up" and
             follower.ask("DBSIZE") == b":%d\r\n" % keys)


def follow(leader, follower):
    if not follower.ask("REPLICAOF", "127.0.0.1", str(leader.port)).startswith(b"+"):
        fail(f"{follower.name} does not follow")


@row
def followers(bench):
    """Throughput and CPU time of a leader under SET, 50 clients, with and without two followers."""
    names = bench.names("redis", "echovault")
    cases = [(pipeline, log, name, count) for pipeline in (1, 16) for log in LOGS for count in (0, FOLLOWERS)
             for name in names]
    runs = {case: [] for case in cases}
    for case in cases * bench.options.replication_rounds:
        runs[case].append(measure_followers(bench, *case))
    bench.data["followers"] = [{"pipeline": pipeline, "log": log, "server": name, "followers": count, "runs": each}
                               for (pipeline, log, name, count), each in runs.items()]
    bench.table(f"SET with and without {FOLLOWERS} followers, 50 clients",
                ["pipeline", "log", "server", "requests a second alone", "with followers", "lost",
                 "leader's CPU us an op alone", "with followers", "lost by CPU", "seconds behind", "resyncs", "target",
                 "ok"],
                [followers_line(bench, case, runs[(*case, 0)], runs[(*case, FOLLOWERS)])
                 for case in dict.fromkeys(case[:-1] for case in cases)],
                "The followers share the load's core, so that what is lost of the throughput is theirs, too, most of it "
                "with 16 in a pipeline. lost by CPU: what the leader's own core can no longer serve, all threads counted, "
                "up to where the followers had everything. seconds behind: how long that was after the load's end.")


def measure_followers(bench, pipeline, log, name, count):
    requests = bench.options.durable_requests * pipeline // 16
    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(leader_of(bench, name, log))
        bench.fill(leader, bench.options.keys)
        replicas = [stack.enter_context(follower_of(bench, leader, log)) for _ in range(count)]
        for replica in replicas:
            follow(leader, replica)
            wait_serving(replica, bench.options.keys)
        cpu, syncs = leader.seconds(RAN), int(leader.info("stats", "sync_full"))
        rps, ended = bench.load(leader, "set", requests, pipeline=pipeline), time.perf_counter()
        offset = int(leader.info("replication", "master_repl_offset"))
        for replica in replicas:
            wait_for("catch up", lambda r=replica: int(r.info("replication", "slave_repl_offset")) >= offset)
        return {"rps": rps, "cpu_us": (leader.seconds(RAN) - cpu) / requests * 1e6,
                "behind": time.perf_counter() - ended, "resyncs": int(leader.info("stats", "sync_full")) - syncs}


def followers_line(bench, case, alone, followed):
    pipeline, log, name = case
    lost = 1 - median_ratio(followed, alone, "rps")
    by_cpu = 1 - median_ratio(alone, followed, "cpu_us")
    cells = [*case]
    for field, digits, cost in (("rps", 0, lost), ("cpu_us", 3, by_cpu)):
        cells += [*(spread((one[field] for one in each), digits) for each in (alone, followed)), f"{cost:.1%}"]
    cells += [spread((one["behind"] for one in followed), 2), sum(one["resyncs"] for one in followed)]
    if name == "echovault":  # with so many in a pipeline the load's core is full, and not the leader's
        share, of = (lost, "throughput") if pipeline == 1 else (by_cpu, "the leader's CPU")
        cells += bench.check(f"What {FOLLOWERS} followers cost of {of}, {pipeline} in a pipeline, log {log}", share,
                             FOLLOWERS_COST_TARGET)
    return cells


@row
def resync(bench):
    """From starting an empty follower to its serving all keys, and what that costs the leader in memory."""
    keys = bench.options.resync_keys
    cases = [case for case in RESYNCS if case[1] in bench.names("redis", "echovault")]
    runs = {case: [] for case in cases}
    with warm_memory(2 * keys * WARM_BYTES_A_KEY):
        for case in cases * bench.options.replication_rounds:
            runs[case].append(measure_resync(bench, keys, *case))
    bench.data["resync"] = [{"log": log, "server": name, "snapshot": saved, "runs": each}
                            for (log, name, saved), each in runs.items()]
    bench.table(f"A full resync of {keys:,} keys of 16+16 bytes",
                ["log", "server", "snapshot", "seconds", "leader's CPU seconds", "follower's", "leader's MB before",
                 "memory growth", "echovault/redis", "target", "ok"],
                [resync_line(bench, case, each, runs.get((case[0], "redis", False))) for case, each in runs.items()],
                "snapshot: whether one is on the leader's disk already; redis-server makes one for each sync. Memory "
                "growth is the leader's own resident peak; a child's pages are not counted.")


def measure_resync(bench, keys, log, name, saved):
    with leader_of(bench, name, log) as leader:
        bench.fill(leader, keys)
        if saved:
            save_in_background(leader)
        leader.settled_resident()
        leader.reset_peak()
        before, cpu = leader.peak(), leader.seconds(RAN)
        with follower_of(bench, leader, log, "--replicaof", f"127.0.0.1 {leader.port}") as replica:
            wait_serving(replica, keys)
            return {"seconds": time.perf_counter() - replica.started, "leader_cpu": leader.seconds(RAN) - cpu,
                    "follower_cpu": replica.seconds(RAN), "before": before, "growth": leader.peak() / before - 1}


def resync_line(bench, case, each, theirs):
    log, name, saved = case
    cells = [log, name, "yes" if saved else "no",
             *(spread(one[field] for one in each) for field in ("seconds", "leader_cpu", "follower_cpu")),
             spread((one["before"] / 1e6 for one in each), 1), f"{max(one['growth'] for one in each):.2%}"]
    if name != "echovault":
        return cells
    label = f"log {log}, snapshot {'there' if saved else 'to be made'}"
    bench.check(f"Growth of the leader's resident memory at a full resync, {label}",
                max(one["growth"] for one in each), RESYNC_MEMORY_TARGET)
    if theirs:
        ratio = median_ratio(each, theirs, "seconds")
        cells += [f"{ratio:.2f}", *bench.check(f"Time of a full resync over redis-server's, {label}", ratio, 1)]
    return cells


@row
def joins(bench):
    """What one more client of the leader waits while ten followers join at once."""
    keys, names, lines = bench.options.join_keys, bench.names("redis", "echovault"), []
    runs = {name: [] for name in names}
    with warm_memory(JOINS * keys * WARM_BYTES_A_KEY):
        for name in names * bench.options.replication_rounds:
            runs[name].append(measure_joins(bench, name, keys))
    bench.data["joins"] = runs
    for name, each in runs.items():
        for phase in ("idle", "joining"):
            windows = [one[phase] for one in each]
            waits = [[w["latency_us"][point] / 1000 for w in windows] for point in ("p50", "p99", "p99.9", "max")]
            lines.append([name, phase, *map(spread, waits), spread(w["wake_us"]["max"] / 1000 for w in windows),
                          spread((w["waited_ms"] for w in windows), 1),
                          *([spread((w["seconds"] for w in windows), 1)] if phase == "joining" else [""])])
        if name == "echovault":
            # A stall of the server's own is there in every round, so the least disturbed round shows it.
            lines[-1] += bench.check(f"Longest request while {JOINS} followers join, quietest round", min(waits[-1]),
                                     JOINS_STALL_MS_TARGET, "ms")
    bench.table(f"A GET's milliseconds while {JOINS} followers of {keys:,} keys join at once",
                ["server", "load", "p50", "p99", "p99.9", "max", "probe late", "server waited", "seconds", "target",
                 "ok"], lines,
                "With a log (everysec); no snapshot is there when they come. idle: no follower. seconds: until all "
                "serve all keys. probe late and server waited: as above, noise that the others hold too.")


def measure_joins(bench, name, keys):
    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(leader_of(bench, name, "everysec"))
        bench.fill(leader, keys)
        replicas = [stack.enter_context(follower_of(bench, leader, "everysec")) for _ in range(JOINS)]
        with bench.probe(leader) as resting:
            time.sleep(bench.options.probe_seconds)
        with bench.probe(leader) as joining:
            began = time.perf_counter()
            for replica in replicas:
                follow(leader, replica)
            for replica in replicas:
                wait_serving(replica, keys)
            joining["seconds"] = time.perf_counter() - began
        return {"idle": resting, "joining": joining}
