/*-------------------------------------------------------------------------
 *
 * remote_error.c
 *	  What is said when rows cannot be sent to a shard on another server.
 *
 * The wrapper's messages do not all name the server, and none can know that the
 * rows may as well go somewhere else.
 *
 *-------------------------------------------------------------------------
 */
#include "write/write_private.h"

#include "access/htup_details.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * Error context callback: which shard, where, and what one can do about it.
 */
static void
report_remote(void *arg)
{
	const ShardRemoteCall *call = arg;

	errcontext("insert into shard \"%s\" on server \"%s\"",
			   RelationGetRelationName(call->shard), NameStr(call->server));
	if (call->is_free &&
		ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_CONNECTION_EXCEPTION)
	{
		shard_note_unreachable(RelationGetRelid(call->shard));
		errhint("If rows are to go elsewhere while the server is not there, close its shards with SELECT shard_fdw.close_node(%s).",
				quote_literal_cstr(NameStr(call->server)));
	}
}

/*
 * shard_remote_begin
 *		A callback of another wrapper is about to be called for a shard: have its
 *		errors say which.  Until shard_remote_end().
 */
void
shard_remote_begin(const ShardInsert *insert, const ShardTarget *target,
				   ShardRemoteCall *call)
{
	HeapTuple	tuple;

	call->callback.callback = report_remote;
	call->callback.arg = call;
	call->callback.previous = error_context_stack;
	call->shard = target->rri->ri_RelationDesc;
	call->is_free = insert->table->route != SHARD_ROUTE_HASH;
	/* A logical table has its own shards do this. */
	if (target->is_logical)
		return;
	/* This is done for each row, so nothing is allocated. */
	tuple = SearchSysCache1(FOREIGNSERVEROID,
							ObjectIdGetDatum(GetForeignServerIdByRelId(target->relid)));
	if (!HeapTupleIsValid(tuple))
		return;
	call->server = ((Form_pg_foreign_server) GETSTRUCT(tuple))->srvname;
	ReleaseSysCache(tuple);
	error_context_stack = &call->callback;
}

/*
 * shard_remote_end
 *		It has come back.
 */
void
shard_remote_end(const ShardRemoteCall *call)
{
	error_context_stack = call->callback.previous;
}
