/* strings.c - the commands on whole values, parts of values and numbers: GET and SET with all their kin,
 * APPEND, GETRANGE, INCR and LCS.
 *
 * A command reads its arguments, looks its keys up, and only when nothing can be wrong any more changes the
 * store: one that is refused has changed nothing. Numbers are kept as the text that a client would send: INCR
 * reads the digits and writes the new ones in their place.
 *
 * What is logged must give the same state without a clock and without the key's past: a deadline goes into
 * the log as the absolute time that it came to (SET key value PXAT ms), the sum of floats as its digits, a
 * condition (NX, XX) that held as a plain SET.
 */
#include "commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STRING_MAX (INT64_C(512) << 20) /* what the store takes, whatever proto-max-bulk-len says */

/* ---- look-ups and changes, with their statistics and events --------------------------------------------- */

struct entry *cx_read(struct cx *cx, struct arg *key) {
    bool touch = !cx->client || !(cx->client->flags & CLIENT_NO_TOUCH);
    struct entry *e = touch ? store_find(cx->db, key) : store_peek(cx->db, key);
    server_stats.hits += e != NULL;
    server_stats.misses += e == NULL;
    if (!e) cx_event(cx->db, 'm', "keymiss", key);
    return e;
}

struct entry *cx_set(struct cx *cx, struct arg *key, struct arg *val, int64_t deadline) {
    if (*config.event_letters) store_peek(cx->db, key); /* what is past its deadline is reported as expired */
    size_t before = store_size(cx->db);
    struct entry *e = store_set(cx->db, key, val, deadline);
    if (store_size(cx->db) > before) cx_event(cx->db, 'n', "new", key);
    return e;
}

char *cx_edit(struct cx *cx, struct arg *key, size_t n) {
    if (!store_peek(cx->db, key)) cx_event(cx->db, 'n', "new", key);
    return store_edit(cx->db, key, n, true);
}

const char *cx_value(const struct entry *e, size_t *n) {
    *n = 0;
    return e ? store_value(e, n) : "";
}

int64_t cx_max_string(const struct cx *cx) {
    bool obey = !cx->client || cx->client->flags & CLIENT_LEADER; /* what was accepted once must stay possible */
    return obey || config.proto_max_bulk_len > STRING_MAX ? STRING_MAX : config.proto_max_bulk_len;
}

/* Whether n bytes may stand at offset `at` of a value; false: the error is said. */
static bool check_length(struct cx *cx, int64_t at, size_t n) {
    int64_t max = cx_max_string(cx);
    if (at < 0) resp_error(cx->out, "ERR offset is out of range");
    else if (at <= max && (int64_t)n <= max - at) return true;
    else resp_error(cx->out, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    return false;
}

/* ---- the options of SET and GETEX ----------------------------------------------------------------------- */

/* In the order of words[] in read_options(). */
enum { NX = 1, XX = 2, GET = 4, KEEPTTL = 8, PERSIST = 16, EX = 32, PX = 64, EXAT = 128, PXAT = 256 };
#define DEADLINES (EX | PX | EXAT | PXAT)
#define OF_SET    (NX | XX | GET | KEEPTTL | DEADLINES)
#define OF_GETEX  (PERSIST | DEADLINES)

struct options {
    int flags;
    const struct arg *number; /* of the deadline; NULL: none is given */
};

/* Reads argv[i..], where the words in `allowed` may stand. The same word twice is no contradiction: the last
 * one counts. False: the error is said. */
static bool read_options(struct cx *cx, int i, int allowed, struct options *o) {
    static const char *const words[] = {"nx", "xx", "get", "keepttl", "persist", "ex", "px", "exat", "pxat"};
    for (*o = (struct options){0}; i < cx->argc; i++) {
        int w = 0, n = sizeof words / sizeof *words;
        while (w < n && !resp_arg_is(&cx->argv[i], words[w])) w++;
        int flag = 1 << w & allowed, rivals = flag & (NX | XX) ? NX | XX : flag == GET ? 0 : ~(NX | XX | GET);
        bool timed = flag & DEADLINES;
        if (!flag || o->flags & rivals & ~flag || (timed && i + 1 == cx->argc)) return cx_syntax_error(cx), false;
        o->flags |= flag;
        if (timed) o->number = &cx->argv[++i];
    }
    return true;
}

/* The deadline that the options come to, in absolute ms; STORE_NO_DEADLINE: none. False: the error is said. */
static bool options_deadline(struct cx *cx, const struct options *o, int64_t *deadline) {
    *deadline = STORE_NO_DEADLINE;
    return !o->number || cx_deadline(cx, o->number, o->flags & (EX | EXAT), o->flags & (EXAT | PXAT), deadline);
}

/* ---- SET ------------------------------------------------------------------------------------------------ */

/* Sets argv[1]. keep: the deadline is the one that the key had before. */
static void set_and_log(struct cx *cx, struct arg *val, int64_t deadline, bool keep) {
    struct arg *key = &cx->argv[1];
    bool timed = !keep && deadline != STORE_NO_DEADLINE;
    cx_set(cx, key, val, deadline);
    cx_event(cx->db, '$', "set", key);
    if (timed) cx_event(cx->db, 'g', "expire", key);
    struct arg log[] = {ARG("SET"), *key, *val, keep ? ARG("KEEPTTL") : ARG("PXAT"), cx_number(cx, 0, deadline)};
    cx_log(cx, keep ? 4 : timed ? 5 : 3, log);
}

static void set_with_options(struct cx *cx) {
    struct options o;
    int64_t deadline;
    if (!read_options(cx, 3, OF_SET, &o) || !options_deadline(cx, &o, &deadline)) return;
    struct entry *e = o.flags & GET ? cx_read(cx, &cx->argv[1]) : store_find(cx->db, &cx->argv[1]);
    bool refused = o.flags & (e ? NX : XX);
    if (o.flags & GET) cx_bulk_value(cx, e);
    if (e && o.flags & KEEPTTL) deadline = store_deadline(e);
    if (!refused) set_and_log(cx, &cx->argv[2], deadline, o.flags & KEEPTTL);
    if (o.flags & GET) return;
    if (refused) resp_null(cx->out);
    else resp_ok(cx->out);
}

void cmd_set(struct cx *cx) {
    if (cx->argc > 3) {
        set_with_options(cx);
    } else {
        cx_set(cx, &cx->argv[1], &cx->argv[2], STORE_NO_DEADLINE);
        cx_event(cx->db, '$', "set", &cx->argv[1]);
        resp_ok(cx->out);
    }
}

void cmd_setnx(struct cx *cx) {
    bool there = store_find(cx->db, &cx->argv[1]);
    if (!there) set_and_log(cx, &cx->argv[2], STORE_NO_DEADLINE, false);
    resp_int(cx->out, !there);
}

static void set_expiring(struct cx *cx, bool seconds) {
    int64_t deadline;
    if (!cx_deadline(cx, &cx->argv[2], seconds, false, &deadline)) return;
    set_and_log(cx, &cx->argv[3], deadline, false);
    resp_ok(cx->out);
}

void cmd_setex(struct cx *cx) { set_expiring(cx, true); }
void cmd_psetex(struct cx *cx) { set_expiring(cx, false); }

void cmd_getset(struct cx *cx) {
    cx_bulk_value(cx, cx_read(cx, &cx->argv[1]));
    set_and_log(cx, &cx->argv[2], STORE_NO_DEADLINE, false);
}

static void set_pairs(struct cx *cx, bool if_none_exists) {
    bool there = false;
    if (cx->argc % 2 == 0) {
        cx_arity_error(cx);
        return;
    }
    for (int i = 1; if_none_exists && !there && i < cx->argc; i += 2) there = store_find(cx->db, &cx->argv[i]);
    for (int i = 1; !there && i < cx->argc; i += 2) {
        struct arg val = cx->argv[i + 1];
        if (val.is_blob) resp_blob_ref(resp_arg_blob(&val)); /* a key named twice frees its first value, yet unlogged */
        cx_set(cx, &cx->argv[i], &val, STORE_NO_DEADLINE);
        cx_event(cx->db, '$', "set", &cx->argv[i]);
    }
    if (if_none_exists) resp_int(cx->out, !there);
    else resp_ok(cx->out);
}

void cmd_mset(struct cx *cx) { set_pairs(cx, false); }
void cmd_msetnx(struct cx *cx) { set_pairs(cx, true); }

/* ---- GET ------------------------------------------------------------------------------------------------ */

void cmd_get(struct cx *cx) { cx_bulk_value(cx, cx_read(cx, &cx->argv[1])); }

void cmd_mget(struct cx *cx) {
    resp_array(cx->out, (size_t)cx->argc - 1);
    for (int i = 1; i < cx->argc; i++) cx_bulk_value(cx, cx_read(cx, &cx->argv[i]));
}

static void delete_and_log(struct cx *cx) {
    store_delete(cx->db, &cx->argv[1]);
    cx_event(cx->db, 'g', "del", &cx->argv[1]);
    cx_log(cx, 2, (struct arg[]){ARG("DEL"), cx->argv[1]});
}

void cmd_getdel(struct cx *cx) {
    struct entry *e = cx_read(cx, &cx->argv[1]);
    cx_bulk_value(cx, e);
    if (e) delete_and_log(cx);
}

void cmd_getex(struct cx *cx) {
    struct options o;
    struct arg *key = &cx->argv[1];
    int64_t deadline;
    if (!read_options(cx, 2, OF_GETEX, &o)) return;
    struct entry *e = cx_read(cx, key);
    if (e && !options_deadline(cx, &o, &deadline)) return;
    cx_bulk_value(cx, e);
    if (!e) return;
    if (o.flags & (EXAT | PXAT) && deadline <= store_now()) {
        delete_and_log(cx);
    } else if (o.number || (o.flags & PERSIST && store_deadline(e) != STORE_NO_DEADLINE)) {
        store_set_deadline(cx->db, key, deadline);
        cx_event(cx->db, 'g', o.number ? "expire" : "persist", key);
        struct arg log[] = {o.number ? ARG("PEXPIREAT") : ARG("PERSIST"), *key, cx_number(cx, 0, deadline)};
        cx_log(cx, o.number ? 3 : 2, log);
    }
}

/* ---- parts of values ------------------------------------------------------------------------------------ */

void cmd_strlen(struct cx *cx) {
    size_t n;
    cx_value(cx_read(cx, &cx->argv[1]), &n);
    resp_int(cx->out, (int64_t)n);
}

void cmd_append(struct cx *cx) {
    struct arg *key = &cx->argv[1], *more = &cx->argv[2];
    struct entry *e = store_find(cx->db, key);
    size_t n;
    cx_value(e, &n);
    if (!check_length(cx, (int64_t)n, more->n)) return;
    if (e) memcpy(cx_edit(cx, key, n + more->n) + n, more->p, more->n);
    else cx_set(cx, key, more, STORE_NO_DEADLINE);
    cx_event(cx->db, '$', "append", key);
    resp_int(cx->out, (int64_t)(n + more->n));
}

void cmd_getrange(struct cx *cx) {
    int64_t start, end;
    if (!cx_int(cx, 2, &start) || !cx_int(cx, 3, &end)) return;
    struct entry *e = cx_read(cx, &cx->argv[1]);
    size_t n;
    const char *p = cx_value(e, &n);
    int64_t len = (int64_t)n;
    bool backwards = start < 0 && end < 0 && start > end;
    if (start < 0) start = start + len > 0 ? start + len : 0;
    if (end < 0) end = end + len > 0 ? end + len : 0;
    if (end >= len) end = len - 1;
    n = (size_t)(end - start + 1);
    if (backwards || start > end) resp_bulk(cx->out, "", 0);
    else if (start == 0 && n >= RESP_BLOB_MIN && store_blob(e)) resp_blob(cx->out, store_blob(e), n);
    else resp_bulk(cx->out, p + start, n);
}

void cmd_setrange(struct cx *cx) {
    struct arg *key = &cx->argv[1], *val = &cx->argv[3];
    int64_t offset;
    size_t n;
    if (!cx_int(cx, 2, &offset)) return;
    cx_value(store_find(cx->db, key), &n);
    if ((offset < 0 || val->n) && !check_length(cx, offset, val->n)) return;
    if (val->n) {
        if ((size_t)offset + val->n > n) n = (size_t)offset + val->n;
        memcpy(cx_edit(cx, key, n) + offset, val->p, val->n);
        cx_event(cx->db, '$', "setrange", key);
    }
    resp_int(cx->out, (int64_t)n);
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

static void increment(struct cx *cx, int64_t by) {
    struct arg *key = &cx->argv[1];
    struct entry *e = store_find(cx->db, key);
    int64_t v = 0;
    size_t n;
    const char *p = cx_value(e, &n);
    char digits[RESP_INT_MAX];
    if (e && !resp_read_int(p, n, &v)) {
        cx_not_integer(cx);
    } else if (__builtin_add_overflow(v, by, &v)) {
        resp_error(cx->out, "ERR increment or decrement would overflow");
    } else {
        n = (size_t)resp_write_int(digits, v);
        if (!e) cx_event(cx->db, 'n', "new", key);
        memcpy(store_edit(cx->db, key, n, false), digits, n);
        cx_event(cx->db, '$', "incrby", key);
        resp_int(cx->out, v);
    }
}

void cmd_incr(struct cx *cx) { increment(cx, 1); }
void cmd_decr(struct cx *cx) { increment(cx, -1); }

void cmd_incrby(struct cx *cx) {
    int64_t by;
    if (cx_int(cx, 2, &by)) increment(cx, by);
}

void cmd_decrby(struct cx *cx) {
    int64_t by;
    if (!cx_int(cx, 2, &by)) return;
    if (by == INT64_MIN) resp_error(cx->out, "ERR decrement would overflow"); /* it has no negative */
    else increment(cx, -by);
}

void cmd_incrbyfloat(struct cx *cx) {
    struct arg *key = &cx->argv[1], *number = &cx->argv[2];
    struct entry *e = store_find(cx->db, key);
    long double v = 0, by;
    size_t n;
    const char *p = cx_value(e, &n);
    char digits[5 * 1024]; /* 4933 before the point, 17 behind */
    if ((e && !resp_read_float(p, n, &v)) || !resp_read_float(number->p, number->n, &by)) {
        resp_error(cx->out, "ERR value is not a valid float");
    } else if (!isfinite(v += by)) {
        resp_error(cx->out, "ERR increment would produce NaN or Infinity");
    } else {
        struct arg val = {.p = digits, .n = (uint32_t)resp_write_float(digits, sizeof digits, v)};
        e = cx_set(cx, key, &val, e ? store_deadline(e) : STORE_NO_DEADLINE);
        cx_event(cx->db, '$', "incrbyfloat", key);
        resp_bulk(cx->out, val.p, val.n);
        val.p = store_value(e, &n); /* digits[] is gone when this is logged */
        cx_log(cx, 4, (struct arg[]){ARG("SET"), *key, val, ARG("KEEPTTL")});
    }
}

/* ---- LCS: the longest common subsequence of two values ---------------------------------------------------
 * The textbook's dynamic programming. len[i][j] is the length of the longest common subsequence of a's first i
 * and b's first j bytes; walking back from the last cell finds it, as runs of bytes that stand together in
 * both. The table takes 4 (alen + 1) (blen + 1) bytes, which proto-max-bulk-len bounds. */

struct lcs {
    const char *a, *b;
    size_t alen, blen;
    uint32_t *len; /* (alen + 1) rows of blen + 1 */
    bool indexes, only_length, with_length;
    int64_t min_run;
};

static uint32_t lcs_at(const struct lcs *l, size_t i, size_t j) { return l->len[i * (l->blen + 1) + j]; }

static bool lcs_options(struct cx *cx, struct lcs *l) {
    for (int i = 3; i < cx->argc; i++) {
        const struct arg *word = &cx->argv[i];
        if (resp_arg_is(word, "idx")) l->indexes = true;
        else if (resp_arg_is(word, "len")) l->only_length = true;
        else if (resp_arg_is(word, "withmatchlen")) l->with_length = true;
        else if (!resp_arg_is(word, "minmatchlen") || ++i == cx->argc) return cx_syntax_error(cx), false;
        else if (!cx_int(cx, i, &l->min_run)) return false;
    }
    if (!l->indexes || !l->only_length) return true;
    resp_error(cx->out, "ERR If you want both the length and indexes, please just use IDX.");
    return false;
}

static bool lcs_allocate(struct cx *cx, struct lcs *l) {
    size_t cells = (l->alen + 1) * (l->blen + 1); /* at most 2^29 + 1 each: no overflow */
    bool allowed = cells * sizeof *l->len <= (size_t)config.proto_max_bulk_len;
    if (allowed && (l->len = calloc(cells, sizeof *l->len))) return true;
    resp_errorf(cx->out, "ERR Insufficient memory, %s",
                allowed ? "failed allocating transient memory for LCS"
                        : "transient memory for LCS exceeds proto-max-bulk-len");
    return false;
}

static void lcs_fill(struct lcs *l) {
    size_t row = l->blen + 1;
    for (size_t i = 1; i <= l->alen; i++) {
        const uint32_t *above = l->len + (i - 1) * row;
        uint32_t *here = l->len + i * row;
        for (size_t j = 1; j < row; j++) {
            uint32_t longer = above[j] > here[j - 1] ? above[j] : here[j - 1];
            here[j] = l->a[i - 1] == l->b[j - 1] ? above[j - 1] + 1 : longer;
        }
    }
}

/* Walks back from a's first i and b's first j bytes to the next run's start; returns its length, 0: no more. */
static size_t lcs_run(const struct lcs *l, size_t *i, size_t *j) {
    size_t n = 0;
    while (*i && *j && l->a[*i - 1] != l->b[*j - 1]) {
        if (lcs_at(l, *i - 1, *j) > lcs_at(l, *i, *j - 1)) --*i;
        else --*j;
    }
    for (; *i && *j && l->a[*i - 1] == l->b[*j - 1]; n++) --*i, --*j;
    return n;
}

static void lcs_reply_range(struct resp_out *out, size_t start, size_t n) {
    resp_array(out, 2);
    resp_int(out, (int64_t)start);
    resp_int(out, (int64_t)(start + n - 1));
}

static void lcs_reply_indexes(struct resp_out *out, const struct lcs *l) {
    size_t i = l->alen, j = l->blen, matches = 0, n;
    resp_map(out, 2);
    resp_bulk_str(out, "matches");
    size_t mark = resp_later(out);
    while ((n = lcs_run(l, &i, &j))) {
        if ((int64_t)n < l->min_run) continue;
        resp_array(out, l->with_length ? 3 : 2);
        lcs_reply_range(out, i, n);
        lcs_reply_range(out, j, n);
        if (l->with_length) resp_int(out, (int64_t)n);
        matches++;
    }
    resp_later_array(out, mark, matches);
    resp_bulk_str(out, "len");
    resp_int(out, lcs_at(l, l->alen, l->blen));
}

static void lcs_reply_bytes(struct resp_out *out, const struct lcs *l) {
    size_t i = l->alen, j = l->blen, len = lcs_at(l, i, j), left = len, n;
    struct blob *b = resp_blob_new(len);
    while ((n = lcs_run(l, &i, &j))) memcpy(b->data + (left -= n), l->a + i, n);
    resp_bulk(out, b->data, len);
    resp_blob_release(b);
}

void cmd_lcs(struct cx *cx) {
    cx_read(cx, &cx->argv[1]);
    struct entry *b = cx_read(cx, &cx->argv[2]), *a = store_peek(cx->db, &cx->argv[1]); /* b may just have expired */
    struct lcs l = {0};
    l.a = cx_value(a, &l.alen);
    l.b = cx_value(b, &l.blen);
    if (!lcs_options(cx, &l) || !lcs_allocate(cx, &l)) return;
    lcs_fill(&l);
    if (l.indexes) lcs_reply_indexes(cx->out, &l);
    else if (l.only_length) resp_int(cx->out, lcs_at(&l, l.alen, l.blen));
    else lcs_reply_bytes(cx->out, &l);
    free(l.len);
}
