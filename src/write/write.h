/*-------------------------------------------------------------------------
 *
 * write.h
 *	  How rows get into shards: what the other wings use of this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_WRITE_H
#define SHARD_WRITE_H

#include "table/table.h"

/* in batch.c */
extern TupleTableSlot **shardExecForeignBatchInsert(EState *estate,
													ResultRelInfo *rri,
													TupleTableSlot **slots,
													TupleTableSlot **plan_slots,
													int *nslots);

/* in conflict.c */
extern void shard_prepare_on_conflict(Query *query);

/* in core_exec.c */
extern void shard_report_serialization_failure(const char *cause);

/* in explain_insert.c */
extern void shardExplainForeignModify(ModifyTableState *mtstate,
									  ResultRelInfo *rri, List *fdw_private,
									  int subplan_index, struct ExplainState *es);

/* in index_run.c */
extern void shard_runs_init(void);

/* in insert.c */
extern int	shardGetForeignModifyBatchSize(ResultRelInfo *rri);
extern List *shardPlanForeignModify(PlannerInfo *root, ModifyTable *plan,
									Index result_relation, int subplan_index);
extern void shardBeginForeignModify(ModifyTableState *mtstate,
									ResultRelInfo *rri, List *fdw_private,
									int subplan_index, int eflags);
extern void shardBeginForeignInsert(ModifyTableState *mtstate,
									ResultRelInfo *rri);
extern TupleTableSlot *shardExecForeignInsert(EState *estate,
											  ResultRelInfo *rri,
											  TupleTableSlot *slot,
											  TupleTableSlot *plan_slot);
extern void shardEndForeignModify(EState *estate, ResultRelInfo *rri);
extern void shardEndForeignInsert(EState *estate, ResultRelInfo *rri);

/* in move.c */
extern void shard_begin_moving(Oid logical);

/* in one_node.c */
extern void shardExecForeignTruncate(List *rels, DropBehavior behavior,
									 bool restart_seqs);
extern void shard_one_node_init(void);

/* in route.c */
extern void shard_route_init(void);
extern Oid	shard_last;

#endif							/* SHARD_WRITE_H */
