/*-------------------------------------------------------------------------
 *
 * by_key.c
 *	  Scans of the shards that a value leads to, known when the query runs.
 *
 * A join or a subquery may look for rows of a logical table by values that come
 * while the query runs: the key of a hash table, or an id from the sequences of
 * a table's shards.  Core makes an Append of scans of all shards for that.  To
 * each such path we add one that costs what the scan of one shard costs: its
 * node finds out which shards a value leads to, and initializes and executes
 * the scans of these only.  See by_key_exec.c.
 *
 * The path poses as a scan of the first shard, below an Append with no other
 * child.  Core takes that away again when it has translated all references to
 * the logical table's columns, among them those that identify rows to be
 * changed, which no other node but a join could pass on.
 *
 * The plan has all shards, and all are locked before it is executed.  To lock
 * them late would mean to lock them in the order of the values, which could
 * deadlock, and to find shards that are not those of the plan any more.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/stratnum.h"
#include "catalog/pg_type_d.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/typcache.h"

/* So many shards the values of an array lead to, if nobody knows how many. */
#define ASSUMED_VALUES	10

/* Values that say in which shards the rows of a scan are. */
typedef struct KeyValues
{
	bool		by_id;			/* they are ids, not keys */
	List	   *values;			/* expressions, one for each column */
	int			array_column;	/* the column whose expression is an array of
								 * which any element will do; or -1 */
	List	   *gates;			/* conditions that say the same of each scan */
	ShardByKey	places;
} KeyValues;

static set_rel_pathlist_hook_type prev_pathlist_hook = NULL;

static Plan *plan_by_key(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
						 List *tlist, List *clauses, List *plans);

static const CustomPathMethods path_methods = {
	.CustomName = "shard_fdw key lookup",
	.PlanCustomPath = plan_by_key,
};

/*
 * The array expression in a condition "column = ANY (array)" that does not
 * depend on rows of other tables than "outer"; NULL if it is no such condition.
 */
static Node *
array_of_values(PlannerInfo *root, Expr *clause, Var *column, Oid opfamily,
				Oid collation, Relids outer)
{
	ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;
	Node	   *array;

	if (!IsA(clause, ScalarArrayOpExpr) || !op->useOr)
		return NULL;
	array = lsecond(op->args);
	return shard_is_key_equality(root, linitial(op->args), op->opno,
								 op->inputcollid, array, column, opfamily,
								 collation, outer) &&
		OidIsValid(get_base_element_type(exprType(array))) ? array : NULL;
}

/*
 * The value that clauses give a column, or an array of values of which it is
 * one.  NULL if they give none.
 */
static Node *
value_of_column(PlannerInfo *root, List *clauses, Var *column, Oid opfamily,
				Oid collation, Relids outer, bool array_wanted)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		Node	   *value;
		Oid			type;

		if (rinfo->pseudoconstant)
			continue;
		value = array_wanted ?
			array_of_values(root, rinfo->clause, column, opfamily, collation,
							outer) :
			shard_key_operand(root, rinfo->clause, column, opfamily, collation,
							  outer);
		if (value == NULL)
			continue;
		type = exprType(value);
		if (array_wanted)
			type = get_base_element_type(type);
		if (shard_can_hash_with(opfamily, type))
			return value;
	}
	return NULL;
}

/*
 * Add what clauses say of one column.  False if that is not enough.
 */
static bool
add_value(PlannerInfo *root, KeyValues *key, List *clauses, Var *column,
		  Oid opfamily, Oid collation, Relids outer)
{
	Node	   *value = value_of_column(root, clauses, column, opfamily,
										collation, outer, false);

	if (value == NULL && key->array_column < 0)
	{
		value = value_of_column(root, clauses, column, opfamily, collation,
								outer, true);
		key->array_column = list_length(key->values);
	}
	if (value == NULL)
		return false;
	key->values = lappend(key->values, copyObject(value));
	return true;
}

/*
 * Find out whether the clauses of a scan of a shard give the key, or an id.
 */
static bool
find_values(PlannerInfo *root, const ShardTable *table, Path *scan,
			KeyValues *key)
{
	AppendRelInfo *appinfo = root->append_rel_array[scan->parent->relid];
	Relids		outer = PATH_REQ_OUTER(scan);
	List	   *clauses = scan->parent->baserestrictinfo;
	bool		is_found = table->bounds != NULL;
	bool		all_known = true;
	ListCell   *lc;

	if (scan->param_info != NULL)
		clauses = list_concat_copy(clauses, scan->param_info->ppi_clauses);
	memset(key, 0, sizeof(KeyValues));
	key->array_column = -1;
	for (int i = 0; is_found && i < table->key->partnatts; i++)
		is_found = add_value(root, key, clauses,
							 list_nth_node(Var, appinfo->translated_vars,
										   table->key->partattrs[i] - 1),
							 table->key->partopfamily[i],
							 table->key->partcollation[i], outer);
	if (!is_found && table->seq_attno != 0)
	{
		key->by_id = true;
		key->values = NIL;
		key->array_column = -1;
		is_found = add_value(root, key, clauses,
							 list_nth_node(Var, appinfo->translated_vars,
										   table->seq_attno - 1),
							 lookup_type_cache(INT8OID,
											   TYPECACHE_HASH_OPFAMILY)->hash_opf,
							 InvalidOid, outer);
	}
	/* The planner has used what it knows. */
	foreach(lc, key->values)
		all_known &= IsA(lfirst(lc), Const);
	return is_found && !all_known;
}

/*
 * The condition by which shard_prune_gate() has had the executor find out
 * whether a shard is to be scanned, if it knows the same values.
 */
static Expr *
gate_of(const KeyValues *key, const ShardTable *table,
		const ShardMember *member)
{
	List	   *values = NIL;
	ListCell   *lc;

	if (key->array_column >= 0)
		return NULL;
	if (key->by_id)
		return shard_in_slot_clause(member->stride, member->id_slot,
									copyObject(linitial(key->values)));
	foreach(lc, key->values)
		values = lappend(values,
						 shard_with_collation(lfirst(lc),
											  table->key->partcollation[foreach_current_index(lc)]));
	return shard_in_hash_clause(member->modulus, member->remainder, values);
}

/*
 * Note which values lead to a scan of a shard.
 */
static void
add_place(ShardByKey *places, int scan, int modulus, int remainder)
{
	for (int i = remainder % modulus; i < places->modulus; i += modulus)
	{
		places->next[scan] = places->first[i];
		places->first[i] = scan;
	}
}

/*
 * Find out which values lead to which scans.  False if that is not known of
 * each.
 */
static bool
find_places(PlannerInfo *root, const ShardTable *table, List *scans,
			KeyValues *key)
{
	ShardByKey *places = &key->places;
	ListCell   *lc;

	places->by_id = key->by_id;
	places->ncolumns = list_length(key->values);
	places->nscans = list_length(scans);
	places->nmembers = table->nmembers;
	places->modulus = key->by_id ? table->members[0].stride :
		table->places[table->nplaces - 1].modulus;
	if (places->modulus <= 0)
		return false;
	places->first = palloc(sizeof(int) * places->modulus);
	for (int i = 0; i < places->modulus; i++)
		places->first[i] = -1;
	places->next = palloc(sizeof(int) * places->nscans);
	foreach(lc, scans)
	{
		RelOptInfo *rel = ((Path *) lfirst(lc))->parent;
		const ShardMember *member;
		int			ordinal;

		if (rel->reloptkind != RELOPT_OTHER_MEMBER_REL)
			return false;
		ordinal = shard_table_find(table,
								   planner_rt_fetch(rel->relid, root)->relid);
		if (ordinal < 0)
			return false;
		member = &table->members[ordinal];
		if (member->has_children)
			return false;
		places->next[foreach_current_index(lc)] = -1;
		if (!key->by_id)
			add_place(places, foreach_current_index(lc), member->modulus,
					  member->remainder);
		else if (member->is_id_slot_valid &&
				 member->stride == places->modulus)
			add_place(places, foreach_current_index(lc), member->stride,
					  member->id_slot);
		else
			return false;
		key->gates = lappend(key->gates, gate_of(key, table, member));
	}
	return true;
}

/*
 * Do all scans return the same constant in a column?
 */
static bool
is_same_constant(const List *scans, int column)
{
	const RelOptInfo *first = ((Path *) linitial(scans))->parent;
	ListCell   *lc;

	foreach(lc, scans)
	{
		const RelOptInfo *rel = ((Path *) lfirst(lc))->parent;

		if (!equal(list_nth(rel->reltarget->exprs, column),
				   list_nth(first->reltarget->exprs, column)))
			return false;
	}
	return true;
}

/*
 * Can the columns of the first scan stand for those of all: does it take each
 * from another column of its rows, unless they all return the same constant?
 */
static bool
may_pose(const List *scans)
{
	const RelOptInfo *first = ((Path *) linitial(scans))->parent;
	List	   *exprs = first->reltarget->exprs;

	for (int i = 0; i < list_length(exprs); i++)
	{
		if (IsA(list_nth(exprs, i), Const))
		{
			if (!is_same_constant(scans, i))
				return false;
			continue;
		}
		for (int j = 0; j < i; j++)
			if (equal(list_nth(exprs, i), list_nth(exprs, j)))
				return false;
	}
	return true;
}

/*
 * Does a relation return the columns by which it is sorted?
 */
static bool
has_sort_columns(const RelOptInfo *rel, const List *pathkeys)
{
	ListCell   *lc;

	foreach(lc, pathkeys)
	{
		bool		is_found = false;
		ListCell   *lc2;

		foreach(lc2, lfirst_node(PathKey, lc)->pk_eclass->ec_members)
			is_found |= list_member(rel->reltarget->exprs,
									lfirst_node(EquivalenceMember, lc2)->em_expr);
		if (!is_found)
			return false;
	}
	return true;
}

/*
 * So many scans will be executed, probably.
 */
static double
estimate_scans(const KeyValues *key)
{
	Node	   *array;

	if (key->array_column < 0)
		return 1;
	array = list_nth(key->values, key->array_column);
	return Min(key->places.nscans,
			   IsA(array, ArrayExpr) ?
			   Max(list_length(((ArrayExpr *) array)->elements), 1) :
			   ASSUMED_VALUES);
}

/*
 * A path that does what "path" does with its scans of shards, for those that
 * the values lead to.
 */
static Path *
make_path(PlannerInfo *root, RelOptInfo *rel, const ShardTable *table,
		  Path *path, List *scans, const KeyValues *key)
{
	CustomPath *result = makeNode(CustomPath);
	RelOptInfo *posed = makeNode(RelOptInfo);
	double		share = estimate_scans(key) / list_length(scans);
	double		rows = 0;
	ListCell   *lc;

	/* All conditions are left to the scans. */
	memcpy(posed, ((Path *) linitial(scans))->parent, sizeof(RelOptInfo));
	posed->baserestrictinfo = NIL;

	result->path.pathtype = T_CustomScan;
	result->path.parent = posed;
	result->path.pathtarget = posed->reltarget;
	if (path->param_info != NULL)
	{
		result->path.param_info = makeNode(ParamPathInfo);
		result->path.param_info->ppi_req_outer = PATH_REQ_OUTER(path);
	}
	result->path.parallel_safe = path->parallel_safe;
	result->path.pathkeys = path->pathkeys;
	foreach(lc, scans)
	{
		Path	   *scan = lfirst(lc);

		posed->relids = bms_union(posed->relids, scan->parent->relids);
		rows += scan->rows;
		result->path.startup_cost += scan->startup_cost * share;
		result->path.total_cost += scan->total_cost * share;
		shard_add_disabled_nodes(&result->path, scan);
	}
	result->path.startup_cost += cpu_operator_cost * list_length(key->values);
	result->path.total_cost += cpu_operator_cost * list_length(key->values);
	result->path.rows = clamp_row_est(rows * share);
	if (result->path.param_info != NULL)
		result->path.param_info->ppi_rows = result->path.rows;
	result->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	result->custom_paths = scans;
	result->custom_private = list_make3(key->values, key->gates,
										shard_describe_by_key(&key->places,
															  key->by_id ? NULL :
															  table->key->partcollation,
															  key->array_column));
	result->methods = &path_methods;
	return (Path *) shard_append_of_one(root, rel, (Path *) result);
}

/*
 * If the scans of shards in a path are executed for values that lead to few of
 * them, a path that makes use of that; else NULL.
 */
static Path *
improve_path(PlannerInfo *root, RelOptInfo *rel, const ShardTable *table,
			 Path *path)
{
	List	   *scans = NIL;
	KeyValues	key;
	ListCell   *lc;

	if (path->parallel_aware)
		return NULL;
	if (IsA(path, AppendPath))
		scans = ((AppendPath *) path)->subpaths;
	else if (IsA(path, MergeAppendPath))
		scans = ((MergeAppendPath *) path)->subpaths;
	if (list_length(scans) < 2 ||
		((Path *) linitial(scans))->parent->reloptkind != RELOPT_OTHER_MEMBER_REL ||
		!find_values(root, table, linitial(scans), &key) ||
		!find_places(root, table, scans, &key) ||
		!may_pose(scans))
		return NULL;

	/* The rows of one scan have the order that it gives them. */
	if (path->pathkeys != NIL &&
		(key.array_column >= 0 || !has_sort_columns(rel, path->pathkeys)))
		return NULL;
	foreach(lc, scans)
	{
		if (!pathkeys_contained_in(path->pathkeys,
								   ((Path *) lfirst(lc))->pathkeys))
			return NULL;
	}
	return make_path(root, rel, table, path, list_copy(scans), &key);
}

/*
 * After core has found ways to read a logical table: add those by which only
 * the shards are read that values lead to.
 */
static void
add_paths_by_key(PlannerInfo *root, RelOptInfo *rel, Index rti,
				 RangeTblEntry *rte)
{
	const ShardTable *table;
	List	   *found = NIL;
	ListCell   *lc;

	if (prev_pathlist_hook)
		prev_pathlist_hook(root, rel, rti, rte);

	/* WHERE CURRENT OF a cursor looks for the scans of all shards. */
	if (rel->reloptkind != RELOPT_BASEREL || rte->rtekind != RTE_RELATION ||
		!rte->inh || !shard_is_our_routine(rel->fdwroutine) ||
		IS_DUMMY_REL(rel) || !enable_partition_pruning ||
		(bms_membership(root->all_baserels) != BMS_MULTIPLE &&
		 shard_may_be_cursor()))
		return;
	table = shard_table_get(rte->relid);
	if (table->nmembers == 0 ||
		(table->bounds == NULL && table->seq_attno == 0))
		return;
	foreach(lc, rel->pathlist)
	{
		Path	   *path = improve_path(root, rel, table, lfirst(lc));

		if (path != NULL)
			found = lappend(found, path);
	}
	foreach(lc, found)
		add_path(rel, lfirst(lc));
}

/*
 * The plan of a scan without a gate that says no more than the node above it
 * knows.
 */
static Plan *
without_gate(Plan *plan, const Expr *gate)
{
	Result	   *result = (Result *) plan;
	List	   *conditions = NIL;
	ListCell   *lc;

	if (gate == NULL || !IsA(plan, Result) || plan->lefttree == NULL)
		return plan;
	foreach(lc, (List *) result->resconstantqual)
	{
		if (!equal(lfirst(lc), gate))
			conditions = lappend(conditions, lfirst(lc));
	}
	result->resconstantqual = (Node *) conditions;
	if (conditions != NIL || !is_projection_capable_plan(plan->lefttree))
		return plan;
	plan->lefttree->targetlist = plan->targetlist;
	return plan->lefttree;
}

/*
 * The plan of a path that make_path() has made.
 */
static Plan *
plan_by_key(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
			List *tlist, List *clauses, List *plans)
{
	CustomScan *scan = makeNode(CustomScan);
	List	   *gates = lsecond(path->custom_private);
	ListCell   *lc;

	foreach(lc, plans)
		lfirst(lc) = without_gate(lfirst(lc),
								  list_nth(gates, foreach_current_index(lc)));
	scan->scan.plan.targetlist = tlist;
	scan->custom_scan_tlist = copyObject(tlist);
	scan->custom_plans = plans;
	scan->custom_exprs = copyObject(linitial(path->custom_private));
	scan->custom_private = lthird(path->custom_private);
	scan->flags = path->flags;
	scan->methods = &shard_by_key_methods;
	return (Plan *) scan;
}

/*
 * shard_by_key_init
 *		Install the planner hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_by_key_init(void)
{
	RegisterCustomScanMethods(&shard_by_key_methods);
	prev_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = add_paths_by_key;
}
