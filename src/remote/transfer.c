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
#include "catalog/namespace.h"
#include "commands/copy.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "parser/parse_oper.h"
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
	"Its table there has an identity column."},
	{"EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass"
		" AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)",
	"A view or a rule uses its table there."}
};

/* Rows between two reports of progress. */
#define ROWS_PER_REPORT	10000

/* What a node's changed_rows() begins a line with. */
#define GONE_PREFIX		't'
#define PREFIX_LENGTH	2

/* The rows that CopyFrom() asks for: it has no argument for us. */
static struct
{
	ShardNodeSession *session;
	int			prefix;			/* bytes of each row that are left out */
	char	   *row;			/* libpq's, or NULL */
	int			length;
	int			used;
	uint64		nrows;
}			incoming;

/*
 * Begin to read rows for CopyFrom() from a node.
 */
static void
begin_incoming(ShardNodeSession *session, int prefix)
{
	/* After an error, there may be one. */
	PQfreemem(incoming.row);
	memset(&incoming, 0, sizeof(incoming));
	incoming.session = session;
	incoming.prefix = prefix;
}

/*
 * Read the next row.  Returns false if there is none.
 */
static bool
next_incoming(void)
{
	incoming.length = shard_node_receive(incoming.session, &incoming.row);
	incoming.used = incoming.prefix;
	if (incoming.length < 0)
		return false;
	incoming.nrows++;
	return true;
}

static void
free_incoming(void)
{
	PQfreemem(incoming.row);
	incoming.row = NULL;
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
			if (!next_incoming())
				break;
			if (incoming.nrows % ROWS_PER_REPORT == 0 && incoming.prefix == 0)
				shard_progress_add(ROWS_PER_REPORT);
		}
		n = Min(maxread - done, incoming.length - incoming.used);
		memcpy((char *) outbuf + done, incoming.row + incoming.used, n);
		done += n;
		incoming.used += n;
		if (incoming.used == incoming.length)
			free_incoming();
	}
	return done;
}

/*
 * Insert the rows that are to be read into a table.
 */
static void
copy_incoming(Relation target, List *names)
{
	ParseState *pstate = make_parsestate(NULL);
	CopyFromState copy;

	/* The executor wants the very lock that the range table tells of. */
	LockRelation(target, RowExclusiveLock);
	(void) addRangeTableEntryForRelation(pstate, target, RowExclusiveLock,
										 NULL, false, false);
	copy = BeginCopyFrom(pstate, target, NULL, NULL, false, read_incoming, names,
						 list_make1(makeDefElem("encoding",
												(Node *) makeString(pstrdup(GetDatabaseEncodingName())),
												-1)));
	(void) CopyFrom(copy);
	EndCopyFrom(copy);
	free_parsestate(pstate);
}

/*
 * The command that reads the table behind a foreign table, as it is or, if
 * "is_watched", so that what others change from then on can be read; or what
 * they have changed.  *attnos become the numbers of the columns it returns,
 * *names their names here.
 */
static char *
reading_command(Oid shard, bool is_watched, bool changes, List **attnos,
				List **names)
{
	Relation	rel = table_open(shard, NoLock);
	char	   *table = shard_node_table_name(shard);
	char	   *columns = shard_node_columns(rel, true, attnos, names);
	StringInfoData sql;
	ListCell   *lc;

	table_close(rel, NoLock);
	if (!is_watched)
		return psprintf("COPY %s%s TO STDOUT", table, columns);
	initStringInfo(&sql);
	appendStringInfo(&sql, "COPY (SELECT %s", changes ? "c.is_gone" : "");
	foreach(lc, *attnos)
		appendStringInfo(&sql, "%s%s.%s",
						 changes || foreach_current_index(lc) > 0 ? ", " : "",
						 changes ? "(c.r)" : "t",
						 quote_identifier(shard_node_column_name(shard, lfirst_int(lc))));
	if (changes)
		appendStringInfo(&sql, " FROM shard_fdw.changed_rows(NULL::%s) c", table);
	else
		appendStringInfo(&sql, " FROM ONLY %s t WHERE shard_fdw.watch_rows(%s)",
						 table, quote_literal_cstr(table));
	appendStringInfoString(&sql, ") TO STDOUT");
	return sql.data;
}

/*
 * shard_node_get_rows
 *		Copy the rows of the table behind a foreign table, which
 *		shard_node_hold_table() has locked, into a table.  Returns their number.
 *
 * If "is_watched", shard_node_get_changes() will be called.  Raises
 * ERRCODE_CHECK_VIOLATION and the like if a row should not be there.
 */
uint64
shard_node_get_rows(Oid shard, Oid userid, Relation target, bool is_watched)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	List	   *attnos = NIL;
	List	   *names = NIL;
	char	   *sql = reading_command(shard, is_watched, false, &attnos, &names);
	int			guc_level = shard_set_text_settings();

	shard_node_begin_copy(session, sql, PGRES_COPY_OUT);
	begin_incoming(session, 0);
	copy_incoming(target, names);
	shard_node_end_copy(session, incoming.nrows);
	shard_progress_add(incoming.nrows % ROWS_PER_REPORT);
	AtEOXact_GUC(false, guc_level);
	return incoming.nrows;
}

/*
 * The text of a field of a line of COPY, where the next one begins, or NULL for
 * null.  The line is changed.
 */
static char *
next_field(char **line)
{
	char	   *result = *line;
	char	   *to = result;
	char	   *from = result;

	if (from[0] == '\\' && from[1] == 'N')
		result = NULL;
	while (*from != '\t' && *from != '\n' && *from != '\0')
	{
		if (*from != '\\')
		{
			*to++ = *from++;
			continue;
		}
		switch (*++from)
		{
			case 'b':
				*to++ = '\b';
				break;
			case 'f':
				*to++ = '\f';
				break;
			case 'n':
				*to++ = '\n';
				break;
			case 'r':
				*to++ = '\r';
				break;
			case 't':
				*to++ = '\t';
				break;
			case 'v':
				*to++ = '\v';
				break;
			default:
				*to++ = *from;
				break;
		}
		if (*from != '\0')
			from++;
	}
	*line = *from == '\0' ? from : from + 1;
	*to = '\0';
	return result;
}

/*
 * The texts of the key's columns of the row that has been read; it has these
 * columns.  They are good until the next row.
 */
static void
read_key(ShardNodeSession *session, List *attnos, List *key, char **texts)
{
	char	   *line = incoming.row + incoming.prefix;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, attnos)
	{
		char	   *text = next_field(&line);

		foreach(lc2, key)
		{
			if (((ShardKeyColumn *) lfirst(lc2))->attno != lfirst_int(lc))
				continue;
			if (text == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_ERROR),
						 errmsg("server \"%s\" has not told which row is gone",
								session->name)));
			texts[foreach_current_index(lc2)] = text;
		}
	}
}

/*
 * Read what has changed in the table behind a foreign table up to the first row
 * that is new, and call a function for the key of each one that is gone.
 * Returns whether there is a new one.
 */
static bool
read_gone(Oid shard, ShardNodeSession *session, List *key, List **names,
		  void (*function) (void *arg, char **texts), void *arg)
{
	List	   *attnos = NIL;
	char	   *sql = reading_command(shard, true, true, &attnos, names);
	char	  **texts = palloc0(sizeof(char *) * list_length(key));

	shard_node_begin_copy(session, sql, PGRES_COPY_OUT);
	begin_incoming(session, PREFIX_LENGTH);
	while (next_incoming())
	{
		if (incoming.row[0] != GONE_PREFIX)
			return true;
		read_key(session, attnos, key, texts);
		function(arg, texts);
		free_incoming();
	}
	return false;
}

/* Rows to be deleted from a table here. */
typedef struct Deletion
{
	Relation	target;
	ShardGoneRows *gone;
} Deletion;

/*
 * Delete them.
 */
static void
delete_here(Deletion *deletion)
{
	uint64		nrows;
	char	   *sql = shard_gone_command(deletion->gone, &nrows);

	if (sql == NULL)
		return;
	if (SPI_execute(sql, false, 0) != SPI_OK_DELETE || SPI_processed != nrows)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("could not delete copied rows of table \"%s\"",
						RelationGetRelationName(deletion->target)),
				 errdetail("There are " UINT64_FORMAT ", and should be " UINT64_FORMAT ".",
						   SPI_processed, nrows)));
	pfree(sql);
}

static void
note_gone_here(void *arg, char **texts)
{
	Deletion   *deletion = arg;

	if (shard_gone_add(deletion->gone, texts))
		delete_here(deletion);
}

/*
 * shard_node_get_changes
 *		Bring the copy that shard_node_get_rows() has made up to date, by a key
 *		of columns of the foreign table.  Returns the number of rows that are
 *		gone or new.  SPI is connected.
 *
 * Raises what shard_node_get_rows() raises, and ERRCODE_FDW_ERROR if the copy
 * does not have a row.
 */
int64
shard_node_get_changes(Oid shard, Oid userid, Relation target, List *key)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	Relation	rel = table_open(shard, NoLock);
	Deletion	deletion = {.target = target};
	List	   *names = NIL;
	int			guc_level = shard_set_text_settings();

	deletion.gone = shard_gone_begin(shard_qualified_name(RelationGetRelid(target)),
									 key, RelationGetDescr(rel));
	if (read_gone(shard, session, key, &names, note_gone_here, &deletion))
	{
		delete_here(&deletion);
		copy_incoming(target, names);
	}
	else
		delete_here(&deletion);
	shard_node_end_copy(session, incoming.nrows);
	AtEOXact_GUC(false, guc_level);
	table_close(rel, NoLock);
	return incoming.nrows;
}

/*
 * shard_node_pass_rows
 *		Copy the rows of the table behind a foreign table, which
 *		shard_node_hold_table() has locked, to that behind another one.  Returns
 *		their number.
 *
 * If "is_watched", shard_node_pass_changes() will be called.
 */
uint64
shard_node_pass_rows(Oid shard, Oid userid, ShardNodeFeed *feed, bool is_watched)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	List	   *attnos = NIL;
	List	   *names = NIL;
	char	   *sql = reading_command(shard, is_watched, false, &attnos, &names);

	shard_node_begin_copy(session, sql, PGRES_COPY_OUT);
	begin_incoming(session, 0);
	while (next_incoming())
	{
		shard_node_feed_line(feed, incoming.row, incoming.length);
		free_incoming();
		if (incoming.nrows % ROWS_PER_REPORT == 0)
			shard_progress_add(ROWS_PER_REPORT);
	}
	shard_node_end_copy(session, incoming.nrows);
	shard_progress_add(incoming.nrows % ROWS_PER_REPORT);
	return incoming.nrows;
}

static void
note_gone_there(void *arg, char **texts)
{
	shard_node_feed_gone_key(arg, texts);
}

/*
 * shard_node_pass_changes
 *		Bring the copy that shard_node_pass_rows() has made up to date, by a key
 *		of columns of the foreign table.  Returns the number of rows that are
 *		gone or new.
 *
 * Raises what the nodes raise, and ERRCODE_FDW_ERROR if the copy does not have a
 * row.
 */
int64
shard_node_pass_changes(Oid shard, Oid userid, ShardNodeFeed *feed, List *key)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	List	   *names = NIL;

	if (read_gone(shard, session, key, &names, note_gone_there, feed))
	{
		do
		{
			shard_node_feed_line(feed, incoming.row + incoming.prefix,
								 incoming.length - incoming.prefix);
			free_incoming();
		} while (next_incoming());
	}
	shard_node_end_copy(session, incoming.nrows);
	return incoming.nrows;
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
	StringInfoData renamed;
	const PGresult *result;

	initStringInfo(&sql);
	initStringInfo(&renamed);
	appendStringInfoString(&sql, "SELECT CASE");
	for (int i = 0; i < lengthof(obstacles); i++)
		appendStringInfo(&sql, " WHEN %s THEN %d", obstacles[i].condition, i);
	appendStringInfoString(&sql, " END, (SELECT min(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid"
						   " AND a.attnum > 0 AND NOT a.attisdropped AND a.attname NOT IN (''");
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);
		const char *name = att->attisdropped ? NULL :
			shard_node_column_name(shard, att->attnum);

		if (name == NULL)
			continue;
		appendStringInfo(&sql, ", %s", quote_literal_cstr(name));
		if (strcmp(name, NameStr(att->attname)) != 0)
			appendStringInfo(&renamed, ", %s", quote_literal_cstr(name));
	}
	/* What the node says of indexes has the names that columns have there. */
	appendStringInfo(&sql, ")), (SELECT min(a.attname) FROM pg_attribute a JOIN pg_depend d"
					 " ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum"
					 " WHERE a.attrelid = c.oid AND a.attname IN (''%s)"
					 " AND (EXISTS (SELECT FROM pg_index i WHERE d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid)"
					 " OR EXISTS (SELECT FROM pg_constraint n WHERE d.classid = 'pg_constraint'::regclass AND n.oid = d.objid"
					 " AND n.contype IN ('p', 'u', 'x'))))"
					 " FROM pg_class c WHERE c.oid = to_regclass(%s)",
					 renamed.data, quote_literal_cstr(table));
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
	if (!PQgetisnull(result, 0, 2))
		report_obstacle(shard,
						psprintf("Its table there has an index on column \"%s\", which has another name here.",
								 PQgetvalue(result, 0, 2)));
}

/*
 * shard_node_hold_table
 *		Lock the table behind a foreign table against all that writes it there,
 *		or, if others may write, what changes its definition; and find out how it
 *		is stored: the clause WITH of CREATE TABLE, perhaps empty.
 *
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if moving its rows elsewhere
 * and dropping it would lose something, and if other commands have changed the
 * node in this transaction.
 */
char *
shard_node_hold_table(Oid shard, Oid userid, bool allow_writes, bool *is_unlogged)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	char	   *table = shard_node_table_name(shard);
	const PGresult *result;
	StringInfoData with;

	shard_node_note_late_change(session);
	shard_node_prepare(session);
	check_obstacles(session, shard, table);
	(void) shard_node_command(session, psprintf("LOCK TABLE %s IN %s MODE", table,
												allow_writes ? "SHARE UPDATE EXCLUSIVE" : "EXCLUSIVE"),
							  false);
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
 * shard_row_key_column
 *		A column of a relation as part of a key, in the current memory context; by
 *		the schema and the name of the operator that says what is equal.
 */
ShardKeyColumn *
shard_row_key_column(Oid relid, AttrNumber attno, const char *schema,
					 const char *operator)
{
	ShardKeyColumn *result = palloc(sizeof(ShardKeyColumn));

	result->attno = attno;
	result->name = get_attname(relid, attno, false);
	result->equality = psprintf("%s.%s", quote_identifier(schema), operator);
	return result;
}

/*
 * Is there such an operator here that tells for btree indexes which values of a
 * column are equal?  These are made by superusers.  So what a node says does not
 * have us, or another node, run anything else.
 */
static bool
is_equality(Oid relid, AttrNumber attno, char *schema, char *operator)
{
	Oid			type = get_atttype(relid, attno);
	Oid			found;

	if (!OidIsValid(get_namespace_oid(schema, true)))
		return false;
	found = compatible_oper_opid(list_make2(makeString(schema), makeString(operator)),
								 type, type, true);
	return OidIsValid(found) && get_mergejoin_opfamilies(found) != NIL;
}

/*
 * The number of the column that is called so on the node and has a value of its
 * own there.
 */
static AttrNumber
find_column(Relation rel, const char *name)
{
	for (AttrNumber attno = 1; attno <= RelationGetNumberOfAttributes(rel); attno++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);

		if (!att->attisdropped && !att->attgenerated &&
			strcmp(shard_node_column_name(RelationGetRelid(rel), attno), name) == 0)
			return attno;
	}
	return InvalidAttrNumber;
}

/*
 * shard_node_row_key
 *		The columns of a unique index that tells the rows of the table behind a
 *		foreign table from each other: a list of ShardKeyColumn, NIL if there is
 *		none that we could use, or if the node could not, or would not, tell what
 *		others change.
 */
List *
shard_node_row_key(Oid shard, Oid userid)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	char	   *table = psprintf("to_regclass(%s)", quote_literal_cstr(shard_node_table_name(shard)));
	const PGresult *result;
	List	   *key = NIL;
	Relation	rel;

	result = shard_node_command(session,
								psprintf(SHARD_ROW_KEY_QUERY
										 " AND EXISTS (SELECT FROM pg_class t JOIN pg_am h ON h.oid = t.relam"
										 " WHERE t.oid = %s AND h.amname = 'heap')"
										 " AND 2 = (SELECT count(*) FROM pg_proc f JOIN pg_namespace s ON s.oid = f.pronamespace"
										 " WHERE s.nspname = 'shard_fdw' AND f.proname IN ('watch_rows', 'changed_rows')"
										 " AND has_schema_privilege(s.oid, 'USAGE') AND has_function_privilege(f.oid, 'EXECUTE'))",
										 table, table),
								false);
	rel = table_open(shard, NoLock);
	for (int i = 0; i < PQntuples(result); i++)
	{
		AttrNumber	attno = find_column(rel, PQgetvalue(result, i, 0));
		char	   *schema = PQgetvalue(result, i, 1);
		char	   *operator = PQgetvalue(result, i, 2);

		if (attno == InvalidAttrNumber || !is_equality(shard, attno, schema, operator))
		{
			key = NIL;
			break;
		}
		key = lappend(key, shard_row_key_column(shard, attno, schema, operator));
	}
	table_close(rel, NoLock);
	return key;
}

/*
 * shard_node_lock_out
 *		Lock the table behind a foreign table against all others, for which the
 *		node waits for at most so many milliseconds.
 *
 * Raises ERRCODE_LOCK_NOT_AVAILABLE.
 */
void
shard_node_lock_out(Oid shard, Oid userid, int timeout)
{
	(void) shard_node_command(shard_node_session_of(shard, userid),
							  psprintf("SET LOCAL lock_timeout = %d; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE;"
									   " SET LOCAL lock_timeout = %d",
									   timeout, shard_node_table_name(shard),
									   shard_lock_patience()), false);
}

/*
 * shard_node_drop_table
 *		Drop the table behind a foreign table, which has been locked after
 *		shard_node_note_late_change(), when the local transaction is committed.
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
