/*-------------------------------------------------------------------------
 *
 * target.c
 *	  The table, and the commands that load rows into it.
 *
 * Rows go straight into the table by COPY.  With --on-conflict, COPY fills a
 * temporary table of the session, and INSERT ... SELECT ... ON CONFLICT takes
 * the rows from there, in the same transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#define TEMPORARY "shard_load_rows"

/*
 * The names in a list, one after the other: "next" is moved past a name.  As in
 * SQL, a name without double quotes is in lower case.  Gives NULL at the end.
 */
char *
next_name(const char **next, const char *option)
{
	const char *at = *next + strspn(*next, " \t");
	char	   *name;
	char	   *to;

	if (*at == '\0')
		return NULL;
	name = to = pg_malloc(strlen(at) + 1);
	if (*at == '"')
	{
		for (at++; *at && (*at != '"' || at[1] == '"'); at++)
		{
			*to++ = *at;
			at += (*at == '"');
		}
		if (*at == '\0')
			pg_fatal("unterminated quote in argument of %s", option);
		at++;
	}
	else
	{
		for (; *at && strchr(", \t\"", *at) == NULL; at++)
			*to++ = pg_tolower((unsigned char) *at);
	}
	*to = '\0';
	at += strspn(at, " \t");
	if (to == name || (*at != '\0' && *at != ',') || (*at == ',' && at[1] == '\0'))
		pg_fatal("invalid list of columns \"%s\" in argument of %s", *next, option);
	*next = *at ? at + 1 : at;
	return name;
}

static void
append_names(PQExpBuffer sql, PGconn *conn, const char *list, const char *option)
{
	const char *separator = "";
	char	   *name;

	while ((name = next_name(&list, option)) != NULL)
	{
		appendPQExpBufferStr(sql, separator);
		append_identifier(sql, conn, name);
		separator = ", ";
		pg_free(name);
	}
}

static void
append_option(PQExpBuffer sql, PGconn *conn, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendPQExpBuffer(sql, ", %s ", name);
	append_literal(sql, conn, value);
}

static void
append_list_option(PQExpBuffer sql, PGconn *conn, const char *name, const char *list, const char *option)
{
	if (list == NULL)
		return;
	appendPQExpBuffer(sql, ", %s (", name);
	append_names(sql, conn, list, option);
	appendPQExpBufferChar(sql, ')');
}

static char *
copy_command(PGconn *conn, const LoadOptions *options, const char *table, const char *columns, const char *header)
{
	static const char *const formats[] = {"text", "csv", "binary"};
	PQExpBufferData sql;

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "COPY %s%s FROM STDIN (FORMAT %s%s", table, columns, formats[options->format], header);
	append_option(&sql, conn, "DELIMITER", options->delimiter);
	append_option(&sql, conn, "NULL", options->null_string);
	append_option(&sql, conn, "QUOTE", options->quote);
	append_option(&sql, conn, "ESCAPE", options->escape);
	append_option(&sql, conn, "ENCODING", options->encoding);
	append_list_option(&sql, conn, "FORCE_NULL", options->force_null, "--force-null");
	append_list_option(&sql, conn, "FORCE_NOT_NULL", options->force_not_null, "--force-not-null");
	appendPQExpBufferChar(&sql, ')');
	return sql.data;
}

/*
 * The result of a query as a list of columns, as --columns has it, or NULL.
 */
static char *
query_names(PGconn *conn, const char *sql, const char *table)
{
	PGresult   *result = query(conn, sql, 1, &table);
	PQExpBufferData list;

	if (PQntuples(result) == 0)
	{
		PQclear(result);
		return NULL;
	}
	initPQExpBuffer(&list);
	for (int i = 0; i < PQntuples(result); i++)
	{
		if (i > 0)
			appendPQExpBufferChar(&list, ',');
		append_identifier(&list, conn, PQgetvalue(result, i, 0));
	}
	PQclear(result);
	return list.data;
}

/*
 * The columns that a conflict is about: of the table's primary key, or of that
 * of the first shard.
 */
static const char *
find_key(PGconn *conn, const Target *target)
{
	PQExpBufferData sql;
	char	   *key;

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql,
					  "SELECT a.attname FROM pg_catalog.pg_index i, pg_catalog.generate_series(0, i.indnkeyatts - 1) n,"
					  " pg_catalog.pg_attribute a WHERE i.indisprimary AND a.attrelid = i.indrelid"
					  " AND a.attnum = i.indkey[n] AND i.indrelid = %s ORDER BY n",
					  target->is_logical ?
					  "(SELECT shard FROM shard_fdw.list_shards($1::pg_catalog.regclass) ORDER BY ordinal LIMIT 1)" :
					  "$1::pg_catalog.regclass");
	key = query_names(conn, sql.data, target->qualified);
	termPQExpBuffer(&sql);
	if (key == NULL)
	{
		pg_log_error("table %s has no primary key", target->qualified);
		pg_log_error_hint("Name the columns of a unique index with --conflict-key.");
		exit(EXIT_OWN_ERROR);
	}
	return key;
}

/*
 * Where a name is in a list, from 0 on; -1 if it is not there.
 */
int
name_position(const char *list, const char *name, const char *option)
{
	char	   *other;

	for (int i = 0; (other = next_name(&list, option)) != NULL; i++)
	{
		bool		same = strcmp(other, name) == 0;

		pg_free(other);
		if (same)
			return i;
	}
	return -1;
}

/*
 * What DO UPDATE does with the columns that are not of the key.
 */
static void
append_assignments(PQExpBuffer sql, PGconn *conn, const char *columns, const char *key)
{
	const char *separator = " DO UPDATE SET ";
	char	   *name;

	while ((name = next_name(&columns, "--columns")) != NULL)
	{
		if (name_position(key, name, "--conflict-key") < 0)
		{
			appendPQExpBufferStr(sql, separator);
			append_identifier(sql, conn, name);
			appendPQExpBufferStr(sql, " = EXCLUDED.");
			append_identifier(sql, conn, name);
			separator = ", ";
		}
		pg_free(name);
	}
	if (separator[0] == ' ')
		appendPQExpBufferStr(sql, " DO NOTHING");
}

/*
 * Of rows with the same key, the last one counts.  A key with a null is like
 * no other.
 */
static void
append_distinct(PQExpBuffer sql, PGconn *conn, const char *key)
{
	PQExpBufferData list;
	const char *next = key;
	const char *separator = ", CASE WHEN ";
	char	   *name;

	initPQExpBuffer(&list);
	append_names(&list, conn, key, "--conflict-key");
	while ((name = next_name(&next, "--conflict-key")) != NULL)
	{
		appendPQExpBufferStr(&list, separator);
		append_identifier(&list, conn, name);
		appendPQExpBufferStr(&list, " IS NULL");
		separator = " OR ";
		pg_free(name);
	}
	appendPQExpBufferStr(&list, " THEN ctid END");
	appendPQExpBuffer(sql, "SELECT DISTINCT ON (%s) * FROM pg_temp." TEMPORARY " ORDER BY %s, ctid DESC",
					  list.data, list.data);
	termPQExpBuffer(&list);
}

/*
 * Have the rows go through a temporary table.
 */
static void
go_by_way_of_temporary(PGconn *conn, const LoadOptions *options, Target *target)
{
	PQExpBufferData names;
	PQExpBufferData sql;
	const char *columns = options->columns;
	const char *key = options->conflict_key;

	if (columns == NULL)
		columns = query_names(conn,
							  "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = $1::pg_catalog.regclass"
							  " AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
							  target->qualified);
	if (columns == NULL)
		pg_fatal("table %s has no columns", target->qualified);
	if (key == NULL && options->conflict == CONFLICT_UPDATE)
		key = find_key(conn, target);
	initPQExpBuffer(&names);
	append_names(&names, conn, columns, "--columns");

	initPQExpBuffer(&sql);
	/* The first use of a logical table has the library see later commands. */
	if (target->is_logical)
		appendPQExpBufferStr(&sql, "SELECT shard_fdw.last_shard(); ");
	appendPQExpBuffer(&sql, "CREATE TEMPORARY TABLE " TEMPORARY " ON COMMIT DELETE ROWS AS SELECT %s FROM %s WITH NO DATA",
					  names.data, target->qualified);
	target->session = sql.data;
	target->clear = "TRUNCATE pg_temp." TEMPORARY "; ";

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "; INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM ",
					  target->qualified, names.data, names.data);
	if (options->conflict == CONFLICT_UPDATE)
	{
		appendPQExpBufferChar(&sql, '(');
		append_distinct(&sql, conn, key);
		appendPQExpBufferStr(&sql, ") AS rows");
	}
	else
		appendPQExpBufferStr(&sql, "pg_temp." TEMPORARY " AS rows");
	appendPQExpBufferStr(&sql, " ON CONFLICT");
	if (key)
	{
		appendPQExpBufferStr(&sql, " (");
		append_names(&sql, conn, key, "--conflict-key");
		appendPQExpBufferChar(&sql, ')');
	}
	if (options->conflict == CONFLICT_UPDATE)
		append_assignments(&sql, conn, columns, key);
	else
		appendPQExpBufferStr(&sql, " DO NOTHING");
	target->insert = sql.data;
	target->copied_into = TEMPORARY;
	termPQExpBuffer(&names);
}

/*
 * Look the table up, and make the commands for it.  Exits with a message if it
 * is not there.
 */
Target *
target_look_up(PGconn *conn, const LoadOptions *options)
{
	Target	   *target = pg_malloc0(sizeof(Target));
	PGresult   *result;
	PQExpBufferData sql;
	const char *into;

	result = query(conn,
				   "SELECT n.nspname, c.relname, coalesce(w.fdwname = 'shard_fdw', false) FROM pg_catalog.pg_class c"
				   " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
				   " LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid"
				   " LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver"
				   " LEFT JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
				   " WHERE c.oid = pg_catalog.to_regclass($1)",
				   1, &options->table);
	if (PQntuples(result) == 0)
	{
		pg_log_error("table \"%s\" does not exist", options->table);
		exit(EXIT_SERVER_ERROR);
	}
	target->schema = pg_strdup(PQgetvalue(result, 0, 0));
	target->name = pg_strdup(PQgetvalue(result, 0, 1));
	target->is_logical = PQgetvalue(result, 0, 2)[0] == 't';
	PQclear(result);

	initPQExpBuffer(&sql);
	append_identifier(&sql, conn, target->schema);
	appendPQExpBufferChar(&sql, '.');
	append_identifier(&sql, conn, target->name);
	target->qualified = sql.data;

	initPQExpBuffer(&sql);
	if (options->columns)
	{
		appendPQExpBufferStr(&sql, " (");
		append_names(&sql, conn, options->columns, "--columns");
		appendPQExpBufferChar(&sql, ')');
	}
	target->columns = sql.data;

	if (target->is_logical)
	{
		const char *table = target->qualified;

		result = query(conn,
					   "SELECT count(*) FROM shard_fdw.list_shards($1::pg_catalog.regclass) WHERE state = 'open'",
					   1, &table);
		target->open_shards = atoi(PQgetvalue(result, 0, 0));
		PQclear(result);
	}

	target->copied_into = target->name;
	target->clear = target->insert = "";
	into = target->qualified;
	if (options->conflict != CONFLICT_ERROR)
	{
		go_by_way_of_temporary(conn, options, target);
		into = "pg_temp." TEMPORARY;
	}
	target->copy = copy_command(conn, options, into, target->columns, "");
	target->copy_match = copy_command(conn, options, into, target->columns, ", HEADER match");
	return target;
}

static void
exit_after_probe(PGconn *conn, const Input *input, const PGresult *result)
{
	if (input)
		pg_log_error("file \"%s\": %s", input->name, PQresultErrorMessage(result));
	else
		pg_log_error("%s", PQresultErrorMessage(result));
	exit(PQstatus(conn) == CONNECTION_BAD ? EXIT_LOST_CONNECTION : EXIT_SERVER_ERROR);
}

/*
 * Load a file's header and no rows, in a transaction that is rolled back.
 */
static void
probe_copy(PGconn *conn, const Target *target, const char *copy, const Input *input,
		   const char *data, size_t size)
{
	PQExpBufferData sql;
	PGresult   *result;

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "BEGIN; %s%s", copy, target->insert);
	result = PQexec(conn, sql.data);
	termPQExpBuffer(&sql);
	if (PQresultStatus(result) == PGRES_COPY_IN)
	{
		PQclear(result);
		(void) PQputCopyData(conn, data, (int) size);
		(void) PQputCopyEnd(conn, NULL);
		while ((result = PQgetResult(conn)) != NULL)
		{
			if (PQresultStatus(result) == PGRES_FATAL_ERROR)
				exit_after_probe(conn, input, result);
			PQclear(result);
		}
	}
	else
		exit_after_probe(conn, NULL, result);
	PQclear(query(conn, "ROLLBACK", 0, NULL));
}

/*
 * See whether rows could be loaded, before any is read: do the table take
 * rows and the server the options, have the files the right headers?  Exits if
 * not.  The session then is ready to load rows.
 */
void
target_probe(PGconn *conn, const Target *target, const Reader *reader)
{
	const LoadOptions *options = reader->options;

	if (target->session)
	{
		PGresult   *result = PQexec(conn, target->session);

		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			exit_after_probe(conn, NULL, result);
		PQclear(result);
	}
	if (options->format == FORMAT_BINARY)
		probe_copy(conn, target, target->copy, NULL, BINARY_HEADER BINARY_TRAILER, BINARY_HEADER_SIZE + BINARY_TRAILER_SIZE);
	else
		probe_copy(conn, target, target->copy, NULL, "", 0);
	for (int i = 0; options->header == HEADER_MATCH && i < reader->ninputs; i++)
	{
		const Input *input = reader->inputs[i];

		if (input->header_lines == 0)
			pg_fatal("file \"%s\" has no header line", input->name);
		probe_copy(conn, target, target->copy_match, input, input->prefix + input->header_start,
				   input->prefix_size - input->header_start);
	}
}

/*
 * Where the context of a server's error has the number of a line, or NULL.
 */
static const char *
find_line(const Target *target, const char *context)
{
	size_t		length = strlen(target->copied_into);

	while (context && *context)
	{
		/* Other languages have other words, and mostly the same order. */
		if (strncmp(context, "COPY ", 5) == 0 && strncmp(context + 5, target->copied_into, length) == 0)
		{
			context += 5 + length;
			context += strcspn(context, "0123456789\n");
			return isdigit((unsigned char) *context) ? context : NULL;
		}
		context = strchr(context, '\n');
		if (context)
			context++;
	}
	return NULL;
}

/*
 * The line that the context of a server's error names, or -1.
 */
int64
target_error_line(const Target *target, const char *context)
{
	const char *line = find_line(target, context);

	return line ? strtoll(line, NULL, 10) : -1;
}

/*
 * The context with the line of the file in place of that of COPY, which has got
 * only a part of the file.  The caller frees it.
 */
char *
target_fix_context(const Target *target, const char *context, int64 line)
{
	const char *number = find_line(target, context);

	if (number == NULL)
		return pg_strdup(context ? context : "");
	return psprintf("%.*s" INT64_FORMAT "%s", (int) (number - context), context, line,
					number + strspn(number, "0123456789"));
}
