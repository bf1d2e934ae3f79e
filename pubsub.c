/* pubsub.c - who listens to which channels and patterns, publishing to them, keyspace notifications.
 *
 * A topic is a channel, a pattern or a shard channel that somebody listens to: three name spaces of one kind of thing.
 * It is kept as a subscription of nobody's, which stands for all those of clients. One of libc's balanced trees finds
 * both by name and client: no rehashing, and no names are made to collide. A client's subscription stands in two lists:
 * its topic's, which publishing walks, and its owner's, in the order in which they were made.
 *
 * Invariants: a topic has listeners; topics, and a client's subs, are not NULL only while there is a subscription.
 * Left out: cluster mode, so shard channels are channels with names of their own.
 */
#include "commands.h"

#include <search.h>

struct subscription {
    enum pubsub_kind kind;
    struct arg name;       /* its bytes stand behind the topic */
    struct client *client; /* NULL: this is a topic */
    struct subscription *topic;
    LIST_ENTRY(subscription) of_topic;
    TAILQ_ENTRY(subscription) of_owner;
    size_t count; /* of a topic's listeners */
    LIST_HEAD(listeners, subscription) listeners;
};

/* One client's, or all topics. */
struct subscriptions {
    TAILQ_HEAD(list, subscription) list[PUBSUB_KINDS];
    size_t count[PUBSUB_KINDS];
    size_t bytes; /* what they cost: of a client's also the topics, as if it were alone */
};

/* Both the subscription and the topic, whoever else has that, each with a node of libc's tree of 40 bytes. */
static size_t cost(const struct subscription *s) { return 2 * (sizeof *s + 40) + s->name.n; }

static struct subscriptions *topics;
static void *tree;

static int compare(const void *a, const void *b) {
    const struct subscription *x = a, *y = b;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->name.n != y->name.n) return x->name.n < y->name.n ? -1 : 1;
    if (x->client != y->client) return x->client < y->client ? -1 : 1;
    return memcmp(x->name.p, y->name.p, x->name.n);
}

/* c's subscription, or the topic where c is NULL; NULL: there is none. */
static struct subscription *find(struct client *c, enum pubsub_kind kind, const struct arg *name) {
    const struct subscription key = {.kind = kind, .name = *name, .client = c};
    struct subscription **found = tfind(&key, &tree, compare);
    return found ? *found : NULL;
}

/* The same, made where there is none. */
static struct subscription *subscribe(struct client *c, enum pubsub_kind kind, const struct arg *name) {
    struct subscriptions **owner = c ? &c->subs : &topics;
    struct subscription *s = find(c, kind, name), *topic = c && !s ? subscribe(NULL, kind, name) : NULL;
    if (s) return s;
    s = resp_need(malloc(sizeof *s + (topic ? 0 : name->n)));
    *s = (struct subscription){.kind = kind, .name = *name, .client = c, .topic = topic};
    s->name.p = topic ? topic->name.p : memcpy(s + 1, name->p, name->n);
    resp_need(tsearch(s, &tree, compare));
    if (!*owner) {
        *owner = resp_need(calloc(1, sizeof **owner));
        for (int i = 0; i < PUBSUB_KINDS; i++) TAILQ_INIT(&(*owner)->list[i]);
    }
    TAILQ_INSERT_TAIL(&(*owner)->list[kind], s, of_owner);
    (*owner)->count[kind]++;
    (*owner)->bytes += cost(s);
    if (topic) LIST_INSERT_HEAD(&topic->listeners, s, of_topic);
    if (topic) topic->count++;
    return s;
}

/* With the last listener's the topic goes, too. */
static void unsubscribe(struct subscription *s) {
    struct subscriptions **owner = s->client ? &s->client->subs : &topics;
    assert(*owner);
    tdelete(s, &tree, compare);
    TAILQ_REMOVE(&(*owner)->list[s->kind], s, of_owner);
    (*owner)->count[s->kind]--;
    (*owner)->bytes -= cost(s);
    if (!(*owner)->bytes) {
        free(*owner);
        *owner = NULL;
    }
    if (s->client) LIST_REMOVE(s, of_topic);
    if (s->client && !--s->topic->count) unsubscribe(s->topic);
    free(s);
}

static struct subscription *first(const struct subscriptions *subs, enum pubsub_kind kind) {
    return subs ? TAILQ_FIRST(&subs->list[kind]) : NULL;
}

void pubsub_forget(struct client *c) {
    for (enum pubsub_kind kind = 0; kind < PUBSUB_KINDS; kind++)
        while (first(c->subs, kind)) unsubscribe(first(c->subs, kind));
}

size_t pubsub_count(const struct client *c, enum pubsub_kind kind) {
    const struct subscriptions *subs = c ? c->subs : topics;
    return subs ? subs->count[kind] : 0;
}

size_t pubsub_memory(const struct client *c) { return c->subs ? sizeof *c->subs + c->subs->bytes : 0; }

/* A command's kind is told by what stands before its name's stem: p for patterns, s or shard for shard channels. */
static enum pubsub_kind kind_of(const struct cx *cx, const char *stem) {
    const char *name = cx->cmd->name, *at = strstr(name, stem);
    if (at == name || at[-1] == '|') return PUBSUB_CHANNEL;
    return at[-1] == 'p' ? PUBSUB_PATTERN : PUBSUB_SHARD;
}

/* Told even to who has turned replies off. name: NULL where there was nothing to leave; gone: how many end now. */
static void confirm(const struct cx *cx, enum pubsub_kind kind, const struct arg *name, size_t gone) {
    struct resp_out *o = client_output(cx->client);
    size_t n = pubsub_count(cx->client, kind) - gone;
    if (kind != PUBSUB_SHARD) n += pubsub_count(cx->client, kind == PUBSUB_CHANNEL ? PUBSUB_PATTERN : PUBSUB_CHANNEL);
    resp_push(o, 3);
    resp_bulk_str(o, cx->cmd->name);
    if (name) resp_bulk(o, name->p, name->n);
    else resp_null(o);
    resp_int(o, (int64_t)n);
}

void cmd_subscribe(struct cx *cx) {
    enum pubsub_kind kind = kind_of(cx, "subscribe");
    if (!cx_check(cx, kind != PUBSUB_SHARD || !(cx->client->flags & CLIENT_MULTI),
                  "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client"))
        return;
    for (int i = 1; i < cx->argc; i++) {
        subscribe(cx->client, kind, &cx->argv[i]);
        confirm(cx, kind, &cx->argv[i], 0);
    }
}

void cmd_unsubscribe(struct cx *cx) {
    enum pubsub_kind kind = kind_of(cx, "unsubscribe");
    bool all = cx->argc == 1;
    if (all && !first(cx->client->subs, kind)) confirm(cx, kind, NULL, 0);
    for (int i = 1; all ? first(cx->client->subs, kind) != NULL : i < cx->argc; i++) {
        struct subscription *s = all ? first(cx->client->subs, kind) : find(cx->client, kind, &cx->argv[i]);
        confirm(cx, kind, all ? &s->name : &cx->argv[i], s != NULL);
        if (s) unsubscribe(s);
    }
}

/* To all of a topic's listeners, put into bytes once but for the header, big messages as one blob; returns how many. */
static int64_t deliver(const struct subscription *topic, const struct arg *channel, const struct arg *message) {
    static const char *const words[PUBSUB_KINDS] = {"message", "pmessage", "smessage"};
    bool by_pattern = topic->kind == PUBSUB_PATTERN;
    struct resp_out form = {0};
    struct subscription *s;
    resp_bulk_str(&form, words[topic->kind]);
    if (by_pattern) resp_bulk(&form, topic->name.p, topic->name.n);
    resp_bulk(&form, channel->p, channel->n);
    if (!message->is_blob) resp_bulk(&form, message->p, message->n);
    LIST_FOREACH(s, &topic->listeners, of_topic) {
        struct resp_out *o = client_output(s->client);
        resp_push(o, by_pattern ? 4 : 3);
        resp_raw(o, form.buf, form.len);
        if (message->is_blob) resp_blob(o, resp_arg_blob(message), message->n);
    }
    resp_out_free(&form);
    return (int64_t)topic->count;
}

static int64_t publish(enum pubsub_kind kind, const struct arg *channel, const struct arg *message) {
    struct subscription *topic = find(NULL, kind, channel), *pattern = first(topics, PUBSUB_PATTERN);
    int64_t n = topic ? deliver(topic, channel, message) : 0;
    for (; kind == PUBSUB_CHANNEL && pattern; pattern = TAILQ_NEXT(pattern, of_owner))
        if (glob_match(pattern->name.p, pattern->name.n, channel->p, channel->n, false))
            n += deliver(pattern, channel, message);
    return n;
}

void cmd_publish(struct cx *cx) {
    resp_int(cx->out, publish(kind_of(cx, "publish"), &cx->argv[1], &cx->argv[2]));
    log_remark(cx->argv, cx->argc); /* followers have subscribers, too */
}

static void publish_event(const char *space, const struct db *db, const struct arg *about, const struct arg *message) {
    struct resp_out channel = {0};
    resp_printf(&channel, "__%s@%d__:", space, store_db_id(db));
    resp_raw(&channel, about->p, about->n);
    publish(PUBSUB_CHANNEL, &(struct arg){.p = channel.buf, .n = (uint32_t)channel.len}, message);
    resp_out_free(&channel);
}

void cx_event(struct db *db, char type, const char *event, const struct arg *key) {
    if (!topics || !strchr(config.event_letters, type)) return;
    const struct arg name = {.p = event, .n = (uint32_t)strlen(event)};
    if (strchr(config.event_letters, 'K')) publish_event("keyspace", db, key, &name);
    if (strchr(config.event_letters, 'E')) publish_event("keyevent", db, &name, key);
}

void cmd_pubsub_channels(struct cx *cx) {
    const struct arg *pattern = &cx->argv[2];
    if (!cx_at_most(cx, 3)) return;
    size_t mark = resp_later(cx->out), n = 0;
    for (struct subscription *s = first(topics, kind_of(cx, "channels")); s; s = TAILQ_NEXT(s, of_owner))
        if (cx->argc == 2 || glob_match(pattern->p, pattern->n, s->name.p, s->name.n, false))
            n++, resp_bulk(cx->out, s->name.p, s->name.n);
    resp_later_array(cx->out, mark, n);
}

void cmd_pubsub_numsub(struct cx *cx) {
    resp_array(cx->out, 2 * (size_t)(cx->argc - 2));
    for (int i = 2; i < cx->argc; i++) {
        struct subscription *topic = find(NULL, kind_of(cx, "numsub"), &cx->argv[i]);
        resp_bulk(cx->out, cx->argv[i].p, cx->argv[i].n);
        resp_int(cx->out, topic ? (int64_t)topic->count : 0);
    }
}

void cmd_pubsub_numpat(struct cx *cx) { resp_int(cx->out, (int64_t)pubsub_count(NULL, PUBSUB_PATTERN)); }
