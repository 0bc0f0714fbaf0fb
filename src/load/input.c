/*-------------------------------------------------------------------------
 *
 * input.c
 *	  One file, or standard input.
 *
 * Compressed files are read through the system's programs.  The program gets
 * the file as its standard input, so the position of our descriptor tells how
 * far it has read.
 *
 * Regular files are opened twice: once to see that all are there and have the
 * right header, before anything is loaded, and again when their turn comes.
 * Others, which give their data only once, stay open in between.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

/* The exit status of the child if there is no such program. */
#define STATUS_NOT_FOUND 127

/* What a header takes at most. */
#define MAX_HEADER (16 * 1024 * 1024)

static const struct
{
	const char *name;
	const char *suffix;
}			programs[] =

{
	{"gzip", ".gz"},
	{"zstd", ".zst"},
	{"lz4", ".lz4"},
};

/*
 * Is this a program that decompresses?
 */
bool
input_is_program(const char *name)
{
	for (int i = 0; i < lengthof(programs); i++)
	{
		if (strcmp(programs[i].name, name) == 0)
			return true;
	}
	return false;
}

static const char *
program_by_suffix(const char *path)
{
	size_t		length = strlen(path);

	for (int i = 0; i < lengthof(programs); i++)
	{
		size_t		suffix = strlen(programs[i].suffix);

		if (length > suffix && strcmp(path + length - suffix, programs[i].suffix) == 0)
			return programs[i].name;
	}
	return NULL;
}

/*
 * Make an input of a path; it is not opened yet.
 */
Input *
input_make(const LoadOptions *options, const char *path)
{
	Input	   *input = pg_malloc0(sizeof(Input));

	input->path = path;
	input->name = strcmp(path, "-") == 0 ? "standard input" : path;
	input->file = input->fd = -1;
	if (options->compression == NULL)
		input->program = program_by_suffix(path);
	else if (strcmp(options->compression, "none") != 0)
		input->program = options->compression;
	return input;
}

static void
open_file(Input *input)
{
	struct stat st;

	if (strcmp(input->path, "-") == 0)
		input->file = STDIN_FILENO;
	else
		input->file = open(input->path, O_RDONLY | O_CLOEXEC, 0);
	if (input->file < 0)
		pg_fatal("could not open file \"%s\": %m", input->name);
	if (fstat(input->file, &st) != 0)
		pg_fatal("could not read file \"%s\": %m", input->name);
	if (S_ISDIR(st.st_mode))
		pg_fatal("could not read file \"%s\": it is a directory", input->name);
	input->is_regular = S_ISREG(st.st_mode) && input->file != STDIN_FILENO;
	input->file_size = S_ISREG(st.st_mode) ? st.st_size : 0;
}

/*
 * Start the program that decompresses the file.
 */
static void
start_program(Input *input)
{
	int			ends[2];

	if (pipe(ends) != 0)
		pg_fatal("could not create a pipe: %m");
	fflush(NULL);
	input->child = fork();
	if (input->child < 0)
		pg_fatal("could not start a process: %m");
	if (input->child == 0)
	{
		/* An interrupt is for us; we stop reading. */
		signal(SIGINT, SIG_IGN);
		signal(SIGPIPE, SIG_DFL);
		if ((input->file == STDIN_FILENO || dup2(input->file, STDIN_FILENO) >= 0) &&
			dup2(ends[1], STDOUT_FILENO) >= 0)
		{
			close(ends[0]);
			close(ends[1]);
			execlp(input->program, input->program, "-dc", (char *) NULL);
		}
		_exit(STATUS_NOT_FOUND);
	}
	close(ends[1]);
	input->fd = ends[0];
	(void) fcntl(input->fd, F_SETFD, FD_CLOEXEC);
}

/*
 * The data have come to an end.  Was that the end of what is in the file?
 */
static void
check_program(Input *input)
{
	int			status;

	while (waitpid(input->child, &status, 0) < 0)
	{
		if (errno != EINTR)
			pg_fatal("could not wait for program \"%s\": %m", input->program);
	}
	input->child = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NOT_FOUND)
	{
		pg_log_error("could not decompress \"%s\": could not run program \"%s\"", input->name, input->program);
		pg_log_error_hint("Install \"%s\", or decompress the file in another way.", input->program);
		exit(EXIT_OWN_ERROR);
	}
	if (status != 0)
		pg_fatal("could not decompress \"%s\": %s", input->name, wait_result_to_str(status));
}

/*
 * Read some bytes; 0 is the end.  Fails if that is not the end of the file.
 */
size_t
input_read(Input *input, char *buffer, size_t size)
{
	ssize_t		got;

	if (input->rest_size > 0)
	{
		got = Min(size, input->rest_size);
		memcpy(buffer, input->rest, got);
		input->rest_size -= got;
		memmove(input->rest, input->rest + got, input->rest_size);
		return got;
	}
	if (input->at_end)
		return 0;
	do
	{
		got = read(input->fd, buffer, size);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		pg_fatal("could not read file \"%s\": %m", input->name);
	if (got == 0)
	{
		input->at_end = true;
		if (input->child)
			check_program(input);
	}
	return got;
}

static void
not_binary(const Input *input)
{
	pg_fatal("file \"%s\" is not one of COPY in binary format", input->name);
}

/*
 * Where the file's own data begin in its prefix, or -1 if more of it is needed.
 */
static int64
prefix_end(Input *input, const LoadOptions *options, Cutter *cutter,
		   const char *data, size_t size)
{
	size_t		start = 0;

	if (options->format == FORMAT_BINARY)
	{
		uint32		extension;

		if (size < BINARY_HEADER_SIZE)
		{
			if (input->at_end)
				not_binary(input);
			return -1;
		}
		if (memcmp(data, BINARY_HEADER, 11) != 0)
			not_binary(input);
		memcpy(&extension, data + 15, sizeof(extension));
		extension = pg_ntoh32(extension);
		if (extension > MAX_HEADER || (input->at_end && size < BINARY_HEADER_SIZE + extension))
			not_binary(input);
		return size >= BINARY_HEADER_SIZE + extension ? BINARY_HEADER_SIZE + extension : -1;
	}

	if (size < 3 && !input->at_end)
		return -1;
	if (size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0)
		start = 3;
	cutter->record = cutter->pos = start;
	cutter->lines = 0;
	input->header_start = start;
	input->header_lines = 0;
	if (options->header == HEADER_NONE)
		return start;
	switch (cut_record(cutter, data, size, input->at_end))
	{
		case CUT_RECORD:
			input->header_lines = cutter->lines;
			return cutter->pos;
		case CUT_MORE:
			return input->at_end ? start : -1;
		default:
			return start;
	}
}

/*
 * Open a file if it is not open, and read its prefix: a byte order mark, the
 * header line, the header of binary data.  "cutter" comes to know how its lines
 * end if there is a header.
 */
void
input_begin(Input *input, const LoadOptions *options, Cutter *cutter)
{
	size_t		allocated = 8192;
	size_t		size = 0;
	char	   *data;
	int64		end;

	if (input->fd >= 0)
		return;
	open_file(input);
	if (input->program)
		start_program(input);
	else
		input->fd = input->file;

	data = pg_malloc(allocated);
	while ((end = prefix_end(input, options, cutter, data, size)) < 0)
	{
		if (size == allocated)
		{
			if (size > MAX_HEADER)
				pg_fatal("header of file \"%s\" is too long", input->name);
			allocated *= 2;
			data = pg_realloc(data, allocated);
		}
		size += input_read(input, data + size, allocated - size);
	}
	pg_free(input->prefix);
	pg_free(input->rest);
	input->prefix = data;
	input->prefix_size = end;
	input->rest_size = size - end;
	input->rest = pg_malloc(input->rest_size + 1);
	memcpy(input->rest, data + end, input->rest_size);
}

/*
 * Close a file, which need not have been read to its end.
 */
void
input_close(Input *input)
{
	if (input->fd < 0)
		return;
	if (input->fd != input->file)
		close(input->fd);
	if (input->child)
	{
		/* It may still be writing to nobody. */
		kill(input->child, SIGTERM);
		(void) waitpid(input->child, NULL, 0);
		input->child = 0;
	}
	if (input->file != STDIN_FILENO)
		close(input->file);
	input->file = input->fd = -1;
	input->at_end = false;
	input->rest_size = 0;
}

/*
 * How far a regular file has been read.
 */
int64
input_position(const Input *input)
{
	off_t		position = input->file >= 0 ? lseek(input->file, 0, SEEK_CUR) : 0;

	return Max(position, 0);
}
