# Nodes of another PostgreSQL version than the server that has the logical
# table: a newer one with an older node, and the other way round.  Needs an older
# server: OLD_PG_CONFIG for test/with-cluster, as test/matrix does.
use strict;
use warnings;

use ShardTest;
use Test::More;

plan skip_all => 'no older server is given by OLD_PG_CONFIG'
  unless $ENV{OLD_INSTALL};

my $new = shard_node('new');
my $old = shard_node('old', install_path => $ENV{OLD_INSTALL});

foreach my $server ($new, $old)
{
	plan skip_all => 'no postgres_fdw'
	  if !$server->safe_psql('postgres',
		q{SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'});
}

my ($here, $node, $database, $title, $session);

sub run_here { my ($sql) = @_; return $here->safe_psql($database, $sql); }
sub run_there { my ($sql) = @_; return $node->safe_psql($database, $sql); }

# A result that is expected here.
sub here_is
{
	my ($sql, $wanted, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(run_here($sql), $wanted, "$title: $what");
}

# Run a command on the table and on its twin, a plain table: both say the same
# (of RETURNING, in any order), and have the same rows afterwards.
sub both
{
	my ($command, $state) = @_;
	my ($what) = split(/\n/, $command);
	my @outcomes;

	$state //= '00000';
	foreach my $table ('t', 'twin')
	{
		(my $sql = $command) =~ s/(\b(?:INTO|FROM|TABLE|UPDATE|COPY) |RETURNING |WHERE )t(?=[ .;]|$)/$1$table/g;
		my ($found, undef, $output, $errors) = state_of($session, $sql);

		push(@outcomes, join("\n", $found, sort(split(/\n/, $output))));
		diag("$table: $errors") if $found ne $state;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($outcomes[0], $outcomes[1], "$title: $what");
	like($outcomes[0], qr/^$state/, "$title: $what: SQLSTATE");
	same_rows($what) if $state eq '00000';
	return;
}

sub same_rows
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is((state_of($session, q{
		SELECT count(*) FROM ((TABLE t EXCEPT ALL TABLE twin) UNION ALL (TABLE twin EXCEPT ALL TABLE t)) d;
		SELECT * FROM shard_fdw.check_nodes('t')}))[2], '0', "$title: $what: rows");
}

# A random element.
sub one { return $_[ rand @_ ]; }

# A random query of the table %1$s.
sub random_query
{
	my $n = int(rand 600);
	my @conditions = (
		'true', 'true', "id = $n", "id IN ($n, 7, 11, 401)", "id = ANY ('{1, 2, $n}')", "id IS NOT DISTINCT FROM $n",
		"k % 7 = 3", "k BETWEEN 3 AND $n", "v LIKE 'v1%%'", "v > 'v3' COLLATE \"C\"", "lower(v) = 'v$n'", 'a IS NULL',
		"coalesce(a, 0) < 50.5", "CASE WHEN k > 10 THEN f > 3 ELSE a > 1 END", "ts < '2024-02-01 12:00+02'",
		"d - date '2024-01-01' > $n % 40", "j ->> 'x' = '3'", "j \@> '{\"x\": 4}'", "x && ARRAY[$n % 10]", "b IS TRUE",
		"NOT (b OR k < 20)", "i > interval '3 days'", "substr(v, 2, 1) <> '4'", "y < '\\x80'", "id <> ALL ('{3, 4}')",
		'f NOT IN (1, 2.5)', 'r @> 7', 'date_trunc($$month$$, ts) = ts', 'id = (SELECT min(id) + 3 FROM twin)');
	my @groups = ('k % 5', 'b', 'd', 'id', 'v', 'k % 3, b', 'length(v)', 'x', "j -> 'x'", 'u');
	my @aggregates = (
		'count(*)', 'count(a)', 'count(DISTINCT k)', 'sum(k)', 'sum(id)', 'sum(a)', 'sum(f)', 'sum(i)', 'avg(k)', 'avg(a)', 'avg(f)',
		'min(v)', 'max(v)', 'min(ts)', 'max(d)', 'min(a)', 'max(f)', 'bool_and(b)', 'every(k > 1)', 'bool_or(b)', 'bit_xor(k)',
		'bit_and(id)', 'round(stddev(f)::numeric, 6)', 'round(var_pop(k), 6)', 'min(i)', 'array_agg(id ORDER BY id)',
		q{string_agg(v, ',' ORDER BY id)}, 'count(*) FILTER (WHERE k > 9)', 'sum(k) FILTER (WHERE b)', 'max(x)');
	my $where = join(one(' AND ', ' OR '), map { one(@conditions) } 1 .. 1 + rand 3);
	my $kind = rand 10;

	$where =~ s/%%/%/g;
	if ($kind < 5)
	{
		my $list = join(', ', map { one(@aggregates) } 1 .. 1 + rand 3);
		my $group = one(@groups);

		return [ "SELECT $list FROM %s WHERE $where", 0 ] if $kind < 2;
		return [ "SELECT $group, $list FROM %s WHERE $where GROUP BY $group"
			  . one('', ' HAVING count(*) > 1', ' HAVING max(k) > 30'), 0 ];
	}
	if ($kind < 8)
	{
		my $order = one('id', 'k, id', 'v DESC, id', 'f NULLS FIRST, id DESC', 'a DESC NULLS LAST, id', 'ts, id', 'd DESC, id');

		return [ "SELECT * FROM %s WHERE $where ORDER BY $order LIMIT "
			  . int(rand 20) . one('', ' OFFSET 3'), 1 ];
	}
	return [ "SELECT id, v, k + 1, a * 2, upper(v), x[1] FROM %s WHERE $where", 0 ] if $kind < 9;
	return [ "SELECT p.id, q.id FROM %1\$s p JOIN %1\$s q ON "
		  . one('p.id = q.id', 'p.k = q.k', 'p.id = q.k') . ' WHERE q.k < 40', 0 ];
}

# Random queries of both, in one session for all: gives those that differ.
sub random_queries
{
	my ($count) = @_;
	my $script = '';

	foreach (1 .. $count)
	{
		my ($query, $is_ordered) = @{ random_query() };
		my @texts = map { my $table = $_; $query =~ s/%(1\$)?s/$table/gr } 't', 'twin';
		my $order = $is_ordered ? '' : ' ORDER BY s::text COLLATE "C"';
		my ($found, $wanted) = map { "(SELECT coalesce(string_agg(s::text, '|'$order), '') FROM ($_) s)" } @texts;

		$query =~ s/'/''/g;
		$script .= 'SET enable_partitionwise_aggregate = ' . one('on', 'off') . ";\n"
		  . "SELECT 'differs: $query' WHERE $found <> $wanted;\n";
	}
	return run_here($script);
}

sub with_versions
{
	($here, $node, $database) = @_;
	$title = $here->pg_version . ' with a node of ' . $node->pg_version;
	$_->safe_psql('postgres', "CREATE DATABASE $database") foreach $here, $node;
	run_there('CREATE EXTENSION shard_fdw');
	run_here(sprintf(q{
		CREATE EXTENSION shard_fdw;
		CREATE EXTENSION postgres_fdw;
		CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw;
		CREATE SERVER n1 FOREIGN DATA WRAPPER postgres_fdw
		  OPTIONS (host '%s', port '%s', dbname '%s', batch_size '1000', async_capable 'true');
		CREATE USER MAPPING FOR CURRENT_USER SERVER n1;
		SET client_min_messages = error;
		CREATE TABLE model (
		  id bigint PRIMARY KEY, k int NOT NULL CONSTRAINT large CHECK (k >= 0), v text, a numeric(12, 2), f float8, ts timestamptz,
		  d date, j jsonb, x int[], b bool, i interval, y bytea, u uuid, r int4range,
		  g int GENERATED ALWAYS AS (k * 2) STORED, CONSTRAINT short CHECK (length(v) < 100))
		  WITH (fillfactor = 90, autovacuum_enabled = off);
		CREATE INDEX ON model (k DESC NULLS LAST, id) INCLUDE (b) WHERE v IS NOT NULL;
		CREATE UNIQUE INDEX ON model (id, v) NULLS NOT DISTINCT;
		CREATE INDEX ON model USING gin (x);
		CREATE TABLE twin (LIKE model INCLUDING ALL);
		CREATE FOREIGN TABLE t (
		  id bigint, k int, v text, a numeric(12, 2), f float8, ts timestamptz,
		  d date, j jsonb, x int[], b bool, i interval, y bytea, u uuid, r int4range,
		  g int GENERATED ALWAYS AS (k * 2) STORED)
		  SERVER shards OPTIONS (shards '4', template 'model', nodes 'local, n1', route 'hash', key 'id');
		CREATE VIEW made AS
		SELECT g AS id, g %% 90 AS k, 'v' || g AS v, nullif(g %% 50, 0) / 8.0 AS a, nullif(g %% 40, 9) / 4.0::float8 AS f,
		  timestamptz '2024-01-01 00:00+00' + g * interval '7 hours' AS ts, date '2024-01-01' + g %% 60 AS d,
		  jsonb_build_object('x', g %% 6) AS j, ARRAY[g %% 10, g %% 4] AS x, nullif(g %% 3, 2)::bool AS b,
		  g %% 9 * interval '1 day 1 hour' AS i, decode(lpad(to_hex(g %% 256), 2, '0'), 'hex') AS y,
		  md5((g %% 20)::text)::uuid AS u, int4range(g %% 10, g %% 10 + 3) AS r
		  FROM generate_series(1, 2000) g}, $node->host, $node->port, $database));
	here_is(q{SELECT string_agg(coalesce(server, 'local'), ' ' ORDER BY ordinal) FROM shard_fdw.shards},
		'local n1 local n1', 'shards are made');
	is(run_there(q{SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conrelid) FROM pg_constraint WHERE conname = 'shard_hash'}),
		'CHECK (shard_fdw.in_hash(4, 1, id)) CHECK (shard_fdw.in_hash(4, 3, id))', "$title: the node knows the hashes");

	$session = session($here, undef, $database);

	# Rows
	my $columns = 'id, k, v, a, f, ts, d, j, x, b, i, y, u, r';

	both("INSERT INTO t ($columns) SELECT * FROM made WHERE id <= 500");
	both("INSERT INTO t ($columns) SELECT * FROM made WHERE id = $_") foreach 501, 502;
	both(q{INSERT INTO t (id, k, v) VALUES (503, 1, 'v'), (504, 2, NULL), (505, 3, 'x'), (506, 4, '') RETURNING *});
	both("COPY t ($columns) FROM STDIN;\n"
		  . run_here('COPY (SELECT * FROM made WHERE id BETWEEN 507 AND 900) TO STDOUT') . "\n$copy_end");
	both('INSERT INTO t (id, k) VALUES (-1, -1)', '23514');
	both('INSERT INTO t (id, k) SELECT -g, nullif(g, 9) FROM generate_series(1, 9) g', '23502');
	both('INSERT INTO t (id, k) SELECT g, g FROM generate_series(890, 910) g', '23505');
	both(q{INSERT INTO t (id, k, v) SELECT g, g, 'c' FROM generate_series(890, 910) g ON CONFLICT DO NOTHING});
	both(q{INSERT INTO t (id, k, v) SELECT g, g, 'd' FROM generate_series(900, 920) g ON CONFLICT DO NOTHING});
	both(q{UPDATE t SET v = v || 'u', a = a + 1, k = k + 3 WHERE id = 3 RETURNING *});
	both(q{UPDATE t SET x = '{9}', j = '{"x": [1, null]}', ts = 'infinity', b = NULL WHERE id IN (4, 5, 6, 7)});
	both(q{UPDATE t SET v = repeat(v, 100) WHERE id BETWEEN 10 AND 40}, '23514');
	both(q{UPDATE t SET v = 'joined' FROM generate_series(50, 60) n WHERE t.id = n RETURNING t.id, g});
	both('DELETE FROM t WHERE id = 8 RETURNING id, a');
	both('DELETE FROM t WHERE id BETWEEN 100 AND 110');
	both(q{BEGIN; INSERT INTO t (id, k) SELECT g, g FROM generate_series(2000, 2010) g; SAVEPOINT a;
		DELETE FROM t; ROLLBACK TO a; UPDATE t SET k = 5 WHERE id > 2005; COMMIT});

	# Queries
	is(random_queries(40), '', "$title: random queries");
	here_is(q{SELECT format('ANALYZE %s', shard) FROM shard_fdw.shards WHERE server IS NOT NULL \gexec
		ANALYZE t; ANALYZE twin;
		SELECT sum(reltuples) = (SELECT count(*) FROM t WHERE tableoid <> ALL (SELECT shard FROM shard_fdw.shards WHERE server IS NULL))
		  FROM pg_class WHERE oid = ANY (SELECT shard FROM shard_fdw.shards WHERE server IS NOT NULL)},
		't', 'ANALYZE of remote shards');
	is(random_queries(80), '', "$title: random queries with statistics");
	my $plan = run_here(q{SET enable_partitionwise_aggregate = on;
		EXPLAIN (VERBOSE, COSTS OFF) SELECT k % 5, count(*), sum(k), max(v) FROM t GROUP BY 1;
		EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM t ORDER BY k, id LIMIT 5});

	like($plan, qr/Remote SQL: SELECT .*sum\(k\), max\(v\)/, "$title: the node aggregates");
	like($plan, qr/Remote SQL: SELECT .* LIMIT 5/, "$title: the node gets the LIMIT");

	# What only one of the versions has
	if ($here->pg_version >= 16 && $node->pg_version < 16)
	{
		my $any = 'SELECT count(*) FROM (SELECT k % 5, any_value(k % 5) AS a FROM t GROUP BY k % 5) s WHERE a < 5';

		fails($here, "SET enable_partitionwise_aggregate = on; $any", '42883', 'function any_value(integer) does not exist',
			database => $database, title => "$title: an aggregate that the node does not have");
		here_is("SET enable_partitionwise_aggregate = off; $any", '5', 'an aggregate that is here');
	}
	if ($here->pg_version >= 18 && $node->pg_version < 18)
	{
		fails($here, q{CREATE FOREIGN TABLE v (k int, g int GENERATED ALWAYS AS (k + 1) VIRTUAL) SERVER shards
				OPTIONS (shards '2', nodes 'n1')}, '42601', qr/^command on server "n1" failed: syntax error/,
			database => $database, title => "$title: a column that the node cannot have");
	}

	# Columns and constraints reach the node.
	both($_) foreach (
		q{ALTER TABLE t ADD note varchar(20) COLLATE "C", ADD n int NOT NULL DEFAULT 5, ADD CONSTRAINT few CHECK (n < 100)},
		q{UPDATE t SET note = 'n' || id, n = id % 20 WHERE k < 50},
		'ALTER TABLE t ALTER n TYPE bigint, DROP COLUMN d',
		'ALTER TABLE t RENAME n TO many',
		q{UPDATE t SET v = '' WHERE v IS NULL},
		'ALTER TABLE t ALTER v SET NOT NULL');
	both('INSERT INTO t (id, k, v) SELECT g, g, nullif(g, 3005) FROM generate_series(3000, 3009) g', '23502');
	is( run_there(q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = 't_1'::regclass AND (attnum > 14 OR attname = 'd') AND NOT attisdropped}),
		'g integer, note character varying(20), many bigint', "$title: columns of the node");
	both('ALTER TABLE t ALTER v DROP NOT NULL, DROP CONSTRAINT few');
	run_there('ALTER TABLE t_1 DROP note; DROP INDEX t_1_x_idx');
	like(run_here(q{SELECT problem FROM shard_fdw.check_nodes('t')}), qr/note/, "$title: check_nodes() finds what is missing");
	here_is(q{SELECT command FROM shard_fdw.sync_nodes('t');
		SELECT * FROM shard_fdw.check_nodes('t')},
		"ALTER TABLE public.t_1 ADD COLUMN note character varying(20) COLLATE \"C\"\nCREATE INDEX ON public.t_1 USING gin (x)",
		'sync_nodes()');
	run_here(q{UPDATE t SET note = 'n' || id WHERE k < 50 AND v <> 'none'; UPDATE twin SET note = t.note FROM t WHERE twin.id = t.id});
	same_rows('sync_nodes()');

	# Commands there
	here_is(q{SELECT node, success, result FROM shard_fdw.run_command_on_nodes('t', 'SHOW server_version_num')},
		'n1|t|' . run_there('SHOW server_version_num'), 'run_command_on_nodes()');
	here_is(q{SELECT * FROM shard_fdw.run_command_on_shards('t', 'CREATE INDEX ON %s (u)')},
		join("\n", map { "t_$_|t|CREATE INDEX" } 0 .. 3), 'run_command_on_shards()');

	# Moves
	my $places = q{SELECT string_agg(coalesce(server, 'local'), ' ' ORDER BY ordinal) FROM shard_fdw.shards WHERE logical = 't'::regclass};
	my $indexes = q{SELECT replace(string_agg(pg_get_indexdef(indexrelid), E'\n' ORDER BY indexrelid::regclass::text COLLATE "C"), 't_0', 'twin')
		FROM pg_index WHERE indrelid = 't_0'::regclass};
	my $before = run_here($indexes);

	run_here(q{SET client_min_messages = error; SELECT shard_fdw.move_shard('t_0', 'n1'); SELECT shard_fdw.move_shard('t_1', 'local', allow_reads => true)});
	here_is($places, 'n1 local local n1', 'move_shard()');
	is(run_there($indexes), $before, "$title: indexes go with a shard");
	both(q{UPDATE t SET k = k + 1, v = v || 'm' WHERE id % 3 = 0});
	run_here(q{SET client_min_messages = error; SELECT shard_fdw.move_shard('t_0', 'local'); SELECT shard_fdw.move_shard('t_1', 'n1', allow_reads => true)});
	here_is($places, 'local n1 local n1', 'move_shard() back');
	is(run_here($indexes), $before, "$title: indexes come back with a shard");
	both('INSERT INTO t (id, k) SELECT g, g FROM generate_series(4000, 4100) g');

	# Seals and closed shards
	run_here(q{SELECT shard_fdw.seal('t_1')});
	both('SELECT id, a FROM t WHERE k % 9 = 1');
	fails($here, 'INSERT INTO t (id, k) SELECT g, g FROM generate_series(5000, 5100) g', '55000', undef,
		database => $database, title => "$title: a sealed shard");
	fails($here, 'UPDATE t SET k = 1 WHERE id < 100', '23514', undef,
		database => $database, title => "$title: updates of a sealed shard");
	run_here(q{SELECT shard_fdw.unseal('t_1')});
	both('UPDATE t SET k = 1 WHERE id < 100');
	run_here(q{SET client_min_messages = error;
		CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
		  OPTIONS (shards '3', nodes 'local, n1', route 'round_robin', batch_size '10');
		SELECT shard_fdw.close_shard('log_1');
		INSERT INTO log (v) SELECT g FROM generate_series(1, 100) g});
	here_is(q{SELECT count(*), count(DISTINCT id), count(DISTINCT tableoid) FROM log;
		SELECT shard_fdw.open_shard('log_1');
		INSERT INTO log (v) SELECT g FROM generate_series(1, 100) g;
		SELECT count(*), count(DISTINCT id), count(DISTINCT tableoid) FROM log},
		"100|100|2\n\n200|200|3", 'a closed shard');
	$session->quit;
	return;
}

with_versions($new, $old, 'new_here');
with_versions($old, $new, 'old_here');
done_testing();
