/*-------------------------------------------------------------------------
 *
 * plan_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_PLAN_PRIVATE_H
#define SHARD_PLAN_PRIVATE_H

#include "plan/plan.h"

/* Steps through the members of an inheritance set; begin with next = 0. */
typedef struct ShardChildren
{
	PlannerInfo *root;
	Index		parent;			/* range table index of the set's parent */
	int			next;			/* in root->append_rel_list */
} ShardChildren;

/* A shard that can have rows that match a query's conditions. */
typedef struct ShardKept
{
	Oid			relid;
	bool		has_children;	/* may have inheritance children of its own */
	int			part;			/* which partition it is; see below */
	int			modulus;		/* which hashes of the key it holds */
	int			remainder;
	int			nchecks;		/* CHECK constraints that we have read */
	bool		has_range;		/* its times are in this range, as in
								 * ShardMember */
	int64		range_min;
	int64		range_max;
	int			stride;			/* which ids it holds; 0: any */
	int			id_slot;
} ShardKept;

/* Times from min to max, both included, as in ShardMember. */
typedef struct ShardTimes
{
	int64		min;
	int64		max;
} ShardTimes;

/* A set of times, in parts that do not overlap, ascending. */
typedef struct ShardTimeSet
{
	int			n;
	ShardTimes *times;
} ShardTimeSet;

/* Of one query so many tables can have their shards looked up, at most. */
#define SHARD_MAX_LOOKUPS	4

/* What it is that fixes the shard of a logical table. */
typedef struct ShardChoice
{
	Oid			logical;
	List	   *values;			/* expressions for the key's columns */
	bool		by_id;			/* or for an id */
	LOCKMODE	lockmode;		/* for the shard */
	int			number;			/* of the lookup in the query, from 0 */
	Oid			shard;			/* that a plan has been made for */
} ShardChoice;

/* A logical table of a query whose rows are all in one shard. */
typedef struct ShardLookup
{
	Query	   *query;			/* the query or subquery with the table ... */
	Index		rti;			/* ... and where the table is in it */
	bool		is_certain;		/* the values are the same in all executions */
	bool		is_known;		/* the values are known for now */
	bool		is_applied;		/* the shard has taken the table's place */
	ShardChoice choice;
} ShardLookup;

/*
 * To which scans of shards a key or an id leads.
 *
 * Those of the first list whose place is the hash of the key, or the slot of the
 * id, modulo "modulus".
 */
typedef struct ShardByKey
{
	bool		by_id;
	int			ncolumns;
	int			modulus;
	int		   *first;			/* by place: a scan, or -1 */
	int			nscans;
	int		   *next;			/* by scan: another with the same place, or -1 */
	int			nmembers;		/* shards that the table has */
} ShardByKey;

/* Which shards a query is to be planned for. */
typedef struct ShardChosen
{
	ParamListInfo params;		/* those that these values lead to ... */
	Oid			shards[SHARD_MAX_LOOKUPS];	/* ... by number of the lookup */
} ShardChosen;

/* A query that is being planned; see planning.c. */
typedef struct ShardPlanning
{
	struct ShardPlanning *outer;	/* what is planned while that goes on */
	Query	   *query;			/* as it was, or NULL: nothing is assumed */
	int			cursor_options;
	List	   *assumptions;
	List	   *lookups;		/* what the executor is to look at; of
								 * ShardLookup */
	bool		is_stub;		/* not to be executed; see choice.c */
	bool		has_shards;		/* shards have taken the place of tables */
	List	   *depends;		/* OIDs of logical tables, on all of whose
								 * shards it depends */
} ShardPlanning;

/*
 * What the conditions of a query leave of a logical table.
 *
 * If its shards are placed as the partitions of a hash-partitioned table are,
 * the second part describes that table, and "kept" has the order of its
 * partitions; else it has that of the ordinals.
 */
typedef struct ShardPruning
{
	RelOptInfo *rel;			/* the logical table */
	int			nkept;
	int			kept_space;		/* for so many there is space */
	ShardKept  *kept;
	int			nleft_out;
	Oid		   *left_out;		/* the other shards */
	int			nmembers;
	ShardByOid *sorted;			/* all shards, by OID */
	int		   *kept_index;		/* in kept, by ordinal; -1: left out */
	struct ShardIds *ids;		/* what conditions say of ids */
	bool		is_transient;	/* a later snapshot would leave out more */

	/* Option "time_column". */
	ShardTimeSet *times;		/* what conditions allow; NULL: all */
	List	   *time_conditions;	/* these conditions */
	bool		has_estimates;	/* they allow that for now */
	TransactionId certain_xmin; /* ranges made by earlier transactions hold */
	ShardTimes *gaps;			/* where left out shards are; see add_gap() */
	List	   *late_conditions;	/* those that can gate shards */
	Index		time_security;

	bool		is_hash;
	int			nparts;
	PartitionScheme scheme;
	List	  **partexprs;		/* by column of the key: a list of that column */
	PartitionBoundInfo bounds;	/* NULL if core need not know them */
	List	   *key_values;		/* expressions that gate shards, or NIL */
	Index		key_security;
} ShardPruning;

/* in assume.c */
extern void shard_planning_push(ShardPlanning *planning);
extern void shard_planning_pop(const ShardPlanning *planning);
extern bool shard_is_planning(void);
extern bool shard_may_assume(void);
extern bool shard_may_be_cursor(void);
extern void shard_assume(List *conditions, const ShardTimes *gaps, int ngaps);
extern PlannerInfo *shard_root_with_params(ParamListInfo params);
extern bool shard_assumptions_hold(List *assumptions, ParamListInfo params);

/* in by_key_exec.c */
extern const struct CustomScanMethods shard_by_key_methods;
extern List *shard_describe_by_key(const ShardByKey *places,
								   const Oid *collations, int array_column);

/* in choice.c */
extern Plan *shard_make_stub(Plan *plan);
extern List *shard_describe_choice(const ShardChoice *choice, bool is_stub);
extern ShardChosen *shard_take_chosen(void);
extern PlannedStmt *shard_choose_plan(CustomScan *note, QueryDesc *query_desc,
									  int eflags);
extern void shard_choice_init(void);

/* in core_plan.c */
extern Alias *shard_child_alias(const RangeTblEntry *rte, const char *name,
								TupleDesc desc,
								const AttrNumber *parent_colnos);
extern Index shard_expand_child(PlannerInfo *root, RelOptInfo *rel,
								RangeTblEntry *rte, Relation parent,
								Relation child);
extern void shard_set_append_size(PlannerInfo *root, RelOptInfo *rel,
								  RangeTblEntry *rte, Relids settled);
extern PartitionScheme shard_find_partition_scheme(PlannerInfo *root,
												   PartitionKey partkey);

/* in cursor.c */
extern void shard_gate_current_row(PlannerInfo *root, RelOptInfo *rel,
								   RangeTblEntry *rte);

/* in explain.c */
extern void shard_show_lookup(PlannedStmt *plan, Oid shard, int nremoved);
extern void shard_explain_init(void);

/* in gather.c */
extern void shard_gather_scans(PlannerInfo *root, RelOptInfo *rel);

/* in lookup.c */
extern List *shard_find_lookups(Query *query, ParamListInfo params);
extern Oid	shard_lock_chosen(const ShardChoice *choice, ParamListInfo params,
							  bool *is_known);
extern void shard_apply_lookups(List *lookups, ParamListInfo params);

/* in node_use.c */
extern void shard_note_planning(Oid relid, const RelOptInfo *rel);
extern void shard_check_node_use(const PlannedStmt *plan);

/* in planning.c */
extern void shard_planning_missed(PlannerInfo *root);
extern void shard_planning_begin(ShardPlanning *planning, Query *query,
								 int cursor_options, ParamListInfo params);
extern void shard_planning_note(const ShardPlanning *planning,
								PlannedStmt *plan);

/* in prune.c */
extern bool shard_is_key_equality(PlannerInfo *root, Node *left, Oid opno,
								  Oid inputcollid, Node *value, Var *column,
								  Oid opfamily, Oid collation, Relids outer);
extern Node *shard_key_operand(PlannerInfo *root, Expr *clause, Var *column,
							   Oid opfamily, Oid collation, Relids outer);
extern Node *shard_key_value(PlannerInfo *root, Expr *clause, Var *column,
							 Oid opfamily, Oid collation);
extern Node *shard_with_collation(const Node *expr, Oid collation);
extern RelOptInfo *shard_next_child(ShardChildren *children);
extern void shard_gate(PlannerInfo *root, RelOptInfo *child, Expr *clause,
					   Index security_level);
extern ShardPruning *shard_prune_begin(PlannerInfo *root, RelOptInfo *rel,
									   Oid relid);
extern const ShardKept *shard_prune_find(const ShardPruning *pruning,
										 Oid relid);
extern bool shard_prune_leaves_out(const ShardPruning *pruning, Oid relid);
extern void shard_prune_settle(PlannerInfo *root,
							   const ShardPruning *pruning);
extern void shard_prune_gate(PlannerInfo *root, const ShardPruning *pruning);

/* in remote_agg.c */
extern void shard_offer_remote_aggregates(PlannerInfo *root, RelOptInfo *rel);

/* in remote_limit.c */
extern void shard_plan_limits(PlannedStmt *stmt);

/* in remote_scan.c */
extern void shard_plan_gates(PlannedStmt *stmt);
extern PlannedStmt *shard_skip_nodes(PlannedStmt *stmt);

/* in times.c */
extern List *shard_time_conditions(PlannerInfo *root, RelOptInfo *rel,
								   AttrNumber attno, Oid type,
								   Index *security_level);
extern ShardTimeSet *shard_times_allowed(PlannerInfo *root, List *conditions,
										 bool may_estimate,
										 bool *has_estimates, List **useful,
										 List **unknown);
extern int	shard_times_from(const ShardTimeSet *set, int64 min);
extern bool shard_times_overlap(const ShardTimeSet *set, int64 min, int64 max);
extern List *shard_time_gates(PlannerInfo *root, List *conditions, int64 min,
							  int64 max);

#endif							/* SHARD_PLAN_PRIVATE_H */
