"""The row of latency under load: requests come at 70% of the highest rate, whatever becomes of those before them.

A latency counts from when its request was due (see load.c), so a pause is felt by all that were due in it. A server's
one core is also that of its helper threads and of the child that redis-server forks for BGSAVE.
"""
import json
import statistics
import subprocess
import time

from persistence import EVERYSEC, OFF
from rig import fail, frame, row, run, spread

SHARE = 0.7
POINTS = ("p50", "p99", "p99.9", "max")
AT_REDIS_RATE = "echovault at redis-server's rate"
# Name, operation, what is kept on disk.
PHASES = {"GET": ("get", OFF), "SET": ("set", OFF), "SET, BGSAVE running": ("set", OFF),
          "SET, appendfsync everysec": ("set", EVERYSEC)}
BGSAVE_EVERY_SECONDS = 0.25


@row
def latency(bench):
    """Latency percentiles at 70% of a server's highest rate: 50 clients, no pipeline."""
    names = bench.names("redis", "memcached", "echovault")
    runs = {phase: {} for phase in PHASES}
    for _ in range(bench.options.latency_rounds):
        peaks = {}
        for phase, name in [(phase, name) for phase in PHASES for name in names]:
            if name != "memcached" or phase in ("GET", "SET"):
                for label, figures in measure_latency(bench, name, phase, peaks):
                    runs[phase].setdefault(label, []).append(figures)
    bench.data["latency"] = [{"phase": phase, "runs": each} for phase, each in runs.items()]
    lines = [[phase, label, f"{statistics.median(one['rate'] for one in each):,.0f}",
              *(spread((one[point] for one in each), 0) for point in POINTS),
              *(check_latency(bench, phase, each, labels.get("redis")) if label == "echovault" else [])]
             for phase, labels in runs.items() for label, each in labels.items()]
    bench.table(f"Microseconds a request waits at {SHARE:.0%} of the highest rate, 50 clients, {bench.options.keys:,} keys",
                ["load", "server", "requests a second", *POINTS, "p99.9 over redis-server's", "target", "ok"], lines,
                "The highest rate is that of the same operation in the closed loop, with nothing on disk, in the same "
                "round. BGSAVE: one after another. All that a server starts shares its core.")


def measure_latency(bench, name, phase, peaks):
    """Finds the server's highest rate of the operation where that is not known; yields a label and its figures."""
    op, policy = PHASES[phase]
    with bench.server(name, *(policy if name != "memcached" else [])) as server:
        bench.fill(server, bench.options.keys)
        if (name, op) not in peaks:
            peaks[name, op] = bench.load(server, op, bench.options.requests)
        rates = {name: peaks[name, op]}
        if name == "echovault" and ("redis", op) in peaks:
            rates[AT_REDIS_RATE] = peaks["redis", op]
        for label, peak in rates.items():
            yield label, measure_at(bench, server, op, SHARE * peak, "BGSAVE" in phase)


def measure_at(bench, server, op, rate, saving):
    command = bench.load_command(server, op, max(1, int(rate * bench.options.latency_seconds)), rate=rate)
    output = save_meanwhile(server, command) if saving else run(command)
    return {"rate": rate, **json.loads(output)["latency_us"]}


def save_meanwhile(server, command):
    """What the command prints; a BGSAVE is asked for all the time, by as little as can be on the generator's core."""
    started = 0
    with server.connect() as link, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not started or process.poll() is None:
            link.sendall(frame("BGSAVE"))
            started += link.recv(200).startswith(b"+")
            time.sleep(BGSAVE_EVERY_SECONDS)
        if process.returncode:
            fail(f"{server.name}: no latency during BGSAVE")
        return process.stdout.read()


def check_latency(bench, phase, ours, theirs):
    if not theirs:
        return []
    ratio = statistics.median(a["p99.9"] / b["p99.9"] for a, b in zip(ours, theirs))
    return [f"{ratio:.2f}", *bench.check(f"p99.9 at {SHARE:.0%} of the highest rate over redis-server's: {phase}", ratio, 1)]
