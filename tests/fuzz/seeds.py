"""Writes the inputs that the fuzzers begin with: python3 seeds.py FOLDER

A folder and a dictionary for each target, from the grammar of random commands (../grammar.py) and from what clients
say; always the same ones.
"""
import os
import re
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from ev import ROOT, encode  # noqa: E402
from grammar import GRAMMAR, PAYLOADS, sequence  # noqa: E402

TURN, TOGETHER, LEAVE, ROOM, PIECES, INTERRUPT, CLOCK, DISK, WAIT, LITERAL, REPEAT = range(11)

# What clients send when they connect, and what a person types.
SESSIONS = [
    "COMMAND DOCS|PING|SET greeting hello|GET greeting|INCR n|CONFIG GET *|INFO|CLIENT LIST|QUIT",
    "HELLO 3 SETNAME me|CLIENT SETINFO LIB-NAME redis-py|CLIENT SETINFO LIB-VER 4.3.4|SELECT 1|GET a|CLIENT INFO",
    "CONFIG GET save|CONFIG GET appendonly|PING|SET key:000000000001 xxx|GET key:000000000001|MSET a 1 b 2|MGET a b",
    "SUBSCRIBE a b|PSUBSCRIBE a*|PING x|UNSUBSCRIBE a|RESET|SSUBSCRIBE s|PUNSUBSCRIBE|SUNSUBSCRIBE",
    "PUBLISH a x|SPUBLISH s y|PUBSUB CHANNELS *|PUBSUB NUMSUB a b|PUBSUB SHARDCHANNELS|CLIENT REPLY SKIP|PING",
    "MULTI|SET a 1|INCR a|SELECT 2|SET b 2|BGSAVE|EXEC|WATCH a|MULTI|SET a 2|EXEC|UNWATCH|DISCARD",
    "SET a 1|WAITAOF 1 0 0|GET a|WAITAOF 0 1 50|SET b 2|BGREWRITEAOF|SAVE|LASTSAVE|DEBUG RELOAD|DEBUG LOADAOF",
    "SET a 1 PX 50|SET b 2 EXAT 1700000001|PTTL a|EXPIRE b 100 GT|PERSIST b|GETEX a PERSIST|TTL a|OBJECT IDLETIME a",
    "SETRANGE big 3000 x|APPEND big yyyy|GET big|COPY big two|GETRANGE two 0 -1|SETBIT bits 9000 1|BITCOUNT bits|DUMP big",
    "CONFIG SET maxmemory 30kb|SET x 1|CONFIG SET requirepass pw|AUTH pw|CONFIG SET requirepass ''|CONFIG RESETSTAT",
    "CONFIG SET appendonly no|SET a 1|CONFIG SET appendonly yes|SET a 2|BGSAVE|FLUSHALL|SWAPDB 0 1|SHUTDOWN NOSAVE",
    "CONFIG SET client-output-buffer-limit 'normal 1kb 500 1'|CONFIG SET save '1 1'|INFO everything|SCAN 0 MATCH * COUNT 5",
    "CLIENT REPLY OFF|SET a b|CLIENT REPLY ON|CLIENT NO-EVICT on|CLIENT ID|CLIENT GETNAME|MONITOR|REPLICAOF no one|ROLE",
    "PING|REPLCONF listening-port 7|REPLCONF capa eof capa psync2|PSYNC ? -1|REPLCONF ACK 0|WAIT 1 10",
]


def escaped(data):
    return data.replace(b"\xff", bytes([255, LITERAL, 255]))


def order(what, operand):
    return bytes([255, what, operand])


def words(line):
    return [w.strip("'") for w in re.findall(r"'[^']*'|\S+", line)]


def sampled(count):
    """Random sequences of (connection, command), the same every time."""
    return [sequence(n) for n in range(count)]


def server_inputs(random):
    for n, session in enumerate(SESSIONS):
        lines = session.split("|")
        for how in (n * 37 % 256, 0x81, 0xC3):
            yield bytes([how]) + escaped(b"".join(line.encode() + b"\r\n" for line in lines))
            yield bytes([how]) + b"".join(order(TURN, n % 3) + escaped(encode(*words(line))) for n, line in enumerate(lines))
    for n, sequence in enumerate(random):
        out = bytes([n * 29 % 256])
        for i, (who, said) in enumerate(sequence):
            out += order([TURN, TOGETHER][i % 3 == 0], who) + escaped(encode(*said))
            if i % 11 == n % 11:
                out += order(*[(ROOM, 1), (PIECES, 7), (INTERRUPT, 3), (CLOCK, 12), (DISK, 9), (WAIT, 2), (LEAVE, 0),
                               (REPEAT, 20), (CLOCK, 140), (DISK, 3), (ROOM, 255)][n % 11])
        yield out[:4000]


def parser_inputs(random):
    for n, sequence in enumerate(random):
        data = b"".join(encode(*said) for _, said in sequence)[: 50 + n * 20]
        cuts = bytes((n * k * 7) % 256 for k in range(1, 1 + n % 8))
        yield bytes([n % 8 | (n % 3 == 0) << 6]) + cuts + data
    for line in (b"SET a 'b c' \"\\x41\\n\"\r\nPING\n", b"*1\r\n$4\r\nPING\r\n*-1\r\n\r\n", b"*2\r\n$600\r\n" + b"x" * 600,
                 b"-1", b"1e400", b"9223372036854775807", b"0.1", b"1e-3"):
        yield b"\x83\x05\x46\x01" + line
        yield b"\x00" + line


def strings():
    return [b"", b"a", b"-1", b"300", b"70000", b"x" * 70, b"ab" * 300, b"\xff\0", b"1" * 25]


def dump_inputs(random):
    for payload in PAYLOADS.split():
        yield b"\0" + bytes.fromhex(payload)
        yield b"\1" + bytes.fromhex(payload)[:-10]
    for s in strings():
        yield b"\0" + s


def length(n):
    return bytes([n]) if n < 64 else struct.pack(">H", 0x4000 | n) if n < 16384 else b"\x80" + struct.pack(">I", n)


def rdb_string(s):
    return length(len(s)) + s


def rdb_files():
    entries = b"".join(b"\0" + rdb_string(b"key%d" % i) + rdb_string(s) for i, s in enumerate(strings()))
    ends = b"\xff" + bytes(8)
    aux = b"".join(b"\xfa" + rdb_string(a) + rdb_string(b) for a, b in [
        (b"redis-ver", b"7.0.15"), (b"repl-stream-db", b"0"), (b"repl-id", b"a" * 40), (b"repl-offset", b"7"),
        (b"echovault-history", b"c" * 40)])  # fmt: skip
    for magic in (b"REDIS0009", b"REDIS0003", b"REDIS0014", b"VALKEY080"):
        yield magic + aux + b"\xfe\0\xfb\x09\x02" + entries + ends
    yield b"REDIS0010" + b"\xfc" + struct.pack("<q", 1800000000000) + b"\0\x01a\x01b" + b"\xfd\0\0\xff\x7f\xf8\x05\0\x01b\xc0\x7f" + ends
    yield b"REDIS0011" + b"\xf9\x03\0\x01k\xc3\x0c\x41\x2c\x01xx\xe0\xff\0\xe0\x17\0\x01xx" + b"\xf4\1\1\1\xf5\x03abc" + ends
    for kind in (1, 4, 14, 21):
        yield b"REDIS0009\xfe\x01" + bytes([kind]) + b"\x03key\x01\x01a" + ends


def rdb_inputs(random):
    for n, file in enumerate(rdb_files()):
        yield bytes([n * 5]) + file


def log_inputs(random):
    for n, sequence in enumerate(random[:40]):
        changes = [said for _, said in sequence if said[0] in
                   (b"SET", b"DEL", b"INCR", b"APPEND", b"SETRANGE", b"MSET", b"SELECT", b"PERSIST", b"RENAME", b"BITOP")]
        log = b"".join(encode(*said) + (b"#0" if i % 5 == 4 else b"") for i, said in enumerate(changes)).replace(b"\xff", b"f")
        log += [b"", b"#1", encode("MULTI") + log[:200] + encode("EXEC") + b"#1", b"#8" + log[:99], b"\0" * 600][n % 5]
        for how in (0x49, 0x6B, 0x5D):
            yield bytes([how, 0, 0, 0, n % 2]) + log
        yield bytes([0x48]) + b"#note\r\n" + log.replace(b"#0", b"")
    for file in rdb_files():
        yield b"\x42" + file
        yield b"\x46" + file
        yield b"\x48" + file + encode("SET", "a", "b")


def follower_inputs(random):
    full = b"+FULLRESYNC " + b"d" * 40 + b" %d\r\n"
    turn, rdb = bytes([255, 0, 3]), lambda keys: bytes([255, 6, keys])  # noqa: E731
    for how in (0xC0, 0x80, 0xC6, 0x82, 0x4A):
        for n, sequence in enumerate(random[:12]):
            stream = b"".join(encode(*said) + (bytes([255, 7, i], ) if i % 7 == 6 else b"") for i, (_, said) in enumerate(sequence)
                              if said[0] in (b"SET", b"DEL", b"MULTI", b"EXEC", b"INCR", b"SELECT", b"APPEND", b"MSET", b"PING"))
            orders = [bytes([255, 5, n]), bytes([255, 1, n % 2]), bytes([255, 4, 1]), bytes([255, 2, 17]), bytes([255, 3, 9])]
            yield bytes([how]) + full % (n * 100) + turn + rdb(n % 5 + 1) + turn + stream[:1500] + orders[n % 5] + turn
        yield bytes([how]) + b"+CONTINUE " + b"e" * 40 + b"\r\n" + turn + encode("SET", "a", "b") + turn
        yield bytes([how]) + full % 7 + b"$EOF:" + b"m" * 40 + b"\r\nREDIS0009\xfe\0\0\1a\1b\xff".replace(b"\xff", bytes([255, 8, 255])) + bytes(8) + b"m" * 40
        yield bytes([how]) + b"+FULLRESYNC " + b"d" * 40 + b" 18446744073709551615\r\n" + turn + rdb(3) + turn + encode("SET", "a", "b") + turn
        yield bytes([how]) + b"-NOMASTERLINK x\r\n" + turn + b"-LOADING\r\n\n\n+CONTINUE\r\n" + encode("REPLCONF", "GETACK", "*") + turn


def config_inputs(random):
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (?:`(.*)`)? ?\|$", open(os.path.join(ROOT, "README.md")).read(), re.M)
    yield b"".join(b"%s %s\n" % (name.encode(), value.encode() or b'""') for name, value in rows) + b"\0"
    for name, value in rows:
        yield b"# a line\n%s %s\n" % (name.encode(), value.encode() or b'""')
        yield b"\n\0--%s\n%s" % (name.encode(), value.encode() or b"x")
    yield b"rename-command get fetch\nrename-command FETCH ''\nrename-command Set get\n"
    yield b"\0--rename-command\nCONFIG\nx\n--rename-command\nX\ny"
    yield b"save 1 2\nsave 3 4\nbind 127.0.0.1 -::1\nrequirepass 'a b'\nmaxmemory 1gb\nuser x\ninclude y\nhz 10\n\0--save\n\n"


def dictionary(name):
    found = set()
    if name in ("server", "log", "parser", "follower"):
        found |= {w for w in re.findall(r"[A-Z][A-Z_-]+", GRAMMAR + " ".join(SESSIONS))}
        found |= {"\\r\\n", "*3\\r\\n$3\\r\\nSET\\r\\n$1\\r\\na\\r\\n$1\\r\\nb\\r\\n", "*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\na\\r\\n", "$600\\r\\n"}
        found |= {f"\\xff\\x{o:02x}\\x{v:02x}" for o in range(11) for v in (0, 1, 3, 12, 64, 140, 255)} if name in ("server", "follower") else set()
        found |= {"+FULLRESYNC dddddddddddddddddddddddddddddddddddddddd 5\\r\\n", "+CONTINUE", "$EOF:", "-NOAUTH"} if name == "follower" else set()
    if name in ("server", "config"):
        found |= set(re.findall(r"^\| `([a-z-]+)` \|", open(os.path.join(ROOT, "README.md")).read(), re.M))
        found |= {"normal", "replica", "pubsub", "everysec", "always", "1mb", "yes", "no", "local", "KEA", "rename-command get ", "rename-command set x\\x0a"}
    if name == "rdb":
        found |= {"REDIS0009", "VALKEY080", "\\xfa", "\\xfb", "\\xfc", "\\xfd", "\\xfe\\x00", "\\xff", "\\xc3", "repl-id", "repl-offset"}
    return "".join(f'"{w}"\n' for w in sorted(found)).replace("\\r\\n", "\\x0d\\x0a")


if __name__ == "__main__":
    folder = sys.argv[1]
    random = sampled(60)
    for name in ("server", "parser", "dump", "rdb", "log", "config", "follower"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        for n, data in enumerate(globals()[name + "_inputs"](random)):
            with open(os.path.join(folder, name, f"{n:03}"), "wb") as f:
                f.write(data)
        with open(os.path.join(folder, name + ".dict"), "w") as f:
            f.write(dictionary(name))
