/* fuzz_server.c - the whole server: many connections, commands and bytes in any cut, small and late sockets, a clock
 * that jumps, a disk that fills up.
 *
 * The input is what clients send, with orders in between: 0xFF, an order, its operand. All else goes to the connection
 * at hand. Checked beside what the sanitizers see: every reply is well-formed; a stranger costs little; and the data
 * after a restart, from what is on the disk at some point between two turns, are those before it.
 */
#include "harness.h"

#include <errno.h>

#define CLIENTS 6

enum order {
    TURN,      /* operand: the connection at hand from now on, after a turn */
    TOGETHER,  /* the same without the turn: several sockets are ready at once */
    LEAVE,     /* it closes its side, 1: resets */
    ROOM,      /* what its socket takes, in units of 32 bytes; 255: all */
    PIECES,    /* reads give so many bytes; 0: all */
    INTERRUPT, /* so often are calls interrupted */
    CLOCK,     /* moves by 2^operand ms; from 128 on back */
    DISK,      /* 0: well; 1: ENOSPC; 2: EIO; 3: slow; others: room for so many blocks of 16 bytes */
    WAIT,      /* so many turns */
    LITERAL,   /* the operand is a byte of input */
    REPEAT,    /* the last 64 bytes sent, once more for each */
    ORDERS
};

struct peer {
    int conn;  /* -1: not connected */
    char *out; /* what has come and is not a whole reply yet */
    size_t len, cap;
    char last[64];
    size_t nlast;
    bool follows; /* what comes is no reply, but a snapshot and a log */
};

static struct peer peers[CLIENTS];

/* ---- replies --------------------------------------------------------------------------------- */

enum { CUT = 0, BAD = -1 };

/* The length of the reply at p; CUT, BAD. */
static long reply_length(const char *p, const char *end, int depth) {
    const char *line = memchr(p, '\n', (size_t)(end - p)), *at;
    if (!line) return CUT;
    at = line + 1;
    if (line[-1] != '\r' || depth > 8) return BAD;
    char *stop;
    long n = strtol(p + 1, &stop, 10);
    bool number = stop == line - 1 && stop > p + 1;
    switch (*p) {
    case '+':
    case '-': return memchr(p, '\r', (size_t)(line - p)) == line - 1 ? line + 1 - p : BAD;
    case ':': return number ? line + 1 - p : BAD;
    case '_': return line == p + 2 ? 3 : BAD;
    case ',': return line + 1 - p;
    case '$':
    case '=':
        if (!number || n < -1) return BAD;
        if (n < 0) return at - p;
        if (end - at < n + 2) return CUT;
        return at[n] == '\r' && at[n + 1] == '\n' ? at + n + 2 - p : BAD;
    case '*':
    case '%':
    case '~':
    case '>':
        if (!number || n < -1) return BAD;
        for (n = *p == '%' ? 2 * n : n; n > 0; n--) {
            long one = at < end ? reply_length(at, end, depth + 1) : CUT;
            if (one <= 0) return one;
            at += one;
        }
        return at - p;
    default: return BAD;
    }
}

static void check_replies(struct peer *p) {
    size_t n, done = 0;
    const char *got = seam_output(p->conn, &n);
    if (!n || p->follows) return;
    if (p->len + n > p->cap) p->out = realloc(p->out, p->cap = 2 * (p->len + n));
    memcpy(p->out + p->len, got, n);
    p->len += n;
    while (done < p->len) {
        long one = reply_length(p->out + done, p->out + p->len, 0);
        if (one == BAD && p->out[done] == '\n' && !seam_open(p->conn))
            break; /* a sign of life for a follower that is gone */
        if (one == BAD) {
            fprintf(stderr, "not a reply: %.*s\n", (int)(p->len - done < 200 ? p->len - done : 200), p->out + done);
            abort();
        }
        if (one == CUT) break;
        done += (size_t)one;
    }
    if (done) memmove(p->out, p->out + done, p->len -= done);
}

/* ---- the orders ------------------------------------------------------------------------------ */

static void turn_and_check(void) {
    harness_turn();
    for (int i = 0; i < CLIENTS; i++) {
        struct peer *p = &peers[i];
        if (p->conn < 0) continue;
        p->follows |= harness_is_follower(seam_fd(p->conn));
        check_replies(p);
        if (!seam_open(p->conn)) p->conn = -1, p->len = 0;
    }
    if (!harness_check_clients()) abort();
}

static struct peer *peer(int i) {
    struct peer *p = &peers[i % CLIENTS];
    if (p->conn < 0) p->conn = seam_connect(), p->len = p->nlast = 0, p->follows = false;
    return p->conn < 0 ? NULL : p;
}

static void say(struct peer *p, const uint8_t *data, size_t n) {
    if (!p || !n) return;
    seam_send(p->conn, data, n);
    p->nlast = n < sizeof p->last ? n : sizeof p->last;
    memcpy(p->last, data + n - p->nlast, p->nlast);
}

static void disk(uint8_t how) {
    seam.disk_error = how == 1 ? ENOSPC : how == 2 ? EIO : 0;
    seam.disk_slow = how == 3;
    seam.disk_room = how < 4 ? SIZE_MAX : how * (size_t)16;
}

static struct peer *obey(struct peer *p, enum order order, uint8_t operand) {
    switch (order) {
    case TURN: turn_and_check(); return peer(operand);
    case TOGETHER: return peer(operand);
    case LEAVE:
        if (p) (operand & 1 ? seam_drop : seam_shut)(p->conn);
        return p;
    case ROOM:
        if (p) seam_room(p->conn, operand == 255 ? SIZE_MAX : operand * (size_t)32);
        return p;
    case PIECES: seam.read_max = operand ? operand : SIZE_MAX; return p;
    case INTERRUPT: seam.interrupt = operand; return p;
    case CLOCK:
        seam.wall_ns += (operand < 128 ? 1 : -1) * (INT64_C(1000000) << operand % 42);
        if (seam.wall_ns < 0 || seam.wall_ns > INT64_MAX / 2) seam.wall_ns = SEAM_START_MS * 1000000;
        return p;
    case DISK: disk(operand); return p;
    case WAIT:
        for (int i = 0; i < operand % 32; i++) turn_and_check();
        return p && p->conn >= 0 ? p : NULL;
    case LITERAL: say(p, &operand, 1); return p;
    default:
        for (int i = 0; p && i < operand; i++) seam_send(p->conn, p->last, p->nlast);
        return p;
    }
}

static void play(const uint8_t *data, size_t n) {
    struct peer *p = peer(0);
    const uint8_t *end = data + n;
    while (data < end) {
        const uint8_t *mark = memchr(data, 0xFF, (size_t)(end - data));
        if (!p || p->conn < 0) p = peer(p ? (int)(p - peers) : 0);
        say(p, data, (size_t)((mark ? mark : end) - data));
        if (!mark || end - mark < 3) break;
        p = obey(p, mark[1] % ORDERS, mark[2]);
        data = mark + 3;
    }
    turn_and_check();
    for (int i = 0; i < CLIENTS; i++)
        if (peers[i].conn >= 0) seam_room(peers[i].conn, SIZE_MAX);
}

/* The data after a start from the files as they are, or after a clean end, are those before. */
static void check_restart(bool kill) {
    bool kept = persist_keeps();
    uint64_t before;
    disk(0);
    for (int i = 0; i < CLIENTS; i++)
        if (peers[i].conn >= 0)
            seam_drop(peers[i].conn); /* those that were not accepted yet, too: no SHUTDOWN while loading */
    if (!kill) {
        kept = harness_stop();
        before = harness_data();
    } else {
        before = harness_data();
    }
    harness_kill();
    if (!harness_load()) abort();
    if (kept && harness_data() != before) {
        fprintf(stderr, "the data after a %s are not those before it\n", kill ? "kill" : "clean end");
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    harness_start();
    for (int i = 0; i < CLIENTS; i++) peers[i].conn = -1;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const policy[] = {"everysec", "always", "no", "always"};
    uint8_t how = n ? *data : 0;
    harness_set("appendonly", how & 1 ? "yes" : "no");
    harness_set("appendfsync", policy[how >> 1 & 3]);
    if (how & 8) harness_set("requirepass", "pw");
    if (how & 16) harness_set("maxmemory", "20kb");
    if (how & 32) harness_set("notify-keyspace-events", "KEA");
    if (!harness_load()) abort();
    if (n) play(data + 1, n - 1);
    if (how & 64) harness_settle();
    if (how & 128) check_restart(how & 64);
    harness_forget();
    for (int i = 0; i < CLIENTS; i++) peers[i].conn = -1, peers[i].len = 0;
    return 0;
}
