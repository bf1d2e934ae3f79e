/* admin.c - the commands about the server and the connection instead of the data.
 *
 * INFO is a table of sections, each a function that prints its lines; names and meanings of the fields are Redis's,
 * since tools look them up, and what has no counterpart here is left out. Statistics that need more than a counter are
 * kept here: server_sample() notes the counters ten times a second, so that INFO can tell rates, and
 * server_count_error() counts error replies by their code.
 *
 * DEBUG DIGEST tells whether two servers hold the same data, Redis and this one alike: a database's number, a key, its
 * type and its value go through SHA-1 one after the other, and the keys' digests are combined by exclusive or, so that
 * the order of the walk does not matter.
 *
 * Left out: users (there is one, "default", who has every right), client-side caching, pausing clients.
 */
#include "commands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ==== the connection =========================================================================================== */

void cmd_ping(struct cx *cx) {
    const struct arg *message = cx->argc > 1 ? &cx->argv[1] : &(struct arg){.p = ""};
    bool subscribed = cx->client->subs && cx->client->proto == 2; /* where all that comes must look like a message */
    if (cx->argc > 2) {
        cx_arity_error(cx);
        return;
    }
    if (subscribed) resp_array(cx->out, 2);
    if (subscribed) resp_bulk_str(cx->out, "pong");
    if (subscribed || cx->argc > 1) resp_bulk(cx->out, message->p, message->n);
    else resp_status(cx->out, "PONG");
}

void cmd_echo(struct cx *cx) { resp_bulk(cx->out, cx->argv[1].p, cx->argv[1].n); }

void cmd_select(struct cx *cx) {
    int64_t id;
    if (!cx_int(cx, 1, &id)) return;
    if (id < INT32_MIN || id > INT32_MAX) {
        resp_error(cx->out, "ERR value is out of range, value must between -2147483648 and 2147483647");
    } else if (id < 0 || id >= store_databases()) {
        resp_error(cx->out, "ERR DB index is out of range");
    } else {
        cx->client->db = (int)id;
        cx->db = store_db((int)id);
        resp_ok(cx->out);
    }
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

/* Which arguments are the user (0: "default" is meant) and the password. False: the error is said. */
static bool authenticate(struct cx *cx, int user, int password) {
    bool known = !user || (cx->argv[user].n == 7 && !memcmp(cx->argv[user].p, "default", 7));
    if (known && (!*config.requirepass || is_secret(&cx->argv[password], config.requirepass))) {
        cx->client->flags |= CLIENT_AUTHED;
        return true;
    }
    resp_error(cx->out, "WRONGPASS invalid username-password pair or user is disabled.");
    return false;
}

void cmd_auth(struct cx *cx) {
    if (cx->argc > 3) cx_syntax_error(cx);
    else if (cx->argc == 2 && !*config.requirepass)
        resp_error(cx->out, "ERR AUTH <password> called without any password configured for the default user. Are you "
                            "sure your configuration is correct?");
    else if (authenticate(cx, cx->argc - 2, cx->argc - 1)) resp_ok(cx->out);
}

/* Keeps a name that a client gives itself. False: the error is said, what names what may not look so. */
static bool keep_name(struct cx *cx, char **field, const struct arg *name, const char *what) {
    for (size_t i = 0; i < name->n; i++)
        if (name->p[i] < '!' || name->p[i] > '~') {
            resp_errorf(cx->out, "ERR %s cannot contain spaces, newlines or special characters.", what);
            return false;
        }
    free(*field);
    *field = name->n ? strndup(name->p, name->n) : NULL;
    return true;
}

static void reply_hello(struct cx *cx) {
    const struct client *c = cx->client;
    const char *facts[] = {"server", "redis", "version",    REDIS_VERSION, "proto",  NULL,     "id",
                           NULL,     "mode",  "standalone", "role",        "master", "modules"};
    resp_map(cx->out, 7);
    for (int i = 0; i < 13; i++)
        if (facts[i]) resp_bulk_str(cx->out, facts[i]);
        else resp_int(cx->out, i == 5 ? c->proto : (int64_t)c->id);
    resp_array(cx->out, 0);
}

void cmd_hello(struct cx *cx) {
    int64_t proto = cx->client->proto;
    const char *error = NULL;
    if (cx->argc > 1 && !resp_read_int(cx->argv[1].p, cx->argv[1].n, &proto))
        error = "ERR Protocol version is not an integer or out of range";
    else if (proto < 2 || proto > 3) error = "NOPROTO unsupported protocol version";
    for (int i = 2; i < cx->argc && !error; i++) {
        struct arg *option = &cx->argv[i];
        int more = cx->argc - 1 - i;
        if (resp_arg_is(option, "auth") && more >= 2) {
            if (!authenticate(cx, i + 1, i + 2)) return;
            i += 2;
        } else if (resp_arg_is(option, "setname") && more >= 1) {
            if (!keep_name(cx, &cx->client->name, option + 1, "Client names")) return;
            i++;
        } else {
            resp_errorf(cx->out, "ERR Syntax error in HELLO option '%.*s'", (int)option->n, option->p);
            return;
        }
    }
    if (!error && !(cx->client->flags & CLIENT_AUTHED))
        error = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> "
                "<pass> option can be used to authenticate the client and select the RESP protocol version at the "
                "same time";
    if (error) {
        resp_error(cx->out, error);
        return;
    }
    cx->client->proto = (uint8_t)proto;
    cx->out->proto = (int)proto;
    reply_hello(cx);
}

/* ==== CLIENT =================================================================================================== */

void cmd_client_id(struct cx *cx) { resp_int(cx->out, (int64_t)cx->client->id); }

void cmd_client_setname(struct cx *cx) {
    if (keep_name(cx, &cx->client->name, &cx->argv[2], "Client names")) resp_ok(cx->out);
}

void cmd_client_getname(struct cx *cx) {
    if (cx->client->name) resp_bulk_str(cx->out, cx->client->name);
    else resp_null(cx->out);
}

void cmd_client_setinfo(struct cx *cx) {
    bool is_name = resp_arg_is(&cx->argv[2], "lib-name");
    if (!is_name && !resp_arg_is(&cx->argv[2], "lib-ver"))
        resp_errorf(cx->out, "ERR Unrecognized option '%.*s'", (int)cx->argv[2].n, cx->argv[2].p);
    else if (keep_name(cx, is_name ? &cx->client->lib_name : &cx->client->lib_ver, &cx->argv[3],
                       is_name ? "lib-name" : "lib-ver"))
        resp_ok(cx->out);
}

/* Appends text; what INFO and CLIENT LIST are put together with. */
static void put(struct resp_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct resp_out *o, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    vsnprintf(resp_reserve(o, (size_t)n + 1), (size_t)n + 1, fmt, again);
    o->len += (size_t)n;
    va_end(again);
    va_end(ap);
}

static void reply_text(struct cx *cx, struct resp_out *text) {
    resp_verbatim(cx->out, text->buf, text->len);
    resp_out_free(text);
}

/* A command's name as statistics tell it: a subcommand's with its container's in front. */
static void put_command_name(struct resp_out *o, const struct command *c) {
    for (const struct command *row = command_table; row->name; row++)
        for (const struct command *sub = row->subs; sub && sub->name; sub++)
            if (sub == c) put(o, "%s|", row->name);
    put(o, "%s", c ? c->name : "NULL");
}

static void put_client(struct resp_out *o, const struct cx *cx, const struct client *c) {
    static const uint32_t bits[] = {CLIENT_FOLLOWER, CLIENT_LEADER,   CLIENT_MONITOR,     0,
                                    CLIENT_MULTI,    CLIENT_BLOCKED,  CLIENT_CLOSE_AFTER, CLIENT_CLOSING,
                                    CLIENT_UNIX,     CLIENT_NO_EVICT, CLIENT_NO_TOUCH};
    static const char letters[] = "SMOPxbcAUeT";
    char peer[64], local[64], flags[sizeof letters] = "N";
    size_t query, query_free, multi, n = 0, waits = c->own ? resp_out_pending(c->own) : 0;
    size_t total = client_memory(c, &query, &query_free, &multi);
    uint32_t now = (uint32_t)(store_wall_clock() / 1000);
    const struct command *cmd = c == cx->client ? cx->cmd : c->last_cmd;
    client_addresses(c, peer, local);
    for (int i = 0; letters[i]; i++)
        if (letters[i] == 'P' ? c->subs != NULL : c->flags & bits[i]) flags[n++] = letters[i];
    put(o, "id=%" PRIu64 " addr=%s laddr=%s fd=%d name=%s age=%u idle=%u flags=%s db=%d sub=%zu psub=%zu ssub=%zu ",
        c->id, peer, local, c->fd, c->name ? c->name : "", now - c->created, now - c->active, flags, c->db,
        pubsub_count(c, PUBSUB_CHANNEL), pubsub_count(c, PUBSUB_PATTERN), pubsub_count(c, PUBSUB_SHARD));
    put(o,
        "multi=%d qbuf=%zu qbuf-free=%zu argv-mem=0 multi-mem=%zu rbs=0 rbp=0 obl=0 oll=%d omem=%zu tot-mem=%zu "
        "events=%s cmd=",
        client_multi_count(c), query, query_free, multi, waits > 0, waits, total,
        c->flags & CLIENT_WANT_WRITE ? "rw" : "r");
    put_command_name(o, cmd);
    put(o, " user=default redir=-1 resp=%d lib-name=%s lib-ver=%s\n", c->proto, c->lib_name ? c->lib_name : "",
        c->lib_ver ? c->lib_ver : "");
}

void cmd_client_info(struct cx *cx) {
    struct resp_out text = {0};
    put_client(&text, cx, cx->client);
    reply_text(cx, &text);
}

static bool is_type(const struct client *c, const char *type) {
    if (c->flags & CLIENT_LEADER) return !strcmp(type, "master");
    if (c->flags & CLIENT_FOLLOWER) return !strcmp(type, "replica");
    return !strcmp(type, c->subs ? "pubsub" : "normal");
}

void cmd_client_list(struct cx *cx) {
    static const char *const types[] = {"normal", "replica", "pubsub", "master", "slave"};
    struct resp_out text = {0};
    bool by_type = cx->argc == 4 && resp_arg_is(&cx->argv[2], "type");
    bool by_id = cx->argc > 3 && resp_arg_is(&cx->argv[2], "id");
    int type = 0;
    int64_t id = 0;
    while (by_type && type < 5 && !resp_arg_is(&cx->argv[3], types[type])) type++;
    for (int i = 3; by_id && i < cx->argc && id >= 0; i++) {
        if (!resp_read_int(cx->argv[i].p, cx->argv[i].n, &id)) id = -1;
        struct client *c = client_by_id((uint64_t)id);
        if (c) put_client(&text, cx, c);
    }
    for (struct client *c = by_id ? NULL : client_next(NULL); c; c = client_next(c))
        if (!by_type || (type < 5 && is_type(c, types[type == 4 ? 1 : type]))) put_client(&text, cx, c);
    if (cx->argc > 2 && !by_type && !by_id) cx_syntax_error(cx);
    else if (type == 5) resp_errorf(cx->out, "ERR Unknown client type '%.*s'", (int)cx->argv[3].n, cx->argv[3].p);
    else if (id < 0) resp_error(cx->out, "ERR Invalid client ID");
    else resp_verbatim(cx->out, text.buf, text.len);
    resp_out_free(&text);
}

void cmd_client_reply(struct cx *cx) {
    struct client *c = cx->client;
    if (resp_arg_is(&cx->argv[2], "on")) {
        c->flags &= ~(uint32_t)(CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP | CLIENT_REPLY_SKIP_NEXT);
        resp_ok(cx->out);
    } else if (resp_arg_is(&cx->argv[2], "off")) {
        c->flags |= CLIENT_REPLY_OFF;
    } else if (resp_arg_is(&cx->argv[2], "skip")) {
        if (!(c->flags & CLIENT_REPLY_OFF)) c->flags |= CLIENT_REPLY_SKIP_NEXT;
    } else {
        cx_syntax_error(cx);
    }
}

static void switch_flag(struct cx *cx, uint32_t flag) {
    bool on = resp_arg_is(&cx->argv[2], "on");
    if (!on && !resp_arg_is(&cx->argv[2], "off")) {
        cx_syntax_error(cx);
        return;
    }
    cx->client->flags = on ? cx->client->flags | flag : cx->client->flags & ~flag;
    resp_ok(cx->out);
}

void cmd_client_no_evict(struct cx *cx) { switch_flag(cx, CLIENT_NO_EVICT); }
void cmd_client_no_touch(struct cx *cx) { switch_flag(cx, CLIENT_NO_TOUCH); }

/* ==== statistics =============================================================================================== */

#define SAMPLES    16
#define CODES_MAX  64
#define CODE_CHARS 24

enum { RATE_COMMANDS, RATE_IN, RATE_OUT, RATES };

static struct {
    struct {
        int64_t at_us;
        uint64_t count[RATES];
    } samples[SAMPLES];
    unsigned newest;
    size_t peak_memory;
    struct {
        char code[CODE_CHARS];
        uint64_t count;
    } codes[CODES_MAX];
} stats;

void server_sample(void) {
    const uint64_t counts[RATES] = {server_stats.commands, server_stats.net_in, server_stats.net_out};
    stats.newest = (stats.newest + 1) % SAMPLES;
    stats.samples[stats.newest].at_us = server_monotonic_us();
    memcpy(stats.samples[stats.newest].count, counts, sizeof counts);
    if (store_memory() > stats.peak_memory) stats.peak_memory = store_memory();
}

/* A second's share of what was counted over the samples. */
static double rate(int which) {
    unsigned oldest = (stats.newest + 1) % SAMPLES;
    int64_t us = stats.samples[stats.newest].at_us - stats.samples[oldest].at_us;
    uint64_t n = stats.samples[stats.newest].count[which] - stats.samples[oldest].count[which];
    return us > 0 ? (double)n * 1e6 / (double)us : 0;
}

void server_count_error(const char *text) {
    char code[CODE_CHARS];
    int i = 0;
    snprintf(code, sizeof code, "%.*s", (int)strcspn(text, " \r"), text);
    while (i < CODES_MAX - 1 && *stats.codes[i].code && strcmp(stats.codes[i].code, code) != 0) i++;
    if (!*stats.codes[i].code) memcpy(stats.codes[i].code, code, sizeof code);
    stats.codes[i].count++;
    server_stats.errors++;
}

void cmd_config_resetstat(struct cx *cx) {
    server_stats = (struct server_stats){.started_ms = server_stats.started_ms};
    memset(&stats, 0, sizeof stats);
    for (const struct command *row = command_table; row->name; row++)
        for (const struct command *c = row; c && c->name; c = c == row ? row->subs : c + 1)
            *c->stats = (struct command_stats){0};
    resp_ok(cx->out);
}

/* ==== INFO ===================================================================================================== */

/* The rest of a line whose field has such a number. */
#define U64 "%" PRIu64 "\r\n"
#define I64 "%" PRId64 "\r\n"

static const char *human(char buf[32], size_t bytes) {
    double v = (double)bytes;
    int unit = 0;
    for (; v >= 1024 && unit < 4; unit++) v /= 1024;
    snprintf(buf, 32, unit ? "%.2f%c" : "%.0f%c", v, "BKMGT"[unit]);
    return buf;
}

static void put_bytes(struct resp_out *o, const char *name, size_t bytes) {
    char buf[32];
    put(o, "%s:%zu\r\n%s_human:%s\r\n", name, bytes, name, human(buf, bytes));
}

static void info_server(struct resp_out *o) {
    struct utsname system;
    struct timespec now;
    int64_t uptime = (store_wall_clock() - server_stats.started_ms) / 1000;
    uname(&system);
    clock_gettime(CLOCK_REALTIME, &now);
    put(o, "redis_version:%s\r\nechovault_version:%s\r\nredis_mode:standalone\r\nos:%s %s %s\r\narch_bits:%zu\r\n",
        REDIS_VERSION, ECHOVAULT_VERSION, system.sysname, system.release, system.machine, 8 * sizeof(void *));
    put(o, "monotonic_clock:POSIX clock_gettime\r\nmultiplexing_api:epoll\r\ngcc_version:%s\r\nprocess_id:%d\r\n",
        __VERSION__, (int)getpid());
    put(o, "process_supervised:%s\r\nrun_id:%s\r\ntcp_port:%d\r\nserver_time_usec:" I64, config_text("supervised"),
        server_run_id(), config.port, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    put(o, "uptime_in_seconds:" I64 "uptime_in_days:" I64 "hz:%d\r\nconfigured_hz:%d\r\n", uptime, uptime / 86400,
        config.hz, config.hz);
    put(o, "lru_clock:" I64 "executable:%s\r\nconfig_file:%s\r\nio_threads_active:0\r\n",
        store_wall_clock() / 1000 & 0xffffff, server_executable(), config_file());
}

static void info_clients(struct resp_out *o) {
    size_t blocked = 0;
    for (struct client *c = client_next(NULL); c; c = client_next(c)) blocked += !!(c->flags & CLIENT_BLOCKED);
    put(o, "connected_clients:%zu\r\ncluster_connections:0\r\nmaxclients:%d\r\nblocked_clients:%zu\r\n", client_count(),
        config.maxclients, blocked);
    put(o, "tracking_clients:0\r\nclients_in_timeout_table:0\r\n");
}

static void info_memory(struct resp_out *o) {
    size_t used = store_memory() ? store_memory() : 1, data = used - store_table_memory(), pages = 0, clients = 0,
           query, rest, multi;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*u %zu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    for (struct client *c = client_next(NULL); c; c = client_next(c))
        clients += client_memory(c, &query, &rest, &multi);
    if (used > stats.peak_memory) stats.peak_memory = used;
    put_bytes(o, "used_memory", used);
    put_bytes(o, "used_memory_rss", pages * page);
    put_bytes(o, "used_memory_peak", stats.peak_memory);
    put(o, "used_memory_peak_perc:%.2f%%\r\nused_memory_overhead:%zu\r\nused_memory_startup:0\r\n",
        100 * (double)used / (double)stats.peak_memory, used - data);
    put(o, "used_memory_dataset:%zu\r\nused_memory_dataset_perc:%.2f%%\r\n", data, 100 * (double)data / (double)used);
    put_bytes(o, "total_system_memory", (size_t)sysconf(_SC_PHYS_PAGES) * page);
    put_bytes(o, "maxmemory", (size_t)config.maxmemory);
    put(o, "maxmemory_policy:%s\r\nmem_fragmentation_ratio:%.2f\r\nmem_fragmentation_bytes:" I64,
        config_text("maxmemory-policy"), (double)(pages * page) / (double)used, (int64_t)(pages * page - used));
    put(o, "mem_clients_slaves:0\r\nmem_clients_normal:%zu\r\nmem_allocator:libc\r\nactive_defrag_running:0\r\n",
        clients);
}

static void info_loading(struct resp_out *o, const struct persist_info *p) {
    double share = p->load_total ? (double)p->load_done / (double)p->load_total : 0;
    double seconds = (double)(store_wall_clock() - p->load_start_ms) / 1000;
    put(o, "loading_start_time:" I64 "loading_total_bytes:" U64 "loading_loaded_bytes:" U64, p->load_start_ms / 1000,
        p->load_total, p->load_done);
    put(o, "loading_loaded_perc:%.2f\r\nloading_eta_seconds:%.0f\r\n", 100 * share,
        share > 0 ? seconds / share - seconds : 1);
}

static void info_persistence(struct resp_out *o) {
    struct persist_info p;
    persist_info(&p);
    int64_t seconds = p.save_running ? store_wall_clock() / 1000 - p.save_started_s : -1;
    put(o, "loading:%d\r\nasync_loading:0\r\ncurrent_cow_size:0\r\nrdb_changes_since_last_save:" U64, p.loading,
        p.changes_since_save);
    put(o, "rdb_bgsave_in_progress:%d\r\nrdb_last_save_time:" I64 "rdb_last_bgsave_status:%s\r\n", p.save_running,
        p.last_save_s, p.save_ok ? "ok" : "err");
    put(o, "rdb_last_bgsave_time_sec:" I64 "rdb_current_bgsave_time_sec:" I64 "rdb_saves:" U64, p.save_seconds, seconds,
        p.saves);
    put(o, "rdb_last_cow_size:0\r\nrdb_last_load_keys_expired:" U64 "rdb_last_load_keys_loaded:" U64,
        p.keys_expired_loaded, p.keys_loaded);
    put(o, "aof_enabled:%d\r\naof_rewrite_in_progress:%d\r\naof_rewrite_scheduled:0\r\n", p.log_on, p.rewrite_running);
    put(o, "aof_last_rewrite_time_sec:" I64 "aof_current_rewrite_time_sec:" I64, p.rewrite_seconds,
        p.rewrite_running ? seconds : -1);
    put(o, "aof_last_bgrewrite_status:%s\r\naof_last_write_status:%s\r\naof_last_cow_size:0\r\n",
        p.rewrite_ok ? "ok" : "err", p.write_ok ? "ok" : "err");
    if (p.log_on) {
        put(o, "aof_current_size:" U64 "aof_base_size:" U64 "aof_pending_rewrite:0\r\n", p.log_size, p.log_base_size);
        put(o, "aof_buffer_length:" U64 "aof_pending_bio_fsync:" U64 "aof_delayed_fsync:" U64, p.log_buffer,
            p.pending_syncs, p.delayed_syncs);
    }
    if (p.loading) info_loading(o, &p);
}

static void info_stats(struct resp_out *o) {
    const struct server_stats *s = &server_stats;
    put(o, "total_connections_received:" U64 "total_commands_processed:" U64, s->connections, s->commands);
    put(o, "instantaneous_ops_per_sec:%.0f\r\ntotal_net_input_bytes:" U64 "total_net_output_bytes:" U64,
        rate(RATE_COMMANDS), s->net_in, s->net_out);
    put(o, "instantaneous_input_kbps:%.2f\r\ninstantaneous_output_kbps:%.2f\r\nrejected_connections:" U64,
        rate(RATE_IN) / 1024, rate(RATE_OUT) / 1024, s->rejected);
    put(o, "sync_full:0\r\nsync_partial_ok:0\r\nsync_partial_err:0\r\nexpired_keys:" U64 "evicted_keys:0\r\n",
        store_expired_count());
    put(o, "evicted_clients:0\r\nkeyspace_hits:" U64 "keyspace_misses:" U64, s->hits, s->misses);
    put(o, "pubsub_channels:%zu\r\npubsub_patterns:%zu\r\npubsubshard_channels:%zu\r\n",
        pubsub_count(NULL, PUBSUB_CHANNEL), pubsub_count(NULL, PUBSUB_PATTERN), pubsub_count(NULL, PUBSUB_SHARD));
    put(o, "latest_fork_usec:0\r\ntotal_forks:0\r\nmigrate_cached_sockets:0\r\n");
    put(o, "slave_expires_tracked_keys:0\r\ntotal_error_replies:" U64, s->errors);
}

static void info_replication(struct resp_out *o) {
    bool has_id2 = *log_id2();
    put(o, "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_replid:%s\r\n", log_id());
    put(o, "master_replid2:%s\r\nmaster_repl_offset:" U64 "second_repl_offset:" I64,
        has_id2 ? log_id2() : "0000000000000000000000000000000000000000", log_end(),
        has_id2 ? (int64_t)log_id2_end() + 1 : -1);
    put(o, "repl_backlog_active:1\r\nrepl_backlog_size:" I64 "repl_backlog_first_byte_offset:" U64,
        config.repl_backlog_size, log_base() + 1);
    put(o, "repl_backlog_histlen:" U64, log_end() - log_base());
}

static void info_cpu(struct resp_out *o) {
    static const char *const suffixes[] = {"", "_children", "_main_thread"};
    static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD};
    for (int i = 0; i < 3; i++) {
        struct rusage u;
        getrusage(whose[i], &u);
        put(o, "used_cpu_sys%s:%ld.%06ld\r\n", suffixes[i], (long)u.ru_stime.tv_sec, (long)u.ru_stime.tv_usec);
        put(o, "used_cpu_user%s:%ld.%06ld\r\n", suffixes[i], (long)u.ru_utime.tv_sec, (long)u.ru_utime.tv_usec);
    }
}

static void info_commandstats(struct resp_out *o) {
    for (const struct command *row = command_table; row->name; row++)
        for (const struct command *c = row; c && c->name; c = c == row ? row->subs : c + 1) {
            const struct command_stats *s = c->stats;
            if (!(s->calls | s->rejected)) continue;
            put(o, "cmdstat_");
            put_command_name(o, c);
            put(o, ":calls=%" PRIu64 ",usec=%" PRIu64 ",usec_per_call=%.2f,", s->calls, s->ns / 1000,
                s->calls ? (double)s->ns / 1000 / (double)s->calls : 0.0);
            put(o, "rejected_calls=%" PRIu64 ",failed_calls=" U64, s->rejected, s->failed);
        }
}

static void info_errorstats(struct resp_out *o) {
    for (int i = 0; i < CODES_MAX && *stats.codes[i].code; i++)
        put(o, "errorstat_%s:count=" U64, stats.codes[i].code, stats.codes[i].count);
}

static void info_cluster(struct resp_out *o) { put(o, "cluster_enabled:0\r\n"); }

static void info_keyspace(struct resp_out *o) {
    for (int i = 0; i < store_databases(); i++) {
        const struct db *db = store_db(i);
        if (!store_size(db)) continue;
        put(o, "db%d:keys=%zu,expires=%zu,avg_ttl=" I64, i, store_size(db), store_volatile(db), store_avg_ttl(db));
    }
}

static const struct section {
    const char *name, *heading;
    void (*print)(struct resp_out *o);
} sections[] = {{"server", "Server", info_server},
                {"clients", "Clients", info_clients},
                {"memory", "Memory", info_memory},
                {"persistence", "Persistence", info_persistence},
                {"stats", "Stats", info_stats},
                {"replication", "Replication", info_replication},
                {"cpu", "CPU", info_cpu},
                {"modules", "Modules", NULL},
                {"commandstats", "Commandstats", info_commandstats},
                {"errorstats", "Errorstats", info_errorstats},
                {"cluster", "Cluster", info_cluster},
                {"keyspace", "Keyspace", info_keyspace}};

void cmd_info(struct cx *cx) {
    struct resp_out text = {0};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        const struct section *s = &sections[i];
        bool usual = s->print != info_commandstats, wanted = usual && cx->argc == 1;
        for (int j = 1; j < cx->argc && !wanted; j++)
            wanted = resp_arg_is(&cx->argv[j], s->name) || resp_arg_is(&cx->argv[j], "all") ||
                     resp_arg_is(&cx->argv[j], "everything") || (usual && resp_arg_is(&cx->argv[j], "default"));
        if (!wanted) continue;
        put(&text, "%s# %s\r\n", text.len ? "\r\n" : "", s->heading);
        if (s->print) s->print(&text);
    }
    reply_text(cx, &text);
}

/* ==== the clock, saving, the end =============================================================================== */

void cmd_time(struct cx *cx) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    resp_array(cx->out, 2);
    resp_bulk_int(cx->out, now.tv_sec);
    resp_bulk_int(cx->out, now.tv_nsec / 1000);
}

void cmd_lastsave(struct cx *cx) {
    struct persist_info info;
    persist_info(&info);
    resp_int(cx->out, info.last_save_s);
}

void cmd_save(struct cx *cx) {
    if (snap_running()) resp_error(cx->out, "ERR Background save already in progress");
    else if (snap_save()) resp_error(cx->out, "ERR");
    else resp_ok(cx->out);
}

void cmd_bgsave(struct cx *cx) {
    if (cx->argc > 2 || (cx->argc == 2 && !resp_arg_is(&cx->argv[1], "schedule"))) cx_syntax_error(cx);
    else if (snap_running()) resp_error(cx->out, "ERR Background save already in progress");
    else if (snap_begin()) resp_errorf(cx->out, "ERR %s", strerror(errno));
    else resp_status(cx->out, "Background saving started");
}

/* A snapshot that runs already shortens the log as well when it is done. */
void cmd_bgrewriteaof(struct cx *cx) {
    struct persist_info info;
    persist_info(&info);
    if (info.rewrite_running) resp_error(cx->out, "ERR Background append only file rewriting already in progress");
    else if (snap_running()) resp_status(cx->out, "Background append only file rewriting scheduled");
    else if (log_rewrite()) resp_errorf(cx->out, "ERR %s", strerror(errno));
    else resp_status(cx->out, "Background append only file rewriting started");
}

void cmd_shutdown(struct cx *cx) {
    static const char *const words[] = {"nosave", "save", "now", "force", "abort"};
    enum { NOSAVE = 1, SAVE = 2, NOW = 4, FORCE = 8, ABORT = 16 };
    int set = 0;
    for (int i = 1; i < cx->argc; i++) {
        int w = 0;
        while (w < 5 && !resp_arg_is(&cx->argv[i], words[w])) w++;
        set |= 1 << w; /* 32: none of these */
    }
    if (set & 32 || (set & ABORT && set != ABORT) || (set & NOSAVE && set & SAVE)) cx_syntax_error(cx);
    else if (set & ABORT) resp_error(cx->out, "ERR No shutdown in progress.");
    else server_stop(cx, set & SAVE, set & NOSAVE, set & NOW, set & FORCE);
}

/* ==== HELP ===================================================================================================== */

/* One line of HELP: a word in capitals and what belongs to it. */
static void reply_line(struct cx *cx, const char *word, const char *rest) {
    char line[256];
    size_t n = 0;
    for (; *word; word++) line[n++] = (char)(*word >= 'a' && *word <= 'z' ? *word - 32 : *word);
    snprintf(line + n, sizeof line - n, "%s%s", *rest && n ? " " : "", rest);
    resp_status(cx->out, line);
}

static void reply_help(struct cx *cx, const char *container, const struct command *subs) {
    size_t mark = resp_later(cx->out), n = 3;
    char text[256];
    reply_line(cx, container, "<subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for (const struct command *c = subs; c->name; c++) {
        if (!strcmp(c->name, "help")) continue;
        reply_line(cx, c->name, c->syntax);
        snprintf(text, sizeof text, "    %s.", c->summary);
        resp_status(cx->out, text);
        n += 2;
    }
    resp_status(cx->out, "HELP");
    resp_status(cx->out, "    Prints this help.");
    resp_later_array(cx->out, mark, n);
}

void cmd_help(struct cx *cx) { reply_help(cx, cx->container->name, cx->container->subs); }

/* ==== SHA-1 ==================================================================================================== */

static uint32_t rotate(uint32_t v, int n) { return v << n | v >> (32 - n); }

static void sha1_block(uint32_t h[5], const unsigned char *p) {
    static const uint32_t k[] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
        uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

static void sha1(const void *data, size_t n, unsigned char out[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const unsigned char *p = data;
    unsigned char tail[128] = {0};
    size_t rest = n % 64, tail_n = rest < 56 ? 64 : 128;
    for (size_t i = 0; i < n / 64; i++) sha1_block(h, p + 64 * i);
    if (rest) memcpy(tail, p + n - rest, rest);
    tail[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) tail[tail_n - 1 - i] = (unsigned char)((uint64_t)n * 8 >> 8 * i);
    for (size_t i = 0; i < tail_n; i += 64) sha1_block(h, tail + i);
    for (size_t i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* ==== DEBUG ==================================================================================================== */

struct digest {
    unsigned char bytes[20];
};

static void digest_xor(struct digest *d, const void *p, size_t n) {
    unsigned char hash[20];
    sha1(p, n, hash);
    for (int i = 0; i < 20; i++) d->bytes[i] ^= hash[i];
}

static void digest_mix(struct digest *d, const void *p, size_t n) {
    digest_xor(d, p, n);
    sha1(d->bytes, 20, d->bytes);
}

static void digest_value(struct digest *d, const struct entry *e) {
    size_t n;
    const char *p = store_value(e, &n);
    digest_mix(d, "\0\0\0\0", 4); /* the type: a string */
    digest_mix(d, p, n);
    if (store_deadline(e) != STORE_NO_DEADLINE) digest_xor(d, "!!expire!!", 10);
}

static void digest_entry(void *all, struct entry *e) {
    struct digest d = {0};
    size_t n;
    const char *key = store_key(e, &n);
    digest_mix(&d, key, n);
    digest_value(&d, e);
    digest_xor(all, d.bytes, 20);
}

static void reply_digest(struct cx *cx, const struct digest *d) {
    char hex[41];
    for (size_t i = 0; i < 20; i++) snprintf(hex + 2 * i, 3, "%02x", d->bytes[i]);
    resp_status(cx->out, hex);
}

static void debug_digest(struct cx *cx) {
    struct digest all = {0};
    for (int i = 0; i < store_databases(); i++) {
        uint32_t id = htonl((uint32_t)i);
        uint64_t cursor = 0;
        if (!store_size(store_db(i))) continue;
        digest_mix(&all, &id, sizeof id);
        do cursor = store_scan(store_db(i), cursor, digest_entry, &all);
        while (cursor);
    }
    reply_digest(cx, &all);
}

static void debug_digest_value(struct cx *cx) {
    resp_array(cx->out, (size_t)cx->argc - 2);
    for (int i = 2; i < cx->argc; i++) {
        struct digest d = {0};
        struct entry *e = store_peek(cx->db, &cx->argv[i]);
        if (e) digest_value(&d, e);
        reply_digest(cx, &d);
    }
}

static void debug_sleep(struct cx *cx) {
    char text[32];
    snprintf(text, sizeof text, "%.*s", (int)cx->argv[2].n, cx->argv[2].p);
    double seconds = strtod(text, NULL);
    struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
    resp_ok(cx->out);
}

static void debug_set_active_expire(struct cx *cx) {
    store_set_sweep(cx->argv[2].n && *cx->argv[2].p != '0');
    resp_ok(cx->out);
}

static void debug_object(struct cx *cx) {
    struct entry *e = store_peek(cx->db, &cx->argv[2]);
    struct resp_out dump = {0};
    int64_t v;
    size_t n;
    if (!e) {
        resp_error(cx->out, "ERR no such key");
        return;
    }
    const char *p = store_value(e, &n), *encoding = n <= 44 ? "embstr" : "raw";
    if (store_is_raw(e)) encoding = "raw";
    else if (n < RESP_INT_MAX && resp_read_int(p, n, &v)) encoding = "int";
    rdb_dump(&dump, p, n);
    char line[256];
    snprintf(line, sizeof line, "Value at:%p refcount:1 encoding:%s serializedlength:%zu lru:%u lru_seconds_idle:%u",
             (const void *)p, encoding, dump.len - 11, (uint32_t)(store_wall_clock() / 1000 - store_idle(e)) & 0xffffff,
             store_idle(e));
    resp_status(cx->out, line);
    resp_out_free(&dump);
}

static void debug_reload(struct cx *cx) {
    bool nosave = cx->argc == 3 && resp_arg_is(&cx->argv[2], "nosave");
    cx->log_never = true;
    if (cx->argc > 2 && !nosave) resp_error(cx->out, "ERR DEBUG RELOAD only supports the NOSAVE option.");
    else if (persist_reload(!nosave)) resp_error(cx->out, "ERR Error trying to load the RDB dump, check server logs.");
    else resp_ok(cx->out);
}

static void debug_loadaof(struct cx *cx) {
    cx->log_never = true;
    if (persist_reload(false)) resp_error(cx->out, "ERR Error trying to load the AOF files, check server logs.");
    else resp_ok(cx->out);
}

static void debug_change_repl_id(struct cx *cx) {
    log_new_id();
    resp_ok(cx->out);
}

static void debug_help(struct cx *cx);

#define ROW(n, f, a, sy, su)                                                                                           \
    { .name = (n), .fn = (f), .arity = (a), .syntax = (sy), .summary = (su) }
static const struct command debug_rows[] = {
    ROW("change-repl-id", debug_change_repl_id, 2, "", "Takes a new replication id"),
    ROW("digest", debug_digest, 2, "", "A sum over all data, Redis's for the same data"),
    ROW("digest-value", debug_digest_value, -2, "[<key> ...]", "The same over values"),
    ROW("help", debug_help, 2, "", ""),
    ROW("loadaof", debug_loadaof, 2, "", "Empties the databases and loads what is on the disk"),
    ROW("object", debug_object, 3, "<key>", "How a value is kept"),
    ROW("reload", debug_reload, -2, "[NOSAVE]", "The same, after saving a snapshot"),
    ROW("set-active-expire", debug_set_active_expire, 3, "<0|1>", "Whether expired keys are looked for"),
    ROW("sleep", debug_sleep, 3, "<seconds>", "Answers no one for so long"),
    {.name = NULL},
};

static void debug_help(struct cx *cx) { reply_help(cx, "debug", debug_rows); }

void cmd_debug(struct cx *cx) {
    const struct command *c = debug_rows;
    if (!config_permits(config.enable_debug_command, cx->client)) {
        resp_error(cx->out,
                   "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you "
                   "can run it from a local connection, otherwise you need to set this option in the "
                   "configuration file, and then restart the server.");
        return;
    }
    while (c->name && !resp_arg_is(&cx->argv[1], c->name)) c++;
    if (c->name && (c->arity < 0 ? cx->argc >= -c->arity : cx->argc == c->arity)) c->fn(cx);
    else
        resp_errorf(cx->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try DEBUG HELP.",
                    (int)(cx->argv[1].n < 128 ? cx->argv[1].n : 128), cx->argv[1].p);
}
