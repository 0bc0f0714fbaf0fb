/*-------------------------------------------------------------------------
 *
 * advice.c
 *	  Warnings about what PostgreSQL lets pass but cannot do what the user
 *	  means.
 *
 * They are given when a command has created or changed something (event.c),
 * and never for what shard_fdw does itself.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/relation.h"
#include "catalog/pg_trigger.h"
#include "foreign/foreign.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * shard_advise_options
 *		Warn about options of a logical table that have no effect, or will not
 *		have one.
 */
void
shard_advise_options(Oid relid, const ShardOptions *options)
{
	/* If the table has a route of its own, it was the validator's business. */
	if (options->key != NULL && options->route != SHARD_ROUTE_HASH)
		ereport(WARNING,
				(errmsg("option \"key\" of foreign table \"%s\" has no effect",
						get_rel_name(relid)),
				 errdetail("The table has the default route of its server, which is \"%s\".",
						   shard_route_name(options->route)),
				 errhint("Set option \"route\" of the foreign table to \"hash\".")));
	if (options->shard_schema != NULL)
		(void) shard_schema_option(relid, options, WARNING);
}

/*
 * shard_advise_trigger
 *		Warn about a row trigger of a logical table that is to fire for updates
 *		or deletions.
 */
void
shard_advise_trigger(Oid relid, const CreateTrigStmt *stmt)
{
	bool		on_update = (stmt->events & TRIGGER_TYPE_UPDATE) != 0;
	bool		on_delete = (stmt->events & TRIGGER_TYPE_DELETE) != 0;

	if (!stmt->row || (!on_update && !on_delete))
		return;
	ereport(WARNING,
			(errmsg("trigger \"%s\" of foreign table \"%s\" will never fire for %s",
					stmt->trigname, get_rel_name(relid),
					!on_delete ? "UPDATE" : !on_update ? "DELETE" :
					"UPDATE or DELETE"),
			 errdetail("Rows are updated and deleted in the shards, where the row triggers of the shards fire."),
			 errhint("Create the trigger on every shard, for instance with SELECT shard_fdw.run_command_on_shards().")));
}

/*
 * shard_advise_place
 *		Warn if a shard keeps queries of a hash table from leaving out shards.
 */
void
shard_advise_place(Oid logical, Oid shard)
{
	ShardTable *table;
	const ShardMember *member;
	const char *problem;
	char	   *remedy;
	int			ordinal;
	int			nvalid = 0;

	/* Whoever has the table locked may wait for us; that is not worth it. */
	if (!ConditionalLockRelationOid(logical, AccessShareLock))
		return;
	table = shard_table_get(logical);
	ordinal = shard_table_find(table, shard);
	if (table->key == NULL || table->bounds != NULL || ordinal < 0)
		return;

	member = &table->members[ordinal];
	for (int i = 0; i < table->nmembers; i++)
		nvalid += table->members[i].modulus != 0 &&
			table->members[i].is_place_valid;
	if (member->modulus == 0)
	{
		problem = "It has no CHECK constraint that calls shard_fdw.in_hash() on the key.";
		remedy = psprintf("ADD CHECK (shard_fdw.in_hash(modulus, remainder, %s))",
						  shard_key_columns(table->key, logical));
	}
	else if (!member->is_place_valid)
	{
		problem = "Its CHECK constraint that calls shard_fdw.in_hash() has not been validated.";
		remedy = "VALIDATE CONSTRAINT";
	}
	else if (member->has_children)
	{
		problem = "It has inheritance children.";
		remedy = psprintf("NO INHERIT %s", shard_qualified_name(logical));
	}
	else if (nvalid == table->nmembers)
	{
		problem = "Its CHECK constraint allows hashes that other shards hold, or its modulus does not fit theirs.";
		remedy = psprintf("NO INHERIT %s", shard_qualified_name(logical));
	}
	else
		return;					/* another shard is to blame */
	ereport(WARNING,
			(errmsg("shard \"%s\" has no place of its own in the hash route of foreign table \"%s\"",
					get_rel_name(shard), get_rel_name(logical)),
			 errdetail("%s Until this is mended, queries read all shards, and INSERT ... ON CONFLICT is refused.",
					   problem),
			 errhint("Use ALTER TABLE %s %s.", shard_qualified_name(shard),
					 remedy)));
}

/*
 * shard_advise_nested
 *		Warn if shards of a hash table that is itself a shard of one can hold no
 *		rows, because no key has both hashes.
 */
void
shard_advise_nested(Oid logical)
{
	const ShardTable *table;
	int			own_modulus;
	int			own_remainder;
	int			n = 0;

	if (!ConditionalLockRelationOid(logical, AccessShareLock))
		return;
	table = shard_table_get(logical);
	if (!shard_own_place(table, &own_modulus, &own_remainder))
		return;
	for (int i = 0; i < table->nplaces; i++)
	{
		const ShardPlace *place = &table->places[i];
		int			a = own_modulus;
		int			b = place->modulus;

		/* Their greatest common divisor ends up in a. */
		while (b != 0)
		{
			int			rest = a % b;

			a = b;
			b = rest;
		}
		n += place->remainder % a != own_remainder % a;
	}
	if (n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg_plural("%d shard of foreign table \"%s\" can hold no rows",
							   "%d shards of foreign table \"%s\" can hold no rows",
							   n, n, get_rel_name(logical)),
				 errdetail("A CHECK constraint of the foreign table allows keys with the hash remainder %d of %d only, and the hashes that these shards hold have others. The remaining shards get more rows.",
						   own_remainder, own_modulus),
				 errhint("Make as many shards that share its rows evenly with SELECT shard_fdw.reshard('%s', %d).",
						 shard_qualified_name(logical), table->nmembers)));
}

/*
 * shard_advise_remote
 *		Warn that transactions may commit in part, when a shard is the first of
 *		its logical table that is on another server.
 */
void
shard_advise_remote(Oid logical, Oid shard)
{
	const ShardTable *table;

	if (get_rel_relkind(shard) != RELKIND_FOREIGN_TABLE ||
		shard_is_logical(shard) ||
		!ConditionalLockRelationOid(logical, AccessShareLock))
		return;
	table = shard_table_get(logical);
	if (table->single_node)
		return;
	for (int i = 0; i < table->nmembers; i++)
	{
		const ShardMember *member = &table->members[i];

		if (!member->is_local && member->relid != shard &&
			!shard_is_logical(member->relid))
			return;
	}
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("transactions that write to foreign table \"%s\" and to other tables or servers may commit in part",
					get_rel_name(logical)),
			 errdetail("Shard \"%s\" is on server \"%s\". PostgreSQL commits on each server by itself: if that fails on one, others may have committed.",
					   get_rel_name(shard),
					   GetForeignServer(GetForeignServerIdByRelId(shard))->servername),
			 errhint("Set option \"single_node\" of the foreign table to refuse transactions that write to shards on more than one server.")));
}

/*
 * shard_advise_not_copied
 *		Warn that shards on nodes do not get what their template has here.
 */
void
shard_advise_not_copied(Relation source)
{
	bool		found = RelationGetFKeyList(source) != NIL;

	for (int i = 0; source->trigdesc != NULL && i < source->trigdesc->numtriggers; i++)
		found |= !source->trigdesc->triggers[i].tgisinternal;
	if (found)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("foreign keys and triggers of \"%s\" are not copied to nodes",
						RelationGetRelationName(source)),
				 errhint("Create on the node what the table there can have.")));
}

/*
 * shard_advise_template
 *		Warn about defaults of a template that rows which are inserted through
 *		the logical table will not get.
 */
void
shard_advise_template(Oid logical, Oid template)
{
	Relation	source = try_relation_open(template, AccessShareLock);
	bool		always;
	AttrNumber	seq_attno = shard_sequence_column(logical, true, &always);

	if (source == NULL)
		return;
	for (int i = 0; i < RelationGetNumberOfAttributes(source); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), i);
		const char *column = NameStr(att->attname);
		HeapTuple	tuple;
		Form_pg_attribute own;

		if (att->attisdropped || att->attgenerated ||
			(!att->atthasdef && !att->attidentity))
			continue;
		/* A column that the logical table does not have gets its default. */
		tuple = SearchSysCacheAttName(logical, column);
		if (!HeapTupleIsValid(tuple))
			continue;
		own = (Form_pg_attribute) GETSTRUCT(tuple);
		if (!own->atthasdef && !own->attidentity && own->attnum != seq_attno)
			ereport(WARNING,
					(errmsg("column \"%s\" of foreign table \"%s\" has no default, unlike its template \"%s\"",
							column, get_rel_name(logical),
							RelationGetRelationName(source)),
					 errdetail("Rows that are inserted through the foreign table without a value for the column get null."),
					 att->attidentity ||
					 OidIsValid(shard_default_sequence(template, column)) ?
					 errhint("Give the column option \"sequence\", or a default with ALTER FOREIGN TABLE %s ALTER COLUMN %s SET DEFAULT.",
							 shard_qualified_name(logical),
							 quote_identifier(column)) :
					 errhint("Give the column the default, too, with ALTER FOREIGN TABLE %s ALTER COLUMN %s SET DEFAULT.",
							 shard_qualified_name(logical),
							 quote_identifier(column))));
		ReleaseSysCache(tuple);
	}
	relation_close(source, NoLock);
}
