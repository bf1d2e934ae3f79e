/* clients.c - CLIENT: who is connected, and what may be done about them.
 *
 * Left out: client-side caching (CLIENT TRACKING and its kin).
 */
#include "commands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ==== one's own connection ===================================================================================== */

void cmd_client_id(struct cx *cx) { resp_int(cx->out, (int64_t)cx->client->id); }

void cmd_client_setname(struct cx *cx) {
    if (client_keep_name(cx, &cx->client->name, &cx->argv[2], "Client names")) resp_ok(cx->out);
}

void cmd_client_getname(struct cx *cx) {
    if (cx->client->name) resp_bulk_str(cx->out, cx->client->name);
    else resp_null(cx->out);
}

void cmd_client_setinfo(struct cx *cx) {
    bool name = resp_arg_is(&cx->argv[2], "lib-name"), version = resp_arg_is(&cx->argv[2], "lib-ver");
    char **field = name ? &cx->client->lib_name : &cx->client->lib_ver;
    if (!name && !version) resp_errorf(cx->out, "ERR Unrecognized option '%.*s'", (int)cx->argv[2].n, cx->argv[2].p);
    else if (client_keep_name(cx, field, &cx->argv[3], name ? "lib-name" : "lib-ver")) resp_ok(cx->out);
}

/* A client's line of CLIENT LIST. */
static void put_client(struct resp_out *o, const struct cx *cx, const struct client *c) {
    static const char letters[] = "Acx.....eT.b.UOMS"; /* by the bits of enum client_flag */
    char peer[64], local[64], flags[sizeof letters + 1] = "N";
    size_t query, query_free, multi, n = 0, waits = c->own ? resp_out_pending(c->own) : 0;
    size_t total = client_memory(c, &query, &query_free, &multi);
    uint32_t now = (uint32_t)(store_wall_clock() / 1000);
    const struct command *cmd = c == cx->client ? cx->cmd : c->last_cmd;
    client_addresses(c, peer, local);
    for (int i = 0; letters[i]; i++)
        if (c->flags >> i & 1 && letters[i] != '.') flags[n++] = letters[i];
    if (c->subs) flags[n++] = 'P';
    resp_printf(o, "id=%" PRIu64 " addr=%s laddr=%s fd=%d name=%s age=%u idle=%u flags=%s db=%d ", c->id, peer, local,
                c->fd, c->name ? c->name : "", now - c->created, now - c->active, flags, c->db);
    resp_printf(o, "sub=%zu psub=%zu ssub=%zu ", pubsub_count(c, PUBSUB_CHANNEL), pubsub_count(c, PUBSUB_PATTERN),
                pubsub_count(c, PUBSUB_SHARD));
    resp_printf(o, "multi=%d qbuf=%zu qbuf-free=%zu multi-mem=%zu obl=0 oll=%d omem=%zu tot-mem=%zu events=%s ",
                client_multi_count(c), query, query_free, multi, waits > 0, waits, total,
                c->flags & CLIENT_WANT_WRITE ? "rw" : "r");
    resp_printf(o, "cmd=%s user=default redir=-1 resp=%d lib-name=%s lib-ver=%s\n", cmd ? cmd->name : "NULL", c->proto,
                c->lib_name ? c->lib_name : "", c->lib_ver ? c->lib_ver : "");
}

void cmd_client_info(struct cx *cx) {
    struct resp_out text = {0};
    put_client(&text, cx, cx->client);
    resp_verbatim(cx->out, text.buf, text.len);
    resp_out_free(&text);
}

/* Is the client's number among the words from the third on? */
static bool is_listed(const struct cx *cx, const struct client *c) {
    int64_t id;
    for (int i = 3; i < cx->argc; i++)
        if (resp_read_int(cx->argv[i].p, cx->argv[i].n, &id) && id == (int64_t)c->id) return true;
    return false;
}

void cmd_client_list(struct cx *cx) {
    struct resp_out text = {0};
    int64_t n;
    int class = -1;
    bool by_type = cx->argc == 4 && resp_arg_is(&cx->argv[2], "type");
    bool by_id = cx->argc > 3 && resp_arg_is(&cx->argv[2], "id");
    if (!cx_check(cx, cx->argc == 2 || by_type || by_id, "ERR syntax error")) return;
    if (by_type && (class = client_class_named(cx->argv[3].p, cx->argv[3].n)) < 0) {
        resp_errorf(cx->out, "ERR Unknown client type '%.*s'", (int)cx->argv[3].n, cx->argv[3].p);
        return;
    }
    for (int i = 3; by_id && i < cx->argc; i++)
        if (!cx_check(cx, resp_read_int(cx->argv[i].p, cx->argv[i].n, &n), "ERR Invalid client ID")) return;
    for (struct client *c = client_next(NULL); c; c = client_next(c)) {
        if (by_id ? is_listed(cx, c) : class < 0 || class == client_class(c)) put_client(&text, cx, c);
    }
    resp_verbatim(cx->out, text.buf, text.len);
    resp_out_free(&text);
}

void cmd_client_reply(struct cx *cx) {
    bool on = resp_arg_is(&cx->argv[2], "on"), off = resp_arg_is(&cx->argv[2], "off");
    uint32_t *flags = &cx->client->flags;
    if (!cx_check(cx, on || off || resp_arg_is(&cx->argv[2], "skip"), "ERR syntax error")) return;
    if (on) *flags &= ~(uint32_t)(CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP | CLIENT_REPLY_SKIP_NEXT);
    else if (off) *flags |= CLIENT_REPLY_OFF;
    else if (!(*flags & CLIENT_REPLY_OFF)) *flags |= CLIENT_REPLY_SKIP_NEXT;
    if (on) resp_ok(cx->out);
}

static void switch_flag(struct cx *cx, uint32_t flag) {
    bool on = resp_arg_is(&cx->argv[2], "on");
    if (!cx_check(cx, on || resp_arg_is(&cx->argv[2], "off"), "ERR syntax error")) return;
    cx->client->flags = on ? cx->client->flags | flag : cx->client->flags & ~flag;
    resp_ok(cx->out);
}

void cmd_client_no_evict(struct cx *cx) { switch_flag(cx, CLIENT_NO_EVICT); }
void cmd_client_no_touch(struct cx *cx) { switch_flag(cx, CLIENT_NO_TOUCH); }

/* ==== others' connections ====================================================================================== */

/* What CLIENT KILL looks for: all that is set. */
struct filter {
    const struct arg *peer, *local; /* addresses */
    int64_t id;
    int class; /* -1: any */
    bool user; /* those of the one user: all but the link to a leader, which obeys nobody */
    bool spare_me;
};

static bool same_text(const struct arg *a, const char *text) {
    return a->n == strlen(text) && !memcmp(a->p, text, a->n);
}

static bool filter_takes(const struct filter *f, const struct client *c) {
    char peer[64], local[64];
    if ((f->id && f->id != (int64_t)c->id) || (f->class >= 0 && f->class != client_class(c))) return false;
    if (f->user && c->flags & CLIENT_LEADER) return false;
    if (!f->peer && !f->local) return true;
    client_addresses(c, peer, local);
    return (!f->peer || same_text(f->peer, peer)) && (!f->local || same_text(f->local, local));
}

/* One pair of words. False: the error is said. */
static bool filter_read(struct cx *cx, struct filter *f, const struct arg *option, const struct arg *value) {
    int which = resp_arg_flag(option, "id addr laddr type user skipme"), yes = resp_arg_flag(value, "no yes");
    if (which == 1 && (!resp_read_int(value->p, value->n, &f->id) || f->id < 1)) {
        resp_error(cx->out, "ERR client-id should be greater than 0");
        return false;
    }
    if (which == 2) f->peer = value;
    if (which == 4) f->local = value;
    if (which == 8 && (f->class = client_class_named(value->p, value->n)) < 0) {
        resp_errorf(cx->out, "ERR Unknown client type '%.*s'", (int)value->n, value->p);
        return false;
    }
    if (which == 16 && !(f->user = same_text(value, "default"))) {
        resp_errorf(cx->out, "ERR No such user '%.*s'", (int)value->n, value->p);
        return false;
    }
    if (which == 32) f->spare_me = yes == 2;
    return cx_check(cx, which && (which != 32 || yes), "ERR syntax error");
}

/* The old form is one address, the new one pairs of words. */
void cmd_client_kill(struct cx *cx) {
    bool old = cx->argc == 3, me = false;
    struct filter f = {.peer = old ? &cx->argv[2] : NULL, .class = -1, .spare_me = !old};
    int64_t killed = 0;
    for (int i = 2; !old && i < cx->argc; i += 2) {
        if (!cx_check(cx, i + 1 < cx->argc, "ERR syntax error") || !filter_read(cx, &f, &cx->argv[i], &cx->argv[i + 1]))
            return;
    }
    for (struct client *c = client_next(NULL); c; c = client_next(c)) {
        if ((c == cx->client && f.spare_me) || !filter_takes(&f, c)) continue;
        if (c == cx->client) me = true;
        else client_close(c);
        killed++;
    }
    if (!old) resp_int(cx->out, killed);
    else if (cx_check(cx, killed, "ERR No such client")) resp_ok(cx->out);
    if (me) client_close_after_reply(cx->client);
}
