/*-------------------------------------------------------------------------
 *
 * feed.c
 *	  Rows on their way to the table behind a foreign table, from here or from
 *	  another node.
 *
 * They are sent in one COPY or, while others write the table, in passes: each
 * takes away there what is gone, and then brings what is new.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* Bytes that are sent at once. */
#define BLOCK_SIZE	65536

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

	List	   *key;			/* of ShardKeyColumn */
	ShardGoneRows *gone;		/* to be deleted */
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
 * shard_node_feed_begin
 *		Prepare to send rows of a table or a foreign table, which is locked, to
 *		the table behind another foreign table, which this transaction has
 *		created, by the user mapping of this role.
 *
 * "key" is a list of ShardKeyColumn, or NIL if no row will go.  Both have columns
 * of the same names.  The result lives in the current memory context.  Raises
 * what shard_node_connect() and the node raise.
 */
ShardNodeFeed *
shard_node_feed_begin(Oid shard, Oid userid, Relation rel, List *key)
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
	feed->key = key;
	feed->gone = shard_gone_begin(shard_node_table_name(shard), key, feed->desc);
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
	uint64		nrows;
	char	   *sql = shard_gone_command(feed->gone, &nrows);

	if (sql == NULL)
		return;
	shard_node_change_rows(feed->session, sql, nrows);
	pfree(sql);
	feed->has_gone = true;
}

/*
 * shard_node_feed_gone_key
 *		Have the copy of a row deleted, by the texts of the key's columns.  In a
 *		pass, these rows come first.
 *
 * Raises what the node raises, and ERRCODE_FDW_ERROR if it does not have the
 * row.
 */
void
shard_node_feed_gone_key(ShardNodeFeed *feed, char **texts)
{
	if (shard_gone_add(feed->gone, texts))
		delete_gone(feed);
}

/*
 * shard_node_feed_gone
 *		The same for a row of the table.
 *
 * "arg" is the ShardNodeFeed.
 */
void
shard_node_feed_gone(void *arg, HeapTuple row)
{
	ShardNodeFeed *feed = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(feed->row_context);
	char	  **texts = palloc(sizeof(char *) * list_length(feed->key));
	ListCell   *lc;

	heap_deform_tuple(row, feed->desc, feed->values, feed->nulls);
	foreach(lc, feed->key)
		texts[foreach_current_index(lc)] =
		value_text(feed, ((ShardKeyColumn *) lfirst(lc))->attno);
	MemoryContextSwitchTo(oldcontext);
	shard_node_feed_gone_key(feed, texts);
	MemoryContextReset(feed->row_context);
}

/*
 * Before the first row of a pass that is copied.
 */
static void
begin_copying(ShardNodeFeed *feed)
{
	if (feed->is_copying)
		return;
	delete_gone(feed);
	shard_node_begin_sending(feed->session, feed->shard, feed->columns);
	feed->is_copying = true;
	feed->nrows = 0;
}

/*
 * A row more waits to be sent.
 */
static void
end_row(ShardNodeFeed *feed)
{
	feed->nrows++;
	if (feed->rows.len < BLOCK_SIZE)
		return;
	shard_node_send(feed->session, feed->rows.data, feed->rows.len);
	shard_node_flush(feed->session);
	resetStringInfo(&feed->rows);
}

/*
 * shard_node_feed_line
 *		Have a row copied that is given as a line of COPY: so many bytes.
 */
void
shard_node_feed_line(ShardNodeFeed *feed, const char *line, int length)
{
	begin_copying(feed);
	appendBinaryStringInfo(&feed->rows, line, length);
	end_row(feed);
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

	begin_copying(feed);
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
	end_row(feed);
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
