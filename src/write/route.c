/*-------------------------------------------------------------------------
 *
 * route.c
 *	  Which shard: leases, round robin, hash, and the pin.
 *
 * See lease.c about leases and lanes.  A shard can be leased at several
 * levels.  A backend takes the first free lock among all shards at level 0,
 * else at level 1, and so on.  So no backend takes level k of a shard while
 * level k - 1 of another one is free, and as long as sessions only come, the
 * numbers of sessions per shard differ by one at most.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/xact.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

int			shard_pinned = -1;
Oid			shard_last = InvalidOid;

/* Which shard of a table a setting of shard_fdw.shard means. */
typedef struct ShardPin
{
	uint64		setting;		/* see check_shard_setting() */
	Oid			logical;
	Oid			shard;
	SubTransactionId made_in;	/* if the transaction is still running */
} ShardPin;

static ShardPin *pins = NULL;
static int	npins = 0;
static int	max_pins = 0;
static bool has_new_pins = false;	/* some have made_in */
static uint64 present_setting = 0;

/*
 * Is there an open shard that can be reached, as far as we know?
 */
static bool
can_reach_any(const ShardTable *table)
{
	for (int i = 0; i < table->nopen; i++)
	{
		if (!shard_is_unreachable(table->members[table->open[i]].relid))
			return true;
	}
	return false;
}

/*
 * Lease one of the open shards.  There is at least one.  Returns its ordinal.
 *
 * A shard whose server could not be reached a short time ago is not leased, if
 * there are others.
 */
static int
acquire_lease(ShardTable *table)
{
	int			start = shard_backend_number() % table->nopen;
	bool		is_choosy = can_reach_any(table);

	shard_table_sweep();
	shard_forget_lease(table);

	for (uint32 level = 0;; level++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < table->nopen; i++)
		{
			int			ordinal = table->open[(start + i) % table->nopen];
			Oid			shard = table->members[ordinal].relid;
			LOCKTAG		tag;

			if (is_choosy && shard_is_unreachable(shard))
				continue;
			shard_lease_tag(&tag, shard, level);
			if (LockAcquire(&tag, ExclusiveLock, true, true) ==
				LOCKACQUIRE_NOT_AVAIL)
				continue;
			table->lease_shard = shard;
			table->lease_level = level;
			table->lease_generation = table->generation;
			table->lease_ordinal = ordinal;
			return ordinal;
		}
	}
}

/*
 * The ordinal of the shard that this session leases, or that it leases now.
 */
static int
route_by_session(ShardTable *table)
{
	/* After a rebuild the leased shard may be elsewhere, closed, or gone. */
	if (table->lease_generation != table->generation &&
		OidIsValid(table->lease_shard))
	{
		table->lease_ordinal = shard_table_find(table, table->lease_shard);
		table->lease_generation = table->generation;
		if (table->lease_ordinal < 0 ||
			!table->members[table->lease_ordinal].is_open)
			shard_forget_lease(table);
	}

	if (likely(shard_holds_lease(table)) &&
		likely(!shard_is_unreachable(table->lease_shard) ||
			   !can_reach_any(table)))
		return table->lease_ordinal;
	return acquire_lease(table);
}

/*
 * The ordinal of the shard whose lane this transaction has.
 *
 * If it has none, it takes a free one, preferably that of the leased shard.  If
 * none is free, it waits for that of the leased shard.
 */
static int
route_by_lane(ShardTable *table)
{
	int			leased;

	/* A lane is released at the end of its transaction. */
	if (OidIsValid(table->lane_shard) && table->lane_lxid == shard_my_lxid())
	{
		int			ordinal = shard_table_find(table, table->lane_shard);
		LOCKTAG		tag;

		shard_lane_tag(&tag, table->lane_shard);
		if (ordinal >= 0 && table->members[ordinal].is_open &&
			shard_lock_held(&tag, ExclusiveLock))
			return ordinal;
		/* It may have been lost in a savepoint, unlike one from before it. */
		for (int i = 0; i < table->nopen; i++)
		{
			shard_lane_tag(&tag, table->members[table->open[i]].relid);
			if (shard_lock_held(&tag, ExclusiveLock))
			{
				table->lane_shard = table->members[table->open[i]].relid;
				return table->open[i];
			}
		}
		table->lane_shard = InvalidOid;
	}

	leased = route_by_session(table);
	if (shard_try_lane(table, &table->members[leased], true))
		return leased;
	for (int i = 0; i < table->nopen; i++)
		if (table->open[i] > leased &&
			shard_try_lane(table, &table->members[table->open[i]], true))
			return table->open[i];
	for (int i = 0; i < table->nopen; i++)
		if (table->open[i] < leased &&
			shard_try_lane(table, &table->members[table->open[i]], true))
			return table->open[i];
	(void) shard_try_lane(table, &table->members[leased], false);
	return leased;
}

/*
 * Forget the pins that were found out in this subtransaction or later ones,
 * which are rolled back.  They may be the result of DDL that is undone.
 */
static void
forget_pins(SubTransactionId since)
{
	int			n = 0;

	for (int i = 0; i < npins; i++)
		if (pins[i].made_in < since)
			pins[n++] = pins[i];
	npins = n;
}

/*
 * Give each setting of shard_fdw.shard a number, as the check hook.  When a
 * value comes back after a rollback or the end of a SET LOCAL, its number
 * comes back with it.
 */
static bool
check_shard_setting(int *value, void **extra, GucSource source)
{
	static uint64 last_setting = 0;
	uint64	   *setting = shard_guc_malloc(sizeof(uint64));

	if (setting == NULL)
		return false;
	*setting = ++last_setting;
	*extra = setting;
	return true;
}

/*
 * Make a setting of shard_fdw.shard the present one, as the assign hook.
 */
static void
assign_shard_setting(int value, void *extra)
{
	static LocalTransactionId assigned_in = InvalidLocalTransactionId;
	uint64		setting = *(uint64 *) extra;

	/*
	 * If the transaction has not made another setting before, only the
	 * present one can come back, and the pins of all others can go.  (RESET
	 * can bring back another one, too, whose pin is then found out again.)
	 */
	if (npins > 0)
	{
		LocalTransactionId lxid = shard_my_lxid();
		int			n = 0;

		if (lxid == InvalidLocalTransactionId || lxid != assigned_in)
		{
			for (int i = 0; i < npins; i++)
				if (pins[i].setting == present_setting ||
					pins[i].setting == setting)
					pins[n++] = pins[i];
			npins = n;
		}
		assigned_in = lxid;
	}
	present_setting = setting;
}

/*
 * Forget what a subtransaction has found out when it is rolled back.
 */
static void
on_pin_subxact_end(SubXactEvent event, SubTransactionId subid,
				   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && has_new_pins)
		forget_pins(subid);
}

/*
 * Forget what a transaction has found out when it is rolled back; else keep it
 * for the next ones.
 */
static void
on_pin_xact_end(XactEvent event, void *arg)
{
	if (!has_new_pins)
		return;
	switch (event)
	{
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			forget_pins(TopSubTransactionId);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	for (int i = 0; i < npins; i++)
		pins[i].made_in = InvalidSubTransactionId;
	has_new_pins = false;
}

/*
 * shard_route_init
 *		Define the setting shard_fdw.shard.  To be called once, when the
 *		library is loaded.
 */
void
shard_route_init(void)
{
	DefineCustomIntVariable("shard_fdw.shard",
							"Sends this session's inserts to the shard with this number.",
							"-1 lets the table's route decide.",
							&shard_pinned,
							-1, -1, INT_MAX,
							PGC_USERSET, 0,
							check_shard_setting, assign_shard_setting, NULL);
	RegisterXactCallback(on_pin_xact_end, NULL);
	RegisterSubXactCallback(on_pin_subxact_end, NULL);
}

/*
 * Raise ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE because the table has no
 * shards.
 */
static void
report_no_shards(const ShardTable *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("foreign table \"%s\" has no shards",
					get_rel_name(table->relid)),
			 errhint("Create shards with SELECT shard_fdw.create_shards(), or attach an existing table with ALTER TABLE ... INHERIT.")));
}

/*
 * shard_pin
 *		The shard that shard_fdw.shard sends all rows for the table to, or
 *		InvalidOid if the table's route decides.
 *
 * The shard is the one that has the number when the session first inserts
 * under the present setting.  From then on it is the same shard, even if its
 * number changes.
 * Raises ERRCODE_INVALID_PARAMETER_VALUE if there is none with the number,
 * and ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if there are no shards.
 */
Oid
shard_pin(const ShardTable *table)
{
	ShardPin   *pin;

	if (likely(shard_pinned < 0))
		return InvalidOid;
	for (int i = 0; i < npins; i++)
		if (pins[i].logical == table->relid &&
			pins[i].setting == present_setting)
			return pins[i].shard;

	/* Closed shards have numbers, too. */
	table = shard_table_get(table->relid);
	if (table->nmembers == 0)
		report_no_shards(table);
	if (shard_pinned >= table->nmembers)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("foreign table \"%s\" has no shard number %d",
						get_rel_name(table->relid), shard_pinned),
				 errdetail_plural("The table has %d shard, numbered from 0.",
								  "The table has %d shards, numbered from 0.",
								  table->nmembers, table->nmembers),
				 errhint("Set \"shard_fdw.shard\" to a number in that range, or to -1 to let the table's route decide.")));

	if (npins == max_pins)
	{
		max_pins = Max(2 * max_pins, 8);
		pins = pins == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(ShardPin) * max_pins) :
			repalloc(pins, sizeof(ShardPin) * max_pins);
	}
	pin = &pins[npins++];
	pin->setting = present_setting;
	pin->logical = table->relid;
	pin->shard = table->members[shard_pinned].relid;
	pin->made_in = GetCurrentSubTransactionId();
	has_new_pins = true;
	return pin->shard;
}

/*
 * The ordinal of the pinned shard.  Raises
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it no longer takes inserts.
 */
static int
route_pinned(ShardTable *table, Oid shard)
{
	int			ordinal = shard_table_find(table, shard);

	if (likely(ordinal >= 0 && table->members[ordinal].is_open))
		return ordinal;
	table = shard_table_get(table->relid);
	ordinal = shard_table_find(table, shard);
	if (ordinal < 0)
	{
		char	   *name = get_rel_name(shard);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 name != NULL ?
				 errmsg("table \"%s\" is no longer a shard of foreign table \"%s\"",
						name, get_rel_name(table->relid)) :
				 errmsg("a shard of foreign table \"%s\" no longer exists",
						get_rel_name(table->relid)),
				 errdetail("\"shard_fdw.shard\" sends this session's inserts to it."),
				 errhint("Set \"shard_fdw.shard\" again, or to -1 to let the table's route decide.")));
	}
	if (!table->members[ordinal].is_open)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" of foreign table \"%s\" is %s",
						get_rel_name(shard), get_rel_name(table->relid),
						shard_state_name(table->members[ordinal].state)),
				 errdetail("\"shard_fdw.shard\" sends this session's inserts to shard number %d.",
						   ordinal),
				 table->members[ordinal].state == SHARD_CLOSED ?
				 errhint("Open the shard with SELECT shard_fdw.open_shard(), or set \"shard_fdw.shard\" to another number, or to -1 to let the table's route decide.") :
				 errhint("Set \"shard_fdw.shard\" to another number, or to -1 to let the table's route decide.")));
	return ordinal;
}

/*
 * Raise an error because no open shard takes the row.  "ordinal" is that of a
 * closed or sealed shard that holds rows with this hash, or -1.
 */
static void
report_no_place(const ShardTable *table, uint64 hash, int ordinal)
{
	char	   *columns = shard_key_columns(table->key, table->relid);
	int			modulus;
	int			remainder;

	if (shard_own_place(table, &modulus, &remainder) &&
		(int) (hash % modulus) != remainder)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("no shard of foreign table \"%s\" takes the row",
						get_rel_name(table->relid)),
				 errdetail("Its key (%s) has the hash remainder %d of %d. A CHECK constraint of the foreign table allows %d only.",
						   columns, (int) (hash % modulus), modulus, remainder)));
	if (table->nplaces == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no shard of foreign table \"%s\" has a place in its hash route",
						get_rel_name(table->relid)),
				 errdetail("A shard takes rows of this table if it has a CHECK constraint that calls shard_fdw.in_hash() on the key (%s).",
						   columns),
				 errhint("Create shards with SELECT shard_fdw.create_shards(), or add the constraint to the tables that are shards.")));
	modulus = table->places[table->nplaces - 1].modulus;
	if (ordinal >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" of foreign table \"%s\" is %s",
						get_rel_name(table->members[ordinal].relid),
						get_rel_name(table->relid),
						shard_state_name(table->members[ordinal].state)),
				 errdetail("It holds the rows whose key (%s) has the hash remainder %d of %d.",
						   columns, (int) (hash % modulus), modulus),
				 errhint("Open it with SELECT shard_fdw.%s().",
						 table->members[ordinal].state == SHARD_CLOSED ?
						 "open_shard" : "unseal")));
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("no shard of foreign table \"%s\" takes the row",
					get_rel_name(table->relid)),
			 errdetail("Its key (%s) has the hash remainder %d of %d.",
					   columns, (int) (hash % modulus), modulus),
			 errhint("Create the missing shards with SELECT shard_fdw.create_shards().")));
}

/*
 * The ordinal of the shard that holds the hash of the row's key.
 */
static int
route_by_hash(ShardTable *table, TupleTableSlot *row)
{
	uint64		hash;
	int			ordinal;

	if (unlikely(table->key == NULL))
		shard_report_bad_key(table);
	hash = shard_key_hash(table->key, row);
	ordinal = shard_find_place(table, hash);
	if (unlikely(ordinal < 0 && table->nmembers > 0))
		ordinal = shard_find_place(shard_table_settle(table->relid), hash);
	if (unlikely(ordinal < 0 || !table->members[ordinal].is_open))
		report_no_place(table, hash, ordinal);
	return ordinal;
}

/*
 * shard_route_by_id
 *		The ordinal of the shard that holds the id that a row has.
 *
 * Raises ERRCODE_CHECK_VIOLATION if no open shard does.
 */
int
shard_route_by_id(ShardTable *table, TupleTableSlot *row)
{
	bool		isnull;
	Datum		value = slot_getattr(row, table->seq_attno, &isnull);
	int64		id = shard_id_from_datum(value,
										 TupleDescAttr(row->tts_tupleDescriptor,
													   table->seq_attno - 1)->atttypid);

	for (int i = 0; i < table->nopen; i++)
	{
		ShardMember *member = &table->members[table->open[i]];

		if (member->stride > 0 &&
			shard_id_fits(id, member->stride, member->id_slot))
			return table->open[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("no shard of foreign table \"%s\" takes the row",
					get_rel_name(table->relid)),
			 errdetail("The value " INT64_FORMAT " of column \"%s\" is of a slot that no open shard has.",
					   id, get_attname(table->relid, table->seq_attno, false)),
			 errhint("Leave the column out, or insert into a shard that takes any value.")));
}

/*
 * Raise an error because all shards are closed or sealed.
 */
static void
report_no_open(const ShardTable *table)
{
	int			nclosed = table->nunseen;
	int			nsealed = 0;

	for (int i = 0; i < table->nmembers; i++)
	{
		nclosed += table->members[i].state == SHARD_CLOSED;
		nsealed += table->members[i].state == SHARD_SEALED;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("all shards of foreign table \"%s\" are %s",
					get_rel_name(table->relid),
					nclosed == 0 ? "sealed" :
					nsealed == 0 ? "closed" : "closed or sealed"),
			 errhint("Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT shard_fdw.%s().",
					 nclosed == 0 ? "unseal" : "open_shard")));
}

/*
 * shard_route_peek
 *		The ordinal of the shard that a row would go to, without taking a turn
 *		of route "round_robin": see shard_route().
 */
int
shard_route_peek(ShardTable *table, TupleTableSlot *row, Oid pinned)
{
	if (unlikely(table->nmembers == 0 && table->nunseen == 0))
		report_no_shards(table);
	if (unlikely(OidIsValid(pinned)))
		return route_pinned(table, pinned);
	if (unlikely(table->nopen == 0))
	{
		report_no_open(table);
		pg_unreachable();
	}

	switch (table->route)
	{
		case SHARD_ROUTE_SESSION:
			if (unlikely(table->relid == shard_moving))
				return table->open[table->next % table->nopen];
			return table->commit_order ? route_by_lane(table) :
				route_by_session(table);
		case SHARD_ROUTE_ROUND_ROBIN:
			if (unlikely(table->commit_order))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("foreign table \"%s\" has option \"commit_order\" and route \"round_robin\"",
								get_rel_name(table->relid)),
						 errhint("Set option \"commit_order\" of the foreign table to false, or use route \"session\" or \"hash\".")));
			/* Backends that insert a row each should not all start at 0. */
			if (table->next == 0)
				table->next = shard_backend_number();
			return table->open[table->next % table->nopen];
		case SHARD_ROUTE_HASH:
			return route_by_hash(table, row);
	}
	pg_unreachable();
}

/*
 * shard_route
 *		The ordinal of the shard that a row goes to.
 *
 * "row" is in the logical table's layout; only route "hash" looks at it.
 * "pinned" is the shard that all rows go to, or InvalidOid; see shard_pin().
 * Takes a lease if the route requires one and this backend has none, and a
 * lane if it is free to choose one; see shard_take_lane() for the others.
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if no shard takes inserts or
 * the pinned one does not, and ERRCODE_CHECK_VIOLATION if none takes rows with
 * such a key.
 */
int
shard_route(ShardTable *table, TupleTableSlot *row, Oid pinned)
{
	int			ordinal = shard_route_peek(table, row, pinned);

	if (likely(!OidIsValid(pinned)))
		shard_route_commit(table);
	return ordinal;
}
