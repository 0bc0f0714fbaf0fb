# Looking at nodes, running commands there, and doing without one that is down.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;
my $session = session($here);

$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE TABLE model (id bigint PRIMARY KEY, k int NOT NULL CHECK (k > 0), v varchar(20) COLLATE "C", x int DEFAULT 1);
	CREATE UNIQUE INDEX ON model (k, id) WHERE v IS NOT NULL;
	CREATE INDEX ON model (lower(v));
	CREATE FOREIGN TABLE h (id bigint, k int, v varchar(20) COLLATE "C") SERVER shards
	  OPTIONS (shards '4', template 'model', nodes 'n1, n2, local', route 'hash', key 'id');
	CREATE FOREIGN TABLE s (i int) SERVER shards OPTIONS (shards '2', nodes 'n1, n2');
	CREATE ROLE app LOGIN});

# The view asks no node.

my $view = q{SELECT node, tables, shards, open, usable FROM shard_fdw.nodes};

is($here->safe_psql('postgres', $view), "n1|2|3|3|t\nn2|2|2|2|t", 'view nodes');
is($here->safe_psql('postgres', $view, extra_params => [ '-U', 'app' ]), "n1|2|3|3|f\nn2|2|2|2|f",
	'view nodes: for others');

# run_command_on_nodes()

is( $here->safe_psql('postgres', q{
		SELECT * FROM shard_fdw.run_command_on_nodes('h', 'CREATE SCHEMA extra; CREATE TABLE extra.t AS SELECT 1 AS i');
		SELECT * FROM shard_fdw.run_command_on_nodes('h', 'SELECT count(*) FROM h_0', 'continue');
		SELECT * FROM shard_fdw.run_command_on_nodes('h', 'SELECT i FROM extra.t WHERE i > 1')}),
	join("\n", 'n1|t|SELECT 1', 'n2|t|SELECT 1', 'n1|t|0',
		'n2|f|command on server "n2" failed: relation "h_0" does not exist', 'n1|t|', 'n2|t|'),
	'run_command_on_nodes()');
fails($session, q{SELECT shard_fdw.run_command_on_nodes('h', 'CREATE TABLE h_0 ()')}, '42P07',
	'command on server "n1" failed: relation "h_0" already exists');
fails($session, q{SELECT shard_fdw.run_command_on_nodes('h', 'DROP TABLE extra.t; COMMIT')}, '0A000',
	'cannot begin or end transactions on nodes');
fails($session, q{SELECT shard_fdw.run_command_on_nodes('h', 'COPY extra.t TO STDOUT')}, '0A000',
	'cannot copy rows from or to the client on server "n1"');
fails($session, q{SELECT shard_fdw.run_command_on_nodes('h', 'SELECT 1', 'no')}, '22023',
	'invalid value for parameter "on_error": "no"');
fails($here, q{SELECT shard_fdw.run_command_on_nodes('h', 'SELECT 1')}, '42501', 'must be owner of foreign table h',
	user => 'app');
state_of($session, $_)
  foreach ('BEGIN', q{SELECT shard_fdw.run_command_on_nodes('h', 'CREATE TABLE gone ()')}, 'ROLLBACK');
is( join(' ', map { $_->safe_psql('postgres', q{SELECT to_regclass('gone') IS NULL}) } @nodes), 't t',
	'run_command_on_nodes(): rollback');

# check_nodes()

my $check = q{SELECT node, shard, problem FROM shard_fdw.check_nodes('h') ORDER BY node, shard, problem};

is($here->safe_psql('postgres', $check), '', 'check_nodes(): no difference');
$n1->safe_psql('postgres', q{
	ALTER TABLE h_0 DROP CONSTRAINT h_0_pkey, ALTER v TYPE text COLLATE "C";
	ALTER TABLE h_3 DROP CONSTRAINT model_k_check, ALTER k DROP NOT NULL, ADD extra int});
$n2->safe_psql('postgres', 'DROP TABLE h_1');
is( $here->safe_psql('postgres', $check),
	join("\n",
		'n1|h_0|column v is text COLLATE "C" there and character varying(20) COLLATE "C" here',
		'n1|h_0|index USING btree (lower((v)::text)) is missing',
		'n1|h_0|primary key USING btree (id) is missing',
		'n1|h_3|NOT NULL of column k is missing',
		'n1|h_3|constraint CHECK ((k > 0)) is missing',
		'n2|h_1|table public.h_1 is missing'),
	'check_nodes(): differences');
is((sqlstate($here, q{SELECT shard_fdw.check_nodes('h')}, user => 'app'))[0], '00000',
	'check_nodes(): no right to ask is a row of the result');

# A node is down.

my $into = q{SELECT relname FROM pg_class WHERE oid = shard_fdw.last_shard()};
state_of($session, 'SET shard_fdw.shard = 1');
is((state_of($session, "INSERT INTO s VALUES (1); $into"))[2], 's_1', 'a row for a node');
$n2->stop('immediate');
my ($state, $message, undef, $errors) = state_of($session, 'INSERT INTO s VALUES (1)');
like($state, qr/^08/, 'a node is down: insert in a session that was connected');
like($errors, qr/insert into shard "s_1" on server "n2"/, 'a node is down: the error names it');
($state, $message, undef, $errors) = state_of($session, 'INSERT INTO s VALUES (1)');
is("$state $message", '08001 could not connect to server "n2"', 'a node is down: insert in a new connection');
like($errors, qr/HINT:  If rows are to go elsewhere while the server is not there, close its shards with SELECT shard_fdw\.close_node\('n2'\)\./,
	'a node is down: hint');
(undef, undef, undef, $errors) = state_of($session, 'COPY s FROM PROGRAM \'echo 1\'');
like($errors, qr/close_node\('n2'\)/, 'a node is down: hint for COPY');
fails($session, 'SELECT count(*) FROM s', '08001', 'could not connect to server "n2"', hint => '');
is($here->safe_psql('postgres', $view), "n1|2|3|3|t\nn2|2|2|2|t", 'a node is down: the view does not care');
like($here->safe_psql('postgres', q{SELECT problem FROM shard_fdw.check_nodes('h') WHERE node = 'n2'}),
	qr/^could not connect to server "n2": /, 'a node is down: check_nodes()');

# A session without a pin has leased the shard there.
my $stuck = session($here);
my ($leased) = grep { ((state_of($_, 'INSERT INTO s VALUES (2)'))[0]) ne '00000' } $stuck, map { session($here) } 1 .. 2;
ok($leased, 'a session has leased a shard of the node');
is((state_of($leased, "INSERT INTO s VALUES (3); $into"))[2], 's_0', 'then it leases another');
($state, $message, my $closed, $errors) = state_of($session, q{SELECT shard_fdw.close_node('n2')});
is($closed, 's_1', 'close_node() closes shards');
like($errors, qr/WARNING:  55000: cannot close shard "h_1" of foreign table "h"/, 'close_node(): hash tables');
is((state_of($leased, "INSERT INTO s VALUES (4); $into"))[2], 's_0', 'the session stays there');
is($here->safe_psql('postgres', $view), "n1|2|3|3|t\nn2|2|2|1|t", 'close_node(): view');
is((state_of($session, q{SELECT shard_fdw.close_node('n2')}))[2], '', 'close_node() again');
fails($session, q{SELECT shard_fdw.close_node('n9')}, '42704', 'server "n9" does not exist');
is((state_of($leased, q{SET ROLE app; SELECT shard_fdw.close_node('n1')}))[2], '', q{close_node(): not others' shards});

done_testing();
