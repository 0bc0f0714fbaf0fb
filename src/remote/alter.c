/*-------------------------------------------------------------------------
 *
 * alter.c
 *	  Altering the tables on nodes like the foreign tables that stand for them.
 *
 * When a logical table is altered, its remote shards are altered with it, by
 * inheritance.  Here the node is asked what its table is like, and gets the
 * commands that make it like the shard.  So it does not matter how the command
 * was written, and what the node's table has already is left alone.  Only what
 * the command has taken away or renamed must be known from the command, for the
 * table on the node may have more columns and constraints than the shard.
 *
 * sync_nodes() does the same without a command, and sees to tables and indexes
 * that are missing.
 *
 * Constraints that seal a shard or are its range are left to the shard, which
 * loses them again without asking the node.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

PG_FUNCTION_INFO_V1(shard_sync_nodes);

/* What is being done about one remote shard. */
typedef struct NodeSync
{
	ShardNodeSession *session;
	Relation	shard;
	char	   *table;			/* its name on the node */
	const AlterTableStmt *stmt; /* what has altered the shard, or NULL */
	bool		has_functions;	/* in_hash() and in_slot() are there */
	List	   *commands;		/* that have been run there */
} NodeSync;

/* A column of the table on the node. */
typedef struct NodeColumn
{
	char	   *name;
	char	   *type;			/* with its collation, if not the type's */
	bool		is_not_null;
	char		generated;		/* as pg_attribute.attgenerated */
	char	   *expression;		/* that generates it, or NULL */
} NodeColumn;

/* A CHECK constraint of the table on the node. */
typedef struct NodeCheck
{
	char	   *name;
	char	   *definition;		/* without NOT VALID */
	bool		is_valid;
} NodeCheck;

#define COLUMNS_SQL \
	"SELECT a.attname, format_type(a.atttypid, a.atttypmod)" \
	" || CASE WHEN a.attcollation <> t.typcollation" \
	" THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END," \
	" a.attnotnull, a.attgenerated, pg_get_expr(d.adbin, d.adrelid)" \
	" FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid" \
	" LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum" \
	" WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0"

#define CHECKS_SQL \
	"SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint" \
	" WHERE conrelid = to_regclass(%s) AND contype = 'c'"

#define INDEXES_SQL \
	"SELECT i.indisprimary, i.indisunique," \
	" substring(pg_get_indexdef(i.indexrelid) from ' USING .*$')" \
	" FROM pg_index i WHERE i.indrelid = to_regclass(%s) AND i.indisvalid"

static bool alter_nodes = true;

/*
 * Ask the node something about its table, whose name is %s in the query.
 */
static const PGresult *
ask(NodeSync *sync, const char *query)
{
	char	   *sql = psprintf(query, quote_literal_cstr(sync->table));
	ShardNodeError error;
	const PGresult *result = shard_node_query(sync->session, sql, false,
											  &error);

	if (result == NULL)
		shard_node_raise(&error, sql);
	return result;
}

/*
 * Have the node run a command that alters its table.
 */
static void
send_command(NodeSync *sync, char *sql)
{
	ShardNodeError error;

	if (shard_node_query(sync->session, sql, true, &error) == NULL)
	{
		if (error.hint == NULL && error.sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
			error.hint = "If this transaction has used the table on the server, commit it first.";
		else if (error.hint == NULL && sync->stmt != NULL)
			error.hint = "To alter the tables of this server only, set shard_fdw.alter_nodes to off.";
		shard_node_raise(&error, sql);
	}
	sync->commands = lappend(sync->commands, sql);
}

/*
 * Have the node run ALTER TABLE.
 */
static void
alter(NodeSync *sync, const char *action)
{
	send_command(sync, psprintf("ALTER TABLE %s %s", sync->table, action));
}

/*
 * Has the command a subcommand of this kind for a column or constraint of this
 * name?
 */
static const AlterTableCmd *
find_subcommand(const AlterTableStmt *stmt, AlterTableType subtype,
				const char *name)
{
	ListCell   *lc;

	foreach(lc, stmt == NULL ? NIL : stmt->cmds)
	{
		const AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);
		const char *its_name = cmd->subtype == AT_AddColumn ?
			castNode(ColumnDef, cmd->def)->colname : cmd->name;

		if (cmd->subtype == subtype && its_name != NULL &&
			strcmp(its_name, name) == 0)
			return cmd;
	}
	return NULL;
}

/*
 * The columns of the table on the node: a list of NodeColumn, empty if there is
 * no such table.
 */
static List *
node_columns(NodeSync *sync)
{
	const PGresult *rows = ask(sync, COLUMNS_SQL);
	List	   *result = NIL;

	for (int i = 0; i < PQntuples(rows); i++)
	{
		NodeColumn *column = palloc(sizeof(NodeColumn));

		column->name = pstrdup(PQgetvalue(rows, i, 0));
		column->type = pstrdup(PQgetvalue(rows, i, 1));
		column->is_not_null = *PQgetvalue(rows, i, 2) == 't';
		column->generated = *PQgetvalue(rows, i, 3);
		column->expression = PQgetisnull(rows, i, 4) ? NULL :
			pstrdup(PQgetvalue(rows, i, 4));
		result = lappend(result, column);
	}
	return result;
}

static NodeColumn *
find_column(List *columns, const char *name)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		if (strcmp(((NodeColumn *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	}
	return NULL;
}

/*
 * Drop on the node the columns and constraints that the command has dropped
 * here.
 */
static void
drop_what_was_dropped(NodeSync *sync)
{
	Oid			shard = RelationGetRelid(sync->shard);
	ListCell   *lc;

	foreach(lc, sync->stmt == NULL ? NIL : sync->stmt->cmds)
	{
		const AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);
		const char *behavior = cmd->behavior == DROP_CASCADE ? " CASCADE" : "";

		/* There may be another one already, which is none of the shard's own. */
		if (cmd->subtype == AT_DropColumn &&
			(get_attnum(shard, cmd->name) == InvalidAttrNumber ||
			 find_subcommand(sync->stmt, AT_AddColumn, cmd->name) != NULL))
			alter(sync, psprintf("DROP COLUMN IF EXISTS %s%s",
								 quote_identifier(cmd->name), behavior));
		else if (cmd->subtype == AT_DropConstraint &&
				 !OidIsValid(get_relation_constraint_oid(shard, cmd->name,
														 true)))
			alter(sync, psprintf("DROP CONSTRAINT IF EXISTS %s%s",
								 quote_identifier(cmd->name), behavior));
	}
}

/*
 * Add a column.  Rows that are there get its default, as they do here; later
 * ones bring their values with them.
 */
static void
add_column(NodeSync *sync, Form_pg_attribute att, const char *name)
{
	Oid			shard = RelationGetRelid(sync->shard);
	char	   *value = att->attgenerated || att->attidentity ||
		OidIsValid(shard_default_sequence(shard, NameStr(att->attname))) ? NULL :
		shard_node_default(sync->shard, att->attnum);
	StringInfoData definition;

	initStringInfo(&definition);
	shard_node_append_column(&definition, sync->shard, att->attnum, name);
	alter(sync, psprintf("ADD COLUMN %s%s%s", definition.data,
						 value != NULL ? " DEFAULT " : "", value != NULL ? value : ""));
	if (value != NULL)
		alter(sync, psprintf("ALTER COLUMN %s DROP DEFAULT", quote_identifier(name)));
}

/*
 * Make what generates a column on the node what it is here.
 */
static void
sync_generated(NodeSync *sync, Form_pg_attribute att, const NodeColumn *column)
{
	const char *name = quote_identifier(column->name);
	char	   *expression;

	if (!att->attgenerated)
	{
		if (column->generated)
			alter(sync, psprintf("ALTER COLUMN %s DROP EXPRESSION", name));
		return;
	}
	if (column->generated != att->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column %s of table %s on server \"%s\" is not generated as here",
						name, sync->table,
						GetForeignServer(GetForeignServerIdByRelId(RelationGetRelid(sync->shard)))->servername),
				 errhint("Drop and add the column on the server.")));
	expression = shard_node_default(sync->shard, att->attnum);
	if (column->expression != NULL && expression != NULL &&
		strcmp(column->expression, expression) != 0 &&
		strcmp(column->expression, psprintf("(%s)", expression)) != 0)
		alter(sync, psprintf("ALTER COLUMN %s SET EXPRESSION AS (%s)", name, expression));
}

/*
 * Make the columns on the node like those of the shard.  Returns false if there
 * is no table on the node.
 */
static bool
sync_columns(NodeSync *sync)
{
	Oid			shard = RelationGetRelid(sync->shard);
	TupleDesc	desc = RelationGetDescr(sync->shard);
	List	   *columns = node_columns(sync);

	if (columns == NIL && PQntuples(ask(sync, "SELECT WHERE to_regclass(%s) IS NOT NULL")) == 0)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name;
		NodeColumn *column;
		StringInfoData type;

		if (att->attisdropped)
			continue;
		name = shard_node_column_name(shard, att->attnum);
		column = find_column(columns, name);
		if (column == NULL)
		{
			add_column(sync, att, name);
			continue;
		}
		initStringInfo(&type);
		appendStringInfoString(&type,
							   format_type_extended(att->atttypid, att->atttypmod,
													FORMAT_TYPE_TYPEMOD_GIVEN));
		if (OidIsValid(att->attcollation) &&
			att->attcollation != get_typcollation(att->atttypid))
			appendStringInfo(&type, " COLLATE %s",
							 generate_collation_name(att->attcollation));
		if (strcmp(column->type, type.data) != 0)
			alter(sync, psprintf("ALTER COLUMN %s TYPE %s", quote_identifier(name),
								 type.data));
		sync_generated(sync, att, column);
		if (att->attnotnull && !column->is_not_null)
			alter(sync, psprintf("ALTER COLUMN %s SET NOT NULL",
								 quote_identifier(name)));
		else if (!att->attnotnull && column->is_not_null &&
				 find_subcommand(sync->stmt, AT_DropNotNull,
								 NameStr(att->attname)) != NULL)
			alter(sync, psprintf("ALTER COLUMN %s DROP NOT NULL",
								 quote_identifier(name)));
	}
	return true;
}

/*
 * Cut " NOT VALID" from the end of a constraint's definition.  Returns whether
 * it was not there.
 */
static bool
cut_not_valid(char *definition)
{
	const char *end = " NOT VALID";
	int			at = strlen(definition) - strlen(end);

	if (at < 0 || strcmp(definition + at, end) != 0)
		return true;
	definition[at] = '\0';
	return false;
}

/*
 * The CHECK constraints of the table on the node: a list of NodeCheck.
 */
static List *
node_checks(NodeSync *sync)
{
	const PGresult *rows = ask(sync, CHECKS_SQL);
	List	   *result = NIL;

	for (int i = 0; i < PQntuples(rows); i++)
	{
		NodeCheck  *check = palloc(sizeof(NodeCheck));

		check->name = pstrdup(PQgetvalue(rows, i, 0));
		check->definition = pstrdup(PQgetvalue(rows, i, 1));
		check->is_valid = cut_not_valid(check->definition);
		result = lappend(result, check);
	}
	return result;
}

/*
 * Make one CHECK constraint on the node what it is here.
 */
static void
sync_check(NodeSync *sync, List *checks, Form_pg_constraint con)
{
	char	   *full = TextDatumGetCString(DirectFunctionCall1(pg_get_constraintdef,
															   ObjectIdGetDatum(con->oid)));
	char	   *definition = pstrdup(full);
	bool		is_valid = cut_not_valid(definition);
	const char *name = NameStr(con->conname);
	ListCell   *lc;

	foreach(lc, checks)
	{
		NodeCheck  *check = lfirst(lc);

		if (strcmp(check->definition, definition) == 0)
		{
			if (is_valid && !check->is_valid)
				alter(sync, psprintf("VALIDATE CONSTRAINT %s",
									 quote_identifier(check->name)));
			return;
		}
	}
	foreach(lc, checks)
	{
		if (strcmp(((NodeCheck *) lfirst(lc))->name, name) == 0)
			alter(sync, psprintf("DROP CONSTRAINT %s", quote_identifier(name)));
	}
	alter(sync, psprintf("ADD CONSTRAINT %s %s", quote_identifier(name), full));
}

/*
 * Give the node's table the CHECK constraints of the shard; after a command,
 * those that it has inherited.
 */
static void
sync_checks(NodeSync *sync)
{
	List	   *checks = node_checks(sync);
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationGetRelid(sync->shard)));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		Datum		bin;
		bool		isnull;
		const char *kind;

		if (con->contype != CONSTRAINT_CHECK ||
			(sync->stmt != NULL && con->coninhcount == 0))
			continue;
		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
						   RelationGetDescr(catalog), &isnull);
		kind = isnull ? NULL : shard_check_kind(bin, NameStr(con->conname));
		if (kind != NULL && (strcmp(kind, "place") != 0 || !sync->has_functions))
			continue;
		sync_check(sync, checks, con);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*
 * Give the node's table the indexes and keys of another shard.
 */
static void
sync_indexes(NodeSync *sync, Oid model)
{
	Relation	source = relation_open(model, AccessShareLock);
	const PGresult *rows = ask(sync, INDEXES_SQL);
	List	   *missing = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(source))
	{
		Relation	index = relation_open(lfirst_oid(lc), AccessShareLock);
		char	   *definition = strstr(TextDatumGetCString(DirectFunctionCall1(pg_get_indexdef,
																				ObjectIdGetDatum(lfirst_oid(lc)))),
										" USING ");
		bool		found = !index->rd_index->indisvalid;

		for (int i = 0; i < PQntuples(rows) && !found; i++)
			found = (*PQgetvalue(rows, i, 0) == 't') == index->rd_index->indisprimary &&
				(*PQgetvalue(rows, i, 1) == 't') == index->rd_index->indisunique &&
				definition != NULL && strcmp(PQgetvalue(rows, i, 2), definition) == 0;
		if (!found)
			missing = lappend(missing,
							  shard_node_index_sql(sync->table, index));
		relation_close(index, NoLock);
	}
	foreach(lc, missing)
		send_command(sync, lfirst(lc));
	relation_close(source, NoLock);
}

/*
 * Have the node wait for locks as long as we would.
 */
static void
limit_lock_wait(ShardNodeSession *session, int milliseconds)
{
	ShardNodeError error;

	if (shard_node_query(session,
						 psprintf("SET LOCAL lock_timeout = %d", milliseconds),
						 false, &error) == NULL)
		shard_node_raise(&error, NULL);
}

/*
 * Make the table on a node like the shard, after a command, or else, with the
 * indexes of a model, if there is one.  Returns the commands that it took.
 *
 * The search path is pg_catalog, so that both servers write names alike.
 */
static List *
sync_shard(Oid shard, const AlterTableStmt *stmt, Oid model)
{
	NodeSync	sync = {0};
	ShardNodeError error;

	sync.session = shard_node_session(GetForeignServerIdByRelId(shard),
									  GetUserId(), &error);
	if (sync.session == NULL)
	{
		if (error.hint == NULL && stmt != NULL)
			error.hint = "To alter the tables of this server only, set shard_fdw.alter_nodes to off, and have SELECT shard_fdw.sync_nodes() do the rest later.";
		shard_node_raise(&error, NULL);
	}
	sync.shard = relation_open(shard, AccessShareLock);
	sync.table = shard_node_table_name(shard);
	sync.stmt = stmt;
	sync.has_functions = shard_node_has_functions(sync.session);
	limit_lock_wait(sync.session, shard_lock_patience());
	drop_what_was_dropped(&sync);
	if (sync_columns(&sync))
	{
		sync_checks(&sync);
		if (OidIsValid(model))
			sync_indexes(&sync, model);
	}
	else if (stmt == NULL)
	{
		shard_node_make_table(shard, model, GetUserId());
		sync.commands = lappend(sync.commands,
								psprintf("CREATE TABLE %s", sync.table));
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table %s is missing on server \"%s\"", sync.table,
						GetForeignServer(GetForeignServerIdByRelId(shard))->servername),
				 errhint("Have SELECT shard_fdw.sync_nodes() create it first.")));
	limit_lock_wait(sync.session, 0);
	relation_close(sync.shard, NoLock);
	return sync.commands;
}

/*
 * shard_is_on_node
 *		Is this a foreign table of postgres_fdw?
 */
bool
shard_is_on_node(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE &&
		!shard_is_logical(relid) &&
		shard_is_node(GetForeignServerIdByRelId(relid));
}

/*
 * The remote shards of the logical tables among a relation and those below it,
 * each once.
 */
static List *
shards_on_nodes(Oid relid)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		int			nshards;
		ShardMember *shards;

		if (!shard_is_logical(lfirst_oid(lc)))
			continue;
		shards = shard_list_members(lfirst_oid(lc), &nshards);
		for (int i = 0; i < nshards; i++)
		{
			if (!shards[i].is_local && shard_is_on_node(shards[i].relid))
				result = list_append_unique_oid(result, shards[i].relid);
		}
	}
	return result;
}

/*
 * Does the command change what nodes' tables are like?
 */
static bool
concerns_nodes(const AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableType subtype = lfirst_node(AlterTableCmd, lc)->subtype;

		switch (subtype)
		{
			case AT_AddColumn:
			case AT_DropColumn:
			case AT_AlterColumnType:
			case AT_SetNotNull:
			case AT_DropNotNull:
			case AT_DropExpression:
			case AT_AddConstraint:
			case AT_DropConstraint:
			case AT_ValidateConstraint:
				return true;
			default:
				if (shard_sets_expression(subtype))
					return true;
				break;
		}
	}
	return false;
}

/*
 * Rename a column or constraint of the table on a node, unless it has been
 * renamed already.
 */
static void
rename_on_node(Oid shard, const RenameStmt *stmt)
{
	bool		is_column = stmt->renameType == OBJECT_COLUMN;
	NodeSync	sync = {0};
	ShardNodeError error;
	const char *name = is_column ?
		shard_node_column_name(shard, get_attnum(shard, stmt->newname)) :
		stmt->newname;
	bool		has_old = false;
	bool		has_new = false;
	const PGresult *rows;

	/* The foreign table may know it by a name of its own. */
	if (strcmp(name, stmt->newname) != 0)
		return;
	sync.session = shard_node_session(GetForeignServerIdByRelId(shard),
									  GetUserId(), &error);
	if (sync.session == NULL)
		shard_node_raise(&error, NULL);
	sync.table = shard_node_table_name(shard);
	limit_lock_wait(sync.session, shard_lock_patience());
	rows = ask(&sync, is_column ? COLUMNS_SQL : CHECKS_SQL);
	for (int i = 0; i < PQntuples(rows); i++)
	{
		has_old |= strcmp(PQgetvalue(rows, i, 0), stmt->subname) == 0;
		has_new |= strcmp(PQgetvalue(rows, i, 0), stmt->newname) == 0;
	}
	if (has_old && !has_new)
		alter(&sync, psprintf("RENAME %s %s TO %s",
							  is_column ? "COLUMN" : "CONSTRAINT",
							  quote_identifier(stmt->subname),
							  quote_identifier(stmt->newname)));
	limit_lock_wait(sync.session, 0);
}

/*
 * shard_alter_on_nodes
 *		A table has been altered, and with it perhaps remote shards of it or of
 *		logical tables below it: alter the tables on their nodes, by the user
 *		mapping of the current user.
 *
 * The changes are committed with the transaction.  "parsetree" is the command.
 * Raises what shard_node_connect() and the nodes raise, and
 * ERRCODE_UNDEFINED_TABLE if there is no such table.
 */
void
shard_alter_on_nodes(Oid relid, const Node *parsetree)
{
	bool		is_rename = IsA(parsetree, RenameStmt);
	List	   *shards;
	ListCell   *lc;
	int			guc_level;

	/* What pg_upgrade does has been done before. */
	if (!alter_nodes || IsBinaryUpgrade ||
		(!is_rename &&
		 (!IsA(parsetree, AlterTableStmt) ||
		  !concerns_nodes((const AlterTableStmt *) parsetree))))
		return;
	shards = shards_on_nodes(relid);
	if (shards == NIL)
		return;
	guc_level = NewGUCNestLevel();
	shard_set("search_path", "pg_catalog, pg_temp");
	foreach(lc, shards)
	{
		if (is_rename)
			rename_on_node(lfirst_oid(lc), (const RenameStmt *) parsetree);
		else
			(void) sync_shard(lfirst_oid(lc),
							  (const AlterTableStmt *) parsetree, InvalidOid);
	}
	AtEOXact_GUC(true, guc_level);
}

/*
 * shard_sync_nodes(logical regclass, only_node name)
 *		SQL function sync_nodes(): makes the tables on the nodes, or on one of
 *		them, like the remote shards of a table, by the caller's user mapping,
 *		and returns the commands that it took.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical
 * table, ERRCODE_UNDEFINED_OBJECT if there is no such node, and what
 * shard_node_make_table() and the nodes raise.
 */
Datum
shard_sync_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical;
	Oid			server = InvalidOid;
	int			nshards;
	ShardMember *shards;
	Oid			model = InvalidOid;
	int			guc_level;

	shard_check_argument(fcinfo, 0, "logical table");
	PreventCommandIfReadOnly("sync_nodes()");
	logical = PG_GETARG_OID(0);
	if (!PG_ARGISNULL(1))
		server = get_foreign_server_oid(NameStr(*PG_GETARG_NAME(1)), false);
	shard_check_owned(logical);
	shard_lock_patiently(logical, ShareUpdateExclusiveLock);
	shard_check_owned(logical);
	InitMaterializedSRF(fcinfo, 0);
	shards = shard_list_members(logical, &nshards);
	for (int i = 0; i < nshards; i++)
	{
		if (shards[i].is_local &&
			(!OidIsValid(model) || shards[i].is_open))
			model = shards[i].relid;
	}
	guc_level = NewGUCNestLevel();
	shard_set("search_path", "pg_catalog, pg_temp");
	for (int i = 0; i < nshards; i++)
	{
		Oid			shard = shards[i].relid;
		ListCell   *lc;

		if (shards[i].is_local || !shard_is_on_node(shard) ||
			(OidIsValid(server) &&
			 GetForeignServerIdByRelId(shard) != server))
			continue;
		foreach(lc, sync_shard(shard, NULL, model))
		{
			Datum		values[3];
			bool		nulls[3] = {false, false, false};

			values[0] = DirectFunctionCall1(namein,
											CStringGetDatum(GetForeignServer(GetForeignServerIdByRelId(shard))->servername));
			values[1] = ObjectIdGetDatum(shard);
			values[2] = CStringGetTextDatum(lfirst(lc));
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 nulls);
		}
	}
	AtEOXact_GUC(true, guc_level);
	return (Datum) 0;
}

/*
 * shard_alter_init
 *		Define the setting shard_fdw.alter_nodes.  To be called once, when the
 *		library is loaded.
 */
void
shard_alter_init(void)
{
	DefineCustomBoolVariable("shard_fdw.alter_nodes",
							 "Has ALTER of a logical table alter the tables on nodes, too.",
							 NULL,
							 &alter_nodes,
							 true,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
}
