/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between the PostgreSQL major versions we build on.
 *
 * Nothing else belongs here, and no other file tests PG_VERSION_NUM.  Each
 * entry names the release that changed the interface.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_COMPAT_H
#define SHARD_COMPAT_H

/* 15.2 gave the executor its list of pending inserts; see batch.c. */
#if PG_VERSION_NUM < 150002
#error "shard_fdw needs PostgreSQL 15.2 or later"
#endif

#include "access/attmap.h"
#include "access/tupconvert.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "storage/proc.h"
#if PG_VERSION_NUM < 170000
#include "storage/backendid.h"
#include "storage/sinvaladt.h"
#else
#include "storage/procarray.h"
#endif
/* 18 split explain.h. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* 16 replaced the per-catalog ownership checks with one function. */
#if PG_VERSION_NUM < 160000
#define shard_class_ownercheck(relid, roleid) \
	pg_class_ownercheck(relid, roleid)
#else
#define shard_class_ownercheck(relid, roleid) \
	object_ownercheck(RelationRelationId, relid, roleid)
#endif

static inline bool
shard_may_use_schema(Oid schema)
{
#if PG_VERSION_NUM < 160000
	return pg_namespace_aclcheck(schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#else
	return object_aclcheck(NamespaceRelationId, schema, GetUserId(),
						   ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* One of these lets a role lock a table; 17 has a new one. */
#if PG_VERSION_NUM < 170000
#define SHARD_ACL_LOCK	(ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)
#else
#define SHARD_ACL_LOCK	(ACL_MAINTAIN | ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)
#endif

/* 16 renamed relfilenodes to relfilenumbers in the relation cache. */
#if PG_VERSION_NUM < 160000
#define shard_rel_new_storage_subid(rel) ((rel)->rd_firstRelfilenodeSubid)
#else
#define shard_rel_new_storage_subid(rel) ((rel)->rd_firstRelfilelocatorSubid)
#endif

/* 17 has a process's two parts of a virtual transaction id together. */
static inline LocalTransactionId
shard_my_lxid(void)
{
#if PG_VERSION_NUM < 170000
	return MyProc->lxid;
#else
	return MyProc->vxid.lxid;
#endif
}

/* 17 numbers backends from 0 (ProcNumber) instead of from 1 (BackendId). */
static inline int
shard_backend_number(void)
{
#if PG_VERSION_NUM < 170000
	return MyBackendId > 0 ? MyBackendId - 1 : 0;
#else
	return MyProcNumber >= 0 ? MyProcNumber : 0;
#endif
}

/*
 * The process that runs a virtual transaction; 0 if none does, because it is
 * prepared or has ended.  17 has changed how one looks for it.
 */
static inline int
shard_vxid_pid(const VirtualTransactionId *vxid)
{
#if PG_VERSION_NUM < 170000
	PGPROC	   *proc = BackendIdGetProc(vxid->backendId);

	return proc != NULL && proc->lxid == vxid->localTransactionId ?
		proc->pid : 0;
#else
	PGPROC	   *proc = ProcNumberGetProc(vxid->procNumber);

	return proc != NULL && proc->vxid.lxid == vxid->localTransactionId ?
		proc->pid : 0;
#endif
}

/* 17 lets LockHeldByMe() accept stronger locks too. */
static inline bool
shard_lock_held(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM < 170000
	return LockHeldByMe(tag, mode);
#else
	return LockHeldByMe(tag, mode, false);
#endif
}

/*
 * 16 can restrict index insertion to summarizing indexes.  With "conflict"
 * given, duplicates in the arbiters, or in any index if there are none, are
 * no errors but reported there.
 */
static inline List *
shard_insert_index_tuples(ResultRelInfo *rri, TupleTableSlot *slot,
						  EState *estate, bool *conflict, List *arbiters)
{
#if PG_VERSION_NUM < 160000
	return ExecInsertIndexTuples(rri, slot, estate, false, conflict != NULL,
								 conflict, arbiters);
#else
	return ExecInsertIndexTuples(rri, slot, estate, false, conflict != NULL,
								 conflict, arbiters, false);
#endif
}

/* Index insertion for a new version of a row, after table_tuple_update(). */
#if PG_VERSION_NUM < 160000
typedef bool ShardUpdateIndexes;
#else
typedef TU_UpdateIndexes ShardUpdateIndexes;
#endif

static inline List *
shard_update_index_tuples(ResultRelInfo *rri, TupleTableSlot *slot,
						  EState *estate, ShardUpdateIndexes which)
{
#if PG_VERSION_NUM < 160000
	return which ? ExecInsertIndexTuples(rri, slot, estate, true, false, NULL,
										 NIL) : NIL;
#else
	return which != TU_None ?
		ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL,
							  which == TU_Summarizing) : NIL;
#endif
}

/* 18 can ignore one tuple. */
static inline bool
shard_check_index_constraints(ResultRelInfo *rri, TupleTableSlot *slot,
							  EState *estate, ItemPointer conflict,
							  List *arbiters)
{
#if PG_VERSION_NUM < 180000
	return ExecCheckIndexConstraints(rri, slot, estate, conflict, arbiters);
#else
	ItemPointerData none;

	ItemPointerSetInvalid(&none);
	return ExecCheckIndexConstraints(rri, slot, estate, conflict, &none,
									 arbiters);
#endif
}

/* 16 also reports what became of the row, 18 is told about MERGE. */
static inline bool
shard_fire_before_update(EState *estate, EPQState *epqstate,
						 ResultRelInfo *rri, ItemPointer tid,
						 TupleTableSlot *row, TM_FailureData *tmfd)
{
#if PG_VERSION_NUM < 160000
	return ExecBRUpdateTriggers(estate, epqstate, rri, tid, NULL, row, tmfd);
#elif PG_VERSION_NUM < 180000
	return ExecBRUpdateTriggers(estate, epqstate, rri, tid, NULL, row, NULL,
								tmfd);
#else
	return ExecBRUpdateTriggers(estate, epqstate, rri, tid, NULL, row, NULL,
								tmfd, false);
#endif
}

/* 18 can return the old row beside the new one. */
#if PG_VERSION_NUM < 180000
#define shard_returns_old(rri) false
#else
#define shard_returns_old(rri) \
	((rri)->ri_projectReturning != NULL && \
	 ((rri)->ri_projectReturning->pi_state.flags & EEO_FLAG_HAS_OLD) != 0)
#endif

/*
 * 16 finds the map from the root's columns to the child's by itself when
 * somebody asks for the inserted columns; 15 wants it set.
 */
static inline void
shard_set_root_map(ResultRelInfo *rri, Relation root, AttrMap *map)
{
#if PG_VERSION_NUM < 160000
	if (map != NULL)
	{
		TupleConversionMap *conv = palloc0(sizeof(TupleConversionMap));

		conv->indesc = RelationGetDescr(root);
		conv->outdesc = RelationGetDescr(rri->ri_RelationDesc);
		conv->attrMap = map;
		rri->ri_RootToPartitionMap = conv;
	}
#endif
}

/* 16 can build a map that leaves out columns the input does not have. */
static inline AttrMap *
shard_attrmap_by_name(TupleDesc from, TupleDesc to)
{
#if PG_VERSION_NUM < 160000
	return build_attrmap_by_name(from, to);
#else
	return build_attrmap_by_name(from, to, false);
#endif
}

/* 17 and 18 check more than the kind of the relation. */
static inline void
shard_check_insert_target(ResultRelInfo *rri)
{
#if PG_VERSION_NUM < 170000
	CheckValidResultRel(rri, CMD_INSERT);
#elif PG_VERSION_NUM < 180000
	CheckValidResultRel(rri, CMD_INSERT, NIL);
#else
	CheckValidResultRel(rri, CMD_INSERT, ONCONFLICT_NONE, NIL);
#endif
}

/* 16 made COPY collect rows for foreign tables that take batches. */
#define shard_copy_is_row_by_row	(PG_VERSION_NUM < 160000)

/* 16 moved permission checks out of the range table entry. */
#if PG_VERSION_NUM < 160000
#define shard_rte_no_permissions(rte) ((rte)->requiredPerms = 0)
#else
#define shard_rte_no_permissions(rte) ((rte)->perminfoindex = 0)
#endif

/*
 * 16 knows which outer joins can null a relation; join clauses from above
 * those are of no use to a child.
 */
#if PG_VERSION_NUM < 160000
#define shard_useless_for_child(rinfo, rel) false
#else
#define shard_useless_for_child(rinfo, rel) \
	bms_overlap((rinfo)->clause_relids, (rel)->nulling_relids)
#endif

/* 16 describes in another way what outer joins a condition waits for. */
#if PG_VERSION_NUM < 160000
#define shard_make_pseudoconstant(root, clause, security_level) \
	make_restrictinfo(root, clause, true, false, true, security_level, \
					  NULL, NULL, NULL)
#else
#define shard_make_pseudoconstant(root, clause, security_level) \
	make_restrictinfo(root, clause, true, false, false, true, security_level, \
					  NULL, NULL, NULL)
#endif

/* 18 gives an append relation the tuples of its children, not their rows. */
#define shard_append_tuples(rows, tuples) \
	(PG_VERSION_NUM < 180000 ? (rows) : (tuples))

/* 18 renamed the field. */
#if PG_VERSION_NUM < 180000
#define shard_check_exprs	ri_ConstraintExprs
#else
#define shard_check_exprs	ri_CheckConstraintExprs
#endif

/* 18 has constraints that are declared but not enforced. */
#if PG_VERSION_NUM < 180000
#define shard_constraint_enforced(con) true
#else
#define shard_constraint_enforced(con) ((con)->conenforced)
#endif

#endif							/* SHARD_COMPAT_H */
