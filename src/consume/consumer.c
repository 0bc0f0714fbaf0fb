/*-------------------------------------------------------------------------
 *
 * consumer.c
 *	  Reading the rows of a table with commit order bit by bit.
 *
 * In a shard of a table with commit order, ids become visible in their
 * order.  So a consumer that remembers for each shard the last id that it has
 * read, the watermark, misses no row.  The watermark moves in the transaction
 * that reads: what that transaction does with the rows and the reading are
 * committed together, or not at all.  It has the watermark locked until then,
 * and other sessions read other shards for the consumer meanwhile.
 *
 * A consumer of windows of time remembers for each shard the last id that was
 * there when it read, and the time up to which it read.  Rows that came later
 * with an earlier time have greater ids: it gets them with the next window.
 *
 * Rows are read through the logical table, with the caller's privileges and
 * settings; a condition on tableoid gets the query to one shard.  Because the
 * search path is the caller's, operators are written with their schema.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(shard_read_batch);
PG_FUNCTION_INFO_V1(shard_read_window);

/* A call that reads rows for a consumer. */
typedef struct Reading
{
	Relation	logical;
	Oid			relid;
	char	   *consumer;
	const char *id;				/* the column with the ids, quoted */
	Oid			id_type;
	const char *at;				/* the one with the times, or NULL */
	const char *table;			/* qualified and quoted */
	const char *columns;		/* all of them, in a select list */
	uint64		nlanes;			/* those that there may be something to read */
	ShardLane  *lanes;
} Reading;

/*
 * Raise an error if the shard gives ids that the consumer has read already.
 */
static void
check_not_behind(const Reading *r, const ShardLane *lane)
{
	ShardTable *table = shard_table_get(r->relid);
	int			ordinal = shard_table_find(table, lane->shard);
	Oid			sequence = ordinal < 0 ? InvalidOid :
		table->members[ordinal].sequence;

	if (!lane->progress.has_id || !OidIsValid(sequence) ||
		!shard_is_behind(lane->shard, sequence, &lane->progress))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sequence of shard \"%s\" has moved backwards",
					get_rel_name(lane->shard)),
			 errdetail("Consumer \"%s\" has read the shard up to " INT64_FORMAT ", and the sequence is behind that.",
					   r->consumer, lane->progress.id),
			 errhint("Set the sequence past the ids that have been read, or drop the consumer and register it again.")));
}

/*
 * Begin to read: SPI is connected, and the caller's result is materialized.
 * The lanes to read are those of shard_list_lanes().
 */
static void
begin_reading(FunctionCallInfo fcinfo, const char *function,
			  const ShardProgress *up_to, Reading *r)
{
	const char *registered;
	const char *id;

	r->logical = shard_open_argument(fcinfo, function);
	r->relid = RelationGetRelid(r->logical);
	shard_check_argument(fcinfo, 1, "consumer");
	r->consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	registered = shard_lock_consumer(r->relid, r->consumer, AccessShareLock);
	if (up_to->has_window != (registered != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 registered ?
				 errmsg("consumer \"%s\" of foreign table \"%s\" reads windows of column \"%s\"",
						r->consumer, RelationGetRelationName(r->logical), registered) :
				 errmsg("consumer \"%s\" of foreign table \"%s\" does not read windows",
						r->consumer, RelationGetRelationName(r->logical)),
				 errhint("Use %s.", registered ? "read_window()" : "read_batch()")));
	id = shard_check_consumable(r->relid);
	r->id = quote_identifier(id);
	r->id_type = get_atttype(r->relid, get_attnum(r->relid, id));
	r->at = NULL;
	if (registered != NULL)
	{
		shard_check_window_column(r->logical, registered, id);
		r->at = quote_identifier(registered);
	}
	r->table = shard_qualified_name(r->relid);
	r->columns = shard_column_list(r->logical, "", true);
	shard_update_lanes(r->relid, r->consumer);
	r->lanes = shard_list_lanes(r->relid, r->consumer, up_to, &r->nlanes);
}

/*
 * FROM and WHERE that find the rows of a lane.
 */
static char *
rows_of_lane(const Reading *r, const ShardLane *lane)
{
	return psprintf("FROM %s WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid",
					r->table, lane->shard);
}

/*
 * The id after which the rows are that a consumer has not read, as a
 * parameter of a query.
 */
static Datum
last_id(const ShardProgress *progress)
{
	return Int64GetDatum(progress->has_id ? progress->id : PG_INT64_MIN);
}

/*
 * shard_unread_by
 *		The name of a consumer of the logical table that has not read all rows
 *		of the shard, or NULL if there is none.  SPI is connected.
 *
 * The shard is locked against those who read and write it.  The result is
 * allocated in the memory context of SPI.
 */
char *
shard_unread_by(Oid logical, Oid shard)
{
	ShardTable *table = shard_table_get(logical);
	const char *id = table->seq_attno == 0 ? NULL :
		quote_identifier(get_attname(logical, table->seq_attno, false));
	uint64		n;
	ShardReader *readers = shard_list_readers(logical, shard, &n);

	/* Nobody can read the table as long as this is a shard. */
	if (n > 0 && get_rel_relkind(shard) == RELKIND_FOREIGN_TABLE)
		return readers[0].consumer;
	for (uint64 i = 0; i < n; i++)
	{
		const ShardProgress *progress = &readers[i].progress;
		Oid			types[] = {INT8OID, TIMESTAMPTZOID};
		Datum		values[] = {
			last_id(progress), TimestampTzGetDatum(progress->window_end)
		};
		StringInfoData sql;

		initStringInfo(&sql);
		appendStringInfo(&sql, "SELECT FROM ONLY %s",
						 shard_qualified_name(shard));
		/* Without ids, or before the first window, all rows are unread. */
		if (id != NULL &&
			(readers[i].time_column == NULL || progress->has_window))
		{
			appendStringInfo(&sql, " WHERE %s OPERATOR(pg_catalog.>) $1", id);
			if (readers[i].time_column != NULL)
				appendStringInfo(&sql, " OR %s OPERATOR(pg_catalog.>=) $2",
								 quote_identifier(readers[i].time_column));
		}
		appendStringInfoString(&sql, " LIMIT 1");
		if (SPI_execute_with_args(sql.data, lengthof(types), types, values,
								  NULL, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not look for rows");
		if (SPI_processed > 0)
			return readers[i].consumer;
	}
	return NULL;
}

/* The id of the last row that has been read. */
typedef struct LastId
{
	Oid			type;			/* of the column */
	int64		value;
} LastId;

/*
 * Of the rows that are read, remember the last id.
 */
static bool
note_id(Datum id, void *state)
{
	LastId	   *last = state;

	last->value = shard_id_from_datum(id, last->type);
	return true;
}

/*
 * Of the rows that are read, count those that are late.
 */
static bool
count_late(Datum late, void *state)
{
	*(uint64 *) state += DatumGetBool(late);
	return true;
}

/*
 * shard_read_batch(tbl anyelement, consumer text, max_rows int, up_to bigint)
 *		SQL function read_batch(): the next rows of one shard for a consumer,
 *		in order, up to so many, and up to an id if given.
 *
 * Raises ERRCODE_UNDEFINED_OBJECT for a consumer that is not registered,
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the table has lost its commit
 * order or the consumer reads windows, ERRCODE_INSUFFICIENT_PRIVILEGE, and
 * ERRCODE_DATATYPE_MISMATCH for a type that is no logical table's.
 */
Datum
shard_read_batch(PG_FUNCTION_ARGS)
{
	int			max_rows = shard_count_argument(fcinfo, 2);
	int64		up_to = PG_ARGISNULL(3) ? PG_INT64_MAX : PG_GETARG_INT64(3);
	ShardProgress no_window = {0};
	Reading		r;

	/* The shards that have waited longest come first. */
	begin_reading(fcinfo, "read_batch()", &no_window, &r);
	for (uint64 i = 0; i < r.nlanes; i++)
	{
		ShardLane  *lane = &r.lanes[i];
		char	   *rows = psprintf("%s AND %s OPERATOR(pg_catalog.>) $1 AND %s OPERATOR(pg_catalog.<=) $2",
									rows_of_lane(&r, lane), r.id, r.id);
		Oid			types[] = {INT8OID, INT8OID};
		Datum		values[] = {
			last_id(&lane->progress), Int64GetDatum(up_to)
		};
		LastId		id = {r.id_type, 0};

		/* Do not keep others from a shard that has nothing to read. */
		if (SPI_execute_with_args(psprintf("SELECT 1 %s LIMIT 1", rows),
								  lengthof(types), types, values, NULL, false,
								  1) != SPI_OK_SELECT)
			elog(ERROR, "could not look for rows");
		if (SPI_processed == 0)
		{
			check_not_behind(&r, lane);
			continue;
		}

		/* Others may be reading it, or have moved the watermark. */
		if (!shard_lock_lane(r.relid, r.consumer, lane, &no_window))
			continue;
		values[0] = last_id(&lane->progress);
		if (shard_return_rows((ReturnSetInfo *) fcinfo->resultinfo,
							  psprintf("SELECT %s, %s %s ORDER BY %s FETCH FIRST %d ROWS WITH TIES",
									   r.columns, r.id, rows, r.id, max_rows),
							  lengthof(types), types, values,
							  CURSOR_OPT_PARALLEL_OK, PG_UINT64_MAX,
							  note_id, &id) == 0)
			continue;
		lane->progress.has_id = true;
		lane->progress.id = id.value;
		shard_advance_lane(r.relid, r.consumer, lane);
		break;
	}
	SPI_finish();
	table_close(r.logical, NoLock);
	return (Datum) 0;
}

/*
 * shard_read_window(tbl anyelement, consumer text, up_to timestamptz)
 *		SQL function read_window(): the rows of one shard whose time is before
 *		up_to, and that the consumer has not read, in order of the time.
 *
 * Waits for transactions that write the shard, then no row of the window is
 * still to come whose time is when it is inserted.  Records the window.
 *
 * Raises ERRCODE_INVALID_PARAMETER_VALUE if the time has not come,
 * ERRCODE_ACTIVE_SQL_TRANSACTION unless the isolation level is READ COMMITTED,
 * and otherwise what shard_read_batch() does.
 */
Datum
shard_read_window(PG_FUNCTION_ARGS)
{
	ShardProgress up_to = {0};
	Reading		r;

	shard_check_argument(fcinfo, 2, "end of the window");
	up_to.has_window = true;
	up_to.window_end = PG_GETARG_TIMESTAMPTZ(2);
	if (TIMESTAMP_NOT_FINITE(up_to.window_end))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("end of the window must be finite")));
	if (up_to.window_end > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window is not over"),
				 errdetail("Rows may come until %s.",
						   timestamptz_to_str(up_to.window_end))));
	/* A snapshot does not show rows of transactions that we wait for. */
	shard_check_read_committed("read windows");
	begin_reading(fcinfo, "read_window()", &up_to, &r);
	for (uint64 i = 0; i < r.nlanes; i++)
	{
		ShardLane  *lane = &r.lanes[i];
		ShardProgress *progress = &lane->progress;
		ShardWindow window = {0};
		char	   *rows = rows_of_lane(&r, lane);

		/* What has been read, and up to where it is to be read. */
		Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID};
		Datum		values[4];
		bool		isnull;
		Datum		greatest;

		if (!shard_lock_lane(r.relid, r.consumer, lane, &up_to))
			continue;
		shard_await_lane(lane->shard);

		/* Ids up to the greatest are all there; later rows get others. */
		if (SPI_execute(psprintf("SELECT pg_catalog.max(%s)::pg_catalog.int8 %s", r.id, rows),
						false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not look for rows");
		values[0] = last_id(progress);
		values[1] = TimestampTzGetDatum(progress->window_end);
		greatest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
								 1, &isnull);
		if (isnull ||
			(progress->has_id && DatumGetInt64(greatest) <= progress->id))
			check_not_behind(&r, lane);
		else
		{
			progress->has_id = true;
			progress->id = DatumGetInt64(greatest);
		}
		values[2] = last_id(progress);
		values[3] = TimestampTzGetDatum(up_to.window_end);

		window.has_start = progress->has_window;
		window.start = progress->window_end;
		window.nrows =
			shard_return_rows((ReturnSetInfo *) fcinfo->resultinfo,
							  psprintf("SELECT %s, %s %s AND %s OPERATOR(pg_catalog.<) $4 AND %s OPERATOR(pg_catalog.<=) $3%s ORDER BY %s, %s",
									   r.columns,
									   !window.has_start ? "false" :
									   psprintf("%s OPERATOR(pg_catalog.<) $2", r.at),
									   rows, r.at, r.id,
									   !window.has_start ? "" :
									   psprintf(" AND (%s OPERATOR(pg_catalog.>=) $2 OR %s OPERATOR(pg_catalog.>) $1)",
												r.at, r.id),
									   r.at, r.id),
							  lengthof(types), types, values,
							  CURSOR_OPT_PARALLEL_OK, PG_UINT64_MAX,
							  count_late, &window.nlate);
		progress->has_window = true;
		progress->window_end = up_to.window_end;
		shard_advance_lane(r.relid, r.consumer, lane);
		shard_record_window(r.relid, r.consumer, lane, &window);
		if (window.nrows > 0)
			break;
	}
	SPI_finish();
	table_close(r.logical, NoLock);
	return (Datum) 0;
}
