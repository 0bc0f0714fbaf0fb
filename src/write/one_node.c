/*-------------------------------------------------------------------------
 *
 * one_node.c
 *	  Table option "single_node": a transaction writes to one server only.
 *
 * PostgreSQL commits on each server by itself.  If that fails on one, those
 * before it have committed.  A transaction that keeps to one server is whole or
 * nothing, as ever.  So for tables with the option, a backend remembers which
 * server the transaction has written to, and refuses another one.  This server
 * counts as one, too.
 *
 * An UPDATE or DELETE counts as writing to all shards in its plan, whether or
 * not there are rows to be changed: by then, the other server has begun a
 * transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

/* That a transaction has written to a server. */
typedef struct NodeWrite
{
	LocalTransactionId lxid;	/* the transaction, or an earlier one */
	SubTransactionId subid;		/* in which it was first written to */
	Oid			server;			/* InvalidOid: this one */
} NodeWrite;

static NodeWrite written;

static ExecutorStart_hook_type prev_executor_start_hook = NULL;

/*
 * The server that a table is on, InvalidOid if on this one.
 */
static Oid
server_of(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE ?
		GetForeignServerIdByRelId(relid) : InvalidOid;
}

/*
 * A server as messages call it, after "to".
 */
static char *
server_name(Oid server)
{
	ForeignServer *foreign;

	if (!OidIsValid(server))
		return "this server";
	foreign = GetForeignServerExtended(server, FSV_MISSING_OK);
	return foreign == NULL ? "a server that has been dropped" :
		psprintf("server \"%s\"", foreign->servername);
}

/*
 * The logical table with option "single_node" that the table is a shard of,
 * perhaps a shard of a shard, or InvalidOid.
 */
static Oid
single_node_table(Oid relid)
{
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, shard_logical_parents(relid))
	{
		Oid			result = lfirst_oid(lc);

		if (!shard_table_get_open(result)->single_node)
			result = single_node_table(result);
		if (OidIsValid(result))
			return result;
	}
	return InvalidOid;
}

/*
 * shard_note_write
 *		The transaction is about to write to a shard, which is no logical
 *		table.
 *
 * Raises ERRCODE_INVALID_TRANSACTION_STATE if the shard's table, or one that
 * has it as a shard, has option "single_node", and the transaction has written
 * to another server.
 */
void
shard_note_write(Oid shard)
{
	Oid			logical = single_node_table(shard);
	Oid			server;

	if (!OidIsValid(logical))
		return;
	server = server_of(shard);
	if (written.lxid != shard_my_lxid() ||
		written.subid == InvalidSubTransactionId)
	{
		written.lxid = shard_my_lxid();
		written.subid = GetCurrentSubTransactionId();
		written.server = server;
	}
	else if (written.server != server)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot write to shard \"%s\" of foreign table \"%s\" in this transaction",
						get_rel_name(shard), get_rel_name(logical)),
				 errdetail("The shard is on %s, the transaction has written to %s, and the table has option \"single_node\".",
						   OidIsValid(server) ? server_name(server) : "this one",
						   server_name(written.server)),
				 errhint("Use a transaction for each server.")));
}

/*
 * A plan is about to be executed: note what an UPDATE or DELETE changes.
 */
static void
note_changes(const PlannedStmt *plan, Plan *top)
{
	ListCell   *lc;

	if (top == NULL || !IsA(top, ModifyTable) ||
		((ModifyTable *) top)->operation == CMD_INSERT)
		return;
	foreach(lc, ((ModifyTable *) top)->resultRelations)
	{
		Oid			relid = rt_fetch(lfirst_int(lc), plan->rtable)->relid;

		/* If all shards are left out, it is the logical table itself. */
		if (!shard_is_logical(relid))
			shard_note_write(relid);
	}
}

/*
 * Look at the statement, and at those in its WITH clause.
 */
static void
start_executor(QueryDesc *query_desc, int eflags)
{
	const PlannedStmt *plan;

	(prev_executor_start_hook ? prev_executor_start_hook :
	 standard_ExecutorStart) (query_desc, eflags);

	/* Another plan may have taken the place of the first. */
	plan = query_desc->plannedstmt;
	if (shard_has_single_node && !(eflags & EXEC_FLAG_EXPLAIN_ONLY) &&
		(plan->commandType == CMD_UPDATE || plan->commandType == CMD_DELETE ||
		 plan->hasModifyingCTE))
	{
		ListCell   *lc;

		note_changes(plan, plan->planTree);
		foreach(lc, plan->subplans)
			note_changes(plan, lfirst(lc));
	}
}

/*
 * shardExecForeignTruncate
 *		Core truncates the shards because they are children; so there is
 *		nothing to do but to note it.
 */
void
shardExecForeignTruncate(List *rels, DropBehavior behavior,
						 bool restart_seqs)
{
	ListCell   *lc;

	foreach(lc, rels)
	{
		const ShardTable *table = shard_table_get(RelationGetRelid((Relation) lfirst(lc)));

		for (int i = 0; shard_has_single_node && i < table->nmembers; i++)
		{
			if (!shard_is_logical(table->members[i].relid))
				shard_note_write(table->members[i].relid);
		}
	}
}

/*
 * Forget what was written in a subtransaction that is rolled back.  What one
 * has written that is committed belongs to its parent.
 */
static void
on_subxact_end(SubXactEvent event, SubTransactionId subid,
			   SubTransactionId parent, void *arg)
{
	if (written.subid != subid)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		written.subid = InvalidSubTransactionId;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		written.subid = parent;
}

/*
 * shard_one_node_init
 *		Install the executor hook.  To be called once, when the library is
 *		loaded.
 */
void
shard_one_node_init(void)
{
	RegisterSubXactCallback(on_subxact_end, NULL);
	prev_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
