# Generations of shards come and go under writers, readers and consumers: each
# committed row is read once and then dropped, and nobody waits for long.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = shard_node('lifecycle');
$node->safe_psql('postgres', q{
	CREATE TABLE kinds (kind int PRIMARY KEY);
	INSERT INTO kinds SELECT generate_series(1, 10);
	CREATE TABLE model (id bigint PRIMARY KEY, kind int REFERENCES kinds, at timestamptz NOT NULL);
	CREATE INDEX ON model (at);
	CREATE FOREIGN TABLE events (id bigint OPTIONS (sequence 'always'), kind int,
	                             at timestamptz NOT NULL DEFAULT clock_timestamp())
	  SERVER shards OPTIONS (shards '4', max_shards '1000', commit_order 'true', template 'model',
	                         time_column 'at', retain_for '2 seconds', maintenance 'manual');
	CREATE TABLE written (id bigint);
	CREATE TABLE seen (id bigint);
	SELECT shard_fdw.register_consumer('events', 'reader', 'id');
});

# Fast motion.

my $patient = 1.5;    # nobody waits for more than 0.1 seconds at a time
my $write = q{
\set kind random(1, 10)
BEGIN;
WITH w AS (INSERT INTO events (kind) VALUES (:kind), (:kind) RETURNING id) INSERT INTO written
  SELECT id FROM w;
INSERT INTO events (kind) VALUES (:kind) RETURNING id \gset
INSERT INTO written VALUES (:id);
COMMIT;
};
my $consume = q{INSERT INTO seen SELECT id FROM shard_fdw.read_batch(NULL::events, 'reader', 300);};
my $read = q{
BEGIN;
SELECT count(*) FROM events WHERE kind = 3;
\sleep 20 ms
COMMIT;
};
my $writers = pgbench_start($node, $write, '-c', '4', '-j', '1', '-T', '12');
my $others =
  pgbench_start($node, [ [ $consume, 2 ], [ $read, 1 ] ], '-c', '3', '-j', '1', '-T', '12');
my ($rotations, $ranges, $dropped) = (0, 0, 0);
my @unexpected;
my $end = time + 10;

# A command that may find somebody in its way, but must not fail otherwise.
sub try_it
{
	my ($sql, $allowed) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	push(@unexpected, $err) if $err =~ /ERROR/ && $err !~ /ERROR:  $allowed/;
	push(@unexpected, $err) if $err =~ /deadlock/;
	return $err =~ /ERROR/ ? undef : $out;
}

# A busy machine gets the time that it takes.
while (time < $end
	|| (time < $end + 60 && ($rotations < 2 || $ranges < 2 || $dropped < 2)))
{
	$rotations++ if defined try_it(q{SELECT shard_fdw.rotate('events')}, '55P03');
	foreach my $shard (split(/\n/, $node->safe_psql('postgres', q{
			SELECT shard FROM shard_fdw.list_shards('events') WHERE state = 'closed'})))
	{
		# It may have its range, or be written still.
		$ranges++
		  if defined try_it(qq{SET lock_timeout = '1s'; CALL shard_fdw.add_range('$shard')},
			'(55P03|55006)');
	}
	my $gone = try_it(q{SET lock_timeout = '2s'; SELECT shard_fdw.retain('events')}, 'nothing');
	$dropped += () = ($gone // '') =~ /events_\d+/g;
	sleep(0.2);
}
my $done = pgbench_ok($writers, 'writers');
pgbench_ok($others, 'consumers and readers');
is_deeply(\@unexpected, [], 'nothing fails that should not');
note "$rotations rotations, $ranges ranges, $dropped shards dropped, $done transactions";
cmp_ok($rotations, '>', 1, 'generations have come');
cmp_ok($ranges, '>', 1, 'closed shards have got ranges');
cmp_ok($dropped, '>', 1, 'old shards have been dropped');

# Of a few, it may be the machine that makes them wait.
my @durations;
foreach my $file (glob("$writers->{logs}/log.*"))
{
	push(@durations, map { (split(/ /, $_))[2] / 1e6 } split(/\n/, slurp_file($file)));
}
cmp_ok((sort { $a <=> $b } @durations)[ 0.99 * @durations ],
	'<', $patient, 'writers do not wait for long');

foreach (1 .. 1000)
{
	$node->safe_psql('postgres', $consume);
	last if $node->safe_psql('postgres',
		'SELECT (SELECT count(*) FROM seen) >= (SELECT count(*) FROM written)') eq 't';
}
is( $node->safe_psql('postgres', q{
		SELECT count(*) = count(DISTINCT id) FROM seen;
		SELECT count(*) FROM (SELECT id FROM written EXCEPT SELECT id FROM seen) t;
		SELECT count(*) FROM (SELECT id FROM seen EXCEPT SELECT id FROM written) t;
		SELECT count(*) = count(DISTINCT id) FROM written}),
	"t\n0\n0\nt", 'each row has been read once, and no id been given twice');
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT FROM written w WHERE w.id = e.id);
		SELECT count(*) FROM pg_constraint c JOIN shard_fdw.list_shards('events') s
		  ON c.conrelid = s.shard
		 WHERE contype = 'f' AND NOT convalidated;
		SELECT count(*) FROM (SELECT shard FROM shard_fdw.list_shards('events')
		  WHERE state = 'open') s;
		SELECT count(*) FROM shard_fdw.closed_shards s
		  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.shard)}),
	"0\n0\n4\n0", 'the table is in order');
sleep(2.1);
$node->safe_psql('postgres', q{SELECT shard_fdw.rotate('events')});
$node->safe_psql('postgres', q{SELECT shard_fdw.retain('events')});
is( $node->safe_psql('postgres', q{SELECT count(*) FROM events}), '0', 'all old rows are gone');

# Those in the way are named, and nobody waits behind.

my ($user, $owner, $other) = map { session($node) } 1 .. 3;
$owner->query_safe("SET lock_timeout = '600ms'");

# What retain() says, and how long an insert and a query took meanwhile.
sub retain_says
{
	my @durations;

	send_to($owner, "SELECT shard_fdw.retain('events', 'infinity');\n");
	for (1 .. 7)
	{
		my $start = time;
		$other->query_safe('INSERT INTO events (kind) VALUES (1)');
		$other->query_safe('SELECT count(*) FROM events');
		push(@durations, time - $start);
		sleep(0.05);
	}
	my ($code, undef, undef, $text) = state_of($owner, 'SELECT 1');
	is($code, '00000', 'retain() does not fail');
	cmp_ok((sort { $a <=> $b } @durations)[3], '<', $patient, 'retain() keeps nobody waiting');
	return $text;
}

sub new_generation
{
	$node->safe_psql('postgres', q{INSERT INTO events (kind) VALUES (1)});
	$node->safe_psql('postgres', q{SELECT shard_fdw.rotate('events', 3)});
	$node->safe_psql(
		'postgres', q{
		DO $$
		BEGIN
		  LOOP
		    EXIT WHEN NOT EXISTS (SELECT FROM shard_fdw.read_batch(NULL::events, 'reader', 300));
		  END LOOP;
		END $$}
	);
	return $node->safe_psql(
		'postgres', q{
		SELECT shard FROM shard_fdw.list_shards('events') l WHERE state = 'closed'
		  ORDER BY ordinal DESC LIMIT 1});
}

my $shard = new_generation();
$user->query_safe('BEGIN');
$user->query_safe("SELECT count(*) FROM $shard");
like(retain_says(),
	qr/WARNING:  55P03: shard "$shard" of foreign table "events" is in use, skipping/,
	'a reader');
$user->query_safe('COMMIT');
$user->query_safe('BEGIN');
$user->query_safe('INSERT INTO events (kind) VALUES (2)');
like(retain_says(), qr/WARNING:  55P03: shard "$shard" .* is in use.*\n?.*DETAIL:  .*foreign key/s,
	'who has written to another shard has looked at the table that the foreign key points to');
$user->query_safe('COMMIT');
unlike(retain_says(), qr/WARNING/, 'after that');
is($node->safe_psql('postgres', "SELECT to_regclass('$shard') IS NULL"),
	't', 'a shard that is no longer in use is dropped');

$node->safe_psql('postgres', q{SELECT shard_fdw.register_consumer('events', 'lazy', 'id')});
$shard = new_generation();
like(retain_says(),
	qr/WARNING:\ \ 55006:\ shard\ "$shard"\ of\ foreign\ table\ "events"\ is\ kept
		\ for\ consumer\ "lazy"\n
		DETAIL:\ \ The\ consumer\ has\ not\ read\ all\ of\ its\ rows\.\n
		HINT:\ \ .*drop_consumer/x,
	'a consumer that does not read');
$node->safe_psql('postgres', q{SELECT shard_fdw.drop_consumer('events', 'lazy')});
$node->safe_psql('postgres', "CREATE VIEW depends AS SELECT * FROM $shard");
like(
	retain_says(),
	qr/WARNING:\ \ 2BP01:\ could\ not\ drop\ shard\ "$shard":
		\ cannot\ drop\ table\ public\.$shard\ because\ other\ objects\ depend\ on\ it/x,
	'a view');
$owner->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
fails($owner, "SELECT shard_fdw.retain('events', 'infinity')", '25001', undef,
	title => 'an old snapshot must not decide what is dropped');
$owner->query_safe('ROLLBACK');

# Ranges wait for those who write.

$user->query_safe('BEGIN');
$user->query_safe("INSERT INTO events (kind) VALUES (3)");
$shard = $user->query_safe('SELECT shard_fdw.last_shard()');
$owner->query_safe("SELECT shard_fdw.rotate('events')");
fails($owner, "CALL shard_fdw.add_range('$shard')", '55006', qq{shard "$shard" is being written},
	title => 'a shard that is still written gets no range');
$user->query_safe("INSERT INTO events (kind) VALUES (3)");
isnt($user->query_safe('SELECT shard_fdw.last_shard()'),
	$shard, 'the shard of an old generation is written no more');
$user->query_safe('COMMIT');
# Others may read it all the while, and change rows.
$user->query_safe('BEGIN');
$user->query_safe("SELECT count(*) FROM $shard");
fails($owner, "CALL shard_fdw.add_range('$shard')", '55P03', undef,
	title => 'a reader that does not go away');
$user->query_safe('COMMIT');
is((state_of($owner, "CALL shard_fdw.add_range('$shard')"))[0],
	'00000', 'a range in two transactions');
is( $node->safe_psql(
		'postgres', "SELECT count(*) FROM pg_constraint
			WHERE conrelid = '$shard'::regclass AND conname = 'shard_range' AND convalidated"),
	'1', 'the range is there');
fails($user,
	"UPDATE events SET at = at + interval '1 day' WHERE tableoid = '$shard'::regclass",
	'23514', qr/violates check constraint "shard_range"$/, title => 'the range is enforced');

$_->quit for $user, $owner, $other;
$node->stop;
done_testing();
