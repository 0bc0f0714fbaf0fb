/*-------------------------------------------------------------------------
 *
 * key.c
 *	  Which rows of the input belong to the same shards of a hash table.
 *
 * A connection that fills few shards is faster than one that fills all: fewer
 * pages are waited for, and each shard's indexes get more of their new entries
 * at once.  So the rows are sorted into groups by the hash of their key, which
 * is computed as the server does it.  The server finds the shard of each row by
 * itself; where it would have to be known how it reads a value, a guess is good
 * enough here, since a row in the wrong group only takes a little longer.
 *
 *-------------------------------------------------------------------------
 */
#include "shard_load.h"

#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

/* As in catalog/partition.h, which is not for clients. */
#define HASH_PARTITION_SEED UINT64CONST(0x7A5B22367996DCFD)

#define UUID_SIZE 16

/* What is hashed of a record whose key cannot be found. */
#define GUESS_SIZE 256

/* The buffer for a value is kept if it is not larger. */
#define MAX_BUFFER (64 * 1024)

/* A field of a record. */
typedef struct Field
{
	const char *data;
	size_t		size;
	bool		is_null;
	bool		special;		/* has quotes or backslashes */
} Field;

/* What the names of a column's type mean here; NULL if it is of no use. */
static const char *
kind_of(Oid type, bool deterministic, bool converts)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return "integer";
		case UUIDOID:
			return "uuid";
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			/* Only ASCII is the same in all encodings. */
			return !deterministic ? NULL : converts ? "ascii text" : "text";
		default:
			return NULL;
	}
}

/*
 * Which field of the input a column is; -1 if it has none.
 */
static int
field_of(const PGresult *columns, const LoadOptions *options, int column)
{
	if (options->columns)
		return name_position(options->columns, PQgetvalue(columns, column, 0), "--columns");
	return column;
}

/*
 * Note one column of the key.  False: it is not one that can be hashed here.
 */
static bool
add_column(Key *key, PGconn *conn, const LoadOptions *options, const PGresult *columns, const char *name,
		   PQExpBuffer description)
{
	KeyColumn  *column = &key->columns[key->ncolumns];
	const char *kind;
	int			i = 0;

	while (i < PQntuples(columns) && strcmp(PQgetvalue(columns, i, 0), name) != 0)
		i++;
	if (i == PQntuples(columns))
		return false;
	column->type = (Oid) strtoul(PQgetvalue(columns, i, 1), NULL, 10);
	column->field = field_of(columns, options, i);
	column->force_null = options->force_null && name_position(options->force_null, name, "--force-null") >= 0;
	column->force_not_null = options->force_not_null &&
		name_position(options->force_not_null, name, "--force-not-null") >= 0;
	kind = kind_of(column->type, PQgetvalue(columns, i, 2)[0] == 't', key->converts);
	if (column->field < 0 || kind == NULL)
		return false;
	appendPQExpBufferStr(description, key->ncolumns > 0 ? ", " : "(");
	append_identifier(description, conn, name);
	appendPQExpBuffer(description, " %s", kind);
	key->ncolumns++;
	key->nfields = Max(key->nfields, column->field + 1);
	return true;
}

static bool
add_columns(Key *key, PGconn *conn, const LoadOptions *options, const Target *target, const char *names)
{
	PGresult   *columns;
	PQExpBufferData description;
	bool		ok = true;
	char	   *name;

	/* Those that COPY takes, in its order. */
	columns = query(conn,
					"SELECT a.attname, CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END,"
					" coalesce(c.collisdeterministic, true)"
					" FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
					" LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation"
					" WHERE a.attrelid = $1::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped"
					" AND a.attgenerated = '' ORDER BY a.attnum",
					1, (const char *const *) &target->qualified);
	initPQExpBuffer(&description);
	while (ok && (name = next_name(&names, "key")) != NULL)
	{
		ok = key->ncolumns < lengthof(key->columns) &&
			add_column(key, conn, options, columns, name, &description);
		pg_free(name);
	}
	PQclear(columns);
	appendPQExpBufferChar(&description, ')');
	key->description = description.data;
	return ok && key->ncolumns > 0;
}

/*
 * The key of a logical table with route "hash", if its rows are in this
 * encoding; NULL if the table has none, or none that can be hashed here.
 */
Key *
key_look_up(PGconn *conn, const LoadOptions *options, const Target *target, int encoding)
{
	const char *server_encoding = PQparameterStatus(conn, "server_encoding");
	int			other = server_encoding ? pg_char_to_encoding(server_encoding) : -1;
	Key		   *key;
	PGresult   *result;
	bool		ok;

	/* Fields are not looked for where what looks like ASCII need not be. */
	if (!target->is_logical || !PG_VALID_BE_ENCODING(encoding))
		return NULL;
	result = query(conn,
				   "SELECT k.option_value, max(p.modulus) FROM pg_catalog.pg_foreign_table f"
				   " CROSS JOIN LATERAL pg_catalog.pg_options_to_table(f.ftoptions) k"
				   " CROSS JOIN LATERAL shard_fdw.list_shards(f.ftrelid, true) s"
				   " CROSS JOIN LATERAL shard_fdw.place_of(f.ftrelid, f.ftoptions, s.shard) p"
				   " WHERE f.ftrelid = $1::pg_catalog.regclass AND k.option_name = 'key' GROUP BY 1",
				   1, (const char *const *) &target->qualified);
	if (PQntuples(result) == 0 || PQgetisnull(result, 0, 1))
	{
		PQclear(result);
		return NULL;
	}
	key = pg_malloc0(sizeof(Key));
	key->format = options->format;
	key->delimiter = options->delimiter ? options->delimiter[0] : options->format == FORMAT_CSV ? ',' : '\t';
	key->quote = options->quote ? options->quote[0] : '"';
	key->escape = options->escape ? options->escape[0] : key->quote;
	key->null_string = options->null_string ? options->null_string : options->format == FORMAT_CSV ? "" : "\\N";
	key->null_size = strlen(key->null_string);
	key->converts = encoding != other && encoding != PG_SQL_ASCII && other != PG_SQL_ASCII;
	key->modulus = (int) strtol(PQgetvalue(result, 0, 1), NULL, 10);
	ok = add_columns(key, conn, options, target, PQgetvalue(result, 0, 0));
	PQclear(result);
	return ok ? key : NULL;
}

/* The next such character, or the end. */
static const char *
find(char c, const char *at, const char *end)
{
	const char *found = memchr(at, c, end - at);

	return found ? found : end;
}

/*
 * Where a field of text ends that begins at "at".
 */
static const char *
text_end(const Key *key, const char *at, const char *end, Field *field)
{
	const char *delimiter = find(key->delimiter, at, end);

	/* A backslash makes data of a delimiter. */
	while ((at = find('\\', at, delimiter)) < delimiter)
	{
		field->special = true;
		at += 2;
		if (at > delimiter)
			delimiter = find(key->delimiter, Min(at, end), end);
		at = Min(at, delimiter);
	}
	return delimiter;
}

/*
 * The same for csv.
 */
static const char *
csv_end(const Key *key, const char *at, const char *end, Field *field)
{
	const char *delimiter = find(key->delimiter, at, end);
	bool		in_quote = false;

	/* Most fields have no quotes, or begin with one. */
	at = find(key->quote, at, delimiter);
	if (at == delimiter)
		return delimiter;
	for (field->special = true; at < end; at++)
	{
		if (in_quote && key->escape == key->quote)
		{
			/* A quote in a field is a pair of them. */
			at = find(key->quote, at, end);
			in_quote = false;
		}
		else if (in_quote && *at == key->escape && at + 1 < end && (at[1] == key->escape || at[1] == key->quote))
			at++;
		else if (*at == key->quote)
			in_quote = !in_quote;
		else if (!in_quote && *at == key->delimiter)
			break;
	}
	return Min(at, end);
}

/* What a hexadecimal digit means; -1 if it is none. */
static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * The byte that a backslash in text stands for; "at", behind the backslash, is
 * moved behind all of it.
 */
static char
unescape(const char **at, const char *end)
{
	static const char letters[] = "bfnrtv";
	static const char meanings[] = "\b\f\n\r\t\v";
	const char *p = *at;
	char		c = *p++;
	const char *letter = c ? strchr(letters, c) : NULL;
	int			value = 0;

	if (c >= '0' && c <= '7')
	{
		for (p--; p < end && p < *at + 3 && *p >= '0' && *p <= '7'; p++)
			value = value * 8 + (*p - '0');
		c = (char) value;
	}
	else if (c == 'x' && p < end && hex_value(*p) >= 0)
	{
		for (; p < end && p < *at + 3 && hex_value(*p) >= 0; p++)
			value = value * 16 + hex_value(*p);
		c = (char) value;
	}
	else if (letter)
		c = meanings[letter - letters];
	*at = p;
	return c;
}

/*
 * Make the value of a field that has backslashes or quotes, in key->buffer.
 */
static void
decode(Key *key, Field *field)
{
	const char *at = field->data;
	const char *end = at + field->size;
	bool		in_quote = false;
	char	   *to;

	/* Mostly there is one quote at either end, and that is all. */
	if (key->format == FORMAT_CSV && field->size >= 2 && *at == key->quote && end[-1] == key->quote &&
		memchr(at + 1, key->quote, field->size - 2) == NULL && memchr(at + 1, key->escape, field->size - 2) == NULL)
	{
		field->data++;
		field->size -= 2;
		return;
	}
	if (key->allocated < field->size)
	{
		key->allocated = field->size + 1024;
		key->buffer = pg_realloc(key->buffer, key->allocated);
	}
	to = key->buffer;
	while (at < end)
	{
		char		c = *at++;

		if (key->format == FORMAT_TEXT)
		{
			if (c == '\\' && at < end)
				c = unescape(&at, end);
		}
		else if (in_quote && c == key->escape && at < end && (*at == key->escape || *at == key->quote))
			c = *at++;
		else if (c == key->quote)
		{
			in_quote = !in_quote;
			continue;
		}
		*to++ = c;
	}
	field->data = key->buffer;
	field->size = to - key->buffer;
}

static bool
is_null_string(const Key *key, const Field *field)
{
	return field->size == key->null_size && memcmp(field->data, key->null_string, key->null_size) == 0;
}

/*
 * A field of text or csv has been found.  See what value it is.
 */
static void
interpret(Key *key, const KeyColumn *column, Field *field)
{
	bool		quoted = key->format == FORMAT_CSV && field->special;

	if (!quoted && !column->force_not_null && is_null_string(key, field))
		field->is_null = true;
	else if (field->special)
	{
		decode(key, field);
		field->is_null = quoted && column->force_null && is_null_string(key, field);
	}
}

/*
 * An integer as its input function reads it, but for what few write.
 */
static bool
parse_integer(const char *at, size_t size, int64 *result)
{
	const char *end = at + size;
	bool		negative = false;
	uint64		value = 0;
	int			digits = 0;

	while (at < end && isspace((unsigned char) *at))
		at++;
	if (at < end && (*at == '-' || *at == '+'))
		negative = *at++ == '-';
	/* So many digits cannot be too many. */
	for (; at < end && isdigit((unsigned char) *at) && digits < 19; at++, digits++)
		value = value * 10 + (*at - '0');
	while (at < end && isspace((unsigned char) *at))
		at++;
	*result = (int64) (negative ? 0 - value : value);
	return digits > 0 && at == end && value <= (uint64) PG_INT64_MAX + negative;
}

static bool
parse_uuid(const char *at, size_t size, unsigned char *uuid)
{
	const char *end = at + size;
	int			digits = 0;

	for (; at < end; at++)
	{
		int			value = hex_value(*at);

		if (value >= 0 && digits < 2 * UUID_SIZE)
		{
			uuid[digits / 2] = (unsigned char) (uuid[digits / 2] << 4 | value);
			digits++;
		}
		else if (*at != '-' && *at != '{' && *at != '}')
			return false;
	}
	return digits == 2 * UUID_SIZE;
}

static bool
binary_integer(Oid type, const char *data, size_t size, int64 *result)
{
	uint16		n16;
	uint32		n32;
	uint64		n64;

	if (size != (type == INT2OID ? 2 : type == INT4OID ? 4 : 8))
		return false;
	switch (size)
	{
		case 2:
			memcpy(&n16, data, sizeof(n16));
			*result = (int16) pg_ntoh16(n16);
			break;
		case 4:
			memcpy(&n32, data, sizeof(n32));
			*result = (int32) pg_ntoh32(n32);
			break;
		default:
			memcpy(&n64, data, sizeof(n64));
			*result = (int64) pg_ntoh64(n64);
			break;
	}
	return true;
}

/* As hashint8extended(), which agrees with those of the shorter types. */
static uint64
hash_integer(int64 value)
{
	uint32		low = (uint32) value;
	uint32		high = (uint32) (value >> 32);

	return hash_bytes_uint32_extended(low ^ (value >= 0 ? high : ~high), HASH_PARTITION_SEED);
}

static bool
has_high_bit(const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
	{
		if (IS_HIGHBIT_SET(data[i]))
			return true;
	}
	return false;
}

/*
 * Hash a value that is not null as the server does.  False: that is not
 * possible.
 */
static bool
hash_value(const Key *key, Oid type, const Field *field, uint64 *hash)
{
	size_t		size = field->size;
	unsigned char uuid[UUID_SIZE] = {0};
	int64		integer = 0;

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			if (key->format == FORMAT_BINARY ? !binary_integer(type, field->data, size, &integer) :
				!parse_integer(field->data, size, &integer))
				return false;
			*hash = hash_integer(integer);
			return true;
		case UUIDOID:
			if (key->format == FORMAT_BINARY && size == UUID_SIZE)
				memcpy(uuid, field->data, UUID_SIZE);
			else if (key->format == FORMAT_BINARY || !parse_uuid(field->data, size, uuid))
				return false;
			*hash = hash_bytes_extended(uuid, UUID_SIZE, HASH_PARTITION_SEED);
			return true;
		default:
			if (key->converts && has_high_bit(field->data, size))
				return false;
			while (type == BPCHAROID && size > 0 && field->data[size - 1] == ' ')
				size--;
			*hash = hash_bytes_extended((const unsigned char *) field->data, (int) size, HASH_PARTITION_SEED);
			return true;
	}
}

/*
 * The next field of a record of binary data.  False: there is none.
 */
static bool
binary_field(const char **at, const char *end, Field *field)
{
	uint32		n32;
	int32		size;

	if (end - *at < (ptrdiff_t) sizeof(n32))
		return false;
	memcpy(&n32, *at, sizeof(n32));
	size = (int32) pg_ntoh32(n32);
	field->data = *at + sizeof(n32);
	field->is_null = size < 0;
	field->size = Max(size, 0);
	*at = field->data + field->size;
	return true;
}

/*
 * The next field of any record.  False: there is none.
 */
static bool
next_field(const Key *key, const char **at, const char *end, Field *field)
{
	memset(field, 0, sizeof(*field));
	if (key->format == FORMAT_BINARY)
		return binary_field(at, end, field);
	/* Behind the last one there is no delimiter. */
	if (*at > end)
		return false;
	field->data = *at;
	*at = key->format == FORMAT_CSV ? csv_end(key, *at, end, field) : text_end(key, *at, end, field);
	field->size = *at - field->data;
	(*at)++;
	return true;
}

/*
 * Hash the key of a record.  False: that is not possible.
 */
static bool
hash_record(Key *key, const char *data, size_t size, uint64 *hash)
{
	const char *at = data;
	const char *end = data + size;
	uint64		hashes[lengthof(key->columns)] = {0};
	bool		nulls[lengthof(key->columns)] = {0};

	if (key->format == FORMAT_BINARY)
		at += sizeof(uint16);
	else
	{
		if (end > at && end[-1] == '\n')
			end--;
		if (end > at && end[-1] == '\r')
			end--;
	}
	for (int i = 0; i < key->nfields; i++)
	{
		Field		field;

		if (!next_field(key, &at, end, &field))
			return false;
		for (int j = 0; j < key->ncolumns; j++)
		{
			const KeyColumn *column = &key->columns[j];

			if (column->field != i)
				continue;
			if (key->format != FORMAT_BINARY)
				interpret(key, column, &field);
			nulls[j] = field.is_null;
			if (!nulls[j] && !hash_value(key, column->type, &field, &hashes[j]))
				return false;
		}
	}
	*hash = 0;
	for (int j = 0; j < key->ncolumns; j++)
	{
		/* As compute_partition_hash_value(). */
		if (!nulls[j])
			*hash = hash_combine64(*hash, hashes[j]);
	}
	return true;
}

/*
 * Which group, from 0 on, a record is of.  The rows of a shard are of one group
 * unless the shard holds more hashes than others.
 */
int
key_group(Key *key, const char *data, size_t size, int groups)
{
	uint64		hash;
	bool		found = hash_record(key, data, size, &hash);

	if (key->allocated > MAX_BUFFER)
	{
		pg_free(key->buffer);
		key->buffer = NULL;
		key->allocated = 0;
	}
	if (found)
		return (int) (hash % key->modulus % groups);
	return (int) (hash_bytes((const unsigned char *) data, (int) Min(size, GUESS_SIZE)) % groups);
}
