# The works about loads: tables with indexes on random values, tables that do not fit into shared
# buffers, files.  Part of test/bench/run, whose functions it uses.

use strict;
use warnings;
use Time::HiRes qw(time);

my $plain = 'plain table';
my %table = (
	$plain => 'load_plain',
	'shard_fdw session' => 'load_sess',
	'shard_fdw round_robin' => 'load_rr',
	'shard_fdw hash, 8' => 'load_hash');

# What the tables have to be found by, and what a row is.
my %keys = (
	'with a serial key' => { columns => 'id, c, u, at', indexes => '' },
	'with a serial key and indexes on a bigint and a uuid' => {
		columns => 'id, c, u, at',
		indexes => 'CREATE INDEX ON load_model (c); CREATE INDEX ON load_model (u);' },
	'with a uuid as the only key' => {
		columns => 'c, u, at',
		indexes => 'ALTER TABLE load_model DROP id, ADD PRIMARY KEY (u);' },
	'with indexes on two bigints and a uuid' => {
		columns => 'c, d, u, at',
		indexes => 'ALTER TABLE load_model DROP id; CREATE INDEX ON load_model (c);
			CREATE INDEX ON load_model (d); CREATE INDEX ON load_model (u);' });
my %type = (id => 'bigint', c => 'bigint', d => 'bigint', u => 'uuid', at => 'timestamptz');
my %value = (
	id => 'g', c => '(random() * 1e18)::bigint', d => '(random() * 1e18)::bigint',
	u => 'gen_random_uuid()', at => 'now()');

# A query for n rows.
sub load_rows
{
	my ($case, $first, $n) = @_;
	return 'SELECT ' . join(', ', map { $value{$_} } split /, /, $keys{$case}{columns})
	  . " FROM generate_series($first, $first + $n - 1) g";
}

# Tables with n rows that are there before, the same for all.
sub create_loaded
{
	my ($case, $n, @names) = @_;
	my $columns = join ', ', map { "$_ $type{$_}" } split /, /, $keys{$case}{columns};
	my $key = $columns =~ /^id/ ? 'id' : 'u';
	my %create = map { $_ => "CREATE FOREIGN TABLE $table{$_} ($columns) SERVER shards
		OPTIONS (template 'load_model', shards '" . (/session, 2|shard_load/ ? 2 : /session/ ? 1 : 8) . "'"
		  . (/round/ ? ", route 'round_robin'" : /hash/ ? ", route 'hash', key '$key'" : '') . ');' }
	  grep { /shard_fdw/ } @names;
	create_contenders();
	psql('DROP TABLE IF EXISTS load_model, load_plain, load_rows CASCADE;
		DROP FOREIGN TABLE IF EXISTS load_sess, load_rr, load_hash CASCADE;'
		  . 'CREATE TABLE load_model (id bigint PRIMARY KEY, ' . ($columns =~ s/^id bigint, //r) . ");
		$keys{$case}{indexes}
		CREATE UNLOGGED TABLE load_rows ($columns);
		INSERT INTO load_rows " . load_rows($case, -$n, $n) . ";
		CREATE TABLE load_plain (LIKE load_model INCLUDING INDEXES);" . join('', values %create));
	psql("INSERT INTO $_ SELECT * FROM load_rows; CHECKPOINT;") for map { $table{$_} } @names;
	return;
}

# The rows of a round are in a table and a file, the same for all.
my $made = '';

sub make_rows
{
	my ($tmp, $case, $round, $n) = @_;
	return if $made eq "$case $round $n";
	psql('TRUNCATE load_rows; INSERT INTO load_rows ' . load_rows($case, first_id($round), $n)
		  . ";\nCOPY load_rows TO '$tmp/rows';");
	$made = "$case $round $n";
	return;
}

# Have the server start again with so much memory for its buffers, or with as
# much as it had, if that is something else.
my $buffers = '';

sub set_buffers
{
	my ($size) = @_;
	return if $size eq $buffers;
	$buffers = $size;
	psql($size ? "ALTER SYSTEM SET shared_buffers = '$size';" : 'ALTER SYSTEM RESET shared_buffers;');
	chomp(my $data = psql('SHOW data_directory;'));
	system("pg_ctl -D '$data' -l '$data/../server.log' -w restart >/dev/null") == 0
	  or die "could not restart the server\n";
	return;
}

sub load_works
{
	my %env = @_;
	my $n = $env{rows};
	my @peers = ($plain, 'shard_fdw session', 'shard_fdw round_robin', 'shard_fdw hash, 8');
	for my $w (
		[ 'COPY', 'with a serial key and indexes on a bigint and a uuid', 4, @peers ],
		[ 'INSERT ... SELECT', 'with a serial key and indexes on a bigint and a uuid', 4, @peers ],
		[ 'COPY', 'with a uuid as the only key', 4, @peers ],
		[ 'COPY', 'with a serial key', 4, @peers[ 0, 1 ] ],
		# Three indexes and eight million rows are 1.3 GB.
		[ 'COPY', 'with indexes on two bigints and a uuid', 8, @peers[ 0, 1 ] ])
	{
		my ($how, $case, $times, @names) = @$w;
		work(
			name => "load: $how of $n rows $case, beside " . $times * $n,
			unit => 'time',
			chosen => $how eq 'COPY' && $case =~ /serial key and/ && [ @peers[ 0, 1 ] ],
			contenders => \@names,
			yardstick => $plain,
			prepare => sub {
				set_buffers('256MB') if $times == 8;
				create_loaded($case, $times * $n, @names);
			},
			run => sub {
				my ($name, $round) = @_;
				make_rows($env{tmp}, $case, $round, $n);
				return timed('SELECT 1', $how eq 'COPY' ?
					  "COPY $table{$name} FROM '$env{tmp}/rows'" :
					  "INSERT INTO $table{$name} SELECT * FROM load_rows");
			});
		set_buffers('');
	}

	# From a file of a client's.
	my $copy = 'psql \copy, plain table';
	my $load = 'shard_load -j 2, shard_fdw session, 2';
	$table{$copy} = 'load_plain';
	$table{$load} = 'load_sess';
	for my $w ([ 'with a serial key' ],
		[ 'with a serial key and indexes on a bigint and a uuid' ])
	{
		my ($case) = @$w;
		work(
			name => "load: a client's file of $n rows $case, beside " . 4 * $n,
			unit => 'time',
			contenders => [ $copy, $load ],
			yardstick => $copy,
			prepare => sub { create_loaded($case, 4 * $n, $copy, $load) },
			run => sub {
				my ($name, $round) = @_;
				make_rows($env{tmp}, $case, $round, $n);
				psql('CHECKPOINT;');
				my $file = "$env{tmp}/rows";
				my $start = time;
				my $out = $name eq $copy ? qx(psql -Xqc "\\copy load_plain from '$file'" 2>&1)
				  : qx(shard_load -j 2 load_sess '$file' 2>&1);
				die "$name failed: $out" if $?;
				return 1000 * (time - $start);
			});
	}
	psql('DROP TABLE IF EXISTS load_model, load_plain, load_rows CASCADE;
		DROP FOREIGN TABLE IF EXISTS load_sess, load_rr, load_hash CASCADE;');
	return;
}

1;
