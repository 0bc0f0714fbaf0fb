/*-------------------------------------------------------------------------
 *
 * remote_agg.c
 *	  Partial aggregates that other servers compute.
 *
 * With enable_partitionwise_aggregate, core aggregates each shard by itself and
 * combines the states.  It asks the FDW of a shard for a path that does the
 * first part on the other server.  postgres_fdw has none: it can only send an
 * aggregate as a whole.  But the state of many aggregates is their result, and
 * that of some others can be made of the results of several.  So for the shards
 * of postgres_fdw, core gets to see a copy of the FDW's callbacks, in which we
 * answer: we have postgres_fdw plan an ordinary aggregation whose results are
 * the states.  What can be sent, it decides, and the plan is its own; all we
 * change of it is what core takes the columns for.
 *
 * HAVING is for the combined groups and stays here.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type_d.h"
#include "foreign/fdwapi.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/tlist.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/syscache.h"

/*
 * Such a share of what it costs until the first row comes does not count.  If a
 * shard seems to be empty, either way costs the same, but nobody keeps the
 * statistics of foreign tables up to date: there may be many rows.
 */
#define REMOTE_AGG_BONUS	0.05

/* The callbacks of a remote shard, as core sees them while it plans. */
typedef struct RemoteAgg
{
	FdwRoutine	routine;		/* first: a RelOptInfo points to it */
	FdwRoutine *original;
	List	   *partial;		/* in the relation of the states: what they
								 * are to core */
} RemoteAgg;

/*
 * The aggregate "function" over the same rows as a partial aggregate, as a
 * whole, over the arguments "args" of type "argtype", or over the same ones if
 * there are none.
 *
 * It keeps its number, so that states of different aggregates remain different
 * expressions even if they are computed alike.
 */
static Aggref *
whole_aggref(const Aggref *partial, Oid function, Oid type, List *args,
			 Oid argtype)
{
	Aggref	   *result = makeNode(Aggref);

	memcpy(result, partial, sizeof(Aggref));
	result->aggfnoid = function;
	result->aggtype = type;
	result->aggtranstype = InvalidOid;
	result->aggsplit = AGGSPLIT_SIMPLE;
	if (args != NIL)
	{
		result->args = NIL;
		result->aggargtypes = NIL;
		for (int i = 0; i < list_length(args); i++)
		{
			result->args = lappend(result->args,
								   makeTargetEntry(list_nth(args, i), i + 1,
												   NULL, false));
			result->aggargtypes = lappend_oid(result->aggargtypes, argtype);
		}
	}
	return result;
}

/*
 * An array of some expressions, with 0 for those that are null.
 */
static Expr *
array_of(List *elements, Oid type, Oid array_type, Const *zero)
{
	ArrayExpr  *array = makeNode(ArrayExpr);

	array->array_typeid = array_type;
	array->element_typeid = type;
	array->elements = elements;
	array->location = -1;
	return (Expr *)
		makeFuncExpr(F_ARRAY_REPLACE, array_type,
					 list_make3(array, makeNullConst(type, -1, InvalidOid),
								zero),
					 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * The state of avg(smallint) and avg(integer): count and sum.
 */
static Expr *
int_avg_state(const Aggref *partial, Oid sum)
{
	return array_of(list_make2(whole_aggref(partial, F_COUNT_ANY, INT8OID, NIL,
											InvalidOid),
							   whole_aggref(partial, sum, INT8OID, NIL,
											InvalidOid)),
					INT8OID, INT8ARRAYOID,
					makeConst(INT8OID, -1, InvalidOid, sizeof(int64),
							  Int64GetDatum(0), false, FLOAT8PASSBYVAL));
}

static Const *
float_const(float8 value)
{
	return makeConst(FLOAT8OID, -1, InvalidOid, sizeof(float8),
					 Float8GetDatum(value), false, FLOAT8PASSBYVAL);
}

/*
 * The state of avg(), stddev(), variance() and so on over floats: count, sum,
 * and the sum of the squares of the differences from the average.
 *
 * avg() does not need the third; it is NaN then, with which no combination of
 * states overflows.
 */
static Expr *
float_accum_state(const Aggref *partial, bool is_avg)
{
	Expr	   *arg = linitial_node(TargetEntry, partial->args)->expr;
	Expr	   *count = (Expr *) whole_aggref(partial, F_COUNT_ANY, INT8OID,
											  NIL, InvalidOid);
	Expr	   *third = (Expr *) float_const(get_float8_nan());

	if (linitial_oid(partial->aggargtypes) == FLOAT4OID)
		arg = (Expr *) makeFuncExpr(F_FLOAT8_FLOAT4, FLOAT8OID, list_make1(arg),
									InvalidOid, InvalidOid,
									COERCE_EXPLICIT_CAST);
	count = (Expr *) makeFuncExpr(F_FLOAT8_INT8, FLOAT8OID, list_make1(count),
								  InvalidOid, InvalidOid, COERCE_EXPLICIT_CAST);
	if (!is_avg)
		third = (Expr *) whole_aggref(partial, F_REGR_SXX, FLOAT8OID,
									  list_make2(arg, arg), FLOAT8OID);
	return array_of(list_make3(count,
							   whole_aggref(partial, F_SUM_FLOAT8, FLOAT8OID,
											list_make1(arg), FLOAT8OID),
							   third),
					FLOAT8OID, FLOAT8ARRAYOID, float_const(0));
}

/*
 * Do all aggregates in the target that have the state of this one compute an
 * average?  The executor takes the state of one for all.
 */
static bool
is_state_of_avg(const Aggref *partial, const PathTarget *target)
{
	ListCell   *lc;

	foreach(lc, target->exprs)
	{
		Aggref	   *other = lfirst(lc);

		if (IsA(other, Aggref) && other->aggtransno == partial->aggtransno &&
			other->aggfnoid != F_AVG_FLOAT4 && other->aggfnoid != F_AVG_FLOAT8)
			return false;
	}
	return true;
}

/*
 * An expression over whole aggregates whose value is the state of a partial
 * one, or NULL if there is none.
 */
static Expr *
state_from_whole(const Aggref *partial, const PathTarget *target)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID,
										ObjectIdGetDatum(partial->aggfnoid));
	Form_pg_aggregate form;
	bool		has_value;
	Expr	   *result = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", partial->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	has_value = form->aggkind == AGGKIND_NORMAL &&
		form->aggtranstype != INTERNALOID;
	if (has_value && !OidIsValid(form->aggfinalfn))
		result = (Expr *) whole_aggref(partial, partial->aggfnoid,
									   partial->aggtranstype, NIL, InvalidOid);
	else if (has_value && partial->aggfnoid < FirstGenbkiObjectId)
	{
		switch (form->aggtransfn)
		{
			case F_INT2_AVG_ACCUM:
				result = int_avg_state(partial, F_SUM_INT2);
				break;
			case F_INT4_AVG_ACCUM:
				result = int_avg_state(partial, F_SUM_INT4);
				break;
			case F_FLOAT4_ACCUM:
			case F_FLOAT8_ACCUM:
				result = float_accum_state(partial,
										   is_state_of_avg(partial, target));
				break;
		}
	}
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Is an expression one that the query groups by?
 */
static bool
is_grouped_by(PlannerInfo *root, List *tlist, Node *expr)
{
	ListCell   *lc;

	foreach(lc, root->parse->groupClause)
	{
		if (equal(get_sortgroupclause_expr(lfirst(lc), tlist), expr))
			return true;
	}
	return false;
}

/*
 * Add what the query groups by to a target, as far as it is not there.
 *
 * Since 16, core leaves out what is equal to something else.  The other server
 * gets the whole GROUP BY clause.
 */
static void
add_groups(PlannerInfo *root, List *tlist, PathTarget *target)
{
	ListCell   *lc;

	foreach(lc, root->parse->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		bool		found = false;

		for (int i = 0; i < list_length(target->exprs); i++)
			found |= get_pathtarget_sortgroupref(target, i) ==
				clause->tleSortGroupRef;
		if (!found)
			add_column_to_pathtarget(target, (Expr *)
									 get_sortgroupclause_expr(clause, tlist),
									 clause->tleSortGroupRef);
	}
}

/*
 * Have the FDW make its plan, in whose columns core is then to find the partial
 * aggregates.
 */
static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path,
		 List *tlist, List *scan_clauses, Plan *outer_plan)
{
	RemoteAgg  *agg = (RemoteAgg *) rel->fdwroutine;
	ForeignScan *plan;
	ListCell   *lc;
	ListCell   *whole;
	ListCell   *partial;

	/* The clauses are gates, which core puts on top of the plan. */
	plan = agg->original->GetForeignPlan(root, rel, relid, path, tlist, NIL,
										 outer_plan);
	foreach(lc, plan->fdw_scan_tlist)
	{
		TargetEntry *column = lfirst_node(TargetEntry, lc);

		forboth(whole, rel->reltarget->exprs, partial, agg->partial)
		{
			if (IsA(lfirst(partial), Aggref) &&
				equal(lfirst(whole), column->expr))
			{
				column->expr = copyObject(lfirst(partial));
				break;
			}
		}
	}
	return plan;
}

/*
 * The one-time conditions on a relation, which decide whether it is scanned.
 */
static List *
gates(const RelOptInfo *rel)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, rel->baserestrictinfo)
	{
		if (lfirst_node(RestrictInfo, lc)->pseudoconstant)
			result = lappend(result, lfirst(lc));
	}
	return result;
}

/*
 * Add paths that compute partial aggregates of a remote shard, or of a join of
 * such, where they are.
 */
static void
add_partial_paths(PlannerInfo *root, RelOptInfo *input_rel,
				  RelOptInfo *output_rel, const GroupPathExtraData *extra)
{
	GroupPathExtraData whole_extra = *extra;
	RelOptInfo *whole = makeNode(RelOptInfo);
	RemoteAgg  *agg = palloc(sizeof(RemoteAgg));
	ListCell   *lc;

	/* The FDW is to believe that this is an aggregation of its own. */
	memcpy(whole, output_rel, sizeof(RelOptInfo));
	whole->pathlist = NIL;
	whole->partial_pathlist = NIL;
	whole->fdw_private = NULL;
	whole->reltarget = copy_pathtarget(output_rel->reltarget);
	foreach(lc, whole->reltarget->exprs)
	{
		Aggref	   *partial = lfirst(lc);

		if (IsA(partial, Aggref))
			lfirst(lc) = state_from_whole(partial, output_rel->reltarget);
		else if (!is_grouped_by(root, extra->targetList, lfirst(lc)))
			return;
		if (lfirst(lc) == NULL)
			return;
	}
	add_groups(root, extra->targetList, whole->reltarget);
	set_pathtarget_cost_width(root, whole->reltarget);

	memcpy(agg, output_rel->fdwroutine, sizeof(RemoteAgg));
	agg->partial = output_rel->reltarget->exprs;
	agg->routine.GetForeignPlan = get_plan;
	whole->fdwroutine = &agg->routine;

	whole_extra.havingQual = NULL;
	whole_extra.patype = PARTITIONWISE_AGGREGATE_NONE;
	agg->original->GetForeignUpperPaths(root, UPPERREL_GROUP_AGG, input_rel,
										whole, &whole_extra);

	/* A shard that is not to be read is not to be contacted either. */
	whole->baserestrictinfo = gates(input_rel);
	foreach(lc, whole->pathlist)
	{
		Path	   *path = lfirst(lc);
		Cost		bonus = path->startup_cost * REMOTE_AGG_BONUS;

		path->startup_cost -= bonus;
		path->total_cost -= bonus;
		path->pathtarget = output_rel->reltarget;
		add_path(output_rel, path);
	}
}

/*
 * The callback that core asks for paths of aggregates and so on.
 */
static void
get_upper_paths(PlannerInfo *root, UpperRelationKind stage,
				RelOptInfo *input_rel, RelOptInfo *output_rel, void *extra)
{
	RemoteAgg  *agg = (RemoteAgg *) output_rel->fdwroutine;
	GroupPathExtraData *group = extra;

	if (stage != UPPERREL_PARTIAL_GROUP_AGG)
		agg->original->GetForeignUpperPaths(root, stage, input_rel, output_rel,
											extra);
	else if (group->patype == PARTITIONWISE_AGGREGATE_PARTIAL)
		add_partial_paths(root, input_rel, output_rel, group);
}

/*
 * shard_offer_remote_aggregates
 *		Have core find ways to aggregate the remote shards of a logical table
 *		partially where they are.  To be called when the table has been
 *		expanded.
 */
void
shard_offer_remote_aggregates(PlannerInfo *root, RelOptInfo *rel)
{
	ShardChildren children = {root, rel->relid, 0};
	RelOptInfo *child;

	if (!enable_partitionwise_aggregate ||
		(!root->parse->hasAggs && root->parse->groupClause == NIL))
		return;
	while ((child = shard_next_child(&children)) != NULL)
	{
		RemoteAgg  *agg;

		if (child->fdwroutine == NULL ||
			child->fdwroutine->GetForeignUpperPaths == NULL ||
			!shard_is_node(child->serverid))
			continue;
		agg = palloc0(sizeof(RemoteAgg));
		memcpy(&agg->routine, child->fdwroutine, sizeof(FdwRoutine));
		agg->original = child->fdwroutine;
		agg->routine.GetForeignUpperPaths = get_upper_paths;
		child->fdwroutine = &agg->routine;
	}
}
