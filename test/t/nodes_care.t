# What a DBA does to shards, on tables that have some on other servers; and
# several connections to a node.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;
my $session = session($here);
my $places = q{SELECT string_agg(shard || '@' || COALESCE(server, 'here') || CASE state WHEN 'open' THEN '' ELSE ' ' || state END, ', ' ORDER BY ordinal)
	FROM shard_fdw.shards WHERE logical = '%s'::regclass};

$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE TABLE model (id bigint PRIMARY KEY, at timestamptz NOT NULL, v text);
	CREATE INDEX ON model (at);
	CREATE FOREIGN TABLE log (id bigint, at timestamptz NOT NULL, v text) SERVER shards
	  OPTIONS (shards '3', template 'model', nodes 'local, n1, n2', time_column 'at', rotate_every '1 day', maintenance 'manual');
	CREATE FOREIGN TABLE away (id bigint, at timestamptz, v text) SERVER shards
	  OPTIONS (shards '2', template 'model', nodes 'n1, n2');
	CREATE FOREIGN TABLE h (id bigint, v text) SERVER shards OPTIONS (shards '3', nodes 'local, local, n1', route 'hash', key 'id');
	CREATE FOREIGN TABLE r (id bigint, at timestamptz, v text) SERVER shards
	  OPTIONS (shards '3', template 'model', nodes 'local, local, n1', route 'round_robin')});
$here->safe_psql('postgres', q{
	INSERT INTO h SELECT g, 'v' FROM generate_series(1, 300) g;
	INSERT INTO r SELECT g, now(), 'v' FROM generate_series(1, 300) g});

# Further connections

$here->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN;
	CREATE ROLE app LOGIN;
	GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO owner;
	GRANT ALL ON SCHEMA public TO owner;
	ALTER SERVER n1 OWNER TO owner;
	GRANT USAGE ON FOREIGN SERVER n1 TO app WITH GRANT OPTION;
	GRANT USAGE ON FOREIGN SERVER n1 TO PUBLIC;
	ALTER SERVER n1 OPTIONS (ADD application_name 'it''s %a');
	CREATE USER MAPPING FOR app SERVER n1 OPTIONS (user 'app', password 'secret')});
is($here->safe_psql('postgres', q{SELECT * FROM shard_fdw.add_connections('n1', 3)}), "n1\nn1_2\nn1_3", 'add_connections()');
is($here->safe_psql('postgres', q{SELECT * FROM shard_fdw.add_connections('n1', 3)}), "n1\nn1_2\nn1_3", 'add_connections() again');
my $like = q{
	SELECT srvoptions, srvacl::text LIKE '%app=U*/%' FROM pg_foreign_server WHERE srvname = '%1$s';
	SELECT usename, umoptions FROM pg_user_mappings WHERE srvname = '%1$s' ORDER BY 1};
$like =~ s/%(?!1\$s)/%%/g;
is($here->safe_psql('postgres', sprintf($like, 'n1_3')), $here->safe_psql('postgres', sprintf($like, 'n1')), 'a server like the first');
like($here->safe_psql('postgres', sprintf($like, 'n1_3')), qr/it's %a.*\|t\n.*password=secret/s, 'its options');
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE FOREIGN TABLE spread (id bigint, v text) SERVER shards OPTIONS (shards '6', nodes 'n1, n1_2, n1_3', route 'hash', key 'id')});
is( $here->safe_psql('postgres', q{
		INSERT INTO spread SELECT g, 'v' FROM generate_series(1, 600) g;
		SELECT count(*), count(DISTINCT id) FROM spread;
		SELECT string_agg(node || ' ' || shards, ', ' ORDER BY node) FROM shard_fdw.nodes WHERE node ~ '^n1_'}),
	"600|600\nn1_2 2, n1_3 2", 'shards on several servers of a node');
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	ALTER FOREIGN TABLE spread ADD n int DEFAULT 1, ADD CHECK (n < 10)});
is($here->safe_psql('postgres', q{SELECT sum(n) FROM spread; SELECT count(*) FROM shard_fdw.check_nodes('spread')}), "600\n0",
	'ALTER reaches all of them');
$here->safe_psql('postgres', q{ALTER FOREIGN TABLE spread OPTIONS (ADD single_node 'true')});
fails($session, q{INSERT INTO spread SELECT g FROM generate_series(1, 60) g}, '25000', qr/^cannot write to shard/,
	title => 'single_node: each is a server of its own');
is((state_of($session, q{BEGIN; SET LOCAL enable_partitionwise_aggregate = on; SELECT count(*) FROM spread; ROLLBACK}))[0], '00000', 'reading from all');

my $owner = session($here, 'owner');
($state, $message, my $names, $said) = state_of($owner, q{SELECT count(*) FROM shard_fdw.add_connections('n1', 4)});
is("$state $names", '00000 4', 'add_connections(): the owner');
like($said, qr/WARNING:  01000: server "n1_4" has no user mapping for role "app"/, "add_connections(): others' user mappings");
fails($owner, q{SELECT shard_fdw.add_connections('n2', 2)}, '42501', 'must be owner of foreign server n2');
fails($owner, q{SELECT shard_fdw.add_connections('shards', 2)}, '42704', 'server "shards" of postgres_fdw does not exist');
fails($owner, q{SELECT shard_fdw.add_connections('n1', 0)}, '22023', 'number of connections must be between 1 and 64');
$here->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN DATA WRAPPER postgres_fdw FROM owner');
fails($owner, q{SELECT shard_fdw.add_connections('n1', 5)}, '42501', 'permission denied for foreign-data wrapper postgres_fdw');

done_testing();
