/*-------------------------------------------------------------------------
 *
 * shard_fdw.h
 *	  The one private header of shard_fdw: shared types, then the exported
 *	  functions of each source file.
 *
 * A foreign table of this wrapper (the "logical table") holds no rows.  Its
 * inheritance children are the "shards".  INSERT and COPY name the logical
 * table only, reach the FDW callbacks, and are routed to one shard a row.
 * Everything else works on the shards through inheritance.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_FDW_H
#define SHARD_FDW_H

#include "postgres.h"

/* The first, to say so if the server is too old for all the rest. */
#include "compat.h"

#include "access/heapam.h"
#include "catalog/pg_sequence.h"
#include "foreign/fdwapi.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"
#include "partitioning/partdefs.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/*
 * User-visible advisory locks have 1 or 2 in the tag's fourth field; ours, by
 * what they are for:
 */
#define SHARD_LEASE_LOCK_KIND		28784	/* 0x7070 */
#define SHARD_LANE_LOCK_KIND		28785
#define SHARD_CONSUMER_LOCK_KIND	28786

/* The greatest value of option "max_shards". */
#define SHARD_MAX_SHARDS	65536

/*
 * A constraint that seals a shard and a default that calls nextval() are
 * short.  Longer ones, in bytes of the catalogs' text, are something else and
 * need not be parsed by those who just look at a table.
 */
#define SHARD_MAX_SIMPLE_EXPRESSION	8192

/* How a row finds its shard. */
typedef enum ShardRoute
{
	SHARD_ROUTE_SESSION,		/* the shard this backend leases */
	SHARD_ROUTE_ROUND_ROBIN,	/* the next open shard, row by row */
	SHARD_ROUTE_HASH			/* the shard that holds the hash of its key */
} ShardRoute;

/* Table options after defaults: table over server over built-in. */
typedef struct ShardOptions
{
	int			shards;			/* shards to create; 0: not given */
	char	   *template_name;	/* table to copy them from, or NULL */
	char	   *shard_schema;	/* where new shards go, or NULL */
	ShardRoute	route;
	char	   *key;			/* names of the hash key's columns, or NULL */
	int			batch_size;		/* rows inserted at once, at most */
	int			max_shards;		/* shards a table may have */
	bool		commit_order;	/* one transaction at a time writes a shard */
	char	   *time_column;	/* its name, or NULL */
	Interval   *rotate_every;	/* NULL: not given */
	Interval   *retain_for;		/* NULL: not given */
	bool		is_manual;		/* option "maintenance" is "manual" */
} ShardOptions;

/* What a shard takes. */
typedef enum ShardState
{
	SHARD_OPEN,					/* rows by its table's route */
	SHARD_CLOSED,				/* updates, and rows inserted by its own name */
	SHARD_SEALED				/* neither */
} ShardState;

/* One shard, as the catalogs describe it. */
typedef struct ShardMember
{
	Oid			relid;
	bool		is_local;		/* an ordinary table, not a foreign one */
	ShardState	state;
	bool		is_open;		/* state is SHARD_OPEN */
	bool		has_children;	/* may have inheritance children of its own */
	bool		sees_rows;		/* has a BEFORE ROW INSERT trigger, or a
								 * trigger's condition or CHECK constraint
								 * that may look at other rows */

	/* Hash route: which hashes of the key it holds; modulus 0: unknown. */
	int			modulus;
	int			remainder;
	bool		is_place_valid; /* ... and that its rows have been checked */
	int			nplace_checks;	/* own CHECK constraints that say so */

	/* Column option "sequence"; see sequence.c. */
	Oid			sequence;		/* what its ids come from, or InvalidOid */
	bool		owns_sequence;	/* it is the shard's or the logical table's */
	int			stride;			/* which ids it holds; 0: unknown */
	int			slot;
	bool		is_slot_valid;	/* ... and that its rows have been checked */
	int			nslot_checks;	/* own CHECK constraints that say so */

	/*
	 * Option "time_column": a validated range of the times of its rows, not
	 * null and both ends included.  As integers of the column's type: days of
	 * a date, microseconds of the others; infinity is the extreme of the
	 * type.  If it is empty, the minimum is greater than the maximum.
	 */
	bool		has_range;
	int64		range_min;
	int64		range_max;

	/*
	 * How columns of the logical table map to columns of the shard.  Found
	 * out when somebody first has both relations open and locked.
	 */
	bool		map_known;
	AttrMap    *map;			/* NULL: the same columns in the same places */
} ShardMember;

/* A member that holds some hashes of the key. */
typedef struct ShardPlace
{
	int			modulus;
	int			remainder;
	int			ordinal;
} ShardPlace;

/*
 * What this backend knows about a logical table.
 *
 * Entries live at least as long as the transaction, so a pointer to one stays
 * good; what an entry holds is rebuilt in place by shard_table_get() after an
 * invalidation, and "generation" then changes.  Pointers into "members" must
 * not be kept across a call that might rebuild.
 */
typedef struct ShardTable
{
	Oid			relid;			/* hash key */
	bool		is_valid;		/* false: catalogs have changed */
	bool		is_building;	/* the rebuild below is under way ... */
	bool		is_outdated;	/* ... and saw an invalidation */
	uint64		generation;		/* counts rebuilds */
	SubTransactionId built_in;	/* if the transaction is still running */

	MemoryContext context;		/* holds all that follows */
	bool		has_columns;
	bool		has_bad_options;	/* some that the validator has not seen */
	ShardRoute	route;
	int			batch_size;
	bool		sees_rows;		/* some open shard has such a trigger or CHECK */
	List	   *depends;		/* what that depends on; of PlanInvalItem */
	AttrNumber	seq_attno;		/* column with option "sequence", or 0 */
	bool		seq_always;		/* ... with value "always" */
	bool		commit_order;	/* one transaction at a time writes a shard */
	AttrNumber	time_attno;		/* column of option "time_column", or 0 */
	Oid			time_type;		/* ... its type */
	int			nmembers;
	ShardMember *members;		/* in ordinal order */
	Oid		   *sorted;			/* the shards' OIDs, ascending */
	int			nopen;
	int		   *open;			/* ordinals of the open shards, ascending */

	/* Hash route only. */
	PartitionKey key;			/* NULL: option "key" is not good */
	int			nplaces;
	ShardPlace *places;			/* by modulus and remainder */
	PartitionBoundInfo bounds;	/* of "places" as partitions; NULL if the
								 * shards are not placed as partitions are */
	List	   *conflicts;		/* of ShardConflict, used last; conflict.c */

	/* Routing state, which a rebuild leaves alone; owned by route.c. */
	Oid			lease_shard;	/* the leased shard, or InvalidOid */
	uint32		lease_level;
	uint64		lease_generation;	/* lease_ordinal is right for this one */
	int			lease_ordinal;
	uint64		next;			/* round robin: rows routed so far */
	Oid			lane_shard;		/* whose lane was taken last, or InvalidOid */
	LocalTransactionId lane_lxid;	/* ... by this transaction */
} ShardTable;

/* Which indexes detect the conflicts of an ON CONFLICT clause. */
typedef struct ShardConflict
{
	MemoryContext context;		/* holds all of it */
	List	   *target;			/* see shard_plan_on_conflict() */
	bool		is_complete;	/* all shards have such indexes */
	List	  **arbiters;		/* by ordinal; NIL: not found out yet */
} ShardConflict;

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
	int			slot_number;
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

/* in advice.c */
extern void shard_advise_options(Oid relid, const ShardOptions *options);
extern void shard_advise_trigger(Oid relid, const CreateTrigStmt *stmt);
extern void shard_advise_place(Oid logical, Oid shard);
extern void shard_advise_template(Oid logical, Oid template);

/* in batch.c */
extern bool shard_is_single_row(Plan *plan);
extern int	shard_batch_size(ShardInsert *insert);
extern int	shardGetForeignModifyBatchSize(ResultRelInfo *rri);
extern void shard_batch_flush(ShardInsert *insert);
extern void shard_copy_end(ShardInsert *insert);
extern bool shard_collect_row(ShardInsert *insert, ShardTarget *target,
							  TupleTableSlot *slot);
extern TupleTableSlot **shardExecForeignBatchInsert(EState *estate,
													ResultRelInfo *rri,
													TupleTableSlot **slots,
													TupleTableSlot **plan_slots,
													int *nslots);
extern void shard_batch_end(ShardInsert *insert, ShardTarget *target);

/* in checks.c */

/* What the CHECK constraints of a relation tell us. */
typedef struct ShardChecks
{
	char	   *seal;			/* name of one that rejects every row, or NULL */
	char	   *placement;		/* name of one that calls in_hash() or
								 * in_slot(), or NULL */
	bool		sees_rows;		/* one might look at other rows */
	List	   *depends;		/* what that depends on; of PlanInvalItem */
} ShardChecks;

extern void shard_read_checks(Oid relid, bool seal_only, ShardChecks *checks,
							  ShardMember *member, const ShardTable *table);
extern char *shard_seal_constraint(Oid relid);
extern char *shard_placement_constraint(Oid relid);

/* in clone.c */

/* What a shard has by inheritance only. */
typedef struct ShardInherited
{
	Bitmapset  *columns;		/* numbers of its columns */
	List	   *constraints;	/* names, as String nodes */
} ShardInherited;

extern ShardInherited *shard_note_inherited(Oid relid);
extern void shard_disown(Oid relid, const ShardInherited *only);
extern void shard_set_trigger_state(Oid relid, const char *name, char state);
extern void shard_clone_checks(Relation source, const char *source_name,
							   Oid shard);
extern Oid	shard_clone(Relation logical, Oid schema, const char *name,
						Relation source, const char *placement);
extern List *shard_unfit_checks(Oid shard, List *siblings);

/* in command.c */

/* A subtransaction in which shard_fdw carries out DDL of its own. */
typedef struct ShardActing
{
	LocalTransactionId lxid;
	SubTransactionId subid;		/* InvalidSubTransactionId: there is none */
} ShardActing;

/* Who we were before shard_become_owner(). */
typedef struct ShardIdentity
{
	ShardActing acting;
	Oid			userid;
	int			sec_context;
	int			guc_level;
} ShardIdentity;

extern char *shard_qualified_name(Oid relid);
extern char *shard_column_list(Relation rel, const char *prefix,
							   bool with_generated);
extern void shard_execute(const char *format,...) pg_attribute_printf(1, 2);
extern void shard_drop_seal(Oid shard);
extern void shard_set(const char *name, const char *value);
extern void shard_become_owner(Relation logical, ShardIdentity *identity);
extern void shard_be_oneself(const ShardIdentity *identity);
extern bool shard_is_acting(void);
extern ErrorData *shard_catch(MemoryContext context, ResourceOwner owner);

/* in conflict.c */
extern void shard_check_route_for_conflict(const ShardTable *table);
extern void shard_prepare_on_conflict(Query *query);
extern List *shard_plan_on_conflict(OnConflictExpr *on_conflict,
									Index result_relation, Oid relid);
extern void shard_open_on_conflict(ShardInsert *insert, ShardTarget *target,
								   int ordinal);
extern TupleTableSlot *shard_insert_on_conflict(ShardInsert *insert,
												ShardTarget *target,
												TupleTableSlot *row,
												List **recheck);

/* in consumer.c */
extern void shard_forget_consumers(Oid relid);
extern void shard_forget_lanes(Oid relid, Oid shard);
extern void shard_column_renamed(Oid relid, const char *from, const char *to);
extern void shard_check_column_unread(Oid relid, const char *column);
extern char *shard_unread_by(Oid logical, Oid shard);

/* in core_exec.c */
extern void shard_check_tid_visible(EState *estate, ResultRelInfo *rri,
									ItemPointer tid);
extern void shard_report_serialization_failure(const char *cause);
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

/* in cursor.c */
extern void shard_cursor_init(void);

/* in ddl.c */
extern Oid	shard_model_shard(Oid logical);
extern Oid	shard_new_schema(Oid logical, const ShardOptions *options,
							 Oid source);
extern List *shard_create(Oid logical_relid, int count, Oid template,
						  Oid schema, bool with_checks);

/* in drop_guard.c */
extern void shard_guard_init(void);

/* in fromcore.c */
extern Index shard_expand_child(PlannerInfo *root, RelOptInfo *rel,
								RangeTblEntry *rte, Relation parent,
								Relation child);
extern void shard_set_append_size(PlannerInfo *root, RelOptInfo *rel,
								  RangeTblEntry *rte, Relids settled);
extern PartitionScheme shard_find_partition_scheme(PlannerInfo *root,
												   PartitionKey partkey);

/* in hash.c */
extern Oid	shard_hash_function(Oid type, Oid *opfamily, Oid *opcintype);
extern void shard_report_unhashable(Oid type);
extern bool shard_can_hash_with(Oid opfamily, Oid type);
extern PartitionKey shard_key_create(Oid relid, const char *columns,
									 bool missing_ok);
extern void shard_report_bad_key(const ShardTable *table);
extern char *shard_key_columns(PartitionKey key, Oid relid);
extern uint64 shard_key_hash(PartitionKey key, TupleTableSlot *row);
extern bool shard_key_values_equal(PartitionKey key, int i, Datum a, Datum b);

/* in insert.c */
extern List *shardPlanForeignModify(PlannerInfo *root, ModifyTable *plan,
									Index result_relation, int subplan_index);
extern ShardInsert *shard_insert_begin(ModifyTableState *mtstate,
									   ResultRelInfo *root);
extern void shardBeginForeignModify(ModifyTableState *mtstate,
									ResultRelInfo *rri, List *fdw_private,
									int subplan_index, int eflags);
extern void shardBeginForeignInsert(ModifyTableState *mtstate,
									ResultRelInfo *rri);
extern TupleTableSlot *shardExecForeignInsert(EState *estate,
											  ResultRelInfo *rri,
											  TupleTableSlot *slot,
											  TupleTableSlot *plan_slot);
extern void shardEndForeignModify(EState *estate, ResultRelInfo *rri);
extern void shardEndForeignInsert(EState *estate, ResultRelInfo *rri);
extern void shardExplainForeignModify(ModifyTableState *mtstate,
									  ResultRelInfo *rri, List *fdw_private,
									  int subplan_index, struct ExplainState *es);

/* in join.c */
extern void shard_join_init(void);

/* in lease.c */
extern void shard_lock_tag(LOCKTAG *tag, Oid relid, uint32 number,
						   uint16 kind);
extern void shard_lease_tag(LOCKTAG *tag, Oid shard, uint32 level);
extern bool shard_holds_lease(const ShardTable *table);
extern void shard_forget_lease(ShardTable *table);
extern void shard_lane_tag(LOCKTAG *tag, Oid shard);
extern bool shard_try_lane(ShardTable *table, const ShardMember *member,
						   bool dont_wait);
extern void shard_take_lane(ShardTable *table, int ordinal);
extern void shard_await_lane(Oid shard);

/* in lifecycle.c */
extern void shard_forget_closed(Oid shard);
extern List *shard_rotate(Oid logical, int count);
extern char *shard_retain(Oid logical, Oid shard, TimestampTz older_than,
						  bool keep_tables, int patience);
extern int	shard_retain_patience(void);

/* in lock.c */
extern bool shard_try_patiently(List *relids, LOCKMODE mode, int patience);
extern void shard_lock_patiently(Oid relid, LOCKMODE mode);

/* in logical.c */
extern bool shard_is_logical(Oid relid);
extern void shardGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern ForeignScan *shardGetForeignPlan(PlannerInfo *root, RelOptInfo *rel,
										Oid relid, ForeignPath *best_path,
										List *tlist, List *scan_clauses,
										Plan *outer_plan);
extern void shardBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *shardIterateForeignScan(ForeignScanState *node);
extern void shardReScanForeignScan(ForeignScanState *node);
extern void shardEndForeignScan(ForeignScanState *node);
extern bool shardIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel,
										   RangeTblEntry *rte);
extern int	shardIsForeignRelUpdatable(Relation rel);
extern TupleTableSlot *shardExecForeignUpdate(EState *estate,
											  ResultRelInfo *rri,
											  TupleTableSlot *slot,
											  TupleTableSlot *plan_slot);
extern void shardExecForeignTruncate(List *rels, DropBehavior behavior,
									 bool restart_seqs);
extern bool shardAnalyzeForeignTable(Relation rel,
									 AcquireSampleRowsFunc *func,
									 BlockNumber *totalpages);
extern bool shard_is_our_routine(const FdwRoutine *routine);
extern void shard_check_logical(Oid relid);
extern void shard_check_readable(Oid relid);
extern void shard_check_read_committed(const char *action);
extern void shard_check_owned(Oid relid);
extern List *shard_logical_parents(Oid relid);
extern void shard_check_to_alter(Oid shard, bool or_sealed);

/* in option.c */

extern const char *shard_route_name(ShardRoute route);
extern void shard_get_options(Oid relid, ShardOptions *options);
extern void shard_check_options(Oid relid);
extern bool shard_get_good_options(Oid relid, ShardOptions *options);
extern Oid	shard_schema_option(Oid logical, const ShardOptions *options,
								int elevel);
extern bool shard_check_column_option(DefElem *def, bool missing_ok);

/* in placement.c */
extern int	shard_slot_of_id(int64 id, int stride);
extern Expr *shard_in_slot_clause(int stride, int slot, Expr *id);
extern bool shard_id_in_slot(int64 id, int stride, int slot);
extern bool shard_is_slot(Node *expr);
extern bool shard_read_slot(Node *expr, Oid shard, Oid logical,
							AttrNumber attno, int *stride, int *slot);
extern Oid	shard_function(const char *name, const Oid *types, int ntypes);
extern Oid	shard_placement_function(const char *name, Oid type);
extern bool shard_is_column(const Var *var, Oid shard, Oid logical,
							AttrNumber attno);
extern Expr *shard_in_hash_clause(int modulus, int remainder, List *exprs);
extern bool shard_is_placement(Node *expr);
extern bool shard_read_placement(Node *expr, Oid shard, PartitionKey key,
								 Oid logical, int *modulus, int *remainder);
extern void shard_place_members(ShardTable *table);
extern int	shard_find_place(const ShardTable *table, uint64 hash);
extern bool shard_is_time_type(Oid type);
extern bool shard_read_range(Node *expr, Oid shard, Oid logical,
							 AttrNumber attno, ShardMember *member);
extern char *shard_range_constraint(Oid relid, bool *is_valid);

/* in plan.c */
extern void shard_plan_init(void);
extern void shard_gate(PlannerInfo *root, RelOptInfo *child, Expr *clause,
					   Index security_level);
extern void shardGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel,
								   Oid relid);

/* The name of the constraint that is a range, unless the user renames it. */
#define SHARD_RANGE_NAME "shard_range"

/* in range.c */

/* How far shard_advance_range() has come. */
typedef enum ShardRangeStep
{
	SHARD_RANGE_NONE,			/* the shard has none, or no longer */
	SHARD_RANGE_BUSY,			/* somebody writes it: try again later */
	SHARD_RANGE_AGAIN,			/* commit, and call it again */
	SHARD_RANGE_DONE			/* the range is valid */
} ShardRangeStep;

extern void shard_drop_range(Oid shard);
extern bool shard_is_busy(Oid relid);
extern ShardRangeStep shard_advance_range(Oid logical, Oid shard);
extern void shard_check_not_null(Oid logical, Oid shard);
extern void shard_check_time_column(Oid relid);

/* in result.c */

typedef bool (*ShardTakeRow) (Datum last, void *state);

extern Relation shard_open_argument(FunctionCallInfo fcinfo,
									const char *function);
extern int	shard_count_argument(FunctionCallInfo fcinfo, int n);
extern uint64 shard_return_rows(ReturnSetInfo *rsinfo, const char *query,
								int cursor_options, uint64 max_rows,
								ShardTakeRow take, void *state);

/* in route.c */
extern int	shard_pinned;		/* GUC shard_fdw.shard */
extern Oid	shard_last;			/* where this session's last row went */
extern void shard_route_init(void);
extern Oid	shard_pin(const ShardTable *table);
extern int	shard_route_by_id(ShardTable *table, TupleTableSlot *row);
extern int	shard_route(ShardTable *table, TupleTableSlot *row, Oid pinned);

/* in row.c */
extern void shard_fill_sequence(ShardInsert *insert, ShardTarget *target,
								TupleTableSlot *row);
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

/* in sees_rows.c */
extern bool shard_sees_rows(Node *node, List **depends);
extern bool shard_trigger_sees_rows(Oid relid, List **depends);
extern bool shard_generated_see_rows(Relation rel, List **depends);
extern bool shard_copy_sees_rows(Relation rel);
extern bool shard_indexes_see_rows(ResultRelInfo *rri);

/* in seqcare.c */
extern void shard_reset_shards(Relation logical, ReturnSetInfo *rsinfo);

/* in sequence.c */
extern int64 shard_id_from_datum(Datum value, Oid type);
extern bool shard_get_sequence(Oid sequence, Form_pg_sequence form);
extern AttrNumber shard_sequence_column(Oid relid, bool missing_ok,
										bool *always);
extern Oid	shard_default_sequence(Oid relid, const char *column);
extern bool shard_owns_sequence(Oid logical, AttrNumber attno, Oid shard,
								Oid sequence);
extern int	shard_sequence_slot(Oid sequence, int stride);

/* in sequence_ddl.c */
extern int64 shard_query_int64(const char *sql, bool *isnull);
extern int64 shard_advance_sequence(Oid sequence, int64 floor);
extern List *shard_slot_sequences(Oid logical, AttrNumber attno);
extern void shard_add_sequence(Relation logical, Oid shard, bool is_new,
							   bool is_empty);
extern void shard_check_sequence(Oid relid, PartitionKey key);
extern void shard_check_attached_ids(Oid shard);
extern void shard_check_ids(Oid relid, const AlterTableStmt *stmt);

/* in shardset.c */
extern void shard_table_init(void);
extern ShardTable *shard_table_get(Oid relid);
extern ShardMember *shard_list_members(Oid relid, int *nmembers);
extern void shard_table_sweep(void);
extern const char *shard_state_name(ShardState state);
extern int	shard_table_find(const ShardTable *table, Oid shard);
extern AttrMap *shard_map_by_name(Relation logical, Relation shard);
extern const AttrMap *shard_member_map(ShardMember *member, ShardTable *table,
									   Relation logical, Relation shard);
extern Relation shard_open_closed(LOCKMODE mode);
extern bool shard_is_closed(Oid shard);

/* in target.c */
extern ShardTarget *shard_insert_target(ShardInsert *insert,
										TupleTableSlot *row);

#endif							/* SHARD_FDW_H */
