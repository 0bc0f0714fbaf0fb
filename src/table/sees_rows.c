/*-------------------------------------------------------------------------
 *
 * sees_rows.c
 *	  Could a function see the rows that a statement has inserted so far?
 *
 * A volatile function sees what the command that calls it has written.  Other
 * functions see what was there when the command began.  If a statement calls a
 * volatile function, rows must not wait to be written with others.
 *
 * Functions are called by name, by operators, aggregates and defaults of
 * other functions' arguments, and by the types of values: a domain's CHECK
 * constraints run wherever a value of the domain is made, also as part of a
 * composite value, an array or a range, and json functions call casts.  So a
 * type is looked at wherever it occurs in an expression.
 *
 * We believe what a function is declared to be, as PostgreSQL does.  The
 * functions of operator classes, which sort, group and index, are not looked at
 * because they have to be immutable.
 *
 * The answer depends on functions and types that plans and cache entries do
 * not depend on otherwise.  They are returned as core notes such things for a
 * plan, in PlanInvalItems.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* A search for something that sees rows. */
typedef struct Search
{
	List	  **depends;		/* PlanInvalItems are added here, if not NULL */
	bool		types_only;		/* functions count only if a type calls them */
	List	   *functions;		/* users' functions that have been looked at */
	List	   *types;			/* ... and types */
} Search;

static bool contains_seeing_function(Node *node, void *context);
static bool function_sees_rows(Oid funcid, void *context);
static bool type_sees_rows(Oid type, Search *search);

/*
 * Note that the result of the search depends on a function or a type.
 */
static void
depend_on(Search *search, int cache, Oid oid)
{
	PlanInvalItem *item;

	if (search->depends == NULL)
		return;
	item = makeNode(PlanInvalItem);
	item->cacheId = cache;
	item->hashValue = GetSysCacheHashValue1(cache, ObjectIdGetDatum(oid));
	*search->depends = lappend(*search->depends, item);
}

/*
 * Does one of the functions that an aggregate consists of see rows?  The
 * aggregate itself always counts as immutable.
 */
static bool
aggregate_sees_rows(Oid aggregate, Search *search)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	FormData_pg_aggregate agg;

	if (!HeapTupleIsValid(tuple))
		return true;
	agg = *(Form_pg_aggregate) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);
	return function_sees_rows(agg.aggtransfn, search) ||
		function_sees_rows(agg.aggfinalfn, search) ||
		function_sees_rows(agg.aggcombinefn, search) ||
		function_sees_rows(agg.aggserialfn, search) ||
		function_sees_rows(agg.aggdeserialfn, search) ||
		function_sees_rows(agg.aggmtransfn, search) ||
		function_sees_rows(agg.aggminvtransfn, search) ||
		function_sees_rows(agg.aggmfinalfn, search) ||
		type_sees_rows(agg.aggtranstype, search);
}

/*
 * Could the function, if it is one, see rows that the running statement has
 * inserted?
 *
 * Only a volatile one can, since only it gets a new snapshot.  Of those,
 * built-in functions that parallel plans may call read no table either:
 * random(), clock_timestamp(), gen_random_uuid().  nextval() does not read
 * any table of the user's.
 */
static bool
function_sees_rows(Oid funcid, void *context)
{
	Search	   *search = context;
	HeapTuple	tuple;
	Form_pg_proc proc;
	bool		result;

	if (!OidIsValid(funcid) || funcid == F_NEXTVAL)
		return false;
	if (funcid >= FirstNormalObjectId)
	{
		if (list_member_oid(search->functions, funcid))
			return false;
		search->functions = lappend_oid(search->functions, funcid);
		depend_on(search, PROCOID, funcid);
	}

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	/* It has just been dropped, and calling it will raise an error. */
	if (!HeapTupleIsValid(tuple))
		return true;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind == PROKIND_AGGREGATE)
		result = aggregate_sees_rows(funcid, search);
	else
		result = !search->types_only &&
			proc->provolatile == PROVOLATILE_VOLATILE &&
			(proc->prolang != INTERNALlanguageId ||
			 proc->proparallel == PROPARALLEL_UNSAFE);

	/* The planner adds the arguments that a call leaves out later. */
	if (!result && proc->pronargdefaults > 0 &&
		funcid >= FirstNormalObjectId)
	{
		bool		isnull;
		Datum		defaults = SysCacheGetAttr(PROCOID, tuple,
											   Anum_pg_proc_proargdefaults,
											   &isnull);

		result = !isnull &&
			contains_seeing_function(stringToNode(TextDatumGetCString(defaults)),
									 search);
	}
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Does a CHECK constraint of the domain itself see rows?
 */
static bool
domain_sees_rows(Oid domain, Search *search)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(domain));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintTypidIndexId, true,
							  NULL, 1, &key);
	while (!result && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
									   RelationGetDescr(catalog), &isnull);

		result = !isnull &&
			contains_seeing_function(stringToNode(TextDatumGetCString(bin)),
									 search);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Does one of the columns of a row type see rows?  Takes no lock on the
 * relation, as the type cache would.
 */
static bool
columns_see_rows(Oid relid, Search *search)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	AttrNumber	natts = 0;
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	for (AttrNumber attno = 1; attno <= natts && !result; attno++)
		result = type_sees_rows(get_atttype(relid, attno), search);
	return result;
}

/*
 * Could making a value of the type, or turning one into text or json, call
 * a function that sees rows?
 */
static bool
type_sees_rows(Oid type, Search *search)
{
	bool		types_only = search->types_only;
	List	   *functions = search->functions;
	HeapTuple	tuple;
	FormData_pg_type form;
	bool		result;

	/* Built-in types call built-in functions. */
	if (likely(type < FirstNormalObjectId) ||
		list_member_oid(search->types, type))
		return false;
	check_stack_depth();
	search->types = lappend_oid(search->types, type);
	depend_on(search, TYPEOID, type);

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return true;
	form = *(Form_pg_type) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);

	/* Functions that did not count so far have not really been looked at. */
	if (search->types_only)
		search->functions = NIL;
	search->types_only = false;
	result = function_sees_rows(form.typinput, search) ||
		function_sees_rows(form.typoutput, search) ||
		function_sees_rows(form.typreceive, search) ||
		function_sees_rows(GetSysCacheOid2(CASTSOURCETARGET,
										   Anum_pg_cast_castfunc,
										   ObjectIdGetDatum(type),
										   ObjectIdGetDatum(JSONOID)),
						   search);
	if (!result && form.typtype == TYPTYPE_DOMAIN)
		result = domain_sees_rows(type, search) ||
			type_sees_rows(form.typbasetype, search);
	else if (!result && form.typtype == TYPTYPE_COMPOSITE)
		result = columns_see_rows(form.typrelid, search);
	else if (!result && form.typtype == TYPTYPE_RANGE)
		result = type_sees_rows(get_range_subtype(type), search);
	else if (!result && form.typtype == TYPTYPE_MULTIRANGE)
		result = type_sees_rows(get_multirange_range(type), search);
	else if (!result)
		result = type_sees_rows(form.typelem, search);
	search->types_only = types_only;
	search->functions = functions;
	return result;
}

/*
 * Do types that the node makes or uses values of see rows?
 */
static bool
node_types_see_rows(Node *node, Search *search)
{
	List	   *types = NIL;
	ListCell   *lc;

	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Param:
		case T_Aggref:
		case T_WindowFunc:
		case T_SubscriptingRef:
		case T_FuncExpr:
		case T_OpExpr:
		case T_FieldSelect:
		case T_FieldStore:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_CoerceToDomain:
			return type_sees_rows(exprType(node), search);
		case T_RangeTblFunction:
			types = ((RangeTblFunction *) node)->funccoltypes;
			break;
		case T_TableFunc:
			types = ((TableFunc *) node)->coltypes;
			break;
		default:
			return shard_is_json_expr(node) &&
				type_sees_rows(exprType(node), search);
	}
	foreach(lc, types)
	{
		if (type_sees_rows(lfirst_oid(lc), search))
			return true;
	}
	return false;
}

/*
 * Does an expression or a query contain something that sees rows?  "context" is
 * a Search.
 */
static bool
contains_seeing_function(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if (node_types_see_rows(node, search))
		return true;
	/* Long lists of VALUES consist of these. */
	if (IsA(node, Const) || IsA(node, Param))
		return false;
	if (check_functions_in_node(node, function_sees_rows, search))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, contains_seeing_function,
								 search, 0);
	return expression_tree_walker(node, contains_seeing_function, search);
}

/*
 * shard_sees_rows
 *		Is there something in the expression or query that could see rows
 *		inserted by the statement that evaluates it?
 *
 * What the answer depends on, besides the expression, is added to *depends,
 * in the current memory context, unless that is NULL.
 */
bool
shard_sees_rows(Node *node, List **depends)
{
	Search		search = {.depends = depends};

	return contains_seeing_function(node, &search);
}

/*
 * shard_trigger_sees_rows
 *		Does the relation have a row trigger that could see the rows which the
 *		insert that fires it has written before?
 *
 * A BEFORE trigger is called for each row in turn.  AFTER triggers are called
 * at the end, but their conditions are evaluated for each row.  See
 * shard_sees_rows() about "depends".
 */
bool
shard_trigger_sees_rows(Oid relid, List **depends)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(TriggerRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true,
							  NULL, 1, &key);

	while (!result && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		Datum		condition;
		bool		isnull;

		if (trigger->tgenabled == TRIGGER_DISABLED ||
			!TRIGGER_FOR_ROW(trigger->tgtype) ||
			!TRIGGER_FOR_INSERT(trigger->tgtype))
			continue;
		condition = heap_getattr(tuple, Anum_pg_trigger_tgqual,
								 RelationGetDescr(catalog), &isnull);
		result = TRIGGER_FOR_BEFORE(trigger->tgtype) ||
			(!isnull &&
			 shard_sees_rows(stringToNode(TextDatumGetCString(condition)),
							 depends));
	}

	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/*
 * Does a generation expression of the table see rows?
 */
static bool
generated_see_rows(Relation rel, Search *search)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (desc->constr == NULL || !desc->constr->has_generated_stored)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attgenerated == ATTRIBUTE_GENERATED_STORED &&
			contains_seeing_function(build_column_default(rel, i + 1), search))
			return true;
	}
	return false;
}

/*
 * shard_generated_see_rows
 *		Is there something in the stored generated columns of a table that
 *		could see rows?
 *
 * See shard_sees_rows() about "depends".
 */
bool
shard_generated_see_rows(Relation rel, List **depends)
{
	Search		search = {.depends = depends};

	return generated_see_rows(rel, &search);
}

/*
 * shard_copy_sees_rows
 *		Is there something that COPY evaluates for each row of the table that
 *		could see rows, besides the functions in defaults and in WHERE?
 *
 * Core looks for these, because it knows the columns of the COPY.
 */
bool
shard_copy_sees_rows(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Search		search = {.types_only = true};

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped &&
			(type_sees_rows(att->atttypid, &search) ||
			 (att->atthasdef && !att->attgenerated &&
			  contains_seeing_function(build_column_default(rel, i + 1),
									   &search))))
			return true;
	}
	return shard_generated_see_rows(rel, NULL);
}

/*
 * shard_indexes_see_rows
 *		Is there something in the indexes of an open relation that could see
 *		rows?
 *
 * Functions in indexes are immutable, but a domain may call others.
 */
bool
shard_indexes_see_rows(ResultRelInfo *rri)
{
	Search		search = {0};

	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		IndexInfo  *info = rri->ri_IndexRelationInfo[i];

		if (contains_seeing_function((Node *) info->ii_Expressions, &search) ||
			contains_seeing_function((Node *) info->ii_Predicate, &search))
			return true;
	}
	return false;
}
