/* echovault.h - what a command sees: its context, its row in the table, its client.
 *
 * A command is one row in table.h and one function in a file of its family. The function reads its arguments, calls the
 * store, writes one reply, and says what to log where its own words would not do; dispatch (echovault.c) draws the
 * other consequences: logging, replication, statistics.
 */
#ifndef ECHOVAULT_H
#define ECHOVAULT_H

#include "repl.h"

#include <sys/queue.h>

#define ECHOVAULT_VERSION "1.0.0"
#define REDIS_VERSION     "7.0.15" /* whose behaviour is followed; clients parse it */

/* ---- the command table ----------------------------------------------------------------------- */

struct cx;
typedef void command_fn(struct cx *cx);

/* What a command is; dispatch decides from these alone. The names are those that COMMAND INFO answers. */
enum command_flag {
    CMD_WRITE = 1 << 0,    /* may change keys: refused on a read-only follower, logged */
    CMD_READONLY = 1 << 1, /* reads keys */
    CMD_DENYOOM = 1 << 2,  /* may need memory: refused above maxmemory */
    CMD_ADMIN = 1 << 3,
    CMD_PUBSUB = 1 << 4,
    CMD_NOSCRIPT = 1 << 5,
    CMD_BLOCKING = 1 << 6,
    CMD_LOADING = 1 << 7, /* answers while the data is being loaded */
    CMD_STALE = 1 << 8,   /* answers on a follower whose link is down and that serves no stale data */
    CMD_FAST = 1 << 9,
    CMD_NO_AUTH = 1 << 10,    /* answers before AUTH */
    CMD_NO_MULTI = 1 << 11,   /* refused inside MULTI */
    CMD_NO_MONITOR = 1 << 12, /* MONITOR does not show it; of Redis's commands EVAL's are so, none here */
    CMD_NO_SLOWLOG = 1 << 13,
    CMD_ALLOW_BUSY = 1 << 14,       /* this and the next: only for COMMAND INFO */
    CMD_NO_ASYNC_LOADING = 1 << 15, /* those above are the flags that it names */
    CMD_MAY_REPLICATE = 1 << 16,    /* changes no key, but followers may hear of it: held with the changes */
    CMD_IN_MULTI = 1 << 17,         /* runs at once inside MULTI: EXEC, DISCARD, WATCH, MULTI, QUIT, RESET */
    CMD_IN_RESP2_SUB = 1 << 18,     /* allowed to a RESP2 client that has subscriptions */
    CMD_DANGEROUS = 1 << 19,        /* this and the rest: only for ACL categories */
    CMD_ACL_KEYSPACE = 1 << 20,
    CMD_ACL_ADMIN = 1 << 21,
    CMD_ACL_CONNECTION = 1 << 22,
    CMD_CONTAINER = 1 << 23,    /* its subcommands' rows stand behind its own */
    CMD_COUNTED_KEYS = 1 << 24, /* argv[1] says how many there are, last_key does not */
    CMD_BRIEF = 1 << 25,        /* takes about as long whatever the data is (observe.c) */
};

#define LATENCY_BUCKETS 25 /* the last begins at 0.5 seconds */
struct command_stats {
    uint64_t calls, ns, rejected, failed;
    uint64_t latency[LATENCY_BUCKETS]; /* of the calls, by the time they took (observe.c) */
};

struct command {
    const char *group; /* string, bitmap, generic, connection, server, transactions, pubsub */
    const char *name;  /* lower case; "container|name": a subcommand */
    command_fn *fn;
    int arity; /* with the name; negative: at least so many */
    uint32_t flags;
    int16_t first_key, last_key, key_step; /* as COMMAND INFO gives them; 0: no keys */
    const char *since;                     /* the version of Redis that brought it */
    const char *syntax; /* its arguments as the documentation spells them, for COMMAND DOCS and HELP */
    const char *summary;
    struct command_stats *stats;
};

extern struct command command_table[];                /* the row that has no name ends it */
const struct command *command_find(struct arg *name); /* NULL: unknown; a new name gives way to the row's own */
const struct command *command_find_logged(const struct arg *name);           /* the same whatever rename-command says */
const char *command_rename(const struct arg *name, const struct arg *alias); /* "": none. NULL, or why it is refused */
const struct command *command_find_sub(const struct command *c, const struct arg *sub); /* NULL: unknown */
const struct command *command_named(const struct arg *name); /* a subcommand, too, "client|id"; NULL: unknown; slow */
const char *command_title(const struct command *c);          /* its own name in capitals; good until the next call */
int command_subs(const struct command *c);                   /* how many rows behind its own are its subcommands */

/* ---- the context of one command -------------------------------------------------------------- */

struct cx {
    struct client *client;     /* who asks; NULL in replay */
    const struct command *cmd; /* the row (a container's subcommand's own) */
    struct arg *argv;          /* with the command's name */
    int argc;
    struct db *db;          /* the client's selected database */
    struct resp_out *out;   /* where the reply goes: exactly one */
    bool logged;            /* it has said itself what is to be logged */
    char num[RESP_INT_MAX]; /* digits for cx_log() */
};

/* Logs a change that was made, in a form of its own, where the command's words would not replay to the same state
 * (deadlines in relative time, ...). Without that, dispatch logs the words if there was a change (store_stats). */
void cx_log(struct cx *cx, int argc, const struct arg *argv);
struct arg cx_number(struct cx *cx, int64_t v); /* v as an argument for cx_log, which has but one */

/* Keyspace notifications. type: one of the letters of notify-keyspace-events ('g' generic, '$' string, 'x'
 * expired, 'e' evicted, 'n' new key). */
void cx_event(struct db *db, char type, const char *event, const struct arg *key);

/* Replies that many commands share. */
static inline bool cx_check(struct cx *cx, bool well, const char *error) { /* says the error unless all is well */
    if (!well) resp_error(cx->out, error);
    return well;
}
#define cx_checkf(cx, well, ...) ((well) || (resp_errorf((cx)->out, __VA_ARGS__), false)) /* with a format */
static inline bool cx_or_null(struct cx *cx, bool there) { /* says null unless there is something to be said */
    if (!there) resp_null(cx->out);
    return there;
}
static inline bool cx_arity(struct cx *cx, bool well) {
    return cx_checkf(cx, well, "ERR wrong number of arguments for '%s' command", cx->cmd->name);
}
static inline bool cx_same(struct arg a, struct arg b) { return a.n == b.n && !memcmp(a.p, b.p, a.n); }
bool cx_given(const struct cx *cx, const char *word);  /* is it among the arguments, upper or lower case (admin.c) */
bool cx_at_most(struct cx *cx, int argc);              /* a subcommand's arguments; false: the error is said */
bool cx_int(struct cx *cx, int i, int64_t *v);         /* argument i as an integer; false: the error is said */
bool cx_timeout(struct cx *cx, int i, int64_t *until); /* argument i, ms from now on; 0 stays 0 (clients.c) */
struct db *cx_database(struct cx *cx, int i);          /* argument i as a database's number; NULL: the error is said */
const char *cx_encoding(const struct entry *e);        /* how Redis would keep the value (keys.c) */
void cx_bulk_value(struct cx *cx, const struct entry *e); /* its value, a big one by reference; null: e is NULL */

/* Options: words (lower case, a space between them), in any order; behind some of them stands a value. */
struct cx_options {
    int words;                   /* which are there, by bit in the order of the words */
    int twice;                   /* which more than once: the last one counts */
    const struct arg *value[20]; /* by the word's bit; NULL or 0 where it is not there */
    int64_t number[20];
};
/* Reads them from argv[i] on. texts and numbers, which may not be below `least`: behind which of the words stands what.
 * False: the error is said. */
bool cx_options(struct cx *cx, int i, const char *words, int texts, int numbers, int64_t least, struct cx_options *o);

/* What commands share (strings.c). Look-ups and changes come with their statistics and events. */
struct entry *cx_read(struct cx *cx, struct arg *key); /* for reading: counts a hit or a miss */
struct entry *cx_peek(struct cx *cx, struct arg *key); /* the same for what is no use of the key */
struct entry *cx_set(struct cx *cx, struct arg *key, struct arg *val, int64_t deadline); /* store_set(), "new" */
char *cx_edit(struct cx *cx, struct arg *key, size_t n); /* store_edit() of a raw value, "new" */
void cx_delete(struct cx *cx);                           /* argv[1], "del"; logged as DEL */
/* Whether there is memory for n bytes, as the value of e unless that is NULL; false: the error is said. */
bool cx_memory(struct cx *cx, const struct entry *e, size_t n);
bool cx_range(int64_t n, int64_t *first, int64_t *last); /* negative ones count from n, the end; false: it is empty */
int64_t cx_max_string(const struct cx *cx); /* bytes that a value may come to; the log may always have the most */

/* Deadlines (keys.c). */
/* argv[i], at least `least`, in absolute ms; false: "invalid expire time in '...' command" or the like is said. */
bool cx_deadline(struct cx *cx, int i, int64_t least, bool seconds, bool absolute, int64_t *deadline);
bool cx_expire(struct cx *cx, int64_t deadline);       /* sets argv[1]'s; false: it has passed, the key is deleted */
bool cx_persist(struct cx *cx, const struct entry *e); /* takes away argv[1]'s, "persist"; false: there is none */

bool glob_match(const char *pattern, size_t plen, const char *s, size_t slen, bool nocase); /* keys.c: ? * [^a-z] \x */

/* ---- clients --------------------------------------------------------------------------------- */

enum client_flag {
    CLIENT_CLOSING = 1 << 0,     /* final: nothing more is read or run; freed by the reaper */
    CLIENT_CLOSE_AFTER = 1 << 1, /* nothing more is read or run; closed when its output has gone out */
    CLIENT_MULTI = 1 << 2,       /* between MULTI and EXEC */
    CLIENT_MULTI_BAD = 1 << 3,   /* a command could not be queued: EXEC will refuse */
    CLIENT_AUTHED = 1 << 4,
    CLIENT_REPLY_OFF = 1 << 5,
    CLIENT_LOCAL = 1 << 6, /* comes from this machine: over a Unix socket or loopback */
    CLIENT_NO_EVICT = 1 << 8,
    CLIENT_NO_TOUCH = 1 << 9,
    CLIENT_WANT_WRITE = 1 << 10, /* EPOLLOUT is armed */
    CLIENT_BLOCKED = 1 << 11,    /* nothing more is read or run until something happens */
    CLIENT_TOUCHED = 1 << 12,    /* stands in the list of those to be written to at the end of the turn */
    CLIENT_UNIX = 1 << 13,
    CLIENT_MONITOR = 1 << 14,
    CLIENT_LEADER = 1 << 15,   /* the link to our leader */
    CLIENT_FOLLOWER = 1 << 16, /* a follower's link */
    CLIENT_UNREAD = 1 << 17,   /* an event told of what still is in the socket */
    CLIENT_AGAIN = 1 << 18,    /* has input that goes on in the next turn without a read */
    CLIENT_HELD = 1 << 19,     /* its replies wait for the disk, and it is blocked */
};

/* A connection. An idle one costs this struct and nothing else.
 * Invariants: in == NULL unless a command is cut off or input waits; own == NULL unless output waits, and then there is
 * no part of the turn's; CLOSING is final; freed only by the reaper, after the turn. */
struct client {
    int fd, db;
    uint64_t id;
    uint32_t flags;
    struct input *in;            /* bytes of a cut-off command */
    struct resp_out *own;        /* output that could not go out at once */
    size_t turn_start, turn_end; /* its part of the turn's shared output */
    struct transaction *tx;      /* queued commands and watched keys; NULL: none */
    struct subscriptions *subs;  /* channels and patterns; NULL: none */
    const struct command *last_cmd;
    char *name; /* NULL: none */
    char *lib_name, *lib_ver;
    uint64_t last_write;       /* the log's end behind its last change: what WAIT and WAITAOF wait for ... */
    int64_t wait_until;        /* ... until then, ms since 1970, or how it is to end now; 0: it does not wait */
    struct queued *postponed;  /* the command that waits until clients are no longer paused; NULL: none */
    uint64_t hold;             /* its replies wait until the log is safe up to here */
    struct follower *follower; /* NULL: it is none */
    size_t counted;            /* of its memory, what maxmemory-clients has it for */
    uint32_t created, active;  /* seconds of a clock that never jumps */
    uint32_t over_soft_since;  /* when its output passed the soft limit; 0: it is below */
    uint8_t proto, skip;       /* 2 or 3; the replies to drop, by bit: this command's, the next one's */
    bool wait_local, wait_aof; /* for our own disk; for disks, not for memory */
    int64_t wait_followers;    /* for so many */
};
enum { WAIT_OVER = 1, WAIT_FAILED = 2 }; /* wait_until, when CLIENT UNBLOCK has ended it: as TIMEOUT, as ERROR */

struct client *client_next(struct client *after);  /* NULL: the first; all that are not closing, by descriptor */
void client_close(struct client *c);               /* marks only */
struct client *client_new(int fd, uint32_t flags); /* NULL: it cannot be watched, and is closed */
void client_touch(struct client *c);               /* it has something to be sent at the end of the turn */
int client_silence(const struct client *c);        /* seconds since it last sent or took something */
void client_close_after_reply(struct client *c);
/* More was written than may wait for c: it is closed, or what it gets is dropped; the rest need not be made. */
bool client_drowns(struct client *c);
static inline bool client_is_silent(const struct client *c) { return c->flags & CLIENT_REPLY_OFF || c->skip & 1; }
void client_reset(struct client *c);              /* RESET: as just connected */
struct resp_out *client_output(struct client *c); /* for what c did not ask for at this moment (push messages) */
struct address {
    char text[64]; /* "ip:port", "[ip]:port", or of a Unix socket its path and ":0" */
};
struct address client_address(const struct client *c, bool ours); /* of the other end of its connection, or of ours */
static inline struct address client_peer(const struct client *c) { return client_address(c, false); }
size_t client_count(void);
int client_class(const struct client *c);       /* 0 normal, 1 replica, 2 pubsub, 3 master */
int client_class_named(const struct arg *name); /* -1: there is none (config.c) */
/* Whether it can stand in lists as a word; false: the error is said, what names what may not look so (admin.c). */
bool cx_plain(struct cx *cx, const struct arg *name, const char *what);
/* Keeps a name that a client gives itself. False: the error is said. */
bool client_keep_name(struct cx *cx, char **field, const struct arg *name, const char *what);
/* Its bytes; those of input, of room for input and of what is queued beside, unless NULL. */
size_t client_memory(const struct client *c, size_t *query, size_t *query_free, size_t *multi);
void client_count_memory(struct client *c); /* notes what it has become, where clients' memory has a limit */
void clients_evict(void);                   /* keeps maxmemory-clients */
void client_describe(struct resp_out *o, const struct cx *cx, const struct client *c); /* its line of CLIENT LIST */

/* Pausing (clients.c): until a time, or the end is said, nothing of ordinary clients is run, or no changes, as during a
 * failover. Nothing expires meanwhile. */
enum pause { PAUSE_NONE, PAUSE_WRITES, PAUSE_ALL };
enum pause client_paused(void);

/* A command that is kept for later. */
struct queued {
    TAILQ_ENTRY(queued) link; /* among those that wait for a pause's end */
    struct client *client;
    const struct command *cmd;
    size_t bytes;
    int argc;
    struct arg argv[]; /* the arguments' bytes stand behind it; blobs are held */
};
struct queued *queued_new(struct cx *cx); /* the arguments' slices are copied, its blobs change owner */
void queued_free(struct queued *q);

/* Dispatch's part of what transactions.c does, and the other way round. */
bool cx_resolve(struct cx *cx);        /* finds a subcommand's row, counts the arguments; false: the error is said */
void cx_call(struct cx *cx);           /* runs the command and draws the consequences */
bool cx_may_write(struct cx *cx);      /* false: changes are refused now, the error is said */
void transaction_queue(struct cx *cx); /* keeps the command for EXEC; replies */
void transaction_abort(struct cx *cx, size_t len); /* an EXEC was refused, in the output from len on */
void transaction_free(struct client *c);           /* nothing queued, nothing watched */
size_t transaction_memory(const struct client *c); /* of what is queued, and of what is postponed */
uint32_t transaction_flags(const struct cx *cx);   /* the command's; EXEC's with those of all queued */
bool transaction_stale(const struct client *c);    /* a watched key has changed */
int client_multi_count(const struct client *c);    /* commands queued; -1: not in MULTI */

/* Subscriptions (pubsub.c). */
enum pubsub_kind { PUBSUB_CHANNEL, PUBSUB_PATTERN, PUBSUB_SHARD, PUBSUB_KINDS };
size_t pubsub_count(const struct client *c, enum pubsub_kind kind); /* how many c has; NULL: that anybody has */
size_t pubsub_memory(const struct client *c);                       /* bytes that its subscriptions cost */
void pubsub_forget(struct client *c);                               /* ends all that c has, without a word */

/* The rest of a line of INFO's whose field has such a number. */
#define U64 "%" PRIu64 "\r\n"
#define I64 "%" PRId64 "\r\n"

/* ---- replication (replication.c) -------------------------------------------------------------- */

void replication_start(void); /* follows, where --replicaof says so */
/* Once a turn: the link and the followers. idle: no client had anything. True: a follower is sent something in the
 * next. */
bool replication_turn(bool idle);
void replication_cron(void);               /* ten times a second */
void replication_farewell(void);           /* the log is complete: the end */
void replication_run(struct cx *cx);       /* a command of the leader's */
void replication_refuse(const char *why);  /* what the leader sends is no stream */
void replication_gone(struct client *c);   /* c is about to be freed */
void replication_promote(void);            /* from follower to leader */
bool replication_enough(void);             /* min-replicas-to-write is met */
bool replication_failing_over(void);       /* FAILOVER is under way */
void replication_getack(void);             /* somebody waits for followers */
bool replication_link_up(void);            /* the leader's stream comes */
void info_replication(struct resp_out *o); /* for INFO */
/* ---- looking at what runs (observe.c) -------------------------------------------------------- */

enum observed { EVENT_COMMAND, EVENT_FAST, EVENT_EXPIRE, EVENT_EVICT, EVENT_SNAPSHOT, EVENT_WRITE, EVENTS };
extern bool observe_all; /* brief commands are looked at as well */
static inline int64_t observe_clock(void) { return store_clock_ns(CLOCK_MONOTONIC); } /* ns */
int64_t observe_look(const struct cx *cx, int64_t began);                 /* it has run; returns how long it took, ns */
int64_t observe_event(enum observed event, int64_t began);                /* it is over; returns the clock */
void observe_share(const struct command *const *rows, int n, int64_t ns); /* among brief commands that ran */
void observe_monitored(const struct cx *cx);                              /* MONITOR shows it */
void observe_forget(struct client *c);                                    /* ends its MONITOR */
void observe_latencystats(struct resp_out *o);                            /* INFO's section */

/* ---- the server's own facts and the clock ---------------------------------------------------- */

struct server_stats {
    uint64_t commands, connections, rejected, evicted_clients, net_in, net_out, reads, writes, errors;
    uint64_t hits, misses; /* counted by the read commands' look-ups */
    int64_t started_ms, peak_memory;
};
extern struct server_stats server_stats;
void server_set_expiry(void); /* what the clock means, after a change of that in the middle of a turn */
struct memory {               /* bytes: by the data, of that by tables; of the process; for connections, beside used */
    int64_t used, peak, tables, rss, clients, followers;
} server_memory(void);
void server_sample(void);                  /* ten times a second: what INFO tells rates and peaks from */
void server_count_error(const char *text); /* an error reply, as resp_out.last_error has it */
void server_watch(int fd);                 /* for input, by the reactor */
void listen_all(void);                     /* listens as the options say, or ends the server (listen.c) */
void listen_unix(void);                    /* the same for --unixsocket */
void listen_accept(int listener);          /* takes who waits there */
void sandbox_user(void);                   /* root becomes --user, or the server ends (sandbox.c) */
void sandbox_calls(void);                  /* --seccomp: from now on, and in threads made from now on */

void server_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The server cannot go on: one line that says why and what to do. */
#define die(...) (server_log(LOG_WARNING, __VA_ARGS__), exit(1))

/* ---- options (config.c) ---------------------------------------------------------------------- */

/* Every option's value that the code reads, by field. Filled by config.c's table from the command line, the
 * file and CONFIG SET. */
struct config {
    int port;
    char *bind; /* addresses, separated by spaces; "-" in front: may be missing */
    char *unixsocket;
    int unixsocketperm;
    char *dir, *logfile, *pidfile, *file; /* file: the path of the one that was read, NULL: none */
    int loglevel;                         /* enum log_level */
    bool daemonize, io_uring, seccomp;
    char *user; /* empty: as it was started */
    enum { SUPERVISED_NO, SUPERVISED_SYSTEMD, SUPERVISED_AUTO } supervised;
    int databases, maxclients, timeout, tcp_keepalive, tcp_backlog;
    char *requirepass;
    int64_t proto_max_bulk_len, client_query_buffer_limit;
    int64_t output_hard[3], output_soft[3]; /* client-output-buffer-limit: normal, replica, pubsub; bytes, 0: none */
    int output_seconds[3];
    char *output_limits; /* the same as text */
    bool protected_mode;
    int64_t maxmemory;
    int64_t maxmemory_clients; /* bytes; negative: percent of maxmemory; 0: no limit */
    char *maxmemory_clients_text;
    int maxmemory_policy; /* enum store_policy */
    char *notify_keyspace_events;
    char event_letters[16];                                          /* the same with A spelled out */
    int64_t slowlog_slower_than, slowlog_max_len, latency_threshold; /* us, entries, ms */
    bool latency_tracking;
    char *latency_percentiles;
    /* persistence */
    struct persist_options persist;
    char *save; /* "seconds changes ..." */
    bool stop_writes_on_bgsave_error;
    /* replication */
    char *replicaof; /* "host port", empty: none */
    struct repl_options repl;
    bool replica_read_only, replica_serve_stale_data, replica_announced;
    int repl_ping_period, replica_priority, min_replicas_to_write, min_replicas_max_lag; /* seconds, but for counts */
    enum { DEBUG_NO, DEBUG_YES, DEBUG_LOCAL } enable_debug_command;
};
extern struct config config;
const char *config_text(const char *option); /* as CONFIG GET answers it; good until the next call */

/* Reads argv (an optional file first, then --name value ...). Exits with one line that names what is wrong. */
void config_load(int argc, char **argv);

#endif
