/*-------------------------------------------------------------------------
 *
 * checks.c
 *	  What the CHECK constraints of a shard tell: whether it takes rows, and
 *	  which hashes, ids and times it holds.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_opfamily_d.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* What a boolean expression is, whatever row it is evaluated for. */
typedef enum Truth
{
	TRUTH_UNKNOWN,				/* it may depend on the row */
	TRUTH_NULL,
	TRUTH_FALSE,
	TRUTH_TRUE
} Truth;

/*
 * A truth value that is known.
 */
static Truth
truth(bool value)
{
	return value ? TRUTH_TRUE : TRUTH_FALSE;
}

/*
 * NOT of a truth value.
 */
static Truth
negate(Truth value)
{
	return value == TRUTH_TRUE ? TRUTH_FALSE :
		value == TRUTH_FALSE ? TRUTH_TRUE : value;
}

/*
 * The constant that an expression is, or NULL.
 */
static Const *
as_constant(Node *node)
{
	while (IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return IsA(node, Const) ? (Const *) node : NULL;
}

/*
 * Compare two constants of integer types or of type boolean.
 */
static Truth
compare_constants(OpExpr *op)
{
	Const	   *args[2];
	int64		values[2] = {0, 0};
	Oid			family = InvalidOid;
	int			strategy;
	bool		is_negated = false;

	/* Other operators may call anybody's functions. */
	if (op->opno >= FirstUnpinnedObjectId || list_length(op->args) != 2)
		return TRUTH_UNKNOWN;
	for (int i = 0; i < 2; i++)
	{
		Oid			wanted;

		args[i] = as_constant(list_nth(op->args, i));
		if (args[i] == NULL)
			return TRUTH_UNKNOWN;
		if (args[i]->consttype == BOOLOID)
			wanted = BOOL_BTREE_FAM_OID;
		else if (shard_is_integer_type(args[i]->consttype))
			wanted = INTEGER_BTREE_FAM_OID;
		else
			return TRUTH_UNKNOWN;
		if (i > 0 && family != wanted)
			return TRUTH_UNKNOWN;
		family = wanted;
		if (!args[i]->constisnull)
			values[i] = wanted == BOOL_BTREE_FAM_OID ?
				DatumGetBool(args[i]->constvalue) :
				shard_id_from_datum(args[i]->constvalue, args[i]->consttype);
	}

	strategy = get_op_opfamily_strategy(op->opno, family);
	if (strategy == 0)
	{
		/* "<>" has no strategy, but is the negator of one that has. */
		strategy = get_op_opfamily_strategy(get_negator(op->opno), family);
		is_negated = true;
	}
	if (strategy == 0)
		return TRUTH_UNKNOWN;
	if (args[0]->constisnull || args[1]->constisnull)
		return TRUTH_NULL;
	switch (strategy)
	{
		case BTLessStrategyNumber:
			return truth((values[0] < values[1]) != is_negated);
		case BTLessEqualStrategyNumber:
			return truth((values[0] <= values[1]) != is_negated);
		case BTEqualStrategyNumber:
			return truth((values[0] == values[1]) != is_negated);
		case BTGreaterEqualStrategyNumber:
			return truth((values[0] >= values[1]) != is_negated);
		case BTGreaterStrategyNumber:
			return truth((values[0] > values[1]) != is_negated);
		default:
			return TRUTH_UNKNOWN;
	}
}

/*
 * What is known of a boolean expression without running any function.
 *
 * This is called for a constraint that the shard's owner has written, by anybody
 * who looks at the shard.  Folding the constants of an arbitrary expression
 * could raise an error or run anybody's function, so only a few kinds of nodes
 * are looked at, and those are evaluated here.
 */
static Truth
truth_of(Node *node)
{
	switch (nodeTag(node))
	{
		case T_Const:
			if (((Const *) node)->consttype != BOOLOID)
				return TRUTH_UNKNOWN;
			return ((Const *) node)->constisnull ? TRUTH_NULL :
				truth(DatumGetBool(((Const *) node)->constvalue));

		case T_BoolExpr:
			{
				BoolExpr   *expr = (BoolExpr *) node;
				Truth		decides;
				Truth		result;
				ListCell   *lc;

				if (expr->boolop == NOT_EXPR)
					return negate(truth_of(linitial(expr->args)));
				decides = truth(expr->boolop == OR_EXPR);
				result = negate(decides);
				foreach(lc, expr->args)
				{
					Truth		arg = truth_of(lfirst(lc));

					if (arg == decides)
						return arg;
					if (arg == TRUTH_UNKNOWN ||
						(arg == TRUTH_NULL && result != TRUTH_UNKNOWN))
						result = arg;
				}
				return result;
			}

		case T_NullTest:
			{
				NullTest   *test = (NullTest *) node;
				Const	   *arg = as_constant((Node *) test->arg);

				if (arg == NULL || test->argisrow)
					return TRUTH_UNKNOWN;
				return truth(arg->constisnull == (test->nulltesttype == IS_NULL));
			}

		case T_BooleanTest:
			{
				BooleanTest *test = (BooleanTest *) node;
				Truth		arg = truth_of((Node *) test->arg);

				if (arg == TRUTH_UNKNOWN)
					return TRUTH_UNKNOWN;
				switch (test->booltesttype)
				{
					case IS_TRUE:
						return truth(arg == TRUTH_TRUE);
					case IS_NOT_TRUE:
						return truth(arg != TRUTH_TRUE);
					case IS_FALSE:
						return truth(arg == TRUTH_FALSE);
					case IS_NOT_FALSE:
						return truth(arg != TRUTH_FALSE);
					case IS_UNKNOWN:
						return truth(arg == TRUTH_NULL);
					case IS_NOT_UNKNOWN:
						return truth(arg != TRUTH_NULL);
				}
				return TRUTH_UNKNOWN;
			}

		case T_OpExpr:
			return compare_constants((OpExpr *) node);

		default:
			return TRUTH_UNKNOWN;
	}
}

/*
 * Note that a CHECK constraint gives a shard this remainder of this modulus,
 * of the hashes of the key or of ids.
 *
 * If constraints say different things, the first one counts, or the first one
 * for which all rows have been checked.  *nchecks counts those that say the
 * same as it.
 */
static void
note_placement(int *modulus, int *remainder, bool *is_valid, int *nchecks,
			   int new_modulus, int new_remainder, bool new_is_valid)
{
	if (*modulus == new_modulus && *remainder == new_remainder)
	{
		*is_valid |= new_is_valid;
		(*nchecks)++;
	}
	else if (*modulus == 0 || (new_is_valid && !*is_valid))
	{
		*modulus = new_modulus;
		*remainder = new_remainder;
		*is_valid = new_is_valid;
		*nchecks = 1;
	}
}

/*
 * Have a shard learn from one of its own CHECK constraints which hashes of the
 * key and which ids it holds.
 */
static void
read_placement(Node *expr, Oid relid, bool is_valid, Oid logical,
			   PartitionKey key, AttrNumber seq_attno, ShardMember *member)
{
	int			modulus;
	int			remainder;

	if (key != NULL &&
		shard_read_place(expr, relid, key, logical, &modulus, &remainder))
		/* Any hash has the remainder 0 of 1. */
		note_placement(&member->modulus, &member->remainder,
					   &member->is_place_valid, &member->nplace_checks,
					   modulus, remainder, is_valid || modulus == 1);
	if (seq_attno != 0 &&
		shard_read_id_slot(expr, relid, logical, seq_attno, &modulus,
						   &remainder))
		note_placement(&member->stride, &member->id_slot,
					   &member->is_id_slot_valid, &member->n_id_slot_checks,
					   modulus, remainder, is_valid);
}

/*
 * shard_read_checks
 *		Read the CHECK constraints of a relation into *checks.
 *
 * If "table" is given, "member" learns which of its hashes and ids the
 * relation holds, and its range.  With "seal_only", nothing but the seal is
 * found out, and long constraints are not parsed.  Takes no lock on the
 * relation; names are allocated in the current memory context.
 */
void
shard_read_checks(Oid relid, bool seal_only, ShardChecks *checks,
				  ShardMember *member, const ShardTable *table)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	memset(checks, 0, sizeof(ShardChecks));

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		Datum		bin;
		bool		isnull;
		bool		may_seal;
		Node	   *expr;

		if (con->contype != CONSTRAINT_CHECK ||
			!shard_constraint_enforced(con))
			continue;
		bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
						   RelationGetDescr(catalog), &isnull);
		if (isnull)
			continue;
		may_seal = toast_raw_datum_size(bin) <= SHARD_MAX_SIMPLE_EXPRESSION;
		if (seal_only && (checks->seal != NULL || !may_seal))
			continue;
		expr = stringToNode(TextDatumGetCString(bin));
		if (checks->seal == NULL && may_seal && truth_of(expr) == TRUTH_FALSE)
			checks->seal = pstrdup(NameStr(con->conname));
		if (seal_only)
			continue;
		checks->sees_rows |= shard_sees_rows(expr, &checks->depends);
		if (table != NULL && table->time_attno != 0 && con->convalidated &&
			con->coninhcount == 0 && !member->has_range &&
			shard_read_range(expr, relid, table->relid, table->time_attno,
							 member))
		{
			member->has_range = true;
			member->range_xid = HeapTupleHeaderGetXmin(tuple->t_data);
		}
		/* An inherited constraint is about all shards of the parent. */
		if (con->coninhcount > 0 || !shard_is_placement(expr))
			continue;
		if (checks->placement == NULL)
			checks->placement = pstrdup(NameStr(con->conname));
		if (table == NULL)
			continue;
		read_placement(expr, relid, con->convalidated, table->relid,
					   table->key, table->seq_attno, member);
		if (table->key != NULL)
			member->place_xid = HeapTupleHeaderGetXmin(tuple->t_data);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*
 * shard_own_place
 *		Does a CHECK constraint of a hash table itself, which may be a shard of
 *		another one, say which hashes of its key it holds?  If so, fills in
 *		*modulus and *remainder; else these are 1 and 0.
 */
bool
shard_own_place(const ShardTable *table, int *modulus, int *remainder)
{
	ShardMember self = {.relid = table->relid};
	ShardChecks checks;

	if (table->key != NULL)
		shard_read_checks(table->relid, false, &checks, &self, table);
	*modulus = Max(self.modulus, 1);
	*remainder = self.remainder;
	return self.modulus > 0;
}

/*
 * The expression of a CHECK constraint that the relation has itself and that is
 * short enough for views, or NULL if the constraint is something else.
 */
static Node *
simple_check(Relation catalog, HeapTuple tuple)
{
	Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
	Datum		bin;
	bool		isnull;

	if (con->contype != CONSTRAINT_CHECK || con->coninhcount > 0 ||
		!shard_constraint_enforced(con))
		return NULL;
	bin = heap_getattr(tuple, Anum_pg_constraint_conbin,
					   RelationGetDescr(catalog), &isnull);
	if (isnull || toast_raw_datum_size(bin) > SHARD_MAX_SIMPLE_EXPRESSION)
		return NULL;
	return stringToNode(TextDatumGetCString(bin));
}

/*
 * shard_find_range
 *		Does a CHECK constraint of the relation say from when to when its rows
 *		are, by the logical table's column "attno"?  If so, fills in the range
 *		of "member".
 *
 * For views: takes no lock on the relation, and evaluates nothing.
 */
bool
shard_find_range(Oid relid, Oid logical, AttrNumber attno,
				 ShardMember *member)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	member->has_range = false;
	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &key);
	while (!member->has_range && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Node	   *expr = simple_check(catalog, tuple);

		member->has_range = expr != NULL &&
			((Form_pg_constraint) GETSTRUCT(tuple))->convalidated &&
			shard_read_range(expr, relid, logical, attno, member);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return member->has_range;
}

/*
 * Find out which hashes of the key and which ids a shard holds, as
 * shard_find_range() finds its range.
 */
static void
find_placement(Oid relid, Oid logical, PartitionKey key, AttrNumber seq_attno,
			   ShardMember *member)
{
	Relation	catalog;
	SysScanDesc scan;
	ScanKeyData scan_key;
	HeapTuple	tuple;

	ScanKeyInit(&scan_key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	catalog = table_open(ConstraintRelationId, AccessShareLock);
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true,
							  NULL, 1, &scan_key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Node	   *expr = simple_check(catalog, tuple);

		if (expr != NULL)
			read_placement(expr, relid,
						   ((Form_pg_constraint) GETSTRUCT(tuple))->convalidated,
						   logical, key, seq_attno, member);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*
 * shard_find_placement
 *		Fill in which hashes of its key and which ids of its sequence the CHECK
 *		constraints of the relation allow, and which of them have been
 *		validated.  "options" are those of the logical table, as
 *		pg_foreign_table has them.
 *
 * For views: takes no lock on the relations, and evaluates nothing.
 */
void
shard_find_placement(Oid relid, Oid logical, Datum options,
					 ShardMember *member)
{
	ShardOptions known;
	bool		always;
	AttrNumber	seq_attno = shard_sequence_column(logical, true, &always);

	shard_read_options((Datum) 0, options, &known);
	find_placement(relid, logical, shard_key_create(logical, known.key, true),
				   seq_attno, member);
}

/*
 * shard_check_kind
 *		What a CHECK constraint, as pg_constraint has it, is for, if it is about
 *		the rows of one shard: a "seal" lets none in, a "place" says which hashes
 *		or ids there are, and a "range" which times.  NULL for others.
 */
const char *
shard_check_kind(Datum bin, const char *name)
{
	Node	   *expr;

	if (strcmp(name, SHARD_RANGE_NAME) == 0)
		return "range";
	if (toast_raw_datum_size(bin) > SHARD_MAX_SIMPLE_EXPRESSION)
		return NULL;
	expr = stringToNode(TextDatumGetCString(bin));
	return truth_of(expr) == TRUTH_FALSE ? "seal" :
		shard_is_placement(expr) ? "place" :
		shard_is_range(expr) ? "range" : NULL;
}

/*
 * shard_read_places
 *		Find out how the members of a table are placed, which has no more than
 *		relid, key, sequence column and members so far.
 *
 * For views: takes no lock, and evaluates nothing.  What is filled in is
 * allocated in the current memory context.
 */
void
shard_read_places(ShardTable *table)
{
	for (int i = 0; i < table->nmembers; i++)
	{
		ShardMember *member = &table->members[i];

		CHECK_FOR_INTERRUPTS();
		member->modulus = member->nplace_checks = 0;
		member->stride = member->n_id_slot_checks = 0;
		member->is_place_valid = member->is_id_slot_valid = false;
		find_placement(member->relid, table->relid, table->key,
					   table->seq_attno, member);
	}
	if (table->key != NULL)
		shard_place_members(table);
}

/*
 * shard_seal_constraint
 *		The name of a CHECK constraint of the relation that rejects every
 *		row, or NULL if there is none.
 *
 * Takes no lock on the relation.  The result is allocated in the current
 * memory context.
 */
char *
shard_seal_constraint(Oid relid)
{
	ShardChecks checks;

	shard_read_checks(relid, true, &checks, NULL, NULL);
	return checks.seal;
}

/*
 * shard_placement_constraint
 *		The name of a CHECK constraint of the relation that calls in_hash() or
 *		in_slot(), or NULL if there is none.
 *
 * Takes no lock on the relation.  The result is allocated in the current
 * memory context.
 */
char *
shard_placement_constraint(Oid relid)
{
	ShardChecks checks;

	shard_read_checks(relid, false, &checks, NULL, NULL);
	return checks.placement;
}
