/* hiredis as a C program uses it: hiredis PORT. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static redisContext *c;

/* The reply is of this type and, where text is given, has this text. */
static void expect(redisReply *r, int type, const char *text) {
    if (!r || r->type != type || (text && strcmp(r->str, text))) {
        fprintf(stderr, "expected %d %s, got %d %s\n", type, text ? text : "", r ? r->type : -1,
                r && r->str ? r->str : "");
        exit(1);
    }
    freeReplyObject(r);
}

static void expect_integer(redisReply *r, long long v) {
    long long got = r ? r->integer : -1;
    expect(r, REDIS_REPLY_INTEGER, NULL);
    if (got != v) exit(1);
}

int main(int argc, char **argv) {
    static char page[100000];
    if (argc < 2) return 1;
    c = redisConnect("127.0.0.1", atoi(argv[1]));
    if (!c || c->err) return 1;
    printf("version %d.%d.%d\n", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);

    memset(page, 'x', sizeof page);
    expect(redisCommand(c, "SET %s %b PX %d", "page", page, sizeof page, 30), REDIS_REPLY_STATUS, "OK");
    redisReply *r = redisCommand(c, "GET page");
    if (!r || r->len != sizeof page || memcmp(r->str, page, sizeof page)) return 1;
    freeReplyObject(r);
    usleep(50000);
    expect(redisCommand(c, "GET page"), REDIS_REPLY_NIL, NULL);
    puts("ok cache");

    expect_integer(redisCommand(c, "INCRBY n %d", 10), 10);
    expect_integer(redisCommand(c, "DECR n"), 9);
    expect(redisCommand(c, "SET word x"), REDIS_REPLY_STATUS, "OK");
    expect(redisCommand(c, "INCR word"), REDIS_REPLY_ERROR, "ERR value is not an integer or out of range");
    puts("ok counters and errors");

    for (int i = 0; i < 1000; i++) redisAppendCommand(c, "SET k%d %d", i, i);
    for (int i = 0; i < 1000; i++) {
        if (redisGetReply(c, (void **)&r) != REDIS_OK) return 1;
        expect(r, REDIS_REPLY_STATUS, "OK");
    }
    puts("ok pipeline");

    expect(redisCommand(c, "MULTI"), REDIS_REPLY_STATUS, "OK");
    expect(redisCommand(c, "SET t 1"), REDIS_REPLY_STATUS, "QUEUED");
    expect(redisCommand(c, "INCR t"), REDIS_REPLY_STATUS, "QUEUED");
    r = redisCommand(c, "EXEC");
    if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2 || r->element[1]->integer != 2) return 1;
    freeReplyObject(r);
    puts("ok transaction");

    redisContext *publisher = redisConnect("127.0.0.1", atoi(argv[1]));
    expect(redisCommand(c, "SUBSCRIBE news"), REDIS_REPLY_ARRAY, NULL);
    expect_integer(redisCommand(publisher, "PUBLISH news hello"), 1);
    if (redisGetReply(c, (void **)&r) != REDIS_OK || r->elements != 3 || strcmp(r->element[2]->str, "hello")) return 1;
    freeReplyObject(r);
    puts("ok pub/sub");
    redisFree(publisher);
    redisFree(c);
    return 0;
}
