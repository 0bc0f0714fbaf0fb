# The worked example ("make example"): it compares its results itself, and
# fails if they differ.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('example');
$node->init;
$node->append_conf('postgresql.conf', "max_connections = 60\n");
$node->start;

my $output;
{
	local %ENV = (%ENV, $node->_get_env, EXAMPLE_SECONDS => 2,
		PGDATABASE => 'postgres');
	$output = qx("$ENV{TESTDIR}/test/example/run" 2>&1);
}
is($?, 0, 'the example works');
foreach my $way ('single_threaded', 'batches', 'windows', 'queue')
{
	like($output, qr/^ +$way: [1-9]\d* conversations, \d+ of them open, as the query says$/m,
		"$way agrees with the query");
}
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM expected'),
	'>', 0, 'there are conversations to compare');
is($node->safe_psql('postgres', 'SELECT sum(late_rows) FROM shard_fdw.windows'),
	'0', 'no message came late');
is($node->safe_psql('postgres', 'SELECT count(*) FROM message'),
	'0', 'all were taken out at the end');

$node->stop;
done_testing();
