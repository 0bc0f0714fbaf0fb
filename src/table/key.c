/*-------------------------------------------------------------------------
 *
 * key.c
 *	  The keys of tables with route "hash".
 *
 * A row's shard follows from the hash of its key, computed as native hash
 * partitioning computes it: the same functions, the same seed, the same
 * treatment of nulls.  So a partition of a natively partitioned table can
 * become a shard, and the planner can join the two kinds shard by shard.
 *
 * A key is described by core's PartitionKey, so that core's functions can be
 * called for it.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/hash.h"
#include "access/stratnum.h"
#include "partitioning/partbounds.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

/*
 * shard_hash_function
 *		The function that hashes values of a type, or InvalidOid.  Sets
 *		*opfamily and *opcintype to its operator family and input type.
 */
Oid
shard_hash_function(Oid type, Oid *opfamily, Oid *opcintype)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_HASH_OPFAMILY);

	if (!OidIsValid(entry->hash_opf))
		return InvalidOid;
	*opfamily = entry->hash_opf;
	*opcintype = entry->hash_opintype;
	return get_opfamily_proc(*opfamily, *opcintype, *opcintype,
							 HASHEXTENDED_PROC);
}

/*
 * shard_report_unhashable
 *		Raise ERRCODE_UNDEFINED_FUNCTION because values of the type cannot be
 *		hashed.
 */
void
shard_report_unhashable(Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("could not identify an extended hash function for type %s",
					format_type_be(type))));
}

/*
 * shard_can_hash_with
 *		Would in_hash() hash a value of this type as it hashes equal values of
 *		other types with this hash operator family?
 */
bool
shard_can_hash_with(Oid opfamily, Oid type)
{
	Oid			own;
	Oid			opcintype;

	return OidIsValid(shard_hash_function(type, &own, &opcintype)) &&
		own == opfamily;
}

/*
 * shard_key_create
 *		The key of a logical table, from the value of its option "key".
 *
 * Allocated in the current memory context.  Raises ERRCODE_UNDEFINED_COLUMN
 * and the like if the key cannot be one, or returns NULL if missing_ok.
 */
PartitionKey
shard_key_create(Oid relid, const char *columns, bool missing_ok)
{
	PartitionKey key;
	List	   *names = NIL;
	ListCell   *lc;
	int			n;

	if (columns == NULL)
	{
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("foreign table \"%s\" has route \"hash\" but no key",
						get_rel_name(relid)),
				 errhint("Name the columns of the key with option \"key\".")));
	}
	/* The validator has seen that this can be split. */
	(void) SplitIdentifierString(pstrdup(columns), ',', &names);
	n = list_length(names);

	key = palloc0(sizeof(PartitionKeyData));
	key->strategy = PARTITION_STRATEGY_HASH;
	key->partnatts = n;
	key->partattrs = palloc(sizeof(AttrNumber) * n);
	key->partopfamily = palloc(sizeof(Oid) * n);
	key->partopcintype = palloc(sizeof(Oid) * n);
	key->partsupfunc = palloc0(sizeof(FmgrInfo) * n);
	key->partcollation = palloc(sizeof(Oid) * n);
	key->parttypid = palloc(sizeof(Oid) * n);
	key->parttypmod = palloc(sizeof(int32) * n);
	key->parttyplen = palloc(sizeof(int16) * n);
	key->parttypbyval = palloc(sizeof(bool) * n);
	key->parttypalign = palloc(sizeof(char) * n);
	key->parttypcoll = palloc(sizeof(Oid) * n);

	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		int			i = foreach_current_index(lc);
		HeapTuple	tuple = SearchSysCacheAttName(relid, name);
		Form_pg_attribute att;
		Oid			function;

		if (!HeapTupleIsValid(tuple))
		{
			if (missing_ok)
				return NULL;
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of the key of foreign table \"%s\" does not exist",
							name, get_rel_name(relid)),
					 errhint("Name the columns of the key with ALTER FOREIGN TABLE ... OPTIONS (SET key ...).")));
		}
		att = (Form_pg_attribute) GETSTRUCT(tuple);
		function = att->attnum < 0 || att->attgenerated ? InvalidOid :
			shard_hash_function(att->atttypid, &key->partopfamily[i],
								&key->partopcintype[i]);
		if (!OidIsValid(function))
		{
			ReleaseSysCache(tuple);
			if (missing_ok)
				return NULL;
			if (att->attnum < 0 || att->attgenerated)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						 errmsg("cannot use column \"%s\" in a key", name),
						 errdetail("A key is made of columns that are neither system columns nor generated.")));
			shard_report_unhashable(att->atttypid);
		}
		fmgr_info(function, &key->partsupfunc[i]);
		key->partattrs[i] = att->attnum;
		key->partcollation[i] = key->parttypcoll[i] = att->attcollation;
		key->parttypid[i] = att->atttypid;
		key->parttypmod[i] = att->atttypmod;
		get_typlenbyvalalign(key->parttypid[i], &key->parttyplen[i],
							 &key->parttypbyval[i], &key->parttypalign[i]);
		ReleaseSysCache(tuple);
	}
	list_free(names);
	return key;
}

/*
 * shard_report_bad_key
 *		Raise the error that explains why a table with route "hash" has no key:
 *		see shard_key_create().
 */
void
shard_report_bad_key(const ShardTable *table)
{
	ShardOptions options;

	shard_get_options(table->relid, &options);
	(void) shard_key_create(table->relid, options.key, false);
	elog(ERROR, "key of foreign table %u has changed", table->relid);
}

/*
 * shard_key_columns
 *		The names of the key's columns, quoted and separated by commas.
 *
 * Allocated in the current memory context.
 */
char *
shard_key_columns(PartitionKey key, Oid relid)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < key->partnatts; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(get_attname(relid, key->partattrs[i],
													  false)));
	return buf.data;
}

/*
 * shard_key_hash
 *		The hash of the key of a row in the logical table's layout.
 */
uint64
shard_key_hash(PartitionKey key, TupleTableSlot *row)
{
	Datum		values[PARTITION_MAX_KEYS];
	bool		nulls[PARTITION_MAX_KEYS];

	for (int i = 0; i < key->partnatts; i++)
		values[i] = slot_getattr(row, key->partattrs[i], &nulls[i]);
	return compute_partition_hash_value(key->partnatts, key->partsupfunc,
										key->partcollation, values, nulls);
}

/*
 * shard_hash_functions
 *		Look up the functions that hash values of these types in a key, for each
 *		of which shard_can_hash_with() is true.
 *
 * What they keep is allocated in the current memory context.
 */
void
shard_hash_functions(const Oid *types, int n, FmgrInfo *functions)
{
	for (int i = 0; i < n; i++)
	{
		Oid			opfamily;
		Oid			opcintype;

		fmgr_info(shard_hash_function(types[i], &opfamily, &opcintype),
				  &functions[i]);
	}
}

/*
 * shard_key_hash_values
 *		The hash of a key whose columns have these values, which may be of
 *		other types than the columns.
 *
 * For each, shard_can_hash_with() is true.
 */
uint64
shard_key_hash_values(PartitionKey key, const Oid *types, Datum *values,
					  bool *nulls)
{
	FmgrInfo	functions[PARTITION_MAX_KEYS];

	if (memcmp(types, key->parttypid, sizeof(Oid) * key->partnatts) == 0)
		return compute_partition_hash_value(key->partnatts, key->partsupfunc,
											key->partcollation, values, nulls);
	shard_hash_functions(types, key->partnatts, functions);
	return compute_partition_hash_value(key->partnatts, functions,
										key->partcollation, values, nulls);
}

/*
 * shard_key_values_equal
 *		Are two values, not null, of the key's column number "i" equal as
 *		hashing sees it?
 */
bool
shard_key_values_equal(PartitionKey key, int i, Datum a, Datum b)
{
	Oid			equality = get_opfamily_member(key->partopfamily[i],
											   key->partopcintype[i],
											   key->partopcintype[i],
											   HTEqualStrategyNumber);

	return OidIsValid(equality) &&
		DatumGetBool(OidFunctionCall2Coll(get_opcode(equality),
										  key->partcollation[i], a, b));
}

/*
 * shard_key_in_index
 *		Do the columns of a unique index of a shard include the key, and does
 *		the index agree with the key on which values are equal?  If not, rows
 *		that are duplicates to the index can be in different shards.
 *
 * "attrs" are the numbers of the index's columns in the shard.
 */
bool
shard_key_in_index(PartitionKey key, Oid relid, Oid shard, int nattrs,
				   const int16 *attrs, const Oid *opfamilies,
				   const Oid *opcintypes, const Oid *collations)
{
	for (int i = 0; i < key->partnatts; i++)
	{
		char	   *name = get_attname(relid, key->partattrs[i], true);
		AttrNumber	attno = name == NULL ? InvalidAttrNumber :
			get_attnum(shard, name);
		bool		found = false;

		for (int j = 0; j < nattrs && attno != InvalidAttrNumber; j++)
		{
			Oid			equality;

			if (attrs[j] != attno)
				continue;
			equality = get_opfamily_member(opfamilies[j], opcintypes[j],
										   opcintypes[j],
										   BTEqualStrategyNumber);
			found |= op_in_opfamily(equality, key->partopfamily[i]) &&
				(collations[j] == key->partcollation[i] ||
				 !OidIsValid(collations[j]) ||
				 (get_collation_isdeterministic(collations[j]) &&
				  get_collation_isdeterministic(key->partcollation[i])));
		}
		if (!found)
			return false;
	}
	return true;
}
