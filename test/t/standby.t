# A streaming standby reads logical tables, refuses inserts, and takes them
# once it is promoted.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = shard_node('primary', allows_streaming => 1,
	conf => "max_wal_size = 1GB\nshared_buffers = 16MB\n");
$primary->safe_psql('postgres', q{
	CREATE FOREIGN TABLE log (id bigserial, k int, v text)
	  SERVER shards OPTIONS (shards '4');
	CREATE FOREIGN TABLE rr (k int) SERVER shards OPTIONS (shards '3', route 'round_robin');
	SELECT shard_fdw.run_command_on_shards('log', 'ALTER TABLE %s ADD PRIMARY KEY (id)');
});
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# A row of every kind of insert, after the standby was made; shards, too.
$primary->safe_psql('postgres', q{
	SET shard_fdw.shard = 0;
	INSERT INTO log (k, v) SELECT g % 7, 'a' || g FROM generate_series(1, 5000) g;
	SET shard_fdw.shard = 3;
	INSERT INTO log (k, v) SELECT g % 5, 'b' || g FROM generate_series(1, 3000) g;
	RESET shard_fdw.shard;
	INSERT INTO log (k, v) VALUES (100, 'single');
	INSERT INTO rr SELECT generate_series(1, 300);
	SELECT shard_fdw.create_shards('rr', 1);
	SELECT shard_fdw.seal('rr_0');
	CREATE TABLE archive (v text, extra int, k int, id bigint NOT NULL);
	INSERT INTO archive VALUES ('archived', 1, 200, -1);
	ALTER TABLE archive INHERIT log;
	DELETE FROM log WHERE k = 3;
	UPDATE log SET v = 'updated' WHERE k = 2;
	ANALYZE log, rr;
	CREATE UNLOGGED TABLE unlogged (id serial PRIMARY KEY);
	INSERT INTO unlogged DEFAULT VALUES;
	CREATE FOREIGN TABLE volatile (k int) SERVER shards;
	CREATE UNLOGGED TABLE volatile_0 () INHERITS (volatile);
});
my $session = $primary->background_psql('postgres');
$session->query_safe('INSERT INTO log (k) VALUES (300)');
$primary->wait_for_catchup($standby);

my %queries = (
	'a count' => 'SELECT count(*), sum(k), min(v), max(id) FROM log',
	'groups' => 'SELECT k, count(*), max(v) FROM log GROUP BY k ORDER BY k',
	'groups, shard by shard' => q{
		SET enable_partitionwise_aggregate = on; SET max_parallel_workers_per_gather = 2;
		SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
		SET min_parallel_table_scan_size = 0;
		SELECT k, count(*), max(v) FROM log GROUP BY k ORDER BY k},
	'an index' => 'SET enable_seqscan = off; SELECT * FROM log WHERE id IN (-1, 1, 5001, 8001)
		ORDER BY id',
	'the first rows' => 'SELECT id, v FROM log ORDER BY id LIMIT 5',
	'a join' => 'SELECT count(*), sum(a.k) FROM log a JOIN rr b ON a.id = b.k',
	'which shard' => 'SELECT tableoid::regclass, count(*) FROM log GROUP BY 1 ORDER BY 1::text',
	'ONLY' => 'SELECT * FROM ONLY log',
	'the shards' => q{
		SELECT logical, shard, ordinal, state, kind, estimated_rows, bytes > 0
		  FROM shard_fdw.shards ORDER BY 1::text, 3},
	'commands for the shards' => q{SELECT shard_fdw.format_on_shards('log', 'VACUUM %s')},
);
my %expected;
foreach my $name (sort keys %queries)
{
	$expected{$name} = $primary->safe_psql('postgres', $queries{$name});
	is($standby->safe_psql('postgres', $queries{$name}),
		$expected{$name}, "standby: $name");
}
# What is not there on a standby does not spoil the views.
is( $standby->safe_psql('postgres', q{
		SELECT maximum FROM shard_fdw.sequences WHERE tbl = 'unlogged'::regclass;
		SELECT count(maximum) > 1 FROM shard_fdw.sequences;
		SELECT kind, bytes IS NOT NULL FROM shard_fdw.shards WHERE shard = 'volatile_0'::regclass}),
	"\nt\nunlogged table|t", 'standby: views show what there is');
is($expected{'a count'} =~ s/\|.*//r, 8003 - 714 - 600,
	'the standby has the rows');

is($primary->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
	'1', 'a session of the primary leases a shard');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.leases'),
	'0', 'leases are not replicated');

foreach my $command (
	'INSERT INTO log (k) VALUES (1)',
	'INSERT INTO rr SELECT generate_series(1, 10)',
	'COPY rr FROM stdin',
	'UPDATE log SET k = 1',
	'DELETE FROM log',
	'SELECT * FROM log FOR UPDATE',
	'TRUNCATE log',
	q{SELECT shard_fdw.seal('log_0')},
	q{SELECT shard_fdw.create_shards('log', 1)})
{
	# Functions that lock a shard get as far as that.
	fails($standby, $command, $command =~ /shard_fdw/ ? qr/^(25006|55000)$/ : '25006',
		qr/^cannot (execute|acquire lock mode) .*(read-only|recovery)/,
		title => "standby refuses: $command");
}
is( $standby->safe_psql('postgres', q{
		SELECT success, result FROM shard_fdw.run_command_on_shards('rr', 'SELECT count(*)
		  FROM %s')}),
	$primary->safe_psql('postgres', q{
		SELECT success, result FROM shard_fdw.run_command_on_shards('rr', 'SELECT count(*)
		  FROM %s')}),
	'standby runs queries on shards');

# A session that has plans and caches from before the promotion.
my $reader = $standby->background_psql('postgres', on_error_stop => 0);
$reader->query_safe('PREPARE total AS SELECT count(*) FROM log');
$reader->query_safe('PREPARE ins AS INSERT INTO log (k, v) VALUES (1000, $$new$$)');
is($reader->query_safe('EXECUTE total'), 8003 - 714 - 600, 'a prepared query');
my (undef, $failed) = $reader->query('EXECUTE ins');
is($failed, 1, 'a prepared insert is refused');
$reader->{stderr} = '';

$session->quit;
$primary->wait_for_catchup($standby);
$primary->stop;
$standby->promote;

$reader->query_safe('EXECUTE ins');
is($reader->query_safe('EXECUTE total'),
	8003 - 714 - 600 + 1, 'promoted: the same session inserts');
is( $standby->safe_psql('postgres', q{
		INSERT INTO log (k, v) SELECT 1000, 'new' FROM generate_series(1, 50);
		INSERT INTO rr SELECT 1000 FROM generate_series(1, 30);
		SELECT count(*), count(DISTINCT tableoid) FROM rr WHERE k = 1000;
		SELECT count(*), count(DISTINCT id) FROM log WHERE k = 1000}),
	"30|3\n51|51", 'promoted: others insert, the sealed shard apart');
is( $standby->safe_psql('postgres', q{
		SELECT sessions, count(*) FROM shard_fdw.shards
		 WHERE logical = 'log'::regclass GROUP BY 1 ORDER BY 1}),
	"0|4\n1|1", 'promoted: leases as ever');
$reader->quit;

$standby->stop;
done_testing();
