/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  What a backend knows about logical tables and their shards.
 *
 * The catalogs are the only truth: pg_inherits says which tables are shards,
 * their CHECK constraints say which take inserts.  A backend reads them once
 * and keeps the result until the relation cache reports a change of the
 * logical table (a shard was added, an option changed) or of one of its
 * shards (detached, dropped, sealed, renamed).
 *
 * The catalogs are read without locking any shard: a lock held on one shard
 * by maintenance must not stop inserts into the others.  So what
 * the cache says of a shard is certain only once the shard is locked and no
 * invalidation has come in since; see lock_shard() in target.c.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

static HTAB *shard_tables = NULL;

/* The entry that was asked for last; a session mostly asks for the same. */
static ShardTable *last_table = NULL;

/* Has the running transaction built entries? */
static bool has_built = false;

/* Are there entries that may hold nothing? */
static bool has_empty = false;

/* May one of the tables be gone? */
static bool may_be_gone = false;

/* A shard while an entry is being built, with what it is sorted by. */
typedef struct NamedMember
{
	ShardMember member;
	NameData	name;
	int			stem_len;		/* name without the digits at its end */
	uint64		number;			/* those digits */
} NamedMember;

/* An array's entries begin with the OID, or are nothing else. */
/*
 * Compare two OIDs, for qsort() and bsearch().
 */
static int
compare_oids(const void *a, const void *b)
{
	Oid			oa = *(const Oid *) a;
	Oid			ob = *(const Oid *) b;

	return (oa > ob) - (oa < ob);
}

/*
 * Mark the entries invalid that a change of a relation concerns.  An OID of zero
 * means that everything may have changed.
 *
 * Invalidation callbacks must not read catalogs.  The entries are rebuilt when
 * they are looked up the next time.
 */
static void
invalidate_table(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	ShardTable *table;

	hash_seq_init(&status, shard_tables);
	while ((table = hash_seq_search(&status)) != NULL)
	{
		/* We do not know yet which shards it will turn out to have. */
		if (table->is_building)
			table->is_outdated = true;
		if (!OidIsValid(relid) || relid == table->relid)
			may_be_gone = true;
		if (table->is_valid &&
			(!OidIsValid(relid) || relid == table->relid ||
			 shard_table_find(table, relid) >= 0))
			table->is_valid = false;
	}
}

/*
 * Mark the entries invalid that depend on a function or type that has changed.
 */
static void
invalidate_object(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	ShardTable *table;
	ListCell   *lc;

	hash_seq_init(&status, shard_tables);
	while ((table = hash_seq_search(&status)) != NULL)
	{
		if (table->is_building)
			table->is_outdated = true;
		if (!table->is_valid)
			continue;
		foreach(lc, table->depends)
		{
			PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

			if (item->cacheId == cacheid &&
				(hashvalue == 0 || hashvalue == item->hashValue))
				table->is_valid = false;
		}
	}
}

/*
 * Mark the entries that the (sub)transaction has built invalid, or all that
 * the transaction has, when it is rolled back.
 *
 * They show what its own DDL made of the tables.  The invalidations that come
 * with the rollback are not sufficient: detaching a shard sends one for the
 * shard, and the entry no longer knows that shard.  The same is true of plans
 * that were made with the entry.
 */
static void
forget_built(SubTransactionId since)
{
	HASH_SEQ_STATUS status;
	ShardTable *table;
	bool		found = false;

	hash_seq_init(&status, shard_tables);
	while ((table = hash_seq_search(&status)) != NULL)
		if (table->built_in != InvalidSubTransactionId &&
			table->built_in >= since)
		{
			table->is_valid = false;
			found = true;
		}
	/* Without DDL there is nothing wrong with the plans. */
	if (found && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ResetPlanCache();
}

/*
 * Forget what a subtransaction has read when it is rolled back.
 */
static void
on_subxact_end(SubXactEvent event, SubTransactionId subid,
			   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && has_built)
		forget_built(subid);
}

/*
 * Forget what a transaction has read when it is rolled back, and remove the
 * entries of tables that are gone.
 */
static void
on_xact_end(XactEvent event, void *arg)
{
	HASH_SEQ_STATUS status;
	ShardTable *table;

	if ((!has_built && !has_empty) || event == XACT_EVENT_PRE_COMMIT ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT ||
		event == XACT_EVENT_PRE_PREPARE)
		return;
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_PARALLEL_COMMIT)
		forget_built(TopSubTransactionId);
	hash_seq_init(&status, shard_tables);
	while ((table = hash_seq_search(&status)) != NULL)
	{
		table->built_in = InvalidSubTransactionId;
		/* No statement is running that could have a pointer to it. */
		if (table->context == NULL)
			hash_search(shard_tables, &table->relid, HASH_REMOVE, NULL);
	}
	last_table = NULL;
	has_built = false;
	has_empty = false;
}

/*
 * Mark all entries invalid when a server changes, from which options may come.
 */
static void
invalidate_server(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate_table(arg, InvalidOid);
}

/*
 * shard_table_init
 *		Create the cache.  To be called once, when the library is loaded.
 */
void
shard_table_init(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(ShardTable);
	shard_tables = hash_create("shard_fdw tables", 16, &ctl,
							   HASH_ELEM | HASH_BLOBS);

	CacheRegisterRelcacheCallback(invalidate_table, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate_server,
								  (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, invalidate_object, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, invalidate_object, (Datum) 0);
	RegisterXactCallback(on_xact_end, NULL);
	RegisterSubXactCallback(on_subxact_end, NULL);
}

/*
 * shard_name_stem
 *		The length of a name without the digits at its end, whose value *number
 *		becomes.
 */
int
shard_name_stem(const char *name, uint64 *number)
{
	int			len = strlen(name);

	while (len > 0 && isdigit((unsigned char) name[len - 1]))
		len--;
	*number = strtoull(name + len, NULL, 10);
	return len;
}

/*
 * Read what the catalogs say of one child.  Returns false if it is no longer
 * there, or is a temporary table of another session.  If "table" is NULL, only
 * name, kind and state are read, which anybody may ask for.
 */
static bool
describe_member(NamedMember *named, Oid relid, bool is_temp,
				ShardTable *table)
{
	ShardMember *member = &named->member;
	HeapTuple	tuple;
	Form_pg_class form;
	ShardChecks checks = {0};

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);

	/* As in core's expansion, other sessions' temporary tables are ignored. */
	if (form->relpersistence == RELPERSISTENCE_TEMP &&
		isOtherTempNamespace(form->relnamespace))
	{
		ReleaseSysCache(tuple);
		return false;
	}

	memset(named, 0, sizeof(NamedMember));
	member->relid = relid;
	member->is_local = form->relkind == RELKIND_RELATION;
	member->has_children = form->relhassubclass;

	if (form->relchecks > 0)
		shard_read_checks(relid, table == NULL, &checks, member, table);
	if (table != NULL)
	{
		member->sees_rows = checks.sees_rows ||
			(form->relhastriggers &&
			 shard_trigger_sees_rows(relid, &checks.depends));
		table->depends = list_concat(table->depends, checks.depends);
	}

	if (table != NULL && table->seq_attno != 0)
	{
		member->sequence =
			shard_default_sequence(relid, get_attname(table->relid,
													  table->seq_attno, false));
		member->owns_sequence = shard_owns_sequence(table->relid,
													table->seq_attno, relid,
													member->sequence);
	}

	/* Rows of a permanent table must not go into a temporary one. */
	member->state = checks.seal != NULL ||
		(!is_temp && form->relpersistence == RELPERSISTENCE_TEMP) ?
		SHARD_SEALED : shard_is_closed(relid) ? SHARD_CLOSED : SHARD_OPEN;
	member->is_open = member->state == SHARD_OPEN;

	named->name = form->relname;
	named->stem_len = shard_name_stem(NameStr(named->name), &named->number);

	ReleaseSysCache(tuple);
	return true;
}

/*
 * Ordinals follow the names, numbers in them by value: log_2 comes before
 * log_10.  Names survive a dump and restore; OIDs would not.
 */
static int
compare_names(const void *a, const void *b)
{
	const NamedMember *na = a;
	const NamedMember *nb = b;
	int			result;

	result = strncmp(NameStr(na->name), NameStr(nb->name),
					 Min(na->stem_len, nb->stem_len));
	if (result == 0)
		result = na->stem_len - nb->stem_len;
	if (result == 0)
		result = (na->number > nb->number) - (na->number < nb->number);
	if (result == 0)
		result = strcmp(NameStr(na->name), NameStr(nb->name));
	if (result == 0)
		result = compare_oids(&na->member.relid, &nb->member.relid);
	return result;
}

/*
 * Does the relation have a column that has not been dropped?
 */
static bool
has_columns(Oid relid)
{
	int			natts = 0;
	bool		result = false;
	HeapTuple	tuple;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (HeapTupleIsValid(tuple))
	{
		natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	for (int attno = 1; attno <= natts && !result; attno++)
	{
		tuple = SearchSysCacheAttNum(relid, attno);
		if (HeapTupleIsValid(tuple))
		{
			result = true;
			ReleaseSysCache(tuple);
		}
	}
	return result;
}

/*
 * Describe the children of a logical table, in ordinal order; *n becomes their
 * number.  For "table" see describe_member().  The array is allocated in the
 * current memory context.
 */
static NamedMember *
describe_members(Oid relid, ShardTable *table, int *n)
{
	List	   *children = NIL;
	NamedMember *named;
	bool		is_temp = false;
	ListCell   *lc;

	/* As we hold no lock, it can be dropped at any time. */
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
	{
		is_temp = get_rel_persistence(relid) == RELPERSISTENCE_TEMP;
		children = find_inheritance_children(relid, NoLock);
	}
	named = palloc(sizeof(NamedMember) * Max(list_length(children), 1));
	*n = 0;
	foreach(lc, children)
	{
		CHECK_FOR_INTERRUPTS();
		if (describe_member(&named[*n], lfirst_oid(lc), is_temp, table))
			(*n)++;
	}
	qsort(named, *n, sizeof(NamedMember), compare_names);
	return named;
}

/*
 * Read the catalogs into an entry, in the current memory context.
 */
static void
read_table(ShardTable *table, MemoryContext scratch)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(scratch);
	ShardOptions options;
	NamedMember *named;
	int			n;

	/* Queries ignore bad options, and INSERT raises an error. */
	table->has_bad_options = !shard_get_good_options(table->relid, &options);
	table->route = options.route;
	table->batch_size = options.batch_size;
	table->commit_order = options.commit_order;
	table->has_columns = has_columns(table->relid);
	table->time_attno = options.time_column == NULL ? 0 :
		get_attnum(table->relid, options.time_column);
	table->time_type = table->time_attno <= 0 ? InvalidOid :
		get_atttype(table->relid, table->time_attno);
	if (!shard_is_time_type(table->time_type))
		table->time_attno = 0;

	MemoryContextSwitchTo(oldcontext);
	table->key = options.route == SHARD_ROUTE_HASH ?
		shard_key_create(table->relid, options.key, true) : NULL;
	MemoryContextSwitchTo(scratch);

	table->seq_attno = shard_sequence_column(table->relid, true,
											 &table->seq_always);

	table->depends = NIL;
	named = describe_members(table->relid, table, &n);
	MemoryContextSwitchTo(oldcontext);

	table->depends = copyObject(table->depends);
	table->nopen = 0;
	table->sees_rows = false;
	table->members = palloc(sizeof(ShardMember) * Max(n, 1));
	table->sorted = palloc(sizeof(ShardByOid) * Max(n, 1));
	table->open = palloc(sizeof(int) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		table->members[i] = named[i].member;
		table->sorted[i].relid = named[i].member.relid;
		table->sorted[i].ordinal = i;
		if (named[i].member.is_open)
		{
			table->open[table->nopen++] = i;
			table->sees_rows |= named[i].member.sees_rows;
		}
	}
	table->nmembers = n;
	qsort(table->sorted, n, sizeof(ShardByOid), compare_oids);
	table->nplaces = 0;
	table->bounds = NULL;
	if (table->key != NULL)
		shard_place_members(table);
}

/*
 * Fill in everything below "context" in the entry.
 */
static void
build_table(ShardTable *table)
{
	MemoryContext scratch;
	MemoryContext context;
	MemoryContext oldcontext;
	ShardTable	built = *table;

	/* If there is an error, all this is freed with the caller's context. */
	scratch = AllocSetContextCreate(CurrentMemoryContext,
									"shard_fdw catalog reading",
									ALLOCSET_DEFAULT_SIZES);
	context = AllocSetContextCreate(CurrentMemoryContext, "shard_fdw table",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	built.conflicts = NIL;
	read_table(&built, scratch);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(scratch);

	if (table->context != NULL)
		MemoryContextDelete(table->context);
	MemoryContextSetParent(context, CacheMemoryContext);
	/* Reading may have brought invalidations, which are noted in the entry. */
	built.is_valid = table->is_valid;
	built.is_outdated = table->is_outdated;
	*table = built;
	table->context = context;
	table->built_in = GetCurrentSubTransactionId();
	has_built = true;
}

/*
 * shard_table_get
 *		The cache entry of a logical table, brought up to date if need be.
 *
 * The caller holds a lock on the logical table.  The entry lives as long as
 * the transaction at least and is not to be freed.  Raises what reading
 * catalogs raises.
 *
 * If the catalogs change while they are being read, the entry returned is
 * still marked invalid: good for a try, to be checked under lock.
 */
ShardTable *
shard_table_get(Oid relid)
{
	ShardTable *table;
	bool		found;

	if (likely(last_table != NULL && last_table->relid == relid &&
			   last_table->is_valid))
		return last_table;

	table = hash_search(shard_tables, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) table + sizeof(Oid), 0,
			   sizeof(ShardTable) - sizeof(Oid));
		has_empty = true;
	}
	last_table = table;
	if (table->is_valid)
		return table;

	shard_table_sweep();
	table->is_building = true;
	table->is_outdated = false;
	build_table(table);
	table->is_building = false;
	table->generation++;

	/*
	 * A shard that is detached sends an invalidation because its columns
	 * change.  Without columns there is none, so such a table is read anew
	 * every time.
	 */
	table->is_valid = !table->is_outdated && table->has_columns;
	return table;
}

/*
 * shard_list_members
 *		The shards of a logical table in ordinal order; *nmembers becomes their
 *		number.  Only relid, is_local, has_children and state are filled in.
 *
 * This is for views and others that must not wait.  It takes no lock, and does
 * not fail whatever the owner of the table or of a shard has done.  What is
 * read without a lock is not kept.  A relation that is not there has no shards.
 * The array is allocated in the current memory context.
 */
ShardMember *
shard_list_members(Oid relid, int *nmembers)
{
	ShardTable *table;
	ShardMember *result;

	AcceptInvalidationMessages();
	table = hash_search(shard_tables, &relid, HASH_FIND, NULL);
	if (table != NULL && table->is_valid)
	{
		*nmembers = table->nmembers;
		result = palloc(sizeof(ShardMember) * Max(table->nmembers, 1));
		memcpy(result, table->members, sizeof(ShardMember) * table->nmembers);
	}
	else
	{
		NamedMember *named = describe_members(relid, NULL, nmembers);

		result = palloc(sizeof(ShardMember) * Max(*nmembers, 1));
		for (int i = 0; i < *nmembers; i++)
			result[i] = named[i].member;
		pfree(named);
	}
	return result;
}

/*
 * shard_table_sweep
 *		Give back the leases and the memory of logical tables that are gone.
 *
 * A table that has been dropped is not looked up again, so this is called when
 * another one is.  The entry itself is removed at the end of the transaction.
 */
void
shard_table_sweep(void)
{
	HASH_SEQ_STATUS status;
	ShardTable *table;

	if (likely(!may_be_gone))
		return;
	may_be_gone = false;
	hash_seq_init(&status, shard_tables);
	while ((table = hash_seq_search(&status)) != NULL)
	{
		if (table->is_valid || table->context == NULL ||
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table->relid)))
			continue;
		shard_forget_lease(table);
		table->nmembers = 0;
		table->nopen = 0;
		MemoryContextDelete(table->context);
		table->context = NULL;
		has_empty = true;
	}
}

/*
 * shard_state_name
 *		A state, as list_shards() and messages call it.
 *
 * The string is constant.
 */
const char *
shard_state_name(ShardState state)
{
	return state == SHARD_OPEN ? "open" :
		state == SHARD_CLOSED ? "closed" : "sealed";
}

/*
 * shard_find_by_oid
 *		The ordinal of a shard in an array of "n" that is sorted by OID, or -1.
 */
int
shard_find_by_oid(const ShardByOid *sorted, int n, Oid relid)
{
	const ShardByOid *found = bsearch(&relid, sorted, n, sizeof(ShardByOid),
									  compare_oids);

	return found == NULL ? -1 : found->ordinal;
}

/*
 * shard_table_find
 *		The ordinal of a shard in the entry as it stands, or -1.
 */
int
shard_table_find(const ShardTable *table, Oid shard)
{
	return shard_find_by_oid(table->sorted, table->nmembers, shard);
}

/*
 * shard_map_by_name
 *		For every column of the shard the column of the logical table, or 0
 *		if there is none.
 */
AttrMap *
shard_map_by_name(Relation logical, Relation shard)
{
	/* Every column of the parent is in the child, not the reverse. */
	AttrMap    *back = shard_attrmap_by_name(RelationGetDescr(shard),
											 RelationGetDescr(logical));
	AttrMap    *map = make_attrmap(RelationGetDescr(shard)->natts);

	for (int i = 0; i < back->maplen; i++)
		if (back->attnums[i] > 0)
			map->attnums[back->attnums[i] - 1] = i + 1;
	free_attrmap(back);
	return map;
}

/*
 * shard_member_map
 *		How to make a row of the shard from a row of the logical table: for
 *		every column of the shard the column of the logical table, or 0 if
 *		there is none.  NULL if rows fit as they are.
 *
 * For that, dropped columns must have the same width and alignment, too.  New
 * rows have nulls there, but rows from before the column was dropped do not,
 * and core looks for the columns behind it by the descriptor of either table.
 *
 * Both relations are open and locked.  The result belongs to the cache and
 * is gone when the table's entry is rebuilt; the caller copies it.
 */
const AttrMap *
shard_member_map(ShardMember *member, ShardTable *table,
				 Relation logical, Relation shard)
{
	TupleDesc	from = RelationGetDescr(logical);
	TupleDesc	to = RelationGetDescr(shard);
	bool		same = from->natts == to->natts;

	if (likely(member->map_known))
		return member->map;

	for (int i = 0; same && i < from->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(from, i);
		Form_pg_attribute b = TupleDescAttr(to, i);

		same = a->attisdropped == b->attisdropped &&
			(a->attisdropped || strcmp(NameStr(a->attname),
									   NameStr(b->attname)) == 0) &&
			a->attlen == b->attlen && a->attbyval == b->attbyval &&
			a->attalign == b->attalign;
	}

	if (!same)
	{
		MemoryContext oldcontext;

		oldcontext = MemoryContextSwitchTo(table->context);
		member->map = shard_map_by_name(logical, shard);
		MemoryContextSwitchTo(oldcontext);
	}
	member->map_known = true;
	return member->map;
}

/*
 * shard_open_closed
 *		Open the table of closed shards and lock it in this mode.  NULL if there
 *		is none, because the extension is just being created or dropped.
 */
Relation
shard_open_closed(LOCKMODE mode)
{
	Oid			schema = get_namespace_oid("shard_fdw", true);
	Oid			relid = OidIsValid(schema) ?
		get_relname_relid("closed_shards", schema) : InvalidOid;
	Relation	result = OidIsValid(relid) ?
		try_relation_open(relid, mode) : NULL;

	if (result != NULL && result->rd_rel->relkind != RELKIND_RELATION)
	{
		relation_close(result, mode);
		return NULL;
	}
	return result;
}

/*
 * shard_is_closed
 *		Is the shard closed, according to the latest that is committed and to
 *		this transaction?
 *
 * Takes no lock on the shard.
 */
bool
shard_is_closed(Oid shard)
{
	Relation	closed_shards = shard_open_closed(AccessShareLock);
	Oid			index;
	SysScanDesc scan;
	ScanKeyData key;
	bool		result;

	if (closed_shards == NULL)
		return false;
	index = get_relname_relid("closed_shards_pkey",
							  RelationGetNamespace(closed_shards));
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(shard));
	scan = systable_beginscan(closed_shards, index, OidIsValid(index),
							  SnapshotSelf, 1, &key);
	result = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	relation_close(closed_shards, AccessShareLock);
	return result;
}
