/*-------------------------------------------------------------------------
 *
 * cursor.c
 *	  UPDATE and DELETE ... WHERE CURRENT OF a cursor.
 *
 * Core looks for the cursor's current row by asking each table of the
 * inheritance set for itself.  For a cursor without FOR UPDATE that means
 * finding the scan of the table in the cursor's plan, and it is an error if
 * there is none.  But a cursor's plan holds only those shards that its
 * conditions leave in.  The cursor cannot be on a row of the others, so they
 * are not asked: each shard gets a one-time filter that says whether the
 * cursor reads it.  When the statement is planned nobody knows the cursor.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"

PG_FUNCTION_INFO_V1(shard_cursor_reads);

/* What is being looked for in the plan of a cursor, and what was found. */
typedef struct CursorSearch
{
	Oid			shard;
	List	   *rtable;
	Index	   *parents;		/* of each member of an inheritance set */
	bool		is_scanned;		/* there is a scan of the shard */
	Index		parent;			/* one of whose other members is scanned, and
								 * that the shard is a member of, too; or 0 */
	bool		is_ambiguous;	/* there is another such parent */
} CursorSearch;

/*
 * Note what a scan of this entry of the range table says of the shard.
 */
static void
note_scan(CursorSearch *search, Relation rel, Index rti)
{
	Index		parent = search->parents[rti];
	Oid			shard_type;
	Oid			parent_type;

	search->is_scanned |= RelationGetRelid(rel) == search->shard;
	if (parent == 0 || parent == search->parent || search->is_ambiguous)
		return;
	shard_type = get_rel_type_id(search->shard);
	parent_type = get_rel_type_id(rt_fetch(parent, search->rtable)->relid);
	if (!OidIsValid(shard_type) || !OidIsValid(parent_type) ||
		!typeInheritsFrom(shard_type, parent_type))
		return;
	search->is_ambiguous = search->parent != 0;
	search->parent = parent;
}

/*
 * Look at the scans in the plan, going where core's search_plan_tree() goes.
 */
static void
search_plan(CursorSearch *search, PlanState *node)
{
	if (node == NULL)
		return;
	check_stack_depth();
	switch (nodeTag(node))
	{
		case T_SeqScanState:
		case T_SampleScanState:
		case T_IndexScanState:
		case T_IndexOnlyScanState:
		case T_BitmapHeapScanState:
		case T_TidScanState:
		case T_TidRangeScanState:
		case T_ForeignScanState:
		case T_CustomScanState:
			if (((ScanState *) node)->ss_currentRelation != NULL)
				note_scan(search, ((ScanState *) node)->ss_currentRelation,
						  ((Scan *) node->plan)->scanrelid);
			break;
		case T_AppendState:
			for (int i = 0; i < ((AppendState *) node)->as_nplans; i++)
				search_plan(search, ((AppendState *) node)->appendplans[i]);
			break;
		case T_ResultState:
		case T_LimitState:
			search_plan(search, outerPlanState(node));
			break;
		case T_SubqueryScanState:
			search_plan(search, ((SubqueryScanState *) node)->subplan);
			break;
		default:
			break;
	}
}

/*
 * shard_cursor_reads(cursor refcursor, shard regclass)
 *		SQL function cursor_reads(): may the current row of the cursor be one
 *		of the shard?
 *
 * Returns false if the cursor reads a table that the shard is a member of,
 * but does not read the shard.  Returns true in all other cases, also if
 * there is no such cursor, for then it is core that knows what to say.
 * Raises ERRCODE_INVALID_CURSOR_STATE where core would if the cursor read
 * all shards.
 */
Datum
shard_cursor_reads(PG_FUNCTION_ARGS)
{
	CursorSearch search = {0};
	char	   *name;
	Portal		portal;
	QueryDesc  *query;
	ListCell   *lc;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(true);
	name = TextDatumGetCString(PG_GETARG_DATUM(0));
	search.shard = PG_GETARG_OID(1);

	/* With FOR UPDATE, core finds the row by marks that all shards have. */
	portal = GetPortalByName(name);
	if (!PortalIsValid(portal) || portal->strategy != PORTAL_ONE_SELECT)
		PG_RETURN_BOOL(true);
	query = portal->queryDesc;
	if (query == NULL || query->estate == NULL ||
		query->estate->es_rowmarks != NULL)
		PG_RETURN_BOOL(true);

	search.rtable = query->plannedstmt->rtable;
	search.parents = palloc0(sizeof(Index) * (list_length(search.rtable) + 1));
	foreach(lc, query->plannedstmt->appendRelations)
	{
		AppendRelInfo *appinfo = lfirst_node(AppendRelInfo, lc);

		search.parents[appinfo->child_relid] = appinfo->parent_relid;
	}
	search_plan(&search, query->planstate);
	pfree(search.parents);

	/* The table is in the query twice; one can only tell which by the shard. */
	if (search.is_ambiguous)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_CURSOR_STATE),
				 errmsg("cursor \"%s\" is not a simply updatable scan of table \"%s\"",
						name, get_rel_name(search.shard))));
	if (search.is_scanned || search.parent == 0)
		PG_RETURN_BOOL(true);
	if (portal->atStart || portal->atEnd)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_CURSOR_STATE),
				 errmsg("cursor \"%s\" is not positioned on a row", name)));
	PG_RETURN_BOOL(false);
}

/*
 * A call of cursor_reads() for the cursor of a condition, or NULL if the
 * extension is not there.
 */
static Expr *
cursor_reads_clause(const CurrentOfExpr *current, Oid shard)
{
	Oid			types[] = {REFCURSOROID, REGCLASSOID};
	Oid			function = shard_function("cursor_reads", types,
										  lengthof(types));
	Node	   *cursor;

	if (!OidIsValid(function))
		return NULL;
	if (current->cursor_name != NULL)
		cursor = (Node *) makeConst(REFCURSOROID, -1, InvalidOid, -1,
									CStringGetTextDatum(current->cursor_name),
									false, false);
	else
	{
		Param	   *param = makeNode(Param);

		param->paramkind = PARAM_EXTERN;
		param->paramid = current->cursor_param;
		param->paramtype = REFCURSOROID;
		param->paramtypmod = -1;
		param->location = -1;
		cursor = (Node *) param;
	}
	return (Expr *)
		makeFuncExpr(function, BOOLOID,
					 list_make2(cursor,
								makeConst(REGCLASSOID, -1, InvalidOid,
										  sizeof(Oid), ObjectIdGetDatum(shard),
										  false, true)),
					 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * shard_gate_current_row
 *		After core has found ways to scan a relation: if it is a shard, of which
 *		a statement changes the current row of a cursor, add the one-time filter.
 *
 * Not earlier, for a shard may have been looked at before the logical table
 * is, and that may be left out altogether.
 */
void
shard_gate_current_row(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	ListCell   *lc;

	if (root->parse->resultRelation == 0 ||
		rel->reloptkind != RELOPT_OTHER_MEMBER_REL || IS_DUMMY_REL(rel))
		return;
	foreach(lc, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		Index		parent = root->append_rel_array[rel->relid]->parent_relid;
		Expr	   *clause;

		if (!IsA(rinfo->clause, CurrentOfExpr))
			continue;
		if (!shard_is_our_routine(find_base_rel(root, parent)->fdwroutine))
			return;
		clause = cursor_reads_clause((CurrentOfExpr *) rinfo->clause,
									 rte->relid);
		if (clause != NULL)
			shard_gate(root, rel, clause, rinfo->security_level);
		return;
	}
}
