/*-------------------------------------------------------------------------
 *
 * remote_limit.c
 *	  LIMIT of a query for each of the remote shards whose rows it merges.
 *
 * postgres_fdw sends ORDER BY with the scan of a shard, but LIMIT only with a
 * whole query of one foreign table.  It fetches rows bit by bit, so not many
 * more are sent than are needed; but the other server has to be ready to
 * return all of them, and sorts all that it has.  Told how many there are to
 * be, it keeps these only.
 *
 * A merge of sorted scans returns the first rows of the whole, so of each scan
 * it takes as many of the first rows at most.  That holds if each row that a
 * scan returns is one of the merge, and each of those one for LIMIT: no
 * condition is evaluated here, and nothing is between the nodes of the plan.
 * Then we append LIMIT to the finished query of postgres_fdw's.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

/* More rows than that are no reason to do anything. */
#define MAX_LIMIT	INT64CONST(1000000000)

/*
 * A constant of LIMIT or OFFSET: its value, "none" if there is none, or -1 if
 * it is not known or has no bound.
 */
static int64
limit_value(const Node *node, int64 none)
{
	const Const *value = (const Const *) node;

	if (node == NULL)
		return none;
	if (!IsA(node, Const) || value->constisnull)
		return -1;
	return Min(DatumGetInt64(value->constvalue), MAX_LIMIT + 1);
}

/*
 * Have the scans of remote shards below a plan, whose first rows alone are
 * needed, ask for so many.
 */
static void
limit_scans(Plan *plan, int64 count, const PlannedStmt *stmt)
{
	check_stack_depth();
	if (plan == NULL || plan->qual != NIL)
		return;
	if (IsA(plan, Result))
		limit_scans(plan->lefttree, count, stmt);
	else if (IsA(plan, MergeAppend))
	{
		ListCell   *lc;

		foreach(lc, ((MergeAppend *) plan)->mergeplans)
			limit_scans(lfirst(lc), count, stmt);
	}
	else if (IsA(plan, ForeignScan))
	{
		ForeignScan *scan = (ForeignScan *) plan;
		Oid			relid;

		/* What is sent is the first that postgres_fdw notes, a string. */
		if (scan->scan.scanrelid == 0 || scan->operation != CMD_SELECT ||
			scan->fdw_private == NIL ||
			!IsA(linitial(scan->fdw_private), String) ||
			!shard_is_node(scan->fs_server))
			return;
		relid = rt_fetch(scan->scan.scanrelid, stmt->rtable)->relid;
		if (shard_logical_parents(relid) != NIL)
			linitial(scan->fdw_private) =
				makeString(psprintf("%s LIMIT " INT64_FORMAT,
									strVal(linitial(scan->fdw_private)),
									count));
	}
}

/*
 * Look for LIMIT in a plan.
 */
static void
find_limit(Plan *plan, const PlannedStmt *stmt)
{
	if (plan == NULL)
		return;
	check_stack_depth();
	if (IsA(plan, Limit) && ((Limit *) plan)->limitOption == LIMIT_OPTION_COUNT)
	{
		int64		count = limit_value(((Limit *) plan)->limitCount, -1);
		int64		offset = limit_value(((Limit *) plan)->limitOffset, 0);

		if (count >= 0 && offset >= 0 && count + offset <= MAX_LIMIT)
			limit_scans(plan->lefttree, count + offset, stmt);
	}
	find_limit(plan->lefttree, stmt);
	find_limit(plan->righttree, stmt);
	if (IsA(plan, SubqueryScan))
		find_limit(((SubqueryScan *) plan)->subplan, stmt);
}

/*
 * shard_plan_limits
 *		Have remote shards of a finished plan, which nobody uses yet, know the
 *		LIMIT of the query.
 */
void
shard_plan_limits(PlannedStmt *stmt)
{
	ListCell   *lc;

	if (stmt->commandType != CMD_SELECT || stmt->rowMarks != NIL ||
		stmt->hasModifyingCTE)
		return;
	find_limit(stmt->planTree, stmt);
	foreach(lc, stmt->subplans)
		find_limit(lfirst(lc), stmt);
}
