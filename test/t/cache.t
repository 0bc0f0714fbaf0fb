# What a session knows of a table after shards have changed one by one is what
# a new session finds out: random DDL by others, seen by a session that only
# inserts, by one that inserts by the number of a shard, and by one that also
# queries.
use strict;
use warnings;

use Test::More;
use ShardTest;

my $seed = $ENV{SHARD_FDW_SEED} // time;
note("SHARD_FDW_SEED=$seed");
srand($seed);

my $node = shard_node('cache');
$node->safe_psql('postgres', q{
	CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN PERFORM count(*) FROM log; RETURN NEW; END $$;
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'by_default'),
	  at timestamptz NOT NULL DEFAULT now(), v int)
	  SERVER shards OPTIONS (shards '14', max_shards '60', route 'round_robin', time_column 'at',
	    maintenance 'manual');
	CREATE TABLE beside (LIKE log)});

my @inserts = (
	'WITH i AS (INSERT INTO log (v) SELECT generate_series(1, 60)
		RETURNING tableoid::regclass::text AS shard)'
	  . q{ SELECT string_agg(DISTINCT shard, ' ' ORDER BY shard) FROM i});
my @queries = (
	q{SELECT string_agg(format('%s %s %s', ordinal, shard, state), ', ' ORDER BY ordinal)
		FROM shard_fdw.list_shards('log')},
	(map { "EXPLAIN (COSTS OFF) SELECT v FROM log WHERE id = $_" } 1 .. 4, 17, 33),
	(map { "EXPLAIN (COSTS OFF) SELECT v FROM log WHERE at < '2020-01-$_ UTC'" } '02', '05', '20'),
	q{SELECT 'end'});

my @shards = map { "log_$_" } 0 .. 13;
my @detached;
my $number = 0;

sub any { return $shards[ rand @shards ]; }

sub set_trigger
{
	my ($function) = @_;
	my $shard = any();

	return "DROP TRIGGER IF EXISTS t ON $shard;
		CREATE TRIGGER t BEFORE INSERT ON $shard FOR EACH ROW EXECUTE FUNCTION $function";
}

# One step of DDL; undef if this one is not possible now.
my @steps = (
	sub { return 'SELECT shard_fdw.close_shard(' . quoted(any()) . ')'; },
	sub { return 'SELECT shard_fdw.open_shard(' . quoted(any()) . ')'; },
	sub { return 'SELECT shard_fdw.seal(' . quoted(any()) . ')'; },
	sub { return 'SELECT shard_fdw.unseal(' . quoted(any()) . ')'; },
	sub {
		my $i = rand @shards;
		my $old = $shards[$i];
		$shards[$i] = 'log_' . (100 + $number++);
		return "ALTER TABLE $old RENAME TO $shards[$i]";
	},
	sub {
		return if @shards < 5;
		my ($shard) = splice(@shards, rand @shards, 1);
		push(@detached, $shard);
		return "ALTER TABLE $shard NO INHERIT log";
	},
	sub {
		my $shard = pop(@detached) // return;
		push(@shards, $shard);
		return "ALTER TABLE $shard INHERIT log";
	},
	sub {
		return if @shards < 5;
		return 'DROP TABLE ' . splice(@shards, rand @shards, 1);
	},
	sub {
		push(@shards, 'made_' . $number);
		return
			'CREATE TABLE made_'
		  . $number++
		  . " () INHERITS (log); SELECT shard_fdw.reset_sequences('log')";
	},
	sub {
		my $shard = any();
		return "DO \$\$ BEGIN IF (SELECT state FROM shard_fdw.list_shards('log')
			WHERE shard = '$shard'::regclass) = 'closed' THEN"
		  . " ALTER TABLE $shard DROP CONSTRAINT IF EXISTS shard_range; DELETE FROM $shard;"
		  . " ALTER TABLE $shard ADD CONSTRAINT shard_range CHECK (at IS NOT NULL
		    AND at >= '2020-01-0" . (1 + int rand 5) . " UTC'"
		  . " AND at <= '2020-01-0" . (5 + int rand 4) . " UTC'); END IF; END \$\$";
	},
	sub { return 'VACUUM ' . any(); },
	sub { return 'VACUUM ' . join(', ', @shards); },
	sub { return 'ALTER TABLE ' . any() . ' SET (fillfactor = ' . (50 + int rand 50) . ')'; },
	sub { return set_trigger('stamp()'); },
	sub { return set_trigger('counts()'); },
	sub { return q{ALTER FUNCTION stamp() COST } . (1 + int rand 100); },
	sub {
		return
		  q{ALTER FOREIGN TABLE log OPTIONS (SET route '}
		  . (rand() < 0.5 ? 'session' : 'round_robin') . q{')};
	},
	sub {
		return
		  rand() < 0.5
		  ? q{ALTER FOREIGN TABLE log OPTIONS (DROP time_column)}
		  : q{ALTER FOREIGN TABLE log OPTIONS (ADD time_column 'at')};
	},
	sub {
		return
		  q{ALTER FOREIGN TABLE log ALTER id OPTIONS (SET sequence '}
		  . (rand() < 0.5 ? 'always' : 'by_default') . q{')};
	},
	sub {
		return
			'BEGIN; '
		  . 'ALTER TABLE '
		  . any()
		  . " NO INHERIT log; SELECT shard_fdw.list_shards('log'); ROLLBACK";
	});

sub quoted { return "'$_[0]'"; }

my $inserter = session($node);
my $reader = session($node);
my $pinned = session($node);
my ($different, $refused) = (0, 0);
foreach my $step (1 .. ($ENV{SHARD_FDW_STEPS} // 30))
{
	my @commands;
	# Several at a time, too: more than a session remembers one by one.
	foreach (1 .. (rand() < 0.1 ? 15 : 1))
	{
		my $command = $steps[ rand @steps ]->();
		push(@commands, $command) if defined $command;
	}
	foreach my $command (@commands)
	{
		my ($status) = $node->psql('postgres', "SET client_min_messages = error; $command");
		$refused += $status != 0;
	}
	# Somebody has to take the rows.
	$node->safe_psql('postgres', "SET client_min_messages = error;
		SELECT shard_fdw.unseal('$shards[0]'), shard_fdw.open_shard('$shards[0]')");

	# On route "session", who comes later gets another shard.
	my @possible = $node->safe_psql('postgres',
		q{SELECT 'route=session' = ANY (ftoptions) FROM pg_foreign_table}) eq 't' ? () : @inserts;
	foreach ([ $inserter, @possible ], [ $reader, (rand() < 0.5 ? @possible : ()), @queries ])
	{
		my ($session, @sql) = @$_;
		next unless @sql;
		my $sql = join(';', @sql);
		my $found = (state_of($session, $sql))[2];
		my $expected = $node->safe_psql('postgres', $sql);
		next if $found eq $expected;
		diag("step $step: @commands\n$sql\nthe session: $found\na new one:   $expected");
		$different++;
	}

	# Numbers count closed shards, which a session that only inserts passes by.
	my $number = int(rand(@shards + 1));
	my $sql = "SET shard_fdw.shard = $number; WITH i AS (INSERT INTO log (v) VALUES (1) RETURNING tableoid::regclass) SELECT * FROM i";
	my $new = session($node);
	my ($found, $expected) = map { join(' ', (state_of($_, $sql))[0 .. 3]) =~ s{psql:<stdin>:\d+: }{}r } $pinned, $new;
	$new->quit;
	if ($found ne $expected)
	{
		diag("step $step: @commands\n$sql\nthe session: $found\na new one:   $expected");
		$different++;
	}
	last if $different > 3;
}
is($different, 0, 'sessions know what new ones find out');
cmp_ok($refused, '<', 40, 'most steps are possible');
$_->quit foreach $inserter, $reader, $pinned;

# A session that only inserts does not look at closed shards, however many.
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE old (at timestamptz NOT NULL) SERVER shards
	  OPTIONS (shards '100', time_column 'at', maintenance 'manual');
	SELECT shard_fdw.close_shard(shard) FROM shard_fdw.list_shards('old') WHERE ordinal < 98});
my $memory = q{SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name = 'shard_fdw table'};
my ($insert, $select) = map { $node->safe_psql('postgres', "$_; $memory") } 'INSERT INTO old VALUES (now())', 'DELETE FROM old';
cmp_ok(5 * $insert, '<', $select, 'closed shards take no room in a session that only inserts');
like($node->safe_psql('postgres', q{
		INSERT INTO old VALUES (now());
		SELECT shard_fdw.last_shard();
		SELECT shard_fdw.close_shard('old_98'), shard_fdw.close_shard('old_99'), shard_fdw.open_shard('old_5');
		INSERT INTO old VALUES (now());
		SELECT shard_fdw.last_shard()}),
	qr/^old_9[89]\n\|\|\nold_5$/, '... until one of them is open again');

$node->stop;
done_testing();
