/*-------------------------------------------------------------------------
 *
 * fromcore.c
 *	  Functions that PostgreSQL has but does not export.
 *
 * shard_expand_child() follows expand_single_inheritance_child() in
 * src/backend/optimizer/util/inherit.c; shard_set_append_size() follows
 * set_append_rel_size(), set_rel_size(), set_plain_rel_size(),
 * set_foreign_size() and set_rel_consider_parallel() in
 * src/backend/optimizer/path/allpaths.c; shard_find_partition_scheme()
 * follows find_partition_scheme() in src/backend/optimizer/util/plancat.c;
 * shard_check_tid_visible() follows ExecCheckTIDVisible() and
 * ExecCheckTupleVisible(), shard_lock_conflicting_row() and
 * shard_fetch_conflicting_row() follow ExecOnConflictUpdate() and
 * ExecOnConflictSelect(), and shard_update_row() follows ExecUpdate() and its
 * subroutines in src/backend/executor/nodeModifyTable.c (PostgreSQL 15 to
 * 19).  What cannot occur for a logical table that is only read has been left
 * out of the planner's functions: row marks, result relations, table samples,
 * and children that are partitioned; and what cannot occur for a row that has
 * been locked out of the executor's.
 *
 * Portions Copyright (c) 1996-2026, PostgreSQL Global Development Group
 * Portions Copyright (c) 1994, Regents of the University of California
 *
 *-------------------------------------------------------------------------
 */
#include "shard_fdw.h"

#include <math.h>

#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "foreign/fdwapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/joininfo.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"

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
	TupleDesc	desc = RelationGetDescr(child);
	RangeTblEntry *childrte;
	Index		rti;
	AppendRelInfo *appinfo;
	List	   *colnames = NIL;

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
	shard_rte_no_permissions(childrte);

	parse->rtable = lappend(parse->rtable, childrte);
	rti = list_length(parse->rtable);

	shard_note_not_null(root, child);
	appinfo = make_append_rel_info(parent, child, rel->relid, rti);
	root->append_rel_list = lappend(root->append_rel_list, appinfo);

	/*
	 * EXPLAIN shows the columns by the names the query gave them.  It shows
	 * the table by its own name unless the query has an alias for the parent:
	 * core always takes the parent's name and numbers it, but that may well
	 * be the name of another shard.
	 */
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AttrNumber	parent_attno = appinfo->parent_colnos[i];
		char	   *name;

		if (att->attisdropped)
			name = "";
		else if (parent_attno > 0 &&
				 parent_attno <= list_length(rte->eref->colnames))
			name = strVal(list_nth(rte->eref->colnames, parent_attno - 1));
		else
			name = NameStr(att->attname);
		colnames = lappend(colnames, makeString(pstrdup(name)));
	}
	childrte->alias = childrte->eref =
		makeAlias(rte->alias ? rte->eref->aliasname :
				  RelationGetRelationName(child), colnames);

	Assert(rti < root->simple_rel_array_size);
	Assert(root->simple_rte_array[rti] == NULL);
	root->simple_rte_array[rti] = childrte;
	Assert(root->append_rel_array[rti] == NULL);
	root->append_rel_array[rti] = appinfo;

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
	double		parent_rows = 0;
	double		parent_tuples = 0;
	double		parent_size = 0;
	int			nattrs = rel->max_attr - rel->min_attr + 1;
	double	   *parent_attrsizes = palloc0(nattrs * sizeof(double));
	bool		add_equivalences = rel->has_eclass_joins ||
		has_useful_pathkeys(root, rel);
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

		/* One child that workers cannot scan spoils it for the whole. */
		if (!childrel->consider_parallel)
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

/*
 * Raise an error if the transaction's snapshot must not see the row in the
 * slot, but for rows of the same command, which are no race.
 */
static void
check_row_visible(EState *estate, Relation rel, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		xmin;

	if (!IsolationUsesXactSnapshot() ||
		table_tuple_satisfies_snapshot(rel, slot, estate->es_snapshot))
		return;
	xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull);
	if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
}

/*
 * shard_check_tid_visible
 *		Raise ERRCODE_T_R_SERIALIZATION_FAILURE if the transaction's snapshot
 *		must not see the row that ON CONFLICT DO NOTHING has found.
 */
void
shard_check_tid_visible(EState *estate, ResultRelInfo *rri, ItemPointer tid)
{
	TupleTableSlot *slot;

	if (!IsolationUsesXactSnapshot())
		return;
	slot = ExecGetReturningSlot(estate, rri);
	if (!table_tuple_fetch_row_version(rri->ri_RelationDesc, tid, SnapshotAny,
									   slot))
		elog(ERROR, "failed to fetch conflicting tuple for ON CONFLICT");
	check_row_visible(estate, rri->ri_RelationDesc, slot);
	ExecClearTuple(slot);
}

/*
 * shard_report_serialization_failure
 *		Raise ERRCODE_T_R_SERIALIZATION_FAILURE if the isolation level forbids
 *		to go on after a concurrent "update" or "delete" of a row.
 */
void
shard_report_serialization_failure(const char *cause)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent %s",
						cause)));
}

/*
 * shard_fetch_conflicting_row
 *		Fetch the row that ON CONFLICT DO SELECT has found into "existing", a
 *		slot for the shard, without locking it.
 *
 * Returns false if it is no longer there.  Raises
 * ERRCODE_T_R_SERIALIZATION_FAILURE if the isolation level says so.
 */
bool
shard_fetch_conflicting_row(EState *estate, ResultRelInfo *rri,
							ItemPointer tid, TupleTableSlot *existing)
{
	if (!table_tuple_fetch_row_version(rri->ri_RelationDesc, tid, SnapshotAny,
									   existing))
		return false;
	check_row_visible(estate, rri->ri_RelationDesc, existing);
	return true;
}

/*
 * shard_lock_mode
 *		The lock on a row for FOR UPDATE and the like.
 */
LockTupleMode
shard_lock_mode(LockClauseStrength strength)
{
	switch (strength)
	{
		case LCS_FORKEYSHARE:
			return LockTupleKeyShare;
		case LCS_FORSHARE:
			return LockTupleShare;
		case LCS_FORNOKEYUPDATE:
			return LockTupleNoKeyExclusive;
		default:
			return LockTupleExclusive;
	}
}

/*
 * shard_lock_conflicting_row
 *		Lock the row that the command, ON CONFLICT DO UPDATE or DO SELECT, has
 *		found, and fetch it into "existing", a slot for the shard.
 *
 * Returns false if it is no longer there or no longer the newest version;
 * the caller has to look for a conflict again.  Raises
 * ERRCODE_CARDINALITY_VIOLATION if this command has written the row, and
 * ERRCODE_T_R_SERIALIZATION_FAILURE if the isolation level says so.
 */
bool
shard_lock_conflicting_row(EState *estate, ResultRelInfo *rri,
						   ItemPointer tid, LockTupleMode mode,
						   const char *command, TupleTableSlot *existing)
{
	Relation	rel = rri->ri_RelationDesc;
	TM_FailureData tmfd;
	TM_Result	result;
	Datum		xmin;
	bool		isnull;

	/* Newer versions are not followed: they may not conflict. */
	result = table_tuple_lock(rel, tid, estate->es_snapshot, existing,
							  estate->es_output_cid,
							  mode, LockWaitBlock, 0, &tmfd);
	switch (result)
	{
		case TM_Ok:
			check_row_visible(estate, rel, existing);
			return true;

		case TM_Invisible:
			xmin = slot_getsysattr(existing, MinTransactionIdAttributeNumber,
								   &isnull);
			if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
				ereport(ERROR,
						(errcode(ERRCODE_CARDINALITY_VIOLATION),
						 errmsg("%s command cannot affect row a second time",
								command),
						 errhint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values.")));
			elog(ERROR, "attempted to lock invisible tuple");
			break;

		case TM_Updated:
			shard_report_serialization_failure("update");
			break;

		case TM_Deleted:
			shard_report_serialization_failure("delete");
			break;

		default:
			elog(ERROR, "unexpected table_tuple_lock status: %u", result);
	}
	ExecClearTuple(existing);
	return false;
}

/*
 * shard_update_row
 *		Update a row of a shard that this transaction has locked: triggers,
 *		generated columns, constraints, indexes.
 *
 * "row" is the new version, in the shard's layout and materialized.  Returns
 * false if a trigger suppressed the update.  Raises what UPDATE raises.
 */
bool
shard_update_row(EState *estate, EPQState *epqstate, ResultRelInfo *rri,
				 ItemPointer tid, TupleTableSlot *row)
{
	Relation	rel = rri->ri_RelationDesc;
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	ShardUpdateIndexes update_indexes;
	TM_FailureData tmfd;
	TM_Result	result;
	LockTupleMode lockmode;
	List	   *recheck = NIL;

	if (rri->ri_TrigDesc != NULL && rri->ri_TrigDesc->trig_update_before_row &&
		!shard_fire_before_update(estate, epqstate, rri, tid, row, &tmfd))
		return false;

	row->tts_tableOid = RelationGetRelid(rel);
	if (constr != NULL && constr->has_generated_stored)
		ExecComputeStoredGenerated(rri, estate, row, CMD_UPDATE);
	ExecMaterializeSlot(row);
	if (constr != NULL)
		ExecConstraints(rri, row, estate);

	result = shard_tuple_update(rel, tid, row, estate, &tmfd, &lockmode,
								&update_indexes);
	if (result == TM_SelfModified && tmfd.cmax != estate->es_output_cid)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("tuple to be updated was already modified by an operation triggered by the current command"),
				 errhint("Consider using an AFTER trigger instead of a BEFORE trigger to propagate changes to other rows.")));
	if (result == TM_SelfModified)
		return false;
	if (result != TM_Ok)
		elog(ERROR, "unexpected table_tuple_update status: %u", result);

	if (rri->ri_NumIndices > 0)
		recheck = shard_update_index_tuples(rri, row, estate, update_indexes);
	ExecARUpdateTriggers(estate, rri, NULL, NULL, tid, NULL, row, recheck,
						 NULL, false);
	list_free(recheck);
	return true;
}
