# run_command_on_shards() while others write and do the same: the shards stay
# alike, whatever fails.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('commands', conf => "deadlock_timeout = 100ms\n");
$node->safe_psql('postgres', q{
	CREATE TABLE log_model (id int PRIMARY KEY, v int, w int);
	CREATE FOREIGN TABLE log (id int, v int, w int)
	  SERVER shards OPTIONS (shards '6', route 'hash', key 'id', template 'log_model');
	INSERT INTO log SELECT g, g, g FROM generate_series(1, 30000) g;
	CREATE ROLE reader LOGIN;
	CREATE ROLE writer LOGIN;
	GRANT SELECT ON log, log_0, log_1, log_2, log_3, log_4, log_5 TO reader;
	GRANT SELECT, UPDATE ON log TO writer;
});

# What the shards have, and how many of them; nothing may be on some only.
my $different = q{
	SELECT count(*)
	  FROM (SELECT regexp_replace(pg_get_indexdef(indexrelid), '.* USING', ''), count(*)
	          FROM pg_index JOIN pg_inherits ON inhrelid = indrelid
	         WHERE inhparent = 'log'::regclass
	         GROUP BY 1) i
	 WHERE count <> 6};

# Each transaction writes several shards, in an order of its own, and so gets
# in the way of a session that locks one after the other.
my $write = q{
BEGIN;
INSERT INTO log VALUES (30000 + nextval('ids'), 1, 1);
SELECT pg_sleep(0.03);
INSERT INTO log VALUES (30000 + nextval('ids'), 1, 1);
SELECT pg_sleep(0.03);
INSERT INTO log VALUES (30000 + nextval('ids'), 1, 1);
END;
};
$node->safe_psql('postgres', 'CREATE SEQUENCE ids');

my %outcomes;
foreach my $run (1 .. 5)
{
	my $writers = pgbench_start($node, $write, '-c', '4', '-j', '1', '-T', '3', '--max-tries=1000');
	my @sessions = map { session($node) } 1 .. 2;

	# Two at a time, that do different things, slowly.
	foreach my $number (0 .. 1)
	{
		my $n = 2 * $run + $number;
		send_to($sessions[$number],
			"SELECT pg_sleep(0.5); SELECT count(*)
				FROM shard_fdw.run_command_on_shards('log',
				'CREATE INDEX ON %s ((v + $n)); SELECT pg_sleep(0.1)');\n"
		);
	}
	foreach my $session (@sessions)
	{
		my ($state, $message, undef, $text) = state_of($session, 'SELECT 1');
		$outcomes{$state}++;
		like($text, qr/CONTEXT:(?s:.*)command on shard "log_\d"$/m,
			'an error says on which shard it was')
		  if $state ne '00000';
	}
	$_->quit foreach @sessions;
	pgbench_finish($writers);
	is($node->safe_psql('postgres', $different), '0', "run $run: the shards are alike");
}
note join(', ', map { "$_: $outcomes{$_}" } sort keys %outcomes);
is(join(' ', grep { $_ ne '00000' && $_ ne '40P01' } keys %outcomes),
	'', 'nothing but deadlocks made them fail');
$node->safe_psql('postgres',
	"SELECT shard_fdw.run_command_on_shards('log', 'CREATE INDEX ON %s (w)')");
is($node->safe_psql('postgres', $different), '0', 'after one that cannot fail they are alike');
indexes_ok($node, 'after all');

# Who waits for whom.
my ($one, $two) = (session($node), session($node));
my $run = "SELECT count(*) FROM shard_fdw.run_command_on_shards('log', 'SELECT 1')";

sub fails_at_once
{
	my ($session, $sql) = @_;
	return (state_of($session, "SET lock_timeout = '200ms'; $sql"))[0];
}

$one->query_safe("BEGIN; $run");
is(fails_at_once($two, $run), '55P03', 'another run waits for the end of the transaction');
is(fails_at_once($two, "SELECT shard_fdw.create_shards('log', 1)"),
	'55P03', 'adding shards waits for the run, too');
is(fails_at_once($two, "INSERT INTO log VALUES (-1, 0, 0); SELECT count(*) FROM log"),
	'00000', 'a writer and a reader do not wait for the run');
is(fails_at_once($two, "BEGIN READ ONLY; $run; COMMIT"),
	'00000', 'a read-only run does not wait for the other');
is(fails_at_once(session($node, 'reader'), $run),
	'00000', 'a run of a role that could not lock the table does not wait');
is(fails_at_once(session($node, 'writer'), $run),
	'55P03', 'a run of a role that could lock the table waits');
is(fails_at_once($two, "SELECT count(*) FROM shard_fdw.list_shards('log')"),
	'00000', 'listing the shards does not wait for the run');
send_to($two, "SET lock_timeout = 0; $run;\n");
poll_ok($node, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $two->{pid} AND NOT granted)",
	'a run waits');
# The shards are listed when it has the lock.
$one->query_safe("ALTER TABLE log_5 NO INHERIT log; COMMIT");
like((state_of($two, 'SELECT 1'))[2],
	qr/^5$/m, 'the run that waited sees what has changed meanwhile');

my $reader = session($node, 'reader');
$reader->query_safe("BEGIN; $run");
is(fails_at_once($two, $run), '00000', 'who could not lock the table keeps nobody waiting');
$reader->query_safe('COMMIT');

$_->quit foreach $one, $two, $reader;
$node->stop;
done_testing();
