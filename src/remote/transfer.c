/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  Rows of whole shards on their way from a node, here or to another one;
 *	  and what is to be known of the tables that they leave.
 *
 * Memory holds some rows at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/copy.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

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

/* Rows between two reports of progress. */
#define ROWS_PER_REPORT	10000

/* Bytes that are sent at once. */
#define BLOCK_SIZE	65536

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
			incoming.length = shard_node_receive(incoming.session, &incoming.row);
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
	char	   *columns = shard_node_columns(rel, true, &attnos, names);

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
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	List	   *names = NIL;
	char	   *sql = reading_command(shard, &names);
	ParseState *pstate = make_parsestate(NULL);
	int			guc_level = shard_set_text_settings();
	CopyFromState copy;
	uint64		nrows;

	shard_node_begin_copy(session, sql, PGRES_COPY_OUT);
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
	shard_node_end_copy(session, nrows);
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
	ShardNodeSession *source = shard_node_session_of(from, userid);
	ShardNodeSession *target = shard_node_session_of(to, userid);
	List	   *names = NIL;
	List	   *attnos = NIL;
	char	   *sql = reading_command(from, &names);
	Relation	rel = table_open(from, NoLock);
	char	   *columns = shard_node_columns(rel, false, &attnos, &names);
	int			unsent = 0;
	uint64		nrows = 0;
	char	   *row;
	int			length;

	table_close(rel, NoLock);
	shard_node_begin_copy(source, sql, PGRES_COPY_OUT);
	shard_node_begin_sending(target, to, columns);
	while ((length = shard_node_receive(source, &row)) >= 0)
	{
		shard_node_send(target, row, length);
		PQfreemem(row);
		unsent += length;
		if (++nrows % ROWS_PER_REPORT == 0)
			shard_progress_add(ROWS_PER_REPORT);
		if (unsent < BLOCK_SIZE)
			continue;
		shard_node_flush(target);
		unsent = 0;
	}
	shard_node_end_copy(source, nrows);
	shard_node_end_sending(target, nrows);
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

	result = shard_node_command(session, sql.data, false);
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
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	char	   *table = shard_node_table_name(shard);
	const PGresult *result;
	StringInfoData with;

	shard_node_note_late_change(session);
	shard_node_prepare(session);
	check_obstacles(session, shard, table);
	(void) shard_node_command(session, psprintf("LOCK TABLE %s IN EXCLUSIVE MODE", table), false);
	check_obstacles(session, shard, table);
	result = shard_node_command(session,
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
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	const char *name = quote_literal_cstr(target);
	const PGresult *result;
	List	   *commands = NIL;

	result = shard_node_command(session,
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
	(void) shard_node_command(shard_node_session_of(shard, userid),
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
	return pstrdup(PQgetvalue(shard_node_command(session, SHARD_DATABASE_QUERY, false), 0, 0));
}

/*
 * shard_node_bytes
 *		How many bytes the table behind a foreign table takes, with its indexes;
 *		0 if there is none.
 */
int64
shard_node_bytes(Oid shard, Oid userid)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	const PGresult *result;

	shard_node_prepare(session);
	result = shard_node_command(session,
								psprintf("SELECT pg_total_relation_size(to_regclass(%s))",
										 quote_literal_cstr(shard_node_table_name(shard))),
								false);
	return PQntuples(result) != 1 ? 0 :
		strtoll(PQgetvalue(result, 0, 0), NULL, 10);
}
