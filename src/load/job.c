/*-------------------------------------------------------------------------
 *
 * job.c
 *	  The ledger of a job, which makes each chunk be loaded once.
 *
 * A chunk's entry is inserted in the transaction that loads its rows, so either
 * both are there or none.  The primary key keeps a second transaction from
 * loading the same chunk: one of a session that the server has not yet missed,
 * say, or of another shard_load that runs the same job.
 *
 * The entries also tell whether the input is what it was: each has the size and
 * the hash of its chunk.  Chunks are taken in order, so when a job goes on, all
 * but a few before the last entry are in the ledger.  Those few wait until the
 * input has been compared with all entries.
 *
 * The rejected rows are in a table as well, committed with their chunk.  The
 * file of rejects is made of it anew when a job goes on, for the program may
 * have been killed between a commit and writing the file.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

static const char *const create_tables[] = {
	"CREATE TABLE %s (job pg_catalog.text PRIMARY KEY, table_name pg_catalog.text NOT NULL, options pg_catalog.text NOT NULL,"
	" chunk_size bigint NOT NULL, input_bytes bigint, begun pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),"
	" finished pg_catalog.timestamptz)",
	"CREATE TABLE %s (job pg_catalog.text NOT NULL REFERENCES %s ON DELETE CASCADE, start bigint NOT NULL,"
	" bytes bigint NOT NULL, records bigint NOT NULL, rejected bigint NOT NULL, hash bigint NOT NULL,"
	" PRIMARY KEY (job, start))",
	"CREATE TABLE %s (job pg_catalog.text NOT NULL, start bigint NOT NULL, file pg_catalog.text NOT NULL, line bigint NOT NULL,"
	" sqlstate pg_catalog.text NOT NULL, message pg_catalog.text NOT NULL, record pg_catalog.bytea NOT NULL,"
	" FOREIGN KEY (job, start) REFERENCES %s ON DELETE CASCADE)",
};

static char *
qualified(PGconn *conn, const char *schema, const char *name)
{
	PQExpBufferData buffer;

	initPQExpBuffer(&buffer);
	append_identifier(&buffer, conn, schema);
	appendPQExpBufferChar(&buffer, '.');
	append_identifier(&buffer, conn, name);
	return buffer.data;
}

/*
 * Create the tables of the ledger that are missing.  Those that are there must
 * be of somebody who could do the same harm anyway: their triggers run as us.
 */
static void
create_ledger(PGconn *conn, const Job *job, const Target *target)
{
	const char *names[] = {job->jobs, job->chunks, job->rejects};
	const char *parents[] = {"", job->jobs, job->chunks};

	/* One after the other, if several begin at the same time. */
	PQclear(query(conn, "BEGIN", 0, NULL));
	PQclear(query(conn, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))", 1,
				  (const char *const *) &job->jobs));
	for (int i = 0; i < lengthof(names); i++)
	{
		const char *params[] = {names[i], target->qualified};
		PGresult   *result;
		PQExpBufferData sql;

		result = query(conn,
					   "SELECT c.oid IS NULL, r.rolname = current_user OR c.relowner = n.nspowner"
					   " OR c.relowner = t.relowner OR r.rolsuper"
					   " FROM pg_catalog.pg_class t LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass($1)"
					   " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
					   " LEFT JOIN pg_catalog.pg_roles r ON r.oid = c.relowner"
					   " WHERE t.oid = $2::pg_catalog.regclass", 2, params);
		if (PQgetvalue(result, 0, 0)[0] == 't')
		{
			initPQExpBuffer(&sql);
			appendPQExpBuffer(&sql, create_tables[i], names[i], parents[i]);
			PQclear(query(conn, sql.data, 0, NULL));
			termPQExpBuffer(&sql);
		}
		else if (PQgetvalue(result, 0, 1)[0] != 't')
		{
			pg_log_error("table %s belongs to another user", names[i]);
			pg_log_error_hint("Have the ledger in another schema with --job-schema.");
			exit(EXIT_OWN_ERROR);
		}
		PQclear(result);
	}
	PQclear(query(conn, "COMMIT", 0, NULL));
}

/*
 * What decides which rows the input has, and where they go.
 */
static char *
describe_options(const LoadOptions *options, const Target *target)
{
	static const char *const headers[] = {"", ", header", ", header"};
	static const char *const conflicts[] = {"", ", on conflict skip", ", on conflict update"};
	PQExpBufferData text;

	initPQExpBuffer(&text);
	appendPQExpBuffer(&text, "%s%s%s", strstr(target->copy, " FROM STDIN ") + 12,
					  headers[options->header], conflicts[options->conflict]);
	if (target->columns[0])
		appendPQExpBuffer(&text, ", columns%s", target->columns);
	if (options->conflict_key)
		appendPQExpBuffer(&text, ", conflict key %s", options->conflict_key);
	return text.data;
}

static void
refuse_other(const Job *job, const char *what, const char *before, const char *now)
{
	pg_log_error("job \"%s\" has been begun with %s", job->name, what);
	pg_log_error_detail("It was \"%s\" and is \"%s\" now.", before, now);
	pg_log_error_hint("Give the job another name if it is to load other rows.");
	exit(EXIT_OWN_ERROR);
}

static void
refuse_input(const Job *job, const char *detail)
{
	pg_log_error("the input of job \"%s\" has changed", job->name);
	pg_log_error_detail("%s", detail);
	pg_log_error_hint("Give the job another name if it is to load other rows.");
	exit(EXIT_OWN_ERROR);
}

/*
 * How rows get into chunks, to be added to the options if they are in groups.
 */
static char *
describe_groups(const Reader *reader, int groups, int modulus)
{
	if (groups == 1)
		return pg_strdup("");
	return psprintf(", %d groups of hash %d by %s", groups, modulus, reader->key ? reader->key->description : "none");
}

/*
 * The job was begun with these options.  Have the reader make the groups that
 * it was begun with, whatever -j was then and however many shards there were.
 */
static void
take_groups(const Job *job, Reader *reader, const char *before, const char *description)
{
	size_t		length = strlen(description);
	int			groups = 1;
	int			modulus = 1;
	char	   *now;

	if (strncmp(before, description, length) != 0 ||
		(before[length] != '\0' &&
		 (sscanf(before + length, ", %d groups of hash %d by ", &groups, &modulus) != 2 || groups < 2 || modulus < groups)))
		refuse_other(job, "other options", before, description);
	now = describe_groups(reader, groups, modulus);
	if (strcmp(before + length, now) != 0 || (groups > 1 && reader->key == NULL))
		refuse_other(job, "another key", before + length + 2, now + 2);
	pg_free(now);
	reader->groups = groups;
	if (groups > 1)
		reader->key->modulus = modulus;
}

/*
 * Find the job's row, or make it.
 */
static void
read_job(PGconn *conn, Job *job, const LoadOptions *options, const Target *target, Reader *reader)
{
	char		chunk_size[32];
	char		total[32];
	char	   *description = describe_options(options, target);
	char	   *groups = describe_groups(reader, reader->groups, reader->key ? reader->key->modulus : 1);
	char	   *all = psprintf("%s%s", description, groups);
	const char *params[] = {job->name, target->qualified, all, chunk_size, reader->total >= 0 ? total : NULL};
	PQExpBufferData sql;
	PGresult   *result;

	snprintf(chunk_size, sizeof(chunk_size), INT64_FORMAT, reader->chunk_size);
	snprintf(total, sizeof(total), INT64_FORMAT, reader->total);
	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "INSERT INTO %s (job, table_name, options, chunk_size, input_bytes)"
					  " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (job) DO NOTHING", job->jobs);
	PQclear(query(conn, sql.data, lengthof(params), params));

	resetPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "SELECT table_name, options, chunk_size, input_bytes, finished IS NOT NULL"
					  " FROM %s WHERE job = $1", job->jobs);
	result = query(conn, sql.data, 1, params);
	termPQExpBuffer(&sql);
	if (PQntuples(result) == 0)
		pg_fatal("job \"%s\" has just been deleted", job->name);
	if (strcmp(PQgetvalue(result, 0, 0), target->qualified) != 0)
		refuse_other(job, "another table", PQgetvalue(result, 0, 0), target->qualified);
	take_groups(job, reader, PQgetvalue(result, 0, 1), description);
	reader->chunk_size = strtoll(PQgetvalue(result, 0, 2), NULL, 10);
	if (!PQgetisnull(result, 0, 3) && reader->total >= 0 && strcmp(PQgetvalue(result, 0, 3), total) != 0)
	{
		char		detail[128];

		snprintf(detail, sizeof(detail), "It had %s bytes and has %s bytes now.", PQgetvalue(result, 0, 3), total);
		refuse_input(job, detail);
	}
	job->finished = PQgetvalue(result, 0, 4)[0] == 't';
	PQclear(result);
	pg_free(all);
	pg_free(groups);
	free(description);
}

static void
read_entries(PGconn *conn, Job *job)
{
	PQExpBufferData sql;
	PGresult   *result;

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "SELECT start, bytes, records, rejected, hash FROM %s WHERE job = $1 ORDER BY start", job->chunks);
	result = query(conn, sql.data, 1, (const char *const *) &job->name);
	termPQExpBuffer(&sql);
	job->nentries = PQntuples(result);
	job->entries = pg_malloc((job->nentries + 1) * sizeof(LedgerEntry));
	for (int i = 0; i < job->nentries; i++)
	{
		LedgerEntry *entry = &job->entries[i];

		entry->start = strtoll(PQgetvalue(result, i, 0), NULL, 10);
		entry->bytes = strtoll(PQgetvalue(result, i, 1), NULL, 10);
		entry->records = strtoll(PQgetvalue(result, i, 2), NULL, 10);
		entry->rejected = strtoll(PQgetvalue(result, i, 3), NULL, 10);
		entry->hash = (uint64) strtoll(PQgetvalue(result, i, 4), NULL, 10);
		job->records += entry->records;
		job->rejected += entry->rejected;
	}
	PQclear(result);
}

/*
 * Begin a job, or go on with it: its entries are read, and the reader is told
 * the size of its chunks and the groups of rows.  Exits if it is a job of other rows.
 */
Job *
job_open(PGconn *conn, const LoadOptions *options, const Target *target, Reader *reader)
{
	Job		   *job = pg_malloc0(sizeof(Job));
	const char *schema = options->job_schema ? options->job_schema : target->schema;

	job->name = pg_strdup(options->job);
	job->jobs = qualified(conn, schema, "shard_load_jobs");
	job->chunks = qualified(conn, schema, "shard_load_chunks");
	job->rejects = qualified(conn, schema, "shard_load_rejects");
	create_ledger(conn, job, target);
	read_job(conn, job, options, target, reader);
	read_entries(conn, job);
	return job;
}

/*
 * Are there entries that the input has not been compared with?
 */
bool
job_holds(const Job *job)
{
	return job->checked < job->nentries;
}

/*
 * Does the ledger have the chunk?  To be called for all chunks of the input in
 * their order.  Exits if the input is not what it was.
 */
bool
job_has(Job *job, const Chunk *chunk)
{
	const LedgerEntry *entry = &job->entries[job->checked];
	char		detail[256];

	if (!job_holds(job))
	{
		if (!job->finished)
			return false;
		refuse_input(job, "It has more rows than it had when the job was finished.");
	}
	if (entry->start >= chunk->start + (int64) chunk->size)
		return false;
	if (entry->start != chunk->start || entry->bytes != (int64) chunk->size || entry->hash != chunk->hash)
	{
		snprintf(detail, sizeof(detail), "Rows that are loaded already, from line " INT64_FORMAT
				 " of \"%.150s\" on, were others.", chunk->line, chunk->file);
		refuse_input(job, detail);
	}
	job->checked++;
	return true;
}

/*
 * The input has come to its end.
 */
void
job_check_end(const Job *job)
{
	if (job_holds(job))
		refuse_input(job, "It had more rows, which are loaded already.");
}

/*
 * Append the command that enters a chunk, and its rejects, in the ledger.
 */
void
job_append_entry(PQExpBuffer sql, PGconn *conn, const Job *job, const Chunk *chunk, const Reject *rejects)
{
	const char *separator = ") VALUES ";
	int64		count = 0;

	for (const Reject *reject = rejects; reject; reject = reject->next)
		count++;
	appendPQExpBuffer(sql, "INSERT INTO %s (job, start, bytes, records, rejected, hash) VALUES (", job->chunks);
	append_literal(sql, conn, job->name);
	appendPQExpBuffer(sql, ", " INT64_FORMAT ", %zu, " INT64_FORMAT ", " INT64_FORMAT ", " INT64_FORMAT ")",
					  chunk->start, chunk->size, chunk->records, count, (int64) chunk->hash);
	if (rejects == NULL)
		return;
	appendPQExpBuffer(sql, "; INSERT INTO %s (job, start, file, line, sqlstate, message, record", job->rejects);
	for (const Reject *reject = rejects; reject; reject = reject->next)
	{
		size_t		length;
		unsigned char *record = PQescapeByteaConn(conn, (const unsigned char *) reject->data, reject->size, &length);

		if (record == NULL)
			pg_fatal("out of memory");
		appendPQExpBufferStr(sql, separator);
		appendPQExpBufferChar(sql, '(');
		append_literal(sql, conn, job->name);
		appendPQExpBuffer(sql, ", " INT64_FORMAT ", ", chunk->start);
		append_literal(sql, conn, chunk->file);
		appendPQExpBuffer(sql, ", " INT64_FORMAT ", '%s', ", reject->line, reject->sqlstate);
		append_literal(sql, conn, reject->message);
		appendPQExpBuffer(sql, ", '%s'::pg_catalog.bytea)", record);
		PQfreemem(record);
		separator = ", ";
	}
}

/*
 * Append the query that gives a row if the chunk is in the ledger.
 */
void
job_append_question(PQExpBuffer sql, PGconn *conn, const Job *job, const Chunk *chunk)
{
	appendPQExpBuffer(sql, "SELECT FROM %s WHERE job = ", job->chunks);
	append_literal(sql, conn, job->name);
	appendPQExpBuffer(sql, " AND start = " INT64_FORMAT, chunk->start);
}

/*
 * All of the input, which has so many bytes, is loaded.
 */
void
job_finish(PGconn *conn, const Job *job, int64 bytes)
{
	char		total[32];
	const char *params[] = {job->name, total};
	PQExpBufferData sql;

	if (job->finished)
		return;
	snprintf(total, sizeof(total), INT64_FORMAT, bytes);
	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "UPDATE %s SET finished = pg_catalog.now(), input_bytes = coalesce(input_bytes, $2)"
					  " WHERE job = $1", job->jobs);
	PQclear(query(conn, sql.data, 2, params));
	termPQExpBuffer(&sql);
}
