/* repl.c - roles: followers as cursors into the log, and the link to a leader.
 *
 * A leader has no buffer for a follower. What a follower gets is on the disk already, or in the log's own buffer: the
 * newest snapshot, then the log's bytes from the snapshot's offset on. All that is kept of a follower is how far it
 * got. It may ask for any byte that the log still has:
 *
 *      NEW -- PSYNC with an id and an offset that the log has --------------------------------> ONLINE
 *      NEW -- any other PSYNC --> WAITING -- a snapshot is there --> SENDING -- it is sent --> ONLINE
 *
 * log_pin() keeps the log from being trimmed under a cursor. Where the log is in memory alone, it grows for a slow
 * follower up to the output limit of replicas; then the follower loses its place and begins anew.
 *
 * A follower has a link, whose socket is ours until the leader's stream begins; then it becomes a connection of the
 * reactor's, which runs the stream's commands like a client's and appends their bytes to the log:
 *
 *      LEADER -- REPLICAOF --> WAIT --> CONNECTING -- +CONTINUE -----------------------------------> CONNECTED
 *                               ^            `------- +FULLRESYNC --> TRANSFER --> LOADING ------------^
 *                               `---- whatever fails, with a growing delay ----'
 *
 * A full resync goes to a nameless file, is loaded into databases beside the old ones, which are served meanwhile, and
 * checked; then they change places, and the log goes on at the leader's offset (log_adopt). If anything is wrong with
 * it, the old data stay.
 *
 * Invariants
 *   1. Bytes that were not handed to the kernel are not sent: after kill -9 no follower knows more than we do.
 *   2. A follower's log holds its leader's bytes at its leader's offsets, from its base to its end.
 *   3. The databases are the state at log_end() whenever the link is CONNECTED or WAITs.
 *
 * Left out: names are looked up in the loop's own time; transfers are not compressed; no TLS.
 */
#include "repl.h"
#include "disk.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN_SHARE  ((size_t)1 << 20)   /* bytes that all followers together are sent in a turn, about */
#define SHARE_MIN   ((size_t)64 << 10)  /* and each at least */
#define SEND_MIN    ((size_t)64 << 10)  /* fewer bytes of the log wait for company, see repl_may_wait() */
#define RECEIVE_MAX ((size_t)256 << 10) /* of a snapshot, in one turn */
#define ANSWER_MAX  512                 /* bytes of a leader's answer */
#define MARK        40                  /* bytes that end a snapshot of unknown length */
#define RETRY_MS    100                 /* the first delay; it doubles up to ... */
#define RETRY_MAX   1000                /* ... this where nobody answers, */
#define REFUSED_MAX 10000               /* ... and this where the answer cannot be used */
#define STEADY_MS   10000               /* a link that held so long begins with the first delay again */

static const struct repl_options *opt;
static const struct hooks *hooks;
struct follower *repl_followers;
struct repl_stats repl_stats;

void repl_init(const struct repl_options *options, const struct hooks *h) {
    opt = options;
    hooks = h;
}

int64_t repl_clock(void) { return store_clock_ns(CLOCK_MONOTONIC) / 1000000; }

/* ==== the link: state =================================================================================== */

static struct {
    enum repl_link state;
    char host[256];
    int port;
    bool failover;         /* PSYNC asks the other side to become the leader */
    bool aborted;          /* while it is loaded: it is wanted no more */
    bool lost;             /* the data are not what the log's end says */
    int fd;                /* ours up to CONNECTED */
    int step;              /* of the handshake: what has been said last */
    char line[ANSWER_MAX]; /* of an answer, as far as it is here */
    size_t line_len;
    char said[300]; /* what was logged last about it, to say it only once */
    int64_t heard_ms, down_ms, up_ms, retry_ms, delay_ms;
    /* the snapshot that comes in */
    int file;
    char id[41];
    uint64_t offset, size, got; /* size: 0 while a mark ends it */
    char mark[MARK];            /* "": its size was said */
} leader = {.fd = -1, .file = -1};

/* ==== followers ========================================================================================= */

struct follower *repl_follower_new(int fd, struct client *owner) {
    struct follower *f = resp_need(malloc(sizeof *f));
    *f = (struct follower){.next = repl_followers, .owner = owner, .fd = fd, .rdb_fd = -1};
    return repl_followers = f;
}

static uint64_t oldest_cursor(void) {
    uint64_t oldest = UINT64_MAX;
    for (const struct follower *f = repl_followers; f; f = f->next) {
        uint64_t cursor = f->phase == REPL_WAITING ? snap_begun() : f->phase == REPL_NEW ? UINT64_MAX : f->cursor;
        if (cursor < oldest) oldest = cursor;
    }
    uint64_t limit = (uint64_t)*opt->memory_limit;
    if (!log_in_file() && limit && oldest < log_end() && log_end() - oldest > limit) oldest = log_end() - limit;
    return oldest;
}

void repl_follower_free(struct follower *f) {
    if (!f) return;
    struct follower **at = &repl_followers;
    while (*at != f) at = &(*at)->next;
    *at = f->next;
    disk_close_later(&f->rdb_fd);
    free(f);
    log_pin(oldest_cursor());
}

/* They have to ask again. */
static void drop_followers(void) {
    for (struct follower *f = repl_followers; f; f = f->next) f->done = f->phase != REPL_NEW;
}

/* Where somebody waits for a snapshot and none is there or made, one is begun; after a failure, a second later. */
static void followers_serve(void) {
    static int64_t tried;
    static bool failed;
    bool waiting = false;
    int64_t now = repl_clock();
    for (const struct follower *f = repl_followers; f; f = f->next) waiting |= f->phase == REPL_WAITING && !f->done;
    if (!waiting || snap_there() || snap_running() || ((failed || !snap_ok()) && now - tried < 1000)) return;
    failed = snap_begin(false) < 0;
    if (failed) hooks->say(LOG_WARNING, "No snapshot for a follower: %s", strerror(errno));
    log_pin(oldest_cursor()); /* what is logged from here on goes with it */
    tried = now;
}

void repl_psync(struct follower *f, const char *id, int64_t next, struct resp_out *out) {
    log_serve();
    uint64_t cursor = next > 0 ? (uint64_t)next - 1 : 0;
    f->psync = id != NULL;
    f->acked_ms = repl_clock();
    if (id && next > 0 && log_had(id, cursor)) {
        f->phase = REPL_ONLINE;
        f->cursor = f->acked = cursor;
        repl_stats.partial_ok++;
        resp_printf(out, "+CONTINUE %s\r\n", log_id());
        hooks->say(LOG_NOTICE, "A follower goes on at offset %" PRIu64 ": %" PRIu64 " bytes of the log to send.",
                   cursor, log_end() - cursor);
        return;
    }
    if (id && *id != '?') repl_stats.partial_err++;
    repl_stats.full++;
    f->phase = REPL_WAITING;
    followers_serve();
    hooks->say(LOG_NOTICE, "A follower asks for a full resync.");
}

bool repl_offer(struct follower *f, struct resp_out *(*output)(struct client *owner)) {
    if (f->phase == REPL_WAITING && (f->rdb_fd = snap_open(&f->cursor, &f->rdb_size)) >= 0) {
        struct resp_out *out = output(f->owner);
        if (f->psync) resp_printf(out, "+FULLRESYNC %s %" PRIu64 "\r\n", log_id(), f->cursor);
        resp_printf(out, "$%" PRIu64 "\r\n", f->rdb_size);
        f->phase = REPL_SENDING;
        f->acked_ms = repl_clock();
        log_pin(oldest_cursor());
        hooks->say(LOG_NOTICE, "Full resync of a follower: the snapshot at offset %" PRIu64 ", %" PRIu64 " bytes.",
                   f->cursor, f->rdb_size);
    }
    return f->phase == REPL_SENDING || (f->phase == REPL_ONLINE && f->cursor != log_written());
}

bool repl_may_wait(const struct follower *f) {
    return f->phase == REPL_ONLINE && log_written() - f->cursor < SEND_MIN && f->sent_ms == store_wall_clock();
}

static int sent(int64_t n, const char *what) {
    if (n >= 0 || errno == EAGAIN || errno == EINTR) return 1;
    hooks->say(LOG_WARNING, "A follower was dropped: %s: %s", what,
               errno == ERANGE ? "the log does not go back so far any more" : strerror(errno));
    return -1;
}

int repl_send(struct follower *f) {
    size_t n = 1, share;
    for (const struct follower *g = repl_followers; g; g = g->next) n += g != f;
    share = TURN_SHARE / n > SHARE_MIN ? TURN_SHARE / n : SHARE_MIN;
    if (f->done) return -1;
    if (f->phase == REPL_SENDING) {
        off_t at = (off_t)f->rdb_at;
        uint64_t left = f->rdb_size - f->rdb_at;
        ssize_t got = sendfile(f->fd, f->rdb_fd, &at, left < share ? left : share);
        f->rdb_at = (uint64_t)at;
        if (got > 0) f->acked_ms = repl_clock();
        if (f->rdb_at < f->rdb_size) return sent(got, "sending the snapshot");
        disk_close_later(&f->rdb_fd);
        f->phase = REPL_ONLINE;
        return f->rdb_only ? -1 : 1;
    }
    if (f->phase != REPL_ONLINE) return 0;
    int64_t got = log_send(f->fd, f->cursor, share);
    if (got < 0) return sent(got, "sending the log");
    f->cursor += (uint64_t)got;
    f->sent_ms = store_wall_clock();
    return f->cursor != log_written();
}

size_t repl_count(uint64_t offset, bool synced) {
    size_t n = 0;
    for (const struct follower *f = repl_followers; f; f = f->next)
        n += f->phase == REPL_ONLINE && (synced ? f->synced : f->acked) >= offset;
    return n;
}

size_t repl_good(int max_lag_s) {
    size_t n = 0;
    int64_t now = repl_clock();
    for (const struct follower *f = repl_followers; f; f = f->next)
        n += f->phase == REPL_ONLINE && now - f->acked_ms <= max_lag_s * INT64_C(1000);
    return n;
}

/* ==== the link ========================================================================================== */

bool repl_link_failed(void) { return leader.said[0]; }
enum repl_link repl_link_state(void) { return leader.state; }
const char *repl_leader(int *port) {
    *port = leader.port;
    return leader.state == REPL_LEADER ? NULL : leader.host;
}

/* Back to waiting. The reason is logged where it is another than the last time. */
__attribute__((format(printf, 2, 3))) static void link_fails(bool refused, const char *fmt, ...) {
    char why[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    if (strcmp(why, leader.said) != 0)
        hooks->say(LOG_WARNING, "The leader %s:%d: %s. Trying again.", leader.host, leader.port, why);
    snprintf(leader.said, sizeof leader.said, "%s", why);
    if (leader.fd >= 0) close(leader.fd);
    leader.fd = -1;
    disk_close_later(&leader.file);
    leader.state = REPL_WAIT;
    int64_t max = refused ? REFUSED_MAX : RETRY_MAX;
    leader.retry_ms = repl_clock() + leader.delay_ms;
    leader.delay_ms = leader.delay_ms * 2 < max ? leader.delay_ms * 2 : max;
}

void repl_link_lost(const char *why, bool refused) {
    leader.lost |= refused;
    leader.down_ms = repl_clock();
    if (leader.down_ms - leader.up_ms > STEADY_MS) leader.delay_ms = RETRY_MS;
    log_relay_abort();
    link_fails(refused, "%s", why);
}

static struct reader *loading; /* NULL: nothing is being loaded */

static void link_close(void) {
    drop_followers();
    if (leader.fd >= 0) close(leader.fd);
    leader.fd = -1;
    leader.aborted = loading != NULL;
    if (leader.aborted) return;
    disk_close_later(&leader.file);
    if (leader.state == REPL_LOADING) persist_quiesce(false);
    log_relay_abort();
}

void repl_follow(const char *host, int port, bool failover) {
    link_close();
    snprintf(leader.host, sizeof leader.host, "%s", host);
    leader.port = port;
    leader.failover = failover;
    leader.said[0] = '\0';
    leader.delay_ms = RETRY_MS;
    leader.retry_ms = 0;
    leader.down_ms = repl_clock();
    leader.state = REPL_WAIT;
    log_follow();
}

void repl_unfollow(void) {
    if (leader.state == REPL_LEADER) return;
    link_close();
    leader.state = REPL_LEADER;
    log_promote();
}

static void link_connect(void) {
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    snprintf(port, sizeof port, "%d", leader.port);
    int unknown = getaddrinfo(leader.host, port, &hints, &found), bad = ECONNREFUSED;
    for (struct addrinfo *a = found; a && leader.fd < 0; a = a->ai_next) {
        leader.fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (leader.fd < 0 || connect(leader.fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS) continue;
        bad = errno;
        close(leader.fd);
        leader.fd = -1;
    }
    if (!unknown) freeaddrinfo(found);
    if (unknown) link_fails(false, "%s", gai_strerror(unknown));
    else if (leader.fd < 0) link_fails(false, "it cannot be reached: %s", strerror(bad));
    if (leader.fd < 0) return;
    setsockopt(leader.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    leader.state = REPL_CONNECTING;
    leader.step = -1;
    leader.line_len = 0;
    leader.heard_ms = repl_clock();
    hooks->watch(leader.fd, true);
}

/* ---- the handshake: one command, one line of answer, and so on ------------------------------------------ */

enum { SAID_PING, SAID_AUTH, SAID_PORT, SAID_ADDRESS, SAID_CAPA, SAID_PSYNC };

/* Says the next row that has words: the others there is no need for. */
static void say_next(void) {
    char port[12], next[RESP_INT_MAX];
    struct resp_out out = {0};
    size_t n = 0, mark = resp_later(&out);
    const char *user = *opt->user ? opt->user : NULL;
    snprintf(port, sizeof port, "%d", opt->announce_port ? opt->announce_port : opt->port);
    resp_write_int(next, leader.lost ? -1 : (int64_t)log_end() + 1);
    const char *const words[][6] = {
        /* NULL ends a row's */
        [SAID_PING] = {"PING"},
        [SAID_AUTH] = {*opt->auth ? "AUTH" : NULL, user ? user : opt->auth, user ? opt->auth : NULL},
        [SAID_PORT] = {"REPLCONF", "listening-port", port},
        [SAID_ADDRESS] = {*opt->announce_ip ? "REPLCONF" : NULL, "ip-address", opt->announce_ip},
        [SAID_CAPA] = {"REPLCONF", "capa", "eof", "capa", "psync2"},
        [SAID_PSYNC] = {"PSYNC", leader.lost ? "?" : log_known_id(), next,
                        leader.failover && !leader.lost ? "FAILOVER" : NULL},
    };
    do leader.step++;
    while (!*words[leader.step]);
    for (; words[leader.step][n]; n++) resp_bulk_str(&out, words[leader.step][n]);
    resp_later_array(&out, mark, n);
    bool went = send(leader.fd, out.buf, out.len, MSG_NOSIGNAL) == (ssize_t)out.len;
    resp_out_free(&out);
    if (!went) link_fails(false, "it cannot be written to: %s", strerror(errno));
}

/* It will stand in our files, and be looked for there. */
static bool is_id(const char *s) { return strlen(s) == 40 && strspn(s, "0123456789abcdef") == 40; }

static bool transfer_begin(const char *line) {
    unsigned long long offset;
    if (sscanf(line, "+FULLRESYNC %40s %llu", leader.id, &offset) != 2 || !is_id(leader.id) || offset > INT64_MAX / 2)
        return false;
    leader.offset = offset;
    leader.file = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (leader.file < 0) leader.file = memfd_create("transfer", MFD_CLOEXEC); /* a file system without O_TMPFILE */
    leader.got = leader.size = 0;
    leader.mark[0] = '\0';
    leader.state = REPL_TRANSFER;
    hooks->say(LOG_NOTICE, "Full resync from %s:%d: the state at offset %llu.", leader.host, leader.port, offset);
    if (leader.file < 0) link_fails(false, "no file for its snapshot can be made: %s", strerror(errno));
    return true;
}

/* The answer to PSYNC. */
static void psync_answered(const char *line) {
    char id[ANSWER_MAX] = "";
    if (!strncmp(line, "+CONTINUE", 9) && !leader.lost) {
        if (sscanf(line + 9, "%511s", id) != 1 || !is_id(id)) snprintf(id, sizeof id, "%s", log_known_id());
        if (strcmp(id, log_id()) != 0) {
            drop_followers(); /* they hear the id when they come back */
            log_continue(id);
        }
        hooks->say(LOG_NOTICE, "The leader %s:%d goes on from offset %" PRIu64 ".", leader.host, leader.port,
                   log_end());
        leader.state = REPL_CONNECTED;
    } else if (!transfer_begin(line)) {
        link_fails(false, "it does not let us follow: %s", line + 1);
    }
}

static void line_read(const char *line) {
    const struct arg code = {.p = line, .n = (uint32_t)strcspn(line, " ")};
    bool error = *line == '-';
    if (!*line) return; /* a sign of life */
    if (leader.step == SAID_PSYNC) psync_answered(line);
    else if (leader.step == SAID_PING && error && !resp_arg_is(&code, "-noauth -noperm -misconf"))
        link_fails(false, "it answers: %s", line + 1); /* but whose disk fails needs its followers the more */
    else if (leader.step == SAID_AUTH && error) link_fails(true, "it does not take masterauth: %s", line + 1);
    else say_next();
}

/* "$<length>", or "$EOF:<mark>". */
static void size_read(const char *line) {
    int64_t n;
    if (!*line) return;
    if (!strncmp(line, "$EOF:", 5) && strlen(line) == 5 + MARK) memcpy(leader.mark, line + 5, MARK);
    else if (*line == '$' && resp_read_int(line + 1, strlen(line + 1), &n) && n > 0) leader.size = (uint64_t)n;
    else link_fails(false, "it answers: %s", line + 1);
}

/* Takes one line off the socket, no byte more; good until the next. NULL: not whole yet, or the link has failed. */
static const char *link_line(void) {
    char *at = leader.line + leader.line_len;
    ssize_t n = 1;
    while (leader.line_len < ANSWER_MAX && (n = recv(leader.fd, at, 1, 0)) > 0) {
        leader.line_len++;
        leader.heard_ms = repl_clock();
        if (*at++ != '\n') continue;
        at[-1] = '\0';
        if (at - 1 > leader.line && at[-2] == '\r') at[-2] = '\0';
        leader.line_len = 0;
        return leader.line;
    }
    if (n > 0) link_fails(false, "it does not speak this protocol");
    else if (n == 0) link_fails(false, "it closed the connection");
    else if (errno != EAGAIN && errno != EINTR) link_fails(false, "%s", strerror(errno));
    return NULL;
}

/* ---- the snapshot comes in ------------------------------------------------------------------------------ */

static void transfer_read(void) {
    static char buf[RECEIVE_MAX];
    char tail[MARK];
    uint64_t left = *leader.mark ? sizeof buf : leader.size - leader.got;
    ssize_t n = recv(leader.fd, buf, left < sizeof buf ? left : sizeof buf, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) link_fails(false, "the snapshot broke off after %" PRIu64 " bytes", leader.got);
    else if (disk_write_at(leader.file, buf, (size_t)n, leader.got) < 0)
        link_fails(true, "no room for its snapshot: %s", strerror(errno));
    if (leader.state != REPL_TRANSFER) return;
    leader.got += (uint64_t)n;
    leader.heard_ms = repl_clock();
    bool marked = *leader.mark && leader.got >= MARK && /* what came ends in the mark */
                  disk_read_at(leader.file, tail, MARK, leader.got - MARK) == MARK && !memcmp(tail, leader.mark, MARK);
    if (marked) leader.size = leader.got - MARK;
    if (marked || leader.got == leader.size) leader.state = REPL_LOADING;
}

void repl_link_event(void) {
    const char *line;
    int error = 0;
    socklen_t n = sizeof error;
    if (leader.state == REPL_CONNECTING && leader.step < 0) {
        hooks->watch(leader.fd, false);
        getsockopt(leader.fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error) link_fails(false, "it cannot be reached: %s", strerror(error));
        else say_next();
    }
    while (leader.state == REPL_CONNECTING && (line = link_line())) line_read(line);
    while (leader.state == REPL_TRANSFER && !leader.size && !*leader.mark && (line = link_line())) size_read(line);
    if (leader.state == REPL_TRANSFER && (leader.size || *leader.mark)) transfer_read();
}

int repl_take_link(void) {
    int fd = leader.state == REPL_CONNECTED ? leader.fd : -1;
    if (fd < 0) return -1;
    leader.fd = -1;
    leader.failover = false;
    leader.said[0] = '\0';
    leader.up_ms = repl_clock();
    return fd;
}

/* ---- loading ----------------------------------------------------------------------------------------------- */

/* While it is loaded, the leader hears of us once a second, and our clients are served. */
static void load_progress(uint64_t at) {
    int64_t now = repl_clock();
    (void)at;
    if (now - leader.heard_ms > 1000 && send(leader.fd, "\n", 1, MSG_NOSIGNAL) == 1) leader.heard_ms = now;
    leader.aborted |= !hooks->breathe();
    if (leader.aborted) loading->end = loading->at + loading->len; /* as if the file ended here */
}

/* Whether what was loaded may take the place of what is there. */
static bool load_accepted(bool whole, const char *why) {
    size_t had = store_keys(store_db);
    bool empties = whole && had && !store_keys(store_staged);
    if (!whole) link_fails(true, "its snapshot cannot be used, the data stay as they were: %s", why);
    else if (empties && opt->refuse_empty)
        link_fails(true,
                   "it is empty, and replica-refuse-empty-sync keeps our %zu keys. Say REPLICAOF NO ONE, or FLUSHALL "
                   "there, or turn the option off",
                   had);
    else if (empties) hooks->say(LOG_WARNING, "The leader is empty: %zu keys are given up for its sake.", had);
    return leader.state == REPL_LOADING;
}

void repl_load(void) {
    if (leader.state != REPL_LOADING || loading || !persist_quiesce(true)) return;
    struct rdb_facts facts;
    struct reader r = {.fd = leader.file, .end = leader.size, .progress = load_progress};
    char why[256];
    int64_t start = repl_clock();
    loading = &r;
    bool whole = rdb_load(&r, &facts, store_staged, why), wanted = !leader.aborted;
    bool take = wanted && load_accepted(whole, why);
    free(r.buf);
    leader.aborted = false;
    loading = NULL;
    disk_close_later(&leader.file);
    store_stage_end(take);
    if (take) {
        leader.lost = false;
        drop_followers(); /* their cursors count in another history */
        log_adopt(leader.id, leader.offset, facts.stream_db);
        leader.state = REPL_CONNECTED;
        hooks->say(LOG_NOTICE, "Full resync done: %zu keys loaded in %.3f seconds.", store_keys(store_db),
                   (double)(repl_clock() - start) / 1000);
    } else {
        persist_quiesce(false);
    }
}

/* ==== now and then ========================================================================================= */

void repl_cron(void) {
    int64_t now = repl_clock();
    bool waits = leader.state == REPL_CONNECTING || leader.state == REPL_TRANSFER;
    bool wanted = leader.state == REPL_WAIT && !leader.aborted && !log_error();
    if (wanted && now >= leader.retry_ms) link_connect();
    else if (waits && now - leader.heard_ms > (int64_t)opt->timeout * 1000)
        link_fails(false, "nothing was heard of it for repl-timeout, %d seconds", opt->timeout);
    log_pin(oldest_cursor());
    followers_serve();
}

struct repl_transfer repl_transfer(void) {
    int64_t now = repl_clock();
    return (struct repl_transfer){.total = leader.size ? (int64_t)leader.size : -1,
                                  .read = (int64_t)leader.got,
                                  .heard_s = (now - leader.heard_ms) / 1000,
                                  .down_s = (now - leader.down_ms) / 1000};
}
