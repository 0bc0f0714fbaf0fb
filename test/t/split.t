# split_shard(), merge_shards() and reshard_online() while others write: the rows
# are those of a plain table that gets the same changes.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('split',
	conf => "session_preload_libraries = 'shard_fdw'\nmax_connections = 40\n");

# An index that the session of that name is slow to build.
$node->safe_psql('postgres', q{
	CREATE TABLE waiting (what text);
	CREATE FUNCTION gate(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
	  IF current_setting('application_name') = 'splitter' AND id = 1 THEN
	    -- A procedural language keeps its snapshot in an immutable function.
	    WHILE pg_try_advisory_lock(4711) IS FALSE LOOP PERFORM pg_sleep(0.02); END LOOP;
	    PERFORM pg_advisory_unlock(4711);
	  END IF;
	  RETURN id;
	END $$;
	CREATE TABLE model (id int PRIMARY KEY, v int CHECK (v >= 0), t text);
	CREATE INDEX ON model (gate(id));
	CREATE INDEX ON model (v);
	CREATE FOREIGN TABLE log (id int, v int, t text)
	  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'model');
	CREATE TABLE twin (LIKE model INCLUDING ALL);
	INSERT INTO log SELECT g, abs(g) % 10, repeat(md5(g::text), abs(g) % 4 * 40) FROM generate_series(-500, 2000) g;
	INSERT INTO twin SELECT * FROM log});

my $differences = q{
	SELECT count(*) FROM ((TABLE log EXCEPT ALL TABLE twin) UNION ALL (TABLE twin EXCEPT ALL TABLE log)) d};

sub same
{
	my ($title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', $differences), '0', "$title: the rows are the same");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.check_shards('log')}), '0',
		"$title: the shards are right");
	indexes_ok($node, $title);
}

sub places
{
	return $node->safe_psql('postgres', q{
		SELECT string_agg(place, ', ' ORDER BY place) FROM shard_fdw.stat_shards
		 WHERE logical = 'log'::regclass});
}

# The shard of a row, and changes to both tables.
sub shard_of
{
	return $node->safe_psql('postgres', "SELECT tableoid::regclass FROM log WHERE id = $_[0]");
}

sub change
{
	my ($session, @commands) = @_;

	foreach my $table ('log', 'twin')
	{
		$session->query_safe($_) foreach map { s/\bTBL\b/$table/gr } @commands;
	}
}

my ($splitter, $writer, $holder) = (session($node), session($node), session($node));
my $shard = shard_of(1);
my @others = split(/\n/, $node->safe_psql('postgres',
	"SELECT id FROM log WHERE id > 1 AND tableoid = '$shard'::regclass ORDER BY id LIMIT 8"));

# It waits in the middle of its copy: others go on with the same shard.
$holder->query_safe('SELECT pg_advisory_lock(4711)');
$splitter->query_safe(q{SET application_name = 'splitter'});
send_to($splitter, "SELECT * FROM shard_fdw.split_shard('$shard', 2);\n");
poll_ok($node,
	qq{SELECT count(*) = 1 FROM pg_stat_progress_create_index WHERE pid = $splitter->{pid}},
	'a copy is in the middle');
$writer->query_safe(q{SET statement_timeout = '60s'});
change($writer, "UPDATE TBL SET v = v + 1, t = 'new' WHERE id = $others[0]",
	"UPDATE TBL SET id = id WHERE id = $others[1]", "DELETE FROM TBL WHERE id = $others[2]",
	"DELETE FROM TBL WHERE id = $others[3]",
	"INSERT INTO TBL VALUES ($others[3], 77, repeat('x', 5000))");
$writer->query_safe('BEGIN');
change($writer, "UPDATE TBL SET v = 1000 WHERE id = $others[4]",
	"UPDATE TBL SET v = 1000 WHERE id = 1");
$writer->query_safe('ROLLBACK');
is($writer->query_safe("SELECT count(*) FROM log WHERE tableoid = '$shard'::regclass AND id = 1"), '1',
	'the shard is read');
# A transaction that is open when the indexes are built, and commits later.
$writer->query_safe('BEGIN');
change($writer, "UPDATE TBL SET v = 500 WHERE id = $others[5]",
	"DELETE FROM TBL WHERE id = $others[6]",
	"INSERT INTO TBL SELECT g, 3, 'late' FROM generate_series(3000, 3020) g");
# GRANT and REVOKE do not wait.
$node->safe_psql('postgres', "GRANT SELECT, DELETE ON $shard TO PUBLIC; REVOKE DELETE ON $shard FROM PUBLIC");
# One that is not committed is waited for, and nobody else waits then.
my $granter = session($node);
$granter->query_safe("BEGIN; GRANT UPDATE (v) ON $shard TO PUBLIC");
$holder->query_safe('SELECT pg_advisory_unlock(4711)');
poll_ok($node,
	q{SELECT phase = 'waiting for locks on the old shards' FROM shard_fdw.progress WHERE command = 'split_shard'},
	'it waits for a writer');
is($node->safe_psql('postgres', "SET statement_timeout = '60s'; SELECT count(*) FROM log WHERE id = $others[0]"),
	'1', 'while it waits, others do not');
change($writer, "UPDATE TBL SET v = 501 WHERE id = $others[7]");
$writer->query_safe('COMMIT');
change($writer, "UPDATE TBL SET v = 502 WHERE id = $others[7]");
$granter->query_safe('COMMIT');
$granter->quit;
my ($state, undef, $output, $said) = state_of($splitter, 'SELECT');
is($state, '00000', 'the shard is split');
like($said, qr/NOTICE:  00000: the old shards of foreign table "log" have been locked for \d+ ms/,
	'it tells for how long others had to wait');
is(places(), 'hash 0 of 4, hash 1 of 4, hash 2 of 4, hash 3 of 8, hash 7 of 8',
	'mixed moduli') if $shard =~ /3/;
like(places(), qr/hash (\d) of 8.*hash (\d) of 8/, 'two have another modulus');
same('after a split');
my @granted = split(/\n/, $node->safe_psql('postgres',
	q{SELECT shard FROM shard_fdw.list_shards('log') JOIN pg_class ON oid = shard WHERE relacl::text ~ ',=r/'}));
is(@granted, 2, 'privileges that were granted meanwhile are those of the new shards');
is($node->safe_psql('postgres', "SELECT attacl FROM pg_attribute WHERE attrelid = '$_'::regclass AND attname = 'v'"),
	'{=w/postgres}', '... those of columns, too') foreach @granted;
$node->safe_psql('postgres', "REVOKE SELECT, UPDATE (v) ON $_ FROM PUBLIC") foreach @granted;

# What a statement that waits for the old shard does: it finds the new ones.
sub waits_and_finds
{
	my ($title, @commands) = @_;
	my $old = shard_of(1);
	my @waiting = map { session($node) } @commands;

	# Prepared ones have a plan already.
	$_->query_safe('PREPARE find(int) AS SELECT v FROM log WHERE id = $1;
		SET plan_cache_mode = force_generic_plan; EXECUTE find(1);
		PREPARE change(int) AS UPDATE log SET v = v + 1 WHERE id = $1;')
	  foreach @waiting;
	my $before = $node->safe_psql('postgres', 'SELECT v FROM log WHERE id = 1');
	$splitter->query_safe('BEGIN');
	is((state_of($splitter, "SELECT * FROM shard_fdw.split_shard('$old', 2)"))[0], '00000', "$title: a split");
	send_to($waiting[$_], "$commands[$_];\n") foreach 0 .. $#commands;
	poll_ok($node, 'SELECT count(*) = ' . @commands
		. " FROM pg_locks WHERE NOT granted AND locktype = 'relation'", "$title: they wait");
	$splitter->query_safe('COMMIT');
	my @found = map { (state_of($_, 'SELECT'))[2] } @waiting;
	$_->quit foreach @waiting;
	return ($before, @found);
}
my ($before, @found) = waits_and_finds('readers', 'EXECUTE find(1)', 'SELECT v FROM log WHERE id = 1',
	'SELECT v FROM log WHERE id + 0 = 1', 'SELECT v FROM log WHERE id + 0 = 1 FOR KEY SHARE',
	'SELECT l.v FROM log l JOIN twin t USING (id) WHERE t.id = 1',
	'COPY (SELECT v FROM log WHERE id = 1) TO STDOUT');
is("@found", join(' ', ($before) x 6), 'statements that have waited read the new shards');
($before, @found) = waits_and_finds('writers', 'EXECUTE change(1)',
	'UPDATE log SET v = v + 1 WHERE id = 1', 'UPDATE log SET v = v + 1 WHERE id + 0 = 1',
	'UPDATE log l SET v = l.v + 1 FROM twin t WHERE t.id = l.id AND t.id = 1',
	'INSERT INTO log VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET v = log.v + 1',
	"MERGE INTO twin t USING log l ON l.id = t.id WHEN MATCHED AND l.id = 1 THEN UPDATE SET t = 'merged'");
is($node->safe_psql('postgres', 'SELECT v FROM log WHERE id = 1'), $before + 5,
	'statements that have waited change the new shards');
is($node->safe_psql('postgres', 'SELECT t FROM twin WHERE id = 1'), 'merged', 'MERGE reads them');
$node->safe_psql('postgres', 'UPDATE twin SET (v, t) = (SELECT l.v, l.t FROM log l WHERE l.id = 1) WHERE id = 1');
same('after statements have waited');

# Statements and transactions whose snapshot is from before, when rows have
# changed during the copy.
my ($old, $waits) = (session($node), session($node));
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM twin LIMIT 1');
$waits->query_safe('PREPARE p AS SELECT * FROM log');
$shard = shard_of(1);
$holder->query_safe('SELECT pg_advisory_lock(4711)');
send_to($splitter, "BEGIN; SELECT shard_fdw.split_shard('$shard');\n");
poll_ok($node,
	qq{SELECT count(*) = 1 FROM pg_stat_progress_create_index WHERE pid = $splitter->{pid}},
	'another copy is in the middle');
change($writer, "UPDATE TBL SET v = 700 WHERE id BETWEEN 1 AND 100", "DELETE FROM TBL WHERE id BETWEEN 101 AND 200",
	"INSERT INTO TBL SELECT g, 7, 'more' FROM generate_series(5000, 5200) g");
$holder->query_safe('SELECT pg_advisory_unlock(4711)');
is((state_of($splitter, 'SELECT'))[0], '00000', 'it is at its end, and not committed');
send_to($waits, "CREATE TEMP TABLE found AS EXECUTE p;\n");
poll_ok($node, "SELECT count(*) > 0 FROM pg_locks WHERE pid = $waits->{pid} AND NOT granted", 'a statement waits');
$splitter->query_safe('COMMIT');
is((state_of($waits, 'SELECT'))[0], '00000', 'it goes on');
is($waits->query_safe('SELECT count(*) FROM ((TABLE found EXCEPT ALL TABLE twin) UNION ALL (TABLE twin EXCEPT ALL TABLE found)) d'),
	'0', 'and has found all rows as they are');
$old->query_safe('SAVEPOINT a');
fails($old, 'UPDATE log SET v = v + 1 WHERE id = 1', '40001', undef, title => 'a lookup with an old snapshot');
$old->query_safe('ROLLBACK TO a');
fails($old, 'SELECT count(*) FROM log', '40001',
	'could not read foreign table "log" because its shards have been replaced', title => 'an old snapshot');
$_->quit foreach $old, $waits;
same('after old snapshots');

# Between two steps: on the way from 4 to 6 shards, the rows of two are in one.
is((state_of($splitter, "CALL shard_fdw.reshard_online('log', 4)"))[0], '00000', 'four shards');
my $later = $node->safe_psql('postgres', q{
	WITH s AS (SELECT l.shard, l.ordinal, substring(t.place FROM '\d+')::int % 2 AS half
	             FROM shard_fdw.list_shards('log') l JOIN shard_fdw.stat_shards t USING (shard))
	SELECT s.shard FROM s JOIN s f ON f.ordinal = 0 AND f.half <> s.half LIMIT 1});
$holder->query_safe("BEGIN; UPDATE $later SET t = t");
is((state_of($splitter, "SET lock_timeout = '300ms'; CALL shard_fdw.reshard_online('log', 6)"))[0], '55P03',
	'a shard that is in use for longer');
is(join(', ', sort map { /(of .)/ } split /, /, places()), 'of 2, of 4, of 4', 'one step has been done');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump between two steps');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
command_ok([ 'pg_restore', '-e', '-d', $node->connstr('copy'), $dump ], 'its restore');
is($node->safe_psql('copy', q{INSERT INTO log SELECT id, v, t FROM twin ON CONFLICT (id) DO UPDATE SET v = log.v;
	CALL shard_fdw.reshard_online('log', 6)} . ";\n$differences;" . q{SELECT count(*) FROM shard_fdw.check_shards('log');
	SELECT count(*) FROM shard_fdw.stat_shards WHERE place ~ 'of 6'}), "0\n0\n6", 'the restored database goes on');
$node->safe_psql('postgres', 'DROP DATABASE copy');
$holder->query_safe('ROLLBACK');
is($node->safe_psql('postgres', q{INSERT INTO log SELECT id, v, t FROM twin
	ON CONFLICT (id) DO UPDATE SET v = log.v; SELECT count(*) FROM log WHERE id = 1}), '1',
	'the table takes upserts');
is((state_of($splitter, "RESET lock_timeout; CALL shard_fdw.reshard_online('log', 6)"))[0], '00000',
	'the same call goes on');
is(places(), join(', ', map { "hash $_ of 6" } 0 .. 5), 'six shards');
same('by way of two shards');

# Writers and readers all the time.
my $write = q{
\set id 10000 * (:client_id + 1) + random(1, 60)
\set other 10000 * (:client_id + 1) + random(1, 60)
\set third 10000 * (:client_id + 1) + random(1, 60)
BEGIN;
INSERT INTO log VALUES (:id, 1, 'x') ON CONFLICT (id) DO UPDATE SET v = log.v + 1;
INSERT INTO twin VALUES (:id, 1, 'x') ON CONFLICT (id) DO UPDATE SET v = twin.v + 1;
UPDATE log SET v = v + 10, t = repeat('y', :id % 3000) WHERE id = :other;
UPDATE twin SET v = v + 10, t = repeat('y', :id % 3000) WHERE id = :other;
DELETE FROM log WHERE id + 0 = :third;
DELETE FROM twin WHERE id = :third;
COMMIT;
};
# No row of these changes.
my $read = q{
\set id -random(1, 500)
SELECT 1 / (count(*) = 501)::int FROM log WHERE id <= 0;
SELECT 1 / (count(*) = 501)::int FROM (SELECT FROM log WHERE id <= 0 FOR KEY SHARE) l;
SELECT 1 / (count(*) = 1)::int FROM log WHERE id = :id;
};

# Both runs have clients 0 to 3: keep their rows apart.
$write =~ s/:client_id \+ 1/:client_id + 1 + :base/g;
sub start_both
{
	return map {
		pgbench_start($node, [ [ $write, 7 ], [ $read, 1 ] ], '-c', '4', '-j', '1',
			'-M', $_->[0], '-D', "base=$_->[1]", @_)
	} [ 'prepared', 0 ], [ 'simple', 4 ];
}
my @clients = start_both('-t', '250');
foreach my $count (8, 6, 16, 4)
{
	($state, undef, undef, $said) = state_of($splitter, "CALL shard_fdw.reshard_online('log', $count)");
	is($state, '00000', "reshard_online() to $count shards") or diag($said);
	like($said, qr/has $count shards\nDETAIL:  Copied rows: \d+\. No writer has waited for longer than \d+ ms/,
		'... tells what it has done');
}
pgbench_ok($_, 'eight writers') foreach @clients;
same('after writers');
is(places(), 'hash 0 of 4, hash 1 of 4, hash 2 of 4, hash 3 of 4', 'four shards at the end');

# A crash in the middle.
@clients = start_both('-T', '300');
$holder->query_safe('SELECT pg_advisory_lock(4711)');
send_to($splitter, "CALL shard_fdw.reshard_online('log', 8);\n");
poll_ok($node,
	qq{SELECT count(*) = 1 FROM pg_stat_progress_create_index WHERE pid = $splitter->{pid}},
	'one is in the middle');
$node->stop('immediate');
pgbench_finish($_) foreach @clients;
$node->start;
same('after a crash');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname LIKE 'log%' AND relkind = 'r'
	  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = oid)}), '0', 'no table is left over');
$node->safe_psql('postgres', q{CALL shard_fdw.reshard_online('log', 8)});
is($node->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.stat_shards WHERE place LIKE 'hash % of 8'}), '8',
	'the same call goes on');
same('after the second call');
done_testing();
