# Large loads whose index entries are sorted: whatever happens at the same time,
# no entry is missing.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('sorted',
	conf => "shared_preload_libraries = 'shard_fdw'\nshard_fdw.load_work_mem = '256kB'\n");
$node->safe_psql('postgres', q{
	CREATE TABLE model (id bigint, c uuid, k int);
	ALTER TABLE model ADD PRIMARY KEY (id);
	CREATE UNIQUE INDEX ON model (c);
	CREATE INDEX ON model (k);
	CREATE FOREIGN TABLE log (id bigint, c uuid, k int)
	  SERVER shards OPTIONS (shards '2', template 'model', route 'round_robin');
	CREATE FOREIGN TABLE one (id bigint, c uuid, k int)
	  SERVER shards OPTIONS (shards '1', template 'model');
	CREATE FUNCTION key_of(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
	AS $$ SELECT md5(n::text)::uuid $$;
	CREATE FUNCTION rows_from(first bigint, n int) RETURNS TABLE (id bigint, c uuid, k int)
	LANGUAGE sql AS
	$$ SELECT g, key_of(g), hashint8(g) FROM generate_series(first, first + n - 1) g $$;
});

# Several loads, while another session vacuums, builds indexes, and checks them.

my @loads = map { session($node) } 1 .. 3;
my $other = $node->background_psql('postgres');
foreach my $round (1 .. 3)
{
	foreach my $i (0 .. 2)
	{
		my $from = ($round * 3 + $i) * 100000;
		send_to($loads[$i], "INSERT INTO log SELECT * FROM rows_from($from, 12000);\n");
	}
	$other->query_safe('VACUUM log_0') if $round == 1;
	$other->query_safe('CREATE INDEX CONCURRENTLY ON log_0 (k, c)') if $round == 2;
	$other->query_safe('REINDEX INDEX CONCURRENTLY log_0_k_idx') if $round == 3;
	indexes_ok($node, "during round $round");
	$_->query_safe('SELECT 1') foreach @loads;
}
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT c) FROM log'),
	'108000|108000', 'all rows are there');
indexes_ok($node, 'after loads');
$other->quit;

# The same key in two transactions: the second waits, as on a plain table.

my ($a, $b) = @loads;
$a->query_safe('BEGIN; INSERT INTO one SELECT * FROM rows_from(1, 6000)');
send_to($b, "INSERT INTO one VALUES (1000000, key_of(4500), 1);\n");
poll_ok($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $b->{pid}",
	'an insert of a key that a load has written waits');
$a->query_safe('ROLLBACK');
$b->query_safe('SELECT 1');
is($node->safe_psql('postgres', 'SELECT count(*) FROM one'), '1', '... and goes on');

$b->query_safe('BEGIN; INSERT INTO one VALUES (1000001, key_of(5000), 1)');
send_to($a, "INSERT INTO one SELECT * FROM rows_from(5000, 6000);\n");
poll_ok($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $a->{pid}",
	'a load waits for a transaction that has inserted one of its keys');
$b->query_safe('ROLLBACK');
$a->query_safe('SELECT 1');
is($node->safe_psql('postgres', 'SELECT count(*) FROM one'), '6001', '... and goes on');
my ($ret, $out, $err) =
  $node->psql('postgres', 'INSERT INTO one SELECT * FROM rows_from(2000, 7000)');
like($err, qr/duplicate key value violates unique constraint "one_0_c_idx".*Key \(c\)=/s,
	'a load fails for a key that was there');
indexes_ok($node, 'after errors');

# The server crashes during loads, and after them.

$node->safe_psql('postgres', 'INSERT INTO log SELECT * FROM rows_from(5000000, 9000)');
send_to($loads[0], "INSERT INTO log SELECT * FROM rows_from(6000000, 300000);\n");
send_to($loads[1], "BEGIN; INSERT INTO log SELECT * FROM rows_from(7000000, 9000);\n");
poll_ok($node, q{SELECT pg_relation_size('log_0') > 5000000}, 'a load is under way');
$node->stop('immediate');
$_->{run}->finish foreach @loads;
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM log WHERE id < 6000000'),
	'117000', 'what was committed is there after a crash');
indexes_ok($node, 'after a crash');

$node->stop;
done_testing();
