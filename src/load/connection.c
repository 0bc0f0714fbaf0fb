/*-------------------------------------------------------------------------
 *
 * connection.c
 *	  One connection: connecting, sending a command and its rows.
 *
 * Nothing here waits but connection_first() and query(), which are for the
 * time before and after the main loop.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <poll.h>

#include "common/string.h"

/* What is handed to libpq at once, and so the most that it has to keep. */
#define SLICE (64 * 1024)

#define NPARAMS 7

static void
set_params(const LoadOptions *options, const char *password, const char **keywords, const char **values)
{
	int			i = 0;

	keywords[i] = "host";
	values[i++] = options->host;
	keywords[i] = "port";
	values[i++] = options->port;
	keywords[i] = "user";
	values[i++] = options->user;
	keywords[i] = "password";
	values[i++] = password;
	/* This may be a connection string. */
	keywords[i] = "dbname";
	values[i++] = options->dbname;
	keywords[i] = "fallback_application_name";
	values[i++] = "shard_load";
	keywords[i] = NULL;
	values[i] = NULL;
}

static void
print_notice(void *arg, const char *message)
{
	/* By way of the log, which knows what is on the line. */
	pg_log_info("%.*s", (int) strcspn(message, "\n"), message);
}

/* What the user has typed; connections after the first use it. */
static char *password = NULL;

/*
 * Connect and wait for it, asking for a password if one is needed.  Exits if
 * that fails.
 */
PGconn *
connection_first(LoadOptions *options)
{
	const char *keywords[NPARAMS];
	const char *values[NPARAMS];

	if (options->prompt == PROMPT_ALWAYS && password == NULL)
		password = simple_prompt("Password: ", false);
	for (;;)
	{
		PGconn	   *conn;

		set_params(options, password, keywords, values);
		conn = PQconnectdbParams(keywords, values, true);
		if (conn == NULL)
			pg_fatal("out of memory");
		if (PQstatus(conn) == CONNECTION_OK)
			return conn;
		if (!PQconnectionNeedsPassword(conn) || password != NULL || options->prompt == PROMPT_NEVER)
		{
			pg_log_error("%s", PQerrorMessage(conn));
			exit(EXIT_LOST_CONNECTION);
		}
		PQfinish(conn);
		password = simple_prompt("Password: ", false);
	}
}

/*
 * Make a connection of one that is established.
 */
void
connection_adopt(Connection *connection, PGconn *conn)
{
	connection->conn = conn;
	connection->state = CONN_FREE;
	PQsetnonblocking(conn, 1);
	PQsetNoticeProcessor(conn, print_notice, NULL);
}

/*
 * Begin to connect; connection_advance() does the rest.
 */
void
connection_start(Connection *connection, const LoadOptions *options)
{
	const char *keywords[NPARAMS];
	const char *values[NPARAMS];

	set_params(options, password, keywords, values);
	outcome_reset(&connection->outcome);
	connection->conn = PQconnectStartParams(keywords, values, true);
	if (connection->conn == NULL)
		pg_fatal("out of memory");
	connection->state = CONN_CONNECTING;
	connection->polling = PGRES_POLLING_WRITING;
}

void
connection_close(Connection *connection)
{
	PQfinish(connection->conn);
	connection->conn = NULL;
	connection->state = CONN_CLOSED;
}

/*
 * Free what an outcome has, and begin a new one.
 */
void
outcome_reset(Outcome *outcome)
{
	pg_free(outcome->message);
	pg_free(outcome->detail);
	pg_free(outcome->hint);
	pg_free(outcome->context);
	memset(outcome, 0, sizeof(*outcome));
	outcome->ok = true;
	outcome->inserted = -1;
}

/*
 * Move an outcome to memory of its own.
 */
Outcome *
outcome_take(Outcome *outcome)
{
	Outcome    *copy = pg_malloc(sizeof(Outcome));

	*copy = *outcome;
	memset(outcome, 0, sizeof(*outcome));
	return copy;
}

static char *
error_field(const PGresult *result, int field)
{
	const char *value = PQresultErrorField(result, field);

	return pg_strdup(value ? value : "");
}

static char *
without_newline(const char *message)
{
	char	   *copy = pg_strdup(message);
	size_t		length = strlen(copy);

	while (length > 0 && copy[length - 1] == '\n')
		copy[--length] = '\0';
	return copy;
}

static void
note_error(Outcome *outcome, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	/* The first one is the cause of others. */
	if (!outcome->ok)
		return;
	outcome->ok = false;
	strlcpy(outcome->sqlstate, sqlstate ? sqlstate : "", sizeof(outcome->sqlstate));
	outcome->message = without_newline(message ? message : PQresultErrorMessage(result));
	outcome->detail = error_field(result, PG_DIAG_MESSAGE_DETAIL);
	outcome->hint = error_field(result, PG_DIAG_MESSAGE_HINT);
	outcome->context = error_field(result, PG_DIAG_CONTEXT);
}

static void
note_loss(Connection *connection)
{
	Outcome    *outcome = &connection->outcome;

	if (outcome->ok)
	{
		outcome->ok = false;
		outcome->message = without_newline(PQerrorMessage(connection->conn));
	}
	outcome->lost = true;
	outcome->sent_all = connection->segment < 0;
}

/*
 * Is it not the fault of what was sent, and may be over by the next time?
 */
bool
outcome_is_passing(const Outcome *outcome)
{
	return strcmp(outcome->sqlstate, "40001") == 0 || strcmp(outcome->sqlstate, "40P01") == 0;
}

/*
 * Is the error about the rows that were sent, or could it come with any row?
 */
bool
outcome_is_about_row(const Outcome *outcome)
{
	static const char *const others[] = {"08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "HV", "XX"};

	if (outcome->lost || outcome->sqlstate[0] == '\0')
		return false;
	/* A row-level security policy; who may not insert learns it earlier. */
	if (strcmp(outcome->sqlstate, "42501") == 0)
		return true;
	for (int i = 0; i < lengthof(others); i++)
	{
		if (strncmp(outcome->sqlstate, others[i], 2) == 0)
			return false;
	}
	return true;
}

/*
 * Send a command, and the segments when the server asks for rows.  The memory
 * of the segments must stay until the command is done.
 */
void
connection_run(Connection *connection, const char *sql, const Segment *segments, int nsegments)
{
	Assert(connection->state == CONN_FREE && nsegments <= lengthof(connection->segments));
	outcome_reset(&connection->outcome);
	memset(connection->segments, 0, sizeof(connection->segments));
	if (nsegments > 0)
		memcpy(connection->segments, segments, nsegments * sizeof(Segment));
	/* A command without rows is all sent from the beginning. */
	connection->segment = nsegments > 0 ? 0 : -1;
	connection->sent = 0;
	connection->copying = false;
	connection->canceling = false;
	connection->state = CONN_RUNNING;
	/* If this fails, so does what connection_advance() tries first. */
	(void) PQsendQuery(connection->conn, sql);
	connection->wants_write = true;
}

/*
 * Have the server give up what it does.  The outcome comes as always.
 */
void
connection_cancel(Connection *connection)
{
	PGcancel   *cancel;
	char		message[256];

	if (connection->state != CONN_RUNNING)
		return;
	connection->canceling = true;
	connection->wants_write = true;
	cancel = PQgetCancel(connection->conn);
	if (cancel)
		(void) PQcancel(cancel, message, sizeof(message));
	PQfreeCancel(cancel);
}

/*
 * What poll() is to wait for.
 */
short
connection_events(const Connection *connection)
{
	switch (connection->state)
	{
		case CONN_CONNECTING:
			return connection->polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
		case CONN_RUNNING:
			return connection->wants_write ? POLLIN | POLLOUT : POLLIN;
		default:
			/* An end of the connection is seen when it is used. */
			return 0;
	}
}

/*
 * Hand libpq the next slice, or the end of the rows.  False: it is lost.
 */
static bool
send_slice(Connection *connection)
{
	Segment    *segment = &connection->segments[Max(connection->segment, 0)];
	size_t		size;
	int			result;

	while (!connection->canceling && connection->sent == segment->size &&
		   connection->segment < (int) lengthof(connection->segments) - 1)
	{
		connection->segment++;
		connection->sent = 0;
		segment++;
	}
	if (connection->canceling || connection->sent == segment->size)
	{
		result = PQputCopyEnd(connection->conn, connection->canceling ? "canceled by user" : NULL);
		if (result > 0)
		{
			connection->copying = false;
			connection->segment = -1;
		}
		return result >= 0;
	}
	size = Min(segment->size - connection->sent, SLICE);
	result = PQputCopyData(connection->conn, segment->data + connection->sent, (int) size);
	if (result > 0)
		connection->sent += size;
	return result >= 0;
}

/*
 * Send what can be sent without waiting.  False: it is lost.
 */
static bool
send_some(Connection *connection)
{
	for (;;)
	{
		int			result = PQflush(connection->conn);

		connection->wants_write = result > 0;
		if (result != 0)
			return result > 0;
		if (!connection->copying)
			return true;
		if (!send_slice(connection))
			return false;
	}
}

/*
 * Take the results that have arrived.  True when the command is done.
 */
static bool
take_results(Connection *connection)
{
	Outcome    *outcome = &connection->outcome;

	while (!connection->copying && !PQisBusy(connection->conn))
	{
		PGresult   *result = PQgetResult(connection->conn);

		if (result == NULL)
			return true;
		switch (PQresultStatus(result))
		{
			case PGRES_COPY_IN:
				connection->copying = true;
				connection->wants_write = true;
				break;
			case PGRES_COMMAND_OK:
				if (strncmp(PQcmdStatus(result), "COPY ", 5) == 0)
					outcome->copied += strtoll(PQcmdTuples(result), NULL, 10);
				else if (strncmp(PQcmdStatus(result), "INSERT ", 7) == 0 && outcome->inserted < 0)
					outcome->inserted = strtoll(PQcmdTuples(result), NULL, 10);
				break;
			case PGRES_TUPLES_OK:
				outcome->found = PQntuples(result) > 0;
				break;
			default:
				note_error(outcome, result);
				break;
		}
		PQclear(result);
	}
	return false;
}

static bool
advance_connecting(Connection *connection)
{
	connection->polling = PQconnectPoll(connection->conn);
	if (connection->polling == PGRES_POLLING_OK)
	{
		connection_adopt(connection, connection->conn);
		return true;
	}
	if (connection->polling == PGRES_POLLING_FAILED)
	{
		note_loss(connection);
		return true;
	}
	return false;
}

/*
 * Go on, after poll() has seen these events.  True when it has come to an end,
 * and the outcome says to which; a lost connection is then to be closed.
 */
bool
connection_advance(Connection *connection, short events)
{
	PGconn	   *conn = connection->conn;
	bool		lost = false;
	bool		done;

	if (events == 0)
		return false;
	if (connection->state == CONN_CONNECTING)
		return advance_connecting(connection);

	if ((events & ~POLLOUT) && PQconsumeInput(conn) == 0)
		lost = true;
	if (!lost && connection->wants_write && !send_some(connection))
	{
		/* The server may have said why it is gone. */
		(void) PQconsumeInput(conn);
		lost = true;
	}
	if (lost)
		connection->copying = false;
	/* An error that came during COPY is with libpq until the end of COPY. */
	done = take_results(connection);
	if (lost || PQstatus(conn) == CONNECTION_BAD)
	{
		note_loss(connection);
		return true;
	}
	if (done)
		connection->state = CONN_FREE;
	return done;
}

/*
 * Run a query and wait for its result, which the caller frees.  Exits if it
 * fails.
 */
PGresult *
query(PGconn *conn, const char *sql, int nparams, const char *const *params)
{
	PGresult   *result = PQexecParams(conn, sql, nparams, NULL, params, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		pg_log_error("%s", PQerrorMessage(conn));
		exit(PQstatus(conn) == CONNECTION_BAD ? EXIT_LOST_CONNECTION : EXIT_SERVER_ERROR);
	}
	return result;
}

void
append_identifier(PQExpBuffer buffer, PGconn *conn, const char *name)
{
	char	   *quoted = PQescapeIdentifier(conn, name, strlen(name));

	if (quoted == NULL)
		pg_fatal("%s", PQerrorMessage(conn));
	appendPQExpBufferStr(buffer, quoted);
	PQfreemem(quoted);
}

void
append_literal(PQExpBuffer buffer, PGconn *conn, const char *value)
{
	char	   *quoted = PQescapeLiteral(conn, value, strlen(value));

	if (quoted == NULL)
		pg_fatal("%s", PQerrorMessage(conn));
	appendPQExpBufferStr(buffer, quoted);
	PQfreemem(quoted);
}
