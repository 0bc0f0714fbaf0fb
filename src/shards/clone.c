/*-------------------------------------------------------------------------
 *
 * clone.c
 *	  Creating one shard in the likeness of another table.
 *
 * CREATE TABLE ... (LIKE ...) INHERITS (...) does most of it; here is what
 * that leaves out.  All is done with DDL commands, so that core checks
 * permissions, records dependencies and fires event triggers.  The one
 * exception is shard_disown(), for which there is no command.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/toast_compression.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "commands/trigger.h"
#include "foreign/foreign.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* A CHECK constraint of a table. */
typedef struct OwnCheck
{
	char	   *name;
	Node	   *expr;
	char	   *text;			/* of the expression, with names of columns */
} OwnCheck;

/*
 * shard_note_inherited
 *		What columns and constraints a shard has by inheritance only.
 *
 * Allocated in the current memory context.
 */
ShardInherited *
shard_note_inherited(Oid relid)
{
	ShardInherited *result = palloc0(sizeof(ShardInherited));
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_attribute_attrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(AttributeRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, AttributeRelidNumIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

		if (att->attnum > 0 && !att->attislocal)
			result->columns = bms_add_member(result->columns, att->attnum);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);

		if (!con->conislocal)
			result->constraints = lappend(result->constraints,
										  makeString(pstrdup(NameStr(con->conname))));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * shard_disown
 *		Mark columns and constraints that a shard has inherited as inherited
 *		only: those given, or all if NULL.
 *
 * CREATE TABLE ... (LIKE ...) INHERITS (...) counts columns and constraints
 * that come from both sides as the child's own as well, and so does ALTER
 * TABLE ... INHERIT.  Then a column that is dropped from the logical table
 * would stay in its shards.
 */
void
shard_disown(Oid relid, const ShardInherited *only)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_attribute_attrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(AttributeRelationId, RowExclusiveLock);
	scan = systable_beginscan(catalog, AttributeRelidNumIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

		if (att->attnum <= 0 || att->attinhcount == 0 || !att->attislocal ||
			(only != NULL && !bms_is_member(att->attnum, only->columns)))
			continue;
		tuple = heap_copytuple(tuple);
		((Form_pg_attribute) GETSTRUCT(tuple))->attislocal = false;
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, RowExclusiveLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);

		if (con->coninhcount == 0 || !con->conislocal ||
			(only != NULL &&
			 !list_member(only->constraints,
						  makeString(NameStr(con->conname)))))
			continue;
		tuple = heap_copytuple(tuple);
		((Form_pg_constraint) GETSTRUCT(tuple))->conislocal = false;
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);
	CommandCounterIncrement();
}

/*
 * Does the logical table compute columns, and does the source have computed
 * columns that the logical table lacks?
 */
static bool
check_generated(Relation logical, Relation source)
{
	bool		has_generated = false;

	for (int i = 0; i < RelationGetNumberOfAttributes(logical); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(logical), i);

		has_generated |= !att->attisdropped && att->attgenerated;
	}

	for (int i = 0;
		 has_generated && i < RelationGetNumberOfAttributes(source); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), i);

		if (!att->attisdropped && att->attgenerated &&
			get_attnum(RelationGetRelid(logical), NameStr(att->attname)) ==
			InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot copy generated column \"%s\" of \"%s\" into shards of \"%s\"",
							NameStr(att->attname),
							RelationGetRelationName(source),
							RelationGetRelationName(logical)),
					 errdetail("The foreign table has generated columns of its own, and PostgreSQL cannot combine the two."),
					 errhint("Create the table by hand and attach it with ALTER TABLE ... INHERIT.")));
	}
	return has_generated;
}

/*
 * Append the clauses of CREATE TABLE that LIKE does not copy.
 */
static void
append_storage_clauses(StringInfo sql, Relation source)
{
	Form_pg_class form = RelationGetForm(source);

	/* What a partitioned table says is meant for its partitions. */
	if (form->relkind != RELKIND_RELATION &&
		form->relkind != RELKIND_PARTITIONED_TABLE)
		return;

	if (OidIsValid(form->relam))
		appendStringInfo(sql, " USING %s",
						 quote_identifier(get_am_name(form->relam)));

	if (form->relkind == RELKIND_RELATION)
		shard_append_storage_parameters(sql, source);
	if (OidIsValid(form->reltablespace))
		appendStringInfo(sql, " TABLESPACE %s",
						 quote_identifier(get_tablespace_name(form->reltablespace)));
}

/*
 * Copy how columns are stored.
 *
 * CREATE TABLE would refuse a column that is stored in another way than the
 * logical table says, ALTER TABLE does not.
 */
static void
copy_column_storage(Relation source, Oid shard)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(source); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), i);
		HeapTuple	tuple;
		Form_pg_attribute own;
		const char *column = quote_identifier(NameStr(att->attname));
		bool		storage;
		bool		compression;

		if (att->attisdropped)
			continue;
		tuple = SearchSysCacheAttName(shard, NameStr(att->attname));
		if (!HeapTupleIsValid(tuple))
			continue;
		own = (Form_pg_attribute) GETSTRUCT(tuple);
		storage = own->attstorage != att->attstorage;
		compression = own->attcompression != att->attcompression;
		ReleaseSysCache(tuple);

		if (storage)
			shard_execute("ALTER TABLE %s ALTER COLUMN %s SET STORAGE %s",
						  shard_qualified_name(shard), column,
						  att->attstorage == TYPSTORAGE_PLAIN ? "PLAIN" :
						  att->attstorage == TYPSTORAGE_EXTERNAL ? "EXTERNAL" :
						  att->attstorage == TYPSTORAGE_MAIN ? "MAIN" :
						  "EXTENDED");
		if (compression)
			shard_execute("ALTER TABLE %s ALTER COLUMN %s SET COMPRESSION %s",
						  shard_qualified_name(shard), column,
						  att->attcompression == TOAST_PGLZ_COMPRESSION ? "pglz" :
						  att->attcompression == TOAST_LZ4_COMPRESSION ? "lz4" :
						  "default");
	}
}

/*
 * shard_clone_statistics
 *		Have ANALYZE do with the columns of a shard what it has been told of
 *		those of another one.  SPI is connected.
 */
void
shard_clone_statistics(Oid source, Oid shard)
{
	List	   *settings = shard_query_rows("SELECT format('ALTER COLUMN %I SET %s', a.attname, o.setting)"
											" FROM pg_attribute a CROSS JOIN LATERAL ("
											"SELECT 'STATISTICS ' || (to_jsonb(a) ->> 'attstattarget')"
											" WHERE (to_jsonb(a) ->> 'attstattarget')::int >= 0"
											" UNION ALL SELECT format('(%s)', o) FROM unnest(a.attoptions) o"
											" WHERE o LIKE 'n\\_distinct%') o(setting)"
											" WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
											source, 1);
	ListCell   *lc;

	foreach(lc, settings)
		shard_execute("ALTER TABLE %s %s", shard_qualified_name(shard),
					  *(char **) lfirst(lc));
}

/*
 * The index of the shard that corresponds to the source's replica identity
 * index: unique and immediate, on the same columns.
 */
static char *
find_identity_index(Relation source, Oid shard)
{
	Relation	rel = table_open(shard, NoLock);
	Relation	model = index_open(RelationGetReplicaIndex(source),
								   AccessShareLock);
	int			nkeys = IndexRelationGetNumberOfKeyAttributes(model);
	char	   *result = NULL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		bool		same = index->rd_index->indisunique &&
			index->rd_index->indimmediate &&
			IndexRelationGetNumberOfKeyAttributes(index) == nkeys &&
			RelationGetIndexPredicate(index) == NIL;

		for (int i = 0; same && i < nkeys; i++)
		{
			AttrNumber	a = index->rd_index->indkey.values[i];
			AttrNumber	b = model->rd_index->indkey.values[i];

			same = a > 0 && strcmp(get_attname(shard, a, false),
								   get_attname(RelationGetRelid(source), b,
											   false)) == 0;
		}
		if (same)
			result = pstrdup(RelationGetRelationName(index));
		index_close(index, NoLock);
		if (same)
			break;
	}
	index_close(model, NoLock);
	table_close(rel, NoLock);
	return result;
}

/*
 * Copy the replica identity.
 */
static void
copy_replica_identity(Relation source, Oid shard)
{
	char		identity = RelationGetForm(source)->relreplident;
	char	   *index;

	if (identity == REPLICA_IDENTITY_FULL ||
		identity == REPLICA_IDENTITY_NOTHING)
		shard_execute("ALTER TABLE %s REPLICA IDENTITY %s",
					  shard_qualified_name(shard),
					  identity == REPLICA_IDENTITY_FULL ? "FULL" : "NOTHING");
	else if (identity == REPLICA_IDENTITY_INDEX &&
			 OidIsValid(RelationGetReplicaIndex(source)) &&
			 (index = find_identity_index(source, shard)) != NULL)
		shard_execute("ALTER TABLE %s REPLICA IDENTITY USING INDEX %s",
					  shard_qualified_name(shard), quote_identifier(index));
}

/*
 * Run a parsed DDL command.  "sql" is its text, more or less.
 */
static void
execute_parsed(Node *stmt, const char *sql)
{
	PlannedStmt *wrapper = makeNode(PlannedStmt);

	wrapper->commandType = CMD_UTILITY;
	wrapper->utilityStmt = stmt;
	wrapper->stmt_location = -1;
	ProcessUtility(wrapper, sql, false, PROCESS_UTILITY_SUBCOMMAND, NULL,
				   NULL, None_Receiver, NULL);
	CommandCounterIncrement();
}

/*
 * A RangeVar for a relation, with its schema.
 */
static RangeVar *
qualified_rangevar(Oid relid)
{
	return makeRangeVar(get_namespace_name(get_rel_namespace(relid)),
						get_rel_name(relid), -1);
}

/*
 * Copy foreign keys.  Those with a name of PostgreSQL's making get a new one,
 * those that point from the source to itself will point from the shard to
 * itself.  The others need not be checked if they are certain to hold.
 */
static void
copy_foreign_keys(Relation source, const char *source_name, Oid shard,
				  bool is_certain)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	List	   *commands = NIL;
	ListCell   *lc;
	char	   *prefix = psprintf("%s_", source_name);

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationGetRelid(source)));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		const char *name = NameStr(con->conname);
		char	   *sql;
		AlterTableStmt *stmt;
		Constraint *def;

		if (con->contype != CONSTRAINT_FOREIGN)
			continue;
		sql = psprintf("ALTER TABLE %s ADD CONSTRAINT %s %s",
					   shard_qualified_name(shard), quote_identifier(name),
					   TextDatumGetCString(DirectFunctionCall1(pg_get_constraintdef,
															   ObjectIdGetDatum(con->oid))));
		stmt = castNode(AlterTableStmt,
						linitial_node(RawStmt,
									  raw_parser(sql, RAW_PARSE_DEFAULT))->stmt);
		def = castNode(Constraint,
					   linitial_node(AlterTableCmd, stmt->cmds)->def);
		if (strncmp(name, prefix, strlen(prefix)) == 0)
			def->conname = NULL;
		if (con->confrelid == con->conrelid)
			def->pktable = qualified_rangevar(shard);
		else if (is_certain && !def->skip_validation)
		{
			/* As CREATE TABLE does. */
			def->skip_validation = true;
			def->initially_valid = true;
		}
		commands = lappend(commands, stmt);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	foreach(lc, commands)
		execute_parsed(lfirst(lc), "ALTER TABLE");
}

/*
 * shard_set_trigger_state
 *		Have a trigger fire as this value of pg_trigger.tgenabled says.  SPI is
 *		connected.
 */
void
shard_set_trigger_state(Oid relid, const char *name, char state)
{
	shard_execute("ALTER TABLE %s %s TRIGGER %s", shard_qualified_name(relid),
				  state == TRIGGER_DISABLED ? "DISABLE" :
				  state == TRIGGER_FIRES_ALWAYS ? "ENABLE ALWAYS" :
				  state == TRIGGER_FIRES_ON_REPLICA ? "ENABLE REPLICA" : "ENABLE",
				  quote_identifier(name));
}

/*
 * shard_clone_triggers
 *		Copy triggers, their comments, and whether they fire, to a shard that
 *		shard_clone() has made.  SPI is connected.
 */
void
shard_clone_triggers(Relation source, Oid shard)
{
	TriggerDesc *triggers = source->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		char	   *def;
		char	   *comment;
		CreateTrigStmt *stmt;

		if (trigger->tgisinternal)
			continue;

		/* The definition names the source table: parse it, put ours in. */
		def = TextDatumGetCString(DirectFunctionCall1(pg_get_triggerdef,
													  ObjectIdGetDatum(trigger->tgoid)));
		stmt = castNode(CreateTrigStmt,
						linitial_node(RawStmt,
									  raw_parser(def, RAW_PARSE_DEFAULT))->stmt);
		stmt->relation = qualified_rangevar(shard);
		execute_parsed((Node *) stmt, def);

		comment = GetComment(trigger->tgoid, TriggerRelationId, 0);
		if (comment != NULL)
			shard_execute("COMMENT ON TRIGGER %s ON %s IS %s",
						  quote_identifier(trigger->tgname),
						  shard_qualified_name(shard),
						  quote_literal_cstr(comment));
		if (trigger->tgenabled != TRIGGER_FIRES_ON_ORIGIN)
			shard_set_trigger_state(shard, trigger->tgname,
									trigger->tgenabled);
	}
}

/*
 * shard_clone_checks
 *		Copy foreign keys and triggers to a shard that shard_clone() has made.
 *		SPI is connected.
 *
 * "source_name" is the name that the source had when its foreign keys got
 * theirs.
 */
void
shard_clone_checks(Relation source, const char *source_name, Oid shard)
{
	copy_foreign_keys(source, source_name, shard, false);
	shard_clone_triggers(source, shard);
}

/*
 * shard_clone_foreign_keys
 *		Copy foreign keys to a shard that has rows of the source only, and so is
 *		not checked.  As shard_clone_checks().
 */
void
shard_clone_foreign_keys(Relation source, const char *source_name, Oid shard)
{
	copy_foreign_keys(source, source_name, shard, true);
}

/*
 * The CHECK constraints of a relation, those that it has inherited only if
 * asked for, without those that are its placement: a list of OwnCheck.
 */
static List *
find_checks(Oid relid, bool with_inherited)
{
	List	   *context = deparse_context_for(get_rel_name(relid), relid);
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		OwnCheck   *check;
		Datum		bin;
		bool		isnull;

		if (con->contype != CONSTRAINT_CHECK ||
			(con->coninhcount > 0 && !with_inherited))
			continue;
		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
						   RelationGetDescr(catalog), &isnull);
		if (isnull)
			continue;
		check = palloc(sizeof(OwnCheck));
		check->expr = stringToNode(TextDatumGetCString(bin));
		if (shard_is_placement(check->expr))
			continue;
		check->name = pstrdup(NameStr(con->conname));
		check->text = deparse_expression(check->expr, context, false, false);
		result = lappend(result, check);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Append the definition of a shard that is an ordinary table.
 */
static void
append_local_table(StringInfo sql, Relation logical, Oid schema,
				   const char *name, Relation source)
{
	appendStringInfo(sql, "CREATE %sTABLE %s (",
					 source != NULL &&
					 RelationGetForm(source)->relpersistence == RELPERSISTENCE_UNLOGGED
					 ? "UNLOGGED " : "",
					 quote_qualified_identifier(get_namespace_name(schema),
												name));
	if (source != NULL)
		appendStringInfo(sql, "LIKE %s INCLUDING ALL"
						 " EXCLUDING STORAGE EXCLUDING COMPRESSION%s",
						 shard_qualified_name(RelationGetRelid(source)),
						 check_generated(logical, source)
						 ? " EXCLUDING GENERATED" : "");
	appendStringInfo(sql, ") INHERITS (%s)",
					 shard_qualified_name(RelationGetRelid(logical)));
	if (source != NULL)
		append_storage_clauses(sql, source);
}

/*
 * shard_strict_columns
 *		Columns for CREATE TABLE, separated by commas: those that can be null in
 *		the logical table and not in the source.
 *
 * A time column must be like that from the beginning.  Generated columns cannot
 * be declared again.  Allocated in the current memory context.
 */
char *
shard_strict_columns(Relation logical, Relation source)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < RelationGetNumberOfAttributes(logical); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(logical), i);
		AttrNumber	attno = att->attisdropped ? InvalidAttrNumber :
			get_attnum(RelationGetRelid(source), NameStr(att->attname));

		if (attno == InvalidAttrNumber || att->attnotnull ||
			att->attgenerated != '\0' ||
			!TupleDescAttr(RelationGetDescr(source), attno - 1)->attnotnull)
			continue;
		appendStringInfo(&sql, "%s%s %s", sql.len > 0 ? ", " : "",
						 quote_identifier(NameStr(att->attname)),
						 format_type_extended(att->atttypid, att->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(att->attcollation))
			appendStringInfo(&sql, " COLLATE %s",
							 generate_collation_name(att->attcollation));
		appendStringInfoString(&sql, " NOT NULL");
	}
	return sql.data;
}

/*
 * Append the definition of a remote shard, whose table on the node will have
 * the same name; with those CHECK constraints of the source that say nothing
 * about columns of its own.
 */
static void
append_foreign_table(StringInfo sql, Relation logical, Oid schema,
					 const char *name, Relation source, Oid server)
{
	char	   *columns = source ? shard_strict_columns(logical, source) : "";
	const char *separator = columns[0] == '\0' ? "" : ", ";
	ListCell   *lc;

	appendStringInfo(sql, "CREATE FOREIGN TABLE %s (%s",
					 quote_qualified_identifier(get_namespace_name(schema),
												name), columns);
	foreach(lc, source ? find_checks(RelationGetRelid(source), true) : NIL)
	{
		OwnCheck   *check = lfirst(lc);
		Bitmapset  *used = NULL;
		bool		is_shared = true;
		int			i = -1;

		pull_varattnos(check->expr, 1, &used);
		while ((i = bms_next_member(used, i)) >= 0)
		{
			AttrNumber	attno = i + FirstLowInvalidHeapAttributeNumber;

			is_shared &= attno <= 0 ||
				get_attnum(RelationGetRelid(logical),
						   get_attname(RelationGetRelid(source), attno,
									   false)) != InvalidAttrNumber;
		}
		if (is_shared)
		{
			appendStringInfo(sql, "%sCONSTRAINT %s CHECK (%s)", separator,
							 quote_identifier(check->name), check->text);
			separator = ", ";
		}
	}
	appendStringInfo(sql, ") INHERITS (%s) SERVER %s OPTIONS (schema_name %s, table_name %s)",
					 shard_qualified_name(RelationGetRelid(logical)),
					 quote_identifier(GetForeignServer(server)->servername),
					 quote_literal_cstr(get_namespace_name(schema)),
					 quote_literal_cstr(name));
}

/*
 * Have a remote shard say which columns are not null in the source.
 *
 * The columns of both must be alike, as they must be for a local shard.
 */
static void
copy_not_null(Relation logical, Relation source, Oid shard)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(logical); i++)
	{
		Form_pg_attribute own = TupleDescAttr(RelationGetDescr(logical), i);
		const char *name = NameStr(own->attname);
		HeapTuple	tuple = own->attisdropped ? NULL :
			SearchSysCacheAttName(RelationGetRelid(source), name);
		Form_pg_attribute att;

		if (!HeapTupleIsValid(tuple))
			continue;
		att = (Form_pg_attribute) GETSTRUCT(tuple);
		if (att->atttypid != own->atttypid || att->atttypmod != own->atttypmod ||
			att->attcollation != own->attcollation ||
			att->attgenerated != own->attgenerated)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of \"%s\" is not like that of foreign table \"%s\"",
							name, RelationGetRelationName(source),
							RelationGetRelationName(logical)),
					 errdetail("The types, the collations, or what generates them differ.")));
		if (att->attnotnull && !own->attnotnull)
			shard_execute("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
						  shard_qualified_name(shard), quote_identifier(name));
		ReleaseSysCache(tuple);
	}
}

/*
 * shard_clone
 *		Create a shard of the logical table in the given schema and under the
 *		given name, as a copy of the table "source" unless that is NULL.  SPI
 *		is connected.
 *
 * If "server" is not InvalidOid, it is a foreign table of that server.  The
 * table there is not created; see shard_node_make_table().
 *
 * "place" is the condition that says which hashes of the key the shard
 * holds, or NULL; what the source has instead of it is not copied.  Nor are
 * foreign keys and triggers, see shard_clone_checks().
 *
 * Returns its OID.  Raises ERRCODE_DUPLICATE_TABLE if the name is taken, and
 * what the DDL commands raise.
 */
Oid
shard_clone(Relation logical, Oid schema, const char *name, Relation source,
			const char *place, Oid server)
{
	StringInfoData sql;
	Oid			shard;
	char	   *constraint;

	if (OidIsValid(get_relname_relid(name, schema)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", name),
				 errdetail("It has the name of the next shard of foreign table \"%s\".",
						   RelationGetRelationName(logical)),
				 errhint("Rename it, or make it a shard with ALTER TABLE ... INHERIT.")));

	initStringInfo(&sql);
	if (OidIsValid(server))
		append_foreign_table(&sql, logical, schema, name, source, server);
	else
		append_local_table(&sql, logical, schema, name, source);
	shard_execute("%s", sql.data);
	pfree(sql.data);

	shard = get_relname_relid(name, schema);
	if (source != NULL)
	{
		shard_disown(shard, NULL);
		if (OidIsValid(server))
			copy_not_null(logical, source, shard);
		else
		{
			copy_column_storage(source, shard);
			shard_clone_statistics(RelationGetRelid(source), shard);
			copy_replica_identity(source, shard);
		}
		/* A sealed table can be the model, but new shards are open. */
		if (shard_seal_constraint(RelationGetRelid(logical)) == NULL)
			shard_drop_seal(shard);
		while ((constraint = shard_placement_constraint(shard)) != NULL ||
			   (constraint = shard_range_constraint(shard, NULL)) != NULL)
			shard_execute("ALTER TABLE %s DROP CONSTRAINT %s",
						  shard_qualified_name(shard),
						  quote_identifier(constraint));
	}
	shard_add_sequence(logical, shard, true, true);
	if (place != NULL)
	{
		char	   *constraint_name = "shard_hash";

		/* A logical table that is a shard itself may have it. */
		for (int i = 2; OidIsValid(get_relation_constraint_oid(shard, constraint_name, true)); i++)
			constraint_name = psprintf("shard_hash_%d", i);
		shard_execute("ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s)",
					  shard_qualified_name(shard), constraint_name, place);
	}
	return shard;
}

/*
 * Does this condition let a date or time be no later than some constant?
 */
static bool
bounds_time(Node *expr)
{
	if (is_andclause(expr))
	{
		ListCell   *lc;

		foreach(lc, ((BoolExpr *) expr)->args)
		{
			if (bounds_time(lfirst(lc)))
				return true;
		}
	}
	else if (is_orclause(expr))
	{
		bool		result = false;
		ListCell   *lc;

		/* Nulls may be let through. */
		foreach(lc, ((BoolExpr *) expr)->args)
		{
			if (bounds_time(lfirst(lc)))
				result = true;
			else if (!IsA(lfirst(lc), NullTest))
				return false;
		}
		return result;
	}
	else if (IsA(expr, OpExpr) && list_length(((OpExpr *) expr)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) expr;
		bool		is_left = contain_var_clause(linitial(op->args));
		Node	   *column = is_left ? linitial(op->args) : lsecond(op->args);
		Node	   *bound = is_left ? lsecond(op->args) : linitial(op->args);
		Oid			type = exprType(column);
		int			strategy;

		if (!contain_var_clause(column) || contain_var_clause(bound) ||
			contain_mutable_functions(bound) ||
			(type != DATEOID && type != TIMESTAMPOID &&
			 type != TIMESTAMPTZOID))
			return false;
		strategy = get_op_opfamily_strategy(op->opno,
											lookup_type_cache(type,
															  TYPECACHE_BTREE_OPFAMILY)->btree_opf);
		return strategy == BTEqualStrategyNumber ||
			strategy == (is_left ? BTLessStrategyNumber :
						 BTGreaterStrategyNumber) ||
			strategy == (is_left ? BTLessEqualStrategyNumber :
						 BTGreaterEqualStrategyNumber);
	}
	return false;
}

/*
 * shard_unfit_checks
 *		The names of the CHECK constraints that a new shard has got from a
 *		closed or sealed one and should not keep, because they are about the
 *		rows of that shard.
 *
 * These are constraints that not all of the siblings, a list of OIDs, have as
 * well, and those that end at some time.  A sibling that somebody is altering
 * does not count.  The result is in the current memory context.
 */
List *
shard_unfit_checks(Oid shard, List *siblings)
{
	List	   *checks = find_checks(shard, false);
	List	   *unfit = NIL;
	List	   *theirs = NIL;
	ListCell   *lc;

	if (checks == NIL)
		return NIL;
	foreach(lc, siblings)
	{
		Oid			sibling = lfirst_oid(lc);

		if (!ConditionalLockRelationOid(sibling, AccessShareLock))
			continue;
		if (get_rel_name(sibling) != NULL)
			theirs = lappend(theirs, find_checks(sibling, false));
		UnlockRelationOid(sibling, AccessShareLock);
	}
	foreach(lc, checks)
	{
		OwnCheck   *check = lfirst(lc);
		bool		is_unfit = bounds_time(check->expr);
		ListCell   *lc2;

		foreach(lc2, theirs)
		{
			bool		is_shared = false;
			ListCell   *lc3;

			foreach(lc3, (List *) lfirst(lc2))
				is_shared |= strcmp(((OwnCheck *) lfirst(lc3))->text,
									check->text) == 0;
			is_unfit |= !is_shared;
		}
		if (is_unfit)
			unfit = lappend(unfit, check->name);
	}
	return unfit;
}
