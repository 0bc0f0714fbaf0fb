/*-------------------------------------------------------------------------
 *
 * remote_update.c
 *	  UPDATE of shards that are foreign tables.
 *
 * For PostgreSQL, constraints of a foreign table are a promise of the other
 * server, and an UPDATE does not check them.  But routing and planning rely on
 * those of a shard, and the other server may not have them.  So where an UPDATE
 * could break one, the new row is checked here as well.
 *
 * The check is planned like a WITH CHECK OPTION of a view: an expression over
 * the row as the other server has stored it.  Such an expression also keeps the
 * FDW from sending the UPDATE as a whole, without fetching the rows.  Where no
 * constraint is concerned, it can still do that.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

static create_upper_paths_hook_type prev_create_upper_paths_hook = NULL;

/*
 * Are the columns of a CHECK constraint among those that an UPDATE assigns to?
 * A constraint without columns concerns every row: it may be a seal.
 */
static bool
check_is_concerned(const ConstrCheck *check, const Bitmapset *assigned)
{
	Bitmapset  *attnos = NULL;
	int			i = -1;

	pull_varattnos(stringToNode(check->ccbin), 1, &attnos);
	if (bms_is_empty(attnos))
		return true;
	while ((i = bms_next_member(attnos, i)) >= 0)
	{
		AttrNumber	attno = i + FirstLowInvalidHeapAttributeNumber;

		if (attno == InvalidAttrNumber || bms_is_member(i, assigned))
			return true;
	}
	return false;
}

/*
 * Could an UPDATE break a constraint of the shard?
 *
 * "colnos" are the columns that it assigns to; those whose number in the list
 * is in "not_null" get a value that is not null.
 */
static bool
is_concerned(Relation shard, List *colnos, const Bitmapset *not_null)
{
	TupleDesc	desc = RelationGetDescr(shard);
	TriggerDesc *triggers = shard->trigdesc;
	Bitmapset  *assigned = NULL;
	ListCell   *lc;

	if (desc->constr == NULL)
		return false;

	/* Here, any column can change. */
	if (desc->constr->has_generated_stored || shard_has_virtual_columns(shard) ||
		(triggers != NULL && triggers->trig_update_before_row))
		return true;

	foreach(lc, colnos)
	{
		AttrNumber	attno = lfirst_int(lc);

		if (TupleDescAttr(desc, attno - 1)->attnotnull &&
			!bms_is_member(foreach_current_index(lc), not_null))
			return true;
		assigned = bms_add_member(assigned,
								  attno - FirstLowInvalidHeapAttributeNumber);
	}
	for (int i = 0; i < desc->constr->num_check; i++)
		if (check_is_concerned(&desc->constr->check[i], assigned))
			return true;
	return false;
}

/*
 * The positions of those expressions of an UPDATE's target list that are
 * constants, and not null.
 */
static Bitmapset *
constants(PlannerInfo *root)
{
	Bitmapset  *result = NULL;
	ListCell   *lc;

	foreach(lc, root->processed_tlist)
	{
		TargetEntry *column = lfirst_node(TargetEntry, lc);

		if (!column->resjunk && IsA(column->expr, Const) &&
			!((Const *) column->expr)->constisnull)
			result = bms_add_member(result, foreach_current_index(lc));
	}
	return result;
}

/*
 * A call of check_row() on the row of a result relation, as core wants
 * conditions of WITH CHECK OPTION.  NULL if the extension is not there.
 */
static WithCheckOption *
check_option(Index rti, Relation shard)
{
	Oid			record = RECORDOID;
	Oid			function = shard_function("check_row", &record, 1);
	WithCheckOption *result;
	Var		   *row;

	if (!OidIsValid(function))
		return NULL;
	row = makeVar(rti, InvalidAttrNumber, shard->rd_rel->reltype, -1,
				  InvalidOid, 0);
	result = makeNode(WithCheckOption);
	result->kind = WCO_VIEW_CHECK;
	result->relname = pstrdup(RelationGetRelationName(shard));
	result->qual = (Node *)
		list_make1(makeFuncExpr(function, BOOLOID, list_make1(row),
								InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL));
	return result;
}

/*
 * Have the new rows of foreign shards checked where that is called for.
 */
static void
add_checks(PlannerInfo *root, ModifyTablePath *path)
{
	Bitmapset  *not_null = constants(root);
	List	   *options = path->withCheckOptionLists;
	bool		has_new = false;
	ListCell   *lc;

	/* A list for each result relation. */
	options = options == NIL ? NIL : list_copy(options);
	while (list_length(options) < list_length(path->resultRelations))
		options = lappend(options, NIL);

	foreach(lc, path->resultRelations)
	{
		Index		rti = lfirst_int(lc);
		int			n = foreach_current_index(lc);
		RangeTblEntry *rte = planner_rt_fetch(rti, root);
		WithCheckOption *option;
		Relation	shard;

		if (rte->relkind != RELKIND_FOREIGN_TABLE ||
			shard_logical_parents(rte->relid) == NIL ||
			shard_is_logical(rte->relid))
			continue;
		shard = table_open(rte->relid, NoLock);
		option = is_concerned(shard, list_nth(path->updateColnosLists, n),
							  not_null) ? check_option(rti, shard) : NULL;
		table_close(shard, NoLock);
		if (option == NULL)
			continue;
		lfirst(list_nth_cell(options, n)) =
			lappend(list_copy(list_nth(options, n)), option);
		has_new = true;
	}
	if (has_new)
		path->withCheckOptionLists = options;
}

/*
 * After core has made the last paths of a query: see to UPDATE.
 */
static void
check_remote_updates(PlannerInfo *root, UpperRelationKind stage,
					 RelOptInfo *input_rel, RelOptInfo *output_rel,
					 void *extra)
{
	ListCell   *lc;

	if (prev_create_upper_paths_hook)
		prev_create_upper_paths_hook(root, stage, input_rel, output_rel, extra);

	if (stage != UPPERREL_FINAL || root->parse->commandType != CMD_UPDATE)
		return;
	foreach(lc, output_rel->pathlist)
	{
		if (IsA(lfirst(lc), ModifyTablePath))
			add_checks(root, lfirst(lc));
	}
}

/*
 * shard_remote_update_init
 *		Install the planner hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_remote_update_init(void)
{
	prev_create_upper_paths_hook = create_upper_paths_hook;
	create_upper_paths_hook = check_remote_updates;
}
