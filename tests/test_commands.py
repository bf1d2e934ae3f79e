"""COMMAND and INFO, which clients read to find out what the server can do."""
import time

import pytest

from ev import NIL, Error, Map, Status, ours

SUBCOMMANDS_OF_REDIS = 9  # where a row of COMMAND INFO lists them


def rows(client, *names):
    """COMMAND INFO's rows by name."""
    reply = client("COMMAND", "INFO", *names) if names else client("COMMAND")
    return {row[0]: row for row in reply}


@pytest.fixture(scope="module")
def ours_and_redis(server, oracle):
    with server.client() as c, oracle.client() as r:
        mine, right = rows(c), rows(r)
    return [(mine[name], right[name]) for name in sorted(mine.keys() & right.keys())]


def facts(row):
    """What clients route and check by: name, arity, flags, first key, last key, step, categories."""
    return [*row[:2], sorted(row[2]), *row[3:6], sorted(row[6])]


def test_the_shared_commands_are_described_as_redis_describes_them(ours_and_redis):
    assert len(ours_and_redis) >= 80
    wrong = [(facts(mine), facts(right)) for mine, right in ours_and_redis if facts(mine) != facts(right)]
    assert wrong == []


def test_so_are_their_subcommands(ours_and_redis):
    wrong = []
    for mine, right in ours_and_redis:
        subs = {row[0]: row for row in right[SUBCOMMANDS_OF_REDIS]}
        for row in mine[SUBCOMMANDS_OF_REDIS]:
            if row[0] in subs and facts(row) != facts(subs[row[0]]):
                wrong.append((facts(row), facts(subs[row[0]])))
    assert wrong == []


def test_command_info(c):
    assert c("COMMAND", "INFO", "nosuch") == [NIL]
    get, nosuch, sub = c("COMMAND", "INFO", "GET", "nosuch", "config|get")
    assert get[:2] == [b"get", 2] and nosuch is NIL and sub[0] == b"config|get"
    assert Status("readonly") in get[2] and Status("@string") in get[6]


def test_command_count_and_list(c):
    names = c("COMMAND", "LIST")
    assert c("COMMAND", "COUNT") == len(c("COMMAND")) == len({name for name in names if b"|" not in name})
    assert c("COMMAND", "LIST", "FILTERBY", "PATTERN", "getr*") == [b"getrange"]
    assert b"get" in c("COMMAND", "LIST", "FILTERBY", "ACLCAT", "string")
    assert c("COMMAND", "LIST", "FILTERBY", "MODULE", "nosuch") == []
    assert c("COMMAND", "LIST", "FOO") == Error("ERR syntax error")
    assert c("COMMAND", "FOO") == Error("ERR unknown subcommand 'FOO'. Try COMMAND HELP.")


@pytest.mark.parametrize(
    "command",
    ["GET k", "MSET a 1 b 2", "BITOP AND d a b", "LCS a b", "RENAME a b", "PING", "SET k", "NOSUCH x", "COPY a b",
     "OBJECT ENCODING k", "MGET a b c", "WATCH a b", "CONFIG GET x", "DEL", "SET k v GET", "OBJECT", "CONFIG",
     "OBJECT FOO k", "SUBSCRIBE a", "GETEX k EX 1", "BITOP NOT d s", "SCAN 0", "PUBLISH c m", "OBJECT HELP"],
)
def test_command_getkeys(c, oracle, command):
    with oracle.client() as r:
        assert c("COMMAND", "GETKEYS", *command.split()) == r("COMMAND", "GETKEYS", *command.split())


def test_docs_have_what_redis_cli_reads(c, oracle):
    with oracle.client() as r:
        mine = dict(zip(*[iter(c("COMMAND", "DOCS"))] * 2))
        right = dict(zip(*[iter(r("COMMAND", "DOCS"))] * 2))
    for name in mine.keys() & right.keys():
        doc, redis_doc = (dict(zip(d[::2], d[1::2])) for d in (mine[name], right[name]))
        assert doc[b"summary"], name
        for field in [b"since", b"group"]:
            assert doc[field] == redis_doc[field], name
    assert c("COMMAND", "DOCS", "nosuch") == []


def test_docs_in_resp3_are_maps(c3):
    docs = c3("COMMAND", "DOCS", "set", "get")
    assert isinstance(docs, Map) and docs.keys() == {b"set", b"get"}
    assert docs[b"get"][b"group"] == b"string"


@ours
def test_no_command_of_other_types_exists(c):
    for command in ["lpush", "hset", "sadd", "zadd", "xadd", "eval", "geoadd", "pfadd", "cluster", "sort"]:
        assert c("COMMAND", "INFO", command) == [NIL]


# ---- INFO --------------------------------------------------------------------------------------------------

# Fields that tools (Sentinel, exporters, redis-cli --stat) look up by name.
FIELDS = """redis_version redis_mode os arch_bits process_id run_id tcp_port uptime_in_seconds config_file hz
    connected_clients maxclients blocked_clients used_memory used_memory_rss maxmemory maxmemory_policy
    mem_fragmentation_ratio loading rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_time
    rdb_last_bgsave_status aof_enabled aof_rewrite_in_progress aof_last_write_status total_connections_received
    total_commands_processed instantaneous_ops_per_sec total_net_input_bytes total_net_output_bytes
    rejected_connections expired_keys evicted_keys keyspace_hits keyspace_misses total_error_replies role
    connected_slaves master_replid master_replid2 master_repl_offset second_repl_offset used_cpu_sys used_cpu_user
    cluster_enabled""".split()


def info(c, *sections):
    lines = c("INFO", *sections).decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if line and line[0] != "#")


@pytest.mark.parametrize("field", FIELDS)
def test_info_has(c, field):
    assert field in info(c)


def test_info_sections(c):
    sections = ["server", "clients", "memory", "persistence", "stats", "replication", "cpu"]
    assert set(info(c, *sections)) <= set(info(c))
    for section in sections:
        assert c("INFO", section.upper()).decode().lower().startswith(f"# {section}\r\n")
    assert c("INFO", "nosuch") == b""
    assert set(info(c)) <= set(info(c, "all")) <= set(info(c, "everything"))


def test_info_counts(c):
    c("CONFIG", "RESETSTAT")
    c("SET", "k", "v")
    c("GET", "k")
    c("GET", "missing")
    c("NOSUCH")
    facts = info(c)
    assert facts["keyspace_hits"] == "1"
    assert facts["keyspace_misses"] == "1"
    assert facts["total_error_replies"] == "1"
    assert 4 <= int(facts["total_commands_processed"]) <= 6
    assert facts["db0"].startswith("keys=1,expires=0")


def test_config_resetstat(c):
    c("CONFIG", "RESETSTAT")
    c("SET", "k", "v", "PX", "1")
    time.sleep(0.01)
    assert c("GET", "k") is NIL
    assert c("NOSUCH") == Error("ERR unknown command 'NOSUCH', with args beginning with: ")
    facts = info(c, "all")
    assert facts["expired_keys"] == "1" and facts["errorstat_ERR"] == "count=1" and "cmdstat_get" in facts
    c("CONFIG", "RESETSTAT")
    facts = info(c, "all")
    assert facts["expired_keys"] == facts["keyspace_misses"] == "0"
    assert "errorstat_ERR" not in facts and "cmdstat_get" not in facts


@ours
def test_info_names_the_server(c):
    assert info(c, "server")["redis_version"] == "7.0.15"
    assert info(c, "server")["echovault_version"]


def test_info_commandstats(c):
    c("GET", "k")
    assert info(c, "commandstats")["cmdstat_get"].startswith("calls=")


# ---- DEBUG -------------------------------------------------------------------------------------------------


def test_debug_digest_is_redis_own(c, oracle):
    with oracle.client() as r:
        for client in [c, r]:
            client("FLUSHALL")
        assert c("DEBUG", "DIGEST") == r("DEBUG", "DIGEST") == Status("0" * 40)
        for client in [c, r]:
            client("MSET", "a", "1", "b", "x" * 100000, "", "")
            client("SELECT", "9")
            client("SET", "k", "v", "EX", "100")
        assert c("DEBUG", "DIGEST") == r("DEBUG", "DIGEST")
        assert c("APPEND", "k", "x") == 2
        assert c("DEBUG", "DIGEST") != r("DEBUG", "DIGEST")
        r("FLUSHALL")


def test_debug_reload_and_loadaof_keep_the_data(start):
    for how, options in [("RELOAD", {}), ("LOADAOF", {"appendonly": "yes"})]:
        with start(**options).client() as c:
            c.pipeline([("SET", f"k{i}", "v" * i, "EX", "1000") for i in range(500)])
            digest = c("DEBUG", "DIGEST")
            assert c("DEBUG", how) == Status("OK")
            assert c("DEBUG", "DIGEST") == digest
            assert c("DBSIZE") == 500


def test_debug_others(c):
    c("SET", "k", "v")
    assert c("DEBUG", "SLEEP", "0.01") == Status("OK")
    assert "encoding:embstr" in c("DEBUG", "OBJECT", "k")
    assert c("DEBUG", "OBJECT", "missing") == Error("ERR no such key")
    assert c("DEBUG", "CHANGE-REPL-ID") == Status("OK")
    assert isinstance(c("DEBUG", "NOSUCH"), Error)
