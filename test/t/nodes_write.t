# What a transaction writes to several servers, and ids for shards there.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my $columns = 'id bigint, k int, v text';
my $note = 'the table has option "single_node"';

# Without the option, a commit can fail in part, and a warning has said so.

$here->safe_psql('postgres', q{
	CREATE FOREIGN TABLE parts (id bigint, k int, v text) SERVER shards
	  OPTIONS (route 'hash', key 'k')});
$nodes[0]->safe_psql('postgres', "CREATE TABLE parts_0 ($columns)");
$nodes[1]->safe_psql('postgres',
	"CREATE TABLE parts_1 ($columns, UNIQUE (v) DEFERRABLE INITIALLY DEFERRED)");
my ($state, $message, $output) = sqlstate($here, q{
	CREATE FOREIGN TABLE parts_0 (CHECK (shard_fdw.in_hash(2, 0, k))) INHERITS (parts) SERVER n1});
like($output, qr/ WARNING:  01000: transactions that write to foreign table "parts" and to other tables or servers may commit in part$/m,
	'the first remote shard: a warning');
like($output, qr/^DETAIL:  Shard "parts_0" is on server "n1"\. /m, 'the first remote shard: where it is');
(undef, undef, $output) = sqlstate($here, q{
	CREATE FOREIGN TABLE parts_1 (CHECK (shard_fdw.in_hash(2, 1, k))) INHERITS (parts) SERVER n2});
unlike($output, qr/WARNING/, 'the second remote shard: no warning');
fails($here, q{INSERT INTO parts SELECT g, g, 'same' FROM generate_series(1, 20) g}, '23505',
	qr/^duplicate key value violates unique constraint "parts_1_v_key"/,
	title => 'a commit fails on one node');
cmp_ok($here->safe_psql('postgres', q{SELECT count(*) FROM parts}), '<', 20,
	'a commit fails on one node: nothing is left there');

# With it

$here->safe_psql('postgres', q{
	CREATE FOREIGN TABLE h (id bigint OPTIONS (sequence 'by_default'), k int, v text) SERVER shards
	  OPTIONS (route 'hash', key 'k', single_node 'true');
	CREATE FOREIGN TABLE s (id bigint OPTIONS (sequence 'always'), k int, v text) SERVER shards
	  OPTIONS (single_node 'true')});
add_shards('h', $columns, 'shard_fdw.in_hash(4, %d, k)', 'n1', 'n2', 'local', 'n1');
add_shards('s', $columns, '', 'n1', 'local', 'n2');
is( $here->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT sequence) FROM shard_fdw.reset_sequences('h');
		SELECT count(*), count(DISTINCT sequence) FROM shard_fdw.reset_sequences('s')}),
	"4|4\n3|3", 'reset_sequences() gives remote shards sequences');

# Some keys of each shard
my @keys = map { [ split(/,/) ] } split(/\n/, $here->safe_psql('postgres', q{
	SELECT string_agg(g::text, ',') FROM generate_series(1, 200) g, generate_series(0, 3) r
	 WHERE shard_fdw.in_hash(4, r, g) GROUP BY r ORDER BY r}));

# Runs commands in a transaction; the last must be refused for shard and place.
sub refused
{
	my ($shard, $place, $before, @commands) = @_;
	my $last = $commands[-1];

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	fails($here, join('; ', 'BEGIN', @commands, 'COMMIT'), '25000',
		qr/^cannot write to shard "$shard" of foreign table "\w" in this transaction$/,
		detail => qr/^The shard is on $place, the transaction has written to $before, and $note\.$/,
		hint => 'Use a transaction for each server.',
		title => "refused: " . join('; ', @commands));
	return;
}

sub allowed
{
	my @commands = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', (sqlstate($here, join('; ', 'BEGIN', @commands, 'COMMIT')))[ 0, 1 ]),
		'00000 ', 'allowed: ' . join('; ', @commands));
	return;
}

sub row { my ($shard, $n) = @_; return "INSERT INTO h (k) VALUES ($keys[$shard][$n // 0])"; }

refused('h_1', 'server "n2"', 'server "n1"', row(0), row(1));
refused('h_2', 'this one', 'server "n1"', row(0), row(2));
refused('h_0', 'server "n1"', 'this server', row(2), row(0));
refused('h_\d', 'server "n2"', 'server "n1"',
	"INSERT INTO h (k) VALUES ($keys[3][0]), ($keys[0][0]), ($keys[1][0])");
refused('h_\d', '.*', '.*', 'INSERT INTO h (k) SELECT generate_series(1, 20)');
refused('h_\d', '.*', '.*', q{COPY h (k) FROM PROGRAM 'seq 1 20'});
allowed(row(0), row(3), row(0, 1));
allowed(row(2), row(2, 1));
allowed(row(1));
is($here->safe_psql('postgres', 'SELECT count(*) FROM h'), 6, 'what is refused is not there');

# What is rolled back does not count.
allowed('SAVEPOINT s', row(0), 'ROLLBACK TO s', row(1));
allowed('SAVEPOINT s', 'SAVEPOINT t', row(0), 'RELEASE t', 'ROLLBACK TO s', row(1));
refused('h_1', 'server "n2"', 'server "n1"',
	'SAVEPOINT s', 'SAVEPOINT t', row(0), 'RELEASE t', 'RELEASE s', row(1));
refused('h_1', 'server "n2"', 'server "n1"',
	row(0), 'SAVEPOINT s', row(3), 'ROLLBACK TO s', row(1));

# UPDATE, DELETE, TRUNCATE
refused('h_1', 'server "n2"', 'server "n1"', q{UPDATE h SET v = 'x'});
refused('h_1', 'server "n2"', 'server "n1"', q{DELETE FROM h WHERE v = 'x'});
refused('h_1', 'server "n2"', 'server "n1"', q{TRUNCATE h});
refused('h_1', 'server "n2"', 'server "n1"', row(0), "DELETE FROM h WHERE k = $keys[1][0]");
refused('h_0', 'server "n1"', 'server "n2"', "DELETE FROM h WHERE k = $keys[1][0]", row(0));
refused('h_0', 'server "n1"', 'server "n2"', row(1),
	"WITH u AS (UPDATE h SET v = 'x' WHERE k = $keys[0][0] RETURNING k) SELECT * FROM u");
allowed(row(0), "UPDATE h SET v = v || 'x' WHERE k IN ($keys[0][0], $keys[3][0])",
	"DELETE FROM h WHERE k = $keys[3][0]");
allowed(row(0), "SELECT count(*) FROM h", "EXPLAIN UPDATE h SET v = 'x'",
	q{SELECT * FROM h ORDER BY k FOR UPDATE});
# (The first plan of a session is made before the library is there.)
allowed(
	'SELECT count(*) FROM h', "PREPARE u AS UPDATE h SET v = 'x' WHERE k = \$1", 'SET plan_cache_mode = force_generic_plan',
	"EXECUTE u ($keys[0][0])", "EXECUTE u ($keys[3][0])", "EXECUTE u ($keys[0][1])");
refused('h_1', 'server "n2"', 'server "n1"', 'SELECT count(*) FROM h',
	"PREPARE u AS UPDATE h SET v = 'x' WHERE k = \$1", 'SET plan_cache_mode = force_generic_plan',
	"EXECUTE u ($keys[0][0])", "EXECUTE u ($keys[1][0])");

# Session routes keep to a shard; all tables with the option count.
allowed(('INSERT INTO s (k) VALUES (1)') x 3, 'INSERT INTO s (k) SELECT generate_series(1, 100)');
refused('h_1', 'server "n2"', 'server "n1"', 'SET shard_fdw.shard = 0',
	'INSERT INTO s (k) VALUES (1)', 'RESET shard_fdw.shard', row(1));
allowed(row(0), 'SET LOCAL shard_fdw.shard = 0', 'INSERT INTO s (k) VALUES (1)');
is( $here->safe_psql('postgres', q{ALTER FOREIGN TABLE h OPTIONS (SET single_node 'false')}
		  . join('; ', '', 'BEGIN', row(0), row(1), row(2), 'COMMIT; SELECT 1')),
	1, 'without the option all is allowed');
fails($here, q{ALTER FOREIGN TABLE h OPTIONS (SET single_node 'maybe')}, 'HV024',
	'invalid value for option "single_node": "maybe"');

# A logical table in one with the option
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE FOREIGN TABLE outside (k int) SERVER shards
	  OPTIONS (route 'round_robin', single_node 'true');
	CREATE FOREIGN TABLE inside () INHERITS (outside) SERVER shards OPTIONS (route 'round_robin')});
add_shards('inside', 'k int', '', 'n1', 'n2');
fails($here, 'INSERT INTO outside VALUES (1), (2)', '25000',
	qr/^cannot write to shard "inside_\d" of foreign table "outside" in this transaction$/,
	title => 'a shard of a shard');
fails($here, 'UPDATE outside SET k = 2', '25000',
	qr/^cannot write to shard "inside_1" of foreign table "outside" in this transaction$/,
	title => 'a shard of a shard: UPDATE');

# Ids: unique, of the right slot, and one shard is read for one id.

$here->safe_psql('postgres', q{
	TRUNCATE s;
	SET shard_fdw.shard = 0; INSERT INTO s (k) SELECT generate_series(1, 2500);
	SET shard_fdw.shard = 1; INSERT INTO s (k) SELECT generate_series(1, 10);
	SET shard_fdw.shard = 2; COPY s (k) FROM PROGRAM 'seq 1 30'; INSERT INTO s (k) VALUES (31)})
  if $here->safe_psql('postgres', q{ALTER FOREIGN TABLE s OPTIONS (DROP single_node); SELECT 1});
is( $here->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT id) FROM s;
		SELECT string_agg(DISTINCT (id % 1024)::text, ',') FROM s GROUP BY tableoid ORDER BY 1}),
	"2541|2541\n1\n2\n3", 'ids of remote shards');
is( $nodes[0]->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM s_0'),
	'2500|2500', 'ids of remote shards are sent');
foreach my $shard (0 .. 2)
{
	my $id = $here->safe_psql('postgres', "SELECT max(id) FROM s_$shard");
	my $plan = $here->safe_psql('postgres', "EXPLAIN SELECT * FROM s WHERE id = $id");

	is(join(',', $plan =~ /Scan on (s_\d)/g), "s_$shard", "a query by an id reads shard $shard");
	is($here->safe_psql('postgres', "SELECT count(*) FROM s WHERE id = $id"),
		1, "a query by an id of shard $shard finds it");
}
fails($here, 'INSERT INTO s VALUES (1, 1)', '428C9');
fails($here, 'UPDATE s SET id = id + 1 WHERE tableoid = $$s_0$$::regclass', '23514',
	'new row for relation "s_0" violates check constraint "shard_slot"');
is( $here->safe_psql('postgres', q{
		INSERT INTO s OVERRIDING SYSTEM VALUE VALUES (3 + 1024 * 1000, 0);
		SELECT tableoid::regclass FROM s WHERE k = 0;
		SELECT next_value FROM shard_fdw.reset_sequences('s') WHERE sequence = 's_id_3_seq'::regclass}),
	"s_2\n" . (3 + 1024 * 1001), 'reset_sequences() gets past ids on a node');

# A table with rows gets a sequence past all ids, but no place.
$nodes[1]->safe_psql('postgres', "CREATE TABLE s_3 ($columns); INSERT INTO s_3 VALUES (5000000, 1, 'old')");
(undef, undef, $output) = sqlstate($here, q{
	CREATE FOREIGN TABLE s_3 (id bigint, k int, v text) SERVER n2;
	ALTER FOREIGN TABLE s_3 INHERIT s});
like($output, qr/WARNING:  01000: shard "s_3" of foreign table "s" has no sequence for column "id"/,
	'a remote shard without a sequence: a warning');
fails($here, 'SET shard_fdw.shard = 3; INSERT INTO s (k) VALUES (1)', '55000',
	'shard "s_3" of foreign table "s" has no sequence for column "id"');
is( $here->safe_psql('postgres', q{
		SELECT count(*) FROM shard_fdw.reset_sequences('s');
		SET shard_fdw.shard = 3;
		INSERT INTO s (k) VALUES (2);
		SELECT id > 5000000 FROM s WHERE k = 2 AND tableoid = 's_3'::regclass;
		SELECT count(*) FROM pg_constraint WHERE conrelid = 's_3'::regclass AND conname = 'shard_slot'}),
	"4\nt\n0", 'a remote shard with rows');
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE FOREIGN TABLE s_4 () INHERITS (s) SERVER shards OPTIONS (shards '2')});
(undef, undef, $output) = sqlstate($here, q{SELECT * FROM shard_fdw.reset_sequences('s')});
like($output, qr/WARNING:  01000: shard "s_4" of foreign table "s" cannot get a sequence for column "id"/,
	'a logical table gets no sequence: a warning says why');

# Commit order: who comes second waits until the first has committed on the node.

$here->safe_psql('postgres', q{
	CREATE FOREIGN TABLE lanes (id bigint OPTIONS (sequence 'always'), k int, v text) SERVER shards
	  OPTIONS (commit_order 'true')});
add_shards('lanes', $columns, '', 'n1', 'n2');
$here->safe_psql('postgres', q{SELECT shard_fdw.reset_sequences('lanes')});
my $first = session($here);
my $second = session($here);
$_->query_safe('SET shard_fdw.shard = 0') foreach $first, $second;
$first->query_safe('BEGIN');
$first->query_safe('INSERT INTO lanes (k) VALUES (1)');
send_to($second, "INSERT INTO lanes (k) VALUES (2);\n");
poll_ok($here,
	"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $second->{pid}",
	'commit order: the second waits');
$first->query_safe('INSERT INTO lanes (k) VALUES (3)');
$first->query_safe('COMMIT');
is((state_of($second, 'SELECT 1'))[0], '00000', 'commit order: then it goes on');
is( $here->safe_psql('postgres', q{
		SELECT k FROM lanes ORDER BY id}),
	"1\n3\n2", 'commit order: ids in the order of commits');
$_->quit foreach $first, $second;

# A hash table of the node as a shard of a hash table: with its constraint, its
# own shards share the rows.

setup_shards($nodes[0], 'postgres');
$nodes[0]->safe_psql('postgres', q{
	CREATE FOREIGN TABLE world_0 (id bigint, k int, v text,
	  CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(2, 0, k)))
	  SERVER shards OPTIONS (shards '4', route 'hash', key 'k')});
$nodes[1]->safe_psql('postgres', "CREATE TABLE world_1 ($columns)");
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE FOREIGN TABLE world (id bigint, k int, v text) SERVER shards OPTIONS (route 'hash', key 'k');
	CREATE FOREIGN TABLE world_0 (CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(2, 0, k)))
	  INHERITS (world) SERVER n1 OPTIONS (schema_name 'public', table_name 'world_0');
	CREATE FOREIGN TABLE world_1 (CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(2, 1, k)))
	  INHERITS (world) SERVER n2 OPTIONS (schema_name 'public', table_name 'world_1');
	INSERT INTO world (k) SELECT generate_series(1, 8000)});
is( $nodes[0]->safe_psql('postgres', q{
		SELECT count(*), bool_and(n BETWEEN 800 AND 1200)
		  FROM (SELECT count(*) AS n FROM world_0 GROUP BY tableoid) s}),
	'4|t', 'a hash table on a node: its shards share the rows');
is( $here->safe_psql('postgres', q{
		SELECT count(*) FROM world;
		SELECT count(*) FROM generate_series(1, 100) g WHERE (SELECT count(*) FROM world WHERE k = g) <> 1}),
	"8000\n0", 'a hash table on a node: all rows are found');
(undef, undef, $output) = sqlstate($nodes[0], q{
	CREATE FOREIGN TABLE late (k int) SERVER shards OPTIONS (shards '4', route 'hash', key 'k');
	ALTER FOREIGN TABLE late ADD CHECK (shard_fdw.in_hash(6, 1, k))});
like($output, qr/ WARNING:  01000: 2 shards of foreign table "late" can hold no rows$/m,
	'a constraint that comes late: a warning');
like($output, qr/^HINT:  .* SELECT shard_fdw\.reshard\('public\.late', 4\)\.$/m,
	'a constraint that comes late: the hint');

$_->stop foreach $here, @nodes;
done_testing();
