# Other programs as clients: drivers, ORMs, a pooler.  All of them do the same,
# each as it is done there, with what is in test/clients; what it leaves is
# looked at from here.  A client that is not installed is left out, and named.
#
# Debian has packages of most of them ($clients below names them), npm those of
# Sequelize and TypeORM, which are found by NODE_PATH.  .ci/run installs them.
# SHARD_CLIENTS, a regular expression on the names, chooses some.
use strict;
use warnings;

use File::Temp qw(tempdir);
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;

my $folder = "$ENV{TESTDIR}/test/clients";
my $tmp = tempdir(CLEANUP => 1);
my $jars = join(':', grep { -e } map { "/usr/share/java/$_.jar" } 'postgresql',
	'scram-client', 'scram-common', 'saslprep', 'stringprep', 'ongres-scram-client',
	'ongres-scram-common', 'ongres-saslprep', 'ongres-stringprep');
# Debian's own Python, which has its modules.
my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';

# How to find out whether a client is here, how to run it, how many rows it
# copies, and what it tells beside the rest.
my @clients = (
	{
		name => 'libpq pipeline',
		package => 'gcc libpq-dev',
		is_here => [
			'gcc', '-o', "$tmp/pipeline", "$folder/pipeline.c", '-I' . pg_config('includedir'),
			'-L' . pg_config('libdir'), '-lpq'
		],
		run => ["$tmp/pipeline"],
		copies => 0
	},
	(
		map {
			my ($name, $module, $package, $copies) = @$_;
			{
				name => $name,
				package => $package,
				is_here => [ $python, '-c', join("\n", map { "import $_" } split(/ /, $module)) ],
				run => [ $python, "$folder/" . ($module =~ s/.* //r =~ s/^psycopg$/psycopg3/r) . '_.py' ],
				copies => $copies
			}
		}[ 'psycopg 3', 'psycopg', 'python3-psycopg', 1000 ],
		[ 'psycopg 2', 'psycopg2', 'python3-psycopg2', 1000 ],
		[ 'SQLAlchemy', 'psycopg2 sqlalchemy', 'python3-sqlalchemy', 0 ],
		[ 'Django', 'psycopg2 django', 'python3-django', 0 ]),
	(
		map {
			my ($name, $module, $package) = @$_;
			{
				name => $name,
				package => $package,
				is_here => [ 'node', '-e', join(';', map { "require.resolve('$_')" } split(/ /, $module)) ],
				run => [ 'node', "$folder/" . ($module =~ s/.* //r) . '_.js' ],
				copies => 0
			}
		}[ 'node-postgres', 'pg', 'node-pg' ],
		[ 'Sequelize', 'pg sequelize', 'sequelize of npm' ],
		[ 'TypeORM', 'pg reflect-metadata typeorm', 'typeorm of npm' ]),
	{
		name => 'JDBC',
		package => 'libpostgresql-jdbc-java default-jre-headless ecj',
		is_here => [
			'javac', '-proc:none', '-nowarn', '-source', 11, '-target', 11, '-cp', $jars, '-d', $tmp, "$folder/Client.java"
		],
		run => [ 'java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', "$jars:$tmp", 'Client' ],
		copies => 1000,
		tells => "kind: FOREIGN TABLE\n"
	});
my $only = $ENV{SHARD_CLIENTS} // '.';
my @missing;

@clients = grep { $_->{name} =~ /$only/ } @clients;

# JDBC has no sockets of Unix.  With a password, for other users of the machine
# can connect there, too.
my $password = join('', map { sprintf('%x', rand(16)) } 1 .. 20);
my $free = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "no port: $!";
my $port = $free->sockport;
close($free);
my $node = PostgreSQL::Test::Cluster->new('clients', port => $port);
$node->init;
$node->append_conf('postgresql.conf', qq{
	listen_addresses = '127.0.0.1'
	max_connections = 40
	autovacuum = off
	session_preload_libraries = 'shard_fdw'});
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf',
	"local all all trust\nhost all app_owner 127.0.0.1/32 scram-sha-256\n");
$node->start;
$node->safe_psql('postgres', "CREATE ROLE app_owner LOGIN PASSWORD '$password'");
$node->safe_psql('postgres', 'CREATE DATABASE installed');
setup_shards($node, 'installed');
$node->safe_psql('installed', 'GRANT USAGE ON FOREIGN SERVER shards TO app_owner');

foreach my $number (0 .. $#clients)
{
	my $client = $clients[$number];
	my ($name, $copies, $tells) = @$client{ 'name', 'copies', 'tells' };
	my $database = "client_$number";
	my ($said, $errors) = ('', '');

  SKIP:
	{
		if (!try_run($client->{is_here}))
		{
			push(@missing, "$name ($client->{package})");
			skip "$name is not installed ($client->{package})", 4;
		}
		fresh_database($database);
		local %ENV = (%ENV, $node->_get_env, PGDATABASE => $database, PGUSER => 'app_owner',
			PGPASSWORD => $password, PYTHONDONTWRITEBYTECODE => 1);
		IPC::Run::run(
			[ @{ $client->{run} }, "$folder/tables.sql" ],
			'<', \undef, '>', \$said, '2>', \$errors,
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		is($said, told($copies) . ($tells // ''), "$name: what it finds") or diag($errors);
		is($node->safe_psql($database, q{
				SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE what = 'one'),
				  count(*) FILTER (WHERE what ~ '^batch \d+$'), count(*) FILTER (WHERE what ~ '^copy \d+$'),
				  count(*) FILTER (WHERE what = 'changed'), count(*) FILTER (WHERE at IS NULL) FROM event}),
			join('|', 100 + $copies, 100 + $copies, 1, 98, $copies, 1, 0), "$name: its events");
		is($node->safe_psql($database, q{
				SELECT count(*), count(id), count(*) FILTER (WHERE what IS NULL)
				  FROM event FULL JOIN seen USING (id) WHERE what !~ '^copy' OR what IS NULL}),
			'101|101|1', "$name: it was told all ids but those copied");
		is($node->safe_psql($database, q{
				SELECT count(*), count(DISTINCT product), sum(price) FROM price}),
			'60|60|21830', "$name: its prices");
	}
}
pgbouncer_ok() if 'pgbouncer' =~ /$only/;
diag('NOT TESTED, for they are not installed: ' . join(', ', @missing)) if @missing;

$node->stop;
done_testing();

sub pg_config
{
	my ($what) = @_;
	chomp(my $answer = `"$ENV{PG_CONFIG}" --$what`);
	return $answer;
}

# Whether a command can be run, and succeeds.
sub try_run
{
	my ($command) = @_;
	my $output = '';
	my $works = eval { IPC::Run::run($command, '<', \undef, '>&', \$output) };

	note "@$command: $output" if !$works;
	return $works;
}

# A database "app_owner" can create logical tables in, and has none yet.
sub fresh_database
{
	my ($database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE installed OWNER app_owner");
}

# What a client finds: the sum of 60 prices read by key, SQLSTATEs, how many
# events a cursor reads, how many rows are updated and deleted.
sub told
{
	my ($copies) = @_;

	return "read: 21830\nduplicate: 23505\ncheck: 23514\ngiven id: 428C9\n"
	  . 'fetched: ' . (101 + $copies) . "\nchanged: 1 1\n";
}

# PgBouncer in transaction mode, with fewer connections than clients.
sub pgbouncer_ok
{
	my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';

  SKIP:
	{
		if (!defined $program)
		{
			push(@missing, 'pgbouncer (pgbouncer)');
			skip 'pgbouncer is not installed (pgbouncer)', 9;
		}
		my ($version) = `$program --version` =~ /PgBouncer (\d+\.\d+)/;
		my $is_new = defined $version && (split(/\./, $version))[1] >= 21;
		my $dir = PostgreSQL::Test::Utils::tempdir_short;
		my $log = '';

		fresh_database('pooled');
		append_to_file("$dir/users", qq{"app_owner" ""\n});
		append_to_file("$dir/ini",
			"[databases]\npooled = host=" . $node->host . " port=$port\n"
			  . "[pgbouncer]\nunix_socket_dir = $dir\nlisten_port = 6432\nauth_type = trust\n"
			  . "auth_file = $dir/users\npool_mode = transaction\ndefault_pool_size = 3\n"
			  . ($is_new ? "max_prepared_statements = 100\n" : ''));
		my $pooler = IPC::Run::start([ $program, "$dir/ini" ], '<', \undef, '>&', \$log);
		local %ENV = (%ENV, PGHOST => $dir, PGPORT => 6432, PGDATABASE => 'pooled', PGUSER => 'app_owner');
		my $attempts = 10 * $PostgreSQL::Test::Utils::timeout_default;
		while (!try_run([ 'psql', '-Xqc', 'SELECT 1' ]) && $attempts-- > 0)
		{
			Time::HiRes::usleep(100_000);
		}
		ok(try_run([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/tables.sql" ]),
			'pgbouncer: tables') or diag($log);

		append_to_file("$dir/work.sql",
			"\\set n random(1, 60)\nBEGIN;\nINSERT INTO event (what) VALUES ('batch ' || :n);\n"
			  . "INSERT INTO price VALUES ('p' || :n, 1)\n"
			  . "  ON CONFLICT (product) DO UPDATE SET price = price.price + 1;\nCOMMIT;\n"
			  . "SELECT price FROM price WHERE product = 'p' || :n;\n");
		my $done = 0;
		foreach my $mode ('simple', 'extended', $is_new ? 'prepared' : ())
		{
			my $out = '';

			IPC::Run::run([ 'pgbench', '-n', '-M', $mode, '-c', 12, '-t', 30, '-f', "$dir/work.sql" ],
				'<', \undef, '>&', \$out);
			like($out, qr{number of transactions actually processed: 360/360\n}, "pgbouncer: $mode");
			$done += 360;
		}
		is($node->safe_psql('pooled', 'SELECT count(*), count(DISTINCT id) FROM event'),
			"$done|$done", 'pgbouncer: all rows are there');
		is($node->safe_psql('pooled', 'SELECT sum(price) FROM price'), $done, 'pgbouncer: all upserts');
		is($node->safe_psql('pooled', q{
				SELECT count(*) BETWEEN 1 AND 3 AND count(*) = count(DISTINCT shard) FROM shard_fdw.leases
				 WHERE logical = 'event'::regclass}),
			't', 'pgbouncer: each of its connections has a shard');

		my $out = '';
		IPC::Run::run(
			[
				'psql', '-XqAt',
				map { ('-c', $_) } 'BEGIN', 'SET LOCAL shard_fdw.shard = 3',
				q{INSERT INTO event (what) VALUES ('to event_3')}, 'SELECT shard_fdw.last_shard()',
				'COMMIT', 'SHOW shard_fdw.shard'
			],
			'<', \undef, '>&', \$out);
		is($out, "event_3\n-1\n", 'pgbouncer: a shard for a transaction');
		$pooler->signal('INT');
		eval { $pooler->finish };
	}
}
