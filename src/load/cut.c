/*-------------------------------------------------------------------------
 *
 * cut.c
 *	  Where a record of COPY data ends.
 *
 * The rules are those of CopyReadLineText() and CopyGetData() in the server,
 * which will read what is cut here: what is one record there must be one here.
 * A cutter keeps what it knows between calls, so that no byte of a record is
 * looked at twice when its data arrive bit by bit.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

/*
 * Make a cutter for the data that the options describe, in an encoding of
 * libpq's, for a server of that version.
 */
void
cut_init(Cutter *cutter, const LoadOptions *options, int encoding, int server_version)
{
	memset(cutter, 0, sizeof(*cutter));
	cutter->format = options->format;
	cutter->quote = options->quote ? options->quote[0] : '"';
	cutter->escape = options->escape ? options->escape[0] : '\0';
	if (cutter->escape == cutter->quote)
		cutter->escape = '\0';
	/* In an encoding for servers, a byte like ASCII's is ASCII's. */
	cutter->encoding = PG_VALID_BE_ENCODING(encoding) ? -1 : encoding;
	cutter->marker_ends = options->format == FORMAT_TEXT ||
		(options->format == FORMAT_CSV && server_version < 180000);
}

/*
 * A record of text ends at "pos".  Is it the end marker?
 */
static CutResult
end_of_line(const Cutter *cutter, const char *data)
{
	size_t		size = cutter->pos - cutter->record;

	if (cutter->marker_ends && size >= 3 && size <= 4 &&
		data[cutter->record] == '\\' && data[cutter->record + 1] == '.' &&
		strspn(data + cutter->record + 2, "\r\n") >= size - 2)
		return CUT_END;
	return CUT_RECORD;
}

/*
 * The same at the end of all data, without the end of a line.
 */
static CutResult
end_of_data(Cutter *cutter, const char *data, size_t size)
{
	size_t		length = size - cutter->record;

	if (length == 0)
		return CUT_MORE;
	cutter->pos = size;
	cutter->lines++;
	if (cutter->marker_ends && length == 2 && memcmp(data + cutter->record, "\\.", 2) == 0)
		return CUT_END;
	return CUT_RECORD;
}

/*
 * Text with known ends of lines: the next one that no backslash precedes.  A
 * backslash does not count if another one precedes it.
 */
static CutResult
cut_text(Cutter *cutter, const char *data, size_t size)
{
	const char *end;

	while ((end = memchr(data + cutter->pos, cutter->eol, size - cutter->pos)) != NULL)
	{
		const char *before = end;

		cutter->pos = end - data + 1;
		cutter->lines++;
		while (before > data + cutter->record && before[-1] == '\\')
			before--;
		if ((end - before) % 2 == 0)
			return end_of_line(cutter, data);
	}
	cutter->pos = size;
	return CUT_MORE;
}

/*
 * CSV with known ends of lines, and quotes that are doubled in a field: the
 * next end of a line after an even number of quotes.
 */
static CutResult
cut_csv(Cutter *cutter, const char *data, size_t size)
{
	while (cutter->pos < size)
	{
		const char *at = data + cutter->pos;
		const char *eol = memchr(at, cutter->eol, size - cutter->pos);
		const char *end = eol ? eol : data + size;

		while ((at = memchr(at, cutter->quote, end - at)) != NULL)
		{
			cutter->in_quote = !cutter->in_quote;
			at++;
		}
		cutter->pos = end - data;
		if (eol == NULL)
			break;
		cutter->pos++;
		cutter->lines++;
		if (!cutter->in_quote)
			return end_of_line(cutter, data);
	}
	return CUT_MORE;
}

/*
 * How many bytes the character at "pos" has if it is not ASCII; 0 if that
 * cannot be told yet.
 */
static size_t
character_size(const Cutter *cutter, const char *data, size_t size, bool at_end)
{
	size_t		left = size - cutter->pos;
	size_t		length;

	if (left < MAX_CONVERSION_GROWTH && !at_end)
		return 0;
	/* GB18030 looks at the second byte. */
	length = left < 2 ? 1 : PQmblen(data + cutter->pos, cutter->encoding);
	return Min(length, left);
}

/*
 * Is this character, at pos - 1, data even if it ends a line?  Keeps up with
 * quotes and escapes.
 */
static bool
is_quoted(Cutter *cutter, char c)
{
	if (cutter->format == FORMAT_CSV)
	{
		if (cutter->in_quote && cutter->escape && c == cutter->escape)
			cutter->escaped = !cutter->escaped;
		if (c == cutter->quote && !cutter->escaped)
			cutter->in_quote = !cutter->in_quote;
		if (!cutter->escape || c != cutter->escape)
			cutter->escaped = false;
		return cutter->in_quote;
	}
	if (cutter->escaped)
	{
		cutter->escaped = false;
		return true;
	}
	cutter->escaped = (c == '\\');
	return cutter->escaped;
}

/*
 * Any text or CSV, character by character.  The first end of a line tells what
 * ends the others.
 */
static CutResult
cut_slowly(Cutter *cutter, const char *data, size_t size, bool at_end)
{
	while (cutter->pos < size)
	{
		char		c = data[cutter->pos];

		if (cutter->encoding >= 0 && IS_HIGHBIT_SET(c))
		{
			size_t		length = character_size(cutter, data, size, at_end);

			if (length == 0)
				return CUT_MORE;
			cutter->pos += length;
			cutter->escaped = false;
			continue;
		}
		/* Before anything changes: what follows a CR must be known. */
		if (c == '\r' && cutter->eol == '\0' && cutter->pos + 1 == size && !at_end)
			return CUT_MORE;
		cutter->pos++;
		if (is_quoted(cutter, c))
		{
			if (c == (cutter->eol ? cutter->eol : '\n'))
				cutter->lines++;
			continue;
		}
		if (c != '\n' && c != '\r')
			continue;
		if (cutter->eol == '\0')
			cutter->eol = (c == '\n' || (cutter->pos < size && data[cutter->pos] == '\n')) ? '\n' : '\r';
		if (c == cutter->eol)
		{
			cutter->lines++;
			return end_of_line(cutter, data);
		}
	}
	return CUT_MORE;
}

/*
 * A tuple of binary data, from its beginning.
 */
static CutResult
cut_binary(Cutter *cutter, const char *data, size_t size)
{
	size_t		pos = cutter->record + sizeof(uint16);
	uint16		n16;
	int			nfields;

	if (pos > size)
		return CUT_MORE;
	memcpy(&n16, data + cutter->record, sizeof(n16));
	nfields = (int16) pg_ntoh16(n16);
	if (nfields < -1)
		return CUT_BROKEN;
	for (int i = 0; i < nfields; i++)
	{
		uint32		n32;
		int32		length;

		if (size - pos < sizeof(n32))
			return CUT_MORE;
		memcpy(&n32, data + pos, sizeof(n32));
		length = (int32) pg_ntoh32(n32);
		if (length < -1)
			return CUT_BROKEN;
		pos += sizeof(n32);
		if (length > 0)
		{
			if (size - pos < (size_t) length)
				return CUT_MORE;
			pos += length;
		}
	}
	cutter->pos = pos;
	cutter->lines++;
	return nfields == -1 ? CUT_END : CUT_RECORD;
}

/*
 * Find the end of the record that begins at cutter->record; it will be at
 * cutter->pos.  The caller moves cutter->record there before the next call.
 * After CUT_MORE, "data" must have the same bytes and more of them.  With
 * "at_end", the data end here; a last line need not have an end.
 */
CutResult
cut_record(Cutter *cutter, const char *data, size_t size, bool at_end)
{
	CutResult	result;

	if (cutter->format == FORMAT_BINARY)
		return cut_binary(cutter, data, size);

	if (cutter->pos == cutter->record)
		cutter->in_quote = cutter->escaped = false;
	if (cutter->eol == '\0' || cutter->encoding >= 0 || cutter->escape)
		result = cut_slowly(cutter, data, size, at_end);
	else if (cutter->format == FORMAT_CSV)
		result = cut_csv(cutter, data, size);
	else
		result = cut_text(cutter, data, size);
	if (result == CUT_MORE && at_end)
		result = end_of_data(cutter, data, size);
	return result;
}

/*
 * Find all records of a chunk, with a cutter that has been through cut_init()
 * only.  To be freed with cut_free_index().
 */
RecordIndex *
cut_index(const Cutter *cutter, const Chunk *chunk)
{
	RecordIndex *index = pg_malloc(sizeof(RecordIndex));
	Cutter		cut = *cutter;

	cut.record = cut.pos = 0;
	cut.lines = 0;
	cut.eol = chunk->eol;
	index->count = 0;
	index->offsets = pg_malloc((chunk->records + 1) * sizeof(size_t));
	index->lines = pg_malloc((chunk->records + 1) * sizeof(int64));
	index->copy_lines = pg_malloc((chunk->records + 1) * sizeof(int64));
	while (index->count < chunk->records)
	{
		index->offsets[index->count] = cut.record;
		index->copy_lines[index->count] = cut.lines;
		index->lines[index->count] = chunk->line + (chunk->record_lines ? chunk->record_lines[index->count] : cut.lines);
		index->count++;
		(void) cut_record(&cut, chunk->data, chunk->size, true);
		cut.record = cut.pos;
	}
	index->offsets[index->count] = chunk->size;
	index->lines[index->count] = chunk->line + chunk->lines;
	index->copy_lines[index->count] = cut.lines;
	return index;
}

void
cut_free_index(RecordIndex *index)
{
	pg_free(index->offsets);
	pg_free(index->lines);
	pg_free(index->copy_lines);
	pg_free(index);
}

/*
 * Which record the server means by a line of its COPY, of those from "from"
 * on.  In CSV it counts lines, also within quotes, else records.
 */
int64
cut_find_line(const Cutter *cutter, const RecordIndex *index, int64 from, int64 copy_line)
{
	int64		record = from + copy_line - 1;

	if (cutter->format == FORMAT_CSV)
	{
		int64		line = index->copy_lines[from] + copy_line - 1;

		record = from;
		while (record + 1 < index->count && index->copy_lines[record + 1] <= line)
			record++;
	}
	return record < index->count ? record : -1;
}
