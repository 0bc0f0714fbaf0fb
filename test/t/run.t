# run_on_shards(): a transaction for each shard, which goes on where it ended
# early, and in whose way nobody is for long.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('run', conf => "deadlock_timeout = 100ms\n");
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER shards TO app;
	GRANT ALL ON SCHEMA public TO app;
	SET ROLE app;
	CREATE TABLE model (id int, v int);
	CREATE FOREIGN TABLE log (id int, v int)
	  SERVER shards OPTIONS (shards '4', route 'round_robin', template 'model');
	INSERT INTO log SELECT g, 0 FROM generate_series(1, 40) g;
	CREATE TABLE failing (shard text);
	CREATE FUNCTION may_fail(shard text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
	  IF EXISTS (SELECT FROM failing f WHERE f.shard = may_fail.shard) THEN
	    RAISE 'no %', shard USING ERRCODE = 'SF001', DETAIL = 'why', HINT = 'how';
	  END IF;
	  RETURN shard;
	END $$});
my $app = session($node, 'app');

# Call it; %other are arguments, as SQL.
sub run
{
	my ($command, %other) = @_;
	my $more = join('', map { ", $_ => $other{$_}" } sort keys %other);

	return state_of($app, "CALL shard_fdw.run_on_shards('log', \$cmd\$$command\$cmd\$$more)");
}

# The notices and warnings, without what is of no interest.
sub said
{
	my ($text) = @_;

	return join("\n", $text =~ /(?:NOTICE|WARNING):  (.*)/g);
}

# How often a count has been raised in each shard.
sub counts
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(v::text, ' ' ORDER BY shard::text)
		   FROM (SELECT DISTINCT tableoid::regclass AS shard, v FROM log) s});
}
my $left = q{SELECT count(*) FROM shard_fdw.command_runs WHERE finished IS NULL};
my $count = 'UPDATE %s SET v = v + 1';

is(said((run($count))[3]), join("\n", map { "00000: shard \"log_$_\": UPDATE 10" } 0 .. 3),
	'a run tells of each shard');
is(counts(), '1 1 1 1', 'a run is for each shard');
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.command_runs'),
	'0', 'nothing is kept of a run that is complete');
run($count);
is(counts(), '2 2 2 2', 'the same command once more is another run');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT xmin::text) FROM log'),
	'4', 'a transaction for each shard');

# An error ends it, or does not.
my $failing = "$count; SELECT may_fail('%s')";
$app->query_safe(q{INSERT INTO failing VALUES ('public.log_2')});
my ($state, $message, undef, $errors) = run($failing);
is("$state $message", 'SF001 no public.log_2', 'an error ends the run');
like($errors, qr/^DETAIL:  why\nHINT:  how\n(?s:.*)command on shard "log_2"$/m, 'the error is what it was');
is(counts(), '3 3 2 2', 'what was done before stays');
is($node->safe_psql('postgres', $left), '2', 'two shards are left');
($state, $message, undef, $errors) = run($failing, on_error => q{'continue'});
is($state, '00000', 'the run goes on after errors');
is(said($errors), join("\n",
		'00000: going on with a run on the shards of foreign table "log"',
		'SF001: command has failed on shard "log_2": no public.log_2',
		'00000: shard "log_3": public.log_3',
		'01000: command has failed on 1 shard of foreign table "log"'),
	'what the run says that goes on');
is(counts(), '3 3 2 3', 'the run has gone on where it ended');
run($count);
is(counts(), '4 4 3 4', 'another command is another run');
$app->query_safe('DELETE FROM failing');
run($failing);
is(counts(), '4 4 4 4', 'the rest is done when the error has gone');
is($node->safe_psql('postgres', $left), '0', 'then nothing is left');
$app->query_safe(q{INSERT INTO failing VALUES ('public.log_1')});
run($failing);
$app->query_safe('DELETE FROM failing');
run($failing, restart => 'true');
is(counts(), '6 5 5 5', 'a run can begin anew');

# What fails when it is committed, and what cannot be in a transaction.
$node->safe_psql('postgres', q{SET ROLE app; CREATE TABLE target (id int PRIMARY KEY);
	CREATE TABLE pointing (id int REFERENCES target DEFERRABLE INITIALLY DEFERRED)});
($state, undef, undef, $errors) =
  run(q{INSERT INTO pointing SELECT 1 WHERE '%s' ~ '1$'}, on_error => q{'continue'});
is($state, '00000', 'a deferred constraint does not end a run');
like($errors, qr/^(?s:.*)WARNING:  23503: command has failed on shard "log_1": (?s:.*)INSERT 0 0(?s:.*)INSERT 0 0/,
	'a deferred constraint fails on its shard');

# Those that cannot are run by a worker, with the rights and settings of the caller.
foreach (
	[ 'VACUUM (ANALYZE) %s', 'VACUUM' ],
	[ 'VACUUM FULL %s', 'VACUUM' ],
	[ 'CREATE INDEX CONCURRENTLY ON %s (v)', 'CREATE INDEX' ],
	[ 'REINDEX TABLE CONCURRENTLY %s', 'REINDEX' ],
	[ 'DROP INDEX CONCURRENTLY %s_v_idx', 'DROP INDEX' ])
{
	my ($command, $tag) = @$_;

	is(said((run($command))[3]), join("\n", map { "00000: shard \"log_$_\": $tag" } 0 .. 3), $command);
	is($node->safe_psql('postgres', "SELECT count(*) FROM shard_fdw.command_runs WHERE command = '$command'"),
		'0', "$command: the run is complete");
	next if $command !~ /^CREATE/;
	is($node->safe_psql('postgres', q{
			SELECT count(*), bool_and(indisvalid AND pg_get_userbyid(c.relowner) = 'app')
			  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_inherits h ON i.indrelid = h.inhrelid}),
		'4|t', "$command: an index on each shard");
}
like((run('VACUUM (VERBOSE) %s'))[3], qr/INFO:  00000: vacuuming "postgres\.public\.log_3"/,
	'what a command says besides is passed on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'shard_fdw command'}),
	'0', 'workers end');
# An error is the command's own.
$app->query_safe(q{SET client_encoding = 'LATIN1';
	INSERT INTO log SELECT 1, 77 FROM generate_series(1, 16)});
my $unique = 'CREATE UNIQUE INDEX CONCURRENTLY ON %s (id, v)';
($state, $message, undef, $errors) = run($unique);
is($state, '23505', 'the error of a worker has its SQLSTATE');
like($errors, qr/^DETAIL:  Key \(id, v\)=\(1, 77\) is duplicated.\n(?s:.*)CONSTRAINT NAME:  log_0_id_v_idx\n/m,
	'... and all else');
like($errors, qr/^CONTEXT:(?s:.*)command on shard "log_0"$/m, '... and what the command was for');
is($node->safe_psql('postgres', "$left AND command = '$unique'"), '4', 'nothing is noted');
($state, undef, undef, $errors) = run($unique, on_error => q{'continue'});
is($state, '00000', 'errors of workers do not end a run if they are not to');
is(() = $errors =~ /WARNING:  23505: command has failed on shard/g, 4, '... but are told');
$app->query_safe("DELETE FROM log WHERE v = 77; RESET client_encoding");
$node->safe_psql('postgres', "DELETE FROM shard_fdw.command_runs; DROP INDEX " .
	$node->safe_psql('postgres', q{SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index WHERE NOT indisvalid}));
fails($app, q{CALL shard_fdw.run_on_shards('log', 'SELECT 1; VACUUM %s')},
	'0A000', 'cannot run this command with run_on_shards()',
	detail => 'VACUUM cannot run inside a transaction block.',
	hint => 'Run it on its own, not together with other commands.');
is($node->safe_psql('postgres', "$left AND command ~ 'VACUUM'"), '0', 'no run is left');
# Whose command it is.
$node->safe_psql('postgres', q{
	ALTER ROLE app SET maintenance_work_mem = '5MB';
	CREATE FUNCTION who(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
	  RAISE WARNING '%, %, %', current_user, session_user, current_setting('work_mem');
	  RETURN $1;
	END $$});
$errors = (state_of($app, q{SET work_mem = '777kB';
	CALL shard_fdw.run_on_shards('log', 'CREATE INDEX CONCURRENTLY x%s ON %s (who(id))')}))[3];
unlike($errors, qr/postgres, /, 'a command is not run by somebody else');
$errors = (state_of($app, q{CALL shard_fdw.run_on_shards('log', 'CREATE INDEX CONCURRENTLY ON %s (public.who(id))')}))[3];
like($errors, qr/WARNING:  01000: app, app, 777kB/, 'the caller runs a command, with his settings');
my $root = session($node);
$errors = (state_of($root, q{SET ROLE app;
	CALL shard_fdw.run_on_shards('log', 'DROP INDEX CONCURRENTLY %s_who_idx')}))[3];
is(said($errors), join("\n", map { "00000: shard \"log_$_\": DROP INDEX" } 0 .. 3), 'by a role that is set');
$errors = (state_of($root, q{CALL shard_fdw.run_on_shards('log', 'CREATE INDEX CONCURRENTLY ON %s (public.who(id))')}))[3];
like($errors, qr/WARNING:  01000: app, postgres/, '... whose session is another\'s');
$node->safe_psql('postgres', q{DROP INDEX log_0_who_idx, log_1_who_idx, log_2_who_idx, log_3_who_idx});
# A cancel stops the worker, and so does the end of the session.
foreach my $stop ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $session = session($node, 'app');
	my $holder = session($node, 'app');
	my $worker = q{SELECT count(*) = %d FROM pg_stat_activity
		WHERE backend_type = 'shard_fdw command' AND query ~ '^VACUUM'};

	$holder->query_safe('BEGIN; LOCK TABLE log_2 IN SHARE UPDATE EXCLUSIVE MODE');
	send_to($session, "CALL shard_fdw.run_on_shards('log', 'VACUUM %s');\n");
	poll_ok($node, sprintf("$worker AND ($left AND command = 'VACUUM %%s') = 2", 1),
		"$stop: the worker waits");
	$node->safe_psql('postgres', "SELECT $stop($session->{pid})");
	poll_ok($node, sprintf($worker, 0), "$stop: the worker is stopped");
	$holder->query_safe('COMMIT');
	if ($stop eq 'pg_cancel_backend')
	{
		is((state_of($session, 'SELECT 1'))[0], '57014', "$stop: that is an error");
		is((state_of($session, q{CALL shard_fdw.run_on_shards('log', 'VACUUM %s')}))[0], '00000',
			"$stop: the run goes on when it is called again");
	}
	else
	{
		is(said((run('VACUUM %s'))[3]), join("\n",
				'00000: going on with a run on the shards of foreign table "log"',
				map { "00000: shard \"log_$_\": VACUUM" } 2 .. 3),
			"$stop: another session goes on with the run");
	}
}
# A worker that ends, and none to be had.
{
	my $holder = session($node, 'app');
	my $session = session($node, 'app');

	$holder->query_safe('BEGIN; LOCK TABLE log_0 IN SHARE UPDATE EXCLUSIVE MODE');
	send_to($session, "CALL shard_fdw.run_on_shards('log', 'VACUUM %s');\n");
	poll_ok($node, q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'shard_fdw command' AND wait_event_type = 'Lock'}, 'a worker waits');
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'shard_fdw command'});
	is((state_of($session, 'SELECT 1'))[0], '57P01', 'a worker that is terminated is an error');
	$holder->query_safe('COMMIT');
	$node->append_conf('postgresql.conf', "max_worker_processes = 0\n");
	$node->restart;
	$app = session($node, 'app');
	fails($app, q{CALL shard_fdw.run_on_shards('log', 'VACUUM %s')}, '53000', 'no background worker is free',
		detail => 'Commands that cannot run inside a transaction block are run by a background worker.',
		hint => 'You might need to increase "max_worker_processes".  In psql, SELECT shard_fdw.format_on_shards() \gexec needs no worker.');
	$node->append_conf('postgresql.conf', "max_worker_processes = 8\n");
	$node->restart;
	$app = session($node, 'app');
	is((state_of($app, q{CALL shard_fdw.run_on_shards('log', 'VACUUM %s')}))[0], '00000', '... and the run goes on');
}
fails($app, q{CALL shard_fdw.run_on_shards('log', 'COMMIT')}, '0A000',
	'cannot begin or end transactions on shards');
$node->safe_psql('postgres', 'DELETE FROM shard_fdw.command_runs');

# Shards that come and go.
$app->query_safe(q{INSERT INTO failing VALUES ('public.log_1')});
run($failing);
$app->query_safe(q{DELETE FROM failing; SELECT shard_fdw.create_shards('log', 1); DROP TABLE log_2});
is(said((run($failing))[3]), join("\n",
		'00000: going on with a run on the shards of foreign table "log"',
		'00000: shard "log_1": public.log_1',
		'00000: shard "log_3": public.log_3'),
	'a run is for the shards that there were when it began and are there still');
is(said((run('SELECT 1'))[3]), join("\n", map { "00000: shard \"log_$_\": 1" } 0, 1, 3, 4),
	'the next one is for those that there are');

# Who may call it, and where.
fails($node, q{CALL shard_fdw.run_on_shards('log', 'SELECT 1')},
	'42501', 'must be owner of foreign table log', user => 'other', title => 'it is for the owner');
fails($app, q{CALL shard_fdw.run_on_shards('model', 'SELECT 1')}, '42809', undef);
fails($app, 'CALL shard_fdw.run_on_shards(NULL, NULL)', '22004', 'logical table must not be null');
fails($app, q{CALL shard_fdw.run_on_shards('log', 'SELECT 1', on_error => 'no')},
	'22023', 'invalid value for parameter "on_error": "no"');
fails($node, q{BEGIN; CALL shard_fdw.run_on_shards('log', 'SELECT 1')},
	'25001', 'run_on_shards() cannot be called in a transaction block',
	detail => 'It commits after each step.',
	hint => 'In a transaction block, use run_command_on_shards().', user => 'app');

# It waits for a shard that is in use, but nobody waits behind it for long.
my ($user, $writer) = (session($node, 'app'), session($node, 'app'));
$user->query_safe('BEGIN; SELECT count(*) FROM log_1');
send_to($app, "CALL shard_fdw.run_on_shards('log', 'ALTER TABLE %s ALTER v SET NOT NULL');\n");
poll_ok($node, "$left AND EXISTS (SELECT FROM pg_locks WHERE pid = $app->{pid} AND NOT granted)"
	=~ s/count\(\*\)/count(*) = 3/r, 'a run waits for a shard');
is((state_of($writer, 'INSERT INTO log SELECT 1, 1 FROM generate_series(1, 8)'))[0],
	'00000', 'others write meanwhile');
fails($writer, q{CALL shard_fdw.run_on_shards('log', 'SELECT 1')},
	'55006', 'run_on_shards(), create_index(), reshard_online() or rebalance() is running on foreign table "log" already', title => 'one at a time');
$user->query_safe('COMMIT');
is((state_of($app, 'SELECT 1'))[0], '00000', 'the run gets the lock in the end');
$user->query_safe('BEGIN; SELECT count(*) FROM log_1');
fails($app, q{SET lock_timeout = '300ms';
	CALL shard_fdw.run_on_shards('log', 'ALTER TABLE %s ALTER v DROP NOT NULL')},
	'55P03', 'canceling statement due to lock timeout', title => 'a run gives up');
is($node->safe_psql('postgres', $left), '3', 'a run that gives up has three shards left');

# A session that is killed, and a server that crashes: no shard twice.
$user->query_safe('COMMIT; UPDATE log SET v = 0');
my $locking = "LOCK TABLE %s; $count";

# Begin, or go on, while somebody has a shard, until so many are left.
sub run_up_to
{
	my ($shard, $rest, $title) = @_;
	my $session = session($node, 'app');

	$user->query_safe("BEGIN; LOCK TABLE $shard IN ACCESS SHARE MODE");
	send_to($session, "CALL shard_fdw.run_on_shards('log', '$locking');\n");
	poll_ok($node, "SELECT count(*) = $rest FROM shard_fdw.command_runs
		WHERE finished IS NULL AND command ~ '^LOCK'", $title);
	return $session;
}
my $victim = run_up_to('log_1', 3, 'a run has done one shard');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($victim->{pid})");
poll_ok($node, 'SELECT count(*) = 0 FROM pg_locks WHERE objsubid = 28788', 'its session is killed');
$user->query_safe('COMMIT');
run_up_to('log_3', 2, 'another session has done the next');
$node->stop('immediate');
$node->start;
$app = session($node, 'app');
is(said((run($locking))[3]), join("\n",
		'00000: going on with a run on the shards of foreign table "log"',
		'00000: shard "log_3": UPDATE 12', '00000: shard "log_4": UPDATE 2'),
	'the rest is done after a crash');
is($node->safe_psql('postgres', 'SELECT DISTINCT v FROM log'), '1', 'no shard is done twice');
is($node->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.command_runs WHERE command ~ '^LOCK'}),
	'0', 'the run is complete');
$node->stop;
done_testing();
