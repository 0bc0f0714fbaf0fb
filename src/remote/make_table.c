/*-------------------------------------------------------------------------
 *
 * make_table.c
 *	  Creating the table on a node that is behind a remote shard.
 *
 * The foreign table is there already.  Its columns and constraints are those
 * that the node's table is to have; indexes, keys, storage parameters, and
 * columns that the logical table does not have come from the table that is
 * copied.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

/*
 * shard_node_default
 *		The expression that a column's default or its generated values come
 *		from, as text, or NULL.
 */
char *
shard_node_default(Relation rel, AttrNumber attno)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	List	   *context = deparse_context_for(RelationGetRelationName(rel),
											  RelationGetRelid(rel));

	for (int i = 0; constr != NULL && i < constr->num_defval; i++)
		if (constr->defval[i].adnum == attno)
			return deparse_expression(stringToNode(constr->defval[i].adbin),
									  context, false, false);
	return NULL;
}

/*
 * Append a column's definition, without what fills it in, under this name.
 */
static void
append_column(StringInfo sql, Form_pg_attribute att, const char *name)
{
	appendStringInfo(sql, "%s%s %s", sql->len > 0 ? ", " : "",
					 quote_identifier(name),
					 format_type_extended(att->atttypid, att->atttypmod,
										  FORMAT_TYPE_TYPEMOD_GIVEN |
										  FORMAT_TYPE_FORCE_QUALIFY));
	if (OidIsValid(att->attcollation) &&
		att->attcollation != get_typcollation(att->atttypid))
		appendStringInfo(sql, " COLLATE %s",
						 generate_collation_name(att->attcollation));
	if (att->attnotnull)
		appendStringInfoString(sql, " NOT NULL");
}

/*
 * Append what computes a generated column.
 */
static void
append_generated(StringInfo sql, Relation rel, Form_pg_attribute att)
{
	if (att->attgenerated)
		appendStringInfo(sql, " GENERATED ALWAYS AS (%s) %s",
						 shard_node_default(rel, att->attnum),
						 att->attgenerated == ATTRIBUTE_GENERATED_STORED ?
						 "STORED" : "VIRTUAL");
}

/*
 * shard_node_append_column
 *		Append the definition of a column, under the name that it has on the
 *		node, without a default.
 */
void
shard_node_append_column(StringInfo sql, Relation rel, AttrNumber attno,
						 const char *name)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);

	append_column(sql, att, name);
	append_generated(sql, rel, att);
}

/*
 * Append the columns of the remote shard.  Values for all but the generated
 * ones come from here, so there are no defaults.
 */
static void
append_columns(StringInfo sql, Relation shard)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(shard); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(shard), i);

		if (!att->attisdropped)
			shard_node_append_column(sql, shard, att->attnum,
									 shard_node_column_name(RelationGetRelid(shard),
															att->attnum));
	}
}

/*
 * Append the columns that only the source has.  The node fills them in.
 */
static void
append_own_columns(StringInfo sql, Relation shard, Relation source)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(source); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), i);
		const char *name = NameStr(att->attname);
		char	   *value;

		if (att->attisdropped ||
			get_attnum(RelationGetRelid(shard), name) != InvalidAttrNumber)
			continue;
		append_column(sql, att, name);
		append_generated(sql, source, att);
		if (att->attidentity)
			appendStringInfo(sql, " GENERATED %s AS IDENTITY",
							 att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS ?
							 "ALWAYS" : "BY DEFAULT");
		else if (OidIsValid(shard_default_sequence(RelationGetRelid(source),
												   name)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot copy column \"%s\" of \"%s\" to a node",
							name, RelationGetRelationName(source)),
					 errdetail("The foreign table does not have the column, and its default draws from a sequence of this server."),
					 errhint("Make it an identity column.")));
		else if (!att->attgenerated &&
				 (value = shard_node_default(source, att->attnum)) != NULL)
			appendStringInfo(sql, " DEFAULT %s", value);
	}
}

/*
 * Does a CHECK constraint of the source say something about columns that the
 * shard does not have?  Those about others, the shard has got from it.
 */
static bool
is_about_own_columns(Relation shard, Relation source, HeapTuple constraint)
{
	Relation	catalog = table_open(ConstraintRelationId, AccessShareLock);
	bool		isnull;
	Datum		columns = heap_getattr(constraint, Anum_pg_constraint_conkey,
									   RelationGetDescr(catalog), &isnull);
	Datum	   *values;
	int			n = 0;
	bool		result = false;

	table_close(catalog, AccessShareLock);
	if (!isnull)
		deconstruct_array(DatumGetArrayTypeP(columns), INT2OID, 2, true,
						  TYPALIGN_SHORT, &values, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		AttrNumber	attno = DatumGetInt16(values[i]);

		result |= attno > 0 &&
			get_attnum(RelationGetRelid(shard),
					   get_attname(RelationGetRelid(source), attno, false)) ==
			InvalidAttrNumber;
	}
	return result;
}

/*
 * Append the CHECK constraints of the shard, or, given a source, those of it
 * that the shard cannot have.
 *
 * Those that call in_hash() or in_slot() are left out if the node does not have
 * these functions.
 */
static void
append_checks(StringInfo sql, Relation shard, Relation source,
			  bool has_extension)
{
	Relation	rel = source ? source : shard;
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationGetRelid(rel)));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		Datum		bin;
		bool		isnull;

		if (con->contype != CONSTRAINT_CHECK ||
			(source != NULL && !is_about_own_columns(shard, source, tuple)))
			continue;
		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
						   RelationGetDescr(catalog), &isnull);
		if (!has_extension && !isnull &&
			shard_is_placement(stringToNode(TextDatumGetCString(bin))))
			continue;
		appendStringInfo(sql, ", CONSTRAINT %s %s",
						 quote_identifier(NameStr(con->conname)),
						 TextDatumGetCString(DirectFunctionCall1(pg_get_constraintdef,
																 ObjectIdGetDatum(con->oid))));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*
 * What the definition of an index says after the names of index and table.
 */
static char *
index_definition(Relation index)
{
	char	   *def = TextDatumGetCString(DirectFunctionCall1(pg_get_indexdef,
															  ObjectIdGetDatum(RelationGetRelid(index))));
	Oid			table = index->rd_index->indrelid;
	char	   *prefix = psprintf("CREATE %sINDEX %s ON %s%s",
								  index->rd_index->indisunique ? "UNIQUE " : "",
								  quote_identifier(RelationGetRelationName(index)),
								  RelationGetForm(index)->relkind == RELKIND_PARTITIONED_INDEX ?
								  "ONLY " : "",
								  quote_qualified_identifier(get_namespace_name_or_temp(get_rel_namespace(table)),
															 get_rel_name(table)));

	if (strncmp(def, prefix, strlen(prefix)) != 0)
		elog(ERROR, "unexpected definition of index \"%s\": %s",
			 RelationGetRelationName(index), def);
	return def + strlen(prefix);
}

/*
 * shard_node_index_sql
 *		The command that gives a table a copy of an index, or of the key or
 *		exclusion constraint that it is for.
 */
char *
shard_node_index_sql(const char *table, Relation index)
{
	Oid			constraint = get_index_constraint(RelationGetRelid(index));

	if (OidIsValid(constraint))
		return psprintf("ALTER TABLE %s ADD %s", table,
						TextDatumGetCString(DirectFunctionCall1(pg_get_constraintdef,
																ObjectIdGetDatum(constraint))));
	return psprintf("CREATE %sINDEX ON %s%s",
					index->rd_index->indisunique ? "UNIQUE " : "", table,
					index_definition(index));
}

/*
 * Append commands that give the table the indexes of the source, and the keys
 * and exclusion constraints that some of them are for.
 */
static void
append_indexes(StringInfo sql, const char *name, Relation source)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(source))
	{
		Relation	index = relation_open(lfirst_oid(lc), AccessShareLock);

		if (OidIsValid(get_index_constraint(lfirst_oid(lc))) ||
			index->rd_index->indisvalid)
			appendStringInfo(sql, "; %s", shard_node_index_sql(name, index));
		relation_close(index, NoLock);
	}
}

/*
 * The commands that create the table.
 */
static char *
table_sql(const char *name, Relation shard, Relation source,
		  bool has_extension)
{
	StringInfoData columns;
	StringInfoData sql;

	initStringInfo(&columns);
	append_columns(&columns, shard);
	if (source != NULL)
		append_own_columns(&columns, shard, source);
	append_checks(&columns, shard, NULL, has_extension);
	if (source != NULL)
		append_checks(&columns, shard, source, has_extension);

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE %sTABLE %s (%s)",
					 source != NULL &&
					 RelationGetForm(source)->relpersistence == RELPERSISTENCE_UNLOGGED
					 ? "UNLOGGED " : "", name,
	/* There may be constraints, but no columns. */
					 columns.data + (columns.data[0] == ',' ? 2 : 0));
	if (source == NULL)
		return sql.data;
	if (RelationGetForm(source)->relkind == RELKIND_RELATION)
	{
		if (RelationGetForm(source)->relam != HEAP_TABLE_AM_OID)
			appendStringInfo(&sql, " USING %s",
							 quote_identifier(get_am_name(RelationGetForm(source)->relam)));
		shard_append_storage_parameters(&sql, source);
	}
	append_indexes(&sql, name, source);
	return sql.data;
}

/*
 * shard_node_has_functions
 *		Does the node have in_hash() and in_slot() of this extension?
 */
bool
shard_node_has_functions(ShardNodeSession *session)
{
	const char *sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p"
		" JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
		" WHERE n.nspname = 'shard_fdw' AND p.proname IN ('in_hash', 'in_slot')";
	ShardNodeError error;
	const PGresult *result = shard_node_query(session, sql, false, &error);

	if (result == NULL)
		shard_node_raise(&error, sql);
	return PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "2") == 0;
}

/*
 * The value of a foreign table's option, or "missing".
 */
static const char *
table_option(Oid relid, const char *name, const char *missing)
{
	const char *result = missing;
	ListCell   *lc;

	foreach(lc, GetForeignTable(relid)->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0)
			result = defGetString(def);
	}
	return result;
}

/*
 * shard_node_column_name
 *		The name that a column of a foreign table has on its node.
 */
const char *
shard_node_column_name(Oid relid, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, GetForeignColumnOptions(relid, attno))
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "column_name") == 0)
			return defGetString(def);
	}
	return get_attname(relid, attno, false);
}

/*
 * shard_node_table_name
 *		The name that the table of a foreign table has on its node, with its
 *		schema, as postgres_fdw understands it.
 */
char *
shard_node_table_name(Oid relid)
{
	return quote_qualified_identifier(table_option(relid, "schema_name",
												   get_namespace_name(get_rel_namespace(relid))),
									  table_option(relid, "table_name",
												   get_rel_name(relid)));
}

/*
 * shard_node_make_table
 *		Create the table that is behind a remote shard, by the user mapping of
 *		this role.
 *
 * "source" is the table to be copied, or InvalidOid.  The search path is
 * pg_catalog.  Raises what shard_node_connect() and the node raise, and
 * ERRCODE_FEATURE_NOT_SUPPORTED if the source has a column that the node could
 * not fill in.
 */
void
shard_node_make_table(Oid shard, Oid source, Oid userid)
{
	Relation	shard_rel = relation_open(shard, AccessShareLock);
	Relation	source_rel = OidIsValid(source) ?
		relation_open(source, AccessShareLock) : NULL;
	Oid			server = GetForeignServerIdByRelId(shard);
	ShardNodeError error;
	ShardNodeSession *session = shard_node_session(server, userid, &error);
	char	   *sql;

	if (session == NULL)
		shard_node_raise(&error, NULL);
	sql = table_sql(shard_node_table_name(shard), shard_rel, source_rel,
					shard_node_has_functions(session));
	if (shard_node_query(session, sql, true, &error) == NULL)
	{
		const char *schema = table_option(shard, "schema_name", "");

		/* What the user can do about it, the node does not know. */
		if (error.hint != NULL)
			;
		else if (error.sqlstate == ERRCODE_DUPLICATE_TABLE &&
				 strcmp(table_option(shard, "table_name", ""), get_rel_name(shard)) != 0)
			error.hint = "It may have been left when the shard was moved from there. If nobody uses it, drop it there, or rename it.";
		else if (error.sqlstate == ERRCODE_DUPLICATE_TABLE)
			error.hint = "It has the name of the next shard. Rename or drop it there, or have a foreign table that inherits from the logical one stand for it here.";
		else if (error.sqlstate == ERRCODE_UNDEFINED_SCHEMA)
			error.hint = psprintf("The schema of the new shard is %s. It must exist on the server, too.",
								  quote_identifier(schema));
		else if (error.sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE)
			error.hint = psprintf("The role that the user mapping names needs CREATE on schema %s there.",
								  quote_identifier(schema));
		shard_node_raise(&error, sql);
	}
	if (source_rel != NULL)
		relation_close(source_rel, AccessShareLock);
	relation_close(shard_rel, AccessShareLock);
}
