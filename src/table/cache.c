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

#include "access/attmap.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

static HTAB *shard_tables = NULL;

/* The entry that was asked for last; a session mostly asks for the same. */
static ShardTable *last_table = NULL;

/* Has this session seen a table with option "single_node"? */
bool		shard_has_single_node = false;

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
	int			stem_len;		/* name without the digits at its end */
	uint64		number;			/* those digits */
} NamedMember;

/*
 * Compare two OIDs, for qsort() and bsearch().  An array's entries begin with
 * the OID, or are nothing else.
 */
static int
compare_oids(const void *a, const void *b)
{
	Oid			oa = *(const Oid *) a;
	Oid			ob = *(const Oid *) b;

	return (oa > ob) - (oa < ob);
}

/* Nothing of the entry is to be relied on any more. */
static void
forget_all(ShardTable *table)
{
	table->is_valid = false;
	table->is_all_stale = true;
}

/* Has a shard changed since the entry was brought up to date? */
static bool
is_stale(const ShardTable *table, Oid shard)
{
	for (int i = 0; i < table->nstale; i++)
	{
		if (table->stale[i] == shard)
			return true;
	}
	return false;
}

/* A shard has changed. */
static void
forget_member(ShardTable *table, Oid shard)
{
	table->is_valid = false;
	if (is_stale(table, shard))
		return;
	if (table->nstale < lengthof(table->stale))
		table->stale[table->nstale++] = shard;
	else
		table->is_all_stale = true;
}

/* Is the OID in an array that is sorted? */
static bool
is_in(Oid relid, const Oid *sorted, int n)
{
	return bsearch(&relid, sorted, n, sizeof(Oid), compare_oids) != NULL;
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
		if (table->context == NULL)
			continue;
		if (!OidIsValid(relid))
			forget_all(table);
		else if (relid == table->relid)
		{
			table->is_valid = false;
			table->is_changed = true;
		}
		else if (shard_table_find(table, relid) >= 0 ||
				 is_in(relid, table->unseen, table->nunseen))
			forget_member(table, relid);
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
		for (int i = 0; i < table->nmembers; i++)
		{
			foreach(lc, table->members[i].depends)
			{
				PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

				if (item->cacheId == cacheid &&
					(hashvalue == 0 || hashvalue == item->hashValue))
				{
					forget_member(table, table->members[i].relid);
					break;
				}
			}
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
			forget_all(table);
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
 * Fill in what anybody may ask for of one child: its name, its kind, and
 * whether it is closed.  False if it is no longer there or is out of this
 * backend's reach.
 */
static bool
identify_member(ShardMember *member, Oid relid, bool is_temp, bool is_closed)
{
	HeapTuple	tuple;
	Form_pg_class form;
	bool		is_there;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);

	/* As in core's expansion, other sessions' temporary tables are ignored. */
	is_there = form->relpersistence != RELPERSISTENCE_TEMP ||
		!isOtherTempNamespace(form->relnamespace);
	if (is_there)
	{
		memset(member, 0, sizeof(ShardMember));
		member->relid = relid;
		member->name = pstrdup(NameStr(form->relname));
		member->is_local = form->relkind == RELKIND_RELATION;
		member->has_children = form->relhassubclass;
		/* Rows of a table that is to last must not go where they will not. */
		member->state =
			!is_temp && form->relpersistence == RELPERSISTENCE_TEMP ?
			SHARD_SEALED : is_closed ? SHARD_CLOSED : SHARD_OPEN;
		member->is_open = member->state == SHARD_OPEN;
	}
	ReleaseSysCache(tuple);
	return is_there;
}

/*
 * Read the rest of what the catalogs say of a shard.  Without "table" that is
 * only whether it is sealed.
 */
static void
describe_member(ShardMember *member, const ShardTable *table)
{
	Oid			relid = member->relid;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	ShardChecks checks = {0};

	/* If it has been dropped just now, an invalidation is under way. */
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_class) GETSTRUCT(tuple);

	if (form->relchecks > 0)
		shard_read_checks(relid, table == NULL, &checks, member, table);
	if (checks.seal != NULL)
		member->state = SHARD_SEALED;
	member->is_open = member->state == SHARD_OPEN;

	if (table != NULL)
	{
		member->sees_rows = checks.sees_rows ||
			(form->relhastriggers &&
			 shard_trigger_sees_rows(relid, &checks.depends));
		member->depends = checks.depends;
		member->is_described = true;
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
	ReleaseSysCache(tuple);
}

/*
 * Have what is allocated for a member in the current memory context.
 */
static void
keep_member(ShardMember *member)
{
	member->name = pstrdup(member->name);
	member->depends = copyObject(member->depends);
	member->map_known = false;
	member->map = NULL;
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

	result = strncmp(na->member.name, nb->member.name,
					 Min(na->stem_len, nb->stem_len));
	if (result == 0)
		result = na->stem_len - nb->stem_len;
	if (result == 0)
		result = (na->number > nb->number) - (na->number < nb->number);
	if (result == 0)
		result = strcmp(na->member.name, nb->member.name);
	if (result == 0)
		result = compare_oids(&na->member.relid, &nb->member.relid);
	return result;
}

/*
 * The children of a logical table, in ordinal order; *n becomes their number.
 *
 * What the entry "old", if not NULL, says of a child is believed unless it is
 * stale.  If "unseen" is not NULL, closed shards that are not in that entry are
 * appended to it instead, in no order, without being looked at.  The array is
 * allocated in the current memory context.
 */
static NamedMember *
list_children(Oid relid, const ShardTable *old, int *n, List **unseen)
{
	List	   *children = NIL;
	Oid		   *closed;
	int			nclosed;
	NamedMember *named;
	bool		is_temp = false;
	ListCell   *lc;

	/* As we hold no lock, it can be dropped at any time. */
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
	{
		is_temp = get_rel_persistence(relid) == RELPERSISTENCE_TEMP;
		children = find_inheritance_children(relid, NoLock);
	}
	closed = shard_read_closed(&nclosed);
	qsort(closed, nclosed, sizeof(Oid), compare_oids);
	named = palloc(sizeof(NamedMember) * Max(list_length(children), 1));
	*n = 0;
	foreach(lc, children)
	{
		Oid			child = lfirst_oid(lc);
		NamedMember *next = &named[*n];
		int			ordinal = old == NULL || is_stale(old, child) ? -1 :
			shard_table_find(old, child);
		bool		is_closed = ordinal < 0 && is_in(child, closed, nclosed);

		CHECK_FOR_INTERRUPTS();
		if (is_closed && unseen != NULL)
		{
			*unseen = lappend_oid(*unseen, child);
			continue;
		}
		if (ordinal >= 0)
			next->member = old->members[ordinal];
		else if (!identify_member(&next->member, child, is_temp, is_closed))
			continue;
		next->stem_len = shard_name_stem(next->member.name, &next->number);
		(*n)++;
	}
	qsort(named, *n, sizeof(NamedMember), compare_names);
	return named;
}

/*
 * Note which members are open, what these have in common, and how many members
 * have ranges.
 */
static void
note_open(ShardTable *table)
{
	table->nopen = 0;
	table->nranges = 0;
	table->sees_rows = false;
	for (int i = 0; i < table->nmembers; i++)
	{
		table->nranges += table->members[i].has_range ? 1 : 0;
		if (table->members[i].is_open)
		{
			table->open[table->nopen++] = i;
			table->sees_rows |= table->members[i].sees_rows;
		}
	}
}

/*
 * Note which transactions have moved members here from other places.
 */
static void
note_moved(ShardTable *table)
{
	TransactionId *xids;
	bool	   *rows_gone;
	int			n;
	Oid		   *moved = shard_read_moved(&n, &xids, &rows_gone);

	for (int i = 0; i < n; i++)
	{
		int			ordinal = shard_table_find(table, moved[i]);
		ShardMember *member = &table->members[Max(ordinal, 0)];

		if (ordinal < 0 || !TransactionIdIsNormal(xids[i]))
			continue;
		if (TransactionIdFollows(xids[i], member->place_xid))
			member->place_xid = xids[i];
		member->gone_xid = rows_gone[i] ? xids[i] : InvalidTransactionId;
	}
	pfree(moved);
	pfree(xids);
	pfree(rows_gone);
}

/*
 * Read the catalogs into an entry, in the current memory context.  "old" is
 * what the entry has been.
 */
static void
read_table(ShardTable *table, const ShardTable *old, bool open_only,
		   MemoryContext scratch)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(scratch);
	ShardOptions options;
	NamedMember *named;
	List	   *unseen = NIL;
	ListCell   *lc;
	int			n;

	/* Queries ignore bad options, and INSERT raises an error. */
	table->has_bad_options = !shard_get_good_options(table->relid, &options);
	table->route = options.route;
	table->batch_size = options.batch_size;
	table->commit_order = options.commit_order;
	table->single_node = options.single_node;
	shard_has_single_node |= options.single_node;
	table->has_columns = shard_has_columns(table->relid);
	table->time_attno = options.time_column == NULL ? 0 :
		get_attnum(table->relid, options.time_column);
	table->time_type = table->time_attno <= 0 ? InvalidOid :
		get_atttype(table->relid, table->time_attno);
	if (!shard_is_time_type(table->time_type))
		table->time_attno = 0;
	shard_make_schedule(&options, table->time_attno != 0 ?
						table->time_type : InvalidOid, &table->schedule);

	MemoryContextSwitchTo(oldcontext);
	table->key = options.route == SHARD_ROUTE_HASH ?
		shard_key_create(table->relid, options.key, true) : NULL;
	MemoryContextSwitchTo(scratch);

	table->seq_attno = shard_sequence_column(table->relid, true,
											 &table->seq_always);

	/* What is known of a shard depends on these. */
	if (old->context == NULL || old->is_all_stale ||
		table->route == SHARD_ROUTE_HASH || old->route == SHARD_ROUTE_HASH ||
		table->time_attno != old->time_attno ||
		table->time_type != old->time_type ||
		table->seq_attno != old->seq_attno)
		old = NULL;

	/* A place in the hash route depends on what all shards say. */
	table->is_complete = !open_only || table->route == SHARD_ROUTE_HASH;
	named = list_children(table->relid, old, &n,
						  table->is_complete ? NULL : &unseen);
	for (int i = 0; i < n; i++)
	{
		ShardMember *member = &named[i].member;

		CHECK_FOR_INTERRUPTS();
		if (!member->is_described && (table->is_complete || member->is_open))
			describe_member(member, table);
	}
	MemoryContextSwitchTo(oldcontext);

	table->members = palloc(sizeof(ShardMember) * Max(n, 1));
	table->sorted = palloc(sizeof(ShardByOid) * Max(n, 1));
	table->open = palloc(sizeof(int) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		table->members[i] = named[i].member;
		keep_member(&table->members[i]);
		table->sorted[i].relid = named[i].member.relid;
		table->sorted[i].ordinal = i;
	}
	table->nmembers = n;
	note_open(table);
	qsort(table->sorted, n, sizeof(ShardByOid), compare_oids);
	table->unseen = palloc(sizeof(Oid) * Max(list_length(unseen), 1));
	table->nunseen = 0;
	foreach(lc, unseen)
		table->unseen[table->nunseen++] = lfirst_oid(lc);
	qsort(table->unseen, table->nunseen, sizeof(Oid), compare_oids);
	table->nplaces = 0;
	table->bounds = NULL;
	if (table->key != NULL)
		shard_place_members(table);
	note_moved(table);
	shard_note_newest_place(table);
}

/*
 * Fill in everything below "context" in the entry.
 */
static void
build_table(ShardTable *table, bool open_only)
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
	read_table(&built, table, open_only, scratch);
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
	table->is_changed = false;
	table->is_all_stale = false;
	table->nstale = 0;
}

/*
 * Read again what the catalogs say of the shards that have changed, and of
 * those that have not been read yet unless "open_only", into the entry as it
 * is.  False if it does not stay what it is: then it is to be built again.
 *
 * That is what makes a change of one shard of many cheap.
 */
static bool
refresh_members(ShardTable *table, bool open_only)
{
	MemoryContext oldcontext;
	int			nstale = table->nstale;

	if (table->context == NULL || table->is_changed || table->is_all_stale ||
		table->key != NULL || !table->has_columns ||
		(table->nunseen > 0 && !open_only))
		return false;

	for (int i = 0; i < nstale; i++)
	{
		Oid			shard = table->stale[i];
		int			ordinal = shard_table_find(table, shard);
		bool		is_closed = shard_is_closed(shard);
		ShardMember *member;
		ShardMember new;

		if (!list_member_oid(shard_parents(shard), table->relid))
			return false;
		if (ordinal < 0 && is_closed)
			continue;
		if (ordinal < 0)
			return false;
		member = &table->members[ordinal];
		if (!identify_member(&new, shard,
							 get_rel_persistence(table->relid) == RELPERSISTENCE_TEMP,
							 is_closed) ||
			strcmp(new.name, member->name) != 0)
			return false;
		if (new.is_open || !open_only)
			describe_member(&new, table);
		/* A shard that is moved gets another OID. */
		new.place_xid = member->place_xid;
		new.gone_xid = member->gone_xid;
		oldcontext = MemoryContextSwitchTo(table->context);
		keep_member(&new);
		MemoryContextSwitchTo(oldcontext);
		if (member->map != NULL)
			free_attrmap(member->map);
		list_free_deep(member->depends);
		pfree(unconstify(char *, member->name));
		*member = new;
	}
	for (int i = 0; i < table->nmembers && !open_only && !table->is_complete; i++)
	{
		ShardMember new = table->members[i];

		CHECK_FOR_INTERRUPTS();
		if (new.is_described)
			continue;
		describe_member(&new, table);
		oldcontext = MemoryContextSwitchTo(table->context);
		new.depends = copyObject(new.depends);
		MemoryContextSwitchTo(oldcontext);
		table->members[i] = new;
	}
	table->is_complete = !open_only || (table->is_complete && nstale == 0);
	note_open(table);
	table->nstale = 0;
	return true;
}

/*
 * Bring an entry up to date.
 */
static void
update_table(ShardTable *table, bool open_only)
{
	shard_table_sweep();
	table->is_building = true;
	table->is_outdated = false;
	if (!refresh_members(table, open_only))
		build_table(table, open_only);
	table->is_building = false;
	table->built_in = GetCurrentSubTransactionId();
	has_built = true;
	table->generation++;

	/*
	 * Detaching a shard is noticed by the change of its columns.  A table
	 * without columns gives no such sign, so it is looked up every time.
	 */
	table->is_valid = table->has_columns;
	/* Which shards have changed while we read them is not known. */
	if (table->is_outdated)
		forget_all(table);
}

/*
 * shard_table_get_open
 *		The cache entry of a logical table, brought up to date as far as
 *		inserts need it: of closed shards, which can be many, it may have
 *		nothing but the OID, or not be aware of what their constraints say,
 *		so that a sealed one seems to be closed only.
 *
 * So ordinals can be less than those of the entry that shard_table_get()
 * returns.  Otherwise as that.
 */
ShardTable *
shard_table_get_open(Oid relid)
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
	if (!table->is_valid)
		update_table(table, true);
	return table;
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

	table = shard_table_get_open(relid);
	if (unlikely(!table->is_complete))
		update_table(table, false);
	return table;
}

/*
 * shard_table_settle
 *		The cache entry of a logical table whose shards do not fit together,
 *		read again when nobody is replacing any of them.
 *
 * Another transaction can commit while the entry is being read, so that some
 * of it is older than the rest.  Locks all shards against that, which waits.
 */
ShardTable *
shard_table_settle(Oid relid)
{
	ShardTable *table;

	(void) find_all_inheritors(relid, AccessShareLock, NULL);
	AcceptInvalidationMessages();
	table = shard_table_get(relid);
	table->is_valid = false;
	table->is_changed = true;
	return shard_table_get(relid);
}

/*
 * shard_table_is_known
 *		Does the cache say that a relation that is locked is a logical table?
 */
bool
shard_table_is_known(Oid relid)
{
	ShardTable *table = hash_search(shard_tables, &relid, HASH_FIND, NULL);

	return table != NULL && table->is_valid;
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
	if (table != NULL && table->is_valid && table->is_complete)
	{
		*nmembers = table->nmembers;
		result = palloc(sizeof(ShardMember) * Max(table->nmembers, 1));
		memcpy(result, table->members, sizeof(ShardMember) * table->nmembers);
	}
	else
	{
		NamedMember *named = list_children(relid, NULL, nmembers, NULL);

		result = palloc(sizeof(ShardMember) * Max(*nmembers, 1));
		for (int i = 0; i < *nmembers; i++)
		{
			result[i] = named[i].member;
			describe_member(&result[i], NULL);
		}
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
		table->nranges = 0;
		table->nopen = 0;
		table->nunseen = 0;
		MemoryContextDelete(table->context);
		table->context = NULL;
		has_empty = true;
	}
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
