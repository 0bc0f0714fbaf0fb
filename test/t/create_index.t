# create_index(): an index on all shards while others write, whatever ends it
# early.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('create_index', conf => "deadlock_timeout = 100ms\n");
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER shards TO app;
	GRANT ALL ON SCHEMA public TO app;
	SET ROLE app;
	CREATE TABLE model (id int NOT NULL, gone int, "Some Name" text, v int);
	ALTER TABLE model DROP gone;
	CREATE FOREIGN TABLE log (id int, "Some Name" text, v int)
	  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'model');
	INSERT INTO log SELECT g, 'name ' || g, g % 7 FROM generate_series(1, 2000) g});
my $app = session($node, 'app');

sub create_index
{
	my ($definition, $session) = @_;

	return state_of($session // $app, "CALL shard_fdw.create_index('log', \$d\$$definition\$d\$)");
}

# How many indexes there are with such a definition, and how many are valid.
sub indexes
{
	my ($like) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT count(*), count(*) FILTER (WHERE indisvalid) FROM pg_index i JOIN pg_inherits h ON indrelid = inhrelid
		 WHERE inhparent = 'log'::regclass AND pg_get_indexdef(indexrelid) LIKE '%$like'});
}

sub said
{
	my ($text) = @_;

	return join("\n", $text =~ /(?:NOTICE|WARNING):  \w{5}: (.*)/g);
}
my $created = join("\n", map { "shard \"log_$_\": CREATE INDEX" } 0 .. 3);
my $skipped = 'all shards of foreign table "log" have the index already, skipping';

# While others write.
my $write = q{
\set id random(1, 2000)
UPDATE log SET v = v + 1 WHERE id = :id;
INSERT INTO log SELECT :id + 10000, 'new', 1;
};
my $writers = pgbench_start($node, $write, '-c', '4', '-j', '1', '-T', '5');
is(said((create_index('(v)'))[3]), $created, 'an index on each shard');
is(said((create_index(q{USING hash (lower("Some Name")) WITH (fillfactor = 60) WHERE v > 3}))[3]),
	$created, 'any kind of index');
pgbench_ok($writers, 'writers');
is(indexes('USING btree (v)'), '4|4', 'the indexes are valid');
is(indexes('WHERE (v > 3)'), '4|4', 'the indexes are valid, of any kind');

# What is there is not created again, by whatever name and way it is written.
is(said((create_index(' ( "v"  ) '))[3]), $skipped, 'an index that is there');
is(said((create_index(q{using HASH (lower("Some Name")) with (fillfactor = 60) where v > 3}))[3]),
	$skipped, 'an index that is there, of any kind');
$app->query_safe('DROP INDEX log_1_v_idx; ALTER INDEX log_2_v_idx RENAME TO "odd USING name"');
is(said((create_index('(v)'))[3]), 'shard "log_1": CREATE INDEX', 'only where it is missing');
is(said((create_index('(v DESC)'))[3]), $created, 'another order is another index');
is(said((create_index('(v) INCLUDE (id)'))[3]), $created, 'other columns are another index');

# New shards.
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE TABLE model2 (id int, v int);
	CREATE FOREIGN TABLE log2 (id int, v int) SERVER shards OPTIONS (shards '2', template 'model2')});
state_of($app, q{CALL shard_fdw.create_index('log2', '(v)')});
$app->query_safe(q{SELECT shard_fdw.create_shards('log2', 1)});
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_index WHERE indrelid = 'log2_2'::regclass}),
	'1', 'a new shard has the index');
my $creator = session($node, 'app');
$creator->query_safe(q{BEGIN; SELECT shard_fdw.create_shards('log2', 1)});
send_to($app, "CALL shard_fdw.create_index('log2', '(v, id)');\n");
poll_ok($node, q{SELECT count(*) >= 3 FROM pg_index WHERE indrelid::regclass::text ~ '^log2_' AND indnatts = 2 AND indisvalid},
	'the shards that there are have the index');
$creator->query_safe('COMMIT');
is((state_of($app, 'SELECT 1'))[0], '00000', 'then those that are just being created are looked at');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_index WHERE indrelid::regclass::text ~ '^log2_' AND indnatts = 2 AND indisvalid}),
	'4', '... and have it, too');

# A function that is found by the search path.
$node->safe_psql('postgres', q{CREATE FUNCTION own(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'});
is(said((create_index('(own(v))'))[3]), $created, 'an index on a function');
is(said((create_index('(public.own(v))'))[3]), $skipped, 'an index on a function that is there');

# Unique ones.
$app->query_safe('DELETE FROM log WHERE id > 10000');
is(said((create_index('UNIQUE (id)'))[3]), $created, 'a unique index with the key');
my $within = 'values are unique within each shard of foreign table "log" only';
is(said((create_index('unique("Some Name")'))[3]), "$created\n$within", 'a unique index without the key');
is(said((create_index('(id)'))[3]), $created, 'a unique index is another one');

# An attempt that fails leaves nothing behind.
my ($state, $message, undef, $errors) = create_index('UNIQUE (v)');
is($state, '23505', 'an error is the one of CREATE INDEX');
like($message, qr/^could not create unique index "log_0_v_idx\d*"$/, '... with its message');
like($errors, qr/^DETAIL:  Key \(v\)=\(\d+\) is duplicated.$/m, '... and detail');
like($errors, qr/index on shard "log_0"$/m, '... and context');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0',
	'nothing is left of the attempt');

# Nor does one that is killed, when it is done again.
foreach my $stop ('pg_cancel_backend', 'pg_terminate_backend')
{
	my ($holder, $session) = (session($node), session($node, 'app'));
	my $invalid = 'SELECT count(*) = %d FROM pg_index WHERE NOT indisvalid';

	$holder->query_safe('BEGIN; LOCK TABLE log_1 IN ROW EXCLUSIVE MODE');
	send_to($session, "CALL shard_fdw.create_index('log', '(id, v)');\n");
	poll_ok($node, sprintf($invalid, 1) . q{ AND indrelid = 'log_1'::regclass}, "$stop: it waits for a writer");
	$node->safe_psql('postgres', "SELECT $stop($session->{pid})");
	poll_ok($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'shard_fdw command'},
		"$stop: it ends");
	$holder->query_safe('COMMIT');
	poll_ok($node, q{SELECT count(*) = 0 FROM pg_locks WHERE objsubid = 28788}, "$stop: so does the session");
	$errors = (create_index('(id, v)'))[3];
	like(said($errors),
		qr/^index public\.log_1_id_v_idx\d*, which was not valid, has been dropped\nshard "log_1": CREATE INDEX\nshard "log_2": CREATE INDEX\nshard "log_3": CREATE INDEX$/,
		"$stop: it goes on where it has ended");
	is(indexes('USING btree (id, v)'), '4|4', "$stop: in the end all shards have it");
	$node->safe_psql('postgres', 'DROP INDEX ' . $node->safe_psql('postgres',
		q{SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index
		   WHERE pg_get_indexdef(indexrelid) LIKE '%USING btree (id, v)'}));
}
# Nor does one that has waited too long, as soon as those who write are done.
foreach my $ends ('COMMIT', 'never')
{
	my ($holder, $session) = (session($node), session($node, 'app'));

	$holder->query_safe('BEGIN; LOCK TABLE log_1 IN ROW EXCLUSIVE MODE');
	send_to($session, "SET lock_timeout = '200ms';\nCALL shard_fdw.create_index('log', '(id, v)');\n");
	poll_ok($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'shard_fdw command'
		AND query LIKE 'DROP INDEX %' AND wait_event_type = 'Lock'}, "$ends: what is left waits to be dropped");
	if ($ends eq 'never')
	{
		$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'shard_fdw command'});
	}
	else
	{
		$holder->query_safe($ends);
	}
	($state, $message, undef, $errors) = state_of($session, 'SELECT 1');
	$holder->quit;
	is($errors =~ /ERROR:  55P03: canceling statement due to lock timeout/, 1, "$ends: the error is the one of CREATE INDEX");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), $ends eq 'never' ? 1 : 0,
		"$ends: what is left of it");
	like($errors, qr/WARNING:  57P01: index public\.log_1_id_v_idx, which is not valid, could not be dropped\nDETAIL: .*\nHINT:  The next call/,
		"$ends: that is said") if $ends eq 'never';
	$session->quit;
}
like(said((create_index('(id, v)'))[3]), qr/^index public\.log_1_id_v_idx, which was not valid, has been dropped\nshard "log_1"/,
	'the next call drops it');
$node->safe_psql('postgres', 'DROP INDEX ' . $node->safe_psql('postgres',
	q{SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index
	   WHERE pg_get_indexdef(indexrelid) LIKE '%USING btree (id, v)'}));
# A crash.
{
	my ($holder, $session) = (session($node), session($node, 'app'));

	$holder->query_safe('BEGIN; LOCK TABLE log_1 IN ROW EXCLUSIVE MODE');
	send_to($session, "CALL shard_fdw.create_index('log', '(id, v)');\n");
	poll_ok($node, q{SELECT count(*) = 1 FROM pg_index WHERE NOT indisvalid AND indrelid = 'log_1'::regclass},
		'it waits for a writer');
	$node->stop('immediate');
	$node->start;
	$app = session($node, 'app');
	create_index('(id, v)');
	is(indexes('USING btree (id, v)'), '4|4', 'after a crash all shards get it');
}
# Somebody else is building such an index: that is waited for.
{
	my ($holder, $builder) = (session($node), session($node, 'app'));

	$holder->query_safe('BEGIN; LOCK TABLE log_0 IN ROW EXCLUSIVE MODE');
	send_to($builder, "CREATE INDEX CONCURRENTLY by_hand ON log_0 (v, id);\n");
	poll_ok($node, 'SELECT count(*) = 1 FROM pg_index WHERE NOT indisvalid', 'somebody builds an index');
	send_to($app, "CALL shard_fdw.create_index('log', '(v, id)');\n");
	poll_ok($node, "SELECT count(*) > 0 FROM pg_locks WHERE pid = $app->{pid} AND NOT granted", 'that is waited for');
	$holder->query_safe('COMMIT');
	is((state_of($app, 'SELECT 1'))[0], '00000', 'then it goes on');
	is(indexes('USING btree (v, id)'), '4|4', '... and has not built it twice');
}

# The functions of an index run as the owner, whoever calls.
$app->query_safe(q{
	CREATE FUNCTION whoami(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
	  AS 'BEGIN IF current_user <> ''app'' THEN RAISE ''run as %'', current_user; END IF; RETURN 1; END';
	CREATE FUNCTION inlined(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + public.whoami(1)'});
is((state_of(my $super = session($node), q{CALL shard_fdw.create_index('log', '(inlined(v))')}))[0], '00000',
	'functions run as the owner');
$super->quit;

# What is refused.
foreach (
	[ '(none)', '42703', 'column "none" does not exist' ],
	[ 'nothing', '42601', 'syntax error at or near "nothing"' ],
	[ '(v); DROP TABLE log_0', '22023', 'invalid definition of an index' ],
	[ '(v) WHERE random() > 0.5', '42P17', 'functions in index predicate must be marked IMMUTABLE' ])
{
	my ($definition, $state, $message) = @$_;

	fails($app, "CALL shard_fdw.create_index('log', '$definition')", $state, $message);
}
fails($node, q{BEGIN; CALL shard_fdw.create_index('log', '(v)')}, '25001',
	'create_index() cannot be called in a transaction block',
	hint => 'In a transaction block, use run_command_on_shards().', user => 'app');
fails($node, q{CALL shard_fdw.create_index('log', '(v)')}, '42501', 'must be owner of foreign table log',
	user => 'other', title => 'it is for the owner');
fails($app, q{CALL shard_fdw.create_index('model', '(v)')}, '42809', undef);
fails($app, q{CALL shard_fdw.create_index('log', NULL)}, '22004', 'definition must not be null');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0', 'no index is left invalid');
$node->stop;
done_testing();
