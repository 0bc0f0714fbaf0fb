/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  How the planner sees a logical table.
 *
 * A logical table that a query only reads is expanded here, not by core.
 * Core expands inheritance before it knows the query's conditions, and opens
 * and locks every child.  We let it treat the table as one foreign table at
 * first: the get_relation_info hook takes back the table's "inh" mark, so
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
#include "shard_fdw.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "optimizer/appendinfo.h"
#include "optimizer/cost.h"
#include "optimizer/inherit.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "optimizer/planner.h"
#include "optimizer/prep.h"
#include "parser/parsetree.h"
#include "partitioning/partbounds.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/typcache.h"

static get_relation_info_hook_type prev_get_relation_info_hook = NULL;
static planner_hook_type prev_planner_hook = NULL;

/* fdw_private of a RelOptInfo points here if we are to expand it. */
static int	expand_mark;

/*
 * Take over the expansion of a logical table that is only read.
 */
static void
take_over_expansion(PlannerInfo *root, Oid relid, bool inhparent,
					RelOptInfo *rel)
{
	if (prev_get_relation_info_hook)
		prev_get_relation_info_hook(root, relid, inhparent, rel);

	if (!inhparent || rel->reloptkind != RELOPT_BASEREL ||
		rel->fdwroutine == NULL ||
		rel->fdwroutine->GetForeignRelSize != shardGetForeignRelSize)
		return;

	/*
	 * With constraint_exclusion = on, core would read the table's own NOT
	 * NULL and NO INHERIT constraints as if there were no children.
	 */
	if (constraint_exclusion == CONSTRAINT_EXCLUSION_ON)
		return;

	/* Row identity and row locks are core's business. */
	if (bms_is_member(rel->relid, root->all_result_relids) ||
		get_plan_rowmark(root->rowMarks, rel->relid) != NULL)
		return;

	root->simple_rte_array[rel->relid]->inh = false;
	rel->fdw_private = &expand_mark;
}

/*
 * Refuse ON CONFLICT on logical tables, in the query and in its WITH clauses.
 *
 * What core lets through is refused when the insert is planned, but core
 * itself refuses most of it before that, for want of a unique index on the
 * foreign table.  This is to give the answer that helps.
 */
static void
check_on_conflict(Query *query)
{
	ListCell   *lc;

	if (query->commandType == CMD_INSERT && query->onConflict != NULL)
	{
		Oid			relid = rt_fetch(query->resultRelation,
									 query->rtable)->relid;

		if (shard_is_logical(relid))
			shard_reject_on_conflict(query->onConflict->action, relid);
	}
	/* INSERT cannot be nested any deeper. */
	foreach(lc, query->cteList)
	{
		Node	   *cte = lfirst_node(CommonTableExpr, lc)->ctequery;

		if (IsA(cte, Query))
			check_on_conflict((Query *) cte);
	}
}

static PlannedStmt *
shard_planner(Query *parse, const char *query_string, int cursor_options,
			  ParamListInfo params)
{
	check_on_conflict(parse);
	return (prev_planner_hook ? prev_planner_hook : standard_planner)
		(parse, query_string, cursor_options, params);
}

/*
 * shard_plan_init
 *		Install the planner hooks.  To be called once, when the library is
 *		loaded.
 */
void
shard_plan_init(void)
{
	prev_get_relation_info_hook = get_relation_info_hook;
	get_relation_info_hook = take_over_expansion;
	prev_planner_hook = planner_hook;
	planner_hook = shard_planner;
}

/*
 * Lock all shards of a logical table, and their own children if they have
 * any.  Returns their OIDs.
 */
static List *
lock_shards(Oid relid, LOCKMODE lockmode)
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
		for (int i = 0; i < table->nmembers; i++)
		{
			shards = lappend_oid(shards, table->members[i].relid);
			has_children |= table->members[i].has_children;
			LockRelationOid(table->members[i].relid, lockmode);
		}
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
 * Describe the logical table to core as hash-partitioned by an expression
 * that no clause can ever match.
 *
 * That is all core needs to aggregate shard by shard and combine the partial
 * results.  A partition key made of real columns would let it conclude that
 * equal values are in one shard, which is not so on these routes.
 */
static void
set_partition_info(PlannerInfo *root, RelOptInfo *rel)
{
	PartitionScheme scheme = palloc0(sizeof(PartitionSchemeData));
	PartitionBoundInfo bounds = palloc0(sizeof(PartitionBoundInfoData));
	SetToDefault *unmatchable = makeNode(SetToDefault);
	ListCell   *lc;

	unmatchable->typeId = INT4OID;
	unmatchable->typeMod = -1;

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
	rel->partexprs[0] = list_make1(unmatchable);
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
 * Add the shards to the query in place of the logical table.
 */
static void
expand_logical_table(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	List	   *shards = lock_shards(rte->relid, rte->rellockmode);
	Relation	parent;
	ListCell   *lc;

	if (shards == NIL)
	{
		mark_dummy_rel(rel);
		return;
	}

	expand_planner_arrays(root, list_length(shards));
	parent = table_open(rte->relid, NoLock);
	foreach(lc, shards)
	{
		Relation	child = table_open(lfirst_oid(lc), NoLock);

		if (!RELATION_IS_OTHER_TEMP(child))
			shard_expand_child(root, rel, rte, parent, child);
		table_close(child, NoLock);
	}
	table_close(parent, NoLock);

	rte->inh = true;
	shard_set_append_size(root, rel, rte);

	/*
	 * Core cannot combine partial aggregates over whole rows, which children
	 * have to convert; it fails to find them again in the result.
	 */
	if (enable_partitionwise_aggregate && !IS_DUMMY_REL(rel) &&
		bms_is_empty(rel->attr_needed[InvalidAttrNumber - rel->min_attr]))
		set_partition_info(root, rel);
}

/*
 * shardGetForeignRelSize
 *		Called by core in place of a size estimate for the logical table.
 */
void
shardGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	/*
	 * Without our mark, this is the table without its children: FROM ONLY,
	 * or the table as a member of its own inheritance set.  It has no rows.
	 */
	if (rel->fdw_private != &expand_mark)
		mark_dummy_rel(rel);
	else
		expand_logical_table(root, rel, planner_rt_fetch(rel->relid, root));
}
