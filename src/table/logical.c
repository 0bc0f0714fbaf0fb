/*-------------------------------------------------------------------------
 *
 * logical.c
 *	  Is a relation a logical table, may the caller do this with it, and the
 *	  callbacks of a foreign table that has no rows of its own.
 *
 * A logical table is recognized by one of the callbacks in its routine.  That
 * callback is here, so that nothing of the planner or the executor is required
 * to recognize one.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * Is this function a handler of ours?
 *
 * It may be the handler of any wrapper, and its library may be missing.  So it
 * is called only if its name in C is that of ours.
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
		GetFdwRoutine(handler)->GetForeignPaths == shardGetForeignPaths;
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
 * shardGetForeignPaths
 *		Raise an internal error.  So do the next ones: the table itself is
 *		never scanned, and core never calls them.
 */
void
shardGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	elog(ERROR, "logical table %u has not been expanded", relid);
}

/*
 * shardGetForeignPlan
 *		See shardGetForeignPaths().
 */
ForeignScan *
shardGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid relid,
					ForeignPath *best_path, List *tlist, List *scan_clauses,
					Plan *outer_plan)
{
	elog(ERROR, "logical table %u has not been expanded", relid);
}

/*
 * shardBeginForeignScan
 *		See shardGetForeignPaths().
 */
void
shardBeginForeignScan(ForeignScanState *node, int eflags)
{
	elog(ERROR, "logical table has not been expanded");
}

/*
 * shardIterateForeignScan
 *		See shardGetForeignPaths().
 */
TupleTableSlot *
shardIterateForeignScan(ForeignScanState *node)
{
	elog(ERROR, "logical table has not been expanded");
}

/*
 * shardReScanForeignScan
 *		See shardGetForeignPaths().
 */
void
shardReScanForeignScan(ForeignScanState *node)
{
	elog(ERROR, "logical table has not been expanded");
}

/*
 * shardEndForeignScan
 *		Nothing to do.
 */
void
shardEndForeignScan(ForeignScanState *node)
{
}

/*
 * shardIsForeignScanParallelSafe
 *		The logical table does not keep a plan from being parallel.  Core asks
 *		about each shard separately.
 */
bool
shardIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel,
							   RangeTblEntry *rte)
{
	return true;
}

/*
 * shardIsForeignRelUpdatable
 *		INSERT, UPDATE and DELETE are possible.
 */
int
shardIsForeignRelUpdatable(Relation rel)
{
	return (1 << CMD_INSERT) | (1 << CMD_UPDATE) | (1 << CMD_DELETE);
}

/*
 * shardExecForeignUpdate
 *		Raise an internal error: rows to update or delete are in the shards.
 *
 * The callback must exist, for otherwise core would refuse the command.
 */
TupleTableSlot *
shardExecForeignUpdate(EState *estate, ResultRelInfo *rri,
					   TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	elog(ERROR, "logical table has no rows of its own");
}

/*
 * Acquire the sample of a table without rows.
 */
static int
acquire_no_sample(Relation rel, int elevel, HeapTuple *rows, int targrows,
				  double *totalrows, double *totaldeadrows)
{
	*totalrows = 0;
	*totaldeadrows = 0;
	return 0;
}

/*
 * shardAnalyzeForeignTable
 *		Let ANALYZE have the sample of an empty table.  Core then goes on to the
 *		statistics of the whole inheritance set.
 */
bool
shardAnalyzeForeignTable(Relation rel, AcquireSampleRowsFunc *func,
						 BlockNumber *totalpages)
{
	*func = acquire_no_sample;
	*totalpages = 0;
	return true;
}

/*
 * shard_is_our_routine
 *		Are these the callbacks of a logical table?  NULL stands for a relation
 *		without callbacks.
 */
bool
shard_is_our_routine(const FdwRoutine *routine)
{
	return routine != NULL &&
		routine->GetForeignPaths == shardGetForeignPaths;
}

/*
 * shard_report_missing
 *		Raise ERRCODE_UNDEFINED_TABLE because there is no such relation.
 */
void
shard_report_missing(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation with OID %u does not exist", relid)));
}

/*
 * shard_check_logical
 *		Raise ERRCODE_WRONG_OBJECT_TYPE unless the relation is a logical table.
 */
void
shard_check_logical(Oid relid)
{
	if (get_rel_name(relid) == NULL)
		shard_report_missing(relid);
	if (!shard_is_logical(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a foreign table of shard_fdw",
						get_rel_name(relid))));
}

/*
 * shard_check_readable
 *		Raise ERRCODE_INSUFFICIENT_PRIVILEGE unless the current user may read
 *		all columns of the logical table.
 */
void
shard_check_readable(Oid relid)
{
	AclResult	acl = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FOREIGN_TABLE, get_rel_name(relid));
}

/*
 * shard_check_read_committed
 *		Raise ERRCODE_ACTIVE_SQL_TRANSACTION if the transaction keeps its first
 *		snapshot, which does not allow "action".
 */
void
shard_check_read_committed(const char *action)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot %s in a transaction of isolation level %s",
						action, IsolationIsSerializable() ? "SERIALIZABLE" :
						"REPEATABLE READ"),
				 errhint("Use isolation level READ COMMITTED.")));
}

/*
 * shard_is_node
 *		Is it a server of postgres_fdw, by whatever name?
 */
bool
shard_is_node(Oid server)
{
	Oid			wrapper = GetForeignServer(server)->fdwid;
	char	   *handler = get_func_name(GetForeignDataWrapper(wrapper)->fdwhandler);

	return handler != NULL && strcmp(handler, "postgres_fdw_handler") == 0;
}

/*
 * shard_check_owned
 *		Raise ERRCODE_INSUFFICIENT_PRIVILEGE unless the current user owns the
 *		logical table, and what shard_check_logical() raises.
 */
void
shard_check_owned(Oid relid)
{
	shard_check_logical(relid);
	if (!shard_class_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_TABLE,
					   get_rel_name(relid));
}

/*
 * shard_check_plain
 *		Raise ERRCODE_FEATURE_NOT_SUPPORTED if a shard is a foreign table or
 *		has inheritance children, so that "action" cannot be done to the logical
 *		table.
 */
void
shard_check_plain(Oid logical, const ShardMember *shard, const char *action)
{
	if (!shard->is_local || shard->has_children)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot %s foreign table \"%s\"", action,
						get_rel_name(logical)),
				 shard->is_local ?
				 errdetail("Shard \"%s\" has inheritance children.",
						   get_rel_name(shard->relid)) :
				 errdetail("Shard \"%s\" is a foreign table.",
						   get_rel_name(shard->relid)),
				 shard->is_local ?
				 errhint("Detach it, or replace it by an ordinary table.") :
				 errhint("Detach it, or replace it by an ordinary table, as move_shard() does with shards on servers of postgres_fdw.")));
}

/*
 * shard_parents
 *		The tables that a relation inherits from.
 *
 * Takes no lock on any of them.  The list is allocated in the current memory
 * context.
 */
List *
shard_parents(Oid relid)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(InheritsRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, InheritsRelidSeqnoIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		result = lappend_oid(result,
							 ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * shard_logical_parents
 *		The logical tables that a relation is a shard of.  As shard_parents().
 */
List *
shard_logical_parents(Oid relid)
{
	List	   *result = shard_parents(relid);
	ListCell   *lc;

	foreach(lc, result)
	{
		if (!shard_is_logical(lfirst_oid(lc)))
			result = foreach_delete_current(result, lc);
	}
	return result;
}

/*
 * shard_check_to_alter
 *		Raise an error unless the relation is a shard that the caller owns.  If
 *		or_sealed, it may also be a sealed table, which has been a shard.
 *
 * The error is ERRCODE_UNDEFINED_TABLE, ERRCODE_WRONG_OBJECT_TYPE or
 * ERRCODE_INSUFFICIENT_PRIVILEGE.
 */
void
shard_check_to_alter(Oid shard, bool or_sealed)
{
	char	   *name = get_rel_name(shard);

	if (name == NULL)
		shard_report_missing(shard);
	if (shard_logical_parents(shard) == NIL &&
		!(or_sealed && shard_seal_constraint(shard) != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a shard", name),
				 errdetail("A shard is a table that inherits from a foreign table of shard_fdw.")));
	if (!shard_class_ownercheck(shard, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, name);
}
