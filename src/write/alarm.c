/*-------------------------------------------------------------------------
 *
 * alarm.c
 *	  Noticing, while inserting, that maintenance of a logical table is due,
 *	  and starting a worker that does it.
 *
 * A statement compares two times.  When a session has not looked for a while,
 * it looks at two rows: since when the open shards are, and when the last run
 * was.  What it knows of closed shards does not tell what is due about them, so
 * there is a run from time to time while there are some.  If it finds something
 * to be due, it asks the postmaster for a dynamic background worker, and goes
 * on.  The worker acts as the owner of the table (worker.c).
 *
 * None of that may be an error, or something to wait for, for the session.  If
 * no worker can be started, one of the next sessions to look will try.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/syscache.h"

/* Times are in microseconds.  At least so much is between two looks, or runs, */
#define LEAST_INTERVAL	USECS_PER_SEC
/* ... and at most so much between two looks of a session, */
#define LOOK_INTERVAL	USECS_PER_MINUTE
/* ... and two runs, as long as there are closed shards. */
#define RUN_INTERVAL	USECS_PER_HOUR

/* After runs in which something went wrong, it doubles up to so often. */
#define MAX_DOUBLINGS	6

/*
 * A tenth of the shorter interval that the table has, within bounds.
 */
static int64
short_interval(const ShardSchedule *schedule, int64 greatest)
{
	int64		result = greatest;
	const Interval *intervals[] = {
		schedule->has_rotate_every ? &schedule->rotate_every : NULL,
		schedule->has_retain_for ? &schedule->retain_for : NULL
	};

	for (int i = 0; i < lengthof(intervals); i++)
	{
		if (intervals[i] != NULL && intervals[i]->month == 0 &&
			intervals[i]->day == 0)
			result = Min(result, intervals[i]->time / 10);
	}
	return Max(result, LEAST_INTERVAL);
}

/*
 * Are there closed shards, which may want a range, or be old?  Of those that are
 * elsewhere only a run can find that out.
 *
 * More than that is not known of them in a session that only inserts.
 */
static bool
has_closed_shards(const ShardTable *table)
{
	for (int i = 0; i < table->nmembers; i++)
	{
		if (!table->members[i].is_open &&
			(table->members[i].is_local || table->schedule.has_retain_for))
			return true;
	}
	return table->nunseen > 0;
}

/*
 * Is something due?  If not, *next becomes the time of the next rotation.
 */
static bool
is_due(const ShardTable *table, TimestampTz now, TimestampTz *next)
{
	const ShardSchedule *schedule = &table->schedule;
	ShardRun	last;
	ShardDue	due;
	int64		pause;

	shard_get_run(table->relid, &last);
	shard_find_due(table->relid, schedule, NULL, 0, now, &due);
	*next = due.next_rotation;
	if (last.failures > 0)
	{
		/* Rows go on to come, so a new generation does not wait long. */
		int			doublings = due.rotate ? 0 : last.failures - 1;

		pause = short_interval(schedule, LOOK_INTERVAL) <<
			Min(doublings, MAX_DOUBLINGS);
		return now >= last.last_run + pause;
	}
	pause = short_interval(schedule, RUN_INTERVAL);
	return due.rotate || due.begin ||
		(now >= last.last_run + pause && has_closed_shards(table));
}

/*
 * May the role connect to this database?  A worker that may not would end with
 * an error in the log.
 */
static bool
may_work(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		return false;
	result &= ((Form_pg_database) GETSTRUCT(tuple))->datallowconn;
	ReleaseSysCache(tuple);
	return result && shard_may_connect(role);
}

/*
 * Is a worker, or somebody else, at it?
 */
static bool
is_being_maintained(Oid logical)
{
	LOCKTAG		tag;
	int			n;

	shard_maintenance_tag(&tag, logical);
	pfree(GetLockConflicts(&tag, ExclusiveLock, &n));
	return n > 0;
}

/*
 * Ask the postmaster for a worker.  If there is none to be had, somebody will
 * ask again.
 */
static void
start_worker(const ShardTable *table, Relation logical)
{
	BackgroundWorker worker;
	ShardWorkerTask task = {
		.database = MyDatabaseId,
		.role = logical->rd_rel->relowner,
		.logical = table->relid
	};

	StaticAssertStmt(sizeof(task) <= BGW_EXTRALEN, "task does not fit");
	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "shard_fdw maintenance of table %u",
			 table->relid);
	snprintf(worker.bgw_type, BGW_MAXLEN, "shard_fdw maintenance");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name),
			 "shard_fdw");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "shard_worker_main");
	memcpy(worker.bgw_extra, &task, sizeof(task));
	if (!RegisterDynamicBackgroundWorker(&worker, NULL))
		ereport(DEBUG1,
				(errmsg_internal("no background worker is free for foreign table \"%s\"",
								 RelationGetRelationName(logical))));
}

/*
 * shard_check_due
 *		See whether maintenance of a logical table is due, and have a worker do
 *		it.
 *
 * The table is open and locked.  Raises and waits for nothing, and leaves the
 * cache entry as it is except for the time of the next look.
 */
void
shard_check_due(ShardTable *table, Relation logical)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	int64		interval = short_interval(&table->schedule, LOOK_INTERVAL);
	int64		jitter = interval * pg_prng_double(&pg_global_prng_state);
	TimestampTz next;

	/* Sessions should not all look at the same moment. */
	table->check_at = now + interval / 2 + jitter;
	if (!IsUnderPostmaster || IsBinaryUpgrade || IsInParallelMode() ||
		RecoveryInProgress() || max_worker_processes == 0 ||
		logical->rd_createSubid != InvalidSubTransactionId)
		return;
	if (!is_due(table, now, &next))
	{
		/* ... but when the next generation is due, or soon after. */
		if (next > now && next < table->check_at - jitter / 10)
			table->check_at = next + jitter / 10;
		return;
	}
	if (is_being_maintained(table->relid) ||
		!may_work(logical->rd_rel->relowner))
		return;
	start_worker(table, logical);
}
