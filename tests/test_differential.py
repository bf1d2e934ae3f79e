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

from ev import NIL, NIL3, OK, QUEUED, SANITIZED, Error, Map, Push, Server, Status, encode, eventually, need
from grammar import KEYS, sequence

EXAMPLES = int(os.environ.get("ECHOVAULT_EXAMPLES") or (40 if SANITIZED else 120))
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
    r"expire(d_stale|d_time_cap|_cycle)|total_(eviction|active)|migrate_cached|slave_expires|unexpected_error|"
    r"dump_payload|reply_buffer"
)
NO_MEMORY_STAT = re.compile(
    rb"startup|replication.backlog|cluster|aof.buffer|lua|functions|db\.|percentage|allocator|rss-overhead|fragmentation$"
)
# Of a line of CLIENT LIST: how buffers are kept, and times; lib-name and lib-ver are of later versions. The command is
# EXEC's in a transaction there, and the one that asks here.
CLIENT_MASKED = {"id", "addr", "laddr", "fd", "age", "idle", "qbuf", "qbuf-free", "argv-mem", "multi-mem", "rbs", "rbp", "obl",
                 "oll", "omem", "tot-mem", "lib-name", "lib-ver"}  # fmt: skip
# These figures of INFO must be equal. Not keyspace_hits: a SCAN of one TYPE counts the keys that it passes there.
COUNTED = """redis_version redis_mode loading connected_clients blocked_clients maxclients maxmemory maxmemory_policy role keyspace_misses
    expired_keys evicted_keys pubsub_channels pubsub_patterns pubsubshard_channels connected_slaves
    total_error_replies rejected_connections aof_enabled cluster_enabled""".split()

shared = set()  # the names of the commands that both have


def near(mine, right):
    """Times: the two servers read the clock at different moments."""
    return mine == right or (min(mine, right) > 0 and abs(mine - right) <= (3000 if max(mine, right) > 40000 else 3))


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
        if "e" not in own["flags"]:
            other["flags"] = other["flags"].replace("e", "") or "N"  # RESET leaves NO-EVICT on there
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
    mine, right = ({name: table(row)[b"calls"] for name, row in table(reply).items() if name in shared - {b"scan", b"wait"}}
                   for reply in (mine, right))  # fmt: skip
    return mine == right


def measured(mine, right):
    """What was looked at took as long as it took."""
    return re.sub(r"\d+", "N", repr(mine)) == re.sub(r"\d+", "N", repr(right))


def slow(mine, right):
    """SLOWLOG GET: the arguments and the client's name."""
    return [(entry[3], entry[5], *map(type, entry)) for entry in mine] == [(entry[3], entry[5], *map(type, entry)) for entry in right]


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
    if name.startswith("cmdstat_") and name != "cmdstat_scan":  # how many calls a whole SCAN takes is not the same
        return re.sub(r"(usec|usec_per_call)=[0-9.]+", r"\1", value)
    return value if name in COUNTED or name.startswith("errorstat_") else None


def information(mine, right):
    """INFO: the same sections with the same fields, and the figures that can be the same."""
    mine, right = sections(mine), sections(right)
    for section in mine.values():
        section.pop("echovault_version", None)
    for section in (*mine.values(), *right.values()):
        section.pop("latency_percentiles_usec_wait", None)  # a WAIT that waits is not measured there
    for reply in (mine, right):  # what is past its deadline counts until it is met, by something else here than there
        reply.update(dict.fromkeys(reply.keys() & {"# Keyspace"}, {}))
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
    b"LATENCY LATEST": measured,
    b"LATENCY HISTORY": measured,
    b"LATENCY GRAPH": measured,
    b"SLOWLOG GET": slow,
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
    """Without addresses and, in what MONITOR shows, the time."""
    shown = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", repr(frame))
    return re.sub(r"^\+\d+\.\d{6} \[(\d+) [^]]*\]", r"+[\1]", shown) if isinstance(frame, Status) else shown


# ==== speaking to both ========================================================================================


def message(frame):
    """What came by several patterns is one."""
    return repr(frame[2:]) if isinstance(frame, list) and frame[:1] == [b"pmessage"] else id(frame)


def in_order(frames, executed):
    """Who leaves all channels leaves them in the order of redis-server's table; here in that of coming. Likewise with a
    message that comes by several patterns."""
    if len(frames) > 1 and executed:  # messages in the midst of EXEC's array have pushed its answers out of it
        at = next((i for i, f in enumerate(frames) if type(f) is list and any(isinstance(g, list) for g in f)), None)
        frames = frames if at is None else [*frames[:at], *frames[at], *frames[at + 1 :]]
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

    def hear(self, client, marked, commands=1):
        """The replies and messages up to the mark, which is refused to who has not shown a password."""
        frames = []
        try:
            while True:
                frame = client.read()
                if marked and (frame in (self.mark(), [b"pong", self.mark()]) or (frame == NOAUTH and len(frames) >= commands)):
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
        mine, right = (self.hear(client, marked, len(commands)) for client in self.clients)
        said = commands[-1]
        if said[0].upper() == b"SCAN" and not self.multi and all(len(f) == 1 and type(f[0]) is list for f in (mine, right)):
            mine, right = ([self.scan(client, frames[0], said)] for client, frames in zip(self.clients, (mine, right)))
        mine, right = (in_order(frames, said[0].upper() == b"EXEC") for frames in (mine, right))
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
            reply = self.ask(client, said[0], reply[0], *said[2:])
            keys.update(reply[1])
        self.ask(client, "PING")  # the last command, as before
        return sorted(keys)

    def ask(self, client, *words):
        """The answer, whatever else is heard."""
        client.send(encode(*words))
        return self.hear(client, False)[-1]

    def cross_restore(self, mine, right):
        """Each server understands the other's payload."""
        for client, payload in zip(self.clients, (right, mine)):
            assert self.ask(client, "RESTORE", "dumped", "0", payload, "REPLACE") == OK

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


def compare_data(servers):
    """Values by their digest, deadlines one by one, in every database that the grammar names."""
    said = []
    for db in (0, 1, 2, 3, 15):
        said += [(b"SELECT", b"%d" % db), (b"EXISTS", *KEYS)]  # keys past their deadline count until something meets them
        said += [(b"DBSIZE",), (b"KEYS", b"*"), *((b"PEXPIRETIME", key) for key in KEYS)]
    said.append((b"DEBUG", b"DIGEST"))
    replies = []
    for server in servers:
        with server.client() as c:
            replies.append(c.pipeline(said))
    for exchange in zip(said, *replies):
        if not same(*exchange):
            raise Difference(f"\n  {exchange}")


def play(servers, steps, proto):
    as_new(servers)
    meet = [words for db in (0, 1, 2, 3, 15) for words in [(b"SELECT", b"%d" % db), (b"EXISTS", *KEYS)]]
    with Company(servers, proto, 4) as company:
        for who, said in steps:
            if said[0] in (b"WATCH", b"EXEC", b"RANDOMKEY"):  # they meet what is past its deadline here, or there
                company.pairs[3].say(*meet)
            company.say(who, said)
        company.played.append("the data afterwards")
        compare_data(servers)


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


# ==== every command, with arguments of no sense ===============================================================

WORDS = [b"x", b"1", b"-1", b"0", b"", b"on", b"99999999999999999999", b"a b\r\n\xff"]
# Not to be said at all: they end the server or the comparison, save, or speak another protocol afterwards.
UNSAID = {b"shutdown", b"sync", b"psync", b"monitor", b"bgsave", b"bgrewriteaof", b"save"}
# What COMMAND HELP and its like say is our own; a host and a port would be followed.
UNSAID_WITH = {b"replicaof": 2, b"slaveof": 2, **dict.fromkeys([b"acl|help", b"client|help", b"command|help", b"config|help",
               b"latency|help", b"memory|help", b"object|help", b"pubsub|help", b"slowlog|help"], 0)}  # fmt: skip


def senseless(name):
    """The command with none and several of each of the words, and with some of them mixed."""
    for arguments in [(), *((word,) * n for n in (1, 2, 3, 5) for word in WORDS), (b"x", b"1"), (b"1", b"x"), (b"x", b"0", b"1"),
                      (b"x", b"1", b"y", b"2"), (b"1", b"-1", b"0"), (b"x", b"x", b"1", b"1", b"0", b"0", b"0", b"0")]:  # fmt: skip
        if UNSAID_WITH.get(name) != len(arguments):
            yield (*name.upper().split(b"|"), *arguments)


@pytest.mark.parametrize("proto", [2, 3])
def test_every_command_with_senseless_arguments(servers, proto):
    as_new(servers)
    wrong = []
    pair = Pair(servers, proto)
    for name in sorted(shared - UNSAID):
        for said in senseless(name):
            try:
                pair.say(said)
            except Difference as difference:
                wrong.append(f"{said} {difference}")
        for words in [(b"RESET",), (b"HELLO", b"%d" % proto), (b"CLIENT", b"UNPAUSE"), (b"FLUSHALL",)]:
            pair.say(words)
    pair.close()
    assert not wrong, "\n".join(wrong[:20])


VALUES = ["", "x", "-1", "0", "1", "1.5", "+1", "01", " 1", "5000000000", "99999999999999999999", "yes", "no", "YES", "yesno", "1kb",
          "1MB", "1x", "-1kb", "a b c", "normal 1 1 1", "3600 1", "KEA", "always", "notice"]  # fmt: skip
# Options that a running server does not take here, whatever the value; those that would let nobody in, or stay; the folder.
FIXED = {b"port", b"bind", b"tcp-backlog", b"requirepass", b"dir", b"masterauth", b"masteruser", b"replica-announce-ip",
         b"slave-announce-ip", b"dbfilename", b"appendonly", b"protected-mode", b"logfile", b"daemonize", b"supervised", b"pidfile",
         b"maxmemory-clients"}  # fmt: skip


def lenient(name, value, right):
    """Where the two are meant to differ."""
    memory = name in (b"maxmemory", b"proto-max-bulk-len", b"client-query-buffer-limit", b"repl-backlog-size", b"auto-aof-rewrite-min-size")
    return (
        (memory and value in ("", "01", "+1", " 1", "99999999999999999999"))  # a number of bytes must be one, and fit
        or (name == b"maxmemory-policy" and "lfu" in str(right))  # there is no LFU here
        or (name == b"maxclients" and "operating system" in str(right))  # there is a limit of descriptors: met one by one here
        or (name == b"latency-tracking-info-percentiles" and value in ("+1", "01", " 1"))  # shown as it was given
        or (name == b"client-output-buffer-limit" and value == "")  # who reads nothing has a limit here, too
        or (name == b"repl-backlog-size" and value in ("0", "1", "1kb"))  # at least 16 KiB there
    )


def test_every_option_with_every_value():
    with Server() as mine, Server(binary=need("redis-server")) as right, mine.client() as c, right.client() as r:
        names = set(c("CONFIG", "GET", "*")[::2]) & set(r("CONFIG", "GET", "*")[::2]) - FIXED
        wrong = []
        for name in sorted(names):
            before = [client("CONFIG", "GET", name) for client in (c, r)]
            for value in VALUES:
                replies = [client("CONFIG", "SET", name, value) for client in (c, r)]
                shown = [client("CONFIG", "GET", name) for client in (c, r)] if replies == [OK, OK] else [[], []]
                if (replies[0] != replies[1] or shown[0] != shown[1]) and not lenient(name, value, replies[1]):
                    wrong.append((name, value, *replies, *shown))
                if OK in replies:
                    for client, (_, old) in zip((c, r), before):
                        client("CONFIG", "SET", name, old)
        assert len(names) >= 40 and not wrong, "\n".join(map(str, wrong[:20]))


# ==== sessions ================================================================================================
# Each line is "who: command; command"; > sends it without waiting for the answer, < waits for it, and blocked N waits until
# so many clients are held by a pause or wait for something. The first line may have the servers' options.

SESSIONS = {
    "subscribers": """
        0: SUBSCRIBE a b a
        0: SUBSCRIBE
        1: PUBLISH a x; PUBLISH nobody x; PUBLISH a
        0: PSUBSCRIBE n* [xy]
        1: PUBLISH news 1; PUBLISH x ''
        2: SSUBSCRIBE s a
        1: SPUBLISH s m; SPUBLISH a m; PUBLISH a m
        1: PUBSUB CHANNELS
        1: PUBSUB CHANNELS a*
        1: PUBSUB SHARDCHANNELS
        1: PUBSUB NUMSUB a b c a; PUBSUB NUMSUB; PUBSUB NUMPAT; PUBSUB SHARDNUMSUB s q; PUBSUB FOO
        0: GET k
        0: PING; PING hello; PING a b; CLIENT ID x
        1: CLIENT LIST TYPE pubsub
        1: INFO clients stats
        0: UNSUBSCRIBE a zz
        0: PUNSUBSCRIBE
        0: UNSUBSCRIBE
        0: UNSUBSCRIBE
        0: PUNSUBSCRIBE a
        2: SUNSUBSCRIBE s; SUNSUBSCRIBE a; SUNSUBSCRIBE
        0: SUBSCRIBE '' q
        1: PUBSUB CHANNELS
        1: PUBSUB CHANNELS *
        0: RESET
        1: PUBLISH q x
        0: MULTI
        0: SUBSCRIBE m n
        0: PUBLISH m hello
        0: SSUBSCRIBE s
        0: EXEC
        1: PUBLISH n x
        0: QUIT
        1: PUBLISH n x""",
    "a subscriber that is killed": """
        0: SUBSCRIBE a
        1: CLIENT KILL TYPE pubsub
        1: PUBLISH a x
        0: PING
        0: SSUBSCRIBE a
        1: CLIENT KILL ID <id:0>
        1: PUBSUB SHARDNUMSUB a""",
    "keyspace notifications": r"""
        0: CONFIG SET notify-keyspace-events KEAmn
        0: CONFIG GET notify-keyspace-events
        1: PSUBSCRIBE __key*
        0: SET a 1; SET a 2; SET b 1 EX 1000; SET b 2 PXAT 1; SETNX a 1; SETNX n 1; SETEX e 100 v; PSETEX e 100000 v; GETSET a 3
        0: GET none; MGET a none; STRLEN none; EXISTS none; TTL none; TYPE none; GETRANGE none 0 1; OBJECT ENCODING none; TOUCH none
        0: DEL a b c; UNLINK n; DEL none
        0: MSET a 1 b 2; MSETNX a 1 q 2; MSETNX q 1 r 2; APPEND a x; APPEND new x; SETRANGE a 3 y; SETRANGE a 0 ''; INCR i; INCRBY i 2
        0: INCRBYFLOAT i 0.5; DECR d; SETBIT bit 3 1; BITOP AND x a b; BITOP AND x none none; BITFIELD f SET u8 0 1; BITFIELD f GET u8 0
        0: EXPIRE a 100; PEXPIRE a 100000; EXPIREAT a 33177117420; EXPIRE a -1; EXPIRE none 1; PERSIST e; PERSIST e
        0: GETEX b EX 100; GETEX b PERSIST; GETEX b; GETDEL b; GETDEL b; RENAME d d2; RENAMENX d2 i; COPY i j; COPY i j REPLACE
        0: MOVE i 1; SELECT 1; SET z 1; SWAPDB 0 1; FLUSHDB; SELECT 0; FLUSHALL
        0: MULTI; SET a 1; GET none; DEL a; EXEC; RESTORE k 0 "\x00\xc0\x0c\x0a\x00\x3c\x2a\xf8\x51\x5c\x04\xbc\xd5"
        0: CONFIG SET notify-keyspace-events Kg; SET a 1; DEL a; CONFIG SET notify-keyspace-events ''; DEL k; CONFIG SET notify-keyspace-events Q""",
    "clients": """
        0: CLIENT SETNAME me; CLIENT GETNAME; CLIENT SETNAME 'a b'; CLIENT SETNAME ''; CLIENT GETNAME; CLIENT SETNAME me
        1: CLIENT LIST
        1: CLIENT LIST ID <id:0> <id:1> 999999999
        1: CLIENT LIST ID <id:0> x
        1: CLIENT LIST ID
        1: CLIENT LIST TYPE normal
        1: CLIENT LIST TYPE Replica
        1: CLIENT LIST TYPE foo
        0: WATCH a
        0: MULTI
        0: GET a
        1: CLIENT LIST
        1: SET a b
        1: CLIENT LIST ID <id:0>
        0: EXEC
        0: SELECT 3
        2: CLIENT NO-EVICT on
        1: CLIENT LIST
        2: CLIENT INFO
        2: CLIENT NO-EVICT off
        2: CLIENT INFO
        2: FOO
        1: CLIENT LIST
        1: CLIENT KILL ID <id:2>
        2: PING
        1: CLIENT KILL <addr:0>; CLIENT KILL <addr:0>
        0: PING
        1: CLIENT KILL ADDR <addr:0> ID <id:0>; CLIENT KILL ADDR <addr:0>; CLIENT KILL TYPE pubsub; CLIENT KILL TYPE normal
        1: CLIENT KILL USER default SKIPME no
        1: CLIENT KILL <addr:1>
        1: PING""",
    "replies": """
        0: CLIENT REPLY OFF; SET a 1; GET a; CLIENT REPLY ON
        0: CLIENT REPLY SKIP; SET a 2; GET a
        0: CLIENT REPLY SKIP; CLIENT REPLY SKIP; GET a; GET a
        0: CLIENT REPLY OFF; CLIENT REPLY SKIP; GET a; CLIENT REPLY ON; GET a
        0: CLIENT REPLY SKIP; FOO; FOO
        0: CLIENT REPLY OFF; MULTI; GET a; EXEC; CLIENT REPLY ON
        0: CLIENT REPLY OFF; SUBSCRIBE a; UNSUBSCRIBE a; CLIENT REPLY ON
        0: CLIENT REPLY FOO; CLIENT REPLY; CLIENT REPLY ON x""",
    "a pause": """
        0: CLIENT PAUSE 100000 WRITE
        1: GET a
        1> SET a 5
        blocked 1
        0: CLIENT LIST
        0: CLIENT PAUSE 1 WRITE; CLIENT PAUSE 1 x; CLIENT PAUSE x; CLIENT PAUSE -1
        2> PUBLISH a b
        blocked 2
        0: INFO clients
        0: CLIENT UNPAUSE
        1<
        2<
        0: GET a
        0: CLIENT PAUSE 50""",
    "waiting": """
        0: WAIT 0 0; WAIT 0 x; WAIT x 0; WAIT 1 -1; WAIT 1 1; WAIT -1 1
        1> WAIT 1 0
        blocked 1
        0: CLIENT LIST
        0: CLIENT UNBLOCK <id:1>; CLIENT UNBLOCK <id:1>; CLIENT UNBLOCK <id:0>
        1<
        1> WAIT 1 0; GET a
        blocked 1
        0: CLIENT UNBLOCK <id:1> ERROR
        1<
        1> WAIT 1 0
        blocked 1
        0: CLIENT UNBLOCK <id:1> FOO; CLIENT KILL ID <id:1>
        1<
        0: MULTI
        0: WAIT 1 0
        0: EXEC""",
    "a monitor": r"""
        2: MONITOR
        0: SET a "\r\n\x00\xff\"\\"; GET a; get A; FOO x; GET; SELECT 2; SET b 1; SELECT 0
        0: AUTH x; AUTH default x; HELLO 2 AUTH default x; CONFIG GET x; CLIENT LIST x; CLIENT ID x; SLOWLOG LEN; INFO nosuch
        0: MULTI; SET a 1; INCR a; EXEC; MULTI; GET; EXEC; MULTI; DISCARD
        1: SUBSCRIBE c
        0: PUBLISH c x; COMMAND COUNT x; LATENCY LATEST; MEMORY USAGE nokey; DBSIZE; TIME x; ECHO x; OBJECT FREQ a; ACL WHOAMI
        2: GET a
        2: CLIENT INFO
        2: SUBSCRIBE a
        0: CLIENT LIST
        2: RESET
        0: SET a 2
        2: GET a""",
    "the slow log": """
        0: CLIENT SETNAME me; CONFIG SET slowlog-log-slower-than 0; SLOWLOG RESET
        0: SET a 1; GET a; FOO; MSET a 1 b 2; CONFIG SET requirepass ''; AUTH x; AUTH default secret; HELLO 2 AUTH default secret
        1: MULTI; GET a; INCR n; EXEC; PING; SUBSCRIBE x
        0: SLOWLOG GET 100
        0: SLOWLOG GET 2
        0: SLOWLOG GET -1
        0: SLOWLOG LEN; CONFIG SET slowlog-max-len 3; SLOWLOG LEN
        0: SLOWLOG GET
        0: CONFIG SET slowlog-log-slower-than -1; SLOWLOG RESET; GET a; SLOWLOG LEN; SLOWLOG GET x; SLOWLOG GET -2; SLOWLOG GET 1 1""",
    "latency": """
        0: LATENCY RESET; LATENCY LATEST; LATENCY HISTORY command; LATENCY GRAPH command
        0: CONFIG SET latency-monitor-threshold 300; DEBUG SLEEP 0.4
        0: LATENCY LATEST
        0: LATENCY HISTORY command
        0: LATENCY GRAPH command
        0: LATENCY GRAPH nosuch
        0: LATENCY DOCTOR
        0: CONFIG SET latency-monitor-threshold 0; LATENCY RESET nosuch; LATENCY RESET command; LATENCY LATEST
        0: CONFIG RESETSTAT; SET a 1; GET a; GET a
        0: LATENCY HISTOGRAM get set
        0: LATENCY HISTOGRAM
        0: LATENCY HISTOGRAM client nosuch""",
    "commands": """
        0: COMMAND
        0: COMMAND INFO
        0: COMMAND INFO get nosuch CLIENT client|list object|freq set
        0: COMMAND DOCS
        0: COMMAND DOCS get nosuch config
        0: COMMAND LIST
        0: COMMAND LIST FILTERBY PATTERN *x*
        0: COMMAND LIST FILTERBY ACLCAT dangerous
        0: COMMAND LIST FILTERBY MODULE x
        0: ACL CAT""",
    "information": """
        0: CONFIG RESETSTAT; SET a 1; SET e 1 EX 1000; GET a; GET none; INCR x; FOO; GET; MULTI; GET; EXEC; EXEC; CLIENT FOO; AUTH me x
        1: SUBSCRIBE c
        0: SELECT 3; SET a 1
        0: INFO
        0: INFO everything
        0: INFO all default
        0: INFO SERVER
        0: INFO keyspace nosuch
        0: INFO nosuch
        0: INFO commandstats errorstats
        0: INFO latencystats
        0: INFO replication cpu modules cluster
        0: MEMORY STATS
        0: MEMORY USAGE a
        0: MEMORY USAGE none
        0: MEMORY DOCTOR""",
    "handshakes": """
        0: HELLO
        0: HELLO 2
        0: HELLO 3 SETNAME x
        0: CLIENT GETNAME; HELLO 3 SETNAME 'a b'; HELLO 4; HELLO x; HELLO 3 AUTH; HELLO 3 FOO; HELLO 2 AUTH me x; HELLO 2 SETNAME
        0: SELECT 3
        0: HELLO 2 AUTH default x SETNAME y
        0: CLIENT INFO
        0: RESET; CLIENT GETNAME; RESET x
        0: CLIENT INFO
        0: MULTI
        0: HELLO 3
        0: CLIENT INFO
        0: EXEC
        0: ROLE
        0: REPLICAOF NO ONE; FAILOVER; FAILOVER ABORT; FAILOVER TIMEOUT 1; LASTSAVE x; TIME x
        0: LASTSAVE
        0: TIME
        0: QUIT""",
    "options": """
        0: CONFIG SET timeout 1000 tcp-keepalive 5; CONFIG SET timeout 1 loglevel loud; CONFIG SET timeout 1 nosuch 2; CONFIG SET timeout
        0: CONFIG GET timeout tcp-keepalive loglevel
        0: CONFIG SET timeout 1 timeout 2; CONFIG SET slave-priority 3 replica-priority 4; CONFIG SET timeout 0 databases 3; CONFIG SET
        0: CONFIG GET timeout
        0: CONFIG GET *-priority
        0: CONFIG GET TIMEOUT timeout t*t
        0: CONFIG GET; CONFIG RESETSTAT; CONFIG RESETSTAT x; CONFIG REWRITE; CONFIG FOO""",
    "a password": """requirepass=pw
        0: PING; GET a; FOO; GET; CLIENT LIST; MULTI; EXEC; SUBSCRIBE a; COMMAND; RESET
        0: HELLO; HELLO 3; HELLO 3 AUTH default bad; HELLO 3 AUTH me pw; AUTH; AUTH bad; AUTH default bad; AUTH default pw x; AUTH me pw
        0: HELLO 3 AUTH default pw SETNAME q
        0: ACL WHOAMI; ACL USERS; CLIENT GETNAME
        0: ACL LOG
        0: ACL LOG 1
        0: ACL LOG x; ACL LOG 1 2
        1: AUTH bad; AUTH bad; AUTH pw
        1: ACL LOG 2
        1: MULTI; AUTH you x; AUTH pw; EXEC
        1: ACL LOG -1
        1: ACL LOG 1
        1: ACL LOG RESET; ACL LOG
        1: CONFIG SET requirepass new; GET a; AUTH pw; AUTH new; CONFIG SET requirepass ''; AUTH new; AUTH default x
        2: GET a
        0: RESET; GET a; INFO errorstats""",
    "no memory left": """maxmemory=1
        0: SET a b; GET a; DEL a; APPEND a b; INCR a; MSET a b; SETRANGE a 0 x; EXPIRE a 1; GETSET a b; COPY a b; RENAME a b; SETBIT a 1 1
        0: MULTI; SET a b; GET a; EXEC; PUBLISH a b; SUBSCRIBE a; UNSUBSCRIBE a; FLUSHALL; WATCH a; PERSIST a; GETEX a; GETDEL a
        0: INFO errorstats
        0: CONFIG SET maxmemory 0; SET a b""",
    "other names": """rename-command=GET FETCH
        0: SET a 1; GET a; FETCH a; fetch a; FETCH
        0: COMMAND GETKEYS GET a; COMMAND GETKEYS FETCH a
        0: MULTI; FETCH a; GET a; EXEC""",
    "commands withdrawn": """rename-command=CONFIG ''
        0: CONFIG GET x; CONFIG; config get x
        0: COMMAND GETKEYS CONFIG GET x""",
    "a follower": """replicaof=127.0.0.1 1
        0: HELLO
        0: SET a b; GET a; PUBLISH a b; WAIT 0 0; MULTI; SET a b; EXEC; CONFIG GET slave-read-only; FLUSHALL; EXPIRE a 1; DBSIZE
        0: REPLICAOF NO ONE; SET a b; GET a
        0: HELLO 3""",
}


def spoken(text):
    """As redis-cli splits it: the words of each command."""
    for said in re.split(r"; ", text):
        found = re.findall(r"""'([^']*)'|"((?:\\.|[^"])*)"|(\S+)""", said)
        yield tuple((a or c).encode() + b.encode().decode("unicode_escape").encode("latin-1") for a, b, c in found)


def blocked(server, n):
    with server.client() as c:
        return b"blocked_clients:%d\r\n" % n in c("INFO", "clients")


def hold(servers, proto, script):
    """Plays the lines of a session."""
    with Company(servers, proto, 3) as company:
        for line in script:
            if line.startswith("blocked"):
                eventually(lambda: all(blocked(server, int(line.split()[1])) for server in servers))
                continue
            who, how, commands = int(line[0]), line[1], list(spoken(line[2:].strip()))
            pair = company.pairs[who]
            if how == ">":
                pair.send(*([company.resolve(said, i) for said in commands] for i in (0, 1)))
                pair.unheard = commands
            elif how == "<":
                company.played.append(line)
                pair.answers(pair.unheard)
            else:
                company.say(who, *commands)


@pytest.mark.parametrize("proto", [2, 3])
@pytest.mark.parametrize("name", SESSIONS)
def test_sessions(servers, name, proto):
    options, *script = (line.strip() for line in SESSIONS[name].split("\n"))
    with contextlib.ExitStack() as stack:
        if options:
            option, value = options.split("=")
            options = {option: [word.strip("'") for word in value.split()]}
            servers = [stack.enter_context(Server(binary=binary, **options)) for binary in (None, need("redis-server"))]
            align(*servers)
        else:
            as_new(servers)
        hold(servers, proto, script)
