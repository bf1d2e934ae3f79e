/*
 * probe: the latency that one more client sees, and how much of it is the probe's own.
 *
 *   probe PORT INTERVAL_US     measures until SIGTERM, then prints one JSON object
 *
 * A GET goes out every INTERVAL_US and its reply is waited for, whatever it takes: one request is under way at a time.
 * A request that took longer than the interval held up those that were due meanwhile; each of them is counted with
 * the wait that was left for it, so that one long stall is not one sample among thousands of quick ones.
 * The probe sleeps until a request is due; how late the kernel wakes it is recorded apart ("wake"): the same scheduling
 * noise also sits, unseen, in the replies' times. It asks for real-time priority, so that a generator on the same core
 * does not hold it up.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SAMPLES = 1 << 21 };

static volatile sig_atomic_t stopped;
static uint32_t latency[MAX_SAMPLES], lateness[MAX_SAMPLES]; /* nanoseconds */
static size_t n_latency, n_lateness;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_until(int64_t ns) {
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int open_link(unsigned short port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void ask(int fd) {
    static const char request[] = "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n";
    char reply[4096];
    if (send(fd, request, sizeof request - 1, 0) != (ssize_t)sizeof request - 1) die("send");
    ssize_t n = recv(fd, reply, sizeof reply, 0);
    if (n <= 0) die("recv");
    if (reply[0] != '$') {
        fprintf(stderr, "probe: unexpected reply: %.*s\n", (int)n, reply);
        exit(1);
    }
}

static void record(int64_t took, int64_t interval) {
    for (; took > 0 && n_latency < MAX_SAMPLES; took -= interval) latency[n_latency++] = (uint32_t)took;
}

static void measure(int fd, int64_t interval) {
    for (int64_t start = now_ns(); n_latency < MAX_SAMPLES;) {
        int64_t due = start + interval;
        if (now_ns() < due) {
            sleep_until(due);
            if (stopped) break; /* woken early, by the signal */
            lateness[n_lateness++] = (uint32_t)(now_ns() - due);
        }
        if (stopped) break;
        start = now_ns();
        ask(fd);
        record(now_ns() - start, interval);
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_spread(const char *name, uint32_t *samples, size_t n, const char *end) {
    static const struct {
        const char *label;
        double quantile;
    } points[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1.0}};
    qsort(samples, n, sizeof *samples, compare);
    printf("\"%s_us\": {\"samples\": %zu", name, n);
    for (size_t i = 0; n && i < sizeof points / sizeof *points; i++)
        printf(", \"%s\": %.1f", points[i].label, samples[(size_t)(points[i].quantile * (double)(n - 1))] / 1e3);
    printf("}%s", end);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: probe PORT INTERVAL_US\n");
        return 1;
    }
    struct sched_param urgent = {.sched_priority = 10};
    struct sigaction on_term = {.sa_handler = stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &on_term, NULL);
    int real_time = sched_setscheduler(0, SCHED_FIFO, &urgent) == 0;
    memset(latency, 0, sizeof latency); /* no page fault while measuring */
    memset(lateness, 0, sizeof lateness);
    measure(open_link((unsigned short)atoi(argv[1])), atoll(argv[2]) * 1000);
    printf("{\"real_time\": %s, ", real_time ? "true" : "false");
    print_spread("latency", latency, n_latency, ", ");
    print_spread("wake", lateness, n_lateness, "}\n");
    return 0;
}
