/* replication_again.c - replication.c, and a way to begin again: as if the process had been killed. */
#include "replication.c"

#include "harness.h"

void replication_forget(void) {
    leader = NULL;
    failover = (struct failover){0};
}
