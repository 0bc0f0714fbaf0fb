/*-------------------------------------------------------------------------
 *
 * create_index.c
 *	  Procedure create_index(): an index on all shards, while others write.
 *
 * A background worker builds the index of one shard after the other with
 * CREATE INDEX CONCURRENTLY (outside.c).  Nothing is noted anywhere: what is
 * left to do is found from the indexes that there are.  To compare them with
 * what is wanted, the index is first created on an empty table like a shard,
 * which is rolled back; that is also how an error in the definition is found.
 *
 * An attempt that fails leaves an index that is not valid, and that costs those
 * who write.  It is dropped at once if the session is still there, else by the
 * next call.  New shards are copies of others, so they have the index once all
 * others have it; and that is looked at in the end, while none can be created.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/table.h"
#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_create_index);

/* The index that is wanted. */
typedef struct Wanted
{
	Oid			logical;
	bool		is_unique;
	char	   *definition;		/* what follows the table's name */
	char	   *canonical;		/* the same as pg_get_indexdef() writes it */
} Wanted;

/* The empty table, of which the user sees the name in messages only. */
#define MODEL "pg_temp.shard_fdw_create_index"

/*
 * The command that creates the index on a table.
 */
static char *
create_command(const Wanted *wanted, const char *table, bool online)
{
	return psprintf("CREATE %sINDEX %sON %s %s",
					wanted->is_unique ? "UNIQUE " : "",
					online ? "CONCURRENTLY " : "", table, wanted->definition);
}

/*
 * Raise an error unless the definition makes one command, or is what it is
 * said to be.
 */
static void
check_definition(const Wanted *wanted)
{
	List	   *statements = raw_parser(create_command(wanted, MODEL, false),
										RAW_PARSE_DEFAULT);

	if (list_length(statements) != 1 ||
		!IsA(linitial_node(RawStmt, statements)->stmt, IndexStmt))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid definition of an index"),
				 errdetail("It is more than one command.")));
}

/*
 * What follows the table's name in the definition of an index "i" of a table
 * "t", named "c", as pg_get_indexdef() writes it.
 */
#define CANONICAL \
	"pg_catalog.substr(pg_catalog.pg_get_indexdef(i.indexrelid)," \
	" pg_catalog.length(pg_catalog.format('CREATE %sINDEX %I ON %I.%I '," \
	" CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname," \
	" CASE WHEN t.relnamespace = pg_catalog.pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END," \
	" t.relname)) + 1)"

#define FROM_INDEXES \
	" FROM pg_catalog.pg_index i" \
	" JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid" \
	" JOIN pg_catalog.pg_class t ON t.oid = i.indrelid" \
	" JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"

/*
 * Create the index on an empty table like the shard, read what it is, and roll
 * that back.  The result is in the current memory context.
 */
static char *
canonical_definition(const Wanted *wanted, Oid shard)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *volatile result = NULL;
	ErrorData  *volatile error = NULL;

	PushActiveSnapshot(GetTransactionSnapshot());
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			guc_level;
		Oid			owner_id;
		Relation	rel;

		SPI_connect();
		shard_execute("CREATE TABLE " MODEL " (LIKE %s)",
					  shard_qualified_name(shard));
		/* As on the shard, functions in the index run as its owner. */
		rel = table_open(shard, AccessShareLock);
		owner_id = rel->rd_rel->relowner;
		table_close(rel, NoLock);
		if (owner_id != GetUserId())
			shard_execute("ALTER TABLE " MODEL " OWNER TO %s",
						  quote_identifier(GetUserNameFromId(owner_id, false)));
		shard_execute("%s", create_command(wanted, MODEL, false));
		/* Names are written as find_index() has them; the path is restored. */
		guc_level = NewGUCNestLevel();
		shard_set("search_path", "pg_catalog, pg_temp");
		if (SPI_execute("SELECT " CANONICAL FROM_INDEXES
						" WHERE i.indrelid = '" MODEL "'::pg_catalog.regclass",
						false, 0) != SPI_OK_SELECT || SPI_processed != 1)
			elog(ERROR, "could not read the definition of the index");
		result = MemoryContextStrdup(context,
									 SPI_getvalue(SPI_tuptable->vals[0],
												  SPI_tuptable->tupdesc, 1));
		AtEOXact_GUC(false, guc_level);
		SPI_finish();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = shard_catch(context, owner);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	PopActiveSnapshot();
	if (error != NULL)
		ReThrowError(error);
	return result;
}

/*
 * The indexes of a shard that are the one that is wanted: returns a valid one,
 * or InvalidOid.  *broken becomes one that is not, or InvalidOid.
 */
static Oid
find_index(const Wanted *wanted, Oid shard, Oid *broken)
{
	Oid			types[] = {OIDOID, BOOLOID, TEXTOID};
	Datum		values[] = {
		ObjectIdGetDatum(shard), BoolGetDatum(wanted->is_unique),
		CStringGetTextDatum(wanted->canonical)
	};
	int			guc_level = NewGUCNestLevel();
	Oid			result = InvalidOid;

	*broken = InvalidOid;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	shard_set("search_path", "pg_catalog, pg_temp");
	if (SPI_execute_with_args("SELECT i.indexrelid, i.indisvalid AND i.indisready AND i.indislive"
							  FROM_INDEXES
							  " WHERE i.indrelid = $1 AND i.indisunique = $2 AND " CANONICAL " = $3",
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for indexes");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			index =
			DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
										   SPI_tuptable->tupdesc, 1, &isnull));

		if (DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i],
									   SPI_tuptable->tupdesc, 2, &isnull)))
			result = index;
		else
			*broken = index;
	}
	SPI_finish();
	PopActiveSnapshot();
	AtEOXact_GUC(false, guc_level);
	return result;
}

/*
 * The error, with what the command was for.
 */
static void
throw_error(ErrorData *error, const char *shard)
{
	error->context = psprintf("%s%sindex on shard \"%s\"",
							  error->context ? error->context : "",
							  error->context ? "\n" : "", shard);
	ThrowErrorData(error);
}

/* How long an attempt that has failed waits to be cleared away. */
#define DROP_PATIENCE	60000	/* milliseconds */

/*
 * Drop an index that is not valid, unless it has become valid when nobody is
 * building it any more.  Commits.  Returns the error, or NULL.
 *
 * It waits for locks as long as the session has patience, or if it is our own
 * failure that is cleared away, for DROP_PATIENCE at least: those who write
 * wait for none of these locks, but have to maintain the index.
 */
static ErrorData *
drop_broken(const Wanted *wanted, Oid shard, Oid index, bool is_ours)
{
	int			guc_level = NewGUCNestLevel();
	bool		is_patient = is_ours && LockTimeout > 0 &&
		LockTimeout < DROP_PATIENCE;
	Oid			broken;
	char	   *name;
	ErrorData  *error;

	if (is_patient)
		shard_set("lock_timeout", psprintf("%d", DROP_PATIENCE));
	LockRelationOid(shard, ShareUpdateExclusiveLock);
	AtEOXact_GUC(false, guc_level);
	(void) find_index(wanted, shard, &broken);
	name = broken == index ? shard_qualified_name(index) : NULL;
	/* The worker takes the lock. */
	SPI_commit();
	if (name == NULL)
		return NULL;
	guc_level = NewGUCNestLevel();
	if (is_patient)
		shard_set("lock_timeout", psprintf("%d", DROP_PATIENCE));
	error = shard_run_outside(psprintf("DROP INDEX CONCURRENTLY IF EXISTS %s",
									   name));
	AtEOXact_GUC(false, guc_level);
	if (error == NULL)
		ereport(NOTICE,
				(errmsg("index %s, which was not valid, has been dropped", name)));
	else if (is_ours)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("index %s, which is not valid, could not be dropped",
						name),
				 errdetail_internal("%s", error->message),
				 errhint("The next call of create_index() drops it.")));
	SPI_commit();
	return error;
}

/*
 * Have a shard have the index.  Commits.  Returns whether it has been created.
 */
static bool
build(const Wanted *wanted, Oid shard)
{
	for (;;)
	{
		char	   *table = shard_qualified_name(shard);
		Oid			broken;
		bool		is_there;
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		/* Somebody may have dropped it, or given it away, meanwhile. */
		shard_check_owned(wanted->logical);
		is_there = table == NULL ||
			OidIsValid(find_index(wanted, shard, &broken));
		SPI_commit();
		if (is_there)
			return false;
		if (OidIsValid(broken))
		{
			error = drop_broken(wanted, shard, broken, false);
			if (error != NULL)
				throw_error(error, get_rel_name(shard));
			continue;
		}
		error = shard_run_outside(create_command(wanted, table, true));
		if (error == NULL)
		{
			/* Or it would be created again and again. */
			if (!OidIsValid(find_index(wanted, shard, &broken)))
				elog(ERROR, "index on %s is not what was wanted: %s", table,
					 wanted->canonical);
			ereport(NOTICE,
					(errmsg("shard \"%s\": CREATE INDEX",
							get_rel_name(shard))));
			SPI_commit();
			return true;
		}
		/* What is left of it costs those who write. */
		if (!OidIsValid(find_index(wanted, shard, &broken)) &&
			OidIsValid(broken))
		{
			SPI_commit();
			(void) drop_broken(wanted, shard, broken, true);
		}
		throw_error(error, get_rel_name(shard));
	}
}

/*
 * The local shards, under a lock that keeps others from creating some if
 * "final".  The list is in the given memory context.
 */
static List *
local_shards(Oid logical, bool final, MemoryContext context)
{
	int			n;
	ShardMember *members;
	List	   *result = NIL;

	if (final)
		shard_lock_patiently(logical, ShareUpdateExclusiveLock);
	members = shard_list_members(logical, &n);
	MemoryContextSwitchTo(context);
	for (int i = 0; i < n; i++)
	{
		if (members[i].is_local)
			result = lappend_oid(result, members[i].relid);
		else if (!final)
			ereport(WARNING,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("shard \"%s\" gets no index", members[i].name),
					 errdetail("It is a foreign table."),
					 errhint("Use SELECT shard_fdw.run_command_on_nodes().")));
	}
	return result;
}

/*
 * Warn if the values of a unique index can be in more than one shard.
 */
static void
check_unique(const Wanted *wanted, Oid shard)
{
	ShardTable *table = shard_table_get(wanted->logical);
	Oid			broken;
	Oid			index_oid = find_index(wanted, shard, &broken);
	bool		is_global = false;

	if (!OidIsValid(index_oid))
		return;
	if (table->key != NULL)
	{
		Relation	index = index_open(index_oid, AccessShareLock);

		is_global = shard_key_in_index(table->key, table->relid, shard,
									   IndexRelationGetNumberOfKeyAttributes(index),
									   index->rd_index->indkey.values,
									   index->rd_opfamily,
									   index->rd_opcintype,
									   index->rd_indcollation);
		index_close(index, AccessShareLock);
	}
	if (!is_global)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("values are unique within each shard of foreign table \"%s\" only",
						get_rel_name(wanted->logical)),
				 errdetail("Rows with equal values can be in different shards."),
				 errhint("On a table with route \"hash\", have the index include the key.")));
}

/*
 * Does a shard that is there when none can be created lack the index?  Commits.
 */
static bool
is_incomplete(const Wanted *wanted)
{
	List	   *shards;
	ListCell   *lc;
	bool		result = false;

	PushActiveSnapshot(GetTransactionSnapshot());
	shards = local_shards(wanted->logical, true, CurrentMemoryContext);
	foreach(lc, shards)
	{
		Oid			broken;

		result |= !OidIsValid(find_index(wanted, lfirst_oid(lc), &broken));
	}
	PopActiveSnapshot();
	SPI_commit();
	return result;
}

/*
 * Fill in what is wanted from the argument: it may begin with UNIQUE.
 */
static void
parse_definition(char *argument, Wanted *wanted)
{
	while (scanner_isspace(*argument))
		argument++;
	wanted->is_unique = pg_strncasecmp(argument, "unique", 6) == 0 &&
		(scanner_isspace(argument[6]) || argument[6] == '(');
	wanted->definition = argument + (wanted->is_unique ? 6 : 0);
	check_definition(wanted);
}

/*
 * shard_create_index(logical regclass, definition text)
 *		SQL procedure create_index(): has all shards have such an index,
 *		without keeping those waiting who write.
 *
 * Commits after each shard.  Raises what shard_begin_commands() raises,
 * ERRCODE_INVALID_PARAMETER_VALUE for a definition that is none,
 * ERRCODE_INSUFFICIENT_RESOURCES if there is no worker, and what CREATE INDEX
 * raises.
 */
Datum
shard_create_index(PG_FUNCTION_ARGS)
{
	Wanted		wanted = {0};
	LOCKTAG		tag;
	List	   *shards;
	ListCell   *lc;
	int			created = 0;
	bool		again;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "definition");
	wanted.logical = PG_GETARG_OID(0);
	shard_begin_commands(fcinfo, wanted.logical, "create_index()",
						 "In a transaction block, use run_command_on_shards().",
						 &tag);
	parse_definition(text_to_cstring(PG_GETARG_TEXT_PP(1)), &wanted);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	shards = local_shards(wanted.logical, false, CurrentMemoryContext);
	if (shards != NIL)
		wanted.canonical = canonical_definition(&wanted, linitial_oid(shards));
	shard_progress_start("create_index", wanted.logical, list_length(shards));
	shard_progress_phase("building indexes");
	SPI_commit();
	do
	{
		foreach(lc, shards)
		{
			created += build(&wanted, lfirst_oid(lc));
			shard_progress_add(1);
		}
		again = shards != NIL && is_incomplete(&wanted);
		if (again)
		{
			shards = local_shards(wanted.logical, true, CurrentMemoryContext);
			shard_progress_expect(list_length(shards));
		}
	} while (again);
	shard_progress_end();
	if (shards != NIL && wanted.is_unique)
		check_unique(&wanted, linitial_oid(shards));
	if (created == 0)
		ereport(NOTICE,
				(errmsg("all shards of foreign table \"%s\" have the index already, skipping",
						get_rel_name(wanted.logical))));
	LockRelease(&tag, ExclusiveLock, true);
	SPI_finish();
	PG_RETURN_VOID();
}
