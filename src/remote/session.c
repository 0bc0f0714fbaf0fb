/*-------------------------------------------------------------------------
 *
 * session.c
 *	  Connections to nodes, for commands that postgres_fdw cannot send.
 *
 * The connection that postgres_fdw has is not to be had, so these are our own,
 * made from the same server and user mapping and under the same rules: who may
 * connect, and the loops that wait, are as in contrib/postgres_fdw/connection.c.
 * A connection lives until the end of the transaction, and so do the
 * transactions on the nodes:
 *
 * - They are committed when the local transaction is about to be.  An error
 *   there fails that, too; but nodes whose turn came before have committed.
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

#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

struct ShardNodeSession
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
};

/* Those of this transaction, in TopTransactionContext. */
static List *sessions = NIL;

static ExecutorStart_hook_type prev_executor_start_hook = NULL;

/*
 * Close a connection.  Allocates nothing, and waits for nobody.
 */
static void
disconnect(ShardNodeSession *session)
{
	PQclear(session->result);
	session->result = NULL;
	if (session->conn != NULL)
	{
		PQfinish(session->conn);
		ReleaseExternalFD();
	}
	session->conn = NULL;
	session->depth = 0;
	session->undo_to = 0;
}

/*
 * Fill in what went wrong, in the current memory context.
 */
static void
set_error(ShardNodeError *error, int sqlstate, char *message, char *detail,
		  char *hint)
{
	error->sqlstate = sqlstate;
	error->message = message;
	error->detail = detail;
	error->hint = hint;
	error->is_lost = false;
}

/*
 * The connection is lost: close it.
 */
static bool
set_lost(ShardNodeSession *session, ShardNodeError *error)
{
	set_error(error, ERRCODE_CONNECTION_FAILURE,
			  psprintf("connection to server \"%s\" was lost", session->name),
			  session->conn == NULL ? NULL :
			  pchomp(PQerrorMessage(session->conn)), NULL);
	error->is_lost = true;
	disconnect(session);
	return false;
}

/*
 * shard_node_raise
 *		Raise such an error.  "sql" is the command that failed, or NULL.
 */
void
shard_node_raise(const ShardNodeError *error, const char *sql)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 sql ? errcontext("remote SQL command: %s", sql) : 0));
}

/*
 * Wait until something can be read or written, or until some time, if not 0.
 */
static void
wait_for_socket(PGconn *conn, int events, TimestampTz until)
{
	long		timeout = -1;

	events |= WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	if (until != 0)
	{
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		events |= WL_TIMEOUT;
	}
	(void) WaitLatchOrSocket(MyLatch, events, PQsocket(conn), timeout,
							 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * The parameters of a connection: those options of the server and of the user
 * mapping that libpq knows.
 */
static void
get_parameters(const ForeignServer *server, const UserMapping *user,
			   const char ***keywords, const char ***values)
{
	List	   *options = list_concat_copy(server->options, user->options);
	PQconninfoOption *known = PQconndefaults();
	int			n = 0;
	ListCell   *lc;

	if (known == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	*keywords = palloc0(sizeof(char *) * (list_length(options) + 3));
	*values = palloc0(sizeof(char *) * (list_length(options) + 3));
	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		for (PQconninfoOption *option = known; option->keyword != NULL; option++)
		{
			if (strcmp(option->keyword, def->defname) != 0)
				continue;
			(*keywords)[n] = def->defname;
			/* It is a string, so nothing is raised. */
			(*values)[n++] = defGetString(def);
		}
	}
	(*keywords)[n] = "fallback_application_name";
	(*values)[n++] = "shard_fdw";
	(*keywords)[n] = "client_encoding";
	(*values)[n++] = GetDatabaseEncodingName();
	PQconninfoFree(known);
}

/*
 * The value of a parameter, or NULL.  The last one counts.
 */
static const char *
get_parameter(const char *const *keywords, const char *const *values,
			  const char *keyword)
{
	const char *result = NULL;

	for (int i = 0; keywords[i] != NULL; i++)
		if (strcmp(keywords[i], keyword) == 0)
			result = values[i];
	return result;
}

/*
 * Must the role use a password?  Not if it is a superuser's, or a superuser has
 * said so in the user mapping; see UserMappingPasswordRequired() in postgres_fdw.
 */
static bool
must_use_password(const UserMapping *user)
{
	ListCell   *lc;

	if (superuser_arg(user->userid))
		return false;
	foreach(lc, user->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "password_required") == 0)
			return defGetBoolean(def);
	}
	return true;
}

/*
 * A role without superuser must not connect by what belongs to the server's
 * operating system user: fill in the error.
 */
static bool
set_no_password(const char *name, char *detail, char *hint,
				ShardNodeError *error)
{
	set_error(error, ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED,
			  psprintf("password is required for server \"%s\"", name),
			  detail, hint);
	return false;
}

/*
 * Wait for the connection to be made, as long as its parameters say.
 */
static bool
finish_connecting(PGconn *conn, const char *connect_timeout)
{
	int			timeout = connect_timeout == NULL ? 0 : atoi(connect_timeout);
	const char *host = NULL;
	TimestampTz until = 0;

	if (PQstatus(conn) == CONNECTION_BAD)
		return false;
	/* libpq asks to wait like this before it is asked for the first time. */
	for (PostgresPollingStatusType polling = PGRES_POLLING_WRITING;
		 polling != PGRES_POLLING_OK; polling = PQconnectPoll(conn))
	{
		if (polling == PGRES_POLLING_FAILED)
			return false;
		/* The time is for each host. */
		if (timeout > 0 && host != PQhost(conn))
		{
			host = PQhost(conn);
			until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												(int64) Max(timeout, 2) * 1000);
		}
		if (until != 0 && GetCurrentTimestamp() >= until)
			return false;
		wait_for_socket(conn,
						polling == PGRES_POLLING_READING ? WL_SOCKET_READABLE :
						PQstatus(conn) == CONNECTION_STARTED ? WL_SOCKET_CONNECTED :
						WL_SOCKET_WRITEABLE, until);
	}
	return true;
}

/*
 * What notices of a node become: nothing.
 */
static void
ignore_notice(void *arg, const char *message)
{
}

/*
 * shard_is_node
 *		Is it a server of postgres_fdw?
 */
bool
shard_is_node(const ForeignServer *server)
{
	char	   *handler = get_func_name(GetForeignDataWrapper(server->fdwid)->fdwhandler);

	return handler != NULL && strcmp(handler, "postgres_fdw_handler") == 0;
}

/*
 * Connect to a node.  Returns false and fills in *error if that fails.
 */
static bool
connect_to_node(ShardNodeSession *session, ShardNodeError *error)
{
	ForeignServer *server = GetForeignServer(session->server);
	UserMapping *user;
	const char **keywords;
	const char **values;
	const char *value;

	if (!shard_is_node(server))
	{
		set_error(error, ERRCODE_WRONG_OBJECT_TYPE,
				  psprintf("server \"%s\" is not a server of postgres_fdw",
						   session->name), NULL, NULL);
		return false;
	}
	if (!shard_may_use_server(session->server, session->userid))
	{
		set_error(error, ERRCODE_INSUFFICIENT_PRIVILEGE,
				  psprintf("permission denied for foreign server %s",
						   session->name), NULL, NULL);
		return false;
	}
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER,
							   ObjectIdGetDatum(session->userid),
							   ObjectIdGetDatum(session->server)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER,
							   ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(session->server)))
	{
		char	   *role = GetUserNameFromId(session->userid, false);

		set_error(error, ERRCODE_UNDEFINED_OBJECT,
				  psprintf("role \"%s\" has no user mapping for server \"%s\"",
						   role, session->name), NULL,
				  psprintf("Use CREATE USER MAPPING FOR %s SERVER %s.",
						   quote_identifier(role),
						   quote_identifier(session->name)));
		return false;
	}
	user = GetUserMapping(session->userid, session->server);
	get_parameters(server, user, &keywords, &values);
	value = get_parameter(keywords, values, "password");
	if ((value == NULL || *value == '\0') && must_use_password(user))
		return set_no_password(session->name,
							   "Non-superusers must provide a password in the user mapping.",
							   NULL, error);

	if (!AcquireExternalFD())
	{
		set_error(error, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
				  psprintf("could not connect to server \"%s\"", session->name),
				  "There are too many open files on the local server.",
				  "Raise the server's max_files_per_process and/or the operating system's limit.");
		return false;
	}
	session->conn = PQconnectStartParams(keywords, values, 0);
	if (session->conn == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	PQsetNoticeProcessor(session->conn, ignore_notice, NULL);
	if (!finish_connecting(session->conn,
						   get_parameter(keywords, values, "connect_timeout")))
	{
		char	   *reason = pchomp(PQerrorMessage(session->conn));

		set_error(error, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
				  psprintf("could not connect to server \"%s\"", session->name),
				  *reason != '\0' ? reason : "The time of option \"connect_timeout\" is over.",
				  NULL);
		error->is_lost = true;
		disconnect(session);
		return false;
	}
	if (must_use_password(user) && !PQconnectionUsedPassword(session->conn))
	{
		disconnect(session);
		return set_no_password(session->name,
							   "Non-superuser cannot connect if the server does not request a password.",
							   "Target server's authentication method must be changed or password_required=false set in the user mapping attributes.",
							   error);
	}
	return true;
}

/*
 * Fill in what the node has answered to a command that failed.
 */
static void
set_remote_error(const ShardNodeSession *session, const PGresult *result,
				 ShardNodeError *error)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	set_error(error,
			  state ? MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]) :
			  ERRCODE_CONNECTION_FAILURE,
			  psprintf("command on server \"%s\" failed: %s", session->name,
					   message ? message : pchomp(PQresultErrorMessage(result))),
			  detail ? pstrdup(detail) : NULL, hint ? pstrdup(hint) : NULL);
}

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
			wait_for_socket(session->conn, WL_SOCKET_READABLE, 0);
			if (!PQconsumeInput(session->conn))
				return set_lost(session, error);
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
				set_error(error, ERRCODE_FEATURE_NOT_SUPPORTED,
						  psprintf("cannot copy rows from or to the client on server \"%s\"",
								   session->name), NULL, NULL);
				disconnect(session);
				return false;
			default:
				break;
		}
	}
	if (PQstatus(session->conn) == CONNECTION_BAD)
		return set_lost(session, error);
	if (session->result != NULL &&
		PQresultStatus(session->result) == PGRES_FATAL_ERROR)
	{
		set_remote_error(session, session->result, error);
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
		return set_lost(session, error);
	PQclear(session->result);
	session->result = NULL;
	if (!PQsendQuery(session->conn, sql))
		return set_lost(session, error);
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
				 "BEGIN READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp" :
				 "BEGIN; SET LOCAL search_path = pg_catalog, pg_temp", error))
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
		(void) set_lost(session, error);
		return NULL;
	}
	/* An error may have left it half made. */
	if (session->conn != NULL && session->depth == 0)
		disconnect(session);
	if (session->conn == NULL &&
		(!connect_to_node(session, error) || !catch_up(session, error)))
		return NULL;
	return session;
}

/*
 * shard_node_note_change
 *		What is done there is to be committed with the local transaction.
 */
void
shard_node_note_change(ShardNodeSession *session)
{
	if (!session->has_changed)
		session->level = GetCurrentTransactionNestLevel();
	session->has_changed = true;
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
		set_error(error, ERRCODE_INVALID_TRANSACTION_TERMINATION,
				  psprintf("cannot begin or end transactions on server \"%s\"",
						   session->name), NULL, NULL);
		disconnect(session);
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

		if (session->has_changed)
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
		if (session->conn == NULL)
			(void) set_lost(session, &error);
		else if (undo(session, &error) &&
				 (list_length(sessions) == 1 || run(session, "", &error)))
			continue;
		shard_node_raise(&error, NULL);
	}
	for (int i = 0; i < list_length(sessions) && nchanged > 0; i++)
	{
		ShardNodeSession *session = list_nth(sessions, i);
		char	   *committed;

		if (!session->has_changed)
			continue;
		if (run(session, "COMMIT", &error))
		{
			/* A transaction that has failed would be rolled back. */
			if (strcmp(PQcmdStatus(session->result), "COMMIT") == 0)
				continue;
			set_error(&error, ERRCODE_TRANSACTION_ROLLBACK,
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
 * Commit on the nodes before the local transaction, and close the connections
 * when it has come to its end.
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
			foreach(lc, sessions)
				disconnect(lfirst(lc));
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
				if (!undo(session, &error) ||
					!run(session, psprintf("RELEASE SAVEPOINT s%d", level),
						 &error))
					shard_node_raise(&error, NULL);
				session->depth = level - 1;
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
				disconnect(session);
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
