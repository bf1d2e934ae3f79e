/*
 * bare: the limit that a single-threaded server with plain sockets can reach.
 *
 *   bare PORT [VALUE_SIZE]
 *
 * An epoll loop that does one read and one write for every readable socket and stores nothing. It knows just
 * enough of the protocol to count commands: SET and GET frames with 16-byte keys and values of one agreed
 * size have a known length, so a frame is told by its first bytes and the rest is skipped unseen. SET is
 * answered +OK, GET with a canned value, PING +PONG. Anything else (the CONFIG GET of redis-benchmark)
 * swallows what was read and is answered with errors.
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
static struct conn conns[MAX_FDS];
static char in[READ_SIZE], *out;
static size_t out_size, out_len;

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
    out = malloc(out_size);
    if (!out) die("malloc");
}

static const struct kind *classify(const char *head) {
    if (head[5] == '3') return head[1] == '2' ? &get : &set;
    return head[1] == '1' ? &ping : &other;
}

static void flush(int fd) {
    for (size_t done = 0; done < out_len;) {
        ssize_t n = write(fd, out + done, out_len - done);
        if (n < 0) break; /* the peer is gone: the next read says so */
        done += (size_t)n;
    }
    out_len = 0;
}

static void answer(int fd, const struct kind *kind) {
    if (out_len + kind->reply_len > out_size) flush(fd);
    memcpy(out + out_len, kind->reply, kind->reply_len);
    out_len += kind->reply_len;
}

static void count_commands(int fd, struct conn *c, const char *p, const char *end) {
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
        answer(fd, c->kind);
        c->kind = NULL;
    }
}

static void serve(int fd) {
    ssize_t n = read(fd, in, sizeof in);
    if (n <= 0) {
        close(fd);
        return;
    }
    count_commands(fd, &conns[fd], in, in + n);
    flush(fd);
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

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: bare PORT [VALUE_SIZE]\n");
        return 1;
    }
    learn_frames(argc > 2 ? strtoul(argv[2], NULL, 10) : 16);
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(0);
    watch(epoll, listener);
    for (;;) {
        struct epoll_event ready[BATCH];
        int n = epoll_wait(epoll, ready, BATCH, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (ready[i].data.fd == listener) greet(epoll, listener);
            else serve(ready[i].data.fd);
        }
    }
}
