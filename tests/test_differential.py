"""Random sequences of commands, sent to EchoVault and to redis-server alike: every reply must be the same.

ECHOVAULT_EXAMPLES sets how many sequences; ECHOVAULT_SEED makes other ones than those of every day.
"""
import os

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

from ev import NIL, OK, QUEUED, SANITIZED, Map, Server, encode, need
from grammar import KEYS, sequences

EXAMPLES = int(os.environ.get("ECHOVAULT_EXAMPLES") or (80 if SANITIZED else 250))
SEED = os.environ.get("ECHOVAULT_SEED")

# ---- what counts as the same reply ---------------------------------------------------------------------------


def near(mine, right):
    """Times: the two servers read the clock at different moments."""
    return abs(mine - right) <= 3000 if max(mine, right) > 1000000 else abs(mine - right) <= 3


def unordered(mine, right):
    """Keys in the order of the table, which is random."""
    return sorted(mine) == sorted(right)


def encodings(mine, right):
    """redis-server calls a whole number int unless INCRBYFLOAT left it."""
    return mine == right or (mine, right) == (b"int", b"embstr")


def without_id(mine, right):
    """HELLO, but for the connection's number."""
    mine, right = (Map(zip(*[iter(r)] * 2)) if isinstance(r, list) else Map(r) for r in (mine, right))
    return repr(mine | {b"id": 0}) == repr(right | {b"id": 0})


def anything(mine, right):
    return True


# All else must be equal to the byte.
LOOSE = {
    b"TTL": near,
    b"PTTL": near,
    b"EXPIRETIME": near,
    b"PEXPIRETIME": near,
    b"OBJECT ENCODING": encodings,
    b"OBJECT REFCOUNT": anything,  # redis-server shares small numbers between keys,
    b"OBJECT IDLETIME": anything,  # and the time of their last use as well
    b"KEYS": unordered,
    b"SCAN": anything,  # a page within EXEC; outside, whole iterations are compared: see scan()
    b"HELLO": without_id,
    b"RANDOMKEY": anything,  # of the same type: a key or null
    b"CLIENT ID": anything,
    b"DUMP": anything,  # EchoVault writes an older version and does not compress: see cross_restore()
}


def same(said, mine, right):
    name = b" ".join(said[:2]).upper()
    compare = LOOSE.get(name) or LOOSE.get(said[0].upper())
    if compare and type(mine) is type(right) and isinstance(mine, (int, list, dict, bytes)):
        return compare(mine, right)
    return repr(mine) == repr(right)


# ---- speaking to both ----------------------------------------------------------------------------------------


class Difference(AssertionError):
    pass


class Pair:
    """One client's two connections, to EchoVault and to redis-server."""

    compared = 0

    def __init__(self, servers, proto=2):
        self.clients = [server.client(proto=proto) for server in servers]
        self.queued = []

    def say(self, said):
        """Sends it to both; raises Difference."""
        for client in self.clients:
            client.send(encode(*said))
        mine, right = (client.read() for client in self.clients)
        Pair.compared += 1
        if mine == right == QUEUED:
            self.queued.append(said)
            return mine
        queued, name = self.queued, said[0].upper()
        if name in (b"EXEC", b"DISCARD", b"RESET"):
            self.queued = []
        if name == b"EXEC" and isinstance(mine, list) and isinstance(right, list) and len(mine) == len(right):
            agree = all(same(*exchange) for exchange in zip(queued, mine, right))
        elif name == b"SCAN" and isinstance(mine, list) and isinstance(right, list):
            mine, right = (self.scan(*pair, said) for pair in zip(self.clients, (mine, right)))
            agree = mine == right
        else:
            agree = same(said, mine, right)
        if not agree:
            raise Difference(f"\n  EchoVault:    {mine!r:.2000}\n  redis-server: {right!r:.2000}")
        if name == b"DUMP" and isinstance(mine, bytes):
            self.cross_restore(mine, right)
        return mine

    def scan(self, client, reply, said):
        """The set of keys of a whole iteration: the cursors on the way are each server's own."""
        keys = set(reply[1])
        while reply[0] != b"0":
            reply = client(said[0], reply[0], *said[2:])
            keys.update(reply[1])
        return keys

    def cross_restore(self, mine, right):
        """Each server understands the other's payload."""
        for client, payload in zip(self.clients, (right, mine)):
            assert client("RESTORE", "dumped", "0", payload, "REPLACE") == OK

    def close(self):
        for client in self.clients:
            client.close()


def compare_data(servers):
    """Values by their digest, deadlines one by one, in every database that the grammar names."""
    pair = Pair(servers)
    for db in (0, 1, 2, 3, 15):
        pair.say((b"SELECT", b"%d" % db))
        pair.say((b"EXISTS", *KEYS))  # keys past their deadline count until something meets them
        pair.say((b"DBSIZE",))
        pair.say((b"KEYS", b"*"))
        for key in KEYS:
            pair.say((b"PEXPIRETIME", key))
    pair.say((b"DEBUG", b"DIGEST"))
    pair.close()


def play(servers, sequence, proto):
    for server in servers:
        with server.client() as c:
            c("FLUSHALL")
    pairs = [Pair(servers, proto), Pair(servers, proto)]
    played = []
    try:
        for who, said in sequence:
            played.append(f"{who}: " + b" ".join(map(quoted, said)).decode())
            pairs[who].say(said)
        played.append("the data afterwards")
        compare_data(servers)
    except (Difference, ConnectionError, TimeoutError) as difference:
        raise AssertionError("\n  ".join(["after", *played]) + str(difference)) from None
    finally:
        for pair in pairs:
            pair.close()


def quoted(argument):
    """As redis-cli takes it."""
    return b'"%s"' % repr(argument)[2:-1].replace('"', '\\"').encode()


@pytest.fixture(scope="module")
def servers():
    """Keys past their deadline go when a command meets them, and only then, so that DBSIZE is no race."""
    with Server() as mine, Server(binary=need("redis-server")) as right:
        for server in (mine, right):
            with server.client() as c:
                assert c("DEBUG", "SET-ACTIVE-EXPIRE", "0") == OK
        yield mine, right


def test_a_difference_is_noticed(servers):
    """The comparison itself: commands that the two must answer differently."""
    for said in [(b"INFO", b"server"), (b"CONFIG", b"GET", b"port")]:
        with pytest.raises(AssertionError, match="redis-server: "):
            play(servers, [(0, (b"PING",)), (0, said)], 2)
    assert not same((b"GET",), b"1", 1) and not same((b"GET",), NIL, b"") and not same((b"TTL",), -1, 100)
    assert not same((b"KEYS",), [b"a"], []) and not same((b"PING",), OK, b"OK")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("proto", [2, 3])
def test_sequences_are_answered_as_redis_answers_them(servers, proto):
    @settings(
        max_examples=EXAMPLES, derandomize=SEED is None, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(sequence=sequences)
    def run(sequence):
        play(servers, sequence, proto)

    Pair.compared = 0
    (hypothesis.seed(int(SEED))(run) if SEED else run)()
    print(f"{Pair.compared} replies compared")
    assert Pair.compared >= EXAMPLES * 40
