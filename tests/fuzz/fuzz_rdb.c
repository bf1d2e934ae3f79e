/* fuzz_rdb.c - the loader of RDB files: the same whatever the size of its window; and what was loaded, written and
 * loaded again, is the same. */
#include "harness.h"
#include "rdb.h"

static void empty(void) {
    for (int i = 0; i < store_databases(); i++) store_flush(store_db(i));
    while (store_tick(false) || resp_blob_reap(SIZE_MAX, false)) {}
}

static bool load(const void *p, size_t n, size_t window, struct rdb_facts *f, char why[256], uint64_t *data) {
    seam_put("file", p, n);
    seam.window = window;
    struct reader r = {.fd = seam_open_file("file", O_RDONLY), .end = n};
    bool well = rdb_load(&r, f, store_db, why);
    if (r.at + r.pos > n) abort();
    free(r.buf);
    seam_close(r.fd);
    *data = well ? harness_data() : 0;
    return well;
}

static struct resp_out out;
static int last;

static void put(int db, const struct entry *e) {
    size_t n = 0;
    struct blob *b = rdb_put_entry(&out, &last, db, e, &n);
    if (b) resp_raw(&out, b->data, n);
}

static void check_again(uint64_t data) {
    struct rdb_facts f;
    char why[256];
    uint64_t again, sum;
    resp_truncate(&out, 0, 0);
    last = -1;
    rdb_put_head(&out, &(struct rdb_facts){.repl_id = "0123456789012345678901234567890123456789", .offset = 7});
    store_snapshot_begin(put);
    while (!store_snapshot_step(64)) {}
    store_snapshot_end();
    resp_raw(&out, "\xFF", 1);
    sum = crc64(0, out.buf, out.len);
    resp_raw(&out, &sum, 8);
    empty();
    if (!load(out.buf, out.len, 1 << 16, &f, why, &again) || again != data || f.offset != 7) abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    seam_reset();
    store_init(4);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!n) return 0;
    struct rdb_facts one, two;
    char why[256], why2[256];
    uint64_t a, b;
    store_set_clock(0, STORE_EXPIRE_IGNORE);
    bool well = load(data + 1, n - 1, 1 << 16, &one, why, &a);
    empty();
    bool small = load(data + 1, n - 1, 16 + *data % 64, &two, why2, &b);
    if (well != small || a != b || strcmp(why, why2) != 0 || memcmp(&one, &two, sizeof one) != 0) {
        fprintf(stderr, "one window: '%s', many: '%s'\n", why, why2);
        abort();
    }
    if (well) check_again(a);
    empty();
    seam_reset();
    return 0;
}
