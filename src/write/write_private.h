/*-------------------------------------------------------------------------
 *
 * write_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_WRITE_PRIVATE_H
#define SHARD_WRITE_PRIVATE_H

#include "write/write.h"

#include "access/heapam.h"

/* A shard that the running statement has opened. */
typedef struct ShardTarget
{
	/* What each row that waits needs comes first, to be close together. */
	Oid			relid;
	bool		can_batch;
	bool		is_computed;	/* it has stored generated columns */
	bool		is_checked;		/* it has constraints besides "not_null" */
	bool		sees_rows;		/* a default may look at other rows */
	uint64		not_null;		/* bits of columns that are NOT NULL */
	AttrMap    *map;			/* logical to shard columns; NULL: same */
	struct ShardBuffer *buffer; /* rows that wait; owned by batch.c */
	ResultRelInfo *rri;

	AttrMap    *back_map;		/* shard to logical columns; NULL: same */
	TupleTableSlot *slot;		/* a row in the shard's layout; if map, or
								 * once triggers need one */
	AttrNumber *default_attnos; /* shard-only columns that have a default: */
	ExprState **default_exprs;
	int			ndefaults;
	int			stride;			/* which ids the shard holds; 0: unknown */
	int			id_slot;
	Oid			sequence;		/* of the shard, or InvalidOid */
	bool		owns_sequence;	/* as in ShardMember */
	bool		is_logical;		/* the shard is a logical table itself */
	uint64		nrows;			/* rows written by this statement */

	/* ON CONFLICT; owned by conflict.c. */
	List	   *arbiters;		/* indexes that detect a conflict; NIL: all */
	TupleTableSlot *existing;	/* the row that was there */
	TupleTableSlot *updated;	/* its new version; if map */
} ShardTarget;

/*
 * One INSERT or COPY into a logical table, while it runs.
 *
 * This and a ShardTarget take 128 bytes at most: a statement of one row whose
 * memory does not fit into the executor's first block pays for another one.
 */
typedef struct ShardInsert
{
	ShardTable *table;
	ResultRelInfo *root;		/* the logical table */
	EState	   *estate;
	ModifyTableState *mtstate;
	CommandId	cid;			/* stamped on new rows */
	bool		may_batch;		/* no volatile expression could see the table */
	bool		wants_row;		/* caller looks at the row after the insert */
	bool		has_after_trigger;	/* AFTER ROW, on the logical table */
	bool		takes_ids;		/* the sequence column may have a value */
	ShardRoute	route;			/* the table's as the statement began */
	Oid			pinned;			/* where shard_fdw.shard sends all rows, as
								 * the statement began, or InvalidOid */
	OverridingKind override;

	/* ON CONFLICT; owned by conflict.c. */
	OnConflictAction on_conflict;
	List	   *conflict_target;	/* see shard_plan_on_conflict() */
	TupleTableSlot *excluded;	/* EXCLUDED, if the shard's layout differs */
	bool		sets_key;		/* DO UPDATE assigns to a column of the key */

	/* Batches; owned by batch.c. */
	bool		is_copy;		/* called by COPY */
	bool		is_init;		/* what follows is set */
	bool		collects;		/* let rows wait to be written with others */
	int			lane;			/* the shard whose lane the statement has
								 * taken to begin with, or -1 */
	struct ShardBatch *batch;	/* NULL: no batches */

	ShardTarget *current;		/* session route: where all rows go */
	uint64		generation;		/* lane or by_ordinal is right for this one */
	ShardTarget **by_ordinal;	/* opened so far; if rows have a say */
	List	   *targets;		/* of ShardTarget, in order of opening */
} ShardInsert;

/* in batch.c */
extern int	shard_batch_size(ShardInsert *insert);
extern void shard_copy_end(ShardInsert *insert);
extern bool shard_collect_row(ShardInsert *insert, ShardTarget *target,
							  TupleTableSlot *slot);
extern void shard_batch_end(ShardInsert *insert, ShardTarget *target);

/* in conflict.c */
extern void shard_check_route_for_conflict(const ShardTable *table);
extern List *shard_plan_on_conflict(OnConflictExpr *on_conflict,
									Index result_relation, Oid relid);
extern void shard_open_on_conflict(ShardInsert *insert, ShardTarget *target,
								   int ordinal);
extern TupleTableSlot *shard_insert_on_conflict(ShardInsert *insert,
												ShardTarget *target,
												TupleTableSlot *row,
												List **recheck);

/* in core_exec.c */
extern void shard_check_tid_visible(EState *estate, ResultRelInfo *rri,
									ItemPointer tid);
extern bool shard_fetch_conflicting_row(EState *estate, ResultRelInfo *rri,
										ItemPointer tid,
										TupleTableSlot *existing);
extern LockTupleMode shard_lock_mode(LockClauseStrength strength);
extern bool shard_lock_conflicting_row(EState *estate, ResultRelInfo *rri,
									   ItemPointer tid, LockTupleMode mode,
									   const char *command,
									   TupleTableSlot *existing);
extern bool shard_update_row(EState *estate, EPQState *epqstate,
							 ResultRelInfo *rri, ItemPointer tid,
							 TupleTableSlot *row);
extern void shard_copy_header(TupleTableSlot *to, TupleTableSlot *from);

/* in route.c */
extern Oid	shard_pin(const ShardTable *table);
extern int	shard_route_by_id(ShardTable *table, TupleTableSlot *row);
extern int	shard_route_peek(ShardTable *table, TupleTableSlot *row, Oid pinned);
extern int	shard_route(ShardTable *table, TupleTableSlot *row, Oid pinned);
extern int	shard_pinned;

/*
 * shard_route_commit
 *		Take the turn that shard_route_peek() has shown: the next row of route
 *		"round_robin" goes to another shard.
 */
static inline void
shard_route_commit(ShardTable *table)
{
	table->next++;
}

/* in row.c */
extern TupleTableSlot *shard_target_row(ShardInsert *insert,
										ShardTarget *target,
										TupleTableSlot *row,
										TupleTableSlot *into);
extern void shard_check_row(ShardInsert *insert, ShardTarget *target,
							TupleTableSlot *row);
extern TupleTableSlot *shard_insert_row(ShardInsert *insert,
										ShardTarget *target,
										TupleTableSlot *slot,
										TupleTableSlot *plan_slot);

/* in target.c */
extern ShardTarget *shard_insert_target(ShardInsert *insert,
										TupleTableSlot *row);

#endif							/* SHARD_WRITE_PRIVATE_H */
