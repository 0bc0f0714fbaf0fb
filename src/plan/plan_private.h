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
	int			stride;			/* which ids it holds; 0: any */
	int			id_slot;
} ShardKept;

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
	ShardKept  *kept;
	List	   *left_out;		/* OIDs of the other shards */
	int			nmembers;
	ShardByOid *sorted;			/* all shards, by OID */
	int		   *kept_index;		/* in kept, by ordinal; -1: left out */
	struct ShardIds *ids;		/* what conditions say of ids */

	bool		is_hash;
	int			nparts;
	PartitionScheme scheme;
	List	  **partexprs;		/* by column of the key: a list of that column */
	PartitionBoundInfo bounds;	/* NULL if core need not know them */
	List	   *key_values;		/* expressions that gate shards, or NIL */
	Index		key_security;
} ShardPruning;

/* in core_plan.c */
extern Index shard_expand_child(PlannerInfo *root, RelOptInfo *rel,
								RangeTblEntry *rte, Relation parent,
								Relation child);
extern void shard_set_append_size(PlannerInfo *root, RelOptInfo *rel,
								  RangeTblEntry *rte, Relids settled);
extern PartitionScheme shard_find_partition_scheme(PlannerInfo *root,
												   PartitionKey partkey);

/* in prune.c */
extern RelOptInfo *shard_next_child(ShardChildren *children);
extern void shard_gate(PlannerInfo *root, RelOptInfo *child, Expr *clause,
					   Index security_level);
extern ShardPruning *shard_prune_begin(PlannerInfo *root, RelOptInfo *rel,
									   Oid relid);
extern const ShardKept *shard_prune_find(const ShardPruning *pruning,
										 Oid relid);
extern bool shard_prune_leaves_out(const ShardPruning *pruning, Oid relid);
extern void shard_prune_gate(PlannerInfo *root, const ShardPruning *pruning);

#endif							/* SHARD_PLAN_PRIVATE_H */
