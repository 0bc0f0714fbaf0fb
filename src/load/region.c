/*-------------------------------------------------------------------------
 *
 * region.c
 *	  Cutting the input into chunks of rows that belong together.
 *
 * A region is the shortest run of whole records of one file that has chunk_size
 * bytes for each group, or the last records of the file.  Each of its records
 * goes to the chunk of its group, so a chunk has about chunk_size bytes if the
 * groups are alike.  If they are not, large groups have several chunks.
 *
 * What is where depends on the input, chunk_size, the number of groups and the
 * key only.  The chunks of a region are handed out when all of them are there,
 * and their offsets are those that they would have if the input were in their
 * order.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

/* Lines that a region has at most, so that they can be counted in 32 bits. */
#define MAX_LINES PG_INT32_MAX

/* Bytes of a chunk that takes no more records, however large chunks are. */
#define MAX_SIZE ((int64) 1 << 30)

/*
 * Get ready, now that the number of groups is settled.
 */
void
region_begin(Reader *reader)
{
	if (reader->groups == 1)
		return;
	reader->open = pg_malloc0(reader->groups * sizeof(Chunk *));
	pg_log_debug("rows are loaded in %d groups by their key %s", reader->groups, reader->key->description);
}

static void
close_chunk(Reader *reader, int group)
{
	Chunk	   *chunk = reader->open[group];

	if (chunk == NULL)
		return;
	chunk->next = reader->closed;
	reader->closed = chunk;
	reader->open[group] = NULL;
}

/*
 * Add a record to the region.  True: the region is complete.
 */
bool
region_add(Reader *reader, const char *record, size_t size)
{
	int			group = key_group(reader->key, record, size, reader->groups);
	Chunk	   *chunk = reader->open[group];

	if (chunk == NULL)
	{
		chunk = reader->open[group] = reader_new_chunk(reader);
		chunk->group = group;
	}
	if (chunk->records == chunk->lines_allocated)
	{
		chunk->lines_allocated = chunk->lines_allocated * 2 + 1024;
		chunk->record_lines = pg_realloc(chunk->record_lines, chunk->lines_allocated * sizeof(uint32));
	}
	reader_make_room(chunk, chunk->size + size);
	memcpy(chunk->data + chunk->size, record, size);
	chunk->size += size;
	chunk->record_lines[chunk->records++] = (uint32) reader->record_line;
	reader->record_line = reader->cut.lines;
	reader->region_size += size;
	if (chunk->size >= (size_t) Min(2 * reader->chunk_size, MAX_SIZE))
		close_chunk(reader, group);
	return reader->region_size >= (size_t) reader->chunk_size * reader->groups || reader->cut.lines >= MAX_LINES;
}

/*
 * The region has all its records.  Its chunks are finished.
 */
void
region_finish(Reader *reader)
{
	Chunk	   *list = NULL;
	Chunk	   *chunk;
	int			parts = 0;

	for (int group = 0; group < reader->groups; group++)
		close_chunk(reader, group);
	while ((chunk = reader->closed) != NULL)
	{
		reader->closed = chunk->next;
		chunk->next = list;
		list = chunk;
		parts++;
	}
	for (chunk = list; chunk; chunk = chunk->next)
	{
		reader_settle(reader, chunk);
		chunk->parts = parts;
	}
	reader->finished = list;
	reader->line += reader->cut.lines;
	reader->cut.lines = reader->record_line = 0;
	reader->region_size = 0;
	reader->regions++;
}
