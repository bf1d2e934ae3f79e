/* logfile.c - what the log's file holds beside commands: header lines and checksum records, as text.
 *
 * The formats are described at the head of persist.c, which decides when either is written and what it means.
 */
#include "logfile.h"

#include <endian.h>

/* ==== the log's checksum ==================================================================================
 * Four lanes of 8 bytes. Each step is a bijection of the lane and of the word, so any damage within one
 * aligned word is noticed for certain, and anything else with a probability of 1 - 2^-64. */

#define SUM_PRIME 0x9e3779b97f4a7c15u

static void sum_block(struct sum *s, const unsigned char *p) {
    for (int i = 0; i < 4; i++) {
        uint64_t w;
        memcpy(&w, p + 8 * i, 8);
        w = (s->lane[i] ^ le64toh(w)) * SUM_PRIME;
        s->lane[i] = w << 29 | w >> 35;
    }
}

void sum_add(struct sum *s, const char *data, size_t n) {
    const unsigned char *p = (const unsigned char *)data;
    size_t have = s->n % 32, take = n < 32 - have ? n : 32 - have;
    if (!n) return;
    s->n += n;
    if (have) {
        memcpy(s->part + have, p, take);
        if (have + take < 32) return;
        sum_block(s, s->part);
        p += take;
        n -= take;
    }
    for (; n >= 32; p += 32, n -= 32) sum_block(s, p);
    memcpy(s->part, p, n);
}

static uint64_t sum_value(const struct sum *sum, uint64_t salt) {
    struct sum s = *sum;
    memset(s.part + s.n % 32, 0, 32 - s.n % 32);
    sum_block(&s, s.part);
    uint64_t v = (s.n ^ salt << 32) * SUM_PRIME;
    for (int i = 0; i < 4; i++) v = (v ^ s.lane[i] ^ v >> 31) * SUM_PRIME;
    return v ^ v >> 29;
}

/* ==== header lines ======================================================================================== */

void slot_format(char out[SLOT + 1], const struct header *h) {
    int n = snprintf(out, SLOT, "#EchoVault-log 1 gen=%u base=%" PRIu64 " id=%s foreign=%" PRIu64 " history=%s", h->gen,
                     h->base, h->id, h->foreign, h->history);
    for (int i = 0; i < PAST_IDS && h->past[i].id[0]; i++)
        n += snprintf(out + n, SLOT - (size_t)n, " past=%s:%" PRIu64, h->past[i].id, h->past[i].end);
    n += snprintf(out + n, SLOT - (size_t)n, " sum=%016" PRIx64, crc64(0, out, (size_t)n));
    memset(out + n, ' ', SLOT - (size_t)n);
    memcpy(out + SLOT - 1, "\n", 2);
}

bool slot_parse(const char in[SLOT], struct header *h) {
    char again[SLOT + 1];
    int at = 0, n = 0, i = 0;
    *h = (struct header){0};
    if (sscanf(in, "#EchoVault-log 1 gen=%u base=%" SCNu64 " id=%40s foreign=%" SCNu64 " history=%40s%n", &h->gen,
               &h->base, h->id, &h->foreign, h->history, &at) != 5)
        return false;
    for (; i < PAST_IDS && sscanf(in + at, " past=%40[^:]:%" SCNu64 "%n", h->past[i].id, &h->past[i].end, &n) == 2; i++)
        at += n;
    slot_format(again, h);
    return !memcmp(in, again, SLOT);
}

/* ==== checksum records ==================================================================================== */

int record_text(char text[RECORD_TEXT], const struct sum *s, uint64_t covers, uint64_t unsynced) {
    return snprintf(text, RECORD_TEXT, "%016" PRIx64 ",%" PRIx64 ",%" PRIx64, sum_value(s, unsynced), covers, unsynced);
}

bool record_read(const char *p, size_t n, uint64_t *covers, uint64_t *unsynced) {
    char text[RECORD_TEXT];
    int end = 0;
    snprintf(text, sizeof text, "%.*s", (int)n, p);
    sscanf(text, "%*16c,%" SCNx64 ",%" SCNx64 "%n", covers, unsynced, &end);
    return end && (size_t)end == n; /* and not at a zero where a sector is missing */
}

bool record_fits(const struct sum *s, const struct arg *text, uint64_t at, uint64_t base, uint64_t foreign) {
    char right[RECORD_TEXT];
    uint64_t covers, unsynced;
    if (!record_read(text->p, text->n, &covers, &unsynced)) return false;
    int n = record_text(right, s, covers, unsynced);
    if (covers > at - base || (at < foreign && at - covers != s->from)) return true;
    return at - covers == s->from && n == (int)text->n && !memcmp(right, text->p, text->n);
}
