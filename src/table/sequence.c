/*-------------------------------------------------------------------------
 *
 * sequence.c
 *	  Ids from a sequence for each shard: column option "sequence".
 *
 * Each shard has a slot, a number from 1 to max_shards.  The sequence of a
 * slot starts at its number and goes on in steps of max_shards, the stride.
 * So ids are unique over all shards, sessions that use different shards do
 * not wait for each other to get one, ids ascend within a shard, and they
 * tell the slot.
 *
 * The sequence belongs to the logical table's column, not to the shard.  It
 * outlives the shard, and another shard that takes the slot continues with it.
 * So an id is never given twice.  Several shards can draw from the sequence of
 * one slot.
 *
 * With 'always', a CHECK constraint that calls in_slot() says which ids a
 * shard holds.  With 'by_default', any id may be anywhere.
 *
 * The sequence is found by the default of the shard's column.  An insert
 * through the logical table requires no privilege on a sequence that belongs
 * to the logical table or to the shard.  sequence_ddl.c creates sequences.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * shard_id_from_datum
 *		The value of a column with option "sequence", of type smallint, integer
 *		or bigint.
 */
int64
shard_id_from_datum(Datum value, Oid type)
{
	return type == INT2OID ? DatumGetInt16(value) :
		type == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value);
}

/*
 * shard_is_integer_type
 *		Is the type smallint, integer or bigint?
 */
bool
shard_is_integer_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/*
 * shard_get_sequence
 *		Fill in what the catalog says of a sequence.  False if there is none
 *		by that OID.
 */
bool
shard_get_sequence(Oid sequence, Form_pg_sequence form)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));

	if (!HeapTupleIsValid(tuple))
		return false;
	memcpy(form, GETSTRUCT(tuple), sizeof(FormData_pg_sequence));
	ReleaseSysCache(tuple);
	return true;
}

/*
 * shard_sequence_column
 *		The column of a logical table that has option "sequence", or 0 if
 *		there is none; *always says which kind.
 *
 * Raises ERRCODE_INVALID_OBJECT_DEFINITION and the like for a column that
 * cannot have it, or for two, and for options that a column does not take,
 * unless missing_ok; then these count as none.
 */
AttrNumber
shard_sequence_column(Oid relid, bool missing_ok, bool *always)
{
	AttrNumber	result = 0;
	AttrNumber	natts = 0;
	HeapTuple	class_tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

	*always = false;
	if (HeapTupleIsValid(class_tuple))
	{
		natts = ((Form_pg_class) GETSTRUCT(class_tuple))->relnatts;
		ReleaseSysCache(class_tuple);
	}
	for (AttrNumber attno = 1; attno <= natts; attno++)
	{
		List	   *options;
		HeapTuple	tuple = SearchSysCacheAttNum(relid, attno);
		Form_pg_attribute att;
		const char *problem = NULL;
		char	   *value = NULL;
		ListCell   *lc;

		if (!HeapTupleIsValid(tuple))
			continue;
		att = (Form_pg_attribute) GETSTRUCT(tuple);
		options = heap_attisnull(tuple, Anum_pg_attribute_attfdwoptions, NULL) ?
			NIL : GetForeignColumnOptions(relid, attno);
		foreach(lc, options)
		{
			if (shard_check_column_option(lfirst_node(DefElem, lc), missing_ok) &&
				strcmp(lfirst_node(DefElem, lc)->defname, "sequence") == 0)
				value = defGetString(lfirst_node(DefElem, lc));
		}
		if (value == NULL)
		{
			ReleaseSysCache(tuple);
			continue;
		}
		if (!shard_is_integer_type(att->atttypid))
			problem = "Its type is not smallint, integer or bigint.";
		else if (att->atthasdef || att->attidentity || att->attgenerated)
			problem = "It has a default, is an identity column, or is generated.";
		else if (result != 0)
			problem = "Another column has it already.";
		if (problem != NULL && !missing_ok)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("column \"%s\" of foreign table \"%s\" cannot have option \"sequence\"",
							NameStr(att->attname), get_rel_name(relid)),
					 errdetail_internal("%s", problem)));
		ReleaseSysCache(tuple);
		if (problem != NULL)
			return 0;
		result = attno;
		*always = strcmp(value, "always") == 0;
	}
	return result;
}

/*
 * shard_default_sequence
 *		The sequence that the default of a column draws from, or InvalidOid.
 */
Oid
shard_default_sequence(Oid relid, const char *column)
{
	HeapTuple	tuple = SearchSysCacheAttName(relid, column);
	AttrNumber	attno = 0;
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData keys[2];
	Oid			result = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	if (((Form_pg_attribute) GETSTRUCT(tuple))->atthasdef)
		attno = ((Form_pg_attribute) GETSTRUCT(tuple))->attnum;
	ReleaseSysCache(tuple);
	if (attno == 0)
		return InvalidOid;

	ScanKeyInit(&keys[0], Anum_pg_attrdef_adrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attrdef_adnum, BTEqualStrategyNumber,
				F_INT2EQ, Int16GetDatum(attno));
	catalog = table_open(AttrDefaultRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, AttrDefaultIndexId, true, NULL, 2, keys);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		bin = heap_getattr(tuple, Anum_pg_attrdef_adbin,
									   RelationGetDescr(catalog), &isnull);
		Node	   *expr = NULL;

		/* The column may be narrower than what nextval() returns. */
		if (toast_raw_datum_size(bin) <= SHARD_MAX_SIMPLE_EXPRESSION)
			expr = strip_implicit_coercions(stringToNode(TextDatumGetCString(bin)));
		if (expr != NULL && IsA(expr, FuncExpr) && ((FuncExpr *) expr)->funcid == F_NEXTVAL &&
			IsA(linitial(((FuncExpr *) expr)->args), Const))
			result = DatumGetObjectId(linitial_node(Const, ((FuncExpr *) expr)->args)->constvalue);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * shard_owns_sequence
 *		Does the sequence belong to the logical table's column "attno", as
 *		those of its slots do, or to a column of the shard?
 */
bool
shard_owns_sequence(Oid logical, AttrNumber attno, Oid shard, Oid sequence)
{
	Oid			owner;
	int32		column;

	return OidIsValid(sequence) &&
		sequenceIsOwned(sequence, DEPENDENCY_AUTO, &owner, &column) &&
		(owner == shard || (owner == logical && column == attno));
}

/*
 * shard_sequence_id_slot
 *		The slot whose ids a sequence gives if it goes in steps of the stride,
 *		or 0.
 */
int
shard_sequence_id_slot(Oid sequence, int stride)
{
	FormData_pg_sequence form;
	int			id_slot;

	if (!shard_get_sequence(sequence, &form) || form.seqincrement != stride)
		return 0;
	id_slot = shard_id_slot_of(form.seqstart, stride);
	return id_slot == 0 ? stride : id_slot;
}
