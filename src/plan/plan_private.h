/*-------------------------------------------------------------------------
 *
 * plan_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_PLAN_PRIVATE_H
#define SHARD_PLAN_PRIVATE_H

#include "plan/plan.h"

/* in core_plan.c */
extern Index shard_expand_child(PlannerInfo *root, RelOptInfo *rel,
								RangeTblEntry *rte, Relation parent,
								Relation child);
extern void shard_set_append_size(PlannerInfo *root, RelOptInfo *rel,
								  RangeTblEntry *rte, Relids settled);
extern PartitionScheme shard_find_partition_scheme(PlannerInfo *root,
												   PartitionKey partkey);

/* in plan.c */
extern void shard_gate(PlannerInfo *root, RelOptInfo *child, Expr *clause,
					   Index security_level);

#endif							/* SHARD_PLAN_PRIVATE_H */
