"""The rows of scale: what an operation costs over the length of values, connections and keys, and a key over their number.

All of them with load.c, which keeps the servers saturated but for a single connection, and with nothing on disk.
"""
import contextlib
import statistics

from persistence import median_ratio
from rig import WORK, available_memory, row, spread

PAYLOAD = 16 + 16  # bytes of a key's name and of its value
LARGE_VALUES_TARGET = 1.2  # times redis-server's bytes a second at 1 MB
MANY_KEYS, MANY_KEYS_TARGET = 10_000_000, 0.40  # of redis-server's CPU time at so many keys, 64 in a pipeline
FOOTPRINT_TARGET = 24  # bytes, the mean over a table's growth tenfold
SKEW = 0.99
# Operation, commands in a pipeline, Zipf exponent.
ACCESSES = [("get", 1, 0), ("set", 1, 0), ("get", 64, 0), ("set", 64, 0), ("get", 64, SKEW), ("set", 64, SKEW)]
VALUE_STEP = 16
BYTES_A_KEY = 110  # the payload included, on the average of the servers, while a table grows


def rate_and_cost(each, factor=1, digits=0):
    """Two cells: the median rate, times a factor, and the CPU time an operation."""
    return [f"{statistics.median(one['rps'] for one in each) * factor:,.{digits}f}", spread(one["cpu_us"] for one in each)]


@row
def values(bench):
    """Bytes a second and CPU time an operation for values of 16 bytes to 1 MB, in both directions."""
    names, sizes = bench.names("redis", "memcached", "echovault", "bare"), [16]
    while sizes[-1] < bench.options.value_most:
        sizes.append(sizes[-1] * VALUE_STEP)
    runs = {(size, op): {name: [] for name in names} for size in sizes for op in ("set", "get")}
    for size in sizes * bench.options.scale_rounds:
        for op, name, figures in measure_values(bench, names, size):
            runs[size, op][name].append(figures)
    bench.data["values"] = [{"size": size, "op": op, "runs": each} for (size, op), each in runs.items()]
    lines = [[f"{size:,}", op.upper(), *(cell for name in names for cell in rate_and_cost(each[name], size / 1e6, 1)),
              *check_value(bench, size, op, each)] for (size, op), each in runs.items()]
    bench.table(f"Values' megabytes a second, {bench.options.value_connections} connections",
                ["bytes", "op", *(f"{name}{what}" for name in names for what in ("", ": CPU us")), "echovault/redis",
                 "target", "ok"], lines, "Only the values' own bytes are counted. SET: towards the server.")


def measure_values(bench, names, size):
    connections, limit = bench.options.value_connections, bench.options.value_bytes
    keys = max(1, min(bench.options.keys, limit // 8 // size))
    requests = max(connections, min(bench.options.requests, limit // size))
    extra = {"memcached": ["-I", "8m"], "bare": [str(size)]}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(bench.server(name, *extra.get(name, []))) for name in names]
        for server in servers:
            if server.kind != "bare":
                bench.fill(server, keys, size=size, pipeline=max(1, min(64, 65536 // size)), connections=connections)
        for op in ("set", "get"):
            for server in servers:
                yield op, server.name, bench.measure(server, op, requests, connections=connections, keys=keys, size=size)


def check_value(bench, size, op, each):
    if not {"redis", "echovault"} <= set(each):
        return []
    ratio = median_ratio(each["echovault"], each["redis"], "rps")
    if size < 1 << 20:
        return [f"{ratio:.2f}"]
    what = f"Bytes a second over redis-server's: {op.upper()}, {size:,} bytes"
    return [f"{ratio:.2f}", *bench.check(what, ratio, f"at least {LARGE_VALUES_TARGET}", holds=ratio >= LARGE_VALUES_TARGET)]


@row
def connections(bench):
    """CPU time an operation and operations a second with 1 to 10,000 connections that are all busy."""
    names, counts = bench.names("redis", "memcached", "echovault", "bare"), [1]
    while counts[-1] < bench.options.connections:
        counts.append(min(counts[-1] * 10, bench.options.connections))
    runs = {(count, op): {name: [] for name in names} for count in counts for op in ("set", "get")}
    for _ in range(bench.options.scale_rounds):
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(bench.server(name)) for name in names]
            for server in servers:
                if server.kind != "bare":
                    bench.fill(server, bench.options.keys)
            for (count, op), server in [(case, server) for case in runs for server in servers]:
                requests = max(count, bench.options.requests // (1 if count >= 10 else 5))
                runs[count, op][server.name].append(bench.measure(server, op, requests, connections=count))
    bench.data["connections"] = [{"connections": count, "op": op, "runs": each} for (count, op), each in runs.items()]
    report(bench, "Requests a second by connections, no pipeline", ["connections", "op"], names,
           {(f"{count:,}", op.upper()): each for (count, op), each in runs.items()},
           "The generator needs a connection's reply before it asks again: with one, both wait for each other in turn. "
           "Connecting is counted, too.")


def report(bench, title, columns, names, runs, note=""):
    both = {"redis", "echovault"} <= set(names)
    bench.table(title, [*columns, *(f"{name}{what}" for name in names for what in ("", ": CPU us")),
                        "CPU echovault/redis"],
                [[*case, *(cell for name in names for cell in rate_and_cost(each[name])),
                  *([f"{median_ratio(each['echovault'], each['redis'], 'cpu_us'):.3f}"] if both else [])]
                 for case, each in runs.items()], note)


def key_counts(bench, servers):
    """A thousand, and ten times as many each time, up to what these servers can hold all at once."""
    most, room = bench.options.most_keys, available_memory() // (servers * BYTES_A_KEY)
    if most > room:
        bench.say(f"The memory that is free has room for {room:,} keys in each server, and not for {most:,}.", "")
    counts = [1000]
    while counts[-1] < min(most, room):
        counts.append(min(counts[-1] * 10, most, room))
    return counts


@row
def keys(bench):
    """CPU time an operation with a thousand keys and ten times as many each time, uniform and Zipf."""
    names = bench.names("redis", "memcached", "echovault")
    counts = key_counts(bench, len(names))
    runs = {(count, *access): {name: [] for name in names} for count in counts for access in ACCESSES}
    for _ in range(bench.options.scale_rounds):
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(bench.server(name)) for name in names]
            for held, count in zip([0, *counts], counts):
                for server in servers:
                    bench.fill(server, count, first=held)
                for (op, pipeline, zipf), server in [(access, server) for access in ACCESSES for server in servers]:
                    runs[count, op, pipeline, zipf][server.name].append(bench.measure(
                        server, op, bench.options.requests * WORK[pipeline], pipeline=pipeline, keys=count, zipf=zipf))
    bench.data["keys"] = [{"keys": count, "op": op, "pipeline": pipeline, "zipf": zipf, "runs": each}
                          for (count, op, pipeline, zipf), each in runs.items()]
    report(bench, "Requests a second by keys, 50 clients", ["keys", "op", "pipeline", "choice"], names,
           {(f"{count:,}", op.upper(), pipeline, f"Zipf {zipf}" if zipf else "uniform"): each
            for (count, op, pipeline, zipf), each in runs.items()})
    for (count, op, pipeline, zipf), each in runs.items():
        if count >= MANY_KEYS and pipeline == 64 and not zipf and {"redis", "echovault"} <= set(names):
            bench.check(f"CPU share of redis-server's: {op.upper()}, 64 in a pipeline, {count:,} keys",
                        median_ratio(each["echovault"], each["redis"], "cpu_us"), MANY_KEYS_TARGET)


@row
def footprint(bench):
    """Resident bytes a key above its payload, as a table grows tenfold."""
    most, steps = bench.options.footprint_keys, bench.options.footprint_steps
    names = bench.names("redis", "memcached", "echovault")
    counts = [most // steps * step for step in range(1, steps + 1)]
    costs = {name: list(measure_footprint(bench, name, counts)) for name in names}
    bench.data["footprint"] = [{"keys": count, "bytes": dict(zip(names, each))}
                               for count, each in zip(counts, zip(*costs.values()))]
    lines = [[f"{count:,}", *(f"{cost:.1f}" for cost in each)] for count, each in zip(counts, zip(*costs.values()))]
    lines.append(["mean", *(f"{statistics.mean(each):.1f}" for each in costs.values())])
    if "echovault" in costs:
        lines[-1] += bench.check(f"Bytes a key above the payload, mean over {counts[0]:,} to {most:,} keys",
                                 statistics.mean(costs["echovault"]), FOOTPRINT_TARGET)
    bench.table("Resident bytes a key above the payload, keys of 16+16 bytes, as a table grows",
                ["keys", *names, "target", "ok"], lines)


def measure_footprint(bench, name, counts):
    with bench.server(name) as server:
        before = server.settled_resident()
        for held, count in zip([0, *counts], counts):
            bench.fill(server, count, first=held)
            bench.load(server, "get", count // 4, pipeline=64, keys=count)  # look-ups help a running rehash to its end
            yield (server.settled_resident() - before) / count - PAYLOAD
