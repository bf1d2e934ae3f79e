/* harness.h - the whole server in one process, for the targets that need it. */
#ifndef HARNESS_H
#define HARNESS_H

#include "store.h"

#define HARNESS_HEADER 1024 /* bytes before the log in its file */
#define HARNESS_AOF    "database_7.aof"
#define HARNESS_RDB    "database_7.rdb"

void harness_start(void);                              /* once: as main() does it, up to the loading of the data */
bool harness_load(void);                               /* the rest of a start; false: it was refused */
void harness_turn(void);                               /* one turn of the loop */
void harness_settle(void);                             /* turns, until there is nothing left to do */
bool harness_stop(void);                               /* the end as SIGTERM brings it; false: the data are not safe */
void harness_kill(void);                               /* the end as kill -9 brings it; the files stay */
void harness_forget(void);                             /* all back to the beginning */
uint64_t harness_data(void);                           /* a sum of all keys, values and deadlines */
void harness_set(const char *name, const char *value); /* an option */
bool harness_check_clients(void);                      /* the invariants of the connections; what strangers may cost */

bool harness_is_follower(int fd); /* what goes there is no reply, but a snapshot and a log */

/* repl_again.c, replication_again.c */
void repl_forget(void);
void replication_forget(void);

/* config_again.c */
void config_keep(void); /* the options as they are now ... */
void config_back(void); /* ... and again */

/* commands_again.c */
void commands_forget(void);

/* persist_again.c */
void persist_forget(void);
void persist_header(char lines[HARNESS_HEADER], unsigned gen, uint64_t base, uint64_t past_end, bool second);
int persist_record(char out[128], const char *log, uint64_t stretch, uint64_t n, uint64_t unsynced);
bool persist_idle(void);
bool persist_keeps(void);

#endif
