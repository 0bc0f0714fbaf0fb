/*-------------------------------------------------------------------------
 *
 * hash.c
 *	  The hash route: keys, the shards' placement, and in_hash().
 *
 * A row's shard follows from the hash of its key, computed as native hash
 * partitioning computes it: the same functions, the same seed, the same
 * treatment of nulls.  So a partition of a natively partitioned table can
 * become a shard, and the planner can join the two kinds shard by shard.
 *
 * What a shard may hold is declared by a CHECK constraint that calls
 * in_hash().  The constraint keeps other rows out, whoever writes them; the
 * router and the planner read from it where rows are.
 *
 * Core's PartitionKey describes the key, for core's functions take it.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_fdw.h"

#include "access/hash.h"
#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "partitioning/partbounds.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(shard_in_hash);

/* What in_hash() remembers between calls of one expression. */
typedef struct HashFunctions
{
	int			nkeys;
	FmgrInfo   *functions;
	Oid		   *collations;
} HashFunctions;

/*
 * The function that hashes values of a type, or InvalidOid.  What belongs to
 * it becomes *opfamily and *opcintype.
 */
static Oid
hash_function(Oid type, Oid *opfamily, Oid *opcintype)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_HASH_OPFAMILY);

	if (!OidIsValid(entry->hash_opf))
		return InvalidOid;
	*opfamily = entry->hash_opf;
	*opcintype = entry->hash_opintype;
	return get_opfamily_proc(*opfamily, *opcintype, *opcintype,
							 HASHEXTENDED_PROC);
}

static void
report_unhashable(Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("could not identify an extended hash function for type %s",
					format_type_be(type))));
}

/*
 * shard_in_hash(modulus int, remainder int, VARIADIC key "any")
 *		SQL function in_hash(): does the hash of the key, modulo "modulus",
 *		equal "remainder"?
 *
 * Returns bool, never null; nulls in the key count as in native hash
 * partitioning.  Raises ERRCODE_INVALID_PARAMETER_VALUE for a modulus or a
 * remainder that cannot be, ERRCODE_UNDEFINED_FUNCTION for a type that
 * cannot be hashed, ERRCODE_FEATURE_NOT_SUPPORTED for VARIADIC with an array.
 */
Datum
shard_in_hash(PG_FUNCTION_ARGS)
{
	HashFunctions *cache = fcinfo->flinfo->fn_extra;
	int			nkeys = PG_NARGS() - 2;
	Datum		values[PARTITION_MAX_KEYS];
	bool		nulls[PARTITION_MAX_KEYS];
	int			modulus;
	int			remainder;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("modulus and remainder must not be null")));
	modulus = PG_GETARG_INT32(0);
	remainder = PG_GETARG_INT32(1);
	if (modulus <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("modulus must be greater than zero")));
	if (modulus > SHARD_MAX_SHARDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("modulus must not be greater than %d",
						SHARD_MAX_SHARDS)));
	if (remainder < 0 || remainder >= modulus)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("remainder must be at least zero and less than the modulus")));

	if (cache == NULL)
	{
		Node	   *expr = fcinfo->flinfo->fn_expr;
		List	   *args;
		MemoryContext oldcontext;

		if (get_fn_expr_variadic(fcinfo->flinfo))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("in_hash() does not take VARIADIC with an array"),
					 errhint("Pass the columns of the key one by one.")));
		if (nkeys > PARTITION_MAX_KEYS)
			ereport(ERROR,
					(errcode(ERRCODE_TOO_MANY_COLUMNS),
					 errmsg("a key cannot have more than %d columns",
							PARTITION_MAX_KEYS)));
		if (expr == NULL || !IsA(expr, FuncExpr))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine the types of the key")));
		args = ((FuncExpr *) expr)->args;

		oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		cache = palloc(sizeof(HashFunctions));
		cache->nkeys = nkeys;
		cache->functions = palloc0(sizeof(FmgrInfo) * nkeys);
		cache->collations = palloc(sizeof(Oid) * nkeys);
		for (int i = 0; i < nkeys; i++)
		{
			Node	   *arg = list_nth(args, i + 2);
			Oid			opfamily;
			Oid			opcintype;
			Oid			function = hash_function(exprType(arg), &opfamily,
												 &opcintype);

			if (!OidIsValid(function))
				report_unhashable(exprType(arg));
			fmgr_info_cxt(function, &cache->functions[i],
						  fcinfo->flinfo->fn_mcxt);
			cache->collations[i] = exprCollation(arg);
		}
		MemoryContextSwitchTo(oldcontext);
		fcinfo->flinfo->fn_extra = cache;
	}

	for (int i = 0; i < nkeys; i++)
	{
		nulls[i] = PG_ARGISNULL(i + 2);
		values[i] = PG_GETARG_DATUM(i + 2);
	}
	PG_RETURN_BOOL(compute_partition_hash_value(nkeys, cache->functions,
												cache->collations,
												values, nulls) % modulus == remainder);
}

/*
 * shard_function
 *		The OID of the extension's SQL function with this name and these
 *		argument types, or InvalidOid if the extension is not there.
 *
 * Checks no privileges.
 */
Oid
shard_function(const char *name, const Oid *types, int ntypes)
{
	Oid			schema = get_namespace_oid("shard_fdw", true);

	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name),
						   PointerGetDatum(buildoidvector(types, ntypes)),
						   ObjectIdGetDatum(schema));
}

/*
 * shard_placement_function
 *		The OID of our function with this name, in_hash() or in_slot(), whose
 *		arguments are two integers and one of the given type; InvalidOid if
 *		the extension is not there.
 */
Oid
shard_placement_function(const char *name, Oid type)
{
	Oid			types[] = {INT4OID, INT4OID, type};

	return shard_function(name, types, lengthof(types));
}

/*
 * shard_is_column
 *		Is a column that a constraint of the shard refers to the one that the
 *		logical table has by this number?
 */
bool
shard_is_column(const Var *var, Oid shard, Oid logical, AttrNumber attno)
{
	char	   *name = get_attname(shard, var->varattno, true);
	char	   *wanted = get_attname(logical, attno, true);

	return name != NULL && wanted != NULL && strcmp(name, wanted) == 0;
}

static Oid
in_hash_oid(void)
{
	return shard_placement_function("in_hash", ANYOID);
}

/*
 * shard_in_hash_clause
 *		A call of in_hash() on the expressions, as many as the key has columns.
 */
Expr *
shard_in_hash_clause(int modulus, int remainder, List *exprs)
{
	List	   *args = list_make2(makeConst(INT4OID, -1, InvalidOid,
											sizeof(int32),
											Int32GetDatum(modulus), false, true),
								  makeConst(INT4OID, -1, InvalidOid,
											sizeof(int32),
											Int32GetDatum(remainder), false, true));

	return (Expr *) makeFuncExpr(in_hash_oid(), BOOLOID,
								 list_concat(args, exprs), InvalidOid,
								 InvalidOid, COERCE_EXPLICIT_CALL);
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

	return OidIsValid(hash_function(type, &own, &opcintype)) &&
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
			hash_function(att->atttypid, &key->partopfamily[i],
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
			report_unhashable(att->atttypid);
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
 *		Raise what is wrong with the key of a table that has none: see
 *		shard_key_create().
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
 * shard_is_placement
 *		Does the expression of a CHECK constraint say which hashes of some key
 *		a shard holds?
 */
bool
shard_is_placement(Node *expr)
{
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) > 2 &&
		((FuncExpr *) expr)->funcid == in_hash_oid();
}

/*
 * shard_read_placement
 *		Does the expression of a shard's CHECK constraint say which hashes of
 *		this key it holds?  If so, fills in *modulus and *remainder.
 */
bool
shard_read_placement(Node *expr, Oid shard, PartitionKey key, Oid logical,
					 int *modulus, int *remainder)
{
	List	   *args;
	int			m;
	int			r;

	if (!shard_is_placement(expr))
		return false;
	args = ((FuncExpr *) expr)->args;
	if (list_length(args) != key->partnatts + 2 ||
		!IsA(linitial(args), Const) || !IsA(lsecond(args), Const) ||
		linitial_node(Const, args)->constisnull ||
		lsecond_node(Const, args)->constisnull)
		return false;

	for (int i = 0; i < key->partnatts; i++)
	{
		Var		   *var = list_nth(args, i + 2);

		if (!IsA(var, Var) || var->vartype != key->parttypid[i] ||
			var->varcollid != key->partcollation[i] ||
			!shard_is_column(var, shard, logical, key->partattrs[i]))
			return false;
	}
	m = DatumGetInt32(linitial_node(Const, args)->constvalue);
	r = DatumGetInt32(lsecond_node(Const, args)->constvalue);
	if (m <= 0 || m > SHARD_MAX_SHARDS || r < 0 || r >= m)
		return false;
	*modulus = m;
	*remainder = r;
	return true;
}

static int
compare_places(const void *a, const void *b)
{
	const ShardPlace *pa = a;
	const ShardPlace *pb = b;

	if (pa->modulus != pb->modulus)
		return pa->modulus < pb->modulus ? -1 : 1;
	if (pa->remainder != pb->remainder)
		return pa->remainder < pb->remainder ? -1 : 1;
	return pa->ordinal - pb->ordinal;
}

/*
 * Could the places be those of a natively partitioned table: all shards have
 * one, and no two overlap?
 */
static bool
is_partitioning(const ShardTable *table)
{
	int			greatest = table->places[table->nplaces - 1].modulus;
	bool	   *taken;
	bool		result = true;

	if (table->nplaces < table->nmembers)
		return false;
	taken = palloc0(sizeof(bool) * greatest);
	for (int i = 0; i < table->nplaces && result; i++)
	{
		const ShardPlace *place = &table->places[i];
		const ShardMember *member = &table->members[place->ordinal];

		result = member->is_place_valid && !member->has_children &&
			greatest % place->modulus == 0;
		for (int r = place->remainder; r < greatest && result;
			 r += place->modulus)
		{
			result = !taken[r];
			taken[r] = true;
		}
	}
	pfree(taken);
	return result;
}

/*
 * shard_place_members
 *		Work out which member holds which hashes, for the router and, if the
 *		shards are placed as partitions would be, for the planner.
 *
 * Fills in the entry's "places" and "bounds", in the current memory context.
 */
void
shard_place_members(ShardTable *table)
{
	PartitionBoundSpec **specs;
	int		   *mapping;

	table->places = palloc(sizeof(ShardPlace) * Max(table->nmembers, 1));
	table->nplaces = 0;
	table->bounds = NULL;
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (member->modulus == 0)
			continue;
		table->places[table->nplaces].modulus = member->modulus;
		table->places[table->nplaces].remainder = member->remainder;
		table->places[table->nplaces].ordinal = i;
		table->nplaces++;
	}
	qsort(table->places, table->nplaces, sizeof(ShardPlace), compare_places);
	if (table->nplaces == 0 || !is_partitioning(table))
		return;

	/* The places are in the order that core gives to partitions. */
	specs = palloc(sizeof(PartitionBoundSpec *) * table->nplaces);
	mapping = palloc(sizeof(int) * table->nplaces);
	for (int i = 0; i < table->nplaces; i++)
	{
		specs[i] = makeNode(PartitionBoundSpec);
		specs[i]->strategy = PARTITION_STRATEGY_HASH;
		specs[i]->modulus = table->places[i].modulus;
		specs[i]->remainder = table->places[i].remainder;
	}
	table->bounds = partition_bounds_create(specs, table->nplaces, table->key,
											&mapping);
	for (int i = 0; i < table->nplaces; i++)
		pfree(specs[i]);
	pfree(specs);
	pfree(mapping);
}

/*
 * shard_find_place
 *		The ordinal of a member that holds this hash, preferably an open one,
 *		or -1.
 */
int
shard_find_place(const ShardTable *table, uint64 hash)
{
	int			result = -1;
	int			first = 0;

	while (first < table->nplaces)
	{
		int			modulus = table->places[first].modulus;
		int			remainder = hash % modulus;
		int			i = first;

		/* A complete set of distinct remainders needs no search. */
		if (modulus <= table->nplaces - first &&
			table->places[first + modulus - 1].modulus == modulus &&
			table->places[first + remainder].remainder == remainder)
			i = first + remainder;
		for (; i < table->nplaces && table->places[i].modulus == modulus; i++)
		{
			if (table->places[i].remainder > remainder)
				break;
			if (table->places[i].remainder < remainder)
				continue;
			result = table->places[i].ordinal;
			if (table->members[result].is_open)
				return result;
		}
		while (first < table->nplaces &&
			   table->places[first].modulus == modulus)
			first++;
	}
	return result;
}
