/*
 * bare: the limit that a single-threaded server with plain sockets can reach.
 *
 *   bare PORT [VALUE_SIZE] [batched]
 *   bare probe                          can it be batched here? exit status 0: yes
 *
 * An epoll loop that does one read and one write for every readable socket and stores nothing. It knows just
 * enough of the protocol to count commands: SET and GET frames with 16-byte keys and values of one agreed
 * size have a known length, so a frame is told by its first bytes and the rest is skipped unseen. SET is
 * answered +OK, GET with a canned value, PING +PONG. Anything else (the CONFIG GET of redis-benchmark)
 * swallows what was read and is answered with errors.
 *
 * "batched" hands the reads of up to URING_MAX readable sockets to the kernel in one system call, and then the writes
 * in another, through the server's own uring.c: the limit for a server that does that.
 *
 * What a real server needs beyond this is its own cost; what this needs is the kernel's. Writes block: the
 * generators read every reply before they send more, so a write never waits for a peer that waits for us.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uring.h"

enum { HEAD = 6, READ_SIZE = 64 * 1024, BATCH = 256, MAX_FDS = 65536 };

struct kind {
    size_t frame, reply_len;
    const char *reply;
};

/* Where a connection stands between two reads: the head of a cut-off frame, or how much of a known one is
 * missing. */
struct conn {
    char head[HEAD];
    size_t held, skip;
    const struct kind *kind;
};

static struct kind set, get, ping, other;
/* What a turn holds of one readable socket. */
struct slot {
    int fd;
    char in[READ_SIZE], *out;
    size_t out_len;
};

static struct conn conns[MAX_FDS];
static struct slot slots[URING_MAX];
static size_t out_size;
static int batched;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct kind make_kind(size_t frame, const char *reply) { return (struct kind){frame, strlen(reply), reply}; }

static void learn_frames(size_t value_size) {
    char *value = malloc(value_size + 1), *reply = malloc(value_size + 32), length[32];
    if (!value || !reply) die("malloc");
    memset(value, 'x', value_size);
    value[value_size] = 0;
    size_t digits = (size_t)snprintf(length, sizeof length, "%zu", value_size);
    sprintf(reply, "$%s\r\n%s\r\n", length, value);
    free(value);
    set = make_kind(strlen("*3\r\n$3\r\nSET\r\n$16\r\n") + 18 + 1 + digits + 2 + value_size + 2, "+OK\r\n");
    get = make_kind(strlen("*2\r\n$3\r\nGET\r\n$16\r\n") + 18, reply);
    ping = make_kind(strlen("*1\r\n$4\r\nPING\r\n"), "+PONG\r\n");
    other = make_kind(0, "-ERR not here\r\n-ERR not here\r\n");
    out_size = READ_SIZE + get.reply_len;
    for (int i = 0; i < (batched ? URING_MAX : 1); i++)
        if (!(slots[i].out = malloc(out_size))) die("malloc");
}

static const struct kind *classify(const char *head) {
    if (head[5] == '3') return head[1] == '2' ? &get : &set;
    return head[1] == '1' ? &ping : &other;
}

static void flush(struct slot *s, size_t done) {
    while (done < s->out_len) {
        ssize_t n = write(s->fd, s->out + done, s->out_len - done);
        if (n < 0) break; /* the peer is gone: the next read says so */
        done += (size_t)n;
    }
    s->out_len = 0;
}

static void answer(struct slot *s, const struct kind *kind) {
    if (s->out_len + kind->reply_len > out_size) flush(s, 0);
    memcpy(s->out + s->out_len, kind->reply, kind->reply_len);
    s->out_len += kind->reply_len;
}

static void count_commands(struct slot *s, const char *p, const char *end) {
    struct conn *c = &conns[s->fd];
    while (p < end) {
        if (!c->kind) {
            const char *head = p;
            if (c->held || end - p < HEAD) {
                while (c->held < HEAD && p < end) c->head[c->held++] = *p++;
                if (c->held < HEAD) return;
                head = c->head;
            } else {
                p += HEAD;
            }
            c->kind = classify(head);
            c->held = 0;
            c->skip = c->kind == &other ? (size_t)(end - p) : c->kind->frame - HEAD;
        }
        size_t n = (size_t)(end - p) < c->skip ? (size_t)(end - p) : c->skip;
        p += n;
        c->skip -= n;
        if (c->skip) return;
        answer(s, c->kind);
        c->kind = NULL;
    }
}

static void take(struct slot *s, ssize_t n) {
    if (n > 0 && n <= READ_SIZE) count_commands(s, s->in, s->in + n);
    else if (n != -EAGAIN) uring_close(s->fd);
}

static void serve(int fd) {
    struct slot *s = &slots[0];
    s->fd = fd;
    take(s, read(fd, s->in, sizeof s->in));
    flush(s, 0);
}

/* Reads from all of so many slots, then writes to those that have answers. */
static void serve_together(size_t n) {
    struct uring_io ios[URING_MAX];
    size_t of[URING_MAX], writes = 0;
    for (size_t i = 0; i < n; i++) ios[i] = (struct uring_io){slots[i].fd, slots[i].in, READ_SIZE, 0};
    uring_read(ios, n);
    for (size_t i = 0; i < n; i++) take(&slots[i], ios[i].result);
    for (size_t i = 0; i < n; i++)
        if (slots[i].out_len) {
            of[writes] = i;
            ios[writes++] = (struct uring_io){slots[i].fd, slots[i].out, slots[i].out_len, 0};
        }
    uring_write(ios, writes);
    for (size_t i = 0; i < writes; i++) flush(&slots[of[i]], ios[i].result > 0 ? (size_t)ios[i].result : 0);
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static void greet(int epoll, int listener) {
    int on = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0) return;
    if (fd >= MAX_FDS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    conns[fd] = (struct conn){0};
    uring_open(fd);
    watch(epoll, fd);
}

static int listen_on(int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, 511) < 0) die("listen");
    return fd;
}

static void serve_turn(int epoll, int listener, const struct epoll_event *ready, int n) {
    size_t held = 0;
    for (int i = 0; i < n; i++) {
        if (ready[i].data.fd == listener) greet(epoll, listener);
        else if (!batched) serve(ready[i].data.fd);
        else slots[held++].fd = ready[i].data.fd;
        if (held == URING_MAX || (held && i == n - 1)) {
            serve_together(held);
            held = 0;
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: bare PORT [VALUE_SIZE] [batched] | bare probe\n");
        return 1;
    }
    batched = !strcmp(argv[argc - 1], "batched");
    int probing = !strcmp(argv[1], "probe"), has_uring = (batched || probing) && uring_start();
    if (probing) return !has_uring;
    size_t value_size = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    learn_frames(value_size ? value_size : 16);
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(0);
    watch(epoll, listener);
    for (;;) {
        struct epoll_event ready[BATCH];
        int n = epoll_wait(epoll, ready, BATCH, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        serve_turn(epoll, listener, ready, n);
    }
}
