/*-------------------------------------------------------------------------
 *
 * shard_fdw.c
 *	  Module start, settings, the FDW's handler, and what EXPLAIN shows.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume.h"
#include "plan/plan.h"
#include "remote/remote.h"
#include "shards/shards.h"
#include "table/table.h"
#include "write/write.h"

#include "utils/guc.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(shard_fdw_handler);

void		_PG_init(void);

/*
 * Module load.
 */
void
_PG_init(void)
{
	shard_route_init();
	shard_runs_init();
	shard_guard_init();
	shard_watch_init();
	shard_alter_init();
	shard_remote_scan_init();
	MarkGUCPrefixReserved("shard_fdw");

	shard_table_init();
	shard_progress_init();
	shard_plan_init();
	shard_join_init();
	shard_gather_init();
	shard_planning_init();
	shard_node_snapshot_init();
	shard_node_use_init();
	shard_remote_update_init();
	shard_one_node_init();
	shard_by_key_init();
	shard_node_init();
}

/*
 * shard_fdw_handler()
 *		The foreign-data wrapper's callbacks, as fdw_handler.
 */
Datum
shard_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = shardGetForeignRelSize;
	routine->GetForeignPaths = shardGetForeignPaths;
	routine->GetForeignPlan = shardGetForeignPlan;
	routine->BeginForeignScan = shardBeginForeignScan;
	routine->IterateForeignScan = shardIterateForeignScan;
	routine->ReScanForeignScan = shardReScanForeignScan;
	routine->EndForeignScan = shardEndForeignScan;
	routine->IsForeignScanParallelSafe = shardIsForeignScanParallelSafe;

	routine->PlanForeignModify = shardPlanForeignModify;
	routine->BeginForeignModify = shardBeginForeignModify;
	routine->ExecForeignInsert = shardExecForeignInsert;
	routine->ExecForeignBatchInsert = shardExecForeignBatchInsert;
	routine->GetForeignModifyBatchSize = shardGetForeignModifyBatchSize;
	routine->EndForeignModify = shardEndForeignModify;
	routine->BeginForeignInsert = shardBeginForeignInsert;
	routine->EndForeignInsert = shardEndForeignInsert;
	routine->ExecForeignUpdate = shardExecForeignUpdate;
	routine->ExecForeignDelete = shardExecForeignUpdate;
	routine->IsForeignRelUpdatable = shardIsForeignRelUpdatable;
	routine->ExecForeignTruncate = shardExecForeignTruncate;

	routine->AnalyzeForeignTable = shardAnalyzeForeignTable;
	routine->ExplainForeignModify = shardExplainForeignModify;

	PG_RETURN_POINTER(routine);
}
