/* persist.h - the log and the snapshot: what makes the keyspace outlive the process.
 *
 * Knows nothing of replicas or clients. See the head of persist.c for the formats and the invariants.
 */
#ifndef PERSIST_H
#define PERSIST_H

#include "rdb.h"

/* ---- boot ------------------------------------------------------------------------------------ */

enum log_level { LOG_DEBUG, LOG_VERBOSE, LOG_NOTICE, LOG_WARNING };
enum log_fsync { LOG_FSYNC_EVERYSEC, LOG_FSYNC_ALWAYS, LOG_FSYNC_NO };

/* What persist and repl need from above, as functions: they call nobody there by name. */
struct hooks {
    /* Runs one replayed command against database *db (SELECT changes *db). False: it cannot be run; *why is
     * the reason. */
    bool (*apply)(int *db, struct arg *argv, int argc, const char **why);
    /* One line of the server's log; level as in enum log_level. */
    void (*say)(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
    void (*watch)(int fd, bool output); /* the link to a leader, for input, or for output; closing it ends that */
    bool (*breathe)(void); /* now and then during a long load: a turn of the reactor. False: the server stops */
};

/* Values are read where they are used, so that CONFIG SET takes effect: the struct is the caller's and
 * outlives us. */
struct persist_options {
    char *rdb_path, *aof_path; /* relative to the working directory, which is --dir */
    bool log_on;               /* appendonly */
    enum log_fsync fsync;
    bool truncate_tail;     /* aof-load-truncated */
    int64_t backlog;        /* repl-backlog-size: bytes of the log to keep at least */
    int rewrite_percentage; /* auto-aof-rewrite-percentage */
    int64_t rewrite_min;    /* auto-aof-rewrite-min-size */
};

/* Loads the snapshot, applies the log from its offset, opens the log for writing, starts the helper thread.
 * 0, or -1 after say() told what is wrong. */
int persist_start(const struct persist_options *options, const struct hooks *hooks);

/* ---- the log --------------------------------------------------------------------------------- */

/* Appends one command as RESP to the one log, after a SELECT where db is not the one of the command before.
 * Between log_begin() and log_commit() the commands stand in one MULTI ... EXEC (left out where there is but
 * one). False: one has begun already, and is another's to commit. */
void log_append(int db, const struct arg *argv, int argc);
bool log_begin(void);
void log_commit(void);

/* Offsets count the log's bytes since the beginning of its history: base <= synced <= written <= end. */
uint64_t log_base(void);                       /* the oldest byte that can still be read */
uint64_t log_end(void);                        /* behind the last byte appended */
uint64_t log_written(void);                    /* handed to the kernel up to here */
uint64_t log_synced(void);                     /* on the disk up to here */
uint64_t log_safe(void);                       /* up to here replies may leave: synced under always, else written */
const char *log_id(void);                      /* the replication id, 40 hex digits */
const char *log_id2(void);                     /* the earlier life's id, honoured up to ... */
uint64_t log_id2_end(void);                    /* ... this offset */
bool log_had(const char *id, uint64_t offset); /* under this id, which may be an earlier one; it can go on from there */
void log_make_id(char id[41]);                 /* 40 hex digits that nobody else has */
void log_new_id(void);                         /* DEBUG CHANGE-REPL-ID: a new id, the old one becomes the second */

/* The end of a turn, before any reply leaves: hands the new bytes to the kernel and asks the helper for a
 * sync as the policy says. */
void log_flush(void);
/* The reason why changes must be refused (-MISCONF), NULL while all is well. */
const char *log_error(void);

/* ---- the log as a leader's followers read it --------------------------------------------------- */

/* From now on somebody may: without a file, backlog bytes are kept in memory. */
void log_serve(void);
/* Sends a socket at most n bytes from offset on, no further than log_written(). Returns how many went (0: offset is the
 * end), -1 with errno: EAGAIN, ERANGE (they are no longer, or not yet, there), or the socket's. */
int64_t log_send(int socket, uint64_t offset, size_t n);
bool log_in_file(void);        /* false: in memory alone */
void log_pin(uint64_t offset); /* followers still need the bytes from here on; UINT64_MAX: none does */
/* For followers' ears, as it changes nothing: a command (PUBLISH, REPLCONF GETACK); a checksum, which they take for a
 * PING. On a follower, and where nobody follows, nothing. */
void log_remark(const struct arg *argv, int argc);
void log_ping(void);

/* ---- the log of a follower: its leader's bytes, at the leader's offsets ------------------------- */

void log_follow(void);  /* from here on nothing is appended but by log_relay() */
void log_promote(void); /* ... until here: a new id, the old one becomes the second */
bool log_following(void);
void persist_flushed(void);        /* all keys are gone: where snapshots are all there is, one is to say so soon */
void log_stray(void);              /* a client of a follower's own has changed something */
const char *log_known_id(void);    /* the id to ask a leader with for what follows log_end() */
void log_continue(const char *id); /* the leader goes on from log_end(), under this id */
/* A command of the leader's has been run (one in a transaction: kept for it), and left its reader in db. Its bytes
 * follow; those of a transaction with its EXEC. False: a checksum that does not fit. */
bool log_relay(const struct arg *argv, int argc, int db);
void log_relay_abort(void); /* the transaction that has begun will not be ended */
int log_db(void);           /* the database that the log's reader stands in at the end */
/* What is written and synced is over, and nothing begins, no snapshot either; false: not yet. Ends with log_adopt() or
 * persist_quiesce(false). */
bool persist_quiesce(bool on);
/* The databases have just become another history's state, that of id at offset, where its reader stands in db. The
 * log goes on there; the files follow with the next snapshot, until then those of before stand for a start. */
void log_adopt(const char *id, uint64_t offset, int db);

/* ---- the snapshot ---------------------------------------------------------------------------- */

/* BGSAVE; rewrite: BGREWRITEAOF, which is the same but for INFO. 0, or -1 with errno; EBUSY: one is running. */
int snap_begin(bool rewrite);
bool snap_running(void);
bool snap_ok(void);  /* the last one did not fail */
int snap_save(void); /* SAVE: the same walk in one go, written, synced, renamed; -1: say() told why */
void snap_cancel(void);
bool snap_there(void); /* one that the log goes on from */
/* The newest of those: a descriptor, the caller's, of the whole file. -1: there is none. */
int snap_open(uint64_t *offset, uint64_t *size);
uint64_t snap_begun(void); /* the offset of the one that runs; UINT64_MAX: none does */

/* ---- the turn -------------------------------------------------------------------------------- */

/* Once a turn: a slice of the running snapshot's walk, about so long. True: there is more to do at once. */
bool persist_tick(int64_t budget_us);
/* Ten times a second: everysec's sync, save points, rewrite by growth. save_points: "seconds changes ..."
 * pairs. */
void persist_cron(int64_t now_ms, const char *save_points);
/* A clean end: all is written and synced; save: a snapshot as well (not while quiescent). -1: it could not be kept. */
int persist_stop(bool save);

/* DEBUG RELOAD and LOADAOF: empties all databases and loads what is on the disk, a fresh snapshot if save is set.
 * The clock is for the caller to set again. -1: say() told why; the databases may be empty. */
int persist_reload(bool save);

/* ---- for INFO, LASTSAVE and the like --------------------------------------------------------- */

struct persist_info {
    bool loading;
    uint64_t load_total, load_done;
    uint64_t changes_since_save;
    bool save_ok, rewrite_ok, rewrite_running;
    int64_t last_save_s;                  /* seconds since 1970 */
    int64_t save_seconds, save_started_s; /* the last one's duration, -1: none; the latest one's start */
    int64_t rewrite_seconds;
    uint64_t log_size, log_base_size, delayed_syncs;
} persist_info(void);

#endif
