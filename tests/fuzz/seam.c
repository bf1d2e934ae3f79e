/* seam.c - the world in memory that seam.h describes.
 *
 * Descriptors name files, streams, listening sockets, event counters or the one epoll set. The helper thread is a
 * coroutine: it runs when the loop waits for it (or, unless the disk is slow, when the loop waits for anything), and
 * leaves by longjmp() where it would sleep. A wait that nothing can end is reported.
 */
#include "seam.h"

#include <errno.h>
#include <setjmp.h>

#define FDS   256
#define FILES 32
#define CONNS 64

enum kind { FREE, FILE_FD, FOLDER, SOCKET, STREAM, COUNTER, EPOLL };

struct file {
    char name[128]; /* "": it has been deleted, or taken away by a rename */
    char *data;
    size_t len, cap;
    int opens;
};

struct conn {
    int fd; /* the server's end; -1: not yet accepted, or closed */
    bool used, pending, shut, dropped;
    char *in, *out;
    size_t in_at, in_len, in_cap, out_len, out_cap;
    size_t room;
};

static struct slot {
    enum kind kind;
    struct file *file;
    struct conn *conn;
    uint64_t count;
    bool watched;
    struct epoll_event ev;
} slots[FDS];

struct seam seam;

/* Room for many executions, and speed: what is freed is kept for a while only. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=1:malloc_context_size=1:max_redzone=64:abort_on_error=1";
}
static struct file files[FILES];
static struct conn conns[CONNS];
static struct conn *dialled[CONNS];
static int ndialled, fd_end;
static unsigned calls;
static uint64_t random_state;
static void *(*helper)(void *);
static void *helper_arg;
static bool helper_due, helper_runs;
static jmp_buf helper_sleeps;

static _Noreturn void broken(const char *what) {
    fprintf(stderr, "seam: %s\n", what);
    abort();
}

static void *must(void *p) {
    if (!p) broken("out of memory");
    return p;
}

static int fails(int error) {
    errno = error;
    return -1;
}

static void append(char **data, size_t *len, size_t *cap, const void *p, size_t n) {
    if (*len + n > *cap) *data = must(realloc(*data, *cap = 2 * (*len + n)));
    if (n) memcpy(*data + *len, p, n);
    *len += n;
}

/* ---- files ----------------------------------------------------------------------------------- */

static struct file *file_find(const char *name) {
    if (!strncmp(name, "./", 2)) name += 2;
    for (int i = 0; i < FILES; i++)
        if (*name && !strcmp(files[i].name, name)) return &files[i];
    return NULL;
}

static void file_forget(struct file *f) {
    f->name[0] = '\0';
    if (f->opens) return;
    free(f->data);
    *f = (struct file){0};
}

static struct file *file_new(const char *name) {
    for (int i = 0; i < FILES; i++) {
        struct file *f = &files[i];
        if (f->name[0] || f->opens) continue;
        snprintf(f->name, sizeof f->name, "%s", name);
        return f;
    }
    return NULL;
}

void seam_put(const char *name, const void *p, size_t n) {
    struct file *f = file_find(name);
    if (!f) f = must(file_new(name));
    f->len = 0;
    append(&f->data, &f->len, &f->cap, p, n);
}

const void *seam_get(const char *name, size_t *n) {
    struct file *f = file_find(name);
    *n = f ? f->len : 0;
    return f ? (f->data ? f->data : "") : NULL;
}

uint64_t seam_sum(void) {
    uint64_t all = 0;
    for (int i = 0; i < FILES; i++) {
        uint64_t sum = 14695981039346656037u; /* FNV-1a */
        for (const char *p = files[i].name; *p; p++) sum = (sum ^ (unsigned char)*p) * 1099511628211u;
        for (size_t k = 0; k < files[i].len; k++) sum = (sum ^ (unsigned char)files[i].data[k]) * 1099511628211u;
        if (files[i].name[0]) all += sum;
    }
    return all;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static int slot_new(enum kind kind) {
    for (int fd = 3; fd < FDS; fd++) {
        if (slots[fd].kind != FREE) continue;
        slots[fd] = (struct slot){.kind = kind};
        if (fd >= fd_end) fd_end = fd + 1;
        return fd;
    }
    return fails(EMFILE);
}

static struct slot *slot_of(int fd, enum kind kind) {
    return fd >= 0 && fd < FDS && slots[fd].kind == kind ? &slots[fd] : NULL;
}

int seam_open_file(const char *path, int flags, ...) {
    bool nameless = (flags & O_TMPFILE) == O_TMPFILE, folder = !nameless && !strcmp(path, "."),
         null = !strcmp(path, "/dev/null");
    struct file *f = folder || null || nameless ? NULL : file_find(path);
    if (nameless) path = "nameless";
    else if (!folder && !null && !f && !(flags & O_CREAT)) return fails(ENOENT);
    if (f && flags & O_EXCL) return fails(EEXIST);
    if (!folder && !null && !f && !(f = file_new(path))) return fails(ENOSPC);
    int fd = slot_new(f ? FILE_FD : FOLDER);
    if (fd < 0 || !f) return fd;
    slots[fd].file = f;
    f->opens++;
    if (nameless) f->name[0] = '\0';
    if (flags & O_TRUNC) f->len = 0;
    return fd;
}

int seam_close(int fd) {
    if (fd < 3 || fd >= FDS || slots[fd].kind == FREE) broken("a descriptor is closed that is not open");
    struct slot *s = &slots[fd];
    if (s->kind == FILE_FD && !--s->file->opens && !s->file->name[0]) file_forget(s->file);
    if (s->conn) s->conn->fd = -1;
    *s = (struct slot){0};
    return 0;
}

ssize_t seam_pread(int fd, void *p, size_t n, off_t at) {
    struct slot *s = slot_of(fd, FILE_FD);
    if (!s) return fails(EBADF);
    size_t len = s->file->len, from = (size_t)at < len ? (size_t)at : len;
    if (n > len - from) n = len - from;
    if (n) memcpy(p, s->file->data + from, n);
    return (ssize_t)n;
}

ssize_t seam_pwrite(int fd, const void *p, size_t n, off_t at) {
    struct slot *s = slot_of(fd, FILE_FD);
    if (!s) return fails(EBADF);
    struct file *f = s->file;
    if (seam.disk_error) return fails(seam.disk_error);
    if (!seam.disk_room && n) return fails(ENOSPC);
    if (n > seam.disk_room) n = seam.disk_room;
    seam.disk_room -= n;
    size_t end = (size_t)at + n, had = f->len;
    if (end > f->cap) f->data = must(realloc(f->data, f->cap = 2 * end));
    if ((size_t)at > had) memset(f->data + had, 0, (size_t)at - had);
    if (n) memcpy(f->data + at, p, n);
    if (end > f->len) f->len = end;
    return (ssize_t)n;
}

int seam_fcntl(int fd, int what, int how) {
    struct slot *s = slot_of(fd, FILE_FD);
    if (what != F_DUPFD_CLOEXEC || !s) return how < 0 ? fails(EINVAL) : 0;
    int copy = slot_new(FILE_FD);
    if (copy < 0) return -1;
    slots[copy].file = s->file;
    s->file->opens++;
    return copy;
}

static int stat_file(const struct file *f, struct stat *st) {
    *st = (struct stat){.st_mode = S_IFREG | 0644, .st_dev = 1, .st_ino = (ino_t)(f - files) + 1};
    st->st_size = (off_t)f->len;
    return 0;
}

int seam_fstat(int fd, struct stat *st) {
    struct slot *s = slot_of(fd, FILE_FD);
    return s ? stat_file(s->file, st) : fails(EBADF);
}

int seam_stat(const char *path, struct stat *st) {
    struct file *f = file_find(path);
    return f ? stat_file(f, st) : fails(ENOENT);
}

int seam_ftruncate(int fd, off_t n) {
    struct slot *s = slot_of(fd, FILE_FD);
    if (!s || (size_t)n > s->file->len) return fails(EBADF);
    s->file->len = (size_t)n;
    return 0;
}

int seam_fallocate(int fd, int mode, off_t at, off_t n) {
    (void)mode, (void)at, (void)n;
    return slot_of(fd, FILE_FD) ? 0 : fails(EBADF);
}

int seam_rename(const char *from, const char *to) {
    struct file *f = file_find(from), *old = file_find(to);
    if (!f) return fails(ENOENT);
    if (seam.disk_error) return fails(seam.disk_error);
    if (old && old != f) file_forget(old);
    snprintf(f->name, sizeof f->name, "%s", to);
    return 0;
}

int seam_link(const char *from, const char *to) {
    struct file *f = file_find(from);
    if (!f || file_find(to)) return fails(f ? EEXIST : ENOENT);
    seam_put(to, f->data, f->len);
    return 0;
}

int seam_unlink(const char *path) {
    struct file *f = file_find(path);
    if (!f) return fails(ENOENT);
    file_forget(f);
    return 0;
}

int seam_access(const char *path, int mode) { return mode == F_OK && file_find(path) ? 0 : fails(ENOENT); }
int seam_sync(int fd) {
    if (fd < 3 || fd >= FDS || slots[fd].kind == FREE) return fails(EBADF);
    return seam.disk_error ? fails(seam.disk_error) : 0;
}

int seam_chdir(const char *path) { return strchr(path, 'x') ? fails(ENOENT) : 0; }
char *seam_getcwd(char *buf, size_t n) {
    snprintf(buf, n, "/");
    return buf;
}

char *seam_realpath(const char *path, char *resolved) {
    (void)resolved;
    return file_find(path) ? strdup(path) : (errno = ENOENT, NULL);
}

FILE *seam_fopen(const char *path, const char *mode) {
    struct file *f = *mode == 'r' ? file_find(path) : NULL;
    static char nowhere[64];
    if (*mode == 'a') /* what the server says */
        return getenv("SEAM_LOG") ? fopen("/dev/stderr", "a") : fmemopen(nowhere, sizeof nowhere, "w");
    errno = ENOENT;
    return f ? fmemopen(f->data, f->len, "r") : NULL;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static bool interrupted(void) { return seam.interrupt && ++calls % seam.interrupt == 0; }

static struct conn *conn_of(int conn) {
    if (conn < 0 || conn >= CONNS || !conns[conn].used) broken("no such connection");
    return &conns[conn];
}

static struct conn *conn_new(void) {
    for (int i = 0; i < CONNS; i++) {
        struct conn *c = &conns[i];
        if (c->used) continue;
        c->used = true;
        c->fd = -1;
        c->room = SIZE_MAX;
        return c;
    }
    return NULL;
}

int seam_connect(void) {
    struct conn *c = conn_new();
    if (!c) return -1;
    c->pending = true;
    return (int)(c - conns);
}

bool seam_open(int conn) { return conn_of(conn)->pending || conn_of(conn)->fd >= 0; }

void seam_send(int conn, const void *p, size_t n) {
    struct conn *c = conn_of(conn);
    if (!c->shut && !c->dropped) append(&c->in, &c->in_len, &c->in_cap, p, n);
}

void seam_shut(int conn) { conn_of(conn)->shut = true; }
void seam_drop(int conn) {
    conn_of(conn)->dropped = true;
    conn_of(conn)->pending = false;
}
void seam_room(int conn, size_t n) { conn_of(conn)->room = n; }

const char *seam_output(int conn, size_t *n) {
    struct conn *c = conn_of(conn);
    *n = c->out_len;
    c->out_len = 0;
    return c->out;
}

bool seam_idle(void) {
    for (int i = 0; i < CONNS; i++)
        if (conns[i].fd >= 0 && conns[i].used && (conns[i].in_at < conns[i].in_len || conns[i].pending)) return false;
    return true;
}

int seam_dialled(int nth) { return nth < ndialled ? (int)(dialled[nth] - conns) : -1; }

int seam_fd(int conn) { return conn_of(conn)->fd; }

ssize_t seam_recv(int fd, void *p, size_t n, int flags) {
    struct slot *s = slot_of(fd, STREAM);
    if (!s) return fails(EAGAIN);
    struct conn *c = s->conn;
    if (c->dropped) return fails(ECONNRESET);
    if (interrupted()) return fails(calls & 1 ? EINTR : EAGAIN);
    size_t have = c->in_len - c->in_at;
    if (!have) return c->shut ? 0 : fails(EAGAIN);
    if (n > have) n = have;
    if (n > seam.read_max) n = seam.read_max;
    memcpy(p, c->in + c->in_at, n);
    if (flags & MSG_PEEK) return (ssize_t)n;
    c->in_at += n;
    if (c->in_at == c->in_len) c->in_at = c->in_len = 0;
    return (ssize_t)n;
}

ssize_t seam_read(int fd, void *p, size_t n) { return seam_recv(fd, p, n, 0); }

ssize_t seam_write(int fd, const void *p, size_t n) {
    struct slot *s = slot_of(fd, STREAM);
    if (!s) return fails(EBADF);
    struct conn *c = s->conn;
    if (c->dropped) return fails(EPIPE);
    if (interrupted()) return fails(calls & 1 ? EINTR : EAGAIN);
    if (!c->room && n) return fails(EAGAIN);
    if (n > c->room) n = c->room;
    if (c->room != SIZE_MAX) c->room -= n;
    append(&c->out, &c->out_len, &c->out_cap, p, n);
    return (ssize_t)n;
}

ssize_t seam_writev(int fd, const struct iovec *iov, int n) {
    ssize_t all = 0;
    for (int i = 0; i < n; i++) {
        ssize_t put = seam_write(fd, iov[i].iov_base, iov[i].iov_len);
        if (put < 0 && !all) return -1;
        if (put > 0) all += put;
        if (put < (ssize_t)iov[i].iov_len) break;
    }
    return all;
}

ssize_t seam_sendfile(int to, int from, off_t *at, size_t n) {
    char buf[4096];
    ssize_t got = seam_pread(from, buf, n < sizeof buf ? n : sizeof buf, *at);
    ssize_t put = got > 0 ? seam_write(to, buf, (size_t)got) : got;
    if (put > 0) *at += put;
    return put;
}

int seam_socket(int domain, int type, int protocol) { return slot_new(domain && type ? SOCKET : (enum kind)protocol); }

static void name_peer(struct sockaddr *sa, socklen_t *n) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (*n < sizeof in) broken("an address does not fit");
    memcpy(sa, &in, sizeof in);
    *n = sizeof in;
}

static int stream_new(struct conn *c) {
    int fd = slot_new(STREAM);
    if (fd < 0) return -1;
    slots[fd].conn = c;
    c->fd = fd;
    c->pending = false;
    return fd;
}

int seam_accept4(int fd, struct sockaddr *sa, socklen_t *n, int flags) {
    if (!slot_of(fd, SOCKET) || !(flags & SOCK_NONBLOCK)) return fails(EBADF);
    if (interrupted()) return fails(EINTR);
    for (int i = 0; i < CONNS; i++) {
        if (!conns[i].used || !conns[i].pending) continue;
        if (sa) name_peer(sa, n);
        return stream_new(&conns[i]);
    }
    return fails(EAGAIN);
}

int seam_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
    static struct sockaddr_in in;
    static struct addrinfo one = {.ai_family = AF_INET, .ai_addr = (struct sockaddr *)&in, .ai_addrlen = sizeof in};
    one.ai_socktype = hints->ai_socktype;
    in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (host && strchr(host, '!')) return EAI_NONAME;
    *found = &one;
    return 0;
}

int seam_dial(int fd, const struct sockaddr *sa, socklen_t n) {
    struct slot *s = slot_of(fd, SOCKET);
    struct conn *c = s && sa && n && ndialled < CONNS ? conn_new() : NULL;
    if (!c) return fails(ECONNREFUSED);
    bool watched = s->watched;
    struct epoll_event ev = s->ev;
    *s = (struct slot){.kind = STREAM, .conn = c, .watched = watched, .ev = ev};
    c->fd = fd;
    dialled[ndialled++] = c;
    return fails(EINPROGRESS);
}

int seam_getsockopt(int fd, int level, int name, void *value, socklen_t *n) {
    struct slot *s = slot_of(fd, STREAM);
    if (!s) return fails(EBADF);
    if (level == SOL_SOCKET && name == SO_ERROR) *(int *)value = s->conn->dropped ? ECONNREFUSED : 0;
    else memset(value, 0, *n);
    return 0;
}

int seam_name(int fd, struct sockaddr *sa, socklen_t *n) {
    if (!slot_of(fd, STREAM)) return fails(EBADF);
    name_peer(sa, n);
    return 0;
}

/* ---- the helper thread ----------------------------------------------------------------------- */

static void helper_run(void) {
    if (!helper || !helper_due || helper_runs) return;
    helper_due = false;
    helper_runs = true;
    if (!setjmp(helper_sleeps)) helper(helper_arg);
    helper_runs = false;
}

int seam_thread_create(void *(*run)(void *), void *arg) {
    helper = run;
    helper_arg = arg;
    return 0;
}

int seam_thread_join(void) {
    helper_due = true;
    helper_run();
    return 0;
}

int seam_thread_wake(void) {
    helper_due = true;
    return 0;
}

int seam_thread_sleep(void) { longjmp(helper_sleeps, 1); }

/* ---- waiting --------------------------------------------------------------------------------- */

int seam_epoll_create1(int flags) { return slot_new(flags ? EPOLL : FREE); }
int seam_eventfd(unsigned first, int flags) { return slot_new(flags && !first ? COUNTER : FREE); }

int seam_epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev) {
    if (!slot_of(epoll, EPOLL) || fd < 0 || fd >= FDS || slots[fd].kind == FREE) return fails(EBADF);
    if (slots[fd].watched == (op == EPOLL_CTL_ADD)) return fails(op == EPOLL_CTL_ADD ? EEXIST : ENOENT);
    slots[fd].watched = op != EPOLL_CTL_DEL;
    if (ev) slots[fd].ev = *ev;
    return 0;
}

static bool connection_waits(void) {
    for (int i = 0; i < CONNS; i++)
        if (conns[i].used && conns[i].pending) return true;
    return false;
}

static uint32_t ready(const struct slot *s) {
    const struct conn *c = s->conn;
    uint32_t now = 0;
    if (s->kind == COUNTER && s->count) now |= EPOLLIN;
    if (s->kind == SOCKET && connection_waits()) now |= EPOLLIN;
    if (s->kind != STREAM) return now & s->ev.events;
    if (c->in_at < c->in_len || c->shut) now |= EPOLLIN;
    if (c->shut) now |= EPOLLRDHUP;
    if (c->room) now |= EPOLLOUT;
    return c->dropped ? EPOLLIN | EPOLLHUP | EPOLLERR : now & s->ev.events;
}

int seam_epoll_wait(int epoll, struct epoll_event *ev, int max, int wait_ms) {
    int n = 0;
    if (!slot_of(epoll, EPOLL)) return fails(EBADF);
    if (!seam.disk_slow) helper_run();
    for (int fd = 3; fd < fd_end && n < max; fd++) {
        const struct slot *s = &slots[fd];
        uint32_t events = s->watched && s->kind != FREE ? ready(s) : 0;
        if (!events) continue;
        ev[n] = s->ev;
        ev[n++].events = events;
    }
    if (!n) seam.wall_ns += (int64_t)wait_ms * 1000000, seam.steady_ns += (int64_t)wait_ms * 1000000;
    return n;
}

int seam_eventfd_write(int fd, eventfd_t v) {
    struct slot *s = slot_of(fd, COUNTER);
    if (!s) return fails(EBADF);
    s->count += v;
    return 0;
}

int seam_eventfd_read(int fd, eventfd_t *v) {
    struct slot *s = slot_of(fd, COUNTER);
    if (!s || !s->count) return fails(EAGAIN);
    *v = s->count;
    s->count = 0;
    return 0;
}

int seam_poll(struct pollfd *p, nfds_t n, int wait_ms) {
    helper_run();
    struct slot *s = n == 1 ? slot_of(p->fd, COUNTER) : NULL;
    if (!s) seam.wall_ns += (int64_t)wait_ms * 1000000, seam.steady_ns += (int64_t)wait_ms * 1000000;
    if (s && !s->count && wait_ms < 0) broken("the loop waits for the helper thread, which has nothing to do");
    return 1;
}

/* ---- the clock and the rest ------------------------------------------------------------------ */

/* Each look takes time, so that a loop with a time limit ends. */
int seam_clock_gettime(clockid_t id, struct timespec *ts) {
    int64_t ns = id == CLOCK_REALTIME ? (seam.wall_ns += 1000) : (seam.steady_ns += 50000);
    ts->tv_sec = ns / 1000000000;
    ts->tv_nsec = ns % 1000000000;
    return 0;
}

time_t seam_time(time_t *t) {
    if (t) broken("time() stores its result");
    return seam.wall_ns / 1000000000;
}

int seam_usleep(useconds_t us) {
    seam.wall_ns += (int64_t)us * 1000;
    seam.steady_ns += (int64_t)us * 1000;
    return 0;
}

ssize_t seam_getrandom(void *p, size_t n, unsigned flags) {
    for (size_t i = 0; i < n; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u + flags;
        ((unsigned char *)p)[i] = (unsigned char)(random_state >> 56);
    }
    return (ssize_t)n;
}

void seam_exit(int status) {
    if (seam.on_exit) seam.on_exit();
    fprintf(stderr, "seam: exit(%d)\n", status);
    abort();
}

void seam_reset(void) {
    for (int i = 0; i < FILES; i++) {
        free(files[i].data);
        files[i] = (struct file){0};
    }
    for (int i = 0; i < CONNS && conns[i].used; i++) { /* they are taken from the front */
        if (conns[i].fd >= 0) slots[conns[i].fd] = (struct slot){0};
        free(conns[i].in);
        free(conns[i].out);
        conns[i] = (struct conn){0};
    }
    for (int fd = 3; fd < fd_end; fd++)
        if (slots[fd].kind == FILE_FD) slots[fd] = (struct slot){0};
    seam =
        (struct seam){.wall_ns = SEAM_START_MS * 1000000, .read_max = SIZE_MAX, .disk_room = SIZE_MAX, .window = 256};
    seam.steady_ns = 1000000000;
    ndialled = 0;
    calls = 0;
    random_state = 1;
}
