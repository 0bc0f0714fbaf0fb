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
my ($state, $message, $said);
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

# A new generation is where the old one was.

is( $here->safe_psql('postgres', q{SELECT string_agg(s::text, ' ') FROM shard_fdw.rotate('log') s}),
	'log_3 log_4 log_5', 'rotate()');
is( $here->safe_psql('postgres', sprintf($places, 'log')),
	'log_0@here closed, log_1@n1 closed, log_2@n2 closed, log_3@here, log_4@n1, log_5@n2', 'rotate(): on the same servers');
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_index WHERE indrelid = 'log_4'::regclass}), '2',
	'rotate(): with indexes on nodes');
$here->safe_psql('postgres', q{
	INSERT INTO log_3 VALUES (1, now());
	UPDATE shard_fdw.generations SET began = began - interval '2 days' WHERE logical = 'log'::regclass});
($state, $message, undef, $said) = state_of($session, q{CALL shard_fdw.maintain('log')});
is($state, '00000', 'maintain()');
is( $here->safe_psql('postgres', sprintf($places, 'log') . q{ AND state = 'open'}),
	'log_6@here, log_7@n1, log_8@n2', 'maintain(): a new generation') or diag($said);
$here->safe_psql('postgres', q{INSERT INTO log_7 VALUES (2, now()); SELECT shard_fdw.close_node('n1')});
$here->safe_psql('postgres', q{SELECT shard_fdw.rotate('log', 3)});
is($here->safe_psql('postgres', sprintf($places, 'log') . q{ AND state = 'open'}),
	'log_9@here, log_10@n2, log_11@here', 'rotate(): not to a closed node');
$n2->stop('immediate');
fails($here, q{SELECT shard_fdw.rotate('log')}, '08001', 'could not connect to server "n2"', title => 'rotate(): a node is down');
$n2->start;
is($here->safe_psql('postgres', sprintf($places, 'log') . q{ AND state = 'open'}),
	'log_9@here, log_10@n2, log_11@here', 'rotate(): nothing has been done');
fails($session, q{SELECT shard_fdw.rotate('away')}, '55000', 'cannot rotate foreign table "away"',
	detail => 'All of its shards are on other servers, and none is here whose indexes and keys new ones could get.',
	hint => 'Call create_shards() with a table to be copied and parameter "node", and close the old shards with SELECT shard_fdw.close_shard().');
fails($session, q{CALL shard_fdw.add_range('log_1')}, '0A000', 'shard "log_1" cannot have a range');
is($here->safe_psql('postgres', q{BEGIN; SELECT shard_fdw.retain('log', now() + interval '1 day'); ROLLBACK}),
	join("\n", map { "public.log_$_" } 0 .. 8), 'retain() drops all old shards');

# Remote shards are not replaced, local ones beside them are.

my $is_foreign = 'Shard "h_2" is a foreign table.';
fails($session, q{SELECT shard_fdw.reshard('h', 4)}, '0A000', 'cannot reshard foreign table "h"', detail => $is_foreign);
fails($session, q{CALL shard_fdw.reshard_online('h', 6)}, '0A000', 'cannot reshard foreign table "h"', detail => $is_foreign);
fails($session, q{SELECT shard_fdw.split_shard('h_2')}, '0A000', 'cannot reshard foreign table "h"', detail => $is_foreign);
fails($session, q{SELECT shard_fdw.merge_shards('h_1', 'h_2')}, qr/^(0A000|22023)$/, undef, title => 'a remote shard is not merged');
($state, $message, undef, $said) = state_of($session, q{SELECT count(*) FROM shard_fdw.split_shard('h_0')});
is("$state $message", '00000 ', 'a local shard is split') or diag($said);
is( $here->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT id) FROM h;
		SELECT count(*) FROM generate_series(1, 300) g WHERE (SELECT v FROM h WHERE id = g) = 'v'}),
	"300|300\n300", 'all rows are found');
is((state_of($session, q{SELECT shard_fdw.alter_column_type('h', 'v', 'varchar')}))[0], '00000', 'alter_column_type()');
is($n1->safe_psql('postgres', q{SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'h_2'::regclass AND attname = 'v'}),
	'character varying', 'alter_column_type(): there, too');
fails($session, q{SELECT shard_fdw.alter_column_type('h', 'v', 'text', 'v || 1')}, '0A000',
	qr/^cannot convert the rows of shard "h_2"/, title => 'alter_column_type(): an expression');

# Rows are drained to local shards.

$here->safe_psql('postgres', q{SELECT shard_fdw.open_shard('r_2')});
fails($session, q{CALL shard_fdw.drain('r_2')}, '0A000', 'cannot drain shards of foreign table "r"', detail => 'Shard "r_2" is a foreign table.');
fails($session, q{CALL shard_fdw.drain('r_0')}, '0A000', qr/^cannot drain shard "r_0"/,
	detail => 'Open shard "r_2" is on another server, where rows would be committed before they are deleted here.',
	hint => 'Close it with SELECT shard_fdw.close_shard() until the rows have been moved.');
state_of($session, q{SELECT shard_fdw.close_shard('r_2')});
is((state_of($session, q{CALL shard_fdw.drain('r_0')}))[0], '00000', 'drain(): the remote shard is closed');
is($here->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM r; SELECT count(*) FROM r_0; SELECT count(*) FROM r_2'),
	"300|300\n0\n100", 'drain(): the rows are in the local shard');

# Release, and back

fails($session, q{SELECT shard_fdw.release('r', 'one')}, qr/^(0A000|55000)$/, 'cannot release foreign table "r"', title => 'release() into one table');
is((state_of($session, q{SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM shard_fdw.release('r') t}))[2], 'r_0 r_1 r_2', 'release()');
is($here->safe_psql('postgres', 'SELECT count(*) FROM r_2'), '100', 'release(): the foreign table stays');
$n1->safe_psql('postgres', 'CREATE TABLE p_1 (id bigint, v text)');
$here->safe_psql('postgres', q{
	CREATE TABLE p (id bigint, v text) PARTITION BY HASH (id);
	CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	CREATE FOREIGN TABLE p_1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1) SERVER n1;
	INSERT INTO p SELECT g, 'v' FROM generate_series(1, 100) g});
fails($session, q{SELECT shard_fdw.convert_table('p', 2, 'hash', 'id')}, '55000', 'cannot convert table "p"',
	detail => 'These are in the way: partition public.p_1 is partitioned, or a foreign table.', hint => qr/dry_run/);
is($here->safe_psql('postgres', q{SELECT count(*), count(DISTINCT tableoid) FROM p}), '100|2', 'convert_table(): nothing has been done');

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

# sync_nodes() of one node

$n1->safe_psql('postgres', 'ALTER TABLE log_4 DROP CONSTRAINT log_4_pkey');
$n2->safe_psql('postgres', 'ALTER TABLE log_5 DROP CONSTRAINT log_5_pkey');
is( $here->safe_psql('postgres', q{
		SELECT node, shard, command FROM shard_fdw.sync_nodes('log', 'n2');
		SELECT node, shard, command FROM shard_fdw.sync_nodes('log', 'n2');
		SELECT node, shard, command FROM shard_fdw.sync_nodes('log')}),
	"n2|log_5|ALTER TABLE public.log_5 ADD PRIMARY KEY (id)\nn1|log_4|ALTER TABLE public.log_4 ADD PRIMARY KEY (id)",
	'sync_nodes() of one node');
$n2->stop('immediate');
is((state_of($session, q{SELECT count(*) FROM shard_fdw.sync_nodes('log', 'n1')}))[2], '0', 'sync_nodes() of one node while another is down');
fails($session, q{SELECT shard_fdw.sync_nodes('log')}, '08001', 'could not connect to server "n2"', title => 'sync_nodes() of all');
fails($session, q{SELECT shard_fdw.sync_nodes('log', 'n9')}, '42704', 'server "n9" does not exist');
fails($session, q{SELECT shard_fdw.sync_nodes(NULL)}, '22004', undef, title => 'sync_nodes(): null');

done_testing();
