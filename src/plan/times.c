/*-------------------------------------------------------------------------
 *
 * times.c
 *	  Which times the conditions of a query allow in a column.
 *
 * Times are integers of the column's type, as in ShardMember.  Conditions
 * become a set of times: no row with a time outside it can match.  What is
 * not understood allows all times, so the set may be too large, never too
 * small.
 *
 * Values that are not constants may be estimated: now(), or a comparison that
 * depends on the session's time zone.  Such a set is right for now.  Values
 * that are not known at all can gate a shard when the query runs.
 *
 * Comparisons of a local time (timestamp, date) with a timestamp with time
 * zone take special care.  PostgreSQL converts the local time, and where
 * clocks are changed, a later local time can be an earlier moment.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/stratnum.h"
#include "catalog/pg_type_d.h"
#include "common/int.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

/*
 * The zones of the tz database are never farther from UTC.  Others can be
 * made up, up to a week.
 */
#define USUAL_OFFSET	(INT64CONST(16) * SECS_PER_HOUR)
#define GREATEST_OFFSET	(INT64CONST(7) * SECS_PER_DAY)

/*
 * A local time is converted by what happens to the clock in the day around
 * it.  If nothing happens so many seconds around a moment, all local times
 * that may be converted to it or to one nearby have the same offset, and all
 * others are farther away than any offset.
 */
#define CALM_PERIOD		(INT64CONST(4) * SECS_PER_DAY)

/* Greater than all finite times, less than infinity; and the reverse. */
#define AFTER_ALL		(PG_INT64_MAX - 1)
#define BEFORE_ALL		(PG_INT64_MIN + 1)

/* What reading conditions needs, and what comes out besides the set. */
typedef struct Reading
{
	PlannerInfo *root;
	const Var  *column;
	bool		may_estimate;
	bool		has_estimates;	/* the set is right for now */
	bool		has_unknown;	/* some value is not known */
} Reading;

/*
 * Where a value lies among the times of the column: the greatest that is not
 * after it, and the least that is not before it.  If it is not known exactly,
 * the first is too great and the second too small.
 */
typedef struct Position
{
	int64		floor;
	int64		ceiling;
	bool		is_exact;
} Position;

static ShardTimeSet *
no_times(void)
{
	return palloc0(sizeof(ShardTimeSet));
}

static ShardTimeSet *
times_between(int64 min, int64 max)
{
	ShardTimeSet *result = no_times();

	if (min <= max)
	{
		result->n = 1;
		result->times = palloc(sizeof(ShardTimes));
		result->times[0].min = min;
		result->times[0].max = max;
	}
	return result;
}

static ShardTimeSet *
all_times(void)
{
	return times_between(PG_INT64_MIN, PG_INT64_MAX);
}

static bool
is_all_times(const ShardTimeSet *set)
{
	return set->n == 1 && set->times[0].min == PG_INT64_MIN &&
		set->times[0].max == PG_INT64_MAX;
}

static int
compare_times(const void *a, const void *b)
{
	const ShardTimes *ta = a;
	const ShardTimes *tb = b;

	return (ta->min > tb->min) - (ta->min < tb->min);
}

/*
 * The times that are in one of many sets.
 */
static ShardTimeSet *
unite(ShardTimeSet **sets, int nsets)
{
	ShardTimeSet *result = no_times();
	ShardTimes *all;
	int			n = 0;

	for (int i = 0; i < nsets; i++)
		n += sets[i]->n;
	if (n == 0)
		return result;
	all = palloc(sizeof(ShardTimes) * n);
	n = 0;
	for (int i = 0; i < nsets; i++)
		for (int j = 0; j < sets[i]->n; j++)
			all[n++] = sets[i]->times[j];
	qsort(all, n, sizeof(ShardTimes), compare_times);

	result->times = all;
	for (int i = 0; i < n; i++)
	{
		ShardTimes *last = &all[result->n - 1];

		if (result->n > 0 && all[i].min <= last->max)
			last->max = Max(last->max, all[i].max);
		else
			all[result->n++] = all[i];
	}
	return result;
}

/*
 * The times that are in both sets.
 */
static ShardTimeSet *
intersect(const ShardTimeSet *a, const ShardTimeSet *b)
{
	ShardTimeSet *result = no_times();
	int			i = 0;
	int			j = 0;

	result->times = palloc(sizeof(ShardTimes) * (a->n + b->n));
	while (i < a->n && j < b->n)
	{
		int64		min = Max(a->times[i].min, b->times[j].min);
		int64		max = Min(a->times[i].max, b->times[j].max);

		if (min <= max)
		{
			result->times[result->n].min = min;
			result->times[result->n].max = max;
			result->n++;
		}
		if (a->times[i].max < b->times[j].max)
			i++;
		else
			j++;
	}
	return result;
}

/*
 * shard_times_from
 *		The index of the first part of the set that ends at "min" or later; the
 *		number of parts if there is none.
 */
int
shard_times_from(const ShardTimeSet *set, int64 min)
{
	int			low = 0;
	int			high = set->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (set->times[middle].max >= min)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/*
 * shard_times_overlap
 *		Is one of the times from "min" to "max" in the set?
 */
bool
shard_times_overlap(const ShardTimeSet *set, int64 min, int64 max)
{
	int			i = shard_times_from(set, min);

	return min <= max && i < set->n && set->times[i].min <= max;
}

/*
 * The value of an expression as a constant, if it is known or can be
 * estimated; else NULL.
 */
static Const *
known_value(Reading *reading, Node *expr)
{
	if (!IsA(expr, Const) && reading->may_estimate)
	{
		expr = estimate_expression_value(reading->root, expr);
		if (IsA(expr, Const))
			reading->has_estimates = true;
	}
	if (!IsA(expr, Const))
	{
		reading->has_unknown = true;
		return NULL;
	}
	return (Const *) expr;
}

/*
 * The moment, in microseconds, that a local time is in the session's time
 * zone.
 */
static int64
moment_of_local(int64 local)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		result;

	if (TIMESTAMP_NOT_FINITE(local) || local == AFTER_ALL)
		return local;
	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	result = local +
		DetermineTimeZoneOffset(&tm, session_timezone) * USECS_PER_SEC;
	if (IS_VALID_TIMESTAMP(result))
		return result;
	return result < 0 ? BEFORE_ALL : AFTER_ALL;
}

/*
 * Between which local times, in microseconds, does a moment lie in the
 * session's time zone?  No time before *min converts to it or to a later
 * moment, no time after *max to it or to an earlier one.  Returns whether both
 * are the same and convert to it.
 */
static bool
locals_of_moment(int64 moment, int64 *min, int64 *max)
{
	pg_time_t	seconds = moment / USECS_PER_SEC +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	pg_time_t	since = seconds - CALM_PERIOD;
	pg_time_t	boundary;
	long int	before;
	long int	after;
	int			before_isdst;
	int			after_isdst;
	int			changes;
	int64		margin = USUAL_OFFSET;

	*min = *max = moment;
	if (TIMESTAMP_NOT_FINITE(moment))
		return true;
	changes = pg_next_dst_boundary(&since, &before, &before_isdst, &boundary,
								   &after, &after_isdst, session_timezone);
	if (changes < 0 || labs(before) > USUAL_OFFSET ||
		(changes > 0 && labs(after) > USUAL_OFFSET))
		margin = GREATEST_OFFSET;
	else if (changes == 0 || boundary > seconds + CALM_PERIOD)
	{
		/* So far from all limits that it cannot overflow. */
		*min = *max = moment + before * USECS_PER_SEC;
		return true;
	}
	if (pg_sub_s64_overflow(moment, margin * USECS_PER_SEC, min))
		*min = PG_INT64_MIN;
	if (pg_add_s64_overflow(moment, margin * USECS_PER_SEC, max))
		*max = PG_INT64_MAX;
	return false;
}

/*
 * The beginning of a date in microseconds.
 */
static int64
time_of_date(DateADT date)
{
	if (DATE_IS_NOBEGIN(date))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(date))
		return DT_NOEND;
	if (date >= TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE)
		return AFTER_ALL;
	return date * USECS_PER_DAY;
}

/*
 * The date that a time in microseconds is in; with "up", the next one unless
 * the time is its beginning.
 */
static int64
date_of_time(int64 time, bool up)
{
	int64		result;

	if (TIMESTAMP_IS_NOBEGIN(time))
		return DATEVAL_NOBEGIN;
	if (TIMESTAMP_IS_NOEND(time))
		return DATEVAL_NOEND;
	result = time / USECS_PER_DAY;
	if (time % USECS_PER_DAY < 0)
		result--;
	if (up && time % USECS_PER_DAY != 0)
		result++;
	return result;
}

/*
 * Where a value of one of the types that a time column can have lies among
 * the times of the column.  False if that may not be asked: it depends on the
 * time zone.
 */
static bool
find_position(Reading *reading, Datum value, Oid type, Position *position)
{
	Oid			column_type = reading->column->vartype;
	int64		min;
	int64		max;

	position->is_exact = true;
	if (type == DATEOID && column_type == DATEOID)
	{
		position->floor = position->ceiling = DatumGetDateADT(value);
		return true;
	}
	min = max = type == DATEOID ? time_of_date(DatumGetDateADT(value)) :
		DatumGetTimestamp(value);
	if ((type == TIMESTAMPTZOID) != (column_type == TIMESTAMPTZOID) &&
		!TIMESTAMP_NOT_FINITE(min) && min != AFTER_ALL)
	{
		if (!reading->may_estimate)
		{
			reading->has_unknown = true;
			return false;
		}
		reading->has_estimates = true;
		if (column_type == TIMESTAMPTZOID)
			min = max = moment_of_local(min);
		else
			position->is_exact = locals_of_moment(min, &min, &max);
	}
	position->ceiling = column_type == DATEOID ? date_of_time(min, true) : min;
	position->floor = column_type == DATEOID ? date_of_time(max, false) : max;
	return true;
}

/*
 * The times that compare with a value, not null, as an operator says that has
 * this strategy in the B-tree operator family.
 */
static ShardTimeSet *
times_by_strategy(Reading *reading, int strategy, Datum value, Oid type)
{
	Position	position;
	bool		is_time;

	if (!find_position(reading, value, type, &position))
		return all_times();
	is_time = position.is_exact && position.floor == position.ceiling;
	switch (strategy)
	{
		case BTLessStrategyNumber:
			if (is_time && position.floor == PG_INT64_MIN)
				return no_times();
			return times_between(PG_INT64_MIN,
								 position.floor - (is_time ? 1 : 0));
		case BTLessEqualStrategyNumber:
			return times_between(PG_INT64_MIN, position.floor);
		case BTEqualStrategyNumber:
			return times_between(position.ceiling, position.floor);
		case BTGreaterEqualStrategyNumber:
			return times_between(position.ceiling, PG_INT64_MAX);
		case BTGreaterStrategyNumber:
			if (is_time && position.ceiling == PG_INT64_MAX)
				return no_times();
			return times_between(position.ceiling + (is_time ? 1 : 0),
								 PG_INT64_MAX);
		default:
			return all_times();
	}
}

/*
 * The B-tree operator family of timestamps and dates.
 */
static Oid
time_opfamily(void)
{
	return lookup_type_cache(TIMESTAMPTZOID, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
}

static bool
is_column(const Var *column, Node *node)
{
	const Var  *var = (const Var *) node;

	return IsA(node, Var) && var->varno == column->varno &&
		var->varattno == column->varattno && var->varlevelsup == 0;
}

/*
 * If an operator compares the column with something else, its strategy and
 * what the other side is; else 0.  *opno becomes an operator with the column
 * on its left.
 */
static int
comparison(const Reading *reading, Oid *opno, Node *left, Node *right,
		   Node **other, Oid *type)
{
	int			strategy;
	Oid			column_type;

	*other = right;
	*type = InvalidOid;
	if (!is_column(reading->column, left))
	{
		if (!is_column(reading->column, right))
			return 0;
		*other = left;
		*opno = get_commutator(*opno);
	}
	strategy = get_op_opfamily_strategy(*opno, time_opfamily());
	if (strategy == 0)
		return 0;
	op_input_types(*opno, &column_type, type);
	return column_type == reading->column->vartype ? strategy : 0;
}

/*
 * The times that compare with the value of an expression in this way.  All if
 * the value is not known, or if the strategy is 0.
 */
static ShardTimeSet *
times_by_value(Reading *reading, int strategy, Node *expr, Oid type)
{
	Const	   *value = strategy == 0 ? NULL : known_value(reading, expr);

	if (value == NULL)
		return all_times();
	return value->constisnull ? no_times() :
		times_by_strategy(reading, strategy, value->constvalue, type);
}

static ShardTimeSet *
times_of_operator(Reading *reading, OpExpr *op)
{
	Oid			opno = op->opno;
	Node	   *other;
	Oid			type;
	int			strategy;

	if (list_length(op->args) != 2)
		return all_times();
	strategy = comparison(reading, &opno, linitial(op->args),
						  lsecond(op->args), &other, &type);
	return times_by_value(reading, strategy, other, type);
}

static ShardTimeSet *
times_of_array(Reading *reading, ScalarArrayOpExpr *op)
{
	Oid			opno = op->opno;
	Node	   *other;
	Oid			type;
	int			strategy = comparison(reading, &opno, linitial(op->args),
									  lsecond(op->args), &other, &type);
	Const	   *value;
	ArrayType  *array;
	int16		len;
	bool		byval;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	ShardTimeSet **sets;
	ShardTimeSet *result = all_times();

	/* The column is on the left, or it is no column of times. */
	value = strategy == 0 ? NULL : known_value(reading, other);
	if (value == NULL)
		return result;
	if (value->constisnull)
		return no_times();
	array = DatumGetArrayTypeP(value->constvalue);
	get_typlenbyvalalign(type, &len, &byval, &align);
	if (ARR_ELEMTYPE(array) != type)
		return result;
	deconstruct_array(array, type, len, byval, align, &elements, &nulls, &n);
	sets = palloc(sizeof(ShardTimeSet *) * n);
	for (int i = 0; i < n; i++)
	{
		sets[i] = nulls[i] ? no_times() :
			times_by_strategy(reading, strategy, elements[i], type);
		if (!op->useOr)
			result = intersect(result, sets[i]);
	}
	return op->useOr ? unite(sets, n) : result;
}

/*
 * (column, ...) < (value, ...) and the like: the first columns decide, unless
 * they are equal.
 */
static ShardTimeSet *
times_of_row(Reading *reading, RowCompareExpr *row)
{
	Oid			opno = linitial_oid(row->opnos);
	Node	   *other;
	Oid			type;
	int			strategy = comparison(reading, &opno, linitial(row->largs),
									  linitial(row->rargs), &other, &type);

	if (strategy == BTLessStrategyNumber)
		strategy = BTLessEqualStrategyNumber;
	else if (strategy == BTGreaterStrategyNumber)
		strategy = BTGreaterEqualStrategyNumber;
	return times_by_value(reading, strategy, other, type);
}

/*
 * The times with which a condition can be true.
 */
static ShardTimeSet *
times_of_clause(Reading *reading, Node *clause)
{
	check_stack_depth();
	switch (nodeTag(clause))
	{
		case T_Const:
			return ((Const *) clause)->constisnull ||
				!DatumGetBool(((Const *) clause)->constvalue) ?
				no_times() : all_times();

		case T_BoolExpr:
			{
				BoolExpr   *expr = (BoolExpr *) clause;
				int			n = list_length(expr->args);
				ShardTimeSet **sets;
				ShardTimeSet *result = all_times();

				if (expr->boolop == NOT_EXPR)
					return result;
				sets = palloc(sizeof(ShardTimeSet *) * n);
				for (int i = 0; i < n; i++)
				{
					sets[i] = times_of_clause(reading, list_nth(expr->args, i));
					if (expr->boolop == AND_EXPR)
						result = intersect(result, sets[i]);
				}
				return expr->boolop == OR_EXPR ? unite(sets, n) : result;
			}

		case T_NullTest:
			return ((NullTest *) clause)->nulltesttype == IS_NULL &&
				is_column(reading->column, (Node *) ((NullTest *) clause)->arg) ?
				no_times() : all_times();

		case T_OpExpr:
			return times_of_operator(reading, (OpExpr *) clause);

		case T_ScalarArrayOpExpr:
			return times_of_array(reading, (ScalarArrayOpExpr *) clause);

		case T_RowCompareExpr:
			return times_of_row(reading, (RowCompareExpr *) clause);

		default:
			return all_times();
	}
}

/*
 * Conditions on columns that are equal to this one in all rows that the query
 * is about: t.at = u.at AND u.at > $1.
 *
 * An equivalence class tells of such columns.  They must be what the scans of
 * their tables return, not what an outer join makes of them.
 */
static List *
derived_conditions(PlannerInfo *root, RelOptInfo *rel, const Var *column,
				   Index *security_level)
{
	List	   *result = NIL;

	if (rel->reloptkind != RELOPT_BASEREL)
		return NIL;
	for (int i = -1; (i = bms_next_member(rel->eclass_indexes, i)) >= 0;)
	{
		EquivalenceClass *ec = list_nth_node(EquivalenceClass,
											 root->eq_classes, i);
		List	   *columns = NIL;
		bool		is_member = false;
		ListCell   *lc;

		if (ec->ec_has_volatile || shard_ec_below_outer_join(ec))
			continue;
		foreach(lc, ec->ec_members)
		{
			EquivalenceMember *em = lfirst_node(EquivalenceMember, lc);

			if (em->em_is_child || shard_em_may_be_null(em) ||
				!IsA(em->em_expr, Var))
				continue;
			if (is_column(column, (Node *) em->em_expr))
				is_member = true;
			else if (exprType((Node *) em->em_expr) == column->vartype)
				columns = lappend(columns, em->em_expr);
		}
		if (!is_member)
			continue;
		foreach(lc, columns)
		{
			Var		   *other = lfirst_node(Var, lc);
			RelOptInfo *other_rel = find_base_rel(root, other->varno);
			ListCell   *lc2;

			if (other_rel->reloptkind != RELOPT_BASEREL || other_rel == rel)
				continue;
			foreach(lc2, other_rel->baserestrictinfo)
			{
				RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc2);

				if (rinfo->pseudoconstant)
					continue;
				result = lappend(result, list_make2(other, rinfo->clause));
				*security_level = Max(*security_level, rinfo->security_level);
			}
		}
	}
	return result;
}

/*
 * shard_time_conditions
 *		The conditions of the query that can say something of a column of
 *		"rel", each with the column that it is on.
 *
 * *security_level becomes the greatest of theirs.
 */
List *
shard_time_conditions(PlannerInfo *root, RelOptInfo *rel, AttrNumber attno,
					  Oid type, Index *security_level)
{
	Var		   *column = makeVar(rel->relid, attno, type, -1, InvalidOid, 0);
	List	   *result = NIL;
	ListCell   *lc;

	*security_level = 0;
	foreach(lc, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		if (rinfo->pseudoconstant)
			continue;
		result = lappend(result, list_make2(column, rinfo->clause));
		*security_level = Max(*security_level, rinfo->security_level);
	}
	return list_concat(result,
					   derived_conditions(root, rel, column, security_level));
}

/*
 * shard_times_allowed
 *		The times that all conditions allow.
 *
 * With "may_estimate", stable expressions are evaluated, with the parameters
 * in root->glob->boundParams, and so is the time zone used; *has_estimates
 * then says whether one was.  *useful becomes the conditions that do not allow
 * all times, *unknown those of which some value is not known.  These are part
 * of "conditions", not copies.
 */
ShardTimeSet *
shard_times_allowed(PlannerInfo *root, List *conditions, bool may_estimate,
					bool *has_estimates, List **useful, List **unknown)
{
	ShardTimeSet *result = all_times();
	Reading		reading = {.root = root,.may_estimate = may_estimate};
	ListCell   *lc;

	*useful = *unknown = NIL;
	foreach(lc, conditions)
	{
		List	   *condition = lfirst_node(List, lc);
		ShardTimeSet *set;

		reading.column = linitial_node(Var, condition);
		reading.has_unknown = false;
		set = times_of_clause(&reading, lsecond(condition));
		if (reading.has_unknown)
			*unknown = lappend(*unknown, condition);
		if (is_all_times(set))
			continue;
		*useful = lappend(*useful, condition);
		result = intersect(result, set);
	}
	*has_estimates = reading.has_estimates;
	return result;
}

/*
 * An operator that compares the column's type with another in this way.
 */
static Oid
operator_for(Oid type, Oid other, int strategy)
{
	return get_opfamily_member(time_opfamily(), type, other, strategy);
}

/*
 * Can an expression be evaluated before any row is read?
 */
static bool
can_gate(PlannerInfo *root, Node *expr)
{
	return bms_is_empty(pull_varnos(root, expr)) &&
		!contain_volatile_functions(expr) && !contain_subplans(expr);
}

/*
 * "time operator expression", or with an array for the expression.
 */
static Expr *
gate_operator(Node *clause, Const *time, Oid opno, Node *expr)
{
	ScalarArrayOpExpr *op;

	if (!OidIsValid(opno))
		return NULL;
	if (IsA(clause, OpExpr))
		return make_opclause(opno, BOOLOID, false, (Expr *) copyObject(time),
							 (Expr *) copyObject(expr), InvalidOid,
							 InvalidOid);
	op = makeNode(ScalarArrayOpExpr);
	op->opno = opno;
	op->useOr = ((ScalarArrayOpExpr *) clause)->useOr;
	op->args = list_make2(copyObject(time), copyObject(expr));
	op->location = -1;
	return (Expr *) op;
}

/*
 * A condition that holds if "clause" can hold for a time from "min" to "max",
 * and that can be evaluated before any row is read; NULL if nothing is known.
 */
static Expr *
gate_clause(Reading *reading, Node *clause, Const *min, Const *max)
{
	List	   *args = NIL;
	Oid			opno;
	Node	   *other;
	Oid			type;
	int			strategy;
	Expr	   *lower;
	Expr	   *upper;

	check_stack_depth();
	if (IsA(clause, BoolExpr))
	{
		BoolExpr   *expr = (BoolExpr *) clause;
		ListCell   *lc;

		if (expr->boolop == NOT_EXPR)
			return NULL;
		foreach(lc, expr->args)
		{
			Expr	   *arg = gate_clause(reading, lfirst(lc), min, max);

			if (arg == NULL && expr->boolop == OR_EXPR)
				return NULL;
			/* A RestrictInfo must not have AND below AND. */
			if (arg != NULL)
				args = expr->boolop == AND_EXPR ?
					list_concat(args, make_ands_implicit(arg)) :
					lappend(args, arg);
		}
		/* An AND of one is none, which the executor insists on. */
		return args == NIL ? NULL :
			list_length(args) == 1 ? linitial(args) :
			makeBoolExpr(expr->boolop, args, -1);
	}
	if (IsA(clause, OpExpr))
	{
		args = ((OpExpr *) clause)->args;
		opno = ((OpExpr *) clause)->opno;
	}
	else if (IsA(clause, ScalarArrayOpExpr))
	{
		args = ((ScalarArrayOpExpr *) clause)->args;
		opno = ((ScalarArrayOpExpr *) clause)->opno;
	}
	else
		return NULL;
	if (list_length(args) != 2)
		return NULL;
	strategy = comparison(reading, &opno, linitial(args), lsecond(args),
						  &other, &type);

	/* A moment compared with a local time does not ascend with the latter. */
	if (strategy == 0 || !can_gate(reading->root, other) ||
		(type == TIMESTAMPTZOID && reading->column->vartype != TIMESTAMPTZOID))
		return NULL;
	switch (strategy)
	{
		case BTLessStrategyNumber:
		case BTLessEqualStrategyNumber:
			return gate_operator(clause, min, opno, other);
		case BTGreaterEqualStrategyNumber:
		case BTGreaterStrategyNumber:
			return gate_operator(clause, max, opno, other);
		default:
			lower = gate_operator(clause, min,
								  operator_for(min->consttype, type,
											   BTLessEqualStrategyNumber),
								  other);
			upper = gate_operator(clause, max,
								  operator_for(max->consttype, type,
											   BTGreaterEqualStrategyNumber),
								  other);
			return lower == NULL || upper == NULL ? NULL :
				makeBoolExpr(AND_EXPR, list_make2(lower, upper), -1);
	}
}

/*
 * A time as a constant of the column's type.
 */
static Const *
time_const(int64 time, Oid type)
{
	int16		len;
	bool		byval;

	get_typlenbyval(type, &len, &byval);
	return makeConst(type, -1, InvalidOid, len,
					 type == DATEOID ? DateADTGetDatum((DateADT) time) :
					 Int64GetDatum(time), false, byval);
}

/*
 * shard_time_gates
 *		Conditions to be evaluated before a shard is read.  If one is not true,
 *		no row with a time from "min" to "max" can meet "conditions".
 */
List *
shard_time_gates(PlannerInfo *root, List *conditions, int64 min, int64 max)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, conditions)
	{
		List	   *condition = lfirst_node(List, lc);
		Reading		reading = {.root = root,.column = linitial_node(Var, condition)};
		Oid			type = reading.column->vartype;
		Expr	   *gate = gate_clause(&reading, lsecond(condition),
									   time_const(min, type),
									   time_const(max, type));

		if (gate != NULL)
			result = list_concat(result, make_ands_implicit(gate));
	}
	return result;
}
