/*
 * load: a request generator that costs less than the server it loads.
 *
 *   load PORT OP [-c CONNECTIONS] [-P PIPELINE] [-n REQUESTS] [-r KEYS] [-d VALUE_SIZE] [-s]
 *   OP: set, get, setex (SET with EX), mcset, mcsetex (memcached's text protocol).
 *
 * redis-benchmark spends more CPU time on a request than a lean server does, so on one core each it, and not
 * the server, sets the pace: the server idles, wakes for few sockets at a time, and its cost per request is
 * overstated. This program builds each connection's batch once, patches only the key's digits, knows every
 * reply's length in advance, and goes round its connections with non-blocking reads and no epoll: two system
 * calls a batch. It never sleeps, so that the server does not pay for waking it.
 *
 * Keys are "key:" and twelve digits, as redis-benchmark's, uniformly random below KEYS, or with -s each in
 * turn. Left out on purpose: parsing. Each batch's first reply is checked for its type, and a reply of an
 * unexpected length shows up as a run that does not end (bounded by an alarm). Prints one JSON object.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNS = 20000, SCRATCH = 256 * 1024, STALLED_SECONDS = 600 };

struct conn {
    int fd;
    char *batch;
    size_t awaited; /* reply bytes still to come; 0 when a new batch may go out */
};

static const char KEY[] = "key:000000000000";
static int n_conns = 50, pipeline = 1, sequential;
static uint64_t requests = 100000, keys = 1000000, sent, next_key, seed = 0x9e3779b97f4a7c15;
static size_t value_size = 16, frame_len, key_at, reply_len, batch_len;
static struct conn conns[MAX_CONNS];
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

static uint64_t random_key(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (seed >> 32) * keys >> 32; /* keys stays below 2^32 */
}

static void write_key(char *at, uint64_t key) {
    memcpy(at + 4, digits[key / 100000000], 4);
    memcpy(at + 8, digits[key / 10000 % 10000], 4);
    memcpy(at + 12, digits[key % 10000], 4);
}

static void send_batch(struct conn *c) {
    for (int i = 0; i < pipeline; i++)
        write_key(c->batch + (size_t)i * frame_len + key_at, sequential ? next_key++ % keys : random_key());
    for (size_t done = 0; done < batch_len;) {
        ssize_t n = send(c->fd, c->batch + done, batch_len - done, 0);
        if (n < 0) die("send");
        done += (size_t)n;
    }
    sent += (uint64_t)pipeline;
    c->awaited = reply_len * (size_t)pipeline;
}

/* Takes what has come; 1 when the connection's batch is answered. */
static int receive(struct conn *c) {
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
    batch_len = frame_len * (size_t)pipeline;
    for (int i = 0, on = 1; i < n_conns; i++) {
        conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(conns[i].fd, (struct sockaddr *)&addr, sizeof addr) < 0) die("connect");
        setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        conns[i].batch = malloc(batch_len);
        if (!conns[i].batch) die("malloc");
        for (int f = 0; f < pipeline; f++) memcpy(conns[i].batch + (size_t)f * frame_len, frame, frame_len);
    }
}

static void run(void) {
    int busy = 0;
    for (int i = 0; i < n_conns && sent < requests; i++, busy++) send_batch(&conns[i]);
    while (busy)
        for (int i = 0; i < n_conns; i++) {
            if (!conns[i].awaited || !receive(&conns[i])) continue;
            if (sent < requests) send_batch(&conns[i]);
            else busy--;
        }
}

static double seconds_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

int main(int argc, char **argv) {
    for (int opt; (opt = getopt(argc, argv, "c:P:n:r:d:s")) != -1;) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;
        if (opt == 'c') n_conns = (int)number;
        if (opt == 'P') pipeline = (int)number;
        if (opt == 'n') requests = number;
        if (opt == 'r') keys = number;
        if (opt == 'd') value_size = number;
        if (opt == 's') sequential = 1;
        if (opt == '?') return 1;
    }
    if (argc - optind != 2 || n_conns < 1 || n_conns > MAX_CONNS || pipeline < 1 || keys < 1) {
        fprintf(stderr, "usage: load PORT OP [-c connections] [-P pipeline] [-n requests] [-r keys] [-d size] [-s]\n");
        return 1;
    }
    for (int i = 0; i < 10000; i++) {
        char four[16];
        sprintf(four, "%04d", i);
        memcpy(digits[i], four, 4);
    }
    build_frame(argv[optind + 1]);
    connect_all((unsigned short)atoi(argv[optind]));
    alarm(STALLED_SECONDS);
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    run();
    double seconds = seconds_since(&start);
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"rps\": %.0f}\n", (unsigned long long)sent, seconds,
           (double)sent / seconds);
    return 0;
}
