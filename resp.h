/* resp.h - the wire: bytes to arguments, replies to bytes.
 *
 * Knows nothing of keys, clients or sockets. The protocol is RESP2 and RESP3 as
 * https://redis.io/docs/latest/develop/reference/protocol-spec/ describes it, plus inline commands.
 */
#ifndef RESP_H
#define RESP_H

/* What nearly every file needs of libc. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

void *resp_need(void *memory); /* what malloc() gave; aborts where that is nothing */

/* Appends to a growing array. */
#define PUSH(array, n, cap, item)                                                                                      \
    do {                                                                                                               \
        if ((n) == (cap)) (array) = resp_need(realloc((array), ((cap) = (cap) ? 2 * (cap) : 16) * sizeof *(array)));   \
        (array)[(n)++] = (item);                                                                                       \
    } while (0)

/* ---- blobs: strings in an allocation of their own ------------------------------------------------------------
 * A blob goes from the socket into the store and from there to a socket without being copied: whoever keeps it holds a
 * reference, and who wants to change one that has other holders copies it first. The holder knows how many of its
 * bytes are in use. */
struct blob {
    uint32_t refs; /* holders; the last one to leave frees it */
    size_t cap;    /* bytes at data */
    struct blob *next_dying;
    char data[];
};

#define RESP_BLOB_MIN 32768u /* bulk strings from this length on arrive as blobs */

extern bool resp_memory_limited; /* the address space is (ulimit -v): there may be no memory to be had */
bool resp_memory_left(size_t n); /* n bytes and some to spare can be had, as far as the limit goes */
#define RESP_NO_MEMORY "OOM the system has no memory for this (ulimit -v)"
struct blob *resp_blob_new(size_t cap);                  /* one reference, the caller's; aborts without memory */
struct blob *resp_blob_grow(struct blob *b, size_t cap); /* takes b, which must have one holder; may move */
static inline struct blob *resp_blob_ref(struct blob *b) {
    b->refs++;
    return b;
}
void resp_blob_release(struct blob *b); /* drops one reference; never takes long */
/* Gives back up to so many bytes of what is kept without need; true: there is more. On a beat of the clock that is also
 * what was not used again since the last one. */
bool resp_blob_reap(size_t bytes, bool beat);

/* ---- arguments -----------------------------------------------------------------------------------------------
 * One argument of a command: a slice of an input buffer, or all of a blob (then p == its data, and the argument holds
 * a reference). hash is the store's, filled when first needed; 0: not yet. */
struct arg {
    const char *p;
    uint64_t hash;
    uint32_t n;
    bool is_blob;
};

#define ARG(literal) ((struct arg){.p = (literal), .n = sizeof(literal) - 1})
static inline struct blob *resp_arg_blob(const struct arg *a) {
    return (struct blob *)(uintptr_t)(a->p - offsetof(struct blob, data));
}
void resp_arg_release(struct arg *argv, int argc); /* drops the blobs that are still held */
/* Which of the words (lower case, a space between them) the argument is, in upper or lower case: 1 for the first, 2
 * for the second, 4 for the third ...; 0: none. */
int resp_arg_flag(const struct arg *a, const char *words);
static inline bool resp_arg_is(const struct arg *a, const char *word) { return resp_arg_flag(a, word) != 0; }

/* ---- the parser ---------------------------------------------------------------------------------------------- */

enum resp_result { RESP_OK, RESP_MORE, RESP_ERROR };

#define RESP_STRING_MAX (INT64_C(512) << 20) /* no longer key or value is taken, whatever proto-max-bulk-len says */

/* Parses one command at a time out of a buffer that the caller owns. It may stop at any byte and goes on there when
 * called again with more bytes behind the same ones. Invariants: start <= pos <= the buffer's length; argv[0..argc) are
 * complete; 0 < todo only within a command. While a blob is being read (blob != NULL), nothing is taken from the
 * buffer: the reactor reads into blob->data + blob_have until blob_want bytes are there. */
struct resp_parser {
    struct arg *argv; /* owned; grows; what the last RESP_OK completed, until the next call */
    int argc, cap;
    int todo;     /* arguments still to come; 0: between commands */
    int64_t bulk; /* length of the bulk string at hand, -1: its header is still to be read */
    size_t start; /* where in the buffer the command at hand begins */
    size_t pos;   /* the next byte to look at */
    struct blob *blob;
    size_t blob_have, blob_want; /* want counts the CRLF behind the string */
    size_t blobs;                /* bytes of those among argv */
    bool strict;                 /* lower limits, for who has not shown a password yet: 10 arguments of 16 KiB */
    int64_t max_bulk;            /* proto-max-bulk-len, bytes; RESP_STRING_MAX holds, too */
};

void resp_parser_init(struct resp_parser *p);
void resp_parser_free(struct resp_parser *p);
static inline size_t resp_parser_memory(const struct resp_parser *p) { /* of a command that is cut off */
    return (size_t)p->cap * sizeof *p->argv + (p->todo ? p->blobs : 0) + (p->blob ? p->blob_have : 0);
}
/* Looks at buf[p->pos..len). RESP_OK: one command is in p->argv (argc may be 0: an empty line, nothing to do), as
 * slices of buf; p->pos is behind it. RESP_MORE: cut off, call again with more. RESP_ERROR: *error is Redis's text
 * ("Protocol error: ..." without "ERR "), good until the next call; the connection must be closed after saying it, and
 * the parser holds nothing any more. */
enum resp_result resp_parse(struct resp_parser *p, char *buf, size_t len, const char **error);
/* The byte that stood at old_buf + drop now stands at new_buf, those behind it follow: moves the slices of a cut-off
 * command along. Nothing of such a command may be dropped: drop <= start. */
void resp_parser_rebase(struct resp_parser *p, const char *old_buf, const char *new_buf, size_t drop);
/* Splits one line as redis-cli and redis.conf do (quotes, \n \xHH escapes), appending to p->argv with slices into
 * line, which is changed in place. False: unbalanced quotes. */
bool resp_split_line(struct resp_parser *p, char *line, size_t n);

/* ---- output --------------------------------------------------------------------------------------------------
 * Output in the making: bytes, with blobs in between that are never copied.
 * Invariants: sent <= len <= cap; pieces are in order of at; a piece's at >= sent. */

struct resp_piece { /* a blob's bytes that stand in the output behind buf[0..at) */
    size_t at;
    struct blob *blob;
    char *p; /* what of them is not sent yet */
    size_t n;
    size_t held; /* what of the blob's memory counts for this piece: nothing if the one before it is of the same */
};

struct resp_out {
    char *buf;
    size_t len, cap;
    size_t sent;               /* bytes of buf that the socket took */
    struct resp_piece *pieces; /* that are not sent yet */
    uint32_t npieces, pieces_cap;
    size_t piece_bytes;     /* of all pieces together */
    size_t held;            /* and the memory that counts for them */
    uint64_t errors;        /* error replies ever written */
    const char *last_error; /* the last one's text, without '-', ends at '\r': good until the next write */
    int proto;              /* 2 or 3 */
};

void resp_out_free(struct resp_out *o);
char *resp_reserve(struct resp_out *o, size_t n); /* room for n bytes at the end; add to o->len what was used */
void resp_raw(struct resp_out *o, const void *p, size_t n);
void resp_printf(struct resp_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void resp_truncate(struct resp_out *o, size_t len, uint32_t npieces);   /* takes back what came after that point */
size_t resp_out_pending(const struct resp_out *o);                      /* bytes that are still to be sent */
size_t resp_out_memory(const struct resp_out *o);                       /* what waits costs so much */
int resp_out_iov(const struct resp_out *o, struct iovec *iov, int max); /* the next to write; returns how many */
/* The socket took n bytes. Sent bytes in front may be given up: no len or mark from before is good any more. */
void resp_out_sent(struct resp_out *o, size_t n);
/* Moves from's bytes from from_len on, and the pieces there, to the end of to. */
void resp_out_move(struct resp_out *to, struct resp_out *from, size_t from_len);

/* ---- replies ------------------------------------------------------------------------------------------------- */

void resp_ok(struct resp_out *o);                      /* +OK */
void resp_status(struct resp_out *o, const char *s);   /* +s */
void resp_error(struct resp_out *o, const char *text); /* text begins with its code: "ERR ..." */
void resp_errorf(struct resp_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void resp_int(struct resp_out *o, int64_t v);
void resp_bulk(struct resp_out *o, const void *p, size_t n);
void resp_bulk_str(struct resp_out *o, const char *s);
void resp_bulk_int(struct resp_out *o, int64_t v);             /* the number as a bulk string */
void resp_blob(struct resp_out *o, struct blob *b, size_t n);  /* b's first n bytes; takes a reference of its own */
void resp_words(struct resp_out *o, const char *words);        /* each, a space between them, as a bulk string */
void resp_quoted(struct resp_out *o, const void *p, size_t n); /* in quotes, as resp_split_line() reads it */
void resp_null(struct resp_out *o);
void resp_null_array(struct resp_out *o);
void resp_array(struct resp_out *o, size_t n);
void resp_map(struct resp_out *o, size_t pairs); /* RESP2: an array of twice as many */
void resp_set(struct resp_out *o, size_t n);
void resp_pair(struct resp_out *o, const char *name, const char *value); /* of a map, both as bulk strings */
void resp_pair_int(struct resp_out *o, const char *name, int64_t value);
void resp_push(struct resp_out *o, size_t n);
size_t resp_later(struct resp_out *o); /* what begins with a count that is not known yet: keep the mark ... */
void resp_later_array(struct resp_out *o, size_t mark, size_t n); /* ... and give it here */
void resp_later_map(struct resp_out *o, size_t mark, size_t pairs);
void resp_later_bulk(struct resp_out *o, size_t mark); /* what was written since is a string */
void resp_later_text(struct resp_out *o, size_t mark); /* the same in RESP2, in RESP3 a verbatim string, "txt:" */

/* ---- numbers ------------------------------------------------------------------------------------------------- */

#define RESP_INT_MAX   21   /* characters of the longest int64, and a NUL */
#define RESP_FLOAT_MAX 5120 /* of a long double, which has 4933 before the point; Redis's limit, too */
bool resp_read_int(const char *p, size_t n, int64_t *v);       /* strict: no space, '+', leading zeros, overflow */
int resp_write_int(char *buf, int64_t v);                      /* returns the length; adds a NUL */
bool resp_read_float(const char *p, size_t n, long double *v); /* strict, finite or inf; not nan */
int resp_write_float(char *buf, size_t cap, long double v);    /* as INCRBYFLOAT: 17 digits, zeros trimmed */

#endif
