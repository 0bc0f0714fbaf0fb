# PREPARE TRANSACTION with inserts: the rows belong to the prepared
# transaction, the lease stays with the session.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('twophase', conf => "max_prepared_transactions = 10\n");
$node->safe_psql('postgres', q{
	CREATE TABLE model (a int PRIMARY KEY);
	CREATE FOREIGN TABLE log (a int) SERVER shards OPTIONS (shards '2', template 'model');
	CREATE FOREIGN TABLE rr (a int) SERVER shards OPTIONS (shards '3', route 'round_robin');
});

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $leases = 'SELECT shard, level, pid FROM shard_fdw.leases';

# The lease is taken in the transaction that is prepared.
$session->query_safe(q{
	BEGIN;
	INSERT INTO log VALUES (1);
	INSERT INTO log SELECT generate_series(2, 10);
	INSERT INTO rr SELECT generate_series(1, 30);
	PREPARE TRANSACTION 'one'});
my $lease = $node->safe_psql('postgres', $leases);
like($lease, qr/^log_\d\|0\|$pid$/, 'the session keeps its lease, nobody else has it');
my ($shard) = $lease =~ /^(\w+)/;
is($node->safe_psql('postgres', 'SELECT count(*) FROM log'),
	'0', 'the rows are not there yet');

# The session goes on with its lease, also while the transaction is prepared.
$session->query_safe('INSERT INTO log VALUES (100)');
is( $session->query_safe('SELECT tableoid::regclass, a FROM log'),
	"$shard|100", 'the session inserts into the same shard');

# Whoever wants to change the shard has to wait for the prepared transaction.
fails($node, "SET lock_timeout = '20ms'; $_", '55P03', undef, title => "$_ waits for it")
  foreach "SELECT shard_fdw.seal('$shard')",
  "DROP TABLE $shard",
  "ALTER TABLE $shard NO INHERIT log",
  "TRUNCATE log",
  "SELECT shard_fdw.seal('rr_1')";
is( $node->safe_psql('postgres', "SET lock_timeout = '10s';
	SELECT count(*) FROM shard_fdw.create_shards('rr', 1)"),
	'1', 'new shards need not wait');

$node->safe_psql('postgres', q{COMMIT PREPARED 'one'});
is( $node->safe_psql('postgres', q{
		SELECT count(*), sum(a), count(DISTINCT tableoid) FROM log;
		SELECT count(*), sum(a), count(DISTINCT tableoid) FROM rr}),
	"11|155|1\n30|465|3", 'committed: the rows are there');
$session->query_safe('INSERT INTO log VALUES (101)');
is($node->safe_psql('postgres', $leases), $lease, 'the lease is what it was');
is($node->safe_psql('postgres', "SELECT count(*) FROM $shard"),
	'12', 'the leased shard is used');

# Rolled back; also with a savepoint, and where the lease is older.
$session->query_safe(q{
	BEGIN;
	INSERT INTO log VALUES (200);
	SAVEPOINT s;
	INSERT INTO log VALUES (201);
	ROLLBACK TO s;
	INSERT INTO log VALUES (202);
	PREPARE TRANSACTION 'two'});
my ($ordinal) = $shard =~ /(\d)$/;
fails($node,
	"SET lock_timeout = '20ms'; SET shard_fdw.shard = $ordinal; INSERT INTO log VALUES (202)",
	'55P03', 'canceling statement due to lock timeout',
	title => 'a unique key waits for the prepared row');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'two'});
is($node->safe_psql('postgres', 'SELECT count(*) FROM log WHERE a >= 200'),
	'0', 'rolled back: no row');
is($node->safe_psql('postgres', $leases), $lease, 'the lease is what it was');

# A lock that the user takes has nothing to do with leases.
$session->query_safe(q{
	BEGIN;
	SELECT pg_advisory_xact_lock(1);
	INSERT INTO log VALUES (300);
	PREPARE TRANSACTION 'three'});
is($node->safe_psql('postgres', q{
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IS NULL}),
	'1', q{of the advisory locks, only the user's is the transaction's});

# A crash: the prepared transaction is still there, the lease is not.
$session->query_safe(q{
	BEGIN;
	INSERT INTO log VALUES (301);
	INSERT INTO rr SELECT 1000 FROM generate_series(1, 6);
	PREPARE TRANSACTION 'four'});
$node->stop('immediate');
eval { $session->quit };
$node->start;
is($node->safe_psql('postgres', $leases), '', 'after a crash: no leases');
fails($node, "SET lock_timeout = '20ms'; SELECT shard_fdw.seal('$shard')",
	'55P03', qq{could not obtain lock on relation "$shard" within 20 ms},
	title => 'after a crash: the shard is still locked');
is( $node->safe_psql('postgres', q{
		INSERT INTO log VALUES (400);
		COMMIT PREPARED 'four';
		ROLLBACK PREPARED 'three';
		SELECT string_agg(a::text, ' ' ORDER BY a) FROM log WHERE a >= 300;
		SELECT count(*) FROM rr WHERE a = 1000}),
	"301 400\n6", 'after a crash: commit and rollback');
is( $node->safe_psql('postgres', qq{
		SELECT shard_fdw.seal('$shard');
		INSERT INTO log VALUES (401);
		SELECT shard <> '$shard'::regclass FROM shard_fdw.leases}),
	"\nt", 'then the shard can be sealed');

# What a session knows of a table whose shards it has detached, in a
# transaction that is then rolled back, or prepared.
$session = $node->background_psql('postgres');
$session->query_safe(q{
	CREATE FOREIGN TABLE undone (a int) SERVER shards OPTIONS (shards '2', route 'round_robin');
	INSERT INTO undone SELECT generate_series(1, 10)});
foreach my $end ('ROLLBACK', q{PREPARE TRANSACTION 'five'})
{
	is( $session->query_safe(qq{
			BEGIN;
			ALTER TABLE undone_0 NO INHERIT undone;
			ALTER TABLE undone_1 NO INHERIT undone;
			SELECT count(*) FROM undone;
			$end}),
		'0', "$end: without its shards the table is empty");
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'five'}) if $end =~ /five/;
	is($session->query_safe('SELECT count(*) FROM undone'),
		'10', "$end: all rows are back");
	is( $session->query_safe('INSERT INTO undone VALUES (0) RETURNING a'),
		'0', "$end: and the table takes rows");
	$session->query_safe('DELETE FROM undone WHERE a = 0');
}
$session->quit;

# The same for a statement that such a transaction has prepared, in a session
# that knew nothing of the table, and where a savepoint saw it first.
foreach my $savepoint ('', 'SAVEPOINT s; SELECT count(*) FROM undone; ROLLBACK TO s;')
{
	$session = $node->background_psql('postgres');
	$session->query_safe('SELECT count(*) FROM undone') if $savepoint;
	$session->query_safe(qq{
		BEGIN;
		ALTER TABLE undone_0 NO INHERIT undone;
		$savepoint
		PREPARE total AS SELECT count(*) FROM undone;
		EXECUTE total;
		ROLLBACK});
	is($session->query_safe('EXECUTE total'), '10', "prepared meanwhile, $savepoint");
	$session->quit;
}

$node->stop;
done_testing();
