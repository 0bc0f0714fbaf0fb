/*-------------------------------------------------------------------------
 *
 * retire.c
 *	  Dropping the tables behind remote shards all of whose rows are old.
 *
 * The node tells the latest time, which is compared here: the comparison of a
 * timestamp with one that has a time zone depends on the session's zone, which
 * a node may not know, or know differently.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_foreign_table.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * Raise an error because the table on the node is not what it should be.
 */
static void
report_table(const ShardNodeSession *session, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("its table on server \"%s\" %s", session->name, what)));
}

/*
 * Find out whether the table behind a foreign table is an ordinary one, of which
 * no other is a part, and whether the column may have nulls.  Raises an error if
 * it has no such column of that type, so that the greatest value might not be
 * the latest one.
 */
static void
look_at_table(ShardNodeSession *session, Oid shard, AttrNumber attno,
			  Oid type, bool *is_plain, bool *is_nullable)
{
	const char *table = shard_node_table_name(shard);
	const char *column = shard_node_column_name(shard, attno);
	const PGresult *result;

	/* From version 18 on, rows can be older than NOT NULL. */
	result = shard_node_command(session,
								psprintf("SELECT c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_inherits i"
										 " WHERE c.oid IN (i.inhparent, i.inhrelid)),"
										 " NOT a.attnotnull OR current_setting('server_version_num')::int >= 180000,"
										 " a.atttypid FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid"
										 " AND a.attname = %s AND a.attnum > 0 AND NOT a.attisdropped"
										 " WHERE c.oid = to_regclass(%s)",
										 quote_literal_cstr(column),
										 quote_literal_cstr(table)), false);
	if (PQntuples(result) != 1)
		report_table(session, "is missing");
	/* The types that a time column can have are the same everywhere. */
	if (PQgetisnull(result, 0, 2) ||
		strtoul(PQgetvalue(result, 0, 2), NULL, 10) != type)
		report_table(session,
					 psprintf("has no column \"%s\" of type %s", column,
							  format_type_be(type)));
	*is_plain = *PQgetvalue(result, 0, 0) == 't';
	*is_nullable = *PQgetvalue(result, 0, 1) == 't';
}

/*
 * Are all rows of the table older than the limit?  The same rule as for tables
 * here; a row without a time is not.
 */
static bool
is_old(ShardNodeSession *session, Oid shard, AttrNumber attno, Oid type,
	   bool is_nullable, TimestampTz limit)
{
	const char *table = shard_node_table_name(shard);
	const char *column = quote_identifier(shard_node_column_name(shard, attno));
	const char *nulls = is_nullable ?
		psprintf("EXISTS (SELECT FROM %s WHERE %s IS NULL)", table, column) :
		"false";
	const PGresult *result;
	Oid			input;
	Oid			param;
	int			guc_level;
	Datum		latest;

	result = shard_node_command(session,
								psprintf("SELECT (SELECT max(%s) FROM %s), %s",
										 column, table, nulls), false);
	if (PQntuples(result) != 1 || PQnfields(result) != 2)
		report_table(session, "does not tell how old its rows are");
	if (*PQgetvalue(result, 0, 1) == 't')
		return false;
	if (PQgetisnull(result, 0, 0))
		return true;
	getTypeInputInfo(type, &input, &param);
	guc_level = shard_set_text_settings();
	latest = OidInputFunctionCall(input, PQgetvalue(result, 0, 0), param, -1);
	AtEOXact_GUC(false, guc_level);
	return shard_is_before(latest, type, limit);
}

/*
 * Raise an error if the table behind a foreign table is that of another shard,
 * too, which need not be closed: on the same server, or one of the same options,
 * as shard_fdw.add_connections() makes them.
 */
static void
check_not_shared(const ShardNodeSession *session, Oid shard)
{
	const char *table = shard_node_table_name(shard);
	List	   *options = GetForeignServer(session->server)->options;
	Relation	catalog = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_table form = (Form_pg_foreign_table) GETSTRUCT(tuple);
		Oid			other = form->ftrelid;

		/* Somebody may be dropping it. */
		if (other != shard &&
			SearchSysCacheExists1(FOREIGNTABLEREL, ObjectIdGetDatum(other)) &&
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(other)) &&
			strcmp(shard_node_table_name(other), table) == 0 &&
			shard_is_node(form->ftserver) &&
			(form->ftserver == session->server ||
			 equal(GetForeignServer(form->ftserver)->options, options)) &&
			shard_logical_parents(other) != NIL)
			report_table(session,
						 psprintf("is that of shard \"%s\", too",
								  get_rel_name(other)));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*
 * Have the node forget which tables we have looked at since "SAVEPOINT looked".
 * Else it would hold the locks on all of them until the end of the transaction,
 * and there may be more of them than it has room for.
 */
static void
look_away(ShardNodeSession *session)
{
	(void) shard_node_command(session,
							  "ROLLBACK TO SAVEPOINT looked; RELEASE SAVEPOINT looked",
							  false);
}

/*
 * shard_node_is_old
 *		Are all rows of the table behind a foreign table older than the limit, by
 *		this column of the foreign table, which is of that type?
 *
 * The node waits for a lock for at most "patience" milliseconds.  Raises
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the table has no such column, and
 * what shard_node_connect() and the node raise.
 */
bool
shard_node_is_old(Oid shard, Oid userid, AttrNumber attno, Oid type,
				  TimestampTz limit, int patience)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	bool		is_plain;
	bool		is_nullable;
	bool		result;

	shard_node_prepare(session);
	(void) shard_node_command(session,
							  psprintf("SAVEPOINT looked; SET LOCAL lock_timeout = %d",
									   Max(patience, 1)), false);
	look_at_table(session, shard, attno, type, &is_plain, &is_nullable);
	result = is_old(session, shard, attno, type, is_nullable, limit);
	look_away(session);
	return result;
}

/*
 * shard_node_begin_retire
 *		Prepare for shard_node_retire() if it is to drop a table.  That may be
 *		tried several times, each in a subtransaction.
 *
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if other commands have changed
 * the node in this transaction, and what shard_node_connect() raises.
 */
void
shard_node_begin_retire(Oid shard, Oid userid)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);

	/* A lock there is enough to have our own queries wait for ever. */
	shard_node_note_late_change(session);
}

/*
 * shard_node_retire
 *		Lock the table behind a foreign table against all others, and, if all of
 *		its rows are older than the limit and unless it is to be kept, drop it
 *		when the local transaction is committed.  Returns whether they are older.
 *
 * A table that is kept is not locked any more, so that it can be used, also by
 * this transaction: its foreign table goes on to be there.
 *
 * The foreign table is locked, so that nobody who holds that waits for the node.
 * Raises ERRCODE_LOCK_NOT_AVAILABLE if the node has to wait for a lock for
 * longer than SHARD_LOCK_TRY_TIME, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if
 * the table is not an ordinary one, that of another shard, or not what shard_node_is_old() needs, and
 * what the node raises.
 */
bool
shard_node_retire(Oid shard, Oid userid, AttrNumber attno, Oid type,
				  TimestampTz limit, bool keep_table)
{
	ShardNodeSession *session = shard_node_session_of(shard, userid);
	const char *table = shard_node_table_name(shard);
	bool		is_plain;
	bool		is_nullable;

	shard_node_prepare(session);
	if (keep_table)
		(void) shard_node_command(session, "SAVEPOINT looked", false);
	/* A view must not be locked, for the tables behind it would be. */
	look_at_table(session, shard, attno, type, &is_plain, &is_nullable);
	if (is_plain)
	{
		(void) shard_node_command(session,
								  psprintf("SET LOCAL lock_timeout = %d; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE",
										   SHARD_LOCK_TRY_TIME, table), false);
		look_at_table(session, shard, attno, type, &is_plain, &is_nullable);
	}
	if (!is_plain)
		report_table(session,
					 "is not an ordinary one, or inherits, or is inherited from");
	if (!is_old(session, shard, attno, type, is_nullable, limit))
		return false;
	if (!keep_table)
		check_not_shared(session, shard);
	/* This also locks the tables that its foreign keys point to. */
	if (!keep_table)
		shard_node_drop_table(shard, userid);
	else
		look_away(session);
	return true;
}
