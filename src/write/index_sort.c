/*-------------------------------------------------------------------------
 *
 * index_sort.c
 *	  Sorting index tuples by the order of a B-tree.
 *
 * There is an array of pointers to the tuples, each with the value of the first
 * column or, where the type can do that, an abbreviation of it.  If these are
 * compared as numbers, they are mapped to unsigned ones in the order of the
 * index, which may be descending.  Only for equal ones does one have to look at
 * the tuples.  Tuples without a value in the first column are kept apart.
 *
 * It does what tuplesort.c does for CREATE INDEX, in less memory and never on
 * disk.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "catalog/pg_index.h"

typedef struct SortEntry
{
	uint64		key;
	IndexTuple	tuple;
} SortEntry;

StaticAssertDecl(sizeof(SortEntry) <= SHARD_SORT_BYTES,
				 "sorting takes more memory than is accounted for");

struct ShardSort
{
	Relation	index;
	TupleDesc	desc;
	int			ncolumns;		/* of the index's key */
	SortSupport columns;
	bool		is_abbreviated;
	bool		is_number;		/* keys are compared as unsigned numbers */
	bool		is_int32;		/* they come from 32-bit integers */
	uint64		sign;			/* bits that turn a number into a key */
	uint64		max;
	uint64		n;				/* entries at the beginning of the array */
	uint64		nnulls;			/* entries without a key, at its end */
	uint64		next_check;		/* when to think about abbreviations again */
	SortEntry  *entries;
};

/*
 * Compare two entries by the columns from the given one on, counted from 0.
 */
static int
compare_from(const SortEntry *a, const SortEntry *b, ShardSort *sort,
			 int column)
{
	for (int i = column; i < sort->ncolumns; i++)
	{
		bool		null_a;
		bool		null_b;
		Datum		value_a = index_getattr(a->tuple, i + 1, sort->desc, &null_a);
		Datum		value_b = index_getattr(b->tuple, i + 1, sort->desc, &null_b);
		int			result;

		if (i == 0 && sort->is_abbreviated)
			result = ApplySortAbbrevFullComparator(value_a, null_a,
												   value_b, null_b,
												   &sort->columns[i]);
		else
			result = ApplySortComparator(value_a, null_a, value_b, null_b,
										 &sort->columns[i]);
		if (result != 0)
			return result;
	}
	return 0;
}

/*
 * Compare two entries by whatever their keys do not tell, at last by their
 * places in the table, as a B-tree does.
 */
static int
compare_rest(const SortEntry *a, const SortEntry *b, ShardSort *sort)
{
	int			result = compare_from(a, b, sort, sort->is_abbreviated ? 0 : 1);

	return result != 0 ? result :
		ItemPointerCompare(&a->tuple->t_tid, &b->tuple->t_tid);
}

/*
 * Compare two entries whose keys are numbers.
 */
static inline int
compare_numbers(const SortEntry *a, const SortEntry *b, ShardSort *sort)
{
	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return compare_rest(a, b, sort);
}

/*
 * Compare two entries whose keys are values of some type.
 */
static inline int
compare_values(const SortEntry *a, const SortEntry *b, ShardSort *sort)
{
	int			result = ApplySortComparator((Datum) a->key, false,
											 (Datum) b->key, false,
											 &sort->columns[0]);

	return result != 0 ? result : compare_rest(a, b, sort);
}

#define ST_SORT sort_by_number
#define ST_ELEMENT_TYPE SortEntry
#define ST_COMPARE(a, b, sort) compare_numbers(a, b, sort)
#define ST_COMPARE_ARG_TYPE ShardSort
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

#define ST_SORT sort_by_value
#define ST_ELEMENT_TYPE SortEntry
#define ST_COMPARE(a, b, sort) compare_values(a, b, sort)
#define ST_COMPARE_ARG_TYPE ShardSort
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * shard_index_order
 *		How the columns of a B-tree's key are compared, allocated in the
 *		current memory context.
 *
 * With "abbreviate", the first column is prepared for abbreviations, if its
 * type has any.
 */
SortSupport
shard_index_order(Relation index, bool abbreviate)
{
	int			ncolumns = IndexRelationGetNumberOfKeyAttributes(index);
	SortSupport columns = palloc0(sizeof(SortSupportData) * ncolumns);

	for (int i = 0; i < ncolumns; i++)
	{
		int16		option = index->rd_indoption[i];

		columns[i].ssup_cxt = CurrentMemoryContext;
		columns[i].ssup_collation = index->rd_indcollation[i];
		columns[i].ssup_nulls_first = (option & INDOPTION_NULLS_FIRST) != 0;
		columns[i].ssup_attno = i + 1;
		columns[i].abbreviate = abbreviate && i == 0;
		shard_sort_support(index, (option & INDOPTION_DESC) != 0, &columns[i]);
	}
	return columns;
}

/*
 * Find out how to compare entries.
 */
static void
prepare(ShardSort *sort, bool abbreviate)
{
	SortSupport first;

	sort->columns = shard_index_order(sort->index, abbreviate);
	first = &sort->columns[0];
	sort->is_abbreviated = first->abbrev_converter != NULL;
	sort->is_int32 = first->comparator == ssup_datum_int32_cmp;
	sort->sign = UINT64CONST(1) << 63;
	if (first->comparator == ssup_datum_unsigned_cmp)
	{
		sort->is_number = true;
		sort->sign = 0;
	}
#if SIZEOF_DATUM >= 8
	else if (first->comparator == ssup_datum_signed_cmp)
		sort->is_number = true;
#endif
	else
		sort->is_number = sort->is_int32;
	if (first->ssup_reverse)
		sort->sign = ~sort->sign;
}

/*
 * shard_sort_begin
 *		Prepare to sort "max" tuples of a B-tree.
 *
 * The result is allocated in the current memory context.
 */
ShardSort *
shard_sort_begin(Relation index, uint64 max)
{
	ShardSort  *sort = palloc0(sizeof(ShardSort));

	sort->index = index;
	sort->desc = RelationGetDescr(index);
	sort->ncolumns = IndexRelationGetNumberOfKeyAttributes(index);
	sort->max = max;
	sort->next_check = 10;
	sort->entries = palloc_extended(sizeof(SortEntry) * max, MCXT_ALLOC_HUGE);
	prepare(sort, true);
	return sort;
}

/*
 * The key of a tuple whose first column has this value.
 */
static inline uint64
sort_key(ShardSort *sort, Datum value)
{
	if (sort->is_abbreviated)
		value = sort->columns[0].abbrev_converter(value, &sort->columns[0]);
	if (!sort->is_number)
		return (uint64) value;
	return (sort->is_int32 ? (uint64) (int64) DatumGetInt32(value) :
			(uint64) value) ^ sort->sign;
}

/*
 * Do without abbreviations, which tell too little about the values.
 */
static void
stop_abbreviating(ShardSort *sort)
{
	prepare(sort, false);
	for (uint64 i = 0; i < sort->n; i++)
	{
		bool		isnull;

		sort->entries[i].key =
			sort_key(sort, index_getattr(sort->entries[i].tuple, 1, sort->desc,
										 &isnull));
	}
}

/*
 * shard_sort_add
 *		Add a tuple, which must stay where it is.
 */
void
shard_sort_add(ShardSort *sort, IndexTuple tuple)
{
	bool		isnull;
	Datum		value = index_getattr(tuple, 1, sort->desc, &isnull);
	SortEntry  *entry;

	Assert(sort->n + sort->nnulls < sort->max);
	if (isnull)
	{
		entry = &sort->entries[sort->max - ++sort->nnulls];
		entry->key = 0;
		entry->tuple = tuple;
		return;
	}
	entry = &sort->entries[sort->n++];
	entry->key = sort_key(sort, value);
	entry->tuple = tuple;

	if (sort->is_abbreviated && sort->n == sort->next_check)
	{
		sort->next_check *= 2;
		if (sort->columns[0].abbrev_abort(sort->n, &sort->columns[0]))
			stop_abbreviating(sort);
	}
}

/*
 * shard_sort_compare
 *		Compare two tuples, given by their numbers, without their places in the
 *		table.
 *
 * All have been added, and they have not been sorted yet.  Those without a
 * value in the first column are counted last.
 */
int
shard_sort_compare(ShardSort *sort, uint64 a, uint64 b)
{
	return compare_from(&sort->entries[a], &sort->entries[b], sort, 0);
}

/*
 * shard_sort_perform
 *		Sort all tuples that have been added, which have to be "max".
 */
void
shard_sort_perform(ShardSort *sort)
{
	Assert(sort->n + sort->nnulls == sort->max);
	if (sort->is_number)
		sort_by_number(sort->entries, sort->n, sort);
	else
		sort_by_value(sort->entries, sort->n, sort);
	/* All these have the same key, 0, so this is by the other columns. */
	sort_by_number(sort->entries + sort->n, sort->nnulls, sort);
}

/*
 * shard_sort_get
 *		The tuple with this number, counted from 0, in the order of the index.
 */
IndexTuple
shard_sort_get(ShardSort *sort, uint64 i)
{
	if (!sort->columns[0].ssup_nulls_first)
		return sort->entries[i].tuple;
	return sort->entries[i < sort->nnulls ? sort->n + i : i - sort->nnulls].tuple;
}
