/*-------------------------------------------------------------------------
 *
 * command.c
 *	  Small helpers for functions that run SQL: names, commands, settings, and
 *	  acting as the owner of a table.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/reloptions.h"
#include "access/xact.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Where shard_become_owner() was called last; see shard_is_acting(). */
static ShardActing acting;

/*
 * shard_check_argument
 *		Raise ERRCODE_NULL_VALUE_NOT_ALLOWED if argument number n of an SQL
 *		function, counted from 0, is null.
 *
 * "name" is what the message calls it.
 */
void
shard_check_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * shard_stops_on_error
 *		Does this value of argument "on_error" say that an error ends it all?
 *
 * Raises ERRCODE_INVALID_PARAMETER_VALUE if it is neither "stop" nor
 * "continue".
 */
bool
shard_stops_on_error(const char *value)
{
	if (strcmp(value, "stop") == 0)
		return true;
	if (strcmp(value, "continue") == 0)
		return false;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for parameter \"%s\": \"%s\"", "on_error",
					value),
			 errhint("Valid values are: stop, continue.")));
}

/*
 * shard_qualified_name
 *		The name of a relation with its schema, quoted where necessary, or
 *		NULL if there is no such relation.
 *
 * Allocated in the current memory context.
 */
char *
shard_qualified_name(Oid relid)
{
	char	   *name = get_rel_name(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	return name && schema ? quote_qualified_identifier(schema, name) : NULL;
}

/*
 * shard_column_list
 *		The columns of a table as a select list, each with a prefix.  It is
 *		"NULL" if there are none.
 *
 * Generated columns, which cannot be inserted, are in it if with_generated.
 * Allocated in the current memory context.
 */
char *
shard_column_list(Relation rel, const char *prefix, bool with_generated)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (!att->attisdropped && (with_generated || !att->attgenerated))
			appendStringInfo(&buf, "%s%s%s", buf.len > 0 ? ", " : "", prefix,
							 quote_identifier(NameStr(att->attname)));
	}
	if (buf.len == 0)
		appendStringInfoString(&buf, "NULL");
	return buf.data;
}

/*
 * Append the storage parameters of the relation, as those of a table whose
 * names start with "prefix" for it.
 */
static void
append_storage_parameters(StringInfo sql, Oid relid, const char *prefix,
						  const char **separator)
{
	HeapTuple	tuple;
	Datum		options;
	bool		isnull;
	ListCell   *lc;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	options = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	foreach(lc, isnull ? NIL : untransformRelOptions(options))
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		appendStringInfo(sql, "%s%s%s = %s", *separator, prefix,
						 quote_identifier(def->defname),
						 quote_literal_cstr(defGetString(def)));
		*separator = ", ";
	}
	ReleaseSysCache(tuple);
}

/*
 * shard_append_storage_parameters
 *		Append clause WITH of CREATE TABLE, with the storage parameters of this
 *		table and of its TOAST table, if there are any.
 */
void
shard_append_storage_parameters(StringInfo sql, Relation rel)
{
	Oid			toast = RelationGetForm(rel)->reltoastrelid;
	const char *separator = " WITH (";

	append_storage_parameters(sql, RelationGetRelid(rel), "", &separator);
	if (OidIsValid(toast))
		append_storage_parameters(sql, toast, "toast.", &separator);
	if (strcmp(separator, ", ") == 0)
		appendStringInfoChar(sql, ')');
}

/*
 * shard_execute
 *		Run a command that returns no rows.  SPI is connected.
 *
 * Raises what the command raises.
 */
void
shard_execute(const char *format,...)
{
	StringInfoData sql;
	int			rc;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	rc = SPI_execute(sql.data, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	pfree(sql.data);
}

/*
 * shard_drop_seal
 *		Drop the CHECK constraints that keep rows out of a shard.  SPI is
 *		connected.
 */
void
shard_drop_seal(Oid shard)
{
	char	   *name;

	while ((name = shard_seal_constraint(shard)) != NULL)
		shard_execute("ALTER TABLE %s DROP CONSTRAINT %s",
					  shard_qualified_name(shard), quote_identifier(name));
}

/*
 * shard_set
 *		Give a setting a value until shard_restore_identity().
 */
void
shard_set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * shard_become_owner
 *		Act as the owner of the logical table until shard_restore_identity(), with
 *		nothing but the system catalogs in the search path.
 *
 * The shards belong to the owner of the logical table, whoever the caller is,
 * and functions that the owner has attached to the tables must not run as the
 * caller.  After an error, PostgreSQL restores the identity.
 */
void
shard_become_owner(Relation logical, ShardIdentity *identity)
{
	Oid			owner = logical->rd_rel->relowner;

	GetUserIdAndSecContext(&identity->userid, &identity->sec_context);
	if (owner != identity->userid)
		SetUserIdAndSecContext(owner, identity->sec_context |
							   SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	identity->acting = acting;
	acting.lxid = shard_my_lxid();
	acting.subid = GetCurrentSubTransactionId();
	identity->guc_level = NewGUCNestLevel();
	shard_set("search_path", "pg_catalog, pg_temp");
}

/*
 * shard_restore_identity
 *		Undo shard_become_owner(), and the settings made since.
 */
void
shard_restore_identity(const ShardIdentity *identity)
{
	/* Settings that the owner's functions have made are undone as well. */
	AtEOXact_GUC(false, identity->guc_level);
	SetUserIdAndSecContext(identity->userid, identity->sec_context);
	acting = identity->acting;
}

/*
 * shard_is_acting
 *		Are we between shard_become_owner() and shard_restore_identity()?  Then
 *		DDL commands are our own, and users need no advice about them.
 *
 * After an error, shard_restore_identity() is not called, but then the
 * subtransaction is over.
 */
bool
shard_is_acting(void)
{
	return acting.subid != InvalidSubTransactionId &&
		acting.lxid == shard_my_lxid() &&
		SubTransactionIsActive(acting.subid);
}

/*
 * shard_catch
 *		In PG_CATCH(): roll back the subtransaction that has failed, and go
 *		back to where it began.  Returns the error, in that memory context.
 *
 * If the user has canceled the query, the error is raised again, because that
 * is meant for all of the query.
 */
ErrorData *
shard_catch(MemoryContext context, ResourceOwner owner)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	/* Any function can raise an error with this code. */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0)
		ReThrowError(error);
	return error;
}

/*
 * shard_try_command
 *		Have a function run a command in a subtransaction.  Returns whether it
 *		succeeded; *result becomes what the function returns, or else the error
 *		message.
 *
 * Raises nothing that the function raises.  The message is allocated in the
 * current memory context, in which the function is called.
 */
bool
shard_try_command(char *(*run) (void *arg), void *arg, char **result)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	volatile bool success = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		*result = run(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = shard_catch(oldcontext, oldowner);

		*result = pstrdup(error->message);
		FreeErrorData(error);
		success = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return success;
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
