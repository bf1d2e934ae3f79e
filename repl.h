/* repl.h - roles: followers as cursors into the log, and the link to a leader.
 *
 * Knows nothing of commands or of how the reactor keeps its connections. The protocol is Redis's PSYNC.
 */
#ifndef REPL_H
#define REPL_H

#include "persist.h"

/* Values are read where they are used: the struct is the caller's and outlives us. */
struct repl_options {
    char *auth, *user; /* masterauth, masteruser: "" is none */
    int timeout;       /* repl-timeout: seconds of silence that end a link */
    int port;          /* where we listen: a leader shows it to Sentinel */
    char *announce_ip; /* replica-announce-ip and -port: in place of what a leader sees; "" and 0: none */
    int announce_port;
    bool refuse_empty;     /* replica-refuse-empty-sync */
    int64_t *memory_limit; /* of a log that is kept in memory alone, for slow followers: bytes, 0: none */
};

void repl_init(const struct repl_options *options, const struct hooks *hooks);

/* ---- the leader's side: followers --------------------------------------------------------------- */

enum repl_phase {
    REPL_NEW,     /* has said REPLCONF, not yet PSYNC */
    REPL_WAITING, /* for a snapshot */
    REPL_SENDING, /* the snapshot goes out */
    REPL_ONLINE   /* the log goes out, from its cursor */
};

/* Invariant: a follower that is SENDING or ONLINE has got, or will have got with the snapshot, exactly the log's bytes
 * below cursor. */
struct follower {
    struct follower *next;
    struct client *owner; /* the connection, the reactor's */
    int fd;               /* its socket */
    enum repl_phase phase;
    bool psync;             /* speaks PSYNC, not SYNC */
    bool rdb_only;          /* wants the snapshot and nothing more */
    bool done;              /* to be closed */
    char ip[64];            /* as it announced it; "": as the socket says */
    int port;               /* where it listens; 0: it did not say */
    uint64_t cursor;        /* the next byte of the log that it gets */
    uint64_t acked, synced; /* what it says to have run, and to have on its disk */
    int64_t acked_ms;       /* when: repl_clock() */
    int64_t sent_ms;        /* when it was sent something of the log: store_wall_clock() */
    int rdb_fd;             /* while SENDING */
    uint64_t rdb_at, rdb_size;
};

extern struct follower *repl_followers; /* the list */
extern struct repl_stats { uint64_t full, partial_ok, partial_err; } repl_stats;

int64_t repl_clock(void);                                         /* ms, never jumping */
struct follower *repl_follower_new(int fd, struct client *owner); /* caller frees with ... */
void repl_follower_free(struct follower *f);
/* It asks for the log under this id from byte number `next` on (counted from 1), or with SYNC (id NULL). What there is
 * to say at once goes to out. */
void repl_psync(struct follower *f, const char *id, int64_t next, struct resp_out *out);
/* Once a turn for each: what it waited for may be there. True: it has something to be sent, by repl_send(). */
bool repl_offer(struct follower *f, struct resp_out *(*output)(struct client *owner));
/* It has little to be sent, and was sent something this very millisecond: a busy leader does better to let more come
 * together, since each packet costs it far more than its bytes do. */
bool repl_may_wait(const struct follower *f);
/* Sends it some of the snapshot or of the log. 0: it has all; 1: there is more to send when the socket has room;
 * -1: the connection is over. */
int repl_send(struct follower *f);
size_t repl_count(uint64_t offset, bool synced); /* online followers that have acknowledged it (as on their disk) */
size_t repl_good(int max_lag_s);                 /* online followers that were heard of so lately */

/* ---- the follower's side: the link -------------------------------------------------------------- */

enum repl_link {
    REPL_LEADER,     /* no link: nobody is followed */
    REPL_WAIT,       /* for the next try */
    REPL_CONNECTING, /* and speaking, up to PSYNC's answer */
    REPL_TRANSFER,   /* the leader's snapshot comes in */
    REPL_LOADING,    /* repl_load() is to be called, or runs */
    REPL_CONNECTED   /* the stream comes, over a connection of the reactor's */
};

void repl_follow(const char *host, int port, bool failover); /* failover: asks it to become the leader */
void repl_unfollow(void);                                    /* REPLICAOF NO ONE */
enum repl_link repl_link_state(void);
const char *repl_leader(int *port); /* host, good until the next call; NULL: nobody is followed */
bool repl_link_failed(void);        /* a try has failed since repl_follow() */
void repl_link_event(void);         /* its socket is ready */
/* A socket on which the leader's stream comes now, from log_end() on, in log_db(): the caller's. -1: none yet. */
int repl_take_link(void);
/* That socket is over. refused: trying again will hardly help, and the next resync must be a full one, since the data
 * are not what the log's end says. */
void repl_link_lost(const char *why, bool refused);
void repl_load(void); /* outside the reactor's turn: what came in is loaded beside the old data */
void repl_cron(void); /* ten times a second: tries, timeouts, waiting followers */
struct repl_transfer {
    int64_t total, read;     /* bytes of the snapshot, -1: not known */
    int64_t heard_s, down_s; /* seconds since something was heard, and the link was up */
} repl_transfer(void);

#endif
