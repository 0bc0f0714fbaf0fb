# DDL by others in the middle of a COPY, DDL in the transaction of a COPY, and
# DDL by functions that an INSERT runs: every row that a COPY has taken is
# there once, in the place where the DDL has put it.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('ddl_copy', conf => "allow_in_place_tablespaces = on\n");
$node->safe_psql('postgres', q{CREATE TABLESPACE elsewhere LOCATION ''});
$node->safe_psql('postgres', q{
	CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
	CREATE TABLE model (a int PRIMARY KEY, v text);
	CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN NEW.v := 'marked'; RETURN NEW; END $$;
	-- the rows of a table, and of one that it has lost
	CREATE FUNCTION rows_of(VARIADIC tables text[]) RETURNS TABLE (n bigint, different bigint)
	LANGUAGE plpgsql AS $$
	DECLARE
	  query text;
	BEGIN
	  SELECT string_agg('SELECT a::int FROM ' || t, ' UNION ALL ') INTO query
	    FROM unnest(tables) t WHERE to_regclass(t) IS NOT NULL;
	  RETURN QUERY EXECUTE 'SELECT count(*), count(DISTINCT a) FROM (' || query || ') all_rows';
	END $$;
});

my %options = (
	session => '',
	round_robin => q{, route 'round_robin'},
	hash => q{, route 'hash', key 'a'},
	lanes => q{, commit_order 'true'});
my $writer = session($node);
my $changer = session($node);
my $observer = session($node);
# Rows of 50 bytes; half of them are inserted while the COPY runs.
my $batch = 2000;

# A new logical table t with shards t_0 to t_2, batches that are written
# early, and some rows in each shard.
sub new_table
{
	my ($kind) = @_;

	$observer->query_safe(qq{
		SET client_min_messages = error;
		DROP FOREIGN TABLE IF EXISTS t CASCADE;
		DROP TABLE IF EXISTS kept, spare;
		CREATE FOREIGN TABLE t (a int, v text) SERVER shards
		  OPTIONS (shards '3', template 'model', batch_size '50'$options{$kind});
		CREATE TABLE spare (LIKE model INCLUDING ALL);
	});
	return;
}

sub rows
{
	my ($first, $last) = @_;
	return map { "$_\t" . 'v' x 45 } $first .. $last;
}

sub waits
{
	my ($session, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll_ok($node,
		"SELECT count(*) > 0 FROM pg_locks WHERE pid = $session->{pid} AND NOT granted",
		"$title: waits");
}

# The shards have the rows once, and their indexes know it.
sub has_rows
{
	my ($expected, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($observer->query_safe(q{SELECT * FROM rows_of('t', 'kept')}),
		"$expected|$expected", "$title: every row is there once");
	is( $observer->query_safe(q{
			BEGIN;
			SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
			SELECT count(*) FROM t WHERE a >= 0
			EXCEPT SELECT count(*) FROM t;
			COMMIT}),
		'', "$title: ... for an index, too");
}

# ---- A shard that the COPY has written.  The change waits for its end.

my %changes = (
	'drop' => q{BEGIN; LOCK TABLE %s; CREATE TABLE kept AS SELECT * FROM %s; DROP TABLE %s; COMMIT},
	'detach' => q{BEGIN; ALTER TABLE %s NO INHERIT t; ALTER TABLE %s RENAME TO kept; COMMIT},
	'rename' => 'ALTER TABLE %s RENAME TO renamed_t',
	'seal' => q{SELECT FROM shard_fdw.seal('%s')},
	'column' => q{ALTER TABLE t ADD COLUMN c int DEFAULT 5},
	'own column' => q{ALTER TABLE %s ADD COLUMN own text DEFAULT 'own'},
	'type' => 'ALTER TABLE t ALTER COLUMN v TYPE varchar(60)',
	'rewritten type' => 'ALTER TABLE t ALTER COLUMN a TYPE bigint',
	# The index, too: PostgreSQL does not get it right otherwise, if a table with
	# rows of the same transaction goes back to where it was.
	'tablespace' => 'ALTER TABLE %s SET TABLESPACE elsewhere;
		ALTER INDEX %s_pkey SET TABLESPACE elsewhere',
	'access method' => 'ALTER TABLE %s SET ACCESS METHOD heap2',
	'unlogged' => 'ALTER TABLE %s SET UNLOGGED',
	'index' => 'CREATE INDEX ON %s (v)',
	'no index' => 'ALTER TABLE %s DROP CONSTRAINT "%s_pkey"',
	'reindex' => 'REINDEX TABLE %s',
	'trigger' => 'CREATE TRIGGER mark BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION mark()',
	'constraint' => 'ALTER TABLE %s ADD CHECK (a > 0)',
	'rewrite' => 'VACUUM FULL %s',
	'options' => q{ALTER FOREIGN TABLE t OPTIONS (SET batch_size '7')},
	'truncate' => 'TRUNCATE t',
	'reshard' => q{SET client_min_messages = error; SELECT FROM shard_fdw.reshard('t', 4)},
	'all' => 'SET client_min_messages = error; DROP FOREIGN TABLE t CASCADE',
);

foreach my $kind (sort keys %options)
{
	foreach my $name (sort keys %changes)
	{
		next if $name eq 'reshard' && $kind ne 'hash';
		my $title = "$kind, $name";

		new_table($kind);
		$writer->query_safe("INSERT INTO t VALUES (1, 'first')");
		my $shard = $writer->query_safe('SELECT shard_fdw.last_shard()');
		copy_from($node, $writer, 'COPY t FROM STDIN', $batch / 2, rows(2, $batch));
		send_to($changer, "$changes{$name};\n" =~ s/%s/$shard/gr);
		waits($changer, $title);
		send_to($writer, join("\n", rows($batch + 1, 2 * $batch)) . "\n");
		is((state_of($writer, $copy_end))[0], '00000', "$title: the COPY goes on");
		is(join(' ', (state_of($changer, 'SELECT'))[0, 1]),
			'00000 ', "$title: ... then the change is made");
		if ($name eq 'all')
		{
			is($observer->query_safe(q{SELECT to_regclass('t'), to_regclass('t_0')}),
				'|', "$title: nothing is left");
			next;
		}
		has_rows($name eq 'truncate' ? 0 : 2 * $batch, $title);
		# Its row may belong to a shard of a hash table that is gone or closed.
		like( (state_of($writer, 'INSERT INTO t VALUES (1000000)'))[0],
			$kind eq 'hash' && $name =~ /drop|detach|seal/
			? qr/^(00000|23514|55000)$/
			: qr/^00000$/,
			"$title: the session goes on");
	}
}

# ---- Changes that need not wait are made while the COPY runs.

my @harmless = (
	'ALTER TABLE %s SET (fillfactor = 50)',
	'ANALYZE t', 'VACUUM %s',
	'ALTER TABLE %s ALTER COLUMN v SET STATISTICS 10',
	'ALTER TABLE %s VALIDATE CONSTRAINT positive',
	'ALTER INDEX %s_pkey RENAME TO %s_key',
	'CREATE STATISTICS correlated ON a, v FROM %s',
	'GRANT INSERT ON t TO PUBLIC',
	q{COMMENT ON TABLE %s IS 'being written'},
	q{ALTER SERVER shards OPTIONS (ADD batch_size '11')},
	q{ALTER SERVER shards OPTIONS (DROP batch_size)},
	'CREATE TABLE other (LIKE t); DROP TABLE other');
# Shards of a hash table are complete.
my @more_shards = (
	q{SELECT FROM shard_fdw.create_shards('t', 2)},
	'ALTER TABLE spare INHERIT t');

foreach my $kind (sort keys %options)
{
	new_table($kind);
	$observer->query_safe(
		"ALTER TABLE t_$_ ADD CONSTRAINT positive CHECK (a > 0) NOT VALID")
	  for 0 .. 2;
	$writer->query_safe("INSERT INTO t VALUES (1, 'first')");
	my $shard = $writer->query_safe('SELECT shard_fdw.last_shard()');
	my $n = $batch;
	copy_from($node, $writer, 'COPY t FROM STDIN', $batch / 2, rows(2, $n));
	foreach my $change (@harmless, $kind eq 'hash' ? () : @more_shards)
	{
		my ($state, $message) =
		  state_of($changer, $change =~ s/%s/$shard/gr);
		is("$state $message", '00000 ', "$kind: $change");
		send_to($writer, join("\n", rows($n + 1, $n + 500)) . "\n");
		$n += 500;
	}
	is((state_of($writer, $copy_end))[0], '00000', "$kind: the COPY has gone on");
	has_rows($n, "$kind, harmless changes");
	next if $kind ne 'round_robin';
	$writer->query_safe('INSERT INTO t SELECT 100000 + g FROM generate_series(1, 60) g');
	is( $observer->query_safe(q{
			SELECT string_agg(n::text, ' ') FROM
			  (SELECT count(*) AS n FROM t WHERE a > 100000 GROUP BY tableoid) shard}),
		'10 10 10 10 10 10', "$kind: new shards have their part in the next statement");
}

# ---- A shard that the COPY has not come to yet, changed by a transaction that
# has not ended: the COPY waits, and then takes the shard as it is.

foreach my $kind (sort keys %options)
{
	foreach my $name (
		'drop', 'detach', 'rename', 'seal', 'own column', 'tablespace',
		'access method', 'index', 'no index', 'trigger', 'constraint')
	{
		foreach my $end ('COMMIT', 'ROLLBACK')
		{
			my $title = "$kind, $name before, $end";

			new_table($kind);
			# The others would not wait for one shard, or not be let in.
			$observer->query_safe('DROP TABLE t_1, t_2')
			  if $kind ne 'round_robin' && $kind ne 'hash';
			send_to($writer, "COPY t FROM STDIN;\n");
			poll_ok($node, qq{
				SELECT count(*) = 1 FROM pg_stat_progress_copy WHERE pid = $writer->{pid}},
				"$title: has begun");
			my $change = $changes{$name} =~ s/%s/t_0/gr =~ s/BEGIN;|COMMIT//gr;
			is((state_of($changer, "BEGIN; $change"))[0], '00000', "$title: is made");
			send_to($writer, join("\n", rows(1, $batch)) . "\n");
			waits($writer, $title);
			# Where else are the rows to go?
			my $goes = $name =~ /drop|detach|seal/ && $end eq 'COMMIT';
			$changer->query_safe('ALTER TABLE spare INHERIT t')
			  if $goes && $kind =~ /session|lanes/;
			is((state_of($changer, $end))[0], '00000', "$title: ends");
			my ($state, $message) = state_of($writer, $copy_end);
			if ($kind eq 'hash' && $goes)
			{
				like("$state $message",
					qr/^(23514\ no\ shard\ of\ foreign\ table\ "t"\ takes\ the\ row
						|55000\ shard\ "t_0"\ of\ foreign\ table\ "t"\ is\ sealed)$/x,
					"$title: the COPY is refused");
				has_rows(0, $title);
				next;
			}
			is("$state $message", '00000 ', "$title: the COPY goes on");
			has_rows($batch, $title);
			is( $observer->query_safe(
					q{SELECT n > 0 FROM rows_of('t_0', 'renamed_t', 'kept')}),
				$goes ? 'f' : 't', "$title: the shard gets rows, if it is one");
			is( $observer->query_safe(q{SELECT DISTINCT v FROM t_0}),
				$end eq 'COMMIT' ? 'marked' : 'v' x 45,
				"$title: the trigger fires, if there is one")
			  if $name eq 'trigger';
		}
	}
}

$changer->quit;

# ---- Changes in the transaction of the COPY, between two of them; kept, and
# undone.

sub copy_text
{
	return join("\n", 'COPY t (a, v) FROM STDIN;', rows(@_), "\\.\n");
}

foreach my $kind (sort keys %options)
{
	foreach my $name (sort keys %changes)
	{
		next if $name =~ /^(rewrite|all)$/ || $name eq 'reshard' && $kind ne 'hash';
		my $change = $changes{$name} =~ s/BEGIN;|COMMIT//gr;

		foreach my $undone (0, 1)
		{
			my $title = "$kind, $name in the transaction" . ($undone ? ', undone' : '');

			new_table($kind);
			$writer->query_safe("INSERT INTO t VALUES (0, 'first')");
			my $shard = $writer->query_safe('SELECT shard_fdw.last_shard()');
			my ($state, $message) = state_of($writer,
				  "BEGIN;\nDELETE FROM t;\n" . copy_text(1, 200)
				  . "INSERT INTO t SELECT 200 + g, 'v' FROM generate_series(1, 100) g;\n"
				  . "SAVEPOINT s;\n"
				  . $change =~ s/%s/$shard/gr . ";\n"
				  . copy_text(301, 500)
				  . ($undone ? "ROLLBACK TO s;\n" . copy_text(301, 500) : '')
				  . "INSERT INTO t SELECT 500 + g, 'v' FROM generate_series(1, 100) g;\n"
				  . "COMMIT");
			if ($kind eq 'hash' && $name =~ /drop|detach|seal/)
			{
				like($state, qr/^(23514|55000)$/, "$title: its rows are refused");
			}
			else
			{
				is("$state $message", '00000 ', "$title: it is done");
			}
			has_rows($undone ? 600
				: $name eq 'truncate' ? 300
				: $state eq '00000' ? 600
				: 1, $title);
			is( (state_of($writer, 'SELECT count(*) FROM t'))[2],
				$observer->query_safe('SELECT count(*) FROM t'),
				"$title: the session knows what others know");
		}
	}
}

# ---- Changes by a function that an INSERT or COPY into the table runs, of a
# shard that it has written.  They are refused where a plain table refuses.

$observer->query_safe(q{
	CREATE FUNCTION change(command text) RETURNS text LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE command; RETURN 'changed'; END $$;
	CREATE FUNCTION change_at_once() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN
	  IF NEW.a = current_setting('test.row')::int THEN
	    NEW.v := change(current_setting('test.command'));
	  END IF;
	  RETURN NEW;
	END $$});

# The row that it happens with: all shards have rows before.
$writer->query_safe('SET test.row = 150');
my $trigger = 'CREATE TRIGGER change_at_once %s ON %s FOR EACH ROW
	EXECUTE FUNCTION change_at_once()';
my $from_query = q{
	INSERT INTO %s SELECT g, CASE g WHEN 150 THEN change(current_setting('test.command')) ELSE 'v'
	  END
	  FROM generate_series(1, 300) g};
my $from_values = "INSERT INTO %s SELECT g, 'v' FROM generate_series(1, 300) g";

foreach my $name (sort keys %changes)
{
	next if $name =~ /^(rewrite|drop|reshard)$/;
	my $change = $changes{$name} =~ s/BEGIN;|COMMIT//gr;

	foreach my $place ('query', 'BEFORE INSERT', 'AFTER INSERT')
	{
		# What a plain table says: of those that it can be asked.
		my $expected = '55006';
		if ($name !~ /^(detach|seal|options)$/)
		{
			my $asked = $change =~ s/%s/plain/gr =~ s/FOREIGN TABLE t CASCADE/TABLE plain/r
			  =~ s/TABLE t /TABLE plain /r =~ s/TRUNCATE t/TRUNCATE plain/r;
			new_table('session');
			$observer->query_safe('CREATE TABLE plain (LIKE model INCLUDING ALL)');
			$writer->query_safe(sprintf($trigger, $place, 'plain')) if $place ne 'query';
			$writer->query_safe("SET test.command = '" . $asked =~ s/'/''/gr . "'");
			($expected) = state_of($writer,
				sprintf($place eq 'query' ? $from_query : $from_values, 'plain'));
			$observer->query_safe(q{
				SET client_min_messages = error; DROP TABLE IF EXISTS plain, renamed_t});
		}
		foreach my $kind ($place =~ /AFTER/ ? () : 'session', 'round_robin')
		{
			foreach my $with ('INSERT', $place eq 'query' || $kind eq 'session' ? () : 'COPY')
			{
				foreach my $on ($place eq 'query' ? () : 'shards', 't')
				{
					my $title =
					  "$kind, $with, $name, $place" . ($place eq 'query' ? '' : " on $on");

					new_table($kind);
					$writer->query_safe('INSERT INTO t VALUES (1000)');
					my $shard = $writer->query_safe('SELECT shard_fdw.last_shard()');
					if ($place ne 'query')
					{
						$writer->query_safe(sprintf($trigger, $place, $_))
						  foreach $on eq 't' ? 't' : ('t_0', 't_1', 't_2');
					}
					$writer->query_safe("SET test.command = '"
						  . $change =~ s/%s/$shard/gr =~ s/'/''/gr . "'");
					my ($state, $message) = state_of($writer,
						$with eq 'COPY' ? copy_text(1, 300) . 'SELECT'
						: sprintf($place eq 'query' ? $from_query : $from_values, 't'));
					is($state, $expected, "$title: $message");
					like(
						$message,
						qr/\ because\ it\ (is\ being\ used\ by\ active\ queries\ in\ this\ session
							|has\ pending\ trigger\ events)$/x,
						"$title: the error says why") if $state ne '00000';
					has_rows($state eq '00000' ? 301 : 1, $title);
					is((state_of($writer, 'INSERT INTO t VALUES (1001)'))[0],
						'00000', "$title: the session goes on");
				}
			}
		}
	}
}

# ---- The same with the first row, before it is known where that goes: the
# statement takes the shards as they are then.

$writer->query_safe('SET test.row = 1');
foreach my $kind ('session', 'round_robin')
{
	foreach my $name (
		'drop', 'detach', 'rename', 'seal', 'own column', 'tablespace', 'create',
		'access method', 'index', 'no index', 'trigger', 'constraint')
	{
		foreach my $with ('INSERT', 'COPY')
		{
			my $title = "$kind, $with, $name with the first row";
			my $change = ($changes{$name} // q{SELECT FROM shard_fdw.create_shards('t', 2)})
			  =~ s/BEGIN;|COMMIT//gr;

			new_table($kind);
			$writer->query_safe('INSERT INTO t VALUES (1000)');
			my $shard = $writer->query_safe('SELECT shard_fdw.last_shard()');
			$writer->query_safe(sprintf($trigger, 'BEFORE INSERT', 't')
				  . "; SET test.command = '" . $change =~ s/%s/$shard/gr =~ s/'/''/gr . "'");
			my ($state, $message) = state_of($writer,
				$with eq 'COPY' ? copy_text(1, 300) . 'SELECT' : sprintf($from_values, 't'));
			is("$state $message", '00000 ', "$title: works");
			has_rows(301, $title);
			is( $observer->query_safe(q{
					SELECT count(DISTINCT tableoid) FROM t WHERE a <> 1000}),
				$kind eq 'session'            ? 1
				: $name =~ /drop|detach|seal/ ? 2
				: $name eq 'create'           ? 5
				: 3,
				"$title: the rows are in open shards");
		}
	}
}

$_->quit foreach $writer, $observer;
$node->stop;
done_testing();
