/*-------------------------------------------------------------------------
 *
 * admin.c
 *	  SQL functions that show shards, seal them, and run commands on them.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote.h"
#include "shards/shards_private.h"
#include "write/write.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "tcop/cmdtag.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_list_shards);
PG_FUNCTION_INFO_V1(shard_last_shard);
PG_FUNCTION_INFO_V1(shard_seal);
PG_FUNCTION_INFO_V1(shard_unseal);
PG_FUNCTION_INFO_V1(shard_run_command_on_shards);
PG_FUNCTION_INFO_V1(shard_format_on_shards);

/*
 * The shards of a logical table, in ordinal order, as shard_list_members()
 * returns them, read under this lock if it is not NoLock.
 *
 * A lock stronger than AccessShareLock is kept until the transaction ends.
 * A relation that has just been dropped has no shards; for other relations,
 * ERRCODE_WRONG_OBJECT_TYPE is raised.
 */
static ShardMember *
get_shards(Oid logical, LOCKMODE mode, int *nshards)
{
	ShardMember *result;
	bool		exists;

	if (mode != NoLock)
		LockRelationOid(logical, mode);
	exists = shard_is_logical(logical);
	if (!exists && get_rel_name(logical) != NULL)
		shard_check_logical(logical);
	result = shard_list_members(logical, nshards);
	/* Anybody may ask, also who must not be in the way of the owner. */
	if (mode == AccessShareLock || (mode != NoLock && !exists))
		UnlockRelationOid(logical, mode);
	return result;
}

/*
 * shard_list_shards(logical regclass, missing_ok bool)
 *		SQL function list_shards(): shard, ordinal and state of every shard.
 *
 * Strict.  Waits for nobody.  If the table is no logical table, raises
 * ERRCODE_WRONG_OBJECT_TYPE, or returns nothing if missing_ok: the views ask
 * for all tables, in whatever order their plans join them.
 */
Datum
shard_list_shards(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical = PG_GETARG_OID(0);
	int			nshards;
	ShardMember *shards;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_GETARG_BOOL(1) && !shard_is_logical(logical))
		return (Datum) 0;
	shards = get_shards(logical, NoLock, &nshards);
	for (int i = 0; i < nshards; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		values[0] = ObjectIdGetDatum(shards[i].relid);
		values[1] = Int32GetDatum(i);
		values[2] = CStringGetTextDatum(shard_state_name(shards[i].state));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

/*
 * shard_last_shard()
 *		SQL function last_shard(): where this session's last row went, or
 *		null.
 */
Datum
shard_last_shard(PG_FUNCTION_ARGS)
{
	if (!OidIsValid(shard_last) || get_rel_name(shard_last) == NULL)
		PG_RETURN_NULL();
	PG_RETURN_OID(shard_last);
}

/*
 * Lock the shard to seal or unseal, so that its state stays what we are going
 * to find.
 */
static void
lock_shard_to_alter(Oid shard, bool or_sealed)
{
	/* Before: not to lock what is not ours.  After: it may have changed. */
	shard_check_to_alter(shard, or_sealed);
	shard_lock_patiently(shard, AccessExclusiveLock);
	shard_check_to_alter(shard, or_sealed);
}

/*
 * shard_seal(shard regclass)
 *		SQL function seal(): no more rows go into the shard.
 *
 * Waits for transactions that have used the shard, but lets others use it
 * meanwhile; see shard_lock_patiently() for how long.  Raises
 * ERRCODE_WRONG_OBJECT_TYPE if the table is no shard.
 */
Datum
shard_seal(PG_FUNCTION_ARGS)
{
	Oid			shard = PG_GETARG_OID(0);

	PreventCommandIfReadOnly("seal()");
	lock_shard_to_alter(shard, false);
	if (shard_seal_constraint(shard) != NULL)
	{
		ereport(NOTICE,
				(errmsg("shard \"%s\" is already sealed, skipping",
						get_rel_name(shard))));
		PG_RETURN_VOID();
	}
	SPI_connect();
	shard_execute("ALTER TABLE %s ADD CONSTRAINT shard_sealed CHECK (false) NOT VALID",
				  shard_qualified_name(shard));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * shard_unseal(shard regclass)
 *		SQL function unseal(): the shard takes inserts again.  So does a table
 *		that was sealed as a shard and then detached.
 *
 * Raises what shard_seal() does; ERRCODE_WRONG_OBJECT_TYPE if the table is
 * neither a shard nor sealed.
 */
Datum
shard_unseal(PG_FUNCTION_ARGS)
{
	Oid			shard = PG_GETARG_OID(0);

	PreventCommandIfReadOnly("unseal()");
	lock_shard_to_alter(shard, true);
	if (shard_seal_constraint(shard) == NULL)
	{
		ereport(NOTICE,
				(errmsg("shard \"%s\" is not sealed, skipping",
						get_rel_name(shard))));
		PG_RETURN_VOID();
	}
	SPI_connect();
	shard_drop_seal(shard);
	SPI_finish();
	if (shard_is_closed(shard))
		ereport(WARNING,
				(errmsg("shard \"%s\" is closed", get_rel_name(shard)),
				 errdetail("No row of an insert into its foreign table goes there."),
				 errhint("Open it with SELECT shard_fdw.open_shard().")));
	PG_RETURN_VOID();
}

/*
 * The command with a name in place of %s.
 */
static char *
put_name(const char *command, const char *name)
{
	StringInfoData sql;
	const char *next;

	initStringInfo(&sql);
	for (; (next = strstr(command, "%s")) != NULL; command = next + 2)
	{
		appendBinaryStringInfo(&sql, command, next - command);
		appendStringInfoString(&sql, name);
	}
	appendStringInfoString(&sql, command);
	return sql.data;
}

/*
 * shard_command_for
 *		The command for one shard: %s becomes the shard's name.  NULL if the
 *		shard has been dropped, by an earlier command or by somebody else.
 */
char *
shard_command_for(const char *command, Oid shard)
{
	char	   *name = shard_qualified_name(shard);

	return name == NULL ? NULL : put_name(command, name);
}

/*
 * shard_format_on_shards(logical regclass, command text)
 *		SQL function format_on_shards(): the command for each shard, as text.
 */
Datum
shard_format_on_shards(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			nshards;
	ShardMember *shards = get_shards(PG_GETARG_OID(0), NoLock, &nshards);
	char	   *command = text_to_cstring(PG_GETARG_TEXT_PP(1));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < nshards; i++)
	{
		Datum		value;
		bool		isnull = false;
		char	   *sql = shard_command_for(command, shards[i].relid);

		if (sql == NULL)
			continue;
		value = CStringGetTextDatum(sql);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
							 &isnull);
	}
	return (Datum) 0;
}

/*
 * What a command has to say: the first value of the first row it returned,
 * or its tag.  Null if it returned no row.  SPI still has the result.
 */
static char *
command_result(const char *sql)
{
	List	   *statements;
	CommandTag	tag;

	if (SPI_tuptable != NULL)
		return SPI_processed == 0 ? NULL :
			SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

	statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	if (statements == NIL)
		return NULL;
	tag = CreateCommandTag(llast_node(RawStmt, statements)->stmt);
	if (!command_tag_display_rowcount(tag))
		return pstrdup(GetCommandTagName(tag));
	return psprintf("%s%s " UINT64_FORMAT, GetCommandTagName(tag),
					tag == CMDTAG_INSERT ? " 0" : "", SPI_processed);
}

/*
 * Run one command here.  Returns its result, in the given memory context, or
 * NULL.
 */
static char *
run_here(const char *sql, MemoryContext context)
{
	char	   *result;
	int			rc;

	SPI_connect();
	rc = SPI_execute(sql, false, 0);
	if (rc == SPI_ERROR_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot begin or end transactions on shards")));
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot run this command on shards"),
				 errdetail("Running it returned \"%s\".",
						   SPI_result_code_string(rc))));
	result = command_result(sql);
	if (result != NULL)
		result = MemoryContextStrdup(context, result);
	SPI_finish();
	return result;
}

/*
 * shard_run_command
 *		Run a command on one shard, whose name takes the place of %s: where the
 *		shard's rows are, so on the node if the shard is remote.  Returns its
 *		result, in the given memory context, or NULL.
 *
 * Does nothing if the shard has been dropped, by an earlier command or by
 * somebody else; *exists tells.  Raises what the command raises, and
 * ERRCODE_FEATURE_NOT_SUPPORTED if it begins or ends a transaction.
 */
char *
shard_run_command(const char *command, Oid shard, MemoryContext context,
				  bool *exists)
{
	char	   *sql = shard_command_for(command, shard);
	char	   *result;

	*exists = sql != NULL;
	if (sql == NULL)
		return NULL;
	if (!shard_is_on_node(shard))
		return run_here(sql, context);
	result = shard_node_run_command(GetForeignServerIdByRelId(shard),
									put_name(command,
											 shard_node_table_name(shard)));
	return result == NULL ? NULL : MemoryContextStrdup(context, result);
}

/* A command for a shard. */
typedef struct ShardCommand
{
	const char *command;
	Oid			shard;
} ShardCommand;

static char *
run_on_shard(void *arg)
{
	const ShardCommand *command = arg;
	bool		exists;

	return shard_run_command(command->command, command->shard,
							 CurrentMemoryContext, &exists);
}

/*
 * Error context callback: which shard the command was for.
 */
static void
report_shard(void *arg)
{
	errcontext("command on shard \"%s\"", (char *) arg);
}

/*
 * The lock on the logical table under which the current user's commands run:
 * one that keeps the set of shards as it is, and other such commands away.
 *
 * Those who could not take it with LOCK TABLE must not get it this way; for a
 * relation that is none of ours or is gone, an error can wait.  In a
 * transaction that is read-only, as on a standby, there is nothing to guard.
 */
static LOCKMODE
lock_for_commands(Oid logical)
{
	if (XactReadOnly || get_rel_name(logical) == NULL ||
		!shard_is_logical(logical))
		return AccessShareLock;
	if (shard_class_ownercheck(logical, GetUserId()) ||
		pg_class_aclcheck(logical, GetUserId(),
						  SHARD_ACL_LOCK) == ACLCHECK_OK)
		return ShareUpdateExclusiveLock;
	return AccessShareLock;
}

/*
 * shard_run_command_on_shards(logical regclass, command text, on_error text)
 *		SQL function run_command_on_shards(): runs the command on each shard.
 *
 * If "on_error" is "stop", raises what the first command raises that fails.
 * If it is "continue", each runs in a subtransaction, and one that fails
 * leaves the others in place.
 */
Datum
shard_run_command_on_shards(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical;
	int			nshards;
	ShardMember *shards;
	char	   *command;
	bool		stops;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "command");
	shard_check_argument(fcinfo, 2, "parameter \"on_error\"");
	logical = PG_GETARG_OID(0);
	command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	stops = shard_stops_on_error(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	shards = get_shards(logical, lock_for_commands(logical), &nshards);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < nshards; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false, false, false};
		char	   *name = get_rel_name(shards[i].relid);
		char	   *result;
		bool		success = true;
		bool		exists = true;

		if (name == NULL)
			continue;
		if (stops)
		{
			ErrorContextCallback callback;

			callback.callback = report_shard;
			callback.arg = name;
			callback.previous = error_context_stack;
			error_context_stack = &callback;
			result = shard_run_command(command, shards[i].relid,
									   CurrentMemoryContext, &exists);
			error_context_stack = callback.previous;
		}
		else
		{
			ShardCommand shard_command = {command, shards[i].relid};

			success = shard_try_command(run_on_shard, &shard_command,
										&result);
		}
		values[0] = ObjectIdGetDatum(shards[i].relid);
		values[1] = BoolGetDatum(success);
		nulls[2] = result == NULL;
		values[2] = result ? CStringGetTextDatum(result) : (Datum) 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}
