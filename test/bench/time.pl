# The works about time: many generations of shards, and how old rows go.  Part
# of test/bench/run, whose functions it uses.

use strict;
use warnings;
use List::Util qw(max);

# Milliseconds of CPU that the last statement takes in a warm session.  The
# server's own files say so; they are read once before they count.
sub cpu
{
	my ($before, $sql) = @_;
	my $now = "SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint AS cpu";
	my $out = psql("$before;\n$now \\gset\n$now \\gset\n\\o /dev/null\n$sql;\n\\o\n"
		  . ($now =~ s/ AS cpu/ - :cpu/r) . ";\n");
	$out =~ /(\d+)\n*\z/ or die "no time in: $out";
	return $1 / 1e6;
}

# A year of days, four shards each, and what they are compared with.
my $days = 365;
my $many = 'shard_fdw, 1,460 shards';
my %tables = (
	$many => 'aged',
	'shard_fdw, newest 8 shards' => 'aged8',
	'shard_fdw, 4 shards' => 'aged4',
	'native range partitions, 365' => 'aged_days',
	'native range partitions, 1,460' => 'aged_quarters');

# Create them once.  Each day has 800 rows in all tables that have it.
sub create_aged
{
	my ($columns) = @_;
	return if psql("SELECT to_regclass('aged');") =~ /aged/;
	create_contenders();
	psql("CREATE TABLE aged_model ($columns, PRIMARY KEY (id));
		ALTER TABLE aged_model ALTER at SET NOT NULL;
		CREATE INDEX ON aged_model (at);");
	my $rows = "SELECT g, g, now() - %s * interval '1 day' - g * interval '5 minutes', true
		FROM generate_series(1, 200) g";
	for my $t ([ 'aged', 4 * $days ], [ 'aged8', 8 ], [ 'aged4', 4 ])
	{
		my ($name, $n) = @$t;
		my $numbered = $columns =~ s/^id bigint/id bigint OPTIONS (sequence 'always')/r;
		psql("CREATE FOREIGN TABLE $name ($numbered) SERVER shards
			OPTIONS (shards '$n', template 'aged_model', max_shards '2000',
			         time_column 'at', maintenance 'manual');");
		psql(join('', map {
			my $age = int(($n - 1 - $_) / 4);
			"INSERT INTO ${name}_$_ (a, b, at, ok) " . sprintf($rows, $age) . ";\n"
			  . ($age > 0 ? "DO 'BEGIN PERFORM shard_fdw.close_shard(''${name}_$_''); END';\n" : '')
		} 0 .. $n - 1));
		psql("CALL shard_fdw.maintain('$name');");
	}
	for my $t ([ 'aged_days', $days, 24 ], [ 'aged_quarters', 4 * $days, 6 ])
	{
		my ($name, $n, $hours) = @$t;
		my $numbered = $columns =~ s/^id bigint/id bigint GENERATED ALWAYS AS IDENTITY/r;
		psql("CREATE TABLE $name ($numbered, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
			CREATE INDEX ON $name (at);
			DO \$\$
			BEGIN
				FOR i IN 1 .. $n LOOP
					EXECUTE format('CREATE TABLE ${name}_%s PARTITION OF $name
						FOR VALUES FROM (%L) TO (%L)', i,
						CASE WHEN i > 1 THEN now() - ($n + 1 - i) * interval '$hours hours' ELSE '-infinity' END,
						CASE WHEN i < $n THEN now() - ($n - i) * interval '$hours hours' ELSE 'infinity' END);
				END LOOP;
			END \$\$;
			INSERT INTO $name (a, b, at, ok) SELECT a, b, at, ok FROM aged;");
	}
	psql('VACUUM ANALYZE;');
	return;
}

# Old rows that are to go.
my $old = "at < now() - interval '1 day'";
my %remove = (
	'DELETE' => [ 'DELETE FROM kept_plain WHERE ' . $old ],
	'DELETE and VACUUM' => [ 'DELETE FROM kept_plain WHERE ' . $old, 'VACUUM kept_plain' ],
	'DROP TABLE of four tables' => ['DROP TABLE kept_0, kept_1, kept_2, kept_3'],
	'shard_fdw retain() of four shards' =>
	  ["SELECT shard_fdw.retain('kept', now() - interval '1 day')"]);

# Create so many of them, and beside them as many young ones.
sub create_kept
{
	my ($name, $n) = @_;
	my $rows = "(at, message) SELECT now() - interval '%s', repeat('x', 110)
		FROM generate_series(1, %d)";
	psql('DROP FOREIGN TABLE IF EXISTS kept CASCADE;
		DROP TABLE IF EXISTS kept_plain, kept_model, kept_0, kept_1, kept_2, kept_3;
		CREATE TABLE kept_model (id bigserial PRIMARY KEY, at timestamptz NOT NULL, message text);
		CREATE INDEX ON kept_model (at);');
	if ($name =~ /retain/)
	{
		psql("CREATE FOREIGN TABLE kept (id bigint OPTIONS (sequence 'always'),
				at timestamptz NOT NULL, message text) SERVER shards
			  OPTIONS (shards '4', template 'kept_model', time_column 'at', maintenance 'manual');");
		psql("INSERT INTO kept_$_ " . sprintf($rows, '3 days', $n / 4)) for 0 .. 3;
		psql("SELECT shard_fdw.rotate('kept');\nCALL shard_fdw.maintain('kept');");
		psql("INSERT INTO kept_$_ " . sprintf($rows, '0', $n / 4)) for 4 .. 7;
	}
	elsif ($name =~ /DROP/)
	{
		psql("CREATE TABLE kept_$_ (LIKE kept_model INCLUDING ALL);
			INSERT INTO kept_$_ " . sprintf($rows, '3 days', $n / 4)) for 0 .. 3;
	}
	else
	{
		psql('CREATE TABLE kept_plain (LIKE kept_model INCLUDING ALL);');
		psql('INSERT INTO kept_plain ' . sprintf($rows, $_, $n)) for '3 days', '0';
	}
	psql('VACUUM;');
	return;
}

# The longest time, in ms, that one of 8 writers has waited for a row to be inserted, beside a
# reader whose transactions last for 30 seconds.
sub longest_wait
{
	my ($tmp, $seconds, $rotates) = @_;
	psql("DROP FOREIGN TABLE IF EXISTS busy CASCADE; DROP TABLE IF EXISTS busy_model CASCADE;
		CREATE TABLE busy_model (id bigint PRIMARY KEY, at timestamptz NOT NULL, a int);
		CREATE INDEX ON busy_model (at);
		CREATE FOREIGN TABLE busy (id bigint OPTIONS (sequence 'always'),
			at timestamptz NOT NULL DEFAULT clock_timestamp(), a int) SERVER shards
		  OPTIONS (shards '4', template 'busy_model', max_shards '2000', time_column 'at',
		           rotate_every '1 second', retain_for '2 seconds', maintenance 'manual');");
	my %file = (
		write => "INSERT INTO busy (a) VALUES (1);\n",
		read => "BEGIN;\nSELECT count(*) FROM busy;\n\\sleep 30 s\nCOMMIT;\n",
		maintain => "CALL shard_fdw.maintain('busy');\n\\sleep 100 ms\n");
	my @runs;
	for my $what ('write', 'read', $rotates ? 'maintain' : ())
	{
		open my $fh, '>', "$tmp/$what.sql" or die $!;
		print $fh $file{$what};
		close $fh;
		my $options = $what eq 'write' ? "-c 8 -T $seconds -l --log-prefix=$tmp/wait"
		  : $what eq 'read' ? '-c 1 -t ' . int($seconds / 30) : "-c 1 -T $seconds";
		open my $p, '-|', "pgbench -n -M simple $options -f $tmp/$what.sql 2>&1" or die $!;
		push @runs, $p;
	}
	for my $p (@runs)
	{
		my $text = do { local $/; <$p> };
		close $p or die "pgbench failed: $text";
		die "pgbench failed: $text" if $text =~ /ERROR|deadlock|aborted/;
	}
	return longest_latency("$tmp/wait.*");
}

sub time_works
{
	my %env = @_;
	my $insert = 'INSERT INTO %s (a, b, ok) VALUES (1, 2, true)';
	my $hour = "at >= now() - interval '1 hour'";
	my %aged = (prepare => sub { create_aged($env{columns}) });

	# First of all, because all tables still have the same rows of the last hour.
	for my $case ([ 'shard_fdw, newest 8 shards', 500 ],
		[ 'native range partitions, 365', 50 ])
	{
		my ($against, $times) = @$case;
		work(
			%aged,
			name => "time: count(*) of the last hour, against $against",
			unit => 'CPU time',
			contenders => [ $against, $many ],
			yardstick => $against,
			run => sub {
				my $loop = "DO \$\$ DECLARE n bigint; BEGIN FOR i IN 1..$times LOOP
					EXECUTE \$q\$SELECT count(*) FROM $tables{$_[0]} WHERE $hour\$q\$ INTO n;
					END LOOP; END \$\$";
				return cpu($loop, $loop);
			});
	}

	my $native = 'native range partitions, 365';
	work(
		%aged,
		name => 'time: locks taken by count(*) of the last hour',
		unit => 'locks',
		contenders => [ $native, $many ],
		yardstick => $native,
		run => sub {
			my $query = "SELECT count(*) FROM $tables{$_[0]} WHERE $hour";
			# The first query of a session plans before the library is there.
			return (split ' ', psql("LOAD 'shard_fdw';\nBEGIN;\n$query;
				SELECT count(*) FROM pg_locks
				WHERE pid = pg_backend_pid() AND locktype = 'relation'
				  AND relation <> 'pg_locks'::regclass;"))[-1];
		});
	my @inserting = (
		%aged,
		contenders => [ 'shard_fdw, 4 shards', $many ],
		yardstick => 'shard_fdw, 4 shards');
	work(
		@inserting,
		name => 'time: single-row inserts, pgbench -M prepared, synchronous_commit off',
		unit => 'rate',
		run => sub {
			my $script = sprintf("$insert;\n", $tables{ $_[0] });
			return pgbench(1, 'prepared', '-c synchronous_commit=off', 0, sub { return $script });
		});
	work(
		@inserting,
		name => 'time: 20,000 single-row inserts of a session, synchronous_commit off',
		unit => 'CPU time',
		run => sub {
			my $first = sprintf("PREPARE i AS $insert", $tables{ $_[0] });
			return cpu("SET synchronous_commit = off;\n$first" . ";\nEXECUTE i" x 1000,
				join(";\n", ('EXECUTE i') x 20_000));
		});
	work(
		%aged,
		name => 'time: the first INSERT of a session',
		unit => 'CPU time',
		contenders => [ 'native range partitions, 1,460', $many ],
		yardstick => 'native range partitions, 1,460',
		run => sub { return cpu('SELECT 1', sprintf($insert, $tables{ $_[0] })) });

	my %change = (
		'after nothing' => 'SELECT 1',
		'after VACUUM of a shard' => 'VACUUM aged_5',
		'after ALTER TABLE of a shard' => 'ALTER TABLE aged_7 SET (fillfactor = 90)');
	work(
		%aged,
		name => 'time: 10 times an INSERT, 1,460 shards',
		unit => 'CPU time',
		contenders => [ sort keys %change ],
		yardstick => 'after nothing',
		run => sub {
			my $sql = sprintf($insert, 'aged');
			my $change = "\\! psql -XqAtc '$change{$_[0]}' >$env{tmp}/change.out\n$sql";
			return cpu("$sql;\n" x 3 . $change, join(";\n", ($change) x 10));
		});

	for my $n (100_000, $env{rows})
	{
		work(
			name => "time: dropping $n old rows",
			unit => 'time',
			chosen => $n == $env{rows} && [ grep { !/VACUUM/ } sort keys %remove ],
			contenders => [ sort keys %remove ],
			yardstick => 'DELETE',
			prepare => sub { create_contenders() },
			run => sub {
				my ($name) = @_;
				my $time = 0;
				create_kept($name, $n);
				$time += timed('SELECT 1', $_) for @{ $remove{$name} };
				return $time;
			});
	}
	my $wait = max(30, $env{seconds});
	work(
		name => "time: the longest wait of 8 writers and a reader in $wait seconds",
		unit => 'time',
		contenders => [ 'no maintenance', 'rotation and retention every second' ],
		yardstick => 'no maintenance',
		prepare => sub { create_contenders() },
		run => sub {
			return longest_wait($env{tmp}, $wait, $_[0] =~ /rotation/);
		});
	psql('DROP FOREIGN TABLE IF EXISTS aged, aged8, aged4, kept, busy CASCADE;
		DROP TABLE IF EXISTS aged_days, aged_quarters, aged_model, kept_plain, kept_model, busy_model;');
	return;
}

1;
