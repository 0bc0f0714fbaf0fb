/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  How far commands that take long have come, for other sessions to see.
 *
 * Each backend has a place in PostgreSQL's shared memory where commands such
 * as VACUUM report numbers, which the pg_stat_progress views show at once,
 * also in the middle of a transaction.  Ours report there under a number that
 * none of these views asks for.  The texts are packed into the numbers, so
 * that whoever looks needs no list of them.
 *
 * A command of PostgreSQL's that ours runs, such as CREATE INDEX, reports in
 * the same place, and so does the end of a subtransaction that fails.  So all
 * of it is kept here as well, and reported anew each time.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table.h"

#include "access/xact.h"
#include "catalog/pg_authid_d.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(shard_list_progress);

/* What VACUUM and its like have 1 and so on for. */
#define COMMAND_TYPE	((ProgressCommandType) 0x7070)

/* The numbers: */
#define PARAM_LAYOUT	0		/* LAYOUT, or the others are not there yet */
#define PARAM_SINCE		1
#define PARAM_DONE		2
#define PARAM_TOTAL		3
#define PARAM_COMMAND	4		/* a text */
#define PARAM_PHASE		8		/* the same */
#define NPARAMS			16
#define LAYOUT			1

#define COMMAND_LENGTH	((PARAM_PHASE - PARAM_COMMAND) * sizeof(int64))
#define PHASE_LENGTH	((NPARAMS - PARAM_PHASE) * sizeof(int64))

/* A command that is running. */
typedef struct Progress
{
	struct Progress *outer;		/* the one that has called it, or NULL */
	SubTransactionId subid;		/* which has begun it */
	Oid			logical;
	int64		params[NPARAMS];
} Progress;

/* The innermost. */
static Progress *current = NULL;

/*
 * Copy a text into numbers, as much of it as there is room for.
 */
static void
pack_text(int64 *params, size_t length, const char *text)
{
	memset(params, 0, length);
	memcpy(params, text, Min(strlen(text), length));
}

/*
 * Let others see it.
 */
static void
report(void)
{
	static const int index[NPARAMS] = {
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	};

	pgstat_progress_start_command(COMMAND_TYPE, current->logical);
	pgstat_progress_update_multi_param(NPARAMS, index, current->params);
}

/*
 * Forget the innermost command.
 */
static void
pop(void)
{
	Progress   *ended = current;

	current = ended->outer;
	pfree(ended);
}

/*
 * A transaction that is rolled back has ended all commands.  One that commits
 * has not: they may go on with the next.
 */
static void
on_xact_end(XactEvent event, void *arg)
{
	while (event == XACT_EVENT_ABORT && current != NULL)
		pop();
}

/*
 * A subtransaction that is rolled back has ended those that it has begun.  Its
 * end is also where a command of PostgreSQL's may have taken our place.
 */
static void
on_subxact_end(SubXactEvent event, SubTransactionId subid,
			   SubTransactionId parent, void *arg)
{
	while (event == SUBXACT_EVENT_ABORT_SUB && current != NULL &&
		   current->subid == subid)
		pop();
	if (current != NULL && (event == SUBXACT_EVENT_ABORT_SUB ||
							event == SUBXACT_EVENT_COMMIT_SUB))
		report();
}

/*
 * shard_progress_init
 *		To be called once, when the library is loaded.
 */
void
shard_progress_init(void)
{
	RegisterXactCallback(on_xact_end, NULL);
	RegisterSubXactCallback(on_subxact_end, NULL);
}

/*
 * shard_progress_start
 *		Report that this session begins a command that takes long.
 *
 * "command" is its name, in ASCII.  "total" is how much there is to be done, as
 * far as is known; what is counted depends on the command.  A command that
 * another one calls is seen in its place until it ends.  After an error,
 * nothing has to be called.
 */
void
shard_progress_start(const char *command, Oid logical, int64 total)
{
	Progress   *progress = MemoryContextAllocZero(TopMemoryContext,
												  sizeof(Progress));

	progress->outer = current;
	progress->subid = GetCurrentSubTransactionId();
	progress->logical = logical;
	progress->params[PARAM_LAYOUT] = LAYOUT;
	progress->params[PARAM_SINCE] = GetCurrentTimestamp();
	progress->params[PARAM_TOTAL] = total;
	pack_text(&progress->params[PARAM_COMMAND], COMMAND_LENGTH, command);
	current = progress;
	report();
}

/*
 * shard_progress_expect
 *		Report that there is so much more to be done than was known.  Does
 *		nothing if there is no command of shard_progress_start().
 */
void
shard_progress_expect(int64 more)
{
	if (current == NULL)
		return;
	current->params[PARAM_TOTAL] += more;
	report();
}

/*
 * shard_progress_phase
 *		Report what the command of shard_progress_start() does now, in ASCII.
 *		Does nothing if there is none.
 */
void
shard_progress_phase(const char *phase)
{
	if (current == NULL)
		return;
	pack_text(&current->params[PARAM_PHASE], PHASE_LENGTH, phase);
	report();
}

/*
 * shard_progress_add
 *		The same for so much that has been done.
 */
void
shard_progress_add(int64 done)
{
	if (current == NULL)
		return;
	current->params[PARAM_DONE] += done;
	report();
}

/*
 * shard_progress_end
 *		Report that the command of shard_progress_start() is at its end.
 */
void
shard_progress_end(void)
{
	if (current == NULL)
		return;
	pop();
	if (current != NULL)
		report();
	else
		pgstat_progress_end_command();
}

/*
 * A text that pack_text() has packed.
 */
static Datum
unpack_text(const int64 *params, size_t length)
{
	return PointerGetDatum(cstring_to_text_with_len((const char *) params,
													strnlen((const char *) params,
															length)));
}

/*
 * May the current role know what a session of this role does?  As the views of
 * PostgreSQL have it.
 */
static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		has_privs_of_role(GetUserId(), role);
}

/*
 * shard_list_progress()
 *		SQL function list_progress(): the commands that report, of all
 *		databases: pid, database, logical, command, phase, done, total, since.
 *
 * The table is null if it is one of another database.  From "logical" on all is
 * null for a role that may not know.
 */
Datum
shard_list_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			nbackends = pgstat_fetch_stat_numbackends();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 1; i <= nbackends; i++)
	{
		PgBackendStatus *status = shard_backend_status(i);
		const int64 *params;
		Datum		values[8];
		bool		nulls[8] = {false};

		if (status == NULL || status->st_progress_command != COMMAND_TYPE ||
			status->st_progress_param[PARAM_LAYOUT] != LAYOUT)
			continue;
		params = status->st_progress_param;
		values[0] = Int32GetDatum(status->st_procpid);
		values[1] = ObjectIdGetDatum(status->st_databaseid);
		values[2] = ObjectIdGetDatum(status->st_progress_command_target);
		nulls[2] = status->st_databaseid != MyDatabaseId;
		values[3] = unpack_text(&params[PARAM_COMMAND], COMMAND_LENGTH);
		values[4] = unpack_text(&params[PARAM_PHASE], PHASE_LENGTH);
		values[5] = Int64GetDatum(params[PARAM_DONE]);
		values[6] = Int64GetDatum(params[PARAM_TOTAL]);
		values[7] = TimestampTzGetDatum(params[PARAM_SINCE]);
		if (!may_see(status->st_userid))
			memset(&nulls[2], true, sizeof(bool) * (lengthof(nulls) - 2));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}
