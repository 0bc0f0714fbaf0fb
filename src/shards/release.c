/*-------------------------------------------------------------------------
 *
 * release.c
 *	  release(): the shards of a logical table become ordinary tables.
 *
 * Afterwards nothing of them needs the logical table or the extension.  What
 * a shard uses of the logical table is its sequences: those of serial columns,
 * those of identity columns, and those of column option "sequence".
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume.h"
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_release);

/*
 * The columns whose defaults draw from a sequence, other than those of one
 * table: a list of ObjectAddress.
 */
static List *
columns_that_use(Oid sequence, Oid other_than)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(sequence));
	catalog = table_open(DependRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, DependReferenceIndexId, true, NULL, 2,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);
		ObjectAddress *column;

		if (depend->classid != AttrDefaultRelationId)
			continue;
		column = palloc(sizeof(ObjectAddress));
		*column = GetAttrDefaultColumnAddress(depend->objid);
		if (OidIsValid(column->objectId) && column->objectId != other_than)
			result = lappend(result, column);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Give a sequence to the column that uses it, or to nobody if there are
 * several, or one that it cannot belong to.
 */
static void
give_sequence(Oid sequence, List *users)
{
	ObjectAddress *column = list_length(users) == 1 ? linitial(users) : NULL;

	/* A sequence belongs to a table of its own schema. */
	if (column != NULL && get_rel_namespace(column->objectId) ==
		get_rel_namespace(sequence))
		shard_execute("ALTER SEQUENCE %s OWNED BY %s.%s",
					  shard_qualified_name(sequence),
					  shard_qualified_name(column->objectId),
					  quote_identifier(get_attname(column->objectId,
												   column->objectSubId, false)));
	else
		shard_execute("ALTER SEQUENCE %s OWNED BY NONE",
					  shard_qualified_name(sequence));
}

/*
 * The shards that get no value for a column of the logical table but through
 * that.
 */
static List *
shards_without_default(Oid logical, AttrNumber attno, List *shards)
{
	char	   *name = get_attname(logical, attno, false);
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, shards)
	{
		HeapTuple	tuple = SearchSysCacheAttName(lfirst_oid(lc), name);
		Form_pg_attribute att;

		if (!HeapTupleIsValid(tuple))
			continue;
		att = (Form_pg_attribute) GETSTRUCT(tuple);
		if (!att->atthasdef && !att->attidentity)
		{
			ObjectAddress *column = palloc(sizeof(ObjectAddress));

			ObjectAddressSubSet(*column, RelationRelationId, lfirst_oid(lc),
								att->attnum);
			result = lappend(result, column);
		}
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * Have shards go on with the numbers of an identity column of the logical
 * table, whose sequence goes with it.  Returns a sequence that is to get the
 * name of that one when it is gone, or InvalidOid.
 */
static Oid
continue_identity(Oid logical, AttrNumber attno, Oid sequence, List *shards)
{
	List	   *users = shards_without_default(logical, attno, shards);
	FormData_pg_sequence form;
	char	   *name;
	Oid			result;
	ListCell   *lc;

	if (users == NIL || !shard_get_sequence(sequence, &form))
		return InvalidOid;
	name = ChooseRelationName(get_rel_name(logical),
							  get_attname(logical, attno, false), "seq",
							  get_rel_namespace(sequence), false);
	shard_execute("CREATE SEQUENCE %s AS %s START " INT64_FORMAT " INCREMENT " INT64_FORMAT
				  " MINVALUE " INT64_FORMAT " MAXVALUE " INT64_FORMAT " CACHE " INT64_FORMAT "%s",
				  quote_qualified_identifier(get_namespace_name(get_rel_namespace(sequence)),
											 name),
				  format_type_be(form.seqtypid), form.seqstart,
				  form.seqincrement, form.seqmin, form.seqmax, form.seqcache,
				  form.seqcycle ? " CYCLE" : "");
	result = get_relname_relid(name, get_rel_namespace(sequence));
	if (SPI_execute(psprintf("SELECT pg_catalog.setval(%u::pg_catalog.regclass, last_value, is_called) FROM %s",
							 result, shard_qualified_name(sequence)),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not set the value of a sequence");
	foreach(lc, users)
	{
		ObjectAddress *column = lfirst(lc);

		shard_execute("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT nextval(%s)",
					  shard_qualified_name(column->objectId),
					  quote_identifier(get_attname(column->objectId,
												   column->objectSubId, false)),
					  quote_literal_cstr(shard_qualified_name(result)));
	}
	give_sequence(result, users);
	return result;
}

/*
 * See to it that nothing the shards use goes with the sequences of the logical
 * table.  Returns commands to be run when the table is gone.
 */
static List *
keep_sequences(Oid logical, List *shards)
{
	List	   *commands = NIL;
	ListCell   *lc;

	foreach(lc, getOwnedSequences(logical))
	{
		Oid			sequence = lfirst_oid(lc);
		List	   *users = columns_that_use(sequence, logical);
		Oid			owner;
		int32		attno;

		if (sequenceIsOwned(sequence, DEPENDENCY_INTERNAL, &owner, &attno))
		{
			Oid			copy = continue_identity(logical, attno, sequence,
												 shards);

			if (OidIsValid(copy))
				commands = lappend(commands,
								   psprintf("ALTER SEQUENCE %s RENAME TO %s",
											shard_qualified_name(copy),
											quote_identifier(get_rel_name(sequence))));
		}
		else if (users != NIL)
			give_sequence(sequence, users);
	}
	return commands;
}

/*
 * Does an expression call in_hash() or in_slot()?
 */
static bool
calls_placement(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (shard_is_placement(node))
		return true;
	return expression_tree_walker(node, calls_placement, context);
}

/*
 * The name of a CHECK constraint of the relation that calls in_hash() or
 * in_slot(), or NULL if there is none; *is_all becomes whether it does no more
 * than that.
 */
static char *
placement_constraint(Oid relid, bool *is_all)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	char	   *result = NULL;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (result == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		bool		isnull;
		Datum		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
									   RelationGetDescr(catalog), &isnull);
		Node	   *expr;

		if (con->contype != CONSTRAINT_CHECK || isnull)
			continue;
		expr = stringToNode(TextDatumGetCString(bin));
		if (!calls_placement(expr, NULL))
			continue;
		*is_all = shard_is_placement(expr);
		result = pstrdup(NameStr(con->conname));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Detach a shard, and take from it what made it one.
 */
static void
release_shard(Oid shard, Oid logical)
{
	const char *name = shard_qualified_name(shard);
	char	   *constraint;
	bool		is_all;

	shard_execute("ALTER TABLE %s NO INHERIT %s", name,
				  shard_qualified_name(logical));
	/* It may be a shard of another logical table, too. */
	if (shard_logical_parents(shard) != NIL)
		return;
	shard_drop_seal(shard);
	while ((constraint = placement_constraint(shard, &is_all)) != NULL)
	{
		if (!is_all)
			ereport(NOTICE,
					(errmsg("constraint \"%s\" of table \"%s\" is dropped because it calls a function of the extension",
							constraint, get_rel_name(shard))));
		shard_execute("ALTER TABLE %s DROP CONSTRAINT %s", name,
					  quote_identifier(constraint));
	}
	/* The one that a closed shard gets; what the user has made stays. */
	if (OidIsValid(get_relation_constraint_oid(shard, "shard_range", true)))
		shard_execute("ALTER TABLE %s DROP CONSTRAINT shard_range", name);
	shard_forget_closed(shard);
}

/*
 * Tell which triggers go with the logical table.
 */
static void
report_triggers(Relation logical)
{
	TriggerDesc *triggers = logical->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (!triggers->triggers[i].tgisinternal)
			ereport(NOTICE,
					(errmsg("trigger \"%s\" is dropped with foreign table \"%s\"",
							triggers->triggers[i].tgname,
							RelationGetRelationName(logical))));
}

/*
 * What the shards of a logical table become.
 */
typedef enum ReleaseKind
{
	INTO_TABLES,
	INTO_PARTITIONS,
	INTO_ONE
} ReleaseKind;

/*
 * Read argument "kind".
 */
static ReleaseKind
read_kind(const char *value)
{
	if (strcmp(value, "tables") == 0)
		return INTO_TABLES;
	if (strcmp(value, "partitions") == 0)
		return INTO_PARTITIONS;
	if (strcmp(value, "one") == 0)
		return INTO_ONE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for parameter \"%s\": \"%s\"", "kind", value),
			 errhint("Valid values are: tables, partitions, one.")));
}

/*
 * Make tables of the shards, and drop the logical table.  SPI is connected.
 */
static void
release_into_tables(Oid relid, List *shards)
{
	Relation	logical = table_open(relid, NoLock);
	List	   *commands;
	ShardIdentity identity;
	ListCell   *lc;

	report_triggers(logical);
	shard_become_owner(logical, &identity);
	/* DROP wants it out of use. */
	table_close(logical, NoLock);
	foreach(lc, shards)
		release_shard(lfirst_oid(lc), relid);
	commands = keep_sequences(relid, shards);
	shard_forget_consumers(relid);
	shard_execute("DROP FOREIGN TABLE %s", shard_qualified_name(relid));
	foreach(lc, commands)
		shard_execute("%s", (char *) lfirst(lc));
	shard_restore_identity(&identity);
}

/*
 * Make one table of the shards, and drop the logical table.  Returns the table.
 * SPI is connected.
 */
static Oid
release_into_one(Oid relid, bool into_partitions)
{
	Oid			result = shard_reunite(relid, into_partitions, release_shard);
	Relation	logical = table_open(relid, NoLock);
	ShardIdentity identity;

	shard_become_owner(logical, &identity);
	table_close(logical, NoLock);
	shard_forget_consumers(relid);
	shard_execute("DROP FOREIGN TABLE %s", shard_qualified_name(relid));
	shard_restore_identity(&identity);
	return result;
}

/*
 * Lock the logical table and its shards; for one table in their place also the
 * views of the logical table, which are replaced, and what foreign keys of the
 * shards point to, whose triggers go with shards or partitions.
 *
 * Whoever reads a view locks it before the table.
 */
static void
lock_all(Oid relid, ReleaseKind kind)
{
	List	   *relids;
	List	   *others = NIL;
	ListCell   *lc;

	if (kind == INTO_TABLES)
	{
		(void) shard_lock_tree_patiently(relid, AccessExclusiveLock);
		return;
	}
	SPI_connect();
	relids = list_concat(shard_views_of(relid),
						 find_all_inheritors(relid, NoLock, NULL));
	foreach(lc, find_inheritance_children(relid, NoLock))
		others = list_concat_unique_oid(others,
										shard_referenced_tables(lfirst_oid(lc)));
	shard_lock_two_patiently(relids, AccessExclusiveLock, others,
							 AccessExclusiveLock);
	/* Some may have come or gone while we waited. */
	(void) find_all_inheritors(relid, AccessExclusiveLock, NULL);
	SPI_finish();
}

/*
 * shard_release(logical regclass, kind text)
 *		SQL function release(): makes ordinary tables of the shards, or one
 *		table, drops the logical table, and returns the tables.
 *
 * Strict.  Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the
 * logical table, ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST if something depends
 * on that, ERRCODE_INVALID_PARAMETER_VALUE for another value of "kind",
 * ERRCODE_ACTIVE_SQL_TRANSACTION where rows would have to be moved that the
 * transaction's snapshot may not show, and what shard_reunite() and ALTER TABLE
 * raise.
 */
Datum
shard_release(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			relid = PG_GETARG_OID(0);
	ReleaseKind kind = read_kind(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	MemoryContext context = CurrentMemoryContext;
	List	   *tables;
	ListCell   *lc;

	PreventCommandIfReadOnly("release()");
	shard_check_owned(relid);
	if (kind == INTO_ONE)
		shard_check_read_committed("move rows");
	lock_all(relid, kind);
	shard_check_owned(relid);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	tables = find_inheritance_children(relid, NoLock);

	SPI_connect();
	if (kind == INTO_TABLES)
		release_into_tables(relid, tables);
	else
	{
		Oid			table = release_into_one(relid, kind == INTO_PARTITIONS);
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		tables = list_make1_oid(table);
		MemoryContextSwitchTo(oldcontext);
	}
	SPI_finish();

	foreach(lc, tables)
	{
		Datum		value = ObjectIdGetDatum(lfirst_oid(lc));
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value,
							 &isnull);
	}
	return (Datum) 0;
}
