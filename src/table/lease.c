/*-------------------------------------------------------------------------
 *
 * lease.c
 *	  Our locks: leases and lanes.
 *
 * A lease is a session-level lock of the user lock method on a tag that no
 * call of pg_advisory_lock() can make.  That gives everything that a lease
 * requires without shared memory of our own: it outlives the transaction, even
 * if that is rolled back; it goes away with the backend, however that ends; it
 * is seen in pg_locks; and a standby or a restart starts with none.
 *
 * A lane is a lock of the same kind on a shard of a table with commit order.
 * It belongs to the transaction, which holds it from before the first row until
 * after the commit.  So one transaction at a time writes the shard, and the
 * next one gets its ids when the rows of the one before are visible.  Rolling
 * back to a savepoint releases a lane that was taken since, and undoes its
 * rows.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "commands/sequence.h"
#include "storage/lmgr.h"

/* For how long a session leases no shard that it could not reach, in ms. */
#define UNREACHABLE_TIME	60000

/* Shards that could not be reached. */
static struct
{
	Oid			shard;
	TimestampTz until;			/* they are left alone */
}			unreachable[64];
static int	nunreachable = 0;

/*
 * shard_lock_tag
 *		Fill in the tag of a lock of ours, of one of the kinds in table.h,
 *		on a table and a number.
 */
void
shard_lock_tag(LOCKTAG *tag, Oid relid, uint32 number, uint16 kind)
{
	tag->locktag_field1 = MyDatabaseId;
	tag->locktag_field2 = relid;
	tag->locktag_field3 = number;
	tag->locktag_field4 = kind;
	tag->locktag_type = LOCKTAG_ADVISORY;
	tag->locktag_lockmethodid = USER_LOCKMETHOD;
}

/*
 * shard_maintenance_tag
 *		Fill in the tag of the lock that a run of maintain() holds on a logical
 *		table.
 *
 * The run holds it beyond its transactions, but an error is to release it:
 * that happens to session-level locks of the default method only.
 */
void
shard_maintenance_tag(LOCKTAG *tag, Oid logical)
{
	shard_lock_tag(tag, logical, 0, SHARD_MAINTENANCE_LOCK_KIND);
	tag->locktag_lockmethodid = DEFAULT_LOCKMETHOD;
}

/*
 * shard_command_tag
 *		The same for a run of run_on_shards().
 */
void
shard_command_tag(LOCKTAG *tag, Oid logical)
{
	shard_lock_tag(tag, logical, 0, SHARD_COMMAND_LOCK_KIND);
	tag->locktag_lockmethodid = DEFAULT_LOCKMETHOD;
}

/*
 * shard_lease_tag
 *		Fill in the tag of a lease on a shard at this level; see route.c.
 */
void
shard_lease_tag(LOCKTAG *tag, Oid shard, uint32 level)
{
	shard_lock_tag(tag, shard, level, SHARD_LEASE_LOCK_KIND);
}

/*
 * shard_holds_lease
 *		Does this backend still hold the lease that the entry remembers?
 *		DISCARD ALL and pg_advisory_unlock_all() release it without telling us.
 */
bool
shard_holds_lease(const ShardTable *table)
{
	LOCKTAG		tag;

	if (!OidIsValid(table->lease_shard))
		return false;
	shard_lease_tag(&tag, table->lease_shard, table->lease_level);
	return shard_lock_held(&tag, ExclusiveLock);
}

/*
 * shard_forget_lease
 *		Give back this backend's lease on a shard of the table, if it has one.
 */
void
shard_forget_lease(ShardTable *table)
{
	LOCKTAG		tag;

	if (shard_holds_lease(table))
	{
		shard_lease_tag(&tag, table->lease_shard, table->lease_level);
		LockRelease(&tag, ExclusiveLock, true);
	}
	table->lease_shard = InvalidOid;
}

/*
 * shard_note_unreachable
 *		Note that a shard could not be written because its server could not be
 *		reached.  Allocates nothing and raises nothing.
 */
void
shard_note_unreachable(Oid shard)
{
	int			i = 0;

	while (i < nunreachable && unreachable[i].shard != shard)
		i++;
	if (i == nunreachable)
	{
		/* If there are many, the first must do. */
		if (nunreachable == lengthof(unreachable))
			return;
		nunreachable++;
	}
	unreachable[i].shard = shard;
	unreachable[i].until = GetCurrentTimestamp() +
		UNREACHABLE_TIME * INT64CONST(1000);
}

/*
 * shard_is_unreachable
 *		Has this session found out a short time ago that the shard cannot be
 *		reached?
 */
bool
shard_is_unreachable(Oid shard)
{
	for (int i = 0; i < nunreachable; i++)
	{
		if (unreachable[i].shard != shard)
			continue;
		if (GetCurrentTimestamp() < unreachable[i].until)
			return true;
		unreachable[i] = unreachable[--nunreachable];
		break;
	}
	return false;
}

/*
 * shard_lane_tag
 *		Fill in the tag of the lane of a shard.
 */
void
shard_lane_tag(LOCKTAG *tag, Oid shard)
{
	shard_lock_tag(tag, shard, 0, SHARD_LANE_LOCK_KIND);
}

/*
 * shard_try_lane
 *		Take the lane of a shard, unless this transaction has it.  If it is not
 *		free, wait for it, or return false if dont_wait.
 *
 * Raises what shard_take_lane() raises.
 */
bool
shard_try_lane(ShardTable *table, const ShardMember *member, bool dont_wait)
{
	Oid			shard = member->relid;
	Oid			sequence = member->sequence;
	LOCKTAG		tag;
	FormData_pg_sequence form;

	shard_lane_tag(&tag, shard);
	if (table->lane_lxid == shard_my_lxid() &&
		shard_lock_held(&tag, ExclusiveLock))
		return true;
	if (LockAcquire(&tag, ExclusiveLock, false, dont_wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	table->lane_shard = shard;
	table->lane_lxid = shard_my_lxid();

	/*
	 * Ids that this session has cached may be less than those that other
	 * sessions have used since.
	 */
	if (shard_get_sequence(sequence, &form) && form.seqcache > 1)
		ResetSequenceCaches();
	return true;
}

/*
 * shard_take_lane
 *		Take the lane of a shard that a row goes to, if the table has commit
 *		order.
 *
 * Waits for it.  Raises ERRCODE_T_R_DEADLOCK_DETECTED,
 * ERRCODE_LOCK_NOT_AVAILABLE and ERRCODE_QUERY_CANCELED as waiting for a lock
 * does.
 */
void
shard_take_lane(ShardTable *table, int ordinal)
{
	if (table->commit_order)
		(void) shard_try_lane(table, &table->members[ordinal], false);
}

/*
 * shard_await_lane
 *		Wait for the transaction that writes a shard, if the table has commit
 *		order.
 *
 * Takes no lock, because a role that may only read must not keep others from
 * writing.  Raises what shard_take_lane() raises.
 */
void
shard_await_lane(Oid shard)
{
	LOCKTAG		tag;

	shard_lane_tag(&tag, shard);
	WaitForLockers(tag, ShareLock, false);
}
