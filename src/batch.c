/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Many rows at once: batches of INSERT, and the buffers of COPY.
 *
 * Rows are collected per shard and written with table_multi_insert(), which
 * locks and logs a page once instead of once a row.  Who collects them:
 *
 * - INSERT of several rows: we do.  Core's own batching of foreign inserts
 *	 would copy every row twice and keep up to batch_size of them, however
 *	 wide.  But we use its end: a result relation in the executor's list of
 *	 pending inserts gets a call of ExecForeignBatchInsert before anybody may
 *	 look, that is before triggers fire and at the end of the command.
 *
 * - COPY from PostgreSQL 16 on: core does, and hands over batches.
 *
 * - COPY on PostgreSQL 15: we do.  Core calls nothing between the last row
 *	 and the firing of the AFTER triggers, so only where nobody can tell: no
 *	 triggers on the logical table, no row triggers on the shard (foreign keys
 *	 have some, too), no volatile expression in the command.  What is left at
 *	 the end is written by EndForeignInsert.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_fdw.h"

#include "access/hio.h"
#include "access/tableam.h"
#include "commands/copyfrom_internal.h"
#include "commands/trigger.h"
#include "optimizer/optimizer.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * Rows that wait take about this much memory, at most: those of one shard, and
 * all together.
 *
 * Statements of some thousand rows get by with less: for one shard, with what
 * fills a page or two with narrow rows.  What such a statement allocates over
 * and above its plan, the C library is likely to give back to the system at
 * its end, and the next one pays for having it faulted in again.
 */
#define MAX_SHARD_BYTES				(256 * 1024)
#define MAX_BYTES					(512 * 1024)
#define MAX_SHARD_BYTES_AT_FIRST	(32 * 1024)
#define MAX_BYTES_AT_FIRST			(64 * 1024)
#define FLUSHES_AT_FIRST			32

/*
 * shard_is_single_row
 *		Is a plan that of VALUES of one row?
 */
bool
shard_is_single_row(Plan *plan)
{
	return IsA(plan, Result) && outerPlan(plan) == NULL;
}

/*
 * shard_batch_size
 *		How many rows the statement writes to a shard at once, at most.
 *
 * 1 wherever somebody could tell the difference, and for a statement that
 * inserts one row, which would pay for nothing.
 */
int
shard_batch_size(ShardInsert *insert)
{
	ResultRelInfo *root = insert->root;
	Plan	   *plan = insert->mtstate->ps.plan;

	if (!insert->may_batch || insert->on_conflict != ONCONFLICT_NONE)
		return 1;

	/* Core wants these done row by row. */
	if (root->ri_projectReturning != NULL ||
		root->ri_WithCheckOptions != NIL ||
		(root->ri_TrigDesc != NULL &&
		 (root->ri_TrigDesc->trig_insert_before_row ||
		  root->ri_TrigDesc->trig_insert_after_row)))
		return 1;

	/* A trigger or constraint of a shard is to see the rows before its own. */
	if (insert->table->sees_rows)
		return 1;

	/* A shard of another logical table leaves it to that one. */
	if (root->ri_RangeTableIndex == 0)
		return 1;

	if (plan != NULL && shard_is_single_row(outerPlan(plan)))
		return 1;

	return insert->table->batch_size;
}

/*
 * shardGetForeignModifyBatchSize
 *		How many rows core is to collect before it hands them over.
 */
int
shardGetForeignModifyBatchSize(ResultRelInfo *rri)
{
	ShardInsert *insert = rri->ri_FdwState;

	return insert != NULL && insert->is_copy ? shard_batch_size(insert) : 1;
}

/*
 * Make room for one more row that waits to be written to the shard.
 */
static void
enlarge_pending(ShardInsert *insert, ShardTarget *target)
{
	int			max = Max(target->max_pending * 2, 64);

	if (target->max_pending == 0)
	{
		MemoryContext oldcontext;

		oldcontext = MemoryContextSwitchTo(insert->estate->es_query_cxt);
		target->pending = palloc(sizeof(TupleTableSlot *) * max);
		target->linenos = palloc(sizeof(uint64) * max);
		target->slots = palloc(sizeof(TupleTableSlot *) * max);
		MemoryContextSwitchTo(oldcontext);
	}
	else
	{
		target->pending = repalloc(target->pending,
								   sizeof(TupleTableSlot *) * max);
		target->linenos = repalloc(target->linenos, sizeof(uint64) * max);
		target->slots = repalloc(target->slots,
								 sizeof(TupleTableSlot *) * max);
	}
	target->max_pending = max;
}

/*
 * A slot of ours that will hold the next pending row.
 */
static TupleTableSlot *
next_slot(ShardInsert *insert, ShardTarget *target)
{
	Assert(target->npending < target->max_pending);
	while (target->nslots <= target->npending)
	{
		/* A descriptor of its own spares the resource owner the slots. */
		TupleDesc	desc = target->nslots > 0 ?
			target->slots[0]->tts_tupleDescriptor :
			CreateTupleDescCopy(RelationGetDescr(target->rri->ri_RelationDesc));

		target->slots[target->nslots++] =
			MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	}
	return target->slots[target->npending];
}

/*
 * Let "row", in the shard's layout and checked, wait to be written.  Unless
 * it stays put until then, it is copied.  Returns the bytes it takes here.
 */
static Size
add_pending(ShardInsert *insert, ShardTarget *target, TupleTableSlot *row,
			bool stays)
{
	MemoryContext oldcontext;
	Size		size = 0;

	if (target->npending == target->max_pending)
		enlarge_pending(insert, target);

	if (!stays)
	{
		TupleTableSlot *copy;
		int			natts = row->tts_tupleDescriptor->natts;

		oldcontext = MemoryContextSwitchTo(insert->estate->es_query_cxt);
		copy = next_slot(insert, target);
		MemoryContextSwitchTo(oldcontext);
		if (TTS_IS_HEAPTUPLE(row) && ((HeapTupleTableSlot *) row)->tuple != NULL)
			ExecCopySlot(copy, row);
		else
		{
			/* Make the tuple here, rather than copy one made for the row. */
			slot_getallattrs(row);
			memcpy(copy->tts_values, row->tts_values, natts * sizeof(Datum));
			memcpy(copy->tts_isnull, row->tts_isnull, natts * sizeof(bool));
			ExecStoreVirtualTuple(copy);
			ExecMaterializeSlot(copy);
		}
		copy->tts_tableOid = row->tts_tableOid;
		size = ((HeapTupleTableSlot *) copy)->tuple->t_len +
			sizeof(HeapTupleTableSlot) + natts * (sizeof(Datum) + sizeof(bool));
		row = copy;
	}
	target->pending[target->npending++] = row;
	return size;
}

/*
 * A shard in storage that this transaction has created has no free space
 * worth looking for.
 */
static int
insert_options(Relation rel)
{
	return rel->rd_createSubid != InvalidSubTransactionId ||
		shard_rel_new_storage_subid(rel) != InvalidSubTransactionId ?
		TABLE_INSERT_SKIP_FSM : 0;
}

static void
write_local(ShardInsert *insert, ShardTarget *target)
{
	EState	   *estate = insert->estate;
	ResultRelInfo *rri = target->rri;
	Relation	rel = rri->ri_RelationDesc;
	CopyFromState copy = insert->copy;
	bool		has_after_row = rri->ri_TrigDesc != NULL &&
		rri->ri_TrigDesc->trig_insert_after_row;
	MemoryContext oldcontext;

	/*
	 * COPY goes through a small ring of buffers, so that a bulk load does not
	 * push everything else out of memory.  INSERT does not, as in core.
	 */
	if (insert->is_copy && target->bistate == NULL)
	{
		oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);
		target->bistate = GetBulkInsertState();
		/* One ring for all shards, or it would not be small. */
		FreeAccessStrategy(target->bistate->strategy);
		if (insert->ring == NULL)
			insert->ring = GetAccessStrategy(BAS_BULKWRITE);
		target->bistate->strategy = insert->ring;
		MemoryContextSwitchTo(oldcontext);
	}

	oldcontext = MemoryContextSwitchTo(insert->batch_context);
	table_multi_insert(rel, target->pending, target->npending, insert->cid,
					   insert_options(rel), target->bistate);
	MemoryContextSwitchTo(oldcontext);

	if (rri->ri_NumIndices == 0 && !has_after_row)
		return;
	for (int i = 0; i < target->npending; i++)
	{
		TupleTableSlot *row = target->pending[i];
		List	   *recheck = NIL;

		if (copy != NULL)
			copy->cur_lineno = target->linenos[i];
		if (rri->ri_NumIndices > 0)
			recheck = shard_insert_index_tuples(rri, row, estate, NULL, NIL);
		if (has_after_row)
			ExecARInsertTriggers(estate, rri, row, recheck, NULL);
		list_free(recheck);
	}
	ResetPerTupleExprContext(estate);
}

/*
 * Error context for rows that another server takes together: any of them may
 * be at fault, so name no line.
 */
static void
name_no_line(void *arg)
{
	errcontext("COPY %s", ((CopyFromState) arg)->cur_relname);
}

static void
write_foreign(ShardInsert *insert, ShardTarget *target)
{
	EState	   *estate = insert->estate;
	ResultRelInfo *rri = target->rri;
	int			done = 0;
	ErrorContextCallback *copy_callback = error_context_stack;
	ErrorContextCallback callback;

	/* Takes the place of the COPY's own. */
	if (insert->copy != NULL && rri->ri_BatchSize > 1)
	{
		callback.callback = name_no_line;
		callback.arg = insert->copy;
		callback.previous = copy_callback->previous;
		error_context_stack = &callback;
	}

	while (done < target->npending)
	{
		TupleTableSlot **rows = &target->pending[done];
		int			n = Min(rri->ri_BatchSize, target->npending - done);
		int			written = n;

		if (insert->copy != NULL)
			insert->copy->cur_lineno = target->linenos[done];
		if (rri->ri_BatchSize > 1)
			rows = rri->ri_FdwRoutine->ExecForeignBatchInsert(estate, rri,
															  rows, NULL,
															  &written);
		else
		{
			TupleTableSlot *row;

			row = rri->ri_FdwRoutine->ExecForeignInsert(estate, rri, rows[0],
														NULL);
			if (row == NULL)
				written = 0;
			else
				rows[0] = row;
		}
		for (int i = 0; i < written; i++)
		{
			rows[i]->tts_tableOid = RelationGetRelid(rri->ri_RelationDesc);
			ExecARInsertTriggers(estate, rri, rows[i], NIL, NULL);
		}
		done += n;
	}
	error_context_stack = copy_callback;
}

/*
 * shard_batch_flush
 *		Write all rows that wait, to all shards.
 */
void
shard_batch_flush(ShardInsert *insert)
{
	CopyFromState copy = insert->copy;
	bool		line_buf_valid = false;
	uint64		lineno = 0;
	ListCell   *lc;

	if (copy != NULL)
	{
		/*
		 * As core's buffers do it: errors name the line of the row at fault,
		 * not the line that was read last.
		 */
		line_buf_valid = copy->line_buf_valid;
		lineno = copy->cur_lineno;
		copy->line_buf_valid = false;
	}

	foreach(lc, insert->targets)
	{
		ShardTarget *target = lfirst(lc);

		if (target->npending == 0)
			continue;
		if (target->rri->ri_FdwRoutine != NULL)
			write_foreign(insert, target);
		else
			write_local(insert, target);
		target->nrows += target->npending;
		for (int i = 0; i < Min(target->npending, target->nslots); i++)
			ExecClearTuple(target->slots[i]);
		target->npending = 0;
		target->pending_bytes = 0;
	}

	if (copy != NULL)
	{
		copy->line_buf_valid = line_buf_valid;
		copy->cur_lineno = lineno;
	}
	insert->nflushes++;
	insert->nbuffered = 0;
	insert->buffered_bytes = 0;
	MemoryContextReset(insert->batch_context);
}

/*
 * shard_copy_end
 *		Write what a COPY has left in the buffers.
 */
void
shard_copy_end(ShardInsert *insert)
{
	ErrorContextCallback callback;

	if (insert->nbuffered == 0)
		return;
	/* Core has removed its own after the last line. */
	callback.callback = CopyFromErrorCallback;
	callback.arg = insert->copy;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	shard_batch_flush(insert);
	error_context_stack = callback.previous;
}

/*
 * Find the running COPY, refuse what cannot be done, and decide whether to
 * collect its rows if they come one by one.
 *
 * Core passes the FDW no handle on the COPY, but has its error callback on
 * top of the stack.
 */
static bool
copy_may_collect(ShardInsert *insert)
{
	ResultRelInfo *root = insert->root;
	CopyFromState copy;

	if (error_context_stack == NULL ||
		error_context_stack->callback != CopyFromErrorCallback)
		return false;
	copy = error_context_stack->arg;
	if (copy->rel != root->ri_RelationDesc)
		return false;

	if (copy->opts.freeze)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot perform COPY FREEZE on foreign table \"%s\"",
						RelationGetRelationName(root->ri_RelationDesc)),
				 errhint("Copy into one shard, created or truncated in the same transaction.")));

	if (!shard_copy_is_row_by_row || root->ri_TrigDesc != NULL ||
		copy->volatile_defexprs ||
		contain_volatile_functions(copy->whereClause))
		return false;
	insert->copy = copy;
	return true;
}

/*
 * At the first row: decide whether we collect rows.
 */
static void
init_collecting(ShardInsert *insert)
{
	insert->is_init = true;
	insert->collects = shard_batch_size(insert) > 1;
	if (insert->is_copy && !copy_may_collect(insert))
		insert->collects = false;
	/* COPY may hand over batches that we have not collected. */
	if (insert->collects || insert->is_copy)
		insert->batch_context =
			AllocSetContextCreate(insert->estate->es_query_cxt,
								  "shard_fdw batch", ALLOCSET_DEFAULT_SIZES);
}

/*
 * Have the executor call ExecForeignBatchInsert when rows must be written.
 */
static void
register_pending(ShardInsert *insert)
{
	EState	   *estate = insert->estate;
	MemoryContext oldcontext;

	oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);
	estate->es_insert_pending_result_relations =
		lappend(estate->es_insert_pending_result_relations, insert->root);
	estate->es_insert_pending_modifytables =
		lappend(estate->es_insert_pending_modifytables, insert->mtstate);
	MemoryContextSwitchTo(oldcontext);
	insert->is_registered = true;
}

/*
 * shard_collect_row
 *		Let a row wait to be written with others, if that is allowed.
 *
 * Returns false if the caller has to insert the row at once; rows that were
 * waiting have been written then.  Raises what checking and writing rows
 * raises, and ERRCODE_FEATURE_NOT_SUPPORTED for COPY FREEZE.
 */
bool
shard_collect_row(ShardInsert *insert, ShardTarget *target,
				  TupleTableSlot *slot)
{
	TupleTableSlot *row;
	Size		size;
	bool		is_short;

	if (unlikely(!insert->is_init))
		init_collecting(insert);
	if (!insert->collects)
		return false;
	if (!target->can_batch)
	{
		if (insert->nbuffered > 0)
		{
			/* COPY has the row in memory that writing the others resets. */
			ExecMaterializeSlot(slot);
			shard_batch_flush(insert);
		}
		return false;
	}

	row = shard_target_row(insert, target, slot, target->slot);
	shard_check_row(insert, target, row);
	size = add_pending(insert, target, row, false);
	target->pending_bytes += size;
	insert->buffered_bytes += size;
	insert->nbuffered++;
	if (insert->copy != NULL)
		target->linenos[target->npending - 1] = insert->copy->cur_lineno;
	else if (!insert->is_registered)
		register_pending(insert);
	shard_last = RelationGetRelid(target->rri->ri_RelationDesc);

	is_short = insert->nflushes < FLUSHES_AT_FIRST;
	if (target->npending >= insert->table->batch_size ||
		(target->rri->ri_FdwRoutine == NULL &&
		 target->pending_bytes >= (is_short ? MAX_SHARD_BYTES_AT_FIRST :
								   MAX_SHARD_BYTES)) ||
		insert->buffered_bytes >= (is_short ? MAX_BYTES_AT_FIRST : MAX_BYTES))
		shard_batch_flush(insert);
	return true;
}

/*
 * shardExecForeignBatchInsert
 *		Write the rows that we have collected, then those that core hands
 *		over.
 *
 * Returns "slots"; *nslots becomes the number of rows inserted that are not
 * counted yet.  Nobody looks at the rows afterwards: see shard_batch_size().
 */
TupleTableSlot **
shardExecForeignBatchInsert(EState *estate, ResultRelInfo *rri,
							TupleTableSlot **slots,
							TupleTableSlot **plan_slots, int *nslots)
{
	ShardInsert *insert = rri->ri_FdwState;
	int			ninserted = 0;
	MemoryContext oldcontext;

	/*
	 * COPY comes here for the last time in the per-tuple context, which is
	 * reset below, but what other FDWs allocate is to last.
	 */
	oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

	if (!insert->is_init)
		init_collecting(insert);
	for (int i = 0; i < *nslots; i++)
	{
		ShardTarget *target = shard_insert_target(insert, slots[i]);
		TupleTableSlot *row;

		if (!target->can_batch)
		{
			/* A trigger has come up since; it sees the rows before. */
			shard_batch_flush(insert);
			if (shard_insert_row(insert, target, slots[i], NULL) != NULL)
				ninserted++;
			continue;
		}
		row = shard_target_row(insert, target, slots[i], target->slot);
		shard_check_row(insert, target, row);
		add_pending(insert, target, row, row == slots[i]);
		shard_last = RelationGetRelid(target->rri->ri_RelationDesc);
		ResetPerTupleExprContext(estate);
		ninserted++;
	}
	shard_batch_flush(insert);
	/* The executor has emptied its list. */
	insert->is_registered = false;

	MemoryContextSwitchTo(oldcontext);
	*nslots = ninserted;
	return slots;
}

/*
 * shard_batch_end
 *		Release what batches to one shard have used.  All rows are written.
 */
void
shard_batch_end(ShardInsert *insert, ShardTarget *target)
{
	Assert(target->npending == 0);
	if (target->bistate != NULL)
	{
		target->bistate->strategy = NULL;	/* it has other users */
		FreeBulkInsertState(target->bistate);
	}
	if (target->max_pending > 0)
		table_finish_bulk_insert(target->rri->ri_RelationDesc,
								 insert_options(target->rri->ri_RelationDesc));
	for (int i = 0; i < target->nslots; i++)
		ExecDropSingleTupleTableSlot(target->slots[i]);
}
