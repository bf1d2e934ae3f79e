/* disk.h - files that last, and the thread that waits for them. Functions that return int: 0, or -1 with errno. */
#ifndef DISK_H
#define DISK_H

#include "resp.h"

int disk_write_at(int fd, const char *p, size_t n, uint64_t at); /* all of it */
ssize_t disk_read_at(int fd, char *p, size_t n, uint64_t at);    /* how much there is, up to n; -1: errno */
int disk_copy(int from, uint64_t src, int to, uint64_t dst, uint64_t n);
/* Where in [from, to) a whole sector of zeros stands, as a power cut leaves what was not written yet; 0: nowhere. */
uint64_t disk_zero_sector(int fd, uint64_t from, uint64_t to);
int disk_sync_folder(const char *path);                       /* what makes the name last */
int disk_publish(int fd, const char *temp, const char *path); /* the file gets its name when it is whole, for good */
void disk_close_later(int *fd); /* there, as closing a large file may take long; *fd becomes -1 */

/* Work for the helper thread. Which fields mean what is between work() and done(). */
struct job {
    struct job *next;
    void (*work)(struct job *); /* there; NULL: the last one, disk_stop()'s */
    void (*done)(struct job *); /* then here; may be NULL */
    int fd, to_fd, error;
    bool flag;
    uint64_t from, to, base;
    struct resp_out out; /* a chunk of a snapshot: these bytes, then the blob's */
    struct blob *blob;
    size_t blob_n;
};

void disk_post(struct job job, bool urgent);
int disk_start(void);
void disk_stop(void); /* after all that was posted */
void disk_wait(void); /* until some job is done */
int disk_fd(void);    /* readable when there is news; -1: not started */
void disk_news(void); /* calls done() of the finished ones */

#endif
