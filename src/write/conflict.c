/*-------------------------------------------------------------------------
 *
 * conflict.c
 *	  INSERT ... ON CONFLICT into a hash table.
 *
 * Rows with equal keys go to the same shard, so a unique index on every
 * shard whose columns include the key makes these unique in the whole table,
 * and one shard is enough to tell whether a row conflicts.
 *
 * Core's planner looks for an index that matches the conflict target on the
 * table that the query names, and a foreign table has none.  So the planner
 * hook takes the target out of the query and puts it where core does not look
 * at it.  Core plans and prepares the rest of the clause as for any table:
 * expressions, EXCLUDED, privileges, statement triggers.  If the library is
 * not loaded, core refuses the statement because there is no index.
 *
 * The executor asks core which of a shard's indexes match.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"

/* The indexes of so many conflict targets are remembered for a table. */
#define MAX_REMEMBERED	8

/* Which indexes detect the conflicts of an ON CONFLICT clause. */
typedef struct ShardConflict
{
	MemoryContext context;		/* holds all of it */
	List	   *target;			/* see shard_plan_on_conflict() */
	bool		is_complete;	/* all shards have such indexes */
	List	  **arbiters;		/* by ordinal; NIL: not found out yet */
} ShardConflict;

/*
 * As shard_check_route_for_conflict(), going by what is known of the table.
 */
static void
check_route_for_conflict(const ShardTable *table)
{
	if (table->route != SHARD_ROUTE_HASH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use ON CONFLICT on foreign table \"%s\"",
						get_rel_name(table->relid)),
				 errdetail("A row is checked against the one shard it goes to, so a conflicting row in another shard would not be seen."),
				 errhint("Insert without ON CONFLICT, insert into one shard, or use a table with route \"hash\".")));
	if (table->key == NULL)
		shard_report_bad_key(table);
	/* Without any shards, the route raises an error of its own. */
	if (table->bounds == NULL && table->nmembers > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot use ON CONFLICT on foreign table \"%s\"",
						get_rel_name(table->relid)),
				 errdetail("Not every shard has a validated constraint that gives it hashes of the key that no other shard has, so a conflicting row may be in another shard."),
				 errhint("Put the shards in order with SELECT shard_fdw.reshard(), or validate their constraints.")));
}

/*
 * shard_check_route_for_conflict
 *		Raise ERRCODE_FEATURE_NOT_SUPPORTED if the table's route cannot do ON
 *		CONFLICT, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if its shards are
 *		not placed for it, and what shard_key_create() raises for its key.
 *
 * Waits for somebody who is replacing shards.  So what is known of the table may
 * change.
 */
void
shard_check_route_for_conflict(const ShardTable *table)
{
	if (unlikely(table->key != NULL && table->bounds == NULL &&
				 table->nmembers > 0))
		table = shard_table_settle(table->relid);
	check_route_for_conflict(table);
}

/*
 * Raise ERRCODE_FEATURE_NOT_SUPPORTED unless the conflict target names all
 * columns of the key.
 */
static void
check_target_has_key(const ShardTable *table, List *arbiter_elems)
{
	for (int i = 0; i < table->key->partnatts; i++)
	{
		bool		found = false;
		ListCell   *lc;

		foreach(lc, arbiter_elems)
		{
			Node	   *expr = lfirst_node(InferenceElem, lc)->expr;

			found |= IsA(expr, Var) &&
				((Var *) expr)->varattno == table->key->partattrs[i];
		}
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("conflict target does not include column \"%s\" of the key of foreign table \"%s\"",
							get_attname(table->relid,
										table->key->partattrs[i], false),
							get_rel_name(table->relid)),
					 errdetail("Only rows with equal keys (%s) are sure to be in one shard, so a conflicting row in another shard would not be seen.",
							   shard_key_columns(table->key, table->relid)),
					 errhint("Name the columns of a unique index that includes the key.")));
	}
}

/*
 * Check one INSERT into a logical table and take its conflict target out.
 *
 * The target must survive the planner in a field of the Query, because core
 * copies the queries of CTEs.  The field for the condition of a partial index
 * survives, and core does not look for an index if there is only this
 * condition.  So all of the target becomes one expression in that field, which
 * core processes as it would have processed the parts.
 */
static void
hide_conflict_target(OnConflictExpr *on_conflict, ShardTable *table)
{
	RowExpr    *target;

	shard_check_route_for_conflict(table);
	if (OidIsValid(on_conflict->constraint))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use ON CONFLICT ON CONSTRAINT on foreign table \"%s\"",
						get_rel_name(table->relid)),
				 errdetail("Unique constraints belong to the shards."),
				 errhint("Name the columns: ON CONFLICT (...).")));
	if (on_conflict->arbiterElems == NIL)
		return;
	check_target_has_key(table, on_conflict->arbiterElems);

	target = makeNode(RowExpr);
	target->args = on_conflict->arbiterElems;
	if (on_conflict->arbiterWhere != NULL)
		target->args = lappend(target->args, on_conflict->arbiterWhere);
	target->row_typeid = RECORDOID;
	target->row_format = COERCE_EXPLICIT_CALL;
	target->location = -1;
	on_conflict->arbiterElems = NIL;
	on_conflict->arbiterWhere = (Node *) target;
}

/*
 * shard_prepare_on_conflict
 *		Prepare ON CONFLICT clauses on logical tables for core's planner, in
 *		the query and in its WITH clauses.  Changes the query.
 *
 * Raises ERRCODE_FEATURE_NOT_SUPPORTED for what cannot be done.
 */
void
shard_prepare_on_conflict(Query *query)
{
	ListCell   *lc;

	check_stack_depth();
	if (query->commandType == CMD_INSERT && query->onConflict != NULL)
	{
		Oid			relid = rt_fetch(query->resultRelation,
									 query->rtable)->relid;

		if (shard_is_logical(relid))
			hide_conflict_target(query->onConflict,
								 shard_table_get_open(relid));
	}
	/* INSERT can be nested in a CTE, but not in any other subquery. */
	foreach(lc, query->cteList)
	{
		Node	   *cte = lfirst_node(CommonTableExpr, lc)->ctequery;

		if (IsA(cte, Query))
			shard_prepare_on_conflict((Query *) cte);
	}
}

/*
 * Amend core's error about a target that no index matches.
 */
static void
name_shard(void *arg)
{
	Oid			shard = *(Oid *) arg;

	if (geterrcode() == ERRCODE_INVALID_COLUMN_REFERENCE)
	{
		errdetail("Shard \"%s\" has none.", get_rel_name(shard));
		errhint("Create a unique index on the columns of the conflict target on every shard.");
	}
}

/*
 * The indexes of a shard that match a conflict target, at least one.  The
 * shard is locked.
 */
static List *
infer_arbiters(const ShardTable *table, Relation logical, Relation shard,
			   List *target)
{
	PlannerInfo *root = makeNode(PlannerInfo);
	Query	   *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	Oid			relid = RelationGetRelid(shard);
	ErrorContextCallback callback;
	bool		has_whole_row;
	List	   *result = NIL;
	ListCell   *lc;

	target = (List *) map_variable_attnos((Node *) target, 1, 0,
										  shard_attrmap_by_name(RelationGetDescr(shard),
																RelationGetDescr(logical)),
										  InvalidOid, &has_whole_row);

	/* As much of a query as infer_arbiter_indexes() looks at. */
	rte->rtekind = RTE_RELATION;
	rte->relid = relid;
	rte->relkind = RELKIND_RELATION;
	rte->rellockmode = RowExclusiveLock;
	query->commandType = CMD_INSERT;
	query->rtable = list_make1(rte);
	query->resultRelation = 1;
	root->parse = query;
	root->glob = makeNode(PlannerGlobal);

	/*
	 * Expressions of indexes are simplified by what must not be null in the
	 * shard, which may be more columns than in the logical table.
	 */
	shard_note_not_null(root, shard);
	target = (List *) eval_const_expressions(root, (Node *) target);
	query->onConflict = makeNode(OnConflictExpr);
	query->onConflict->action = ONCONFLICT_NOTHING;
	query->onConflict->arbiterElems = linitial_node(List, target);
	query->onConflict->arbiterWhere = lsecond(target);

	callback.callback = name_shard;
	callback.arg = &relid;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	foreach(lc, infer_arbiter_indexes(root))
	{
		Relation	index = index_open(lfirst_oid(lc), NoLock);

		if (shard_key_in_index(table->key, table->relid, relid,
							   IndexRelationGetNumberOfKeyAttributes(index),
							   index->rd_index->indkey.values,
							   index->rd_opfamily, index->rd_opcintype,
							   index->rd_indcollation))
			result = lappend_oid(result, lfirst_oid(lc));
		index_close(index, NoLock);
	}
	if (result == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("there is no unique or exclusion constraint matching the ON CONFLICT specification")));
	error_context_stack = callback.previous;
	return result;
}

/*
 * What the table remembers about a conflict target.  Good until the next
 * call, or anything that might rebuild the entry.
 */
static ShardConflict *
find_conflict(ShardTable *table, List *target)
{
	ShardConflict *conflict;
	MemoryContext context;
	MemoryContext oldcontext;
	ListCell   *lc;

	foreach(lc, table->conflicts)
	{
		conflict = lfirst(lc);
		if (equal(conflict->target, target))
			return conflict;
	}

	if (list_length(table->conflicts) >= MAX_REMEMBERED)
	{
		MemoryContext oldest = ((ShardConflict *) linitial(table->conflicts))->context;

		table->conflicts = list_delete_first(table->conflicts);
		MemoryContextDelete(oldest);
	}
	context = AllocSetContextCreate(table->context, "shard_fdw conflict",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	conflict = palloc0(sizeof(ShardConflict));
	conflict->context = context;
	conflict->target = copyObject(target);
	conflict->arbiters = palloc0(sizeof(List *) * table->nmembers);
	MemoryContextSwitchTo(table->context);
	table->conflicts = lappend(table->conflicts, conflict);
	MemoryContextSwitchTo(oldcontext);
	return conflict;
}

/*
 * The indexes of a member that detect conflicts.  The member is locked.
 */
static List *
member_arbiters(ShardTable *table, int ordinal, Relation logical,
				Relation shard, List *target)
{
	uint64		generation = table->generation;
	List	   *arbiters = find_conflict(table, target)->arbiters[ordinal];

	if (arbiters != NIL)
		return arbiters;
	arbiters = infer_arbiters(table, logical, shard, target);
	/* Opening indexes may have brought news. */
	if (table->is_valid && table->generation == generation)
	{
		ShardConflict *conflict = find_conflict(table, target);
		MemoryContext oldcontext = MemoryContextSwitchTo(conflict->context);

		conflict->arbiters[ordinal] = list_copy(arbiters);
		MemoryContextSwitchTo(oldcontext);
	}
	return arbiters;
}

/*
 * Raise ERRCODE_FEATURE_NOT_SUPPORTED unless the member can look for a
 * conflict with a target.
 */
static void
check_is_local(const ShardTable *table, const ShardMember *member)
{
	if (!member->is_local)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use ON CONFLICT with a conflict target on foreign table \"%s\"",
						get_rel_name(table->relid)),
				 errdetail("Shard \"%s\" is a foreign table.",
						   get_rel_name(member->relid)),
				 errhint("ON CONFLICT DO NOTHING without a conflict target is possible.")));
}

/*
 * Raise an error unless each shard has an index for the conflict target.
 *
 * A statement uses only the indexes of the shards that its rows go to.  But
 * whether it fails should not depend on its rows.
 */
static void
check_all_arbiters(ShardTable *table, List *target)
{
	uint64		generation = table->generation;
	Relation	logical;

	if (find_conflict(table, target)->is_complete)
		return;

	logical = table_open(table->relid, NoLock);
	for (int i = 0; i < table->nmembers; i++)
	{
		ShardMember *member = &table->members[i];
		Relation	shard;

		if (member->modulus == 0)
			continue;
		check_is_local(table, member);
		shard = try_relation_open(member->relid, AccessShareLock);
		/* The catalogs change.  The executor looks at each shard again. */
		if (shard == NULL)
			break;
		if (table->generation != generation || !table->is_valid)
		{
			relation_close(shard, NoLock);
			break;
		}
		(void) member_arbiters(table, i, logical, shard, target);
		relation_close(shard, NoLock);
		if (table->generation != generation || !table->is_valid)
			break;
	}
	table_close(logical, NoLock);
	if (table->generation == generation && table->is_valid)
		find_conflict(table, target)->is_complete = true;
}

/*
 * shard_plan_on_conflict
 *		What the executor has to know about the ON CONFLICT clause of an INSERT
 *		into the logical table: the conflict target, or NIL if there is none.
 *
 * The target is a list of two lists, of InferenceElems and of conditions, whose
 * Vars name the table by number 1.
 *
 * Raises ERRCODE_FEATURE_NOT_SUPPORTED if the table cannot do it, and
 * ERRCODE_INVALID_COLUMN_REFERENCE if a shard has no index for it.
 */
List *
shard_plan_on_conflict(OnConflictExpr *on_conflict, Index result_relation,
					   Oid relid)
{
	ShardTable *table = shard_table_get(relid);
	List	   *elems = NIL;
	List	   *conditions = NIL;
	List	   *target;
	ListCell   *lc;

	shard_check_route_for_conflict(table);
	if (on_conflict->arbiterWhere == NULL)
		return NIL;

	/* The planner has made a list of the one condition that it saw. */
	foreach(lc, linitial_node(RowExpr, (List *) on_conflict->arbiterWhere)->args)
	{
		Node	   *node = copyObject(lfirst(lc));

		if (IsA(node, InferenceElem))
			elems = lappend(elems, node);
		else
			conditions = make_ands_implicit(canonicalize_qual((Expr *) node,
															  false));
	}
	target = list_make2(elems, conditions);
	if (result_relation != 1)
		ChangeVarNodes((Node *) target, result_relation, 1, 0);
	check_all_arbiters(table, target);
	return target;
}

/*
 * shard_open_on_conflict
 *		Prepare a shard that is being opened for ON CONFLICT.
 *
 * Raises what shard_plan_on_conflict() raises, and what UPDATE raises for
 * tables that it cannot update.
 */
void
shard_open_on_conflict(ShardInsert *insert, ShardTarget *target, int ordinal)
{
	ResultRelInfo *rri = target->rri;
	ResultRelInfo *root = insert->root;
	ModifyTable *plan = (ModifyTable *) insert->mtstate->ps.plan;
	PartitionKey key;

	/* The plan may be older than what is known now. */
	check_route_for_conflict(insert->table);
	if (insert->conflict_target != NIL)
	{
		check_is_local(insert->table, &insert->table->members[ordinal]);
		target->arbiters = list_copy(member_arbiters(insert->table, ordinal,
													 root->ri_RelationDesc,
													 rri->ri_RelationDesc,
													 insert->conflict_target));
	}
	if (insert->on_conflict == ONCONFLICT_NOTHING)
		return;

	if (insert->on_conflict == ONCONFLICT_UPDATE)
		CheckCmdReplicaIdentity(rri->ri_RelationDesc, CMD_UPDATE);
	if (insert->targets != NIL)
		return;

	/* The rest is done when the statement opens its first shard. */
	if (shard_returns_old(root))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot return old values from ON CONFLICT %s on foreign table \"%s\"",
						insert->on_conflict == ONCONFLICT_UPDATE ?
						"DO UPDATE" : "DO SELECT",
						RelationGetRelationName(root->ri_RelationDesc)),
				 errdetail("PostgreSQL asks a foreign table for the new row only.")));
	key = insert->table->key;
	for (int i = 0; i < key->partnatts; i++)
		insert->sets_key |= list_member_int(plan->onConflictCols,
											key->partattrs[i]);
}

/*
 * Raise ERRCODE_FEATURE_NOT_SUPPORTED if the new version of a row, in the
 * logical table's layout, has another key.
 */
static void
check_key_unchanged(ShardInsert *insert, TupleTableSlot *old,
					TupleTableSlot *new)
{
	PartitionKey key = insert->table->key;

	for (int i = 0; i < key->partnatts; i++)
	{
		AttrNumber	attno = key->partattrs[i];
		bool		old_isnull;
		bool		new_isnull;
		Datum		old_value = slot_getattr(old, attno, &old_isnull);
		Datum		new_value = slot_getattr(new, attno, &new_isnull);

		if (old_isnull == new_isnull &&
			(old_isnull ||
			 datum_image_eq(old_value, new_value, key->parttypbyval[i],
							key->parttyplen[i]) ||
			 shard_key_values_equal(key, i, old_value, new_value)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change the key of foreign table \"%s\" in ON CONFLICT DO UPDATE",
						RelationGetRelationName(insert->root->ri_RelationDesc)),
				 errdetail("The value of column \"%s\" would change, and with it the row's shard.",
						   get_attname(insert->table->relid, attno, false)),
				 errhint("Delete the row and insert a new one.")));
	}
}

/*
 * Show the clause's expressions the row that was there and the one that
 * conflicts with it, both in the shard's layout, and return whether its WHERE
 * condition is true for them.
 */
static bool
is_existing_wanted(ShardInsert *insert, ShardTarget *target,
				   TupleTableSlot *row)
{
	ShardOnConflict *set = insert->root->ri_onConflict;
	ExprContext *econtext = insert->mtstate->ps.ps_ExprContext;
	TupleTableSlot *existing = target->existing;

	econtext->ecxt_scantuple = existing;
	econtext->ecxt_innertuple = row;
	econtext->ecxt_outertuple = NULL;
	if (target->map != NULL)
	{
		econtext->ecxt_scantuple = execute_attr_map_slot(target->back_map,
														 existing,
														 set->oc_Existing);
		set->oc_Existing->tts_tableOid = existing->tts_tableOid;
		shard_copy_header(set->oc_Existing, existing);
		econtext->ecxt_innertuple = execute_attr_map_slot(target->back_map,
														  row,
														  insert->excluded);
	}

	if (ExecQual(set->oc_WhereClause, econtext))
		return true;
	InstrCountFiltered1(&insert->mtstate->ps, 1);
	return false;
}

/*
 * Forget what is_existing_wanted() has shown: the next row may conflict with
 * none.
 */
static void
clear_shown(ShardInsert *insert, ShardTarget *target)
{
	if (target->map == NULL)
		return;
	ExecClearTuple(insert->root->ri_onConflict->oc_Existing);
	ExecClearTuple(insert->excluded);
}

/*
 * Update the row that conflicts with "row", both in the shard's layout, as DO
 * UPDATE says.  The one that was there is locked and in target->existing.
 * Returns its new version, or NULL if there is none.
 */
static TupleTableSlot *
update_existing(ShardInsert *insert, ShardTarget *target, TupleTableSlot *row,
				ItemPointer tid)
{
	ExprContext *econtext = insert->mtstate->ps.ps_ExprContext;
	TupleTableSlot *existing = target->existing;
	TupleTableSlot *result = NULL;

	if (is_existing_wanted(insert, target, row))
	{
		result = ExecProject(insert->root->ri_onConflict->oc_ProjInfo);
		if (insert->sets_key)
			check_key_unchanged(insert, econtext->ecxt_scantuple, result);

		if (target->map != NULL)
		{
			TupleTableSlot *set_slot = result;

			/* Columns that only the shard has keep their values. */
			result = ExecClearTuple(target->updated);
			slot_getallattrs(existing);
			slot_getallattrs(set_slot);
			for (int i = 0; i < target->map->maplen; i++)
			{
				int			from = target->map->attnums[i] - 1;
				TupleTableSlot *source = from >= 0 ? set_slot : existing;

				if (from < 0)
					from = i;
				result->tts_values[i] = source->tts_values[from];
				result->tts_isnull[i] = source->tts_isnull[from] ||
					TupleDescAttr(result->tts_tupleDescriptor, i)->attisdropped;
			}
			ExecStoreVirtualTuple(result);
		}
		ExecMaterializeSlot(result);
		if (!shard_update_row(insert->estate, &insert->mtstate->mt_epqstate,
							  target->rri, tid, result))
			result = NULL;
	}

	ExecClearTuple(existing);
	clear_shown(insert, target);
	return result;
}

/*
 * The row that conflicts with "row", if DO SELECT wants it, else NULL.  It is
 * in target->existing.
 */
static TupleTableSlot *
select_existing(ShardInsert *insert, ShardTarget *target, TupleTableSlot *row)
{
	TupleTableSlot *result = target->existing;

	if (!is_existing_wanted(insert, target, row))
	{
		ExecClearTuple(target->existing);
		result = NULL;
	}
	clear_shown(insert, target);
	return result;
}

/*
 * Fetch the row that was found into target->existing, and lock it as the
 * clause says.  Returns false if it is no longer there.
 */
static bool
fetch_existing(ShardInsert *insert, ShardTarget *target, ItemPointer tid)
{
	EState	   *estate = insert->estate;
	LockClauseStrength strength;

	if (!shard_on_conflict_selects(insert->on_conflict))
		return shard_lock_conflicting_row(estate, target->rri, tid,
										  ExecUpdateLockMode(estate, target->rri),
										  "ON CONFLICT DO UPDATE",
										  target->existing);
	strength = shard_lock_strength(insert->root->ri_onConflict);
	if (strength == LCS_NONE)
		return shard_fetch_conflicting_row(estate, target->rri, tid,
										   target->existing);
	return shard_lock_conflicting_row(estate, target->rri, tid,
									  shard_lock_mode(strength),
									  "ON CONFLICT DO SELECT",
									  target->existing);
}

/*
 * Make the slots that DO UPDATE and DO SELECT need for a shard, at its first
 * conflict.
 */
static void
make_slots(ShardInsert *insert, ShardTarget *target)
{
	EState	   *estate = insert->estate;
	Relation	shard = target->rri->ri_RelationDesc;
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);

	target->existing = table_slot_create(shard, &estate->es_tupleTable);
	if (target->map != NULL)
	{
		target->updated = table_slot_create(shard, &estate->es_tupleTable);
		if (insert->excluded == NULL)
			insert->excluded = table_slot_create(insert->root->ri_RelationDesc,
												 &estate->es_tupleTable);
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * shard_insert_on_conflict
 *		Insert a row unless it conflicts with another, as ExecInsert() does it
 *		for ON CONFLICT; then do nothing, or update or return the other.
 *
 * "row" is in the shard's layout and has been checked.  Returns
 * - "row" if it was inserted, and sets *recheck,
 * - the row that DO SELECT returns, or the new version of the row that DO UPDATE
 *	 has updated, triggers included; it is in the shard's layout and good until
 *	 the next call,
 * - or NULL.
 * Raises what INSERT and UPDATE raise, and ERRCODE_CARDINALITY_VIOLATION for a
 * second update of the same row.
 */
TupleTableSlot *
shard_insert_on_conflict(ShardInsert *insert, ShardTarget *target,
						 TupleTableSlot *row, List **recheck)
{
	EState	   *estate = insert->estate;
	ResultRelInfo *rri = target->rri;
	Relation	rel = rri->ri_RelationDesc;

	for (;;)
	{
		ItemPointerData tid;
		uint32		token;
		bool		conflict = false;

		CHECK_FOR_INTERRUPTS();
		if (!shard_check_index_constraints(rri, row, estate, &tid,
										   target->arbiters))
		{
			TupleTableSlot *result = NULL;

			if (insert->on_conflict == ONCONFLICT_NOTHING)
				shard_check_tid_visible(estate, rri, &tid);
			else
			{
				if (target->existing == NULL)
					make_slots(insert, target);
				/* It may be gone by now, and so may the conflict. */
				if (!fetch_existing(insert, target, &tid))
					continue;
				result = shard_on_conflict_selects(insert->on_conflict) ?
					select_existing(insert, target, row) :
					update_existing(insert, target, row, &tid);
			}
			InstrCountTuples2(&insert->mtstate->ps, 1);
			return result;
		}

		/*
		 * Others that find our row wait for this lock, not for the end of our
		 * transaction: we may yet find that they were first.
		 */
		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(rel, row, insert->cid, 0, NULL, token);
		*recheck = shard_insert_index_tuples(rri, row, estate, &conflict,
											 target->arbiters);
		table_tuple_complete_speculative(rel, row, token, !conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		if (!conflict)
			return row;
		list_free(*recheck);
		*recheck = NIL;
	}
}
