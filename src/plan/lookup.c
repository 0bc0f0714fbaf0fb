/*-------------------------------------------------------------------------
 *
 * lookup.c
 *	  Statements that name the rows of one shard.
 *
 * If the conditions of a query fix the key of a hash table, or an id from the
 * sequences of a table's shards, all rows that it can find in the table are in
 * one shard.  Then the shard takes the logical table's place in the query,
 * before the planner sees it.  What is planned is a query on a plain table, and
 * costs what that costs, however many shards there are; UPDATE, DELETE and row
 * locks included.  The logical table stays in the range table, for its
 * privileges are those that count.  What is asked of a view or a subquery is
 * asked of the tables in it, where the planner could see it so as well.
 *
 * The value may not be known before the query is executed.  Then the plan says
 * which shard it has been made for, and the executor is to ask again; see
 * choice.c.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/typcache.h"

/* What is needed to find the lookups of a query. */
typedef struct Search
{
	PlannerInfo *root;			/* has the values of parameters, no more */
	List	   *given;			/* conditions that the query around it adds */
	List	   *lookups;
} Search;

/* What a condition on a subquery says about the tables in it. */
typedef struct Inward
{
	Index		rti;			/* of the subquery */
	Query	   *subquery;
	bool		is_possible;
} Inward;

/* Which whole row an expression may refer to. */
typedef struct WholeRow
{
	Index		rti;
	Index		levels_up;
} WholeRow;

/*
 * Add the conditions that every row of an entry of the range table has to meet
 * to be of any use to the query.  Returns whether the entry is in this part of
 * the join tree.
 */
static bool
collect_conditions(Node *node, Index rti, List **conditions)
{
	Node	   *quals = NULL;
	bool		is_below = false;

	if (node == NULL)
		return false;
	check_stack_depth();
	if (IsA(node, RangeTblRef))
		return ((RangeTblRef *) node)->rtindex == (int) rti;
	if (IsA(node, FromExpr))
	{
		FromExpr   *from = (FromExpr *) node;
		ListCell   *lc;

		foreach(lc, from->fromlist)
			is_below |= collect_conditions(lfirst(lc), rti, conditions);
		if (is_below)
			quals = from->quals;
	}
	else
	{
		JoinExpr   *join = castNode(JoinExpr, node);
		bool		in_left = collect_conditions(join->larg, rti, conditions);
		bool		in_right = collect_conditions(join->rarg, rti, conditions);

		is_below = in_left || in_right;

		/* An outer join keeps rows of one side that do not meet its own. */
		if ((in_left && (join->jointype == JOIN_INNER ||
						 join->jointype == JOIN_RIGHT)) ||
			(in_right && (join->jointype == JOIN_INNER ||
						  join->jointype == JOIN_LEFT)))
			quals = join->quals;
	}
	if (quals != NULL)
	{
		ListCell   *lc;

		foreach(lc, make_ands_implicit((Expr *) quals))
			* conditions = list_concat(*conditions,
									   make_ands_implicit(lfirst(lc)));
	}
	return is_below;
}

/*
 * Can an expression only be evaluated for a row, or not at all before the query
 * runs?
 */
static bool
depends_on_query(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Aggref:
		case T_GroupingFunc:
		case T_WindowFunc:
		case T_SubLink:
		case T_CurrentOfExpr:
		case T_SetToDefault:
		case T_NextValueExpr:
			return true;
		case T_Param:
			return ((Param *) node)->paramkind != PARAM_EXTERN;
		default:
			return expression_tree_walker(node, depends_on_query, context);
	}
}

/*
 * What conditions say that a column equals, as this operator family and
 * collation see it; NULL if that cannot be known before the query runs, or if
 * they say it of several values: the planner may find that these contradict each
 * other.
 */
static Node *
value_of_column(PlannerInfo *root, List *conditions, Var *column,
				Oid opfamily, Oid collation)
{
	Node	   *result = NULL;
	ListCell   *lc;

	foreach(lc, conditions)
	{
		Node	   *value = shard_key_value(root, lfirst(lc), column, opfamily,
											collation);

		if (value == NULL || depends_on_query(value, NULL))
			continue;
		if (result != NULL && !equal(value, result))
			return NULL;
		result = value;
	}
	return result;
}

/*
 * The values of the hash key's columns; NIL if not all are given.
 */
static List *
values_of_key(PlannerInfo *root, List *conditions, Index rti,
			  PartitionKey key)
{
	List	   *result = NIL;

	for (int i = 0; i < key->partnatts; i++)
	{
		Var		   *column = makeVar(rti, key->partattrs[i], key->parttypid[i],
									 key->parttypmod[i], key->parttypcoll[i],
									 0);
		Node	   *value = value_of_column(root, conditions, column,
											key->partopfamily[i],
											key->partcollation[i]);

		if (value == NULL ||
			!shard_can_hash_with(key->partopfamily[i], exprType(value)))
			return NIL;
		result = lappend(result, value);
	}
	return result;
}

/*
 * The id that the conditions give, in a list; NIL if they give none.
 */
static List *
value_of_id(PlannerInfo *root, List *conditions, Index rti,
			const ShardTable *table)
{
	Oid			type = get_atttype(table->relid, table->seq_attno);
	Node	   *value;

	value = value_of_column(root, conditions,
							makeVar(rti, table->seq_attno, type, -1, InvalidOid,
									0),
							lookup_type_cache(INT8OID,
											  TYPECACHE_HASH_OPFAMILY)->hash_opf,
							InvalidOid);
	return value == NULL ? NIL : list_make1(value);
}

/*
 * Find out whether the conditions of a query fix the shard of a table.
 */
static void
find_lookup(Search *search, Query *query, Index rti)
{
	RangeTblEntry *rte = rt_fetch(rti, query->rtable);
	List	   *conditions = NIL;
	ShardTable *table;
	ShardLookup *lookup;
	List	   *values = NIL;
	bool		by_id = false;
	ListCell   *lc;

	/* MERGE also looks at rows that do not meet its condition. */
	if (query->commandType == CMD_MERGE)
		return;
	if (rte->rtekind != RTE_RELATION || !rte->inh ||
		rte->relkind != RELKIND_FOREIGN_TABLE ||
		!shard_is_logical(rte->relid) ||
		list_length(search->lookups) >= SHARD_MAX_LOOKUPS)
		return;
	(void) collect_conditions((Node *) query->jointree, rti, &conditions);
	conditions = list_concat(conditions, search->given);
	if (conditions == NIL)
		return;

	table = shard_table_get(rte->relid);
	if (table->bounds != NULL)
		values = values_of_key(search->root, conditions, rti, table->key);
	if (values == NIL && table->seq_attno != 0)
	{
		by_id = true;
		values = value_of_id(search->root, conditions, rti, table);
	}
	if (values == NIL)
		return;

	lookup = palloc0(sizeof(ShardLookup));
	lookup->query = query;
	lookup->rti = rti;
	lookup->choice.number = list_length(search->lookups);
	lookup->choice.logical = rte->relid;
	lookup->choice.values = values;
	lookup->choice.by_id = by_id;
	lookup->choice.lockmode = rte->rellockmode;
	lookup->is_certain = true;
	foreach(lc, values)
	{
		Node	   *value = eval_const_expressions(search->root, lfirst(lc));

		lookup->is_certain &= IsA(value, Const);
	}
	search->lookups = lappend(search->lookups, lookup);
}

/*
 * Put the columns that a subquery gives its own in their place.
 */
static Node *
look_inward(Node *node, Inward *inward)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, SubLink))
	{
		inward->is_possible = false;
		return node;
	}
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		TargetEntry *tle = NULL;

		if (var->varno == (int) inward->rti && var->varlevelsup == 0)
			tle = get_tle_by_resno(inward->subquery->targetList, var->varattno);
		if (tle != NULL && IsA(tle->expr, Var))
			return (Node *) tle->expr;
		inward->is_possible = false;
		return node;
	}
	return expression_tree_mutator(node, look_inward, inward);
}

/*
 * Does a subquery, or a view, return the rows of its join as they are, each for
 * itself, so that those which are of no use outside need not be read?
 */
static bool
keeps_rows(const Query *subquery)
{
	return subquery->commandType == CMD_SELECT &&
		subquery->setOperations == NULL &&
		!subquery->hasAggs && !subquery->hasWindowFuncs &&
		!subquery->hasTargetSRFs &&
		subquery->groupClause == NIL && subquery->groupingSets == NIL &&
		subquery->havingQual == NULL && subquery->distinctClause == NIL &&
		subquery->limitOffset == NULL && subquery->limitCount == NULL;
}

/*
 * Those of the conditions of a query that tell something of the tables in a
 * subquery of its range table, as conditions of the subquery.
 */
static List *
conditions_inside(Query *query, Index rti, List *given)
{
	Inward		inward = {rti, rt_fetch(rti, query->rtable)->subquery, true};
	List	   *conditions = NIL;
	List	   *result = NIL;
	ListCell   *lc;

	/* MERGE also looks at rows that do not meet its condition. */
	if (query->commandType == CMD_MERGE || !keeps_rows(inward.subquery))
		return NIL;
	(void) collect_conditions((Node *) query->jointree, rti, &conditions);
	conditions = list_concat(conditions, given);
	foreach(lc, conditions)
	{
		Node	   *condition;

		/* No other condition gives a key. */
		if (!IsA(lfirst(lc), OpExpr))
			continue;
		inward.is_possible = true;
		condition = look_inward(lfirst(lc), &inward);
		if (inward.is_possible)
			result = lappend(result, condition);
	}
	return result;
}

/*
 * Find the lookups of a query and of all queries in it.
 */
static bool
find_lookups(Node *node, Search *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		List	   *given = search->given;

		for (int i = 1; i <= list_length(query->rtable); i++)
			find_lookup(search, query, i);
		for (int i = 1; i <= list_length(query->rtable); i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);

			if (rte->rtekind != RTE_SUBQUERY)
				continue;
			search->given = conditions_inside(query, i, given);
			(void) find_lookups((Node *) rte->subquery, search);
		}
		search->given = NIL;
		(void) query_tree_walker(query, find_lookups, search,
								 QTW_IGNORE_RT_SUBQUERIES);
		search->given = given;
		return false;
	}
	return expression_tree_walker(node, find_lookups, search);
}

/*
 * shard_find_lookups
 *		The lookups in a query, at most SHARD_MAX_LOOKUPS of them, always in the
 *		same order; of ShardLookup.
 *
 * "params" are the parameters' values, as far as they are known.
 */
List *
shard_find_lookups(Query *query, ParamListInfo params)
{
	Search		search = {0};

	if (!enable_partition_pruning)
		return NIL;
	search.root = shard_root_with_params(params);
	(void) find_lookups((Node *) query, &search);
	return search.lookups;
}

/*
 * The value of an expression before execution.  False if it is not known.
 */
static bool
get_value(Node *expr, ParamListInfo params, Oid *type, Datum *value,
		  bool *is_null)
{
	Const	   *result;

	*type = exprType(expr);
	while (IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	if (IsA(expr, Param))
	{
		int			id = ((Param *) expr)->paramid;
		ParamExternData workspace;
		ParamExternData *param;

		if (params == NULL || id <= 0 || id > params->numParams)
			return false;
		param = params->paramFetch != NULL ?
			params->paramFetch(params, id, false, &workspace) :
			&params->params[id - 1];
		*value = param->value;
		*is_null = param->isnull;

		/* If this is another type, core says so when it executes the query. */
		return param->ptype == ((Param *) expr)->paramtype;
	}
	if (!IsA(expr, Const))
	{
		expr = estimate_expression_value(shard_root_with_params(params), expr);
		if (!IsA(expr, Const))
			return false;
	}
	result = (Const *) expr;
	*value = result->constvalue;
	*is_null = result->constisnull;
	return true;
}

/*
 * The ordinal of the only member that can hold an id; -1 if there is not one.
 */
static int
find_by_id(const ShardTable *table, int64 id)
{
	int			result = -1;

	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (!member->is_id_slot_valid || member->has_children)
			return -1;
		if (!shard_id_fits(id, member->stride, member->id_slot))
			continue;
		if (result >= 0)
			return -1;
		result = i;
	}
	return result;
}

/*
 * The ordinal of a member by which to judge what a lookup costs; -1 if it is no
 * lookup in this table.
 */
static int
find_example(const ShardTable *table, bool by_id)
{
	if (table->nmembers == 0)
		return -1;
	if (!by_id)
		return table->places[0].ordinal;
	return find_by_id(table, table->members[0].id_slot);
}

/*
 * The shard that holds the rows which a lookup asks for, with these parameters;
 * InvalidOid if there is not one such shard.
 *
 * If the values are not known yet, it is some shard, and *is_known is false.
 */
static Oid
choose(const ShardChoice *choice, ParamListInfo params, bool *is_known)
{
	Datum		values[PARTITION_MAX_KEYS];
	bool		nulls[PARTITION_MAX_KEYS];
	Oid			types[PARTITION_MAX_KEYS];
	int			nvalues = list_length(choice->values);
	const ShardTable *table;
	int			ordinal;

	*is_known = true;
	for (int i = 0; i < nvalues && *is_known; i++)
	{
		*is_known = get_value(list_nth(choice->values, i), params, &types[i],
							  &values[i], &nulls[i]);
		if (*is_known && nulls[i])
			return InvalidOid;
	}

	/* Functions may have been called, which could have anything rebuilt. */
	table = shard_table_get(choice->logical);
	if (!choice->by_id &&
		(table->bounds == NULL || table->key->partnatts != nvalues))
		return InvalidOid;
	if (!*is_known)
		ordinal = find_example(table, choice->by_id);
	else if (choice->by_id)
		ordinal = find_by_id(table, shard_id_from_datum(values[0], types[0]));
	else
		ordinal = shard_find_place(table,
								   shard_key_hash_values(table->key, types,
														 values, nulls));
	return ordinal < 0 ? InvalidOid : table->members[ordinal].relid;
}

/*
 * shard_lock_chosen
 *		Choose the shard of a lookup and lock it.  InvalidOid if there is not
 *		one such shard.
 *
 * If the values are not known yet, it is some shard, and *is_known is false.
 */
Oid
shard_lock_chosen(const ShardChoice *choice, ParamListInfo params,
				  bool *is_known)
{
	for (;;)
	{
		Oid			result = choose(choice, params, is_known);
		const ShardTable *table = shard_table_get(choice->logical);
		uint64		generation = table->generation;

		if (!OidIsValid(result))
			return InvalidOid;

		/* Locking may bring the news that it is another shard. */
		LockRelationOid(result, choice->lockmode);
		if ((table->is_valid && table->generation == generation) ||
			choose(choice, params, is_known) == result)
			return result;
		UnlockRelationOid(result, choice->lockmode);
	}
}

/*
 * The columns of the shard in a set of columns of the logical table, both
 * numbered as the privileges of range table entries have them.  "map" has the
 * number of the shard's column by that of the logical table's; NULL: the same.
 */
static Bitmapset *
map_columns(const Bitmapset *columns, const AttrMap *map)
{
	Bitmapset  *result = NULL;

	if (map == NULL)
		return bms_copy(columns);
	for (int i = -1; (i = bms_next_member(columns, i)) >= 0;)
	{
		AttrNumber	attno = i + FirstLowInvalidHeapAttributeNumber;

		if (attno > 0)
			attno = map->attnums[attno - 1];
		result = bms_add_member(result,
								attno - FirstLowInvalidHeapAttributeNumber);
	}
	return result;
}

/*
 * Does an expression or query refer to the whole row of a table?
 */
static bool
has_whole_row(Node *node, WholeRow *whole)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		return var->varno == (int) whole->rti &&
			var->varlevelsup == whole->levels_up &&
			var->varattno == InvalidAttrNumber;
	}
	if (IsA(node, Query))
	{
		bool		result;

		whole->levels_up++;
		result = query_tree_walker((Query *) node, has_whole_row, whole, 0);
		whole->levels_up--;
		return result;
	}
	return expression_tree_walker(node, has_whole_row, whole);
}

/*
 * Has the table a trigger for statements that a command fires?
 */
static bool
has_statement_trigger(Relation rel, CmdType command)
{
	TriggerDesc *triggers = rel->trigdesc;

	if (triggers == NULL)
		return false;
	return command == CMD_UPDATE ?
		triggers->trig_update_before_statement ||
		triggers->trig_update_after_statement :
		triggers->trig_delete_before_statement ||
		triggers->trig_delete_after_statement;
}

/*
 * Would it make a difference which of the two tables a command names?
 *
 * Triggers for statements belong to the one it names, and so do expressions of
 * virtual columns.
 */
static bool
must_name_logical(const Query *query, Index rti, Relation logical,
				  Relation shard)
{
	if (shard_has_virtual_columns(logical) || shard_has_virtual_columns(shard))
		return true;
	return query->resultRelation == (int) rti &&
		(has_statement_trigger(logical, query->commandType) ||
		 has_statement_trigger(shard, query->commandType));
}

/*
 * Put a shard in the place of the logical table.
 */
static void
replace_table(Query *query, Index rti, Relation logical, Relation shard)
{
	RangeTblEntry *rte = rt_fetch(rti, query->rtable);
	RangeTblEntry *named = makeNode(RangeTblEntry);
	ShardTable *table = shard_table_get(RelationGetRelid(logical));
	int			ordinal = shard_table_find(table, RelationGetRelid(shard));
	const AttrMap *back = shard_member_map(&table->members[ordinal], table,
										   logical, shard);
	AttrMap    *map = NULL;
	Alias	   *alias = NULL;
	WholeRow	whole = {rti, 0};

	if (back != NULL)
	{
		map = shard_attrmap_by_name(RelationGetDescr(shard),
									RelationGetDescr(logical));
		alias = shard_child_alias(rte, rte->eref->aliasname,
								  RelationGetDescr(shard), back->attnums);
	}

	/* The logical table is not read any more.  Its privileges count. */
	memcpy(named, rte, sizeof(RangeTblEntry));
	named->inh = false;
	named->securityQuals = NIL;
	query->rtable = lappend(query->rtable, named);

	if (map != NULL || query_tree_walker(query, has_whole_row, &whole, 0))
	{
		AttrMap    *all = map != NULL ? map :
			make_attrmap(RelationGetDescr(logical)->natts);
		bool		found;
		Query	   *mapped;
		ListCell   *lc;

		if (map == NULL)
			for (int i = 0; i < all->maplen; i++)
				all->attnums[i] = i + 1;
		mapped = (Query *) map_variable_attnos((Node *) query, rti, 0, all,
											   shard->rd_rel->reltype, &found);
		memcpy(query, mapped, sizeof(Query));
		rte = rt_fetch(rti, query->rtable);
		if (map != NULL && query->resultRelation == (int) rti)
			foreach(lc, query->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);

			if (!tle->resjunk)
				tle->resno = map->attnums[tle->resno - 1];
		}
	}
	if (alias != NULL)
	{
		rte->eref = alias;
		if (rte->alias != NULL)
			rte->alias = alias;
	}
	rte->relid = RelationGetRelid(shard);
	rte->relkind = shard->rd_rel->relkind;
	rte->inh = false;
	shard_rte_of_shard(query, rte, list_length(query->rtable) - (int) rti,
					   map_columns, map);
}

/*
 * shard_apply_lookups
 *		Put shards in the place of logical tables.  Locks the shards, and notes
 *		which ones they are.
 *
 * "params" are the values that choose the shards.
 */
void
shard_apply_lookups(List *lookups, ParamListInfo params)
{
	/* A query is copied with those in it, so those in it come first. */
	for (int i = list_length(lookups) - 1; i >= 0; i--)
	{
		ShardLookup *lookup = list_nth(lookups, i);
		ShardChoice *choice = &lookup->choice;
		Relation	logical;
		Relation	shard;

		choice->shard = shard_lock_chosen(choice, params, &lookup->is_known);
		if (!OidIsValid(choice->shard))
			continue;
		logical = table_open(choice->logical, NoLock);
		shard = table_open(choice->shard, NoLock);
		if (!RELATION_IS_OTHER_TEMP(shard) &&
			!must_name_logical(lookup->query, lookup->rti, logical, shard))
		{
			replace_table(lookup->query, lookup->rti, logical, shard);
			lookup->is_applied = true;
		}
		table_close(shard, NoLock);
		table_close(logical, NoLock);
	}
}
