/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  Rows of whole shards on their way to a node, from one, or from one to
 *	  another.
 *
 * They go by COPY over connections of our own, as text, with settings on both
 * sides under which a value is read as what was written.  Memory holds some
 * rows at a time.
 *
 * A node's table is filled with FREEZE in the transaction that has created it.
 * postgres_fdw keeps a node's first snapshot until the end of a transaction.  So
 * a session that has used the node before, and then finds that a shard is there,
 * would otherwise see none of its rows.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/copy.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* Bytes that are sent at once. */
#define BLOCK_SIZE	65536

/* Rows between two reports of progress. */
#define ROWS_PER_REPORT	10000

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

/* What a node says of a table that cannot be moved from it, and why. */
static const struct
{
	const char *condition;		/* about pg_class c */
	const char *detail;
}			obstacles[] = {
	{"c.relkind <> 'r'", "It is not an ordinary table there."},
	{"EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid)",
	"Its table there inherits from another one, or has inheritance children."},
	{"c.relrowsecurity", "Its table there has row-level security."},
	{"EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)",
	"Its table there has triggers."},
	{"EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid)",
	"Its table there has rules."},
	{"EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND c.oid IN (f.conrelid, f.confrelid))",
	"Its table there has foreign keys, or foreign keys point to it."},
	{"EXISTS (SELECT FROM pg_publication_rel p WHERE p.prrelid = c.oid)",
	"Its table there belongs to a publication."},
	{"EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity <> '')",
	"Its table there has an identity column."}
};

/* The rows that CopyFrom() asks for: it has no argument for us. */
static struct
{
	ShardNodeSession *session;
	char	   *row;			/* libpq's, or NULL */
	int			length;
	int			used;
	uint64		nrows;
}			incoming;

/*
 * The connection of this transaction to the server of a foreign table.
 */
static ShardNodeSession *
session_of(Oid shard, Oid userid)
{
	ShardNodeError error;
	ShardNodeSession *session =
		shard_node_session(GetForeignServerIdByRelId(shard), userid, &error);

	if (session == NULL)
		shard_node_raise(&error, NULL);
	return session;
}

/*
 * Have the node run commands.
 */
static const PGresult *
query(ShardNodeSession *session, const char *sql, bool is_change)
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

static void
raise_lost(ShardNodeSession *session)
{
	ShardNodeError error;

	(void) shard_node_set_lost(session, &error);
	shard_node_raise(&error, NULL);
}

/*
 * Have the node write and read texts as we do, wait for locks as long as we
 * would, hide no row, and not forget what it has committed.
 */
static void
prepare(ShardNodeSession *session)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SET LOCAL lock_timeout = %d; SET LOCAL row_security = off",
					 shard_lock_patience());
	for (int i = 0; i < lengthof(text_settings); i++)
		appendStringInfo(&sql, "; SET LOCAL %s = '%s'", text_settings[i][0],
						 text_settings[i][1]);
	appendStringInfoString(&sql, "; SELECT set_config('synchronous_commit', 'on', true)"
						   " WHERE current_setting('synchronous_commit') = 'off'");
	(void) query(session, sql.data, false);
}

/*
 * The same settings here.  Returns what AtEOXact_GUC() has to know.
 */
static int
set_text_settings(void)
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
 * Begin a COPY.
 */
static void
begin_copy(ShardNodeSession *session, const char *sql, ExecStatusType expected)
{
	/* This is where the transaction there is brought to our level. */
	(void) query(session, "", false);
	if (!PQsendQuery(session->conn, sql))
		raise_lost(session);
	(void) check_result(session, next_result(session), expected, sql);
}

/*
 * Take the result of a COPY, and raise an error unless it is about so many rows.
 */
static void
end_copy(ShardNodeSession *session, uint64 nrows)
{
	uint64		there = check_result(session, next_result(session),
									 PGRES_COMMAND_OK, NULL);

	/* That ends the command. */
	PQclear(next_result(session));
	if (there != nrows)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("server \"%s\" has copied another number of rows",
						session->name),
				 errdetail("It was " UINT64_FORMAT " there and " UINT64_FORMAT " here.",
						   there, nrows)));
}

/*
 * Send all that waits to be sent.
 */
static void
flush(ShardNodeSession *session)
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
 * Send data of a COPY.
 */
static void
send_data(ShardNodeSession *session, const char *data, int length)
{
	int			rc;

	while ((rc = PQputCopyData(session->conn, data, length)) == 0)
		flush(session);
	if (rc < 0)
		raise_lost(session);
}

/*
 * The same at its end.
 */
static void
end_sending(ShardNodeSession *session, uint64 nrows)
{
	int			rc;

	while ((rc = PQputCopyEnd(session->conn, NULL)) == 0)
		flush(session);
	if (rc < 0)
		raise_lost(session);
	flush(session);
	(void) PQsetnonblocking(session->conn, 0);
	end_copy(session, nrows);
}

/*
 * Begin to fill the table behind a foreign table.
 */
static void
begin_sending(ShardNodeSession *session, Oid shard, const char *columns)
{
	char	   *sql = psprintf("COPY %s%s FROM STDIN (FREEZE)",
							   shard_node_table_name(shard), columns);

	prepare(session);
	begin_copy(session, sql, PGRES_COPY_IN);
	(void) PQsetnonblocking(session->conn, 1);
}

/*
 * Receive a row of a COPY, which is to be freed with PQfreemem().  Returns its
 * length, or -1 if there is none.
 */
static int
receive_data(ShardNodeSession *session, char **row)
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

/*
 * The columns of a relation that are copied, in parentheses, by the names that
 * they have there; *attnos become their numbers, *names their names here, as
 * COPY takes them.
 */
static char *
columns_of(Relation rel, bool is_foreign, List **attnos, List **names)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (att->attisdropped || att->attgenerated)
			continue;
		appendStringInfo(&buf, "%s%s", buf.len == 0 ? " (" : ", ",
						 quote_identifier(is_foreign ?
										  shard_node_column_name(RelationGetRelid(rel), att->attnum) :
										  NameStr(att->attname)));
		*attnos = lappend_int(*attnos, att->attnum);
		*names = lappend(*names, makeString(pstrdup(NameStr(att->attname))));
	}
	if (buf.len > 0)
		appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * Append a value as COPY's text format has it.
 */
static void
append_value(StringInfo buf, const char *value)
{
	for (; *value != '\0'; value++)
	{
		switch (*value)
		{
			case '\\':
				appendStringInfoString(buf, "\\\\");
				break;
			case '\n':
				appendStringInfoString(buf, "\\n");
				break;
			case '\r':
				appendStringInfoString(buf, "\\r");
				break;
			case '\t':
				appendStringInfoString(buf, "\\t");
				break;
			default:
				appendStringInfoCharMacro(buf, *value);
				break;
		}
	}
}

/*
 * Append a row.
 */
static void
append_row(StringInfo buf, TupleTableSlot *slot, List *attnos,
		   FmgrInfo *functions)
{
	ListCell   *lc;

	slot_getallattrs(slot);
	foreach(lc, attnos)
	{
		int			i = lfirst_int(lc) - 1;

		if (foreach_current_index(lc) > 0)
			appendStringInfoChar(buf, '\t');
		if (slot->tts_isnull[i])
			appendStringInfoString(buf, "\\N");
		else
			append_value(buf, OutputFunctionCall(&functions[foreach_current_index(lc)],
												 slot->tts_values[i]));
	}
	appendStringInfoChar(buf, '\n');
}

/*
 * Send the rows of a table.  Returns their number.
 */
static uint64
send_rows(ShardNodeSession *session, Relation source, List *attnos)
{
	FmgrInfo   *functions = palloc(sizeof(FmgrInfo) * Max(list_length(attnos), 1));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = shard_table_beginscan(source, snapshot);
	TupleTableSlot *slot = table_slot_create(source, NULL);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "row to be sent",
												  ALLOCSET_DEFAULT_SIZES);
	StringInfoData buf;
	uint64		nrows = 0;
	ListCell   *lc;

	foreach(lc, attnos)
	{
		Oid			function;
		bool		is_varlena;

		getTypeOutputInfo(TupleDescAttr(RelationGetDescr(source),
										lfirst_int(lc) - 1)->atttypid,
						  &function, &is_varlena);
		fmgr_info(function, &functions[foreach_current_index(lc)]);
	}
	initStringInfo(&buf);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		append_row(&buf, slot, attnos, functions);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
		if (++nrows % ROWS_PER_REPORT == 0)
			shard_progress_add(ROWS_PER_REPORT);
		if (buf.len < BLOCK_SIZE)
			continue;
		send_data(session, buf.data, buf.len);
		flush(session);
		resetStringInfo(&buf);
	}
	if (buf.len > 0)
		send_data(session, buf.data, buf.len);
	shard_progress_add(nrows % ROWS_PER_REPORT);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(context);
	return nrows;
}

/*
 * shard_node_put_rows
 *		Copy the rows of a table, which is locked, into the table behind a
 *		foreign table, which this transaction has created, by the user mapping
 *		of this role.  Returns their number.
 *
 * The source has the columns of the foreign table.  Raises what
 * shard_node_connect() and the node raise.
 */
uint64
shard_node_put_rows(Oid shard, Oid userid, Relation source)
{
	ShardNodeSession *session = session_of(shard, userid);
	List	   *attnos = NIL;
	List	   *names = NIL;
	char	   *columns = columns_of(source, false, &attnos, &names);
	int			guc_level = set_text_settings();
	uint64		nrows;

	begin_sending(session, shard, columns);
	nrows = send_rows(session, source, attnos);
	end_sending(session, nrows);
	AtEOXact_GUC(false, guc_level);
	return nrows;
}

/*
 * What CopyFrom() reads.
 */
static int
read_incoming(void *outbuf, int minread, int maxread)
{
	int			done = 0;

	while (done < minread)
	{
		int			n;

		if (incoming.row == NULL)
		{
			incoming.length = receive_data(incoming.session, &incoming.row);
			incoming.used = 0;
			if (incoming.length < 0)
				break;
			if (++incoming.nrows % ROWS_PER_REPORT == 0)
				shard_progress_add(ROWS_PER_REPORT);
		}
		n = Min(maxread - done, incoming.length - incoming.used);
		memcpy((char *) outbuf + done, incoming.row + incoming.used, n);
		done += n;
		incoming.used += n;
		if (incoming.used == incoming.length)
		{
			PQfreemem(incoming.row);
			incoming.row = NULL;
		}
	}
	return done;
}

/*
 * The command that reads the table behind a foreign table.
 */
static char *
reading_command(Oid shard, List **names)
{
	Relation	rel = table_open(shard, NoLock);
	List	   *attnos = NIL;
	char	   *columns = columns_of(rel, true, &attnos, names);

	table_close(rel, NoLock);
	return psprintf("COPY %s%s TO STDOUT", shard_node_table_name(shard),
					columns);
}

/*
 * shard_node_get_rows
 *		Copy the rows of the table behind a foreign table, which
 *		shard_node_hold_table() has locked, into a table.  Returns their number.
 *
 * Raises ERRCODE_CHECK_VIOLATION and the like if a row should not be there.
 */
uint64
shard_node_get_rows(Oid shard, Oid userid, Relation target)
{
	ShardNodeSession *session = session_of(shard, userid);
	List	   *names = NIL;
	char	   *sql = reading_command(shard, &names);
	ParseState *pstate = make_parsestate(NULL);
	int			guc_level = set_text_settings();
	CopyFromState copy;
	uint64		nrows;

	begin_copy(session, sql, PGRES_COPY_OUT);
	PQfreemem(incoming.row);
	memset(&incoming, 0, sizeof(incoming));
	incoming.session = session;
	/* The executor wants the very lock that the range table tells of. */
	LockRelation(target, RowExclusiveLock);
	(void) addRangeTableEntryForRelation(pstate, target, RowExclusiveLock,
										 NULL, false, false);
	copy = BeginCopyFrom(pstate, target, NULL, NULL, false, read_incoming, names,
						 list_make1(makeDefElem("encoding",
												(Node *) makeString(pstrdup(GetDatabaseEncodingName())),
												-1)));
	nrows = CopyFrom(copy);
	EndCopyFrom(copy);
	free_parsestate(pstate);
	end_copy(session, nrows);
	shard_progress_add(nrows % ROWS_PER_REPORT);
	AtEOXact_GUC(false, guc_level);
	return nrows;
}

/*
 * shard_node_pass_rows
 *		Copy the rows of the table behind a foreign table, which
 *		shard_node_hold_table() has locked, into that behind another one, which
 *		this transaction has created on another server.  Returns their number.
 */
uint64
shard_node_pass_rows(Oid from, Oid to, Oid userid)
{
	ShardNodeSession *source = session_of(from, userid);
	ShardNodeSession *target = session_of(to, userid);
	List	   *names = NIL;
	List	   *attnos = NIL;
	char	   *sql = reading_command(from, &names);
	Relation	rel = table_open(from, NoLock);
	char	   *columns = columns_of(rel, false, &attnos, &names);
	int			unsent = 0;
	uint64		nrows = 0;
	char	   *row;
	int			length;

	table_close(rel, NoLock);
	begin_copy(source, sql, PGRES_COPY_OUT);
	begin_sending(target, to, columns);
	while ((length = receive_data(source, &row)) >= 0)
	{
		send_data(target, row, length);
		PQfreemem(row);
		unsent += length;
		if (++nrows % ROWS_PER_REPORT == 0)
			shard_progress_add(ROWS_PER_REPORT);
		if (unsent < BLOCK_SIZE)
			continue;
		flush(target);
		unsent = 0;
	}
	end_copy(source, nrows);
	end_sending(target, nrows);
	shard_progress_add(nrows % ROWS_PER_REPORT);
	return nrows;
}

/*
 * Raise an error because the table behind a foreign table cannot be moved away.
 */
static void
report_obstacle(Oid shard, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("shard \"%s\" cannot be moved from server \"%s\"",
					get_rel_name(shard),
					GetForeignServer(GetForeignServerIdByRelId(shard))->servername),
			 errdetail_internal("%s", detail),
			 errhint("Drop on the server what the shard could not keep.")));
}

/*
 * Raise an error if the table on the node has something that would be lost.
 */
static void
check_obstacles(ShardNodeSession *session, Oid shard, const char *table)
{
	Relation	rel = table_open(shard, NoLock);
	StringInfoData sql;
	const PGresult *result;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT CASE");
	for (int i = 0; i < lengthof(obstacles); i++)
		appendStringInfo(&sql, " WHEN %s THEN %d", obstacles[i].condition, i);
	appendStringInfoString(&sql, " END, (SELECT min(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid"
						   " AND a.attnum > 0 AND NOT a.attisdropped AND a.attname NOT IN (''");
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		if (!TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			appendStringInfo(&sql, ", %s",
							 quote_literal_cstr(shard_node_column_name(shard, i + 1)));
	}
	appendStringInfo(&sql, ")) FROM pg_class c WHERE c.oid = to_regclass(%s)",
					 quote_literal_cstr(table));
	table_close(rel, NoLock);

	result = query(session, sql.data, false);
	if (PQntuples(result) != 1)
		report_obstacle(shard, "Its table is missing there.");
	if (!PQgetisnull(result, 0, 0))
		report_obstacle(shard, obstacles[atoi(PQgetvalue(result, 0, 0))].detail);
	if (!PQgetisnull(result, 0, 1))
		report_obstacle(shard,
						psprintf("Its table there has a column \"%s\" that the shard has not.",
								 PQgetvalue(result, 0, 1)));
}

/*
 * shard_node_hold_table
 *		Lock the table behind a foreign table against all that writes it there,
 *		and find out how it is stored: the clause WITH of CREATE TABLE, perhaps
 *		empty.
 *
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if moving its rows elsewhere
 * and dropping it would lose something, and if other commands have changed the
 * node in this transaction.
 */
char *
shard_node_hold_table(Oid shard, Oid userid, bool *is_unlogged)
{
	ShardNodeSession *session = session_of(shard, userid);
	char	   *table = shard_node_table_name(shard);
	const PGresult *result;
	StringInfoData with;

	shard_node_note_late_change(session);
	prepare(session);
	check_obstacles(session, shard, table);
	(void) query(session, psprintf("LOCK TABLE %s IN EXCLUSIVE MODE", table), false);
	check_obstacles(session, shard, table);
	result = query(session,
				   psprintf("SELECT c.relpersistence = 'u', r.prefix,"
							" split_part(r.o, '=', 1), substr(r.o, strpos(r.o, '=') + 1)"
							" FROM pg_class c LEFT JOIN LATERAL"
							" (SELECT '' AS prefix, unnest(c.reloptions) AS o UNION ALL"
							" SELECT 'toast.', unnest(t.reloptions) FROM pg_class t"
							" WHERE t.oid = c.reltoastrelid) r ON true"
							" WHERE c.oid = to_regclass(%s)", quote_literal_cstr(table)),
				   false);
	initStringInfo(&with);
	for (int i = 0; i < PQntuples(result); i++)
	{
		*is_unlogged = *PQgetvalue(result, i, 0) == 't';
		if (!PQgetisnull(result, i, 1))
			appendStringInfo(&with, "%s%s%s = %s",
							 with.len == 0 ? "WITH (" : ", ",
							 strcmp(PQgetvalue(result, i, 1), "toast.") == 0 ? "toast." : "",
							 quote_identifier(PQgetvalue(result, i, 2)),
							 quote_literal_cstr(PQgetvalue(result, i, 3)));
	}
	if (with.len > 0)
		appendStringInfoChar(&with, ')');
	return with.data;
}

/*
 * Raise an error unless what a node says is one command that gives this table an
 * index, or a key or exclusion constraint.
 */
static void
check_index_command(ShardNodeSession *session, const char *target,
					const char *sql)
{
	List	   *commands = raw_parser(sql, RAW_PARSE_DEFAULT);
	Node	   *stmt = list_length(commands) == 1 ?
		linitial_node(RawStmt, commands)->stmt : NULL;
	RangeVar   *table = NULL;

	if (stmt != NULL && IsA(stmt, IndexStmt))
		table = castNode(IndexStmt, stmt)->relation;
	else if (stmt != NULL && IsA(stmt, AlterTableStmt) &&
			 list_length(castNode(AlterTableStmt, stmt)->cmds) == 1)
	{
		AlterTableCmd *cmd = linitial_node(AlterTableCmd,
										   castNode(AlterTableStmt, stmt)->cmds);
		ConstrType	type = cmd->subtype != AT_AddConstraint ? CONSTR_CHECK :
			castNode(Constraint, cmd->def)->contype;

		if (type == CONSTR_PRIMARY || type == CONSTR_UNIQUE ||
			type == CONSTR_EXCLUSION)
			table = castNode(AlterTableStmt, stmt)->relation;
	}
	if (table != NULL && table->schemaname != NULL &&
		strcmp(quote_qualified_identifier(table->schemaname, table->relname),
			   target) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("unexpected definition of an index on server \"%s\"",
					session->name),
			 errdetail("It is: %s", sql)));
}

/*
 * shard_node_index_commands
 *		The commands that give a table, whose name is "target", the indexes of
 *		the table behind a foreign table: a list of texts.
 *
 * Raises ERRCODE_FDW_ERROR if the node says something else.
 */
List *
shard_node_index_commands(Oid shard, Oid userid, const char *target)
{
	ShardNodeSession *session = session_of(shard, userid);
	const char *name = quote_literal_cstr(target);
	const PGresult *result;
	List	   *commands = NIL;

	result = query(session,
				   psprintf("SELECT CASE WHEN n.oid IS NOT NULL"
							" THEN concat('ALTER TABLE ', %s, ' ADD ', pg_get_constraintdef(n.oid))"
							" ELSE concat('CREATE ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, 'INDEX ON ', %s,"
							" substring(pg_get_indexdef(i.indexrelid) from ' USING .*$')) END"
							" FROM pg_index i LEFT JOIN pg_constraint n ON n.conindid = i.indexrelid"
							" AND n.conrelid = i.indrelid AND n.contype IN ('p', 'u', 'x')"
							" WHERE i.indrelid = to_regclass(%s) AND i.indisvalid"
							" ORDER BY i.indisprimary DESC, i.indexrelid",
							name, name,
							quote_literal_cstr(shard_node_table_name(shard))), false);
	for (int i = 0; i < PQntuples(result); i++)
		commands = lappend(commands, pstrdup(PQgetvalue(result, i, 0)));
	for (int i = 0; i < list_length(commands); i++)
		check_index_command(session, target, list_nth(commands, i));
	return commands;
}

/*
 * shard_node_drop_table
 *		Drop the table behind a foreign table, which shard_node_hold_table() has
 *		locked, when the local transaction is committed.
 */
void
shard_node_drop_table(Oid shard, Oid userid)
{
	(void) query(session_of(shard, userid),
				 psprintf("DROP TABLE %s", shard_node_table_name(shard)), false);
}

/*
 * shard_node_database
 *		What SHARD_DATABASE_QUERY gives on a node.
 */
char *
shard_node_database(Oid server, Oid userid)
{
	ShardNodeError error;
	ShardNodeSession *session = shard_node_session(server, userid, &error);

	if (session == NULL)
		shard_node_raise(&error, NULL);
	return pstrdup(PQgetvalue(query(session, SHARD_DATABASE_QUERY, false), 0, 0));
}

/*
 * shard_node_bytes
 *		How many bytes the table behind a foreign table takes, with its indexes;
 *		0 if there is none.
 */
int64
shard_node_bytes(Oid shard, Oid userid)
{
	ShardNodeSession *session = session_of(shard, userid);
	const PGresult *result;

	prepare(session);
	result = query(session,
				   psprintf("SELECT pg_total_relation_size(to_regclass(%s))",
							quote_literal_cstr(shard_node_table_name(shard))),
				   false);
	return PQntuples(result) != 1 ? 0 :
		strtoll(PQgetvalue(result, 0, 0), NULL, 10);
}
