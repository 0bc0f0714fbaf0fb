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
 * outlives the shard, and another shard that takes the slot goes on with it:
 * an id that was given is never given again.  Several shards can draw from
 * the sequence of one slot.
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
#include "shard_fdw.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "commands/sequence.h"
#include "foreign/foreign.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_in_slot);

/*
 * Which slot an id is of, from 0 to stride - 1.
 */
static int
slot_of(int64 id, int stride)
{
	int			result = (int) (id % stride);

	return result < 0 ? result + stride : result;
}

/*
 * shard_in_slot(stride int, slot int, id bigint)
 *		SQL function in_slot(): is the id one of those that the sequence of
 *		the shard with this slot makes?
 *
 * Strict.  Raises ERRCODE_INVALID_PARAMETER_VALUE for a stride or a slot that
 * cannot be.
 */
Datum
shard_in_slot(PG_FUNCTION_ARGS)
{
	int			stride = PG_GETARG_INT32(0);
	int			slot = PG_GETARG_INT32(1);

	if (stride <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stride must be greater than zero")));
	if (stride > SHARD_MAX_SHARDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stride must not be greater than %d",
						SHARD_MAX_SHARDS)));
	if (slot < 1 || slot > stride)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slot must be at least one and not greater than the stride")));
	PG_RETURN_BOOL(slot_of(PG_GETARG_INT64(2), stride) == slot % stride);
}

static Oid
in_slot_oid(void)
{
	return shard_placement_function("in_slot", INT8OID);
}

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
 * shard_in_slot_clause
 *		A call of in_slot() on an expression of type smallint, integer or
 *		bigint.
 */
Expr *
shard_in_slot_clause(int stride, int slot, Expr *id)
{
	Oid			type = exprType((Node *) id);

	if (type != INT8OID)
		id = (Expr *) makeFuncExpr(type == INT2OID ? F_INT8_INT2 : F_INT8_INT4,
								   INT8OID, list_make1(id), InvalidOid,
								   InvalidOid, COERCE_IMPLICIT_CAST);
	return (Expr *)
		makeFuncExpr(in_slot_oid(), BOOLOID,
					 list_make3(makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
										  Int32GetDatum(stride), false, true),
								makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
										  Int32GetDatum(slot), false, true),
								id),
					 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * shard_id_in_slot
 *		May a shard with this slot hold this id?  With a stride of 0, any.
 */
bool
shard_id_in_slot(int64 id, int stride, int slot)
{
	return stride == 0 || slot_of(id, stride) == slot % stride;
}

/*
 * shard_is_slot
 *		Does the expression of a CHECK constraint call in_slot()?
 */
bool
shard_is_slot(Node *expr)
{
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) == 3 &&
		((FuncExpr *) expr)->funcid == in_slot_oid();
}

/*
 * shard_read_slot
 *		Does the expression of a shard's CHECK constraint say which ids in
 *		the logical table's column it holds?  If so, fills in *stride and
 *		*slot.
 */
bool
shard_read_slot(Node *expr, Oid shard, Oid logical, AttrNumber attno,
				int *stride, int *slot)
{
	Const	   *stride_const;
	Const	   *slot_const;
	Var		   *var;
	int			stride_value;
	int			slot_value;

	if (!shard_is_slot(expr))
		return false;
	stride_const = linitial(((FuncExpr *) expr)->args);
	slot_const = lsecond(((FuncExpr *) expr)->args);
	var = (Var *) strip_implicit_coercions(lthird(((FuncExpr *) expr)->args));
	if (!IsA(stride_const, Const) || !IsA(slot_const, Const) ||
		!IsA(var, Var) || stride_const->constisnull ||
		slot_const->constisnull ||
		!shard_is_column(var, shard, logical, attno))
		return false;
	stride_value = DatumGetInt32(stride_const->constvalue);
	slot_value = DatumGetInt32(slot_const->constvalue);
	if (stride_value <= 0 || stride_value > SHARD_MAX_SHARDS ||
		slot_value < 1 || slot_value > stride_value)
		return false;
	*stride = stride_value;
	*slot = slot_value;
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
		if (att->atttypid != INT2OID && att->atttypid != INT4OID &&
			att->atttypid != INT8OID)
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
 * shard_sequence_slot
 *		The slot whose ids a sequence gives if it goes in steps of the stride,
 *		or 0.
 */
int
shard_sequence_slot(Oid sequence, int stride)
{
	FormData_pg_sequence form;
	int			slot;

	if (!shard_get_sequence(sequence, &form) || form.seqincrement != stride)
		return 0;
	slot = slot_of(form.seqstart, stride);
	return slot == 0 ? stride : slot;
}

/*
 * Set a column of a row, which keeps its other columns and is materialized.
 */
static void
set_column(TupleTableSlot *row, AttrNumber attno, Datum value)
{
	TupleDesc	desc = row->tts_tupleDescriptor;
	Datum	   *values;
	bool	   *isnull;

	slot_getallattrs(row);
	if (!TTS_IS_HEAPTUPLE(row) || ((HeapTupleTableSlot *) row)->tuple == NULL)
	{
		row->tts_values[attno - 1] = value;
		row->tts_isnull[attno - 1] = false;
		return;
	}

	/* Its values are in the tuple, which goes. */
	values = palloc_array(Datum, desc->natts);
	isnull = palloc_array(bool, desc->natts);
	memcpy(isnull, row->tts_isnull, sizeof(bool) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		values[i] = isnull[i] ? (Datum) 0 :
			datumCopy(row->tts_values[i], att->attbyval, att->attlen);
	}
	values[attno - 1] = value;
	isnull[attno - 1] = false;
	ExecClearTuple(row);
	memcpy(row->tts_values, values, sizeof(Datum) * desc->natts);
	memcpy(row->tts_isnull, isnull, sizeof(bool) * desc->natts);
	ExecStoreVirtualTuple(row);
	ExecMaterializeSlot(row);
}

/*
 * shard_fill_sequence
 *		Give a row of the logical table its number, from the sequence of the
 *		shard it goes to.
 *
 * A number that is there is kept if it may be there.  Raises
 * ERRCODE_GENERATED_ALWAYS if not, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
 * if the shard has no sequence, and what nextval() raises.
 */
void
shard_fill_sequence(ShardInsert *insert, ShardTarget *target,
					TupleTableSlot *row)
{
	ShardTable *table = insert->table;
	AttrNumber	attno = table->seq_attno;
	Oid			type = TupleDescAttr(row->tts_tupleDescriptor, attno - 1)->atttypid;
	MemoryContext oldcontext;
	int64		id;

	if (!slot_attisnull(row, attno) &&
		insert->override != OVERRIDING_USER_VALUE)
	{
		if (insert->takes_ids)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("cannot insert a non-DEFAULT value into column \"%s\"",
						get_attname(table->relid, attno, false)),
				 table->commit_order ?
				 errdetail("Foreign table \"%s\" has option \"commit_order\", which its ids are to show.",
						   get_rel_name(table->relid)) :
				 errdetail("Column \"%s\" of foreign table \"%s\" has option \"sequence\" with value \"always\".",
						   get_attname(table->relid, attno, false),
						   get_rel_name(table->relid)),
				 table->commit_order ?
				 errhint("Leave the column out, or insert into one shard.") :
				 errhint("Use OVERRIDING SYSTEM VALUE to override.")));
	}
	if (!OidIsValid(target->sequence))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shard \"%s\" of foreign table \"%s\" has no sequence for column \"%s\"",
						RelationGetRelationName(target->rri->ri_RelationDesc),
						get_rel_name(table->relid),
						get_attname(table->relid, attno, false)),
				 errdetail("The default of the shard's column is not a call of nextval()."),
				 errhint("Give it one with SELECT shard_fdw.reset_sequences().")));
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(insert->estate));
	id = nextval_internal(target->sequence, !target->owns_sequence);
	if ((type == INT2OID && id != (int16) id) ||
		(type == INT4OID && id != (int32) id))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("%s out of range", format_type_be(type))));
	if (!shard_id_in_slot(id, target->stride, target->slot_number))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("sequence \"%s\" does not give ids of shard \"%s\"",
						get_rel_name(target->sequence),
						RelationGetRelationName(target->rri->ri_RelationDesc)),
				 errdetail("It has given " INT64_FORMAT "; the shard holds ids of slot %d of %d.",
						   id, target->slot_number, target->stride),
				 errhint("Set the sequence to such an id, and its increment to the stride.")));
	set_column(row, attno,
			   type == INT2OID ? Int16GetDatum((int16) id) :
			   type == INT4OID ? Int32GetDatum((int32) id) :
			   Int64GetDatum(id));
	MemoryContextSwitchTo(oldcontext);
}
