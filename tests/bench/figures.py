"""The README's figures, made from the file of results: python3 tests/bench/figures.py writes them.

Each stands between lines <!-- figures: NAME --> and <!-- end --> for a NAME of PARTS. A row that was never measured
shows nothing, and a picture whose rows were not measured is not shown. Figures are medians over the rounds.
"""
import re
import statistics

import results
from persistence import median_ratio

README = results.FILE.parents[2] / "README.md"
NAMES = {"redis": "redis-server", "memcached": "memcached", "echovault": "EchoVault",
         "echovault-plain": "EchoVault without io_uring", "bare": "bare", "bare-batched": "bare, batched"}
RATED = ("redis", "memcached", "echovault")
QUIET_SHARE = 0.1  # of the machine's time: what others than the bench may take of it
POINTS = ("p50", "p99", "p99.9")


def median(runs, *path):
    """The median over the rounds of what path leads to in each."""
    values = []
    for one in runs:
        for step in path:
            one = one[step]
        values.append(one)
    return statistics.median(values)


def table(columns, lines):
    return ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns),
            *("| " + " | ".join(map(str, line)) + " |" for line in lines)] if lines else []


def named(names):
    return [NAMES.get(name, name) for name in names]


def ratio(a, b, form=".2f"):
    return format(a / b, form) if a is not None and b else ""


def machine(rows):
    if not rows:
        return []
    machines = [entry["machine"] for entry in rows.values()]
    days = sorted({one["when"] for one in machines})
    listed = lambda field: " and ".join(sorted({one[field] for one in machines if field in one}))  # noqa: E731
    minutes = sum(entry.get("seconds", 0) for entry in rows.values()) / 60
    taken = max(one.get("stolen", 0) + one.get("others", 0) for one in machines)
    other = [f"Other work had up to {taken:.0%} of the machine: rates and latencies are worth little."]
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return [f"Measured {when} (UTC) on {listed('cpu')}, Linux {listed('kernel')}: EchoVault {listed('echovault')} beside "
            f"redis-server {listed('redis')} and memcached {listed('memcached')}"
            f"{f', in {minutes:.0f} minutes' if all('seconds' in entry for entry in rows.values()) else ''}.",
            *(other if taken > QUIET_SHARE else [])]


def cpu(rows):
    cases = [case for case in rows["cpu"]["figures"] if case["generator"] == "load"]
    names = list(cases[0]["runs"])
    lines = []
    for case in cases:
        cost = {name: median(each, "cpu_us") for name, each in case["runs"].items()}
        rates = [f"{median(case['runs'][name], 'rps'):,.0f}" for name in RATED if name in cost]
        shares = [ratio(cost.get("echovault"), cost.get(other)) for other in ("redis", "bare")]
        lines.append([case["pipeline"], case["op"].upper(), *(f"{cost[name]:.2f}" for name in names), *shares, *rates])
    rated = [f"requests a second: {NAMES[name]}" for name in RATED if name in names]
    intro = f"50 clients, {rows['cpu']['sizes']['keys']:,} keys of 16 bytes with values of 16 bytes, chosen uniformly:"
    heads = ["commands in a pipeline", "op", *(f"{name}: us" for name in named(names)), "EchoVault / redis-server",
             "EchoVault / bare", *rated]
    return [intro, "", *table(heads, lines), *benchmark_shares(rows["cpu"]["figures"])]


def benchmark_shares(cases):
    """EchoVault's shares with redis-benchmark as the load, by commands in a pipeline."""
    shares = {}
    for case in cases:
        if case["generator"] == "redis-benchmark" and {"redis", "echovault"} <= set(case["runs"]):
            cost = [median(case["runs"][name], "cpu_us") for name in ("echovault", "redis")]
            shares.setdefault(case["pipeline"], []).append(ratio(*cost))
    listed = ", ".join(f"{' and '.join(each)} with {pipeline} in a pipeline" for pipeline, each in shares.items())
    return ["", "With redis-benchmark as the load, which is itself the limit without pipelining, EchoVault's shares of "
            f"redis-server's CPU time are, for SET and GET: {listed}."] if shares else []


def facts(rows):
    """What is one number a server: (label, {server: number}, format)."""
    found = []

    def fact(row, label, number, form):
        if row in rows:
            entry, cells = rows[row]["figures"], {}
            for name in RATED:
                try:
                    cells[name] = number(entry, name)
                except (KeyError, StopIteration):  # a server that this row does not have
                    continue
            sizes = {field: f"{size:,}" for field, size in rows[row]["sizes"].items()}
            found.append([label.format(**sizes), *(format(cells[name], form) if name in cells else "" for name in RATED)])

    def case(entry, name, **wanted):
        return next(one["runs"] for one in entry if one["server"] == name and wanted.items() <= one.items())

    def with_log(entry, policy, pipeline):
        return next(one["runs"] for one in entry if (one["appendfsync"], one["pipeline"]) == (policy, pipeline))

    fact("memory", "resident bytes a key above its payload, {memory_keys} keys of 16+16 bytes",
         lambda e, n: e["set"][n], ".1f")
    fact("memory", "the same with a TTL", lambda e, n: e["setex"][n], ".1f")
    fact("footprint", "the same without, mean over a table's growth to {footprint_keys} keys",
         lambda e, n: statistics.mean(one["bytes"][n] for one in e), ".1f")
    fact("idle", "bytes of an idle connection, {connections} of them", lambda e, n: e[n]["settled"], ",.0f")
    fact("startup", "ms from start to the first PONG", lambda e, n: statistics.median(e[n]), ".1f")
    fact("growth", "longest GET while a table grows to {growth_keys} keys, ms (quietest round)",
         lambda e, n: min(one["latency_us"]["max"] for one in case(e, n, load="growing")) / 1000, ".1f")
    fact("load", "CPU seconds to load {snapshot_keys} keys from a snapshot",
         lambda e, n: median(e["snapshot"][n], "cpu"), ".2f")
    fact("load", "from a log", lambda e, n: median(e["log"][n], "cpu"), ".2f")
    fact("save", "CPU seconds of SAVE, {snapshot_keys} keys", lambda e, n: median(e[n], "cpu"), ".2f")
    fact("bgsave", "memory growth during BGSAVE under write load", lambda e, n: median(e[n], "growth"), ".1%")
    fact("bgsave", "a GET's p99.9 meanwhile, ms, on two cores",
         lambda e, n: median(e[n], "BGSAVE", "latency_us", "p99.9") / 1000, ".1f")
    fact("durable", "SETs a second under `appendfsync always`, 50 clients",
         lambda e, n: median(with_log(e, "always", 1)[n], "rps"), ",.0f")
    fact("durable", "under `everysec`, 16 in a pipeline", lambda e, n: median(with_log(e, "everysec", 16)[n], "rps"), ",.0f")
    fact("patience", "a GET's p99 while others wait for fsync, ms",
         lambda e, n: median(e[n], "writers", "latency_us", "p99") / 1000, ".2f")
    fact("followers", "what two followers cost a leader under SET, `everysec`, of its requests a second",
         lambda e, n: 1 - median_ratio(*[case(e, n, log="everysec", pipeline=1, followers=f) for f in (2, 0)], "rps"), ".0%")
    fact("followers", "leader's CPU us a SET with two followers, 16 in a pipeline, `everysec`",
         lambda e, n: median(case(e, n, log="everysec", pipeline=16, followers=2), "cpu_us"), ".2f")
    fact("resync", "seconds of a full resync of {resync_keys} keys",
         lambda e, n: median(case(e, n, log="everysec", snapshot=False), "seconds"), ".1f")
    fact("joins", "longest GET on a leader while ten followers of {join_keys} keys join, ms (quietest round)",
         lambda e, n: min(one["joining"]["latency_us"]["max"] for one in e[n]) / 1000, ".1f")
    fact("joins", "seconds until those ten serve all keys", lambda e, n: median(e[n], "joining", "seconds"), ".1f")
    return table(["", *named(RATED)], found)


def latency(rows):
    lines = [[case["phase"], NAMES.get(name, name.replace("echovault", "EchoVault")), f"{median(each, 'rate'):,.0f}",
              *(f"{median(each, point):,.0f}" for point in POINTS)]
             for case in rows["latency"]["figures"] for name, each in case["runs"].items()]
    intro = f"50 clients, {rows['latency']['sizes']['keys']:,} keys of 16 bytes with values of 16 bytes:"
    return [intro, ""] + table(["load", "server", "requests a second", *(f"{point}, us" for point in POINTS)], lines)


def values(rows):
    names, sizes = list(rows["values"]["figures"][0]["runs"]), {}
    for case in rows["values"]["figures"]:
        rates = {name: median(each, "rps") * case["size"] / 1e6 for name, each in case["runs"].items()}
        sizes.setdefault(case["size"], []).extend([*(f"{rates[name]:,.{0 if rates[name] >= 100 else 1}f}" for name in names),
                                                   ratio(rates.get("echovault"), rates.get("redis"))])
    intro = f"Megabytes of values a second, {rows['values']['sizes']['value_connections']} clients; SET is towards the server:"
    heads = [f"{op}: {what}" for op in ("SET", "GET") for what in (*named(names), "EchoVault / redis-server")]
    return [intro, ""] + table(["bytes of a value", *heads], [[f"{size:,}", *cells] for size, cells in sizes.items()])


def keys(rows):
    """CPU time of a GET by the number of keys."""
    cases = [case for case in rows["keys"]["figures"] if case["op"] == "get"]
    names, lines = list(cases[0]["runs"]), {}
    heads = list(dict.fromkeys(f"{case['pipeline']} in a pipeline{', Zipf' if case['zipf'] else ''}" for case in cases))
    for case in cases:
        lines.setdefault(case["keys"], []).append(" / ".join(f"{median(case['runs'][name], 'cpu_us'):.2f}" for name in names))
    return [f"CPU microseconds of a GET: {' / '.join(named(names))}.", "",
            *table(["keys", *heads], [[f"{count:,}", *cells] for count, cells in lines.items()])]


def connections(rows):
    lines = [[f"{case['connections']:,}", *(f"{median(each, 'cpu_us'):.2f}" for each in case["runs"].values())]
             for case in rows["connections"]["figures"] if case["op"] == "get"]
    return ["CPU microseconds of a GET without pipelining:", "",
            *table(["connections", *named(rows["connections"]["figures"][0]["runs"])], lines)]


def hitratio(rows):
    caches = list(rows["hitratio"]["figures"][0]["runs"])
    heads = [name.replace("redis", "redis-server").replace("echovault", "EchoVault") for name in caches]
    first = rows["hitratio"]["figures"][0]["runs"]
    held = [f"{head}: {median(first[name], 'keys'):,.0f} keys" for head, name in zip(heads, caches)]
    return table(["requests", *held], [[case["trace"], *(f"{median(case['runs'][name], 'ratio'):.3f}" for name in caches)]
                                       for case in rows["hitratio"]["figures"]])


# Names, what makes them, and of which rows that must be there; none: of any.
PARTS = {"machine": (machine, []), "cpu": (cpu, ["cpu"]), "latency": (latency, ["latency"]), "facts": (facts, []),
         "keys": (keys, ["keys"]), "connections": (connections, ["connections"]), "values": (values, ["values"]),
         "hitratio": (hitratio, ["hitratio"])}
# The pictures behind each, what they show, and of which rows they are drawn.
PICTURES = {"cpu": ("cpu", "CPU time an operation", ["cpu"]), "throughput": ("cpu", "Operations a second", ["cpu"]),
            "latency": ("latency", "Latency percentiles", ["latency"]),
            "memory": ("facts", "Memory a key", ["memory", "footprint"]),
            "keys": ("keys", "CPU time by the number of keys", ["keys"]),
            "connections": ("connections", "CPU time by the number of connections", ["connections"]),
            "values": ("values", "Bytes a second by the length of values", ["values"])}


def shown(part, rows):
    """A part's lines, with its pictures."""
    make, needed = PARTS[part]
    if not set(needed) <= set(rows):
        return []
    pictures = [f"![{title}](docs/{name}.svg)" for name, (of, title, drawn_of) in PICTURES.items()
                if of == part and set(drawn_of) <= set(rows)]
    return make(rows) + (["", *pictures] if pictures else [])


def renewed(text):
    """The README's text as it should be."""
    rows = results.read(results.FILE)
    for name in PARTS:
        lines = shown(name, rows)
        body = "".join(f"{line}\n" for line in ["", *lines, ""]) if lines else ""
        text = re.sub(rf"(<!-- figures: {name} -->\n).*?(<!-- end -->)", lambda m: m[1] + body + m[2], text, flags=re.S)
    return text


def renew():
    README.write_text(renewed(README.read_text()))


if __name__ == "__main__":
    renew()
