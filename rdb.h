/* rdb.h - the snapshot's bytes: writing and reading RDB files and DUMP's serialized form.
 *
 * Knows the formats, not when or why a file is written: that is persist.c. What is needed from outside are
 * bytes in memory or an open file.
 */
#ifndef RDB_H
#define RDB_H

#include "store.h"

/* CRC-64, polynomial ad93d23594c935a9 reflected, as RDB files and DUMP carry it; start with 0. The first call
 * fills the tables: it must be over before a second thread calls. */
uint64_t crc64(uint64_t crc, const void *p, size_t n);

/* ---- DUMP and RESTORE ------------------------------------------------------------------------ */

#define RDB_VERSION     9  /* what is written: read by Redis 5 and later */
#define RDB_VERSION_MAX 14 /* the newest that is read */

/* The serialized form of a string value: type, RDB string, 2 bytes of version, 8 bytes of CRC-64. */
void rdb_dump(struct resp_out *out, const char *p, size_t n); /* appends the bytes, without any framing */
/* Reads it back. *val becomes a slice of p, or of memory that is good until the next call. NULL, or the error. */
const char *rdb_restore(const char *p, size_t n, struct arg *val);

/* ---- files ----------------------------------------------------------------------------------- */

/* A file read from front to back through a window of memory. Bytes from pos on are still to be looked at;
 * filling moves the window: before that, slices of it are used for the last time, and who sums the file up takes
 * the bytes [seen, pos).
 * Invariants: seen <= pos <= len <= cap; buf[0] is the file's byte at; nothing is read from end on. */
struct reader {
    int fd;
    char *buf;
    size_t seen, pos, len, cap;
    uint64_t at, end;
    void (*progress)(uint64_t at); /* about once a MiB; may be NULL */
    int error;                     /* errno of a read that failed */
};
bool reader_fill(struct reader *r, size_t n); /* at least n bytes from pos on; false: the file ends before */

/* What a snapshot says about itself in its AUX fields. */
struct rdb_facts {
    char history[41], repl_id[41]; /* "": it does not say */
    uint64_t offset;               /* the state after so many bytes of the log */
    bool placed;                   /* it does say that, and whose log */
    char replaces[41];             /* a log of this history is out of date, too */
    int stream_db;                 /* the database that the log's reader stands in there */
    uint64_t crc;
};

/* The file's beginning: magic, AUX fields, sizes of the databases. */
void rdb_put_head(struct resp_out *o, const struct rdb_facts *f);
/* One entry, after a SELECTDB where db is not *last. A value that is a blob is left out, and returned: its
 * bytes have to follow. */
struct blob *rdb_put_entry(struct resp_out *o, int *last, int db, const struct entry *e, size_t *blob_n);
#define RDB_END 0xFF /* the last opcode; behind it the CRC-64 of all before, little endian */

/* Loads a file's entries into the databases (store_db, or store_staged), from r's position on, and leaves r behind it.
 * False: *why says what is wrong with it, at r->at + r->pos; r's memory is freed, and the store may hold a part then.
 */
bool rdb_load(struct reader *r, struct rdb_facts *f, struct db *(*database)(int id), char why[256]);

#endif
