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

/*
 * The query for the columns of a unique index that tells the rows of a table,
 * "%s", from each other, with the operators by which it does: none of them is
 * ever null, or computed.  Columns of a primary key if there is one.
 */
#define SHARD_ROW_KEY_QUERY \
	"SELECT a.attname, n.nspname, o.oprname FROM" \
	" (SELECT i.* FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam" \
	" WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND NOT i.indisexclusion" \
	" AND i.indexprs IS NULL AND i.indpred IS NULL AND m.amname = 'btree' AND NOT EXISTS" \
	" (SELECT FROM generate_series(0, i.indnkeyatts - 1) k JOIN pg_attribute a" \
	" ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]" \
	" WHERE NOT a.attnotnull OR a.attgenerated <> '' OR a.attcollation <> i.indcollation[k])" \
	" ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1) i" \
	" CROSS JOIN LATERAL generate_series(0, i.indnkeyatts - 1) k" \
	" JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]" \
	" JOIN pg_opclass c ON c.oid = i.indclass[k]" \
	" JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = c.opcintype" \
	" AND p.amoprighttype = c.opcintype AND p.amopstrategy = 3" \
	" JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace" \
	" WHERE true"

/* A column of such an index. */
typedef struct ShardKeyColumn
{
	AttrNumber	attno;			/* of the shard */
	char	   *name;			/* here */
	char	   *equality;		/* the operator, as OPERATOR() has it */
} ShardKeyColumn;

/* in admin.c */
extern List *shard_node_list(const char *names);
extern char *shard_node_run_command(Oid server, const char *sql);

/* in alter.c */
extern bool shard_is_on_node(Oid relid);
extern void shard_alter_on_nodes(Oid relid, const Node *parsetree);
extern void shard_alter_init(void);

/* in feed.c */
typedef struct ShardNodeFeed ShardNodeFeed;
extern ShardNodeFeed *shard_node_feed_begin(Oid shard, Oid userid, Relation rel,
											List *key);
extern void shard_node_feed_start(ShardNodeFeed *feed);
extern void shard_node_feed_gone(void *arg, HeapTuple row);
extern void shard_node_feed_row(void *arg, HeapTuple row);
extern bool shard_node_feed_finish(ShardNodeFeed *feed);

/* in make_table.c */
extern char *shard_node_table_name(Oid relid);
extern void shard_node_make_table(Oid shard, Oid source, Oid userid);

/* in retire.c */
extern bool shard_node_is_old(Oid shard, Oid userid, AttrNumber attno, Oid type,
							  TimestampTz limit, int patience);
extern void shard_node_begin_retire(Oid shard, Oid userid);
extern bool shard_node_retire(Oid shard, Oid userid, AttrNumber attno, Oid type,
							  TimestampTz limit, bool keep_table);

/* in transfer.c */
extern uint64 shard_node_get_rows(Oid shard, Oid userid, Relation target,
								  bool is_watched);
extern int64 shard_node_get_changes(Oid shard, Oid userid, Relation target,
									List *key);
extern uint64 shard_node_pass_rows(Oid shard, Oid userid, ShardNodeFeed *feed,
								   bool is_watched);
extern int64 shard_node_pass_changes(Oid shard, Oid userid, ShardNodeFeed *feed,
									 List *key);
extern char *shard_node_hold_table(Oid shard, Oid userid, bool allow_writes,
								   bool *is_unlogged);
extern ShardKeyColumn *shard_row_key_column(Oid relid, AttrNumber attno,
											const char *schema,
											const char *operator);
extern List *shard_node_row_key(Oid shard, Oid userid);
extern void shard_node_lock_out(Oid shard, Oid userid, int timeout);
extern List *shard_node_index_commands(Oid shard, Oid userid,
									   const char *target);
extern void shard_node_drop_table(Oid shard, Oid userid);
extern char *shard_node_database(Oid server, Oid userid);
extern int64 shard_node_bytes(Oid shard, Oid userid);

/* in session.c */
extern void shard_node_connect(Oid server, Oid userid);
extern void shard_node_init(void);

#endif							/* SHARD_REMOTE_H */
