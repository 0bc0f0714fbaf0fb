# The benchmark's tools ("make bench", "make bench-contention") with next to no rows and time:
# that they work, not what they measure.  The documents' pictures are those of their figures.
use strict;
use warnings;

use File::Temp qw(tempdir);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tmp = tempdir(CLEANUP => 1);
my $bench = "$ENV{TESTDIR}/test/bench";
my $document = slurp_file("$ENV{TESTDIR}/docs/benchmark.md");

foreach my $figures ('benchmark.md', 'gains.csv')
{
	my $picture = $figures =~ s/\..*/.svg/r;

	ok(
		system($^X, "$bench/draw", "$ENV{TESTDIR}/docs/$figures", "$tmp/$picture") == 0
		  && slurp_file("$tmp/$picture") eq slurp_file("$ENV{TESTDIR}/docs/$picture"),
		"docs/$picture is what test/bench/draw makes of docs/$figures");
}
foreach my $line (grep { !/^work,/ } split(/\n/, slurp_file("$ENV{TESTDIR}/docs/gains.csv")))
{
	my ($ratio) = $line =~ /,([0-9.]+)$/;

	like($document, qr/^\|.*\| shard_fdw.* \| \Q$ratio\E (?:\(|\|)/m, "docs/benchmark.md has $line");
}

my $node = PostgreSQL::Test::Cluster->new('bench');
$node->init;
$node->append_conf('postgresql.conf', "max_connections = 30\nautovacuum = off\n");
$node->start;

our $only = '^INSERT [.]';

# What a tool prints, run in an empty folder and database.
sub run_tool
{
	my ($database, $tool, @arguments) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	local %ENV = (%ENV, $node->_get_env, PGDATABASE => $database, BENCH_ROUNDS => 1, BENCH_SECONDS => 1,
		BENCH_ROWS => 1000, BENCH_SHARDS => 2, BENCH_ONLY => $only);
	my $output = qx(cd "$ENV{TESTDIR}" && "$bench/$tool" @arguments 2>&1);

	is($?, 0, "$tool @arguments") or diag($output);
	return $output;
}

my $output = run_tool('first', 'run');
like($output, qr/^  plain table +[\d.,]+ ms *\n  shard_fdw session +[\d.,]+ ms +[\d.]+ times as fast$/m,
	'the benchmark tells times, and how many times as fast');
like($output, qr/^ +[\d.]+ .* INSERT \.\.\. SELECT of 1000 rows \(shard_fdw session, against plain table\)$/m,
	'... and all at a glance');
unlike($output, qr/goal/, '... and nothing else');
like(slurp_file("$ENV{TESTDIR}/results/bench.svg"), qr/INSERT \.\.\. SELECT of 1000 rows/, '... with a picture');
like(run_tool('second', 'run', 'list'), qr/^bulk .*^all /ms, 'the benchmark lists its parts');

SKIP:
{
	skip 'no postgres_fdw', 2
	  if !$node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'});
	local $only = '^nodes: (COPY|GROUP BY.* workers)';
	$output = run_tool('nodes', 'run');
	is(scalar(() = $output =~ /^  shard_fdw, 8 shards .* times as fast$/mg), 4, 'nodes next door, and far away') or diag($output);
}

$output = run_tool('third', 'contention', 2);
is(scalar(() = $output =~ /^ +2  (?:one table|native partitions|shards) +\d+ +(?:\d+ +){3}\d+ /mg),
	6, 'contention: a line for each kind of table and each work')
  or diag($output);

$node->stop;
done_testing();
