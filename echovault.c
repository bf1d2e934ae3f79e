/* echovault.c - the reactor, the connections and dispatch.
 *
 * One thread, one epoll set. The loop turns; a turn is all reads, then all commands, then all writes:
 *
 *      epoll_wait -> read every ready socket into one buffer, parse in place        (reads_run, segment_parse)
 *                 -> hash and prefetch the keys of the commands at hand, run them in order         (batch_run)
 *                 -> upkeep: a bounded slice each of expiry, rehashing, the snapshot
 *                 -> the log's new bytes go to the kernel                                          (log_flush)
 *                 -> every client that has output gets one write                                 (client_flush)
 *                 -> what was marked as closing is freed                                        (clients_reap)
 *
 * Nothing writes to a socket in the middle of a command, so a reply cannot overtake the log. Nothing but the reaper
 * frees a client, so a command may close any connection, its own too.
 *
 * Input. A socket that has no cut-off command is read into the turn's shared buffer, and its commands' arguments are
 * slices of that. What one read brought is a segment. Its rest (a cut-off command; when its commands have run, what had
 * to wait) is copied to an input of the client's own, which the next reads go on filling and which is given back when
 * it is empty.
 *
 * Output. Commands write to the turn's shared output; a client's part of it is [turn_start, turn_end). Only what the
 * socket does not take at once is copied to an output of the client's own.
 *
 * Left out: io threads, TLS, cluster mode, scripts.
 */
#include "commands.h"
#include "disk.h"
#include "uring.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EVENTS_MAX    512                /* ready sockets a turn */
#define READ_MAX      ((size_t)16 << 10) /* bytes of a read into the turn's buffer */
#define READ_BLOB_MAX ((size_t)1 << 20)  /* bytes of a read straight into a value */
#define SLOT          (READ_MAX + 320)   /* so that the beginnings do not fall on the same cache lines */
#define BATCH_MAX     256                /* commands that are parsed before they run */
#define WARM_MAX      (1u << 20)         /* bytes of long values that are brought near for one write */
#define WINDOW        8                  /* commands whose keys are prefetched together */
#define BRIEF_ARGS    8                  /* a brief command (CMD_BRIEF) has no more arguments */
#define REPLY_SHARE   ((size_t)1 << 20)  /* bytes of replies to one client in a turn */
#define CRON_MS       100
#define SLOW_NS       1000000            /* behind what took so long, it is later */
#define TURN_MEMORY   ((size_t)32 << 20) /* that a turn may need for what is not asked about */
#define UNAUTHED_IN   ((size_t)20 << 10) /* bytes that may wait before the password is shown: with room, below 64 KiB */
#define LEADER_IN     8 /* times what a client may: the leader has let its clients, whose limit may be higher there */
#define UNAUTHED_OUT  ((size_t)4 << 10)
#define SLICE_MIN_US  30 /* of the snapshot's walk, in one turn */
#define SLICE_MAX_US  300

struct server_stats server_stats;

/* ==== state =================================================================================== */

/* Input of a client's own. */
struct input {
    char *buf;
    size_t len, cap;
    struct resp_parser parser;
};

/* What one read brought (or what a client's own input holds), for as long as its commands run. */
struct segment {
    struct client *c;
    char *buf;
    size_t len;
    size_t resume;     /* a command that has to wait begins here; len: none does */
    size_t reply_mark; /* output that waited when its first command began */
    char error[64];    /* of the protocol, the segment's last command */
};

/* A complete command that waits for its place in the batch. */
struct pending {
    uint32_t segment;
    int argc;                  /* 0: a protocol error */
    size_t arg;                /* index of its first argument in turn.args */
    size_t start;              /* where it begins in the segment */
    const struct command *cmd; /* the row, NULL: unknown */
};

_Static_assert(BATCH_MAX % WINDOW == 0, "the batch's windows");
/* What a window's commands will look up, or the first of it. */
struct window {
    struct store_lookup l[2 * WINDOW];
    size_t n;
};

static struct {
    struct client *reads[URING_MAX]; /* whose sockets have input that is to be read now */
    size_t nreads;
    char slots[URING_MAX][SLOT]; /* one for each */
    struct resp_parser parser;
    struct arg *args;
    size_t nargs, args_cap;
    struct pending batch[BATCH_MAX];
    size_t nbatch;
    struct window windows[BATCH_MAX / WINDOW];
    struct segment segments[BATCH_MAX];
    uint32_t nsegments;
    struct resp_out out;
    struct resp_out pushed; /* what the current client gets although its replies are dropped */
    struct client *current; /* whose commands are running */
    int64_t window_ns;      /* when the window began */
    int64_t looked_ns;      /* time of the window's commands that were looked at one by one; the others: */
    const struct command *brief[WINDOW];
    int nbrief;
    struct client **touched; /* have output to be written, or wait, as it does, for the log */
    size_t ntouched, touched_cap;
    uint64_t *again; /* keys of clients with input that can go on without a read */
    size_t nagain, again_cap;
} turn;

static struct {
    struct client **clients; /* by descriptor */
    int clients_cap;
    size_t nclients;
    uint64_t last_id;
    enum pause postponed_in; /* the strictest pause that any command waits for */
    struct client **dead;    /* closing, to be freed by the reaper */
    size_t ndead, dead_cap;
    int epoll, link_fd;
    bool stopping, files_closed;
    bool loading;       /* from the beginning until the data are there */
    bool out_of_memory; /* for this turn's small needs and the table's growth there may not be enough */
    uint32_t now_s;
    int64_t next_cron_ms;
} server = {.loading = true};

/* The commands that wait for a pause's end, in the order in which they came. */
static TAILQ_HEAD(postponed, queued) postponed = TAILQ_HEAD_INITIALIZER(postponed);

/* ==== the server's log ======================================================================== */

void server_log(int level, const char *fmt, ...) {
    if (level < config.loglevel) return;
    char text[1024], when[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    bool to_file = config.logfile && *config.logfile && (!*config.user || geteuid()); /* it is to be the user's */
    FILE *f = to_file ? fopen(config.logfile, "a") : stdout; /* opened for each line: it may have been moved away */
    struct tm tm;
    int64_t ms = store_clock_ns(CLOCK_REALTIME) / 1000000;
    localtime_r(&(time_t){ms / 1000}, &tm);
    strftime(when, sizeof when, "%d %b %Y %H:%M:%S", &tm);
    char role = config.replicaof && *config.replicaof ? 'S' : 'M';
    if (f) fprintf(f, "%d:%c %s.%03d %c %s\n", (int)getpid(), role, when, (int)(ms % 1000), ".-*#"[level], text);
    if (f) fflush(f);
    if (f && to_file) fclose(f);
    if (level == LOG_WARNING && to_file && server.loading) fprintf(stderr, "%s\n", text); /* who starts it hears it */
}

/* ==== connections ============================================================================= */

/* Names a connection, in an event or for later: its descriptor may have a new user by then. What is no client has only
 * the descriptor. */
static uint64_t client_key(const struct client *c) { return c->id << 32 | (uint32_t)c->fd; }

/* NULL: it is gone, whoever has its descriptor now, or the key is none of a client. */
static struct client *client_of(uint64_t key) {
    int fd = (int)(uint32_t)key;
    struct client *c = fd < server.clients_cap ? server.clients[fd] : NULL;
    return c && client_key(c) == key && !(c->flags & CLIENT_CLOSING) ? c : NULL;
}

/* From now on fd's events are these, under this key, whatever they were before. */
static bool watch(int op, int fd, uint32_t events, uint64_t key) {
    struct epoll_event ev = {.events = events, .data.u64 = key};
    return !epoll_ctl(server.epoll, op, fd, &ev) ||
           (errno == EEXIST && !epoll_ctl(server.epoll, EPOLL_CTL_MOD, fd, &ev));
}

/* A client's events are edges: each is told once, and the kernel need not look at the socket again to see whether it
 * was taken care of. What is left there all the same (behind a full read, while the client is blocked, ...) is told of
 * when the client is armed again; who can read nothing now is not told twice. Left out: what follows urgent data, or a
 * descriptor sent along, behind which a read ends though the socket is not empty; it is read with what comes next. */
static bool client_arm(struct client *c, int op) {
    bool told = c->flags & CLIENT_UNREAD && c->flags & (CLIENT_BLOCKED | CLIENT_CLOSE_AFTER);
    uint32_t events = (told ? 0 : EPOLLIN) | (c->flags & CLIENT_WANT_WRITE ? EPOLLOUT : 0);
    if (!told) c->flags &= ~(uint32_t)CLIENT_UNREAD;
    return watch(op, c->fd, EPOLLET | EPOLLRDHUP | events, client_key(c));
}

void server_watch(int fd) {
    if (!watch(EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t)fd)) die("epoll_ctl: %s", strerror(errno));
}

/* The socket of the link to a leader, while repl.c speaks over it. */
static void link_watch(int fd, bool output) {
    watch(EPOLL_CTL_ADD, fd, output ? EPOLLOUT : EPOLLIN, (uint32_t)fd);
    server.link_fd = fd;
}

static void input_free(struct client *c) {
    if (!c->in) return;
    resp_parser_free(&c->in->parser);
    free(c->in->buf);
    free(c->in);
    c->in = NULL;
}

static void input_new(struct client *c, const char *p, size_t n) {
    c->in = resp_need(malloc(sizeof *c->in));
    *c->in = (struct input){.buf = resp_need(malloc(n)), .len = n, .cap = n};
    resp_parser_init(&c->in->parser);
    memcpy(c->in->buf, p, n);
}

static void output_free(struct client *c) {
    if (!c->own) return;
    resp_out_free(c->own);
    free(c->own);
    c->own = NULL;
    c->over_soft_since = 0; /* it is below */
}

static bool client_authed(const struct client *c) { return c->flags & CLIENT_AUTHED || !*config.requirepass; }

struct client *client_new(int fd, uint32_t flags) {
    if (fd >= server.clients_cap) {
        int cap = fd + 1024;
        server.clients = resp_need(realloc(server.clients, (size_t)cap * sizeof *server.clients));
        memset(server.clients + server.clients_cap, 0, (size_t)(cap - server.clients_cap) * sizeof *server.clients);
        server.clients_cap = cap;
    }
    struct client *c = resp_need(malloc(sizeof *c));
    if (!(uint32_t)++server.last_id) server.last_id++; /* its key would be that of no client */
    *c = (struct client){.fd = fd, .id = server.last_id, .proto = 2};
    c->flags = flags | (*config.requirepass ? 0 : CLIENT_AUTHED);
    c->created = c->active = server.now_s;
    if (!client_arm(c, EPOLL_CTL_ADD)) {
        close(fd);
        free(c);
        return NULL;
    }
    uring_open(fd);
    server.clients[fd] = c;
    server.nclients++;
    server_stats.connections++;
    return c;
}

int client_silence(const struct client *c) { return (int)(server.now_s - c->active); }

void client_close(struct client *c) {
    if (c->flags & CLIENT_CLOSING) return;
    c->flags |= CLIENT_CLOSING;
    PUSH(server.dead, server.ndead, server.dead_cap, c);
}

void client_touch(struct client *c) {
    if (c->flags & CLIENT_TOUCHED) return;
    c->flags |= CLIENT_TOUCHED;
    PUSH(turn.touched, turn.ntouched, turn.touched_cap, c);
}

void client_close_after_reply(struct client *c) {
    c->flags |= CLIENT_CLOSE_AFTER;
    client_touch(c);
}

/* The one place where clients are freed. */
static void clients_reap(void) {
    size_t kept = 0;
    for (size_t i = 0; i < turn.ntouched; i++)
        if (!(turn.touched[i]->flags & CLIENT_CLOSING)) turn.touched[kept++] = turn.touched[i];
    turn.ntouched = kept;
    for (size_t i = 0; i < server.ndead; i++) {
        struct client *c = server.dead[i];
        server.clients[c->fd] = NULL;
        server.nclients--;
        uring_close(c->fd);
        if (c->flags & CLIENT_LEADER || c->follower) replication_gone(c);
        client_reset(c);
        input_free(c);
        output_free(c);
        if (c->postponed) TAILQ_REMOVE(&postponed, c->postponed, link);
        queued_free(c->postponed);
        free(c->lib_name);
        free(c->lib_ver);
        client_count_memory(c); /* as closing: none any more */
        free(c);
    }
    server.ndead = 0;
}

struct client *client_next(struct client *after) {
    for (int fd = after ? after->fd + 1 : 0; fd < server.clients_cap; fd++)
        if (server.clients[fd] && !(server.clients[fd]->flags & CLIENT_CLOSING)) return server.clients[fd];
    return NULL;
}

size_t client_count(void) { return server.nclients - server.ndead; }

void client_reset(struct client *c) {
    transaction_free(c);
    pubsub_forget(c);
    observe_forget(c);
    free(c->name);
    c->name = NULL;
    c->db = 0;
    c->proto = 2;
    c->skip &= 1; /* RESET's own reply */
    c->flags &= (uint32_t) ~(CLIENT_AUTHED | CLIENT_REPLY_OFF | CLIENT_NO_EVICT | CLIENT_NO_TOUCH);
    if (!*config.requirepass) c->flags |= CLIENT_AUTHED;
}

/* The client's own output, made where there is none: then what it has of the turn's moves there. */
static struct resp_out *client_own(struct client *c) {
    if (!c->own) {
        c->own = resp_need(calloc(1, sizeof *c->own));
        if (c->turn_end > c->turn_start) resp_raw(c->own, turn.out.buf + c->turn_start, c->turn_end - c->turn_start);
        c->turn_end = c->turn_start;
    }
    c->own->proto = c->proto;
    return c->own;
}

struct resp_out *client_output(struct client *c) {
    client_touch(c);
    if (c == turn.current && client_is_silent(c)) {
        turn.pushed.proto = c->proto;
        return &turn.pushed;
    }
    return c == turn.current && !c->own ? &turn.out : client_own(c);
}

size_t client_memory(const struct client *c, size_t *query, size_t *query_free, size_t *multi) {
    const struct resp_out *o = c->own;
    size_t in = c->in ? c->in->len + resp_parser_memory(&c->in->parser) : 0,
           spare = c->in ? c->in->cap - c->in->len : 0;
    size_t queued = transaction_memory(c),
           n = sizeof *c + in + spare + queued + pubsub_memory(c) + (c->in ? sizeof *c->in : 0);
    const char *const names[] = {c->name, c->lib_name, c->lib_ver};
    for (int i = 0; i < 3; i++) n += names[i] ? strlen(names[i]) : 0;
    if (o) n += sizeof *o + o->cap + o->pieces_cap * sizeof *o->pieces;
    for (uint32_t i = 0; o && i < o->npieces; i++) n += o->pieces[i].n / o->pieces[i].blob->refs;
    if (query) *query = in, *query_free = spare, *multi = queued;
    return n;
}

/* ==== blocking ================================================================================ */

/* Its input, as far as it is here already, goes on in the next turn. */
static void client_again(struct client *c) {
    if (c->flags & CLIENT_AGAIN) return;
    c->flags |= CLIENT_AGAIN;
    PUSH(turn.again, turn.nagain, turn.again_cap, client_key(c));
}

/* Its replies must not leave yet: what they report is not as safe as the policy promises. */
static bool output_held(const struct client *c) { return c->hold > log_safe(); }

/* ==== WAIT and WAITAOF ======================================================================== */

static bool wait_over(const struct client *c) {
    bool local = !c->wait_local || (config.persist.log_on && log_synced() >= c->last_write);
    return local && (int64_t)repl_count(c->last_write, c->wait_aof) >= c->wait_followers;
}

static void wait_reply(const struct client *c, struct resp_out *out) {
    if (c->wait_aof) resp_array(out, 2);
    if (c->wait_aof) resp_int(out, config.persist.log_on && log_synced() >= c->last_write);
    resp_int(out, (int64_t)repl_count(c->last_write, c->wait_aof));
}

/* Blocks until the log, as far as c has changed it, is where it is wanted. Inside a transaction nothing waits. */
static void wait_begin(struct cx *cx, bool local, int64_t followers, int64_t until) {
    struct client *c = cx->client;
    c->wait_aof = cx->cmd->fn == cmd_waitaof;
    c->wait_local = local;
    c->wait_followers = followers;
    if (c->flags & CLIENT_MULTI || wait_over(c)) {
        wait_reply(c, cx->out);
        return;
    }
    c->wait_until = until ? until : INT64_MAX;
    if (followers) replication_getack();
    c->flags |= CLIENT_BLOCKED;
    client_touch(c);
}

void cmd_wait(struct cx *cx) {
    int64_t followers, until;
    if (cx_check(cx, !log_following(),
                 "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica "
                 "is configured to be writable (which is not the default) writes to replicas are just local and are "
                 "not propagated.") &&
        cx_int(cx, 1, &followers) && cx_timeout(cx, 2, &until))
        wait_begin(cx, false, followers, until);
}

void cmd_waitaof(struct cx *cx) {
    int64_t local, followers, until;
    if (cx_int(cx, 1, &local) && cx_int(cx, 2, &followers) &&
        cx_check(cx, local >= 0 && local <= 1, "ERR value is out of range, must be between 0 and 1") &&
        cx_check(cx, followers >= 0, "ERR value is out of range, must be positive") && cx_timeout(cx, 3, &until) &&
        cx_check(cx, !log_following(), "ERR WAITAOF cannot be used with replica instances.") &&
        cx_check(cx, !local || config.persist.log_on,
                 "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."))
        wait_begin(cx, local, followers, until);
}

/* If c has waited long enough, it hears how far the log is. */
static void wait_check(struct client *c) {
    bool demoted = log_following(), silent = client_is_silent(c);
    bool failed = c->wait_until == WAIT_FAILED;
    if (!wait_over(c) && store_wall_clock() < c->wait_until && !demoted) return;
    c->wait_until = 0;
    if (!silent && (demoted || failed)) {
        resp_errorf(client_own(c), "UNBLOCKED %s",
                    failed ? "client unblocked via CLIENT UNBLOCK"
                           : "force unblock from blocking operation, instance state changed (master -> replica?)");
        server_count_error(c->own->last_error);
    } else if (!silent) wait_reply(c, client_own(c));
    if (demoted) c->flags |= CLIENT_CLOSE_AFTER;
    c->skip = 0;
}

/* ==== output ================================================================================== */

/* What the socket did not take becomes, or stays, the client's own output. Apart, as it is rare. */
static __attribute__((noinline)) void output_keep(struct client *c, size_t sent) {
    c->turn_start += sent; /* without a part of the turn's, that says nothing */
    if (c->own) resp_out_sent(c->own, sent);
    else client_own(c);
    if (!resp_out_pending(c->own)) output_free(c);
}

/* c's commands begin to run: its replies go to the end of the shared output, unless older ones still wait. */
static void output_begin(struct client *c) {
    turn.current = c;
    /* A second time in one turn, the parts would not be in one piece. */
    if (c->turn_end > c->turn_start) client_own(c);
    if (!c->own) c->turn_start = c->turn_end = turn.out.len;
    turn.out.proto = c->proto;
}

static void output_end(void) {
    struct client *c = turn.current;
    turn.current = NULL;
    if (!c) return;
    if (!c->own && turn.out.npieces) /* blobs in between: only outputs of clients keep them */
        resp_out_move(client_own(c), &turn.out, c->turn_start);
    else if (!c->own) c->turn_end = turn.out.len;
    if (c->own || c->turn_end > c->turn_start) client_touch(c);
}

/* What the output costs: a blob that is sent over and over again is there only once. */
static size_t output_memory(const struct client *c) {
    return c->own ? resp_out_memory(c->own) : resp_out_memory(&turn.out) - c->turn_start;
}

static void output_check_limits(struct client *c) {
    int class = client_class(c) % 3; /* a leader's limits are the normal ones */
    size_t hard = (size_t)config.output_hard[class], soft = (size_t)config.output_soft[class];
    bool authed = client_authed(c);
    size_t n = output_memory(c);
    if (!soft || n <= soft) c->over_soft_since = 0;
    else if (!c->over_soft_since) c->over_soft_since = server.now_s;
    uint32_t seconds = c->over_soft_since ? server.now_s - c->over_soft_since : 0;
    bool over = (hard && n > hard) || seconds > (uint32_t)config.output_seconds[class];
    if (!authed && n > UNAUTHED_OUT)
        server_log(LOG_VERBOSE, "A client was closed: %zu bytes of output wait for it, and it has shown no password",
                   n);
    else if (over)
        server_log(LOG_WARNING, "Client %s closed: %zu bytes of output wait for it (client-output-buffer-limit)",
                   client_peer(c).text, n);
    else return;
    client_close(c);
}

bool client_drowns(struct client *c) {
    size_t hard = (size_t)config.output_hard[client_class(c) % 3];
    bool over = hard && output_memory(c) > hard;
    if (over && !client_is_silent(c)) output_check_limits(c);
    return over;
}

/* So many bytes of what c had to get went out (or it was -errno). */
static void client_sent(struct client *c, bool held, ssize_t sent) {
    bool full = sent == -EAGAIN; /* when it no longer is, is an edge */
    if (sent < 0 && !full && sent != -EINTR) client_close(c);
    if (sent < 0) sent = 0;
    server_stats.net_out += (uint64_t)sent;
    if (sent && !(c->flags & (CLIENT_LEADER | CLIENT_FOLLOWER))) c->active = server.now_s;
    if (c->own || (size_t)sent < c->turn_end - c->turn_start) output_keep(c, (size_t)sent);
    c->turn_start = c->turn_end = 0;
    int more = c->flags & CLIENT_FOLLOWER && !c->own ? repl_send(c->follower) : 0;
    if (more < 0) client_close(c);
    bool wait = (c->own && !held) || more > 0;
    uint32_t before = c->flags;
    c->flags = wait ? c->flags | CLIENT_WANT_WRITE : c->flags & ~(uint32_t)CLIENT_WANT_WRITE;
    if (c->flags & CLIENT_CLOSE_AFTER && !c->own) client_close(c);
    if (c->flags & CLIENT_CLOSING) return;
    if (before != c->flags || (wait && !full)) client_arm(c, EPOLL_CTL_MOD);
    if (c->own) output_check_limits(c);
    client_count_memory(c);
}

/* Brings long values near before a write copies them. Where they lie in memory alone, the kernel's copy waits for one
 * line after the other; reads that nobody waits for run far ahead: a GET of 1 MB costs 0.90 of what it does without. */
static void output_warm(const struct iovec *iov, int n) {
    const size_t line = 64, page = 4096;
    for (size_t left = WARM_MAX; n > 0; n--, iov++) {
        const volatile char *p = iov->iov_base;
        size_t some = iov->iov_len < RESP_BLOB_MIN ? 0 : iov->iov_len < left ? iov->iov_len : left;
        for (size_t at = 0; at < some; at += line) {
            __builtin_prefetch((const char *)p + at + page); /* its address is looked up meanwhile */
            (void)p[at];
        }
        left -= some;
    }
}

/* Output that waited before, or has to: one write for all that c has to get. */
static void client_flush(struct client *c) {
    if (c->wait_until) wait_check(c);
    if (c->turn_end > c->turn_start) client_own(c);
    bool held = output_held(c);
    ssize_t sent = 0;
    c->flags = held ? c->flags | CLIENT_HELD | CLIENT_BLOCKED : c->flags & ~(uint32_t)CLIENT_HELD;
    if (!held) c->hold = 0;
    if (c->flags & CLIENT_BLOCKED && !held && !c->wait_until && !c->postponed) { /* what it waited for is over */
        c->flags &= ~(uint32_t)CLIENT_BLOCKED;
        client_again(c);
    }
    if (c->own && resp_out_pending(c->own) && !held) {
        struct iovec iov[64];
        int n = resp_out_iov(c->own, iov, 64);
        if (!(c->flags & CLIENT_WANT_WRITE)) output_warm(iov, n); /* else its socket takes little at a time */
        sent = writev(c->fd, iov, n);
        if (sent < 0) sent = -errno;
        server_stats.writes++;
    }
    client_sent(c, held, sent);
}

/* The turn's replies to clients for whom nothing else waits, all at once. */
static void flush_together(struct client **clients, size_t n) {
    struct uring_io ios[URING_MAX];
    for (size_t i = 0; i < n; i++) {
        const struct client *c = clients[i];
        ios[i] = (struct uring_io){c->fd, turn.out.buf + c->turn_start, c->turn_end - c->turn_start, 0};
    }
    uring_write(ios, n);
    server_stats.writes += n;
    for (size_t i = 0; i < n; i++) {
        clients[i]->hold = 0;
        client_sent(clients[i], false, ios[i].result);
    }
}

/* Who waits for nothing but this turn's replies comes first: what a sync has let go may be many. */
static void clients_flush(void) {
    struct client *simple[URING_MAX];
    size_t n = 0, rest = 0;
    for (size_t i = 0; i < turn.ntouched; i++) {
        struct client *c = turn.touched[i];
        c->flags &= ~(uint32_t)CLIENT_TOUCHED;
        if (c->flags & CLIENT_CLOSING) continue;
        if (c->own || c->turn_start == c->turn_end || c->flags & CLIENT_BLOCKED || output_held(c))
            turn.touched[rest++] = c;
        else simple[n++] = c;
        if (n == URING_MAX) flush_together(simple, n), n = 0;
    }
    flush_together(simple, n);
    turn.ntouched = 0;
    for (size_t i = 0; i < rest; i++) {
        struct client *c = turn.touched[i];
        client_flush(c);
        if (c->flags & CLIENT_HELD || c->wait_until) client_touch(c); /* until it may go on */
    }
    if (turn.out.cap > 4 * REPLY_SHARE) resp_out_free(&turn.out);
    turn.out.len = 0;
}

/* ==== input =================================================================================== */

static void batch_run(void);

/* One more complete command for the batch, with the arguments that the parser found. */
static void batch_add(struct pending *cmd, struct resp_parser *p) {
    size_t n = (size_t)p->argc;
    while (turn.args_cap < turn.nargs + n) {
        turn.args_cap = turn.args_cap ? 2 * turn.args_cap : 4096;
        turn.args = resp_need(realloc(turn.args, turn.args_cap * sizeof *turn.args));
    }
    bool leader = turn.segments[cmd->segment].c->flags & CLIENT_LEADER;
    cmd->cmd = leader ? command_find_logged(&p->argv[0]) : command_find(&p->argv[0]);
    memcpy(turn.args + turn.nargs, p->argv, n * sizeof *p->argv);
    turn.nargs += n;
    p->argc = 0; /* the batch has them now, their blobs too */
}

/* The cut-off command that the turn's parser is at goes on in *own, with no more memory than it needs. */
static void parser_leave(struct resp_parser *p, struct resp_parser *own) {
    *own = *p;
    own->cap = p->argc + (p->todo < 16 ? p->todo : 16);
    own->argv = resp_need(realloc(p->argv, (size_t)(own->cap + 1) * sizeof *p->argv)); /* never nothing */
    resp_parser_init(p);
}

/* Parses what c has sent, as far as the batch has room, into pending commands of a new segment. */
static void segment_parse(struct client *c, char *buf, size_t len) {
    if (turn.nbatch == BATCH_MAX || turn.nsegments == BATCH_MAX) batch_run();
    struct segment *s = &turn.segments[turn.nsegments++];
    *s = (struct segment){.c = c, .buf = buf, .len = len, .resume = len};
    struct resp_parser *p = c->in ? &c->in->parser : &turn.parser;
    enum resp_result r = RESP_OK;
    p->strict = !client_authed(c);
    p->max_bulk = c->flags & CLIENT_LEADER ? RESP_STRING_MAX : config.proto_max_bulk_len; /* as its own clients may */
    size_t first = turn.nbatch;
    while (turn.nbatch < BATCH_MAX) {
        struct pending *cmd = &turn.batch[turn.nbatch];
        const char *error;
        /* Quotes are taken off in place, so an inline command cannot be put off once it is parsed: it goes first. */
        if (turn.nbatch > first && p->pos < len && p->todo == 0 && buf[p->pos] != '*') break;
        r = resp_parse(p, buf, len, &error);
        if (r == RESP_MORE) break;
        if (r == RESP_OK && c->flags & CLIENT_LEADER && (p->argc == 0 || buf[p->start] != '*')) {
            r = RESP_ERROR; /* the log would not have its length */
            error = "the stream is not made of arrays";
        }
        if (r == RESP_OK && p->argc == 0) continue;
        cmd->segment = (uint32_t)(s - turn.segments);
        cmd->start = p->start;
        cmd->argc = r == RESP_OK ? p->argc : 0;
        cmd->arg = turn.nargs;
        cmd->cmd = NULL;
        turn.nbatch++;
        if (r == RESP_ERROR) snprintf(s->error, sizeof s->error, "%s", error);
        if (r == RESP_ERROR) break;
        batch_add(cmd, p);
        if (p->strict) break; /* AUTH would raise the limits for what follows */
    }
    if (r == RESP_OK) s->resume = p->pos; /* no room: the rest in the next batch */
    if (c->in) return;
    if (r == RESP_MORE && p->start < len) {
        input_new(c, buf + p->start, len - p->start);
        parser_leave(p, &c->in->parser);
        resp_parser_rebase(&c->in->parser, buf, c->in->buf, c->in->parser.start);
    }
    p->start = p->pos = 0;
}

/* The commands of this segment have run: what is left of its bytes is, or stays, in an input of the client's own. What
 * has to wait is parsed again later, from its first byte. */
static void segment_finish(struct segment *s) {
    struct client *c = s->c;
    bool waits = s->resume < s->len, own = c->in && c->in->buf == s->buf;
    if (waits && !own) {
        input_free(c);
        input_new(c, s->buf + s->resume, s->len - s->resume);
    }
    if (waits && !(c->flags & (CLIENT_BLOCKED | CLIENT_CLOSING))) client_again(c);
    if (own) {
        struct resp_parser *p = &c->in->parser;
        if (waits) resp_parser_free(p), p->pos = s->resume;
        size_t from = p->todo ? p->start : p->pos;
        c->in->len -= from;
        if (from) memmove(c->in->buf, c->in->buf + from, c->in->len);
        resp_parser_rebase(p, s->buf, s->buf, from);
        if (!c->in->len && !p->todo) input_free(c);
    }
    client_count_memory(c);
}

/* Clients whose earlier input can go on without another read. */
static void again_run(void) {
    size_t n = turn.nagain;
    for (size_t i = 0; i < n; i++) {
        struct client *c = client_of(turn.again[i]);
        if (!c) continue;
        c->flags &= ~(uint32_t)CLIENT_AGAIN;
        if (c->flags & CLIENT_UNREAD) client_arm(c, EPOLL_CTL_MOD);
        if (c->in && !(c->flags & (CLIENT_BLOCKED | CLIENT_CLOSE_AFTER))) segment_parse(c, c->in->buf, c->in->len);
    }
    batch_run(); /* before a read moves the bytes of those inputs */
    turn.nagain -= n;
    memmove(turn.again, turn.again + n, turn.nagain * sizeof *turn.again);
}

/* Where the next read of a client with an input of its own goes: into the value that comes, or behind what is there. */
static char *input_room(struct client *c, size_t *n) {
    struct input *in = c->in;
    if (in->parser.blob) {
        size_t left = in->parser.blob_want - in->parser.blob_have;
        *n = left < READ_BLOB_MAX ? left : READ_BLOB_MAX;
        return in->parser.blob->data + in->parser.blob_have;
    }
    if (in->cap - in->len < READ_MAX) {
        char *old = in->buf;
        in->cap = in->len + READ_MAX + in->len / 2;
        in->buf = resp_need(malloc(in->cap));
        memcpy(in->buf, old, in->len);
        resp_parser_rebase(&in->parser, old, in->buf, 0);
        free(old);
    }
    *n = READ_MAX;
    return in->buf + in->len;
}

/* What has come of a command, or a transaction, that cannot run yet is not too much. False: c is closed. */
static bool input_bounded(struct client *c) {
    bool authed = client_authed(c);
    size_t most = authed ? (size_t)config.client_query_buffer_limit : UNAUTHED_IN;
    if (c->flags & CLIENT_LEADER && most) most = LEADER_IN * most + RESP_STRING_MAX; /* any value by itself */
    size_t n = transaction_memory(c) + pubsub_memory(c) + (c->in ? c->in->len + resp_parser_memory(&c->in->parser) : 0);
    if (!most || n <= most) return true;
    if (c->flags & CLIENT_LEADER)
        replication_refuse("an unfinished command or transaction of it is far above client-query-buffer-limit");
    else if (authed)
        server_log(LOG_WARNING, "A client was closed: its unfinished command or transaction is longer than "
                                "client-query-buffer-limit");
    else server_log(LOG_VERBOSE, "A client was closed: it has shown no password, and its command is too long");
    client_close(c);
    return false;
}

/* A read of c's is over: what it brought is where it belongs. */
static void client_got(struct client *c, const struct uring_io *io) {
    ssize_t got = io->result;
    bool end = got <= 0 && got != -EAGAIN && got != -EINTR;
    if (end && !(c->flags & CLIENT_TOUCHED)) client_close(c); /* else after its replies */
    else if (got == (ssize_t)io->n || c->flags & CLIENT_UNREAD) client_arm(c, EPOLL_CTL_MOD);
    if (got <= 0) return;
    server_stats.net_in += (uint64_t)got;
    server_stats.reads++;
    c->active = server.now_s;
    if (c->in && c->in->parser.blob) c->in->parser.blob_have += (size_t)got;
    else if (c->in) c->in->len += (size_t)got;
    if (!input_bounded(c)) return;
    if (c->in) segment_parse(c, c->in->buf, c->in->len);
    else segment_parse(c, io->p, (size_t)got);
}

/* Reads the sockets whose turn has come, all at once: each into a slot of the turn's buffer, unless it goes on with
 * what an input of the client's own, or a value, holds. */
static void reads_run(void) {
    struct uring_io ios[URING_MAX];
    if (turn.nbatch) batch_run(); /* the slots may hold its arguments */
    for (size_t i = 0; i < turn.nreads; i++) {
        struct client *c = turn.reads[i];
        ios[i] = (struct uring_io){c->fd, turn.slots[i], READ_MAX, 0};
        if (c->in) ios[i].p = input_room(c, &ios[i].n);
    }
    uring_read(ios, turn.nreads);
    for (size_t i = 0; i < turn.nreads; i++)
        if (!(turn.reads[i]->flags & CLIENT_CLOSING)) client_got(turn.reads[i], &ios[i]);
    turn.nreads = 0;
}

/* ==== the clock ============================================================================== */

void server_set_expiry(void) {
    bool hide = log_following() || client_paused();
    enum store_expiry mode = server.loading ? STORE_EXPIRE_IGNORE : hide ? STORE_EXPIRE_HIDE : STORE_EXPIRE_DELETE;
    store_set_clock(store_wall_clock(), mode);
}

static void clock_read(void) {
    store_set_clock(store_clock_ns(CLOCK_REALTIME) / 1000000, STORE_EXPIRE_IGNORE);
    server_set_expiry();                            /* a pause may be over by now */
    server.now_s = (uint32_t)(repl_clock() / 1000); /* silences must not depend on who sets the clock */
}

/* ==== the batch =============================================================================== */

static void window_gather(struct window *w, const struct pending *cmd, size_t n) {
    for (size_t i = w->n = 0; i < n && i < WINDOW; i++) {
        const struct command *row = cmd[i].cmd;
        if (!row || row->first_key <= 0 || cmd[i].argc <= row->first_key) continue;
        struct db *db = store_db(turn.segments[cmd[i].segment].c->db);
        int last = row->last_key < 0 ? cmd[i].argc + row->last_key : row->last_key;
        for (int k = row->first_key; k <= last && k < cmd[i].argc && w->n < 2 * WINDOW; k += row->key_step)
            w->l[w->n++] = (struct store_lookup){db, &turn.args[cmd[i].arg + (size_t)k]};
    }
}

static void client_run(struct client *c, const struct command *cmd, struct arg *argv, int argc);

/* Bytes of output that wait for c while its commands run. */
static size_t output_now(const struct client *c) {
    return c->own ? resp_out_pending(c->own) : turn.out.len - c->turn_start + turn.out.piece_bytes;
}

static void pending_run(const struct pending *cmd) {
    struct segment *s = &turn.segments[cmd->segment];
    struct client *c = s->c;
    struct arg *argv = cmd->argc ? turn.args + cmd->arg : NULL;
    if (turn.current != c) {
        output_end();
        output_begin(c);
        s->reply_mark = output_now(c);
    }
    bool skip = server.files_closed || c->flags & (CLIENT_CLOSING | CLIENT_CLOSE_AFTER) || s->resume <= cmd->start;
    if (!skip && (c->flags & CLIENT_BLOCKED || output_now(c) > s->reply_mark + REPLY_SHARE)) {
        s->resume = cmd->start; /* it and what is behind it have to wait */
        skip = true;
    }
    if (!skip && cmd->argc) client_run(c, cmd->cmd, argv, cmd->argc);
    else if (!skip && c->flags & CLIENT_LEADER) replication_refuse(s->error);
    else if (!skip) {
        struct resp_out *o = c->own ? c->own : &turn.out;
        resp_errorf(o, strncmp(s->error, "OOM ", 4) ? "ERR %s" : "%s", s->error);
        server_count_error(o->last_error);
        server_log(LOG_VERBOSE, "A client was closed: %s", s->error);
        client_close_after_reply(c);
    }
    if (c->in) resp_arg_release(argv, cmd->argc); /* a blob is never read into the shared buffer: it is too big */
}
_Static_assert(READ_MAX < RESP_BLOB_MIN, "else that may be read there");

static void window_run(const struct pending *cmd, size_t n) {
    turn.looked_ns = turn.nbrief = 0;
    for (size_t k = 0; k < n && k < WINDOW; k++) pending_run(&cmd[k]);
    int64_t now = observe_clock();
    if (turn.nbrief) observe_share(turn.brief, turn.nbrief, now - turn.window_ns - turn.looked_ns);
    if (now - turn.window_ns > SLOW_NS) clock_read();
    turn.window_ns = now;
}

/* Runs what has been parsed, in the order in which it came, a window at a time. While one runs, what the next ones look
 * up is on its way to the cache: of each the nearer, the sooner it runs. */
static void batch_run(void) {
    size_t windows = (turn.nbatch + WINDOW - 1) / WINDOW, steps = turn.nbatch > 1 ? STORE_PREFETCH_STEPS : 0;
    turn.window_ns = turn.nbatch ? observe_clock() : 0;
    for (size_t at = 0; at < windows + steps; at++) {
        size_t first = at * WINDOW, ran = (at - steps) * WINDOW;
        if (at < windows) window_gather(&turn.windows[at], turn.batch + first, turn.nbatch - first);
        for (size_t step = 0; step < steps && step <= at; step++)
            if (at - step < windows) store_prefetch(turn.windows[at - step].l, turn.windows[at - step].n, (int)step);
        if (at >= steps) window_run(turn.batch + ran, turn.nbatch - ran);
    }
    output_end();
    for (uint32_t i = 0; i < turn.nsegments; i++) segment_finish(&turn.segments[i]);
    if (turn.args_cap > 1 << 16) {
        free(turn.args);
        turn.args = NULL;
        turn.args_cap = 0;
    }
    turn.nbatch = turn.nargs = turn.nsegments = 0;
}

/* ==== the context's helpers =================================================================== */

void cx_log(struct cx *cx, int argc, const struct arg *argv) {
    cx->logged = true;
    if (cx->client) log_append(store_db_id(cx->db), argv, argc); /* what is replayed is in the log already */
}

struct arg cx_number(struct cx *cx, int64_t v) {
    return (struct arg){.n = (uint32_t)resp_write_int(cx->num, v), .p = cx->num};
}

bool cx_int(struct cx *cx, int i, int64_t *v) {
    return cx_check(cx, resp_read_int(cx->argv[i].p, cx->argv[i].n, v), "ERR value is not an integer or out of range");
}

void cx_bulk_value(struct cx *cx, const struct entry *e) {
    struct arg v = store_value(e);
    struct blob *b = e && v.n >= RESP_BLOB_MIN ? store_blob(e) : NULL;
    if (!e) resp_null(cx->out);
    else if (b) resp_blob(cx->out, b, v.n);
    else resp_bulk(cx->out, v.p, v.n);
}

/* ==== dispatch ================================================================================ */

/* Changes that a command made by itself: keys that expired under its look-ups are logged where they are noticed. */
static uint64_t own_changes(void) { return store_stats.changes - store_stats.expired; }

static void on_reclaim(struct db *db, const char *key, size_t n, bool evicted) {
    struct arg argv[] = {ARG("DEL"), {.p = key, .n = (uint32_t)n}};
    log_append(store_db_id(db), argv, 2);
    cx_event(db, evicted ? 'e' : 'x', evicted ? "evicted" : "expired", &argv[1]);
}

/* Evicts where memory is above the limit; false: what needs memory is to be refused. */
static bool make_room(void) {
    int64_t began = config.maxmemory && config.latency_threshold ? observe_clock() : 0;
    bool done = store_make_room((size_t)config.maxmemory, (enum store_policy)config.maxmemory_policy);
    if (began) observe_event(EVENT_EVICT, began);
    return done;
}

/* Runs the command and draws the consequences of what it did. */
void cx_call(struct cx *cx) {
    uint64_t before = own_changes(), errors = cx->out->errors;
    int db = store_db_id(cx->db);
    int64_t began = 0;
    bool bracket = cx->client && cx->cmd->fn == cmd_exec && /* of commands that count for themselves */
                   (cx->client->flags & (CLIENT_MULTI | CLIENT_MULTI_BAD)) == CLIENT_MULTI;
    bool brief = cx->cmd->flags & CMD_BRIEF && cx->argc <= BRIEF_ARGS && !observe_all && cx->client &&
                 !(cx->client->flags & CLIENT_MULTI); /* its time is not worth a look at the clock */
    if (brief && turn.nbrief < WINDOW) turn.brief[turn.nbrief++] = cx->cmd;
    else if (cx->client) began = observe_clock();
    cx->logged = false;
    cx->cmd->fn(cx);
    server_stats.commands++;
    bool failed = cx->out->errors != errors && !bracket;
    cx->cmd->stats->calls++;
    cx->cmd->stats->failed += failed;
    if (failed) server_count_error(cx->out->last_error);
    int64_t ns = began ? observe_look(cx, began) : 0;
    if (ns && !(cx->client->flags & CLIENT_MULTI)) { /* EXEC's has its commands' in it */
        turn.looked_ns += ns;
        if (ns > SLOW_NS) clock_read();
    }
    /* EXEC's commands have logged themselves, and what DEBUG or REPLICAOF load is no change of theirs. */
    if (own_changes() == before || !(cx->cmd->flags & CMD_WRITE) || !cx->client) return;
    if (!cx->logged) log_append(db, cx->argv, cx->argc);
    if (!log_following()) cx->client->hold = cx->client->last_write = log_end();
    else if (!(cx->client->flags & CLIENT_LEADER)) log_stray();
}

/* Says so and returns false. Apart, so that only who comes here pays for it. */
static __attribute__((noinline)) bool unknown_command(struct cx *cx) {
    char args[132] = ""; /* up to 128 characters of them, and the last one's quotes and space */
    size_t used = 0;
    static int64_t next_ms;
    bool http = cx->client && resp_arg_is(&cx->argv[0], "post host:");
    if (http) client_close(cx->client);
    if (http && store_now() >= next_ms) {
        server_log(LOG_WARNING, "Clients that speak HTTP are closed: perhaps a browser was made to send requests here");
        next_ms = store_now() + 60000;
    }
    for (int i = 1; i < cx->argc && used < 128; i++) {
        size_t n = cx->argv[i].n, room = 128 - used;
        used += (size_t)sprintf(args + used, "'%.*s' ", (int)(n < room ? n : room), cx->argv[i].p);
    }
    resp_errorf(cx->out, "ERR unknown command '%.*s', with args beginning with: %s",
                (int)(cx->argv[0].n < 128 ? cx->argv[0].n : 128), cx->argv[0].p, args);
    return false;
}

bool cx_resolve(struct cx *cx) {
    if (!cx->cmd) return unknown_command(cx);
    if (cx->cmd->flags & CMD_CONTAINER && cx->argc > 1) {
        const struct command *sub = command_find_sub(cx->cmd, &cx->argv[1]);
        bool known = cx_checkf(cx, sub, "ERR unknown subcommand '%.*s'. Try %s HELP.",
                               (int)(cx->argv[1].n < 128 ? cx->argv[1].n : 128), cx->argv[1].p, command_title(cx->cmd));
        cx->cmd = sub; /* an unknown one counts for nobody */
        if (!known) return false;
    }
    return cx_arity(cx, cx->cmd->arity > 0 ? cx->argc == cx->cmd->arity : cx->argc >= -cx->cmd->arity);
}

/* The disk keeps its promise. PING asks, too: then who watches over servers, such as Sentinel, takes another. */
static bool disk_is_well(struct cx *cx) {
    return cx_checkf(cx, !log_error(), "MISCONF Errors writing to the AOF file: %s", log_error()) &&
           cx_check(cx, snap_ok() || !config.stop_writes_on_bgsave_error || !*config.save,
                    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. "
                    "Commands that may modify the data set are disabled, because this instance is configured to report "
                    "errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check "
                    "the Redis logs for details about the RDB error.");
}

bool cx_may_write(struct cx *cx) {
    if (cx->client->flags & CLIENT_LEADER) return true;
    return disk_is_well(cx) && cx_check(cx, replication_enough(), "NOREPLICAS Not enough good replicas to write.") &&
           cx_check(cx, !log_following() || !config.replica_read_only,
                    "READONLY You can't write against a read only replica.");
}

/* Whether the command may run now; false: the error is said. */
static bool may_run(struct cx *cx) {
    const struct client *c = cx->client;
    bool multi = c->flags & CLIENT_MULTI;
    uint32_t flags = cx->cmd->flags, all = multi ? transaction_flags(cx) : flags;
    bool grows = all & CMD_DENYOOM || (multi && !(flags & CMD_IN_MULTI)); /* queueing takes memory, too */
    return cx_check(cx, client_authed(c) || flags & CMD_NO_AUTH, "NOAUTH Authentication required.") &&
           cx_check(cx, !server.loading || flags & CMD_LOADING, "LOADING Redis is loading the dataset in memory") &&
           cx_check(cx, !multi || !(flags & CMD_NO_MULTI), "ERR Command not allowed inside a transaction") &&
           cx_check(cx, !grows || !config.maxmemory || make_room(),
                    "OOM command not allowed when used memory > 'maxmemory'.") &&
           cx_check(cx, !grows || !server.out_of_memory, RESP_NO_MEMORY) &&
           cx_checkf(cx, !c->subs || c->proto > 2 || flags & CMD_IN_RESP2_SUB,
                     "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed "
                     "in this context",
                     cx->cmd->name) &&
           cx_check(cx,
                    !(c->flags & (CLIENT_MONITOR | CLIENT_FOLLOWER)) ||
                        !(flags & (CMD_WRITE | CMD_READONLY | CMD_MAY_REPLICATE)),
                    "ERR Replica can't interact with the keyspace") &&
           (!(all & CMD_WRITE) || cx_may_write(cx)) && (cx->cmd->fn != cmd_ping || disk_is_well(cx)) &&
           cx_check(cx, config.replica_serve_stale_data || all & CMD_STALE || !log_following() || replication_link_up(),
                    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
}

/* Keeps the command for later where the pause is for it, too. */
static bool postpone(struct cx *cx) {
    enum pause pause = client_paused();
    if (cx->client->flags & (CLIENT_LEADER | CLIENT_FOLLOWER)) return false;
    if (pause != PAUSE_ALL && !(transaction_flags(cx) & (CMD_WRITE | CMD_MAY_REPLICATE))) return false;
    if (pause > server.postponed_in) server.postponed_in = pause;
    cx->client->postponed = queued_new(cx);
    TAILQ_INSERT_TAIL(&postponed, cx->client->postponed, link);
    cx->client->flags |= CLIENT_BLOCKED;
    return true;
}

static void cx_dispatch(struct cx *cx) {
    struct client *c = cx->client;
    size_t len = cx->out->len;
    if (!cx_resolve(cx) || !may_run(cx)) {
        if (cx->cmd) cx->cmd->stats->rejected++;
        bool exec = cx->cmd && cx->cmd->fn == cmd_exec;
        if (exec) transaction_abort(cx, len);
        else if (c->flags & CLIENT_MULTI) c->flags |= CLIENT_MULTI_BAD;
        server_count_error(cx->out->last_error);
        if (exec) observe_monitored(cx); /* here ends what MULTI began */
        return;
    }
    if (client_paused() && postpone(cx)) return;
    if (c->flags & CLIENT_MULTI && !(cx->cmd->flags & CMD_IN_MULTI)) transaction_queue(cx);
    else cx_call(cx);
}

/* One command of a client's input. */
static void client_run(struct client *c, const struct command *cmd, struct arg *argv, int argc) {
    struct cx cx;
    cx.client = c;
    cx.cmd = cmd;
    cx.argv = argv;
    cx.argc = argc;
    cx.db = store_db(c->db);
    cx.out = c->own ? c->own : &turn.out;
    size_t len = cx.out->len;
    uint32_t pieces = cx.out->npieces;
    if (c->flags & CLIENT_LEADER) replication_run(&cx);
    else cx_dispatch(&cx);
    c->last_cmd = cx.cmd;
    if (client_is_silent(c)) resp_truncate(cx.out, len, pieces);
    if (turn.pushed.len) resp_out_move(cx.out, &turn.pushed, 0);
    if (c->wait_until || c->postponed) return; /* its reply is still to come */
    c->skip >>= 1;
}

/* What was put off runs when no pause is as strict any more; it may be put off again. */
static void postponed_run(void) {
    if (client_paused() >= server.postponed_in) return;
    server.postponed_in = PAUSE_NONE;
    struct queued *q, *last = TAILQ_LAST(&postponed, postponed);
    for (bool more = last; more && !server.files_closed; queued_free(q)) {
        q = TAILQ_FIRST(&postponed);
        more = q != last;
        TAILQ_REMOVE(&postponed, q, link);
        struct client *c = q->client;
        c->postponed = NULL;
        if (c->flags & CLIENT_CLOSING) continue;
        output_begin(c);
        client_run(c, q->cmd, q->argv, q->argc);
        output_end();
        client_touch(c); /* it may go on */
    }
}

/* ==== replay: the log's commands at the start, without a client =============================== */

static struct resp_out replay_out = {.proto = 2};

static bool replay_apply(int *db, struct arg *argv, int argc, const char **why) {
    static char text[256];
    struct cx cx = {.cmd = command_find_logged(&argv[0]), .argv = argv, .argc = argc, .out = &replay_out};
    uint64_t errors = replay_out.errors;
    bool changes = cx.cmd && cx.cmd->flags & CMD_WRITE;
    int64_t id;
    if (resp_arg_is(&argv[0], "select")) {
        bool known = argc == 2 && resp_read_int(argv[1].p, argv[1].n, &id) && id >= 0 && id < store_databases();
        if (cx_check(&cx, known, "SELECT of a database that --databases does not allow")) *db = (int)id;
    } else if (changes || !resp_arg_is(&argv[0], "multi exec ping replconf function script publish spublish")) {
        cx.db = store_db(*db);
        if (cx_resolve(&cx) && cx_check(&cx, changes, "ERR not a command that changes data")) cx_call(&cx);
    }
    bool ok = replay_out.errors == errors;
    if (!ok) snprintf(text, sizeof text, "%.*s", (int)strcspn(replay_out.last_error, "\r"), replay_out.last_error);
    if (!ok) *why = text;
    resp_truncate(&replay_out, 0, 0);
    return ok;
}

/* ==== the turn ================================================================================ */

/* The signal that says the end, until a turn takes it: at once, or after the wait for events that it just missed. */
static volatile sig_atomic_t signal_came;
static void signal_note(int number) { signal_came = number; }

static void signal_take(void) {
    server_log(LOG_NOTICE, "Received %s, scheduling shutdown...", signal_came == SIGINT ? "SIGINT" : "SIGTERM");
    server.stopping = true;
    signal_came = 0;
}

static void client_event(struct client *c, uint32_t events) {
    bool waits = c->flags & (CLIENT_BLOCKED | CLIENT_CLOSE_AFTER), half = c->wait_until || c->postponed;
    uint32_t end = EPOLLHUP | EPOLLERR | (half ? EPOLLRDHUP : 0); /* when nothing comes any more of what it waits for */
    if (waits && events & end) client_close(c);
    /* Earlier input goes first, and the end of all comes behind what one read may bring. */
    if (waits || c->flags & CLIENT_AGAIN || events & EPOLLRDHUP) c->flags |= CLIENT_UNREAD;
    if (!waits && !(c->flags & CLIENT_AGAIN) && events & ~(uint32_t)EPOLLOUT) {
        turn.reads[turn.nreads++] = c;
        if (turn.nreads == URING_MAX) reads_run();
    }
    if (events & EPOLLOUT) client_touch(c);
}

static void other_event(int fd) {
    if (fd == disk_fd()) disk_news();
    else if (fd == server.link_fd) repl_link_event();
    else listen_accept(fd);
}

/* Clients first, so that who has left makes room for who comes. */
static void events_handle(const struct epoll_event *events, int n) {
    for (int i = 0; i < n; i++) {
        struct client *c = client_of(events[i].data.u64);
        if (c) client_event(c, events[i].events);
    }
    reads_run();
    batch_run();
    for (int i = 0; i < n; i++)
        if (!(events[i].data.u64 >> 32)) other_event((int)(uint32_t)events[i].data.u64);
}

/* Every connection is looked at once a second, a few at a time: nobody waits for that, however many there are. */
static void clients_look(void) {
    static int64_t began;
    static int fd;
    int64_t ms = store_wall_clock() - began;
    if (ms < 0) ms = 1000; /* the clock was set */
    int64_t until = ms < 1000 ? server.clients_cap * ms / 1000 : server.clients_cap;
    for (; fd < until; fd++) {
        struct client *c = server.clients[fd];
        if (!c || c->flags & CLIENT_CLOSING) continue;
        if (c->own) output_check_limits(c);
        client_count_memory(c);
        if (config.timeout && !c->subs &&
            !(c->flags & (CLIENT_BLOCKED | CLIENT_FOLLOWER | CLIENT_LEADER | CLIENT_MONITOR)) &&
            server.now_s - c->active > (uint32_t)config.timeout)
            client_close(c);
    }
    if (ms < 1000) return;
    began = store_wall_clock();
    fd = 0;
}

/* Raises the limit of descriptors to what maxclients needs, or lowers maxclients to what the limit gives. */
static void descriptors_set_up(void) {
    struct rlimit limit;
    rlim_t reserve = 32, want = (rlim_t)config.maxclients + reserve;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= want) return;
    struct rlimit more = {limit.rlim_max < want ? limit.rlim_max : want, limit.rlim_max};
    if (!setrlimit(RLIMIT_NOFILE, &more)) limit = more;
    if (limit.rlim_cur >= want || (limit.rlim_cur <= reserve && !server.loading)) return;
    if (limit.rlim_cur <= reserve)
        die("The limit of %lu open files (ulimit -n) is too low", (unsigned long)limit.rlim_cur);
    config.maxclients = (int)(limit.rlim_cur - reserve);
    server_log(LOG_WARNING, "maxclients is lowered to %d: the limit of open files (ulimit -n) is %lu",
               config.maxclients, (unsigned long)limit.rlim_cur);
}

/* Ten times a second. */
static void cron(void) {
    struct rlimit limit;
    server.next_cron_ms = store_wall_clock() + CRON_MS;
    descriptors_set_up(); /* CONFIG SET may have changed maxclients */
    resp_memory_limited = !getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY;
    server_sample();
    replication_cron();
}

/* One turn; waits for events up to wait_ms. Returns whether there is work to go on with at once. */
static bool server_turn(int wait_ms) {
    static struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(server.epoll, events, EVENTS_MAX, turn.nagain ? 0 : wait_ms);
    int64_t began = snap_running() ? observe_clock() : 0;
    clock_read();
    if (signal_came) signal_take();
    server.out_of_memory = !resp_memory_left(TURN_MEMORY + 4 * store_stats.table_memory);
    bool idle = n == 0 && !turn.nagain;
    if (turn.nagain) again_run();
    events_handle(events, n);
    postponed_run();
    bool due = store_wall_clock() >= server.next_cron_ms || server.next_cron_ms > store_wall_clock() + CRON_MS;
    bool more = resp_blob_reap((size_t)16 << 20, due);
    if (!server.loading) {
        clients_look();
        if (due) cron();
        make_room();
        int64_t at = config.latency_threshold ? observe_clock() : 0;
        more |= store_tick(due);
        if (at) at = observe_event(EVENT_EXPIRE, at);
        /* The snapshot gets half of what serving took, so that it slows clients down and does not stop them. */
        int64_t served_us = began ? (observe_clock() - began) / 1000 : 0; /* 0: it has just begun */
        more |= persist_tick(n == 0 ? SLICE_MAX_US : served_us / 2 < SLICE_MIN_US ? SLICE_MIN_US : served_us / 2);
        if (at) at = observe_event(EVENT_SNAPSHOT, at);
        log_flush();
        if (at) observe_event(EVENT_WRITE, at);
        if (due) persist_cron(store_wall_clock(), config.save);
        more |= replication_turn(idle);
    }
    clients_flush();
    clients_evict();
    clients_reap();
    return more;
}

/* During a long load: at the start clients hear -LOADING, while a leader's snapshot comes in they are served. */
static bool breathe(void) {
    server_turn(0);
    return !server.stopping;
}

/* ==== the beginning and the end =============================================================== */

static void pidfile_forget(void) { unlink(config.pidfile); }

static void pidfile_write(void) {
    FILE *f = *config.pidfile ? fopen(config.pidfile, "w") : NULL;
    if (f) fprintf(f, "%d\n", (int)getpid());
    if (f) fclose(f), atexit(pidfile_forget);
    else if (*config.pidfile)
        server_log(LOG_WARNING, "Cannot write the pid file %s: %s", config.pidfile, strerror(errno));
}

/* The socket at which systemd listens; NULL: it does not, or is not to be told. */
static const char *supervisor(void) { return config.supervised == SUPERVISED_NO ? NULL : getenv("NOTIFY_SOCKET"); }

/* Tells systemd how far we are, in sd_notify()'s protocol: one datagram. */
static void supervisor_notify(const char *text) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const char *name = supervisor();
    if (!name) return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    size_t n = strnlen(name, sizeof sa.sun_path);
    memcpy(sa.sun_path, name, n);
    if (sa.sun_path[0] == '@') sa.sun_path[0] = '\0'; /* a name of no file: Linux's abstract sockets */
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&sa, length) < 0)
        server_log(LOG_WARNING, "Cannot tell the supervisor at NOTIFY_SOCKET: %s", strerror(errno));
    if (fd >= 0) close(fd);
}

/* What is not on the disk yet goes there. False: it could not, the server should stay. */
static bool server_close_files(bool save) {
    clock_read();
    bool closed = !persist_stop(save);
    if (closed) replication_farewell();
    else server_log(LOG_WARNING, "The data could not be brought to the disk: the server stays. SHUTDOWN FORCE ends it");
    return closed;
}

void cmd_shutdown(struct cx *cx) {
    enum { SAVE = 1, NOSAVE = 2, NOW = 4, FORCE = 8 }; /* there are no lagging followers to wait for: NOW is always */
    struct cx_options o;
    bool stays = cx->argc == 2 && resp_arg_is(&cx->argv[1], "abort");
    if (!cx_check(cx, !stays, "ERR No shutdown in progress.") ||
        !cx_options(cx, 1, "save nosave now force", 0, 0, 0, &o) ||
        !cx_check(cx, !(o.words & SAVE && o.words & NOSAVE), "ERR syntax error"))
        return;
    bool snapshot = o.words & SAVE || (!(o.words & NOSAVE) && !config.persist.log_on && *config.save);
    server_log(LOG_NOTICE, "User requested shutdown...");
    bool closed = server.loading || server_close_files(snapshot) || o.words & FORCE; /* loading changes no file */
    if (!cx_check(cx, closed, "ERR Errors trying to SHUTDOWN. Check logs.")) return;
    server.stopping = server.files_closed = true;
    client_close(cx->client);
}

static void server_start(void) {
    if (chdir(config.dir))
        die("Cannot work in the folder %s: %s. Make it, or choose another with --dir.", config.dir, strerror(errno));
    if (config.supervised == SUPERVISED_SYSTEMD && !supervisor())
        server_log(LOG_WARNING, "--supervised systemd: NOTIFY_SOCKET is not set, so nobody is told of the start");
    if (config.daemonize && !supervisor() && daemon(1, 0)) die("Cannot go to the background: %s", strerror(errno));
    signal(SIGTERM, signal_note);
    signal(SIGINT, signal_note);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* the log file is opened anew for every line */
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0) die("epoll_create1: %s", strerror(errno));
    descriptors_set_up();
    if (config.io_uring && !uring_start())
        server_log(LOG_VERBOSE, "No io_uring here: one system call for each read and write");
    resp_parser_init(&turn.parser);
    store_init(config.databases);
    store_on_reclaim(on_reclaim);
    clock_read();
    server_stats.started_ms = store_wall_clock();
    listen_all();
    pidfile_write();
    sandbox_user();
    FILE *log = *config.logfile ? fopen(config.logfile, "a") : NULL;
    if (log) fclose(log);
    else if (*config.logfile) die("The log file %s cannot be written: %s", config.logfile, strerror(errno));
    listen_unix();
    sandbox_calls();
    server_log(LOG_NOTICE, "EchoVault %s (as Redis %s), port %d, pid %d", ECHOVAULT_VERSION, REDIS_VERSION, config.port,
               (int)getpid());
    server_log(LOG_NOTICE, "Server initialized");
}

static const struct hooks hooks = {replay_apply, server_log, link_watch, breathe};

int main(int argc, char **argv) {
    config_load(argc, argv);
    server_start();
    supervisor_notify("STATUS=Loading the data");
    if (persist_start(&config.persist, &hooks)) exit(1);
    server.loading = false;
    clock_read();
    if (disk_fd() >= 0) server_watch(disk_fd());
    server_log(LOG_NOTICE, "Ready to accept connections");
    supervisor_notify("STATUS=Ready to accept connections\nREADY=1");
    bool more = false;
    repl_init(&config.repl, &hooks);
    replication_start();
    while (!server.stopping || !(server.files_closed || server_close_files(!config.persist.log_on && *config.save))) {
        server.stopping = false; /* nobody asked, or the data would be lost */
        more = server_turn(more ? 0 : CRON_MS);
        repl_load();
    }
    supervisor_notify("STATUS=Stopping\nSTOPPING=1");
    server_log(LOG_NOTICE, "EchoVault is now ready to exit, bye bye...");
    return 0;
}
