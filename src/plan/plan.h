/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  How the planner sees a logical table: what the other wings use of this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_PLAN_H
#define SHARD_PLAN_H

#include "table/table.h"

/* in by_key.c */
extern void shard_by_key_init(void);

/* in gather.c */
extern void shard_gather_init(void);

/* in join.c */
extern void shard_join_init(void);

/* in node_use.c */
extern void shard_node_use_init(void);

/* in plan.c */
extern void shard_plan_init(void);
extern void shardGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel,
								   Oid relid);

/* in planning.c */
extern void shard_planning_init(void);

/* in remote_scan.c */
extern void shard_remote_scan_init(void);

/* in remote_update.c */
extern void shard_remote_update_init(void);

#endif							/* SHARD_PLAN_H */
