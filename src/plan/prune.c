/*-------------------------------------------------------------------------
 *
 * prune.c
 *	  Which shards of a logical table a query can do without.
 *
 * What is known of a shard is compared with the conditions of the query: the
 * hashes of the key that it holds, its ids, its times, its OID.  A shard that
 * cannot have a matching row is left out of the plan.  If that depends on a
 * value that is only known when the query runs, the shard gets a gate: a
 * condition that the executor evaluates once, before it reads the shard.
 *
 * What is known of a shard comes from validated CHECK constraints.  A cached
 * plan depends on them, so the shards that are left out are among the
 * relations whose changes invalidate it.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/restrictinfo.h"
#include "partitioning/partbounds.h"
#include "partitioning/partprune.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

/* What conditions say of the column with option "sequence", and of tableoid. */
typedef struct ShardIds
{
	bool		known;			/* it is one of these: */
	int			n;
	int64	   *ids;
	Node	   *late;			/* or what this will be at run time */
	Index		security_level;
	bool		one_shard;		/* tableoid is this: */
	Oid			shard;
} ShardIds;

/*
 * shard_next_child
 *		Step through the members of the inheritance set of a table that have
 *		been put into the query, by core or by us.  NULL at the end.
 */
RelOptInfo *
shard_next_child(ShardChildren *children)
{
	List	   *all = children->root->append_rel_list;

	while (children->next < list_length(all))
	{
		AppendRelInfo *appinfo = list_nth_node(AppendRelInfo, all,
											   children->next++);

		if (appinfo->parent_relid == children->parent)
			return find_base_rel(children->root, appinfo->child_relid);
	}
	return NULL;
}

/*
 * Does an expression test whether a composite value is null?
 */
static bool
contains_row_null_test(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, NullTest) && ((NullTest *) node)->argisrow)
		return true;
	return expression_tree_walker(node, contains_row_null_test, context);
}

/*
 * The conditions on a hash table that core may prune with.
 *
 * Core takes "k IS NULL" for a condition that only a null meets.  If k is of
 * a composite type, a row of nulls does, too, and that has another hash.
 */
static List *
pruning_conditions(List *conditions, PartitionKey key)
{
	List	   *result = NIL;
	bool		has_row = false;
	ListCell   *lc;

	for (int i = 0; i < key->partnatts; i++)
		has_row |= type_is_rowtype(key->parttypid[i]);
	if (!has_row)
		return conditions;
	foreach(lc, conditions)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		if (!contains_row_null_test((Node *) rinfo->clause, NULL))
			result = lappend(result, rinfo);
	}
	return result;
}

/*
 * Describe a hash table to core as the partitioned table that it could be,
 * and have core find out which parts the conditions leave in.
 */
static Bitmapset *
prune_hash_table(PlannerInfo *root, const ShardTable *table,
				 ShardPruning *pruning)
{
	RelOptInfo *rel = pruning->rel;
	PartitionKey key = table->key;
	List	   *conditions = rel->baserestrictinfo;
	Bitmapset  *live;

	pruning->is_hash = true;
	pruning->nparts = table->nplaces;
	pruning->scheme = shard_find_partition_scheme(root, key);
	pruning->partexprs = palloc(sizeof(List *) * key->partnatts);
	for (int i = 0; i < key->partnatts; i++)
		pruning->partexprs[i] = list_make1(makeVar(rel->relid,
												   key->partattrs[i],
												   key->parttypid[i],
												   key->parttypmod[i],
												   key->parttypcoll[i], 0));

	rel->part_scheme = pruning->scheme;
	rel->boundinfo = table->bounds;
	rel->nparts = pruning->nparts;
	rel->partexprs = pruning->partexprs;
	rel->nullable_partexprs = palloc0(sizeof(List *) * key->partnatts);
	rel->baserestrictinfo = pruning_conditions(conditions, key);
	live = prune_append_rel_partitions(rel);
	rel->baserestrictinfo = conditions;
	rel->part_scheme = NULL;
	rel->boundinfo = NULL;
	rel->nparts = -1;
	rel->partexprs = NULL;
	rel->nullable_partexprs = NULL;

	/* The table's entry may be rebuilt before the query has been planned. */
	if (enable_partitionwise_aggregate || enable_partitionwise_join)
		pruning->bounds = partition_bounds_copy(table->bounds, key);
	return live;
}

/*
 * shard_is_key_equality
 *		Does a comparison of "left" with a value, by an operator with this
 *		input collation, say that a column equals the value, as this hash
 *		operator family and collation see it, and does the value depend on rows
 *		of the tables "outer" at most?
 */
bool
shard_is_key_equality(PlannerInfo *root, Node *left, Oid opno, Oid inputcollid,
					  Node *value, Var *column, Oid opfamily, Oid collation,
					  Relids outer)
{
	/* Not a coercion that changes the value, and the key's own equality. */
	while (IsA(left, RelabelType))
		left = (Node *) ((RelabelType *) left)->arg;
	return equal(left, column) &&
		get_op_opfamily_strategy(opno, opfamily) == HTEqualStrategyNumber &&
		(!OidIsValid(collation) || inputcollid == collation) &&
		bms_is_subset(pull_varnos(root, value), outer) &&
		!contain_volatile_functions(value) &&
		!contain_subplans(value);
}

/*
 * shard_key_operand
 *		The expression that a column is compared with for equality, as this
 *		hash operator family and collation see it, if it depends on rows of the
 *		tables "outer" at most; else NULL.
 */
Node *
shard_key_operand(PlannerInfo *root, Expr *clause, Var *column, Oid opfamily,
				  Oid collation, Relids outer)
{
	OpExpr	   *op = (OpExpr *) clause;
	Node	   *left;
	Node	   *right;

	if (!IsA(clause, OpExpr) || list_length(op->args) != 2)
		return NULL;
	left = linitial(op->args);
	right = lsecond(op->args);
	if (!equal(strip_implicit_coercions(left), column))
	{
		Node	   *swap = left;

		left = right;
		right = swap;
		if (!equal(strip_implicit_coercions(left), column))
			return NULL;
	}

	return shard_is_key_equality(root, left, op->opno, op->inputcollid, right,
								 column, opfamily, collation, outer) ?
		right : NULL;
}

/*
 * shard_key_value
 *		The expression that a column is compared with for equality, as this
 *		hash operator family and collation see it, if it is the same for all
 *		rows of a scan; else NULL.
 */
Node *
shard_key_value(PlannerInfo *root, Expr *clause, Var *column, Oid opfamily,
				Oid collation)
{
	return shard_key_operand(root, clause, column, opfamily, collation, NULL);
}

/*
 * shard_with_collation
 *		A copy of a value, with the collation by which the key is hashed.
 */
Node *
shard_with_collation(const Node *expr, Oid collation)
{
	Node	   *value = copyObject((Node *) expr);

	if (exprCollation(value) != collation)
		value = (Node *) makeRelabelType((Expr *) value, exprType(value),
										 exprTypmod(value), collation,
										 COERCE_IMPLICIT_CAST);
	return value;
}

/*
 * If conditions fix all columns of the key to values that are not known yet
 * but will be the same for a whole scan, return expressions for them.
 */
static List *
late_key_values(PlannerInfo *root, RelOptInfo *rel,
				const ShardPruning *pruning, Index *security_level)
{
	PartitionScheme scheme = pruning->scheme;
	List	   *values = NIL;
	bool		all_known = true;
	ListCell   *lc;

	*security_level = 0;
	for (int i = 0; i < scheme->partnatts; i++)
	{
		Var		   *column = linitial_node(Var, pruning->partexprs[i]);
		Node	   *value = NULL;

		foreach(lc, rel->baserestrictinfo)
		{
			RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

			value = shard_key_value(root, rinfo->clause, column,
									scheme->partopfamily[i],
									scheme->partcollation[i]);
			if (value != NULL)
			{
				*security_level = Max(*security_level, rinfo->security_level);
				break;
			}
		}
		if (value == NULL)
			return NIL;
		all_known &= IsA(value, Const);
		values = lappend(values, value);
	}
	/* Known values have been pruned with already. */
	if (all_known)
		return NIL;

	foreach(lc, values)
	{
		int			i = foreach_current_index(lc);
		Node	   *value = lfirst(lc);

		if (!shard_can_hash_with(scheme->partopfamily[i], exprType(value)))
			return NIL;
		lfirst(lc) = shard_with_collation(value, scheme->partcollation[i]);
	}
	return values;
}

/*
 * shard_gate
 *		Have the executor find out whether a shard is to be scanned, by a
 *		condition that does not depend on its rows.
 *
 * The clause becomes part of the plan.
 */
void
shard_gate(PlannerInfo *root, RelOptInfo *child, Expr *clause,
		   Index security_level)
{
	child->baserestrictinfo =
		lappend(child->baserestrictinfo,
				shard_make_pseudoconstant(root, clause, security_level));
	child->baserestrict_min_security = Min(child->baserestrict_min_security,
										   security_level);
	root->hasPseudoConstantQuals = true;
}

/*
 * The ids in a condition "column = ANY (constant array)".  False if it is no
 * such condition.
 */
static bool
ids_from_array(ScalarArrayOpExpr *op, Var *column, Oid opfamily, ShardIds *ids)
{
	Const	   *array;
	ArrayType  *values;
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	int16		len;
	bool		byval;
	char		align;

	if (!IsA(op, ScalarArrayOpExpr) || !op->useOr ||
		!equal(linitial(op->args), column) ||
		get_op_opfamily_strategy(op->opno, opfamily) != HTEqualStrategyNumber)
		return false;
	array = lsecond(op->args);
	if (!IsA(array, Const) || array->constisnull)
		return false;
	values = DatumGetArrayTypeP(array->constvalue);
	get_typlenbyvalalign(ARR_ELEMTYPE(values), &len, &byval, &align);
	deconstruct_array(values, ARR_ELEMTYPE(values), len, byval, align, &elems,
					  &nulls, &n);
	ids->ids = palloc(sizeof(int64) * Max(n, 1));
	ids->n = 0;
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			ids->ids[ids->n++] = shard_id_from_datum(elems[i], ARR_ELEMTYPE(values));
	ids->known = true;
	return true;
}

/*
 * Find out what the conditions say of tableoid.
 */
static void
find_shard(PlannerInfo *root, RelOptInfo *rel, ShardIds *ids)
{
	Oid			opfamily;
	Var		   *column;
	ListCell   *lc;

	opfamily = lookup_type_cache(OIDOID, TYPECACHE_HASH_OPFAMILY)->hash_opf;
	column = makeVar(rel->relid, TableOidAttributeNumber, OIDOID, -1,
					 InvalidOid, 0);
	foreach(lc, rel->baserestrictinfo)
	{
		Const	   *value = (Const *) shard_key_value(root,
													  lfirst_node(RestrictInfo, lc)->clause,
													  column, opfamily, InvalidOid);

		if (value == NULL || !IsA(value, Const) || value->constisnull)
			continue;
		ids->one_shard = true;
		ids->shard = DatumGetObjectId(value->constvalue);
	}
}

/*
 * Find out what the conditions say of the column with option "sequence", and
 * of tableoid.
 */
static void
find_ids(PlannerInfo *root, RelOptInfo *rel, const ShardTable *table,
		 ShardIds *ids)
{
	Oid			type;
	Oid			opfamily;
	Var		   *column;
	ListCell   *lc;

	memset(ids, 0, sizeof(ShardIds));
	if (rel->baserestrictinfo == NIL)
		return;
	find_shard(root, rel, ids);
	if (table->seq_attno == 0)
		return;
	type = get_atttype(table->relid, table->seq_attno);
	opfamily = lookup_type_cache(INT8OID, TYPECACHE_HASH_OPFAMILY)->hash_opf;
	column = makeVar(rel->relid, table->seq_attno, type, -1, InvalidOid, 0);

	foreach(lc, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		Node	   *value = shard_key_value(root, rinfo->clause, column, opfamily,
											InvalidOid);

		if (value == NULL)
		{
			if (ids_from_array((ScalarArrayOpExpr *) rinfo->clause, column,
							   opfamily, ids))
				return;
			continue;
		}
		if (IsA(value, Const))
		{
			ids->known = true;
			ids->n = ((Const *) value)->constisnull ? 0 : 1;
			ids->ids = palloc(sizeof(int64));
			if (ids->n > 0)
				ids->ids[0] = shard_id_from_datum(((Const *) value)->constvalue,
												  ((Const *) value)->consttype);
			return;
		}
		ids->late = value;
		ids->security_level = rinfo->security_level;
	}
}

/*
 * Can the member have rows with such ids, as far as is known?
 */
static bool
may_have_ids(const ShardMember *member, const ShardIds *ids)
{
	if (ids->one_shard && member->relid != ids->shard && !member->has_children)
		return false;
	if (!ids->known || !member->is_id_slot_valid || member->has_children)
		return true;
	for (int i = 0; i < ids->n; i++)
		if (shard_id_fits(ids->ids[i], member->stride, member->id_slot))
			return true;
	return false;
}

/*
 * Find out which times the conditions allow, if there are ranges of times.
 */
static void
find_times(PlannerInfo *root, const ShardTable *table, ShardPruning *pruning)
{
	List	   *conditions;
	ShardTimeSet *times;

	if (table->nranges == 0 ||
		(pruning->rel->baserestrictinfo == NIL &&
		 !pruning->rel->has_eclass_joins) ||
		!enable_partition_pruning)
		return;
	conditions = shard_time_conditions(root, pruning->rel, table->time_attno,
									   table->time_type,
									   &pruning->time_security);
	times = shard_times_allowed(root, conditions, shard_may_assume(),
								&pruning->has_estimates,
								&pruning->time_conditions,
								&pruning->late_conditions);
	if (pruning->time_conditions == NIL)
		return;
	pruning->times = times;
	pruning->certain_xmin = ActiveSnapshotSet() ?
		GetActiveSnapshot()->xmin : InvalidTransactionId;
	pruning->gaps = palloc(sizeof(ShardTimes) * (times->n + 1));
	for (int i = 0; i <= times->n; i++)
	{
		pruning->gaps[i].min = PG_INT64_MAX;
		pruning->gaps[i].max = PG_INT64_MIN;
	}
}

/*
 * Does the range of a shard hold for all rows that the query can see?
 *
 * Only if its snapshot is not older.  To an older one, rows are still there
 * that had been deleted when the constraint was validated.
 */
static bool
is_range_certain(const ShardMember *member, const ShardPruning *pruning)
{
	TransactionId xid = member->range_xid;

	/* Most are old, and there may be thousands. */
	if (!TransactionIdIsNormal(xid) ||
		(TransactionIdIsNormal(pruning->certain_xmin) &&
		 NormalTransactionIdPrecedes(xid, pruning->certain_xmin)))
		return true;
	if (TransactionIdIsCurrentTransactionId(xid))
		return !IsolationUsesXactSnapshot();
	return !ActiveSnapshotSet() ||
		!XidInMVCCSnapshot(xid, GetActiveSnapshot());
}

/*
 * Can the member have rows with the times that conditions allow?  If not, its
 * range is added to that of the shards left out between the same two of the
 * times that are allowed: none of those is in the ranges together.
 */
static bool
may_have_times(const ShardMember *member, ShardPruning *pruning)
{
	ShardTimeSet *times = pruning->times;
	ShardTimes *gap;
	int			i;

	if (times == NULL || !member->has_range || member->has_children)
		return true;
	i = shard_times_from(times, member->range_min);
	if (member->range_min <= member->range_max && i < times->n &&
		times->times[i].min <= member->range_max)
		return true;
	if (!is_range_certain(member, pruning))
	{
		pruning->is_transient = true;
		return true;
	}
	/* In an empty range there is no time, whatever is allowed. */
	if (member->range_min <= member->range_max)
	{
		gap = &pruning->gaps[i];
		gap->min = Min(gap->min, member->range_min);
		gap->max = Max(gap->max, member->range_max);
	}
	return false;
}

/*
 * Note whether a shard is kept.  "part" is its number among the places of the
 * table, or -1.
 */
static void
add_shard(ShardPruning *pruning, const ShardTable *table, int ordinal,
		  int part, bool keep)
{
	const ShardMember *member = &table->members[ordinal];
	ShardKept  *kept;

	if (!keep)
	{
		pruning->kept_index[ordinal] = -1;
		pruning->left_out[pruning->nleft_out++] = member->relid;
		return;
	}
	pruning->kept_index[ordinal] = pruning->nkept;
	if (pruning->nkept == pruning->kept_space)
	{
		pruning->kept_space *= 2;
		pruning->kept = repalloc(pruning->kept,
								 sizeof(ShardKept) * pruning->kept_space);
	}
	kept = &pruning->kept[pruning->nkept++];
	kept->relid = member->relid;
	kept->has_children = member->has_children;
	kept->part = part;
	kept->modulus = member->modulus;
	kept->remainder = member->remainder;
	kept->stride = member->is_id_slot_valid && !member->has_children ?
		member->stride : 0;
	kept->id_slot = member->id_slot;
	kept->has_range = member->has_range && !member->has_children &&
		is_range_certain(member, pruning);
	kept->range_min = member->range_min;
	kept->range_max = member->range_max;
	kept->nchecks = (pruning->is_hash ? member->nplace_checks : 0) +
		(kept->stride != 0 ? member->n_id_slot_checks : 0) +
		(member->has_range ? 1 : 0);
}

/*
 * Can the member have matching rows?  Its place has been looked at.
 */
static bool
may_match(const ShardMember *member, ShardPruning *pruning)
{
	return may_have_ids(member, pruning->ids) &&
		may_have_times(member, pruning);
}

/*
 * shard_prune_begin
 *		Find out which shards of the logical table "rel" can have rows that
 *		match its conditions, as the table's cache entry has the shards.
 *
 * The result is allocated in the current memory context, and does not depend
 * on the entry any more.  Takes no lock on a shard.
 */
ShardPruning *
shard_prune_begin(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	ShardTable *table = shard_table_get(relid);
	ShardPruning *pruning = palloc0(sizeof(ShardPruning));
	Bitmapset  *live = NULL;

	pruning->rel = rel;
	find_times(root, table, pruning);
	/* Functions may have been called, which could have anything rebuilt. */
	table = shard_table_get(relid);
	if (table->bounds != NULL)
	{
		live = prune_hash_table(root, table, pruning);
		pruning->key_values = late_key_values(root, rel, pruning,
											  &pruning->key_security);
	}
	pruning->ids = palloc(sizeof(ShardIds));
	find_ids(root, rel, table, pruning->ids);

	pruning->nmembers = table->nmembers;
	pruning->sorted = palloc(sizeof(ShardByOid) * table->nmembers);
	memcpy(pruning->sorted, table->sorted,
		   sizeof(ShardByOid) * table->nmembers);
	pruning->kept_index = palloc(sizeof(int) * table->nmembers);
	pruning->left_out = palloc(sizeof(Oid) * table->nmembers);
	/* Mostly, a few of very many are kept. */
	pruning->kept_space = 16;
	pruning->kept = palloc(sizeof(ShardKept) * pruning->kept_space);
	if (pruning->is_hash)
		for (int i = 0; i < pruning->nparts; i++)
			add_shard(pruning, table, table->places[i].ordinal, i,
					  bms_is_member(i, live) &&
					  may_match(&table->members[table->places[i].ordinal],
								pruning));
	else
		for (int i = 0; i < table->nmembers; i++)
			add_shard(pruning, table, i, -1,
					  may_match(&table->members[i], pruning));
	return pruning;
}

/*
 * shard_prune_settle
 *		Make the plan depend on what has left shards out: on their constraints,
 *		and on times that have been estimated.
 */
void
shard_prune_settle(PlannerInfo *root, const ShardPruning *pruning)
{
	ShardTimes *gaps = pruning->gaps;
	int			ngaps = 0;

	for (int i = 0; i < pruning->nleft_out; i++)
		root->glob->relationOids = lappend_oid(root->glob->relationOids,
											   pruning->left_out[i]);
	root->glob->transientPlan |= pruning->is_transient;
	if (pruning->times == NULL || !pruning->has_estimates)
		return;
	for (int i = 0; i <= pruning->times->n; i++)
		if (gaps[i].min <= gaps[i].max)
			gaps[ngaps++] = gaps[i];
	if (ngaps > 0)
		shard_assume(pruning->time_conditions, gaps, ngaps);
}

/*
 * The index in "kept" of the shard; -1 if it has been left out, -2 if the
 * relation is no shard.
 */
static int
find_kept(const ShardPruning *pruning, Oid relid)
{
	int			ordinal = shard_find_by_oid(pruning->sorted, pruning->nmembers,
											relid);

	return ordinal < 0 ? -2 : pruning->kept_index[ordinal];
}

/*
 * shard_prune_find
 *		What is known of a shard that is kept.  NULL if the relation is no
 *		shard of the table, or has been left out.
 */
const ShardKept *
shard_prune_find(const ShardPruning *pruning, Oid relid)
{
	int			i = find_kept(pruning, relid);

	return i < 0 ? NULL : &pruning->kept[i];
}

/*
 * shard_prune_leaves_out
 *		Is the relation a shard that the query can do without?
 */
bool
shard_prune_leaves_out(const ShardPruning *pruning, Oid relid)
{
	return find_kept(pruning, relid) == -1;
}

/*
 * shard_prune_gate
 *		Gate those shards in the query that values may rule out that are only
 *		known when it runs.
 */
void
shard_prune_gate(PlannerInfo *root, const ShardPruning *pruning)
{
	ShardChildren children = {root, pruning->rel->relid, 0};
	const ShardIds *ids = pruning->ids;
	bool		by_id = !ids->known && ids->late != NULL;
	RelOptInfo *child;

	if (pruning->key_values == NIL && !by_id &&
		pruning->late_conditions == NIL)
		return;
	while ((child = shard_next_child(&children)) != NULL)
	{
		const ShardKept *kept =
			shard_prune_find(pruning,
							 root->simple_rte_array[child->relid]->relid);

		if (kept == NULL)
			continue;
		if (by_id && kept->stride != 0)
			shard_gate(root, child,
					   shard_in_slot_clause(kept->stride, kept->id_slot,
											(Expr *) copyObject(ids->late)),
					   ids->security_level);
		if (pruning->key_values != NIL)
			shard_gate(root, child,
					   shard_in_hash_clause(kept->modulus, kept->remainder,
											copyObject(pruning->key_values)),
					   pruning->key_security);
		if (pruning->late_conditions != NIL && kept->has_range)
		{
			List	   *gates = shard_time_gates(root, pruning->late_conditions,
												 kept->range_min,
												 kept->range_max);
			ListCell   *lc;

			foreach(lc, gates)
				shard_gate(root, child, lfirst(lc), pruning->time_security);
		}
	}
}
