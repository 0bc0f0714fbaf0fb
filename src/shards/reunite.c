/*-------------------------------------------------------------------------
 *
 * reunite.c
 *	  release() into one table: an ordinary or a natively partitioned table
 *	  takes the place of the logical table.
 *
 * It is what convert_table() does, the other way round.  An ordinary table is
 * made of the largest shard, to which the rows of the others are moved.  The
 * partitions of a partitioned table are the shards of a hash table as they
 * are.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"

/*
 * Raise an error because the shards cannot become one table.
 */
static void
report_cannot(Oid logical, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot release foreign table \"%s\" into one table",
					get_rel_name(logical)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Raise an error if rows of a shard would be changed or left behind when they
 * move to another one, of which one is an example.
 */
static void
check_rows_can_move(Oid logical, Relation shard, Oid other)
{
	const char *name = RelationGetRelationName(shard);

	if (shard->rd_rules != NULL)
		report_cannot(logical, psprintf("Shard \"%s\" has rules.", name),
					  "Drop its rules.");
	if (shard->rd_rel->relrowsecurity)
		report_cannot(logical,
					  psprintf("Shard \"%s\" has row-level security.", name),
					  "Disable it, and create its policies on the new table.");
	if (shard->rd_rel->relpersistence != get_rel_persistence(other))
		report_cannot(logical,
					  "Some of its shards are unlogged, and others are not.",
					  "Use ALTER TABLE ... SET LOGGED.");
}

/*
 * Raise an error unless the shards, which are locked, can become one table.
 */
static void
check_shards(Oid logical, bool into_partitions)
{
	ShardTable *table = shard_table_get(logical);

	if (table->nmembers == 0)
		report_cannot(logical, "It has no shards.",
					  "Drop it, and create a table.");
	if (into_partitions &&
		(table->route != SHARD_ROUTE_HASH || table->bounds == NULL))
		report_cannot(logical,
					  table->route == SHARD_ROUTE_HASH ?
					  "Its shards are not placed as partitions are: some have no constraint \"shard_hash\", or one that is not validated, or hold the same hashes." :
					  "Only the shards of a hash table have rows that partitions could have.",
					  "Use release(..., kind => 'one').");
	for (int i = 0; i < table->nmembers; i++)
	{
		Relation	shard;
		TupleDesc	desc;

		shard_check_plain(logical, &table->members[i], "release");
		shard = table_open(table->members[i].relid, NoLock);
		CheckTableNotInUse(shard, "release");
		if (!into_partitions)
			check_rows_can_move(logical, shard,
								table->members[0].relid);
		desc = RelationGetDescr(shard);
		for (int j = 0; j < desc->natts; j++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, j);

			if (!att->attisdropped &&
				get_attnum(logical, NameStr(att->attname)) == InvalidAttrNumber)
				report_cannot(logical,
							  psprintf("Shard \"%s\" has a column \"%s\" that the foreign table has not.",
									   RelationGetRelationName(shard),
									   NameStr(att->attname)),
							  "Add the column to the foreign table, or drop it from the shard.");
		}
		table_close(shard, NoLock);
	}
}

/*
 * Has the shard its columns in the order of the logical table?
 */
static bool
has_same_order(Relation shard, Oid logical)
{
	TupleDesc	desc = RelationGetDescr(shard);
	AttrNumber	last = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AttrNumber	number;

		if (att->attisdropped)
			continue;
		number = get_attnum(logical, NameStr(att->attname));
		if (number < last)
			return false;
		last = number;
	}
	return true;
}

/*
 * The largest of the shards, of those that have their columns in the order of
 * the logical table if "ordered".
 */
static Oid
largest_shard(Oid logical, List *shards, bool ordered)
{
	Oid			result = InvalidOid;
	BlockNumber most = 0;
	ListCell   *lc;

	foreach(lc, shards)
	{
		Relation	shard = table_open(lfirst_oid(lc), NoLock);
		BlockNumber nblocks = RelationGetNumberOfBlocks(shard);
		bool		is_fit = !ordered || has_same_order(shard, logical);

		table_close(shard, NoLock);
		if ((!OidIsValid(result) || nblocks > most) && is_fit)
		{
			result = lfirst_oid(lc);
			most = nblocks;
		}
	}
	if (!OidIsValid(result))
		report_cannot(logical,
					  "No shard has its columns in the order of the foreign table.",
					  "Create a shard with SELECT shard_fdw.create_shards().");
	return result;
}

/* The sequence that takes the place of those of column option "sequence". */
typedef struct NewSequence
{
	char	   *column;			/* its name, quoted, or NULL if there is none */
	char	   *kind;			/* ALWAYS or BY DEFAULT */
	char	   *name;			/* with the schema */
	int64		next;			/* comes after all ids that were given */
} NewSequence;

/*
 * What the sequence for column option "sequence" is to be.
 */
static NewSequence
plan_sequence(Oid logical)
{
	ShardTable *table = shard_table_get(logical);
	NewSequence result = {0};
	char	   *column;
	List	   *sequences;
	ListCell   *lc;

	if (table->seq_attno == 0)
		return result;
	column = get_attname(logical, table->seq_attno, false);
	result.kind = table->seq_always ? "ALWAYS" : "BY DEFAULT";
	sequences = shard_id_slot_sequences(logical, table->seq_attno);
	for (int i = 0; i < table->nmembers; i++)
		if (OidIsValid(table->members[i].sequence))
			sequences = list_append_unique_oid(sequences,
											   table->members[i].sequence);
	result.next = 1;
	foreach(lc, sequences)
		result.next = Max(result.next,
						  shard_advance_sequence(lfirst_oid(lc), PG_INT64_MIN));
	result.column = pstrdup(quote_identifier(column));
	result.name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(logical)),
											 ChooseRelationName(get_rel_name(logical),
																column, "seq",
																get_rel_namespace(logical),
																false));
	return result;
}

/*
 * Let no shard have a default that draws from a sequence which is about to go.
 */
static void
drop_default(List *shards, const char *column)
{
	ListCell   *lc;

	foreach(lc, shards)
		shard_execute("ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT, ALTER COLUMN %s SET NOT NULL",
					  shard_qualified_name(lfirst_oid(lc)), column, column);
}

/*
 * The same for identity columns of the logical table.
 */
static void
drop_defaults(List *shards, Oid logical)
{
	Relation	rel = table_open(logical, NoLock);
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(rel));

	table_close(rel, NoLock);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->attidentity != '\0')
			drop_default(shards, quote_identifier(NameStr(att->attname)));
	}
}

/*
 * Have the new table draw its ids from identity columns.
 */
static void
take_identities(Oid target, Oid logical, const NewSequence *sequence)
{
	shard_move_identities(logical, target);
	if (sequence->column == NULL)
		return;
	shard_execute("ALTER TABLE %s ALTER COLUMN %s ADD GENERATED %s AS IDENTITY (SEQUENCE NAME %s)",
				  shard_qualified_name(target), sequence->column,
				  sequence->kind, sequence->name);
	shard_execute("SELECT pg_catalog.setval(%s, " INT64_FORMAT ", false)",
				  quote_literal_cstr(sequence->name), sequence->next);
}

/*
 * Check what has to be checked later now, while the tables are there.  Other
 * constraints are checked when the caller wants it.
 */
static void
check_deferred(Oid target)
{
	char	  **names = linitial(shard_query_rows("SELECT string_agg(n, ', '), string_agg(n, ', ') FILTER (WHERE condeferred)"
												  " FROM pg_constraint, format('%s.%I', connamespace::regnamespace, conname) n"
												  " WHERE conrelid = $1 AND condeferrable",
												  target, 2));

	if (names[0] != NULL)
		shard_execute("SET CONSTRAINTS %s IMMEDIATE", names[0]);
	if (names[1] != NULL)
		shard_execute("SET CONSTRAINTS %s DEFERRED", names[1]);
}

/*
 * Move the rows of the other shards to one of them.  Triggers have seen them.
 */
static void
move_rows(Oid target, List *shards)
{
	Relation	rel = table_open(target, NoLock);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);
	char	   *columns = shard_column_list(rel, "", false);
	char	   *name = shard_qualified_name(target);
	ListCell   *lc;

	table_close(rel, NoLock);
	if (triggers != NULL)
		shard_execute("ALTER TABLE %s DISABLE TRIGGER USER", name);
	foreach(lc, shards)
	{
		Oid			shard = lfirst_oid(lc);

		if (shard == target)
			continue;
		shard_execute("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM ONLY %s",
					  name, columns, columns, shard_qualified_name(shard));
	}
	check_deferred(target);
	foreach(lc, shards)
	{
		if (lfirst_oid(lc) != target)
			shard_execute("DROP TABLE %s",
						  shard_qualified_name(lfirst_oid(lc)));
	}
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (!triggers->triggers[i].tgisinternal)
			shard_set_trigger_state(target, triggers->triggers[i].tgname,
									triggers->triggers[i].tgenabled);
}

/*
 * Give a table the name and the schema that the logical table has had, and its
 * defaults.
 */
static void
take_name(Oid target, const char *name, Oid schema, List *defaults)
{
	ListCell   *lc;

	if (get_rel_namespace(target) != schema)
		shard_execute("ALTER TABLE %s SET SCHEMA %s",
					  shard_qualified_name(target),
					  quote_identifier(get_namespace_name(schema)));
	shard_execute("ALTER TABLE %s RENAME TO %s", shard_qualified_name(target),
				  quote_identifier(name));
	foreach(lc, defaults)
	{
		char	  **row = lfirst(lc);

		shard_execute("ALTER TABLE %s ALTER COLUMN %s %s",
					  shard_qualified_name(target), row[0], row[1]);
	}
}

/*
 * The names of the key's columns as literals, separated by commas.
 */
static char *
key_literals(Oid logical)
{
	PartitionKey key = shard_table_get(logical)->key;
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < key->partnatts; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 quote_literal_cstr(get_attname(logical,
														key->partattrs[i],
														false)));
	return buf.data;
}

/*
 * Create a partitioned table with the columns of the logical table and the
 * indexes and constraints of a shard, for which there are commands.
 */
static Oid
create_partitioned(const char *name, Oid schema, const char *columns,
				   const char *key, List *features)
{
	char	   *qualified = quote_qualified_identifier(get_namespace_name(schema), name);
	ListCell   *lc;

	shard_execute("CREATE TABLE %s (%s) PARTITION BY HASH (%s)", qualified,
				  columns, key);
	foreach(lc, features)
		shard_execute("%s", *(char **) lfirst(lc));
	return get_relname_relid(name, schema);
}

/*
 * What gives another table the indexes and constraints of a shard, as far as a
 * table with partitions can have them: the rest stays with the partitions.
 */
static const char *features_query =
"SELECT replace(replace(replace(replace(regexp_replace(regexp_replace(f.command,"
" '^CREATE (UNIQUE )?INDEX CONCURRENTLY', 'CREATE \\1INDEX'), ' NOT VALID$', ''),"
" E'\\x01', l.name), E'\\x04', quote_ident(l.relname)),"
" E'\\x03', coalesce(quote_ident(replace(f.name, E'\\x02', l.relname)), '')), E'\\x02', l.relname)"
" FROM (SELECT c.relname::text, format('%%s.%%I', c.relnamespace::regnamespace, c.relname) AS name"
" FROM pg_class c WHERE c.oid = %u) l, shard_fdw.features_of($1) f"
" WHERE f.rank BETWEEN 2 AND 5"
/* What is unique must have the columns of the key, and excludes nothing else. */
" AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid"
" WHERE f.rank IN (2, 3) AND i.indrelid = $1 AND ic.relname = f.name"
" AND (i.indisexclusion OR i.indisunique AND EXISTS (SELECT FROM pg_attribute a"
" WHERE a.attrelid = $1 AND a.attname = ANY (ARRAY[%s]::name[])"
" AND a.attnum <> ALL ((i.indkey::int2[])[0:i.indnkeyatts - 1]))))"
/* A partition must have what the table has. */
" AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = %u AND f.rank IN (4, 5)"
" AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = h.inhrelid AND CASE f.rank"
" WHEN 5 THEN k.contype = 'f' AND pg_get_constraintdef(k.oid) = f.definition"
" ELSE k.contype = 'c' AND k.conname = f.name AND k.convalidated AND NOT k.connoinherit"
" AND pg_get_constraintdef(k.oid) = (SELECT pg_get_constraintdef(o.oid) FROM pg_constraint o"
" WHERE o.conrelid = $1 AND o.contype = 'c' AND o.conname = f.name) END))"
" ORDER BY f.rank, f.command";

/*
 * shard_reunite
 *		Have a table take the place of the logical table: a partitioned one with
 *		the shards as its partitions, or the largest shard with the rows of all.
 *		Returns it.
 *
 * "release" takes from a shard what made it one.  All tables are locked, and
 * SPI is connected.  Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the
 * shards cannot become one table, ERRCODE_FEATURE_NOT_SUPPORTED if one is a
 * foreign table or has children, and what the DDL commands raise.
 */
Oid
shard_reunite(Oid logical, bool into_partitions,
			  void (*release) (Oid shard, Oid logical))
{
	List	   *shards = find_inheritance_children(logical, NoLock);
	ShardTable *table;
	char	   *name = get_rel_name(logical);
	Oid			schema = get_rel_namespace(logical);
	char	   *columns;
	char	   *key = NULL;
	List	   *features = NIL;
	List	   *places = NIL;
	List	   *defaults;
	List	   *sequences;
	NewSequence sequence;
	ShardSuccession succession;
	ShardIdentity identity;
	Relation	rel;
	Oid			target;
	ListCell   *lc;

	check_shards(logical, into_partitions);
	target = largest_shard(logical, shards, !into_partitions);
	columns = *(char **) linitial(shard_query_rows("SELECT shard_fdw.columns_of($1)", logical, 1));
	if (into_partitions)
	{
		table = shard_table_get(logical);
		key = shard_key_columns(table->key, logical);
		features = shard_query_rows(psprintf(features_query, logical,
											 key_literals(logical), logical),
									target, 1);
		table = shard_table_get(logical);
		for (int i = 0; i < table->nmembers; i++)
			places = lappend(places,
							 psprintf("%s FOR VALUES WITH (MODULUS %d, REMAINDER %d)",
									  shard_qualified_name(table->members[i].relid),
									  table->members[i].modulus,
									  table->members[i].remainder));
	}
	defaults = shard_query_rows("SELECT quote_ident(a.attname),"
								" coalesce('SET DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), 'DROP DEFAULT')"
								" FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
								" WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''",
								logical, 2);
	sequences = shard_query_rows(psprintf("SELECT format('%%s.%%I', s.relnamespace::regnamespace, s.relname), quote_ident(a.attname)"
										  " FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'"
										  " JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
										  " WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass"
										  " AND d.refobjid = $1 AND d.deptype = 'a' AND a.attnum <> %d",
										  shard_table_get(logical)->seq_attno),
								 logical, 2);
	shard_note_succession(logical, &succession);
	rel = table_open(logical, NoLock);
	shard_become_owner(rel, &identity);
	table_close(rel, NoLock);
	sequence = plan_sequence(logical);

	foreach(lc, shards)
		release(lfirst_oid(lc), logical);
	drop_defaults(shards, logical);
	if (sequence.column != NULL)
		drop_default(shards, sequence.column);
	shard_execute("ALTER FOREIGN TABLE %s RENAME TO %s",
				  shard_qualified_name(logical),
				  quote_identifier(psprintf("release_%u", logical)));
	if (into_partitions)
		target = create_partitioned(name, schema, columns, key, features);
	else
	{
		move_rows(target, shards);
		take_name(target, name, schema, defaults);
	}
	foreach(lc, sequences)
	{
		char	  **row = lfirst(lc);

		shard_execute("ALTER SEQUENCE %s OWNED BY %s.%s", row[0],
					  shard_qualified_name(target), row[1]);
	}
	take_identities(target, logical, &sequence);
	foreach(lc, places)
		shard_execute("ALTER TABLE %s ATTACH PARTITION %s",
					  shard_qualified_name(target), (char *) lfirst(lc));
	shard_succeed(target, &succession);
	shard_restore_identity(&identity);

	shard_succeed_others(&succession);
	return target;
}
