/*-------------------------------------------------------------------------
 *
 * rejects.c
 *	  The files of the rows that the server has refused.
 *
 * One file has the rows as they were in the input, with its header, so that it
 * can be mended and loaded like the input.  The other, its name and ".errors",
 * has a line for each of them in COPY's text format: file, line, SQLSTATE and
 * message.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <unistd.h>

static FILE *
create_file(const char *path)
{
	FILE	   *file = fopen(path, PG_BINARY_W);

	if (file == NULL)
		pg_fatal("could not create file \"%s\": %m", path);
	return file;
}

static void
flush_files(Rejects *rejects)
{
	if (fflush(rejects->records) != 0 || ferror(rejects->records))
		pg_fatal("could not write file \"%s\": %m", rejects->options->rejects);
	if (fflush(rejects->errors) != 0 || ferror(rejects->errors))
		pg_fatal("could not write file \"%s\": %m", rejects->errors_path);
}

/*
 * Create the files; old ones are lost.
 */
Rejects *
rejects_open(const LoadOptions *options, const Reader *reader)
{
	Rejects    *rejects = pg_malloc0(sizeof(Rejects));
	const Input *input = reader->inputs[0];

	rejects->options = options;
	rejects->errors_path = psprintf("%s.errors", options->rejects);
	rejects->records = create_file(options->rejects);
	rejects->errors = create_file(rejects->errors_path);
	if (options->format == FORMAT_BINARY)
		fwrite(BINARY_HEADER, 1, BINARY_HEADER_SIZE, rejects->records);
	else
		fwrite(input->prefix + input->header_start, 1, input->prefix_size - input->header_start, rejects->records);
	flush_files(rejects);
	return rejects;
}

/*
 * Write a value as COPY does in text format.
 */
static void
write_value(FILE *file, const char *value)
{
	for (; *value; value++)
	{
		switch (*value)
		{
			case '\n':
				fputs("\\n", file);
				break;
			case '\r':
				fputs("\\r", file);
				break;
			case '\t':
				fputs("\\t", file);
				break;
			case '\\':
				fputs("\\\\", file);
				break;
			default:
				putc(*value, file);
		}
	}
}

static void
write_reject(Rejects *rejects, const char *file, const Reject *reject)
{
	fwrite(reject->data, 1, reject->size, rejects->records);
	/* The last line of the input need not have an end. */
	if (rejects->options->format != FORMAT_BINARY && reject->size > 0 &&
		strchr("\r\n", reject->data[reject->size - 1]) == NULL)
		putc('\n', rejects->records);
	write_value(rejects->errors, file);
	fprintf(rejects->errors, "\t" INT64_FORMAT "\t%s\t", reject->line, reject->sqlstate);
	write_value(rejects->errors, reject->message);
	putc('\n', rejects->errors);
}

/*
 * Write what earlier runs of the job have rejected.
 */
void
rejects_reload(Rejects *rejects, PGconn *conn, const Job *job)
{
	PQExpBufferData sql;
	PGresult   *result;

	initPQExpBuffer(&sql);
	appendPQExpBuffer(&sql, "SELECT file, line, sqlstate, message, record FROM %s WHERE job = $1 ORDER BY start, line",
					  job->rejects);
	result = query(conn, sql.data, 1, (const char *const *) &job->name);
	termPQExpBuffer(&sql);
	for (int i = 0; i < PQntuples(result); i++)
	{
		Reject		reject = {.line = strtoll(PQgetvalue(result, i, 1), NULL, 10)};
		unsigned char *record = PQunescapeBytea((unsigned char *) PQgetvalue(result, i, 4), &reject.size);

		if (record == NULL)
			pg_fatal("out of memory");
		strlcpy(reject.sqlstate, PQgetvalue(result, i, 2), sizeof(reject.sqlstate));
		reject.message = PQgetvalue(result, i, 3);
		reject.data = (const char *) record;
		write_reject(rejects, PQgetvalue(result, i, 0), &reject);
		PQfreemem(record);
	}
	rejects->count = PQntuples(result);
	PQclear(result);
	flush_files(rejects);
}

/*
 * Write the rejects of a chunk that is committed.
 */
void
rejects_write(Rejects *rejects, const Chunk *chunk, const Reject *list)
{
	if (list == NULL)
		return;
	for (; list; list = list->next)
		write_reject(rejects, chunk->file, list);
	flush_files(rejects);
}

/*
 * Close the files, and remove them if there are no rejects.
 */
void
rejects_close(Rejects *rejects)
{
	if (rejects->options->format == FORMAT_BINARY)
		fwrite(BINARY_TRAILER, 1, BINARY_TRAILER_SIZE, rejects->records);
	flush_files(rejects);
	fclose(rejects->records);
	fclose(rejects->errors);
	if (rejects->count == 0)
	{
		unlink(rejects->options->rejects);
		unlink(rejects->errors_path);
	}
}
