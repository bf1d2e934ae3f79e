/* replication.c - the commands of replication, and what joins repl.c to the reactor's connections.
 *
 * A leader's side: REPLCONF and PSYNC make a client a follower. From then on its replies are dropped, and what it gets
 * is written by repl_send() when the turn's other output has gone out (client_flush).
 *
 * A follower's side: the link becomes a client (CLIENT_LEADER) when the stream begins. Each of its commands is run at
 * once, outside the clock's reach, and then its bytes go into the log; a transaction's when its EXEC has run. What
 * cannot be run ends the link before it is logged: the data stay what the log's end says, and a line says why.
 *
 * FAILOVER holds writes back, waits until a follower has all of the log, and follows it, asking it to take over.
 *
 * WAIT is in echovault.c, with WAITAOF. Left out: diskless transfers, since a snapshot that is on the disk already
 * costs nothing.
 */
#include "commands.h"

#include <poll.h>
#include <sys/socket.h>

#define GONE_MS 1000 /* at the end, a follower has so long to take what is left */

static struct client *leader; /* the link, while the stream comes; NULL: it does not */

/* A FAILOVER under way. */
static struct failover {
    enum { FAILOVER_NONE, FAILOVER_SYNC, FAILOVER_HANDOVER } state; /* a follower catches up; is asked to take over */
    char host[256];                                                 /* "": any follower */
    int port;
    int64_t until; /* repl_clock() */
    bool force;    /* take over even if it has not caught up by then */
} failover;
static const char *const failover_words[] = {"no-failover", "waiting-for-sync", "failover-in-progress"};

/* ==== a leader's side ==================================================================================== */

static struct follower *follower_of(struct client *c) {
    if (!c->follower) c->follower = repl_follower_new(c->fd, c);
    return c->follower;
}

static void follower_ack(struct follower *f, int64_t offset, int64_t synced) {
    if (!f || f->phase != REPL_ONLINE) return;
    if (offset > 0 && (uint64_t)offset > f->acked) f->acked = (uint64_t)offset;
    if (synced > 0 && (uint64_t)synced > f->synced) f->synced = (uint64_t)synced;
    f->acked_ms = repl_clock();
}

/* A pair of words of REPLCONF's. False: the error is said. */
static bool replconf_pair(struct cx *cx, struct arg *name, struct arg *value) {
    struct follower *f = follower_of(cx->client);
    int64_t v;
    bool port = resp_arg_is(name, "listening-port"), only = resp_arg_is(name, "rdb-only");
    bool ip = resp_arg_is(name, "ip-address");
    bool known = resp_arg_is(name, "capa") || (resp_arg_is(name, "rdb-filter-only") && !value->n); /* all is sent */
    if ((port || only) && (!resp_read_int(value->p, value->n, &v) || v < 0 || v > (only ? 1 : 65535)))
        return cx_check(cx, false, "ERR value is not an integer or out of range");
    if (ip && !cx_plain(cx, value, "Addresses")) return false;
    if (port) f->port = (int)v;
    else if (only) f->rdb_only = v;
    else if (ip && value->n < sizeof f->ip) snprintf(f->ip, sizeof f->ip, "%.*s", (int)value->n, value->p);
    else if (ip)
        resp_errorf(cx->out, "ERR REPLCONF ip-address provided by replica instance is too long: %u bytes", value->n);
    else if (!known) resp_errorf(cx->out, "ERR Unrecognized REPLCONF option: %.*s", (int)name->n, name->p);
    return port || only || known || (ip && value->n < sizeof f->ip);
}

void cmd_replconf(struct cx *cx) {
    int64_t offset, synced = 0;
    if (!cx_check(cx, cx->argc % 2, "ERR syntax error")) return;
    for (int i = 1; i < cx->argc; i += 2) {
        struct arg *name = &cx->argv[i], *value = name + 1;
        if (resp_arg_is(name, "getack")) return; /* a leader asks: see replication_run() */
        if (resp_arg_is(name, "ack")) {          /* no reply */
            if (i + 3 < cx->argc && resp_arg_is(name + 2, "fack")) resp_read_int(name[3].p, name[3].n, &synced);
            if (resp_read_int(value->p, value->n, &offset)) follower_ack(cx->client->follower, offset, synced);
            return;
        }
        if (!replconf_pair(cx, name, value)) return;
    }
    resp_ok(cx->out);
}

static const char *psync_refusal(struct cx *cx, const char *id) {
    struct client *c = cx->client;
    bool takes_over = cx->argc == 4 && resp_arg_is(&cx->argv[3], "failover");
    if (takes_over && repl_link_state() == REPL_LEADER) return "ERR PSYNC FAILOVER can't be sent to a master.";
    if (takes_over && strcasecmp(id, log_id()) != 0) return "ERR PSYNC FAILOVER replid must match my replid.";
    if (takes_over) replication_promote();
    if (repl_link_state() != REPL_LEADER && repl_link_state() != REPL_CONNECTED)
        return "NOMASTERLINK Can't SYNC while not connected with my master";
    if (c->own) return "ERR SYNC and PSYNC are invalid with pending output";
    return NULL;
}

/* PSYNC, and SYNC, which has no arguments: the client becomes a follower, and gets no more replies. */
void cmd_psync(struct cx *cx) {
    struct client *c = cx->client;
    bool psync = cx->argc > 1;
    char id[64] = "?";
    int64_t next = -1;
    if (c->flags & CLIENT_FOLLOWER || (psync && !cx_int(cx, 2, &next))) return;
    if (psync && cx->argv[1].n) snprintf(id, sizeof id, "%.*s", (int)cx->argv[1].n, cx->argv[1].p);
    const char *why = psync_refusal(cx, id);
    if (!cx_check(cx, !why, why)) return;
    c->flags |= CLIENT_FOLLOWER | CLIENT_REPLY_OFF;
    repl_psync(follower_of(c), psync ? id : NULL, next, client_output(c));
}

/* Asks the followers how far they are, once for as much of the log. */
void replication_getack(void) {
    static uint64_t asked;
    struct arg ask[] = {ARG("REPLCONF"), ARG("GETACK"), ARG("*")};
    if (asked == log_end()) return;
    log_remark(ask, 3);
    asked = log_end();
}

bool replication_failing_over(void) { return failover.state != FAILOVER_NONE; }

bool replication_enough(void) {
    return log_following() || !config.min_replicas_to_write || !config.min_replicas_max_lag ||
           repl_good(config.min_replicas_max_lag) >= (size_t)config.min_replicas_to_write;
}

/* Keepalives, and the end of those who are silent. */
static void followers_second(void) {
    static int since_ping;
    bool ping = ++since_ping >= config.repl_ping_period;
    int64_t now = repl_clock(), limit = (int64_t)config.repl.timeout * 1000;
    for (struct follower *f = repl_followers; f; f = f->next) {
        struct client *c = f->owner;
        if (f->phase == REPL_WAITING) resp_raw(client_output(c), "\n", 1);
        if (f->phase < REPL_SENDING || now - f->acked_ms <= limit || client_silence(c) <= config.repl.timeout) continue;
        server_log(LOG_WARNING, "A follower was dropped: nothing was heard of it for repl-timeout");
        client_close(c);
    }
    if (ping && repl_count(0, false)) log_ping(); /* somebody is online */
    if (ping) since_ping = 0;
}

/* At the end: what followers lack goes out, for a moment. */
void replication_farewell(void) {
    char sink[4096];
    for (struct follower *f = repl_followers; f; f = f->next) {
        int64_t until = repl_clock() + GONE_MS;
        if (f->phase != REPL_ONLINE) continue;
        while (repl_send(f) > 0 && repl_clock() < until) poll(&(struct pollfd){.fd = f->fd, .events = POLLOUT}, 1, 100);
        shutdown(f->fd, SHUT_WR); /* it closes when it has read all; unread input at our close would cost it the rest */
        for (ssize_t n = 1; n != 0 && repl_clock() < until; n = recv(f->fd, sink, sizeof sink, 0))
            poll(&(struct pollfd){.fd = f->fd, .events = POLLIN}, 1, 100);
    }
}

/* ==== a follower's side ================================================================================== */

bool replication_link_up(void) { return leader != NULL; }

static void ack_send(void) {
    struct resp_out *out = client_output(leader);
    bool file = log_in_file();
    resp_array(out, file ? 5 : 3);
    resp_words(out, "REPLCONF ACK");
    resp_bulk_int(out, (int64_t)log_end());
    if (!file) return;
    resp_bulk_str(out, "FACK");
    resp_bulk_int(out, (int64_t)log_synced());
}

static void stream_begin(int fd) {
    leader = client_new(fd, 0);
    if (!leader) {
        repl_link_lost("no connection can be made of it", false);
        return;
    }
    leader->flags |= CLIENT_LEADER | CLIENT_AUTHED | CLIENT_REPLY_OFF;
    leader->db = log_db();
    ack_send();
}

/* The client is about to be freed. */
void replication_gone(struct client *c) {
    repl_follower_free(c->follower);
    if (c != leader) return;
    leader = NULL;
    repl_link_lost("the connection is lost", false);
}

/* Ends the link from our side, its input unread. */
static void stream_end(const char *why, bool refused) {
    struct client *c = leader;
    leader = NULL;
    client_close(c);
    if (why) repl_link_lost(why, refused);
}

/* What comes cannot be followed: a full resync may do without it; and of a transaction, a part may have been done. */
void replication_refuse(const char *why) { stream_end(why, true); }

static void stream_refuse(const struct cx *cx, const char *error) {
    char why[256];
    const struct arg *a = cx->argv, *b = cx->argc < 2 ? &ARG("") : &a[1];
    snprintf(why, sizeof why, "its command %.*s %.*s cannot be run: %.*s", (int)(a->n < 32 ? a->n : 32), a->p,
             (int)(b->n < 64 ? b->n : 64), b->p, (int)strcspn(error, "\r\n"), error);
    replication_refuse(why);
}

/* A command of the leader's stream. */
void replication_run(struct cx *cx) {
    struct client *c = cx->client;
    static const char others[] = "multi exec select publish spublish ping replconf";
    bool known = cx->cmd && (cx->cmd->flags & CMD_WRITE || resp_arg_is(cx->argv, others));
    bool none = !known && resp_arg_is(cx->argv, "function script"); /* nothing of theirs is for strings */
    uint64_t errors = cx->out->errors;
    if (c != leader) return;
    if (!known && !none) stream_refuse(cx, "this server keeps strings only, and does not know it");
    else if (cx->cmd && !cx_resolve(cx)) stream_refuse(cx, cx->out->last_error);
    if (c != leader) return; /* no more */
    if (cx->argc == 3 && resp_arg_is(cx->argv, "replconf") && resp_arg_is(&cx->argv[1], "getack")) ack_send();
    store_set_clock(store_wall_clock(), STORE_EXPIRE_IGNORE);
    if (known && c->flags & CLIENT_MULTI && !(cx->cmd->flags & CMD_IN_MULTI)) transaction_queue(cx);
    else if (known) cx_call(cx);
    store_set_clock(store_wall_clock(), STORE_EXPIRE_HIDE);
    if (cx->out->errors != errors) stream_refuse(cx, cx->out->last_error);
    else if (!log_relay(cx->argv, cx->argc, c->db)) stream_refuse(cx, "what came before it does not fit this checksum");
}

void replication_promote(void) {
    if (leader) stream_end(NULL, false);
    repl_unfollow();
    server_set_expiry(); /* this turn's next command must see what has expired go */
    free(config.replicaof);
    config.replicaof = resp_need(strdup(""));
    server_log(LOG_NOTICE, "This is a leader now, with the replication id %s.", log_id());
}

static void follow(const char *host, int port, bool takes_over) {
    free(config.replicaof);
    resp_need(asprintf(&config.replicaof, "%s %d", host, port) < 0 ? NULL : config.replicaof);
    if (leader) stream_end(NULL, false);
    for (struct client *c = client_next(NULL); c; c = client_next(c)) c->hold = c->last_write = 0; /* of another log */
    repl_follow(host, port, takes_over);
    server_set_expiry();
    server_log(LOG_NOTICE, "Following %s:%d.", host, port);
}

void replication_start(void) {
    char host[256];
    int port;
    if (sscanf(config.replicaof, "%255s %d", host, &port) == 2) follow(host, port, false);
}

void cmd_replicaof(struct cx *cx) {
    struct arg *host = &cx->argv[1], *port_text = &cx->argv[2];
    char name[256];
    int64_t port;
    int now;
    bool none = resp_arg_is(host, "no") && resp_arg_is(port_text, "one");
    if (!cx_check(cx, failover.state == FAILOVER_NONE, "ERR REPLICAOF not allowed while failing over.") ||
        !cx_check(cx, !(cx->client->flags & CLIENT_FOLLOWER), "ERR Command is not valid when client is a replica."))
        return;
    if (none && repl_link_state() != REPL_LEADER) replication_promote();
    if (!none) {
        bool good = resp_read_int(port_text->p, port_text->n, &port) && port >= 0 && port <= 65535;
        if (!cx_check(cx, good && host->n < sizeof name, "ERR Invalid master port") ||
            !cx_plain(cx, host, "Host names"))
            return;
        snprintf(name, sizeof name, "%.*s", (int)host->n, host->p);
        const char *current = repl_leader(&now);
        if (current && !strcasecmp(current, name) && now == port) {
            resp_status(cx->out, "OK Already connected to specified master");
            return;
        }
        follow(name, (int)port, false);
    }
    resp_ok(cx->out);
}

/* ==== what is told =========================================================================================== */

/* Where a follower listens, as far as that is known. */
static struct address follower_ip(const struct follower *f) {
    struct address peer = client_peer(f->owner), ip;
    char *colon = strrchr(peer.text, ':');
    if (colon) *colon = '\0';
    snprintf(ip.text, sizeof ip.text, "%s", *f->ip ? f->ip : peer.text + (*peer.text == '['));
    ip.text[strcspn(ip.text, "]")] = '\0';
    return ip;
}

void cmd_role(struct cx *cx) {
    static const char *const words[] = {"", "connect", "connecting", "sync", "sync", "connected"};
    enum repl_link state = leader || repl_link_state() != REPL_CONNECTED ? repl_link_state() : REPL_WAIT;
    int port;
    const char *host = repl_leader(&port);
    resp_array(cx->out, host ? 5 : 3);
    resp_bulk_str(cx->out, host ? "slave" : "master");
    if (host) {
        resp_bulk_str(cx->out, host);
        resp_int(cx->out, port);
        resp_bulk_str(cx->out, words[state]);
        resp_int(cx->out, leader ? (int64_t)log_end() : -1);
        return;
    }
    resp_int(cx->out, (int64_t)log_end());
    resp_array(cx->out, repl_count(0, false));
    for (const struct follower *f = repl_followers; f; f = f->next) {
        if (f->phase != REPL_ONLINE) continue;
        resp_array(cx->out, 3);
        resp_bulk_str(cx->out, follower_ip(f).text);
        resp_bulk_int(cx->out, f->port);
        resp_bulk_int(cx->out, (int64_t)f->acked);
    }
}

static void info_link(struct resp_out *o, const char *host, int port) {
    struct repl_transfer t = repl_transfer();
    bool transfer = repl_link_state() == REPL_TRANSFER || repl_link_state() == REPL_LOADING;
    resp_printf(o, "master_host:%s\r\nmaster_port:%d\r\nmaster_link_status:%s\r\n", host, port, leader ? "up" : "down");
    resp_printf(o, "master_last_io_seconds_ago:" I64 "master_sync_in_progress:%d\r\n",
                leader ? (int64_t)client_silence(leader) : -1, transfer);
    resp_printf(o, "slave_read_repl_offset:" U64 "slave_repl_offset:" U64, log_end(), log_end());
    if (transfer)
        resp_printf(o,
                    "master_sync_total_bytes:" I64 "master_sync_read_bytes:" I64 "master_sync_left_bytes:" I64
                    "master_sync_perc:%.2f\r\nmaster_sync_last_io_seconds_ago:" I64,
                    t.total, t.read, t.total < 0 ? -1 : t.total - t.read,
                    t.total > 0 ? 100.0 * (double)t.read / (double)t.total : 0.0, t.heard_s);
    if (!leader) resp_printf(o, "master_link_down_since_seconds:" I64, t.down_s);
    resp_printf(o, "slave_priority:%d\r\nslave_read_only:%d\r\nreplica_announced:%d\r\n", config.replica_priority,
                config.replica_read_only, config.replica_announced);
}

static void info_follower(struct resp_out *o, int i, const struct follower *f) {
    static const char *const states[] = {"", "wait_bgsave", "send_bulk", "online"};
    resp_printf(o, "slave%d:ip=%s,port=%d,state=%s,offset=%" PRIu64 ",lag=%" PRId64 "\r\n", i, follower_ip(f).text,
                f->port, states[f->phase], f->acked, f->phase == REPL_ONLINE ? (repl_clock() - f->acked_ms) / 1000 : 0);
}

void info_replication(struct resp_out *o) {
    static const char none[] = "0000000000000000000000000000000000000000";
    int port, n = 0, i = 0;
    const char *host = repl_leader(&port);
    bool has_id2 = *log_id2();
    for (const struct follower *f = repl_followers; f; f = f->next) n += f->phase != REPL_NEW;
    resp_printf(o, "role:%s\r\n", host ? "slave" : "master");
    if (host) info_link(o, host, port);
    resp_printf(o, "connected_slaves:%d\r\n", n);
    if (config.min_replicas_to_write && config.min_replicas_max_lag)
        resp_printf(o, "min_slaves_good_slaves:%zu\r\n", repl_good(config.min_replicas_max_lag));
    for (const struct follower *f = repl_followers; f; f = f->next)
        if (f->phase != REPL_NEW) info_follower(o, i++, f);
    resp_printf(o, "master_failover_state:%s\r\nmaster_replid:%s\r\nmaster_replid2:%s\r\n",
                failover_words[failover.state], log_id(), has_id2 ? log_id2() : none);
    resp_printf(o, "master_repl_offset:" U64 "second_repl_offset:" I64 "repl_backlog_active:1\r\n", log_end(),
                has_id2 ? (int64_t)log_id2_end() + 1 : -1);
    resp_printf(o, "repl_backlog_size:" I64 "repl_backlog_first_byte_offset:" U64 "repl_backlog_histlen:" U64,
                config.persist.backlog, log_base() + 1, log_end() - log_base());
}

/* ==== FAILOVER ================================================================================================ */

static void failover_end(const char *why) {
    server_log(LOG_NOTICE, "FAILOVER: %s", why);
    failover.state = FAILOVER_NONE;
    server_set_expiry();
}

/* Whether it is the one that is named, or none is. */
static bool failover_means(const struct failover *o, const struct follower *f) {
    return !*o->host || (!strcasecmp(follower_ip(f).text, o->host) && f->port == o->port);
}

/* The follower that takes over: the one that was named, or any, once it has all of the log; late: or even before. */
static struct follower *failover_target(bool late) {
    for (struct follower *f = repl_followers; f; f = f->next)
        if (f->phase == REPL_ONLINE && (f->acked == log_end() || late) && failover_means(&failover, f)) return f;
    return NULL;
}

static void failover_cron(void) {
    if (failover.state == FAILOVER_HANDOVER && leader) failover_end("the follower has taken over.");
    if (failover.state == FAILOVER_HANDOVER && repl_link_state() == REPL_WAIT && repl_link_failed()) {
        replication_promote();
        failover_end("the follower did not take over, this server leads on.");
    }
    if (failover.state != FAILOVER_SYNC) return;
    bool late = failover.until && repl_clock() >= failover.until;
    struct follower *f = failover_target(late && failover.force);
    if (!f && late) failover_end("no follower caught up within the timeout.");
    if (!f) return;
    failover.state = FAILOVER_HANDOVER;
    follow(follower_ip(f).text, f->port, true);
}

/* Takes FAILOVER's words, each at most once. False: the error is said. */
static bool failover_read(struct cx *cx, struct failover *f) {
    int64_t v = 0;
    for (int i = 1; i < cx->argc; i++) {
        const struct arg *a = &cx->argv[i];
        int left = cx->argc - 1 - i;
        bool timeout = left && !f->until && resp_arg_is(a, "timeout"), force = !f->force && resp_arg_is(a, "force");
        bool to = left > 1 && !*f->host && resp_arg_is(a, "to");
        if (!cx_check(cx, timeout || force || to, "ERR syntax error")) return false;
        i += timeout + 2 * to; /* at the number, where there is one */
        if (!force && !cx_int(cx, i, &v)) return false;
        if (!cx_check(cx, !timeout || v > 0, "ERR FAILOVER timeout must be greater than 0")) return false;
        if (timeout) f->until = repl_clock() + v;
        if (to) snprintf(f->host, sizeof f->host, "%.*s", (int)a[1].n, a[1].p);
        if (to) f->port = (int)v;
        f->force |= force;
    }
    return true;
}

static void failover_abort(struct cx *cx) {
    if (!cx_check(cx, failover.state != FAILOVER_NONE, "ERR No failover in progress.")) return;
    if (failover.state == FAILOVER_HANDOVER) replication_promote();
    failover_end("given up as FAILOVER ABORT says.");
    resp_ok(cx->out);
}

void cmd_failover(struct cx *cx) {
    struct failover f = {.state = FAILOVER_SYNC};
    struct follower *target = repl_followers;
    size_t online = repl_count(0, false);
    if (cx->argc == 2 && resp_arg_is(&cx->argv[1], "abort")) {
        failover_abort(cx);
        return;
    }
    if (!failover_read(cx, &f)) return;
    while (target && !failover_means(&f, target)) target = target->next;
    if (cx_check(cx, failover.state == FAILOVER_NONE, "ERR FAILOVER already in progress.") &&
        cx_check(cx, repl_link_state() == REPL_LEADER, "ERR FAILOVER is not valid when server is a replica.") &&
        cx_check(cx, online, "ERR FAILOVER requires connected replicas.") &&
        cx_check(cx, !f.force || (f.until && *f.host),
                 "ERR FAILOVER with force option requires both a timeout and target HOST and IP.") &&
        cx_check(cx, !*f.host || target, "ERR FAILOVER target HOST and PORT is not a replica.") &&
        cx_check(cx, !*f.host || target->phase == REPL_ONLINE, "ERR FAILOVER target replica is not online.")) {
        failover = f;
        replication_getack();
        server_log(LOG_NOTICE, "FAILOVER: writes wait until a follower has all of the log.");
        resp_ok(cx->out);
    }
}

/* ==== once a turn, and ten times a second ======================================================================= */

bool replication_turn(bool idle) {
    int fd = repl_take_link();
    bool later = false;
    if (fd >= 0) stream_begin(fd);
    if (leader && log_error()) stream_end("what it sends cannot be kept", false); /* memory is no place for it */
    for (struct follower *f = repl_followers; f; f = f->next) {
        struct client *c = f->owner;
        if (f->done) client_close(c);
        else if (!repl_offer(f, client_output) || c->flags & CLIENT_WANT_WRITE) continue;
        else if (!idle && repl_may_wait(f)) later = true;
        else client_touch(c);
    }
    return later;
}

void replication_cron(void) {
    static int tenth;
    repl_cron();
    failover_cron();
    if (leader && client_silence(leader) > config.repl.timeout)
        stream_end("nothing was heard of it for repl-timeout", false);
    if (tenth++ % 10) return;
    if (leader) ack_send();
    followers_second();
}
