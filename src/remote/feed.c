/*-------------------------------------------------------------------------
 *
 * feed.c
 *	  Rows of a table here on their way to the table behind a foreign table.
 *
 * They are sent in one COPY or, while others write the table, in passes: each
 * takes away there what is gone here, and then brings what is new.  What is gone
 * is told by the table's key, a unique index that identifies a row.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Bytes that are sent at once. */
#define BLOCK_SIZE	65536

/* Rows that are deleted at once. */
#define MAX_GONE	500

struct ShardNodeFeed
{
	ShardNodeSession *session;
	Oid			shard;			/* a foreign table */
	TupleDesc	desc;			/* of the table here */
	char	   *columns;
	List	   *attnos;
	FmgrInfo   *functions;		/* output functions, by column */
	Datum	   *values;			/* of a row */
	bool	   *nulls;
	MemoryContext row_context;
	int			guc_level;		/* during a pass */

	StringInfoData rows;		/* to be sent */
	bool		is_copying;
	uint64		nrows;			/* of this COPY */

	int			nkeys;			/* columns of the key */
	AttrNumber *keys;
	char	   *condition;		/* tells which row of "t" one of "v" is */
	StringInfoData gone;		/* their keys, in parentheses */
	int			ngone;
	bool		has_gone;		/* in any pass */
};

/*
 * shard_node_columns
 *		The columns of a relation that are copied, in parentheses, by the names
 *		that they have on the node of a foreign table or here; *attnos become
 *		their numbers, *names their names here, as COPY takes them.
 */
char *
shard_node_columns(Relation rel, bool is_foreign, List **attnos, List **names)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (att->attisdropped || att->attgenerated)
			continue;
		appendStringInfo(&buf, "%s%s", buf.len == 0 ? " (" : ", ",
						 quote_identifier(is_foreign ?
										  shard_node_column_name(RelationGetRelid(rel), att->attnum) :
										  NameStr(att->attname)));
		*attnos = lappend_int(*attnos, att->attnum);
		*names = lappend(*names, makeString(pstrdup(NameStr(att->attname))));
	}
	if (buf.len > 0)
		appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * Does an index identify rows: is each there once, by values that are never null?
 */
static bool
is_key(Relation index, TupleDesc desc)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || form->indisexclusion ||
		index->rd_rel->relam != BTREE_AM_OID ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, form->indkey.values[i] - 1);

		if (!att->attnotnull || att->attcollation != index->rd_indcollation[i])
			return false;
	}
	return true;
}

/*
 * shard_node_feed_key
 *		The unique index by which rows of a table, which is locked, can be told
 *		from each other on a node, or InvalidOid.
 */
Oid
shard_node_feed_key(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			result = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_key(index, RelationGetDescr(rel)) &&
			(!OidIsValid(result) || index->rd_index->indisprimary))
			result = lfirst_oid(lc);
		index_close(index, AccessShareLock);
	}
	return result;
}

/*
 * The operator by which a column of an index is unique, as SQL has it.
 */
static char *
equality(Relation index, int column)
{
	Oid			oid = get_opfamily_member(index->rd_opfamily[column],
										  index->rd_opcintype[column],
										  index->rd_opcintype[column],
										  BTEqualStrategyNumber);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(oid));
	Form_pg_operator form;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "missing equality operator of index \"%s\"",
			 RelationGetRelationName(index));
	form = (Form_pg_operator) GETSTRUCT(tuple);
	result = psprintf("OPERATOR(%s.%s)",
					  quote_identifier(get_namespace_name(form->oprnamespace)),
					  NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Note how rows are identified.
 */
static void
note_key(ShardNodeFeed *feed, Oid key)
{
	Relation	index = index_open(key, AccessShareLock);
	StringInfoData condition;

	initStringInfo(&condition);
	feed->nkeys = index->rd_index->indnkeyatts;
	feed->keys = palloc(sizeof(AttrNumber) * feed->nkeys);
	for (int i = 0; i < feed->nkeys; i++)
	{
		feed->keys[i] = index->rd_index->indkey.values[i];
		appendStringInfo(&condition, "%st.%s %s v.c%d", i > 0 ? " AND " : "",
						 quote_identifier(NameStr(TupleDescAttr(feed->desc, feed->keys[i] - 1)->attname)),
						 equality(index, i), i);
	}
	feed->condition = condition.data;
	index_close(index, AccessShareLock);
}

/*
 * shard_node_feed_begin
 *		Prepare to send rows of a table, which is locked, to the table behind a
 *		foreign table, which this transaction has created, by the user mapping
 *		of this role.
 *
 * "key" is what shard_node_feed_key() says, or InvalidOid if no row will go.  The
 * table has the columns of the foreign one.  The result lives in the current
 * memory context.  Raises what shard_node_connect() and the node raise.
 */
ShardNodeFeed *
shard_node_feed_begin(Oid shard, Oid userid, Relation rel, Oid key)
{
	ShardNodeFeed *feed = palloc0(sizeof(ShardNodeFeed));
	List	   *names = NIL;
	int			natts = RelationGetNumberOfAttributes(rel);

	feed->session = shard_node_session_of(shard, userid);
	feed->shard = shard;
	feed->desc = RelationGetDescr(rel);
	feed->columns = shard_node_columns(rel, false, &feed->attnos, &names);
	feed->functions = palloc0(sizeof(FmgrInfo) * Max(natts, 1));
	feed->values = palloc(sizeof(Datum) * Max(natts, 1));
	feed->nulls = palloc(sizeof(bool) * Max(natts, 1));
	feed->row_context = AllocSetContextCreate(CurrentMemoryContext,
											  "row to be sent",
											  ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(feed->desc, i);
		Oid			function;
		bool		is_varlena;

		if (att->attisdropped)
			continue;
		getTypeOutputInfo(att->atttypid, &function, &is_varlena);
		fmgr_info(function, &feed->functions[i]);
	}
	initStringInfo(&feed->rows);
	initStringInfo(&feed->gone);
	if (OidIsValid(key))
		note_key(feed, key);
	shard_node_prepare(feed->session);
	/* What the node knows of a table that is new to it is not enough. */
	(void) shard_node_command(feed->session,
							  "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
							  " SET LOCAL enable_mergejoin = off", false);
	return feed;
}

/*
 * shard_node_feed_start
 *		Begin a pass.
 */
void
shard_node_feed_start(ShardNodeFeed *feed)
{
	feed->guc_level = shard_set_text_settings();
}

/*
 * Append a value as COPY's text format has it.
 */
static void
append_value(StringInfo buf, const char *value)
{
	for (; *value != '\0'; value++)
	{
		switch (*value)
		{
			case '\\':
				appendStringInfoString(buf, "\\\\");
				break;
			case '\n':
				appendStringInfoString(buf, "\\n");
				break;
			case '\r':
				appendStringInfoString(buf, "\\r");
				break;
			case '\t':
				appendStringInfoString(buf, "\\t");
				break;
			default:
				appendStringInfoCharMacro(buf, *value);
				break;
		}
	}
}

/*
 * The text of a column's value, or NULL.
 */
static char *
value_text(ShardNodeFeed *feed, AttrNumber attno)
{
	return feed->nulls[attno - 1] ? NULL :
		OutputFunctionCall(&feed->functions[attno - 1],
						   feed->values[attno - 1]);
}

/*
 * Have the node delete the rows that wait for that.
 */
static void
delete_gone(ShardNodeFeed *feed)
{
	StringInfoData sql;
	const PGresult *result;

	if (feed->ngone == 0)
		return;
	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s t USING (VALUES %s) v (",
					 shard_node_table_name(feed->shard), feed->gone.data);
	for (int i = 0; i < feed->nkeys; i++)
		appendStringInfo(&sql, "%sc%d", i > 0 ? ", " : "", i);
	appendStringInfo(&sql, ") WHERE %s", feed->condition);
	result = shard_node_command(feed->session, sql.data, true);
	if (strtol(PQcmdTuples(unconstify(PGresult *, result)), NULL, 10) != feed->ngone)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("server \"%s\" has deleted another number of rows",
						feed->session->name),
				 errdetail("It was %s there and %d here.",
						   PQcmdTuples(unconstify(PGresult *, result)),
						   feed->ngone)));
	pfree(sql.data);
	resetStringInfo(&feed->gone);
	feed->ngone = 0;
	feed->has_gone = true;
}

/*
 * shard_node_feed_gone
 *		Have the copy of a row deleted.  In a pass, these rows come first.
 *
 * "arg" is the ShardNodeFeed.  Raises what the node raises, and
 * ERRCODE_FDW_ERROR if it does not have the row.
 */
void
shard_node_feed_gone(void *arg, HeapTuple row)
{
	ShardNodeFeed *feed = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(feed->row_context);

	heap_deform_tuple(row, feed->desc, feed->values, feed->nulls);
	appendStringInfoString(&feed->gone, feed->ngone > 0 ? ", (" : "(");
	for (int i = 0; i < feed->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(feed->desc, feed->keys[i] - 1);

		appendStringInfo(&feed->gone, "%s%s::%s", i > 0 ? ", " : "",
						 quote_literal_cstr(value_text(feed, att->attnum)),
						 format_type_extended(att->atttypid, att->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
	}
	appendStringInfoChar(&feed->gone, ')');
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(feed->row_context);
	if (++feed->ngone == MAX_GONE || feed->gone.len >= BLOCK_SIZE)
		delete_gone(feed);
}

/*
 * shard_node_feed_row
 *		Have a row copied.
 *
 * "arg" is the ShardNodeFeed.  Raises what the node raises.
 */
void
shard_node_feed_row(void *arg, HeapTuple row)
{
	ShardNodeFeed *feed = arg;
	MemoryContext oldcontext;
	ListCell   *lc;

	if (!feed->is_copying)
	{
		delete_gone(feed);
		shard_node_begin_sending(feed->session, feed->shard, feed->columns);
		feed->is_copying = true;
		feed->nrows = 0;
	}
	oldcontext = MemoryContextSwitchTo(feed->row_context);
	heap_deform_tuple(row, feed->desc, feed->values, feed->nulls);
	foreach(lc, feed->attnos)
	{
		char	   *text = value_text(feed, lfirst_int(lc));

		if (foreach_current_index(lc) > 0)
			appendStringInfoChar(&feed->rows, '\t');
		if (text == NULL)
			appendStringInfoString(&feed->rows, "\\N");
		else
			append_value(&feed->rows, text);
	}
	appendStringInfoChar(&feed->rows, '\n');
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(feed->row_context);
	feed->nrows++;
	if (feed->rows.len < BLOCK_SIZE)
		return;
	shard_node_send(feed->session, feed->rows.data, feed->rows.len);
	shard_node_flush(feed->session);
	resetStringInfo(&feed->rows);
}

/*
 * shard_node_feed_finish
 *		End a pass.  Returns whether rows have been deleted in this one or
 *		before.
 *
 * Raises what the node raises.
 */
bool
shard_node_feed_finish(ShardNodeFeed *feed)
{
	delete_gone(feed);
	if (feed->is_copying)
	{
		if (feed->rows.len > 0)
			shard_node_send(feed->session, feed->rows.data, feed->rows.len);
		resetStringInfo(&feed->rows);
		shard_node_end_sending(feed->session, feed->nrows);
		feed->is_copying = false;
	}
	AtEOXact_GUC(false, feed->guc_level);
	return feed->has_gone;
}
