/*-------------------------------------------------------------------------
 *
 * join.c
 *	  Joins shard by shard: one worker a shard.
 *
 * Core joins two tables partition by partition, and has two ways to do that
 * in parallel: all workers join one pair of partitions together, or each
 * takes pairs of its own.  The second needs no shared hash table, and each
 * pair may be joined in any way there is, by merging two indexes for one.
 * But core weighs them pair by pair, what one worker of several has to do
 * against what one has to do alone; so it only ever takes the first.
 *
 * Where there are several shards for each worker, the second takes as long as
 * all the pairs, divided by the workers.  For logical tables we weigh that,
 * and leave core without the first way where it is worse.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "optimizer/cost.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "port/pg_bitutils.h"

/* So many pairs each worker gets, at least, where workers take pairs alone. */
#define MIN_PAIRS_PER_WORKER	3

static set_join_pathlist_hook_type prev_join_pathlist_hook = NULL;

/*
 * Is some logical table among the tables that a relation joins?
 */
static bool
has_logical_table(PlannerInfo *root, Relids relids)
{
	for (int i = -1; (i = bms_next_member(relids, i)) >= 0;)
	{
		RelOptInfo *rel = root->simple_rel_array[i];

		if (rel != NULL && shard_is_our_routine(rel->fdwroutine))
			return true;
	}
	return false;
}

/*
 * The relation that "child" is a part of.
 */
static RelOptInfo *
whole_relation(PlannerInfo *root, const RelOptInfo *child)
{
	int			relid;

	if (bms_get_singleton_member(child->top_parent_relids, &relid))
		return find_base_rel(root, relid);
	return find_join_rel(root, child->top_parent_relids);
}

/*
 * After core has found ways to join a pair of shards: leave out those that
 * several workers go together if each had better take pairs of its own.
 */
static void
choose_parallel_join(PlannerInfo *root, RelOptInfo *joinrel,
					 RelOptInfo *outerrel, RelOptInfo *innerrel,
					 JoinType jointype, JoinPathExtraData *extra)
{
	RelOptInfo *outer;
	RelOptInfo *inner;
	Path	   *alone;
	Path	   *together;
	int			workers;

	if (prev_join_pathlist_hook)
		prev_join_pathlist_hook(root, joinrel, outerrel, innerrel, jointype,
								extra);

	if (joinrel->reloptkind != RELOPT_OTHER_JOINREL ||
		joinrel->partial_pathlist == NIL || !enable_parallel_append ||
		!has_logical_table(root, joinrel->top_parent_relids))
		return;

	alone = get_cheapest_parallel_safe_total_inner(joinrel->pathlist);
	outer = whole_relation(root, outerrel);
	inner = whole_relation(root, innerrel);
	if (alone == NULL || outer == NULL || inner == NULL || outer->nparts <= 0)
		return;
	together = linitial(joinrel->partial_pathlist);

	/* As many as core will plan an Append of such paths with. */
	workers = Min(max_parallel_workers_per_gather,
				  pg_leftmost_one_pos32(outer->nparts) + 1);

	/* Nobody is to wait for the worker that has got a large one at the end. */
	if ((outerrel->rows + innerrel->rows) * workers * MIN_PAIRS_PER_WORKER >
		outer->rows + inner->rows)
		return;

	if (alone->total_cost <= together->total_cost * workers)
		joinrel->partial_pathlist = NIL;
}

/*
 * shard_join_init
 *		Install the planner hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_join_init(void)
{
	prev_join_pathlist_hook = set_join_pathlist_hook;
	set_join_pathlist_hook = choose_parallel_join;
}
