/* config.c - the options: one table behind the command line, the file, CONFIG GET and SET, and --help.
 *
 * A value is set from text and printed as text by its row's type alone, so that every option can be read, set, set
 * back and written down in the same way. A row's check() is for what a type cannot say.
 *
 * The file is a redis.conf. Options of Redis that have nothing to act on here are accepted with a notice and not kept,
 * so that an existing file starts the server, but refused where that would leave it less safe. Left out: include.
 */
#include "commands.h"
#include "disk.h"

#include <ctype.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX  2048 /* of an option's text, or of an error about one */
#define NAME_SIZE 80   /* of an option's name, with the NUL */

struct config config;

/* ==== checks: each may write another text in the place of a new one; NULL, or why it is refused ================= */

static bool same(const char *a, const char *b) { return strcasecmp(a, b) == 0; }

/* A number of bytes: digits and perhaps a unit. */
static bool read_memory(const char *s, int64_t *v) {
    static const char *const units[] = {"", "b", "k", "kb", "m", "mb", "g", "gb"};
    static const int64_t sizes[] = {1, 1, 1000, 1 << 10, 1000000, 1 << 20, 1000000000, 1 << 30};
    size_t digits = strspn(s, "0123456789");
    int i = 0;
    while (i < 8 && !same(s + digits, units[i])) i++;
    return i < 8 && resp_read_int(s, digits, v) && !__builtin_mul_overflow(*v, sizes[i], v);
}

static bool loading;      /* the text comes from the command line or a file */
static bool save_given;   /* the first save there replaces the default, others add to it */
static bool has_password; /* the one user, says a line that requirepass may follow */

static const char *check_dir(char *text) { return !chdir(text) && getcwd(text, TEXT_MAX) ? NULL : strerror(errno); }

static const char *check_filename(char *text) {
    return strchr(text, '/') ? "argument can't be a path, just a filename" : NULL;
}

static const char *check_save(char *text) {
    long seconds, changes;
    int used = 0;
    for (const char *p = text; *p; p += used)
        if (sscanf(p, "%ld %ld %n", &seconds, &changes, &used) != 2 || seconds < 1 || changes < 0)
            return "Invalid save parameters";
    size_t n = loading && save_given && *text ? strlen(config.save) : 0, more = strlen(text);
    if (n + more + 2 > TEXT_MAX) return "argument is too long";
    if (n) memmove(text + n + 1, text, more + 1);
    if (n) memcpy(text, config.save, n);
    if (n) text[n] = ' ';
    save_given = loading;
    return NULL;
}

static const char *check_leader(char *text) {
    char host[256];
    int port, used = 0;
    if (same(text, "no one")) *text = 0;
    bool pair = sscanf(text, "%255s %d%n", host, &port, &used) == 2 && !text[used] && port > 0 && port < 65536;
    return pair || !*text ? NULL : "it takes a host and a port";
}

int client_class_named(const struct arg *name) {
    int word = resp_arg_flag(name, "normal replica pubsub master slave");
    return word == 16 ? 1 : word ? __builtin_ctz((unsigned)word) : -1;
}

static const char *check_output_limits(char *text) {
    struct config new = config;
    char class[32], hard[32], soft[32], seconds[32];
    int64_t s;
    int used = 0;
    for (const char *p = text; *p; p += used) {
        if (sscanf(p, "%31s %31s %31s %31s %n", class, hard, soft, seconds, &used) != 4)
            return "Wrong number of arguments in buffer limit configuration.";
        int i = client_class_named(&(struct arg){.p = class, .n = (uint32_t)strlen(class)});
        if (i < 0 || i > 2) return "Invalid client class specified in buffer limit configuration.";
        if (!read_memory(hard, &new.output_hard[i]) || !read_memory(soft, &new.output_soft[i]) ||
            !resp_read_int(seconds, strlen(seconds), &s) || s < 0 || s > INT_MAX)
            return "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        new.output_seconds[i] = (int)s;
    }
    config = new;
    for (int i = 0; i < 3; i++)
        text += sprintf(text, "%s %" PRId64 " %" PRId64 " %d", (const char *[]){"normal", " slave", " pubsub"}[i],
                        new.output_hard[i], new.output_soft[i], new.output_seconds[i]);
    return NULL;
}

/* Keeps the letters in Redis's order, with A for the first ten (and n). */
static const char *check_events(char *text) {
    static const char letters[] = "g$lshzxetdnKEm";
    char *set = config.event_letters, *end = set;
    if (text[strspn(text, "Ag$lshzxeKEtmdn")]) return "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
    for (const char *p = letters; *p; p++)
        if (strchr(text, *p) || (p < letters + 10 && strchr(text, 'A'))) *end++ = *p;
    *end = 0;
    bool all = !strncmp(set, letters, 10);
    sprintf(text, "%s%s", all ? "A" : "", !all ? set : set[10] == 'n' ? set + 11 : set + 10);
    return NULL;
}

static const char *check_client_memory(char *text) {
    size_t n = strlen(text);
    int64_t v;
    bool percent = n && text[n - 1] == '%';
    if (percent ? !resp_read_int(text, n - 1, &v) || v < 0 || v > 100 : !read_memory(text, &v) || v < 0)
        return "argument must be a memory or percent value";
    config.maxmemory_clients = percent ? -v : v;
    if (!percent) sprintf(text, "%" PRId64, v);
    return NULL;
}

static const char *check_percentiles(char *text) {
    for (char *p = text, *end; *p; p = end + strspn(end, " ")) {
        double v = strtod(p, &end);
        if (end == p || !strchr(" ", *end) || v != v) return "Invalid latency-tracking-info-percentiles parameters";
        if (v < 0 || v > 100) return "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
    }
    return NULL;
}

/* ==== the table ================================================================================================ */

enum type { T_BOOL, T_ENUM, T_INT, T_OCTAL, T_LONG, T_MEMORY, T_STRING, T_IGNORED, T_REFUSED };
enum { IMMUTABLE = 1, PROTECTED = 2 };

struct option {
    const char *name; /* of those without use several, with patterns among them */
    enum type type;
    void *field;
    int64_t min, max;                 /* of a number; min of a text: 1 where it is a list of words, not one in quotes */
    const char *const *choices;       /* T_ENUM, T_BOOL: the names of the values from 0 on */
    const char *(*check)(char *text); /* of a text, with room for TEXT_MAX; NULL: all are good */
    const char *def;
    int flags;
    const char *help;
};

#define BOOL(field)            T_BOOL, &config.field, 0, 0, (const char *const[]){"no", "yes", NULL}, NULL
#define ENUM(field, ...)       T_ENUM, &config.field, 0, 0, (const char *const[]){__VA_ARGS__, NULL}, NULL
#define INT(field, min)        T_INT, &config.field, min, INT_MAX, NULL, NULL
#define RANGE(field, min, max) T_INT, &config.field, min, max, NULL, NULL
#define LONG(field, min)       T_LONG, &config.field, min, INT64_MAX, NULL, NULL
#define MEMORY(field, min)     T_MEMORY, &config.field, min, INT64_MAX, NULL, NULL
#define TEXT(field, check)     T_STRING, &config.field, 0, 0, NULL, check
#define WORDS(field, check)    T_STRING, &config.field, 1, 0, NULL, check

static const struct option options[] = {
    {"port", RANGE(port, 0, 65535), "6379", IMMUTABLE, "TCP port; 0: none"},
    {"bind", WORDS(bind, NULL), "127.0.0.1 -::1", IMMUTABLE, "addresses to listen on; one after a - may be missing"},
    {"unixsocket", TEXT(unixsocket, NULL), "", IMMUTABLE, "path of a Unix socket to listen on as well"},
    {"unixsocketperm", T_OCTAL, &config.unixsocketperm, 0, 0777, NULL, NULL, "0", IMMUTABLE,
     "its mode; 0: by the umask"},
    {"protected-mode", BOOL(protected_mode), "yes", 0, "without a password, answer only who comes over loopback"},
    {"tcp-backlog", INT(tcp_backlog, 0), "511", IMMUTABLE, "connections that may wait to be accepted"},
    {"tcp-keepalive", INT(tcp_keepalive, 0), "300", 0, "seconds between probes of a silent client; 0: none"},
    {"timeout", INT(timeout, 0), "0", 0, "close a client that is idle for so many seconds; 0: never"},
    {"maxclients", RANGE(maxclients, 1, UINT32_MAX), "10000", 0, "connections at once"},
    {"requirepass", TEXT(requirepass, NULL), "", 0, "the password that clients have to show"},
    {"client-query-buffer-limit", MEMORY(client_query_buffer_limit, 1 << 20), "1gb", 0, "input that may wait"},
    {"client-output-buffer-limit", WORDS(output_limits, check_output_limits),
     "normal 1073741824 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", 0,
     "output that may wait: at most, and for how long"},
    {"proto-max-bulk-len", MEMORY(proto_max_bulk_len, 1 << 20), "512mb", 0, "length of an argument, up to 512mb"},
    {"databases", INT(databases, 1), "16", IMMUTABLE, "number of databases for SELECT"},
    {"maxmemory", MEMORY(maxmemory, 0), "0", 0, "memory that the data may take; 0: no limit"},
    {"maxmemory-policy",
     ENUM(maxmemory_policy, "volatile-lru", "volatile-random", "volatile-ttl", "allkeys-lru", "allkeys-random",
          "noeviction"),
     "noeviction", 0, "which keys go to make room"},
    {"maxmemory-clients", TEXT(maxmemory_clients_text, check_client_memory), "0", 0,
     "memory that clients may take, or percent of maxmemory; 0: no limit"},
    {"notify-keyspace-events", TEXT(notify_keyspace_events, check_events), "", 0, "the events to publish, by letter"},
    {"dir", TEXT(dir, check_dir), ".", PROTECTED, "folder of the data files"},
    {"dbfilename", TEXT(persist.rdb_path, check_filename), "", PROTECTED, "snapshot's name, or database_<port>.rdb"},
    {"save", WORDS(save, check_save), "300 1", 0, "snapshots: seconds and changes, any number of pairs; empty: never"},
    {"stop-writes-on-bgsave-error", BOOL(stop_writes_on_bgsave_error), "yes", 0, "refuse changes after a failed one"},
    {"appendonly", BOOL(persist.log_on), "yes", 0, "keep the log of all changes on disk"},
    {"appendfilename", TEXT(persist.aof_path, check_filename), "", IMMUTABLE, "log's name, or database_<port>.aof"},
    {"appendfsync", ENUM(persist.fsync, "everysec", "always", "no"), "everysec", 0, "when the log must be on the disk"},
    {"aof-load-truncated", BOOL(persist.truncate_tail), "yes", 0, "start from a log whose last command is cut off"},
    {"auto-aof-rewrite-percentage", INT(persist.rewrite_percentage, 0), "100", 0, "growth to cut the log at; 0: no"},
    {"auto-aof-rewrite-min-size", MEMORY(persist.rewrite_min, 0), "64mb", 0, "but not while it is smaller"},
    {"replicaof", WORDS(replicaof, check_leader), "", IMMUTABLE, "host and port of the leader to follow"},
    {"masterauth", TEXT(repl.auth, NULL), "", 0, "the leader's password"},
    {"masteruser", TEXT(repl.user, NULL), "", 0, "and user, where it has users"},
    {"replica-read-only", BOOL(replica_read_only), "yes", 0, "a follower refuses changes; else they are its own only"},
    {"replica-serve-stale-data", BOOL(replica_serve_stale_data), "yes", 0, "answer while the leader cannot be reached"},
    {"replica-refuse-empty-sync", BOOL(repl.refuse_empty), "no", 0, "keep the keys when the leader has none"},
    {"replica-priority", INT(replica_priority, 0), "100", 0, "for Sentinel's choice of a new leader; 0: never"},
    {"replica-announced", BOOL(replica_announced), "yes", 0, "let Sentinel tell clients of this follower"},
    {"replica-announce-ip", TEXT(repl.announce_ip, NULL), "", 0, "the address to tell a leader"},
    {"replica-announce-port", RANGE(repl.announce_port, 0, 65535), "0", 0, "and the port; 0: as it is"},
    {"repl-timeout", INT(repl.timeout, 1), "60", 0, "seconds of silence that end a link"},
    {"repl-ping-replica-period", INT(repl_ping_period, 1), "10", 0, "seconds between a leader's signs of life"},
    {"min-replicas-to-write", INT(min_replicas_to_write, 0), "0", 0, "refuse changes with fewer followers; 0: never"},
    {"min-replicas-max-lag", INT(min_replicas_max_lag, 0), "10", 0, "seconds that a follower's word counts for that"},
    {"repl-backlog-size", MEMORY(persist.backlog, 0), "16mb", 0, "log to keep for followers that return"},
    {"slowlog-log-slower-than", LONG(slowlog_slower_than, -1), "10000", 0, "what SLOWLOG keeps, in us; -1: none"},
    {"slowlog-max-len", LONG(slowlog_max_len, 0), "128", 0, "how many commands it keeps"},
    {"latency-monitor-threshold", LONG(latency_threshold, 0), "0", 0, "what LATENCY keeps, milliseconds; 0: nothing"},
    {"latency-tracking", BOOL(latency_tracking), "yes", 0, "count by their time what LATENCY HISTOGRAM shows"},
    {"latency-tracking-info-percentiles", WORDS(latency_percentiles, check_percentiles), "50 99 99.9", 0, "in INFO"},
    {"io-uring", BOOL(io_uring), "yes", IMMUTABLE, "a turn's reads, and its writes, in one system call where possible"},
    {"loglevel", ENUM(loglevel, "debug", "verbose", "notice", "warning"), "notice", 0, "what is worth a line"},
    {"logfile", TEXT(logfile, NULL), "", IMMUTABLE, "where the lines go; empty: standard output"},
    {"daemonize", BOOL(daemonize), "no", IMMUTABLE, "go into the background"},
    {"user", TEXT(user, NULL), "", IMMUTABLE, "whom root becomes, when it listens and before it reads the data"},
    {"seccomp", BOOL(seccomp), "no", IMMUTABLE, "end the server at a system call that it does not make"},
    {"supervised", ENUM(supervised, "no", "systemd", "auto"), "no", IMMUTABLE, "tell systemd of the start"},
    {"pidfile", TEXT(pidfile, NULL), "", IMMUTABLE, "file for the process id"},
    {"enable-debug-command", ENUM(enable_debug_command, "no", "yes", "local"), "local", IMMUTABLE, "who may use DEBUG"},
    {"aclfile cluster-enabled include loadmodule tls-port tls-replication", .type = T_REFUSED},
    {"acl-* acllog-* active* always-show-logo aof-* appenddirname bind-source-addr busy-* cluster-* crash-* "
     "disable-thp dynamic-hz enable-* hash-max-* hll-* hz ignore-warnings io-* jemalloc-* lazyfree-* "
     "lfu-* list-* lua-* maxmemory-* no-append* oom-score-* proc-title-* propagation-* rdb* repl-backlog-ttl "
     "repl-disable-* repl-diskless-* replica-* sanitize-* set-* shutdown-* socket-* "
     "stream-* syslog-* tls-* tracking-* zset-* *_cpulist",
     .type = T_IGNORED},
};
#define OPTIONS (sizeof options / sizeof *options - 2) /* those of some use, which stand before the others */

/* Some options have an older name with "slave" for "replica": the name with the one in place of the other. */
static const char *respelled(const char *name, const char *word, const char *instead, char new[NAME_SIZE]) {
    const char *at = strcasestr(name, word);
    if (at) snprintf(new, NAME_SIZE, "%.*s%s%s", (int)(at - name), name, instead, at + strlen(word));
    return at ? new : name;
}

/* NULL: there is no such option. */
static const struct option *option_find(const char *name) {
    char now[NAME_SIZE];
    name = respelled(name, "slave", "replica", now);
    for (const struct option *o = options; o < options + OPTIONS + 2; o++)
        for (const char *p = o->name, *end; *p; p = end + strspn(end, " ")) {
            end = p + strcspn(p, " ");
            if (glob_match(p, (size_t)(end - p), name, strlen(name), true)) return o;
        }
    return NULL;
}

/* With more than one word behind it, "user" is Redis's rule about users and not the option. */
static const struct option *option_of(const char *name, const char *text) {
    return option_find(same(name, "user") && strchr(text, ' ') ? "aclfile" : name);
}

static char error_text[TEXT_MAX]; /* of an error that must be put together; good until the next one */
static const char unknown[] = "there is no such option, see echovault --help";

static const char *number_set(const struct option *o, const char *s) {
    char *end = "";
    int64_t v;
    if (o->type == T_MEMORY && !read_memory(s, &v)) return "argument must be a memory value";
    if (o->type == T_OCTAL) v = strtoll(s, &end, 8);
    if (o->type == T_OCTAL ? !*s || *end : o->type != T_MEMORY && !resp_read_int(s, strlen(s), &v))
        return "argument couldn't be parsed into an integer";
    bool fits = v >= o->min && v <= o->max;
    if (fits && o->type >= T_LONG) *(int64_t *)o->field = v;
    else if (fits) *(int *)o->field = v < INT_MAX ? (int)v : INT_MAX;
    else sprintf(error_text, "argument must be between %" PRId64 " and %" PRId64 " inclusive", o->min, o->max);
    return fits ? NULL : error_text;
}

static const char *choice_set(const struct option *o, const char *s) {
    int v = 0, n = 0;
    while (o->choices[v] && !same(o->choices[v], s)) v++;
    bool found = o->choices[v];
    if (!found && o->type == T_BOOL) return "argument must be 'yes' or 'no'";
    if (!found && (same(s, "allkeys-lfu") || same(s, "volatile-lfu")))
        return "there is no LFU here: the lru policies keep what is used again longer than what is used once";
    for (int i = 0; i < v && !found; i++)
        n += sprintf(error_text + n, "%s%s", i ? ", " : "argument(s) must be one of the following: ", o->choices[i]);
    if (!found) return error_text;
    if (o->type == T_BOOL) *(bool *)o->field = v;
    else *(int *)o->field = v;
    return NULL;
}

/* Leaves one space between words. */
static void squeeze(char *text) {
    char *to = text;
    for (const char *p = text; *p; p++)
        if (!isspace((unsigned char)*p)) *to++ = *p;
        else if (to > text && p[1] && !isspace((unsigned char)p[1])) *to++ = ' ';
    *to = 0;
}

static const char *text_set(const struct option *o, const char *text) {
    char kept[TEXT_MAX];
    if (snprintf(kept, sizeof kept, "%s", text) >= TEXT_MAX) return "argument is too long";
    if (o->min) squeeze(kept);
    const char *why = o->check ? o->check(kept) : NULL;
    if (why) return why;
    free(*(char **)o->field);
    *(char **)o->field = resp_need(strdup(kept));
    return NULL;
}

/* The line that Redis's CONFIG REWRITE adds: the one user may do everything, and needs a password if one is set. */
static bool is_the_user(const char *text) {
    bool is = !fnmatch("default on * ~\\* &\\* +@all", text, 0);
    has_password |= is && fnmatch("* nopass *", text, 0);
    return is;
}

/* Gives the option a new value; returns NULL, or why it keeps the old one. */
static const char *option_put(const struct option *o, const char *text) {
    return o->choices ? choice_set(o, text) : o->type == T_STRING ? text_set(o, text) : number_set(o, text);
}

static const char *option_set(const char *name, const char *text) {
    const struct option *o = option_of(name, text);
    if (!o) return unknown;
    if (o->type == T_REFUSED && *text && !same(text, "no") && !same(text, "0") && !is_the_user(text))
        return "there is no include here, no TLS, cluster mode or module, and no user but the default one";
    if (o->type >= T_IGNORED) server_log(LOG_NOTICE, "The option %s has no effect here", name);
    return o->type >= T_IGNORED ? NULL : option_put(o, text);
}

/* The option's value as option_set() takes it; good until the next call, or as long as the value. */
static const char *option_text(const struct option *o) {
    static char number[RESP_INT_MAX];
    if (o->type >= T_STRING) return o->type == T_STRING ? *(char **)o->field : "";
    int64_t v = o->type >= T_LONG ? *(int64_t *)o->field : o->type == T_BOOL ? *(bool *)o->field : *(int *)o->field;
    if (o->choices) return o->choices[v];
    snprintf(number, sizeof number, o->type == T_OCTAL ? "%" PRIo64 : "%" PRId64, v);
    return number;
}

const char *config_text(const char *name) { return option_text(option_find(name)); }

/* ==== the command line and the file ============================================================================ */

static _Noreturn void refuse(const char *where, const char *what, const char *why) {
    fprintf(stderr, "echovault: %s%s: %s\n", where, what, why);
    exit(1);
}

/* One line of the file, or one option of the command line. where: "file:line: " or "--". */
static void load_words(const char *where, const struct arg *words, int n) {
    char line[NAME_SIZE + TEXT_MAX] = "", name[NAME_SIZE];
    int len = snprintf(name, sizeof name, "%.*s", (int)words->n, words->p), end = 0, max = sizeof line;
    for (int i = 0; i < n && end < max; i++) {
        if (memchr(words[i].p, 0, words[i].n)) refuse(where, name, "no NUL may stand in an option");
        end += snprintf(line + end, (size_t)(max - end), "%s%.*s", i ? " " : "", (int)words[i].n, words[i].p);
    }
    if (end >= max) refuse(where, name, "argument is too long");
    bool rename = same(name, "rename-command"), save = same(name, "save"); /* --save alone: never */
    const struct option *o = option_of(name, line + len + 1);
    bool one = o && o->type == T_STRING && !o->min;
    const char *why = (n < 2 && !save) || (rename && n != 3) || (one && n > 2) ? "wrong number of arguments" : NULL;
    if (!why) why = rename ? command_rename(&words[1], &words[2]) : option_set(name, line + len + 1);
    if (why) refuse(where, line, why);
}

static void load_file(const char *path) {
    char *line = NULL, here[PATH_MAX + 32];
    size_t cap = 0;
    struct resp_parser p;
    FILE *f = strcmp(path, "-") ? fopen(path, "r") : stdin;
    if (!f) refuse("", path, strerror(errno));
    resp_parser_init(&p);
    for (int number = 1; getline(&line, &cap, f) >= 0; number++, p.argc = 0) {
        char *start = line + strspn(line, " \t\r\n");
        snprintf(here, sizeof here, "%s:%d: ", path, number);
        if (!*start || *start == '#') continue;
        if (!resp_split_line(&p, start, strcspn(start, "\r\n"))) refuse(here, "a line", "unbalanced quotes");
        if (p.argc) load_words(here, p.argv, p.argc);
    }
    resp_parser_free(&p);
    free(line);
    if (f != stdin) fclose(f);
}

/* A data file's name where none was given. */
static void load_name(const char *option, const char *extension) {
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "database_%d.%s", config.port, extension);
    if (!*config_text(option)) option_set(option, name);
}

static void print_help(void) {
    puts("Usage: echovault [FILE | -] [--OPTION VALUE ...], or --help, or --version\n\n"
         "FILE is a redis.conf; - reads one from standard input. The options win over it:\n");
    for (const struct option *o = options; o < options + OPTIONS; o++) {
        printf("  --%-28s %s", o->name, o->help);
        for (int i = 0; o->type == T_ENUM && o->choices[i]; i++) printf("%s%s", i ? ", " : ": ", o->choices[i]);
        printf(*o->def ? " [%s]\n" : "\n", o->def);
    }
}

void config_load(int argc, char **argv) {
    const char *first = argc > 1 ? argv[1] : "";
    bool help = same(first, "--help") || same(first, "-h"), version = same(first, "--version") || same(first, "-v");
    if (help) print_help();
    if (version) puts("EchoVault v=" ECHOVAULT_VERSION " redis=" REDIS_VERSION);
    if (help || version) exit(0);
    struct arg *words = resp_need(calloc((size_t)argc, sizeof *words));
    for (const struct option *o = options; o < options + OPTIONS; o++)
        if (option_put(o, o->def)) abort();
    loading = true;
    int i = *first && strncmp(first, "--", 2) != 0 ? 2 : 1;
    if (i == 2 && strcmp(first, "-") != 0 && !(config.file = realpath(first, NULL))) refuse("", first, strerror(errno));
    if (i == 2) load_file(first);
    for (int n; i < argc; i += n) {
        if (strncmp(argv[i], "--", 2) != 0) refuse("", argv[i], "not an option, see echovault --help");
        argv[i] += 2;
        for (n = 0; i + n < argc && (!n || strncmp(argv[i + n], "--", 2) != 0); n++)
            words[n] = (struct arg){.p = argv[i + n], .n = (uint32_t)strlen(argv[i + n])};
        load_words("--", words, n);
    }
    loading = false;
    free(words);
    load_name("dbfilename", "rdb");
    load_name("appendfilename", "aof");
    if (same(config.persist.rdb_path, config.persist.aof_path))
        refuse("", config.persist.aof_path, "dbfilename and appendfilename cannot be the same");
    if (has_password && !*config.requirepass) refuse("", "user default", "its password has to be given by requirepass");
    config.repl.port = config.port;
    config.repl.memory_limit = &config.output_hard[1];
}

/* ==== CONFIG =================================================================================================== */

void cmd_config_get(struct cx *cx) {
    size_t mark = resp_later(cx->out), pairs = 0;
    for (const struct option *o = options; o < options + OPTIONS; o++) {
        char old[NAME_SIZE];
        const char *name = o->name, *other = respelled(name, "replica", "slave", old);
        for (int i = 2; name; name = other == name ? NULL : other, i = 2) {
            while (i < cx->argc && !glob_match(cx->argv[i].p, cx->argv[i].n, name, strlen(name), true)) i++;
            if (i == cx->argc) continue;
            resp_bulk(cx->out, resp_arg_is(&cx->argv[i], name) ? cx->argv[i].p : name, strlen(name));
            resp_bulk_str(cx->out, option_text(o));
            pairs++;
        }
    }
    resp_later_map(cx->out, mark, pairs);
}

/* All or none. Returns NULL, or why it is none; *at is the pair of words where that was seen. */
static const char *set_all(char **words, int n, int *at) {
    const char *why = NULL;
    for (*at = 0; *at < n; *at += 2) {
        const struct option *o = option_find(words[*at]);
        if (!o) return unknown;
        if (o->flags) return o->flags == IMMUTABLE ? "can't set immutable config" : "can't set protected config";
        for (int i = 0; i < *at; i += 2)
            if (same(words[i], words[*at])) return "duplicate parameter";
    }
    for (*at = 0; *at < n; *at += 2) {
        char *before = resp_need(strdup(option_text(option_find(words[*at]))));
        why = option_set(words[*at], words[*at + 1]);
        free(words[*at + 1]);
        words[*at + 1] = before;
        if (why) break;
    }
    for (int i = *at - 2; why && i >= 0; i -= 2) option_set(words[i], words[i + 1]);
    return why;
}

void cmd_config_set(struct cx *cx) {
    int n = cx->argc - 2, at;
    if (!cx_check(cx, n % 2 == 0, "ERR syntax error")) return;
    char **words = resp_need(calloc((size_t)n, sizeof *words));
    for (int i = 0; i < n; i++) words[i] = resp_need(strndup(cx->argv[i + 2].p, cx->argv[i + 2].n));
    for (at = 0; at < n && strlen(words[at]) == cx->argv[at + 2].n;) at++;
    const char *why = at < n ? "no NUL may stand in an option" : set_all(words, n, &at);
    if (!why) resp_ok(cx->out);
    else if (why == unknown)
        resp_errorf(cx->out, "ERR Unknown option or number of arguments for CONFIG SET - '%s'", words[at]);
    else resp_errorf(cx->out, "ERR CONFIG SET failed (possibly related to argument '%s') - %s", words[at], why);
    for (int i = 0; i < n; i++) free(words[i]);
    free(words);
}

/* ==== CONFIG REWRITE ===========================================================================================
 * The file's lines stay, in their order, comments and what has no effect here among them. The first line that sets an
 * option gives way to what the option is now, its other lines go. Options that no line sets are added at the end,
 * behind a line that says so, unless they are at their default. */

static const char signature[] = "# Generated by CONFIG REWRITE";

/* The option as a line of a file; a list that is empty unless told otherwise is left out. */
static void put_option(struct resp_out *text, const struct option *o) {
    const char *value = option_text(o);
    bool string = o->type == T_STRING, list = string && o->min;
    if (list && !*value && !*o->def) return;
    resp_printf(text, "%s ", o->name);
    int64_t v = o->type == T_MEMORY ? *(int64_t *)o->field : 0;
    int unit = 0;
    for (; v && v % 1024 == 0 && unit < 3; unit++) v /= 1024;
    if (v) resp_printf(text, "%" PRId64 "%s", v, (const char *const[]){"", "kb", "mb", "gb"}[unit]);
    else if (string && !(list && *value)) resp_quoted(text, value, strlen(value));
    else resp_printf(text, "%s", value);
    resp_raw(text, "\n", 1);
}

static bool is_default(const struct option *o) {
    int64_t v;
    if (o->type == T_MEMORY) return read_memory(o->def, &v) && v == *(int64_t *)o->field;
    return !strcmp(option_text(o), o->def); /* never the folder, which is an absolute path by now */
}

/* Makes the new text of the file; false, with errno: it could not be read. */
static bool rewrite(struct resp_out *text) {
    bool done[OPTIONS + 2] = {false}, said = false;
    char *line = NULL, name[NAME_SIZE];
    size_t cap = 0;
    FILE *old = fopen(config.file, "r");
    if (!old && errno != ENOENT) return false;
    while (old && getline(&line, &cap, old) >= 0) {
        line[strcspn(line, "\r\n")] = 0;
        const char *start = line + strspn(line, " \t");
        size_t n = strcspn(start, " \t");
        snprintf(name, sizeof name, "%.*s", (int)n, start);
        const struct option *o = option_of(name, start + n + strspn(start + n, " \t"));
        said |= !strcmp(start, signature);
        if (o && o->type == T_REFUSED && same(name, "user")) continue; /* it follows from requirepass */
        if (!o || o->type >= T_IGNORED) resp_printf(text, "%s\n", line);
        else if (!done[o - options]) put_option(text, o);
        if (o) done[o - options] = true;
    }
    bool well = !old || !ferror(old);
    if (old) fclose(old);
    free(line);
    for (const struct option *o = options; o < options + OPTIONS; o++) {
        if (done[o - options] || is_default(o)) continue;
        if (!said) resp_printf(text, "%s\n", signature);
        said = true;
        put_option(text, o);
    }
    return well;
}

/* 0, or errno: then the old file is as it was. */
static int replace_file(const char *path, const struct resp_out *text) {
    char temp[PATH_MAX + 8];
    struct stat old;
    snprintf(temp, sizeof temp, "%s.XXXXXX", path);
    int fd = mkstemp(temp);
    if (fd < 0) return errno;
    bool failed = (!stat(path, &old) && fchmod(fd, old.st_mode & 07777)) ||
                  disk_write_at(fd, text->buf, text->len, 0) || disk_publish(fd, temp, path);
    int error = failed ? errno : 0;
    close(fd);
    if (error) unlink(temp);
    return error;
}

void cmd_config_rewrite(struct cx *cx) {
    struct resp_out text = {0};
    if (!cx_check(cx, config.file, "ERR The server is running without a config file")) return;
    int error = rewrite(&text) ? replace_file(config.file, &text) : errno;
    const char *why = strerror(error);
    if (!error) server_log(LOG_NOTICE, "CONFIG REWRITE executed with success.");
    else server_log(LOG_WARNING, "CONFIG REWRITE failed: %s", why);
    if (cx_checkf(cx, !error, "ERR Rewriting config file: %s", why)) resp_ok(cx->out);
    resp_out_free(&text);
}
