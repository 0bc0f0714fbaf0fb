/*-------------------------------------------------------------------------
 *
 * row.c
 *	  One row on its way into a shard: its id, its layout, its constraints, and
 *	  storing it.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

/*
 * Set a column of a row, whose other columns keep their values.
 */
static void
set_column(TupleTableSlot *row, AttrNumber attno, Datum value)
{
	TupleDesc	desc = row->tts_tupleDescriptor;
	Datum	   *values;
	bool	   *isnull;

	slot_getallattrs(row);
	if (!TTS_IS_HEAPTUPLE(row) || ((HeapTupleTableSlot *) row)->tuple == NULL)
	{
		row->tts_values[attno - 1] = value;
		row->tts_isnull[attno - 1] = false;
		return;
	}

	/* The values are in the tuple, which is freed when the slot is cleared. */
	values = palloc(sizeof(Datum) * desc->natts);
	isnull = palloc(sizeof(bool) * desc->natts);
	memcpy(isnull, row->tts_isnull, sizeof(bool) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		values[i] = isnull[i] ? (Datum) 0 :
			datumCopy(row->tts_values[i], att->attbyval, att->attlen);
	}
	values[attno - 1] = value;
	isnull[attno - 1] = false;
	ExecClearTuple(row);
	memcpy(row->tts_values, values, sizeof(Datum) * desc->natts);
	memcpy(row->tts_isnull, isnull, sizeof(bool) * desc->natts);
	ExecStoreVirtualTuple(row);
	ExecMaterializeSlot(row);
}

/*
 * Give a row of the logical table its id, from the sequence of the shard that
 * it goes to.
 *
 * If the row has an id already, it keeps that.  Raises ERRCODE_GENERATED_ALWAYS
 * if the statement must not give one,
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the shard has no sequence, and
 * what nextval() raises.
 */
static void
fill_sequence(ShardInsert *insert, ShardTarget *target,
			  TupleTableSlot *row)
{
	ShardTable *table = insert->table;
	AttrNumber	attno = table->seq_attno;
	Oid			type = TupleDescAttr(row->tts_tupleDescriptor, attno - 1)->atttypid;
	MemoryContext oldcontext;
	int64		id;

	if (!slot_attisnull(row, attno) &&
		insert->override != OVERRIDING_USER_VALUE)
	{
		if (insert->takes_ids)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("cannot insert a non-DEFAULT value into column \"%s\"",
						get_attname(table->relid, attno, false)),
				 table->commit_order ?
				 errdetail("Foreign table \"%s\" has option \"commit_order\", and its ids have to show the order of commits.",
						   get_rel_name(table->relid)) :
				 errdetail("Column \"%s\" of foreign table \"%s\" has option \"sequence\" with value \"always\".",
						   get_attname(table->relid, attno, false),
						   get_rel_name(table->relid)),
				 table->commit_order ?
				 errhint("Leave the column out, or insert into one shard.") :
				 errhint("Use OVERRIDING SYSTEM VALUE to override.")));
	}
	if (!OidIsValid(target->sequence))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" of foreign table \"%s\" has no sequence for column \"%s\"",
						RelationGetRelationName(target->rri->ri_RelationDesc),
						get_rel_name(table->relid),
						get_attname(table->relid, attno, false)),
				 errdetail("The default of the shard's column is not a call of nextval()."),
				 errhint("Give it one with SELECT shard_fdw.reset_sequences().")));
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(insert->estate));
	id = nextval_internal(target->sequence, !target->owns_sequence);
	if ((type == INT2OID && id != (int16) id) ||
		(type == INT4OID && id != (int32) id))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("%s out of range", format_type_be(type))));
	if (!shard_id_fits(id, target->stride, target->id_slot))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("sequence \"%s\" does not give ids of shard \"%s\"",
						get_rel_name(target->sequence),
						RelationGetRelationName(target->rri->ri_RelationDesc)),
				 errdetail("It has given " INT64_FORMAT "; the shard holds ids of slot %d of %d.",
						   id, target->id_slot, target->stride),
				 errhint("Set the sequence to such an id, and its increment to the stride.")));
	set_column(row, attno,
			   type == INT2OID ? Int16GetDatum((int16) id) :
			   type == INT4OID ? Int32GetDatum((int32) id) :
			   Int64GetDatum(id));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * shard_target_row
 *		A row of the logical table in the layout of the shard.
 *
 * The column with option "sequence" gets its value, in "row" as well.
 * Returns "row" itself if it fits, else "into", filled in; its values then
 * point into "row" and into per-tuple memory.
 */
TupleTableSlot *
shard_target_row(ShardInsert *insert, ShardTarget *target,
				 TupleTableSlot *row, TupleTableSlot *into)
{
	if (unlikely(insert->table->seq_attno != 0))
		fill_sequence(insert, target, row);
	if (likely(target->map == NULL))
		return row;

	execute_attr_map_slot(target->map, row, into);
	for (int i = 0; i < target->ndefaults; i++)
	{
		int			att = target->default_attnos[i] - 1;

		into->tts_values[att] =
			ExecEvalExprSwitchContext(target->default_exprs[i],
									  GetPerTupleExprContext(insert->estate),
									  &into->tts_isnull[att]);
	}
	return into;
}

/*
 * Is any of these columns null?  Bit 0 of "columns" stands for column 1.
 */
static bool
has_null(TupleTableSlot *row, uint64 columns)
{
	for (; columns != 0; columns &= columns - 1)
	{
		if (slot_attisnull(row, pg_rightmost_one_pos64(columns) + 1))
			return true;
	}
	return false;
}

/*
 * shard_check_row
 *		Compute the shard's generated columns and check its constraints.
 *
 * "row" is in the shard's layout.  Raises what a direct insert would.
 */
void
shard_check_row(ShardInsert *insert, ShardTarget *target, TupleTableSlot *row)
{
	/* Generated columns and constraints may refer to tableoid. */
	row->tts_tableOid = target->relid;
	if (target->is_computed)
		ExecComputeStoredGenerated(target->rri, insert->estate, row,
								   CMD_INSERT);
	if (target->is_checked || has_null(row, target->not_null))
		ExecConstraints(target->rri, row, insert->estate);
}

/*
 * shard_insert_row
 *		Insert one row into a shard: triggers, constraints, indexes.
 *
 * "slot" holds the row in the logical table's layout.  Returns it, or NULL if a
 * trigger or ON CONFLICT suppressed the row.  If core looks at the row
 * afterwards (insert->wants_row), it then holds what was stored.  With ON
 * CONFLICT DO UPDATE or DO SELECT that may be a row that was there before.
 */
TupleTableSlot *
shard_insert_row(ShardInsert *insert, ShardTarget *target,
				 TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	EState	   *estate = insert->estate;
	ResultRelInfo *rri = target->rri;
	TupleTableSlot *row;
	List	   *recheck = NIL;
	bool		is_new = true;

	row = shard_target_row(insert, target, slot, target->slot);
	if (rri->ri_TrigDesc != NULL && TTS_IS_VIRTUAL(row))
	{
		/* Triggers may ask for its type, or for system columns. */
		if (target->slot == NULL)
		{
			MemoryContext oldcontext;

			oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);
			target->slot = table_slot_create(rri->ri_RelationDesc,
											 &estate->es_tupleTable);
			MemoryContextSwitchTo(oldcontext);
		}
		ExecCopySlot(target->slot, row);
		row = target->slot;
	}
	row->tts_tableOid = target->relid;

	if (rri->ri_TrigDesc != NULL &&
		rri->ri_TrigDesc->trig_insert_before_row &&
		!ExecBRInsertTriggers(estate, rri, row))
		return NULL;

	shard_check_row(insert, target, row);

	if (rri->ri_FdwRoutine != NULL)
	{
		ShardRemoteCall call;

		shard_remote_begin(insert, target, &call);
		row = rri->ri_FdwRoutine->ExecForeignInsert(estate, rri, row,
													plan_slot);
		shard_remote_end(&call);
		if (row == NULL)
			return NULL;
		row->tts_tableOid = target->relid;
	}
	else if (insert->on_conflict != ONCONFLICT_NONE && rri->ri_NumIndices > 0)
	{
		TupleTableSlot *written = shard_insert_on_conflict(insert, target, row,
														   &recheck);

		if (written == NULL)
			return NULL;
		is_new = written == row;
		row = written;
	}
	else
	{
		table_tuple_insert(rri->ri_RelationDesc, row, insert->cid, 0, NULL);
		if (rri->ri_NumIndices > 0)
			recheck = shard_insert_index_tuples(rri, row, estate, NULL, NIL);
	}

	if (is_new)
		ExecARInsertTriggers(estate, rri, row, recheck, NULL);
	list_free(recheck);

	/* Core fires these triggers for whatever row we return. */
	if (insert->has_after_trigger)
		insert->root->ri_TrigDesc->trig_insert_after_row = is_new;

	if (is_new || !shard_on_conflict_selects(insert->on_conflict))
		target->nrows++;
	if (!target->is_logical)
		shard_last = target->relid;

	if (row != slot && insert->wants_row)
	{
		/* The row may still point into the slot that it is about to fill. */
		ExecMaterializeSlot(row);
		if (target->back_map != NULL)
			execute_attr_map_slot(target->back_map, row, slot);
		else
			ExecCopySlot(slot, row);
		shard_copy_header(slot, row);
	}
	return slot;
}
