/* store.h - the keyspace: numbered databases of keys, each with a string value and perhaps a deadline.
 *
 * Knows nothing of the protocol, of files or of clients. One thread only.
 *
 * Entries move when they grow: an entry pointer is good until the next call that changes its database
 * (store_set, store_edit, store_set_deadline, store_delete, ...) or store_tick(). Functions take keys as
 * arguments (struct arg) so that a key's hash, once known, is not computed again.
 */
#ifndef STORE_H
#define STORE_H

#include "resp.h"
#include <time.h>

struct db;
struct entry;

#define STORE_NO_DEADLINE INT64_C(-1)

void store_init(int databases);
int store_databases(void);
struct db *store_db(int id); /* 0 <= id < store_databases() */
int store_db_id(const struct db *db);
size_t store_size(const struct db *db);     /* keys, with those that are past their deadline but not yet deleted */
size_t store_volatile(const struct db *db); /* keys with a deadline */
int64_t store_avg_ttl(const struct db *db); /* ms, estimated by the sweep; 0: nothing known */

/* ---- the clock and expiry -------------------------------------------------------------------- */

enum store_expiry {
    STORE_EXPIRE_DELETE, /* a leader: what notices an expired key deletes it and reports it */
    STORE_EXPIRE_HIDE,   /* a follower's readers: not seen, not deleted */
    STORE_EXPIRE_IGNORE, /* replay and a leader's stream: the clock does not exist, store_now() is 0 */
};
void store_set_clock(int64_t now_ms, enum store_expiry mode);
int64_t store_now(void);                 /* ms since 1970; fixed for a turn; 0 under STORE_EXPIRE_IGNORE */
int64_t store_wall_clock(void);          /* the same, whatever the mode */
int64_t store_clock_ns(clockid_t clock); /* the system's, at this moment */
/* Called just before a key is deleted because its deadline passed or, evicted, to make room. */
void store_on_reclaim(void (*fn)(struct db *db, const char *key, size_t n, bool evicted));
bool store_expired(const struct entry *e); /* past its deadline: scans leave it out */

/* ---- look-ups -------------------------------------------------------------------------------- */

struct entry *store_find(struct db *db, struct arg *key); /* NULL: not there; notes the access */
struct entry *store_peek(struct db *db, struct arg *key); /* the same without noting the access */
struct entry *store_random(struct db *db);                /* NULL: empty */
struct store_lookup {
    struct db *db;
    struct arg *key;
};
#define STORE_PREFETCH_STEPS 4
/* Brings what these look-ups will touch into the cache, one step after the other from 0 on; best with other work in
 * between. */
void store_prefetch(const struct store_lookup *l, size_t n, int step);

struct arg store_key(const struct entry *e);
/* Of these three e may be NULL: no bytes, no blob, no deadline. */
struct arg store_value(const struct entry *e);          /* never holds the blob */
struct blob *store_blob(const struct entry *e);         /* the value's blob, borrowed; NULL: it stands in the entry */
int64_t store_deadline(const struct entry *e);          /* ms since 1970 or STORE_NO_DEADLINE */
uint32_t store_idle(const struct entry *e);             /* seconds since the last noted access */
void store_set_idle(struct entry *e, uint32_t seconds); /* as if the last access were so long ago */
bool store_is_raw(const struct entry *e);               /* was edited in place (OBJECT ENCODING says raw) */
size_t store_entry_memory(const struct entry *e);       /* bytes that it takes, with its value; its table not counted */

/* ---- changes ---------------------------------------------------------------------------------------
 * Each counts one change (store_stats) and touches the key's watchers. */

/* Sets or replaces. val may be a slice of anything but the value that is replaced; where it holds a blob, the store
 * takes it and val->is_blob becomes false. deadline: STORE_NO_DEADLINE removes one. Returns the entry. */
struct entry *store_set(struct db *db, struct arg *key, struct arg *val, int64_t deadline);
/* Makes the value n bytes long (n <= 512 MiB), creating the key where it is missing: bytes that were there
 * stay, new ones are zero. Returns them for writing, good until the next call. The deadline stays. raw: the
 * value counts as edited in place (APPEND, SETRANGE, SETBIT; not INCR). */
char *store_edit(struct db *db, struct arg *key, size_t n, bool raw);
bool store_set_deadline(struct db *db, struct arg *key, int64_t deadline); /* false: no such key */
bool store_delete(struct db *db, struct arg *key);                         /* false: no such key */
/* Gives dst/to the value and the deadline of another key, replacing what is there; big values are shared. */
void store_copy(const struct entry *e, struct db *dst, struct arg *to);
void store_flush(struct db *db);                /* empties it at once; the memory comes back in slices */
void store_swap(struct db *a, struct db *b);    /* SWAPDB: the contents change places */
void store_reserve(struct db *db, size_t keys); /* before loading so many */
/* A second set of databases beside the first, empty at first, which nobody sees before store_stage_end(true) puts them
 * in the place of the first. No snapshot may be running from their first use to that end. */
struct db *store_staged(int id);
size_t store_keys(struct db *(*database)(int id)); /* in all of them: store_db or store_staged */
void store_stage_end(bool take); /* false: what was staged goes; both give the memory back in slices */

/* ---- walks ----------------------------------------------------------------------------------- */

/* SCAN: calls fn for the entries of some buckets and returns the next cursor, 0 at the end. Every key that is
 * there from the first call to the last is seen at least once, whatever the table's size does in between. fn
 * must not change the store. */
uint64_t store_scan(struct db *db, uint64_t cursor, void (*fn)(void *arg, struct entry *e), void *arg);

/* The snapshot walk: emit() gets every entry as it was when the snapshot began, once each, whatever is
 * changed meanwhile; a change emits what it is about to change first. db is the number the entry's database
 * had at the beginning. */
void store_snapshot_begin(void (*emit)(int db, const struct entry *e));
bool store_snapshot_step(size_t buckets); /* walks so many further; true: all has been emitted */
void store_snapshot_end(void);            /* after the last step, or to give up */
bool store_snapshot_busy(void);           /* one runs, or was given up and some traces are still to go */

/* ---- watches: has this key changed since? ---------------------------------------------------- */

struct store_watch;
struct store_watch *store_watch(struct db *db, struct arg *key, uint64_t *version); /* the version to ask for later */
bool store_watch_changed(struct store_watch *w, uint64_t version); /* changed, flushed or expired since */
void store_unwatch(struct store_watch *w);

/* ---- upkeep ---------------------------------------------------------------------------------- */

/* Once a turn: a bounded step of rehashing, of freeing what was flushed, and (when sweep is set) of looking
 * for expired keys. True: there is more to do at once. */
bool store_tick(bool sweep);
void store_set_sweep(bool on); /* DEBUG SET-ACTIVE-EXPIRE */

extern struct store_stats {
    uint64_t changes;          /* ever made */
    uint64_t expired, evicted; /* keys deleted because their deadline had passed, or to make room */
    size_t table_memory;       /* bytes of store_memory() in tables */
} store_stats;

/* ---- the memory limit ------------------------------------------------------------------------ */

size_t store_memory(void); /* bytes in entries, values and tables: what the limit is for */

/* Which keys may go (the volatile ones: those with a deadline), and which of them goes first. */
enum store_policy { STORE_VOLATILE_LRU, STORE_VOLATILE_ANY, STORE_VOLATILE_TTL, STORE_LRU, STORE_ANY, STORE_KEEP_ALL };
/* Deletes keys until memory is at the limit (0: none), or for a turn's share of work. False: refuse what needs memory;
 * nothing may go, or more was added than can go in time. In other modes than STORE_EXPIRE_DELETE: no limit. */
bool store_make_room(size_t limit, enum store_policy policy);

#endif
