/*-------------------------------------------------------------------------
 *
 * shard_load.c
 *	  Load files into a table over several connections.
 *
 * shard_load.h says what the parts are.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <unistd.h>

#include "mb/pg_wchar.h"

/*
 * The number of connections: one for each core, and for each open shard.
 */
static int
default_jobs(const Target *target)
{
	int			cores = (int) Max(sysconf(_SC_NPROCESSORS_ONLN), 1);

	return target->is_logical ? Max(1, Min(cores, target->open_shards)) : cores;
}

/*
 * The encoding of the files, in libpq's numbers.
 */
static int
file_encoding(PGconn *conn, const LoadOptions *options)
{
	int			encoding;

	if (options->encoding == NULL)
		return PQclientEncoding(conn);
	encoding = pg_char_to_encoding(options->encoding);
	if (encoding < 0)
		pg_fatal("invalid encoding name \"%s\"", options->encoding);
	return encoding;
}

/*
 * Note in the ledger that the job is done.  The connections of the workers may
 * be lost without anybody having noticed.
 */
static void
finish_job(Loader *loader)
{
	PGconn	   *conn = connection_first(loader->options);

	job_finish(conn, loader->job, loader->reader->offset);
	PQfinish(conn);
}

static void
finish(Loader *loader)
{
	const char *status = loader->status == 0 ? "done" : loader->status > 128 ? "canceled" : "failed";

	if (loader->rejects)
		rejects_close(loader->rejects);
	if (loader->status == 0 && loader->job)
		finish_job(loader);
	if (loader->status != 0)
		progress_tell_committed(&loader->progress, loader->job);
	progress_summary(&loader->progress, loader->most_connections, status, loader->error);
	for (int i = 0; i < loader->nworkers; i++)
	{
		if (loader->workers[i].connection.conn)
			connection_close(&loader->workers[i].connection);
	}
}

int
main(int argc, char *argv[])
{
	const char *progname = get_progname(argv[0]);
	LoadOptions *options;
	PGconn	   *conn;
	Target	   *target;
	Reader	   *reader;
	Job		   *job = NULL;
	Rejects    *rejects = NULL;
	Loader	   *loader;
	Key		   *key = NULL;
	int			encoding;
	int			jobs;

	pg_logging_init(argv[0]);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("shard_load"));
	options = options_parse(argc, argv, progname);

	conn = connection_first(options);
	if (PQserverVersion(conn) < 150000)
		pg_fatal("the server has version %s, but %s requires version 15 or later",
				 PQparameterStatus(conn, "server_version"), progname);
	target = target_look_up(conn, options);
	jobs = options->jobs > 0 ? options->jobs : default_jobs(target);
	encoding = file_encoding(conn, options);
	reader = reader_open(options, encoding, PQserverVersion(conn));
	/* A job may have been begun with more connections. */
	if (jobs > 1 || options->job)
		key = key_look_up(conn, options, target, encoding);
	reader_choose_chunks(reader, key, jobs);
	target_probe(conn, target, reader);
	if (options->job)
		job = job_open(conn, options, target, reader);
	if (options->rejects)
	{
		rejects = rejects_open(options, reader);
		if (job)
			rejects_reload(rejects, conn, job);
	}

	region_begin(reader);
	loader = loader_make(options, target, reader, job, rejects, conn, jobs);
	loader_run(loader);
	finish(loader);
	return loader->status;
}
