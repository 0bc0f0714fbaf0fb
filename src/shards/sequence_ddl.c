/*-------------------------------------------------------------------------
 *
 * sequence_ddl.c
 *	  The sequences of a logical table's slots: creating them, giving them to
 *	  shards, and checks after DDL that concerns ids.
 *
 * The catalogs are the truth here as well.  The slots that were ever in use
 * are those that have a sequence which belongs to the column of the logical
 * table, and its last value tells how far it has got.  A dump carries both.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/syscache.h"

/* A shard that can give fewer ids than this is worth a warning. */
#define FEW_IDS		INT64CONST(10000000)

/*
 * shard_query_int64
 *		The one value that a query returns, as a bigint; *isnull if it is null
 *		or there is no row.  SPI is connected.
 *
 * Raises what the query raises.
 */
int64
shard_query_int64(const char *sql, bool *isnull)
{
	if (SPI_execute(sql, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", sql);
	*isnull = true;
	return SPI_processed == 0 ? 0 :
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 1, isnull));
}

/*
 * The value that an ascending sequence gives next, or the greatest bigint if
 * there is none.
 */
static int64
next_value(Oid sequence, int64 increment)
{
	bool		isnull;

	return shard_query_int64(psprintf("SELECT CASE WHEN NOT is_called THEN last_value"
									  " WHEN last_value > " INT64_FORMAT " THEN " INT64_FORMAT
									  " ELSE last_value + (" INT64_FORMAT ") END FROM %s",
									  PG_INT64_MAX - Max(increment, 0), PG_INT64_MAX,
									  increment, shard_qualified_name(sequence)),
							 &isnull);
}

/*
 * shard_advance_sequence
 *		Move an ascending sequence past "floor", never backwards.  Returns the
 *		value that it gives next.  SPI is connected.
 *
 * If it has to be moved, it stays locked against others that draw from it
 * until the end of the transaction.  A sequence that has no such value gives
 * none any more, and the result is greater than its maximum.  Raises what
 * setval() raises.
 */
int64
shard_advance_sequence(Oid sequence, int64 floor)
{
	FormData_pg_sequence form;
	int64		increment;
	int64		ahead;
	int64		next;
	bool		is_called;
	bool		isnull;

	if (!shard_get_sequence(sequence, &form))
		elog(ERROR, "cache lookup failed for sequence %u", sequence);
	increment = form.seqincrement;
	next = next_value(sequence, increment);
	if (increment <= 0 || next > floor)
		return next;

	/* Setting it must not undo what others draw meanwhile. */
	LockRelationOid(sequence, ShareRowExclusiveLock);
	next = next_value(sequence, increment);
	if (next > floor)
		return next;
	if (floor > form.seqmax - increment)
	{
		/* It has come to its end. */
		(void) shard_query_int64(psprintf("SELECT pg_catalog.setval(%u, " INT64_FORMAT ")",
										  sequence, form.seqmax), &isnull);
		return next_value(sequence, increment);
	}

	/*
	 * As far from the start as before, in whole steps.  As if the value
	 * before had been given, for one that has not been called has no last
	 * value.
	 */
	ahead = (form.seqstart - floor - 1) % increment;
	next = floor + 1 + (ahead < 0 ? ahead + increment : ahead);
	is_called = next >= form.seqmin + increment;
	(void) shard_query_int64(psprintf("SELECT pg_catalog.setval(%u, " INT64_FORMAT ", %s)",
									  sequence,
									  is_called ? next - increment : next,
									  is_called ? "true" : "false"), &isnull);
	return next;
}

/*
 * shard_id_slot_sequences
 *		The sequences that belong to a column of the logical table: those of
 *		its slots, and any that the user has made belong to it.
 *
 * The list is allocated in the current memory context.
 */
List *
shard_id_slot_sequences(Oid logical, AttrNumber attno)
{
	List	   *result = NIL;
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData keys[3];
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(logical));
	ScanKeyInit(&keys[2], Anum_pg_depend_refobjsubid, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(attno));
	catalog = table_open(DependRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, DependReferenceIndexId, true, NULL, 3,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		if (depend->classid == RelationRelationId && depend->objsubid == 0 &&
			depend->deptype == DEPENDENCY_AUTO &&
			get_rel_relkind(depend->objid) == RELKIND_SEQUENCE)
			result = lappend_oid(result, depend->objid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Does a shard draw its ids from the sequence?
 */
static bool
has_shard(const ShardTable *table, Oid sequence)
{
	for (int i = 0; i < table->nmembers; i++)
		if (table->members[i].sequence == sequence)
			return true;
	return false;
}

/*
 * The stride of a logical table's own sequences, or 0 if there are none: the
 * one that most of them have.
 *
 * A sequence in steps of 1 that no shard draws from is taken for what is left
 * of a time when the column was a serial one.
 */
static int
own_stride(const ShardTable *table, List *sequences)
{
	int		   *votes;
	int			result = 0;
	ListCell   *lc;

	if (sequences == NIL)
		return 0;
	votes = palloc0(sizeof(int) * (SHARD_MAX_SHARDS + 1));
	foreach(lc, sequences)
	{
		FormData_pg_sequence form;

		if (shard_get_sequence(lfirst_oid(lc), &form) &&
			form.seqincrement >= 1 && form.seqincrement <= SHARD_MAX_SHARDS &&
			(form.seqincrement > 1 || has_shard(table, lfirst_oid(lc))))
			votes[form.seqincrement]++;
	}
	for (int stride = 1; stride <= SHARD_MAX_SHARDS; stride++)
		if (votes[stride] > votes[result])
			result = stride;
	pfree(votes);
	return result;
}

/*
 * The stride for a new sequence: that of the others, for ids of two strides
 * would be the same sooner or later; or else the one given.
 */
static int
common_stride(const ShardTable *table, List *sequences, int stride)
{
	int			own = own_stride(table, sequences);

	if (own > 0)
		return own;
	for (int i = 0; i < table->nmembers; i++)
	{
		FormData_pg_sequence form;

		if (table->members[i].stride > 0)
			return table->members[i].stride;
		if (shard_get_sequence(table->members[i].sequence, &form) &&
			form.seqincrement > 1 && form.seqincrement <= SHARD_MAX_SHARDS)
			return (int) form.seqincrement;
	}
	return stride;
}

/*
 * The slot for a shard that has none: the first of those that closed shards
 * have and no open one, so that a new generation of shards goes on with the
 * slots of the one before; else one that was never in use, the next after the
 * greatest if there is one; or else one that no other shard has now, the
 * oldest.
 *
 * Raises ERRCODE_PROGRAM_LIMIT_EXCEEDED if there is none.
 */
static int
free_id_slot(const ShardTable *table, List *sequences, int stride, Oid shard)
{
	bool	   *used = palloc0(sizeof(bool) * (stride + 1));
	bool	   *taken = palloc0(sizeof(bool) * (stride + 1));
	bool	   *open = palloc0(sizeof(bool) * (stride + 1));
	bool	   *closed = palloc0(sizeof(bool) * (stride + 1));
	int			result = 0;
	ListCell   *lc;

	foreach(lc, sequences)
		used[shard_sequence_id_slot(lfirst_oid(lc), stride)] = true;
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];
		int			id_slot = shard_sequence_id_slot(member->sequence, stride);

		/* What the shard itself has, its model has left it. */
		if (member->relid == shard)
			continue;
		if (member->stride == stride)
			taken[member->id_slot] = true;
		taken[id_slot] = true;
		open[id_slot] |= member->is_open;
		closed[id_slot] |= member->state == SHARD_CLOSED &&
			list_member_oid(sequences, member->sequence);
	}
	for (int id_slot = 1; id_slot <= stride; id_slot++)
		used[id_slot] |= taken[id_slot];

	for (int id_slot = 1; id_slot <= stride && result == 0; id_slot++)
		if (closed[id_slot] && !open[id_slot])
			result = id_slot;
	if (result == 0)
		for (int id_slot = stride; id_slot > 0 && !used[id_slot]; id_slot--)
			result = id_slot;
	for (int id_slot = stride; id_slot > 0 && result == 0; id_slot--)
		if (!used[id_slot])
			result = id_slot;
	for (int id_slot = 1; id_slot <= stride && result == 0; id_slot++)
		if (!taken[id_slot])
			result = id_slot;
	pfree(used);
	pfree(taken);
	pfree(open);
	pfree(closed);
	if (result == 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("all %d slots of foreign table \"%s\" are taken", stride,
						get_rel_name(table->relid)),
				 errdetail("The sequences of its shards go in steps of %d.",
						   stride),
				 errhint("Drop a shard.  To replace shards of a hash table, use SELECT shard_fdw.reshard(), which needs no slots beside theirs.")));
	return result;
}

/*
 * Ids up to this one may have been given, or loaded, that a new sequence for
 * the slot would give again.
 *
 * Sequences of another stride have given any ids.  Where ids of any slot have
 * come with a table, reset_sequences() has got all sequences past them, so the
 * one that is least far tells how far that is.
 */
static int64
ids_in_use(const ShardTable *table, List *sequences, Oid shard, int stride,
		   int id_slot)
{
	int64		result = PG_INT64_MIN;
	int64		least = PG_INT64_MAX;
	ListCell   *lc;

	sequences = list_copy(sequences);
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (member->relid != shard && OidIsValid(member->sequence) &&
			pg_class_aclcheck(member->sequence, GetUserId(),
							  ACL_SELECT) == ACLCHECK_OK)
			sequences = list_append_unique_oid(sequences, member->sequence);
	}
	foreach(lc, sequences)
	{
		FormData_pg_sequence form;

		if (!shard_get_sequence(lfirst_oid(lc), &form) ||
			form.seqincrement <= 0)
			continue;
		if (form.seqincrement != stride)
			result = Max(result, next_value(lfirst_oid(lc), form.seqincrement) - 1);
		else if (least > id_slot)
			least = Min(least, next_value(lfirst_oid(lc), stride));
	}
	list_free(sequences);
	return least == PG_INT64_MAX ? result : Max(result, least - 1);
}

/*
 * No sequence has given an id greater than this.
 */
static int64
greatest_id(List *sequences)
{
	int64		result = PG_INT64_MIN;
	ListCell   *lc;

	foreach(lc, sequences)
	{
		FormData_pg_sequence form;

		if (shard_get_sequence(lfirst_oid(lc), &form) && form.seqincrement > 0)
			result = Max(result, next_value(lfirst_oid(lc), form.seqincrement) - 1);
	}
	return result;
}

/*
 * Create the sequence of a slot.
 */
static Oid
create_sequence(Relation logical, Form_pg_attribute att, int stride, int id_slot)
{
	Oid			schema = RelationGetNamespace(logical);
	const char *name = ChooseRelationName(RelationGetRelationName(logical),
										  NameStr(att->attname),
										  psprintf("%d_seq", id_slot), schema,
										  false);

	shard_execute("CREATE SEQUENCE %s AS %s START %d INCREMENT %d OWNED BY %s.%s",
				  quote_qualified_identifier(get_namespace_name(schema), name),
				  format_type_be(att->atttypid), id_slot, stride,
				  shard_qualified_name(RelationGetRelid(logical)),
				  quote_identifier(NameStr(att->attname)));
	return get_relname_relid(name, schema);
}

/*
 * Have the sequence of a slot start where a new shard begins to draw from it.
 *
 * This tells how many ids the shard has drawn, and is where the sequence is
 * restarted.  Not worth waiting for others that draw from it now.
 *
 * ALTER SEQUENCE would make a new file for the sequence, and a rollback would
 * bring the old one back, with the ids that were given meanwhile.
 */
static void
start_here(Oid sequence)
{
	FormData_pg_sequence form;
	Relation	catalog;
	HeapTuple	tuple;
	int64		next;

	if (!shard_get_sequence(sequence, &form))
		return;
	next = next_value(sequence, form.seqincrement);
	if (next == form.seqstart || next < form.seqmin || next > form.seqmax ||
		(next - form.seqstart) % form.seqincrement != 0 ||
		!ConditionalLockRelationOid(sequence, ShareRowExclusiveLock))
		return;
	catalog = table_open(SequenceRelationId, RowExclusiveLock);
	tuple = SearchSysCacheCopy1(SEQRELID, ObjectIdGetDatum(sequence));
	if (HeapTupleIsValid(tuple))
	{
		((Form_pg_sequence) GETSTRUCT(tuple))->seqstart =
			next_value(sequence, form.seqincrement);
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
		heap_freetuple(tuple);
	}
	table_close(catalog, RowExclusiveLock);
	CommandCounterIncrement();
}

/*
 * shard_add_sequence
 *		Have a shard draw from the sequence of a slot for the column of the
 *		logical table that has option "sequence", if there is one.  SPI is
 *		connected.
 *
 * The slot is that of the shard's in_slot() constraint, or else a free one.
 * A shard that is not new may have drawn from another sequence before, and
 * its ids must go on ascending.  One that is not empty may have any ids, and
 * gets no constraint.  Raises ERRCODE_PROGRAM_LIMIT_EXCEEDED if there is no
 * free slot, and what the DDL commands raise.
 */
void
shard_add_sequence(Relation logical, Oid shard, bool is_new, bool is_empty)
{
	Oid			relid = RelationGetRelid(logical);
	bool		always;
	ShardOptions options;
	AttrNumber	attno = shard_sequence_column(relid, false, &always);
	Form_pg_attribute att;
	HeapTuple	tuple;
	const char *column;
	char	   *shard_name;
	List	   *sequences;
	Oid			sequence = InvalidOid;
	char		identity = '\0';
	ShardTable *table;
	int			ordinal;
	int			stride;
	int			id_slot;
	bool		has_slot;
	ListCell   *lc;

	if (attno == 0)
		return;
	shard_get_options(relid, &options);
	table = shard_table_get(relid);
	sequences = shard_id_slot_sequences(relid, attno);
	ordinal = shard_table_find(table, shard);
	has_slot = ordinal >= 0 && table->members[ordinal].stride > 0;
	if (has_slot)
	{
		/* It has lost its sequence only. */
		stride = table->members[ordinal].stride;
		id_slot = table->members[ordinal].id_slot;
	}
	else
	{
		stride = common_stride(table, sequences, options.max_shards);
		id_slot = free_id_slot(table, sequences, stride, shard);
	}
	att = TupleDescAttr(RelationGetDescr(logical), attno - 1);
	column = quote_identifier(NameStr(att->attname));
	shard_name = shard_qualified_name(shard);

	tuple = SearchSysCacheAttName(shard, NameStr(att->attname));
	if (HeapTupleIsValid(tuple))
	{
		identity = ((Form_pg_attribute) GETSTRUCT(tuple))->attidentity;
		ReleaseSysCache(tuple);
	}
	if (identity != '\0')
		shard_execute("ALTER TABLE %s ALTER %s DROP IDENTITY", shard_name,
					  column);

	foreach(lc, sequences)
	{
		if (shard_sequence_id_slot(lfirst_oid(lc), stride) == id_slot)
			sequence = lfirst_oid(lc);
	}
	if (!OidIsValid(sequence))
	{
		int64		floor = ids_in_use(table, sequences, shard, stride, id_slot);

		sequence = create_sequence(logical, att, stride, id_slot);
		(void) shard_advance_sequence(sequence, floor);
	}
	if (!has_slot && !is_new)
		(void) shard_advance_sequence(sequence, greatest_id(sequences));
	if (!has_slot)
		start_here(sequence);
	shard_execute("ALTER TABLE %s ALTER %s SET DEFAULT nextval(%s), ALTER %s SET NOT NULL",
				  shard_name, column,
				  quote_literal_cstr(shard_qualified_name(sequence)), column);
	if (always && is_empty && !has_slot)
		shard_execute("ALTER TABLE %s ADD CONSTRAINT shard_slot CHECK (shard_fdw.in_slot(%d, %d, %s))",
					  shard_name, stride, id_slot, column);
}

/*
 * Raise ERRCODE_INVALID_OBJECT_DEFINITION if the column belongs to the key.
 */
static void
check_not_key(Oid relid, AttrNumber attno, PartitionKey key)
{
	for (int i = 0; key != NULL && i < key->partnatts; i++)
		if (key->partattrs[i] == attno)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("column \"%s\" of foreign table \"%s\" cannot have option \"sequence\"",
							get_attname(relid, attno, false),
							get_rel_name(relid)),
					 errdetail("It belongs to the key, which decides the shard, whose sequence it would be.")));
}

/*
 * Have the sequences give what the column can hold, if it has become wider.
 */
static void
widen_sequences(List *sequences, Oid type)
{
	ListCell   *lc;

	foreach(lc, sequences)
	{
		FormData_pg_sequence form;

		if (shard_get_sequence(lfirst_oid(lc), &form) &&
			get_typlen(form.seqtypid) < get_typlen(type))
			shard_execute("ALTER SEQUENCE %s AS %s",
						  shard_qualified_name(lfirst_oid(lc)),
						  format_type_be(type));
	}
}

/*
 * shard_check_sequence
 *		See to the column of a new or altered logical table that has option
 *		"sequence", if there is one: its sequences follow its type.  SPI is
 *		connected.
 *
 * "key" is the table's hash key, or NULL.  Raises
 * ERRCODE_INVALID_OBJECT_DEFINITION if a column cannot have the option, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the table may have more shards
 * than there are slots.
 */
void
shard_check_sequence(Oid relid, PartitionKey key)
{
	bool		always;
	AttrNumber	attno = shard_sequence_column(relid, false, &always);
	ShardOptions options;
	List	   *sequences;
	int			stride;

	if (attno == 0)
		return;
	check_not_key(relid, attno, key);
	shard_get_options(relid, &options);
	sequences = shard_id_slot_sequences(relid, attno);
	stride = own_stride(shard_table_get(relid), sequences);
	if (stride > 0 && options.max_shards > stride)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("option \"max_shards\" of foreign table \"%s\" cannot be greater than %d",
						get_rel_name(relid), stride),
				 errdetail("The sequences of column \"%s\" go in steps of %d, so there are ids for %d shards.",
						   get_attname(relid, attno, false), stride, stride),
				 errhint("Create another foreign table with more \"max_shards\", and insert the rows there.")));
	widen_sequences(sequences, get_atttype(relid, attno));
}

/*
 * Warn if the shards of a logical table will be able to give few ids.  Once
 * they have sequences it is too late, unless the column has got another type.
 */
static void
warn_of_few_ids(Oid relid)
{
	const ShardTable *table = shard_table_get(relid);
	ShardOptions options;
	FormData_pg_sequence form;
	List	   *sequences;
	Oid			type;
	int			stride;
	int64		count;

	if (table->seq_attno == 0)
		return;
	type = get_atttype(relid, table->seq_attno);
	sequences = shard_id_slot_sequences(relid, table->seq_attno);
	if (sequences != NIL &&
		shard_get_sequence(linitial_oid(sequences), &form) &&
		form.seqtypid == type)
		return;
	shard_get_options(relid, &options);
	stride = own_stride(table, sequences);
	if (stride == 0)
		stride = options.max_shards;
	count = (type == INT2OID ? PG_INT16_MAX : type == INT4OID ? PG_INT32_MAX :
			 PG_INT64_MAX) / stride;
	if (count < FEW_IDS)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("shards of foreign table \"%s\" can give few ids",
						get_rel_name(relid)),
				 errdetail("Column \"%s\" is of type %s, and its sequences go in steps of %d: each has " INT64_FORMAT " values.",
						   get_attname(relid, table->seq_attno, false),
						   format_type_be(type), stride, count),
				 errhint("Use type bigint, or a smaller value of option \"max_shards\".")));
}

/*
 * Does a table take no space, and so have no rows?  Nobody asks other servers.
 */
static bool
is_empty_table(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		result = rel->rd_rel->relkind == RELKIND_RELATION &&
		RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Warn if an open shard that ought to draw from a sequence does not.
 */
static bool
warn_of_missing_sequence(const ShardTable *table, const ShardMember *member)
{
	if (table->seq_attno == 0 || !member->is_open ||
		OidIsValid(member->sequence) || shard_is_logical(member->relid))
		return false;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("shard \"%s\" of foreign table \"%s\" has no sequence for column \"%s\"",
					get_rel_name(member->relid), get_rel_name(table->relid),
					get_attname(table->relid, table->seq_attno, false)),
			 errdetail("Inserts that go to it will fail."),
			 errhint("Give it one with SELECT shard_fdw.reset_sequences().")));
	return true;
}

/*
 * Warn if the sequence of a shard gives ids that sequences of others give.
 */
static bool
warn_of_other_ids(const ShardTable *table, const ShardMember *member)
{
	List	   *sequences = shard_id_slot_sequences(table->relid, table->seq_attno);
	int			stride = own_stride(table, sequences);
	int			id_slot;

	if (stride == 0 || !OidIsValid(member->sequence) || !member->is_open ||
		list_member_oid(sequences, member->sequence))
		return false;
	id_slot = shard_sequence_id_slot(member->sequence, stride);
	if (id_slot > 0)
	{
		bool		is_taken = false;
		ListCell   *lc;

		foreach(lc, sequences)
			is_taken |= shard_sequence_id_slot(lfirst_oid(lc), stride) == id_slot;
		if (!is_taken)
			return false;
	}
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("shard \"%s\" of foreign table \"%s\" will get ids that other shards get, too",
					get_rel_name(member->relid), get_rel_name(table->relid)),
			 errdetail("Its default of column \"%s\" draws from sequence \"%s\", which keeps to no slot of its own.",
					   get_attname(table->relid, table->seq_attno, false),
					   get_rel_name(member->sequence)),
			 errhint("Drop the default, and run SELECT shard_fdw.reset_sequences().")));
	return true;
}

/*
 * Warn if a table that has been made a shard of a logical table with ids
 *		has ids that sequences may give again, or no proper sequence.
 *
 * Does nothing for a table that is no shard.  Looks at catalogs and the size
 * of the table only.  A shard without rows is not asked for a sequence: a
 * restore gives it one later.
 */
static void
check_attached_ids(Oid shard)
{
	ListCell   *lc;

	foreach(lc, shard_logical_parents(shard))
	{
		ShardTable *table = shard_table_get(lfirst_oid(lc));
		int			ordinal = shard_table_find(table, shard);
		const ShardMember *member;

		if (ordinal < 0 || table->seq_attno == 0 || shard_is_logical(shard))
			continue;
		member = &table->members[ordinal];
		if (warn_of_other_ids(table, member) || is_empty_table(shard) ||
			warn_of_missing_sequence(table, member) || member->is_id_slot_valid)
			continue;
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("sequences of foreign table \"%s\" may give ids of shard \"%s\" again",
						get_rel_name(table->relid), get_rel_name(shard)),
				 errdetail("It has no validated constraint that says which values of column \"%s\" it holds.",
						   get_attname(table->relid, table->seq_attno, false)),
				 errhint("Get the sequences past its ids with SELECT shard_fdw.reset_sequences().")));
	}
}

/*
 * Warn if a shard, or shards of a logical table, have no sequence for a
 * column with option "sequence".
 */
static void
check_lost_sequences(Oid relid)
{
	ListCell   *lc;

	if (shard_is_logical(relid))
	{
		ShardTable *table = shard_table_get(relid);

		for (int i = 0; i < table->nmembers; i++)
			if (warn_of_missing_sequence(table, &table->members[i]))
				break;
	}
	foreach(lc, shard_logical_parents(relid))
	{
		ShardTable *table = shard_table_get(lfirst_oid(lc));
		int			ordinal = shard_table_find(table, relid);

		if (ordinal >= 0)
			(void) warn_of_missing_sequence(table, &table->members[ordinal]);
	}
}

/*
 * shard_check_ids
 *		After an ALTER TABLE of a logical table or a shard: warn if it leaves
 *		shards without ids, with few, or with some that may be given again.
 *
 * CREATE FOREIGN TABLE comes here, too: PostgreSQL sets the options of columns
 * with an ALTER TABLE of its own.
 */
void
shard_check_ids(Oid relid, const AlterTableStmt *stmt)
{
	bool		is_attached = false;
	bool		is_changed = false;
	bool		is_defined = false;
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		switch (lfirst_node(AlterTableCmd, lc)->subtype)
		{
			case AT_AddInherit:
				is_attached = true;
				break;
			case AT_ColumnDefault:
				is_changed = true;
				break;
			case AT_AddColumn:
			case AT_AlterColumnGenericOptions:
				is_changed = true;
				is_defined = true;
				break;
			case AT_GenericOptions:
			case AT_AlterColumnType:
				is_defined = true;
				break;
			default:
				break;
		}
	}
	if (is_defined && shard_is_logical(relid))
		warn_of_few_ids(relid);
	if (is_attached)
		check_attached_ids(relid);
	else if (is_changed)
		check_lost_sequences(relid);
}
