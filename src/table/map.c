/*-------------------------------------------------------------------------
 *
 * map.c
 *	  How the columns of a logical table map to those of a shard.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/attmap.h"
#include "access/htup_details.h"
#include "utils/syscache.h"

/*
 * shard_map_by_name
 *		For every column of the shard the column of the logical table, or 0
 *		if there is none.
 */
AttrMap *
shard_map_by_name(Relation logical, Relation shard)
{
	/* Every column of the parent is in the child, not the reverse. */
	AttrMap    *back = shard_attrmap_by_name(RelationGetDescr(shard),
											 RelationGetDescr(logical));
	AttrMap    *map = make_attrmap(RelationGetDescr(shard)->natts);

	for (int i = 0; i < back->maplen; i++)
		if (back->attnums[i] > 0)
			map->attnums[back->attnums[i] - 1] = i + 1;
	free_attrmap(back);
	return map;
}

/*
 * shard_member_map
 *		How to make a row of the shard from a row of the logical table: for
 *		every column of the shard the column of the logical table, or 0 if
 *		there is none.  NULL if rows fit as they are.
 *
 * For that, dropped columns must have the same width and alignment, too.  New
 * rows have nulls there, but rows from before the column was dropped do not,
 * and core looks for the columns behind it by the descriptor of either table.
 *
 * Both relations are open and locked.  The result belongs to the cache and
 * is gone when the table's entry is rebuilt; the caller copies it.
 */
const AttrMap *
shard_member_map(ShardMember *member, ShardTable *table,
				 Relation logical, Relation shard)
{
	TupleDesc	from = RelationGetDescr(logical);
	TupleDesc	to = RelationGetDescr(shard);
	bool		same = from->natts == to->natts;

	if (likely(member->map_known))
		return member->map;

	for (int i = 0; same && i < from->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(from, i);
		Form_pg_attribute b = TupleDescAttr(to, i);

		same = a->attisdropped == b->attisdropped &&
			(a->attisdropped || strcmp(NameStr(a->attname),
									   NameStr(b->attname)) == 0) &&
			a->attlen == b->attlen && a->attbyval == b->attbyval &&
			a->attalign == b->attalign;
	}

	if (!same)
	{
		MemoryContext oldcontext;

		oldcontext = MemoryContextSwitchTo(table->context);
		member->map = shard_map_by_name(logical, shard);
		MemoryContextSwitchTo(oldcontext);
	}
	member->map_known = true;
	return member->map;
}

/*
 * shard_has_columns
 *		Does the relation have a column that has not been dropped?
 */
bool
shard_has_columns(Oid relid)
{
	int			natts = 0;
	bool		result = false;
	HeapTuple	tuple;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (HeapTupleIsValid(tuple))
	{
		natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	for (int attno = 1; attno <= natts && !result; attno++)
	{
		tuple = SearchSysCacheAttNum(relid, attno);
		if (HeapTupleIsValid(tuple))
		{
			result = true;
			ReleaseSysCache(tuple);
		}
	}
	return result;
}
