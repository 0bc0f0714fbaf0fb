/*-------------------------------------------------------------------------
 *
 * shard_fdw.c
 *	  Module start, settings, the FDW's handler, and what EXPLAIN shows.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_fdw.h"

#include "access/htup_details.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

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
	shard_guard_init();
	MarkGUCPrefixReserved("shard_fdw");

	shard_table_init();
	shard_plan_init();
	shard_join_init();
	shard_cursor_init();
}

/*
 * Is this function a handler of ours?  That is asked of the handlers of all
 * wrappers, which might be in a library that is not there.
 */
static bool
is_our_handler(Oid handler)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler));
	Datum		source;
	bool		isnull;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
		!isnull &&
		strcmp(TextDatumGetCString(source), "shard_fdw_handler") == 0;
	ReleaseSysCache(tuple);
	return result &&
		GetFdwRoutine(handler)->GetForeignRelSize == shardGetForeignRelSize;
}

/*
 * shard_is_logical
 *		Is the relation a foreign table of this foreign-data wrapper?
 *
 * False for an OID that is no relation's.
 */
bool
shard_is_logical(Oid relid)
{
	HeapTuple	tuple;
	Oid			serverid;
	ForeignServer *server;
	ForeignDataWrapper *wrapper;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		return false;
	/* Without a lock on the table, any of these may be gone. */
	tuple = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	serverid = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftserver;
	ReleaseSysCache(tuple);
	server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	wrapper = server == NULL ? NULL :
		GetForeignDataWrapperExtended(server->fdwid, FDW_MISSING_OK);
	return wrapper != NULL && is_our_handler(wrapper->fdwhandler);
}

/*
 * The table is never scanned, so core never comes to ask for these.
 */
static void
shardGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	elog(ERROR, "logical table %u has not been expanded", relid);
}

static ForeignScan *
shardGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid relid,
					ForeignPath *best_path, List *tlist, List *scan_clauses,
					Plan *outer_plan)
{
	elog(ERROR, "logical table %u has not been expanded", relid);
}

static void
shardBeginForeignScan(ForeignScanState *node, int eflags)
{
	elog(ERROR, "logical table has not been expanded");
}

static TupleTableSlot *
shardIterateForeignScan(ForeignScanState *node)
{
	elog(ERROR, "logical table has not been expanded");
}

static void
shardReScanForeignScan(ForeignScanState *node)
{
	elog(ERROR, "logical table has not been expanded");
}

static void
shardEndForeignScan(ForeignScanState *node)
{
}

/*
 * The logical table has nothing that would keep a plan from being parallel;
 * each shard is asked for itself.
 */
static bool
shardIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel,
							   RangeTblEntry *rte)
{
	return true;
}

/*
 * All shards take all commands.
 */
static int
shardIsForeignRelUpdatable(Relation rel)
{
	return (1 << CMD_INSERT) | (1 << CMD_UPDATE) | (1 << CMD_DELETE);
}

/*
 * Rows to update or delete are in the shards, so these have nothing to do.
 * They must exist, or core would refuse the command.
 */
static TupleTableSlot *
shardExecForeignUpdate(EState *estate, ResultRelInfo *rri,
					   TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	elog(ERROR, "logical table has no rows of its own");
}

/*
 * TRUNCATE lists the shards by itself.
 */
static void
shardExecForeignTruncate(List *rels, DropBehavior behavior,
						 bool restart_seqs)
{
}

static int
acquire_no_sample(Relation rel, int elevel, HeapTuple *rows, int targrows,
				  double *totalrows, double *totaldeadrows)
{
	*totalrows = 0;
	*totaldeadrows = 0;
	return 0;
}

/*
 * The table itself is empty.  Agreeing to analyze it makes core go on to the
 * statistics of the whole inheritance set.
 */
static bool
shardAnalyzeForeignTable(Relation rel, AcquireSampleRowsFunc *func,
						 BlockNumber *totalpages)
{
	*func = acquire_no_sample;
	*totalpages = 0;
	return true;
}

/*
 * EXPLAIN of an INSERT: the route, and what has been written where.
 */
static void
shardExplainForeignModify(ModifyTableState *mtstate, ResultRelInfo *rri,
						  List *fdw_private, int subplan_index,
						  ExplainState *es)
{
	ShardInsert *insert = rri->ri_FdwState;
	ListCell   *lc;

	if (insert == NULL)
		return;

	ExplainPropertyText("Route",
						shard_pinned >= 0 ? "pinned" :
						shard_route_name(insert->table->route), es);
	if (insert->table->commit_order)
		ExplainPropertyBool("Commit Order", true, es);
	if (es->verbose)
		ExplainPropertyInteger("Batch Size", NULL, shard_batch_size(insert),
							   es);
	if (!es->analyze)
		return;

	ExplainOpenGroup("Shards", "Shards", false, es);
	foreach(lc, insert->targets)
	{
		ShardTarget *target = lfirst(lc);
		Relation	rel = target->rri->ri_RelationDesc;
		const char *name = RelationGetRelationName(rel);

		if (es->format == EXPLAIN_FORMAT_TEXT)
		{
			ExplainPropertyText("Shard",
								psprintf("%s (rows=" UINT64_FORMAT ")",
										 es->verbose ?
										 shard_qualified_name(RelationGetRelid(rel)) :
										 quote_identifier(name),
										 target->nrows),
								es);
			continue;
		}
		ExplainOpenGroup("Shard", NULL, true, es);
		if (es->verbose)
			ExplainPropertyText("Schema",
								get_namespace_name(RelationGetNamespace(rel)),
								es);
		ExplainPropertyText("Shard", name, es);
		ExplainPropertyUInteger("Rows", NULL, target->nrows, es);
		ExplainCloseGroup("Shard", NULL, true, es);
	}
	ExplainCloseGroup("Shards", "Shards", false, es);
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
