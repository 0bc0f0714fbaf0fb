/*-------------------------------------------------------------------------
 *
 * gather.c
 *	  Workers for local shards beside remote ones.
 *
 * Workers cannot scan foreign tables, and core has workers scan either all
 * members of an inheritance set or none.  So where a logical table has shards
 * here and on other servers, we have core make paths for those that are here
 * as if they were a table of their own, and gather their rows; the result
 * takes the place of these shards in an Append (or MergeAppend) with the
 * others.  The same is done for what each shard's rows are grouped to.
 *
 * The logical table keeps its mark that it can be scanned in parallel, or core
 * would make no parallel paths for its local shards.  But it has none itself,
 * and no path is parallel safe that has a scan of a foreign table in it.  With
 * joins partition by partition, core takes the mark for that of all members,
 * so there the table does without workers; see shard_set_append_size().
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "optimizer/cost.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "optimizer/tlist.h"
#include "utils/selfuncs.h"

static create_upper_paths_hook_type prev_create_upper_paths_hook = NULL;

/*
 * The members "children" of "rel", with one relation in place of those that
 * workers can scan: the first of the list, whose paths gather their rows.
 *
 * NIL if there are only members of one kind, or no workers to be had.
 */
static List *
gather_local(PlannerInfo *root, const RelOptInfo *rel, List *children,
			 bool override_rows)
{
	RelOptInfo *local;
	List	   *locals = NIL;
	List	   *others = NIL;
	double		rows = 0;
	ListCell   *lc;

	foreach(lc, children)
	{
		RelOptInfo *child = lfirst_node(RelOptInfo, lc);

		if (child->consider_parallel)
		{
			locals = lappend(locals, child);
			rows += child->rows;
		}
		else
			others = lappend(others, child);
	}
	if (locals == NIL || others == NIL)
		return NIL;

	local = makeNode(RelOptInfo);
	memcpy(local, rel, sizeof(RelOptInfo));
	local->rows = rows;
	local->pathlist = NIL;
	local->partial_pathlist = NIL;
	local->ppilist = NIL;
	add_paths_to_append_rel(root, local, locals);
	if (local->partial_pathlist == NIL)
		return NIL;
	generate_useful_gather_paths(root, local, override_rows);
	set_cheapest(local);
	return lcons(local, others);
}

/*
 * Does core look at the query's only table shard by shard, in order to
 * aggregate it so?
 */
static bool
groups_by_shard(PlannerInfo *root)
{
	return enable_partitionwise_aggregate &&
		(root->parse->groupClause != NIL ||
		 (root->parse->hasAggs && !root->hasNonPartialAggs));
}

/*
 * shard_gather_scans
 *		Add paths to a logical table that scan its local shards with workers and
 *		its remote ones without.  To be called when core has made its own.
 */
void
shard_gather_scans(PlannerInfo *root, RelOptInfo *rel)
{
	ShardChildren children = {root, rel->relid, 0};
	List	   *members = NIL;
	RelOptInfo *child;

	if (!rel->consider_parallel || IS_DUMMY_REL(rel))
		return;
	while ((child = shard_next_child(&children)) != NULL)
	{
		if (!IS_DUMMY_REL(child))
			members = lappend(members, child);
	}
	members = gather_local(root, rel, members, false);
	if (members == NIL)
		return;
	add_paths_to_append_rel(root, rel, members);

	/*
	 * Core throws away the paths of a partitioned table when it knows what is
	 * to be computed of its rows, and makes them again, with the computation
	 * below the Append.  If nothing else is to be done shard by shard, the
	 * workers are worth more.
	 */
	if (bms_membership(root->all_baserels) == BMS_SINGLETON &&
		!groups_by_shard(root) &&
		IsA(linitial_node(RelOptInfo, members)->cheapest_total_path, GatherPath))
		rel->part_scheme = NULL;
}

/*
 * The relations of one kind that core has made of the parts of a table, or NIL
 * if it has not made one of each.
 */
static List *
groups_of_parts(PlannerInfo *root, const RelOptInfo *rel,
				UpperRelationKind kind)
{
	List	   *result = NIL;

	for (int i = -1; (i = bms_next_member(rel->live_parts, i)) >= 0;)
	{
		RelOptInfo *part = rel->part_rels[i];
		RelOptInfo *found = NULL;
		ListCell   *lc;

		if (IS_DUMMY_REL(part))
			continue;
		foreach(lc, root->upper_rels[kind])
		{
			RelOptInfo *upper = lfirst_node(RelOptInfo, lc);

			if (bms_equal(upper->relids, part->relids))
			{
				found = upper;
				break;
			}
		}
		if (found == NULL || found->pathlist == NIL)
			return NIL;
		result = lappend(result, found);
	}
	return result;
}

/*
 * Add paths that finish what the cheapest path of a relation has aggregated in
 * part, as core's add_paths_to_grouping_rel() does.
 */
static void
add_final_paths(PlannerInfo *root, const RelOptInfo *input_rel,
				RelOptInfo *grouped_rel, RelOptInfo *partial_rel,
				const GroupPathExtraData *extra)
{
	List	   *clause = shard_group_clause(root);
	List	   *having = (List *) extra->havingQual;
	Path	   *path = partial_rel->cheapest_total_path;
	double		ngroups = 1;

	if (clause != NIL)
		ngroups = estimate_num_groups(root,
									  get_sortgrouplist_exprs(clause,
															  extra->targetList),
									  input_rel->cheapest_total_path->rows,
									  NULL, NULL);
	if (extra->flags & GROUPING_CAN_USE_HASH)
		add_path(grouped_rel, (Path *)
				 create_agg_path(root, grouped_rel, path,
								 grouped_rel->reltarget, AGG_HASHED,
								 AGGSPLIT_FINAL_DESERIAL, clause, having,
								 &extra->agg_final_costs, ngroups));
	if ((extra->flags & GROUPING_CAN_USE_SORT) == 0)
		return;
	if (!pathkeys_contained_in(root->group_pathkeys, path->pathkeys))
		path = (Path *) create_sort_path(root, partial_rel, path,
										 root->group_pathkeys, -1.0);
	if (root->parse->hasAggs)
		path = (Path *)
			create_agg_path(root, grouped_rel, path, grouped_rel->reltarget,
							clause != NIL ? AGG_SORTED : AGG_PLAIN,
							AGGSPLIT_FINAL_DESERIAL, clause, having,
							&extra->agg_final_costs, ngroups);
	else
		path = (Path *) create_group_path(root, grouped_rel, path, clause,
										  having, ngroups);
	add_path(grouped_rel, path);
}

/*
 * After core has found ways to group the rows of a logical table: add those
 * that group the local shards with workers and the remote ones without.
 *
 * Paths of core's refer to those of the relation of partial groups, so that
 * is left alone.
 */
static void
gather_groups(PlannerInfo *root, UpperRelationKind stage,
			  RelOptInfo *input_rel, RelOptInfo *output_rel, void *extra)
{
	RelOptInfo *partial;
	List	   *parts;

	if (prev_create_upper_paths_hook)
		prev_create_upper_paths_hook(root, stage, input_rel, output_rel, extra);

	if (stage != UPPERREL_GROUP_AGG || !output_rel->consider_parallel ||
		input_rel->reloptkind != RELOPT_BASEREL ||
		!shard_is_our_routine(input_rel->fdwroutine) ||
		!IS_PARTITIONED_REL(input_rel) || !groups_by_shard(root))
		return;

	/* Each shard has groups of its own. */
	parts = gather_local(root, output_rel,
						 groups_of_parts(root, input_rel, UPPERREL_GROUP_AGG),
						 true);
	if (parts != NIL)
	{
		add_paths_to_append_rel(root, output_rel, parts);
		return;
	}

	/* Groups of several shards are to be combined. */
	parts = groups_of_parts(root, input_rel, UPPERREL_PARTIAL_GROUP_AGG);
	if (parts == NIL)
		return;
	partial = makeNode(RelOptInfo);
	memcpy(partial, fetch_upper_rel(root, UPPERREL_PARTIAL_GROUP_AGG,
									output_rel->relids), sizeof(RelOptInfo));
	parts = gather_local(root, partial, parts, true);
	if (parts == NIL)
		return;
	partial->pathlist = NIL;
	add_paths_to_append_rel(root, partial, parts);
	set_cheapest(partial);
	add_final_paths(root, input_rel, output_rel, partial, extra);
}

/*
 * shard_gather_init
 *		Install the planner hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_gather_init(void)
{
	prev_create_upper_paths_hook = create_upper_paths_hook;
	create_upper_paths_hook = gather_groups;
}
