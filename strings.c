/* strings.c - the commands on whole values, parts of values and numbers: GET and SET with all their kin, APPEND,
 * GETRANGE, INCR and LCS; and the look-ups and changes that commands share. What needs a script in Redis 7.0 (a lock, a
 * limiter, a compare-and-set) is one command, as in its successors; of theirs, conditions on a digest are left out.
 *
 * A command reads its arguments, looks its keys up, and only when nothing can be wrong any more changes the store: one
 * that is refused has changed nothing. Numbers are kept as the text that a client would send: INCR reads the digits
 * and writes the new ones in their place.
 *
 * What is logged must give the same state without a clock and without the key's past: a deadline goes into the log as
 * the absolute time that it came to (SET key value PXAT ms), the sum of floats as its digits, a condition (NX, IFEQ)
 * that held as a plain SET. Every form is one that Redis 7.0 reads.
 */
#include "commands.h"

#include <float.h>
#include <math.h>

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
    bool new = *config.event_letters && !store_peek(cx->db, key);
    struct entry *e = store_set(cx->db, key, val, deadline);
    if (new) cx_event(cx->db, 'n', "new", key);
    return e;
}

char *cx_edit(struct cx *cx, struct arg *key, size_t n) {
    if (!store_peek(cx->db, key)) cx_event(cx->db, 'n', "new", key);
    return store_edit(cx->db, key, n, true);
}

void cx_delete(struct cx *cx) {
    store_delete(cx->db, &cx->argv[1]);
    cx_event(cx->db, 'g', "del", &cx->argv[1]);
    cx_log(cx, 2, (struct arg[]){ARG("DEL"), cx->argv[1]});
}

bool cx_memory(struct cx *cx, const struct entry *e, size_t n) {
    const struct blob *b = store_blob(e);
    size_t had = b && b->refs == 1 ? b->cap : 0;
    return cx_check(cx, n <= had || resp_memory_left(n - had), RESP_NO_MEMORY);
}

int64_t cx_max_string(const struct cx *cx) {
    bool obey = !cx->client || cx->client->flags & CLIENT_LEADER; /* what was accepted once must stay possible */
    return obey || config.proto_max_bulk_len > RESP_STRING_MAX ? RESP_STRING_MAX : config.proto_max_bulk_len;
}

bool cx_range(int64_t n, int64_t *first, int64_t *last) {
    if (*first < 0) *first = *first + n > 0 ? *first + n : 0;
    if (*last < 0) *last = *last + n > 0 ? *last + n : 0;
    if (*last >= n) *last = n - 1;
    return *first <= *last;
}

bool cx_options(struct cx *cx, int i, const char *words, int texts, int numbers, int64_t least, struct cx_options *o) {
    for (*o = (struct cx_options){0}; i < cx->argc; i++) {
        int word = resp_arg_flag(&cx->argv[i], words), bit = __builtin_ctz((unsigned)word | 1u << 31);
        if (word & (texts | numbers)) i++;
        if (!cx_check(cx, word && i < cx->argc, "ERR syntax error")) return false;
        if (word & numbers && !cx_int(cx, i, &o->number[bit])) return false;
        if (word & numbers && !cx_check(cx, o->number[bit] >= least, "ERR syntax error")) return false;
        if (word & texts) o->value[bit] = &cx->argv[i];
        o->twice |= o->words & word;
        o->words |= word;
    }
    return true;
}

/* Whether n bytes may stand at offset `at` of a value; false: the error is said. */
static bool check_length(struct cx *cx, int64_t at, size_t n) {
    int64_t max = cx_max_string(cx);
    return cx_check(cx, at >= 0, "ERR offset is out of range") &&
           cx_check(cx, at <= max && (int64_t)n <= max - at,
                    "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
}

/* ---- the options of SET, GETEX, MSETEX and INCREX -------------------------------------------------------- */

/* In the order of the words. */
enum { EX = 1, PX = 2, NX = 4, XX = 8, GET = 16, KEEPTTL = 32, EXAT = 64, PXAT = 128, PERSIST = 256, IFEQ = 512 };
enum { IFNE = 1 << 10, BYINT = 1 << 11, BYFLOAT = 1 << 12, LBOUND = 1 << 13, UBOUND = 1 << 14, SATURATE = 1 << 15 };
enum { ENX = 1 << 16, DEADLINES = EX | PX | EXAT | PXAT, NUMBERS = BYINT | BYFLOAT | LBOUND | UBOUND };
static const char option_words[] = "ex px nx xx get keepttl exat pxat persist ifeq ifne byint byfloat lbound ubound "
                                   "saturate enx";
/* Of each of these at most one may stand. */
static const int rivals[] = {NX | XX | IFEQ | IFNE, DEADLINES | KEEPTTL | PERSIST, PERSIST | ENX, BYINT | BYFLOAT};

/* Reads argv[i..], where the words in `allowed` may stand. One that is there twice is no contradiction, but for those
 * that Redis came to know when it had become stricter. False: the error is said. */
static bool read_options(struct cx *cx, int i, int allowed, struct cx_options *o) {
    if (!cx_options(cx, i, option_words, DEADLINES | IFEQ | IFNE | NUMBERS, 0, 0, o)) return false;
    bool well = !(o->words & ~allowed) && !(o->twice & (allowed & BYINT ? allowed : IFEQ | IFNE));
    for (int g = 0; g < 4; g++) well &= __builtin_popcount((unsigned)(o->words & rivals[g])) <= 1;
    return cx_check(cx, well, "ERR syntax error");
}

/* The value of the one of these words that is there; NULL: none is. */
static const struct arg *option(const struct cx_options *o, int words) {
    return o->words & words ? o->value[__builtin_ctz((unsigned)(o->words & words))] : NULL;
}

static bool read_deadline(struct cx *cx, const struct cx_options *o, int64_t *deadline) {
    const struct arg *a = option(o, DEADLINES);
    return !a || cx_deadline(cx, (int)(a - cx->argv), 1, o->words & (EX | EXAT), o->words & (EXAT | PXAT), deadline);
}

/* ---- SET ------------------------------------------------------------------------------------------------ */

/* keep: the deadline is the one that the key had before. */
static void log_set(struct cx *cx, const struct arg *key, const struct arg *val, int64_t deadline, bool keep) {
    bool timed = !keep && deadline != STORE_NO_DEADLINE;
    struct arg log[] = {ARG("SET"), *key, *val, keep ? ARG("KEEPTTL") : ARG("PXAT"), cx_number(cx, deadline)};
    cx_log(cx, 3 + keep + 2 * timed, log);
}

/* Sets argv[1]. What is logged is the store's copy: digits in val may be gone by then. */
static void set_and_log(struct cx *cx, const char *event, struct arg *val, int64_t deadline, bool keep) {
    struct arg *key = &cx->argv[1], copy = store_value(cx_set(cx, key, val, deadline));
    cx_event(cx->db, '$', event, key);
    if (!keep && deadline != STORE_NO_DEADLINE) cx_event(cx->db, 'g', "expire", key);
    log_set(cx, key, &copy, deadline, keep);
}

static bool has_value(const struct entry *e, const struct arg *value) { return e && cx_same(store_value(e), *value); }

static void set_with_options(struct cx *cx) {
    struct cx_options o;
    int64_t deadline = STORE_NO_DEADLINE;
    bool well = read_options(cx, 3, NX | XX | IFEQ | IFNE | GET | KEEPTTL | DEADLINES, &o);
    if (!well || !read_deadline(cx, &o, &deadline)) return;
    struct entry *e = o.words & GET ? cx_read(cx, &cx->argv[1]) : store_find(cx->db, &cx->argv[1]);
    const struct arg *old = option(&o, IFEQ | IFNE);
    bool same = old && has_value(e, old), refused = o.words & ((e ? NX : XX) | (same ? IFNE : IFEQ));
    if (o.words & GET) cx_bulk_value(cx, e);
    if (o.words & KEEPTTL) deadline = store_deadline(e);
    if (!refused) set_and_log(cx, "set", &cx->argv[2], deadline, o.words & KEEPTTL);
    if (o.words & GET) return;
    if (cx_or_null(cx, !refused)) resp_ok(cx->out);
}

/* SETEX and PSETEX. */
void cmd_setex(struct cx *cx) {
    int64_t deadline;
    if (!cx_deadline(cx, 2, 1, *cx->cmd->name == 's', false, &deadline)) return;
    set_and_log(cx, "set", &cx->argv[3], deadline, false);
    resp_ok(cx->out);
}

void cmd_getset(struct cx *cx) {
    cx_bulk_value(cx, cx_read(cx, &cx->argv[1]));
    set_and_log(cx, "set", &cx->argv[2], STORE_NO_DEADLINE, false);
}

/* Sets the pairs argv[first..end), all or, if the words NX or XX say so, none of them. Returns whether they are set. */
static bool set_pairs(struct cx *cx, int first, int end, int words, int64_t deadline) {
    for (int i = first; words & (NX | XX) && i < end; i += 2)
        if (words & (store_find(cx->db, &cx->argv[i]) ? NX : XX)) return false;
    for (int i = first; i < end; i += 2) {
        struct arg *key = &cx->argv[i], val = key[1];
        struct entry *e = words & KEEPTTL ? store_find(cx->db, key) : NULL;
        if (val.is_blob) resp_blob_ref(resp_arg_blob(&val)); /* a key named twice frees its first value, yet unlogged */
        cx_set(cx, key, &val, e ? store_deadline(e) : deadline);
        cx_event(cx->db, '$', "set", key);
        if (deadline != STORE_NO_DEADLINE) cx_event(cx->db, 'g', "expire", key);
    }
    return true;
}

void cmd_mset(struct cx *cx) {
    if (cx_arity(cx, cx->argc % 2) && set_pairs(cx, 1, cx->argc, 0, STORE_NO_DEADLINE)) resp_ok(cx->out);
}

void cmd_msetnx(struct cx *cx) {
    if (cx_arity(cx, cx->argc % 2)) resp_int(cx->out, set_pairs(cx, 1, cx->argc, NX, STORE_NO_DEADLINE));
}

void cmd_msetex(struct cx *cx) {
    int64_t pairs, deadline = STORE_NO_DEADLINE;
    struct cx_options o;
    bool number = resp_read_int(cx->argv[1].p, cx->argv[1].n, &pairs) && pairs >= 1 && pairs <= INT_MAX;
    if (!cx_check(cx, number, "ERR invalid numkeys value") ||
        !cx_check(cx, pairs <= (cx->argc - 2) / 2, "ERR wrong number of key-value pairs"))
        return;
    int end = 2 + 2 * (int)pairs;
    if (!read_options(cx, end, NX | XX | KEEPTTL | DEADLINES, &o) || !read_deadline(cx, &o, &deadline)) return;
    bool set = set_pairs(cx, 2, end, o.words, deadline), begun = set && log_begin(); /* within EXEC it has begun */
    for (int i = 2; set && i < end; i += 2) log_set(cx, &cx->argv[i], &cx->argv[i + 1], deadline, o.words & KEEPTTL);
    if (begun) log_commit();
    resp_int(cx->out, set);
}

void cmd_set(struct cx *cx) {
    if (cx->argc > 3) set_with_options(cx);
    else cmd_mset(cx);
}

/* ---- GET ------------------------------------------------------------------------------------------------ */

void cmd_get(struct cx *cx) { cx_bulk_value(cx, cx_read(cx, &cx->argv[1])); }

void cmd_mget(struct cx *cx) {
    resp_array(cx->out, (size_t)cx->argc - 1);
    for (int i = 1; i < cx->argc && !client_drowns(cx->client); i++) cx_bulk_value(cx, cx_read(cx, &cx->argv[i]));
}

void cmd_getdel(struct cx *cx) {
    struct entry *e = cx_read(cx, &cx->argv[1]);
    cx_bulk_value(cx, e);
    if (e) cx_delete(cx);
}

void cmd_getex(struct cx *cx) {
    struct cx_options o;
    int64_t deadline = STORE_NO_DEADLINE;
    if (!read_options(cx, 2, PERSIST | DEADLINES, &o)) return;
    struct entry *e = cx_read(cx, &cx->argv[1]);
    if (e && !read_deadline(cx, &o, &deadline)) return;
    cx_bulk_value(cx, e);
    if (e && o.words & DEADLINES && cx_expire(cx, deadline)) cx_event(cx->db, 'g', "expire", &cx->argv[1]);
    if (o.words & PERSIST) cx_persist(cx, e);
}

/* DELEX, and DELIFEQ, which has its condition in its name. */
void cmd_delex(struct cx *cx) {
    bool named = cx->cmd->arity == 3;
    int condition = named ? IFEQ : cx->argc == 4 ? resp_arg_flag(&cx->argv[2], option_words) & (IFEQ | IFNE) : 0;
    if (!cx_arity(cx, named || cx->argc == 2 || cx->argc == 4) ||
        !cx_check(cx, cx->argc == 2 || condition, "ERR Invalid condition. Use IFEQ or IFNE"))
        return;
    struct entry *e = store_find(cx->db, &cx->argv[1]);
    bool due = e && (!condition || has_value(e, &cx->argv[cx->argc - 1]) == (condition == IFEQ));
    if (due) cx_delete(cx);
    resp_int(cx->out, due);
}

/* ---- parts of values ------------------------------------------------------------------------------------ */

void cmd_strlen(struct cx *cx) { resp_int(cx->out, store_value(cx_read(cx, &cx->argv[1])).n); }

void cmd_append(struct cx *cx) {
    struct arg *key = &cx->argv[1], *more = &cx->argv[2];
    struct entry *e = store_find(cx->db, key);
    size_t n = store_value(e).n;
    if (!check_length(cx, (int64_t)n, more->n) || !cx_memory(cx, e, n + more->n)) return;
    if (e) memcpy(cx_edit(cx, key, n + more->n) + n, more->p, more->n);
    else cx_set(cx, key, more, STORE_NO_DEADLINE);
    cx_event(cx->db, '$', "append", key);
    resp_int(cx->out, (int64_t)(n + more->n));
}

void cmd_getrange(struct cx *cx) {
    int64_t start, end;
    if (!cx_int(cx, 2, &start) || !cx_int(cx, 3, &end)) return;
    struct entry *e = cx_read(cx, &cx->argv[1]);
    struct arg value = store_value(e);
    bool backwards = start < 0 && end < 0 && start > end, some = cx_range(value.n, &start, &end) && !backwards;
    size_t n = (size_t)(end - start + 1);
    bool whole = start == 0 && n >= RESP_BLOB_MIN && store_blob(e);
    if (!some) resp_bulk(cx->out, "", 0);
    else if (!whole && !cx_memory(cx, NULL, 2 * n)) return;
    else if (whole) resp_blob(cx->out, store_blob(e), n);
    else resp_bulk(cx->out, value.p + start, n);
}

void cmd_setrange(struct cx *cx) {
    struct arg *key = &cx->argv[1], *val = &cx->argv[3];
    int64_t offset;
    if (!cx_int(cx, 2, &offset)) return;
    struct entry *e = store_find(cx->db, key);
    size_t n = store_value(e).n;
    if ((offset < 0 || val->n) && !check_length(cx, offset, val->n)) return;
    if (val->n) {
        if ((size_t)offset + val->n > n) n = (size_t)offset + val->n;
        if (!cx_memory(cx, e, n)) return;
        memcpy(cx_edit(cx, key, n) + offset, val->p, val->n);
        cx_event(cx->db, '$', "setrange", key);
    }
    resp_int(cx->out, (int64_t)n);
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

/* INCR, INCRBY, DECR and DECRBY. */
void cmd_incr(struct cx *cx) {
    struct arg *key = &cx->argv[1];
    bool down = *cx->cmd->name == 'd';
    int64_t by = 1;
    if ((cx->argc > 2 && !cx_int(cx, 2, &by)) ||
        !cx_check(cx, !down || by != INT64_MIN, "ERR decrement would overflow")) /* the least has no negative */
        return;
    struct entry *e = store_find(cx->db, key);
    int64_t v = 0;
    struct arg old = store_value(e);
    if (!cx_check(cx, !e || resp_read_int(old.p, old.n, &v), "ERR value is not an integer or out of range") ||
        !cx_check(cx, !__builtin_add_overflow(v, down ? -by : by, &v), "ERR increment or decrement would overflow"))
        return;
    if (!e) cx_event(cx->db, 'n', "new", key);
    struct arg digits = cx_number(cx, v);
    memcpy(store_edit(cx->db, key, digits.n, false), digits.p, digits.n);
    cx_event(cx->db, '$', "incrby", key);
    resp_int(cx->out, v);
}

/* Reads a number, an integer unless real. a == NULL: *v stays as it is. False: the error is said. */
static bool read_number(struct cx *cx, bool real, const char *name, const struct arg *a, long double *v) {
    int64_t integer = 0;
    bool well = !a || (real ? resp_read_float(a->p, a->n, v) : resp_read_int(a->p, a->n, &integer));
    if (well && a && !real) *v = (long double)integer;
    return cx_checkf(cx, well, "ERR %s is not %s", name, real ? "a valid float" : "an integer or out of range");
}

void cmd_incrbyfloat(struct cx *cx) {
    struct entry *e = store_find(cx->db, &cx->argv[1]);
    struct arg old = store_value(e);
    long double v = 0, by;
    char digits[RESP_FLOAT_MAX];
    if (!read_number(cx, true, "value", e ? &old : NULL, &v) || !read_number(cx, true, "value", &cx->argv[2], &by) ||
        !cx_check(cx, isfinite(v += by), "ERR increment would produce NaN or Infinity"))
        return;
    struct arg sum = {.p = digits, .n = (uint32_t)resp_write_float(digits, sizeof digits, v)};
    set_and_log(cx, "incrbyfloat", &sum, store_deadline(e), true);
    resp_bulk(cx->out, digits, sum.n); /* behind its events, which its client may listen to */
}

/* ---- INCREX: a counter with bounds and a deadline, which is a rate limiter --------------------------------
 * Integers are added as long doubles, too, which hold the sum or difference of two int64 exactly. */

_Static_assert(LDBL_MANT_DIG >= 64, "a long double is too short here");

static void reply_number(struct resp_out *out, bool real, long double v, char *digits) {
    if (real) resp_write_float(digits, RESP_FLOAT_MAX, v);
    else resp_write_int(digits, (int64_t)v);
    if (real && out->proto == 2) resp_bulk_str(out, digits);
    else resp_printf(out, "%c%s\r\n", real ? ',' : ':', digits);
}

/* Stores what argv[1], which is e as yet, comes to. */
static void increx_set(struct cx *cx, int words, const struct entry *e, const char *digits, int64_t deadline) {
    int64_t before = store_deadline(e);
    bool lasts = before != STORE_NO_DEADLINE, timed = words & DEADLINES && !(lasts && words & ENX);
    bool keep = !timed && !(words & PERSIST), past = timed && deadline <= store_now();
    if (past && e) cx_delete(cx);
    if (past) return;
    struct arg val = {.p = digits, .n = (uint32_t)strlen(digits)};
    set_and_log(cx, words & BYFLOAT ? "incrbyfloat" : "incrby", &val, keep ? before : deadline, keep);
    if (lasts && words & PERSIST) cx_event(cx->db, 'g', "persist", &cx->argv[1]);
}

void cmd_increx(struct cx *cx) {
    struct cx_options o;
    if (!read_options(cx, 2, NUMBERS | SATURATE | DEADLINES | PERSIST | ENX, &o)) return;
    bool real = o.words & BYFLOAT;
    long double low = real ? -LDBL_MAX : (long double)INT64_MIN, high = real ? LDBL_MAX : (long double)INT64_MAX;
    long double v = 0, by = 1, least = low, most = high;
    int64_t deadline = STORE_NO_DEADLINE;
    if (!cx_check(cx, !(o.words & ENX) || o.words & DEADLINES, "ERR ENX flag requires an expiration") ||
        !read_number(cx, real, "Increment", option(&o, BYINT | BYFLOAT), &by) ||
        !read_number(cx, real, "LBOUND", option(&o, LBOUND), &least) ||
        !read_number(cx, real, "UBOUND", option(&o, UBOUND), &most) ||
        !cx_check(cx, least <= most, "ERR LBOUND can't be greater than UBOUND") || !read_deadline(cx, &o, &deadline))
        return;
    struct entry *e = store_find(cx->db, &cx->argv[1]);
    struct arg old = store_value(e);
    if (!read_number(cx, real, "value", e ? &old : NULL, &v)) return;
    long double sum = v + by;
    bool within = sum >= least && sum <= most, refused = !within && !(o.words & SATURATE);
    if (!within) sum = refused ? v : sum > most ? most : least;
    by = refused ? 0 : sum - v;
    if (!cx_check(cx, by >= low && by <= high, "ERR increment would produce NaN, Infinity or an overflow")) return;
    char digits[RESP_FLOAT_MAX], added[RESP_FLOAT_MAX];
    resp_array(cx->out, 2);
    reply_number(cx->out, real, sum, digits);
    reply_number(cx->out, real, by, added);
    if (!refused) increx_set(cx, o.words, e, digits, deadline);
}

/* ---- LCS: the longest common subsequence of two values ---------------------------------------------------
 * The textbook's dynamic programming. len[i][j] is the length of the longest common subsequence of a's first i and b's
 * first j bytes; walking back from the last cell finds it, as runs of bytes that stand together in both. The table
 * takes 4 (alen + 1) (blen + 1) bytes, which proto-max-bulk-len bounds. */

enum { IDX = 1, LEN = 2, MINMATCHLEN = 4, WITHMATCHLEN = 8 };

/* Walks back from a's first i and b's first j bytes to the next run's start; returns its length, 0: no more. */
static size_t lcs_run(struct arg a, struct arg b, uint32_t len[][b.n + 1], size_t *i, size_t *j) {
    size_t n = 0;
    while (*i && *j && a.p[*i - 1] != b.p[*j - 1]) --*(len[*i - 1][*j] > len[*i][*j - 1] ? i : j);
    for (; *i && *j && a.p[*i - 1] == b.p[*j - 1]; n++) --*i, --*j;
    return n;
}

static void lcs_reply_indexes(struct resp_out *out, struct arg a, struct arg b, uint32_t len[][b.n + 1],
                              const struct cx_options *o) {
    size_t i = a.n, j = b.n, matches = 0, n;
    resp_map(out, 2);
    resp_bulk_str(out, "matches");
    size_t mark = resp_later(out);
    while ((n = lcs_run(a, b, len, &i, &j))) {
        if ((int64_t)n < o->number[2]) continue;
        resp_array(out, o->words & WITHMATCHLEN ? 3 : 2);
        resp_printf(out, "*2\r\n:%zu\r\n:%zu\r\n*2\r\n:%zu\r\n:%zu\r\n", i, i + n - 1, j, j + n - 1);
        if (o->words & WITHMATCHLEN) resp_int(out, (int64_t)n);
        matches++;
    }
    resp_later_array(out, mark, matches);
    resp_pair_int(out, "len", len[a.n][b.n]);
}

static void lcs_reply_bytes(struct resp_out *out, struct arg a, struct arg b, uint32_t len[][b.n + 1]) {
    size_t i = a.n, j = b.n, left = len[i][j], n;
    struct blob *bytes = resp_blob_new(left);
    while ((n = lcs_run(a, b, len, &i, &j))) memcpy(bytes->data + (left -= n), a.p + i, n);
    resp_bulk(out, bytes->data, len[a.n][b.n]);
    resp_blob_release(bytes);
}

void cmd_lcs(struct cx *cx) {
    struct cx_options o;
    cx_read(cx, &cx->argv[1]);
    struct arg b = store_value(cx_read(cx, &cx->argv[2]));
    struct arg a = store_value(store_peek(cx->db, &cx->argv[1])); /* only now: b may just have expired */
    if (!cx_options(cx, 3, "idx len minmatchlen withmatchlen", 0, MINMATCHLEN, INT64_MIN, &o) ||
        !cx_check(cx, (o.words & (IDX | LEN)) != (IDX | LEN),
                  "ERR If you want both the length and indexes, please just use IDX."))
        return;
    size_t rows = (size_t)a.n + 1, bytes = rows * (b.n + 1) * sizeof(uint32_t); /* each at most 2^29 + 1: no overflow */
    bool allowed = bytes <= (size_t)config.proto_max_bulk_len;
    uint32_t(*len)[b.n + 1] = allowed ? calloc(rows, sizeof *len) : NULL;
    if (!cx_check(cx, len,
                  allowed ? "ERR Insufficient memory, failed allocating transient memory for LCS"
                          : "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"))
        return;
    for (size_t i = 1; i <= a.n; i++)
        for (size_t j = 1; j <= b.n; j++) {
            uint32_t above = len[i - 1][j], before = len[i][j - 1];
            len[i][j] = a.p[i - 1] == b.p[j - 1] ? len[i - 1][j - 1] + 1 : above > before ? above : before;
        }
    if (o.words & IDX) lcs_reply_indexes(cx->out, a, b, len, &o);
    else if (o.words & LEN) resp_int(cx->out, len[a.n][b.n]);
    else lcs_reply_bytes(cx->out, a, b, len);
    free(len);
}
