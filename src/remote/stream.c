/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Commands to nodes that raise errors, and COPY to and from them.
 *
 * Rows go as text, with settings on both sides under which a value is read as
 * what was written.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "storage/latch.h"
#include "utils/guc.h"

/* What makes texts of values mean the same everywhere. */
static const char *const text_settings[][2] = {
	{"datestyle", "ISO"},
	{"intervalstyle", "postgres"},
	{"extra_float_digits", "3"},
	{"timezone", "UTC"},
	{"lc_monetary", "C"},
	{"xmloption", "content"},
	{"array_nulls", "on"}
};

/*
 * shard_node_session_of
 *		The connection of this transaction to the server of a foreign table, by
 *		the user mapping of this role.
 *
 * Raises what shard_node_connect() raises.
 */
ShardNodeSession *
shard_node_session_of(Oid shard, Oid userid)
{
	ShardNodeError error;
	ShardNodeSession *session =
		shard_node_session(GetForeignServerIdByRelId(shard), userid, &error);

	if (session == NULL)
		shard_node_raise(&error, NULL);
	return session;
}

/*
 * shard_node_command
 *		As shard_node_query(), but raises the error.
 */
const PGresult *
shard_node_command(ShardNodeSession *session, const char *sql, bool is_change)
{
	ShardNodeError error;
	const PGresult *result = shard_node_query(session, sql, is_change, &error);

	if (result == NULL)
	{
		if (error.hint == NULL && error.sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
			error.hint = "If this transaction has used the table on the server, commit it first.";
		shard_node_raise(&error, sql);
	}
	return result;
}

/*
 * Raise an error unless the node has had to do with as many rows as we had.
 */
static void
check_number(const ShardNodeSession *session, uint64 there, uint64 here)
{
	if (there != here)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("server \"%s\" has copied or deleted another number of rows",
						session->name),
				 errdetail("It was " UINT64_FORMAT " there and " UINT64_FORMAT " here.",
						   there, here)));
}

static void
raise_lost(ShardNodeSession *session)
{
	ShardNodeError error;

	(void) shard_node_set_lost(session, &error);
	shard_node_raise(&error, NULL);
}

/*
 * shard_node_change_rows
 *		Have the node change rows that this transaction has put there.
 *
 * Raises ERRCODE_FDW_ERROR unless they are so many.
 */
void
shard_node_change_rows(ShardNodeSession *session, const char *sql, uint64 nrows)
{
	(void) shard_node_command(session, sql, true);
	check_number(session, strtoull(PQcmdTuples(session->result), NULL, 10), nrows);
}

/*
 * shard_node_prepare
 *		Have the node write and read texts as we do, wait for locks as long as we
 *		would, and for us as long as we take, hide no row, and not forget what it
 *		has committed: until the end of its transaction.
 */
void
shard_node_prepare(ShardNodeSession *session)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SET LOCAL lock_timeout = %d; SET LOCAL row_security = off"
					 "; SET LOCAL idle_in_transaction_session_timeout = 0",
					 shard_lock_patience());
	for (int i = 0; i < lengthof(text_settings); i++)
		appendStringInfo(&sql, "; SET LOCAL %s = '%s'", text_settings[i][0],
						 text_settings[i][1]);
	appendStringInfoString(&sql, "; SELECT set_config('synchronous_commit', 'on', true)"
						   " WHERE current_setting('synchronous_commit') = 'off'");
	(void) shard_node_command(session, sql.data, false);
}

/*
 * shard_set_text_settings
 *		The same settings for texts here.  Returns what AtEOXact_GUC() has to
 *		know to undo them.
 */
int
shard_set_text_settings(void)
{
	int			guc_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(text_settings); i++)
		shard_set(text_settings[i][0], text_settings[i][1]);
	return guc_level;
}

/*
 * The next result of what was sent.
 */
static PGresult *
next_result(ShardNodeSession *session)
{
	while (PQisBusy(session->conn))
	{
		shard_node_wait(session->conn, WL_SOCKET_READABLE, 0);
		if (!PQconsumeInput(session->conn))
			raise_lost(session);
	}
	return PQgetResult(session->conn);
}

/*
 * Raise an error unless a result is what it should be, and free it.  Returns how
 * many rows it says that the command was about.
 */
static uint64
check_result(ShardNodeSession *session, PGresult *result,
			 ExecStatusType expected, const char *sql)
{
	ShardNodeError error;
	uint64		nrows;

	if (result == NULL || PQstatus(session->conn) == CONNECTION_BAD)
	{
		PQclear(result);
		raise_lost(session);
	}
	if (PQresultStatus(result) != expected)
	{
		shard_node_set_remote_error(session, result, &error);
		PQclear(result);
		shard_node_raise(&error, sql);
	}
	nrows = strtoull(PQcmdTuples(result), NULL, 10);
	PQclear(result);
	return nrows;
}

/*
 * shard_node_begin_copy
 *		Begin a COPY.  "expected" says in which direction.
 */
void
shard_node_begin_copy(ShardNodeSession *session, const char *sql, ExecStatusType expected)
{
	/* This is where the transaction there is brought to our level. */
	(void) shard_node_command(session, "", false);
	if (!PQsendQuery(session->conn, sql))
		raise_lost(session);
	(void) check_result(session, next_result(session), expected, sql);
}

/*
 * shard_node_end_copy
 *		Take the result of a COPY.
 *
 * Raises ERRCODE_FDW_ERROR unless it is about so many rows.
 */
void
shard_node_end_copy(ShardNodeSession *session, uint64 nrows)
{
	uint64		there = check_result(session, next_result(session),
									 PGRES_COMMAND_OK, NULL);

	/* That ends the command. */
	PQclear(next_result(session));
	check_number(session, there, nrows);
}

/*
 * shard_node_flush
 *		Send all that waits to be sent.
 */
void
shard_node_flush(ShardNodeSession *session)
{
	int			rc;

	while ((rc = PQflush(session->conn)) != 0)
	{
		if (rc < 0)
			raise_lost(session);
		shard_node_wait(session->conn,
						WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, 0);
		if (!PQconsumeInput(session->conn))
			raise_lost(session);
	}
}

/*
 * shard_node_send
 *		Send data of a COPY: so many bytes.
 */
void
shard_node_send(ShardNodeSession *session, const char *data, int length)
{
	int			rc;

	while ((rc = PQputCopyData(session->conn, data, length)) == 0)
		shard_node_flush(session);
	if (rc < 0)
		raise_lost(session);
}

/*
 * shard_node_begin_sending
 *		Begin to copy rows into the table behind a foreign table, which this
 *		transaction has created.  "columns" are theirs, in parentheses.
 *		shard_node_prepare() has been called.
 *
 * They come with FREEZE.  postgres_fdw keeps a node's first snapshot until the
 * end of a transaction.  So a session that has used the node before, and then
 * finds that a shard is there, would otherwise see none of its rows.
 */
void
shard_node_begin_sending(ShardNodeSession *session, Oid shard, const char *columns)
{
	char	   *sql = psprintf("COPY %s%s FROM STDIN (FREEZE)",
							   shard_node_table_name(shard), columns);

	shard_node_begin_copy(session, sql, PGRES_COPY_IN);
	(void) PQsetnonblocking(session->conn, 1);
}

/*
 * shard_node_end_sending
 *		End that.  So many rows have been sent.
 *
 * Raises what shard_node_end_copy() raises.
 */
void
shard_node_end_sending(ShardNodeSession *session, uint64 nrows)
{
	int			rc;

	while ((rc = PQputCopyEnd(session->conn, NULL)) == 0)
		shard_node_flush(session);
	if (rc < 0)
		raise_lost(session);
	shard_node_flush(session);
	(void) PQsetnonblocking(session->conn, 0);
	shard_node_end_copy(session, nrows);
}

/*
 * shard_node_receive
 *		Receive a row of a COPY, which is to be freed with PQfreemem().  Returns
 *		its length, or -1 if there is none.
 */
int
shard_node_receive(ShardNodeSession *session, char **row)
{
	int			length;

	while ((length = PQgetCopyData(session->conn, row, 1)) == 0)
	{
		shard_node_wait(session->conn, WL_SOCKET_READABLE, 0);
		if (!PQconsumeInput(session->conn))
			raise_lost(session);
	}
	if (length == -2)
		raise_lost(session);
	CHECK_FOR_INTERRUPTS();
	return length;
}
