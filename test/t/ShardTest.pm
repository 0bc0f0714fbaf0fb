# What the Perl tests share: a server with the extension, sessions, and pgbench.
package ShardTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use File::Temp ();
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  shard_node setup_shards session send_to state_of copy_from $copy_end
  pgbench_start pgbench_finish pgbench_run pgbench_ok poll_ok indexes_ok sqlstate
  fails copy_installation has_libxml);

# Whether the server that is tested has values of type xml.
sub has_libxml { return `$ENV{PG_CONFIG} --configure` =~ /--with-libxml/; }

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

# A session that goes on after errors, for state_of(); of another user, or in
# another database than postgres, if one is given.
sub session
{
	my ($node, $user, $database) = @_;
	my $session = $node->background_psql($database // 'postgres',
		on_error_stop => 0,
		extra_params => $user ? [ '-U', $user ] : []);

	# The time limit is for each query.
	$session->set_query_timer_restart;
	$session->query_safe('\\set VERBOSITY verbose');
	$session->{pid} = $session->query_safe('SELECT pg_backend_pid()');
	return $session;
}

# Give a session something to read, and do not wait for what comes of it:
# state_of($session, 'SELECT') does.
sub send_to
{
	my ($session, $text) = @_;

	$session->{timeout}->start;
	$session->{stdin} .= $text;
	$session->{run}->pump_nb while length($session->{stdin});
}

# The SQLSTATE of a command's first error in a session ('00000' if there is
# none), its message, what the command prints, and all that is said of errors.
sub state_of
{
	my ($session, $sql) = @_;
	my ($output) = $session->query($sql);
	my $errors = $session->{stderr};
	my ($state, $message) = $errors =~ /(?:ERROR|FATAL):  (\w{5}): (.*)/;

	$session->{stderr} = '';
	return ($state // '00000', $message // '', $output, $errors);
}

# Start a COPY of those rows in a session, and wait until the server has
# inserted so many of them.  The last 20 kB can still be with psql, and from
# PostgreSQL 16 on up to 1000 rows or 64 kB wait to be inserted.  More rows can
# be sent, and state_of($session, $copy_end) ends it.
our $copy_end = "\\.\nSELECT";

sub copy_from
{
	my ($node, $session, $command, $inserted, @rows) = @_;
	my $attempts = 10 * $PostgreSQL::Test::Utils::timeout_default;

	send_to($session, join("\n", "$command;", @rows) . "\n");
	while ($node->safe_psql('postgres', qq{
			SELECT count(*) FROM pg_stat_progress_copy
			 WHERE pid = $session->{pid} AND tuples_processed >= $inserted}) == 0)
	{
		die 'COPY does not insert its rows' if $attempts-- == 0;
		# It may be more than the pipe has taken.
		$session->{run}->pump_nb;
		usleep(50_000);
	}
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

# Every index of the shards agrees with its table.
sub indexes_ok
{
	my ($node, $title) = @_;
	my @wrong;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	if ($node->safe_psql('postgres',
			q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'}))
	{
		# An index with a fault is an error.
		is( $node->safe_psql('postgres', q{
				SET client_min_messages = error;
				CREATE EXTENSION IF NOT EXISTS amcheck;
				SELECT count(bt_index_check(indexrelid, true)) > 0
				  FROM pg_index JOIN pg_inherits ON indrelid = inhrelid}),
			't', "$title: amcheck finds no fault with the indexes");
		return;
	}
	foreach my $column (split(/\n/, $node->safe_psql('postgres', q{
		SELECT format('FROM %s WHERE %I IS NOT NULL', indrelid::regclass, attname)
		  FROM pg_index JOIN pg_inherits ON indrelid = inhrelid
		  JOIN pg_attribute ON attrelid = indexrelid AND attnum = 1})))
	{
		my ($by_index, $by_table) = map {
			$node->safe_psql('postgres',
				"SET enable_bitmapscan = off; SET enable_$_ = off; SELECT count(*) $column")
		} 'seqscan', 'indexscan = off; SET enable_indexonlyscan';

		push(@wrong, $column) if $by_index != $by_table;
	}
	is("@wrong", '', "$title: the indexes agree with the tables");
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

# A test, as fails() of test/sql/helpers.psql: the command fails, and its first
# error has this SQLSTATE and this message; %other can have a "detail" and a
# "hint".  Each is a text or a pattern; what is undef is not compared, and '' of
# the detail or the hint means that there is none.  The command runs in a
# session, or, on a node, in a session of its own: %other has what sqlstate()
# takes.  The title is the command if %other has none.
sub fails
{
	my ($where, $command, $state, $message, %other) = @_;
	my $errors = $where->isa('PostgreSQL::Test::Cluster')
	  ? (sqlstate($where, $command, %other))[2]
	  : (state_of($where, $command))[3];
	my %wanted = (%other, SQLSTATE => $state, message => $message);
	my ($first) = $errors =~ /(?:ERROR|FATAL):  (.*?)(?=^LOCATION:  |\z)/ms;
	my %got;
	my @differences = defined $first ? () : ("no error: $command");

	@got{ 'SQLSTATE', 'message' } = ($first // '') =~ /^(\w{5}): (.*)/;
	foreach ('detail', 'hint')
	{
		$got{$_} = $1 if ($first // '') =~ /^\U$_\E:  (.*?)\n?(?=^[A-Z ]+:  |\z)/ms;
	}
	foreach (defined $first ? ('SQLSTATE', 'message', 'detail', 'hint') : ())
	{
		my ($got, $wanted) = ($got{$_} // '', $wanted{$_});

		push(@differences, "$_: $got\nexpected: $wanted")
		  if defined $wanted && !(ref $wanted ? $got =~ $wanted : $got eq $wanted);
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!@differences, $other{title} // $command)
	  || diag(join("\n", @differences));
}

# A copy of the installation, whose files can be taken away.  Gives its path,
# for shard_node(), and the files that are shard_fdw's.
sub copy_installation
{
	chomp(my ($bindir, $pkglibdir, $sharedir) =
		  map { scalar `"$ENV{PG_CONFIG}" --$_` } 'bindir', 'pkglibdir', 'sharedir');
	my ($found) = grep { -x "$_/postgres" } split(/:/, $ENV{PATH});
	my $root = substr($found, 0, length($found) - length($bindir));
	my $copy = PostgreSQL::Test::Utils::tempdir;

	# A server finds its files relative to its program.
	die "the installation in $found is not one for tests"
	  if $root eq '' || "$root$bindir" ne $found;
	IPC::Run::run([ 'cp', '-R', "$root/.", $copy ])
	  or die 'cannot copy the installation';
	return (
		$copy . dirname($bindir),
		glob("$copy$pkglibdir/shard_fdw.* $copy$sharedir/extension/shard_fdw*"));
}

1;
