/* strings.c - the commands on whole values, parts of values and numbers: GET and SET with all their kin, APPEND,
 * GETRANGE, INCR and LCS; and the look-ups and changes that commands share.
 *
 * A command reads its arguments, looks its keys up, and only when nothing can be wrong any more changes the store: one
 * that is refused has changed nothing. Numbers are kept as the text that a client would send: INCR reads the digits
 * and writes the new ones in their place.
 *
 * What is logged must give the same state without a clock and without the key's past: a deadline goes into the log as
 * the absolute time that it came to (SET key value PXAT ms), the sum of floats as its digits, a condition (NX, XX) that
 * held as a plain SET.
 */
#include "commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STRING_MAX (INT64_C(512) << 20) /* what the store takes, whatever proto-max-bulk-len says */

/* ---- what commands share -------------------------------------------------------------------------------- */

/* Counts the look-up that gave e. */
static struct entry *counted(struct cx *cx, const struct arg *key, struct entry *e) {
    *(e ? &server_stats.hits : &server_stats.misses) += 1;
    if (!e && !strchr(cx->cmd->name, '|')) cx_event(cx->db, 'm', "keymiss", key); /* OBJECT's subcommands report none */
    return e;
}

struct entry *cx_read(struct cx *cx, struct arg *key) {
    bool touch = !cx->client || !(cx->client->flags & CLIENT_NO_TOUCH);
    return counted(cx, key, touch ? store_find(cx->db, key) : store_peek(cx->db, key));
}

struct entry *cx_peek(struct cx *cx, struct arg *key) {
    return counted(cx, key, store_peek(cx->db, key));
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

void cx_delete(struct cx *cx) {
    store_delete(cx->db, &cx->argv[1]);
    cx_event(cx->db, 'g', "del", &cx->argv[1]);
    cx_log(cx, 2, (struct arg[]){ARG("DEL"), cx->argv[1]});
}

int64_t cx_max_string(const struct cx *cx) {
    bool obey = !cx->client || cx->client->flags & CLIENT_LEADER; /* what was accepted once must stay possible */
    return obey || config.proto_max_bulk_len > STRING_MAX ? STRING_MAX : config.proto_max_bulk_len;
}

/* Whether n bytes may stand at offset `at` of a value; false: the error is said. */
static bool check_length(struct cx *cx, int64_t at, size_t n) {
    int64_t max = cx_max_string(cx);
    return cx_check(cx, at >= 0, "ERR offset is out of range") &&
           cx_check(cx, at <= max && (int64_t)n <= max - at,
                    "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
}

/* ---- the options of SET and GETEX ----------------------------------------------------------------------- */

/* In the order of the words in read_options(). */
enum { EX = 1, PX = 2, NX = 4, XX = 8, GET = 16, KEEPTTL = 32, EXAT = 64, PXAT = 128, PERSIST = 256 };
#define DEADLINES (EX | PX | EXAT | PXAT)

/* Reads argv[i..], where the words in `allowed` may stand; number: which argument is the deadline's, 0: there is none.
 * The same word twice is no contradiction: the last one counts. Returns the words' bits; -1: the error is said. */
static int read_options(struct cx *cx, int i, int allowed, int *number) {
    int flags = 0;
    for (*number = 0; i < cx->argc; i++) {
        int flag = resp_arg_flag(&cx->argv[i], "ex px nx xx get keepttl exat pxat persist") & allowed;
        int rivals = flag & (NX | XX) ? NX | XX : flag == GET ? 0 : ~(NX | XX | GET);
        if (flag & DEADLINES) *number = ++i;
        if (!cx_check(cx, flag && !(flags & rivals & ~flag) && i < cx->argc, "ERR syntax error")) return -1;
        flags |= flag;
    }
    return flags;
}

static bool read_deadline(struct cx *cx, int number, int flags, int64_t *deadline) {
    return !number || cx_deadline(cx, number, 1, flags & (EX | EXAT), flags & (EXAT | PXAT), deadline);
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
    int number, flags = read_options(cx, 3, NX | XX | GET | KEEPTTL | DEADLINES, &number);
    int64_t deadline = STORE_NO_DEADLINE;
    if (flags < 0 || !read_deadline(cx, number, flags, &deadline)) return;
    struct entry *e = flags & GET ? cx_read(cx, &cx->argv[1]) : store_find(cx->db, &cx->argv[1]);
    bool refused = flags & (e ? NX : XX);
    if (flags & GET) cx_bulk_value(cx, e);
    if (e && flags & KEEPTTL) deadline = store_deadline(e);
    if (!refused) set_and_log(cx, &cx->argv[2], deadline, flags & KEEPTTL);
    if (flags & GET) return;
    if (refused) resp_null(cx->out);
    else resp_ok(cx->out);
}

static void set_expiring(struct cx *cx, bool seconds) {
    int64_t deadline;
    if (!cx_deadline(cx, 2, 1, seconds, false, &deadline)) return;
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
void cmd_setnx(struct cx *cx) { set_pairs(cx, true); }

void cmd_set(struct cx *cx) {
    if (cx->argc > 3) set_with_options(cx);
    else set_pairs(cx, false);
}

/* ---- GET ------------------------------------------------------------------------------------------------ */

void cmd_get(struct cx *cx) { cx_bulk_value(cx, cx_read(cx, &cx->argv[1])); }

void cmd_mget(struct cx *cx) {
    resp_array(cx->out, (size_t)cx->argc - 1);
    for (int i = 1; i < cx->argc; i++) cx_bulk_value(cx, cx_read(cx, &cx->argv[i]));
}

void cmd_getdel(struct cx *cx) {
    struct entry *e = cx_read(cx, &cx->argv[1]);
    cx_bulk_value(cx, e);
    if (e) cx_delete(cx);
}

void cmd_getex(struct cx *cx) {
    int number, flags = read_options(cx, 2, PERSIST | DEADLINES, &number);
    int64_t deadline;
    if (flags < 0) return;
    struct entry *e = cx_read(cx, &cx->argv[1]);
    if (e && !read_deadline(cx, number, flags, &deadline)) return;
    cx_bulk_value(cx, e);
    if (e && number && cx_expire(cx, deadline)) cx_event(cx->db, 'g', "expire", &cx->argv[1]);
    if (flags & PERSIST) cx_persist(cx, e);
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
    if (!cx_check(cx, !e || resp_read_int(p, n, &v), "ERR value is not an integer or out of range") ||
        !cx_check(cx, !__builtin_add_overflow(v, by, &v), "ERR increment or decrement would overflow"))
        return;
    if (!e) cx_event(cx->db, 'n', "new", key);
    n = (size_t)resp_write_int(digits, v);
    memcpy(store_edit(cx->db, key, n, false), digits, n);
    cx_event(cx->db, '$', "incrby", key);
    resp_int(cx->out, v);
}

void cmd_incr(struct cx *cx) { increment(cx, 1); }
void cmd_decr(struct cx *cx) { increment(cx, -1); }

void cmd_incrby(struct cx *cx) {
    int64_t by;
    if (cx_int(cx, 2, &by)) increment(cx, by);
}

void cmd_decrby(struct cx *cx) {
    int64_t by; /* the least integer has no negative */
    if (cx_int(cx, 2, &by) && cx_check(cx, by != INT64_MIN, "ERR decrement would overflow")) increment(cx, -by);
}

void cmd_incrbyfloat(struct cx *cx) {
    struct arg *key = &cx->argv[1], *number = &cx->argv[2];
    struct entry *e = store_find(cx->db, key);
    long double v = 0, by;
    size_t n;
    const char *p = cx_value(e, &n);
    char digits[5 * 1024]; /* 4933 before the point, 17 behind */
    bool numbers = (!e || resp_read_float(p, n, &v)) && resp_read_float(number->p, number->n, &by);
    if (!cx_check(cx, numbers, "ERR value is not a valid float") ||
        !cx_check(cx, isfinite(v += by), "ERR increment would produce NaN or Infinity"))
        return;
    struct arg val = {.p = digits, .n = (uint32_t)resp_write_float(digits, sizeof digits, v)};
    e = cx_set(cx, key, &val, e ? store_deadline(e) : STORE_NO_DEADLINE);
    cx_event(cx->db, '$', "incrbyfloat", key);
    resp_bulk(cx->out, val.p, val.n);
    val.p = store_value(e, &n); /* digits[] is gone when this is logged */
    cx_log(cx, 4, (struct arg[]){ARG("SET"), *key, val, ARG("KEEPTTL")});
}

/* ---- LCS: the longest common subsequence of two values ---------------------------------------------------
 * The textbook's dynamic programming. len[i][j] is the length of the longest common subsequence of a's first i and b's
 * first j bytes; walking back from the last cell finds it, as runs of bytes that stand together in both. The table
 * takes 4 (alen + 1) (blen + 1) bytes, which proto-max-bulk-len bounds. */

enum { IDX = 1, LEN = 2, MINMATCHLEN = 4, WITHMATCHLEN = 8 };

struct lcs {
    const char *a, *b;
    size_t alen, blen;
    uint32_t *len; /* (alen + 1) rows of blen + 1 */
    int options;
    int64_t min_run;
};

static uint32_t *lcs_at(const struct lcs *l, size_t i, size_t j) { return &l->len[i * (l->blen + 1) + j]; }

static bool lcs_options(struct cx *cx, struct lcs *l) {
    for (int i = 3; i < cx->argc; i++) {
        int option = resp_arg_flag(&cx->argv[i], "idx len minmatchlen withmatchlen");
        if (option == MINMATCHLEN) i++;
        if (!cx_check(cx, option && i < cx->argc, "ERR syntax error")) return false;
        if (option == MINMATCHLEN && !cx_int(cx, i, &l->min_run)) return false;
        l->options |= option;
    }
    return cx_check(cx, !(l->options & IDX && l->options & LEN),
                    "ERR If you want both the length and indexes, please just use IDX.");
}

static bool lcs_allocate(struct cx *cx, struct lcs *l) {
    size_t cells = (l->alen + 1) * (l->blen + 1); /* at most 2^29 + 1 each: no overflow */
    bool allowed = cells * sizeof *l->len <= (size_t)config.proto_max_bulk_len;
    if (allowed) l->len = calloc(cells, sizeof *l->len);
    return cx_check(cx, l->len,
                    allowed ? "ERR Insufficient memory, failed allocating transient memory for LCS"
                            : "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
}

static void lcs_fill(struct lcs *l) {
    for (size_t i = 1; i <= l->alen; i++)
        for (size_t j = 1; j <= l->blen; j++) {
            uint32_t above = *lcs_at(l, i - 1, j), before = *lcs_at(l, i, j - 1);
            bool same = l->a[i - 1] == l->b[j - 1];
            *lcs_at(l, i, j) = same ? *lcs_at(l, i - 1, j - 1) + 1 : above > before ? above : before;
        }
}

/* Walks back from a's first i and b's first j bytes to the next run's start; returns its length, 0: no more. */
static size_t lcs_run(const struct lcs *l, size_t *i, size_t *j) {
    size_t n = 0;
    while (*i && *j && l->a[*i - 1] != l->b[*j - 1]) {
        if (*lcs_at(l, *i - 1, *j) > *lcs_at(l, *i, *j - 1)) --*i;
        else --*j;
    }
    for (; *i && *j && l->a[*i - 1] == l->b[*j - 1]; n++) --*i, --*j;
    return n;
}

static void lcs_reply_indexes(struct resp_out *out, const struct lcs *l) {
    size_t i = l->alen, j = l->blen, matches = 0, n;
    resp_map(out, 2);
    resp_bulk_str(out, "matches");
    size_t mark = resp_later(out);
    while ((n = lcs_run(l, &i, &j))) {
        if ((int64_t)n < l->min_run) continue;
        resp_array(out, l->options & WITHMATCHLEN ? 3 : 2);
        for (int of_b = 0; of_b < 2; of_b++) {
            int64_t start = (int64_t)(of_b ? j : i);
            resp_array(out, 2);
            resp_int(out, start);
            resp_int(out, start + (int64_t)n - 1);
        }
        if (l->options & WITHMATCHLEN) resp_int(out, (int64_t)n);
        matches++;
    }
    resp_later_array(out, mark, matches);
    resp_bulk_str(out, "len");
    resp_int(out, *lcs_at(l, l->alen, l->blen));
}

static void lcs_reply_bytes(struct resp_out *out, const struct lcs *l) {
    size_t i = l->alen, j = l->blen, len = *lcs_at(l, i, j), left = len, n;
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
    if (l.options & IDX) lcs_reply_indexes(cx->out, &l);
    else if (l.options & LEN) resp_int(cx->out, *lcs_at(&l, l.alen, l.blen));
    else lcs_reply_bytes(cx->out, &l);
    free(l.len);
}
