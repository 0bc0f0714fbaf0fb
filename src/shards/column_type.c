/*-------------------------------------------------------------------------
 *
 * column_type.c
 *	  alter_column_type(): ALTER COLUMN ... TYPE ... USING for a logical table.
 *
 * PostgreSQL changes the type of a column of a foreign table, and with it of
 * its children's, but takes no USING there: a foreign table has no rows that
 * it could convert.  So the shards are detached, each is altered by itself,
 * and they are attached again.  What they had by inheritance only they have
 * so again.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(shard_alter_column_type);

/*
 * The schemas that the user's names are looked up in, as a search path.
 */
static char *
search_path_in_use(void)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, fetch_search_path(true))
	{
		char	   *schema = get_namespace_name(lfirst_oid(lc));

		if (schema != NULL)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 quote_identifier(schema));
	}
	return buf.data;
}

/*
 * Raise an error unless what the user has given is a type and an expression,
 * and no more than that.
 */
static void
check_action(const char *action)
{
	char	   *sql = psprintf("ALTER TABLE t %s", action);
	List	   *statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	Node	   *stmt = linitial_node(RawStmt, statements)->stmt;

	if (list_length(statements) != 1 ||
		list_length(castNode(AlterTableStmt, stmt)->cmds) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("more than a type and an expression is given"),
				 errdetail("It would be carried out as \"%s\".", action)));
}

/*
 * Change the type of the column in the shards of the logical table, and in the
 * table.  All are locked; SPI is connected, and we are their owner.  "action"
 * is for the shards, "plain_action" for the table.
 *
 * The command is not ALTER FOREIGN TABLE, because a server with assertions does
 * not expect that one to rewrite tables, as this does with the shards.
 */
static void
alter_with_expression(Oid relid, const char *action, const char *plain_action)
{
	List	   *shards = find_inheritance_children(relid, NoLock);
	List	   *inherited = NIL;
	const char *logical = shard_qualified_name(relid);
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, shards)
	{
		Oid			shard = lfirst_oid(lc);
		const char *name = shard_qualified_name(shard);

		if (get_rel_relkind(shard) == RELKIND_FOREIGN_TABLE &&
			!shard_is_logical(shard))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot convert the rows of shard \"%s\" of foreign table \"%s\"",
							get_rel_name(shard), get_rel_name(relid)),
					 errdetail("The shard is a foreign table."),
					 errhint("Detach it with ALTER TABLE ... NO INHERIT, change it on both servers, and attach it again.")));
		inherited = lappend(inherited, shard_note_inherited(shard));
		shard_execute("ALTER TABLE %s NO INHERIT %s", name, logical);
		if (shard_is_logical(shard))
			alter_with_expression(shard, action, plain_action);
		else
			shard_execute("ALTER TABLE %s %s", name, action);
	}
	shard_execute("ALTER TABLE %s %s", logical, plain_action);
	forboth(lc, shards, lc2, inherited)
	{
		shard_execute("ALTER TABLE %s INHERIT %s",
					  shard_qualified_name(lfirst_oid(lc)), logical);
		shard_disown(lfirst_oid(lc), lfirst(lc2));
	}
}

/*
 * shard_alter_column_type(logical regclass, column_name name, new_type text,
 *						   using_expr text)
 *		SQL function alter_column_type(): changes the type of a column of a
 *		logical table and its shards, and converts their rows.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical
 * table, ERRCODE_SYNTAX_ERROR for arguments that are not a type and an
 * expression, ERRCODE_FEATURE_NOT_SUPPORTED if a shard is a foreign table and
 * there is an expression, and what ALTER TABLE raises.
 */
Datum
shard_alter_column_type(PG_FUNCTION_ARGS)
{
	Oid			relid;
	const char *plain_action;
	const char *action;
	const char *search_path;
	Relation	logical;
	ShardIdentity identity;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 1, "column");
	shard_check_argument(fcinfo, 2, "type");
	relid = PG_GETARG_OID(0);
	plain_action = psprintf("ALTER COLUMN %s TYPE %s",
							quote_identifier(NameStr(*PG_GETARG_NAME(1))),
							text_to_cstring(PG_GETARG_TEXT_PP(2)));
	check_action(plain_action);
	action = PG_ARGISNULL(3) ? NULL :
		psprintf("%s USING (%s\n)", plain_action,
				 text_to_cstring(PG_GETARG_TEXT_PP(3)));
	if (action != NULL)
		check_action(action);

	PreventCommandIfReadOnly("alter_column_type()");
	shard_check_owned(relid);
	(void) shard_lock_tree_patiently(relid, AccessExclusiveLock);
	shard_check_owned(relid);

	SPI_connect();
	search_path = search_path_in_use();
	logical = table_open(relid, NoLock);
	shard_become_owner(logical, &identity);
	/* ALTER TABLE wants it out of use. */
	table_close(logical, NoLock);
	/* The type and the expression are those that the user means. */
	shard_set("search_path", search_path);
	if (action != NULL)
		alter_with_expression(relid, action, plain_action);
	else
		shard_execute("ALTER TABLE %s %s", shard_qualified_name(relid),
					  plain_action);
	shard_restore_identity(&identity);
	SPI_finish();
	PG_RETURN_VOID();
}
