# Backends that die in the middle of a statement of many rows, and a server that
# stops under 32 clients: what was committed is there, nothing else is, and
# whatever was held is free.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('faults', conf => q{
restart_after_crash = on
track_commit_timestamp = on
session_preload_libraries = 'shard_fdw'
});
$node->safe_psql('postgres', q{
	CREATE TABLE model (client int, n int, part int, v text, PRIMARY KEY (client, n, part));
	CREATE INDEX ON model (v);
	CREATE FOREIGN TABLE log (client int, n int, part int, v text)
	  SERVER shards OPTIONS (shards '4', template 'model', batch_size '50');
	CREATE FOREIGN TABLE rr (client int, n int, part int, v text)
	  SERVER shards OPTIONS (shards '4', template 'model', batch_size '50', route 'round_robin');
	CREATE FOREIGN TABLE keyed (client int, n int, part int, v text)
	  SERVER shards OPTIONS (shards '4', template 'model', batch_size '50', route 'hash',
	    key 'client, n');
	CREATE TABLE lane_model (LIKE model INCLUDING ALL, id bigint UNIQUE);
	CREATE FOREIGN TABLE lanes (client int, n int, part int, v text, id bigint
	  OPTIONS (sequence 'always'))
	  SERVER shards OPTIONS (shards '4', template 'lane_model', batch_size '50',
	    commit_order 'true');
	CREATE TABLE counter_model (k int PRIMARY KEY, n int);
	CREATE FOREIGN TABLE counters (k int, n int)
	  SERVER shards OPTIONS (shards '4', template 'counter_model', route 'hash', key 'k');
});
my @tables = ('log', 'rr', 'keyed', 'lanes');

# ---- Sessions that are killed.

my %ways = (
	terminated => sub {
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($_->{pid})") foreach @_;
	},
	killed => sub { kill('KILL', $_->{pid}) foreach $_[0]; });
my $run = 100;

foreach my $way (sort keys %ways)
{
	foreach my $table (@tables)
	{
		my $title = "$table, $way";
		my ($copy, $select, $batch) = map { session($node) } 1 .. 3;
		$run++;

		# Something that stays; rolled back, and not yet committed.
		$_->query_safe("INSERT INTO $table VALUES ($run, $_->{pid}, 0, 'stays')")
		  foreach $copy, $select, $batch;
		$batch->query_safe(
			"BEGIN; INSERT INTO $table SELECT $run, 3, g, 'batch' FROM generate_series(1, 500) g;"
			  . ' SAVEPOINT s;'
			  . "INSERT INTO $table VALUES ($run, 4, 1, 'batch'), ($run, 4, 2, 'batch'),
			    ($run, 4, 3, 'batch');");
		send_to($select,
			"INSERT INTO $table SELECT $run, 2, g, 'select'"
			  . " FROM generate_series(1, 1000) g WHERE g < 1000 OR pg_sleep(600) IS NULL;\n");
		poll_ok($node, "SELECT wait_event = 'PgSleep' FROM pg_stat_activity
			WHERE pid = $select->{pid}",
			"$title: INSERT ... SELECT has come so far");
		copy_from($node, $copy, "COPY $table (client, n, part, v) FROM STDIN", 1000,
			map { "$run\t1\t$_\t" . 'c' x 40 } 1 .. 2000);

		$ways{$way}->($copy, $select, $batch);
		eval { $_->quit } foreach $copy, $select, $batch;
		# The server starts anew if one is killed.
		poll_ok($node, qq{
			SELECT count(*) = 0 FROM pg_stat_activity
			 WHERE pid IN ($copy->{pid}, $select->{pid}, $batch->{pid})}, "$title: they are gone");
		is( $node->safe_psql(
				'postgres', "SELECT count(*), min(v), max(v) FROM $table WHERE client = $run"),
			'3|stays|stays',
			"$title: what was committed is there, nothing else");
		is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
			'0', "$title: leases and lanes are free");
		indexes_ok($node, $title);
		is( $node->safe_psql('postgres', qq{
				SET lock_timeout = '10s';
				INSERT INTO $table SELECT $run, 1, g, 'again' FROM generate_series(1, 100) g;
				SELECT count(*) FROM $table WHERE client = $run}),
			'103', "$title: inserts go on");
	}
}

# ---- The server stops at once under 32 clients of all kinds.

# A client counts its transactions in :n, whatever they do.
my @scripts = (
	'INSERT INTO log SELECT :client_id, :n, g FROM generate_series(1, 5) g;',
	'INSERT INTO rr VALUES (:client_id, :n, 1), (:client_id, :n, 2), (:client_id, :n, 3),
		(:client_id, :n, 4); INSERT INTO rr VALUES (:client_id, :n, 5);',
	q{
\set k random(1, 20)
INSERT INTO keyed VALUES (:client_id, :n, 1, :k), (:client_id, :n, 2, 0), (:client_id, :n, 3, 0);
INSERT INTO keyed SELECT :client_id, :n, g, 0
  FROM generate_series(4, 5) g ON CONFLICT (client, n, part) DO UPDATE SET v = 'seen';
INSERT INTO counters VALUES (:k, 1) ON CONFLICT (k) DO UPDATE SET n = counters.n + EXCLUDED.n;},
	'INSERT INTO lanes SELECT :client_id, :n, g FROM generate_series(1, 5) g;');

foreach my $round (1, 2)
{
	$node->safe_psql('postgres', 'TRUNCATE log, rr, keyed, lanes, counters');
	my $bench = pgbench_start($node,
		[ map { [ "\\set n :n + 1\nBEGIN;\n$_\nCOMMIT;\n", 1 ] } @scripts ],
		'-c', '32', '-j', '2', '-T', '120', '-D', 'n=0');
	poll_ok(
		$node,
		join(' AND ', map { "(SELECT count(*) > 2000 FROM $_)" } @tables) =~ s/^/SELECT /r,
		"round $round: 32 clients are at work");
	$node->stop('immediate');
	pgbench_finish($bench);
	isnt($bench->{status}, 0, "round $round: they were cut off");
	$node->start;

	# What each client was told was committed, and in which table it is.
	my (%told, %last);
	foreach my $file (glob("$bench->{logs}/log.*"))
	{
		foreach my $line (split(/\n/, slurp_file($file)))
		{
			my ($client, $number, $time, $script) = split(/ /, $line);

			$last{$client} //= 0;
			$told{ "$client " . ++$last{$client} } = $tables[$script];
		}
	}
	my %found = map { split(/\|/) } split(/\n/,
		$node->safe_psql('postgres', join(' UNION ALL ', map { qq{
			SELECT client || ' ' || n, '$_' FROM $_ GROUP BY client, n
			  HAVING count(*) = 5} } @tables)));
	is(join(',', grep { ($found{$_} // '') ne $told{$_} } sort keys %told),
		'', "round $round: all that clients were told was committed is there");
	# One more of each client may have been on its way.
	is( join(',', grep {
				my ($client, $n) = split(/ /);
				!$told{$_} && $n != ($last{$client} // 0) + 1
			} sort keys %found),
		'', "round $round: nothing else");
	cmp_ok(scalar(keys %told), '>', 1000, "round $round: which is something");
	is( $node->safe_psql('postgres', join(' UNION ALL ', map { qq{
			SELECT client, n FROM $_ GROUP BY client, n
			  HAVING count(*) <> 5 OR count(DISTINCT part) <> 5} } @tables)),
		'', "round $round: no transaction is there in part");
	is( $node->safe_psql('postgres', q{
			SELECT k, n FROM counters
			EXCEPT SELECT v::int, count(*) FROM keyed WHERE part = 1 GROUP BY 1}),
		'', "round $round: counters have counted what is there");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.check_order('lanes')}),
		'0', "round $round: lanes are in order");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
		'0', "round $round: leases and lanes are free");
	indexes_ok($node, "round $round");
	is( $node->safe_psql(
			'postgres',
			join(';', map { "INSERT INTO $_ VALUES (-1, -1, 1)" } @tables)
			  . '; SELECT count(*) FROM ('
			  . join(
				' UNION ALL ', map { "SELECT * FROM $_ WHERE client = -1" } 'log', 'rr', 'keyed')
			  . ') rows'),
		'3',
		"round $round: inserts go on");
}

$node->stop;
done_testing();
