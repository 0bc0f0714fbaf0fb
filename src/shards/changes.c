/*-------------------------------------------------------------------------
 *
 * changes.c
 *	  Which rows of a table have come and gone between two snapshots.
 *
 * No trigger and no log is needed for that.  The earlier snapshot, as long as
 * it is registered, keeps all row versions that it shows where they are.  So we
 * look at each row version once more: what one snapshot shows and the other one
 * does not has come or gone.
 *
 * That is fast, because it skips pages that have not changed since.  A page
 * whose rows were all visible to everybody has nothing new unless somebody
 * writes to it, and then the page has the position of that in the WAL.
 *
 * All this knows heap tables from inside.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/heapam.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* How often to report the progress. */
#define PAGES_PER_REPORT	64

/* What is known of a page. */
#define PAGE_SETTLED	0x01	/* nothing that was under way is on it */
#define PAGE_HAS_NEW	0x02	/* it has rows that have come */

struct ShardChanges
{
	MemoryContext context;		/* has all this */
	Relation	rel;
	BlockNumber nblocks;		/* as of the last snapshot */
	uint8	   *pages;			/* by block number */
};

/*
 * shard_moment
 *		The state of the database as it is now.  To be given to
 *		shard_moment_end().
 */
ShardMoment
shard_moment(void)
{
	ShardMoment result;

	/* Before the snapshot: what has been written since may be new to it. */
	result.position = GetXLogInsertRecPtr();
	result.snapshot = RegisterSnapshot(GetLatestSnapshot());
	return result;
}

/*
 * shard_moment_end
 *		No longer keep the rows of that state.
 */
void
shard_moment_end(ShardMoment *moment)
{
	if (moment->snapshot != NULL)
		UnregisterSnapshot(moment->snapshot);
	moment->snapshot = NULL;
}

/*
 * shard_changes_begin
 *		Prepare to compare states of a heap table, which is locked in a way that
 *		keeps its definition and its rows' places what they are.
 *
 * The result lives in the current memory context.
 */
ShardChanges *
shard_changes_begin(Relation rel)
{
	ShardChanges *result = palloc0(sizeof(ShardChanges));

	result->context = CurrentMemoryContext;
	result->rel = rel;
	return result;
}

/*
 * shard_changes_resume
 *		Go on with a table that has been closed and opened again since, and was
 *		locked all the time.
 */
void
shard_changes_resume(ShardChanges *changes, Relation rel)
{
	changes->rel = rel;
}

/*
 * Make room for pages that the table has got.
 */
static void
note_size(ShardChanges *changes)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(changes->rel);

	if (nblocks <= changes->nblocks)
		return;
	changes->pages = changes->pages == NULL ?
		MemoryContextAllocHuge(changes->context, nblocks) :
		repalloc_huge(changes->pages, nblocks);
	memset(changes->pages + changes->nblocks, 0, nblocks - changes->nblocks);
	changes->nblocks = nblocks;
}

/*
 * Look at the rows of a page, and call the function for those that have come, or
 * for those that have gone.  Returns how many of these there were.
 */
static int
look_at_page(ShardChanges *changes, BlockNumber block, const ShardMoment *last,
			 const ShardMoment *now, bool find_gone,
			 BufferAccessStrategy strategy, ShardRowFunction function, void *arg)
{
	uint8	   *state = &changes->pages[block];
	Buffer		buffer = ReadBufferExtended(changes->rel, MAIN_FORKNUM, block,
											RBM_NORMAL, strategy);
	Page		page;
	HeapTupleData rows[MaxHeapTuplesPerPage];
	int			nrows = 0;
	bool		is_settled = true;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (find_gone && (*state & PAGE_SETTLED) != 0 &&
		BufferGetLSNAtomic(buffer) <= last->position &&
		RelationNeedsWAL(changes->rel))
	{
		UnlockReleaseBuffer(buffer);
		return 0;
	}
	shard_check_snapshot_age(last->snapshot, changes->rel, page);
	for (OffsetNumber i = FirstOffsetNumber;
		 i <= PageGetMaxOffsetNumber(page); i++)
	{
		ItemId		id = PageGetItemId(page, i);
		HeapTuple	row = &rows[nrows];
		bool		was_visible;
		bool		is_visible;

		if (!ItemIdIsNormal(id))
			continue;
		row->t_data = (HeapTupleHeader) PageGetItem(page, id);
		row->t_len = ItemIdGetLength(id);
		row->t_tableOid = RelationGetRelid(changes->rel);
		ItemPointerSet(&row->t_self, block, i);
		was_visible = last->snapshot != NULL &&
			HeapTupleSatisfiesVisibility(row, last->snapshot, buffer);
		is_visible = HeapTupleSatisfiesVisibility(row, now->snapshot, buffer);
		/* What is under way may become visible, or no longer be, unseen. */
		is_settled &= is_visible &&
			(row->t_data->t_infomask & HEAP_XMAX_INVALID) != 0;
		if (is_visible && !was_visible)
			*state |= PAGE_HAS_NEW;
		if (find_gone ? was_visible && !is_visible : is_visible && !was_visible)
			nrows++;
	}
	/* While we have the page pinned, the rows stay where they are. */
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (find_gone || last->snapshot == NULL)
		*state = (*state & ~PAGE_SETTLED) | (is_settled ? PAGE_SETTLED : 0);
	if (!find_gone)
		*state &= ~PAGE_HAS_NEW;

	for (int i = 0; i < nrows; i++)
		function(arg, &rows[i]);
	ReleaseBuffer(buffer);
	return nrows;
}

/*
 * shard_changes_gone
 *		Call a function for each row that was there at the last moment and is not
 *		now.  Returns the number of rows.
 *
 * The last moment is that of the last comparison.  Raises what the function
 * raises, and ERRCODE_SNAPSHOT_TOO_OLD (PostgreSQL 15 and 16).
 */
int64
shard_changes_gone(ShardChanges *changes, const ShardMoment *last,
				   const ShardMoment *now, ShardRowFunction function, void *arg)
{
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	int64		result = 0;

	note_size(changes);
	for (BlockNumber block = 0; block < changes->nblocks; block++)
	{
		CHECK_FOR_INTERRUPTS();
		result += look_at_page(changes, block, last, now, true, strategy,
							   function, arg);
	}
	FreeAccessStrategy(strategy);
	return result;
}

/*
 * shard_changes_new
 *		Call a function for each row that is there now and was not at the last
 *		moment.  Returns the number of rows.
 *
 * The last moment is before all, in which case progress is reported, or
 * shard_changes_gone() has compared the same ones.  Raises what the function
 * raises.
 */
int64
shard_changes_new(ShardChanges *changes, const ShardMoment *last,
				  const ShardMoment *now, ShardRowFunction function, void *arg)
{
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	bool		is_first = last->snapshot == NULL;
	int64		result = 0;
	int64		reported = 0;

	if (is_first)
		note_size(changes);
	for (BlockNumber block = 0; block < changes->nblocks; block++)
	{
		if (!is_first && (changes->pages[block] & PAGE_HAS_NEW) == 0)
			continue;
		CHECK_FOR_INTERRUPTS();
		result += look_at_page(changes, block, last, now, false, strategy,
							   function, arg);
		if (is_first && block % PAGES_PER_REPORT == 0)
		{
			shard_progress_add(result - reported);
			reported = result;
		}
	}
	if (is_first)
		shard_progress_add(result - reported);
	FreeAccessStrategy(strategy);
	return result;
}
