/* keys.c - the commands that handle keys whatever their value: existence, deadlines, names, walks, DUMP.
 *
 * A deadline is always absolute here: what a client gives in relative time is added to the turn's clock at once, and
 * it is logged as PEXPIREAT, so that replaying the log needs no clock. One that has already passed deletes the key and
 * is logged as the DEL it is.
 *
 * glob_match() needs no recursion: all but '*' takes exactly one character, so when the text does not go on as the
 * pattern wants, it is enough to let the last '*' take one character more. That is pattern times text at the most,
 * however many stars there are.
 *
 * Left out: counting how often a key is used (OBJECT FREQ; RESTORE accepts FREQ and ignores it), serialized forms of
 * other types than strings.
 */
#include "commands.h"

#include <ctype.h>

/* ==== glob patterns ===================================================================================== */

static signed char fold(char c, bool nocase) { return (signed char)(nocase ? tolower((unsigned char)c) : c); }

/* Is c in the class whose inside begins at *p? Leaves *p behind its ']', which may be missing. */
static bool class_match(const char **p, const char *end, char c, bool nocase) {
    const char *q = *p;
    signed char folded = fold(c, nocase);
    bool found = false, negated = q < end && *q == '^';
    for (q += negated; q < end && *q != ']'; q++) {
        if (*q == '\\' && end - q >= 2) {
            found |= *++q == c;
        } else if (end - q >= 3 && q[1] == '-') {
            bool ascending = (signed char)q[0] <= (signed char)q[2];
            found |= folded >= fold(q[ascending ? 0 : 2], nocase) && folded <= fold(q[ascending ? 2 : 0], nocase);
            q += 2;
        } else {
            found |= fold(*q, nocase) == folded;
        }
    }
    *p = q < end ? q + 1 : end;
    return found != negated;
}

/* Does the pattern's element at *p, which is no '*', take the character c? Leaves *p behind the element. */
static bool element_match(const char **p, const char *end, char c, bool nocase) {
    char element = *(*p)++;
    if (element == '?') return true;
    if (element == '[') return class_match(p, end, c, nocase);
    if (element == '\\' && *p < end) element = *(*p)++;
    return fold(element, nocase) == fold(c, nocase);
}

bool glob_match(const char *pattern, size_t plen, const char *s, size_t slen, bool nocase) {
    const char *p = pattern, *pend = pattern + plen, *end = s + slen;
    const char *star = NULL, *taken = NULL; /* behind the last '*', and behind what it has taken */
    if (slen == 0) return plen == 0;        /* in Redis not even '*' matches nothing */
    while (s < end) {
        const char *next = p;
        if (p < pend && *p == '*') {
            if (++p == pend) return true;
            star = p;
            taken = s;
        } else if (p < pend && element_match(&next, pend, *s, nocase)) {
            p = next;
            s++;
        } else if (star) {
            p = star;
            s = ++taken;
        } else {
            return false;
        }
    }
    while (p < pend && *p == '*') p++;
    return p == pend;
}

/* ==== deadlines ========================================================================================= */

bool cx_deadline(struct cx *cx, int i, int64_t least, bool seconds, bool absolute, int64_t *deadline) {
    int64_t v;
    if (!cx_int(cx, i, &v)) return false;
    bool fits = v >= least && !__builtin_mul_overflow(v, seconds ? 1000 : 1, &v) &&
                !__builtin_add_overflow(v, absolute ? 0 : store_now(), deadline);
    return cx_checkf(cx, fits, "ERR invalid expire time in '%s' command", cx->cmd->name);
}

enum { EXPIRE_NX = 1, EXPIRE_XX = 2, EXPIRE_GT = 4, EXPIRE_LT = 8 };

/* The conditions behind EXPIRE's deadline; -1: the error is said. */
static int expire_conditions(struct cx *cx) {
    int set = 0;
    for (int i = 3, flag; i < cx->argc; i++, set |= flag) {
        const struct arg *word = &cx->argv[i];
        flag = resp_arg_flag(word, "nx xx gt lt");
        if (!cx_checkf(cx, flag, "ERR Unsupported option %.*s", (int)word->n, word->p)) return -1;
    }
    bool nx_clash = set & EXPIRE_NX && set & ~EXPIRE_NX, clash = set & EXPIRE_GT && set & EXPIRE_LT;
    const char *which = nx_clash ? "NX and XX, GT or LT" : "GT and LT";
    bool well = cx_checkf(cx, !nx_clash && !clash, "ERR %s options at the same time are not compatible", which);
    return well ? set : -1;
}

/* May a key that has the deadline `old` get the deadline `fresh`? Having none counts as infinitely late. */
static bool conditions_hold(int set, int64_t old, int64_t fresh) {
    bool none = old == STORE_NO_DEADLINE;
    return !((set & EXPIRE_NX && !none) || (set & EXPIRE_XX && none) || (set & EXPIRE_GT && (none || fresh <= old)) ||
             (set & EXPIRE_LT && !none && fresh >= old));
}

bool cx_expire(struct cx *cx, int64_t deadline) {
    if (deadline <= store_now()) {
        cx_delete(cx);
        return false;
    }
    store_set_deadline(cx->db, &cx->argv[1], deadline);
    cx_log(cx, 3, (struct arg[]){ARG("PEXPIREAT"), cx->argv[1], cx_number(cx, deadline)});
    return true;
}

/* The name says how time is counted: in seconds but for P..., from now on but for ...AT (and, below, ...TIME). */
static bool in_seconds(const struct cx *cx) { return *cx->cmd->name != 'p'; }

void cmd_expire(struct cx *cx) {
    int conditions = expire_conditions(cx);
    int64_t deadline;
    bool absolute = strstr(cx->cmd->name, "at");
    if (conditions < 0 || !cx_deadline(cx, 2, INT64_MIN, in_seconds(cx), absolute, &deadline)) return;
    struct entry *e = store_find(cx->db, &cx->argv[1]);
    bool change = e && conditions_hold(conditions, store_deadline(e), deadline);
    bool lives = change && cx_expire(cx, deadline);
    resp_int(cx->out, change);
    if (lives) cx_event(cx->db, 'g', "expire", &cx->argv[1]);
}

bool cx_persist(struct cx *cx, const struct entry *e) {
    if (store_deadline(e) == STORE_NO_DEADLINE) return false;
    store_set_deadline(cx->db, &cx->argv[1], STORE_NO_DEADLINE);
    cx_event(cx->db, 'g', "persist", &cx->argv[1]);
    cx_log(cx, 2, (struct arg[]){ARG("PERSIST"), cx->argv[1]});
    return true;
}

void cmd_persist(struct cx *cx) { resp_int(cx->out, cx_persist(cx, store_find(cx->db, &cx->argv[1]))); }

/* ==== what is there ===================================================================================== */

/* TTL and its kin: -2 without the key, -1 without a deadline. */
void cmd_ttl(struct cx *cx) {
    struct entry *e = cx_peek(cx, &cx->argv[1]);
    int64_t ms = e ? store_deadline(e) : -2;
    if (e && ms != STORE_NO_DEADLINE) {
        if (!strstr(cx->cmd->name, "time")) ms -= store_now();
        if (ms < 0) ms = 0;
        if (in_seconds(cx)) ms = ms / 1000 + (ms % 1000 >= 500);
    }
    resp_int(cx->out, ms);
}

/* EXISTS and TOUCH. */
void cmd_exists(struct cx *cx) {
    bool touch = *cx->cmd->name == 't';
    int64_t there = 0;
    for (int i = 1; i < cx->argc; i++)
        there += cx_peek(cx, &cx->argv[i]) && (!touch || store_find(cx->db, &cx->argv[i]));
    resp_int(cx->out, there);
}

void cmd_type(struct cx *cx) { resp_status(cx->out, cx_peek(cx, &cx->argv[1]) ? "string" : "none"); }
void cmd_dbsize(struct cx *cx) { resp_int(cx->out, (int64_t)store_size(cx->db)); }

void cmd_randomkey(struct cx *cx) {
    struct entry *e;
    size_t size;
    for (int tries = 100; (e = store_random(cx->db)) && store_expired(e) && tries;
         tries -= size == store_size(cx->db)) {
        struct arg key = store_key(e);
        size = store_size(cx->db);
        store_peek(cx->db, &key); /* a leader deletes it; a follower may hold nothing but such keys */
    }
    if (cx_or_null(cx, e)) resp_bulk(cx->out, store_key(e).p, store_key(e).n);
}

/* Would Redis keep this value as an integer? */
static bool is_int(const struct entry *e, int64_t *v) {
    struct arg value = store_value(e);
    return !store_is_raw(e) && value.n < RESP_INT_MAX && resp_read_int(value.p, value.n, v);
}

const char *cx_encoding(const struct entry *e) {
    int64_t v;
    return is_int(e, &v) ? "int" : store_value(e).n <= 44 && !store_is_raw(e) ? "embstr" : "raw";
}

enum { ENCODING = 1, REFCOUNT = 2, IDLETIME = 4, FREQ = 8 };
enum { REPLACE = 1, ABSTTL = 2 }; /* RESTORE has IDLETIME and FREQ beside them */

void cmd_object(struct cx *cx) {
    int fact = resp_arg_flag(&cx->argv[1], "encoding refcount idletime freq");
    struct entry *e = cx_peek(cx, &cx->argv[2]);
    int64_t v;
    if (!cx_or_null(cx, e)) return;
    if (fact == ENCODING) resp_bulk_str(cx->out, cx_encoding(e));
    else if (fact == REFCOUNT)
        resp_int(cx->out, is_int(e, &v) && v >= 0 && v < 10000 ? INT_MAX : 1); /* Redis shares them */
    else if (fact == IDLETIME) resp_int(cx->out, store_idle(e));
    else
        resp_error(cx->out,
                   "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that "
                   "when switching between policies at runtime LRU and LFU data will take some time to adjust.");
}

/* ==== walks ============================================================================================= */

/* What KEYS and SCAN collect. */
struct walk {
    struct resp_out *out;
    const struct arg *pattern; /* NULL: all match */
    bool other_type;           /* only keys of another type are asked for, and there are none */
    size_t seen, given;
};

static void walk_entry(void *arg, struct entry *e) {
    struct walk *w = arg;
    struct arg key = store_key(e);
    w->seen++;
    if (store_expired(e) || w->other_type) return;
    if (w->pattern && !glob_match(w->pattern->p, w->pattern->n, key.p, key.n, false)) return;
    resp_bulk(w->out, key.p, key.n);
    w->given++;
}

static const struct arg *pattern_or_all(const struct arg *a) { return a->n == 1 && *a->p == '*' ? NULL : a; }

void cmd_keys(struct cx *cx) {
    struct walk w = {.out = cx->out, .pattern = pattern_or_all(&cx->argv[1])};
    size_t mark = resp_later(cx->out);
    uint64_t cursor = 0;
    do cursor = store_scan(cx->db, cursor, walk_entry, &w);
    while (cursor);
    resp_later_array(cx->out, mark, w.given);
}

/* A cursor, as leniently as Redis reads one: a sign is allowed, nothing means 0, and a NUL ends it. */
static bool read_cursor(const struct arg *a, uint64_t *cursor) {
    char text[64], *end;
    snprintf(text, sizeof text, "%.*s", (int)a->n, a->p);
    errno = 0;
    *cursor = strtoull(text, &end, 10);
    return !isspace((unsigned char)*text) && !*end && errno != ERANGE;
}

enum { MATCH = 1, COUNT = 2, TYPE = 4 };

/* Goes on until it has seen COUNT keys, matching or not, or ten times as many buckets. */
void cmd_scan(struct cx *cx) {
    struct resp_out keys = {.proto = cx->out->proto};
    struct walk w = {.out = &keys};
    struct cx_options o;
    uint64_t cursor = 0;
    if (!cx_check(cx, read_cursor(&cx->argv[1], &cursor), "ERR invalid cursor") ||
        !cx_options(cx, 2, "match count type", MATCH | TYPE, COUNT, 1, &o))
        return;
    if (o.words & MATCH) w.pattern = pattern_or_all(o.value[0]);
    w.other_type = o.words & TYPE && !resp_arg_is(o.value[2], "string");
    uint64_t wanted = o.words & COUNT ? (uint64_t)o.number[1] : 10,
             buckets = wanted < UINT64_MAX / 10 ? wanted * 10 : UINT64_MAX;
    do cursor = store_scan(cx->db, cursor, walk_entry, &w);
    while (cursor && buckets-- && w.seen < wanted);
    resp_array(cx->out, 2);
    resp_bulk_int(cx->out, (int64_t)cursor); /* below 2^48 */
    resp_array(cx->out, w.given);
    resp_raw(cx->out, keys.buf, keys.len);
    resp_out_free(&keys);
}

/* ==== deleting ========================================================================================== */

void cmd_del(struct cx *cx) {
    int64_t gone = 0;
    for (int i = 1; i < cx->argc; i++) {
        if (!store_delete(cx->db, &cx->argv[i])) continue;
        gone++;
        cx_event(cx->db, 'g', "del", &cx->argv[i]);
    }
    resp_int(cx->out, gone);
}

/* FLUSHDB and FLUSHALL. The memory always comes back in slices: ASYNC and SYNC are the same. */
void cmd_flushdb(struct cx *cx) {
    bool known = cx->argc == 1 || (cx->argc == 2 && resp_arg_flag(&cx->argv[1], "async sync"));
    bool all = !strcmp(cx->cmd->name, "flushall");
    if (!cx_check(cx, known, "ERR syntax error")) return;
    for (int i = 0; i < store_databases(); i++)
        if ((all || store_db(i) == cx->db) && store_size(store_db(i))) store_flush(store_db(i));
    if (all) persist_flushed();
    resp_ok(cx->out);
}

/* ==== names and databases =============================================================================== */

/* Gives to in db what argv[1] has. */
static void copy_key(struct cx *cx, struct db *db, struct arg *to) {
    store_copy(store_peek(cx->db, &cx->argv[1]), db, to);
    cx_event(db, 'n', "new", to);
}

static void move_key(struct cx *cx, struct db *db, struct arg *to, const char *leaves, const char *arrives) {
    copy_key(cx, db, to);
    store_delete(cx->db, &cx->argv[1]);
    cx_event(cx->db, 'g', leaves, &cx->argv[1]);
    cx_event(db, 'g', arrives, to);
}

void cmd_rename(struct cx *cx) {
    struct arg *from = &cx->argv[1], *to = &cx->argv[2];
    bool only_new = !strcmp(cx->cmd->name, "renamenx");
    if (!cx_check(cx, store_find(cx->db, from), "ERR no such key")) return;
    bool change = !cx_same(*from, *to) && !(store_find(cx->db, to) && only_new);
    if (change) move_key(cx, cx->db, to, "rename_from", "rename_to");
    if (only_new) resp_int(cx->out, change);
    else resp_ok(cx->out);
}

struct db *cx_database(struct cx *cx, int i) {
    int64_t id;
    if (!cx_int(cx, i, &id) ||
        !cx_check(cx, id == (int)id, "ERR value is out of range, value must between -2147483648 and 2147483647"))
        return NULL;
    return cx_check(cx, id >= 0 && id < store_databases(), "ERR DB index is out of range") ? store_db((int)id) : NULL;
}

static const char same_object[] = "ERR source and destination objects are the same";

void cmd_copy(struct cx *cx) {
    struct arg *from = &cx->argv[1], *to = &cx->argv[2];
    struct db *db = cx->db;
    bool replace = false;
    for (int i = 3; i < cx->argc; i++) {
        int option = resp_arg_flag(&cx->argv[i], "replace db");
        if (option == 2) i++;
        if (!cx_check(cx, option && i < cx->argc, "ERR syntax error")) return;
        if (option == 1) replace = true;
        else if (!(db = cx_database(cx, i))) return;
    }
    if (!cx_check(cx, db != cx->db || !cx_same(*from, *to), same_object)) return;
    bool change = cx_read(cx, from) && (!store_find(db, to) || replace);
    if (change) {
        copy_key(cx, db, to);
        cx_event(db, 'g', "copy_to", to);
    }
    resp_int(cx->out, change);
}

void cmd_move(struct cx *cx) {
    struct arg *key = &cx->argv[1];
    struct db *db = cx_database(cx, 2);
    if (!db || !cx_check(cx, db != cx->db, same_object)) return;
    bool change = store_find(cx->db, key) && !store_find(db, key);
    if (change) move_key(cx, db, key, "move_from", "move_to");
    resp_int(cx->out, change);
}

void cmd_swapdb(struct cx *cx) {
    static const char *const errors[] = {"", "ERR invalid first DB index", "ERR invalid second DB index"};
    int64_t id;
    struct db *a, *b;
    for (int i = 1; i <= 2; i++)
        if (!cx_check(cx, resp_read_int(cx->argv[i].p, cx->argv[i].n, &id) && id == (int)id, errors[i])) return;
    if (!(a = cx_database(cx, 1)) || !(b = cx_database(cx, 2))) return;
    if (a != b) store_swap(a, b);
    resp_ok(cx->out);
}

/* ==== DUMP and RESTORE ================================================================================== */

void cmd_dump(struct cx *cx) {
    struct entry *e = cx_read(cx, &cx->argv[1]);
    if (!cx_or_null(cx, e) || !cx_memory(cx, NULL, 2 * store_value(e).n)) return;
    size_t mark = resp_later(cx->out);
    rdb_dump(cx->out, store_value(e).p, store_value(e).n);
    resp_later_bulk(cx->out, mark);
}

/* RESTORE's options; -1: the error is said. */
static int restore_options(struct cx *cx, int64_t *idle) {
    int set = 0;
    int64_t freq = 0;
    for (int i = 4, flag; i < cx->argc; i++, set |= flag) {
        flag = resp_arg_flag(&cx->argv[i], "replace absttl idletime freq");
        bool number = flag & (IDLETIME | FREQ), clash = number && set & (IDLETIME | FREQ) & ~flag;
        i += number;
        if (!cx_check(cx, flag && !clash && i < cx->argc, "ERR syntax error") ||
            (number && !cx_int(cx, i, flag == FREQ ? &freq : idle)) ||
            !cx_check(cx, *idle >= 0, "ERR Invalid IDLETIME value, must be >= 0") ||
            !cx_check(cx, freq >= 0 && freq <= 255, "ERR Invalid FREQ value, must be >= 0 and <= 255"))
            return -1;
    }
    return set;
}

void cmd_restore(struct cx *cx) {
    struct arg *key = &cx->argv[1], val = {0};
    int64_t ttl, deadline, idle = 0;
    int options = restore_options(cx, &idle);
    if (options < 0) return;
    bool exists = store_find(cx->db, key);
    if (!cx_check(cx, !exists || options & REPLACE, "BUSYKEY Target key name already exists.") ||
        !cx_int(cx, 2, &ttl) || !cx_check(cx, ttl >= 0, "ERR Invalid TTL value, must be >= 0"))
        return;
    const char *why = rdb_restore(cx->argv[3].p, cx->argv[3].n, &val);
    if (!cx_check(cx, !why, why)) return;
    bool past =
        __builtin_add_overflow(ttl, ttl && !(options & ABSTTL) ? store_now() : 0, &deadline); /* as Redis takes it */
    if (ttl && (past || deadline <= store_now())) {
        if (exists) cx_delete(cx);
    } else {
        struct arg form[] = {ARG("RESTORE"), *key, cx_number(cx, deadline), cx->argv[3], ARG("REPLACE"), ARG("ABSTTL")};
        store_set_idle(store_set(cx->db, key, &val, deadline ? deadline : STORE_NO_DEADLINE), (uint32_t)idle);
        cx_log(cx, 6, form);
        cx_event(cx->db, 'n', "new", key);
        cx_event(cx->db, 'g', "restore", key);
    }
    resp_ok(cx->out);
}
