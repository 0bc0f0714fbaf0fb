/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  How the planner sees a logical table.
 *
 * A logical table that a query only reads is expanded here, not by core.
 * Core expands inheritance before it knows the query's conditions, and opens
 * and locks every child.  We let it treat the table as one foreign table at
 * first: a hook of the planner's takes back the table's "inh" mark, so
 * core calls GetForeignRelSize later, with all conditions known.  There the
 * shards are added, and "inh" is set again: core builds every kind of path
 * for them as for any inheritance set.
 *
 * A table that the query changes or locks rows of is left to core's own
 * expansion, which has the row identity machinery.  Its members include the
 * table itself; GetForeignRelSize makes that member vanish.
 *
 * Either way no scan of the foreign table ever gets into a plan.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"
#include "write/write.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "optimizer/prep.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "partitioning/partbounds.h"
#include "partitioning/partprune.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/typcache.h"

static ShardRelationHook prev_relation_hook = NULL;
static planner_hook_type prev_planner_hook = NULL;

/* fdw_private of a RelOptInfo points here if we are to expand it. */
static int	expand_mark;

/*
 * Take over the expansion of a logical table that is only read.
 */
static void
take_over_expansion(SHARD_RELATION_HOOK_PARAMETERS)
{
	if (prev_relation_hook)
		prev_relation_hook(SHARD_RELATION_HOOK_ARGUMENTS);

	if (!planner_rt_fetch(rel->relid, root)->inh ||
		rel->reloptkind != RELOPT_BASEREL ||
		!shard_is_our_routine(rel->fdwroutine))
		return;

	/*
	 * With constraint_exclusion = on, core would read the table's own NOT
	 * NULL and NO INHERIT constraints as if there were no children.
	 */
	if (constraint_exclusion == CONSTRAINT_EXCLUSION_ON)
		return;

	/*
	 * Row identity and row locks are core's business.  (Minor releases differ
	 * in when they note the result relation in all_result_relids.)
	 */
	if ((int) rel->relid == root->parse->resultRelation ||
		get_plan_rowmark(root->rowMarks, rel->relid) != NULL)
		return;

	root->simple_rte_array[rel->relid]->inh = false;
	rel->fdw_private = &expand_mark;
}

static PlannedStmt *
shard_planner(SHARD_PLANNER_PARAMETERS)
{
	shard_prepare_on_conflict(parse);
	return (prev_planner_hook ? prev_planner_hook : standard_planner)
		(SHARD_PLANNER_ARGUMENTS);
}

/*
 * shard_plan_init
 *		Install the planner hooks.  To be called once, when the library is
 *		loaded.
 */
void
shard_plan_init(void)
{
	prev_relation_hook = shard_relation_hook;
	shard_relation_hook = take_over_expansion;
	prev_planner_hook = planner_hook;
	planner_hook = shard_planner;
}

/*
 * Which partition each shard of a hash table is, as far as the table's
 * conditions leave any in: what becomes of a table's "places" in a query.
 */
typedef struct HashParts
{
	int			nparts;
	ShardPlace *places;			/* modulus and remainder of each part */
	Oid		   *shards;			/* the shard of each part */
	Bitmapset  *live;			/* parts that can have matching rows */
} HashParts;

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
 * and have core find out which parts the conditions leave in.  Returns NULL
 * if the table's shards are not placed as partitions are.
 */
static HashParts *
prune_hash_table(PlannerInfo *root, RelOptInfo *rel, const ShardTable *table)
{
	PartitionKey key = table->key;
	List	   *conditions = rel->baserestrictinfo;
	HashParts  *parts;

	if (table->bounds == NULL)
		return NULL;

	/* The table's entry may be rebuilt before the query has been planned. */
	parts = palloc0(sizeof(HashParts));
	parts->nparts = table->nplaces;
	parts->places = palloc(sizeof(ShardPlace) * parts->nparts);
	memcpy(parts->places, table->places, sizeof(ShardPlace) * parts->nparts);
	parts->shards = palloc(sizeof(Oid) * parts->nparts);
	for (int i = 0; i < parts->nparts; i++)
		parts->shards[i] = table->members[table->places[i].ordinal].relid;

	rel->part_scheme = shard_find_partition_scheme(root, key);
	rel->boundinfo = table->bounds;
	rel->nparts = parts->nparts;
	rel->partexprs = palloc(sizeof(List *) * key->partnatts);
	rel->nullable_partexprs = palloc0(sizeof(List *) * key->partnatts);
	for (int i = 0; i < key->partnatts; i++)
		rel->partexprs[i] = list_make1(makeVar(rel->relid, key->partattrs[i],
											   key->parttypid[i],
											   key->parttypmod[i],
											   key->parttypcoll[i], 0));
	rel->baserestrictinfo = pruning_conditions(conditions, key);
	parts->live = prune_append_rel_partitions(rel);
	rel->baserestrictinfo = conditions;
	rel->boundinfo = enable_partitionwise_aggregate || enable_partitionwise_join ?
		partition_bounds_copy(table->bounds, key) : NULL;
	return parts;
}

/*
 * Take back what prune_hash_table() has told core.
 */
static void
clear_partition_info(RelOptInfo *rel)
{
	rel->part_scheme = NULL;
	rel->boundinfo = NULL;
	rel->nparts = -1;
	rel->partexprs = NULL;
	rel->nullable_partexprs = NULL;
}

/*
 * Which part of the hash table "rel" a member of an inheritance set is, or -1
 * if it is none.
 */
static int
member_part(PlannerInfo *root, RelOptInfo *rel, const HashParts *parts,
			const AppendRelInfo *appinfo)
{
	if (appinfo->parent_relid != rel->relid)
		return -1;
	for (int i = 0; i < parts->nparts; i++)
		if (parts->shards[i] ==
			root->simple_rte_array[appinfo->child_relid]->relid)
			return i;
	return -1;
}

/*
 * The expression that a column is compared with for equality, as this hash
 * operator family and collation see it, if it is the same for all rows of a
 * scan; else NULL.
 */
static Node *
key_value(PlannerInfo *root, Expr *clause, Var *column, Oid opfamily,
		  Oid collation)
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

	/* Not a coercion that changes the value, and the key's own equality. */
	while (IsA(left, RelabelType))
		left = (Node *) ((RelabelType *) left)->arg;
	if (!IsA(left, Var) ||
		get_op_opfamily_strategy(op->opno, opfamily) != HTEqualStrategyNumber ||
		(OidIsValid(collation) && op->inputcollid != collation) ||
		!bms_is_empty(pull_varnos(root, right)) ||
		contain_volatile_functions(right) ||
		contain_subplans(right))
		return NULL;
	return right;
}

/*
 * If conditions fix all columns of the key to values that are not known yet
 * but will be the same for a whole scan, return expressions for them.
 */
static List *
late_key_values(PlannerInfo *root, RelOptInfo *rel, Index *security_level)
{
	PartitionScheme scheme = rel->part_scheme;
	List	   *values = NIL;
	bool		all_known = true;
	ListCell   *lc;

	*security_level = 0;
	for (int i = 0; i < scheme->partnatts; i++)
	{
		Var		   *column = linitial_node(Var, rel->partexprs[i]);
		Node	   *value = NULL;

		foreach(lc, rel->baserestrictinfo)
		{
			RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

			value = key_value(root, rinfo->clause, column,
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
		Node	   *value = copyObject(lfirst(lc));

		if (!shard_can_hash_with(scheme->partopfamily[i], exprType(value)))
			return NIL;
		if (exprCollation(value) != scheme->partcollation[i])
			value = (Node *) makeRelabelType((Expr *) value, exprType(value),
											 exprTypmod(value),
											 scheme->partcollation[i],
											 COERCE_IMPLICIT_CAST);
		lfirst(lc) = value;
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
	ids->ids = palloc_array(int64, Max(n, 1));
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
		Const	   *value = (Const *) key_value(root,
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
		Node	   *value = key_value(root, rinfo->clause, column, opfamily,
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
			ids->ids = palloc_array(int64, 1);
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
	if (!ids->known || !member->is_slot_valid || member->has_children)
		return true;
	for (int i = 0; i < ids->n; i++)
		if (shard_id_in_slot(ids->ids[i], member->stride, member->slot))
			return true;
	return false;
}

/*
 * Gate the shards in the query that only an id known later can rule out.
 */
static void
gate_shards_by_id(PlannerInfo *root, RelOptInfo *rel, const ShardTable *table,
				  const ShardIds *ids)
{
	ListCell   *lc;

	if (ids->known || ids->late == NULL)
		return;
	foreach(lc, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, lc);
		const ShardMember *member;
		int			ordinal;

		if (appinfo->parent_relid != rel->relid)
			continue;
		ordinal = shard_table_find(table,
								   root->simple_rte_array[appinfo->child_relid]->relid);
		if (ordinal < 0)
			continue;
		member = &table->members[ordinal];
		if (member->is_slot_valid && !member->has_children)
			shard_gate(root, find_base_rel(root, appinfo->child_relid),
					   shard_in_slot_clause(member->stride, member->slot,
											(Expr *) copyObject(ids->late)),
					   ids->security_level);
	}
}

/*
 * Lock the shards of a logical table that can have matching rows, and their
 * own children if they have any.  Returns their OIDs; *parts tells which
 * partition is which, in that order, if the table is a hash table that can
 * be seen as a partitioned one, and *ids what conditions say of ids.
 */
static List *
lock_shards(PlannerInfo *root, RelOptInfo *rel, Oid relid, LOCKMODE lockmode,
			HashParts **parts, ShardIds *ids)
{
	ShardTable *table;
	uint64		seen;
	List	   *shards = NIL;
	bool		has_children = false;

	/* Locking may bring the news that the set has changed. */
	do
	{
		seen = SharedInvalidMessageCounter;
		table = shard_table_get(relid);
		list_free(shards);
		shards = NIL;
		clear_partition_info(rel);
		*parts = prune_hash_table(root, rel, table);
		find_ids(root, rel, table, ids);
		if (*parts != NULL)
		{
			HashParts  *p = *parts;

			for (int i = 0; i < p->nparts; i++)
				if (!may_have_ids(&table->members[table->places[i].ordinal],
								  ids))
					p->live = bms_del_member(p->live, i);
			for (int i = -1; (i = bms_next_member(p->live, i)) >= 0;)
				shards = lappend_oid(shards, p->shards[i]);
		}
		else
			for (int i = 0; i < table->nmembers; i++)
			{
				ShardMember *member = &table->members[i];

				/* The plan is good as long as what left the shard out is. */
				if (!may_have_ids(member, ids))
				{
					root->glob->relationOids =
						lappend_oid(root->glob->relationOids, member->relid);
					continue;
				}
				shards = lappend_oid(shards, member->relid);
				has_children |= member->has_children;
			}
		/* The entry may be rebuilt while we wait. */
		for (int i = 0; i < list_length(shards); i++)
			LockRelationOid(list_nth_oid(shards, i), lockmode);
	} while (!table->is_valid && seen != SharedInvalidMessageCounter);

	if (has_children)
	{
		List	   *all = NIL;
		ListCell   *lc;

		foreach(lc, shards)
			all = list_concat_unique_oid(all,
										 find_all_inheritors(lfirst_oid(lc),
															 lockmode, NULL));
		shards = all;
	}
	return shards;
}

/*
 * An expression that no clause can ever match.
 */
static Expr *
unmatchable_expr(void)
{
	SetToDefault *result = makeNode(SetToDefault);

	result->typeId = INT4OID;
	result->typeMod = -1;
	return (Expr *) result;
}

/*
 * Describe a logical table without a key to core as hash-partitioned by an
 * expression that no clause can ever match.
 *
 * That is all core needs to aggregate shard by shard and combine the partial
 * results.  A partition key made of real columns would let it conclude that
 * equal values are in one shard, which is not so on these routes.
 */
static void
set_keyless_parts(PlannerInfo *root, RelOptInfo *rel)
{
	PartitionScheme scheme = palloc0(sizeof(PartitionSchemeData));
	PartitionBoundInfo bounds = palloc0(sizeof(PartitionBoundInfoData));
	ListCell   *lc;

	scheme->strategy = PARTITION_STRATEGY_HASH;
	scheme->partnatts = 1;
	scheme->partopfamily = palloc(sizeof(Oid));
	scheme->partopfamily[0] =
		lookup_type_cache(INT4OID, TYPECACHE_HASH_OPFAMILY)->hash_opf;
	scheme->partopcintype = palloc(sizeof(Oid));
	scheme->partopcintype[0] = INT4OID;
	scheme->partcollation = palloc0(sizeof(Oid));
	scheme->parttyplen = palloc(sizeof(int16));
	scheme->parttyplen[0] = sizeof(int32);
	scheme->parttypbyval = palloc(sizeof(bool));
	scheme->parttypbyval[0] = true;
	scheme->partsupfunc = palloc0(sizeof(FmgrInfo));

	bounds->strategy = PARTITION_STRATEGY_HASH;
	bounds->null_index = -1;
	bounds->default_index = -1;

	rel->part_scheme = scheme;
	rel->boundinfo = bounds;
	rel->partexprs = palloc(sizeof(List *));
	rel->partexprs[0] = list_make1(unmatchable_expr());
	rel->nullable_partexprs = palloc0(sizeof(List *));
	rel->nparts = 0;
	rel->part_rels = palloc(sizeof(RelOptInfo *) *
							list_length(root->append_rel_list));

	foreach(lc, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, lc);

		if (appinfo->parent_relid != rel->relid)
			continue;
		rel->live_parts = bms_add_member(rel->live_parts, rel->nparts);
		rel->all_partrels = bms_add_member(rel->all_partrels,
										   appinfo->child_relid);
		rel->part_rels[rel->nparts++] = find_base_rel(root,
													  appinfo->child_relid);
	}
}

/*
 * Let core keep seeing a hash table as partitioned, now that its shards are
 * in the query.
 *
 * Joins and grouping look at all expressions for a column of the key.
 * Run-time pruning looks at the first alone; it would look for the partition
 * key of a relation that has none, so the first is one that it cannot use.
 */
static void
set_hash_parts(PlannerInfo *root, RelOptInfo *rel, const HashParts *parts)
{
	ListCell   *lc;

	rel->nparts = parts->nparts;
	rel->live_parts = bms_copy(parts->live);
	rel->part_rels = palloc0(sizeof(RelOptInfo *) * parts->nparts);
	for (int i = 0; i < rel->part_scheme->partnatts; i++)
		rel->partexprs[i] = lcons(unmatchable_expr(), rel->partexprs[i]);

	foreach(lc, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, lc);
		int			part = member_part(root, rel, parts, appinfo);

		if (part < 0)
			continue;
		rel->all_partrels = bms_add_member(rel->all_partrels,
										   appinfo->child_relid);
		rel->part_rels[part] = find_base_rel(root, appinfo->child_relid);
	}
}

/*
 * Gate those shards of a hash table, of those in the query, that only values
 * known later can rule out.  The table is described as prune_hash_table()
 * leaves it.
 */
static void
gate_shards(PlannerInfo *root, RelOptInfo *rel, const HashParts *parts)
{
	Index		security_level;
	List	   *values = late_key_values(root, rel, &security_level);
	ListCell   *lc;

	if (values == NIL)
		return;
	foreach(lc, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, lc);
		int			part = member_part(root, rel, parts, appinfo);

		if (part >= 0)
			shard_gate(root, find_base_rel(root, appinfo->child_relid),
					   shard_in_hash_clause(parts->places[part].modulus,
											parts->places[part].remainder,
											copyObject(values)),
					   security_level);
	}
}

/*
 * Add the shards to the query in place of the logical table.
 */
static void
expand_logical_table(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	HashParts  *parts;
	ShardIds	ids;
	List	   *shards = lock_shards(root, rel, rte->relid, rte->rellockmode,
									 &parts, &ids);
	bool		has_whole_row =
		!bms_is_empty(rel->attr_needed[InvalidAttrNumber - rel->min_attr]);
	Relids		settled = NULL;
	Relation	parent;
	ListCell   *lc;

	/* The plan is good as long as what left shards out is. */
	if (parts != NULL)
		for (int i = 0; i < parts->nparts; i++)
			if (!bms_is_member(i, parts->live))
				root->glob->relationOids =
					lappend_oid(root->glob->relationOids, parts->shards[i]);

	if (shards == NIL)
	{
		clear_partition_info(rel);
		mark_dummy_rel(rel);
		return;
	}

	expand_planner_arrays(root, list_length(shards));
	parent = table_open(rte->relid, NoLock);
	foreach(lc, shards)
	{
		Relation	child = table_open(lfirst_oid(lc), NoLock);
		TupleConstr *constr = RelationGetDescr(child)->constr;

		if (!RELATION_IS_OTHER_TEMP(child))
		{
			Index		rti = shard_expand_child(root, rel, rte, parent, child);

			/* If its place is all it has, that has been looked at. */
			if (parts != NULL && constr != NULL && constr->num_check == 1)
				settled = bms_add_member(settled, rti);
		}
		table_close(child, NoLock);
	}
	table_close(parent, NoLock);
	rte->inh = true;

	gate_shards_by_id(root, rel, shard_table_get(rte->relid), &ids);

	/*
	 * Core cannot combine partial aggregates over whole rows, which children
	 * have to convert; it fails to find them again in the result.
	 */
	if (parts != NULL)
	{
		gate_shards(root, rel, parts);
		if ((enable_partitionwise_aggregate || enable_partitionwise_join) &&
			!has_whole_row)
		{
			set_hash_parts(root, rel, parts);
			rel->consider_partitionwise_join = enable_partitionwise_join;
		}
		else
			clear_partition_info(rel);
	}
	shard_set_append_size(root, rel, rte, settled);
	if (parts == NULL && enable_partitionwise_aggregate && !has_whole_row &&
		!IS_DUMMY_REL(rel))
		set_keyless_parts(root, rel);
}

/*
 * Can WHERE CURRENT OF name a cursor with this query?
 */
static bool
is_cursors_query(PlannerInfo *root)
{
	while (root->parent_root != NULL)
		root = root->parent_root;
	return root->parse->commandType == CMD_SELECT &&
		!root->parse->hasModifyingCTE;
}

/*
 * Core has expanded the logical table "rel", one of whose members is the
 * table itself: leave out the shards that cannot have matching rows.  With
 * its mark for row locks, each would be looked at for every row that is
 * locked; but CURRENT OF looks for the marks of all.
 */
static void
prune_expanded_table(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	ShardTable *table = shard_table_get(relid);
	HashParts  *parts = prune_hash_table(root, rel, table);
	bool		keeps_marks = root->rowMarks == NIL || is_cursors_query(root);
	ShardIds	ids;
	ListCell   *lc;

	if (parts != NULL)
		gate_shards(root, rel, parts);
	find_ids(root, rel, table, &ids);
	gate_shards_by_id(root, rel, table, &ids);
	if (parts == NULL && !ids.known && !ids.one_shard)
		return;
	foreach(lc, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, lc);
		int			part = parts == NULL ? -1 :
			member_part(root, rel, parts, appinfo);
		int			ordinal = appinfo->parent_relid != rel->relid ? -1 :
			shard_table_find(table,
							 root->simple_rte_array[appinfo->child_relid]->relid);

		if ((part >= 0 && !bms_is_member(part, parts->live)) ||
			(ordinal >= 0 && !may_have_ids(&table->members[ordinal], &ids)))
		{
			mark_dummy_rel(find_base_rel(root, appinfo->child_relid));
			if (!keeps_marks)
				root->rowMarks = list_delete_ptr(root->rowMarks,
												 get_plan_rowmark(root->rowMarks, appinfo->child_relid));
		}
	}
	clear_partition_info(rel);
}

/*
 * shardGetForeignRelSize
 *		Called by core in place of a size estimate for the logical table.
 */
void
shardGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	/*
	 * Without our mark, this is the table without its children: FROM ONLY, or
	 * the table as a member of its own inheritance set.  It has no rows.  It
	 * is the first member, so the others have not been looked at yet.
	 */
	if (rel->fdw_private != &expand_mark)
	{
		AppendRelInfo *appinfo = root->append_rel_array ?
			root->append_rel_array[rel->relid] : NULL;

		if (appinfo != NULL &&
			planner_rt_fetch(appinfo->parent_relid, root)->rtekind == RTE_RELATION &&
			planner_rt_fetch(appinfo->parent_relid, root)->relid == relid)
			prune_expanded_table(root, find_base_rel(root, appinfo->parent_relid),
								 relid);
		mark_dummy_rel(rel);
	}
	else
		expand_logical_table(root, rel, planner_rt_fetch(rel->relid, root));
}
