/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Procedure run_on_shards(): runs a command on each shard, in a transaction
 *	  of its own.
 *
 * The shards that a run is for, and those on which it has been, are in table
 * command_runs.  The command and the note that it has been run on a shard are
 * one transaction, so a run that ends early, by an error, a cancel or a crash,
 * can be gone on with: the command is not run on any shard twice.  The rows
 * are deleted when the command has been run on all of them.
 *
 * A command that waits for a lock has others wait behind it.  So it waits for
 * a moment only, is rolled back, and is tried again, as in lock.c.
 *
 * A command that cannot run inside a transaction block is found out by trying;
 * then a background worker runs it (outside.c).  The note is another
 * transaction, after it.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "tcop/cmdtag.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_run_on_shards);

/* A run. */
typedef struct CommandRun
{
	Oid			logical;
	char	   *name;
	char	   *command;
	bool		stops;			/* an error ends it */
	int			patience;		/* for locks, in milliseconds, on each shard */
	bool		is_outside;		/* a worker runs the command */
	bool		is_online;		/* ... which nobody waits for */
	int			ndone;			/* shards, also in earlier calls */
	int			nfailed;
} CommandRun;

/*
 * Run a command on the table of runs, with the logical table and the command
 * of this run, and a shard, as its parameters.  SPI is connected.
 */
static uint64
query_runs(const CommandRun *run, const char *sql, Oid shard)
{
	Oid			types[] = {REGCLASSOID, TEXTOID, REGCLASSOID};
	Datum		values[] = {
		ObjectIdGetDatum(run->logical),
		CStringGetTextDatum(run->command),
		ObjectIdGetDatum(shard)
	};

	return shard_query_ledger("command_runs", sql, lengthof(types), types,
							  values, NULL);
}

/*
 * shard_forget_commands
 *		Have a table that has just been created know nothing of one that had
 *		its OID and has been dropped.
 */
void
shard_forget_commands(Oid logical)
{
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(logical);

	shard_write_ledger("command_runs",
					   "DELETE FROM shard_fdw.command_runs WHERE logical = $1",
					   1, &type, &value, NULL);
}

/*
 * The shards that are left of a run, which begins if there is none.  The list
 * is in the given memory context.
 */
static List *
begin_run(CommandRun *run, bool restart, MemoryContext context)
{
	List	   *result = NIL;
	int			nshards;
	ShardMember *shards = shard_list_members(run->logical, &nshards);
	Oid		   *left;
	uint64		nleft;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (restart)
		query_runs(run, "DELETE FROM shard_fdw.command_runs"
				   " WHERE logical = $1 AND command = $2", InvalidOid);
	run->ndone = query_runs(run, "SELECT FROM shard_fdw.command_runs"
							" WHERE logical = $1 AND command = $2"
							" AND finished IS NOT NULL",
							InvalidOid);
	nleft = query_runs(run, "SELECT shard FROM shard_fdw.command_runs"
					   " WHERE logical = $1 AND command = $2"
					   " AND finished IS NULL", InvalidOid);
	if (nleft + run->ndone == 0)
	{
		for (int i = 0; i < nshards; i++)
			query_runs(run, "INSERT INTO shard_fdw.command_runs"
					   " (logical, command, shard) VALUES ($1, $2, $3)",
					   shards[i].relid);
		MemoryContextSwitchTo(context);
		for (int i = 0; i < nshards; i++)
			result = lappend_oid(result, shards[i].relid);
	}
	else
	{
		left = palloc(sizeof(Oid) * Max(nleft, 1));
		for (uint64 i = 0; i < nleft; i++)
		{
			bool		isnull;

			left[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
													 SPI_tuptable->tupdesc, 1,
													 &isnull));
		}
		/* In the order of the shards; those that are no longer any have gone. */
		MemoryContextSwitchTo(context);
		for (int i = 0; i < nshards; i++)
		{
			for (uint64 j = 0; j < nleft; j++)
			{
				if (shards[i].relid == left[j])
					result = lappend_oid(result, left[j]);
			}
		}
		ereport(NOTICE,
				(errmsg("going on with a run on the shards of foreign table \"%s\"",
						run->name),
				 errdetail("Shards done: %d, shards left: %d.", run->ndone,
						   list_length(result))));
	}
	SPI_finish();
	PopActiveSnapshot();
	return result;
}

/*
 * Error context callback: which shard the command was for.
 */
static void
report_shard(void *arg)
{
	errcontext("command on shard \"%s\"", (char *) arg);
}

/*
 * Note that the command has been run on a shard.  SPI is connected.
 */
static void
note_done(CommandRun *run, Oid shard)
{
	query_runs(run, "UPDATE shard_fdw.command_runs"
			   " SET finished = pg_catalog.clock_timestamp()"
			   " WHERE logical = $1 AND command = $2 AND shard = $3", shard);
}

/*
 * Say what the command has to say.
 */
static void
report_result(char *name, const char *result)
{
	ereport(NOTICE,
			(errmsg("shard \"%s\": %s", name,
					result != NULL ? result : "no rows")));
}

/*
 * Run the command on a shard, and note that.  The result is in the given memory
 * context.
 */
static void
run_on(CommandRun *run, Oid shard, char *name, int timeout,
	   MemoryContext context)
{
	ErrorContextCallback callback;
	int			guc_level = NewGUCNestLevel();
	char	   *result;
	bool		exists;

	shard_limit_lock_wait(timeout);
	/* Somebody may have dropped it, or given it away, meanwhile. */
	LockRelationOid(run->logical, ShareUpdateExclusiveLock);
	shard_check_owned(run->logical);
	callback.callback = report_shard;
	callback.arg = name;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	result = shard_run_command(run->command, shard, context, &exists);
	error_context_stack = callback.previous;
	AtEOXact_GUC(false, guc_level);
	SPI_connect();
	/* What is deferred must not fail when we commit. */
	shard_execute("SET CONSTRAINTS ALL IMMEDIATE");
	note_done(run, shard);
	SPI_finish();
	if (exists)
		report_result(name, result);
}

/*
 * The same in a subtransaction, with so many milliseconds to wait for a lock.
 * Returns the error, in the current memory context, or NULL.
 */
static ErrorData *
try_on(CommandRun *run, Oid shard, char *name, int timeout)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	PushActiveSnapshot(GetTransactionSnapshot());
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		run_on(run, shard, name, timeout, context);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = shard_catch(context, owner);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	PopActiveSnapshot();
	return error;
}

/*
 * Forget a run, and commit.
 */
static void
forget_run(CommandRun *run)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	query_runs(run, "DELETE FROM shard_fdw.command_runs"
			   " WHERE logical = $1 AND command = $2", InvalidOid);
	SPI_finish();
	PopActiveSnapshot();
	SPI_commit();
}

/*
 * The error for a command that a worker would run on a shard on a node: there
 * all is done in a transaction.
 */
static ErrorData *
refuse_on_node(char *name)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_FEATURE_NOT_SUPPORTED;
	error->message = psprintf(_("shard \"%s\" is on another server, where this command cannot run inside a transaction"),
							  name);
	error->hint = pstrdup(_("Run it on that server."));
	return error;
}

/*
 * Have a worker run the command on a shard, with so many milliseconds to wait
 * for a lock if others would wait behind it, and note that.  Commits.  Returns
 * the error, in the current memory context, or NULL.
 */
static ErrorData *
run_outside(CommandRun *run, Oid shard, char *name, int timeout)
{
	ErrorData  *error = NULL;
	char	   *sql;

	/* Somebody may have dropped it, or given it away, meanwhile. */
	shard_check_owned(run->logical);
	sql = shard_command_for(run->command, shard);
	if (sql != NULL && shard_is_on_node(shard))
		error = refuse_on_node(name);
	SPI_commit();
	if (sql != NULL && error == NULL)
	{
		int			guc_level = NewGUCNestLevel();

		if (!run->is_online)
			shard_limit_lock_wait(timeout);
		error = shard_run_outside(sql);
		AtEOXact_GUC(false, guc_level);
	}
	if (error != NULL)
	{
		error->context = psprintf("%s%scommand on shard \"%s\"",
								  error->context ? error->context : "",
								  error->context ? "\n" : "", name);
		return error;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	note_done(run, shard);
	SPI_finish();
	PopActiveSnapshot();
	if (sql != NULL)
		report_result(name, GetCommandTagName(CreateCommandTag(linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT))->stmt)));
	return NULL;
}

/*
 * Is this one statement?
 */
static bool
is_one_statement(const char *command, Oid shard)
{
	char	   *sql = shard_command_for(command, shard);

	return sql != NULL && list_length(raw_parser(sql, RAW_PARSE_DEFAULT)) == 1;
}

/*
 * Run the command on a shard and commit, and try again as long as somebody else
 * has a lock that is in its way.
 */
static void
run_patiently(CommandRun *run, Oid shard, char *name)
{
	TimestampTz start = GetCurrentTimestamp();
	int			pause = 0;
	ErrorData  *error;

	for (;;)
	{
		long		left = run->patience -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());

		int			timeout = Max(Min(left, SHARD_LOCK_TRY_TIME), 1);

		CHECK_FOR_INTERRUPTS();
		error = run->is_outside ? run_outside(run, shard, name, timeout) :
			try_on(run, shard, name, timeout);
		SPI_commit();
		if (error != NULL && !run->is_outside &&
			shard_is_no_transaction(error) &&
			is_one_statement(run->command, shard))
		{
			FreeErrorData(error);
			run->is_outside = true;
			run->is_online = shard_is_online(shard_command_for(run->command, shard));
			continue;
		}
		left = run->patience -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		if (error == NULL || left <= 0 ||
			(error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			 error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED))
			break;
		FreeErrorData(error);
		shard_pause_lock_wait(&pause, left);
	}
	if (error == NULL)
	{
		run->ndone++;
		return;
	}
	if (shard_is_no_transaction(error))
	{
		/* Nothing has been done, nor will be. */
		forget_run(run);
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot run this command with run_on_shards()"),
				 errdetail("%s.", error->message),
				 errhint("Run it on its own, not together with other commands.")));
	}
	if (run->stops && run->is_outside)
		ThrowErrorData(error);
	if (run->stops)
		ReThrowError(error);
	run->nfailed++;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("command has failed on shard \"%s\": %s", name,
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
	FreeErrorData(error);
}

/*
 * Forget a run that is complete, or say what is left of it.
 */
static void
end_run(CommandRun *run)
{
	if (run->nfailed > 0)
	{
		ereport(WARNING,
				(errmsg_plural("command has failed on %d shard of foreign table \"%s\"",
							   "command has failed on %d shards of foreign table \"%s\"",
							   run->nfailed, run->nfailed, run->name),
				 errdetail("It has been run on %d.", run->ndone),
				 errhint("The same call runs it on those that are left.")));
		return;
	}
	forget_run(run);
}

/*
 * shard_begin_commands
 *		Begin to run commands on the shards of a logical table, which commit
 *		one by one: have them be the only ones of their kind.  *tag becomes a
 *		lock that the session has until it releases it.
 *
 * "function" is the name of the procedure with parentheses, "hint" what else
 * there is in a transaction block.  Raises ERRCODE_ACTIVE_SQL_TRANSACTION in a
 * transaction block, ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the
 * logical table, and ERRCODE_OBJECT_IN_USE while others are at it.
 */
void
shard_begin_commands(FunctionCallInfo fcinfo, Oid logical,
					 const char *function, const char *hint, LOCKTAG *tag)
{
	PreventCommandIfReadOnly(function);
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called in a transaction block",
						function),
				 errdetail("It commits after each step."),
				 errhint("%s", hint)));
	shard_check_owned(logical);
	shard_command_tag(tag, logical);
	if (LockAcquire(tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("run_on_shards(), create_index(), reshard_online() or rebalance() is running on foreign table \"%s\" already",
						get_rel_name(logical))));
}

/*
 * shard_run_on_shards(logical regclass, command text, on_error text,
 *					   restart bool)
 *		SQL procedure run_on_shards(): runs the command on each shard, in a
 *		transaction of its own.
 *
 * Raises ERRCODE_ACTIVE_SQL_TRANSACTION in a transaction block,
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical table,
 * ERRCODE_OBJECT_IN_USE while there is another run on it,
 * ERRCODE_FEATURE_NOT_SUPPORTED for commands together one of which cannot run
 * inside a transaction block, ERRCODE_INSUFFICIENT_RESOURCES if there is no
 * worker for one that is alone, and what the command raises if "on_error" is
 * "stop".
 */
Datum
shard_run_on_shards(PG_FUNCTION_ARGS)
{
	CommandRun	run = {0};
	bool		restart;
	LOCKTAG		tag;
	List	   *shards;
	ListCell   *lc;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "command");
	shard_check_argument(fcinfo, 2, "parameter \"on_error\"");
	shard_check_argument(fcinfo, 3, "parameter \"restart\"");
	run.logical = PG_GETARG_OID(0);
	run.command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	run.stops = shard_stops_on_error(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	restart = PG_GETARG_BOOL(3);
	run.patience = shard_lock_patience();

	shard_begin_commands(fcinfo, run.logical, "run_on_shards()",
						 "In a transaction block, use run_command_on_shards().",
						 &tag);
	run.name = get_rel_name(run.logical);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	shards = begin_run(&run, restart, CurrentMemoryContext);
	SPI_commit();
	shard_progress_start("run_on_shards", run.logical,
						 run.ndone + list_length(shards));
	shard_progress_phase("running the command");
	shard_progress_add(run.ndone);
	foreach(lc, shards)
	{
		char	   *name = get_rel_name(lfirst_oid(lc));

		run_patiently(&run, lfirst_oid(lc), name != NULL ? name : "?");
		shard_progress_add(1);
	}
	shard_progress_end();
	end_run(&run);
	LockRelease(&tag, ExclusiveLock, true);
	SPI_finish();
	PG_RETURN_VOID();
}
