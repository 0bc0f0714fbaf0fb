/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  Taking a strong lock on a table without holding up those who use it.
 *
 * A session that waits for a strong lock stands in the lock's queue.  All that
 * come later, readers and writers alike, stand behind it until the oldest
 * transaction that uses the table has ended.  So we wait in the queue only for
 * a moment, leave it, sleep, and try again.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "common/pg_prng.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* All times are in milliseconds. */
#define FIRST_PAUSE		100		/* out of the queue */
#define LAST_PAUSE		1000
#define DEFAULT_PATIENCE 60000	/* altogether, without "lock_timeout" */

/* When we came into the queue last. */
static TimestampTz try_start = 0;

/*
 * Change a timeout, which only superusers may do with some, until the end of
 * the subtransaction.
 */
static void
set_timeout(const char *name, int value)
{
	char		buf[12];

	snprintf(buf, sizeof(buf), "%d", value);
	(void) set_config_option(name, buf, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * shard_limit_lock_wait
 *		Have waiting for a lock fail after so many milliseconds, until the
 *		settings are restored.
 *
 * Looking for a deadlock is also what makes an autovacuum worker that has the
 * lock stop, so it must happen before we leave the queue.
 */
void
shard_limit_lock_wait(int milliseconds)
{
	set_timeout("deadlock_timeout", Max(milliseconds / 2, 1));
	set_timeout("lock_timeout", milliseconds);
}

/*
 * Wait for the locks, on some relations in one mode and on others in another,
 * for so many milliseconds each.  Returns whether we have them all; else we
 * have none.
 */
static bool
try_to_lock(List *relids, LOCKMODE mode, List *others, LOCKMODE other_mode,
			int timeout)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool result = true;

	try_start = GetCurrentTimestamp();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			guc_level = NewGUCNestLevel();
		ListCell   *lc;

		shard_limit_lock_wait(timeout);
		foreach(lc, relids)
		{
			LockRelationOid(lfirst_oid(lc), mode);
			/* The time may have been over at the moment when we got it. */
			CHECK_FOR_INTERRUPTS();
		}
		foreach(lc, others)
		{
			LockRelationOid(lfirst_oid(lc), other_mode);
			CHECK_FOR_INTERRUPTS();
		}
		AtEOXact_GUC(false, guc_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);

		/* A deadlock may be due to the locks that we have just given back. */
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			!(error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED &&
			  list_length(relids) + list_length(others) > 1))
			ReThrowError(error);
		FreeErrorData(error);
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * Sleep, unless the query is canceled.
 */
static void
sleep_for(int milliseconds)
{
	TimestampTz start = GetCurrentTimestamp();
	long		left = milliseconds;

	while (left > 0)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		left = milliseconds -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
	}
}

/*
 * shard_pause_lock_wait
 *		Stay out of the queue for a while, for at most so many milliseconds.
 *		*pause, which is 0 at first, grows with each call.
 */
void
shard_pause_lock_wait(int *pause, long left)
{
	*pause = *pause == 0 ? FIRST_PAUSE : Min(*pause * 3 / 2, LAST_PAUSE);
	/* Not in step with others who try the same. */
	sleep_for(Min(left,
				  (int) (*pause * (0.5 + pg_prng_double(&pg_global_prng_state) / 2))));
}

/*
 * shard_lock_patience
 *		How long to try to get a lock, in milliseconds: as setting
 *		"lock_timeout" says, or a minute if that is not set.
 */
int
shard_lock_patience(void)
{
	return LockTimeout > 0 ? LockTimeout : DEFAULT_PATIENCE;
}

/*
 * Raise an error because we have given up.  It names the processes that hold
 * locks on the first relation of the list that is not free.
 */
static void
report_impatience(List *relids, LOCKMODE mode, int patience)
{
	Oid			relid = linitial_oid(relids);
	VirtualTransactionId *holders = NULL;
	int			nholders = 0;
	char	   *name;
	StringInfoData pids;
	int			npids = 0;
	ListCell   *lc;

	foreach(lc, relids)
	{
		LOCKTAG		tag;

		SET_LOCKTAG_RELATION(tag, MyDatabaseId, lfirst_oid(lc));
		holders = GetLockConflicts(&tag, mode, &nholders);
		if (nholders > 0)
		{
			relid = lfirst_oid(lc);
			break;
		}
	}

	initStringInfo(&pids);
	for (int i = 0; i < nholders; i++)
	{
		int			pid = shard_vxid_pid(&holders[i]);

		/* A prepared transaction has no process. */
		if (pid != 0)
			appendStringInfo(&pids, "%s%d", npids++ > 0 ? ", " : "", pid);
	}

	name = get_rel_name(relid);
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 name != NULL ?
			 errmsg("could not obtain lock on relation \"%s\" within %d ms",
					name, patience) :
			 errmsg("could not obtain lock on relation with OID %u within %d ms",
					relid, patience),
			 npids > 0 ?
			 errdetail_plural("Process that holds a conflicting lock: %s.",
							  "Processes that hold conflicting locks: %s.",
							  npids, pids.data) :
			 nholders > 0 ?
			 errdetail("A prepared transaction holds a conflicting lock.") : 0,
			 errhint("Try again when the transactions that use the relation have ended, or set \"lock_timeout\" to a longer time.")));
}

/*
 * As shard_try_patiently(), with some more relations that are to be locked in
 * another mode, after the first ones.
 */
static bool
try_two_patiently(List *relids, LOCKMODE mode, List *others,
				  LOCKMODE other_mode, int patience)
{
	int			pause = 0;
	TimestampTz start = GetCurrentTimestamp();

	for (;;)
	{
		long		left = patience -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());

		if (try_to_lock(relids, mode, others, other_mode,
						Max(Min(left, SHARD_LOCK_TRY_TIME), 1)))
			return true;
		left = patience -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		if (left <= 0)
			return false;
		shard_pause_lock_wait(&pause, left);
	}
}

/*
 * shard_try_patiently
 *		Lock relations, all or none of them, without making others wait for
 *		more than a moment at a time while we do not have the locks.  Returns
 *		whether that has succeeded in so many milliseconds.
 *
 * They are locked in the order of the list, until the end of the
 * (sub)transaction.  See shard_lock_patiently() for the rest.
 */
bool
shard_try_patiently(List *relids, LOCKMODE mode, int patience)
{
	try_start = GetCurrentTimestamp();
	if (list_length(relids) == 1 &&
		ConditionalLockRelationOid(linitial_oid(relids), mode))
		return true;
	return try_two_patiently(relids, mode, NIL, NoLock, patience);
}

/*
 * shard_lock_try_start
 *		Since when others may have waited behind the locks that the last call of
 *		a function below has taken.
 */
TimestampTz
shard_lock_try_start(void)
{
	return try_start;
}

/*
 * shard_lock_all_patiently
 *		Lock relations as shard_try_patiently() does, for as long as
 *		shard_lock_patiently() tries, or raise its error.
 */
void
shard_lock_all_patiently(List *relids, LOCKMODE mode)
{
	int			patience = shard_lock_patience();

	if (!shard_try_patiently(relids, mode, patience))
		report_impatience(relids, mode, patience);
}

/*
 * shard_lock_two_patiently
 *		Lock relations in one mode and others in another, all or none of them
 *		at a time, in the way of shard_lock_patiently().
 */
void
shard_lock_two_patiently(List *relids, LOCKMODE mode, List *others,
						 LOCKMODE other_mode)
{
	int			patience = shard_lock_patience();

	if (!try_two_patiently(relids, mode, others, other_mode, patience))
		report_impatience(relids, mode, patience);
}

/*
 * shard_lock_patiently
 *		Lock a relation until the end of the transaction, in a mode that
 *		conflicts with its use, without making others wait for more than a
 *		moment at a time while we do not have the lock.
 *
 * Tries for as long as setting "lock_timeout" says, or a minute if that is
 * not set, then raises ERRCODE_LOCK_NOT_AVAILABLE.  Raises
 * ERRCODE_T_R_DEADLOCK_DETECTED as any wait for a lock does.
 *
 * The relation may be another one, or gone, when this returns: the caller
 * has to look again.  Other locks of the transaction are held all the while,
 * so this should be the first one that others could mind.
 */
void
shard_lock_patiently(Oid relid, LOCKMODE mode)
{
	shard_lock_all_patiently(list_make1_oid(relid), mode);
}

/*
 * shard_lock_tree_patiently
 *		The same for a relation and all that inherits from it: none of them is
 *		locked while we wait for another one.  Returns their OIDs, the
 *		relation's first.
 */
List *
shard_lock_tree_patiently(Oid relid, LOCKMODE mode)
{
	shard_lock_all_patiently(find_all_inheritors(relid, NoLock, NULL), mode);
	/* Some may have come or gone while we waited. */
	return find_all_inheritors(relid, mode, NULL);
}
