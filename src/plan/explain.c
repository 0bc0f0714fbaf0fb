/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  What EXPLAIN shows of a shard that was chosen for an execution.
 *
 * The plan for the shard says nothing of the others.  If somebody wants to look
 * at it, a node is put above the scan of the shard that says how many have been
 * left out.  It passes on what the scan returns.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"

static Node *create_shown(CustomScan *shown);
static void begin_shown(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_shown(CustomScanState *node);
static void end_shown(CustomScanState *node);
static void rescan_shown(CustomScanState *node);
static void mark_shown(CustomScanState *node);
static void restore_shown(CustomScanState *node);
static void explain_shown(CustomScanState *node, List *ancestors,
						  ExplainState *es);

static const CustomScanMethods shown_methods = {
	"shard_fdw lookup", create_shown
};

static const CustomExecMethods shown_exec_methods = {
	.CustomName = "shard_fdw lookup",
	.BeginCustomScan = begin_shown,
	.ExecCustomScan = exec_shown,
	.EndCustomScan = end_shown,
	.ReScanCustomScan = rescan_shown,
	.MarkPosCustomScan = mark_shown,
	.RestrPosCustomScan = restore_shown,
	.ExplainCustomScan = explain_shown,
};

static Node *
create_shown(CustomScan *shown)
{
	CustomScanState *state = makeNode(CustomScanState);

	state->methods = &shown_exec_methods;
	return (Node *) state;
}

static void
begin_shown(CustomScanState *node, EState *estate, int eflags)
{
	outerPlanState(node) = ExecInitNode(outerPlan(node->ss.ps.plan), estate,
										eflags);
}

static TupleTableSlot *
exec_shown(CustomScanState *node)
{
	TupleTableSlot *row = ExecProcNode(outerPlanState(node));
	ExprContext *econtext = node->ss.ps.ps_ExprContext;

	if (TupIsNull(row))
		return NULL;
	ResetExprContext(econtext);
	econtext->ecxt_outertuple = row;
	return ExecProject(node->ss.ps.ps_ProjInfo);
}

static void
end_shown(CustomScanState *node)
{
	ExecEndNode(outerPlanState(node));
}

static void
rescan_shown(CustomScanState *node)
{
	/* With changed parameters, ExecProcNode() sees to it. */
	if (outerPlanState(node)->chgParam == NULL)
		ExecReScan(outerPlanState(node));
}

static void
mark_shown(CustomScanState *node)
{
	ExecMarkPos(outerPlanState(node));
}

static void
restore_shown(CustomScanState *node)
{
	ExecRestrPos(outerPlanState(node));
}

static void
explain_shown(CustomScanState *node, List *ancestors, ExplainState *es)
{
	CustomScan *shown = castNode(CustomScan, node->ss.ps.plan);

	ExplainPropertyInteger("Shards Removed", NULL,
						   intVal(linitial(shown->custom_private)), es);
}

/*
 * Put the node that is shown above a scan.
 */
static Plan *
show_above(Plan *scan, int nremoved)
{
	CustomScan *shown = makeNode(CustomScan);
	Plan	   *plan = &shown->scan.plan;
	ListCell   *lc;

	plan->startup_cost = scan->startup_cost;
	plan->total_cost = scan->total_cost;
	plan->plan_rows = scan->plan_rows;
	plan->plan_width = scan->plan_width;
	plan->parallel_safe = scan->parallel_safe;
	plan->extParam = scan->extParam;
	plan->allParam = scan->allParam;
	/* Nodes have numbers of their own, and these have been given. */
	plan->plan_node_id = PG_INT32_MAX - scan->plan_node_id;
	plan->lefttree = scan;
	foreach(lc, scan->targetlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		TargetEntry *copy = flatCopyTargetEntry(tle);

		copy->expr = (Expr *) makeVar(OUTER_VAR, tle->resno,
									  exprType((Node *) tle->expr),
									  exprTypmod((Node *) tle->expr),
									  exprCollation((Node *) tle->expr), 0);
		plan->targetlist = lappend(plan->targetlist, copy);
	}
	shown->methods = &shown_methods;
	shown->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN |
		CUSTOMPATH_SUPPORT_MARK_RESTORE;
	shown->custom_private = list_make1(makeInteger(nremoved));
	return plan;
}

/*
 * Is this a scan of the table that returns its rows?
 */
static bool
is_scan_of(Plan *plan, List *rtable, Oid relid)
{
	Index		rti = 0;

	switch (nodeTag(plan))
	{
		case T_ForeignScan:
			/* One that changes the rows where they are returns none. */
			if (((ForeignScan *) plan)->operation == CMD_SELECT)
				rti = ((Scan *) plan)->scanrelid;
			break;
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
			rti = ((Scan *) plan)->scanrelid;
			break;
		default:
			break;
	}
	return rti > 0 && rt_fetch(rti, rtable)->relid == relid;
}

static Plan *show_in_plan(Plan *plan, List *rtable, Oid relid, int nremoved);

static void
show_in_plans(List *plans, List *rtable, Oid relid, int nremoved)
{
	ListCell   *lc;

	foreach(lc, plans)
		lfirst(lc) = show_in_plan(lfirst(lc), rtable, relid, nremoved);
}

/*
 * Put the node that is shown above all scans of the table in a plan.
 */
static Plan *
show_in_plan(Plan *plan, List *rtable, Oid relid, int nremoved)
{
	if (plan == NULL)
		return NULL;
	check_stack_depth();
	if (is_scan_of(plan, rtable, relid))
		return show_above(plan, nremoved);
	plan->lefttree = show_in_plan(plan->lefttree, rtable, relid, nremoved);
	plan->righttree = show_in_plan(plan->righttree, rtable, relid, nremoved);
	switch (nodeTag(plan))
	{
		case T_Append:
			show_in_plans(((Append *) plan)->appendplans, rtable, relid,
						  nremoved);
			break;
		case T_MergeAppend:
			show_in_plans(((MergeAppend *) plan)->mergeplans, rtable, relid,
						  nremoved);
			break;
		case T_SubqueryScan:
			((SubqueryScan *) plan)->subplan =
				show_in_plan(((SubqueryScan *) plan)->subplan, rtable, relid,
							 nremoved);
			break;
		default:
			break;
	}
	return plan;
}

/*
 * shard_show_lookup
 *		Have EXPLAIN show that a plan reads one shard, and how many it does not
 *		read.  Changes the plan.
 */
void
shard_show_lookup(PlannedStmt *plan, Oid shard, int nremoved)
{
	plan->planTree = show_in_plan(plan->planTree, plan->rtable, shard,
								  nremoved);
	show_in_plans(plan->subplans, plan->rtable, shard, nremoved);
}

/*
 * shard_explain_init
 *		To be called once, when the library is loaded.
 */
void
shard_explain_init(void)
{
	RegisterCustomScanMethods(&shown_methods);
}
