/* disk_shim.c - preloaded into the server by the tests of what a disk can do to it.
 *
 * Writes every call that changes a file of the server's (and every reply to a client) to the trace that
 * DISK_TRACE names, in the order in which the calls had their effect: "name fd number number length\n" and so
 * many bytes. A file named by DISK_FAULTS makes calls fail while it is there: "fdatasync 5 .aof" lets fdatasync
 * on names with ".aof" fail with errno 5; "fsync 0 .rdb 900" makes it take so many milliseconds; "header 28 .aof" lets
 * a header line end after 64 bytes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char names[1024][64]; /* of the files that are open, by descriptor; "": not one of ours */
static int trace = -1;

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static int ours(const char *path) {
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, "database_", 9) == 0 || !strcmp(path, ".");
}

static const char *name_of(int fd) { return fd >= 0 && fd < 1024 ? names[fd] : ""; }

static void note(const char *op, int fd, long a, long b, const void *data, size_t n) {
    char line[128];
    if (trace < 0 && getenv("DISK_TRACE"))
        trace = REAL(open)(getenv("DISK_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (trace < 0) return;
    struct iovec iov[2] = {{line, (size_t)snprintf(line, sizeof line, "%s %d %ld %ld %zu\n", op, fd, a, b, n)},
                           {(void *)data, n}};
    if (REAL(writev)(trace, iov, 2) < 0) abort();
}

static int fault(const char *op, const char *name) {
    char text[128] = "", what[32] = "", where[64] = "";
    int error = 0, ms = 0, fd = getenv("DISK_FAULTS") ? REAL(open)(getenv("DISK_FAULTS"), O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) > 0) sscanf(text, "%31s %d %63s %d", what, &error, where, &ms);
    REAL(close)(fd);
    if (strcmp(what, op) != 0 || !strstr(name, where)) return 0;
    usleep((useconds_t)ms * 1000);
    errno = error;
    return error != 0;
}

int open(const char *path, int flags, ...) {
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    pthread_mutex_lock(&lock);
    int there = access(path, F_OK) == 0;
    int fd = fault("open", path) ? -1 : REAL(open)(path, flags, mode);
    int error = errno;
    if (fd >= 0 && fd < 1024) {
        names[fd][0] = '\0';
        if (ours(path) && (flags & O_TMPFILE) != O_TMPFILE) {
            snprintf(names[fd], sizeof names[fd], "%s", path);
            note("open", fd, there, flags & O_TRUNC ? 1 : 0, path, strlen(path));
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (*name_of(fd)) note("close", fd, 0, 0, "", 0);
    if (fd >= 0 && fd < 1024) names[fd][0] = '\0';
    pthread_mutex_unlock(&lock);
    return REAL(close)(fd);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    if (!*name_of(fd)) return REAL(pwrite)(fd, p, n, at);
    if (fault("pwrite", name_of(fd))) return -1;
    if (at < 1024 && fault("header", name_of(fd))) {
        if (at % 512) return -1;
        n = 64;
    }
    pthread_mutex_lock(&lock);
    ssize_t put = REAL(pwrite)(fd, p, n, at);
    if (put > 0) note("pwrite", fd, at, 0, p, (size_t)put);
    pthread_mutex_unlock(&lock);
    return put;
}

int ftruncate(int fd, off_t n) {
    pthread_mutex_lock(&lock);
    int result = REAL(ftruncate)(fd, n);
    if (*name_of(fd)) note("truncate", fd, n, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

/* What was written before the call is on the disk when it is over. */
static int sync_it(int fd, const char *op, int (*real)(int)) {
    if (!*name_of(fd)) return real(fd);
    if (fault(op, name_of(fd))) return -1;
    pthread_mutex_lock(&lock);
    note("sync-begins", fd, 0, 0, "", 0);
    pthread_mutex_unlock(&lock);
    int result = real(fd);
    pthread_mutex_lock(&lock);
    note("sync-ends", fd, 0, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return sync_it(fd, "fsync", REAL(fsync)); }
int fdatasync(int fd) { return sync_it(fd, "fdatasync", REAL(fdatasync)); }

static int name_op(const char *op, const char *a, const char *b, int (*real)(const char *, const char *)) {
    char both[256];
    pthread_mutex_lock(&lock);
    int result = fault(op, a) ? -1 : real(a, b), error = errno;
    int n = snprintf(both, sizeof both, "%s %s", a, b);
    if (!result && ours(a)) note(op, -1, 0, 0, both, (size_t)n);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *a, const char *b) { return name_op("rename", a, b, REAL(rename)); }
int link(const char *a, const char *b) { return name_op("link", a, b, REAL(link)); }

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    if (!result && ours(path)) note("unlink", -1, 0, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    return result;
}

/* Replies: from now on the client may know. */
static void note_reply(int fd, const void *p, size_t n) {
    struct stat st;
    int error = errno;
    if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
        pthread_mutex_lock(&lock);
        note("reply", fd, 0, 0, p, n);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
}

ssize_t write(int fd, const void *p, size_t n) {
    note_reply(fd, p, n);
    return REAL(write)(fd, p, n);
}

ssize_t writev(int fd, const struct iovec *iov, int n) {
    for (int i = 0; i < n; i++) note_reply(fd, iov[i].iov_base, iov[i].iov_len);
    return REAL(writev)(fd, iov, n);
}
