/*-------------------------------------------------------------------------
 *
 * remote_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_REMOTE_PRIVATE_H
#define SHARD_REMOTE_PRIVATE_H

#include "remote/remote.h"

#include "foreign/foreign.h"
#include "libpq-fe.h"

/* A connection to a node, for this transaction. */
typedef struct ShardNodeSession ShardNodeSession;

/* Why something could not be done on a node. */
typedef struct ShardNodeError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *hint;			/* NULL: none */
	bool		is_lost;		/* there is no connection */
} ShardNodeError;

/* in make_table.c */
extern char *shard_node_default(Relation rel, AttrNumber attno);
extern void shard_node_append_column(StringInfo sql, Relation rel,
									 AttrNumber attno, const char *name);
extern char *shard_node_index_sql(const char *table, Relation index);
extern bool shard_node_has_functions(ShardNodeSession *session);
extern const char *shard_node_column_name(Oid relid, AttrNumber attno);

/* in session.c */
extern ShardNodeSession *shard_node_session(Oid server, Oid userid,
											ShardNodeError *error);
extern bool shard_is_node(const ForeignServer *server);
extern void shard_node_note_change(ShardNodeSession *session);
extern bool shard_node_note_written(ShardNodeSession *session,
									ShardNodeError *error);
extern const PGresult *shard_node_query(ShardNodeSession *session,
										const char *sql, bool is_change,
										ShardNodeError *error);
extern void shard_node_raise(const ShardNodeError *error, const char *sql);

#endif							/* SHARD_REMOTE_PRIVATE_H */
