/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *	  The life of a shard in time: closing and opening it.
 *
 * A closed shard gets no rows by any route, but its rows can be changed.
 * Sealing a shard does more and costs more: the CHECK constraint that does it
 * takes a lock that waits for everybody who uses the shard.  A shard is
 * closed by a row in the table closed_shards instead, and an invalidation of
 * the shard's relation cache entry takes that to all sessions.
 *
 * A backend reads the table when it builds its entry of the logical table, as
 * it reads the catalogs: by the latest that is committed, not by the
 * transaction's snapshot.  So a transaction with an old snapshot sees what is
 * closed as well, and a serializable one takes no predicate locks on rows
 * that have nothing to do with it.  For that, rows are inserted and deleted,
 * but never updated.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_fdw.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_close_shard);
PG_FUNCTION_INFO_V1(shard_open_shard);

/*
 * Open the table of closed shards.  NULL if there is none: the extension is
 * just being created or dropped.
 */
static Relation
open_closed_shards(LOCKMODE mode)
{
	Oid			schema = get_namespace_oid("shard_fdw", true);
	Oid			relid = OidIsValid(schema) ?
		get_relname_relid("closed_shards", schema) : InvalidOid;
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
 * shard_is_closed
 *		Is the shard closed, according to the latest that is committed and to
 *		this transaction?
 *
 * Takes no lock on the shard.
 */
bool
shard_is_closed(Oid shard)
{
	Relation	closed_shards = open_closed_shards(AccessShareLock);
	Oid			index;
	SysScanDesc scan;
	ScanKeyData key;
	bool		result;

	if (closed_shards == NULL)
		return false;
	index = get_relname_relid("closed_shards_pkey",
							  RelationGetNamespace(closed_shards));
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(shard));
	scan = systable_beginscan(closed_shards, index, OidIsValid(index),
							  SnapshotSelf, 1, &key);
	result = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	relation_close(closed_shards, AccessShareLock);
	return result;
}

/*
 * Run a command on the table of closed shards, as its owner, with a shard as
 * its parameter.  Returns the number of rows.
 */
static uint64
execute_on_closed_shards(const char *sql, Oid shard)
{
	Relation	closed_shards = open_closed_shards(RowExclusiveLock);
	Oid			types[] = {REGCLASSOID};
	Datum		values[] = {ObjectIdGetDatum(shard)};
	Oid			userid;
	int			sec_context;
	int			rc;
	uint64		result;

	if (closed_shards == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" does not exist",
						"shard_fdw.closed_shards")));
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(closed_shards->rd_rel->relowner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	rc = SPI_execute_with_args(sql, 1, types, values, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s",
			 SPI_result_code_string(rc));
	result = SPI_processed;
	SPI_finish();
	SetUserIdAndSecContext(userid, sec_context);
	relation_close(closed_shards, NoLock);
	return result;
}

/*
 * Note that the shard is closed, or that it is open.  Returns false if it
 * has been so before.
 *
 * All sessions will look again at their next statement.  The invalidation
 * comes before the command, which ends with making it known to ourselves.
 */
static bool
set_closed(Oid shard, bool closed)
{
	CacheInvalidateRelcacheByRelid(shard);
	return execute_on_closed_shards(closed ?
									"INSERT INTO shard_fdw.closed_shards (shard) VALUES ($1)"
									" ON CONFLICT DO NOTHING" :
									"DELETE FROM shard_fdw.closed_shards"
									" WHERE shard OPERATOR(pg_catalog.=) $1",
									shard) > 0;
}

/*
 * shard_forget_closed
 *		Have a table that has just been created not be closed because one with
 *		its OID was, which has been dropped.
 */
void
shard_forget_closed(Oid shard)
{
	if (shard_is_closed(shard))
		set_closed(shard, false);
}

/*
 * Forget shards that have been dropped, unless somebody else is at it.
 */
static void
forget_dropped(void)
{
	/* Rows that somebody else has deleted meanwhile would be an error. */
	if (IsolationUsesXactSnapshot())
		return;
	execute_on_closed_shards("DELETE FROM shard_fdw.closed_shards WHERE ctid OPERATOR(pg_catalog.=) ANY"
							 " (ARRAY(SELECT s.ctid FROM shard_fdw.closed_shards s"
							 " WHERE s.shard OPERATOR(pg_catalog.<>) $1"
							 " AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) s.shard)"
							 " FOR UPDATE SKIP LOCKED))",
							 InvalidOid);
}

/*
 * Do other open shards of a hash table hold all the hashes that this one
 * holds?
 */
static bool
is_place_taken(const ShardTable *table, int ordinal)
{
	const ShardMember *member = &table->members[ordinal];
	int			greatest = table->nplaces == 0 ? 0 :
		table->places[table->nplaces - 1].modulus;
	bool		result = true;

	for (int r = member->remainder; r < greatest && result;
		 r += member->modulus)
	{
		CHECK_FOR_INTERRUPTS();
		result = false;
		for (int i = 0; i < table->nplaces && !result; i++)
		{
			const ShardPlace *place = &table->places[i];

			result = place->ordinal != ordinal &&
				table->members[place->ordinal].is_open &&
				greatest % place->modulus == 0 &&
				r % place->modulus == place->remainder;
		}
	}
	return result;
}

/*
 * Raise an error if closing a shard of a hash table would leave rows without
 * a shard that takes them.
 */
static void
check_place(const ShardTable *table, Oid shard)
{
	int			ordinal = shard_table_find(table, shard);

	if (table->route != SHARD_ROUTE_HASH || ordinal < 0 ||
		!table->members[ordinal].is_open ||
		table->members[ordinal].modulus == 0 || is_place_taken(table, ordinal))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot close shard \"%s\" of foreign table \"%s\"",
					get_rel_name(shard), get_rel_name(table->relid)),
			 errdetail("No other open shard takes the rows whose key has the hash remainder %d of %d.",
					   table->members[ordinal].remainder,
					   table->members[ordinal].modulus),
			 errhint("Create a shard with the same in_hash() constraint and attach it with ALTER TABLE ... INHERIT, or seal this one with SELECT shard_fdw.seal().")));
}

/*
 * Lock the logical tables that a shard belongs to, so that it stays a shard;
 * hash tables against others who close their shards or create some.
 */
static void
lock_parents(List *parents)
{
	ListCell   *lc;

	foreach(lc, parents)
	{
		Oid			logical = lfirst_oid(lc);

		LockRelationOid(logical, AccessShareLock);
		if (shard_is_logical(logical) &&
			shard_table_get(logical)->route == SHARD_ROUTE_HASH)
			LockRelationOid(logical, ShareUpdateExclusiveLock);
	}
}

/*
 * Check that the caller may close or open the shard, and lock it against
 * being dropped, and its logical tables.  Returns these.
 */
static List *
lock_shard_and_parents(Oid shard)
{
	shard_check_to_alter(shard, false);
	lock_parents(shard_logical_parents(shard));
	LockRelationOid(shard, AccessShareLock);
	/* It may have changed. */
	shard_check_to_alter(shard, false);
	return shard_logical_parents(shard);
}

/*
 * shard_close_shard(shard regclass)
 *		SQL function close_shard(): no route leads to the shard any more.
 *
 * Strict.  Waits for nobody who uses the shard, nor does anybody wait.
 * Raises ERRCODE_WRONG_OBJECT_TYPE if the table is no shard,
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it is the only one of a hash
 * table that takes certain rows.
 */
Datum
shard_close_shard(PG_FUNCTION_ARGS)
{
	Oid			shard = PG_GETARG_OID(0);
	List	   *parents;
	ListCell   *lc;

	PreventCommandIfReadOnly("close_shard()");
	parents = lock_shard_and_parents(shard);
	foreach(lc, parents)
		check_place(shard_table_get(lfirst_oid(lc)), shard);
	forget_dropped();
	if (!set_closed(shard, true))
	{
		ereport(NOTICE,
				(errmsg("shard \"%s\" is closed already, skipping",
						get_rel_name(shard))));
		PG_RETURN_VOID();
	}
	foreach(lc, parents)
	{
		if (shard_table_get(lfirst_oid(lc))->nopen == 0)
			ereport(WARNING,
					(errmsg("foreign table \"%s\" has no open shard left",
							get_rel_name(lfirst_oid(lc))),
					 errdetail("It takes no inserts."),
					 errhint("Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT shard_fdw.open_shard().")));
	}
	PG_RETURN_VOID();
}

/*
 * shard_open_shard(shard regclass)
 *		SQL function open_shard(): a closed shard gets rows again.
 *
 * Strict.  Raises ERRCODE_WRONG_OBJECT_TYPE if the table is no shard, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it.
 */
Datum
shard_open_shard(PG_FUNCTION_ARGS)
{
	Oid			shard = PG_GETARG_OID(0);

	PreventCommandIfReadOnly("open_shard()");
	lock_shard_and_parents(shard);
	if (!set_closed(shard, false))
		ereport(NOTICE,
				(errmsg("shard \"%s\" is not closed, skipping",
						get_rel_name(shard))));
	if (shard_seal_constraint(shard) != NULL)
		ereport(WARNING,
				(errmsg("shard \"%s\" is sealed", get_rel_name(shard)),
				 errdetail("It takes no inserts."),
				 errhint("Lift the seal with SELECT shard_fdw.unseal().")));
	PG_RETURN_VOID();
}
