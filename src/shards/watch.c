/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  Telling a client which rows of a table come and go while it copies them.
 *
 * watch_rows() is called by the query that reads the rows, and notes the
 * snapshot of that query.  Each call of changed_rows() then returns what has
 * changed since, as changes.c finds it, and notes the snapshot it has compared
 * with in its place.
 *
 * These snapshots belong to the transaction, not to a statement: resource
 * owners warn of those that are left when they end.  What a subtransaction has
 * noted is forgotten if it is rolled back.  The snapshot from before is gone by
 * then, and so are perhaps the rows that it has shown.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_am.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_watch_rows);
PG_FUNCTION_INFO_V1(shard_changed_rows);

/* A table whose rows are watched. */
typedef struct Watch
{
	Oid			relid;
	int			level;			/* the nesting level that has noted "last" */
	MemoryContext context;		/* has this and "changes" */
	ShardMoment last;			/* registered with the transaction */
	ShardChanges *changes;
} Watch;

/* Where the rows that have changed go. */
typedef struct Output
{
	ReturnSetInfo *rsinfo;
	TupleDesc	desc;			/* the table's */
	Bitmapset  *keys;			/* its columns in unique keys, as an index
								 * bitmap has them; NULL: it has no such key */
	bool		is_gone;		/* of the rows at hand */
	MemoryContext row_context;
	Datum	   *values;
	bool	   *nulls;
} Output;

/* Those of this transaction; in TopTransactionContext. */
static List *watches = NIL;

static Watch *
find_watch(Oid relid)
{
	ListCell   *lc;

	foreach(lc, watches)
	{
		Watch	   *watch = lfirst(lc);

		if (watch->relid == relid)
			return watch;
	}
	return NULL;
}

/*
 * No longer keep the rows that have been there.
 */
static void
release_snapshot(Watch *watch)
{
	if (watch->last.snapshot != NULL)
		UnregisterSnapshotFromOwner(watch->last.snapshot,
									TopTransactionResourceOwner);
	watch->last.snapshot = NULL;
}

/*
 * The transaction ends.  If it is rolled back, its resource owner and its
 * memory context see to the rest.
 */
static void
on_xact_end(XactEvent event, void *arg)
{
	ListCell   *lc;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			foreach(lc, watches)
				release_snapshot(lfirst(lc));
			watches = NIL;
			break;
		case XACT_EVENT_ABORT:
			watches = NIL;
			break;
		default:
			break;
	}
}

/*
 * A subtransaction ends.  The transaction's resource owner has more time to live,
 * whatever comes next.
 */
static void
on_subxact_end(SubXactEvent event, SubTransactionId subid,
			   SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *lc;

	foreach(lc, watches)
	{
		Watch	   *watch = lfirst(lc);

		if (watch->level < level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			watch->level = level - 1;
		else if (event == SUBXACT_EVENT_ABORT_SUB)
		{
			watches = foreach_delete_current(watches, lc);
			release_snapshot(watch);
			MemoryContextDelete(watch->context);
		}
	}
}

/*
 * shard_watch_init
 *		Install callbacks.  To be called once, when the library is loaded.
 */
void
shard_watch_init(void)
{
	RegisterXactCallback(on_xact_end, NULL);
	RegisterSubXactCallback(on_subxact_end, NULL);
}

static void
report_cannot(Relation rel, int code, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("cannot watch the rows of table \"%s\"",
					RelationGetRelationName(rel)),
			 errdetail("%s", detail),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/*
 * Open a table, if the caller may and can watch it.
 *
 * While the lock that is asked for is held, nobody else can rewrite, truncate or
 * vacuum it.  The transaction itself can, and then the relation cache knows.
 * Only a table that is new in the transaction can be truncated in place, which
 * cannot be noticed.
 */
static Relation
open_table(Oid relid)
{
	Relation	rel;
	char		relkind = get_rel_relkind(relid);

	if (get_rel_name(relid) == NULL)
		shard_report_missing(relid);
	if (!shard_class_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(relkind),
					   get_rel_name(relid));
	if (relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an ordinary table",
						get_rel_name(relid))));
	shard_check_read_committed("watch rows");

	rel = table_open(relid, AccessShareLock);
	if (rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		report_cannot(rel, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "Its access method is not \"heap\".", NULL);
	if (RELATION_IS_OTHER_TEMP(rel))
		report_cannot(rel, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "It is a temporary table of another session.", NULL);
	if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		report_cannot(rel, ERRCODE_INSUFFICIENT_PRIVILEGE,
					  "Row-level security applies to its owner.", NULL);
	if (rel->rd_createSubid != InvalidSubTransactionId ||
		shard_rel_new_storage_subid(rel) != InvalidSubTransactionId)
		report_cannot(rel, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  "The transaction has created, rewritten or truncated it.",
					  NULL);
	if (!CheckRelationLockedByMe(rel, ShareUpdateExclusiveLock, true))
		report_cannot(rel, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  "The transaction has not locked it against VACUUM and the like.",
					  psprintf("Use LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE.",
							   shard_qualified_name(relid)));
	return rel;
}

/*
 * shard_watch_rows(tbl regclass)
 *		Note the snapshot of the calling query, from which on changes of the
 *		table are to be told.  Returns true, so that it can be a condition.
 *
 * The planner may call it to estimate something, with a snapshot of its own: the
 * call that comes when the query is executed replaces what that has noted.
 *
 * Raises ERRCODE_UNDEFINED_TABLE, ERRCODE_WRONG_OBJECT_TYPE,
 * ERRCODE_FEATURE_NOT_SUPPORTED, ERRCODE_INSUFFICIENT_PRIVILEGE,
 * ERRCODE_ACTIVE_SQL_TRANSACTION (not READ COMMITTED) and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE.
 */
Datum
shard_watch_rows(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Relation	rel = open_table(relid);
	Watch	   *old = find_watch(relid);
	MemoryContext context = AllocSetContextCreate(TopTransactionContext,
												  "rows being watched",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Watch	   *watch = palloc0(sizeof(Watch));

	watch->relid = relid;
	watch->level = GetCurrentTransactionNestLevel();
	watch->context = context;
	watch->changes = shard_changes_begin(rel);
	MemoryContextSwitchTo(TopTransactionContext);
	watches = lappend(watches, watch);
	MemoryContextSwitchTo(oldcontext);

	/*
	 * Who has made the snapshot active may give it another command id, which
	 * is not to change ours.  So get a copy of it.
	 */
	PushCopiedSnapshot(GetActiveSnapshot());
	watch->last.snapshot = RegisterSnapshotOnOwner(GetActiveSnapshot(),
												   TopTransactionResourceOwner);
	PopActiveSnapshot();
	if (old != NULL)
	{
		watches = list_delete_ptr(watches, old);
		release_snapshot(old);
		MemoryContextDelete(old->context);
	}
	table_close(rel, NoLock);
	PG_RETURN_BOOL(true);
}

/*
 * Return a row.
 *
 * Values that are stored elsewhere become part of it, because they may not be
 * there any longer when it is read.
 */
static void
return_row(void *arg, HeapTuple row)
{
	Output	   *output = arg;
	TupleDesc	desc = output->desc;
	MemoryContext oldcontext = MemoryContextSwitchTo(output->row_context);
	Datum		values[2];
	bool		nulls[2] = {false, false};

	heap_deform_tuple(row, desc, output->values, output->nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped ||
			(output->is_gone && output->keys != NULL &&
			 !bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber,
							output->keys)))
			output->nulls[i] = true;
	}
	values[0] = BoolGetDatum(output->is_gone);
	values[1] = HeapTupleGetDatum(heap_form_tuple(desc, output->values,
												  output->nulls));
	tuplestore_putvalues(output->rsinfo->setResult, output->rsinfo->setDesc,
						 values, nulls);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(output->row_context);
}

/*
 * shard_changed_rows(tbl anyelement)
 *		Which rows of a table are gone, and which are new, since the last call, or
 *		else since the query that has called shard_watch_rows().
 *
 * Of the rows that are gone only the columns of unique keys are returned.
 * Raises what shard_watch_rows() raises, ERRCODE_DATATYPE_MISMATCH if the
 * argument's type is not a table's, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the table is not being watched.
 */
Datum
shard_changed_rows(PG_FUNCTION_ARGS)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;
	Relation	rel;
	Watch	   *watch;
	ShardMoment now;
	Output		output = {0};
	Snapshot	snapshot;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("argument of %s must have the row type of a table",
						"changed_rows()"),
				 errhint("Write NULL::t for table \"t\".")));
	rel = open_table(relid);
	watch = find_watch(relid);
	if (watch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rows of table \"%s\" are not being watched",
						RelationGetRelationName(rel)),
				 errdetail("The transaction has not called watch_rows(), or has rolled back to a savepoint since it has used watch_rows() or changed_rows().")));

	InitMaterializedSRF(fcinfo, 0);
	output.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	output.desc = RelationGetDescr(rel);
	output.keys = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);
	output.row_context = AllocSetContextCreate(CurrentMemoryContext,
											   "changed row",
											   ALLOCSET_DEFAULT_SIZES);
	output.values = palloc(sizeof(Datum) * Max(output.desc->natts, 1));
	output.nulls = palloc(sizeof(bool) * Max(output.desc->natts, 1));

	/* What is known of the pages is of no use if this is rolled back. */
	watch->level = GetCurrentTransactionNestLevel();
	now = shard_moment();
	shard_changes_resume(watch->changes, rel);
	output.is_gone = true;
	(void) shard_changes_gone(watch->changes, &watch->last, &now, return_row,
							  &output);
	output.is_gone = false;
	(void) shard_changes_new(watch->changes, &watch->last, &now, return_row,
							 &output);

	snapshot = RegisterSnapshotOnOwner(now.snapshot,
									   TopTransactionResourceOwner);
	release_snapshot(watch);
	watch->last.snapshot = snapshot;
	watch->last.position = now.position;
	shard_moment_end(&now);
	MemoryContextDelete(output.row_context);
	table_close(rel, NoLock);
	return (Datum) 0;
}
