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
#error "shard_fdw requires PostgreSQL 15.2 or later"
#endif

#include "access/attmap.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/tupconvert.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/plancat.h"
#include "parser/parse_relation.h"
#include "postmaster/bgworker.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"
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

/* 19 has neither funcapi.h nor executor.h include these any more. */
#include "executor/instrument.h"
#include "utils/tuplestore.h"

/* 17 lets a background worker be a role that cannot log in. */
#ifdef BGWORKER_BYPASS_ROLELOGINCHECK
#define SHARD_BYPASS_LOGIN_CHECK BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define SHARD_BYPASS_LOGIN_CHECK 0
#endif

/* 18 took the argument run_once from PortalRun. */
#if PG_VERSION_NUM < 180000
#define shard_run_portal(portal, dest, completion) \
	((void) PortalRun(portal, FETCH_ALL, true, true, dest, dest, completion))
#else
#define shard_run_portal(portal, dest, completion) \
	((void) PortalRun(portal, FETCH_ALL, true, dest, dest, completion))
#endif

/* 16 replaced the per-catalog ownership checks with one function. */
#if PG_VERSION_NUM < 160000
#define shard_class_ownercheck(relid, roleid) \
	pg_class_ownercheck(relid, roleid)
#else
#define shard_class_ownercheck(relid, roleid) \
	object_ownercheck(RelationRelationId, relid, roleid)
#endif

/*
 * 16 replaced the per-catalog privilege checks, too.
 */
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

static inline bool
shard_may_connect(Oid role)
{
#if PG_VERSION_NUM < 160000
	return pg_database_aclcheck(MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK;
#else
	return object_aclcheck(DatabaseRelationId, MyDatabaseId, role,
						   ACL_CONNECT) == ACLCHECK_OK;
#endif
}

static inline bool
shard_may_use_server(Oid server, Oid role)
{
#if PG_VERSION_NUM < 160000
	return pg_foreign_server_aclcheck(server, role, ACL_USAGE) == ACLCHECK_OK;
#else
	return object_aclcheck(ForeignServerRelationId, server, role,
						   ACL_USAGE) == ACLCHECK_OK;
#endif
}

/*
 * What other sessions are to know of a session: number 1 and so on of those
 * that there are.  16 renamed the function.
 */
static inline PgBackendStatus *
shard_backend_status(int number)
{
#if PG_VERSION_NUM < 160000
	LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(number);
#else
	LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(number);
#endif

	return local != NULL ? &local->backendStatus : NULL;
}

/* 16 has a function that raises an error if there is not as much to read. */
#if PG_VERSION_NUM < 160000
#define shard_buffile_read(file, data, size) \
	do { \
		if (BufFileRead(file, data, size) != (size)) \
			elog(ERROR, "could not read from temporary file"); \
	} while (0)
#else
#define shard_buffile_read(file, data, size) BufFileReadExact(file, data, size)
#endif

/* One of these lets a role lock a table; 17 has a new one. */
#if PG_VERSION_NUM < 170000
#define SHARD_ACL_LOCK	(ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)
#else
#define SHARD_ACL_LOCK	(ACL_MAINTAIN | ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)
#endif

/*
 * Up to 16, setting old_snapshot_threshold can have rows removed that a snapshot
 * shows.  Raise ERRCODE_SNAPSHOT_TOO_OLD if that may have happened to a page.
 */
#if PG_VERSION_NUM < 170000
#define shard_check_snapshot_age(snapshot, rel, page) \
	TestForOldSnapshot(snapshot, rel, page)
#else
#define shard_check_snapshot_age(snapshot, rel, page) ((void) 0)
#endif

/* 16 renamed relfilenodes to relfilenumbers in the relation cache. */
#if PG_VERSION_NUM < 160000
#define shard_rel_new_storage_subid(rel) ((rel)->rd_firstRelfilenodeSubid)
#else
#define shard_rel_new_storage_subid(rel) ((rel)->rd_firstRelfilelocatorSubid)
#endif

/* 16 has memory of its own for what hooks of settings remember. */
#if PG_VERSION_NUM < 160000
#define shard_guc_malloc(size) malloc(size)
#else
#define shard_guc_malloc(size) guc_malloc(LOG, size)
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
 * 16 can restrict index insertion to summarizing indexes, 19 takes flags.  With
 * "conflict" given, duplicates in the arbiters, or in any index if there are none, are
 * no errors but reported there.
 */
static inline List *
shard_insert_index_tuples(ResultRelInfo *rri, TupleTableSlot *slot,
						  EState *estate, bool *conflict, List *arbiters)
{
#if PG_VERSION_NUM < 160000
	return ExecInsertIndexTuples(rri, slot, estate, false, conflict != NULL,
								 conflict, arbiters);
#elif PG_VERSION_NUM < 190000
	return ExecInsertIndexTuples(rri, slot, estate, false, conflict != NULL,
								 conflict, arbiters, false);
#else
	return ExecInsertIndexTuples(rri, estate,
								 conflict != NULL ? EIIT_NO_DUPE_ERROR : 0,
								 slot, arbiters, conflict);
#endif
}

/* Index insertion for a new version of a row, after table_tuple_update(). */
#if PG_VERSION_NUM < 160000
typedef bool ShardUpdateIndexes;
#else
typedef TU_UpdateIndexes ShardUpdateIndexes;
#endif

/* 16 tells which indexes an update concerns, 19 takes flags. */
static inline List *
shard_update_index_tuples(ResultRelInfo *rri, TupleTableSlot *slot,
						  EState *estate, ShardUpdateIndexes which)
{
#if PG_VERSION_NUM < 160000
	return which ? ExecInsertIndexTuples(rri, slot, estate, true, false, NULL,
										 NIL) : NIL;
#elif PG_VERSION_NUM < 190000
	return which != TU_None ?
		ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL,
							  which == TU_Summarizing) : NIL;
#else
	uint32		flags = EIIT_IS_UPDATE;

	if (which == TU_Summarizing)
		flags |= EIIT_ONLY_SUMMARIZING;
	return which != TU_None ?
		ExecInsertIndexTuples(rri, estate, flags, slot, NIL, NULL) : NIL;
#endif
}

/* 19 gave updates and deletions of rows a place for options. */
static inline TM_Result
shard_tuple_update(Relation rel, ItemPointer tid, TupleTableSlot *row,
				   EState *estate, TM_FailureData *tmfd, LockTupleMode *mode,
				   ShardUpdateIndexes *update_indexes)
{
#if PG_VERSION_NUM < 190000
	return table_tuple_update(rel, tid, row, estate->es_output_cid,
							  estate->es_snapshot,
							  estate->es_crosscheck_snapshot, true, tmfd, mode,
							  update_indexes);
#else
	return table_tuple_update(rel, tid, row, estate->es_output_cid, 0,
							  estate->es_snapshot,
							  estate->es_crosscheck_snapshot, true, tmfd, mode,
							  update_indexes);
#endif
}

/* The same for deletions. */
static inline TM_Result
shard_tuple_delete(Relation rel, ItemPointer tid, CommandId cid,
				   Snapshot snapshot, bool wait, TM_FailureData *tmfd)
{
#if PG_VERSION_NUM < 190000
	return table_tuple_delete(rel, tid, cid, snapshot, InvalidSnapshot, wait,
							  tmfd, false);
#else
	return table_tuple_delete(rel, tid, cid, 0, snapshot, InvalidSnapshot,
							  wait, tmfd);
#endif
}

/* 19 wants flags. */
static inline TableScanDesc
shard_beginscan_tidrange(Relation rel, Snapshot snapshot, ItemPointer first,
						 ItemPointer last)
{
#if PG_VERSION_NUM < 190000
	return table_beginscan_tidrange(rel, snapshot, first, last);
#else
	return table_beginscan_tidrange(rel, snapshot, first, last, 0);
#endif
}

/* A deletion of a row that is in another table from now on. */
static inline TM_Result
shard_tuple_move_away(Relation rel, ItemPointer tid, CommandId cid,
					  Snapshot snapshot, TM_FailureData *tmfd)
{
#if PG_VERSION_NUM < 190000
	return table_tuple_delete(rel, tid, cid, snapshot, InvalidSnapshot, true,
							  tmfd, true);
#else
	return table_tuple_delete(rel, tid, cid, TABLE_DELETE_CHANGING_PARTITION,
							  snapshot, InvalidSnapshot, true, tmfd);
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

/* 16 leaves out what need not be compared to tell groups apart. */
#if PG_VERSION_NUM < 160000
#define shard_group_clause(root) ((root)->parse->groupClause)
#else
#define shard_group_clause(root) ((root)->processed_groupClause)
#endif

/* 17 has expressions that make values of any type from json. */
#if PG_VERSION_NUM < 170000
#define shard_is_json_expr(node) false
#else
#define shard_is_json_expr(node) IsA(node, JsonExpr)
#endif

/*
 * 16 moved permission checks out of the range table entry.  No privileges are
 * asked for of a child; which columns are changed, decides on triggers.
 */
static inline void
shard_rte_of_child(RangeTblEntry *rte, const AppendRelInfo *appinfo)
{
#if PG_VERSION_NUM < 160000
	const Bitmapset *updated = rte->updatedCols;

	rte->requiredPerms = 0;
	rte->updatedCols = NULL;
	for (int i = 0; updated != NULL && i < appinfo->num_child_cols; i++)
		if (appinfo->parent_colnos[i] > 0 &&
			bms_is_member(appinfo->parent_colnos[i] - FirstLowInvalidHeapAttributeNumber,
						  updated))
			rte->updatedCols = bms_add_member(rte->updatedCols,
											  i + 1 - FirstLowInvalidHeapAttributeNumber);
#else
	rte->perminfoindex = 0;
#endif
}

/*
 * A shard has taken the place of the logical table in a query, which has
 * another entry now: the shard has the same columns changed, by its own numbers,
 * but no privileges are asked for.
 *
 * Since 16, the planner wants an entry that says who reads and what is changed,
 * but assertions of the executor allow none without privileges, so
 * shard_drop_permissions() takes it away when the plan has been made.  Nobody
 * inserts into such a shard: till then the entry tells, by the number of a
 * column, how many entries of the range table lie between shard and logical
 * table.
 */
static inline void
shard_rte_of_shard(Query *query, RangeTblEntry *rte, int distance,
				   Bitmapset *(*map_columns) (const Bitmapset *columns,
											  const AttrMap *map),
				   const AttrMap *map)
{
#if PG_VERSION_NUM < 160000
	rte->requiredPerms = 0;
	rte->selectedCols = map_columns(rte->selectedCols, map);
	rte->updatedCols = map_columns(rte->updatedCols, map);
#else
	RTEPermissionInfo *old = list_nth_node(RTEPermissionInfo,
										   query->rteperminfos,
										   rte->perminfoindex - 1);
	RTEPermissionInfo *info;

	rte->perminfoindex = 0;
	info = addRTEPermissionInfo(&query->rteperminfos, rte);
	info->checkAsUser = old->checkAsUser;
	info->selectedCols = map_columns(old->selectedCols, map);
	info->updatedCols = map_columns(old->updatedCols, map);
	info->insertedCols = bms_make_singleton(distance);
#endif
}

#if PG_VERSION_NUM < 160000
#define shard_drop_permissions(plan) ((void) 0)
#else
/*
 * The executor is to take the columns that an UPDATE of such a shard changes
 * from the logical table, as it does for any child.
 */
static inline void
shard_root_of_update(Plan *plan, PlannedStmt *stmt)
{
	ModifyTable *update = (ModifyTable *) plan;
	int			target;
	RangeTblEntry *rte;
	RTEPermissionInfo *info;

	if (plan == NULL || !IsA(plan, ModifyTable) || update->rootRelation != 0 ||
		list_length(update->resultRelations) != 1)
		return;
	target = linitial_int(update->resultRelations);
	rte = list_nth_node(RangeTblEntry, stmt->rtable, target - 1);
	if (rte->perminfoindex == 0)
		return;
	info = list_nth_node(RTEPermissionInfo, stmt->permInfos,
						 rte->perminfoindex - 1);
	if (info->requiredPerms == 0)
		update->rootRelation = target + bms_singleton_member(info->insertedCols);
}

static inline void
shard_drop_permissions(PlannedStmt *stmt)
{
	List	   *infos = NIL;
	ListCell   *lc;

	shard_root_of_update(stmt->planTree, stmt);
	foreach(lc, stmt->subplans)
		shard_root_of_update((Plan *) lfirst(lc), stmt);
	foreach(lc, stmt->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		RTEPermissionInfo *info;

		if (rte->perminfoindex == 0)
			continue;
		info = list_nth_node(RTEPermissionInfo, stmt->permInfos,
							 rte->perminfoindex - 1);
		rte->perminfoindex = 0;
		if (info->requiredPerms == 0)
			continue;
		infos = lappend(infos, info);
		rte->perminfoindex = list_length(infos);
	}
	stmt->permInfos = infos;
}
#endif

/* 18 has columns that are computed when they are read. */
#if PG_VERSION_NUM < 180000
#define shard_has_virtual_columns(rel) false
#else
#define shard_has_virtual_columns(rel) \
	(RelationGetDescr(rel)->constr != NULL && \
	 RelationGetDescr(rel)->constr->has_generated_virtual)
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

/* 19 has ON CONFLICT DO SELECT, whose state is that of DO UPDATE. */
#if PG_VERSION_NUM < 190000
typedef OnConflictSetState ShardOnConflict;
#define shard_on_conflict_selects(action) false
#define shard_lock_strength(state) LCS_NONE
#else
typedef OnConflictActionState ShardOnConflict;
#define shard_on_conflict_selects(action) ((action) == ONCONFLICT_SELECT)
#define shard_lock_strength(state) ((state)->oc_LockStrength)
#endif

/* 19 simplifies expressions by which columns are NOT NULL, if it is told. */
#if PG_VERSION_NUM < 190000
#define shard_note_not_null(root, rel) ((void) 0)
#else
#define shard_note_not_null(root, rel) get_relation_notnullatts(root, rel)
#endif

/* 19 has a hook for all simple relations in place of that for tables. */
#if PG_VERSION_NUM < 190000
typedef get_relation_info_hook_type ShardRelationHook;
#define shard_relation_hook get_relation_info_hook
#define SHARD_RELATION_HOOK_PARAMETERS \
	PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel
#define SHARD_RELATION_HOOK_ARGUMENTS	root, relid, inhparent, rel
#else
typedef build_simple_rel_hook_type ShardRelationHook;
#define shard_relation_hook build_simple_rel_hook
#define SHARD_RELATION_HOOK_PARAMETERS \
	PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte
#define SHARD_RELATION_HOOK_ARGUMENTS	root, rel, rte
#endif

/* 19 tells the planner of the EXPLAIN that it plans for. */
#if PG_VERSION_NUM < 190000
#define SHARD_PLANNER_PARAMETERS \
	Query *parse, const char *query_string, int cursor_options, \
	ParamListInfo params
#define SHARD_PLANNER_ARGUMENTS	parse, query_string, cursor_options, params
#else
#define SHARD_PLANNER_PARAMETERS \
	Query *parse, const char *query_string, int cursor_options, \
	ParamListInfo params, ExplainState *es
#define SHARD_PLANNER_ARGUMENTS	parse, query_string, cursor_options, params, es
#endif

static inline PlannedStmt *
shard_plan_query(Query *query, const char *query_string, int cursor_options,
				 ParamListInfo params)
{
#if PG_VERSION_NUM < 190000
	return planner(query, query_string, cursor_options, params);
#else
	return planner(query, query_string, cursor_options, params, NULL);
#endif
}

/* 16 notes in the columns themselves which outer joins can null them. */
#if PG_VERSION_NUM < 160000
#define shard_ec_below_outer_join(ec) ((ec)->ec_below_outer_join)
#define shard_em_may_be_null(em) (!bms_is_empty((em)->em_nullable_relids))
#else
#define shard_ec_below_outer_join(ec) false
#define shard_em_may_be_null(em) \
	(IsA((em)->em_expr, Var) && \
	 !bms_is_empty(((Var *) (em)->em_expr)->varnullingrels))
#endif

/* 19 can be told more about a scan. */
static inline TableScanDesc
shard_table_beginscan(Relation rel, Snapshot snapshot)
{
#if PG_VERSION_NUM < 190000
	return table_beginscan(rel, snapshot, 0, NULL);
#else
	return table_beginscan(rel, snapshot, 0, NULL, SO_NONE);
#endif
}

/* 19 has publications of all tables but some. */
#if PG_VERSION_NUM < 190000
#define shard_is_published(relid) (GetRelationPublications(relid) != NIL)
#else
#define shard_is_published(relid) RelationHasPublication(relid)
#endif

/* 18 counts the nodes of a path that the user does not want. */
static inline void
shard_add_disabled_nodes(Path *path, const Path *part)
{
#if PG_VERSION_NUM >= 180000
	path->disabled_nodes = Max(path->disabled_nodes, part->disabled_nodes);
#endif
}

/* 19 is told the children of an Append in one structure. */
static inline AppendPath *
shard_append_of_one(PlannerInfo *root, RelOptInfo *rel, Path *path)
{
#if PG_VERSION_NUM < 190000
	return create_append_path(root, rel, list_make1(path), NIL,
							  path->pathkeys, PATH_REQ_OUTER(path), 0, false,
							  -1);
#else
	AppendPathInput input = {.subpaths = list_make1(path)};

	return create_append_path(root, rel, input, path->pathkeys,
							  PATH_REQ_OUTER(path), 0, false, -1);
#endif
}

/* Is it a table that the plan writes?  19 has these as a set. */
static inline bool
shard_plan_writes(const PlannedStmt *plan, int rti)
{
#if PG_VERSION_NUM < 190000
	return list_member_int(plan->resultRelations, rti);
#else
	return bms_is_member(rti, plan->resultRelationRelids);
#endif
}

/* 17 can change what generates a column. */
static inline bool
shard_sets_expression(AlterTableType subtype)
{
#if PG_VERSION_NUM < 170000
	return false;
#else
	return subtype == AT_SetExpression;
#endif
}

/* 18 knows no strategy numbers but those of the access method. */
static inline void
shard_sort_support(Relation index, bool is_reverse, SortSupport column)
{
#if PG_VERSION_NUM < 180000
	PrepareSortSupportFromIndexRel(index, is_reverse ? BTGreaterStrategyNumber :
								   BTLessStrategyNumber, column);
#else
	PrepareSortSupportFromIndexRel(index, is_reverse, column);
#endif
}

#endif							/* SHARD_COMPAT_H */
