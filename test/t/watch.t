# watch_rows() and changed_rows() while others write: a copy that follows them
# has the rows of the table.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('watch', conf => "max_prepared_transactions = 10\n");
my $seed = int(rand(1000)) / 1000;
note "seed $seed";

# Table "t" has columns of all kinds, some of its rows are older than some of
# its columns; "k" is a key that is stored elsewhere.
$node->safe_psql('postgres', q{
	CREATE TABLE t (id int, lost text, v int, txt text, k text UNIQUE,
	  double int GENERATED ALWAYS AS (v * 2) STORED);
	ALTER TABLE t ALTER txt SET STORAGE EXTERNAL, ALTER k SET STORAGE EXTERNAL, ALTER lost SET STORAGE EXTERNAL;
	CREATE FUNCTION long_text(length int) RETURNS text LANGUAGE sql AS $$
	  SELECT left(string_agg(md5(random()::text), ''), length) FROM generate_series(1, length / 32 + 1) $$;
	INSERT INTO t SELECT g, long_text(3000), g, long_text(g % 3 * 3000), long_text(2500) FROM generate_series(1, 600, 2) g;
	ALTER TABLE t ADD PRIMARY KEY (id), DROP lost;
	ALTER TABLE t ADD added int DEFAULT 7, ADD missing text;
	INSERT INTO t SELECT g, g, 'x' FROM generate_series(1002, 2000) g;
	CREATE UNLOGGED TABLE u (LIKE t INCLUDING ALL);
	INSERT INTO u (id, v, txt, k) SELECT id, v, txt, k FROM t;
	-- As a role: of the 200 ids after the first.
	CREATE PROCEDURE change(tbl regclass, first int, n int) LANGUAGE plpgsql AS $$
	DECLARE
	  id int;
	BEGIN
	  FOR i IN 1 .. n LOOP
	    id := first + floor(random() * 200);
	    BEGIN
	      EXECUTE format(CASE floor(random() * 9)
	        WHEN 0 THEN 'INSERT INTO %s VALUES (%s, 1, long_text(4000), long_text(2600))'
	        WHEN 1 THEN 'INSERT INTO %s VALUES (%s, 1) ON CONFLICT (id) DO UPDATE SET v = 5'
	        WHEN 2 THEN 'UPDATE %s SET v = v + 1 WHERE id = %s'
	        WHEN 3 THEN 'UPDATE %s SET txt = long_text(5000), added = NULL WHERE id = %s'
	        WHEN 4 THEN 'UPDATE %s SET k = long_text(2600), missing = txt WHERE id = %s'
	        WHEN 5 THEN 'DELETE FROM %s WHERE id = %s'
	        WHEN 6 THEN 'SELECT FROM %s WHERE id = %s FOR UPDATE'
	        WHEN 7 THEN 'UPDATE %s SET id = -id WHERE abs(id) = %s'
	        ELSE 'UPDATE %s SET v = 1 / (random() < 0.5)::int, txt = long_text(3000) WHERE id = %s'
	      END, tbl, id);
	    EXCEPTION WHEN unique_violation OR division_by_zero THEN
	      NULL;
	    END;
	  END LOOP;
	END $$});

my $toast = $node->safe_psql('postgres', "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 't'::regclass");
my ($watcher, @writers) = map { session($node) } 0 .. 4;
$writers[$_]->query_safe("SELECT setseed($seed * $_ / 4)") foreach 0 .. 3;

# Begin to watch a table: the copy is a temporary table.
sub watch
{
	my ($table) = @_;

	$watcher->query_safe(qq{
		LOCK TABLE $table IN SHARE UPDATE EXCLUSIVE MODE;
		CREATE TEMP TABLE copy_$table ON COMMIT DROP AS
		  SELECT * FROM ONLY $table WHERE shard_fdw.watch_rows('$table')});
	return;
}

# Bring the copy up to date.  What is gone has been in it.
sub follow
{
	my ($table) = @_;

	my $got = $watcher->query_safe(qq{
		CREATE TEMP TABLE changes ON COMMIT DROP AS
		  SELECT row_number() OVER () AS n, is_gone, (r).* FROM shard_fdw.changed_rows(NULL::$table);
		WITH gone AS (
		  DELETE FROM copy_$table c USING changes g
		   WHERE g.is_gone AND g.id = c.id AND g.k IS NOT DISTINCT FROM c.k RETURNING 1)
		SELECT (SELECT count(*) FROM gone) - count(*) FILTER (WHERE is_gone),
		       count(*) FILTER (WHERE is_gone AND (v IS NOT NULL OR txt IS NOT NULL OR double IS NOT NULL
		         OR added IS NOT NULL OR missing IS NOT NULL)),
		       coalesce(max(n) FILTER (WHERE is_gone) > min(n) FILTER (WHERE NOT is_gone), false)
		  FROM changes;
		INSERT INTO copy_$table SELECT id, v, txt, k, double, added, missing FROM changes WHERE NOT is_gone;
		DROP TABLE changes});
	return if $got eq '0|0|f';
	fail("rows of $table that are gone");
	diag($got);
	return;
}

# The copies have the rows that the watcher sees.
sub same
{
	my ($title, @tables) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($watcher->query_safe(join(' UNION ALL ',
			map { "(SELECT * FROM ((TABLE copy_$_ EXCEPT ALL TABLE $_) UNION ALL (TABLE $_ EXCEPT ALL TABLE copy_$_)) d)" }
			  @tables)),
		'', $title);
	return;
}

#
# Passes with transactions that are under way in between
#

my @both = ('t', 'u');

# The writers: each has rows of its own.
sub change
{
	my ($writer, $n) = @_;

	$writers[$writer]->query_safe("CALL change('$_', 200 * $writer, $n)") foreach @both;
	return;
}

# The first writer has a transaction that is older than all.
$writers[0]->query_safe('BEGIN');
change(0, 40);
$watcher->query_safe('BEGIN');
watch($_) foreach @both;
same('the copy', @both);
foreach my $pass (1 .. 5)
{
	$writers[1]->query_safe('BEGIN');
	change(1, 30);
	change(2, 30);
	$writers[3]->query_safe('BEGIN');
	change(3, 30);
	$writers[3]->query_safe($pass % 2 ? "PREPARE TRANSACTION 'p'" : 'ROLLBACK');
	# Subtransactions that are rolled back later, or not.
	$writers[1]->query_safe('SAVEPOINT a');
	change(1, 10);
	follow($_) foreach @both;
	same("pass $pass: transactions are under way", @both);
	$writers[1]->query_safe($pass % 2 ? 'ROLLBACK TO a' : 'RELEASE a');
	change(1, 10);
	$writers[0]->query_safe('COMMIT') if $pass == 3;
	if ($pass == 4)
	{
		$writers[0]->query_safe('DELETE FROM t WHERE id > 1000 AND (id % 3 = 0 OR id > 1900); SELECT count(*) FROM t');
		$writers[2]->query_safe("VACUUM $toast");
		# What is gone has to be told from what VACUUM has left.
		$writers[2]->query_safe('UPDATE t SET v = 0 WHERE id > 1000 AND id % 5 = 0');
	}
	follow($_) foreach @both;
	same("pass $pass: and ended in part", @both);
	$writers[1]->query_safe($pass % 2 ? 'COMMIT' : 'ROLLBACK');
	$writers[3]->query_safe($pass == 1 ? "ROLLBACK PREPARED 'p'" : "COMMIT PREPARED 'p'") if $pass % 2;
	$writers[2]->query_safe("VACUUM $toast");
	follow($_) foreach @both;
	same("pass $pass: all have ended", @both);
}
$writers[0]->query_safe(q{SET lock_timeout = '10ms'});
fails($writers[0], $_, '55P03', undef) foreach 'VACUUM t', 'CLUSTER t USING t_pkey', 'TRUNCATE t';
$writers[0]->query_safe(q{RESET lock_timeout});

# Own changes, and savepoints.
$watcher->query_safe("CALL change('t', 800, 30); SAVEPOINT a; CALL change('t', 800, 30); RELEASE a");
follow('t');
$watcher->query_safe("SAVEPOINT a; CALL change('t', 800, 30); ROLLBACK TO a; SAVEPOINT b");
follow('t');
$watcher->query_safe('SAVEPOINT c; RELEASE b');
follow('t');
same('own changes', 't');
$watcher->query_safe("SAVEPOINT a; CALL change('t', 800, 30)");
fails($watcher, 'SELECT 1 / 0', '22012', undef);
$watcher->query_safe('ROLLBACK TO a');
follow('t');
same('a savepoint that was not used', 't');

# At the end, all the time, and then under a lock.
my $pgbench = pgbench_start($node, q{
\set first 200 * :client_id
CALL change('t', :first, 3);
CALL change('u', :first, 3);
}, '-c', '4', '-t', '60');
foreach my $pass (1 .. 6)
{
	follow($_) foreach @both;
}
$watcher->query_safe('LOCK TABLE t, u IN SHARE MODE');
follow($_) foreach @both;
same('under a lock', @both);
follow($_) foreach @both;
same('once more', @both);
$watcher->query_safe('COMMIT');
pgbench_ok($pgbench, 'writers');

#
# Which moment it is
#

my ($other) = @writers;
my $count = q{SELECT count(*) FROM ONLY m WHERE shard_fdw.watch_rows('m')};
my $changed = q{SELECT string_agg(concat(is_gone, ' ', r), ', ') FROM shard_fdw.changed_rows(NULL::m)};

$node->safe_psql('postgres', q{CREATE TABLE m (id int PRIMARY KEY, v int);
	INSERT INTO m SELECT g, g FROM generate_series(1, 5) g});

sub begin
{
	my ($how) = @_;

	$watcher->query_safe('BEGIN ' . ($how // '') . '; LOCK TABLE m IN SHARE UPDATE EXCLUSIVE MODE');
	return;
}

begin();
like($watcher->query_safe("EXPLAIN (COSTS OFF) SELECT * FROM ONLY m WHERE v > 1 AND shard_fdw.watch_rows('m')"),
	qr/^Result\n +One-Time Filter: shard_fdw\.watch_rows\('m'::regclass\)\n +->  \w+ Scan/,
	'the condition is tried before any row is read');
is($watcher->query_safe("SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0;
	SET LOCAL min_parallel_table_scan_size = 0; EXPLAIN (COSTS OFF) $count") =~ /Gather/, '', 'never in parallel');
is($watcher->query_safe("COPY ($count) TO STDOUT"), '5', 'COPY');
$other->query_safe('INSERT INTO m VALUES (6)');
is($watcher->query_safe($changed), 'f (6,)', 'what has come after COPY');
$watcher->query_safe("PREPARE w AS $count; SET LOCAL plan_cache_mode = force_generic_plan");
foreach my $id (7, 8)
{
	is($watcher->query_safe('EXECUTE w'), $id - 1, 'a prepared statement');
	$other->query_safe("INSERT INTO m VALUES ($id)");
	is($watcher->query_safe($changed), "f ($id,)", 'what has come after it');
}
$watcher->query_safe(qq{DECLARE c CURSOR FOR SELECT id FROM ONLY m WHERE shard_fdw.watch_rows('m')});
$other->query_safe('DELETE FROM m WHERE id > 6');
is($watcher->query_safe('FETCH ALL c'), join("\n", 1 .. 8), 'a cursor');
is($watcher->query_safe($changed), 't (7,), t (8,)', 'what has gone after its snapshot');
$watcher->query_safe('CLOSE c');
is($watcher->query_safe(q{SELECT count(*) FROM ONLY m WHERE shard_fdw.watch_rows('m') = (id > 0)}), '6',
	'a condition that the planner estimates');
$other->query_safe('UPDATE m SET v = 60 WHERE id = 6');
is($watcher->query_safe($changed), 't (6,), f (6,60)', 'what has changed after that');
is($watcher->query_safe($changed), '', 'nothing any more');
is($watcher->query_safe('SELECT count(*) FROM shard_fdw.changed_rows(NULL::m) WHERE false'), '0', 'a call that is left out');
$watcher->query_safe('COMMIT');

# Statements that share a snapshot, which gets on from one to the next.
$node->safe_psql('postgres', q{
	CREATE TABLE counted (n int);
	CREATE RULE one AS ON INSERT TO counted DO ALSO INSERT INTO m VALUES (100, 0);
	CREATE RULE two AS ON INSERT TO counted DO ALSO UPDATE m SET v = 1 WHERE id = 100});
begin();
$watcher->query_safe("DO 'BEGIN INSERT INTO counted VALUES (($count)); END'" =~ s/'m'/''m''/r);
is($watcher->query_safe($changed), 'f (100,1)', 'what rules have done after the query');
$watcher->query_safe('ROLLBACK; DROP TABLE counted');

# A table without keys.
$node->safe_psql('postgres', 'CREATE TABLE keyless (a int, b int); INSERT INTO keyless VALUES (1, 2)');
$watcher->query_safe(q{BEGIN; LOCK TABLE keyless IN EXCLUSIVE MODE; SELECT shard_fdw.watch_rows('keyless'); DELETE FROM keyless});
is($watcher->query_safe('SELECT * FROM shard_fdw.changed_rows(NULL::keyless)'), 't|(1,2)', 'all columns of a row without keys');
$watcher->query_safe('COMMIT');

#
# What does not work
#

my $not_watched = 'the rows of table "m" are not being watched';

begin();
$watcher->query_safe('SAVEPOINT a');
fails($watcher, $changed, '55000', $not_watched, title => 'nobody has called watch_rows()');
$watcher->query_safe("ROLLBACK TO a; $count; ROLLBACK TO a");
fails($watcher, $changed, '55000', $not_watched, title => 'that was rolled back');
$watcher->query_safe("ROLLBACK TO a; $count; SAVEPOINT b; $count; RELEASE b; $changed; RELEASE a; SAVEPOINT a; SAVEPOINT b; $changed");
fails($watcher, 'SELECT 1 / 0', '22012', undef);
$watcher->query_safe('ROLLBACK TO b');
fails($watcher, $changed, '55000', $not_watched, title => 'a pass was rolled back');
$watcher->query_safe('COMMIT AND CHAIN; LOCK TABLE m IN EXCLUSIVE MODE');
fails($watcher, $changed, '55000', $not_watched, title => 'the transaction has ended');
$watcher->query_safe('ROLLBACK');
fails($watcher, q{DO $$ BEGIN
	LOCK TABLE m IN SHARE UPDATE EXCLUSIVE MODE; PERFORM shard_fdw.watch_rows('m'); COMMIT;
	LOCK TABLE m IN SHARE UPDATE EXCLUSIVE MODE; PERFORM * FROM shard_fdw.changed_rows(NULL::m); END $$},
	'55000', $not_watched, title => 'COMMIT in a procedure');
begin();
is((state_of($watcher, "$count; PREPARE TRANSACTION 'w'"))[0], '00000', 'PREPARE TRANSACTION');
$watcher->query_safe("COMMIT PREPARED 'w'");

# The table changes in the transaction that watches it.
begin();
$watcher->query_safe("$count; INSERT INTO m VALUES (200, 1)");
foreach my $command ('TRUNCATE m', 'ALTER TABLE m ALTER id TYPE bigint', 'CLUSTER m USING m_pkey')
{
	$watcher->query_safe("SAVEPOINT a; $command");
	fails($watcher, $changed, '55000', 'cannot watch the rows of table "m"',
		detail => 'The transaction has created, rewritten or truncated it.', title => $command);
	$watcher->query_safe('ROLLBACK TO a');
}
$watcher->query_safe('SAVEPOINT a; DROP TABLE m CASCADE');
fails($watcher, $changed, '42704', 'type "m" does not exist', title => 'DROP TABLE');
$watcher->query_safe('ROLLBACK TO a');
is($watcher->query_safe($changed), 'f (200,1)', 'it goes on after all that');
$watcher->query_safe('ALTER TABLE m ADD w int DEFAULT 7, DROP v; UPDATE m SET w = 8 WHERE id = 200; INSERT INTO m VALUES (201)');
is($watcher->query_safe($changed), 't (200,), f (200,8), f (201,7)', 'columns are added and dropped');
$watcher->query_safe('ROLLBACK');

# Locks, isolation levels, tables.
my $hint = 'Use LOCK TABLE public.m IN SHARE UPDATE EXCLUSIVE MODE.';

foreach my $mode (undef, 'ROW EXCLUSIVE')
{
	$watcher->query_safe($mode ? "BEGIN; LOCK TABLE m IN $mode MODE" : 'BEGIN');
	fails($watcher, $_, '55000', 'cannot watch the rows of table "m"', hint => $hint, title => ($mode // 'no') . ' lock'),
	  $watcher->query_safe('ROLLBACK; BEGIN') foreach $mode ? $count : ($count, $changed);
	$watcher->query_safe('ROLLBACK');
}
begin('ISOLATION LEVEL REPEATABLE READ');
fails($watcher, $count, '25001', 'cannot watch rows in a transaction of isolation level REPEATABLE READ');
$watcher->query_safe('ROLLBACK');
$node->safe_psql('postgres', q{
	CREATE ROLE r;
	CREATE ROLE member IN ROLE r;
	GRANT ALL ON m TO r;
	CREATE TABLE guarded (id int);
	ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
	ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
	ALTER TABLE guarded OWNER TO r;
	CREATE TABLE free (id int);
	ALTER TABLE free OWNER TO r;
	CREATE TABLE parted (id int) PARTITION BY LIST (id);
	CREATE VIEW view AS SELECT 1 AS id;
	CREATE TYPE pair AS (a int, b int);
	CREATE FOREIGN TABLE logical (id int) SERVER shards;
	CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
	CREATE TABLE strange (id int) USING other;
	CREATE DOMAIN domain AS m});
$other->query_safe('CREATE TEMP TABLE theirs (id int)');
my $theirs = $other->query_safe(q{SELECT format('%s.theirs', pg_my_temp_schema()::regnamespace)});
foreach my $case (
	[ 'm', '42501', 'must be owner of table m', 'r' ],
	[ 'view', '42501', 'must be owner of view view', 'r' ],
	[ 'guarded', '42501', 'cannot watch the rows of table "guarded"', 'r' ],
	(map { [ $_, '42809', "\"$_\" is not an ordinary table" ] } 'parted', 'view', 'logical', 'pair'),
	[ 'strange', '0A000', 'cannot watch the rows of table "strange"' ],
	[ $theirs, '0A000', 'cannot watch the rows of table "theirs"' ])
{
	my ($name, $state, $message, $role) = @$case;

	$watcher->query_safe("SET ROLE $role") if $role;
	fails($watcher, "SELECT shard_fdw.watch_rows('$name')", $state, $message);
	fails($watcher, "SELECT * FROM shard_fdw.changed_rows(NULL::$name)", $state, $message);
	$watcher->query_safe('RESET ROLE');
}
fails($watcher, 'SELECT shard_fdw.watch_rows(1)', '42P01', 'relation with OID 1 does not exist');
fails($watcher, "SELECT shard_fdw.watch_rows('m_pkey')", '42809', '"m_pkey" is not an ordinary table');
fails($watcher, "SELECT * FROM shard_fdw.changed_rows($_)", '42804',
	'argument of changed_rows() must have the row type of a table', hint => 'Write NULL::t for table "t".')
  foreach '1', 'NULL::domain';
is($watcher->query_safe('SELECT shard_fdw.watch_rows(NULL) IS NULL'), 't', 'no table');
$watcher->query_safe(q{SET ROLE member; BEGIN; LOCK TABLE free IN SHARE UPDATE EXCLUSIVE MODE;
	SELECT shard_fdw.watch_rows('free'); INSERT INTO free VALUES (1)});
is($watcher->query_safe('SELECT * FROM shard_fdw.changed_rows(NULL::free)'), 'f|(1)', 'a member of the owner');
$watcher->query_safe('ROLLBACK; RESET ROLE');
$watcher->query_safe(q{BEGIN; CREATE TABLE fresh (id int); LOCK TABLE fresh IN SHARE UPDATE EXCLUSIVE MODE});
fails($watcher, "SELECT shard_fdw.watch_rows('fresh')", '55000', 'cannot watch the rows of table "fresh"');
$watcher->query_safe('ROLLBACK');
$watcher->query_safe(q{CREATE TEMP TABLE mine AS SELECT 1 AS id; BEGIN; LOCK TABLE mine IN EXCLUSIVE MODE;
	SELECT shard_fdw.watch_rows('mine'); INSERT INTO mine VALUES (2)});
is($watcher->query_safe('SELECT * FROM shard_fdw.changed_rows(NULL::mine)'), 'f|(2)', 'a temporary table of one\'s own');

$_->quit foreach $watcher, @writers;
unlike(slurp_file($node->logfile), qr/WARNING|PANIC|TRAP/, 'the server has not warned of anything');
done_testing();
