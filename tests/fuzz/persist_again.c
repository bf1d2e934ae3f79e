/* persist_again.c - persist.c, and a way to begin again: as if the process had been killed. */
#include "persist.c"

#include "harness.h"

void persist_forget(void) {
    __typeof__(lg) log = {.fd = -1, .select = true, .tx = -1, .pin = UINT64_MAX};
    __typeof__(next) none = {.fd = -1};
    resp_out_free(&lg.out);
    resp_out_free(&lg.relay);
    free(lg.marks);
    lg = log;
    next = none;
    resp_out_free(&snap.chunk.out);
    memset(&snap, 0, sizeof snap);
    snap.kept_fd = -1;
    memset(&boot, 0, sizeof boot);
    memset(&info, 0, sizeof info);
    memset(&file, 0, sizeof file);
    file.fd = -1;
}

/* Header lines as an intact file has them, from numbers that the target chooses. */
void persist_header(char lines[HARNESS_HEADER], unsigned gen, uint64_t base, uint64_t past_end, bool second) {
    char line[SLOT + 1];
    struct header h = {.gen = gen, .base = base};
    memset(h.id, 'a', 40);
    memset(h.history, 'c', 40);
    if (second) memset(h.past[0].id, 'b', 40), h.past[0].end = past_end;
    slot_format(line, &h);
    memcpy(lines, line, SLOT);
    h.gen--;
    slot_format(line, &h);
    memcpy(lines + SLOT, line, SLOT);
}

/* A checksum record for n bytes of log that stand behind base, the last record at stretch; returns its length. */
int persist_record(char out[128], const char *log, uint64_t stretch, uint64_t n, uint64_t unsynced) {
    char text[RECORD_TEXT];
    struct sum sum = {0};
    sum_add(&sum, log + stretch, n - stretch);
    int len = record_text(text, &sum, n - stretch, unsynced);
    return snprintf(out, 128, "*2\r\n$4\r\nPING\r\n$%d\r\n%s\r\n", len, text);
}

bool persist_idle(void) { return !snap.running && next.fd < 0 && !lg.syncing; }

/* What is in the store now is in the file. */
bool persist_keeps(void) { return lg.fd >= 0 && opt->log_on && lg.trouble == FINE && lg.written == log_end(); }
