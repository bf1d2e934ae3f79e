#include "commands.h"

void cx_event(struct db *db, char type, const char *event, const struct arg *key) {
    (void)db;
    (void)type;
    (void)event;
    (void)key;
}
