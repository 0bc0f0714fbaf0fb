/*-------------------------------------------------------------------------
 *
 * insert.c
 *	  INSERT and COPY into a logical table: the FDW's modify callbacks.
 *
 * UPDATE and DELETE never arrive here, because they run on the shards.  The
 * logical table is their result relation only when no shard is left to touch.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/table.h"
#include "access/xact.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/inval.h"

/*
 * Can the rows that the query makes be inserted as they are, because core does
 * not add anything to them and does not look at them?
 */
static bool
makes_plain_rows(ModifyTable *plan, Oid relid)
{
	List	   *columns = outerPlan(plan)->targetlist;
	Relation	rel;
	TupleDesc	desc;
	bool		result;
	ListCell   *lc;

	if (plan->returningLists != NIL || plan->withCheckOptionLists != NIL ||
		plan->onConflictAction != ONCONFLICT_NONE)
		return false;

	rel = table_open(relid, NoLock);
	desc = RelationGetDescr(rel);
	result = list_length(columns) == desc->natts;
	foreach(lc, columns)
	{
		TargetEntry *column = lfirst_node(TargetEntry, lc);
		Form_pg_attribute att;

		if (!result)
			break;
		att = TupleDescAttr(desc, foreach_current_index(lc));
		result = !column->resjunk && !att->attisdropped &&
			exprType((Node *) column->expr) == att->atttypid &&
			!(att->attlen == -1 && att->attstorage == TYPSTORAGE_PLAIN);
	}
	table_close(rel, NoLock);
	return result;
}

/*
 * May the rows that the query makes wait to be written with others?  The plan
 * is made to depend on the functions and types that the answer depends on.
 */
static bool
may_batch(PlannerInfo *root, Oid relid)
{
	List	  **depends = &root->glob->invalItems;
	bool		result = !shard_sees_rows((Node *) root->parse, depends);
	Relation	rel;
	ListCell   *lc;

	/* Subqueries that became subplans have roots of their own. */
	foreach(lc, root->glob->subroots)
	{
		result = result &&
			!shard_sees_rows((Node *) lfirst_node(PlannerInfo, lc)->parse,
							 depends);
	}
	/* Core computes these before we see the row. */
	rel = table_open(relid, NoLock);
	result = result && !shard_generated_see_rows(rel, depends);
	table_close(rel, NoLock);
	return result;
}

/*
 * shardPlanForeignModify
 *		Plan an INSERT.  The private list tells the executor whether rows may
 *		be collected and inserted together, what the target of an ON CONFLICT
 *		clause is, whether there is an OVERRIDING clause, and whether the rows
 *		can be taken as they are.
 *
 * Raises what shard_plan_on_conflict() raises.
 */
List *
shardPlanForeignModify(PlannerInfo *root, ModifyTable *plan,
					   Index result_relation, int subplan_index)
{
	Oid			relid = planner_rt_fetch(result_relation, root)->relid;
	List	   *conflict_target = NIL;

	if (plan->operation != CMD_INSERT)
		return NIL;

	if (plan->onConflictAction != ONCONFLICT_NONE)
		conflict_target = shard_plan_on_conflict(root->parse->onConflict,
												 result_relation, relid);

	return list_make4(makeBoolean(may_batch(root, relid)), conflict_target,
					  makeInteger(root->parse->override),
					  makeBoolean(makes_plain_rows(plan, relid)));
}

/*
 * shardGetForeignModifyBatchSize
 *		How many rows core should collect before it hands them over.
 */
int
shardGetForeignModifyBatchSize(ResultRelInfo *rri)
{
	ShardInsert *insert = rri->ri_FdwState;

	return insert != NULL && insert->is_copy ? shard_batch_size(insert) : 1;
}

/*
 * Make the state for inserting into the logical table "root".
 *
 * Nothing is opened or locked.  The state is allocated in the current memory
 * context, which lasts as long as the statement, and becomes root's FDW
 * state.  Raises what shard_check_options() raises.
 */
static ShardInsert *
insert_begin(ModifyTableState *mtstate, ResultRelInfo *root)
{
	ShardInsert *insert = palloc0(sizeof(ShardInsert));

	/*
	 * A transaction that holds all its locks already does not ask for
	 * invalidations by itself, but the shard that it writes to may have been
	 * closed since.
	 */
	AcceptInvalidationMessages();
	insert->table = shard_table_get_open(RelationGetRelid(root->ri_RelationDesc));
	if (unlikely(insert->table->has_bad_options))
		shard_check_options(insert->table->relid);
	if (unlikely(shard_may_be_due(insert->table)))
		shard_check_due(insert->table, root->ri_RelationDesc);
	insert->root = root;
	insert->estate = mtstate->ps.state;
	insert->mtstate = mtstate;
	/* For the whole statement, see check_route(). */
	insert->route = insert->table->route;
	insert->lane = -1;
	insert->on_conflict = mtstate->ps.plan == NULL ? ONCONFLICT_NONE :
		((ModifyTable *) mtstate->ps.plan)->onConflictAction;
	/* As with identity columns, "always" is not for COPY. */
	insert->takes_ids = !insert->table->commit_order &&
		(!insert->table->seq_always || mtstate->ps.plan == NULL);
	root->ri_FdwState = insert;
	if (unlikely(OidIsValid(shard_moving)))
	{
		insert->moves = insert->table->relid == shard_moving ||
			root->ri_RangeTableIndex == 0;
		if (insert->moves)
			root->ri_TrigDesc = NULL;
		if (insert->moves && insert->route == SHARD_ROUTE_SESSION)
			insert->route = SHARD_ROUTE_ROUND_ROBIN;
	}
	return insert;
}

/*
 * Find out what the session decides for all rows of a statement: the pinned
 * shard, and the lane.  The lane is taken now, before the query or COPY
 * evaluates any default.
 */
static void
begin_routing(ShardInsert *insert)
{
	ShardTable *table = insert->table;

	insert->pinned = shard_pin(table);
	if (table->commit_order && table->nopen > 0 &&
		insert->route == SHARD_ROUTE_SESSION && !OidIsValid(insert->pinned))
	{
		insert->lane = shard_route(table, NULL, InvalidOid);
		insert->generation = table->generation;
	}
}

/*
 * Have core hand over the rows as the query makes them.
 *
 * For a foreign table, core normally makes a tuple of each row, because
 * triggers and RETURNING may ask for system columns.  We would take the tuple
 * apart to fill in the id, and copy it again if the row has to wait.  The id is
 * written into the row itself, so this is only for rows that the query computes
 * and does not look at again.
 */
static void
take_rows_as_they_are(ModifyTableState *mtstate, ResultRelInfo *rri)
{
	if (outerPlanState(mtstate)->ps_ProjInfo == NULL ||
		rri->ri_TrigDesc != NULL)
		return;

	rri->ri_newTupleSlot = ExecInitExtraTupleSlot(mtstate->ps.state,
												  RelationGetDescr(rri->ri_RelationDesc),
												  &TTSOpsVirtual);
	rri->ri_projectNewInfoValid = true;
}

/*
 * shardBeginForeignModify
 *		Begin an INSERT.  Nothing to do for UPDATE and DELETE.
 */
void
shardBeginForeignModify(ModifyTableState *mtstate, ResultRelInfo *rri,
						List *fdw_private, int subplan_index, int eflags)
{
	ShardInsert *insert;

	if (mtstate->operation != CMD_INSERT)
		return;
	insert = insert_begin(mtstate, rri);
	insert->may_batch = boolVal(linitial(fdw_private));
	insert->conflict_target = lsecond_node(List, fdw_private);
	insert->override = intVal(lthird(fdw_private));
	insert->takes_ids |= insert->override == OVERRIDING_SYSTEM_VALUE &&
		!insert->table->commit_order;
	insert->cid = mtstate->ps.state->es_output_cid;
	if (boolVal(lfourth(fdw_private)))
		take_rows_as_they_are(mtstate, rri);
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		begin_routing(insert);
}

/*
 * shardBeginForeignInsert
 *		Begin a COPY, or the inserts of another logical table that has this
 *		one as a shard.
 */
void
shardBeginForeignInsert(ModifyTableState *mtstate, ResultRelInfo *rri)
{
	ShardInsert *insert = insert_begin(mtstate, rri);

	if (insert->on_conflict != ONCONFLICT_NONE)
		shard_check_route_for_conflict(insert->table);
	insert->is_copy = mtstate->ps.plan == NULL;
	insert->may_batch = !insert->is_copy ||
		!shard_copy_sees_rows(rri->ri_RelationDesc);
	insert->cid = insert->is_copy ? GetCurrentCommandId(true) :
		mtstate->ps.state->es_output_cid;
	begin_routing(insert);
}

/*
 * shardExecForeignInsert
 *		Insert one row.  Returns the row, or NULL if it was suppressed.
 */
TupleTableSlot *
shardExecForeignInsert(EState *estate, ResultRelInfo *rri,
					   TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	ShardInsert *insert = rri->ri_FdwState;
	ShardTarget *target;

	/* A shard may be a logical table itself, and so on. */
	check_stack_depth();
	target = shard_insert_target(insert, slot);
	if (shard_collect_row(insert, target, slot))
		return slot;
	return shard_insert_row(insert, target, slot, plan_slot);
}

/*
 * shardEndForeignModify
 *		Close the shards that the statement opened.
 */
void
shardEndForeignModify(EState *estate, ResultRelInfo *rri)
{
	ShardInsert *insert = rri->ri_FdwState;
	ListCell   *lc;

	if (insert == NULL)
		return;

	check_stack_depth();
	shard_batch_check(insert);
	foreach(lc, insert->targets)
	{
		ShardTarget *target = lfirst(lc);
		ResultRelInfo *shard = target->rri;

		shard_batch_end(insert, target);
		if (shard->ri_FdwRoutine != NULL &&
			shard->ri_FdwRoutine->EndForeignInsert != NULL)
			shard->ri_FdwRoutine->EndForeignInsert(estate, shard);
		ExecCloseIndices(shard);
		table_close(shard->ri_RelationDesc, NoLock);
	}
}

/*
 * shardEndForeignInsert
 *		End a COPY: write what is left in the buffers, close the shards.
 */
void
shardEndForeignInsert(EState *estate, ResultRelInfo *rri)
{
	shard_copy_end(rri->ri_FdwState);
	shardEndForeignModify(estate, rri);
}
