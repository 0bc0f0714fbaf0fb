# Transactions that have used a node before a shard was moved there, when rows
# of the shard have been deleted there before the move was committed.  Their
# snapshot on the node shows these rows.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1) = @nodes;

$n1->safe_psql('postgres', 'CREATE TABLE spare (id bigint); CREATE TABLE part (id bigint); CREATE TABLE emptied (id bigint)');
$here->safe_psql('postgres', q{
	ALTER DATABASE postgres SET client_min_messages = error;
	CREATE TABLE model (id bigint PRIMARY KEY, v int);
	CREATE FOREIGN TABLE log (id bigint, v int)
	  SERVER shards OPTIONS (shards '4', template 'model', route 'hash', key 'id');
	CREATE FOREIGN TABLE other (id bigint, v int)
	  SERVER shards OPTIONS (shards '1', template 'model', route 'round_robin');
	INSERT INTO log SELECT g, g % 7 FROM generate_series(1, 400) g;
	CREATE TABLE twin AS SELECT * FROM log;
	CREATE TABLE local (id bigint);
	CREATE TABLE taken (id bigint);
	CREATE SCHEMA imported;
	CREATE FOREIGN TABLE spare (id bigint) SERVER n1;
	CREATE FOREIGN TABLE emptied (id bigint) SERVER n1;
	CREATE FOREIGN TABLE asked (id bigint) SERVER n1 OPTIONS (table_name 'spare', use_remote_estimate 'true');
	CREATE TABLE parted (id bigint) PARTITION BY LIST (id);
	CREATE FOREIGN TABLE part PARTITION OF parted DEFAULT SERVER n1});

# An id of each shard.
my @ids = map { $here->safe_psql('postgres', "SELECT min(id) FROM log_$_") } 0 .. 3;
my $total = $here->safe_psql('postgres', 'SELECT count(*), sum(id), sum(v) FROM twin');
my $read = 'SELECT count(*), sum(id), sum(v) FROM log';
my $mover = session($here);

# Move a shard with rows gone; the work is committed unless "open".
sub move_gone
{
	my ($shard, $node, $open) = @_;

	return $mover->query_safe("BEGIN; SAVEPOINT a; SELECT shard_fdw.move_shard('$shard', '$node');"
		  . "UPDATE shard_fdw.moved_shards SET rows_gone = true WHERE shard = '$shard'::regclass;"
		  . ' RELEASE a' . ($open ? '' : '; COMMIT'));
}

# A session in a transaction; "before" comes before it.
sub begun
{
	my ($use, $before) = @_;
	my $result = session($here);

	$result->query_safe("$read; $before") if defined $before;
	$result->query_safe("BEGIN; $use");
	return $result;
}

sub refused
{
	my ($session, $command, $title, %other) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	fails($session, $command, '40001', 'could not read foreign table "log" because its shards have been replaced',
		detail => 'The transaction has used a foreign server before shard "log_1" was moved to server "n1".',
		hint => 'The transaction might succeed if retried.', title => $title, %other);
	$session->query_safe('ROLLBACK');
	return is($session->query_safe($read), $total, "$title: the next transaction goes on");
}

$mover->query_safe("SELECT shard_fdw.move_shard(s, 'n1') FROM (VALUES ('log_0'::regclass), ('other_0')) v (s)");

# What uses the node first, and what reads the shard then.
my $used = 'SELECT count(*) FROM log_0';
my @refused = (
	[ 'SELECT', $read, $used, '' ],
	[ 'UPDATE', "UPDATE log SET v = v WHERE id = $ids[1]", $used, '' ],
	[ 'DELETE', 'DELETE FROM log WHERE v = 1', $used, '' ],
	[ 'EXECUTE', "EXECUTE one ($ids[1])", "EXECUTE one ($ids[0])", 'PREPARE one (bigint) AS SELECT v FROM log WHERE id = $1' ],
	[ 'EXECUTE of a plan for all', 'EXECUTE total', $used, "PREPARE total AS $read; EXECUTE total" ],
	[ 'a function', q{DO $$BEGIN PERFORM count(*) FROM log; END$$}, q{DO $$BEGIN PERFORM count(*) FROM log_0; END$$}, '' ],
	[ 'a second cursor', "DECLARE d CURSOR FOR $read", 'DECLARE c CURSOR FOR SELECT * FROM log_0; FETCH c', '' ],
	[ 'INSERT ... SELECT', 'INSERT INTO taken SELECT id FROM log', $used, '' ],
	[ 'after a savepoint', $read, "SAVEPOINT a; $used; ROLLBACK TO a", '' ],
	[ 'after INSERT', $read, 'INSERT INTO other VALUES (1, 1)', '' ],
	[ 'after COPY', $read, q{COPY other FROM PROGRAM 'echo 2,1' (FORMAT csv)}, '' ],
	[ 'after COPY into a foreign table', $read, q{COPY spare FROM PROGRAM 'echo 1'}, '' ],
	[ 'after COPY into a partition', $read, q{COPY parted FROM PROGRAM 'echo 1'}, '' ],
	[ 'after INSERT into a partition', $read, 'INSERT INTO parted VALUES (1)', '' ],
	[ 'after TRUNCATE', $read, 'TRUNCATE emptied', '' ],
	[ 'after ANALYZE', $read, 'ANALYZE log_0', '' ],
	[ 'after IMPORT FOREIGN SCHEMA', $read, 'IMPORT FOREIGN SCHEMA public LIMIT TO (part) FROM SERVER n1 INTO imported', '' ],
	[ 'after planning', $read, 'EXPLAIN SELECT * FROM asked', '' ],
	[ 'a session that had not loaded the library', $read, $used, undef ],
	[ 'a session whose ANALYZE loaded it', $read, 'ANALYZE other', undef ]);
my %session = map { $_->[0] => begun($_->[2], $_->[3]) } @refused;
my $named = begun($used, '');
my $other_key = begun($used, '');
my $inserts = begun($used, '');
my $local = begun(q{SELECT count(*) FROM log_2; INSERT INTO log_2 SELECT -id, 1 FROM log_2 LIMIT 0; COPY local FROM PROGRAM 'echo 1'; TRUNCATE local; ANALYZE local}, '');
my $begun = begun('SELECT 1', '');
my $unread = begun($used, '');
my $amid = begun('COMMIT', '');
my ($waits, $new) = (begun('SELECT 1', ''), begun('SELECT 1', undef));

move_gone('log_1', 'n1', 1);
$amid->query_safe("BEGIN; $used");
foreach my $session ($waits, $new)
{
	send_to($session, "$read;\n");
	poll_ok($here, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = $session->{pid}", 'a query waits for the move');
}
$mover->query_safe('COMMIT');

refused($session{ $_->[0] }, $_->[1], $_->[0]) foreach @refused;
refused($amid, $read, 'a snapshot from while the shard was being moved');
fails($named, 'SELECT count(*) FROM log_1', '40001', 'could not read shard "log_1" because it has been moved',
	detail => qr/before shard "log_1" was moved to server "n1"/, title => 'by its own name');
$named->query_safe('ROLLBACK');
is($named->query_safe('SELECT count(*) FROM log_1'), $here->safe_psql('postgres', 'SELECT count(*) FROM log_1'), 'by its own name, later');
is((state_of($other_key, "SELECT v FROM log WHERE id = $ids[0]"))[0], '00000', 'rows of another shard');
is((state_of($inserts, "INSERT INTO log SELECT $ids[1] + 2000000 + g, 1 FROM generate_series(1, 20) g; INSERT INTO log_1 VALUES (-$ids[1], 1)"))[0],
	'00000', 'INSERT goes on');
foreach ([ $waits, 'one that has waited' ], [ $new, 'one that has waited, in a new session' ])
{
	my ($session, $title) = @$_;

	is((state_of($session, 'SELECT'))[0], '00000', $title);
	is($session->query_safe($read), $total, "$title, and reads again");
}
is($begun->query_safe("$read; $read"), "$total\n$total", 'a transaction that uses the node for the first time');
is($local->query_safe($read), $total, 'a transaction that has used local tables only');
is((state_of($unread, "SELECT count(*) FROM log_0; SELECT count(*) FROM twin; EXPLAIN $read"))[0], '00000', 'one that does not read it goes on');
$_->query_safe('ROLLBACK') foreach $other_key, $inserts, $waits, $new, $begun, $local, $unread;

# Snapshots with so many subtransactions that they do not have them all.
my $overflow = begun(q{DO $$BEGIN FOR i IN 1 .. 80 LOOP BEGIN INSERT INTO local VALUES (i);
	EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END$$}, '');
$mover->query_safe("SELECT shard_fdw.move_shard('log_1', 'local')");
my $blind = begun($used, '');
move_gone('log_1', 'n1');
refused($blind, $read, 'a snapshot that does not know all subtransactions');
$overflow->query_safe('COMMIT');
is($blind->query_safe("BEGIN; $used; $read; ROLLBACK") =~ s/.*\n//sr, $total, 'all have ended');

# A transaction that sees no row that is gone, for there is none.
my $before = begun($used, '');
$mover->query_safe("SELECT shard_fdw.move_shard('log_1', 'n2'); SELECT shard_fdw.move_shard('log_2', 'n1')");
is($before->query_safe($read), $total, 'no rows are gone');
$before->query_safe('COMMIT');

# A snapshot of one's own from before is what counts first.
my $repeatable = session($here);
$repeatable->query_safe("$read; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log_0");
my $writer = begun('INSERT INTO local VALUES (1)', '');
my $unloaded = session($here);
move_gone('log_3', 'n1');
is($unloaded->query_safe("$used; $read") =~ s/.*\n//sr, $total, 'one query of a session that had not loaded the library');
$writer->query_safe('COMMIT');
fails($repeatable, $read, '40001', 'could not read foreign table "log" because its shards have been replaced',
	detail => qr/^The snapshot of the transaction or statement is older/, title => 'REPEATABLE READ');
$repeatable->query_safe('ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log_0');
is($repeatable->query_safe($read), $total, 'REPEATABLE READ, later');
$repeatable->query_safe('COMMIT');

# Back here, nothing is gone.
my $again = begun($used, '');
move_gone('log_3', 'local');
is($again->query_safe($read), $total, 'a shard that has come back');
$again->query_safe('COMMIT');
is($here->safe_psql('postgres', q{SELECT count(*) FROM (SELECT * FROM log EXCEPT ALL SELECT * FROM twin) d; SELECT count(*) FROM log}), "0\n400", 'the same rows');

done_testing();
