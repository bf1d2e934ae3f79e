/* persist.c - the log, the snapshot, and how a start finds its way back to the data.
 *
 * There is one log: every change, as the RESP command that repeats it, appended once. A byte's position in it
 * since the history began is its offset; replication, snapshots and WAIT count in nothing else. A snapshot is
 * the state after exactly so many bytes of the log. So there is one way to any state, at a start, after a
 * crash, on a new follower: load the snapshot, then apply the log from the snapshot's offset.
 *
 *      log_append()          log_flush(), each turn         the helper thread
 *      ------------> buffer ------------------------> file ------------------> disk
 *      [at ............ end)                      written                  synced
 *
 * ---- The files ------------------------------------------------------------------------------------------
 *
 * database_<port>.aof, the log:
 *
 *      byte 0     a header line   "#EchoVault-log 1 gen=G base=B id=I foreign=F history=H past=J:E ... sum=S",
 *           512   a header line   spaces, a newline; 512 bytes each. The valid one with the higher gen is in force.
 *           1024  the log's bytes from offset B on, up to the file's end
 *
 *   I is the replication id, 40 hex digits; J are ids of earlier lives, at most four, the latest first, each honoured
 * up to its offset E; the bytes below F came from a leader (all, while it is followed: F is 2^64-1); H names the
 * history: a snapshot that names another does not go with this log. S is the CRC-64 of what stands before it in the
 * line, 16 hex digits. New ids go into the line that is not in force, so a write that is torn leaves the other. Lines
 * that begin with '#' are annotations to every reader of AOF files.
 *
 *   The log's bytes are commands, MULTI and EXEC around those of one transaction, SELECT where the database
 *   changes, and checksum records, which every replica takes for a PING:
 *
 *      *2\r\n$4\r\nPING\r\n$<n>\r\n<sum>,<covers>,<unsynced>\r\n      hex; sum has 16 digits, see struct sum
 *
 *   sum is that of the <covers> bytes before the record, which begin with the record before it: a chain. The
 *   record's own offset less <unsynced> was on the disk for certain when the record was made. A leader's record says
 *   nothing of its follower's disk.
 *
 * database_<port>.rdb, the snapshot: an RDB file (rdb.c). Its AUX field repl-offset is its offset, repl-id the
 * id then, echovault-history the history, echovault-replaces that of a log which it puts an end to. One of
 * redis-server's that says no offset counts as offset 1.
 *
 * Beside them: <file>.tmp while it is made; .aof.cut-<byte>-<time>, a torn end; .aof.old-<time> and
 * .aof.imported-<time>, a log that no longer counts. Nothing is deleted because it could not be read.
 *
 * ---- Invariants -----------------------------------------------------------------------------------------
 *
 *   1. base <= synced <= written <= end, as long as there is a file. Bytes below end never change.
 *   2. end falls between commands, and outside transactions. Records stand outside transactions. A follower
 *      appends its leader's bytes and nothing else, so that offsets mean the same everywhere; 3 is the leader's.
 *   3. Behind every flush fewer than RECORD_EVERY bytes stand behind the last record; before every sync none.
 *      So what was acknowledged and is not covered is shorter than a sector, and what was synced is covered.
 *   4. A snapshot's file holds exactly the state at its offset; the next command appended says its SELECT, or (a
 *      follower's) repl-stream-db says where its reader stands.
 *   5. No snapshot has offset 0, but a follower's whose leader was there: a log with base 0 is whole without one.
 *   6. A file gets its name when all its bytes are on the disk, and the file that it replaces is needed no
 *      more: disk_publish(), copy_done().
 *   7. After a failed sync nothing that the old file holds is ever taken as synced.
 *   8. The helper thread (disk.c) touches a job between disk_post() and done(), and `file`; nothing else is shared.
 *
 * ---- States ---------------------------------------------------------------------------------------------
 *
 * The log, by lg.fd and lg.trouble:
 *
 *      no file  -- a snapshot, then a file that begins at its offset -->  FINE
 *      FINE     -- appendonly no -->                                      no file
 *      FINE     -- a write finds no room -->                              FULL
 *      FULL     -- the same write finds room -->                          FINE
 *      any      -- a write, a sync or a header fails, or no file -->      BROKEN
 *      BROKEN   -- a snapshot, then a file that begins at its offset -->  FINE
 *      any      -- a full resync (log_adopt) -->                          no file
 *      no file  -- the snapshot or the file cannot be made -->            BROKEN
 *
 *   FULL and BROKEN refuse changes (log_error) and hold back the replies of those that were not yet safe. In
 *   FULL the bytes stay in the buffer and are written at the same place again. BROKEN cannot be mended in
 *   place: after a failed fsync the kernel calls pages clean that never reached the disk. So a snapshot is
 *   tried every 5 seconds, and the log goes on in a file that begins there.
 *
 * The snapshot: none -> walking (persist_tick; chunks go to the helper) -> walked (the helper writes the rest,
 *   syncs, renames) -> none. Then the log is trimmed: the helper copies all behind a later base to a new file,
 *   in slices, the last of them with syncs held back, so that the old file has nothing synced that the new one
 *   has not; then that takes the name and the place.
 *
 * ---- A start --------------------------------------------------------------------------------------------
 *
 *   The log is scanned before anything is applied. Where a command is cut off or malformed, a checksum does
 *   not fit, or in the uncovered end a sector of zeros stands (a power cut can leave a hole there), it ends:
 *   behind the last whole command or transaction, or behind the last good record if it was a checksum. If a
 *   later record says that bytes from there on had been synced, this is damage, and the start is refused.
 *   Otherwise it is a torn end: never acknowledged as synced, moved aside, and the log goes on from there.
 *
 *      snapshot, no log            it counts; a new log begins at its offset
 *      log, no snapshot            the log must begin at 0
 *      both                        of one history, the log must begin at or before the snapshot's offset; one
 *                                  that ends before it, or that it replaces, is set aside: the snapshot reached
 *                                  the disk first
 *      a plain AOF of redis-server becomes a snapshot
 *      nothing of ours             appendonly.aof becomes the log, or dump.rdb the snapshot
 *
 *   A crash at any point between writing a snapshot, naming it, writing a trimmed log and naming that leaves
 *   one of these pairs, all of which lead to the same state. Each start takes a new id and honours the old one
 *   up to the recovered end, so that a follower that knows more than the disk kept is told to begin anew.
 *
 * appendfsync no means that nobody waits; the helper syncs every 30 seconds all the same, so that records can
 * tell damage from a torn end.
 *
 * Left out: compression of the snapshot, several log files, checksums in a log whose bytes are redis-server's (what
 * a power cut has left of its end counts if it looks like commands).
 */
#include "persist.h"
#include "disk.h"
#include "logfile.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_EVERY 512u         /* a turn that leaves so many bytes uncovered ends in a checksum */
#define MARK_EVERY   (64u << 10)  /* how far apart the places are where a trimmed log may begin */
#define KEEP_BUFFER  (4u << 20)   /* the log's buffer is given back when it has grown beyond */
#define TAIL         (256u << 10) /* of what is written, for followers: kept in the buffer, cut at four times as much */
#define CHUNK        (64u << 10)  /* bytes of a snapshot that go to the helper at once */
#define CHUNKS_AHEAD (512u << 10) /* the walk pauses while so many wait for the disk */
#define SYNC_EVERY   (8u << 20)   /* of a file in the making, so that its last sync is short */
#define ROOM_FROM    (1u << 20)   /* bytes a second, from which on the file gets blocks before they are written */
#define ROOM_MAX     (128u << 20) /* and at most so many */
#define BATCH        16           /* commands whose keys are prefetched together in replay */
#define PATH_LEN     512
#define ALL          UINT64_MAX /* header.foreign of a follower */

static const struct persist_options *opt;
static const struct hooks *hooks;
static struct persist_info info;
static char aof_path[PATH_LEN], rdb_path[PATH_LEN], aof_temp[PATH_LEN], rdb_temp[PATH_LEN];

static int64_t clock_us(void) { return store_clock_ns(CLOCK_MONOTONIC) / 1000; }

/* ==== the log: state ====================================================================================== */

enum trouble { FINE, FULL, BROKEN };

static struct {
    int fd;            /* the file; -1: none */
    bool live;         /* somebody wants the bytes: a file, or followers */
    bool keep;         /* followers do, or a leader's are being kept */
    uint64_t pin;      /* no byte from here on may go, for followers */
    bool parked;       /* persist_quiesce() */
    char replaces[41]; /* the history of a file at aof_path that is none of ours; "": that is not so */
    bool lost;         /* changes were made while nobody did */
    uint64_t strayed;  /* store_stats.changes, when a follower's own client last changed what its leader did not */
    struct header h;   /* as in force */
    uint64_t synced, written;
    uint64_t room; /* up to there the file has blocks on the disk already; 0: nobody has asked for any */
    uint64_t at;   /* out holds the bytes [at, at + out.len) */
    struct resp_out out;
    int db;                     /* that the log's reader stands in */
    bool select;                /* say it before the next command all the same */
    struct resp_out relay;      /* a leader's transaction, up to its EXEC */
    int tx;                     /* commands in the open transaction; -1: none is open */
    size_t tx_at;               /* where in out its first one begins */
    struct sum sum;             /* of what stands behind the last checksum record, and of that */
    uint64_t settled;           /* the end that the start found */
    uint64_t data_end, claimed; /* data_end: behind what is no record; claimed: said to be synced */
    uint64_t *marks;            /* where records begin, MARK_EVERY apart or more */
    size_t nmarks, marks_cap;
    enum trouble trouble;
    char reason[160];
    bool syncing;
    uint64_t batch;       /* bytes that the last sync covered */
    int64_t came_back_us; /* when it was over */
    int64_t patience_us;  /* how long the next one may wait for as many */
    int64_t synced_ms, snap_due_ms;
} lg = {.fd = -1, .select = true, .tx = -1, .pin = UINT64_MAX};

static struct {
    bool running, walked;
    bool wanted;  /* asked for inside a transaction: begins at its end */
    bool rewrite; /* asked for as BGREWRITEAOF, or by the log's growth */
    uint64_t offset, changes;
    size_t in_flight; /* bytes that the helper has not written yet */
    struct job chunk; /* being filled; base: the number of the snapshot */
    int db;
    int kept_fd; /* the newest one that a follower can begin with, and its offset; -1: none */
    uint64_t kept_offset;
    bool empty, kept_empty; /* the one that runs, and that one, have no keys */
} snap = {.kept_fd = -1};

/* The log file that will take the old one's place. */
static struct {
    int fd;
    bool busy, last;     /* the helper copies; that is the rest, and syncs of the old file wait */
    uint64_t base, done; /* it holds [base, done) */
    unsigned gen;        /* of its header line, ... */
    char id[41];         /* ... which names this one */
} next = {.fd = -1};

uint64_t log_base(void) { return lg.h.base; }
uint64_t log_end(void) { return lg.at + (lg.tx > 0 ? lg.tx_at : lg.out.len); }
uint64_t log_written(void) { return lg.fd >= 0 ? lg.written : log_end(); }
uint64_t log_synced(void) { return lg.synced; }
const char *log_id(void) { return lg.h.id; }
const char *log_id2(void) { return lg.h.past[0].id; }
uint64_t log_id2_end(void) { return lg.h.past[0].end; }
bool log_following(void) { return lg.h.foreign == ALL; }
int log_db(void) { return lg.db; }
const char *log_error(void) { return lg.trouble == FINE ? NULL : lg.reason; }

/* Under always, a file that is still to come has nothing synced. */
uint64_t log_safe(void) {
    bool always = opt->fsync == LOG_FSYNC_ALWAYS && (lg.fd >= 0 || opt->log_on);
    return lg.trouble == BROKEN || always ? lg.synced : log_written();
}

/* There should be a file, and none can be trusted: the next snapshot brings one. */
static bool file_wanted(void) { return opt->log_on && (lg.fd < 0 || lg.trouble == BROKEN); }

/* What a follower's own clients changed is not in the log of who leads now, before a snapshot has it. */
static bool strays(void) { return !log_following() && lg.strayed > info.changes_since_save; }

static void log_fails(enum trouble trouble, const char *what, int error) {
    if (trouble < lg.trouble) return;
    snprintf(lg.reason, sizeof lg.reason, "%s%s%s", what, error ? ": " : "", error ? strerror(error) : "");
    if (trouble > lg.trouble)
        hooks->say(LOG_WARNING, "The log %s: %s. Changes are refused until it can be kept again.", aof_path, lg.reason);
    lg.trouble = trouble;
}

static uint64_t file_pos(uint64_t offset, uint64_t base) { return HEADER + (offset - base); }

static void sum_to_end(void) {
    uint64_t summed = lg.sum.from + lg.sum.n;
    if (summed < log_end()) sum_add(&lg.sum, lg.out.buf + (summed - lg.at), log_end() - summed);
}

/* Forgets the buffer's bytes but the last keep. forget: nothing before them can be read any more. */
static void buffer_drop(size_t keep, bool forget) {
    sum_to_end();
    if (keep) memmove(lg.out.buf, lg.out.buf + lg.out.len - keep, keep);
    lg.at += lg.out.len - keep;
    lg.out.len = keep;
    if (forget) lg.h.base = lg.at;
    if (!keep && lg.out.cap > KEEP_BUFFER) resp_out_free(&lg.out);
}

/* ==== ids and the file's header =========================================================================== */

static void header_now(char out[SLOT + 1], uint64_t base, unsigned gen) {
    struct header h = lg.h;
    h.base = base;
    h.gen = gen;
    slot_format(out, &h);
}

/* Names the ids of now in the slot that is not in force, for good: rare enough to wait for. */
static int header_put(int fd, uint64_t base, unsigned gen) {
    char line[SLOT + 1];
    header_now(line, base, gen);
    return disk_write_at(fd, line, SLOT, gen % 2 * SLOT) < 0 || fdatasync(fd) < 0 ? -1 : 0;
}

/* A line that could not be written is the next time's again: the other one is whole. */
static int header_update(void) {
    int result = header_put(lg.fd, lg.h.base, lg.h.gen + 1);
    lg.h.gen += result == 0;
    return result;
}

/* A new log file, under its temporary name. */
static int log_create(uint64_t base) {
    char lines[HEADER + 1];
    header_now(lines, base, 2);
    header_now(lines + SLOT, base, 1);
    memcpy(next.id, lg.h.id, sizeof next.id);
    next.gen = 2;
    next.base = next.done = base;
    int fd = open(aof_temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && disk_write_at(fd, lines, HEADER, 0) == 0) return fd;
    int error = errno;
    hooks->say(LOG_WARNING, "A new log file could not be made: %s: %s", aof_temp, strerror(error));
    if (file_wanted()) log_fails(BROKEN, "a new file", error); /* nobody waits for it unknowing */
    disk_close_later(&fd);
    return -1;
}

void log_make_id(char id[41]) {
    unsigned char random[20];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) abort();
    for (size_t i = 0; i < sizeof random; i++) snprintf(id + 2 * i, 3, "%02x", random[i]);
}

/* The id becomes an earlier one, honoured up to here. */
static void keep_id(void) {
    memmove(&lg.h.past[1], &lg.h.past[0], sizeof lg.h.past - sizeof lg.h.past[0]);
    memcpy(lg.h.past[0].id, lg.h.id, sizeof lg.h.id);
    lg.h.past[0].end = log_end();
}

static void take_new_id(bool keep_old) {
    if (keep_old) keep_id();
    else memset(lg.h.past, 0, sizeof lg.h.past);
    log_make_id(lg.h.id);
}

/* A failed sync was that of the log's bytes too; and behind the old ids, bytes would be taken for another life's. */
static void header_say(void) {
    next.id[0] = '\0'; /* a file in the making has the old ones */
    if (lg.fd >= 0 && header_update() < 0) log_fails(BROKEN, "header", errno);
}

void log_new_id(void) {
    take_new_id(true);
    header_say();
}

/* Whether anybody wants the log's bytes. Where changes went by uncounted, an offset of now means nothing to
 * who knew the id before, and the log does not go on from a snapshot of before. */
static void set_live(void) {
    bool live = lg.fd >= 0 || lg.keep || opt->log_on;
    if (live && lg.lost) {
        take_new_id(false);
        buffer_drop(0, true);
        lg.h.base = ++lg.at; /* snapshots of before, even one that runs, lack them */
        lg.sum = (struct sum){.from = lg.at, .covered = lg.at};
    }
    if (live) lg.lost = false;
    lg.select |= live && !lg.live;
    lg.live = live;
}

void log_serve(void) {
    lg.keep = true;
    set_live();
}

/* ==== appending =========================================================================================== */

static void put_command(struct resp_out *o, const struct arg *argv, int argc) {
    resp_array(o, (size_t)argc);
    for (int i = 0; i < argc; i++) resp_bulk(o, argv[i].p, argv[i].n);
}

void log_append(int db, const struct arg *argv, int argc) {
    static const char multi[] = "*1\r\n$5\r\nMULTI\r\n";
    if (log_following()) return;
    if (!lg.live && opt->log_on) set_live(); /* since this instant: who made the change may have to wait for a file */
    if (!lg.live) {
        if (!lg.lost) take_new_id(false);
        lg.lost = true;
        return;
    }
    if (lg.tx == 0) lg.tx_at = lg.out.len;
    if (lg.tx == 1) { /* it is more than one: MULTI goes before the first */
        size_t n = sizeof multi - 1;
        resp_reserve(&lg.out, n);
        char *at = lg.out.buf + lg.tx_at;
        memmove(at + n, at, lg.out.len - lg.tx_at);
        memcpy(at, multi, n);
        lg.out.len += n;
    }
    if (db != lg.db || lg.select) {
        char digits[RESP_INT_MAX];
        struct arg select[2] = {ARG("SELECT"), {.p = digits, .n = (uint32_t)resp_write_int(digits, db)}};
        put_command(&lg.out, select, 2);
        lg.db = db;
        lg.select = false;
    }
    put_command(&lg.out, argv, argc);
    lg.tx += lg.tx >= 0;
}

bool log_begin(void) {
    bool begun = lg.tx < 0;
    if (begun) lg.tx = 0;
    return begun;
}

void log_commit(void) {
    if (lg.tx > 1) put_command(&lg.out, &ARG("EXEC"), 1);
    lg.tx = -1;
    if (snap.wanted) snap_begin(snap.rewrite);
    snap.wanted = false;
}

/* ==== checksum records ==================================================================================== */

static void note_mark(uint64_t offset) {
    if (lg.nmarks && offset - lg.marks[lg.nmarks - 1] < MARK_EVERY) return;
    PUSH(lg.marks, lg.nmarks, lg.marks_cap, offset);
}

/* A record that begins at offset at is the log's last command: the chain goes on from it. */
static void chain_on(uint64_t at) {
    note_mark(at);
    lg.sum = (struct sum){.from = at, .covered = log_end()};
}

static void put_record(void) {
    char text[RECORD_TEXT];
    uint64_t at = log_end(), synced = lg.fd >= 0 && lg.trouble != BROKEN ? lg.synced : 0;
    if (log_following()) return;
    assert(lg.tx < 0 && lg.live);
    sum_to_end();
    if (at > lg.sum.covered) lg.data_end = at;
    int n = record_text(text, &lg.sum, at - lg.sum.from, at - synced);
    put_command(&lg.out, (struct arg[]){ARG("PING"), {.p = text, .n = (uint32_t)n}}, 2);
    lg.claimed = synced;
    chain_on(at);
}

/* Something is to be covered. What a start has found stays as it is until more is appended: by a byte of its own, this
 * life's log would differ from that of who was promoted meanwhile. */
static bool bare(void) { return log_end() > lg.sum.covered && log_end() > lg.settled; }

/* ==== to the disk ========================================================================================= */

static void log_is_fine(void) {
    if (lg.trouble != FINE) hooks->say(LOG_NOTICE, "The log %s is being kept again.", aof_path);
    lg.trouble = FINE;
}

static void write_pending(void) {
    uint64_t end = log_end(), at = file_pos(lg.written, lg.h.base);
    if (lg.written < end && disk_write_at(lg.fd, lg.out.buf + (lg.written - lg.at), end - lg.written, at) < 0) {
        log_fails(errno == ENOSPC || errno == EDQUOT ? FULL : BROKEN, "write", errno);
        return;
    }
    lg.written = end;
    if (!lg.keep || lg.out.len > 4 * TAIL) buffer_drop(lg.keep ? TAIL : 0, false);
    log_is_fine();
}

static void sync_work(struct job *j) {
    int64_t start = clock_us(), at = (int64_t)j->from;
    if (fdatasync(j->fd) < 0 || (j->flag && disk_sync_folder(aof_path) < 0)) j->error = errno;
    j->from = (uint64_t)(clock_us() - start);
    if (j->base) fallocate(j->fd, FALLOC_FL_KEEP_SIZE, at, (off_t)j->base); /* or the writes find out */
}

static void sync_done(struct job *j) {
    lg.syncing = false;
    lg.batch = j->to - lg.synced;
    lg.came_back_us = clock_us();
    lg.patience_us = j->from < 4000 ? (int64_t)j->from / 4 : 1000;
    if (j->error) log_fails(BROKEN, "fsync", j->error);
    else if (lg.trouble != BROKEN) lg.synced = j->to;
}

/* Under always. Clients whose replies a sync has let go send their next commands at once: a sync that does not
 * wait for them serves half as many, and they wait for the one after it. */
static bool sync_due(void) {
    return !lg.syncing && !next.last &&
           (log_end() - lg.synced >= lg.batch / 4 * 3 || clock_us() - lg.came_back_us > lg.patience_us);
}

/* Where much is written, the file gets blocks for what comes next, beyond its end. While a sync has to find them, the
 * loop's next write to the file waits for it: 4 ms on ext4, which is every client's p99.9. Returns how many bytes'. */
static uint64_t room_ahead(uint64_t at) {
    uint64_t some = lg.written - lg.synced;
    if (some < ROOM_FROM || lg.room >= at + 2 * some) return 0;
    lg.room = at + (8 * some < ROOM_MAX ? 8 * some : ROOM_MAX);
    return lg.room - at;
}

/* renamed: the file has just got its name. */
static void request_sync(bool renamed) {
    bool needed = renamed || (lg.synced < lg.written && !lg.parked); /* a name must last, whoever waits for quiet */
    if (lg.syncing || next.last || lg.trouble == BROKEN || !needed) return;
    lg.syncing = true;
    struct job j = {.work = sync_work, .done = sync_done, .fd = lg.fd, .to = lg.written, .flag = renamed};
    j.from = file_pos(lg.written, lg.h.base);
    j.base = room_ahead(j.from);
    disk_post(j, true);
}

/* ==== a log file with a later base ========================================================================
 * The helper copies while the old file goes on. When little is left, syncs are held back while it copies and
 * syncs that; then the loop copies the rest, of which nobody was told that it is synced, and gives the file
 * its name. */

static void next_give_up(int error) {
    if (error) hooks->say(LOG_WARNING, "A new log file could not be put in place: %s", strerror(error));
    if (error && file_wanted()) log_fails(BROKEN, "a new file", error);
    unlink(aof_temp);
    disk_close_later(&next.fd);
    next.last = false;
}

static void next_take_over(void) {
    disk_close_later(&lg.fd);
    lg.fd = next.fd;
    lg.h.base = next.base;
    lg.h.gen = next.gen;
    lg.room = 0;
    next.last = false;
    lg.replaces[0] = '\0';
    next.fd = -1;
    size_t gone = 0;
    while (gone < lg.nmarks && lg.marks[gone] < lg.h.base) gone++;
    lg.nmarks -= gone;
    if (gone) memmove(lg.marks, lg.marks + gone, lg.nmarks * sizeof *lg.marks);
    hooks->say(LOG_NOTICE, "The log %s begins at offset %" PRIu64 " now.", aof_path, lg.h.base);
}

static int copy_log(int fd, uint64_t base, int to_fd, uint64_t from, uint64_t to) {
    return disk_copy(fd, file_pos(from, base), to_fd, file_pos(from, next.base), to - from);
}

static void copy_work(struct job *j) {
    if (copy_log(j->fd, j->base, j->to_fd, j->from, j->to) < 0 || fdatasync(j->to_fd) < 0) j->error = errno;
}

static void copy_done(struct job *j) {
    next.busy = false;
    next.done = j->to;
    if (j->error || lg.trouble == BROKEN) next_give_up(j->error);
    if (next.fd < 0 || !next.last) return;
    assert(lg.synced <= next.done);
    if (lg.trouble == FINE && log_end() > lg.sum.covered) put_record();
    if (lg.trouble == FINE) write_pending();
    bool stale = strcmp(next.id, lg.h.id) != 0; /* it has bytes under the new id now */
    if (copy_log(lg.fd, lg.h.base, next.fd, next.done, lg.written) < 0 ||
        (stale && header_put(next.fd, next.base, ++next.gen) < 0) || rename(aof_temp, aof_path) < 0) {
        next_give_up(errno);
        return;
    }
    next_take_over();
    request_sync(true);
}

static void next_go_on(void) {
    uint64_t left = lg.written - next.done;
    if (next.busy) return;
    next.last = left <= SYNC_EVERY / 8;
    if (next.last && lg.syncing) return; /* when it is back */
    next.busy = true;
    struct job j = {.work = copy_work, .done = copy_done, .fd = lg.fd, .to_fd = next.fd, .base = lg.h.base};
    j.from = next.done;
    j.to = next.done + (left < SYNC_EVERY ? left : SYNC_EVERY);
    disk_post(j, false);
}

/* After a snapshot: what stands before it is not needed for a start, only for followers. */
static void trim_begin(void) {
    uint64_t keep = opt->backlog > 0 ? (uint64_t)opt->backlog : 0, base = lg.h.base;
    for (size_t i = 0; i < lg.nmarks; i++)
        if (lg.marks[i] <= lg.written && lg.marks[i] + keep <= snap.offset && lg.marks[i] <= lg.pin) base = lg.marks[i];
    uint64_t gain = base - lg.h.base;
    if (next.fd >= 0 || lg.parked || gain < MARK_EVERY / 16 || gain < (log_end() - base) / 4) return;
    next.fd = log_create(base);
}

static void fresh_work(struct job *j) {
    if (disk_publish(j->fd, aof_temp, aof_path) < 0) j->error = errno;
}

static void fresh_done(struct job *j) {
    next.busy = false;
    bool gap = lg.lost || lg.at > j->to || strays(); /* the log was off in between */
    if (j->error || gap) next_give_up(j->error);
    if (j->error || gap) return;
    next_take_over();
    lg.written = lg.synced = j->to;
    log_is_fine();
    if (strcmp(next.id, lg.h.id) != 0) header_say(); /* what it has was there before the new id */
}

/* A file that begins where the snapshot ends, from what the buffer holds: for CONFIG SET appendonly yes, and
 * the only way back when the old one cannot be trusted any more. */
static void fresh_begin(void) {
    if (next.fd >= 0 && !next.busy) next_give_up(0);
    set_live();
    if (next.fd >= 0 || lg.parked || !lg.live || lg.at > snap.offset) return; /* the next snapshot will do */
    if (log_end() > lg.sum.covered) put_record();
    next.fd = log_create(snap.offset);
    if (next.fd < 0) return;
    struct job j = {.work = fresh_work, .done = fresh_done, .fd = next.fd, .to = log_end()};
    resp_reserve(&lg.out, 1); /* a buffer, even if for nothing */
    next.busy = disk_write_at(next.fd, lg.out.buf + (snap.offset - lg.at), log_end() - snap.offset, HEADER) == 0;
    if (next.busy) disk_post(j, false);
    else next_give_up(errno);
}

/* ==== the end of a turn ==================================================================================== */

/* Without a file that can be trusted: what followers, or a file to come, will ask for stays in memory. */
static void trim_memory(void) {
    size_t keep = lg.keep && opt->backlog > 0 ? (size_t)opt->backlog : 0;
    if (lg.pin < log_end() && log_end() - lg.pin > keep) keep = log_end() - lg.pin;
    if (keep > lg.out.len) keep = lg.out.len;
    if ((file_wanted() && (snap.running || next.fd >= 0)) || lg.out.len < 2 * keep + MARK_EVERY) return;
    buffer_drop(keep, true);
}

void log_flush(void) {
    if (!lg.live || lg.tx >= 0) return;
    bool sync = opt->fsync == LOG_FSYNC_ALWAYS && lg.fd >= 0 && lg.synced < log_end() && sync_due();
    uint64_t uncovered = log_end() - lg.sum.covered;
    if (uncovered >= RECORD_EVERY || (uncovered && sync)) put_record();
    if (lg.fd < 0 || lg.trouble == BROKEN) {
        if (next.fd >= 0 && !next.busy) next_give_up(0); /* it would be a copy of what cannot be trusted */
        trim_memory();
        return;
    }
    if (lg.written < log_end() && lg.trouble == FINE) write_pending();
    if (sync) request_sync(false);
    if (next.fd >= 0) next_go_on();
}

/* ==== leaders and followers =============================================================================== */

int64_t log_send(int socket, uint64_t offset, size_t n) {
    uint64_t end = offset < lg.at ? lg.at : log_written();
    off_t at = (off_t)file_pos(offset, lg.h.base);
    errno = ERANGE;
    if (offset < lg.h.base || offset > end) return -1;
    if (n > end - offset) n = (size_t)(end - offset);
    if (offset < lg.at) return sendfile(socket, lg.fd, &at, n);
    return n ? send(socket, lg.out.buf + (offset - lg.at), n, MSG_NOSIGNAL) : 0;
}

bool log_in_file(void) { return lg.fd >= 0; }
void log_pin(uint64_t offset) { lg.pin = offset; }

void log_remark(const struct arg *argv, int argc) {
    if (lg.keep && lg.trouble == FINE) log_append(lg.db, argv, argc);
}

void log_ping(void) {
    if (lg.keep && lg.tx < 0 && lg.trouble == FINE) put_record();
}

void log_follow(void) {
    if (log_following()) return;
    lg.h.foreign = ALL;
    log_serve();
    header_say();
}

void log_promote(void) {
    lg.h.foreign = log_end();
    lg.select = true;
    log_new_id();
    lg.snap_due_ms = 0;
    if (strays() && lg.fd >= 0) log_fails(BROKEN, "it lacks what a follower's own clients changed", 0);
}

void log_stray(void) { lg.strayed = store_stats.changes; }

bool log_had(const char *id, uint64_t offset) {
    bool had = !strcasecmp(id, lg.h.id) && offset <= log_end();
    for (const struct past *p = lg.h.past; p < lg.h.past + PAST_IDS && p->id[0]; p++)
        had |= !strcasecmp(id, p->id) && offset <= p->end;
    return had && offset >= lg.h.base;
}

/* How many ids have been taken, at one start after the other, without a byte of the log's under any of them. */
static size_t ids_unused(void) {
    size_t n = 0;
    while (n < PAST_IDS && lg.h.past[n].id[0] && lg.h.past[n].end == log_end()) n++;
    return n;
}

/* What the log holds is the life's that wrote it. */
const char *log_known_id(void) {
    size_t unused = ids_unused();
    return unused ? lg.h.past[unused - 1].id : lg.h.id;
}

void log_continue(const char *id) {
    size_t unused = ids_unused(), left = PAST_IDS - unused;
    memmove(lg.h.id, log_known_id(), sizeof lg.h.id);
    memmove(lg.h.past, lg.h.past + unused, left * sizeof *lg.h.past);
    memset(lg.h.past + left, 0, unused * sizeof *lg.h.past);
    if (strcmp(id, lg.h.id) != 0) keep_id();
    snprintf(lg.h.id, sizeof lg.h.id, "%s", id);
    header_say();
}

bool log_relay(const struct arg *argv, int argc, int db) {
    int word = argc <= 2 ? resp_arg_flag(argv, "multi exec ping") : 0;
    bool inside = lg.relay.len > 0, record = word == 4 && argc == 2;
    uint64_t at = log_end();
    if (record) sum_to_end();
    if (record && (inside || !record_fits(&lg.sum, &argv[1], at, lg.h.base, ALL))) return false;
    put_command(inside || word == 1 ? &lg.relay : &lg.out, argv, argc);
    if (record) chain_on(at);
    if (word == 1 || (inside && word != 2)) return true;
    note_mark(at); /* redis-server's bytes have no records */
    if (inside) resp_raw(&lg.out, lg.relay.buf, lg.relay.len);
    if (inside) resp_out_free(&lg.relay);
    lg.db = db;
    return true;
}

void log_relay_abort(void) { resp_out_free(&lg.relay); }

bool persist_quiesce(bool on) {
    lg.parked = on;
    if (on) snap_cancel();
    return !next.busy && !lg.syncing && !store_snapshot_busy();
}

void log_adopt(const char *id, uint64_t offset, int db) {
    assert(!snap.running && !next.busy && !lg.syncing);
    if (next.fd >= 0) next_give_up(0);
    if (!lg.replaces[0]) memcpy(lg.replaces, lg.h.history, sizeof lg.replaces);
    disk_close_later(&lg.fd);
    resp_out_free(&lg.out);
    disk_close_later(&snap.kept_fd);
    lg.parked = false;
    lg.strayed = 0;
    lg.trouble = FINE;
    lg.at = lg.settled = lg.written = lg.synced = lg.data_end = lg.claimed = offset;
    lg.sum = (struct sum){.from = offset, .covered = offset};
    lg.nmarks = 0;
    lg.db = db;
    lg.snap_due_ms = 0;
    lg.h = (struct header){.base = offset, .foreign = ALL};
    snprintf(lg.h.id, sizeof lg.h.id, "%s", id);
    snprintf(lg.h.history, sizeof lg.h.history, "%s", id);
    if (!strcmp(id, lg.replaces)) lg.h.history[0] = *id == '-' ? '+' : '-'; /* another one, though of the same leader */
    log_relay_abort();
    if (file_wanted()) snap_begin(true); /* at once: until there are files, a start would have to begin anew */
}

/* ==== the snapshot ======================================================================================== */

/* The helper's own, while it writes one. */
static struct {
    int fd, error;
    uint64_t crc, size, synced;
} file = {.fd = -1};

static int file_append(const char *p, size_t n) {
    file.crc = crc64(file.crc, p, n);
    if (disk_write_at(file.fd, p, n, file.size) < 0) return -1;
    file.size += n;
    if (file.size - file.synced < SYNC_EVERY) return 0;
    file.synced = file.size;
    return fdatasync(file.fd);
}

/* All has been appended: the file gets its name. */
static int file_finish(void) {
    uint64_t crc = htole64(file.crc);
    return file_append((char *)&crc, sizeof crc) < 0 ? -1 : disk_publish(file.fd, rdb_temp, rdb_path);
}

/* The last chunk has a flag; and an error, if the snapshot is given up. */
static void chunk_work(struct job *j) {
    if (j->error) file.error = j->error;
    if (file.fd < 0 && !file.error) file.fd = open(rdb_temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (!file.error && (file.fd < 0 || file_append(j->out.buf, j->out.len) < 0 ||
                        (j->blob && file_append(j->blob->data, j->blob_n) < 0) || (j->flag && file_finish() < 0)))
        file.error = errno;
    j->error = file.error;
    if (!j->flag) return;
    j->to = file.size;
    if (!j->error) j->fd = file.fd; /* for snap_open() */
    else if (file.fd >= 0) close(file.fd);
    if (j->error) unlink(rdb_temp);
    memset(&file, 0, sizeof file);
    file.fd = -1;
}

static void snap_keep(int fd, uint64_t offset, bool empty) {
    disk_close_later(&snap.kept_fd);
    snap.kept_fd = fd;
    snap.kept_empty = empty;
    snap.kept_offset = offset;
}

bool snap_there(void) {
    bool misleads = snap.kept_empty && store_keys(store_db); /* a follower judges a leader by it: load_accepted() */
    return snap.kept_fd >= 0 && snap.kept_offset >= lg.h.base && !misleads;
}

int snap_open(uint64_t *offset, uint64_t *size) {
    struct stat st;
    if (!snap_there() || fstat(snap.kept_fd, &st) < 0) return -1;
    *offset = snap.kept_offset;
    *size = (uint64_t)st.st_size;
    return fcntl(snap.kept_fd, F_DUPFD_CLOEXEC, 0);
}

static void snap_over(int error, uint64_t size) {
    snap.running = false;
    info.save_ok = !error;
    info.save_seconds = (int64_t)time(NULL) - info.save_started_s;
    if (snap.rewrite) info.rewrite_ok = !error, info.rewrite_seconds = info.save_seconds;
    if (error) hooks->say(LOG_WARNING, "The snapshot %s could not be written: %s", rdb_path, strerror(error));
    if (error && file_wanted()) log_fails(BROKEN, "the snapshot before it", error);
    if (error) return;
    hooks->say(LOG_NOTICE, "The snapshot %s is on the disk: the state at offset %" PRIu64 ".", rdb_path, snap.offset);
    info.last_save_s = (int64_t)time(NULL);
    info.log_base_size = size;
    info.changes_since_save = snap.changes; /* the count then; persist_info() makes the difference */
    if (info.loading) return;
    if (file_wanted() && strays()) return; /* the next one will have it */
    if (file_wanted()) fresh_begin();
    else if (lg.fd >= 0) trim_begin();
}

/* The chunk goes to the helper, and the next one begins. */
static void chunk_post(void) {
    snap.in_flight += snap.chunk.out.len + snap.chunk.blob_n;
    disk_post(snap.chunk, false);
    snap.chunk = (struct job){.work = snap.chunk.work, .done = snap.chunk.done, .base = snap.chunk.base};
}

static void snap_end(int error) {
    store_snapshot_end();
    snap.chunk.flag = true;
    snap.chunk.error = error;
    chunk_post();
}

static void chunk_done(struct job *j) {
    bool wanted = snap.running && j->base == snap.chunk.base;
    snap.in_flight -= j->out.len + j->blob_n;
    if (j->blob) resp_blob_release(j->blob);
    resp_out_free(&j->out);
    if (j->flag && !j->error) { /* it has the name, whoever may have given it up */
        if (wanted) snap_keep(j->fd, snap.offset, snap.empty);
        else disk_close_later(&snap.kept_fd), disk_close_later(&j->fd);
    }
    bool broke_off = j->error && !snap.walked; /* later, the last one is on its way, and has the same error */
    if (wanted && broke_off) snap_end(j->error);
    if (wanted && (broke_off || j->flag)) snap_over(j->error, j->to);
}

static void snap_emit(int db, const struct entry *e) {
    struct job *j = &snap.chunk;
    struct blob *b = rdb_put_entry(&j->out, &snap.db, db, e, &j->blob_n);
    if (b) j->blob = resp_blob_ref(b);
    if (b || j->out.len >= CHUNK) chunk_post();
}

int snap_begin(bool rewrite) {
    errno = EBUSY;
    snap.rewrite = rewrite || (snap.running && snap.rewrite);
    if (snap.running || lg.parked) return -1;
    snap.wanted = lg.tx >= 0;
    if (snap.wanted) return 0;
    set_live(); /* the option may have changed this instant: what comes behind the snapshot must not go by */
    if (lg.live) put_record();
    else if (!log_end() && !log_following()) lg.h.base = lg.at = lg.sum.from = 1; /* no snapshot is at 0: invariant 5 */
    snap.offset = log_end();
    lg.select = true; /* what a follower's reader is told in another way: rdb_facts.stream_db */
    snap.db = -1;
    snap.running = true;
    snap.walked = false;
    snap.changes = store_stats.changes;
    snap.empty = !store_keys(store_db);
    info.save_started_s = (int64_t)time(NULL);
    snap.chunk = (struct job){.work = chunk_work, .done = chunk_done, .base = snap.chunk.base + 1};
    struct rdb_facts f = {.offset = snap.offset, .stream_db = log_following() ? lg.db : 0};
    memcpy(f.repl_id, lg.h.id, sizeof f.repl_id);
    memcpy(f.history, lg.h.history, sizeof f.history);
    memcpy(f.replaces, lg.replaces, sizeof f.replaces);
    rdb_put_head(&snap.chunk.out, &f);
    store_snapshot_begin(snap_emit);
    return 0;
}

bool snap_running(void) { return snap.running; }
bool snap_ok(void) { return info.save_ok; }
uint64_t snap_begun(void) { return snap.running ? snap.offset : UINT64_MAX; }

void snap_cancel(void) {
    if (snap.running && !snap.walked) snap_end(ECANCELED);
    snap.running = false;
}

bool persist_tick(int64_t budget_us) {
    bool more = opt->fsync == LOG_FSYNC_ALWAYS && lg.fd >= 0 && log_end() > lg.synced && lg.trouble == FINE &&
                !lg.syncing && !next.last && !lg.parked; /* sync_due() soon */
    if (!snap.running || snap.walked || snap.in_flight > CHUNKS_AHEAD) return more;
    int64_t start = clock_us();
    do snap.walked = store_snapshot_step(64);
    while (!snap.walked && snap.in_flight <= CHUNKS_AHEAD && clock_us() - start < budget_us);
    if (!snap.walked) return more || snap.in_flight <= CHUNKS_AHEAD;
    resp_raw(&snap.chunk.out, &(char){(char)RDB_END}, 1);
    snap_end(0);
    return more;
}

int snap_save(void) {
    if (snap_begin(false) < 0) return -1;
    while (snap.running) {
        persist_tick(INT64_MAX);
        if (snap.walked || snap.in_flight > CHUNKS_AHEAD) disk_wait();
    }
    return info.save_ok ? 0 : -1;
}

/* ==== reading a log back ================================================================================== */

static void load_progress(uint64_t at) {
    static int64_t said;
    int64_t now = clock_us();
    info.load_done = at;
    if (info.loading && !hooks->breathe()) { /* not within a command */
        hooks->say(LOG_NOTICE, "Stopped while loading");
        exit(0);
    }
    if (at <= 1 << 20) said = now;
    if (now - said < 2000000) return;
    said = now;
    hooks->say(LOG_NOTICE, "Loading: %d%%", (int)(info.load_total ? at * 100 / info.load_total : 100));
}

/* "*3\r\n" or "$5\r\n". Returns what is behind it; NULL: *bad, or cut off. */
static const char *get_count(const char *p, const char *end, char mark, uint64_t *n, bool *bad) {
    const char *digits = p + 1;
    *n = 0;
    *bad = p < end && *p != mark;
    for (p += p < end; !*bad && p < end && *p >= '0' && *p <= '9'; p++) {
        *n = *n * 10 + (uint64_t)(*p - '0');
        *bad = *n > 1u << 29 || (*digits == '0' && p > digits);
    }
    if (*bad || p >= end) return NULL;
    *bad = p == digits || *p != '\r' || (p + 1 < end && p[1] != '\n');
    return *bad || p + 1 == end ? NULL : p + 2;
}

/* A walk over commands in a file, from where r stands to r.end. each() is told where a command's arguments
 * begin in args, and its length, before it counts; it returns what is wrong with it. */
struct walk {
    struct reader r;
    struct arg *args;
    size_t nargs, args_cap;
    bool plain; /* redis-server's file: lines that begin with '#' may stand between commands */
    const char *(*each)(struct walk *w, size_t first, size_t length);
    void (*passed)(struct walk *w); /* the window is about to move, slices of it are good for the last time */
    const char *trouble;            /* why it ends before r.end, NULL: it does not */
    /* what scanning finds out, as offsets: whole commands and transactions up to good; checksums are right up to
     * sum.covered; data: bytes in commands that are not records */
    struct sum sum;
    bool multi; /* within a transaction */
    uint64_t base, foreign, good, data;
    /* what replaying has gathered */
    size_t first[BATCH + 1];
    uint64_t at[BATCH];
    int n, db;
};

/* One command of p[0..n), strictly as log_append() writes it: its arguments go to args. Returns its length; 0:
 * it is cut off, *need bytes would show more; -1: malformed. */
static int64_t get_command(struct walk *w, const char *p, size_t n, size_t *need) {
    uint64_t argc, len;
    bool bad;
    const char *end = p + n, *at = get_count(p, end, '*', &argc, &bad);
    *need = n + 1;
    if (at && !argc) return -1;
    while (at && argc-- && (at = get_count(at, end, '$', &len, &bad))) {
        if ((uint64_t)(end - at) < len + 2) {
            *need = (size_t)(at - p) + len + 2;
            return 0;
        }
        if (at[len] != '\r' || at[len + 1] != '\n') return -1;
        PUSH(w->args, w->nargs, w->args_cap, ((struct arg){.p = at, .n = (uint32_t)len}));
        at += len + 2;
    }
    return bad ? -1 : at ? at - p : 0;
}

static const char cut_off[] = "it is cut off within a command";

static void walk(struct walk *w) {
    struct reader *r = &w->r;
    size_t need = 1;
    r->progress = load_progress;
    reader_fill(r, 1);
    while (!w->trouble && r->at + r->pos < r->end) {
        const char *p = r->buf + r->pos;
        size_t n = r->len - r->pos, first = w->nargs;
        const char *line = w->plain && n && *p == '#' ? memchr(p, '\n', n) : NULL;
        int64_t length = line ? line + 1 - p : get_command(w, p, n, &need);
        if (length <= 0) w->nargs = first;
        if (length < 0) w->trouble = "what stands there is no command";
        if (length == 0) w->passed(w);
        if (length == 0 && !reader_fill(r, need)) w->trouble = r->error ? strerror(r->error) : cut_off;
        if (length > 0 && !line) w->trouble = w->each(w, first, (size_t)length);
        if (length > 0 && !w->trouble) r->pos += (size_t)length;
    }
    w->passed(w);
    free(r->buf);
    free(w->args);
}

static uint64_t walk_offset(const struct walk *w) { return w->base + w->r.at + w->r.pos - (w->plain ? 0 : HEADER); }

static void scan_passed(struct walk *w) {
    struct reader *r = &w->r;
    sum_add(&w->sum, r->buf + r->seen, r->pos - r->seen);
    r->seen = r->pos;
}

static const char *scan_each(struct walk *w, size_t first, size_t length) {
    const struct arg *v = w->args + first;
    size_t argc = w->nargs - first;
    uint64_t at = walk_offset(w);
    bool record = argc == 2 && !w->plain && resp_arg_is(v, "ping");
    w->nargs = 0;
    if (argc == 1 && resp_arg_is(v, w->multi ? "exec" : "multi")) {
        w->multi = !w->multi;
    } else if (record) {
        if (w->multi || (scan_passed(w), !record_fits(&w->sum, &v[1], at, w->base, w->foreign))) {
            w->good = w->sum.covered; /* anything in between may be wrong */
            return "a checksum does not fit what stands before it";
        }
        w->sum = (struct sum){.from = at, .covered = at + length};
        note_mark(at);
    }
    if (!w->multi) w->good = at + length;
    if (!record) w->data += length;
    return NULL;
}

static void scan(struct walk *w) {
    w->each = scan_each;
    w->passed = scan_passed;
    w->good = w->sum.covered = w->sum.from = walk_offset(w);
    walk(w);
    if (!w->trouble && w->multi) w->trouble = cut_off;
}

/* Whether a record behind offset, and of our own making, says that bytes from there on were on the disk already. */
static bool synced_beyond(int fd, uint64_t base, uint64_t offset, uint64_t foreign, uint64_t size) {
    static const char head[] = "*2\r\n$4\r\nPING\r\n$";
    const size_t n = sizeof head - 1 + 4; /* two digits and a line's end */
    struct reader r = {.fd = fd, .at = file_pos(offset, base), .end = size};
    uint64_t covers, unsynced;
    bool found = false;
    for (; !found && (reader_fill(&r, n + RECORD_TEXT) || r.len - r.pos > n); r.pos++) {
        const char *p = r.buf + r.pos, *text = p + n, *end;
        if (memcmp(p, head, sizeof head - 1) != 0) continue;
        end = memchr(text, '\r', r.len - r.pos - n);
        uint64_t begins = base + r.at + r.pos - HEADER;
        if (end && record_read(text, (size_t)(end - text), &covers, &unsynced))
            found = begins >= foreign && unsynced <= begins && begins - unsynced > offset;
    }
    free(r.buf);
    return found;
}

/* Runs what has been gathered; the slices are still good. */
static void replay_passed(struct walk *w) {
    struct db *db = store_db(w->db);
    struct arg *v = w->args;
    struct store_lookup l[BATCH];
    size_t nl = 0;
    for (int i = 0; i < w->n; i++)
        if (w->first[i + 1] - w->first[i] > 1) l[nl++] = (struct store_lookup){db, &v[w->first[i] + 1]};
    for (int step = 0; step < STORE_PREFETCH_STEPS; step++) store_prefetch(l, nl, step);
    for (int i = 0; i < w->n && !w->trouble; i++) {
        const char *why = NULL;
        if (hooks->apply(&w->db, &v[w->first[i]], (int)(w->first[i + 1] - w->first[i]), &why)) continue;
        w->trouble = why;
        w->good = w->at[i];
    }
    w->nargs = 0;
    w->n = 0;
}

static const char *replay_each(struct walk *w, size_t first, size_t length) {
    (void)length;
    w->at[w->n] = w->r.at + w->r.pos;
    w->first[w->n++] = first;
    w->first[w->n] = w->nargs;
    if (w->n == BATCH) replay_passed(w);
    return w->trouble;
}

/* ==== boot ================================================================================================ */

enum kind { NO_LOG, OUR_LOG, PLAIN_AOF };

/* What was found on the disk. */
static struct {
    int fd; /* the log file, -1: none */
    enum kind kind;
    struct header header;
    bool slot_damaged, has_rdb;
    uint64_t size;
    struct rdb_facts rdb; /* nothing where there is none: offset 0 */
    struct walk scan;
} boot;

/* Loading ends here: one line that says why and what to do. */
#define refuse(...) (hooks->say(LOG_WARNING, __VA_ARGS__), -1)

/* Out of the way, but not away: the file becomes path.<why>-<time>. */
static int log_set_aside(const char *why) {
    char to[PATH_LEN + 64];
    snprintf(to, sizeof to, "%s.%s-%lld", aof_path, why, (long long)time(NULL));
    close(boot.fd);
    boot.fd = -1;
    boot.kind = NO_LOG;
    lg.nmarks = 0; /* they are places in that file */
    if (rename(aof_path, to) < 0 || disk_sync_folder(aof_path) < 0)
        return refuse("%s: it could not be renamed to %s: %s", aof_path, to, strerror(errno));
    hooks->say(LOG_NOTICE, "%s was set aside as %s", aof_path, to);
    return 0;
}

/* Opens the log file and says what it is. */
static int find_log(void) {
    char head[HEADER + 1] = "";
    struct stat st;
    boot.fd = open(aof_path, O_RDWR | O_CLOEXEC);
    if (boot.fd < 0 && errno == ENOENT) return 0;
    if (boot.fd < 0 || fstat(boot.fd, &st) < 0 || disk_read_at(boot.fd, head, HEADER, 0) < 0)
        return refuse("%s: the log could not be opened: %s", aof_path, strerror(errno));
    if (flock(boot.fd, LOCK_EX | LOCK_NB) < 0) return refuse("%s: another process keeps its log there", aof_path);
    boot.size = (uint64_t)st.st_size;
    for (size_t i = 0; i < 2; i++) {
        struct header h;
        if (!slot_parse(head + i * SLOT, &h)) boot.slot_damaged = true;
        else if (boot.kind == NO_LOG || h.gen > boot.header.gen) boot.header = h, boot.kind = OUR_LOG;
    }
    if (boot.kind == OUR_LOG && boot.size >= HEADER) return 0;
    if (boot.kind == OUR_LOG || !boot.size || !strncmp(head, "#EchoVault", boot.size < 10 ? boot.size : 10))
        return refuse("%s: the log's header is damaged. Bring back a copy of the file, or move it away.", aof_path);
    boot.kind = PLAIN_AOF;
    return 0;
}

/* A file of redis-server's, where there is one, takes the place of one of ours, and stays. */
static int adopt(const char *name, const char *path) {
    struct stat st;
    if (stat(name, &st) < 0 || (!st.st_size && path == aof_path)) return 0; /* nothing was ever logged there */
    if (link(name, path) < 0) return refuse("%s: it cannot become %s: %s", name, path, strerror(errno));
    hooks->say(LOG_NOTICE, "%s is taken over as %s", name, path);
    return 0;
}

/* Who comes from redis-server puts appendonly.aof, which is newer, or dump.rdb into the folder. */
static int adopt_files(void) {
    boot.has_rdb = access(rdb_path, F_OK) == 0;
    if (boot.has_rdb || boot.kind != NO_LOG) return 0;
    if (access("appendonlydir", F_OK) == 0)
        return refuse("appendonlydir/ holds newer data: cat its base and incr files into %s, or move it", aof_path);
    if (adopt("appendonly.aof", aof_path) < 0 || find_log() < 0) return -1;
    if (boot.kind == NO_LOG && adopt("dump.rdb", rdb_path) < 0) return -1;
    boot.has_rdb = access(rdb_path, F_OK) == 0;
    return 0;
}

static int load_rdb(void) {
    struct rdb_facts *f = &boot.rdb;
    struct stat st;
    char why[256];
    struct reader r = {.fd = open(rdb_path, O_RDONLY | O_CLOEXEC), .progress = load_progress};
    if (r.fd < 0 || fstat(r.fd, &st) < 0)
        return refuse("%s: the snapshot could not be opened: %s", rdb_path, strerror(errno));
    info.load_total = info.log_base_size = r.end = (uint64_t)st.st_size;
    bool ok = rdb_load(&r, f, store_db, why);
    free(r.buf);
    if (!f->placed) f->offset = 1;
    if (info.loading && f->history[0]) snap_keep(r.fd, f->offset, !store_keys(store_db));
    else close(r.fd);
    if (!f->history[0]) memcpy(f->history, f->repl_id, sizeof f->history);
    if (!f->history[0]) snprintf(f->history, sizeof f->history, "rdb-%016" PRIx64, f->crc);
    if (ok) return 0;
    return refuse("%s: at byte %" PRIu64 ": %s. The file is as it was: bring back a copy, or move it away.", rdb_path,
                  r.at + r.pos, why);
}

/* Finds out up to where the log counts: boot.scan.good. */
static int judge_log(void) {
    struct walk *s = &boot.scan;
    uint64_t end = boot.size, hole = 0, base = boot.header.base, foreign = boot.header.foreign;
    const char *trouble = NULL;
    info.load_total = end;
    do { /* once more up to the first whole command, so that the sum is that of what counts */
        *s = (struct walk){.base = base, .foreign = foreign, .r = {.fd = boot.fd, .at = HEADER, .end = end}};
        lg.nmarks = 0;
        scan(s);
        if (s->r.error) return refuse("%s: the log could not be read: %s", aof_path, s->trouble);
        uint64_t own = s->sum.covered > foreign ? s->sum.covered : foreign;
        hole = own < s->good ? disk_zero_sector(boot.fd, file_pos(own, base), file_pos(s->good, base)) : 0;
        if (!trouble) trouble = hole ? "zeros stand where a power cut has lost what was written" : s->trouble;
        end = hole ? hole : file_pos(s->good, base);
    } while (s->trouble || hole);
    if (end == boot.size) return 0;
    if (synced_beyond(boot.fd, base, s->good, foreign, boot.size))
        return refuse("%s: at byte %" PRIu64 " the log is damaged: %s. %s", aof_path, end, trouble,
                      "What follows says that it had been safe on the disk, so it is no torn end. Bring back a copy, "
                      "or cut the file there and lose what follows.");
    hooks->say(LOG_WARNING, "%s: at byte %" PRIu64 " the log has a torn end: %s", aof_path, end, trouble);
    return opt->truncate_tail ? 0 : refuse("%s: with aof-load-truncated yes the torn end is left out", aof_path);
}

/* Runs the file's bytes [from, to), which have been scanned. */
static int replay(int fd, uint64_t from, uint64_t to, bool plain) {
    struct walk w = {.each = replay_each, .passed = replay_passed, .plain = plain, .db = boot.rdb.stream_db};
    w.r = (struct reader){.fd = fd, .at = from, .end = to};
    walk(&w);
    lg.db = w.db;
    if (!w.trouble) return 0;
    return refuse("%s: the command at byte %" PRIu64 " cannot be run: %s. The file was not changed.", aof_path, w.good,
                  w.trouble);
}

/* The log, from the snapshot's offset on. */
static int load_log(void) {
    const struct header *h = &boot.header;
    uint64_t from = boot.rdb.offset;
    if (judge_log() < 0) return -1;
    if (boot.has_rdb && strcmp(h->history, boot.rdb.history) != 0) {
        if (!boot.scan.data || !strcmp(h->history, boot.rdb.replaces)) return log_set_aside("old");
        return refuse("%s: the log does not belong to the snapshot %s. Move away the one that is not wanted.", aof_path,
                      rdb_path);
    }
    if (h->base > from)
        return refuse("%s: the log begins at offset %" PRIu64 ", and %s is %s: bring back the snapshot before it.",
                      aof_path, h->base, rdb_path, boot.has_rdb ? "older" : "missing");
    if (boot.scan.good < from) {
        hooks->say(LOG_NOTICE, "The log ends at offset %" PRIu64 ": the snapshot is newer.", boot.scan.good);
        return log_set_aside("old");
    }
    return replay(boot.fd, file_pos(from, h->base), file_pos(boot.scan.good, h->base), false);
}

/* A file of redis-server's, perhaps an RDB first, then commands: becomes a snapshot of ours and is set aside.
 * Its own checksum is the name of the history that begins with it, so that a start that was interrupted
 * between the two goes on there. */
static int import_aof(void) {
    char head[4096], why[256], name[41];
    struct walk s = {.plain = true, .r = {.fd = boot.fd, .end = boot.size, .progress = load_progress}};
    struct rdb_facts f;
    ssize_t n = disk_read_at(boot.fd, head, sizeof head, 0);
    snprintf(name, sizeof name, "aof-%016" PRIx64 "-%" PRIx64, crc64(0, head, n > 0 ? (size_t)n : 0), boot.size);
    if (boot.has_rdb && load_rdb() < 0) return -1;
    if (boot.has_rdb && strcmp(boot.rdb.history, name) != 0)
        return refuse("%s: this is a plain AOF, and %s is there as well. Move away the one that is not wanted.",
                      aof_path, rdb_path);
    if (boot.has_rdb) return log_set_aside("imported");
    info.load_total = boot.size;
    if (n > 5 && *head != '*' && *head != '#' && !rdb_load(&s.r, &f, store_db, why))
        return refuse("%s: at byte %" PRIu64 ": %s. The file was not changed.", aof_path, s.r.at + s.r.pos, why);
    uint64_t from = s.r.at + s.r.pos;
    scan(&s);
    if (s.trouble && (s.trouble != cut_off || !opt->truncate_tail))
        return refuse("%s: at byte %" PRIu64 ": %s. The file was not changed.", aof_path, s.good, s.trouble);
    if (s.trouble) hooks->say(LOG_WARNING, "%s: %s: the first %" PRIu64 " bytes count.", aof_path, s.trouble, s.good);
    if (replay(boot.fd, from, s.good, true) < 0) return -1;
    memcpy(lg.h.history, name, sizeof name);
    take_new_id(false);
    if (snap_save() < 0 || log_set_aside("imported") < 0) return -1;
    memcpy(boot.rdb.history, name, sizeof name);
    boot.rdb.offset = snap.offset;
    boot.has_rdb = true;
    return 0;
}

/* The recovered end, and the ids: that of the life before is honoured up to there. */
static void settle(void) {
    const struct walk *w = &boot.scan;
    bool logged = boot.kind == OUR_LOG;
    lg.at = logged ? w->good : boot.rdb.offset;
    lg.settled = lg.synced = lg.written = lg.data_end = lg.claimed = lg.at;
    lg.sum = logged ? w->sum : (struct sum){.from = lg.at, .covered = lg.at};
    snap.offset = boot.rdb.offset;
    take_new_id(false); /* a history that begins is named after its first id */
    memcpy(lg.h.history, boot.has_rdb ? boot.rdb.history : lg.h.id, sizeof lg.h.history);
    memcpy(lg.h.id, boot.rdb.repl_id, sizeof lg.h.id);
    lg.h.base = lg.at;
    if (logged) lg.h = boot.header;
    else lg.db = boot.rdb.stream_db;
    if (lg.h.foreign > lg.at) lg.h.foreign = lg.at;
    for (struct past *p = lg.h.past; p < lg.h.past + PAST_IDS; p++)
        if (p->end > lg.at) p->end = lg.at;
    take_new_id(lg.h.id[0] && !(logged && boot.slot_damaged));
}

/* The log's torn end goes into a file of its own, then the log is cut. */
static int cut_tail(void) {
    char path[PATH_LEN + 64];
    uint64_t cut = file_pos(boot.scan.good, boot.header.base);
    if (cut == boot.size) return 0;
    snprintf(path, sizeof path, "%s.cut-%" PRIu64 "-%lld", aof_path, cut, (long long)time(NULL));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || disk_copy(boot.fd, cut, fd, 0, boot.size - cut) < 0 || fsync(fd) < 0 ||
        disk_sync_folder(aof_path) < 0 || ftruncate(boot.fd, (off_t)cut) < 0 || fdatasync(boot.fd) < 0)
        return refuse("%s: its torn end could not be moved to %s: %s", aof_path, path, strerror(errno));
    close(fd);
    hooks->say(LOG_WARNING, "The log's last %" PRIu64 " bytes were moved to %s", boot.size - cut, path);
    return 0;
}

/* Goes on in the log file that was loaded, or begins one. */
static int open_log(void) {
    if (boot.kind == OUR_LOG) {
        if (cut_tail() < 0) return -1;
        lg.fd = boot.fd;
        if (header_update() == 0) return 0;
    } else {
        lg.fd = log_create(lg.h.base);
        lg.h.gen = 2;
        if (lg.fd >= 0 && disk_publish(lg.fd, aof_temp, aof_path) == 0) return 0;
    }
    return refuse("%s: the log cannot be written: %s", aof_path, strerror(errno));
}

/* The one sentence: the snapshot, then the log from its offset. */
static int load_all(void) {
    if (find_log() < 0 || adopt_files() < 0) return -1;
    if (boot.kind == PLAIN_AOF) return import_aof();
    if (boot.has_rdb && load_rdb() < 0) return -1;
    return boot.kind == OUR_LOG ? load_log() : 0;
}

int persist_start(const struct persist_options *options, const struct hooks *h) {
    int64_t start = clock_us();
    opt = options;
    hooks = h;
    crc64(0, "", 0);
    snprintf(aof_path, sizeof aof_path, "%s", opt->aof_path);
    snprintf(rdb_path, sizeof rdb_path, "%s", opt->rdb_path);
    snprintf(aof_temp, sizeof aof_temp, "%s.tmp", opt->aof_path);
    snprintf(rdb_temp, sizeof rdb_temp, "%s.tmp", opt->rdb_path);
    info = (struct persist_info){.loading = true, .save_ok = true, .rewrite_ok = true, .last_save_s = time(NULL)};
    info.save_seconds = info.rewrite_seconds = -1;
    if (disk_start() < 0) return refuse("helper thread: %s", strerror(errno));
    store_set_clock(0, STORE_EXPIRE_IGNORE);
    if (load_all() < 0) return -1;
    settle();
    if (opt->log_on && open_log() < 0) return -1;
    if (!opt->log_on && boot.fd >= 0) close(boot.fd), lg.h.base = lg.at;
    set_live();
    info.loading = false;
    info.changes_since_save = store_stats.changes;
    hooks->say(LOG_NOTICE, "Data loaded in %.3f seconds: the state at offset %" PRIu64 ".",
               (double)(clock_us() - start) / 1e6, log_end());
    return 0;
}

int persist_reload(bool save) {
    int64_t now = store_wall_clock();
    uint64_t changes = save ? 0 : store_stats.changes - info.changes_since_save;
    if (info.loading || lg.tx >= 0 || (save && snap_save() < 0)) return -1;
    log_flush();
    if (lg.trouble != FINE || (!save && file_wanted())) return -1; /* what lies there is of before a full copy */
    snap_cancel();
    for (int i = 0; i < store_databases(); i++) store_flush(store_db(i));
    store_set_clock(now, STORE_EXPIRE_IGNORE);
    boot.has_rdb = access(rdb_path, F_OK) == 0;
    boot.rdb = (struct rdb_facts){.offset = lg.h.base};
    bool ok = !boot.has_rdb || load_rdb() == 0;
    if (ok && lg.fd >= 0)
        ok = replay(lg.fd, file_pos(boot.rdb.offset, lg.h.base), file_pos(lg.written, lg.h.base), false) == 0;
    info.changes_since_save = store_stats.changes - changes;
    return ok ? 0 : -1;
}

/* ==== the turn's rarer work =============================================================================== */

static void run_save_points(const char *points, int64_t now_s) {
    uint64_t changes = store_stats.changes - info.changes_since_save;
    int64_t since = now_s - info.last_save_s;
    long long seconds, least;
    int length;
    bool failed = !info.save_ok && now_s - info.save_started_s < 5; /* not at once after a failure */
    if (!changes || lg.parked || failed) return;
    for (const char *p = points; sscanf(p, "%lld %lld%n", &seconds, &least, &length) == 2; p += length) {
        if (snap.running || changes < (uint64_t)least || since <= seconds) continue;
        hooks->say(LOG_NOTICE, "%lld changes in %lld seconds. Saving...", least, seconds);
        snap_begin(false);
    }
}

/* Once a second: what is written gets covered and synced; what is synced gets said. */
static void log_second(int64_t now_ms) {
    struct stat a, b;
    if (lg.fd < 0 || lg.trouble != FINE) return;
    if (fstat(lg.fd, &a) == 0 && (stat(aof_path, &b) < 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)) {
        log_fails(BROKEN, "the file is no longer at its place", ENOENT);
        return;
    }
    if (bare() || (lg.claimed < lg.data_end && lg.synced >= lg.data_end)) put_record();
    write_pending();
    if (now_ms - lg.synced_ms < (opt->fsync == LOG_FSYNC_NO ? 30000 : 1000)) return;
    info.delayed_syncs += lg.syncing;
    lg.synced_ms = now_ms;
    request_sync(false);
}

/* CONFIG SET appendonly. */
static void follow_option(int64_t now_ms) {
    if (!opt->log_on && lg.fd >= 0 && !lg.syncing && next.fd < 0) {
        if (lg.trouble == FINE && log_end() > lg.sum.covered) put_record();
        if (lg.trouble == FINE) write_pending();
        disk_close_later(&lg.fd);
        buffer_drop(0, true);
    }
    if (!opt->log_on && lg.fd < 0) lg.trouble = FINE;
    set_live();
    if (!file_wanted() || snap.running || next.fd >= 0 || now_ms < lg.snap_due_ms) return;
    lg.snap_due_ms = now_ms + 5000;
    snap_begin(true);
}

static bool flushed;
void persist_flushed(void) { flushed = true; }

void persist_cron(int64_t now_ms, const char *save_points) {
    static int64_t second;
    uint64_t grown = log_end() - snap.offset;
    if (lg.fd >= 0 && lg.trouble == FULL) write_pending(); /* there may be room again */
    follow_option(now_ms);
    if (now_ms / 1000 != second) log_second(now_ms);
    second = now_ms / 1000;
    if (flushed && *save_points && !opt->log_on) {
        snap_cancel();
        snap_begin(false);
    }
    flushed = false;
    run_save_points(save_points, now_ms / 1000);
    bool outgrown = lg.fd >= 0 && opt->rewrite_percentage > 0 && grown > (uint64_t)opt->rewrite_min &&
                    grown >= info.log_base_size / 100 * (uint64_t)opt->rewrite_percentage;
    if (outgrown && !snap.running) snap_begin(true);
}

int persist_stop(bool save) {
    bool parked = lg.parked, snapshot = !parked && (save || file_wanted());
    lg.parked = false;
    if (snapshot) snap_cancel();
    bool kept = !snapshot || snap_save() == 0;
    while (next.fd >= 0 || lg.syncing) {
        if (next.fd >= 0 && !next.busy && file_wanted()) next_give_up(0); /* as in log_flush() */
        else if (next.fd >= 0) next_go_on();
        if (next.busy || lg.syncing) disk_wait();
    }
    /* the data, then a record that says they are safe */
    for (int i = 0; i < 2 && lg.fd >= 0 && lg.trouble != BROKEN; i++) {
        if (bare() || lg.claimed < lg.data_end) put_record();
        write_pending();
        request_sync(false);
        while (lg.syncing) disk_wait();
        kept = kept && lg.synced == log_end();
    }
    lg.parked = parked;
    if (!kept || (file_wanted() && !parked)) return -1;
    disk_stop();
    if (lg.fd >= 0 && ftruncate(lg.fd, (off_t)file_pos(lg.written, lg.h.base)) < 0)
        hooks->say(LOG_WARNING, "%s: blocks that it does not need stay with it: %s", aof_path, strerror(errno));
    return 0;
}

struct persist_info persist_info(void) {
    struct persist_info now = info;
    now.changes_since_save = store_stats.changes - info.changes_since_save;
    now.rewrite_running = (snap.running && snap.rewrite) || next.fd >= 0;
    now.log_size = lg.fd >= 0 ? file_pos(log_end(), lg.h.base) : 0;
    return now;
}
