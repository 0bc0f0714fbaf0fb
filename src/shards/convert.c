/*-------------------------------------------------------------------------
 *
 * convert.c
 *	  convert_table(): a table with rows becomes a logical table.
 *
 * No row is moved.  The table gets another name and becomes a shard, and a
 * new logical table gets its name, all in one transaction whose lock does not
 * last longer the more rows there are: nothing is rewritten, and no constraint
 * is validated.  Who waits for the table meanwhile finds the logical table
 * when it looks for the name again, also with a prepared statement.
 *
 * On routes without a key, the table is closed, and new rows go to new shards.
 * On route "hash", the table stays open as the one shard that holds all hashes:
 * a new shard could get a key that the table has already.  The partitions of a
 * table that is partitioned by hash are shards of a hash table as they are.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(shard_convert_table);

/* A conversion. */
typedef struct Conversion
{
	Oid			relid;			/* the table */
	char	   *name;			/* ... its name, with the schema */
	char	   *old_name;		/* ... and its name afterwards, without */
	bool		is_partitioned;
	int			count;			/* shards */
	const char *route;
	bool		is_hash;
	char	   *key;			/* quoted, or NULL */
	ArrayType  *key_columns;	/* ... as an array of text, not quoted */
	char	   *options;		/* as in a command, each after a comma */
	char	   *server;			/* quoted */
	bool		is_timed;		/* has option "time_column" */

	/* What is noted of the table before it is changed. */
	List	   *partitions;		/* oid, modulus, remainder */
	char	   *columns;
	List	   *sequences;		/* name, column */
	List	   *triggers;		/* that belong to statements */
	ShardSuccession succession;
} Conversion;

/*
 * Raise an error unless the caller can convert this table.
 */
static void
check_table(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	if (get_rel_name(relid) == NULL)
		shard_report_missing(relid);
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", get_rel_name(relid)),
				 shard_is_logical(relid) ?
				 errdetail("It is a foreign table of shard_fdw already.") : 0));
	if (!shard_class_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

/*
 * Read argument "key".
 */
static void
read_key(Conversion *c, char *key)
{
	List	   *names;
	ListCell   *lc;
	StringInfoData buf;
	Datum	   *columns;

	if (!SplitIdentifierString(pstrdup(key), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", "key",
						key),
				 errhint("Name the columns, separated by commas.")));
	initStringInfo(&buf);
	columns = palloc(sizeof(Datum) * list_length(names));
	foreach(lc, names)
	{
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
						 quote_identifier(lfirst(lc)));
		columns[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	}
	c->key = buf.data;
	c->key_columns = construct_array(columns, list_length(names), TEXTOID, -1,
									 false, TYPALIGN_INT);
}

/*
 * Read argument "options".
 */
static void
read_options(Conversion *c, Datum options)
{
	static const char *const taken[] = {"shards", "template", "nodes", "route", "key"};
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, untransformRelOptions(options))
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		for (int i = 0; i < lengthof(taken); i++)
			if (strcmp(def->defname, taken[i]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("parameter \"%s\" cannot have option \"%s\"",
								"options", def->defname)));
		if (def->arg == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" has no value", def->defname),
					 errhint("Write each option as name=value.")));
		c->is_timed |= strcmp(def->defname, "time_column") == 0;
		appendStringInfo(&buf, ", %s %s", quote_identifier(def->defname),
						 quote_literal_cstr(defGetString(def)));
	}
	c->options = buf.data;
}

/*
 * Read the arguments, and raise errors about those that make no sense.
 */
static void
read_arguments(FunctionCallInfo fcinfo, Conversion *c)
{
	static const char *const names[] = {
		"table", "number of shards", "parameter \"route\"", NULL,
		"parameter \"options\"", NULL, NULL, "parameter \"dry_run\""
	};

	for (int i = 0; i < lengthof(names); i++)
	{
		if (names[i] != NULL)
			shard_check_argument(fcinfo, i, names[i]);
	}
	c->relid = PG_GETARG_OID(0);
	c->count = PG_GETARG_INT32(1);
	c->route = text_to_cstring(PG_GETARG_TEXT_PP(2));
	check_table(c->relid);
	if (c->count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of shards must be greater than zero")));
	c->is_hash = strcmp(c->route, shard_route_name(SHARD_ROUTE_HASH)) == 0;
	if (!c->is_hash &&
		strcmp(c->route, shard_route_name(SHARD_ROUTE_SESSION)) != 0 &&
		strcmp(c->route, shard_route_name(SHARD_ROUTE_ROUND_ROBIN)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", "route",
						c->route),
				 errhint("Valid values are: session, round_robin, hash.")));
	if (c->is_hash != !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 c->is_hash ? errmsg("route \"hash\" requires parameter \"key\"") :
				 errmsg("parameter \"key\" requires route \"hash\"")));
	if (c->is_hash)
		read_key(c, text_to_cstring(PG_GETARG_TEXT_PP(3)));
	read_options(c, PG_GETARG_DATUM(4));
	if (!PG_ARGISNULL(5))
		c->server = pstrdup(quote_identifier(NameStr(*PG_GETARG_NAME(5))));
	c->is_partitioned = get_rel_relkind(c->relid) == RELKIND_PARTITIONED_TABLE;
	c->name = shard_qualified_name(c->relid);
	if (!PG_ARGISNULL(6))
		c->old_name = pstrdup(NameStr(*PG_GETARG_NAME(6)));
	else
		c->old_name = makeObjectName(get_rel_name(c->relid), NULL, "old");
}

/*
 * Find the server, if the caller has named none.  SPI is connected.
 */
static void
find_server(Conversion *c)
{
	List	   *rows;

	if (c->server != NULL)
		return;
	rows = shard_query_rows("SELECT quote_ident(s.srvname) FROM pg_foreign_server s"
							" JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
							" JOIN pg_class c ON c.oid = $1"
							" WHERE w.fdwhandler = 'shard_fdw.shard_fdw_handler()'::regprocedure"
							" AND has_server_privilege(c.relowner, s.oid, 'USAGE')",
							c->relid, 1);
	if (list_length(rows) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 rows == NIL ? errmsg("there is no server of shard_fdw that the owner of the table may use") :
				 errmsg("there are several servers of shard_fdw"),
				 rows == NIL ? errhint("Create one with CREATE SERVER, and grant USAGE on it.") :
				 errhint("Name one with parameter \"server\".")));
	c->server = *(char **) linitial(rows);
}

/*
 * Find out what is in the way, and return it if rsinfo is given, or else raise
 * an error if there is anything.  SPI is connected.
 */
static void
check_problems(const Conversion *c, ReturnSetInfo *rsinfo)
{
	Oid			types[] = {REGCLASSOID, TEXTOID, TEXTARRAYOID, TEXTOID};
	Datum		values[] = {
		ObjectIdGetDatum(c->relid), CStringGetTextDatum(c->route),
		PointerGetDatum(c->key_columns),
		CStringGetTextDatum(c->old_name)
	};
	char		nulls[] = {' ', ' ', c->key ? ' ' : 'n', ' ', '\0'};
	StringInfoData problems;

	if (SPI_execute_with_args("SELECT problem, remedy FROM shard_fdw.problems_of($1, $2, $3, $4)",
							  lengthof(types), types, values, nulls, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for problems");
	initStringInfo(&problems);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];

		if (rsinfo != NULL)
		{
			Datum		result[2];
			bool		isnull[2];

			for (int j = 0; j < 2; j++)
				result[j] = SPI_getbinval(row, SPI_tuptable->tupdesc, j + 1,
										  &isnull[j]);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, result,
								 isnull);
			continue;
		}
		appendStringInfo(&problems, "%s%s", problems.len > 0 ? "; " : "",
						 SPI_getvalue(row, SPI_tuptable->tupdesc, 1));
	}
	if (problems.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot convert table \"%s\"", get_rel_name(c->relid)),
				 errdetail("These are in the way: %s.", problems.data),
				 errhint("With parameter \"dry_run\", convert_table() returns what to do about each.")));
}

/*
 * Lock the views of the table, the table, its partitions, and the tables that
 * its foreign keys point to, whose triggers the new shards change.
 *
 * Whoever reads a view locks it before the table, so we do that, too.
 */
static void
lock_tables(const Conversion *c)
{
	List	   *relids = list_concat(shard_views_of(c->relid),
									 find_all_inheritors(c->relid, NoLock,
														 NULL));
	List	   *others = shard_referenced_tables(c->relid);

	shard_lock_two_patiently(relids, AccessExclusiveLock, others,
							 ShareRowExclusiveLock);
	/* It may be another one, and have others. */
	check_table(c->relid);
	if (list_difference_oid(find_all_inheritors(c->relid, NoLock, NULL),
							relids) != NIL ||
		list_difference_oid(shard_referenced_tables(c->relid), others) != NIL ||
		strcmp(c->name, shard_qualified_name(c->relid)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("table \"%s\" has been altered meanwhile",
						get_rel_name(c->relid)),
				 errhint("Try again.")));
}

/*
 * Note what the logical table is to take over.  SPI is connected.
 */
static void
note_table(Conversion *c)
{
	c->partitions = shard_query_rows("SELECT p.oid, m[1], m[2] FROM pg_inherits i"
									 " JOIN pg_class p ON p.oid = i.inhrelid"
									 " LEFT JOIN LATERAL regexp_match(pg_get_expr(p.relpartbound, p.oid),"
									 " 'modulus (\\d+), remainder (\\d+)') m ON true"
									 " WHERE i.inhparent = $1 ORDER BY p.relname",
									 c->relid, 3);
	c->columns = *(char **) linitial(shard_query_rows("SELECT shard_fdw.columns_of($1)", c->relid, 1));
	c->sequences = shard_query_rows("SELECT format('%s.%I', s.relnamespace::regnamespace, s.relname),"
									" quote_ident(a.attname) FROM pg_depend d"
									" JOIN pg_class s ON s.oid = d.objid"
									" JOIN pg_attribute a ON a.attrelid = d.refobjid"
									" AND a.attnum = d.refobjsubid"
									" WHERE d.classid = 'pg_class'::regclass"
									" AND d.refclassid = 'pg_class'::regclass"
									" AND d.refobjid = $1 AND d.deptype = 'a'"
									" AND s.relkind = 'S'",
									c->relid, 2);
	c->triggers = shard_query_rows("SELECT quote_ident(tgname) FROM pg_trigger"
								   " WHERE tgrelid = $1 AND NOT tgisinternal"
								   " AND tgtype::int4 & 1 = 0",
								   c->relid, 1);
	shard_note_succession(c->relid, &c->succession);
}

/*
 * Make a shard of the table, or of one of its partitions.
 */
static void
attach(const Conversion *c, Oid shard, const char *modulus,
	   const char *remainder)
{
	if (c->is_hash)
		shard_execute("ALTER TABLE %s ADD CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(%s, %s, %s)) NOT VALID",
					  shard_qualified_name(shard), modulus, remainder, c->key);
	shard_execute("ALTER TABLE %s INHERIT %s", shard_qualified_name(shard),
				  c->name);
	/* What is dropped from the logical table is to go here, too. */
	shard_disown(shard, NULL);
	if (!c->is_hash)
		(void) shard_close(shard);
}

/*
 * Detach a partition, and give it the triggers that it has had by way of the
 * partitioned table, as they were there.
 */
static void
detach_partition(const Conversion *c, Oid partition)
{
	List	   *triggers = shard_query_rows("SELECT quote_ident(p.tgname), t.tgenabled,"
											" coalesce(quote_literal(obj_description(t.oid, 'pg_trigger')), 'NULL'), p.tgname"
											" FROM pg_trigger t JOIN pg_trigger p ON p.oid = t.tgparentid"
											" WHERE t.tgrelid = $1 AND NOT t.tgisinternal",
											partition, 4);
	char	   *name = shard_qualified_name(partition);
	Relation	rel;
	ListCell   *lc;

	shard_execute("ALTER TABLE %s DETACH PARTITION %s",
				  shard_qualified_name(c->relid), name);
	rel = table_open(c->relid, NoLock);
	shard_clone_triggers(rel, partition);
	table_close(rel, NoLock);
	foreach(lc, triggers)
	{
		char	  **row = lfirst(lc);

		shard_set_trigger_state(partition, row[3], row[1][0]);
		shard_execute("COMMENT ON TRIGGER %s ON %s IS %s", row[0], name,
					  row[2]);
	}
}

/*
 * Create the logical table and its shards.  Returns it.  SPI is connected, and
 * we are the owner.
 */
static Oid
create_logical(const Conversion *c)
{
	Oid			schema = get_rel_namespace(c->relid);
	char	   *relname = get_rel_name(c->relid);
	Oid			logical;
	ListCell   *lc;

	foreach(lc, c->triggers)
		shard_execute("DROP TRIGGER %s ON %s", *(char **) lfirst(lc), c->name);
	shard_execute("ALTER TABLE %s RENAME TO %s", c->name,
				  quote_identifier(c->old_name));
	shard_execute("CREATE FOREIGN TABLE %s (%s) SERVER %s OPTIONS (route %s%s%s%s)",
				  c->name, c->columns ? c->columns : "", c->server,
				  quote_literal_cstr(c->route), c->is_hash ? ", key " : "",
				  c->is_hash ? quote_literal_cstr(c->key) : "", c->options);
	logical = get_relname_relid(relname, schema);
	shard_move_identities(c->relid, logical);
	foreach(lc, c->sequences)
	{
		char	  **row = lfirst(lc);

		shard_execute("ALTER SEQUENCE %s OWNED BY %s.%s", row[0], c->name,
					  row[1]);
	}
	foreach(lc, c->partitions)
		detach_partition(c, (Oid) strtoul(*(char **) lfirst(lc), NULL, 10));
	foreach(lc, c->partitions)
	{
		char	  **row = lfirst(lc);

		attach(c, (Oid) strtoul(row[0], NULL, 10), row[1], row[2]);
	}
	if (!c->is_partitioned)
		attach(c, c->relid, "1", "0");
	/* Their names are not to be those of partitions. */
	if (!c->is_hash)
		foreach(lc, shard_create(logical, c->count, c->relid, InvalidOid, NIL,
								 true))
			shard_copy_privileges(c->relid, lfirst_oid(lc), true);
	shard_succeed(logical, &c->succession);
	if (c->is_timed)
	{
		shard_note_generation(logical, false);
		shard_confirm(logical);
	}
	return logical;
}

/*
 * Convert the table, which is locked.  SPI is connected.
 */
static void
convert(Conversion *c)
{
	ShardIdentity identity;
	Relation	rel = table_open(c->relid, NoLock);
	Oid			logical;
	int			nshards;

	note_table(c);
	shard_become_owner(rel, &identity);
	table_close(rel, NoLock);
	shard_set("client_min_messages", "error");
	logical = create_logical(c);
	shard_restore_identity(&identity);

	shard_succeed_others(&c->succession);
	if (c->is_partitioned)
	{
		rel = table_open(c->relid, NoLock);
		shard_become_owner(rel, &identity);
		table_close(rel, NoLock);
		shard_execute("DROP TABLE %s", shard_qualified_name(c->relid));
		shard_restore_identity(&identity);
	}

	nshards = c->is_partitioned ? list_length(c->partitions) : 1;
	if (c->is_hash && c->is_partitioned)
		ereport(NOTICE,
				(errmsg("the places of the shards of foreign table \"%s\" have to be validated",
						get_rel_name(logical)),
				 errdetail("Until then, queries by key read all shards, and ON CONFLICT cannot be used."),
				 errhint("Use CALL shard_fdw.run_on_shards(%s, 'ALTER TABLE %%s VALIDATE CONSTRAINT shard_hash').",
						 quote_literal_cstr(c->name))));
	if (c->is_hash && c->count != nshards)
		ereport(NOTICE,
				(errmsg_plural("the rows of foreign table \"%s\" are in %d shard",
							   "the rows of foreign table \"%s\" are in %d shards",
							   nshards, get_rel_name(logical), nshards),
				 errhint("Spread them with CALL shard_fdw.reshard_online(%s, %d).",
						 quote_literal_cstr(c->name), c->count)));
}

/*
 * shard_convert_table(tbl regclass, shards int, route text, key text,
 *					   options text[], server name, old_name name, dry_run bool)
 *		SQL function convert_table(): makes a logical table of a table, or
 *		returns what is in the way.
 *
 * Raises ERRCODE_WRONG_OBJECT_TYPE for what is no table,
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it,
 * ERRCODE_INVALID_PARAMETER_VALUE for arguments that make no sense,
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if something is in the way,
 * ERRCODE_OBJECT_IN_USE if somebody else alters it at the same time, and what
 * shard_lock_two_patiently() and the DDL commands raise.
 */
Datum
shard_convert_table(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Conversion	c = {0};
	bool		dry_run;

	read_arguments(fcinfo, &c);
	dry_run = PG_GETARG_BOOL(7);
	if (!dry_run)
		PreventCommandIfReadOnly("convert_table()");
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	find_server(&c);
	check_problems(&c, dry_run ? rsinfo : NULL);
	if (!dry_run)
	{
		lock_tables(&c);
		/* Some may have come while we waited. */
		check_problems(&c, NULL);
		convert(&c);
	}
	SPI_finish();
	return (Datum) 0;
}
