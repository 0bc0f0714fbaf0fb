/*-------------------------------------------------------------------------
 *
 * dequeue.c
 *	  Taking rows out of a logical table, and what dequeue() has in common
 *	  with the functions of consumers.
 *
 * These functions run a query on the logical table, with the caller's
 * privileges and a condition on tableoid that gets it to one shard, and
 * return its rows.
 *
 * dequeue() deletes each row that its query finds right away.  A statement
 * would have to lock rows first, SKIP LOCKED, then find them again by ctid,
 * and would write twice as much WAL.  A statement it is, though, where a
 * deletion is more than that: with triggers, or without the privileges for
 * the whole table.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"
#include "write/write.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_dequeue);

/* A shard that rows are taken from. */
typedef struct Taking
{
	Relation	shard;
	TupleTableSlot *locked;
	uint64		nfound;			/* rows that the query has found */
	bool		updated;		/* of one there is a new version */
} Taking;

/*
 * Delete the row with this ctid, of one shard, unless others have locked it.
 * Returns whether it is deleted.
 */
static bool
delete_row(Datum ctid, void *state)
{
	Taking	   *taking = state;
	ItemPointer tid = (ItemPointer) DatumGetPointer(ctid);
	CommandId	cid = GetCurrentCommandId(true);
	Snapshot	snapshot = GetActiveSnapshot();
	TM_FailureData tmfd;
	TM_Result	result;

	taking->nfound++;
	/* Its new version may be the next in order. */
	if (taking->updated)
		return false;

	/* Not to wait means not to find out who has it locked, be it ourselves. */
	result = shard_tuple_delete(taking->shard, tid, cid, snapshot, false,
								&tmfd);
	if (result == TM_BeingModified)
	{
		result = table_tuple_lock(taking->shard, tid, snapshot, taking->locked,
								  cid, LockTupleExclusive, LockWaitSkip, 0,
								  &tmfd);
		ExecClearTuple(taking->locked);
		if (result == TM_Ok)
			result = shard_tuple_delete(taking->shard, tid, cid, snapshot, true,
										&tmfd);
	}
	switch (result)
	{
		case TM_Ok:
			return true;
		case TM_WouldBlock:
			return false;
		case TM_Updated:
			shard_report_serialization_failure("update");
			taking->updated = true;
			return false;
		case TM_Deleted:
			shard_report_serialization_failure("delete");
			return false;
		default:
			elog(ERROR, "unexpected result of deleting a row: %u", result);
	}
}

/*
 * Would a DELETE of rows of the table fire triggers?
 */
static bool
has_delete_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return triggers && (triggers->trig_delete_before_row ||
						triggers->trig_delete_after_row ||
						triggers->trig_delete_before_statement ||
						triggers->trig_delete_after_statement);
}

/*
 * Delete and return up to so many rows of a shard, in an order or "".
 * Returns how many.
 */
static uint64
take_rows(ReturnSetInfo *rsinfo, Relation logical, Oid shard,
		  const char *order, int max_rows)
{
	const AclMode needed = ACL_SELECT | ACL_UPDATE | ACL_DELETE;
	Oid			relid = RelationGetRelid(logical);
	char	   *table_name = shard_qualified_name(relid);
	char	   *columns;
	uint64		nrows = 0;
	uint64		limit = max_rows;
	Taking		taking;

	LockRelationOid(relid, RowExclusiveLock);
	taking.shard = try_relation_open(shard, RowExclusiveLock);
	if (taking.shard == NULL)
		return 0;				/* dropped just now */

	if (has_delete_triggers(logical) || has_delete_triggers(taking.shard) ||
		pg_class_aclmask(relid, GetUserId(), needed, ACLMASK_ALL) != needed)
	{
		relation_close(taking.shard, NoLock);
		/* Within one shard, the ctid identifies a row. */
		return shard_return_rows(rsinfo,
								 psprintf("WITH d AS (DELETE FROM %s t WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid"
										  " AND ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT ctid FROM %s"
										  " WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid%s LIMIT %d FOR UPDATE SKIP LOCKED))"
										  " RETURNING %s) SELECT * FROM d%s",
										  table_name, shard, table_name, shard,
										  order, max_rows,
										  shard_column_list(logical, "t.", true),
										  order),
								 0, NULL, NULL, 0, max_rows, NULL, NULL);
	}

	columns = shard_column_list(logical, "", true);
	CheckCmdReplicaIdentity(taking.shard, CMD_DELETE);
	taking.locked = table_slot_create(taking.shard, NULL);
	do
	{
		uint64		taken;

		taking.nfound = 0;
		taking.updated = false;
		/* Without parallel workers, whose leader must not delete rows. */
		taken = shard_return_rows(rsinfo,
								  psprintf("SELECT %s, ctid FROM %s WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid%s LIMIT " UINT64_FORMAT,
										   columns, table_name, shard, order, limit),
								  0, NULL, NULL, 0, max_rows - nrows, delete_row, &taking);
		nrows += taken;
		if (nrows == max_rows || (taking.nfound < limit && !taking.updated))
			break;
		/* Look at the new version, or behind the rows that others have. */
		limit = max_rows - nrows + 2 * (taking.nfound - taken);
	} while (true);
	ExecDropSingleTupleTableSlot(taking.locked);
	relation_close(taking.shard, NoLock);
	return nrows;
}

/*
 * shard_dequeue(tbl anyelement, max_rows int, order_by name, shard regclass)
 *		SQL function dequeue(): deletes up to so many rows of one shard, the
 *		given one if any, that no other transaction has locked, and returns
 *		them.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE, ERRCODE_UNDEFINED_COLUMN,
 * ERRCODE_WRONG_OBJECT_TYPE for what is no shard, ERRCODE_DATATYPE_MISMATCH
 * for a type that is no logical table's, ERRCODE_FEATURE_NOT_SUPPORTED if a
 * shard is a foreign table, and ERRCODE_T_R_SERIALIZATION_FAILURE if the
 * isolation level says so.
 */
Datum
shard_dequeue(PG_FUNCTION_ARGS)
{
	static uint32 turn = 0;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	logical = shard_open_argument(fcinfo, "dequeue()");
	Oid			relid = RelationGetRelid(logical);
	int			max_rows = shard_count_argument(fcinfo, 1);
	char	   *order = "";
	ShardTable *table = shard_table_get(relid);
	int			nshards = table->nmembers;
	Oid		   *shards = palloc(sizeof(Oid) * Max(nshards, 1));

	if (!PG_ARGISNULL(2))
	{
		const char *name = NameStr(*PG_GETARG_NAME(2));

		if (get_attnum(relid, name) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of foreign table \"%s\" does not exist",
							name, get_rel_name(relid))));
		order = psprintf(" ORDER BY %s", quote_identifier(name));
	}
	for (int i = 0; i < nshards; i++)
	{
		shards[i] = table->members[i].relid;
		/* A ctid says little about a row of another server. */
		shard_check_plain(relid, &table->members[i], "dequeue rows of");
	}

	if (!PG_ARGISNULL(3))
	{
		if (shard_table_find(table, PG_GETARG_OID(3)) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a shard of foreign table \"%s\"",
							get_rel_name(PG_GETARG_OID(3)) ?
							get_rel_name(PG_GETARG_OID(3)) :
							psprintf("%u", PG_GETARG_OID(3)),
							get_rel_name(relid))));
		shards[0] = PG_GETARG_OID(3);
		nshards = 1;
	}

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	/* Sessions begin with different shards, and go on with the next. */
	if (turn == 0)
		turn = shard_backend_number() + 1;
	for (int i = 0; i < nshards; i++)
	{
		if (take_rows(rsinfo, logical, shards[turn % nshards], order, max_rows) > 0)
			break;
		turn++;
	}
	SPI_finish();
	table_close(logical, NoLock);
	return (Datum) 0;
}
