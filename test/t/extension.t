# The extension as such: who may create it, where it can be, what happens when
# it goes and comes back, and when its library is loaded.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('extension');
my $create_log = q{
	CREATE FOREIGN TABLE log (a int, b text) SERVER shards OPTIONS (shards '3')};
my $on_conflict = 'cannot use ON CONFLICT on foreign table "log"';
my @no_setting = (
	'invalid configuration parameter name "shard_fdw.sharrd"',
	detail => '"shard_fdw" is a reserved prefix.');
$node->safe_psql('postgres', $create_log);

# Dependencies

fails($node, 'DROP EXTENSION shard_fdw', '2BP01',
	'cannot drop extension shard_fdw because other objects depend on it',
	detail => qr/foreign table log depends on server shards/,
	title => 'DROP EXTENSION says which table uses a server');
fails($node, 'DROP SERVER shards', '2BP01',
	'cannot drop server shards because other objects depend on it',
	detail => qr/^foreign table log depends on server shards$/m,
	title => 'DROP SERVER says which table uses it');
fails($node, 'DROP FOREIGN TABLE log', '2BP01',
	'cannot drop foreign table log because other objects depend on it',
	detail => qr/^table log_0 depends on foreign table log$/m,
	title => 'DROP FOREIGN TABLE says which shards there are');
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.shards'),
	'3', 'all is as it was');

# Goes and comes back, in a session that has used it, and in another that
# still has plans.

my ($session, $other) = (session($node), session($node));
foreach my $s ($session, $other)
{
	$s->query_safe('SET client_min_messages = warning');
	$s->query_safe('SET shard_fdw.allow_drop_with_rows = on');
	$s->query_safe("PREPARE ins AS INSERT INTO log VALUES (1, 'x')");
	$s->query_safe('PREPARE total AS SELECT count(*) FROM log');
	$s->query_safe('EXECUTE ins') for 1 .. 6;
	$s->query_safe('EXECUTE total') for 1 .. 6;
}
is($session->query_safe('EXECUTE total'), '12', 'two sessions have used it');
$session->query_safe('DROP EXTENSION shard_fdw CASCADE');
is( $session->query_safe(q{
		SELECT count(*) FROM pg_class WHERE relname LIKE 'log%'}),
	'0', 'CASCADE drops tables and shards');
is( $session->query_safe(q{
		SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'shard%'}),
	'0', 'CASCADE drops the event triggers');
is( $session->query_safe(q{
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()}),
	'1', 'the lock of the lease is still held');
fails($other, 'EXECUTE total', '42P01', 'relation "log" does not exist',
	title => 'the other session finds the table gone');

$session->query_safe('CREATE EXTENSION shard_fdw');
$session->query_safe('CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw');
$session->query_safe($create_log);
foreach my $s ($session, $other)
{
	$s->query_safe('EXECUTE ins') for 1 .. 6;
	$s->query_safe("INSERT INTO log SELECT g, 'y' FROM generate_series(1, 10) g");
}
is($session->query_safe('EXECUTE total'), '32', 'both sessions use the new one');
is($other->query_safe('EXECUTE total'), '32', 'the other session sees the same rows');
is( $session->query_safe(q{
		SELECT count(*), count(DISTINCT shard), max(level) FROM shard_fdw.leases}),
	'2|2|0', 'leases on the new shards');
is( $session->query_safe(q{
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2}),
	'2', 'leases on shards that are gone have been given back');
$session->query_safe('BEGIN');
$session->query_safe('DROP EXTENSION shard_fdw CASCADE');
$session->query_safe('ROLLBACK');
is($session->query_safe('EXECUTE ins; EXECUTE total'),
	'33', 'DROP EXTENSION rolled back');
$_->quit foreach ($session, $other);

# Where and by whom

fails($node, 'CREATE EXTENSION shard_fdw', '42710',
	'extension "shard_fdw" already exists', title => 'there is one already');
$node->safe_psql('postgres', q{
	CREATE ROLE someone LOGIN;
	CREATE DATABASE owned OWNER someone;
	CREATE DATABASE second});
fails($node, 'CREATE EXTENSION shard_fdw', '42501',
	'permission denied to create extension "shard_fdw"',
	hint => 'Must be superuser to create this extension.',
	database => 'owned', user => 'someone',
	title => 'only a superuser may create it, not the owner of the database');
fails($node, 'CREATE EXTENSION shard_fdw SCHEMA public', '0A000',
	'extension "shard_fdw" must be installed in schema "shard_fdw"',
	database => 'owned', title => 'its schema is fixed');

setup_shards($node, 'second');
is( $node->safe_psql('second', qq{
		$create_log;
		INSERT INTO log SELECT g FROM generate_series(1, 5) g;
		SELECT count(*) FROM log;
		SELECT count(*), max(level) FROM shard_fdw.leases}),
	"5\n1|0", 'a second database');
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM log; SELECT count(*) FROM shard_fdw.leases}),
	"33\n0", 'the first database has nothing to do with the second');
$node->safe_psql('owned', 'CREATE EXTENSION shard_fdw');
is( $node->safe_psql('owned', q{
		SET ROLE someone;
		SELECT count(*) FROM shard_fdw.shards;
		SELECT count(*) FROM shard_fdw.leases}),
	"0\n0", 'anybody may use its views');
fails($node, 'CREATE SERVER s FOREIGN DATA WRAPPER shard_fdw', '42501',
	'permission denied for foreign-data wrapper shard_fdw',
	database => 'owned', user => 'someone',
	title => 'making servers takes USAGE of the wrapper');

# The first statement of a session, when the library is not loaded yet

is( $node->safe_psql('postgres', q{
		SET shard_fdw.shard = 2;
		INSERT INTO log VALUES (1000) RETURNING shard_fdw.last_shard();
		SHOW shard_fdw.shard}),
	"log_2\n2", 'the setting is kept that was made before');
is( $node->safe_psql('postgres', q{
		BEGIN;
		SET LOCAL shard_fdw.shard = 1;
		INSERT INTO log VALUES (1001) RETURNING shard_fdw.last_shard();
		COMMIT;
		SHOW shard_fdw.shard}),
	"log_1\n-1", 'a setting made before by SET LOCAL is kept to the end of the transaction');
my ($state, undef, $all) = sqlstate($node, q{
	SET shard_fdw.shard = 'many';
	INSERT INTO log VALUES (1002);
	DO $$ BEGIN ASSERT current_setting('shard_fdw.shard') = '-1'; END $$});
is($state, '00000', 'a bad value that was set before is forgotten');
like($all, qr/WARNING:  .*invalid value for parameter "shard_fdw.shard": "many"/,
	'a bad value that was set before gives a warning');
fails($node, q{
	SET shard_fdw.shard = 0;
	INSERT INTO log VALUES (1003);
	SET shard_fdw.sharrd = 0}, '42602', @no_setting,
	title => 'other names of ours cannot be set');
is( $node->safe_psql('second', q{
		ALTER DATABASE second SET shard_fdw.shard = 1;
		\c
		INSERT INTO log VALUES (1) RETURNING shard_fdw.last_shard()}),
	'log_1', 'a setting of the database');
is( $node->safe_psql('second', q{
		SET shard_fdw.shard = 1;
		SELECT count(*) FROM log WHERE a = 1;
		SELECT shard_fdw.last_shard() IS NULL}),
	"2\nt", 'a query comes first');
foreach my $first (
	'SELECT * FROM shard_fdw.shards WHERE ordinal = 5',
	'SELECT * FROM ONLY log',
	'EXPLAIN SELECT * FROM log',
	'UPDATE log SET a = a WHERE false',
	'DELETE FROM log WHERE false',
	'ANALYZE log',
	'TRUNCATE ONLY log',
	'ALTER FOREIGN TABLE log ALTER a SET STATISTICS 10',
	'SELECT shard_fdw.last_shard()',
	q{SELECT * FROM shard_fdw.run_command_on_shards('log', 'SELECT') WHERE false},
	'COPY log FROM stdin')
{
	($state) = sqlstate($node, $first);
	is($state, '00000', "what comes first may be: $first");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM log'),
	'37', 'no row is lost by what comes first');

# ON CONFLICT: what can be told before the library is there, core tells.

foreach my $clause ('DO NOTHING', '(a) DO NOTHING', '(a) DO UPDATE SET b = 1',
	'ON CONSTRAINT x DO NOTHING')
{
	my $insert = "INSERT INTO log VALUES (1) ON CONFLICT $clause";

	($state) = sqlstate($node, $insert);
	like($state, qr/^(0A000|42P10|42704)$/, "first of all: ON CONFLICT $clause");
	($state) = sqlstate($node, "EXPLAIN $insert");
	like($state, qr/^(0A000|42P10|42704)$/, "EXPLAIN, first of all: ON CONFLICT $clause");
	next if $clause =~ /CONSTRAINT/;
	fails($node, "SELECT count(*) FROM log; $insert", '0A000', $on_conflict,
		title => "later on: ON CONFLICT $clause");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM log'),
	'37', 'no row has got in');

# On a hash table, a conflict target wants the library.

$node->safe_psql('postgres', q{
	CREATE TABLE keys_model (k int PRIMARY KEY, v text);
	CREATE FOREIGN TABLE keys (k int, v text)
	  SERVER shards OPTIONS (shards '2', route 'hash', key 'k', template 'keys_model')});
my $upsert = q{INSERT INTO keys VALUES (1, 'new') ON CONFLICT (k)
	DO UPDATE SET v = keys.v || EXCLUDED.v RETURNING v};
fails($node, $upsert, '42P10', qr/^there is no unique or exclusion constraint/,
	title => 'not preloaded, first of all: no index, says core');
is($node->safe_psql('postgres', "SELECT count(*) FROM keys; $upsert"),
	"0\nnew", 'not preloaded, later on: the statement works');

# Preloaded

foreach my $parameter ('session_preload_libraries', 'shared_preload_libraries')
{
	$node->append_conf('postgresql.conf', "$parameter = 'shard_fdw'");
	$node->restart;
	is( $node->safe_psql('postgres', 'SHOW shard_fdw.shard'),
		'-1', "$parameter: the library is there");
	fails($node, 'INSERT INTO log VALUES (1) ON CONFLICT (a) DO NOTHING', '0A000', $on_conflict,
		title => "$parameter: ON CONFLICT, first of all");
	like($node->safe_psql('postgres', $upsert),
		qr/^(new)+$/, "$parameter: ON CONFLICT on a hash table, first of all");
	is( $node->safe_psql('postgres', q{
			SET shard_fdw.shard = 2;
			BEGIN;
			INSERT INTO log SELECT 2000 FROM generate_series(1, 10);
			SELECT count(*) FROM log_2 WHERE a = 2000;
			ROLLBACK;
			RESET shard_fdw.shard;
			INSERT INTO log VALUES (2001);
			SELECT count(*), max(level) FROM shard_fdw.leases}),
		"10\n1|0", "$parameter: inserts and leases");
	fails($node, 'SET shard_fdw.sharrd = 0', '42602', @no_setting,
		title => "$parameter: other names of ours cannot be set");
	is( $node->safe_psql('template1', 'SELECT count(*) FROM pg_class WHERE relname = $$pg_class$$'),
		'1', "$parameter: a database without the extension is none the worse");
	$node->append_conf('postgresql.conf', "$parameter = ''");
}
$node->restart;
is( $node->safe_psql('postgres', q{
		LOAD 'shard_fdw'; SHOW shard_fdw.shard; SELECT count(*) FROM log}),
	"-1\n39", 'loaded by hand');

$node->stop;
done_testing();
