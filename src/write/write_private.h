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
#include "access/itup.h"
#include "access/xact.h"
#include "commands/explain.h"
#include "utils/sortsupport.h"

/*
 * A shard that the running statement has opened, made by target.c when the
 * first row comes and kept until the end of the statement.
 *
 * Most of it is found out once, so that a row costs as little as possible:
 * "map" says how a row gets the shard's layout, "not_null", "is_checked" and
 * "is_computed" say what row.c has to do before the row is stored, and
 * "can_batch" says whether the row may wait to be written with others.
 */
typedef struct ShardTarget
{
	/* The fields that each row of a batch uses are close together. */
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
	TupleTableSlot *slot;		/* a row in the shard's layout, if there is a
								 * map or once triggers require one */
	AttrNumber *default_attnos; /* columns that only the shard has and that
								 * have a default: */
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
 * It is created by insert.c when the executor starts, is the FDW state of the
 * logical table's ResultRelInfo, and goes away with the query's memory
 * context.  What the first fields say holds for the whole statement, even if
 * the cache entry in "table" is rebuilt.
 *
 * Shards are opened when they are first needed.  All that are open are in
 * "targets", which is what is closed at the end and what EXPLAIN shows.  For
 * rows after the first there are two shortcuts.  If all rows go to one shard,
 * because it is leased or pinned, that is "current".  Otherwise "by_ordinal"
 * has the shard for each ordinal, or NULL if it is not open yet.  As ordinals
 * change when the cache entry is rebuilt, "by_ordinal" and "lane" are believed
 * only as long as "generation" is that of the entry.
 *
 * The parts that belong to conflict.c and batch.c are used only if the
 * statement has an ON CONFLICT clause, or collects rows.
 *
 * A ShardInsert and a ShardTarget take 128 bytes each at most.  If the memory
 * of a statement of one row did not fit into the executor's first block, it
 * would pay for another one.
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
	bool		moves;			/* rows of a shard; see shard_begin_moving() */
	int			lane;			/* the shard whose lane the statement has
								 * taken to begin with, or -1 */
	struct ShardBatch *batch;	/* NULL: no batches */

	ShardTarget *current;		/* session route: where all rows go */
	uint64		generation;		/* "lane" and "by_ordinal" are right for this */
	ShardTarget **by_ordinal;	/* other routes: opened shards by ordinal */
	List	   *targets;		/* of ShardTarget, in order of opening */
} ShardInsert;

StaticAssertDecl(sizeof(ShardInsert) <= 128 && sizeof(ShardTarget) <= 128,
				 "a statement of one row would need another block of memory");

/* in alarm.c */
extern void shard_check_due(ShardTable *table, Relation logical);

/* in batch.c */
extern void shard_copy_end(ShardInsert *insert);
extern bool shard_collect_row(ShardInsert *insert, ShardTarget *target,
							  TupleTableSlot *slot);
extern void shard_batch_end(ShardInsert *insert, ShardTarget *target);
extern void shard_batch_check(ShardInsert *insert);
extern void shard_batch_explain(ShardInsert *insert, ExplainState *es);

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

/* in index_run.c */
typedef struct ShardRuns ShardRuns;
typedef struct ShardTargetRuns ShardTargetRuns;

extern ShardRuns *shard_runs_create(ShardInsert *insert);
extern bool shard_runs_hold(ShardRuns *runs, ShardTargetRuns *target,
							ResultRelInfo *rri);
extern void shard_runs_add(ShardRuns *runs, ShardTargetRuns **target,
						   ResultRelInfo *rri, TupleTableSlot **rows, int n,
						   const uint64 *linenos, uint64 *current_lineno);
extern void shard_runs_flush(ShardRuns *runs);
extern void shard_runs_stop(ShardRuns *runs);
extern void shard_runs_end(ShardRuns *runs);
extern void shard_runs_explain(ShardRuns *runs, ExplainState *es);

/* in index_sort.c */
typedef struct ShardSort ShardSort;

#define SHARD_SORT_BYTES	16	/* memory for sorting a tuple */

extern SortSupport shard_index_order(Relation index, bool abbreviate);
extern ShardSort *shard_sort_begin(Relation index, uint64 max);
extern void shard_sort_add(ShardSort *sort, IndexTuple tuple);
extern int	shard_sort_compare(ShardSort *sort, uint64 a, uint64 b);
extern void shard_sort_perform(ShardSort *sort);
extern IndexTuple shard_sort_get(ShardSort *sort, uint64 i);

/* in move.c */
extern Oid	shard_moving;
extern bool shard_has_open_slots(const ShardTable *table);
extern TriggerDesc *shard_internal_triggers(const TriggerDesc *triggers);

/* in one_node.c */
extern void shard_note_write(Oid shard);

/* in remote_error.c */
typedef struct ShardRemoteCall
{
	ErrorContextCallback callback;
	Relation	shard;
	NameData	server;
	bool		is_free;		/* its rows may go to other shards */
} ShardRemoteCall;

extern void shard_remote_begin(const ShardInsert *insert,
							   const ShardTarget *target,
							   ShardRemoteCall *call);
extern void shard_remote_end(const ShardRemoteCall *call);

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
extern int	shard_batch_size(ShardInsert *insert);
extern ShardTarget *shard_insert_target(ShardInsert *insert,
										TupleTableSlot *row);

/* Is it time to look whether maintenance of the table is due? */
static inline bool
shard_may_be_due(const ShardTable *table)
{
	return OidIsValid(table->schedule.time_type) &&
		!table->schedule.is_manual &&
		GetCurrentStatementStartTimestamp() >= table->check_at;
}

#endif							/* SHARD_WRITE_PRIVATE_H */
