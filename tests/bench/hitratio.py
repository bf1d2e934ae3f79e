"""The row of hit ratios: how often a cache that is full has what is asked for, beside redis-server's allkeys-lru.

A cache is filled as applications do it: GET, and on a miss SET. All caches of a trace get the same requests. redis-server
has so much memory; EchoVault has as much in one run, and in another only as much as it takes to hold as many keys.
Requests come at a steady pace, slow enough that a key stays for many seconds: both servers note the time of an access
in seconds only, and would do worse at a pace that empties the cache within one.
"""
import contextlib
import itertools
import random
import re
import statistics
import time

from rig import fail, frame, row, spread

MEMORY = 10 << 20
VALUE = "v" * 100
KEYS = 400_000  # that the traces ask for again; redis-server holds about a tenth
SKEW = 0.9
BATCH = 200
REPLY, STORED = re.compile(rb"\$(-1|100)\r\n"), re.compile(rb"\+OK\r\n")


def zipf(seed, shift_every=0):
    """Keys by a Zipf distribution; shift_every: after so many, the next key takes each one's place."""
    draw = random.Random(seed).choices
    weights = list(itertools.accumulate(rank ** -SKEW for rank in range(1, KEYS + 1)))
    for drawn in itertools.count():
        shift = drawn * 1000 // shift_every if shift_every else 0
        for key in draw(range(KEYS), cum_weights=weights, k=1000):
            yield (key + shift) % KEYS


def with_scans(seed):
    """Now and then a scan of keys that nobody asks for again, as many as redis-server holds."""
    popular, once = zipf(seed), itertools.count(KEYS)
    while True:
        yield from itertools.islice(popular, KEYS // 4)
        yield from itertools.islice(once, KEYS // 10)


def with_strangers(seed):
    """Every fourth key is asked for once only."""
    popular, once = zipf(seed), itertools.count(KEYS)
    while True:
        yield from (next(popular), next(popular), next(popular), next(once))


TRACES = {"Zipf 0.9": zipf, "Zipf 0.9 and scans": with_scans, "Zipf 0.9, every fourth key once only": with_strangers,
          "Zipf 0.9, drifting": lambda seed: zipf(seed, shift_every=50)}
CACHES = ("redis", "echovault", "echovault, as many keys")


class Cache:
    """A server used as a cache over one connection."""

    def __init__(self, server, link):
        self.server, self.link, self.rest = server, link, b""
        self.hits = self.asked = 0

    def ask(self, keys):
        self.keys = keys
        self.link.sendall(b"".join(frame("GET", key) for key in keys))

    def fill(self):
        """Stores what was missing, by the replies to ask()."""
        found = self.receive(REPLY)
        self.asked += len(found)
        self.hits += found.count(b"100")
        self.keys = [key for key, length in zip(self.keys, found) if length == b"-1"]
        self.link.sendall(b"".join(frame("SET", key, VALUE) for key in self.keys))

    def receive(self, pattern):
        """A reply to each key, by the part of it that tells."""
        data = b""
        while len(found := pattern.findall(data)) < len(self.keys) or not data.endswith(b"\r\n"):
            if not self.keys:
                return []
            part = self.link.recv(1 << 20)
            if not part or b"-OOM" in part:
                fail(f"{self.server.name} closed the connection or refused a SET")
            data += part
        return found


@row
def hitratio(bench):
    """The share of requests that a full cache answers, on Zipf traces with and without scans."""
    limits = {"redis": MEMORY, "echovault": MEMORY, "echovault, as many keys": memory_of_as_many_keys(bench)}
    runs = {trace: {cache: [] for cache in CACHES} for trace in TRACES}
    for seed in range(bench.options.hitratio_seeds):
        for trace, cache, figures in measure_seed(bench, seed, limits):
            runs[trace][cache].append(figures)
    bench.data["hitratio"] = [{"trace": trace, "runs": each} for trace, each in runs.items()]
    lines = []
    for trace, each in runs.items():
        theirs = [one["ratio"] for one in each["redis"]]
        for cache in CACHES:
            ours = [one["ratio"] for one in each[cache]]
            lines.append([trace, cache, f"{limits[cache] / (1 << 20):.1f}",
                          f"{statistics.median(one['keys'] for one in each[cache]):,.0f}", spread(ours, 4)])
            if cache != "redis":
                worst = min(a - b for a, b in zip(ours, theirs))
                lines[-1] += [f"{worst:+.4f}", *bench.check(f"Hit ratio over redis-server's, least of the seeds: {trace}, "
                                                            f"{cache}", worst, "at least 0", holds=worst >= 0)]
    bench.table("Hit ratio under allkeys-lru", ["trace", "cache", "MB", "keys", "hit ratio: median (lowest)",
                                                "least over redis's", "target", "ok"], lines,
                f"{KEYS:,} keys in turn, values of 100 bytes, {bench.options.hitratio_seeds} seeds, each "
                f"{bench.options.hitratio_seconds} s at no more than {bench.options.hitratio_rate:,} requests a second, of which the "
                "second half counts, after as many requests without a pause.")


def memory_of_as_many_keys(bench):
    """What EchoVault uses for as many keys as redis-server holds at the limit."""
    with bench.server("redis", "--maxmemory", str(MEMORY), "--maxmemory-policy", "allkeys-lru") as server:
        store(server, MEMORY // 100)
        held = int(server.ask("DBSIZE")[1:])
    with bench.server("echovault") as server:
        store(server, held)
        return int(server.info("memory", "used_memory"))


def store(server, count):
    with server.connect() as link:
        cache = Cache(server, link)
        for first in range(0, count, BATCH):
            cache.ask([key_name(i) for i in range(first, min(count, first + BATCH))])
            cache.fill()
            cache.receive(STORED)


def key_name(i):
    return f"key:{i:012d}"


def measure_seed(bench, seed, limits):
    """All traces and caches side by side; yields each one's figures."""
    with contextlib.ExitStack() as stack:
        caches = {trace: {} for trace in TRACES}
        for trace in TRACES:
            for cache in CACHES:
                server = stack.enter_context(bench.server(cache.split(",")[0], "--maxmemory", str(limits[cache]),
                                                          "--maxmemory-policy", "allkeys-lru"))
                caches[trace][cache] = Cache(server, stack.enter_context(server.connect()))
        keys = {trace: map(key_name, make(seed)) for trace, make in TRACES.items()}
        requests, rate = bench.options.hitratio_seconds * bench.options.hitratio_rate, bench.options.hitratio_rate
        run(caches, keys, requests)
        run(caches, keys, requests // 2, rate)
        for cache in (cache for each in caches.values() for cache in each.values()):
            cache.hits = cache.asked = 0
        run(caches, keys, requests // 2, rate)
        for trace, each in caches.items():
            for name, cache in each.items():
                yield trace, name, {"ratio": cache.hits / cache.asked, "keys": int(cache.server.ask("DBSIZE")[1:])}


def run(caches, keys, requests, rate=None):
    """Each trace's next so many requests, at no more than this rate a second or as fast as they go."""
    started = time.perf_counter()
    for done in range(0, requests, BATCH):
        for trace, each in caches.items():
            wanted = list(itertools.islice(keys[trace], BATCH))
            for cache in each.values():
                cache.ask(wanted)
        for step in (lambda cache: cache.fill(), lambda cache: cache.receive(STORED)):
            for each in caches.values():
                for cache in each.values():
                    step(cache)
        if rate:
            time.sleep(max(0, started + done / rate - time.perf_counter()))
