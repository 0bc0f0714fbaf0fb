# Runs the isolation specs, each as one test; a failure shows the diff.
#
# A spec same_* is run twice: its table "items" is found in schema "sharded"
# or in schema "plain", and both have to give what is expected.  The library
# is preloaded, for the sake of ON CONFLICT.
#
# TEST_SPECS in the environment, a list of names, restricts the run to those.
use strict;
use warnings;

use File::Basename qw(basename);
use File::Copy qw(copy);
use File::Path qw(make_path);
use IPC::Run qw(run);
use Test::More;
use Time::HiRes qw(usleep);

my $database = 'shard_fdw_isolation';
my $outdir = ($ENV{TESTDATADIR} // 'tmp_check') . '/isolation';

chomp(my $pgxs = `"$ENV{PG_CONFIG}" --pgxs`);
$pgxs =~ s{/makefiles/pgxs\.mk$}{};
my $regress = "$pgxs/test/isolation/pg_isolation_regress";
plan skip_all => "$regress is not installed" unless -x $regress;

sub sql
{
	my ($db, @commands) = @_;
	run [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $db,
		map { ('-c', $_) } @commands ]
	  or die "psql failed";
}

sub read_file
{
	my ($name) = @_;
	open(my $fh, '<', $name) or return '';
	local $/;
	return <$fh>;
}

# Before 19, core says of a row that SELECT FOR UPDATE finds deleted that it was
# updated.  So do the expected files, in these permutations.
my %deleted = (
	dequeue => 'rr2 delete1 watched2 r2 rest',
	same_snapshot => 'b1 delete1 rr2 lock2 c1 c2');
my $says_deleted = `"$ENV{PG_CONFIG}" --version` =~ /(\d+)/ && $1 >= 19;

# The folder with a spec and what it is expected to say on this server.
sub input_of
{
	my ($spec, $dir) = @_;
	my $expected;

	return 'test' unless $says_deleted && $deleted{$spec};
	make_path("$dir/input/specs", "$dir/input/expected");
	copy("test/specs/$spec.spec", "$dir/input/specs") or die "could not copy $spec: $!";
	$expected = read_file("test/expected/$spec.out");
	$expected =~ s/(permutation: $deleted{$spec}\n.*?\nERROR: .*? concurrent )update/$1delete/s
	  or die "no such error in test/expected/$spec.out";
	open(my $fh, '>', "$dir/input/expected/$spec.out") or die "$dir/input: $!";
	print $fh $expected;
	close $fh;
	return "$dir/input";
}

# A spec gets a database of its own, so that what a failed one leaves behind
# is in nobody's way.
sub run_spec
{
	my ($spec, $variant, $options) = @_;
	my $name = $variant ? "$spec, $variant" : $spec;
	my $dir = "$outdir/$spec" . ($variant ? "_$variant" : '');
	my $output = '';

	make_path($dir);
	sql('postgres', "CREATE DATABASE ${database}_run TEMPLATE $database");

	local $ENV{PGOPTIONS} = $options // '';
	my $ok = run [
		$regress, '--use-existing', "--dbname=${database}_run",
		'--inputdir=' . input_of($spec, $dir), "--outputdir=$dir", $spec
	  ],
	  '>', \$output, '2>&1';
	ok($ok, $name) or diag(read_file("$dir/regression.diffs") || $output);

	# The server may be recovering from a crash.
	for (1 .. 300)
	{
		last if run [ 'pg_isready', '-q' ];
		usleep(100_000);
	}
	sql('postgres', "DROP DATABASE ${database}_run WITH (FORCE)");
}

# A second tablespace cannot be made in a spec, being no matter for a
# transaction.
sql('postgres', "CREATE DATABASE $database");
sql(
	$database,
	'SET client_min_messages = warning',
	'SET allow_in_place_tablespaces = on',
	'CREATE EXTENSION shard_fdw',
	'CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw',
	"CREATE TABLESPACE shard_space LOCATION ''");

my @specs =
  $ENV{TEST_SPECS}
  ? split(' ', $ENV{TEST_SPECS})
  : sort map { basename($_, '.spec') } glob('test/specs/*.spec');

# A step that hangs is cancelled after so many seconds.
local $ENV{PGISOLATIONTIMEOUT} = 60;

foreach my $spec (@specs)
{
	if ($spec =~ /^same_/)
	{
		run_spec($spec, $_,
			"-c session_preload_libraries=shard_fdw -c search_path=$_,public")
		  foreach 'plain', 'sharded';
	}
	else
	{
		run_spec($spec);
	}
}

sql('postgres', "DROP DATABASE $database", 'DROP TABLESPACE shard_space');

done_testing();
