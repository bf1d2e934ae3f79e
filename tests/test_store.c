/* test_store.c - random changes to the store beside a plain model of it: after each, both must agree. Snapshots, scans,
 * watches, expiry and eviction run in between. The table grows and shrinks all the while. */
#include "store.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DBS       3
#define KEYS      3000
#define VALUE_MAX 70000 /* past RESP_BLOB_MIN */

struct model {
    char *value; /* NULL: no such key */
    size_t n;
    int64_t deadline;
};

static struct model model[DBS][KEYS], at_snapshot[DBS][KEYS];
static bool emitted[DBS][KEYS];
static int64_t now = 1000000;
static size_t keys_in_use = KEYS;
static enum store_policy policy;

static unsigned roll(unsigned n) { return (unsigned)rand() % n; }

/* Some keys are long, so that both forms of the length are used. */
static struct arg key_arg(int k) {
    static char text[8][400];
    static int slot;
    char *t = text[slot = (slot + 1) % 8];
    int n = snprintf(t, sizeof text[0], k % 7 ? "key:%d:" : "key:%d:%0300d", k, 0);
    return (struct arg){.p = t, .n = (uint32_t)n};
}

static void model_put(struct model *m, const char *p, size_t n, int64_t deadline) {
    free(m->value);
    m->value = NULL;
    if (p) m->value = memcpy(malloc(n + 1), p, n);
    m->n = n;
    m->deadline = deadline;
}

static void check_entry(const struct entry *e, const struct model *m) {
    assert((e != NULL) == (m->value != NULL));
    if (!e) return;
    struct arg v = store_value(e);
    assert(v.n == m->n && !memcmp(v.p, m->value, v.n) && store_deadline(e) == m->deadline);
}

static void check_key(int db, int k) {
    struct arg key = key_arg(k);
    check_entry(store_peek(store_db(db), &key), &model[db][k]);
}

static void on_reclaim(struct db *db, const char *key, size_t n, bool evicted) {
    assert(n > 4 && store_size(db) > 0);
    struct model *m = &model[store_db_id(db)][atoi(key + 4)];
    assert(m->value && (evicted ? policy > STORE_VOLATILE_TTL || m->deadline >= now : m->deadline < now));
    model_put(m, NULL, 0, STORE_NO_DEADLINE);
}

static void emit(int db, const struct entry *e) {
    int k = atoi(store_key(e).p + 4);
    assert(!emitted[db][k]);
    emitted[db][k] = true;
    check_entry(e, &at_snapshot[db][k]);
}

static void snapshot_begin(void) {
    memset(emitted, 0, sizeof emitted);
    for (int db = 0; db < DBS; db++)
        for (int k = 0; k < KEYS; k++)
            model_put(&at_snapshot[db][k], model[db][k].value, model[db][k].n, model[db][k].deadline);
    store_snapshot_begin(emit);
}

static void snapshot_end(void) {
    while (!store_snapshot_step(64)) {}
    store_snapshot_end();
    for (int db = 0; db < DBS; db++)
        for (int k = 0; k < KEYS; k++) assert(emitted[db][k] == (at_snapshot[db][k].value != NULL));
}

static void change_set(int db, int k) {
    static char bytes[VALUE_MAX];
    struct arg key = key_arg(k), val = {.p = bytes, .n = roll(20) ? roll(60) : roll(VALUE_MAX)};
    memset(bytes, 'a' + (int)roll(26), val.n);
    int64_t deadline = roll(3) ? STORE_NO_DEADLINE : now + (int64_t)roll(3000);
    if (val.n >= RESP_BLOB_MIN && roll(2)) { /* as the parser would bring it */
        struct blob *b = resp_blob_new(val.n + 2);
        val.p = memcpy(b->data, bytes, val.n);
        val.is_blob = true;
    }
    store_set(store_db(db), &key, &val, deadline);
    assert(!val.is_blob);
    model_put(&model[db][k], bytes, val.n, deadline);
}

static void change_edit(int db, int k) {
    struct model *m = &model[db][k];
    struct arg key = key_arg(k);
    store_peek(store_db(db), &key); /* as every command does first: an expired key goes */
    size_t had = m->value ? m->n : 0, n = roll(10) ? had + roll(100) : roll(VALUE_MAX);
    char *p = store_edit(store_db(db), &key, n, true);
    m->value = realloc(m->value, n + 1);
    if (n > had) memset(m->value + had, 0, n - had);
    assert(!memcmp(p, m->value, n));
    if (!had) m->deadline = m->n || m->deadline ? m->deadline : STORE_NO_DEADLINE;
    m->n = n;
    m->deadline = store_deadline(store_peek(store_db(db), &key));
    memset(p, 'z', n < 10 ? n : 10);
    memset(m->value, 'z', n < 10 ? n : 10);
}

static void change_deadline(int db, int k) {
    struct arg key = key_arg(k);
    int64_t deadline = roll(3) ? now + (int64_t)roll(3000) : STORE_NO_DEADLINE;
    bool there = store_set_deadline(store_db(db), &key, deadline);
    assert(there == (model[db][k].value != NULL));
    if (there) model[db][k].deadline = deadline;
}

static void change_copy(int db, int k) {
    int db2 = (int)roll(DBS), k2 = (int)roll((unsigned)keys_in_use);
    if (db == db2 && k == k2) return;
    struct arg key = key_arg(k), to = key_arg(k2);
    struct entry *e = store_peek(store_db(db), &key);
    struct model *m = &model[db][k];
    assert((e != NULL) == (m->value != NULL));
    if (!e) return;
    store_copy(e, store_db(db2), &to);
    model_put(&model[db2][k2], m->value, m->n, m->deadline);
}

static void change_database(int db) {
    int db2 = (int)roll(DBS);
    if (roll(2) && db != db2) {
        struct model t[KEYS];
        store_swap(store_db(db), store_db(db2));
        memcpy(t, model[db], sizeof t);
        memcpy(model[db], model[db2], sizeof t);
        memcpy(model[db2], t, sizeof t);
        return;
    }
    store_flush(store_db(db));
    for (int k = 0; k < KEYS; k++) model_put(&model[db][k], NULL, 0, STORE_NO_DEADLINE);
}

static void change(void) {
    int db = (int)roll(DBS), k = (int)roll((unsigned)keys_in_use);
    struct arg key = key_arg(k);
    uint64_t version, before = store_stats.changes;
    struct store_watch *w = store_watch(store_db(db), &key, &version);
    switch (roll(12)) {
    case 0:
    case 1:
    case 2:
    case 3: change_set(db, k); break;
    case 4:
    case 5: change_edit(db, k); break;
    case 6: change_deadline(db, k); break;
    case 7: change_copy(db, k); break;
    case 8:
        if (roll(200) == 0) change_database(db);
        break;
    default:
        key = key_arg(k);
        assert(store_delete(store_db(db), &key) == (model[db][k].value != NULL));
        model_put(&model[db][k], NULL, 0, STORE_NO_DEADLINE);
    }
    if (before == store_stats.changes) assert(!store_watch_changed(w, version));
    store_unwatch(w);
    check_key(db, k);
}

/* Takes a share of the memory away: it is reached, or nothing that may go is left. */
static void evict(void) {
    size_t limit = store_memory() - store_memory() / (2 + roll(50)), may_go = 0;
    uint64_t before = store_stats.evicted;
    policy = (enum store_policy)roll(STORE_KEEP_ALL + 1);
    bool room = store_make_room(limit, policy);
    for (; room && store_memory() > limit; room = store_make_room(limit, policy)) store_tick(false);
    for (int db = 0; db < DBS; db++)
        may_go += policy <= STORE_VOLATILE_TTL ? store_volatile(store_db(db)) : store_size(store_db(db));
    assert(room ? store_memory() <= limit : policy == STORE_KEEP_ALL || !may_go);
    assert(policy != STORE_KEEP_ALL || store_stats.evicted == before);
}

/* Which of 30,000 keys are left when memory for half of them is taken away. */
static bool left[30000];
static void note_left(void *arg, struct entry *e) {
    (void)arg;
    left[atoi(store_key(e).p)] = true;
}

static size_t count_left(int first, int last) {
    size_t n = 0;
    for (int k = first; k < last; k++) n += left[k];
    return n;
}

/* The first third of the keys is used again and again, the second once more, the last third never; the later a key's
 * number within its third, the later is its deadline. */
static void check_choice(enum store_policy p) {
    struct db *db = store_db(0);
    uint64_t cursor = 0;
    policy = STORE_LRU;
    store_make_room(0, policy);
    memset(left, 0, sizeof left);
    for (int step = 0; step < 3; step++) {
        for (int k = 0; k < (step ? 10000 * (3 - step) : 30000); k++) {
            char text[16];
            struct arg key = {.p = text, .n = (uint32_t)snprintf(text, sizeof text, "%05d:", k)}, val = key;
            if (step) assert(store_find(db, &key));
            else store_set(db, &key, &val, now + 1000000 + k % 10000);
        }
        store_set_clock(now += 10000, STORE_EXPIRE_DELETE);
    }
    size_t limit = store_memory() / 2;
    while (store_make_room(limit, p) && store_memory() > limit) store_tick(false);
    do cursor = store_scan(db, cursor, note_left, NULL);
    while (cursor);
    size_t hot = count_left(0, 10000), warm = count_left(10000, 20000), cold = count_left(20000, 30000), soon = 0;
    for (int third = 0; third < 3; third++) soon += count_left(third * 10000, third * 10000 + 2000);
    if (p == STORE_LRU || p == STORE_VOLATILE_LRU) assert(hot > 9700 && warm > 2000 && cold < 150);
    if (p == STORE_VOLATILE_TTL) assert(soon < 60);
    if (p == STORE_ANY || p == STORE_VOLATILE_ANY) assert(hot > 3500 && warm > 3500 && cold > 3500 && soon > 2000);
    store_flush(db);
    while (store_tick(false)) {}
}

static bool scanned[KEYS];

static void note_scanned(void *arg, struct entry *e) {
    (void)arg;
    scanned[atoi(store_key(e).p + 4)] = true;
}

/* Keys that are there all the while are seen, whatever comes and goes beside them. */
static void check_scan(int db) {
    static bool before[KEYS];
    uint64_t cursor = 0;
    memset(scanned, 0, sizeof scanned);
    for (int k = 0; k < KEYS; k++) before[k] = model[db][k].value && model[db][k].deadline == STORE_NO_DEADLINE;
    do {
        cursor = store_scan(store_db(db), cursor, note_scanned, NULL);
        int k = (int)roll(KEYS);
        if (before[k] && roll(2)) continue;
        struct arg key = key_arg(k);
        store_delete(store_db(db), &key);
        model_put(&model[db][k], NULL, 0, STORE_NO_DEADLINE);
        before[k] = false;
        store_tick(false);
    } while (cursor);
    for (int k = 0; k < KEYS; k++) assert(!before[k] || scanned[k]);
}

static size_t met;

static void note_met(int db, const struct entry *e) {
    (void)db, (void)e;
    met++;
}

/* At each point of the way from many keys to none, and back: all are scanned, and each is in a snapshot once. */
static void check_resizing(void) {
    struct db *db = store_db(1);
    for (int step = 0; step < 2000; step++) {
        int k = step < 1000 ? step : 1999 - step, size = step < 1000 ? k + 1 : k;
        struct arg key = key_arg(k), val = key;
        uint64_t cursor = 0;
        if (step < 1000) store_set(db, &key, &val, STORE_NO_DEADLINE);
        else assert(store_delete(db, &key));
        memset(scanned, 0, sizeof scanned);
        do cursor = store_scan(db, cursor, note_scanned, NULL);
        while (cursor);
        for (int i = 0; i < size; i++) assert(scanned[i]);
        met = 0;
        store_snapshot_begin(note_met);
        while (!store_snapshot_step(1 + roll(8))) {}
        store_snapshot_end();
        assert(met == (size_t)size);
    }
}

/* A table much larger than its keys, then filled: chains stay short, or this takes minutes. */
static void check_refill(void) {
    struct db *db = store_db(0);
    alarm(60);
    store_reserve(db, 1 << 21);
    for (int round = 0; round < 4; round++) {
        for (int k = 0; k < 200000; k++) {
            char text[16];
            struct arg key = {.p = text, .n = (uint32_t)snprintf(text, sizeof text, "%d", k)}, val = key;
            if (round % 2 == 0) store_set(db, &key, &val, STORE_NO_DEADLINE);
            else assert(store_delete(db, &key));
        }
        assert(store_size(db) == (round % 2 ? 0 : 200000));
    }
    alarm(0);
}

int main(void) {
    srand(7);
    store_init(DBS);
    store_set_clock(now, STORE_EXPIRE_DELETE);
    for (int p = 0; p < STORE_KEEP_ALL; p++) check_choice((enum store_policy)p);
    store_on_reclaim(on_reclaim);
    check_refill();
    check_resizing();
    for (int round = 0; round < 60; round++) {
        keys_in_use = round % 3 == 2 ? 40 : KEYS; /* so that tables shrink */
        if (round % 3 == 2)
            for (int k = 40; k < KEYS; k++)
                for (int db = 0; db < DBS; db++) {
                    struct arg key = key_arg(k);
                    store_delete(store_db(db), &key);
                    model_put(&model[db][k], NULL, 0, STORE_NO_DEADLINE);
                }
        bool snapshot = round % 2;
        if (snapshot) snapshot_begin();
        for (int i = 0; i < 4000; i++) {
            change();
            if (roll(4) == 0) store_set_clock(now += roll(10), STORE_EXPIRE_DELETE);
            if (roll(8) == 0) store_tick(roll(2));
            if (roll(300) == 0) evict();
            if (snapshot && roll(20) == 0) store_snapshot_step(1 + roll(8));
        }
        if (round % 6 == 5) store_snapshot_end(); /* given up half-way */
        else if (snapshot) snapshot_end();
        check_scan(round % DBS);
        for (int db = 0; db < DBS; db++) {
            size_t n = 0;
            for (int k = 0; k < KEYS; k++) {
                check_key(db, k);
                n += model[db][k].value != NULL;
            }
            assert(store_size(store_db(db)) == n);
        }
    }
    for (int db = 0; db < DBS; db++) store_flush(store_db(db));
    while (store_tick(false)) {}
    while (resp_blob_reap(SIZE_MAX, false)) {}
    printf("test_store: ok\n");
    return 0;
}
