/*-------------------------------------------------------------------------
 *
 * loader.c
 *	  The main loop: chunks from the reader go to connections that are idle.
 *
 * Connections are opened when there is a chunk and no idle connection, so a
 * small input does not open all of them.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <poll.h>
#include <signal.h>

/* Milliseconds after which the loop looks around, whatever happens. */
#define TICK 200

static volatile sig_atomic_t stop_signal = 0;

static void
note_signal(int signo)
{
	stop_signal = signo;
}

/*
 * Make a loader with so many connections, the first of which is there.
 */
Loader *
loader_make(LoadOptions *options, Target *target, Reader *reader, Job *job, Rejects *rejects, PGconn *conn, int jobs)
{
	Loader	   *loader = pg_malloc0(sizeof(Loader));

	loader->options = options;
	loader->target = target;
	loader->reader = reader;
	loader->job = job;
	loader->rejects = rejects;
	loader->nworkers = jobs;
	loader->workers = pg_malloc0(jobs * sizeof(Worker));
	for (int i = 0; i < jobs; i++)
		loader->workers[i].number = i + 1;
	connection_adopt(&loader->workers[0].connection, conn);
	loader->workers[0].state = WORKER_IDLE;
	progress_begin(&loader->progress, options);
	return loader;
}

double
loader_now(const Loader *loader)
{
	return progress_seconds(&loader->progress);
}

/*
 * Begin no more chunks.  The first reason is what the program ends with.
 */
void
loader_stop(Loader *loader, int status, const char *message)
{
	loader->stopping = true;
	if (loader->status == 0)
	{
		loader->status = status;
		loader->error = pg_strdup(message);
	}
}

/*
 * A chunk is to be loaded, perhaps again.
 */
void
loader_put_back(Loader *loader, Chunk *chunk)
{
	Chunk	  **link = &loader->ready;

	while (*link && (*link)->number < chunk->number)
		link = &(*link)->next;
	chunk->next = *link;
	*link = chunk;
	loader->nready++;
}

/*
 * A chunk is committed, with so many rows and these rejects.
 */
void
loader_done(Loader *loader, Chunk *chunk, int64 rows, const Reject *rejects, int64 nrejects)
{
	Progress   *progress = &loader->progress;
	char	   *lines = chunk_lines(chunk);

	pg_log_debug("committed: file \"%s\", %s", chunk->file, lines);
	pg_free(lines);
	progress->rows += rows;
	progress->rejected += nrejects;
	if (loader->options->conflict == CONFLICT_SKIP)
		progress->skipped += chunk->records - nrejects - rows;
	progress->chunks++;
	progress->loaded_bytes += chunk->size;
	progress_committed(progress, chunk);
	if (loader->rejects)
		rejects_write(loader->rejects, chunk, rejects);
	reader_recycle(loader->reader, chunk);
}

/*
 * A chunk turns out to be in the ledger.
 */
void
loader_done_earlier(Loader *loader, Chunk *chunk)
{
	loader->progress.earlier += chunk->records;
	progress_committed(&loader->progress, chunk);
	reader_recycle(loader->reader, chunk);
}

static int
count_connections(Loader *loader)
{
	int			count = 0;

	for (int i = 0; i < loader->nworkers; i++)
		count += worker_is_connected(&loader->workers[i]);
	loader->most_connections = Max(loader->most_connections, count);
	if (count > 0)
		loader->last_contact = loader_now(loader);
	return count;
}

static Worker *
find_worker(Loader *loader, WorkerState state)
{
	for (int i = 0; i < loader->nworkers; i++)
	{
		if (loader->workers[i].state == state)
			return &loader->workers[i];
	}
	return NULL;
}

/*
 * Are more chunks wanted from the reader?  One for each group should be there.
 */
static bool
wants_input(const Loader *loader)
{
	return !loader->stopping && !reader_done(loader->reader) &&
		(loader->nready < loader->reader->groups || (loader->job && job_holds(loader->job)));
}

/*
 * Take the next chunk of a connection's group off the list, or else any, unless
 * one of the group may soon be read.  NULL if there is none.
 */
static Chunk *
take_chunk(Loader *loader, int worker)
{
	int			groups = loader->reader->groups;
	Chunk	  **link = &loader->ready;
	Chunk	   *chunk;

	while (*link && (*link)->group % loader->nworkers != worker % groups)
		link = &(*link)->next;
	if (*link == NULL && !wants_input(loader))
		link = &loader->ready;
	chunk = *link;
	if (chunk)
	{
		*link = chunk->next;
		loader->nready--;
	}
	return chunk;
}

/*
 * Give chunks to connections, and open a connection if one more could be used.
 */
static void
dispatch(Loader *loader)
{
	Worker	   *worker;

	if (loader->stopping || (loader->job && job_holds(loader->job)))
		return;
	for (int i = 0; i < loader->nworkers; i++)
	{
		Chunk	   *chunk;

		worker = &loader->workers[i];
		if (worker->state == WORKER_IDLE && (chunk = take_chunk(loader, i)) != NULL)
			worker_take(loader, worker, chunk);
	}
	for (int i = 0; i < loader->nworkers; i++)
	{
		worker = &loader->workers[i];
		if (worker->state == WORKER_WAITING && worker->retry_at <= loader_now(loader))
			worker_connect(loader, worker);
	}
	if (loader->ready && !find_worker(loader, WORKER_CONNECTING) && !find_worker(loader, WORKER_SETTING_UP) &&
		(worker = find_worker(loader, WORKER_CLOSED)) != NULL)
		worker_connect(loader, worker);
}

static void
read_input(Loader *loader)
{
	Chunk	   *chunk = reader_step(loader->reader);

	if (chunk == NULL)
	{
		if (loader->job && reader_done(loader->reader))
			job_check_end(loader->job);
		return;
	}
	if (loader->job && job_has(loader->job, chunk))
		loader_done_earlier(loader, chunk);
	else
		loader_put_back(loader, chunk);
	if (loader->job && reader_done(loader->reader))
		job_check_end(loader->job);
}

static void
handle_signal(Loader *loader)
{
	if (stop_signal == 0 || loader->status > 128)
		return;
	/* The next one ends the program at once. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	pg_log_warning("canceling, and waiting for the server");
	loader->status = 0;
	loader_stop(loader, 128 + stop_signal, "canceled by user");
	for (int i = 0; i < loader->nworkers; i++)
		worker_cancel(&loader->workers[i]);
}

static bool
is_at_work(const Loader *loader)
{
	for (int i = 0; i < loader->nworkers; i++)
	{
		if (worker_is_busy(&loader->workers[i]))
			return true;
	}
	return !loader->stopping && (loader->ready || !reader_done(loader->reader));
}

/*
 * How long the loop may wait, in milliseconds.
 */
static int
time_to_wait(const Loader *loader)
{
	double		wait = TICK;

	for (int i = 0; i < loader->nworkers; i++)
	{
		if (loader->workers[i].state == WORKER_WAITING)
			wait = Min(wait, (loader->workers[i].retry_at - loader_now(loader)) * 1000 + 1);
	}
	return (int) Max(wait, 0);
}

/*
 * Wait for the connections and the input, and go on with those that can.
 */
static void
wait_and_advance(Loader *loader, struct pollfd *fds)
{
	bool		reading = wants_input(loader);
	int			input = reading ? reader_fd(loader->reader) : -1;
	bool		at_once = reading && input < 0;

	for (int i = 0; i < loader->nworkers; i++)
	{
		const Connection *connection = &loader->workers[i].connection;

		fds[i].events = connection_events(connection);
		fds[i].revents = 0;
		fds[i].fd = fds[i].events ? PQsocket(connection->conn) : -1;
		/* A connection that has just been lost has no socket. */
		at_once |= fds[i].events && fds[i].fd < 0;
	}
	fds[loader->nworkers].fd = input;
	fds[loader->nworkers].events = POLLIN;
	fds[loader->nworkers].revents = 0;
	if (poll(fds, loader->nworkers + 1, at_once ? 0 : time_to_wait(loader)) < 0 && errno != EINTR)
		pg_fatal("poll() failed: %m");

	for (int i = 0; i < loader->nworkers; i++)
	{
		if (fds[i].events && fds[i].fd < 0)
			fds[i].revents = POLLERR;
		worker_advance(loader, &loader->workers[i], fds[i].revents);
	}
	if (reading && (input < 0 || fds[loader->nworkers].revents))
		read_input(loader);
}

/*
 * Load all.  loader->status is 0 if that was possible.
 */
void
loader_run(Loader *loader)
{
	struct pollfd *fds = pg_malloc((loader->nworkers + 1) * sizeof(struct pollfd));

	signal(SIGINT, note_signal);
	signal(SIGTERM, note_signal);
	signal(SIGPIPE, SIG_IGN);
	while (is_at_work(loader))
	{
		dispatch(loader);
		wait_and_advance(loader, fds);
		handle_signal(loader);
		progress_show(&loader->progress, loader->reader, count_connections(loader));
	}
	count_connections(loader);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	pg_free(fds);
}
