/*-------------------------------------------------------------------------
 *
 * reshard.c
 *	  Moving a hash table to another number of shards.
 *
 * New shards are created in the likeness of an old one, all rows are inserted
 * into the logical table once more, which routes them to the new shards, and
 * the old ones are dropped: in one transaction, with the table locked.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_fdw.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_reshard);

/*
 * Raise an error unless the locked shard can be given up for new ones.
 */
static void
check_old_shard(Relation logical, const ShardMember *member)
{
	Relation	shard = table_open(member->relid, NoLock);
	const char *name = RelationGetRelationName(shard);
	TupleDesc	desc = RelationGetDescr(shard);

	if (!member->is_local || member->has_children)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot reshard foreign table \"%s\"",
						RelationGetRelationName(logical)),
				 member->is_local ?
				 errdetail("Shard \"%s\" has inheritance children.", name) :
				 errdetail("Shard \"%s\" is a foreign table.", name),
				 errhint("Detach it, or replace it by an ordinary table.")));
	if (!member->is_open)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" of foreign table \"%s\" is sealed", name,
						RelationGetRelationName(logical)),
				 errdetail("Its rows would move to shards that are not."),
				 errhint("Open it with SELECT shard_fdw.unseal().")));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped &&
			get_attnum(RelationGetRelid(logical),
					   NameStr(att->attname)) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("shard \"%s\" has a column \"%s\" that foreign table \"%s\" has not",
							name, NameStr(att->attname),
							RelationGetRelationName(logical)),
					 errdetail("Its values would be lost."),
					 errhint("Add the column to the foreign table, or drop it from the shard.")));
	}
	CheckTableNotInUse(shard, "reshard");
	table_close(shard, NoLock);
}

/*
 * Lock the shards, whatever is done with them, and check that they can be
 * given up.  Returns their OIDs.
 */
static List *
lock_old_shards(Relation logical)
{
	Oid			relid = RelationGetRelid(logical);
	List	   *result = find_inheritance_children(relid, AccessExclusiveLock);
	ShardTable *table = shard_table_get(relid);

	if (table->route != SHARD_ROUTE_HASH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table \"%s\" has route \"%s\"",
						RelationGetRelationName(logical),
						shard_route_name(table->route)),
				 errdetail("Only with route \"hash\" the number of shards decides where rows are."),
				 errhint("Add shards with SELECT shard_fdw.create_shards().")));
	if (result == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no shards",
						RelationGetRelationName(logical)),
				 errhint("Create shards with SELECT shard_fdw.create_shards().")));
	for (int i = 0; i < table->nmembers; i++)
		check_old_shard(logical, &table->members[i]);
	return result;
}

/*
 * Take the old shards out of the logical table and of the new ones' way.
 *
 * The new ones and their indexes are to have the names that the old ones
 * have, so these leave the schema.  They come to no harm in ours, where
 * nobody sees them before they are dropped.
 */
static void
detach_old_shards(Relation logical, List *shards)
{
	Oid			schema = RelationGetNamespace(logical);
	Oid			our_schema = get_namespace_oid("shard_fdw", false);
	ListCell   *lc;

	foreach(lc, shards)
	{
		Relation	shard;

		shard_execute("ALTER TABLE %s NO INHERIT %s",
					  shard_qualified_name(lfirst_oid(lc)),
					  shard_qualified_name(RelationGetRelid(logical)));
		shard = table_open(lfirst_oid(lc), NoLock);
		if (RelationGetNamespace(shard) == schema && schema != our_schema)
		{
			ObjectAddresses *moved = new_object_addresses();

			AlterTableNamespaceInternal(shard, schema, our_schema, moved);
			free_object_addresses(moved);
		}
		table_close(shard, NoLock);
	}
	CommandCounterIncrement();
}

/*
 * Disable the triggers of the tables, for they have seen the rows before, and
 * return the commands that enable them as they were.  Those that check
 * foreign keys stay.
 */
static List *
disable_triggers(List *relids)
{
	int			n = list_length(relids);
	Datum	   *elems = palloc_array(Datum, n);
	Oid			type = OIDARRAYOID;
	Datum		array;
	List	   *disable = NIL;
	List	   *enable = NIL;
	ListCell   *lc;

	foreach(lc, relids)
		elems[foreach_current_index(lc)] = ObjectIdGetDatum(lfirst_oid(lc));
	array = PointerGetDatum(construct_array(elems, n, OIDOID, sizeof(Oid), true,
											TYPALIGN_INT));
	if (SPI_execute_with_args("SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname),"
							  " format('ALTER TABLE %s ENABLE %s TRIGGER %I', tgrelid::regclass,"
							  " CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END, tgname)"
							  " FROM pg_trigger"
							  " WHERE tgrelid = ANY ($1) AND NOT tgisinternal AND tgenabled <> 'D'",
							  1, &type, &array, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the triggers");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];

		disable = lappend(disable, SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1));
		enable = lappend(enable, SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2));
	}
	foreach(lc, disable)
		shard_execute("%s", (char *) lfirst(lc));
	return enable;
}

/*
 * Insert the rows of the old shards into the logical table.  Returns their
 * number.
 */
static uint64
move_rows(Oid relid, List *shards)
{
	Relation	logical = table_open(relid, NoLock);
	TupleDesc	desc = RelationGetDescr(logical);
	StringInfoData columns;
	uint64		total = 0;
	ListCell   *lc;

	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !att->attgenerated)
			appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
							 quote_identifier(NameStr(att->attname)));
	}
	table_close(logical, NoLock);

	foreach(lc, shards)
	{
		Oid			shard = lfirst_oid(lc);

		shard_execute("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM ONLY %s",
					  shard_qualified_name(relid),
					  columns.data, columns.data, shard_qualified_name(shard));
		total += SPI_processed;
		ereport(NOTICE,
				(errmsg_plural("moved " UINT64_FORMAT " row of shard \"%s\" (%d of %d)",
							   "moved " UINT64_FORMAT " rows of shard \"%s\" (%d of %d)",
							   (unsigned long) SPI_processed,
							   SPI_processed, get_rel_name(shard),
							   foreach_current_index(lc) + 1,
							   list_length(shards))));
	}
	pfree(columns.data);
	return total;
}

/*
 * shard_reshard(logical regclass, new_count int)
 *		SQL function reshard(): gives a hash table another number of shards,
 *		and returns the number of rows it has moved.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical
 * table, ERRCODE_INVALID_PARAMETER_VALUE for a count below 1,
 * ERRCODE_PROGRAM_LIMIT_EXCEEDED beyond max_shards,
 * ERRCODE_FEATURE_NOT_SUPPORTED for other routes and for shards that are not
 * ordinary tables, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE for shards that
 * must not be given up, ERRCODE_ACTIVE_SQL_TRANSACTION in a transaction whose
 * snapshot may not show all rows, and what inserting rows and dropping tables
 * raise.
 */
Datum
shard_reshard(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int			count;
	Relation	logical;
	List	   *old_shards;
	List	   *new_shards;
	List	   *triggers;
	Oid			model;
	uint64		nrows;
	ShardIdentity identity;
	ListCell   *lc;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the logical table and the number of shards must not be null")));
	relid = PG_GETARG_OID(0);
	count = PG_GETARG_INT32(1);

	PreventCommandIfReadOnly("reshard()");
	shard_check_owned(relid);
	if (count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot reshard to %d shards", count),
				 errhint("Give a number of at least 1.")));
	/* A row that the snapshot does not show would be dropped unseen. */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot reshard in a transaction of isolation level %s",
						IsolationIsSerializable() ? "SERIALIZABLE" :
						"REPEATABLE READ"),
				 errhint("Use isolation level READ COMMITTED.")));

	logical = table_open(relid, AccessExclusiveLock);
	CheckTableNotInUse(logical, "reshard");
	old_shards = lock_old_shards(logical);

	SPI_connect();
	shard_become_owner(logical, &identity);
	/* Rows go where their keys say, and none is hidden from us. */
	(void) set_config_option("shard_fdw.shard", "-1", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	model = shard_model_shard(relid);
	detach_old_shards(logical, old_shards);
	/* We keep the lock, but ALTER TABLE wants it out of use. */
	table_close(logical, NoLock);
	new_shards = shard_create(relid, count, model);
	triggers = disable_triggers(lappend_oid(list_copy(new_shards), relid));
	nrows = move_rows(relid, old_shards);
	foreach(lc, triggers)
		shard_execute("%s", (char *) lfirst(lc));
	foreach(lc, old_shards)
		shard_execute("DROP TABLE %s", shard_qualified_name(lfirst_oid(lc)));

	shard_be_oneself(&identity);
	SPI_finish();
	PG_RETURN_INT64(nrows);
}
