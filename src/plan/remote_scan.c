/*-------------------------------------------------------------------------
 *
 * remote_scan.c
 *	  Scans of shards on other servers that are not to be started.
 *
 * postgres_fdw connects to its server when a scan is initialized, whether or not
 * it is run.  So a gate, a condition that decides once whether a shard is
 * scanned, comes too late if it is evaluated after that, and a query fails
 * because of a server that it has no business with.  When a query has been
 * planned, a node takes the place of such a gate that initializes what is below
 * it only if the condition is true.
 *
 * Setting shard_fdw.skip_nodes leaves out servers.  When a query starts, a node
 * that returns no rows, and says so, takes the place of scans of shards there.
 * This is done with a copy of the plan, which may be used again.  Statements
 * that write, or lock rows, are left alone: what they did with a part of the rows
 * would last longer than the warning.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/parallel.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "parser/parsetree.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

/* A gate while it is executed. */
typedef struct GateState
{
	CustomScanState css;
	int			eflags;
	ExprState  *condition;
	bool		is_known;		/* it has been evaluated, and is_open is right */
	bool		is_open;
	PlanState  *below;			/* NULL: not initialized */
} GateState;

/* What is to be left out of a query. */
typedef struct Skipping
{
	const PlannedStmt *plan;
	List	   *servers;		/* OIDs */
	bool		found;			/* there is a scan to be left out */
	bool		replaces;		/* else we only look for one */
} Skipping;

static char *skip_nodes = NULL;

/* Counts queries from which something is left out, and which one has said so. */
static int	skipping_query = 0;
static int	warned_query = 0;

static Node *create_gate(CustomScan *plan);
static void begin_gate(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_gate(CustomScanState *node);
static void end_gate(CustomScanState *node);
static void rescan_gate(CustomScanState *node);
static void explain_gate(CustomScanState *node, List *ancestors,
						 ExplainState *es);
static Node *create_skipped(CustomScan *plan);
static void begin_skipped(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_skipped(CustomScanState *node);
static void end_skipped(CustomScanState *node);

static const CustomScanMethods gate_methods = {
	"shard_fdw gate", create_gate
};

static const CustomExecMethods gate_exec_methods = {
	.CustomName = "shard_fdw gate",
	.BeginCustomScan = begin_gate,
	.ExecCustomScan = exec_gate,
	.EndCustomScan = end_gate,
	.ReScanCustomScan = rescan_gate,
	.ExplainCustomScan = explain_gate,
};

static const CustomScanMethods skipped_methods = {
	"shard_fdw skipped node", create_skipped
};

static const CustomExecMethods skipped_exec_methods = {
	.CustomName = "shard_fdw skipped node",
	.BeginCustomScan = begin_skipped,
	.ExecCustomScan = exec_skipped,
	.EndCustomScan = end_skipped,
	.ReScanCustomScan = end_skipped,
};

/*
 * Call a function for all nodes of a plan, from the leaves to the top.  It may
 * put another in place of each.
 */
static void
walk_plan(Plan **plan, void (*visit) (Plan **plan, void *arg), void *arg)
{
	List	   *children = NIL;
	ListCell   *lc;

	if (*plan == NULL)
		return;
	check_stack_depth();
	walk_plan(&(*plan)->lefttree, visit, arg);
	walk_plan(&(*plan)->righttree, visit, arg);
	if (IsA(*plan, Append))
		children = ((Append *) *plan)->appendplans;
	else if (IsA(*plan, MergeAppend))
		children = ((MergeAppend *) *plan)->mergeplans;
	else if (IsA(*plan, CustomScan))
		children = ((CustomScan *) *plan)->custom_plans;
	else if (IsA(*plan, SubqueryScan))
		walk_plan(&((SubqueryScan *) *plan)->subplan, visit, arg);
	foreach(lc, children)
		walk_plan((Plan **) &lfirst(lc), visit, arg);
	visit(plan, arg);
}

/*
 * The same for all plans of a statement.
 */
static void
walk_statement(PlannedStmt *stmt, void (*visit) (Plan **plan, void *arg),
			   void *arg)
{
	ListCell   *lc;

	walk_plan(&stmt->planTree, visit, arg);
	foreach(lc, stmt->subplans)
		walk_plan((Plan **) &lfirst(lc), visit, arg);
}

/*
 * Find out what a gate's columns are, in terms of the scan below it.  Returns
 * false if they are more than columns of that.
 */
static bool
columns_below(const Plan *gate, List **result)
{
	const ForeignScan *scan = castNode(ForeignScan, gate->lefttree);
	ListCell   *lc;

	*result = NIL;
	foreach(lc, gate->targetlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Expr	   *expr = tle->expr;

		if (IsA(expr, Var))
		{
			TargetEntry *below = ((Var *) expr)->varno != OUTER_VAR ? NULL :
				get_tle_by_resno(gate->lefttree->targetlist,
								 ((Var *) expr)->varattno);

			if (below == NULL)
				return false;
			expr = below->expr;
			if (IsA(expr, Var) && ((Var *) expr)->varno == INDEX_VAR)
			{
				below = get_tle_by_resno(scan->fdw_scan_tlist,
										 ((Var *) expr)->varattno);
				if (below == NULL)
					return false;
				expr = below->expr;
			}
		}
		else if (!IsA(expr, Const) && !IsA(expr, Param))
			return false;
		*result = lappend(*result,
						  makeTargetEntry(copyObject(expr), tle->resno,
										  tle->resname, tle->resjunk));
	}
	return true;
}

/*
 * Put our node in place of a gate above a scan of another wrapper's.
 */
static void
plan_gate(Plan **plan, void *arg)
{
	Plan	   *gate = *plan;
	List	   *columns;
	CustomScan *node;
	ListCell   *lc;

	if (!IsA(gate, Result) || ((Result *) gate)->resconstantqual == NULL ||
		gate->lefttree == NULL || !IsA(gate->lefttree, ForeignScan) ||
		((ForeignScan *) gate->lefttree)->operation != CMD_SELECT ||
		gate->lefttree->parallel_safe || gate->initPlan != NIL)
		return;
	if (!columns_below(gate, &columns))
		return;
	node = makeNode(CustomScan);
	node->scan.plan = *gate;
	node->scan.plan.type = T_CustomScan;
	node->scan.plan.lefttree = NULL;
	node->scan.plan.qual = NIL;
	node->scan.plan.targetlist = NIL;
	foreach(lc, columns)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		node->scan.plan.targetlist =
			lappend(node->scan.plan.targetlist,
					makeTargetEntry((Expr *) makeVarFromTargetEntry(INDEX_VAR,
																	tle),
									tle->resno, tle->resname, tle->resjunk));
	}
	node->custom_plans = list_make1(gate);
	node->custom_exprs = list_make1(((Result *) gate)->resconstantqual);
	node->custom_scan_tlist = columns;
	node->custom_relids = bms_copy(((ForeignScan *) gate->lefttree)->fs_relids);
	node->methods = &gate_methods;
	*plan = (Plan *) node;
}

/*
 * Have a scan that evaluates a subplan for its rows wait for them.
 *
 * It would otherwise do that while its Append waits for several scans, and if
 * the subplan uses the same connection, their requests get mixed up: core's
 * Append then fails, or waits forever.
 */
static void
plan_synchronous(Plan **plan, void *arg)
{
	if (IsA(*plan, ForeignScan) && (*plan)->async_capable &&
		(contain_subplans((Node *) (*plan)->qual) ||
		 contain_subplans((Node *) (*plan)->targetlist)))
		(*plan)->async_capable = false;
}

/*
 * shard_plan_gates
 *		Have the gates of a plan keep scans of other wrappers from being
 *		initialized, and scans with subplans from being asynchronous.
 */
void
shard_plan_gates(PlannedStmt *stmt)
{
	walk_statement(stmt, plan_synchronous, NULL);
	walk_statement(stmt, plan_gate, NULL);
}

static Node *
create_gate(CustomScan *plan)
{
	GateState  *state = palloc0(sizeof(GateState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &gate_exec_methods;
	return (Node *) state;
}

/*
 * Initialize what is below a gate.
 */
static void
init_below(GateState *state)
{
	CustomScan *plan = castNode(CustomScan, state->css.ss.ps.plan);
	EState	   *estate = state->css.ss.ps.state;
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

	state->below = ExecInitNode(linitial(plan->custom_plans), estate,
								state->eflags);
	state->css.custom_ps = list_make1(state->below);
	MemoryContextSwitchTo(oldcontext);
}

static void
begin_gate(CustomScanState *node, EState *estate, int eflags)
{
	GateState  *state = (GateState *) node;
	CustomScan *plan = castNode(CustomScan, node->ss.ps.plan);

	state->eflags = eflags;
	state->condition = ExecInitQual((List *) linitial(plan->custom_exprs),
									&node->ss.ps);
	/* Rows are passed on in the slots of what is below. */
	node->ss.ps.scanopsset = true;
	node->ss.ps.scanops = NULL;
	node->ss.ps.scanopsfixed = false;
	node->ss.ps.resultopsset = true;
	node->ss.ps.resultops = NULL;
	node->ss.ps.resultopsfixed = false;
	if (node->ss.ps.ps_ProjInfo != NULL)
		ExecAssignScanProjectionInfoWithVarno(&node->ss, INDEX_VAR);
	/* EXPLAIN shows all, without connecting to anybody. */
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		init_below(state);
}

static TupleTableSlot *
exec_gate(CustomScanState *node)
{
	GateState  *state = (GateState *) node;
	TupleTableSlot *slot;

	if (!state->is_known)
	{
		ResetExprContext(node->ss.ps.ps_ExprContext);
		state->is_open = ExecQual(state->condition,
								  node->ss.ps.ps_ExprContext);
		state->is_known = true;
	}
	if (!state->is_open)
		return NULL;
	if (state->below == NULL)
		init_below(state);
	slot = ExecProcNode(state->below);
	if (TupIsNull(slot) || node->ss.ps.ps_ProjInfo == NULL)
		return slot;
	ResetExprContext(node->ss.ps.ps_ExprContext);
	node->ss.ps.ps_ExprContext->ecxt_scantuple = slot;
	return ExecProject(node->ss.ps.ps_ProjInfo);
}

static void
end_gate(CustomScanState *node)
{
	GateState  *state = (GateState *) node;

	if (state->below != NULL)
		ExecEndNode(state->below);
}

/*
 * Parameters may have changed, and the condition with them.
 */
static void
rescan_gate(CustomScanState *node)
{
	GateState  *state = (GateState *) node;

	state->is_known = false;
	if (state->below == NULL)
		return;
	UpdateChangedParamSet(state->below, node->ss.ps.chgParam);
	if (state->below->chgParam == NULL)
		ExecReScan(state->below);
}

/*
 * The node below shows the condition.  It is there to be shown only if the
 * condition was true, or nothing was executed.
 */
static void
explain_gate(CustomScanState *node, List *ancestors, ExplainState *es)
{
	if (((GateState *) node)->below == NULL)
		ExplainPropertyText("Gate", "closed", es);
}

/*
 * Does an expression have an aggregate, a partial one if asked for?
 */
static bool
has_aggregate(Node *node, bool *is_partial)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		*is_partial |= ((Aggref *) node)->aggsplit != AGGSPLIT_SIMPLE;
		return true;
	}
	return expression_tree_walker(node, has_aggregate, is_partial);
}

/*
 * Does a scan return rows at all if there are none to be read?  A whole
 * aggregate without GROUP BY does.
 */
static bool
is_empty_without_rows(const ForeignScan *scan)
{
	bool		is_partial = false;

	if (scan->scan.scanrelid > 0 ||
		!has_aggregate((Node *) scan->fdw_scan_tlist, &is_partial))
		return true;
	(void) has_aggregate((Node *) scan->scan.plan.targetlist, &is_partial);
	if (!is_partial)
	{
		ListCell   *lc;

		/* What is grouped by is one of the columns. */
		foreach(lc, scan->fdw_scan_tlist)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);

			if (tle->ressortgroupref != 0 &&
				!has_aggregate((Node *) tle->expr, &is_partial))
				return true;
		}
	}
	return is_partial;
}

/*
 * Put a node that returns nothing in place of a scan that is to be left out.
 */
static void
skip_scan(Plan **plan, void *arg)
{
	Skipping   *skipping = arg;
	ForeignScan *scan;
	CustomScan *node;
	bool		is_shard = false;
	int			rti = -1;

	if (!IsA(*plan, ForeignScan))
		return;
	scan = castNode(ForeignScan, *plan);
	if (scan->operation != CMD_SELECT ||
		!list_member_oid(skipping->servers, scan->fs_server) ||
		!is_empty_without_rows(scan))
		return;
	while ((rti = bms_next_member(scan->fs_relids, rti)) >= 0)
	{
		const RangeTblEntry *rte = rt_fetch(rti, skipping->plan->rtable);

		is_shard |= rte->rtekind == RTE_RELATION &&
			shard_logical_parents(rte->relid) != NIL;
	}
	if (!is_shard)
		return;
	skipping->found = true;
	if (!skipping->replaces)
		return;
	node = makeNode(CustomScan);
	node->scan = scan->scan;
	node->scan.plan.type = T_CustomScan;
	node->scan.plan.lefttree = NULL;
	node->scan.plan.qual = NIL;
	node->scan.plan.async_capable = false;
	node->custom_scan_tlist = scan->fdw_scan_tlist;
	node->custom_relids = scan->fs_relids;
	node->custom_private = list_make2(makeInteger(skipping_query),
									  makeString(GetForeignServer(scan->fs_server)->servername));
	node->methods = &skipped_methods;
	*plan = (Plan *) node;
}

/*
 * The servers that setting shard_fdw.skip_nodes names.  A name may be that of
 * one that does not exist.
 */
static List *
skipped_servers(void)
{
	List	   *names;
	List	   *result = NIL;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(skip_nodes), ',', &names))
		return NIL;
	foreach(lc, names)
	{
		Oid			server = get_foreign_server_oid(lfirst(lc), true);

		if (OidIsValid(server))
			result = lappend_oid(result, server);
	}
	return result;
}

/*
 * shard_skip_nodes
 *		The plan to be executed in place of this one, by setting
 *		shard_fdw.skip_nodes: the same, or a copy without some scans, in the
 *		current memory context.
 */
PlannedStmt *
shard_skip_nodes(PlannedStmt *stmt)
{
	Skipping	skipping = {0};

	if (likely(skip_nodes == NULL || skip_nodes[0] == '\0') ||
		stmt->commandType != CMD_SELECT || stmt->hasModifyingCTE ||
		stmt->rowMarks != NIL || IsParallelWorker())
		return stmt;
	skipping.servers = skipped_servers();
	if (skipping.servers == NIL)
		return stmt;
	skipping.plan = stmt;
	walk_statement(stmt, skip_scan, &skipping);
	if (!skipping.found)
		return stmt;
	stmt = copyObject(stmt);
	skipping.plan = stmt;
	skipping.replaces = true;
	skipping_query = (skipping_query + 1) & INT_MAX;
	walk_statement(stmt, skip_scan, &skipping);
	return stmt;
}

static Node *
create_skipped(CustomScan *plan)
{
	CustomScanState *state = makeNode(CustomScanState);

	state->methods = &skipped_exec_methods;
	return (Node *) state;
}

static void
begin_skipped(CustomScanState *node, EState *estate, int eflags)
{
}

/*
 * The first scan that would have been started says which servers are left out.
 */
static TupleTableSlot *
exec_skipped(CustomScanState *node)
{
	List	   *private = castNode(CustomScan, node->ss.ps.plan)->custom_private;

	if (warned_query != intVal(linitial(private)))
	{
		warned_query = intVal(linitial(private));
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("rows of shards on server \"%s\" are left out",
						strVal(lsecond(private))),
				 errdetail("Setting \"shard_fdw.skip_nodes\" is \"%s\".",
						   skip_nodes)));
	}
	return NULL;
}

static void
end_skipped(CustomScanState *node)
{
}

/*
 * Check the list of names, as the check hook.
 */
static bool
check_skip_nodes(char **value, void **extra, GucSource source)
{
	List	   *names;

	if (*value == NULL || **value == '\0' ||
		SplitIdentifierString(pstrdup(*value), ',', &names))
		return true;
	GUC_check_errdetail("Names of servers are separated by commas.");
	return false;
}

/*
 * shard_remote_scan_init
 *		Define setting shard_fdw.skip_nodes.  To be called once, when the library
 *		is loaded, before the prefix of settings is reserved.
 */
void
shard_remote_scan_init(void)
{
	DefineCustomStringVariable("shard_fdw.skip_nodes",
							   "Leaves out of queries the shards on these servers.",
							   NULL,
							   &skip_nodes,
							   "",
							   PGC_USERSET, GUC_LIST_INPUT,
							   check_skip_nodes, NULL, NULL);
	RegisterCustomScanMethods(&gate_methods);
	RegisterCustomScanMethods(&skipped_methods);
}
