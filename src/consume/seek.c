/*-------------------------------------------------------------------------
 *
 * seek.c
 *	  Where consumers begin to read, and where they go on: register_consumer()
 *	  and seek_consumer().
 *
 * To begin at the present means to read the rows that are committed from now
 * on.  In a shard of a table with commit order, these have greater ids than all
 * rows that a snapshot shows.  So the greatest of them is the watermark.  (The
 * last id that the sequence has given is not: its row may be committed later.)
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"

#include "access/table.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(shard_register_consumer);
PG_FUNCTION_INFO_V1(shard_seek_consumer);
PG_FUNCTION_INFO_V1(shard_seek_consumer_id);
PG_FUNCTION_INFO_V1(shard_seek_consumer_time);

/*
 * Does this value of argument "start" mean the present?  Raises
 * ERRCODE_INVALID_PARAMETER_VALUE if it is neither "first" nor "now".
 */
static bool
starts_now(const char *value)
{
	if (strcmp(value, "first") == 0)
		return false;
	if (strcmp(value, "now") == 0)
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for parameter \"%s\": \"%s\"", "start",
					value),
			 errhint("Valid values are: first, now.")));
}

/*
 * The last row of a shard that is committed: have the consumer that has read
 * so far read the rows that are committed later, which have greater ids.  "id"
 * is the column that has the ids.
 */
static void
find_last_row(Oid relid, const char *id, Oid shard, ShardProgress *progress)
{
	bool		isnull;

	/* A snapshot may be older than rows that we have waited for. */
	shard_check_read_committed("move a consumer forward");
	if (SPI_execute(psprintf("SELECT pg_catalog.max(%s)::pg_catalog.int8 FROM %s"
							 " WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid",
							 quote_identifier(id), shard_qualified_name(relid),
							 shard), false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the last row");
	progress->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1,
											   &isnull));
	progress->has_id = !isnull;
}

/*
 * Where a consumer goes on in a shard that is read by windows, if it is to read
 * the windows after "window_end".
 *
 * Rows that are before it and that have been there when the consumer last read
 * are not read again; all others are.  If it skips windows, those that are
 * there now are not read either.
 */
static void
find_window(Oid relid, const char *id, ShardLane *lane, TimestampTz window_end)
{
	ShardProgress *progress = &lane->progress;

	if (!progress->has_window || progress->window_end < window_end)
		find_last_row(relid, id, lane->shard, progress);
	progress->has_window = true;
	progress->window_end = window_end;
}

/*
 * Have a consumer, which we have locked against its readers, read all shards,
 * or one, from their first rows, or from those that are committed from now on.
 */
static void
set_start(Oid relid, const char *consumer, const char *id, bool has_windows,
		  bool now, Oid shard)
{
	ShardProgress any = {0};

	/* Before the rows are looked for: those that come now are later ones. */
	TimestampTz present = GetCurrentTimestamp();
	uint64		nlanes;
	ShardLane  *lanes = shard_list_lanes(relid, consumer, &any, &nlanes);

	for (uint64 i = 0; i < nlanes; i++)
	{
		ShardProgress progress = {0};

		if (OidIsValid(shard) && lanes[i].shard != shard)
			continue;
		if (now)
		{
			find_last_row(relid, id, lanes[i].shard, &progress);
			progress.has_window = has_windows;
			progress.window_end = present;
		}
		shard_set_lane(relid, consumer, lanes[i].shard, &progress);
	}
}

/*
 * shard_register_consumer(logical regclass, consumer text, order_by name,
 *						   start text)
 *		SQL function register_consumer(): the current role's consumer of a
 *		table begins with its first row, or with those that are committed from
 *		now on.
 *
 * Strict.  Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE for a table
 * without commit order, ERRCODE_FEATURE_NOT_SUPPORTED for a column that does
 * not show it, ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller may read the
 * table, ERRCODE_NAME_TOO_LONG for a name that is, ERRCODE_DUPLICATE_OBJECT
 * if there is one of that name, and ERRCODE_PROGRAM_LIMIT_EXCEEDED if a role
 * that does not own the table has too many.
 */
Datum
shard_register_consumer(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *order_by = NameStr(*PG_GETARG_NAME(2));
	bool		now = starts_now(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	Relation	logical;
	const char *id;
	bool		has_windows;
	LOCKTAG		tag;

	PreventCommandIfReadOnly("register_consumer()");
	shard_check_logical(relid);
	if (strlen(consumer) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of consumer is too long"),
				 errdetail("It can have up to %d bytes.", NAMEDATALEN - 1)));
	shard_check_readable(relid);
	logical = table_open(relid, AccessShareLock);

	/*
	 * Wait for transactions that may have begun to write before there were
	 * lanes.  A role that may only read must not keep others from writing, so
	 * take no lock.
	 */
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	WaitForLockers(tag, ShareLock, false);
	id = shard_check_consumable(relid);
	has_windows = strcmp(order_by, id) != 0;
	if (has_windows)
		shard_check_window_column(logical, order_by, id);

	SPI_connect();
	shard_add_consumer(relid, consumer, order_by, has_windows);
	if (now)
		set_start(relid, consumer, id, has_windows, true, InvalidOid);
	SPI_finish();
	table_close(logical, NoLock);
	PG_RETURN_VOID();
}

/*
 * Begin to move a consumer: check the arguments and lock it against its
 * readers.  SPI is connected.  Returns the column with the ids; *window_column
 * becomes the one whose windows it reads, or NULL.
 */
static const char *
begin_seeking(Oid relid, const char *consumer, Oid shard,
			  char **window_column)
{
	const char *id;

	PreventCommandIfReadOnly("seek_consumer()");
	shard_check_logical(relid);
	shard_check_readable(relid);
	id = shard_check_consumable(relid);
	if (OidIsValid(shard) && shard_table_find(shard_table_get(relid), shard) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a shard of foreign table \"%s\"",
						get_rel_name(shard) ? get_rel_name(shard) :
						psprintf("%u", shard), get_rel_name(relid))));
	*window_column = shard_lock_consumer(relid, consumer,
										 AccessExclusiveLock);
	shard_update_lanes(relid, consumer);
	return id;
}

/*
 * shard_seek_consumer(logical regclass, consumer text, start text,
 *					   shard regclass)
 *		SQL function seek_consumer(): the consumer reads all shards, or one,
 *		from the first row, or from those that are committed from now on.
 *
 * Waits for those that are reading for the consumer.  Raises what
 * read_batch() does, and ERRCODE_WRONG_OBJECT_TYPE for what is no shard.
 */
Datum
shard_seek_consumer(PG_FUNCTION_ARGS)
{
	Oid			relid;
	Oid			shard = PG_ARGISNULL(3) ? InvalidOid : PG_GETARG_OID(3);
	char	   *consumer;
	const char *id;
	char	   *window_column;
	bool		now;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "consumer");
	shard_check_argument(fcinfo, 2, "parameter \"start\"");
	relid = PG_GETARG_OID(0);
	consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));
	now = starts_now(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	SPI_connect();
	id = begin_seeking(relid, consumer, shard, &window_column);
	set_start(relid, consumer, id, window_column != NULL, now, shard);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * shard_seek_consumer_id(logical regclass, consumer text, watermark bigint,
 *						  shard regclass)
 *		SQL function seek_consumer(): the consumer goes on in a shard after
 *		that id.
 *
 * As shard_seek_consumer().  Raises ERRCODE_INVALID_PARAMETER_VALUE for an id
 * that the shard has not given yet, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the consumer reads windows.
 */
Datum
shard_seek_consumer_id(PG_FUNCTION_ARGS)
{
	Oid			relid;
	Oid			shard;
	char	   *consumer;
	ShardProgress progress = {.has_id = true};
	ShardTable *table;
	Oid			sequence;
	char	   *window_column;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "consumer");
	shard_check_argument(fcinfo, 2, "watermark");
	shard_check_argument(fcinfo, 3, "shard");
	relid = PG_GETARG_OID(0);
	consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));
	progress.id = PG_GETARG_INT64(2);
	shard = PG_GETARG_OID(3);
	SPI_connect();
	begin_seeking(relid, consumer, shard, &window_column);
	if (window_column != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consumer \"%s\" of foreign table \"%s\" reads windows of column \"%s\"",
						consumer, get_rel_name(relid), window_column),
				 errhint("Seek to a time.")));
	table = shard_table_get(relid);
	sequence = table->members[shard_table_find(table, shard)].sequence;
	if (OidIsValid(sequence) && shard_is_behind(shard, sequence, &progress))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("shard \"%s\" has not given id " INT64_FORMAT " yet",
						get_rel_name(shard), progress.id),
				 errdetail("The consumer would miss rows.")));
	shard_set_lane(relid, consumer, shard, &progress);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * shard_seek_consumer_time(logical regclass, consumer text,
 *							window_end timestamptz, shard regclass)
 *		SQL function seek_consumer(): the next window of all shards, or of one,
 *		begins at that time.
 *
 * As shard_seek_consumer().  Raises ERRCODE_INVALID_PARAMETER_VALUE for a time
 * that has not come, and ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the
 * consumer does not read windows.
 */
Datum
shard_seek_consumer_time(PG_FUNCTION_ARGS)
{
	Oid			relid;
	Oid			shard = PG_ARGISNULL(3) ? InvalidOid : PG_GETARG_OID(3);
	char	   *consumer;
	TimestampTz window_end;
	ShardProgress any = {0};
	ShardLane  *lanes;
	uint64		nlanes;
	const char *id;
	char	   *window_column;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "consumer");
	shard_check_argument(fcinfo, 2, "end of the window");
	relid = PG_GETARG_OID(0);
	consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));
	window_end = PG_GETARG_TIMESTAMPTZ(2);
	if (TIMESTAMP_NOT_FINITE(window_end) ||
		window_end > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot seek to a time that has not come"),
				 errhint("To begin at the present or with the first row, seek to 'now' or 'first'.")));
	SPI_connect();
	id = begin_seeking(relid, consumer, shard, &window_column);
	if (window_column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consumer \"%s\" of foreign table \"%s\" does not read windows",
						consumer, get_rel_name(relid)),
				 errhint("Seek to an id in a shard.")));
	lanes = shard_list_lanes(relid, consumer, &any, &nlanes);
	for (uint64 i = 0; i < nlanes; i++)
	{
		if (OidIsValid(shard) && lanes[i].shard != shard)
			continue;
		find_window(relid, id, &lanes[i], window_end);
		shard_set_lane(relid, consumer, lanes[i].shard, &lanes[i].progress);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
