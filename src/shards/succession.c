/*-------------------------------------------------------------------------
 *
 * succession.c
 *	  Putting one table in the place of another that had its name.
 *
 * What names the table, such as the body of a function, finds the new one by
 * itself.  Privileges, comments and triggers of the table are given to the new
 * one.  Views, rules, and functions whose body PostgreSQL has parsed mean a
 * table, not its name.  They are replaced by what they say when they name
 * it, and so keep their owners, privileges, comments, and whatever uses them.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

/*
 * shard_query_rows
 *		The rows that a query with a relation as its parameter returns: a list
 *		of arrays of so many texts, NULL for null.  SPI is connected.
 *
 * No function or operator of the caller's runs, because the search path has only
 * the system catalogs.  Raises what the query raises.
 */
List *
shard_query_rows(const char *sql, Oid relid, int ncolumns)
{
	Oid			type = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(relid);
	List	   *result = NIL;
	int			guc_level = NewGUCNestLevel();

	shard_set("search_path", "pg_catalog, pg_temp");
	shard_set("jit", "off");
	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_with_args failed: %s", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	  **row = palloc(sizeof(char *) * ncolumns);

		for (int j = 0; j < ncolumns; j++)
			row[j] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
								  j + 1);
		result = lappend(result, row);
	}
	AtEOXact_GUC(false, guc_level);
	return result;
}

/*
 * shard_note_succession
 *		Find out what has to be done to put another table in the place of this
 *		one, which still has its name.  SPI is connected.
 */
void
shard_note_succession(Oid relid, ShardSuccession *succession)
{
	List	   *rows = shard_query_rows("SELECT is_own, command FROM shard_fdw.succession_of($1)",
										relid, 2);
	ListCell   *lc;

	succession->own = succession->others = NIL;
	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		if (row[0][0] == 't')
			succession->own = lappend(succession->own, row[1]);
		else
			succession->others = lappend(succession->others, row[1]);
	}
}

/*
 * shard_succeed
 *		Have a table that has got the name be what the other one was.  Acts as
 *		the caller, who is the owner.  SPI is connected.
 *
 * Raises what the commands raise.
 */
void
shard_succeed(Oid relid, const ShardSuccession *succession)
{
	List	   *rows;
	ListCell   *lc;

	/* Default privileges may not be those of the other one. */
	rows = shard_query_rows("SELECT DISTINCT format('REVOKE ALL ON TABLE %I.%I FROM %s CASCADE',"
							" c.relnamespace::regnamespace, c.relname,"
							" CASE WHEN a.grantee = 0 THEN 'PUBLIC'"
							" ELSE quote_ident(pg_get_userbyid(a.grantee)) END)"
							" FROM pg_class c, aclexplode(c.relacl) a"
							" WHERE c.oid = $1 AND a.grantee <> c.relowner"
							" UNION SELECT format('REVOKE ALL (%I) ON TABLE %I.%I FROM %s CASCADE', t.attname,"
							" c.relnamespace::regnamespace, c.relname,"
							" CASE WHEN a.grantee = 0 THEN 'PUBLIC'"
							" ELSE quote_ident(pg_get_userbyid(a.grantee)) END)"
							" FROM pg_class c, pg_attribute t, aclexplode(t.attacl) a"
							" WHERE c.oid = $1 AND t.attrelid = c.oid AND a.grantee <> c.relowner",
							relid, 1);
	foreach(lc, rows)
		shard_execute("%s", *(char **) lfirst(lc));
	foreach(lc, succession->own)
		shard_execute("%s", (char *) lfirst(lc));
}

/*
 * shard_succeed_others
 *		Have views, rules and functions use the new table.  SPI is connected.
 *
 * Acts as the caller, since these may belong to anybody.  None of the commands
 * runs what they define.
 */
void
shard_succeed_others(const ShardSuccession *succession)
{
	int			guc_level = NewGUCNestLevel();
	ListCell   *lc;

	shard_set("search_path", "pg_catalog, pg_temp");
	foreach(lc, succession->others)
		shard_execute("%s", (char *) lfirst(lc));
	AtEOXact_GUC(false, guc_level);
}

/*
 * shard_note_identities
 *		The identity columns of a table, with all that there is to know of their
 *		sequences: a list of ShardIdentityColumn.  SPI is connected.
 *
 * The sequences are locked against those who would draw from them.
 */
List *
shard_note_identities(Oid relid)
{
	List	   *rows = shard_query_rows("SELECT quote_ident(a.attname),"
										" CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,"
										" s.oid, format('%I.%I', s.relnamespace::regnamespace, s.relname),"
										" format('START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s',"
										" q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache,"
										" CASE WHEN q.seqcycle THEN ' CYCLE' END)"
										" FROM pg_attribute a"
										" JOIN pg_depend d ON d.refobjid = a.attrelid"
										" AND d.refobjsubid = a.attnum"
										" AND d.classid = 'pg_class'::regclass"
										" AND d.refclassid = 'pg_class'::regclass"
										" AND d.deptype = 'i'"
										" JOIN pg_class s ON s.oid = d.objid"
										" JOIN pg_sequence q ON q.seqrelid = s.oid"
										" WHERE a.attrelid = $1 AND a.attidentity <> ''"
										" ORDER BY a.attnum",
										relid, 5);
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);
		Oid			sequence = (Oid) strtoul(row[2], NULL, 10);
		ShardIdentityColumn *column = palloc(sizeof(ShardIdentityColumn));

		LockRelationOid(sequence, ShareRowExclusiveLock);
		column->column = row[0];
		column->kind = row[1];
		column->sequence = row[3];
		column->parameters = row[4];
		column->set_value = *(char **) linitial(shard_query_rows(psprintf("SELECT format('SELECT pg_catalog.setval(%%L, %%s, %%L)',"
																		  " %s, last_value, is_called) FROM %s",
																		  quote_literal_cstr(row[3]), row[3]),
																 sequence, 1));
		column->grants = shard_query_rows("SELECT format('GRANT %s ON SEQUENCE %I.%I TO %s%s', a.privilege_type,"
										  " c.relnamespace::regnamespace, c.relname,"
										  " CASE WHEN a.grantee = 0 THEN 'PUBLIC'"
										  " ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
										  " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)"
										  " FROM pg_class c, aclexplode(c.relacl) a"
										  " WHERE c.oid = $1 AND a.grantee <> c.relowner",
										  sequence, 1);
		result = lappend(result, column);
	}
	return result;
}

/*
 * shard_drop_identities
 *		Make ordinary columns of the identity columns of a table.
 */
void
shard_drop_identities(Oid relid, List *columns)
{
	ListCell   *lc;

	foreach(lc, columns)
		shard_execute("ALTER TABLE %s ALTER COLUMN %s DROP IDENTITY",
					  shard_qualified_name(relid),
					  ((ShardIdentityColumn *) lfirst(lc))->column);
}

/*
 * shard_add_identities
 *		Make identity columns of those of another table, with sequences that
 *		have the same names as theirs and go on where those were.
 */
void
shard_add_identities(Oid relid, List *columns)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		ShardIdentityColumn *column = lfirst(lc);
		ListCell   *lc2;

		shard_execute("ALTER TABLE %s ALTER COLUMN %s ADD GENERATED %s AS IDENTITY (SEQUENCE NAME %s %s)",
					  shard_qualified_name(relid), column->column,
					  column->kind, column->sequence, column->parameters);
		shard_execute("%s", column->set_value);
		foreach(lc2, column->grants)
			shard_execute("%s", *(char **) lfirst(lc2));
	}
}
