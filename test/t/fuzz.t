# Random DDL and DML, in two sessions by turns: each logical table has a plain
# twin that gets the same statements.  After every step both have the same
# rows; statements succeed or fail alike, and queries have the same results.
#
# What a statement cannot share with a plain table is made good for on the
# twin: it loses the rows of shards that are detached or dropped.  A statement
# that a logical table may refuse (a sealed shard, say) is then not run on the
# twin.
#
# All choices come from the seed and the number of the step.  To repeat a
# failure, or to look for more:
#   SHARD_FUZZ_SEED=7 SHARD_FUZZ_STEPS=500 test/with-cluster -l test/suite test/t/fuzz.t
# (several seeds: '1 2 3' or '1-100').  What was run until a failure is in
# results/fuzz_SEED.sql.
use strict;
use warnings;

use ShardFuzz;
use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my @seeds = map { /^(\d+)-(\d+)$/ ? ($1 .. $2) : $_ }
  split(' ', $ENV{SHARD_FUZZ_SEED} // '1-8');
my $steps = $ENV{SHARD_FUZZ_STEPS} // 150;

my $node = shard_node('fuzz', conf => qq{
	session_preload_libraries = 'shard_fdw'
	statement_timeout = 60s
	lock_timeout = 20s
	max_worker_processes = 16
	max_parallel_workers = 16
});
setup_fuzz($node);
my $parallel_mode =
  $node->safe_psql('postgres',
	"SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");

# The world of one seed; ShardFuzz.pm has the rest of it.
my ($seed, $step, $isolation);
my @sessions;

#
# Pairs
#

# An index's definition, for another table.
sub index_for
{
	my ($definition, $table) = @_;

	return $definition =~ s/INDEX \S+ ON \S+ USING/INDEX ON $table USING/r;
}

# A new logical table and its twin.
sub create_pair
{
	my ($route) = @_;
	my %p = (route => $route, log => new_name('log'), detached => [], prefix => 'sh');
	my ($option, $unique, $template) = ('', '', chance(0.7));
	my (@columns, @model, @checks);
	my $shards = 1 + int(rand(4));

	$p{twin} = $p{log} =~ s/log/twin/r;
	$p{key} = [];
	$p{sequence} = pick(undef, 'always', 'by_default') if chance(0.5);
	@columns = ("rid bigint NOT NULL");
	push(@columns, pick('k int', 'k int', 'k bigint', 'k numeric', 'k text', 'k date'));
	push(@columns, 's text', 'a int DEFAULT 5', "b text DEFAULT 'none'",
		pick('c numeric', 'c numeric(8,2)', 'c bigint'), 'd date');
	push(@columns, pick(
			'g int GENERATED ALWAYS AS (coalesce(a, 0) + 1) STORED',
			"g text GENERATED ALWAYS AS (coalesce(b, '') || 'x') STORED"))
	  if chance(0.5);
	@columns = shuffled(@columns);
	if ($route eq 'hash')
	{
		$p{key} = pick([ 'k' ], [ 'k' ], [ 'k', 's' ]);
		$p{unique} = chance(0.6);
		$option = ", route 'hash', key '" . join(', ', @{ $p{key} }) . "'";
		$p{upsert} = join(', ', @{ $p{key} });
		$shards = pick(2, 3, 4, 5);
	}
	elsif ($route eq 'round_robin')
	{
		$option = ", route 'round_robin'";
	}
	$template = 1 if $p{unique};
	$p{commit_order} = $p{sequence} && $route ne 'round_robin' && chance(0.3);
	$option .= ", commit_order 'true'" if $p{commit_order};
	$option .= ", batch_size '" . pick(1, 2, 7, 100) . "'" if chance(0.6);

	@model = grep { !/ GENERATED / || chance(0.5) } @columns;
	@checks = (
		', CONSTRAINT a_check CHECK (a <> 666)',
		chance(0.5) ? ", CONSTRAINT c_check CHECK (c < 600 OR a > 3)" : ());
	if ($template)
	{
		# what only the shards have
		@model =
		  map { /^d / ? "$_ DEFAULT '2000-01-01'" : /^a / && chance(0.3) ? "$_ NOT NULL" : $_ }
		  @model;
		query("CREATE TABLE $p{log}_model (" . join(', ', @model) . join('', @checks) . ')');
		query("ALTER TABLE $p{log}_model ADD PRIMARY KEY (rid)") if chance(0.4);
		query("ALTER TABLE $p{log}_model ADD UNIQUE (" . join(', ', @{ $p{key} }) . ')')
		  if $p{unique};
		foreach my $column (some('k', 'a', 'k, a', 'lower(b)', 'd'))
		{
			query("CREATE INDEX ON $p{log}_model ($column)");
		}
		$option .= ", template '$p{log}_model'";
	}
	query(  "CREATE TABLE $p{twin} ("
		  . join(', ', @columns)
		  . join('', $template ? @checks : ())
		  . ')');
	if ($template)
	{
		query("ALTER TABLE $p{twin} ALTER a SET NOT NULL") if grep { /^a .*NOT NULL/ } @model;
		foreach my $index (query("SELECT pg_get_indexdef(indexrelid) FROM pg_index
			WHERE indrelid = '$p{log}_model'::regclass"))
		{
			query(index_for($index, $p{twin}));
		}
	}
	query("CREATE FOREIGN TABLE $p{log} ("
		  . join(', ', @columns, $p{sequence} ? "sid bigint OPTIONS (sequence '$p{sequence}')" : ())
		  . ") SERVER shards OPTIONS (shards '$shards'$option)");
	return \%p;
}

#
# What a step can do
#

sub step_insert
{
	my ($p) = @_;

	both($p, insert_statement($p));
}

sub step_upsert
{
	my ($p) = @_;

	if ($p->{unique})
	{
		both($p, upsert_statement($p));
	}
	elsif ($p->{route} ne 'hash')
	{
		# a row in another shard would not be seen
		die "ON CONFLICT works on $p->{log}\n"
		  if may_fail(for_table(upsert_statement({ %$p, upsert => 'rid' }), 'log', $p), '0A000');
	}
}

sub step_update
{
	my ($p) = @_;
	my $sql = update_statement($p);

	both($p, $sql) if $sql;
}

sub step_delete
{
	my ($p) = @_;

	both($p, delete_statement($p));
}

sub step_copy
{
	my ($p) = @_;

	both($p, copy_file($p));
}

sub step_many
{
	my ($p) = @_;

	both(
		$p,
		insert_from($p,
				'(SELECT i.*, n FROM {t} i, generate_series(1, '
			  . pick(5, 20, 60)
			  . ") n WHERE rid % 5 = 0 ORDER BY rid LIMIT 1500)") =~
		  s/ORDER BY q.rid\)/ORDER BY q.rid, q.n)/gr);
	both($p, 'DELETE FROM {t} WHERE rid % 7 <> ' . int(rand(7)));
}

sub step_select
{
	my ($p) = @_;
	my $other = pick(@pairs);

	foreach my $i (1 .. 4)
	{
		my ($sql, $ordered) = select_statement($p, $other);

		both($p, $sql, other => $other, ordered => $ordered);
	}
}

# What only logical tables have.
sub step_look
{
	my ($p) = @_;
	my @shards = shards($p);
	my ($only, $parts, $all) =
	  query("SELECT count(*) FROM ONLY $p->{log};"
		  . ' SELECT '
		  . (join(' + ', map { "(SELECT count(*) FROM $_->{name})" } @shards) || 0) . ';'
		  . " SELECT count(*) FROM $p->{log}");

	die "$p->{log}: $only rows of its own\n" if $only != 0;
	die "$p->{log}: $all rows, $parts in its shards\n" if $all != $parts;
	query('SELECT * FROM shard_fdw.shards; SELECT * FROM shard_fdw.leases;'
		  . " SELECT * FROM shard_fdw.sequences WHERE sequence::text ~ '^$p->{log}'");
	if ($p->{sequence})
	{
		my $id = "(SELECT max(sid) FROM $p->{log} x WHERE "
		  . for_table(condition($p, 'x', 0), 'log', $p) . ')';
		my ($literal) = query("SELECT coalesce($id, -1)");

		foreach my $id ($id, $literal)
		{
			my ($same) = query(
					"SELECT (SELECT array_agg(rid ORDER BY rid) FROM $p->{log} WHERE sid = $id)"
				  . " IS NOT DISTINCT FROM (SELECT array_agg(rid ORDER BY rid) FROM $p->{log}
				    WHERE sid + 0 = $id)");

			die "$p->{log}: another row with sid = $id\n" if $same ne 't';
		}
	}
	foreach my $shard (@shards ? pick(@shards) : ())
	{
		my ($same) = query("SELECT (SELECT count(*) FROM $p->{log}
			WHERE tableoid = '$shard->{name}'::regclass)"
			  . " = (SELECT count(*) FROM ONLY $shard->{name})");

		die "$p->{log}: tableoid does not find the rows of $shard->{name}\n" if $same ne 't';
	}
}

sub step_truncate
{
	my ($p) = @_;

	both(
		$p,
		pick('TRUNCATE {t}', 'TRUNCATE {t} RESTART IDENTITY', 'TRUNCATE {t}, {u}'),
		other => pick(@pairs));
	$_->{changed} = 1 foreach @pairs;
	may_fail("TRUNCATE ONLY $p->{log}");
}

sub step_dequeue
{
	my ($p) = @_;

	$p->{changed} = 1;
	may_fail("DELETE FROM $p->{twin} WHERE rid IN (SELECT rid
		FROM shard_fdw.dequeue(NULL::$p->{log}, "
		  . pick(1, 5) . pick('', ", 'rid'") . '))',
		(grep { $_->{parent} || $_->{kind} ne 'r' } shards($p)) ? '0A000' : ());
}

# Shards.

sub step_create_shards
{
	my ($p) = @_;
	my $n = 1 + int(rand(3));
	my $model = chance(0.2) || !grep { $_->{kind} eq 'r' } shards($p);

	return if shards($p) > 12;
	# without one to copy the shards would lack what only the shards had
	$model = $model ? ", '$p->{twin}'" : '';
	# a hash table has to have a place for them
	may_fail("SELECT * FROM shard_fdw.create_shards('$p->{log}', $n$model)",
		$p->{route} eq 'hash' ? '55000' : ());
}

sub step_seal
{
	my ($p) = @_;
	my @shards = shards($p);

	return if !@shards;
	may_fail("SELECT shard_fdw.seal('" . pick(@shards)->{name} . "')");
}

sub step_unseal
{
	my ($p) = @_;

	foreach my $shard (grep { !$_->{open} } shards($p))
	{
		query("SELECT shard_fdw.unseal('$shard->{name}')");
	}
}

# The statement that takes the rows of a table from the twin, or gives it them.
sub lose { return "DELETE FROM $_[0]{twin} WHERE rid IN (SELECT rid FROM $_[1])"; }

sub gain
{
	my ($p, $table) = @_;
	my $list = names(writable($p));

	return "INSERT INTO $p->{twin} ($list) SELECT $list FROM $table";
}

sub step_drop_shard
{
	my ($p) = @_;
	my @shards = shards($p);
	my $shard = @shards ? pick(@shards) : return;

	$p->{changed} = 1;
	all_or_none(
		[
			lose($p, $shard->{name}),
			'DROP '
			  . ($shard->{kind} eq 'f' ? 'FOREIGN ' : '')
			  . "TABLE $shard->{name}"
			  . pick('', ' CASCADE')
		],
		$shard->{parent} ? '2BP01' : ());
}

sub step_detach
{
	my ($p) = @_;
	my @shards = shards($p);
	my $shard = @shards ? pick(@shards) : return;
	my $name = new_name('detached');
	my $kind = $shard->{kind} eq 'f' ? 'FOREIGN ' : '';

	$p->{changed} = 1;
	if (chance(0.2))
	{
		# away and back again
		all_or_none([ "ALTER TABLE $shard->{name} NO INHERIT $p->{log}",
				"ALTER TABLE $shard->{name} INHERIT $p->{log}" ]);
		return;
	}
	push(
		@{ $p->{detached} },
		{
			name => $name,
			kind => $kind,
			modulus => $shard->{modulus},
			remainder => $shard->{remainder}
		})
	  if all_or_none(
		[
			lose($p, $shard->{name}),
			"ALTER ${kind}TABLE $shard->{name} NO INHERIT $p->{log}",
			"ALTER ${kind}TABLE $shard->{name} RENAME TO $name"
		]);
}

sub step_reattach
{
	my ($p) = @_;
	my $table = shift @{ $p->{detached} } // return;

	# its ids may have been given to others since, or its place
	return if $p->{sequence};
	return
	  if $p->{unique}
	  && !grep { $_->[0] == $table->{modulus} && $_->[1] == $table->{remainder} }
	  missing_places($p);
	$p->{changed} = 1;
	# it may be that it does not fit any more
	all_or_none(
		[ gain($p, $table->{name}), "ALTER $table->{kind}TABLE $table->{name} INHERIT $p->{log}" ],
		qw(42703 42804 23505 23514 23502 22001 22003 42601 428C9))
	  ? settle_sequence($p)
	  : query("DROP $table->{kind}TABLE $table->{name} CASCADE");
}

# A table that was attached has no sequence, or one that is behind.
sub settle_sequence
{
	my ($p) = @_;

	query("SELECT * FROM shard_fdw.reset_sequences('$p->{log}')") if $p->{sequence};
}

# A table of another make, with rows.
sub step_attach
{
	my ($p) = @_;
	my $name = new_name("$p->{prefix}_$p->{log}_");
	my @missing = missing_places($p);
	my $place = @missing ? pick(@missing) : undef;
	my @columns = map {
		"$_->{name} $_->{type}" . ($_->{notnull} ? ' NOT NULL' : '')
		  . ($_->{generated} ? " GENERATED ALWAYS AS ($_->{default}) STORED"
			: defined $_->{default} && chance(0.7) ? " DEFAULT $_->{default}" : '')
	} columns($p);
	my @writable = writable($p);
	my $values;
	my @statements;

	return if shards($p) > 12 || $p->{unique} && !$place;
	push(@columns, 'sid bigint') if $p->{sequence};
	push(@columns, "extra text DEFAULT 'extra'") if chance(0.3);
	push(@columns, 'gone int', 'gone_too text') if chance(0.5);
	@columns = shuffled(@columns) if chance(0.8);
	push(@statements, "CREATE TABLE $name (" . join(', ', @columns) . ')');
	push(@statements, map { "ALTER TABLE $name DROP COLUMN $_" } 'gone', 'gone_too')
	  if grep { /^gone/ } @columns;
	push(@statements,
		map { "ALTER TABLE $name ADD CONSTRAINT $_->[0] $_->[1]" } @{ info($p)->{checks} });
	push(@statements, map { index_for($_->[1], $name) } @{ info($p)->{indexes} });
	if (chance(0.8))
	{
		my $where =
		  $place ? 'WHERE shard_fdw.in_hash(' . join(', ', @$place, @{ $p->{key} }) . ')' : '';

		$values = row_values($p, \@writable, 30) =~ s/DEFAULT/NULL/gr;
		push(@statements, "INSERT INTO $name (" . names(@writable) . ') SELECT * FROM ('
			  . 'SELECT ' . join(', ', map { "$_->{name}::$_->{type}" } @writable)
			  . " FROM (VALUES $values) v (" . names(@writable) . ")) w $where");
		push(@statements, "UPDATE $name SET sid = 5000000000 + rid") if $p->{sequence};
	}
	push(@statements, "ALTER TABLE $name ADD CONSTRAINT shard_hash CHECK (shard_fdw.in_hash("
		  . join(', ', @$place, @{ $p->{key} }) . '))')
	  if $place;
	push(@statements, gain($p, $name), "ALTER TABLE $name INHERIT $p->{log}");
	$p->{changed} = 1;
	# the values may be bad ones
	settle_sequence($p) if all_or_none(\@statements, '23505', '23514', '23502', '22003');
}

# A logical table as a shard.
sub step_nest
{
	my ($p) = @_;
	my $name = new_name("$p->{prefix}_$p->{log}_");
	my $checks = join('', map { ", CONSTRAINT $_->[0] $_->[1]" } @{ info($p)->{checks} });
	my @columns = map {
		"$_->{name} $_->{type}" . ($_->{notnull} ? ' NOT NULL' : '')
		  . ($_->{generated} ? " GENERATED ALWAYS AS ($_->{default}) STORED" : '')
	} shuffled(columns($p));

	return if $p->{route} eq 'hash' || $p->{sequence} || shards($p) > 12;
	all_or_none(
		[
			"CREATE FOREIGN TABLE $name ("
			  . join(', ', @columns)
			  . "$checks) SERVER shards OPTIONS (shards '2', route '"
			  . pick('session', 'round_robin') . "')",
			"ALTER FOREIGN TABLE $name INHERIT $p->{log}" ]);
}

# A child of a shard, with some rows.
sub step_child
{
	my ($p) = @_;
	my @shards = grep { $_->{open} && $_->{kind} eq 'r' } shards($p);
	my $shard = @shards ? pick(@shards) : return;
	my $name = new_name("$p->{log}_child");
	my @writable = writable($p);
	my $where =
	  !defined $shard->{modulus}
	  ? ''
	  : "WHERE shard_fdw.in_hash($shard->{modulus}, $shard->{remainder}, "
	  . join(', ', @{ $p->{key} }) . ')';
	my $values;

	return if $p->{unique} || $p->{sequence};
	$values = row_values($p, \@writable, 10) =~ s/DEFAULT/NULL/gr;
	$p->{changed} = 1;
	all_or_none([ "CREATE TABLE $name () INHERITS ($shard->{name})",
			"INSERT INTO $name (" . names(@writable) . ') SELECT * FROM ('
			  . 'SELECT ' . join(', ', map { "$_->{name}::$_->{type}" } @writable)
			  . " FROM (VALUES $values) v (" . names(@writable) . ")) w $where",
			gain($p, $name) ], '23505', '23514', '23502', '22003');
}

sub step_trigger
{
	my ($p) = @_;
	my @shards = grep { $_->{kind} eq 'r' } shards($p);

	return if !@shards;
	query(  'CREATE TRIGGER '
		  . new_name('trigger')
		  . pick(' BEFORE INSERT OR UPDATE', ' AFTER INSERT', ' AFTER INSERT OR DELETE')
		  . ' ON '
		  . pick(@shards)->{name}
		  . ' FOR EACH ROW EXECUTE FUNCTION '
		  . pick('nothing()', 'nothing_to_see()', 'nothing_to_see()'));
}

sub step_reshard
{
	my ($p) = @_;
	my $done;

	return if $p->{route} ne 'hash';
	# 55000: a sealed shard, one with more columns ...; 0A000: one with children
	may_fail("SELECT shard_fdw.reshard('$p->{log}', " . (1 + int(rand(6))) . ')',
		'55000', '0A000', $isolation ? '25001' : ());
}

sub step_rename
{
	my ($p) = @_;
	my @shards = shards($p);
	my $dice = int(rand(3));

	if ($dice == 0 && @shards)
	{
		my $shard = pick(@shards);

		query("ALTER TABLE $shard->{name} RENAME TO " . new_name("$p->{log}_"));
	}
	elsif ($dice == 1)
	{
		foreach my $which ('log', 'twin')
		{
			my $name = new_name($which);

			query("ALTER TABLE $p->{$which} RENAME TO $name");
			$p->{$which} = $name;
		}
	}
	else
	{
		my $column = pick(grep { $_->{name} ne 'rid' && $_->{name} ne 'k' } columns($p));
		my $name = new_name('c');

		both($p, "ALTER TABLE {t} RENAME COLUMN $column->{name} TO $name") || return;
		if (is_key($p, $column))
		{
			$p->{key} = [ map { $_ eq $column->{name} ? $name : $_ } @{ $p->{key} } ];
			$p->{upsert} = join(', ', @{ $p->{key} });
			query("ALTER FOREIGN TABLE $p->{log} OPTIONS (SET key '$p->{upsert}')");
		}
	}
}

# Definitions.

# Shards may have a constraint of their own, too.
sub on_shards
{
	my ($p, $command) = @_;

	die "$command fails on a shard of $p->{log}\n"
	  if grep { /\x1ff\x1f/ }
	  query("SELECT * FROM shard_fdw.run_command_on_shards('$p->{log}', \$\$$command\$\$)");
}

sub step_alter
{
	my ($p) = @_;
	my @free = free_columns($p);
	my $column = @free ? pick(@free) : return;
	my $name = $column->{name};
	my $dice = int(rand(11));

	if ($dice <= 1)
	{
		my $type = pick('int', 'bigint', 'text', 'date', 'numeric', 'boolean');
		my $new = { name => new_name('c'), type => $type, notnull => 1 };

		return if columns($p) > 14;
		both($p, "ALTER TABLE {t} ADD COLUMN $new->{name} $type"
			  . pick('', " DEFAULT " . value($new), " NOT NULL DEFAULT " . value($new),
				", ADD CONSTRAINT $new->{name}_check CHECK ($new->{name} <> " . value($new) . ')'));
	}
	elsif ($dice == 2 && @free > 2 && $name ne 'k')
	{
		# a shard keeps the column as its own, and must not insist on it
		on_shards($p, "ALTER TABLE %s ALTER $name DROP NOT NULL")
		  if both($p, "ALTER TABLE {t} ALTER $name DROP NOT NULL");
		both($p, "ALTER TABLE {t} DROP COLUMN $name");
	}
	elsif ($dice == 3)
	{
		my $type = family($column->{type}) eq 'int' ? pick('bigint', 'numeric', 'text') : 'text';

		both($p, "ALTER TABLE {t} ALTER $name TYPE $type");
	}
	elsif ($dice == 4)
	{
		both($p, "ALTER TABLE {t} ALTER $name SET NOT NULL");
	}
	elsif ($dice == 5)
	{
		on_shards($p, "ALTER TABLE %s ALTER $name DROP NOT NULL")
		  if both($p, "ALTER TABLE {t} ALTER $name DROP NOT NULL");
	}
	elsif ($dice == 6)
	{
		both($p,
			"ALTER TABLE {t} ALTER $name " . pick('SET DEFAULT ' . value($column), 'DROP DEFAULT'));
	}
	elsif ($dice == 7)
	{
		both(
			$p,
			"ALTER TABLE {t} ADD CONSTRAINT "
			  . new_name('check')
			  . ' CHECK ('
			  . pick(
				condition({ %$p, key => [] }, '{t}', 0) =~ s/\{t\}\.//gr =~ s/\(SELECT (.*)\)/$1/r,
				"$name IS DISTINCT FROM " . value($column))
			  . ')') if @{ info($p)->{checks} } < 5;
	}
	elsif ($dice == 8 && @{ info($p)->{checks} })
	{
		my $check = pick(@{ info($p)->{checks} })->[0];

		may_fail("ALTER TABLE $p->{log} DROP CONSTRAINT IF EXISTS $check");
		on_shards($p, "ALTER TABLE %s DROP CONSTRAINT IF EXISTS $check");
		query("ALTER TABLE $p->{twin} DROP CONSTRAINT $check");
	}
	elsif ($dice == 9)
	{
		on_shards($p, "CREATE INDEX ON %s ($name)") if !grep { $_->{kind} ne 'r' } shards($p);
		query("CREATE INDEX ON $p->{twin} ($name)");
	}
	else
	{
		query("ALTER FOREIGN TABLE $p->{log} OPTIONS (DROP batch_size)")
		  if query("SELECT 1 FROM pg_foreign_table WHERE ftrelid = '$p->{log}'::regclass
		    AND ftoptions::text ~ 'batch_size'");
		query(  "ALTER FOREIGN TABLE $p->{log} OPTIONS (ADD batch_size '"
			  . pick(1, 3, 50, 1000)
			  . "')");
	}
}

# The key's type decides its hash, too.
sub step_alter_key
{
	my ($p) = @_;
	my $key = first_key($p) // return;

	return if family($key->{type}) ne 'int';
	both(
		$p,
		"ALTER TABLE {t} ALTER $key->{name} TYPE " . pick('bigint', 'int'),
		codes => [ '23514', '0A000', '42P16' ]);
}

sub step_maintain
{
	my ($p) = @_;

	query("ANALYZE $p->{log}; ANALYZE $p->{twin}");
	return if in_transaction();
	foreach my $command (query("SELECT shard_fdw.format_on_shards('$p->{log}', '"
			  . pick('VACUUM %s', 'VACUUM (ANALYZE, FREEZE) %s', 'REINDEX TABLE %s') . "')"))
	{
		query($command) if !grep { $_->{kind} ne 'r' } shards($p);
	}
}

sub step_replace
{
	my ($p) = @_;

	return if in_transaction();
	query("DROP FOREIGN TABLE $p->{log} CASCADE");
	query("DROP TABLE $p->{twin}");
	%$p = %{ create_pair($p->{route}) };
	fill($p);
}

# Some rows to begin with.
sub fill
{
	my ($p) = @_;

	foreach my $i (1 .. 3)
	{
		my @columns = writable($p);

		both($p,
			'INSERT INTO {t} (' . names(@columns) . ') VALUES ' . row_values($p, \@columns, 20));
	}
}

# Prepared statements are kept, whatever happens to the tables.
sub step_prepare
{
	my ($p) = @_;
	my $other = pick(@pairs);
	my $name = new_name('ps');
	my ($k) = grep { $_->{name} eq ($p->{key}[0] // 'k') } columns($p);
	my @free = grep { $_->{name} ne $k->{name} } free_columns($p);
	my $set = @free ? pick(@free) : return;
	my $list = column_list($p);
	my $types = "($k->{type}, bigint, $set->{type})";
	my $sql = pick(
		"SELECT $list FROM {t} WHERE $k->{name} = \$1 AND \$2 > 0 AND \$3 IS NULL IS NOT NULL",
		"SELECT $list FROM {t} WHERE $k->{name} IN (\$1, \$1) OR rid = \$2 AND \$3 IS NULL",
		"SELECT count(*), max($set->{name}::text) FROM {t} WHERE $k->{name} > \$1 AND rid > \$2
			AND (\$3 IS NULL OR true)",
		"SELECT x.rid, y.rid FROM {t} x JOIN {t} y USING ($k->{name}) WHERE x.$k->{name} = \$1
			AND y.rid > \$2 AND x.$set->{name} = \$3",
		"SELECT x.rid, y.rid FROM {t} x LEFT JOIN {u} y USING (rid) WHERE x.$k->{name} = \$1
			AND (x.rid > \$2 OR x.$set->{name} = \$3)",
		"UPDATE {t} SET $set->{name} = \$3 WHERE $k->{name} = \$1 AND rid > \$2 RETURNING rid",
		"UPDATE {t} SET $set->{name} = \$3 WHERE rid = \$2 AND \$1 IS NOT NULL RETURNING $list",
		"DELETE FROM {t} WHERE $k->{name} = \$1 AND rid < \$2 AND \$3 IS NULL",
		"INSERT INTO {t} ($k->{name}, rid, $set->{name}) VALUES (\$1, \$2, \$3)",
		"INSERT INTO {t} ($k->{name}, rid, $set->{name}) VALUES (\$1, \$2, \$3)
			RETURNING rid, $set->{name}",
		"INSERT INTO {t} ($k->{name}, rid, $set->{name}) SELECT \$1, \$2, \$3
			FROM generate_series(1, 1)",
		$p->{unique}
		? ("INSERT INTO {t} ($k->{name}, rid, $set->{name}) VALUES (\$1, \$2, \$3)"
			  . " ON CONFLICT ($p->{upsert}) DO "
			  . pick('NOTHING', "UPDATE SET $set->{name} = EXCLUDED.$set->{name}")) x 3
		: ());

	foreach my $which ('log', 'twin')
	{
		query("PREPARE ${name}_$which $types AS " . for_table($sql, $which, $p, $other));
	}
	push(@{ $session->{prepared} },
		{ name => $name, types => [ map { { %$_ } } $k, $set ], inserts => $sql =~ /INSERT/ });
	shift @{ $session->{prepared} } if @{ $session->{prepared} } > 20;
	step_execute($p);
}

sub step_execute
{
	foreach my $i (1 .. 3)
	{
		my $ps = @{ $session->{prepared} } ? pick(@{ $session->{prepared} }) : return;

		# often enough for a generic plan
		foreach my $j (1 .. pick(1, 3, 7))
		{
			my ($k, $set) = @{ $ps->{types} };
			my $rid = $ps->{inserts} ? new_rids(1) : int(rand($next_rid));

			execute($ps, join(', ', value($k), $rid, value($set)));
		}
	}
}

# It is of any of the pairs, which may look quite different by now.
sub execute
{
	my ($ps, $values) = @_;
	my $result = run_sql($session, "EXECUTE $ps->{name}_log ($values)");
	my $wanted;

	$_->{changed} = 1 foreach @pairs;
	return if $result->{code} ne '00000' && grep { is_explained($_, $result) } @pairs;
	return if $result->{code} eq '55000' && $result->{message} =~ /^cannot use ON CONFLICT/;
	$wanted = run_sql($session, "EXECUTE $ps->{name}_twin ($values)");
	die
	  "EXECUTE $ps->{name}_log ($values)\n$result->{code} $result->{message}\n"
	  . "on the twin: $wanted->{code} $wanted->{message}\n"
	  if $result->{code} ne $wanted->{code}
	  && ($result->{code} !~ /^2[23]/ || $wanted->{code} !~ /^2[23]/);
	die join("\n",
		"EXECUTE $ps->{name}_log ($values)",
		@{ $result->{lines} },
		'on the twin:', @{ $wanted->{lines} })
	  . "\n"
	  if join("\n", sort @{ $result->{lines} }) ne join("\n", sort @{ $wanted->{lines} });
}

# A cursor that is open while the table changes.
sub step_cursor
{
	my ($p) = @_;
	my $hold = !in_transaction() && chance(0.3) ? ' WITH HOLD' : '';
	my $list = column_list($p);
	my $where = condition($p, 'x');
	my $nested = in_transaction();

	query($nested ? 'SAVEPOINT cursor_step' : 'BEGIN');
	foreach my $which ('log', 'twin')
	{
		query("DECLARE cur_$which " . pick('', 'NO SCROLL') . " CURSOR$hold FOR "
			  . for_table("SELECT $list FROM {t} x WHERE $where ORDER BY rid", $which, $p));
	}
	both({ %$p, log => 'cur_log', twin => 'cur_twin' }, 'FETCH 3 FROM {t}', ordered => 1);
	both($p, insert_statement($p));
	both($p, delete_statement($p));
	both({ %$p, log => 'cur_log', twin => 'cur_twin' }, 'FETCH 2 FROM {t}', ordered => 1);
	if ($hold)
	{
		query('COMMIT');
		both($p, update_statement($p) || 'SELECT 1');
	}
	else
	{
		step_create_shards($p) if $p->{route} ne 'hash' && chance(0.3);
	}
	both({ %$p, log => 'cur_log', twin => 'cur_twin' }, 'FETCH ALL FROM {t}', ordered => 1);
	query("CLOSE cur_log; CLOSE cur_twin");
	if (!$hold)
	{
		my ($rid) =
		  query("SELECT coalesce(max(rid), 0) FROM $p->{twin} WHERE rid < " . rand($next_rid));

		foreach my $which ('log', 'twin')
		{
			query(
				"DECLARE cur_$which CURSOR FOR "
				  . for_table(
					"SELECT rid FROM {t} WHERE rid = $rid" . pick('', ' FOR UPDATE'),
					$which, $p));
			query("FETCH cur_$which");
		}
		foreach my $statement ("UPDATE {t} SET rid = rid WHERE CURRENT OF ",
			"DELETE FROM {t} WHERE CURRENT OF ")
		{
			my $result = run_sql($session, for_table($statement, 'log', $p) . 'cur_log');
			my $wanted;

			next if is_explained($p, $result);
			$wanted = run_sql($session, for_table($statement, 'twin', $p) . 'cur_twin');
			die
			  "$statement: $result->{code} $result->{message}, $wanted->{code} $wanted->{message}\n"
			  if $result->{code} ne $wanted->{code}
			  # nothing looks at the cursor
			  && (shards($p) || $wanted->{code} ne '24000');
		}
		query($nested ? 'RELEASE cursor_step' : 'COMMIT');
		query('CLOSE cur_log; CLOSE cur_twin') if $nested;
	}
}

# Sessions and transactions.

my @settings = (
	[ 'enable_partitionwise_join', 'on', 'on', 'off' ],
	[ 'enable_partitionwise_aggregate', 'on', 'on', 'off' ],
	[ 'enable_seqscan', 'on', 'on', 'off' ],
	[ 'enable_hashjoin', 'on', 'on', 'off' ],
	[ 'enable_mergejoin', 'on', 'on', 'off' ],
	[ 'enable_nestloop', 'on', 'on', 'off' ],
	[ 'enable_hashagg', 'on', 'on', 'off' ],
	[ 'enable_bitmapscan', 'on', 'on', 'off' ],
	[ 'enable_sort', 'on', 'on', 'off' ],
	[ 'enable_partition_pruning', 'on', 'on', 'on', 'off' ],
	[ 'constraint_exclusion', 'partition', 'partition', 'on', 'off' ],
	[ 'plan_cache_mode', 'auto', 'force_generic_plan', 'force_custom_plan' ],
	[ 'jit', 'off' ]);

sub step_settings
{
	my @set = map { my ($name, @values) = @$_; "SET $name = " . pick(@values) } @settings;
	my $parallel = chance(0.15);

	push(@set, 'SET parallel_setup_cost = ' . ($parallel ? 0 : 1000),
		'SET parallel_tuple_cost = ' . ($parallel ? 0 : 0.1),
		'SET min_parallel_table_scan_size = ' . ($parallel ? 0 : "'8MB'"),
		'SET min_parallel_index_scan_size = ' . ($parallel ? 0 : "'512kB'"),
		"SET $parallel_mode = " . ($parallel && chance(0.5) ? 'on' : 'off'));
	query(join('; ', @set));
}

sub step_pin
{
	my ($p) = @_;
	my @shards = shards($p);

	# rows of this step only, since other tables have other shards
	query('SET shard_fdw.shard = ' . (@shards ? int(rand(@shards)) : 0));
	both($p, pick(insert_statement($p), copy_file($p)), codes => ['55000', '22023']);
	query('SET shard_fdw.shard = -1');
}

sub step_discard
{
	return if in_transaction();
	query(pick('DISCARD PLANS', 'DISCARD ALL', 'SELECT pg_advisory_unlock_all()'));
	# which forgets all that
	query('SET client_min_messages = error; SET search_path = fuzz, public; DEALLOCATE ALL');
	$session->{prepared} = [];
}

sub save { return [ map { { %$_, info => undef, detached => [ @{ $_->{detached} } ] } } @pairs ]; }

# As it was.
sub restore
{
	my ($saved) = @_;

	foreach my $i (0 .. $#pairs)
	{
		%{ $pairs[$i] } =
		  (%{ $saved->[$i] }, detached => [ @{ $saved->[$i]{detached} } ], changed => 1);
	}
}

sub step_transaction
{
	my $dice = rand();

	if (!in_transaction())
	{
		$isolation = chance(0.15);
		query('BEGIN'
			  . ($isolation ? ' ISOLATION LEVEL ' . pick('REPEATABLE READ', 'SERIALIZABLE') : ''));
		push(@saved, save());
	}
	elsif ($dice < 0.3 && @saved < 4)
	{
		query('SAVEPOINT s' . scalar(@saved));
		push(@saved, save());
	}
	elsif ($dice < 0.5 && @saved > 1)
	{
		query('ROLLBACK TO s' . $#saved);
		restore($saved[-1]);
	}
	elsif ($dice < 0.6 && @saved > 1)
	{
		query('RELEASE s' . $#saved);
		pop @saved;
	}
	elsif ($dice < 0.8)
	{
		query('COMMIT');
		@saved = ();
		$isolation = 0;
		$_->{changed} = 1 foreach @pairs;
	}
	else
	{
		query('ROLLBACK');
		restore($saved[0]);
		@saved = ();
		$isolation = 0;
	}
}

# One session inserts, and is not at its end yet when the other does.
sub step_two_sessions
{
	my ($p) = @_;
	my $statement;

	return if in_transaction();
	($session, my $other) = shuffled(@sessions);
	query('BEGIN');
	both($p, insert_statement($p));
	both($p, pick(insert_statement($p), copy_file($p)));
	($session, $other) = ($other, $session);
	# it may have to wait, for a row or for the only lane
	query("SET lock_timeout = '100ms'");
	foreach my $i (1 .. 3)
	{
		both($p, insert_statement($p), codes => ['55P03']);
	}
	both($p, delete_statement($p), codes => ['55P03']);
	both($p, select_only($p), codes => ['55P03']);
	may_fail("SELECT * FROM shard_fdw.create_shards('$p->{log}', 1, '$p->{twin}')",
		$p->{route} eq 'hash' ? '55000' : ())
	  if shards($p) < 10;
	compare($p);
	query('RESET lock_timeout');
	($session, $other) = ($other, $session);
	forget();
	both($p, insert_statement($p));
	query(pick('COMMIT', 'ROLLBACK'));
	$p->{changed} = 1;
}

sub select_only { return (select_statement($_[0], $_[0]))[0] =~ s/\{u\}/{t}/gr; }

my @kinds = (
	[ 14, \&step_insert ],
	[ 6, \&step_upsert ],
	[ 8, \&step_update ],
	[ 6, \&step_delete ],
	[ 4, \&step_copy ],
	[ 2, \&step_many ],
	[ 14, \&step_select ],
	[ 3, \&step_look ],
	[ 1, \&step_truncate ],
	[ 2, \&step_dequeue ],
	[ 3, \&step_create_shards ],
	[ 2, \&step_seal ],
	[ 4, \&step_unseal ],
	[ 2, \&step_drop_shard ],
	[ 4, \&step_detach ],
	[ 3, \&step_reattach ],
	[ 4, \&step_attach ],
	[ 1, \&step_nest ],
	[ 1, \&step_child ],
	[ 2, \&step_trigger ],
	[ 2, \&step_reshard ],
	[ 2, \&step_rename ],
	[ 8, \&step_alter ],
	[ 1, \&step_alter_key ],
	[ 2, \&step_maintain ],
	[ 1, \&step_replace ],
	[ 4, \&step_prepare ],
	[ 5, \&step_execute ],
	[ 2, \&step_cursor ],
	[ 3, \&step_settings ],
	[ 3, \&step_pin ],
	[ 1, \&step_discard ],
	[ 9, \&step_transaction ],
	[ 3, \&step_two_sessions ]);
my $weights = 0;
$weights += $_->[0] foreach @kinds;

sub one_step
{
	my $dice = rand($weights);
	my $p = pick(@pairs);

	$session = pick(@sessions) if !in_transaction();
	# another session may have changed them
	forget() if !in_transaction();
	foreach my $kind (@kinds)
	{
		$dice -= $kind->[0];
		if ($dice < 0)
		{
			$kind->[1]->($p);
			last;
		}
	}
	# a table that refuses everything is dull
	foreach my $p (@pairs)
	{
		next if !chance(shards($p) ? 0.05 : 0.4);
		step_unseal($p);
		may_fail("SELECT * FROM shard_fdw.create_shards('$p->{log}', "
			  . (missing_places($p) || 2) . ", '$p->{twin}')", '55000')
		  if missing_places($p) || !shards($p);
	}
	foreach my $p (@pairs)
	{
		compare($p) if $p->{changed};
		# neither empty nor slow
		if ($p->{rows} > 400)
		{
			both($p, 'DELETE FROM {t} WHERE rid % 4 <> ' . int(rand(4)));
			compare($p);
		}
		fill($p) if $p->{rows} < 10 && chance(0.3);
	}
}

sub run_seed
{
	@log = @saved = @pairs = ();
	($next_rid, $next_name, $isolation) = (1, 1, 0);
	srand($seed);
	@sessions = map { connect_psql($_) } 1, 2;
	$session = $sessions[0];
	run_sql($session, 'DROP SCHEMA fuzz CASCADE');
	query('CREATE SCHEMA fuzz');
	run_sql($_, 'SET search_path = fuzz, public') foreach @sessions;
	query('CREATE TABLE native (k int, v int) PARTITION BY HASH (k)');
	query("CREATE TABLE native_$_ PARTITION OF native FOR VALUES WITH
		(MODULUS 4, REMAINDER $_)") foreach 0 .. 3;
	query('INSERT INTO native SELECT g, g % 7 FROM generate_series(0, 40) g');
	@pairs = map { create_pair($_) } 'session', 'round_robin', 'hash', 'hash',
	  pick('session', 'hash');
	fill($_) foreach @pairs;
	for ($step = 1; $step <= $steps; $step++)
	{
		srand($seed * 1_000_003 + $step);
		one_step();
	}
	query('COMMIT') if in_transaction();
	compare($_) foreach @pairs;
	query('DROP SCHEMA fuzz CASCADE');
	disconnect($_) foreach @sessions;
}

foreach (@seeds)
{
	$seed = $_;
	$step = 0;
	if (eval { run_seed(); 1 })
	{
		pass("seed $seed, $steps steps");
		next;
	}

	my $error = $@;
	my $file = "$ENV{TESTDIR}/results/fuzz_$seed.sql";

	mkdir "$ENV{TESTDIR}/results";
	append_to_file($file, join("\n", @log) . "\n");
	fail("seed $seed, step $step");
	diag("all statements are in results/fuzz_$seed.sql, the last ones are:\n",
		join("\n", @log > 12 ? @log[ -12 .. -1 ] : @log), "\n\n", $error);
	disconnect($_) foreach @sessions;
}

$node->stop;
done_testing();
