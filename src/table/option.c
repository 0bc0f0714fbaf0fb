/*-------------------------------------------------------------------------
 *
 * option.c
 *	  Options of foreign tables and servers: one table of what is valid, the
 *	  validator, and the getter that applies defaults.
 *
 * A new option is a row in valid_options[] and a case in apply_option().
 * The validator and the getter share that code, so what passes one is
 * understood by the other.  Some options may not have passed the validator,
 * because a superuser can create a wrapper with our handler and without it.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "access/reloptions.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "pg_config_manual.h"

#define DEFAULT_BATCH_SIZE	1000
#define DEFAULT_MAX_SHARDS	1024

PG_FUNCTION_INFO_V1(shard_fdw_validator);

/* An option that objects of a kind take. */
typedef struct ValidOption
{
	const char *name;
	Oid			context;		/* catalog whose objects take it */
} ValidOption;

static const ValidOption valid_options[] = {
	{"route", ForeignServerRelationId},
	{"batch_size", ForeignServerRelationId},
	{"commit_order", ForeignServerRelationId},
	{"shard_schema", ForeignServerRelationId},
	{"shards", ForeignTableRelationId},
	{"template", ForeignTableRelationId},
	{"nodes", ForeignTableRelationId},
	{"shard_schema", ForeignTableRelationId},
	{"route", ForeignTableRelationId},
	{"key", ForeignTableRelationId},
	{"batch_size", ForeignTableRelationId},
	{"max_shards", ForeignTableRelationId},
	{"commit_order", ForeignTableRelationId},
	{"time_column", ForeignTableRelationId},
	{"rotate_every", ForeignTableRelationId},
	{"retain_for", ForeignTableRelationId},
	{"maintenance", ForeignTableRelationId},
	{"single_node", ForeignTableRelationId},
	{"sequence", AttributeRelationId},
};

static const char *const route_names[] = {
	[SHARD_ROUTE_SESSION] = "session",
	[SHARD_ROUTE_ROUND_ROBIN] = "round_robin",
	[SHARD_ROUTE_HASH] = "hash",
};

/*
 * shard_route_name
 *		The name of a route, as the "route" option spells it.
 *
 * The string is constant.
 */
const char *
shard_route_name(ShardRoute route)
{
	return route_names[route];
}

/*
 * Do objects described in this catalog take an option of this name?
 */
static bool
is_valid_option(const char *name, Oid context)
{
	for (int i = 0; i < lengthof(valid_options); i++)
		if (valid_options[i].context == context &&
			strcmp(name, valid_options[i].name) == 0)
			return true;
	return false;
}

/*
 * Raise ERRCODE_FDW_INVALID_OPTION_NAME for an option that objects described in
 * this catalog do not take.
 */
static void
report_unknown_option(const char *name, Oid context)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int i = 0; i < lengthof(valid_options); i++)
		if (valid_options[i].context == context)
			appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "",
							 valid_options[i].name);

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 valid.len > 0
			 ? errhint("Valid options in this context are: %s.", valid.data)
			 : errhint("There are no valid options in this context.")));
}

/*
 * The integer value of an option, checked against its range.
 */
static int
integer_option(DefElem *def, int min, int max)
{
	char	   *value = defGetString(def);
	char	   *end;
	long		result;

	/* Not parse_int(), which rounds fractions and takes 010 for 8. */
	errno = 0;
	result = strtol(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0 ||
		result < min || result > max)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("Valid values are the integers from %d to %d.",
						 min, max)));
	return (int) result;
}

/*
 * The route that an option names.
 */
static ShardRoute
route_option(DefElem *def)
{
	char	   *value = defGetString(def);
	StringInfoData valid;

	for (int i = 0; i < lengthof(route_names); i++)
		if (strcmp(value, route_names[i]) == 0)
			return (ShardRoute) i;

	initStringInfo(&valid);
	for (int i = 0; i < lengthof(route_names); i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", route_names[i]);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"",
					def->defname, value),
			 errhint("Valid values are: %s.", valid.data)));
}

/*
 * Names with such characters between them, which must at least look like some.
 * The hint says what they are.
 */
static char *
names_option(DefElem *def, char separator, const char *hint)
{
	char	   *value = defGetString(def);
	List	   *names;

	if (!SplitIdentifierString(pstrdup(value), separator, &names) || names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("%s", hint)));
	return value;
}

/*
 * The name of a schema, folded as SQL does it, which must at least look like
 * one.
 */
static char *
schema_name_option(DefElem *def)
{
	char	   *value = defGetString(def);
	List	   *names;

	if (!SplitIdentifierString(pstrdup(value), '.', &names) ||
		list_length(names) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("The value is the name of a schema, in double quotes if SQL needs them.")));
	return linitial(names);
}

/*
 * The names of columns, separated by commas, which must at least look like
 * some.
 */
static char *
columns_option(DefElem *def)
{
	char	   *value = defGetString(def);
	List	   *names;
	bool		valid;

	valid = SplitIdentifierString(pstrdup(value), ',', &names) &&
		names != NIL && list_length(names) <= PARTITION_MAX_KEYS;
	for (int i = 0; valid && i < list_length(names); i++)
		for (int j = 0; j < i; j++)
			valid &= strcmp(list_nth(names, i), list_nth(names, j)) != 0;
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("The value is a list of up to %d different column names, separated by commas.",
						 PARTITION_MAX_KEYS)));
	return value;
}

/*
 * The value of a boolean option.
 */
static bool
boolean_option(DefElem *def)
{
	bool		result;

	if (!parse_bool(defGetString(def), &result))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, defGetString(def)),
				 errhint("Valid values are: true, false.")));
	return result;
}

/*
 * The name of one column, which must at least look like one.
 */
static char *
column_option(DefElem *def)
{
	char	   *value = defGetString(def);
	List	   *names;

	if (!SplitIdentifierString(pstrdup(value), ',', &names) ||
		list_length(names) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("The value is the name of a column.")));
	return linitial(names);
}

/*
 * An interval of which no part is negative, and not all are zero.
 */
static Interval *
interval_option(DefElem *def)
{
	char	   *value = defGetString(def);
	MemoryContext context = CurrentMemoryContext;
	Interval   *volatile result = NULL;

	PG_TRY();
	{
		result = DatumGetIntervalP(DirectFunctionCall3(interval_in,
													   CStringGetDatum(value),
													   ObjectIdGetDatum(InvalidOid),
													   Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		/* It is an error still, only another one. */
		FlushErrorState();
		FreeErrorData(error);
	}
	PG_END_TRY();

	/* The greatest months and days are infinity. */
	if (result == NULL || result->month < 0 || result->day < 0 ||
		result->time < 0 || result->month == PG_INT32_MAX ||
		(result->month == 0 && result->day == 0 && result->time == 0))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("The value is an interval greater than zero, such as \"1 day\" or \"3 months\".")));
	return result;
}

/*
 * Whether maintenance is left to the user.
 */
static bool
maintenance_option(DefElem *def)
{
	char	   *value = defGetString(def);

	if (strcmp(value, "auto") != 0 && strcmp(value, "manual") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("Valid values are: auto, manual.")));
	return strcmp(value, "manual") == 0;
}

/*
 * Only checks the value: it is sequence.c that reads it.
 */
static void
sequence_option(DefElem *def)
{
	char	   *value = defGetString(def);

	if (strcmp(value, "always") != 0 && strcmp(value, "by_default") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\": \"%s\"",
						def->defname, value),
				 errhint("Valid values are: always, by_default.")));
}

/*
 * Store one option's value, checked.  The caller has checked the name.
 */
static void
apply_option(ShardOptions *options, DefElem *def)
{
	if (strcmp(def->defname, "shards") == 0)
		options->shards = integer_option(def, 1, SHARD_MAX_SHARDS);
	else if (strcmp(def->defname, "template") == 0)
		options->template_name = names_option(def, '.',
											  "The value is the name of a table, with its schema unless it is in the search path.");
	else if (strcmp(def->defname, "nodes") == 0)
		options->nodes = names_option(def, ',',
									  "The value is a list of servers of postgres_fdw, separated by commas; \"local\" stands for this server.");
	else if (strcmp(def->defname, "shard_schema") == 0)
		options->shard_schema = schema_name_option(def);
	else if (strcmp(def->defname, "route") == 0)
		options->route = route_option(def);
	else if (strcmp(def->defname, "key") == 0)
		options->key = columns_option(def);
	else if (strcmp(def->defname, "batch_size") == 0)
		options->batch_size = integer_option(def, 1, 100000);
	else if (strcmp(def->defname, "max_shards") == 0)
		options->max_shards = integer_option(def, 1, SHARD_MAX_SHARDS);
	else if (strcmp(def->defname, "commit_order") == 0)
		options->commit_order = boolean_option(def);
	else if (strcmp(def->defname, "time_column") == 0)
		options->time_column = column_option(def);
	else if (strcmp(def->defname, "rotate_every") == 0)
		options->rotate_every = interval_option(def);
	else if (strcmp(def->defname, "retain_for") == 0)
		options->retain_for = interval_option(def);
	else if (strcmp(def->defname, "maintenance") == 0)
		options->is_manual = maintenance_option(def);
	else if (strcmp(def->defname, "single_node") == 0)
		options->single_node = boolean_option(def);
	else if (strcmp(def->defname, "sequence") == 0)
		sequence_option(def);
	else
		Assert(false);
}

/*
 * Fill in the built-in defaults.
 */
static void
set_defaults(ShardOptions *options)
{
	memset(options, 0, sizeof(ShardOptions));
	options->route = SHARD_ROUTE_SESSION;
	options->batch_size = DEFAULT_BATCH_SIZE;
	options->max_shards = DEFAULT_MAX_SHARDS;
}

/*
 * shard_fdw_validator(options text[], catalog oid)
 *		Check the options of an object of this foreign-data wrapper.
 *
 * "options" are name=value strings, "catalog" is the OID of the system
 * catalog the object is described in.  Returns void.  Raises
 * ERRCODE_FDW_INVALID_OPTION_NAME for a name that objects of that catalog do
 * not take, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE for a bad value or options
 * that do not fit together.
 */
Datum
shard_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *defs = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			context = PG_GETARG_OID(1);
	ShardOptions options;
	bool		has_route = false;
	ListCell   *lc;

	set_defaults(&options);

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (!is_valid_option(def->defname, context))
			report_unknown_option(def->defname, context);
		apply_option(&options, def);
		has_route |= strcmp(def->defname, "route") == 0;
	}

	if (context == ForeignTableRelationId && has_route &&
		(options.route == SHARD_ROUTE_HASH) != (options.key != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 options.key == NULL
				 ? errmsg("route \"hash\" requires option \"key\"")
				 : errmsg("option \"key\" requires route \"hash\""),
				 errhint("The key is the columns whose values decide which shard a row goes to.")));
	if (options.commit_order && options.route == SHARD_ROUTE_ROUND_ROBIN)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"commit_order\" cannot be used with route \"round_robin\""),
				 errhint("With commit order a transaction keeps to few shards; use route \"session\" or \"hash\".")));
	if ((options.rotate_every != NULL || options.retain_for != NULL) &&
		options.time_column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" requires option \"time_column\"",
						options.rotate_every != NULL ? "rotate_every" :
						"retain_for"),
				 errhint("Name the column that says of which time a row is.")));
	if (options.template_name != NULL && options.shards == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"template\" requires option \"shards\""),
				 errhint("The template is what the new shards are copied from; say how many to create.")));
	if (options.nodes != NULL && options.shards == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"nodes\" requires option \"shards\""),
				 errhint("The nodes are where the new shards go; say how many to create.")));
	if (options.shards > options.max_shards)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"shards\" (%d) is greater than option \"max_shards\" (%d)",
						options.shards, options.max_shards)));

	PG_RETURN_VOID();
}

/*
 * Store the value of an option that has been read from a catalog.  If the
 * validator would not have accepted it, raise the validator's error, or, if
 * missing_ok, leave it out and return false.
 */
static bool
apply_stored_option(ShardOptions *options, DefElem *def, Oid context,
					bool missing_ok)
{
	ShardOptions before = *options;
	MemoryContext oldcontext = CurrentMemoryContext;
	volatile bool result = is_valid_option(def->defname, context);

	if (!result && !missing_ok)
		report_unknown_option(def->defname, context);
	if (!result)
		return false;
	if (!missing_ok)
	{
		apply_option(options, def);
		return true;
	}

	/* Nothing is held and no catalog is open while a value is looked at. */
	PG_TRY();
	{
		apply_option(options, def);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE)
			PG_RE_THROW();
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
		*options = before;
		result = false;
	}
	PG_END_TRY();
	return result;
}

/*
 * Fill in the options of a logical table; see shard_get_options() and
 * shard_get_good_options().
 */
static bool
get_options(Oid relid, ShardOptions *options, bool missing_ok)
{
	ForeignTable *table = GetForeignTable(relid);
	ForeignServer *server = GetForeignServer(table->serverid);
	bool		result = true;
	ListCell   *lc;

	set_defaults(options);
	foreach(lc, server->options)
		result &= apply_stored_option(options, lfirst_node(DefElem, lc),
									  ForeignServerRelationId, missing_ok);
	foreach(lc, table->options)
		result &= apply_stored_option(options, lfirst_node(DefElem, lc),
									  ForeignTableRelationId, missing_ok);
	return result;
}

/*
 * shard_get_options
 *		Fill in the options of a logical table: its own, else its server's,
 *		else the built-in defaults.
 *
 * Reads the system catalogs.  What *options points to is allocated in the
 * current memory context.  Raises what shard_fdw_validator() raises for an
 * option, which it does only for those of a wrapper without it.
 */
void
shard_get_options(Oid relid, ShardOptions *options)
{
	(void) get_options(relid, options, false);
}

/*
 * shard_check_options
 *		Raise an error if one of these options is bad.
 */
void
shard_check_options(Oid relid)
{
	ShardOptions options;

	shard_get_options(relid, &options);
}

/*
 * shard_get_good_options
 *		As shard_get_options(), but bad options count as not given.  Returns
 *		false if there are some.
 */
bool
shard_get_good_options(Oid relid, ShardOptions *options)
{
	return get_options(relid, options, true);
}

/*
 * shard_read_options
 *		The same from the options as pg_foreign_server and pg_foreign_table have
 *		them; zero for none.
 *
 * For views: reads no catalog.
 */
void
shard_read_options(Datum server, Datum stored, ShardOptions *options)
{
	ListCell   *lc;

	set_defaults(options);
	foreach(lc, untransformRelOptions(server))
		(void) apply_stored_option(options, lfirst_node(DefElem, lc),
								   ForeignServerRelationId, true);
	foreach(lc, untransformRelOptions(stored))
		(void) apply_stored_option(options, lfirst_node(DefElem, lc),
								   ForeignTableRelationId, true);
}

/*
 * shard_check_column_option
 *		Check an option of a column of a logical table, as shard_get_options()
 *		does for the table.  Returns false if it is bad and missing_ok.
 */
bool
shard_check_column_option(DefElem *def, bool missing_ok)
{
	ShardOptions options;

	set_defaults(&options);
	return apply_stored_option(&options, def, AttributeRelationId, missing_ok);
}

/*
 * shard_schema_option
 *		The schema that option "shard_schema" names.  If there is none of that
 *		name, reports ERRCODE_UNDEFINED_SCHEMA, and returns InvalidOid unless
 *		that is an error.
 */
Oid
shard_schema_option(Oid logical, const ShardOptions *options, int elevel)
{
	Oid			result = get_namespace_oid(options->shard_schema, true);

	if (!OidIsValid(result))
		ereport(elevel,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema \"%s\" does not exist",
						options->shard_schema),
				 errdetail("Option \"shard_schema\" of foreign table \"%s\" or of its server says that new shards go there.",
						   get_rel_name(logical)),
				 errhint("Create the schema, or change the option.")));
	return result;
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
