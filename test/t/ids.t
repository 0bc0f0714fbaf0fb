# Ids are given once: whatever becomes of shards, no insert gets an id that
# another has had.  Random steps of DDL, inserts, restores and reading, compared
# with a record of all ids ever given; and what is said of ids that are at risk.
#
# All choices come from the seed.  To repeat a failure, or to look for more:
#   SHARD_IDS_SEED=7 SHARD_IDS_STEPS=500 test/with-cluster -l test/suite test/t/ids.t
# (several seeds: '1 2 3' or '1-100').
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my @seeds = map { /^(\d+)-(\d+)$/ ? ($1 .. $2) : $_ }
  split(' ', $ENV{SHARD_IDS_SEED} // '1-3');
my $steps = $ENV{SHARD_IDS_STEPS} // 150;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = shard_node('ids', conf => "lock_timeout = 10s\n");

#
# Warnings
#

# What is said of a command: its warnings, without details and hints.
sub said
{
	my ($sql, $database) = @_;
	my ($stdout, $stderr);

	$node->psql($database // 'postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return join('; ', $stderr =~ /(?:WARNING|ERROR):  (.*)/g);
}

my $few = 'shards of foreign table "few" can give few ids';
is(said("CREATE FOREIGN TABLE few (id $_->[0] OPTIONS (sequence 'always')) SERVER shards
	OPTIONS ($_->[1]); DROP FOREIGN TABLE few CASCADE"),
	$_->[2],
	"$_->[0], $_->[1]")
  foreach [ 'int', "shards '1'", $few ], [ 'int', "max_shards '214'", '' ],
  [ 'int', "max_shards '215'", $few ],
  [ 'smallint', "max_shards '1'", $few ], [ 'bigint', "shards '1', max_shards '65536'", '' ];
is( said(
		q{CREATE FOREIGN TABLE few (id int) SERVER shards
			OPTIONS (shards '1', max_shards '300')}),
	'',
	'no option "sequence"');
is( said(q{ALTER FOREIGN TABLE few ALTER id OPTIONS (ADD sequence 'by_default')}),
	"$few; shard \"few_0\" of foreign table \"few\" has no sequence for column \"id\"",
	'option "sequence", added later');
is( said(
		q{SELECT shard_fdw.reset_sequences('few');
			ALTER FOREIGN TABLE few ADD v text,
			OPTIONS (ADD batch_size '3')}),
	'',
	'the shard has its sequence: nothing is said from then on');
is(said(q{ALTER TABLE few ALTER id TYPE smallint}), $few, 'a smaller type');

my $lost = 'of foreign table "log" has no sequence for column "id"';
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v text DEFAULT 'v')
	  SERVER shards OPTIONS (shards '2', max_shards '8');
	INSERT INTO log SELECT;
	CREATE TABLE old AS SELECT bigint '1' AS id, 'old'::text AS v;
	CREATE TABLE fresh (v text, id bigint);
	CREATE TABLE counted (id bigserial, v text);
	CREATE SEQUENCE third START 3 INCREMENT 8;
	CREATE TABLE apart (id bigint DEFAULT nextval('third'), v text)});
is(said('ALTER TABLE log_1 ALTER v DROP DEFAULT, ALTER v SET DEFAULT 1'), '', 'another default');
is(said('ALTER TABLE log_1 ALTER id DROP DEFAULT'), "shard \"log_1\" $lost", 'a lost default');
is(said(q{SELECT shard_fdw.reset_sequences('log')}), '', 'a lost default is given back');
is(said('ALTER FOREIGN TABLE log ALTER id DROP DEFAULT'), "shard \"log_0\" $lost", 'lost defaults');
is(said(q{SELECT shard_fdw.reset_sequences('log')}), '', 'lost defaults are given back');
is(said('ALTER TABLE log_1 NO INHERIT log; ALTER TABLE log_1 INHERIT log'),
	'', 'a shard that comes back');
is(said('ALTER TABLE fresh INHERIT log; ALTER TABLE fresh NO INHERIT log'),
	'', 'a table without rows');
is(said('ALTER TABLE apart INHERIT log; ALTER TABLE apart NO INHERIT log'),
	'', 'a table with a slot of its own');
is( said('ALTER TABLE counted INHERIT log; ALTER TABLE counted NO INHERIT log'),
	'shard "counted" of foreign table "log" will get ids that other shards get, too',
	'a table with a serial column');
is(said('ALTER TABLE old INHERIT log'), "shard \"old\" $lost", 'a table with rows');
is(said(q{SELECT shard_fdw.reset_sequences('log')}), '', 'a table with rows gets a sequence');
is( said('ALTER TABLE old NO INHERIT log; ALTER TABLE old INHERIT log'),
	'sequences of foreign table "log" may give ids of shard "old" again',
	'a table with rows and a sequence comes back with any ids');

#
# Random steps
#

my ($seed, $database, $number, @log, @sessions, %open, @tables);

sub pick { return $_[ int(rand(@_)) ]; }

# The sessions, in a database that may be another one.
sub connect_sessions
{
	@sessions = map { $node->background_psql($database, on_error_stop => 0) } 1 .. 2;
	$_->set_query_timer_restart foreach @sessions;
	$_->query_safe('\\set VERBOSITY verbose') foreach @sessions;
	$_->query_safe('SET client_min_messages = error') foreach @sessions;
}

# Run a statement in a session.  Returns its lines of output, or nothing and
# its SQLSTATE if that is one of those that it may have.
sub run
{
	my ($session, $sql, @states) = @_;
	my ($state, $message, $output) = state_of($session, $sql);

	push(@log, "$sql; -- $state $message");
	die "$sql\n$state: $message\n" if $state ne '00000' && !grep { $_ eq $state } @states;
	return $state eq '00000' ? (1, split(/\n/, $output)) : 0;
}

sub run_in_first { return run($sessions[0], @_); }

# Whether a statement has succeeded.
sub done { return (run_in_first(@_))[0]; }

# Put an end to the transaction of the second session.
sub end_transaction
{
	run($sessions[1], pick('COMMIT', 'COMMIT', 'ROLLBACK')) if %open;
	%open = ();
}

sub shards
{
	my ($t) = @_;
	my (undef, @shards) = run_in_first("SELECT shard FROM shard_fdw.list_shards('$t->{name}')");

	return @shards;
}

# Insert rows, and see that their ids are new.
sub insert
{
	my ($t, $into, $session) = @_;
	my $rows = "SELECT g, 'row' FROM generate_series(1, " . pick(1, 2, 5, 20) . ') g';
	# no shards, or none for the key; a lane that the other session has
	my ($done, @ids) = run(
		$session // $sessions[0],
		"INSERT INTO $into (k, v) $rows RETURNING id",
		'55000', '23514', '55P03');

	foreach my $id (@ids)
	{
		die "id $id of $t->{name} is given again\n" if $t->{given}{$id}++;
		$t->{greatest} = $id if $id > $t->{greatest};
	}
	return $done;
}

sub step_insert
{
	my ($t) = @_;
	my @shards = shards($t);
	my $pin = @shards && $t->{name} ne 'keyed' && pick(0, 0, 1);

	run_in_first('SET shard_fdw.shard = ' . int(rand(@shards))) if $pin;
	insert($t, $t->{name});
	run_in_first('RESET shard_fdw.shard') if $pin;
}

sub step_insert_detached
{
	my ($t) = @_;

	insert($t, pick(@{ $t->{detached} })) if @{ $t->{detached} };
}

# The second session has a transaction open, until there is DDL.
sub step_open
{
	my ($t) = @_;

	run($sessions[1], 'BEGIN') if !%open;
	$open{ $t->{name} } = 1;
	# an error ends it
	end_transaction() if !insert($t, $t->{name}, $sessions[1]);
}

sub step_read
{
	my ($t) = @_;
	my $end = pick('COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK');
	my @ids;

	return if !$t->{consumer};
	run_in_first('BEGIN');
	(undef, @ids) = run_in_first(
		"SELECT id FROM shard_fdw.read_batch(NULL::$t->{name}, 'c', " . pick(1, 5, 100) . ')');
	run_in_first($end);
	return if $end eq 'ROLLBACK';
	foreach my $id (@ids)
	{
		die "id $id of $t->{name} is read again\n" if $t->{read}{$id}++;
	}
	return scalar(@ids);
}

sub step_delete
{
	my ($t) = @_;

	end_transaction();
	run_in_first(
		pick(
			"DELETE FROM $t->{name}",
			"DELETE FROM $t->{name} WHERE id % 2 = 0",
			"TRUNCATE $t->{name}"));
}

sub step_create
{
	my ($t) = @_;

	end_transaction();
	run_in_first("SELECT shard_fdw.create_shards('$t->{name}', " . pick(1, 1, 2) . ')',
		'54000', '55000');
}

# One that is rolled back.
sub step_create_in_vain
{
	my ($t) = @_;
	my ($before, @before);

	end_transaction();
	run_in_first('BEGIN');
	# ids of a sequence that is rolled back have been given to nobody
	($before, @before) = run_in_first("SELECT oid FROM pg_class WHERE relname ~ '^$t->{name}_id_'");
	if (done("SELECT shard_fdw.create_shards('$t->{name}', 1)", '54000', '55000'))
	{
		my (undef, @after) =
		  run_in_first("SELECT oid FROM pg_class WHERE relname ~ '^$t->{name}_id_'");

		insert($t, $t->{name}) if @after == @before;
	}
	run_in_first('ROLLBACK');
}

sub step_drop
{
	my ($t) = @_;
	my @shards = shards($t);

	end_transaction();
	run_in_first('DROP TABLE ' . pick(@shards)) if @shards;
}

sub step_detach
{
	my ($t) = @_;
	my @shards = shards($t);
	my $shard = @shards ? pick(@shards) : return;
	my $name = "detached_" . ++$number;

	end_transaction();
	run_in_first("ALTER TABLE $shard NO INHERIT $t->{name}");
	run_in_first("ALTER TABLE $shard RENAME TO $name");
	push(@{ $t->{detached} }, $name);
}

sub step_attach
{
	my ($t) = @_;

	end_transaction();
	run_in_first('ALTER TABLE ' . shift(@{ $t->{detached} }) . " INHERIT $t->{name}")
	  if @{ $t->{detached} };
}

sub step_drop_detached
{
	my ($t) = @_;

	end_transaction();
	run_in_first('DROP TABLE ' . pop(@{ $t->{detached} })) if @{ $t->{detached} } > 1;
}

# A table that comes with ids, which nobody has had.
sub step_attach_old
{
	my ($t) = @_;
	my $name = 'old_' . ++$number;
	my $first = $t->{greatest} + int(rand(20));
	my @shards = shards($t);

	return if @shards > 2 || $t->{name} eq 'keyed';
	end_transaction();
	run_in_first("CREATE TABLE $name AS SELECT bigint '$first' + g AS id, g AS k, 'old'::text AS v
		FROM generate_series(1, 5) g");
	run_in_first("ALTER TABLE $name INHERIT $t->{name}");
	# all slots may be taken
	if (!done("SELECT shard_fdw.reset_sequences('$t->{name}')", '54000'))
	{
		run_in_first("DROP TABLE $name");
		return;
	}
	$t->{given}{ $first + $_ } = 1 foreach 1 .. 5;
	$t->{greatest} = $first + 5;
}

# Ids of the user's.
sub step_load
{
	my ($t) = @_;
	my $first = $t->{greatest} + int(rand(20));

	return if $t->{name} ne 'loose';
	end_transaction();
	run_in_first('BEGIN');
	# no shards; all slots may be taken
	if (!done("INSERT INTO loose SELECT bigint '$first' + g, g, 'mine'
		FROM generate_series(1, 5) g", '55000') ||
		!done("SELECT shard_fdw.reset_sequences('loose')", '54000'))
	{
		run_in_first('ROLLBACK');
		return;
	}
	run_in_first('COMMIT');
	$t->{given}{ $first + $_ } = 1 foreach 1 .. 5;
	$t->{greatest} = $first + 5;
}

sub step_reset
{
	my ($t) = @_;
	my @shards = shards($t);

	end_transaction();
	run_in_first('ALTER TABLE ' . pick(@shards) . ' ALTER id DROP DEFAULT')
	  if @shards && pick(0, 1);
	run_in_first("SELECT shard_fdw.reset_sequences('$t->{name}')", '54000');
}

sub step_reshard
{
	my ($t) = @_;

	return if $t->{name} ne 'keyed' || !shards($t);
	end_transaction();
	run_in_first("SELECT shard_fdw.reshard('keyed', " . pick(1, 2, 3) . ')');
}

# Dump, restore, and go on with the restored database.
sub step_restore
{
	my $from = $database;
	my ($stdout, $stderr);

	return if rand() < 0.7;
	end_transaction();
	$_->quit foreach @sessions;
	$database = "ids_${seed}_" . ++$number;
	push(@log, "-- restore $from as $database");
	system_or_bail('pg_dump', '-f', "$dir/$database", '-d', $node->connstr($from));
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	my $said = said("\\i $dir/$database", $database);
	die "the restore says: $said\n" if $said;
	$node->safe_psql('postgres', "DROP DATABASE $from");
	connect_sessions();
}

my @kinds = (
	[ 12, \&step_insert ],
	[ 6, \&step_insert_detached ],
	[ 5, \&step_open ],
	[ 8, \&step_read ],
	[ 2, \&step_delete ],
	[ 9, \&step_create ],
	[ 2, \&step_create_in_vain ],
	[ 4, \&step_drop ],
	[ 4, \&step_detach ],
	[ 5, \&step_attach ],
	[ 1, \&step_drop_detached ],
	[ 1, \&step_attach_old ],
	[ 1, \&step_load ],
	[ 2, \&step_reset ],
	[ 2, \&step_reshard ],
	[ 1, \&step_restore ]);
my @choices = map { ($_->[1]) x $_->[0] } @kinds;

# In the end all tables come back, and what is there has been read.
sub finish_tables
{
	foreach my $t (@tables)
	{
		my ($same, @ids);

		step_attach($t) while @{ $t->{detached} };
		end_transaction();
		($same, @ids) = run_in_first("SELECT id FROM $t->{name}");
		foreach my $id (@ids)
		{
			die "id $id of $t->{name} is there, and was never given\n" if !$t->{given}{$id};
		}
		($same) = (run_in_first("SELECT count(*) - count(DISTINCT id) FROM $t->{name}"))[1];
		die "$same ids of $t->{name} are there twice\n" if $same;
		next if !$t->{consumer};
		for (my $empty = 0; $empty < 5;)
		{
			my $n = step_read($t);

			$empty = !defined $n ? $empty : $n ? 0 : $empty + 1;
		}
		foreach my $id (@ids)
		{
			die "id $id of $t->{name} has not been read\n" if !$t->{read}{$id};
		}
	}
}

foreach (@seeds)
{
	my $inserted = 0;

	$seed = $_;
	$number = 0;
	$database = "ids_${seed}";
	@log = ();
	%open = ();
	srand($seed);
	@tables = map {
		{
			name => $_,
			given => {},
			read => {},
			detached => [],
			greatest => 0,
			consumer => $_ eq 'lanes'
		}
	} 'lanes', 'loose', 'keyed';
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	setup_shards($node, $database);
	$node->safe_psql($database, q{
		CREATE FOREIGN TABLE lanes (id bigint OPTIONS (sequence 'always'), k int, v text)
		  SERVER shards
		  OPTIONS (shards '2', max_shards '3', commit_order 'true');
		CREATE FOREIGN TABLE loose (id bigint OPTIONS (sequence 'by_default'), k int, v text)
		  SERVER shards
		  OPTIONS (shards '2', max_shards '3');
		CREATE FOREIGN TABLE keyed (id bigint OPTIONS (sequence 'always'), k int, v text)
		  SERVER shards
		  OPTIONS (shards '2', max_shards '3', route 'hash', key 'k');
		SELECT shard_fdw.register_consumer('lanes', 'c', 'id')});
	connect_sessions();
	eval {
		foreach my $step (1 .. $steps)
		{
			my $t = pick(@tables);

			push(@log, "-- step $step");
			pick(@choices)->($t);
		}
		finish_tables();
	};
	is($@, '', "seed $seed: no id is given twice, or read twice, or missed")
	  or diag(join("\n", @log > 60 ? @log[ -60 .. -1 ] : @log));
	$inserted += keys %{ $_->{given} } foreach @tables;
	cmp_ok($inserted, '>', $steps, "seed $seed: $inserted ids were given");
	eval { $_->quit } foreach @sessions;
	$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
}

$node->stop;
done_testing();
