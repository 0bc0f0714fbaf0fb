# Sealing a shard that others use: who seals waits, nobody waits for long
# behind it, and it says when it gives up.
use strict;
use warnings;

use ShardTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = shard_node('patience', conf => "max_prepared_transactions = 2\n");
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE log (a int) SERVER shards OPTIONS (shards '2', route 'round_robin');
	INSERT INTO log SELECT generate_series(1, 10);
	CREATE ROLE keeper;
	GRANT ALL ON SCHEMA public TO keeper;
	ALTER TABLE log_0 OWNER TO keeper;
	CREATE ROLE app LOGIN;
	GRANT keeper TO app;
	CREATE TABLE other ();
});
my ($reader, $sealer, $writer, $other) = map { session($node) } 1 .. 4;
my $pid = $reader->{pid};

# Wait until the session has tried to get the lock, and sleeps or tries again.
sub wait_for_try
{
	my ($session) = @_;
	poll_ok($node, qq{
		SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $session->{pid} AND NOT granted)},
		'it asks for the lock');
}

# How long a command that must not fail takes, in seconds: the median of several
# runs, for a machine that does other things as well can make a few wait.
sub duration
{
	my ($session, $sql, $times) = @_;
	my @durations;

	foreach (1 .. $times)
	{
		my $start = time;
		$session->query_safe($sql);
		push @durations, time - $start;
		sleep(0.03);
	}
	return (sort { $a <=> $b } @durations)[ $times / 2 ];
}

# What a command in a session has to say that was sent before.
sub outcome
{
	my ($session) = @_;
	return state_of($session, 'SELECT 1');
}

my $state = q{SELECT string_agg(state, ' ' ORDER BY ordinal) FROM shard_fdw.list_shards('log')};
my $try = 1.5;    # a lock is asked for for 0.1 seconds at a time

foreach my $function ('seal', 'unseal')
{
	my ($before, $after) =
	  $function eq 'seal' ? ('open open', 'sealed open') : ('sealed open', 'open open');

	$reader->query_safe('BEGIN');
	$reader->query_safe('SELECT count(*) FROM log');
	send_to($sealer, "SELECT shard_fdw.$function('log_0');\n");
	wait_for_try($sealer);
	cmp_ok(duration($writer, 'INSERT INTO log VALUES (11), (12)', 25), '<', $try,
		"$function: inserts do not wait");
	cmp_ok(duration($other, 'SELECT count(*) FROM log', 25), '<', $try,
		"$function: queries do not wait");
	cmp_ok(duration($other, 'UPDATE log_1 SET a = a WHERE a = 1', 5), '<', $try,
		"$function: changes do not wait");
	is($node->safe_psql('postgres', $state), $before, "$function: it still waits");
	$reader->query_safe('COMMIT');
	is((outcome($sealer))[0], '00000', "$function: it has got the lock in the end");
	is($node->safe_psql('postgres', $state), $after, "$function: ... and done its work");
}

# What locks a table with all its shards: one of them that is in use keeps nobody
# from the others.
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE h (id int OPTIONS (sequence 'by_default'), k int, v int)
		SERVER shards OPTIONS (shards '3', route 'hash', key 'k');
	INSERT INTO h (k) SELECT generate_series(1, 20);
	CREATE TABLE parent (id serial);
	CREATE TABLE child () INHERITS (parent);
});
foreach my $case (
	[ q{shard_fdw.reshard('h', 4)}, 'h_2', 'h', 'h_0' ],
	[ q{shard_fdw.reshard('h', 3)}, 'h', 'h', 'h_0' ],
	[ q{shard_fdw.reset_sequences('h')}, 'h_2', 'h', 'h_0' ],
	[ q{shard_fdw.reset_sequences('parent')}, 'child', 'parent', 'parent' ],
	[ q{shard_fdw.own_sequences('h')}, 'h_2', 'h', 'h_0' ],
	[ q{shard_fdw.alter_column_type('h', 'v', 'text', 'v')}, 'h_2', 'h', 'h_0' ],
	[ q{shard_fdw.release('h')}, 'h_2', 'h', 'h_0' ])
{
	my ($call, $in_use, $table, $free) = @$case;
	my ($function) = $call =~ /fdw\.(\w+)/;
	my $lock =
	    $function eq 'own_sequences' ? "LOCK TABLE $in_use IN SHARE UPDATE EXCLUSIVE MODE"
	  : $function eq 'reset_sequences' ? "DELETE FROM $in_use WHERE id = 0"
	  :                                  "SELECT FROM $in_use";
	my ($query, $insert) = ("SELECT count(*) FROM $free", 'SELECT');

	$insert = 'INSERT INTO h (k) SELECT 30 FROM generate_series(1, 2)' if $table eq 'h';
	$insert = 'INSERT INTO parent DEFAULT VALUES' if $table eq 'parent';
	# A writer of the shard in use may wait while it is asked for, and no longer.
	$reader->query_safe('BEGIN');
	$reader->query_safe($lock);
	send_to($sealer, "SELECT $call;\n");
	wait_for_try($sealer);
	cmp_ok(duration($writer, $insert, 9), '<', $try,
		"$function, $in_use in use: inserts do not wait");
	cmp_ok(duration($other, $query, 9), '<', $try,
		"$function, $in_use in use: queries do not wait");
	is($node->safe_psql('postgres', qq{
		SELECT state FROM pg_stat_activity WHERE pid = $sealer->{pid}}),
		'active', "$function, $in_use in use: it waits all the while");
	$sealer->{stderr} = '';
	$reader->query_safe('COMMIT');
	is((outcome($sealer))[0], '00000',
		"$function, $in_use in use: it has got its locks in the end");
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname = 'h'}),
	'0', 'all of them did their work');

# Giving up.
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT count(*) FROM log');
$sealer->query_safe("SET lock_timeout = '700ms'");
foreach my $function ('seal', 'unseal')
{
	my $start = time;

	fails($sealer, "SELECT shard_fdw.$function('log_0')",
		'55P03', 'could not obtain lock on relation "log_0" within 700 ms',
		detail => "Process that holds a conflicting lock: $pid.", hint => qr/lock_timeout/,
		title => "$function: it gives up after lock_timeout, naming the process in its way");
	cmp_ok(time - $start, '>=', 0.7, "$function: it does not give up before lock_timeout");
}
is($sealer->query_safe('SHOW lock_timeout'), '700ms', 'the setting is as it was');
is($sealer->query_safe('SHOW deadlock_timeout'), '1s', 'deadlock_timeout is as it was');
is($node->safe_psql('postgres', $state), 'open open', 'the shards are as they were');

# The process that is named has the shard, when it is not the table that waits.
$reader->query_safe('COMMIT');
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE g (k int) SERVER shards OPTIONS (shards '3', route 'hash', key 'k')});
$reader->query_safe('BEGIN; SELECT FROM log_0, g_1');
foreach my $call (q{reshard('g', 4)}, q{reset_sequences('g')}, q{release('g')})
{
	$reader->query_safe('INSERT INTO g_1 SELECT 1 WHERE false');
	fails($sealer, "SELECT shard_fdw.$call",
		'55P03', 'could not obtain lock on relation "g_1" within 700 ms',
		detail => "Process that holds a conflicting lock: $pid.",
		title => "$call gives up, naming the process in its way");
}

# In a larger transaction, at a savepoint, and by a role that is not a superuser.
my $owner = session($node, 'app');
$owner->query_safe("SET lock_timeout = '300ms'; BEGIN; SAVEPOINT s");
fails($owner, "SELECT shard_fdw.seal('log_0')",
	'55P03', 'could not obtain lock on relation "log_0" within 300 ms',
	title => 'an owner that is not a superuser gives up, too');
$owner->query_safe('ROLLBACK TO s');
$reader->query_safe('COMMIT');
$owner->query_safe("SELECT shard_fdw.seal('log_0')");
fails($writer, "SET lock_timeout = '200ms'; SELECT count(*) FROM log",
	'55P03', 'canceling statement due to lock timeout',
	title => 'the shard is locked until the transaction ends');
$owner->query_safe('ROLLBACK');
is($node->safe_psql('postgres', $state), 'open open', 'a rollback undoes it');
$writer->query_safe('RESET lock_timeout');

# Other ends of the waiting.
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT count(*) FROM log');
$sealer->query_safe("SET lock_timeout = 0; SET statement_timeout = '500ms'");
fails($sealer, "SELECT shard_fdw.seal('log_0')",
	'57014', 'canceling statement due to statement timeout', title => 'statement_timeout');
$sealer->query_safe('RESET statement_timeout');
send_to($sealer, "SELECT shard_fdw.seal('log_0');\n");
wait_for_try($sealer);
$node->safe_psql('postgres', "SELECT pg_cancel_backend($sealer->{pid})");
is((outcome($sealer))[0], '57014', 'cancel');
send_to($sealer, "SELECT shard_fdw.seal('log_0');\n");
wait_for_try($sealer);
$reader->query_safe('COMMIT');
is((outcome($sealer))[0], '00000', 'after these it works');
$sealer->query_safe("SELECT shard_fdw.unseal('log_0')");

# A deadlock is one at once.
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT count(*) FROM log');
$sealer->query_safe('BEGIN');
$sealer->query_safe('LOCK TABLE other');
send_to($reader, "SELECT count(*) FROM other;\n");
poll_ok($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND NOT granted)",
	'the reader waits for the session that is going to seal');
{
	my $start = time;
	my $code = (state_of($sealer, "SELECT shard_fdw.seal('log_0')"))[0];
	$sealer->query_safe('ROLLBACK');
	my $other_code = (outcome($reader))[0];
	ok($code eq '40P01' || $other_code eq '40P01', "a deadlock is found ($code, $other_code)");
	cmp_ok(time - $start,
		'<', 20, 'a deadlock is found without waiting for the end of all patience');
	$reader->query_safe('ROLLBACK');
}

# A transaction that is only prepared.
$reader->query_safe("BEGIN; INSERT INTO log VALUES (1), (2); PREPARE TRANSACTION 'p'");
$sealer->query_safe("SET lock_timeout = '200ms'");
fails($sealer, "SELECT shard_fdw.seal('log_0')",
	'55P03', 'could not obtain lock on relation "log_0" within 200 ms',
	detail => 'A prepared transaction holds a conflicting lock.',
	title => 'a prepared transaction');
$reader->query_safe("COMMIT PREPARED 'p'");
$sealer->query_safe('RESET lock_timeout');

# The table may be gone when its turn comes.
$reader->query_safe('BEGIN; DROP TABLE log_1');
send_to($sealer, "SELECT shard_fdw.seal('log_1');\n");
wait_for_try($sealer);
$reader->query_safe('COMMIT');
is((outcome($sealer))[0], '42P01', 'a shard that is dropped meanwhile');

# An autovacuum worker that is in the way is told to stop, as by any lock.
$node->append_conf('postgresql.conf', q{
autovacuum = on
autovacuum_naptime = 1
autovacuum_vacuum_cost_delay = 100
autovacuum_vacuum_cost_limit = 1
});
$node->safe_psql('postgres', q{
	ALTER TABLE log_0 SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
	                       autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
	INSERT INTO log_0 SELECT generate_series(1, 100000);
	DELETE FROM log_0;
});
$node->reload;
poll_ok($node, q{
	SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	                WHERE backend_type = 'autovacuum worker' AND granted
	                  AND relation = 'log_0'::regclass AND mode = 'ShareUpdateExclusiveLock')},
	'autovacuum is at work');
{
	my $start = time;
	is((state_of($sealer, "SELECT shard_fdw.seal('log_0')"))[0], '00000',
		'sealing makes it stop');
	cmp_ok(time - $start, '<', 30, 'sealing makes autovacuum stop soon');
}

# Sealing succeeds under fire.
$node->safe_psql('postgres',
	"SELECT shard_fdw.unseal('log_0'); SELECT shard_fdw.create_shards('log', 1)");
my $fire = pgbench_start(
	$node, q{
BEGIN;
INSERT INTO log SELECT generate_series(1, 10);
SELECT count(*) FROM log_0 WHERE a = 5;
COMMIT;
}, '-c', '4', '-j', '1', '-T', '6');
sleep(1);
foreach (1 .. 4)
{
	$sealer->query_safe("SELECT shard_fdw.seal('log_0')");
	$sealer->query_safe("SELECT shard_fdw.unseal('log_0')");
}
pgbench_ok($fire, 'sealing and unsealing under fire');

$_->quit for $reader, $sealer, $writer, $other, $owner;
$node->stop;
done_testing();
