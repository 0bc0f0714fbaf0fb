/*-------------------------------------------------------------------------
 *
 * choice.c
 *	  Plans for one shard each, chosen when the query is executed.
 *
 * The plan of a query whose key is a parameter is kept and executed with many
 * values, each of which may lead to another shard.  What the plan cache keeps
 * is a stub: it has the cost of a plan for one shard, so that the plan cache
 * prefers it, and locks the tables that all of them have in common.  When it is
 * to be executed, the shard is looked up, as the table has its shards at that
 * moment; then it is locked, and a plan that has been made for this shard takes
 * the stub's place.  Nothing of the other shards is locked, opened or looked at.
 *
 * Such plans are made when they are needed first.  They live in a child of the
 * memory context that holds the stub, so they go with it, and are made anew
 * after a change of what they depend on.
 *
 *-------------------------------------------------------------------------
 */
#include "plan/plan_private.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "nodes/extensible.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

/* So many plans one stub has, at most. */
#define MAX_PLANS	1024

/* What a plan has been made for. */
typedef struct PlanKey
{
	Oid			shards[SHARD_MAX_LOOKUPS];	/* in the order of the lookups */
	bool		scrolls;		/* it can be executed backwards */
} PlanKey;

/* All plans that can take the place of one. */
typedef struct PlanSet
{
	const CustomScan *note;		/* hash key: what says so in that plan */
	MemoryContext context;
	MemoryContextCallback callback;
	int			nchoices;
	ShardChoice choices[SHARD_MAX_LOOKUPS];
	HTAB	   *plans;			/* of ShardPlan */
} PlanSet;

/* One plan. */
typedef struct ShardPlan
{
	PlanKey		key;			/* hash key */
	struct PlanContent *content;	/* NULL: there is none */
} ShardPlan;

/* What there is to it. */
typedef struct PlanContent
{
	MemoryContext context;		/* with all this */
	MemoryContextCallback callback;
	bool		is_valid;
	PlannedStmt *plan;
	int			nrelations;		/* whose changes make it invalid */
	struct Dependency *relations;
	dlist_node	all;			/* in all_contents */
} PlanContent;

/* That a plan depends on a relation. */
typedef struct Dependency
{
	PlanContent *content;
	dlist_node	node;			/* in the list of the relation */
} Dependency;

/* The plans that depend on a relation. */
typedef struct Dependents
{
	Oid			relid;			/* hash key */
	dlist_head	list;
} Dependents;

/* What the next query to be planned is to be planned for, or NULL. */
static ShardChosen *next_chosen = NULL;

static HTAB *plan_sets = NULL;
static HTAB *dependents = NULL;
static dlist_head all_contents = DLIST_STATIC_INIT(all_contents);

/* Plans that may still be executed, but will not be again; till the end of the
 * transaction. */
static MemoryContext retired_plans = NULL;

static Node *create_stub_state(CustomScan *stub);
static void begin_stub(CustomScanState *node, EState *estate, int eflags);

static const CustomScanMethods stub_methods = {
	"shard_fdw stub", create_stub_state
};

static const CustomExecMethods stub_exec_methods = {
	.CustomName = "shard_fdw stub",
	.BeginCustomScan = begin_stub,
};

static Node *
create_stub_state(CustomScan *stub)
{
	CustomScanState *state = makeNode(CustomScanState);

	state->methods = &stub_exec_methods;
	return (Node *) state;
}

/*
 * Another plan should have taken the stub's place.  So this is as far as
 * executing a stub can go.
 */
static void
begin_stub(CustomScanState *node, EState *estate, int eflags)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("shard_fdw has not been asked to start the query"),
			 errhint("Another extension replaces ExecutorStart_hook and does not call the one before it.")));
}

/*
 * shard_make_stub
 *		A plan that stands for others like "plan": it returns the same columns
 *		at the same cost, as far as anybody can tell who does not execute it.
 *
 * Allocated in the current memory context; refers to parts of "plan".
 */
Plan *
shard_make_stub(Plan *plan)
{
	CustomScan *stub = makeNode(CustomScan);

	stub->scan.plan.startup_cost = plan->startup_cost;
	stub->scan.plan.total_cost = plan->total_cost;
	stub->scan.plan.plan_rows = plan->plan_rows;
	stub->scan.plan.plan_width = plan->plan_width;
	stub->scan.plan.targetlist = plan->targetlist;
	stub->methods = &stub_methods;
	if (ExecSupportsBackwardScan(plan))
		stub->flags |= CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
	return (Plan *) stub;
}

/*
 * A relation has changed: so may the plans that depend on it.
 */
static void
invalidate_plans(Datum arg, Oid relid)
{
	dlist_iter	iter;
	Dependents *found;

	if (dlist_is_empty(&all_contents))
		return;
	if (!OidIsValid(relid))
	{
		dlist_foreach(iter, &all_contents)
		{
			PlanContent *content = dlist_container(PlanContent, all, iter.cur);

			content->is_valid = false;
		}
		return;
	}
	found = hash_search(dependents, &relid, HASH_FIND, NULL);
	if (found == NULL)
		return;
	dlist_foreach(iter, &found->list)
	{
		Dependency *dependency = dlist_container(Dependency, node, iter.cur);

		dependency->content->is_valid = false;
	}
}

/*
 * A plan's memory context goes.
 */
static void
forget_content(void *arg)
{
	PlanContent *content = arg;

	for (int i = 0; i < content->nrelations; i++)
	{
		Oid			relid = list_nth_oid(content->plan->relationOids, i);
		Dependents *relation = hash_search(dependents, &relid, HASH_FIND, NULL);

		dlist_delete(&content->relations[i].node);
		if (dlist_is_empty(&relation->list))
			(void) hash_search(dependents, &relid, HASH_REMOVE, NULL);
	}
	dlist_delete(&content->all);
}

/*
 * The memory context of a stub goes, and that of its plans with it.
 */
static void
forget_set(void *arg)
{
	PlanSet    *set = arg;

	(void) hash_search(plan_sets, &set->note, HASH_REMOVE, NULL);
}

static void
forget_retired(XactEvent event, void *arg)
{
	if (retired_plans != NULL && event != XACT_EVENT_PRE_COMMIT &&
		event != XACT_EVENT_PRE_PREPARE &&
		event != XACT_EVENT_PARALLEL_PRE_COMMIT)
	{
		MemoryContextDelete(retired_plans);
		retired_plans = NULL;
	}
}

/*
 * A plan will not be executed again.  Perhaps it is being executed.
 */
static void
retire(ShardPlan *plan)
{
	if (plan->content == NULL)
		return;
	if (retired_plans == NULL)
		retired_plans = AllocSetContextCreate(TopMemoryContext,
											  "retired shard plans",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextSetParent(plan->content->context, retired_plans);
	plan->content = NULL;
}

/*
 * shard_describe_choice
 *		A choice in a form that can be a part of a plan; refers to its values.
 */
List *
shard_describe_choice(const ShardChoice *choice, bool is_stub)
{
	return list_make3(list_make2_oid(choice->logical,
									 is_stub ? InvalidOid : choice->shard),
					  choice->values,
					  list_make3_int(choice->by_id, choice->lockmode,
									 choice->number));
}

static void
read_choice(List *description, ShardChoice *choice)
{
	List	   *tables = linitial(description);
	List	   *numbers = lthird(description);

	choice->logical = linitial_oid(tables);
	choice->shard = lsecond_oid(tables);
	choice->values = lsecond(description);
	choice->by_id = linitial_int(numbers) != 0;
	choice->lockmode = lsecond_int(numbers);
	choice->number = lthird_int(numbers);
}

/*
 * The plans that can take the place of the one that has this note.
 */
static PlanSet *
get_set(CustomScan *note)
{
	HASHCTL		ctl = {0};
	PlanSet    *set;
	MemoryContext context;
	List	   *choices = lfourth(note->custom_private);
	ListCell   *lc;

	if (plan_sets == NULL)
	{
		ctl.keysize = sizeof(CustomScan *);
		ctl.entrysize = sizeof(PlanSet);
		plan_sets = hash_create("shard_fdw plan sets", 64, &ctl,
								HASH_ELEM | HASH_BLOBS);
		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Dependents);
		dependents = hash_create("shard_fdw plan dependencies", 64, &ctl,
								 HASH_ELEM | HASH_BLOBS);
	}
	set = hash_search(plan_sets, &note, HASH_FIND, NULL);
	if (set != NULL)
		return set;

	context = AllocSetContextCreate(GetMemoryChunkContext(note),
									"shard plans", ALLOCSET_SMALL_SIZES);
	ctl.keysize = sizeof(PlanKey);
	ctl.entrysize = sizeof(ShardPlan);
	ctl.hcxt = context;
	set = hash_search(plan_sets, &note, HASH_ENTER, NULL);
	set->context = context;
	set->callback.func = forget_set;
	set->callback.arg = set;
	MemoryContextRegisterResetCallback(context, &set->callback);
	set->plans = hash_create("shard plans", 16, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	set->nchoices = list_length(choices);
	foreach(lc, choices)
		read_choice(lfirst_node(List, lc),
					&set->choices[foreach_current_index(lc)]);
	return set;
}

/*
 * Keep a copy of a plan.
 */
static PlanContent *
keep_plan(ShardPlan *entry, PlanSet *set, PlannedStmt *plan)
{
	MemoryContext context = AllocSetContextCreate(set->context, "shard plan",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	PlanContent *content = palloc0(sizeof(PlanContent));
	ListCell   *lc;

	content->context = context;
	content->plan = copyObject(plan);
	content->relations = palloc(sizeof(Dependency) *
								list_length(plan->relationOids));
	content->is_valid = true;
	content->callback.func = forget_content;
	content->callback.arg = content;
	dlist_push_tail(&all_contents, &content->all);
	MemoryContextRegisterResetCallback(context, &content->callback);
	MemoryContextSwitchTo(oldcontext);

	foreach(lc, plan->relationOids)
	{
		bool		found;
		Dependents *relation = hash_search(dependents, &lfirst_oid(lc),
										   HASH_ENTER, &found);
		Dependency *dependency = &content->relations[content->nrelations];

		if (!found)
			dlist_init(&relation->list);
		dependency->content = content;
		dlist_push_tail(&relation->list, &dependency->node);
		content->nrelations++;
	}
	entry->content = content;
	return content;
}

/*
 * Lock what a plan is going to use, besides the shards that have been chosen
 * and the tables of the plan whose place it takes.
 */
static void
lock_relations(const PlannedStmt *plan, const PlanSet *set, const PlanKey *key)
{
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		bool		is_locked = false;

		if (rte->rtekind != RTE_RELATION)
			continue;
		for (int i = 0; i < set->nchoices; i++)
			is_locked |= rte->relid == key->shards[i] ||
				rte->relid == set->choices[i].logical;
		if (!is_locked)
			LockRelationOid(rte->relid, rte->rellockmode);
	}
}

/*
 * Choose the shards that an execution needs, and lock them.
 */
static void
choose_shards(const PlanSet *set, ParamListInfo params, PlanKey *key)
{
	uint64		seen;
	bool		is_known;

	/* Locking one may bring the news that another is not the right one. */
	do
	{
		seen = SharedInvalidMessageCounter;
		for (int i = 0; i < set->nchoices; i++)
			key->shards[i] = shard_lock_chosen(&set->choices[i], params,
											   &is_known);
	} while (set->nchoices > 1 && seen != SharedInvalidMessageCounter);
}

/*
 * shard_take_chosen
 *		What the query that is about to be planned is to be planned for; NULL
 *		if it is an ordinary one.
 */
ShardChosen *
shard_take_chosen(void)
{
	ShardChosen *result = next_chosen;

	next_chosen = NULL;
	return result;
}

/*
 * Plan a query, of which the parameters' values shall choose shards, and nothing
 * else.  Notes which shards these are.
 *
 * The plan may be kept for other values that lead to the same shards.
 */
static PlannedStmt *
plan_chosen(Query *query, const char *source, int cursor_options,
			ShardChosen *chosen)
{
	PlannedStmt *volatile result = NULL;

	next_chosen = chosen;
	PG_TRY();
	{
		result = shard_plan_query(query, source, cursor_options, NULL);
	}
	PG_FINALLY();
	{
		next_chosen = NULL;
	}
	PG_END_TRY();
	return result;
}

/*
 * Make a plan for the shards that have been chosen, and keep it if it is one
 * that can be used again.
 */
static PlannedStmt *
make_plan(PlanSet *set, const PlanKey *key, QueryDesc *query_desc)
{
	uint64		seen = SharedInvalidMessageCounter;
	int			options = intVal(lthird(set->note->custom_private));
	ShardChosen chosen = {.params = query_desc->params};
	PlannedStmt *plan;
	ShardPlan  *entry;
	bool		is_right = true;
	bool		found;

	if (key->scrolls)
		options |= CURSOR_OPT_SCROLL;
	plan = plan_chosen(copyObject(linitial_node(Query,
												set->note->custom_private)),
					   query_desc->sourceText, options, &chosen);

	/* The shards may have changed once more. */
	for (int i = 0; i < set->nchoices; i++)
		is_right &= chosen.shards[set->choices[i].number] == key->shards[i];
	if (!is_right || seen != SharedInvalidMessageCounter ||
		plan->transientPlan ||
		hash_get_num_entries(set->plans) >= MAX_PLANS)
		return plan;
	entry = hash_search(set->plans, key, HASH_ENTER, &found);
	if (found)
		retire(entry);
	entry->content = NULL;
	return keep_plan(entry, set, plan)->plan;
}

/*
 * A plan that has been kept, if it is good and can be locked.
 */
static PlannedStmt *
find_plan(PlanSet *set, const PlanKey *key)
{
	ShardPlan  *entry = hash_search(set->plans, key, HASH_FIND, NULL);
	PlanContent *content;

	if (entry == NULL || entry->content == NULL || !entry->content->is_valid)
		return NULL;
	content = entry->content;
	lock_relations(content->plan, set, key);
	return content->is_valid ? content->plan : NULL;
}

/*
 * A copy of a plan in which EXPLAIN shows which shards have been chosen.
 */
static PlannedStmt *
with_explanation(PlannedStmt *plan, const PlanSet *set, const PlanKey *key)
{
	List	   *shown = NIL;

	plan = copyObject(plan);
	for (int i = 0; i < set->nchoices; i++)
	{
		const ShardTable *table = shard_table_get(set->choices[i].logical);

		if (!OidIsValid(key->shards[i]) ||
			list_member_oid(shown, key->shards[i]))
			continue;
		shown = lappend_oid(shown, key->shards[i]);
		shard_show_lookup(plan, key->shards[i], table->nmembers - 1);
	}
	return plan;
}

/*
 * shard_choose_plan
 *		The plan to execute in place of the one with this note, with all locks
 *		that it needs; NULL if that is the right one.
 *
 * The plan lives as long as the transaction and the memory of the other plan
 * do, or as long as the current memory context.
 */
PlannedStmt *
shard_choose_plan(CustomScan *note, QueryDesc *query_desc, int eflags)
{
	PlanSet    *set = get_set(note);
	PlanKey		key;
	bool		is_right = true;
	PlannedStmt *plan;

	memset(&key, 0, sizeof(PlanKey));
	key.scrolls = (eflags & EXEC_FLAG_BACKWARD) != 0;
	choose_shards(set, query_desc->params, &key);
	for (int i = 0; i < set->nchoices; i++)
		is_right &= OidIsValid(key.shards[i]) &&
			key.shards[i] == set->choices[i].shard;
	if (is_right)
		return NULL;

	plan = find_plan(set, &key);
	if (plan == NULL)
		plan = make_plan(set, &key, query_desc);
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) || query_desc->instrument_options != 0)
		plan = with_explanation(plan, set, &key);
	return plan;
}

/*
 * shard_choice_init
 *		To be called once, when the library is loaded.
 */
void
shard_choice_init(void)
{
	RegisterCustomScanMethods(&stub_methods);
	shard_explain_init();
	CacheRegisterRelcacheCallback(invalidate_plans, (Datum) 0);
	RegisterXactCallback(forget_retired, NULL);
}
