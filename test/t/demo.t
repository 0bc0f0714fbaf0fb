# The demonstration ("make demo"), with few rows and a short life.  It fails if
# a part of it does; what it shows is looked at here.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('demo');
$node->init;
$node->start;

my $output;
{
	local %ENV = (%ENV, $node->_get_env, DEMO_ROWS => 3000, DEMO_SECONDS => 7,
		PGDATABASE => 'postgres');
	$output = qx("$ENV{TESTDIR}/test/demo" 2>&1);
}
is($?, 0, 'the demonstration works') or diag($output);
unlike($output, qr/ERROR|WARNING|NOTICE/, 'there is no noise');
is_deeply([ $output =~ /-- (\d)\. /g ], [ 1 .. 4 ], 'there are the parts that it promises');
is(scalar(() = $output =~ /^ +log_\d +\| +250 \| +1$/mg), 8, 'each session had a shard');
like($output, qr/^ +2000 \| +2000$/m, 'no row is lost, and no id is given twice');
is(scalar(() = $output =~ /^ +\d +\d+ ms +\d+ ms$/mg), 3, 'bulk inserts are timed in turns');
like($output, qr/^ +12000 \| +12000$/m, 'both tables have all rows')
  or diag($output);
like($output, qr/Index Scan using orders_\d_pkey on orders_\d$/m, 'one shard is read by key');
like($output, qr/^ +42 \| +43$/m, 'an upsert');
my @life = $output =~ /^ +\d+ +(\d+) +(\d+) +[1-9]\d* +\d+\.\d s$/mg;
cmp_ok(scalar(@life), '>=', 6, 'a log table lives');
like($output, qr/^ +Of \d+ shards, the query reads\s+\d+\./m, 'a query by time');
like($output, qr/^ +make PG_CONFIG=\Q$ENV{PG_CONFIG}\E$/m, 'it says how to go on');

$node->stop;
done_testing();
