# View progress: what other sessions see of a command that runs, in the middle
# of its transaction.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('progress');
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_read_all_stats;
	GRANT USAGE ON FOREIGN SERVER shards TO app;
	GRANT ALL ON SCHEMA public TO app;
	SET ROLE app;
	-- A function that waits until it may go on.
	CREATE TABLE waiting (what text);
	CREATE FUNCTION pass(what text) RETURNS bool LANGUAGE plpgsql AS $$
	BEGIN
	  WHILE EXISTS (SELECT FROM public.waiting w WHERE w.what = pass.what) LOOP
	    PERFORM pg_sleep(0.02);
	  END LOOP;
	  RETURN true;
	END $$;
	CREATE TABLE model (id int CHECK (id % 10 > 0 OR pass('row')), v int);
	CREATE FOREIGN TABLE log (id int, v int)
	  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'model');
	INSERT INTO log SELECT g, 0 FROM generate_series(1, 400) g;
	CREATE FOREIGN TABLE old (at timestamptz NOT NULL)
	  SERVER shards OPTIONS (shards '2', time_column 'at', retain_for '1 day',
	    maintenance 'manual');
	INSERT INTO old VALUES (now() - interval '1 week');
	SELECT shard_fdw.rotate('old')});
$node->safe_psql('postgres', 'VACUUM ANALYZE');
my $app = session($node, 'app');

# What a role sees of the command.
sub seen
{
	my ($role, $columns) = @_;

	return $node->safe_psql('postgres',
		"SET ROLE $role; SELECT $columns FROM shard_fdw.progress");
}

# Start a command, wait until the view shows what is expected, and let it go
# on.
sub shows
{
	my ($command, $condition, $title, $look) = @_;

	send_to($app, "$command;\n");
	poll_ok($node,
		"SELECT count(*) = 1 FROM shard_fdw.progress WHERE pid = $app->{pid} AND $condition",
		$title);
	$look->() if $look;
	$node->safe_psql('postgres', 'DELETE FROM waiting');
	is((state_of($app, 'SELECT'))[0], '00000', "$title: it ends well");
	is(seen('postgres', 'count(*)'), '0', "$title: nothing is shown of it any more");
}

$node->safe_psql('postgres', q{INSERT INTO waiting VALUES ('public.log_2')});
shows(q{CALL shard_fdw.run_on_shards('log', $$SELECT pass('%s')$$)},
	q{(logical::text, command, phase, done, total) = ('log', 'run_on_shards', 'running the command', 2, 4)
	  AND since BETWEEN now() - interval '10 minutes' AND now()},
	'run_on_shards() after two of four shards',
	sub {
		is(seen('app', 'datname, logical, command, done'), 'postgres|log|run_on_shards|2',
			'the role itself sees it');
		is(seen('monitor', 'datname, logical, command, done'), 'postgres|log|run_on_shards|2',
			'and so does one that may read all statistics');
		is(seen('other', 'pid, datname, logical, command, phase, done, total, since'),
			"$app->{pid}|postgres||||||", 'others see that there is something');
		is( $node->safe_psql('template1', 'SELECT count(*) FROM pg_stat_progress_vacuum'),
			'0', q{PostgreSQL's own views do not show it});
	});

# An index that is built takes the place, an error in a subtransaction empties it.
$node->safe_psql('postgres', q{INSERT INTO waiting VALUES ('public.log_3')});
shows(q{CALL shard_fdw.run_on_shards('log', $$
	CREATE INDEX ON %s (v);
	DO $do$ BEGIN RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END $do$;
	SELECT pass('%s')$$)},
	q{(command, done, total) = ('run_on_shards', 3, 4)}, 'after other commands in the same place');

# Commands within commands.
$node->safe_psql('postgres', q{INSERT INTO waiting VALUES ('row')});
shows(q{SELECT shard_fdw.reshard('log', 2)},
	q{(logical::text, command, phase, total) = ('log', 'reshard', 'moving rows', 400)},
	'reshard() in the middle of a transaction');
$node->safe_psql('postgres', q{INSERT INTO waiting VALUES ('public.log_1')});
shows(q{CALL shard_fdw.run_on_shards('log', $$
	DO $do$
	BEGIN
	  IF '%s' = 'public.log_0' THEN PERFORM shard_fdw.reshard('log', 2); RAISE 'no'; END IF;
	EXCEPTION WHEN raise_exception THEN NULL;
	END $do$; SELECT pass('%s')$$)},
	q{(command, done) = ('run_on_shards', 1)}, 'a command that has called another and has caught its error');

# A shard whose rows wait for one of them, and an index that has to wait.
$node->safe_psql('postgres', q{SET ROLE app;
	CREATE TABLE plain_model (id int, v int CHECK (v < 100 OR pass('v')));
	CREATE FOREIGN TABLE plain (id int, v int) SERVER shards OPTIONS (shards '2', template 'plain_model');
	INSERT INTO plain_0 SELECT g, 50 + g FROM generate_series(1, 99) g;
	INSERT INTO waiting VALUES ('v')});
$node->safe_psql('postgres', 'ANALYZE plain_0');
shows(q{CALL shard_fdw.drain('plain_0')},
	q{(logical::text, command, phase, done, total) = ('plain', 'drain', 'moving rows', 0, 99)}, 'drain()');
my $writer = session($node, 'app');
$writer->query_safe('BEGIN; UPDATE plain_1 SET v = 1 WHERE id = 1');
shows(q{CALL shard_fdw.create_index('plain', '(id)')},
	q{(logical::text, command, phase, done, total) = ('plain', 'create_index', 'building indexes', 1, 2)},
	'create_index() after one of two shards', sub { $writer->query_safe('COMMIT') });
$writer->quit;

# It waits for a lock in subtransactions that fail.
my $reader = session($node);
my ($closed) = $node->safe_psql('postgres',
	q{SELECT shard FROM shard_fdw.list_shards('old') WHERE state = 'closed' ORDER BY shard LIMIT 1});
$reader->query_safe(qq{BEGIN; SELECT count(*) FROM $closed});
$app->query_safe(q{SET lock_timeout = '5min'});
shows(q{CALL shard_fdw.maintain('old')},
	q{(logical::text, command, phase) = ('old', 'maintain', 'adding ranges') AND done < total},
	'maintain() while it waits for a lock', sub { $reader->query_safe('COMMIT') });
is($node->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.list_shards('old')}), '2',
	'the old shards are gone');

# One that is killed, and one that fails.
$node->safe_psql('postgres', q{INSERT INTO waiting VALUES ('row')});
send_to($app, "SELECT shard_fdw.reshard('log', 4);\n");
poll_ok($node, q{SELECT phase = 'moving rows' FROM shard_fdw.progress}, 'another one runs');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($app->{pid})");
is((state_of($app, 'SELECT'))[0], '57014', 'it is canceled');
is(seen('postgres', 'count(*)'), '0', 'nothing is shown of it');
$node->safe_psql('postgres', 'DELETE FROM waiting');
$reader->query_safe('SET track_activities = off');
is((state_of($reader, q{SELECT shard_fdw.reshard('log', 4)}))[0], '00000', 'without track_activities');
foreach my $session ($app, $reader)
{
	$session->quit;
}
done_testing();
