/*-------------------------------------------------------------------------
 *
 * lag.c
 *	  How many rows consumers have not read, and since when they are there.
 *
 * View consumers estimates the number from what it finds at once.  This counts
 * the rows, with the caller's privileges.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"

#include "access/commit_ts.h"
#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_consumer_lag);

/*
 * The number of rows of a shard that a consumer has not read, and the time of
 * the oldest of them.  SPI is connected; the result is in SPI_tuptable.
 *
 * That is the least value of the column whose windows the consumer reads, or of
 * the table's time column, or the time at which the first one was committed.
 */
static void
count_unread(const ShardTable *table, Oid shard, const ShardReader *reader)
{
	const ShardProgress *progress = &reader->progress;
	const char *time_column = reader->time_column;
	char	   *id = get_attname(table->relid, table->seq_attno, false);
	const char *name = shard_qualified_name(table->relid);
	Oid			types[] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[] = {
		Int64GetDatum(progress->has_id ? progress->id : PG_INT64_MIN),
		TimestampTzGetDatum(progress->window_end)
	};
	char	   *where;
	char	   *oldest;

	where = psprintf("FROM %s WHERE tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid",
					 name, shard);
	/* Before the first window, all rows are unread. */
	if (time_column != NULL && progress->has_window)
		where = psprintf("%s AND (%s OPERATOR(pg_catalog.>) $1 OR %s OPERATOR(pg_catalog.>=) $2)",
						 where, quote_identifier(id),
						 quote_identifier(time_column));
	else if (time_column == NULL && progress->has_id)
		where = psprintf("%s AND %s OPERATOR(pg_catalog.>) $1", where,
						 quote_identifier(id));

	if (time_column == NULL && table->time_attno != 0)
		time_column = get_attname(table->relid, table->time_attno, false);
	if (time_column != NULL)
		oldest = psprintf("pg_catalog.min(%s)::pg_catalog.timestamptz",
						  quote_identifier(time_column));
	else if (track_commit_timestamp)
		oldest = psprintf("(SELECT pg_catalog.pg_xact_commit_timestamp(xmin) %s ORDER BY %s LIMIT 1)",
						  where, quote_identifier(id));
	else
		oldest = "NULL::pg_catalog.timestamptz";
	if (SPI_execute_with_args(psprintf("SELECT pg_catalog.count(*), %s %s",
									   oldest, where),
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not count rows");
}

/*
 * shard_consumer_lag(logical regclass, consumer text)
 *		SQL function consumer_lag(): of each shard, how many rows the consumer,
 *		or each of them, has not read, and the time of the oldest.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller may read the table,
 * ERRCODE_UNDEFINED_OBJECT for a consumer that is not registered, and what
 * shard_check_consumable() raises.
 */
Datum
shard_consumer_lag(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			relid;
	char	   *only = PG_ARGISNULL(1) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		found = false;
	ShardMember *members;
	int			nmembers;
	Relation	logical;

	shard_check_argument(fcinfo, 0, "logical table");
	relid = PG_GETARG_OID(0);
	shard_check_logical(relid);
	shard_check_readable(relid);
	logical = table_open(relid, AccessShareLock);
	shard_check_consumable(relid);
	members = shard_list_members(relid, &nmembers);
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	for (int i = 0; i < nmembers; i++)
	{
		uint64		nreaders;
		ShardReader *readers = shard_list_readers(relid, members[i].relid,
												  &nreaders);

		for (uint64 j = 0; j < nreaders; j++)
		{
			Datum		values[4];
			bool		nulls[4] = {0};

			if (only != NULL && strcmp(readers[j].consumer, only) != 0)
				continue;
			found = true;
			count_unread(shard_table_get(relid), members[i].relid,
						 &readers[j]);
			values[0] = CStringGetTextDatum(readers[j].consumer);
			values[1] = ObjectIdGetDatum(members[i].relid);
			values[2] = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &nulls[2]);
			values[3] = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 2, &nulls[3]);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 nulls);
		}
	}
	if (only != NULL && !found && nmembers > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" of foreign table \"%s\" does not exist",
						only, get_rel_name(relid)),
				 errhint("Register it with SELECT shard_fdw.register_consumer().")));
	SPI_finish();
	table_close(logical, NoLock);
	return (Datum) 0;
}
