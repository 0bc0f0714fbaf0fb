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

use IPC::Open2;
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
$node->safe_psql('postgres', q{
	CREATE FUNCTION about(log regclass, twin regclass)
	RETURNS TABLE (kind text, name text, definition text, b int, c text, d text, e text)
	LANGUAGE sql BEGIN ATOMIC
	(SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull::int, attgenerated::text,
	        pg_get_expr(adbin, adrelid), NULL
	   FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	  WHERE attrelid = twin AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
	UNION ALL
	(SELECT 'check', conname, pg_get_constraintdef(oid), NULL, NULL, NULL, NULL
	   FROM pg_constraint WHERE conrelid = twin AND contype = 'c' ORDER BY conname)
	UNION ALL
	(SELECT 'index', NULL, pg_get_indexdef(indexrelid), NULL, NULL, NULL, NULL
	   FROM pg_index WHERE indrelid = twin ORDER BY indexrelid)
	UNION ALL
	(SELECT 'shard', shard::text, relkind::text, (state = 'open')::int, relhassubclass::int::text, place[1], place[2]
	   FROM shard_fdw.list_shards(log) JOIN pg_class ON oid = shard
	   LEFT JOIN LATERAL (SELECT regexp_match(pg_get_constraintdef(c.oid), 'in_hash.(\\d+), (\\d+)')
	                        FROM pg_constraint c WHERE conrelid = shard AND conname = 'shard_hash') c(place) ON true
	  ORDER BY ordinal);
	END
});
my $tempdir = PostgreSQL::Test::Utils::tempdir;
my $parallel_mode =
  $node->safe_psql('postgres',
	"SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");

# The world of one seed.
my ($seed, $step, @log);
my (@sessions, $session);    # $session: where the current step runs
my @pairs;                   # logical tables and their twins
my ($next_rid, $next_name);
my @saved;                   # @pairs at BEGIN and at savepoints
my $isolation;

#
# Sessions
#

# A psql that takes one statement after the other.
sub connect_psql
{
	my ($number) = @_;
	my $self = { number => $number, prepared => [] };

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	$self->{pid} = open2($self->{out}, $self->{in},
		"psql -XqAt -F '\x1f' -P null=NULL -v VERBOSITY=verbose -v ON_ERROR_ROLLBACK=on -d postgres 2>&1");
	$self->{in}->autoflush(1);
	run_sql($self, 'SET client_min_messages = error');
	return $self;
}

sub disconnect
{
	my ($self) = @_;

	close $self->{in};
	close $self->{out};
	waitpid($self->{pid}, 0);
}

# Run a statement.  Returns its SQLSTATE, message, and lines of output.
sub run_sql
{
	my ($self, $sql) = @_;
	my %result = (code => '00000', message => '', lines => []);

	push(@log, "/* session $self->{number} */ $sql;");
	# what is known of the tables may be wrong from now on
	forget() if $sql =~ /^(ALTER|CREATE|DROP|ROLLBACK)|shard_fdw\.(create|seal|unseal|reshard|run)/;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql\n;\n\\echo == end ==\n";
	while (1)
	{
		my $line = readline($self->{out});

		die "server or session has gone: $sql\n" if !defined $line;
		chomp $line;
		last if $line eq '== end ==';
		if ($line =~ /(ERROR|FATAL|PANIC):  (\w{5}): (.*)/)
		{
			@result{ 'code', 'message' } = ($2, $3) if $result{code} eq '00000';
		}
		elsif ($result{code} eq '00000')
		{
			push(@{ $result{lines} }, $line);
		}
		else
		{
			$result{message} .= "\n$line";
		}
		die "server or session has gone: $sql\n$line\n"
		  if $line =~ /(FATAL|PANIC):  |connection to server was lost|server closed the connection/;
	}
	push(@log, "-- $result{code}: $result{message}" =~ s/\n/\n-- /gr)
	  if $result{code} ne '00000';
	die "internal error: $sql\n$result{message}\n" if $result{code} =~ /^XX/;
	return \%result;
}

sub query
{
	my ($sql) = @_;
	my $result = run_sql($session, $sql);

	die "$sql\n$result->{code}: $result->{message}\n" if $result->{code} ne '00000';
	return @{ $result->{lines} };
}

# Run a statement that may fail with one of some SQLSTATEs only.  Returns
# whether it has succeeded.
sub may_fail
{
	my ($sql, @codes) = @_;
	my $result = run_sql($session, $sql);

	return 1 if $result->{code} eq '00000';
	die "$sql\nunexpected $result->{code}: $result->{message}\n"
	  if !grep { $_ eq $result->{code} } @codes;
	return 0;
}

# Several statements or none.
sub all_or_none
{
	my ($statements, @codes) = @_;
	my $nested = in_transaction();
	my $done = 1;

	query($nested ? 'SAVEPOINT all_or_none' : 'BEGIN');
	foreach my $sql (@$statements)
	{
		$done &&= may_fail($sql, @codes);
	}
	query($nested ? 'ROLLBACK TO all_or_none' : 'ROLLBACK') if !$done;
	query($nested ? 'RELEASE all_or_none' : 'COMMIT') if $done || $nested;
	return $done;
}

sub in_transaction { return @saved > 0; }

#
# Choices
#

sub pick { return $_[ int(rand(@_)) ]; }
sub chance { return rand() < $_[0]; }
sub new_name { return $_[0] . $next_name++; }

sub new_rids
{
	my ($n) = @_;

	$next_rid += $n;
	return $next_rid - $n;
}

# Some of a list, in the same order, one at least.
sub some
{
	my @some = grep { chance(0.5) } @_;

	return @some ? @some : (pick(@_));
}

sub shuffled
{
	my @rest = @_;

	return map { splice(@rest, int(rand(@rest)), 1) } 1 .. @rest;
}

my %literals = (
	int => sub { int(rand(30)) },
	# never equal to one of another scale
	numeric => sub { int(rand(30)) . '.5' },
	text => sub { pick('a', 'b', 'ab', 'row ' . int(rand(20)), '') },
	date => sub { sprintf('2024-01-%02d', 1 + int(rand(28))) },
	bool => sub { pick('t', 'f') });

sub family
{
	my ($type) = @_;

	return
	    $type =~ /int/ ? 'int'
	  : $type =~ /numeric/ ? 'numeric'
	  : $type =~ /date/ ? 'date'
	  : $type =~ /bool/ ? 'bool'
	  : 'text';
}

# A value for a column, as COPY takes it; undef for a null.
sub plain_value
{
	my ($column, %how) = @_;
	my $family = family($column->{type});

	return undef if $column->{notnull} ? chance($how{bad} // 0) : chance(0.08);
	return 666 if $family =~ /int|numeric/ && chance($how{bad} // 0);
	return $literals{$family}->();
}

# The same as an expression.
sub value
{
	my ($column, @how) = @_;
	my $value = plain_value($column, @how);

	return 'NULL' if !defined $value;
	return family($column->{type}) =~ /int|numeric/ ? $value : "'$value'";
}

#
# What the tables are like.  The catalogs know, whatever was rolled back.
#

sub info
{
	my ($p) = @_;
	my %info = (columns => [], checks => [], indexes => [], shards => []);

	return $p->{info} if $p->{info};
	foreach my $line (query("SELECT * FROM about('$p->{log}', '$p->{twin}')"))
	{
		my ($kind, @values) = map { $_ eq 'NULL' ? undef : $_ } split(/\x1f/, $line, -1);

		if ($kind eq 'column')
		{
			my %column;

			@column{ 'name', 'type', 'notnull', 'generated', 'default' } = @values;
			push(@{ $info{columns} }, \%column);
		}
		elsif ($kind eq 'shard')
		{
			my %shard;

			@shard{ 'name', 'kind', 'open', 'parent', 'modulus', 'remainder' } = @values;
			push(@{ $info{shards} }, \%shard);
		}
		else
		{
			push(@{ $info{ $kind eq 'check' ? 'checks' : 'indexes' } }, \@values);
		}
	}
	return $p->{info} = \%info;
}

sub shards { return @{ info($_[0])->{shards} }; }
sub columns { return @{ info($_[0])->{columns} }; }
sub column_list { return join(', ', map { $_->{name} } columns($_[0])); }
sub writable { return grep { !$_->{generated} } columns($_[0]); }

# Columns that statements may change as they like.
sub free_columns
{
	my ($p) = @_;

	return grep { $_->{name} ne 'rid' && !is_key($p, $_) } writable($p);
}

sub is_key
{
	my ($p, $column) = @_;

	return grep { $_ eq $column->{name} } @{ $p->{key} };
}

# The columns that the columns of the hash key are, if it is of integers.
sub first_key
{
	my ($p) = @_;

	return (grep { $_->{name} eq $p->{key}[0] } columns($p))[0];
}

# Remainders that no shard holds.
sub missing_places
{
	my ($p) = @_;
	my %held;
	my $modulus = 0;

	foreach my $shard (shards($p))
	{
		next if !defined $shard->{modulus};
		$modulus = $shard->{modulus};
		$held{ $shard->{remainder} } = 1;
	}
	return map { [ $modulus, $_ ] } grep { !$held{$_} } 0 .. $modulus - 1;
}

# May the logical table refuse what a plain table takes?
sub is_explained
{
	my ($p, $result) = @_;
	my $sealed = grep { !$_->{open} } shards($p);
	my $hash = $p->{route} eq 'hash';
	my ($code, $message) = ($result->{code}, $result->{message});

	return 1 if $code eq '55000' && $sealed && $message =~ /^(all shards of|shard .* is sealed)/;
	return 1 if $code eq '55000' && !shards($p) && $message =~ /has no shards$/m;
	return 1 if $code eq '23514' && $sealed && $message =~ /"shard_sealed"/;
	return 0 if !$hash;
	return 1 if $code eq '23514' && $message =~ /no shard of foreign table .* takes the row/ && missing_places($p);
	return 1 if $code eq '23514' && $message =~ /"shard_hash"/;
	return 1 if $code eq '55000' && $message =~ /has a place in its hash route/ && !grep { defined $_->{modulus} } shards($p);
	return 0;
}

#
# Statements on both tables
#

# {t} is the table, {u} that of another pair.
sub for_table
{
	my ($sql, $which, $p, $other) = @_;

	$sql =~ s/\{t\}/$p->{$which}/g;
	$sql =~ s/\{u\}/$other->{$which}/g if $other;
	return $sql;
}

# Run a statement on the logical table, and on its twin if it can be expected
# to do the same there: it can if it succeeds, or fails with an error that is
# not of the kind of table.
sub both
{
	my ($p, $sql, %how) = @_;
	my $result =
	  run_sql($session, for_table($sql, 'log', $p, $how{other}));
	my $wanted;

	$p->{changed} = 1;
	return 0
	  if $result->{code} ne '00000'
	  && ( is_explained($p, $result)
		|| grep { $_ eq $result->{code} } @{ $how{codes} // [] });
	$wanted = run_sql($session, for_table($sql, 'twin', $p, $how{other}));
	if ($result->{code} ne $wanted->{code})
	{
		# The first of several violations depends on the order of rows.
		die "$sql\n$p->{log}: $result->{code} $result->{message}\n$p->{twin}: $wanted->{code} $wanted->{message}\n"
		  if $result->{code} !~ /^2[23]/ || $wanted->{code} !~ /^2[23]/;
	}
	if ($result->{code} eq '00000')
	{
		my @got = @{ $result->{lines} };
		my @want = @{ $wanted->{lines} };

		if (!$how{ordered})
		{
			@got = sort @got;
			@want = sort @want;
		}
		die join("\n", $sql, "$p->{log}:", @got, "$p->{twin}:", @want) . "\n"
		  if join("\n", @got) ne join("\n", @want);
		return 1;
	}
	return 0;
}

# Both tables have the same rows.
sub compare
{
	my ($p) = @_;
	my $list = column_list($p);
	my $rows = "SELECT count(*), md5(string_agg(r, ',' ORDER BY r COLLATE \"C\"))"
	  . " FROM (SELECT ROW($list)::text AS r FROM %s) s";
	my ($log, $twin) = map { query(sprintf($rows, $p->{$_})) } 'log', 'twin';

	if ($log ne $twin)
	{
		my $difference = "SELECT %s, count(*), r FROM (SELECT ROW($list)::text AS r FROM %s) s"
		  . " WHERE r NOT IN (SELECT ROW($list)::text FROM %s) GROUP BY r ORDER BY r";

		die join("\n", "the rows of $p->{log} and $p->{twin} differ",
			query(sprintf($difference, "'only'", $p->{log}, $p->{twin})),
			query(sprintf($difference, "'missing'", $p->{twin}, $p->{log}))) . "\n";
	}
	($p->{rows}) = $log =~ /^(\d+)/;
	if ($p->{sequence})
	{
		my ($bad) = query("SELECT count(*) FROM (SELECT sid FROM $p->{log} GROUP BY sid"
			  . " HAVING count(*) > 1 OR sid IS NULL) s");

		die "ids of $p->{log} are not unique\n" if $bad > 0;
	}
	$p->{changed} = 0;
}

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
	@checks = (', CONSTRAINT a_check CHECK (a <> 666)', chance(0.5) ? ", CONSTRAINT c_check CHECK (c < 600 OR a > 3)" : ());
	if ($template)
	{
		# what only the shards have
		@model = map { /^d / ? "$_ DEFAULT '2000-01-01'" : /^a / && chance(0.3) ? "$_ NOT NULL" : $_ } @model;
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
	query("CREATE TABLE $p{twin} (" . join(', ', @columns) . join('', $template ? @checks : ()) . ')');
	if ($template)
	{
		query("ALTER TABLE $p{twin} ALTER a SET NOT NULL") if grep { /^a .*NOT NULL/ } @model;
		foreach my $index (query("SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '$p{log}_model'::regclass"))
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
# Conditions and rows
#

# A condition on a row of the table with an alias.
sub condition
{
	my ($p, $alias, $depth) = @_;
	my $column = pick(columns($p));
	my $name = "$alias.$column->{name}";
	my $value = sub { value({ %$column, notnull => 1 }) };

	$depth //= 2;
	return '(' . condition($p, $alias, $depth - 1) . pick(' AND ', ' OR ')
	  . condition($p, $alias, $depth - 1) . ')'
	  if $depth > 0 && chance(0.25);
	return 'NOT (' . condition($p, $alias, $depth - 1) . ')' if $depth > 0 && chance(0.05);
	# the key, since that is what pruning looks at
	return join(' AND ', map { "$alias.$_->{name} = " . value({ %$_, notnull => 1 }) }
		  grep { is_key($p, $_) } columns($p))
	  if @{ $p->{key} } && chance(0.3);
	return "$alias.rid " . pick('=', '<', '>', '>=') . ' ' . int(rand($next_rid)) if chance(0.15);
	return "$alias.rid IN (SELECT i.rid FROM {t} i WHERE " . condition($p, 'i', 0) . ')'
	  if $depth > 0 && chance(0.05);
	return pick('', 'NOT ') . "EXISTS (SELECT FROM {t} i WHERE i.k = $alias.k AND "
	  . condition($p, 'i', 0) . ')'
	  if $depth > 0 && chance(0.05);
	return "$name IS " . pick('NULL', 'NOT NULL') if chance(0.1);
	return "$name IN (" . join(', ', map { $value->() } 1 .. 1 + int(rand(4))) . ')' if chance(0.2);
	return "$name = (SELECT " . $value->() . "::$column->{type})" if chance(0.1);
	return "$name BETWEEN " . $value->() . ' AND ' . $value->() if chance(0.1);
	return "$name " . pick('=', '=', '=', '<', '>=', '<>') . ' ' . $value->();
}

# Rows for an INSERT of some columns.
sub row_values
{
	my ($p, $columns, $n) = @_;
	my $rid = new_rids($n);

	return join(', ', map {
			'(' . join(', ', map {
					$_->{name} eq 'rid' ? $rid++
					: chance(0.05) ? 'DEFAULT'
					: is_new_key($p, $_) ? new_key($_)
					: value($_, bad => 0.004)
				} @$columns) . ')'
		} 1 .. $n);
}

# Keys of a unique index are new for the most part.
sub is_new_key
{
	my ($p, $column) = @_;

	return $p->{unique} && $column->{name} eq $p->{key}[0] && chance(0.9);
}

sub new_key
{
	my ($column) = @_;
	my $n = 100 + $next_rid++;
	my $family = family($column->{type});

	return $family =~ /int|numeric/ ? $n
	  : $family eq 'date' ? "'2030-01-01'::date + $n"
	  : "'key $n'";
}

# The same for rows that come from a query: an expression.
sub new_key_from
{
	my ($p, $column, $number) = @_;
	my $family = family($column->{type});

	return $column->{name} if !$p->{unique} || $column->{name} ne $p->{key}[0];
	return $family =~ /int|numeric/ ? "($number)"
	  : $family eq 'date' ? "'2030-01-01'::date + ($number)::int"
	  : "'key ' || ($number)";
}

# Columns to insert: some, but never without what identifies the row.
sub insert_columns
{
	my ($p) = @_;
	my @columns = writable($p);

	return @columns if chance(0.5);
	return shuffled(grep { $_->{name} eq 'rid' || is_key($p, $_) || $_->{notnull} || chance(0.6) } @columns);
}

sub names { return join(', ', map { $_->{name} } @_); }

# INSERT ... SELECT of rows that a source has.  {row} numbers them.
sub insert_from
{
	my ($p, $source) = @_;
	my @columns = insert_columns($p);
	my $base = new_rids(3000);
	my $number = "$base + row_number() OVER (ORDER BY q.rid)";

	return "INSERT INTO {t} (" . names(@columns) . ') SELECT '
	  . join(', ', map { $_->{name} eq 'rid' ? $number : new_key_from($p, $_, $number) =~ s/^(\w+)$/q.$1/r } @columns)
	  . " FROM $source q";
}

sub returning
{
	my ($p) = @_;

	return pick('', '', '', ' RETURNING ' . join(', ', map { $_->{name} } some(columns($p))));
}

# The same for a statement where the table has an alias.
sub returning_of
{
	my ($p, $alias) = @_;

	return pick('', '', ' RETURNING ' . join(', ', map { "$alias.$_->{name}" } some(columns($p))));
}

#
# Statements on rows
#

sub insert_statement
{
	my ($p) = @_;
	my @columns = insert_columns($p);
	my $n = pick(1, 1, 2, 5, 20);
	my $dice = int(rand(10));

	return 'INSERT INTO {t} (' . names(@columns) . ') VALUES ' . row_values($p, \@columns, $n) . returning($p)
	  if $dice < 6;
	return 'INSERT INTO {t} DEFAULT VALUES' if $dice == 6 && chance(0.2);
	return insert_from($p, '(SELECT * FROM {t} i WHERE ' . condition($p, 'i') . ' ORDER BY rid LIMIT ' . pick(3, 30) . ')')
	  . returning($p)
	  if $dice < 9;
	return 'WITH q AS (DELETE FROM {t} i WHERE ' . condition($p, 'i') . ' RETURNING *) '
	  . insert_from($p, 'q') . returning($p);
}

sub upsert_statement
{
	my ($p) = @_;
	my @columns = insert_columns($p);
	my @free = free_columns($p);
	my @set = map {
		my $c = $_;
		"$c->{name} = " . pick('EXCLUDED.' . $c->{name}, "{t}.$c->{name}", value($c), 'DEFAULT')
	} @free ? some(@free) : ();

	push(@set, map { "$_ = EXCLUDED.$_" } @{ $p->{key} }) if chance(0.2) || !@set;
	return 'INSERT INTO {t} (' . names(@columns) . ') VALUES '
	  . row_values({ %$p, unique => 0 }, \@columns, pick(1, 1, 3, 10))
	  . ' ON CONFLICT '
	  . pick('DO NOTHING', "($p->{upsert}) DO NOTHING",
		map { "($p->{upsert}) DO UPDATE SET $_" }
		  join(', ', @set), join(', ', @set) . ' WHERE ' . condition($p, '{t}', 0))
	  . returning_of($p, '{t}');
}

sub update_statement
{
	my ($p) = @_;
	my @free = free_columns($p);
	my $key = first_key($p);
	my $where;
	my @set;

	# moves the row to another shard, or not
	return "UPDATE {t} SET $key->{name} = " . value($key) . ' WHERE rid = ' . int(rand($next_rid))
	  if $key && chance(0.15);
	return '' if !@free;
	@set = map { "$_->{name} = " . pick(value($_, bad => 0.01), 'DEFAULT', "x.$_->{name}") } some(@free);
	return 'UPDATE {t} x SET ' . join(', ', @set) . ' WHERE ' . condition($p, 'x') . returning_of($p, 'x')
	  if chance(0.6);
	@set = map { my $c = $_->{name}; "$c = " . pick("y.$c", "(SELECT max(z.$c) FROM {t} z WHERE z.rid < y.rid)") } some(@free);
	return 'UPDATE {t} x SET ' . join(', ', @set)
	  . ' FROM {t} y WHERE y.rid = x.rid - ' . pick(0, 1, 2) . ' AND ' . condition($p, 'y') . returning_of($p, 'x');
}

sub delete_statement
{
	my ($p) = @_;

	return 'DELETE FROM {t} x WHERE ' . pick(
		'rid = ' . int(rand($next_rid)),
		condition($p, 'x') . ' AND rid % 3 = 0',
		'rid IN (SELECT rid FROM {t} ORDER BY rid DESC LIMIT 4)',
		'(tableoid, ctid) IN (SELECT tableoid, ctid FROM {t} ORDER BY rid LIMIT 3)',
		'EXISTS (SELECT FROM {t} y WHERE y.rid = x.rid - 1 AND y.k = x.k)')
	  . returning_of($p, 'x')
	  if chance(0.7);
	return 'DELETE FROM {t} x USING {t} y WHERE y.rid = x.rid + 1 AND ' . condition($p, 'y') . returning_of($p, 'x');
}

sub copy_file
{
	my ($p) = @_;
	my @columns = insert_columns($p);
	my $csv = chance(0.5);
	my $n = pick(1, 5, 40);
	my $bad = chance(0.15) ? int(rand($n)) : -1;
	my $rid = new_rids($n);
	my ($file, $name);

	$name = "$tempdir/" . new_name('copy');
	foreach my $i (0 .. $n - 1)
	{
		my @values = map {
			my $value = $_->{name} eq 'rid' ? $rid++
			  : is_new_key($p, $_) ? new_key($_) =~ s/'//gr =~ s/::date \+ .*//r
			  : plain_value($_, bad => 0.002);

			defined $value ? ($csv ? "\"$value\"" : $value) : ($csv ? '' : '\N')
		} @columns;

		$values[ int(rand(@values)) ] = pick('wrong', '"', '1e999') if $i == $bad && chance(0.7);
		push(@values, 1) if $i == $bad && chance(0.3);
		$file .= join($csv ? ',' : "\t", @values) . "\n";
	}
	append_to_file($name, $file);
	push(@log, "/* $name:\n$file*/");
	return 'COPY {t} (' . names(@columns) . ") FROM '$name'" . ($csv ? ' (FORMAT csv)' : '')
	  . (chance(0.15) ? ' WHERE rid % 2 = 0' : '');
}

#
# Queries
#

# Returns a query, and whether its rows have an order.
sub select_statement
{
	my ($p, $other) = @_;
	my $list = join(', ', map { "x.$_->{name}" } columns($p));
	my ($c, $d) = map { pick(columns($p))->{name} } 1, 2;
	my $where = condition($p, 'x');
	my $key = family((grep { $_->{name} eq ($p->{key}[0] // 'k') } columns($p))[0]{type});
	my $k = $p->{key}[0] // 'k';
	my $other_k = $other->{key}[0] // 'k';
	my $comparable = family((grep { $_->{name} eq $other_k } columns($other))[0]{type}) eq $key;
	my $join = pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN');
	my @shapes = (
		[ "SELECT $list FROM {t} x WHERE $where" ],
		[ "SELECT $list FROM {t} x WHERE $where" ],
		[ "SELECT $list FROM {t} x WHERE $where ORDER BY x.$c, rid LIMIT 7", 1 ],
		[ "SELECT $list FROM {t} x WHERE x.$k > (SELECT min(y.$k) FROM {t} y) ORDER BY rid DESC OFFSET 2 LIMIT 5", 1 ],
		[ "SELECT DISTINCT $c, $d FROM {t} x WHERE $where" ],
		[ "SELECT DISTINCT ON ($c) $c, rid FROM {t} x ORDER BY $c, rid", 1 ],
		[ "SELECT count(*), count($c), count(DISTINCT $d), min($c), max($d), sum(rid), min(rid) FROM {t} x WHERE $where" ],
		[ "SELECT min(rid), max(rid), max($k) FROM {t}" ],
		[ "SELECT $k, count(*), sum(rid), min($c) FROM {t} x WHERE $where GROUP BY $k" ],
		[ "SELECT $c, $d, count(*), array_agg(rid ORDER BY rid) FROM {t} x GROUP BY $c, $d HAVING count(*) > 1" ],
		[ "SELECT $c, $k, count(*) FILTER (WHERE $where) FROM {t} x GROUP BY GROUPING SETS (($c), ($k), ())" ],
		[ "SELECT rid, rank() OVER (PARTITION BY $c ORDER BY $d, rid), count(*) OVER (PARTITION BY $k) FROM {t} x WHERE $where" ],
		[ "SELECT x.rid, y.rid, y.$c FROM {t} x $join {t} y ON x.$k = y.$k AND x.rid <> y.rid WHERE x.rid % 4 = 0" ],
		[ "SELECT count(*), sum(x.rid), count(y.$c) FROM {t} x $join {t} y ON x.$k = y.$k" ],
		[ "SELECT x.rid, y.$c FROM {t} x JOIN {t} y USING (rid) WHERE $where" ],
		[ "SELECT count(*), sum(x.rid), sum(y.rid) FROM {t} x $join {u} y USING (rid)" ],
		[ "SELECT x.rid, n.v FROM {t} x $join native n ON x.rid = n.k WHERE x.rid < 100 OR n.k < 5" ],
		[ "SELECT x.rid, y.n FROM {t} x, LATERAL (SELECT count(*) AS n FROM {t} z WHERE z.$k = x.$k AND z.rid < x.rid) y WHERE $where" ],
		[ "SELECT rid FROM {t} x WHERE $where UNION ALL SELECT rid FROM {u}" ],
		[ "SELECT rid FROM {t} x WHERE $where EXCEPT SELECT rid FROM {u}" ],
		[ "SELECT $c FROM {t} x WHERE $where INTERSECT SELECT $c FROM {t}" ],
		[ "WITH w AS MATERIALIZED (SELECT * FROM {t} x WHERE $where) SELECT a.rid, b.rid FROM w a JOIN w b ON a.rid = b.rid + 1" ],
		[ "SELECT $list FROM {t} x WHERE $where ORDER BY rid LIMIT 5 FOR " . pick('UPDATE', 'SHARE', 'NO KEY UPDATE SKIP LOCKED'), 1 ],
		[ "SELECT rid FROM {t} x WHERE $where AND rid IN (SELECT rid FROM {t} ORDER BY rid LIMIT 20) FOR UPDATE OF x" ],
		[ "COPY (SELECT $c, rid FROM {t} x WHERE $where) TO STDOUT" ],
		[ "SELECT rid, (SELECT max(y.rid) FROM {t} y WHERE y.$k = x.$k) FROM {t} x WHERE $where" ],
		[ "SELECT x.rid FROM {t} x WHERE x.$k NOT IN (SELECT y.$k FROM {t} y WHERE y.$k IS NOT NULL AND y.rid % 2 = 0)" ]);

	push(@shapes,
		[ "SELECT x.rid, y.rid, n.v FROM {t} x JOIN {t} y ON x.$k = y.$k LEFT JOIN native n ON n.k = y.$k WHERE $where AND y.rid % 3 = 0" ],
		[ "SELECT x.$k, n.v, count(*) FROM {t} x $join native n ON x.$k = n.k GROUP BY 1, 2" ],
		[ "SELECT n.v, x.rid FROM native n JOIN {t} x ON x.$k = n.k WHERE n.v = " . int(rand(7)) ])
	  if $key eq 'int';
	push(@shapes,
		[ "SELECT x.rid, y.rid FROM {t} x $join {u} y ON x.$k = y.$other_k" ],
		[ "SELECT x.$k, count(*), sum(y.rid) FROM {t} x JOIN {u} y ON x.$k = y.$other_k WHERE $where GROUP BY x.$k" ],
		[ "SELECT rid FROM {t} x WHERE EXISTS (SELECT FROM {u} y WHERE y.$other_k = x.$k AND y.rid > 50)" ])
	  if $comparable;
	return @{ pick(@shapes) };
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
	my $all_placed = !grep { !defined $_->{modulus} } shards($p);

	# others cannot tell conflicts
	if (!$p->{unique})
	{
		may_fail(for_table(upsert_statement($p), 'log', $p), '0A000', '55000', '42P10', '22P02', '42601')
		  if @{ $p->{key} } == 0 && ($p->{upsert} = 'rid');
		return;
	}
	both($p, upsert_statement($p), codes => $all_placed ? [] : ['55000']);
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

	both($p, insert_from($p, '(SELECT i.*, g AS n FROM {t} i, generate_series(1, ' . pick(5, 20, 60) . ") g WHERE rid % 5 = 0 ORDER BY rid LIMIT 1500)")
		  =~ s/ORDER BY q.rid\)/ORDER BY q.rid, q.n)/gr);
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
	my ($only, $parts, $all) = query("SELECT count(*) FROM ONLY $p->{log};"
		  . ' SELECT ' . (join(' + ', map { "(SELECT count(*) FROM $_->{name})" } @shards) || 0) . ';'
		  . " SELECT count(*) FROM $p->{log}");

	die "$p->{log}: $only rows of its own\n" if $only != 0;
	die "$p->{log}: $all rows, $parts in its shards\n" if $all != $parts;
	query('SELECT * FROM shard_fdw.shards; SELECT * FROM shard_fdw.leases;'
		  . " SELECT * FROM shard_fdw.sequences WHERE sequence::text ~ '^$p->{log}'");
	if ($p->{sequence})
	{
		my $id = "(SELECT max(sid) FROM $p->{log} x WHERE " . for_table(condition($p, 'x', 0), 'log', $p) . ')';
		my ($literal) = query("SELECT coalesce($id, -1)");

		foreach my $id ($id, $literal)
		{
			my ($same) = query("SELECT (SELECT array_agg(rid ORDER BY rid) FROM $p->{log} WHERE sid = $id)"
				  . " IS NOT DISTINCT FROM (SELECT array_agg(rid ORDER BY rid) FROM $p->{log} WHERE sid + 0 = $id)");

			die "$p->{log}: another row with sid = $id\n" if $same ne 't';
		}
	}
	foreach my $shard (@shards ? pick(@shards) : ())
	{
		my ($same) = query("SELECT (SELECT count(*) FROM $p->{log} WHERE tableoid = '$shard->{name}'::regclass)"
			  . " = (SELECT count(*) FROM ONLY $shard->{name})");

		die "$p->{log}: tableoid does not find the rows of $shard->{name}\n" if $same ne 't';
	}
}

sub step_truncate
{
	my ($p) = @_;

	both($p, pick('TRUNCATE {t}', 'TRUNCATE {t} RESTART IDENTITY', 'TRUNCATE {t}, {u}'), other => pick(@pairs));
	$_->{changed} = 1 foreach @pairs;
	may_fail("TRUNCATE ONLY $p->{log}");
}

sub step_dequeue
{
	my ($p) = @_;

	$p->{changed} = 1;
	may_fail("DELETE FROM $p->{twin} WHERE rid IN (SELECT rid FROM shard_fdw.dequeue(NULL::$p->{log}, "
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
			'DROP ' . ($shard->{kind} eq 'f' ? 'FOREIGN ' : '') . "TABLE $shard->{name}" . pick('', ' CASCADE')
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
	push(@{ $p->{detached} }, { name => $name, kind => $kind, modulus => $shard->{modulus}, remainder => $shard->{remainder} })
	  if all_or_none([ lose($p, $shard->{name}), "ALTER ${kind}TABLE $shard->{name} NO INHERIT $p->{log}",
			"ALTER ${kind}TABLE $shard->{name} RENAME TO $name" ]);
}

sub step_reattach
{
	my ($p) = @_;
	my $table = shift @{ $p->{detached} } // return;

	# its ids may have been given to others since, or its place
	return if $p->{sequence};
	return
	  if $p->{unique}
	  && !grep { $_->[0] == $table->{modulus} && $_->[1] == $table->{remainder} } missing_places($p);
	$p->{changed} = 1;
	# it may be that it does not fit any more
	all_or_none([ gain($p, $table->{name}), "ALTER $table->{kind}TABLE $table->{name} INHERIT $p->{log}" ],
		'42703', '42804', '23505', '23514', '23502', '22001', '22003', '42601', '428C9')
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
	push(@statements, map { "ALTER TABLE $name DROP COLUMN $_" } 'gone', 'gone_too') if grep { /^gone/ } @columns;
	push(@statements, map { "ALTER TABLE $name ADD CONSTRAINT $_->[0] $_->[1]" } @{ info($p)->{checks} });
	push(@statements, map { index_for($_->[1], $name) } @{ info($p)->{indexes} });
	if (chance(0.8))
	{
		my $where = $place ? 'WHERE shard_fdw.in_hash(' . join(', ', @$place, @{ $p->{key} }) . ')' : '';

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
	all_or_none([ "CREATE FOREIGN TABLE $name (" . join(', ', @columns) . "$checks) SERVER shards OPTIONS (shards '2', route '"
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
	my $where = !defined $shard->{modulus} ? ''
	  : "WHERE shard_fdw.in_hash($shard->{modulus}, $shard->{remainder}, " . join(', ', @{ $p->{key} }) . ')';
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
	  if grep { /\x1ff\x1f/ } query("SELECT * FROM shard_fdw.run_command_on_shards('$p->{log}', \$\$$command\$\$)");
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
		on_shards($p, "ALTER TABLE %s ALTER $name DROP NOT NULL") if both($p, "ALTER TABLE {t} ALTER $name DROP NOT NULL");
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
		on_shards($p, "ALTER TABLE %s ALTER $name DROP NOT NULL") if both($p, "ALTER TABLE {t} ALTER $name DROP NOT NULL");
	}
	elsif ($dice == 6)
	{
		both($p, "ALTER TABLE {t} ALTER $name " . pick('SET DEFAULT ' . value($column), 'DROP DEFAULT'));
	}
	elsif ($dice == 7)
	{
		both($p, "ALTER TABLE {t} ADD CONSTRAINT " . new_name('check') . ' CHECK ('
			  . pick(condition({ %$p, key => [] }, '{t}', 0) =~ s/\{t\}\.//gr, "$name IS DISTINCT FROM " . value($column)) . ')')
		  if @{ info($p)->{checks} } < 5;
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
		  if query("SELECT 1 FROM pg_foreign_table WHERE ftrelid = '$p->{log}'::regclass AND ftoptions::text ~ 'batch_size'");
		query("ALTER FOREIGN TABLE $p->{log} OPTIONS (ADD batch_size '" . pick(1, 3, 50, 1000) . "')");
	}
}

# The key's type decides its hash, too.
sub step_alter_key
{
	my ($p) = @_;
	my $key = first_key($p) // return;

	return if family($key->{type}) ne 'int';
	both($p, "ALTER TABLE {t} ALTER $key->{name} TYPE " . pick('bigint', 'int'), codes => [ '23514', '0A000', '42P16' ]);
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

		both($p, 'INSERT INTO {t} (' . names(@columns) . ') VALUES ' . row_values($p, \@columns, 20));
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
		"SELECT count(*), max($set->{name}::text) FROM {t} WHERE $k->{name} > \$1 AND rid > \$2 AND (\$3 IS NULL OR true)",
		"SELECT x.rid, y.rid FROM {t} x JOIN {t} y USING ($k->{name}) WHERE x.$k->{name} = \$1 AND y.rid > \$2 AND x.$set->{name} = \$3",
		"SELECT x.rid, y.rid FROM {t} x LEFT JOIN {u} y USING (rid) WHERE x.$k->{name} = \$1 AND (x.rid > \$2 OR x.$set->{name} = \$3)",
		"UPDATE {t} SET $set->{name} = \$3 WHERE $k->{name} = \$1 AND rid > \$2 RETURNING rid",
		"UPDATE {t} SET $set->{name} = \$3 WHERE rid = \$2 AND \$1 IS NOT NULL RETURNING $list",
		"DELETE FROM {t} WHERE $k->{name} = \$1 AND rid < \$2 AND \$3 IS NULL",
		"INSERT INTO {t} ($k->{name}, rid, $set->{name}) VALUES (\$1, \$2, \$3)",
		"INSERT INTO {t} ($k->{name}, rid, $set->{name}) VALUES (\$1, \$2, \$3) RETURNING rid, $set->{name}",
		"INSERT INTO {t} ($k->{name}, rid, $set->{name}) SELECT \$1, \$2, \$3 FROM generate_series(1, 1)",
		$p->{unique}
		? ("INSERT INTO {t} ($k->{name}, rid, $set->{name}) VALUES (\$1, \$2, \$3)"
			  . " ON CONFLICT ($p->{upsert}) DO " . pick('NOTHING', "UPDATE SET $set->{name} = EXCLUDED.$set->{name}"))
		  x 3
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
			my @rows = ($ps->{inserts} ? new_rids(1) : int(rand($next_rid)));
			my $p = (grep { $_->{route} eq 'hash' } @pairs)[0];

			execute($ps, join(', ', value($k), @rows, value($set)));
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
	die "EXECUTE $ps->{name}_log ($values)\n$result->{code} $result->{message}\non the twin: $wanted->{code} $wanted->{message}\n"
	  if $result->{code} ne $wanted->{code} && ($result->{code} !~ /^2[23]/ || $wanted->{code} !~ /^2[23]/);
	die join("\n", "EXECUTE $ps->{name}_log ($values)", @{ $result->{lines} }, 'on the twin:', @{ $wanted->{lines} }) . "\n"
	  if join("\n", sort @{ $result->{lines} }) ne join("\n", sort @{ $wanted->{lines} });
}

# A cursor that is open while the table changes.
sub step_cursor
{
	my ($p) = @_;
	my $hold = !in_transaction() && chance(0.3) ? ' WITH HOLD' : '';
	my $list = column_list($p);
	my $where = condition($p, 'x');
	my $rid = int(rand($next_rid));
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
		foreach my $which ('log', 'twin')
		{
			query("DECLARE cur_$which CURSOR FOR " . for_table("SELECT rid FROM {t} WHERE rid = $rid" . pick('', ' FOR UPDATE'), $which, $p));
			query("FETCH cur_$which");
		}
		foreach my $statement ("UPDATE {t} SET rid = rid WHERE CURRENT OF ", "DELETE FROM {t} WHERE CURRENT OF ")
		{
			my $result = run_sql($session, for_table($statement, 'log', $p) . 'cur_log');
			my $wanted;

			next if is_explained($p, $result);
			$wanted = run_sql($session, for_table($statement, 'twin', $p) . 'cur_twin');
			die "$statement: $result->{code} $result->{message}, $wanted->{code} $wanted->{message}\n"
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
		%{ $pairs[$i] } = (%{ $saved->[$i] }, detached => [ @{ $saved->[$i]{detached} } ], changed => 1);
	}
}

sub forget { $_->{info} = undef foreach @pairs; }

sub step_transaction
{
	my $dice = rand();

	if (!in_transaction())
	{
		$isolation = chance(0.15);
		query('BEGIN' . ($isolation ? ' ISOLATION LEVEL ' . pick('REPEATABLE READ', 'SERIALIZABLE') : ''));
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

my @kinds = (
	[ 14, \&step_insert ], [ 6, \&step_upsert ], [ 8, \&step_update ], [ 6, \&step_delete ],
	[ 4, \&step_copy ], [ 2, \&step_many ], [ 14, \&step_select ], [ 3, \&step_look ],
	[ 1, \&step_truncate ], [ 2, \&step_dequeue ], [ 3, \&step_create_shards ],
	[ 2, \&step_seal ], [ 4, \&step_unseal ], [ 2, \&step_drop_shard ], [ 4, \&step_detach ],
	[ 3, \&step_reattach ], [ 4, \&step_attach ], [ 1, \&step_nest ], [ 1, \&step_child ],
	[ 2, \&step_reshard ], [ 2, \&step_rename ], [ 8, \&step_alter ], [ 1, \&step_alter_key ],
	[ 2, \&step_maintain ], [ 1, \&step_replace ], [ 4, \&step_prepare ], [ 5, \&step_execute ],
	[ 2, \&step_cursor ], [ 3, \&step_settings ], [ 3, \&step_pin ], [ 1, \&step_discard ],
	[ 9, \&step_transaction ]);
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
	query("CREATE TABLE native_$_ PARTITION OF native FOR VALUES WITH (MODULUS 4, REMAINDER $_)") foreach 0 .. 3;
	query('INSERT INTO native SELECT g, g % 7 FROM generate_series(0, 40) g');
	@pairs = map { create_pair($_) } 'session', 'round_robin', 'hash', 'hash', pick('session', 'hash');
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
