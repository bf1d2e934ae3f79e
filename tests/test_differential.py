"""What EchoVault and redis-server answer to the same words: it must be the same, to the byte.

Random sequences of commands from several connections, whose messages are compared as well; every command with too few,
too many and senseless arguments; sessions written down, for what chance does not find.

ECHOVAULT_EXAMPLES sets how many sequences; ECHOVAULT_SEED makes other ones than those of every day.
"""
import contextlib
import itertools
import os
import re

import pytest

from ev import NIL, NIL3, OK, QUEUED, SANITIZED, Error, Map, Push, Server, Status, encode, need
from grammar import KEYS, sequence

EXAMPLES = int(os.environ.get("ECHOVAULT_EXAMPLES") or (60 if SANITIZED else 220))
SEED = int(os.environ.get("ECHOVAULT_SEED") or 0)

# ==== what counts as the same =================================================================================
# All that is meant to differ stands here, with the reason. All else must be equal to the byte.

# Commands of Redis for what is left out here: client-side caching, users, and tools for both.
ABSENT = {b"client|caching", b"client|getredir", b"client|tracking", b"client|trackinginfo", b"acl|dryrun", b"acl|genpass",
          b"command|getkeysandflags"}  # fmt: skip
# There are no users to change but the one; only later versions of Redis have these; HELP's words are our own; a DEBUG
# for tests, without a HELP to point to.
NOT_COMPARED = {b"acl|deluser", b"acl|setuser", b"acl|load", b"acl|save", b"client|no-touch", b"client|setinfo", b"waitaof",
                b"delex", b"delifeq", b"increx", b"msetex", b"debug"}  # fmt: skip
# Fields of INFO that have no counterpart: of fork, jemalloc, scripts, modules, tracking, I/O threads, lazy freeing,
# active defragmentation, a cluster, and Redis's own build.
NO_FIELD = re.compile(
    r"redis_git_|redis_build_id|monotonic_clock|atomicvar_api|gcc_version|process_supervised|lru_clock|executable|io_thread|"
    r"cluster_connections|client_recent_|tracking_|clients_in_timeout|used_memory_(startup|dataset_perc|lua|vm|scripts|functions)|"
    r"allocator_|number_of_|rss_overhead|mem_(not_counted|replication|total_repl|cluster|aof)|active_defrag|lazyfree|async_loading|"
    r"current_|rdb_(saves|last_cow|last_load)|aof_(rewrites|last_cow)|module_fork|total_net_repl|instantaneous_(in|out)put_repl|"
    r"expire(d_stale|d_time_cap|_cycle)|evicted_clients|total_(eviction|active)|migrate_cached|slave_expires|unexpected_error|"
    r"dump_payload|reply_buffer"
)
NO_MEMORY_STAT = re.compile(
    rb"startup|replication.backlog|cluster|aof.buffer|lua|functions|db\.|percentage|allocator|rss-overhead|fragmentation$"
)
# Of a line of CLIENT LIST: how buffers are kept, and times; lib-name and lib-ver are of later versions. The command is
# EXEC's in a transaction there, and the one that asks here.
CLIENT_MASKED = {"id", "addr", "laddr", "fd", "age", "idle", "qbuf", "qbuf-free", "argv-mem", "multi-mem", "rbs", "rbp", "obl",
                 "oll", "omem", "tot-mem", "lib-name", "lib-ver"}  # fmt: skip
# What sessions count: these figures of INFO must be equal.
COUNTED = """redis_version redis_mode loading connected_clients blocked_clients maxclients maxmemory maxmemory_policy role keyspace_hits
    keyspace_misses expired_keys evicted_keys pubsub_channels pubsub_patterns pubsubshard_channels connected_slaves
    total_error_replies rejected_connections aof_enabled cluster_enabled""".split()

shared = set()  # the names of the commands that both have


def near(mine, right):
    """Times: the two servers read the clock at different moments."""
    return abs(mine - right) <= 3000 if max(mine, right) > 1000000 else abs(mine - right) <= 3


def unordered(mine, right):
    """Keys in the order of the table, which is random."""
    return sorted(mine) == sorted(right)


def encodings(mine, right):
    """redis-server calls a whole number int unless INCRBYFLOAT left it."""
    return mine == right or (mine, right) == (b"int", b"embstr")


def anything(mine, right):
    """What can't be the same, or is said in our own words; the type is."""
    return True


def table(reply):
    """A map, in RESP2 as well."""
    return dict(reply) if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


def without(*names):
    """Maps, but for these fields."""

    def compare(mine, right):
        mine, right = ({**table(reply), **dict.fromkeys(names)} for reply in (mine, right))
        return list(map(repr, mine.items())) == list(map(repr, right.items()))

    return compare


def equal(mine, right, at=""):
    """Two dictionaries; says where they are not."""
    for name in {**mine, **right}:
        if mine.get(name) != right.get(name):
            both = [table.get(name) for table in (mine, right)]
            if all(isinstance(value, dict) for value in both):
                equal(*both, f"{at} {name}")
            else:
                print(f"{at} {name}: {both[0]!r} instead of {both[1]!r}")
    return mine == right


def lines_of_clients(text):
    """In the order of their numbers, what may differ masked."""
    rows = [dict(pair.split("=", 1) for pair in line.split(" ")) for line in text.decode("latin-1").splitlines()]
    rows.sort(key=lambda row: int(row["id"]))
    return [{name: value for name, value in row.items() if name not in CLIENT_MASKED} for row in rows]


def clients(mine, right):
    mine, right = lines_of_clients(mine), lines_of_clients(right)
    for own, other in zip(mine, right):
        if other["cmd"] == "exec" and own["cmd"] in ("client|list", "client|info"):
            own["cmd"] = "exec"
        if "d" in other["flags"]:
            own["multi"] = other["multi"]  # redis-server keeps no command that will not be run
    return len(mine) == len(right) and all(map(equal, mine, right)) and list(map(list, mine)) == list(map(list, right))


def refusals(mine, right):
    """ACL LOG: ages and clients are not the same."""
    loose = without(b"age-seconds", b"client-info")
    return len(mine) == len(right) and all(map(loose, mine, right))


def facts(row):
    """What clients route and check by: name, arity, flags, first key, last key, step, categories; the rest by its type."""
    return row and [*row[:2], sorted(row[2]), *row[3:6], sorted(row[6]), *map(type, row)]


def described(mine, right):
    """COMMAND INFO: the rows that were asked for, or those of all that both have."""
    if len(mine) != len(right):
        mine, right = ([rows[name] for name in sorted(shared & rows.keys())] for rows in ({r[0]: r for r in m} for m in (mine, right)))
    for row, other in zip(mine, right):
        if isinstance(row, list) and isinstance(other, list):
            subs = {sub[0]: sub for sub in other[9]}
            if not all(facts(sub) == facts(subs[sub[0]]) for sub in row[9] if sub[0] in shared):
                return False
        if repr(facts(row) if isinstance(row, list) else row) != repr(facts(other) if isinstance(other, list) else other):
            return False
    return True


def docs(reply):
    undescribed = {b"replconf", b"command|getkeys"}  # by redis-server
    return {name: {b"since": doc[b"since"], b"group": doc[b"group"], b"arguments": b"arguments" in doc or name in undescribed,
                   **docs(doc.get(b"subcommands", []))}
            for name, doc in ((name, table(doc)) for name, doc in table(reply).items()) if name in shared}  # fmt: skip


def documented(mine, right):
    """COMMAND DOCS: the words are our own, and the types of arguments are left out."""
    return equal(docs(mine), docs(right))


def names_shared(mine, right):
    return sorted(set(mine) & shared) == sorted(set(right) & shared)


def categories(mine, right):
    """ACL CAT: those of other types have no commands here."""
    return [name for name in right if name in mine] == mine if b"keyspace" in right else names_shared(mine, right)


def histograms(mine, right):
    """LATENCY HISTOGRAM: the same calls; how long they took is not the same."""
    mine, right = ({name: table(row)[b"calls"] for name, row in table(reply).items() if name in shared - {b"scan"}}
                   for reply in (mine, right))  # fmt: skip
    return mine == right


def memory_names(mine, right):
    mine, right = table(mine), table(right)
    return mine.keys() == {name for name in right if not NO_MEMORY_STAT.search(name)}


def options(mine, right):
    """CONFIG GET: those that have a use here."""
    mine, right = table(mine), table(right)
    return mine == {name: value for name, value in right.items() if name in mine}


def sections(text):
    found, at = {}, None
    for line in text.decode().split("\r\n"):
        if line.startswith("# "):
            at = found.setdefault(line, {})
        elif line:
            name, value = line.split(":", 1)
            at[name] = value
    return found


def figures(name, value):
    if name != "cmdstat_scan" and name.startswith(("cmdstat_", "db")):  # how many calls a whole SCAN takes is not the same
        return re.sub(r"(usec|usec_per_call|avg_ttl)=[0-9.]+", r"\1", value)
    return value if name in COUNTED or name.startswith("errorstat_") else None


def information(mine, right):
    """INFO: the same sections with the same fields, and the figures that can be the same."""
    mine, right = sections(mine), sections(right)
    for section in mine.values():
        section.pop("echovault_version", None)
    for section in right.values():
        for name in [name for name in section if NO_FIELD.match(name)]:
            del section[name]
    named = [{at: {name: figures(name, value) for name, value in section.items()} for at, section in reply.items()}
             for reply in (mine, right)]  # fmt: skip
    return equal(*named) and list(mine) == list(right)


LOOSE = {
    b"TTL": near,
    b"PTTL": near,
    b"EXPIRETIME": near,
    b"PEXPIRETIME": near,
    b"LASTSAVE": near,
    b"TIME": anything,
    b"OBJECT ENCODING": encodings,
    b"OBJECT REFCOUNT": anything,  # redis-server shares small numbers between keys,
    b"OBJECT IDLETIME": anything,  # and the time of their last use as well
    b"KEYS": unordered,
    b"SCAN": anything,  # a page within EXEC; outside, whole iterations are compared: see scan()
    b"HELLO": without(b"id"),
    b"RANDOMKEY": anything,  # of the same type: a key or null
    b"CLIENT ID": anything,
    b"CLIENT LIST": clients,
    b"CLIENT INFO": clients,
    b"DUMP": anything,  # EchoVault writes an older version and does not compress: see cross_restore()
    b"ROLE": lambda mine, right: mine[::2] == right[::2],  # without followers redis-server does not count its offset
    b"ACL CAT": categories,
    b"ACL LOG": refusals,
    b"COMMAND": described,
    b"COMMAND INFO": described,
    b"COMMAND DOCS": documented,
    b"COMMAND LIST": names_shared,
    b"COMMAND COUNT": anything,
    b"CONFIG GET": options,
    b"PUBSUB CHANNELS": unordered,
    b"PUBSUB SHARDCHANNELS": unordered,
    b"INFO": information,
    b"LATENCY HISTOGRAM": histograms,
    b"LATENCY DOCTOR": anything,
    b"MEMORY DOCTOR": anything,
    b"MEMORY MALLOC-STATS": anything,
    b"MEMORY USAGE": anything,
    b"MEMORY STATS": memory_names,
}


def same(said, mine, right):
    if masked(mine) == masked(right) or type(mine) is type(right) is Push:
        return masked(mine) == masked(right)
    compare = LOOSE.get(b" ".join(said[:2]).upper()) or LOOSE.get(said[0].upper())
    if compare and type(mine) is type(right) and isinstance(mine, (int, list, dict, bytes)):
        with contextlib.suppress(TypeError, ValueError, LookupError, AttributeError):  # no such reply: a message, say
            return compare(mine, right)
    return False


def masked(frame):
    """What MONITOR shows, without the time and the address."""
    shown = repr(frame)
    return re.sub(r"^\+\d+\.\d{6} \[(\d+) [^]]*\]", r"+[\1]", shown) if isinstance(frame, Status) else shown


# ==== speaking to both ========================================================================================


def message(frame):
    """What came by several patterns is one."""
    return repr(frame[2:]) if isinstance(frame, list) and frame[:1] == [b"pmessage"] else id(frame)


def in_order(frames):
    """Who leaves all channels leaves them in the order of redis-server's table; here in that of coming. Likewise with a
    message that comes by several patterns."""
    if len(frames) > 1 and type(frames[0]) is list and frames[0] and isinstance(frames[0][0], list):
        frames = [*frames[0], *frames[1:]]  # EXEC's
    leaving = [f for f in frames if isinstance(f, list) and len(f) == 3 and str(f[0]).endswith("unsubscribe'") and f[1] not in (NIL, NIL3)]
    names = iter(sorted((f[0], f[1]) for f in leaving))
    frames = [f for _, same_message in itertools.groupby(frames, key=message) for f in sorted(same_message, key=repr)]
    return [type(f)([*next(names), f[2]]) if any(f is g for g in leaving) else f for f in frames]


class Difference(AssertionError):
    pass


CLOSED = "the connection is closed"
NOAUTH = Error("NOAUTH Authentication required.")


class Pair:
    """One client's two connections, to EchoVault and to redis-server.

    A PING with a text of its own is sent behind what is said, and all that comes before its answer belongs to it. Within
    MULTI it would be queued: there what is said has one answer.
    """

    compared = 0

    def __init__(self, servers, proto=2):
        self.servers, self.proto, self.clients = servers, proto, []
        self.connect()

    def connect(self):
        self.close()
        self.clients = [server.client(proto=self.proto) for server in self.servers]
        self.queued, self.multi, self.listens, self.sent = [], False, False, 0
        self.who = [(client("CLIENT", "ID"), "%s:%d" % client.socket.getsockname()) for client in self.clients]

    def send(self, *commands):
        """commands: what is said, as often as there are servers. Returns whether a PING follows."""
        self.sent += 1
        said = commands[0][-1]
        name, alone = said[0].upper(), len(said) == 1
        ends = self.multi and (name == b"EXEC" or (alone and name in (b"DISCARD", b"RESET")))
        marked = ends or not (self.multi or (alone and name == b"MULTI"))
        self.listens |= b"SUBSCRIBE" in name or name == b"MONITOR"
        for client, words in zip(self.clients, commands):
            with contextlib.suppress(OSError):  # read() will tell
                client.send(b"".join(encode(*w) for w in words) + (encode("PING", self.mark()) if marked else b""))
        return marked

    def mark(self):
        return b"mark %d" % self.sent

    def hear(self, client, marked):
        """The replies and messages up to the mark."""
        frames = []
        try:
            while True:
                frame = client.read()
                if marked and (frame in (self.mark(), [b"pong", self.mark()]) or (frames and frame == NOAUTH)):
                    return frames
                frames.append(frame)
                if not marked and not isinstance(frame, Push):
                    return frames
        except ConnectionError:
            return [*frames, CLOSED]

    def say(self, *commands, resolve=lambda said, server: said):
        """Sends it to both; raises Difference."""
        marked = self.send(*([resolve(said, i) for said in commands] for i in (0, 1)))
        self.answers(commands, marked)

    def answers(self, commands, marked=True):
        Pair.compared += 1
        mine, right = (self.hear(client, marked) for client in self.clients)
        said = commands[-1]
        if said[0].upper() == b"SCAN" and not self.multi and all(len(f) == 1 and type(f[0]) is list for f in (mine, right)):
            mine, right = ([self.scan(client, frames[0], said)] for client, frames in zip(self.clients, (mine, right)))
        mine, right = in_order(mine), in_order(right)
        if mine[-1:] == right[-1:] == [CLOSED] and said[0].upper() == b"EXEC":
            mine = right = [CLOSED]  # who ended itself gets EXEC's whole answer here, there what came before that
        if len(mine) != len(right) or not all(map(self.agree, [said] * len(mine), mine, right)):
            raise Difference(f"\n  EchoVault:    {mine!r:.2000}\n  redis-server: {right!r:.2000}")
        if mine[-1:] == [QUEUED]:
            self.queued.append(said)
        elif mine[-1:] == [OK] and said[0].upper() == b"MULTI":
            self.multi = True
        elif marked:
            self.queued, self.multi = [], False
        if mine[-1:] == [CLOSED]:
            self.connect()
        elif said[0].upper() == b"DUMP" and isinstance(mine[-1], bytes) and not self.multi:
            self.cross_restore(mine[-1], right[-1])

    def agree(self, said, mine, right):
        if said[0].upper() != b"EXEC" or same(said, mine, right):
            return same(said, mine, right)
        if any(same(words, mine, right) for words in self.queued):
            return True  # subscriptions have several answers: those behind them are not in EXEC's array any more
        if not type(mine) is type(right) is list or len(mine) != len(right):
            return False
        aligned = len(mine) == len(self.queued) and all(map(same, self.queued, mine, right))
        return aligned or all(self.agree(said, *p) for p in zip(mine, right))

    def scan(self, client, reply, said):
        """The set of keys of a whole iteration: the cursors on the way are each server's own."""
        keys = set(reply[1])
        while reply[0] != b"0":
            reply = client(said[0], reply[0], *said[2:])
            keys.update(reply[1])
        return sorted(keys)

    def cross_restore(self, mine, right):
        """Each server understands the other's payload."""
        for client, payload in zip(self.clients, (right, mine)):
            client.send(encode("RESTORE", "dumped", "0", payload, "REPLACE"))
        assert [[f for f in self.hear(client, False) if not isinstance(f, Push)] for client in self.clients] == [[OK]] * 2

    def close(self):
        for client in self.clients:
            client.close()


class Company:
    """Some clients. What one says is followed by what those who listen hear of it."""

    def __init__(self, servers, proto, size):
        self.pairs = [Pair(servers, proto) for _ in range(size)]
        self.played = []

    def resolve(self, said, server):
        """With the number or the address of a connection in the place of <id:n>, <addr:n>."""
        found = [re.fullmatch(rb"<(id|addr):(\d)>", word) for word in said]
        return tuple(str(self.pairs[int(m[2])].who[server][m[1] == b"addr"]).encode() if m else word for m, word in zip(found, said))

    def say(self, who, *commands):
        self.played.append(f"{who}: " + "; ".join(b" ".join(map(quoted, said)).decode() for said in commands))
        self.pairs[who].say(*commands, resolve=self.resolve)
        self.listen(who)

    def listen(self, who=None):
        for i, pair in enumerate(self.pairs):
            if i != who and pair.listens and not pair.multi:
                self.played.append(f"{i} hears")
                pair.say((b"PING", b"heard"))
                self.played.pop()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        for pair in self.pairs:
            pair.close()
        if kind and issubclass(kind, (Difference, ConnectionError, TimeoutError)):
            raise AssertionError("\n  ".join(["after", *self.played[-60:]]) + str(error)) from None


def quoted(argument):
    """As redis-cli takes it."""
    return b'"%s"' % repr(argument)[2:-1].replace('"', '\\"').encode()


def as_new(servers):
    """The servers' data, statistics and options as sequences find them."""
    for server in servers:
        with server.client() as c:
            c.pipeline([("CLIENT", "UNPAUSE"), ("FLUSHALL",), ("SLOWLOG", "RESET"), ("LATENCY", "RESET"), ("ACL", "LOG", "RESET"),
                        ("CONFIG", "SET", "timeout", 0, "tcp-keepalive", 300, "loglevel", "notice", "slowlog-max-len", 128,
                         "slowlog-log-slower-than", -1, "replica-priority", 100, "min-replicas-max-lag", 10, "appendfsync",
                         "everysec", "notify-keyspace-events", "", "latency-monitor-threshold", 0),
                        ("CONFIG", "RESETSTAT")])  # fmt: skip


def align(*servers):
    """Connects to one until connections have the same numbers at both."""
    numbers = [0, 0]
    while numbers[0] != numbers[1] or not numbers[0]:
        for i in [0, 1] if numbers[0] == numbers[1] else [numbers.index(min(numbers))]:
            with servers[i].client() as c:
                numbers[i] = c("CLIENT", "ID")


@pytest.fixture(scope="module")
def servers():
    """Keys past their deadline go when a command meets them, and only then, so that DBSIZE is no race."""
    with Server() as mine, Server(binary=need("redis-server")) as right:
        names = []
        for server in (mine, right):
            with server.client() as c:
                assert c("DEBUG", "SET-ACTIVE-EXPIRE", "0") == OK
                names.append(set(c("COMMAND", "LIST")))
        shared.update(names[0] & names[1] - NOT_COMPARED)
        align(mine, right)
        yield mine, right


# ==== random sequences ========================================================================================


def compare_data(company):
    """Values by their digest, deadlines one by one, in every database that the grammar names."""
    for db in (0, 1, 2, 3, 15):
        company.say(0, (b"SELECT", b"%d" % db))
        company.say(0, (b"EXISTS", *KEYS))  # keys past their deadline count until something meets them
        company.say(0, (b"DBSIZE",))
        company.say(0, (b"KEYS", b"*"))
        for key in KEYS:
            company.say(0, (b"PEXPIRETIME", key))
    company.say(0, (b"DEBUG", b"DIGEST"))


def play(servers, steps, proto):
    as_new(servers)
    with Company(servers, proto, 3) as company:
        for who, said in steps:
            company.say(who, said)
        for who in range(3):
            company.say(who, (b"RESET",))
            company.pairs[who].listens = False
        company.played.append("the data afterwards")
        compare_data(company)


def fails(servers, steps, proto):
    try:
        return play(servers, steps, proto)
    except AssertionError as error:
        return error


def shrunk(servers, steps, proto, error):
    """The error of a sequence in which no step is needless, as far as that can be found soon."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            found = fails(servers, fewer, proto)
            if found:
                steps, error = fewer, found
            else:
                at += size
        size //= 2
    return error


def test_a_difference_is_noticed(servers):
    """The comparison itself: commands that the two must answer differently."""
    for said in [(b"CONFIG", b"GET", b"port"), (b"CONFIG", b"GET", b"dir"), (b"DELEX", b"a")]:
        with pytest.raises(AssertionError, match="redis-server: "):
            play(servers, [(0, (b"PING",)), (0, said)], 2)
    assert not same((b"GET",), b"1", 1) and not same((b"GET",), NIL, b"") and not same((b"TTL",), -1, 100)
    assert not same((b"KEYS",), [b"a"], []) and not same((b"PING",), OK, b"OK")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("proto", [2, 3])
def test_sequences_are_answered_as_redis_answers_them(servers, proto):
    Pair.compared = 0
    for seed in range(SEED * 1000, SEED * 1000 + EXAMPLES):
        steps = sequence(seed, servers=True)
        error = fails(servers, steps, proto)
        if error:
            raise AssertionError(f"sequence {seed} {shrunk(servers, steps, proto, error)}")
    print(f"{Pair.compared} replies compared")
    assert Pair.compared >= EXAMPLES * 40
