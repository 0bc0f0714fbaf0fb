/*-------------------------------------------------------------------------
 *
 * outside.c
 *	  Running a command that PostgreSQL runs outside of transaction blocks
 *	  only: VACUUM, CREATE INDEX CONCURRENTLY and their like.
 *
 * A background worker runs it, as the same role and with the same settings as
 * the session that waits for it.  So that needs no connection, no password and
 * no rights but those that the role has.  What the worker has to say comes
 * back through shared memory: errors with all that belongs to them, notices,
 * and the news that the command has succeeded.  If the session that waits is
 * canceled or ends, it takes the worker along.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/xact.h"
#include "commands/defrem.h"
#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

/* What is in the shared memory: it says whose it is, and has these parts. */
#define MAGIC			0x73686f75
#define KEY_TASK		1
#define KEY_COMMAND		2
#define KEY_SETTINGS	3
#define KEY_QUEUE		4

#define QUEUE_SIZE		16384

typedef struct Task
{
	Oid			database;
	Oid			session_user;	/* has been let into the database */
	Oid			user;			/* runs the command */
	int			sec_context;
} Task;

/* A worker, seen from the session that waits for it. */
typedef struct Run
{
	BackgroundWorkerHandle *worker;
	shm_mq_handle *queue;
	bool		is_done;		/* the command has succeeded */
	ErrorData  *error;			/* or this has happened */
} Run;

/*
 * shard_is_no_transaction
 *		Is this the error of a command that PostgreSQL runs outside of
 *		transaction blocks only?
 */
bool
shard_is_no_transaction(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_ACTIVE_SQL_TRANSACTION &&
		error->funcname != NULL &&
		strcmp(error->funcname, "PreventInTransactionBlock") == 0;
}

/*
 * Is the value of a boolean option, if it is given?
 */
static bool
has_option(List *options, const char *name)
{
	ListCell   *lc;
	bool		result = false;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0)
			result = defGetBoolean(def);
	}
	return result;
}

/*
 * shard_is_online
 *		Does the command only take locks that those who read and write do not
 *		wait for, and may it therefore wait for others?
 */
bool
shard_is_online(const char *sql)
{
	List	   *statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	Node	   *stmt;

	if (list_length(statements) != 1)
		return false;
	stmt = linitial_node(RawStmt, statements)->stmt;
	switch (nodeTag(stmt))
	{
		case T_IndexStmt:
			return castNode(IndexStmt, stmt)->concurrent;
		case T_DropStmt:
			return castNode(DropStmt, stmt)->concurrent;
		case T_ReindexStmt:
			return has_option(castNode(ReindexStmt, stmt)->params,
							  "concurrently");
		case T_VacuumStmt:
			return !has_option(castNode(VacuumStmt, stmt)->options, "full");
		default:
			return false;
	}
}

/*
 * Error cleanup: stop the worker.
 */
static void
stop_worker(int code, Datum arg)
{
	BackgroundWorkerHandle *worker =
		(BackgroundWorkerHandle *) DatumGetPointer(arg);

	TerminateBackgroundWorker(worker);
	/* Who cancels a command expects its locks to be free then. */
	if (!proc_exit_inprogress)
		WaitForBackgroundWorkerShutdown(worker);
}

/*
 * Put what the worker needs into shared memory.  *queue becomes the queue that
 * it is to write to.
 */
static dsm_segment *
write_task(const char *sql, shm_mq **queue)
{
	shm_toc_estimator estimator;
	Size		settings_size = EstimateGUCStateSpace();
	dsm_segment *segment;
	shm_toc    *toc;
	Task	   *task;
	char	   *command;
	char	   *settings;
	Size		size;

	shm_toc_initialize_estimator(&estimator);
	shm_toc_estimate_chunk(&estimator, sizeof(Task));
	shm_toc_estimate_chunk(&estimator, strlen(sql) + 1);
	shm_toc_estimate_chunk(&estimator, settings_size);
	shm_toc_estimate_chunk(&estimator, QUEUE_SIZE);
	shm_toc_estimate_keys(&estimator, 4);
	size = shm_toc_estimate(&estimator);
	segment = dsm_create(size, 0);
	toc = shm_toc_create(MAGIC, dsm_segment_address(segment), size);

	task = shm_toc_allocate(toc, sizeof(Task));
	task->database = MyDatabaseId;
	task->session_user = GetSessionUserId();
	GetUserIdAndSecContext(&task->user, &task->sec_context);
	shm_toc_insert(toc, KEY_TASK, task);

	command = shm_toc_allocate(toc, strlen(sql) + 1);
	strcpy(command, sql);
	shm_toc_insert(toc, KEY_COMMAND, command);

	settings = shm_toc_allocate(toc, settings_size);
	SerializeGUCState(settings_size, settings);
	shm_toc_insert(toc, KEY_SETTINGS, settings);

	*queue = shm_mq_create(shm_toc_allocate(toc, QUEUE_SIZE), QUEUE_SIZE);
	shm_toc_insert(toc, KEY_QUEUE, *queue);
	shm_mq_set_receiver(*queue, MyProc);
	return segment;
}

/*
 * Start the worker.  Raises ERRCODE_INSUFFICIENT_RESOURCES if there is none to
 * be had.
 */
static BackgroundWorkerHandle *
start_worker(dsm_segment *segment)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "shard_fdw command for PID %d",
			 MyProcPid);
	snprintf(worker.bgw_type, BGW_MAXLEN, "shard_fdw command");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name),
			 "shard_fdw");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "shard_outside_main");
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background worker is free"),
				 errdetail("Commands that cannot run inside a transaction block are run by a background worker."),
				 errhint("You might need to increase \"max_worker_processes\".  In psql, SELECT shard_fdw.format_on_shards() \\gexec needs no worker.")));
	return handle;
}

/*
 * Take a message of the worker.
 */
static void
receive_message(Run *run, StringInfo message)
{
	ErrorData	error;

	switch (pq_getmsgbyte(message))
	{
		case 'C':
			run->is_done = true;
			break;
		case 'E':
			/* Errors of the worker are not the end of this session. */
			run->error = palloc0(sizeof(ErrorData));
			pq_parse_errornotice(message, run->error);
			run->error->elevel = ERROR;
			break;
		case 'N':
			pq_parse_errornotice(message, &error);
			ThrowErrorData(&error);
			break;
		default:
			break;
	}
}

/*
 * Take the messages of the worker until it has ended.
 */
static void
await_worker(Run *run)
{
	for (;;)
	{
		Size		size;
		void	   *data;
		StringInfoData message;

		/* This looks for interrupts, and for the end of the worker. */
		if (shm_mq_receive(run->queue, &size, &data, false) != SHM_MQ_SUCCESS)
			break;
		initStringInfo(&message);
		appendBinaryStringInfo(&message, data, size);
		receive_message(run, &message);
		pfree(message.data);
	}
	(void) WaitForBackgroundWorkerShutdown(run->worker);
}

/*
 * shard_run_outside
 *		Run a command, which is one statement, outside of a transaction block.
 *		Returns its error, in the current memory context, or NULL.
 *
 * The current transaction, which has just begun, must have neither a lock nor a
 * snapshot that the command could wait for.  Raises
 * ERRCODE_INSUFFICIENT_RESOURCES if there is no worker for it.
 */
ErrorData *
shard_run_outside(const char *sql)
{
	Run			run = {0};
	dsm_segment *segment;
	shm_mq	   *queue;

	Assert(!ActiveSnapshotSet());
	segment = write_task(sql, &queue);
	run.worker = start_worker(segment);
	PG_ENSURE_ERROR_CLEANUP(stop_worker, PointerGetDatum(run.worker));
	{
		run.queue = shm_mq_attach(queue, segment, run.worker);
		/* Others wait for transactions that may still look at old rows. */
		InvalidateCatalogSnapshot();
		await_worker(&run);
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_worker, PointerGetDatum(run.worker));
	dsm_detach(segment);
	pfree(run.worker);
	if (!run.is_done && run.error == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("background worker has ended before its command"),
				 errhint("More details may be available in the server log.")));
	return run.error;
}

/*
 * Run the command as a client's would be run.
 */
static void
execute(const char *sql)
{
	MemoryContext context;
	List	   *statements;
	RawStmt    *stmt;
	List	   *plans;
	Portal		portal;
	QueryCompletion completion;
	bool		needs_snapshot;

	/* It has to outlive the transactions that the command may end. */
	MessageContext = AllocSetContextCreate(TopMemoryContext, "MessageContext",
										   ALLOCSET_DEFAULT_SIZES);
	debug_query_string = sql;
	pgstat_report_activity(STATE_RUNNING, sql);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	context = MemoryContextSwitchTo(MessageContext);
	statements = pg_parse_query(sql);
	if (list_length(statements) != 1)
		elog(ERROR, "not one statement: %s", sql);
	stmt = linitial_node(RawStmt, statements);
	needs_snapshot = analyze_requires_snapshot(stmt);
	if (needs_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(stmt, sql, NULL,
															   0, NULL),
							sql, 0, NULL);
	if (needs_snapshot)
		PopActiveSnapshot();
	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, sql, CreateCommandTag(stmt->stmt), plans,
					  NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	MemoryContextSwitchTo(context);
	shard_run_portal(portal, None_Receiver, &completion);
	PortalDrop(portal, false);
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	debug_query_string = NULL;
	EndCommand(&completion, DestRemote, false);
}

/*
 * shard_outside_main
 *		The worker.  Its argument is the handle of the shared memory.
 */
void
shard_outside_main(Datum main_arg)
{
	dsm_segment *segment;
	shm_toc    *toc;
	shm_mq	   *queue;
	Task	   *task;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	segment = dsm_attach(DatumGetUInt32(main_arg));
	if (segment == NULL)
		return;					/* the session has ended */
	toc = shm_toc_attach(MAGIC, dsm_segment_address(segment));
	if (toc == NULL)
		elog(ERROR, "shared memory is not a command's");
	queue = shm_toc_lookup(toc, KEY_QUEUE, false);
	shm_mq_set_sender(queue, MyProc);
	/* From now on the session gets our errors. */
	pq_redirect_to_shm_mq(segment, shm_mq_attach(queue, segment, NULL));

	task = shm_toc_lookup(toc, KEY_TASK, false);
	BackgroundWorkerInitializeConnectionByOid(task->database,
											  task->session_user,
											  SHARD_BYPASS_LOGIN_CHECK);
	StartTransactionCommand();
	RestoreGUCState(shm_toc_lookup(toc, KEY_SETTINGS, false));
	/* The session converts messages for its client. */
	SetConfigOption("client_encoding", GetDatabaseEncodingName(),
					PGC_USERSET, PGC_S_SESSION);
	CommitTransactionCommand();
	SetUserIdAndSecContext(task->user, task->sec_context);
	execute(shm_toc_lookup(toc, KEY_COMMAND, false));
}
