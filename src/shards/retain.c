/*-------------------------------------------------------------------------
 *
 * retain.c
 *	  Dropping old shards.
 *
 * A remote shard is dropped with its table on the node, which is locked with it
 * while the node looks at the rows.  The node commits after this server: if that
 * fails, a table is left there that no shard stands for.
 *
 * No range tells how old the rows of a remote shard are, so its node is asked,
 * before anything is locked.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume.h"
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(shard_retain_sql);

/* How long to wait for a shard that is to be dropped, in milliseconds. */
#define RETAIN_PATIENCE		5000

/* How it went to lock a shard that may be old. */
typedef enum Attempt
{
	ATTEMPT_BUSY,				/* others use it */
	ATTEMPT_KEPT,				/* it has rows that are to be kept */
	ATTEMPT_DONE				/* it can go, and stays locked */
} Attempt;

/*
 * Are all rows of a closed shard older than the limit?  The range knows, if
 * there is one; else the rows are asked.  SPI is connected.
 */
static bool
is_old(const ShardTable *table, Oid shard, TimestampTz limit)
{
	int			ordinal = shard_table_find(table, shard);
	const ShardMember *member = &table->members[ordinal];
	Oid			type = table->time_type;
	char	   *sql;
	Datum		value;
	bool		isnull;

	if (member->has_range)
		return shard_is_expired(member, type, limit);
	sql = psprintf("SELECT pg_catalog.max(%s) FROM %s",
				   quote_identifier(get_attname(table->relid,
												table->time_attno, false)),
				   shard_qualified_name(shard));
	if (SPI_execute(sql, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "SPI_execute failed: %s", sql);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	return isnull || shard_is_before(value, type, limit);
}

/*
 * Is the relation a closed shard of the logical table, and an ordinary table or a
 * foreign table of postgres_fdw?
 */
static bool
is_closed_member(const ShardTable *table, Oid shard)
{
	int			ordinal = shard_table_find(table, shard);
	const ShardMember *member = &table->members[Max(ordinal, 0)];

	return ordinal >= 0 && !member->is_open &&
		(member->is_local ||
		 (!member->has_children && shard_is_on_node(shard))) &&
		shard_is_closed(shard);
}

/*
 * The column of a shard that holds the time.
 */
static AttrNumber
time_column_of(const ShardTable *table, Oid shard)
{
	return get_attnum(shard, get_attname(table->relid, table->time_attno, false));
}

/*
 * Try to lock a remote shard and its table, and to drop the latter unless it is
 * to be kept, both for a moment at most: who has the shard locked may have to
 * wait for the table.  Nothing is locked if that fails.
 */
static Attempt
try_on_node(Oid logical, Oid shard, TimestampTz older_than, bool keep_tables)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile Attempt result = ATTEMPT_BUSY;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (shard_try_patiently(list_make1_oid(shard), AccessExclusiveLock,
								SHARD_LOCK_TRY_TIME))
		{
			const ShardTable *table = shard_table_get(logical);

			result = is_closed_member(table, shard) &&
				shard_node_retire(shard, GetUserId(),
								  time_column_of(table, shard),
								  table->time_type, older_than, keep_tables) ?
				ATTEMPT_DONE : ATTEMPT_KEPT;
		}
		if (result == ATTEMPT_DONE)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);

		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
		result = ATTEMPT_BUSY;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * Do so until it succeeds, or "patience" is over.
 */
static Attempt
lock_on_node(Oid logical, Oid shard, TimestampTz older_than, bool keep_tables,
			 int patience)
{
	TimestampTz start = GetCurrentTimestamp();
	int			pause = 0;
	Attempt		result;

	if (!keep_tables)
		shard_node_begin_retire(shard, GetUserId());
	while ((result = try_on_node(logical, shard, older_than,
								 keep_tables)) == ATTEMPT_BUSY)
	{
		long		left = patience -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());

		if (left <= 0)
			break;
		shard_pause_lock_wait(&pause, left);
	}
	return result;
}

/*
 * Lock an ordinary table, and the tables that its foreign keys point to if it is
 * to be dropped.
 */
static Attempt
lock_here(Oid logical, Oid shard, TimestampTz older_than, bool keep_tables,
		  int patience)
{
	List	   *relids = list_make1_oid(shard);

	if (!is_old(shard_table_get(logical), shard, older_than))
		return ATTEMPT_KEPT;

	/* A foreign key that goes is one that writers of other shards check. */
	if (!keep_tables)
		relids = list_concat(relids, shard_referenced_tables(shard));
	if (!shard_try_patiently(relids, AccessExclusiveLock, patience))
		return ATTEMPT_BUSY;

	/* Now it stays what it is. */
	return is_closed_member(shard_table_get(logical), shard) &&
		is_old(shard_table_get(logical), shard, older_than) ?
		ATTEMPT_DONE : ATTEMPT_KEPT;
}

/*
 * Tell that a shard is in use.
 */
static void
report_in_use(Oid logical, Oid shard, bool is_local)
{
	ereport(WARNING,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("shard \"%s\" of foreign table \"%s\" is in use, skipping",
					get_rel_name(shard), get_rel_name(logical)),
			 is_local ?
			 errdetail("Another transaction uses it, or a table that a foreign key of it points to.") :
			 errdetail("A transaction uses it, or its table on server \"%s\", or a table that a foreign key of that points to.",
					   GetForeignServer(GetForeignServerIdByRelId(shard))->servername)));
}

/*
 * Drop or detach a shard if all its rows are old and have been read.  Returns
 * whether that has been done.  SPI is connected, and we are the owner.
 */
static bool
retain_locked(Oid logical, Oid shard, TimestampTz older_than,
			  bool keep_tables, int patience,
			  MemoryContext context, char **trouble)
{
	const ShardTable *table = shard_table_get(logical);
	bool		is_local;
	char	   *consumer;

	if (!is_closed_member(table, shard))
		return false;
	is_local = table->members[shard_table_find(table, shard)].is_local;
	switch ((is_local ? lock_here : lock_on_node) (logical, shard, older_than,
												   keep_tables, patience))
	{
		case ATTEMPT_BUSY:
			*trouble = MemoryContextStrdup(context,
										   psprintf("shard \"%s\" is in use",
													get_rel_name(shard)));
			report_in_use(logical, shard, is_local);
			return false;
		case ATTEMPT_KEPT:
			return false;
		case ATTEMPT_DONE:
			break;
	}
	consumer = shard_unread_by(logical, shard);
	if (consumer != NULL)
	{
		*trouble = MemoryContextStrdup(context,
									   psprintf("shard \"%s\" is kept for consumer \"%s\"",
												get_rel_name(shard), consumer));
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("shard \"%s\" of foreign table \"%s\" is kept for consumer \"%s\"",
						get_rel_name(shard), get_rel_name(logical), consumer),
				 errdetail("The consumer has not read all of its rows."),
				 errhint("If it is not going to read them, drop it with SELECT shard_fdw.drop_consumer().")));
		return false;
	}
	if (keep_tables)
		shard_execute("ALTER TABLE %s NO INHERIT %s",
					  shard_qualified_name(shard),
					  shard_qualified_name(logical));
	else
	{
		shard_forget_closed(shard);
		shard_drop_all(list_make1_oid(shard));
	}
	return true;
}

/*
 * Is the shard closed, on a node that has not been lost, and old?  *server
 * becomes the node, and *is_connected says whether that has been reached.
 */
static bool
is_old_on_node(Oid logical, Oid shard, TimestampTz older_than, int patience,
			   const List *lost, volatile Oid *server,
			   volatile bool *is_connected)
{
	const ShardTable *table = shard_table_get(logical);
	bool		result = false;
	Relation	rel;
	Oid			owner;

	if (!is_closed_member(table, shard))
		return false;
	if (!shard_try_patiently(list_make1_oid(shard), AccessShareLock, patience))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("it is in use")));
	table = shard_table_get(logical);
	if (is_closed_member(table, shard))
	{
		rel = table_open(logical, NoLock);
		owner = rel->rd_rel->relowner;
		table_close(rel, NoLock);
		*server = GetForeignServerIdByRelId(shard);
		if (!list_member_oid(lost, *server))
		{
			shard_node_connect(*server, owner);
			*is_connected = true;
			result = shard_node_is_old(shard, owner,
									   time_column_of(table, shard),
									   table->time_type, older_than, patience);
		}
	}
	UnlockRelationOid(shard, AccessShareLock);
	return result;
}

/*
 * shard_ask_node
 *		Are all rows of a remote shard, if it is closed, older than the time?  Its
 *		node is asked, by the user mapping of the owner of the logical table.
 *
 * The logical table is locked.  An error is reported as a WARNING, and is in
 * *trouble as shard_retain() has it.  Waits for a lock for "patience"
 * milliseconds.  A node that cannot be reached is added to the list of servers
 * that are lost, whose shards are passed over.
 */
bool
shard_ask_node(Oid logical, Oid shard, TimestampTz older_than, int patience,
			   List **lost, char **trouble)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *relname = get_rel_name(shard);
	volatile Oid server = InvalidOid;
	volatile bool is_connected = false;
	volatile bool result = false;

	*trouble = NULL;
	if (relname == NULL)
		return false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		result = is_old_on_node(logical, shard, older_than, patience, *lost,
								&server, &is_connected);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);
		bool		is_lost = OidIsValid(server) &&
			(!is_connected ||
			 ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION);

		if (is_lost)
			*lost = lappend_oid(*lost, server);
		*trouble = psprintf("could not find out whether shard \"%s\" is old: %s",
							relname, error->message);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not find out whether shard \"%s\" is old: %s",
						relname, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 is_lost ? errhint("Other shards on the server are not looked at, either.") : 0));
		FreeErrorData(error);
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * shard_retain
 *		Drop a shard, or detach it, if it is closed, all its rows are older
 *		than the time, and all consumers have read them.  Returns its name with
 *		the schema, in the current memory context, or NULL if it is kept.
 *
 * The logical table is locked and has a time column; the isolation level is
 * READ COMMITTED.  shard_ask_node() has found a remote shard to be old.  Acts as
 * the owner of the logical table, in a subtransaction.  An error, a shard that
 * others use, or one that has not been read, is reported as a WARNING.  Takes ACCESS EXCLUSIVE locks on the shard
 * and, if that is dropped, on the tables that its foreign keys point to; they
 * last until the end of the transaction.  We wait for them for "patience"
 * milliseconds, in which nobody has to wait for long behind us.  What the
 * WARNING says in short is also in *trouble, in the current memory context.
 *
 * The table of a remote shard is dropped, with the owner's user mapping, when the
 * transaction has been committed.
 */
char *
shard_retain(Oid logical, Oid shard, TimestampTz older_than, bool keep_tables,
			 int patience, char **trouble)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *name = shard_qualified_name(shard);
	char	   *relname = get_rel_name(shard);
	volatile bool done = false;

	*trouble = NULL;
	if (name == NULL)
		return NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Relation	rel = table_open(logical, NoLock);
		ShardIdentity identity;

		SPI_connect();
		shard_become_owner(rel, &identity);
		table_close(rel, NoLock);
		shard_set("row_security", "off");
		done = retain_locked(logical, shard, older_than, keep_tables,
							 patience, context, trouble);
		shard_restore_identity(&identity);
		SPI_finish();
		/* What is kept need not stay locked. */
		if (done)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);

		*trouble = psprintf("could not drop shard \"%s\": %s", relname,
							error->message);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not drop shard \"%s\": %s", relname,
						error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0));
		FreeErrorData(error);
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done ? name : NULL;
}

/*
 * shard_retain_patience
 *		How long to wait for the locks on a shard that is to be dropped, in
 *		milliseconds, if no others are held: as setting "lock_timeout" says.
 */
int
shard_retain_patience(void)
{
	return LockTimeout > 0 ? LockTimeout : RETAIN_PATIENCE;
}

/*
 * shard_check_timed
 *		Lock a logical table of the caller's against being dropped, and return
 *		what is known of it.
 *
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it has no time column,
 * and what shard_check_owned() raises.
 */
ShardTable *
shard_check_timed(Oid logical)
{
	ShardTable *table;

	shard_check_owned(logical);
	LockRelationOid(logical, AccessShareLock);
	/* It may have been dropped, or given away, while we waited. */
	shard_check_owned(logical);
	table = shard_table_get(logical);
	if (table->time_attno == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no time column",
						get_rel_name(logical)),
				 errhint("Set option \"time_column\" of the foreign table.")));
	return table;
}

/*
 * Up to which time rows may go: that of the argument, or else now less what
 * option "retain_for" says.
 */
static TimestampTz
retention_limit(FunctionCallInfo fcinfo, Oid logical)
{
	ShardOptions options;

	if (!PG_ARGISNULL(1))
		return PG_GETARG_TIMESTAMPTZ(1);
	shard_get_options(logical, &options);
	if (options.retain_for == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no option \"retain_for\"",
						get_rel_name(logical)),
				 errhint("Set the option, or call retain() with a time.")));
	return shard_retention_limit(GetCurrentTransactionStartTimestamp(),
								 options.retain_for);
}

/*
 * shard_retain_sql(logical regclass, older_than timestamptz, keep_tables bool)
 *		SQL function retain(): drops or detaches the closed shards all of whose
 *		rows are older, and returns their names.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical
 * table, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it has no time column or
 * does not know how long to keep rows, and ERRCODE_ACTIVE_SQL_TRANSACTION
 * unless the isolation level is READ COMMITTED.
 */
Datum
shard_retain_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		keep_tables = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Oid			logical = PG_GETARG_OID(0);
	TimestampTz limit;
	ShardTable *table;
	List	   *shards = NIL;
	List	   *remote = NIL;
	List	   *lost = NIL;
	int			patience = shard_retain_patience();
	ListCell   *lc;

	shard_check_argument(fcinfo, 0, "logical table");
	PreventCommandIfReadOnly("retain()");
	shard_check_owned(logical);
	/* A row that the snapshot does not show would be dropped unseen. */
	shard_check_read_committed("drop old shards");
	table = shard_check_timed(logical);
	limit = retention_limit(fcinfo, logical);
	for (int i = 0; i < table->nmembers; i++)
	{
		shards = lappend_oid(shards, table->members[i].relid);
		if (!table->members[i].is_local)
			remote = lappend_oid(remote, table->members[i].relid);
	}
	/* While nothing is locked. */
	foreach(lc, remote)
	{
		char	   *trouble;

		if (!shard_ask_node(logical, lfirst_oid(lc), limit, patience, &lost,
							&trouble))
			shards = list_delete_oid(shards, lfirst_oid(lc));
	}

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, shards)
	{
		char	   *trouble;
		char	   *name = shard_retain(logical, lfirst_oid(lc), limit,
										keep_tables, patience, &trouble);
		Datum		value;
		bool		isnull = false;

		if (name == NULL)
			continue;
		/* Others may wait for the locks that we have now. */
		patience = 0;
		value = CStringGetTextDatum(name);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
							 &isnull);
	}
	return (Datum) 0;
}
