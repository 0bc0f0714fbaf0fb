/*-------------------------------------------------------------------------
 *
 * consumer.c
 *	  Reading the rows of a table with commit order bit by bit.
 *
 * In a shard of a table with commit order, ids become visible in their
 * order.  So a consumer that remembers for each shard the last id that it has
 * read, the watermark, misses no row.  The watermark moves in the transaction
 * that reads: what that does with the rows and the reading are committed
 * together, or not at all.  Whoever moves one has it locked, and others read
 * other shards meanwhile.
 *
 * A consumer of windows of time remembers for each shard the last id that was
 * there when it read, and the time up to which it read.  Rows that came later
 * with an earlier time have greater ids: it gets them with the next window.
 *
 * Rows are read through the logical table, with the caller's privileges; a
 * condition on tableoid gets the query to one shard.  What consumers there
 * are and their watermarks are in tables of the extension's, which are
 * written as their owner.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(shard_register_consumer);
PG_FUNCTION_INFO_V1(shard_drop_consumer);
PG_FUNCTION_INFO_V1(shard_read_batch);
PG_FUNCTION_INFO_V1(shard_read_window);

/* So many consumers of a table can a role have that does not own the table. */
#define MAX_CONSUMERS	100

/* The watermark of a shard that has not been read. */
#define NO_WATERMARK	"-9223372036854775808"

/*
 * Run a command on the tables of consumers, as their owner.  SPI is
 * connected.  Returns the number of rows.
 */
static uint64
execute_registry(const char *sql)
{
	Oid			registry = get_relname_relid("consumer_lanes",
											 get_namespace_oid("shard_fdw", false));
	Relation	rel = table_open(registry, AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;
	Oid			userid;
	int			sec_context;
	int			rc;

	table_close(rel, NoLock);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	rc = SPI_execute(sql, false, 0);
	SetUserIdAndSecContext(userid, sec_context);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s", sql);
	return SPI_processed;
}

/*
 * Raise an error unless the logical table can be read by consumers.  Returns
 * the column that its ids are in.
 */
static const char *
check_consumable(Oid relid)
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
		if (!table->members[i].is_local || table->members[i].has_children)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("consumers cannot read foreign table \"%s\"",
							get_rel_name(relid)),
					 errdetail("Shard \"%s\" is a foreign table or has inheritance children, whose rows are not in the shard's order.",
							   get_rel_name(table->members[i].relid))));
	return get_attname(relid, table->seq_attno, false);
}

/*
 * The condition that finds a consumer in the tables of consumers.
 */
static char *
consumer_condition(Oid relid, const char *consumer)
{
	return psprintf("logical OPERATOR(pg_catalog.=) %u AND consumer OPERATOR(pg_catalog.=) %s",
					relid, quote_literal_cstr(consumer));
}

/*
 * Lock a consumer until the end of the transaction: who reads for it against
 * those who drop it or register it anew, in AccessShareLock mode, and who adds
 * shards against others who do.  Returns whether there was no need to wait, or
 * it was allowed.
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
 * Raise an error unless the consumer is registered, and by a role that the
 * caller is a member of, or unless the caller owns the table and that is
 * enough.  Returns the column whose windows it reads, or NULL.
 */
static char *
find_consumer(Oid relid, const char *consumer, bool owner_may)
{
	bool		isnull;
	Oid			role;

	if (execute_registry(psprintf("SELECT pg_catalog.to_regrole(role)::pg_catalog.oid, CASE WHEN windows THEN order_by END FROM shard_fdw.consumer_registry WHERE %s",
								  consumer_condition(relid, consumer))) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" of foreign table \"%s\" does not exist",
						consumer, get_rel_name(relid)),
				 errhint("Register it with SELECT shard_fdw.register_consumer().")));
	role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull));
	if ((isnull ? !superuser() : !has_privs_of_role(GetUserId(), role)) &&
		!(owner_may && shard_class_ownercheck(relid, GetUserId())))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for consumer \"%s\"", consumer),
				 errdetail("It belongs to the role that has registered it.")));
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
}

/*
 * The same, and lock it; only those who may can keep others waiting.
 */
static char *
find_and_lock_consumer(Oid relid, const char *consumer, LOCKMODE mode,
					   bool owner_may)
{
	find_consumer(relid, consumer, owner_may);
	lock_consumer(relid, consumer, mode, false);
	return find_consumer(relid, consumer, owner_may);
}

/*
 * Forget what the condition finds in the tables of the shards that consumers
 * have read.
 */
static void
forget_lanes(const char *condition)
{
	execute_registry(psprintf("DELETE FROM shard_fdw.consumer_lanes WHERE %s", condition));
	execute_registry(psprintf("DELETE FROM shard_fdw.consumer_windows WHERE %s", condition));
}

/*
 * Have the consumer know all shards of the table.  Shards that have been
 * dropped are forgotten; those that are detached may come back.
 */
static void
update_lanes(Oid relid, const char *consumer)
{
	const char *lanes = consumer_condition(relid, consumer);
	const char *dropped = psprintf("%s AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) shard)",
								   lanes);

	if (execute_registry(psprintf("SELECT FROM shard_fdw.list_shards(%u) l WHERE NOT EXISTS"
								  " (SELECT FROM shard_fdw.consumer_lanes k WHERE %s AND k.shard OPERATOR(pg_catalog.=) l.shard)"
								  " UNION ALL SELECT FROM shard_fdw.consumer_lanes WHERE %s LIMIT 1",
								  relid, lanes, dropped)) == 0)
		return;

	/* Somebody who is at it for this consumer need not be waited for. */
	if (!lock_consumer(relid, consumer, ExclusiveLock, true))
		return;
	forget_lanes(dropped);
	execute_registry(psprintf("INSERT INTO shard_fdw.consumer_lanes (logical, consumer, shard)"
							  " SELECT %u, %s, l.shard FROM shard_fdw.list_shards(%u) l"
							  " WHERE NOT EXISTS (SELECT FROM shard_fdw.consumer_lanes k WHERE %s AND k.shard OPERATOR(pg_catalog.=) l.shard)"
							  " ON CONFLICT DO NOTHING",
							  relid, quote_literal_cstr(consumer), relid,
							  lanes));
}

/*
 * shard_forget_consumers
 *		Forget the consumers of a logical table.  SPI is connected.
 */
void
shard_forget_consumers(Oid relid)
{
	execute_registry(psprintf("DELETE FROM shard_fdw.consumer_registry WHERE logical OPERATOR(pg_catalog.=) %u",
							  relid));
	forget_lanes(psprintf("logical OPERATOR(pg_catalog.=) %u", relid));
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
		forget_lanes(psprintf("logical OPERATOR(pg_catalog.=) %u AND shard OPERATOR(pg_catalog.=) %u",
							  relid, shard));
}

/*
 * Forget the consumers of tables that have been dropped, unless somebody else
 * is at it.  DROP itself leaves the tables of consumers alone: whoever drops
 * something should have nothing to do with those who read something else.
 */
static void
forget_dropped_tables(void)
{
	uint64		n;
	Oid		   *relids;

	/* Rows that somebody else has deleted meanwhile would be an error. */
	if (IsolationUsesXactSnapshot())
		return;
	n = execute_registry("DELETE FROM shard_fdw.consumer_registry WHERE ctid OPERATOR(pg_catalog.=) ANY"
						 " (ARRAY(SELECT r.ctid FROM shard_fdw.consumer_registry r"
						 " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid OPERATOR(pg_catalog.=) r.logical)"
						 " FOR UPDATE SKIP LOCKED)) RETURNING logical::pg_catalog.oid");
	relids = palloc_array(Oid, Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
												   SPI_tuptable->tupdesc, 1,
												   &isnull));
	}
	for (uint64 i = 0; i < n; i++)
		forget_lanes(psprintf("logical OPERATOR(pg_catalog.=) %u", relids[i]));
	pfree(relids);
}

/*
 * Raise an error unless a column has the time of each row.  "id" is the one
 * with the ids.
 */
static void
check_time_column(Relation logical, const char *column, const char *id)
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
 * shard_column_renamed
 *		Have consumers of the logical table whose column has been renamed know
 *		it by the new name.  SPI is connected.
 */
void
shard_column_renamed(Oid relid, const char *from, const char *to)
{
	execute_registry(psprintf("UPDATE shard_fdw.consumer_registry SET order_by = %s"
							  " WHERE order_by OPERATOR(pg_catalog.=) %s AND logical OPERATOR(pg_catalog.=) %u",
							  quote_literal_cstr(to), quote_literal_cstr(from),
							  relid));
}

/*
 * Raise an error if a role that does not own the table would fill the tables
 * of consumers.  SPI is connected.
 *
 * Consumers that other sessions are just registering are not counted, so
 * there can be a few more.
 */
static void
check_number_of_consumers(Oid relid, const char *role)
{
	bool		isnull;

	if (shard_class_ownercheck(relid, GetUserId()))
		return;
	execute_registry(psprintf("SELECT pg_catalog.count(*) FROM shard_fdw.consumer_registry"
							  " WHERE logical OPERATOR(pg_catalog.=) %u AND role OPERATOR(pg_catalog.=) %s",
							  relid, quote_literal_cstr(role)));
	if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 1,
									&isnull)) < MAX_CONSUMERS)
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
 * shard_check_column_unread
 *		Raise ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST if a consumer of the
 *		logical table reads in order of a column that is being dropped.  SPI is
 *		connected.
 */
void
shard_check_column_unread(Oid relid, const char *column)
{
	if (execute_registry(psprintf("SELECT consumer FROM shard_fdw.consumer_registry"
								  " WHERE logical OPERATOR(pg_catalog.=) %u AND order_by OPERATOR(pg_catalog.=) %s LIMIT 1",
								  relid, quote_literal_cstr(column))) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop column \"%s\" of foreign table \"%s\" because consumer \"%s\" reads in its order",
						column, get_rel_name(relid),
						SPI_getvalue(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, 1)),
				 errhint("Drop the consumer with SELECT shard_fdw.drop_consumer() first.")));
}

/*
 * shard_register_consumer(logical regclass, consumer text, order_by name)
 *		SQL function register_consumer(): the current role's consumer of a
 *		table begins with its first row.
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
	const char *role = quote_identifier(GetUserNameFromId(GetUserId(), false));
	Relation	logical;
	const char *id;
	bool		windows;
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
	 * Wait for those that may have begun to write before there were lanes.
	 * Who may read only must not keep others from writing, so take no lock.
	 */
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	WaitForLockers(tag, ShareLock, false);
	id = check_consumable(relid);
	windows = strcmp(order_by, id) != 0;
	if (windows)
		check_time_column(logical, order_by, id);

	SPI_connect();
	forget_dropped_tables();
	check_number_of_consumers(relid, role);
	if (execute_registry(psprintf("INSERT INTO shard_fdw.consumer_registry (logical, consumer, order_by, windows, role)"
								  " VALUES (%u, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
								  relid, quote_literal_cstr(consumer),
								  quote_literal_cstr(order_by),
								  windows ? "true" : "false",
								  quote_literal_cstr(role))) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" of foreign table \"%s\" already exists",
						consumer, get_rel_name(relid))));
	/* Whoever still reads for one of that name that has been dropped. */
	lock_consumer(relid, consumer, AccessExclusiveLock, false);
	forget_lanes(consumer_condition(relid, consumer));
	update_lanes(relid, consumer);
	SPI_finish();
	table_close(logical, NoLock);
	PG_RETURN_VOID();
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

	PreventCommandIfReadOnly("drop_consumer()");
	shard_check_logical(relid);
	SPI_connect();
	forget_dropped_tables();
	find_and_lock_consumer(relid, consumer, AccessExclusiveLock, true);
	execute_registry(psprintf("DELETE FROM shard_fdw.consumer_registry WHERE %s",
							  consumer_condition(relid, consumer)));
	forget_lanes(consumer_condition(relid, consumer));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Raise an error if the shard gives ids that the consumer takes for read.
 * One that is replicated from elsewhere gets ids of elsewhere.
 */
static void
check_not_behind(Oid relid, const char *consumer, Oid shard,
				 const char *watermark)
{
	ShardTable *table = shard_table_get(relid);
	int			ordinal = shard_table_find(table, shard);
	Oid			sequence = ordinal < 0 ? InvalidOid :
		table->members[ordinal].sequence;

	if (strcmp(watermark, NO_WATERMARK) == 0 || !OidIsValid(sequence) ||
		execute_registry(psprintf("SELECT FROM pg_catalog.pg_sequence WHERE seqrelid OPERATOR(pg_catalog.=) %u::pg_catalog.oid"
								  " AND (CASE WHEN seqincrement OPERATOR(pg_catalog.>) 0 THEN COALESCE(pg_catalog.pg_sequence_last_value(%u::pg_catalog.regclass), seqstart OPERATOR(pg_catalog.-) seqincrement) END)"
								  " OPERATOR(pg_catalog.>) (pg_catalog.int8 '%s' OPERATOR(pg_catalog.-) seqincrement)"
								  " UNION ALL SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid OPERATOR(pg_catalog.=) %u::pg_catalog.oid",
								  sequence, sequence, watermark, shard)) > 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("ids of shard \"%s\" have gone back", get_rel_name(shard)),
			 errdetail("Consumer \"%s\" has read it up to %s, and its sequence is behind that.",
					   consumer, watermark),
			 errhint("Set the sequence past the ids that have been read, or drop the consumer and register it anew.")));
}

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
	Oid		   *lanes;
	char	  **watermarks;
} Reading;

/*
 * Begin to read: SPI is connected, and the caller's result is materialized.
 * "lanes" is a further condition on lanes, and says in which order they come.
 */
static void
begin_reading(FunctionCallInfo fcinfo, const char *function, bool windows,
			  const char *lanes, Reading *r)
{
	const char *registered;
	const char *id;

	r->logical = shard_open_argument(fcinfo, function);
	r->relid = RelationGetRelid(r->logical);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the consumer must not be null")));
	r->consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	registered = find_and_lock_consumer(r->relid, r->consumer, AccessShareLock,
										false);
	if (windows != (registered != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 registered ?
				 errmsg("consumer \"%s\" of foreign table \"%s\" reads windows of column \"%s\"",
						r->consumer, RelationGetRelationName(r->logical), registered) :
				 errmsg("consumer \"%s\" of foreign table \"%s\" does not read windows",
						r->consumer, RelationGetRelationName(r->logical)),
				 errhint("Use %s.", windows ? "read_batch()" : "read_window()")));
	id = check_consumable(r->relid);
	r->id = quote_identifier(id);
	r->id_type = get_atttype(r->relid, get_attnum(r->relid, id));
	r->at = NULL;
	if (windows)
	{
		check_time_column(r->logical, registered, id);
		r->at = quote_identifier(registered);
	}
	r->table = shard_qualified_name(r->relid);
	r->columns = shard_column_list(r->logical, "", true);
	update_lanes(r->relid, r->consumer);

	r->nlanes = execute_registry(psprintf("SELECT k.shard::pg_catalog.oid, COALESCE(k.watermark, pg_catalog.int8 '%s')"
										  " FROM shard_fdw.consumer_lanes k"
										  " JOIN shard_fdw.list_shards(%u) l ON l.shard OPERATOR(pg_catalog.=) k.shard"
										  " WHERE k.%s%s, l.ordinal",
										  NO_WATERMARK, r->relid,
										  consumer_condition(r->relid, r->consumer),
										  lanes));
	r->lanes = palloc_array(Oid, Max(r->nlanes, 1));
	r->watermarks = palloc_array(char *, Max(r->nlanes, 1));
	for (uint64 i = 0; i < r->nlanes; i++)
	{
		bool		isnull;

		r->lanes[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
													 SPI_tuptable->tupdesc, 1,
													 &isnull));
		r->watermarks[i] = SPI_getvalue(SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc, 2);
	}
}

/*
 * FROM and WHERE that find the rows of a lane.
 */
static char *
rows_of_lane(Reading *r, Oid lane)
{
	return psprintf("FROM %s WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid",
					r->table, lane);
}

/*
 * A time as a literal, whatever the settings are.
 */
static char *
time_literal(TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buf[MAXDATELEN + 1];

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	tm.tm_isdst = 0;			/* it is in UTC, and to be shown as such */
	EncodeDateTime(&tm, fsec, true, 0, NULL, USE_ISO_DATES, buf);
	return psprintf("pg_catalog.timestamptz '%s'", buf);
}

/*
 * Lock the watermark of a lane for this transaction.  Returns it, and when
 * the last window ended, as a literal or NULL; or NULL if others read the
 * lane just now, or have, so that the condition does not hold any more.
 */
static char *
lock_lane(Reading *r, Oid lane, const char *condition, char **window_end)
{
	bool		isnull;
	Datum		end;

	if (execute_registry(psprintf("SELECT COALESCE(watermark, pg_catalog.int8 '%s'), window_end FROM shard_fdw.consumer_lanes"
								  " WHERE %s AND shard OPERATOR(pg_catalog.=) %u%s FOR UPDATE SKIP LOCKED",
								  NO_WATERMARK,
								  consumer_condition(r->relid, r->consumer),
								  lane, condition)) == 0)
		return NULL;
	end = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (window_end)
		*window_end = isnull ? NULL :
			time_literal(DatumGetTimestampTz(end));
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * Have the lane read, up to an id and, if not NULL, the end of a window.
 */
static void
move_watermark(Reading *r, Oid lane, const char *watermark,
			   const char *window_end)
{
	execute_registry(psprintf("UPDATE shard_fdw.consumer_lanes SET watermark = %s, window_end = %s, last_read = pg_catalog.clock_timestamp()"
							  " WHERE %s AND shard OPERATOR(pg_catalog.=) %u",
							  strcmp(watermark, NO_WATERMARK) == 0 ? "NULL" : watermark,
							  window_end ? window_end : "NULL",
							  consumer_condition(r->relid, r->consumer), lane));
}

/*
 * shard_unread_by
 *		The name of a consumer of the logical table that has not read all rows
 *		of the shard, or NULL if there is none.  SPI is connected.
 *
 * The shard is locked against those who read and write it.  The result is
 * allocated in the current memory context of SPI.
 */
char *
shard_unread_by(Oid logical, Oid shard)
{
	ShardTable *table = shard_table_get(logical);
	const char *id = table->seq_attno == 0 ? NULL :
		quote_identifier(get_attname(logical, table->seq_attno, false));
	SPITupleTable *consumers;
	uint64		n;

	n = execute_registry(psprintf("SELECT r.consumer, COALESCE(k.watermark, pg_catalog.int8 '%s'), k.window_end,"
								  " CASE WHEN r.windows THEN r.order_by END"
								  " FROM shard_fdw.consumer_registry r"
								  " LEFT JOIN shard_fdw.consumer_lanes k ON k.logical OPERATOR(pg_catalog.=) r.logical"
								  " AND k.consumer OPERATOR(pg_catalog.=) r.consumer AND k.shard OPERATOR(pg_catalog.=) %u"
								  " WHERE r.logical OPERATOR(pg_catalog.=) %u ORDER BY 1",
								  NO_WATERMARK, shard, logical));
	consumers = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	row = consumers->vals[i];
		TupleDesc	desc = consumers->tupdesc;
		char	   *watermark = SPI_getvalue(row, desc, 2);
		char	   *order_by = SPI_getvalue(row, desc, 4);
		bool		isnull;
		Datum		window_end = SPI_getbinval(row, desc, 3, &isnull);
		StringInfoData sql;

		initStringInfo(&sql);
		appendStringInfo(&sql, "SELECT FROM ONLY %s",
						 shard_qualified_name(shard));
		/* Without ids, or before the first window, all rows are unread. */
		if (id != NULL && (order_by == NULL || !isnull))
		{
			appendStringInfo(&sql, " WHERE %s OPERATOR(pg_catalog.>) pg_catalog.int8 '%s'",
							 id, watermark);
			if (order_by != NULL)
				appendStringInfo(&sql, " OR %s OPERATOR(pg_catalog.>=) %s",
								 quote_identifier(order_by),
								 time_literal(DatumGetTimestampTz(window_end)));
		}
		appendStringInfoString(&sql, " LIMIT 1");
		if (SPI_execute(sql.data, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "SPI_execute failed: %s", sql.data);
		if (SPI_processed > 0)
			return SPI_getvalue(row, desc, 1);
	}
	return NULL;
}

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
	Reading		r;

	/* Those that have waited longest come first. */
	begin_reading(fcinfo, "read_batch()", false,
				  " ORDER BY last_read NULLS FIRST", &r);
	for (uint64 i = 0; i < r.nlanes; i++)
	{
		char	   *rows = rows_of_lane(&r, r.lanes[i]);
		char	   *bound = PG_ARGISNULL(3) ? "" :
			psprintf(" AND %s OPERATOR(pg_catalog.<=) " INT64_FORMAT, r.id,
					 PG_GETARG_INT64(3));
		char	   *last;
		LastId		id = {r.id_type, 0};

		/* Do not keep others from a shard that has nothing to read. */
		if (SPI_execute(psprintf("SELECT 1 %s AND %s OPERATOR(pg_catalog.>) pg_catalog.int8 '%s'%s LIMIT 1",
								 rows, r.id, r.watermarks[i], bound),
						false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not look for rows");
		if (SPI_processed == 0)
		{
			check_not_behind(r.relid, r.consumer, r.lanes[i], r.watermarks[i]);
			continue;
		}

		/* Others may read it just now, or have moved the watermark. */
		last = lock_lane(&r, r.lanes[i], "", NULL);
		if (last == NULL)
			continue;
		if (shard_return_rows((ReturnSetInfo *) fcinfo->resultinfo,
							  psprintf("SELECT %s, %s %s AND %s OPERATOR(pg_catalog.>) pg_catalog.int8 '%s'%s ORDER BY %s FETCH FIRST %d ROWS WITH TIES",
									   r.columns, r.id, rows, r.id, last, bound,
									   r.id, max_rows),
							  CURSOR_OPT_PARALLEL_OK, PG_UINT64_MAX,
							  note_id, &id) == 0)
			continue;
		move_watermark(&r, r.lanes[i], psprintf(INT64_FORMAT, id.value), NULL);
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
	Reading		r;
	char	   *up_to;
	char	   *unread;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the end of the window must not be null")));
	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(2)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the end of the window must be finite")));
	if (PG_GETARG_TIMESTAMPTZ(2) > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the window is not over"),
				 errdetail("Rows may come until %s.",
						   timestamptz_to_str(PG_GETARG_TIMESTAMPTZ(2)))));
	/* A snapshot does not show rows of transactions that we wait for. */
	shard_check_read_committed("read windows");
	up_to = time_literal(PG_GETARG_TIMESTAMPTZ(2));
	unread = psprintf(" AND (window_end IS NULL OR window_end OPERATOR(pg_catalog.<) %s)", up_to);
	begin_reading(fcinfo, "read_window()", true,
				  psprintf("%s ORDER BY window_end NULLS FIRST", unread), &r);
	for (uint64 i = 0; i < r.nlanes; i++)
	{
		char	   *rows = rows_of_lane(&r, r.lanes[i]);
		char	   *window_end;
		char	   *before;
		char	   *last;
		uint64		nrows;
		uint64		late = 0;

		before = lock_lane(&r, r.lanes[i], unread, &window_end);
		if (before == NULL)
			continue;
		shard_await_lane(r.lanes[i]);

		/* Ids up to the greatest are all there, and what comes has others. */
		if (SPI_execute(psprintf("SELECT GREATEST(pg_catalog.max(%s), pg_catalog.int8 '%s') %s",
								 r.id, before, rows), false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not look for rows");
		last = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (strcmp(last, before) == 0)
			check_not_behind(r.relid, r.consumer, r.lanes[i], before);

		nrows = shard_return_rows((ReturnSetInfo *) fcinfo->resultinfo,
								  psprintf("SELECT %s, %s %s AND %s OPERATOR(pg_catalog.<) %s AND %s OPERATOR(pg_catalog.<=) pg_catalog.int8 '%s'%s ORDER BY %s, %s",
										   r.columns,
										   !window_end ? "false" :
										   psprintf("%s OPERATOR(pg_catalog.<) %s", r.at, window_end),
										   rows, r.at, up_to, r.id, last,
										   !window_end ? "" :
										   psprintf(" AND (%s OPERATOR(pg_catalog.>=) %s OR %s OPERATOR(pg_catalog.>) pg_catalog.int8 '%s')",
													r.at, window_end, r.id, before),
										   r.at, r.id),
								  CURSOR_OPT_PARALLEL_OK, PG_UINT64_MAX,
								  count_late, &late);
		move_watermark(&r, r.lanes[i], last, up_to);
		execute_registry(psprintf("INSERT INTO shard_fdw.consumer_windows (logical, consumer, shard, window_start, window_end, rows, late_rows)"
								  " VALUES (%u, %s, %u, %s, %s, " UINT64_FORMAT ", " UINT64_FORMAT ")",
								  r.relid, quote_literal_cstr(r.consumer),
								  r.lanes[i], window_end ? window_end : "NULL",
								  up_to, nrows, late));
		if (nrows > 0)
			break;
	}
	SPI_finish();
	table_close(r.logical, NoLock);
	return (Datum) 0;
}
