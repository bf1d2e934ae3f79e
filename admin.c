/* admin.c - the commands about the server and the connection instead of the data.
 *
 * INFO is a table of sections, each a function that prints its lines; names and meanings of the fields are Redis's,
 * since tools look them up, and what has no counterpart here is left out. Statistics that need more than a counter are
 * kept here: rates, from samples of the counters ten times a second, and error replies by their code.
 *
 * DEBUG DIGEST tells whether two servers hold the same data, Redis and this one alike: a database's number, a key, its
 * type and its value go through SHA-1 one after the other, and the keys' digests are combined by exclusive or, so that
 * the order of the walk does not matter.
 *
 * Left out: users (there is one, "default", who has every right), client-side caching.
 */
#include "commands.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

bool cx_given(const struct cx *cx, const char *word) {
    for (int i = 1; i < cx->argc; i++)
        if (resp_arg_is(&cx->argv[i], word)) return true;
    return false;
}

/* ==== the connection =========================================================================================== */

void cmd_ping(struct cx *cx) {
    const struct arg *message = cx->argc > 1 ? &cx->argv[1] : &ARG("");
    bool subscribed = cx->client->subs && cx->client->proto == 2; /* where all that comes must look like a message */
    if (!cx_arity(cx, cx->argc <= 2)) return;
    if (subscribed) resp_array(cx->out, 2);
    if (subscribed) resp_bulk_str(cx->out, "pong");
    if (subscribed || cx->argc == 2) resp_bulk(cx->out, message->p, message->n);
    else resp_status(cx->out, "PONG");
}

void cmd_echo(struct cx *cx) { resp_bulk(cx->out, cx->argv[1].p, cx->argv[1].n); }

void cmd_select(struct cx *cx) {
    struct db *db = cx_database(cx, 1);
    if (!db) return;
    cx->client->db = store_db_id(db);
    resp_ok(cx->out);
}

void cmd_quit(struct cx *cx) {
    resp_ok(cx->out);
    client_close_after_reply(cx->client);
}

void cmd_reset(struct cx *cx) {
    client_reset(cx->client);
    cx->out->proto = 2;
    resp_status(cx->out, "RESET");
}

/* Takes as long for a wrong password as for the right one, whatever they have in common. */
static bool is_secret(const struct arg *given, const char *secret) {
    size_t n = strlen(secret);
    unsigned difference = given->n != n;
    for (size_t i = 0; i < given->n; i++) difference |= (unsigned char)(given->p[i] ^ secret[i < n ? i : n]);
    return difference == 0;
}

/* Refused logins, the newest first, for ACL LOG: one like another of the last minute is counted with it. */
static struct refusal {
    struct resp_out what, who; /* reason to username as they are answered; the client's line */
    int64_t count, at_ms;
} refusals[128];
static size_t nrefusals;

static bool is_alike(const struct refusal *a, const struct refusal *b) {
    return a->at_ms - b->at_ms <= 60000 && a->what.len == b->what.len && !memcmp(a->what.buf, b->what.buf, a->what.len);
}

/* One line of the server's log a second at most: who guesses passwords must not fill the disk. */
static void note_refusal(const struct cx *cx, const struct arg *user) {
    static int64_t next;
    static unsigned unsaid;
    struct refusal new = {.count = 1, .at_ms = store_wall_clock()};
    size_t i = 0, recent = nrefusals < 10 ? nrefusals : 10;
    if (unsaid++, new.at_ms >= next) {
        server_log(LOG_WARNING, "Wrong user name or password from %s, %u since the last such line",
                   client_peer(cx->client).text, unsaid);
        next = new.at_ms + 1000;
        unsaid = 0;
    }
    resp_pair(&new.what, "reason", "auth");
    resp_pair(&new.what, "context", cx->client->flags & CLIENT_MULTI ? "multi" : "toplevel");
    resp_bulk_str(&new.what, "object");
    resp_bulk(&new.what, cx->argv[0].p, cx->argv[0].n);
    resp_bulk_str(&new.what, "username");
    resp_bulk(&new.what, user->p, user->n < 1024 ? user->n : 1024);
    client_describe(&new.who, cx, cx->client);
    while (i < recent && !is_alike(&new, &refusals[i])) i++;
    if (i < recent) new.count += refusals[i].count;
    else i = nrefusals < sizeof refusals / sizeof *refusals ? nrefusals++ : nrefusals - 1;
    resp_out_free(&refusals[i].what);
    resp_out_free(&refusals[i].who);
    memmove(refusals + 1, refusals, i * sizeof *refusals);
    refusals[0] = new;
}

void cmd_acl_log(struct cx *cx) {
    int64_t most = 10;
    char age[32];
    bool reset = cx->argc == 3 && resp_arg_is(&cx->argv[2], "reset");
    if (!cx_at_most(cx, 3) || (cx->argc == 3 && !reset && !cx_int(cx, 2, &most))) return;
    size_t n = most < 0 || reset ? 0 : (size_t)most < nrefusals ? (size_t)most : nrefusals;
    if (reset) nrefusals = 0, resp_ok(cx->out);
    else resp_array(cx->out, n);
    for (struct refusal *r = refusals; r < refusals + n; r++) {
        snprintf(age, sizeof age, "%.17g", (double)(store_wall_clock() - r->at_ms) / 1000);
        resp_map(cx->out, 7);
        resp_pair_int(cx->out, "count", r->count);
        resp_raw(cx->out, r->what.buf, r->what.len);
        if (cx->out->proto == 2) resp_pair(cx->out, "age-seconds", age);
        else resp_bulk_str(cx->out, "age-seconds"), resp_printf(cx->out, ",%s\r\n", age);
        resp_bulk_str(cx->out, "client-info");
        resp_bulk(cx->out, r->who.buf, r->who.len - 1);
    }
}

/* Which arguments are the user (0: "default" is meant) and the password. False: the error is said. */
static bool authenticate(struct cx *cx, int user, int password) {
    const struct arg *name = user ? &cx->argv[user] : &ARG("default");
    bool right =
        cx_same(*name, ARG("default")) && (!*config.requirepass || is_secret(&cx->argv[password], config.requirepass));
    if (right) cx->client->flags |= CLIENT_AUTHED;
    else note_refusal(cx, name);
    return cx_check(cx, right, "WRONGPASS invalid username-password pair or user is disabled.");
}

void cmd_auth(struct cx *cx) {
    if (cx_check(cx, cx->argc <= 3, "ERR syntax error") &&
        cx_check(cx, cx->argc == 3 || *config.requirepass,
                 "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
                 "configuration is correct?") &&
        authenticate(cx, cx->argc - 2, cx->argc - 1))
        resp_ok(cx->out);
}

bool cx_plain(struct cx *cx, const struct arg *name, const char *what) {
    size_t i = 0;
    while (i < name->n && name->p[i] >= '!' && name->p[i] <= '~') i++;
    return cx_checkf(cx, i == name->n, "ERR %s cannot contain spaces, newlines or special characters.", what);
}

bool client_keep_name(struct cx *cx, char **field, const struct arg *name, const char *what) {
    if (!cx_plain(cx, name, what)) return false;
    free(*field);
    *field = name->n ? strndup(name->p, name->n) : NULL;
    return true;
}

void cmd_hello(struct cx *cx) {
    struct client *c = cx->client;
    int64_t proto = c->proto;
    if (!cx_check(cx, cx->argc == 1 || resp_read_int(cx->argv[1].p, cx->argv[1].n, &proto),
                  "ERR Protocol version is not an integer or out of range") ||
        !cx_check(cx, proto == 2 || proto == 3, "NOPROTO unsupported protocol version"))
        return;
    for (int i = 2; i < cx->argc; i++) {
        struct arg *option = &cx->argv[i];
        int words = resp_arg_flag(option, "setname auth"); /* which is also how many belong to it */
        if (!cx_checkf(cx, words && i + words < cx->argc, "ERR Syntax error in HELLO option '%.*s'", (int)option->n,
                       option->p) ||
            (words == 1 && !client_keep_name(cx, &c->name, &option[1], "Client names")) ||
            (words == 2 && !authenticate(cx, i + 1, i + 2)))
            return;
        i += words;
    }
    if (!cx_check(cx, c->flags & CLIENT_AUTHED,
                  "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> "
                  "<pass> option can be used to authenticate the client and select the RESP protocol version at the "
                  "same time"))
        return;
    c->proto = (uint8_t)proto;
    cx->out->proto = (int)proto;
    resp_map(cx->out, 7);
    resp_words(cx->out, "server redis version " REDIS_VERSION);
    resp_pair_int(cx->out, "proto", proto);
    resp_pair_int(cx->out, "id", (int64_t)c->id);
    resp_words(cx->out, "mode standalone role");
    resp_words(cx->out, log_following() ? "replica modules" : "master modules");
    resp_array(cx->out, 0);
}

/* ==== ACL: one user, who may do everything ==================================================================== */

void cmd_acl_whoami(struct cx *cx) { resp_bulk_str(cx->out, "default"); }

/* ACL USERS and LIST. */
void cmd_acl_users(struct cx *cx) {
    bool rights = resp_arg_is(&cx->argv[1], "list");
    const char *all =
        *config.requirepass ? "user default on #(hidden) ~* &* +@all" : "user default on nopass ~* &* +@all";
    resp_array(cx->out, 1);
    resp_bulk_str(cx->out, rights ? all : "default");
}

void cmd_acl_getuser(struct cx *cx) {
    bool password = *config.requirepass;
    if (!cx_or_null(cx, cx_same(cx->argv[2], ARG("default")))) return;
    resp_map(cx->out, 6);
    resp_words(cx->out, "flags");
    resp_set(cx->out, password ? 1 : 2);
    resp_words(cx->out, password ? "on passwords" : "on nopass passwords");
    resp_array(cx->out, password);
    resp_words(cx->out, password ? "(hidden)" : "");
    resp_words(cx->out, "commands +@all keys ~* channels &* selectors");
    resp_array(cx->out, 0);
}

void cmd_acl_setuser(struct cx *cx) {
    resp_error(cx->out, "ERR There are no users but 'default' here, who may do everything. Its password is the option "
                        "requirepass");
}

/* ==== INFO and its statistics ================================================================================== */

#define SAMPLES 10 /* a second */
static const char *const codes[] = {"BUSYKEY", "ERR",      "EXECABORT",    "LOADING",    "MASTERDOWN",
                                    "MISCONF", "NOAUTH",   "NOMASTERLINK", "NOREPLICAS", "NOPROTO",
                                    "OOM",     "READONLY", "UNBLOCKED",    "WRONGPASS"};
#define CODES (sizeof codes / sizeof *codes)

static struct {
    uint64_t counts[3]; /* of commands, bytes in, bytes out, when the last sample was taken */
    double rates[3];    /* of the same, a second, over the last one or two */
    uint64_t errors[CODES], expired_before, evicted_before;
} stats;

void server_sample(void) {
    const uint64_t counts[] = {server_stats.commands, server_stats.net_in, server_stats.net_out};
    for (int i = 0; i < 3; i++)
        stats.rates[i] += ((double)(counts[i] - stats.counts[i]) * SAMPLES - stats.rates[i]) / SAMPLES;
    memcpy(stats.counts, counts, sizeof counts);
    if ((int64_t)store_memory() > server_stats.peak_memory) server_stats.peak_memory = (int64_t)store_memory();
}

void server_count_error(const char *text) {
    for (size_t i = 0; i < CODES; i++) stats.errors[i] += !strncmp(text, codes[i], strlen(codes[i]));
    server_stats.errors++;
}

void cmd_config_resetstat(struct cx *cx) {
    const struct server_stats *s = &server_stats;
    server_stats = (struct server_stats){.started_ms = s->started_ms, .peak_memory = s->peak_memory};
    memset(&stats, 0, sizeof stats);
    stats.expired_before = store_stats.expired;
    stats.evicted_before = store_stats.evicted;
    for (const struct command *c = command_table; c->name; c++) *c->stats = (struct command_stats){0};
    resp_ok(cx->out);
}

static void put_bytes(struct resp_out *o, const char *name, int64_t bytes) {
    double v = (double)bytes;
    int unit = 0;
    for (; v >= 1024 && unit < 4; unit++) v /= 1024;
    resp_printf(o, "%s:" I64 "%s_human:%.*f%c\r\n", name, bytes, name, unit ? 2 : 0, v, "BKMGT"[unit]);
}

static void info_server(struct resp_out *o) {
    static char run_id[41]; /* new every start */
    struct utsname system;
    uname(&system);
    if (!*run_id) log_make_id(run_id);
    resp_printf(o, "redis_version:%s\r\nechovault_version:%s\r\nredis_mode:standalone\r\nos:%s %s %s\r\n",
                REDIS_VERSION, ECHOVAULT_VERSION, system.sysname, system.release, system.machine);
    resp_printf(o, "arch_bits:%zu\r\nmultiplexing_api:epoll\r\nprocess_id:%d\r\nrun_id:%s\r\ntcp_port:%d\r\n",
                8 * sizeof(void *), (int)getpid(), run_id, config.port);
    int64_t now = store_wall_clock(), uptime = (now - server_stats.started_ms) / 1000;
    resp_printf(o, "server_time_usec:" I64 "uptime_in_seconds:" I64 "uptime_in_days:" I64, now * 1000, uptime,
                uptime / 86400);
    resp_printf(o, "hz:10\r\nconfigured_hz:10\r\nconfig_file:%s\r\n", config.file ? config.file : "");
}

static void info_clients(struct resp_out *o) {
    size_t blocked = 0;
    for (struct client *c = client_next(NULL); c; c = client_next(c)) blocked += !!(c->flags & CLIENT_BLOCKED);
    resp_printf(o, "connected_clients:%zu\r\nmaxclients:%d\r\nblocked_clients:%zu\r\n", client_count(),
                config.maxclients, blocked);
}

struct memory server_memory(void) {
    size_t pages = 0;
    struct memory m = {.used = (int64_t)store_memory(), .tables = (int64_t)store_stats.table_memory};
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*u %zu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    m.rss = (int64_t)pages * sysconf(_SC_PAGESIZE);
    m.peak = m.used > server_stats.peak_memory ? m.used : server_stats.peak_memory;
    for (struct client *c = client_next(NULL); c; c = client_next(c))
        *(client_class(c) == 1 ? &m.followers : &m.clients) += (int64_t)client_memory(c, NULL, NULL, NULL);
    return m;
}

static void info_memory(struct resp_out *o) {
    struct memory m = server_memory();
    put_bytes(o, "used_memory", m.used);
    put_bytes(o, "used_memory_rss", m.rss);
    put_bytes(o, "used_memory_peak", m.peak);
    put_bytes(o, "total_system_memory", sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
    put_bytes(o, "maxmemory", config.maxmemory);
    resp_printf(o, "maxmemory_policy:%s\r\nmem_allocator:libc\r\n", config_text("maxmemory-policy"));
    resp_printf(o, "mem_fragmentation_ratio:%.2f\r\nused_memory_peak_perc:%.2f%%\r\n", (double)m.rss / (double)m.used,
                100 * (double)m.used / (double)m.peak);
    resp_printf(o, "used_memory_overhead:" I64 "used_memory_dataset:" I64 "mem_fragmentation_bytes:" I64, m.tables,
                m.used - m.tables, m.rss - m.used);
    resp_printf(o, "mem_clients_normal:" I64 "mem_clients_slaves:" I64, m.clients, m.followers);
}

static void info_persistence(struct resp_out *o) {
    struct persist_info p = persist_info();
    int64_t seconds = snap_running() ? store_wall_clock() / 1000 - p.save_started_s : -1;
    resp_printf(o, "loading:%d\r\nrdb_changes_since_last_save:" U64 "rdb_bgsave_in_progress:%d\r\n", p.loading,
                p.changes_since_save, snap_running());
    resp_printf(o, "rdb_last_save_time:" I64 "rdb_last_bgsave_status:%s\r\n", p.last_save_s, p.save_ok ? "ok" : "err");
    resp_printf(o, "rdb_last_bgsave_time_sec:" I64 "rdb_current_bgsave_time_sec:" I64, p.save_seconds, seconds);
    resp_printf(o, "aof_enabled:%d\r\naof_rewrite_in_progress:%d\r\naof_rewrite_scheduled:0\r\n", config.persist.log_on,
                p.rewrite_running);
    resp_printf(o, "aof_last_rewrite_time_sec:" I64 "aof_last_bgrewrite_status:%s\r\naof_last_write_status:%s\r\n",
                p.rewrite_seconds, p.rewrite_ok ? "ok" : "err", log_error() ? "err" : "ok");
    resp_printf(o, "aof_current_rewrite_time_sec:" I64, p.rewrite_running ? seconds : -1);
    if (config.persist.log_on)
        resp_printf(o, "aof_pending_rewrite:0\r\naof_buffer_length:" U64 "aof_pending_bio_fsync:%d\r\n",
                    log_end() - log_written(), log_written() > log_synced());
    if (config.persist.log_on)
        resp_printf(o, "aof_current_size:" U64 "aof_base_size:" U64 "aof_delayed_fsync:" U64, p.log_size,
                    p.log_base_size, p.delayed_syncs);
    if (p.loading) resp_printf(o, "loading_total_bytes:" U64 "loading_loaded_bytes:" U64, p.load_total, p.load_done);
}

static void info_stats(struct resp_out *o) {
    const struct server_stats *s = &server_stats;
    resp_printf(o, "total_connections_received:" U64 "total_commands_processed:" U64, s->connections, s->commands);
    resp_printf(o, "instantaneous_ops_per_sec:%.0f\r\ntotal_net_input_bytes:" U64 "total_net_output_bytes:" U64,
                stats.rates[0], s->net_in, s->net_out);
    resp_printf(o, "instantaneous_input_kbps:%.2f\r\ninstantaneous_output_kbps:%.2f\r\nrejected_connections:" U64,
                stats.rates[1] / 1024, stats.rates[2] / 1024, s->rejected);
    resp_printf(o, "sync_full:" U64 "sync_partial_ok:" U64 "sync_partial_err:" U64 "expired_keys:" U64, repl_stats.full,
                repl_stats.partial_ok, repl_stats.partial_err, store_stats.expired - stats.expired_before);
    resp_printf(o, "pubsub_channels:%zu\r\npubsub_patterns:%zu\r\npubsubshard_channels:%zu\r\n",
                pubsub_count(NULL, PUBSUB_CHANNEL), pubsub_count(NULL, PUBSUB_PATTERN),
                pubsub_count(NULL, PUBSUB_SHARD));
    resp_printf(o, "total_forks:0\r\nlatest_fork_usec:0\r\ntotal_reads_processed:" U64 "total_writes_processed:" U64,
                s->reads, s->writes);
    resp_printf(o,
                "evicted_keys:" U64 "evicted_clients:" U64 "keyspace_hits:" U64 "keyspace_misses:" U64
                "total_error_replies:" U64,
                store_stats.evicted - stats.evicted_before, s->evicted_clients, s->hits, s->misses, s->errors);
}

static void info_cpu(struct resp_out *o) {
    static const char *const whose[] = {"", "_children", "_main_thread"};
    for (int i = 0; i < 3; i++) {
        struct rusage u;
        getrusage((int[]){RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD}[i], &u);
        resp_printf(o, "used_cpu_sys%s:%ld.%06ld\r\n", whose[i], (long)u.ru_stime.tv_sec, (long)u.ru_stime.tv_usec);
        resp_printf(o, "used_cpu_user%s:%ld.%06ld\r\n", whose[i], (long)u.ru_utime.tv_sec, (long)u.ru_utime.tv_usec);
    }
}

static void info_commandstats(struct resp_out *o) {
    for (const struct command *c = command_table; c->name; c++) {
        const struct command_stats *s = c->stats;
        if (!(s->calls | s->rejected)) continue;
        resp_printf(o, "cmdstat_%s:calls=%" PRIu64 ",usec=%" PRIu64 ",usec_per_call=%.2f,", c->name, s->calls,
                    s->ns / 1000, s->calls ? (double)s->ns / 1000 / (double)s->calls : 0.0);
        resp_printf(o, "rejected_calls=%" PRIu64 ",failed_calls=" U64, s->rejected, s->failed);
    }
}

static void info_errorstats(struct resp_out *o) {
    for (size_t i = 0; i < CODES; i++)
        if (stats.errors[i]) resp_printf(o, "errorstat_%s:count=" U64, codes[i], stats.errors[i]);
}

static void info_cluster(struct resp_out *o) { resp_printf(o, "cluster_enabled:0\r\n"); }

static void info_keyspace(struct resp_out *o) {
    for (int i = 0; i < store_databases(); i++) {
        const struct db *db = store_db(i);
        if (store_size(db))
            resp_printf(o, "db%d:keys=%zu,expires=%zu,avg_ttl=" I64, i, store_size(db), store_volatile(db),
                        store_avg_ttl(db));
    }
}

static const struct section {
    const char *name;
    void (*print)(struct resp_out *o);
} sections[] = {{"Server", info_server},
                {"Clients", info_clients},
                {"Memory", info_memory},
                {"Persistence", info_persistence},
                {"Stats", info_stats},
                {"Replication", info_replication},
                {"CPU", info_cpu},
                {"Modules", NULL},
                {"Commandstats", info_commandstats},
                {"Errorstats", info_errorstats},
                {"Latencystats", observe_latencystats},
                {"Cluster", info_cluster},
                {"Keyspace", info_keyspace}};

void cmd_info(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    bool all = cx_given(cx, "all") || cx_given(cx, "everything"), usual = cx->argc == 1 || cx_given(cx, "default");
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        const struct section *s = &sections[i];
        bool long_one = s->print == info_commandstats || s->print == observe_latencystats;
        if (!all && !(usual && !long_one) && !cx_given(cx, s->name)) continue;
        resp_printf(cx->out, "%s# %s\r\n", cx->out->len > mark ? "\r\n" : "", s->name);
        if (s->print) s->print(cx->out);
    }
    resp_later_text(cx->out, mark);
}

/* ==== the clock, saving, HELP ================================================================================== */

void cmd_time(struct cx *cx) {
    int64_t us = store_clock_ns(CLOCK_REALTIME) / 1000;
    resp_array(cx->out, 2);
    resp_bulk_int(cx->out, us / 1000000);
    resp_bulk_int(cx->out, us % 1000000);
}

void cmd_lastsave(struct cx *cx) { resp_int(cx->out, persist_info().last_save_s); }

static const char save_runs[] = "ERR Background save already in progress";

void cmd_save(struct cx *cx) {
    if (cx_check(cx, !snap_running(), save_runs) && cx_check(cx, !snap_save(), "ERR")) resp_ok(cx->out);
}

void cmd_bgsave(struct cx *cx) {
    bool schedule = cx->argc == 2 && resp_arg_is(&cx->argv[1], "schedule");
    if (!cx_check(cx, cx->argc == 1 || schedule, "ERR syntax error") || !cx_check(cx, !snap_running(), save_runs))
        return;
    if (cx_checkf(cx, !snap_begin(false), "ERR %s", strerror(errno))) resp_status(cx->out, "Background saving started");
}

/* A snapshot that runs already shortens the log as well when it is done. */
void cmd_bgrewriteaof(struct cx *cx) {
    bool runs = persist_info().rewrite_running, later = snap_running();
    if (!cx_check(cx, !runs, "ERR Background append only file rewriting already in progress")) return;
    bool begun = !snap_begin(true);
    if (later) resp_status(cx->out, "Background append only file rewriting scheduled");
    else if (cx_checkf(cx, begun, "ERR %s", strerror(errno)))
        resp_status(cx->out, "Background append only file rewriting started");
}

void cmd_help(struct cx *cx) {
    const struct command *c = cx->cmd;
    while (!(c->flags & CMD_CONTAINER)) c--;
    resp_array(cx->out, 1 + 2 * (size_t)command_subs(c));
    resp_printf(cx->out, "+%s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n", command_title(c));
    for (int i = 1; i <= command_subs(c); i++)
        resp_printf(cx->out, "+%s%s%s\r\n+    %s.\r\n", command_title(&c[i]), *c[i].syntax ? " " : "", c[i].syntax,
                    c[i].summary);
}

/* ==== DEBUG ==================================================================================================== */

static uint32_t rotate(uint32_t v, int n) { return v << n | v >> (32 - n); }

#define DIGEST 20 /* bytes */

static void sha1(const void *data, size_t n, unsigned char out[DIGEST]) {
    static const uint32_t k[] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, v[5];
    const unsigned char *p = data;
    size_t last = (n + 8) / 64 * 64; /* where the block begins whose end is the length in bits */
    for (size_t at = 0; at <= last; at += 64) {
        uint32_t w[80] = {0};
        for (size_t i = 0; i < 64; i++) w[i / 4] = w[i / 4] << 8 | (at + i < n ? p[at + i] : at + i == n ? 0x80 : 0);
        uint64_t bits = at == last ? (uint64_t)n << 3 : 0;
        w[14] |= (uint32_t)(bits >> 32);
        w[15] |= (uint32_t)bits;
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 80; i++) {
            uint32_t b = v[1], c = v[2], d = v[3];
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
            uint32_t next = rotate(v[0], 5) + f + v[4] + k[i / 20] + w[i];
            memmove(v + 1, v, 4 * sizeof *v);
            v[0] = next;
            v[2] = rotate(b, 30);
        }
        for (int i = 0; i < 5; i++) h[i] += v[i];
    }
    for (size_t i = 0; i < DIGEST; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void digest_xor(unsigned char digest[DIGEST], const void *p, size_t n) {
    unsigned char hash[DIGEST];
    sha1(p, n, hash);
    for (int i = 0; i < DIGEST; i++) digest[i] ^= hash[i];
}

static void digest_mix(unsigned char digest[DIGEST], const void *p, size_t n) {
    digest_xor(digest, p, n);
    sha1(digest, DIGEST, digest);
}

static void digest_entry(void *all, struct entry *e) {
    unsigned char digest[DIGEST] = {0};
    struct arg key = store_key(e), value = store_value(e);
    digest_mix(digest, key.p, key.n);
    digest_mix(digest, "\0\0\0\0", 4); /* the type: a string */
    digest_mix(digest, value.p, value.n);
    if (store_deadline(e) != STORE_NO_DEADLINE) digest_xor(digest, "!!expire!!", 10);
    digest_xor(all, digest, DIGEST);
}

static void debug_digest(struct cx *cx) {
    unsigned char digest[DIGEST] = {0};
    char hex[2 * DIGEST + 1];
    for (int i = 0; i < store_databases(); i++) {
        uint32_t id = htonl((uint32_t)i);
        uint64_t cursor = 0;
        if (!store_size(store_db(i))) continue;
        digest_mix(digest, &id, sizeof id);
        do cursor = store_scan(store_db(i), cursor, digest_entry, digest);
        while (cursor);
    }
    for (size_t i = 0; i < DIGEST; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    resp_status(cx->out, hex);
}

static void debug_object(struct cx *cx) {
    struct entry *e = store_peek(cx->db, &cx->argv[2]);
    if (cx_check(cx, e, "ERR no such key"))
        resp_printf(cx->out, "+Value at:%p refcount:1 encoding:%s lru_seconds_idle:%u\r\n",
                    (const void *)store_value(e).p, cx_encoding(e), store_idle(e));
}

void cmd_debug(struct cx *cx) {
    struct arg *what = &cx->argv[1], *value = &cx->argv[2];
    bool one = cx->argc == 2, two = cx->argc == 3, reload = one && resp_arg_is(what, "reload");
    bool digest = one && resp_arg_is(what, "digest"), object = two && resp_arg_is(what, "object");
    const char *error = NULL;
    long double seconds;
    bool local = config.enable_debug_command == DEBUG_LOCAL && cx->client->flags & CLIENT_LOCAL;
    if (!cx_check(cx, local || config.enable_debug_command == DEBUG_YES,
                  "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run "
                  "it from a local connection, otherwise you need to set this option in the configuration file, and "
                  "then restart the server."))
        return;
    if (digest) debug_digest(cx);
    else if (object) debug_object(cx);
    else if (one && resp_arg_is(what, "change-repl-id")) log_new_id();
    else if (two && resp_arg_is(what, "set-active-expire")) store_set_sweep(value->n && *value->p != '0');
    else if (two && resp_arg_is(what, "sleep") && resp_read_float(value->p, value->n, &seconds))
        usleep(seconds > 0 ? (useconds_t)((seconds < 4000 ? seconds : 4000) * 1e6L) : 0);
    else if (!reload && !(one && resp_arg_is(what, "loadaof"))) error = "ERR unknown subcommand or wrong arguments.";
    else if (persist_reload(reload)) error = "ERR Error trying to load the data files, check server logs.";
    server_set_expiry(); /* a reload knows of no clock */
    if (!digest && !object && cx_check(cx, !error, error)) resp_ok(cx->out);
}
