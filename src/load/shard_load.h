/*-------------------------------------------------------------------------
 *
 * shard_load.h
 *	  What the parts of shard_load share.
 *
 * shard_load is a client program on libpq.  It shares nothing with the
 * extension but names.  From the bottom:
 *
 * cut.c		where a record of text, csv or binary COPY data ends
 * input.c		opening a file, decompressing it, taking off its header
 * key.c		which rows belong to the same shards of a hash table
 * reader.c		all inputs, one after the other, cut into chunks
 * region.c		the same, with chunks of rows that belong together
 * connection.c	one connection: connecting, sending a command and its rows
 * target.c		the table, and the commands that load rows into it
 * job.c		the ledger of a job, which makes each chunk be loaded once
 * rejects.c	the file of the rows that the server has refused
 * pieces.c		looking for such rows in a chunk
 * progress.c	what is committed, and telling the user about it
 * worker.c		what one connection does with a chunk
 * loader.c		the main loop
 * options.c	the command line
 * shard_load.c	main()
 *
 * There is one thread.  The main loop waits for all connections and the input
 * at once, and nothing else in it waits.  At any time there are as many chunks
 * in memory as connections, and two more; or, if the rows are in groups, as many
 * as connections and twice as many as groups, about.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_LOAD_H
#define SHARD_LOAD_H

#include "postgres_fe.h"

#include <time.h>

#include "common/logging.h"
#include "libpq-fe.h"
#include "pqexpbuffer.h"

#define SHARD_LOAD_VERSION "1.0"

/* Exit statuses, as psql has them. */
#define EXIT_OWN_ERROR 1
#define EXIT_LOST_CONNECTION 2
#define EXIT_SERVER_ERROR 3

typedef enum LoadFormat
{
	FORMAT_TEXT,
	FORMAT_CSV,
	FORMAT_BINARY
} LoadFormat;

typedef enum LoadHeader
{
	HEADER_NONE,
	HEADER_SKIP,
	HEADER_MATCH
} LoadHeader;

typedef enum LoadConflict
{
	CONFLICT_ERROR,
	CONFLICT_SKIP,
	CONFLICT_UPDATE
} LoadConflict;

typedef enum LoadPrompt
{
	PROMPT_IF_ASKED,
	PROMPT_NEVER,
	PROMPT_ALWAYS
} LoadPrompt;

/* The command line.  Strings are NULL where nothing was said. */
typedef struct LoadOptions
{
	/* connection */
	const char *host;
	const char *port;
	const char *user;
	const char *dbname;
	LoadPrompt	prompt;
	int			patience;		/* seconds to go on without any connection */

	/* input */
	char	  **files;
	int			nfiles;
	LoadFormat	format;
	LoadHeader	header;
	const char *compression;	/* "none", or one of input.c's programs */
	const char *delimiter;
	const char *null_string;
	const char *quote;
	const char *escape;
	const char *encoding;
	const char *force_null;
	const char *force_not_null;

	/* target */
	const char *table;
	const char *columns;
	LoadConflict conflict;
	const char *conflict_key;

	/* how */
	int			jobs;			/* 0: by cores and shards */
	int64		chunk_size;		/* bytes; 0: by the size of the input */
	const char *job;
	const char *job_schema;
	const char *rejects;
	int64		max_rejects;	/* -1: any number */
	int			progress;		/* seconds between lines; 0: none */
	bool		json;
	bool		quiet;
} LoadOptions;

/*
 * A piece of the input: whole records of one file, loaded by one transaction.
 *
 * They are all records of a region of the file, or those of them that are of
 * one group.
 */
typedef struct Chunk
{
	struct Chunk *next;			/* in a list */
	char	   *data;
	size_t		size;
	size_t		allocated;
	int64		number;			/* 0, 1, ... */
	int64		start;			/* offset of its data in all of the input, as
								 * if that were in the order of chunks */
	const char *file;			/* name, for people */
	int64		line;			/* of its region's first record; binary: of
								 * the record */
	int64		lines;			/* that the region's records take */
	int64		region;			/* 0, 1, ... */
	int			parts;			/* chunks of the region */
	int			group;
	int64		records;
	uint32	   *record_lines;	/* where each begins, from "line" on; NULL if
								 * it has all records of the region */
	int64		lines_allocated;
	char		eol;			/* as its cutter has it */
	uint64		hash;			/* of data and the file's header; for jobs */
	int			attempts;		/* that ended in a deadlock or the like */
	bool		uncertain;		/* may be committed already */
	bool		piecewise;		/* the server has refused one of its rows */
} Chunk;

/* in options.c */
extern LoadOptions *options_parse(int argc, char *argv[], const char *progname);

/*
 * Where records end.
 */
typedef enum CutResult
{
	CUT_RECORD,					/* a record ends at "pos" */
	CUT_MORE,					/* the data end before the record does */
	CUT_END,					/* an end marker: no more records in this file */
	CUT_BROKEN					/* not what COPY could read (binary only) */
} CutResult;

typedef struct Cutter
{
	LoadFormat	format;
	char		quote;
	char		escape;			/* '\0' if it is the quote */
	int			encoding;		/* one whose characters can have bytes that
								 * look like ASCII, or -1 */
	bool		marker_ends;	/* is a line "\." the end? */
	char		eol;			/* last byte of a line's end; '\0': unknown */

	/* within a buffer */
	size_t		record;			/* where the record at hand begins */
	size_t		pos;			/* how far it has been looked at */
	bool		in_quote;
	bool		escaped;		/* is the next character? */
	int64		lines;			/* ends of lines before "pos" */
} Cutter;

/* Where the records of a chunk are: record i is from offsets[i] to [i + 1]. */
typedef struct RecordIndex
{
	int64		count;
	size_t	   *offsets;
	int64	   *lines;			/* line of the file where each begins */
	int64	   *copy_lines;		/* line of the chunk, from 0 on */
} RecordIndex;

/* in cut.c */
extern void cut_init(Cutter *cutter, const LoadOptions *options,
					 int encoding, int server_version);
extern CutResult cut_record(Cutter *cutter, const char *data, size_t size,
							bool at_end);
extern RecordIndex *cut_index(const Cutter *cutter, const Chunk *chunk);
extern void cut_free_index(RecordIndex *index);
extern int64 cut_find_line(const Cutter *cutter, const RecordIndex *index,
						   int64 from, int64 copy_line);

#define BINARY_HEADER "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0"
#define BINARY_HEADER_SIZE 19
#define BINARY_TRAILER "\377\377"
#define BINARY_TRAILER_SIZE 2

/* One file, or standard input. */
typedef struct Input
{
	const char *path;			/* "-": standard input */
	const char *name;			/* for people */
	const char *program;		/* that decompresses it, or NULL */
	bool		is_regular;
	int64		file_size;		/* if it is regular */
	int			file;			/* descriptor of the file; -1: not open */
	int			fd;				/* what to read from: file, or a pipe */
	pid_t		child;			/* the program, or 0 */
	bool		at_end;
	char	   *prefix;			/* byte order mark and header */
	size_t		prefix_size;
	size_t		header_start;	/* in prefix: where the header begins */
	int64		header_lines;
	char	   *rest;			/* read along with the prefix */
	size_t		rest_size;
} Input;

/* in input.c */
extern bool input_is_program(const char *name);
extern Input *input_make(const LoadOptions *options, const char *path);
extern void input_begin(Input *input, const LoadOptions *options, Cutter *cutter);
extern size_t input_read(Input *input, char *buffer, size_t size);
extern void input_close(Input *input);
extern int64 input_position(const Input *input);

struct Target;					/* below */

/* A column of a key. */
typedef struct KeyColumn
{
	Oid			type;			/* if it is a domain: what that is of */
	int			field;			/* of each record, from 0 on */
	bool		force_null;
	bool		force_not_null;
} KeyColumn;

/* The key of a table with route "hash", in the input. */
typedef struct Key
{
	LoadFormat	format;
	char		delimiter;
	char		quote;
	char		escape;
	const char *null_string;
	size_t		null_size;
	bool		converts;		/* does the server convert the encoding? */
	int			modulus;		/* the greatest of all shards */
	int			nfields;		/* to be looked at */
	int			ncolumns;
	KeyColumn	columns[32];	/* as they are hashed; as many as PostgreSQL
								 * allows */
	char	   *description;	/* columns and what they are taken for */
	char	   *buffer;			/* for a value */
	size_t		allocated;
} Key;

/* in key.c */
extern Key *key_look_up(PGconn *conn, const LoadOptions *options,
						const struct Target *target, int encoding);
extern int	key_group(Key *key, const char *data, size_t size, int groups);

/* All inputs, one after the other. */
typedef struct Reader
{
	const LoadOptions *options;
	Input	  **inputs;
	int			ninputs;
	int			current;		/* ninputs: all have been read */
	bool		begun;			/* is the current one? */
	Cutter		cutter;			/* as it was at the file's start */
	Cutter		cut;			/* of the chunk at hand */
	Chunk	   *chunk;			/* the next one, in part */
	Chunk	   *spare;			/* chunks that have been used */
	int64		chunk_size;
	bool		hashes;			/* wanted? */
	uint64		header_hash;
	int64		chunks;			/* that were made */
	int64		regions;
	int64		offset;			/* where the chunk at hand begins */
	int64		line;
	int64		total;			/* bytes of all inputs, or -1 */
	int64		files_total;	/* bytes of all files, packed or not, or -1 */
	int64		files_read;		/* of those that have been read */

	/* if the rows are in groups */
	Key		   *key;			/* or NULL */
	int			groups;			/* 1: they are not */
	Chunk	  **open;			/* of the region at hand, one for each group */
	Chunk	   *closed;			/* more of them, the last one first */
	size_t		region_size;
	int64		record_line;	/* where the record at hand begins, in the
								 * region */
	Chunk	   *finished;		/* chunks to be handed out */
} Reader;

/* in reader.c */
extern Reader *reader_open(const LoadOptions *options, int encoding,
						   int server_version);
extern void reader_choose_chunks(Reader *reader, Key *key, int jobs);
extern int	reader_fd(const Reader *reader);
extern Chunk *reader_step(Reader *reader);
extern bool reader_done(const Reader *reader);
extern void reader_recycle(Reader *reader, Chunk *chunk);
extern double reader_fraction(const Reader *reader);
extern Chunk *reader_new_chunk(Reader *reader);
extern void reader_make_room(Chunk *chunk, size_t size);
extern void reader_settle(Reader *reader, Chunk *chunk);
extern char *chunk_lines(const Chunk *chunk);

/* in region.c */
extern void region_begin(Reader *reader);
extern bool region_add(Reader *reader, const char *record, size_t size);
extern void region_finish(Reader *reader);

/* What became of a command. */
typedef struct Outcome
{
	bool		ok;
	bool		lost;			/* the connection was */
	bool		sent_all;		/* before that: all was sent, so it may be
								 * done */
	char		sqlstate[6];
	char	   *message;		/* primary message */
	char	   *detail;			/* these may be empty */
	char	   *hint;
	char	   *context;
	int64		line;			/* of the file, that the error is about; 0 */
	int64		copied;			/* rows that a COPY has copied */
	int64		inserted;		/* rows of the first INSERT, or -1 */
	bool		found;			/* did a SELECT give a row? */
} Outcome;

typedef struct Segment
{
	const char *data;
	size_t		size;
} Segment;

typedef enum ConnectionState
{
	CONN_CLOSED,
	CONN_CONNECTING,
	CONN_FREE,
	CONN_RUNNING
} ConnectionState;

typedef struct Connection
{
	PGconn	   *conn;
	ConnectionState state;
	PostgresPollingStatusType polling;	/* while connecting */
	bool		wants_write;
	bool		copying;		/* has the server asked for rows? */
	bool		copied;			/* ... and got them all? */
	bool		canceling;
	Segment		segments[3];	/* what is to be sent */
	int			segment;
	size_t		sent;			/* of that segment */
	Outcome		outcome;
} Connection;

/* in connection.c */
extern PGconn *connection_first(LoadOptions *options);
extern void connection_adopt(Connection *connection, PGconn *conn);
extern void connection_start(Connection *connection, const LoadOptions *options);
extern void connection_close(Connection *connection);
extern void connection_run(Connection *connection, const char *sql,
						   const Segment *segments, int nsegments);
extern void connection_cancel(Connection *connection);
extern short connection_events(const Connection *connection);
extern bool connection_advance(Connection *connection, short events);
extern PGresult *query(PGconn *conn, const char *sql, int nparams,
					   const char *const *params);
extern void append_identifier(PQExpBuffer buffer, PGconn *conn, const char *name);
extern void append_literal(PQExpBuffer buffer, PGconn *conn, const char *value);
extern void outcome_reset(Outcome *outcome);
extern Outcome *outcome_take(Outcome *outcome);
extern bool outcome_is_passing(const Outcome *outcome);
extern bool outcome_is_about_row(const Outcome *outcome);

/* The table, and how rows get into it. */
typedef struct Target
{
	char	   *schema;
	char	   *name;
	char	   *qualified;		/* both, quoted */
	bool		is_logical;
	int			open_shards;	/* of a logical table */
	char	   *columns;		/* " (a, b)", quoted, or "" */
	char	   *copy;			/* COPY ... FROM STDIN (...) */
	char	   *copy_match;		/* the same, checking a header */
	char	   *session;		/* what a new session is told, or NULL */
	char	   *clear;			/* before rows are loaded again in one
								 * transaction, or "" */
	char	   *insert;			/* what follows COPY, or "" */
	const char *copied_into;	/* name of the table that COPY names */
} Target;

/* in target.c */
extern char *next_name(const char **next, const char *option);
extern int	name_position(const char *list, const char *name, const char *option);
extern Target *target_look_up(PGconn *conn, const LoadOptions *options);
extern void target_probe(PGconn *conn, const Target *target,
						 const Reader *reader);
extern int64 target_error_line(const Target *target, const char *context);
extern char *target_fix_context(const Target *target, const char *context, int64 line);

/* A chunk that the ledger has. */
typedef struct LedgerEntry
{
	int64		start;
	int64		bytes;
	int64		records;
	int64		rejected;
	uint64		hash;
} LedgerEntry;

typedef struct Reject
{
	struct Reject *next;
	int64		line;
	char		sqlstate[6];
	char	   *message;
	const char *data;			/* in the chunk */
	size_t		size;
} Reject;

typedef struct Job
{
	char	   *name;
	char	   *jobs;			/* qualified names of its tables */
	char	   *chunks;
	char	   *rejects;
	LedgerEntry *entries;		/* by their start */
	int64		nentries;
	int64		checked;		/* how many the input has been compared with */
	bool		finished;
	int64		records;		/* of all entries */
	int64		rejected;
} Job;

/* in job.c */
extern Job *job_open(PGconn *conn, const LoadOptions *options,
					 const Target *target, Reader *reader);
extern bool job_has(Job *job, const Chunk *chunk);
extern bool job_holds(const Job *job);
extern void job_check_end(const Job *job);
extern void job_append_entry(PQExpBuffer sql, PGconn *conn, const Job *job,
							 const Chunk *chunk, const Reject *rejects);
extern void job_append_question(PQExpBuffer sql, PGconn *conn, const Job *job,
								const Chunk *chunk);
extern void job_finish(PGconn *conn, const Job *job, int64 bytes);

/* The files of refused rows. */
typedef struct Rejects
{
	const LoadOptions *options;
	FILE	   *records;
	FILE	   *errors;
	char	   *errors_path;
	int64		count;			/* those of earlier runs and of chunks that
								 * are not yet committed included */
} Rejects;

/* in rejects.c */
extern Rejects *rejects_open(const LoadOptions *options, const Reader *reader);
extern void rejects_reload(Rejects *rejects, PGconn *conn, const Job *job);
extern void rejects_write(Rejects *rejects, const Chunk *chunk, const Reject *list);
extern void rejects_close(Rejects *rejects);

/* The search of a chunk for rows that the server refuses. */
typedef struct Pieces
{
	RecordIndex *index;
	int64	   *ends;			/* a stack: where pieces yet to be loaded end */
	int			nends;
	int			allocated;
	int64		from;			/* the piece that is being loaded */
	int64		to;
	int64		limit;			/* records of a piece at most */
	Reject	   *rejects;
	Reject	  **last;
	int64		count;			/* of rejects */
	int64		loaded;			/* rows */
	bool		begun;			/* has there been one? */
	bool		failed;			/* ... and did the last one fail? */
} Pieces;

/* in pieces.c */
extern Pieces *pieces_begin(const Cutter *cutter, const Chunk *chunk);
extern bool pieces_next(Pieces *pieces);
extern bool pieces_failed(Pieces *pieces, const Cutter *cutter,
						  const Chunk *chunk, const Outcome *outcome,
						  int64 copy_line);
extern Segment pieces_segment(const Pieces *pieces, const Chunk *chunk);
extern void pieces_loaded(Pieces *pieces, int64 rows);
extern void pieces_free(Pieces *pieces);

/* Neighbouring regions that are committed, or one that is in part. */
typedef struct Range
{
	int64		first_region;
	int64		last_region;
	int			missing;		/* chunks that are not committed */
	const char *first_file;
	const char *last_file;
	int64		first_line;
	int64		last_line;
} Range;

typedef struct Progress
{
	const LoadOptions *options;
	struct timespec begun;
	double		last;			/* seconds after that when it was last shown */
	double		every;			/* seconds */
	bool		bar;			/* on a terminal? */
	Range	   *ranges;			/* ordered */
	int			nranges;
	int			allocated;
	int64		rows;			/* loaded by this run */
	int64		skipped;		/* ... that were not, because of a conflict */
	int64		rejected;
	int64		earlier;		/* records that earlier runs have loaded */
	int64		chunks;
	int64		bytes;			/* of chunks that are done, earlier or now */
	int64		loaded_bytes;	/* of those of this run */
} Progress;

/* in progress.c */
extern void progress_begin(Progress *progress, const LoadOptions *options);
extern double progress_seconds(const Progress *progress);
extern void progress_committed(Progress *progress, const Chunk *chunk);
extern void progress_show(Progress *progress, const Reader *reader, int connections);
extern void progress_tell_committed(const Progress *progress, const Job *job);
extern void progress_summary(const Progress *progress, int connections,
							 const char *status, const char *error);

typedef enum WorkerState
{
	WORKER_CLOSED,				/* has no connection */
	WORKER_WAITING,				/* will connect again at retry_at */
	WORKER_CONNECTING,
	WORKER_SETTING_UP,
	WORKER_IDLE,
	WORKER_ASKING,				/* is the chunk in the ledger? */
	WORKER_LOADING,				/* the whole chunk */
	WORKER_LOADING_PIECE,
	WORKER_COMMITTING,			/* a chunk that was loaded in pieces */
	WORKER_ROLLING_BACK,		/* the same, in vain */
	WORKER_GONE					/* gave up connecting */
} WorkerState;

typedef struct Worker
{
	int			number;
	WorkerState state;
	Connection	connection;
	Chunk	   *chunk;
	Pieces	   *pieces;
	int			failures;		/* to connect, in a row */
	double		retry_at;
	Outcome    *failure;		/* to be told if the ledger does not have the
								 * chunk, or NULL */
} Worker;

/* All that the main loop has. */
typedef struct Loader
{
	LoadOptions *options;
	Target	   *target;
	Reader	   *reader;
	Job		   *job;			/* or NULL */
	Rejects    *rejects;		/* or NULL */
	Progress	progress;
	Worker	   *workers;
	int			nworkers;
	Chunk	   *ready;			/* to be loaded, by their number */
	int			nready;
	bool		stopping;		/* no chunk is begun any more */
	int			status;			/* exit status */
	char	   *error;			/* the first one's message, for --json */
	double		last_contact;	/* when there was a connection */
	int			most_connections;
} Loader;

/* in worker.c */
extern void worker_connect(Loader *loader, Worker *worker);
extern void worker_take(Loader *loader, Worker *worker, Chunk *chunk);
extern void worker_advance(Loader *loader, Worker *worker, short events);
extern bool worker_is_busy(const Worker *worker);
extern bool worker_is_connected(const Worker *worker);
extern void worker_cancel(Worker *worker);

/* in loader.c */
extern Loader *loader_make(LoadOptions *options, Target *target, Reader *reader,
						   Job *job, Rejects *rejects, PGconn *conn, int jobs);
extern void loader_run(Loader *loader);
extern void loader_put_back(Loader *loader, Chunk *chunk);
extern void loader_done(Loader *loader, Chunk *chunk, int64 rows,
						const Reject *rejects, int64 nrejects);
extern void loader_done_earlier(Loader *loader, Chunk *chunk);
extern void loader_stop(Loader *loader, int status, const char *message);
extern double loader_now(const Loader *loader);

#endif							/* SHARD_LOAD_H */
