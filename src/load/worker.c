/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What one connection does with a chunk.
 *
 * A chunk is one command to the server: COPY, and the entry in the ledger.  As
 * one string they are one transaction, without a BEGIN and a COMMIT that would
 * have to be waited for.  If a row is refused and rejects are allowed, the chunk
 * is loaded again piece by piece, in a transaction with savepoints.
 *
 * A connection that is lost gives its chunk back.  If all of the command was
 * sent, it may have been committed: the ledger tells, and without one the
 * program must stop.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

/* How often a chunk is tried again after a deadlock. */
#define MAX_ATTEMPTS 20

/* How often a connection beside others is tried. */
#define MAX_EXTRA_FAILURES 3

static void load_next_piece(Loader *loader, Worker *worker);

bool
worker_is_busy(const Worker *worker)
{
	return worker->chunk != NULL;
}

bool
worker_is_connected(const Worker *worker)
{
	return worker->connection.state == CONN_FREE || worker->connection.state == CONN_RUNNING;
}

/*
 * Have the server give up the chunk.
 */
void
worker_cancel(Worker *worker)
{
	connection_cancel(&worker->connection);
}

static void
run(Worker *worker, WorkerState state, PQExpBuffer sql)
{
	worker->state = state;
	connection_run(&worker->connection, sql->data, NULL, 0);
	termPQExpBuffer(sql);
}

/*
 * Run a command that begins with or has a COPY, and give it these rows.
 */
static void
run_copy(const Loader *loader, Worker *worker, WorkerState state, PQExpBuffer sql, Segment rows)
{
	Segment		header = {BINARY_HEADER, BINARY_HEADER_SIZE};
	Segment		trailer = {BINARY_TRAILER, BINARY_TRAILER_SIZE};
	Segment		segments[] = {header, rows, trailer};

	worker->state = state;
	if (loader->options->format == FORMAT_BINARY)
		connection_run(&worker->connection, sql->data, segments, 3);
	else
		connection_run(&worker->connection, sql->data, &rows, 1);
	termPQExpBuffer(sql);
}

/* How many rows have come of a COPY. */
static int64
rows_of(const Loader *loader, const Outcome *outcome)
{
	return loader->options->conflict == CONFLICT_ERROR ? outcome->copied : Max(outcome->inserted, 0);
}

/*
 * Ready for another chunk.
 */
static void
be_idle(Worker *worker)
{
	worker->chunk = NULL;
	worker->state = WORKER_IDLE;
}

static void
end_pieces(Worker *worker)
{
	if (worker->pieces)
		pieces_free(worker->pieces);
	worker->pieces = NULL;
}

/*
 * The rows of the pieces have not been committed, nor will be.
 */
static void
drop_pieces(Loader *loader, Worker *worker)
{
	if (worker->pieces && loader->rejects)
		loader->rejects->count -= worker->pieces->count;
	end_pieces(worker);
}

static void
wait_before_retry(Loader *loader, Worker *worker, int failures)
{
	worker->state = WORKER_WAITING;
	worker->retry_at = loader_now(loader) + Min(0.1 * (1 << Min(failures, 10)), 5.0);
}

/*
 * Begin to connect, unless there is a connection that has only had to wait.
 */
void
worker_connect(Loader *loader, Worker *worker)
{
	if (worker->connection.state == CONN_FREE)
	{
		be_idle(worker);
		return;
	}
	worker->state = WORKER_CONNECTING;
	connection_start(&worker->connection, loader->options);
}

static void
connect_failed(Loader *loader, Worker *worker)
{
	const char *message = worker->connection.outcome.message;
	bool		others = false;

	for (int i = 0; i < loader->nworkers; i++)
		others |= worker_is_connected(&loader->workers[i]);
	worker->failures++;
	if (others && worker->failures >= MAX_EXTRA_FAILURES)
	{
		pg_log_warning("going on without connection %d: %s", worker->number, message);
		worker->state = WORKER_GONE;
	}
	else if (!others && loader_now(loader) - loader->last_contact > loader->options->patience)
	{
		if (!loader->stopping)
			pg_log_error("%s", message);
		loader_stop(loader, EXIT_LOST_CONNECTION, message);
		worker->state = WORKER_GONE;
	}
	else
		wait_before_retry(loader, worker, worker->failures);
	connection_close(&worker->connection);
}

static void
set_up(Loader *loader, Worker *worker)
{
	worker->failures = 0;
	if (loader->target->session == NULL)
	{
		be_idle(worker);
		return;
	}
	worker->state = WORKER_SETTING_UP;
	connection_run(&worker->connection, loader->target->session, NULL, 0);
}

/*
 * Send the whole chunk.
 */
static void
load_whole(Loader *loader, Worker *worker)
{
	const Target *target = loader->target;
	Segment		rows = {worker->chunk->data, worker->chunk->size};
	PQExpBufferData sql;

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "%s%s", target->copy, target->insert);
	if (loader->job)
	{
		appendPQExpBufferStr(&sql, "; ");
		job_append_entry(&sql, worker->connection.conn, loader->job, worker->chunk, NULL);
	}
	run_copy(loader, worker, WORKER_LOADING, &sql, rows);
}

static void
begin_pieces(Loader *loader, Worker *worker)
{
	worker->pieces = pieces_begin(&loader->reader->cutter, worker->chunk);
	load_next_piece(loader, worker);
}

/*
 * Append what settles the piece before.
 */
static void
append_settlement(PQExpBuffer sql, const Pieces *pieces)
{
	if (pieces->begun)
		appendPQExpBufferStr(sql, pieces->failed ? "ROLLBACK TO SAVEPOINT piece; " : "RELEASE SAVEPOINT piece; ");
	else
		appendPQExpBufferStr(sql, "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; ");
}

/*
 * Load the next piece, or commit the chunk.
 */
static void
load_next_piece(Loader *loader, Worker *worker)
{
	const Target *target = loader->target;
	Pieces	   *pieces = worker->pieces;
	PQExpBufferData sql;

	initPQExpBuffer(&sql);
	append_settlement(&sql, pieces);
	pieces->begun = true;
	if (pieces_next(pieces))
	{
		appendPQExpBuffer(&sql, "SAVEPOINT piece; %s%s%s", target->clear, target->copy, target->insert);
		run_copy(loader, worker, WORKER_LOADING_PIECE, &sql, pieces_segment(pieces, worker->chunk));
		return;
	}
	if (loader->job)
	{
		job_append_entry(&sql, worker->connection.conn, loader->job, worker->chunk, pieces->rejects);
		appendPQExpBufferStr(&sql, "; ");
	}
	appendPQExpBufferStr(&sql, "COMMIT");
	run(worker, WORKER_COMMITTING, &sql);
}

static void
ask_ledger(Loader *loader, Worker *worker)
{
	PQExpBufferData sql;

	initPQExpBuffer(&sql);
	job_append_question(&sql, worker->connection.conn, loader->job, worker->chunk);
	run(worker, WORKER_ASKING, &sql);
}

/*
 * Begin to load a chunk.
 */
void
worker_take(Loader *loader, Worker *worker, Chunk *chunk)
{
	Assert(worker->state == WORKER_IDLE);
	worker->chunk = chunk;
	if (chunk->uncertain && loader->job)
		ask_ledger(loader, worker);
	else if (chunk->piecewise)
		begin_pieces(loader, worker);
	else
		load_whole(loader, worker);
}

/*
 * Note which line of the file an error is about, if that can be known.
 */
static void
locate(Loader *loader, Worker *worker, Outcome *outcome)
{
	const Cutter *cutter = &loader->reader->cutter;
	int64		line = target_error_line(loader->target, outcome->context);
	int64		from = worker->pieces ? worker->pieces->from : 0;
	RecordIndex *index = worker->pieces ? worker->pieces->index : cut_index(cutter, worker->chunk);
	int64		record = -1;

	if (worker->pieces && worker->pieces->to == from + 1)
		record = from;
	else if (line > 0)
		record = cut_find_line(cutter, index, from, line);
	if (record >= 0)
		outcome->line = index->lines[record];
	if (worker->pieces == NULL)
		cut_free_index(index);
}

/*
 * Tell the user of an error that is the chunk's.
 */
static void
tell_failure(Loader *loader, const Chunk *chunk, const Outcome *failure)
{
	char	   *lines = chunk_lines(chunk);
	char	   *context;

	if (failure->line > 0)
		pg_log_error("file \"%s\", line " INT64_FORMAT ": %s", chunk->file, failure->line, failure->message);
	else
		pg_log_error("file \"%s\", %s: %s", chunk->file, lines, failure->message);
	pg_free(lines);
	if (failure->detail && failure->detail[0])
		pg_log_error_detail("%s", failure->detail);
	if (failure->hint && failure->hint[0])
		pg_log_error_hint("%s", failure->hint);
	context = target_fix_context(loader->target, failure->context, failure->line);
	if (failure->sqlstate[0])
		pg_log_error_detail("SQLSTATE %s%s%s", failure->sqlstate, context[0] ? ", " : "", context);
	pg_free(context);
}

static void
free_failure(Worker *worker)
{
	if (worker->failure)
		outcome_reset(worker->failure);
	pg_free(worker->failure);
	worker->failure = NULL;
}

/*
 * The chunk cannot be loaded, and no transaction is open.
 */
static void
give_up(Loader *loader, Worker *worker)
{
	Chunk	   *chunk = worker->chunk;
	Outcome    *failure = worker->failure;

	be_idle(worker);
	if (outcome_is_passing(failure) && chunk->attempts < MAX_ATTEMPTS)
	{
		wait_before_retry(loader, worker, chunk->attempts++);
		loader_put_back(loader, chunk);
	}
	else
	{
		if (loader->status <= EXIT_SERVER_ERROR)
		{
			tell_failure(loader, chunk, failure);
			loader_stop(loader, EXIT_SERVER_ERROR, failure->message);
		}
		reader_recycle(loader->reader, chunk);
	}
	free_failure(worker);
}

/*
 * A command has failed, for a reason that is not the connection.  End its
 * transaction; then see whether the chunk has been loaded before, for example
 * by a session that has outlived its client.
 */
static void
command_failed(Loader *loader, Worker *worker)
{
	if (worker->failure == NULL)
	{
		worker->failure = outcome_take(&worker->connection.outcome);
		if (worker->failure->line == 0 &&
			(worker->state == WORKER_LOADING || worker->state == WORKER_LOADING_PIECE))
			locate(loader, worker, worker->failure);
	}
	drop_pieces(loader, worker);
	if (PQtransactionStatus(worker->connection.conn) != PQTRANS_IDLE)
	{
		worker->state = WORKER_ROLLING_BACK;
		connection_run(&worker->connection, "ROLLBACK", NULL, 0);
	}
	else if (loader->job && worker->state != WORKER_ASKING)
		ask_ledger(loader, worker);
	else
		give_up(loader, worker);
}

static void
whole_failed(Loader *loader, Worker *worker)
{
	const Outcome *outcome = &worker->connection.outcome;

	if (loader->rejects && outcome_is_about_row(outcome) && loader->status == 0)
	{
		worker->chunk->piecewise = true;
		begin_pieces(loader, worker);
	}
	else
		command_failed(loader, worker);
}

static void
piece_failed(Loader *loader, Worker *worker)
{
	Outcome    *outcome = &worker->connection.outcome;
	const LoadOptions *options = loader->options;

	locate(loader, worker, outcome);
	if (!outcome_is_about_row(outcome))
	{
		command_failed(loader, worker);
		return;
	}
	if (pieces_failed(worker->pieces, &loader->reader->cutter, worker->chunk, outcome,
					  target_error_line(loader->target, outcome->context)))
	{
		loader->rejects->count++;
		if (options->max_rejects >= 0 && loader->rejects->count > options->max_rejects)
		{
			if (loader->status == 0)
				pg_log_error("more than " INT64_FORMAT " rows are rejected", options->max_rejects);
			command_failed(loader, worker);
			return;
		}
	}
	load_next_piece(loader, worker);
}

static void
command_done(Loader *loader, Worker *worker)
{
	const Outcome *outcome = &worker->connection.outcome;
	Chunk	   *chunk = worker->chunk;

	switch (worker->state)
	{
		case WORKER_SETTING_UP:
			be_idle(worker);
			break;
		case WORKER_ASKING:
			if (outcome->found)
			{
				be_idle(worker);
				free_failure(worker);
				loader_done_earlier(loader, chunk);
			}
			else if (worker->failure)
				give_up(loader, worker);
			else
			{
				chunk->uncertain = false;
				be_idle(worker);
				worker_take(loader, worker, chunk);
			}
			break;
		case WORKER_LOADING:
			be_idle(worker);
			loader_done(loader, chunk, rows_of(loader, outcome), NULL, 0);
			break;
		case WORKER_LOADING_PIECE:
			pieces_loaded(worker->pieces, rows_of(loader, outcome));
			load_next_piece(loader, worker);
			break;
		case WORKER_COMMITTING:
			be_idle(worker);
			loader_done(loader, chunk, worker->pieces->loaded, worker->pieces->rejects, worker->pieces->count);
			end_pieces(worker);
			break;
		default:
			command_failed(loader, worker);
			break;
	}
}

/*
 * The connection is lost.
 */
static void
connection_lost(Loader *loader, Worker *worker)
{
	Chunk	   *chunk = worker->chunk;
	const char *message = worker->connection.outcome.message;

	drop_pieces(loader, worker);
	free_failure(worker);
	worker->chunk = NULL;
	if (!loader->stopping)
		pg_log_warning("connection %d is lost: %s", worker->number, message);
	if (chunk && worker->connection.outcome.sent_all &&
		(worker->state == WORKER_LOADING || worker->state == WORKER_COMMITTING))
	{
		chunk->uncertain = true;
		if (loader->job == NULL)
		{
			char	   *lines = chunk_lines(chunk);

			pg_log_error("the connection was lost when %s of file \"%s\" were being committed", lines, chunk->file);
			pg_free(lines);
			pg_log_error_detail("All of them may have been loaded, or none.");
			pg_log_error_hint("With --job, this can be found out.");
			loader_stop(loader, EXIT_LOST_CONNECTION, message);
		}
	}
	if (chunk)
		loader_put_back(loader, chunk);
	wait_before_retry(loader, worker, worker->failures);
	connection_close(&worker->connection);
}

/*
 * Go on after poll() has seen these events.
 */
void
worker_advance(Loader *loader, Worker *worker, short events)
{
	const Outcome *outcome = &worker->connection.outcome;

	if (worker->connection.state != CONN_CONNECTING && worker->connection.state != CONN_RUNNING)
		return;
	if (!connection_advance(&worker->connection, events))
		return;
	if (worker->state == WORKER_CONNECTING)
	{
		if (!outcome->ok)
			connect_failed(loader, worker);
		else
			set_up(loader, worker);
		return;
	}
	loader->last_contact = loader_now(loader);
	if (outcome->ok)
		command_done(loader, worker);
	else if (outcome->lost)
		connection_lost(loader, worker);
	else if (worker->state == WORKER_LOADING)
		whole_failed(loader, worker);
	else if (worker->state == WORKER_LOADING_PIECE)
		piece_failed(loader, worker);
	else if (worker->state == WORKER_SETTING_UP)
	{
		pg_log_error("%s", outcome->message);
		loader_stop(loader, EXIT_SERVER_ERROR, outcome->message);
		worker->state = WORKER_GONE;
		connection_close(&worker->connection);
	}
	else
		command_failed(loader, worker);
}
