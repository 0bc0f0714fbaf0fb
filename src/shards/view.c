/*-------------------------------------------------------------------------
 *
 * view.c
 *	  What the views ask for beyond the catalogs: sizes of tables, positions
 *	  of sequences, the greatest ids.
 *
 * Anybody may look at the views, which show the tables of all users.  So
 * nothing here waits for a lock, runs what a user has defined, or raises an
 * error because of what somebody has made of a table or is just doing to it.
 * What cannot be known that way is null.
 *
 * For that reason tables are read here without the planner and the executor:
 * planning alone may call functions in indexes and constraints.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/index.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_opfamily_d.h"
#include "commands/sequence.h"
#include "common/int.h"
#include "common/relpath.h"
#include "funcapi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_table_bytes);
PG_FUNCTION_INFO_V1(shard_sequence_position);
PG_FUNCTION_INFO_V1(shard_rows_behind);
PG_FUNCTION_INFO_V1(shard_column_maximum);
PG_FUNCTION_INFO_V1(shard_range_of);
PG_FUNCTION_INFO_V1(shard_maintenance_state);

/* A table of up to so many blocks may be read from end to end. */
#define SMALL_TABLE		100

/*
 * Open a relation with AccessShareLock, or return NULL if it is not there or
 * one would have to wait.
 */
static Relation
open_at_once(Oid relid)
{
	Relation	result;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return NULL;
	result = try_relation_open(relid, NoLock);
	if (result == NULL)
		UnlockRelationOid(relid, AccessShareLock);
	return result;
}

/*
 * The bytes of a relation's own files, or -1 if it has none.
 */
static int64
relation_bytes(Oid relid)
{
	LOCAL_FCINFO(fcinfo, 1);
	char	   *path;
	int64		result = -1;
	Datum		value;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(relid);
	fcinfo->args[0].isnull = false;
	value = pg_relation_filepath(fcinfo);
	if (fcinfo->isnull)
		return -1;
	path = TextDatumGetCString(value);

	for (int fork = 0; fork <= MAX_FORKNUM; fork++)
	{
		char	   *file = fork == MAIN_FORKNUM ? path :
			psprintf("%s_%s", path, forkNames[fork]);

		for (int segment = 0;; segment++)
		{
			struct stat st;

			CHECK_FOR_INTERRUPTS();
			if (stat(segment == 0 ? file : psprintf("%s.%d", file, segment),
					 &st) != 0)
				break;
			result = Max(result, 0) + st.st_size;
		}
	}
	return result;
}

/*
 * The bytes of a table's files and those of its indexes, or -1.
 */
static int64
bytes_with_indexes(Oid relid)
{
	int64		result = relation_bytes(relid);
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	if (result < 0)
		return result;
	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(IndexRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, IndexIndrelidIndexId, true, NULL, 1,
							  &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		result += Max(relation_bytes(((Form_pg_index) GETSTRUCT(tuple))->indexrelid), 0);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * shard_table_bytes(tbl regclass)
 *		SQL function table_bytes(): what pg_total_relation_size() returns, but
 *		without locks; null if there is no such table with files of its own.
 *
 * Strict.
 */
Datum
shard_table_bytes(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			toast;
	int64		result;

	if (!HeapTupleIsValid(tuple))
		PG_RETURN_NULL();
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	ReleaseSysCache(tuple);
	result = bytes_with_indexes(relid);
	if (result < 0)
		PG_RETURN_NULL();
	if (OidIsValid(toast))
		result += Max(bytes_with_indexes(toast), 0);
	PG_RETURN_INT64(result);
}

/*
 * May the current user see numbers that tell about the rows of all tables?
 */
static bool
is_monitor(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/*
 * Has the current user one of these privileges on a relation that there is?
 */
static bool
has_privilege(Oid relid, AclMode mode)
{
	bool		is_missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), mode,
								 &is_missing) == ACLCHECK_OK;
}

/*
 * Can this session read the rows of a relation that it has opened?
 */
static bool
is_readable(Relation rel)
{
	return !RELATION_IS_OTHER_TEMP(rel) &&
		(RelationIsPermanent(rel) || !RecoveryInProgress());
}

/*
 * Read where a sequence is; its catalog entry goes to *form.  False if that
 * cannot be known, or not by the current user.
 */
static bool
read_sequence(Oid sequence, Form_pg_sequence form, int64 *last_value,
			  bool *is_called)
{
	Relation	rel;
	bool		result = false;

	if (!shard_get_sequence(sequence, form) ||
		!(is_monitor() || has_privilege(sequence, ACL_SELECT | ACL_USAGE)))
		return false;
	rel = open_at_once(sequence);
	if (rel == NULL)
		return false;
	if (rel->rd_rel->relkind == RELKIND_SEQUENCE && is_readable(rel))
	{
		/* It is a table of one row. */
		SysScanDesc scan = systable_beginscan(rel, InvalidOid, false,
											  SnapshotAny, 0, NULL);
		HeapTuple	tuple = systable_getnext(scan);

		result = HeapTupleIsValid(tuple);
		if (result)
		{
			Form_pg_sequence_data data = (Form_pg_sequence_data) GETSTRUCT(tuple);

			*last_value = data->last_value;
			*is_called = data->is_called;
		}
		systable_endscan(scan);
	}
	relation_close(rel, AccessShareLock);
	return result;
}

/*
 * shard_sequence_position(sequence regclass)
 *		SQL function sequence_position(): the last value that a sequence has
 *		given, null if none, and the one it gives next; both are null if they
 *		cannot be known without waiting.
 *
 * Strict.  Both are null, too, unless the caller is a member of pg_monitor or
 * has a right on the sequence.
 */
Datum
shard_sequence_position(PG_FUNCTION_ARGS)
{
	FormData_pg_sequence form;
	int64		last_value;
	int64		next_value;
	bool		is_called;
	TupleDesc	desc;
	Datum		values[2] = {0};
	bool		isnull[2] = {true, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (read_sequence(PG_GETARG_OID(0), &form, &last_value, &is_called))
	{
		next_value = last_value;
		isnull[0] = !is_called;
		isnull[1] = is_called &&
			pg_add_s64_overflow(last_value, form.seqincrement, &next_value);
		values[0] = Int64GetDatum(last_value);
		values[1] = Int64GetDatum(next_value);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/*
 * Does an index tell the order of the values of an integer column of all rows,
 * with nothing in it that a user has defined?
 */
static bool
orders_column(Relation index, Form_pg_attribute att)
{
	Form_pg_index form = index->rd_index;

	return index->rd_rel->relam == BTREE_AM_OID &&
		form->indkey.values[0] == att->attnum &&
		form->indisvalid && form->indisready && form->indislive &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
		index->rd_opfamily[0] == INTEGER_BTREE_FAM_OID &&
		index->rd_opcintype[0] == att->atttypid &&
		!ReindexIsProcessingIndex(RelationGetRelid(index)) &&
		(!form->indcheckxmin ||
		 TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data),
							   TransactionXmin));
}

/*
 * An index that does, or NULL.
 */
static Relation
open_ordering_index(Relation rel, Form_pg_attribute att)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = open_at_once(lfirst_oid(lc));

		if (index == NULL)
			continue;
		if (orders_column(index, att))
			return index;
		relation_close(index, AccessShareLock);
	}
	return NULL;
}

/* The least and the greatest value of a column. */
typedef struct Range
{
	bool		is_empty;
	int64		least;
	int64		greatest;
} Range;

/*
 * Extend the range to include a value.
 */
static void
extend_range(Range *range, int64 value)
{
	range->least = range->is_empty ? value : Min(range->least, value);
	range->greatest = range->is_empty ? value : Max(range->greatest, value);
	range->is_empty = false;
}

/*
 * Extend the range by the first value in the order of the index, or in the
 * reverse order.
 */
static void
extend_by_index(Relation rel, Relation index, Form_pg_attribute att,
				ScanDirection direction, Range *range)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	ScanKeyEntryInitialize(&key, SK_ISNULL | SK_SEARCHNOTNULL, att->attnum,
						   InvalidStrategy, InvalidOid, InvalidOid, InvalidOid,
						   (Datum) 0);
	scan = systable_beginscan_ordered(rel, index, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext_ordered(scan, direction);
	if (HeapTupleIsValid(tuple))
		extend_range(range,
					 shard_id_from_datum(heap_getattr(tuple, att->attnum,
													  RelationGetDescr(rel),
													  &isnull),
										 att->atttypid));
	systable_endscan_ordered(scan);
}

/*
 * Extend the range by the visible values of an integer column, from its ends
 * in an index; or from all rows, if the table is small.
 *
 * Returns whether that can be done at once.  The table is open and locked.
 */
static bool
extend_by_table(Relation rel, AttrNumber attno, Range *range)
{
	Form_pg_attribute att;
	Relation	index;
	SysScanDesc scan;
	HeapTuple	tuple;

	/* Another access method is another's code. */
	if (attno <= 0 || rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_tableam != GetHeapamTableAmRoutine() || !is_readable(rel))
		return false;
	att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
	if (!shard_is_integer_type(att->atttypid))
		return false;

	index = open_ordering_index(rel, att);
	if (index != NULL)
	{
		extend_by_index(rel, index, att, ForwardScanDirection, range);
		extend_by_index(rel, index, att, BackwardScanDirection, range);
		relation_close(index, AccessShareLock);
		return true;
	}
	if (RelationGetNumberOfBlocks(rel) > SMALL_TABLE)
		return false;
	scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0,
							  NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, attno, RelationGetDescr(rel),
										 &isnull);

		CHECK_FOR_INTERRUPTS();
		if (!isnull)
			extend_range(range, shard_id_from_datum(value, att->atttypid));
	}
	systable_endscan(scan);
	return true;
}

/*
 * shard_rows_behind(logical regclass, shard regclass, watermark bigint)
 *		SQL function rows_behind(): about how many rows of the shard have ids
 *		beyond the watermark, or how many it has if that is null.  Null if it
 *		cannot be known at once.
 *
 * By the ids that are there, or else by those that the sequence has given.
 * Null, too, unless the caller is a member of pg_monitor or may read the
 * logical table, and for the latter has a right on the sequence.
 */
Datum
shard_rows_behind(PG_FUNCTION_ARGS)
{
	Oid			logical;
	Oid			shard;
	AttrNumber	attno;
	bool		always;
	char	   *column;
	Oid			sequence;
	FormData_pg_sequence form;
	int64		first;
	int64		last;
	int64		watermark;
	bool		is_called;
	bool		is_known = false;
	Relation	rel;
	Range		range = {.is_empty = true};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	logical = PG_GETARG_OID(0);
	shard = PG_GETARG_OID(1);
	if (!list_member_oid(shard_parents(shard), logical) || !shard_is_logical(logical) ||
		!(is_monitor() || has_privilege(logical, ACL_SELECT)))
		PG_RETURN_NULL();
	attno = shard_sequence_column(logical, true, &always);
	column = attno == 0 ? NULL : get_attname(logical, attno, true);
	sequence = column == NULL ? InvalidOid :
		shard_default_sequence(shard, column);
	if (!shard_get_sequence(sequence, &form) || form.seqincrement <= 0)
		PG_RETURN_NULL();

	rel = open_at_once(shard);
	if (rel != NULL)
	{
		is_known = extend_by_table(rel, get_attnum(shard, column), &range);
		relation_close(rel, AccessShareLock);
	}
	if (is_known)
	{
		if (range.is_empty)
			PG_RETURN_INT64(0);
		first = range.least;
		last = range.greatest;
	}
	else
	{
		if (!read_sequence(sequence, &form, &last, &is_called))
			PG_RETURN_NULL();
		if (!is_called)
			PG_RETURN_INT64(0);
		first = form.seqstart;
	}
	if (PG_ARGISNULL(2))
	{
		if (pg_sub_s64_overflow(last, first, &first))
			PG_RETURN_NULL();
		PG_RETURN_INT64(first / form.seqincrement + 1);
	}
	watermark = PG_GETARG_INT64(2);
	if (last <= watermark)
		PG_RETURN_INT64(0);
	if (pg_sub_s64_overflow(last, watermark, &last))
		PG_RETURN_NULL();
	PG_RETURN_INT64(Max(last / form.seqincrement, 1));
}

/*
 * May the current user read the column of a table, and all its rows?
 */
static bool
may_read_column(Oid relid, AttrNumber attno)
{
	Oid			schema = get_rel_namespace(relid);
	bool		is_missing = false;

	return SearchSysCacheExists1(NAMESPACEOID, ObjectIdGetDatum(schema)) &&
		shard_may_use_schema(schema) &&
		(has_privilege(relid, ACL_SELECT) ||
		 pg_attribute_aclcheck_ext(relid, attno, GetUserId(), ACL_SELECT,
								   &is_missing) == ACLCHECK_OK) &&
		check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED;
}

/*
 * shard_column_maximum(tbl regclass, column_name name)
 *		SQL function column_maximum(): the greatest value of an integer column
 *		of a table and its children.  Null if there is none, if it cannot be
 *		known at once, or if the caller must not read the column.
 *
 * Strict.
 */
Datum
shard_column_maximum(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *column = NameStr(*PG_GETARG_NAME(1));
	AttrNumber	attno = get_attnum(relid, column);
	Relation	top;
	Range		range = {.is_empty = true};
	bool		is_known = true;
	List	   *relids;
	ListCell   *lc;

	if (attno <= 0 || !may_read_column(relid, attno))
		PG_RETURN_NULL();
	top = open_at_once(relid);
	if (top == NULL)
		PG_RETURN_NULL();

	relids = find_all_inheritors(relid, NoLock, NULL);
	foreach(lc, relids)
	{
		Oid			child = lfirst_oid(lc);
		Relation	rel = open_at_once(child);

		CHECK_FOR_INTERRUPTS();
		if (rel == NULL)
		{
			/* One that has just been dropped has no rows any more. */
			is_known = !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(child));
		}
		else
		{
			/* Tables without rows of their own, and rows nobody else sees. */
			if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE &&
				!(RELATION_IS_OTHER_TEMP(rel) && child != relid) &&
				!shard_is_logical(child))
				is_known = extend_by_table(rel, get_attnum(child, column),
										   &range);
			relation_close(rel, AccessShareLock);
		}
		if (!is_known)
			break;
	}
	relation_close(top, AccessShareLock);
	if (!is_known || range.is_empty)
		PG_RETURN_NULL();
	PG_RETURN_INT64(range.greatest);
}

/*
 * Read options of a logical table as pg_foreign_table has them.  Returns its
 * time column, or 0 if it has none.
 */
static AttrNumber
read_time_options(Oid logical, Datum stored, ShardOptions *options,
				  ShardSchedule *schedule)
{
	AttrNumber	attno;
	Oid			type = InvalidOid;

	shard_read_options((Datum) 0, stored, options);
	attno = options->time_column == NULL ? 0 :
		get_attnum(logical, options->time_column);
	if (attno > 0)
		type = get_atttype(logical, attno);
	if (!shard_is_time_type(type))
	{
		type = InvalidOid;
		attno = 0;
	}
	shard_make_schedule(options, type, schedule);
	return attno;
}

/*
 * shard_range_of(logical regclass, options text[], shard regclass)
 *		SQL function range_of(): the least and the greatest time that the rows
 *		of a shard can have, as the table's time column writes them; null if
 *		the shard has no range, or if that is empty.
 *
 * Strict.
 */
Datum
shard_range_of(PG_FUNCTION_ARGS)
{
	Oid			logical = PG_GETARG_OID(0);
	Oid			shard = PG_GETARG_OID(2);
	ShardOptions options;
	ShardSchedule schedule;
	ShardMember member = {0};
	AttrNumber	attno;
	TupleDesc	desc;
	Datum		values[2] = {0};
	bool		isnull[2] = {true, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	attno = read_time_options(logical, PG_GETARG_DATUM(1), &options, &schedule);
	if (attno != 0 && shard_find_range(shard, logical, attno, &member) &&
		member.range_min <= member.range_max)
	{
		int64		ends[] = {member.range_min, member.range_max};
		Oid			output;
		bool		is_varlena;

		getTypeOutputInfo(schedule.time_type, &output, &is_varlena);
		for (int i = 0; i < lengthof(ends); i++)
		{
			Datum		end = schedule.time_type == DATEOID ?
				DateADTGetDatum((DateADT) ends[i]) : Int64GetDatum(ends[i]);

			values[i] = CStringGetTextDatum(OidOutputFunctionCall(output, end));
			isnull[i] = false;
		}
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/*
 * What is due in words, or NULL if nothing is.
 */
static char *
describe_due(const ShardDue *due, bool is_confirmed)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (due->rotate)
		appendStringInfoString(&buf, "rotation");
	if (due->nranges > 0)
		appendStringInfo(&buf, "%s%d %s", buf.len > 0 ? ", " : "",
						 due->nranges, due->nranges == 1 ? "range" : "ranges");
	if (due->nexpired > 0)
		appendStringInfo(&buf, "%s%d %s to drop%s", buf.len > 0 ? ", " : "",
						 due->nexpired,
						 due->nexpired == 1 ? "shard" : "shards",
						 is_confirmed ? "" : " when confirmed");
	return buf.len > 0 ? buf.data : NULL;
}

/*
 * shard_maintenance_state(logical regclass, options text[])
 *		SQL function maintenance_state(): what view "maintenance" shows of a
 *		logical table beside its last run.
 *
 * Strict.
 */
Datum
shard_maintenance_state(PG_FUNCTION_ARGS)
{
	Oid			logical = PG_GETARG_OID(0);
	ShardOptions options;
	ShardSchedule schedule;
	AttrNumber	attno;
	ShardMember *members;
	int			nmembers;
	int			counts[SHARD_SEALED + 1] = {0};
	ShardDue	due;
	ShardRun	last;
	char	   *text;
	TupleDesc	desc;
	Datum		values[9] = {0};
	bool		isnull[9] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	attno = read_time_options(logical, PG_GETARG_DATUM(1), &options, &schedule);
	members = shard_list_members(logical, &nmembers);
	for (int i = 0; i < nmembers; i++)
	{
		CHECK_FOR_INTERRUPTS();
		counts[members[i].state]++;
		if (attno != 0 && !members[i].is_open && members[i].is_local)
			(void) shard_find_range(members[i].relid, logical, attno,
									&members[i]);
	}
	shard_find_due(logical, &schedule, members, nmembers,
				   GetCurrentTimestamp(), &due);
	shard_get_run(logical, &last);
	text = describe_due(&due, last.is_confirmed);

	values[0] = CStringGetTextDatum(options.is_manual ? "manual" : "auto");
	isnull[0] = attno == 0;
	values[1] = IntervalPGetDatum(options.rotate_every);
	isnull[1] = options.rotate_every == NULL;
	values[2] = IntervalPGetDatum(options.retain_for);
	isnull[2] = options.retain_for == NULL;
	values[3] = Int32GetDatum(counts[SHARD_OPEN]);
	values[4] = Int32GetDatum(counts[SHARD_CLOSED]);
	values[5] = Int32GetDatum(counts[SHARD_SEALED]);
	values[6] = TimestampTzGetDatum(due.began);
	isnull[6] = due.began == 0;
	values[7] = TimestampTzGetDatum(due.next_rotation);
	isnull[7] = due.next_rotation == DT_NOEND;
	isnull[8] = text == NULL;

	if (text !=NULL)
		values[8] = CStringGetTextDatum(text);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}
