/*
 * libpq in pipeline mode: statements are sent before the results of those
 * before have come, up to a sync, and an error skips the rest of its pipeline.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

static PGconn *conn;

static void
fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, PQerrorMessage(conn));
	exit(1);
}

/* Run commands without a pipeline. */
static PGresult *
run(const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK &&
		PQresultStatus(result) != PGRES_TUPLES_OK)
		fail(sql);
	return result;
}

/* Send a statement that has been prepared, with up to two parameters. */
static void
send(const char *name, const char *first, const char *second)
{
	const char *values[] = {first, second};

	if (!PQsendQueryPrepared(conn, name, first == NULL ? 0 : second == NULL ? 1 : 2,
							 values, NULL, NULL, 0))
		fail(name);
}

static void
prepare(const char *name, const char *sql)
{
	if (!PQsendPrepare(conn, name, sql, 0, NULL))
		fail(name);
}

static void
sync_pipeline(void)
{
	if (!PQpipelineSync(conn))
		fail("sync");
}

/* The next result of a pipeline, and the NULL that ends a statement's. */
static PGresult *
next(void)
{
	PGresult   *result = PQgetResult(conn);

	if (result == NULL)
		fail("no result");
	if (PQresultStatus(result) != PGRES_PIPELINE_SYNC && PQgetResult(conn) != NULL)
		fail("more than one result");
	return result;
}

static void
expect(ExecStatusType status)
{
	PGresult   *result = next();

	if (PQresultStatus(result) != status)
		fail(PQresStatus(PQresultStatus(result)));
	PQclear(result);
}

/* The SQLSTATE of a transaction that has inserted a row before. */
static void
print_state(const char *what, const char *sql)
{
	PGresult   *result;

	PQsendQueryParams(conn, "INSERT INTO event (what) VALUES ('gone')",
					  0, NULL, NULL, NULL, NULL, 0);
	PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0);
	PQsendQueryParams(conn, "INSERT INTO event (what) VALUES ('gone')",
					  0, NULL, NULL, NULL, NULL, 0);
	sync_pipeline();
	expect(PGRES_COMMAND_OK);
	result = next();
	printf("%s: %s\n", what, PQresultErrorField(result, PG_DIAG_SQLSTATE));
	PQclear(result);
	expect(PGRES_PIPELINE_ABORTED);
	expect(PGRES_PIPELINE_SYNC);
}

int
main(int argc, char **argv)
{
	char		tables[10000];
	char		ids[101][32];
	char		key[32];
	char		price[32];
	int			total = 0;
	int			fetched = 0;
	int			changed;
	PGresult   *result;
	FILE	   *file = argc == 2 ? fopen(argv[1], "r") : NULL;

	if (file == NULL)
		fail("no file");
	tables[fread(tables, 1, sizeof(tables) - 1, file)] = '\0';
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		fail("cannot connect");
	PQclear(run(tables));

	if (!PQenterPipelineMode(conn))
		fail("no pipeline");
	prepare("add", "INSERT INTO event (what) VALUES ($1) RETURNING id");
	prepare("note", "INSERT INTO seen VALUES ($1)");
	prepare("upsert", "INSERT INTO price VALUES ($1, $2)"
			" ON CONFLICT (product) DO UPDATE SET price = excluded.price");
	prepare("by_key", "SELECT price FROM price WHERE product = $1");
	sync_pipeline();
	for (int i = 0; i < 4; i++)
		expect(PGRES_COMMAND_OK);
	expect(PGRES_PIPELINE_SYNC);

	send("add", "one", NULL);
	for (int i = 1; i <= 100; i++)
	{
		snprintf(key, sizeof(key), "batch %d", i);
		send("add", key, NULL);
	}
	sync_pipeline();
	for (int i = 0; i <= 100; i++)
	{
		result = next();
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			fail("add");
		snprintf(ids[i], sizeof(ids[i]), "%s", PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	expect(PGRES_PIPELINE_SYNC);

	for (int i = 0; i <= 100; i++)
		send("note", ids[i], NULL);
	for (int i = 1; i <= 50; i++)
	{
		snprintf(key, sizeof(key), "p%d", i);
		snprintf(price, sizeof(price), "%d", i);
		send("upsert", key, price);
	}
	for (int i = 41; i <= 60; i++)
	{
		snprintf(key, sizeof(key), "p%d", i);
		snprintf(price, sizeof(price), "%d", 1000 + i);
		send("upsert", key, price);
	}
	for (int i = 1; i <= 60; i++)
	{
		snprintf(key, sizeof(key), "p%d", i);
		send("by_key", key, NULL);
	}
	sync_pipeline();
	for (int i = 0; i < 101 + 50 + 20; i++)
		expect(PGRES_COMMAND_OK);
	for (int i = 1; i <= 60; i++)
	{
		result = next();
		if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
			fail("by_key");
		total += atoi(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	expect(PGRES_PIPELINE_SYNC);
	printf("read: %d\n", total);

	print_state("duplicate", "INSERT INTO price VALUES ('p1', 1)");
	print_state("check", "INSERT INTO price VALUES ('new', 0)");
	print_state("given id", "INSERT INTO event (id, what) VALUES (1, 'mine')");
	if (!PQexitPipelineMode(conn))
		fail("still in a pipeline");

	PQclear(run("BEGIN; DECLARE all_events CURSOR FOR SELECT * FROM event"));
	do
	{
		result = run("FETCH 50 FROM all_events");
		changed = PQntuples(result);
		fetched += changed;
		PQclear(result);
	} while (changed > 0);
	PQclear(run("COMMIT"));
	printf("fetched: %d\n", fetched);

	result = run("UPDATE event SET what = 'changed' WHERE what = 'batch 1'");
	printf("changed: %s", PQcmdTuples(result));
	PQclear(result);
	result = run("DELETE FROM event WHERE what = 'batch 2'");
	printf(" %s\n", PQcmdTuples(result));
	PQclear(result);
	PQfinish(conn);
	return 0;
}
