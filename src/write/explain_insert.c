/*-------------------------------------------------------------------------
 *
 * explain_insert.c
 *	  What EXPLAIN shows of an INSERT into a logical table.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "commands/explain.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"

/* Text without VERBOSE has a line for each shard if there are no more. */
#define MAX_LISTED	8

/* A shard that has been written, with what the output is ordered by. */
typedef struct WrittenShard
{
	int			ordinal;
	ShardTarget *target;
} WrittenShard;

/*
 * The value of an expression that is a constant or a parameter of the
 * statement.  False if it is something else, or the parameter has no value.
 */
static bool
get_constant(Expr *expr, ParamListInfo params, Datum *value, bool *isnull)
{
	while (IsA(expr, RelabelType))
		expr = ((RelabelType *) expr)->arg;
	if (IsA(expr, Const))
	{
		*value = ((Const *) expr)->constvalue;
		*isnull = ((Const *) expr)->constisnull;
		return true;
	}
	if (IsA(expr, Param) && ((Param *) expr)->paramkind == PARAM_EXTERN &&
		params != NULL)
	{
		Param	   *param = (Param *) expr;
		ParamExternData workspace;
		ParamExternData *data;

		if (param->paramid > params->numParams)
			return false;
		data = params->paramFetch != NULL ?
			params->paramFetch(params, param->paramid, true, &workspace) :
			&params->params[param->paramid - 1];
		*value = data->value;
		*isnull = data->isnull;
		return data->ptype == param->paramtype;
	}
	return false;
}

/*
 * The shard that all rows go to because their key is constant, or InvalidOid.
 *
 * Takes no lock, so it may be the wrong one if the shards are just being
 * changed.
 */
static Oid
shard_of_constant_key(ShardInsert *insert)
{
	const ShardTable *table = insert->table;
	PartitionKey key = table->key;
	const TriggerDesc *triggers = insert->root->ri_TrigDesc;
	Plan	   *plan = insert->mtstate->ps.plan;
	Datum		values[PARTITION_MAX_KEYS];
	bool		nulls[PARTITION_MAX_KEYS];
	int			ordinal;

	/* A trigger may give a row another key. */
	if (key == NULL || plan == NULL || shard_pinned >= 0 ||
		(triggers != NULL && triggers->trig_insert_before_row))
		return InvalidOid;

	for (int i = 0; i < key->partnatts; i++)
	{
		TargetEntry *column = get_tle_by_resno(outerPlan(plan)->targetlist,
											   key->partattrs[i]);

		if (column == NULL || column->resjunk ||
			!get_constant(column->expr, insert->estate->es_param_list_info,
						  &values[i], &nulls[i]))
			return InvalidOid;
	}
	ordinal = shard_find_place(table,
							   shard_key_hash_values(key, key->parttypid,
													 values, nulls));
	return ordinal >= 0 && table->members[ordinal].is_open ?
		table->members[ordinal].relid : InvalidOid;
}

/*
 * Show a shard, and how many rows it has got if "nrows" is not NULL.
 */
static void
show_shard(Oid relid, const uint64 *nrows, ExplainState *es)
{
	const char *name = get_rel_name(relid);
	const char *schema = es->verbose ?
		get_namespace_name(get_rel_namespace(relid)) : NULL;

	/* Without a lock, it may have been dropped. */
	if (name == NULL || (es->verbose && schema == NULL))
		return;
	if (es->format == EXPLAIN_FORMAT_TEXT)
	{
		const char *shown = quote_qualified_identifier(schema, name);

		ExplainPropertyText("Shard", nrows == NULL ? shown :
							psprintf("%s (rows=" UINT64_FORMAT ")", shown,
									 *nrows),
							es);
		return;
	}
	ExplainOpenGroup("Shard", NULL, true, es);
	if (es->verbose)
		ExplainPropertyText("Schema", schema, es);
	ExplainPropertyText("Shard", name, es);
	if (nrows != NULL)
		ExplainPropertyUInteger("Rows", NULL, *nrows, es);
	ExplainCloseGroup("Shard", NULL, true, es);
}

/*
 * Compare shards by ordinal, for qsort().  Those that are shards no longer come
 * last.
 */
static int
compare_ordinals(const void *a, const void *b)
{
	unsigned int oa = ((const WrittenShard *) a)->ordinal;
	unsigned int ob = ((const WrittenShard *) b)->ordinal;

	return (oa > ob) - (oa < ob);
}

/*
 * Show the shards that have been written, in their order, and in text first what
 * they have in common if they are several.
 */
static void
show_written(ShardInsert *insert, ExplainState *es)
{
	int			n = list_length(insert->targets);
	bool		is_text = es->format == EXPLAIN_FORMAT_TEXT;
	WrittenShard *written = palloc(sizeof(WrittenShard) * Max(n, 1));
	uint64		total = 0;
	uint64		fewest = PG_UINT64_MAX;
	uint64		most = 0;
	ListCell   *lc;

	foreach(lc, insert->targets)
	{
		WrittenShard *next = &written[foreach_current_index(lc)];

		next->target = lfirst(lc);
		next->ordinal = shard_table_find(insert->table, next->target->relid);
		total += next->target->nrows;
		fewest = Min(fewest, next->target->nrows);
		most = Max(most, next->target->nrows);
	}
	qsort(written, n, sizeof(WrittenShard), compare_ordinals);

	if (is_text && n > 1)
		ExplainPropertyText("Shards",
							psprintf("%d (rows=" UINT64_FORMAT " fewest=" UINT64_FORMAT " most=" UINT64_FORMAT ")",
									 n, total, fewest, most),
							es);
	ExplainOpenGroup("Shards", "Shards", false, es);
	for (int i = 0; i < n && (!is_text || es->verbose || n <= MAX_LISTED); i++)
		show_shard(written[i].target->relid, &written[i].target->nrows, es);
	ExplainCloseGroup("Shards", "Shards", false, es);
}

/*
 * shardExplainForeignModify
 *		Show the route of an INSERT, and how many rows each shard has got, or
 *		without ANALYZE the shard that a constant key leads to.
 */
void
shardExplainForeignModify(ModifyTableState *mtstate, ResultRelInfo *rri,
						  List *fdw_private, int subplan_index,
						  ExplainState *es)
{
	ShardInsert *insert = rri->ri_FdwState;
	Oid			shard;

	if (insert == NULL)
		return;

	ExplainPropertyText("Route",
						shard_pinned >= 0 ? "pinned" :
						shard_route_name(insert->table->route), es);
	if (insert->table->commit_order)
		ExplainPropertyBool("Commit Order", true, es);
	if (es->verbose)
		ExplainPropertyInteger("Batch Size", NULL, shard_batch_size(insert),
							   es);
	if (es->analyze)
	{
		shard_batch_explain(insert, es);
		show_written(insert, es);
		return;
	}
	shard = shard_of_constant_key(insert);
	if (OidIsValid(shard))
	{
		ExplainOpenGroup("Shards", "Shards", false, es);
		show_shard(shard, NULL, es);
		ExplainCloseGroup("Shards", "Shards", false, es);
	}
}
