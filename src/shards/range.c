/*-------------------------------------------------------------------------
 *
 * range.c
 *	  The range of times that the rows of a closed shard have.
 *
 * A table with option "time_column" knows of each closed shard from when to
 * when its rows are, by a CHECK constraint on that column:
 *
 *		at IS NOT NULL AND at >= constant AND at <= constant
 *
 * A validated one holds for all rows, whoever has written them, and PostgreSQL
 * enforces it.  So shards can be left out by it, and dropped by it.  An empty
 * shard has a range that no row is in: from infinity to minus infinity.
 *
 * To add it takes two transactions, so that nobody has to wait for long.  The
 * first looks for the least and the greatest time without any lock, and adds
 * the constraint NOT VALID, for which it has the shard locked for a moment.
 * The second validates it, which looks at all rows while others read and
 * write.  If a row has come between that is out of the range, that fails, the
 * constraint is dropped, and the whole is done again later.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_add_range);

/* How often to find a row that is not in the range just read. */
#define MAX_TRIES	10

/*
 * shard_drop_range
 *		Drop what shard_range_constraint() finds.  SPI is connected.
 *
 * Takes an ACCESS EXCLUSIVE lock, as shard_lock_patiently() does and with its
 * errors, if there is anything to drop.
 */
void
shard_drop_range(Oid shard)
{
	char	   *name;

	if (shard_range_constraint(shard, NULL) == NULL)
		return;
	shard_lock_patiently(shard, AccessExclusiveLock);
	while ((name = shard_range_constraint(shard, NULL)) != NULL)
		shard_execute("ALTER TABLE %s DROP CONSTRAINT %s",
					  shard_qualified_name(shard), quote_identifier(name));
}

/*
 * Is there a transaction, other than this one, that may have written rows of
 * the relation and has not ended?
 */
static bool
is_busy(Oid relid)
{
	LOCKTAG		tag;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	pfree(GetLockConflicts(&tag, ShareLock, &n));
	return n > 0;
}

/*
 * A time as a literal of its type, to be read with the settings that
 * advance_range() makes.
 */
static char *
time_literal(Datum value, bool isnull, const char *otherwise, Oid type)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(type, &output, &is_varlena);
	return psprintf("%s::pg_catalog.%s",
					isnull ? quote_literal_cstr(otherwise) :
					quote_literal_cstr(OidOutputFunctionCall(output, value)),
					type == TIMESTAMPTZOID ? "timestamptz" :
					type == TIMESTAMPOID ? "timestamp" : "date");
}

/*
 * Look at the rows and add the constraint.  SPI is connected.
 */
static void
add_constraint(Oid shard, const char *column, Oid type)
{
	const char *name = shard_qualified_name(shard);
	TupleDesc	desc;
	HeapTuple	row;
	Datum		min;
	Datum		max;
	bool		min_isnull;
	bool		max_isnull;

	column = quote_identifier(column);
	if (SPI_execute(psprintf("SELECT pg_catalog.min(%s), pg_catalog.max(%s) FROM ONLY %s",
							 column, column, name),
					false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the range of shard %u", shard);
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	min = SPI_getbinval(row, desc, 1, &min_isnull);
	max = SPI_getbinval(row, desc, 2, &max_isnull);

	shard_lock_patiently(shard, AccessExclusiveLock);
	shard_execute("ALTER TABLE %s ADD CONSTRAINT " SHARD_RANGE_NAME
				  " CHECK (%s IS NOT NULL AND %s >= %s AND %s <= %s) NOT VALID",
				  name, column,
				  column, time_literal(min, min_isnull, "infinity", type),
				  column, time_literal(max, max_isnull, "-infinity", type));
}

/*
 * Validate the constraint, or drop it if a row is not in the range.  Returns
 * whether it is valid.  SPI is connected.
 */
static bool
validate_constraint(Oid shard, const char *name)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool result = true;

	shard_lock_patiently(shard, ShareUpdateExclusiveLock);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		shard_execute("ALTER TABLE %s VALIDATE CONSTRAINT %s",
					  shard_qualified_name(shard), quote_identifier(name));
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);

		if (error->sqlerrcode != ERRCODE_CHECK_VIOLATION)
			ReThrowError(error);
		FreeErrorData(error);
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (!result)
		shard_drop_range(shard);
	return result;
}

/*
 * shard_advance_range
 *		Do the next step towards the range of a shard.  The logical table is
 *		locked.
 *
 * Acts as the shard's owner.  The steps belong into transactions of their own,
 * of isolation level READ COMMITTED, since the locks last that long.  Raises
 * what shard_lock_patiently() raises.
 */
ShardRangeStep
shard_advance_range(Oid logical, Oid shard)
{
	ShardTable *table = shard_table_get(logical);
	int			ordinal = shard_table_find(table, shard);
	const ShardMember *member = ordinal < 0 ? NULL : &table->members[ordinal];
	char	   *column;
	Oid			type;
	Relation	rel;
	ShardIdentity identity;
	char	   *name;
	bool		is_valid = false;
	ShardRangeStep result;

	if (member == NULL || table->time_attno == 0 || !member->is_local ||
		member->has_children || member->is_open)
		return SHARD_RANGE_NONE;
	if (member->has_range)
		return SHARD_RANGE_DONE;
	if (is_busy(shard))
		return SHARD_RANGE_BUSY;

	column = get_attname(logical, table->time_attno, false);
	type = get_atttype(logical, table->time_attno);
	/* What has been dropped meanwhile is no shard any more. */
	rel = try_relation_open(shard, AccessShareLock);
	if (rel == NULL)
		return SHARD_RANGE_NONE;
	SPI_connect();
	shard_become_owner(rel, &identity);
	relation_close(rel, NoLock);
	shard_set("DateStyle", "ISO, YMD");
	shard_set("TimeZone", "UTC");
	shard_set("row_security", "off");

	name = shard_range_constraint(shard, &is_valid);
	if (name != NULL && is_valid)
	{
		/* A range of another column, of an earlier option maybe. */
		shard_drop_range(shard);
		name = NULL;
	}
	if (name == NULL)
	{
		add_constraint(shard, column, type);
		result = SHARD_RANGE_AGAIN;
	}
	else
		result = validate_constraint(shard, name) ? SHARD_RANGE_DONE :
			SHARD_RANGE_AGAIN;
	shard_restore_identity(&identity);
	SPI_finish();
	return result;
}

/*
 * The logical table of the shard that has a time column, locked.
 */
static Oid
find_timed_parent(Oid shard)
{
	List	   *parents = shard_logical_parents(shard);
	ListCell   *lc;

	foreach(lc, parents)
	{
		LockRelationOid(lfirst_oid(lc), AccessShareLock);
		if (shard_is_logical(lfirst_oid(lc)) &&
			shard_table_get(lfirst_oid(lc))->time_attno != 0)
			return lfirst_oid(lc);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("shard \"%s\" has no time column", get_rel_name(shard)),
			 errhint("Set option \"time_column\" of its foreign table.")));
}

/*
 * shard_add_range(shard regclass)
 *		SQL procedure add_range(): gives a closed shard its range.
 *
 * Commits between its steps, unless the caller is in a transaction block.
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE for a shard that is open or
 * has no time column, ERRCODE_OBJECT_IN_USE if somebody is writing it,
 * ERRCODE_FEATURE_NOT_SUPPORTED for a shard that is no ordinary table without
 * children, and what shard_lock_patiently() raises.
 */
Datum
shard_add_range(PG_FUNCTION_ARGS)
{
	bool		atomic = fcinfo->context == NULL ||
		!IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;
	Oid			shard = PG_GETARG_OID(0);
	ShardRangeStep step;
	int			ntries = 0;

	shard_check_argument(fcinfo, 0, "shard");
	PreventCommandIfReadOnly("add_range()");
	shard_check_read_committed("add a range");

	SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC);
	for (;;)
	{
		Oid			logical;

		shard_check_to_alter(shard, false);
		logical = find_timed_parent(shard);
		step = shard_advance_range(logical, shard);
		if (step != SHARD_RANGE_AGAIN || ++ntries > MAX_TRIES)
			break;
		if (!atomic)
			SPI_commit();
	}
	SPI_finish();

	if (step == SHARD_RANGE_BUSY || step == SHARD_RANGE_AGAIN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("shard \"%s\" is being written", get_rel_name(shard)),
				 errhint("Try again when the transactions that write it have ended.")));
	if (step == SHARD_RANGE_NONE)
	{
		ShardTable *table = shard_table_get(find_timed_parent(shard));
		int			ordinal = shard_table_find(table, shard);

		if (ordinal >= 0 && table->members[ordinal].is_open)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("shard \"%s\" is open", get_rel_name(shard)),
					 errdetail("Rows of any time may come."),
					 errhint("Close it with SELECT shard_fdw.close_shard().")));
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("shard \"%s\" cannot have a range", get_rel_name(shard)),
				 errdetail("It is a foreign table or has inheritance children.")));
	}
	PG_RETURN_VOID();
}

/*
 * shard_check_not_null
 *		Raise ERRCODE_INVALID_OBJECT_DEFINITION if the logical table has a time
 *		column and it can be null in the shard.
 */
void
shard_check_not_null(Oid logical, Oid shard)
{
	ShardOptions options;
	HeapTuple	tuple;
	bool		not_null;

	shard_get_options(logical, &options);
	if (options.time_column == NULL)
		return;
	tuple = SearchSysCacheAttName(shard, options.time_column);
	if (!HeapTupleIsValid(tuple))
		return;
	not_null = ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;
	ReleaseSysCache(tuple);
	if (!not_null)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("time column \"%s\" of foreign table \"%s\" can be null in shard \"%s\"",
						options.time_column, get_rel_name(logical),
						get_rel_name(shard)),
				 errhint("Declare the column NOT NULL, in the foreign table or in each shard.")));
}

/*
 * shard_check_time_column
 *		Raise an error unless the column that option "time_column" of the
 *		logical table names can be one: ERRCODE_UNDEFINED_COLUMN if there is
 *		none, ERRCODE_INVALID_OBJECT_DEFINITION if it has the wrong type, if it
 *		can be null in a shard, or for a hash table that is to be rotated.
 */
void
shard_check_time_column(Oid relid)
{
	ShardOptions options;
	AttrNumber	attno;
	ListCell   *lc;

	shard_get_options(relid, &options);
	if (options.time_column == NULL)
		return;
	attno = get_attnum(relid, options.time_column);
	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("time column \"%s\" of foreign table \"%s\" does not exist",
						options.time_column, get_rel_name(relid)),
				 errhint("Name another column with option \"time_column\" of the foreign table, or drop that option first.")));
	if (attno < 0 || !shard_is_time_type(get_atttype(relid, attno)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("column \"%s\" of foreign table \"%s\" cannot be its time column",
						options.time_column, get_rel_name(relid)),
				 attno < 0 ? errdetail("It is a system column.") :
				 errdetail("Its type is %s.",
						   format_type_be(get_atttype(relid, attno))),
				 errhint("A time column has type timestamp with time zone, timestamp without time zone, or date.")));
	if (options.rotate_every != NULL && options.route == SHARD_ROUTE_HASH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("option \"rotate_every\" of foreign table \"%s\" cannot be used with route \"hash\"",
						get_rel_name(relid)),
				 errdetail("Each generation of shards could hold the same keys once more.")));
	foreach(lc, find_inheritance_children(relid, NoLock))
		shard_check_not_null(relid, lfirst_oid(lc));
}
