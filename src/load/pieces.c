/*-------------------------------------------------------------------------
 *
 * pieces.c
 *	  Looking for the rows of a chunk that the server refuses.
 *
 * The chunk is loaded piece by piece, in order, in one transaction with a
 * savepoint for each piece.  A piece that fails is loaded again in parts: around
 * the row that the server has named, or in halves if it names none.  A row that
 * fails alone is a reject.  So every row is tried when all that come before it
 * have been, as if they were inserted one by one.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

/* A piece after a failure has so many records, if that is a half or less. */
#define SMALL_PIECE 64

static void
push_end(Pieces *pieces, int64 end)
{
	if (pieces->nends == pieces->allocated)
	{
		pieces->allocated = pieces->allocated * 2 + 16;
		pieces->ends = pg_realloc(pieces->ends, pieces->allocated * sizeof(int64));
	}
	pieces->ends[pieces->nends++] = end;
}

/*
 * Begin with a chunk, which was refused as a whole.
 */
Pieces *
pieces_begin(const Cutter *cutter, const Chunk *chunk)
{
	Pieces	   *pieces = pg_malloc0(sizeof(Pieces));

	pieces->index = cut_index(cutter, chunk);
	pieces->limit = Max(chunk->records / 2, SMALL_PIECE);
	pieces->last = &pieces->rejects;
	push_end(pieces, chunk->records);
	return pieces;
}

/*
 * Go to the next piece.  False: the chunk is done.
 */
bool
pieces_next(Pieces *pieces)
{
	if (pieces->nends == 0)
		return false;
	pieces->to = pieces->ends[pieces->nends - 1];
	if (pieces->to - pieces->from > pieces->limit)
		pieces->to = pieces->from + pieces->limit;
	else
		pieces->nends--;
	return true;
}

/*
 * The data of the piece.
 */
Segment
pieces_segment(const Pieces *pieces, const Chunk *chunk)
{
	size_t		from = pieces->index->offsets[pieces->from];
	Segment		segment = {chunk->data + from, pieces->index->offsets[pieces->to] - from};

	return segment;
}

/*
 * The piece is loaded; so many rows came of it.
 */
void
pieces_loaded(Pieces *pieces, int64 rows)
{
	pieces->loaded += rows;
	pieces->from = pieces->to;
	pieces->limit *= 2;
	pieces->failed = false;
}

static void
add_reject(Pieces *pieces, const Chunk *chunk, const Outcome *outcome)
{
	Reject	   *reject = pg_malloc0(sizeof(Reject));
	Segment		segment = pieces_segment(pieces, chunk);

	reject->line = pieces->index->lines[pieces->from];
	strlcpy(reject->sqlstate, outcome->sqlstate, sizeof(reject->sqlstate));
	reject->message = pg_strdup(outcome->message);
	reject->data = segment.data;
	reject->size = segment.size;
	*pieces->last = reject;
	pieces->last = &reject->next;
	pieces->count++;
}

/*
 * The piece was refused, at this line of its COPY (-1: not known).  True if
 * that has made a reject of it, false if its parts are to be tried.
 */
bool
pieces_failed(Pieces *pieces, const Cutter *cutter, const Chunk *chunk, const Outcome *outcome, int64 copy_line)
{
	int64		size = pieces->to - pieces->from;
	int64		bad = -1;

	pieces->failed = true;
	pieces->limit = Max(pieces->limit / 2, SMALL_PIECE);
	if (size == 1)
	{
		add_reject(pieces, chunk, outcome);
		pieces->from = pieces->to;
		return true;
	}
	push_end(pieces, pieces->to);
	if (copy_line > 0)
		bad = cut_find_line(cutter, pieces->index, pieces->from, copy_line);
	if (bad < pieces->from || bad >= pieces->to)
	{
		push_end(pieces, pieces->from + size / 2);
		return false;
	}
	if (bad + 1 < pieces->to)
		push_end(pieces, bad + 1);
	if (bad > pieces->from)
		push_end(pieces, bad);
	return false;
}

void
pieces_free(Pieces *pieces)
{
	Reject	   *reject;

	while ((reject = pieces->rejects) != NULL)
	{
		pieces->rejects = reject->next;
		pg_free(reject->message);
		pg_free(reject);
	}
	cut_free_index(pieces->index);
	pg_free(pieces->ends);
	pg_free(pieces);
}
