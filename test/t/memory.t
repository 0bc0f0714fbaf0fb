# Memory does not grow with the number of rows, nor with that of statements.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'this system has no /proc' unless -r "/proc/$$/status";

# Few shared buffers: those that a backend has touched count as its memory.
my $node = shard_node('memory', conf =>
	"shared_buffers = 1MB\nmax_wal_size = 2GB\nshard_fdw.load_work_mem = 128kB\n");
my $dir = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', q{
	CREATE TABLE model (id int PRIMARY KEY, v text, w text);
	CREATE INDEX ON model (hashint4(id));
	CREATE FOREIGN TABLE log (id int, v text, w text)
	  SERVER shards OPTIONS (shards '4', template 'model');
	CREATE FOREIGN TABLE rr (id int, v text, w text)
	  SERVER shards OPTIONS (shards '4', template 'model', route 'round_robin');
	CREATE FUNCTION rows_of(n int, width int) RETURNS TABLE (id int, v text, w text)
	LANGUAGE sql AS
	$$ SELECT g, repeat(chr(65 + g % 26), width), 'w' || g FROM generate_series(1, n) g $$;
	-- what the backend has asked the system for, caches included
	CREATE VIEW memory AS
	SELECT sum(total_bytes)::bigint AS bytes FROM pg_backend_memory_contexts;
});

# The peak of a backend's memory so far, in kB.
sub peak
{
	my ($session) = @_;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	return $peak;
}

# Rows, and their width, of the smaller run: more than is ever collected at
# once.  The larger has ten times as many.  (A function in FROM would collect
# its rows, up to work_mem.)  COPY of binary collects 1000 rows from version 16
# on, however wide, and how malloc() places wide ones differs by some megabytes;
# a leak would be of 13,500.
my %sizes = (narrow => [ 10000, 150 ], wide => [ 1500, 5000 ]);

foreach my $name (sort keys %sizes)
{
	my ($n, $width) = @{ $sizes{$name} };

	foreach my $format ('text', 'binary')
	{
		$node->safe_psql('postgres',
			"COPY (SELECT * FROM rows_of($_, $width)) TO '$dir/$name.$format.$_' (FORMAT $format)")
		  foreach ($n, 10 * $n);
	}
	foreach my $table ('log', 'rr')
	{
		my %commands = (
			'COPY' => sub { "COPY $table FROM '$dir/$name.text.$_[0]'" },
			'COPY of binary' =>
			  sub { "COPY $table FROM '$dir/$name.binary.$_[0]' (FORMAT binary)" },
			'INSERT ... SELECT' =>
			  sub { "INSERT INTO $table SELECT generate_series(1, $_[0]), repeat('x', $width),
			    'w'" },
			'INSERT ... RETURNING' =>
			  sub { "WITH i AS (INSERT INTO $table SELECT generate_series(1, $_[0]), 'x', 'w'
			    RETURNING 1) SELECT FROM i WHERE false" });

		foreach my $command (sort keys %commands)
		{
			my $session = $node->background_psql('postgres');

			# What is loaded or cached once must not count.
			$session->query_safe("TRUNCATE $table; SELECT count(*) FROM $table;");
			$session->query_safe($commands{$command}->($n));
			$session->query_safe("TRUNCATE $table");
			$session->query_safe($commands{$command}->($n));
			my $small = peak($session);
			$session->query_safe("TRUNCATE $table");
			$session->query_safe($commands{$command}->(10 * $n));
			my $large = peak($session);
			is($session->query_safe("SELECT count(*) FROM $table"),
				10 * $n, "$command of $name rows into $table");
			my $allowance = $command eq 'COPY of binary' && $name eq 'wide' ? 3 * 1024 : 1024;
			cmp_ok($large - $small, '<=', $allowance,
				"$command of $name rows into $table takes $large kB, a tenth of the rows $small kB"
			);
			$session->quit;
		}
	}
}

# Many small statements: in one transaction, and each in its own.

my %loops = (
	'a row at a time' => 'INSERT INTO %s VALUES (i, $$v$$, $$w$$)',
	'three rows at a time' =>
	  'INSERT INTO %s VALUES (i, $$v$$), (i, $$v$$), (i, $$v$$)',
	'with a savepoint' =>
	  'BEGIN INSERT INTO %s VALUES (i, $$v$$); EXCEPTION WHEN unique_violation THEN NULL; END');
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE log_plain (id int, v text, w text) SERVER shards OPTIONS (shards '4');
	CREATE FOREIGN TABLE rr_plain (id int, v text, w text)
	  SERVER shards OPTIONS (shards '4', route 'round_robin')});
foreach my $table ('log_plain', 'rr_plain')
{
	foreach my $loop (sort keys %loops)
	{
		my $session = $node->background_psql('postgres');
		my $statement = sprintf($loops{$loop}, $table);
		my $do = "DO \$do\$ BEGIN FOR i IN 1 .. %d LOOP $statement; END LOOP; END \$do\$";

		# Savepoints that have written stay with the transaction.
		my ($few, $many) = $loop =~ /savepoint/ ? (500, 1000) : (1000, 20000);
		my $each = $loop =~ /savepoint/ ? 1024 : 4;
		$session->query_safe('BEGIN');
		$session->query_safe(sprintf($do, $few));
		my $before = $session->query_safe('SELECT bytes FROM memory');
		$session->query_safe(sprintf($do, $many));
		my $after = $session->query_safe('SELECT bytes FROM memory');
		$session->query_safe('COMMIT');
		cmp_ok($after - $before, '<=', $many * $each,
			"$table: one transaction, $loop: from $before to $after bytes");
		my $done = $session->query_safe('SELECT bytes FROM memory');
		cmp_ok($done - $before, '<=', 64 * 1024,
			"$table: ... at its end $done bytes");
		$session->quit;
	}

	my $session = $node->background_psql('postgres');
	my $insert = "INSERT INTO $table VALUES (1, 'v', 'w');\n";
	$session->query_safe($insert x 200);
	my $before = $session->query_safe('SELECT bytes FROM memory');
	$session->query_safe($insert x 3000);
	my $after = $session->query_safe('SELECT bytes FROM memory');
	cmp_ok($after - $before, '<=', 8 * 1024,
		"$table: a transaction each: from $before to $after bytes");

	# Whenever a shard changes, what is known of all of them is built anew.
	my $change = "SELECT FROM shard_fdw.seal('${table}_0'); $insert"
	  . "SELECT FROM shard_fdw.unseal('${table}_0'); $insert";
	$session->query_safe($change x 50);
	$before = $session->query_safe('SELECT bytes FROM memory');
	$session->query_safe($change x 300);
	$after = $session->query_safe('SELECT bytes FROM memory');
	cmp_ok($after - $before, '<=', 64 * 1024,
		"$table: shards change: from $before to $after bytes");
	$session->quit;
}

# What is known of tables that have been dropped goes, whatever the route: their
# entries' contents, and the entries.  The owner inserts, or somebody else has
# dropped them.
foreach my $route ('session', 'round_robin', 'hash')
{
	my $session = $node->background_psql('postgres');
	my $other = $node->background_psql('postgres');
	my $options = $route eq 'hash' ? "route 'hash', key 'id'" : "route '$route'";
	my $create = "CREATE FOREIGN TABLE brief (id int, v text) SERVER shards
		OPTIONS (shards '2', $options)";
	my $insert = 'INSERT INTO brief SELECT generate_series(1, 100);
		SELECT count(*) FROM brief WHERE id = 1';
	my $drop = 'SET client_min_messages = warning; DROP FOREIGN TABLE brief CASCADE';
	my $known = q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'shard_fdw table'};
	my $entries = q{SELECT used_bytes FROM pg_backend_memory_contexts
		WHERE name = 'shard_fdw tables'};
	my @loop = (
		sub { $session->query_safe($_) foreach $create, $insert, $drop },
		sub {
			$other->query_safe($create);
			$session->query_safe($insert);
			$other->query_safe($drop);
		},
		sub { $session->query_safe($_) foreach 'BEGIN', $create, $insert, 'ROLLBACK' },
		sub {
			$session->query_safe($_)
			  foreach 'BEGIN', $create, $insert, 'SAVEPOINT s', $drop, $create, $insert,
			  'ROLLBACK TO s', $drop, 'COMMIT';
		});

	foreach my $which (0 .. $#loop)
	{
		$loop[$which]->() foreach 1 .. 5;
		my $before = $session->query_safe($entries);
		$loop[$which]->() foreach 1 .. 60;
		cmp_ok($session->query_safe($known),
			'<=', 2, "tables come and go, $route, case $which: what is known of them goes");
		is($session->query_safe($entries),
			$before, "tables come and go, $route, case $which: so do their entries");
	}
	is($session->query_safe(q{SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()
		AND locktype = 'advisory'}) <= 1, 1, "tables come and go, $route: so do leases");
	$_->quit foreach $session, $other;
}

$node->stop;
done_testing();
