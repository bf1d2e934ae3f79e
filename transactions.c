/* transactions.c - MULTI, EXEC, DISCARD, WATCH.
 *
 * Between MULTI and EXEC dispatch hands each command to transaction_queue(), which copies its arguments (blobs change
 * owner). EXEC runs them in a row: nothing comes in between, since there is one thread. They are logged between
 * log_begin() and log_commit(), so that a reader of the log, too, sees all of them or none.
 *
 * WATCH notes the version of a key; the store counts it up with every change, expiry and flush of the key. EXEC
 * compares.
 *
 * Left out: rollback. As in Redis, a command that fails does not undo the others.
 */
#include "commands.h"

#define WATCH_COST 80 /* bytes that the store needs for a watched key, beside the key */
#define WATCH_LOOK 64 /* watches that are looked through for one that is there already */

struct watched {
    struct store_watch *watch;
    uint64_t version;
};

struct transaction {
    struct queued **queue;
    size_t count, cap;
    uint32_t flags; /* of all commands together */
    size_t bytes;
    struct watched *watched;
    size_t nwatched, watched_cap, watched_bytes;
};

/* From MULTI, or the first WATCH, on. */
static struct transaction *transaction_of(struct client *c) {
    if (!c->tx) c->tx = resp_need(calloc(1, sizeof *c->tx));
    return c->tx;
}

static void unwatch(struct client *c) {
    struct transaction *tx = c->tx;
    if (!tx) return;
    while (tx->nwatched) store_unwatch(tx->watched[--tx->nwatched].watch);
    free(tx->watched);
    tx->watched = NULL;
    tx->watched_cap = tx->watched_bytes = 0;
}

void transaction_free(struct client *c) {
    c->flags &= ~(uint32_t)(CLIENT_MULTI | CLIENT_MULTI_BAD);
    if (!c->tx) return;
    unwatch(c);
    for (size_t i = 0; i < c->tx->count; i++) queued_free(c->tx->queue[i]);
    free(c->tx->queue);
    free(c->tx);
    c->tx = NULL;
}

int client_multi_count(const struct client *c) { return c->flags & CLIENT_MULTI ? (int)c->tx->count : -1; }
int client_class(const struct client *c) {
    return c->flags & CLIENT_LEADER ? 3 : c->flags & CLIENT_FOLLOWER ? 1 : c->subs ? 2 : 0;
}
size_t transaction_memory(const struct client *c) {
    const struct transaction *tx = c->tx;
    size_t later = c->postponed ? c->postponed->bytes : 0;
    return later + (tx ? sizeof *tx + tx->cap * sizeof *tx->queue + tx->bytes + tx->watched_bytes : 0);
}

/* CMD_STALE stands the other way round in tx->flags: EXEC has it where all have. */
uint32_t transaction_flags(const struct cx *cx) {
    const struct transaction *tx = cx->cmd->fn == cmd_exec ? cx->client->tx : NULL;
    uint32_t queued = tx ? tx->flags : 0;
    return (cx->cmd->flags | queued) & ~(queued & CMD_STALE);
}

struct queued *queued_new(struct cx *cx) {
    size_t head = sizeof(struct queued) + (size_t)cx->argc * sizeof(struct arg), copied = 0, held = 0;
    for (int i = 0; i < cx->argc; i++) *(cx->argv[i].is_blob ? &held : &copied) += cx->argv[i].n;
    struct queued *q = resp_need(malloc(head + copied));
    *q = (struct queued){.client = cx->client, .cmd = cx->cmd, .bytes = head + copied + held, .argc = cx->argc};
    char *to = (char *)q + head;
    for (int i = 0; i < cx->argc; i++) {
        struct arg a = q->argv[i] = cx->argv[i];
        cx->argv[i].is_blob = false;
        if (a.is_blob) continue;
        q->argv[i].p = to;
        if (a.n) to = mempcpy(to, a.p, a.n);
    }
    return q;
}

void queued_free(struct queued *q) {
    if (q) resp_arg_release(q->argv, q->argc);
    free(q);
}

void transaction_queue(struct cx *cx) {
    resp_status(cx->out, "QUEUED");
    if (cx->client->flags & CLIENT_MULTI_BAD) return; /* EXEC will refuse */
    struct transaction *tx = cx->client->tx;
    struct queued *q = queued_new(cx);
    PUSH(tx->queue, tx->count, tx->cap, q);
    tx->bytes += q->bytes;
    tx->flags |= q->cmd->flags ^ CMD_STALE;
}

void cmd_multi(struct cx *cx) {
    if (!cx_check(cx, !(cx->client->flags & CLIENT_MULTI), "ERR MULTI calls can not be nested")) return;
    transaction_of(cx->client);
    cx->client->flags |= CLIENT_MULTI;
    resp_ok(cx->out);
}

void cmd_discard(struct cx *cx) {
    if (!cx_check(cx, cx->client->flags & CLIENT_MULTI, "ERR DISCARD without MULTI")) return;
    transaction_free(cx->client);
    resp_ok(cx->out);
}

/* Is this one of the first watches? None of them is taken twice: who watches a few keys over and over must not grow. */
static bool watches(const struct transaction *tx, const struct store_watch *w) {
    for (size_t i = 0; i < tx->nwatched && i < WATCH_LOOK; i++)
        if (tx->watched[i].watch == w) return true;
    return false;
}

void cmd_watch(struct cx *cx) {
    if (!cx_check(cx, !(cx->client->flags & CLIENT_MULTI), "ERR WATCH inside MULTI is not allowed")) return;
    struct transaction *tx = transaction_of(cx->client);
    for (int i = 1; i < cx->argc; i++) {
        struct watched w;
        w.watch = store_watch(cx->db, &cx->argv[i], &w.version);
        if (watches(tx, w.watch)) {
            store_unwatch(w.watch);
            continue;
        }
        PUSH(tx->watched, tx->nwatched, tx->watched_cap, w);
        tx->watched_bytes += sizeof w + WATCH_COST + cx->argv[i].n;
    }
    resp_ok(cx->out);
}

void cmd_unwatch(struct cx *cx) {
    unwatch(cx->client);
    resp_ok(cx->out);
}

/* An EXEC that was refused ends the transaction; the refusal, in the output from len on, is said in other words. */
void transaction_abort(struct cx *cx, size_t len) {
    char why[512];
    const char *text = cx->out->last_error + (strncmp(cx->out->last_error, "ERR ", 4) ? 0 : 4);
    snprintf(why, sizeof why, "%.*s", (int)strcspn(text, "\r"), text);
    resp_truncate(cx->out, len, cx->out->npieces);
    transaction_free(cx->client);
    resp_errorf(cx->out, "EXECABORT Transaction discarded because of: %s", why);
}

bool transaction_stale(const struct client *c) {
    for (size_t i = 0; c->tx && i < c->tx->nwatched; i++)
        if (store_watch_changed(c->tx->watched[i].watch, c->tx->watched[i].version)) return true;
    return false;
}

void cmd_exec(struct cx *cx) {
    struct client *c = cx->client;
    if (!cx_check(cx, c->flags & CLIENT_MULTI, "ERR EXEC without MULTI")) return;
    bool bad = c->flags & CLIENT_MULTI_BAD, changed = transaction_stale(c);
    if (bad || changed) {
        transaction_free(c);
        if (cx_check(cx, !bad, "EXECABORT Transaction discarded because of previous errors.")) resp_null_array(cx->out);
        return;
    }
    unwatch(c);
    size_t len = cx->out->len;
    uint32_t pieces = cx->out->npieces;
    resp_array(cx->out, c->tx->count);
    uint64_t before = log_end();
    log_begin();
    for (size_t i = 0; i < c->tx->count; i++) {
        struct queued *q = c->tx->queue[i];
        struct cx sub = {
            .client = c, .cmd = q->cmd, .argv = q->argv, .argc = q->argc, .db = store_db(c->db), .out = cx->out};
        if (q->cmd->flags & CMD_WRITE && !cx_may_write(&sub)) continue;
        cx_call(&sub);
        if (client_drowns(c)) resp_truncate(cx->out, len, pieces); /* all run, but nobody will hear it */
    }
    log_commit();
    if (log_end() > before) c->hold = c->last_write = log_end();
    transaction_free(c);
}
