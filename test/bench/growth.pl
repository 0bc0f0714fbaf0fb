# The works about tables that grow: other numbers of shards, shards that are emptied, and plain tables
# that are converted, most of them beside writers.  Part of test/bench/run, whose functions it uses.

use strict;
use warnings;
use List::Util qw(max);
use Time::HiRes qw(sleep time);

my $columns = 'id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), message text';

# Run this beside so many writers.  Returns how long it takes and the longest time that a writer has
# needed for a row, in ms.
sub beside_writers
{
	my ($tmp, $clients, $insert, $command) = @_;
	open my $fh, '>', "$tmp/write.sql" or die $!;
	print $fh "$insert;\n";
	close $fh;
	open my $writers, '-|',
	  "pgbench -n -c $clients -j $clients -T 3600 -f $tmp/write.sql -l --log-prefix=$tmp/wait 2>&1"
	  or die $!;
	sleep 3;
	my $start = time;
	psql($command);
	my $took = 1000 * (time - $start);
	sleep 1;
	psql("DO \$\$ BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'pgbench'; END \$\$;");
	my $text = do { local $/; <$writers> };
	close $writers;
	die "pgbench failed: $text" if $text =~ /ERROR:/ || $text !~ /terminating connection/;
	return ($took, longest_latency("$tmp/wait.*"));
}

# A hash table of 8 shards.
sub create_grown
{
	my ($n) = @_;
	psql("DROP FOREIGN TABLE IF EXISTS grown CASCADE; DROP TABLE IF EXISTS grown_model;
		DROP SEQUENCE IF EXISTS grown_ids;
		CREATE SEQUENCE grown_ids START 1000000000 CACHE 100;
		CREATE TABLE grown_model ($columns);
		CREATE FOREIGN TABLE grown (id bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), message text)
		  SERVER shards OPTIONS (shards '8', route 'hash', key 'id', template 'grown_model');
		INSERT INTO grown (id, message) SELECT g, md5(g::text) FROM generate_series(1, $n) g;
		VACUUM ANALYZE;
		CHECKPOINT;");
	return;
}

# The same shards twice as many, or the rows of one to the others.
my %reshard = (
	'reshard()' => "SELECT shard_fdw.reshard('grown', 16)",
	'CALL reshard_online()' => "CALL shard_fdw.reshard_online('grown', 16)");
my %empty = (
	'DELETE and INSERT' => 'WITH d AS (DELETE FROM emptied_0 RETURNING *) INSERT INTO emptied SELECT * FROM d',
	'CALL drain()' => "CALL shard_fdw.drain('emptied_0')");

sub growth_works
{
	my %env = @_;
	my $n = $env{rows};
	my %seen;

	# Both figures are of the same runs.
	my $grow = sub {
		my ($which, $name, $round) = @_;
		if (!$seen{"$name $round"})
		{
			create_grown($n);
			$seen{"$name $round"} = [
				beside_writers($env{tmp}, 4,
					"INSERT INTO grown (id, message) VALUES (nextval('grown_ids'), 'new')",
					$reshard{$name}) ];
		}
		return $seen{"$name $round"}[$which];
	};
	for my $figure ([ 0, 'time of' ], [ 1, 'the longest wait of 4 writers beside' ])
	{
		my ($which, $what) = @$figure;
		work(
			name => "growth: $what 8 shards made 16, $n rows",
			unit => 'time',
			contenders => [ sort { $b cmp $a } keys %reshard ],
			yardstick => 'reshard()',
			prepare => sub { create_contenders() },
			run => sub { return $grow->($which, @_) });
	}

	work(
		name => 'growth: a shard of ' . $n / 2 . ' rows is emptied',
		unit => 'time',
		contenders => [ sort { $b cmp $a } keys %empty ],
		yardstick => 'DELETE and INSERT',
		prepare => sub { create_contenders() },
		run => sub {
			psql("DROP FOREIGN TABLE IF EXISTS emptied CASCADE; DROP TABLE IF EXISTS emptied_model;
				CREATE TABLE emptied_model ($columns);
				CREATE INDEX ON emptied_model (at);
				CREATE FOREIGN TABLE emptied (id bigint, at timestamptz NOT NULL DEFAULT now(), message text)
				  SERVER shards OPTIONS (shards '4', template 'emptied_model');
				INSERT INTO emptied_0 SELECT g, now(), md5(g::text) FROM generate_series(1, $n / 2) g;
				VACUUM ANALYZE;");
			return timed("DO \$\$ BEGIN PERFORM shard_fdw.close_shard('emptied_0'); END \$\$", $empty{ $_[0] });
		});

	my %rows = ('1,000 rows' => 1000, '5 times the rows' => 5 * $n);
	work(
		name => 'growth: the longest wait of 4 writers beside convert_table()',
		unit => 'time',
		contenders => [ sort keys %rows ],
		yardstick => '1,000 rows',
		prepare => sub { create_contenders() },
		run => sub {
			psql("DROP FOREIGN TABLE IF EXISTS plain_one CASCADE;
				CREATE TABLE plain_one (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
					at timestamptz NOT NULL DEFAULT now(), message text);
				CREATE INDEX ON plain_one (at);
				INSERT INTO plain_one (message) SELECT 'old' FROM generate_series(1, $rows{$_[0]});
				VACUUM ANALYZE plain_one;
				CHECKPOINT;");
			my (undef, $wait) = beside_writers($env{tmp}, 4,
				"INSERT INTO plain_one (message) VALUES ('new')",
				"DO \$\$ BEGIN PERFORM shard_fdw.convert_table('plain_one', 8); END \$\$");
			return $wait;
		});
	psql('DROP FOREIGN TABLE IF EXISTS grown, emptied, plain_one CASCADE;
		DROP TABLE IF EXISTS grown_model, emptied_model; DROP SEQUENCE IF EXISTS grown_ids;');
	return;
}

1;
