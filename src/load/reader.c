/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  All inputs, one after the other, cut into chunks.
 *
 * A chunk is the shortest run of whole records of one file that has at least
 * chunk_size bytes, or the last records of the file.  So chunks depend on the
 * input and on chunk_size only, and a job that goes on finds those that it
 * knows.  If the rows are in groups, region.c makes the chunks.  Offsets count
 * the bytes of all inputs, headers included.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include "common/hashfn.h"

#define READ_SIZE (256 * 1024)

/* A server takes no longer record in text. */
#define MAX_RECORD 0x3fffffff

#define MAX_CHUNK_SIZE (8 * 1024 * 1024)
#define MIN_CHUNK_SIZE (256 * 1024)

/*
 * Begin the current input.  It is the next chunk that begins here.
 */
static void
begin_input(Reader *reader)
{
	Input	   *input = reader->inputs[reader->current];
	Cutter		cutter = reader->cutter;

	input_begin(input, reader->options, &cutter);
	/* What the header's line ends with may have been seen at the check. */
	if (input->header_lines > 0 && cutter.eol == '\0')
	{
		cutter.record = cutter.pos = input->header_start;
		(void) cut_record(&cutter, input->prefix, input->prefix_size, true);
	}
	reader->cut = cutter;
	reader->cut.record = reader->cut.pos = 0;
	reader->cut.lines = 0;
	reader->offset += input->prefix_size;
	reader->line = 1 + input->header_lines;
	reader->header_hash = reader->hashes ?
		hash_bytes_extended((unsigned char *) input->prefix, input->prefix_size, 0) : 0;
	reader->begun = true;
}

static void
end_input(Reader *reader)
{
	Input	   *input = reader->inputs[reader->current];

	if (input->is_regular)
		reader->files_read += input->file_size;
	input_close(input);
	reader->current++;
	reader->begun = false;
}

/*
 * Make a reader of all inputs.  All are opened, to see that they are there, and
 * their headers are read; none that is a regular file stays open.
 */
Reader *
reader_open(const LoadOptions *options, int encoding, int server_version)
{
	Reader	   *reader = pg_malloc0(sizeof(Reader));

	reader->options = options;
	reader->hashes = options->job != NULL;
	reader->ninputs = options->nfiles;
	reader->inputs = pg_malloc(reader->ninputs * sizeof(Input *));
	cut_init(&reader->cutter, options, encoding, server_version);
	for (int i = 0; i < reader->ninputs; i++)
	{
		Input	   *input = input_make(options, options->files[i]);
		Cutter		cutter = reader->cutter;

		reader->inputs[i] = input;
		input_begin(input, options, &cutter);
		if (!input->is_regular)
			reader->total = reader->files_total = -1;
		else
		{
			if (input->program)
				reader->total = -1;
			if (reader->total >= 0)
				reader->total += input->file_size;
			if (reader->files_total >= 0)
				reader->files_total += input->file_size;
			input_close(input);
		}
	}
	return reader;
}

/*
 * Settle the size of chunks, unless it is settled: some for each connection of
 * a small input.  If the table has a key, settle the groups of its rows: one for
 * each connection.
 */
void
reader_choose_chunks(Reader *reader, Key *key, int jobs)
{
	reader->key = key;
	reader->groups = key ? Min(jobs, key->modulus) : 1;
	if (reader->options->chunk_size > 0)
		reader->chunk_size = reader->options->chunk_size;
	else if (reader->total >= 0)
		reader->chunk_size = Max(MIN_CHUNK_SIZE, Min(MAX_CHUNK_SIZE, reader->total / (4 * jobs)));
	else
		reader->chunk_size = MAX_CHUNK_SIZE;
}

bool
reader_done(const Reader *reader)
{
	return reader->current == reader->ninputs && reader->finished == NULL;
}

/*
 * The descriptor to wait for before reader_step(), or -1 if it need not wait.
 */
int
reader_fd(const Reader *reader)
{
	const Input *input;

	if (reader->finished || reader_done(reader))
		return -1;
	input = reader->inputs[reader->current];
	if (!reader->begun || input->rest_size > 0 || input->at_end ||
		(input->is_regular && input->program == NULL))
		return -1;
	return input->fd;
}

/*
 * Have a chunk be able to take so many bytes.
 */
void
reader_make_room(Chunk *chunk, size_t size)
{
	if (chunk->allocated >= size)
		return;
	chunk->allocated = Max(size, chunk->allocated + chunk->allocated / 2);
	chunk->data = pg_realloc(chunk->data, chunk->allocated);
}

/*
 * Give a chunk back when it has been loaded.
 */
void
reader_recycle(Reader *reader, Chunk *chunk)
{
	/* A huge record has been an exception. */
	if (chunk->allocated > 2 * (reader->chunk_size + READ_SIZE))
	{
		pg_free(chunk->data);
		pg_free(chunk->record_lines);
		chunk->data = NULL;
		chunk->record_lines = NULL;
		chunk->allocated = 0;
		chunk->lines_allocated = 0;
	}
	chunk->next = reader->spare;
	reader->spare = chunk;
}

/*
 * An empty chunk.
 */
Chunk *
reader_new_chunk(Reader *reader)
{
	Chunk	   *chunk = reader->spare;
	Chunk		empty = {0};

	if (chunk)
		reader->spare = chunk->next;
	else
		chunk = pg_malloc0(sizeof(Chunk));
	empty.data = chunk->data;
	empty.allocated = chunk->allocated;
	empty.record_lines = chunk->record_lines;
	empty.lines_allocated = chunk->lines_allocated;
	*chunk = empty;
	reader_make_room(chunk, reader->chunk_size + READ_SIZE);
	return chunk;
}

/*
 * A chunk has its records.  Note what it is of the input.
 */
void
reader_settle(Reader *reader, Chunk *chunk)
{
	chunk->number = reader->chunks++;
	chunk->start = reader->offset;
	chunk->file = reader->inputs[reader->current]->name;
	chunk->line = reader->line;
	chunk->lines = reader->cut.lines;
	chunk->region = reader->regions;
	chunk->parts = 1;
	chunk->eol = reader->cut.eol;
	if (reader->hashes)
		chunk->hash = hash_bytes_extended((unsigned char *) chunk->data, (int) chunk->size, reader->header_hash);
	reader->offset += chunk->size;
}

/*
 * The records up to cut.record are a chunk; the data after it are the next
 * one's.  Gives NULL if there are no records.
 */
static Chunk *
finish_chunk(Reader *reader)
{
	Chunk	   *chunk = reader->chunk;
	Chunk	   *next;
	size_t		size = reader->cut.record;

	if (size == 0)
		return NULL;
	next = reader_new_chunk(reader);
	next->size = chunk->size - size;
	reader_make_room(next, next->size + READ_SIZE);
	memcpy(next->data, chunk->data + size, next->size);

	chunk->size = size;
	reader_settle(reader, chunk);
	reader->regions++;
	reader->line += chunk->lines;
	reader->chunk = next;
	reader->cut.record = reader->cut.pos = 0;
	reader->cut.lines = 0;
	return chunk;
}

/*
 * The next of the chunks that are finished, or NULL.
 */
static Chunk *
take_finished(Reader *reader)
{
	Chunk	   *chunk = reader->finished;

	if (chunk)
		reader->finished = chunk->next;
	return chunk;
}

/*
 * The current input has no more records.  Its last chunk, or NULL.
 */
static Chunk *
finish_input(Reader *reader, int64 marker_size)
{
	Input	   *input = reader->inputs[reader->current];
	Chunk	   *chunk = NULL;
	char		next;

	if (reader->groups > 1)
		region_finish(reader);
	else
		chunk = finish_chunk(reader);
	if (reader->options->format != FORMAT_BINARY &&
		(reader->chunk->size - reader->cut.record > marker_size ||
		 (input->is_regular && input_read(input, &next, 1) > 0)))
		pg_log_warning("file \"%s\", line " INT64_FORMAT ": nothing is loaded of what follows the end marker",
					   input->name, reader->line);
	reader->offset += marker_size;
	reader->chunk->size = 0;
	end_input(reader);
	return reader->groups > 1 ? take_finished(reader) : chunk;
}

static void
broken_input(const Reader *reader, const char *what)
{
	pg_fatal("file \"%s\", row " INT64_FORMAT ": %s", reader->inputs[reader->current]->name,
			 reader->line + reader->cut.lines, what);
}

/*
 * The records up to cut.record have been copied.  Drop them.
 */
static void
drop_records(Reader *reader)
{
	Chunk	   *chunk = reader->chunk;
	size_t		enough = reader->chunk_size + READ_SIZE;

	chunk->size -= reader->cut.record;
	memmove(chunk->data, chunk->data + reader->cut.record, chunk->size);
	reader->cut.pos -= reader->cut.record;
	reader->cut.record = 0;
	/* As in reader_recycle(). */
	if (chunk->allocated > 2 * enough && chunk->size <= enough)
	{
		chunk->data = pg_realloc(chunk->data, enough);
		chunk->allocated = enough;
	}
}

/*
 * Read more of the current input.
 */
static void
read_more(Reader *reader)
{
	Input	   *input = reader->inputs[reader->current];
	Chunk	   *chunk = reader->chunk;
	size_t		got;

	if (chunk->size - reader->cut.record > MAX_RECORD)
	{
		pg_log_error("file \"%s\", line " INT64_FORMAT ": a row is longer than 1 GB",
					 input->name, reader->line + reader->cut.lines);
		if (reader->options->format == FORMAT_CSV)
			pg_log_error_hint("A quote may be missing in or before it.");
		exit(EXIT_OWN_ERROR);
	}
	if (reader->groups > 1 && reader->cut.record > 0)
		drop_records(reader);
	reader_make_room(chunk, chunk->size + READ_SIZE);
	got = input_read(input, chunk->data + chunk->size, READ_SIZE);
	chunk->size += got;
}

/*
 * A record has been found.  Gives a chunk if it has become complete.
 */
static Chunk *
take_record(Reader *reader)
{
	Cutter	   *cut = &reader->cut;
	size_t		start = cut->record;

	cut->record = cut->pos;
	if (reader->groups > 1)
	{
		if (!region_add(reader, reader->chunk->data + start, cut->pos - start))
			return NULL;
		region_finish(reader);
		return take_finished(reader);
	}
	reader->chunk->records++;
	return cut->pos >= reader->chunk_size ? finish_chunk(reader) : NULL;
}

/*
 * Do a piece of the work: give the next chunk, or NULL, which means that this
 * function has to be called again or that all has been read.
 */
Chunk *
reader_step(Reader *reader)
{
	Cutter	   *cut = &reader->cut;
	Input	   *input;

	if (reader->finished || reader_done(reader))
		return take_finished(reader);
	if (reader->chunk == NULL)
		reader->chunk = reader_new_chunk(reader);
	if (!reader->begun)
		begin_input(reader);
	input = reader->inputs[reader->current];
	for (;;)
	{
		bool		all = input->at_end && input->rest_size == 0;
		Chunk	   *chunk;

		switch (cut_record(cut, reader->chunk->data, reader->chunk->size, all))
		{
			case CUT_RECORD:
				chunk = take_record(reader);
				if (chunk)
					return chunk;
				break;
			case CUT_END:
				cut->lines--;
				return finish_input(reader, cut->pos - cut->record);
			case CUT_BROKEN:
				broken_input(reader, "not a row in binary format");
				break;
			case CUT_MORE:
				if (all)
				{
					if (reader->options->format == FORMAT_BINARY)
						broken_input(reader, "unexpected end of file");
					return finish_input(reader, 0);
				}
				read_more(reader);
				return NULL;
		}
	}
}

/*
 * How much of the input has been read, from 0 to 1; -1 if that is not known.
 */
double
reader_fraction(const Reader *reader)
{
	int64		read = reader->files_read;

	if (reader->files_total <= 0)
		return -1;
	if (reader->current < reader->ninputs)
		read += input_position(reader->inputs[reader->current]);
	return Min((double) read / reader->files_total, 1.0);
}

/*
 * The lines that a chunk has, for people.  The caller frees it.
 */
char *
chunk_lines(const Chunk *chunk)
{
	return psprintf("%slines " INT64_FORMAT " to " INT64_FORMAT, chunk->parts > 1 ? "some of " : "",
					chunk->line, chunk->line + chunk->lines - 1);
}
