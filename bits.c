/* bits.c - the commands that take a value as a row of bits or of small integers.
 *
 * Bit 0 is the highest bit of the first byte; a field of several bits has its highest bit first. Bits behind the
 * end of a value read as zero; writing one makes the value long enough.
 *
 * The ones that go through whole values (BITCOUNT, BITPOS, BITOP) work on words of 64 bits: half a gigabyte takes a
 * fraction of a second. SETBIT and BITFIELD change the store only where a bit changes: else nothing is logged.
 */
#include "commands.h"

#include <endian.h>

/* ---- arguments ------------------------------------------------------------------------------------------ */

/* Reads a bit offset; width: "#3" counts in fields of so many bits (0: not allowed). False: the error is said. */
static bool read_offset(struct cx *cx, const struct arg *a, int width, int64_t *offset) {
    bool hash = width > 0 && a->n > 0 && a->p[0] == '#';
    bool ok = resp_read_int(a->p + hash, a->n - hash, offset);
    if (ok && hash) ok = !__builtin_mul_overflow(*offset, width, offset);
    return cx_check(cx, ok && *offset >= 0 && *offset >> 3 < cx_max_string(cx),
                    "ERR bit offset is not an integer or out of range");
}

/* argv[i], if it is there, says what the range's ends count: units of so many bits. False: the error is said. */
static bool read_unit(struct cx *cx, int i, int64_t *unit) {
    int word = i < cx->argc ? resp_arg_flag(&cx->argv[i], "byte bit") : 1;
    *unit = word == 2 ? 1 : 8;
    return cx_check(cx, word, "ERR syntax error");
}

/* cx_range() of n bytes, with ends that count such units, and come to count bits. */
static bool bit_range(int64_t n, int64_t unit, int64_t *first, int64_t *last) {
    if (!cx_range(n * 8 / unit, first, last)) return false;
    *first *= unit;
    *last = *last * unit + unit - 1;
    return true;
}

/* ---- single bits ---------------------------------------------------------------------------------------- */

static bool bit_at(struct arg v, int64_t offset) {
    size_t byte = (size_t)offset / 8;
    return byte < v.n && (unsigned char)v.p[byte] >> (7 - offset % 8) & 1;
}

static void put_bit(char *p, int64_t offset, bool on) {
    unsigned char mask = (unsigned char)(0x80 >> offset % 8), *byte = (unsigned char *)p + offset / 8;
    *byte = (unsigned char)(on ? *byte | mask : *byte & ~mask);
}

void cmd_setbit(struct cx *cx) {
    struct arg *key = &cx->argv[1];
    int64_t offset, on;
    if (!read_offset(cx, &cx->argv[2], 0, &offset)) return;
    bool bit = resp_read_int(cx->argv[3].p, cx->argv[3].n, &on) && (on == 0 || on == 1);
    if (!cx_check(cx, bit, "ERR bit is not an integer or out of range")) return;
    struct entry *e = store_find(cx->db, key);
    struct arg old = store_value(e);
    size_t need = (size_t)offset / 8 + 1;
    bool was = bit_at(old, offset);
    if (!cx_memory(cx, e, need > old.n ? need : old.n)) return;
    if (need > old.n || was != on) {
        put_bit(cx_edit(cx, key, need > old.n ? need : old.n), offset, on);
        cx_event(cx->db, '$', "setbit", key);
    }
    resp_int(cx->out, was);
}

void cmd_getbit(struct cx *cx) {
    int64_t offset;
    if (read_offset(cx, &cx->argv[2], 0, &offset))
        resp_int(cx->out, bit_at(store_value(cx_read(cx, &cx->argv[1])), offset));
}

/* ---- BITCOUNT and BITPOS -------------------------------------------------------------------------------- */

/* The word that begins at p, where n bytes are; those that are missing are zero. */
static inline uint64_t load_word(const char *p, size_t n) {
    uint64_t w = 0;
    if (n >= sizeof w) memcpy(&w, p, sizeof w);
    else memcpy(&w, p, n);
    return w;
}

/* Ones in w, added up as pairs, fours and bytes: faster than popcount where that may not be the instruction. */
static inline uint64_t ones(uint64_t w) {
    w -= w >> 1 & 0x5555555555555555u;
    w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
    return ((w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56;
}

static int64_t count_ones(const char *p, size_t n) {
    uint64_t total = 0;
    for (size_t at = 0; at < n; at += 8) total += ones(load_word(p + at, n - at));
    return (int64_t)total;
}

void cmd_bitcount(struct cx *cx) {
    struct entry *e = cx_read(cx, &cx->argv[1]);
    int64_t first = 0, last = -1, unit = 8, count = 0;
    struct arg v = store_value(e);
    if (e && !cx_check(cx, cx->argc != 3 && cx->argc <= 5, "ERR syntax error")) return;
    if (e && cx->argc > 3 && (!cx_int(cx, 2, &first) || !cx_int(cx, 3, &last))) return;
    bool backwards = first < 0 && last < 0 && first > last; /* is answered before the unit is looked at */
    if (e && !backwards && !read_unit(cx, 4, &unit)) return;
    if (!backwards && bit_range(v.n, unit, &first, &last)) {
        int64_t a = first / 8, b = last / 8;
        unsigned before = (unsigned char)v.p[a] & ~(0xffu >> (first & 7));
        unsigned behind = (unsigned char)v.p[b] & (0x7fu >> (last & 7));
        count = count_ones(v.p + a, (size_t)(b - a + 1)) - __builtin_popcount(before) - __builtin_popcount(behind);
    }
    resp_int(cx->out, count);
}

/* The first bit from `first` to `last` that is `on`; -1: there is none. */
static int64_t find_bit(const char *p, int64_t first, int64_t last, bool on) {
    const uint64_t flip = on ? 0 : UINT64_MAX;
    int64_t at = first / 8, end = (last + 8) / 8;
    uint64_t w = 0, mask = htobe64(UINT64_MAX >> first % 8);
    for (; at < end; at += 8, mask = UINT64_MAX) {
        w = (load_word(p + at, (size_t)(end - at)) ^ flip) & mask;
        if (w) break;
    }
    int64_t found = w ? at * 8 + __builtin_clzll(be64toh(w)) : -1;
    return found <= last ? found : -1;
}

void cmd_bitpos(struct cx *cx) {
    int64_t on, first = 0, last = -1, unit = 8;
    if (!cx_int(cx, 2, &on) || !cx_check(cx, on == 0 || on == 1, "ERR The bit argument must be 1 or 0.")) return;
    struct entry *e = cx_read(cx, &cx->argv[1]);
    struct arg v = store_value(e);
    if (e && !cx_check(cx, cx->argc <= 6, "ERR syntax error")) return;
    if (e && cx->argc > 3 && (!cx_int(cx, 3, &first) || !read_unit(cx, 5, &unit))) return;
    if (e && cx->argc > 4 && !cx_int(cx, 4, &last)) return;
    bool some = bit_range(v.n, unit, &first, &last);
    int64_t found = some ? find_bit(v.p, first, last, on) : e || on ? -1 : 0; /* no key: zeros without an end */
    /* Zeros follow behind the value, but not behind an end that was asked for. */
    if (some && found < 0 && !on && cx->argc < 5) found = last + 1;
    resp_int(cx->out, found);
}

/* ---- BITOP ---------------------------------------------------------------------------------------------- */

enum { AND = 1, OR = 2, XOR = 4, NOT = 8 };

/* dst[0..n) = dst op src, or NOT src. */
static void combine(int op, char *dst, const char *src, size_t n) {
    for (size_t at = 0; at < n; at += 8) {
        uint64_t d = load_word(dst + at, n - at), s = load_word(src + at, n - at);
        uint64_t w = op == AND ? d & s : op == OR ? d | s : op == XOR ? d ^ s : ~s;
        memcpy(dst + at, &w, n - at < sizeof w ? n - at : sizeof w);
    }
}

/* The result, longest bytes long, in a new blob; a source that is shorter counts as followed by zeros. */
static struct blob *combine_all(struct cx *cx, int op, size_t longest) {
    struct blob *b = resp_blob_new(longest);
    for (int i = 3; i < cx->argc; i++) {
        struct arg v = store_value(store_peek(cx->db, &cx->argv[i]));
        if (op == NOT) combine(NOT, b->data, v.p, v.n);
        else if (i == 3) memcpy(b->data, v.p, v.n);
        else combine(op, b->data, v.p, v.n);
        if (i == 3 || op == AND) memset(b->data + v.n, 0, longest - v.n);
    }
    return b;
}

void cmd_bitop(struct cx *cx) {
    struct arg *to = &cx->argv[2];
    int op = resp_arg_flag(&cx->argv[1], "and or xor not");
    size_t longest = 0;
    if (!cx_check(cx, op, "ERR syntax error") ||
        !cx_check(cx, op != NOT || cx->argc == 4, "ERR BITOP NOT must be called with a single source key."))
        return;
    for (int i = 3; i < cx->argc; i++) {
        size_t n = store_value(cx_read(cx, &cx->argv[i])).n;
        if (n > longest) longest = n;
    }
    if (!cx_memory(cx, NULL, longest)) return;
    if (longest) {
        struct blob *b = combine_all(cx, op, longest);
        struct arg val = {.p = b->data, .n = (uint32_t)longest, .is_blob = longest >= RESP_BLOB_MIN};
        cx_set(cx, to, &val, STORE_NO_DEADLINE);
        if (longest < RESP_BLOB_MIN) resp_blob_release(b);
        cx_edit(cx, to, longest); /* changes no byte, but the value is raw */
        cx_event(cx->db, '$', "set", to);
    } else if (store_delete(cx->db, to)) {
        cx_event(cx->db, 'g', "del", to);
    }
    resp_int(cx->out, (int64_t)longest);
}

/* ---- BITFIELD: integers of 1 to 64 bits at any bit offset ----------------------------------------------- */

__extension__ typedef __int128 wide; /* holds every sum of two 64-bit integers, signed or not */

enum { FIELD_GET = 1, FIELD_SET = 2, FIELD_INCRBY = 4, FIELD_OVERFLOW = 8 };
enum { WRAP = 1, SATURATE = 2, FAIL = 4 };

struct field {
    int action, overflow; /* overflow 0: WRAP */
    bool is_signed;
    int width;
    int64_t offset, operand;
};

/* What the bits say, as a number: v modulo 2^width, or the same taken as two's complement. */
static wide wrap(const struct field *f, wide v) {
    uint64_t low = (uint64_t)v << (64 - f->width);
    return f->is_signed ? (wide)((int64_t)low >> (64 - f->width)) : (wide)(low >> (64 - f->width));
}

static wide read_field(const struct field *f, struct arg value) {
    uint64_t v = 0;
    for (int i = 0; i < f->width; i++) v = v << 1 | bit_at(value, f->offset + i);
    return wrap(f, (wide)v);
}

static char *write_field(const struct field *f, char *p, wide v) {
    for (int i = 0; i < f->width; i++) put_bit(p, f->offset + i, (uint64_t)v >> (f->width - 1 - i) & 1);
    return p;
}

/* The number that SET or INCRBY makes of `old`. False: it does not fit, and OVERFLOW FAIL was said. */
static bool new_number(const struct field *f, wide old, wide *v) {
    wide top = (wide)1 << (f->is_signed ? f->width - 1 : f->width), low = f->is_signed ? -top : 0;
    if (f->action == FIELD_INCRBY) *v = old + f->operand;
    else *v = f->is_signed ? (wide)f->operand : (wide)(uint64_t)f->operand;
    if (*v >= low && *v < top) return true;
    bool wraps = f->action == FIELD_SET && top - 1 - *v > INT64_MAX; /* so far below counts as above in Redis */
    if (f->overflow == SATURATE) *v = *v < low && !wraps ? low : top - 1;
    else *v = wrap(f, *v);
    return f->overflow != FAIL;
}

static bool read_type(struct cx *cx, const struct arg *a, struct field *f) {
    int64_t width = 0;
    f->is_signed = a->n > 0 && a->p[0] == 'i';
    bool ok = a->n > 1 && (f->is_signed || a->p[0] == 'u') && resp_read_int(a->p + 1, a->n - 1, &width);
    f->width = (int)width;
    return cx_check(cx, ok && width > 0 && width <= (f->is_signed ? 64 : 63),
                    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.");
}

/* Reads the field at argv[*i], or the OVERFLOW that holds for those behind it, and moves *i on. False: the error is
 * said. */
static bool next_field(struct cx *cx, int *i, struct field *f) {
    struct arg *a = &cx->argv[*i];
    f->action = resp_arg_flag(a, "get set incrby overflow");
    int words = f->action == FIELD_OVERFLOW ? 2 : f->action == FIELD_GET ? 3 : 4;
    if (!cx_check(cx, f->action && *i + words <= cx->argc, "ERR syntax error")) return false;
    *i += words;
    if (words == 2) f->overflow = resp_arg_flag(&a[1], "wrap sat fail");
    if (words == 2) return cx_check(cx, f->overflow, "ERR Invalid OVERFLOW type specified");
    return read_type(cx, &a[1], f) && read_offset(cx, &a[2], f->width, &f->offset) &&
           (words == 3 || cx_int(cx, *i - 1, &f->operand));
}

/* Goes through the fields twice: to see that all are right and how long the value must be, then to do them. */
void cmd_bitfield(struct cx *cx) {
    struct arg *key = &cx->argv[1];
    struct field f = {0};
    size_t fields = 0, need = 0;
    int i = 2;
    for (; i < cx->argc; fields += f.action != FIELD_OVERFLOW) {
        if (!next_field(cx, &i, &f)) return;
        size_t end = (size_t)(f.offset + f.width + 7) / 8;
        if (f.action & (FIELD_SET | FIELD_INCRBY) && end > need) need = end;
    }
    if (!cx_check(cx, !need || cx->cmd->flags & CMD_WRITE, "ERR BITFIELD_RO only supports the GET subcommand")) return;
    struct entry *e = need ? store_find(cx->db, key) : cx_read(cx, key);
    struct arg value = store_value(e);
    if (need && !cx_memory(cx, e, need > value.n ? need : value.n)) return;
    bool grown = need > value.n, changed = false;
    if (grown) value = (struct arg){.p = cx_edit(cx, key, need), .n = (uint32_t)need};
    resp_array(cx->out, fields);
    for (i = 2, f = (struct field){0}; i < cx->argc && next_field(cx, &i, &f);) {
        if (f.action == FIELD_OVERFLOW) continue;
        wide old = read_field(&f, value), v = old;
        bool fits = f.action == FIELD_GET || new_number(&f, old, &v);
        if (cx_or_null(cx, fits)) resp_int(cx->out, (int64_t)(f.action == FIELD_SET ? old : v));
        if (!fits || f.action == FIELD_GET) continue;
        changed |= grown || v != old;
        if (v != old) value.p = write_field(&f, cx_edit(cx, key, value.n), v);
    }
    if (changed) cx_event(cx->db, '$', "setbit", key);
}
