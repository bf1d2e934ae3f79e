/* observe.c - how a running server is looked at: where its time goes (SLOWLOG, LATENCY, MONITOR), where its memory.
 *
 * Reading the clock for every command would cost a tenth of a GET. So the table's rows say which commands are brief:
 * they take about as long whatever the data is. Dispatch reads the clock once for a window of 8 commands and shares
 * its time out among the brief ones; all others, those with many arguments and those in a transaction are looked at one
 * by one. So what can take long is always found, with its own time and arguments. What is approximate:
 *   - a brief command's time, in INFO and LATENCY HISTOGRAM, is the average of its window; the sums are right;
 *   - a brief command that the machine keeps waiting (paging, a stolen processor) is not in the slow log;
 *   - a percentile is the bound of a bucket, so up to twice the time.
 * While more is asked for (slowlog-log-slower-than below 1 ms, latency-monitor-threshold, MONITOR), every command is
 * looked at. Its arguments are read after it has run, as they are for the log.
 *
 * Left out: events of the helper thread, such as a sync that replies wait for.
 */
#include "commands.h"

#include <malloc.h>

#define ALL_BELOW_US 1000 /* a slow log that begins below it wants every command looked at */
#define ARGS_SHOWN   32   /* in the slow log: of a command, and of one of them so many bytes */
#define BYTES_SHOWN  128
#define KEPT         160 /* samples of an event */
#define NS_FIRST     64  /* a histogram's bucket 0: the times up to it; the next: up to twice that, ... */
#define BUCKET_US    4   /* up to 1,024 ns: where LATENCY HISTOGRAM begins */
#define INT          ":%" PRId64 "\r\n"

bool observe_all = true; /* until a command has been looked at, and with it the options */

/* ==== the slow log ============================================================================================= */

static TAILQ_HEAD(slows, slow) slows = TAILQ_HEAD_INITIALIZER(slows); /* the newest first */
struct slow {
    TAILQ_ENTRY(slow) link;
    struct resp_out reply; /* the same bytes in RESP2 and RESP3 */
};
static int64_t nslows, next_slow;

static void slows_trim(int64_t max) {
    for (struct slow *oldest; nslows > max; nslows--) {
        oldest = TAILQ_LAST(&slows, slows);
        TAILQ_REMOVE(&slows, oldest, link);
        resp_out_free(&oldest->reply);
        free(oldest);
    }
}

/* Argument i as it may be shown: passwords are shown to nobody. */
static const struct arg *shown(const struct cx *cx, int i) {
    static const struct arg redacted = {.p = "(redacted)", .n = 10};
    const struct arg *a = &cx->argv[i];
    command_fn *fn = cx->cmd->fn;
    bool secret = (fn == cmd_auth && i > 0 && cx->argc <= 3) ||
                  (fn == cmd_hello && i > 2 && (resp_arg_is(a - 1, "auth") || resp_arg_is(a - 2, "auth"))) ||
                  (fn == cmd_acl_setuser && i > 1) ||
                  (fn == cmd_config_set && i % 2 && resp_arg_is(a - 1, "requirepass masterauth masteruser"));
    return secret ? &redacted : a;
}

static void slows_add(const struct cx *cx, int64_t us) {
    char text[BYTES_SHOWN + 48];
    struct slow *s = resp_need(calloc(1, sizeof *s));
    int args = cx->argc < ARGS_SHOWN ? cx->argc : ARGS_SHOWN;
    resp_printf(&s->reply, "*6\r\n" INT INT INT "*%d\r\n", next_slow++, store_wall_clock() / 1000, us, args);
    for (int i = 0; i < args; i++) {
        const struct arg *a = shown(cx, i);
        size_t n = a->n < BYTES_SHOWN ? a->n : BYTES_SHOWN;
        memcpy(text, a->p, n);
        if (i + 1 == args && args < cx->argc) n = (size_t)sprintf(text, "... (%d more arguments)", cx->argc - i);
        else if (a->n > n) n += (size_t)sprintf(text + n, "... (%zu more bytes)", a->n - n);
        resp_bulk(&s->reply, text, n);
    }
    resp_bulk_str(&s->reply, client_peer(cx->client).text);
    resp_bulk_str(&s->reply, cx->client->name ? cx->client->name : "");
    TAILQ_INSERT_HEAD(&slows, s, link);
    nslows++;
    slows_trim(config.slowlog_max_len);
}

void cmd_slowlog_get(struct cx *cx) {
    int64_t n = 10;
    bool well = cx->argc < 3 || (resp_read_int(cx->argv[2].p, cx->argv[2].n, &n) && n >= -1);
    if (!cx_at_most(cx, 3) || !cx_check(cx, well, "ERR count should be greater than or equal to -1")) return;
    if (n < 0 || n > nslows) n = nslows;
    resp_array(cx->out, (size_t)n);
    for (struct slow *s = TAILQ_FIRST(&slows); n--; s = TAILQ_NEXT(s, link))
        resp_raw(cx->out, s->reply.buf, s->reply.len);
}

void cmd_slowlog_len(struct cx *cx) { resp_int(cx->out, nslows); }

void cmd_slowlog_reset(struct cx *cx) {
    slows_trim(0);
    resp_ok(cx->out);
}

/* ==== MONITOR ================================================================================================== */

static struct client **monitors;
static size_t nmonitors, monitors_cap;

void cmd_monitor(struct cx *cx) {
    if (!cx_check(cx, !(cx->client->flags & CLIENT_MULTI), "ERR MONITOR isn't allowed for DENY BLOCKING client") ||
        cx->client->flags & (CLIENT_MONITOR | CLIENT_FOLLOWER))
        return;
    PUSH(monitors, nmonitors, monitors_cap, cx->client);
    cx->client->flags |= CLIENT_MONITOR;
    resp_ok(cx->out);
}

void observe_forget(struct client *c) {
    for (size_t i = 0; i < nmonitors; i++)
        if (monitors[i] == c) monitors[i] = monitors[--nmonitors];
    c->flags &= ~(uint32_t)CLIENT_MONITOR;
}

void observe_monitored(const struct cx *cx) {
    if (!nmonitors || cx->cmd->flags & CMD_ADMIN) return;
    struct address peer = client_peer(cx->client);
    struct resp_out line = {0};
    int64_t us = store_clock_ns(CLOCK_REALTIME) / 1000;
    if (cx->client->flags & CLIENT_UNIX) snprintf(peer.text, sizeof peer.text, "unix:%.58s", config.unixsocket);
    resp_printf(&line, "+%" PRId64 ".%06" PRId64 " [%d %s]", us / 1000000, us % 1000000, cx->client->db, peer.text);
    for (int i = 0; i < cx->argc; i++) {
        resp_raw(&line, " ", 1);
        resp_quoted(&line, shown(cx, i)->p, shown(cx, i)->n);
    }
    resp_raw(&line, "\r\n", 2);
    for (size_t i = 0; i < nmonitors; i++)
        if (!(monitors[i]->flags & (CLIENT_CLOSING | CLIENT_CLOSE_AFTER)) && !client_is_silent(monitors[i]))
            resp_raw(client_output(monitors[i]), line.buf, line.len);
    resp_out_free(&line);
}

/* ==== LATENCY: what took long ================================================================================== */

static struct event {
    const char *name, *advice;
    size_t n; /* samples ever taken */
    int64_t worst_ms;
    struct sample {
        int64_t s, ms;
    } samples[KEPT]; /* a ring; each the worst of its second */
} events[EVENTS] = {
    {.name = "command", .advice = "SLOWLOG GET tells which commands took long, and their arguments."},
    {.name = "fast-command", .advice = "The machine kept it waiting: paging, or a busy processor?"},
    {.name = "expire-cycle", .advice = "Much expired or was flushed at once, or the machine kept it waiting."},
    {.name = "eviction-cycle", .advice = "maxmemory is passed fast, by big values or all at once."},
    {.name = "snapshot", .advice = "The machine kept a slice of it waiting: paging, or a busy processor?"},
    {.name = "aof-write", .advice = "The kernel was slow to take the log: what else writes to that disk?"}};

/* Sample i of all that were ever taken, as long as it is kept. */
static struct sample *sample(struct event *e, size_t i) { return &e->samples[i % KEPT]; }

static void event_add(enum observed event, int64_t ms) {
    struct event *e = &events[event];
    int64_t s = store_wall_clock() / 1000;
    if (!config.latency_threshold || ms < config.latency_threshold) return;
    if (!e->n || sample(e, e->n - 1)->s != s) *sample(e, e->n++) = (struct sample){.s = s};
    struct sample *last = sample(e, e->n - 1);
    if (ms > last->ms) last->ms = ms;
    if (ms > e->worst_ms) e->worst_ms = ms;
}

int64_t observe_event(enum observed event, int64_t began) {
    int64_t now = observe_clock();
    event_add(event, (now - began) / 1000000);
    return now;
}

/* The first from e on that has happened and that the arguments from the third on name, where there are any, or NULL. */
static struct event *meant(const struct cx *cx, struct event *e) {
    while (e < events + EVENTS && !(e->n && (cx->argc == 2 || cx_given(cx, e->name)))) e++;
    return e < events + EVENTS ? e : NULL;
}

void cmd_latency_latest(struct cx *cx) {
    size_t mark = resp_later(cx->out), n = 0;
    for (struct event *e = events; (e = meant(cx, e)); e++, n++) {
        resp_array(cx->out, 4);
        resp_bulk_str(cx->out, e->name);
        resp_printf(cx->out, INT INT INT, sample(e, e->n - 1)->s, sample(e, e->n - 1)->ms, e->worst_ms);
    }
    resp_later_array(cx->out, mark, n);
}

void cmd_latency_history(struct cx *cx) {
    size_t mark = resp_later(cx->out), n = 0;
    for (struct event *e = events; (e = meant(cx, e)); e++)
        for (size_t i = e->n < KEPT ? 0 : e->n - KEPT; i < e->n; i++, n++)
            resp_printf(cx->out, "*2\r\n" INT INT, sample(e, i)->s, sample(e, i)->ms);
    resp_later_array(cx->out, mark, n);
}

/* A column for each sample: how far it is above the lowest, and, downwards, how long ago it was. */
void cmd_latency_graph(struct cx *cx) {
    enum { ROWS = 4, WIDTH = 80 }; /* a row has three heights, and full */
    static const int64_t units[] = {1, 60, 3600, 86400, INT64_MAX};
    char grid[ROWS + 1 + RESP_INT_MAX][KEPT], label[RESP_INT_MAX + 1];
    size_t rows[KEPT / WIDTH] = {0};
    struct event *e = meant(cx, events);
    if (!cx_checkf(cx, e, "ERR No samples available for event '%.*s'", (int)cx->argv[2].n, cx->argv[2].p)) return;
    size_t n = e->n < KEPT ? e->n : KEPT;
    int64_t low = e->samples[0].ms, high = low;
    for (size_t i = 0; i < n; i++) {
        if (e->samples[i].ms < low) low = e->samples[i].ms;
        if (e->samples[i].ms > high) high = e->samples[i].ms;
    }
    memset(grid, ' ', sizeof grid);
    for (size_t i = 0; i < n; i++) {
        size_t unit = 0, below = ROWS + 1;
        const struct sample *x = sample(e, e->n - n + i);
        int64_t above = x->ms - low, ago = store_wall_clock() / 1000 - x->s;
        int64_t range = high - low, height = range ? (above * 3 * ROWS - (above == range)) / range : 0;
        for (int64_t row = ROWS - 1; row >= 0 && height >= 0; row--, height -= 3)
            grid[row][i] = "_o#|"[height < 3 ? height : 3];
        while (ago >= units[unit + 1]) unit++;
        snprintf(label, sizeof label, "%" PRId64 "%c", ago / units[unit], "smhd"[unit]);
        for (char *p = label; *p; p++) grid[below++][i] = *p;
        if (below > rows[i / WIDTH]) rows[i / WIDTH] = below;
    }
    size_t mark = resp_later(cx->out);
    resp_printf(cx->out, "%s - high %" PRId64 " ms, low %" PRId64 " ms (all time high %" PRId64 " ms)\n%s\n", e->name,
                high, low, e->worst_ms,
                "--------------------------------------------------------------------------------");
    for (size_t i = 0; i < n; i += WIDTH)
        for (size_t row = 0; row < rows[i / WIDTH]; row++)
            resp_printf(cx->out, "%s%.*s\n", i && !row ? "\n" : "", n - i < WIDTH ? (int)(n - i) : WIDTH,
                        grid[row] + i);
    resp_later_text(cx->out, mark);
}

void cmd_latency_reset(struct cx *cx) {
    int64_t n = 0;
    for (struct event *e = events; (e = meant(cx, e)); e++, n++)
        *e = (struct event){.name = e->name, .advice = e->advice};
    resp_int(cx->out, n);
}

void cmd_latency_doctor(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    for (struct event *e = events; (e = meant(cx, e)); e++)
        resp_printf(cx->out, "%s: in %zu seconds, at worst %" PRId64 " ms. %s\n", e->name, e->n, e->worst_ms,
                    e->advice);
    if (cx->out->len == mark)
        resp_printf(cx->out, "Nothing took long, or latency-monitor-threshold is 0: nothing is watched.\n");
    resp_later_text(cx->out, mark);
}

/* ==== how long commands take =================================================================================== */

void observe_share(const struct command *const *rows, int n, int64_t ns) {
    uint64_t share = (uint64_t)ns / (uint64_t)n, units = (share ? share - 1 : 0) / NS_FIRST;
    int bucket = units ? 64 - __builtin_clzll(units) : 0;
    if (bucket >= LATENCY_BUCKETS) bucket = LATENCY_BUCKETS - 1;
    for (int i = 0; i < n; i++) {
        rows[i]->stats->ns += share;
        rows[i]->stats->latency[bucket] += config.latency_tracking;
    }
}

int64_t observe_look(const struct cx *cx, int64_t began) {
    int64_t ns = observe_clock() - began, us = ns / 1000, least = config.slowlog_slower_than;
    observe_share(&cx->cmd, 1, ns);
    if (least >= 0 && us >= least && !(cx->cmd->flags & CMD_NO_SLOWLOG)) slows_add(cx, us);
    event_add(cx->cmd->flags & CMD_FAST ? EVENT_FAST : EVENT_COMMAND, us / 1000);
    observe_monitored(cx);
    observe_all = nmonitors || config.latency_threshold || (least >= 0 && least < ALL_BELOW_US);
    return ns;
}

static uint64_t timed(const struct command *c) {
    uint64_t n = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++) n += c->stats->latency[i];
    return n;
}

static size_t put_histogram(struct resp_out *o, const struct command *c) {
    if (!timed(c)) return 0;
    resp_bulk_str(o, c->name);
    resp_map(o, 2);
    resp_pair_int(o, "calls", (int64_t)timed(c));
    resp_bulk_str(o, "histogram_usec");
    size_t mark = resp_later(o), pairs = 0;
    for (uint64_t i = 0, seen = 0, told = 0; i < LATENCY_BUCKETS; i++) {
        seen += c->stats->latency[i];
        if (i < BUCKET_US || seen == told) continue;
        told = seen;
        pairs++; /* the bounds have the names that Redis's finer histogram gives them */
        resp_printf(o, INT INT, (INT64_C(1032) << (i - BUCKET_US)) / 1000, (int64_t)seen);
    }
    resp_later_map(o, mark, pairs);
    return 1;
}

void cmd_latency_histogram(struct cx *cx) {
    size_t mark = resp_later(cx->out), n = 0;
    for (const struct command *c = command_table; cx->argc == 2 && c->name; c++) n += put_histogram(cx->out, c);
    for (int i = 2; i < cx->argc; i++) {
        const struct command *c = command_named(&cx->argv[i]);
        for (int k = c ? command_subs(c) : -1; k >= 0; k--) n += put_histogram(cx->out, &c[k]);
    }
    resp_later_map(cx->out, mark, n);
}

void observe_latencystats(struct resp_out *o) {
    for (const struct command *c = command_table; c->name; c++) {
        if (timed(c)) resp_printf(o, "latency_percentiles_usec_%s:", c->name);
        for (char *p = config.latency_percentiles, *end; timed(c) && *p; p = end + strspn(end, " ")) {
            double percent = strtod(p, &end), target = percent / 100 * (double)timed(c);
            uint64_t seen = c->stats->latency[0];
            int i = 0;
            while (i < LATENCY_BUCKETS - 1 && (!seen || (double)seen < target)) seen += c->stats->latency[++i];
            resp_printf(o, "p%.8g=%.3f%s", percent, (double)(INT64_C(1) << i) * NS_FIRST / 1000, *end ? "," : "");
        }
        if (timed(c)) resp_printf(o, "\r\n");
    }
}

/* ==== memory =================================================================================================== */

void cmd_memory_usage(struct cx *cx) {
    struct entry *e = store_peek(cx->db, &cx->argv[2]);
    struct cx_options o; /* SAMPLES is for a collection's elements: a string has none */
    if (!cx_options(cx, 3, "samples", 0, 1, 0, &o)) return;
    if (cx_or_null(cx, e)) resp_int(cx->out, (int64_t)store_entry_memory(e));
}

void cmd_memory_stats(struct cx *cx) {
    struct memory m = server_memory();
    int64_t keys = (int64_t)store_keys(store_db);
    const char *const names[] = {"peak.allocated",      "total.allocated", "clients.slaves",
                                 "clients.normal",      "overhead.total",  "dataset.bytes",
                                 "fragmentation.bytes", "keys.count",      "keys.bytes-per-key"};
    const int64_t values[] = {m.peak,         m.used,   m.followers,
                              m.clients,      m.tables, m.used - m.tables,
                              m.rss - m.used, keys,     keys ? m.used / keys : 0};
    resp_map(cx->out, sizeof values / sizeof *values);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) resp_pair_int(cx->out, names[i], values[i]);
}

/* MALLOC-STATS as well. */
void cmd_memory_doctor(struct cx *cx) {
    struct memory m = server_memory();
    size_t mark = resp_later(cx->out);
    bool much = m.rss > m.used + m.used / 2 + (20 << 20);
    resp_printf(cx->out, "%" PRId64 " bytes in use, at most %" PRId64 "; the process holds %" PRId64 "%s.\n", m.used,
                m.peak, m.rss, much ? ": much, in room that deleted keys left, or for clients (CLIENT LIST)" : "");
    resp_later_text(cx->out, mark);
}

void cmd_memory_purge(struct cx *cx) {
    malloc_trim(0); /* chunks without a key go back by themselves, a few each turn */
    resp_ok(cx->out);
}
