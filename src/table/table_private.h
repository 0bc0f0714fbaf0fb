/*-------------------------------------------------------------------------
 *
 * table_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_TABLE_PRIVATE_H
#define SHARD_TABLE_PRIVATE_H

#include "table/table.h"

/* What the CHECK constraints of a relation tell us. */
typedef struct ShardChecks
{
	char	   *seal;			/* name of one that rejects every row, or NULL */
	char	   *placement;		/* name of one that calls in_hash() or
								 * in_slot(), or NULL */
	bool		sees_rows;		/* one might look at other rows */
	List	   *depends;		/* what that depends on; of PlanInvalItem */
} ShardChecks;

/* in checks.c */
extern void shard_read_checks(Oid relid, bool seal_only, ShardChecks *checks,
							  ShardMember *member, const ShardTable *table);

/* in key.c */
extern Oid	shard_hash_function(Oid type, Oid *opfamily, Oid *opcintype);
extern void shard_report_unhashable(Oid type);

/* in ledger.c */
extern Oid *shard_read_closed(int *n);
extern Oid *shard_read_moved(int *n, TransactionId **xids,
							 bool **rows_gone);
extern bool shard_get_generation(Oid logical, TimestampTz *began);

/* in map.c */
extern bool shard_has_columns(Oid relid);

/* in option.c */
extern bool shard_get_good_options(Oid relid, ShardOptions *options);
extern bool shard_check_column_option(DefElem *def, bool missing_ok);

/* in placement.c */
extern bool shard_read_id_slot(Node *expr, Oid shard, Oid logical,
							   AttrNumber attno, int *stride, int *id_slot);
extern bool shard_read_place(Node *expr, Oid shard, PartitionKey key,
							 Oid logical, int *modulus, int *remainder);
extern void shard_note_newest_place(ShardTable *table);
extern void shard_place_members(ShardTable *table);
extern bool shard_is_range(Node *expr);
extern bool shard_read_range(Node *expr, Oid shard, Oid logical,
							 AttrNumber attno, ShardMember *member);

/* in sees_rows.c */
extern bool shard_trigger_sees_rows(Oid relid, List **depends);

/* in sequence.c */
extern bool shard_owns_sequence(Oid logical, AttrNumber attno, Oid shard,
								Oid sequence);

#endif							/* SHARD_TABLE_PRIVATE_H */
