/*-------------------------------------------------------------------------
 *
 * placement.c
 *	  Placement: which shard holds which hashes, ids and times.
 *
 * What a shard may hold is declared by CHECK constraints that call in_hash() or
 * in_slot(), or are a range of times.  The constraints keep other rows out,
 * even if they are inserted into the shard by its own name, and the router and
 * the planner learn from them where rows are.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "partitioning/partbounds.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_in_slot);
PG_FUNCTION_INFO_V1(shard_in_hash);

/* What in_hash() remembers between calls of one expression. */
typedef struct HashFunctions
{
	int			nkeys;
	FmgrInfo   *functions;
	Oid		   *collations;
} HashFunctions;

/* What a CHECK constraint says of times. */
typedef struct TimeRange
{
	Var		   *column;
	Const	   *min;
	Const	   *max;
} TimeRange;

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
 * The OID of in_hash() or in_slot(), whose arguments are two integers and one of
 * the given type.  InvalidOid if the extension is not there.
 */
static Oid
placement_function(const char *name, Oid type)
{
	Oid			types[] = {INT4OID, INT4OID, type};

	return shard_function(name, types, lengthof(types));
}

/*
 * Does a column in a constraint of the shard have the name of the logical
 * table's column with this number?
 */
static bool
is_column(const Var *var, Oid shard, Oid logical, AttrNumber attno)
{
	char	   *name = get_attname(shard, var->varattno, true);
	char	   *wanted = get_attname(logical, attno, true);

	return name != NULL && wanted != NULL && strcmp(name, wanted) == 0;
}

/*
 * shard_id_slot_of
 *		Which slot an id belongs to, from 0 to stride - 1.  0 stands for the slot
 *		whose number is the stride.
 */
int
shard_id_slot_of(int64 id, int stride)
{
	int			result = (int) (id % stride);

	return result < 0 ? result + stride : result;
}

/*
 * shard_in_slot(stride int, slot int, id bigint)
 *		SQL function in_slot(): is the id one of those that the sequence of
 *		the shard with this slot makes?
 *
 * Strict.  Raises ERRCODE_INVALID_PARAMETER_VALUE for a stride or a slot that
 * cannot be.
 */
Datum
shard_in_slot(PG_FUNCTION_ARGS)
{
	int			stride = PG_GETARG_INT32(0);
	int			id_slot = PG_GETARG_INT32(1);

	if (stride <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stride must be greater than zero")));
	if (stride > SHARD_MAX_SHARDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stride must not be greater than %d",
						SHARD_MAX_SHARDS)));
	if (id_slot < 1 || id_slot > stride)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slot must be at least one and not greater than the stride")));
	PG_RETURN_BOOL(shard_id_slot_of(PG_GETARG_INT64(2), stride) == id_slot % stride);
}

/*
 * The OID of in_slot().
 */
static Oid
in_slot_oid(void)
{
	return placement_function("in_slot", INT8OID);
}

/*
 * shard_in_slot_clause
 *		A call of in_slot() on an expression of type smallint, integer or
 *		bigint.
 */
Expr *
shard_in_slot_clause(int stride, int id_slot, Expr *id)
{
	Oid			type = exprType((Node *) id);

	if (type != INT8OID)
		id = (Expr *) makeFuncExpr(type == INT2OID ? F_INT8_INT2 : F_INT8_INT4,
								   INT8OID, list_make1(id), InvalidOid,
								   InvalidOid, COERCE_IMPLICIT_CAST);
	return (Expr *)
		makeFuncExpr(in_slot_oid(), BOOLOID,
					 list_make3(makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
										  Int32GetDatum(stride), false, true),
								makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
										  Int32GetDatum(id_slot), false, true),
								id),
					 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * shard_id_fits
 *		May a shard with this slot hold this id?  With a stride of 0, any.
 */
bool
shard_id_fits(int64 id, int stride, int id_slot)
{
	return stride == 0 || shard_id_slot_of(id, stride) == id_slot % stride;
}

/*
 * Does the expression of a CHECK constraint say which ids a shard holds?
 */
static bool
is_id_slot(Node *expr)
{
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) == 3 &&
		((FuncExpr *) expr)->funcid == in_slot_oid();
}

/*
 * shard_read_id_slot
 *		Does the expression of a shard's CHECK constraint say which ids in
 *		the logical table's column it holds?  If so, fills in *stride and
 *		*id_slot.
 */
bool
shard_read_id_slot(Node *expr, Oid shard, Oid logical, AttrNumber attno,
				   int *stride, int *id_slot)
{
	Const	   *stride_const;
	Const	   *id_slot_const;
	Var		   *var;
	int			stride_value;
	int			id_slot_value;

	if (!is_id_slot(expr))
		return false;
	stride_const = linitial(((FuncExpr *) expr)->args);
	id_slot_const = lsecond(((FuncExpr *) expr)->args);
	var = (Var *) strip_implicit_coercions(lthird(((FuncExpr *) expr)->args));
	if (!IsA(stride_const, Const) || !IsA(id_slot_const, Const) ||
		!IsA(var, Var) || stride_const->constisnull ||
		id_slot_const->constisnull ||
		!is_column(var, shard, logical, attno))
		return false;
	stride_value = DatumGetInt32(stride_const->constvalue);
	id_slot_value = DatumGetInt32(id_slot_const->constvalue);
	if (stride_value <= 0 || stride_value > SHARD_MAX_SHARDS ||
		id_slot_value < 1 || id_slot_value > stride_value)
		return false;
	*stride = stride_value;
	*id_slot = id_slot_value;
	return true;
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
			Oid			function = shard_hash_function(exprType(arg), &opfamily,
													   &opcintype);

			if (!OidIsValid(function))
				shard_report_unhashable(exprType(arg));
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
 * The OID of in_hash().
 */
static Oid
in_hash_oid(void)
{
	return placement_function("in_hash", ANYOID);
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
 * Does the expression of a CHECK constraint say which hashes of some key a
 * shard holds?
 */
static bool
is_place(Node *expr)
{
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) > 2 &&
		((FuncExpr *) expr)->funcid == in_hash_oid();
}

/*
 * shard_is_placement
 *		Is the expression of a CHECK constraint a call of in_hash() or
 *		in_slot()?
 */
bool
shard_is_placement(Node *expr)
{
	return is_place(expr) || is_id_slot(expr);
}

/*
 * shard_read_place
 *		Does the expression of a shard's CHECK constraint say which hashes of
 *		this key it holds?  If so, fills in *modulus and *remainder.
 */
bool
shard_read_place(Node *expr, Oid shard, PartitionKey key, Oid logical,
				 int *modulus, int *remainder)
{
	List	   *args;
	int			m;
	int			r;

	if (!is_place(expr))
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
			!is_column(var, shard, logical, key->partattrs[i]))
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

/*
 * Compare two places by modulus and remainder, for qsort().
 */
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
 * shard_is_newer
 *		Does a snapshot not show the transaction that has given a shard its
 *		place?  Such a shard may have rows of shards in whose place it is.
 */
bool
shard_is_newer(const ShardMember *member, Snapshot snapshot)
{
	TransactionId xid = member->place_xid;

	return TransactionIdIsNormal(xid) &&
		!NormalTransactionIdPrecedes(xid, snapshot->xmin) &&
		!TransactionIdIsCurrentTransactionId(xid) &&
		XidInMVCCSnapshot(xid, snapshot);
}

/*
 * shard_note_newest_place
 *		Find the latest transaction that has put rows of other shards into a
 *		member.
 */
void
shard_note_newest_place(ShardTable *table)
{
	table->newest_place = InvalidTransactionId;
	for (int i = 0; i < table->nmembers; i++)
	{
		TransactionId xid = table->members[i].place_xid;

		if (TransactionIdIsNormal(xid) &&
			TransactionIdFollows(xid, table->newest_place))
			table->newest_place = xid;
	}
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

		/* In a complete set of distinct remainders, no search is required. */
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

/*
 * shard_is_time_type
 *		Can a column of this type be the one that option "time_column" names?
 */
bool
shard_is_time_type(Oid type)
{
	return type == TIMESTAMPTZOID || type == TIMESTAMPOID || type == DATEOID;
}

/*
 * Read one of the conditions that a range consists of.
 */
static bool
read_bound(Node *node, TimeRange *range)
{
	OpExpr	   *op = (OpExpr *) node;
	Var		   *column;
	Const	   *value;
	Oid			function;

	if (IsA(node, NullTest))
	{
		column = (Var *) ((NullTest *) node)->arg;
		if (((NullTest *) node)->nulltesttype != IS_NOT_NULL ||
			!IsA(column, Var) || range->column != NULL)
			return false;
		range->column = column;
		return true;
	}
	if (!IsA(node, OpExpr) || list_length(op->args) != 2)
		return false;
	column = linitial(op->args);
	value = lsecond(op->args);
	if (!IsA(column, Var) || !IsA(value, Const) || range->column == NULL ||
		!equal(column, range->column) || value->constisnull ||
		value->consttype != column->vartype)
		return false;
	function = get_opcode(op->opno);
	if (function == F_TIMESTAMPTZ_GE || function == F_TIMESTAMP_GE ||
		function == F_DATE_GE)
		range->min = value;
	else if (function == F_TIMESTAMPTZ_LE || function == F_TIMESTAMP_LE ||
			 function == F_DATE_LE)
		range->max = value;
	else
		return false;
	return true;
}

/*
 * Is the expression of a CHECK constraint a range of times, and which?
 */
static bool
read_range(Node *expr, TimeRange *range)
{
	ListCell   *lc;

	memset(range, 0, sizeof(TimeRange));
	if (!is_andclause(expr) || list_length(((BoolExpr *) expr)->args) != 3)
		return false;
	foreach(lc, ((BoolExpr *) expr)->args)
	{
		if (!read_bound(lfirst(lc), range))
			return false;
	}
	return range->column != NULL && range->min != NULL && range->max != NULL;
}

/*
 * shard_is_range
 *		Is the expression of a CHECK constraint a range of times?
 */
bool
shard_is_range(Node *expr)
{
	TimeRange	range;

	return read_range(expr, &range);
}

/*
 * The integer that a time consists of.  Integers are in the order of the times.
 */
static int64
time_as_int64(Datum value, Oid type)
{
	return type == DATEOID ? (int64) DatumGetDateADT(value) :
		DatumGetInt64(value);
}

/*
 * shard_read_range
 *		Does the expression of a shard's CHECK constraint say from when to when
 *		its rows are, by the logical table's column "attno"?  If so, fills in
 *		the range of "member".
 */
bool
shard_read_range(Node *expr, Oid shard, Oid logical, AttrNumber attno,
				 ShardMember *member)
{
	TimeRange	range;

	if (!read_range(expr, &range) ||
		!is_column(range.column, shard, logical, attno))
		return false;
	member->range_min = time_as_int64(range.min->constvalue,
									  range.min->consttype);
	member->range_max = time_as_int64(range.max->constvalue,
									  range.max->consttype);
	return true;
}

/*
 * shard_range_constraint
 *		The name of a CHECK constraint that is a range of times, or that has the
 *		name of one.  NULL if the relation has none that is not inherited.
 *
 * If is_valid is not NULL, *is_valid says whether all rows have been checked.
 * Takes no lock on the relation.  The result is allocated in the current
 * memory context.
 */
char *
shard_range_constraint(Oid relid, bool *is_valid)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	char	   *result = NULL;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (result == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		Datum		bin;
		bool		isnull;
		TimeRange	range;

		if (con->contype != CONSTRAINT_CHECK || con->coninhcount > 0)
			continue;
		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
						   RelationGetDescr(catalog), &isnull);
		if (isnull ||
			(strcmp(NameStr(con->conname), SHARD_RANGE_NAME) != 0 &&
			 !read_range(stringToNode(TextDatumGetCString(bin)), &range)))
			continue;
		result = pstrdup(NameStr(con->conname));
		if (is_valid != NULL)
			*is_valid = con->convalidated;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}
