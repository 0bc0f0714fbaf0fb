/*-------------------------------------------------------------------------
 *
 * assume.c
 *	  Plans that are right as long as the time and settings allow.
 *
 * A query for the rows of the last hour is planned with the shards of the last
 * hour only.  Its plan may be kept and executed much later, in another time
 * zone, or after the clock has been set back, and nobody tells us before.  So
 * the plan carries what it assumes: that the query's conditions allow no time
 * at which the shards have rows that have been left out.  When the executor
 * starts, this is looked at again.  If it does not hold, the query is planned
 * anew, for this once, and the cached plan is invalidated.
 *
 * For that the plan carries a copy of the query, as it was before planning.
 * Both are in a CustomScan node among the plan's subplans.  Nothing refers to
 * it and it does nothing; it is a place that survives the copying of plans.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/parallel.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/*
 * Cached plans that assume something depend on a function with this hash, in
 * the eyes of the plan cache.  So we can invalidate them, and no others.
 */
#define ASSUMPTION_HASH		0x73686472

static ExecutorStart_hook_type prev_executor_start_hook = NULL;

/* The query that is being planned. */
static ShardPlanning *current_planning = NULL;

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
 * shard_planning_begin
 *		To be called before a query is planned, with space for what is to be
 *		remembered.  After that shard_planning_end() must be called, whatever
 *		happens.
 *
 * Keeps a copy of the query if its plan might have to assume something.
 */
void
shard_planning_begin(ShardPlanning *planning, Query *query, int cursor_options)
{
	memset(planning, 0, sizeof(ShardPlanning));
	planning->cursor_options = cursor_options;
	if (reads_ranges((Node *) query, NULL) &&
		contain_mutable_functions((Node *) query))
		planning->query = copyObject(query);
	planning->outer = current_planning;
	current_planning = planning;
}

void
shard_planning_end(ShardPlanning *planning)
{
	current_planning = planning->outer;
}

/*
 * shard_may_assume
 *		May the plan that is being made assume something?
 */
bool
shard_may_assume(void)
{
	return current_planning != NULL && current_planning->query != NULL;
}

/*
 * shard_assume
 *		Have the plan assume that the conditions allow no time in the gaps.
 */
void
shard_assume(List *conditions, const ShardTimes *gaps, int ngaps)
{
	Size		size = VARHDRSZ + sizeof(ShardTimes) * ngaps;
	bytea	   *bytes = palloc(size);

	SET_VARSIZE(bytes, size);
	memcpy(VARDATA(bytes), gaps, sizeof(ShardTimes) * ngaps);
	current_planning->assumptions =
		lappend(current_planning->assumptions,
				list_make2(copyObject(conditions),
						   makeConst(BYTEAOID, -1, InvalidOid, -1,
									 PointerGetDatum(bytes), false, false)));
}

/*
 * shard_planning_note
 *		Put what a plan assumes into it.
 */
void
shard_planning_note(const ShardPlanning *planning, PlannedStmt *plan)
{
	CustomScan *note;
	PlanInvalItem *item;

	if (planning->assumptions == NIL)
		return;
	note = makeNode(CustomScan);
	note->methods = &note_methods;
	note->custom_private = list_make3(planning->query, planning->assumptions,
									  makeInteger(planning->cursor_options));
	plan->subplans = lappend(plan->subplans, note);
	item = makeNode(PlanInvalItem);
	item->cacheId = PROCOID;
	item->hashValue = ASSUMPTION_HASH;
	plan->invalItems = lappend(plan->invalItems, item);
}

static CustomScan *
find_note(const PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, plan->subplans)
	{
		CustomScan *note = lfirst(lc);

		/* A worker gets no plans that it cannot run. */
		if (note != NULL && IsA(note, CustomScan) &&
			note->methods == &note_methods)
			return note;
	}
	return NULL;
}

/*
 * Does what a plan assumes still hold, with these parameters?
 */
static bool
assumptions_hold(List *assumptions, ParamListInfo params)
{
	PlannerInfo *root = makeNode(PlannerInfo);
	ListCell   *lc;

	/* That is all that estimating a value needs. */
	root->glob = makeNode(PlannerGlobal);
	root->glob->boundParams = params;
	foreach(lc, assumptions)
	{
		List	   *assumption = lfirst_node(List, lc);
		bytea	   *bytes = DatumGetByteaPP(lsecond_node(Const, assumption)->constvalue);
		int			ngaps = VARSIZE_ANY_EXHDR(bytes) / sizeof(ShardTimes);
		ShardTimeSet *allowed;
		bool		has_estimates;
		List	   *useful;
		List	   *unknown;

		allowed = shard_times_allowed(root, linitial(assumption), true,
									  &has_estimates, &useful, &unknown);
		for (int i = 0; i < ngaps; i++)
		{
			ShardTimes	gap;

			memcpy(&gap, VARDATA_ANY(bytes) + sizeof(ShardTimes) * i,
				   sizeof(ShardTimes));
			if (shard_times_overlap(allowed, gap.min, gap.max))
				return false;
		}
	}
	return true;
}

/*
 * Look at what a plan assumes before it is executed.  If it does not hold,
 * execute another plan.
 */
static void
start_executor(QueryDesc *query_desc, int eflags)
{
	CustomScan *note = find_note(query_desc->plannedstmt);

	if (note != NULL && !IsParallelWorker())
	{
		bool		has_snapshot = ActiveSnapshotSet();

		if (!has_snapshot)
			PushActiveSnapshot(query_desc->snapshot);
		if (!assumptions_hold(lsecond(note->custom_private),
							  query_desc->params))
		{
			int			options = intVal(lthird(note->custom_private));

			if (eflags & EXEC_FLAG_BACKWARD)
				options |= CURSOR_OPT_SCROLL;
			/* This just marks plans; ours stays where it is. */
			CallSyscacheCallbacks(PROCOID, ASSUMPTION_HASH);
			query_desc->plannedstmt =
				shard_plan_query(copyObject(linitial_node(Query,
														  note->custom_private)),
								 query_desc->sourceText, options,
								 query_desc->params);
		}
		if (!has_snapshot)
			PopActiveSnapshot();
	}
	(prev_executor_start_hook ? prev_executor_start_hook :
	 standard_ExecutorStart) (query_desc, eflags);
}

/*
 * shard_assume_init
 *		Install the executor hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_assume_init(void)
{
	RegisterCustomScanMethods(&note_methods);
	prev_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
