/* disk.c - files that last, and the thread that waits for them.
 *
 * What persist.c does to files goes through here: whole writes, names that only appear when the bytes are on the disk,
 * and a helper thread that takes one job after the other, so that the loop never waits for a sync. Invariant: a job
 * belongs to the helper from disk_post() until its done() is called on the loop; nothing else is shared but the two
 * lists, under a lock.
 */
#include "disk.h"

#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* ==== files =============================================================================================== */

int disk_write_at(int fd, const char *p, size_t n, uint64_t at) {
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, p + done, n - done, (off_t)(at + done));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        done += (size_t)put;
    }
    return 0;
}

ssize_t disk_read_at(int fd, char *p, size_t n, uint64_t at) {
    size_t have = 0;
    while (have < n) {
        ssize_t got = pread(fd, p + have, n - have, (off_t)(at + have));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

int disk_copy(int from, uint64_t src, int to, uint64_t dst, uint64_t n) {
    static _Thread_local char buf[64 << 10];
    for (uint64_t done = 0; done < n;) {
        ssize_t got = disk_read_at(from, buf, n - done < sizeof buf ? n - done : sizeof buf, src + done);
        if (got == 0) errno = EIO;
        if (got <= 0 || disk_write_at(to, buf, (size_t)got, dst + done) < 0) return -1;
        done += (uint64_t)got;
    }
    return 0;
}

uint64_t disk_zero_sector(int fd, uint64_t from, uint64_t to) {
    static const char zero[512];
    char sector[512];
    for (uint64_t at = (from + 511) & ~(uint64_t)511; at + 512 <= to; at += 512)
        if (disk_read_at(fd, sector, 512, at) == 512 && !memcmp(sector, zero, 512)) return at;
    return 0;
}

int disk_sync_folder(const char *path) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = fd < 0 ? -1 : fsync(fd), error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return result;
}

/* A whole file gets its name: its bytes first, then the name, then the folder. */
int disk_publish(int fd, const char *temp, const char *path) {
    return fsync(fd) < 0 || rename(temp, path) < 0 || disk_sync_folder(path) < 0 ? -1 : 0;
}

/* ==== the helper thread =================================================================================== */

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *todo, *finished; /* in order */
    int news;                    /* eventfd */
} helper = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .news = -1};

static void job_insert(struct job **at, struct job *j, bool first) {
    pthread_mutex_lock(&helper.lock);
    while (!first && *at) at = &(*at)->next;
    j->next = *at;
    *at = j;
    pthread_mutex_unlock(&helper.lock);
}

/* The next job, as soon as there is one. */
static struct job *job_take(void) {
    pthread_mutex_lock(&helper.lock);
    while (!helper.todo) pthread_cond_wait(&helper.wake, &helper.lock);
    struct job *j = helper.todo;
    helper.todo = j->next;
    pthread_mutex_unlock(&helper.lock);
    return j;
}

static void *helper_main(void *unused) {
    struct job *j;
    setpriority(PRIO_PROCESS, 0, 5); /* this thread: where both have but one core, the loop goes first */
    while ((j = job_take())->work) {
        j->work(j);
        job_insert(&helper.finished, j, false);
        if (eventfd_write(helper.news, 1) < 0) abort();
    }
    free(j);
    return unused;
}

/* urgent: before all that waits. */
void disk_post(struct job job, bool urgent) {
    struct job *j = resp_need(malloc(sizeof *j));
    *j = job;
    job_insert(&helper.todo, j, urgent);
    pthread_cond_signal(&helper.wake);
}

int disk_start(void) {
    helper.news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (helper.news < 0) return -1;
    errno = pthread_create(&helper.thread, NULL, helper_main, NULL);
    return errno ? -1 : 0;
}

int disk_fd(void) { return helper.news; }

void disk_news(void) {
    eventfd_t count;
    if (eventfd_read(helper.news, &count) < 0) return;
    pthread_mutex_lock(&helper.lock);
    struct job *j = helper.finished, *next;
    helper.finished = NULL;
    pthread_mutex_unlock(&helper.lock);
    for (; j; j = next) {
        next = j->next;
        if (j->done) j->done(j);
        free(j);
    }
}

void disk_wait(void) {
    poll(&(struct pollfd){.fd = helper.news, .events = POLLIN}, 1, -1);
    disk_news();
}

static void close_work(struct job *j) { close(j->fd); }
void disk_close_later(int *fd) {
    if (*fd >= 0) disk_post((struct job){.work = close_work, .fd = *fd}, false);
    *fd = -1;
}

void disk_stop(void) {
    disk_post((struct job){.work = NULL}, false); /* ends the thread */
    pthread_join(helper.thread, NULL);
}
