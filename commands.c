/* commands.c - the command table, finding a row in it, and COMMAND, which shows it to clients.
 *
 * The table is the one place that says what a command is: dispatch, HELP, COMMAND and the prefetching of keys read
 * it. A row's function is named after its command.
 *
 * command_find() runs for every command of every client. A name is told from all others by its length and its first
 * and last eight bytes, folded to lower case eight at a time; a hash table finds it, nearly always at the first try.
 *
 * COMMAND DOCS answers trees of arguments, which are read off the rows' syntax: a list is separated by spaces, a choice
 * by "|", [optional], <a group>, "..." behind what may come several times. A word in capitals stands for itself and may
 * begin a group.
 *
 * Left out: ACL rules (only the categories are told), tips, the history of options.
 */
#include "commands.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ==== the table ============================================================================================= */

/* Flags, short enough for a table. */
enum { W = CMD_WRITE, R = CMD_READONLY, M = CMD_DENYOOM, F = CMD_FAST, ANYTIME = CMD_LOADING | CMD_STALE };
enum { ABOUT = ANYTIME | CMD_ACL_CONNECTION, ALL_KEYS = CMD_ACL_KEYSPACE | CMD_DANGEROUS };
enum { ADMIN = CMD_ADMIN | CMD_NOSCRIPT, BACKGROUND = ADMIN | CMD_NO_ASYNC_LOADING, ANY_ADMIN = ADMIN | ANYTIME };
enum { SESSION = ANYTIME | CMD_NOSCRIPT, LOGIN = SESSION | F | CMD_NO_AUTH | CMD_ALLOW_BUSY };
enum { LISTEN = SESSION | CMD_PUBSUB | CMD_IN_RESP2_SUB, TELL = ANYTIME | CMD_PUBSUB };
enum { LEAVE = LOGIN | CMD_IN_MULTI | CMD_IN_RESP2_SUB, BRACKET = SESSION | F | CMD_IN_MULTI | CMD_ALLOW_BUSY };

/* What is done to keys: struct command's key_use. */
enum { RO = 1, RW = 2, OW = 4, RM = 8, ACCESS = 16, UPDATE = 32, INSERT = 64, DELETE = 128, VARIABLE = 256 };
enum { READ = RO | ACCESS, ALTER = RW | ACCESS | UPDATE, VARIES = ALTER | VARIABLE, NOT_KEY = 512 };
enum { PUT = OW | UPDATE, ADD = OW | INSERT, TAKE = RW | ACCESS | DELETE, DROP = RM | DELETE, TOUCH = RW | UPDATE };
static const char *const use_names[] = {
    "RO", "RW", "OW", "RM", "access", "update", "insert", "delete", "variable_flags", "not_key"};

#define NO_KEY                     (0, 0, 0, 0)
#define KEY(use)                   (1, 1, 1, use)
#define KEYS(use)                  (1, -1, 1, use)
#define PAIRS(use)                 (1, -1, 2, use)
#define TWO(use, use_of_second)    (1, 2, 1, use, use_of_second)
#define POSITIONS(a, b, step, ...) .first_key = (a), .last_key = (b), .key_step = (step), .key_use = {__VA_ARGS__}
#define ROW_AND_SUBS(g, n, f, a, fl, keys, v, sy, su, sub_rows)                                                        \
    {                                                                                                                  \
        .name = (n), .fn = (f), .arity = (a), .flags = (fl), POSITIONS keys, .group = (g), .since = (v),               \
        .syntax = (sy), .summary = (su), .subs = (sub_rows), .stats = (struct command_stats[1]){{0}},                  \
    }
#define ROW(...)                                   ROW_AND_SUBS(__VA_ARGS__, NULL)
#define CONTAINER(g, n, f, a, fl, v, su, sub_rows) ROW_AND_SUBS(g, n, f, a, fl, NO_KEY, v, "", su, sub_rows)

#define STRING(name, ...)            ROW("string", #name, cmd_##name, __VA_ARGS__)
#define BITMAP(name, ...)            ROW("bitmap", #name, cmd_##name, __VA_ARGS__)
#define GENERIC(name, ...)           ROW("generic", #name, cmd_##name, __VA_ARGS__)
#define CONNECTION(name, a, fl, ...) ROW("connection", #name, cmd_##name, a, fl, NO_KEY, __VA_ARGS__)
#define SERVER(name, a, fl, ...)     ROW("server", #name, cmd_##name, a, fl, NO_KEY, __VA_ARGS__)
#define TRANSACTION(name, ...)       ROW("transactions", #name, cmd_##name, __VA_ARGS__)
#define CLIENT(name, a, fl, ...)     ROW("connection", #name, cmd_client_##name, a, fl, NO_KEY, __VA_ARGS__)
#define COMMAND(name, a, ...)        ROW("server", #name, cmd_command_##name, a, ABOUT, NO_KEY, __VA_ARGS__)
#define CONFIG(name, a, ...)         ROW("server", #name, cmd_config_##name, a, ANY_ADMIN, NO_KEY, __VA_ARGS__)
#define LISTENER(name, fn, a, ...)   ROW("pubsub", #name, cmd_##fn, a, LISTEN, __VA_ARGS__)
#define OBJECT(name, v, su)          ROW("generic", #name, cmd_object_##name, 3, R, (2, 2, 1, RO), v, "key", su)
#define PUBSUB(name, fn, a, v, ...)  ROW("pubsub", #name, cmd_pubsub_##fn, a, TELL, NO_KEY, v, __VA_ARGS__)
#define HELP(g, fl, v)               ROW(g, "help", cmd_help, 2, fl, NO_KEY, v, "", "Lists the subcommands")

#define WHEN     " [NX | XX | GT | LT]"
#define DEADLINE "EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | "

static const struct command client_rows[] = {
    CLIENT(getname, 2, SESSION, "2.6.9", "", "The name this connection was given"),
    HELP("connection", ANYTIME, "5.0.0"),
    CLIENT(id, 2, SESSION, "5.0.0", "", "This connection's number, never given twice"),
    CLIENT(info, 2, SESSION, "6.2.0", "", "This connection's line of CLIENT LIST"),
    CLIENT(list, -2, ANY_ADMIN, "2.4.0", "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id...]",
           "All clients"),
    ROW("connection", "no-evict", cmd_client_no_evict, 3, ANY_ADMIN, NO_KEY, "7.0.0", "<ON | OFF>",
        "Spares this connection when memory is short"),
    ROW("connection", "no-touch", cmd_client_no_touch, 3, SESSION, NO_KEY, "7.2.0", "<ON | OFF>",
        "Whether this connection's reading leaves the keys' age alone"),
    CLIENT(reply, 3, SESSION, "3.2.0", "<ON | OFF | SKIP>", "Whether commands are answered"),
    CLIENT(setinfo, 4, SESSION, "7.2.0", "<LIB-NAME libname | LIB-VER libver>", "Notes the client's library"),
    CLIENT(setname, 3, SESSION, "2.6.9", "connection-name", "Names this connection"),
    {.name = NULL},
};

static const struct command command_rows[] = {
    COMMAND(count, 2, "2.8.13", "", "How many commands there are"),
    COMMAND(docs, -2, "7.0.0", "[command-name...]", "What commands are for, and their arguments"),
    COMMAND(getkeys, -4, "2.8.13", "command [arg...]", "Which arguments are keys"),
    COMMAND(getkeysandflags, -4, "7.0.0", "command [arg...]", "Which arguments are keys, and what is done to them"),
    HELP("server", ABOUT, "5.0.0"),
    COMMAND(info, -2, "2.8.13", "[command-name...]", "Arity, flags and key positions of commands"),
    COMMAND(list, -2, "7.0.0", "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]", "All names"),
    {.name = NULL},
};

static const struct command config_rows[] = {
    CONFIG(get, -3, "2.0.0", "parameter...", "The options that match patterns, and their values"),
    HELP("server", ANYTIME, "5.0.0"),
    CONFIG(resetstat, 2, "2.0.0", "", "Sets INFO's statistics to zero"),
    CONFIG(set, -4, "2.0.0", "<parameter value>...", "Gives options new values, all or none"),
    {.name = NULL},
};

static const struct command object_rows[] = {
    OBJECT(encoding, "2.2.3", "How Redis would keep the value"),
    OBJECT(freq, "4.0.0", "How often the key is used, where that is counted"),
    HELP("generic", ANYTIME, "6.2.0"),
    OBJECT(idletime, "2.2.3", "Seconds since the key was last used"),
    OBJECT(refcount, "2.2.3", "How many share the value"),
    {.name = NULL},
};

static const struct command pubsub_rows[] = {
    PUBSUB(channels, channels, -2, "2.8.0", "[pattern]", "The channels that have subscribers"),
    HELP("pubsub", ANYTIME, "6.2.0"),
    PUBSUB(numpat, numpat, 2, "2.8.0", "", "How many patterns have subscribers"),
    PUBSUB(numsub, numsub, -2, "2.8.0", "[channel...]", "How many subscribers channels have"),
    PUBSUB(shardchannels, channels, -2, "7.0.0", "[pattern]", "The shard channels that have subscribers"),
    PUBSUB(shardnumsub, numsub, -2, "7.0.0", "[shardchannel...]", "How many subscribers shard channels have"),
    {.name = NULL},
};

struct command command_table[] = {
    STRING(append, 3, W | M | F, KEY(RW | INSERT), "2.0.0", "key value", "Adds to the end of a value"),
    STRING(decr, 2, W | M | F, KEY(ALTER), "1.0.0", "key", "Takes 1 from a number"),
    STRING(decrby, 3, W | M | F, KEY(ALTER), "1.0.0", "key decrement", "Subtracts from a number"),
    STRING(get, 2, R | F, KEY(READ), "1.0.0", "key", "The value of a key"),
    STRING(getdel, 2, W | F, KEY(TAKE), "6.2.0", "key", "The value of a key, which is deleted"),
    STRING(getex, -2, W | F, KEY(ALTER), "6.2.0", "key [" DEADLINE "PERSIST]", "A value; changes the deadline"),
    STRING(getrange, 4, R, KEY(READ), "2.4.0", "key start end", "A part of a value"),
    STRING(getset, 3, W | M | F, KEY(ALTER), "1.0.0", "key value", "Sets a key and answers what it had"),
    STRING(incr, 2, W | M | F, KEY(ALTER), "1.0.0", "key", "Adds 1 to a number"),
    STRING(incrby, 3, W | M | F, KEY(ALTER), "1.0.0", "key increment", "Adds to a number"),
    STRING(incrbyfloat, 3, W | M | F, KEY(ALTER), "2.6.0", "key increment", "Adds to a number with a fraction"),
    STRING(lcs, -3, R, (1, 2, 1, READ), "7.0.0", "key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]",
           "The longest common subsequence of two values"),
    STRING(mget, -2, R | F, KEYS(READ), "1.0.0", "key...", "The values of several keys"),
    STRING(mset, -3, W | M, PAIRS(PUT), "1.0.1", "<key value>...", "Sets several keys at once"),
    STRING(msetnx, -3, W | M, PAIRS(ADD), "1.0.1", "<key value>...", "Sets several keys, if none is there"),
    STRING(psetex, 4, W | M, KEY(PUT), "2.6.0", "key milliseconds value", "Sets a key for some milliseconds"),
    STRING(set, -3, W | M, KEY(VARIES), "1.0.0", "key value [NX | XX] [GET] [" DEADLINE "KEEPTTL]", "Sets a key"),
    STRING(setex, 4, W | M, KEY(PUT), "2.0.0", "key seconds value", "Sets a key for some seconds"),
    STRING(setnx, 3, W | M | F, KEY(ADD), "1.0.0", "key value", "Sets a key, if it is not there"),
    STRING(setrange, 4, W | M, KEY(TOUCH), "2.2.0", "key offset value", "Writes over a part of a value"),
    STRING(strlen, 2, R | F, KEY(RO), "2.2.0", "key", "The length of a value"),
    ROW("string", "substr", cmd_getrange, 4, R, KEY(READ), "1.0.0", "key start end", "A part of a value"),

    BITMAP(bitcount, -2, R, KEY(READ), "2.6.0", "key [start end [BYTE | BIT]]", "How many bits are set"),
    BITMAP(bitfield, -2, W | M, KEY(VARIES), "3.2.0",
           "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] "
           "<SET encoding offset value | INCRBY encoding offset increment>]...",
           "Reads and changes integers of any width"),
    BITMAP(bitfield_ro, -2, R | F, KEY(READ), "6.0.0", "key [GET encoding offset]...", "Reads integers of any width"),
    BITMAP(bitop, -4, W | M, (2, -1, 1, PUT, READ), "2.6.0", "operation destkey key...", "Combines the bits of values"),
    BITMAP(bitpos, -3, R, KEY(READ), "2.8.7", "key bit [start [end [BYTE | BIT]]]", "Where the first such bit stands"),
    BITMAP(getbit, 3, R | F, KEY(READ), "2.2.0", "key offset", "One bit of a value"),
    BITMAP(setbit, 4, W | M, KEY(ALTER), "2.2.0", "key offset value", "Sets one bit of a value"),

    GENERIC(copy, -3, W | M, TWO(READ, PUT), "6.2.0", "source destination [DB destination-db] [REPLACE]",
            "Copies keys"),
    GENERIC(del, -2, W, KEYS(DROP), "1.0.0", "key...", "Deletes keys"),
    GENERIC(dump, 2, R, KEY(READ), "2.6.0", "key", "The value in the form that RESTORE reads"),
    GENERIC(exists, -2, R | F, KEYS(RO), "1.0.0", "key...", "How many of the keys are there"),
    GENERIC(expire, -3, W | F, KEY(TOUCH), "1.0.0", "key seconds" WHEN, "Sets how long a key lives"),
    GENERIC(expireat, -3, W | F, KEY(TOUCH), "1.2.0", "key unix-time-seconds" WHEN, "Sets when a key dies"),
    GENERIC(expiretime, 2, R | F, KEY(READ), "7.0.0", "key", "When a key dies, in seconds"),
    GENERIC(keys, 2, R | CMD_DANGEROUS, NO_KEY, "1.0.0", "pattern", "All keys that match, in one go"),
    GENERIC(move, 3, W | F, KEY(ALTER), "1.0.0", "key db", "Moves a key to another database"),
    CONTAINER("generic", "object", NULL, -2, 0, "2.2.3", "What is known about a key's value", object_rows),
    GENERIC(persist, 2, W | F, KEY(TOUCH), "2.2.0", "key", "Takes a key's deadline away"),
    GENERIC(pexpire, -3, W | F, KEY(TOUCH), "2.6.0", "key milliseconds" WHEN, "Sets how long a key lives"),
    GENERIC(pexpireat, -3, W | F, KEY(TOUCH), "2.6.0", "key unix-time-milliseconds" WHEN, "Sets when a key dies"),
    GENERIC(pexpiretime, 2, R | F, KEY(READ), "7.0.0", "key", "When a key dies, in milliseconds"),
    GENERIC(pttl, 2, R | F, KEY(READ), "2.6.0", "key", "How long a key still lives, in milliseconds"),
    GENERIC(randomkey, 1, R, NO_KEY, "1.0.0", "", "Any key"),
    GENERIC(rename, 3, W, TWO(TAKE, PUT), "1.0.0", "key newkey", "Gives a key another name"),
    GENERIC(renamenx, 3, W | F, TWO(TAKE, ADD), "1.0.0", "key newkey", "Gives a key a name that is free"),
    GENERIC(restore, -4, W | M | CMD_DANGEROUS, KEY(PUT), "2.6.0",
            "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]", "Makes a key of a DUMP"),
    GENERIC(scan, -2, R, NO_KEY, "2.8.0", "cursor [MATCH pattern] [COUNT count] [TYPE type]", "All keys, by and by"),
    GENERIC(touch, -2, R | F, KEYS(RO), "3.2.1", "key...", "Notes that keys are in use"),
    GENERIC(ttl, 2, R | F, KEY(READ), "1.0.0", "key", "How long a key still lives, in seconds"),
    GENERIC(type, 2, R | F, KEY(RO), "1.0.0", "key", "The type of a key's value"),
    ROW("generic", "unlink", cmd_del, -2, W | F, KEYS(DROP), "4.0.0", "key...", "Deletes keys"),

    LISTENER(psubscribe, subscribe, -2, NO_KEY, "2.0.0", "pattern...", "Listens to the channels that match"),
    ROW("pubsub", "publish", cmd_publish, 3, TELL | F, NO_KEY, "2.0.0", "channel message", "Sends to the subscribers"),
    CONTAINER("pubsub", "pubsub", NULL, -2, 0, "2.8.0", "About channels and their subscribers", pubsub_rows),
    LISTENER(punsubscribe, unsubscribe, -1, NO_KEY, "2.0.0", "[pattern...]", "Ends PSUBSCRIBE's, all or these"),
    ROW("pubsub", "spublish", cmd_publish, 3, TELL | F, KEY(NOT_KEY), "7.0.0", "shardchannel message",
        "Sends to a shard channel's subscribers"),
    LISTENER(ssubscribe, subscribe, -2, KEYS(NOT_KEY), "7.0.0", "shardchannel...", "Listens to shard channels"),
    LISTENER(subscribe, subscribe, -2, NO_KEY, "2.0.0", "channel...", "Listens to channels"),
    LISTENER(sunsubscribe, unsubscribe, -1, KEYS(NOT_KEY), "7.0.0", "[shardchannel...]",
             "Ends SSUBSCRIBE's, all or these"),
    LISTENER(unsubscribe, unsubscribe, -1, NO_KEY, "2.0.0", "[channel...]", "Ends SUBSCRIBE's, all or these"),

    CONNECTION(auth, -2, LOGIN, "1.0.0", "[username] password", "Shows the password"),
    CONTAINER("connection", "client", NULL, -2, 0, "2.4.0", "About connections", client_rows),
    CONNECTION(echo, 2, ANYTIME | F, "1.0.0", "message", "Answers the message"),
    CONNECTION(hello, -1, LOGIN, "6.0.0", "[protover [AUTH username password] [SETNAME clientname]]",
               "Opens a session"),
    CONNECTION(ping, -1, F | CMD_IN_RESP2_SUB, "1.0.0", "[message]", "Answers PONG, or the message"),
    CONNECTION(quit, -1, LEAVE, "1.0.0", "", "Closes the connection"),
    CONNECTION(reset, 1, LEAVE, "6.2.0", "", "Makes the connection as new"),
    CONNECTION(select, 2, ANYTIME | F, "1.0.0", "index", "Chooses the database"),

    SERVER(bgrewriteaof, 1, BACKGROUND, "1.0.0", "", "Shortens the log in the background"),
    SERVER(bgsave, -1, BACKGROUND, "1.0.0", "[SCHEDULE]", "Saves a snapshot in the background"),
    CONTAINER("server", "command", cmd_command_info, -1, ABOUT, "2.8.13", "About the commands", command_rows),
    CONTAINER("server", "config", NULL, -2, 0, "2.0.0", "About the options", config_rows),
    SERVER(dbsize, 1, R | F | CMD_ACL_KEYSPACE, "1.0.0", "", "How many keys the database has"),
    SERVER(debug, -2, ANY_ADMIN, "1.0.0", "subcommand [arg...]", "For tests"),
    SERVER(flushall, -1, W | ALL_KEYS, "1.0.0", "[ASYNC | SYNC]", "Deletes all keys"),
    SERVER(flushdb, -1, W | ALL_KEYS, "1.0.0", "[ASYNC | SYNC]", "Deletes the database's keys"),
    SERVER(info, -1, ANYTIME | CMD_DANGEROUS, "1.0.0", "[section...]", "What the server says of itself"),
    SERVER(lastsave, 1, ANYTIME | F | CMD_ACL_ADMIN | CMD_DANGEROUS, "1.0.0", "", "When the last snapshot was saved"),
    SERVER(save, 1, BACKGROUND | CMD_NO_MULTI, "1.0.0", "", "Saves a snapshot, and waits for it"),
    SERVER(shutdown, -1, ANY_ADMIN | CMD_NO_MULTI | CMD_ALLOW_BUSY, "1.0.0", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
           "Ends the server"),
    SERVER(swapdb, 3, W | F | ALL_KEYS, "4.0.0", "index1 index2", "Lets two databases change places"),
    SERVER(time, 1, ANYTIME | F, "2.6.0", "", "The server's clock: seconds and microseconds"),

    TRANSACTION(discard, 1, BRACKET, NO_KEY, "2.0.0", "", "Gives the transaction up"),
    TRANSACTION(exec, 1, SESSION | CMD_IN_MULTI | CMD_NO_SLOWLOG, NO_KEY, "1.2.0", "", "Runs the transaction"),
    TRANSACTION(multi, 1, BRACKET, NO_KEY, "1.2.0", "", "Begins a transaction"),
    TRANSACTION(unwatch, 1, SESSION | F | CMD_ALLOW_BUSY, NO_KEY, "2.2.0", "", "Forgets all watched keys"),
    TRANSACTION(watch, -2, BRACKET, KEYS(RO), "2.2.0", "key...", "Lets EXEC run only if these keys do not change"),
    {.name = NULL},
};

/* ==== finding a row ========================================================================================= */

#define NAME_MAX_LEN 16
#define SLOTS        512 /* several times the number of commands */

/* A name as it is compared: in lower case; n == 0: the slot is free. */
static struct slot {
    uint64_t head, tail; /* its first eight bytes and its last; all bytes of a shorter one are in head */
    size_t n;
    const struct command *row;
} slots[SLOTS];

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
        struct slot name = slot_of(c->name, strlen(c->name)), *s = probe(name);
        assert(!s->n && name.n <= NAME_MAX_LEN && c - command_table < SLOTS / 2);
        *s = name;
        s->row = c;
    }
}

const struct command *command_find(const struct arg *name) {
    static bool filled;
    if (!filled) slots_fill();
    filled = true;
    return name->n <= NAME_MAX_LEN ? probe(slot_of(name->p, name->n))->row : NULL;
}

const struct command *command_find_sub(const struct command *c, const struct arg *sub) {
    for (const struct command *row = c->subs; row && row->name; row++)
        if (resp_arg_is(sub, row->name)) return row;
    return NULL;
}

/* Finds "get" or "client|id"; *container is NULL unless it is a subcommand. */
static const struct command *find_full(const struct arg *name, const struct command **container) {
    const char *bar = memchr(name->p, '|', name->n);
    struct arg head = {.p = name->p, .n = bar ? (uint32_t)(bar - name->p) : name->n};
    const struct command *c = command_find(&head);
    *container = bar ? c : NULL;
    if (!*container) return c;
    struct arg sub = {.p = bar + 1, .n = name->n - head.n - 1};
    return command_find_sub(c, &sub);
}

/* ==== COMMAND INFO ========================================================================================== */

/* By the flags' bits, beginning with CMD_WRITE. */
static const char *const flag_names[] = {
    "write",        "readonly",     "denyoom",       "admin",      "pubsub",          "noscript",
    "blocking",     "loading",      "stale",         "fast",       "no_auth",         "no_multi",
    "skip_monitor", "skip_slowlog", "may_replicate", "allow_busy", "no_async_loading"};

/* A command is in the ACL categories that go with its flags or with its group. */
static const char *const category_names[] = {"@keyspace",  "@read",       "@write",      "@string", "@bitmap",
                                             "@pubsub",    "@admin",      "@fast",       "@slow",   "@blocking",
                                             "@dangerous", "@connection", "@transaction"};
enum { BLOCKS = CMD_BLOCKING, RISKY = CMD_ADMIN | CMD_DANGEROUS, ADMINS = CMD_ADMIN | CMD_ACL_ADMIN };
static const uint32_t category_flags[] = {CMD_ACL_KEYSPACE,   R, W, 0, 0, CMD_PUBSUB, ADMINS, F, 0, BLOCKS, RISKY,
                                          CMD_ACL_CONNECTION, 0};
static const char *const category_groups[] = {"generic", "", "", "string",     "bitmap",      "", "", "",
                                              "",        "", "", "connection", "transactions"};

static uint32_t categories_of(const struct command *c) {
    uint32_t set = c->flags & F ? 0 : 1u << 8; /* slow is what is not fast */
    for (size_t i = 0; i < COUNT(category_names); i++)
        if (c->flags & category_flags[i] || (c->fn && !strcmp(c->group, category_groups[i]))) set |= 1u << i;
    return set;
}

static size_t count_rows(const struct command *rows) {
    size_t n = 0;
    while (rows && rows[n].name) n++;
    return n;
}

static void reply_name(struct resp_out *o, const struct command *c, const struct command *container) {
    if (container) resp_bulkf(o, "%s|%s", container->name, c->name);
    else resp_bulk_str(o, c->name);
}

static void reply_bits(struct resp_out *o, uint32_t bits, const char *const *names) {
    resp_set(o, (size_t)__builtin_popcount(bits));
    for (; bits; bits &= bits - 1) resp_status(o, names[__builtin_ctz(bits)]);
}

static void pair(struct resp_out *o, const char *name, const char *value) {
    resp_bulk_str(o, name);
    resp_bulk_str(o, value);
}

static void pair_int(struct resp_out *o, const char *name, int64_t v) {
    resp_bulk_str(o, name);
    resp_int(o, v);
}

/* The map that says where something is: {type: type, spec: {...}}. */
static void spec_begin(struct resp_out *o, const char *name, const char *type, size_t pairs) {
    resp_bulk_str(o, name);
    resp_map(o, 2);
    pair(o, "type", type);
    resp_bulk_str(o, "spec");
    resp_map(o, pairs);
}

/* Where the keys are and what is done to them: those of key_use[0], then those of key_use[1]. */
static void reply_key_specs(struct resp_out *o, const struct command *c) {
    int n = c->key_use[1] ? 2 : c->key_use[0] ? 1 : 0;
    resp_set(o, (size_t)n);
    for (int i = 0; i < n; i++) {
        int first = c->first_key + i, last = i < n - 1 ? first : c->last_key;
        resp_map(o, 3);
        resp_bulk_str(o, "flags");
        reply_bits(o, c->key_use[i], use_names);
        spec_begin(o, "begin_search", "index", 1);
        pair_int(o, "index", first);
        spec_begin(o, "find_keys", "range", 3);
        pair_int(o, "lastkey", last < 0 ? last : last - first);
        pair_int(o, "keystep", c->key_step);
        pair_int(o, "limit", 0);
    }
}

static void reply_info(struct resp_out *o, const struct command *c, const struct command *container) {
    resp_array(o, 10);
    reply_name(o, c, container);
    resp_int(o, c->arity);
    reply_bits(o, c->flags & (CMD_IN_MULTI - 1), flag_names);
    resp_int(o, c->first_key);
    resp_int(o, c->last_key);
    resp_int(o, c->key_step);
    reply_bits(o, categories_of(c), category_names);
    resp_set(o, 0);
    reply_key_specs(o, c);
    if (c->subs) resp_array(o, count_rows(c->subs));
    else resp_set(o, 0);
    for (const struct command *sub = c->subs; sub && sub->name; sub++) reply_info(o, sub, c);
}

typedef void reply_fn(struct resp_out *o, const struct command *c, const struct command *container);

/* Replies for the rows that are named from argv[2] on, or for all. Returns how many. */
static size_t reply_rows(struct cx *cx, reply_fn *reply, bool null_if_unknown) {
    size_t n = 0;
    for (const struct command *c = command_table; cx->argc <= 2 && c->name; c++, n++) reply(cx->out, c, NULL);
    for (int i = 2; i < cx->argc; i++) {
        const struct command *container, *c = find_full(&cx->argv[i], &container);
        if (c) reply(cx->out, c, container);
        else if (null_if_unknown) resp_null(cx->out);
        n += c || null_if_unknown;
    }
    return n;
}

void cmd_command_info(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    resp_later_array(cx->out, mark, reply_rows(cx, reply_info, true));
}

void cmd_command_count(struct cx *cx) { resp_int(cx->out, (int64_t)count_rows(command_table)); }

/* ==== COMMAND DOCS ========================================================================================== */

/* WHOLE: what may come several times is all of a group, so its token too. */
enum { OPTIONAL = 1, MULTIPLE = 2, MULTIPLE_TOKEN = 4, TOLD = 7, WHOLE = 8 };
static const char *const argument_flags[] = {"optional", "multiple", "multiple_token"};

struct docs {
    struct resp_out *out;
    const struct command *cmd;
    int keys; /* met so far */
};

/* The type of an argument of this name. */
static const char *type_of(const char *name) {
    static const char *const types[][2] = {
        {"key", " key newkey source destination destkey key1 key2 "},
        {"integer",
         " bit client-id count cursor db decrement destination-db end frequency increment index index1 index2 "
         "len milliseconds offset protover seconds start ttl "},
        {"unix-time", " unix-time-seconds unix-time-milliseconds "},
        {"pattern", " pattern "},
    };
    char padded[72];
    snprintf(padded, sizeof padded, " %s ", name);
    for (size_t i = 0; i < COUNT(types); i++)
        if (strstr(types[i][1], padded)) return types[i][0];
    return "string";
}

/* The words of a piece of syntax in lower case: "a [B | c]" is a_b_c. */
static void name_of(const char *p, const char *end, char name[64]) {
    size_t n = 0;
    for (; p < end && n < 63; p++) {
        bool word = isalnum((unsigned char)*p) || *p == '-';
        if (word) name[n++] = (char)tolower((unsigned char)*p);
        else if (n && name[n - 1] != '_') name[n++] = '_';
    }
    while (n && name[n - 1] == '_') n--;
    name[n] = 0;
}

/* The end of the part that begins at p: the next separator outside all brackets. */
static const char *part_end(const char *p, const char *end, char separator) {
    for (int depth = 0; p < end && (depth || *p != separator); p++)
        depth += (*p == '[' || *p == '<') - (*p == ']' || *p == '>');
    return p;
}

static void reply_parts(struct docs *d, const char *p, const char *end, char separator);

/* One argument: the syntax from p to end. token: the word in front of it, NULL: none. */
static void reply_argument(struct docs *d, const char *p, const char *end, uint32_t flags, const char *token) {
    while (*p == ' ') p++;
    while (end[-1] == ' ') end--;
    char separator = part_end(p, end, '|') < end ? '|' : part_end(p, end, ' ') < end ? ' ' : 0, name[64];
    if (!separator && end - p > 3 && !memcmp(end - 3, "...", 3)) {
        flags |= MULTIPLE;
        end -= 3;
    }
    if (!separator && (*p == '[' || *p == '<')) {
        flags |= (*p == '[' ? OPTIONAL : 0) | (flags & MULTIPLE ? WHOLE : 0);
        reply_argument(d, p + 1, end - 1, flags, token);
        return;
    }
    const char *values = part_end(p, end, ' ');
    if (separator != '|' && isupper((unsigned char)*p)) {
        if (flags & WHOLE) flags |= MULTIPLE_TOKEN;
        token = p;
        if (values < end) {
            reply_argument(d, values, end, flags & TOLD, token);
            return;
        }
    }
    name_of(p, end, name);
    const char *type = separator == '|' ? "oneof" : separator ? "block" : token == p ? "pure-token" : type_of(name);
    bool key = !strcmp(type, "key");
    resp_map(d->out, 2u + key + (token != NULL) + ((flags & TOLD) != 0) + (separator != 0));
    pair(d->out, "name", name);
    pair(d->out, "type", type);
    if (key) pair_int(d->out, "key_spec_index", d->keys++ && d->cmd->key_use[1]);
    if (token) {
        resp_bulk_str(d->out, "token");
        resp_bulk(d->out, token, strcspn(token, " |]>."));
    }
    if (flags & TOLD) {
        resp_bulk_str(d->out, "flags");
        reply_bits(d->out, flags & TOLD, argument_flags);
    }
    if (separator) {
        resp_bulk_str(d->out, "arguments");
        reply_parts(d, p, end, separator);
    }
}

static void reply_parts(struct docs *d, const char *p, const char *end, char separator) {
    size_t n = 0;
    for (const char *q = p; q < end; q = part_end(q, end, separator) + 1) n++;
    resp_array(d->out, n);
    for (const char *q; p < end; p = q + 1) {
        q = part_end(p, end, separator);
        reply_argument(d, p, q, 0, NULL);
    }
}

static void reply_docs(struct resp_out *o, const struct command *c, const struct command *container) {
    struct docs d = {.out = o, .cmd = c};
    reply_name(o, c, container);
    resp_map(o, 3u + (*c->syntax != 0) + (c->subs != NULL));
    pair(o, "summary", c->summary);
    pair(o, "since", c->since);
    pair(o, "group", c->group);
    if (*c->syntax) {
        resp_bulk_str(o, "arguments");
        reply_parts(&d, c->syntax, c->syntax + strlen(c->syntax), ' ');
    }
    if (!c->subs) return;
    resp_bulk_str(o, "subcommands");
    resp_map(o, count_rows(c->subs));
    for (const struct command *sub = c->subs; sub->name; sub++) reply_docs(o, sub, c);
}

void cmd_command_docs(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    resp_later_map(cx->out, mark, reply_rows(cx, reply_docs, false));
}

/* ==== COMMAND LIST and GETKEYS ============================================================================== */

/* Does COMMAND LIST's filter let this command through? */
static bool is_listed(struct cx *cx, const struct command *c, const struct command *container) {
    if (cx->argc == 2) return true;
    const struct arg *kind = &cx->argv[3], *value = &cx->argv[4];
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", container ? container->name : "", container ? "|" : "", c->name);
    if (resp_arg_is(kind, "pattern")) return glob_match(value->p, value->n, name, strlen(name), true);
    for (size_t i = 0; resp_arg_is(kind, "aclcat") && i < COUNT(category_names); i++)
        if (resp_arg_is(value, category_names[i] + 1)) return categories_of(c) >> i & 1;
    return false;
}

static size_t list_rows(struct cx *cx, const struct command *rows, const struct command *container) {
    size_t n = 0;
    for (const struct command *c = rows; c && c->name; c++) {
        bool listed = is_listed(cx, c, container);
        if (listed) reply_name(cx->out, c, container);
        n += listed + list_rows(cx, c->subs, c);
    }
    return n;
}

void cmd_command_list(struct cx *cx) {
    const struct arg *a = cx->argv;
    bool filter = cx->argc == 5 && resp_arg_is(&a[2], "filterby") &&
                  (resp_arg_is(&a[3], "module") || resp_arg_is(&a[3], "aclcat") || resp_arg_is(&a[3], "pattern"));
    if (cx->argc != 2 && !filter) {
        cx_syntax_error(cx);
        return;
    }
    size_t mark = resp_later(cx->out);
    resp_later_array(cx->out, mark, list_rows(cx, command_table, NULL));
}

/* What is done to a command's n-th key; with SET and BITFIELD that depends on their options. */
static uint32_t use_of_key(const struct command *c, const struct arg *argv, int argc, int n) {
    int i = c->fn == cmd_set ? 3 : 2;
    if (c->fn == cmd_set) {
        while (i < argc && !resp_arg_is(&argv[i], "get")) i++;
        return i < argc ? ALTER : PUT;
    }
    if (c->fn != cmd_bitfield) return c->key_use[n > 0 && c->key_use[1]];
    for (int words = 1; words && i < argc; i += words)
        words = resp_arg_is(&argv[i], "get") ? 3 : resp_arg_is(&argv[i], "overflow") ? 2 : 0;
    return i == argc ? READ : ALTER;
}

/* The command in question is argv[2] with all that follows. */
static void get_keys(struct cx *cx, bool with_flags) {
    const struct arg *argv = cx->argv + 2;
    int argc = cx->argc - 2;
    const struct command *c = command_find(argv);
    const char *error = NULL;
    if (c && c->subs) c = command_find_sub(c, &argv[1]);
    if (!c) error = "ERR Invalid command specified";
    else if (!c->first_key || c->key_use[0] == NOT_KEY) error = "ERR The command has no key arguments";
    else if (c->arity > 0 ? argc != c->arity : argc < -c->arity)
        error = "ERR Invalid number of arguments specified for command";
    if (error) {
        resp_error(cx->out, error);
        return;
    }
    int last = c->last_key < 0 ? argc + c->last_key : c->last_key, keys = (last - c->first_key) / c->key_step + 1;
    resp_array(cx->out, (size_t)keys);
    for (int i = 0; i < keys; i++) {
        const struct arg *key = &argv[c->first_key + i * c->key_step];
        if (with_flags) resp_array(cx->out, 2);
        resp_bulk(cx->out, key->p, key->n);
        if (with_flags) reply_bits(cx->out, use_of_key(c, argv, argc, i), use_names);
    }
}

void cmd_command_getkeys(struct cx *cx) { get_keys(cx, false); }
void cmd_command_getkeysandflags(struct cx *cx) { get_keys(cx, true); }
