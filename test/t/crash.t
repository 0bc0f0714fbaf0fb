# The server dies under running writers: nothing that was committed is lost,
# no statement is there in part, and no lease survives.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('crash', conf => "restart_after_crash = on\n");
$node->safe_psql('postgres', q{
	CREATE TABLE model (run int, client int, n int, part int,
	                    PRIMARY KEY (run, client, n, part));
	CREATE FOREIGN TABLE log (run int, client int, n int, part int)
	  SERVER shards OPTIONS (shards '4', template 'model');
	CREATE FOREIGN TABLE rr (run int, client int, n int, part int)
	  SERVER shards OPTIONS (shards '4', template 'model', route 'round_robin');
	CREATE UNLOGGED TABLE scratch_model (a int);
	CREATE FOREIGN TABLE scratch (a int)
	  SERVER shards OPTIONS (shards '2', template 'scratch_model');
});

# A client counts its transactions in :n.  Each writes five rows into either
# table: with a batch, and row by row.
my $script = q{
\set n :n + 1
BEGIN;
INSERT INTO log SELECT :run, :client_id, :n, g FROM generate_series(1, 5) g;
INSERT INTO rr VALUES (:run, :client_id, :n, 1), (:run, :client_id, :n, 2),
  (:run, :client_id, :n, 3);
INSERT INTO rr VALUES (:run, :client_id, :n, 4);
INSERT INTO rr VALUES (:run, :client_id, :n, 5);
COMMIT;
};

sub start_writers
{
	my ($run) = @_;
	my $bench = pgbench_start($node, $script, '-c', '6', '-j', '2',
		'-T', '120', '-D', 'n=0', '-D', "run=$run");

	poll_ok($node,
		"SELECT count(*) > 2000 AND count(DISTINCT client) = 6 FROM log WHERE run = $run",
		"run $run: writers are at work");
	return $bench;
}

# Compare with what the clients were told was committed.  One more
# transaction of each may have been on its way.
sub check_rows
{
	my ($run, $bench) = @_;

	isnt(pgbench_finish($bench)->{status}, 0, "run $run: writers were cut off");
	poll_ok($node, 'SELECT true', "run $run: the server is back");
	my %told = ((map { $_ => 0 } 0 .. 5), %{ $bench->{clients} });

	foreach my $table ('log', 'rr')
	{
		my %found =
		  map { split(/\|/) } split(/\n/,
			$node->safe_psql('postgres', qq{
				SELECT client, count(DISTINCT n) FROM $table
				 WHERE run = $run GROUP BY client}));
		my @wrong = grep {
			$found{$_} < $told{$_} || $found{$_} > $told{$_} + 1
		} sort keys %told;
		is("@wrong", '', "run $run: $table has what was committed")
		  or diag(explain(\%told, \%found));
	}

	is( $node->safe_psql('postgres', qq{
			SELECT count(*) FROM (
				SELECT client, n FROM log WHERE run = $run
				GROUP BY client, n HAVING count(*) <> 5 OR count(DISTINCT part) <> 5
				UNION ALL
				SELECT client, n FROM rr WHERE run = $run
				GROUP BY client, n HAVING count(*) <> 5 OR count(DISTINCT part) <> 5
			) half}),
		'0', "run $run: no statement is there in part");
	is( $node->safe_psql('postgres', qq{
			SELECT count(*) FROM
			  (SELECT * FROM log WHERE run = $run EXCEPT SELECT * FROM rr) a FULL JOIN
			  (SELECT * FROM rr WHERE run = $run EXCEPT SELECT * FROM log) b ON false}),
		'0', "run $run: both tables of a transaction have its rows");
	is( $node->safe_psql('postgres', q{
			SET enable_seqscan = off; SET enable_bitmapscan = off;
			SELECT count(*) FROM log WHERE run > 0 AND part = 1}),
		$node->safe_psql('postgres', q{
			SET enable_indexscan = off; SET enable_indexonlyscan = off;
			SET enable_bitmapscan = off;
			SELECT count(*) FROM log WHERE run > 0 AND part = 1}),
		"run $run: the indexes agree with the shards");
	is( $node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
		'0', "run $run: leases are free");
	is( $node->safe_psql('postgres', qq{
			INSERT INTO log VALUES (0, $run, 0, 0) RETURNING client;
			INSERT INTO rr VALUES (0, $run, 0, 0);
			SELECT level FROM shard_fdw.leases}),
		"$run\n0", "run $run: inserts go on, with a lease of the first level");
}

# Immediate stop.  An unlogged shard comes back empty, like any such table.

my $bench = start_writers(1);
$node->safe_psql('postgres', 'INSERT INTO scratch SELECT generate_series(1, 100)');
$node->stop('immediate');
$node->start;
check_rows(1, $bench);
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM scratch;
		INSERT INTO scratch VALUES (1), (2);
		SELECT count(*) FROM scratch}),
	"0\n2", 'unlogged shards are empty, and take inserts');

# One backend is killed; the server drops all and starts over by itself.

$bench = start_writers(2);
my $idle = $node->background_psql('postgres', on_error_stop => 0);
$idle->query_safe('INSERT INTO log VALUES (0, 0, 0, 1)');
my $pid = $idle->query_safe('SELECT pg_backend_pid()');
$pid = $node->safe_psql('postgres',
	"SELECT pid FROM shard_fdw.leases WHERE pid <> $pid LIMIT 1");
like($pid, qr/^\d+$/, 'a writer that leases a shard');
is(kill('KILL', $pid), 1, 'the writer that leases a shard is killed');
check_rows(2, $bench);
eval { $idle->quit };

# A session that is terminated gives its lease back; the others do not notice.

my @sessions = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 5;
$_->query_safe("INSERT INTO log VALUES (0, 100, pg_backend_pid(), 1)")
  foreach @sessions;
my $victim = $sessions[4]->query_safe('SELECT pg_backend_pid()');
is( $node->safe_psql('postgres',
		"SELECT level FROM shard_fdw.leases WHERE pid = $victim"),
	'1', 'five sessions, four shards');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($victim)");
poll_ok($node,
	"SELECT count(*) = 4 AND max(level) = 0 FROM shard_fdw.leases",
	'the lease of a terminated session is free');
pop(@sessions);
$_->query_safe("INSERT INTO log VALUES (0, 101, pg_backend_pid(), 1)")
  foreach @sessions;
is( $node->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT tableoid), count(DISTINCT n) FROM log
		 WHERE run = 0 AND client = 101}),
	'4|4|4', 'the others go on with theirs');
$_->quit foreach @sessions;

$node->stop;
done_testing();
