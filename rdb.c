/* rdb.c - the snapshot's bytes.
 *
 * An RDB file, as far as a server of strings meets it:
 *
 *      REDIS0009                                  magic and version; VALKEY080 is read too
 *      FA name value                              AUX, any number; unknown names mean nothing
 *      FE db                                      SELECTDB: what follows belongs to this database
 *      FB keys keys-with-deadline                 RESIZEDB: a hint
 *      [FC ms, 8 bytes | FD s, 4 bytes]           an entry: perhaps a deadline,
 *          [F8 idle | F9 freq, 1 byte]                  what eviction knew of it (skipped),
 *          00 key value                                 the type (0: string), key, value
 *      FF crc64                                   the end; the checksum of all before, 8 bytes
 *
 * Fixed numbers are little endian. A length is 00nnnnnn, 01nnnnnn + 1 byte, 80 + 4 bytes or 81 + 8 bytes, big
 * endian. A string is a length and so many bytes, or C0 C1 C2 + a number of 1, 2, 4 bytes that stands for its
 * digits, or C3 + two lengths + so many bytes of LZF. We write no LZF.
 *
 * Reading. A step is one opcode or one entry, parsed in memory; where the window ends first, the step says
 * how much it lacks and is taken again from its beginning when the window is refilled: so a step must change
 * nothing before it is whole. Entries are stored in batches whose buckets, then entries, are prefetched.
 *
 * Invariants
 *   1. Slices in the batch are slices of the window: it is run before the window moves.
 *   2. A file that is not exactly as above, checksum included, is refused, and nothing of another type than
 *      string is skipped: half of a user's data is worse than a clear word.
 *
 * Left out: all other types, modules, the slot facts' meaning, writing LZF.
 */
#include "rdb.h"
#include "disk.h"

#include <endian.h>
#include <unistd.h>

#define WINDOW ((size_t)1 << 20)
#define BATCH  16

enum opcode {
    OP_SLOT_INFO = 0xF4,
    OP_FUNCTION = 0xF5,
    OP_IDLE = 0xF8,
    OP_FREQ = 0xF9,
    OP_AUX = 0xFA,
    OP_RESIZEDB = 0xFB,
    OP_DEADLINE_MS = 0xFC,
    OP_DEADLINE_S = 0xFD,
    OP_SELECTDB = 0xFE
};

/* ==== CRC-64, sixteen bytes a step ======================================================================== */

static uint64_t crc_table[16][256];

static void crc64_init(void) {
    for (unsigned i = 0; i < 256; i++) {
        uint64_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0x95ac9329ac4bc9b5u : 0);
        crc_table[0][i] = c;
    }
    for (unsigned k = 1; k < 16; k++)
        for (unsigned i = 0; i < 256; i++)
            crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 255];
}

uint64_t crc64(uint64_t crc, const void *data, size_t n) {
    const unsigned char *p = data;
    if (!crc_table[0][1]) crc64_init();
    for (; n >= 16; p += 16, n -= 16) {
        uint64_t a, b, next = 0;
        memcpy(&a, p, 8);
        memcpy(&b, p + 8, 8);
        a = le64toh(a) ^ crc;
        b = le64toh(b);
        for (int i = 0; i < 8; i++) next ^= crc_table[15 - i][a >> 8 * i & 255] ^ crc_table[7 - i][b >> 8 * i & 255];
        crc = next;
    }
    while (n--) crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 255];
    return crc;
}

/* ==== writing ============================================================================================= */

static void put_byte(struct resp_out *o, int c) { resp_raw(o, &(char){(char)c}, 1); }
static void put_little(struct resp_out *o, uint64_t v, size_t bytes) { resp_raw(o, &(uint64_t){htole64(v)}, bytes); }

static void put_length(struct resp_out *o, uint64_t n) {
    int behind = n < 64 ? 0 : n < 16384 ? 1 : n <= UINT32_MAX ? 4 : 8;
    put_byte(o, (int)(behind == 0 ? n : behind == 1 ? 0x40 | n >> 8 : behind == 4 ? 0x80 : 0x81));
    while (behind-- > 0) put_byte(o, (int)(n >> 8 * behind & 255));
}

/* A string; numbers of up to 32 bits as such. */
static void put_string(struct resp_out *o, const char *s, size_t n) {
    int64_t v;
    if (n - 1 < 11 && s[0] <= '9' && resp_read_int(s, n, &v) && v >= INT32_MIN && v <= INT32_MAX) {
        int kind = v >= INT8_MIN && v <= INT8_MAX ? 0 : v >= INT16_MIN && v <= INT16_MAX ? 1 : 2;
        put_byte(o, 0xC0 | kind);
        put_little(o, (uint64_t)v, (size_t)1 << kind);
        return;
    }
    put_length(o, n);
    resp_raw(o, s, n);
}

static void put_select(struct resp_out *o, int db) {
    put_byte(o, OP_SELECTDB);
    put_length(o, (uint64_t)db);
}

/* Nothing where there is no value. */
static void put_aux(struct resp_out *o, const char *name, const char *value) {
    if (!*value) return;
    put_byte(o, OP_AUX);
    put_string(o, name, strlen(name));
    put_string(o, value, strlen(value));
}

static void put_aux_number(struct resp_out *o, const char *name, int64_t v) {
    char digits[RESP_INT_MAX];
    resp_write_int(digits, v);
    put_aux(o, name, digits);
}

void rdb_put_head(struct resp_out *o, const struct rdb_facts *f) {
    resp_printf(o, "REDIS%04d", RDB_VERSION);
    put_aux(o, "redis-ver", "7.0.15");
    put_aux(o, "redis-bits", "64");
    put_aux_number(o, "ctime", (int64_t)time(NULL));
    put_aux_number(o, "used-mem", (int64_t)store_memory());
    put_aux_number(o, "repl-stream-db", f->stream_db);
    put_aux(o, "repl-id", f->repl_id);
    put_aux_number(o, "repl-offset", (int64_t)f->offset);
    put_aux(o, "aof-base", "0");
    put_aux(o, "echovault-history", f->history);
    put_aux(o, "echovault-replaces", f->replaces);
    for (int i = 0; i < store_databases(); i++) {
        struct db *db = store_db(i);
        if (!store_size(db)) continue;
        put_select(o, i);
        put_byte(o, OP_RESIZEDB);
        put_length(o, store_size(db));
        put_length(o, store_volatile(db));
    }
}

struct blob *rdb_put_entry(struct resp_out *o, int *last, int db, const struct entry *e, size_t *blob_n) {
    struct arg key = store_key(e), value = store_value(e);
    int64_t deadline = store_deadline(e);
    struct blob *b = store_blob(e);
    if (db != *last) put_select(o, *last = db);
    if (deadline != STORE_NO_DEADLINE) {
        put_byte(o, OP_DEADLINE_MS);
        put_little(o, (uint64_t)deadline, 8);
    }
    put_byte(o, 0);
    put_string(o, key.p, key.n);
    if (!b || value.n < RESP_BLOB_MIN) {
        put_string(o, value.p, value.n);
        return NULL;
    }
    put_length(o, value.n);
    *blob_n = value.n;
    return b;
}

void rdb_dump(struct resp_out *o, const char *p, size_t n) {
    size_t start = o->len;
    put_byte(o, 0);
    put_string(o, p, n);
    put_little(o, RDB_VERSION, 2);
    put_little(o, crc64(0, o->buf + start, o->len - start), 8);
}

/* ==== the reader ========================================================================================== */

bool reader_fill(struct reader *r, size_t n) {
    if (r->len - r->pos >= n) return true;
    if (r->pos) memmove(r->buf, r->buf + r->pos, r->len - r->pos);
    r->at += r->pos;
    r->len -= r->pos;
    r->pos = r->seen = 0;
    size_t cap = n > WINDOW && n <= r->end - r->at ? n + WINDOW : WINDOW;
    if (r->cap < cap && !(r->buf = realloc(r->buf, r->cap = cap))) abort();
    uint64_t left = r->end - (r->at + r->len);
    ssize_t got =
        disk_read_at(r->fd, r->buf + r->len, left < r->cap - r->len ? (size_t)left : r->cap - r->len, r->at + r->len);
    if (got < 0) r->error = errno;
    else r->len += (size_t)got;
    if (r->progress) r->progress(r->at + r->len);
    return r->len >= n;
}

/* ==== parsing, in memory ================================================================================== */

struct cursor {
    const unsigned char *p, *end;
    uint64_t lack;   /* not 0: cut off, so many bytes from p on are needed */
    const char *bad; /* not NULL: malformed */
};

static const unsigned char *take(struct cursor *c, uint64_t n) {
    if (n > (uint64_t)(c->end - c->p)) {
        c->lack = n;
        return NULL;
    }
    c->p += n;
    return c->p - n;
}

static uint64_t little(const unsigned char *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

/* A length; or, where *encoding is not 0, 0xC0 to 0xC3. encoding is NULL where nothing but a length may stand. */
static bool get_length(struct cursor *c, uint64_t *n, int *encoding) {
    const unsigned char *p = take(c, 1);
    if (!p) return false;
    int first = *p, bytes = first >> 6 == 1 ? 1 : first == 0x80 ? 4 : first == 0x81 ? 8 : 0;
    *n = first < 0x80 ? first & 0x3f : 0;
    bool encoded = first >= 0xC0 && first <= 0xC3;
    if (encoding) *encoding = encoded ? first : 0;
    else if (encoded) c->bad = "a string where a length should be";
    if (first > 0x81 && !encoded) c->bad = "a length of unknown form";
    if (c->bad || !(p = take(c, (uint64_t)bytes))) return false;
    while (bytes-- > 0) *n = *n << 8 | *p++;
    return true;
}

/* LZF (Marc Lehmann's): runs of up to 32 bytes as they are, and copies of 3 to 264 bytes from up to 8 KiB back. */
static bool lzf_expand(const unsigned char *in, size_t n, char *out, size_t want) {
    const unsigned char *end = in + n;
    size_t at = 0;
    while (in < end) {
        size_t ctrl = *in++, len = ctrl >> 5;
        if (!len) {
            if (++ctrl > (size_t)(end - in) || ctrl > want - at) return false;
            memcpy(out + at, in, ctrl);
            at += ctrl;
            in += ctrl;
            continue;
        }
        if (len == 7 && in < end) len += *in++;
        if (in == end) return false;
        size_t back = ((ctrl & 0x1f) << 8 | *in++) + 1;
        if (back > at || (len += 2) > want - at) return false;
        for (; len--; at++) out[at] = out[at - back];
    }
    return at == want;
}

static char *room_for(struct arg *a, struct resp_out *room, size_t n) {
    char *p = resp_reserve(room, n + 1); /* never NULL, not even for nothing */
    *a = (struct arg){.p = p, .n = (uint32_t)n};
    return p;
}

/* A string: a slice of what is parsed, or decoded into room, which serves one after the other. */
static bool get_string(struct cursor *c, struct arg *a, struct resp_out *room) {
    int encoding;
    uint64_t n, packed = 0;
    const unsigned char *p;
    if (!get_length(c, &n, &encoding)) return false;
    if (encoding == 0xC3 && (!get_length(c, &packed, NULL) || !get_length(c, &n, NULL))) return false;
    if (!encoding || encoding == 0xC3) {
        if (n > RESP_STRING_MAX || n / 264 > (encoding ? packed : n)) c->bad = "a string of impossible length";
        if (c->bad || !(p = take(c, encoding ? packed : n))) return false;
        *a = (struct arg){.p = (const char *)p, .n = (uint32_t)n};
        if (encoding && !lzf_expand(p, packed, room_for(a, room, n), n)) c->bad = "a compressed string that is damaged";
        return !c->bad;
    }
    int bytes = 1 << (encoding & 3);
    if (!(p = take(c, (uint64_t)bytes))) return false;
    uint64_t raw = little(p, bytes);
    int64_t v = bytes == 1 ? (int8_t)raw : bytes == 2 ? (int16_t)raw : (int32_t)raw;
    a->n = (uint32_t)resp_write_int(room_for(a, room, RESP_INT_MAX), v);
    return true;
}

const char *rdb_restore(const char *p, size_t n, struct arg *val) {
    static const char checksum[] = "ERR DUMP payload version or checksum are wrong", format[] = "ERR Bad data format";
    static struct resp_out room;
    static char type[96];
    if (n < 10) return checksum;
    const unsigned char *tail = (const unsigned char *)p + n - 10;
    uint64_t sum = little(tail + 2, 8);
    if (little(tail, 2) > RDB_VERSION_MAX || (sum && sum != crc64(0, p, n - 8))) return checksum;
    struct cursor c = {.p = (const unsigned char *)p + 1, .end = tail};
    if (n < 11) return format;
    if (*p == 0) return get_string(&c, val, &room) && c.p == c.end ? NULL : format;
    snprintf(type, sizeof type, "%s: a value of RDB type %d; only strings (type 0) are kept here", format,
             (unsigned char)*p);
    return type;
}

/* ==== loading a file ====================================================================================== */

struct item {
    struct arg key, val;
    struct resp_out room[2]; /* decoded strings stand there */
    int64_t deadline;
};

struct loader {
    struct reader *r;
    struct rdb_facts *facts;
    struct item batch[BATCH];
    struct store_lookup look[BATCH]; /* their keys, and the database of each */
    int n;                           /* items in the batch; the one behind is being parsed */
    struct db *(*database)(int id);
    struct db *db;
    int64_t deadline; /* of the entry to come */
    bool ended;
    char *why; /* of 256 bytes; "": nothing is wrong */
};

static void run_batch(struct loader *l) {
    for (int step = 0; step < STORE_PREFETCH_STEPS; step++) store_prefetch(l->look, (size_t)l->n, step);
    for (int i = 0; i < l->n; i++) store_set(l->look[i].db, l->look[i].key, &l->batch[i].val, l->batch[i].deadline);
    l->n = 0;
}

/* The window is about to move. */
static void window_passed(struct loader *l) {
    struct reader *r = l->r;
    run_batch(l);
    l->facts->crc = crc64(l->facts->crc, r->buf + r->seen, r->pos - r->seen);
    r->seen = r->pos;
}

static const char *type_name(int type) {
    static const char *const names[] = {"unknown", "list", "set", "sorted set", "hash", "stream", "a module's"};
    static const char of[] = "01234366041234154315254444"; /* by type byte */
    return names[type < (int)sizeof of - 1 ? of[type] - '0' : 0];
}

/* An entry from its type byte on. */
static void step_entry(struct loader *l, struct cursor *c, int type) {
    struct item *it = &l->batch[l->n];
    if (type >= 0xF0) snprintf(l->why, 256, "opcode 0x%02X is nothing that this server knows", (unsigned)type);
    if (l->why[0] || !get_string(c, &it->key, &it->room[0])) return;
    if (type != 0)
        snprintf(l->why, 256,
                 "the key '%.*s' is of type %s (%d), and this server keeps strings only: delete such keys "
                 "where the file comes from and save it again",
                 it->key.n < 64 ? (int)it->key.n : 64, it->key.p, type_name(type), type);
    if (l->why[0] || !get_string(c, &it->val, &it->room[1])) return;
    it->deadline = l->deadline;
    l->deadline = STORE_NO_DEADLINE;
    l->look[l->n++] = (struct store_lookup){l->db, &it->key};
}

static void step_aux(struct loader *l, struct cursor *c) {
    struct rdb_facts *f = l->facts;
    struct item *it = &l->batch[l->n];
    struct arg *name = &it->key, *value = &it->val;
    int64_t v;
    if (!get_string(c, name, &it->room[0]) || !get_string(c, value, &it->room[1])) return;
    int text = resp_arg_flag(name, "repl-id echovault-history echovault-replaces");
    int number = resp_arg_flag(name, "repl-offset repl-stream-db");
    if (text && value->n < sizeof f->history) {
        char *to = text == 1 ? f->repl_id : text == 2 ? f->history : f->replaces;
        snprintf(to, sizeof f->history, "%.*s", (int)value->n, value->p);
        if (to[strspn(to, "0123456789abcdefor-")]) *to = '\0'; /* it will stand in the log's header: no spaces there */
    }
    if (!number || !resp_read_int(value->p, value->n, &v) || v < 0) return;
    f->placed |= number == 1;
    if (number == 1) f->offset = (uint64_t)v;
    else if (v < store_databases()) f->stream_db = (int)v;
}

/* One opcode, or one entry. */
static void step(struct loader *l, struct cursor *c) {
    const unsigned char *p = take(c, 1);
    uint64_t n[3];
    struct arg skipped;
    int op = p ? *p : -1;
    int lengths = op == OP_SELECTDB || op == OP_IDLE ? 1 : op == OP_RESIZEDB ? 2 : op == OP_SLOT_INFO ? 3 : 0;
    for (int i = 0; i < lengths; i++)
        if (!get_length(c, &n[i], NULL)) return;
    switch (op) {
    case -1:
    case OP_IDLE:
    case OP_SLOT_INFO: break;
    case OP_AUX: step_aux(l, c); break;
    case OP_SELECTDB:
        if (n[0] < (uint64_t)store_databases()) l->db = l->database((int)n[0]);
        else
            snprintf(l->why, 256, "it uses database %llu, and this server has %d: start it with --databases %llu",
                     (unsigned long long)n[0], store_databases(), (unsigned long long)n[0] + 1);
        break;
    case OP_RESIZEDB:
        if (n[0] <= (l->r->end - l->r->at) / 3) store_reserve(l->db, n[0]); /* an entry takes 3 bytes at least */
        break;
    case OP_DEADLINE_MS:
        if ((p = take(c, 8))) l->deadline = (int64_t)little(p, 8);
        if (l->deadline < STORE_NO_DEADLINE) l->deadline = 0; /* before 1970 nothing can expire while the clock is 0 */
        break;
    case OP_DEADLINE_S:
        if ((p = take(c, 4))) l->deadline = (int64_t)little(p, 4) * 1000;
        break;
    case OP_FREQ: take(c, 1); break;
    case OP_FUNCTION: get_string(c, &skipped, &l->batch[l->n].room[0]); break;
    case RDB_END: l->ended = true; break;
    default: step_entry(l, c, op);
    }
}

/* Steps through to the end, refilling the window where a step is cut off. */
static void run_steps(struct loader *l) {
    struct reader *r = l->r;
    while (!l->ended && !l->why[0]) {
        struct cursor c = {.p = (unsigned char *)r->buf + r->pos, .end = (unsigned char *)r->buf + r->len};
        step(l, &c);
        uint64_t n = (uint64_t)(c.p - ((unsigned char *)r->buf + r->pos)) + c.lack;
        if (c.lack) window_passed(l);
        if (c.lack && !reader_fill(r, n)) snprintf(l->why, 256, "it is cut off");
        if (c.bad) snprintf(l->why, 256, "%s", c.bad);
        if (c.lack || l->why[0] || c.bad) continue;
        r->pos += n;
        if (l->n == BATCH) run_batch(l);
    }
}

/* The version; -1: it is none that can be read. */
static int read_magic(struct loader *l) {
    struct reader *r = l->r;
    char magic[10] = "";
    if (reader_fill(r, 9)) memcpy(magic, r->buf + r->pos, 9);
    bool valkey = !strcmp(magic, "VALKEY080");
    int version = strspn(magic + 5, "0123456789") == 4 ? atoi(magic + 5) : -1;
    if (!valkey && strncmp(magic, "REDIS", 5) != 0) snprintf(l->why, 256, "it is not an RDB file");
    else if (!valkey && (version < 1 || version > RDB_VERSION_MAX))
        snprintf(l->why, 256, "its version is '%s', and this server reads up to %d", magic + 5, RDB_VERSION_MAX);
    r->pos += l->why[0] ? 0 : 9;
    return valkey ? 80 : version;
}

/* The last opcode is read: the checksum. */
static void check_sum(struct loader *l) {
    struct reader *r = l->r;
    if (!reader_fill(r, 8)) snprintf(l->why, 256, "it is cut off: its checksum is missing");
    if (l->why[0]) return;
    uint64_t crc = l->facts->crc, said = little((unsigned char *)r->buf + r->pos, 8);
    if (said && said != crc)
        snprintf(l->why, 256, "its checksum is %016llx, but its bytes give %016llx: it is damaged",
                 (unsigned long long)said, (unsigned long long)crc);
    r->pos += 8;
}

bool rdb_load(struct reader *r, struct rdb_facts *f, struct db *(*database)(int id), char why[256]) {
    struct loader l = {.r = r, .facts = f, .database = database, .deadline = STORE_NO_DEADLINE, .why = why};
    l.db = database(0);
    *f = (struct rdb_facts){0};
    why[0] = '\0';
    int version = read_magic(&l);
    run_steps(&l);
    window_passed(&l);
    if (!why[0] && version >= 5) check_sum(&l); /* which does not cover itself */
    if (r->error) snprintf(why, 256, "reading it failed: %s", strerror(r->error));
    f->placed = f->placed && strlen(f->repl_id) == 40;
    if (!f->placed) f->offset = 0, f->repl_id[0] = '\0';
    for (int i = 0; i < 2 * BATCH; i++) resp_out_free(&l.batch[i / 2].room[i % 2]);
    if (why[0]) free(r->buf), r->buf = NULL;
    return !why[0];
}
