/*-------------------------------------------------------------------------
 *
 * admin.c
 *	  SQL functions that run commands on nodes, and compare what is there with
 *	  what is here.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "parser/parser.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(shard_run_command_on_nodes);
PG_FUNCTION_INFO_V1(shard_check_nodes);

/* Something that a table has: the key tells what, the value what it is like. */
typedef struct Feature
{
	char	   *key;
	char	   *value;
} Feature;

/*
 * What a table is like, as rows of a key and a value; %s is an expression for
 * its OID.  The same query is for here and for nodes.  The search path is
 * pg_catalog, so that all other names are qualified.
 */
#define TABLE_FEATURES \
	"SELECT 'the table', ''::text WHERE %1$s IS NOT NULL" \
	" UNION ALL SELECT 'in_hash()', '' FROM pg_proc p" \
	" JOIN pg_namespace n ON n.oid = p.pronamespace" \
	" WHERE n.nspname = 'shard_fdw' AND p.proname = 'in_hash'" \
	" UNION ALL SELECT 'column ' || quote_ident(a.attname)," \
	" format_type(a.atttypid, a.atttypmod)" \
	" || CASE WHEN a.attcollation <> t.typcollation" \
	" THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END" \
	" || CASE WHEN a.attgenerated <> '' THEN ' GENERATED' ELSE '' END" \
	" FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid" \
	" WHERE a.attrelid = %1$s AND a.attnum > 0" \
	" UNION ALL SELECT 'NOT NULL of column ' || quote_ident(a.attname), ''" \
	" FROM pg_attribute a WHERE a.attrelid = %1$s AND a.attnum > 0 AND a.attnotnull" \
	" UNION ALL SELECT 'constraint ' || regexp_replace(pg_get_constraintdef(c.oid), ' NOT VALID$', ''), ''" \
	" FROM pg_constraint c WHERE c.conrelid = %1$s AND c.contype = 'c'" \
	" AND pg_get_constraintdef(c.oid) NOT LIKE 'CHECK (false)%%'"

#define INDEX_FEATURES \
	"SELECT CASE WHEN i.indisprimary THEN 'primary key' WHEN i.indisunique THEN 'unique index'" \
	" ELSE 'index' END || substring(pg_get_indexdef(i.indexrelid) from ' USING .*$'), ''" \
	" FROM pg_index i WHERE i.indrelid = %1$s AND i.indisvalid"

/*
 * The servers of the remote shards of a logical table, each once.
 */
static List *
servers_of(Oid logical)
{
	List	   *result = NIL;
	int			nshards;
	ShardMember *shards = shard_list_members(logical, &nshards);

	for (int i = 0; i < nshards; i++)
	{
		if (!shards[i].is_local && !shard_is_logical(shards[i].relid))
			result = list_append_unique_oid(result,
											GetForeignServerIdByRelId(shards[i].relid));
	}
	return result;
}

/*
 * Check that a command leaves transactions alone: what is committed there can
 * not be rolled back any more.  What this server cannot parse is an error.
 */
static void
check_command(const char *sql)
{
	ListCell   *lc;

	foreach(lc, raw_parser(sql, RAW_PARSE_DEFAULT))
	{
		if (IsA(lfirst_node(RawStmt, lc)->stmt, TransactionStmt))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot begin or end transactions on nodes")));
	}
}

/* A command for a node. */
typedef struct NodeCommand
{
	Oid			server;
	const char *sql;
} NodeCommand;

/*
 * shard_node_list
 *		The servers of a list of nodes: OIDs, and InvalidOid for "local", which
 *		stands for this server.
 *
 * Allocated in the current memory context.  Raises
 * ERRCODE_INVALID_PARAMETER_VALUE for what is no list of names,
 * ERRCODE_UNDEFINED_OBJECT if there is no such server, and
 * ERRCODE_WRONG_OBJECT_TYPE if it is one of another wrapper than postgres_fdw.
 */
List *
shard_node_list(const char *names)
{
	List	   *list;
	List	   *result = NIL;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(names), ',', &list) || list == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list of nodes: \"%s\"", names),
				 errhint("Nodes are names of servers of postgres_fdw, or \"local\", separated by commas.")));
	foreach(lc, list)
	{
		const char *name = lfirst(lc);
		Oid			server = InvalidOid;

		if (strcmp(name, "local") != 0)
		{
			server = get_foreign_server_oid(name, true);
			if (!OidIsValid(server))
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_OBJECT),
						 errmsg("server \"%s\" does not exist", name),
						 errhint("A node is a server of postgres_fdw; make it known with CREATE SERVER.")));
			if (!shard_is_node(server))
				ereport(ERROR,
						(errcode(ERRCODE_WRONG_OBJECT_TYPE),
						 errmsg("server \"%s\" is not a server of postgres_fdw",
								name),
						 errdetail("Shards can be created on this server and on servers of postgres_fdw only."),
						 errhint("Create the table there, and have a foreign table inherit from the logical one.")));
		}
		result = lappend_oid(result, server);
	}
	return result;
}

/*
 * shard_node_run_command
 *		Run a user's command on a node, by the user mapping of the current user.
 *		Returns its result, in the current memory context, or NULL if there is
 *		none.
 *
 * Raises ERRCODE_FEATURE_NOT_SUPPORTED if it begins or ends a transaction, and
 * what shard_node_connect() and the node raise.
 */
char *
shard_node_run_command(Oid server, const char *sql)
{
	ShardNodeError error;
	ShardNodeSession *session;
	const PGresult *result;
	char	   *value = NULL;

	check_command(sql);
	session = shard_node_session(server, GetUserId(), &error);
	/* What is ours there needs another search path than what is the user's. */
	if (session == NULL ||
		shard_node_query(session,
						 LockTimeout == 0 ? "SET LOCAL search_path TO DEFAULT" :
						 psprintf("SET LOCAL search_path TO DEFAULT; SET LOCAL lock_timeout = %d",
								  LockTimeout), false, &error) == NULL)
		shard_node_raise(&error, NULL);
	shard_node_note_change(session);
	result = shard_node_query(session, sql, false, &error);
	if (result == NULL)
		shard_node_raise(&error, sql);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		value = pstrdup(PQcmdStatus((PGresult *) result));
	else if (PQntuples(result) > 0 && PQnfields(result) > 0 &&
			 !PQgetisnull(result, 0, 0))
		value = pstrdup(PQgetvalue(result, 0, 0));
	if (!shard_node_note_written(session, &error) ||
		shard_node_query(session,
						 "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout TO DEFAULT",
						 false, &error) == NULL)
		shard_node_raise(&error, NULL);
	return value;
}

static char *
run_node_command(void *arg)
{
	const NodeCommand *command = arg;

	return shard_node_run_command(command->server, command->sql);
}

/*
 * shard_run_command_on_nodes(logical regclass, command text, on_error text)
 *		SQL function run_command_on_nodes(): runs the command once on each node
 *		that has shards of the table, by the caller's user mapping.
 *
 * If "on_error" is "stop", raises what the first command raises that fails.
 * If it is "continue", each runs in a subtransaction, and one that fails leaves
 * the others in place.
 */
Datum
shard_run_command_on_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical;
	char	   *command;
	bool		stops;
	ListCell   *lc;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "command");
	shard_check_argument(fcinfo, 2, "parameter \"on_error\"");
	PreventCommandIfReadOnly("run_command_on_nodes()");
	logical = PG_GETARG_OID(0);
	command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	stops = shard_stops_on_error(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	shard_check_owned(logical);
	check_command(command);

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, servers_of(logical))
	{
		Datum		values[3];
		bool		nulls[3] = {false, false, false};
		char	   *name = GetForeignServer(lfirst_oid(lc))->servername;
		char	   *result;
		bool		success = true;

		if (stops)
			result = shard_node_run_command(lfirst_oid(lc), command);
		else
		{
			NodeCommand node_command = {lfirst_oid(lc), command};

			success = shard_try_command(run_node_command, &node_command,
										&result);
		}
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(name));
		values[1] = BoolGetDatum(success);
		nulls[2] = result == NULL;
		values[2] = result ? CStringGetTextDatum(result) : (Datum) 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

/*
 * The same features of a table here.
 */
static List *
local_features(const char *query, Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *sql = psprintf(query, psprintf("'%u'::pg_catalog.regclass", relid));
	List	   *result = NIL;

	SPI_connect();
	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of query: %s", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *key = SPI_getvalue(SPI_tuptable->vals[i],
									   SPI_tuptable->tupdesc, 1);
		char	   *value = SPI_getvalue(SPI_tuptable->vals[i],
										 SPI_tuptable->tupdesc, 2);
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		Feature    *feature = palloc(sizeof(Feature));

		feature->key = pstrdup(key);
		feature->value = pstrdup(value);
		result = lappend(result, feature);
		MemoryContextSwitchTo(oldcontext);
	}
	SPI_finish();
	return result;
}

/*
 * The features of the table that is behind a foreign table.  Returns false and
 * fills in *error if the node does not tell.
 */
static bool
remote_features(ShardNodeSession *session, const char *query, Oid relid,
				List **result, ShardNodeError *error)
{
	char	   *table = psprintf("pg_catalog.to_regclass(%s)",
								 quote_literal_cstr(shard_node_table_name(relid)));
	const PGresult *rows = shard_node_query(session, psprintf(query, table),
											false, error);

	if (rows == NULL)
		return false;
	*result = NIL;
	for (int i = 0; i < PQntuples(rows); i++)
	{
		Feature    *feature = palloc(sizeof(Feature));

		feature->key = pstrdup(PQgetvalue(rows, i, 0));
		feature->value = pstrdup(PQgetvalue(rows, i, 1));
		*result = lappend(*result, feature);
	}
	return true;
}

/*
 * The value of a feature in a list, or NULL.
 */
static const char *
find_feature(List *features, const char *key)
{
	ListCell   *lc;

	foreach(lc, features)
	{
		if (strcmp(((Feature *) lfirst(lc))->key, key) == 0)
			return ((Feature *) lfirst(lc))->value;
	}
	return NULL;
}

/*
 * Add a row to the result of check_nodes(): what is wrong with a shard, or with
 * the server itself.
 */
static void
put_problem(ReturnSetInfo *rsinfo, const char *server, Oid shard,
			char *problem)
{
	Datum		values[3];
	bool		nulls[3] = {false, !OidIsValid(shard), false};

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(server));
	values[1] = ObjectIdGetDatum(shard);
	values[2] = CStringGetTextDatum(problem);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * Report what is wanted and not there, or not like that.
 */
static void
compare(ReturnSetInfo *rsinfo, const char *server, Oid shard, List *wanted,
		List *found)
{
	bool		has_functions = find_feature(found, "in_hash()") != NULL;
	ListCell   *lc;

	foreach(lc, wanted)
	{
		Feature    *feature = lfirst(lc);
		const char *value = find_feature(found, feature->key);

		/* The functions need not be there; then neither can the constraints. */
		if (strcmp(feature->key, "in_hash()") == 0 ||
			(!has_functions &&
			 strncmp(feature->key, "constraint CHECK (shard_fdw.in_", 31) == 0))
			continue;
		if (value == NULL)
			put_problem(rsinfo, server, shard,
						psprintf("%s is missing", feature->key));
		else if (strcmp(value, feature->value) != 0)
			put_problem(rsinfo, server, shard,
						psprintf("%s is %s there and %s here", feature->key,
								 value, feature->value));
	}
}

/*
 * Compare the shards that are on a server with what they are here.  *indexes
 * are the indexes that they should have: of a shard that is here, or else of
 * the first that has been looked at.
 */
static void
check_server(ReturnSetInfo *rsinfo, Oid server, const ShardMember *shards,
			 int nshards, List **indexes, bool *has_indexes)
{
	char	   *name = GetForeignServer(server)->servername;
	ShardNodeError error;
	ShardNodeSession *session = shard_node_session(server, GetUserId(), &error);

	for (int i = 0; i < nshards && session != NULL; i++)
	{
		Oid			shard = shards[i].relid;
		List	   *found;
		List	   *found_indexes;

		if (shards[i].is_local || shard_is_logical(shard) ||
			GetForeignServerIdByRelId(shard) != server)
			continue;
		if (!remote_features(session, TABLE_FEATURES, shard, &found, &error) ||
			!remote_features(session, INDEX_FEATURES, shard, &found_indexes,
							 &error))
		{
			session = NULL;
			break;
		}
		if (find_feature(found, "the table") == NULL)
		{
			put_problem(rsinfo, name, shard,
						psprintf("table %s is missing",
								 shard_node_table_name(shard)));
			continue;
		}
		compare(rsinfo, name, shard, local_features(TABLE_FEATURES, shard),
				found);
		if (!*has_indexes)
			*indexes = found_indexes;
		*has_indexes = true;
		compare(rsinfo, name, shard, *indexes, found_indexes);
	}
	if (session == NULL)
		put_problem(rsinfo, name, InvalidOid,
					error.detail == NULL ? error.message :
					psprintf("%s: %s", error.message, error.detail));
}

/*
 * shard_check_nodes(logical regclass)
 *		SQL function check_nodes(): what differs between the remote shards of a
 *		table and the tables on the nodes, by the caller's user mapping.
 *
 * Strict.
 */
Datum
shard_check_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical = PG_GETARG_OID(0);
	int			nshards;
	ShardMember *shards;
	List	   *indexes = NIL;
	bool		has_indexes = false;
	int			guc_level;
	ListCell   *lc;

	shard_check_logical(logical);
	InitMaterializedSRF(fcinfo, 0);
	shards = shard_list_members(logical, &nshards);

	guc_level = NewGUCNestLevel();
	shard_set("search_path", "pg_catalog, pg_temp");
	for (int i = 0; i < nshards && !has_indexes; i++)
	{
		if (shards[i].is_local && shards[i].is_open)
		{
			indexes = local_features(INDEX_FEATURES, shards[i].relid);
			has_indexes = true;
		}
	}
	foreach(lc, servers_of(logical))
		check_server(rsinfo, lfirst_oid(lc), shards, nshards, &indexes,
					 &has_indexes);
	AtEOXact_GUC(true, guc_level);
	return (Datum) 0;
}
