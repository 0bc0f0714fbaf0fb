/*-------------------------------------------------------------------------
 *
 * options.c
 *	  The command line.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <limits.h>

#include "fe_utils/option_utils.h"
#include "getopt_long.h"

/* Options without a letter. */
enum
{
	OPT_CHUNK_SIZE = 1000,
	OPT_COLUMNS,
	OPT_COMPRESSION,
	OPT_CONFLICT_KEY,
	OPT_DELIMITER,
	OPT_ENCODING,
	OPT_ESCAPE,
	OPT_FORCE_NOT_NULL,
	OPT_FORCE_NULL,
	OPT_HEADER,
	OPT_JOB,
	OPT_JOB_SCHEMA,
	OPT_JSON,
	OPT_MATCH_HEADER,
	OPT_MAX_REJECTS,
	OPT_NULL,
	OPT_ON_CONFLICT,
	OPT_PROGRESS,
	OPT_QUOTE,
	OPT_RECONNECT,
	OPT_REJECTS,
};

static const struct option long_options[] = {
	{"chunk-size", required_argument, NULL, OPT_CHUNK_SIZE},
	{"columns", required_argument, NULL, OPT_COLUMNS},
	{"compression", required_argument, NULL, OPT_COMPRESSION},
	{"conflict-key", required_argument, NULL, OPT_CONFLICT_KEY},
	{"dbname", required_argument, NULL, 'd'},
	{"delimiter", required_argument, NULL, OPT_DELIMITER},
	{"encoding", required_argument, NULL, OPT_ENCODING},
	{"escape", required_argument, NULL, OPT_ESCAPE},
	{"force-not-null", required_argument, NULL, OPT_FORCE_NOT_NULL},
	{"force-null", required_argument, NULL, OPT_FORCE_NULL},
	{"format", required_argument, NULL, 'F'},
	{"header", no_argument, NULL, OPT_HEADER},
	{"host", required_argument, NULL, 'h'},
	{"job", required_argument, NULL, OPT_JOB},
	{"job-schema", required_argument, NULL, OPT_JOB_SCHEMA},
	{"jobs", required_argument, NULL, 'j'},
	{"json", no_argument, NULL, OPT_JSON},
	{"match-header", no_argument, NULL, OPT_MATCH_HEADER},
	{"max-rejects", required_argument, NULL, OPT_MAX_REJECTS},
	{"no-password", no_argument, NULL, 'w'},
	{"null", required_argument, NULL, OPT_NULL},
	{"on-conflict", required_argument, NULL, OPT_ON_CONFLICT},
	{"password", no_argument, NULL, 'W'},
	{"port", required_argument, NULL, 'p'},
	{"progress", optional_argument, NULL, OPT_PROGRESS},
	{"quiet", no_argument, NULL, 'q'},
	{"quote", required_argument, NULL, OPT_QUOTE},
	{"reconnect-timeout", required_argument, NULL, OPT_RECONNECT},
	{"rejects", required_argument, NULL, OPT_REJECTS},
	{"username", required_argument, NULL, 'U'},
	{"verbose", no_argument, NULL, 'v'},
	{NULL, 0, NULL, 0}
};

static void
print_help(const char *progname)
{
	printf("%s loads files into a PostgreSQL table over several connections.\n\n", progname);
	printf("Usage:\n");
	printf("  %s [OPTION]... TABLE [FILE]...\n", progname);
	printf("\nWithout FILE, or where FILE is -, standard input is read.\n");
	printf("\nInput:\n");
	printf("  -F, --format=FORMAT           text (default), csv or binary, as COPY has them\n");
	printf("      --header                  the first line of each file is a header\n");
	printf("      --match-header            ... and must have the names of the columns\n");
	printf("      --delimiter=CHARACTER     what separates columns\n");
	printf("      --null=STRING             what stands for a null\n");
	printf("      --quote=CHARACTER         quoting character of csv\n");
	printf("      --escape=CHARACTER        escape character of csv\n");
	printf("      --force-null=COLUMN,...   a quoted null string is a null in these, too\n");
	printf("      --force-not-null=COLUMN,...\n"
		   "                                the null string is none in these\n");
	printf("      --encoding=ENCODING       encoding of the files\n");
	printf("      --compression=METHOD      gzip, zstd, lz4 or none (default: by name of file)\n");
	printf("\nLoading:\n");
	printf("      --columns=COLUMN,...      columns of the table that the input has\n");
	printf("  -j, --jobs=NUM                use this many connections\n");
	printf("      --chunk-size=KB           load about this much in a transaction\n");
	printf("      --job=NAME                load each row exactly once, and go on where\n"
		   "                                a job of this name has stopped\n");
	printf("      --job-schema=SCHEMA       schema of the ledger (default: the table's)\n");
	printf("      --rejects=FILE            write rows that are refused to FILE, load others\n");
	printf("      --max-rejects=NUM         stop when there are more\n");
	printf("      --on-conflict=ACTION      skip or update rows that are there already\n");
	printf("      --conflict-key=COLUMN,... the unique columns (default: primary key)\n");
	printf("      --reconnect-timeout=SECS  try to connect again for so long (default: 300)\n");
	printf("\nOutput:\n");
	printf("      --progress[=SECS]         tell how far it is now and then (default: 10)\n");
	printf("      --json                    print the summary as JSON\n");
	printf("  -q, --quiet                   print no summary\n");
	printf("  -v, --verbose                 tell of each transaction\n");
	printf("  -V, --version                 output version information, then exit\n");
	printf("  -?, --help                    show this help, then exit\n");
	printf("\nConnection options:\n");
	printf("  -d, --dbname=DBNAME           database, or connection string\n");
	printf("  -h, --host=HOSTNAME           database server host or socket directory\n");
	printf("  -p, --port=PORT               database server port\n");
	printf("  -U, --username=USERNAME       user name to connect as\n");
	printf("  -w, --no-password             never prompt for password\n");
	printf("  -W, --password                force password prompt\n");
	printf("\nThe manual is docs/shard_load.md of shard_fdw.\n");
}

static void
try_help(const char *progname)
{
	pg_log_error_hint("Try \"%s --help\" for more information.", progname);
	exit(EXIT_OWN_ERROR);
}

/*
 * One of several words, as its place among them.
 */
static int
parse_word(const char *value, const char *option, const char *const words[], int nwords)
{
	for (int i = 0; i < nwords; i++)
	{
		if (strcmp(value, words[i]) == 0)
			return i;
	}
	pg_fatal("invalid value \"%s\" for option %s", value, option);
}

static const char *
parse_character(const char *value, const char *option)
{
	if (strcmp(value, "\\t") == 0)
		return "\t";
	if (strlen(value) != 1)
		pg_fatal("argument of %s must be a single one-byte character", option);
	return value;
}

static int
parse_int(const char *value, const char *option, int min, int max)
{
	int			result;

	if (!option_parse_int(value, option, min, max, &result))
		exit(EXIT_OWN_ERROR);
	return result;
}

/*
 * Take one option.  False: it is none of the input's or the loading.
 */
static bool
take_option(LoadOptions *options, int c, char *value)
{
	static const char *const formats[] = {"text", "csv", "binary"};
	static const char *const actions[] = {"", "skip", "update"};

	switch (c)
	{
		case 'F':
			options->format = parse_word(value, "--format", formats, lengthof(formats));
			break;
		case OPT_HEADER:
			options->header = Max(options->header, HEADER_SKIP);
			break;
		case OPT_MATCH_HEADER:
			options->header = HEADER_MATCH;
			break;
		case OPT_DELIMITER:
			options->delimiter = parse_character(value, "--delimiter");
			break;
		case OPT_NULL:
			options->null_string = value;
			break;
		case OPT_QUOTE:
			options->quote = parse_character(value, "--quote");
			break;
		case OPT_ESCAPE:
			options->escape = parse_character(value, "--escape");
			break;
		case OPT_FORCE_NULL:
			options->force_null = value;
			break;
		case OPT_FORCE_NOT_NULL:
			options->force_not_null = value;
			break;
		case OPT_ENCODING:
			options->encoding = value;
			break;
		case OPT_COMPRESSION:
			if (strcmp(value, "none") != 0 && !input_is_program(value))
				pg_fatal("invalid value \"%s\" for option %s", value, "--compression");
			options->compression = value;
			break;
		case OPT_COLUMNS:
			options->columns = value;
			break;
		case 'j':
			options->jobs = parse_int(value, "-j/--jobs", 1, 1000);
			break;
		case OPT_CHUNK_SIZE:
			options->chunk_size = (int64) parse_int(value, "--chunk-size", 1, 1024 * 1024) * 1024;
			break;
		case OPT_JOB:
			options->job = value;
			break;
		case OPT_JOB_SCHEMA:
			options->job_schema = value;
			break;
		case OPT_REJECTS:
			options->rejects = value;
			break;
		case OPT_MAX_REJECTS:
			options->max_rejects = parse_int(value, "--max-rejects", 0, INT_MAX);
			break;
		case OPT_ON_CONFLICT:
			options->conflict = parse_word(value, "--on-conflict", actions, lengthof(actions));
			break;
		case OPT_CONFLICT_KEY:
			options->conflict_key = value;
			break;
		case OPT_RECONNECT:
			options->patience = parse_int(value, "--reconnect-timeout", 0, INT_MAX);
			break;
		default:
			return false;
	}
	return true;
}

/*
 * Take an option of the connection or the output.  False: there is no such
 * option.
 */
static bool
take_other_option(LoadOptions *options, int c, char *value)
{
	switch (c)
	{
		case OPT_PROGRESS:
			options->progress = value ? parse_int(value, "--progress", 1, INT_MAX) : 10;
			break;
		case OPT_JSON:
			options->json = true;
			break;
		case 'q':
			options->quiet = true;
			break;
		case 'v':
			pg_logging_increase_verbosity();
			break;
		case 'd':
			options->dbname = value;
			break;
		case 'h':
			options->host = value;
			break;
		case 'p':
			options->port = value;
			break;
		case 'U':
			options->user = value;
			break;
		case 'w':
			options->prompt = PROMPT_NEVER;
			break;
		case 'W':
			options->prompt = PROMPT_ALWAYS;
			break;
		default:
			return false;
	}
	return true;
}

/*
 * Are there options that are of no use without another one?
 */
static void
check_options(const LoadOptions *options)
{
	int			standard_inputs = 0;

	if (options->format == FORMAT_BINARY && options->header != HEADER_NONE)
		pg_fatal("option %s cannot be used with format binary", "--header");
	if (options->max_rejects >= 0 && options->rejects == NULL)
		pg_fatal("option %s requires option %s", "--max-rejects", "--rejects");
	if (options->conflict_key && options->conflict == CONFLICT_ERROR)
		pg_fatal("option %s requires option %s", "--conflict-key", "--on-conflict");
	if (options->job_schema && options->job == NULL)
		pg_fatal("option %s requires option %s", "--job-schema", "--job");
	if (options->job && options->job[0] == '\0')
		pg_fatal("name of a job must not be empty");
	for (int i = 0; i < options->nfiles; i++)
		standard_inputs += strcmp(options->files[i], "-") == 0;
	if (standard_inputs > 1)
		pg_fatal("standard input can be read only once");
}

/*
 * Parse the command line.  Exits if it is not right, or only asks for help.
 */
LoadOptions *
options_parse(int argc, char *argv[], const char *progname)
{
	static char *standard_input[] = {"-"};
	LoadOptions *options = pg_malloc0(sizeof(LoadOptions));
	int			c;

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
	{
		print_help(progname);
		exit(0);
	}
	if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
	{
		printf("shard_load (shard_fdw) %s\n", SHARD_LOAD_VERSION);
		exit(0);
	}

	options->max_rejects = -1;
	options->patience = 300;
	while ((c = getopt_long(argc, argv, "d:F:h:j:p:qU:vwW", long_options, NULL)) != -1)
	{
		if (!take_option(options, c, optarg) && !take_other_option(options, c, optarg))
			try_help(progname);
	}
	if (optind >= argc)
	{
		pg_log_error("no table is named");
		try_help(progname);
	}
	options->table = argv[optind++];
	options->files = optind < argc ? argv + optind : standard_input;
	options->nfiles = optind < argc ? argc - optind : 1;
	check_options(options);
	return options;
}
