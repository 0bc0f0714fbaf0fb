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
typedef struct ShardNodeSession
{
	Oid			server;
	Oid			userid;			/* whose user mapping it is */
	char	   *name;			/* of the server */
	PGconn	   *conn;			/* NULL: not connected */
	PGresult   *result;			/* of the last command */
	int			depth;			/* level of its innermost transaction; 0: none */
	int			undo_to;		/* level that has been rolled back here, or 0 */
	bool		has_changed;	/* commands may have changed something there,
								 * ... */
	int			level;			/* ... the first of them at this level */
	bool		has_written;	/* they have, as far as we know */
	bool		is_late;		/* to be committed after the local transaction */
} ShardNodeSession;

/* Why something could not be done on a node. */
typedef struct ShardNodeError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *hint;			/* NULL: none */
	bool		is_lost;		/* there is no connection */
} ShardNodeError;

/* in connect.c */
extern void shard_node_disconnect(ShardNodeSession *session);
extern void shard_node_set_error(ShardNodeError *error, int sqlstate,
								 char *message, char *detail, char *hint);
extern bool shard_node_set_lost(ShardNodeSession *session,
								ShardNodeError *error);
extern void shard_node_set_remote_error(const ShardNodeSession *session,
										const PGresult *result,
										ShardNodeError *error);
extern void shard_node_raise(const ShardNodeError *error, const char *sql);
extern void shard_node_wait(PGconn *conn, int events, TimestampTz until);
extern bool shard_node_open(ShardNodeSession *session, ShardNodeError *error);

/* in feed.c */
extern void shard_node_feed_gone_key(ShardNodeFeed *feed, char **texts);
extern void shard_node_feed_line(ShardNodeFeed *feed, const char *line,
								 int length);
extern char *shard_node_columns(Relation rel, bool is_foreign, List **attnos,
								List **names);

/* in gone.c */
typedef struct ShardGoneRows ShardGoneRows;
extern ShardGoneRows *shard_gone_begin(const char *table, List *key,
									   TupleDesc desc);
extern bool shard_gone_add(ShardGoneRows *gone, char **texts);
extern char *shard_gone_command(ShardGoneRows *gone, uint64 *nrows);

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
extern void shard_node_note_change(ShardNodeSession *session);
extern void shard_node_note_late_change(ShardNodeSession *session);
extern bool shard_node_note_written(ShardNodeSession *session,
									ShardNodeError *error);
extern const PGresult *shard_node_query(ShardNodeSession *session,
										const char *sql, bool is_change,
										ShardNodeError *error);

/* in stream.c */
extern ShardNodeSession *shard_node_session_of(Oid shard, Oid userid);
extern const PGresult *shard_node_command(ShardNodeSession *session,
										  const char *sql, bool is_change);
extern void shard_node_change_rows(ShardNodeSession *session, const char *sql,
								   uint64 nrows);
extern void shard_node_prepare(ShardNodeSession *session);
extern int	shard_set_text_settings(void);
extern void shard_node_begin_copy(ShardNodeSession *session, const char *sql,
								  ExecStatusType expected);
extern void shard_node_end_copy(ShardNodeSession *session, uint64 nrows);
extern void shard_node_flush(ShardNodeSession *session);
extern void shard_node_send(ShardNodeSession *session, const char *data,
							int length);
extern void shard_node_begin_sending(ShardNodeSession *session, Oid shard,
									 const char *columns);
extern void shard_node_end_sending(ShardNodeSession *session, uint64 nrows);
extern int	shard_node_receive(ShardNodeSession *session, char **row);

#endif							/* SHARD_REMOTE_PRIVATE_H */
