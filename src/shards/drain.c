/*-------------------------------------------------------------------------
 *
 * drain.c
 *	  Procedure drain(): closes a shard and moves its rows to the open shards,
 *	  some at a time, a transaction each.
 *
 * A batch is the rows of some consecutive blocks.  They are inserted into the
 * logical table, whose route says where they go, and then deleted from the
 * shard one by one.  Nobody else can write the shard meanwhile, so what is
 * deleted is what has been inserted.  A transaction sees each row once, in the
 * one place or in the other, whatever its snapshot is.
 *
 * What has been moved is gone from the shard.  So a run that has ended early
 * has left nothing to be cleared up, and the next one goes on.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"
#include "write/write.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_constraint.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_drain);

/* A run. */
typedef struct Draining
{
	Oid			shard;
	char	   *name;
	Oid			logical;
	int			batch_size;
	BlockNumber next;			/* the first block that has not been read */
	uint64		nrows;			/* rows moved since the first block was read */
	uint64		total;
} Draining;

/*
 * Raise an error because the shard cannot be drained.
 */
static void
report_cannot(const Draining *d, int code, const char *detail,
			  const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("cannot drain shard \"%s\" of foreign table \"%s\"",
					d->name, get_rel_name(d->logical)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Does a foreign key point to the table?
 */
static bool
is_referenced(Oid relid)
{
	Relation	catalog = table_open(ConstraintRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData keys[2];
	bool		result;

	ScanKeyInit(&keys[0], Anum_pg_constraint_confrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_constraint_contype, BTEqualStrategyNumber,
				F_CHAREQ, CharGetDatum(CONSTRAINT_FOREIGN));
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 2, keys);
	result = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Raise an error if the open shards would not take ids of this one.
 *
 * Ids of option "sequence" with value "always" say which shard they belong to.
 * On route "hash" the key says another thing.
 */
static void
check_ids(const Draining *d, const ShardTable *table,
		  const ShardMember *member)
{
	bool		has_slots = false;
	bool		has_same = false;

	if (!table->seq_always)
		return;
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *other = &table->members[i];

		if (!other->is_open || other->relid == d->shard || other->stride == 0)
			continue;
		has_slots = true;
		has_same |= other->stride == member->stride &&
			other->id_slot == member->id_slot && member->is_id_slot_valid;
	}
	if (has_slots && (!has_same || table->route == SHARD_ROUTE_HASH))
		report_cannot(d, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  "Constraints \"shard_slot\" of the open shards allow ids of other slots only.",
					  "Drop these constraints with SELECT shard_fdw.run_command_on_shards(..., 'ALTER TABLE %s DROP CONSTRAINT IF EXISTS shard_slot'). From then on, queries by id read all shards.");
}

/*
 * Raise an error if a column of the shard would be lost.
 */
static void
check_columns(const Draining *d, Relation shard)
{
	TupleDesc	desc = RelationGetDescr(shard);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !att->attgenerated &&
			get_attnum(d->logical, NameStr(att->attname)) == InvalidAttrNumber)
			report_cannot(d, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						  psprintf("It has a column \"%s\" that the foreign table has not, whose values would be lost.",
								   NameStr(att->attname)),
						  "Add the column to the foreign table, or drop it from the shard.");
	}
}

/*
 * Find the logical table of a shard of the caller's, and lock it against being
 * dropped.
 */
static void
find_logical(Draining *d)
{
	List	   *parents;

	shard_check_to_alter(d->shard, false);
	parents = shard_logical_parents(d->shard);
	d->logical = linitial_oid(parents);
	d->name = get_rel_name(d->shard);
	if (list_length(parents) > 1)
		report_cannot(d, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "It is a shard of another foreign table, too.",
					  "Detach it from one of them.");
	LockRelationOid(d->logical, AccessShareLock);
	shard_check_owned(d->logical);
}

/*
 * Raise an error unless the rows of the shard, which is locked, can be moved.
 */
static void
check_shard(const Draining *d)
{
	ShardTable *table = shard_table_get(d->logical);
	int			ordinal = shard_table_find(table, d->shard);
	const ShardMember *member;
	Relation	shard;
	bool		has_other = false;

	if (ordinal < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is no longer a shard of foreign table \"%s\"",
						d->name, get_rel_name(d->logical))));
	member = &table->members[ordinal];
	shard_check_plain(d->logical, member, "drain shards of");
	if (table->commit_order)
		report_cannot(d, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "The foreign table has option \"commit_order\": in another shard the rows would not be in the order of their commits, and consumers would read them once more, or never.",
					  "Close the shard and let consumers read it to its end, or set option \"commit_order\" to false and drop the table's consumers.");
	check_ids(d, table, member);
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *other = &table->members[i];

		if (!other->is_open || i == ordinal)
			continue;
		has_other = true;
		if (!other->is_local && !shard_is_logical(other->relid))
			report_cannot(d, ERRCODE_FEATURE_NOT_SUPPORTED,
						  psprintf("Open shard \"%s\" is on another server, where rows would be committed before they are deleted here.",
								   get_rel_name(other->relid)),
						  "Close it with SELECT shard_fdw.close_shard() until the rows have been moved.");
	}
	if (!has_other)
		report_cannot(d, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  "There is no other open shard that could take its rows.",
					  "Create shards with SELECT shard_fdw.create_shards().");
	if (is_referenced(d->shard))
		report_cannot(d, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "A foreign key points to it.",
					  "Drop the foreign key.");

	shard = table_open(d->shard, AccessShareLock);
	check_columns(d, shard);
	if (shard->rd_tableam->scan_set_tidrange == NULL)
		report_cannot(d, ERRCODE_FEATURE_NOT_SUPPORTED,
					  psprintf("Its table access method \"%s\" cannot read some blocks of a table only.",
							   get_am_name(shard->rd_rel->relam)),
					  "Change the access method of the shard with ALTER TABLE ... SET ACCESS METHOD.");
	CheckCmdReplicaIdentity(shard, CMD_DELETE);
	table_close(shard, NoLock);
}

/*
 * Begin to read the rows from one block to another.
 */
static TableScanDesc
begin_scan(Relation shard, BlockNumber first, BlockNumber end)
{
	ItemPointerData from;
	ItemPointerData to;

	ItemPointerSet(&from, first, FirstOffsetNumber);
	ItemPointerSet(&to, end - 1, MaxOffsetNumber);
	return shard_beginscan_tidrange(shard, GetActiveSnapshot(), &from, &to);
}

/*
 * The end of a range of blocks that begins at d->next and has as many rows as
 * a batch is to have, or goes to the end of the table; *nrows becomes their
 * number.
 */
static BlockNumber
find_batch(const Draining *d, Relation shard, TupleTableSlot *slot,
		   uint64 *nrows)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(shard);
	BlockNumber result = nblocks;
	TableScanDesc scan;

	*nrows = 0;
	if (d->next >= nblocks)
		return nblocks;
	scan = begin_scan(shard, d->next, nblocks);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		BlockNumber block = ItemPointerGetBlockNumber(&slot->tts_tid);

		CHECK_FOR_INTERRUPTS();
		if (*nrows >= d->batch_size && block >= result)
			break;
		(*nrows)++;
		/* A batch ends where a block does. */
		result = block + 1;
	}
	if (*nrows < d->batch_size)
		result = nblocks;
	ExecClearTuple(slot);
	table_endscan(scan);
	return result;
}

/*
 * Delete the rows of some blocks.  Returns how many there were.
 */
static uint64
delete_rows(const Draining *d, Relation shard, TupleTableSlot *slot,
			BlockNumber end)
{
	TableScanDesc scan = begin_scan(shard, d->next, end);
	CommandId	cid = GetCurrentCommandId(true);
	uint64		result = 0;

	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		TM_FailureData tmfd;

		CHECK_FOR_INTERRUPTS();
		if (shard_tuple_move_away(shard, &slot->tts_tid, cid,
								  GetActiveSnapshot(), &tmfd) != TM_Ok)
			elog(ERROR, "could not delete a row of a locked table");
		result++;
	}
	ExecClearTuple(slot);
	table_endscan(scan);
	return result;
}

/*
 * Insert the rows of some blocks into the logical table.
 */
static void
insert_rows(const Draining *d, BlockNumber end)
{
	Relation	logical = table_open(d->logical, NoLock);
	char	   *columns = shard_column_list(logical, "", false);

	table_close(logical, NoLock);
	shard_begin_moving(d->logical);
	PG_TRY();
	{
		shard_execute("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM ONLY %s"
					  " WHERE ctid >= '(%u,0)' AND ctid < '(%u,0)'",
					  shard_qualified_name(d->logical), columns, columns,
					  shard_qualified_name(d->shard), d->next, end);
	}
	PG_FINALLY();
	{
		shard_begin_moving(InvalidOid);
	}
	PG_END_TRY();
}

/*
 * Tell which rows an error is about.
 */
static void
report_moving(void *name)
{
	errcontext("while moving rows of shard \"%s\"", (char *) name);
}

/*
 * Move a batch of rows.  SPI is connected.  The shard is locked.
 */
static void
move_batch(Draining *d)
{
	Relation	logical = table_open(d->logical, NoLock);
	Relation	shard = table_open(d->shard, NoLock);
	TupleTableSlot *slot = table_slot_create(shard, NULL);
	uint64		nrows;
	BlockNumber end;
	ShardIdentity identity;
	ErrorContextCallback callback;

	shard_become_owner(logical, &identity);
	table_close(logical, NoLock);
	/* Rows go where their route says, and none is hidden from us. */
	shard_set("shard_fdw.shard", "-1");
	shard_set("row_security", "off");
	/* The blocks are few, even if the planner does not know it. */
	shard_set("enable_seqscan", "off");
	shard_set("max_parallel_workers_per_gather", "0");
	callback.callback = report_moving;
	callback.arg = d->name;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	end = find_batch(d, shard, slot, &nrows);
	if (nrows > 0)
	{
		insert_rows(d, end);
		if (SPI_processed != nrows || delete_rows(d, shard, slot, end) != nrows)
			elog(ERROR, "rows of a locked table have changed");
		/* What is deferred must not fail when we commit. */
		shard_execute("SET CONSTRAINTS ALL IMMEDIATE");
	}
	d->next = end;
	d->nrows += nrows;
	d->total += nrows;
	shard_progress_add(nrows);

	error_context_stack = callback.previous;
	ExecDropSingleTupleTableSlot(slot);
	table_close(shard, NoLock);
	shard_restore_identity(&identity);
}

/*
 * Close the shard, unless it is closed or sealed.
 */
static void
close_first(Draining *d)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	find_logical(d);
	check_shard(d);
	if (shard_table_get(d->logical)->members[shard_table_find(shard_table_get(d->logical),
															  d->shard)].is_open)
		(void) shard_close(d->shard);
	PopActiveSnapshot();
}

/*
 * Move the next rows.  Returns false if the shard has been found to have none.
 */
static bool
advance(Draining *d)
{
	BlockNumber nblocks;
	Relation	shard;
	int			ordinal;
	ShardTable *table;

	shard_check_read_committed("drain a shard");
	find_logical(d);
	shard_lock_patiently(d->shard, ExclusiveLock);
	/* Somebody may have dropped it, or given it away, meanwhile. */
	find_logical(d);
	PushActiveSnapshot(GetTransactionSnapshot());
	check_shard(d);
	table = shard_table_get(d->logical);
	ordinal = shard_table_find(table, d->shard);
	if (table->members[ordinal].is_open)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" has been opened", d->name),
				 errdetail("Its rows would not all move to other shards.")));
	move_batch(d);
	shard = table_open(d->shard, NoLock);
	nblocks = RelationGetNumberOfBlocks(shard);
	table_close(shard, NoLock);
	PopActiveSnapshot();
	if (d->next < nblocks)
		return true;
	/* An update, or an insert by the shard's name, may have used free space. */
	if (d->nrows == 0)
		return false;
	d->next = 0;
	d->nrows = 0;
	return true;
}

/*
 * shard_drain(shard regclass, batch_size int)
 *		SQL procedure drain(): closes a shard, and moves its rows to the open
 *		shards of its logical table, about so many in a transaction.
 *
 * Raises ERRCODE_ACTIVE_SQL_TRANSACTION in a transaction block and for other
 * isolation levels than READ COMMITTED, ERRCODE_INVALID_PARAMETER_VALUE for a
 * batch size below 1, ERRCODE_WRONG_OBJECT_TYPE if the table is no shard,
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it and the logical
 * table, ERRCODE_OBJECT_IN_USE while another session drains it,
 * ERRCODE_FEATURE_NOT_SUPPORTED and ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
 * if its rows cannot be moved, and what shard_lock_patiently(), closing a
 * shard and inserting rows raise.
 */
Datum
shard_drain(PG_FUNCTION_ARGS)
{
	Draining	d = {0};
	LOCKTAG		tag;
	bool		has_more;

	shard_check_argument(fcinfo, 0, "shard");
	shard_check_argument(fcinfo, 1, "parameter \"batch_size\"");
	PreventCommandIfReadOnly("drain()");
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("drain() cannot be called in a transaction block"),
				 errdetail("It commits after each batch of rows.")));
	d.shard = PG_GETARG_OID(0);
	d.batch_size = PG_GETARG_INT32(1);
	if (d.batch_size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch size must be greater than zero")));
	shard_check_read_committed("drain a shard");
	shard_check_to_alter(d.shard, false);
	shard_command_tag(&tag, d.shard);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("drain() is running on shard \"%s\" already",
						get_rel_name(d.shard))));

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	close_first(&d);
	shard_progress_start("drain", d.logical,
						 shard_count_rows(list_make1_oid(d.shard)));
	shard_progress_phase("moving rows");
	SPI_commit();
	do
	{
		CHECK_FOR_INTERRUPTS();
		has_more = advance(&d);
		SPI_commit();
	} while (has_more);
	shard_progress_end();
	LockRelease(&tag, ExclusiveLock, true);
	ereport(NOTICE,
			(errmsg_plural("moved " UINT64_FORMAT " row of shard \"%s\"",
						   "moved " UINT64_FORMAT " rows of shard \"%s\"",
						   (unsigned long) d.total, d.total, d.name)));
	SPI_finish();
	PG_RETURN_VOID();
}
