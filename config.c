/* config.c - the options: one table behind the command line, the file, CONFIG GET and SET, and --help.
 *
 * A value is set from words and printed as text by its row's type alone, so that every option can be read, set, set
 * back and written down in the same way. A row's check() is for what a type cannot say: it takes the words, may refuse
 * them, and gives the text that is kept.
 *
 * The file is a redis.conf. Beside the options that are in use here the table has those that must not be lost in
 * silence: they are fixed, and another value is refused. Options of Redis that have nothing to act on here are accepted
 * with a notice, so that an existing file starts the server. In every name "slave" may be written for "replica".
 *
 * Left out: values of options without effect are not kept, so CONFIG GET does not answer them.
 */
#include "commands.h"

#include <assert.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define TEXT_MAX  2048 /* of an option's text, or of an error about one */
#define WORDS_MAX 128  /* in one line of the file */

struct config config;

/* ==== the table ================================================================================================ */

enum type { T_BOOL, T_INT, T_OCTAL, T_LONG, T_MEMORY, T_ENUM, T_STRING, T_WORDS, T_FIXED };
enum { IMMUTABLE = 1, PROTECTED = 2, CLAMP = 4 };

/* Looks at an option's words and writes what is to be kept; returns NULL, or why they are refused. */
typedef const char *check_fn(char **words, int n, char out[TEXT_MAX]);

struct option {
    const char *name;
    enum type type;
    void *field;
    int64_t min, max;           /* of a number; T_ENUM: the choice that an error text names first */
    const char *const *choices; /* T_ENUM: the names of the values from 0 on */
    check_fn *check;
    const char *def;
    int64_t flags;
    const char *help; /* T_FIXED: why another value is refused */
};

#define BOOL(field)                 T_BOOL, &config.field, 0, 0, NULL, NULL
#define INT(field, min, max)        T_INT, &config.field, min, max, NULL, NULL
#define OCTAL(field)                T_OCTAL, &config.field, 0, 0777, NULL, NULL
#define LONG(field, min)            T_LONG, &config.field, min, INT64_MAX, NULL, NULL
#define MEMORY(field, min)          T_MEMORY, &config.field, min, INT64_MAX, NULL, NULL
#define ENUM(field, first, choices) T_ENUM, &config.field, first, 0, choices, NULL
#define STRING(field, check)        T_STRING, &config.field, 0, 0, NULL, check
#define WORDS(field, check)         T_WORDS, &config.field, 0, 0, NULL, check
#define FIXED(value, why)           T_FIXED, NULL, 0, 0, NULL, NULL, value, IMMUTABLE, why

static const char *const log_levels[] = {"debug", "verbose", "notice", "warning", NULL};
static const char *const policies[] = {"volatile-lru",   "volatile-lfu", "volatile-random",
                                       "volatile-ttl",   "allkeys-lru",  "allkeys-lfu",
                                       "allkeys-random", "noeviction",   NULL};
static const char *const fsyncs[] = {"no", "everysec", "always", NULL};
static const char *const supervisors[] = {"no", "upstart", "systemd", "auto", NULL};
static const char *const permits[] = {"no", "yes", "local", NULL};

static char *output_limits; /* client-output-buffer-limit */
static check_fn join, check_dir, check_filename, check_save, check_output_limits, check_events, check_replicaof;

static const struct option options[] = {
    {"port", INT(port, 0, 65535), "6379", IMMUTABLE, "TCP port; 0: none"},
    {"bind", WORDS(bind, join), "127.0.0.1 -::1", IMMUTABLE, "addresses to listen on; one after a - may be missing"},
    {"unixsocket", STRING(unixsocket, join), "", IMMUTABLE, "path of a Unix socket to listen on as well"},
    {"unixsocketperm", OCTAL(unixsocketperm), "0", IMMUTABLE, "its mode, in octal; 0: as the umask says"},
    {"protected-mode", BOOL(protected_mode), "yes", 0, "without a password, answer only who comes over loopback"},
    {"tcp-backlog", INT(tcp_backlog, 0, INT_MAX), "511", IMMUTABLE, "connections that may wait to be accepted"},
    {"tcp-keepalive", INT(tcp_keepalive, 0, INT_MAX), "300", 0, "seconds between probes of a silent client; 0: none"},
    {"timeout", INT(timeout, 0, INT_MAX), "0", 0, "close a client that is idle for so many seconds; 0: never"},
    {"maxclients", INT(maxclients, 1, UINT32_MAX), "10000", 0, "connections at once"},
    {"requirepass", STRING(requirepass, join), "", 0, "the password that clients have to show"},
    {"client-query-buffer-limit", MEMORY(client_query_buffer_limit, 1 << 20), "1gb", 0, "input that may wait"},
    {"client-output-buffer-limit", T_WORDS, &output_limits, 0, 0, NULL, check_output_limits,
     "normal 1gb 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60", 0,
     "by class of client: output that may wait at most, and for so many seconds at most"},
    {"proto-max-bulk-len", MEMORY(proto_max_bulk_len, 1 << 20), "512mb", 0, "length of one argument or value"},
    {"databases", INT(databases, 1, INT_MAX), "16", IMMUTABLE, "number of databases for SELECT"},
    {"maxmemory", MEMORY(maxmemory, 0), "0", 0, "memory for the data; 0: no limit"},
    {"maxmemory-policy", ENUM(maxmemory_policy, 0, policies), "noeviction", 0, "what is evicted when it is used up"},
    {"notify-keyspace-events", STRING(notify_keyspace_events, check_events), "", 0, "the events to publish, by letter"},
    {"dir", STRING(dir, check_dir), ".", PROTECTED, "folder of the data files"},
    {"dbfilename", STRING(dbfilename, check_filename), "", PROTECTED, "the snapshot's name, or database_<port>.rdb"},
    {"save", WORDS(save, check_save), "300 1", 0,
     "make a snapshot after so many seconds when there were so many changes; may be repeated; empty: never"},
    {"stop-writes-on-bgsave-error", BOOL(stop_writes_on_bgsave_error), "yes", 0, "refuse changes after a failed one"},
    {"appendonly", BOOL(appendonly), "yes", 0, "keep the log of all changes on disk"},
    {"appendfilename", STRING(appendfilename, check_filename), "", IMMUTABLE, "its name, or database_<port>.aof"},
    {"appendfsync", ENUM(appendfsync, 1, fsyncs), "everysec", 0, "when what was logged must have reached the disk"},
    {"aof-load-truncated", BOOL(aof_load_truncated), "yes", 0, "start from a log whose last command is cut off"},
    {"auto-aof-rewrite-percentage", INT(auto_aof_rewrite_percentage, 0, INT_MAX), "100", 0,
     "shorten the log when it has grown by so much; 0: never"},
    {"auto-aof-rewrite-min-size", MEMORY(auto_aof_rewrite_min_size, 0), "64mb", 0, "but not while it is smaller"},
    {"replicaof", WORDS(replicaof, check_replicaof), "", IMMUTABLE, "host and port of the leader to follow"},
    {"masterauth", STRING(masterauth, join), "", 0, "the leader's password"},
    {"masteruser", STRING(masteruser, join), "", 0, "the user to show it for"},
    {"replica-read-only", BOOL(replica_read_only), "yes", 0, "as a follower, refuse clients' changes"},
    {"replica-serve-stale-data", BOOL(replica_serve_stale_data), "yes", 0, "as a follower, answer without a link, too"},
    {"replica-priority", INT(replica_priority, 0, INT_MAX), "100", 0, "the lowest is promoted first; 0: never"},
    {"replica-announced", BOOL(replica_announced), "yes", 0, "let Sentinel know of this follower"},
    {"replica-announce-ip", STRING(replica_announce_ip, join), "", 0, "address to tell the leader"},
    {"replica-announce-port", INT(replica_announce_port, 0, 65535), "0", 0, "port to tell the leader"},
    {"repl-backlog-size", MEMORY(repl_backlog_size, 16 << 10), "16mb", CLAMP, "log to keep for followers that return"},
    {"repl-timeout", INT(repl_timeout, 1, INT_MAX), "60", 0, "seconds of silence that end a link"},
    {"repl-ping-replica-period", INT(repl_ping_replica_period, 1, INT_MAX), "10", 0,
     "seconds between a leader's PINGs"},
    {"min-replicas-to-write", INT(min_replicas_to_write, 0, INT_MAX), "0", 0, "refuse changes with fewer followers"},
    {"min-replicas-max-lag", INT(min_replicas_max_lag, 0, INT_MAX), "10", 0, "whose last word is so many seconds old"},
    {"slowlog-log-slower-than", LONG(slowlog_log_slower_than, -1), "10000", 0, "microseconds; -1: none"},
    {"slowlog-max-len", LONG(slowlog_max_len, 0), "128", 0, "slow commands to remember"},
    {"latency-monitor-threshold", LONG(latency_monitor_threshold, 0), "0", 0, "milliseconds; 0: off"},
    {"hz", INT(hz, 1, 500), "10", CLAMP, "rounds of upkeep a second"},
    {"loglevel", ENUM(loglevel, 0, log_levels), "notice", 0, "what is worth a line"},
    {"logfile", STRING(logfile, join), "", IMMUTABLE, "where the lines go; empty: standard output"},
    {"daemonize", BOOL(daemonize), "no", IMMUTABLE, "go into the background"},
    {"supervised", ENUM(supervised, 1, supervisors), "no", IMMUTABLE, "whom to tell when the server is ready"},
    {"pidfile", STRING(pidfile, join), "", IMMUTABLE, "file for the process id"},
    {"enable-debug-command", ENUM(enable_debug_command, 0, permits), "local", IMMUTABLE, "who may use DEBUG"},
    {"enable-protected-configs", ENUM(enable_protected_configs, 0, permits), "no", IMMUTABLE,
     "who may set dir, dbfilename"},
    {"cluster-enabled", FIXED("no", "there is no cluster mode: put a sharding proxy before several servers")},
    {"tls-port", FIXED("0", "there is no TLS: put a proxy that has it in front")},
    {"tls-replication", FIXED("no", "there is no TLS: put a proxy that has it in front")},
    {"aclfile", FIXED("", "there are no users: set requirepass")},
    {"user", FIXED("", "there are no users: set requirepass")},
    {"loadmodule", FIXED("", "there are no modules")},
    {"rename-command", FIXED("", "commands keep their names: set requirepass, and bind to addresses you trust")},
    {"shutdown-on-sigint", FIXED("default", "a signal ends the server in the default way: use SHUTDOWN")},
    {"shutdown-on-sigterm", FIXED("default", "a signal ends the server in the default way: use SHUTDOWN")},
};
#define OPTIONS (sizeof options / sizeof *options)

/* Options of Redis that have nothing to act on here. */
static const char ignored[] =
    " acl-pubsub-default acllog-max-len active-* activedefrag activerehashing always-show-logo aof-disable-auto-gc "
    "aof-rewrite-incremental-fsync aof-timestamp-enabled aof-use-rdb-preamble appenddirname bind-source-addr "
    "busy-reply-threshold cluster-* crash-* disable-thp dynamic-hz enable-module-command hash-max-* hll-sparse-* "
    "ignore-warnings io-threads* jemalloc-bg-thread latency-tracking* lazyfree-* lfu-* list-* lua-* maxmemory-clients "
    "maxmemory-eviction-tenacity maxmemory-samples no-appendfsync-on-rewrite oom-score-* proc-title-template "
    "propagation-error-behavior rdb-* rdbchecksum rdbcompression repl-backlog-ttl repl-disable-tcp-nodelay "
    "repl-diskless-* replica-ignore-* replica-lazy-flush sanitize-dump-payload set-max-* set-proc-title "
    "shutdown-timeout socket-mark-id stream-* syslog-* tls-* tracking-table-max-keys zset-max-* *_cpulist ";

/* Copies a name in lower case and with one word in place of another; false: that does not occur. */
static bool rename_word(char out[80], const char *name, const char *from, const char *to) {
    char lower[64];
    size_t n = strlen(name) < sizeof lower ? strlen(name) : 0;
    for (size_t i = 0; i < n; i++) lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 32 : name[i]);
    lower[n] = 0;
    const char *at = strstr(lower, from);
    if (at) snprintf(out, 80, "%.*s%s%s", (int)(at - lower), lower, to, at + strlen(from));
    else snprintf(out, 80, "%s", lower);
    return at;
}

/* NULL: no option that is in use here; *known: but it is an option of Redis. */
static const struct option *option_find(const char *given, bool *known) {
    char name[80];
    rename_word(name, given, "slave", "replica");
    *known = true;
    for (size_t i = 0; i < OPTIONS; i++)
        if (!strcmp(options[i].name, name)) return &options[i];
    *known = false;
    for (const char *p = ignored + 1; *p && !*known; p += strcspn(p, " ") + 1)
        *known = glob_match(p, strcspn(p, " "), name, strlen(name), false);
    return NULL;
}

/* ==== values =================================================================================================== */

static bool same(const char *a, const char *b) { return strcasecmp(a, b) == 0; }

static char *copy(const char *s, size_t n) {
    char *p = strndup(s, n);
    if (p) return p;
    fputs("echovault: out of memory\n", stderr);
    abort();
}

static char error_text[TEXT_MAX]; /* where it must be put together; good until the next one */

/* A number of bytes: digits and perhaps a unit, of 1000 or (with a b) of 1024. */
static bool read_memory(const char *s, int64_t *v) {
    size_t digits = strspn(s, "0123456789");
    if (!resp_read_int(s, digits, v)) return false;
    const char *unit = s + digits, *units = "kmg", *at = *unit ? strchr(units, *unit | 32) : NULL;
    int64_t step = at && unit[1] ? 1024 : 1000;
    if (*unit && !same(unit, "b") && (!at || (unit[1] && !same(unit + 1, "b")))) return false;
    for (long i = at ? at - units : -1; i >= 0; i--)
        if (__builtin_mul_overflow(*v, step, v)) return false;
    return true;
}

static const char *number_set(const struct option *o, const char *s) {
    int64_t v = 0;
    char *end = NULL;
    if (o->type == T_MEMORY) {
        if (!read_memory(s, &v)) return "argument must be a memory value";
    } else if (o->type == T_OCTAL) {
        v = strtol(s, &end, 8);
        if (!*s || *end) return "argument couldn't be parsed as an octal number";
    } else if (!resp_read_int(s, strlen(s), &v)) {
        return "argument couldn't be parsed into an integer";
    }
    if (o->flags & CLAMP && v >= 0) v = v < o->min ? o->min : v > o->max ? o->max : v;
    sprintf(error_text, "argument must be between %" PRId64 " and %" PRId64 " inclusive", o->min, o->max);
    if (v < o->min || v > o->max) return error_text;
    if (o->type >= T_LONG) *(int64_t *)o->field = v;
    else *(int *)o->field = v < INT_MAX ? (int)v : INT_MAX;
    return NULL;
}

static const char *choice_set(const struct option *o, const char *s) {
    int n = 0, len = sprintf(error_text, "argument(s) must be one of the following:");
    while (o->choices[n] && !same(o->choices[n], s)) n++;
    if (o->choices[n]) {
        *(int *)o->field = n;
        return NULL;
    }
    for (int i = 0; i < n; i++) len += sprintf(error_text + len, "%s %s", i ? "," : "", o->choices[(i + o->min) % n]);
    return error_text;
}

static const char *text_set(const struct option *o, char **words, int n) {
    char text[TEXT_MAX], kept[TEXT_MAX], *parts[TEXT_MAX / 2], *rest = NULL;
    const char *why = NULL;
    if (o->type == T_WORDS) { /* several words and one with spaces in it are the same */
        if ((why = join(words, n, text))) return why;
        words = parts;
        n = 0;
        for (char *p = strtok_r(text, " \t", &rest); p; p = strtok_r(NULL, " \t", &rest)) parts[n++] = p;
    }
    if ((why = o->check(words, n, kept))) return why;
    free(*(char **)o->field);
    *(char **)o->field = copy(kept, sizeof kept);
    return NULL;
}

/* Gives the option a new value; returns NULL, or why it keeps the old one. */
static const char *option_set(const struct option *o, char **words, int n) {
    if (o->type == T_FIXED) return n == 1 && *o->def && same(words[0], o->def) ? NULL : o->help;
    if (n != 1 && o->type != T_WORDS) return "wrong number of arguments";
    if (o->type == T_ENUM) return choice_set(o, words[0]);
    if (o->type >= T_STRING) return text_set(o, words, n);
    if (o->type != T_BOOL) return number_set(o, words[0]);
    if (!same(words[0], "yes") && !same(words[0], "no")) return "argument must be 'yes' or 'no'";
    *(bool *)o->field = same(words[0], "yes");
    return NULL;
}

/* The option's value as option_set() takes it; good until the next call, or as long as the value. */
static const char *option_text(const struct option *o) {
    static char number[RESP_INT_MAX];
    switch (o->type) {
    case T_BOOL: return *(bool *)o->field ? "yes" : "no";
    case T_ENUM: return o->choices[*(int *)o->field];
    case T_OCTAL: snprintf(number, sizeof number, "%o", *(unsigned *)o->field); return number;
    case T_INT: resp_write_int(number, *(int *)o->field); return number;
    case T_LONG:
    case T_MEMORY: resp_write_int(number, *(int64_t *)o->field); return number;
    case T_FIXED: return o->def;
    default: return *(char **)o->field;
    }
}

const char *config_text(const char *name) {
    bool known;
    const struct option *o = option_find(name, &known);
    assert(o);
    return option_text(o);
}

static struct persist_options persist;

const struct persist_options *config_persist(void) { return &persist; }

static void persist_update(void) {
    persist = (struct persist_options){.rdb_path = config.dbfilename,
                                       .aof_path = config.appendfilename,
                                       .log_on = config.appendonly,
                                       .fsync = (enum log_fsync)config.appendfsync,
                                       .truncate_tail = config.aof_load_truncated,
                                       .backlog = config.repl_backlog_size,
                                       .rewrite_percentage = config.auto_aof_rewrite_percentage,
                                       .rewrite_min = config.auto_aof_rewrite_min_size};
}

/* ==== checks =================================================================================================== */

static bool loading;    /* the words come from the command line or a file */
static bool save_given; /* the first save there replaces the default, others add to it */

static const char *join(char **words, int n, char out[TEXT_MAX]) {
    size_t len = 0;
    *out = 0;
    for (int i = 0; i < n && len < TEXT_MAX; i++)
        len += (size_t)snprintf(out + len, TEXT_MAX - len, "%s%s", i ? " " : "", words[i]);
    return len < TEXT_MAX ? NULL : "argument is too long";
}

static const char *check_dir(char **words, int n, char out[TEXT_MAX]) {
    (void)n;
    if (!chdir(words[0]) && getcwd(out, TEXT_MAX)) return NULL;
    return strerror(errno);
}

static const char *check_filename(char **words, int n, char out[TEXT_MAX]) {
    return strchr(words[0], '/') ? "argument can't be a path, just a filename" : join(words, n, out);
}

static const char *check_save(char **words, int n, char out[TEXT_MAX]) {
    int64_t v;
    for (int i = 0; i < n; i++)
        if (n % 2 || !resp_read_int(words[i], strlen(words[i]), &v) || v < (i + 1) % 2)
            return "Invalid save parameters";
    char added[TEXT_MAX], *both[] = {config.save, added};
    bool more = loading && save_given && n && *config.save;
    save_given = loading;
    if (!more) return join(words, n, out);
    const char *why = join(words, n, added);
    return why ? why : join(both, 2, out);
}

static const char *check_output_limits(char **words, int n, char out[TEXT_MAX]) {
    static const char *const classes[] = {"normal", "slave", "pubsub", "replica"};
    struct config new = config;
    if (n % 4) return "Wrong number of arguments in buffer limit configuration.";
    for (; n; words += 4, n -= 4) {
        int which = 0;
        while (which < 4 && !same(words[0], classes[which])) which++;
        if (which == 4) return "Invalid client class specified in buffer limit configuration.";
        if (which == 3) which = 1;
        int64_t seconds;
        if (!read_memory(words[1], &new.output_hard[which]) || !read_memory(words[2], &new.output_soft[which]) ||
            !resp_read_int(words[3], strlen(words[3]), &seconds) || seconds < 0 || seconds > INT_MAX)
            return "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        new.output_seconds[which] = (int)seconds;
    }
    config = new;
    for (int i = 0; i < 3; i++)
        out += sprintf(out, "%s%s %" PRId64 " %" PRId64 " %d", i ? " " : "", classes[i], new.output_hard[i],
                       new.output_soft[i], new.output_seconds[i]);
    return NULL;
}

int client_class_named(const char *name, size_t n) {
    static const char *const classes[] = {"normal", "replica", "pubsub", "master", "slave"};
    for (int i = 0; i < 5; i++)
        if (n == strlen(classes[i]) && !strncasecmp(name, classes[i], n)) return i < 4 ? i : 1;
    return -1;
}

/* Keeps the letters in Redis's order, with A for all but the last ones. */
static const char *check_events(char **words, int n, char out[TEXT_MAX]) {
    static const char letters[] = "g$lshzxetdnKEm";
    const unsigned all = (1u << 10) - 1, new = 1u << 10;
    unsigned set = 0;
    char *letter = config.event_letters;
    (void)n;
    for (const char *p = words[0]; *p; p++) {
        const char *at = strchr(letters, *p);
        if (!at && *p != 'A') return "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
        set |= at ? 1u << (at - letters) : all;
    }
    for (unsigned i = 0; letters[i]; i++)
        if (set & 1u << i) *letter++ = letters[i];
    *letter = 0;
    if ((set & all) == all) {
        set &= ~(all | new);
        *out++ = 'A';
    }
    for (unsigned i = 0; letters[i]; i++)
        if (set & 1u << i) *out++ = letters[i];
    *out = 0;
    return NULL;
}

static const char *check_replicaof(char **words, int n, char out[TEXT_MAX]) {
    int64_t port;
    if (loading && n != 2) return "wrong number of arguments";
    if (n != 2 || (same(words[0], "no") && same(words[1], "one"))) return join(words, 0, out);
    if (!resp_read_int(words[1], strlen(words[1]), &port) || port < 0 || port > 65535) return "Invalid master port";
    return join(words, n, out);
}

/* ==== the command line and the file ============================================================================ */

static char file_path[PATH_MAX];

const char *config_file(void) { return file_path; }

static void refuse(const char *where, const char *what, const char *why) __attribute__((noreturn));
static void refuse(const char *where, const char *what, const char *why) {
    fprintf(stderr, "echovault: %s%s: %s\n", where, what, why);
    exit(1);
}

/* One line of the file, or one option of the command line. where: "file:line: " or "--". */
static void load_words(const char *where, char **words, int n) {
    bool known;
    const struct option *o = option_find(words[0], &known);
    const char *why = !known ? "there is no such option, see echovault --help" : NULL;
    char text[TEXT_MAX];
    if (o) why = option_set(o, words + 1, n - 1);
    join(words, n, text);
    if (why) refuse(where, text, why);
    if (!o) server_log(LOG_NOTICE, "The option %s has no effect here", words[0]);
}

static void load_file(const char *path, const char *where, int depth);

static void load_include(const char *where, const char *pattern, int depth) {
    glob_t g = {0};
    if (depth > 16) refuse(where, pattern, "too many files that include one another");
    glob(pattern, GLOB_NOMAGIC, NULL, &g);
    for (size_t i = 0; i < g.gl_pathc; i++) load_file(g.gl_pathv[i], where, depth);
    globfree(&g);
}

static void load_line(const char *where, struct resp_parser *p, char *line, int depth) {
    char *text = copy(line, strlen(line)), *at = text, *words[WORDS_MAX] = {text};
    p->argc = 0;
    bool whole = resp_split_line(p, line, strlen(line));
    if (!whole || p->argc > WORDS_MAX) refuse(where, text, whole ? "too many words" : "unbalanced quotes");
    for (int i = 0; i < p->argc; i++) { /* together they are shorter than the line */
        words[i] = memcpy(at, p->argv[i].p, p->argv[i].n);
        at += p->argv[i].n;
        *at++ = 0;
    }
    if (p->argc == 2 && same(words[0], "include")) load_include(where, words[1], depth + 1);
    else load_words(where, words, p->argc);
    free(text);
}

/* where: who names the file. */
static void load_file(const char *path, const char *where, int depth) {
    char *line = NULL, here[PATH_MAX + 32];
    size_t cap = 0;
    struct resp_parser parser;
    FILE *f = strcmp(path, "-") ? fopen(path, "r") : stdin;
    if (!f) refuse(where, path, strerror(errno));
    resp_parser_init(&parser);
    for (int number = 1; getline(&line, &cap, f) >= 0; number++) {
        char *start = line + strspn(line, " \t\r\n");
        start[strcspn(start, "\r\n")] = 0;
        snprintf(here, sizeof here, "%s:%d: ", path, number);
        if (*start && *start != '#') load_line(here, &parser, start, depth);
    }
    resp_parser_free(&parser);
    free(line);
    if (f != stdin) fclose(f);
}

static void load_defaults(void) {
    for (const struct option *o = options; o->type != T_FIXED; o++) {
        char *def = copy(o->def, strlen(o->def));
        if (option_set(o, &def, 1)) abort();
        free(def);
    }
}

/* A data file's name where none was given. */
static void load_name(char **field, const char *extension) {
    if (**field) return;
    free(*field);
    if (asprintf(field, "database_%d.%s", config.port, extension) < 0) abort();
}

static void print_help(void) {
    puts("Usage: echovault [FILE | -] [--OPTION VALUE ...]\n\n"
         "FILE is a redis.conf; - reads one from standard input. The options win over it:\n");
    for (const struct option *o = options; o->type != T_FIXED; o++) {
        printf("  --%-28s %s", o->name, o->help);
        for (int i = 0; o->choices && o->choices[i]; i++) printf("%s%s", i ? ", " : ": ", o->choices[i]);
        if (*o->def) printf(" [%s]", o->def);
        putchar('\n');
    }
    puts("\n  --help, --version");
}

static bool is_option(const char *word) { return word[0] == '-' && word[1] == '-'; }

void config_load(int argc, char **argv) {
    int i = 1;
    if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-v"))) {
        puts("EchoVault v=" ECHOVAULT_VERSION " redis=" REDIS_VERSION);
        exit(0);
    }
    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        print_help();
        exit(0);
    }
    load_defaults();
    loading = true;
    if (argc > 1 && argv[1][0] != '-') {
        if (!realpath(argv[1], file_path)) refuse("", argv[1], strerror(errno));
        load_file(argv[i++], "", 0);
    }
    if (argc > i && !strcmp(argv[argc - 1], "-")) load_file(argv[--argc], "", 0);
    else if (argc > i && !strcmp(argv[i], "-")) load_file(argv[i++], "", 0);
    for (int n = 1; i < argc; i += n, n = 1) {
        if (!is_option(argv[i]) || !argv[i][2]) refuse("", argv[i], "not an option, see echovault --help");
        while (i + n < argc && !is_option(argv[i + n])) n++;
        argv[i] += 2;
        load_words("--", argv + i, n);
    }
    loading = false;
    load_name(&config.dbfilename, "rdb");
    load_name(&config.appendfilename, "aof");
    persist_update();
}

/* ==== CONFIG =================================================================================================== */

bool config_permits(int permit, const struct client *c) {
    char peer[64], local[64];
    if (permit != PERMIT_LOCAL) return permit == PERMIT_YES;
    client_addresses(c, peer, local);
    return c->flags & CLIENT_UNIX || !strncmp(peer, "127.", 4) || !strncmp(peer, "[::1]", 5);
}

void cmd_config_get(struct cx *cx) {
    size_t mark = resp_later(cx->out), pairs = 0;
    for (size_t i = 0; i < 2 * OPTIONS; i++) { /* each by its name and, where it has one, by its alias */
        const struct option *o = &options[i / 2];
        char name[80];
        bool skip = !rename_word(name, o->name, "replica", i % 2 ? "slave" : "replica") && i % 2;
        for (int j = 2; j < cx->argc && !skip && (o->type != T_FIXED || *o->def); j++) {
            const struct arg *a = &cx->argv[j];
            bool same = resp_arg_is(a, name);
            if (!same && !glob_match(a->p, a->n, name, strlen(name), true)) continue;
            resp_bulk(cx->out, same ? a->p : name, strlen(name));
            resp_bulk_str(cx->out, option_text(o));
            pairs++;
            skip = true;
        }
    }
    resp_later_map(cx->out, mark, pairs);
}

static const char unknown[] = "unknown";

/* Whether the option words[i] may be set at all; returns NULL, or why not. */
static const char *may_set(struct cx *cx, char **words, int i) {
    bool known;
    const struct option *o = option_find(words[i], &known);
    if (!known) return unknown;
    if (o && o->flags & IMMUTABLE) return "can't set immutable config";
    if (o && o->flags & PROTECTED && !config_permits(config.enable_protected_configs, cx->client))
        return "can't set protected config";
    for (int j = 0; j < i; j += 2)
        if (same(words[j], words[i])) return "duplicate parameter";
    return NULL;
}

/* Sets the option to *value and leaves there what it was. */
static const char *exchange(const char *name, char **value) {
    bool known;
    const struct option *o = option_find(name, &known);
    if (!o) server_log(LOG_NOTICE, "The option %s has no effect here", name);
    if (!o) return NULL;
    char *old = copy(option_text(o), TEXT_MAX);
    const char *why = option_set(o, value, 1);
    free(*value);
    *value = old;
    return why;
}

void cmd_config_set(struct cx *cx) {
    int n = cx->argc - 2, i, done = 0;
    const char *why = NULL;
    if (n % 2) {
        cx_syntax_error(cx);
        return;
    }
    char **words = calloc((size_t)n, sizeof *words), *name = NULL;
    if (!words) abort();
    for (i = 0; i < n; i++) words[i] = copy(cx->argv[i + 2].p, cx->argv[i + 2].n);
    for (i = 0; i < n && !why; i += 2) why = may_set(cx, words, i);
    if (why) name = words[i - 2];
    for (; done < n && !why; done += 2) why = exchange(name = words[done], &words[done + 1]);
    if (!why) resp_ok(cx->out);
    else if (why == unknown)
        resp_errorf(cx->out, "ERR Unknown option or number of arguments for CONFIG SET - '%s'", name);
    else resp_errorf(cx->out, "ERR CONFIG SET failed (possibly related to argument '%s') - %s", name, why);
    for (; why && done > 0; done -= 2) exchange(words[done - 2], &words[done - 1]); /* all back, the last first */
    for (i = 0; i < n; i++) free(words[i]);
    free(words);
    persist_update();
}
