/*-------------------------------------------------------------------------
 *
 * gone.c
 *	  Deleting copies of rows that are gone, by a unique index that identifies
 *	  rows.
 *
 *-------------------------------------------------------------------------
 */
#include "remote/remote_private.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

/* How much is deleted at once: rows, and bytes of the command. */
#define MAX_ROWS	500
#define MAX_BYTES	65536

struct ShardGoneRows
{
	const char *table;
	List	   *key;			/* of ShardKeyColumn */
	char	  **types;			/* of its columns */
	StringInfoData values;		/* of the rows, in parentheses */
	int			nrows;
	MemoryContext context;		/* for what is needed for a moment */
};

/*
 * shard_gone_begin
 *		Prepare to delete rows of a table, which is called so in SQL.
 *
 * The key's columns are those of "desc", and have the same names there.  The
 * result lives in the current memory context.
 */
ShardGoneRows *
shard_gone_begin(const char *table, List *key, TupleDesc desc)
{
	ShardGoneRows *gone = palloc0(sizeof(ShardGoneRows));
	ListCell   *lc;

	gone->table = table;
	gone->key = key;
	gone->types = palloc(sizeof(char *) * Max(list_length(key), 1));
	foreach(lc, key)
	{
		const ShardKeyColumn *column = lfirst(lc);
		Form_pg_attribute att = TupleDescAttr(desc, column->attno - 1);

		gone->types[foreach_current_index(lc)] =
			format_type_extended(att->atttypid, att->atttypmod,
								 FORMAT_TYPE_TYPEMOD_GIVEN |
								 FORMAT_TYPE_FORCE_QUALIFY);
	}
	initStringInfo(&gone->values);
	gone->context = AllocSetContextCreate(CurrentMemoryContext, "row that is gone",
										  ALLOCSET_DEFAULT_SIZES);
	return gone;
}

/*
 * shard_gone_add
 *		Add a row to those that are to be deleted, by the texts of the key's
 *		columns.  Returns whether it is time for shard_gone_command().
 */
bool
shard_gone_add(ShardGoneRows *gone, char **texts)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(gone->context);

	appendStringInfoString(&gone->values, gone->nrows > 0 ? ", (" : "(");
	for (int i = 0; i < list_length(gone->key); i++)
		appendStringInfo(&gone->values, "%s%s::%s", i > 0 ? ", " : "",
						 quote_literal_cstr(texts[i]), gone->types[i]);
	appendStringInfoChar(&gone->values, ')');
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(gone->context);
	return ++gone->nrows == MAX_ROWS || gone->values.len >= MAX_BYTES;
}

/*
 * shard_gone_command
 *		The command that deletes the rows which have been added since the last
 *		one, or NULL if there are none; *nrows becomes their number.
 */
char *
shard_gone_command(ShardGoneRows *gone, uint64 *nrows)
{
	StringInfoData sql;
	ListCell   *lc;

	*nrows = gone->nrows;
	if (gone->nrows == 0)
		return NULL;
	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM ONLY %s t USING (VALUES %s) v (",
					 gone->table, gone->values.data);
	foreach(lc, gone->key)
		appendStringInfo(&sql, "%sc%d", foreach_current_index(lc) > 0 ? ", " : "",
						 foreach_current_index(lc));
	appendStringInfoString(&sql, ") WHERE ");
	foreach(lc, gone->key)
	{
		const ShardKeyColumn *column = lfirst(lc);

		/* The column's collation wins over that of a constant. */
		appendStringInfo(&sql, "%st.%s OPERATOR(%s) v.c%d",
						 foreach_current_index(lc) > 0 ? " AND " : "",
						 quote_identifier(column->name), column->equality,
						 foreach_current_index(lc));
	}
	resetStringInfo(&gone->values);
	gone->nrows = 0;
	return sql.data;
}
