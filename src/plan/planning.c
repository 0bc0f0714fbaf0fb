/*-------------------------------------------------------------------------
 *
 * planning.c
 *	  What happens before a query is planned, and before it is executed.
 *
 * Before: shards take the place of logical tables whose rows are all in one
 * shard, and the query is copied if its plan may not be the right one for each
 * execution.  After: what the plan assumes, and which shards it has been made
 * for, is put into it, with the copy, in a CustomScan node among the plan's
 * subplans.  Nothing refers to the node and it does nothing; it is a place that
 * survives the copying of plans.
 *
 * When the executor starts, this is looked at again.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "storage/sinval.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/*
 * Cached plans that assume something depend on a function with this hash, in
 * the eyes of the plan cache.  So we can invalidate them, and no others.
 */
#define ASSUMPTION_HASH		0x73686472

/* A plan has been made by shard_planning_missed(). */
static bool has_missed = false;

static ExecutorStart_hook_type prev_executor_start_hook = NULL;

static Node *create_note_state(CustomScan *note);
static void begin_note(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_note(CustomScanState *node);
static void end_note(CustomScanState *node);

static const CustomScanMethods note_methods = {
	"shard_fdw assumptions", create_note_state
};

static const CustomExecMethods note_exec_methods = {
	.CustomName = "shard_fdw assumptions",
	.BeginCustomScan = begin_note,
	.ExecCustomScan = exec_note,
	.EndCustomScan = end_note,
	.ReScanCustomScan = end_note,
};

/*
 * The node is initialized with the plan, but never run.
 */
static Node *
create_note_state(CustomScan *note)
{
	CustomScanState *state = makeNode(CustomScanState);

	state->methods = &note_exec_methods;
	return (Node *) state;
}

static void
begin_note(CustomScanState *node, EState *estate, int eflags)
{
}

static TupleTableSlot *
exec_note(CustomScanState *node)
{
	return NULL;
}

static void
end_note(CustomScanState *node)
{
}

/*
 * Does a query read a logical table that has shards with ranges?
 */
static bool
reads_ranges(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		/* The target of an INSERT has no children here. */
		return rte->rtekind == RTE_RELATION && rte->inh &&
			rte->relkind == RELKIND_FOREIGN_TABLE &&
			shard_is_logical(rte->relid) &&
			shard_table_get(rte->relid)->nranges > 0;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_ranges, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, reads_ranges, context);
}

/*
 * Put shards in the place of logical tables whose rows are all in one shard.
 */
static void
look_up_shards(ShardPlanning *planning, Query *query, ParamListInfo params,
			   ShardChosen *chosen)
{
	List	   *lookups;
	bool		has_uncertain = false;
	ListCell   *lc;

	/*
	 * WHERE CURRENT OF a cursor looks for scans and marks of all shards in
	 * the cursor's plan.
	 */
	if (query->commandType == CMD_SELECT &&
		(planning->cursor_options & CURSOR_OPT_FAST_PLAN))
		return;
	lookups = shard_find_lookups(query, params);
	if (lookups == NIL)
		return;
	foreach(lc, lookups)
		has_uncertain |= !((ShardLookup *) lfirst(lc))->is_certain;
	if (has_uncertain && chosen == NULL)
		planning->query = copyObject(query);
	shard_apply_lookups(lookups, chosen != NULL ? chosen->params : params);

	foreach(lc, lookups)
	{
		ShardLookup *lookup = lfirst(lc);

		planning->has_shards |= lookup->is_applied;
		if (chosen != NULL)
			chosen->shards[foreach_current_index(lc)] = lookup->choice.shard;
		else if (lookup->is_certain && params == NULL)
			planning->depends = lappend_oid(planning->depends,
											lookup->choice.logical);
		else if (!lookup->is_certain && lookup->is_applied)
		{
			planning->lookups = lappend(planning->lookups, lookup);
			planning->is_stub |= !lookup->is_known;
		}
	}
	if (planning->lookups == NIL)
		planning->query = NULL;
}

/*
 * Lock the shards of logical tables that core is going to expand: those whose
 * rows the query locks, or that it reads besides one that it changes.  Core
 * takes those that it finds, then waits for locks, and leaves out what is gone;
 * what is there in its place it would not see.
 */
static bool
lock_for_core(Node *node, bool *is_marked)
{
	Query	   *query;
	bool		was_marked = *is_marked;
	bool		result;
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, lock_for_core, is_marked);
	query = (Query *) node;
	*is_marked |= query->rowMarks != NIL ||
		(query->commandType != CMD_SELECT && query->commandType != CMD_INSERT);
	foreach(lc, *is_marked ? query->rtable : NIL)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		uint64		seen;

		if (rte->rtekind != RTE_RELATION || !rte->inh ||
			rte->relkind != RELKIND_FOREIGN_TABLE ||
			foreach_current_index(lc) + 1 == query->resultRelation ||
			!shard_is_logical(rte->relid))
			continue;
		do
		{
			seen = SharedInvalidMessageCounter;
			(void) find_all_inheritors(rte->relid, rte->rellockmode, NULL);
		} while (seen != SharedInvalidMessageCounter);
	}
	result = query_tree_walker(query, lock_for_core, is_marked, 0);
	*is_marked = was_marked;
	return result;
}

/*
 * shard_planning_begin
 *		To be called before a query is planned, with space for what is to be
 *		remembered, and with the parameters, as far as the plan is for certain
 *		values only.  After that shard_planning_pop() must be called, whatever
 *		happens.
 *
 * Changes the query.  Keeps a copy of it as it was if its plan might have to
 * assume something.
 */
void
shard_planning_begin(ShardPlanning *planning, Query *query, int cursor_options,
					 ParamListInfo params)
{
	ShardChosen *chosen = shard_take_chosen();
	bool		is_marked = false;

	memset(planning, 0, sizeof(ShardPlanning));
	planning->cursor_options = cursor_options;
	look_up_shards(planning, query, params, chosen);
	(void) lock_for_core((Node *) query, &is_marked);
	if (planning->query == NULL && reads_ranges((Node *) query, NULL) &&
		contain_mutable_functions((Node *) query))
		planning->query = copyObject(query);
	shard_planning_push(planning);
}

/*
 * A plan that is kept depends on what left shards out: on their constraints.
 */
static void
note_dependencies(const ShardPlanning *planning, PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, planning->depends)
	{
		const ShardTable *table = shard_table_get(lfirst_oid(lc));

		for (int i = 0; i < table->nmembers; i++)
			plan->relationOids = lappend_oid(plan->relationOids,
											 table->members[i].relid);
	}
}

/*
 * What makes a cached plan depend on what it assumes.
 */
static PlanInvalItem *
assumption_item(void)
{
	PlanInvalItem *item = makeNode(PlanInvalItem);

	item->cacheId = PROCOID;
	item->hashValue = ASSUMPTION_HASH;
	return item;
}

/*
 * A stub's range table: without the shards, so that nobody locks them.
 */
static List *
hide_shards(List *rtable, List *lookups)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		ListCell   *lc2;

		foreach(lc2, lookups)
		{
			if (rte->rtekind != RTE_RELATION ||
				rte->relid != ((ShardLookup *) lfirst(lc2))->choice.shard)
				continue;
			rte = memcpy(makeNode(RangeTblEntry), rte, sizeof(RangeTblEntry));
			rte->rtekind = RTE_RESULT;
		}
		result = lappend(result, rte);
	}
	return result;
}

/*
 * shard_planning_note
 *		Put what a plan assumes into it, and which shards it is for.
 */
void
shard_planning_note(const ShardPlanning *planning, PlannedStmt *plan)
{
	CustomScan *note;
	List	   *choices = NIL;
	ListCell   *lc;

	if (planning->has_shards)
		shard_drop_permissions(plan);
	note_dependencies(planning, plan);
	if (planning->assumptions == NIL && planning->lookups == NIL)
		return;
	foreach(lc, planning->lookups)
		choices = lappend(choices,
						  shard_describe_choice(&((ShardLookup *) lfirst(lc))->choice,
												planning->is_stub));
	note = makeNode(CustomScan);
	note->methods = &note_methods;
	note->custom_private = list_make4(planning->query, planning->assumptions,
									  makeInteger(planning->cursor_options),
									  choices);
	if (planning->is_stub)
	{
		plan->planTree = shard_make_stub(plan->planTree);
		plan->rtable = hide_shards(plan->rtable, planning->lookups);
		plan->subplans = NIL;
		plan->rewindPlanIDs = NULL;
	}
	plan->subplans = lappend(plan->subplans, note);
	if (planning->assumptions == NIL)
		return;
	plan->invalItems = lappend(plan->invalItems, assumption_item());
}

/*
 * shard_planning_missed
 *		A query that reads a logical table is being planned without
 *		shard_planning_begin().  Its plan is not to be used again.
 */
void
shard_planning_missed(PlannerInfo *root)
{
	root->glob->invalItems = lappend(root->glob->invalItems,
									 assumption_item());
	has_missed = true;
	shard_forget_load();
}

static CustomScan *
find_note(const PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, plan->subplans)
	{
		CustomScan *note = lfirst(lc);

		/* A worker gets none from its leader, but has plans of its own. */
		if (note != NULL && IsA(note, CustomScan) &&
			note->methods == &note_methods)
			return note;
	}
	return NULL;
}

/*
 * Execute another plan than the plan that has this note, if that is called for.
 */
static void
change_plan(QueryDesc *query_desc, CustomScan *note, int eflags)
{
	int			options = intVal(lthird(note->custom_private));

	if (lfourth(note->custom_private) != NIL)
	{
		PlannedStmt *plan = shard_choose_plan(note, query_desc, eflags);

		if (plan != NULL)
		{
			query_desc->plannedstmt = plan;
			note = find_note(plan);
		}
	}
	if (note == NULL ||
		shard_assumptions_hold(lsecond(note->custom_private), query_desc->params))
		return;
	if (eflags & EXEC_FLAG_BACKWARD)
		options |= CURSOR_OPT_SCROLL;
	/* This just marks plans; ours stays where it is. */
	CallSyscacheCallbacks(PROCOID, ASSUMPTION_HASH);
	query_desc->plannedstmt =
		shard_plan_query(copyObject(linitial_node(Query,
												  note->custom_private)),
						 query_desc->sourceText, options, query_desc->params);
}

/*
 * Has a table a shard that is newer than a snapshot?  Such a one may have rows
 * of shards in whose place it is, which the snapshot does not show.
 */
static bool
has_newer_shard(const ShardTable *table, Snapshot snapshot)
{
	TransactionId newest = table->newest_place;

	/* That is all there is to be done for most. */
	if (!TransactionIdIsNormal(newest) ||
		NormalTransactionIdPrecedes(newest, snapshot->xmin))
		return false;
	for (int i = 0; i < table->nmembers; i++)
	{
		if (shard_is_newer(&table->members[i], snapshot))
			return true;
	}
	return false;
}

/*
 * May a query that is about to be executed be given another snapshot?
 */
static bool
may_take_new_snapshot(const QueryDesc *query_desc)
{
	return !IsolationUsesXactSnapshot() && ActiveSnapshotSet() &&
		query_desc->snapshot == GetActiveSnapshot();
}

/*
 * Have the query see what has been committed until now.
 */
static void
take_new_snapshot(QueryDesc *query_desc)
{
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	UnregisterSnapshot(query_desc->snapshot);
	query_desc->snapshot = RegisterSnapshot(GetActiveSnapshot());
}

/*
 * May rows of a table that a plan reads be moved by drain() while the query
 * waits for locks, and does it change or lock rows?  Those that it would find
 * by its snapshot are no longer there.
 */
static bool
may_miss_moved_rows(const PlannedStmt *plan, const ShardTable *table)
{
	return (plan->rowMarks != NIL || plan->commandType == CMD_UPDATE ||
			plan->commandType == CMD_DELETE ||
			plan->commandType == CMD_MERGE) &&
		table->nopen < table->nmembers;
}

/*
 * Have a query that is about to be executed, and has its locks, not miss rows
 * that have been moved since its snapshot was taken: to shards that are in the
 * place of others, or by drain().
 *
 * EXECUTE, CREATE TABLE AS and others take their snapshot before they wait for
 * locks.  With a snapshot that is to stay, drain() is left to PostgreSQL, which
 * raises an error when it comes to a row that has been moved.
 */
static void
check_snapshot(QueryDesc *query_desc)
{
	const PlannedStmt *plan = query_desc->plannedstmt;
	ListCell   *lc;

	/* A worker has the snapshot of its leader, which has been here. */
	if (IsParallelWorker() || query_desc->snapshot == NULL ||
		!IsMVCCSnapshot(query_desc->snapshot))
		return;
	foreach(lc, plan->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		const ShardTable *table;

		if (rte->rtekind != RTE_RELATION ||
			rte->relkind != RELKIND_FOREIGN_TABLE ||
			(plan->commandType == CMD_INSERT &&
			 shard_plan_writes(plan, foreach_current_index(lc) + 1)) ||
			!shard_is_logical(rte->relid))
			continue;
		table = shard_table_get(rte->relid);
		if (has_newer_shard(table, query_desc->snapshot))
		{
			if (!may_take_new_snapshot(query_desc))
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not read foreign table \"%s\" because its shards have been replaced",
								get_rel_name(table->relid)),
						 errdetail("The snapshot of the transaction or statement is older than the shards."),
						 errhint("The transaction might succeed if retried.")));
		}
		else if (!may_miss_moved_rows(plan, table) ||
				 !may_take_new_snapshot(query_desc))
			continue;
		take_new_snapshot(query_desc);
		return;
	}
}

/*
 * Look at what a plan assumes before it is executed.
 */
static void
start_executor(QueryDesc *query_desc, int eflags)
{
	CustomScan *note = find_note(query_desc->plannedstmt);

	if (unlikely(has_missed))
	{
		CallSyscacheCallbacks(PROCOID, ASSUMPTION_HASH);
		has_missed = false;
		/* This may be the plan, from when the planner's hook was not there. */
		if (note == NULL)
		{
			query_desc->plannedstmt = copyObject(query_desc->plannedstmt);
			shard_plan_gates(query_desc->plannedstmt);
		}
	}
	if (note != NULL)
	{
		bool		has_snapshot = ActiveSnapshotSet();

		if (!has_snapshot)
			PushActiveSnapshot(query_desc->snapshot);
		change_plan(query_desc, note, eflags);
		if (!has_snapshot)
			PopActiveSnapshot();
	}
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		check_snapshot(query_desc);
		shard_check_node_use(query_desc->plannedstmt);
	}
	query_desc->plannedstmt = shard_skip_nodes(query_desc->plannedstmt);
	(prev_executor_start_hook ? prev_executor_start_hook :
	 standard_ExecutorStart) (query_desc, eflags);
}

/*
 * shard_planning_init
 *		Install the executor hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_planning_init(void)
{
	RegisterCustomScanMethods(&note_methods);
	shard_choice_init();
	prev_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
