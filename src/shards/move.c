/*-------------------------------------------------------------------------
 *
 * move.c
 *	  move_shard(): a shard goes to another server, or comes back.
 *
 * A new table takes the place of the old one, here or as a foreign table, and
 * gets its rows, constraints, defaults and name.  It is another shard then, with
 * another OID, so all that is known of the old one is forgotten by itself.
 *
 * Only the shard is locked, and the logical table in a way that keeps its
 * definition and its shards what they are.  A table with a key is copied in passes
 * while others read and write it; see changes.c.  It is locked for good for the
 * last pass, and until the transaction ends.  A node tells what has changed there
 * if it has this extension.
 *
 * Nobody writes other shards while their rows are copied.  A closed or sealed
 * one, which hardly anybody writes, can be read until it is replaced.  So can
 * others if the caller wants that.  It is not the rule, because a transaction
 * that has read such a shard, and then waits to write it, is in the way of the
 * stronger lock that replacing it takes.
 *
 * A table that is made on a node is committed there before the local transaction
 * is, one that is dropped there after that.  So whatever is lost on the way, the
 * rows are where the local catalogs say, and a copy may be left on a node.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_move_shard);

typedef struct Move
{
	Oid			shard;			/* the old one */
	Oid			logical;
	Oid			from;			/* a server; InvalidOid: this one */
	Oid			to;
	Oid			caller;			/* whose user mappings are used */
	bool		allow_reads;	/* while rows are copied, even if it is open */
	List	   *key;			/* ShardKeyColumns by which to copy while
								 * others write, or NIL */
	bool		rows_gone;		/* have rows been deleted from the copy? */
	TimestampTz locked_at;		/* others may wait since then; 0: not yet */
	char	   *name;
	char	   *schema;
	char	   *new_name;		/* of the new one, for the time being */
} Move;

/*
 * Raise an error because the shard cannot be moved.
 */
static void
report_cannot(const Move *m, int code, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("cannot move shard \"%s\" of foreign table \"%s\"",
					m->name, get_rel_name(m->logical)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Raise an error if the shard has something that a table elsewhere could not
 * have.
 */
static void
check_relation(const Move *m, Relation shard)
{
	TupleDesc	desc = RelationGetDescr(shard);
	int			code = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped &&
			get_attnum(m->logical, NameStr(att->attname)) == InvalidAttrNumber)
			report_cannot(m, code,
						  psprintf("It has a column \"%s\" that the foreign table has not.",
								   NameStr(att->attname)),
						  "Add the column to the foreign table, or drop it from the shard.");
		if (!att->attisdropped && att->attidentity != '\0')
			report_cannot(m, code,
						  psprintf("Its column \"%s\" is an identity column, whose new sequence would begin anew.",
								   NameStr(att->attname)),
						  "Use option \"sequence\" of the column, or a default with nextval().");
	}
	if (shard->rd_rel->relrowsecurity)
		report_cannot(m, code, "It has row-level security.", "Disable it.");
	if (shard->rd_rules != NULL)
		report_cannot(m, code, "It has rules.", "Drop its rules.");
	for (int i = 0; shard->trigdesc != NULL && i < shard->trigdesc->numtriggers; i++)
		if (!shard->trigdesc->triggers[i].tgisinternal)
			report_cannot(m, code, "It has triggers.", "Drop its triggers.");
	if (RelationGetFKeyList(shard) != NIL)
		report_cannot(m, code, "It has foreign keys.", "Drop its foreign keys.");
	if (list_length(shard_parents(m->shard)) > 1)
		report_cannot(m, code, "It inherits from another table, too.",
					  "Detach it from that table.");
}

/*
 * Raise an error unless the shard, which is locked, can be moved.
 */
static void
check_shard(const Move *m)
{
	ShardTable *table = shard_table_get(m->logical);
	int			ordinal = shard_table_find(table, m->shard);
	const ShardMember *member;
	Relation	shard;

	if (ordinal < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is no longer a shard of foreign table \"%s\"",
						m->name, get_rel_name(m->logical))));
	member = &table->members[ordinal];
	if (table->commit_order)
		report_cannot(m, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "The foreign table has option \"commit_order\": consumers would read the rows of the new shard once more.",
					  "Set option \"commit_order\" to false, and drop the table's consumers.");
	if (member->has_children)
		report_cannot(m, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "It has inheritance children.",
					  "Detach them, or replace the shard by an ordinary table.");
	if (!member->is_local && !shard_is_on_node(m->shard))
		report_cannot(m, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "It is neither an ordinary table nor a foreign table of postgres_fdw.",
					  "Replace it by an ordinary table.");
	shard = table_open(m->shard, NoLock);
	if (shard->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		report_cannot(m, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "It is a temporary table.",
					  "Copy its rows to another shard.");
	if (member->is_local && shard->rd_rel->relam != HEAP_TABLE_AM_OID)
		report_cannot(m, ERRCODE_FEATURE_NOT_SUPPORTED,
					  "Its access method is not \"heap\".",
					  "Change it with ALTER TABLE ... SET ACCESS METHOD.");
	check_relation(m, shard);
	CheckTableNotInUse(shard, "move");
	table_close(shard, NoLock);
}

/*
 * Raise an error if rows may violate constraints that a new child of the logical
 * table would be believed to meet.  SPI is connected.
 */
static void
check_inherited(const Move *m)
{
	List	   *rows = shard_query_rows("SELECT conname FROM pg_constraint WHERE conrelid = $1"
										" AND contype = 'c' AND coninhcount > 0 AND NOT convalidated",
										m->shard, 1);

	if (rows != NIL)
		report_cannot(m, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  psprintf("CHECK constraint \"%s\" of the foreign table has not been validated.",
							   *(char **) linitial(rows)),
					  "Validate the constraint, or drop it.");
}

/*
 * Raise an error if a table here, the shard or what is to be the shard, belongs
 * to a publication, by itself or as one of a schema or of all.  Subscribers would
 * get no more rows, or all of them once more and by a name that is not the
 * shard's.  SPI is connected.
 */
static void
check_unpublished(const Move *m, Oid table)
{
	List	   *rows = shard_query_rows("SELECT p.pubname FROM pg_publication p,"
										" LATERAL pg_get_publication_tables(p.pubname::text) t"
										" WHERE t.relid = $1 LIMIT 1",
										table, 1);

	if (rows != NIL)
		report_cannot(m, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  psprintf("It belongs to publication \"%s\", or would so.",
							   *(char **) linitial(rows)),
					  "Drop it from the publication, or the publication.");
}

/*
 * shard_database_of
 *		What tells the database of a server, or this one, from all others: a
 *		string.  SPI is connected.
 *
 * Raises what connecting to the server raises.
 */
const char *
shard_database_of(Oid server, Oid userid)
{
	return OidIsValid(server) ? shard_node_database(server, userid) :
		*(char **) linitial(shard_query_rows(SHARD_DATABASE_QUERY, InvalidOid, 1));
}

/*
 * Raise an error if the shard would stay where it is.  The name of its table is
 * taken there, by the table itself, which nobody should take for a leftover.
 */
static void
check_places(const Move *m)
{
	if (strcmp(shard_database_of(m->from, m->caller),
			   shard_database_of(m->to, m->caller)) != 0)
		return;
	if (OidIsValid(m->from) && OidIsValid(m->to))
		report_cannot(m, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  psprintf("Servers \"%s\" and \"%s\" are connections to the same database.",
							   GetForeignServer(m->from)->servername,
							   GetForeignServer(m->to)->servername),
					  "Replace the shard by a foreign table of the other server that stands for the same table.");
	report_cannot(m, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				  psprintf("Server \"%s\" is a connection to this database.",
						   GetForeignServer(OidIsValid(m->from) ? m->from : m->to)->servername),
				  OidIsValid(m->from) ?
				  "Replace the shard by the table that it stands for." :
				  "Move the shard to another database.");
}

/*
 * Find the logical table of a shard of the caller's.
 */
static void
find_logical(Move *m)
{
	List	   *parents;

	shard_check_to_alter(m->shard, false);
	parents = shard_logical_parents(m->shard);
	m->logical = linitial_oid(parents);
	m->name = get_rel_name(m->shard);
	m->schema = get_namespace_name(get_rel_namespace(m->shard));
	shard_check_owned(m->logical);
	m->from = InvalidOid;
	if (get_rel_relkind(m->shard) == RELKIND_FOREIGN_TABLE &&
		!shard_is_logical(m->shard))
		m->from = GetForeignServerIdByRelId(m->shard);
	if (m->from == m->to && !shard_is_logical(m->shard))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 OidIsValid(m->to) ?
				 errmsg("shard \"%s\" is on server \"%s\" already", m->name,
						GetForeignServer(m->to)->servername) :
				 errmsg("shard \"%s\" is on this server already", m->name)));
}

/*
 * The key by which the rows of the shard can be copied while others write it, or
 * NIL.  The shard is locked, and SPI is connected.
 */
static List *
find_key(const Move *m)
{
	List	   *rows;
	List	   *key = NIL;
	ListCell   *lc;

	if (OidIsValid(m->from))
		return shard_is_on_node(m->shard) ? shard_node_row_key(m->shard, m->caller) : NIL;
	if (get_rel_relkind(m->shard) != RELKIND_RELATION)
		return NIL;
	rows = shard_query_rows(psprintf(SHARD_ROW_KEY_QUERY, "$1"), m->shard, 3);
	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		key = lappend(key, shard_row_key_column(m->shard,
												get_attnum(m->shard, row[0]),
												row[1], row[2]));
	}
	return key;
}

/*
 * In which mode to lock the shard while its rows are copied: so that others can
 * use it, or against all others, or, if it takes no inserts or others may read,
 * against those who write.
 */
static LOCKMODE
choose_lock(Move *m)
{
	ShardTable *table = shard_table_get(m->logical);
	int			ordinal = shard_table_find(table, m->shard);
	ResourceOwner owner = CurrentResourceOwner;

	/* A lock for which we have waited is the transaction's, not the portal's. */
	CurrentResourceOwner = CurTransactionResourceOwner;
	shard_lock_patiently(m->shard, AccessShareLock);
	m->key = find_key(m);
	UnlockRelationOid(m->shard, AccessShareLock);
	CurrentResourceOwner = owner;
	if (m->key != NIL)
		return ShareUpdateExclusiveLock;
	return ordinal >= 0 && table->members[ordinal].is_open &&
		!m->allow_reads ? AccessExclusiveLock : ExclusiveLock;
}

/*
 * Find the logical table and the shard, and lock them.  Returns the mode of the
 * shard's lock.
 */
static LOCKMODE
find_and_lock(Move *m)
{
	LOCKMODE	mode;

	find_logical(m);
	shard_lock_patiently(m->logical, ShareUpdateExclusiveLock);
	find_logical(m);
	/* If one of them cannot be reached, nobody has to wait for that. */
	if (OidIsValid(m->from) && shard_is_on_node(m->shard))
		shard_node_connect(m->from, m->caller);
	if (OidIsValid(m->to))
		shard_node_connect(m->to, m->caller);
	mode = choose_lock(m);
	shard_lock_patiently(m->shard, mode);
	if (mode != ShareUpdateExclusiveLock)
		m->locked_at = shard_lock_try_start();
	find_logical(m);
	check_shard(m);
	if (m->key != NIL && (m->key = find_key(m)) == NIL)
		report_cannot(m, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  "Its indexes have just been changed.", "Try again.");
	return mode;
}

/*
 * Columns for CREATE TABLE that can be null in the logical table and not in the
 * shard.
 */
static char *
strict_columns(const Move *m)
{
	Relation	logical = table_open(m->logical, NoLock);
	Relation	shard = table_open(m->shard, NoLock);
	char	   *result = shard_strict_columns(logical, shard);

	table_close(shard, NoLock);
	table_close(logical, NoLock);
	return result;
}

/*
 * The table of this name, which has just been created.  Its columns are those of
 * the logical table, and none of its own.
 */
static Oid
own_nothing(const Move *m, const char *name)
{
	Oid			result = get_relname_relid(name, get_rel_namespace(m->shard));

	shard_disown(result, NULL);
	return result;
}

/*
 * Create a table here that is to be the shard, or is like it.
 */
static Oid
create_table(const Move *m, const char *name, bool is_unlogged,
			 const char *with)
{
	/* As postgres_fdw's tables come from tables of this kind. */
	shard_set("default_table_access_method", "heap");
	shard_execute("CREATE %sTABLE %s (%s) INHERITS (%s) %s",
				  is_unlogged ? "UNLOGGED " : "",
				  quote_qualified_identifier(m->schema, name),
				  strict_columns(m), shard_qualified_name(m->logical), with);
	return own_nothing(m, name);
}

/*
 * Create a foreign table that is to be the shard.
 */
static Oid
create_foreign_table(const Move *m)
{
	shard_execute("CREATE FOREIGN TABLE %s (%s) INHERITS (%s) SERVER %s OPTIONS (schema_name %s, table_name %s)",
				  quote_qualified_identifier(m->schema, m->new_name),
				  strict_columns(m),
				  shard_qualified_name(m->logical),
				  quote_identifier(GetForeignServer(m->to)->servername),
				  quote_literal_cstr(m->schema), quote_literal_cstr(m->name));
	return own_nothing(m, m->new_name);
}

/*
 * Give the new shard what the old one has beyond the logical table: NOT NULL,
 * defaults, and CHECK constraints that its rows meet.
 *
 * Seals and ranges come last, for they are none of a node's business, and a
 * seal would keep the rows out.
 */
static void
copy_definition(const Move *m, Oid new_shard)
{
	shard_run_for_both("SELECT pg_catalog.replace(f.command, E'\\x01', $2)"
					   " FROM shard_fdw.features_of($1) f WHERE f.kind = 'NOT NULL constraint'"
					   " UNION ALL"
					   " SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s',"
					   " $2, a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid))"
					   " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attrdef d"
					   " ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
					   " WHERE a.attrelid = $1 AND a.attgenerated = ''"
					   " UNION ALL"
					   " SELECT pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s',"
					   " $2, c.conname, pg_catalog.pg_get_constraintdef(c.oid))"
					   " FROM pg_catalog.pg_constraint c WHERE c.conrelid = $1"
					   " AND c.contype = 'c' AND c.coninhcount = 0 AND c.convalidated"
					   " AND COALESCE(shard_fdw.check_kind(c.conbin, c.conname), '')"
					   " NOT IN ('seal', 'range')",
					   m->shard, new_shard);
}

/*
 * Give it the other CHECK constraints.
 */
static void
copy_late_checks(const Move *m, Oid new_shard)
{
	shard_run_for_both("SELECT pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s',"
					   " $2, c.conname, pg_catalog.pg_get_constraintdef(c.oid))"
					   " FROM pg_catalog.pg_constraint c WHERE c.conrelid = $1"
					   " AND c.contype = 'c' AND c.coninhcount = 0"
					   " AND (NOT c.convalidated"
					   " OR shard_fdw.check_kind(c.conbin, c.conname) IN ('seal', 'range'))",
					   m->shard, new_shard);
}

/*
 * Give a table here the indexes that the table of the old shard has on its node.
 */
static void
copy_indexes(const Move *m, Oid table)
{
	ListCell   *lc;

	foreach(lc, shard_node_index_commands(m->shard, m->caller,
										  shard_qualified_name(table)))
		shard_execute("%s", (char *) lfirst(lc));
}

/*
 * Lock the shard for good, and its table on a node if that is not locked
 * against those who write: the shard first, for whoever has that locked may have
 * to wait for the table.  Returns false if others have the table locked.
 */
static bool
try_to_lock_out(Move *m)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool has_shard = false;
	volatile bool result = true;

	if (!OidIsValid(m->from) || m->key == NIL)
	{
		shard_lock_patiently(m->shard, AccessExclusiveLock);
		return true;
	}
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		shard_lock_patiently(m->shard, AccessExclusiveLock);
		has_shard = true;
		shard_node_lock_out(m->shard, m->caller, SHARD_LOCK_TRY_TIME);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(context, owner);

		if (!has_shard || error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * Do so, for as long as others keep us from it and we have patience.
 */
static void
lock_out_others(Move *m)
{
	TimestampTz start = GetCurrentTimestamp();
	int			pause = 0;

	shard_progress_phase("waiting for a lock on the shard");
	shard_hold_privileges(m->shard);
	shard_flush_wal();
	while (!try_to_lock_out(m))
	{
		long		left = shard_lock_patience() -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());

		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not obtain lock on the table of shard \"%s\" on server \"%s\" within %d ms",
							m->name, GetForeignServer(m->from)->servername,
							shard_lock_patience()),
					 errhint("If this transaction has used the table on the server, commit it first. Else try again when the transactions that use it there have ended, or set \"lock_timeout\" to a longer time.")));
		shard_pause_lock_wait(&pause, left);
	}
	if (m->locked_at == 0)
		m->locked_at = shard_lock_try_start();
	shard_progress_phase("replacing the shard");
}

/*
 * Send the rows that have changed since the last moment.  Returns their number.
 */
static int64
send_changes(Move *m, ShardNodeFeed *feed, ShardChanges *changes,
			 ShardMoment *last)
{
	ShardMoment now = shard_moment();
	int64		result = 0;

	shard_node_feed_start(feed);
	if (last->snapshot != NULL)
		result += shard_changes_gone(changes, last, &now, shard_node_feed_gone,
									 feed);
	result += shard_changes_new(changes, last, &now, shard_node_feed_row, feed);
	m->rows_gone = shard_node_feed_finish(feed);
	shard_moment_end(last);
	*last = now;
	return result;
}

/*
 * Make a table on a node of a table here.  Returns the new shard.
 */
static Oid
move_out(Move *m)
{
	Oid			new_shard = create_foreign_table(m);
	ShardMoment last = {0};
	ShardNodeFeed *feed;
	ShardChanges *changes;
	Relation	source;

	check_unpublished(m, m->shard);
	copy_definition(m, new_shard);
	shard_node_make_table(new_shard, m->shard, m->caller);
	shard_progress_phase("copying rows");
	source = table_open(m->shard, NoLock);
	feed = shard_node_feed_begin(new_shard, m->caller, source, m->key);
	changes = shard_changes_begin(source);
	(void) send_changes(m, feed, changes, &last);
	shard_copy_statistics(m->shard, new_shard);
	if (m->key != NIL)
	{
		shard_progress_phase("copying what has changed");
		for (int i = 0; i < SHARD_MAX_PASSES &&
			 send_changes(m, feed, changes, &last) > SHARD_FEW_CHANGES; i++)
			;
	}
	lock_out_others(m);
	if (m->key != NIL)
	{
		(void) send_changes(m, feed, changes, &last);
		/* Publications of all tables do not ask for our lock. */
		check_unpublished(m, m->shard);
	}
	shard_moment_end(&last);
	table_close(source, NoLock);
	return new_shard;
}

/*
 * Make a table here of a table on a node.
 */
static Oid
move_in(Move *m)
{
	bool		is_unlogged = false;
	char	   *with = shard_node_hold_table(m->shard, m->caller, m->key != NIL,
											 &is_unlogged);
	Oid			new_shard = create_table(m, m->new_name, is_unlogged, with);
	Relation	target;

	check_unpublished(m, new_shard);
	copy_definition(m, new_shard);
	shard_progress_phase("copying rows");
	target = table_open(new_shard, NoLock);
	(void) shard_node_get_rows(m->shard, m->caller, target, m->key != NIL);
	table_close(target, NoLock);
	CommandCounterIncrement();
	shard_progress_phase("building indexes");
	copy_indexes(m, new_shard);
	shard_execute("ANALYZE %s", shard_qualified_name(new_shard));
	if (m->key != NIL)
		shard_progress_phase("copying what has changed");
	target = table_open(new_shard, NoLock);
	for (int i = 0; m->key != NIL && i < SHARD_MAX_PASSES &&
		 shard_node_get_changes(m->shard, m->caller, target, m->key) > SHARD_FEW_CHANGES; i++)
		;
	lock_out_others(m);
	if (m->key != NIL)
		(void) shard_node_get_changes(m->shard, m->caller, target, m->key);
	table_close(target, NoLock);
	CommandCounterIncrement();
	return new_shard;
}

/*
 * Pass the rows of a table on a node to that of the new shard, or what has
 * changed.  Returns their number.
 */
static int64
pass_rows(Move *m, ShardNodeFeed *feed, bool is_first)
{
	int64		result;

	shard_node_feed_start(feed);
	result = is_first ?
		shard_node_pass_rows(m->shard, m->caller, feed, m->key != NIL) :
		shard_node_pass_changes(m->shard, m->caller, feed, m->key);
	m->rows_gone = shard_node_feed_finish(feed);
	return result;
}

/*
 * Make a table on a node of a table on another one.  A table without rows here
 * is what the new one is made like.
 */
static Oid
move_across(Move *m)
{
	bool		is_unlogged = false;
	char	   *with = shard_node_hold_table(m->shard, m->caller, m->key != NIL,
											 &is_unlogged);
	Oid			model = create_table(m, psprintf("%s_model", m->new_name),
									 is_unlogged, with);
	Oid			new_shard;
	Relation	source;
	ShardNodeFeed *feed;

	copy_indexes(m, model);
	new_shard = create_foreign_table(m);
	copy_definition(m, new_shard);
	shard_node_make_table(new_shard, model, m->caller);
	shard_drop_all(list_make1_oid(model));
	shard_progress_phase("copying rows");
	source = table_open(m->shard, NoLock);
	feed = shard_node_feed_begin(new_shard, m->caller, source, m->key);
	(void) pass_rows(m, feed, true);
	shard_copy_statistics(m->shard, new_shard);
	if (m->key != NIL)
		shard_progress_phase("copying what has changed");
	for (int i = 0; m->key != NIL && i < SHARD_MAX_PASSES &&
		 pass_rows(m, feed, false) > SHARD_FEW_CHANGES; i++)
		;
	lock_out_others(m);
	if (m->key != NIL)
		(void) pass_rows(m, feed, false);
	table_close(source, NoLock);
	return new_shard;
}

/*
 * Rename what has the name of the new shard for the time being, or one that
 * begins with it.
 */
static void
rename_all(const Move *m, Oid new_shard)
{
	Relation	rel = table_open(new_shard, NoLock);
	List	   *indexes = list_copy(RelationGetIndexList(rel));
	int			length = strlen(m->new_name);
	ListCell   *lc;

	table_close(rel, NoLock);
	foreach(lc, indexes)
	{
		char	   *old_name = get_rel_name(lfirst_oid(lc));
		char	   *name;

		if (strncmp(old_name, m->new_name, length) != 0 ||
			old_name[length] != '_')
			continue;
		name = makeObjectName(m->name, NULL, old_name + length + 1);
		if (!OidIsValid(get_relname_relid(name, get_rel_namespace(new_shard))))
			shard_execute("ALTER INDEX %s RENAME TO %s",
						  shard_qualified_name(lfirst_oid(lc)),
						  quote_identifier(name));
	}
	shard_execute("ALTER TABLE %s RENAME TO %s",
				  shard_qualified_name(new_shard), quote_identifier(m->name));
}

/*
 * Put the new shard in the place of the old one, which is locked for good.
 */
static void
replace_shard(const Move *m, Oid new_shard)
{
	List	   *old_shards = list_make1_oid(m->shard);

	copy_late_checks(m, new_shard);
	shard_clone_statistics(m->shard, new_shard);
	shard_copy_surroundings(m->shard, new_shard);
	shard_copy_privileges(m->shard, new_shard, false);
	shard_hand_over_sequences(old_shards, new_shard);
	shard_note_moved(m->shard, new_shard, m->rows_gone);
	if (OidIsValid(m->from))
		shard_node_drop_table(m->shard, m->caller);
	shard_drop_all(old_shards);
	rename_all(m, new_shard);
}

/*
 * shard_move
 *		Move a shard to a server of postgres_fdw, or, if that is InvalidOid, to
 *		this one, by the user mappings of the current user.  Returns the new
 *		shard.
 *
 * If "allow_reads", others can read it while its rows are copied, also if it can
 * not be written then.  *locked_at becomes the time since which others may have
 * waited for it; they do until the transaction ends.
 *
 * Raises ERRCODE_WRONG_OBJECT_TYPE if the table is no shard,
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns it and the logical
 * table, ERRCODE_ACTIVE_SQL_TRANSACTION unless the isolation level is READ
 * COMMITTED, ERRCODE_FEATURE_NOT_SUPPORTED and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if it cannot be moved, and what
 * shard_lock_patiently(), shard_node_make_table(), copying rows and dropping
 * tables raise.
 */
Oid
shard_move(Oid shard, Oid server, bool allow_reads, TimestampTz *locked_at)
{
	Move		m = {0};
	LOCKMODE	mode;
	Relation	rel;
	ShardIdentity identity;
	Oid			new_shard;

	m.shard = shard;
	m.to = server;
	m.caller = GetUserId();
	m.allow_reads = allow_reads;
	/* A row that the last snapshot does not show would be dropped unseen. */
	shard_check_read_committed("move a shard");
	m.new_name = psprintf("shard_move_%u", shard);

	SPI_connect();
	mode = find_and_lock(&m);
	rel = table_open(m.logical, NoLock);
	shard_become_owner(rel, &identity);
	table_close(rel, NoLock);
	if (client_min_messages < WARNING)
		shard_set("client_min_messages", "warning");
	shard_progress_start("move_shard", m.logical,
						 shard_count_rows(list_make1_oid(shard)));
	shard_progress_phase("looking for what depends on the shard");
	check_inherited(&m);
	check_places(&m);
	shard_try_to_drop(list_make1_oid(shard),
					  mode == AccessExclusiveLock ? NIL : list_make1_oid(shard));
	shard_progress_phase("creating the table");
	new_shard = !OidIsValid(m.from) ? move_out(&m) :
		!OidIsValid(m.to) ? move_in(&m) : move_across(&m);
	replace_shard(&m, new_shard);
	if (!OidIsValid(m.from))
		shard_advise_remote(m.logical, new_shard);
	shard_progress_end();
	shard_restore_identity(&identity);
	SPI_finish();
	*locked_at = m.locked_at;
	return new_shard;
}

/*
 * shard_move_shard(shard regclass, node name, allow_reads bool)
 *		SQL function move_shard(): see shard_move().
 *
 * Raises, besides what that does, ERRCODE_NULL_VALUE_NOT_ALLOWED,
 * ERRCODE_UNDEFINED_OBJECT if there is no such server, and
 * ERRCODE_WRONG_OBJECT_TYPE if it is none of postgres_fdw.
 */
Datum
shard_move_shard(PG_FUNCTION_ARGS)
{
	List	   *servers;
	TimestampTz locked_at;
	Oid			result;

	shard_check_argument(fcinfo, 0, "shard");
	shard_check_argument(fcinfo, 1, "node");
	shard_check_argument(fcinfo, 2, "parameter \"allow_reads\"");
	PreventCommandIfReadOnly("move_shard()");
	servers = shard_node_list(quote_identifier(NameStr(*PG_GETARG_NAME(1))));
	result = shard_move(PG_GETARG_OID(0), linitial_oid(servers),
						PG_GETARG_BOOL(2), &locked_at);
	ereport(NOTICE,
			(errmsg("shard \"%s\" has been locked for %ld ms",
					get_rel_name(result),
					TimestampDifferenceMilliseconds(locked_at,
													GetCurrentTimestamp())),
			 errdetail("It stays locked until the transaction ends.")));
	PG_RETURN_OID(result);
}
