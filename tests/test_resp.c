/* test_resp.c - the parser, the reply writers and the numbers, each beside what it has to give byte for byte.
 *
 * Input is fed as the reactor does it: into buffers of exactly its size, that move between reads and lose what has been
 * consumed, and into a blob while one is being read. Whatever the cuts are, the same commands must come out. */
#include "resp.h"

#include <assert.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned roll(unsigned n) { return (unsigned)rand() % n; }

static void *copy(const void *p, size_t n) {
    char *made = malloc(n + 1);
    assert(made != NULL);
    if (n > 0) memcpy(made, p, n);
    made[n] = '\0';
    return made;
}

/* ---- the parser -------------------------------------------------------------------------------------- */

struct feed {
    struct resp_parser parser;
    char *buf;
    size_t len;
    FILE *said; /* "[word][word]" for each command, "!text" for an error */
    bool failed;
};

static void run_parser(struct feed *f) {
    const char *error = NULL;
    enum resp_result r;
    while ((r = resp_parse(&f->parser, f->buf, f->len, &error)) == RESP_OK) {
        for (int i = 0; i < f->parser.argc; i++) {
            struct arg *a = &f->parser.argv[i];
            assert(a->is_blob == (a->n >= RESP_BLOB_MIN) && a->hash == 0);
            fputc('[', f->said);
            fwrite(a->p, 1, a->n, f->said);
            fputc(']', f->said);
        }
        fputc(f->parser.argc > 0 ? ' ' : '.', f->said);
        resp_arg_release(f->parser.argv, f->parser.argc);
        assert(f->parser.start < f->parser.pos && f->parser.todo == 0);
    }
    f->failed = r == RESP_ERROR;
    assert(!f->failed || (f->parser.todo == 0 && f->parser.argc == 0)); /* nothing is held back */
    if (f->failed) fprintf(f->said, "!%s", error);
}

/* One read's bytes: returns how many of them were taken. */
static size_t read_some(struct feed *f, const char *p, size_t n) {
    struct resp_parser *parser = &f->parser;
    if (parser->blob != NULL) {
        size_t left = parser->blob_want - parser->blob_have;
        if (n > left) n = left;
        memcpy(parser->blob->data + parser->blob_have, p, n);
        parser->blob_have += n;
        return n;
    }
    size_t drop = roll(2) ? 0 : parser->todo > 0 ? parser->start : parser->pos;
    char *moved = malloc(f->len - drop + n);
    assert(moved != NULL);
    if (f->len > drop) memcpy(moved, f->buf + drop, f->len - drop);
    memcpy(moved + f->len - drop, p, n);
    resp_parser_rebase(parser, f->buf, moved, drop);
    free(f->buf);
    f->buf = moved;
    f->len += n - drop;
    return n;
}

/* What a parser says that gets the input in pieces: up to first bytes, then of at most rest. */
static char *parse_torn(const char *in, size_t n, size_t first, size_t rest, const struct resp_parser *limits) {
    char *said = NULL;
    size_t said_len;
    struct feed f = {.said = open_memstream(&said, &said_len)};
    assert(f.said != NULL);
    resp_parser_init(&f.parser);
    if (limits != NULL) {
        f.parser.strict = limits->strict;
        f.parser.max_bulk = limits->max_bulk;
    }
    for (size_t at = 0, part = first; at < n && !f.failed; part = rest) {
        at += read_some(&f, in + at, part < n - at ? part : n - at);
        run_parser(&f);
    }
    resp_parser_free(&f.parser);
    free(f.buf);
    fclose(f.said);
    return said;
}

static void expect_parse(const char *in, size_t n, const char *expected, const struct resp_parser *limits) {
    size_t step = n < 200 ? 1 : n < 200000 ? n / 20 : n / 7;
    for (size_t first = 1; first <= n; first += step) {
        for (int bytewise = 0; bytewise < 2; bytewise++) {
            char *said = parse_torn(in, n, first, bytewise ? step : n, limits);
            if (strcmp(said, expected) != 0)
                fprintf(stderr, "%.300s\ngave     %.300s\nnot like %.300s\n", in, said, expected);
            assert(strcmp(said, expected) == 0);
            free(said);
        }
    }
}

#define ERR(text) "!Protocol error: " text

static const struct {
    const char *in, *expected;
} grammar[] = {
    {"*1\r\n$4\r\nPING\r\n", "[PING] "},
    {"*2\r\n$3\r\nGET\r\n$16\r\n0123456789abcdef\r\n", "[GET][0123456789abcdef] "},
    {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", "[SET][k][] [PING] "},
    {"*11\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n$1\r\nh\r\n$1\r\ni\r\n$"
     "1\r\nj\r\n$2\r\nkk\r\n",
     "[a][b][c][d][e][f][g][h][i][j][kk] "},
    {"*0\r\n*-1\r\n*-17\r\nPING\r\n", "...[PING] "},
    {"*1\rX$4\rYPINGZZ*1\r\n$2\r\n\r\n\r\n", "[PING] [\r\n] "}, /* two bytes are skipped, whatever they are */
    {"\r\n\n  \t\r\nPING\n", "...[PING] "},
    {"  set  k\tv \r\nget k\r\n", "[set][k][v] [get][k] "},
    {"+PING\r\n$4\r\n", "[+PING] [$4] "},
    {"a \"b c\" 'd e' f\"g h\"\r\n", "[a][b c][d e][fg h] "},
    {"\"\\x41\\x7a\\n\\r\\t\\b\\a\\q\\\"\\\\\" x\r\n", "[Az\n\r\t\b\aq\"\\][x] "},
    {"\"\\x4\" \"\\xzz\" \"\\X41\" 'a\\'b\\n\"' \"\" ''\r\n", "[x4][xzz][X41][a'b\\n\"][][] "},
    {"a\\nb \"c\"\vd\ve\f \xe9\xa0\r\n", "[a\\nb][c][d\ve\f][\xe9\xa0] "},
    {"a\rb \"c\rd\" e\r\r\n", "[a][b][c\rd][e] "},
    {"*abc\r\n", ERR("invalid multibulk length")},
    {"*\r\n", ERR("invalid multibulk length")},
    {"*-0\r\n", ERR("invalid multibulk length")},
    {"*+1\r\n", ERR("invalid multibulk length")},
    {"*01\r\n", ERR("invalid multibulk length")},
    {"* 1\r\n", ERR("invalid multibulk length")},
    {"*1 \r\n", ERR("invalid multibulk length")},
    {"*2147483647\r\n", ""},
    {"*2147483648\r\n", ERR("invalid multibulk length")},
    {"*99999999999999999999\r\n", ERR("invalid multibulk length")},
    {"*1\r\n$4\r\nPING\r\n*x\r\n", "[PING] " ERR("invalid multibulk length")},
    {"*1\r\nxyz", ""},
    {"*1\r\nxyz\r\n", ERR("expected '$', got 'x'")},
    {"*2\r\n$3\r\nGET\r\n:3\r\n", ERR("expected '$', got ':'")},
    {"*1\r\n\r\n", ERR("expected '$', got ' '")},
    {"*1\r\n\n\r\n", ERR("expected '$', got ' '")},
    {"*1\r\n\t4\r\n", ERR("expected '$', got '\t'")},
    {"*1\r\n\xff\r\n", ERR("expected '$', got '\xff'")},
    {"*1\r\n$abc\r\n", ERR("invalid bulk length")},
    {"*1\r\n$\r\n", ERR("invalid bulk length")},
    {"*1\r\n$-1\r\n", ERR("invalid bulk length")},
    {"*1\r\n$04\r\n", ERR("invalid bulk length")},
    {"*1\r\n$536870913\r\n", ERR("invalid bulk length")},
    {"*2\r\n$536870912\r\n", ""},
    {"*1\r\n$9223372036854775808\r\n", ERR("invalid bulk length")},
    {"PING \"abc\r\n", ERR("unbalanced quotes in request")},
    {"PING 'abc\r\n", ERR("unbalanced quotes in request")},
    {"PING \"a\"b\r\n", ERR("unbalanced quotes in request")},
    {"PING 'a''b'\r\n", ERR("unbalanced quotes in request")},
    {"PING \"\\\r\n", ERR("unbalanced quotes in request")},
    {"PING \"a\\\"\r\n", ERR("unbalanced quotes in request")},
    {"\"\r\n", ERR("unbalanced quotes in request")},
};

static void test_grammar(void) {
    for (size_t i = 0; i < sizeof grammar / sizeof *grammar; i++)
        expect_parse(grammar[i].in, strlen(grammar[i].in), grammar[i].expected, NULL);
}

static void test_strict(void) {
    const struct resp_parser strict = {.strict = true, .max_bulk = 512 << 20};
    const struct resp_parser small = {.max_bulk = 1 << 20}, huge = {.max_bulk = INT64_MAX};
    expect_parse("*10\r\n$1\r\na\r\n", 12, "", &strict);
    expect_parse("*11\r\n", 5, ERR("unauthenticated multibulk length"), &strict);
    expect_parse("*1\r\n$16384\r\n", 12, "", &strict);
    expect_parse("*1\r\n$16385\r\n", 12, ERR("unauthenticated bulk length"), &strict);
    expect_parse("*2147483648\r\n", 13, ERR("invalid multibulk length"), &strict);
    expect_parse("*1\r\n$536870913\r\n", 16, ERR("invalid bulk length"), &strict);
    expect_parse("*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n*1\r\n$4\r\nPING\r\n", 35, "[AUTH][x] [PING] ", &strict);
    expect_parse("*1\r\n$1048577\r\n", 14, ERR("invalid bulk length"), &small);
    expect_parse("*1\r\n$4294967296\r\n", 17, ERR("invalid bulk length"), &huge);
}

/* Lines that do not end: 64 KiB may come, not one byte more. */
static void test_unended_lines(void) {
    static const struct {
        const char *start, *error;
    } lines[] = {
        {"*", ERR("too big mbulk count string")},
        {"*1\r\n$", ERR("too big bulk count string")},
        {"PING ", ERR("too big inline request")},
    };
    static char text[70000];
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        memset(text, '1', sizeof text);
        memcpy(text, lines[i].start, strlen(lines[i].start));
        size_t before = strchr(lines[i].start, '$') ? 4 : 0;
        expect_parse(text, before + 65536, "", NULL);
        expect_parse(text, before + 65537, lines[i].error, NULL);
    }
}

/* All bytes are data: every string of every byte comes through. */
static void test_binary(void) {
    char in[300], *all = in + sprintf(in, "*1\r\n$256\r\n");
    for (int c = 0; c < 256; c++) all[c] = (char)c;
    memcpy(all + 256, "\r\n", 2);
    struct resp_parser p;
    resp_parser_init(&p);
    const char *error;
    size_t n = (size_t)(all - in) + 258;
    for (size_t len = 0; len < n; len++) assert(resp_parse(&p, in, len, &error) == RESP_MORE);
    assert(resp_parse(&p, in, n, &error) == RESP_OK && p.argc == 1 && p.argv[0].n == 256 && p.argv[0].p == all);
    assert(p.start == 0 && p.pos == n && resp_parse(&p, in, n, &error) == RESP_MORE);
    resp_parser_free(&p);
}

static void test_pipeline(void) {
    enum { COMMANDS = 100000 };
    char *in = malloc(COMMANDS * 64);
    assert(in != NULL);
    size_t n = 0;
    for (int i = 0; i < COMMANDS; i++)
        if (i % 3 == 0) n += (size_t)sprintf(in + n, "get %d\r\n", i);
        else n += (size_t)sprintf(in + n, "*2\r\n$3\r\nGET\r\n$%d\r\n%d\r\n", snprintf(NULL, 0, "%d", i), i);
    struct resp_parser p;
    resp_parser_init(&p);
    const char *error;
    int64_t key;
    for (int i = 0; i < COMMANDS; i++) {
        assert(resp_parse(&p, in, n, &error) == RESP_OK && p.argc == 2 && resp_arg_is(&p.argv[0], "get"));
        assert(resp_read_int(p.argv[1].p, p.argv[1].n, &key) && key == i);
    }
    assert(resp_parse(&p, in, n, &error) == RESP_MORE && p.pos == n && p.cap <= 64);
    resp_parser_free(&p);
    free(in);
}

/* Strings around the lengths where they become blobs and mappings, with a cut at every header's byte and many others.
 */
static void test_blobs(void) {
    static const size_t sizes[] = {99, 100, 16383, RESP_BLOB_MIN - 1, RESP_BLOB_MIN, 100000, (1 << 20) - 2, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], len = 0;
        char *in = malloc(2 * n + 200), *expected = malloc(2 * n + 200), *value = malloc(n + 1);
        assert(in != NULL && expected != NULL && value != NULL);
        for (size_t k = 0; k < n; k++) value[k] = (char)('a' + roll(26));
        value[n] = '\0';
        len += (size_t)sprintf(in, "*4\r\n$4\r\nMSET\r\n$%zu\r\n%s\r\n$1\r\nk\r\n$%zu\r\n%s\r\nPING\r\n", n, value, n,
                               value);
        sprintf(expected, "[MSET][%s][k][%s] [PING] ", value, value);
        expect_parse(in, len, expected, NULL);
        for (size_t cut = 1; cut < 40; cut += n < 200000 ? 1 : 7) {
            free(parse_torn(in, n, cut, n / 3, NULL)); /* ends in the middle: everything must be freed */
            char *said = parse_torn(in, len, cut, 1 + roll((unsigned)n), NULL);
            assert(strcmp(said, expected) == 0);
            free(said);
        }
        free(in);
        free(expected);
        free(value);
    }
    while (resp_blob_reap(1 << 20, false)) {}
}

static void test_blob_memory(void) {
    struct blob *b = resp_blob_new(10);
    assert(b->refs == 1 && b->cap >= 10);
    memcpy(b->data, "0123456789", 10);
    assert(resp_blob_grow(b, 5) == b);
    for (size_t cap = 100; cap < 40u << 20; cap *= 3) {
        b = resp_blob_grow(b, cap);
        assert(b->cap >= cap && memcmp(b->data, "0123456789", 10) == 0);
        b->data[cap - 1] = 'x';
    }
    struct arg argv[2] = {{.p = b->data, .n = 10, .is_blob = true}, ARG("GET")};
    struct blob *held = resp_blob_ref(b);
    assert(held == b && b->refs == 2 && resp_arg_blob(&argv[0]) == b);
    resp_arg_release(argv, 2);
    assert(b->refs == 1 && !argv[0].is_blob && !resp_blob_reap(1, false));
    resp_arg_release(argv, 2);
    resp_blob_release(b);
    resp_blob_release(resp_blob_new(1 << 20));
    struct blob *again = resp_blob_new(1 << 20);
    again->data[0] = 'y';
    resp_blob_release(again);
    assert(resp_blob_new(1 << 20) == again && again->data[0] == 'y');
    resp_blob_release(again);
    resp_blob_reap(SIZE_MAX, true);
    resp_blob_reap(SIZE_MAX, true); /* now no one has used it since the last beat */
    again = resp_blob_new(1 << 20);
    assert(again->data[0] == 0);
    resp_blob_release(again);
    size_t slices = 1, size = (size_t)300 << 20;
    resp_blob_release(resp_blob_new(size));
    while (resp_blob_reap(1 << 20, false)) slices++;
    assert(slices >= 200 && slices <= 240); /* and 64 MiB are kept */
}

static void test_arg_flag(void) {
    const char *words = "nx xx keepttl";
    assert(resp_arg_flag(&ARG("nx"), words) == 1 && resp_arg_flag(&ARG("XX"), words) == 2);
    assert(resp_arg_flag(&ARG("KeepTTL"), words) == 4 && resp_arg_flag(&ARG(""), words) == 0);
    assert(resp_arg_flag(&ARG("keepttl "), words) == 0 && resp_arg_flag(&ARG("nx xx"), words) == 0);
    assert(resp_arg_flag(&ARG("x"), words) == 0 && resp_arg_flag(&ARG("n\0"), words) == 0);
    assert(resp_arg_is(&ARG("GeT"), "get") && resp_arg_is(&ARG(""), "") && !resp_arg_is(&ARG("ge"), "get"));
    assert(!resp_arg_is(&ARG("gets"), "get") && !resp_arg_is(&ARG("ge\0"), "ge") && !resp_arg_is(&ARG("g\0t"), "get"));
}

static void test_split_line(void) {
    struct resp_parser p;
    resp_parser_init(&p);
    char line[] = "save 900 1 \"a b\" ''", more[] = "  # x ", bad[] = "a 'b";
    assert(resp_split_line(&p, line, sizeof line - 1) && p.argc == 5);
    assert(p.argv[3].n == 3 && memcmp(p.argv[3].p, "a b", 3) == 0 && p.argv[4].n == 0);
    assert(resp_split_line(&p, more, sizeof more - 1) && p.argc == 7 && memcmp(p.argv[6].p, "x", 1) == 0);
    assert(!resp_split_line(&p, bad, sizeof bad - 1));
    assert(memcmp(p.argv[0].p, "save", 4) == 0);
    resp_parser_free(&p);
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

static void check_int(int64_t v) {
    char expected[32], text[RESP_INT_MAX];
    int n = sprintf(expected, "%lld", (long long)v);
    int64_t back;
    assert(resp_write_int(text, v) == n && strcmp(text, expected) == 0);
    assert(resp_read_int(text, (size_t)n, &back) && back == v);
}

static void test_ints(void) {
    check_int(0);
    check_int(INT64_MIN);
    check_int(INT64_MAX);
    for (int64_t power = 1;; power *= 10) {
        for (int64_t d = -2; d <= 2; d++) {
            check_int(power + d);
            check_int(-power + d);
        }
        if (power > INT64_MAX / 10) break;
    }
    for (int64_t v = -12345; v < 12345; v++) check_int(v);
    for (int i = 0; i < 100000; i++)
        check_int((int64_t)(((uint64_t)rand() << 62 ^ (uint64_t)rand() << 31 ^ (uint64_t)rand()) >> roll(64)));
    static const char *const wrong[] = {"",
                                        "-",
                                        "-0",
                                        "00",
                                        "01",
                                        "-01",
                                        "+1",
                                        " 1",
                                        "1 ",
                                        "1a",
                                        "a",
                                        "--1",
                                        "1.0",
                                        "9223372036854775808",
                                        "-9223372036854775809",
                                        "9999999999999999999",
                                        "18446744073709551616",
                                        "99999999999999999999",
                                        "1:",
                                        "1/"};
    int64_t v;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert(!resp_read_int(wrong[i], strlen(wrong[i]), &v));
    assert(!resp_read_int("1\0", 2, &v) && resp_read_int("123", 2, &v) && v == 12);
}

static void check_float(const char *text, const char *expected) {
    long double v;
    char written[5200];
    bool ok = resp_read_float(text, strlen(text), &v);
    assert(ok == (expected != NULL));
    if (!ok) return;
    int n = resp_write_float(written, sizeof written, v);
    if (strcmp(written, expected) != 0) fprintf(stderr, "%s gave %s, not %s\n", text, written, expected);
    assert((size_t)n == strlen(expected) && strcmp(written, expected) == 0);
}

static void test_floats(void) {
    static const char *const pairs[][2] = {
        {"3.0", "3"},
        {"0x10", "16"},
        {"1e5", "100000"},
        {"+5", "5"},
        {".5", "0.5"},
        {"5.", "5"},
        {"-0", "0"},
        {"-0.0", "0"},
        {"0", "0"},
        {"-1e-30", "0"},
        {"100", "100"},
        {"-10.50", "-10.5"},
        {"0.1", "0.1"},
        {"10.1", "10.1"},
        {"1e-17", "0.00000000000000001"},
        {"1e-18", "0"},
        {"1e17", "100000000000000000"},
        {"inf", "inf"},
        {"-inf", "-inf"},
        {"Infinity", "inf"},
        {"3.14159265358979323846", "3.14159265358979324"},
        {"", NULL},
        {" 3", NULL},
        {"3 ", NULL},
        {"\v1", NULL},
        {"nan", NULL},
        {"-nan", NULL},
        {"x", NULL},
        {"1x", NULL},
        {"1e5000", NULL},
        {"-1e5000", NULL},
        {"1e-5000", NULL},
        {"1,5", NULL},
        {"--1", NULL},
        {"e5", NULL},
        {".", NULL},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) check_float(pairs[i][0], pairs[i][1]);
    static char digits[5200], out[5200];
    long double v;
    memset(digits, '0', sizeof digits);
    digits[0] = '1';
    assert(resp_read_float(digits, 4001, &v) && resp_write_float(out, sizeof out, v) >= 4000);
    digits[1] = '.';
    assert(resp_read_float(digits, 5119, &v) && v == 1 && !resp_read_float(digits, 5120, &v));
    assert(resp_write_float(out, sizeof out, LDBL_MAX) == 4933 && resp_write_float(out, sizeof out, -LDBL_MAX) == 4934);
    assert(!resp_read_float("1\0", 2, &v));
}

/* ---- replies ----------------------------------------------------------------------------------------- */

/* The reply that was written since the last time, as text. */
static void expect_reply(struct resp_out *o, const char *expected) {
    if (o->len != strlen(expected) || memcmp(o->buf, expected, o->len) != 0)
        fprintf(stderr, "got %.*s, not %s\n", (int)o->len, o->buf, expected);
    assert(o->len == strlen(expected) && memcmp(o->buf, expected, o->len) == 0);
    resp_out_sent(o, o->len);
    assert(o->len == 0 && o->sent == 0);
}

#define REPLY(resp2, resp3, call)                                                                                      \
    do {                                                                                                               \
        const char *const expected[] = {resp2, resp3};                                                                 \
        for (o.proto = 2; o.proto <= 3; o.proto++) {                                                                   \
            call;                                                                                                      \
            expect_reply(&o, expected[o.proto - 2]);                                                                   \
        }                                                                                                              \
    } while (0)
#define BOTH(text, call) REPLY(text, text, call)

static void test_replies(void) {
    struct resp_out o = {0};
    BOTH("+OK\r\n", resp_ok(&o));
    BOTH("+QUEUED\r\n", resp_status(&o, "QUEUED"));
    BOTH(":0\r\n", resp_int(&o, 0));
    BOTH(":-9223372036854775808\r\n", resp_int(&o, INT64_MIN));
    BOTH(":9223372036854775807\r\n", resp_int(&o, INT64_MAX));
    BOTH("$0\r\n\r\n", resp_bulk(&o, NULL, 0));
    BOTH("$3\r\na\r\n\r\n", resp_bulk(&o, "a\r\n", 3));
    BOTH("$10\r\n0123456789\r\n", resp_bulk_str(&o, "0123456789"));
    BOTH("$20\r\n-9223372036854775808\r\n", resp_bulk_int(&o, INT64_MIN));
    REPLY("$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n", (resp_raw(&o, "hi", 2), resp_later_text(&o, 0)));
    REPLY("$-1\r\n", "_\r\n", resp_null(&o));
    REPLY("*-1\r\n", "_\r\n", resp_null_array(&o));
    BOTH("*123456\r\n", resp_array(&o, 123456));
    REPLY("*8\r\n", "%4\r\n", resp_map(&o, 4));
    REPLY("*4\r\n", "~4\r\n", resp_set(&o, 4));
    REPLY("*3\r\n", ">3\r\n", resp_push(&o, 3));
    resp_out_free(&o);
}

static void test_errors(void) {
    struct resp_out o = {0};
    BOTH("-ERR syntax error\r\n", resp_error(&o, "ERR syntax error"));
    BOTH("-ERR unknown 'a  b'\r\n", resp_errorf(&o, "ERR unknown '%s'", "a\r\nb"));
    assert(o.errors == 4);
    resp_ok(&o);
    resp_error(&o, "WRONGPASS no");
    assert(o.errors == 5 && memcmp(o.last_error, "WRONGPASS no\r", 13) == 0);
    static char text[3000], expected[3010];
    memset(text, 'x', sizeof text - 1);
    resp_out_sent(&o, o.len);
    resp_errorf(&o, "ERR %s", text);
    sprintf(expected, "-ERR %s\r\n", text);
    expect_reply(&o, expected);
    resp_out_free(&o);
}

/* ---- the output, with blobs in between, beside a plain copy of all its bytes -------------------------- */

struct plain {
    char *p;
    size_t n;
};

static void plain_add(struct plain *m, const void *p, size_t n) {
    m->p = realloc(m->p, m->n + n + 1);
    assert(m->p != NULL);
    memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void plain_drop(struct plain *m, size_t n) {
    assert(n <= m->n);
    if (n > 0) memmove(m->p, m->p + n, m->n - n);
    m->n -= n;
}

/* Writes one random reply of a few elements to both. */
static void write_random(struct resp_out *o, struct plain *m) {
    unsigned elements = roll(5);
    char text[40000], header[32];
    bool map = roll(2) == 0;
    size_t mark = resp_later(o);
    plain_add(m, header,
              (size_t)sprintf(header, "%c%u\r\n", map && o->proto == 3 ? '%' : '*',
                              map && o->proto != 3 ? 2 * elements : elements));
    for (unsigned i = 0; i < elements * (map ? 2 : 1); i++) {
        size_t n = roll(10) ? roll(100) : roll(sizeof text);
        memset(text, 'a' + (int)roll(26), n);
        plain_add(m, header, (size_t)sprintf(header, "$%zu\r\n", n));
        plain_add(m, text, n);
        plain_add(m, "\r\n", 2);
        if (roll(3) != 0) {
            resp_bulk(o, text, n);
            continue;
        }
        struct blob *b = resp_blob_new(n + roll(10));
        memcpy(b->data, text, n);
        resp_blob(o, b, n);
        resp_blob_release(b);
    }
    if (map) resp_later_map(o, mark, elements);
    else resp_later_array(o, mark, elements);
}

/* Sends at most n bytes: what the next pieces hold must be what the model says. */
static void send_some(struct resp_out *o, struct plain *m, size_t n) {
    struct iovec iov[12];
    int used = resp_out_iov(o, iov, 2 + (int)roll(11));
    size_t sent = 0;
    assert((used > 0) == (m->n > 0));
    for (int i = 0; i < used && sent < n; i++) {
        size_t part = iov[i].iov_len < n - sent ? iov[i].iov_len : n - sent;
        assert(part > 0 && memcmp(iov[i].iov_base, m->p + sent, part) == 0);
        sent += part;
    }
    resp_out_sent(o, sent);
    plain_drop(m, sent);
    assert(resp_out_pending(o) == m->n);
}

static void send_all(struct resp_out *o, struct plain *m) {
    while (m->n > 0) send_some(o, m, SIZE_MAX);
    assert(o->len == 0 && o->sent == 0 && o->npieces == 0 && o->piece_bytes == 0);
}

/* The turn's output, whose later part moves to a client's own. */
static void move_some(struct resp_out *to, struct plain *m) {
    struct resp_out turn = {.proto = to->proto};
    struct plain kept = {0};
    if (roll(2)) write_random(&turn, &kept);
    size_t from = turn.len;
    if (roll(2)) write_random(&turn, m);
    if (roll(2)) write_random(&turn, m);
    resp_out_move(to, &turn, from);
    assert(turn.len == from && resp_out_pending(to) == m->n);
    send_all(&turn, &kept);
    resp_out_free(&turn);
    free(kept.p);
}

static void test_output(void) {
    struct resp_out o = {.proto = 3};
    struct plain m = {0};
    for (int i = 0; i < 20000; i++) {
        unsigned what = roll(10);
        if (what < 3) {
            write_random(&o, &m);
        } else if (what == 3) {
            move_some(&o, &m);
        } else if (what == 4) { /* a reply that is taken back */
            size_t len = o.len, model_n = m.n;
            uint32_t npieces = o.npieces;
            write_random(&o, &m);
            resp_truncate(&o, len, npieces);
            m.n = model_n;
        } else {
            send_some(&o, &m, roll(4) ? roll(60000) : roll(20));
        }
        assert(resp_out_pending(&o) == m.n);
        if (roll(500) == 0) send_all(&o, &m);
    }
    write_random(&o, &m);
    resp_out_free(&o); /* blobs that were not sent are let go */
    free(m.p);
}

/* A client that always lags behind a little: what it has got must not be kept. */
static void test_lagging(void) {
    struct resp_out o = {.proto = 2};
    char *text = copy("0123456789", 10);
    resp_raw(&o, text, 5);
    for (int i = 0; i < 100000; i++) {
        resp_raw(&o, text + i % 5, 5);
        resp_out_sent(&o, 5);
    }
    assert(resp_out_pending(&o) == 5 && o.cap < 1 << 20);
    resp_out_free(&o);
    free(text);
}

int main(void) {
    test_grammar();
    test_strict();
    test_unended_lines();
    test_binary();
    test_pipeline();
    test_blobs();
    test_blob_memory();
    test_arg_flag();
    test_split_line();
    test_ints();
    test_floats();
    test_replies();
    test_errors();
    test_output();
    test_lagging();
    puts("test_resp: ok");
    return 0;
}
