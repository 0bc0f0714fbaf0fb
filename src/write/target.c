/*-------------------------------------------------------------------------
 *
 * target.c
 *	  The shards that a statement writes: locking and opening them.
 *
 * A shard is opened when its first row comes, and only what was opened is
 * closed; a statement of one row opens one shard.  The model is core's tuple
 * routing (execPartition.c): the shard's ResultRelInfo has the logical
 * table's as its root, so that messages show the row and the columns as the
 * user gave them, and permissions are those of the logical table.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"

/*
 * Raise an error if the table has turned to or from route "hash" since the
 * statement began, which ALTER SERVER can do at any time.  The statement
 * relies on its route for what it does not check again for each row.
 */
static void
check_route(const ShardInsert *insert)
{
	ShardRoute	route = insert->table->route;

	if (likely(route == insert->route) ||
		(route != SHARD_ROUTE_HASH && insert->route != SHARD_ROUTE_HASH))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("route of foreign table \"%s\" has changed",
					RelationGetRelationName(insert->root->ri_RelationDesc)),
			 errdetail("Its server was given route \"%s\" while a statement inserted by route \"%s\".",
					   shard_route_name(route), shard_route_name(insert->route)),
			 errhint("Repeat the statement.")));
}

/*
 * Lock the shard that a row goes to.  Returns its ordinal.
 *
 * Until the lock is held, others may detach, seal or drop the shard that was
 * chosen, or give it another place.  Every command that does so takes an
 * exclusive lock on the shard, and sends an invalidation before it releases the
 * lock.  So if no invalidation has arrived since we looked at the cache, the
 * shard is good, and stays so until the end of the transaction.  If one has
 * arrived, the shard is good if it is still open and, where the row decides,
 * still the one for the row.
 */
static int
lock_shard(ShardInsert *insert, TupleTableSlot *row, bool by_id)
{
	ShardTable *table = insert->table;
	bool		by_hash = insert->route == SHARD_ROUTE_HASH &&
		!OidIsValid(insert->pinned);

	for (;;)
	{
		uint64		seen = SharedInvalidMessageCounter;
		int			ordinal;
		Oid			shard;

		shard_table_get_open(table->relid);
		check_route(insert);
		if (insert->lane >= 0 && insert->generation == table->generation)
			ordinal = insert->lane;
		else
		{
			insert->lane = -1;
			ordinal = by_id ? shard_route_by_id(table, row) :
				shard_route(table, row, insert->pinned);
			shard_take_lane(table, ordinal);
		}
		shard = table->members[ordinal].relid;
		LockRelationOid(shard, RowExclusiveLock);
		if (likely(table->is_valid || seen == SharedInvalidMessageCounter))
			return ordinal;

		shard_table_get_open(table->relid);
		check_route(insert);
		ordinal = shard_table_find(table, shard);
		if (ordinal >= 0 && table->members[ordinal].is_open &&
			(!by_id || shard_route_by_id(table, row) == ordinal) &&
			(by_id || !by_hash ||
			 shard_route_peek(table, row, InvalidOid) == ordinal))
			return ordinal;
		UnlockRelationOid(shard, RowExclusiveLock);
	}
}

/*
 * The result relation that stands for the shard's root in messages and in the
 * AFTER triggers of core.
 *
 * Core and other FDWs look for the root's range table entry, and a logical
 * table that is a shard itself does not have one.
 */
static ResultRelInfo *
top_relation(const ShardInsert *insert)
{
	ResultRelInfo *root = insert->root;

	return root->ri_RootResultRelInfo ? root->ri_RootResultRelInfo : root;
}

/*
 * Open the relation of a shard that lock_shard() has locked.
 */
static void
open_relation(ShardInsert *insert, ShardTarget *target,
			  const ShardMember *member)
{
	target->relid = member->relid;
	target->sequence = member->sequence;
	target->owns_sequence = member->owns_sequence;
	target->stride = member->stride;
	target->id_slot = member->id_slot;
	target->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(target->rri, table_open(member->relid, NoLock), 0,
					  top_relation(insert), insert->estate->es_instrument);
	if (unlikely(insert->moves))
		target->rri->ri_TrigDesc =
			shard_internal_triggers(target->rri->ri_TrigDesc);
	target->is_logical = shard_is_our_routine(target->rri->ri_FdwRoutine);
	if (!member->is_local)
		shard_check_insert_target(target->rri);
}

/*
 * Find out how rows and columns of the logical table become those of the
 * shard, and back.
 */
static void
map_columns(ShardInsert *insert, ShardTarget *target, ShardMember *member)
{
	ResultRelInfo *root = insert->root;
	ResultRelInfo *top = top_relation(insert);
	Relation	shard = target->rri->ri_RelationDesc;
	const AttrMap *map = shard_member_map(member, insert->table,
										  root->ri_RelationDesc, shard);

	if (map != NULL)
	{
		target->map = make_attrmap(map->maplen);
		memcpy(target->map->attnums, map->attnums,
			   sizeof(AttrNumber) * map->maplen);
		target->back_map = shard_attrmap_by_name(RelationGetDescr(shard),
												 RelationGetDescr(root->ri_RelationDesc));
		target->slot = table_slot_create(shard, &insert->estate->es_tupleTable);
	}
	shard_set_root_map(target->rri, top->ri_RelationDesc,
					   top == root ? target->map :
					   shard_map_by_name(top->ri_RelationDesc, shard));
}

/*
 * Prepare the defaults of columns that only the shard has.
 */
static void
init_defaults(ShardTarget *target)
{
	Relation	shard = target->rri->ri_RelationDesc;
	TupleDesc	desc = RelationGetDescr(shard);

	target->default_attnos = palloc(sizeof(AttrNumber) * desc->natts);
	target->default_exprs = palloc(sizeof(ExprState *) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Node	   *expr;

		if (target->map->attnums[i] != 0 || att->attisdropped ||
			att->attgenerated)
			continue;
		expr = build_column_default(shard, i + 1);
		if (expr == NULL)
		{
			/* A domain may have something to say about nulls. */
			if (get_typtype(att->atttypid) != TYPTYPE_DOMAIN)
				continue;
			expr = coerce_to_domain((Node *) makeNullConst(getBaseType(att->atttypid),
														   -1, att->attcollation),
									InvalidOid, -1, att->atttypid,
									COERCION_IMPLICIT, COERCE_IMPLICIT_CAST,
									-1, false);
		}
		target->sees_rows |= shard_sees_rows(expr, NULL);
		target->default_attnos[target->ndefaults] = i + 1;
		target->default_exprs[target->ndefaults] =
			ExecInitExpr(expression_planner((Expr *) expr), NULL);
		target->ndefaults++;
	}
}

/*
 * Find out, at a statement's first row, who looks at rows after they have been
 * inserted.
 */
static void
find_readers(ShardInsert *insert)
{
	ResultRelInfo *root = insert->root;

	insert->has_after_trigger = root->ri_TrigDesc != NULL &&
		root->ri_TrigDesc->trig_insert_after_row;
	insert->wants_row = insert->has_after_trigger ||
		root->ri_projectReturning != NULL ||
		root->ri_WithCheckOptions != NIL ||
		root->ri_returningList != NIL;
}

/*
 * Tell the FDW of a shard that is a foreign table that rows will be inserted.
 */
static void
begin_foreign(ShardInsert *insert, ResultRelInfo *rri)
{
	FdwRoutine *routine = rri->ri_FdwRoutine;

	/* What is looked at is the row as the other server has stored it. */
	if (insert->wants_row)
		rri->ri_returningList =
			list_make1(makeTargetEntry((Expr *)
									   makeVar(top_relation(insert)->ri_RangeTableIndex,
											   InvalidAttrNumber,
											   rri->ri_RelationDesc->rd_rel->reltype,
											   -1, InvalidOid, 0),
									   1, NULL, false));
	if (routine->BeginForeignInsert != NULL)
		routine->BeginForeignInsert(insert->mtstate, rri);
	if (routine->GetForeignModifyBatchSize != NULL &&
		routine->ExecForeignBatchInsert != NULL)
		rri->ri_BatchSize = routine->GetForeignModifyBatchSize(rri);
}

/*
 * Skip the shard's CHECK constraints if its rows certainly meet all of them.
 *
 * Those that can be skipped say only what the cache knows of the shard's place
 * and of its ids; if the shard has any others, all are checked.  Rows of route
 * "hash" have a hash that the shard holds: the route has computed it from the
 * columns that the constraint names, and DO UPDATE does not change it.
 * fill_sequence() compares the ids that it draws with the shard's slot of ids.
 * This is true as long as nothing changes a row after it has been routed: no
 * trigger of the shard, no id that is part of the key, and no generated
 * column, which on PostgreSQL 15 the shard may have in place of an ordinary
 * one of the logical table.
 */
static void
skip_ensured_checks(ShardInsert *insert, ShardTarget *target,
					const ShardMember *member)
{
	ShardTable *table = insert->table;
	ResultRelInfo *rri = target->rri;
	TriggerDesc *triggers = rri->ri_TrigDesc;
	TupleConstr *constr = RelationGetDescr(rri->ri_RelationDesc)->constr;
	bool		by_hash = insert->route == SHARD_ROUTE_HASH &&
		!OidIsValid(insert->pinned) && table->key != NULL;
	int			nensured = 0;

	if (constr == NULL || constr->has_generated_stored ||
		(triggers != NULL && (triggers->trig_insert_before_row ||
							  triggers->trig_update_before_row)))
		return;

	for (int i = 0; by_hash && i < table->key->partnatts; i++)
		by_hash = table->key->partattrs[i] != table->seq_attno;
	if (by_hash)
		nensured += member->nplace_checks;
	if (table->seq_always && !insert->takes_ids &&
		insert->on_conflict != ONCONFLICT_UPDATE)
		nensured += member->n_id_slot_checks;
	if (nensured > 0 && nensured == constr->num_check)
		rri->shard_check_exprs = palloc0(sizeof(ExprState *) * nensured);
}

/*
 * Note what shard_check_row() has to do.
 *
 * It looks for nulls itself because rows may go to many shards in turn:
 * ExecConstraints() reads all of a shard's tuple descriptor to find out which
 * columns must not be null.
 */
static void
note_constraints(ShardTarget *target)
{
	ResultRelInfo *rri = target->rri;
	TupleDesc	desc = RelationGetDescr(rri->ri_RelationDesc);

	if (desc->constr == NULL)
		return;
	target->is_computed = desc->constr->has_generated_stored;
	/* The shards of a logical table inherit its constraints. */
	if (target->is_logical)
		return;
	/* As ExecConstraints() does, which complains if constraints are missing. */
	target->is_checked =
		rri->ri_RelationDesc->rd_rel->relchecks > 0 &&
		rri->shard_check_exprs == NULL;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attnotnull)
			continue;
		if (i < 64 && att->attgenerated == '\0')
			target->not_null |= UINT64CONST(1) << i;
		else
			target->is_checked = true;
	}
}

/*
 * Is a plan that of VALUES of one row?
 */
static bool
is_single_row(Plan *plan)
{
	return IsA(plan, Result) && outerPlan(plan) == NULL;
}

/*
 * shard_batch_size
 *		How many rows the statement writes to a shard at once, at most.
 *
 * It is 1 wherever batches could be noticed, and for a statement that inserts
 * one row, which would not gain anything from them.
 */
int
shard_batch_size(ShardInsert *insert)
{
	ResultRelInfo *root = insert->root;
	Plan	   *plan = insert->mtstate->ps.plan;

	if (!insert->may_batch || insert->on_conflict != ONCONFLICT_NONE)
		return 1;

	/* Core does these for each row after it has been inserted. */
	if (root->ri_projectReturning != NULL ||
		root->ri_WithCheckOptions != NIL ||
		(root->ri_TrigDesc != NULL &&
		 (root->ri_TrigDesc->trig_insert_before_row ||
		  root->ri_TrigDesc->trig_insert_after_row)))
		return 1;

	/* A trigger or constraint of a shard must see the rows before its own. */
	if (insert->table->sees_rows)
		return 1;

	/* If it is a shard of another logical table, that one collects rows. */
	if (root->ri_RangeTableIndex == 0)
		return 1;

	if (plan != NULL && is_single_row(outerPlan(plan)))
		return 1;

	return insert->table->batch_size;
}

/*
 * May rows wait to be written to the shard with others?  Not if that could be
 * noticed; see batch.c about AFTER triggers and COPY.
 */
static bool
can_batch(ShardInsert *insert, ShardTarget *target, const ShardMember *member)
{
	ResultRelInfo *rri = target->rri;

	return !target->is_logical && !member->sees_rows && !target->sees_rows &&
		!shard_generated_see_rows(rri->ri_RelationDesc, NULL) &&
		!shard_indexes_see_rows(rri) &&
		!(rri->ri_TrigDesc != NULL && rri->ri_TrigDesc->trig_insert_after_row &&
		  insert->is_copy && shard_copy_is_row_by_row);
}

/*
 * Raise an error if the shard is newer than the transaction's snapshot and the
 * transaction relies on what others have read or written in the shards in whose
 * place it is: PostgreSQL knows of that by the old shards.
 *
 * Under SERIALIZABLE, that is who has read what we write.  With ON CONFLICT, it
 * is whether a row is newer than the snapshot.
 */
static void
check_snapshot(const ShardInsert *insert, const ShardMember *member)
{
	if (!IsolationIsSerializable() &&
		(insert->on_conflict == ONCONFLICT_NONE || !IsolationUsesXactSnapshot()))
		return;
	if (shard_is_newer(member, GetTransactionSnapshot()))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not insert into foreign table \"%s\" because its shards have been replaced",
						get_rel_name(insert->table->relid)),
				 errdetail("The snapshot of the transaction is older than the shards."),
				 errhint("The transaction might succeed if retried.")));
}

/*
 * Open a shard that lock_shard() has locked.
 */
static ShardTarget *
open_target(ShardInsert *insert, int ordinal)
{
	EState	   *estate = insert->estate;
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);
	ShardTarget *target = palloc0(sizeof(ShardTarget));
	ShardMember member;
	ResultRelInfo *rri;

	check_snapshot(insert, &insert->table->members[ordinal]);
	if (!insert->table->members[ordinal].is_local)
		shard_note_node_use();
	if (unlikely(shard_has_single_node) &&
		!shard_is_logical(insert->table->members[ordinal].relid))
		shard_note_write(insert->table->members[ordinal].relid);
	open_relation(insert, target, &insert->table->members[ordinal]);
	map_columns(insert, target, &insert->table->members[ordinal]);
	rri = target->rri;

	/* Functions of the user's that run below may have the cache rebuilt. */
	member = insert->table->members[ordinal];
	if (insert->on_conflict != ONCONFLICT_NONE)
		shard_open_on_conflict(insert, target, ordinal);
	if (target->map != NULL)
		init_defaults(target);

	if (rri->ri_RelationDesc->rd_rel->relhasindex)
		ExecOpenIndices(rri, insert->on_conflict != ONCONFLICT_NONE);
	if (rri->ri_TrigDesc != NULL)
	{
		/* AFTER triggers look for the ResultRelInfo here. */
		estate->es_tuple_routing_result_relations =
			lappend(estate->es_tuple_routing_result_relations, rri);
	}
	if (insert->targets == NIL)
		find_readers(insert);
	if (rri->ri_FdwRoutine != NULL)
	{
		ShardRemoteCall call;

		shard_remote_begin(insert, target, &call);
		begin_foreign(insert, rri);
		shard_remote_end(&call);
	}
	rri->ri_BatchSize = Max(rri->ri_BatchSize, 1);

	skip_ensured_checks(insert, target, &member);
	note_constraints(target);
	target->can_batch = can_batch(insert, target, &member);
	insert->targets = lappend(insert->targets, target);

	MemoryContextSwitchTo(oldcontext);
	return target;
}

/*
 * The target for a shard, opened if this is its first row.
 */
static ShardTarget *
find_target(ShardInsert *insert, int ordinal)
{
	Oid			relid = insert->table->members[ordinal].relid;
	ListCell   *lc;

	foreach(lc, insert->targets)
	{
		ShardTarget *target = lfirst(lc);

		if (target->relid == relid)
			return target;
	}
	return open_target(insert, ordinal);
}

/*
 * shard_insert_target
 *		The shard that a row goes to, locked and open.
 *
 * "row" is in the layout of the logical table.  The result belongs to the
 * statement.  Raises what routing raises (see shard_route()) and what opening
 * a table raises.
 */
ShardTarget *
shard_insert_target(ShardInsert *insert, TupleTableSlot *row)
{
	ShardTable *table = insert->table;
	int			ordinal;

	/* A row that brings its id has to go where such ids are. */
	if (unlikely(table->seq_always) && insert->takes_ids &&
		insert->override != OVERRIDING_USER_VALUE &&
		insert->route != SHARD_ROUTE_HASH && !OidIsValid(insert->pinned) &&
		!slot_attisnull(row, table->seq_attno) &&
		!(insert->moves && !shard_has_open_slots(table)))
		return find_target(insert, lock_shard(insert, row, true));

	/* A session keeps its shard, at least until the end of the statement. */
	if (likely(insert->current != NULL))
		return insert->current;

	if (insert->route == SHARD_ROUTE_SESSION || OidIsValid(insert->pinned))
	{
		insert->current = find_target(insert,
									  lock_shard(insert, row, false));
		return insert->current;
	}

	/* Shards that are open are locked, and so they are still good. */
	if (likely(table->is_valid && insert->generation == table->generation))
	{
		ordinal = shard_route_peek(table, row, insert->pinned);
		if (likely(insert->by_ordinal[ordinal] != NULL))
		{
			shard_route_commit(table);
			return insert->by_ordinal[ordinal];
		}
	}

	ordinal = lock_shard(insert, row, false);
	/* Many statements have only one row, and no use for the array. */
	if (insert->targets == NIL)
		return find_target(insert, ordinal);
	if (insert->generation != table->generation)
	{
		insert->generation = table->generation;
		if (insert->by_ordinal != NULL)
			pfree(insert->by_ordinal);
		insert->by_ordinal =
			MemoryContextAllocZero(insert->estate->es_query_cxt,
								   sizeof(ShardTarget *) * table->nmembers);
	}
	insert->by_ordinal[ordinal] = find_target(insert, ordinal);
	return insert->by_ordinal[ordinal];
}
