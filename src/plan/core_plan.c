/*-------------------------------------------------------------------------
 *
 * core_plan.c
 *	  Functions of the planner that PostgreSQL has but does not export.
 *
 * shard_expand_child() follows expand_single_inheritance_child() in
 * src/backend/optimizer/util/inherit.c; shard_set_append_size() follows
 * set_append_rel_size(), set_rel_size(), set_plain_rel_size(),
 * set_foreign_size() and set_rel_consider_parallel() in
 * src/backend/optimizer/path/allpaths.c; shard_find_partition_scheme()
 * follows find_partition_scheme() in src/backend/optimizer/util/plancat.c
 * (PostgreSQL 15 to 19).  What cannot occur has been left out: row marks,
 * table samples, and children that are partitioned.
 *
 * Portions Copyright (c) 1996-2026, PostgreSQL Global Development Group
 * Portions Copyright (c) 1994, Regents of the University of California
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include <math.h>

#include "access/sysattr.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"

/*
 * shard_child_alias
 *		The alias "name" of a child of the logical table with the entry "rte",
 *		with the names that the query gave to the columns.
 *
 * "parent_colnos" has the number of the logical table's column by that of the
 * child's, or 0.
 */
Alias *
shard_child_alias(const RangeTblEntry *rte, const char *name, TupleDesc desc,
				  const AttrNumber *parent_colnos)
{
	List	   *colnames = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AttrNumber	parent_attno = parent_colnos[i];
		char	   *colname;

		if (att->attisdropped)
			colname = "";
		else if (parent_attno > 0 &&
				 parent_attno <= list_length(rte->eref->colnames))
			colname = strVal(list_nth(rte->eref->colnames, parent_attno - 1));
		else
			colname = NameStr(att->attname);
		colnames = lappend(colnames, makeString(pstrdup(colname)));
	}
	return makeAlias(name, colnames);
}

/*
 * Note that a child of the query's result relation is one of those that can
 * have rows changed, and have the columns made by which the executor finds
 * them.
 */
static void
add_target(PlannerInfo *root, Index parent, Index rti, RangeTblEntry *rte,
		   Relation child)
{
	/*
	 * Minor releases differ in when they note the result relation itself, and
	 * take it for one without children while its "inh" mark is away.
	 */
	root->all_result_relids = bms_add_member(root->all_result_relids, parent);
	root->leaf_result_relids = bms_del_member(root->leaf_result_relids, parent);
	root->all_result_relids = bms_add_member(root->all_result_relids, rti);
	root->leaf_result_relids = bms_add_member(root->leaf_result_relids, rti);
	add_row_identity_var(root,
						 makeVar(rti, TableOidAttributeNumber, OIDOID, -1,
								 InvalidOid, 0),
						 rti, "tableoid");
	add_row_identity_columns(root, rti, rte, child);
}

/*
 * shard_expand_child
 *		Add a child of the logical table "rel" to the query: a range table
 *		entry, an AppendRelInfo and a RelOptInfo.
 *
 * "rte" is the logical table's entry, "parent" and "child" are the open
 * relations.  The caller has made room with expand_planner_arrays().  Returns
 * the child's index in the range table.
 */
Index
shard_expand_child(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte,
				   Relation parent, Relation child)
{
	Query	   *parse = root->parse;
	RangeTblEntry *childrte;
	Index		rti;
	AppendRelInfo *appinfo;

	/*
	 * Permissions and row-level security are those of the parent; it has been
	 * checked, and its securityQuals come with the other clauses.
	 */
	childrte = makeNode(RangeTblEntry);
	memcpy(childrte, rte, sizeof(RangeTblEntry));
	childrte->relid = RelationGetRelid(child);
	childrte->relkind = child->rd_rel->relkind;
	childrte->inh = false;
	childrte->securityQuals = NIL;

	parse->rtable = lappend(parse->rtable, childrte);
	rti = list_length(parse->rtable);

	shard_note_not_null(root, child);
	appinfo = make_append_rel_info(parent, child, rel->relid, rti);
	root->append_rel_list = lappend(root->append_rel_list, appinfo);
	shard_rte_of_child(childrte, appinfo);

	/*
	 * EXPLAIN shows the table by its own name unless the query has an alias
	 * for the parent: core always takes the parent's name and numbers it, but
	 * that may well be the name of another shard.
	 */
	childrte->alias = childrte->eref =
		shard_child_alias(rte, rte->alias ? rte->eref->aliasname :
						  RelationGetRelationName(child),
						  RelationGetDescr(child), appinfo->parent_colnos);

	Assert(rti < root->simple_rel_array_size);
	Assert(root->simple_rte_array[rti] == NULL);
	root->simple_rte_array[rti] = childrte;
	Assert(root->append_rel_array[rti] == NULL);
	root->append_rel_array[rti] = appinfo;

	if ((int) rel->relid == parse->resultRelation)
		add_target(root, rel->relid, rti, childrte, child);
	(void) build_simple_rel(root, rti, rel);
	return rti;
}

/*
 * Could a worker scan this child?
 */
static bool
child_is_parallel_safe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	if (get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
		return false;
	if (rte->relkind == RELKIND_FOREIGN_TABLE &&
		(rel->fdwroutine->IsForeignScanParallelSafe == NULL ||
		 !rel->fdwroutine->IsForeignScanParallelSafe(root, rel, rte)))
		return false;
	return is_parallel_safe(root, (Node *) rel->baserestrictinfo) &&
		is_parallel_safe(root, (Node *) rel->reltarget->exprs);
}

/*
 * Estimate the size of one child.
 */
static void
set_child_size(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	if (rte->relkind == RELKIND_FOREIGN_TABLE)
	{
		set_foreign_size_estimates(root, rel);
		rel->fdwroutine->GetForeignRelSize(root, rel, rte->relid);
		rel->rows = clamp_row_est(rel->rows);
		rel->tuples = Max(rel->tuples, rel->rows);
	}
	else
	{
		/* Partial unique indexes can affect the estimates. */
		check_index_predicates(root, rel);
		set_baserel_size_estimates(root, rel);
	}
}

/*
 * shard_set_append_size
 *		Estimate the size of a logical table whose children have been added,
 *		and prepare the children for path generation.
 *
 * The constraints of children in "settled" are known to exclude nothing.
 * Marks "rel" dummy if no child is left to scan.
 */
void
shard_set_append_size(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte,
					  Relids settled)
{
	bool		has_live_children = false;
	bool		has_parallel_children = false;
	double		parent_rows = 0;
	double		parent_tuples = 0;
	double		parent_size = 0;
	int			nattrs = rel->max_attr - rel->min_attr + 1;
	double	   *parent_attrsizes = palloc0(nattrs * sizeof(double));
	bool		add_equivalences = rel->has_eclass_joins ||
		has_useful_pathkeys(root, rel);
	bool		is_joined_by_parts = rel->consider_partitionwise_join &&
		bms_membership(root->all_baserels) == BMS_MULTIPLE;
	ListCell   *l;

	check_stack_depth();
	Assert(IS_SIMPLE_REL(rel));

	foreach(l, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, l);
		RangeTblEntry *childrte;
		RelOptInfo *childrel;
		List	   *joininfo = NIL;
		ListCell   *lc;
		ListCell   *parentvars;
		ListCell   *childvars;

		if (appinfo->parent_relid != rel->relid)
			continue;
		childrte = root->simple_rte_array[appinfo->child_relid];
		childrel = find_base_rel(root, appinfo->child_relid);
		Assert(childrel->reloptkind == RELOPT_OTHER_MEMBER_REL);

		if (IS_DUMMY_REL(childrel))
			continue;
		if (!bms_is_member(appinfo->child_relid, settled) &&
			relation_excluded_by_constraints(root, childrel, childrte))
		{
			mark_dummy_rel(childrel);
			continue;
		}

		foreach(lc, rel->joininfo)
		{
			RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

			if (!shard_useless_for_child(rinfo, rel))
				joininfo = lappend(joininfo,
								   adjust_appendrel_attrs(root, (Node *) rinfo,
														  1, &appinfo));
		}
		childrel->joininfo = joininfo;
		childrel->reltarget->exprs = (List *)
			adjust_appendrel_attrs(root, (Node *) rel->reltarget->exprs,
								   1, &appinfo);

		/* For inner index scans of single children, and for MergeAppend. */
		if (add_equivalences)
			add_child_rel_equivalences(root, appinfo, rel, childrel);
		childrel->has_eclass_joins = rel->has_eclass_joins;
		childrel->consider_partitionwise_join =
			rel->consider_partitionwise_join;

		if (root->glob->parallelModeOK && rel->consider_parallel)
			childrel->consider_parallel =
				child_is_parallel_safe(root, childrel, childrte);

		set_child_size(root, childrel, childrte);
		if (IS_DUMMY_REL(childrel))
			continue;
		has_live_children = true;

		/*
		 * One child that workers cannot scan spoils it for the whole, unless
		 * it is one that they need not scan; see gather.c.  In joins of
		 * members, core would take them for all alike.
		 */
		if (childrel->consider_parallel)
			has_parallel_children = true;
		else if (childrte->relkind != RELKIND_FOREIGN_TABLE || is_joined_by_parts)
			rel->consider_parallel = false;

		Assert(childrel->rows > 0);
		parent_rows += childrel->rows;
		parent_tuples += childrel->tuples;
		parent_size += childrel->reltarget->width * childrel->rows;

		/* The child's target list matches the parent's, one by one. */
		forboth(parentvars, rel->reltarget->exprs,
				childvars, childrel->reltarget->exprs)
		{
			Var		   *parentvar = lfirst(parentvars);
			Node	   *childvar = lfirst(childvars);
			int32		width = 0;

			if (!IsA(parentvar, Var) || parentvar->varno != rel->relid)
				continue;
			if (IsA(childvar, Var) &&
				((Var *) childvar)->varno == childrel->relid)
				width = childrel->attr_widths[((Var *) childvar)->varattno -
											  childrel->min_attr];
			if (width <= 0)
				width = get_typavgwidth(exprType(childvar),
										exprTypmod(childvar));
			parent_attrsizes[parentvar->varattno - rel->min_attr] +=
				width * childrel->rows;
		}
	}

	if (!has_parallel_children)
		rel->consider_parallel = false;
	if (has_live_children)
	{
		rel->rows = parent_rows;
		rel->tuples = shard_append_tuples(parent_rows, parent_tuples);
		/* The pages are the children's; counting them twice would be wrong. */
		rel->pages = 0;
		rel->reltarget->width = rint(parent_size / parent_rows);
		for (int i = 0; i < nattrs; i++)
			rel->attr_widths[i] = rint(parent_attrsizes[i] / parent_rows);
	}
	else
		mark_dummy_rel(rel);

	pfree(parent_attrsizes);
}

/*
 * shard_find_partition_scheme
 *		The partition scheme of tables with this key, found in the query or
 *		added to it.
 *
 * Core compares schemes by pointer, so tables that can be joined partition by
 * partition must share one.  Allocated in the current memory context.
 */
PartitionScheme
shard_find_partition_scheme(PlannerInfo *root, PartitionKey partkey)
{
	int			natts = partkey->partnatts;
	PartitionScheme scheme;
	ListCell   *lc;

	foreach(lc, root->part_schemes)
	{
		scheme = lfirst(lc);
		if (scheme->strategy == partkey->strategy &&
			scheme->partnatts == natts &&
			memcmp(scheme->partopfamily, partkey->partopfamily,
				   sizeof(Oid) * natts) == 0 &&
			memcmp(scheme->partopcintype, partkey->partopcintype,
				   sizeof(Oid) * natts) == 0 &&
			memcmp(scheme->partcollation, partkey->partcollation,
				   sizeof(Oid) * natts) == 0)
			return scheme;
	}

	/* The key may not survive as long as the query. */
	scheme = palloc0(sizeof(PartitionSchemeData));
	scheme->strategy = partkey->strategy;
	scheme->partnatts = natts;
	scheme->partopfamily = palloc(sizeof(Oid) * natts);
	memcpy(scheme->partopfamily, partkey->partopfamily, sizeof(Oid) * natts);
	scheme->partopcintype = palloc(sizeof(Oid) * natts);
	memcpy(scheme->partopcintype, partkey->partopcintype, sizeof(Oid) * natts);
	scheme->partcollation = palloc(sizeof(Oid) * natts);
	memcpy(scheme->partcollation, partkey->partcollation, sizeof(Oid) * natts);
	scheme->parttyplen = palloc(sizeof(int16) * natts);
	memcpy(scheme->parttyplen, partkey->parttyplen, sizeof(int16) * natts);
	scheme->parttypbyval = palloc(sizeof(bool) * natts);
	memcpy(scheme->parttypbyval, partkey->parttypbyval, sizeof(bool) * natts);
	scheme->partsupfunc = palloc(sizeof(FmgrInfo) * natts);
	for (int i = 0; i < natts; i++)
		fmgr_info_copy(&scheme->partsupfunc[i], &partkey->partsupfunc[i],
					   CurrentMemoryContext);
	root->part_schemes = lappend(root->part_schemes, scheme);
	return scheme;
}
