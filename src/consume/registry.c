/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  The registry of consumers: the extension's tables that say which
 *	  consumers there are, and how far each of them has read.
 *
 * It is used as its owner; see shard_query_ledger().
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_drop_consumer);

/* A role that does not own a table can have this many consumers of it. */
#define MAX_CONSUMERS	100

/*
 * The parameters of a command on the registry, in the order of their numbers.
 * A command need not use all of them; those left out are null or zero.
 */
typedef struct Params
{
	Oid			logical;		/* $1 */
	const char *consumer;		/* $2 */
	Oid			shard;			/* $3 */
	const ShardProgress *progress;	/* $4: its id; $5: its end of a window */
	const char *column;			/* $6 */
	const char *new_column;		/* $7 */
	const char *role;			/* $8 */
	Oid			sequence;		/* $9 */
	const ShardWindow *window;	/* $10: start; $11: rows; $12: late rows */
} Params;

static const Oid param_types[] = {
	OIDOID, TEXTOID, OIDOID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID,
	OIDOID, TIMESTAMPTZOID, INT8OID, INT8OID
};

/*
 * Run a command on the registry.  SPI is connected.  Returns the number of
 * rows that it has returned, or else changed.
 */
static uint64
execute_registry(const char *sql, const Params *params)
{
	Datum		values[lengthof(param_types)] = {0};
	char		nulls[lengthof(param_types)];
	const ShardProgress *progress = params->progress;
	const ShardWindow *window = params->window;

	memset(nulls, 'n', sizeof(nulls));

#define SET_PARAM(number, is_given, value) \
	do { \
		if (is_given) \
		{ \
			values[(number) - 1] = (value); \
			nulls[(number) - 1] = ' '; \
		} \
	} while (0)

	SET_PARAM(1, true, ObjectIdGetDatum(params->logical));
	SET_PARAM(2, params->consumer, CStringGetTextDatum(params->consumer));
	SET_PARAM(3, true, ObjectIdGetDatum(params->shard));
	SET_PARAM(4, progress && progress->has_id, Int64GetDatum(progress->id));
	SET_PARAM(5, progress && progress->has_window,
			  TimestampTzGetDatum(progress->window_end));
	SET_PARAM(6, params->column, CStringGetTextDatum(params->column));
	SET_PARAM(7, params->new_column, CStringGetTextDatum(params->new_column));
	SET_PARAM(8, params->role, CStringGetTextDatum(params->role));
	SET_PARAM(9, true, ObjectIdGetDatum(params->sequence));
	SET_PARAM(10, window && window->has_start,
			  TimestampTzGetDatum(window->start));
	SET_PARAM(11, window, Int64GetDatum((int64) window->nrows));
	SET_PARAM(12, window, Int64GetDatum((int64) window->nlate));
#undef SET_PARAM

	return shard_query_ledger("consumer_lanes", sql, lengthof(param_types),
							  param_types, values, nulls);
}

/*
 * A value of a row that execute_registry() has returned.
 */
static Datum
registry_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
						 isnull);
}

/*
 * How far a consumer has read a shard, from two columns of such a row.
 */
static void
read_progress(uint64 row, int column, ShardProgress *progress)
{
	bool		isnull;

	progress->id = DatumGetInt64(registry_value(row, column, &isnull));
	progress->has_id = !isnull;
	progress->window_end =
		DatumGetTimestampTz(registry_value(row, column + 1, &isnull));
	progress->has_window = !isnull;
}

/*
 * shard_check_consumable
 *		Raise ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE or
 *		ERRCODE_FEATURE_NOT_SUPPORTED unless the logical table can be read by
 *		consumers.  Returns the name of the column that has its ids.
 */
const char *
shard_check_consumable(Oid relid)
{
	ShardTable *table = shard_table_get(relid);

	if (!table->commit_order || table->seq_attno == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no %s", get_rel_name(relid),
						!table->commit_order ? "commit order" :
						"column with option \"sequence\""),
				 errdetail("A row may become visible after a row of its shard with a greater value, and a consumer would miss it."),
				 !table->commit_order ?
				 errhint("Set option \"commit_order\" of the foreign table to true.") :
				 errhint("Give a column of the foreign table the option \"sequence\".")));
	for (int i = 0; i < table->nmembers; i++)
		shard_check_plain(relid, &table->members[i], "consume rows of");
	return get_attname(relid, table->seq_attno, false);
}

/*
 * shard_check_window_column
 *		Raise ERRCODE_UNDEFINED_COLUMN or ERRCODE_FEATURE_NOT_SUPPORTED unless
 *		consumers can read windows of a column of the logical table.  "id" is
 *		the column that has its ids.
 */
void
shard_check_window_column(Relation logical, const char *column, const char *id)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(logical), column);
	Form_pg_attribute att;

	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of foreign table \"%s\" does not exist",
						column, RelationGetRelationName(logical))));
	if (attno > 0)
	{
		att = TupleDescAttr(RelationGetDescr(logical), attno - 1);
		if (att->atttypid == TIMESTAMPTZOID && att->attnotnull)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot read foreign table \"%s\" in order of column \"%s\"",
					RelationGetRelationName(logical), column),
			 errdetail("Consumers read in order of column \"%s\", which has option \"sequence\", or windows of a column of type timestamp with time zone that is NOT NULL.",
					   id)));
}

/*
 * Lock a consumer until the end of the transaction: its readers against
 * sessions that drop it or register it anew, in AccessShareLock mode, and a
 * session that adds shards to it against others that do the same.  Returns
 * false if "dont_wait" is set and the lock is not free.
 */
static bool
lock_consumer(Oid relid, const char *consumer, LOCKMODE mode, bool dont_wait)
{
	LOCKTAG		tag;

	shard_lock_tag(&tag, relid,
				   hash_bytes((const unsigned char *) consumer, strlen(consumer)),
				   SHARD_CONSUMER_LOCK_KIND);
	return LockAcquire(&tag, mode, false, dont_wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Raise an error unless the consumer is registered by a role that the caller
 * is a member of, or the caller owns the table.  Returns the column whose
 * windows the consumer reads, or NULL.
 */
static char *
find_consumer(Oid relid, const char *consumer)
{
	Params		params = {.logical = relid,.consumer = consumer};
	bool		isnull;
	Oid			role;

	if (execute_registry("SELECT to_regrole(role)::oid, CASE WHEN windows THEN order_by END"
						 "  FROM shard_fdw.consumer_registry"
						 " WHERE logical = $1 AND consumer = $2", &params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" of foreign table \"%s\" does not exist",
						consumer, get_rel_name(relid)),
				 errhint("Register it with SELECT shard_fdw.register_consumer().")));
	role = DatumGetObjectId(registry_value(0, 1, &isnull));
	if ((isnull ? !superuser() : !has_privs_of_role(GetUserId(), role)) &&
		!shard_class_ownercheck(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for consumer \"%s\"", consumer),
				 errdetail("It is for members of the role that has registered it, and for the owner of the table.")));
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
}

/*
 * shard_lock_consumer
 *		Lock a consumer until the end of the transaction: AccessShareLock to
 *		read for it, AccessExclusiveLock to drop it or to change how far it
 *		has read.  SPI is connected.
 *
 * Returns the column whose windows it reads, or NULL, allocated in the memory
 * context of SPI.  Raises ERRCODE_UNDEFINED_OBJECT if it is not registered,
 * and ERRCODE_INSUFFICIENT_PRIVILEGE unless by a role that the caller is a
 * member of, or the caller owns the table.
 */
char *
shard_lock_consumer(Oid relid, const char *consumer, LOCKMODE mode)
{
	/* Nobody else can make others wait. */
	find_consumer(relid, consumer);
	lock_consumer(relid, consumer, mode, false);
	return find_consumer(relid, consumer);
}

/*
 * Forget how far consumers have read: all of the logical table, or one of
 * them, all of its shards or one of them.
 */
static void
forget_progress(Oid relid, const char *consumer, Oid shard)
{
	Params		params = {.logical = relid,.consumer = consumer,.shard = shard};

	execute_registry("DELETE FROM shard_fdw.consumer_lanes WHERE logical = $1"
					 " AND ($2 IS NULL OR consumer = $2)"
					 " AND ($3 = 0 OR shard = $3)", &params);
	execute_registry("DELETE FROM shard_fdw.consumer_windows WHERE logical = $1"
					 " AND ($2 IS NULL OR consumer = $2)"
					 " AND ($3 = 0 OR shard = $3)", &params);
}

/*
 * shard_update_lanes
 *		Have the consumer know all shards of the table.  SPI is connected.
 *
 * Shards that have been dropped are forgotten; those that are detached may
 * come back.
 */
void
shard_update_lanes(Oid relid, const char *consumer)
{
	Params		params = {.logical = relid,.consumer = consumer};

	if (execute_registry("SELECT FROM shard_fdw.list_shards($1) l"
						 " WHERE NOT EXISTS (SELECT FROM shard_fdw.consumer_lanes k"
						 "                    WHERE k.logical = $1 AND k.consumer = $2 AND k.shard = l.shard)"
						 " UNION ALL "
						 "SELECT FROM shard_fdw.consumer_lanes k"
						 " WHERE logical = $1 AND consumer = $2"
						 "   AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = k.shard)"
						 " LIMIT 1", &params) == 0)
		return;

	/* If another session is doing this for the consumer, leave it to that. */
	if (!lock_consumer(relid, consumer, ExclusiveLock, true))
		return;
	execute_registry("DELETE FROM shard_fdw.consumer_lanes k"
					 " WHERE logical = $1 AND consumer = $2"
					 "   AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = k.shard)",
					 &params);
	execute_registry("DELETE FROM shard_fdw.consumer_windows k"
					 " WHERE logical = $1 AND consumer = $2"
					 "   AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = k.shard)",
					 &params);
	execute_registry("INSERT INTO shard_fdw.consumer_lanes (logical, consumer, shard)"
					 " SELECT $1, $2, l.shard FROM shard_fdw.list_shards($1) l"
					 "  WHERE NOT EXISTS (SELECT FROM shard_fdw.consumer_lanes k"
					 "                     WHERE k.logical = $1 AND k.consumer = $2 AND k.shard = l.shard)"
					 " ON CONFLICT DO NOTHING", &params);
}

/*
 * shard_forget_consumers
 *		Forget the consumers of a logical table.  SPI is connected.
 */
void
shard_forget_consumers(Oid relid)
{
	Params		params = {.logical = relid};

	execute_registry("DELETE FROM shard_fdw.consumer_registry WHERE logical = $1",
					 &params);
	forget_progress(relid, NULL, InvalidOid);
}

/*
 * shard_forget_lanes
 *		Forget how far a shard of the logical table has been read.  SPI is
 *		connected.
 */
void
shard_forget_lanes(Oid relid, Oid shard)
{
	if (shard_table_get(relid)->commit_order)
		forget_progress(relid, NULL, shard);
}

/*
 * Forget the consumers of tables that have been dropped, unless another
 * session is doing it.  DROP itself leaves the registry alone: to drop a table
 * should not involve the consumers of other tables.
 */
static void
forget_dropped_tables(void)
{
	Params		params = {0};
	uint64		n;
	Oid		   *relids;
	bool		isnull;

	/* Rows that another session has deleted meanwhile would be an error. */
	if (IsolationUsesXactSnapshot())
		return;
	n = execute_registry("DELETE FROM shard_fdw.consumer_registry WHERE ctid = ANY"
						 " (ARRAY(SELECT r.ctid FROM shard_fdw.consumer_registry r"
						 "         WHERE NOT EXISTS (SELECT FROM pg_foreign_table f WHERE f.ftrelid = r.logical)"
						 "           FOR UPDATE SKIP LOCKED)) RETURNING logical::oid",
						 &params);
	relids = palloc(sizeof(Oid) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		relids[i] = DatumGetObjectId(registry_value(i, 1, &isnull));
	for (uint64 i = 0; i < n; i++)
		forget_progress(relids[i], NULL, InvalidOid);
	pfree(relids);
}

/*
 * shard_column_renamed
 *		Have the consumers that read in order of a column know its new name.
 *		SPI is connected.
 */
void
shard_column_renamed(Oid relid, const char *from, const char *to)
{
	Params		params = {.logical = relid,.column = from,.new_column = to};

	execute_registry("UPDATE shard_fdw.consumer_registry SET order_by = $7"
					 " WHERE logical = $1 AND order_by = $6", &params);
}

/*
 * shard_check_column_unread
 *		Raise ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST if a consumer of the
 *		logical table reads in order of a column that is being dropped.  SPI is
 *		connected.
 */
void
shard_check_column_unread(Oid relid, const char *column)
{
	Params		params = {.logical = relid,.column = column};

	if (execute_registry("SELECT consumer FROM shard_fdw.consumer_registry"
						 " WHERE logical = $1 AND order_by = $6 LIMIT 1",
						 &params) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop column \"%s\" of foreign table \"%s\" because consumer \"%s\" reads in its order",
						column, get_rel_name(relid),
						SPI_getvalue(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, 1)),
				 errhint("Drop the consumer with SELECT shard_fdw.drop_consumer() first.")));
}

/*
 * shard_is_behind
 *		Is the sequence of a shard behind the id up to which it has been read?
 *		SPI is connected.
 *
 * A shard that is replicated from elsewhere gets its ids there, and so is
 * never behind.
 */
bool
shard_is_behind(Oid shard, Oid sequence, const ShardProgress *progress)
{
	Params		params = {.shard = shard,.progress = progress,.sequence = sequence};

	return execute_registry("SELECT FROM pg_sequence WHERE seqrelid = $9"
							" AND CASE WHEN seqincrement > 0"
							"     THEN COALESCE(pg_sequence_last_value($9), seqstart - seqincrement) END"
							"     > $4 - seqincrement"
							" UNION ALL "
							"SELECT FROM pg_subscription_rel WHERE srrelid = $3",
							&params) == 0;
}

/*
 * shard_list_lanes
 *		The shards that a consumer has to read, and how far it has read them.
 *		With the end of a window, those read up to that are left out, and the
 *		others come in order of their windows; without, in order of their last
 *		reading.  SPI is connected.
 *
 * Returns an array of *nlanes shards, allocated in the memory context of SPI.
 */
ShardLane *
shard_list_lanes(Oid relid, const char *consumer, const ShardProgress *up_to,
				 uint64 *nlanes)
{
	Params		params = {.logical = relid,.consumer = consumer,.progress = up_to};
	ShardLane  *lanes;
	bool		isnull;

	*nlanes = execute_registry("SELECT k.shard::oid, k.watermark, k.window_end"
							   "  FROM shard_fdw.consumer_lanes k"
							   "  JOIN shard_fdw.list_shards($1) l ON l.shard = k.shard"
							   " WHERE k.logical = $1 AND k.consumer = $2"
							   "   AND ($5 IS NULL OR k.window_end IS NULL OR k.window_end < $5)"
							   " ORDER BY CASE WHEN $5 IS NULL THEN k.last_read ELSE k.window_end END NULLS FIRST,"
							   "          l.ordinal", &params);
	lanes = palloc(sizeof(ShardLane) * Max(*nlanes, 1));
	for (uint64 i = 0; i < *nlanes; i++)
	{
		lanes[i].shard = DatumGetObjectId(registry_value(i, 1, &isnull));
		read_progress(i, 2, &lanes[i].progress);
	}
	return lanes;
}

/*
 * shard_lock_lane
 *		Lock for this transaction how far a consumer has read a shard, and
 *		find out how far that is now.  SPI is connected.
 *
 * Returns false if other sessions are reading it, or have read it up to the
 * end of a window that is given.
 */
bool
shard_lock_lane(Oid relid, const char *consumer, ShardLane *lane,
				const ShardProgress *up_to)
{
	Params		params = {.logical = relid,.consumer = consumer,
	.shard = lane->shard,.progress = up_to};

	if (execute_registry("SELECT watermark, window_end FROM shard_fdw.consumer_lanes"
						 " WHERE logical = $1 AND consumer = $2 AND shard = $3"
						 "   AND ($5 IS NULL OR window_end IS NULL OR window_end < $5)"
						 "   FOR UPDATE SKIP LOCKED", &params) == 0)
		return false;
	read_progress(0, 1, &lane->progress);
	return true;
}

/*
 * shard_advance_lane
 *		Note that a consumer has read a shard so far.  SPI is connected.
 */
void
shard_advance_lane(Oid relid, const char *consumer, const ShardLane *lane)
{
	Params		params = {.logical = relid,.consumer = consumer,
	.shard = lane->shard,.progress = &lane->progress};

	execute_registry("UPDATE shard_fdw.consumer_lanes"
					 "   SET watermark = $4, window_end = $5, last_read = clock_timestamp()"
					 " WHERE logical = $1 AND consumer = $2 AND shard = $3",
					 &params);
}

/*
 * shard_record_window
 *		Record the window, which ends where the lane now is, that a consumer
 *		has read of a shard.  SPI is connected.
 */
void
shard_record_window(Oid relid, const char *consumer, const ShardLane *lane,
					const ShardWindow *window)
{
	Params		params = {.logical = relid,.consumer = consumer,
		.shard = lane->shard,.progress = &lane->progress,
	.window = window};

	execute_registry("INSERT INTO shard_fdw.consumer_windows"
					 " (logical, consumer, shard, window_start, window_end, rows, late_rows)"
					 " VALUES ($1, $2, $3, $10, $5, $11, $12)", &params);
}

/*
 * shard_list_readers
 *		All consumers of a logical table, in order of their names, and how far
 *		each has read a shard.  SPI is connected.
 *
 * Returns an array of *nreaders of them, allocated in the memory context of
 * SPI.
 */
ShardReader *
shard_list_readers(Oid relid, Oid shard, uint64 *nreaders)
{
	Params		params = {.logical = relid,.shard = shard};
	ShardReader *readers;

	*nreaders = execute_registry("SELECT r.consumer, k.watermark, k.window_end,"
								 "       CASE WHEN r.windows THEN r.order_by END"
								 "  FROM shard_fdw.consumer_registry r"
								 "  LEFT JOIN shard_fdw.consumer_lanes k"
								 "    ON k.logical = r.logical AND k.consumer = r.consumer AND k.shard = $3"
								 " WHERE r.logical = $1 ORDER BY 1", &params);
	readers = palloc(sizeof(ShardReader) * Max(*nreaders, 1));
	for (uint64 i = 0; i < *nreaders; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];

		readers[i].consumer = SPI_getvalue(row, SPI_tuptable->tupdesc, 1);
		read_progress(i, 2, &readers[i].progress);
		readers[i].time_column = SPI_getvalue(row, SPI_tuptable->tupdesc, 4);
	}
	return readers;
}

/*
 * Raise an error if a role that does not own the table has as many consumers
 * as it may have.  SPI is connected.
 *
 * Consumers that other sessions are just registering are not counted, so
 * there can be a few more.
 */
static void
check_number_of_consumers(Oid relid, const char *role)
{
	Params		params = {.logical = relid,.role = role};
	bool		isnull;

	if (shard_class_ownercheck(relid, GetUserId()))
		return;
	execute_registry("SELECT count(*) FROM shard_fdw.consumer_registry"
					 " WHERE logical = $1 AND role = $8", &params);
	if (DatumGetInt64(registry_value(0, 1, &isnull)) < MAX_CONSUMERS)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("role \"%s\" cannot have more than %d consumers of foreign table \"%s\"",
					GetUserNameFromId(GetUserId(), false), MAX_CONSUMERS,
					get_rel_name(relid)),
			 errdetail("Only roles that own the table can."),
			 errhint("Drop those that are not used any more with SELECT shard_fdw.drop_consumer().")));
}

/*
 * shard_set_lane
 *		Have a consumer, which we have locked against its readers, read a shard
 *		from there on.  Windows that it will read again are forgotten.  SPI is
 *		connected.
 */
void
shard_set_lane(Oid relid, const char *consumer, Oid shard,
			   const ShardProgress *progress)
{
	Params		params = {.logical = relid,.consumer = consumer,
	.shard = shard,.progress = progress};

	execute_registry("UPDATE shard_fdw.consumer_lanes"
					 "   SET watermark = $4, window_end = $5"
					 " WHERE logical = $1 AND consumer = $2 AND shard = $3",
					 &params);
	execute_registry("DELETE FROM shard_fdw.consumer_windows"
					 " WHERE logical = $1 AND consumer = $2 AND shard = $3"
					 "   AND ($5 IS NULL OR window_end > $5)", &params);
}

/*
 * shard_add_consumer
 *		Register a consumer of a logical table for the current role, which
 *		reads windows of the column or in its order, from the first row on.
 *		It is locked against its readers until the transaction ends.  SPI is
 *		connected.
 *
 * Raises ERRCODE_DUPLICATE_OBJECT if there is one of that name, and
 * ERRCODE_PROGRAM_LIMIT_EXCEEDED if a role that does not own the table has too
 * many.
 */
void
shard_add_consumer(Oid relid, const char *consumer, const char *column,
				   bool has_windows)
{
	const char *role = quote_identifier(GetUserNameFromId(GetUserId(), false));
	Params		params = {.logical = relid,.consumer = consumer,
	.column = column,.role = role};

	forget_dropped_tables();
	check_number_of_consumers(relid, role);
	if (execute_registry(has_windows ?
						 "INSERT INTO shard_fdw.consumer_registry (logical, consumer, order_by, windows, role)"
						 " VALUES ($1, $2, $6, true, $8) ON CONFLICT DO NOTHING" :
						 "INSERT INTO shard_fdw.consumer_registry (logical, consumer, order_by, windows, role)"
						 " VALUES ($1, $2, $6, false, $8) ON CONFLICT DO NOTHING",
						 &params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" of foreign table \"%s\" already exists",
						consumer, get_rel_name(relid))));
	/* Sessions may still read for a dropped one of the same name. */
	lock_consumer(relid, consumer, AccessExclusiveLock, false);
	forget_progress(relid, consumer, InvalidOid);
	shard_update_lanes(relid, consumer);
}

/*
 * shard_drop_consumer(logical regclass, consumer text)
 *		SQL function drop_consumer(): forgets a consumer and its watermarks.
 *
 * Strict.  Raises ERRCODE_UNDEFINED_OBJECT if there is none, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE if it is another role's and the caller does
 * not own the table.
 */
Datum
shard_drop_consumer(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Params		params = {.logical = relid,.consumer = consumer};

	PreventCommandIfReadOnly("drop_consumer()");
	shard_check_logical(relid);
	SPI_connect();
	forget_dropped_tables();
	shard_lock_consumer(relid, consumer, AccessExclusiveLock);
	execute_registry("DELETE FROM shard_fdw.consumer_registry"
					 " WHERE logical = $1 AND consumer = $2", &params);
	forget_progress(relid, consumer, InvalidOid);
	SPI_finish();
	PG_RETURN_VOID();
}
