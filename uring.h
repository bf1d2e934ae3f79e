/* uring.h - many sockets' reads, or writes, in one system call. */
#ifndef URING_H
#define URING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define URING_MAX 64

struct uring_io {
    int fd; /* a socket that does not block */
    void *p;
    size_t n;
    ssize_t result; /* bytes; 0: the end; -errno */
};

bool uring_start(void); /* false: the kernel, or a sandbox, does not let us: plain read() and write() from now on */
/* What is read and written here is opened before, and closed here. */
void uring_open(int fd);
void uring_close(int fd);
/* Reads, or writes, all of these; at most URING_MAX. */
void uring_read(struct uring_io *ios, size_t n);
void uring_write(struct uring_io *ios, size_t n);

#endif
