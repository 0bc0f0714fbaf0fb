# The views wait for nobody, and go on while tables come and go.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('views', conf => "max_locks_per_transaction = 256\n");
$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	GRANT USAGE ON FOREIGN SERVER shards TO PUBLIC;
	GRANT ALL ON SCHEMA public TO PUBLIC;
	SET ROLE owner;
	CREATE TABLE model (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v text);
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL,
	  v text)
	  SERVER shards OPTIONS (shards '2', commit_order 'true', max_shards '10', template 'model',
	    time_column 'at', maintenance 'manual');
	SET shard_fdw.shard = 0;
	INSERT INTO log (at, v) SELECT now(), 'x' FROM generate_series(1, 5);
	SET shard_fdw.shard = 1;
	INSERT INTO log (at, v) SELECT now(), 'x' FROM generate_series(1, 7);
	SELECT shard_fdw.register_consumer('log', 'c', 'id');
	SELECT shard_fdw.register_consumer('log', 'w', 'at');
	SELECT count(*) FROM shard_fdw.read_window(NULL::log, 'w', now());
	ANALYZE;
	SELECT pg_stat_force_next_flush()});
my $sequence = $node->safe_psql('postgres', q{
	SELECT sequence FROM shard_fdw.sequences WHERE tbl = 'log_0'::regclass});

my ($locker, $other) = map { session($node) } 1 .. 2;
my @roles = ('postgres', 'owner', 'monitor');
my %views = map { $_ => session($node, $_) } @roles;

foreach my $session (values %views)
{
	$session->query_safe('SET lock_timeout = 1');
	$session->query_safe(q{SET statement_timeout = '60s'});
}

# What the views show to a role: whether each shard's numbers are there.
sub seen
{
	my ($role) = @_;
	my ($state, $message, $output) = state_of($views{$role}, q{
		SELECT string_agg(concat_ws(':', shard, state, bytes > 0, estimated_rows, sessions), ' '
		  ORDER BY shard::text)
		  FROM shard_fdw.shards;
		SELECT string_agg(concat_ws(':', shard, coalesce(rows_behind::text, '-')), ' '
		  ORDER BY shard::text)
		  FROM shard_fdw.consumers WHERE consumer = 'c';
		SELECT string_agg(concat_ws(':', tbl, coalesce(last_value::text, '-'),
		  coalesce(maximum::text, '-'), collides), ' ' ORDER BY tbl::text)
		  FROM shard_fdw.sequences;
		SELECT count(*) FROM shard_fdw.leases;
		SELECT count(*) FROM shard_fdw.windows;
		SELECT concat_ws(':', open, closed, due) FROM shard_fdw.maintenance;
		SELECT count(*) FROM shard_fdw.tables t, shard_fdw.list_shards(t.logical)
		 WHERE t.open = 2 AND t.prunes_by = '{id,at}';
		SELECT string_agg(concat_ws(':', place, inserts), ' ' ORDER BY shard::text)
		  FROM shard_fdw.stat_shards WHERE logical = 'log'::regclass AND bytes > 0});

	return $state eq '00000' ? join('; ', split(/\n/, $output)) : "$state $message";
}

my $shards = 'log_0:open:t:5:0 log_1:open:t:7:0';
my $stats = '; ids 1 of 10:5 ids 2 of 10:7';
my $all = "$shards; log_0:5 log_1:7; log_0:41:41:f log_1:62:62:f; 0; 1; 2:0; 2$stats";

is(seen('postgres'), $all, 'what there is to see');
is(seen('owner'), $all, 'what the owner sees');
is( seen('monitor'),
	"$shards; log_0:5 log_1:7; log_0:41:- log_1:62:-; 0; 0; 2:0; 2$stats",
	'what a member of pg_monitor sees, who may not read the table');

# While somebody has a lock, with what is seen then.
foreach (
	[ 'ALTER FOREIGN TABLE log OPTIONS (ADD batch_size \'10\')', $all ],
	[ 'ALTER FOREIGN TABLE log RENAME TO renamed', $all ],
	[
		'LOCK TABLE log_0 IN ACCESS EXCLUSIVE MODE',
		"$shards; log_0:5 log_1:7; log_0:41:- log_1:62:62:f; 0; 1; 2:0; 2$stats"
	],
	[
		'LOCK TABLE log_0, log_1 IN ACCESS EXCLUSIVE MODE',
		"$shards; log_0:5 log_1:7; log_0:41:- log_1:62:-; 0; 1; 2:0; 2$stats"
	],
	# The table is small enough to be read.
	[ 'REINDEX INDEX log_0_pkey',     $all ],
	[ "ALTER SEQUENCE $sequence RESTART", $all ],
	[ "ALTER SEQUENCE $sequence RENAME TO renamed",
		"$shards; log_0:5 log_1:7; log_0:-:41 log_1:62:62:f; 0; 1; 2:0; 2$stats" ],
	[ 'TRUNCATE log RESTART IDENTITY',
		"$shards; log_0:- log_1:-; log_0:-:- log_1:-:-; 0; 1; 2:0; 2$stats" ],
	[ 'DROP TABLE log_0', "$shards; log_0:5 log_1:7; log_0:41:- log_1:62:62:f; 0; 1; 2:0; 2$stats" ],
	[ 'DROP FOREIGN TABLE log CASCADE',
		"$shards; log_0:- log_1:-; log_0:-:- log_1:-:-; 0; 1; 2:0; 2$stats" ],
	[ 'ALTER FOREIGN TABLE log ADD w int',
		"$shards; log_0:5 log_1:7; log_0:41:- log_1:62:-; 0; 1; 2:0; 2$stats" ],
	[ 'ALTER TABLE log_0 NO INHERIT log',
		"$shards; log_0:5 log_1:7; log_0:41:- log_1:62:62:f; 0; 1; 2:0; 2$stats" ])
{
	my ($command, $expected) = @$_;

	$locker->query_safe('BEGIN');
	my ($state, $message) = state_of($locker, $command);
	is($state, '00000', $command) or diag($message);
	is(seen($_), $expected, "$command: what $_ sees") foreach 'postgres', 'owner';
	like(seen('monitor'), qr/^\Q$shards\E; /, "$command: what monitor sees");
	$locker->query_safe('ROLLBACK');
}

# Nor behind somebody who waits for a lock.
$other->query_safe('BEGIN');
$other->query_safe('SELECT count(*) FROM log');
send_to($locker, "BEGIN; ALTER FOREIGN TABLE log ADD w int;\n");
poll_ok($node, "SELECT cardinality(pg_blocking_pids($locker->{pid})) > 0",
	'somebody waits for a lock');
like(seen($_), qr/^\Q$shards\E; /, "$_ does not wait for him") foreach @roles;
$other->query_safe('COMMIT');
is((state_of($locker, 'ROLLBACK'))[0], '00000', 'he gets the lock in the end');
is(seen('postgres'), $all, 'nothing has been kept of what was seen meanwhile');

# Uncommitted DDL of one's own is seen, and forgotten when it is rolled back.
$views{postgres}->query_safe('SET lock_timeout = 0');
$views{postgres}->query_safe('BEGIN');
$views{postgres}->query_safe('DROP TABLE log_0');
like(seen('postgres'), qr/^log_1:open:t:7:0; log_1:7; /, 'a shard that one has dropped');
$views{postgres}->query_safe('ROLLBACK');
is(seen('postgres'), $all, 'the dropped shard is there again after a rollback');

# A database where tables come and go.
my $run = pgbench_start(
	$node,
	[
		[
			q{
			SET client_min_messages = error;
			CREATE FOREIGN TABLE t:client_id (id bigint OPTIONS (sequence 'always'), v text)
			  SERVER shards OPTIONS (shards '3', commit_order 'true', template 'model');
			INSERT INTO t:client_id (v) SELECT 'x' FROM generate_series(1, 10);
			SELECT shard_fdw.register_consumer('t:client_id', 'c', 'id');
			SELECT count(*) FROM shard_fdw.create_shards('t:client_id', 1);
			TRUNCATE t:client_id;
			DROP FOREIGN TABLE t:client_id CASCADE;}, 1
		],
		[
			q{
			SELECT shards::text FROM shard_fdw.shards;
			SELECT consumers::text FROM shard_fdw.consumers;
			SELECT sequences::text FROM shard_fdw.sequences;
			SELECT leases::text FROM shard_fdw.leases;
			SELECT windows::text FROM shard_fdw.windows;
			SELECT stat_shards::text FROM shard_fdw.stat_shards;}, 2
		]
	],
	'-c' => 6, '-j' => 2, '-T' => 5);
cmp_ok(pgbench_ok($run, 'tables that come and go while somebody looks'),
	'>', 10, 'tables have come and gone more than 10 times');
cmp_ok($run->{each}[$_], '>', 0, "tables that come and go: script $_ has run") foreach 0, 1;

done_testing();
