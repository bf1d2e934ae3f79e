/* clients.c - CLIENT: who is connected, and what may be done about them.
 *
 * Pausing is decided here, and done by dispatch: it keeps a paused client's command as it is and runs it when the pause
 * is over. The client is blocked until then, so that what it sent behind waits as well.
 *
 * Left out: client-side caching (CLIENT TRACKING and its kin).
 */
#include "commands.h"

#include <netdb.h>
#include <sys/socket.h>

/* ==== addresses ================================================================================================ */

struct address client_address(const struct client *c, bool ours) {
    struct address a;
    struct sockaddr_storage ss = {0};
    struct sockaddr *sa = (struct sockaddr *)&ss;
    socklen_t n = sizeof ss;
    char ip[48], port[8];
    int failed = ours ? getsockname(c->fd, sa, &n) : getpeername(c->fd, sa, &n);
    if (failed || ss.ss_family == AF_UNIX ||
        getnameinfo(sa, n, ip, sizeof ip, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(a.text, sizeof a.text, "%.60s:0", config.unixsocket);
    else snprintf(a.text, sizeof a.text, ss.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", ip, port);
    return a;
}

/* ==== one's own connection ===================================================================================== */

void cmd_client_id(struct cx *cx) { resp_int(cx->out, (int64_t)cx->client->id); }

void cmd_client_setname(struct cx *cx) {
    if (client_keep_name(cx, &cx->client->name, &cx->argv[2], "Client names")) resp_ok(cx->out);
}

void cmd_client_getname(struct cx *cx) {
    if (cx_or_null(cx, cx->client->name)) resp_bulk_str(cx->out, cx->client->name);
}

void cmd_client_setinfo(struct cx *cx) {
    bool name = resp_arg_is(&cx->argv[2], "lib-name"), version = resp_arg_is(&cx->argv[2], "lib-ver");
    char **field = name ? &cx->client->lib_name : &cx->client->lib_ver;
    if (!name && !version) resp_errorf(cx->out, "ERR Unrecognized option '%.*s'", (int)cx->argv[2].n, cx->argv[2].p);
    else if (client_keep_name(cx, field, &cx->argv[3], name ? "lib-name" : "lib-ver")) resp_ok(cx->out);
}

void client_describe(struct resp_out *o, const struct cx *cx, const struct client *c) {
    static const char letters[] = "SMOPxbdcAUeT";
    const uint32_t f = c->flags;
    const bool set[] = {f & CLIENT_FOLLOWER, f & CLIENT_LEADER,  f & CLIENT_MONITOR,   c->subs,
                        f & CLIENT_MULTI,    f & CLIENT_BLOCKED, transaction_stale(c), f & CLIENT_CLOSE_AFTER,
                        f & CLIENT_CLOSING,  f & CLIENT_UNIX,    f & CLIENT_NO_EVICT,  f & CLIENT_NO_TOUCH};
    char flags[sizeof letters + 1] = "N";
    size_t query, query_free, multi, n = 0, waits = c->own ? resp_out_pending(c->own) : 0;
    size_t total = client_memory(c, &query, &query_free, &multi);
    uint32_t idle = (uint32_t)client_silence(c);
    const struct command *cmd = c == cx->client ? cx->cmd : c->last_cmd;
    for (int i = 0; letters[i]; i++)
        if (set[i]) flags[n++] = letters[i];
    resp_printf(o, "id=%" PRIu64 " addr=%s laddr=%s fd=%d name=%s age=%u idle=%u flags=%s db=%d ", c->id,
                client_address(c, false).text, client_address(c, true).text, c->fd, c->name ? c->name : "",
                c->active + idle - c->created, idle, flags, c->db);
    resp_printf(o, "sub=%zu psub=%zu ssub=%zu ", pubsub_count(c, PUBSUB_CHANNEL), pubsub_count(c, PUBSUB_PATTERN),
                pubsub_count(c, PUBSUB_SHARD));
    resp_printf(o, "multi=%d qbuf=%zu qbuf-free=%zu multi-mem=%zu obl=0 oll=%d omem=%zu tot-mem=%zu events=%s ",
                client_multi_count(c), query, query_free, multi, waits > 0, waits, total,
                c->flags & CLIENT_WANT_WRITE ? "rw" : "r");
    resp_printf(o, "cmd=%s user=default redir=-1 resp=%d lib-name=%s lib-ver=%s\n", cmd ? cmd->name : "NULL", c->proto,
                c->lib_name ? c->lib_name : "", c->lib_ver ? c->lib_ver : "");
}

void cmd_client_info(struct cx *cx) {
    size_t mark = resp_later(cx->out);
    client_describe(cx->out, cx, cx->client);
    resp_later_text(cx->out, mark);
}

static bool read_class(struct cx *cx, const struct arg *name, int *class) {
    *class = client_class_named(name);
    return cx_checkf(cx, *class >= 0, "ERR Unknown client type '%.*s'", (int)name->n, name->p);
}

static int compare_ids(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void cmd_client_list(struct cx *cx) {
    int class = -1;
    size_t n = 0;
    bool by_type = cx->argc == 4 && resp_arg_is(&cx->argv[2], "type");
    bool by_id = cx->argc > 3 && resp_arg_is(&cx->argv[2], "id");
    if (!cx_check(cx, cx->argc == 2 || by_type || by_id, "ERR syntax error")) return;
    if (by_type && !read_class(cx, &cx->argv[3], &class)) return;
    int64_t *ids = resp_need(calloc((size_t)cx->argc, sizeof *ids)); /* sorted: many are no reason to be slow */
    bool well = true;
    for (; by_id && well && 3 + (int)n < cx->argc; n++)
        well = cx_check(cx, resp_read_int(cx->argv[3 + n].p, cx->argv[3 + n].n, &ids[n]), "ERR Invalid client ID");
    qsort(ids, n, sizeof *ids, compare_ids);
    size_t mark = resp_later(cx->out);
    for (struct client *c = well ? client_next(NULL) : NULL; c; c = client_next(c))
        if (by_id ? bsearch(&(int64_t){(int64_t)c->id}, ids, n, sizeof *ids, compare_ids) != NULL
                  : class < 0 || class == client_class(c))
            client_describe(cx->out, cx, c);
    free(ids);
    if (well) resp_later_text(cx->out, mark);
}

void cmd_client_reply(struct cx *cx) {
    bool on = resp_arg_is(&cx->argv[2], "on"), off = resp_arg_is(&cx->argv[2], "off");
    struct client *c = cx->client;
    if (!cx_check(cx, on || off || resp_arg_is(&cx->argv[2], "skip"), "ERR syntax error")) return;
    if (off) c->flags |= CLIENT_REPLY_OFF;
    else if (!on && !(c->flags & CLIENT_REPLY_OFF)) c->skip |= 2;
    if (!on) return;
    c->flags &= ~(uint32_t)CLIENT_REPLY_OFF;
    c->skip = 0;
    resp_ok(cx->out);
}

/* NO-EVICT and NO-TOUCH. */
void cmd_client_switch(struct cx *cx) {
    uint32_t flag = resp_arg_is(&cx->argv[1], "no-evict") ? CLIENT_NO_EVICT : CLIENT_NO_TOUCH;
    bool on = resp_arg_is(&cx->argv[2], "on");
    if (!cx_check(cx, on || resp_arg_is(&cx->argv[2], "off"), "ERR syntax error")) return;
    cx->client->flags = on ? cx->client->flags | flag : cx->client->flags & ~flag;
    resp_ok(cx->out);
}

/* ==== others' connections ====================================================================================== */

/* What CLIENT KILL looks for: all that is set. */
struct filter {
    const struct arg *peer, *local; /* addresses */
    int64_t id;
    int class; /* -1: any */
    bool user; /* who obeys the one user: all but the link to a leader */
    bool spare_me;
};

static bool equals(const struct arg *a, const char *text) { return a->n == strlen(text) && !memcmp(a->p, text, a->n); }

static bool filter_takes(const struct filter *f, const struct client *c) {
    return (!f->id || f->id == (int64_t)c->id) && (f->class < 0 || f->class == client_class(c)) &&
           !(f->user && c->flags & CLIENT_LEADER) && (!f->peer || equals(f->peer, client_address(c, false).text)) &&
           (!f->local || equals(f->local, client_address(c, true).text));
}

/* Takes the pair of words that begins at argument i. False: the error is said. */
static bool filter_read(struct cx *cx, struct filter *f, int i) {
    const struct arg *v = &cx->argv[i + 1];
    switch (i + 1 < cx->argc ? resp_arg_flag(&cx->argv[i], "addr laddr type id user skipme") : 0) {
    case 1: return (f->peer = v);
    case 2: return (f->local = v);
    case 4: return read_class(cx, v, &f->class);
    case 8:
        return cx_check(cx, resp_read_int(v->p, v->n, &f->id) && f->id > 0, "ERR client-id should be greater than 0");
    case 16: f->user = equals(v, "default"); return cx_checkf(cx, f->user, "ERR No such user '%.*s'", (int)v->n, v->p);
    case 32:
        f->spare_me = resp_arg_is(v, "yes");
        return cx_check(cx, f->spare_me || resp_arg_is(v, "no"), "ERR syntax error");
    default: return cx_check(cx, false, "ERR syntax error");
    }
}

/* The old form is one address, the new one pairs of words. */
void cmd_client_kill(struct cx *cx) {
    bool old = cx->argc == 3;
    struct filter f = {.peer = old ? &cx->argv[2] : NULL, .class = -1, .spare_me = !old};
    int64_t killed = 0;
    for (int i = 2; !old && i < cx->argc; i += 2)
        if (!filter_read(cx, &f, i)) return;
    for (struct client *c = client_next(NULL); c; c = client_next(c)) {
        if ((c == cx->client && f.spare_me) || !filter_takes(&f, c)) continue;
        killed++;
        if (c == cx->client) client_close_after_reply(c);
        else client_close(c);
    }
    if (!old) resp_int(cx->out, killed);
    else if (cx_check(cx, killed, "ERR No such client")) resp_ok(cx->out);
}

/* ==== waiting ================================================================================================== */

bool cx_timeout(struct cx *cx, int i, int64_t *until) {
    int64_t ms, now = store_wall_clock();
    if (!cx_check(cx, resp_read_int(cx->argv[i].p, cx->argv[i].n, &ms),
                  "ERR timeout is not an integer or out of range") ||
        !cx_check(cx, ms >= 0, "ERR timeout is negative"))
        return false;
    *until = !ms ? 0 : ms < INT64_MAX - now ? now + ms : INT64_MAX;
    return true;
}

/* Ends a wait as if its time were up; ERROR: with an error in the place of the reply. */
void cmd_client_unblock(struct cx *cx) {
    int64_t id;
    int how = cx->argc > 3 ? resp_arg_flag(&cx->argv[3], "timeout error") : WAIT_OVER;
    if (!cx_at_most(cx, 4) || !cx_check(cx, how, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR") ||
        !cx_int(cx, 2, &id))
        return;
    struct client *c = client_next(NULL);
    while (c && (int64_t)c->id != id) c = client_next(c);
    bool waits = c && c->wait_until > WAIT_FAILED; /* else it may have been unblocked in this turn already */
    if (waits) c->wait_until = how;
    resp_int(cx->out, waits);
}

/* ==== pausing ================================================================================================== */

static struct {
    bool all;
    int64_t until;
} pausing; /* as CLIENT PAUSE said */

enum pause client_paused(void) {
    bool runs = pausing.until >= store_wall_clock();
    return runs && pausing.all ? PAUSE_ALL : runs || replication_failing_over() ? PAUSE_WRITES : PAUSE_NONE;
}

/* A pause that runs is only made stricter, longer. */
void cmd_client_pause(struct cx *cx) {
    int64_t until;
    bool all = cx->argc == 3 || resp_arg_is(&cx->argv[3], "all"), runs = pausing.until >= store_wall_clock();
    if (!cx_at_most(cx, 4) ||
        !cx_check(cx, all || resp_arg_is(&cx->argv[3], "write"), "ERR CLIENT PAUSE mode must be WRITE or ALL") ||
        !cx_timeout(cx, 2, &until))
        return;
    pausing.all = all || (runs && pausing.all);
    if (!runs || until > pausing.until) pausing.until = until;
    resp_ok(cx->out);
}

void cmd_client_unpause(struct cx *cx) {
    pausing.until = 0;
    server_set_expiry(); /* changes that follow in this turn must see what has expired go */
    resp_ok(cx->out);
}

/* ==== their memory ============================================================================================= */

static size_t counted; /* the sum of all clients' */

void client_count_memory(struct client *c) {
    const uint32_t spared = CLIENT_NO_EVICT | CLIENT_LEADER | CLIENT_FOLLOWER | CLIENT_CLOSING;
    if (!config.maxmemory_clients && !c->counted) return;
    counted -= c->counted;
    c->counted = config.maxmemory_clients && !(c->flags & spared) ? client_memory(c, NULL, NULL, NULL) : 0;
    counted += c->counted;
}

/* Above maxmemory-clients, who takes most is closed first; many at once only in the turns to come. */
void clients_evict(void) {
    int64_t given = config.maxmemory_clients, limit = given < 0 ? config.maxmemory / 100 * -given : given;
    for (int i = 0; limit && counted > (size_t)limit && i < 16; i++) {
        struct client *largest = NULL;
        for (struct client *c = client_next(NULL); c; c = client_next(c))
            if (c->counted > (largest ? largest->counted : 0)) largest = c;
        if (!largest) return;
        server_log(LOG_NOTICE, "Client %s closed: it takes %zu bytes, and all together are above maxmemory-clients",
                   client_peer(largest).text, largest->counted);
        client_close(largest);
        client_count_memory(largest);
        server_stats.evicted_clients++;
    }
}
