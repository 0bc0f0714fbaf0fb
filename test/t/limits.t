# Statements that are not given the time or the locks they need: they fail
# with the right error, leave nothing behind, and the session goes on.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('limits', conf => "session_preload_libraries = 'shard_fdw'\n");
$node->safe_psql('postgres', q{
	CREATE FUNCTION slowly(n int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
	  IF n = 700 AND current_setting('test.slow', true) = 'on' THEN
	    PERFORM pg_catalog.pg_sleep(600);
	  END IF;
	  RETURN true;
	END $$;
	CREATE TABLE model (id bigint, k int PRIMARY KEY, v text,
	  CONSTRAINT slow CHECK (public.slowly(k)));
	CREATE FOREIGN TABLE log (id bigint, k int, v text)
	  SERVER shards OPTIONS (shards '2', template 'model');
	CREATE FOREIGN TABLE rr (id bigint, k int, v text)
	  SERVER shards OPTIONS (shards '2', template 'model', route 'round_robin');
	CREATE FOREIGN TABLE keyed (id bigint, k int, v text)
	  SERVER shards OPTIONS (shards '2', template 'model', route 'hash', key 'k');
	CREATE FOREIGN TABLE lane (id bigint OPTIONS (sequence 'always'), k int, v text)
	  SERVER shards OPTIONS (shards '1', template 'model', commit_order 'true');
	CREATE FOREIGN TABLE keyed_lanes (id bigint OPTIONS (sequence 'always'), k int, v text)
	  SERVER shards OPTIONS (shards '2', template 'model', route 'hash', key 'k',
	    commit_order 'true');
	SELECT shard_fdw.register_consumer('lane', 'c', 'id');
	INSERT INTO log (k) VALUES (0);
	INSERT INTO keyed (k) SELECT generate_series(500, 1500);
	INSERT INTO lane (k) VALUES (0);
	INSERT INTO keyed_lanes (k) VALUES (0);
	-- what there is, of everything that a statement could leave in part
	CREATE VIEW state AS
	SELECT (SELECT count(*) FROM log) AS log, (SELECT count(*) FROM rr) AS rr,
	       (SELECT count(*) FROM keyed) AS keyed, (SELECT count(*) FROM lane) AS lane,
	       (SELECT count(*) FROM keyed_lanes) AS keyed_lanes,
	       (SELECT count(*) FROM pg_inherits) AS shards,
	       (SELECT count(*) FROM pg_class WHERE relname ~ 'log|rr|keyed|lane|reshard') AS relations,
	       (SELECT count(*) FROM pg_constraint) AS constraints,
	       (SELECT string_agg(watermark::text, ' ' ORDER BY shard) FROM shard_fdw.consumers)
	         AS watermarks;
});

my $session = session($node);
my $other = session($node);
$session->query_safe('INSERT INTO log (k) VALUES (1); INSERT INTO lane (k) VALUES (1)');

# What the session has that it could only have for a transaction.  Leases are
# the session's.
my $left = qq{SELECT count(*) FROM pg_locks l WHERE pid = $session->{pid}
	AND NOT (locktype = 'advisory' AND objsubid = 28784)};

# A statement is blocked by what another transaction has done, or is slow by
# itself: it runs into either timeout, and once more without hindrance.
sub run_into
{
	my ($title, $blocker, $statement, @timeouts) = @_;
	my %message = (
		statement_timeout => qr/^57014 canceling statement due to statement timeout$/,
		# seal() gives up by itself
		lock_timeout =>
		  qr/^55P03\ (canceling\ statement\ due\ to\ lock\ timeout
			|could\ not\ obtain\ lock\ on\ relation\ "\w+"\ within\ 100\ ms)$/x
	);
	my $before = $node->safe_psql('postgres', 'SELECT * FROM state');

	$other->query_safe("BEGIN; $blocker") if $blocker;
	$session->query_safe('SET test.slow = on') if !$blocker;
	foreach my $timeout (@timeouts)
	{
		my ($state, $message) =
		  state_of($session, "SET $timeout = '100ms';\n$statement");
		# An error that copies nothing leaves the transaction, if any, to us.
		$session->query("ROLLBACK; RESET $timeout");
		$session->{stderr} = '';
		like("$state $message", $message{$timeout}, "$title: $timeout");
		is($node->safe_psql('postgres', $left), '0', "$title: $timeout leaves no lock");
	}
	$other->query_safe('ROLLBACK') if $blocker;
	$session->query_safe('SET test.slow = off');
	is($node->safe_psql('postgres', 'SELECT * FROM state'),
		$before, "$title: nothing is left of it");
	my ($state, $message) = state_of($session, "BEGIN;\n$statement;\nROLLBACK");
	is("$state $message", '00000 ', "$title: then it works in the same session");
	return;
}

my @both = ('statement_timeout', 'lock_timeout');
my $copy = sub {
	my ($table, $first, $last) = @_;
	return join("\n", "COPY $table (k) FROM STDIN;", $first .. $last, "\\.\nSELECT");
};

# A lane.
run_into('lane', 'INSERT INTO lane (k) VALUES (-1)', $_, @both)
  foreach 'INSERT INTO lane (k) VALUES (2)',
  'INSERT INTO lane (k) SELECT generate_series(2, 1000)',
  $copy->('lane', 2, 1000);
run_into('lane of a key', 'INSERT INTO keyed_lanes (k) SELECT generate_series(-10, -1)', $_, @both)
  foreach 'INSERT INTO keyed_lanes (k) SELECT generate_series(2, 1000)',
  $copy->('keyed_lanes', 2, 1000),
  'INSERT INTO keyed_lanes (k) VALUES (0) ON CONFLICT (k) DO UPDATE SET v = $$new$$';

# The logical table.
foreach my $statement (
	'INSERT INTO log (k) VALUES (2)', $copy->('log', 2, 1000),
	'SELECT count(*) FROM log', 'UPDATE log SET v = $$new$$', 'TRUNCATE log',
	q{SELECT shard_fdw.create_shards('log', 2)},
	q{SELECT * FROM shard_fdw.dequeue(NULL::log)})
{
	run_into("table, $statement", 'ALTER TABLE log ADD COLUMN c int', $statement, @both);
}
run_into('table, reshard', 'INSERT INTO keyed (k) VALUES (-1)',
	q{SET client_min_messages = error; SELECT shard_fdw.reshard('keyed', 3)}, @both);
run_into('table, create_shards', q{SELECT FROM shard_fdw.create_shards('log', 1)},
	q{SELECT shard_fdw.create_shards('log', 2)}, @both);
run_into('table, read_batch', 'ALTER TABLE lane ADD COLUMN c int',
	q{SELECT * FROM shard_fdw.read_batch(NULL::lane, 'c')}, @both);
run_into('table, register_consumer', 'INSERT INTO lane (k) VALUES (-1)',
	q{SELECT shard_fdw.register_consumer('lane', 'd', 'id')}, @both);

# A shard.
foreach my $case (
	[ 'rr_1', 'INSERT INTO rr (k) SELECT generate_series(1, 1000)' ],
	[ 'rr_1', $copy->('rr', 1, 1000) ],
	[ 'rr_1', 'SELECT count(*) FROM rr' ],
	[ 'rr_1', 'TRUNCATE rr' ],
	[ 'rr_1', 'ALTER TABLE rr ADD COLUMN c int' ],
	[ 'rr_1', q{SELECT shard_fdw.create_shards('rr', 1)} ],
	[ 'rr_1', q{SELECT shard_fdw.seal('rr_1')} ],
	[ 'rr_1', 'DROP FOREIGN TABLE rr CASCADE' ],
	[ 'keyed_1', 'UPDATE keyed SET v = $$new$$' ],
	[ 'keyed_1', 'DELETE FROM keyed' ],
	[ 'keyed_1', 'INSERT INTO keyed (k) SELECT generate_series(1, 1000) ON CONFLICT DO NOTHING' ],
	[ 'keyed_1', q{SELECT shard_fdw.reshard('keyed', 3)} ],
	[ 'keyed_1, keyed_0', 'SELECT * FROM shard_fdw.dequeue(NULL::keyed)' ],
	[ 'lane_0', q{SELECT * FROM shard_fdw.read_batch(NULL::lane, 'c')} ],
	[ 'lane_0', q{SELECT * FROM shard_fdw.reset_sequences('lane')} ])
{
	my ($shard, $statement) = @$case;

	run_into("shard, $statement", "LOCK TABLE $shard IN ACCESS EXCLUSIVE MODE",
		"SET client_min_messages = error;\n$statement", @both);
}

# Another transaction's row.
foreach my $statement (
	'INSERT INTO keyed (k) SELECT generate_series(1, 400)',
	'INSERT INTO keyed (k) SELECT generate_series(1, 600) ON CONFLICT DO NOTHING',
	'INSERT INTO keyed (k) SELECT generate_series(1, 600) ON CONFLICT (k) DO NOTHING',
	'INSERT INTO keyed (k) SELECT generate_series(1, 600) ON CONFLICT (k)
		DO UPDATE SET v = EXCLUDED.v',
	$copy->('keyed', 1, 400))
{
	run_into("row, $statement", 'INSERT INTO keyed (k) VALUES (300)', $statement, @both);
}
run_into('row, DO UPDATE', 'UPDATE keyed SET v = $$other$$ WHERE k = 600',
	'INSERT INTO keyed (k) VALUES (600) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v', @both);

# In the middle.
foreach my $statement (
	'INSERT INTO log (k) SELECT generate_series(100, 1000)',
	'INSERT INTO rr (k) SELECT generate_series(100, 1000)',
	'INSERT INTO lane (k) SELECT generate_series(100, 1000)',
	'INSERT INTO keyed_lanes (k) SELECT generate_series(100, 1000)',
	'INSERT INTO keyed (k) SELECT generate_series(100, 1000) ON CONFLICT (k)
		DO UPDATE SET v = $$new$$',
	$copy->('log', 100, 1000), $copy->('rr', 100, 1000),
	$copy->('lane', 100, 1000),
	'UPDATE keyed SET v = $$new$$',
	q{SET client_min_messages = error; SELECT shard_fdw.reshard('keyed', 3)})
{
	run_into("middle, $statement", undef, $statement, 'statement_timeout');
}

is( $session->query_safe('INSERT INTO log (k) VALUES (9); INSERT INTO lane (k) VALUES (9);'
		  . q{SELECT count(*) FROM shard_fdw.read_batch(NULL::lane, 'c')}),
	'3', 'the session goes on, and the consumer has missed nothing');
$_->quit foreach $session, $other;
poll_ok($node, 'SELECT count(*) = 0 FROM shard_fdw.leases', 'no lease and no lane is left');
$node->stop;

# ---- A lock table that is too small for all shards.

my $small = shard_node('small', conf => q{
max_locks_per_transaction = 10
max_connections = 10
max_wal_senders = 0
max_worker_processes = 0
});
my $shards = 600;
$small->safe_psql('postgres', q{
	CREATE TABLE model (k int PRIMARY KEY);
	CREATE FOREIGN TABLE many (k int)
	  SERVER shards OPTIONS (shards '10', template 'model', route 'round_robin',
	    max_shards '10000');
	CREATE FOREIGN TABLE one (k int) SERVER shards OPTIONS (shards '1', template 'model')});
$small->safe_psql('postgres',
	join(';', (q{SELECT FROM shard_fdw.create_shards('many', 10)}) x ($shards / 10 - 1)));
$session = session($small);
$session->query_safe('INSERT INTO one VALUES (1)');
my $relations = $small->safe_psql('postgres', 'SELECT count(*) FROM pg_class');

foreach my $statement (
	'SELECT count(*) FROM many',
	'UPDATE many SET k = k + 1',
	'INSERT INTO many SELECT generate_series(1, 10000)',
	join("\n", 'COPY many FROM STDIN;', 1 .. 2000, "\\.\nSELECT"),
	q{SELECT shard_fdw.create_shards('many', 1000)},
	q{SELECT shard_fdw.create_shards('one', 1000)},
	'TRUNCATE many',
	'DROP FOREIGN TABLE many CASCADE',
	'ALTER TABLE many ADD COLUMN v text')
{
	my $title = $statement =~ s/\n.*//sr;

	fails($session, $statement, '53200', 'out of shared memory',
		hint => qr/^You might need to increase .?max_locks_per_transaction/, title => $title);
	is( (state_of($session, 'INSERT INTO one SELECT max(k) + 1 FROM one RETURNING true'))[2],
		't', "$title: the session goes on");
	is( $small->safe_psql('postgres', qq{
			SELECT count(*) FROM pg_class;
			SELECT sum(pg_relation_size(shard)) FROM shard_fdw.list_shards('many')
			  WHERE ordinal < 50;
			SELECT count(*) FROM pg_locks WHERE pid = $session->{pid} AND locktype <> 'advisory'}),
		"$relations\n0\n0", "$title: nothing is left of it");
}
$session->quit;
$small->stop;

# ---- A stack that is too small for logical tables in logical tables.

my $deep = shard_node('deep', conf => "max_locks_per_transaction = 512\n");
my $levels = 1000;
$deep->safe_psql('postgres', qq{
	SET client_min_messages = warning;
	CREATE FOREIGN TABLE deep_0 (k int) SERVER shards;
	DO \$\$ BEGIN
	  FOR i IN 1 .. $levels LOOP
	    EXECUTE format('CREATE FOREIGN TABLE deep_%s () INHERITS (deep_%s) SERVER shards',
	      i, i - 1);
	  END LOOP;
	END \$\$;
	CREATE TABLE leaf () INHERITS (deep_$levels)});
$session = session($deep);
foreach my $statement (
	'INSERT INTO deep_0 VALUES (1)',
	'INSERT INTO deep_0 SELECT generate_series(2, 100)',
	"COPY deep_0 FROM STDIN;\n101\n\\.\nSELECT")
{
	my $title = "$levels levels: " . ($statement =~ s/\n.*//sr);

	fails($session, "SET max_stack_depth = '100kB';\n$statement",
		'54001', 'stack depth limit exceeded', title => $title);
	my ($state, $message) = state_of($session, "RESET max_stack_depth;\n$statement");
	is("$state $message", '00000 ', "$title: a larger stack has room for it");
}
is($session->query_safe('UPDATE deep_0 SET k = k + 1;
	SELECT count(*), max(k), shard_fdw.last_shard() FROM deep_0'),
	'101|102|leaf', "$levels levels: all rows are there");
$session->quit;
$deep->stop;

done_testing();
