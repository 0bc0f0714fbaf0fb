/*-------------------------------------------------------------------------
 *
 * table.h
 *	  What a backend knows of a logical table: the types and functions of this
 *	  wing that the others use.
 *
 * A foreign table of this wrapper (the "logical table") holds no rows.  Its
 * inheritance children are the "shards".  INSERT and COPY name the logical
 * table only, reach the FDW callbacks, and are routed: each row goes to one
 * shard.  Everything else works on the shards through inheritance.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_TABLE_H
#define SHARD_TABLE_H

#include "postgres.h"

#include "compat.h"

#include "catalog/pg_sequence.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"
#include "partitioning/partdefs.h"
#include "storage/lock.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/*
 * The fourth field of the tags of our locks, by what they are for.  Advisory
 * locks that users take have 1 or 2 there.
 */
#define SHARD_LEASE_LOCK_KIND		28784	/* 0x7070 */
#define SHARD_LANE_LOCK_KIND		28785
#define SHARD_CONSUMER_LOCK_KIND	28786
#define SHARD_MAINTENANCE_LOCK_KIND 28787
#define SHARD_COMMAND_LOCK_KIND		28788

/* How long to wait in a lock's queue at a time, in milliseconds; see lock.c. */
#define SHARD_LOCK_TRY_TIME	100

/* The greatest value of option "max_shards". */
#define SHARD_MAX_SHARDS	65536

/*
 * A constraint that seals a shard and a default that calls nextval() are
 * short.  Expressions whose text in the catalogs is longer than this many bytes
 * are something else, and are not parsed just to look at a table.
 */
#define SHARD_MAX_SIMPLE_EXPRESSION	8192

/* The name of the constraint that is a range, unless the user renames it. */
#define SHARD_RANGE_NAME "shard_range"

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
	char	   *nodes;			/* servers to create them on, or NULL */
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
	bool		single_node;	/* a transaction writes to one server */
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
	const char *name;
	bool		is_local;		/* an ordinary table, not a foreign one */
	ShardState	state;
	bool		is_open;		/* state is SHARD_OPEN */
	bool		has_children;	/* may have inheritance children of its own */

	/* What follows; see shard_table_get_open(). */
	bool		is_described;
	List	   *depends;		/* what it depends on; of PlanInvalItem */
	bool		sees_rows;		/* has a BEFORE ROW INSERT trigger, or a
								 * trigger's condition or CHECK constraint
								 * that may look at other rows */

	/* Hash route: which hashes of the key it holds; modulus 0: unknown. */
	int			modulus;
	int			remainder;
	bool		is_place_valid; /* all rows have been checked for that */
	TransactionId place_xid;	/* the transaction that has said so, or, if
								 * that is later, moved the shard */
	int			nplace_checks;	/* own CHECK constraints that say so */

	/*
	 * The transaction that has moved it to where it is, if rows had been
	 * deleted there by then; of use for remote ones, see shard_node_shows().
	 */
	TransactionId gone_xid;

	/* Column option "sequence"; see sequence.c. */
	Oid			sequence;		/* what its ids come from, or InvalidOid */
	bool		owns_sequence;	/* it is the shard's or the logical table's */
	int			stride;			/* which ids it holds; 0: unknown */
	int			id_slot;
	bool		is_id_slot_valid;	/* all rows have been checked for that */
	int			n_id_slot_checks;	/* own CHECK constraints that say so */

	/*
	 * Option "time_column": a validated range of the times of its rows, none
	 * of which is null.  Both ends are included.  They are integers as the
	 * column's type has them: days for a date, microseconds for the others;
	 * infinity is the extreme of the type.  If the range is empty, the
	 * minimum is greater than the maximum.
	 */
	bool		has_range;
	TransactionId range_xid;	/* the transaction that has made it valid */
	int64		range_min;
	int64		range_max;

	/*
	 * How columns of the logical table map to columns of the shard; see
	 * shard_member_map().
	 */
	bool		map_known;
	AttrMap    *map;			/* NULL: the same columns in the same places */
} ShardMember;

/* A member, to be found by its OID. */
typedef struct ShardByOid
{
	Oid			relid;			/* search key */
	int			ordinal;
} ShardByOid;

/* A member that holds some hashes of the key. */
typedef struct ShardPlace
{
	int			modulus;
	int			remainder;
	int			ordinal;
} ShardPlace;

/* When something is to be done about a logical table. */
typedef struct ShardSchedule
{
	Oid			time_type;		/* of its time column; InvalidOid: none, and
								 * so there is nothing to do */
	bool		is_manual;		/* sessions that insert need not see to it */
	bool		has_rotate_every;
	Interval	rotate_every;
	bool		has_retain_for;
	Interval	retain_for;
} ShardSchedule;

/* What is to be done about it now. */
typedef struct ShardDue
{
	bool		begin;			/* nobody has noted the present generation */
	TimestampTz began;			/* of the present generation, else */
	TimestampTz next_rotation;	/* DT_NOEND: never, or not known */
	bool		rotate;
	int			nranges;		/* closed shards that can get a range */
	int			nexpired;		/* closed shards whose rows are too old */
} ShardDue;

/* What a session that finds something to be due tells the worker. */
typedef struct ShardWorkerTask
{
	Oid			database;
	Oid			role;			/* the owner of the logical table */
	Oid			logical;
} ShardWorkerTask;

/* What the last run of maintain() has left. */
typedef struct ShardRun
{
	bool		is_confirmed;	/* old rows may be dropped */
	TimestampTz last_run;		/* 0: there was none */
	int			failures;		/* runs since all went well */
} ShardRun;

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
	bool		is_valid;		/* false: catalogs have changed ... */
	bool		is_changed;		/* ... in what they say of the table */
	bool		is_all_stale;	/* ... or of more shards than these: */
	int			nstale;
	Oid			stale[8];
	bool		is_complete;	/* all shards are described */
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
	AttrNumber	seq_attno;		/* column with option "sequence", or 0 */
	bool		seq_always;		/* ... with value "always" */
	bool		commit_order;	/* one transaction at a time writes a shard */
	bool		single_node;	/* a transaction writes to one server */
	AttrNumber	time_attno;		/* column of option "time_column", or 0 */
	Oid			time_type;		/* ... its type */
	int			nranges;		/* members that have a range */
	ShardSchedule schedule;
	int			nmembers;
	ShardMember *members;		/* in ordinal order */
	ShardByOid *sorted;			/* the shards, by OID */
	int			nopen;
	int		   *open;			/* ordinals of the open shards, ascending */
	int			nunseen;		/* closed shards that are not in "members", */
	Oid		   *unseen;			/* ... sorted; see shard_table_get_open() */

	TransactionId newest_place; /* latest "place_xid" of a member, if any */

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
	uint64		next;			/* round robin: turns taken so far */
	Oid			lane_shard;		/* whose lane was taken last, or InvalidOid */
	LocalTransactionId lane_lxid;	/* ... by this transaction */

	/* The same; owned by alarm.c. */
	TimestampTz check_at;		/* look then whether something is due */
} ShardTable;

/* A subtransaction in which shard_fdw carries out DDL of its own. */
typedef struct ShardActing
{
	LocalTransactionId lxid;
	SubTransactionId subid;		/* InvalidSubTransactionId: there is none */
} ShardActing;

/* What shard_become_owner() saves for shard_restore_identity(). */
typedef struct ShardIdentity
{
	ShardActing acting;
	Oid			userid;
	int			sec_context;
	int			guc_level;
} ShardIdentity;

/* in cache.c */
extern bool shard_has_single_node;
extern void shard_table_init(void);
extern ShardTable *shard_table_get_open(Oid relid);
extern ShardTable *shard_table_get(Oid relid);
extern ShardTable *shard_table_settle(Oid relid);
extern bool shard_table_is_known(Oid relid);
extern ShardMember *shard_list_members(Oid relid, int *nmembers);
extern void shard_table_sweep(void);
extern int	shard_find_by_oid(const ShardByOid *sorted, int n, Oid relid);
extern int	shard_table_find(const ShardTable *table, Oid shard);

/* in checks.c */
extern bool shard_find_range(Oid relid, Oid logical, AttrNumber attno,
							 ShardMember *member);
extern void shard_find_placement(Oid relid, Oid logical, Datum options,
								 ShardMember *member);
extern const char *shard_check_kind(Datum bin, const char *name);
extern void shard_read_places(ShardTable *table);
extern bool shard_own_place(const ShardTable *table, int *modulus,
							int *remainder);
extern char *shard_seal_constraint(Oid relid);
extern char *shard_placement_constraint(Oid relid);

/* in command.c */
extern int	shard_name_stem(const char *name, uint64 *number);
extern void shard_check_argument(FunctionCallInfo fcinfo, int n,
								 const char *name);
extern bool shard_stops_on_error(const char *value);
extern char *shard_qualified_name(Oid relid);
extern char *shard_column_list(Relation rel, const char *prefix,
							   bool with_generated);
extern void shard_append_storage_parameters(StringInfo sql, Relation rel);
extern void shard_execute(const char *format,...) pg_attribute_printf(1, 2);
extern void shard_drop_seal(Oid shard);
extern void shard_set(const char *name, const char *value);
extern void shard_become_owner(Relation logical, ShardIdentity *identity);
extern void shard_restore_identity(const ShardIdentity *identity);
extern bool shard_is_acting(void);
extern ErrorData *shard_catch(MemoryContext context, ResourceOwner owner);
extern bool shard_try_command(char *(*run) (void *arg), void *arg,
							  char **result);

/* in due.c */
extern void shard_make_schedule(const ShardOptions *options, Oid time_type,
								ShardSchedule *schedule);
extern bool shard_is_before(Datum value, Oid type, TimestampTz limit);
extern TimestampTz shard_retention_limit(TimestampTz now,
										 const Interval *retain_for);
extern bool shard_is_expired(const ShardMember *member, Oid type,
							 TimestampTz limit);
extern void shard_find_due(Oid logical, const ShardSchedule *schedule,
						   const ShardMember *members, int nmembers,
						   TimestampTz now, ShardDue *due);

/* in key.c */
extern bool shard_can_hash_with(Oid opfamily, Oid type);
extern PartitionKey shard_key_create(Oid relid, const char *columns,
									 bool missing_ok);
extern void shard_report_bad_key(const ShardTable *table);
extern char *shard_key_columns(PartitionKey key, Oid relid);
extern uint64 shard_key_hash(PartitionKey key, TupleTableSlot *row);
extern void shard_hash_functions(const Oid *types, int n,
								 FmgrInfo *functions);
extern uint64 shard_key_hash_values(PartitionKey key, const Oid *types,
									Datum *values, bool *nulls);
extern bool shard_key_in_index(PartitionKey key, Oid relid, Oid shard,
							   int nattrs, const int16 *attrs,
							   const Oid *opfamilies, const Oid *opcintypes,
							   const Oid *collations);
extern bool shard_key_values_equal(PartitionKey key, int i, Datum a, Datum b);

/* in lease.c */
extern void shard_lock_tag(LOCKTAG *tag, Oid relid, uint32 number,
						   uint16 kind);
extern void shard_maintenance_tag(LOCKTAG *tag, Oid logical);
extern void shard_command_tag(LOCKTAG *tag, Oid logical);
extern void shard_lease_tag(LOCKTAG *tag, Oid shard, uint32 level);
extern bool shard_holds_lease(const ShardTable *table);
extern void shard_forget_lease(ShardTable *table);
extern void shard_note_unreachable(Oid shard);
extern bool shard_is_unreachable(Oid shard);
extern void shard_lane_tag(LOCKTAG *tag, Oid shard);
extern bool shard_try_lane(ShardTable *table, const ShardMember *member,
						   bool dont_wait);
extern void shard_take_lane(ShardTable *table, int ordinal);
extern void shard_await_lane(Oid shard);

/* in ledger.c */
extern uint64 shard_query_ledger(const char *name, const char *sql, int nargs,
								 const Oid *types, Datum *values,
								 const char *nulls);
extern uint64 shard_write_ledger(const char *name, const char *sql, int nargs,
								 const Oid *types, Datum *values,
								 const char *nulls);
extern bool shard_is_closed(Oid shard);
extern TransactionId shard_rows_gone_xid(Oid shard);
extern void shard_get_run(Oid logical, ShardRun *run);

/* in lock.c */
extern int	shard_lock_patience(void);
extern void shard_limit_lock_wait(int milliseconds);
extern void shard_pause_lock_wait(int *pause, long left);
extern bool shard_try_patiently(List *relids, LOCKMODE mode, int patience);
extern void shard_lock_two_patiently(List *relids, LOCKMODE mode, List *others,
									 LOCKMODE other_mode);
extern TimestampTz shard_lock_try_start(void);
extern void shard_lock_all_patiently(List *relids, LOCKMODE mode);
extern void shard_lock_patiently(Oid relid, LOCKMODE mode);
extern List *shard_lock_tree_patiently(Oid relid, LOCKMODE mode);

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
extern bool shardAnalyzeForeignTable(Relation rel,
									 AcquireSampleRowsFunc *func,
									 BlockNumber *totalpages);
extern bool shard_is_our_routine(const FdwRoutine *routine);
extern void shard_report_missing(Oid relid);
extern void shard_check_logical(Oid relid);
extern void shard_check_readable(Oid relid);
extern void shard_check_read_committed(const char *action);
extern bool shard_is_node(Oid server);
extern void shard_check_owned(Oid relid);
extern void shard_check_plain(Oid logical, const ShardMember *shard,
							  const char *action);
extern List *shard_parents(Oid relid);
extern List *shard_logical_parents(Oid relid);
extern void shard_check_to_alter(Oid shard, bool or_sealed);

/* in map.c */
extern AttrMap *shard_map_by_name(Relation logical, Relation shard);
extern const AttrMap *shard_member_map(ShardMember *member, ShardTable *table,
									   Relation logical, Relation shard);

/* in node_snapshot.c */
extern void shard_note_node_use(void);
extern bool shard_has_used_node(void);
extern bool shard_node_shows(TransactionId xid);
extern void shard_forget_load(void);
extern void shard_node_snapshot_init(void);

/* in option.c */
extern const char *shard_route_name(ShardRoute route);
extern const char *shard_state_name(ShardState state);
extern void shard_get_options(Oid relid, ShardOptions *options);
extern void shard_read_options(Datum server, Datum stored,
							   ShardOptions *options);
extern void shard_check_options(Oid relid);
extern Oid	shard_schema_option(Oid logical, const ShardOptions *options,
								int elevel);

/* in placement.c */
extern int	shard_id_slot_of(int64 id, int stride);
extern Expr *shard_in_slot_clause(int stride, int id_slot, Expr *id);
extern bool shard_id_fits(int64 id, int stride, int id_slot);
extern Oid	shard_function(const char *name, const Oid *types, int ntypes);
extern Expr *shard_in_hash_clause(int modulus, int remainder, List *exprs);
extern bool shard_is_placement(Node *expr);
extern bool shard_is_newer(const ShardMember *member, Snapshot snapshot);
extern int	shard_find_place(const ShardTable *table, uint64 hash);
extern bool shard_is_time_type(Oid type);
extern char *shard_range_constraint(Oid relid, bool *is_valid);

/* in progress.c */
extern void shard_progress_init(void);
extern void shard_progress_start(const char *command, Oid logical,
								 int64 total);
extern void shard_progress_expect(int64 more);
extern void shard_progress_phase(const char *phase);
extern void shard_progress_add(int64 done);
extern void shard_progress_end(void);

/* in sees_rows.c */
extern bool shard_sees_rows(Node *node, List **depends);
extern bool shard_generated_see_rows(Relation rel, List **depends);
extern bool shard_copy_sees_rows(Relation rel);
extern bool shard_indexes_see_rows(ResultRelInfo *rri);

/* in sequence.c */
extern int64 shard_id_from_datum(Datum value, Oid type);
extern bool shard_is_integer_type(Oid type);
extern bool shard_get_sequence(Oid sequence, Form_pg_sequence form);
extern AttrNumber shard_sequence_column(Oid relid, bool missing_ok,
										bool *always);
extern Oid	shard_default_sequence(Oid relid, const char *column);
extern int	shard_sequence_id_slot(Oid sequence, int stride);

#endif							/* SHARD_TABLE_H */
