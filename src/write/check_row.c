/*-------------------------------------------------------------------------
 *
 * check_row.c
 *	  Checking the rows of a foreign table, after an UPDATE has changed them.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(shard_check_row_of);

/* What check_row() remembers between calls of one expression. */
typedef struct RowCheck
{
	Oid			relid;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *slot;
} RowCheck;

/*
 * Prepare to check rows of a foreign table.  What is allocated lives as long as
 * the expression.
 */
static RowCheck *
begin_check(FmgrInfo *flinfo, Relation rel)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(flinfo->fn_mcxt);
	RowCheck   *check = palloc0(sizeof(RowCheck));

	check->relid = RelationGetRelid(rel);
	check->estate = CreateExecutorState();
	check->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(check->rri, rel, 0, NULL, 0);
	check->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
										   &TTSOpsHeapTuple);
	MemoryContextSwitchTo(oldcontext);
	return check;
}

/*
 * shard_check_row_of(row record)
 *		SQL function check_row(): check a row of a foreign table against the
 *		constraints of that table.
 *
 * Strict.  Returns true, or raises ERRCODE_CHECK_VIOLATION,
 * ERRCODE_NOT_NULL_VIOLATION or what a constraint raises; and
 * ERRCODE_WRONG_OBJECT_TYPE if the row is not one of a foreign table.
 *
 * Plans that update shards on other servers call it; see remote_update.c.
 */
Datum
shard_check_row_of(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	RowCheck   *check = fcinfo->flinfo->fn_extra;
	Oid			relid = get_typ_typrelid(HeapTupleHeaderGetTypeId(header));
	HeapTupleData tuple;
	Relation	rel;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("argument is not a row of a foreign table")));

	/* A plan has locked it already. */
	rel = table_open(relid, AccessShareLock);
	if (check == NULL || check->relid != relid)
		fcinfo->flinfo->fn_extra = check = begin_check(fcinfo->flinfo, rel);
	check->rri->ri_RelationDesc = rel;

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = relid;
	tuple.t_data = header;
	ExecStoreHeapTuple(&tuple, check->slot, false);
	check->slot->tts_tableOid = relid;
	ExecConstraints(check->rri, check->slot, check->estate);
	ResetPerTupleExprContext(check->estate);
	ExecClearTuple(check->slot);

	table_close(rel, AccessShareLock);
	PG_RETURN_BOOL(true);
}
