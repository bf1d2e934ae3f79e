/* commands.c - finding a row in the command table (table.h), and COMMAND, which shows it to clients.
 *
 * command_find() runs for every command of every client. A name is told from all others by its length and its first
 * and last eight bytes, folded to lower case eight at a time; a hash table finds it, nearly always at the first try.
 * rename-command changes what clients may say, not what is logged: a new name gives way to the row's own at once.
 *
 * Left out: ACL rules (only the categories are told), tips, the history of options; what is done to keys is told by
 * the command's flags alone, and COMMAND DOCS gives each argument as the syntax spells it.
 */
#include "commands.h"

#include <ctype.h>

/* ==== the table ============================================================================================= */

/* Flags, short enough for a table. */
enum { W = CMD_WRITE, R = CMD_READONLY, M = CMD_DENYOOM, B = CMD_BRIEF, ANYTIME = CMD_LOADING | CMD_STALE };
enum { F = CMD_FAST | CMD_BRIEF, L = CMD_FAST /* but it may take long */ };
enum { ABOUT = ANYTIME | CMD_ACL_CONNECTION, ALL_KEYS = CMD_ACL_KEYSPACE | CMD_DANGEROUS };
enum { ADMIN = CMD_ADMIN | CMD_NOSCRIPT, BACKGROUND = ADMIN | CMD_NO_ASYNC_LOADING, ANY_ADMIN = ADMIN | ANYTIME };
enum { SESSION = ANYTIME | CMD_NOSCRIPT, LOGIN = SESSION | F | CMD_NO_AUTH | CMD_ALLOW_BUSY };
enum { LISTEN = SESSION | CMD_PUBSUB | CMD_IN_RESP2_SUB, TELL = ANYTIME | CMD_PUBSUB };
enum { LEAVE = LOGIN | CMD_IN_MULTI | CMD_IN_RESP2_SUB, BRACKET = SESSION | F | CMD_IN_MULTI | CMD_ALLOW_BUSY };

#define ROW(...) {__VA_ARGS__, &(struct command_stats){0}},
/* It has a HELP since another version. */
#define CONTAINER(group, name, since, help, summary)                                                                   \
    ROW(#group, #name, NULL, -2, CMD_CONTAINER, NO_KEY, since, "", summary) HELP(#group, #name, ANYTIME, help)
struct command command_table[] = {
#include "table.h"
    {.name = NULL},
};

/* ==== finding a row ========================================================================================= */

#define NAME_MAX_LEN 16  /* of a row's */
#define SLOTS        512 /* several times the number of commands */

/* A name as it is compared: in lower case; n == 0: the slot is free. */
static struct slot {
    uint64_t head, tail; /* its first eight bytes and its last; all bytes of a shorter one are in head */
    size_t n;
    const struct command *row;
    const char *alias; /* rename-command: the whole of a new name, "" at a row's own that is no longer good */
} slots[SLOTS];
static int naliases; /* they and the rows, each fewer than half, leave a slot free, where a search ends */

/* Folds the capital letters among eight bytes: those whose low seven bits are 'A' to 'Z', and the eighth clear. */
static uint64_t lower(uint64_t v) {
    const uint64_t ones = UINT64_C(0x0101010101010101), low = v & (ones * 0x7f);
    uint64_t capitals = (low + ones * (0x80 - 'A')) & ~(low + ones * (0x7f - 'Z')) & ~v & (ones * 0x80);
    return v | capitals >> 2;
}

static inline struct slot slot_of(const char *p, size_t n) {
    uint64_t head = 0, tail = 0;
    if (n >= 8) {
        memcpy(&head, p, 8);
        memcpy(&tail, p + n - 8, 8);
        tail = lower(tail);
    } else {
        for (size_t i = 0; i < n; i++) head = head << 8 | (unsigned char)p[i];
    }
    return (struct slot){.head = lower(head), .tail = tail, .n = n};
}

/* The slot that holds the name, or the free one where it belongs. */
static inline struct slot *probe(struct slot name) {
    uint64_t i = (name.head ^ (name.tail << 3) ^ name.n) * UINT64_C(0x9e3779b97f4a7c15) >> 40;
    struct slot *s;
    do s = &slots[i++ % SLOTS];
    while (s->n && (s->head != name.head || s->tail != name.tail || s->n != name.n));
    return s;
}

static void slots_fill(void) {
    for (const struct command *c = command_table; c->name; c++) {
        if (strchr(c->name, '|')) continue;
        struct slot name = slot_of(c->name, strlen(c->name)), *s = probe(name);
        assert(!s->n && name.n <= NAME_MAX_LEN && c - command_table < SLOTS / 2);
        *s = name;
        s->row = c;
    }
}

static struct slot *slot_find(const struct arg *name) {
    static bool filled;
    if (!filled) slots_fill();
    filled = true;
    return probe(slot_of(name->p, name->n));
}

const struct command *command_find(struct arg *name) {
    const struct slot *s = slot_find(name);
    if (!s->alias) return s->row;
    if (!resp_arg_is(name, s->alias)) return NULL;
    *name = (struct arg){.p = s->row->name, .n = (uint32_t)strlen(s->row->name)};
    return s->row;
}

const struct command *command_find_logged(const struct arg *name) { return slot_find(name)->row; }

const char *command_rename(const struct arg *name, const struct arg *alias) {
    struct slot *old = slot_find(name), *new = slot_find(alias);
    struct arg found = *name;
    if (!command_find(&found)) return "No such command in rename-command";
    if (new->n) return "Target command name already exists";
    if (naliases == SLOTS / 2 - 1) return "too many new names";
    free((char *)old->alias);
    old->alias = "";
    if (!alias->n) return NULL;
    naliases++;
    *new = slot_of(alias->p, alias->n);
    new->row = old->row;
    new->alias = resp_need(strndup(alias->p, alias->n));
    return NULL;
}

int command_subs(const struct command *c) {
    int n = 0;
    while (c->flags & CMD_CONTAINER && c[n + 1].name && strchr(c[n + 1].name, '|')) n++;
    return n;
}

const struct command *command_find_sub(const struct command *c, const struct arg *sub) {
    for (int i = command_subs(c); i > 0; i--)
        if (resp_arg_is(sub, strchr(c[i].name, '|') + 1)) return &c[i];
    return NULL;
}

const char *command_title(const struct command *c) {
    static char title[32];
    const char *bar = strchr(c->name, '|');
    snprintf(title, sizeof title, "%s", bar ? bar + 1 : c->name);
    for (char *p = title; *p; p++) *p = (char)toupper((unsigned char)*p);
    return title;
}

bool cx_at_most(struct cx *cx, int argc) {
    const struct command *container = cx->cmd;
    while (!(container->flags & CMD_CONTAINER)) container--;
    return cx_checkf(cx, cx->argc <= argc,
                     "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try %s HELP.", (int)cx->argv[1].n,
                     cx->argv[1].p, command_title(container));
}

/* ==== COMMAND INFO ========================================================================================== */

/* By the flags' bits, beginning with CMD_WRITE. */
static const char flag_words[] = "write readonly denyoom admin pubsub noscript blocking loading stale fast no_auth "
                                 "no_multi skip_monitor skip_slowlog allow_busy no_async_loading";
static const char key_flag_words[] = "RO RW access update not_key";

/* The ACL categories: a command is in those that go with its group or one of its flags; slow is what is not fast. */
static const char category_words[] = "keyspace read write string bitmap pubsub admin fast slow blocking dangerous "
                                     "connection transaction";
static const char category_groups[] = "generic - - string bitmap - - - - - - connection transactions";
enum { BLOCKS = CMD_BLOCKING, RISKY = CMD_ADMIN | CMD_DANGEROUS, ADMINS = CMD_ADMIN | CMD_ACL_ADMIN };
static const uint32_t category_flags[] = {CMD_ACL_KEYSPACE,   R, W, 0, 0, CMD_PUBSUB, ADMINS, L, 0, BLOCKS, RISKY,
                                          CMD_ACL_CONNECTION, 0};

static uint32_t categories_of(const struct command *c) {
    struct arg group = {.p = c->group, .n = (uint32_t)strlen(c->group)};
    uint32_t set = (c->flags & L ? 0 : 1u << 8) | (c->fn ? (uint32_t)resp_arg_flag(&group, category_groups) : 0);
    for (size_t i = 0; i < sizeof category_flags / sizeof *category_flags; i++)
        if (c->flags & category_flags[i]) set |= 1u << i;
    return c->flags & CMD_ACL_CONNECTION ? set & ~1u : set; /* what waits has no key */
}

/* Those of the words whose bits are set, with this in front. */
static void reply_bits(struct resp_out *o, uint32_t bits, const char *words, const char *front) {
    resp_set(o, (size_t)__builtin_popcount(bits));
    for (const char *p = words; bits; bits >>= 1, p += strcspn(p, " ") + 1)
        if (bits & 1) resp_printf(o, "+%s%.*s\r\n", front, (int)strcspn(p, " "), p);
}

static void reply_key_specs(struct resp_out *o, const struct command *c) {
    resp_set(o, c->first_key ? 1 : 0);
    if (!c->first_key) return;
    resp_map(o, 3);
    resp_bulk_str(o, "flags");
    reply_bits(o, c->flags & CMD_PUBSUB ? 1 << 4 : c->flags & CMD_WRITE ? 2 | 4 | 8 : 1 | 4, key_flag_words, "");
    resp_words(o, "begin_search");
    resp_map(o, 2);
    resp_words(o, "type index spec");
    resp_map(o, 1);
    resp_pair_int(o, "index", c->first_key);
    resp_words(o, "find_keys");
    resp_map(o, 2);
    resp_words(o, "type range spec");
    resp_map(o, 3);
    resp_pair_int(o, "lastkey", c->last_key < 0 ? c->last_key : c->last_key - c->first_key);
    resp_pair_int(o, "keystep", c->key_step);
    resp_pair_int(o, "limit", 0);
}

static void reply_info(struct resp_out *o, const struct command *c) {
    resp_array(o, 10);
    resp_bulk_str(o, c->name);
    resp_int(o, c->arity);
    reply_bits(o, c->flags & (CMD_MAY_REPLICATE - 1), flag_words, "");
    resp_int(o, c->first_key);
    resp_int(o, c->last_key);
    resp_int(o, c->key_step);
    reply_bits(o, categories_of(c), category_words, "@");
    resp_set(o, 0);
    reply_key_specs(o, c);
    if (command_subs(c)) resp_array(o, (size_t)command_subs(c));
    else resp_set(o, 0);
    for (int i = 1; i <= command_subs(c); i++) reply_info(o, &c[i]);
}

const struct command *command_named(const struct arg *name) {
    const struct command *c = command_table;
    while (c->name && !resp_arg_is(name, c->name)) c++;
    return c->name ? c : NULL;
}

/* Replies for the rows that are named from argv[2] on ("get", "client|id"), or for all: as a map, without the unknown
 * ones, or as an array with null for them. */
static void reply_rows(struct cx *cx, void reply(struct resp_out *, const struct command *), bool map) {
    size_t mark = resp_later(cx->out), n = 0;
    for (const struct command *c = command_table; cx->argc <= 2 && c->name; c += command_subs(c) + 1, n++)
        reply(cx->out, c);
    for (int i = 2; i < cx->argc && !client_drowns(cx->client); i++) {
        const struct command *c = command_named(&cx->argv[i]);
        if (c) reply(cx->out, c);
        else if (!map) resp_null(cx->out);
        n += c || !map;
    }
    (map ? resp_later_map : resp_later_array)(cx->out, mark, n);
}

void cmd_command_info(struct cx *cx) { reply_rows(cx, reply_info, false); }

void cmd_command_count(struct cx *cx) {
    int64_t n = 0;
    for (const struct command *c = command_table; c->name; c += command_subs(c) + 1) n++;
    resp_int(cx->out, n);
}

/* ==== COMMAND DOCS ========================================================================================== */

/* The end of the argument that begins at p: the next space outside all brackets. */
static const char *argument_end(const char *p) {
    for (int depth = 0; *p && (depth || *p != ' '); p++) depth += (*p == '[' || *p == '<') - (*p == ']' || *p == '>');
    return p;
}

static void reply_arguments(struct resp_out *o, const char *syntax) {
    size_t mark = resp_later(o), n = 0;
    for (const char *p = syntax, *end; *p; p = end + (*end == ' '), n++) {
        end = argument_end(p);
        resp_map(o, 2);
        resp_bulk_str(o, "name");
        resp_bulk(o, p, (size_t)(end - p));
        resp_pair(o, "type", "string");
    }
    resp_later_array(o, mark, n);
}

static void reply_docs(struct resp_out *o, const struct command *c) {
    int subs = command_subs(c);
    resp_bulk_str(o, c->name);
    resp_map(o, 3 + (size_t)(*c->syntax != 0) + (size_t)(subs > 0));
    resp_pair(o, "summary", c->summary);
    resp_pair(o, "since", c->since);
    resp_pair(o, "group", c->group);
    if (*c->syntax) resp_bulk_str(o, "arguments"), reply_arguments(o, c->syntax);
    if (!subs) return;
    resp_bulk_str(o, "subcommands");
    resp_map(o, (size_t)subs);
    for (int i = 1; i <= subs; i++) reply_docs(o, &c[i]);
}

void cmd_command_docs(struct cx *cx) { reply_rows(cx, reply_docs, true); }

/* ==== COMMAND LIST, ACL CAT, COMMAND GETKEYS ================================================================= */

/* Those in one of the categories whose names match the pattern, if it is not NULL. */
static void reply_names(struct cx *cx, uint32_t categories_wanted, const struct arg *pattern) {
    size_t mark = resp_later(cx->out), n = 0;
    for (const struct command *c = command_table; c->name; c++) {
        if (!(categories_of(c) & categories_wanted)) continue;
        if (pattern && !glob_match(pattern->p, pattern->n, c->name, strlen(c->name), true)) continue;
        n++;
        resp_bulk_str(cx->out, c->name);
    }
    resp_later_array(cx->out, mark, n);
}

void cmd_command_list(struct cx *cx) {
    enum { MODULE = 1, ACLCAT = 2, PATTERN = 4 };
    const struct arg *value = &cx->argv[4];
    bool filter = cx->argc == 5 && resp_arg_is(&cx->argv[2], "filterby");
    int kind = filter ? resp_arg_flag(&cx->argv[3], "module aclcat pattern") : 0;
    uint32_t wanted = kind == ACLCAT ? (uint32_t)resp_arg_flag(value, category_words) : UINT32_MAX;
    if (cx_check(cx, cx->argc == 2 || kind, "ERR syntax error"))
        reply_names(cx, kind == MODULE ? 0 : wanted, kind == PATTERN ? value : NULL);
}

void cmd_acl_cat(struct cx *cx) {
    const struct arg *name = &cx->argv[2];
    int category = cx->argc > 2 ? resp_arg_flag(name, category_words) : 0;
    if (!cx_at_most(cx, 3)) return;
    if (category) {
        reply_names(cx, (uint32_t)category, NULL);
    } else if (cx_checkf(cx, cx->argc == 2, "ERR Unknown category '%.*s'", (int)name->n, name->p)) {
        resp_array(cx->out, sizeof category_flags / sizeof *category_flags);
        resp_words(cx->out, category_words);
    }
}

/* The command in question is argv[2] with all that follows. */
void cmd_command_getkeys(struct cx *cx) {
    struct arg *argv = cx->argv + 2;
    int argc = cx->argc - 2;
    const struct command *c = command_find(argv);
    if (c && c->flags & CMD_CONTAINER) c = command_find_sub(c, &argv[1]);
    if (!cx_check(cx, c, "ERR Invalid command specified") ||
        !cx_check(cx, c->first_key && !(c->flags & CMD_PUBSUB), "ERR The command has no key arguments") ||
        !cx_check(cx, c->arity > 0 ? argc == c->arity : argc >= -c->arity,
                  "ERR Invalid number of arguments specified for command"))
        return;
    int last = c->last_key < 0 ? argc + c->last_key : c->last_key;
    int64_t keys = (last - c->first_key) / c->key_step + 1;
    bool well = !(c->flags & CMD_COUNTED_KEYS) ||
                (resp_read_int(argv[1].p, argv[1].n, &keys) && keys > 0 && keys <= (argc - c->first_key) / c->key_step);
    if (!cx_check(cx, well, "ERR Invalid arguments specified for command")) return;
    resp_array(cx->out, (size_t)keys);
    for (int i = c->first_key; keys; i += c->key_step, keys--) resp_bulk(cx->out, argv[i].p, argv[i].n);
}
