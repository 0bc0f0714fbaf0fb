/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  What is committed, and telling the user about it.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <unistd.h>

#define BAR_WIDTH 20
#define BAR_SECONDS 0.2

/* Is there a bar on the line where messages go? */
static bool bar_shown = false;

static void
clear_bar(void)
{
	if (bar_shown)
		fputs("\r\033[K", stderr);
	bar_shown = false;
}

/*
 * The clock starts now.
 */
void
progress_begin(Progress *progress, const LoadOptions *options)
{
	memset(progress, 0, sizeof(*progress));
	progress->options = options;
	(void) clock_gettime(CLOCK_MONOTONIC, &progress->begun);
	progress->bar = !options->quiet && options->progress == 0 && isatty(STDERR_FILENO);
	progress->every = progress->bar ? BAR_SECONDS : options->progress;
	pg_logging_set_pre_callback(clear_bar);
}

double
progress_seconds(const Progress *progress)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - progress->begun.tv_sec) + (now.tv_nsec - progress->begun.tv_nsec) / 1e9;
}

/* May b be added to the end of a? */
static bool
join_ranges(Range *a, const Range *b)
{
	if (a->last_region + 1 != b->first_region || a->missing > 0 || b->missing > 0)
		return false;
	a->last_region = b->last_region;
	a->last_file = b->last_file;
	a->last_line = b->last_line;
	return true;
}

static void
insert_range(Progress *progress, int at, const Range *range)
{
	if (progress->nranges == progress->allocated)
	{
		progress->allocated = progress->allocated * 2 + 16;
		progress->ranges = pg_realloc(progress->ranges, progress->allocated * sizeof(Range));
	}
	memmove(&progress->ranges[at + 1], &progress->ranges[at], (progress->nranges - at) * sizeof(Range));
	progress->ranges[at] = *range;
	progress->nranges++;
}

/*
 * A chunk is committed, now or earlier.
 */
void
progress_committed(Progress *progress, const Chunk *chunk)
{
	Range		range = {
		.first_region = chunk->region,
		.last_region = chunk->region,
		.missing = chunk->parts - 1,
		.first_file = chunk->file,
		.last_file = chunk->file,
		.first_line = chunk->line,
		.last_line = chunk->line + chunk->lines - 1,
	};
	int			at = progress->nranges;

	progress->bytes += chunk->size;
	while (at > 0 && progress->ranges[at - 1].first_region > range.first_region)
		at--;
	if (at > 0 && progress->ranges[at - 1].last_region >= range.first_region)
		progress->ranges[--at].missing--;
	else
		insert_range(progress, at, &range);
	/* With the one after it, then with the one before it. */
	for (int i = at; i >= at - 1; i--)
	{
		if (i < 0 || i + 1 >= progress->nranges || !join_ranges(&progress->ranges[i], &progress->ranges[i + 1]))
			continue;
		progress->nranges--;
		memmove(&progress->ranges[i + 1], &progress->ranges[i + 2], (progress->nranges - i - 1) * sizeof(Range));
	}
}

/*
 * A number of bytes for people, in a static buffer.
 */
static const char *
show_bytes(double bytes)
{
	static char buffer[32];
	static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
	int			unit = 0;

	for (; bytes >= 10000 && unit < (int) lengthof(units) - 1; unit++)
		bytes /= 1000;
	snprintf(buffer, sizeof(buffer), "%.0f %s", bytes, units[unit]);
	return buffer;
}

/* How much is done, from 0 to 1, or -1. */
static double
done_fraction(const Progress *progress, const Reader *reader)
{
	double		read;

	if (reader->total > 0)
		return Min((double) progress->bytes / reader->total, 1.0);
	/* How much that is cannot be told of what has been read, but not loaded. */
	read = reader_fraction(reader);
	return read <= 0 || reader->offset == 0 ? read : read * progress->bytes / reader->offset;
}

/*
 * Show how far it is, if it is time to: as a bar, or as a line.
 */
void
progress_show(Progress *progress, const Reader *reader, int connections)
{
	double		now = progress_seconds(progress);
	double		fraction;

	if (progress->every == 0 || now - progress->last < progress->every)
		return;
	progress->last = now;
	fraction = done_fraction(progress, reader);
	if (progress->bar)
	{
		clear_bar();
		bar_shown = true;
		if (fraction >= 0)
		{
			fprintf(stderr, "[");
			for (int i = 0; i < BAR_WIDTH; i++)
				putc(i < fraction * BAR_WIDTH ? '#' : ' ', stderr);
			fprintf(stderr, "] ");
		}
	}
	else
		fprintf(stderr, "progress: %.1f s, ", now);
	if (fraction >= 0)
		fprintf(stderr, "%.1f%%, ", fraction * 100);
	fprintf(stderr, INT64_FORMAT " rows, %s, %.0f rows/s", progress->rows, show_bytes(progress->bytes),
			progress->rows / now);
	if (fraction > 0 && progress->loaded_bytes > 0)
	{
		/* What earlier runs have done went by fast. */
		double		own = fraction * progress->loaded_bytes / progress->bytes;
		int			left = (int) Min(now * (1 - fraction) / own, 359999);

		fprintf(stderr, ", %d:%02d:%02d left", left / 3600, left / 60 % 60, left % 60);
	}
	if (progress->rejected > 0)
		fprintf(stderr, ", " INT64_FORMAT " rejected", progress->rejected);
	fprintf(stderr, ", %d connection%s%s", connections, connections == 1 ? "" : "s", progress->bar ? "" : "\n");
	fflush(stderr);
}

static void
append_range(PQExpBuffer text, const Range *range)
{
	if (range->missing > 0)
		appendPQExpBufferStr(text, "some of ");
	if (strcmp(range->first_file, range->last_file) == 0)
		appendPQExpBuffer(text, "lines " INT64_FORMAT " to " INT64_FORMAT " of \"%s\"",
						  range->first_line, range->last_line, range->first_file);
	else
		appendPQExpBuffer(text, "line " INT64_FORMAT " of \"%s\" to line " INT64_FORMAT " of \"%s\"",
						  range->first_line, range->first_file, range->last_line, range->last_file);
}

/*
 * The load was stopped.  Tell what is committed and how to go on.
 */
void
progress_tell_committed(const Progress *progress, const Job *job)
{
	PQExpBufferData text;
	bool		some = false;

	clear_bar();
	if (job)
	{
		pg_log_info(INT64_FORMAT " rows are loaded, " INT64_FORMAT " of them by this run",
					progress->rows + progress->earlier, progress->rows);
		pg_log_info_hint("To go on, run the same command again.");
		return;
	}
	if (progress->nranges == 0)
	{
		pg_log_info("no rows are loaded");
		return;
	}
	initPQExpBuffer(&text);
	for (int i = 0; i < progress->nranges; i++)
	{
		if (i > 0)
			appendPQExpBufferStr(&text, i + 1 < progress->nranges ? ", " : " and ");
		append_range(&text, &progress->ranges[i]);
		some |= progress->ranges[i].missing > 0;
	}
	pg_log_info(INT64_FORMAT " rows are loaded: %s", progress->rows, text.data);
	if (some)
		pg_log_info_hint("To go on, load an input without the lines of which all are loaded. If the table has a primary key, --on-conflict=skip passes over the others that are loaded. With --job, the same command could go on by itself.");
	else
		pg_log_info_hint("To go on, load an input without these lines. With --job, the same command could go on by itself.");
	termPQExpBuffer(&text);
}

static void
print_json_string(const char *name, const char *value)
{
	printf(", \"%s\": ", name);
	if (value == NULL)
	{
		printf("null");
		return;
	}
	putchar('"');
	for (; *value; value++)
	{
		if (*value == '"' || *value == '\\')
			printf("\\%c", *value);
		else if ((unsigned char) *value < 0x20)
			printf("\\u%04x", *value);
		else
			putchar(*value);
	}
	putchar('"');
}

static void
print_json(const Progress *progress, int connections, const char *status, const char *error)
{
	double		seconds = progress_seconds(progress);

	printf("{\"status\": \"%s\", \"rows\": " INT64_FORMAT ", \"rejected\": " INT64_FORMAT ", \"skipped\": " INT64_FORMAT,
		   status, progress->rows, progress->rejected, progress->skipped);
	printf(", \"loaded_earlier\": " INT64_FORMAT ", \"bytes\": " INT64_FORMAT ", \"chunks\": " INT64_FORMAT,
		   progress->earlier, progress->loaded_bytes, progress->chunks);
	printf(", \"seconds\": %.3f, \"rows_per_second\": %.0f, \"connections\": %d",
		   seconds, progress->rows / seconds, connections);
	print_json_string("error", error);
	printf("}\n");
}

/*
 * The summary, on standard output.
 */
void
progress_summary(const Progress *progress, int connections, const char *status, const char *error)
{
	const LoadOptions *options = progress->options;
	double		seconds = progress_seconds(progress);

	clear_bar();
	if (options->json)
	{
		print_json(progress, connections, status, error);
		return;
	}
	if (options->quiet)
		return;
	printf(INT64_FORMAT " rows loaded in %.3f s (%.0f rows/s, %s, %d connection%s)\n", progress->rows, seconds,
		   progress->rows / seconds, show_bytes(progress->loaded_bytes), connections, connections == 1 ? "" : "s");
	if (progress->earlier > 0)
		printf(INT64_FORMAT " rows had been loaded before\n", progress->earlier);
	if (progress->skipped > 0)
		printf(INT64_FORMAT " rows skipped, which were there already\n", progress->skipped);
	if (progress->rejected > 0)
		printf(INT64_FORMAT " rows rejected, see \"%s\" and \"%s.errors\"\n", progress->rejected,
			   options->rejects, options->rejects);
}
