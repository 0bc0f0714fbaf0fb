/*-------------------------------------------------------------------------
 *
 * node_snapshot.c
 *	  What the servers of postgres_fdw show to this transaction.
 *
 * postgres_fdw has one transaction on each server for the whole of the local
 * one, with one snapshot, also where the local one takes a new snapshot for
 * each statement.  A shard that is moved to the server later is read with that
 * snapshot all the same.  Its rows are there, because they have been copied
 * frozen; but so are those that were deleted after they had been copied and
 * before the move was committed.  So a transaction that may have a snapshot on a
 * server from before such a move must not read the shard.
 *
 * We cannot look at snapshots on servers.  But before the transaction uses the
 * first server, we keep a copy of what a local snapshot shows at that moment.  A
 * move commits on the server before it commits here.  So if that copy shows the
 * move, all snapshots that the transaction has on servers show its result.
 *
 * The copy is not registered as a snapshot, for that would hold back vacuum; it
 * is there for comparing transaction ids only.  It stays if a subtransaction is
 * rolled back, for so does the transaction on the server.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "access/xact.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* What a local snapshot has shown before a server was used. */
typedef struct NodeSnapshot
{
	LocalTransactionId lxid;	/* the transaction, or an earlier one */
	bool		is_load;		/* taken when the library was loaded */
	TransactionId xmin;			/* all before it have ended; or Invalid: not
								 * known of any */
	TransactionId xmax;			/* this and later ones have not; those between
								 * them have, except for: */
	int			nrunning;
	TransactionId *running;		/* in TopTransactionContext */
} NodeSnapshot;

static NodeSnapshot noted;

/*
 * Note that a snapshot shows what has ended before "xmin", and nothing else.
 */
static void
note_xmin(TransactionId xmin)
{
	noted.xmin = xmin;
	noted.xmax = xmin;
	noted.nrunning = 0;
	noted.lxid = shard_my_lxid();
}

/*
 * Note what a snapshot shows.
 */
static void
note_snapshot(Snapshot snapshot)
{
	int			nrunning = snapshot->xcnt + snapshot->subxcnt;
	TransactionId *running;

	/*
	 * To know what other subtransactions belong to would take pg_subtrans,
	 * which does not reach back to a snapshot that nobody holds.
	 */
	if (snapshot->suboverflowed)
	{
		note_xmin(snapshot->xmin);
		return;
	}
	running = MemoryContextAlloc(TopTransactionContext,
								 sizeof(TransactionId) * Max(nrunning, 1));
	if (snapshot->xcnt > 0)
		memcpy(running, snapshot->xip,
			   sizeof(TransactionId) * snapshot->xcnt);
	/* One that was taken during recovery has all of them here. */
	if (snapshot->subxcnt > 0)
		memcpy(running + snapshot->xcnt, snapshot->subxip,
			   sizeof(TransactionId) * snapshot->subxcnt);
	noted.xmin = snapshot->xmin;
	noted.xmax = snapshot->xmax;
	noted.nrunning = nrunning;
	noted.running = running;
	noted.lxid = shard_my_lxid();
}

/*
 * shard_has_used_node
 *		Has shard_note_node_use() been called in this transaction?
 */
bool
shard_has_used_node(void)
{
	return noted.lxid == shard_my_lxid();
}

/*
 * shard_note_node_use
 *		The transaction is about to have postgres_fdw use a server.  To be called
 *		before that, and best after the locks on tables there have been taken:
 *		then what they are is shown.
 *
 * Costs next to nothing but for the first time in a transaction.
 */
void
shard_note_node_use(void)
{
	if (!shard_has_used_node())
	{
		/* No new snapshot can be taken in a parallel query. */
		if (!IsInParallelMode())
			note_snapshot(GetLatestSnapshot());
		else if (ActiveSnapshotSet())
			note_snapshot(GetActiveSnapshot());
		else
			note_xmin(InvalidTransactionId);
	}
	noted.is_load = false;
}

/*
 * shard_node_shows
 *		Do all snapshots that this transaction has on servers, or will have, show
 *		what a transaction that has been committed here has committed there
 *		before?
 *
 * If that is not known, the answer is no.  shard_has_used_node() is true.
 */
bool
shard_node_shows(TransactionId xid)
{
	if (!TransactionIdIsNormal(xid))
		return true;
	if (!TransactionIdIsNormal(noted.xmin))
		return false;
	if (NormalTransactionIdPrecedes(xid, noted.xmin))
		return true;
	if (!NormalTransactionIdPrecedes(xid, noted.xmax))
		return false;
	for (int i = 0; i < noted.nrunning; i++)
	{
		if (TransactionIdEquals(noted.running[i], xid))
			return false;
	}
	return true;
}

/*
 * Has postgres_fdw been loaded?
 */
static bool
has_postgres_fdw(void)
{
	Size		size = EstimateLibraryStateSpace();
	char	   *names = palloc(size);
	bool		result = false;

	SerializeLibraryState(size, names);
	for (char *name = names; *name != '\0' && !result; name += strlen(name) + 1)
		result = strstr(name, "postgres_fdw") != NULL;
	pfree(names);
	return result;
}

/*
 * shard_node_snapshot_init
 *		To be called once, when the library is loaded.
 *
 * If that is in a transaction, servers may have been used in it before, or be
 * used by the command that loads it, TRUNCATE or ANALYZE, and we have not been
 * asked.  A statement outside a transaction block has a snapshot from before it
 * used any; while it is being planned, that is the active one.
 */
void
shard_node_snapshot_init(void)
{
	if (!IsTransactionState() || IsParallelWorker())
		return;
	if (has_postgres_fdw())
	{
		if (IsTransactionBlock())
			note_xmin(InvalidTransactionId);
		else if (ActivePortal == NULL && ActiveSnapshotSet())
			note_snapshot(GetActiveSnapshot());
		else
			note_xmin(TransactionXmin);
	}
	else if (ActiveSnapshotSet())
	{
		shard_note_node_use();
		noted.is_load = true;
	}
}

/*
 * shard_forget_load
 *		What has loaded the library is the planning of a query, and no server has
 *		been used.  So what was noted then does not count; the query may have to
 *		wait for a lock now.
 */
void
shard_forget_load(void)
{
	if (noted.is_load)
		noted.lxid = InvalidLocalTransactionId;
	noted.is_load = false;
}
