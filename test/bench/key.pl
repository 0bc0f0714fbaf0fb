# The works about single rows: lookups and changes by key, inserts without contention, joins that
# look keys up, and how long it takes to plan for many shards.  Part of test/bench/run, whose
# functions it uses.

use strict;
use warnings;

# What is read and changed by key.  All have the same rows.
my $columns = 'id bigint, a int, b int, at timestamptz';
my $plain = 'plain table';
my $native = 'native hash partitions, 24';
my $hash = 'shard_fdw hash, 24';
my $many = 'shard_fdw hash, 256';
my %table = ($plain => 'key_plain', $native => 'key_nat', $hash => 'key_hash', $many => 'key_many');
my $keys = 500_000;

sub create_keyed
{
	create_contenders();
	psql("DROP TABLE IF EXISTS key_plain, key_nat, key_model CASCADE;
		DROP FOREIGN TABLE IF EXISTS key_hash, key_many CASCADE;
		CREATE TABLE key_model ($columns, PRIMARY KEY (id));
		CREATE TABLE key_plain (LIKE key_model INCLUDING ALL);
		CREATE TABLE key_nat ($columns, PRIMARY KEY (id)) PARTITION BY HASH (id);"
		  . join('', map { "CREATE TABLE key_nat_$_ PARTITION OF key_nat
			  FOR VALUES WITH (MODULUS 24, REMAINDER $_);" } 0 .. 23)
		  . join('', map { my ($t, $n) = @$_;
			  "CREATE FOREIGN TABLE $t ($columns) SERVER shards
			   OPTIONS (shards '$n', route 'hash', key 'id', template 'key_model');" }
			  [ key_hash => 24 ], [ key_many => 256 ])
		  . join('', map { "INSERT INTO $_ SELECT g, g, g, now() FROM generate_series(1, $keys) g;" }
			  values %table)
		  . 'VACUUM ANALYZE;' . join('', map { "ANALYZE $_;" } values %table) . 'CHECKPOINT;');
	return;
}

# Transactions per second of two clients that do this to rows in random order, warm in shared
# buffers.
sub by_key
{
	my ($t, $mode, $statement) = @_;
	my $options = '-c synchronous_commit=off -c session_preload_libraries=shard_fdw'
	  . ($mode eq 'generic' ? ' -c plan_cache_mode=force_generic_plan' : '');
	return pgbench(2, $mode eq 'simple' ? 'simple' : 'prepared', $options, 0,
		sub { return "\\set id random(1, $keys)\n" . sprintf("$statement;\n", $t) });
}

my %statement = (
	'SELECT' => 'SELECT * FROM %s WHERE id = :id',
	'UPDATE' => 'UPDATE %s SET a = a + 1 WHERE id = :id',
	'DELETE' => 'DELETE FROM %s WHERE id = :id');

sub compare
{
	my ($what, $mode, $yardstick, @contenders) = @_;
	my $name = $contenders[-1];
	work(
		name => "key: $what by key, " . ($mode eq 'generic' ? 'generic plan' : "pgbench -M $mode")
		  . ", 2 clients, against $yardstick",
		unit => 'rate',
		chosen => $what eq 'SELECT' && $yardstick eq $plain && \@contenders,
		contenders => \@contenders,
		yardstick => $yardstick,
		prepare => \&create_keyed,
		run => sub {
			my $t = $table{ $_[0] };
			# What the round before has deleted.
			psql("INSERT INTO $t SELECT g, g, g, now() FROM generate_series(1, $keys) g
				WHERE NOT EXISTS (SELECT FROM $t WHERE id = g); VACUUM; CHECKPOINT;")
			  if $what eq 'DELETE';
			return by_key($t, $mode, $statement{$what});
		});
	return;
}

# Tables for one to 32 writers, each of which writes to one of its own.
my $own = 'a table per client';
my $session = 'shard_fdw session';

sub insert_rows
{
	my ($clients, $against) = @_;
	work(
		name => "key: single-row inserts, pgbench -M prepared, $clients client"
		  . ($clients > 1 ? 's' : '') . ", synchronous_commit off, against $against",
		unit => 'rate',
		contenders => [ $against, $session ],
		yardstick => $against,
		prepare => sub {
			create_contenders();
			psql("DROP TABLE IF EXISTS key_model CASCADE; DROP FOREIGN TABLE IF EXISTS key_sess CASCADE;
				CREATE TABLE key_model ($columns, PRIMARY KEY (id));
				CREATE FOREIGN TABLE key_sess ($columns) SERVER shards
				  OPTIONS (shards '$clients', template 'key_model');"
				  . join('', map { "DROP TABLE IF EXISTS key_own_$_;
					  CREATE TABLE key_own_$_ (LIKE key_model INCLUDING ALL);" } 0 .. $clients - 1)
				  . join('', map { my $t = $_; map { "INSERT INTO ${t}_$_
					  SELECT 32 * g + $_, g, g, now() FROM generate_series(1, 20000) g;" }
					  0 .. $clients - 1 } 'key_own', 'key_sess'));
		},
		run => sub {
			my ($name, $round) = @_;
			return pgbench($clients, 'prepared', '-c synchronous_commit=off', $round * 1_000_000_000,
				sub {
					my $t = $name eq $session ? 'key_sess' : $name eq $plain ? 'key_own_0' : "key_own_$_[0]";
					return "\\set n :n + 1\nINSERT INTO $t (id, a, b, at) VALUES (:n, 1, 2, now());\n";
				});
		});
	return;
}

sub key_works
{
	compare('SELECT', 'prepared', $plain, $plain, $native, $hash);
	compare('UPDATE', 'prepared', $plain, $plain, $native, $hash);
	for my $what ('SELECT', 'UPDATE', 'DELETE')
	{
		compare($what, $_, $native, $native, $hash)
		  for $what eq 'SELECT' ? () : 'prepared', 'generic', 'simple';
		compare($what, 'prepared', $hash, $hash, $many) if $what ne 'DELETE';
	}
	insert_rows(1, $plain);
	insert_rows(2, $plain);
	insert_rows(8, $own);
	insert_rows(32, $own);

	work(
		name => 'key: nested loop of 10,000 outer rows into a table by its key',
		unit => 'time',
		contenders => [ $plain, $native, $hash ],
		yardstick => $plain,
		prepare => \&create_keyed,
		run => sub {
			my $join = "SELECT count(k.a) FROM generate_series(1, $keys, " . $keys / 10_000
			  . ") g JOIN $table{$_[0]} k ON k.id = g";
			# The first query of a session loads the library, the second fills its caches.
			return timed("SET enable_hashjoin = off; SET enable_mergejoin = off;
				SET max_parallel_workers_per_gather = 0; SET jit = off; $join; $join", $join);
		});

	my %planned = ('native hash partitions, 512' => 'wide_nat', 'shard_fdw hash, 512' => 'wide_hash');
	for my $partitionwise ('off', 'on')
	{
		work(
			name => "key: planning of a GROUP BY over 512 shards, partition-wise aggregation $partitionwise",
			unit => 'time',
			contenders => [ sort keys %planned ],
			yardstick => 'native hash partitions, 512',
			prepare => sub {
				return if psql("SELECT to_regclass('wide_nat');") =~ /wide/;
				psql("DROP TABLE IF EXISTS key_model CASCADE;
					CREATE TABLE key_model ($columns, PRIMARY KEY (id));
					CREATE TABLE wide_nat ($columns, PRIMARY KEY (id)) PARTITION BY HASH (id);"
					  . join('', map { "CREATE TABLE wide_nat_$_ PARTITION OF wide_nat
						  FOR VALUES WITH (MODULUS 512, REMAINDER $_);" } 0 .. 511)
					  . "CREATE FOREIGN TABLE wide_hash ($columns) SERVER shards
						 OPTIONS (shards '512', route 'hash', key 'id', template 'key_model');"
					  . join('', map { "INSERT INTO $_ SELECT g, g % 100, g, now()
						  FROM generate_series(1, 1000000) g;" } values %planned)
					  . 'VACUUM ANALYZE; ANALYZE wide_hash; ANALYZE wide_nat;');
			},
			run => sub {
				my $query = "EXPLAIN SELECT a, count(*) FROM $planned{$_[0]} GROUP BY a";
				return timed("SET enable_partitionwise_aggregate = $partitionwise; $query",
					"DO \$\$ BEGIN FOR i IN 1..10 LOOP EXECUTE '$query'; END LOOP; END \$\$");
			});
	}
	psql('DROP TABLE IF EXISTS key_plain, key_nat, wide_nat, key_model CASCADE;
		DROP FOREIGN TABLE IF EXISTS key_hash, key_many, key_sess, wide_hash CASCADE;'
		  . join('', map { "DROP TABLE IF EXISTS key_own_$_;" } 0 .. 31));
	return;
}

1;
