/*-------------------------------------------------------------------------
 *
 * copy.c
 *	  Copying the rows of shards into new ones while others read and write
 *	  them.
 *
 * The first pass copies the rows that a snapshot shows.  Indexes are built
 * when that is done.  Each later pass takes a new snapshot, and compares: what
 * the last snapshot showed and this one does not is deleted from the copy, and
 * what is new is inserted there; see changes.c.  The last pass is made under a
 * lock that keeps writers out.
 *
 * To be able to delete a row from the copy, one has to know where it went.
 * For the rows of the first pass a temporary file has the old and the new
 * place of each, in the order of the old ones; for the others, which are few, a
 * hash table has them.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "partitioning/partbounds.h"
#include "storage/buffile.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"

/* Rows for one shard that are inserted at once, at most. */
#define MAX_BUFFERED_ROWS	1000
#define MAX_BUFFERED_BYTES	65536

/* Where a row of the first pass has gone. */
typedef struct Move
{
	ItemPointerData old_tid;
	ItemPointerData new_tid;
} Move;

/* The same for a row of a later one; a hash table's entry. */
typedef struct LateMove
{
	struct
	{
		int			source;
		ItemPointerData tid;
	}			key;
	int			target;
	ItemPointerData new_tid;
} LateMove;

/* The rows that have gone from one old shard to one new. */
typedef struct MoveFile
{
	BufFile    *file;			/* of Move; NULL: there are none */
	int64		nmoves;
} MoveFile;

/* A new shard. */
typedef struct Target
{
	Relation	rel;
	int			remainder;
	EState	   *estate;			/* for its indexes; NULL: not open */
	ResultRelInfo *rri;
	BulkInsertState bulk_insert;
	TupleTableSlot *slots[MAX_BUFFERED_ROWS];
	ItemPointerData origins[MAX_BUFFERED_ROWS];
	int			nbuffered;
	Size		nbytes;
} Target;

/* An old shard. */
typedef struct Source
{
	Relation	rel;
	AttrNumber *columns;		/* of a new shard's columns, 0: dropped */
	ShardChanges *changes;
	MoveFile   *files;			/* by target */
} Source;

struct ShardOnlineCopy
{
	MemoryContext context;		/* has all this */
	MemoryContext row_context;
	int			nsources;
	Source	   *sources;
	Source	   *source;			/* the one whose rows are being looked at */
	int			ntargets;
	Target	   *targets;
	int			modulus;
	PartitionKey key;
	AttrNumber *key_columns;	/* in the new shards */
	Datum	   *values;			/* of a row, as an old shard has it */
	bool	   *nulls;
	Datum	   *new_values;
	bool	   *new_nulls;
	HTAB	   *late_moves;
	ShardMoment last;			/* of the last pass */
	int64		nrows;			/* now in the new shards */
};

/*
 * Which columns of an old shard are those of a new one.
 */
static AttrNumber *
match_columns(Relation old_rel, Relation new_rel)
{
	TupleDesc	old_desc = RelationGetDescr(old_rel);
	TupleDesc	new_desc = RelationGetDescr(new_rel);
	AttrNumber *result = palloc0(sizeof(AttrNumber) * Max(new_desc->natts, 1));
	int			nfound = 0;
	int			nold = 0;

	for (int i = 0; i < old_desc->natts; i++)
		nold += !TupleDescAttr(old_desc, i)->attisdropped;
	for (int i = 0; i < new_desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(new_desc, i);
		Form_pg_attribute old_att;

		if (att->attisdropped)
			continue;
		result[i] = get_attnum(RelationGetRelid(old_rel),
							   NameStr(att->attname));
		if (result[i] == InvalidAttrNumber)
			break;
		old_att = TupleDescAttr(old_desc, result[i] - 1);
		if (old_att->atttypid != att->atttypid ||
			old_att->atttypmod != att->atttypmod ||
			old_att->attcollation != att->attcollation ||
			old_att->attgenerated != att->attgenerated ||
			(att->attnotnull && !old_att->attnotnull))
			break;
		nfound++;
	}
	if (nfound != nold)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the columns of shard \"%s\" are not those of shard \"%s\"",
						RelationGetRelationName(old_rel),
						RelationGetRelationName(new_rel)),
				 errdetail("The names, the types, what generates them, or what may be null differ."),
				 errhint("Make the shards alike, or use SELECT shard_fdw.reshard().")));
	return result;
}

/*
 * shard_online_copy_begin
 *		Prepare to copy the rows of old shards of a hash table into new ones,
 *		which are empty and hold these remainders of the modulus.
 *
 * The caller has a lock on all of them that keeps their definitions as they
 * are.  The new shards have been created in the current subtransaction, and
 * nobody else sees them.  Raises ERRCODE_DATATYPE_MISMATCH if the columns
 * differ.  The result lives in the current memory context.
 */
ShardOnlineCopy *
shard_online_copy_begin(Oid logical, List *old_shards, List *new_shards,
						int modulus, List *remainders)
{
	ShardOnlineCopy *copy = palloc0(sizeof(ShardOnlineCopy));
	HASHCTL		ctl = {0};
	int			natts = 0;
	ShardOptions options;
	ListCell   *lc;

	copy->context = CurrentMemoryContext;
	copy->row_context = AllocSetContextCreate(CurrentMemoryContext,
											  "rows being copied",
											  ALLOCSET_DEFAULT_SIZES);
	copy->modulus = modulus;
	shard_get_options(logical, &options);
	copy->key = shard_key_create(logical, options.key, false);

	copy->targets = palloc0(sizeof(Target) * list_length(new_shards));
	foreach(lc, new_shards)
	{
		Target	   *target = &copy->targets[copy->ntargets];

		target->rel = table_open(lfirst_oid(lc), NoLock);
		target->remainder = list_nth_int(remainders, copy->ntargets);
		target->bulk_insert = GetBulkInsertState();
		for (int i = 0; i < MAX_BUFFERED_ROWS; i++)
			target->slots[i] =
				MakeSingleTupleTableSlot(RelationGetDescr(target->rel),
										 &TTSOpsHeapTuple);
		copy->ntargets++;
	}
	copy->sources = palloc0(sizeof(Source) * list_length(old_shards));
	foreach(lc, old_shards)
	{
		Source	   *source = &copy->sources[copy->nsources++];

		source->rel = table_open(lfirst_oid(lc), NoLock);
		/* They have all been made in the same way. */
		source->columns = match_columns(source->rel, copy->targets[0].rel);
		source->changes = shard_changes_begin(source->rel);
		source->files = palloc0(sizeof(MoveFile) * copy->ntargets);
		natts = Max(natts, RelationGetNumberOfAttributes(source->rel));
	}
	copy->values = palloc(sizeof(Datum) * Max(natts, 1));
	copy->nulls = palloc(sizeof(bool) * Max(natts, 1));
	natts = RelationGetNumberOfAttributes(copy->targets[0].rel);
	copy->new_values = palloc0(sizeof(Datum) * Max(natts, 1));
	copy->new_nulls = palloc(sizeof(bool) * Max(natts, 1));
	memset(copy->new_nulls, true, sizeof(bool) * Max(natts, 1));
	copy->key_columns = palloc(sizeof(AttrNumber) * copy->key->partnatts);
	for (int i = 0; i < copy->key->partnatts; i++)
		copy->key_columns[i] =
			get_attnum(RelationGetRelid(copy->targets[0].rel),
					   get_attname(logical, copy->key->partattrs[i], false));

	ctl.keysize = sizeof(((LateMove *) NULL)->key);
	ctl.entrysize = sizeof(LateMove);
	ctl.hcxt = CurrentMemoryContext;
	copy->late_moves = hash_create("rows copied late", 256, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return copy;
}

/*
 * Read a row of an old shard, and find out which new shard it goes to.  The
 * values are as a new shard has them.
 */
static Target *
read_row(ShardOnlineCopy *copy, const Source *source, HeapTuple tuple)
{
	Datum		key[PARTITION_MAX_KEYS];
	bool		key_nulls[PARTITION_MAX_KEYS];
	TupleDesc	desc = RelationGetDescr(copy->targets[0].rel);
	int			remainder;

	heap_deform_tuple(tuple, RelationGetDescr(source->rel), copy->values,
					  copy->nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		AttrNumber	attno = source->columns[i];

		if (attno == InvalidAttrNumber)
			continue;
		copy->new_values[i] = copy->values[attno - 1];
		copy->new_nulls[i] = copy->nulls[attno - 1];
	}
	for (int i = 0; i < copy->key->partnatts; i++)
	{
		key[i] = copy->new_values[copy->key_columns[i] - 1];
		key_nulls[i] = copy->new_nulls[copy->key_columns[i] - 1];
	}
	remainder = compute_partition_hash_value(copy->key->partnatts,
											 copy->key->partsupfunc,
											 copy->key->partcollation,
											 key, key_nulls) % copy->modulus;
	for (int i = 0; i < copy->ntargets; i++)
		if (copy->targets[i].remainder == remainder)
			return &copy->targets[i];
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("shard \"%s\" has a row whose key it should not hold",
					RelationGetRelationName(source->rel)),
			 errdetail("The remainder of its hash modulo %d is %d.",
					   copy->modulus, remainder)));
	pg_unreachable();
}

/*
 * Insert the rows of the first pass that are waiting, all of which come from
 * the same old shard, and note where they have gone.
 *
 * They have been there for everybody before, and are frozen: whoever sees the
 * new shard sees them, also with a snapshot that is older than it.
 */
static void
flush_rows(ShardOnlineCopy *copy, Source *source, int itarget)
{
	Target	   *target = &copy->targets[itarget];
	MoveFile   *moves = &source->files[itarget];
	MemoryContext oldcontext;

	if (target->nbuffered == 0)
		return;
	table_multi_insert(target->rel, target->slots, target->nbuffered,
					   GetCurrentCommandId(true),
					   TABLE_INSERT_FROZEN | TABLE_INSERT_SKIP_FSM,
					   target->bulk_insert);
	oldcontext = MemoryContextSwitchTo(copy->context);
	if (moves->file == NULL)
		moves->file = BufFileCreateTemp(false);
	MemoryContextSwitchTo(oldcontext);
	for (int i = 0; i < target->nbuffered; i++)
	{
		Move		move = {target->origins[i], target->slots[i]->tts_tid};

		BufFileWrite(moves->file, &move, sizeof(Move));
		ExecClearTuple(target->slots[i]);
	}
	moves->nmoves += target->nbuffered;
	target->nbuffered = 0;
	target->nbytes = 0;
}

static void
flush_all(ShardOnlineCopy *copy, Source *source)
{
	for (int i = 0; i < copy->ntargets; i++)
		flush_rows(copy, source, i);
	MemoryContextReset(copy->row_context);
}

/*
 * Have a row of the first pass inserted.
 */
static void
buffer_row(void *arg, HeapTuple tuple)
{
	ShardOnlineCopy *copy = arg;
	Source	   *source = copy->source;
	Target	   *target = read_row(copy, source, tuple);
	MemoryContext oldcontext = MemoryContextSwitchTo(copy->row_context);
	HeapTuple	row = heap_form_tuple(RelationGetDescr(target->rel),
									  copy->new_values, copy->new_nulls);

	MemoryContextSwitchTo(oldcontext);
	ExecStoreHeapTuple(row, target->slots[target->nbuffered], false);
	target->origins[target->nbuffered++] = tuple->t_self;
	target->nbytes += row->t_len;
	if (target->nbuffered == MAX_BUFFERED_ROWS ||
		target->nbytes >= MAX_BUFFERED_BYTES)
	{
		flush_rows(copy, source, target - copy->targets);
		/* The memory is shared, but what the others have is not much. */
		if (MemoryContextMemAllocated(copy->row_context, true) >
			4 * MAX_BUFFERED_BYTES * copy->ntargets)
			flush_all(copy, source);
	}
	copy->nrows++;
}

/*
 * Find where a row of the first pass went.
 */
static bool
find_move(const MoveFile *moves, ItemPointer tid, ItemPointer new_tid)
{
	int64		low = 0;
	int64		high = moves->nmoves;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;
		Move		move;
		int32		order;

		if (BufFileSeek(moves->file, 0, middle * sizeof(Move), SEEK_SET) != 0)
			elog(ERROR, "could not seek in temporary file");
		shard_buffile_read(moves->file, &move, sizeof(Move));
		order = ItemPointerCompare(&move.old_tid, tid);
		if (order == 0)
		{
			*new_tid = move.new_tid;
			return true;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/*
 * Delete the copy of a row.
 */
static void
delete_row(void *arg, HeapTuple tuple)
{
	ShardOnlineCopy *copy = arg;
	Source	   *source = copy->source;
	LateMove	key;
	LateMove   *late;
	ItemPointerData tid;
	Target	   *target;
	TM_FailureData failure;

	memset(&key, 0, sizeof(key));
	key.key.source = source - copy->sources;
	key.key.tid = tuple->t_self;
	late = hash_search(copy->late_moves, &key.key, HASH_FIND, NULL);
	if (late != NULL)
	{
		target = &copy->targets[late->target];
		tid = late->new_tid;
		(void) hash_search(copy->late_moves, &key.key, HASH_REMOVE, NULL);
	}
	else
	{
		target = read_row(copy, source, tuple);
		if (!find_move(&source->files[target - copy->targets], &tuple->t_self,
					   &tid))
			elog(ERROR, "copy of row (%u,%u) of shard \"%s\" not found",
				 ItemPointerGetBlockNumber(&tuple->t_self),
				 ItemPointerGetOffsetNumber(&tuple->t_self),
				 RelationGetRelationName(source->rel));
	}
	if (shard_tuple_delete(target->rel, &tid, GetCurrentCommandId(true),
						   SnapshotAny, true, &failure) != TM_Ok)
		elog(ERROR, "could not delete the copy of a row of shard \"%s\"",
			 RelationGetRelationName(source->rel));
	copy->nrows--;
}

/*
 * Insert a row after the first pass, with its index entries.
 *
 * Constraints have let it into the old shard, and the same hold in the new one.
 * A deferred one has been checked when the row was committed.
 */
static void
insert_row(void *arg, HeapTuple tuple)
{
	ShardOnlineCopy *copy = arg;
	Target	   *target = read_row(copy, copy->source, tuple);
	MemoryContext oldcontext = MemoryContextSwitchTo(copy->row_context);
	HeapTuple	row = heap_form_tuple(RelationGetDescr(target->rel),
									  copy->new_values, copy->new_nulls);
	TupleTableSlot *slot = target->slots[0];
	LateMove	key;
	LateMove   *late;

	ExecStoreHeapTuple(row, slot, false);
	table_tuple_insert(target->rel, slot, GetCurrentCommandId(true), 0, NULL);
	if (target->rri->ri_NumIndices > 0)
		(void) shard_insert_index_tuples(target->rri, slot, target->estate,
										 NULL, NIL);
	memset(&key, 0, sizeof(key));
	key.key.source = copy->source - copy->sources;
	key.key.tid = tuple->t_self;
	late = hash_search(copy->late_moves, &key.key, HASH_ENTER, NULL);
	late->target = target - copy->targets;
	late->new_tid = slot->tts_tid;
	ExecClearTuple(slot);
	ResetPerTupleExprContext(target->estate);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(copy->row_context);
	copy->nrows++;
}

/*
 * Open the indexes of the new shards, which have been built.
 */
static void
open_indexes(ShardOnlineCopy *copy)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(copy->context);

	for (int i = 0; i < copy->ntargets; i++)
	{
		Target	   *target = &copy->targets[i];

		if (target->estate != NULL)
			continue;
		target->estate = CreateExecutorState();
		target->rri = makeNode(ResultRelInfo);
		InitResultRelInfo(target->rri, target->rel, 1, NULL, 0);
		ExecOpenIndices(target->rri, false);
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * shard_online_copy_pass
 *		Copy what there is in the old shards, or bring the copy up to date.
 *		Returns the number of rows that have been inserted or deleted.
 *
 * Before the second pass the caller has built the indexes of the new shards.
 * Raises ERRCODE_CHECK_VIOLATION if a row should not be where it is.
 */
int64
shard_online_copy_pass(ShardOnlineCopy *copy)
{
	MemoryContext context = AllocSetContextCreate(copy->context, "pass over rows",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	ShardMoment now = shard_moment();
	bool		is_first = copy->last.snapshot == NULL;
	int64		result = 0;

	if (!is_first)
	{
		open_indexes(copy);
		for (int i = 0; i < copy->nsources; i++)
		{
			copy->source = &copy->sources[i];
			result += shard_changes_gone(copy->source->changes, &copy->last,
										 &now, delete_row, copy);
		}
		/* Where there was a deleted row, a new one may have its unique key. */
		CommandCounterIncrement();
	}
	for (int i = 0; i < copy->nsources; i++)
	{
		copy->source = &copy->sources[i];
		result += shard_changes_new(copy->source->changes, &copy->last, &now,
									is_first ? buffer_row : insert_row, copy);
		if (is_first)
			flush_all(copy, copy->source);
	}
	CommandCounterIncrement();
	shard_moment_end(&copy->last);
	copy->last = now;
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return result;
}

/*
 * shard_online_copy_end
 *		Close all that shard_online_copy_begin() has opened, keeping the locks.
 *		Returns the number of rows in the new shards.
 */
int64
shard_online_copy_end(ShardOnlineCopy *copy)
{
	shard_moment_end(&copy->last);
	for (int i = 0; i < copy->ntargets; i++)
	{
		Target	   *target = &copy->targets[i];

		if (target->estate != NULL)
		{
			ExecCloseIndices(target->rri);
			FreeExecutorState(target->estate);
		}
		FreeBulkInsertState(target->bulk_insert);
		for (int j = 0; j < MAX_BUFFERED_ROWS; j++)
			ExecDropSingleTupleTableSlot(target->slots[j]);
		table_close(target->rel, NoLock);
	}
	for (int i = 0; i < copy->nsources; i++)
	{
		for (int j = 0; j < copy->ntargets; j++)
			if (copy->sources[i].files[j].file != NULL)
				BufFileClose(copy->sources[i].files[j].file);
		table_close(copy->sources[i].rel, NoLock);
	}
	return copy->nrows;
}
