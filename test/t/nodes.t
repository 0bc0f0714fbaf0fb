# Shards on other servers, which postgres_fdw reaches: two nodes beside this
# server.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

# Constraints hold as in a table whose shards are all here.  Tables of the nodes
# have none, so that nobody else could see to it.

my $columns = 'id int, v text, n int, m int';
my $table = q{ (id int, v text NOT NULL, n int CONSTRAINT positive CHECK (n > 0), m int,
	CONSTRAINT small CHECK (n + m < 100)) SERVER shards OPTIONS (route 'hash', key 'id')};

$here->safe_psql('postgres', qq{
	CREATE SCHEMA near;
	CREATE SCHEMA far;
	CREATE TABLE plain ($columns);
	CREATE FOREIGN TABLE near.t $table;
	CREATE FOREIGN TABLE far.t $table});
add_shards('near.t', $columns, 'shard_fdw.in_hash(5, %d, id)', ('local') x 5);
add_shards('far.t', $columns, 'shard_fdw.in_hash(5, %d, id)', 'n1', 'local', 'n2', 'n1', 'n2');
$here->safe_psql('postgres', q{
	-- What a command leads to: its error, or how many rows it affects.
	CREATE FUNCTION outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
	  n bigint;
	BEGIN
	  EXECUTE command;
	  GET DIAGNOSTICS n = ROW_COUNT;
	  RETURN n;
	EXCEPTION WHEN OTHERS THEN
	  RETURN SQLSTATE || ' ' || SQLERRM;
	END $$;

	-- A random command.
	CREATE FUNCTION command() RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
	  id text := (random() * 60)::int;
	  ids text := format('id BETWEEN %s AND %s', id, id::int + (random() * 20)::int);
	  some_v text := (ARRAY['''v''', '''w''', 'v || ''x''', 'nullif(v, ''v'')', 'NULL'])
	    [1 + floor(random() * 5)::int];
	  some_n text := (ARRAY['1', '7', 'n + 1', 'n - 1', 'n - 3', 'n * 2', 'NULL', '0', 'm'])
	    [1 + floor(random() * 9)::int];
	BEGIN
	  RETURN CASE (random() * 11)::int
	    WHEN 0 THEN format('INSERT INTO t VALUES (%s, ''v'', %s, 3)', id,
	                       (ARRAY['0', '2', 'NULL', '98'])[1 + floor(random() * 4)::int])
	    WHEN 1 THEN format('INSERT INTO t SELECT g, ''v'', g %% 90, 3 FROM generate_series(%s, %s, 3) g',
	                       id, id::int + (random() * 30)::int)
	    WHEN 2 THEN format('UPDATE t SET n = %s WHERE %s', some_n, ids)
	    WHEN 3 THEN format('UPDATE t SET n = %s, v = %s WHERE %s', some_n, some_v, ids)
	    WHEN 4 THEN format('UPDATE t SET v = %s WHERE %s', some_v, ids)
	    WHEN 5 THEN format('UPDATE t SET v = %s WHERE id = %s', some_v, id)
	    WHEN 6 THEN format('UPDATE t SET id = id + %s WHERE id = %s', (random() * 4)::int, id)
	    WHEN 7 THEN format('UPDATE t SET m = m + 1, n = n FROM generate_series(1, 30) g '
	                       'WHERE t.id = g AND %s', ids)
	    WHEN 8 THEN format('DELETE FROM t WHERE %s AND n %% 3 = 0', ids)
	    WHEN 9 THEN format('WITH u AS (UPDATE t SET n = %s WHERE id = %s RETURNING *) '
	                       'SELECT * FROM u', some_n, id)
	    WHEN 10 THEN format('UPDATE t SET m = CASE WHEN m > 90 THEN 0 ELSE m * 2 END WHERE %s', ids)
	    ELSE format('UPDATE t SET v = %s WHERE n = %s', some_v, (random() * 9)::int)
	  END;
	END $$});

# Returns what is different, and how many commands have failed.
sub run_on_both
{
	my ($seed, $n) = @_;

	return $here->safe_psql('postgres', qq{
		SET client_min_messages = warning;
		SET search_path = near, public;
		CREATE TABLE IF NOT EXISTS public.log (seed int, n int, command text, near text, far text);
		SELECT setseed(0.01 * $seed);
		DO \$\$
		DECLARE
		  c text;
		  near text;
		  far text;
		BEGIN
		  FOR i IN 1 .. $n LOOP
		    c := command();
		    PERFORM set_config('shard_fdw.shard',
		                       CASE WHEN random() < 0.2 THEN (random() * 4)::int ELSE -1 END::text, true);
		    SET search_path = near, public;
		    near := outcome(c);
		    SET search_path = far, public;
		    far := outcome(c);
		    INSERT INTO log VALUES ($seed, i, c, near, far);
		  END LOOP;
		END \$\$;
		SELECT 'command: ' || log::text FROM log WHERE seed = $seed AND near <> far;
		SELECT 'row: ' || r FROM (
		  (SELECT replace(tableoid::regclass::text, 'near.', '') AS s, * FROM near.t EXCEPT ALL
		   SELECT replace(tableoid::regclass::text, 'far.', '') AS s, * FROM far.t) UNION ALL
		  (SELECT replace(tableoid::regclass::text, 'far.', '') AS s, * FROM far.t EXCEPT ALL
		   SELECT replace(tableoid::regclass::text, 'near.', '') AS s, * FROM near.t)) r;
		SELECT 'key: ' || g FROM generate_series(0, 110) g
		 WHERE (SELECT count(*) FROM far.t WHERE id = g) <>
		       (SELECT count(*) FROM far.t WHERE id + 0 = g);
	});
}

is(run_on_both($_, 120), '', "constraints of remote shards: random commands, $_")
  foreach 1 .. 3;
foreach my $state ('23502', '23514')
{
	ok( $here->safe_psql('postgres',
			"SELECT count(*) FROM log WHERE far LIKE '$state%' AND command LIKE 'UPDATE%'") > 5,
		"constraints of remote shards: some updates fail with $state");
}
ok( $here->safe_psql('postgres', q{SELECT count(*) FROM log WHERE far LIKE '%"shard_hash"'}) > 5,
	'constraints of remote shards: some rows would leave their place');
is( $here->safe_psql('postgres', q{SELECT far, command FROM log
		WHERE far NOT LIKE '23514%' AND far NOT LIKE '23502%' AND far !~ '^\d+$'}),
	'', 'constraints of remote shards: no other error');

# A shard that is sealed, or has a range
$here->safe_psql('postgres', q{
	SET search_path = far, public;
	TRUNCATE t;
	INSERT INTO t SELECT g, 'v', 1, 1 FROM generate_series(1, 50) g;
	SELECT shard_fdw.seal('t_0');
	ALTER FOREIGN TABLE t_2 ADD CONSTRAINT range CHECK (m >= 1 AND m <= 5)});
fails($here, 'UPDATE far.t SET m = 2', '23514',
	'new row for relation "t_0" violates check constraint "shard_sealed"',
	title => 'a sealed remote shard takes no updates');
fails($here, 'UPDATE far.t SET m = 6 WHERE tableoid <> $$far.t_0$$::regclass', '23514',
	'new row for relation "t_2" violates check constraint "range"',
	title => 'a remote shard keeps to its range');
is( $here->safe_psql('postgres', q{
		UPDATE far.t SET m = 2 WHERE tableoid <> 'far.t_0'::regclass;
		DELETE FROM far.t WHERE tableoid = 'far.t_0'::regclass;
		SELECT min(m), max(m) FROM far.t}), '2|2', 'a sealed remote shard, and others');

# What cannot break a constraint is left to the node as a whole.
$here->safe_psql('postgres', q{SELECT shard_fdw.unseal('far.t_0')});
foreach my $case (
	[ q{m = NULL}, 0 ], [ q{v = 'x'}, 1 ], [ q{v = v || 'x'}, 0 ],
	[ q{v = 'x', n = 1}, 0 ], [ q{id = id}, 0 ])
{
	my ($set, $is_direct) = @$case;
	my $plan = $here->safe_psql('postgres', "EXPLAIN (VERBOSE) UPDATE far.t SET $set");
	my $direct = () = $plan =~ /Remote SQL: UPDATE (?!.* ctid = )/g;

	is($direct, $is_direct ? 4 : 0,
		"UPDATE ... SET $set is " . ($is_direct ? '' : 'not ') . 'sent as a whole');
}

# What the node does to a row is noticed.
$nodes[0]->safe_psql('postgres', q{
	CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql
	  AS 'BEGIN NEW.id := NEW.id + 1; RETURN NEW; END';
	CREATE TRIGGER spoil BEFORE UPDATE ON t_0 FOR EACH ROW EXECUTE FUNCTION spoil();
	CREATE TRIGGER spoil BEFORE UPDATE ON t_3 FOR EACH ROW EXECUTE FUNCTION spoil()});
fails($here, 'UPDATE far.t SET n = 2', '23514',
	qr/^new row for relation "t_[03]" violates check constraint "shard_hash"/,
	title => 'a trigger of the node moves rows away');

# Rights on the logical table are enough, and details are not for everybody.
$nodes[0]->safe_psql('postgres', 'DROP FUNCTION spoil CASCADE');
$here->safe_psql('postgres', q{
	CREATE ROLE app;
	GRANT USAGE ON SCHEMA far TO app;
	GRANT SELECT, UPDATE ON far.t TO app;
	CREATE USER MAPPING FOR app SERVER n1 OPTIONS (user 'postgres', password_required 'false');
	CREATE USER MAPPING FOR app SERVER n2 OPTIONS (user 'postgres', password_required 'false');
	SET ROLE app;
	UPDATE far.t SET n = 3 WHERE m = 2});
fails($here, 'SET ROLE app; UPDATE far.t SET n = 0 WHERE m = 2', '23514',
	qr/^new row for relation "t_\d" violates check constraint "positive"$/,
	title => 'another user');
fails($here, q{SELECT shard_fdw.check_row(ROW(1, 2))}, '42809',
	'argument is not a row of a foreign table');
fails($here, q{SELECT shard_fdw.check_row(p) FROM (VALUES (1)) v(x), LATERAL (SELECT x) p}, '42809',
	'argument is not a row of a foreign table', title => 'check_row() of another row');

# Batches are full, and the number of statements that of native partitions.

my $wide = 'id int, v text';
$here->safe_psql('postgres', q{
	CREATE FOREIGN TABLE b (id int, v text) SERVER shards OPTIONS (route 'hash', key 'id');
	CREATE FOREIGN TABLE r (id int, v text) SERVER shards OPTIONS (route 'round_robin');
	CREATE TABLE p (id int, v text) PARTITION BY HASH (id)});
add_shards('b', $wide, 'shard_fdw.in_hash(8, %d, id)', ('n1', 'n2') x 4);
add_shards('r', $wide, '', ('n1', 'local') x 2);
foreach my $i (0 .. 7)
{
	my $node = $nodes[ $i % 2 ];
	my $name = $node->name;

	$node->safe_psql('postgres', "CREATE TABLE p_$i ($wide)");
	$here->safe_psql('postgres', qq{
		CREATE FOREIGN TABLE p_$i PARTITION OF p FOR VALUES WITH (MODULUS 8, REMAINDER $i)
		  SERVER $name OPTIONS (table_name 'p_$i')});
}
$_->safe_psql('postgres', q{
	CREATE TABLE statements (tbl text, n int, bytes bigint);
	CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	  INSERT INTO public.statements SELECT TG_TABLE_NAME, count(*), sum(length(v)) FROM new_rows;
	  RETURN NULL;
	END $$;
	SELECT format('CREATE TRIGGER count_rows AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows '
	              'FOR EACH STATEMENT EXECUTE FUNCTION count_rows()', relname)
	  FROM pg_class WHERE relname ~ '^[bpr]_\d$' \gexec}) foreach @nodes;

# The statements that a command has sent to tables with this name.
sub statements
{
	my ($table, $command) = @_;
	my @counts;

	$here->safe_psql('postgres', $command);
	foreach my $node (@nodes)
	{
		push(@counts, split(/\n/, $node->safe_psql('postgres', qq{
			SELECT tbl || ' ' || n || ' ' || bytes FROM statements WHERE tbl ~ '^${table}_';
			TRUNCATE statements})));
	}
	return @counts;
}

# So many statements with full batches are called for.
sub wanted
{
	my ($table, $batch, $condition) = @_;

	return $here->safe_psql('postgres', qq{
		SELECT sum((n + $batch - 1) / $batch) FROM (
		  SELECT count(*) AS n FROM $table t WHERE $condition GROUP BY tableoid) s});
}

my $rows = q{SELECT g, 'row ' || g FROM generate_series(1, 40000) g};
my @ours = statements('b', "INSERT INTO b $rows");
my @natives = statements('p', "INSERT INTO p $rows");

is(@ours, @natives, 'INSERT ... SELECT sends as many statements as into native partitions');
is(@ours, wanted('b', 1000, 'true'), 'INSERT ... SELECT sends full batches');
is( $here->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT * FROM b EXCEPT ALL SELECT * FROM p) d;
		SELECT count(*) FROM b}), "0\n40000", 'INSERT ... SELECT: the rows are there');
$here->safe_psql('postgres', 'TRUNCATE b');
is( scalar statements('b',
		q{COPY b FROM PROGRAM 'seq -f "%.0f,row" 1 40000' (FORMAT csv)}),
	scalar @natives, 'COPY sends full batches');
is( $here->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT id FROM b EXCEPT ALL SELECT id FROM p) d;
		SELECT count(*) FROM b}), "0\n40000", 'COPY: the rows are there');
$here->safe_psql('postgres', 'TRUNCATE b, p');
my $values = 'VALUES ' . join(', ', map { "($_, 'v')" } 1 .. 5000);
@ours = statements('b', "INSERT INTO b $values");
is(@ours, statements('p', "INSERT INTO p $values"), 'VALUES of many rows send full batches');

# Local shards beside remote ones are written on their own.
$here->safe_psql('postgres', 'TRUNCATE r');
@ours = statements('r', "INSERT INTO r $rows");
is(@ours, 20, 'local shards do not cut off batches of remote ones');
is( scalar statements('r', q{COPY r FROM PROGRAM 'seq -f "%.0f,row" 1 40000' (FORMAT csv)}),
	20, 'nor with COPY');
is( $here->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT id) FROM r;
		SELECT max(n) - min(n) FROM (SELECT count(*) AS n FROM r GROUP BY tableoid) s}),
	"80000|40000\n0", 'the rows are there');

# batch_size of the node counts, more or less than that of the table.
$here->safe_psql('postgres', q{
	ALTER SERVER n1 OPTIONS (SET batch_size '70');
	ALTER SERVER n2 OPTIONS (SET batch_size '3000');
	TRUNCATE b});
@ours = statements('b', "INSERT INTO b $rows");
is( scalar(grep { /^b_[0246] / } @ours), wanted('b', 70, q{tableoid::regclass::text ~ '[0246]$'}),
	'a smaller batch_size of a node');
is( scalar(grep { /^b_[1357] / } @ours), wanted('b', 3000, q{tableoid::regclass::text ~ '[1357]$'}),
	'a larger batch_size of a node');

# Wide rows do not wait until they fill memory.
$here->safe_psql('postgres', q{TRUNCATE b; ALTER SERVER n1 OPTIONS (SET batch_size '3000')});
my $wide_rows = q{SELECT g, repeat('x', 20000) FROM generate_series(1, 4000) g};
my ($largest) = sort { $b <=> $a } map { (split(/ /))[2] }
  statements('b', "INSERT INTO b $wide_rows");
cmp_ok($largest, '<=', 8 * 1024 * 1024, 'wide rows: a statement is not as large as memory');
cmp_ok($largest, '>', 1024 * 1024, 'wide rows: nor is it small');
is($here->safe_psql('postgres', 'SELECT count(*), sum(length(v)) FROM b'),
	'4000|80000000', 'wide rows: all are there');

# Errors while the last batches are sent, at the end of COPY
$nodes[1]->safe_psql('postgres', q{ALTER TABLE b_1 ADD CONSTRAINT not_x CHECK (v <> 'x')});
my ($state, $message, $errors) = sqlstate($here,
	q{COPY b FROM PROGRAM 'seq -f "%.0f,x" 1 40' (FORMAT csv)});
is("$state $message",
	'23514 new row for relation "b_1" violates check constraint "not_x"',
	'an error on the node at the end of COPY');
like($errors, qr/COPY b$/m, 'an error on the node at the end of COPY: says which');
is($here->safe_psql('postgres', 'SELECT count(*) FROM b'), '4000', 'nothing is left of it');

# Triggers of the logical table see the rows.
is( $here->safe_psql('postgres', q{
		CREATE TABLE seen (n bigint);
		CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql
		  AS 'BEGIN INSERT INTO seen SELECT count(*) FROM b; RETURN NULL; END';
		CREATE TRIGGER look AFTER INSERT ON b FOR EACH STATEMENT EXECUTE FUNCTION look();
		TRUNCATE b;
		COPY b FROM PROGRAM 'seq -f "%.0f,y" 1 4000' (FORMAT csv);
		INSERT INTO b SELECT g FROM generate_series(1, 1000) g;
		SELECT * FROM seen}), "4000\n5000", 'a trigger after COPY and INSERT sees all rows');

# Scans that are asynchronous, unless they ask the same connection for each row.

$here->safe_psql('postgres', q{
	CREATE FOREIGN TABLE busy (id int, k int) SERVER shards OPTIONS (route 'hash', key 'id')});
add_shards('busy', 'id int, k int', 'shard_fdw.in_hash(5, %d, id)', 'n1', 'local', 'n2', 'n1', 'n2');
$here->safe_psql('postgres', q{
	INSERT INTO busy SELECT g, g % 17 FROM generate_series(1, 2000) g;
	ALTER SERVER n1 OPTIONS (ADD async_capable 'true');
	ALTER SERVER n2 OPTIONS (ADD async_capable 'true')});
like($here->safe_psql('postgres', 'EXPLAIN (COSTS OFF) SELECT * FROM busy'), qr/Async Foreign Scan/, 'asynchronous scans');
is( $here->safe_psql('postgres', q{
		SET statement_timeout = '30s';
		SELECT count(*) FROM busy a WHERE a.id = (SELECT max(z.id) FROM busy z WHERE z.k = a.k);
		SELECT count(*), sum(n) FROM (SELECT a.id, (SELECT count(*) FROM busy z WHERE z.id = a.id) AS n FROM busy a OFFSET 0) s}),
	"17\n2000|2000", 'scans with subplans, which use their connections');

$_->stop foreach $here, @nodes;
done_testing();
