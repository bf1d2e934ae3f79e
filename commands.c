/* commands.c - the command table, finding a row in it, and COMMAND, which shows it to clients.
 *
 * The table is the one place that says what a command is: dispatch, HELP, COMMAND and the prefetching of keys read
 * it. A row's function is named after its command; the subcommands' rows stand behind their container's.
 *
 * command_find() runs for every command of every client. A name is told from all others by its length and its first
 * and last eight bytes, folded to lower case eight at a time; a hash table finds it, nearly always at the first try.
 * rename-command changes what clients may say, not what is logged: a new name gives way to the row's own at once.
 *
 * Left out: ACL rules (only the categories are told), tips, the history of options; what is done to keys is told by
 * the command's flags alone, and COMMAND DOCS gives each argument as the syntax spells it.
 */
#include "commands.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ==== the table ============================================================================================= */

/* Flags, short enough for a table. */
enum { W = CMD_WRITE, R = CMD_READONLY, M = CMD_DENYOOM, B = CMD_BRIEF, ANYTIME = CMD_LOADING | CMD_STALE };
enum { F = CMD_FAST | CMD_BRIEF, L = CMD_FAST /* but it may take long */ };
enum { ABOUT = ANYTIME | CMD_ACL_CONNECTION, ALL_KEYS = CMD_ACL_KEYSPACE | CMD_DANGEROUS };
enum { ADMIN = CMD_ADMIN | CMD_NOSCRIPT, BACKGROUND = ADMIN | CMD_NO_ASYNC_LOADING, ANY_ADMIN = ADMIN | ANYTIME };
enum { SESSION = ANYTIME | CMD_NOSCRIPT, LOGIN = SESSION | F | CMD_NO_AUTH | CMD_ALLOW_BUSY };
enum { LISTEN = SESSION | CMD_PUBSUB | CMD_IN_RESP2_SUB, TELL = ANYTIME | CMD_PUBSUB };
enum { LEAVE = LOGIN | CMD_IN_MULTI | CMD_IN_RESP2_SUB, BRACKET = SESSION | F | CMD_IN_MULTI | CMD_ALLOW_BUSY };

/* first_key, last_key, key_step */
#define NO_KEY 0, 0, 0
#define KEY    1, 1, 1
#define TWO    1, 2, 1
#define KEYS   1, -1, 1
#define PAIRS  1, -1, 2

/* A row's fields from its group on, in the order of struct command, but for the statistics. */
#define ROW(...)                                                                                                       \
    {                                                                                                                  \
        __VA_ARGS__, (struct command_stats[1]) {                                                                       \
            { 0 }                                                                                                      \
        }                                                                                                              \
    }
#define STRING(name, ...)            ROW("string", #name, cmd_##name, __VA_ARGS__)
#define BITMAP(name, ...)            ROW("bitmap", #name, cmd_##name, __VA_ARGS__)
#define GENERIC(name, ...)           ROW("generic", #name, cmd_##name, __VA_ARGS__)
#define OBJECT(name, ...)            ROW("generic", "object|" #name, cmd_object_##name, 3, R, 2, 2, 1, __VA_ARGS__)
#define CONNECTION(name, a, fl, ...) ROW("connection", #name, cmd_##name, a, fl, NO_KEY, __VA_ARGS__)
#define CLIENT(name, fn, a, fl, ...) ROW("connection", "client|" name, cmd_client_##fn, a, fl, NO_KEY, __VA_ARGS__)
#define SERVER(name, a, fl, ...)     ROW("server", #name, cmd_##name, a, fl, NO_KEY, __VA_ARGS__)
#define COMMAND(name, a, ...)        ROW("server", "command|" #name, cmd_command_##name, a, ABOUT, NO_KEY, __VA_ARGS__)
#define ACL(name, fn, a, fl, ...)    ROW("server", "acl|" #name, cmd_acl_##fn, a, fl, NO_KEY, "6.0.0", __VA_ARGS__)
#define CONFIG(name, a, ...)         ROW("server", "config|" #name, cmd_config_##name, a, ANY_ADMIN, NO_KEY, __VA_ARGS__)
#define LISTENER(name, fn, a, ...)   ROW("pubsub", #name, cmd_##fn, a, LISTEN, __VA_ARGS__)
#define PUBSUB(name, fn, a, ...)     ROW("pubsub", "pubsub|" #name, cmd_pubsub_##fn, a, TELL, NO_KEY, __VA_ARGS__)
#define TRANSACTION(name, ...)       ROW("transactions", #name, cmd_##name, __VA_ARGS__)
#define LOOK(box, name, a, fl, ...)  ROW("server", #box "|" #name, cmd_##box##_##name, a, fl, NO_KEY, __VA_ARGS__)
#define HELP(group, container, fl, v)                                                                                  \
    ROW(group, container "|help", cmd_help, 2, fl, NO_KEY, v, "", "Lists the subcommands")

#define WHEN     " [NX | XX | GT | LT]"
#define DEADLINE "EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | "

struct command command_table[] = {
    STRING(append, 3, W | M | L, KEY, "2.0.0", "key value", "Adds to the end of a value"),
    STRING(decr, 2, W | M | F, KEY, "1.0.0", "key", "Takes 1 from a number"),
    STRING(decrby, 3, W | M | F, KEY, "1.0.0", "key decrement", "Subtracts from a number"),
    STRING(delex, -2, W | F, KEY, "8.4.0", "key [IFEQ value | IFNE value]", "Deletes a key that has, or not, a value"),
    ROW("string", "delifeq", cmd_delex, 3, W | F, KEY, "9.0.0", "key value", "Deletes a key that has the value"),
    STRING(get, 2, R | F, KEY, "1.0.0", "key", "The value of a key"),
    STRING(getdel, 2, W | F, KEY, "6.2.0", "key", "The value of a key, which is deleted"),
    STRING(getex, -2, W | F, KEY, "6.2.0", "key [" DEADLINE "PERSIST]", "A value; changes the deadline"),
    STRING(getrange, 4, R, KEY, "2.4.0", "key start end", "A part of a value"),
    STRING(getset, 3, W | M | F, KEY, "1.0.0", "key value", "Sets a key and answers what it had"),
    STRING(incr, 2, W | M | F, KEY, "1.0.0", "key", "Adds 1 to a number"),
    STRING(incrby, 3, W | M | F, KEY, "1.0.0", "key increment", "Adds to a number"),
    STRING(incrbyfloat, 3, W | M | F, KEY, "2.6.0", "key increment", "Adds to a number with a fraction"),
    STRING(increx, -2, W | M | F, KEY, "8.8.0",
           "key [BYINT increment | BYFLOAT increment] [LBOUND lower] [UBOUND upper] [SATURATE] [" DEADLINE
           "PERSIST] [ENX]",
           "Adds to a number, within bounds; sets the deadline"),
    STRING(lcs, -3, R, TWO, "7.0.0", "key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]", "What two values share"),
    STRING(mget, -2, R | F, KEYS, "1.0.0", "key...", "The values of several keys"),
    STRING(mset, -3, W | M | B, PAIRS, "1.0.1", "<key value>...", "Sets several keys at once"),
    STRING(msetex, -4, W | M | CMD_COUNTED_KEYS, 2, -1, 2, "8.4.0",
           "numkeys <key value>... [NX | XX] [" DEADLINE "KEEPTTL]", "Sets several keys, if all or none is there"),
    STRING(msetnx, -3, W | M | B, PAIRS, "1.0.1", "<key value>...", "Sets several keys, if none is there"),
    STRING(psetex, 4, W | M | B, KEY, "2.6.0", "key milliseconds value", "Sets a key for some milliseconds"),
    STRING(set, -3, W | M | B, KEY, "1.0.0",
           "key value [NX | XX | IFEQ value | IFNE value] [GET] [" DEADLINE "KEEPTTL]", "Sets a key"),
    STRING(setex, 4, W | M | B, KEY, "2.0.0", "key seconds value", "Sets a key for some seconds"),
    ROW("string", "setnx", cmd_msetnx, 3, W | M | F, KEY, "1.0.0", "key value", "Sets a key, if it is not there"),
    STRING(setrange, 4, W | M, KEY, "2.2.0", "key offset value", "Writes over a part of a value"),
    STRING(strlen, 2, R | F, KEY, "2.2.0", "key", "The length of a value"),
    ROW("string", "substr", cmd_getrange, 4, R, KEY, "1.0.0", "key start end", "A part of a value"),

    BITMAP(bitcount, -2, R, KEY, "2.6.0", "key [start end [BYTE | BIT]]", "How many bits are set"),
    BITMAP(bitfield, -2, W | M, KEY, "3.2.0",
           "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] "
           "<SET encoding offset value | INCRBY encoding offset increment>]...",
           "Integers of any width"),
    BITMAP(bitfield_ro, -2, R | F, KEY, "6.0.0", "key [GET encoding offset]...", "Reads integers of any width"),
    BITMAP(bitop, -4, W | M, 2, -1, 1, "2.6.0", "operation destkey key...", "Combines the bits of values"),
    BITMAP(bitpos, -3, R, KEY, "2.8.7", "key bit [start [end [BYTE | BIT]]]", "Where the first such bit stands"),
    BITMAP(getbit, 3, R | F, KEY, "2.2.0", "key offset", "One bit of a value"),
    BITMAP(setbit, 4, W | M, KEY, "2.2.0", "key offset value", "Sets one bit of a value"),

    GENERIC(copy, -3, W | M, TWO, "6.2.0", "source destination [DB destination-db] [REPLACE]", "Copies keys"),
    GENERIC(del, -2, W | B, KEYS, "1.0.0", "key...", "Deletes keys"),
    GENERIC(dump, 2, R, KEY, "2.6.0", "key", "The value in the form that RESTORE reads"),
    GENERIC(exists, -2, R | F, KEYS, "1.0.0", "key...", "How many of the keys are there"),
    GENERIC(expire, -3, W | F, KEY, "1.0.0", "key seconds" WHEN, "Sets how long a key lives"),
    GENERIC(expireat, -3, W | F, KEY, "1.2.0", "key unix-time-seconds" WHEN, "Sets when a key dies"),
    GENERIC(expiretime, 2, R | F, KEY, "7.0.0", "key", "When a key dies, in seconds"),
    GENERIC(keys, 2, R | CMD_DANGEROUS, NO_KEY, "1.0.0", "pattern", "All keys that match, in one go"),
    GENERIC(move, 3, W | F, KEY, "1.0.0", "key db", "Moves a key to another database"),
    ROW("generic", "object", NULL, -2, CMD_CONTAINER, NO_KEY, "2.2.3", "", "What is known about a key's value"),
    OBJECT(encoding, "2.2.3", "key", "How Redis would keep the value"),
    OBJECT(freq, "4.0.0", "key", "How often the key is used, where that is counted"),
    HELP("generic", "object", ANYTIME, "6.2.0"),
    OBJECT(idletime, "2.2.3", "key", "Seconds since the key was last used"),
    OBJECT(refcount, "2.2.3", "key", "How many share the value"),
    GENERIC(persist, 2, W | F, KEY, "2.2.0", "key", "Takes a key's deadline away"),
    GENERIC(pexpire, -3, W | F, KEY, "2.6.0", "key milliseconds" WHEN, "Sets how long a key lives"),
    GENERIC(pexpireat, -3, W | F, KEY, "2.6.0", "key unix-time-milliseconds" WHEN, "Sets when a key dies"),
    GENERIC(pexpiretime, 2, R | F, KEY, "7.0.0", "key", "When a key dies, in milliseconds"),
    GENERIC(pttl, 2, R | F, KEY, "2.6.0", "key", "How long a key still lives, in milliseconds"),
    GENERIC(randomkey, 1, R, NO_KEY, "1.0.0", "", "Any key"),
    GENERIC(rename, 3, W, TWO, "1.0.0", "key newkey", "Gives a key another name"),
    GENERIC(renamenx, 3, W | F, TWO, "1.0.0", "key newkey", "Gives a key a name that is free"),
    GENERIC(restore, -4, W | M | CMD_DANGEROUS, KEY, "2.6.0",
            "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]", "Makes a key of a DUMP"),
    GENERIC(scan, -2, R, NO_KEY, "2.8.0", "cursor [MATCH pattern] [COUNT count] [TYPE type]", "All keys, by and by"),
    GENERIC(touch, -2, R | F, KEYS, "3.2.1", "key...", "Notes that keys are in use"),
    GENERIC(wait, 3, CMD_NOSCRIPT | CMD_ACL_CONNECTION, NO_KEY, "3.0.0", "numreplicas timeout", "Waits for followers"),
    GENERIC(waitaof, 4, CMD_NOSCRIPT | CMD_BLOCKING | CMD_ACL_CONNECTION, NO_KEY, "7.2.0",
            "numlocal numreplicas timeout", "Waits for disk"),
    GENERIC(ttl, 2, R | F, KEY, "1.0.0", "key", "How long a key still lives, in seconds"),
    GENERIC(type, 2, R | F, KEY, "1.0.0", "key", "The type of a key's value"),
    ROW("generic", "unlink", cmd_del, -2, W | F, KEYS, "4.0.0", "key...", "Deletes keys"),

    LISTENER(psubscribe, subscribe, -2, NO_KEY, "2.0.0", "pattern...", "Listens to the channels that match"),
    ROW("pubsub", "publish", cmd_publish, 3, TELL | L | CMD_MAY_REPLICATE, NO_KEY, "2.0.0", "channel message",
        "Sends to the subscribers"),
    ROW("pubsub", "pubsub", NULL, -2, CMD_CONTAINER, NO_KEY, "2.8.0", "", "About channels and their subscribers"),
    PUBSUB(channels, channels, -2, "2.8.0", "[pattern]", "The channels that have subscribers"),
    HELP("pubsub", "pubsub", ANYTIME, "6.2.0"),
    PUBSUB(numpat, numpat, 2, "2.8.0", "", "How many patterns have subscribers"),
    PUBSUB(numsub, numsub, -2, "2.8.0", "[channel...]", "How many subscribers channels have"),
    PUBSUB(shardchannels, channels, -2, "7.0.0", "[pattern]", "The shard channels that have subscribers"),
    PUBSUB(shardnumsub, numsub, -2, "7.0.0", "[shardchannel...]", "How many subscribers shard channels have"),
    LISTENER(punsubscribe, unsubscribe, -1, NO_KEY, "2.0.0", "[pattern...]", "Ends PSUBSCRIBE's, all or these"),
    ROW("pubsub", "spublish", cmd_publish, 3, TELL | L | CMD_MAY_REPLICATE, KEY, "7.0.0", "shardchannel message",
        "Sends to shard channel"),
    LISTENER(ssubscribe, subscribe, -2, KEYS, "7.0.0", "shardchannel...", "Listens to shard channels"),
    LISTENER(subscribe, subscribe, -2, NO_KEY, "2.0.0", "channel...", "Listens to channels"),
    LISTENER(sunsubscribe, unsubscribe, -1, KEYS, "7.0.0", "[shardchannel...]", "Ends SSUBSCRIBE's, all or these"),
    LISTENER(unsubscribe, unsubscribe, -1, NO_KEY, "2.0.0", "[channel...]", "Ends SUBSCRIBE's, all or these"),

    CONNECTION(auth, -2, LOGIN, "1.0.0", "[username] password", "Shows the password"),
    ROW("connection", "client", NULL, -2, CMD_CONTAINER, NO_KEY, "2.4.0", "", "About connections"),
    CLIENT("getname", getname, 2, SESSION, "2.6.9", "", "The name this connection was given"),
    HELP("connection", "client", ANYTIME, "5.0.0"),
    CLIENT("id", id, 2, SESSION, "5.0.0", "", "This connection's number, never given twice"),
    CLIENT("info", info, 2, SESSION, "6.2.0", "", "This connection's line of CLIENT LIST"),
    CLIENT("kill", kill, -3, ANY_ADMIN, "2.4.0",
           "<ip:port | <ID client-id | TYPE type | USER username | ADDR ip:port | LADDR ip:port | SKIPME yes-no>...>",
           "Closes connections"),
    CLIENT("list", list, -2, ANY_ADMIN, "2.4.0", "[TYPE type] [ID client-id...]", "All clients"),
    CLIENT("no-evict", no_evict, 3, ANY_ADMIN, "7.0.0", "<ON | OFF>", "Spares this connection when memory is short"),
    CLIENT("no-touch", no_touch, 3, SESSION, "7.2.0", "<ON | OFF>", "Lets its reads leave the keys' age alone"),
    CLIENT("pause", pause, -3, ANY_ADMIN, "2.9.50", "timeout [WRITE | ALL]", "Puts off what clients send"),
    CLIENT("reply", reply, 3, SESSION, "3.2.0", "<ON | OFF | SKIP>", "Whether commands are answered"),
    CLIENT("setinfo", setinfo, 4, SESSION, "7.2.0", "<LIB-NAME libname | LIB-VER libver>", "Notes the client library"),
    CLIENT("setname", setname, 3, SESSION, "2.6.9", "connection-name", "Names this connection"),
    CLIENT("unblock", unblock, -3, ANY_ADMIN, "5.0.0", "client-id [TIMEOUT | ERROR]", "Ends a client's waiting"),
    CLIENT("unpause", unpause, 2, ANY_ADMIN, "6.2.0", "", "Ends CLIENT PAUSE"),
    CONNECTION(echo, 2, ANYTIME | L, "1.0.0", "message", "Answers the message"),
    CONNECTION(hello, -1, LOGIN, "6.0.0", "[protover [AUTH username password] [SETNAME clientname]]", "The handshake"),
    CONNECTION(ping, -1, F | CMD_IN_RESP2_SUB, "1.0.0", "[message]", "Answers PONG, or the message"),
    CONNECTION(quit, -1, LEAVE, "1.0.0", "", "Closes the connection"),
    CONNECTION(reset, 1, LEAVE, "6.2.0", "", "Makes the connection as new"),
    CONNECTION(select, 2, ANYTIME | F, "1.0.0", "index", "Chooses the database"),

    ROW("server", "acl", NULL, -2, CMD_CONTAINER, NO_KEY, "6.0.0", "", "About users: there is one, with every right"),
    ACL(cat, cat, -2, SESSION, "[category]", "The categories of commands, or one's commands"),
    ACL(deluser, setuser, -3, ANY_ADMIN, "username...", "Refused: there is one user"),
    ACL(getuser, getuser, 3, ANY_ADMIN, "username", "What a user may do"),
    HELP("server", "acl", ANYTIME, "6.0.0"),
    ACL(list, list, 2, ANY_ADMIN, "", "The users and their rights"),
    ACL(load, setuser, 2, ANY_ADMIN, "", "Refused: there is one user"),
    ACL(log, log, -2, ANY_ADMIN, "[count | RESET]", "The refused logins"),
    ACL(save, setuser, 2, ANY_ADMIN, "", "Refused: there is one user"),
    ACL(setuser, setuser, -3, ANY_ADMIN, "username [rule...]", "Refused: there is one user"),
    ACL(users, users, 2, ANY_ADMIN, "", "The users' names"),
    ACL(whoami, whoami, 2, SESSION, "", "The name of this connection's user"),
    SERVER(bgrewriteaof, 1, BACKGROUND, "1.0.0", "", "Shortens the log in the background"),
    SERVER(bgsave, -1, BACKGROUND, "1.0.0", "[SCHEDULE]", "Saves a snapshot in the background"),
    ROW("server", "command", cmd_command_info, -1, ABOUT | CMD_CONTAINER, NO_KEY, "2.8.13", "", "About the commands"),
    COMMAND(count, 2, "2.8.13", "", "How many commands there are"),
    COMMAND(docs, -2, "7.0.0", "[command-name...]", "What commands are for, and their arguments"),
    COMMAND(getkeys, -4, "2.8.13", "command [arg...]", "Which arguments are keys"),
    HELP("server", "command", ABOUT, "5.0.0"),
    COMMAND(info, -2, "2.8.13", "[command-name...]", "Arity, flags and key positions of commands"),
    COMMAND(list, -2, "7.0.0", "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]", "All names"),
    ROW("server", "config", NULL, -2, CMD_CONTAINER, NO_KEY, "2.0.0", "", "About the options"),
    CONFIG(get, -3, "2.0.0", "parameter...", "The options that match patterns, and their values"),
    HELP("server", "config", ANYTIME, "5.0.0"),
    CONFIG(resetstat, 2, "2.0.0", "", "Sets INFO's statistics to zero"),
    CONFIG(rewrite, 2, "2.8.0", "", "Writes the options to the file that the server was started with"),
    CONFIG(set, -4, "2.0.0", "<parameter value>...", "Gives options new values, all or none"),
    SERVER(dbsize, 1, R | F | CMD_ACL_KEYSPACE, "1.0.0", "", "How many keys the database has"),
    SERVER(debug, -2, ANY_ADMIN, "1.0.0", "subcommand [arg...]", "For tests"),
    SERVER(flushall, -1, W | ALL_KEYS, "1.0.0", "[ASYNC | SYNC]", "Deletes all keys"),
    SERVER(flushdb, -1, W | ALL_KEYS, "1.0.0", "[ASYNC | SYNC]", "Deletes the database's keys"),
    SERVER(info, -1, ANYTIME | CMD_DANGEROUS, "1.0.0", "[section...]", "What the server says of itself"),
    SERVER(lastsave, 1, ANYTIME | F | CMD_ACL_ADMIN | CMD_DANGEROUS, "1.0.0", "", "When the last snapshot was saved"),
    SERVER(failover, -1, ADMIN | CMD_STALE, "6.2.0", "[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]",
           "Lets a follower take over"),
    SERVER(psync, -3, BACKGROUND | CMD_NO_MULTI, "2.8.0", "replicationid offset", "Follows, from there on"),
    SERVER(replconf, -1, ANY_ADMIN | CMD_ALLOW_BUSY, "3.0.0", "[option value]...", "What leader and follower tell"),
    SERVER(replicaof, 3, BACKGROUND | CMD_STALE, "5.0.0", "<host port | NO ONE>", "Follows a leader, or nobody"),
    SERVER(role, 1, SESSION | F | CMD_ACL_ADMIN | CMD_DANGEROUS, "2.8.12", "", "Leader or follower, and how far"),
    ROW("server", "slaveof", cmd_replicaof, 3, BACKGROUND | CMD_STALE, NO_KEY, "1.0.0", "<host port | NO ONE>",
        "Follows a leader, or nobody"),
    SERVER(sync, 1, BACKGROUND | CMD_NO_MULTI, "1.0.0", "", "Follows, from a snapshot on"),
    ROW("server", "latency", NULL, -2, CMD_CONTAINER, NO_KEY, "2.8.13", "", "What took long"),
    LOOK(latency, doctor, 2, ANY_ADMIN, "2.8.13", "", "What took long, and what to do"),
    LOOK(latency, graph, 3, ANY_ADMIN, "2.8.13", "event", "The same as a graph"),
    HELP("server", "latency", ANYTIME, "2.8.13"),
    LOOK(latency, histogram, -2, ANY_ADMIN, "7.0.0", "[command...]", "How many calls took how long"),
    LOOK(latency, history, 3, ANY_ADMIN, "2.8.13", "event", "When an event took long, and how long"),
    LOOK(latency, latest, 2, ANY_ADMIN, "2.8.13", "", "When each event took long the last time"),
    LOOK(latency, reset, -2, ANY_ADMIN, "2.8.13", "[event...]", "Forgets events"),
    ROW("server", "memory", NULL, -2, CMD_CONTAINER, NO_KEY, "4.0.0", "", "About the memory in use"),
    LOOK(memory, doctor, 2, 0, "4.0.0", "", "What is remarkable about it"),
    HELP("server", "memory", ANYTIME, "4.0.0"),
    ROW("server", "memory|malloc-stats", cmd_memory_doctor, 2, 0, NO_KEY, "4.0.0", "", "Where it comes from"),
    LOOK(memory, purge, 2, 0, "4.0.0", "", "Gives free memory back to the system"),
    LOOK(memory, stats, 2, 0, "4.0.0", "", "What it is used for"),
    ROW("server", "memory|usage", cmd_memory_usage, -3, R, 2, 2, 1, "4.0.0", "key [SAMPLES count]", "What a key takes"),
    SERVER(monitor, 1, ANY_ADMIN, "1.0.0", "", "Shows every command that is run, as it comes"),
    SERVER(save, 1, BACKGROUND | CMD_NO_MULTI, "1.0.0", "", "Saves a snapshot, and waits for it"),
    SERVER(shutdown, -1, ANY_ADMIN | CMD_NO_MULTI | CMD_ALLOW_BUSY, "1.0.0", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
           "Ends the server"),
    ROW("server", "slowlog", NULL, -2, CMD_CONTAINER, NO_KEY, "2.2.12", "", "The commands that took long"),
    LOOK(slowlog, get, -2, CMD_ADMIN | ANYTIME, "2.2.12", "[count]", "The last ones, with time and arguments"),
    HELP("server", "slowlog", ANYTIME, "6.2.0"),
    LOOK(slowlog, len, 2, CMD_ADMIN | ANYTIME, "2.2.12", "", "How many are kept"),
    LOOK(slowlog, reset, 2, CMD_ADMIN | ANYTIME, "2.2.12", "", "Forgets them"),
    SERVER(swapdb, 3, W | L | ALL_KEYS, "4.0.0", "index1 index2", "Lets two databases change places"),
    SERVER(time, 1, ANYTIME | F, "2.6.0", "", "The server's clock: seconds and microseconds"),

    TRANSACTION(discard, 1, BRACKET & ~B, NO_KEY, "2.0.0", "", "Gives the transaction up"),
    TRANSACTION(exec, 1, SESSION | CMD_IN_MULTI | CMD_NO_SLOWLOG, NO_KEY, "1.2.0", "", "Runs the transaction"),
    TRANSACTION(multi, 1, BRACKET, NO_KEY, "1.2.0", "", "Begins a transaction"),
    TRANSACTION(unwatch, 1, SESSION | L | CMD_ALLOW_BUSY, NO_KEY, "2.2.0", "", "Forgets all watched keys"),
    TRANSACTION(watch, -2, BRACKET, KEYS, "2.2.0", "key...", "Lets EXEC run only if these keys do not change"),
    {.name = NULL},
};

/* ==== finding a row ========================================================================================= */

#define NAME_MAX_LEN 16  /* of a row's */
#define SLOTS        512 /* several times the number of commands */

/* A name as it is compared: in lower case; n == 0: the slot is free. */
static struct slot {
    uint64_t head, tail; /* its first eight bytes and its last; all bytes of a shorter one are in head */
    size_t n;
    const struct command *row;
    const char
        *alias; /* rename-command: the whole of a new name, "" at a row's own that is no longer good; else NULL */
} slots[SLOTS];
static int naliases; /* they and the rows, each fewer than half, leave a slot free, where a search ends */

/* Folds the capital letters among eight bytes: those whose low seven bits are 'A' to 'Z', and the eighth clear. */
static uint64_t lower(uint64_t v) {
    const uint64_t ones = UINT64_C(0x0101010101010101), low = v & (ones * 0x7f);
    uint64_t capitals = (low + ones * (0x80 - 'A')) & ~(low + ones * (0x7f - 'Z')) & ~v & (ones * 0x80);
    return v | capitals >> 2;
}

static inline struct slot slot_of(const char *p, size_t n) {
    uint64_t head = 0, tail = 0;
    if (n >= 8) {
        memcpy(&head, p, 8);
        memcpy(&tail, p + n - 8, 8);
    } else {
        for (size_t i = 0; i < n; i++) head = head << 8 | (unsigned char)p[i];
    }
    return (struct slot){.head = lower(head), .tail = lower(tail), .n = n};
}

/* The slot that holds the name, or the free one where it belongs. */
static inline struct slot *probe(struct slot name) {
    uint64_t i = (name.head ^ (name.tail << 3) ^ name.n) * UINT64_C(0x9e3779b97f4a7c15) >> 40;
    struct slot *s;
    do s = &slots[i++ % SLOTS];
    while (s->n && (s->head != name.head || s->tail != name.tail || s->n != name.n));
    return s;
}

static void slots_fill(void) {
    for (const struct command *c = command_table; c->name; c++) {
        if (strchr(c->name, '|')) continue;
        struct slot name = slot_of(c->name, strlen(c->name)), *s = probe(name);
        assert(!s->n && name.n <= NAME_MAX_LEN && c - command_table < SLOTS / 2);
        *s = name;
        s->row = c;
    }
}

static struct slot *slot_find(const struct arg *name) {
    static bool filled;
    if (!filled) slots_fill();
    filled = true;
    return probe(slot_of(name->p, name->n));
}

const struct command *command_find(struct arg *name) {
    const struct slot *s = slot_find(name);
    if (!s->alias) return s->row;
    if (!resp_arg_is(name, s->alias)) return NULL;
    *name = (struct arg){.p = s->row->name, .n = (uint32_t)strlen(s->row->name)};
    return s->row;
}

const struct command *command_find_logged(const struct arg *name) { return slot_find(name)->row; }

const char *command_rename(const struct arg *name, const struct arg *alias) {
    struct slot *old = slot_find(name), *new = slot_find(alias);
    struct arg found = *name;
    if (!command_find(&found)) return "No such command in rename-command";
    if (new->n) return "Target command name already exists";
    if (naliases == SLOTS / 2 - 1) return "too many new names";
    free((char *)old->alias);
    old->alias = "";
    if (!alias->n) return NULL;
    naliases++;
    *new = slot_of(alias->p, alias->n);
    new->row = old->row;
    new->alias = resp_need(strndup(alias->p, alias->n));
    return NULL;
}

int command_subs(const struct command *c) {
    int n = 0;
    while (c->flags & CMD_CONTAINER && c[n + 1].name && strchr(c[n + 1].name, '|')) n++;
    return n;
}

const struct command *command_find_sub(const struct command *c, const struct arg *sub) {
    for (int i = command_subs(c); i > 0; i--)
        if (resp_arg_is(sub, strchr(c[i].name, '|') + 1)) return &c[i];
    return NULL;
}

const char *command_title(const struct command *c) {
    static char title[32];
    const char *bar = strchr(c->name, '|');
    size_t n = 0;
    for (const char *p = bar ? bar + 1 : c->name; *p && n < sizeof title - 1; p++)
        title[n++] = (char)toupper((unsigned char)*p);
    title[n] = 0;
    return title;
}

bool cx_at_most(struct cx *cx, int argc) {
    const struct command *container = cx->cmd;
    if (cx->argc <= argc) return true;
    while (!(container->flags & CMD_CONTAINER)) container--;
    resp_errorf(cx->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try %s HELP.",
                (int)cx->argv[1].n, cx->argv[1].p, command_title(container));
    return false;
}

/* ==== COMMAND INFO ========================================================================================== */

/* By the flags' bits, beginning with CMD_WRITE. */
static const char *const flag_names[] = {
    "write", "readonly", "denyoom", "admin",    "pubsub",       "noscript",     "blocking",   "loading",
    "stale", "fast",     "no_auth", "no_multi", "skip_monitor", "skip_slowlog", "allow_busy", "no_async_loading"};
static const char *const key_flag_names[] = {"RO", "RW", "access", "update", "not_key"};

/* The ACL categories: a command is in those that go with its group or one of its flags; slow is what is not fast. */
static const char *const categories[] = {"@keyspace",  "@read",       "@write",      "@string", "@bitmap",
                                         "@pubsub",    "@admin",      "@fast",       "@slow",   "@blocking",
                                         "@dangerous", "@connection", "@transaction"};
enum { BLOCKS = CMD_BLOCKING, RISKY = CMD_ADMIN | CMD_DANGEROUS, ADMINS = CMD_ADMIN | CMD_ACL_ADMIN };
static const uint32_t category_flags[] = {CMD_ACL_KEYSPACE,   R, W, 0, 0, CMD_PUBSUB, ADMINS, L, 0, BLOCKS, RISKY,
                                          CMD_ACL_CONNECTION, 0};
static const char *const category_groups[] = {"generic", "", "", "string",     "bitmap",      "", "", "",
                                              "",        "", "", "connection", "transactions"};

static uint32_t categories_of(const struct command *c) {
    uint32_t set = c->flags & L ? 0 : 1u << 8;
    for (size_t i = 0; i < COUNT(categories); i++)
        if (c->flags & category_flags[i] || (c->fn && !strcmp(c->group, category_groups[i]))) set |= 1u << i;
    return c->flags & CMD_ACL_CONNECTION ? set & ~1u : set; /* what waits has no key */
}

/* Its bit among a command's; 0: there is no such category. */
static uint32_t category_named(const struct arg *name) {
    for (size_t i = 0; i < COUNT(categories); i++)
        if (resp_arg_is(name, categories[i] + 1)) return 1u << i;
    return 0;
}

static void reply_bits(struct resp_out *o, uint32_t bits, const char *const *names) {
    resp_set(o, (size_t)__builtin_popcount(bits));
    for (; bits; bits &= bits - 1) resp_status(o, names[__builtin_ctz(bits)]);
}

/* {name: {type: type, spec: {...}}} but for the spec's pairs. */
static void spec_begin(struct resp_out *o, const char *name, const char *type, size_t pairs) {
    resp_bulk_str(o, name);
    resp_map(o, 2);
    resp_pair(o, "type", type);
    resp_bulk_str(o, "spec");
    resp_map(o, pairs);
}

static void reply_key_specs(struct resp_out *o, const struct command *c) {
    resp_set(o, c->first_key ? 1 : 0);
    if (!c->first_key) return;
    resp_map(o, 3);
    resp_bulk_str(o, "flags");
    reply_bits(o, c->flags & CMD_PUBSUB ? 1 << 4 : c->flags & CMD_WRITE ? 2 | 4 | 8 : 1 | 4, key_flag_names);
    spec_begin(o, "begin_search", "index", 1);
    resp_pair_int(o, "index", c->first_key);
    spec_begin(o, "find_keys", "range", 3);
    resp_pair_int(o, "lastkey", c->last_key < 0 ? c->last_key : c->last_key - c->first_key);
    resp_pair_int(o, "keystep", c->key_step);
    resp_pair_int(o, "limit", 0);
}

static void reply_info(struct resp_out *o, const struct command *c) {
    resp_array(o, 10);
    resp_bulk_str(o, c->name);
    resp_int(o, c->arity);
    reply_bits(o, c->flags & (CMD_MAY_REPLICATE - 1), flag_names);
    resp_int(o, c->first_key);
    resp_int(o, c->last_key);
    resp_int(o, c->key_step);
    reply_bits(o, categories_of(c), categories);
    resp_set(o, 0);
    reply_key_specs(o, c);
    if (command_subs(c)) resp_array(o, (size_t)command_subs(c));
    else resp_set(o, 0);
    for (int i = 1; i <= command_subs(c); i++) reply_info(o, &c[i]);
}

const struct command *command_named(const struct arg *name) {
    const struct command *c = command_table;
    while (c->name && !resp_arg_is(name, c->name)) c++;
    return c->name ? c : NULL;
}

/* Replies for the rows that are named from argv[2] on ("get", "client|id"), or for all. Returns how many. */
static size_t reply_rows(struct cx *cx, void reply(struct resp_out *, const struct command *), bool null_if_unknown) {
    size_t n = 0;
    for (const struct command *c = command_table; cx->argc <= 2 && c->name; c += command_subs(c) + 1, n++)
        reply(cx->out, c);
    for (int i = 2; i < cx->argc; i++) {
        const struct command *c = command_named(&cx->argv[i]);
        if (c) reply(cx->out, c);
        else if (null_if_unknown) resp_null(cx->out);
        n += c || null_if_unknown;
    }
    return n;
}

void cmd_command_info(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    resp_later_array(cx->out, mark, reply_rows(cx, reply_info, true));
}

void cmd_command_count(struct cx *cx) {
    int64_t n = 0;
    for (const struct command *c = command_table; c->name; c += command_subs(c) + 1) n++;
    resp_int(cx->out, n);
}

/* ==== COMMAND DOCS ========================================================================================== */

/* The end of the argument that begins at p: the next space outside all brackets. */
static const char *argument_end(const char *p) {
    for (int depth = 0; *p && (depth || *p != ' '); p++) depth += (*p == '[' || *p == '<') - (*p == ']' || *p == '>');
    return p;
}

static void reply_arguments(struct resp_out *o, const char *syntax) {
    size_t mark = resp_later(o), n = 0;
    for (const char *p = syntax, *end; *p; p = end + (*end == ' '), n++) {
        end = argument_end(p);
        resp_map(o, 2);
        resp_bulk_str(o, "name");
        resp_bulk(o, p, (size_t)(end - p));
        resp_pair(o, "type", "string");
    }
    resp_later_array(o, mark, n);
}

static void reply_docs(struct resp_out *o, const struct command *c) {
    int subs = command_subs(c);
    resp_bulk_str(o, c->name);
    resp_map(o, 3 + (size_t)(*c->syntax != 0) + (size_t)(subs > 0));
    resp_pair(o, "summary", c->summary);
    resp_pair(o, "since", c->since);
    resp_pair(o, "group", c->group);
    if (*c->syntax) resp_bulk_str(o, "arguments"), reply_arguments(o, c->syntax);
    if (!subs) return;
    resp_bulk_str(o, "subcommands");
    resp_map(o, (size_t)subs);
    for (int i = 1; i <= subs; i++) reply_docs(o, &c[i]);
}

void cmd_command_docs(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    resp_later_map(cx->out, mark, reply_rows(cx, reply_docs, false));
}

/* ==== COMMAND LIST, ACL CAT, COMMAND GETKEYS
 * ============================================================================== */

void cmd_command_list(struct cx *cx) {
    const struct arg *kind = &cx->argv[3], *value = &cx->argv[4];
    bool all = cx->argc == 2, filter = cx->argc == 5 && resp_arg_is(&cx->argv[2], "filterby");
    bool pattern = filter && resp_arg_is(kind, "pattern"), category = filter && resp_arg_is(kind, "aclcat");
    if (!cx_check(cx, all || pattern || category || (filter && resp_arg_is(kind, "module")), "ERR syntax error"))
        return;
    size_t mark = resp_later(cx->out), n = 0;
    for (const struct command *c = command_table; c->name; c++) {
        bool listed = all || (pattern && glob_match(value->p, value->n, c->name, strlen(c->name), true));
        listed |= category && categories_of(c) & category_named(value);
        if (listed) resp_bulk_str(cx->out, c->name);
        n += listed;
    }
    resp_later_array(cx->out, mark, n);
}

void cmd_acl_cat(struct cx *cx) {
    uint32_t bit = cx->argc > 2 ? category_named(&cx->argv[2]) : 0;
    if (!cx_at_most(cx, 3)) return;
    if (cx->argc > 2 && !bit) {
        resp_errorf(cx->out, "ERR Unknown category '%.*s'", (int)cx->argv[2].n, cx->argv[2].p);
        return;
    }
    size_t mark = resp_later(cx->out), n = 0;
    for (size_t i = 0; !bit && i < COUNT(categories); i++, n++) resp_bulk_str(cx->out, categories[i] + 1);
    for (const struct command *c = command_table; c->name; c++)
        if (categories_of(c) & bit) n++, resp_bulk_str(cx->out, c->name);
    resp_later_array(cx->out, mark, n);
}

/* The command in question is argv[2] with all that follows. */
void cmd_command_getkeys(struct cx *cx) {
    struct arg *argv = cx->argv + 2;
    int argc = cx->argc - 2;
    const struct command *c = command_find(argv);
    if (c && c->flags & CMD_CONTAINER) c = command_find_sub(c, &argv[1]);
    if (!cx_check(cx, c, "ERR Invalid command specified") ||
        !cx_check(cx, c->first_key && !(c->flags & CMD_PUBSUB), "ERR The command has no key arguments") ||
        !cx_check(cx, c->arity > 0 ? argc == c->arity : argc >= -c->arity,
                  "ERR Invalid number of arguments specified for command"))
        return;
    int last = c->last_key < 0 ? argc + c->last_key : c->last_key;
    int64_t keys = (last - c->first_key) / c->key_step + 1;
    bool well = !(c->flags & CMD_COUNTED_KEYS) ||
                (resp_read_int(argv[1].p, argv[1].n, &keys) && keys > 0 && keys <= (argc - c->first_key) / c->key_step);
    if (!cx_check(cx, well, "ERR Invalid arguments specified for command")) return;
    resp_array(cx->out, (size_t)keys);
    for (int i = c->first_key; keys; i += c->key_step, keys--) resp_bulk(cx->out, argv[i].p, argv[i].n);
}
