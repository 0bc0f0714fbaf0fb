/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Many rows at once: batches of INSERT, and the buffers of COPY.
 *
 * Rows are collected per shard and written with table_multi_insert(), which
 * locks and logs a page once instead of once a row.  Where they are collected
 * depends on the command:
 *
 * - INSERT of several rows: we do.  Core's own batching of foreign inserts
 *	 would copy every row twice and keep up to batch_size of them, however
 *	 wide.  But we use its end: a result relation in the executor's list of
 *	 pending inserts gets a call of ExecForeignBatchInsert before anybody may
 *	 look, that is before triggers fire and at the end of the command.
 *
 * - COPY from PostgreSQL 16 on: core does, and hands over batches.
 *
 * - COPY on PostgreSQL 15: we do.  Core does not call us between the last row
 *	 and the firing of the AFTER triggers.  So we collect rows only where this
 *	 cannot be noticed: if there are no triggers on the logical table, no row
 *	 triggers on the shard (foreign keys have some, too), and nothing in the
 *	 command that sees rows.  What is left at the end is written by
 *	 EndForeignInsert.
 *
 * Rows for a shard on another server wait longer: until there are as many as
 * its FDW sends at once.  It prepares a statement for so many rows, and another
 * one if the number changes, so batches that are cut off cost more round trips.
 * On PostgreSQL 16 and later, they wait from one of core's batches to the next
 * under the conditions that there are for COPY on 15.
 *
 * Index entries of rows that have been written may wait still longer: see
 * index_run.c.  Then what has been said about COPY on PostgreSQL 15 applies to
 * newer versions, too.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/hio.h"
#include "access/tableam.h"
#include "commands/copyfrom_internal.h"
#include "commands/trigger.h"
#include "optimizer/optimizer.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"

/*
 * Rows that wait take about this much memory, at most: those of one shard, and
 * all together.
 *
 * Statements of some thousand rows use less: for one shard, as much as fills a
 * page or two with narrow rows.  The C library is likely to give back to the
 * system what such a statement has allocated in addition to its plan, and the
 * next statement pays for the page faults.
 */
#define MAX_SHARD_BYTES				(128 * 1024)
#define MAX_BYTES					(256 * 1024)
#define MAX_SHARD_BYTES_AT_FIRST	(32 * 1024)
#define MAX_BYTES_AT_FIRST			(64 * 1024)
#define FLUSHES_AT_FIRST			32

/* The same for those of shards on other servers, all together. */
#define MAX_REMOTE_BYTES			(8 * 1024 * 1024)

/* Slots for rows that are being written. */
typedef struct ShardSlots
{
	int			nslots;
	TupleTableSlot **slots;
} ShardSlots;

/* Rows collected for table_multi_insert() into one shard. */
typedef struct ShardBuffer
{
	int			nrows;
	int			max_rows;
	HeapTuple  *rows;
	uint64	   *linenos;		/* their COPY lines, if known */
	MemoryContext row_context;	/* holds them; reset after every flush */
	Size		bytes;			/* memory they take */
	BulkInsertState bistate;
	ShardSlots	slots;			/* if the batch's own do not serve */
	ShardTargetRuns *indexes;	/* owned by index_run.c */
} ShardBuffer;

/* All that a statement has collected. */
typedef struct ShardBatch
{
	CopyFromState copy;			/* the COPY whose rows we collect */
	int			nrows;			/* in all buffers together */
	int			nflushes;
	Size		bytes;			/* of rows for shards that are here ... */
	Size		remote_bytes;	/* ... and for those that are elsewhere */
	bool		is_registered;	/* in the executor's list of pending inserts */
	MemoryContext context;		/* reset after every flush */
	ShardSlots	slots;			/* for shards that are like the logical table */
	BufferAccessStrategy ring;	/* what COPY writes through */
	ShardRuns  *runs;			/* index entries that wait, or NULL */
} ShardBatch;

/* About as much memory a row that waits takes besides its tuple. */
#define ROW_OVERHEAD	(sizeof(HeapTuple) + sizeof(uint64) + 3 * sizeof(void *))

/* Rows that are handed to the table access method at once, at most. */
#define MAX_SLOTS		128

/*
 * Has the statement written so little that it may be a short one?
 */
static bool
is_short(ShardBatch *batch)
{
	return batch->nflushes < FLUSHES_AT_FIRST;
}

/*
 * Is the shard a foreign table?
 */
static bool
is_remote(const ShardTarget *target)
{
	return target->rri->ri_FdwRoutine != NULL;
}

/*
 * Make room for one more row that waits to be written to the shard.
 */
static void
enlarge_buffer(ShardInsert *insert, ShardBuffer *buffer)
{
	int			max = Max(buffer->max_rows * 2, 64);

	if (buffer->max_rows == 0)
	{
		MemoryContext query_context = insert->estate->es_query_cxt;

		buffer->rows = MemoryContextAlloc(query_context,
										  sizeof(HeapTuple) * max);
		buffer->linenos = MemoryContextAlloc(query_context,
											 sizeof(uint64) * max);
	}
	else
	{
		buffer->rows = repalloc(buffer->rows, sizeof(HeapTuple) * max);
		buffer->linenos = repalloc(buffer->linenos, sizeof(uint64) * max);
	}
	buffer->max_rows = max;
}

/*
 * The memory for the rows of a shard that wait.
 *
 * The rows of a shard are next to each other and in order.  When they are
 * written, they have left the processor's caches, but it can foresee which is
 * next.
 */
static MemoryContext
row_context(ShardInsert *insert, ShardBuffer *buffer)
{
	Size		size = ALLOCSET_DEFAULT_INITSIZE;

	if (buffer->row_context != NULL)
		return buffer->row_context;

	/*
	 * Long statements keep what they have filled once.  The number of shards
	 * may have become 0 since the row was routed.
	 */
	if (!is_short(insert->batch))
		size = Max(size, insert->current != NULL ? MAX_SHARD_BYTES :
				   Min(MAX_SHARD_BYTES,
					   MAXALIGN(MAX_BYTES / Max(insert->table->nopen, 1))));
	buffer->row_context =
		GenerationContextCreate(insert->estate->es_query_cxt,
								"shard_fdw rows", size, size,
								ALLOCSET_DEFAULT_MAXSIZE);
	return buffer->row_context;
}

/*
 * Let a copy of "row", in the shard's layout and checked, wait to be written.
 */
static void
add_row(ShardInsert *insert, ShardTarget *target, TupleTableSlot *row)
{
	ShardBatch *batch = insert->batch;
	ShardBuffer *buffer = target->buffer;
	MemoryContext oldcontext;
	HeapTuple	tuple;
	Size		size;

	if (unlikely(buffer == NULL))
	{
		target->buffer = buffer =
			MemoryContextAllocZero(insert->estate->es_query_cxt,
								   sizeof(ShardBuffer));
		if (insert->is_copy && target->rri->ri_TrigDesc != NULL &&
			target->rri->ri_TrigDesc->trig_insert_after_row)
			shard_runs_stop(batch->runs);
	}
	if (buffer->nrows == buffer->max_rows)
		enlarge_buffer(insert, buffer);

	oldcontext = MemoryContextSwitchTo(row_context(insert, buffer));
	if (TTS_IS_HEAPTUPLE(row) && ((HeapTupleTableSlot *) row)->tuple != NULL)
		tuple = heap_copytuple(((HeapTupleTableSlot *) row)->tuple);
	else
	{
		/* ExecCopySlotHeapTuple() might make a second copy in the slot. */
		slot_getallattrs(row);
		tuple = heap_form_tuple(row->tts_tupleDescriptor, row->tts_values,
								row->tts_isnull);
	}
	MemoryContextSwitchTo(oldcontext);

	/*
	 * Since its releases of November 2026, core lets a new tuple look like a
	 * composite value, and ExecStoreHeapTuple() would look up its type to
	 * compare versions.  A composite value has the version of its type where
	 * a row has its place in the table, so this tells that it is a row.
	 */
	ItemPointerSetInvalid(&tuple->t_data->t_ctid);

	if (batch->copy != NULL)
		buffer->linenos[buffer->nrows] = batch->copy->cur_lineno;
	buffer->rows[buffer->nrows++] = tuple;
	size = HEAPTUPLESIZE + tuple->t_len + ROW_OVERHEAD;
	buffer->bytes += size;
	if (is_remote(target))
		batch->remote_bytes += size;
	else
		batch->bytes += size;
	batch->nrows++;
	shard_last = target->relid;
}

/*
 * Put the next n of the rows that wait for the shard into slots.
 *
 * A slot is several times as large as a narrow row, so there are slots only
 * for those that are just being written.  Shards with the layout of the
 * logical table share them.
 */
static TupleTableSlot **
fill_slots(ShardInsert *insert, ShardTarget *target, int done, int n)
{
	ResultRelInfo *rri = target->rri;
	ShardSlots *slots = target->map == NULL && rri->ri_TrigDesc == NULL ?
		&insert->batch->slots : &target->buffer->slots;

	if (slots->nslots < n)
	{
		MemoryContext oldcontext;
		TupleDesc	desc;

		oldcontext = MemoryContextSwitchTo(insert->estate->es_query_cxt);
		slots->slots = slots->nslots == 0 ?
			palloc(sizeof(TupleTableSlot *) * n) :
			repalloc(slots->slots, sizeof(TupleTableSlot *) * n);
		/* A copied descriptor is not counted by the resource owner. */
		desc = slots->nslots > 0 ? slots->slots[0]->tts_tupleDescriptor :
			CreateTupleDescCopy(RelationGetDescr(rri->ri_RelationDesc));
		while (slots->nslots < n)
			slots->slots[slots->nslots++] =
				MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(oldcontext);
	}

	for (int i = 0; i < n; i++)
	{
		/* If the slot did not own the tuple, it would be copied once more. */
		ExecStoreHeapTuple(target->buffer->rows[done + i], slots->slots[i], true);
		slots->slots[i]->tts_tableOid = target->relid;
	}
	return slots->slots;
}

/*
 * Options for writing rows.  A shard whose storage this transaction has created
 * does not have any free space worth looking for.
 */
static int
insert_options(Relation rel)
{
	return rel->rd_createSubid != InvalidSubTransactionId ||
		shard_rel_new_storage_subid(rel) != InvalidSubTransactionId ?
		TABLE_INSERT_SKIP_FSM : 0;
}

/*
 * The state of a bulk insert into the shard, or NULL.
 *
 * As in core, COPY writes through a small ring of buffers, so that a bulk load
 * does not push everything else out of memory, and INSERT does not.
 */
static BulkInsertState
bulk_insert_state(ShardInsert *insert, ShardBuffer *buffer)
{
	ShardBatch *batch = insert->batch;

	if (insert->is_copy && buffer->bistate == NULL)
	{
		MemoryContext oldcontext;

		oldcontext = MemoryContextSwitchTo(insert->estate->es_query_cxt);
		buffer->bistate = GetBulkInsertState();
		/* One ring for all shards, or it would not be small. */
		FreeAccessStrategy(buffer->bistate->strategy);
		if (batch->ring == NULL)
			batch->ring = GetAccessStrategy(BAS_BULKWRITE);
		buffer->bistate->strategy = batch->ring;
		MemoryContextSwitchTo(oldcontext);
	}
	return buffer->bistate;
}

/*
 * Write the rows that wait to an ordinary table, with their index entries and
 * AFTER triggers.
 */
static void
write_local(ShardInsert *insert, ShardTarget *target)
{
	EState	   *estate = insert->estate;
	ResultRelInfo *rri = target->rri;
	Relation	rel = rri->ri_RelationDesc;
	ShardBuffer *buffer = target->buffer;
	CopyFromState copy = insert->batch->copy;
	ShardRuns  *runs = insert->batch->runs;
	BulkInsertState bistate = bulk_insert_state(insert, buffer);
	bool		has_after_row = rri->ri_TrigDesc != NULL &&
		rri->ri_TrigDesc->trig_insert_after_row;
	int			n;

	for (int done = 0; done < buffer->nrows; done += n)
	{
		TupleTableSlot **rows;
		MemoryContext oldcontext;
		bool		has_indexes = rri->ri_NumIndices > 0;

		n = Min(buffer->nrows - done, MAX_SLOTS);
		rows = fill_slots(insert, target, done, n);
		oldcontext = MemoryContextSwitchTo(insert->batch->context);
		table_multi_insert(rel, rows, n, insert->cid, insert_options(rel),
						   bistate);
		MemoryContextSwitchTo(oldcontext);

		if (runs != NULL && has_indexes)
			has_indexes = shard_runs_hold(runs, buffer->indexes, rri);
		for (int i = 0; i < n && (has_indexes || has_after_row); i++)
		{
			List	   *recheck = NIL;

			if (copy != NULL)
				copy->cur_lineno = buffer->linenos[done + i];
			if (has_indexes)
				recheck = shard_insert_index_tuples(rri, rows[i], estate, NULL,
													NIL);
			if (has_after_row)
				ExecARInsertTriggers(estate, rri, rows[i], recheck, NULL);
			list_free(recheck);
		}
		if (runs != NULL && rri->ri_NumIndices > 0)
		{
			oldcontext = MemoryContextSwitchTo(insert->batch->context);
			shard_runs_add(runs, &buffer->indexes, rri, rows, n,
						   copy != NULL ? buffer->linenos + done : NULL,
						   copy != NULL ? &copy->cur_lineno : NULL);
			MemoryContextSwitchTo(oldcontext);
		}
		for (int i = 0; i < n; i++)
			ExecClearTuple(rows[i]);
	}

	/*
	 * A backend remembers the pins of eight buffers in a place where it finds
	 * them quickly.  The last pages of shards that are not being written
	 * should not take these places.
	 */
	if (bistate != NULL && bistate->current_buf != InvalidBuffer &&
		list_length(insert->targets) > 1)
	{
		ReleaseBuffer(bistate->current_buf);
		bistate->current_buf = InvalidBuffer;
	}
	ResetPerTupleExprContext(estate);
}

/*
 * Error context for rows that another server gets together.  Any of them may be
 * at fault, so this does not name a line.
 */
static void
name_no_line(void *arg)
{
	errcontext("COPY %s", RelationGetRelationName((Relation) arg));
}

/*
 * Write the rows that wait to a foreign table, in batches if its wrapper can
 * take those, and fire their AFTER triggers.
 */
static void
write_foreign(ShardInsert *insert, ShardTarget *target)
{
	EState	   *estate = insert->estate;
	ResultRelInfo *rri = target->rri;
	ShardBuffer *buffer = target->buffer;
	CopyFromState copy = insert->batch->copy;
	ErrorContextCallback *copy_callback = error_context_stack;
	ErrorContextCallback callback;

	/* It takes the place of the COPY's own. */
	if (copy != NULL && rri->ri_BatchSize > 1)
	{
		callback.callback = name_no_line;
		callback.arg = copy->rel;
		callback.previous = copy_callback->previous;
		error_context_stack = &callback;
	}

	for (int done = 0; done < buffer->nrows; done += rri->ri_BatchSize)
	{
		int			n = Min(rri->ri_BatchSize, buffer->nrows - done);
		int			written = n;
		TupleTableSlot **slots = fill_slots(insert, target, done, n);
		TupleTableSlot **rows = slots;
		TupleTableSlot *row;
		ShardRemoteCall call;

		if (copy != NULL)
			copy->cur_lineno = buffer->linenos[done];
		shard_remote_begin(insert, target, &call);
		if (rri->ri_BatchSize > 1)
			rows = rri->ri_FdwRoutine->ExecForeignBatchInsert(estate, rri,
															  rows, NULL,
															  &written);
		else
		{
			row = rri->ri_FdwRoutine->ExecForeignInsert(estate, rri, rows[0],
														NULL);
			written = row != NULL;
			rows = &row;
		}
		shard_remote_end(&call);
		for (int i = 0; i < written; i++)
		{
			rows[i]->tts_tableOid = target->relid;
			ExecARInsertTriggers(estate, rri, rows[i], NIL, NULL);
		}
		for (int i = 0; i < n; i++)
			ExecClearTuple(slots[i]);
	}
	error_context_stack = copy_callback;
}

/*
 * Write the rows that wait to one shard.
 *
 * As core's buffers do it, errors of COPY name the line of the row at fault, not
 * the line that was read last.
 */
static void
flush_target(ShardInsert *insert, ShardTarget *target)
{
	ShardBatch *batch = insert->batch;
	ShardBuffer *buffer = target->buffer;
	CopyFromState copy = batch->copy;
	bool		line_buf_valid = false;
	uint64		lineno = 0;

	if (buffer == NULL || buffer->nrows == 0)
		return;
	if (copy != NULL)
	{
		line_buf_valid = copy->line_buf_valid;
		lineno = copy->cur_lineno;
		copy->line_buf_valid = false;
	}
	if (is_remote(target))
	{
		write_foreign(insert, target);
		batch->remote_bytes -= buffer->bytes;
	}
	else
	{
		write_local(insert, target);
		batch->bytes -= buffer->bytes;
	}
	target->nrows += buffer->nrows;
	batch->nrows -= buffer->nrows;
	buffer->nrows = 0;
	buffer->bytes = 0;
	MemoryContextReset(buffer->row_context);
	if (copy != NULL)
	{
		copy->line_buf_valid = line_buf_valid;
		copy->cur_lineno = lineno;
	}
}

/*
 * Write the rows that wait, to all shards; or only those for shards that are
 * here.
 */
static void
batch_flush(ShardInsert *insert, bool local_only)
{
	ShardBatch *batch = insert->batch;
	ListCell   *lc;

	foreach(lc, insert->targets)
	{
		if (!local_only || !is_remote(lfirst(lc)))
			flush_target(insert, lfirst(lc));
	}

	if (++batch->nflushes == FLUSHES_AT_FIRST)
	{
		/* The next rows get a context of another size; see row_context(). */
		foreach(lc, insert->targets)
		{
			ShardBuffer *buffer = ((ShardTarget *) lfirst(lc))->buffer;

			if (buffer == NULL || buffer->row_context == NULL ||
				buffer->nrows > 0)
				continue;
			MemoryContextDelete(buffer->row_context);
			buffer->row_context = NULL;
		}
	}
	MemoryContextReset(batch->context);
}

/*
 * The shard on another server whose rows take the most memory.
 */
static ShardTarget *
largest_remote(ShardInsert *insert)
{
	ShardTarget *result = NULL;
	ListCell   *lc;

	foreach(lc, insert->targets)
	{
		ShardTarget *target = lfirst(lc);

		if (is_remote(target) && target->buffer != NULL &&
			(result == NULL || target->buffer->bytes > result->buffer->bytes))
			result = target;
	}
	return result;
}

/*
 * A row for the shard has been added to those that wait: if these are enough,
 * write them.
 */
static void
flush_if_full(ShardInsert *insert, ShardTarget *target)
{
	ShardBatch *batch = insert->batch;
	ShardBuffer *buffer = target->buffer;

	if (is_remote(target))
	{
		int			max_rows = target->rri->ri_BatchSize > 1 ?
			target->rri->ri_BatchSize : insert->table->batch_size;

		if (buffer->nrows >= max_rows)
			flush_target(insert, target);
		else if (batch->remote_bytes >= MAX_REMOTE_BYTES)
			flush_target(insert, largest_remote(insert));
	}
	else if (buffer->nrows >= insert->table->batch_size ||
			 buffer->bytes >= (is_short(batch) ? MAX_SHARD_BYTES_AT_FIRST :
							   MAX_SHARD_BYTES) ||
			 batch->bytes >= (is_short(batch) ? MAX_BYTES_AT_FIRST : MAX_BYTES))
		batch_flush(insert, true);
}

/*
 * Somebody may look at the rows, time and again or when we do not notice: write
 * all that wait, and their index entries, and let no more of these wait.
 */
static void
batch_finish(ShardInsert *insert)
{
	if (insert->batch->nrows > 0)
		batch_flush(insert, false);
	shard_runs_stop(insert->batch->runs);
}

/*
 * shard_copy_end
 *		Write what a COPY has left in the buffers, and the index entries.
 */
void
shard_copy_end(ShardInsert *insert)
{
	ShardBatch *batch = insert->batch;
	ErrorContextCallback callback;

	if (batch == NULL)
		return;
	if (batch->nrows > 0)
	{
		/* Core has removed its own after the last line. */
		if (batch->copy != NULL)
		{
			callback.callback = CopyFromErrorCallback;
			callback.arg = batch->copy;
		}
		else
		{
			callback.callback = name_no_line;
			callback.arg = insert->root->ri_RelationDesc;
		}
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		batch_flush(insert, false);
		error_context_stack = callback.previous;
	}
	batch_finish(insert);
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
		contain_volatile_functions(copy->whereClause) ||
		shard_sees_rows(copy->whereClause, NULL))
		return false;
	insert->batch->copy = copy;
	return true;
}

/*
 * Decide whether we collect rows.  Called when the first row comes.
 */
static void
init_collecting(ShardInsert *insert)
{
	MemoryContext query_context = insert->estate->es_query_cxt;

	insert->is_init = true;
	insert->collects = shard_batch_size(insert) > 1;
	/* COPY may hand over batches that we have not collected. */
	if (!insert->collects && !insert->is_copy)
		return;
	insert->batch = MemoryContextAllocZero(query_context, sizeof(ShardBatch));
	insert->batch->context =
		AllocSetContextCreate(query_context, "shard_fdw batch",
							  ALLOCSET_DEFAULT_SIZES);
	if (insert->is_copy && !copy_may_collect(insert))
		insert->collects = false;

	/* Triggers of a COPY are fired before it calls us for the last time. */
	if (!insert->is_copy || insert->root->ri_TrigDesc == NULL)
		insert->batch->runs = shard_runs_create(insert);
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
	insert->batch->is_registered = true;
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
	ShardBatch *batch;
	TupleTableSlot *row;

	if (unlikely(!insert->is_init))
		init_collecting(insert);
	if (!insert->collects)
		return false;
	batch = insert->batch;
	if (!target->can_batch)
	{
		/* COPY has the row in memory that writing the others resets. */
		if (batch->nrows > 0)
			ExecMaterializeSlot(slot);
		batch_finish(insert);
		/* Triggers of this shard must see the rows of others, too. */
		if (insert->is_copy)
			insert->collects = false;
		return false;
	}

	row = shard_target_row(insert, target, slot, target->slot);
	shard_check_row(insert, target, row);
	add_row(insert, target, row);
	if (batch->copy == NULL && !batch->is_registered)
		register_pending(insert);

	flush_if_full(insert, target);
	return true;
}

/*
 * May rows for other servers wait until the end of a COPY of which core hands
 * over batches?  Nothing fires a trigger after the last batch.
 */
static bool
copy_may_keep(ShardInsert *insert)
{
	ListCell   *lc;

	if (!insert->is_copy || insert->root->ri_TrigDesc != NULL)
		return false;
	foreach(lc, insert->targets)
	{
		ShardTarget *target = lfirst(lc);
		TriggerDesc *triggers = target->rri->ri_TrigDesc;

		if (triggers != NULL &&
			(is_remote(target) || triggers->trig_insert_after_row))
			return false;
	}
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
	 * The last call from COPY is made in the per-tuple context, which is
	 * reset below, but what other FDWs allocate must stay.
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
			/* A trigger has been created since.  It sees earlier rows. */
			batch_finish(insert);
			if (shard_insert_row(insert, target, slots[i], NULL) != NULL)
				ninserted++;
			continue;
		}
		row = shard_target_row(insert, target, slots[i], target->slot);
		shard_check_row(insert, target, row);
		add_row(insert, target, row);
		if (is_remote(target))
			flush_if_full(insert, target);
		ResetPerTupleExprContext(estate);
		ninserted++;
	}
	batch_flush(insert, copy_may_keep(insert));
	if (!insert->is_copy)
	{
		shard_runs_flush(insert->batch->runs);
		/* The executor has emptied its list. */
		insert->batch->is_registered = false;
	}

	MemoryContextSwitchTo(oldcontext);
	*nslots = ninserted;
	return slots;
}

/*
 * shard_batch_check
 *		Make sure that the statement, which ends, has written everything.
 */
void
shard_batch_check(ShardInsert *insert)
{
	if (insert->batch != NULL)
		shard_runs_end(insert->batch->runs);
}

/*
 * shard_batch_explain
 *		Show which index entries have been sorted.
 */
void
shard_batch_explain(ShardInsert *insert, ExplainState *es)
{
	if (insert->batch != NULL)
		shard_runs_explain(insert->batch->runs, es);
}

/*
 * shard_batch_end
 *		Release what batches to one shard have used.  All rows are written.
 */
void
shard_batch_end(ShardInsert *insert, ShardTarget *target)
{
	ShardBuffer *buffer = target->buffer;

	if (buffer == NULL)
		return;
	Assert(buffer->nrows == 0);
	if (buffer->bistate != NULL)
	{
		buffer->bistate->strategy = NULL;	/* it has other users */
		FreeBulkInsertState(buffer->bistate);
	}
	table_finish_bulk_insert(target->rri->ri_RelationDesc,
							 insert_options(target->rri->ri_RelationDesc));
}
