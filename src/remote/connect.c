/*-------------------------------------------------------------------------
 *
 * connect.c
 *	  Connecting to a node, waiting for it, and what has gone wrong.
 *
 * Who may connect, and the loops that wait, are as in
 * contrib/postgres_fdw/connection.c.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* How many bytes of a command an error shows, at most. */
#define MAX_SHOWN_COMMAND	1000

/*
 * shard_node_disconnect
 *		Close a connection.  Allocates nothing, and waits for nobody.
 */
void
shard_node_disconnect(ShardNodeSession *session)
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
 * shard_node_set_error
 *		Fill in what went wrong.  The texts are not copied.
 */
void
shard_node_set_error(ShardNodeError *error, int sqlstate, char *message, char *detail,
					 char *hint)
{
	error->sqlstate = sqlstate;
	error->message = message;
	error->detail = detail;
	error->hint = hint;
	error->is_lost = false;
}

/*
 * shard_node_set_lost
 *		The connection is lost: close it, and fill in *error.  Returns false.
 */
bool
shard_node_set_lost(ShardNodeSession *session, ShardNodeError *error)
{
	shard_node_set_error(error, ERRCODE_CONNECTION_FAILURE,
						 psprintf("connection to server \"%s\" was lost", session->name),
						 session->conn == NULL ? NULL :
						 pchomp(PQerrorMessage(session->conn)), NULL);
	error->is_lost = true;
	shard_node_disconnect(session);
	return false;
}

/*
 * shard_node_raise
 *		Raise such an error.  "sql" is the command that failed, or NULL.
 */
void
shard_node_raise(const ShardNodeError *error, const char *sql)
{
	int			length = sql == NULL ? 0 : strlen(sql);
	int			shown = Min(length, MAX_SHOWN_COMMAND);

	if (shown < length)
		shown = pg_mbcliplen(sql, length, shown);
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 sql ? errcontext("remote SQL command: %.*s%s", shown, sql,
							  shown < length ? "..." : "") : 0));
}

/*
 * shard_node_wait
 *		Wait until something can be read or written, or until some time, if not
 *		0.  "events" are WL_SOCKET_READABLE and others.
 */
void
shard_node_wait(PGconn *conn, int events, TimestampTz until)
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
	shard_node_set_error(error, ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED,
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
		shard_node_wait(conn,
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
 * shard_node_open
 *		Connect to the node of a session.  Returns false and fills in *error if
 *		that fails.
 */
bool
shard_node_open(ShardNodeSession *session, ShardNodeError *error)
{
	ForeignServer *server = GetForeignServer(session->server);
	UserMapping *user;
	const char **keywords;
	const char **values;
	const char *value;

	if (!shard_is_node(session->server))
	{
		shard_node_set_error(error, ERRCODE_WRONG_OBJECT_TYPE,
							 psprintf("server \"%s\" is not a server of postgres_fdw",
									  session->name), NULL, NULL);
		return false;
	}
	if (!shard_may_use_server(session->server, session->userid))
	{
		shard_node_set_error(error, ERRCODE_INSUFFICIENT_PRIVILEGE,
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

		shard_node_set_error(error, ERRCODE_UNDEFINED_OBJECT,
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
		shard_node_set_error(error, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
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

		shard_node_set_error(error, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 psprintf("could not connect to server \"%s\"", session->name),
							 *reason != '\0' ? reason : "The time of option \"connect_timeout\" is over.",
							 NULL);
		error->is_lost = true;
		shard_node_disconnect(session);
		return false;
	}
	if (must_use_password(user) && !PQconnectionUsedPassword(session->conn))
	{
		shard_node_disconnect(session);
		return set_no_password(session->name,
							   "Non-superuser cannot connect if the server does not request a password.",
							   "Target server's authentication method must be changed or password_required=false set in the user mapping attributes.",
							   error);
	}
	return true;
}

/*
 * shard_node_set_remote_error
 *		Fill in what the node has answered to a command that failed, in the
 *		current memory context.
 */
void
shard_node_set_remote_error(const ShardNodeSession *session, const PGresult *result,
							ShardNodeError *error)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	shard_node_set_error(error,
						 state ? MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]) :
						 ERRCODE_CONNECTION_FAILURE,
						 psprintf("command on server \"%s\" failed: %s", session->name,
								  message ? message : pchomp(PQresultErrorMessage(result))),
						 detail ? pstrdup(detail) : NULL, hint ? pstrdup(hint) : NULL);
}
