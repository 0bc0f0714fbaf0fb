/*-------------------------------------------------------------------------
 *
 * closed.c
 *	  Which shards are closed.
 *
 * That is the one thing about shards that no system catalog tells.  It is in
 * a table of the extension, which is read like a catalog: the latest that is
 * committed counts, whatever the transaction's snapshot is.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * shard_open_closed
 *		Open the table of closed shards.  NULL if there is none: the extension
 *		is just being created or dropped.
 */
Relation
shard_open_closed(LOCKMODE mode)
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
	Relation	closed_shards = shard_open_closed(AccessShareLock);
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
 * shard_read_closed
 *		The OIDs of all closed shards, of whatever table; *n becomes their
 *		number.  The array is allocated in the current memory context.
 *
 * As shard_is_closed().
 */
Oid *
shard_read_closed(int *n)
{
	Relation	closed_shards = shard_open_closed(AccessShareLock);
	int			size = 64;
	Oid		   *result = palloc(sizeof(Oid) * size);
	SysScanDesc scan;
	HeapTuple	tuple;

	*n = 0;
	if (closed_shards == NULL)
		return result;
	scan = systable_beginscan(closed_shards, InvalidOid, false, SnapshotSelf,
							  0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		if (*n == size)
			result = repalloc(result, sizeof(Oid) * (size *= 2));
		result[(*n)++] =
			DatumGetObjectId(heap_getattr(tuple, 1,
										  RelationGetDescr(closed_shards),
										  &isnull));
	}
	systable_endscan(scan);
	relation_close(closed_shards, AccessShareLock);
	return result;
}
