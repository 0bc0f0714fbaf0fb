/*-------------------------------------------------------------------------
 *
 * session.c
 *	  Connections to nodes, for commands that postgres_fdw cannot send.
 *
 * The connection that postgres_fdw has is not to be had, so these are our own,
 * made from the same server and user mapping and under the same rules.  A
 * connection lives until the end of the transaction, and so do the transactions
 * on the nodes:
 *
 * - They are committed when the local transaction is about to be.  An error
 *   there fails that, too; but nodes whose turn came before have committed.
 * - One that takes away rows which the local transaction has put elsewhere, or
 *   for which no shard stands any more, is committed after the local one.  If
 *   that fails, rows that nobody reads any more are left.
 * - They are rolled back, when the local transaction is, by closing the
 *   connection, for which we wait for nobody.
 * - A subtransaction that runs commands has a savepoint there.  When it is
 *   rolled back, that is only noted, and the node is told before its next
 *   command.
 *
 * What they have changed cannot be seen by postgres_fdw's connection until it
 * is committed, or may be locked against it, which no deadlock detector would
 * find.  So until then, queries on foreign tables of that server are refused.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include <poll.h>

#include "access/xact.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "storage/latch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How long to wait for a commit after the local one, in milliseconds. */
#define LATE_COMMIT_TIME	10000

/* Those of this transaction, in TopTransactionContext. */
static List *sessions = NIL;

static ExecutorStart_hook_type prev_executor_start_hook = NULL;

/*
 * Take all results of what was sent.  The last one stays, or the first that is
 * an error.  Returns false and fills in *error if there is one.
 */
static bool
take_results(ShardNodeSession *session, ShardNodeError *error)
{
	for (;;)
	{
		PGresult   *result;

		while (PQisBusy(session->conn))
		{
			shard_node_wait(session->conn, WL_SOCKET_READABLE, 0);
			if (!PQconsumeInput(session->conn))
				return shard_node_set_lost(session, error);
		}
		result = PQgetResult(session->conn);
		if (result == NULL)
			break;
		if (session->result != NULL &&
			PQresultStatus(session->result) == PGRES_FATAL_ERROR)
		{
			PQclear(result);
			continue;
		}
		PQclear(session->result);
		session->result = result;
		switch (PQresultStatus(result))
		{
			case PGRES_COPY_IN:
			case PGRES_COPY_OUT:
			case PGRES_COPY_BOTH:
				shard_node_set_error(error, ERRCODE_FEATURE_NOT_SUPPORTED,
									 psprintf("cannot copy rows from or to the client on server \"%s\"",
											  session->name), NULL, NULL);
				shard_node_disconnect(session);
				return false;
			default:
				break;
		}
	}
	if (PQstatus(session->conn) == CONNECTION_BAD)
		return shard_node_set_lost(session, error);
	if (session->result != NULL &&
		PQresultStatus(session->result) == PGRES_FATAL_ERROR)
	{
		shard_node_set_remote_error(session, session->result, error);
		return false;
	}
	return true;
}

/*
 * Run commands, whatever the state of the transaction there is.
 */
static bool
run(ShardNodeSession *session, const char *sql, ShardNodeError *error)
{
	if (session->conn == NULL)
		return shard_node_set_lost(session, error);
	PQclear(session->result);
	session->result = NULL;
	if (!PQsendQuery(session->conn, sql))
		return shard_node_set_lost(session, error);
	return take_results(session, error);
}

/*
 * Undo there what has been rolled back here.
 */
static bool
undo(ShardNodeSession *session, ShardNodeError *error)
{
	int			level = session->undo_to;

	if (level == 0)
		return true;
	/* A command that was canceled here may be going on there. */
	if (PQtransactionStatus(session->conn) == PQTRANS_ACTIVE &&
		!take_results(session, error) && session->conn == NULL)
		return false;
	if (!run(session,
			 psprintf("ROLLBACK TO SAVEPOINT s%d; RELEASE SAVEPOINT s%d", level,
					  level), error))
		return false;
	session->depth = level - 1;
	session->undo_to = 0;
	return true;
}

/*
 * Bring the transaction there to our level.
 */
static bool
catch_up(ShardNodeSession *session, ShardNodeError *error)
{
	int			level = GetCurrentTransactionNestLevel();

	if (!undo(session, error))
		return false;
	if (session->depth == 0)
	{
		/*
		 * When we are gone, the server should not go on with a command; not
		 * all platforms let it notice.
		 */
		(void) run(session, "SET client_connection_check_interval = 1000",
				   error);
		if (!run(session,
				 XactReadOnly ?
				 "BEGIN READ ONLY; SET LOCAL transaction_isolation = 'read committed'; SET LOCAL search_path = pg_catalog, pg_temp" :
				 "BEGIN; SET LOCAL transaction_isolation = 'read committed'; SET LOCAL search_path = pg_catalog, pg_temp",
				 error))
			return false;
		session->depth = 1;
	}
	for (; session->depth < level; session->depth++)
	{
		if (!run(session, psprintf("SAVEPOINT s%d", session->depth + 1), error))
			return false;
	}
	return true;
}

/*
 * shard_node_session
 *		The connection of this transaction to a node, by the user mapping of
 *		this role.
 *
 * Returns NULL and fills in *error if there is none and none can be made.
 * Lives until the end of the transaction.
 */
ShardNodeSession *
shard_node_session(Oid server, Oid userid, ShardNodeError *error)
{
	ShardNodeSession *session = NULL;
	ListCell   *lc;

	foreach(lc, sessions)
	{
		ShardNodeSession *other = lfirst(lc);

		if (other->server == server && other->userid == userid)
			session = other;
	}
	if (session == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(TopTransactionContext);

		session = palloc0(sizeof(ShardNodeSession));
		session->server = server;
		session->userid = userid;
		session->name = pstrdup(GetForeignServer(server)->servername);
		sessions = lappend(sessions, session);
		MemoryContextSwitchTo(oldcontext);
	}
	if (session->conn == NULL && session->has_changed)
	{
		(void) shard_node_set_lost(session, error);
		return NULL;
	}
	/* An error may have left it half made. */
	if (session->conn != NULL && session->depth == 0)
		shard_node_disconnect(session);
	if (session->conn == NULL &&
		(!shard_node_open(session, error) || !catch_up(session, error)))
		return NULL;
	return session;
}

/*
 * What is done there is to be committed before the local transaction, or after
 * it, but not in part.
 */
static void
note_change(ShardNodeSession *session, bool is_late)
{
	if (session->has_changed && session->is_late != is_late)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot run these commands on server \"%s\" in one transaction",
						session->name),
				 errdetail("A shard that is moved away or dropped is dropped there after the transaction is committed, all else is done before."),
				 errhint("Commit the transaction first.")));
	if (!session->has_changed)
		session->level = GetCurrentTransactionNestLevel();
	session->has_changed = true;
	session->is_late = is_late;
}

/*
 * shard_node_note_change
 *		What is done there is to be committed with the local transaction, shortly
 *		before it.
 *
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE after
 * shard_node_note_late_change().
 */
void
shard_node_note_change(ShardNodeSession *session)
{
	note_change(session, false);
}

/*
 * shard_node_note_late_change
 *		What is done there is to be committed when the local transaction has
 *		been, and not to be done if that fails.  A failure there is a warning.
 *
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE after
 * shard_node_note_change().
 */
void
shard_node_note_late_change(ShardNodeSession *session)
{
	note_change(session, true);
	session->has_written = true;
}

/*
 * shard_node_note_written
 *		Find out whether commands that may change something have done so: if not,
 *		queries of the transaction may go on to use the server.
 *
 * Returns false and fills in *error if the node does not tell.
 */
bool
shard_node_note_written(ShardNodeSession *session, ShardNodeError *error)
{
	if (session->has_written)
		return true;
	if (shard_node_query(session, "SELECT pg_catalog.txid_current_if_assigned() IS NULL",
						 false, error) == NULL)
		return false;
	session->has_written = strcmp(PQgetvalue(session->result, 0, 0), "t") != 0;
	return true;
}

/*
 * shard_node_query
 *		Run commands in the transaction there.
 *
 * "is_change" means that they may change something, which is then to be
 * committed.  Returns the result of the last, which is good until the next one;
 * or NULL, and fills in *error.
 */
const PGresult *
shard_node_query(ShardNodeSession *session, const char *sql, bool is_change,
				 ShardNodeError *error)
{
	if (!catch_up(session, error))
		return NULL;
	if (is_change)
	{
		shard_node_note_change(session);
		session->has_written = true;
	}
	if (!run(session, sql, error))
		return NULL;
	if (PQtransactionStatus(session->conn) != PQTRANS_INTRANS)
	{
		shard_node_set_error(error, ERRCODE_INVALID_TRANSACTION_TERMINATION,
							 psprintf("cannot begin or end transactions on server \"%s\"",
									  session->name), NULL, NULL);
		shard_node_disconnect(session);
		return NULL;
	}
	return session->result;
}

/*
 * shard_node_connect
 *		Connect to a node by the user mapping of this role, if this transaction
 *		has not yet.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE if the role may not use the server,
 * ERRCODE_UNDEFINED_OBJECT if it has no user mapping,
 * ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED if it needs a password, and
 * ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION.
 */
void
shard_node_connect(Oid server, Oid userid)
{
	ShardNodeError error;

	if (shard_node_session(server, userid, &error) == NULL)
		shard_node_raise(&error, NULL);
}

/*
 * Names of the servers whose transactions have been committed, for an error.
 */
static char *
list_committed(int n)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < n; i++)
	{
		ShardNodeSession *session = list_nth(sessions, i);

		if (session->has_changed && !session->is_late)
			appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "",
							 session->name);
	}
	return names.data;
}

/*
 * Commit on the nodes.
 */
static void
commit_all(void)
{
	ShardNodeError error;
	int			nchanged = 0;
	ListCell   *lc;

	/* First see that all are there still. */
	foreach(lc, sessions)
	{
		ShardNodeSession *session = lfirst(lc);

		if (!session->has_changed)
			continue;
		nchanged++;
		/* What is lost in a crash here must not be gone there. */
		if (session->is_late)
			ForceSyncCommit();
		if (session->conn == NULL)
			(void) shard_node_set_lost(session, &error);
		else if (undo(session, &error) &&
				 (list_length(sessions) == 1 || run(session, "", &error)))
			continue;
		shard_node_raise(&error, NULL);
	}
	for (int i = 0; i < list_length(sessions) && nchanged > 0; i++)
	{
		ShardNodeSession *session = list_nth(sessions, i);
		char	   *committed;

		if (!session->has_changed || session->is_late)
			continue;
		if (run(session, "COMMIT", &error))
		{
			/* A transaction that has failed would be rolled back. */
			if (strcmp(PQcmdStatus(session->result), "COMMIT") == 0)
				continue;
			shard_node_set_error(&error, ERRCODE_TRANSACTION_ROLLBACK,
								 psprintf("transaction on server \"%s\" was rolled back",
										  session->name), NULL, NULL);
		}
		committed = list_committed(i);
		if (error.is_lost)
			error.hint = psprintf("The server may have committed; look for the tables there before trying again.%s%s%s",
								  *committed != '\0' ? " It is certain that these have: " : "",
								  committed, *committed != '\0' ? "." : "");
		else if (*committed != '\0')
			error.hint = psprintf("These servers have committed: %s. Drop the tables there before trying again.",
								  committed);
		shard_node_raise(&error, NULL);
	}
}

/*
 * Wait for the end of what has been sent, without raising anything.  Returns
 * whether it has succeeded in time.
 */
static bool
await_commit(PGconn *conn)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													LATE_COMMIT_TIME);
	bool		result = false;
	PGresult   *answer;

	for (;;)
	{
		struct pollfd socket = {.fd = PQsocket(conn),.events = POLLIN};
		long		left;

		while (PQisBusy(conn))
		{
			left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
			if (left <= 0)
				return false;
			(void) poll(&socket, 1, (int) left);
			if (!PQconsumeInput(conn))
				return false;
		}
		answer = PQgetResult(conn);
		if (answer == NULL)
			return result;
		result = PQresultStatus(answer) == PGRES_COMMAND_OK &&
			strcmp(PQcmdStatus(answer), "COMMIT") == 0;
		PQclear(answer);
	}
}

/*
 * The local transaction has been committed, so nothing must fail any more:
 * commit on nodes what was to be committed after it.
 */
static void
commit_late(void)
{
	ListCell   *lc;

	foreach(lc, sessions)
	{
		ShardNodeSession *session = lfirst(lc);

		if (!session->has_changed || !session->is_late)
			continue;
		if (session->conn == NULL || !PQsendQuery(session->conn, "COMMIT") ||
			!await_commit(session->conn))
			ereport(WARNING,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("server \"%s\" may not have dropped the tables of shards that have been moved away or dropped",
							session->name),
					 errdetail("No shard stands for these tables any more."),
					 errhint("Look for the tables there, and drop them.")));
	}
}

/*
 * Commit on the nodes before the local transaction or after it, and close the
 * connections when it has come to its end.
 */
static void
on_xact_end(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (sessions == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			commit_all();
			break;
		case XACT_EVENT_PRE_PREPARE:
			foreach(lc, sessions)
			{
				if (((ShardNodeSession *) lfirst(lc))->has_changed)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot PREPARE a transaction that has run commands on nodes")));
			}
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			if (event == XACT_EVENT_COMMIT)
				commit_late();
			foreach(lc, sessions)
				shard_node_disconnect(lfirst(lc));
			sessions = NIL;
			break;
		default:
			break;
	}
}

/*
 * A subtransaction ends.
 */
static void
on_subxact_end(SubXactEvent event, SubTransactionId subid,
			   SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *lc;

	foreach(lc, sessions)
	{
		ShardNodeSession *session = lfirst(lc);

		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		{
			ShardNodeError error;

			if (session->conn != NULL && session->depth >= level)
			{
				/* After ROLLBACK TO, this may be what is to be undone. */
				if (!undo(session, &error) ||
					(session->depth >= level &&
					 !run(session, psprintf("RELEASE SAVEPOINT s%d", level),
						  &error)))
					shard_node_raise(&error, NULL);
				session->depth = Min(session->depth, level - 1);
			}
			session->level = Min(session->level, level - 1);
		}
		else if (event == SUBXACT_EVENT_ABORT_SUB)
		{
			if (session->has_changed && session->level < level)
			{
				if (session->conn != NULL && session->depth >= level)
					session->undo_to = level;
			}
			else if (session->has_changed || session->depth >= level)
			{
				/* Nothing is left of what was done there. */
				session->has_changed = session->has_written = false;
				shard_node_disconnect(session);
			}
		}
	}
}

/*
 * Refuse to read or write a foreign table whose server has been changed.
 */
static void
check_unchanged(Oid relid, Oid table)
{
	Oid			server = GetForeignServerIdByRelId(table);
	ListCell   *lc;

	foreach(lc, sessions)
	{
		ShardNodeSession *session = lfirst(lc);

		if (session->has_written && session->server == server)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot use foreign table \"%s\" in this transaction",
							get_rel_name(relid)),
					 errdetail("The transaction has run commands on server \"%s\", which queries cannot see before it is committed.",
							   session->name),
					 errhint("Commit the transaction first.")));
	}
}

/*
 * Look for such tables in a query.
 */
static void
start_executor(QueryDesc *query_desc, int eflags)
{
	ListCell   *lc;

	foreach(lc, sessions == NIL ? NIL : query_desc->plannedstmt->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_RELATION ||
			rte->relkind != RELKIND_FOREIGN_TABLE ||
			(eflags & EXEC_FLAG_EXPLAIN_ONLY))
			continue;
		check_unchanged(rte->relid, rte->relid);
		if (shard_is_logical(rte->relid))
		{
			const ShardTable *table = shard_table_get(rte->relid);

			for (int i = 0; i < table->nmembers; i++)
				if (!table->members[i].is_local)
					check_unchanged(rte->relid, table->members[i].relid);
		}
	}
	(prev_executor_start_hook ? prev_executor_start_hook :
	 standard_ExecutorStart) (query_desc, eflags);
}

/*
 * shard_node_init
 *		Install callbacks and the executor hook.  To be called once, when the
 *		library is loaded.
 */
void
shard_node_init(void)
{
	RegisterXactCallback(on_xact_end, NULL);
	RegisterSubXactCallback(on_subxact_end, NULL);
	prev_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
