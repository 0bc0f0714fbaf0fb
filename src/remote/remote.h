/*-------------------------------------------------------------------------
 *
 * remote.h
 *	  Commands on other servers: what the other wings use of this one.
 *
 * A node is a server of postgres_fdw.  Rows go to and come from its tables by
 * postgres_fdw; what is here is for what that cannot do: creating tables there,
 * and looking at what they are like.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_REMOTE_H
#define SHARD_REMOTE_H

#include "table/table.h"

/* The query that tells a database from all others, whoever asks. */
#define SHARD_DATABASE_QUERY \
	"SELECT pg_catalog.concat(extract(epoch FROM pg_catalog.pg_postmaster_start_time()), ' ', d.oid)" \
	" FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"

/* in admin.c */
extern List *shard_node_list(const char *names);
extern char *shard_node_run_command(Oid server, const char *sql);

/* in alter.c */
extern bool shard_is_on_node(Oid relid);
extern void shard_alter_on_nodes(Oid relid, const Node *parsetree);
extern void shard_alter_init(void);

/* in feed.c */
typedef struct ShardNodeFeed ShardNodeFeed;
extern Oid	shard_node_feed_key(Relation rel);
extern ShardNodeFeed *shard_node_feed_begin(Oid shard, Oid userid, Relation rel,
											Oid key);
extern void shard_node_feed_start(ShardNodeFeed *feed);
extern void shard_node_feed_gone(void *arg, HeapTuple row);
extern void shard_node_feed_row(void *arg, HeapTuple row);
extern bool shard_node_feed_finish(ShardNodeFeed *feed);

/* in make_table.c */
extern char *shard_node_table_name(Oid relid);
extern void shard_node_make_table(Oid shard, Oid source, Oid userid);

/* in transfer.c */
extern uint64 shard_node_get_rows(Oid shard, Oid userid, Relation target);
extern uint64 shard_node_pass_rows(Oid from, Oid to, Oid userid);
extern char *shard_node_hold_table(Oid shard, Oid userid, bool *is_unlogged);
extern List *shard_node_index_commands(Oid shard, Oid userid,
									   const char *target);
extern void shard_node_drop_table(Oid shard, Oid userid);
extern char *shard_node_database(Oid server, Oid userid);
extern int64 shard_node_bytes(Oid shard, Oid userid);

/* in session.c */
extern void shard_node_connect(Oid server, Oid userid);
extern void shard_node_init(void);

#endif							/* SHARD_REMOTE_H */
