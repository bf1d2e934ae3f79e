/* logfile.h - the log's header lines and checksum records (formats: persist.c). For persist.c alone. */
#ifndef LOGFILE_H
#define LOGFILE_H

#include "rdb.h"

#define SLOT        512u       /* bytes of a header line */
#define HEADER      (2 * SLOT) /* where the log's bytes begin in its file */
#define RECORD_TEXT 64         /* room for a record's text */

#define PAST_IDS 4 /* as many as fit a header line */
struct past {
    char id[41]; /* "": none, nor any behind it */
    uint64_t end;
};

struct header {
    unsigned gen;
    uint64_t base, foreign;
    char id[41], history[41];
    struct past past[PAST_IDS]; /* earlier ids, the latest first, and up to where they are honoured */
};

void slot_format(char out[SLOT + 1], const struct header *h);
bool slot_parse(const char in[SLOT], struct header *h); /* true where all is as slot_format() writes it */

/* The sum of a stretch of the log: of n bytes from a checksum record on, which is covered itself. */
struct sum {
    uint64_t from, covered; /* where that record begins and ends; the same: where there is none yet, the log begins */
    uint64_t lane[4], n;    /* these begin as zeros */
    unsigned char part[32];
};

void sum_add(struct sum *s, const char *data, size_t n);

int record_text(char text[RECORD_TEXT], const struct sum *s, uint64_t covers, uint64_t unsynced); /* its length */
bool record_read(const char *p, size_t n, uint64_t *covers, uint64_t *unsynced); /* takes it apart, whatever its sum */
/* Whether the text of the record at offset at is the one that belongs there. One that covers more than is still there
 * is taken as it is; so is a leader's that begins elsewhere than behind the last: one who was a follower covers first
 * what it has got since its full resync. */
bool record_fits(const struct sum *s, const struct arg *text, uint64_t at, uint64_t base, uint64_t foreign);

#endif
