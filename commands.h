/* commands.h - the functions behind the command table's rows, by the file they stand in. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "echovault.h"

/* strings.c */
command_fn cmd_set, cmd_get, cmd_getset, cmd_getex, cmd_getdel, cmd_setex, cmd_psetex, cmd_mget, cmd_mset, cmd_msetnx,
    cmd_append, cmd_strlen, cmd_getrange, cmd_setrange, cmd_incr, cmd_decr, cmd_incrby, cmd_decrby, cmd_incrbyfloat,
    cmd_lcs, cmd_delex, cmd_msetex, cmd_increx;

/* bits.c */
command_fn cmd_setbit, cmd_getbit, cmd_bitcount, cmd_bitpos, cmd_bitop, cmd_bitfield, cmd_bitfield_ro;

/* keys.c */
command_fn cmd_del, cmd_exists, cmd_touch, cmd_type, cmd_expire, cmd_pexpire, cmd_expireat, cmd_pexpireat, cmd_ttl,
    cmd_pttl, cmd_expiretime, cmd_pexpiretime, cmd_persist, cmd_keys, cmd_scan, cmd_randomkey, cmd_rename, cmd_renamenx,
    cmd_copy, cmd_move, cmd_swapdb, cmd_dbsize, cmd_flushdb, cmd_flushall, cmd_dump, cmd_restore, cmd_object_encoding,
    cmd_object_freq, cmd_object_idletime, cmd_object_refcount;

/* admin.c */
command_fn cmd_ping, cmd_echo, cmd_select, cmd_quit, cmd_reset, cmd_hello, cmd_auth, cmd_time, cmd_info, cmd_shutdown,
    cmd_save, cmd_bgsave, cmd_bgrewriteaof, cmd_lastsave, cmd_acl_whoami, cmd_acl_users, cmd_acl_list, cmd_acl_getuser,
    cmd_acl_log, cmd_acl_setuser, cmd_config_resetstat, cmd_debug, cmd_help;

/* clients.c */
command_fn cmd_client_id, cmd_client_setname, cmd_client_getname, cmd_client_setinfo, cmd_client_list, cmd_client_info,
    cmd_client_reply, cmd_client_no_evict, cmd_client_no_touch, cmd_client_kill, cmd_client_pause, cmd_client_unpause,
    cmd_client_unblock;

/* pubsub.c */
command_fn cmd_subscribe, cmd_unsubscribe, cmd_publish, cmd_pubsub_channels, cmd_pubsub_numsub, cmd_pubsub_numpat;

/* commands.c */
command_fn cmd_command_count, cmd_command_list, cmd_command_info, cmd_command_docs, cmd_command_getkeys, cmd_acl_cat;

/* config.c */
command_fn cmd_config_get, cmd_config_set, cmd_config_rewrite;

/* replication.c */
command_fn cmd_replicaof, cmd_role, cmd_psync, cmd_sync, cmd_replconf, cmd_failover;

/* observe.c */
command_fn cmd_slowlog_get, cmd_slowlog_len, cmd_slowlog_reset, cmd_monitor, cmd_latency_doctor, cmd_latency_graph,
    cmd_latency_histogram, cmd_latency_history, cmd_latency_latest, cmd_latency_reset, cmd_memory_doctor,
    cmd_memory_purge, cmd_memory_stats, cmd_memory_usage;

/* transactions.c */
command_fn cmd_multi, cmd_exec, cmd_discard, cmd_watch, cmd_unwatch;

/* echovault.c */
command_fn cmd_wait, cmd_waitaof;

#endif
