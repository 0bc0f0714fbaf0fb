# What is due about tables with generations of shards is done: by maintain(), and
# by workers that sessions start.  A day in fast motion, with consumers, a crash,
# a dump and a promoted standby.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = shard_node('maintain', allows_streaming => 1, conf => "restart_after_crash = on\n");
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER shards TO app, other;
	GRANT ALL ON SCHEMA public TO app, other;
	CREATE FUNCTION age_generation(tbl regclass, by interval) RETURNS void LANGUAGE sql AS
	  'UPDATE shard_fdw.generations SET began = began - by WHERE logical = tbl';
});
my $model = q{CREATE TABLE IF NOT EXISTS model (id bigint PRIMARY KEY, at timestamptz NOT NULL)};

sub as
{
	my ($role, $sql) = @_;
	my ($code, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $role ]);

	$err =~ s/^psql:<stdin>:\d+: |^LOCATION:.*\n//mg;
	return $err;
}

sub value { return $node->safe_psql('postgres', $_[0]); }

# By hand.

as('app', "$model;" . q{
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL)
	  SERVER shards OPTIONS (shards '2', template 'model', time_column 'at', rotate_every '1 day',
	    retain_for '2 days', maintenance 'manual');
	CREATE FOREIGN TABLE plain (a int) SERVER shards OPTIONS (shards '1')});
my $state =
  q{SELECT string_agg(shard || ':' || state || coalesce(':' || (range_start <= range_end), ''),
	  ' ' ORDER BY ordinal)
	FROM shard_fdw.shards WHERE logical = 'log'::regclass};
my $due =
  q{SELECT concat_ws('|', generations, due, is_confirmed, last_run IS NOT NULL, last_error)
    FROM shard_fdw.maintenance WHERE logical = 'log'::regclass};
is(as('app', q{CALL shard_fdw.maintain('log')}), '', 'nothing is due at first');
is(value($due), '1|t|t', 'the view shows that nothing is due');
value(q{SELECT age_generation('log', '1 day')});
is(as('app', q{CALL shard_fdw.maintain('log')}),
	'', 'shards that have never had a row stay for the next generation');
value(q{SELECT age_generation('log', '1 day')});
as('app', q{INSERT INTO log (at) SELECT now() - g * interval '1 minute'
	FROM generate_series(1, 3) g});
is(value($due), '1|rotation|t|t', 'a generation is over');
like(
	as('app', q{CALL shard_fdw.maintain()}),
	qr/^NOTICE:\ \ 00000:\ foreign\ table\ "log"\ has\ a\ new\ generation\ of\ shards\n
		DETAIL:\ \ Its\ rows\ go\ to\ shards\ "log_2",\ "log_3"\.\n/x,
	'the next one begins');
like(
	value($state),
	qr/^log_[01]:closed:true log_2:open log_3:open$/,
	'the old generation is closed and has ranges; its empty shards are gone');
is(value($due), '2|t|t', 'the view shows that all is done');
is(as('app', q{CALL shard_fdw.maintain('log')}), '', 'a second run has nothing left to do');
as('app', q{UPDATE log SET at = at WHERE at < now(); SELECT 1});
value(q{SELECT age_generation('log', '1 day')});
as('app', q{INSERT INTO log (at) SELECT now() - interval '3 days'});
as('app', q{SELECT shard_fdw.rotate('log')});
is(value($due), '3|2 ranges|t|t', 'rotate() begins a new generation as well');
is( () =
	  as('app', q{CALL shard_fdw.maintain('log')}) =~
	  /NOTICE:  00000: shard public.log_[23] of foreign table "log" has been dropped/g,
	2,
	'shards with old rows are dropped once they are closed');
is(value(q{SELECT count(*) FROM log}), '3', 'no other rows are dropped');

# Who may call it, and where.

fails($node, q{CALL shard_fdw.maintain('log')}, '42501', 'must be owner of foreign table log',
	user => 'other', title => 'it is for the owner');
is(as('other', q{CALL shard_fdw.maintain()}), '', 'a role without tables has nothing maintained');
fails($node, q{SELECT shard_fdw.confirm_retention('log')},
	'42501', 'must be owner of foreign table log',
	user => 'other', title => 'the confirmation is for the owner');
fails($node, q{CALL shard_fdw.maintain('plain')},
	'55000', 'foreign table "plain" has no time column', hint => qr/^Set option/,
	user => 'app', title => 'without a time column');
fails($node, q{CALL shard_fdw.maintain('model')}, '42809', undef,
	user => 'app', title => 'of a plain table');
fails($node, "BEGIN; CALL shard_fdw.maintain('log');",
	'25001', 'maintain() cannot be called in a transaction block',
	detail => 'It commits after each step.',
	hint => 'In a transaction block, use rotate() and retain().',
	user => 'app', title => 'in a transaction block');
fails($node,
	"SET default_transaction_isolation = 'repeatable read'; CALL shard_fdw.maintain('log')",
	'25001',
	qr/^cannot maintain a table in a transaction of isolation level REPEATABLE READ/,
	user => 'app', title => 'with an old snapshot');
is(as('app', q{DO $$ BEGIN CALL shard_fdw.maintain('log'); END $$}), '', 'in a DO command');
is(value(q{SELECT count(*) FROM pg_locks WHERE objsubid = 28787}), '0', 'no lock is left');
as('other', q{
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.op(int, int) RETURNS int
	  LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
	CREATE OPERATOR hostile.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.op);
	CREATE TABLE hostile.maintenance_runs (x int)}
) if value('GRANT CREATE ON DATABASE postgres TO other; SELECT true');
is( as( 'postgres', q{UPDATE shard_fdw.maintenance_runs SET failures = 1;
	SET search_path = hostile, pg_catalog;
	CALL shard_fdw.maintain()}), '', 'a superuser does all tables, whatever is in the path');

# Others are in the way.

my ($user, $owner) = (session($node), session($node, 'app'));
as('app', q{INSERT INTO log (at) SELECT now() - interval '3 days'});
$user->query_safe('BEGIN');
$user->query_safe(q{INSERT INTO log (at) SELECT now() - interval '3 days'});
as('app', q{SELECT shard_fdw.rotate('log')});
like(
	(state_of($owner, "CALL shard_fdw.maintain('log')"))[3],
	qr/WARNING:  55006: 1 closed shard of foreign table "log" is being written, skipping/m,
	'a shard that is written still');
like(
	value($due),
	qr/\|1 range\|t\|t\|a closed shard is being written$/,
	'the view shows that a closed shard is being written');
$user->query_safe('COMMIT');
$user->query_safe('BEGIN');
my $shard = $user->query_safe(q{SELECT shard FROM shard_fdw.shards WHERE logical = 'log'::regclass
	AND state = 'closed' AND range_start IS NULL LIMIT 1});
$user->query_safe("SELECT count(*) FROM $shard");
$owner->query_safe("SET lock_timeout = '300ms'");
like(
	(state_of($owner, "CALL shard_fdw.maintain('log')"))[3],
	qr/WARNING:\ \ 55P03:\ maintenance\ of\ foreign\ table\ "log"\ has\ failed:
		\ could\ not\ obtain\ lock\ on\ relation\ "$shard"\ within\ 300\ ms\n/x,
	'a shard that is read');
$owner->query_safe("SET lock_timeout = '20s'");
send_to($owner, "CALL shard_fdw.maintain('log');\n");
$node->poll_query_until('postgres',
	'SELECT count(*) = 1 FROM pg_locks WHERE objsubid = 28787 AND granted')
  or die;
like(
	as('app', q{CALL shard_fdw.maintain('log')}),
	qr/^NOTICE:  00000: maintenance of foreign table "log" is running already, skipping/,
	'one at a time');
as('app', q{INSERT INTO log (at) SELECT now()});
is(value('SELECT count(*) > 0 FROM log'), 't', 'rows are written and read while maintenance waits');
$user->query_safe('COMMIT');
like(
	(state_of($owner, 'SELECT 1'))[3],
	qr/NOTICE:  00000: shard public\.$shard of foreign table "log" has been dropped/,
	'the shard is dropped when its reader has gone');
send_to($user, "BEGIN; INSERT INTO log (at) VALUES (now());\n");
$user->query_safe('SELECT 1');
as('app', q{SELECT shard_fdw.rotate('log')});
send_to($owner, "CALL shard_fdw.maintain('log');\n");
$node->poll_query_until('postgres',
	'SELECT count(*) = 1 FROM pg_locks WHERE objsubid = 28787 AND granted')
  or die;
value(qq{SELECT pg_cancel_backend($owner->{pid})});
fails($owner, 'SELECT 1', '57014', 'canceling statement due to user request',
	title => 'it can be canceled');
is(value(q{SELECT count(*) FROM pg_locks WHERE objsubid = 28787}),
	'0', 'maintenance that is canceled leaves no lock');
$user->query_safe('COMMIT');
$_->quit for $user, $owner;

# A day in fast motion: whoever inserts starts the workers.

as('app', q{
	CREATE FOREIGN TABLE events (id bigint OPTIONS (sequence 'always'),
	  at timestamptz NOT NULL DEFAULT clock_timestamp())
	  SERVER shards OPTIONS (shards '3', max_shards '1000', commit_order 'true', template 'model',
	                         time_column 'at', rotate_every '1 second', retain_for '2 seconds');
	CREATE TABLE written (id bigint);
	CREATE TABLE seen (reader text, id bigint);
	CREATE TABLE seen_windows (reader text, id bigint);
	SELECT shard_fdw.register_consumer('events', 'ids', 'id');
	SELECT shard_fdw.register_consumer('events', 'times', 'at')});
my $write = q{
BEGIN;
WITH w AS (INSERT INTO events SELECT FROM generate_series(1, 3) RETURNING id) INSERT INTO written
  SELECT id FROM w;
COMMIT;
};
my $ids = q{INSERT INTO seen SELECT 'ids', id FROM shard_fdw.read_batch(NULL::events, 'ids', 500);};
my $times = q{INSERT INTO seen SELECT 'times', id
	FROM shard_fdw.read_window(NULL::events, 'times', clock_timestamp());};
my $log = -s $node->logfile;
my $dropped = sub {
	return
	  scalar(() = slurp_file($node->logfile, $log) =~
		  /LOG:  shard public\.events_\d+ of foreign table "events" has been dropped/g);
};

sub in_motion
{
	my ($seconds, $enough) = @_;
	my $end = time + $seconds;

	while (time < $end + 40)
	{
		my $run = pgbench_start($node, [ [ $write, 6 ], [ $ids, 2 ], [ $times, 2 ] ],
			'-U', 'app', '-c', '6', '-j', '1', '-T', '3');

		# A killed session is none of the others' business.
		value(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'pgbench' LIMIT 1}) if $enough == 0;
		pgbench_finish($run);
		last if time > $end && $dropped->() >= $enough;
	}
	return;
}
in_motion(6, 6);
cmp_ok($dropped->(), '>=', 6, 'workers drop old shards');
like(
	slurp_file($node->logfile, $log),
	qr/LOG:\ \ foreign\ table\ "events"\ has\ a\ new\ generation\ of\ shards\n
		.*DETAIL:\ \ Its\ rows\ go\ to\ shards\ "events_3",\ "events_4",\ "events_5"\./x,
	'workers begin new generations');
unlike(slurp_file($node->logfile, $log),
	qr/ERROR|FATAL|deadlock/, 'nothing of what the workers do fails');

# Faster still: the generations age as quickly as maintain() gets through with
# them, while rows come, are read and go, sessions are killed, and the server
# crashes.

# How many generations there have been.
sub generations
{
	return value(q{SELECT max(substring(shard::text FROM '\d+$')::int) / 3 + 1
		FROM shard_fdw.list_shards('events')});
}

sub age_up_to
{
	my ($wanted, $crash) = @_;
	my $owner = session($node, 'app');
	my @clients = ('-U', 'app', '-j', '1', '-T', '600');
	my @runs;
	my $n = 0;
	my $state = '00000';

	while ($state eq '00000' && generations() < $wanted)
	{
		# Those who have lost all their sessions begin anew.
		if ($n % 25 == 0)
		{
			$_->{harness}->kill_kill foreach @runs;
			@runs = (
				pgbench_start($node, $write, @clients, '-c', '8', '-R', '200'),
				map { pgbench_start($node, $_, @clients, '-c', '1', '-R', '20') } $ids, $times);
		}
		value(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'pgbench' ORDER BY random() LIMIT 1}) if $n++ % 5 == 4;
		value(q{SELECT age_generation('events', '1 second')});
		$state = (state_of($owner, q{CALL shard_fdw.maintain('events')}))[0];
	}
	is($state, '00000', "no run up to generation $wanted fails");
	if ($crash)
	{
		$node->stop('immediate');
		$node->start;
	}
	else { $owner->quit; }
	$_->{harness}->kill_kill foreach @runs;
	poll_ok($node, q{SELECT count(*) = 0 FROM pg_stat_activity
		WHERE application_name = 'pgbench'}, 'the clients have gone');
	return;
}
$log = -s $node->logfile;
age_up_to(50, 1);
age_up_to(100, 0);
unlike(slurp_file($node->logfile, $log), qr/deadlock/, 'nobody has met a deadlock');
foreach my $consume ($ids, $times)
{
	foreach (1 .. 2000)
	{
		last
		  if value("BEGIN; $consume COMMIT; SELECT (SELECT count(*) FROM seen WHERE reader = '"
			  . ($consume eq $ids ? 'ids' : 'times')
			  . "') >= (SELECT count(*) FROM written)") =~ /t$/;
	}
}
is(value(q{
		SELECT reader, count(*) - count(DISTINCT id), count(*) - (SELECT count(*) FROM written)
		  FROM seen GROUP BY reader ORDER BY 1;
		SELECT count(*) FROM (SELECT id FROM written EXCEPT SELECT id FROM seen
		  WHERE reader = 'ids') t;
		SELECT count(*) = count(DISTINCT id) FROM written;
		SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT FROM written w WHERE w.id = e.id)}),
	"ids|0|0\ntimes|0|0\n0\nt\n0",
	'each row was read once by each consumer, and no id was given twice');
is( value(
		q{SELECT count(*) FROM shard_fdw.generations g
			WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.logical)}),
	'0',
	'the table of generations is in order');
my $rest;
foreach (1 .. 300)
{
	value(q{SELECT age_generation('events', '1 second')});
	as('app', q{CALL shard_fdw.maintain('events')});
	$rest = value('SELECT count(*) FROM events');
	last if $rest == 0;
	sleep(0.2);
}
is($rest, '0', 'all rows have gone in the end');

# In the middle, a dump.  What comes out of it keeps its rows.

as('app', q{ALTER FOREIGN TABLE events OPTIONS (ADD maintenance 'manual')});
sleep(2.1);
as('app', q{SELECT shard_fdw.rotate('events')});
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'postgres' ], 'dump');
value('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', $dump ], 'restore');
my $restored = q{SELECT (SELECT began FROM shard_fdw.generations
	WHERE logical = 'events'::regclass), generations, is_confirmed, last_run
	FROM shard_fdw.maintenance WHERE logical = 'events'::regclass};
is( $node->safe_psql('restored', $restored),
	value($restored) =~ s/\|t\|.*/|f|/r,
	'the generations are known, but not that old rows are to go');
my $maintain = q{SET client_min_messages = warning; CALL shard_fdw.maintain('events')};
foreach my $time (1 .. 2)
{
	my (undef, undef, $err) = $node->psql('restored', $maintain);
	like(
		$err,
		qr/WARNING:\ \ \d+\ old\ shards?\ of\ foreign\ table\ "events"\ (is|are)\ kept
			\ until\ its\ owner\ has\ confirmed\ the\ retention\n
			DETAIL:\ \ .*\ restored\ from\ a\ dump.*\n
			HINT:\ \ .*confirm_retention\('public\.events'\)/x,
		"run $time only reports");
}
$node->safe_psql('restored', q{ALTER FOREIGN TABLE events OPTIONS (SET maintenance 'auto');
	ALTER FOREIGN TABLE events RENAME COLUMN at TO happened});
like(
	$node->safe_psql(
		'restored', q{SELECT due FROM shard_fdw.maintenance WHERE logical = 'events'::regclass}),
	qr/\d+ shards? to drop when confirmed/,
	'other changes do not confirm it');
$node->safe_psql('restored', q{SELECT shard_fdw.confirm_retention('events')});
$node->psql('restored', q{CALL shard_fdw.maintain('events')});
is($node->safe_psql('restored', q{SELECT closed, is_confirmed FROM shard_fdw.maintenance
	WHERE logical = 'events'::regclass}), '0|t', 'a confirmation does');
value('DROP DATABASE restored (FORCE)');
is(value($restored) =~ /\|t\|/, 1, 'the other server is confirmed still');

# A standby that is promoted goes on.

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('maintain_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
as('app', q{ALTER FOREIGN TABLE events
	OPTIONS (SET maintenance 'auto', SET rotate_every '1 hour')});
as('app', q{INSERT INTO events DEFAULT VALUES});
value(q{SELECT age_generation('events', '1 hour')});
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT due ~ 'rotation' FROM shard_fdw.maintenance
	WHERE logical = 'events'::regclass}), 't', 'a standby sees what is due');
$node->stop;
$standby->promote;
$standby->safe_psql('postgres', q{INSERT INTO events DEFAULT VALUES});
ok($standby->poll_query_until('postgres', q{SELECT due IS NULL OR due !~ 'rotation'
	FROM shard_fdw.maintenance
	WHERE logical = 'events'::regclass}), 'a promoted standby does what is due');

# Where no worker can be had, nobody minds.

my $set_due = q{INSERT INTO events DEFAULT VALUES; SELECT age_generation('events', '2 hours')};
my $is_due = q{SELECT due ~ 'rotation' FROM shard_fdw.maintenance
	WHERE logical = 'events'::regclass};
# Let those that have been started come to their end.
$standby->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity
	WHERE backend_type = 'shard_fdw maintenance'}) or die;
foreach my $case (
	[ 'owner cannot log in', 'ALTER ROLE app NOLOGIN', 'ALTER ROLE app LOGIN' ],
	[
		'owner cannot connect',
		'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC',
		'GRANT CONNECT ON DATABASE postgres TO PUBLIC'
	],
	[
		'maintenance is manual',
		q{ALTER FOREIGN TABLE events OPTIONS (SET maintenance 'manual')},
		q{ALTER FOREIGN TABLE events OPTIONS (SET maintenance 'auto')}
	],
	[
		'no worker is free',
		q{ALTER SYSTEM SET max_worker_processes = 1},
		q{ALTER SYSTEM RESET max_worker_processes}
	])
{
	my ($name, $do, $undo) = @$case;

	$standby->safe_psql('postgres', $do);
	$standby->restart if $do =~ /SYSTEM/;
	my $log = -s $standby->logfile;
	$standby->safe_psql('postgres', $set_due);
	$standby->safe_psql('postgres', 'INSERT INTO events DEFAULT VALUES') for 1 .. 3;
	is($standby->safe_psql('postgres', "SELECT pg_sleep(0.3); $is_due") =~ /t$/,
		1, "$name: it is left");
	unlike(
		slurp_file($standby->logfile, $log),
		qr/ERROR|FATAL|WARNING|shard_fdw maintenance/,
		"$name: it is left silently");
	$standby->safe_psql('postgres', $undo);
	$standby->restart if $do =~ /SYSTEM/;
}
$standby->safe_psql('postgres', 'INSERT INTO events DEFAULT VALUES');
ok($standby->poll_query_until('postgres', $is_due, 'f'), 'then it is done');
$standby->stop;

my ($out, $err) = ('', '');
IPC::Run::run(
	[ 'postgres', '--single', '-D', $standby->data_dir, 'postgres' ],
	'<', \($set_due =~ s/; /\n/r . "\nINSERT INTO events DEFAULT VALUES\n"
		  . ($is_due =~ s/\s+/ /gr) . "\nCALL shard_fdw.maintain('events')\n"
		  . ($is_due =~ s/\s+/ /gr =~ s/due ~ 'rotation'/coalesce(due ~ 'rotation', false)/r) . "\n"),
	'>', \$out, '2>', \$err);
unlike("$out$err", qr/ERROR|FATAL|WARNING(?!.*is kept for consumer)/,
	'nothing fails in single-user mode');
is(join('', $out =~ /\d: \S+ = "([tf])"/g), 'tf',
	'in single-user mode it is left until somebody calls maintain()');
done_testing();
