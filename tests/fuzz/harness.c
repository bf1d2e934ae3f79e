/* harness.c - the whole server in one process: echovault.c itself, its main() under another name, on the world of
 * seam.c.
 *
 * Between two executions all goes back to where it was: connections are closed and reaped by the server's own means
 * (so that a leak is one of its own), databases flushed, options set back, files and the log's state forgotten.
 */
#include "echovault.c"

#include "harness.h"
#include "repl.h"

static bool verbose; /* SEAM_LOG is set: tell what the data are */

void harness_start(void) {
    char *argv[] = {"echovault", "--port", "7",         "--logfile",           "log", "--loglevel",
                    "debug",     "--save", "",          "--databases",         "4",   "--proto-max-bulk-len",
                    "1mb",       "--bind", "127.0.0.1", "--repl-backlog-size", "4kb", "--auto-aof-rewrite-min-size",
                    "4kb"};
    seam_reset();
    config_load(sizeof argv / sizeof *argv, argv);
    server.loading = false; /* it has nothing to say on standard error */
    server_start();
    config_keep();
    verbose = getenv("SEAM_LOG");
}

bool harness_load(void) {
    if (disk_fd() >= 0) seam_close(disk_fd());
    server.loading = true;
    clock_read();
    server.stopping = server.files_closed = false;
    if (persist_start(&config.persist, &hooks)) return false;
    server.loading = false;
    clock_read();
    server_watch(disk_fd());
    repl_init(&config.repl, &hooks);
    replication_start();
    return true;
}

void harness_turn(void) {
    if (config.proto_max_bulk_len > 1 << 20) config.proto_max_bulk_len = 1 << 20;
    server_turn(0);
    repl_load();
    if (server.stopping && !server.files_closed) abort(); /* nobody has sent a signal */
}

void harness_settle(void) {
    for (int i = 0; i < 60; i++) {
        bool more = server_turn(0);
        repl_load();
        if (!more && !turn.nagain && seam_idle() && persist_idle()) return;
        if (i == 30) seam.disk_slow = false, seam.interrupt = 0;
    }
}

bool harness_stop(void) {
    if (server.files_closed) return persist_keeps(); /* by a SHUTDOWN, perhaps without saving */
    return server_close_files(!config.persist.log_on);
}

static void drain(void) {
    snap_cancel();
    for (int i = 0; i < store_databases(); i++) store_flush(store_db(i));
    while (store_tick(false) || resp_blob_reap(SIZE_MAX, false)) {}
}

void harness_kill(void) {
    while (server.nclients > server.ndead) client_close(client_next(NULL));
    clients_reap();
    turn.nagain = turn.ntouched = 0;
    seam.disk_error = 0;
    seam.disk_room = SIZE_MAX;
    snap_cancel();
    seam_thread_wake();
    for (int i = 0; i < 3; i++) seam_thread_join(), disk_news();
    drain();
    persist_forget();
    repl_forget();
    replication_forget();
    struct resp_out said = {0};
    cmd_client_unpause(&(struct cx){.out = &said});
    resp_out_free(&said);
}

void harness_forget(void) {
    harness_kill();
    config_back();
    seam_reset();
    store_set_sweep(true);
    clock_read();
    server.next_cron_ms = 0;
    server.postponed_in = PAUSE_NONE;
    server.stopping = server.files_closed = false;
    server.last_id = 0;
    resp_out_free(&turn.out);
}

static void add_entry(void *all, struct entry *e) {
    struct arg key = store_key(e), value = store_value(e);
    int64_t deadline = store_deadline(e);
    uint64_t sum = crc64(crc64(crc64(key.n, key.p, key.n), value.p, value.n), &deadline, sizeof deadline);
    *(uint64_t *)all += sum * 0x9e3779b97f4a7c15u + 1;
    if (!verbose) return;
    fprintf(stderr, "  %.*s = %.*s, %u bytes, until %lld\n", (int)key.n, key.p, (int)(value.n < 40 ? value.n : 40),
            value.p, value.n, (long long)deadline);
}

uint64_t harness_data(void) {
    uint64_t all = 0;
    if (verbose) fprintf(stderr, "the data:\n");
    for (int i = 0; i < store_databases(); i++) {
        uint64_t sum = 0, cursor = 0;
        do cursor = store_scan(store_db(i), cursor, add_entry, &sum);
        while (cursor);
        all = all * 31 + sum + store_size(store_db(i));
    }
    return all;
}

bool harness_check_clients(void) {
    size_t query, query_free, multi;
    for (struct client *c = client_next(NULL); c; c = client_next(c)) {
        size_t all = client_memory(c, &query, &query_free, &multi);
        if (!client_authed(c) && all - query_free > (64 << 10)) return false;
        if (c->in && c->in->len > c->in->cap) return false;
        bool waits = c->flags & CLIENT_HELD || c->wait_until;
        if (c->turn_start != c->turn_end || waits != !!(c->flags & CLIENT_TOUCHED)) return false;
    }
    return true;
}

bool harness_is_follower(int fd) {
    return fd >= 0 && fd < server.clients_cap && server.clients[fd] && server.clients[fd]->follower;
}
