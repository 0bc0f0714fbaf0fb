/*-------------------------------------------------------------------------
 *
 * index_run.c
 *	  Index entries of many rows, inserted in the order of the index.
 *
 * Rows with random keys touch another leaf page for each entry, and looking for
 * that page is what a large load spends most of its time on.  So the entries of
 * rows that batch.c writes wait here, for each index of each shard.  When memory
 * is used up, or before somebody may look, they are sorted and inserted: a run.
 *
 * When the rows are in the table but not yet in the index, nobody else sees
 * them, because the transaction has not committed; and nobody else removes them.
 * The command itself must not see them either: batch.c calls us only where it
 * lets rows wait for the same reason, and has all entries inserted when it must
 * have written all rows.
 *
 * Only entries of ordinary B-trees wait.  A unique one must be checked at once,
 * which it is when its entry is inserted: by core, as always.  Deferrable and
 * exclusion constraints and other access methods are left to core, row by row.
 * So is an index whose keys come in ascending order by and large, or are few,
 * which we notice by comparing some, and all indexes of a short statement.
 *
 * A waiting entry is an index tuple, preceded by its line of the COPY if an error
 * might have to name it.  Entries are next to each other in chunks of memory.
 * Only for sorting is there an array of pointers, for one run at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/genam.h"
#include "access/itup.h"
#include "catalog/index.h"
#include "catalog/pg_am_d.h"
#include "commands/copyfrom_internal.h"
#include "commands/explain.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/sortsupport.h"

/* No entries wait before the statement has written so many rows. */
#define MIN_ROWS			2000

/*
 * So many comparisons decide whether an index has to be sorted for; the last
 * MAX_SAMPLES count.  Of rows that are written together, every SAMPLE_STEP-th of
 * the first half is compared with one of the second half, at first.
 */
#define MIN_SAMPLES			16
#define MAX_SAMPLES			256
#define SAMPLE_STEP			4
/* In a run, entries are compared with those that are so far behind them. */
#define SAMPLE_DISTANCE		1024

/* Larger entries do not wait; the largest could not be inserted. */
#define MAX_ENTRY_BYTES		1024

#define MIN_CHUNK_BYTES		(2 * 1024)
#define MAX_CHUNK_BYTES		(64 * 1024)

/* Entries between two resets of the memory that inserting them uses. */
#define ENTRIES_PER_RESET	1024

/* So many entries ahead, the processor is told to fetch the tuple. */
#define PREFETCH_DISTANCE	8
#if defined(__GNUC__)
#define prefetch(address)	__builtin_prefetch(address)
#else
#define prefetch(address)	((void) 0)
#endif

/* Memory with entries one after another. */
typedef struct Chunk
{
	struct Chunk *next;
	Size		size;			/* of what follows this header */
	Size		used;
} Chunk;

#define CHUNK_DATA(chunk)	((char *) (chunk) + MAXALIGN(sizeof(Chunk)))

/* One index of a shard, and its entries that wait. */
typedef struct ShardIndexRun
{
	ResultRelInfo *rri;			/* of the shard */
	Relation	index;
	IndexInfo  *info;
	bool		can_wait;		/* the index is of a kind that can */
	bool		waits;			/* its new entries do */
	bool		has_lines;		/* entries are preceded by a line number */
	bool		is_listed;		/* among the runs of the statement */
	int			nsamples;		/* entries that have been compared */
	int			nascents;		/* ... and were in order */
	int			nequals;		/* ... and had equal keys */
	SortSupport keys;			/* for comparing these */
	Chunk	   *first;
	Chunk	   *last;
	Size		bytes;			/* of all chunks */
	uint64		nentries;
} ShardIndexRun;

/* All indexes of a shard. */
struct ShardTargetRuns
{
	int			nindexes;
	ShardIndexRun runs[FLEXIBLE_ARRAY_MEMBER];
};

/* All that waits in a statement, and what has become of it so far. */
struct ShardRuns
{
	ShardInsert *insert;
	MemoryContext context;		/* holds the chunks */
	Size		limit;
	Size		max_chunk;
	Size		bytes;			/* of all chunks */
	uint64		nrows;			/* that the statement has written */
	bool		is_stopped;
	List	   *runs;			/* those that have ever had entries wait */
	uint64		lineno;			/* of the entry being inserted, or 0 */

	/* For EXPLAIN. */
	uint64		ninserted;
	uint64		nruns;
	Size		peak;
};

/* Setting shard_fdw.load_work_mem, in kB. */
static int	load_work_mem = 65536;

/*
 * shard_runs_init
 *		Define the setting shard_fdw.load_work_mem.  To be called once, when
 *		the library is loaded.
 */
void
shard_runs_init(void)
{
	DefineCustomIntVariable("shard_fdw.load_work_mem",
							"Sets the maximum memory for index entries that an insert of many rows sorts.",
							"0 inserts index entries row by row.",
							&load_work_mem,
							65536, 0, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
}

/*
 * shard_runs_create
 *		Begin to have index entries of the statement wait.
 *
 * Returns NULL if the user does not want that.  The result belongs to the
 * statement.
 */
ShardRuns *
shard_runs_create(ShardInsert *insert)
{
	MemoryContext query_context = insert->estate->es_query_cxt;
	ShardRuns  *runs;

	if (load_work_mem == 0)
		return NULL;
	runs = MemoryContextAllocZero(query_context, sizeof(ShardRuns));
	runs->insert = insert;
	runs->limit = (Size) load_work_mem * 1024;
	runs->max_chunk = Max(MIN_CHUNK_BYTES,
						  Min(MAX_CHUNK_BYTES, runs->limit / 16));
	return runs;
}

/*
 * May entries of the index wait?  Core has to know at once what it finds out
 * about the others.
 */
static bool
can_wait(Relation index, IndexInfo *info)
{
	return index->rd_rel->relam == BTREE_AM_OID &&
		info->ii_ReadyForInserts &&
		info->ii_ExclusionOps == NULL &&
		(!index->rd_index->indisunique || index->rd_index->indimmediate);
}

/*
 * The indexes of a shard.
 */
static ShardTargetRuns *
make_target_runs(ShardRuns *runs, ResultRelInfo *rri, bool has_lines)
{
	ShardTargetRuns *target;

	target = MemoryContextAllocZero(runs->insert->estate->es_query_cxt,
									offsetof(ShardTargetRuns, runs) +
									sizeof(ShardIndexRun) * rri->ri_NumIndices);
	target->nindexes = rri->ri_NumIndices;
	for (int i = 0; i < target->nindexes; i++)
	{
		ShardIndexRun *run = &target->runs[i];

		run->rri = rri;
		run->index = rri->ri_IndexRelationDescs[i];
		run->info = rri->ri_IndexRelationInfo[i];
		run->can_wait = run->index != NULL && can_wait(run->index, run->info);
		run->has_lines = has_lines && run->can_wait &&
			run->index->rd_index->indisunique;
	}
	return target;
}

/*
 * The index's values for a row; false if it has no entry for it.
 */
static bool
index_values(ShardIndexRun *run, EState *estate, TupleTableSlot *row,
			 Datum *values, bool *isnull)
{
	IndexInfo  *info = run->info;
	ExprContext *econtext = GetPerTupleExprContext(estate);

	econtext->ecxt_scantuple = row;
	if (info->ii_Predicate != NIL)
	{
		if (info->ii_PredicateState == NULL)
			info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate,
													  estate);
		if (!ExecQual(info->ii_PredicateState, econtext))
			return false;
	}
	FormIndexDatum(info, row, estate, values, isnull);
	return true;
}

/*
 * Note the result of comparing an entry with a later one.
 */
static void
note_order(ShardIndexRun *run, int order)
{
	run->nsamples++;
	run->nascents += order <= 0;
	run->nequals += order == 0;
}

/*
 * Decide by the comparisons whether the next entries wait.
 *
 * They need not if the pages of the index that they go to are at hand anyway:
 * because keys ascend by and large, or because there are only few of them.
 */
static void
decide(ShardIndexRun *run)
{
	if (run->nsamples < MIN_SAMPLES)
		return;
	run->waits = run->nascents < run->nsamples * 3 / 4 &&
		run->nequals < run->nsamples / 16;
	if (run->nsamples >= MAX_SAMPLES)
	{
		run->nsamples /= 2;
		run->nascents /= 2;
		run->nequals /= 2;
	}
}

/*
 * Compare some rows that core has given their entries with others, and decide
 * whether the next ones should wait.
 */
static void
watch_order(ShardRuns *runs, ShardIndexRun *run, TupleTableSlot **rows, int n)
{
	EState	   *estate = runs->insert->estate;
	int			ncolumns = IndexRelationGetNumberOfKeyAttributes(run->index);
	int			distance = n / 2;
	int			step = run->nsamples < 4 * MIN_SAMPLES ? SAMPLE_STEP :
		4 * SAMPLE_STEP;

	if (run->keys == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

		run->keys = shard_index_order(run->index, false);
		MemoryContextSwitchTo(oldcontext);
	}
	for (int i = 0; i < distance; i += step)
	{
		Datum		before[INDEX_MAX_KEYS];
		Datum		after[INDEX_MAX_KEYS];
		bool		before_null[INDEX_MAX_KEYS];
		bool		after_null[INDEX_MAX_KEYS];
		int			order = 0;

		if (!index_values(run, estate, rows[i], before, before_null) ||
			!index_values(run, estate, rows[i + distance], after, after_null))
			continue;
		for (int j = 0; j < ncolumns && order == 0; j++)
			order = ApplySortComparator(before[j], before_null[j],
										after[j], after_null[j],
										&run->keys[j]);
		note_order(run, order);
	}
	decide(run);
}

/*
 * shard_runs_hold
 *		Hide the indexes whose entries wait from core, which is going to insert
 *		entries of rows of the shard.
 *
 * "target" may be NULL, as it is at first.  The indexes stay hidden until
 * shard_runs_add() is called, which has to happen unless there is an error.
 * Returns whether core has anything left to do.
 */
bool
shard_runs_hold(ShardRuns *runs, ShardTargetRuns *target, ResultRelInfo *rri)
{
	int			nleft = rri->ri_NumIndices;

	if (target == NULL || runs->is_stopped)
		return nleft > 0;
	for (int i = 0; i < target->nindexes; i++)
	{
		if (!target->runs[i].waits)
			continue;
		rri->ri_IndexRelationDescs[i] = NULL;
		nleft--;
	}
	return nleft > 0;
}

/*
 * Error context of a COPY while entries are inserted.  Names the line if it is
 * known.
 */
static void
name_line(void *arg)
{
	ShardRuns  *runs = arg;
	const char *name = RelationGetRelationName(runs->insert->root->ri_RelationDesc);

	if (runs->lineno != 0)
		errcontext("COPY %s, line %llu", name,
				   (unsigned long long) runs->lineno);
	else
		errcontext("COPY %s", name);
}

/*
 * Compare some entries of a run, in the order in which they have come, and
 * decide whether the next ones should wait.
 */
static void
watch_entries(ShardIndexRun *run, ShardSort *sort)
{
	uint64		distance = Min(run->nentries / 2, SAMPLE_DISTANCE);
	uint64		step = Max(run->nentries / (MAX_SAMPLES / 2), 1);

	run->nsamples = run->nascents = run->nequals = 0;
	for (uint64 i = 0; i + distance < run->nentries; i += step)
		note_order(run, shard_sort_compare(sort, i, i + distance));
	decide(run);
}

/*
 * Insert one entry into its index, as ExecInsertIndexTuples() does.
 */
static void
insert_entry(ShardIndexRun *run, Datum *values, bool *isnull, ItemPointer tid)
{
	index_insert(run->index, values, isnull, tid, run->rri->ri_RelationDesc,
				 run->index->rd_index->indisunique ? UNIQUE_CHECK_YES :
				 UNIQUE_CHECK_NO, false, run->info);
}

/*
 * Insert sorted entries.
 */
static void
insert_entries(ShardRuns *runs, ShardIndexRun *run, ShardSort *sort)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "shard_fdw index entries",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(work);

	for (uint64 i = 0; i < run->nentries; i++)
	{
		IndexTuple	tuple = shard_sort_get(sort, i);
		Datum		values[INDEX_MAX_KEYS];
		bool		isnull[INDEX_MAX_KEYS];

		CHECK_FOR_INTERRUPTS();
		if (i + PREFETCH_DISTANCE < run->nentries)
			prefetch(shard_sort_get(sort, i + PREFETCH_DISTANCE));
		if (run->has_lines)
			runs->lineno = *((uint64 *) tuple - 1);
		index_deform_tuple(tuple, RelationGetDescr(run->index), values, isnull);
		insert_entry(run, values, isnull, &tuple->t_tid);
		if (i % ENTRIES_PER_RESET == ENTRIES_PER_RESET - 1)
			MemoryContextReset(work);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(work);
	runs->lineno = 0;
}

/* The memory that sorting a run will take in addition. */
static inline Size
sort_bytes(ShardIndexRun *run)
{
	return run->nentries * SHARD_SORT_BYTES;
}

/*
 * Sort the entries of an index that wait, and insert them.
 */
static void
flush_run(ShardRuns *runs, ShardIndexRun *run)
{
	MemoryContext context;
	MemoryContext oldcontext;
	ShardSort  *sort;
	uint64		n = run->nentries;
	Chunk	   *next;

	if (n == 0)
		return;
	runs->peak = Max(runs->peak, runs->bytes + sort_bytes(run));
	context = AllocSetContextCreate(runs->insert->estate->es_query_cxt,
									"shard_fdw sort", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);

	sort = shard_sort_begin(run->index, n);
	for (Chunk *chunk = run->first; chunk != NULL; chunk = chunk->next)
	{
		char	   *end = CHUNK_DATA(chunk) + chunk->used;

		for (char *at = CHUNK_DATA(chunk); at < end;)
		{
			if (run->has_lines)
				at += sizeof(uint64);
			shard_sort_add(sort, (IndexTuple) at);
			at += IndexTupleSize((IndexTuple) at);
		}
	}
	watch_entries(run, sort);
	shard_sort_perform(sort);
	insert_entries(runs, run, sort);

	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	for (Chunk *chunk = run->first; chunk != NULL; chunk = next)
	{
		next = chunk->next;
		pfree(chunk);
	}
	runs->bytes -= run->bytes;
	runs->ninserted += n;
	runs->nruns++;
	run->first = run->last = NULL;
	run->bytes = 0;
	run->nentries = 0;
}

/*
 * Call flush_run() with the error context that a COPY should have.
 */
static void
flush_in_context(ShardRuns *runs, ShardIndexRun *run)
{
	ErrorContextCallback *outer = error_context_stack;
	ErrorContextCallback callback;

	if (!runs->insert->is_copy)
	{
		flush_run(runs, run);
		return;
	}

	/* It takes the place of the COPY's own, if that is there. */
	callback.callback = name_line;
	callback.arg = runs;
	callback.previous = outer != NULL &&
		outer->callback == CopyFromErrorCallback ? outer->previous : outer;
	error_context_stack = &callback;
	flush_run(runs, run);
	error_context_stack = outer;
}

/*
 * Insert what waits for the largest run, until there is room for "size" bytes
 * more.
 */
static void
make_room(ShardRuns *runs, Size size)
{
	for (;;)
	{
		ShardIndexRun *largest = NULL;
		Size		to_sort = 0;
		ListCell   *lc;

		foreach(lc, runs->runs)
		{
			ShardIndexRun *run = lfirst(lc);

			if (run->nentries > 0 &&
				(largest == NULL || run->bytes + sort_bytes(run) >
				 largest->bytes + sort_bytes(largest)))
				largest = run;
			to_sort = Max(to_sort, sort_bytes(run));
		}
		/* The array grows as the new chunk is filled. */
		if (largest == NULL ||
			runs->bytes + size + to_sort + runs->max_chunk <= runs->limit)
			return;
		flush_in_context(runs, largest);
	}
}

/*
 * Begin another chunk for the entries of a run, with room for "size" bytes.
 */
static void
add_chunk(ShardRuns *runs, ShardIndexRun *run, Size size)
{
	Size		chunk_size = run->last == NULL ? MIN_CHUNK_BYTES :
		Min(2 * (run->last->size + MAXALIGN(sizeof(Chunk))), runs->max_chunk);
	Chunk	   *chunk;

	make_room(runs, chunk_size);
	if (runs->context == NULL)
		runs->context = AllocSetContextCreate(runs->insert->estate->es_query_cxt,
											  "shard_fdw index runs",
											  ALLOCSET_DEFAULT_SIZES);
	if (!run->is_listed)
	{
		MemoryContext oldcontext;

		oldcontext = MemoryContextSwitchTo(runs->insert->estate->es_query_cxt);
		runs->runs = lappend(runs->runs, run);
		MemoryContextSwitchTo(oldcontext);
		run->is_listed = true;
	}
	chunk = MemoryContextAlloc(runs->context, chunk_size);
	chunk->next = NULL;
	chunk->size = chunk_size - MAXALIGN(sizeof(Chunk));
	chunk->used = 0;
	Assert(size <= chunk->size);
	/* The run may just have been inserted. */
	if (run->last == NULL)
		run->first = chunk;
	else
		run->last->next = chunk;
	run->last = chunk;
	run->bytes += chunk_size;
	runs->bytes += chunk_size;
}

/*
 * Let an entry wait.
 */
static void
add_entry(ShardRuns *runs, ShardIndexRun *run, IndexTuple tuple, uint64 lineno)
{
	Size		size = IndexTupleSize(tuple);
	Size		room = size + (run->has_lines ? sizeof(uint64) : 0);
	char	   *at;

	if (run->last == NULL || run->last->size - run->last->used < room)
		add_chunk(runs, run, room);
	at = CHUNK_DATA(run->last) + run->last->used;
	if (run->has_lines)
	{
		*(uint64 *) at = lineno;
		at += sizeof(uint64);
	}
	memcpy(at, tuple, size);
	run->last->used += room;
	run->nentries++;
}

/*
 * Let the entries of rows for one index wait.  See shard_runs_add().
 */
static void
add_entries(ShardRuns *runs, ShardIndexRun *run, TupleTableSlot **rows, int n,
			const uint64 *linenos, uint64 *current_lineno)
{
	for (int i = 0; i < n; i++)
	{
		Datum		values[INDEX_MAX_KEYS];
		bool		isnull[INDEX_MAX_KEYS];
		IndexTuple	tuple;

		if (linenos != NULL)
			*current_lineno = linenos[i];
		if (!index_values(run, runs->insert->estate, rows[i], values, isnull))
			continue;
		tuple = index_form_tuple(RelationGetDescr(run->index), values, isnull);
		tuple->t_tid = rows[i]->tts_tid;
		if (IndexTupleSize(tuple) <= MAX_ENTRY_BYTES)
			add_entry(runs, run, tuple, linenos != NULL ? linenos[i] : 0);
		else
			insert_entry(run, values, isnull, &rows[i]->tts_tid);
	}
}

/*
 * shard_runs_add
 *		Let the entries of rows wait which core has not inserted because of
 *		shard_runs_hold(), and decide about the entries of the next rows.
 *
 * The rows are in the table.  "linenos" has their lines if a COPY knows these;
 * the line that it names in errors is set to the row's.  *target becomes the
 * state for the shard, which belongs to the statement.  Raises what inserting
 * into indexes raises, also for rows that have been added before.  Leaks into
 * the current memory context.
 */
void
shard_runs_add(ShardRuns *runs, ShardTargetRuns **target, ResultRelInfo *rri,
			   TupleTableSlot **rows, int n, const uint64 *linenos,
			   uint64 *current_lineno)
{
	runs->nrows += n;
	if (*target == NULL)
	{
		if (runs->is_stopped || runs->nrows < MIN_ROWS)
			return;
		*target = make_target_runs(runs, rri, linenos != NULL);
	}
	for (int i = 0; i < (*target)->nindexes; i++)
	{
		ShardIndexRun *run = &(*target)->runs[i];

		if (rri->ri_IndexRelationDescs[i] == NULL && run->index != NULL)
		{
			rri->ri_IndexRelationDescs[i] = run->index;
			add_entries(runs, run, rows, n, linenos, current_lineno);
		}
		else if (run->index != NULL && run->can_wait && !runs->is_stopped)
			watch_order(runs, run, rows, n);
	}
}

/*
 * shard_runs_flush
 *		Insert all entries that wait, because somebody may look.
 *
 * Raises what inserting into indexes raises.
 */
void
shard_runs_flush(ShardRuns *runs)
{
	ListCell   *lc;

	if (runs == NULL || runs->bytes == 0)
		return;
	foreach(lc, runs->runs)
		flush_in_context(runs, lfirst(lc));
	Assert(runs->bytes == 0);
}

/*
 * shard_runs_stop
 *		Insert all entries that wait, and let no more of them wait in this
 *		statement.
 */
void
shard_runs_stop(ShardRuns *runs)
{
	shard_runs_flush(runs);
	if (runs != NULL)
		runs->is_stopped = true;
}

/*
 * shard_runs_end
 *		Make sure that the statement has not left anything.
 */
void
shard_runs_end(ShardRuns *runs)
{
	if (runs != NULL && runs->bytes != 0)
		elog(ERROR, "index entries of foreign table \"%s\" have not been inserted",
			 RelationGetRelationName(runs->insert->root->ri_RelationDesc));
}

/*
 * shard_runs_explain
 *		Show what has been sorted, if anything.
 */
void
shard_runs_explain(ShardRuns *runs, ExplainState *es)
{
	if (runs == NULL || runs->ninserted == 0)
		return;
	if (es->format == EXPLAIN_FORMAT_TEXT)
		ExplainPropertyText("Sorted Index Entries",
							psprintf(UINT64_FORMAT "  Runs: " UINT64_FORMAT "  Memory: %zukB",
									 runs->ninserted, runs->nruns,
									 (runs->peak + 1023) / 1024),
							es);
	else
	{
		ExplainPropertyUInteger("Sorted Index Entries", NULL, runs->ninserted,
								es);
		ExplainPropertyUInteger("Index Runs", NULL, runs->nruns, es);
		ExplainPropertyUInteger("Index Run Memory", "kB",
								(runs->peak + 1023) / 1024, es);
	}
}
