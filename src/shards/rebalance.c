/*-------------------------------------------------------------------------
 *
 * rebalance.c
 *	  rebalance(): moving shards until all servers hold about as much of a table.
 *
 * The plan is made anew before each move, from what is where.  So a run that has
 * ended early has left nothing that the next one would have to know.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote.h"
#include "shards/shards_private.h"

#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(shard_rebalance_plan);
PG_FUNCTION_INFO_V1(shard_rebalance);

/* What an empty shard counts for, in bytes. */
#define LEAST_BYTES	8192

/* A database that has shards, or is to have some. */
typedef struct Place
{
	Oid			server;			/* InvalidOid: this one */
	List	   *servers;		/* all that are connections to it */
	const char *database;		/* what tells it from others */
	bool		is_target;
	int64		bytes;
} Place;

/* A shard. */
typedef struct Piece
{
	Oid			shard;
	Oid			server;			/* InvalidOid: this one */
	Place	   *place;
	int64		bytes;
	bool		is_fixed;		/* has been moved already */
} Piece;

/* A move. */
typedef struct Step
{
	Oid			shard;
	Oid			from;
	Oid			to;
	int64		bytes;
} Step;

/*
 * Find a server in a list of Place, or add it.  SPI is connected.
 */
static Place *
find_place(List **places, Oid server)
{
	Place	   *place;
	const char *database;
	ListCell   *lc;

	foreach(lc, *places)
	{
		place = lfirst(lc);
		if (list_member_oid(place->servers, server))
			return place;
	}
	database = shard_database_of(server, GetUserId());
	foreach(lc, *places)
	{
		place = lfirst(lc);
		if (strcmp(place->database, database) == 0)
		{
			place->servers = lappend_oid(place->servers, server);
			return place;
		}
	}
	place = palloc0(sizeof(Place));
	place->server = server;
	place->servers = list_make1_oid(server);
	place->database = database;
	*places = lappend(*places, place);
	return place;
}

/*
 * How many bytes a shard takes, here or on its node.  SPI is connected.
 */
static int64
bytes_of(Oid shard, Oid server)
{
	bool		isnull;
	int64		result = OidIsValid(server) ?
		shard_node_bytes(shard, GetUserId()) :
		shard_query_int64(psprintf("SELECT pg_catalog.pg_total_relation_size(%u)",
								   shard), &isnull);

	return Max(result, LEAST_BYTES);
}

/*
 * More bytes come first.
 */
static int
compare_pieces(const ListCell *a, const ListCell *b)
{
	const Piece *pa = lfirst(a);
	const Piece *pb = lfirst(b);

	return (pb->bytes > pa->bytes) - (pb->bytes < pa->bytes);
}

/*
 * The shards of a logical table that can be moved, the largest first: a list of
 * Piece.  Those in "done" are fixed.  SPI is connected.
 */
static List *
list_pieces(Oid logical, List *done, List **places)
{
	int			nshards;
	ShardMember *shards = shard_list_members(logical, &nshards);
	List	   *result = NIL;

	for (int i = 0; i < nshards; i++)
	{
		Oid			shard = shards[i].relid;
		Piece	   *piece;
		Oid			server;

		if (shards[i].has_children ||
			(!shards[i].is_local && !shard_is_on_node(shard)) ||
			get_rel_persistence(shard) == RELPERSISTENCE_TEMP)
			continue;
		server = shards[i].is_local ? InvalidOid : GetForeignServerIdByRelId(shard);
		piece = palloc(sizeof(Piece));
		piece->shard = shard;
		piece->server = server;
		piece->place = find_place(places, server);
		piece->bytes = bytes_of(shard, server);
		piece->is_fixed = list_member_oid(done, shard);
		piece->place->bytes += piece->bytes;
		result = lappend(result, piece);
	}
	list_sort(result, compare_pieces);
	return result;
}

/*
 * Fewer bytes come first.
 */
static int
compare_places(const ListCell *a, const ListCell *b)
{
	const Place *pa = lfirst(a);
	const Place *pb = lfirst(b);

	return (pa->bytes > pb->bytes) - (pa->bytes < pb->bytes);
}

/*
 * Note a move, and count the shard where it will be.
 */
static void
add_step(List **steps, Piece *piece, Place *target)
{
	Step	   *step = palloc(sizeof(Step));

	step->shard = piece->shard;
	step->from = piece->server;
	step->to = target->server;
	step->bytes = piece->bytes;
	*steps = lappend(*steps, step);
	piece->place->bytes -= piece->bytes;
	target->bytes += piece->bytes;
	piece->server = target->server;
	piece->place = target;
	piece->is_fixed = true;
}

/*
 * The shard on a server whose move to the target makes the two differ least, or
 * NULL if none makes them differ less than now by a tenth at least.
 */
static Piece *
best_piece(List *pieces, const Place *source, const Place *target)
{
	int64		difference = source->bytes - target->bytes;
	Piece	   *result = NULL;
	int64		least = difference / 10 * 9;
	ListCell   *lc;

	foreach(lc, pieces)
	{
		Piece	   *piece = lfirst(lc);
		int64		rest = difference - 2 * piece->bytes;

		rest = rest < 0 ? -rest : rest;
		if (piece->is_fixed || piece->place != source || rest >= least)
			continue;
		result = piece;
		least = rest;
	}
	return result;
}

/*
 * Find the next shard to be moved between targets, from one that has more than
 * others to the one that has least.  Returns false if there is none.
 */
static bool
add_best_step(List **steps, List *pieces, List *targets)
{
	list_sort(targets, compare_places);
	for (int i = list_length(targets) - 1; i > 0; i--)
	{
		Piece	   *piece = best_piece(pieces, list_nth(targets, i),
									   linitial(targets));

		if (piece == NULL)
			continue;
		add_step(steps, piece, linitial(targets));
		return true;
	}
	return false;
}

/*
 * The moves that are to be made: a list of Step.  SPI is connected.
 *
 * "nodes" are the servers that are to hold the table, or NULL for those that
 * hold it now; what is elsewhere is moved there.  Shards in "done" stay.
 */
static List *
plan_steps(Oid logical, const char *nodes, List *done)
{
	List	   *places = NIL;
	List	   *targets = NIL;
	List	   *steps = NIL;
	List	   *pieces = list_pieces(logical, done, &places);
	ListCell   *lc;

	foreach(lc, nodes == NULL ? NIL : shard_node_list(nodes))
		find_place(&places, lfirst_oid(lc))->is_target = true;
	foreach(lc, places)
	{
		Place	   *place = lfirst(lc);

		place->is_target |= nodes == NULL;
		if (place->is_target)
			targets = lappend(targets, place);
	}
	if (targets == NIL)
		return NIL;				/* there are no shards */
	foreach(lc, pieces)
	{
		Piece	   *piece = lfirst(lc);

		if (piece->place->is_target || piece->is_fixed)
			continue;
		list_sort(targets, compare_places);
		add_step(&steps, piece, linitial(targets));
	}
	while (add_best_step(&steps, pieces, targets))
		CHECK_FOR_INTERRUPTS();
	return steps;
}

/*
 * The name of a place.
 */
static const char *
place_name(Oid server)
{
	return OidIsValid(server) ? GetForeignServer(server)->servername : "local";
}

/*
 * shard_rebalance_plan(logical regclass, nodes text)
 *		SQL function rebalance_plan(): the moves that rebalance() would make.
 *
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless the caller owns the logical
 * table, and what shard_node_list(), shard_node_connect() and the nodes raise.
 */
Datum
shard_rebalance_plan(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			logical;
	List	   *steps;
	ListCell   *lc;

	shard_check_argument(fcinfo, 0, "logical table");
	logical = PG_GETARG_OID(0);
	shard_check_owned(logical);
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	steps = plan_steps(logical, PG_ARGISNULL(1) ? NULL :
					   text_to_cstring(PG_GETARG_TEXT_PP(1)), NIL);
	foreach(lc, steps)
	{
		const Step *step = lfirst(lc);
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(step->shard));
		float4		nrows = -1;
		Datum		values[5];
		bool		nulls[5] = {false};

		if (HeapTupleIsValid(tuple))
		{
			nrows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
			ReleaseSysCache(tuple);
		}
		values[0] = ObjectIdGetDatum(step->shard);
		values[1] = DirectFunctionCall1(namein, CStringGetDatum(place_name(step->from)));
		values[2] = DirectFunctionCall1(namein, CStringGetDatum(place_name(step->to)));
		values[3] = Int64GetDatum((int64) nrows);
		nulls[3] = nrows < 0;
		values[4] = Int64GetDatum(step->bytes);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	SPI_finish();
	return (Datum) 0;
}

/*
 * Make the next move, and commit.  Returns false if there is none.
 */
static bool
do_next(Oid logical, const char *nodes, bool allow_reads, List **done)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "step of rebalance()",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	List	   *steps;
	Oid			moved = InvalidOid;

	CHECK_FOR_INTERRUPTS();
	PushActiveSnapshot(GetTransactionSnapshot());
	shard_check_owned(logical);
	steps = plan_steps(logical, nodes, *done);
	if (steps != NIL)
	{
		const Step *step = linitial(steps);
		char	   *name = shard_qualified_name(step->shard);
		TimestampTz locked_at;

		moved = shard_move(step->shard, step->to, allow_reads, &locked_at);
		ereport(NOTICE,
				(errmsg("moved shard %s from \"%s\" to \"%s\"", name,
						place_name(step->from), place_name(step->to)),
				 errdetail("It has been locked for %ld ms.",
						   TimestampDifferenceMilliseconds(locked_at,
														   GetCurrentTimestamp()))));
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(oldcontext);
	SPI_commit();
	if (OidIsValid(moved))
		*done = lappend_oid(*done, moved);
	MemoryContextDelete(context);
	return OidIsValid(moved);
}

/*
 * shard_rebalance(logical regclass, nodes text, allow_reads bool)
 *		SQL procedure rebalance(): makes the moves of rebalance_plan(), a
 *		transaction each.
 *
 * Raises ERRCODE_ACTIVE_SQL_TRANSACTION in a transaction block,
 * ERRCODE_OBJECT_IN_USE while there is another run or one of run_on_shards(),
 * and otherwise what shard_move() and shard_rebalance_plan() raise.
 */
Datum
shard_rebalance(PG_FUNCTION_ARGS)
{
	Oid			logical;
	char	   *nodes = PG_ARGISNULL(1) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		allow_reads;
	LOCKTAG		tag;
	List	   *done = NIL;

	shard_check_argument(fcinfo, 0, "logical table");
	shard_check_argument(fcinfo, 2, "parameter \"allow_reads\"");
	allow_reads = PG_GETARG_BOOL(2);
	logical = PG_GETARG_OID(0);
	shard_begin_commands(fcinfo, logical, "rebalance()",
						 "In a transaction block, use move_shard().", &tag);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	while (do_next(logical, nodes, allow_reads, &done))
		;
	LockRelease(&tag, ExclusiveLock, true);
	SPI_finish();
	PG_RETURN_VOID();
}
