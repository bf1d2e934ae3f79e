/* fuzz_parser.c - the parser. What it makes of an input must not depend on where the reads cut it, nor on how its
 * buffer moves; words and numbers are read back as they were written.
 *
 * The first bytes say how to cut; the rest is the input. */
#include "resp.h"

struct said {
    uint64_t sum; /* of all commands, in order */
    size_t commands;
    char error[64];
};

static void note(struct said *s, const struct resp_parser *p) {
    for (int i = 0; i < p->argc; i++) {
        const struct arg *a = &p->argv[i];
        if (a->is_blob != (a->n >= RESP_BLOB_MIN && p->todo == 0 && p->bulk == -1) && a->is_blob) abort();
        s->sum = (s->sum ^ a->n) * 1099511628211u;
        for (size_t k = 0; k < a->n; k++) s->sum = (s->sum ^ (unsigned char)a->p[k]) * 1099511628211u;
    }
    s->sum += s->commands += p->argc > 0;
}

static enum resp_result run(struct resp_parser *p, char *buf, size_t len, struct said *s) {
    enum resp_result r;
    const char *error;
    while ((r = resp_parse(p, buf, len, &error)) == RESP_OK) {
        note(s, p);
        resp_arg_release(p->argv, p->argc);
        if (p->start >= p->pos || p->pos > len || p->todo) abort();
    }
    if (r == RESP_ERROR) snprintf(s->error, sizeof s->error, "%s", error);
    if (r == RESP_ERROR && (p->argc || p->todo)) abort();
    return r;
}

/* Fed as the reactor does it: into exact buffers that move, or into the blob at hand. */
static struct said parse(const uint8_t *in, size_t n, const uint8_t *cuts, size_t ncuts, bool strict) {
    struct said s = {.sum = 14695981039346656037u};
    struct resp_parser p;
    char *buf = NULL;
    size_t len = 0, i = 0;
    resp_parser_init(&p);
    p.max_bulk = 1 << 20;
    p.strict = strict;
    while (n) {
        uint8_t cut = ncuts ? cuts[i++ % ncuts] : 255;
        size_t part = cut == 255 ? n : (size_t)1 + cut % 64;
        if (part > n) part = n;
        if (p.blob) {
            if (part > p.blob_want - p.blob_have) part = p.blob_want - p.blob_have;
            memcpy(p.blob->data + p.blob_have, in, part);
            p.blob_have += part;
        } else {
            size_t drop = cut & 64 ? p.todo ? p.start : p.pos : 0;
            char *moved = resp_need(malloc(len - drop + part));
            if (len > drop) memcpy(moved, buf + drop, len - drop);
            memcpy(moved + len - drop, in, part);
            resp_parser_rebase(&p, buf, moved, drop);
            free(buf);
            buf = moved;
            len += part - drop;
        }
        in += part;
        n -= part;
        enum resp_result r = run(&p, buf, len, &s);
        if (strict && (size_t)p.cap * sizeof *p.argv + (p.blob ? p.blob->cap : 0) > 16 << 10) abort();
        if (r == RESP_ERROR) break;
    }
    resp_parser_free(&p);
    free(buf);
    return s;
}

static void check_split(const uint8_t *data, size_t n) {
    struct resp_parser p;
    char *line = resp_need(malloc(n + 1));
    memcpy(line, data, n);
    resp_parser_init(&p);
    bool well = resp_split_line(&p, line, n);
    size_t all = 0;
    for (int i = 0; i < p.argc; i++) {
        if (p.argv[i].p < line || p.argv[i].p + p.argv[i].n > line + n) abort();
        all += p.argv[i].n;
    }
    if (well && all > n) abort();
    resp_parser_free(&p);
    free(line);
}

static void check_numbers(const char *p, size_t n) {
    char text[RESP_INT_MAX], digits[5200];
    int64_t v;
    long double f, again;
    if (resp_read_int(p, n, &v) && ((size_t)resp_write_int(text, v) != n || memcmp(text, p, n) != 0)) abort();
    if (!resp_read_float(p, n, &f)) return;
    int len = resp_write_float(digits, sizeof digits, f);
    if (!resp_read_float(digits, (size_t)len, &again)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2 || n > 1000) return 0; /* of a longer line it depends on the cut whether it is refused before it ends */
    size_t ncuts = data[0] % 8;
    bool strict = data[0] & 64;
    if (n < 1 + ncuts) return 0;
    const uint8_t *in = data + 1 + ncuts;
    n -= 1 + ncuts;
    struct said whole = parse(in, n, NULL, 0, strict), torn = parse(in, n, data + 1, ncuts, strict);
    if (whole.sum != torn.sum || whole.commands != torn.commands || strcmp(whole.error, torn.error) != 0) {
        fprintf(stderr, "whole: %zu commands, '%s'; torn: %zu commands, '%s'\n", whole.commands, whole.error,
                torn.commands, torn.error);
        abort();
    }
    if (data[0] & 128) check_split(in, n);
    if (n < 64) check_numbers((const char *)in, n);
    return 0;
}
