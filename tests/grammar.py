"""Random commands: a grammar of what clients say, and strategies that speak it, well and badly."""
import re

from hypothesis import strategies as st

# One form of a command each, two spaces apart. Words in upper case stand for themselves, others for one of
# TERMS; ? behind a word: perhaps, *: up to three times, +: one to three times.
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

KEYS = [b"a", b"b", b"c", b"d", b"e", b"", b"\0\xff"]
FAR = 33177117420000  # ms since 1970; the deadlines around it lie a minute apart
PAYLOADS = """000568656c6c6f0a006372df766534200a 00c00c0a003c2af8515c04bcd5 00c1d4fe0a00c6c48623febede2e
    00c2a08601000a00f12403506f2fa674 00c30c412c017878e0ff00e017000178780a00f033195a8b660d84
    00c30c412c017878e0ff00e017000178780a00f033195a8b660d85 00c00c0a00 00"""  # as redis-server dumps, two damaged


def words(*texts):
    """One of these texts, split into its words."""
    return st.sampled_from([tuple(text.encode().split()) for text in texts])


def word(strategy):
    return strategy.map(lambda w: (w,))


def joined(*strategies):
    return st.tuples(*strategies).map(lambda parts: sum(parts, ()))


def repeated(strategy, least, most):
    return st.lists(strategy, min_size=least, max_size=most).map(lambda parts: sum(parts, ()))


integers = word(st.integers(-40, 300).map(b"%d".__mod__))
# No small positive ones: as a relative deadline they would depend on how fast the test runs.
odd_numbers = word(st.sampled_from([n.encode() for n in (
    "0 -1 -3 9223372036854775807 -9223372036854775808 9223372036854775808 1.5 -0.25 1e3 3.0e-10 1e17 nan inf -inf 0x10 "
    "+1 01 -0 1e400 abc 00 1.0 .5 5. 99999999999999999999 4294967296").split(" ") + [" 1", "1 ", ""]]))  # fmt: skip
numbers = integers | odd_numbers
values = numbers | word(
    st.sampled_from([b"", b"a", b"ohmytext", b"mynewtext", b"\xff\0\r\n", b"x" * 44, b"x" * 45, b"ab" * 150])
    | st.sampled_from([b"x" * 33000, b"\xff" * 70])
    | st.binary(max_size=20)
)
relative = words("100", "100000", "0", "-5") | odd_numbers
seconds = words(*(str(FAR // 1000 + n * 60) for n in range(6)), "1", "1600000000") | odd_numbers
far = words(*(str(FAR + n * 60000) for n in range(6)), "1", "1000", "1600000000000") | odd_numbers
offsets = numbers | words("#0", "#7", "#x")
types = words("u1", "i5", "u8", "i8", "i16", "u32", "i64", "u63", "u64", "i65", "u0", "x")
databases = words("0", "1", "2", "3", "0", "1", "15", "16", "-1", "x")
keys = word(st.sampled_from(KEYS))
junk = words("foo", "NX", "on", "OFF", "getx")
getex = st.one_of(
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
    "set": words("NX", "XX", "GET", "KEEPTTL", "get") | getex,
    "nx": words("NX", "XX", "FOO"),
    "when": words("NX", "XX", "GT", "LT", "gt", "FOO"),
    "bit": words("0", "1", "1", "2", "x"),
    "unit": words("BIT", "BYTE", "bit", "NIBBLE"),
    "logic": words("AND", "OR", "XOR", "and", "NAND"),
    "field": st.one_of(
        joined(words("GET"), types, offsets),
        joined(words("SET", "INCRBY"), types, offsets, numbers),
        words("OVERFLOW WRAP", "OVERFLOW SAT", "OVERFLOW FAIL", "OVERFLOW FOO", "GET", "FOO u8 0"),
    ),
    "lcs": words("LEN", "IDX", "IDX", "WITHMATCHLEN", "MINMATCHLEN 2", "MINMATCHLEN x", "FOO"),
    "cursor": words("0", "0", "0", "x", "1x"),
    "pattern": words("*", "?", "[a-c]", "[^a]", "a*", "\\a", "[", "*[b-"),
    "scan": words("MATCH *", "MATCH [ab]", "COUNT 1", "COUNT 99", "COUNT 0", "TYPE string", "TYPE list", "FOO 1"),
    "copy": words("REPLACE", "FOO", "DB") | joined(words("DB"), databases),
    "flush": words("SYNC", "ASYNC", "FOO"),
    "object": words("ENCODING", "ENCODING", "REFCOUNT", "IDLETIME", "FREQ", "FOO"),
    "payload": word(st.sampled_from([bytes.fromhex(p) for p in PAYLOADS.split()]) | st.binary(max_size=20)),
    "restore": words("REPLACE", "REPLACE", "ABSTTL", "IDLETIME 0", "FREQ 3", "IDLETIME -1", "FREQ 256", "FOO"),
    "pubsub": words("CHANNELS", "NUMSUB", "NUMPAT", "SHARDCHANNELS", "SHARDNUMSUB", "FOO"),
    "protocol": words("2", "3", "3", "4", "x"),
    "hello": words("SETNAME n", "SETNAME", "AUTH default x", "FOO"),
}


def form(line):
    """The strategy for one form of the grammar."""
    parts = []
    for name in line.split():
        bare = name.rstrip("?*+")
        one = words(bare) if bare.isupper() or bare.isdigit() or bare == "default" else TERMS[bare]
        least, most = {"?": (0, 1), "*": (0, 3), "+": (1, 3)}.get(name[-1], (1, 1))
        parts.append(one if most == 1 == least else repeated(one, least, most))
    return joined(*parts)


@st.composite
def mangled(draw, command):
    """A command with a word dropped, exchanged or put in."""
    said = list(draw(command))
    at = draw(st.integers(1, max(1, len(said) - 1)))
    said[at : at + draw(st.integers(0, 1))] = draw(repeated(junk | odd_numbers | keys, 0, 2))
    return tuple(said)


commands = st.one_of([form(line) for line in re.split(r"\s{2,}", GRAMMAR.strip())])
connections = st.integers(0, 1)
steps = st.tuples(connections, st.one_of([commands] * 6 + [mangled(commands)]))


@st.composite
def transactions(draw):
    """MULTI to EXEC on one connection, with the other one's commands in between."""
    me = draw(connections)
    inner = [(me if draw(st.integers(0, 2)) else 1 - me, said) for _, said in draw(st.lists(steps, max_size=6))]
    watch = draw(st.lists(keys.map(lambda key: (me, (b"WATCH", *key))), max_size=1))
    between = [(1 - me, said) for _, said in draw(st.lists(steps, max_size=1))] if watch else []
    return [*watch, *between, (me, (b"MULTI",)), *inner, (me, (b"EXEC",))]


# Lists of (connection, command). The empty block is what a failing sequence shrinks to.
one_step = steps.map(lambda step: [step])
blocks = st.one_of(st.just([]), one_step, one_step, one_step, transactions())
sequences = st.lists(blocks, min_size=25, max_size=60).map(lambda blocks: sum(blocks, []))
