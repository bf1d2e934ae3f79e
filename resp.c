/* resp.c - bytes to arguments, replies to bytes, and the numbers in both.
 *
 * A command is "*<count>\r\n", then for each argument "$<length>\r\n<bytes>\r\n"; anything else up to a line's end is
 * an inline command, words as a person types them. The parser keeps just where it is: the arguments still to come
 * (todo), the length of the string at hand (bulk) and the next byte (pos), so it can stop at any byte and resume.
 * Nearly all headers of real traffic have one or two digits and are there as a whole; short_header() reads those with a
 * few compares, and what is long, cut off or wrong goes the slow way. Like Redis, it never checks the line end behind a
 * bulk string or the '\n' of a header: it skips two bytes. Unlike Redis, a NUL byte does not hide the line end behind
 * it.
 *
 * Replies are appended to a flat buffer; large values stand beside it as pieces and reach the socket by writev().
 *
 * Blobs from 1 MiB on are mappings, grown by moving pages rather than bytes, and given back in slices: unmapping
 * 512 MiB at once would keep every other client waiting.
 */
#include "resp.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

void *resp_need(void *memory) {
    if (memory != NULL) return memory;
    fputs("echovault: out of memory\n", stderr);
    abort();
}

/* ---- blobs and arguments ----------------------------------------------------------------------------- */

#define MAPPED_MIN (1024u * 1024) /* blobs of this capacity and up are mappings */
#define MAP_UNIT   (64u * 1024)   /* their sizes are multiples of it, and so of every page size */

static struct blob *dying; /* mapped blobs without holders; the first may have lost its tail already */

static size_t mapping_size(size_t cap) { return (cap + sizeof(struct blob) + MAP_UNIT - 1) / MAP_UNIT * MAP_UNIT; }

static struct blob *set_blob(void *memory, bool mapped, size_t size) {
    struct blob *b = resp_need(memory == MAP_FAILED ? NULL : memory);
    *b = (struct blob){.refs = 1, .mapped = mapped, .cap = size - sizeof(struct blob)};
    return b;
}

struct blob *resp_blob_new(size_t cap) {
    size_t plain = sizeof(struct blob) + cap, size = mapping_size(cap);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (cap < MAPPED_MIN) return set_blob(malloc(plain), false, plain);
    return set_blob(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0), true, size);
}

struct blob *resp_blob_grow(struct blob *b, size_t cap) {
    assert(b->refs == 1);
    if (cap <= b->cap) return b;
    size_t size = mapping_size(cap);
    if (b->mapped) return set_blob(mremap(b, mapping_size(b->cap), size, MREMAP_MAYMOVE), true, size);
    struct blob *grown = resp_blob_new(cap);
    memcpy(grown->data, b->data, b->cap);
    free(b);
    return grown;
}

void resp_blob_release(struct blob *b) {
    assert(b->refs > 0);
    if (--b->refs > 0) return;
    b->next_dying = dying;
    if (b->mapped) dying = b;
    else free(b);
}

bool resp_blob_reap(size_t bytes) {
    while (dying != NULL && bytes > 0) {
        struct blob *b = dying;
        size_t size = mapping_size(b->cap), part = bytes < size ? bytes / MAP_UNIT * MAP_UNIT + MAP_UNIT : size;
        if (part == size) dying = b->next_dying;
        else b->cap -= part;
        munmap((char *)b + size - part, part);
        bytes -= min_size(part, bytes);
    }
    return dying != NULL;
}

void resp_arg_release(struct arg *argv, int argc) {
    for (int i = 0; i < argc; i++) {
        if (argv[i].is_blob) resp_blob_release(resp_arg_blob(&argv[i]));
        argv[i].is_blob = false;
    }
}

bool resp_arg_is(const struct arg *a, const char *word) {
    return strlen(word) == a->n && strncasecmp(a->p, word, a->n) == 0;
}

/* ---- the parser -------------------------------------------------------------------------------------- */

#define UNENDED_LINE_MAX (64u * 1024) /* bytes that may come without a line's end */
#define STRICT_ARGS_MAX  10
#define STRICT_BULK_MAX  16384

void resp_parser_init(struct resp_parser *p) { *p = (struct resp_parser){.bulk = -1, .max_bulk = 512 * 1024 * 1024}; }

void resp_parser_free(struct resp_parser *p) {
    if (p->todo > 0) resp_arg_release(p->argv, p->argc);
    if (p->blob != NULL) resp_blob_release(p->blob);
    free(p->argv);
    resp_parser_init(p);
}

void resp_parser_rebase(struct resp_parser *p, const char *old_buf, const char *new_buf, size_t drop) {
    assert(p->todo == 0 || drop <= p->start);
    for (int i = 0; p->todo > 0 && i < p->argc; i++)
        if (!p->argv[i].is_blob) p->argv[i].p = new_buf + ((uintptr_t)p->argv[i].p - (uintptr_t)old_buf - drop);
    p->start -= min_size(drop, p->start);
    p->pos -= min_size(drop, p->pos);
    p->scanned -= min_size(drop, p->scanned);
}

static void grow_args(struct resp_parser *p) {
    p->cap = p->cap == 0 ? 16 : p->cap > INT_MAX / 2 ? INT_MAX : 2 * p->cap;
    p->argv = resp_need(realloc(p->argv, (size_t)p->cap * sizeof(struct arg)));
}

static inline void add_arg(struct resp_parser *p, const char *s, size_t n, bool is_blob) {
    if (p->argc == p->cap) grow_args(p);
    p->argv[p->argc++] = (struct arg){.p = s, .n = (uint32_t)n, .is_blob = is_blob};
}

/* Gives up: says why, and lets go of the command at hand. */
static __attribute__((format(printf, 3, 4))) enum resp_result refuse(struct resp_parser *p, const char **error,
                                                                     const char *fmt, ...) {
    static char text[80];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    *error = text;
    resp_arg_release(p->argv, p->argc);
    p->argc = p->todo = 0;
    return RESP_ERROR;
}

/* Where the line at p->pos has its end c; NULL: not yet there. What was looked at before is not looked at again. */
static char *find_line_end(struct resp_parser *p, char *buf, size_t len, char c) {
    size_t from = p->scanned > p->pos ? p->scanned : p->pos;
    char *end = from < len ? memchr(buf + from, c, len - from) : NULL;
    p->scanned = end != NULL ? (size_t)(end - buf) : len;
    return end;
}

/* The header of one or two digits at s, where n bytes are. Returns its size with type byte and line end, or 0 where it
 * is not as simple as that; then *v is left alone. */
static inline size_t short_header(const char *s, size_t n, char type, int64_t *v) {
    if (n < 5 || *s != type) return 0;
    unsigned a = (unsigned)(s[1] - '0'), b = (unsigned)(s[2] - '0');
    bool one = a <= 9 && s[2] == '\r', two = a >= 1 && a <= 9 && b <= 9 && s[3] == '\r';
    if (one || two) *v = one ? a : a * 10 + b;
    return one ? 4 : two ? 5 : 0;
}

/* Any header, with all checks. Nothing is said before its line has ended. */
static enum resp_result long_header(struct resp_parser *p, char *buf, size_t len, char type, int64_t *v,
                                    const char **error) {
    bool bulk = type == '$';
    int64_t n, max = !bulk ? INT_MAX : p->max_bulk < UINT32_MAX ? p->max_bulk : UINT32_MAX;
    const char *s = buf + p->pos, *end = find_line_end(p, buf, len, '\r'), *what = bulk ? "bulk" : "multibulk";
    if (end == NULL && len - p->pos > UNENDED_LINE_MAX)
        return refuse(p, error, "Protocol error: too big %s count string", bulk ? "bulk" : "mbulk");
    if (end == NULL || end + 1 == buf + len) return RESP_MORE;
    if (*s != type)
        return refuse(p, error, "Protocol error: expected '$', got '%c'", memchr("\r\n", *s, 3) == NULL ? *s : ' ');
    if (!resp_read_int(s + 1, (size_t)(end - s) - 1, &n) || n > max || (bulk && n < 0))
        return refuse(p, error, "Protocol error: invalid %s length", what);
    if (p->strict && n > (bulk ? STRICT_BULK_MAX : STRICT_ARGS_MAX))
        return refuse(p, error, "Protocol error: unauthenticated %s length", what);
    p->pos = (size_t)(end - buf) + 2;
    *v = n;
    return RESP_OK;
}

/* "<type><number>" at p->pos; moves behind it. */
static inline enum resp_result read_header(struct resp_parser *p, char *buf, size_t len, char type, int64_t *v,
                                           const char **error) {
    size_t size = p->strict ? 0 : short_header(buf + p->pos, len - p->pos, type, v);
    p->pos += size;
    return size != 0 ? RESP_OK : long_header(p, buf, len, type, v, error);
}

/* The string at hand is complete. */
static inline void end_bulk(struct resp_parser *p, const char *s, bool is_blob) {
    add_arg(p, s, (size_t)p->bulk, is_blob);
    p->bulk = -1;
    p->todo--;
}

/* The string at hand as a blob: begins it with what is in the buffer; false: not all of it is there. */
static bool read_blob(struct resp_parser *p, const char *buf, size_t len) {
    if (p->blob == NULL) {
        p->blob_want = (size_t)p->bulk + 2;
        p->blob_have = min_size(p->blob_want, len - p->pos);
        p->blob = resp_blob_new(p->blob_want);
        memcpy(p->blob->data, buf + p->pos, p->blob_have);
        p->pos += p->blob_have;
    }
    assert(p->blob_have <= p->blob_want);
    if (p->blob_have < p->blob_want) return false;
    end_bulk(p, p->blob->data, true);
    p->blob = NULL;
    return true;
}

/* The string at hand as a slice of the buffer; false: not all of it is there. */
static inline bool read_slice(struct resp_parser *p, const char *buf, size_t len) {
    size_t pos = p->pos, size = (size_t)p->bulk + 2;
    if (len - pos < size) return false;
    end_bulk(p, buf + pos, false);
    p->pos = pos + size;
    return true;
}

static enum resp_result parse_inline(struct resp_parser *p, char *buf, size_t len, const char **error) {
    char *line = buf + p->pos, *end = find_line_end(p, buf, len, '\n');
    if (end == NULL && len - p->pos <= UNENDED_LINE_MAX) return RESP_MORE;
    if (end == NULL) return refuse(p, error, "Protocol error: too big inline request");
    p->pos = (size_t)(end - buf) + 1;
    if (resp_split_line(p, line, (size_t)(end - line))) return RESP_OK;
    return refuse(p, error, "Protocol error: unbalanced quotes in request");
}

enum resp_result resp_parse(struct resp_parser *p, char *buf, size_t len, const char **error) {
    assert(p->pos <= len);
    enum resp_result r = RESP_OK;
    if (p->todo == 0) {
        p->start = p->pos;
        p->argc = 0;
        if (p->pos == len) return RESP_MORE;
        if (buf[p->pos] != '*') return parse_inline(p, buf, len, error);
        int64_t n = 0;
        r = read_header(p, buf, len, '*', &n, error);
        if (r == RESP_OK && n > 0) p->todo = (int)n;
    }
    while (p->todo > 0) {
        if (p->bulk < 0) r = read_header(p, buf, len, '$', &p->bulk, error);
        if (r != RESP_OK) return r;
        if (!(p->bulk < RESP_BLOB_MIN ? read_slice(p, buf, len) : read_blob(p, buf, len))) return RESP_MORE;
    }
    return r;
}

/* Reads the escape behind a backslash at s (s < end) into *c; returns the byte behind it. */
static const char *read_escape(const char *s, const char *end, char *c) {
    static const char letters[] = "nrtba", meanings[] = "\n\r\t\b\a";
    if (*s == 'x' && end - s > 2 && isxdigit((unsigned char)s[1]) && isxdigit((unsigned char)s[2])) {
        *c = (char)strtol((char[]){s[1], s[2], '\0'}, NULL, 16);
        return s + 3;
    }
    const char *letter = memchr(letters, *s, sizeof(letters) - 1);
    *c = letter != NULL ? meanings[letter - letters] : *s;
    return s + 1;
}

/* Copies what stands between quotes, from s behind the opening one, to *out and moves it. Returns the byte behind the
 * closing one, which has to end the word; NULL: it does not, or there is none. */
static const char *read_quoted(const char *s, const char *end, char quote, char **out) {
    while (s < end && *s != quote) {
        char c = *s++;
        if (c == '\\' && s < end && quote == '"') s = read_escape(s, end, &c);
        else if (c == '\\' && s < end && *s == quote) c = *s++;
        *(*out)++ = c;
    }
    if (s == end || (s + 1 < end && !isspace((unsigned char)s[1]))) return NULL;
    return s + 1;
}

bool resp_split_line(struct resp_parser *p, char *line, size_t n) {
    const char *s = line, *end = line + n;
    char *out = line; /* words get shorter, never longer: it stays at or before s */
    for (;;) {
        while (s < end && isspace((unsigned char)*s)) s++;
        if (s == end) return true;
        const char *word = out;
        for (bool quoted = false; !quoted && s < end && memchr(" \n\r\t", *s, 4) == NULL;) {
            quoted = *s == '"' || *s == '\'';
            if (!quoted) *out++ = *s++;
            else if ((s = read_quoted(s + 1, end, *s, &out)) == NULL) return false;
        }
        add_arg(p, word, (size_t)(out - word), false);
    }
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

#define FLOAT_TEXT_MAX 5120 /* Redis's limit, too: the longest long double has 4933 digits before the point */

bool resp_read_int(const char *p, size_t n, int64_t *v) {
    bool minus = n > 0 && *p == '-';
    const char *end = p + n, *s = p + minus;
    if (s == end || end - s > 19 || (*s == '0' && n > 1)) return false; /* 19 digits always fit into uint64_t */
    uint64_t u = 0;
    for (; s < end && *s >= '0' && *s <= '9'; s++) u = u * 10 + (uint64_t)(*s - '0');
    *v = (int64_t)(minus ? -u : u);
    return s == end && u <= (uint64_t)INT64_MAX + minus;
}

bool resp_read_float(const char *p, size_t n, long double *v) {
    char text[FLOAT_TEXT_MAX], *end;
    if (n == 0 || n >= sizeof(text) || isspace((unsigned char)*p)) return false;
    memcpy(text, p, n);
    text[n] = '\0';
    errno = 0;
    *v = strtold(text, &end);
    return end == text + n && !isnan(*v) && !(errno == ERANGE && (isinf(*v) || *v == 0));
}

/* Writes v's digits, two at a time; returns the byte behind them. */
static char *put_uint(char *p, uint64_t v) {
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    uint64_t top = v;
    for (; top >= 10000; top /= 10000) p += 4;
    char *end = p + 1 + (top >= 10) + (top >= 100) + (top >= 1000);
    for (p = end; v >= 10; v /= 100) memcpy(p -= 2, pairs + v % 100 * 2, 2);
    if (p == end || v > 0) p[-1] = (char)('0' + v);
    return end;
}

int resp_write_int(char *buf, int64_t v) {
    char *p = buf;
    if (v < 0) *p++ = '-';
    p = put_uint(p, v < 0 ? -(uint64_t)v : (uint64_t)v);
    *p = '\0';
    return (int)(p - buf);
}

int resp_write_float(char *buf, size_t cap, long double v) {
    int n = snprintf(buf, cap, "%.17Lf", v); /* "inf" and "-inf" as they are */
    assert(n > 0 && (size_t)n < cap);
    while (isfinite(v) && buf[n - 1] == '0') n--;
    if (buf[n - 1] == '.') n--;
    if (n == 2 && memcmp(buf, "-0", 2) == 0) buf[0] = buf[--n];
    buf[n] = '\0';
    return n;
}

/* ---- the output -------------------------------------------------------------------------------------- */

#define OUT_FIRST   1024
#define COMPACT_MIN (64u * 1024) /* so many sent bytes in front are worth moving the rest */

static void drop_pieces(struct resp_out *o, uint32_t from) {
    for (uint32_t i = from; i < o->npieces; i++) {
        o->piece_bytes -= o->pieces[i].n;
        resp_blob_release(o->pieces[i].blob);
    }
    o->npieces = from;
}

void resp_out_free(struct resp_out *o) {
    drop_pieces(o, o->first_piece);
    free(o->buf);
    free(o->pieces);
    *o = (struct resp_out){.proto = o->proto, .errors = o->errors};
}

static __attribute__((noinline)) char *grow_output(struct resp_out *o, size_t n) {
    size_t cap = o->cap < OUT_FIRST ? OUT_FIRST : o->cap * 2;
    o->cap = cap < o->len + n ? o->len + n : cap;
    o->buf = resp_need(realloc(o->buf, o->cap));
    return o->buf + o->len;
}

char *resp_reserve(struct resp_out *o, size_t n) { return o->cap - o->len >= n ? o->buf + o->len : grow_output(o, n); }

static inline char *put_bytes(char *to, const void *p, size_t n) {
    if (n > 0) memcpy(to, p, n); /* p may be NULL otherwise */
    return to + n;
}

void resp_raw(struct resp_out *o, const void *p, size_t n) {
    put_bytes(resp_reserve(o, n), p, n);
    o->len += n;
}

static void add_piece(struct resp_out *o, size_t at, struct blob *b, size_t n) {
    if (o->npieces == o->pieces_cap) {
        o->pieces_cap = o->pieces_cap == 0 ? 4 : o->pieces_cap * 2;
        o->pieces = resp_need(realloc(o->pieces, o->pieces_cap * sizeof(struct resp_piece)));
    }
    o->pieces[o->npieces++] = (struct resp_piece){.at = at, .blob = b, .n = n};
    o->piece_bytes += n;
}

void resp_truncate(struct resp_out *o, size_t len, uint32_t npieces) {
    assert(o->sent <= len && len <= o->len && o->first_piece <= npieces && npieces <= o->npieces);
    drop_pieces(o, npieces);
    o->len = len;
}

size_t resp_out_pending(const struct resp_out *o) { return o->len - o->sent + o->piece_bytes; }

int resp_out_iov(const struct resp_out *o, struct iovec *iov, int max) {
    assert(max >= 2);
    int used = 0;
    size_t from = o->sent, skip = o->piece_sent;
    for (uint32_t i = o->first_piece; i <= o->npieces && used + 2 <= max; i++, skip = 0) {
        const struct resp_piece *piece = i < o->npieces ? &o->pieces[i] : NULL;
        size_t to = piece != NULL ? piece->at : o->len;
        if (to > from) iov[used++] = (struct iovec){.iov_base = o->buf + from, .iov_len = to - from};
        if (piece != NULL)
            iov[used++] = (struct iovec){.iov_base = piece->blob->data + skip, .iov_len = piece->n - skip};
        from = to;
    }
    return used;
}

/* Moves the unsent bytes to the front. */
static void compact(struct resp_out *o) {
    memmove(o->buf, o->buf + o->sent, o->len - o->sent);
    for (uint32_t i = o->first_piece; i < o->npieces; i++) {
        o->pieces[i].at -= o->sent;
        o->pieces[i - o->first_piece] = o->pieces[i];
    }
    o->npieces -= o->first_piece;
    o->len -= o->sent;
    o->sent = o->first_piece = 0;
}

void resp_out_sent(struct resp_out *o, size_t n) {
    assert(n <= resp_out_pending(o));
    for (;; o->first_piece++, o->piece_sent = 0) {
        struct resp_piece *piece = o->first_piece < o->npieces ? &o->pieces[o->first_piece] : NULL;
        size_t part = min_size(n, (piece != NULL ? piece->at : o->len) - o->sent);
        o->sent += part;
        n -= part;
        if (piece == NULL) break;
        part = min_size(n, piece->n - o->piece_sent);
        o->piece_sent += part;
        o->piece_bytes -= part;
        n -= part;
        if (o->piece_sent < piece->n) break;
        resp_blob_release(piece->blob);
    }
    bool much = o->sent >= COMPACT_MIN && o->sent >= o->len - o->sent;
    if (much || (o->sent > 0 && resp_out_pending(o) == 0)) compact(o);
}

void resp_out_move(struct resp_out *to, struct resp_out *from, size_t from_len) {
    assert(from->sent <= from_len && from_len <= from->len);
    if (from_len == from->len) return;
    uint32_t first = from->npieces;
    while (first > from->first_piece && from->pieces[first - 1].at >= from_len) first--;
    assert(first > from->first_piece || from->piece_sent == 0); /* what has begun cannot queue up again */
    for (uint32_t i = first; i < from->npieces; i++) {
        struct resp_piece piece = from->pieces[i];
        add_piece(to, piece.at - from_len + to->len, piece.blob, piece.n);
        from->piece_bytes -= piece.n;
    }
    resp_raw(to, from->buf + from_len, from->len - from_len);
    from->npieces = first;
    from->len = from_len;
}

/* ---- replies ----------------------------------------------------------------------------------------- */

#define HEADER_MAX 23 /* a type, 20 digits, a line end */

static inline char *put_line_end(char *p) { return put_bytes(p, "\r\n", 2); }
static inline void used_to(struct resp_out *o, const char *end) { o->len = (size_t)(end - o->buf); }

static inline char *put_header(char *p, char type, uint64_t n) {
    *p = type;
    return put_line_end(put_uint(p + 1, n));
}

static inline void header(struct resp_out *o, char type, size_t n) {
    used_to(o, put_header(resp_reserve(o, HEADER_MAX), type, n));
}

static void text_line(struct resp_out *o, char type, const char *text) {
    size_t n = strlen(text);
    char *p = resp_reserve(o, n + 3);
    *p = type;
    used_to(o, put_line_end(put_bytes(p + 1, text, n)));
}

/* Writes the formatted text as write() does. */
static void formatted(struct resp_out *o, void write(struct resp_out *, const char *), const char *fmt, va_list ap) {
    char *text;
    if (vasprintf(&text, fmt, ap) < 0) text = NULL;
    write(o, resp_need(text));
    free(text);
}

void resp_ok(struct resp_out *o) { resp_raw(o, "+OK\r\n", 5); }
void resp_status(struct resp_out *o, const char *s) { text_line(o, '+', s); }

void resp_error(struct resp_out *o, const char *text) {
    size_t start = o->len + 1;
    text_line(o, '-', text);
    for (char *p = o->buf + start; p < o->buf + o->len - 2; p++)
        if (*p == '\r' || *p == '\n') *p = ' '; /* the text may quote what a client sent */
    o->last_error = o->buf + start;
    o->errors++;
}

void resp_errorf(struct resp_out *o, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    formatted(o, resp_error, fmt, ap);
    va_end(ap);
}

void resp_int(struct resp_out *o, int64_t v) {
    char *p = resp_reserve(o, HEADER_MAX + 1);
    *p = ':';
    used_to(o, put_line_end(p + 1 + resp_write_int(p + 1, v)));
}

void resp_bulk(struct resp_out *o, const void *p, size_t n) {
    char *end = put_header(resp_reserve(o, HEADER_MAX + n + 2), '$', n);
    used_to(o, put_line_end(put_bytes(end, p, n)));
}

void resp_bulk_str(struct resp_out *o, const char *s) { resp_bulk(o, s, strlen(s)); }

void resp_bulk_int(struct resp_out *o, int64_t v) {
    char digits[RESP_INT_MAX];
    size_t n = (size_t)resp_write_int(digits, v);
    resp_bulk(o, digits, n);
}

void resp_bulkf(struct resp_out *o, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    formatted(o, resp_bulk_str, fmt, ap);
    va_end(ap);
}

void resp_blob(struct resp_out *o, struct blob *b, size_t n) {
    header(o, '$', n);
    if (n > 0) add_piece(o, o->len, resp_blob_ref(b), n);
    resp_raw(o, "\r\n", 2);
}

void resp_verbatim(struct resp_out *o, const void *p, size_t n) {
    bool resp3 = o->proto == 3;
    header(o, resp3 ? '=' : '$', resp3 ? n + 4 : n);
    resp_raw(o, "txt:", resp3 ? 4 : 0);
    resp_raw(o, p, n);
    resp_raw(o, "\r\n", 2);
}

void resp_null(struct resp_out *o) { resp_raw(o, o->proto == 3 ? "_\r\n" : "$-1\r\n", o->proto == 3 ? 3 : 5); }
void resp_null_array(struct resp_out *o) { resp_raw(o, o->proto == 3 ? "_\r\n" : "*-1\r\n", o->proto == 3 ? 3 : 5); }
void resp_array(struct resp_out *o, size_t n) { header(o, '*', n); }
void resp_map(struct resp_out *o, size_t n) { header(o, o->proto == 3 ? '%' : '*', o->proto == 3 ? n : 2 * n); }
void resp_set(struct resp_out *o, size_t n) { header(o, o->proto == 3 ? '~' : '*', n); }
void resp_push(struct resp_out *o, size_t n) { header(o, o->proto == 3 ? '>' : '*', n); }

void resp_double(struct resp_out *o, double v) {
    char text[32];
    snprintf(text, sizeof(text), "%.17g", v);
    if (o->proto == 3) text_line(o, ',', text);
    else resp_bulk_str(o, text);
}

void resp_bool(struct resp_out *o, bool v) {
    resp_raw(o, o->proto == 3 ? (v ? "#t\r\n" : "#f\r\n") : (v ? ":1\r\n" : ":0\r\n"), 4);
}

size_t resp_later(struct resp_out *o) {
    resp_reserve(o, HEADER_MAX);
    o->len += HEADER_MAX;
    return o->len - HEADER_MAX;
}

/* Puts the header at the mark and closes the gap behind it. */
static void end_later(struct resp_out *o, size_t mark, char type, size_t n) {
    char *rest = o->buf + mark + HEADER_MAX, *end = put_header(o->buf + mark, type, n);
    size_t gap = (size_t)(rest - end);
    memmove(end, rest, o->len - mark - HEADER_MAX);
    o->len -= gap;
    for (uint32_t i = o->npieces; i > o->first_piece && o->pieces[i - 1].at > mark; i--) o->pieces[i - 1].at -= gap;
}

void resp_later_array(struct resp_out *o, size_t mark, size_t n) { end_later(o, mark, '*', n); }
void resp_later_map(struct resp_out *o, size_t mark, size_t pairs) {
    end_later(o, mark, o->proto == 3 ? '%' : '*', o->proto == 3 ? pairs : 2 * pairs);
}
