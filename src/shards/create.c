/*-------------------------------------------------------------------------
 *
 * create.c
 *	  Creating sets of shards: create_shards(), and what CREATE FOREIGN TABLE
 *	  does with its options; small helpers for DDL.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "access/relation.h"
#include "access/table.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_create_shards);

/*
 * The name of a shard, cut where necessary to keep the number whole.
 *
 * It is cut as if all numbers had five digits at least, so that the names of
 * a table's shards differ in their numbers only, and sort by them.
 */
static char *
name_of_shard(Relation logical, uint64 number)
{
	const char *name = RelationGetRelationName(logical);
	char	   *digits = psprintf(UINT64_FORMAT, number);
	int			room = NAMEDATALEN - 2 - Max(strlen(digits), 5);

	return psprintf("%.*s_%s", pg_mbcliplen(name, strlen(name), room), name,
					digits);
}

/*
 * The number that the next shard's name ends in: one more than the greatest
 * in use.
 */
static uint64
next_shard_number(Relation logical, ShardTable *table)
{
	uint64		result = 0;

	for (int i = 0; i < table->nmembers; i++)
	{
		char	   *name = get_rel_name(table->members[i].relid);
		uint64		number;

		if (name == NULL)
			continue;
		(void) shard_name_stem(name, &number);
		if (number < PG_INT64_MAX &&
			strcmp(name, name_of_shard(logical, number)) == 0)
			result = Max(result, number + 1);
	}
	return result;
}

/*
 * shard_new_name
 *		The name of the next shard.
 */
char *
shard_new_name(Relation logical)
{
	return name_of_shard(logical,
						 next_shard_number(logical,
										   shard_table_get(RelationGetRelid(logical))));
}

/*
 * shard_model_shard
 *		The shard that new ones are copied from: the last open one, or else
 *		the last.  InvalidOid if there is none that is an ordinary table.
 */
Oid
shard_model_shard(Oid logical)
{
	ShardTable *table = shard_table_get(logical);
	Oid			result = InvalidOid;

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (member->is_local &&
			(member->is_open || table->nopen == 0 || !OidIsValid(result)))
			result = member->relid;
	}
	return result;
}

/*
 * The same, locked, so that it stays what it is.
 */
static Oid
lock_model_shard(Oid logical)
{
	Oid			model;

	while (OidIsValid(model = shard_model_shard(logical)))
	{
		LockRelationOid(model, AccessShareLock);
		/* While we waited it may have been dropped, detached or sealed. */
		if (shard_model_shard(logical) == model)
			break;
		UnlockRelationOid(model, AccessShareLock);
	}
	return model;
}

/*
 * The modulus for "count" new shards of a hash table whose own place has
 * the modulus "own", or 1: the least multiple of that and of those of all
 * shards; or, if there are no shards, as many times that.  0 if it is greater
 * than a modulus can be.
 */
static int
common_modulus(const ShardTable *table, int own, int count)
{
	int64		result = table->nplaces > 0 ? own : (int64) own * count;

	for (int i = 0; i < table->nplaces && result <= SHARD_MAX_SHARDS; i++)
	{
		int			other = table->places[i].modulus;
		int64		a = result;
		int64		b = other;

		/* Which is greater than zero. */
		do
		{
			int64		rest = a % b;

			a = b;
			b = rest;
		} while (b != 0);
		result = result / a * other;
	}
	return result <= SHARD_MAX_SHARDS ? (int) result : 0;
}

/*
 * Which remainders of the modulus, a multiple of those of all shards, the
 * shards of a hash table hold.
 */
static bool *
taken_remainders(const ShardTable *table, int modulus)
{
	bool	   *taken = palloc0(sizeof(bool) * modulus);

	for (int i = 0; i < table->nplaces; i++)
	{
		const ShardPlace *place = &table->places[i];

		CHECK_FOR_INTERRUPTS();
		/* They are sorted: several shards may have the same place. */
		if (i > 0 && place->modulus == place[-1].modulus &&
			place->remainder == place[-1].remainder)
			continue;
		for (int r = place->remainder; r < modulus; r += place->modulus)
			taken[r] = true;
	}
	return taken;
}

/*
 * The conditions that say which hashes of the key each of "count" new shards
 * of a hash table holds: the remainders that no shard has, of the modulus
 * that the table's shards have, or of the count if there are none.
 *
 * If the table is itself a shard of a hash table, here or on another server,
 * all its keys have the same remainder of some modulus, which its own CHECK
 * constraint tells.  With a modulus that has a factor in common with that, some
 * shards would get no rows and the others more; so it is a multiple of it, and
 * the shards share what the table holds.
 */
static char **
new_places(Relation logical, const ShardTable *table, PartitionKey key,
		   int count)
{
	char	  **result = palloc0(sizeof(char *) * count);
	char	   *columns = shard_key_columns(key, table->relid);
	int			own_modulus;
	int			own_remainder;
	bool		has_place = shard_own_place(table, &own_modulus, &own_remainder);
	int			modulus = common_modulus(table, own_modulus, count);
	bool	   *taken;
	int			n = 0;

	if (modulus == 0 && has_place)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot add %d shards to foreign table \"%s\"", count,
						RelationGetRelationName(logical)),
				 errdetail("A CHECK constraint of the foreign table allows keys with the hash remainder %d of %d only, so the modulus of its shards would have to be a multiple of that, and it can be at most %d.",
						   own_remainder, own_modulus, SHARD_MAX_SHARDS)));
	if (modulus == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot add shards to foreign table \"%s\"",
						RelationGetRelationName(logical)),
				 errdetail("The moduli of its shards have no common multiple of at most %d.",
						   SHARD_MAX_SHARDS),
				 errhint("Redistribute the rows with SELECT shard_fdw.reshard().")));
	taken = taken_remainders(table, modulus);
	for (int r = own_remainder; r < modulus && n < count; r += own_modulus)
		if (!taken[r])
			result[n++] = psprintf("shard_fdw.in_hash(%d, %d, %s)", modulus, r,
								   columns);
	pfree(taken);
	if (n < count)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot add %d shards to foreign table \"%s\"", count,
						RelationGetRelationName(logical)),
				 errdetail_plural("Its shards hold the remainders of the hash modulo %d, of which %d is missing.",
								  "Its shards hold the remainders of the hash modulo %d, of which %d are missing.",
								  n, modulus, n)));
	return result;
}

/*
 * The shards that are ordinary tables, except one.
 */
static List *
other_local_shards(const ShardTable *table, Oid shard)
{
	List	   *result = NIL;

	for (int i = 0; i < table->nmembers; i++)
		if (table->members[i].is_local && table->members[i].relid != shard)
			result = lappend_oid(result, table->members[i].relid);
	return result;
}

/*
 * Drop the constraints of these names from a new shard.
 */
static void
drop_checks(Oid shard, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
		shard_execute("ALTER TABLE %s DROP CONSTRAINT %s",
					  shard_qualified_name(shard),
					  quote_identifier(lfirst(lc)));
}

/*
 * Tell which constraints of a closed or sealed shard its copies do not have.
 */
static void
report_unfit_checks(Relation source, ShardState state, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
		ereport(WARNING,
				(errmsg("CHECK constraint \"%s\" of %s shard \"%s\" is not copied",
						(char *) lfirst(lc), shard_state_name(state),
						RelationGetRelationName(source)),
				 errdetail("It ends at some time, or other shards do not have it: it seems to be about the rows of that shard."),
				 errhint("If new shards are to have it, add it to them, or call create_shards() with a table to be copied.")));
}

/*
 * shard_new_schema
 *		The schema that new shards of the logical table go to: that of option
 *		"shard_schema", else that of the shard "source" they are copied from,
 *		which may have been moved, else the logical table's.
 *
 * "source" may be InvalidOid, or a table that is not a shard, and does not
 * count then.  Raises ERRCODE_UNDEFINED_SCHEMA if the option names a schema
 * that does not exist.
 */
Oid
shard_new_schema(Oid logical, const ShardOptions *options, Oid source)
{
	if (options->shard_schema != NULL)
		return shard_schema_option(logical, options, ERROR);
	return get_rel_namespace(shard_table_find(shard_table_get(logical),
											  source) >= 0 ?
							 source : logical);
}

/*
 * shard_check_max_shards
 *		Raise ERRCODE_PROGRAM_LIMIT_EXCEEDED if the logical table cannot have
 *		"count" shards besides those that it has and keeps.
 */
void
shard_check_max_shards(Relation logical, const ShardOptions *options,
					   int present, int count)
{
	if (count > options->max_shards - present)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("foreign table \"%s\" cannot have more than %d shards",
						RelationGetRelationName(logical), options->max_shards),
				 present == 0 ? 0 :
				 errdetail_plural("It has %d shard now.",
								  "It has %d shards now.", present, present),
				 errhint("Raise option \"max_shards\" of the foreign table.")));
}

/*
 * Open the table that is to be copied.
 *
 * A foreign table has no indexes, and its rows are elsewhere: what is like it is
 * not a table here.
 */
static Relation
open_source(Oid template)
{
	Relation	source = try_relation_open(template, AccessShareLock);

	if (source == NULL)
	{
		shard_report_missing(template);
		pg_unreachable();
	}
	if (RelationGetForm(source)->relkind == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("foreign table \"%s\" cannot be copied into shards",
						RelationGetRelationName(source)),
				 errdetail("Its indexes and keys, if it has any, are on another server."),
				 errhint("Create an ordinary table like it, with the indexes and keys that the shards are to have, and use that as the template.")));
	return source;
}

/*
 * shard_create
 *		Create shards of the logical table, as its owner, and return their
 *		OIDs, in the current memory context.  Without a template another shard
 *		is copied, if there is one; all of it, or without what
 *		shard_clone_checks() copies.  Without a schema, it is that of
 *		shard_new_schema().
 *
 * "servers" is a list as shard_node_list() returns it, whose servers get a shard
 * in turn; NIL is this server.  The user mappings are those of the current user.
 *
 * Raises ERRCODE_PROGRAM_LIMIT_EXCEEDED beyond max_shards,
 * ERRCODE_WRONG_OBJECT_TYPE if the template is a foreign table, what creating a
 * table raises, and what shard_node_connect() and shard_node_make_table() do.
 */
List *
shard_create(Oid logical_relid, int count, Oid template, Oid schema,
			 List *servers, bool with_checks)
{
	List	   *shards = NIL;
	MemoryContext context = CurrentMemoryContext;
	Relation	logical;
	Relation	source = NULL;
	ShardTable *table;
	ShardOptions options;
	char	  **places = NULL;
	uint64		number;
	ShardIdentity identity;
	ShardState	state = SHARD_OPEN; /* of the shard that is copied */
	List	   *siblings = NIL;
	List	   *unfit = NIL;
	Oid			caller = GetUserId();
	bool		has_remote = false;
	ListCell   *lc;

	/* If one of them cannot be reached, there is nothing to be undone. */
	foreach(lc, servers)
	{
		if (OidIsValid(lfirst_oid(lc)) &&
			foreach_current_index(lc) < count)
			shard_node_connect(lfirst_oid(lc), caller);
	}

	/* Others that create shards wait for us; inserts do not. */
	logical = table_open(logical_relid, ShareUpdateExclusiveLock);
	table = shard_table_get(logical_relid);
	shard_get_options(logical_relid, &options);
	shard_check_max_shards(logical, &options, table->nmembers, count);

	if (!OidIsValid(template))
	{
		int			ordinal;

		template = lock_model_shard(logical_relid);
		ordinal = shard_table_find(table, template);
		if (ordinal >= 0)
			state = table->members[ordinal].state;
		if (state != SHARD_OPEN)
			siblings = other_local_shards(table, template);
	}
	if (!OidIsValid(schema))
		schema = shard_new_schema(logical_relid, &options, template);
	number = next_shard_number(logical, table);
	if (options.route == SHARD_ROUTE_HASH)
		places = new_places(logical, table,
							shard_key_create(logical_relid,
											 options.key, false),
							count);

	shard_become_owner(logical, &identity);
	/* Merging columns with inherited ones is what we mean to do. */
	if (client_min_messages < WARNING)
		shard_set("client_min_messages", "warning");

	SPI_connect();
	if (OidIsValid(template))
	{
		source = open_source(template);
		/* The copy goes where the source is. */
		shard_set("default_tablespace", "");
	}
	for (int i = 0; i < count; i++)
	{
		Oid			server = servers == NIL ? InvalidOid :
			list_nth_oid(servers, i % list_length(servers));
		Oid			shard = shard_clone(logical, schema,
										name_of_shard(logical, number + i),
										source, places ? places[i] : NULL,
										server);
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		shards = lappend_oid(shards, shard);
		MemoryContextSwitchTo(oldcontext);
		if (source != NULL && state != SHARD_OPEN && i == 0)
		{
			unfit = shard_unfit_checks(shard, siblings);
			report_unfit_checks(source, state, unfit);
		}
		drop_checks(shard, unfit);
		if (OidIsValid(server))
		{
			shard_node_make_table(shard, template, caller);
			shard_advise_remote(logical_relid, shard);
			if (source != NULL && !has_remote)
				shard_advise_not_copied(source);
			has_remote = true;
		}
		else if (source != NULL && with_checks)
			shard_clone_checks(source, RelationGetRelationName(source), shard);
	}
	if (source != NULL)
		relation_close(source, NoLock);
	SPI_finish();

	shard_restore_identity(&identity);
	table_close(logical, NoLock);
	return shards;
}

/*
 * shard_check_count
 *		Check the arguments of an SQL function, "name" with parentheses, that
 *		takes a logical table and a number of shards, which may be null if it
 *		is optional.
 *
 * Raises ERRCODE_NULL_VALUE_NOT_ALLOWED for another null,
 * ERRCODE_READ_ONLY_SQL_TRANSACTION, ERRCODE_INVALID_PARAMETER_VALUE for a
 * number below 1, and what shard_check_owned() raises.
 */
void
shard_check_count(FunctionCallInfo fcinfo, const char *name, bool is_optional)
{
	shard_check_argument(fcinfo, 0, "logical table");
	if (!is_optional)
		shard_check_argument(fcinfo, 1, "number of shards");
	PreventCommandIfReadOnly(name);
	shard_check_owned(PG_GETARG_OID(0));
	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of shards must be greater than zero")));
}

/*
 * shard_create_shards(logical regclass, count int, template regclass, node text)
 *		SQL function create_shards(): adds shards and returns them.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical
 * table, ERRCODE_INVALID_PARAMETER_VALUE for a count below 1,
 * ERRCODE_PROGRAM_LIMIT_EXCEEDED beyond max_shards, ERRCODE_DUPLICATE_TABLE if a
 * name is taken, and what shard_create() raises.
 */
Datum
shard_create_shards(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical;
	int			count;
	Oid			template = PG_ARGISNULL(2) ? InvalidOid : PG_GETARG_OID(2);
	List	   *servers;
	ListCell   *lc;

	shard_check_count(fcinfo, "create_shards()", false);
	logical = PG_GETARG_OID(0);
	count = PG_GETARG_INT32(1);
	servers = PG_ARGISNULL(3) ? NIL :
		shard_node_list(text_to_cstring(PG_GETARG_TEXT_PP(3)));

	/* As shard_create() does; from now on we know what it will copy. */
	LockRelationOid(logical, ShareUpdateExclusiveLock);
	shard_check_owned(logical);
	if (OidIsValid(template))
		shard_advise_template(logical, template);
	else if (!OidIsValid(shard_model_shard(logical)))
		ereport(WARNING,
				(errmsg("foreign table \"%s\" has no shard to be copied",
						get_rel_name(logical)),
				 errdetail("The new shards have its columns and constraints, but no primary key and no index."),
				 errhint("Call create_shards() with a table to be copied, or create indexes with SELECT shard_fdw.run_command_on_shards().")));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, shard_create(logical, count, template, InvalidOid, servers,
							 true))
	{
		Datum		value = ObjectIdGetDatum(lfirst_oid(lc));
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
							 &isnull);
	}
	return (Datum) 0;
}
