/*-------------------------------------------------------------------------
 *
 * split.c
 *	  Other shards in the place of some of a hash table's: split_shard(),
 *	  merge_shards() and reshard_online().
 *
 * The new shards are made in the likeness of the first old one, and get a copy
 * of the rows while others use the old ones; see copy.c.  Only then are the old
 * shards locked, the copy is brought up to date, and they are dropped.  All of
 * that is one transaction, so there is nothing to be cleaned up after an error.
 *
 * The logical table is locked in a way that only keeps others from changing its
 * definition and its shards.  A statement that waits for an old shard gets the
 * news when that is gone, and goes to the new ones.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include <math.h>

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_split_shard);
PG_FUNCTION_INFO_V1(shard_merge_shards);
PG_FUNCTION_INFO_V1(shard_reshard_online);

/* Which shards are to be replaced by which. */
typedef struct Replacement
{
	Oid			logical;
	List	   *old_shards;		/* OIDs */
	int			modulus;		/* of the new shards */
	List	   *remainders;
	List	   *new_shards;		/* OIDs, in the order of the remainders */
	TimestampTz locked_at;		/* others may have waited since then */
} Replacement;

static int
greatest_divisor(int a, int b)
{
	while (b != 0)
	{
		int			rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/*
 * Lock a logical table so that its shards stay what they are until the
 * transaction ends, and check that it is one whose shards can be replaced.
 */
static ShardTable *
lock_logical(Oid relid)
{
	ShardTable *table;

	/* A row that the last snapshot does not show would be dropped unseen. */
	shard_check_read_committed("reshard");
	shard_check_owned(relid);
	shard_lock_patiently(relid, ShareUpdateExclusiveLock);
	shard_check_owned(relid);
	shard_check_reshardable(relid);
	table = shard_table_get(relid);
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (member->modulus == 0 || !member->is_place_valid)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("it is not known which hashes shard \"%s\" of foreign table \"%s\" holds",
							member->name, get_rel_name(relid)),
					 errdetail("It has no validated CHECK constraint with in_hash()."),
					 errhint("See SELECT * FROM shard_fdw.check_shards(%s).",
							 quote_literal_cstr(shard_qualified_name(relid)))));
	}
	return table;
}

/*
 * Lock an old shard so that its definition stays what it is, and check that it
 * can be replaced.
 */
static void
lock_old_shard(Oid logical, Oid shard)
{
	ShardTable *table;
	int			ordinal;

	shard_lock_patiently(shard, ShareUpdateExclusiveLock);
	table = shard_table_get(logical);
	ordinal = shard_table_find(table, shard);
	if (ordinal < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" no longer has the shard with OID %u",
						get_rel_name(logical), shard)));
	shard_check_replaceable(logical, &table->members[ordinal]);
}

/*
 * Create the new shards, without foreign keys.
 */
static void
create_new_shards(Replacement *replacement, Relation source,
				  MemoryContext context)
{
	Oid			relid = replacement->logical;
	ShardTable *table = shard_table_get(relid);
	Relation	logical = table_open(relid, NoLock);
	char	   *columns = shard_key_columns(table->key, relid);
	ShardOptions options;
	ListCell   *lc;

	shard_get_options(relid, &options);
	shard_check_max_shards(logical, &options,
						   table->nmembers - list_length(replacement->old_shards),
						   list_length(replacement->remainders));
	foreach(lc, replacement->remainders)
	{
		char	   *place = psprintf("shard_fdw.in_hash(%d, %d, %s)",
									 replacement->modulus, lfirst_int(lc),
									 columns);
		Oid			shard = shard_clone(logical,
										shard_new_schema(relid, &options,
														 RelationGetRelid(source)),
										shard_new_name(logical), source, place,
										InvalidOid);
		MemoryContext oldcontext;

		oldcontext = MemoryContextSwitchTo(context);
		replacement->new_shards = lappend_oid(replacement->new_shards, shard);
		MemoryContextSwitchTo(oldcontext);
		shard_clone_triggers(source, shard);
		shard_copy_surroundings(RelationGetRelid(source), shard);
	}
	table_close(logical, NoLock);
	shard_free_ids(relid, replacement->new_shards);
}

/*
 * Build the indexes of the new shards, whose rows have been copied without.
 */
static void
build_indexes(List *shards)
{
	ListCell   *lc;

	foreach(lc, shards)
	{
		Relation	shard = table_open(lfirst_oid(lc), NoLock);
		List	   *indexes = list_copy(RelationGetIndexList(shard));
		ListCell   *lc2;

		table_close(shard, NoLock);
		foreach(lc2, indexes)
			shard_execute("REINDEX INDEX %s",
						  shard_qualified_name(lfirst_oid(lc2)));
	}
}

/*
 * What has to be locked to drop the old shards: these, and what their foreign
 * keys point to.
 */
static List *
relations_to_lock(const List *shards)
{
	List	   *result = list_copy(shards);
	ListCell   *lc;

	foreach(lc, shards)
		result = list_concat_unique_oid(result,
										shard_referenced_tables(lfirst_oid(lc)));
	return result;
}

/*
 * shard_flush_wal
 *		Have what this transaction has written be on disk before others have to
 *		wait for its commit.
 */
void
shard_flush_wal(void)
{
	/*
	 * GetXLogInsertRecPtr() may be behind the header of a page that no record
	 * has begun yet, to which nothing can be flushed.
	 */
	if (XLogInsertAllowed())
		XLogFlush(GetInsertRecPtr());
}

/*
 * Lock the old shards for good.
 */
static void
lock_out_others(Replacement *replacement)
{
	List	   *relids = relations_to_lock(replacement->old_shards);

	/* Those whose privileges the new shards will get. */
	shard_hold_privileges(linitial_oid(replacement->old_shards));
	shard_flush_wal();
	shard_lock_all_patiently(relids, AccessExclusiveLock);
	replacement->locked_at = shard_lock_try_start();
}

/*
 * Is a shard a table whose rows copy.c can copy while they change?
 */
static bool
is_heap(Oid shard)
{
	Relation	rel = table_open(shard, NoLock);
	bool		result = rel->rd_tableam == GetHeapamTableAmRoutine();

	table_close(rel, NoLock);
	return result;
}

/*
 * Copy the rows, and bring the copy up to date as far as that is possible
 * without a lock.  Then lock the old shards, and do the rest.
 */
static int64
copy_rows(Replacement *replacement)
{
	ShardOnlineCopy *copy = shard_online_copy_begin(replacement->logical,
													replacement->old_shards,
													replacement->new_shards,
													replacement->modulus,
													replacement->remainders);
	ListCell   *lc;

	shard_progress_phase("copying rows");
	(void) shard_online_copy_pass(copy);
	shard_progress_phase("building indexes");
	build_indexes(replacement->new_shards);
	foreach(lc, replacement->new_shards)
		shard_execute("ANALYZE %s", shard_qualified_name(lfirst_oid(lc)));
	shard_progress_phase("copying what has changed");
	for (int i = 0; i < SHARD_MAX_PASSES && shard_online_copy_pass(copy) > SHARD_FEW_CHANGES; i++)
		;
	shard_progress_phase("waiting for locks on the old shards");
	lock_out_others(replacement);
	shard_progress_phase("replacing the old shards");
	(void) shard_online_copy_pass(copy);
	return shard_online_copy_end(copy);
}

/*
 * Carry it out.  Returns the number of rows in the new shards, whose OIDs are
 * in the current memory context.
 */
static int64
replace_shards(Replacement *replacement)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			logical = replacement->logical;
	Relation	rel;
	Relation	source;
	char	   *source_name;
	int64		result;
	ShardIdentity identity;
	ListCell   *lc;

	foreach(lc, replacement->old_shards)
	{
		lock_old_shard(logical, lfirst_oid(lc));
		if (!is_heap(lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("shard \"%s\" cannot be copied while others use it",
							get_rel_name(lfirst_oid(lc))),
					 errdetail("Its access method is not \"heap\"."),
					 errhint("Use SELECT shard_fdw.reshard().")));
	}
	SPI_connect();
	rel = table_open(logical, NoLock);
	shard_become_owner(rel, &identity);
	table_close(rel, NoLock);
	if (client_min_messages < WARNING)
		shard_set("client_min_messages", "warning");
	/* The copies go where their model is. */
	shard_set("default_tablespace", "");
	shard_progress_phase("looking for what depends on the old shards");
	shard_try_to_drop(replacement->old_shards,
					  relations_to_lock(replacement->old_shards));
	shard_progress_phase("creating shards");

	source = table_open(linitial_oid(replacement->old_shards), NoLock);
	source_name = pstrdup(RelationGetRelationName(source));
	create_new_shards(replacement, source, context);
	table_close(source, NoLock);
	result = copy_rows(replacement);

	source = table_open(linitial_oid(replacement->old_shards), NoLock);
	foreach(lc, replacement->new_shards)
		shard_clone_foreign_keys(source, source_name, lfirst_oid(lc));
	table_close(source, NoLock);
	foreach(lc, replacement->new_shards)
		shard_copy_privileges(linitial_oid(replacement->old_shards),
							  lfirst_oid(lc), false);
	shard_hand_over_sequences(replacement->old_shards,
							  linitial_oid(replacement->new_shards));
	shard_drop_all(replacement->old_shards);
	shard_restore_identity(&identity);
	SPI_finish();
	return result;
}

/*
 * Return the new shards, and tell how long others have waited.
 */
static void
return_shards(FunctionCallInfo fcinfo, const Replacement *replacement)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, replacement->new_shards)
	{
		Datum		value = ObjectIdGetDatum(lfirst_oid(lc));
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
							 &isnull);
	}
	ereport(NOTICE,
			(errmsg("the old shards of foreign table \"%s\" have been locked for %ld ms",
					get_rel_name(replacement->logical),
					TimestampDifferenceMilliseconds(replacement->locked_at,
													GetCurrentTimestamp())),
			 errdetail("They stay locked until the transaction ends.")));
}

/*
 * The logical table that a table to be replaced is a shard of.
 */
static Oid
logical_of(Oid shard)
{
	List	   *parents = shard_logical_parents(shard);

	if (list_length(parents) != 1)
	{
		if (get_rel_name(shard) == NULL)
			shard_report_missing(shard);
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a shard of one foreign table of shard_fdw",
						get_rel_name(shard))));
	}
	return linitial_oid(parents);
}

/*
 * Do these moduli go together?  As in native hash partitioning, one of any two
 * must divide the other; else nothing would be known of where a key is.
 */
static bool
go_together(int a, int b)
{
	return a % b == 0 || b % a == 0;
}

/*
 * Raise an error if the new shards would not go together with those that stay.
 */
static void
check_modulus(const ShardTable *table, const Replacement *replacement)
{
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (member->modulus == 0 ||
			list_member_oid(replacement->old_shards, member->relid) ||
			go_together(member->modulus, replacement->modulus))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" cannot have places with modulus %d beside \"%s\" with modulus %d",
						get_rel_name(table->relid), replacement->modulus,
						member->name, member->modulus),
				 errdetail("As with native hash partitions, one of any two moduli must be a factor of the other."),
				 errhint("Use another number of parts, or CALL shard_fdw.reshard_online().")));
	}
}

/*
 * shard_split_shard(shard regclass, parts int)
 *		SQL function split_shard(): replaces a shard of a hash table by several,
 *		and returns these.
 *
 * Raises ERRCODE_NULL_VALUE_NOT_ALLOWED, ERRCODE_INVALID_PARAMETER_VALUE for
 * less than two parts, ERRCODE_WRONG_OBJECT_TYPE for a table that is no shard,
 * ERRCODE_PROGRAM_LIMIT_EXCEEDED beyond max_shards or the greatest modulus, and
 * what replaces a shard raises: see shard_reshard().
 */
Datum
shard_split_shard(PG_FUNCTION_ARGS)
{
	Replacement replacement = {0};
	Oid			shard;
	int			parts;
	ShardTable *table;
	int			ordinal;

	shard_check_argument(fcinfo, 0, "shard");
	shard_check_argument(fcinfo, 1, "number of parts");
	PreventCommandIfReadOnly("split_shard()");
	shard = PG_GETARG_OID(0);
	parts = PG_GETARG_INT32(1);
	if (parts < 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of parts must be greater than one")));
	replacement.logical = logical_of(shard);
	table = lock_logical(replacement.logical);
	ordinal = shard_table_find(table, shard);
	if (ordinal < 0)
		(void) logical_of(shard);
	if (parts > SHARD_MAX_SHARDS / table->members[ordinal].modulus)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("shard \"%s\" cannot be split into %d parts",
						table->members[ordinal].name, parts),
				 errdetail("It holds the hashes with one remainder of %d, and the modulus can be at most %d.",
						   table->members[ordinal].modulus, SHARD_MAX_SHARDS)));
	replacement.old_shards = list_make1_oid(shard);
	replacement.modulus = table->members[ordinal].modulus * parts;
	for (int i = 0; i < parts; i++)
		replacement.remainders =
			lappend_int(replacement.remainders,
						table->members[ordinal].remainder +
						i * table->members[ordinal].modulus);
	check_modulus(table, &replacement);
	shard_progress_start("split_shard", replacement.logical,
						 shard_count_rows(replacement.old_shards));
	(void) replace_shards(&replacement);
	shard_progress_end();
	return_shards(fcinfo, &replacement);
	return (Datum) 0;
}

/*
 * The greatest modulus of which one remainder is what these members hold
 * together, and that remainder.  False if there is none.
 */
static bool
common_place(const ShardTable *table, const List *shards, int *modulus,
			 int *remainder)
{
	const ShardMember *first =
		&table->members[shard_table_find(table, linitial_oid(shards))];
	int			common = first->modulus;
	double		share = 0;
	ListCell   *lc;

	foreach(lc, shards)
	{
		const ShardMember *member =
			&table->members[shard_table_find(table, lfirst_oid(lc))];

		common = greatest_divisor(common, member->modulus);
		common = greatest_divisor(common,
								  abs(member->remainder - first->remainder));
		share += 1.0 / member->modulus;
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			const ShardMember *other =
				&table->members[shard_table_find(table, list_nth_oid(shards, i))];
			int			divisor = greatest_divisor(member->modulus,
												   other->modulus);

			/* They overlap. */
			if (member->remainder % divisor == other->remainder % divisor)
				return false;
		}
	}
	*modulus = common;
	*remainder = first->remainder % common;
	return fabs(share * common - 1) < 1e-6;
}

/*
 * shard_merge_shards(VARIADIC shards regclass[])
 *		SQL function merge_shards(): replaces shards of a hash table by one, and
 *		returns it.
 *
 * Raises ERRCODE_INVALID_PARAMETER_VALUE if there are not at least two
 * different shards of one table, which hold together all hashes with one
 * remainder of some number, and otherwise what shard_split_shard() raises.
 */
Datum
shard_merge_shards(PG_FUNCTION_ARGS)
{
	Replacement replacement = {0};
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	ShardTable *table;
	int			remainder;

	shard_check_argument(fcinfo, 0, "list of shards");
	PreventCommandIfReadOnly("merge_shards()");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), REGCLASSOID, sizeof(Oid), true,
					  TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		Oid			shard = DatumGetObjectId(elements[i]);
		Oid			logical;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("shard must not be null")));
		logical = logical_of(shard);
		if (i > 0 && logical != replacement.logical)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("shards \"%s\" and \"%s\" do not belong to the same foreign table",
							get_rel_name(DatumGetObjectId(elements[0])),
							get_rel_name(shard))));
		replacement.logical = logical;
		replacement.old_shards = list_append_unique_oid(replacement.old_shards,
														shard);
	}
	if (list_length(replacement.old_shards) < 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("merge_shards() requires at least two shards")));
	table = lock_logical(replacement.logical);
	for (int i = 0; i < n; i++)
		if (shard_table_find(table, DatumGetObjectId(elements[i])) < 0)
			(void) logical_of(DatumGetObjectId(elements[i]));
	if (!common_place(table, replacement.old_shards, &replacement.modulus,
					  &remainder))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("these shards of foreign table \"%s\" cannot be merged",
						get_rel_name(replacement.logical)),
				 errdetail("Together they do not hold exactly the hashes with one remainder of some modulus."),
				 errhint("See column \"place\" of view shard_fdw.stat_shards: of 8 shards, 0 and 4 can be merged, 1 and 5, and so on.")));
	replacement.remainders = list_make1_int(remainder);
	check_modulus(table, &replacement);
	shard_progress_start("merge_shards", replacement.logical,
						 shard_count_rows(replacement.old_shards));
	(void) replace_shards(&replacement);
	shard_progress_end();
	return_shards(fcinfo, &replacement);
	return (Datum) 0;
}

/*
 * How many shards there should be first on the way to "count" shards: as many,
 * or, if they would not go together with those that are there, a number that
 * divides both.  Between the steps the table is used.
 */
static int
next_count(const ShardTable *table, int own_modulus, int count)
{
	int64		modulus = (int64) own_modulus * count;
	bool		all = true;
	int			common = count;

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (member->modulus == 0)
			continue;
		all &= modulus % member->modulus == 0 || member->modulus % modulus == 0;
		common = greatest_divisor(common, Max(member->modulus / own_modulus, 1));
	}
	/* One step that replaces all shards has nothing in between. */
	return all || common == 1 ? count : common;
}

/*
 * Find the next shards to be replaced on the way to "count" shards.  Returns
 * false if there are none.
 *
 * These are the smallest set of old shards that hold together what some of the
 * new ones are to hold: one shard to be split, or those to be merged.  A count
 * that is neither a multiple nor a divisor of the old one takes both, one after
 * the other, or all shards at once.
 */
static bool
find_next(ShardTable *table, int count, Replacement *replacement)
{
	int			own_modulus;
	int			own_remainder;
	int		   *group;			/* of a new shard: itself or one before it */
	int		   *first;			/* of a member: a new shard that overlaps it */
	double		old_share = 0;
	int			chosen = -1;

	(void) shard_own_place(table, &own_modulus, &own_remainder);
	count = next_count(table, own_modulus, count);
	if ((int64) own_modulus * count > SHARD_MAX_SHARDS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("foreign table \"%s\" cannot have %d shards of equal size",
						get_rel_name(table->relid), count)));
	replacement->modulus = own_modulus * count;
	replacement->old_shards = NIL;
	replacement->remainders = NIL;
	replacement->new_shards = NIL;

	/* Those that overlap the same member are of one group. */
	group = palloc(sizeof(int) * count);
	first = palloc(sizeof(int) * table->nmembers);
	for (int i = 0; i < count; i++)
		group[i] = i;
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];
		int			divisor = greatest_divisor(member->modulus,
											   replacement->modulus);

		CHECK_FOR_INTERRUPTS();
		first[i] = -1;
		for (int j = 0; j < count; j++)
		{
			int			remainder = own_remainder + j * own_modulus;
			int			a;
			int			b;

			if (remainder % divisor != member->remainder % divisor)
				continue;
			if (first[i] < 0)
				first[i] = j;
			for (a = first[i]; group[a] != a; a = group[a])
				;
			for (b = j; group[b] != b; b = group[b])
				;
			group[Max(a, b)] = Min(a, b);
		}
	}
	for (int i = 0; i < count; i++)
		group[i] = group[group[i]];

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (first[i] < 0 || member->modulus == replacement->modulus)
			continue;
		/* Better now than after some steps. */
		shard_check_plain(table->relid, member, "reshard");
		if (chosen < 0)
			chosen = group[first[i]];
	}
	if (chosen < 0)
		return false;
	for (int i = 0; i < count; i++)
		if (group[i] == chosen)
			replacement->remainders = lappend_int(replacement->remainders,
												  own_remainder + i * own_modulus);
	for (int i = 0; i < table->nmembers; i++)
	{
		if (first[i] < 0 || group[first[i]] != chosen)
			continue;
		replacement->old_shards = lappend_oid(replacement->old_shards,
											  table->members[i].relid);
		old_share += 1.0 / table->members[i].modulus;
	}
	if (fabs(old_share * replacement->modulus -
			 list_length(replacement->remainders)) > 1e-3)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the shards of foreign table \"%s\" do not hold each hash once",
						get_rel_name(table->relid)),
				 errhint("See SELECT * FROM shard_fdw.check_shards(%s).",
						 quote_literal_cstr(shard_qualified_name(table->relid)))));
	return true;
}

/*
 * Do the next step, and commit.  Returns false if there is none.
 */
static bool
do_next(Oid logical, int count, int64 *nrows, long *longest)
{
	Replacement replacement = {.logical = logical};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "step of reshard_online()",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	bool		result;

	CHECK_FOR_INTERRUPTS();
	PushActiveSnapshot(GetTransactionSnapshot());
	result = find_next(lock_logical(logical), count, &replacement);
	if (result)
		*nrows += replace_shards(&replacement);
	PopActiveSnapshot();
	MemoryContextSwitchTo(oldcontext);
	SPI_commit();
	if (result)
		*longest = Max(*longest,
					   TimestampDifferenceMilliseconds(replacement.locked_at,
													   GetCurrentTimestamp()));
	MemoryContextDelete(context);
	return result;
}

/*
 * shard_reshard_online(logical regclass, new_count int)
 *		SQL procedure reshard_online(): gives a hash table another number of
 *		shards, a few of them at a time, in a transaction each.
 *
 * Raises ERRCODE_ACTIVE_SQL_TRANSACTION in a transaction block,
 * ERRCODE_OBJECT_IN_USE while there is another run or one of run_on_shards(),
 * and otherwise what shard_split_shard() raises.
 */
Datum
shard_reshard_online(PG_FUNCTION_ARGS)
{
	Oid			logical;
	int			count;
	char	   *name;
	LOCKTAG		tag;
	int64		nrows = 0;
	long		longest = 0;

	shard_check_count(fcinfo, "reshard_online()", false);
	logical = PG_GETARG_OID(0);
	count = PG_GETARG_INT32(1);
	shard_begin_commands(fcinfo, logical, "reshard_online()",
						 "In a transaction block, use split_shard(), merge_shards() or reshard().",
						 &tag);
	name = get_rel_name(logical);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	shard_progress_start("reshard_online", logical,
						 shard_count_rows(find_inheritance_children(logical,
																	NoLock)));
	while (do_next(logical, count, &nrows, &longest))
		;
	shard_progress_end();
	LockRelease(&tag, ExclusiveLock, true);
	SPI_finish();
	ereport(NOTICE,
			(errmsg("foreign table \"%s\" has %d shards", name, count),
			 errdetail("Copied rows: " INT64_FORMAT ". No writer has waited for longer than %ld ms.",
					   nrows, longest)));
	PG_RETURN_VOID();
}
