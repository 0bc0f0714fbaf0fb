/*-------------------------------------------------------------------------
 *
 * dequeue.c
 *	  Queues: taking rows out of a logical table, dequeue(), and taking them
 *	  for a while, claim().
 *
 * These functions run a query on the logical table, with the caller's
 * privileges and a condition on tableoid that gets it to one shard, and
 * return its rows.
 *
 * dequeue() deletes each row that its query finds right away.  A statement
 * would have to lock rows first, SKIP LOCKED, then find them again by ctid,
 * and would write twice as much WAL.  A statement it is, though, where a
 * deletion is more than that: with triggers, or without the privileges for
 * the whole table.
 *
 * claim() locks the rows that its query finds in the same way.  Statements then
 * count the attempt and set the time of the next one, or move a row that has
 * had all its attempts to the table for such rows.  What is counted has to be
 * committed before the work begins, so that it is there if the worker fails;
 * the rows themselves say who has them.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"
#include "write/write.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(shard_dequeue);
PG_FUNCTION_INFO_V1(shard_claim);

/* A call of one of the functions. */
typedef struct Call
{
	ReturnSetInfo *rsinfo;
	Relation	logical;
	int			max_rows;
	char	   *order;			/* ORDER BY, or "" */
	int			nshards;
	Oid		   *shards;			/* that may be looked at */

	/* What follows is for claim(). */
	const char *attempts;		/* column, quoted */
	const char *due;			/* column, quoted */
	TimestampTz now;			/* rows are due until then */
	TimestampTz next;			/* those taken are due again then */
	int			max_attempts;	/* 0: any number */
	const char *dead_letters;	/* table and columns, for INSERT */
	const char *dead_columns;	/* the columns, for SELECT */
} Call;

/*
 * A call ends when it has moved so many rows of a shard to the dead letters, or
 * as many as it may return.  They may lead back to the shard by a trigger.
 */
#define MANY_DEAD_LETTERS	1000

/* A shard that rows are taken from. */
typedef struct Taking
{
	Relation	shard;
	char	   *condition;		/* that gets a query to it */
	TupleTableSlot *locked;
	uint64		nfound;			/* rows that the query has found */
	bool		updated;		/* of one there is a new version */
	uint64		nwanted;		/* rows to be locked, at most */
	ArrayBuildState *tids;		/* where they are */
	MemoryContext context;		/* of that */
} Taking;

/*
 * Have we got a row, by this result of deleting or locking it?
 */
static bool
got_row(Taking *taking, TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return true;
		case TM_WouldBlock:
			return false;
		case TM_Updated:
			shard_report_serialization_failure("update");
			taking->updated = true;
			return false;
		case TM_Deleted:
			shard_report_serialization_failure("delete");
			return false;
		default:
			elog(ERROR, "unexpected result of taking a row: %u", result);
	}
}

/*
 * Lock a row unless others have it locked.
 */
static TM_Result
lock_row(Taking *taking, ItemPointer tid)
{
	TM_FailureData tmfd;
	TM_Result	result = table_tuple_lock(taking->shard, tid,
										  GetActiveSnapshot(), taking->locked,
										  GetCurrentCommandId(true),
										  LockTupleExclusive, LockWaitSkip, 0,
										  &tmfd);

	ExecClearTuple(taking->locked);
	return result;
}

/*
 * Delete the row with this ctid, of one shard, unless others have locked it.
 * Returns whether it is deleted.
 */
static bool
delete_row(Datum ctid, void *state)
{
	Taking	   *taking = state;
	ItemPointer tid = (ItemPointer) DatumGetPointer(ctid);
	CommandId	cid = GetCurrentCommandId(true);
	Snapshot	snapshot = GetActiveSnapshot();
	TM_FailureData tmfd;
	TM_Result	result;

	taking->nfound++;
	/* Its new version may be the next in order. */
	if (taking->updated)
		return false;

	/* Not to wait means not to find out who has it locked, be it ourselves. */
	result = shard_tuple_delete(taking->shard, tid, cid, snapshot, false,
								&tmfd);
	if (result == TM_BeingModified)
	{
		result = lock_row(taking, tid);
		if (result == TM_Ok)
			result = shard_tuple_delete(taking->shard, tid, cid, snapshot, true,
										&tmfd);
	}
	return got_row(taking, result);
}

/*
 * Lock the row with this ctid, of one shard, unless others have locked it, and
 * note it.  It is not to be returned as it is.
 */
static bool
note_row(Datum ctid, void *state)
{
	Taking	   *taking = state;
	ItemPointer tid = (ItemPointer) DatumGetPointer(ctid);

	taking->nfound++;
	/* As with delete_row(). */
	if (taking->updated || taking->nwanted == 0 ||
		!got_row(taking, lock_row(taking, tid)))
		return false;
	taking->tids = accumArrayResult(taking->tids, ctid, false, TIDOID,
									taking->context);
	taking->nwanted--;
	return false;
}

/*
 * Would a DELETE of rows of the table fire triggers?
 */
static bool
has_delete_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return triggers && (triggers->trig_delete_before_row ||
						triggers->trig_delete_after_row ||
						triggers->trig_delete_before_statement ||
						triggers->trig_delete_after_statement);
}

/*
 * Begin to look at a shard.  False if it has been dropped just now.
 */
static bool
open_shard(const Call *call, Oid shard, Taking *taking)
{
	memset(taking, 0, sizeof(Taking));
	LockRelationOid(RelationGetRelid(call->logical), RowExclusiveLock);
	taking->shard = try_relation_open(shard, RowExclusiveLock);
	taking->condition = psprintf("tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid",
								 shard);
	return taking->shard != NULL;
}

/*
 * Delete and return rows of a shard.  Returns how many.
 */
static uint64
dequeue_rows(const Call *call, Oid shard)
{
	const AclMode needed = ACL_SELECT | ACL_UPDATE | ACL_DELETE;
	Oid			relid = RelationGetRelid(call->logical);
	char	   *table_name = shard_qualified_name(relid);
	char	   *columns;
	uint64		nrows = 0;
	uint64		limit = call->max_rows;
	Taking		taking;

	if (!open_shard(call, shard, &taking))
		return 0;

	if (has_delete_triggers(call->logical) || has_delete_triggers(taking.shard) ||
		pg_class_aclmask(relid, GetUserId(), needed, ACLMASK_ALL) != needed)
	{
		relation_close(taking.shard, NoLock);
		/* Within one shard, the ctid identifies a row. */
		return shard_return_rows(call->rsinfo,
								 psprintf("WITH d AS (DELETE FROM %s t WHERE %s"
										  " AND ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT ctid FROM %s"
										  " WHERE %s%s LIMIT %d FOR UPDATE SKIP LOCKED))"
										  " RETURNING %s) SELECT * FROM d%s",
										  table_name, taking.condition,
										  table_name, taking.condition,
										  call->order, call->max_rows,
										  shard_column_list(call->logical, "t.", true),
										  call->order),
								 0, NULL, NULL, 0, call->max_rows, NULL, NULL);
	}

	columns = shard_column_list(call->logical, "", true);
	CheckCmdReplicaIdentity(taking.shard, CMD_DELETE);
	taking.locked = table_slot_create(taking.shard, NULL);
	do
	{
		uint64		taken;

		taking.nfound = 0;
		taking.updated = false;
		/* Without parallel workers, whose leader must not delete rows. */
		taken = shard_return_rows(call->rsinfo,
								  psprintf("SELECT %s, ctid FROM %s WHERE %s%s LIMIT " UINT64_FORMAT,
										   columns, table_name,
										   taking.condition, call->order,
										   limit),
								  0, NULL, NULL, 0, call->max_rows - nrows,
								  delete_row, &taking);
		nrows += taken;
		if (nrows == call->max_rows ||
			(taking.nfound < limit && !taking.updated))
			break;
		/* Look at the new version, or behind the rows that others have. */
		limit = call->max_rows - nrows + 2 * (taking.nfound - taken);
	} while (true);
	ExecDropSingleTupleTableSlot(taking.locked);
	relation_close(taking.shard, NoLock);
	return nrows;
}

/*
 * Move those of the rows that have been locked to the dead letters that have
 * had all their attempts.  Returns how many.
 */
static uint64
bury_rows(const Call *call, const Taking *taking, Datum tids)
{
	Oid			types[] = {TIDARRAYOID, INT4OID};
	Datum		values[] = {tids, Int32GetDatum(call->max_attempts)};

	if (SPI_execute_with_args(psprintf("WITH d AS (DELETE FROM %s t WHERE %s"
									   " AND ctid OPERATOR(pg_catalog.=) ANY ($1)"
									   " AND COALESCE(%s, 0) OPERATOR(pg_catalog.>=) $2 RETURNING %s)"
									   " INSERT INTO %s OVERRIDING SYSTEM VALUE SELECT %s FROM d",
									   shard_qualified_name(RelationGetRelid(call->logical)),
									   taking->condition, call->attempts,
									   shard_column_list(call->logical, "t.", true),
									   call->dead_letters,
									   call->dead_columns),
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_INSERT)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("could not move rows of foreign table \"%s\" to the dead letters",
						RelationGetRelationName(call->logical)),
				 errdetail("The table for dead letters has a rule that does something else in place of INSERT.")));
	return SPI_processed;
}

/*
 * Count the attempt for the others, set the time of the next one, and return
 * these rows.  Returns how many.
 */
static uint64
return_claimed(const Call *call, const Taking *taking, Datum tids)
{
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZOID, INT4OID};
	Datum		values[] = {
		tids, TimestampTzGetDatum(call->next),
		Int32GetDatum(call->max_attempts)
	};

	return shard_return_rows(call->rsinfo,
							 psprintf("WITH u AS (UPDATE %s t SET %s = COALESCE(%s, 0) OPERATOR(pg_catalog.+) 1, %s = $2"
									  " WHERE %s AND ctid OPERATOR(pg_catalog.=) ANY ($1)"
									  " AND ($3 OPERATOR(pg_catalog.=) 0 OR COALESCE(%s, 0) OPERATOR(pg_catalog.<) $3)"
									  " RETURNING %s) SELECT * FROM u%s",
									  shard_qualified_name(RelationGetRelid(call->logical)),
									  call->attempts, call->attempts, call->due,
									  taking->condition, call->attempts,
									  shard_column_list(call->logical, "t.", true),
									  call->order),
							 lengthof(types), types, values, 0,
							 call->max_rows, NULL, NULL);
}

/*
 * Claim and return rows of a shard.  Returns how many.
 */
static uint64
claim_rows(const Call *call, Oid shard)
{
	char	   *due_rows;
	uint64		nrows = 0;
	uint64		nburied = 0;
	uint64		limit = call->max_rows;
	Taking		taking;

	if (!open_shard(call, shard, &taking))
		return 0;
	taking.locked = table_slot_create(taking.shard, NULL);
	taking.context = CurrentMemoryContext;
	due_rows = psprintf("SELECT ctid FROM %s WHERE %s AND %s OPERATOR(pg_catalog.<=) $1%s LIMIT ",
						shard_qualified_name(RelationGetRelid(call->logical)),
						taking.condition, call->due, call->order);
	for (;;)
	{
		Oid			types[] = {TIMESTAMPTZOID};
		Datum		values[] = {TimestampTzGetDatum(call->now)};
		uint64		ndone = 0;

		taking.nfound = 0;
		taking.updated = false;
		taking.nwanted = call->max_rows - nrows;
		taking.tids = NULL;
		(void) shard_return_rows(call->rsinfo,
								 psprintf("%s" UINT64_FORMAT, due_rows, limit),
								 lengthof(types), types, values, 0, 1,
								 note_row, &taking);
		if (taking.tids != NULL)
		{
			Datum		tids = makeArrayResult(taking.tids, taking.context);
			uint64		nreturned;

			if (call->max_attempts > 0)
				ndone = bury_rows(call, &taking, tids);
			nburied += ndone;
			nreturned = return_claimed(call, &taking, tids);
			nrows += nreturned;
			ndone += nreturned;
		}
		if (nrows == call->max_rows ||
			nburied >= Max(call->max_rows, MANY_DEAD_LETTERS) ||
			(taking.nfound < limit && !taking.updated))
			break;
		/* As dequeue_rows(), and there are those that have been moved. */
		limit = call->max_rows - nrows + 2 * (taking.nfound - ndone);
	}
	ExecDropSingleTupleTableSlot(taking.locked);
	relation_close(taking.shard, NoLock);
	return nrows;
}

/*
 * Begin a call: the arguments that the functions have in common.  "action" is
 * what shard_check_plain() says.
 */
static void
begin_call(FunctionCallInfo fcinfo, const char *function, const char *action,
		   int order_argument, int shard_argument, Call *call)
{
	Oid			relid;
	ShardTable *table;

	memset(call, 0, sizeof(Call));
	call->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	call->logical = shard_open_argument(fcinfo, function);
	call->max_rows = shard_count_argument(fcinfo, 1);
	call->order = "";
	relid = RelationGetRelid(call->logical);
	table = shard_table_get(relid);
	if (!PG_ARGISNULL(order_argument))
	{
		const char *name = NameStr(*PG_GETARG_NAME(order_argument));

		if (get_attnum(relid, name) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of foreign table \"%s\" does not exist",
							name, get_rel_name(relid))));
		call->order = psprintf(" ORDER BY %s", quote_identifier(name));
	}
	call->shards = palloc(sizeof(Oid) * Max(table->nmembers, 1));
	for (int i = 0; i < table->nmembers; i++)
	{
		/* A ctid says little about a row of another server. */
		shard_check_plain(relid, &table->members[i], action);
		call->shards[call->nshards++] = table->members[i].relid;
	}

	if (!PG_ARGISNULL(shard_argument))
	{
		Oid			shard = PG_GETARG_OID(shard_argument);

		if (shard_table_find(table, shard) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a shard of foreign table \"%s\"",
							get_rel_name(shard) ? get_rel_name(shard) :
							psprintf("%u", shard),
							get_rel_name(relid))));
		call->shards[0] = shard;
		call->nshards = 1;
	}
}

/*
 * Return rows of the first shard from which some can be taken.
 */
static void
take_rows(FunctionCallInfo fcinfo, const Call *call,
		  uint64 (*take) (const Call *call, Oid shard))
{
	static uint32 turn = 0;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	/* Sessions begin with different shards, and go on with the next. */
	if (turn == 0)
		turn = shard_backend_number() + 1;
	for (int i = 0; i < call->nshards; i++)
	{
		/* After an error, go on with the next, too. */
		if (take(call, call->shards[turn++ % call->nshards]) > 0)
		{
			turn--;
			break;
		}
	}
	SPI_finish();
	table_close(call->logical, NoLock);
}

/*
 * shard_dequeue(tbl anyelement, max_rows int, order_by name, shard regclass)
 *		SQL function dequeue(): deletes up to so many rows of one shard, the
 *		given one if any, that no other transaction has locked, and returns
 *		them.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE, ERRCODE_UNDEFINED_COLUMN,
 * ERRCODE_WRONG_OBJECT_TYPE for what is no shard, ERRCODE_DATATYPE_MISMATCH
 * for a type that is no logical table's, ERRCODE_FEATURE_NOT_SUPPORTED if a
 * shard is a foreign table, and ERRCODE_T_R_SERIALIZATION_FAILURE if the
 * isolation level says so.
 */
Datum
shard_dequeue(PG_FUNCTION_ARGS)
{
	Call		call;

	begin_call(fcinfo, "dequeue()", "dequeue rows of", 2, 3, &call);
	take_rows(fcinfo, &call, dequeue_rows);
	return (Datum) 0;
}

/*
 * A column that claim() changes, which an argument names, quoted.  It must be
 * of the given type, or of an integer type if that is INT4OID, and the caller
 * must be allowed to change it.
 */
static const char *
column_argument(FunctionCallInfo fcinfo, int n, const Call *call,
				const char *parameter, Oid type, const char *definition)
{
	Oid			relid = RelationGetRelid(call->logical);
	const char *name;
	AttrNumber	attno;
	Oid			found;

	shard_check_argument(fcinfo, n, psprintf("parameter \"%s\"", parameter));
	name = NameStr(*PG_GETARG_NAME(n));
	attno = get_attnum(relid, name);
	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of foreign table \"%s\" does not exist",
						name, get_rel_name(relid)),
				 errhint("Add it with ALTER FOREIGN TABLE %s ADD COLUMN %s %s, or name another one with parameter \"%s\".",
						 shard_qualified_name(relid), quote_identifier(name),
						 definition, parameter)));
	found = get_atttype(relid, attno);
	if (type == INT4OID ? !shard_is_integer_type(found) : found != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of foreign table \"%s\" has type %s",
						name, get_rel_name(relid), format_type_be(found)),
				 errdetail("Parameter \"%s\" of claim() requires a column of type %s.",
						   parameter, format_type_be(type))));
	/* Or rows would be locked before UPDATE says so. */
	if (pg_class_aclcheck(relid, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		pg_attribute_aclcheck(relid, attno, GetUserId(),
							  ACL_UPDATE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE,
					   get_rel_name(relid));
	return quote_identifier(name);
}

/*
 * Where rows go that have had all their attempts: a table that has the columns
 * of the logical table.  What it has beyond them gets its defaults.
 */
static void
set_dead_letters(FunctionCallInfo fcinfo, Call *call)
{
	Oid			relid = RelationGetRelid(call->logical);
	TupleDesc	desc = RelationGetDescr(call->logical);
	Oid			table;
	char	   *name;
	Relation	rel;
	StringInfoData columns;

	if (PG_ARGISNULL(3) != PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("parameters \"%s\" and \"%s\" require each other",
						"max_attempts", "dead_letters")));
	if (PG_ARGISNULL(3))
		return;
	call->max_attempts = PG_GETARG_INT32(3);
	if (call->max_attempts < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of attempts must be greater than zero")));
	table = PG_GETARG_OID(4);
	if (table == relid || shard_table_find(shard_table_get(relid), table) >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dead letters of foreign table \"%s\" must go to another table",
						get_rel_name(relid))));
	/* Or anybody could lock any table. */
	name = get_rel_name(table);
	if (name == NULL)
		shard_report_missing(table);
	if (pg_class_aclcheck(table, GetUserId(), ACL_INSERT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(table, GetUserId(), ACL_INSERT,
								  ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV,
					   get_relkind_objtype(get_rel_relkind(table)), name);
	rel = try_relation_open(table, RowExclusiveLock);
	if (rel == NULL)
	{
		shard_report_missing(table);
		pg_unreachable();
	}
	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
	{
		AttrNumber	attno;

		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		name = NameStr(TupleDescAttr(desc, i)->attname);
		attno = get_attnum(table, name);
		if (attno == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							name, RelationGetRelationName(rel)),
					 errdetail("Dead letters of foreign table \"%s\" would lose its value.",
							   get_rel_name(relid))));
		if (!TupleDescAttr(RelationGetDescr(rel), attno - 1)->attgenerated)
			appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
							 quote_identifier(name));
	}
	call->dead_columns = columns.data;
	call->dead_letters = psprintf("%s (%s)", shard_qualified_name(table),
								  columns.data);
	relation_close(rel, NoLock);
}

/*
 * shard_claim(tbl anyelement, max_rows int, retry_after interval,
 *			   max_attempts int, dead_letters regclass, order_by name,
 *			   shard regclass, attempts_column name, due_column name)
 *		SQL function claim(): returns up to so many rows of one shard, the given
 *		one if any, that are due and that no other transaction has locked,
 *		counts that in one of their columns, and sets another to the time when
 *		they are due again.  Those that have been counted so often already are
 *		moved to the dead letters instead.
 *
 * Raises what shard_dequeue() raises, and ERRCODE_NULL_VALUE_NOT_ALLOWED,
 * ERRCODE_INVALID_PARAMETER_VALUE, ERRCODE_DATATYPE_MISMATCH for columns of
 * other types, and what UPDATE, DELETE and INSERT raise.
 */
Datum
shard_claim(PG_FUNCTION_ARGS)
{
	Call		call;
	ShardTable *table;
	int			nshards = 0;

	begin_call(fcinfo, "claim()", "claim rows of", 5, 6, &call);
	shard_check_argument(fcinfo, 2, "parameter \"retry_after\"");
	call.now = GetCurrentTimestamp();
	call.next = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														TimestampTzGetDatum(call.now),
														PG_GETARG_DATUM(2)));
	if (call.next <= call.now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" must be greater than zero",
						"retry_after")));
	set_dead_letters(fcinfo, &call);
	call.attempts = column_argument(fcinfo, 7, &call, "attempts_column",
									INT4OID, "integer NOT NULL DEFAULT 0");
	call.due = column_argument(fcinfo, 8, &call, "due_column", TIMESTAMPTZOID,
							   "timestamp with time zone DEFAULT now()");

	/* Rows of sealed shards cannot be changed. */
	table = shard_table_get(RelationGetRelid(call.logical));
	for (int i = 0; i < call.nshards; i++)
	{
		int			ordinal = shard_table_find(table, call.shards[i]);

		if (ordinal < 0 || table->members[ordinal].state != SHARD_SEALED)
			call.shards[nshards++] = call.shards[i];
	}
	call.nshards = nshards;
	take_rows(fcinfo, &call, claim_rows);
	return (Datum) 0;
}
