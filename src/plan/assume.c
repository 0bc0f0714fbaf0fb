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
 * anew, for this once, and the cached plan is invalidated; see planning.c.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"

/* The query that is being planned. */
static ShardPlanning *current_planning = NULL;

/*
 * shard_planning_push
 *		A query begins to be planned, maybe while another one is.
 */
void
shard_planning_push(ShardPlanning *planning)
{
	planning->outer = current_planning;
	current_planning = planning;
}

/*
 * shard_planning_pop
 *		The planning of the query has ended, whatever came of it.
 */
void
shard_planning_pop(const ShardPlanning *planning)
{
	current_planning = planning->outer;
}

/*
 * shard_is_planning
 *		Has the query that is being planned been looked at before?  The one
 *		whose planning loads the library has not.
 */
bool
shard_is_planning(void)
{
	return current_planning != NULL;
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
 * shard_may_be_cursor
 *		Is the query that is being planned that of a cursor, as far as we know?
 */
bool
shard_may_be_cursor(void)
{
	return current_planning == NULL ||
		(current_planning->cursor_options & CURSOR_OPT_FAST_PLAN) != 0;
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
 * shard_root_with_params
 *		All that evaluating an expression before execution needs of the
 *		planner's state.
 */
PlannerInfo *
shard_root_with_params(ParamListInfo params)
{
	PlannerInfo *root = makeNode(PlannerInfo);

	root->glob = makeNode(PlannerGlobal);
	root->glob->boundParams = params;
	return root;
}

/*
 * shard_assumptions_hold
 *		Does what a plan assumes still hold, with these parameters?
 */
bool
shard_assumptions_hold(List *assumptions, ParamListInfo params)
{
	PlannerInfo *root = shard_root_with_params(params);
	ListCell   *lc;

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
