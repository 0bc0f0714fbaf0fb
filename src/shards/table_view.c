/*-------------------------------------------------------------------------
 *
 * table_view.c
 *	  What view "tables" tells of a logical table: what queries leave out
 *	  shards by, whether ON CONFLICT can be used, and why not.
 *
 * As for the other views (view.c), nothing here waits for a lock or runs what
 * a user has defined, and what is just changing raises no error.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_table_state);

/*
 * Look up the operator family and input type of each operator class.  False if
 * one is gone.
 */
static bool
get_families(const Oid *opclasses, int n, Oid *opfamilies, Oid *opcintypes)
{
	for (int i = 0; i < n; i++)
	{
		HeapTuple	tuple = SearchSysCache1(CLAOID,
											ObjectIdGetDatum(opclasses[i]));
		Form_pg_opclass form;

		if (!HeapTupleIsValid(tuple))
			return false;
		form = (Form_pg_opclass) GETSTRUCT(tuple);
		opfamilies[i] = form->opcfamily;
		opcintypes[i] = form->opcintype;
		ReleaseSysCache(tuple);
	}
	return true;
}

/*
 * Does an index make keys unique within its shard, so that ON CONFLICT can name
 * its columns?
 */
static bool
is_for_key(HeapTuple index, Relation catalog, const ShardTable *table)
{
	Form_pg_index form = (Form_pg_index) GETSTRUCT(index);
	int			n = form->indnkeyatts;
	Oid			opfamilies[INDEX_MAX_KEYS];
	Oid			opcintypes[INDEX_MAX_KEYS];
	oidvector  *opclasses;
	oidvector  *collations;
	bool		isnull;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid ||
		!form->indisready || !form->indislive ||
		!heap_attisnull(index, Anum_pg_index_indpred, RelationGetDescr(catalog)))
		return false;
	opclasses = (oidvector *)
		DatumGetPointer(heap_getattr(index, Anum_pg_index_indclass,
									 RelationGetDescr(catalog), &isnull));
	collations = (oidvector *)
		DatumGetPointer(heap_getattr(index, Anum_pg_index_indcollation,
									 RelationGetDescr(catalog), &isnull));
	return get_families(opclasses->values, n, opfamilies, opcintypes) &&
		shard_key_in_index(table->key, table->relid, form->indrelid, n,
						   form->indkey.values, opfamilies, opcintypes,
						   collations->values);
}

/*
 * Does a shard have such an index?
 */
static bool
has_unique_key(Oid shard, const ShardTable *table)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(shard));
	catalog = table_open(IndexRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, IndexIndrelidIndexId, true, NULL, 1,
							  &key);
	while (!result && HeapTupleIsValid(tuple = systable_getnext(scan)))
		result = is_for_key(tuple, catalog, table);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * A shard's name as regclass writes it, or its OID if it is gone.
 */
static char *
shown_name(Oid shard)
{
	return DatumGetCString(DirectFunctionCall1(regclassout,
											   ObjectIdGetDatum(shard)));
}

/*
 * Why ON CONFLICT cannot be used, or NULL if it can.
 *
 * That a shard is always read in queries for a key is among the reasons: such a
 * shard may have a conflicting row as well.
 */
static char *
find_obstacle(const ShardTable *table, const ShardOptions *options)
{
	if (table->route != SHARD_ROUTE_HASH)
		return psprintf("route \"%s\" has no key",
						shard_route_name(table->route));
	if (options->key == NULL)
		return pstrdup("option \"key\" is not given");
	if (table->key == NULL)
		return pstrdup("the columns that option \"key\" names cannot be a key");
	if (table->nmembers == 0)
		return pstrdup("there are no shards");

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];
		const char *problem = NULL;

		if (member->modulus == 0)
			problem = "has no place";
		else if (!member->is_place_valid)
			problem = "has a place that is not validated";
		else if (member->has_children)
			problem = "may have rows in tables that inherit from it";
		if (problem != NULL)
			return psprintf("shard %s %s", shown_name(member->relid),
							problem);
	}
	if (table->bounds == NULL)
		return pstrdup("the places of shards overlap");

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		CHECK_FOR_INTERRUPTS();
		if (!member->is_local)
			return psprintf("shard %s is a foreign table",
							shown_name(member->relid));
		if (!has_unique_key(member->relid, table))
			return psprintf("shard %s has no unique index that includes the key",
							shown_name(member->relid));
	}
	return NULL;
}

/*
 * What conditions on the table let queries leave out shards: an array with the
 * names of the key's columns as one element, and of the column of ids and the
 * time column.  NULL if there are none.
 */
static ArrayType *
describe_pruning(const ShardTable *table, const ShardOptions *options,
				 AttrNumber time_attno)
{
	Datum		elements[3];
	int			n = 0;
	bool		by_key = false;
	bool		by_id = false;
	char	   *id_column = table->seq_attno == 0 ? NULL :
		get_attname(table->relid, table->seq_attno, true);

	for (int i = 0; i < table->nmembers; i++)
	{
		by_key |= table->members[i].is_place_valid;
		by_id |= table->members[i].is_id_slot_valid;
	}
	if (table->key != NULL && by_key)
		elements[n++] = CStringGetTextDatum(options->key);
	if (id_column != NULL && by_id)
		elements[n++] = CStringGetTextDatum(id_column);
	if (time_attno != 0)
		elements[n++] = CStringGetTextDatum(options->time_column);
	return n == 0 ? NULL :
		construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Read as much of a logical table with these options as the view shows.
 */
static void
read_table(Oid logical, const ShardOptions *options, ShardTable *table)
{
	memset(table, 0, sizeof(ShardTable));
	table->relid = logical;
	table->route = options->route;
	if (table->route == SHARD_ROUTE_HASH)
		table->key = shard_key_create(logical, options->key, true);
	table->seq_attno = shard_sequence_column(logical, true,
											 &table->seq_always);
	table->members = shard_list_members(logical, &table->nmembers);
	if (table->key != NULL || table->seq_attno != 0)
		shard_read_places(table);
}

/*
 * shard_table_state(logical regclass, server_options text[], options text[])
 *		SQL function table_state(): what view "tables" shows of a logical table.
 */
Datum
shard_table_state(PG_FUNCTION_ARGS)
{
	Datum		server_options = PG_ARGISNULL(1) ? (Datum) 0 :
		PG_GETARG_DATUM(1);
	Datum		stored = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	Oid			logical;
	ShardOptions options;
	ShardTable	table;
	AttrNumber	time_attno;
	ArrayType  *pruning;
	char	   *obstacle;
	int			counts[SHARD_SEALED + 1] = {0};
	TupleDesc	desc;
	Datum		values[9] = {0};
	bool		isnull[9] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	logical = PG_GETARG_OID(0);
	shard_read_options(server_options, stored, &options);
	read_table(logical, &options, &table);
	for (int i = 0; i < table.nmembers; i++)
		counts[table.members[i].state]++;
	time_attno = options.time_column == NULL ? 0 :
		get_attnum(logical, options.time_column);
	if (time_attno <= 0 || !shard_is_time_type(get_atttype(logical, time_attno)))
		time_attno = 0;
	pruning = describe_pruning(&table, &options, time_attno);
	obstacle = find_obstacle(&table, &options);

	values[0] = CStringGetTextDatum(shard_route_name(options.route));
	isnull[1] = options.key == NULL;
	if (!isnull[1])
		values[1] = CStringGetTextDatum(options.key);
	isnull[2] = options.time_column == NULL;
	if (!isnull[2])
		values[2] = CStringGetTextDatum(options.time_column);
	values[3] = Int32GetDatum(counts[SHARD_OPEN]);
	values[4] = Int32GetDatum(counts[SHARD_CLOSED]);
	values[5] = Int32GetDatum(counts[SHARD_SEALED]);
	isnull[6] = pruning == NULL;
	values[6] = PointerGetDatum(pruning);
	values[7] = BoolGetDatum(obstacle == NULL);
	isnull[8] = obstacle == NULL;
	if (obstacle != NULL)
		values[8] = CStringGetTextDatum(obstacle);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}
