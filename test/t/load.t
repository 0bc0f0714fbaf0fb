# Many clients at once: every row arrives, sessions spread evenly, and nothing
# is left behind.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('load');
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE log (id bigserial, client int, n int)
	  SERVER shards OPTIONS (shards '8');
	CREATE FOREIGN TABLE rr (client int, n int)
	  SERVER shards OPTIONS (shards '8', route 'round_robin');
	CREATE FOREIGN TABLE bulk (client int, n int)
	  SERVER shards OPTIONS (shards '8', route 'round_robin');
	-- smallest and greatest number of sessions of a shard
	CREATE VIEW balance AS
	SELECT min(sessions), max(sessions), sum(sessions)
	  FROM shard_fdw.shards WHERE logical = 'log'::regclass;
});

# Every client inserts once and then waits at the gate, so that all of them
# hold a lease at the same time.
my $gate = $node->background_psql('postgres');
my $script = q{
INSERT INTO log (client, n) VALUES (:client_id, 1);
SELECT pg_advisory_xact_lock_shared(4711);
};

foreach my $case ([ 32, '4|4|32', 60 ], [ 21, '2|3|21', 20 ], [ 5, '0|1|5', 20 ])
{
	my ($clients, $balance, $each) = @$case;

	$gate->query_safe('SELECT pg_advisory_lock(4711)');
	$node->safe_psql('postgres', 'TRUNCATE log');
	my $bench = pgbench_start($node, $script, '-c', $clients, '-j', '4',
		'-t', $each, '-M', 'prepared');
	poll_ok($node, "SELECT sum = $clients FROM balance",
		"$clients clients lease a shard each");
	is($node->safe_psql('postgres', 'SELECT * FROM balance'),
		$balance, "$clients clients: shards differ by one at most");
	is( $node->safe_psql('postgres', q{
			SELECT count(DISTINCT (shard, level)) = count(*), max(level)
			  FROM shard_fdw.leases}),
		't|' . (int(($clients + 7) / 8) - 1),
		"$clients clients: no level is left out");
	$gate->query_safe('SELECT pg_advisory_unlock(4711)');

	# They go on with the shard they have.
	is(pgbench_ok($bench, "$clients clients"),
		$clients * $each, "$clients clients: all transactions");
	is( $node->safe_psql('postgres', q{
			SELECT count(*), count(DISTINCT client), count(DISTINCT id),
			       count(DISTINCT (client, tableoid)) FROM log}),
		join('|', $clients * $each, $clients, $clients * $each, $clients),
		"$clients clients: a row for every transaction, a shard for every client");
	poll_ok($node, 'SELECT sum = 0 FROM balance',
		"$clients clients: no lease is left");
}
$gate->quit;

# Round robin: each client's rows are even, so are all of them.

foreach my $mode ('simple', 'extended', 'prepared')
{
	$node->safe_psql('postgres', 'TRUNCATE rr');
	my $done = pgbench_run($node, "round robin, $mode",
		'INSERT INTO rr VALUES (:client_id, 1);',
		'-c', '32', '-j', '4', '-t', '25', '-M', $mode);
	is( $node->safe_psql('postgres', q{
			SELECT count(*), count(DISTINCT tableoid) FROM rr}),
		"$done|8", "round robin, $mode: a row for every transaction");
	is( $node->safe_psql('postgres', q{
			SELECT max(n), min(n) FROM
			  (SELECT client, tableoid, count(*) AS n FROM rr GROUP BY 1, 2) c}),
		'4|3', "round robin, $mode: even for every client");
	cmp_ok(
		$node->safe_psql('postgres', q{
			SELECT max(n) - min(n) FROM
			  (SELECT count(*) AS n FROM rr GROUP BY tableoid) c}),
		'<=', 32, "round robin, $mode: even in all");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
	'0', 'round robin leases nothing');

# Statements of many rows, and rollbacks.

my $done = pgbench_run($node, 'bulk', q{
BEGIN;
INSERT INTO bulk SELECT :client_id, g FROM generate_series(1, 50) g;
SAVEPOINT s;
INSERT INTO bulk SELECT -1, g FROM generate_series(1, 10) g;
ROLLBACK TO s;
INSERT INTO bulk VALUES (:client_id, 51), (:client_id, 52), (:client_id, 53);
COMMIT;
}, '-c', '16', '-j', '4', '-t', '20');
is( $node->safe_psql('postgres', q{
		SELECT count(*), sum(n), count(DISTINCT tableoid), min(client) FROM bulk}),
	join('|', $done * 53, $done * 53 * 54 / 2, 8, 0),
	'bulk: all rows of what was committed, no other');

# Get or insert, as docs/reference.md has it: 8 clients want the row of the
# current second, each 100 times a second, and as often as they can.  "spent"
# counts the numbers that were drawn for rows.

my %get_or_insert = (
	'DO NOTHING' => q{
WITH val (k) AS (VALUES (extract(epoch FROM clock_timestamp())::bigint)),
     select_attempt AS (SELECT keys.* FROM keys JOIN val USING (k)),
     inserted AS (INSERT INTO keys SELECT k, nextval('spent') FROM val
                   WHERE NOT EXISTS (SELECT FROM select_attempt)
                  ON CONFLICT DO NOTHING RETURNING *)
SELECT * FROM select_attempt UNION ALL SELECT * FROM inserted;
},
	# Fails if there is no row.
	'DO UPDATE' => q{
WITH val (k) AS (VALUES (extract(epoch FROM clock_timestamp())::bigint)),
     select_attempt AS (SELECT keys.* FROM keys JOIN val USING (k)),
     inserted AS (INSERT INTO keys SELECT k, nextval('spent') FROM val
                   WHERE NOT EXISTS (SELECT FROM select_attempt)
                  ON CONFLICT (k) DO UPDATE SET k = EXCLUDED.k RETURNING *)
SELECT 1 / count(*) FROM (SELECT * FROM select_attempt UNION ALL SELECT * FROM inserted) r;
});
my $seconds = 30;

$node->safe_psql('postgres', q{
	CREATE TABLE keys_model (k bigint PRIMARY KEY, n bigint);
	CREATE SEQUENCE spent;
	CREATE FOREIGN TABLE keys (k bigint, n bigint)
	  SERVER shards OPTIONS (shards '4', route 'hash', key 'k', template 'keys_model');
	ALTER DATABASE postgres SET session_preload_libraries = 'shard_fdw';
});
foreach my $form (sort keys %get_or_insert)
{
	foreach my $rate ([ '100 a second', '-R', '800' ], ['full speed'])
	{
		my ($pace, @options) = @$rate;
		my $name = "get or insert, $form, $pace";

		$node->safe_psql('postgres', 'TRUNCATE keys; ALTER SEQUENCE spent RESTART');
		pgbench_run($node, $name, $get_or_insert{$form}, '-c', '8', '-j', '4',
			'-T', $seconds, '-M', 'prepared', @options);
		is( $node->safe_psql('postgres', qq{
				SELECT count(*) > 1, count(*) <= max(k) - min(k) + 1,
				       count(*) = count(DISTINCT k), count(*) = count(DISTINCT n) FROM keys}),
			't|t|t|t', "$name: one row for every key");
		# A busy machine may leave seconds out; all clients may want a new one.
		is( $node->safe_psql('postgres',
				'SELECT last_value <= 8 * (SELECT count(*) FROM keys) FROM spent'),
			't', "$name: no number is spent when the row exists");
	}
}
# Upserts that count: none is lost.

$node->safe_psql('postgres', 'TRUNCATE keys');
$done = pgbench_run($node, 'upsert', q{
\set k random(1, 20)
INSERT INTO keys VALUES (:k, 1) ON CONFLICT (k) DO UPDATE SET n = keys.n + EXCLUDED.n;
}, '-c', '8', '-j', '4', '-t', '500', '-M', 'prepared', '--max-tries', '1');
is($node->safe_psql('postgres', 'SELECT sum(n), count(*), count(DISTINCT k) FROM keys'),
	"$done|20|20", 'upsert: no update is lost, one row for every key');
$node->safe_psql('postgres',
	'ALTER DATABASE postgres RESET session_preload_libraries');

# Several sessions dequeue: each row is given out once, and nobody waits.

$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE jobs (id int, v text)
	  SERVER shards OPTIONS (shards '4', route 'round_robin');
	CREATE TABLE taken (id int);
	INSERT INTO jobs SELECT g, repeat('x', g % 100) FROM generate_series(1, 20000) g;
});
pgbench_run($node, 'dequeue', q{
\set end random(1, 10)
BEGIN;
SET LOCAL lock_timeout = '5s';
INSERT INTO taken SELECT id FROM shard_fdw.dequeue(NULL::jobs, 50);
SELECT pg_sleep(0.002);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
}, '-c', '8', '-j', '4', '-t', '60');
is($node->safe_psql('postgres', q{
		SELECT count(*) > 10000, count(*) = count(DISTINCT id),
		       count(*) + (SELECT count(*) FROM jobs) FROM taken}),
	't|t|20000', 'dequeue: no row is lost, none is given out twice');

# Several sessions claim rows, which they delete when the work is done.  Some
# fail or are late, and some rows make any worker fail.

$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE tasks (id bigint OPTIONS (sequence 'always'), attempts int NOT NULL DEFAULT 0,
	  due timestamptz NOT NULL DEFAULT now()) SERVER shards OPTIONS (shards '4');
	SELECT shard_fdw.run_command_on_shards('tasks', 'CREATE INDEX ON %s (due)');
	CREATE TABLE dead (id bigint, attempts int, due timestamptz);
	CREATE TABLE done (id bigint, attempts int);
	CREATE TABLE tries (id bigint, attempt int);
	BEGIN;
	SET LOCAL shard_fdw.shard = 0; INSERT INTO tasks (attempts) SELECT 0 FROM generate_series(1, 150);
	SET LOCAL shard_fdw.shard = 2; INSERT INTO tasks (attempts) SELECT 0 FROM generate_series(1, 150);
	COMMIT;
	CREATE TABLE all_tasks AS SELECT id, row_number() OVER () % 20 = 0 AS is_poison FROM tasks});
my $work = q{
\set end random(1, 10)
\set pause random(0, 12)
SELECT coalesce(max(id), 0) AS id, coalesce(max(attempts), 0) AS attempts
  FROM shard_fdw.claim(NULL::tasks, 1, '10 ms', 5, 'dead') \gset
\sleep :pause ms
BEGIN;
INSERT INTO tries SELECT :id, :attempts WHERE :id > 0;
COMMIT;
BEGIN;
WITH d AS (DELETE FROM tasks t USING all_tasks a WHERE t.id = :id AND attempts = :attempts
           AND a.id = t.id AND NOT is_poison RETURNING t.id, attempts)
INSERT INTO done SELECT * FROM d;
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
};
pgbench_run($node, 'claim', $work, '-c', '8', '-j', '4', '-t', '100');
poll_ok($node, q{SELECT count(*) + (SELECT count(*) FROM tasks) = 0
	FROM shard_fdw.claim(NULL::tasks, 1000, '1 ms', 5, 'dead')}, 'claim: in the end no task is left');
is($node->safe_psql('postgres', q{
		SELECT count(*) = count(DISTINCT id), (SELECT count(*) = count(DISTINCT id) FROM dead),
		       count(*) + (SELECT count(*) FROM dead),
		       (SELECT count(*) FROM dead JOIN done USING (id)),
		       count(*) FILTER (WHERE is_poison), (SELECT min(attempts) || ' ' || max(attempts) FROM dead)
		  FROM done JOIN all_tasks USING (id)}),
	't|t|300|0|0|5 5', 'claim: each task is done or dead, once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT FROM tries GROUP BY id, attempt HAVING count(*) > 1) t'),
	'0', 'claim: nobody has the same attempt');

# A new session for every transaction.

$node->safe_psql('postgres', 'TRUNCATE log');
$done = pgbench_run($node, 'reconnecting',
	'INSERT INTO log (client, n) VALUES (:client_id, 1);',
	'-C', '-c', '12', '-j', '2', '-t', '12');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM log'),
	"$done|$done", 'reconnecting: a row for every transaction');
poll_ok($node, 'SELECT sum = 0 FROM balance', 'reconnecting: no lease is left');

$node->stop;
done_testing();
