/*-------------------------------------------------------------------------
 *
 * succession.c
 *	  Putting one table in the place of another that had its name.
 *
 * What names the table, such as the body of a function, finds the new one by
 * itself.  Privileges, comments, triggers and identity columns of the table are
 * given to the new one.  Views, rules, and functions whose body PostgreSQL has parsed mean a
 * table, not its name.  They are replaced by what they say when they name
 * it, and so keep their owners, privileges, comments, and whatever uses them.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

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
 * shard_views_of
 *		The views that read a relation themselves, not by way of other views.
 *		SPI is connected.
 *
 * Whoever reads a view locks it before what it reads.  So must those who change
 * both.
 */
List *
shard_views_of(Oid relid)
{
	List	   *rows = shard_query_rows("SELECT DISTINCT v.oid FROM pg_depend d"
										" JOIN pg_rewrite r ON r.oid = d.objid"
										" JOIN pg_class v ON v.oid = r.ev_class"
										" WHERE d.classid = 'pg_rewrite'::regclass"
										" AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1"
										" AND v.oid <> $1 ORDER BY 1",
										relid, 1);
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, rows)
		result = lappend_oid(result, atooid(*(char **) lfirst(lc)));
	return result;
}

/*
 * The catalog's row of a table or, if attno is not 0, of a column of it.  To be
 * released.
 */
static HeapTuple
find_tuple(Oid relid, AttrNumber attno)
{
	HeapTuple	tuple = attno == 0 ?
		SearchSysCache1(RELOID, ObjectIdGetDatum(relid)) :
		SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attno));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for column %d of relation %u", attno,
			 relid);
	return tuple;
}

/*
 * The privileges on a table or a column: a copy, or NULL if they are those by
 * default.
 */
static Acl *
get_acl(Oid relid, AttrNumber attno)
{
	HeapTuple	tuple = find_tuple(relid, attno);
	bool		isnull;
	Datum		acl = attno == 0 ?
		SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull) :
		SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &isnull);
	Acl		   *result = isnull ? NULL : DatumGetAclPCopy(acl);

	ReleaseSysCache(tuple);
	return result;
}

/*
 * Set them.
 */
static void
set_acl(Oid relid, AttrNumber attno, Oid owner, Acl *acl)
{
	Acl		   *old = get_acl(relid, attno);
	Oid		   *old_members;
	Oid		   *members;
	int			nold = aclmembers(old, &old_members);
	int			nmembers = aclmembers(acl, &members);
	Relation	catalog;
	HeapTuple	tuple;
	int			column = attno == 0 ? Anum_pg_class_relacl :
		Anum_pg_attribute_attacl;
	Datum		value = PointerGetDatum(acl);
	bool		isnull = acl == NULL;

	if (old == NULL && acl == NULL)
		return;
	catalog = table_open(attno == 0 ? RelationRelationId : AttributeRelationId,
						 RowExclusiveLock);
	tuple = find_tuple(relid, attno);
	CatalogTupleUpdate(catalog, &tuple->t_self,
					   heap_modify_tuple_by_cols(tuple,
												 RelationGetDescr(catalog), 1,
												 &column, &value, &isnull));
	ReleaseSysCache(tuple);
	table_close(catalog, RowExclusiveLock);
	updateAclDependencies(RelationRelationId, relid, attno, owner,
						  nold, old_members, nmembers, members);
	CommandCounterIncrement();
}

/*
 * Have GRANT and REVOKE wait for this transaction: they wait for no lock on a
 * table, but for the row.
 */
static void
hold_acl(Oid relid, AttrNumber attno)
{
	Relation	catalog = table_open(attno == 0 ? RelationRelationId :
									 AttributeRelationId, RowExclusiveLock);
	TM_Result	result;

	do
	{
		HeapTuple	found = find_tuple(relid, attno);
		HeapTupleData tuple = {.t_self = found->t_self};
		Buffer		buffer;
		TM_FailureData failure;

		ReleaseSysCache(found);
		result = heap_lock_tuple(catalog, &tuple, GetCurrentCommandId(true),
								 LockTupleNoKeyExclusive, LockWaitBlock, false,
								 &buffer, &failure);
		ReleaseBuffer(buffer);
		/* If it was changed, the cache has another one now. */
		if (result != TM_Ok)
			AcceptInvalidationMessages();
		CHECK_FOR_INTERRUPTS();
	} while (result == TM_Updated || result == TM_Deleted);
	if (result != TM_Ok)
		elog(ERROR, "could not lock privileges of relation %u: %d", relid,
			 result);
	table_close(catalog, RowExclusiveLock);
}

/*
 * shard_hold_privileges
 *		Have GRANT and REVOKE on a relation, and on its columns, wait for this
 *		transaction.
 *
 * To be called before others have to wait for a lock on the relation, because
 * transactions that have changed its privileges are waited for: as long as
 * shard_lock_patiently() waits, and then ERRCODE_LOCK_NOT_AVAILABLE is raised.
 */
void
shard_hold_privileges(Oid relid)
{
	int			guc_level = NewGUCNestLevel();
	Relation	rel = table_open(relid, NoLock);
	int			natts = RelationGetNumberOfAttributes(rel);

	table_close(rel, NoLock);
	shard_limit_lock_wait(shard_lock_patience());
	for (AttrNumber attno = 0; attno <= natts; attno++)
		if (attno == 0 || get_attname(relid, attno, true) != NULL)
			hold_acl(relid, attno);
	AtEOXact_GUC(false, guc_level);
}

/*
 * Those of the privileges that the owner has.
 */
static Acl *
acl_of_owner(const Acl *acl, Oid owner)
{
	Acl		   *result = aclcopy(acl);
	AclItem    *items = ACL_DAT(result);
	int			n = 0;

	for (int i = 0; i < ACL_NUM(acl); i++)
		if (items[i].ai_grantee == owner)
			items[n++] = items[i];
	ARR_DIMS(result)[0] = n;
	SET_VARSIZE(result, ACL_N_SIZE(n));
	return result;
}

/*
 * shard_copy_privileges
 *		Give a table the privileges of another one in place of those that it
 *		has, default ones included; or, if "only_owner", those of the owner.
 *
 * GRANT could not say who has granted them.  The caller has locked both tables,
 * and may do that.
 */
void
shard_copy_privileges(Oid from, Oid to, bool only_owner)
{
	Relation	source = table_open(from, NoLock);
	Relation	target = table_open(to, NoLock);
	Oid			old_owner = source->rd_rel->relowner;
	Oid			owner = target->rd_rel->relowner;
	int			natts = RelationGetNumberOfAttributes(target);

	table_close(target, NoLock);
	table_close(source, NoLock);
	for (AttrNumber attno = 0; attno <= natts; attno++)
	{
		AttrNumber	number = 0;
		Acl		   *acl = NULL;

		if (attno > 0)
		{
			char	   *name = get_attname(to, attno, true);

			if (name == NULL)
				continue;		/* dropped */
			number = get_attnum(from, name);
		}
		if (attno == 0 || number != InvalidAttrNumber)
		{
			hold_acl(from, number);
			acl = get_acl(from, number);
		}
		if (acl != NULL && only_owner)
			acl = acl_of_owner(acl, old_owner);
		if (acl != NULL && owner != old_owner)
			acl = aclnewowner(acl, old_owner, owner);
		set_acl(to, attno, owner, acl);
	}
}

/*
 * shard_run_for_both
 *		Run the commands that a query returns, as text, with an old shard and the
 *		qualified name of a new one as its parameters.  SPI is connected.
 *
 * Raises what they raise.
 */
void
shard_run_for_both(const char *query, Oid old_shard, Oid new_shard)
{
	Oid			types[] = {OIDOID, TEXTOID};
	Datum		values[] = {
		ObjectIdGetDatum(old_shard),
		CStringGetTextDatum(shard_qualified_name(new_shard))
	};
	List	   *commands = NIL;
	ListCell   *lc;

	if (SPI_execute_with_args(query, 2, types, values, NULL, true, 0) < 0)
		elog(ERROR, "SPI_execute_with_args failed");
	for (uint64 i = 0; i < SPI_processed; i++)
		commands = lappend(commands, SPI_getvalue(SPI_tuptable->vals[i],
												  SPI_tuptable->tupdesc, 1));
	foreach(lc, commands)
		shard_execute("%s", (char *) lfirst(lc));
}

/*
 * shard_copy_surroundings
 *		Copy to a new shard what an old one has beside its definition and its
 *		privileges: publications and the comment.  SPI is connected.
 *
 * A foreign table cannot belong to a publication, so a shard that becomes one
 * must have none.
 */
void
shard_copy_surroundings(Oid old_shard, Oid new_shard)
{
	shard_run_for_both(psprintf("SELECT pg_catalog.replace(f.command, E'\\x01', $2)"
								" FROM shard_fdw.features_of($1) f WHERE f.kind = 'publication'"
								" AND NOT EXISTS (SELECT FROM shard_fdw.features_of($2::regclass) g"
								" WHERE g.kind = f.kind AND g.definition = f.definition)"
								" UNION ALL"
								" SELECT pg_catalog.format('COMMENT ON %s %%s IS %%L', $2, d)"
								" FROM pg_catalog.obj_description($1, 'pg_class') d WHERE d IS NOT NULL",
								get_rel_relkind(new_shard) == RELKIND_RELATION ?
								"TABLE" : "FOREIGN TABLE"),
					   old_shard, new_shard);
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

	succession->predecessor = relid;
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
 *		Have a table that has got the name be what the other one, which is still
 *		there, was.  Acts as the caller, who is the owner.  SPI is connected.
 *
 * Raises what the commands raise.
 */
void
shard_succeed(Oid relid, const ShardSuccession *succession)
{
	ListCell   *lc;

	foreach(lc, succession->own)
		shard_execute("%s", (char *) lfirst(lc));
	/* The owner may have taken some from himself that the commands need. */
	shard_copy_privileges(succession->predecessor, relid, false);
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
 * Make an identity column of a column, or an ordinary one again, as this value
 * of pg_attribute.attidentity says.  Returns what it was.
 */
static char
set_identity(Oid relid, AttrNumber attno, char identity)
{
	Relation	catalog = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(relid),
											Int16GetDatum(attno));
	char		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for column %d of relation %u", attno,
			 relid);
	result = ((Form_pg_attribute) GETSTRUCT(tuple))->attidentity;
	((Form_pg_attribute) GETSTRUCT(tuple))->attidentity = identity;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	table_close(catalog, RowExclusiveLock);
	return result;
}

/*
 * shard_move_identities
 *		Make identity columns of the columns of a table that have the names of
 *		those of another one, with the sequences of these, which become ordinary
 *		columns.
 *
 * The caller has locked both tables, may do that, and has seen to it that the
 * columns are not null and have no defaults.  No command leaves the sequences
 * what they are, with privileges, comments and what else uses them.
 */
void
shard_move_identities(Oid from, Oid to)
{
	ListCell   *lc;

	foreach(lc, getOwnedSequences(from))
	{
		Oid			owner;
		int32		attno;
		ObjectAddress sequence;
		ObjectAddress column;

		ObjectAddressSet(sequence, RelationRelationId, lfirst_oid(lc));
		if (!sequenceIsOwned(sequence.objectId, DEPENDENCY_INTERNAL, &owner,
							 &attno))
			continue;
		ObjectAddressSubSet(column, RelationRelationId, to,
							get_attnum(to, get_attname(from, attno, false)));
		(void) set_identity(to, column.objectSubId,
							set_identity(from, attno, '\0'));
		(void) deleteDependencyRecordsForSpecific(RelationRelationId,
												  sequence.objectId,
												  DEPENDENCY_INTERNAL,
												  RelationRelationId, from);
		recordDependencyOn(&sequence, &column, DEPENDENCY_INTERNAL);
	}
	CommandCounterIncrement();
}

/*
 * Copy how many rows and pages the table had when it was analyzed.
 */
static void
copy_size(Oid from, Oid to)
{
	Relation	catalog = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	source = SearchSysCache1(RELOID, ObjectIdGetDatum(from));
	HeapTuple	target = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(to));

	if (!HeapTupleIsValid(source) || !HeapTupleIsValid(target))
		elog(ERROR, "cache lookup failed for relation %u or %u", from, to);
	((Form_pg_class) GETSTRUCT(target))->reltuples =
		((Form_pg_class) GETSTRUCT(source))->reltuples;
	((Form_pg_class) GETSTRUCT(target))->relpages =
		((Form_pg_class) GETSTRUCT(source))->relpages;
	ReleaseSysCache(source);
	CatalogTupleUpdate(catalog, &target->t_self, target);
	table_close(catalog, RowExclusiveLock);
}

/*
 * shard_copy_statistics
 *		Copy the statistics that ANALYZE has collected, for a foreign table, which
 *		cannot be analyzed before it is committed.
 */
void
shard_copy_statistics(Oid from, Oid to)
{
	Relation	catalog = table_open(StatisticRelationId, RowExclusiveLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_statistic_starelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(from));
	scan = systable_beginscan(catalog, StatisticRelidAttnumInhIndexId, true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_statistic form = (Form_pg_statistic) GETSTRUCT(tuple);
		AttrNumber	attno = get_attnum(to, get_attname(from, form->staattnum,
													   false));
		Datum		values[Natts_pg_statistic] = {0};
		bool		nulls[Natts_pg_statistic] = {false};
		bool		replaces[Natts_pg_statistic] = {false};

		if (attno == InvalidAttrNumber || form->stainherit)
			continue;
		values[Anum_pg_statistic_starelid - 1] = ObjectIdGetDatum(to);
		replaces[Anum_pg_statistic_starelid - 1] = true;
		values[Anum_pg_statistic_staattnum - 1] = Int16GetDatum(attno);
		replaces[Anum_pg_statistic_staattnum - 1] = true;
		tuple = heap_modify_tuple(tuple, RelationGetDescr(catalog), values,
								  nulls, replaces);
		CatalogTupleInsert(catalog, tuple);
		heap_freetuple(tuple);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);
	copy_size(from, to);
	CommandCounterIncrement();
}
