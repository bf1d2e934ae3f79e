"""Strings, numbers and bits: every command's replies and error texts."""
import pytest

from ev import NIL, NIL3, OK, Error

NOT_INTEGER = Error("ERR value is not an integer or out of range")
NOT_FLOAT = Error("ERR value is not a valid float")
SYNTAX = Error("ERR syntax error")
TOO_LONG = Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
BINARY = bytes(range(256))


def arity(command):
    return Error(f"ERR wrong number of arguments for '{command}' command")


# ---- SET and GET -------------------------------------------------------------------------------------------


def test_set_and_get(c):
    assert c("GET", "k") is NIL
    assert c("SET", "k", "v") == OK
    assert c("GET", "k") == b"v"


def test_null_of_resp3(c3):
    assert c3("GET", "k").wire == NIL3.wire


@pytest.mark.parametrize("size", [0, 1, 44, 45, 255, 4096, 32767, 32768, 32769, 1000000])
def test_values_of_every_size_come_back(c, size):
    value = (BINARY * (size // 256 + 1))[:size]
    assert c("SET", "k", value) == OK
    assert c("GET", "k") == value
    assert c("STRLEN", "k") == size
    assert c("SET", "k", b"short") == OK
    assert c("GET", "k") == b"short"


def test_keys_and_values_are_binary(c):
    assert c("SET", BINARY, BINARY) == OK
    assert c("GET", BINARY) == BINARY
    assert c("SET", "", "empty key") == OK
    assert c("GET", "") == b"empty key"


def test_set_nx_and_xx(c):
    assert c("SET", "k", "1", "XX") is NIL
    assert c("SET", "k", "1", "NX") == OK
    assert c("SET", "k", "2", "NX") is NIL
    assert c("SET", "k", "3", "XX") == OK
    assert c("GET", "k") == b"3"


def test_set_get_answers_the_old_value(c):
    assert c("SET", "k", "1", "GET") is NIL
    assert c("SET", "k", "2", "GET") == b"1"
    assert c("SET", "k", "3", "NX", "GET") == b"2"
    assert c("GET", "k") == b"2"
    assert c("SET", "missing", "3", "XX", "GET") is NIL
    assert c("EXISTS", "missing") == 0


def test_set_drops_the_deadline_unless_keepttl(c):
    c("SET", "k", "1", "EX", "100")
    assert c("SET", "k", "2", "KEEPTTL") == OK
    assert c("TTL", "k") == 100
    assert c("SET", "k", "3") == OK
    assert c("TTL", "k") == -1


@pytest.mark.parametrize(
    "options",
    ["FOO", "NX XX", "EX", "EX 10 PX 10", "EX 10 KEEPTTL", "PXAT 10 EXAT 10", "GET XX NX", "PERSIST"],
)
def test_set_with_contradicting_options(c, options):
    assert c("SET", "k", "v", *options.split()) == SYNTAX
    assert c("EXISTS", "k") == 0


@pytest.mark.parametrize("option", ["EX", "PX", "EXAT", "PXAT"])
def test_set_with_impossible_deadlines(c, option):
    invalid = Error("ERR invalid expire time in 'set' command")
    assert c("SET", "k", "v", option, "0") == invalid
    assert c("SET", "k", "v", option, "-1") == invalid
    assert c("SET", "k", "v", option, "ten") == NOT_INTEGER
    assert c("SET", "k", "v", option, "9223372036854775808") == NOT_INTEGER
    if option in ("EX", "EXAT", "PX"):
        assert c("SET", "k", "v", option, "9223372036854775807") == invalid


def test_options_in_any_case(c):
    assert c("sEt", "k", "v", "ex", "100", "nX") == OK
    assert c("tTl", "k") == 100


def test_getset_getdel_setnx(c):
    assert c("GETSET", "k", "1") is NIL
    assert c("GETSET", "k", "2") == b"1"
    assert c("SETNX", "k", "3") == 0
    assert c("SETNX", "other", "3") == 1
    assert c("GETDEL", "k") == b"2"
    assert c("GETDEL", "k") is NIL


def test_getset_drops_the_deadline(c):
    c("SET", "k", "1", "EX", "100")
    c("GETSET", "k", "2")
    assert c("TTL", "k") == -1


def test_setex_and_psetex(c):
    assert c("SETEX", "k", "100", "v") == OK
    assert c("TTL", "k") == 100
    assert c("PSETEX", "k", "5000", "w") == OK
    assert 4000 < c("PTTL", "k") <= 5000
    assert c("SETEX", "k", "0", "v") == Error("ERR invalid expire time in 'setex' command")
    assert c("PSETEX", "k", "-1", "v") == Error("ERR invalid expire time in 'psetex' command")
    assert c("SETEX", "k", "x", "v") == NOT_INTEGER


def test_getex(c):
    c("SET", "k", "v")
    assert c("GETEX", "k", "EX", "100") == b"v"
    assert c("TTL", "k") == 100
    assert c("GETEX", "k") == b"v"
    assert c("TTL", "k") == 100
    assert c("GETEX", "k", "PERSIST") == b"v"
    assert c("TTL", "k") == -1
    assert c("GETEX", "k", "PXAT", "1") == b"v"
    assert c("EXISTS", "k") == 0
    assert c("GETEX", "k", "EX", "0") is NIL
    c("SET", "k", "v")
    assert c("GETEX", "k", "EX", "0") == Error("ERR invalid expire time in 'getex' command")
    assert c("GETEX", "k", "KEEPTTL") == SYNTAX
    assert c("GETEX", "k", "PERSIST", "EX", "1") == SYNTAX


# ---- several at once ---------------------------------------------------------------------------------------


def test_mset_and_mget(c):
    assert c("MSET", "a", "1", "b", "2", "a", "3") == OK
    assert c("MGET", "a", "missing", "b", "a") == [b"3", NIL, b"2", b"3"]
    assert c("MSET", "a", "1", "b") == arity("mset")
    assert c("MSETNX", "a", "1", "b") == arity("msetnx")


def test_msetnx_sets_all_or_none(c):
    assert c("MSETNX", "a", "1", "b", "2") == 1
    assert c("MSETNX", "c", "3", "b", "4") == 0
    assert c("MGET", "a", "b", "c") == [b"1", b"2", NIL]


def test_mset_drops_deadlines(c):
    c("SET", "a", "1", "EX", "100")
    c("MSET", "a", "2")
    assert c("TTL", "a") == -1


# ---- parts -------------------------------------------------------------------------------------------------


def test_append_and_strlen(c):
    assert c("APPEND", "k", "Hello") == 5
    assert c("APPEND", "k", " World") == 11
    assert c("GET", "k") == b"Hello World"
    assert c("STRLEN", "missing") == 0
    c("EXPIRE", "k", "100")
    c("APPEND", "k", "!")
    assert c("TTL", "k") == 100


def test_append_grows_past_any_size(c):
    piece, whole = BINARY * 64, b""
    for _ in range(20):
        whole += piece
        assert c("APPEND", "k", piece) == len(whole)
    assert c("GET", "k") == whole


def test_append_to_a_value_that_is_shared(c):
    """A copy, and a reply that is under way, keep the bytes they had."""
    value = b"x" * 100000
    c("SET", "k", value)
    assert c("COPY", "k", "copy") == 1
    replies = c.pipeline([("GET", "k"), ("SETRANGE", "k", "0", "abc"), ("APPEND", "k", "y"), ("GET", "k")])
    assert replies == [value, 100000, 100001, b"abc" + value[3:] + b"y"]
    assert c("GET", "copy") == value


@pytest.mark.parametrize(
    "start, end, part",
    [(0, 3, b"This"), (-3, -1, b"ing"), (0, -1, b"This is a string"), (10, 100, b"string"), (5, 3, b""),
     (-100, 3, b"This"), (-1, -5, b""), (100, 200, b""), (-100, -100, b"T"), (3, 3, b"s")],
)
def test_getrange(c, start, end, part):
    c("SET", "k", "This is a string")
    assert c("GETRANGE", "k", start, end) == part
    assert c("SUBSTR", "k", start, end) == part
    assert c("GETRANGE", "missing", start, end) == b""


def test_getrange_takes_integers_only(c):
    assert c("GETRANGE", "k", "0", "x") == NOT_INTEGER
    assert c("GETRANGE", "k", "1.0", "2") == NOT_INTEGER


def test_setrange(c):
    assert c("SETRANGE", "k", "3", "abc") == 6
    assert c("GET", "k") == b"\0\0\0abc"
    assert c("SETRANGE", "k", "1", "X") == 6
    assert c("GET", "k") == b"\0X\0abc"
    assert c("SETRANGE", "k", "100", "") == 6
    assert c("SETRANGE", "missing", "100", "") == 0
    assert c("EXISTS", "missing") == 0


def test_setrange_limits(c):
    assert c("SETRANGE", "k", "-1", "x") == Error("ERR offset is out of range")
    assert c("SETRANGE", "k", str(512 * 1024 * 1024), "x") == TOO_LONG
    assert c("SETRANGE", "k", "9223372036854775807", "x") == TOO_LONG
    assert c("SETRANGE", "k", "x", "x") == NOT_INTEGER
    assert c("EXISTS", "k") == 0


# ---- numbers -----------------------------------------------------------------------------------------------


def test_incr_and_decr(c):
    assert c("INCR", "n") == 1
    assert c("INCRBY", "n", "41") == 42
    assert c("DECR", "n") == 41
    assert c("DECRBY", "n", "-9") == 50
    assert c("GET", "n") == b"50"


def test_incr_keeps_the_deadline(c):
    c("SET", "n", "1", "EX", "100")
    c("INCR", "n")
    assert c("TTL", "n") == 100


@pytest.mark.parametrize("value", ["", " 1", "1 ", "+1", "01", "1.0", "abc", "-0", "9223372036854775808", "1\0"])
def test_incr_of_what_is_no_integer(c, value):
    c("SET", "k", value)
    assert c("INCR", "k") == NOT_INTEGER
    assert c("GET", "k") == value.encode()


def test_incr_does_not_overflow(c):
    overflow = Error("ERR increment or decrement would overflow")
    c("SET", "k", str(2**63 - 1))
    assert c("INCR", "k") == overflow
    assert c("DECRBY", "k", "-1") == overflow
    c("SET", "k", str(-(2**63)))
    assert c("DECR", "k") == overflow
    assert c("DECRBY", "k", str(-(2**63))) == Error("ERR decrement would overflow")
    assert c("INCRBY", "k", "9223372036854775808") == NOT_INTEGER
    assert c("GET", "k") == str(-(2**63)).encode()


@pytest.mark.parametrize(
    "value, by, result",
    [("10.50", "0.1", b"10.6"), ("5.0e3", "2.0e2", b"5200"), ("0", "-5", b"-5"), ("0.1", "0.2", b"0.3"),
     ("3", "1.000000000000000005", b"4.00000000000000001"), ("1e17", "1", b"100000000000000001"), ("-1", "1", b"0"),
     ("1", "1e-17", b"1.00000000000000001"), ("0x10", "1", b"17")],
)
def test_incrbyfloat(c, value, by, result):
    c("SET", "k", value)
    assert c("INCRBYFLOAT", "k", by) == result
    assert c("GET", "k") == result


def test_incrbyfloat_refuses(c):
    c("SET", "k", "1")
    for by in ["x", "", "1.0 ", " 1", "nan", "1e5000", "1.1.1"]:
        assert c("INCRBYFLOAT", "k", by) == NOT_FLOAT
    assert c("INCRBYFLOAT", "k", "inf") == Error("ERR increment would produce NaN or Infinity")
    c("SET", "k", "abc")
    assert c("INCRBYFLOAT", "k", "1") == NOT_FLOAT


# ---- LCS ---------------------------------------------------------------------------------------------------


def test_lcs(c):
    c("MSET", "a", "ohmytext", "b", "mynewtext")
    assert c("LCS", "a", "b") == b"mytext"
    assert c("LCS", "a", "b", "LEN") == 6
    assert c("LCS", "a", "missing") == b""
    assert c("LCS", "a", "b", "IDX") == [b"matches", [[[4, 7], [5, 8]], [[2, 3], [0, 1]]], b"len", 6]
    assert c("LCS", "a", "b", "IDX", "MINMATCHLEN", "4", "WITHMATCHLEN") == [
        b"matches", [[[4, 7], [5, 8], 4]], b"len", 6,
    ]


def test_lcs_in_resp3_is_a_map(c3):
    c3("MSET", "a", "ohmytext", "b", "mynewtext")
    assert c3("LCS", "a", "b", "IDX", "MINMATCHLEN", "9") == {b"matches": [], b"len": 6}


def test_lcs_refuses(c):
    assert c("LCS", "a", "b", "LEN", "IDX") == Error(
        "ERR If you want both the length and indexes, please just use IDX."
    )
    assert c("LCS", "a", "b", "FOO") == SYNTAX
    assert c("LCS", "a", "b", "MINMATCHLEN", "x") == NOT_INTEGER


# ---- bits --------------------------------------------------------------------------------------------------


def test_setbit_and_getbit(c):
    assert c("SETBIT", "k", "7", "1") == 0
    assert c("SETBIT", "k", "7", "0") == 1
    assert c("SETBIT", "k", "17", "1") == 0
    assert c("GET", "k") == b"\0\0\x40"
    assert c("GETBIT", "k", "17") == 1
    assert c("GETBIT", "k", "1000") == 0
    assert c("GETBIT", "missing", "0") == 0


def test_bit_offsets_and_values_have_limits(c):
    bad_offset = Error("ERR bit offset is not an integer or out of range")
    for offset in ["-1", "x", "4294967296", "9223372036854775807"]:
        assert c("SETBIT", "k", offset, "1") == bad_offset
        assert c("GETBIT", "k", offset) == bad_offset
    assert c("SETBIT", "k", "0", "2") == Error("ERR bit is not an integer or out of range")
    assert c("EXISTS", "k") == 0


def test_bitcount(c):
    c("SET", "k", "foobar")
    assert c("BITCOUNT", "k") == 26
    assert c("BITCOUNT", "k", "0", "0") == 4
    assert c("BITCOUNT", "k", "1", "1", "BYTE") == 6
    assert c("BITCOUNT", "k", "5", "30", "BIT") == 17
    assert c("BITCOUNT", "k", "-2", "-1") == 7
    assert c("BITCOUNT", "missing") == 0
    assert c("BITCOUNT", "k", "0") == SYNTAX
    assert c("BITCOUNT", "k", "0", "1", "NIBBLE") == SYNTAX
    assert c("BITCOUNT", "k", "0", "x") == NOT_INTEGER


def test_bitpos(c):
    c("SET", "k", b"\xff\xf0\x00")
    assert c("BITPOS", "k", "0") == 12
    assert c("BITPOS", "k", "1", "2") == -1
    assert c("BITPOS", "k", "0", "7", "15", "BIT") == 12
    assert c("BITPOS", "missing", "0") == 0
    assert c("BITPOS", "missing", "1") == -1
    c("SET", "ones", b"\xff\xff")
    assert c("BITPOS", "ones", "0") == 16
    assert c("BITPOS", "ones", "0", "0", "-1") == -1
    assert c("BITPOS", "k", "2") == Error("ERR The bit argument must be 1 or 0.")
    assert c("BITPOS", "k", "x") == NOT_INTEGER


def test_bitop(c):
    c("MSET", "a", b"\xf0\xff", "b", b"\x3c")
    assert c("BITOP", "AND", "d", "a", "b") == 2
    assert c("GET", "d") == b"\x30\x00"
    assert c("BITOP", "OR", "d", "a", "b") == 2
    assert c("GET", "d") == b"\xfc\xff"
    assert c("BITOP", "XOR", "d", "a", "b", "missing") == 2
    assert c("GET", "d") == b"\xcc\xff"
    assert c("BITOP", "NOT", "d", "a") == 2
    assert c("GET", "d") == b"\x0f\x00"
    assert c("BITOP", "AND", "d", "missing") == 0
    assert c("EXISTS", "d") == 0
    assert c("BITOP", "NOT", "d", "a", "b") == Error("ERR BITOP NOT must be called with a single source key.")
    assert c("BITOP", "NAND", "d", "a") == SYNTAX


def test_bitop_of_long_values(c):
    a, b = BINARY * 300, b"\x55" * 70000
    c("MSET", "a", a, "b", b)
    assert c("BITOP", "XOR", "d", "a", "b") == len(a)
    assert c("GET", "d") == bytes(x ^ y for x, y in zip(a, b + bytes(len(a) - len(b))))


def test_bitfield(c):
    assert c("BITFIELD", "k", "SET", "u8", "#0", "200", "GET", "u4", "0", "INCRBY", "i5", "100", "1") == [0, 12, 1]
    assert c("BITFIELD", "k", "OVERFLOW", "SAT", "INCRBY", "u2", "0", "10") == [3]
    assert c("BITFIELD", "k", "OVERFLOW", "FAIL", "INCRBY", "u2", "0", "1") == [NIL]
    assert c("BITFIELD", "k", "OVERFLOW", "WRAP", "INCRBY", "u2", "0", "1") == [0]
    assert c("BITFIELD", "k", "GET", "i64", "0") == [int.from_bytes(c("GET", "k")[:8], "big", signed=True)]
    assert c("BITFIELD_RO", "k", "GET", "u8", "0") == [c("GET", "k")[0]]
    assert c("BITFIELD", "k") == []


def test_bitfield_refuses(c):
    bad_type = Error(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
    )
    for kind in ["u64", "i65", "x8", "u0", "u", "8"]:
        assert c("BITFIELD", "k", "GET", kind, "0") == bad_type
    assert c("BITFIELD", "k", "GET", "u8", "-1") == Error("ERR bit offset is not an integer or out of range")
    assert c("BITFIELD", "k", "OVERFLOW", "FOO") == Error("ERR Invalid OVERFLOW type specified")
    assert c("BITFIELD", "k", "SET", "u8", "0", "x") == NOT_INTEGER
    assert c("BITFIELD", "k", "GET", "u8") == SYNTAX
    assert c("BITFIELD_RO", "k", "SET", "u8", "0", "1") == Error("ERR BITFIELD_RO only supports the GET subcommand")


# ---- arity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["SET k", "GET", "GET a b", "GETSET k", "GETEX", "GETDEL a b", "SETNX k", "SETEX k 1", "PSETEX k 1", "MGET",
     "MSET k", "MSETNX k", "APPEND k", "STRLEN", "GETRANGE k 0", "SUBSTR k 0", "SETRANGE k 0", "INCR", "DECR a b",
     "INCRBY k", "DECRBY k", "INCRBYFLOAT k", "LCS a", "SETBIT k 0", "GETBIT k", "BITCOUNT", "BITPOS k",
     "BITOP NOT d", "BITFIELD", "BITFIELD_RO"],
)
def test_wrong_number_of_arguments(c, command):
    words = command.split()
    assert c(*words) == arity(words[0].lower())
