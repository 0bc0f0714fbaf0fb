/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *	  The life of a shard in time: closing and opening it, and new generations of
 *	  shards.
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
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_close_shard);
PG_FUNCTION_INFO_V1(shard_close_node);
PG_FUNCTION_INFO_V1(shard_open_shard);
PG_FUNCTION_INFO_V1(shard_rotate_sql);

/*
 * Run a command on the table of closed shards, with a shard as its parameter.
 * Returns the number of rows.
 */
static uint64
execute_on_closed_shards(const char *sql, Oid shard)
{
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(shard);

	return shard_write_ledger("closed_shards", sql, 1, &type, &value, NULL);
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
									" WHERE shard = $1",
									shard) > 0;
}

/*
 * shard_forget_closed
 *		Have a table not be closed any more: it is about to be dropped, or has
 *		just been created, and one with its OID was closed.
 */
void
shard_forget_closed(Oid shard)
{
	if (shard_is_closed(shard))
		set_closed(shard, false);
}

/*
 * shard_note_moved
 *		Note that a new shard has taken the place of an old one, which is about
 *		to be dropped: it is closed if that is, and snapshots that do not show
 *		this transaction are not to be used to read it.
 *
 * "rows_gone" says that rows of the new one have been deleted already, which an
 * older snapshot of the server that it is on still shows.
 */
void
shard_note_moved(Oid old_shard, Oid new_shard, bool rows_gone)
{
	Oid			types[] = {REGCLASSOID, REGCLASSOID, BOOLOID};
	Datum		values[] = {ObjectIdGetDatum(old_shard), ObjectIdGetDatum(new_shard), BoolGetDatum(rows_gone)};

	if (shard_is_closed(old_shard))
	{
		set_closed(new_shard, true);
		set_closed(old_shard, false);
	}
	/* One that has been dropped may have had its OID; forget these as well. */
	shard_write_ledger("moved_shards",
					   "DELETE FROM shard_fdw.moved_shards WHERE shard IN ($1, $2) OR ctid = ANY"
					   " (ARRAY(SELECT s.ctid FROM shard_fdw.moved_shards s"
					   " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.shard)"
					   " FOR UPDATE SKIP LOCKED))",
					   2, types, values, NULL);
	shard_write_ledger("moved_shards",
					   "INSERT INTO shard_fdw.moved_shards (shard, rows_gone) VALUES ($2, $3)",
					   3, types, values, NULL);
}

/*
 * shard_note_generation
 *		Note that the open shards of a logical table are a new generation.
 *		Those of which that is known already only if "is_new".
 */
void
shard_note_generation(Oid logical, bool is_new)
{
	Oid			types[] = {REGCLASSOID, BOOLOID};
	Datum		values[] = {ObjectIdGetDatum(logical), BoolGetDatum(is_new)};

	shard_write_ledger("generations",
					   "INSERT INTO shard_fdw.generations AS g (logical) VALUES ($1)"
					   " ON CONFLICT (logical) DO UPDATE SET began = EXCLUDED.began WHERE $2",
					   2, types, values, NULL);
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
	execute_on_closed_shards("DELETE FROM shard_fdw.closed_shards WHERE ctid = ANY"
							 " (ARRAY(SELECT s.ctid FROM shard_fdw.closed_shards s"
							 " WHERE s.shard <> $1"
							 " AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.shard)"
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
 * Would closing a shard of a hash table leave rows without a shard that takes
 * them?  Then report that, as an error or a warning.
 */
static bool
report_place(const ShardTable *table, Oid shard, int elevel)
{
	int			ordinal = shard_table_find(table, shard);

	if (table->route != SHARD_ROUTE_HASH || ordinal < 0 ||
		!table->members[ordinal].is_open ||
		table->members[ordinal].modulus == 0 || is_place_taken(table, ordinal))
		return false;
	ereport(elevel,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot close shard \"%s\" of foreign table \"%s\"",
					get_rel_name(shard), get_rel_name(table->relid)),
			 errdetail("No other open shard takes the rows whose key has the hash remainder %d of %d.",
					   table->members[ordinal].remainder,
					   table->members[ordinal].modulus),
			 errhint("Create a shard with the same in_hash() constraint and attach it with ALTER TABLE ... INHERIT, or seal this one with SELECT shard_fdw.seal().")));
	return true;
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
 * Close a shard, if it is not.  Returns whether it was open.
 */
static bool
close_shard(Oid shard, List *parents)
{
	ListCell   *lc;

	forget_dropped();
	if (!set_closed(shard, true))
		return false;
	foreach(lc, parents)
	{
		if (shard_table_get(lfirst_oid(lc))->nopen == 0)
			ereport(WARNING,
					(errmsg("foreign table \"%s\" has no open shard left",
							get_rel_name(lfirst_oid(lc))),
					 errdetail("It takes no inserts."),
					 errhint("Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT shard_fdw.open_shard().")));
	}
	return true;
}

/*
 * shard_close
 *		Have no route lead to the shard any more.  Returns whether any did.
 *
 * Waits for nobody who uses the shard, nor does anybody wait.  Raises
 * ERRCODE_WRONG_OBJECT_TYPE if the table is no shard,
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it is the only one of a hash
 * table that takes certain rows.
 */
bool
shard_close(Oid shard)
{
	List	   *parents = lock_shard_and_parents(shard);
	ListCell   *lc;

	foreach(lc, parents)
		(void) report_place(shard_table_get(lfirst_oid(lc)), shard, ERROR);
	return close_shard(shard, parents);
}

/*
 * shard_close_shard(shard regclass)
 *		SQL function close_shard(): see shard_close().
 *
 * Strict.
 */
Datum
shard_close_shard(PG_FUNCTION_ARGS)
{
	Oid			shard = PG_GETARG_OID(0);

	PreventCommandIfReadOnly("close_shard()");
	if (!shard_close(shard))
		ereport(NOTICE,
				(errmsg("shard \"%s\" is already closed, skipping",
						get_rel_name(shard))));
	PG_RETURN_VOID();
}

/*
 * The foreign tables of a server that are shards of the caller's, by OID.
 */
static List *
own_shards_on(Oid server)
{
	Relation	catalog = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	List	   *result = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_table table = (Form_pg_foreign_table) GETSTRUCT(tuple);

		if (table->ftserver == server &&
			shard_class_ownercheck(table->ftrelid, GetUserId()) &&
			shard_logical_parents(table->ftrelid) != NIL)
			result = lappend_oid(result, table->ftrelid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	list_sort(result, list_oid_cmp);
	return result;
}

/*
 * shard_close_node(node name)
 *		SQL function close_node(): closes the caller's shards that are on a
 *		server, and returns those that were open.
 *
 * Strict.  Does not ask the server, and waits for nobody, as close_shard().
 * Shards of hash tables that have to stay open get a warning.  Raises
 * ERRCODE_UNDEFINED_OBJECT if there is no such server.
 */
Datum
shard_close_node(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			server = get_foreign_server_oid(NameStr(*PG_GETARG_NAME(0)),
												false);
	ListCell   *lc;

	PreventCommandIfReadOnly("close_node()");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, own_shards_on(server))
	{
		Oid			shard = lfirst_oid(lc);
		List	   *parents = lock_shard_and_parents(shard);
		bool		stays = false;
		Datum		value = ObjectIdGetDatum(shard);
		bool		isnull = false;
		ListCell   *lc2;

		foreach(lc2, parents)
			stays |= report_place(shard_table_get(lfirst_oid(lc2)), shard,
								  WARNING);
		if (!stays && close_shard(shard, parents))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
								 &isnull);
	}
	return (Datum) 0;
}

/*
 * shard_open_shard(shard regclass)
 *		SQL function open_shard(): a closed shard gets rows again.
 *
 * Strict.  The range of its times is dropped, which takes a lock as
 * shard_lock_patiently() does, with its errors.  Raises
 * ERRCODE_WRONG_OBJECT_TYPE if the table is no shard, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it.
 */
Datum
shard_open_shard(PG_FUNCTION_ARGS)
{
	Oid			shard = PG_GETARG_OID(0);

	PreventCommandIfReadOnly("open_shard()");
	lock_shard_and_parents(shard);
	SPI_connect();
	shard_drop_range(shard);
	SPI_finish();
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

/*
 * shard_referenced_tables
 *		The tables that foreign keys of a relation point to, itself left out.
 *		The list is in the current memory context.
 */
List *
shard_referenced_tables(Oid relid)
{
	List	   *result = NIL;
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);

		if (con->contype == CONSTRAINT_FOREIGN && con->confrelid != relid)
			result = list_append_unique_oid(result, con->confrelid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * shard_rotate
 *		Create a new generation of shards, as many as "count" says, or as are
 *		open if that is 0, and close those that are open.
 *
 * The caller owns the logical table.  Returns the new shards, in the current
 * memory context.  Raises ERRCODE_FEATURE_NOT_SUPPORTED for a hash table,
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if there is no open shard to say
 * how many there are to be, and what creating shards raises.
 */
List *
shard_rotate(Oid logical, int count)
{
	ShardTable *table;
	List	   *old = NIL;
	List	   *servers = NIL;
	bool		is_remote = false;
	List	   *result;
	Oid			model;
	ListCell   *lc;

	/* Others that create shards, or rotate, wait for us; inserts do not. */
	LockRelationOid(logical, ShareUpdateExclusiveLock);
	shard_check_owned(logical);
	table = shard_table_get(logical);
	if (table->route == SHARD_ROUTE_HASH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot rotate foreign table \"%s\"",
						get_rel_name(logical)),
				 errdetail("Its route is \"hash\": each generation of shards could hold the same keys once more."),
				 errhint("Use route \"session\" or \"round_robin\".")));
	if (count == 0)
		count = table->nopen;
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no open shards",
						get_rel_name(logical)),
				 errhint("Say how many shards to create.")));
	for (int i = 0; i < table->nopen; i++)
	{
		Oid			shard = table->members[table->open[i]].relid;
		bool		is_on_node = shard_is_on_node(shard);

		old = lappend_oid(old, shard);
		servers = lappend_oid(servers, is_on_node ?
							  GetForeignServerIdByRelId(shard) : InvalidOid);
		is_remote |= is_on_node;
	}

	/*
	 * Copying a foreign key locks the table that it points to; nobody should
	 * have to wait behind us while we wait for that.
	 */
	model = shard_model_shard(logical);
	if (is_remote && !OidIsValid(model))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot rotate foreign table \"%s\"",
						get_rel_name(logical)),
				 errdetail("All of its shards are on other servers, and none is here whose indexes and keys new ones could get."),
				 errhint("Call create_shards() with a table to be copied and parameter \"node\", and close the old shards with SELECT shard_fdw.close_shard().")));
	if (OidIsValid(model))
	{
		List	   *referenced = shard_referenced_tables(model);

		foreach(lc, referenced)
			shard_lock_patiently(lfirst_oid(lc), ShareRowExclusiveLock);
	}

	/*
	 * Nobody sees either before we commit, so the order is that in which the
	 * new shards can take over the slots of the old ones.
	 */
	foreach(lc, old)
		set_closed(lfirst_oid(lc), true);
	result = shard_create(logical, count, model, InvalidOid,
						  is_remote ? servers : NIL, true);
	shard_note_generation(logical, true);
	forget_dropped();
	return result;
}

/*
 * shard_rotate_sql(logical regclass, count int)
 *		SQL function rotate(): see shard_rotate().
 *
 * Raises, besides what that does, ERRCODE_INSUFFICIENT_PRIVILEGE unless the
 * caller owns the logical table, and ERRCODE_INVALID_PARAMETER_VALUE for a
 * count below 1.
 */
Datum
shard_rotate_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			count = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	ListCell   *lc;

	shard_check_count(fcinfo, "rotate()", true);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, shard_rotate(PG_GETARG_OID(0), count))
	{
		Datum		value = ObjectIdGetDatum(lfirst_oid(lc));
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
							 &isnull);
	}
	return (Datum) 0;
}
