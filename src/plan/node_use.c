/*-------------------------------------------------------------------------
 *
 * node_use.c
 *	  Which plans and commands use servers of postgres_fdw, and which of them
 *	  must not.
 *
 * What the servers show to a transaction is noted before it uses the first of
 * them; node_snapshot.c says why.  Inserting into shards does that for itself,
 * when it comes to a remote one (target.c); the rest is here.  A plan that reads
 * a shard that was moved to its server since then is refused, if rows had been
 * deleted there by the time the move was committed.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static ProcessUtility_hook_type prev_process_utility_hook = NULL;

/*
 * Is the relation, a foreign table that is locked, a logical table?
 */
static bool
is_logical(Oid relid)
{
	return shard_table_is_known(relid) || shard_is_logical(relid);
}

/*
 * Is option "use_remote_estimate" of postgres_fdw on, in a list of options?  The
 * result is "otherwise" if it is not there.
 */
static bool
asks_server(List *options, bool otherwise)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "use_remote_estimate") == 0)
			return defGetBoolean(def);
	}
	return otherwise;
}

/*
 * shard_note_planning
 *		A scan of a relation is about to be planned.  Note it if its server is
 *		asked for that.
 */
void
shard_note_planning(Oid relid, const RelOptInfo *rel)
{
	if (likely(rel->fdwroutine == NULL) || shard_has_used_node() ||
		shard_is_our_routine(rel->fdwroutine))
		return;
	if (asks_server(GetForeignTable(relid)->options,
					asks_server(GetForeignServer(rel->serverid)->options,
								false)))
		shard_note_node_use();
}

/*
 * Raise an error if a plan reads a remote shard that the transaction does not
 * see as it is.  "tables" are the logical tables in the plan.
 */
static void
check_read(Oid relid, List *tables)
{
	const ShardTable *table = NULL;
	int			ordinal = -1;
	TransactionId xid;
	ListCell   *lc;

	foreach(lc, tables)
	{
		table = shard_table_get(lfirst_oid(lc));
		ordinal = shard_table_find(table, relid);
		if (ordinal >= 0)
			break;
	}
	xid = ordinal >= 0 ? table->members[ordinal].gone_xid :
		shard_rows_gone_xid(relid);
	if (shard_node_shows(xid) || TransactionIdIsCurrentTransactionId(xid))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 ordinal >= 0 ?
			 errmsg("could not read foreign table \"%s\" because its shards have been replaced",
					get_rel_name(table->relid)) :
			 errmsg("could not read shard \"%s\" because it has been moved",
					get_rel_name(relid)),
			 errdetail("The transaction has used a foreign server before shard \"%s\" was moved to server \"%s\".",
					   get_rel_name(relid),
					   GetForeignServer(GetForeignServerIdByRelId(relid))->servername),
			 errhint("The transaction might succeed if retried.")));
}

/*
 * A plan of a transaction that has used servers before is about to be executed.
 * What it only inserts into is not read.
 */
static void
check_plan(const PlannedStmt *plan)
{
	List	   *tables = NIL;
	List	   *others = NIL;
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_RELATION ||
			rte->relkind != RELKIND_FOREIGN_TABLE ||
			(plan->commandType == CMD_INSERT &&
			 shard_plan_writes(plan, foreach_current_index(lc) + 1)))
			continue;
		if (is_logical(rte->relid))
			tables = list_append_unique_oid(tables, rte->relid);
		else
			others = lappend_oid(others, rte->relid);
	}
	foreach(lc, others)
		check_read(lfirst_oid(lc), tables);
	list_free(tables);
	list_free(others);
}

/*
 * Does a plan use servers other than by inserting into shards?  One that writes
 * a partitioned table may do so, for partitions that it has not got yet.
 */
static bool
uses_node(const PlannedStmt *plan)
{
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_RELATION)
			continue;
		if (rte->relkind == RELKIND_FOREIGN_TABLE ?
			!is_logical(rte->relid) &&
			shard_is_node(GetForeignServerIdByRelId(rte->relid)) :
			rte->relkind == RELKIND_PARTITIONED_TABLE &&
			shard_plan_writes(plan, foreach_current_index(lc) + 1))
			return true;
	}
	return false;
}

/*
 * shard_check_node_use
 *		A plan that has all its locks is about to be executed.  Note it if it
 *		uses servers of postgres_fdw.
 *
 * Raises ERRCODE_T_R_SERIALIZATION_FAILURE if it reads a shard that was moved to
 * a server after the transaction had used one, and the snapshot there may still
 * show rows that had been deleted by then.
 */
void
shard_check_node_use(const PlannedStmt *plan)
{
	/* Workers do not use servers. */
	if (IsParallelWorker())
		return;
	/* With its locks, the first plan sees its shards as they are. */
	if (unlikely(shard_has_used_node()))
		check_plan(plan);
	if (uses_node(plan))
		shard_note_node_use();
}

/*
 * May a command that names a table use servers for that?  COPY does so for a
 * foreign table, or one that has it as a partition, while other commands
 * include inheritance children.
 */
static bool
may_concern_node(const RangeVar *name, bool is_copy)
{
	Oid			relid = RangeVarGetRelidExtended(name, NoLock, RVR_MISSING_OK,
												 NULL, NULL);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	bool		result;

	/* If it is there after all when the command looks, it can be anything. */
	if (!HeapTupleIsValid(tuple))
		return true;
	form = (Form_pg_class) GETSTRUCT(tuple);
	result = form->relkind == RELKIND_PARTITIONED_TABLE ||
		(form->relkind == RELKIND_FOREIGN_TABLE &&
		 !(is_copy && shard_is_logical(relid))) ||
		(!is_copy && form->relhassubclass);
	ReleaseSysCache(tuple);
	return result;
}

/*
 * May a command use servers of postgres_fdw without executing a plan?
 */
static bool
command_may_use_node(const Node *command)
{
	bool		result = false;
	ListCell   *lc;

	if (IsA(command, ImportForeignSchemaStmt))
		return true;
	if (IsA(command, CopyStmt))
	{
		const CopyStmt *copy = (const CopyStmt *) command;

		return copy->is_from && copy->relation != NULL &&
			may_concern_node(copy->relation, true);
	}
	if (IsA(command, TruncateStmt))
	{
		const TruncateStmt *truncate = (const TruncateStmt *) command;

		result = truncate->behavior == DROP_CASCADE;
		foreach(lc, truncate->relations)
			result = result || may_concern_node(lfirst_node(RangeVar, lc), false);
	}
	if (IsA(command, VacuumStmt))
	{
		const VacuumStmt *vacuum = (const VacuumStmt *) command;

		/* VACUUM runs in no transaction in which anything else is. */
		if (vacuum->is_vacuumcmd)
			return false;
		result = vacuum->rels == NIL;
		foreach(lc, vacuum->rels)
		{
			const VacuumRelation *rel = lfirst_node(VacuumRelation, lc);

			result = result || rel->relation == NULL ||
				may_concern_node(rel->relation, false);
		}
	}
	return result;
}

/*
 * Note that a command is about to use servers.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query_string,
				bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *completion)
{
	if (command_may_use_node(pstmt->utilityStmt))
		shard_note_node_use();
	(prev_process_utility_hook ? prev_process_utility_hook :
	 standard_ProcessUtility) (pstmt, query_string, read_only_tree, context,
							   params, query_env, dest, completion);
}

/*
 * shard_node_use_init
 *		Install the hook for utility commands.  To be called once, when the
 *		library is loaded.
 */
void
shard_node_use_init(void)
{
	prev_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
