# What the random tests of fuzz.t are made of: sessions, what the tables are
# like, statements on two tables, and the making up of statements.
#
# A pair is a logical table and its plain twin: a hash with "log" and "twin",
# their names; "route"; "key", the columns of its hash key; "unique", whether
# that is unique; "upsert", a conflict target; "sequence", the option of its
# column "sid", which the twin has not; "detached", tables that were shards;
# "info", what the catalogs say; "rows", how many it has; "changed", whether
# the two are to be compared.
#
# Each table has a column "rid" that no two rows share, and "k", the first
# column of the key where there is one (which may have another name by now).
package ShardFuzz;

use strict;
use warnings;

use Exporter 'import';
use IPC::Open2;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(
  $session @pairs forget @saved @log $next_rid $next_name connect_psql disconnect
  run_sql query may_fail all_or_none in_transaction pick chance new_name
  new_rids some shuffled family value info shards columns column_list
  writable free_columns is_key first_key missing_places is_explained
  for_table both compare condition row_values names insert_from
  insert_statement upsert_statement update_statement delete_statement
  copy_file select_statement setup_fuzz);

our $session;    # where the current step runs
our @pairs;
our @saved;      # what save() gave at BEGIN and at savepoints
our @log;        # all statements
our ($next_rid, $next_name);

my ($node, $tempdir);

sub setup_fuzz
{
	($node) = @_;
	$tempdir = PostgreSQL::Test::Utils::tempdir;
	$node->safe_psql('postgres', q{
	CREATE FUNCTION about(log regclass, twin regclass)
	RETURNS TABLE (kind text, name text, definition text, b int, c text, d text, e text)
	LANGUAGE sql BEGIN ATOMIC
	(SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull::int,
	  attgenerated::text,
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
	(SELECT 'shard', shard::text, relkind::text, (state = 'open')::int, relhassubclass::int::text,
	  place[1], place[2]
	   FROM shard_fdw.list_shards(log) JOIN pg_class ON oid = shard
	   LEFT JOIN LATERAL (SELECT regexp_match(pg_get_constraintdef(c.oid), 'in_hash.(\\d+), (\\d+)')
	                        FROM pg_constraint c
	                       WHERE conrelid = shard AND conname = 'shard_hash') c(place) ON true
	  ORDER BY ordinal);
	END;
	-- row triggers that change nothing, but have rows stored in another way
	CREATE FUNCTION nothing() RETURNS trigger
	  LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
	CREATE FUNCTION nothing_to_see() RETURNS trigger IMMUTABLE
	  LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
	});
}

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
		"psql -XqAt -F '\x1f' -P null=NULL -v VERBOSITY=verbose -v ON_ERROR_ROLLBACK=on"
		  . ' -d postgres 2>&1'
	);
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

	my $nulls = $column->{notnull} ? $how{bad} // 0 : 0.08;

	return
		chance($nulls) ? undef
	  : $family =~ /int|numeric/ && chance($how{bad} // 0) ? 666
	  : $literals{$family}->();
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

# After what changes the tables, in this session or another.
sub forget { $_->{info} = undef foreach @pairs; }

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
	return 1
	  if $code eq '23514'
	  && $message =~ /no shard of foreign table .* takes the row/
	  && missing_places($p);
	return 1 if $code eq '23514' && $message =~ /"shard_hash"/;
	return 1
	  if $code eq '55000'
	  && $message =~ /has a place in its hash route/
	  && !grep { defined $_->{modulus} } shards($p);
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
		die
		  "$sql\n$p->{log}: $result->{code} $result->{message}\n"
		  . "$p->{twin}: $wanted->{code} $wanted->{message}\n"
		  if $result->{code} !~ /^2[23]/ || $wanted->{code} !~ /^2[23]/;
	}
	# no errors of the one that makes the statements up
	die "$sql\nunexpected $wanted->{code}: $wanted->{message}\n"
	  if $wanted->{code} !~ /^(00000|2[23]|21000|40001|2BP01|55P03|0A000|42804|42883)/;
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
	return shuffled(grep { $_->{name} eq 'rid' || is_key($p, $_) || $_->{notnull} || chance(0.6) }
		  @columns);
}

sub names { return join(', ', map { $_->{name} } @_); }

# INSERT ... SELECT of rows that a source has.  {row} numbers them.
sub insert_from
{
	my ($p, $source) = @_;
	my @columns = insert_columns($p);
	my $base = new_rids(3000);
	my $number = "$base + row_number() OVER (ORDER BY q.rid)";

	return
		"INSERT INTO {t} ("
	  . names(@columns)
	  . ') SELECT '
	  . join(', ',
		map { $_->{name} eq 'rid' ? $number : new_key_from($p, $_, $number) =~ s/^(\w+)$/q.$1/r }
		  @columns)
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

	return
		'INSERT INTO {t} ('
	  . names(@columns)
	  . ') VALUES '
	  . row_values($p, \@columns, $n)
	  . returning($p)
	  if $dice < 6;
	return 'INSERT INTO {t} DEFAULT VALUES' if $dice == 6 && chance(0.2);
	return insert_from($p,
			'(SELECT * FROM {t} i WHERE '
		  . condition($p, 'i')
		  . ' ORDER BY rid LIMIT '
		  . pick(3, 30) . ')')
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
	@set =
	  map { "$_->{name} = " . pick(value($_, bad => 0.01), 'DEFAULT', "x.$_->{name}") } some(@free);
	return
		'UPDATE {t} x SET '
	  . join(', ', @set)
	  . ' WHERE '
	  . condition($p, 'x')
	  . returning_of($p, 'x')
	  if chance(0.6);
	@set = map {
		my $c = $_->{name};
		"$c = " . pick("y.$c", "(SELECT max(z.$c) FROM {t} z WHERE z.rid < y.rid)")
	} some(@free);
	return
		'UPDATE {t} x SET '
	  . join(', ', @set)
	  . ' FROM {t} y WHERE y.rid = x.rid - '
	  . pick(0, 1, 2) . ' AND '
	  . condition($p, 'y')
	  . returning_of($p, 'x');
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
	return
		'DELETE FROM {t} x USING {t} y WHERE y.rid = x.rid + 1 AND '
	  . condition($p, 'y')
	  . returning_of($p, 'x');
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
	unlink $name;    # another seed's
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
		[ "SELECT $list FROM {t} x WHERE x.$k > (SELECT min(y.$k) FROM {t} y)
			ORDER BY rid DESC OFFSET 2 LIMIT 5", 1 ],
		[ "SELECT DISTINCT $c, $d FROM {t} x WHERE $where" ],
		[ "SELECT DISTINCT ON ($c) $c, rid FROM {t} x ORDER BY $c, rid", 1 ],
		[
			"SELECT count(*), count($c), count(DISTINCT $d), min($c), max($d), sum(rid), min(rid)
				FROM {t} x WHERE $where"
		],
		["SELECT min(rid), max(rid), max($k) FROM {t}"],
		["SELECT $k, count(*), sum(rid), min($c) FROM {t} x WHERE $where GROUP BY $k"],
		[
			"SELECT $c, $d, count(*), array_agg(rid ORDER BY rid) FROM {t} x GROUP BY $c, $d
				HAVING count(*) > 1"
		],
		[
			"SELECT $c, $k, count(*) FILTER (WHERE $where) FROM {t} x
				GROUP BY GROUPING SETS (($c), ($k), ())"
		],
		[
			"SELECT rid, rank() OVER (PARTITION BY $c ORDER BY $d, rid),
				count(*) OVER (PARTITION BY $k) FROM {t} x WHERE $where"
		],
		[
			"SELECT x.rid, y.rid, y.$c FROM {t} x $join {t} y ON x.$k = y.$k AND x.rid <> y.rid
				WHERE x.rid % 4 = 0"
		],
		["SELECT count(*), sum(x.rid), count(y.$c) FROM {t} x $join {t} y ON x.$k = y.$k"],
		["SELECT x.rid, y.$c FROM {t} x JOIN {t} y USING (rid) WHERE $where"],
		["SELECT count(*), sum(x.rid), sum(y.rid) FROM {t} x $join {u} y USING (rid)"],
		[
			"SELECT x.rid, n.v FROM {t} x $join native n ON x.rid = n.k
				WHERE x.rid < 100 OR n.k < 5"
		],
		[
			"SELECT x.rid, y.n FROM {t} x, LATERAL (SELECT count(*) AS n FROM {t} z
				WHERE z.$k = x.$k AND z.rid < x.rid) y WHERE $where"
		],
		["SELECT rid FROM {t} x WHERE $where UNION ALL SELECT rid FROM {u}"],
		["SELECT rid FROM {t} x WHERE $where EXCEPT SELECT rid FROM {u}"],
		["SELECT $c FROM {t} x WHERE $where INTERSECT SELECT $c FROM {t}"],
		[
			"WITH w AS MATERIALIZED (SELECT * FROM {t} x WHERE $where) SELECT a.rid, b.rid FROM w a
				JOIN w b ON a.rid = b.rid + 1"
		],
		[
			"SELECT $list FROM {t} x WHERE $where ORDER BY rid LIMIT 5 FOR "
			  . pick('UPDATE', 'SHARE', 'NO KEY UPDATE SKIP LOCKED'),
			1
		],
		[
			"SELECT rid FROM {t} x WHERE $where
				AND rid IN (SELECT rid FROM {t} ORDER BY rid LIMIT 20) FOR UPDATE OF x"
		],
		["COPY (SELECT $c, rid FROM {t} x WHERE $where) TO STDOUT"],
		["SELECT rid, (SELECT max(y.rid) FROM {t} y WHERE y.$k = x.$k) FROM {t} x WHERE $where"],
		[
			"SELECT x.rid FROM {t} x WHERE x.$k NOT IN (SELECT y.$k FROM {t} y
				WHERE y.$k IS NOT NULL AND y.rid % 2 = 0)"
		]);

	push(@shapes,
		[ "SELECT x.rid, y.rid, n.v FROM {t} x JOIN {t} y ON x.$k = y.$k
			LEFT JOIN native n ON n.k = y.$k WHERE $where AND y.rid % 3 = 0" ],
		[ "SELECT x.$k, n.v, count(*) FROM {t} x $join native n ON x.$k = n.k GROUP BY 1, 2" ],
		[ "SELECT n.v, x.rid FROM native n JOIN {t} x ON x.$k = n.k WHERE n.v = " . int(rand(7)) ])
	  if $key eq 'int';
	push(@shapes,
		[ "SELECT x.rid, y.rid FROM {t} x $join {u} y ON x.$k = y.$other_k" ],
		[ "SELECT x.$k, count(*), sum(y.rid) FROM {t} x JOIN {u} y ON x.$k = y.$other_k
			WHERE $where GROUP BY x.$k" ],
		[ "SELECT rid FROM {t} x WHERE EXISTS (SELECT FROM {u} y WHERE y.$other_k = x.$k
			AND y.rid > 50)" ])
	  if $comparable;
	return @{ pick(@shapes) };
}

1;
