/*-------------------------------------------------------------------------
 *
 * core_exec.c
 *	  Functions of the executor that PostgreSQL has but does not export.
 *
 * shard_check_tid_visible() follows ExecCheckTIDVisible() and
 * ExecCheckTupleVisible(), shard_lock_conflicting_row() and
 * shard_fetch_conflicting_row() follow ExecOnConflictUpdate() and
 * ExecOnConflictSelect(), and shard_update_row() follows ExecUpdate() and its
 * subroutines in src/backend/executor/nodeModifyTable.c (PostgreSQL 15 to
 * 19).  What cannot occur for a row that has been locked has been left out.
 *
 * Portions Copyright (c) 1996-2026, PostgreSQL Global Development Group
 * Portions Copyright (c) 1994, Regents of the University of California
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "utils/snapmgr.h"

/*
 * Raise an error if the transaction's snapshot does not show the row in the
 * slot.  Rows of the transaction itself are excepted, because they are not the
 * result of a race.
 */
static void
check_row_visible(EState *estate, Relation rel, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		xmin;

	if (!IsolationUsesXactSnapshot() ||
		table_tuple_satisfies_snapshot(rel, slot, estate->es_snapshot))
		return;
	xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull);
	if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
}

/*
 * shard_check_tid_visible
 *		Raise ERRCODE_T_R_SERIALIZATION_FAILURE if the transaction's snapshot
 *		does not show the row that ON CONFLICT DO NOTHING has found.
 */
void
shard_check_tid_visible(EState *estate, ResultRelInfo *rri, ItemPointer tid)
{
	TupleTableSlot *slot;

	if (!IsolationUsesXactSnapshot())
		return;
	slot = ExecGetReturningSlot(estate, rri);
	if (!table_tuple_fetch_row_version(rri->ri_RelationDesc, tid, SnapshotAny,
									   slot))
		elog(ERROR, "failed to fetch conflicting tuple for ON CONFLICT");
	check_row_visible(estate, rri->ri_RelationDesc, slot);
	ExecClearTuple(slot);
}

/*
 * shard_report_serialization_failure
 *		Raise ERRCODE_T_R_SERIALIZATION_FAILURE if the isolation level does not
 *		allow going on after a concurrent "update" or "delete" of a row.
 */
void
shard_report_serialization_failure(const char *cause)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent %s",
						cause)));
}

/*
 * shard_fetch_conflicting_row
 *		Fetch the row that ON CONFLICT DO SELECT has found into "existing", a
 *		slot for the shard, without locking it.
 *
 * Returns false if it is no longer there.  Raises
 * ERRCODE_T_R_SERIALIZATION_FAILURE if the isolation level says so.
 */
bool
shard_fetch_conflicting_row(EState *estate, ResultRelInfo *rri,
							ItemPointer tid, TupleTableSlot *existing)
{
	if (!table_tuple_fetch_row_version(rri->ri_RelationDesc, tid, SnapshotAny,
									   existing))
		return false;
	check_row_visible(estate, rri->ri_RelationDesc, existing);
	return true;
}

/*
 * shard_lock_mode
 *		How FOR UPDATE and the like lock a row.
 */
LockTupleMode
shard_lock_mode(LockClauseStrength strength)
{
	switch (strength)
	{
		case LCS_FORKEYSHARE:
			return LockTupleKeyShare;
		case LCS_FORSHARE:
			return LockTupleShare;
		case LCS_FORNOKEYUPDATE:
			return LockTupleNoKeyExclusive;
		default:
			return LockTupleExclusive;
	}
}

/*
 * shard_lock_conflicting_row
 *		Lock the row that the command, ON CONFLICT DO UPDATE or DO SELECT, has
 *		found, and fetch it into "existing", a slot for the shard.
 *
 * Returns false if it is no longer there or no longer the newest version;
 * the caller has to look for a conflict again.  Raises
 * ERRCODE_CARDINALITY_VIOLATION if this command has written the row, and
 * ERRCODE_T_R_SERIALIZATION_FAILURE if the isolation level says so.
 */
bool
shard_lock_conflicting_row(EState *estate, ResultRelInfo *rri,
						   ItemPointer tid, LockTupleMode mode,
						   const char *command, TupleTableSlot *existing)
{
	Relation	rel = rri->ri_RelationDesc;
	TM_FailureData tmfd;
	TM_Result	result;
	Datum		xmin;
	bool		isnull;

	/* We do not follow newer versions, which may not conflict. */
	result = table_tuple_lock(rel, tid, estate->es_snapshot, existing,
							  estate->es_output_cid,
							  mode, LockWaitBlock, 0, &tmfd);
	switch (result)
	{
		case TM_Ok:
			check_row_visible(estate, rel, existing);
			return true;

		case TM_Invisible:
			xmin = slot_getsysattr(existing, MinTransactionIdAttributeNumber,
								   &isnull);
			if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
				ereport(ERROR,
						(errcode(ERRCODE_CARDINALITY_VIOLATION),
						 errmsg("%s command cannot affect row a second time",
								command),
						 errhint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values.")));
			elog(ERROR, "attempted to lock invisible tuple");
			break;

		case TM_Updated:
			shard_report_serialization_failure("update");
			break;

		case TM_Deleted:
			shard_report_serialization_failure("delete");
			break;

		default:
			elog(ERROR, "unexpected table_tuple_lock status: %u", result);
	}
	ExecClearTuple(existing);
	return false;
}

/*
 * shard_update_row
 *		Update a row of a shard that this transaction has locked: triggers,
 *		generated columns, constraints, indexes.
 *
 * "row" is the new version, in the shard's layout and materialized.  Returns
 * false if a trigger suppressed the update.  Raises what UPDATE raises.
 */
bool
shard_update_row(EState *estate, EPQState *epqstate, ResultRelInfo *rri,
				 ItemPointer tid, TupleTableSlot *row)
{
	Relation	rel = rri->ri_RelationDesc;
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	ShardUpdateIndexes update_indexes;
	TM_FailureData tmfd;
	TM_Result	result;
	LockTupleMode lockmode;
	List	   *recheck = NIL;

	if (rri->ri_TrigDesc != NULL && rri->ri_TrigDesc->trig_update_before_row &&
		!shard_fire_before_update(estate, epqstate, rri, tid, row, &tmfd))
		return false;

	row->tts_tableOid = RelationGetRelid(rel);
	if (constr != NULL && constr->has_generated_stored)
		ExecComputeStoredGenerated(rri, estate, row, CMD_UPDATE);
	ExecMaterializeSlot(row);
	if (constr != NULL)
		ExecConstraints(rri, row, estate);

	result = shard_tuple_update(rel, tid, row, estate, &tmfd, &lockmode,
								&update_indexes);
	if (result == TM_SelfModified && tmfd.cmax != estate->es_output_cid)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("tuple to be updated was already modified by an operation triggered by the current command"),
				 errhint("Consider using an AFTER trigger instead of a BEFORE trigger to propagate changes to other rows.")));
	if (result == TM_SelfModified)
		return false;
	if (result != TM_Ok)
		elog(ERROR, "unexpected table_tuple_update status: %u", result);

	if (rri->ri_NumIndices > 0)
		recheck = shard_update_index_tuples(rri, row, estate, update_indexes);
	ExecARUpdateTriggers(estate, rri, NULL, NULL, tid, NULL, row, recheck,
						 NULL, false);
	list_free(recheck);
	return true;
}

/*
 * shard_copy_header
 *		Give a copy of a row the system columns of the row.
 *
 * Materializes the copy, a slot of heap tuples.
 */
void
shard_copy_header(TupleTableSlot *to, TupleTableSlot *from)
{
	HeapTupleHeader header;

	ExecMaterializeSlot(to);
	to->tts_tid = from->tts_tid;
	header = ((HeapTupleTableSlot *) to)->tuple->t_data;
	if ((TTS_IS_HEAPTUPLE(from) || TTS_IS_BUFFERTUPLE(from)) &&
		((HeapTupleTableSlot *) from)->tuple != NULL)
	{
		header->t_choice.t_heap =
			((HeapTupleTableSlot *) from)->tuple->t_data->t_choice.t_heap;
		/* No version of a composite value; see add_row(). */
		header->t_ctid = from->tts_tid;
	}
}
