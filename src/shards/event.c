/*-------------------------------------------------------------------------
 *
 * event.c
 *	  What DDL commands on logical tables and shards lead to.
 *
 * The event trigger itself, on_ddl_end(), is written in PL/pgSQL.  It finds
 * out from the system catalogs whether a command concerns us, and only then
 * calls ddl_end().  So commands on other tables do not load this library, and
 * do not fail where it is missing.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume.h"
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(shard_ddl_end);

/*
 * Carry out the options "shards", "template" and "nodes" of a new logical table.
 *
 * They are dropped before, so that a dump, which has the shards as tables of
 * their own, does not create them twice.
 */
static void
consume_options(Oid logical, const ShardOptions *options)
{
	Oid			template = InvalidOid;
	List	   *servers = options->nodes == NULL ? NIL :
		shard_node_list(options->nodes);

	if (options->template_name != NULL)
	{
		List	   *names = textToQualifiedNameList(cstring_to_text(options->template_name));

		template = RangeVarGetRelid(makeRangeVarFromNameList(names),
									AccessShareLock, false);
	}
	shard_execute("ALTER FOREIGN TABLE %s OPTIONS (DROP shards%s%s)",
				  shard_qualified_name(logical),
				  options->template_name != NULL ? ", DROP template" : "",
				  options->nodes != NULL ? ", DROP nodes" : "");
	if (OidIsValid(template))
		shard_advise_template(logical, template);
	list_free(shard_create(logical, options->shards, template, InvalidOid,
						   servers, true));
}

/*
 * Does the command have a subcommand of ALTER TABLE of this kind?
 */
static bool
has_subcommand(const Node *parsetree, AlterTableType subtype)
{
	ListCell   *lc;

	if (!IsA(parsetree, AlterTableStmt))
		return false;
	foreach(lc, ((const AlterTableStmt *) parsetree)->cmds)
	{
		if (lfirst_node(AlterTableCmd, lc)->subtype == subtype)
			return true;
	}
	return false;
}

/*
 * Does the command give a table's option a value?
 */
static bool
sets_option(const Node *parsetree, const char *option)
{
	ListCell   *lc;
	ListCell   *lc2;

	if (!IsA(parsetree, AlterTableStmt))
		return false;
	foreach(lc, ((const AlterTableStmt *) parsetree)->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype != AT_GenericOptions)
			continue;
		foreach(lc2, castNode(List, cmd->def))
		{
			DefElem    *def = lfirst_node(DefElem, lc2);

			if (strcmp(def->defname, option) == 0 &&
				def->defaction != DEFELEM_DROP)
				return true;
		}
	}
	return false;
}

/* The options of a logical table whose values are names of its columns. */
static const char *const column_options[] = {"key", "time_column"};

/*
 * The columns that one of these options names.
 */
static List *
columns_of_option(Oid relid, const char *option)
{
	ListCell   *lc;
	List	   *names = NIL;

	foreach(lc, GetForeignTable(relid)->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		/* The validator has seen that this can be split. */
		if (strcmp(def->defname, option) == 0)
			(void) SplitIdentifierString(pstrdup(defGetString(def)), ',',
										 &names);
	}
	return names;
}

/*
 * A column of a logical table has been renamed: what knows it by its name has
 * to know the new one.
 */
static void
column_renamed(Oid relid, const char *from, const char *to)
{
	StringInfoData changes;

	initStringInfo(&changes);
	for (int i = 0; i < lengthof(column_options); i++)
	{
		StringInfoData value;
		bool		found = false;
		ListCell   *lc;

		initStringInfo(&value);
		foreach(lc, columns_of_option(relid, column_options[i]))
		{
			const char *name = lfirst(lc);

			if (strcmp(name, from) == 0)
			{
				name = to;
				found = true;
			}
			appendStringInfo(&value, "%s%s", value.len > 0 ? ", " : "",
							 quote_identifier(name));
		}
		if (found)
			appendStringInfo(&changes, "%sSET %s %s",
							 changes.len > 0 ? ", " : "", column_options[i],
							 quote_literal_cstr(value.data));
	}
	/* All at once, for each change is checked with the others. */
	if (changes.len > 0)
		shard_execute("ALTER FOREIGN TABLE %s OPTIONS (%s)",
					  shard_qualified_name(relid), changes.data);
	shard_column_renamed(relid, from, to);
}

/*
 * A column with this name has been dropped, perhaps, from the logical table.
 * Raise an error if it was in use.
 *
 * If it was dropped from a table that this one inherits from, it may still be
 * there.  If it is there although it was dropped from this one, it is another.
 */
static void
column_dropped(Oid relid, const char *name, bool is_certain)
{
	ShardOptions options;
	ListCell   *lc;

	if (!is_certain && get_attnum(relid, name) != InvalidAttrNumber)
		return;
	shard_get_options(relid, &options);
	foreach(lc, options.route == SHARD_ROUTE_HASH ?
			columns_of_option(relid, "key") : NIL)
	{
		if (strcmp(lfirst(lc), name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("cannot drop column \"%s\" because it is part of the key of foreign table \"%s\"",
							name, get_rel_name(relid))));
	}
	if (options.time_column != NULL && strcmp(options.time_column, name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("cannot drop column \"%s\" because it is the time column of foreign table \"%s\"",
						name, get_rel_name(relid)),
				 errhint("Drop option \"time_column\" of the foreign table first, or name another column with it.")));
	shard_check_column_unread(relid, name);
}

/*
 * Columns of a table have been dropped, and with them those of the logical
 * tables below it.
 */
static void
columns_dropped(Oid relid, const AlterTableStmt *stmt)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);
		ListCell   *lc2;

		if (cmd->subtype != AT_DropColumn)
			continue;
		if (relids == NIL)
			relids = find_all_inheritors(relid, NoLock, NULL);
		foreach(lc2, relids)
		{
			if (shard_is_logical(lfirst_oid(lc2)))
				column_dropped(lfirst_oid(lc2), cmd->name,
							   lfirst_oid(lc2) == relid);
		}
	}
}

/*
 * A logical table has been created or altered: check its options, and create
 * the shards that they ask for.
 */
static void
logical_table_changed(Oid relid, const Node *parsetree)
{
	bool		is_new = IsA(parsetree, CreateForeignTableStmt);
	ShardOptions options;
	PartitionKey key;

	/* A table that had this OID before may have had consumers. */
	if (is_new)
	{
		shard_forget_consumers(relid);
		shard_forget_maintenance(relid);
		shard_forget_commands(relid);
	}

	shard_get_options(relid, &options);
	key = options.route == SHARD_ROUTE_HASH ?
		shard_key_create(relid, options.key, false) : NULL;
	shard_check_sequence(relid, key);
	if (options.shards > 0 && options.shard_schema != NULL)
		(void) shard_schema_option(relid, &options, ERROR);
	shard_check_time_column(relid);
	/* A table with option "shards" loses that, and comes here again. */
	if (!shard_is_acting() &&
		((is_new && options.shards == 0) ||
		 has_subcommand(parsetree, AT_GenericOptions)))
		shard_advise_options(relid, &options);
	if (!shard_is_acting() && has_subcommand(parsetree, AT_AddConstraint))
		shard_advise_nested(relid);
	/* A restore alters columns, but sets no option of the table. */
	if (sets_option(parsetree, "rotate_every"))
		shard_note_generation(relid, false);
	if (sets_option(parsetree, "retain_for"))
		shard_confirm(relid);
	if (options.shards == 0)
		return;
	if (!is_new)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is only for CREATE FOREIGN TABLE",
						"shards"),
				 errhint("Add shards to foreign table \"%s\" with SELECT shard_fdw.create_shards().",
						 get_rel_name(relid))));
	consume_options(relid, &options);
	/* It is up to the template whether it can be null. */
	shard_check_time_column(relid);
	/* What comes from a dump has lost option "shards". */
	if (options.time_column != NULL)
	{
		shard_note_generation(relid, false);
		shard_confirm(relid);
	}
}

/*
 * A table that may be a shard has been created or altered.
 */
static void
possible_shard_changed(Oid relid, const Node *parsetree)
{
	bool		is_new = IsA(parsetree, CreateStmt) ||
		IsA(parsetree, CreateForeignTableStmt);
	ListCell   *lc;

	foreach(lc, shard_logical_parents(relid))
	{
		/* A shard that had this OID before may have been read, and closed. */
		if (is_new)
		{
			shard_forget_lanes(lfirst_oid(lc), relid);
			shard_forget_closed(relid);
		}
		if (!shard_is_acting() &&
			(is_new || has_subcommand(parsetree, AT_AddInherit) ||
			 has_subcommand(parsetree, AT_AddConstraint) ||
			 has_subcommand(parsetree, AT_DropConstraint)))
			shard_advise_place(lfirst_oid(lc), relid);
		if (!shard_is_acting() &&
			(is_new || has_subcommand(parsetree, AT_AddInherit)))
			shard_advise_remote(lfirst_oid(lc), relid);
		if (!shard_is_acting() &&
			(has_subcommand(parsetree, AT_AddInherit) ||
			 has_subcommand(parsetree, AT_AddConstraint)))
			shard_advise_nested(lfirst_oid(lc));
		if (is_new || has_subcommand(parsetree, AT_AddInherit) ||
			has_subcommand(parsetree, AT_DropNotNull))
			shard_check_not_null(lfirst_oid(lc), relid);
	}
}

/*
 * The table that an object is, or that it is a constraint of.
 */
static Oid
table_of(const ObjectAddress *address)
{
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	if (address->classId != ConstraintRelationId)
		return address->objectId;
	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(address->objectId));
	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_constraint) GETSTRUCT(tuple))->conrelid;
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * shard_ddl_end(command pg_ddl_command)
 *		SQL function ddl_end(): does what is to be done after a command that
 *		on_ddl_end() has found to concern us.
 *
 * Strict.  Only in an event trigger is there a value to call it with.  Raises
 * ERRCODE_FDW_INVALID_OPTION_NAME if ALTER has added an option that is for
 * CREATE, and what the checks of options raise.
 */
Datum
shard_ddl_end(PG_FUNCTION_ARGS)
{
	CollectedCommand *command = (CollectedCommand *) PG_GETARG_POINTER(0);
	Node	   *parsetree = command->parsetree;
	Oid			relid;
	ListCell   *lc;

	if (command->type == SCT_Simple)
		relid = table_of(&command->d.simple.address);
	else if (command->type == SCT_AlterTable)
		relid = command->d.alterTable.objectId;
	else
		PG_RETURN_VOID();

	SPI_connect();
	if (IsA(parsetree, CreateTrigStmt))
	{
		CreateTrigStmt *stmt = castNode(CreateTrigStmt, parsetree);

		relid = RangeVarGetRelid(stmt->relation, NoLock, true);
		if (!shard_is_acting() && shard_is_logical(relid))
			shard_advise_trigger(relid, stmt);
	}
	else if (IsA(parsetree, RenameStmt) &&
			 castNode(RenameStmt, parsetree)->renameType == OBJECT_TABCONSTRAINT)
		shard_alter_on_nodes(relid, parsetree);
	else if (IsA(parsetree, RenameStmt) &&
			 castNode(RenameStmt, parsetree)->renameType == OBJECT_COLUMN)
	{
		shard_alter_on_nodes(relid, parsetree);
		/* The logical tables below it have had theirs renamed with it. */
		foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		{
			if (shard_is_logical(lfirst_oid(lc)))
				column_renamed(lfirst_oid(lc),
							   castNode(RenameStmt, parsetree)->subname,
							   castNode(RenameStmt, parsetree)->newname);
		}
	}
	else
	{
		if (IsA(parsetree, AlterTableStmt))
			columns_dropped(relid, castNode(AlterTableStmt, parsetree));
		if (shard_is_logical(relid))
			logical_table_changed(relid, parsetree);
		possible_shard_changed(relid, parsetree);
	}
	if (IsA(parsetree, AlterTableStmt))
	{
		if (!shard_is_acting())
			shard_check_ids(relid, castNode(AlterTableStmt, parsetree));
		/* Last, for what is wrong here need not be sent. */
		shard_alter_on_nodes(relid, parsetree);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
