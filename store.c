/* store.c - the keyspace.
 *
 * A database is a hash table of chains. The bucket array's size is a power of two, and each bucket has an equal stretch
 * of all hashes, in their order; a chain is linked through its entries, and an entry is ONE allocation that holds
 * everything a key needs:
 *
 *      0        8                16            24            ...
 *      +--------+----------------+-------------+------------+-----------+--------------------------+
 *      | next   | lengths, flags | [deadline]  | [long key] | key bytes | value bytes | or blob *  |
 *      +--------+----------------+-------------+------------+-----------+--------------------------+
 *                                  if there      4 bytes,                 from RESP_BLOB_MIN on the
 *                                  is one        klen == 255              value is a blob of its own
 *
 * So a key of 16 bytes with a value of 16 costs 48 bytes and its share of the buckets, and reading it touches
 * one or two cache lines.
 *
 * Growing and shrinking. When there are two entries a bucket (or eight buckets an entry) a second array is
 * made and the buckets move over one by one: one with each insertion or deletion, some more each turn.
 * `moved` counts the old buckets that have moved. A hash whose old bucket has moved belongs to the new array,
 * any other to the old one, so that a look-up always has exactly one chain to walk.
 *
 * Walks (SCAN, the snapshot's, the sweep's, the eviction's) go through all hashes from 0 on, a chain at a time, and
 * what they keep between two steps is the next hash. Whatever the table does meanwhile, the entries before it are those
 * that have been met; at worst a chain that has become longer is met once more.
 *
 * Expiry. A key past its deadline is never seen: the look-up that meets it deletes it (on a leader) or hides it (on a
 * follower). Beside that a sweep walks the buckets, a bounded number at a time, faster where it finds much.
 *
 * Eviction. Where memory is above the limit, a hand goes round all buckets. From the EVICT_LOOK entries that it meets
 * next (only those with a deadline, where the policy says so) one goes: the longest idle, under the lru policies, the
 * nearest to its deadline or just any. The order of a keyed hash is as good as a random sample, but its entries lie
 * side by side and come round equally often. What was not used again since it came counts as idle ONCE_USED times as
 * long: a scan's keys leave before those that people come back to. A turn evicts as much as its commands added, and
 * beyond that only a slice, so that a lowered limit is reached over many turns; on the way, what stays moves together,
 * so that the memory of the rest can go back to the system.
 *
 * The snapshot: the entry's `saved` bit says whether the running one has it, so that nothing is emitted twice. A change
 * to an entry that it has not yet emits the old state first.
 *
 * Invariants
 *   1. An entry is in exactly one chain, that of bucket_of(hash of its key).
 *   2. Old buckets below `moved` are empty. moved == 0 where there is no second array.
 *   3. Sizes are powers of two; `used` is the number of entries, `deadlines` of those that have one.
 *   4. An entry's size class follows from its lengths: entry_size().
 *   5. Every change goes through note_change() before it happens.
 *
 * Left out: other types than strings; more than one thread; a maximum on the number of keys.
 */
#include "store.h"

#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/random.h>

#define MIN_BUCKETS  16
#define SWEEP_SLICE  512                 /* buckets that the sweep looks at in one turn */
#define FREE_SLICE   512                 /* buckets of a flushed table that are freed in one turn */
#define TRIM_SLICE   16                  /* empty chunks given back in one turn */
#define SPARSE       8                   /* buckets an entry from which a table shrinks */
#define REHASH_SLICE 64                  /* buckets that move in one turn, beside one with each insertion */
#define ATIME_MASK   0x1fffffu           /* 21 bits of seconds: 24 days */
#define HASHES       (UINT64_C(1) << 48) /* how many there are */
#define REGION_SIZE  ((size_t)2 << 20)   /* of memory from the kernel */
#define EVICT_LOOK   12                  /* entries that a victim is chosen from */
#define EVICT_WALK   256                 /* buckets walked to find so many, if there is one */
#define EVICT_SLICE  4096                /* buckets that the hand passes in a turn to bring memory down, and ... */
#define EVICT_MOST   (32 * EVICT_SLICE)  /* ... to make up for what the turn's commands added */
#define ONCE_USED    4                   /* how many times as idle a key counts that was used but once */
#define LONG_KEY     255                 /* klen of keys from this length on */
#define WATCH_LISTS  16384               /* that the watched keys are spread over */
#define AHEAD        8                   /* how many buckets ahead is prefetched, see next_chain() */

struct entry {
    struct entry *next;
    uint64_t vlen : 30; /* bytes of the value, up to 512 MiB */
    uint64_t klen : 8;  /* bytes of the key, or LONG_KEY */
    uint64_t has_deadline : 1;
    uint64_t saved : 1;   /* == snapshot.mark: the snapshot has it, or need not have it */
    uint64_t visited : 1; /* used again since it came */
    uint64_t raw : 1;     /* edited in place */
    uint64_t is_blob : 1; /* the value is a struct blob *, unaligned */
    uint64_t atime : 21;  /* seconds of the last noted access */
    char body[];
};

struct table {
    struct entry **buckets;
    size_t size;
    unsigned shift; /* a hash belongs into bucket hash >> shift */
};

struct db {
    struct table t[2];
    size_t moved;
    size_t used, deadlines;
    int64_t avg_ttl;
    /* the running snapshot's, which go with the contents when databases are swapped */
    int snapshot_id;
    uint64_t walk; /* the next hash; HASHES: all entries have been emitted */
};

/* Where the eviction, or the sweep, is on its way round all databases. */
struct hand {
    int db;
    uint64_t next; /* hash in that database */
};

/* A flushed database's table, freed in slices. */
struct dying {
    struct table t;
    size_t hand;     /* its next bucket */
    int snapshot_id; /* -1: flushed before the running snapshot began, which has nothing to do with it */
};

struct store_watch {
    LIST_ENTRY(store_watch) link;
    struct arg key; /* its bytes stand behind the struct */
    struct db *db;
    uint32_t refs;
    uint64_t version;
};

struct store_stats store_stats;

static struct {
    int ndbs;
    struct db *dbs;  /* as many, and behind them those that are staged */
    uint64_t k0, k1; /* SipHash's key: random, so that nobody can choose keys that collide */
    unsigned short rng[3];
    int64_t now, wall;
    uint32_t atime;
    enum store_expiry mode;
    void (*on_reclaim)(struct db *db, const char *key, size_t n, bool evicted);
    size_t memory; /* without tables */
    bool sweep_off;
    size_t sweep_credit; /* buckets that the sweep may yet look at */
    struct hand sweep;
    struct dying *dying;
    size_t ndying, dying_cap;
    int rehashes; /* databases that have a second array */
} g;

static struct {
    struct hand hand;
    size_t steps; /* buckets passed in this turn */
    size_t limit; /* 0: none */
    size_t low;   /* the lowest that memory has been since that limit is set, but not below it */
} eviction;

static struct {
    bool running;
    unsigned mark;                               /* 0 or 1 */
    void (*emit)(int db, const struct entry *e); /* NULL: given up, but the marks are still being set */
} snapshot;

static LIST_HEAD(watch_list, store_watch) watches[WATCH_LISTS]; /* by hash */
static size_t nwatches;

/* ==== memory: entries of up to ARENA_MAX bytes in size classes of 8 bytes ==================================
 * malloc would add 8 to 23 bytes to each. A chunk of 64 KiB, aligned, serves one class; its head counts what
 * is in use, so that an empty one can serve another class or go back to the system. Under the sanitizers
 * everything comes from malloc, so that they see each entry. */

#define CHUNK_SIZE  ((size_t)64 * 1024)
#define KEEP_CHUNKS 64 /* empty chunks kept with their memory */

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||               \
    __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define ARENA_MAX 0
#else
#define ARENA_MAX 1024
#endif

/* Invariants: used counts the objects handed out; a chunk is in its class's list exactly while it has room. */
struct chunk {
    LIST_ENTRY(chunk) link;
    void *free; /* objects given back, linked through their first word */
    uint32_t used;
    uint32_t fresh; /* offset of the first object never handed out */
    uint32_t size;  /* bytes an object */
};

static struct {
    LIST_HEAD(chunk_list, chunk) room[ARENA_MAX / 8 + 1]; /* by class: chunks with room */
    void **empty;                                         /* chunks of no class */
    size_t nempty, nclean, empty_cap;                     /* the first nclean hold no memory */
} arena;

static size_t round_up(size_t size) { return (size + 7) & ~(size_t)7; }

/* Pages: zero already, faulted in when touched, gone at once when unmapped. */
static void *map(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return resp_need(p == MAP_FAILED ? NULL : p);
}

/* One more region of chunks. In small pages: a huge one takes the kernel up to 5 ms, at the first touch or later. */
static void region_new(void) {
    char *p = map(REGION_SIZE + CHUNK_SIZE);
    p += -(uintptr_t)p & (CHUNK_SIZE - 1); /* what lies outside is never touched: no memory */
    for (size_t i = REGION_SIZE; i > 0; i -= CHUNK_SIZE)
        PUSH(arena.empty, arena.nempty, arena.empty_cap, p + i - CHUNK_SIZE);
    arena.nclean = arena.nempty;
}

static bool chunk_full(const struct chunk *c) { return !c->free && c->fresh + c->size > CHUNK_SIZE; }

static struct chunk *chunk_new(uint32_t size) {
    if (!arena.nempty) region_new();
    struct chunk *c = arena.empty[--arena.nempty];
    if (arena.nclean > arena.nempty) arena.nclean = arena.nempty;
    *c = (struct chunk){.fresh = (uint32_t)round_up(sizeof *c), .size = size};
    LIST_INSERT_HEAD(&arena.room[size / 8], c, link);
    return c;
}

static struct chunk *chunk_of(const void *p) { return (struct chunk *)((uintptr_t)p & ~(uintptr_t)(CHUNK_SIZE - 1)); }

static void *arena_alloc(size_t size) {
    if (size > ARENA_MAX) return resp_need(malloc(size));
    struct chunk *c = LIST_FIRST(&arena.room[size / 8]);
    if (!c) c = chunk_new((uint32_t)size);
    void *p = c->free;
    if (p) memcpy(&c->free, p, sizeof c->free);
    else p = (char *)c + c->fresh, c->fresh += c->size;
    c->used++;
    if (chunk_full(c)) LIST_REMOVE(c, link);
    return p;
}

static void arena_free(void *p, size_t size) {
    if (size > ARENA_MAX) free(p);
    if (size > ARENA_MAX) return;
    struct chunk *c = chunk_of(p);
    assert(c->size == size && c->used > 0);
    if (chunk_full(c)) LIST_INSERT_HEAD(&arena.room[size / 8], c, link);
    memcpy(p, &c->free, sizeof c->free);
    c->free = p;
    if (--c->used) return;
    if (LIST_FIRST(&arena.room[size / 8]) == c && !LIST_NEXT(c, link)) return; /* the last one stays: no to and fro */
    LIST_REMOVE(c, link);
    PUSH(arena.empty, arena.nempty, arena.empty_cap, c);
}

/* Whether the object had better move: much of its chunk is free, and the next allocation is from another one. */
static bool arena_sparse(const void *p, size_t size) {
    return size <= ARENA_MAX && chunk_of(p) != LIST_FIRST(&arena.room[size / 8]) &&
           chunk_of(p)->used * size < CHUNK_SIZE / 4 * 3;
}

/* Gives the memory of some empty chunks back to the system. True: there is more. */
static bool arena_trim(int chunks) {
    while (chunks-- && arena.nempty > arena.nclean + KEEP_CHUNKS)
        madvise(arena.empty[arena.nclean++], CHUNK_SIZE, MADV_DONTNEED);
    return arena.nempty > arena.nclean + KEEP_CHUNKS;
}

/* ==== SipHash-1-3 (Aumasson, Bernstein: SipHash: a fast short-input PRF) ====================== */

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIPROUND                                                                                                       \
    (v0 += v1, v1 = ROTL(v1, 13) ^ v0, v0 = ROTL(v0, 32), v2 += v3, v3 = ROTL(v3, 16) ^ v2, v0 += v3,                  \
     v3 = ROTL(v3, 21) ^ v0, v2 += v1, v1 = ROTL(v1, 17) ^ v2, v2 = ROTL(v2, 32))

/* Below HASHES, and never zero, which stands for "not computed" in struct arg. */
static uint64_t hash_bytes(const char *p, size_t n) {
    uint64_t v0 = g.k0 ^ 0x736f6d6570736575u, v1 = g.k1 ^ 0x646f72616e646f6du;
    uint64_t v2 = g.k0 ^ 0x6c7967656e657261u, v3 = g.k1 ^ 0x7465646279746573u;
    uint64_t m, last = (uint64_t)n << 56;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&m, p, 8);
        v3 ^= m;
        SIPROUND;
        v0 ^= m;
    }
    for (size_t i = 0; i < n; i++) last |= (uint64_t)(unsigned char)p[i] << (8 * i);
    v3 ^= last;
    SIPROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIPROUND;
    SIPROUND;
    SIPROUND;
    uint64_t h = (v0 ^ v1 ^ v2 ^ v3) % HASHES;
    return h ? h : 1;
}

static inline uint64_t hash_of(struct arg *key) {
    if (!key->hash) key->hash = hash_bytes(key->p, key->n);
    return key->hash;
}

/* ==== entries ================================================================================= */

static int64_t *deadline_at(const struct entry *e) { return (int64_t *)(uintptr_t)e->body; }

inline struct arg store_key(const struct entry *e) {
    const char *p = e->body + (e->has_deadline ? 8 : 0);
    uint32_t n = e->klen;
    if (n == LONG_KEY) {
        memcpy(&n, p, sizeof n);
        p += sizeof n;
    }
    return (struct arg){.p = p, .n = n};
}

/* Where the value's bytes, or the pointer to its blob, stand. */
static inline char *value_at(const struct entry *e) {
    struct arg key = store_key(e);
    return (char *)(uintptr_t)key.p + key.n;
}

struct blob *store_blob(const struct entry *e) {
    struct blob *b = NULL;
    if (e && e->is_blob) memcpy(&b, value_at(e), sizeof b);
    return b;
}

static size_t blob_memory(const struct blob *b) { return sizeof *b + b->cap; }

static size_t entry_size(size_t klen, bool deadline, size_t vbytes) {
    return round_up(sizeof(struct entry) + (deadline ? 8 : 0) + (klen >= LONG_KEY ? 4 : 0) + klen + vbytes);
}

/* Bytes of the value that stand in the entry itself. */
static size_t vbytes_of(const struct entry *e) { return e->is_blob ? sizeof(struct blob *) : e->vlen; }

static size_t size_of(const struct entry *e) { return entry_size(store_key(e).n, e->has_deadline, vbytes_of(e)); }

/* Is it there, but not for who looks at the clock? */
static bool is_past(const struct entry *e) { return e && e->has_deadline && *deadline_at(e) < g.wall; }
bool store_expired(const struct entry *e) { return e->has_deadline && *deadline_at(e) < g.now; }

static inline void note_access(struct entry *e) {
    if (e->atime != g.atime) e->atime = g.atime & ATIME_MASK;
    if (!e->visited) e->visited = 1;
}

static void entry_drop_blob(struct entry *e) {
    struct blob *b = store_blob(e);
    if (!b) return;
    g.memory -= blob_memory(b);
    resp_blob_release(b);
}

/* Its blob, if it had one, is another's by now, or dropped. */
static void entry_free(struct entry *e) {
    size_t size = size_of(e);
    g.memory -= size;
    arena_free(e, size);
}

/* ==== the table =============================================================================== */

static struct table table_new(size_t size) {
    size_t bytes = size * sizeof(struct entry *);
    store_stats.table_memory += bytes;
    struct entry **buckets = bytes < REGION_SIZE ? resp_need(calloc(1, bytes)) : map(bytes);
    return (struct table){buckets, size, (unsigned)__builtin_ctzll(HASHES / size)};
}

static void table_free(struct table *t) {
    size_t bytes = t->size * sizeof *t->buckets;
    if (bytes < REGION_SIZE) free(t->buckets);
    else munmap(t->buckets, bytes);
    store_stats.table_memory -= bytes;
    *t = (struct table){0};
}

/* All buckets before this one are done with: their memory goes back as they are passed, not in one go at the end. */
static void table_passed(struct table *t, size_t bucket) {
    const size_t step = REGION_SIZE / sizeof *t->buckets;
    if (bucket % step == 0 && bucket < t->size) madvise(&t->buckets[bucket - step], REGION_SIZE, MADV_DONTNEED);
}

static bool rehashing(const struct db *db) { return db->t[1].buckets != NULL; }

/* The one chain that this hash belongs to. */
static inline struct entry **bucket_of(struct db *db, uint64_t hash) {
    size_t i = hash >> db->t[0].shift;
    if (i < db->moved) return &db->t[1].buckets[hash >> db->t[1].shift];
    return &db->t[0].buckets[i];
}

/* A walk's step: the chain of the hash *next, which goes on to the first one of the next chain, or to HASHES. Where the
 * table shrinks, half of a new bucket may not have moved: it goes on by an old one. Brings what comes later into the
 * cache, of each bucket one entry more than the call before AHEAD calls did. */
static struct entry **next_chain(struct db *db, uint64_t *next) {
    struct entry **chain = bucket_of(db, *next);
    bool finer = *next >> db->t[0].shift < db->moved && db->t[1].size > db->t[0].size;
    uint64_t width = UINT64_C(1) << db->t[finer].shift, ahead = AHEAD * width; /* hashes */
    for (size_t depth = 0; depth < 4 && *next + (4 - depth) * ahead < HASHES; depth++) {
        const struct entry *e = *bucket_of(db, *next + (4 - depth) * ahead);
        for (size_t k = 0; e && k < depth; k++) e = e->next;
        __builtin_prefetch(e);
    }
    *next += width - *next % width;
    return chain;
}

/* The running snapshot gets the entry, unless it has it. */
static inline void snapshot_take(int id, struct entry *e) {
    if (!snapshot.running || e->saved == snapshot.mark) return;
    e->saved = snapshot.mark & 1;
    if (snapshot.emit) snapshot.emit(id, e);
}

static void bucket_move(struct db *db) {
    struct table *from = &db->t[0], *to = &db->t[1];
    if (db->moved + AHEAD < from->size) __builtin_prefetch(from->buckets[db->moved + AHEAD]);
    struct entry *e = from->buckets[db->moved], *next;
    from->buckets[db->moved++] = NULL;
    for (; e; e = next) {
        struct arg key = store_key(e);
        next = e->next;
        struct entry **b = &to->buckets[hash_of(&key) >> to->shift];
        e->next = *b;
        *b = e;
    }
    table_passed(from, db->moved);
    if (db->moved < from->size) return;
    table_free(from);
    *from = *to;
    *to = (struct table){0};
    db->moved = 0;
    g.rehashes--;
}

static void rehash_step(struct db *db, size_t buckets) {
    while (buckets-- && rehashing(db)) bucket_move(db);
}

/* After an insertion or a deletion: one bucket moves over, or the table begins to grow or, where more than `sparse`
 * buckets stand for an entry, to shrink. Moving one for each new key, it is done before the new array is too small in
 * its turn. It shrinks by half at a time: keys that come again meanwhile still find an array of their number. */
static inline void rehash(struct db *db, size_t sparse) {
    size_t size = db->t[0].size, fresh = 0;
    if (rehashing(db)) bucket_move(db);
    else if (db->used >= 2 * size) fresh = 2 * size;
    else if (db->used < size / sparse && size > MIN_BUCKETS) fresh = size / 2;
    if (!fresh) return;
    db->t[1] = table_new(fresh);
    g.rehashes++;
}

/* memcmp() for keys: most are so short that calling it would cost more than what it does. */
static inline bool same_bytes(const char *p, const char *q, size_t n) {
    uint64_t a, b;
    if (n < 8 || n > 64) return !memcmp(p, q, n);
    for (size_t i = 0;; i = i + 16 < n ? i + 8 : n - 8) {
        memcpy(&a, p + i, 8);
        memcpy(&b, q + i, 8);
        if (a != b || i + 8 == n) return a == b;
    }
}

static inline bool key_is(const struct entry *e, const struct arg *key) {
    struct arg is = store_key(e);
    return is.n == key->n && same_bytes(is.p, key->p, is.n);
}

/* The link that points to the key's entry, or the NULL at its chain's end. */
static inline struct entry **find_link(struct db *db, struct arg *key) {
    struct entry **link = bucket_of(db, hash_of(key));
    while (*link && !key_is(*link, key)) link = &(*link)->next;
    return link;
}

/* NULL: nobody watches the key. */
static struct store_watch *watch_find(const struct db *db, struct arg *key) {
    struct store_watch *w = LIST_FIRST(&watches[hash_of(key) % WATCH_LISTS]);
    while (w && (w->db != db || w->key.n != key->n || memcmp(w->key.p, key->p, key->n))) w = LIST_NEXT(w, link);
    return w;
}

/* Before an entry (NULL: a key that is not there yet) changes: invariant 5. */
static inline void note_change(struct db *db, struct entry *e, struct arg *key, bool goes) {
    store_stats.changes++;
    if (e) snapshot_take(db->snapshot_id, e);
    struct store_watch *w = nwatches ? watch_find(db, key) : NULL;
    if (w) w->version += goes && is_past(e) ? 1 : 2; /* see watch_version() */
}

/* Takes the entry out of its chain and frees it. */
static void unlink_entry(struct db *db, struct entry **link, struct arg *key) {
    struct entry *e = *link;
    note_change(db, e, key, true);
    *link = e->next;
    db->used--;
    db->deadlines -= e->has_deadline;
    entry_drop_blob(e);
    entry_free(e);
}

/* Deletes an entry that no client asked to delete. */
static void reclaim_link(struct db *db, struct entry **link, bool evicted) {
    struct arg key = store_key(*link);
    if (g.on_reclaim) g.on_reclaim(db, key.p, key.n, evicted);
    unlink_entry(db, link, &key);
    *(evicted ? &store_stats.evicted : &store_stats.expired) += 1;
}

/* The link to the key's entry as everybody but the sweep sees it: past its deadline it does not exist. */
static inline struct entry **find_live(struct db *db, struct arg *key) {
    struct entry **link = find_link(db, key);
    if (!*link || !store_expired(*link)) return *link ? link : NULL;
    if (g.mode == STORE_EXPIRE_DELETE) {
        reclaim_link(db, link, false);
        rehash(db, SPARSE);
    }
    return NULL;
}

static __attribute__((noinline)) struct entry **find_buried(struct db *db, struct entry **link, struct arg *key) {
    if (g.mode == STORE_EXPIRE_DELETE) reclaim_link(db, link, false);
    else unlink_entry(db, link, key);
    return find_link(db, key);
}

/* The link for a change: what has expired goes before, even where it is only not to be seen. */
static inline struct entry **find_to_change(struct db *db, struct arg *key) {
    struct entry **link = find_link(db, key);
    return *link && store_expired(*link) ? find_buried(db, link, key) : link;
}

struct entry *store_peek(struct db *db, struct arg *key) {
    struct entry **link = find_live(db, key);
    return link ? *link : NULL;
}

struct entry *store_find(struct db *db, struct arg *key) {
    struct entry *e = store_peek(db, key);
    if (e) note_access(e);
    return e;
}

/* A look-up is a chain of cache misses: bucket, entry, the next entry. A step takes each key one link further, along
 * what the steps before have brought. Nothing is kept from one to the next: commands that run in between may free
 * entries. */
void store_prefetch(const struct store_lookup *l, size_t n, int step) {
    for (size_t i = 0; i < n && step == 0; i++) __builtin_prefetch(bucket_of(l[i].db, hash_of(l[i].key)));
    for (size_t i = 0; i < n && step > 0; i++) {
        const struct entry *e = *bucket_of(l[i].db, l[i].key->hash);
        for (int k = 1; e && k < step; k++) e = e->next && !key_is(e, l[i].key) ? e->next : NULL;
        if (e) __builtin_prefetch(e), __builtin_prefetch(e->body + l[i].key->n + 8); /* where a short value stands */
    }
}

/* ==== reading an entry ======================================================================== */

struct arg store_value(const struct entry *e) {
    if (!e) return ARG("");
    return (struct arg){.p = e->is_blob ? store_blob(e)->data : value_at(e), .n = e->vlen};
}

int64_t store_deadline(const struct entry *e) { return e && e->has_deadline ? *deadline_at(e) : STORE_NO_DEADLINE; }
uint32_t store_idle(const struct entry *e) { return (g.atime - (uint32_t)e->atime) & ATIME_MASK; }
void store_set_idle(struct entry *e, uint32_t seconds) { e->atime = (g.atime - seconds) & ATIME_MASK; }
bool store_is_raw(const struct entry *e) { return e->raw; }

/* ==== changing one ============================================================================ */

/* Puts a new entry of this key, with this deadline and room for vbytes of value, in the place of the one that link
 * points to, or of nothing. It has the old one's flags and, to keep, as much of its value as both have room for. */
static struct entry *replace(struct db *db, struct entry **link, const struct arg *key, int64_t deadline, size_t vbytes,
                             bool keep) {
    struct entry *old = *link;
    bool timed = deadline != STORE_NO_DEADLINE;
    size_t size = entry_size(key->n, timed, vbytes);
    struct entry *e = *link = arena_alloc(size);
    g.memory += size;
    *e = old ? *old : (struct entry){.saved = snapshot.mark & 1, .atime = g.atime & ATIME_MASK};
    e->klen = key->n < LONG_KEY ? key->n & 0xff : LONG_KEY;
    e->has_deadline = timed;
    if (timed) *deadline_at(e) = deadline;
    char *p = e->body + (timed ? 8 : 0);
    if (key->n >= LONG_KEY) p = mempcpy(p, &key->n, sizeof key->n);
    p = mempcpy(p, key->p, key->n);
    db->deadlines += timed;
    if (!old) {
        db->used++;
        rehash(db, SIZE_MAX); /* moves links, but no entry; never shrinks what is being filled */
        return e;
    }
    if (keep) memcpy(p, value_at(old), vbytes_of(old) < vbytes ? vbytes_of(old) : vbytes);
    db->deadlines -= old->has_deadline;
    entry_free(old);
    return e;
}

/* The same for a value of n bytes, which are b's unless that is NULL. An entry that has such a deadline and that much
 * room stays where it is; that its value had the same length is so usual that it is asked first. */
static inline struct entry *reshape(struct db *db, struct entry **link, const struct arg *key, int64_t deadline,
                                    struct blob *b, size_t n, bool keep) {
    struct entry *e = *link;
    size_t vbytes = b ? sizeof b : n;
    bool timed = deadline != STORE_NO_DEADLINE;
    bool fits = e && e->has_deadline == timed &&
                ((e->vlen == vbytes && !e->is_blob) || size_of(e) == entry_size(key->n, timed, vbytes));
    if (!fits) e = replace(db, link, key, deadline, vbytes, keep);
    else if (timed) *deadline_at(e) = deadline;
    if (b) memcpy(value_at(e), &b, sizeof b);
    e->is_blob = b != NULL;
    e->vlen = n & 0x3fffffff;
    return e;
}

struct entry *store_set(struct db *db, struct arg *key, struct arg *val, int64_t deadline) {
    struct entry **link = find_to_change(db, key), *e = *link;
    note_change(db, e, key, false);
    if (e) entry_drop_blob(e);
    if (e) note_access(e);
    struct blob *b = val->is_blob ? resp_arg_blob(val) : val->n >= RESP_BLOB_MIN ? resp_blob_new(val->n) : NULL;
    if (b) g.memory += blob_memory(b);
    e = reshape(db, link, key, deadline, b, val->n, false);
    e->raw = 0;
    if (!val->is_blob) memcpy(b ? b->data : value_at(e), val->p, val->n);
    val->is_blob = false; /* it is ours now */
    return e;
}

/* A blob of e's value (of nothing where e is NULL) that nobody else holds, for e to hold, with room for n bytes and,
 * where that has to be made, some more: appending stays cheap. */
static struct blob *own_blob(struct entry *e, size_t n) {
    struct blob *b = store_blob(e);
    size_t slack = n < 1024 * 1024 ? n : 1024 * 1024;
    if (b && b->refs == 1) {
        g.memory -= blob_memory(b);
        b = resp_blob_grow(b, n <= b->cap ? n : n + slack);
    } else {
        struct arg had = store_value(e);
        b = resp_blob_new(n + slack);
        memcpy(b->data, had.p, had.n < n ? had.n : n);
        if (e) entry_drop_blob(e);
    }
    g.memory += blob_memory(b);
    return b;
}

char *store_edit(struct db *db, struct arg *key, size_t n, bool raw) {
    struct entry **link = find_to_change(db, key), *e = *link;
    size_t had = store_value(e).n;
    note_change(db, e, key, false);
    if (e) note_access(e);
    struct blob *b = n >= RESP_BLOB_MIN || store_blob(e) ? own_blob(e, n) : NULL;
    e = reshape(db, link, key, store_deadline(e), b, n, true);
    e->raw = raw;
    char *p = b ? b->data : value_at(e);
    if (n > had) memset(p + had, 0, n - had);
    return p;
}

bool store_set_deadline(struct db *db, struct arg *key, int64_t deadline) {
    struct entry **link = find_live(db, key);
    if (!link) return false;
    struct entry *e = *link;
    note_change(db, e, key, false);
    reshape(db, link, key, deadline, store_blob(e), e->vlen, true);
    return true;
}

bool store_delete(struct db *db, struct arg *key) {
    struct entry **link = find_live(db, key);
    if (!link) return false;
    unlink_entry(db, link, key);
    rehash(db, SPARSE);
    return true;
}

void store_copy(const struct entry *e, struct db *dst, struct arg *to) {
    struct arg val = store_value(e);
    val.is_blob = e->is_blob;
    if (val.is_blob) resp_blob_ref(store_blob(e));
    store_set(dst, to, &val, store_deadline(e))->raw = e->raw;
}

/* ==== whole databases ========================================================================= */

static void db_init(struct db *db) { *db = (struct db){.t[0] = table_new(MIN_BUCKETS), .walk = HASHES}; }

void store_init(int databases) {
    uint64_t seed[3];
    if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        fprintf(stderr, "No random numbers from the system\n");
        abort();
    }
    g.k0 = seed[0];
    g.k1 = seed[1];
    memcpy(g.rng, &seed[2], sizeof g.rng);
    g.ndbs = databases;
    g.dbs = resp_need(calloc(2 * (size_t)databases, sizeof *g.dbs));
    for (int i = 0; i < 2 * databases; i++) db_init(&g.dbs[i]);
}

int store_databases(void) { return g.ndbs; }
struct db *store_db(int id) {
    return &g.dbs[id];
}
int store_db_id(const struct db *db) { return (int)(db - g.dbs); }
size_t store_size(const struct db *db) { return db->used; }
size_t store_volatile(const struct db *db) { return db->deadlines; }
int64_t store_avg_ttl(const struct db *db) { return db->avg_ttl; }
size_t store_entry_memory(const struct entry *e) { return size_of(e) + (e->is_blob ? blob_memory(store_blob(e)) : 0); }
int64_t store_now(void) { return g.now; }
int64_t store_wall_clock(void) { return g.wall; }
int64_t store_clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
void store_on_reclaim(void (*fn)(struct db *db, const char *key, size_t n, bool evicted)) { g.on_reclaim = fn; }
void store_set_sweep(bool on) { g.sweep_off = !on; }

void store_set_clock(int64_t now_ms, enum store_expiry mode) {
    g.wall = now_ms;
    g.now = mode == STORE_EXPIRE_IGNORE ? 0 : now_ms;
    g.mode = mode;
    g.atime = (uint32_t)(now_ms / 1000) & ATIME_MASK;
}

/* A database's contents are about to be replaced (NULL: to go): the watched keys that were or will be there change. */
static void watch_touch_db(struct db *was, struct db *becomes) {
    for (size_t i = 0; nwatches && i < WATCH_LISTS; i++)
        for (struct store_watch *w = LIST_FIRST(&watches[i]); w; w = LIST_NEXT(w, link)) {
            if (w->db != was) continue;
            const struct entry *e = *find_link(was, &w->key), *then = becomes ? *find_link(becomes, &w->key) : NULL;
            bool change = (e && !is_past(e)) || (then && !is_past(then));
            w->version += change ? 2 : e != NULL; /* see watch_version() */
            w->version -= !change && then;
        }
}

void store_flush(struct db *db) {
    watch_touch_db(db, NULL);
    store_stats.changes += db->used;
    for (int i = 0; i < 2 && db->t[i].buckets; i++)
        PUSH(g.dying, g.ndying, g.dying_cap, ((struct dying){.t = db->t[i], .snapshot_id = db->snapshot_id}));
    g.rehashes -= rehashing(db);
    db_init(db);
}

void store_swap(struct db *a, struct db *b) {
    watch_touch_db(a, b);
    watch_touch_db(b, a);
    struct db t = *a;
    *a = *b;
    *b = t;
    store_stats.changes++;
}

void store_reserve(struct db *db, size_t keys) {
    size_t size = MIN_BUCKETS;
    if (db->used || rehashing(db)) return;
    while (size * 2 <= keys) size *= 2;
    table_free(&db->t[0]);
    db->t[0] = table_new(size);
}

struct db *store_staged(int id) {
    assert(!snapshot.running);
    return &g.dbs[g.ndbs + id];
}

size_t store_keys(struct db *(*database)(int id)) {
    size_t n = 0;
    for (int i = 0; i < g.ndbs; i++) n += store_size(database(i));
    return n;
}

void store_stage_end(bool take) {
    for (int i = 0; i < g.ndbs; i++) {
        if (take) store_swap(store_db(i), store_staged(i));
        store_flush(store_staged(i));
    }
}

/* Frees some buckets of what was flushed; what a running snapshot has not yet of it goes there first. */
static void dying_step(size_t buckets) {
    for (; g.ndying && buckets; buckets--) {
        struct dying *d = &g.dying[g.ndying - 1];
        for (struct entry *e = d->t.buckets[d->hand++], *next; e; e = next) {
            next = e->next;
            if (d->snapshot_id >= 0) snapshot_take(d->snapshot_id, e);
            entry_drop_blob(e);
            entry_free(e);
        }
        table_passed(&d->t, d->hand);
        if (d->hand < d->t.size) continue;
        table_free(&d->t);
        g.ndying--;
    }
}

/* For RANDOMKEY and eviction, no secret. */
static uint64_t random_number(void) { return (uint64_t)nrand48(g.rng) << 31 | (uint64_t)nrand48(g.rng); }

/* Tables are at least an eighth full but while they shrink, so few tries miss. */
struct entry *store_random(struct db *db) {
    if (!db->used) return NULL;
    struct entry *e;
    size_t n = 0;
    do e = *bucket_of(db, random_number() % HASHES);
    while (!e);
    for (struct entry *x = e; x; x = x->next) n++;
    for (n = (size_t)(random_number() % n); n; n--) e = e->next;
    return e;
}

/* ==== walks =================================================================================== */

uint64_t store_scan(struct db *db, uint64_t cursor, void (*fn)(void *arg, struct entry *e), void *arg) {
    uint64_t next = cursor % HASHES;
    for (struct entry *e = *next_chain(db, &next); e; e = e->next) fn(arg, e);
    return next % HASHES;
}

void store_snapshot_begin(void (*emit)(int db, const struct entry *e)) {
    while (snapshot.running && !store_snapshot_step(SIZE_MAX)) {} /* one that was given up: finish its marks */
    for (size_t i = 0; i < g.ndying; i++) g.dying[i].snapshot_id = -1;
    snapshot.running = true;
    snapshot.mark ^= 1;
    snapshot.emit = emit;
    for (int i = 0; i < g.ndbs; i++) {
        struct db *db = &g.dbs[i];
        db->snapshot_id = i;
        db->walk = db->used ? 0 : HASHES;
    }
}

bool store_snapshot_step(size_t buckets) {
    for (int i = 0; i < g.ndbs; i++) {
        struct db *db = &g.dbs[i];
        for (; buckets && db->walk < HASHES; buckets--)
            for (struct entry *e = *next_chain(db, &db->walk); e; e = e->next) snapshot_take(db->snapshot_id, e);
        if (db->walk < HASHES) return false;
    }
    dying_step(buckets);
    if (g.ndying) return false;
    if (!snapshot.emit) snapshot.running = false;
    return true;
}

bool store_snapshot_busy(void) { return snapshot.running; }

void store_snapshot_end(void) {
    snapshot.emit = NULL; /* when given up half-way, store_tick() sets the remaining marks */
    store_snapshot_step(0);
}

/* ==== watches ================================================================================= */

/* Changes count 2. That it expires counts once, and half: when it is not to be seen any more, here; when it goes, in
 * its place, as note_change() counts it. */
static uint64_t watch_version(struct store_watch *w) { return w->version + is_past(*find_link(w->db, &w->key)); }

struct store_watch *store_watch(struct db *db, struct arg *key, uint64_t *version) {
    struct store_watch *w = watch_find(db, key);
    if (!w) {
        w = resp_need(malloc(sizeof *w + key->n));
        *w = (struct store_watch){.key = *key, .db = db};
        w->key.p = memcpy(w + 1, key->p, key->n);
        w->key.is_blob = false;
        LIST_INSERT_HEAD(&watches[hash_of(key) % WATCH_LISTS], w, link);
        nwatches++;
    }
    w->refs++;
    *version = watch_version(w);
    return w;
}

bool store_watch_changed(struct store_watch *w, uint64_t version) { return watch_version(w) != version; }

void store_unwatch(struct store_watch *w) {
    if (--w->refs) return;
    LIST_REMOVE(w, link);
    nwatches--;
    free(w);
}

/* ==== the memory limit ======================================================================== */

size_t store_memory(void) {
    size_t untouched = 0; /* buckets of a rehash without memory: old ones that have moved, new ones not moved to yet */
    for (int i = 0; g.rehashes && i < g.ndbs; i++) {
        const struct db *db = &g.dbs[i];
        untouched += db->moved + db->t[1].size - db->moved * db->t[1].size / db->t[0].size;
    }
    return g.memory + store_stats.table_memory - untouched * sizeof(struct entry *);
}

/* The one of the highest rank goes. */
static uint64_t rank(const struct entry *e, enum store_policy policy) {
    bool lru = policy == STORE_LRU || policy == STORE_VOLATILE_LRU;
    if (store_expired(e)) return UINT64_MAX;
    if (policy == STORE_VOLATILE_TTL) return UINT64_MAX - (uint64_t)*deadline_at(e);
    return lru ? (store_idle(e) + UINT64_C(1)) * (e->visited ? 1 : ONCE_USED) : random_number();
}

/* Moves an entry together with others, so that chunks become empty. */
static void compact(struct entry **link) {
    size_t size = size_of(*link);
    if (!arena_sparse(*link, size)) return;
    struct entry *fresh = memcpy(arena_alloc(size), *link, size);
    arena_free(*link, size);
    *link = fresh;
}

/* Where the hand goes on: in the next database from its own that holds an entry, or one with a deadline. NULL: none. */
static struct db *hand_database(struct hand *h, bool with_deadline) {
    for (int i = 0; i <= g.ndbs; i++) {
        struct db *db = &g.dbs[h->db];
        if (h->next < HASHES && (with_deadline ? db->deadlines : db->used)) return db;
        *h = (struct hand){.db = h->db + 1 < g.ndbs ? h->db + 1 : 0};
    }
    return NULL;
}

/* The hand goes on and deletes one of the entries that it meets, if it meets any. False: none may go. */
static bool evict(enum store_policy policy) {
    bool only_volatile = policy <= STORE_VOLATILE_TTL;
    bool comes_down = eviction.low > eviction.limit; /* memory does: new keys will not take all that is free */
    struct db *db = policy == STORE_KEEP_ALL ? NULL : hand_database(&eviction.hand, only_volatile);
    struct entry **victim = NULL;
    uint64_t highest = 0;
    int want = policy == STORE_ANY || policy == STORE_VOLATILE_ANY ? 1 : EVICT_LOOK;
    if (!db) return false;
    for (int walked = 0; want > 0 && walked < EVICT_WALK && eviction.hand.next < HASHES; walked++) {
        for (struct entry **link = next_chain(db, &eviction.hand.next); *link; link = &(*link)->next) {
            if (comes_down) compact(link);
            if (only_volatile && !(*link)->has_deadline) continue;
            uint64_t r = rank(*link, policy);
            if (r > highest) highest = r, victim = link;
            want--;
        }
        eviction.steps++;
    }
    if (!victim) return true;
    reclaim_link(db, victim, !store_expired(*victim));
    rehash(db, 2);
    if (!rehashing(db) || db->t[1].size > db->t[0].size) return true;
    rehash_step(db, 4 * AHEAD); /* fast, lest entries go for the sake of an array that is too large for them */
    eviction.steps += 4 * AHEAD;
    return true;
}

bool store_make_room(size_t limit, enum store_policy policy) {
    size_t memory;
    if (g.mode != STORE_EXPIRE_DELETE) limit = 0;
    if (limit != eviction.limit) eviction.low = SIZE_MAX;
    eviction.limit = limit;
    while (limit && (memory = store_memory()) > limit) {
        if (memory < eviction.low) eviction.low = memory;
        if (eviction.steps >= (memory > eviction.low ? EVICT_MOST : EVICT_SLICE))
            return memory <= eviction.low + eviction.low / 8;
        if (g.ndying) dying_step(AHEAD), eviction.steps += AHEAD; /* what was flushed goes first */
        else if (!evict(policy)) return false;
    }
    eviction.low = limit;
    return true;
}

/* ==== upkeep ================================================================================== */

static void sweep_chain(struct db *db, struct entry **link) {
    for (struct entry *e; (e = *link);) {
        if (store_expired(e)) {
            reclaim_link(db, link, false);
            continue;
        }
        if (e->has_deadline) {
            int64_t ttl = *deadline_at(e) - g.now;
            db->avg_ttl = db->avg_ttl ? db->avg_ttl + (ttl - db->avg_ttl) / 64 : ttl;
        }
        link = &e->next;
    }
}

/* One slice of the sweep, in the next database that has deadlines. Where much has expired, it earns another slice. */
static void sweep_slice(void) {
    struct db *db = hand_database(&g.sweep, true);
    size_t n = g.sweep_credit < SWEEP_SLICE ? g.sweep_credit : SWEEP_SLICE;
    uint64_t before = store_stats.expired;
    g.sweep_credit -= n;
    for (; db && n && g.sweep.next < HASHES; n--) sweep_chain(db, next_chain(db, &g.sweep.next));
    if (store_stats.expired - before > SWEEP_SLICE / 16) g.sweep_credit += SWEEP_SLICE;
}

bool store_tick(bool sweep) {
    bool more = eviction.steps >= EVICT_SLICE; /* memory may still be above the limit */
    eviction.steps = 0;
    if (sweep && !g.sweep_off && g.mode == STORE_EXPIRE_DELETE) {
        size_t buckets = 0;
        for (int i = 0; i < g.ndbs; i++) buckets += g.dbs[i].deadlines ? g.dbs[i].t[0].size : 0;
        size_t credit = buckets / 1024 + (buckets ? SWEEP_SLICE : 0); /* ten times a second: all of it in 100 s */
        if (g.sweep_credit < credit) g.sweep_credit = credit;
    }
    if (g.sweep_credit) sweep_slice();
    for (int i = 0; i < g.ndbs && (sweep || g.rehashes); i++) {
        rehash_step(&g.dbs[i], REHASH_SLICE);
        if (!rehashing(&g.dbs[i])) rehash(&g.dbs[i], SPARSE);
    }
    if (g.ndying) dying_step(FREE_SLICE);
    more |= arena_trim(TRIM_SLICE);
    if (snapshot.running && !snapshot.emit) store_snapshot_step(FREE_SLICE);
    return more || g.sweep_credit || g.rehashes || g.ndying || (snapshot.running && !snapshot.emit);
}
