# Commit order under fire: 32 sessions write 8 lanes, with pauses between insert
# and commit, 4 read them, 2 more by windows of time; sessions are killed, and
# once the server crashes.  Every row that is committed is read once, and in
# order, and none comes after its window.
use strict;
use warnings;

use ShardTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = 60;
my $burst = 5;
my $node = shard_node('lanes', conf => "track_commit_timestamp = on\nmax_connections = 100\n");
$node->safe_psql('postgres', q{
	CREATE TABLE log_model (id bigint PRIMARY KEY, client int, at timestamptz);
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), client int,
	                          at timestamptz NOT NULL DEFAULT clock_timestamp())
	  SERVER shards OPTIONS (shards '8', commit_order 'true', template 'log_model');
	SELECT shard_fdw.register_consumer('log', 'c', 'id');
	SELECT shard_fdw.register_consumer('log', 'w', 'at');
	CREATE TABLE have_read (n bigserial, id bigint);
	CREATE TABLE have_windowed (id bigint, at timestamptz, up_to timestamptz);
	CREATE TABLE plain (id bigserial PRIMARY KEY, client int);
	ALTER SEQUENCE plain_id_seq CACHE 20;
});
# Some lanes keep numbers for their sessions, too.
$node->safe_psql('postgres', "ALTER SEQUENCE log_id_${_}_seq CACHE 10") for 1 .. 4;

my $write = q{
\set pause random(0, 20)
\set many random(1, 40)
\set end random(1, 10)
BEGIN;
INSERT INTO log (client) VALUES (:client_id);
SELECT pg_sleep(:pause / 1000.0);
INSERT INTO log (client) SELECT :client_id FROM generate_series(1, :many);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
};
my $read = q{
\set rows random(1, 100)
\set end random(1, 10)
BEGIN;
INSERT INTO have_read (id) SELECT id FROM shard_fdw.read_batch(NULL::log, 'c', :rows);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
};

my $read_window = q{
\set end random(1, 10)
BEGIN;
INSERT INTO have_windowed
  SELECT id, at, up_to FROM (SELECT clock_timestamp() - interval '50 ms' AS up_to) w,
         LATERAL shard_fdw.read_window(NULL::log, 'w', up_to);
SELECT pg_sleep(0.02);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
};

my ($killed, $crashed, $bursts) = (0, 0, 0);
my $end = time() + $seconds;
while (time() < $end)
{
	my @runs = (
		pgbench_start($node, $write, '-c', '32', '-j', '2', '-T', $burst),
		pgbench_start($node, $read, '-c', '4', '-j', '1', '-T', $burst),
		pgbench_start($node, $read_window, '-c', '2', '-j', '1', '-T', $burst));
	my $until = time() + $burst - 1;

	$bursts++;
	while (time() < $until)
	{
		sleep(0.3);
		$killed += $node->safe_psql('postgres', q{
			SELECT count(pg_terminate_backend(pid)) FROM (
			  SELECT pid FROM pg_stat_activity
			   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
			   ORDER BY random() LIMIT 1) victim});
		if (!$crashed && time() > $end - $seconds / 2)
		{
			$node->stop('immediate');
			$node->start;
			$crashed = 1;
			last;
		}
	}
	# Those that were killed have failed, of course.
	pgbench_finish($_) for @runs;
}
note "$bursts bursts, $killed sessions killed";
cmp_ok($killed, '>', 10, 'sessions have been killed');
is($crashed, 1, 'the server has crashed');

# What is left is read now.
1 while $node->safe_psql('postgres', q{
	WITH r AS (INSERT INTO have_read (id) SELECT id
	  FROM shard_fdw.read_batch(NULL::log, 'c', 100000) RETURNING 1)
	SELECT count(*) FROM r}) > 0;
my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
1 while $node->safe_psql('postgres', qq{
	WITH r AS (INSERT INTO have_windowed
	           SELECT id, at, '$now' FROM shard_fdw.read_window(NULL::log, 'w', '$now') RETURNING 1)
	SELECT count(*) FROM r}) > 0;

my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM log');
cmp_ok($rows, '>', 1000, "rows have been written ($rows)");
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM have_read'),
	"$rows|$rows", 'as many have been read, none twice');
is($node->safe_psql('postgres', 'SELECT count(*) FROM have_read r JOIN log USING (id)'),
	$rows, 'the rows that have been read are those that have been written');
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT id, max(id) OVER (PARTITION BY id % 1024 ORDER BY n
		                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
		                        FROM have_read) r
		 WHERE id < before}),
	'0', 'the rows of each lane have been read in the order of ids');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id),
	count(*) FILTER (WHERE at >= up_to) FROM have_windowed JOIN log USING (id, at)'),
	"$rows|$rows|0",
	'windows have each row once, and none before its time');
is( $node->safe_psql(
		'postgres', 'SELECT sum(rows), sum(late_rows), count(*) > 100 FROM shard_fdw.windows'),
	"$rows|0|t",
	'windows have no row after its time');
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.check_order($$log$$)'),
	'0', 'ids and commits are in the same order');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT tableoid) FROM log'),
	'8', 'all lanes have been used');
is( $node->safe_psql('postgres', 'SELECT sum(rows_behind) >= 0, count(*) FROM shard_fdw.consumers'),
	't|16',
	'the view shows all lanes');
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
	'0', 'no lane and no lease is left');

# check_order finds what is out of order.
$node->safe_psql('postgres', q{
	BEGIN;
	INSERT INTO log_0 (id) SELECT max(id) + 10 * 1024 FROM log_0;
	COMMIT;
	INSERT INTO log_0 (id) SELECT max(id) - 1024 FROM log_0});
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.check_order($$log$$)'),
	'1', 'check_order finds a row that is not');

# For comparison: a plain table, a cached sequence, and a reader that remembers
# the last id.

my $run = pgbench_start($node, q{
\set pause random(0, 20)
BEGIN;
INSERT INTO plain (client) VALUES (:client_id);
SELECT pg_sleep(:pause / 1000.0);
COMMIT;
}, '-c', '16', '-j', '2', '-T', '4');
my $reader = $node->background_psql('postgres');
my ($last, $seen) = (0, 0);
for (1 .. 40)
{
	my ($count, $max) = split(
		/\|/,
		$reader->query_safe(
			"SELECT count(*), coalesce(max(id), $last) FROM plain WHERE id > $last"));
	$seen += $count;
	$last = $max;
	sleep(0.1);
}
$reader->quit;
pgbench_finish($run);
cmp_ok($seen, '<', $node->safe_psql('postgres', "SELECT count(*) FROM plain WHERE id <= $last"),
	'without lanes, a reader that remembers the last id misses rows');

$node->stop;
done_testing();
