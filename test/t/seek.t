# Consumers that begin now, and that are moved, while others write and read: no
# row is read twice or missed.
use strict;
use warnings;

use ShardTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = shard_node('seek');
$node->safe_psql('postgres', q{
	CREATE TABLE model (id bigint PRIMARY KEY, client int, at timestamptz);
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), client int,
	                          at timestamptz NOT NULL DEFAULT clock_timestamp())
	  SERVER shards OPTIONS (shards '4', commit_order 'true', template 'model');
	CREATE TABLE have_read (consumer text, id bigint);
	CREATE TABLE known (consumer text, when_seen text, id bigint);
	SELECT shard_fdw.register_consumer('log', 'moved', 'id');
	SELECT shard_fdw.register_consumer('log', 'moved_w', 'at')});
$node->safe_psql('postgres', 'ALTER SEQUENCE log_id_1_seq CACHE 10');

my $write = q{
\set pause random(0, 10)
\set many random(1, 20)
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
\set rows random(1, 200)
\set end random(1, 10)
BEGIN;
INSERT INTO have_read SELECT 'moved', id FROM shard_fdw.read_batch(NULL::log, 'moved', :rows);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
BEGIN;
INSERT INTO have_read SELECT 'moved_w', id
  FROM (SELECT clock_timestamp() - interval '20 ms' AS up_to OFFSET 0) w,
       LATERAL shard_fdw.read_window(NULL::log, 'moved_w', up_to);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
};
my @runs = (
	pgbench_start($node, $write, '-c', '8', '-j', '1', '-T', '6'),
	pgbench_start($node, $read, '-c', '3', '-j', '1', '-T', '6'));
my @late;

# Consumers that begin now: what was there before is not read, and what is not
# there after is.
foreach my $n (1 .. 4)
{
	sleep(0.5);
	foreach my $kind ('id', 'at')
	{
		my $name = "late_${kind}_$n";

		$node->safe_psql('postgres', qq{
			INSERT INTO known SELECT '$name', 'before', id FROM log;
			SELECT shard_fdw.register_consumer('log', '$name', '$kind', 'now');
			INSERT INTO known SELECT '$name', 'after', id FROM log});
		push @late, $name;
	}
	# What has been read is forgotten as the consumer goes back.
	$node->safe_psql('postgres', q{
		BEGIN;
		SELECT shard_fdw.seek_consumer('log', 'moved', 'first');
		DELETE FROM have_read WHERE consumer = 'moved';
		COMMIT;
		BEGIN;
		SELECT shard_fdw.seek_consumer('log', 'moved_w', 'first', 'log_2');
		DELETE FROM have_read WHERE consumer = 'moved_w' AND id IN (SELECT id FROM log_2);
		COMMIT});
}
pgbench_ok($_, 'writers and readers') foreach @runs;

# What is left is read now.
my $up_to = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
foreach my $name ('moved', 'moved_w', @late)
{
	my $function = $name =~ /_w$|_at_/ ? "read_window(NULL::log, '$name', '$up_to')" :
	  "read_batch(NULL::log, '$name', 1000000)";

	$node->safe_psql('postgres', "INSERT INTO have_read SELECT '$name', id FROM shard_fdw.$function")
	  foreach 1 .. 5;
}
my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM log');
cmp_ok($rows, '>', 500, "rows have been written ($rows)");
foreach my $name ('moved', 'moved_w')
{
	is($node->safe_psql('postgres', qq{
			SELECT count(*), count(DISTINCT id), count(l.id) FROM have_read r LEFT JOIN log l USING (id)
			 WHERE consumer = '$name'}),
		"$rows|$rows|$rows", "$name: each row once");
}
is($node->safe_psql('postgres',
		q{SELECT count(*) FROM have_read r JOIN known k USING (consumer, id) WHERE when_seen = 'before'}),
	'0', 'who begins now reads nothing that was there before');
is($node->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT DISTINCT consumer FROM known) c CROSS JOIN log l
		 WHERE NOT EXISTS (SELECT FROM known k
		                    WHERE k.consumer = c.consumer AND k.id = l.id AND when_seen = 'after')
		   AND NOT EXISTS (SELECT FROM have_read r WHERE r.consumer = c.consumer AND r.id = l.id)}),
	'0', 'who begins now misses nothing that came after');
is($node->safe_psql('postgres',
		'SELECT count(*) FROM (SELECT FROM have_read GROUP BY consumer, id HAVING count(*) > 1) d'),
	'0', 'nobody reads a row twice');
is($node->safe_psql('postgres', 'SELECT sum(unread_rows) FROM shard_fdw.consumer_lag($$log$$)'),
	'0', 'then nothing is left');

# A reader that is at it is waited for, and what it has read counts.
my ($reader, $mover) = (session($node), session($node));
$node->safe_psql('postgres', 'INSERT INTO log (client) SELECT 0 FROM generate_series(1, 5)');
$reader->query_safe(q{BEGIN; SELECT count(*) FROM shard_fdw.read_batch(NULL::log, 'moved')});
send_to($mover, "SELECT shard_fdw.seek_consumer('log', 'moved', 'first');\n");
poll_ok($node, "SELECT count(*) > 0 FROM pg_locks WHERE pid = $mover->{pid} AND NOT granted",
	'moving waits for a reader');
$reader->query_safe('COMMIT');
is((state_of($mover, 'SELECT 1'))[0], '00000', 'then the consumer is moved');
is($node->safe_psql('postgres', q{
		SELECT count(*) FROM shard_fdw.consumers WHERE consumer = 'moved' AND watermark IS NOT NULL}),
	'0', 'the reader has not moved it on');
fails($node, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT shard_fdw.seek_consumer('log', 'moved', 'now')},
	'25001', 'cannot move a consumer forward in a transaction of isolation level REPEATABLE READ',
	title => 'not with an old snapshot');
$node->stop;

# The time of the oldest row, if nothing else tells it.
$node->append_conf('postgresql.conf', "track_commit_timestamp = on\n");
$node->start;
$node->safe_psql('postgres', q{SELECT shard_fdw.register_consumer('log', 'timed', 'id', 'now')});
$node->safe_psql('postgres', q{SET shard_fdw.shard = 1; INSERT INTO log (client) VALUES (-1)}) foreach 1, 2;
is($node->safe_psql('postgres', q{
		SELECT unread_rows, oldest = (SELECT min(pg_xact_commit_timestamp(xmin)) FROM log_1 WHERE client = -1)
		  FROM shard_fdw.consumer_lag('log', 'timed') WHERE shard = 'log_1'::regclass}),
	'2|t', 'the time of the oldest row is when it was committed');
$node->stop;
done_testing();
