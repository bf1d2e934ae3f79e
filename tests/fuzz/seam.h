/* seam.h - a world in memory, for fuzzing the server as it is.
 *
 * Included before every file of the product that is built for a fuzz target: its system calls become functions of
 * seam.c, so that files, sockets, the clock and the helper thread are the target's to play with, and one execution is
 * a function of its input alone. Nothing in the product knows of it.
 */
#ifndef SEAM_H
#define SEAM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- what a target plays with ---------------------------------------------------------------- */

#define SEAM_START_MS INT64_C(1700000000000) /* where the clock stands after seam_reset() */

struct seam {
    int64_t wall_ns, steady_ns; /* CLOCK_REALTIME and CLOCK_MONOTONIC */
    size_t read_max;            /* bytes that a read from a socket gives at most */
    unsigned interrupt;         /* every so many-th call on a socket fails with EINTR, or EAGAIN; 0: none */
    int disk_error;             /* what writes and syncs of files fail with; 0: they do not */
    size_t disk_room;           /* bytes of files that may still be written */
    size_t window;              /* bytes that rdb.c reads from a file at once; two checksum records at least */
    bool disk_slow;             /* the helper thread does nothing until somebody waits for it */
    void (*on_exit)(void);      /* must not return */
};
extern struct seam seam;

void seam_reset(void); /* no files, no connections, the clock at its start */

void seam_put(const char *name, const void *p, size_t n); /* a file */
const void *seam_get(const char *name, size_t *n);        /* its bytes; NULL: there is none */
uint64_t seam_sum(void);                                  /* of all files' names and bytes */

int seam_fd(int conn);                             /* the server's end of it */
int seam_connect(void);                            /* a client that the server has still to accept; its number */
bool seam_open(int conn);                          /* false: the server has closed it */
void seam_send(int conn, const void *p, size_t n); /* to the server */
void seam_shut(int conn);                          /* nothing more is sent */
void seam_drop(int conn);                          /* gone, with a reset */
void seam_room(int conn, size_t n);                /* how much of replies its socket takes from now on */
const char *seam_output(int conn, size_t *n);      /* all that the server has written to it */
bool seam_idle(void);                              /* the server has read all that was sent */

/* The server's own connections: its n-th connect(), from 0 on, as a connection; -1: there was none. */
int seam_dialled(int nth);

/* ---- the system calls ------------------------------------------------------------------------ */

int seam_open_file(const char *path, int flags, ...);
int seam_close(int fd);
ssize_t seam_read(int fd, void *p, size_t n);
ssize_t seam_write(int fd, const void *p, size_t n);
ssize_t seam_writev(int fd, const struct iovec *iov, int n);
ssize_t seam_pread(int fd, void *p, size_t n, off_t at);
ssize_t seam_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t seam_recv(int fd, void *p, size_t n, int flags);
ssize_t seam_sendfile(int to, int from, off_t *at, size_t n);
int seam_fstat(int fd, struct stat *st);
int seam_stat(const char *path, struct stat *st);
int seam_ftruncate(int fd, off_t n);
int seam_fallocate(int fd, int mode, off_t at, off_t n);
int seam_rename(const char *from, const char *to);
int seam_link(const char *from, const char *to);
int seam_unlink(const char *path);
int seam_access(const char *path, int mode);
int seam_sync(int fd);
int seam_chdir(const char *path);
char *seam_getcwd(char *buf, size_t n);
char *seam_realpath(const char *path, char *resolved);
FILE *seam_fopen(const char *path, const char *mode);
int seam_socket(int domain, int type, int protocol);
int seam_accept4(int fd, struct sockaddr *sa, socklen_t *n, int flags);
int seam_dial(int fd, const struct sockaddr *sa, socklen_t n);
int seam_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
int seam_name(int fd, struct sockaddr *sa, socklen_t *n);
int seam_fcntl(int fd, int what, int how);
int seam_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found);
int seam_epoll_create1(int flags);
int seam_epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev);
int seam_epoll_wait(int epoll, struct epoll_event *ev, int max, int wait_ms);
int seam_eventfd(unsigned first, int flags);
int seam_eventfd_read(int fd, eventfd_t *v);
int seam_eventfd_write(int fd, eventfd_t v);
int seam_poll(struct pollfd *p, nfds_t n, int wait_ms);
int seam_clock_gettime(clockid_t id, struct timespec *ts);
time_t seam_time(time_t *t);
ssize_t seam_getrandom(void *p, size_t n, unsigned flags);
int seam_usleep(useconds_t us);
int seam_thread_create(void *(*run)(void *), void *arg);
int seam_thread_join(void);
int seam_thread_wake(void);
int seam_thread_sleep(void);
_Noreturn void seam_exit(int status);

#ifndef SEAM_ITSELF
#define syscall(...)                 (errno = ENOSYS, -1L) /* no io_uring */
#define open                         seam_open_file
#define close                        seam_close
#define read                         seam_read
#define write                        seam_write
#define writev                       seam_writev
#define pread                        seam_pread
#define pwrite                       seam_pwrite
#define sendfile                     seam_sendfile
#define send(fd, p, n, flags)        seam_write(fd, p, n)
#define recv                         seam_recv
#define shutdown(fd, how)            ((void)(fd))
#define memfd_create(name, flags)    seam_open_file(".", O_TMPFILE)
#define getaddrinfo                  seam_getaddrinfo
#define freeaddrinfo(found)          ((void)(found))
#define fstat                        seam_fstat
#define stat(...)                    seam_stat(__VA_ARGS__)
#define ftruncate                    seam_ftruncate
#define fallocate                    seam_fallocate
#define rename                       seam_rename
#define link(...)                    seam_link(__VA_ARGS__)
#define unlink                       seam_unlink
#define access                       seam_access
#define fsync                        seam_sync
#define fdatasync                    seam_sync
#define flock(fd, how)               ((void)(fd), 0)
#define chdir                        seam_chdir
#define getcwd                       seam_getcwd
#define realpath                     seam_realpath
#define fopen                        seam_fopen
#define socket(a, b, c)              seam_socket(a, b, c)
#define bind(fd, sa, n)              ((void)(fd), 0)
#define listen(fd, n)                ((void)(fd), 0)
#define accept4                      seam_accept4
#define connect(...)                 seam_dial(__VA_ARGS__)
#define setsockopt(fd, l, o, v, n)   ((void)(v), 0)
#define getsockopt(fd, l, o, v, n)   seam_getsockopt(fd, l, o, v, n)
#define getpeername                  seam_name
#define getsockname                  seam_name
#define fcntl                        seam_fcntl
#define chmod(path, mode)            ((void)(path), 0)
#define epoll_create1                seam_epoll_create1
#define epoll_ctl                    seam_epoll_ctl
#define epoll_wait                   seam_epoll_wait
#define signalfd(fd, set, flags)     seam_eventfd(0, flags)
#define sigprocmask(how, set, old)   ((void)(set), 0)
#define signal(number, what)         ((void)(number))
#define setrlimit(what, limit)       0
#define eventfd                      seam_eventfd
#define eventfd_read                 seam_eventfd_read
#define eventfd_write                seam_eventfd_write
#define poll(...)                    seam_poll(__VA_ARGS__)
#define clock_gettime                seam_clock_gettime
#define time(t)                      seam_time(t)
#define getrandom                    seam_getrandom
#define usleep                       seam_usleep
#define exit(status)                 seam_exit(status)
#define pthread_create(t, a, run, x) ((void)(t), seam_thread_create(run, x))
#define pthread_join(t, result)      seam_thread_join()
#define pthread_mutex_lock(m)        ((void)(m))
#define pthread_mutex_unlock(m)      ((void)(m))
#define pthread_cond_signal(c)       seam_thread_wake()
#define pthread_cond_wait(c, m)      seam_thread_sleep()
#endif

#endif
