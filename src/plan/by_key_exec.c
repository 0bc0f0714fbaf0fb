/*-------------------------------------------------------------------------
 *
 * by_key_exec.c
 *	  Executing the scans of those shards that a value leads to.
 *
 * The node of the plan has a scan of each shard.  It initializes one when a
 * value leads there first, so what no value leads to costs nothing, and a shard
 * on another server is not contacted.  With new values, only those scans are
 * started again that these lead to.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "partitioning/partbounds.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

/* The node while it is executed. */
typedef struct ByKeyState
{
	CustomScanState css;
	int			eflags;
	ShardByKey	places;
	PlanState **scans;			/* NULL: not initialized */
	uint64	   *started;		/* in which round each was started last */
	uint64		round;			/* counts what values there have been */
	Bitmapset  *changed;		/* parameters that have ever changed */

	int			nvalues;
	ExprState **values;
	Oid		   *types;			/* of the values, or of an array's elements */
	FmgrInfo   *functions;		/* that hash them */
	Oid		   *collations;
	int			array_column;	/* -1: none */
	int16		array_len;
	bool		array_byval;
	char		array_align;

	bool		is_chosen;		/* the values have been looked at */
	int			nchosen;		/* and lead to these scans: */
	int		   *chosen;
	int			current;		/* in "chosen" */
	bool	   *is_member;		/* is a scan in "chosen"? */
} ByKeyState;

static Node *create_state(CustomScan *plan);
static void begin_scans(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_scans(CustomScanState *node);
static void end_scans(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain_scans(CustomScanState *node, List *ancestors,
						  ExplainState *es);

const CustomScanMethods shard_by_key_methods = {
	"shard_fdw key lookup", create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "shard_fdw key lookup",
	.BeginCustomScan = begin_scans,
	.ExecCustomScan = exec_scans,
	.EndCustomScan = end_scans,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain_scans,
};

static List *
list_of_ints(const int *values, int n)
{
	List	   *result = NIL;

	for (int i = 0; i < n; i++)
		result = lappend_int(result, values[i]);
	return result;
}

static int *
ints_of_list(const List *list)
{
	int		   *result = palloc(sizeof(int) * Max(list_length(list), 1));
	ListCell   *lc;

	foreach(lc, list)
		result[foreach_current_index(lc)] = lfirst_int(lc);
	return result;
}

/*
 * shard_describe_by_key
 *		What the node has to know besides its expressions, in a form that can be
 *		a part of a plan.
 */
List *
shard_describe_by_key(const ShardByKey *places, const Oid *collations,
					  int array_column)
{
	List	   *names = NIL;

	for (int i = 0; i < places->ncolumns; i++)
		names = lappend_oid(names, collations == NULL ? InvalidOid :
							collations[i]);
	return list_make4(list_make3_int(places->by_id, places->nmembers,
									 array_column),
					  list_of_ints(places->first, places->modulus),
					  list_of_ints(places->next, places->nscans),
					  names);
}

static Node *
create_state(CustomScan *plan)
{
	ByKeyState *state = palloc0(sizeof(ByKeyState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/*
 * Initialize the scan of a shard.
 */
static void
init_scan(ByKeyState *state, int i)
{
	CustomScan *plan = castNode(CustomScan, state->css.ss.ps.plan);
	EState	   *estate = state->css.ss.ps.state;
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

	state->scans[i] = ExecInitNode(list_nth(plan->custom_plans, i), estate,
								   state->eflags);
	state->started[i] = state->round;
	state->css.custom_ps = lappend(state->css.custom_ps, state->scans[i]);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Read what shard_describe_by_key() has written.
 */
static void
read_description(ByKeyState *state, CustomScan *plan)
{
	List	   *numbers = linitial(plan->custom_private);
	List	   *first = lsecond(plan->custom_private);
	List	   *next = lthird(plan->custom_private);
	ListCell   *lc;

	state->places.by_id = linitial_int(numbers) != 0;
	state->places.nmembers = lsecond_int(numbers);
	state->places.modulus = list_length(first);
	state->places.first = ints_of_list(first);
	state->places.nscans = list_length(next);
	state->places.next = ints_of_list(next);
	state->array_column = lthird_int(numbers);
	state->nvalues = list_length(plan->custom_exprs);
	state->collations = palloc(sizeof(Oid) * state->nvalues);
	foreach(lc, lfourth(plan->custom_private))
		state->collations[foreach_current_index(lc)] = lfirst_oid(lc);
}

/*
 * Prepare the evaluation of the values.
 */
static void
begin_values(ByKeyState *state, CustomScan *plan)
{
	ListCell   *lc;

	state->values = palloc(sizeof(ExprState *) * state->nvalues);
	state->types = palloc(sizeof(Oid) * state->nvalues);
	foreach(lc, plan->custom_exprs)
	{
		int			i = foreach_current_index(lc);

		state->values[i] = ExecInitExpr(lfirst(lc), &state->css.ss.ps);
		state->types[i] = exprType(lfirst(lc));
		if (i != state->array_column)
			continue;
		state->types[i] = get_base_element_type(state->types[i]);
		get_typlenbyvalalign(state->types[i], &state->array_len,
							 &state->array_byval, &state->array_align);
	}
	if (!state->places.by_id)
	{
		state->functions = palloc0(sizeof(FmgrInfo) * state->nvalues);
		shard_hash_functions(state->types, state->nvalues, state->functions);
	}
}

static void
begin_scans(CustomScanState *node, EState *estate, int eflags)
{
	ByKeyState *state = (ByKeyState *) node;
	CustomScan *plan = castNode(CustomScan, node->ss.ps.plan);

	Assert(!(eflags & (EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK)));
	state->eflags = eflags;
	read_description(state, plan);
	begin_values(state, plan);
	state->scans = palloc0(sizeof(PlanState *) * state->places.nscans);
	state->started = palloc0(sizeof(uint64) * state->places.nscans);
	state->chosen = palloc(sizeof(int) * state->places.nscans);
	state->is_member = palloc0(sizeof(bool) * state->places.nscans);

	/* The scans return rows in slots of all kinds, which we pass on. */
	node->ss.ps.scanopsset = true;
	node->ss.ps.scanops = NULL;
	node->ss.ps.scanopsfixed = false;
	node->ss.ps.resultopsset = true;
	node->ss.ps.resultops = NULL;
	node->ss.ps.resultopsfixed = false;
	if (node->ss.ps.ps_ProjInfo != NULL)
		ExecAssignScanProjectionInfoWithVarno(&node->ss, INDEX_VAR);

	/*
	 * EXPLAIN shows all scans if it executes none.  Workers report on scans,
	 * and may only report on those that their leader knew at the start.
	 */
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) ||
		(estate->es_instrument != 0 &&
		 estate->es_plannedstmt->parallelModeNeeded))
		for (int i = 0; i < state->places.nscans; i++)
			init_scan(state, i);
}

/*
 * Add the scans that a key or an id leads to.
 */
static void
choose(ByKeyState *state, Datum *values, bool *nulls)
{
	ShardByKey *places = &state->places;
	int			place;

	if (places->by_id)
		place = shard_id_slot_of(shard_id_from_datum(values[0],
													 state->types[0]),
								 places->modulus);
	else
		place = compute_partition_hash_value(state->nvalues, state->functions,
											 state->collations, values,
											 nulls) % places->modulus;
	for (int i = places->first[place]; i >= 0; i = places->next[i])
	{
		if (state->is_member[i])
			continue;
		state->is_member[i] = true;
		state->chosen[state->nchosen++] = i;
	}
}

/*
 * Choose scans by each element of an array.
 */
static void
choose_all(ByKeyState *state, Datum *values, bool *nulls)
{
	int			column = state->array_column;
	Datum	   *elements;
	bool	   *element_nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(values[column]), state->types[column],
					  state->array_len, state->array_byval, state->array_align,
					  &elements, &element_nulls, &n);
	for (int i = 0; i < n && state->nchosen < state->places.nscans; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (element_nulls[i])
			continue;
		values[column] = elements[i];
		choose(state, values, nulls);
	}
}

/*
 * Find out which scans the present values lead to.
 */
static void
choose_scans(ByKeyState *state)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	MemoryContext oldcontext;
	Datum		values[PARTITION_MAX_KEYS] = {0};
	bool		nulls[PARTITION_MAX_KEYS] = {0};
	bool		has_null = false;

	for (int i = 0; i < state->nchosen; i++)
		state->is_member[state->chosen[i]] = false;
	state->nchosen = 0;
	state->current = 0;
	state->is_chosen = true;

	ResetExprContext(econtext);
	oldcontext = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	for (int i = 0; i < state->nvalues && !has_null; i++)
	{
		values[i] = ExecEvalExpr(state->values[i], econtext, &nulls[i]);
		has_null = nulls[i];
	}
	/* No row has a key that equals null. */
	if (!has_null && state->array_column >= 0)
		choose_all(state, values, nulls);
	else if (!has_null)
		choose(state, values, nulls);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * A scan, ready to be executed with the present parameters.
 */
static PlanState *
get_scan(ByKeyState *state, int i)
{
	PlanState  *scan = state->scans[i];

	if (scan == NULL)
	{
		init_scan(state, i);
		return state->scans[i];
	}
	if (state->started[i] == state->round)
		return scan;

	/* What has changed since is not known, but it is not more than this. */
	if (state->changed != NULL)
		UpdateChangedParamSet(scan, state->changed);
	if (scan->chgParam == NULL)
		ExecReScan(scan);
	state->started[i] = state->round;
	return scan;
}

static TupleTableSlot *
exec_scans(CustomScanState *node)
{
	ByKeyState *state = (ByKeyState *) node;

	if (!state->is_chosen)
		choose_scans(state);
	for (; state->current < state->nchosen; state->current++)
	{
		TupleTableSlot *row = ExecProcNode(get_scan(state,
													state->chosen[state->current]));
		ExprContext *econtext = node->ss.ps.ps_ExprContext;

		if (TupIsNull(row))
			continue;
		if (node->ss.ps.ps_ProjInfo == NULL)
			return row;
		ResetExprContext(econtext);
		econtext->ecxt_scantuple = row;
		return ExecProject(node->ss.ps.ps_ProjInfo);
	}
	return NULL;
}

static void
end_scans(CustomScanState *node)
{
	ListCell   *lc;

	foreach(lc, node->custom_ps)
		ExecEndNode(lfirst(lc));
}

static void
rescan(CustomScanState *node)
{
	ByKeyState *state = (ByKeyState *) node;

	state->is_chosen = false;
	state->round++;
	if (!bms_is_subset(node->ss.ps.chgParam, state->changed))
	{
		MemoryContext oldcontext =
			MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);

		state->changed = bms_add_members(state->changed,
										 node->ss.ps.chgParam);
		MemoryContextSwitchTo(oldcontext);
	}
}

/*
 * Show what leads to the shards, and how many have not been needed.
 */
static void
explain_scans(CustomScanState *node, List *ancestors, ExplainState *es)
{
	ByKeyState *state = (ByKeyState *) node;
	CustomScan *plan = castNode(CustomScan, node->ss.ps.plan);
	List	   *context = set_deparse_context_plan(es->deparse_cxt,
												   (Plan *) plan, ancestors);
	bool		with_prefix = list_length(es->rtable) > 1 || es->verbose;
	int			nremoved = state->places.nmembers -
		list_length(node->custom_ps);
	List	   *values = NIL;
	ListCell   *lc;

	foreach(lc, plan->custom_exprs)
		values = lappend(values, deparse_expression(lfirst(lc), context,
													with_prefix, false));
	ExplainPropertyList(state->places.by_id ? "Id" : "Key", values, es);
	if (nremoved > 0)
		ExplainPropertyInteger("Shards Removed", NULL, nremoved, es);

	/* In the order of the plan. */
	list_free(node->custom_ps);
	node->custom_ps = NIL;
	for (int i = 0; i < state->places.nscans; i++)
		if (state->scans[i] != NULL)
			node->custom_ps = lappend(node->custom_ps, state->scans[i]);
}
