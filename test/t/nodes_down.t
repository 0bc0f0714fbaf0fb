# A node that is down: queries that need not ask it, and those that do without.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;

$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE TABLE model (id bigint PRIMARY KEY, k int, at timestamptz);
	CREATE FOREIGN TABLE h (id bigint, k int, at timestamptz) SERVER shards
	  OPTIONS (shards '6', template 'model', nodes 'n1, n2, local', route 'hash', key 'id');
	CREATE FOREIGN TABLE s (i int, at timestamptz NOT NULL) SERVER shards OPTIONS (shards '3', nodes 'n1, n2, local', time_column 'at');
	INSERT INTO h SELECT g, g, '2020-01-01'::timestamptz + g * interval '1 h' FROM generate_series(1, 600) g;
	INSERT INTO s SELECT 1, '2020-01-01';
	ALTER TABLE s_0 ADD CONSTRAINT shard_range CHECK (at >= '2021-01-01' AND at < '2022-01-01');
	ALTER TABLE s_1 ADD CONSTRAINT shard_range CHECK (at >= '2022-01-01' AND at < '2023-01-01');
	ALTER TABLE s_2 ADD CONSTRAINT shard_range CHECK (at >= '2023-01-01' AND at < '2024-01-01') NOT VALID;
	CREATE TABLE plain AS SELECT * FROM h;
	CREATE TABLE keys (id bigint, node text);
	INSERT INTO keys SELECT id, COALESCE(server, 'here') FROM h JOIN shard_fdw.shards ON shard = h.tableoid;
	ANALYZE h_2, h_5, keys, plain});
my %key = map { $_ => $here->safe_psql('postgres', "SELECT min(id) FROM keys WHERE node = '$_' AND id > 100") } qw(n1 n2 here);
my @all = split(/\|/, $here->safe_psql('postgres',
	q{SELECT count(*), sum(k) FROM h WHERE tableoid::regclass::text NOT IN ('h_1', 'h_4')}));

$n2->stop('immediate');

# What asks one node for a key works without the other, planned for the key or not,
# in a new session and in one that knows our library.
my $first = 'SELECT 1;';
sub works
{
	my ($node, $types, $query, $wanted) = @_;
	my $key = $key{$node};

	foreach my $mode ('force_custom_plan', 'force_generic_plan')
	{
		my ($state, $message, $said) = sqlstate($here, qq{
			$first
			SET plan_cache_mode = $mode;
			BEGIN;
			PREPARE p($types) AS $query;
			EXECUTE p($key);
			ROLLBACK});

		is("$state $message", '00000 ', "$node, $mode: $query") or diag($said);
		is($here->safe_psql('postgres', qq{
				LOAD 'shard_fdw';
				SET plan_cache_mode = $mode;
				BEGIN;
				PREPARE p($types) AS $query;
				EXECUTE p($key);
				ROLLBACK}), $wanted // $key, "$node, $mode: result")
		  if $state eq '00000';
	}
	return;
}

works('n1', 'bigint', @$_) foreach (
	['SELECT id FROM h WHERE id = $1'],
	['SELECT max(id) FROM h WHERE id = $1'],
	['SELECT (SELECT h.id FROM h WHERE h.id = plain.id) FROM plain WHERE id = $1'],
	['WITH a AS (SELECT * FROM h WHERE id = $1) SELECT a.id FROM a, a b'],
	['SELECT id FROM h WHERE id = $1 FOR UPDATE']);
$first = q{LOAD 'shard_fdw';};
foreach my $node ('n1', 'here')
{
	works($node, 'bigint', @$_) foreach (
		['SELECT id FROM h WHERE id = $1'],
		['SELECT id FROM h WHERE id = $1 AND k > 0 ORDER BY at LIMIT 1'],
		['SELECT max(id) FROM h WHERE id = $1'],
		['SELECT id FROM h WHERE id = ANY (ARRAY[$1])'],
		['SELECT h.id FROM h JOIN plain USING (id) WHERE h.id = $1'],
		['SELECT h.id FROM plain LEFT JOIN h USING (id) WHERE plain.id = $1'],
		['SELECT id FROM plain WHERE id = $1 AND EXISTS (SELECT FROM h WHERE h.id = plain.id)'],
		['SELECT (SELECT h.id FROM h WHERE h.id = plain.id) FROM plain WHERE id = $1'],
		['WITH a AS (SELECT * FROM h WHERE id = $1) SELECT a.id FROM a, a b'],
		['SELECT a.id FROM h a JOIN h b USING (id) WHERE a.id = $1'],
		['UPDATE h SET k = 0 WHERE id = $1 RETURNING id'],
		['UPDATE h SET k = plain.k FROM plain WHERE h.id = plain.id AND h.id = $1 RETURNING h.id'],
		['DELETE FROM h WHERE id = $1 RETURNING id'],
		['SELECT id FROM h WHERE id = $1 FOR UPDATE']);
}
fails($here, "SELECT * FROM h WHERE id = $key{n2}", '08001', 'could not connect to server "n2"');
fails($here, 'SELECT count(*) FROM h', '08001', 'could not connect to server "n2"');

is((sqlstate($here, q{SELECT count(*) FROM s WHERE at > '2023-06-01'}))[0], '00000', 'times');

# shard_fdw.skip_nodes

my $skip = q{SET shard_fdw.skip_nodes = 'n2'; };
my $warning = qr/WARNING:  01000: rows of shards on server "n2" are left out/;

# What a query returns without the node, and how often it says so.
sub without
{
	my ($query, $wanted, $title) = @_;
	my $session = session($here);

	state_of($session, $_) foreach split(/;/, $skip), $query =~ /^(.*);/s ? $1 : ();
	my ($state, $message, $rows, $said) = state_of($session, $query =~ s/^.*;//sr);
	my $n = () = $said =~ /$warning/g;

	is("$state $message $rows", "00000  $wanted", "skip_nodes: $title") or diag($said);
	is($n, 1, "skip_nodes: $title: one warning");
	return;
}

my $counts = join('|', @all);
without('SELECT count(*), sum(k) FROM h', $counts, 'a query');
without('SET enable_partitionwise_aggregate = on; SELECT count(*), sum(k) FROM h', $counts, 'partial aggregates');
without('SELECT count(*), sum(k) FROM (SELECT * FROM h ORDER BY id LIMIT 10000) s', $counts, 'sorted');
without("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET enable_partitionwise_aggregate = $_; SELECT count(*), sum(k) FROM h",
	$counts, "with workers, partition-wise aggregation $_") foreach 'on', 'off';
without('SELECT count(*), sum(h.k) FROM h JOIN plain USING (id)', $counts, 'a join');
without('SELECT count(*), (SELECT sum(k) FROM h) FROM h', $counts, 'a query that reads it twice');
without('SET plan_cache_mode = force_generic_plan; PREPARE p AS SELECT count(*), sum(k) FROM h; EXECUTE p', $counts, 'a prepared query');
without("SELECT id FROM h WHERE id = $key{n2}", '', 'a key');
my $session = session($here);
state_of($session, q{SET plan_cache_mode = force_generic_plan});
state_of($session, 'PREPARE p AS SELECT count(*), sum(k) FROM h');
fails($session, 'EXECUTE p', '08001', 'could not connect to server "n2"', title => 'a prepared query');
state_of($session, $skip);
foreach my $i (1, 2)
{
	my ($state, $message, $rows, $said) = state_of($session, 'EXECUTE p');

	is($rows, $counts, "skip_nodes: the same query, $i");
	like($said, $warning, "skip_nodes: it warns each time, $i");
}
my ($state, $message, $rows, $said) = state_of($session, "SELECT id FROM h WHERE id = $key{n1}");
is("$rows $said", "$key{n1} ", 'skip_nodes: no warning if the node is not asked');
like($here->safe_psql('postgres', "$skip EXPLAIN (COSTS OFF) SELECT * FROM h"), qr/Custom Scan \(shard_fdw skipped node\) on h_1/,
	'skip_nodes: EXPLAIN');
fails($session, $_, '08001', 'could not connect to server "n2"')
  foreach 'UPDATE h SET k = 1', 'DELETE FROM h', 'SELECT * FROM h FOR UPDATE', 'INSERT INTO plain SELECT * FROM h', 'INSERT INTO h SELECT generate_series(100000, 100050)';
state_of($session, 'SET shard_fdw.skip_nodes = DEFAULT');
fails($session, 'EXECUTE p', '08001', 'could not connect to server "n2"', title => 'skip_nodes: and back');
fails($session, q{SET shard_fdw.skip_nodes = 'n2,,'}, '22023', 'invalid value for parameter "shard_fdw.skip_nodes": "n2,,"');

# A session whose leased shard cannot be reached leases another one.

$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE FOREIGN TABLE log (i int) SERVER shards;
	SELECT shard_fdw.create_shards('log', 1, node => 'n1');
	CREATE FOREIGN TABLE log_1 () INHERITS (log) SERVER n2 OPTIONS (table_name 'log_1')});
# Both sessions are there at once, so one of them leases that shard.
my @sessions = map { session($here) } 1 .. 2;
my @first = map { (state_of($_, 'INSERT INTO log VALUES (1)'))[0] } @sessions;
ok((grep { /^08/ } @first), 'a session has leased the shard that cannot be reached');
is((state_of($_, 'INSERT INTO log VALUES (2)'))[0], '00000', 'its next insert goes elsewhere') foreach @sessions;
is($here->safe_psql('postgres', 'SELECT count(*) FROM log_0'), 2 + grep({ $_ eq '00000' } @first), 'the rows are there');

done_testing();
