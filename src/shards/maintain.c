/*-------------------------------------------------------------------------
 *
 * maintain.c
 *	  Procedure maintain(): does whatever is due about logical tables.
 *
 * Each step is a transaction of its own, so that the locks it takes are held
 * for a moment, and a subtransaction within that, so that an error is a
 * WARNING and the other steps go on.  What cannot be done now, because
 * somebody is in the way, is left to the next run.
 *
 * There is one run at a time for a table.  Its lock is one of the default
 * method that belongs to the session: it outlives the transactions, and goes
 * with the first one that fails.
 *
 * Which tables may have old shards dropped is in maintenance_runs, which is in
 * no dump.  So a table that comes out of one keeps everything until its owner
 * has confirmed that it is not to: he may have restored it to get old rows
 * back.  Whoever creates a table with its shards, or sets option "retain_for"
 * by ALTER, has confirmed it: neither happens in a restore.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(shard_maintain);
PG_FUNCTION_INFO_V1(shard_confirm_retention);

/* How long a step waits for locks if "lock_timeout" is not set. */
#define PATIENCE	"5s"

/* How often to look for writers of closed shards, and the time between. */
#define RANGE_TRIES	5
#define RANGE_PAUSE	300			/* milliseconds */

/* How often to find a row that is not in the range just read. */
#define RANGE_STEPS	10

/* A run for one table. */
typedef struct MaintenanceRun
{
	Oid			logical;
	char	   *name;
	MemoryContext context;		/* holds what is below */
	List	   *ranges;			/* shards that are to get a range */
	List	   *remote;			/* closed ones that are not here, which may be
								 * old */
	List	   *expired;		/* shards that are to be dropped */
	bool		has_failed;
	char	   *trouble;		/* the first that there was, or NULL */
} MaintenanceRun;

/* How a step went. */
typedef enum StepResult
{
	STEP_FAILED,
	STEP_AGAIN,					/* there is more to do of it */
	STEP_BUSY,					/* ... but somebody is in the way */
	STEP_DONE
} StepResult;

typedef StepResult (*Step) (MaintenanceRun *run, Oid shard);

/* Where to tell what has been done: the server's log, or the user. */
static int
report_level(void)
{
	return MyBgworkerEntry != NULL ? LOG : NOTICE;
}

/*
 * Remember what the view is to show.
 */
static void
note_trouble(MaintenanceRun *run, const char *message)
{
	run->has_failed = true;
	if (run->trouble == NULL && message != NULL)
		run->trouble = MemoryContextStrdup(run->context, message);
}

/*
 * Carry out a step and commit.
 */
static StepResult
do_step(MaintenanceRun *run, Step step, Oid shard)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile StepResult result = STEP_DONE;

	CHECK_FOR_INTERRUPTS();
	shard_check_read_committed("maintain a table");
	PushActiveSnapshot(GetTransactionSnapshot());
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			guc_level = NewGUCNestLevel();

		if (LockTimeout == 0)
			shard_set("lock_timeout", PATIENCE);
		LockRelationOid(run->logical, AccessShareLock);
		/* Somebody may have dropped it meanwhile. */
		if (shard_is_logical(run->logical))
		{
			shard_check_owned(run->logical);
			result = step(run, shard);
		}
		AtEOXact_GUC(false, guc_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);

		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("maintenance of foreign table \"%s\" has failed: %s",
						run->name, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
		note_trouble(run, error->message);
		FreeErrorData(error);
		result = STEP_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	PopActiveSnapshot();
	SPI_commit();
	return result;
}

/*
 * Has none of the open shards ever had a row?
 */
static bool
is_untouched(const ShardTable *table)
{
	for (int i = 0; i < table->nopen; i++)
	{
		const ShardMember *member = &table->members[table->open[i]];
		Relation	rel;
		bool		result;

		if (!member->is_local || member->has_children)
			return false;
		rel = try_relation_open(member->relid, AccessShareLock);
		if (rel == NULL)
			continue;
		result = RelationGetNumberOfBlocks(rel) == 0;
		relation_close(rel, NoLock);
		if (!result)
			return false;
	}
	return true;
}

/*
 * The names of relations, for a message.
 */
static char *
name_list(List *relids)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, relids)
		appendStringInfo(&buf, "%s\"%s\"", buf.len > 0 ? ", " : "",
						 get_rel_name(lfirst_oid(lc)));
	return buf.data;
}

/*
 * Begin a new generation of shards if it is time.
 */
static StepResult
rotate(MaintenanceRun *run, Oid unused)
{
	ShardTable *table = shard_table_get(run->logical);
	ShardDue	due;
	List	   *shards;

	if (!table->schedule.has_rotate_every)
		return STEP_DONE;
	/* From here on nobody else rotates. */
	LockRelationOid(run->logical, ShareUpdateExclusiveLock);
	table = shard_table_get(run->logical);
	shard_find_due(run->logical, &table->schedule, NULL, 0,
				   GetCurrentTimestamp(), &due);
	if (due.begin || (due.rotate && is_untouched(table)))
	{
		/* Shards without rows may as well be those of the next one. */
		shard_note_generation(run->logical, true);
		return STEP_DONE;
	}
	if (!due.rotate)
		return STEP_DONE;
	shards = shard_rotate(run->logical, 0);
	ereport(report_level(),
			(errmsg("foreign table \"%s\" has a new generation of shards",
					run->name),
			 errdetail_plural("Its rows go to shard %s.",
							  "Its rows go to shards %s.",
							  list_length(shards), name_list(shards))));
	return STEP_DONE;
}

/*
 * Find the shards that the next steps are about.
 */
static StepResult
look_at_shards(MaintenanceRun *run, Oid unused)
{
	ShardTable *table = shard_table_get(run->logical);
	const ShardSchedule *schedule = &table->schedule;
	MemoryContext oldcontext = MemoryContextSwitchTo(run->context);
	TimestampTz limit = !schedule->has_retain_for ? DT_NOBEGIN :
		shard_retention_limit(GetCurrentTimestamp(), &schedule->retain_for);

	run->ranges = NIL;
	run->remote = NIL;
	run->expired = NIL;
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		CHECK_FOR_INTERRUPTS();
		if (member->is_open)
			continue;
		if (!member->is_local)
		{
			if (schedule->has_retain_for)
				run->remote = lappend_oid(run->remote, member->relid);
			continue;
		}
		if (!member->has_range && !member->has_children)
			run->ranges = lappend_oid(run->ranges, member->relid);
		/* One that cannot have a range has to be asked for its rows. */
		if (schedule->has_retain_for &&
			(member->has_range ?
			 shard_is_expired(member, schedule->time_type, limit) :
			 member->has_children) &&
			(member->state == SHARD_CLOSED || shard_is_closed(member->relid)))
			run->expired = lappend_oid(run->expired, member->relid);
	}
	MemoryContextSwitchTo(oldcontext);
	return STEP_DONE;
}

/*
 * Ask nodes which of their shards are to be dropped.
 */
static StepResult
ask_nodes(MaintenanceRun *run, Oid unused)
{
	const ShardSchedule *schedule = &shard_table_get(run->logical)->schedule;
	MemoryContext oldcontext = MemoryContextSwitchTo(run->context);
	TimestampTz limit;
	List	   *lost = NIL;
	ListCell   *lc;

	/* The option may have gone. */
	limit = !schedule->has_retain_for ? DT_NOBEGIN :
		shard_retention_limit(GetCurrentTimestamp(), &schedule->retain_for);
	foreach(lc, schedule->has_retain_for ? run->remote : NIL)
	{
		char	   *trouble;

		if (shard_ask_node(run->logical, lfirst_oid(lc), limit,
						   shard_retain_patience(), &lost, &trouble))
			run->expired = lappend_oid(run->expired, lfirst_oid(lc));
		else if (trouble != NULL)
			note_trouble(run, trouble);
	}
	MemoryContextSwitchTo(oldcontext);
	return STEP_DONE;
}

/*
 * Do what is to be done next to give a closed shard its range.
 */
static StepResult
advance_range(MaintenanceRun *run, Oid shard)
{
	if (get_rel_name(shard) == NULL)
		return STEP_DONE;
	shard_check_to_alter(shard, false);
	switch (shard_advance_range(run->logical, shard))
	{
		case SHARD_RANGE_AGAIN:
			return STEP_AGAIN;
		case SHARD_RANGE_BUSY:
			return STEP_BUSY;
		default:
			return STEP_DONE;
	}
}

/*
 * Wait for so long, or until something happens to this session.
 */
static void
pause_for(int milliseconds)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 milliseconds, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Give a closed shard its range.  Returns false if it is being written.
 */
static bool
add_range(MaintenanceRun *run, Oid shard)
{
	for (int i = 0; i < RANGE_STEPS; i++)
	{
		StepResult	result = do_step(run, advance_range, shard);

		if (result != STEP_AGAIN)
			return result != STEP_BUSY;
	}
	return false;
}

/*
 * Give all closed shards their ranges.
 */
static void
add_ranges(MaintenanceRun *run)
{
	List	   *left = run->ranges;
	ListCell   *lc;

	for (int i = 0; left != NIL && i < RANGE_TRIES; i++)
	{
		List	   *shards = left;

		if (i > 0)
			pause_for(RANGE_PAUSE);
		left = NIL;
		foreach(lc, shards)
		{
			if (!add_range(run, lfirst_oid(lc)))
				left = lappend_oid(left, lfirst_oid(lc));
			else
				shard_progress_add(1);
		}
	}
	if (left == NIL)
		return;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg_plural("%d closed shard of foreign table \"%s\" is being written, skipping",
						   "%d closed shards of foreign table \"%s\" are being written, skipping",
						   list_length(left), list_length(left), run->name),
			 errdetail("The range of its rows is added when the transactions that write it have ended.")));
	note_trouble(run, "a closed shard is being written");
}

/*
 * Drop a shard all of whose rows are old.
 */
static StepResult
drop_old(MaintenanceRun *run, Oid shard)
{
	ShardTable *table = shard_table_get(run->logical);
	char	   *trouble;
	char	   *name;

	/* The option may have gone. */
	if (!table->schedule.has_retain_for)
		return STEP_DONE;
	name = shard_retain(run->logical, shard,
						shard_retention_limit(GetCurrentTimestamp(),
											  &table->schedule.retain_for),
						false, shard_retain_patience(), &trouble);
	if (name != NULL)
		ereport(report_level(),
				(errmsg("shard %s of foreign table \"%s\" has been dropped",
						name, run->name),
				 errdetail("It had no row that option \"retain_for\" keeps.")));
	else if (trouble != NULL)
		note_trouble(run, trouble);
	return STEP_DONE;
}

/*
 * Does the owner of the table want old shards to be dropped?  If that is not
 * known, say so.
 */
static StepResult
check_confirmed(MaintenanceRun *run, Oid unused)
{
	ShardRun	last;

	shard_get_run(run->logical, &last);
	if (last.is_confirmed)
		return STEP_DONE;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg_plural("%d old shard of foreign table \"%s\" is kept until its owner has confirmed the retention",
						   "%d old shards of foreign table \"%s\" are kept until its owner has confirmed the retention",
						   list_length(run->expired),
						   list_length(run->expired), run->name),
			 errdetail("The foreign table may have been restored from a dump, so nothing is dropped by option \"retain_for\"."),
			 errhint("To have old shards dropped, call SELECT shard_fdw.confirm_retention(%s).",
					 quote_literal_cstr(shard_qualified_name(run->logical)))));
	return STEP_BUSY;
}

/*
 * Drop the shards all of whose rows are old.
 */
static void
drop_all_old(MaintenanceRun *run)
{
	ListCell   *lc;

	if (run->expired == NIL ||
		do_step(run, check_confirmed, InvalidOid) != STEP_DONE)
		return;
	foreach(lc, run->expired)
	{
		(void) do_step(run, drop_old, lfirst_oid(lc));
		shard_progress_add(1);
	}
}

/*
 * Record the run.
 */
static StepResult
record(MaintenanceRun *run, Oid unused)
{
	Oid			types[] = {REGCLASSOID, BOOLOID, TEXTOID};
	Datum		values[] = {
		ObjectIdGetDatum(run->logical),
		BoolGetDatum(run->has_failed),
		run->trouble == NULL ? (Datum) 0 : CStringGetTextDatum(run->trouble)
	};
	char		nulls[] = {' ', ' ', run->trouble == NULL ? 'n' : ' '};

	shard_write_ledger("maintenance_runs",
					   "INSERT INTO shard_fdw.maintenance_runs AS r (logical, last_run, failures, last_error)"
					   " VALUES ($1, clock_timestamp(), CASE WHEN $2 THEN 1 ELSE 0 END, $3)"
					   " ON CONFLICT (logical) DO UPDATE SET last_run = EXCLUDED.last_run,"
					   " failures = CASE WHEN $2 THEN r.failures + 1 ELSE 0 END,"
					   " last_error = EXCLUDED.last_error",
					   lengthof(values), types, values, nulls);
	return STEP_DONE;
}

/*
 * shard_maintain_table
 *		Do what is due about a logical table, in transactions of their own.
 *		SPI is connected and can commit.
 *
 * What goes wrong is a WARNING, unless the query is canceled.  Does nothing if
 * somebody else is at it.
 */
void
shard_maintain_table(Oid logical)
{
	MaintenanceRun run = {.logical = logical,.context = CurrentMemoryContext};
	LOCKTAG		tag;

	run.name = get_rel_name(logical);
	if (run.name == NULL)
		return;
	shard_maintenance_tag(&tag, logical);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		ereport(MyBgworkerEntry != NULL ? DEBUG1 : NOTICE,
				(errmsg("maintenance of foreign table \"%s\" is running already, skipping",
						run.name)));
		return;
	}
	shard_progress_start("maintain", logical, 0);
	shard_progress_phase("creating shards");
	(void) do_step(&run, rotate, InvalidOid);
	(void) do_step(&run, look_at_shards, InvalidOid);
	if (run.ranges != NIL)
	{
		shard_progress_expect(list_length(run.ranges));
		shard_progress_phase("adding ranges");
		add_ranges(&run);
		(void) do_step(&run, look_at_shards, InvalidOid);
	}
	if (run.remote != NIL)
	{
		shard_progress_phase("asking nodes for old shards");
		(void) do_step(&run, ask_nodes, InvalidOid);
	}
	shard_progress_expect(list_length(run.expired));
	shard_progress_phase("dropping old shards");
	drop_all_old(&run);
	(void) do_step(&run, record, InvalidOid);
	shard_progress_end();
	LockRelease(&tag, ExclusiveLock, true);
}

/*
 * The logical tables that the caller owns.
 */
static List *
owned_tables(void)
{
	Relation	catalog = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	List	   *result = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			relid = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftrelid;

		if (shard_is_logical(relid) &&
			shard_class_ownercheck(relid, GetUserId()))
			result = lappend_oid(result, relid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * shard_maintain(logical regclass)
 *		SQL procedure maintain(): does what is due about a logical table, or
 *		about all that the caller owns.
 *
 * Raises ERRCODE_ACTIVE_SQL_TRANSACTION in a transaction block, and unless the
 * isolation level is READ COMMITTED, ERRCODE_INSUFFICIENT_PRIVILEGE unless the
 * caller owns the table, and ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it
 * has no time column.
 */
Datum
shard_maintain(PG_FUNCTION_ARGS)
{
	List	   *logicals;
	ListCell   *lc;

	PreventCommandIfReadOnly("maintain()");
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("maintain() cannot be called in a transaction block"),
				 errdetail("It commits after each step."),
				 errhint("In a transaction block, use rotate() and retain().")));
	shard_check_read_committed("maintain a table");

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	if (PG_ARGISNULL(0))
		logicals = owned_tables();
	else
	{
		Oid			logical = PG_GETARG_OID(0);

		(void) shard_check_timed(logical);
		logicals = list_make1_oid(logical);
	}
	foreach(lc, logicals)
		shard_maintain_table(lfirst_oid(lc));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * shard_confirm
 *		Note that old shards of the logical table may be dropped.
 */
void
shard_confirm(Oid logical)
{
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(logical);

	shard_write_ledger("maintenance_runs",
					   "INSERT INTO shard_fdw.maintenance_runs (logical, is_confirmed) VALUES ($1, true)"
					   " ON CONFLICT (logical) DO UPDATE SET is_confirmed = true",
					   1, &type, &value, NULL);
}

/*
 * shard_confirm_retention(logical regclass)
 *		SQL function confirm_retention(): option "retain_for" is meant for this
 *		table, also if it comes from a dump.
 *
 * Strict.  Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the
 * logical table.
 */
Datum
shard_confirm_retention(PG_FUNCTION_ARGS)
{
	Oid			logical = PG_GETARG_OID(0);

	PreventCommandIfReadOnly("confirm_retention()");
	shard_check_owned(logical);
	LockRelationOid(logical, AccessShareLock);
	shard_check_owned(logical);
	shard_confirm(logical);
	PG_RETURN_VOID();
}

/*
 * shard_forget_maintenance
 *		Have a table that has just been created know nothing of one that had
 *		its OID and has been dropped.
 */
void
shard_forget_maintenance(Oid logical)
{
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(logical);

	shard_write_ledger("generations",
					   "DELETE FROM shard_fdw.generations WHERE logical = $1",
					   1, &type, &value, NULL);
	shard_write_ledger("maintenance_runs",
					   "DELETE FROM shard_fdw.maintenance_runs WHERE logical = $1",
					   1, &type, &value, NULL);
}
