/* fuzz_follower.c - a hostile leader: whatever it says, at whatever moment, in whatever pieces.
 *
 * The input is what the leader sends, with orders in between (0xFF, an order, its operand). So that much of it gets
 * past the handshake, the target answers PING, AUTH and REPLCONF as a leader does, unless the input's first byte
 * forbids it. Checked: replies to our clients stay well-formed, nothing is closed twice or waited for in vain; after a
 * kill and a start from the files the data are those before it, and so after a clean end.
 */
#include "harness.h"
#include "rdb.h"

#include <errno.h>

enum order {
    TURN,    /* so many turns */
    CLOSE,   /* the leader closes, 1: resets */
    CLOCK,   /* the clock goes on by 2^operand ms */
    PIECES,  /* reads give so many bytes */
    DISK,    /* 0: well; 1: ENOSPC; 2: EIO; 3: slow; others: room for so many blocks of 16 bytes */
    CLIENT,  /* one of our own clients' commands */
    RDB,     /* "$<length>", and a snapshot; operand: with how many keys, 128: without a checksum, 64: damaged */
    RECORD,  /* a checksum record as a leader of our kind sends it */
    LITERAL, /* the operand is a byte of what the leader sends */
    ORDERS
};

static int leader, own, dials; /* the link, our client's connection, how many links there were */
static bool polite, local;     /* local: changes of our own clients' may be there, which are in no log */

static const char *const says[] = {"SET own 1",
                                   "GET a",
                                   "REPLICAOF NO ONE",
                                   "REPLICAOF 127.0.0.1 9",
                                   "INFO",
                                   "BGSAVE",
                                   "ROLE",
                                   "DEBUG RELOAD",
                                   "CONFIG SET appendonly yes",
                                   "CONFIG SET appendonly no",
                                   "CONFIG SET replica-read-only no",
                                   "SET local 1 PX 5",
                                   "DEL a",
                                   "FLUSHALL",
                                   "BGREWRITEAOF",
                                   "REPLICAOF other 10",
                                   "WAIT 0 1",
                                   "PSYNC ? -1",
                                   "FAILOVER ABORT",
                                   "DEBUG CHANGE-REPL-ID",
                                   "SHUTDOWN",
                                   "SAVE"};

static void answer(void) {
    size_t n;
    if (leader < 0 || !seam_open(leader)) leader = seam_dialled(dials), dials += leader >= 0;
    if (leader < 0) return;
    const char *said = seam_output(leader, &n);
    if (!polite || !n) return;
    if (memmem(said, n, "PING\r\n", 6)) seam_send(leader, "+PONG\r\n", 7);
    else if (!memmem(said, n, "PSYNC", 5) && !memmem(said, n, "ACK", 3)) seam_send(leader, "+OK\r\n", 5);
}

static void turns(int n) {
    while (n-- > 0) {
        harness_turn();
        answer();
        if (own >= 0 && !seam_open(own)) own = -1;
    }
}

static void say(const char *p, size_t n) {
    if (leader >= 0 && seam_open(leader)) seam_send(leader, p, n);
}

static void send_rdb(uint8_t operand) {
    static struct resp_out o;
    char head[32];
    struct rdb_facts f = {.offset = 5, .stream_db = operand & 3};
    memset(f.repl_id, 'd', 40);
    resp_truncate(&o, 0, 0);
    rdb_put_head(&o, &f);
    size_t from = o.len; /* it names the databases that are there now; what follows is told after them */
    for (int i = 0; i < operand % 16; i++) resp_printf(&o, "%c%cK%c%cv%d", 0, 2, 'a' + i, 2, i % 10);
    if (operand & 32) o.buf[from / 2] ^= 1;
    resp_raw(&o, "\xFF", 1);
    uint64_t sum = operand & 128 ? 0 : crc64(0, o.buf, o.len) + !!(operand & 64);
    resp_raw(&o, &sum, 8);
    say(head, (size_t)snprintf(head, sizeof head, "$%zu\r\n", o.len));
    say(o.buf, o.len);
}

static void send_record(uint8_t operand) {
    static const char stretch[300];
    char record[128];
    say(record, (size_t)persist_record(record, stretch, 0, operand, operand / 2));
}

static void client_says(uint8_t operand) {
    const char *line = says[operand % (sizeof says / sizeof *says)];
    local |= strstr(line, "read-only") != NULL;
    if (own < 0) own = seam_connect();
    if (own < 0) return;
    seam_send(own, line, strlen(line));
    seam_send(own, "\r\n", 2);
}

static void obey(enum order order, uint8_t operand) {
    switch (order) {
    case TURN: turns(1 + operand % 16); return;
    case CLOSE:
        if (leader >= 0) (operand & 1 ? seam_drop : seam_shut)(leader);
        return;
    case CLOCK:
        seam.wall_ns += INT64_C(1000000) << operand % 18;
        seam.steady_ns += INT64_C(1000000) << operand % 18;
        turns(1);
        return;
    case PIECES: seam.read_max = operand ? operand : SIZE_MAX; return;
    case DISK:
        seam.disk_error = operand == 1 ? ENOSPC : operand == 2 ? EIO : 0;
        seam.disk_slow = operand == 3;
        seam.disk_room = operand < 4 ? SIZE_MAX : operand * (size_t)16;
        return;
    case CLIENT: client_says(operand); return;
    case RDB: send_rdb(operand); return;
    case RECORD: send_record(operand); return;
    default: say((char[]){(char)operand}, 1);
    }
}

static void check_restart(bool kill) {
    seam.disk_error = 0;
    seam.disk_slow = false;
    seam.disk_room = SIZE_MAX;
    if (own >= 0) seam_drop(own);
    bool kept = kill ? persist_keeps() : harness_stop();
    uint64_t before = harness_data();
    harness_kill();
    if (!harness_load()) abort();
    if (kept && !local && harness_data() != before) {
        fprintf(stderr, "the data after a %s are not those before it\n", kill ? "kill" : "clean end");
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    harness_start();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    uint8_t how = n ? *data : 0;
    const uint8_t *end = data + n;
    data += n > 0;
    leader = own = -1;
    dials = 0;
    local = false;
    polite = !(how & 1);
    harness_set("appendonly", how & 2 ? "no" : "yes");
    harness_set("appendfsync", how & 4 ? "always" : "everysec");
    if (how & 8) harness_set("masterauth", "pw");
    harness_set("replicaof", "127.0.0.1 9");
    if (!harness_load()) abort();
    turns(polite ? 8 : 2);
    while (data < end) {
        const uint8_t *mark = memchr(data, 0xFF, (size_t)(end - data));
        say((const char *)data, (size_t)((mark ? mark : end) - data));
        if (!mark || end - mark < 3) break;
        obey(mark[1] % ORDERS, mark[2]);
        data = mark + 3;
    }
    turns(4);
    if (how & 64) harness_settle();
    if (how & 128) check_restart(how & 64);
    harness_forget();
    return 0;
}
