/* resp.c - bytes to arguments, replies to bytes, and the numbers in both.
 *
 * A command is "*<count>\r\n", then for each argument "$<length>\r\n<bytes>\r\n"; anything else up to a line's end is
 * an inline command, words as a person types them. The parser keeps just where it is, so it can stop at any byte and
 * resume. Like Redis, it never checks the line end behind a bulk string or the '\n' of a header: it skips two bytes.
 * Unlike Redis, a NUL byte does not hide the line end behind it.
 *
 * Replies are appended to a flat buffer; large values stand beside it as pieces and reach the socket by writev().
 *
 * Blobs from 512 KiB on are mappings, grown by moving pages rather than bytes, and given back in slices: unmapping
 * 512 MiB at once would keep every other client waiting.
 */
#include "resp.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <sys/mman.h>

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

void *resp_need(void *memory) {
    if (memory != NULL) return memory;
    fputs("echovault: out of memory\n", stderr);
    abort();
}

/* ---- blobs and arguments ----------------------------------------------------------------------------- */

#define MAPPED_MIN (512u * 1024) /* blobs of this capacity and up are mappings */
#define MAP_UNIT   (64u * 1024)  /* their sizes are multiples of it, and so of every page size */
#define SPARE      (64u << 20)   /* what may be kept of those without holders, bytes */

/* Mapped blobs without holders; the first may have lost its tail already. They are used again while big values keep
 * coming, since new memory costs a page fault a page; what no one needed for a while is given back. */
static struct blob *dying;
static size_t dying_memory; /* bytes of theirs */
static size_t unneeded;     /* the least that this was since the last beat */

static bool is_mapped(size_t cap) { return cap >= MAPPED_MIN; }
#define MEMORY_SPARE ((size_t)16 << 20) /* for what is not asked about */

bool resp_memory_limited;

bool resp_memory_left(size_t n) {
    if (!resp_memory_limited || n < MAPPED_MIN) return true;
    void *p = mmap(NULL, n + MEMORY_SPARE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return false;
    munmap(p, n + MEMORY_SPARE);
    return true;
}

static size_t mapping_size(size_t cap) { return (cap + sizeof(struct blob) + MAP_UNIT - 1) / MAP_UNIT * MAP_UNIT; }

static void *mapped(void *memory) { return memory == MAP_FAILED ? NULL : memory; }

static struct blob *set_blob(void *memory, size_t size) {
    struct blob *b = resp_need(memory);
    *b = (struct blob){.refs = 1, .cap = size - sizeof(struct blob)};
    return b;
}

static void *take_spare(size_t size) {
    int looked = 0;
    for (struct blob *b, **at = &dying; (b = *at) && looked++ < 8; at = &b->next_dying)
        if (mapping_size(b->cap) == size) {
            *at = b->next_dying;
            dying_memory -= size;
            unneeded = min_size(unneeded, dying_memory);
            return b;
        }
    return NULL;
}

struct blob *resp_blob_new(size_t cap) {
    size_t plain = sizeof(struct blob) + cap, size = mapping_size(cap);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (!is_mapped(cap)) return set_blob(malloc(plain), plain);
    void *spare = dying_memory >= size ? take_spare(size) : NULL;
    return set_blob(spare ? spare : mapped(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0)), size);
}

struct blob *resp_blob_grow(struct blob *b, size_t cap) {
    assert(b->refs == 1);
    if (cap <= b->cap) return b;
    size_t size = mapping_size(cap);
    if (is_mapped(b->cap)) return set_blob(mapped(mremap(b, mapping_size(b->cap), size, MREMAP_MAYMOVE)), size);
    struct blob *grown = resp_blob_new(cap);
    memcpy(grown->data, b->data, b->cap);
    free(b);
    return grown;
}

void resp_blob_release(struct blob *b) {
    assert(b->refs > 0);
    if (--b->refs > 0) return;
    if (is_mapped(b->cap)) {
        b->next_dying = dying;
        dying = b;
        dying_memory += mapping_size(b->cap);
    } else {
        free(b);
    }
}

bool resp_blob_reap(size_t bytes, bool beat) {
    size_t most = resp_memory_limited ? 0 : SPARE, keep = beat ? min_size(most, dying_memory - unneeded) : most;
    while (dying_memory > keep && bytes > 0) {
        struct blob *b = dying;
        size_t size = mapping_size(b->cap), part = bytes < size ? bytes / MAP_UNIT * MAP_UNIT + MAP_UNIT : size;
        if (part == size) dying = b->next_dying;
        else b->cap -= part;
        munmap((char *)b + size - part, part);
        dying_memory -= part;
        bytes -= min_size(part, bytes);
    }
    unneeded = beat ? dying_memory : min_size(unneeded, dying_memory);
    return dying_memory > most;
}

void resp_arg_release(struct arg *argv, int argc) {
    for (int i = 0; i < argc; i++) {
        if (argv[i].is_blob) resp_blob_release(resp_arg_blob(&argv[i]));
        argv[i].is_blob = false;
    }
}

int resp_arg_flag(const struct arg *a, const char *words) {
    for (int flag = 1;; flag *= 2) {
        size_t n = strcspn(words, " ");
        if (n == a->n && strncasecmp(a->p, words, n) == 0) return flag;
        if (words[n] == '\0') return 0;
        words += n + 1;
    }
}

/* ---- the parser -------------------------------------------------------------------------------------- */

#define UNENDED_LINE_MAX (64u * 1024) /* bytes that may come without a line's end */
#define PROTOCOL         "Protocol error: "
#define STRICT_ARGS_MAX  10
#define STRICT_BULK_MAX  16384

void resp_parser_init(struct resp_parser *p) { *p = (struct resp_parser){.bulk = -1, .max_bulk = RESP_STRING_MAX}; }

void resp_parser_free(struct resp_parser *p) {
    if (p->todo > 0) resp_arg_release(p->argv, p->argc);
    if (p->blob != NULL) resp_blob_release(p->blob);
    free(p->argv);
    resp_parser_init(p);
}

void resp_parser_rebase(struct resp_parser *p, const char *old_buf, const char *new_buf, size_t drop) {
    assert(p->todo == 0 || drop <= p->start);
    if (old_buf == new_buf && !drop) return;
    for (int i = 0; p->todo > 0 && i < p->argc; i++)
        if (!p->argv[i].is_blob) p->argv[i].p = new_buf + ((uintptr_t)p->argv[i].p - (uintptr_t)old_buf - drop);
    p->start -= min_size(drop, p->start);
    p->pos -= min_size(drop, p->pos);
}

static void grow_args(struct resp_parser *p) {
    p->cap = p->cap == 0 ? 16 : p->cap > INT_MAX / 2 ? INT_MAX : 2 * p->cap;
    p->argv = resp_need(realloc(p->argv, (size_t)p->cap * sizeof(struct arg)));
}

static inline void add_arg(struct resp_parser *p, const char *s, size_t n, bool is_blob) {
    if (p->argc == p->cap) grow_args(p);
    p->argv[p->argc++] = (struct arg){.p = s, .n = (uint32_t)n, .is_blob = is_blob};
}

/* Gives up: says why, in three parts, and lets go of the command at hand. */
static enum resp_result refuse(struct resp_parser *p, const char **error, const char *a, const char *b, const char *c) {
    static char text[64];
    snprintf(text, sizeof(text), "%s%s%s", a, b, c);
    *error = text;
    resp_arg_release(p->argv, p->argc);
    p->argc = p->todo = 0;
    p->bulk = -1;
    return RESP_ERROR;
}

/* Any header, with all checks. Nothing is said before its line has ended. */
static enum resp_result long_header(struct resp_parser *p, char *buf, size_t len, char type, int64_t *v,
                                    const char **error) {
    bool bulk = type == '$';
    int64_t n, max = !bulk ? INT_MAX : p->max_bulk < RESP_STRING_MAX ? p->max_bulk : RESP_STRING_MAX;
    const char *s = buf + p->pos, *end = memchr(s, '\r', len - p->pos), *what = bulk ? "bulk" : "multibulk";
    if (end == NULL && len - p->pos > UNENDED_LINE_MAX)
        return refuse(p, error, PROTOCOL "too big ", bulk ? "bulk" : "mbulk", " count string");
    if (end == NULL || end + 1 == buf + len) return RESP_MORE;
    if (*s != type) /* as Redis quotes it, who sees the end of a string there */
        return refuse(p, error, PROTOCOL "expected '$', got '",
                      (char[]){memchr("\r\n", *s, 3) == NULL ? *s : ' ', '\0'}, "'");
    if (!resp_read_int(s + 1, (size_t)(end - s) - 1, &n) || n > max || (bulk && n < 0))
        return refuse(p, error, PROTOCOL "invalid ", what, " length");
    if (p->strict && n > (bulk ? STRICT_BULK_MAX : STRICT_ARGS_MAX))
        return refuse(p, error, PROTOCOL "unauthenticated ", what, " length");
    p->pos = (size_t)(end - buf) + 2;
    *v = n;
    return RESP_OK;
}

/* Reads "*<count>"; nearly all have one digit. */
static inline enum resp_result read_count(struct resp_parser *p, char *buf, size_t len, int64_t *v,
                                          const char **error) {
    const char *s = buf + p->pos;
    if (len - p->pos < 5 || p->strict || s[1] < '0' || s[1] > '9' || s[2] != '\r')
        return long_header(p, buf, len, '*', v, error);
    *v = s[1] - '0';
    p->pos += 4;
    return RESP_OK;
}

/* Takes the arguments at hand as far as they are there as a whole and have a length of one or two digits: of real
 * traffic nearly all, so they take a few compares each. */
static inline void take_short(struct resp_parser *p, const char *buf, size_t len) {
    const char *s = buf + p->pos, *end = buf + len;
    int i = p->argc, room = p->cap - i, stop = i + (p->todo < room ? p->todo : room);
    for (; i < stop && end - s > 4 && *s == '$'; i++) {
        unsigned n = (unsigned)(s[1] - '0'), digit = (unsigned)(s[2] - '0'), head = s[2] == '\r' ? 4 : 5;
        if (n > 9 || (head == 5 && (n == 0 || digit > 9 || s[3] != '\r'))) break;
        if (head == 5) n = n * 10 + digit;
        if (end - s < head + n + 2) break;
        p->argv[i] = (struct arg){.p = s + head, .n = n};
        s += head + n + 2;
    }
    p->todo -= i - p->argc;
    p->argc = i;
    p->pos = (size_t)(s - buf);
}

/* Reads the string at hand into a blob, which begins with what is in the buffer; false: not all of it is there. */
static bool read_blob(struct resp_parser *p, const char *buf, size_t len) {
    if (p->blob == NULL) {
        p->blob_want = (size_t)p->bulk + 2;
        p->blob_have = min_size(p->blob_want, len - p->pos);
        p->blob = resp_blob_new(p->blob_want);
        memcpy(p->blob->data, buf + p->pos, p->blob_have);
        p->pos += p->blob_have;
    }
    assert(p->blob_have <= p->blob_want);
    return p->blob_have == p->blob_want;
}

/* The string at hand, a slice of the buffer or a blob, becomes an argument; false: not all of it is there. */
static inline bool read_bulk(struct resp_parser *p, const char *buf, size_t len) {
    size_t pos = p->pos, n = (size_t)p->bulk;
    if (n >= RESP_BLOB_MIN) {
        if (!read_blob(p, buf, len)) return false;
        add_arg(p, p->blob->data, n, true);
        p->blobs += n;
        p->blob = NULL;
    } else {
        if (len - pos < n + 2) return false;
        add_arg(p, buf + pos, n, false);
        p->pos = pos + n + 2;
    }
    p->bulk = -1;
    p->todo--;
    return true;
}

static enum resp_result parse_inline(struct resp_parser *p, char *buf, size_t len, const char **error) {
    char *line = buf + p->pos, *end = memchr(line, '\n', len - p->pos);
    if (end == NULL && len - p->pos <= UNENDED_LINE_MAX) return RESP_MORE;
    if (end == NULL) return refuse(p, error, PROTOCOL "too big inline request", "", "");
    p->pos = (size_t)(end - buf) + 1;
    if (resp_split_line(p, line, (size_t)(end - line))) return RESP_OK;
    return refuse(p, error, PROTOCOL "unbalanced quotes in request", "", "");
}

enum resp_result resp_parse(struct resp_parser *p, char *buf, size_t len, const char **error) {
    assert(p->pos <= len);
    enum resp_result r = RESP_OK;
    if (p->todo == 0) {
        p->start = p->pos;
        p->argc = 0;
        p->blobs = 0;
        if (p->pos == len) return RESP_MORE;
        if (buf[p->pos] != '*') return parse_inline(p, buf, len, error);
        int64_t n = 0;
        r = read_count(p, buf, len, &n, error);
        if (r == RESP_OK && n > 0) p->todo = (int)n;
    }
    while (p->todo > 0) {
        if (p->bulk < 0) take_short(p, buf, len);
        if (p->todo == 0) break;
        if (p->bulk < 0) r = long_header(p, buf, len, '$', &p->bulk, error);
        if (r != RESP_OK) return r;
        if (p->blob == NULL && !resp_memory_left((size_t)p->bulk)) return refuse(p, error, RESP_NO_MEMORY, "", "");
        if (!read_bulk(p, buf, len)) return RESP_MORE;
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

/* Copies the word at s to *out, which moves on. Returns the byte behind it; NULL: a quote does not end, or not the
 * word. */
static const char *read_word(const char *s, const char *end, char **out) {
    char quote = '\0';
    while (s < end && (quote != '\0' || memchr(" \n\r\t", *s, 4) == NULL)) {
        char c = *s++;
        if (quote == '\0' && (c == '"' || c == '\'')) {
            quote = c;
            continue;
        }
        if (quote != '\0' && c == quote) return s == end || isspace((unsigned char)*s) ? s : NULL;
        if (c == '\\' && s < end && quote == '"') s = read_escape(s, end, &c);
        else if (c == '\\' && quote != '\0' && s < end && *s == quote) c = *s++;
        *(*out)++ = c;
    }
    return quote == '\0' ? s : NULL;
}

bool resp_split_line(struct resp_parser *p, char *line, size_t n) {
    const char *s = line, *end = line + n;
    char *out = line; /* words get shorter, never longer: it stays at or before s */
    for (;;) {
        while (s < end && isspace((unsigned char)*s)) s++;
        if (s == end) return true;
        const char *word = out;
        if ((s = read_word(s, end, &out)) == NULL) return false;
        add_arg(p, word, (size_t)(out - word), false);
    }
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

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
    char text[RESP_FLOAT_MAX], *end;
    if (n == 0 || n >= sizeof(text) || isspace((unsigned char)*p)) return false;
    memcpy(text, p, n);
    text[n] = '\0';
    errno = 0;
    *v = strtold(text, &end);
    return end == text + n && !isnan(*v) && !(errno == ERANGE && (isinf(*v) || *v == 0));
}

int resp_write_int(char *buf, int64_t v) {
    uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
    char *end = buf + (v < 0) + 1;
    for (uint64_t rest = u / 10; rest > 0; rest /= 10) end++;
    *buf = '-';
    *end = '\0';
    char *p = end;
    do *--p = (char)('0' + u % 10);
    while (u /= 10);
    return (int)(end - buf);
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

void resp_truncate(struct resp_out *o, size_t len, uint32_t npieces) {
    assert(o->sent <= len && len <= o->len && npieces <= o->npieces);
    for (uint32_t i = npieces; i < o->npieces; i++) {
        o->piece_bytes -= o->pieces[i].n;
        o->held -= o->pieces[i].held;
        resp_blob_release(o->pieces[i].blob);
    }
    o->npieces = npieces;
    o->len = len;
}

void resp_out_free(struct resp_out *o) {
    resp_truncate(o, o->sent, 0);
    free(o->buf);
    free(o->pieces);
    *o = (struct resp_out){.proto = o->proto, .errors = o->errors};
}

static __attribute__((noinline)) char *grow_output(struct resp_out *o, size_t n) {
    o->cap = 2 * o->cap + n + 1024;
    o->buf = resp_need(realloc(o->buf, o->cap));
    return o->buf + o->len;
}

char *resp_reserve(struct resp_out *o, size_t n) { return o->cap - o->len >= n ? o->buf + o->len : grow_output(o, n); }

void resp_raw(struct resp_out *o, const void *p, size_t n) {
    char *to = resp_reserve(o, n);
    if (n > 0) memcpy(to, p, n); /* p may be NULL otherwise */
    o->len += n;
}

static void add_piece(struct resp_out *o, size_t at, struct blob *b, char *p, size_t n) {
    size_t held = o->npieces && o->pieces[o->npieces - 1].blob == b ? 0 : n;
    PUSH(o->pieces, o->npieces, o->pieces_cap, ((struct resp_piece){at, b, p, n, held}));
    o->piece_bytes += n;
    o->held += held;
}

size_t resp_out_pending(const struct resp_out *o) { return o->len - o->sent + o->piece_bytes; }
size_t resp_out_memory(const struct resp_out *o) { return o->len - o->sent + o->held; }

int resp_out_iov(const struct resp_out *o, struct iovec *iov, int max) {
    assert(max >= 2);
    int used = 0;
    size_t from = o->sent;
    for (uint32_t i = 0; i <= o->npieces && used + 2 <= max; i++) {
        const struct resp_piece *piece = i < o->npieces ? &o->pieces[i] : NULL;
        size_t to = piece != NULL ? piece->at : o->len;
        if (to > from) iov[used++] = (struct iovec){.iov_base = o->buf + from, .iov_len = to - from};
        if (piece != NULL) iov[used++] = (struct iovec){.iov_base = piece->p, .iov_len = piece->n};
        from = to;
    }
    return used;
}

void resp_out_sent(struct resp_out *o, size_t n) {
    assert(n <= resp_out_pending(o));
    uint32_t done = 0;
    for (; done < o->npieces; done++) {
        struct resp_piece *piece = &o->pieces[done];
        size_t bytes = min_size(n, piece->at - o->sent), part = min_size(n - bytes, piece->n);
        n -= bytes + part;
        o->sent += bytes;
        o->piece_bytes -= part;
        piece->p += part;
        piece->n -= part;
        if (piece->n > 0) break;
        if (done + 1 < o->npieces && piece[1].blob == piece->blob) piece[1].held = piece->held;
        else o->held -= piece->held;
        resp_blob_release(piece->blob);
    }
    o->npieces -= done;
    if (done > 0) memmove(o->pieces, o->pieces + done, o->npieces * sizeof *o->pieces);
    o->sent += n;
    if (o->sent == 0 || o->sent < o->len - o->sent) return;
    o->len -= o->sent; /* the rest moves to the front, which is never more than was sent */
    memmove(o->buf, o->buf + o->sent, o->len);
    for (uint32_t i = 0; i < o->npieces; i++) o->pieces[i].at -= o->sent;
    o->sent = 0;
}

void resp_out_move(struct resp_out *to, struct resp_out *from, size_t from_len) {
    assert(from->sent <= from_len && from_len <= from->len);
    uint32_t first = from->npieces;
    while (first > 0 && from->pieces[first - 1].at >= from_len) first--;
    for (uint32_t i = first; i < from->npieces; i++) {
        struct resp_piece piece = from->pieces[i];
        add_piece(to, piece.at - from_len + to->len, piece.blob, piece.p, piece.n);
        from->piece_bytes -= piece.n;
        from->held -= piece.held;
    }
    resp_raw(to, from->buf + from_len, from->len - from_len);
    from->npieces = first;
    from->len = from_len;
}

/* ---- replies ----------------------------------------------------------------------------------------- */

#define HEADER_MAX 23 /* a type, 20 characters, a line end */

/* Writes "<type><number>" and its line end; returns the byte behind it. */
static inline char *put_header(char *p, char type, int64_t v) {
    *p++ = type;
    uint64_t u = (uint64_t)v;
    if (u >= 10 && u < 100) *p++ = (char)('0' + u / 10);
    if (u < 100) *p++ = (char)('0' + u % 10);
    else p += resp_write_int(p, v);
    memcpy(p, "\r\n", 2);
    return p + 2;
}

static inline void header(struct resp_out *o, char type, int64_t v) {
    o->len = (size_t)(put_header(resp_reserve(o, HEADER_MAX), type, v) - o->buf);
}

static void formatted(struct resp_out *o, const char *fmt, va_list ap) {
    char *text;
    int n = vasprintf(&text, fmt, ap);
    resp_raw(o, resp_need(n < 0 ? NULL : text), (size_t)n);
    free(text);
}

void resp_printf(struct resp_out *o, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    formatted(o, fmt, ap);
    va_end(ap);
}

void resp_errorf(struct resp_out *o, const char *fmt, ...) {
    size_t start = o->len + 1;
    va_list ap;
    va_start(ap, fmt);
    resp_raw(o, "-", 1);
    formatted(o, fmt, ap);
    va_end(ap);
    for (char *p = o->buf + start; p < o->buf + o->len; p++)
        if (*p == '\r' || *p == '\n') *p = ' '; /* the text may quote what a client sent */
    resp_raw(o, "\r\n", 2);
    o->last_error = o->buf + start;
    o->errors++;
}

void resp_error(struct resp_out *o, const char *text) { resp_errorf(o, "%s", text); }
void resp_ok(struct resp_out *o) { resp_raw(o, "+OK\r\n", 5); }
void resp_status(struct resp_out *o, const char *s) {
    resp_raw(o, "+", 1);
    resp_raw(o, s, strlen(s));
    resp_raw(o, "\r\n", 2);
}

void resp_int(struct resp_out *o, int64_t v) { header(o, ':', v); }

void resp_bulk(struct resp_out *o, const void *p, size_t n) {
    char *to = put_header(resp_reserve(o, HEADER_MAX + n + 2), '$', (int64_t)n);
    if (n > 0) memcpy(to, p, n); /* p may be NULL otherwise */
    memcpy(to + n, "\r\n", 2);
    o->len = (size_t)(to + n + 2 - o->buf);
}

void resp_bulk_str(struct resp_out *o, const char *s) { resp_bulk(o, s, strlen(s)); }

void resp_bulk_int(struct resp_out *o, int64_t v) {
    char digits[RESP_INT_MAX];
    resp_bulk(o, digits, (size_t)resp_write_int(digits, v));
}

void resp_blob(struct resp_out *o, struct blob *b, size_t n) {
    header(o, '$', (int64_t)n);
    if (n > 0) add_piece(o, o->len, resp_blob_ref(b), b->data, n);
    resp_raw(o, "\r\n", 2);
}

void resp_words(struct resp_out *o, const char *words) {
    for (size_t n; (n = strcspn(words, " ")); words += n + (words[n] != '\0')) resp_bulk(o, words, n);
}

void resp_quoted(struct resp_out *o, const void *p, size_t n) {
    static const char plain[] = "\"\\\n\r\t\a\b", escaped[] = "\"\\nrtab";
    resp_raw(o, "\"", 1);
    for (const char *c = p, *end = c + n, *at; c < end; c++)
        if ((at = memchr(plain, *c, sizeof plain - 1))) resp_printf(o, "\\%c", escaped[at - plain]);
        else if (*c >= ' ' && *c <= '~') resp_raw(o, c, 1);
        else resp_printf(o, "\\x%02x", (unsigned char)*c);
    resp_raw(o, "\"", 1);
}

void resp_null(struct resp_out *o) { resp_raw(o, o->proto == 3 ? "_\r\n" : "$-1\r\n", o->proto == 3 ? 3 : 5); }
void resp_null_array(struct resp_out *o) { resp_raw(o, o->proto == 3 ? "_\r\n" : "*-1\r\n", o->proto == 3 ? 3 : 5); }
void resp_array(struct resp_out *o, size_t n) { header(o, '*', (int64_t)n); }
void resp_map(struct resp_out *o, size_t n) { resp_later_map(o, o->len, n); }
void resp_set(struct resp_out *o, size_t n) { header(o, o->proto == 3 ? '~' : '*', (int64_t)n); }
void resp_push(struct resp_out *o, size_t n) { header(o, o->proto == 3 ? '>' : '*', (int64_t)n); }

void resp_pair(struct resp_out *o, const char *name, const char *value) {
    resp_bulk_str(o, name);
    resp_bulk_str(o, value);
}

void resp_pair_int(struct resp_out *o, const char *name, int64_t value) {
    resp_bulk_str(o, name);
    resp_int(o, value);
}

size_t resp_later(struct resp_out *o) { return o->len; }

/* Puts the header in at the mark, with the text behind it. */
static void end_later(struct resp_out *o, size_t mark, char type, size_t n, const char *text) {
    char head[HEADER_MAX + 5];
    size_t size = (size_t)(stpcpy(put_header(head, type, (int64_t)n), text) - head);
    resp_reserve(o, size);
    memmove(o->buf + mark + size, o->buf + mark, o->len - mark);
    memcpy(o->buf + mark, head, size);
    o->len += size;
    for (uint32_t i = o->npieces; i > 0 && o->pieces[i - 1].at > mark; i--) o->pieces[i - 1].at += size;
}

void resp_later_array(struct resp_out *o, size_t mark, size_t n) { end_later(o, mark, '*', n, ""); }
void resp_later_map(struct resp_out *o, size_t mark, size_t pairs) {
    end_later(o, mark, o->proto == 3 ? '%' : '*', o->proto == 3 ? pairs : 2 * pairs, "");
}
void resp_later_bulk(struct resp_out *o, size_t mark) {
    end_later(o, mark, '$', o->len - mark, "");
    resp_raw(o, "\r\n", 2);
}
void resp_later_text(struct resp_out *o, size_t mark) {
    if (o->proto != 3) resp_later_bulk(o, mark);
    else end_later(o, mark, '=', o->len - mark + 4, "txt:"), resp_raw(o, "\r\n", 2);
}
