"""Random commands: a grammar of what clients say, and generators that speak it, well and badly.

A generator takes a random.Random and gives words, a tuple of bytes.
"""
import random
import re

# One form of a command each, two spaces apart. Words in upper case and in quotes stand for themselves, others for one
# of TERMS; ? behind a word: perhaps, *: up to three times, +: one to three times.
GRAMMAR = """
    SET key value set*              SET key value                   SET key number
    SET key value PXAT far          GET key                         GETSET key value
    GETEX key getex*                GETDEL key                      SETNX key value
    SETEX key relative value        PSETEX key relative value       MGET key+
    MSET pair+                      MSETNX pair+                    APPEND key value
    STRLEN key                      GETRANGE key index index        SUBSTR key index index
    SETRANGE key offset value       INCR key                        DECR key
    INCRBY key number               DECRBY key number               INCRBYFLOAT key number
    LCS key key lcs*                SETBIT key offset bit           GETBIT key offset
    BITCOUNT key                    BITCOUNT key index index unit?  BITPOS key bit
    BITPOS key bit index            BITPOS key bit index index unit?
    BITOP logic key key+            BITOP NOT key key               BITFIELD key field*
    BITFIELD key field+             BITFIELD_RO key GET type offset  BITFIELD_RO key field*
    DEL key+                        UNLINK key+                     EXISTS key+
    TOUCH key+                      TYPE key                        KEYS pattern
    EXPIRE key relative nx?         PEXPIRE key relative nx?        EXPIREAT key seconds when*
    PEXPIREAT key far when*         TTL key                         PTTL key
    EXPIRETIME key                  PEXPIRETIME key                 PERSIST key
    SCAN cursor scan*               RANDOMKEY                       RANDOMKEY
    RENAME key key                  RENAMENX key key                COPY key key copy*
    MOVE key db                     SWAPDB db db                    SELECT db
    FLUSHDB flush?                  FLUSHALL flush?                 DUMP key
    RESTORE key 0 payload restore*  RESTORE key relative payload restore*
    RESTORE key far payload ABSTTL restore*                         OBJECT object key
    OBJECT object key               CLIENT GETNAME                  MULTI
    EXEC                            DISCARD                         WATCH key+
    WATCH key                       UNWATCH                         PING value?
    ECHO value                      HELLO protocol? hello*          CLIENT SETNAME value
    CLIENT ID                       CLIENT NO-EVICT junk            FLUSHALL
    CLIENT junk                     RESET                           AUTH value
    AUTH default value              junk value*                     PUBLISH value value
    SPUBLISH value value            PUBSUB pubsub value*            CLIENT KILL value
    CLIENT UNBLOCK number junk?     CLIENT UNPAUSE                  CLIENT PAUSE 0 junk?
    ACL WHOAMI                      ACL USERS                       ACL GETUSER value
"""

# The same for what is not about data: to be said to two servers alike, and of no use to who replays it. <id:n> and
# <addr:n> stand for the number and the address of connection n.
SERVER_GRAMMAR = """
    SUBSCRIBE channel+              PSUBSCRIBE glob+                SSUBSCRIBE channel+
    UNSUBSCRIBE channel*            PUNSUBSCRIBE glob*              SUNSUBSCRIBE channel*
    PUBLISH channel value           PUBLISH channel value           SPUBLISH channel value
    PUBSUB CHANNELS glob?           PUBSUB NUMSUB channel*          PUBSUB NUMPAT
    PUBSUB SHARDCHANNELS glob?      PUBSUB SHARDNUMSUB channel*     PING value?
    CONFIG SET 'notify-keyspace-events' events                      CONFIG SET 'notify-keyspace-events' events
    CONFIG SET setting              CONFIG SET setting setting      CONFIG SET setting setting junk
    CONFIG GET option               CONFIG GET option option        CONFIG RESETSTAT junk?
    CONFIG REWRITE                  CONFIG junk value*              CLIENT LIST filter*
    CLIENT LIST                     CLIENT INFO junk?               CLIENT GETNAME
    CLIENT SETNAME value            CLIENT NO-EVICT switch          CLIENT KILL target
    CLIENT KILL filter              CLIENT KILL filter filter       CLIENT UNBLOCK who junk?
    CLIENT PAUSE 0 mode             CLIENT UNPAUSE junk?            CLIENT REPLY ON
    CLIENT ID                       ACL WHOAMI                      ACL LIST
    ACL USERS junk?                 ACL GETUSER value               ACL CAT category
    ACL LOG count?                  AUTH value                      AUTH user value
    HELLO protocol? hello*          HELLO protocol? hello*          RESET
    OBJECT object key               MEMORY USAGE key samples*       MEMORY memory value*
    SLOWLOG slowlog count*          LATENCY latency event*          COMMAND INFO name+
    COMMAND DOCS name+              COMMAND GETKEYS command         COMMAND COUNT junk?
    COMMAND LIST list*              WAIT 0 timeout                  WAIT number 1
    ROLE junk?                      LASTSAVE                        TIME
    INFO section*                   REPLICAOF NO ONE                FAILOVER failover*
    ECHO value                      SAVE junk                       BITCOUNT key
    SELECT db                       MULTI                           EXEC
    DISCARD                         WATCH key+                      value value*
"""

KEYS = [b"a", b"b", b"c", b"d", b"e", b"", b"\0\xff"]
FAR = 33177117420000  # ms since 1970; the deadlines around it lie a minute apart
PAYLOADS = """000568656c6c6f0a006372df766534200a 00c00c0a003c2af8515c04bcd5 00c1d4fe0a00c6c48623febede2e
    00c2a08601000a00f12403506f2fa674 00c30c412c017878e0ff00e017000178780a00f033195a8b660d84
    00c30c412c017878e0ff00e017000178780a00f033195a8b660d85 00c00c0a00 00"""  # as redis-server dumps, two damaged


def one(values):
    """One of these, as a word."""
    return lambda rng: (rng.choice(values),)


def words(*texts):
    """One of these texts, split into its words."""
    return lambda rng, choices=[tuple(text.encode().split()) for text in texts]: rng.choice(choices)


def one_of(*generators):
    return lambda rng: rng.choice(generators)(rng)


def joined(*generators):
    return lambda rng: sum((generate(rng) for generate in generators), ())


def repeated(generate, least, most):
    return lambda rng: sum((generate(rng) for _ in range(rng.randint(least, most))), ())


integers = one([b"%d" % n for n in range(-40, 301)])
# No small positive ones: as a relative deadline they would depend on how fast the test runs.
odd_numbers = one([n.encode() for n in (
    "0 -1 -3 9223372036854775807 -9223372036854775808 9223372036854775808 1.5 -0.25 1e3 3.0e-10 1e17 nan inf -inf 0x10 "
    "+1 01 -0 1e400 abc 00 1.0 .5 5. 99999999999999999999 4294967296").split(" ") + [" 1", "1 ", ""]])  # fmt: skip
numbers = one_of(integers, odd_numbers)
values = one_of(
    numbers,
    one([b"", b"a", b"ohmytext", b"mynewtext", b"\xff\0\r\n", b"x" * 44, b"x" * 45, b"ab" * 150]),
    one([b"", b"a", b"ohmytext", b"mynewtext", b"x" * 33000, b"\xff" * 70]),
    lambda rng: (rng.randbytes(rng.randint(0, 20)),),
)
relative = one_of(words("50000", "100000", "0", "-5"), odd_numbers)
seconds = one_of(words(*(str(FAR // 1000 + n * 60) for n in range(6)), "1", "1600000000"), odd_numbers)
far = one_of(words(*(str(FAR + n * 60000) for n in range(6)), "1", "1000", "1600000000000"), odd_numbers)
offsets = one_of(numbers, numbers, words("#0", "#7", "#x"))
types = words("u1", "i5", "u8", "i8", "i16", "u32", "i64", "u63", "u64", "i65", "u0", "x")
databases = words("0", "1", "2", "3", "0", "1", "15", "16", "-1", "x")
keys = one(KEYS)
channels = words("a", "b", "news", "news.a", "__keyspace@0__:a", "__keyevent@0__:set")
whose = words("<id:0>", "<id:1>", "<id:2>", "0", "-1", "x", "999999")
junk = words("foo", "NX", "on", "OFF", "getx")
getex = one_of(
    words("PERSIST", "FOO", "EX"),
    joined(words("EX", "PX"), relative),
    joined(words("EXAT"), seconds),
    joined(words("PXAT"), far),
)
TERMS = {
    "key": keys,
    "value": values,
    "pair": joined(keys, values),
    "number": numbers,
    "index": numbers,
    "offset": offsets,
    "relative": relative,
    "seconds": seconds,
    "far": far,
    "db": databases,
    "type": types,
    "junk": junk,
    "getex": getex,
    "set": one_of(words("NX", "XX", "GET", "KEEPTTL", "get"), getex),
    "nx": words("NX", "XX", "FOO"),
    "when": words("NX", "XX", "GT", "LT", "gt", "FOO"),
    "bit": words("0", "1", "1", "2", "x"),
    "unit": words("BIT", "BYTE", "bit", "NIBBLE"),
    "logic": words("AND", "OR", "XOR", "and", "NAND"),
    "field": one_of(
        joined(words("GET"), types, offsets),
        joined(words("SET", "INCRBY"), types, offsets, numbers),
        words("OVERFLOW WRAP", "OVERFLOW SAT", "OVERFLOW FAIL", "OVERFLOW FOO", "GET", "FOO u8 0"),
    ),
    "lcs": words("LEN", "IDX", "IDX", "WITHMATCHLEN", "MINMATCHLEN 2", "MINMATCHLEN x", "FOO"),
    "cursor": words("0", "0", "0", "x", "1x"),
    "pattern": words("*", "?", "[a-c]", "[^a]", "a*", "\\a", "[", "*[b-"),
    "scan": words("MATCH *", "MATCH [ab]", "COUNT 1", "COUNT 99", "COUNT 0", "TYPE string", "TYPE list", "FOO 1"),
    "copy": one_of(words("REPLACE", "FOO", "DB"), joined(words("DB"), databases)),
    "flush": words("SYNC", "ASYNC", "FOO"),
    "object": words("ENCODING", "ENCODING", "REFCOUNT", "IDLETIME", "FREQ", "FOO"),
    "payload": one([bytes.fromhex(p) for p in PAYLOADS.split()] * 3 + [b"", b"\0", b"abcdefghijklmnop"]),
    "restore": words("REPLACE", "REPLACE", "ABSTTL", "IDLETIME 0", "FREQ 3", "IDLETIME -1", "FREQ 256", "FOO"),
    "pubsub": words("CHANNELS", "NUMSUB", "NUMPAT", "SHARDCHANNELS", "SHARDNUMSUB", "FOO"),
    "protocol": words("2", "3", "3", "4", "x"),
    "hello": words("SETNAME n", "SETNAME", "AUTH default x", "AUTH me x", "FOO"),
    "channel": channels,
    "glob": one_of(channels, words("*", "news*", "n?ws", "[ab]", "__key*__:*", "__key*__:*", "\\a")),
    "events": words("KEA", "KEA", "KEAmn", "K$", "Eg", "Ex$", "KExn"),
    "setting": words(
        "timeout 1000", "timeout 0", "timeout x", "timeout -1", "tcp-keepalive 5", "loglevel notice", "loglevel loud", "unixsocket",
        "slowlog-max-len 3", "slowlog-max-len -1", "maxmemory 1x", "nosuch 1", "databases 3", "latency-tracking maybe",
        "slave-priority 7", "replica-priority 8", "maxclients 0", "appendfsync no", "min-replicas-max-lag 11"),
    "option": words("timeout", "TIMEOUT", "tcp-keep*", "loglevel", "nosuch", "slowlog-max-le?", "[m]axmemory", "slave-priority",
                    "replica-prio*", "min-slaves-max-lag", "notify*", "timeout loglevel", "appendfsync", "requirepass"),
    "filter": one_of(joined(words("ID"), whose), words(
        "TYPE normal", "TYPE pubsub", "TYPE PubSub", "TYPE master", "TYPE replica", "TYPE foo", "TYPE", "ID", "USER default",
        "USER me", "SKIPME yes", "SKIPME no", "SKIPME x", "ADDR <addr:0>", "ADDR <addr:1>", "ADDR 1:1", "LADDR 1:1", "FOO x")),
    "target": words("<addr:0>", "<addr:1>", "<addr:2>", "1:1", "x"),
    "who": whose,
    "switch": words("on", "OFF", "x"),
    "mode": words("", "WRITE", "all", "FOO"),
    "category": words("", "string", "Bitmap", "@read", "foo", "string x"),
    "count": words("0", "1", "-1", "-2", "x", "RESET", "10 1"),
    "user": words("default", "Default", "me", "you"),
    "samples": words("SAMPLES 0", "SAMPLES -1", "SAMPLES x", "SAMPLES", "FOO"),
    "memory": words("DOCTOR", "STATS", "PURGE", "MALLOC-STATS", "FOO"),
    "slowlog": words("GET", "LEN", "RESET", "FOO"),
    "latency": words("LATEST", "HISTORY", "RESET", "GRAPH", "DOCTOR", "HISTOGRAM", "FOO"),
    "event": words("command", "nosuch", "get"),
    "name": words("get", "SET", "client", "client|kill", "CONFIG|get", "nosuch", "memory|usage", "mset", "bitop", "subscribe"),
    "list": words("FILTERBY PATTERN getr*", "FILTERBY ACLCAT bitmap", "FILTERBY MODULE x", "FILTERBY FOO x", "FILTERBY", "FOO"),
    "timeout": words("0", "1", "-1", "x", "1.5"),
    "section": words("server", "CLIENTS", "memory", "stats", "keyspace", "all", "everything", "default", "nosuch", "cpu"),
    "failover": words("ABORT", "TO", "TO 127.0.0.1 1", "TIMEOUT 1", "TIMEOUT x", "FORCE", "FOO"),
}


def form(line):
    """The generator for one form of a grammar."""
    parts = []
    for name in line.split():
        bare = name.rstrip("?*+")
        constant = bare.replace("-", "").isupper() or bare.isdigit() or bare == "default" or bare[0] == "'"
        generate = words(bare.strip("'")) if constant else TERMS[bare]
        least, most = {"?": (0, 1), "*": (0, 3), "+": (1, 3)}.get(name[-1], (1, 1))
        parts.append(generate if most == 1 == least else repeated(generate, least, most))
    return joined(*parts)


def forms(grammar):
    return one_of(*map(form, re.split(r"\s{2,}", grammar.strip())))


def mangled(rng, said):
    """A command with a word dropped, exchanged or put in."""
    said = list(said)
    at = rng.randint(1, max(1, len(said) - 1))
    said[at : at + rng.randint(0, 1)] = repeated(one_of(junk, odd_numbers, keys), 0, 2)(rng)
    return tuple(said)


command = forms(GRAMMAR)  # about data, most of them
TERMS["command"] = command
server_command = forms(SERVER_GRAMMAR)


def one_in(rng, n):
    return rng.randrange(n) == 0


def step(rng, servers):
    """(connection, command). Where servers are compared, a third connection likes to listen to the others."""
    who = rng.randint(0, 1 + servers)
    said = (server_command if servers and (who == 2 or one_in(rng, 4)) else command)(rng)
    return who, mangled(rng, said) if one_in(rng, 7) else said


def transaction(rng, servers):
    """MULTI to EXEC on one connection, with the others' commands in between."""
    me, steps = rng.randint(0, 1), []
    if one_in(rng, 2):
        steps = [(me, (b"WATCH", *keys(rng)))] + [(1 - me, step(rng, servers)[1]) for _ in range(rng.randint(0, 1))]
    steps.append((me, (b"MULTI",)))
    for _ in range(rng.randint(0, 6)):
        who, said = step(rng, servers)
        steps.append((who if one_in(rng, 3) else me, said))
    return [*steps, (me, (b"EXEC",))]


def sequence(seed, servers=False):
    """A list of (connection, command), always the same for a seed; servers: with SERVER_GRAMMAR's commands."""
    rng = random.Random(seed)
    blocks = (transaction(rng, servers) if one_in(rng, 4) else [step(rng, servers)] for _ in range(rng.randint(25, 60)))
    return sum(blocks, [])
