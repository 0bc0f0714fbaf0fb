/*-------------------------------------------------------------------------
 *
 * ledger.c
 *	  The tables in which the extension keeps what no system catalog tells:
 *	  which shards are closed, since when the open ones are, and how the last
 *	  maintenance went.
 *
 * A backend reads them as it reads the catalogs: by the latest that is
 * committed and by what it has written itself, not by the transaction's
 * snapshot.  Who does so while a row is being updated may miss the row, and
 * has to live with that.  They are written as their owner, so that the users
 * who call our functions need no rights on them.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* The most columns of such a table. */
#define MAX_COLUMNS	5

/*
 * Open one of the tables.  NULL if there is none: the extension is just being
 * created or dropped.
 */
static Relation
open_ledger(const char *name, LOCKMODE mode)
{
	Oid			schema = get_namespace_oid("shard_fdw", true);
	Oid			relid = OidIsValid(schema) ?
		get_relname_relid(name, schema) : InvalidOid;
	Relation	result = OidIsValid(relid) ?
		try_relation_open(relid, mode) : NULL;

	if (result != NULL && result->rd_rel->relkind != RELKIND_RELATION)
	{
		relation_close(result, mode);
		return NULL;
	}
	return result;
}

/*
 * shard_query_ledger
 *		Run a command on one of the tables, as its owner, with nothing but the
 *		system catalogs in the search path, so that no function or operator of
 *		the caller's runs.  SPI is connected.
 *
 * Returns the number of rows that the command has returned, in SPI_tuptable,
 * or else changed.  Raises ERRCODE_UNDEFINED_TABLE if the table is not there.
 */
uint64
shard_query_ledger(const char *name, const char *sql, int nargs,
				   const Oid *types, Datum *values, const char *nulls)
{
	Relation	ledger = open_ledger(name, AccessShareLock);
	Oid			userid;
	int			sec_context;
	int			guc_level;
	int			rc;

	if (ledger == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"shard_fdw.%s\" does not exist", name)));
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(ledger->rd_rel->relowner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE);
	relation_close(ledger, NoLock);
	guc_level = NewGUCNestLevel();
	shard_set("search_path", "pg_catalog, pg_temp");
	rc = SPI_execute_with_args(sql, nargs, unconstify(Oid *, types), values,
							   nulls, false, 0);
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(userid, sec_context);
	if (rc < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s",
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * shard_write_ledger
 *		The same where SPI is not connected, and for a command that returns no
 *		rows.
 */
uint64
shard_write_ledger(const char *name, const char *sql, int nargs,
				   const Oid *types, Datum *values, const char *nulls)
{
	uint64		result;

	SPI_connect();
	result = shard_query_ledger(name, sql, nargs, types, values, nulls);
	SPI_finish();
	return result;
}

/*
 * Find the row of a relation, whose OID is the key of the table.  Takes no lock
 * on the relation.  Values that are not passed by value are not to be used.
 *
 * Unless "xid" is NULL, it becomes the transaction that has inserted the row.
 */
static bool
find_row(const char *name, Oid relid, Datum *values, bool *isnull,
		 TransactionId *xid)
{
	Relation	ledger = open_ledger(name, AccessShareLock);
	Oid			index;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		result;

	if (ledger == NULL)
		return false;
	index = get_relname_relid(psprintf("%s_pkey", name),
							  RelationGetNamespace(ledger));
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(ledger, index, OidIsValid(index), SnapshotSelf,
							  1, &key);
	tuple = systable_getnext(scan);
	result = HeapTupleIsValid(tuple) &&
		RelationGetNumberOfAttributes(ledger) <= MAX_COLUMNS;
	if (result)
		heap_deform_tuple(tuple, RelationGetDescr(ledger), values, isnull);
	if (result && xid != NULL)
		*xid = HeapTupleHeaderGetXmin(tuple->t_data);
	systable_endscan(scan);
	relation_close(ledger, AccessShareLock);
	return result;
}

/*
 * shard_is_closed
 *		Is the shard closed, according to the latest that is committed and to
 *		this transaction?
 *
 * Takes no lock on the shard.
 */
bool
shard_is_closed(Oid shard)
{
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];

	return find_row("closed_shards", shard, values, isnull, NULL);
}

/*
 * The keys of all rows of one of the tables, and, unless "xids" is NULL, which
 * transactions have inserted them, and the flags in their second columns.
 */
static Oid *
read_keys(const char *name, int *n, TransactionId **xids, bool **flags)
{
	Relation	ledger = open_ledger(name, AccessShareLock);
	int			size = 64;
	Oid		   *result = palloc(sizeof(Oid) * size);
	SysScanDesc scan;
	HeapTuple	tuple;

	if (xids != NULL)
	{
		*xids = palloc(sizeof(TransactionId) * size);
		*flags = palloc(sizeof(bool) * size);
	}

	*n = 0;
	if (ledger == NULL)
		return result;
	scan = systable_beginscan(ledger, InvalidOid, false, SnapshotSelf, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		if (*n == size)
		{
			result = repalloc(result, sizeof(Oid) * (size *= 2));
			if (xids != NULL)
			{
				*xids = repalloc(*xids, sizeof(TransactionId) * size);
				*flags = repalloc(*flags, sizeof(bool) * size);
			}
		}
		if (xids != NULL)
		{
			(*xids)[*n] = HeapTupleHeaderGetXmin(tuple->t_data);
			(*flags)[*n] =
				DatumGetBool(heap_getattr(tuple, 2, RelationGetDescr(ledger),
										  &isnull));
		}
		result[(*n)++] =
			DatumGetObjectId(heap_getattr(tuple, 1, RelationGetDescr(ledger),
										  &isnull));
	}
	systable_endscan(scan);
	relation_close(ledger, AccessShareLock);
	return result;
}

/*
 * shard_read_closed
 *		The OIDs of all closed shards, of whatever table; *n becomes their
 *		number.  The array is allocated in the current memory context.
 *
 * As shard_is_closed().
 */
Oid *
shard_read_closed(int *n)
{
	return read_keys("closed_shards", n, NULL, NULL);
}

/*
 * shard_read_moved
 *		The OIDs of all shards that have come from another place, of whatever
 *		table, which transactions have put them where they are, and whether
 *		these had deleted rows there before they were committed.
 *
 * As shard_read_closed().
 */
Oid *
shard_read_moved(int *n, TransactionId **xids, bool **rows_gone)
{
	return read_keys("moved_shards", n, xids, rows_gone);
}

/*
 * shard_rows_gone_xid
 *		The transaction that has moved a table to the server where it is, and had
 *		deleted rows there before it was committed; InvalidTransactionId if none
 *		has, or all snapshots show it.
 *
 * Takes no lock on the table.
 */
TransactionId
shard_rows_gone_xid(Oid shard)
{
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];
	TransactionId xid;

	if (!find_row("moved_shards", shard, values, isnull, &xid) ||
		!DatumGetBool(values[1]) || !TransactionIdIsNormal(xid))
		return InvalidTransactionId;
	return xid;
}

/*
 * shard_get_generation
 *		Since when the open shards of a logical table are.  False if nobody has
 *		noted it.
 */
bool
shard_get_generation(Oid logical, TimestampTz *began)
{
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];

	if (!find_row("generations", logical, values, isnull, NULL))
		return false;
	*began = DatumGetTimestampTz(values[1]);
	return true;
}

/*
 * shard_get_run
 *		How the last maintenance of a logical table went.
 */
void
shard_get_run(Oid logical, ShardRun *run)
{
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];

	memset(run, 0, sizeof(ShardRun));
	if (!find_row("maintenance_runs", logical, values, isnull, NULL))
		return;
	run->is_confirmed = DatumGetBool(values[1]);
	run->last_run = isnull[2] ? 0 : DatumGetTimestampTz(values[2]);
	run->failures = DatumGetInt32(values[3]);
}
