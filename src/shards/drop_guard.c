/*-------------------------------------------------------------------------
 *
 * drop_guard.c
 *	  Keeps DROP EXTENSION and DROP SERVER from taking rows with them.
 *
 * Shards depend on their logical table, that on its server, and so on.  So
 * CASCADE drops rows of which the command says nothing.  That DROP FOREIGN
 * TABLE does so is what one expects of an inheritance parent, but whoever gets
 * rid of an extension may well expect to keep the data.
 *
 * Core drops what depends on an object before the object.  An event trigger
 * at the start of the commands in question, on_drop_start(), starts the guard
 * with guard_drop().  Then a hook is told of every object that is to be
 * dropped: a shard that has rows is noted, and when its server follows, that
 * is an error.  When the command has ended, nobody tells us; but the next one
 * starts the guard anew, and other commands drop no server.
 *
 * The event trigger is written in PL/pgSQL and does without the guard where
 * the library is missing: then there is no other way to get rid of the
 * extension.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(shard_guard_drop);

/* A shard with rows that the running command has dropped. */
typedef struct DroppedShard
{
	Oid			server;			/* of its logical table */
	NameData	shard;
	NameData	logical;
} DroppedShard;

static bool allow_drop_with_rows = false;

/* The transaction in which the guard was started last. */
static LocalTransactionId guarded_lxid = InvalidLocalTransactionId;

/* One DroppedShard for each server, in TopMemoryContext. */
static List *dropped_shards = NIL;

static object_access_hook_type prev_object_access_hook = NULL;

/*
 * shard_guard_drop()
 *		SQL function guard_drop(): a command begins that might drop servers.
 */
Datum
shard_guard_drop(PG_FUNCTION_ARGS)
{
	list_free_deep(dropped_shards);
	dropped_shards = NIL;
	guarded_lxid = shard_my_lxid();
	PG_RETURN_VOID();
}

/*
 * Does the table have a row that this transaction can see, or others will?
 * Nobody else is using it.
 */
static bool
has_rows(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	bool		result = false;

	if (!RELATION_IS_OTHER_TEMP(rel))
	{
		TableScanDesc scan = shard_table_beginscan(rel, SnapshotSelf);
		TupleTableSlot *slot = table_slot_create(rel, NULL);

		result = table_scan_getnextslot(scan, ForwardScanDirection, slot);
		ExecDropSingleTupleTableSlot(slot);
		table_endscan(scan);
	}
	table_close(rel, NoLock);
	return result;
}

/*
 * Add the logical tables that the relation inherits from, itself or through
 * other tables, to a list.
 */
static List *
add_logical_ancestors(List *logicals, Oid relid)
{
	ListCell   *lc;

	foreach(lc, shard_parents(relid))
	{
		if (shard_is_logical(lfirst_oid(lc)))
			logicals = list_append_unique_oid(logicals, lfirst_oid(lc));
		logicals = add_logical_ancestors(logicals, lfirst_oid(lc));
	}
	return logicals;
}

/*
 * A table is about to be dropped: note it if it is a shard with rows.
 */
static void
note_table(Oid relid)
{
	List	   *logicals;
	ListCell   *lc;

	if (get_rel_relkind(relid) != RELKIND_RELATION)
		return;
	logicals = add_logical_ancestors(NIL, relid);
	if (logicals == NIL || !has_rows(relid))
		return;
	foreach(lc, logicals)
	{
		Oid			server = GetForeignServerIdByRelId(lfirst_oid(lc));
		DroppedShard *dropped;
		MemoryContext oldcontext;
		bool		is_known = false;
		ListCell   *lc2;

		foreach(lc2, dropped_shards)
			is_known |= ((DroppedShard *) lfirst(lc2))->server == server;
		if (is_known)
			continue;
		oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		dropped = palloc0(sizeof(DroppedShard));
		dropped->server = server;
		namestrcpy(&dropped->shard, get_rel_name(relid));
		namestrcpy(&dropped->logical, get_rel_name(lfirst_oid(lc)));
		dropped_shards = lappend(dropped_shards, dropped);
		MemoryContextSwitchTo(oldcontext);
	}
}

/*
 * A server is about to be dropped: raise an error if shards with rows have
 * been dropped because of it.
 */
static void
check_server(Oid server)
{
	ListCell   *lc;

	foreach(lc, dropped_shards)
	{
		DroppedShard *dropped = lfirst(lc);

		if (dropped->server == server)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop server \"%s\" because shards of its foreign tables have rows",
							GetForeignServer(server)->servername),
					 errdetail("Shard \"%s\" of foreign table \"%s\" would be dropped with its rows.",
							   NameStr(dropped->shard),
							   NameStr(dropped->logical)),
					 errhint("Make the shards ordinary tables with SELECT shard_fdw.release(), or set shard_fdw.allow_drop_with_rows to on to lose the rows.")));
	}
}

/*
 * Core's hook: something is about to be dropped, among other things.
 */
static void
on_object_access(ObjectAccessType access, Oid class_id, Oid object_id,
				 int sub_id, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);

	if (access != OAT_DROP || guarded_lxid != shard_my_lxid() ||
		guarded_lxid == InvalidLocalTransactionId || allow_drop_with_rows ||
		sub_id != 0)
		return;
	if (class_id == RelationRelationId)
		note_table(object_id);
	else if (class_id == ForeignServerRelationId)
		check_server(object_id);
}

/*
 * shard_guard_init
 *		Set up the guard.  To be called once, when the library is loaded.
 */
void
shard_guard_init(void)
{
	DefineCustomBoolVariable("shard_fdw.allow_drop_with_rows",
							 "Lets DROP EXTENSION and DROP SERVER with CASCADE drop shards that have rows.",
							 NULL,
							 &allow_drop_with_rows,
							 false,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	prev_object_access_hook = object_access_hook;
	object_access_hook = on_object_access;
}
