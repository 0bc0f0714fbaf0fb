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
#include "shards/shards_private.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_publication.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_reshard);

/* What the names of things that are about to go start with. */
#define RENAMED "reshard"

/*
 * Complain that something would be lost with a shard that its successors do
 * not get.
 */
static void
report_attachment(Relation logical, Relation shard, const char *detail,
				  const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("shard \"%s\" of foreign table \"%s\" cannot be replaced",
					RelationGetRelationName(shard),
					RelationGetRelationName(logical)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Raise an error unless the locked shard can be given up for new ones that are
 * made like it and to which the rows are copied as they are.
 */
static void
check_old_shard(Relation logical, Relation shard, const ShardMember *member)
{
	const char *name = RelationGetRelationName(shard);

	shard_check_plain(RelationGetRelid(logical), member, "reshard");
	if (!member->is_open)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" of foreign table \"%s\" is %s", name,
						RelationGetRelationName(logical),
						shard_state_name(member->state)),
				 errdetail("Its rows would move to shards that are not."),
				 errhint("Open it with SELECT shard_fdw.%s().",
						 member->state == SHARD_CLOSED ? "open_shard" :
						 "unseal")));
	for (int i = 0; i < RelationGetNumberOfAttributes(shard); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(shard), i);

		if (!att->attisdropped && att->attidentity != '\0')
			report_attachment(logical, shard,
							  psprintf("Its column \"%s\" is an identity column, whose new sequence would begin anew.",
									   NameStr(att->attname)),
							  "Use option \"sequence\" of the column, or a default with nextval().");
	}
	if (shard->rd_rel->relrowsecurity)
		report_attachment(logical, shard, "It has row-level security.",
						  "Disable it, and create its policies on the new shards.");
	CheckTableNotInUse(shard, "reshard");
}

/*
 * shard_check_replaceable
 *		Raise an error unless a locked shard of a logical table can be replaced
 *		by others that are made like it, to which its rows are copied as they
 *		are.
 */
void
shard_check_replaceable(Oid logical, const ShardMember *member)
{
	Relation	rel = table_open(logical, NoLock);
	Relation	shard = table_open(member->relid, NoLock);

	check_old_shard(rel, shard, member);
	if (shard->rd_rules != NULL)
		report_attachment(rel, shard, "It has rules.", "Drop its rules.");
	if (list_length(shard_parents(member->relid)) > 1)
		report_attachment(rel, shard, "It inherits from another table, too.",
						  "Detach it from that table.");
	table_close(shard, NoLock);
	table_close(rel, NoLock);
}

/*
 * The same for one whose rows are inserted into the logical table anew.
 */
static void
check_shard_to_empty(Relation logical, const ShardMember *member)
{
	Relation	shard = table_open(member->relid, NoLock);
	const char *name = RelationGetRelationName(shard);
	TupleDesc	desc = RelationGetDescr(shard);

	check_old_shard(logical, shard, member);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !att->attgenerated &&
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
	if (shard_is_published(RelationGetRelid(shard)))
		report_attachment(logical, shard, "It belongs to a publication.",
						  "Drop it from the publication, and add the new shards.");
	table_close(shard, NoLock);
}

/*
 * shard_check_reshardable
 *		Raise an error unless a logical table is one whose shards can be replaced
 *		by others.
 */
void
shard_check_reshardable(Oid relid)
{
	ShardTable *table = shard_table_get(relid);

	if (table->route != SHARD_ROUTE_HASH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table \"%s\" has route \"%s\"",
						get_rel_name(relid),
						shard_route_name(table->route)),
				 errdetail("Only with route \"hash\" the number of shards decides where rows are."),
				 errhint("Add shards with SELECT shard_fdw.create_shards().")));
	if (table->commit_order)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot reshard foreign table \"%s\"",
						get_rel_name(relid)),
				 errdetail("It has option \"commit_order\": the rows of a new shard would not be in the order of their commits, and consumers would read them once more."),
				 errhint("Set option \"commit_order\" to false, and drop the table's consumers.")));
	if (table->nmembers == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no shards",
						get_rel_name(relid)),
				 errhint("Create shards with SELECT shard_fdw.create_shards().")));
}

/*
 * Check that the shards, which are locked, can be given up.  Returns their
 * OIDs.
 */
static List *
check_old_shards(Relation logical)
{
	Oid			relid = RelationGetRelid(logical);
	List	   *result = find_inheritance_children(relid, NoLock);
	ShardTable *table;

	shard_check_reshardable(relid);
	table = shard_table_get(relid);
	for (int i = 0; i < table->nmembers; i++)
		check_shard_to_empty(logical, &table->members[i]);
	return result;
}

/*
 * Give a relation a name that is in nobody's way.
 */
static void
rename_away(Oid relid)
{
	RenameRelationInternal(relid, psprintf(RENAMED "_%u", relid), true,
						   get_rel_relkind(relid) == RELKIND_INDEX);
	CommandCounterIncrement();
}

/*
 * Take the old shards out of the logical table.  The new ones, their indexes
 * and sequences are to have the names of the old ones, so these get others.
 */
static void
detach_old_shards(Relation logical, List *shards)
{
	ShardTable *table = shard_table_get(RelationGetRelid(logical));
	char	   *column = table->seq_attno == 0 ? NULL :
		get_attname(table->relid, table->seq_attno, false);
	ListCell   *lc;

	foreach(lc, shards)
	{
		Relation	shard;
		char	   *prefix;
		List	   *relids;
		Oid			sequence = column == NULL ? InvalidOid :
			shard_default_sequence(lfirst_oid(lc), column);
		ListCell   *lc2;

		shard_execute("ALTER TABLE %s NO INHERIT %s",
					  shard_qualified_name(lfirst_oid(lc)),
					  shard_qualified_name(RelationGetRelid(logical)));
		shard = table_open(lfirst_oid(lc), NoLock);
		if (has_superclass(lfirst_oid(lc)))
			report_attachment(logical, shard,
							  "It inherits from another table, too.",
							  "Detach it from that table.");
		prefix = psprintf("%s_", RelationGetRelationName(shard));
		relids = list_copy(RelationGetIndexList(shard));
		/* Foreign keys with a name of the user's keep it. */
		foreach(lc2, copyObject(RelationGetFKeyList(shard)))
		{
			Oid			oid = lfirst_node(ForeignKeyCacheInfo, lc2)->conoid;

			if (strncmp(get_constraint_name(oid), prefix, strlen(prefix)) == 0)
				RenameConstraintById(oid, psprintf(RENAMED "_%u", oid));
		}
		table_close(shard, NoLock);
		/* One that the shard only draws from stays, and may be another's. */
		if (list_member_oid(getOwnedSequences(lfirst_oid(lc)), sequence))
			relids = lappend_oid(relids, sequence);
		foreach(lc2, relids)
			rename_away(lfirst_oid(lc2));
		rename_away(lfirst_oid(lc));
	}
}

/*
 * shard_drop_all
 *		Drop shards, all tables or all foreign tables, at once, for they may
 *		refer to each other.  SPI is connected.
 */
void
shard_drop_all(List *shards)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, shards)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
						 shard_qualified_name(lfirst_oid(lc)));
	shard_execute("DROP %sTABLE %s",
				  get_rel_relkind(linitial_oid(shards)) == RELKIND_FOREIGN_TABLE ?
				  "FOREIGN " : "", names.data);
	pfree(names.data);
}

/*
 * shard_try_to_drop
 *		Raise an error now if something depends on the old shards, not when all
 *		rows have been copied.  SPI is connected.
 *
 * The relations in "to_lock" are locked for that moment; the list is empty if
 * the shards are locked already.
 */
void
shard_try_to_drop(List *shards, List *to_lock)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (to_lock != NIL)
			shard_lock_all_patiently(to_lock, AccessExclusiveLock);
		shard_drop_all(shards);
	}
	PG_CATCH();
	{
		/* Whoever catches it expects to be in his own subtransaction. */
		ReThrowError(shard_catch(context, owner));
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/*
 * shard_hand_over_sequences
 *		The sequences that the new shards share, because the model's defaults
 *		draw from them, go over from the old ones to the first of the new.  SPI
 *		is connected.
 */
void
shard_hand_over_sequences(List *shards, Oid first)
{
	Relation	shard = table_open(first, NoLock);
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(shard));
	List	   *owned = NIL;
	ListCell   *lc;

	foreach(lc, shards)
		owned = list_concat(owned, getOwnedSequences(lfirst_oid(lc)));

	table_close(shard, NoLock);
	for (int i = 0; i < desc->natts; i++)
	{
		const char *column = NameStr(TupleDescAttr(desc, i)->attname);
		Oid			sequence = TupleDescAttr(desc, i)->attisdropped ?
			InvalidOid : shard_default_sequence(first, column);

		if (!list_member_oid(owned, sequence))
			continue;
		if (get_rel_namespace(sequence) != get_rel_namespace(first))
		{
			/* One that is owned stays in its owner's schema. */
			shard_execute("ALTER SEQUENCE %s OWNED BY NONE",
						  shard_qualified_name(sequence));
			shard_execute("ALTER SEQUENCE %s SET SCHEMA %s",
						  shard_qualified_name(sequence),
						  quote_identifier(get_namespace_name(get_rel_namespace(first))));
		}
		shard_execute("ALTER SEQUENCE %s OWNED BY %s.%s",
					  shard_qualified_name(sequence),
					  shard_qualified_name(first), quote_identifier(column));
	}
}

/*
 * Disable the triggers of the logical table, for they have seen the rows
 * before.  Returns them as they were, or NULL.
 */
static TriggerDesc *
disable_triggers(Oid relid)
{
	Relation	logical = table_open(relid, NoLock);
	TriggerDesc *triggers = CopyTriggerDesc(logical->trigdesc);

	table_close(logical, NoLock);
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		shard_set_trigger_state(relid, triggers->triggers[i].tgname,
								TRIGGER_DISABLED);
	return triggers;
}

/*
 * Let triggers fire again as they did before disable_triggers().
 */
static void
enable_triggers(Oid relid, const TriggerDesc *triggers)
{
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		shard_set_trigger_state(relid, triggers->triggers[i].tgname,
								triggers->triggers[i].tgenabled);
}

/*
 * shard_free_ids
 *		Let new shards take ids that old ones have given: any, that is.  SPI is
 *		connected.
 */
void
shard_free_ids(Oid relid, List *shards)
{
	ListCell   *lc;

	if (!shard_table_get(relid)->seq_always)
		return;
	foreach(lc, shards)
		shard_execute("ALTER TABLE %s DROP CONSTRAINT shard_slot",
					  shard_qualified_name(lfirst_oid(lc)));
}

/*
 * Insert the rows of the old shards into the logical table.  Returns their
 * number.
 */
static uint64
move_rows(Oid relid, List *shards, List *names)
{
	Relation	logical = table_open(relid, NoLock);
	char	   *columns = shard_column_list(logical, "", false);
	uint64		total = 0;
	ListCell   *lc;

	table_close(logical, NoLock);
	foreach(lc, shards)
	{
		Oid			shard = lfirst_oid(lc);

		shard_execute("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM ONLY %s",
					  shard_qualified_name(relid),
					  columns, columns, shard_qualified_name(shard));
		total += SPI_processed;
		shard_progress_add(SPI_processed);
		ereport(NOTICE,
				(errmsg_plural("moved " UINT64_FORMAT " row of shard \"%s\" (%d of %d)",
							   "moved " UINT64_FORMAT " rows of shard \"%s\" (%d of %d)",
							   (unsigned long) SPI_processed,
							   SPI_processed,
							   (char *) list_nth(names, foreach_current_index(lc)),
							   foreach_current_index(lc) + 1,
							   list_length(shards))));
	}
	return total;
}

/*
 * shard_count_rows
 *		How many rows some shards have, by the statistics.
 */
int64
shard_count_rows(List *shards)
{
	double		result = 0;
	ListCell   *lc;

	foreach(lc, shards)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID,
											ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			continue;
		result += Max(((Form_pg_class) GETSTRUCT(tuple))->reltuples, 0);
		ReleaseSysCache(tuple);
	}
	return (int64) result;
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
 * snapshot may not show all rows, and what shard_lock_tree_patiently(),
 * inserting rows and dropping tables raise.
 */
Datum
shard_reshard(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int			count;
	Relation	logical;
	Relation	source;
	List	   *old_shards;
	List	   *old_names = NIL;
	List	   *new_shards;
	TriggerDesc *triggers;
	Oid			model;
	Oid			schema;
	uint64		nrows;
	ShardOptions options;
	ShardIdentity identity;
	ListCell   *lc;

	shard_check_count(fcinfo, "reshard()", false);
	relid = PG_GETARG_OID(0);
	count = PG_GETARG_INT32(1);
	/* A row that the snapshot does not show would be dropped unseen. */
	shard_check_read_committed("reshard");

	(void) shard_lock_tree_patiently(relid, AccessExclusiveLock);
	shard_check_owned(relid);
	logical = table_open(relid, NoLock);
	CheckTableNotInUse(logical, "reshard");
	shard_get_options(relid, &options);
	shard_check_max_shards(logical, &options, 0, count);
	old_shards = check_old_shards(logical);
	foreach(lc, old_shards)
		old_names = lappend(old_names, get_rel_name(lfirst_oid(lc)));

	SPI_connect();
	shard_become_owner(logical, &identity);
	shard_progress_start("reshard", relid, shard_count_rows(old_shards));
	shard_progress_phase("creating shards");
	/* Rows go where their keys say, and none is hidden from us. */
	shard_set("shard_fdw.shard", "-1");
	shard_set("row_security", "off");

	model = shard_model_shard(relid);
	schema = shard_new_schema(relid, &options, model);
	detach_old_shards(logical, old_shards);
	/* We keep the lock, but ALTER TABLE wants it out of use. */
	table_close(logical, NoLock);
	shard_try_to_drop(old_shards, NIL);

	/* Without foreign keys, which are checked faster, and at once, later. */
	new_shards = shard_create(relid, count, model, schema, NIL, false);
	shard_free_ids(relid, new_shards);
	triggers = disable_triggers(relid);
	shard_progress_phase("moving rows");
	nrows = move_rows(relid, old_shards, old_names);
	shard_progress_phase("adding constraints and triggers");
	enable_triggers(relid, triggers);
	source = table_open(model, NoLock);
	foreach(lc, new_shards)
		shard_clone_checks(source, RENAMED, lfirst_oid(lc));
	table_close(source, NoLock);

	logical = table_open(relid, NoLock);
	shard_reset_shards(logical, NULL);
	table_close(logical, NoLock);
	shard_hand_over_sequences(old_shards, linitial_oid(new_shards));
	shard_progress_phase("dropping old shards");
	shard_drop_all(old_shards);
	shard_progress_end();

	shard_restore_identity(&identity);
	SPI_finish();
	PG_RETURN_INT64(nrows);
}
