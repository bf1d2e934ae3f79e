/* uring.c - many sockets' reads, or writes, in one system call, by io_uring.
 *
 * Without pipelining most of what a command costs is the way into the kernel and back, once for its read and once for
 * its write. A turn of the reactor has many of either at hand. Here they are written down in a ring that the kernel
 * shares with us, and handed over together; what became of each is found in a second ring. Readiness is epoll's all
 * the same, so nothing ever waits: each operation is over when the call returns.
 *
 * Invariant: between calls both rings are empty. Completions may come in any order: user_data says whose they are.
 * A kernel that lets go of registered files at once is told of each socket, and need not look it up for each operation:
 * 1.5 % of what a GET costs. An older one would hold what is closed for up to a second more.
 *
 * Left out: liburing, registered buffers, polling threads, and everything that waits in the ring.
 * The rings' layout is that of io_uring(7).
 */
#include "uring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES       10240      /* sockets beyond are looked up: with so many, it is not this that costs */
#define FILES_LEAVE (1u << 16) /* the first feature that came after it, with Linux 6.14: IORING_FEAT_RW_ATTR */

static struct {
    int fd;    /* -1: plain calls */
    int files; /* descriptors below are registered while they are open; 0: none */
    _Atomic unsigned *sq_tail, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring = {.fd = -1};

static void *map(size_t bytes, int fd, off_t at) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);
    return p == MAP_FAILED ? NULL : p;
}

bool uring_start(void) {
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN};
    int fd = (int)syscall(__NR_io_uring_setup, URING_MAX, &p);
    if (fd < 0) return false;
    size_t sq_bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    /* Kernels that know these flags map both rings as one (IORING_FEAT_SINGLE_MMAP). */
    char *rings = map(cq_bytes > sq_bytes ? cq_bytes : sq_bytes, fd, IORING_OFF_SQ_RING);
    ring.sqes = map(p.sq_entries * sizeof *ring.sqes, fd, IORING_OFF_SQES);
    if (!rings || !ring.sqes) { /* what was mapped stays: it is a page or two, once */
        close(fd);
        return false;
    }
    ring.sq_tail = (_Atomic unsigned *)(void *)(rings + p.sq_off.tail);
    ring.cq_head = (_Atomic unsigned *)(void *)(rings + p.cq_off.head);
    ring.cq_tail = (_Atomic unsigned *)(void *)(rings + p.cq_off.tail);
    ring.sq_mask = p.sq_entries - 1;
    ring.cq_mask = p.cq_entries - 1;
    ring.cqes = (struct io_uring_cqe *)(void *)(rings + p.cq_off.cqes);
    unsigned *order = (unsigned *)(void *)(rings + p.sq_off.array);
    for (unsigned i = 0; i < p.sq_entries; i++) order[i] = i; /* entries are taken as they stand */
    ring.fd = fd;
    struct io_uring_rsrc_register files = {.nr = FILES, .flags = IORING_RSRC_REGISTER_SPARSE};
    bool leave = p.features & FILES_LEAVE;
    if (leave && !syscall(__NR_io_uring_register, fd, IORING_REGISTER_FILES2, &files, sizeof files)) ring.files = FILES;
    return true;
}

/* The kernel's file number fd is this one, or (-1) none any more. If it has no memory, operations on it fail. */
static void set_file(int fd, int32_t file) {
    struct io_uring_files_update u = {.offset = (unsigned)fd, .fds = (uintptr_t)&file};
    if (fd < ring.files) syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_FILES_UPDATE, &u, 1);
}

void uring_open(int fd) { set_file(fd, fd); }

void uring_close(int fd) {
    set_file(fd, -1);
    close(fd);
}

static void together(struct uring_io *ios, size_t n, bool out) {
    unsigned tail = atomic_load_explicit(ring.sq_tail, memory_order_relaxed);
    unsigned head = atomic_load_explicit(ring.cq_head, memory_order_relaxed);
    for (size_t i = 0; i < n; i++) {
        struct io_uring_sqe *e = &ring.sqes[tail++ & ring.sq_mask];
        *e = (struct io_uring_sqe){.opcode = out ? IORING_OP_SEND : IORING_OP_RECV, .fd = ios[i].fd, .user_data = i};
        e->addr = (uintptr_t)ios[i].p;
        e->len = (unsigned)(ios[i].n < 1u << 30 ? ios[i].n : 1u << 30);
        e->flags = ios[i].fd < ring.files ? IOSQE_FIXED_FILE : 0;
        e->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
        ios[i].result = -EAGAIN;
    }
    atomic_store_explicit(ring.sq_tail, tail, memory_order_release);
    for (size_t submitted = 0, over = 0; over < n;) {
        long took = syscall(__NR_io_uring_enter, ring.fd, n - submitted, n - over, IORING_ENTER_GETEVENTS, NULL, 0);
        if (took > 0) submitted += (size_t)took;
        unsigned end = atomic_load_explicit(ring.cq_tail, memory_order_acquire);
        for (; head != end; head++, over++) { /* these are over: out of the ring */
            const struct io_uring_cqe *c = &ring.cqes[head & ring.cq_mask];
            ios[c->user_data].result = c->res;
        }
        atomic_store_explicit(ring.cq_head, head, memory_order_release);
    }
}

static void run(struct uring_io *ios, size_t n, bool out) {
    bool ring_takes = n > 1 && ring.fd >= 0;
    if (ring_takes) together(ios, n, out);
    for (struct uring_io *io = ios; !ring_takes && io < ios + n; io++) {
        io->result = out ? send(io->fd, io->p, io->n, MSG_NOSIGNAL) : recv(io->fd, io->p, io->n, 0);
        if (io->result < 0) io->result = -errno;
    }
}

void uring_read(struct uring_io *ios, size_t n) { run(ios, n, false); }
void uring_write(struct uring_io *ios, size_t n) { run(ios, n, true); }
