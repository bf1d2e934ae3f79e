/* fault_shim.c - preloaded into the server by the tests of what the kernel may answer on a bad day.
 *
 * So many of a thousand calls (FAULT_RATE) that read or write are cut short, interrupted by a signal (EINTR), or, on a
 * socket, refused for the moment (EAGAIN); FAULT_SEED makes it other ones. All of that is allowed to any kernel at any
 * time, as long as epoll then tells of the socket anew, also where its events are edges (epoll(7)). FAULT_COUNT names a
 * file that says at the end how many there were. FAULT_CLOCK names a file of eight bytes: the milliseconds by which the
 * wall clock is wrong, at once. FAULT_NO_IPV6 is a kernel that is built, or was started, without.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t state, rate, faults;
static const volatile int64_t *wrong_ms;
static int no_ipv6;
static struct {
    int epoll;
    struct epoll_event event;
} watched[1024]; /* by descriptor */

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *clock_file = getenv("FAULT_CLOCK");
    int fd = clock_file ? open(clock_file, O_RDONLY | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *wrong_ms, PROT_READ, MAP_SHARED, fd, 0);
    if (clock_file && p == MAP_FAILED) abort();
    if (clock_file) wrong_ms = p;
    no_ipv6 = !!getenv("FAULT_NO_IPV6");
    const char *seed = getenv("FAULT_SEED"), *per_mille = getenv("FAULT_RATE");
    state = seed ? strtoull(seed, NULL, 10) : 1;
    rate = per_mille ? strtoull(per_mille, NULL, 10) : 0;
}

__attribute__((destructor)) static void end(void) {
    const char *file = getenv("FAULT_COUNT");
    int fd = file ? open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) dprintf(fd, "%llu", (unsigned long long)faults);
}

static uint64_t random_below(uint64_t n) {
    pthread_mutex_lock(&lock);
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint64_t r = (state >> 33) % n;
    pthread_mutex_unlock(&lock);
    return r;
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
    if ((size_t)fd >= sizeof watched / sizeof *watched) abort();
    if (op != EPOLL_CTL_DEL) watched[fd].epoll = epoll, watched[fd].event = *event;
    return REAL(epoll_ctl)(epoll, op, fd, event);
}

/* Whether this call fails, with errno; or is cut short: *n is less then. */
static int fault(size_t *n, int is_socket) {
    if (random_below(1000) >= rate) return 0;
    uint64_t kind = random_below(is_socket ? 3 : 2);
    __atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED);
    if (kind == 0 && *n > 1) *n = 1 + random_below(*n - 1);
    if (kind == 0) return 0;
    errno = kind == 1 ? EINTR : EAGAIN;
    return 1;
}

/* The same on a socket that epoll watches. */
static int socket_fault(int fd, size_t *n) {
    size_t whole = *n;
    int failed = fault(n, 1), error = errno;
    if (failed || *n < whole) REAL(epoll_ctl)(watched[fd].epoll, EPOLL_CTL_MOD, fd, &watched[fd].event);
    errno = error;
    return failed;
}

ssize_t recv(int fd, void *p, size_t n, int flags) { return socket_fault(fd, &n) ? -1 : REAL(recv)(fd, p, n, flags); }
ssize_t pread(int fd, void *p, size_t n, off_t at) { return fault(&n, 0) ? -1 : REAL(pread)(fd, p, n, at); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return fault(&n, 0) ? -1 : REAL(pwrite)(fd, p, n, at); }

ssize_t send(int fd, const void *p, size_t n, int flags) {
    return socket_fault(fd, &n) ? -1 : REAL(send)(fd, p, n, flags);
}

ssize_t sendfile(int to, int from, off_t *at, size_t n) {
    return socket_fault(to, &n) ? -1 : REAL(sendfile)(to, from, at, n);
}

/* Short: a part of the first piece. */
ssize_t writev(int fd, const struct iovec *iov, int count) {
    size_t n = iov->iov_len;
    if (socket_fault(fd, &n)) return -1;
    if (n == iov->iov_len) return REAL(writev)(fd, iov, count);
    return REAL(writev)(fd, &(struct iovec){iov->iov_base, n}, 1);
}

int socket(int domain, int type, int protocol) {
    if (domain != AF_INET6 || !no_ipv6) return REAL(socket)(domain, type, protocol);
    errno = EAFNOSUPPORT;
    return -1;
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout) {
    size_t n = (size_t)max;
    return fault(&n, 0) ? -1 : REAL(epoll_wait)(fd, events, (int)n, timeout);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    size_t n = 1;
    return fault(&n, 1) ? -1 : REAL(accept4)(fd, address, length, flags);
}

int clock_gettime(clockid_t which, struct timespec *t) {
    int result = REAL(clock_gettime)(which, t);
    if (which != CLOCK_REALTIME || !wrong_ms) return result;
    int64_t ms = t->tv_sec * 1000 + t->tv_nsec / 1000000 + *wrong_ms;
    t->tv_sec = ms / 1000;
    t->tv_nsec = ms % 1000 * 1000000 + t->tv_nsec % 1000000;
    return result;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
