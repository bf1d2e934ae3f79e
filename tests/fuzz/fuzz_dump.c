/* fuzz_dump.c - DUMP and RESTORE: any bytes as a payload, and any value through both. */
#include "rdb.h"

static struct resp_out out;

static void check_round(const char *p, size_t n) {
    struct arg val;
    resp_truncate(&out, 0, 0);
    rdb_dump(&out, p, n);
    char *exact = resp_need(malloc(out.len)); /* so that a read behind its end is seen */
    memcpy(exact, out.buf, out.len);
    if (rdb_restore(exact, out.len, &val) || val.n != n || memcmp(val.p, p, n) != 0) abort();
    exact[out.len / 2] ^= 0x10;
    if (!rdb_restore(exact, out.len, &val)) abort();
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!n) return 0;
    bool seal = *data++ & 1; /* with a version and the checksum of what it is */
    char *payload = resp_need(malloc(n + 10));
    memcpy(payload, data, --n);
    if (n) check_round(payload, n);
    if (seal) {
        memcpy(payload + n, "\x09\x00", 2);
        uint64_t crc = crc64(0, payload, n + 2);
        memcpy(payload + n + 2, &crc, 8);
        n += 10;
        payload = resp_need(realloc(payload, n));
    }
    struct arg val;
    if (!rdb_restore(payload, n, &val) && val.n < 1 << 16) {
        char *copy = resp_need(malloc(val.n + 1)); /* the next call takes the value's memory */
        memcpy(copy, val.p, val.n);
        check_round(copy, val.n);
        free(copy);
    }
    free(payload);
    return 0;
}
