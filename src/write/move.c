/*-------------------------------------------------------------------------
 *
 * move.c
 *	  Inserting rows that were in another shard of the table before.
 *
 * A row that is moved is not a new one: triggers have seen it, and must not
 * change it.  Only those that PostgreSQL has made fire, which check foreign
 * keys and deferrable constraints.  And the rows are spread over the open
 * shards, whatever shard the session leases.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "catalog/pg_trigger.h"

/* The logical table into which rows are being moved, or InvalidOid. */
Oid			shard_moving = InvalidOid;

/*
 * shard_begin_moving
 *		The INSERT that comes next moves rows of a shard of this logical table.
 *		With InvalidOid it has ended, which has to be said after an error, too.
 */
void
shard_begin_moving(Oid logical)
{
	shard_moving = logical;
}

/*
 * shard_has_open_slots
 *		Does an open shard take ids of one slot only?
 */
bool
shard_has_open_slots(const ShardTable *table)
{
	for (int i = 0; i < table->nopen; i++)
	{
		if (table->members[table->open[i]].stride > 0)
			return true;
	}
	return false;
}

/*
 * shard_internal_triggers
 *		Of the triggers of a shard, those that check foreign keys and
 *		deferrable constraints when a row is inserted, or NULL if there are
 *		none.
 *
 * Allocated in the current memory context; what is in the triggers is shared.
 */
TriggerDesc *
shard_internal_triggers(const TriggerDesc *triggers)
{
	TriggerDesc *result;

	if (triggers == NULL)
		return NULL;
	result = palloc0(sizeof(TriggerDesc));
	result->triggers = palloc(sizeof(Trigger) * triggers->numtriggers);
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal ||
			!TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								  TRIGGER_TYPE_AFTER, TRIGGER_TYPE_INSERT))
			continue;
		result->triggers[result->numtriggers++] = *trigger;
		result->trig_insert_after_row = true;
	}
	return result->numtriggers > 0 ? result : NULL;
}
