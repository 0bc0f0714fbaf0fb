/*-------------------------------------------------------------------------
 *
 * result.c
 *	  What the functions that return rows of a logical table have in common:
 *	  their arguments, and returning the rows of a query as they come.
 *
 *-------------------------------------------------------------------------
 */
#include "consume/consume_private.h"

#include "access/table.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "utils/lsyscache.h"

/* Where the rows of a query go that are to be returned. */
typedef struct RowReceiver
{
	DestReceiver pub;
	ReturnSetInfo *rsinfo;
	ShardTakeRow take;
	void	   *state;
	uint64		nrows;
	uint64		max_rows;
	Datum	   *values;
	bool	   *isnull;
} RowReceiver;

/*
 * shard_open_argument
 *		The logical table whose row type the first argument of an SQL function
 *		has, which the caller may read.  Locked in AccessShareLock mode.
 *
 * "function" is the name of the function with parentheses.  Raises
 * ERRCODE_DATATYPE_MISMATCH and ERRCODE_WRONG_OBJECT_TYPE for a type that is
 * no logical table's, ERRCODE_INSUFFICIENT_PRIVILEGE, and
 * ERRCODE_READ_ONLY_SQL_TRANSACTION.
 */
Relation
shard_open_argument(FunctionCallInfo fcinfo, const char *function)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;

	PreventCommandIfReadOnly(function);
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("first argument of %s must have the row type of a foreign table",
						function),
				 errhint("Write NULL::log for foreign table \"log\".")));
	shard_check_logical(relid);
	shard_check_readable(relid);
	return table_open(relid, AccessShareLock);
}

/*
 * shard_count_argument
 *		The number of rows that argument n, counted from 0, asks for.
 *
 * Raises ERRCODE_INVALID_PARAMETER_VALUE unless it is positive.
 */
int
shard_count_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n) || PG_GETARG_INT32(n) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of rows must be greater than zero")));
	return PG_GETARG_INT32(n);
}

/*
 * Take a row of the query: add it to the result, unless it is not wanted.
 */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	TupleDesc	desc = receiver->rsinfo->setDesc;
	int			column = 0;

	slot_getallattrs(slot);
	if (receiver->take &&
		!receiver->take(slot->tts_values[slot->tts_nvalid - 1], receiver->state))
		return true;
	for (int i = 0; i < desc->natts; i++)
	{
		bool		dropped = TupleDescAttr(desc, i)->attisdropped;

		receiver->values[i] = dropped ? (Datum) 0 : slot->tts_values[column];
		receiver->isnull[i] = dropped || slot->tts_isnull[column];
		column += !dropped;
	}
	tuplestore_putvalues(receiver->rsinfo->setResult, desc, receiver->values,
						 receiver->isnull);
	return ++receiver->nrows < receiver->max_rows;
}

/*
 * Nothing to do before the first row.
 */
static void
receive_start(DestReceiver *self, int operation, TupleDesc desc)
{
}

/*
 * Nothing to do after the last row.
 */
static void
receive_end(DestReceiver *self)
{
}

/*
 * shard_return_rows
 *		Return rows of a query, which has the columns of the function's result
 *		and possibly one more, up to so many.  SPI is connected, and the
 *		function's result is materialized.
 *
 * The query has parameters of these types and values, none of them null.
 * "take", if not NULL, is called for each row with its last column and with
 * "state", and says whether to return the row.  "cursor_options" are those of
 * SPI_prepare_cursor().  Returns the number of rows returned.  Raises what the
 * query raises.
 */
uint64
shard_return_rows(ReturnSetInfo *rsinfo, const char *query,
				  int nparams, Oid *types, const Datum *values,
				  int cursor_options, uint64 max_rows,
				  ShardTakeRow take, void *state)
{
	SPIExecuteOptions options = {0};
	SPIPlanPtr	plan = SPI_prepare_cursor(query, nparams, types,
										  cursor_options);
	RowReceiver receiver = {
		.pub = {
			.receiveSlot = receive_row,
			.rStartup = receive_start,
			.rShutdown = receive_end,
			.rDestroy = receive_end,
			.mydest = DestTuplestore
		},
		.rsinfo = rsinfo,
		.take = take,
		.state = state,
		.max_rows = max_rows,
		.values = palloc(sizeof(Datum) * Max(rsinfo->setDesc->natts, 1)),
		.isnull = palloc(sizeof(bool) * Max(rsinfo->setDesc->natts, 1))
	};

	options.dest = &receiver.pub;
	options.params = makeParamList(nparams);
	for (int i = 0; i < nparams; i++)
	{
		ParamExternData *param = &options.params->params[i];

		param->value = values[i];
		param->isnull = false;
		param->pflags = PARAM_FLAG_CONST;
		param->ptype = types[i];
	}
	if (plan == NULL ||
		SPI_execute_plan_extended(plan, &options) != SPI_OK_SELECT)
		elog(ERROR, "could not run query: %s", query);
	SPI_freeplan(plan);
	pfree(receiver.values);
	pfree(receiver.isnull);
	return receiver.nrows;
}
