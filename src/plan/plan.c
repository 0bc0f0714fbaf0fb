/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  How the planner sees a logical table.
 *
 * A logical table that a query reads, updates or deletes from is expanded
 * here, not by core.  Core opens and locks every child, whatever the query's
 * conditions are.  We let it treat the table as one foreign table at first: a
 * hook of the planner's takes back the table's "inh" mark, so core calls
 * GetForeignRelSize later, with all conditions known.  There the shards are
 * added, and "inh" is set again: core builds every kind of path for them as
 * for any inheritance set.
 *
 * A table that the query locks rows of is left to core's own expansion, which
 * has the machinery of row marks.  Its members include the table itself;
 * GetForeignRelSize makes that member vanish.
 *
 * Either way no scan of the foreign table ever gets into a plan.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"
#include "write/write.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "optimizer/appendinfo.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "optimizer/prep.h"
#include "parser/parsetree.h"
#include "partitioning/partbounds.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/typcache.h"

static ShardRelationHook prev_relation_hook = NULL;
static planner_hook_type prev_planner_hook = NULL;
static set_rel_pathlist_hook_type prev_pathlist_hook = NULL;

/* fdw_private of a RelOptInfo points here if we are to expand it. */
static int	expand_mark;

/*
 * Take over the expansion of a logical table whose rows are not to be locked.
 */
static void
take_over_expansion(SHARD_RELATION_HOOK_PARAMETERS)
{
	if (prev_relation_hook)
		prev_relation_hook(SHARD_RELATION_HOOK_ARGUMENTS);

	shard_note_planning(planner_rt_fetch(rel->relid, root)->relid, rel);
	if (!planner_rt_fetch(rel->relid, root)->inh ||
		rel->reloptkind != RELOPT_BASEREL ||
		!shard_is_our_routine(rel->fdwroutine))
		return;
	if (unlikely(!shard_is_planning()))
		shard_planning_missed(root);

	/*
	 * With constraint_exclusion = on, core would read the table's own NOT
	 * NULL and NO INHERIT constraints as if there were no children.
	 */
	if (constraint_exclusion == CONSTRAINT_EXCLUSION_ON)
		return;

	/* Row locks are core's business. */
	if (get_plan_rowmark(root->rowMarks, rel->relid) != NULL)
		return;

	root->simple_rte_array[rel->relid]->inh = false;
	rel->fdw_private = &expand_mark;
}

/*
 * After core has found ways to scan a relation.
 */
static void
complete_paths(PlannerInfo *root, RelOptInfo *rel, Index rti,
			   RangeTblEntry *rte)
{
	if (prev_pathlist_hook)
		prev_pathlist_hook(root, rel, rti, rte);

	/*
	 * If the conditions are false, nobody has asked for the size of the table
	 * whose rows are to be changed, but the executor wants to know how to
	 * find them all the same.
	 */
	if (rel->fdw_private == &expand_mark && !rte->inh &&
		(int) rti == root->parse->resultRelation)
	{
		rte->inh = true;
		distribute_row_identity_vars(root);
	}
	if (rel->reloptkind == RELOPT_BASEREL && rte->inh &&
		shard_is_our_routine(rel->fdwroutine))
		shard_gather_scans(root, rel);
	shard_gate_current_row(root, rel, rte);
}

/*
 * Prepare ON CONFLICT clauses, then have the query planned.
 */
static PlannedStmt *
prepare_and_plan(SHARD_PLANNER_PARAMETERS)
{
	ShardPlanning planning;
	PlannedStmt *volatile result = NULL;

	shard_prepare_on_conflict(parse);
	shard_planning_begin(&planning, parse, cursor_options, params);
	PG_TRY();
	{
		result = (prev_planner_hook ? prev_planner_hook : standard_planner)
			(SHARD_PLANNER_ARGUMENTS);
	}
	PG_FINALLY();
	{
		shard_planning_pop(&planning);
	}
	PG_END_TRY();
	shard_plan_limits(result);
	shard_plan_gates(result);
	shard_planning_note(&planning, result);
	return result;
}

/*
 * shard_plan_init
 *		Install the planner hooks.  To be called once, when the library is
 *		loaded.
 */
void
shard_plan_init(void)
{
	prev_relation_hook = shard_relation_hook;
	shard_relation_hook = take_over_expansion;
	prev_planner_hook = planner_hook;
	planner_hook = prepare_and_plan;
	prev_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = complete_paths;
}

/*
 * Find out which shards of a logical table can have matching rows, and lock
 * them.  The plan will depend on the others, too: on what left them out.
 */
static ShardPruning *
lock_kept_shards(PlannerInfo *root, RelOptInfo *rel, Oid relid,
				 LOCKMODE lockmode)
{
	const ShardTable *table = shard_table_get(relid);
	ShardPruning *pruning;
	uint64		seen;

	/* Locking may bring the news that the set has changed. */
	do
	{
		seen = SharedInvalidMessageCounter;
		pruning = shard_prune_begin(root, rel, relid);
		for (int i = 0; i < pruning->nkept; i++)
			LockRelationOid(pruning->kept[i].relid, lockmode);
	} while (!table->is_valid && seen != SharedInvalidMessageCounter);
	shard_prune_settle(root, pruning);
	return pruning;
}

/*
 * The OIDs of the shards that are kept and of their own children, which get
 * locked.
 */
static List *
with_descendants(const ShardPruning *pruning, LOCKMODE lockmode)
{
	List	   *result = NIL;
	bool		has_children = false;

	for (int i = 0; i < pruning->nkept; i++)
		has_children |= pruning->kept[i].has_children;
	for (int i = 0; i < pruning->nkept; i++)
		if (has_children)
			result = list_concat_unique_oid(result,
											find_all_inheritors(pruning->kept[i].relid,
																lockmode,
																NULL));
		else
			result = lappend_oid(result, pruning->kept[i].relid);
	return result;
}

/*
 * An expression that no clause can ever match.
 */
static Expr *
unmatchable_expr(void)
{
	SetToDefault *result = makeNode(SetToDefault);

	result->typeId = INT4OID;
	result->typeMod = -1;
	return (Expr *) result;
}

/*
 * Describe a logical table without a key to core as hash-partitioned by an
 * expression that no clause can ever match.
 *
 * That is all core needs to aggregate shard by shard and combine the partial
 * results.  A partition key made of real columns would let it conclude that
 * equal values are in one shard, which is not so on these routes.
 */
static void
set_keyless_parts(PlannerInfo *root, RelOptInfo *rel)
{
	PartitionScheme scheme = palloc0(sizeof(PartitionSchemeData));
	PartitionBoundInfo bounds = palloc0(sizeof(PartitionBoundInfoData));
	ShardChildren children = {root, rel->relid, 0};
	RelOptInfo *child;

	scheme->strategy = PARTITION_STRATEGY_HASH;
	scheme->partnatts = 1;
	scheme->partopfamily = palloc(sizeof(Oid));
	scheme->partopfamily[0] =
		lookup_type_cache(INT4OID, TYPECACHE_HASH_OPFAMILY)->hash_opf;
	scheme->partopcintype = palloc(sizeof(Oid));
	scheme->partopcintype[0] = INT4OID;
	scheme->partcollation = palloc0(sizeof(Oid));
	scheme->parttyplen = palloc(sizeof(int16));
	scheme->parttyplen[0] = sizeof(int32);
	scheme->parttypbyval = palloc(sizeof(bool));
	scheme->parttypbyval[0] = true;
	scheme->partsupfunc = palloc0(sizeof(FmgrInfo));

	bounds->strategy = PARTITION_STRATEGY_HASH;
	bounds->null_index = -1;
	bounds->default_index = -1;

	rel->part_scheme = scheme;
	rel->boundinfo = bounds;
	rel->partexprs = palloc(sizeof(List *));
	rel->partexprs[0] = list_make1(unmatchable_expr());
	rel->nullable_partexprs = palloc0(sizeof(List *));
	rel->nparts = 0;
	rel->part_rels = palloc(sizeof(RelOptInfo *) *
							list_length(root->append_rel_list));
	while ((child = shard_next_child(&children)) != NULL)
	{
		rel->live_parts = bms_add_member(rel->live_parts, rel->nparts);
		rel->all_partrels = bms_add_member(rel->all_partrels, child->relid);
		rel->part_rels[rel->nparts++] = child;
	}
}

/*
 * Describe a hash table whose shards are in the query to core as the
 * partitioned table that it could be.
 *
 * Joins and grouping look at all expressions for a column of the key.
 * Run-time pruning looks at the first alone; it would look for the partition
 * key of a relation that has none, so the first is one that it cannot use.
 */
static void
set_hash_parts(PlannerInfo *root, RelOptInfo *rel, const ShardPruning *pruning)
{
	ShardChildren children = {root, rel->relid, 0};
	int			natts = pruning->scheme->partnatts;
	RelOptInfo *child;

	rel->part_scheme = pruning->scheme;
	rel->boundinfo = pruning->bounds;
	rel->nparts = pruning->nparts;
	rel->part_rels = palloc0(sizeof(RelOptInfo *) * pruning->nparts);
	rel->nullable_partexprs = palloc0(sizeof(List *) * natts);
	rel->partexprs = palloc(sizeof(List *) * natts);
	for (int i = 0; i < natts; i++)
		rel->partexprs[i] = lcons(unmatchable_expr(), pruning->partexprs[i]);
	for (int i = 0; i < pruning->nkept; i++)
		rel->live_parts = bms_add_member(rel->live_parts,
										 pruning->kept[i].part);

	while ((child = shard_next_child(&children)) != NULL)
	{
		const ShardKept *kept =
			shard_prune_find(pruning,
							 root->simple_rte_array[child->relid]->relid);

		if (kept == NULL)
			continue;
		rel->all_partrels = bms_add_member(rel->all_partrels, child->relid);
		rel->part_rels[kept->part] = child;
	}
}

/*
 * Add the shards to the query in place of the logical table.
 */
static void
expand_logical_table(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	ShardPruning *pruning = lock_kept_shards(root, rel, rte->relid,
											 rte->rellockmode);
	List	   *shards = with_descendants(pruning, rte->rellockmode);
	bool		has_whole_row =
		!bms_is_empty(rel->attr_needed[InvalidAttrNumber - rel->min_attr]);
	bool		is_target = (int) rel->relid == root->parse->resultRelation;
	Relids		settled = NULL;
	Relation	parent;
	ListCell   *lc;

	/* As core has it, for the executor if no shard is left to be changed. */
	if (is_target)
		shards = lcons_oid(rte->relid, shards);
	if (shards == NIL)
	{
		mark_dummy_rel(rel);
		return;
	}

	expand_planner_arrays(root, list_length(shards));
	parent = table_open(rte->relid, NoLock);
	foreach(lc, shards)
	{
		Relation	child = table_open(lfirst_oid(lc), NoLock);
		TupleConstr *constr = RelationGetDescr(child)->constr;

		if (!RELATION_IS_OTHER_TEMP(child))
		{
			Index		rti = shard_expand_child(root, rel, rte, parent, child);

			const ShardKept *kept = shard_prune_find(pruning, lfirst_oid(lc));

			/* If we have read all constraints, nothing new is in them. */
			if (kept != NULL && constr != NULL &&
				constr->num_check == kept->nchecks)
				settled = bms_add_member(settled, rti);
			if (child == parent)
				mark_dummy_rel(find_base_rel(root, rti));
		}
		table_close(child, NoLock);
	}
	table_close(parent, NoLock);
	rte->inh = true;
	if (is_target)
		distribute_row_identity_vars(root);

	shard_prune_gate(root, pruning);

	/*
	 * Core cannot combine partial aggregates over whole rows, which children
	 * have to convert; it fails to find them again in the result.
	 */
	if (pruning->bounds != NULL && !has_whole_row && !is_target)
	{
		set_hash_parts(root, rel, pruning);
		rel->consider_partitionwise_join = enable_partitionwise_join;
	}
	shard_set_append_size(root, rel, rte, settled);
	if (!pruning->is_hash && enable_partitionwise_aggregate &&
		!has_whole_row && !is_target && !IS_DUMMY_REL(rel))
		set_keyless_parts(root, rel);
	shard_offer_remote_aggregates(root, rel);
}

/*
 * Can WHERE CURRENT OF name a cursor with this query?
 */
static bool
is_cursors_query(PlannerInfo *root)
{
	while (root->parent_root != NULL)
		root = root->parent_root;
	return root->parse->commandType == CMD_SELECT &&
		!root->parse->hasModifyingCTE;
}

/*
 * Core has expanded the logical table "rel", one of whose members is the
 * table itself: leave out the shards that cannot have matching rows.  With
 * its mark for row locks, each would be looked at for every row that is
 * locked; but CURRENT OF looks for the marks of all.
 */
static void
prune_expanded_table(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	ShardPruning *pruning = shard_prune_begin(root, rel, relid);
	ShardChildren children = {root, rel->relid, 0};
	bool		keeps_marks = root->rowMarks == NIL || is_cursors_query(root);
	RelOptInfo *child;

	shard_prune_gate(root, pruning);
	if (pruning->nleft_out == 0)
		return;
	shard_prune_settle(root, pruning);
	while ((child = shard_next_child(&children)) != NULL)
	{
		if (!shard_prune_leaves_out(pruning,
									root->simple_rte_array[child->relid]->relid))
			continue;
		mark_dummy_rel(child);
		if (!keeps_marks)
			root->rowMarks = list_delete_ptr(root->rowMarks,
											 get_plan_rowmark(root->rowMarks,
															  child->relid));
	}
}

/*
 * shardGetForeignRelSize
 *		Called by core in place of a size estimate for the logical table.
 */
void
shardGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	/*
	 * Without our mark, this is the table without its children: FROM ONLY, or
	 * the table as a member of its own inheritance set.  It has no rows.  It
	 * is the first member, so the others have not been looked at yet.
	 */
	if (rel->fdw_private != &expand_mark)
	{
		AppendRelInfo *appinfo = root->append_rel_array ?
			root->append_rel_array[rel->relid] : NULL;

		if (appinfo != NULL &&
			planner_rt_fetch(appinfo->parent_relid, root)->rtekind == RTE_RELATION &&
			planner_rt_fetch(appinfo->parent_relid, root)->relid == relid)
			prune_expanded_table(root, find_base_rel(root, appinfo->parent_relid),
								 relid);
		mark_dummy_rel(rel);
	}
	else
		expand_logical_table(root, rel, planner_rt_fetch(rel->relid, root));
}
