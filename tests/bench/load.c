/*
 * load: a request generator that costs less than the server it loads.
 *
 *   load PORT OP [-c CONNECTIONS] [-P PIPELINE] [-n REQUESTS] [-r KEYS] [-d VALUE_SIZE] [-z THETA | -s FIRST]
 *             [-R RATE]
 *   OP: set, get, setex (SET with EX), and mcset, mcsetex, mcget (memcached's text protocol, with its meta get).
 *
 * redis-benchmark spends more CPU time on a request than a lean server does, so on one core each it, and not
 * the server, sets the pace: the server idles, wakes for few sockets at a time, and its cost per request is
 * overstated. This program builds each connection's batch once (a long value is there once for all, so that it stays
 * in the cache), patches only the key's digits, knows every reply's length in advance, and goes round its connections
 * with calls that do not block and no epoll: two system calls a batch. It never sleeps, so that the server does not pay
 * for waking it.
 *
 * A connection sends as soon as its last batch is answered (closed loop), or, with -R, when the next of RATE requests
 * a second is due (open loop): each batch has its time on a fixed schedule, the next free connection takes it, and
 * its latency counts from that time and not from when it could be sent. So a stall is felt by all the requests that
 * were due meanwhile, as it is by clients that know nothing of each other.
 *
 * Keys are "key:" and twelve digits, as redis-benchmark's, uniformly random below KEYS, or with -s each in turn from
 * FIRST on, or with -z by a Zipf distribution, its ranks scattered over the keys. Left out on purpose: parsing. Each
 * batch's first reply is checked for its type, and a reply of an unexpected length shows up as a run that does not end
 * (bounded by an alarm). Prints one JSON object.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNS = 20000, SCRATCH = 256 * 1024, STALLED_SECONDS = 600, LONG_FRAME = 64 * 1024 };

struct conn {
    int fd;
    char *batch;
    size_t unsent;  /* bytes of the batch that the socket has not taken yet */
    size_t awaited; /* reply bytes still to come; 0 when a new batch may go out */
    int64_t due;    /* nanoseconds; only in the open loop */
};

static const char KEY[] = "key:000000000000";
static int n_conns = 50, pipeline = 1, sequential;
static double rate; /* 0: the closed loop */
static struct { double theta, zeta, eta; /* theta 0: uniform */ } zipf;
static uint64_t requests = 100000, keys = 1000000, sent, next_key, seed = 0x9e3779b97f4a7c15;
static size_t value_size = 16, frame_len, key_at, reply_len, batch_len;
static size_t own_len; /* bytes of its batch that a connection has for itself; what follows is frame's */
static struct conn conns[MAX_CONNS];
static float *latency; /* microseconds, one a batch */
static uint64_t n_latency;
static char *frame, scratch[SCRATCH], reply_type, digits[10000][4];

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Fills frame, key_at, reply_len and reply_type for the operation. */
static void build_frame(const char *op) {
    char *value = malloc(value_size + 1), number[32];
    frame = malloc(value_size + 256);
    if (!value || !frame) die("malloc");
    memset(value, 'x', value_size);
    value[value_size] = 0;
    int expires = strstr(op, "ex") != NULL, number_len = sprintf(number, "%zu", value_size);
    if (!strncmp(op, "mcset", 5)) {
        sprintf(frame, "set %s 0 %s %zu\r\n%s\r\n", KEY, expires ? "864000" : "0", value_size, value);
        reply_type = 'S', reply_len = strlen("STORED\r\n");
    } else if (!strcmp(op, "mcget")) {
        sprintf(frame, "mg %s v\r\n", KEY); /* "get" in a pipeline would be answered by a write each */
        reply_type = 'V', reply_len = strlen("VA \r\n\r\n") + (size_t)number_len + value_size;
    } else if (!strcmp(op, "set") || expires) {
        sprintf(frame, "*%d\r\n$3\r\nSET\r\n$16\r\n%s\r\n$%zu\r\n%s\r\n%s", expires ? 5 : 3, KEY, value_size, value,
                expires ? "$2\r\nEX\r\n$6\r\n864000\r\n" : "");
        reply_type = '+', reply_len = strlen("+OK\r\n");
    } else if (!strcmp(op, "get")) {
        sprintf(frame, "*2\r\n$3\r\nGET\r\n$16\r\n%s\r\n", KEY);
        reply_type = '$', reply_len = 1 + (size_t)number_len + 2 + value_size + 2;
    } else {
        fprintf(stderr, "load: no operation %s\n", op);
        exit(1);
    }
    frame_len = strlen(frame);
    key_at = (size_t)(strstr(frame, KEY) - frame);
    free(value);
}

static uint64_t random_32(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed >> 32;
}

/* The sums of a Zipf distribution over all keys, as in "Quickly generating billion-record synthetic databases" (Gray
 * and others, 1994). The far terms of zeta are taken together as an integral. */
static void prepare_zipf(double theta) {
    uint64_t near = keys < 100000 ? keys : 100000;
    double left = 1 - theta;
    for (uint64_t i = 1; i <= near; i++) zipf.zeta += pow((double)i, -theta);
    zipf.zeta += (pow((double)keys + 0.5, left) - pow((double)near + 0.5, left)) / left;
    zipf.eta = (1 - pow(2 / (double)keys, left)) / (1 - (1 + pow(0.5, theta)) / zipf.zeta);
    zipf.theta = theta;
}

static uint64_t zipf_key(void) {
    double u = (double)random_32() / 4294967296.0, scaled = u * zipf.zeta;
    uint64_t rank = scaled >= 1; /* the two most frequent, or one of the rest */
    if (scaled >= 1 + pow(0.5, zipf.theta))
        rank = (uint64_t)((double)keys * pow(zipf.eta * u - zipf.eta + 1, 1 / (1 - zipf.theta)));
    return (rank * 0x9e3779b97f4a7c15 >> 20) % keys;
}

static uint64_t pick_key(void) {
    if (sequential) return next_key++ % keys;
    return zipf.theta > 0 ? zipf_key() : random_32() * keys >> 32; /* keys stays below 2^32 */
}

static void write_key(char *at, uint64_t key) {
    memcpy(at + 4, digits[key / 100000000], 4);
    memcpy(at + 8, digits[key / 10000 % 10000], 4);
    memcpy(at + 12, digits[key % 10000], 4);
}

static void send_rest(struct conn *c) {
    size_t from = batch_len - c->unsent, own = from < own_len ? own_len - from : 0;
    struct iovec iov[] = {{c->batch + from, own}, {frame + from + own, c->unsent - own}};
    struct msghdr both = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t n =
        own == c->unsent ? send(c->fd, c->batch + from, own, MSG_DONTWAIT) : sendmsg(c->fd, &both, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) die("send");
    if (n > 0) c->unsent -= (size_t)n;
}

static void send_batch(struct conn *c) {
    for (int i = 0; i < pipeline; i++) write_key(c->batch + (size_t)i * frame_len + key_at, pick_key());
    c->unsent = batch_len;
    c->awaited = reply_len * (size_t)pipeline;
    sent += (uint64_t)pipeline;
    send_rest(c);
}

/* Takes what has come; 1 when the connection's batch is answered. */
static int receive(struct conn *c) {
    if (c->unsent) send_rest(c);
    ssize_t n = recv(c->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) die("recv");
    int first = c->awaited == reply_len * (size_t)pipeline;
    if ((size_t)n > c->awaited || (first && (scratch[0] != reply_type || (n > 1 && scratch[1] == '-')))) {
        fprintf(stderr, "load: unexpected reply: %.*s\n", (int)(n > 80 ? 80 : n), scratch);
        exit(1);
    }
    c->awaited -= (size_t)n;
    return c->awaited == 0;
}

static void connect_all(unsigned short port) {
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    batch_len = own_len = frame_len * (size_t)pipeline;
    if (batch_len >= LONG_FRAME && pipeline == 1) own_len = key_at + strlen(KEY);
    for (int i = 0, on = 1; i < n_conns; i++) {
        conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(conns[i].fd, (struct sockaddr *)&addr, sizeof addr) < 0) die("connect");
        setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        conns[i].batch = malloc(own_len);
        if (!conns[i].batch) die("malloc");
        for (size_t at = 0; at < own_len; at += frame_len)
            memcpy(conns[i].batch + at, frame, own_len < frame_len ? own_len : frame_len);
    }
}

/* After a round that brought nothing. Alone on its core, it just goes on. */
static void give_way(void) { sched_yield(); }

static void run(void) {
    int busy = 0;
    for (int i = 0; i < n_conns && sent < requests; i++, busy++) send_batch(&conns[i]);
    while (busy) {
        int answered = 0;
        for (int i = 0; i < n_conns; i++) {
            if (!conns[i].awaited || !receive(&conns[i])) continue;
            answered = 1;
            if (sent < requests) send_batch(&conns[i]);
            else busy--;
        }
        if (!answered) give_way();
    }
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void run_at_rate(void) {
    double interval = 1e9 / rate;
    int64_t start = now_ns(), due = start;
    for (int busy = 0; busy || sent < requests;) {
        int moved = 0;
        for (int i = 0; i < n_conns; i++) {
            struct conn *c = &conns[i];
            if (c->awaited) {
                if (!receive(c)) continue;
                latency[n_latency++] = (float)(now_ns() - c->due) / 1e3f;
                busy--;
                moved = 1;
            }
            if (sent >= requests || now_ns() < due) continue;
            c->due = due;
            send_batch(c);
            busy++;
            moved = 1;
            due = start + (int64_t)((double)sent * interval);
        }
        if (!moved) give_way();
    }
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_latency(void) {
    qsort(latency, n_latency, sizeof *latency, compare);
    const char *labels[] = {"p50", "p99", "p99.9", "max"};
    double quantiles[] = {0.5, 0.99, 0.999, 1};
    printf(", \"latency_us\": {\"samples\": %llu", (unsigned long long)n_latency);
    for (int i = 0; i < 4; i++)
        printf(", \"%s\": %.1f", labels[i], (double)latency[(size_t)(quantiles[i] * (double)(n_latency - 1))]);
    printf("}");
}

static int usage(void) {
    fprintf(
        stderr,
        "usage: load PORT OP [-c connections] [-P pipeline] [-n requests] [-r keys] [-d size] [-z theta | -s first] "
        "[-R rate]\n");
    return 1;
}

int main(int argc, char **argv) {
    double theta = 0;
    for (int opt; (opt = getopt(argc, argv, "c:P:n:r:d:z:R:s:")) != -1;) {
        const char *word = optarg ? optarg : "";
        uint64_t number = strtoull(word, NULL, 10);
        if (opt == 'c') n_conns = (int)number;
        if (opt == 'P') pipeline = (int)number;
        if (opt == 'n') requests = number;
        if (opt == 'r') keys = number;
        if (opt == 'd') value_size = number;
        if (opt == 'z') theta = atof(word);
        if (opt == 'R') rate = atof(word);
        if (opt == 's') sequential = 1, next_key = number;
        if (opt == '?') return usage();
    }
    int sane = n_conns >= 1 && n_conns <= MAX_CONNS && pipeline >= 1 && requests >= 1 && keys >= 1;
    if (argc - optind != 2 || !sane || theta < 0 || theta >= 1 || rate < 0) return usage();
    for (int i = 0; i < 10000; i++) {
        char four[16];
        sprintf(four, "%04d", i);
        memcpy(digits[i], four, 4);
    }
    build_frame(argv[optind + 1]);
    if (theta > 0) prepare_zipf(theta);
    latency = calloc(rate > 0 ? requests / (uint64_t)pipeline + 1 : 1, sizeof *latency);
    if (!latency) die("calloc");
    connect_all((unsigned short)atoi(argv[optind]));
    alarm(STALLED_SECONDS);
    int64_t start = now_ns();
    if (rate > 0) run_at_rate();
    else run();
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"rps\": %.0f", (unsigned long long)sent, seconds,
           (double)sent / seconds);
    if (rate > 0) print_latency();
    puts("}");
    return 0;
}
