/*-------------------------------------------------------------------------
 *
 * sequence_reset.c
 *	  Looking after sequences: after rows have got ids from elsewhere, or
 *	  tables that have none have become shards.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/commit_ts.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_reset_sequences);
PG_FUNCTION_INFO_V1(shard_own_sequences);
PG_FUNCTION_INFO_V1(shard_check_order);

/*
 * The greatest value of a column, of the table with its children or without;
 * *isnull if there is none.
 */
static int64
maximum(Oid relid, const char *column, bool only, bool *isnull)
{
	return shard_query_int64(psprintf("SELECT pg_catalog.max(%s)::pg_catalog.int8 FROM %s%s",
									  quote_identifier(column), only ? "ONLY " : "",
									  shard_qualified_name(relid)), isnull);
}

/*
 * Return a sequence and its next value, unless no result is wanted.
 */
static void
return_sequence(ReturnSetInfo *rsinfo, Oid sequence, int64 next)
{
	Datum		values[2] = {ObjectIdGetDatum(sequence), Int64GetDatum(next)};
	bool		isnull[2] = {false, false};

	if (rsinfo == NULL)
		return;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
}

/*
 * What is known of a shard now, or NULL if it is no longer one: what reads or
 * changes the shards may run functions of their owner's, which may do anything.
 */
static const ShardMember *
find_member(Oid logical, Oid shard)
{
	ShardTable *table = shard_table_get(logical);
	int			ordinal = shard_table_find(table, shard);

	return ordinal < 0 ? NULL : &table->members[ordinal];
}

/* The ids that a shard has. */
typedef struct ShardIds
{
	ShardMember member;
	int64		maximum;		/* PG_INT64_MIN: none */
} ShardIds;

/*
 * Find out which ids the shards have.  Those that are no longer shards are
 * left out.  Returns how many are left.
 */
static int
read_ids(Oid logical, const char *column, List *shards, ShardIds *ids)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, shards)
	{
		const ShardMember *member;
		bool		isnull;
		int64		value = maximum(lfirst_oid(lc), column, true, &isnull);

		member = find_member(logical, lfirst_oid(lc));
		if (member == NULL)
			continue;
		ids[n].member = *member;
		ids[n++].maximum = isnull ? PG_INT64_MIN : value;
	}
	return n;
}

/*
 * The greatest id that a sequence must not give again.
 */
static int64
sequence_floor(Oid sequence, const ShardIds *ids, int n)
{
	int64		result = PG_INT64_MIN;

	for (int i = 0; i < n; i++)
	{
		const ShardMember *member = &ids[i].member;

		/* An id that may be of any slot must be behind all sequences. */
		if (member->sequence == sequence || !member->is_id_slot_valid ||
			shard_sequence_id_slot(sequence, member->stride) == member->id_slot)
			result = Max(result, ids[i].maximum);
	}
	return result;
}

/*
 * The shards whose ids this table's sequences can give.  With a warning about
 * those that have none and cannot get one.
 */
static List *
shards_with_ids(const ShardTable *table)
{
	List	   *result = NIL;

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		/* What a logical table draws is for shards of its own. */
		if (!shard_is_logical(member->relid))
			result = lappend_oid(result, member->relid);
		else if (!OidIsValid(member->sequence))
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("shard \"%s\" of foreign table \"%s\" cannot get a sequence for column \"%s\"",
							get_rel_name(member->relid),
							get_rel_name(table->relid),
							get_attname(table->relid, table->seq_attno, false)),
					 errdetail("It is a foreign table of shard_fdw itself."),
					 errhint("Attach the shards of \"%s\" to \"%s\" in its place.",
							 get_rel_name(member->relid),
							 get_rel_name(table->relid))));
	}
	return result;
}

/*
 * shard_reset_shards
 *		Move the sequences of a logical table's shards, and of slots that no
 *		shard has now, past the ids that are there, and give one to shards
 *		that have none.
 *
 * The shards are locked, SPI is connected.  "rsinfo" gets a row for each
 * sequence that a shard draws from, if given.
 */
void
shard_reset_shards(Relation logical, ReturnSetInfo *rsinfo)
{
	Oid			relid = RelationGetRelid(logical);
	ShardTable *table = shard_table_get(relid);
	AttrNumber	attno = table->seq_attno;
	ShardIds   *ids;
	int			n;
	List	   *shards;
	List	   *sequences = NIL;
	List	   *idle;
	ListCell   *lc;

	if (attno == 0)
		return;
	shards = shards_with_ids(table);
	foreach(lc, shards)
	{
		const ShardMember *member = find_member(relid, lfirst_oid(lc));

		if (member != NULL && !OidIsValid(member->sequence))
		{
			bool		is_empty;

			(void) shard_query_int64(psprintf("SELECT 1::pg_catalog.int8 FROM ONLY %s",
											  shard_qualified_name(lfirst_oid(lc))),
									 &is_empty);
			shard_add_sequence(logical, lfirst_oid(lc), false, is_empty);
		}
	}

	ids = palloc(sizeof(ShardIds) * list_length(shards));
	n = read_ids(relid, get_attname(relid, attno, false), shards, ids);
	for (int i = 0; i < n; i++)
		if (OidIsValid(ids[i].member.sequence))
			sequences = list_append_unique_oid(sequences,
											   ids[i].member.sequence);
	foreach(lc, sequences)
		return_sequence(rsinfo, lfirst_oid(lc),
						shard_advance_sequence(lfirst_oid(lc),
											   sequence_floor(lfirst_oid(lc),
															  ids, n)));

	/* Shards that come later go on with these. */
	idle = list_difference_oid(shard_id_slot_sequences(relid, attno), sequences);
	foreach(lc, idle)
		(void) shard_advance_sequence(lfirst_oid(lc),
									  sequence_floor(lfirst_oid(lc), ids, n));
}

/*
 * The sequence that feeds a column, by its default or as identity, or
 * InvalidOid.
 */
static Oid
column_sequence(Oid relid, Form_pg_attribute att)
{
	Oid			result;
	bool		isnull;

	if (!shard_is_integer_type(att->atttypid))
		return InvalidOid;
	result = shard_default_sequence(relid, NameStr(att->attname));
	if (!OidIsValid(result) && att->attidentity)
		result = (Oid) shard_query_int64(psprintf("SELECT pg_catalog.pg_get_serial_sequence(%s, %s)::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int8",
												  quote_literal_cstr(shard_qualified_name(relid)),
												  quote_literal_cstr(NameStr(att->attname))),
										 &isnull);
	return result;
}

/*
 * Raise an error unless the relation is a table of the caller's.
 */
static void
check_own_table(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	if (get_rel_name(relid) == NULL)
		shard_report_missing(relid);
	if (relkind != RELKIND_RELATION && relkind != RELKIND_FOREIGN_TABLE &&
		relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", get_rel_name(relid))));
	if (!shard_class_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

/*
 * Lock a table of the caller's and its children.  Returns it.
 */
static Relation
open_owned(FunctionCallInfo fcinfo, const char *function, LOCKMODE lockmode)
{
	Oid			relid = PG_GETARG_OID(0);

	PreventCommandIfReadOnly(function);
	check_own_table(relid);
	(void) shard_lock_tree_patiently(relid, lockmode);
	check_own_table(relid);
	return table_open(relid, NoLock);
}

/*
 * shard_reset_sequences(tbl regclass)
 *		SQL function reset_sequences(): moves the sequences that feed a
 *		table's columns, and those of a logical table's shards, past the
 *		values that are there.  Returns each and the value it gives next.
 *
 * Strict.  Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the
 * table, and what shard_lock_tree_patiently() and setval() raise.
 */
Datum
shard_reset_sequences(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	rel = open_owned(fcinfo, "reset_sequences()",
								 ShareRowExclusiveLock);
	TupleDesc	desc = RelationGetDescr(rel);
	ShardIdentity identity;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	shard_become_owner(rel, &identity);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Oid			sequence = att->attisdropped ? InvalidOid :
			column_sequence(RelationGetRelid(rel), att);
		bool		isnull;
		int64		value;

		if (!OidIsValid(sequence))
			continue;
		value = maximum(RelationGetRelid(rel), NameStr(att->attname), false,
						&isnull);
		return_sequence(rsinfo, sequence,
						shard_advance_sequence(sequence, isnull ? PG_INT64_MIN : value));
	}
	if (shard_is_logical(RelationGetRelid(rel)))
		shard_reset_shards(rel, rsinfo);
	shard_restore_identity(&identity);
	SPI_finish();
	table_close(rel, NoLock);
	return (Datum) 0;
}

/*
 * The table that a sequence is to belong to that the default of a column of
 * the table "relid" draws from: the table, or if that is a shard the logical
 * table, for ids of a slot must not be given again once the shard is dropped.
 */
static Oid
future_owner(Oid logical, Oid relid, Oid sequence, const char *column)
{
	ShardTable *table = relid != logical && shard_is_logical(logical) ?
		shard_table_get(logical) : NULL;

	if (table != NULL && table->seq_attno != 0 &&
		shard_table_find(table, relid) >= 0 &&
		table->seq_attno == get_attnum(logical, column) &&
		get_rel_namespace(sequence) == get_rel_namespace(logical))
		return logical;
	return relid;
}

/*
 * shard_own_sequences(tbl regclass)
 *		SQL function own_sequences(): makes the sequences that the defaults of
 *		a table and of its children draw from belong to these columns, unless
 *		they belong to others.  Returns those it has changed.
 *
 * Strict.  Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the
 * tables and sequences, and what shard_lock_tree_patiently() raises.
 */
Datum
shard_own_sequences(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	rel = open_owned(fcinfo, "own_sequences()",
								 ShareUpdateExclusiveLock);
	Oid			top = RelationGetRelid(rel);
	List	   *relids = find_all_inheritors(top, NoLock, NULL);
	ShardIdentity identity;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	SPI_connect();
	shard_become_owner(rel, &identity);
	table_close(rel, NoLock);
	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);
		TupleDesc	desc;

		rel = table_open(relid, NoLock);
		desc = CreateTupleDescCopy(RelationGetDescr(rel));
		table_close(rel, NoLock);
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i);
			Oid			sequence;
			Datum		value;
			bool		isnull = false;

			if (att->attisdropped)
				continue;
			sequence = shard_default_sequence(relid, NameStr(att->attname));
			if (!OidIsValid(sequence))
				continue;
			(void) shard_query_int64(psprintf("SELECT 1::pg_catalog.int8 FROM pg_catalog.pg_depend"
											  " WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
											  " AND objid = %u AND refobjsubid > 0 AND deptype IN ('a', 'i')",
											  sequence), &isnull);
			if (!isnull)
				continue;
			shard_execute("ALTER SEQUENCE %s OWNED BY %s.%s",
						  shard_qualified_name(sequence),
						  shard_qualified_name(future_owner(top, relid, sequence,
															NameStr(att->attname))),
						  quote_identifier(NameStr(att->attname)));
			value = ObjectIdGetDatum(sequence);
			isnull = false;
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
								 &isnull);
		}
	}
	shard_restore_identity(&identity);
	SPI_finish();
	return (Datum) 0;
}

/*
 * shard_check_order(logical regclass)
 *		SQL function check_order(): the rows of each shard that were committed
 *		before a row with a smaller id, with the time.
 *
 * Strict.  Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the server does
 * not keep commit timestamps, or if the table has no column with option
 * "sequence", ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller may read the
 * table, and what reading the shards, as the table's owner, raises.
 */
Datum
shard_check_order(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			relid = PG_GETARG_OID(0);
	ShardTable *table;
	const char *column;
	List	   *shards = NIL;
	Relation	logical;
	ShardIdentity identity;
	ListCell   *lc;

	shard_check_logical(relid);
	shard_check_readable(relid);
	logical = table_open(relid, AccessShareLock);
	table = shard_table_get(relid);
	if (table->seq_attno == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no column with option \"sequence\"",
						get_rel_name(relid))));
	if (!track_commit_timestamp)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not get commit timestamp data"),
				 errhint("Make sure the configuration parameter \"%s\" is set.",
						 "track_commit_timestamp")));
	column = quote_identifier(get_attname(relid, table->seq_attno, false));
	for (int i = 0; i < table->nmembers; i++)
		if (table->members[i].is_local)
			shards = lappend_oid(shards, table->members[i].relid);

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	shard_become_owner(logical, &identity);
	foreach(lc, shards)
	{
		char	   *sql = psprintf("SELECT tableoid, id, committed"
								   " FROM (SELECT tableoid, %s::pg_catalog.int8 AS id,"
								   " pg_catalog.pg_xact_commit_timestamp(xmin) AS committed,"
								   " pg_catalog.max(pg_catalog.pg_xact_commit_timestamp(xmin))"
								   " OVER (ORDER BY %s ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before"
								   " FROM ONLY %s) s WHERE committed OPERATOR(pg_catalog.<) before",
								   column, column,
								   shard_qualified_name(lfirst_oid(lc)));

		if (SPI_execute(sql, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "SPI_execute failed: %s", sql);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			Datum		values[3];
			bool		isnull[3];

			for (int j = 0; j < 3; j++)
				values[j] = SPI_getbinval(SPI_tuptable->vals[i],
										  SPI_tuptable->tupdesc, j + 1,
										  &isnull[j]);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
		}
	}
	shard_restore_identity(&identity);
	SPI_finish();
	table_close(logical, NoLock);
	return (Datum) 0;
}
