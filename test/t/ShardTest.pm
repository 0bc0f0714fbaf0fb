# What the Perl tests share: a server with the extension, and pgbench.
package ShardTest;

use strict;
use warnings;

use Exporter 'import';
use File::Temp ();
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  shard_node setup_shards pgbench_start pgbench_finish pgbench_run
  pgbench_ok poll_ok sqlstate);

# A running server with the extension and server "shards" in its database
# postgres.  "conf" is appended to postgresql.conf; "install_path" is that of
# another PostgreSQL.
sub shard_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		install_path => $params{install_path});

	$node->init(allows_streaming => $params{allows_streaming});
	$node->append_conf('postgresql.conf',
		"log_statement = none\nmax_connections = 60\nautovacuum = off\n"
		  . ($params{conf} // ''));
	$node->start;
	setup_shards($node, 'postgres');
	return $node;
}

sub setup_shards
{
	my ($node, $database) = @_;

	$node->safe_psql($database,
		'CREATE EXTENSION shard_fdw;'
		  . ' CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw');
}

# Start pgbench with a script, given as text, or several: [ text, weight ].
# It writes a log; what it prints of several scripts is not exact where there
# are several threads.
sub pgbench_start
{
	my ($node, $scripts, @options) = @_;
	my %run = (
		out => '', err => '', files => [],
		logs => PostgreSQL::Test::Utils::tempdir);
	my @files;

	foreach my $script (ref $scripts ? @$scripts : [ $scripts, 1 ])
	{
		my ($text, $weight) = @$script;
		my $file = File::Temp->new;

		print $file $text;
		close $file;
		push(@{ $run{files} }, $file);
		push(@files, '-f', "$file\@$weight");
	}
	$run{harness} = IPC::Run::start(
		[
			'pgbench', '-n', '-h', $node->host, '-p', $node->port, @files,
			'-l', '--log-prefix', "$run{logs}/log", @options, 'postgres'
		],
		'<', \undef, '>', \$run{out}, '2>', \$run{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%run;
}

# Wait for its end.  Gives its exit status, and what it counted: "each" is
# the number of transactions of each script, "clients" of each client.
sub pgbench_finish
{
	my ($run) = @_;

	$run->{harness}->finish;
	note $run->{out}, $run->{err};
	($run->{status}) = $run->{harness}->full_results;
	($run->{done}) =
	  $run->{out} =~ /number of transactions actually processed: (\d+)/;
	($run->{failed}) =
	  $run->{out} =~ /number of failed transactions: (\d+)/;
	$run->{each} = [ map { 0 } @{ $run->{files} } ];
	$run->{clients} = {};
	foreach my $file (glob("$run->{logs}/log.*"))
	{
		foreach my $line (split(/\n/, slurp_file($file)))
		{
			my ($client, $number, $time, $script) = split(/ /, $line);

			$run->{each}[$script]++;
			$run->{clients}{$client}++;
		}
	}
	return $run;
}

# Run pgbench to its end: no transaction may fail.  Returns how many there
# were.
sub pgbench_run
{
	my ($node, $title, $script, @options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return pgbench_ok(pgbench_start($node, $script, @options), $title);
}

# The same for one that was started.
sub pgbench_ok
{
	my ($run, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	pgbench_finish($run);
	is("$run->{status}/$run->{failed}", '0/0', "$title: no failure")
	  or diag($run->{err});
	return $run->{done};
}

# Wait until a query gives true.
sub poll_ok
{
	my ($node, $query, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', $query), $title);
}

# The SQLSTATE that a script ends with, and the message; '00000' for success.
sub sqlstate
{
	my ($node, $sql, %params) = @_;
	my ($stdout, $stderr);

	$node->psql(
		$params{database} // 'postgres', $sql,
		stdout => \$stdout, stderr => \$stderr,
		on_error_stop => 1,
		extra_params => [
			'-v', 'VERBOSITY=verbose',
			$params{user} ? ('-U', $params{user}) : ()
		]);
	return ($1, $2, $stderr) if $stderr =~ /ERROR:  (\w{5}): (.*)/;
	return ('00000', '', $stderr);
}

1;
