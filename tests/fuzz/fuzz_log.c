/* fuzz_log.c - a start from any files: a log, a snapshot, a plain AOF.
 *
 * The first byte says what the rest is. So that the checksums do not hide what is behind them, the target can write the
 * log's header from the input's numbers, and put a right checksum record wherever the input has a line "#<digit>".
 * Checked: a start that is refused changes no file; what was loaded can be added to, and is there after a kill and
 * another start, and after a clean end and another.
 */
#include "harness.h"
#include "rdb.h"

#include <errno.h>

static char *file;
static size_t len, cap;

static void add(const void *p, size_t n) {
    if (len + n + 256 > cap) file = realloc(file, cap = 2 * (len + n) + 256);
    if (n) memcpy(file + len, p, n);
    len += n;
}

/* The log's bytes, with records where the input asks for them: "#0" right, else the digit says what is wrong. */
static void add_log(const uint8_t *p, const uint8_t *end, size_t start) {
    size_t stretch = start;
    while (p < end) {
        const uint8_t *mark = memchr(p, '#', (size_t)(end - p));
        add(p, (size_t)((mark ? mark : end) - p));
        if (!mark || end - mark < 2) break;
        uint8_t digit = mark[1];
        size_t at = len;
        if (digit >= '0' && digit <= '9') {
            uint64_t unsynced = digit & 1 ? at - start : at - stretch;
            add("", 0);
            len += (size_t)persist_record(file + len, file, stretch, at, unsynced);
            if (digit >= '8') file[len - 10] ^= 1;
            stretch = at;
        }
        p = mark + 2;
    }
}

static void write_files(uint8_t how, const uint8_t *p, size_t n) {
    len = 0;
    if (how & 1 && n >= 4) { /* a log of ours */
        add("", 0);
        if (cap < HARNESS_HEADER) file = realloc(file, cap = 2 * HARNESS_HEADER);
        persist_header(file, 2 + p[0], how & 2 ? (uint64_t)p[1] : 0, p[2], p[3] & 1);
        if (p[3] & 2) file[p[2]] ^= 1;
        len = HARNESS_HEADER;
        add_log(p + 4, p + n, HARNESS_HEADER);
        seam_put(HARNESS_AOF, file, len);
        if (how & 4) { /* and a snapshot of the same history that stands for some offset */
            struct resp_out o = {0};
            struct rdb_facts f = {.offset = p[1], .stream_db = p[3] >> 2 & 3};
            memset(f.repl_id, 'a', 40);
            memset(f.history, 'c', 40);
            rdb_put_head(&o, &f);
            resp_raw(&o, "\0\1a\1b\xFF\0\0\0\0\0\0\0\0", 14);
            seam_put(HARNESS_RDB, o.buf, o.len);
            resp_out_free(&o);
        }
    } else if (how & 2) {
        seam_put(how & 4 ? HARNESS_RDB : "dump.rdb", p, n);
    } else {
        seam_put(HARNESS_AOF, p, n);
    }
}

static void change(void) {
    static const char *const words[][3] = {{"SET", "fuzz", "1"}, {"SET", "x", "y"}};
    int conn = seam_connect();
    for (size_t i = 0; i < 2; i++) {
        char line[64];
        seam_send(conn, line,
                  (size_t)snprintf(line, sizeof line, "%s %s %s\r\n", words[i][0], words[i][1], words[i][2]));
        harness_settle();
    }
    size_t n;
    const char *said = seam_output(conn, &n);
    if (n != 10 || memcmp(said, "+OK\r\n+OK\r\n", 10) != 0) abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    harness_start();
    return 0;
}

static void check_data(uint64_t before, const char *what) {
    if (harness_data() == before) return;
    fprintf(stderr, "the data %s are not those before it\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!n) return 0;
    uint8_t how = *data;
    harness_set("aof-load-truncated", how & 8 ? "yes" : "no");
    harness_set("appendfsync", how & 16 ? "always" : "everysec");
    harness_set("appendonly", how & 32 ? "no" : "yes");
    write_files(how, data + 1, n - 1);
    static const char impatient[] =
        "DEBUG RELOAD\r\nSET a b\r\nSAVE\r\nMULTI\r\nGET a\r\nEXEC\r\nINFO\r\nDEBUG LOADAOF\r\n";
    int early = how & 128 ? seam_connect() : -1; /* speaks while the data are being loaded */
    if (early >= 0) seam_send(early, impatient, sizeof impatient - 1);
    uint64_t files = seam_sum();
    bool well = harness_load();
    size_t size;
    if (!well && seam_get("dump.rdb", &size)) seam_unlink(HARNESS_RDB); /* another name of the same */
    if (!well && seam_sum() != files) {
        fprintf(stderr, "a start was refused, and the files are not as they were\n");
        abort();
    }
    if (well) {
        uint64_t loaded = harness_data();
        if (how & 64) {
            change();
            loaded = harness_data();
            if (how & 32 && !harness_stop()) abort();
        }
        if (early >= 0) seam_drop(early);
        harness_kill();
        if (!harness_load()) abort();
        check_data(loaded, "after a kill");
        if (!harness_stop()) abort();
        harness_kill();
        if (!harness_load()) abort();
        check_data(loaded, "after a clean end");
    }
    harness_forget();
    return 0;
}
