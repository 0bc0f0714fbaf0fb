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
extern char *shard_node_table_name(Oid relid);

/* in session.c */
extern ShardNodeSession *shard_node_session(Oid server, Oid userid,
											ShardNodeError *error);
extern const PGresult *shard_node_query(ShardNodeSession *session,
										const char *sql, bool is_change,
										ShardNodeError *error);
extern void shard_node_raise(const ShardNodeError *error, const char *sql);

#endif							/* SHARD_REMOTE_PRIVATE_H */
