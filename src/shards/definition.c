/*-------------------------------------------------------------------------
 *
 * definition.c
 *	  What check_shards(), view stat_shards and convert_table() ask for beyond
 *	  the catalogs: the text of expressions, what CHECK constraints are for, what
 *	  places they give to shards, and what queries do to a table.
 *
 * Core's functions that show an expression, such as pg_get_expr(), lock the
 * table whose columns are in it, and so wait while somebody alters it.  Here
 * no table is locked, and nothing is evaluated.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

PG_FUNCTION_INFO_V1(shard_expression_of);
PG_FUNCTION_INFO_V1(shard_check_kind_of);
PG_FUNCTION_INFO_V1(shard_place_of);
PG_FUNCTION_INFO_V1(shard_unfit_clause);

/* What stands for the name of the table, quoted, in the text of an expression. */
#define TABLE_MARK	'\004'

/* The two rows that columns in a trigger's condition belong to. */
#define OLD_VARNO	1

/*
 * Mutator that puts a parameter in place of each column, and appends the
 * column to the list.  Parameters are numbered from 1.
 */
static Node *
columns_to_params(Node *node, List **columns)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		Param	   *param = makeNode(Param);

		*columns = lappend(*columns, var);
		param->paramkind = PARAM_EXTERN;
		param->paramid = list_length(*columns);
		param->paramtype = var->vartype;
		param->paramtypmod = var->vartypmod;
		param->paramcollid = var->varcollid;
		param->location = -1;
		return (Node *) param;
	}
	return expression_tree_mutator(node, columns_to_params, columns);
}

/*
 * Append the name of a column.  Returns false if it is gone.
 */
static bool
append_column(StringInfo buf, const Var *var, Oid relid, bool is_trigger)
{
	char	   *name;

	if (is_trigger)
		appendStringInfoString(buf, var->varno == OLD_VARNO ? "old." : "new.");
	if (var->varattno == 0)
	{
		if (!is_trigger)
			appendStringInfo(buf, "%c.", TABLE_MARK);
		appendStringInfoChar(buf, '*');
		return true;
	}
	name = get_attname(relid, var->varattno, true);
	if (name != NULL)
		appendStringInfoString(buf, quote_identifier(name));
	return name != NULL;
}

/*
 * The text of an expression with the names of columns in place of parameters,
 * or NULL if a column is gone.
 */
static char *
put_columns(const char *next, List *columns, Oid relid, bool is_trigger)
{
	StringInfoData buf;
	char		quote = '\0';

	initStringInfo(&buf);
	while (*next != '\0')
	{
		/* A quote within quotes is doubled. */
		if (quote != '\0')
			quote = *next == quote ? '\0' : quote;
		else if (*next == '\'' || *next == '"')
			quote = *next;
		else if (*next == '$' && isdigit((unsigned char) next[1]))
		{
			char	   *end;
			long		n = strtol(next + 1, &end, 10);

			if (n < 1 || n > list_length(columns) ||
				!append_column(&buf, list_nth(columns, n - 1), relid,
							   is_trigger))
				return NULL;
			next = end;
			continue;
		}
		appendStringInfoChar(&buf, *next++);
	}
	return buf.data;
}

/*
 * shard_expression_of(expression pg_node_tree, tbl oid, n int)
 *		SQL function expression_of(): the text of an expression that the
 *		catalogs have of a table, or the n-th one of a list of them; if n is 0,
 *		that of the condition of a trigger.  Null if it cannot be known.
 *
 * Strict.  The character 4 stands for the name of the table.
 */
Datum
shard_expression_of(PG_FUNCTION_ARGS)
{
	Node	   *node = stringToNode(TextDatumGetCString(PG_GETARG_DATUM(0)));
	Oid			relid = PG_GETARG_OID(1);
	int			n = PG_GETARG_INT32(2);
	List	   *columns = NIL;
	char	   *result;

	if (IsA(node, List))
	{
		if (n < 1 || n > list_length((List *) node))
			PG_RETURN_NULL();
		node = list_nth((List *) node, n - 1);
	}
	node = columns_to_params(node, &columns);
	result = put_columns(deparse_expression(node, NIL, false, false), columns,
						 relid, n == 0);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

/*
 * shard_check_kind_of(expression pg_node_tree, constraint_name name)
 *		SQL function check_kind(): whether a CHECK constraint is a "seal", a
 *		"place" or a "range" of a shard; null if none of them.
 *
 * Strict.
 */
Datum
shard_check_kind_of(PG_FUNCTION_ARGS)
{
	const char *kind = shard_check_kind(PG_GETARG_DATUM(0),
										NameStr(*PG_GETARG_NAME(1)));

	if (kind == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(kind));
}

/*
 * shard_place_of(logical regclass, options text[], shard regclass)
 *		SQL function place_of(): which hashes and ids a shard holds by its CHECK
 *		constraints, and the sequence that its ids come from.
 *
 * Strict.  The options are those of pg_foreign_table.  What is not known is
 * null.
 */
Datum
shard_place_of(PG_FUNCTION_ARGS)
{
	Oid			logical = PG_GETARG_OID(0);
	Oid			shard = PG_GETARG_OID(2);
	ShardMember member = {0};
	TupleDesc	desc;
	Datum		values[6] = {0};
	bool		isnull[6] = {0};
	AttrNumber	attno;
	bool		always;
	char	   *column;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	shard_find_placement(shard, logical, PG_GETARG_DATUM(1), &member);
	attno = shard_sequence_column(logical, true, &always);
	column = attno == 0 ? NULL : get_attname(logical, attno, true);
	if (column != NULL)
		member.sequence = shard_default_sequence(shard, column);

	values[0] = Int32GetDatum(member.modulus);
	values[1] = Int32GetDatum(member.remainder);
	isnull[0] = isnull[1] = member.modulus == 0;
	values[2] = Int32GetDatum(member.stride);
	values[3] = Int32GetDatum(member.id_slot);
	isnull[2] = isnull[3] = member.stride == 0;
	isnull[4] = column == NULL;
	if (column != NULL)
		values[4] = CStringGetTextDatum(column);
	values[5] = ObjectIdGetDatum(member.sequence);
	isnull[5] = !OidIsValid(member.sequence);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* What find_unfit_clause() looks for. */
typedef struct UnfitClause
{
	Oid			relid;
	bool		is_partitioned;
	const char *found;
} UnfitClause;

/*
 * Walker that finds a clause which a logical table in the place of the table does
 * not allow, or which would be another one there.
 */
static bool
find_unfit_clause(Node *node, UnfitClause *clause)
{
	Query	   *query = (Query *) node;
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, find_unfit_clause, clause);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		bool		is_target = foreach_current_index(lc) + 1 == query->resultRelation;

		/* EXCLUDED of ON CONFLICT only has the columns of the table. */
		if (rte->rtekind != RTE_RELATION || rte->relid != clause->relid ||
			rte->relkind == RELKIND_COMPOSITE_TYPE)
			continue;
		if (rte->tablesample != NULL)
			clause->found = "TABLESAMPLE";
		else if (is_target && query->commandType == CMD_MERGE)
			clause->found = "MERGE";
		else if (!rte->inh && !clause->is_partitioned &&
				 !(is_target && query->commandType == CMD_INSERT))
			clause->found = "ONLY";
	}
	return clause->found != NULL ||
		query_tree_walker(query, find_unfit_clause, clause, 0);
}

/*
 * shard_unfit_clause(query pg_node_tree, tbl oid, is_partitioned bool)
 *		SQL function unfit_clause(): the clause that keeps a query, as the
 *		catalogs have it, from doing the same to a logical table as to a table:
 *		"TABLESAMPLE", "ONLY" or "MERGE".  Null if there is none.
 *
 * Strict.
 */
Datum
shard_unfit_clause(PG_FUNCTION_ARGS)
{
	UnfitClause clause = {PG_GETARG_OID(1), PG_GETARG_BOOL(2), NULL};

	(void) find_unfit_clause(stringToNode(TextDatumGetCString(PG_GETARG_DATUM(0))),
							 &clause);
	if (clause.found == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(clause.found));
}
