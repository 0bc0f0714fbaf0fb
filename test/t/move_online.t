# move_shard() while others read and write the shard: the rows are those of a
# plain table that gets the same changes.
use strict;
use warnings;

use ShardNodes;
use ShardProxy;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;
my $proxy = ShardProxy->new($n1);

$here->append_conf('postgresql.conf', 'max_prepared_transactions = 5');
$here->restart;
$here->safe_psql('postgres', sprintf(q{
	ALTER SERVER n1 OPTIONS (SET host '127.0.0.1', SET port '%s');
	ALTER DATABASE postgres SET client_min_messages = warning;
	ALTER DATABASE postgres SET statement_timeout = '60s'}, $proxy->{port}));

my ($mover, $writer, $reader) = map { session($here) } 1 .. 3;

# Keys of many types, texts that have to be quoted, and rows that may change
# places under a deferrable constraint.
$_->safe_psql('postgres', q{
	CREATE TYPE mood AS ENUM ('it''s', 'b\ad', 'ok');
	CREATE DOMAIN code AS varchar(20) CHECK (VALUE <> '');
	CREATE FUNCTION gate(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
	  -- Who copies this row waits there.
	  IF id = 0 AND current_setting('application_name') IN ('shard_fdw', 'mover') THEN
	    PERFORM pg_advisory_lock_shared(4711), pg_advisory_unlock_shared(4711);
	  END IF;
	  RETURN id; END $$}) foreach $here, @nodes;
$here->safe_psql('postgres', q{
	CREATE TABLE model (
	  id int, v int, place int NOT NULL, t text COLLATE "C" NOT NULL, n numeric NOT NULL, f float8 NOT NULL,
	  at timestamptz NOT NULL, d date NOT NULL, u uuid NOT NULL, b bytea NOT NULL, c char(7) NOT NULL, m mood NOT NULL,
	  a text[] NOT NULL, o code NOT NULL, i interval NOT NULL, long text, g int GENERATED ALWAYS AS (id + 1) STORED,
	  UNIQUE (id, t, n, f, at, d, u, b, c, m, a, o, i),
	  CONSTRAINT places UNIQUE (place) DEFERRABLE INITIALLY DEFERRED);
	CREATE UNIQUE INDEX ON model (lower(t), id);
	CREATE INDEX ON model (gate(id));
	CREATE UNIQUE INDEX ON model (v);
	CREATE UNIQUE INDEX ON model (d) WHERE id < 0;
	CREATE FOREIGN TABLE log (
	  id int NOT NULL, v int, place int NOT NULL, t text COLLATE "C", n numeric, f float8, at timestamptz, d date, u uuid, b bytea, c char(7),
	  m mood, a text[], o code, i interval, long text, g int GENERATED ALWAYS AS (id + 1) STORED)
	  SERVER shards OPTIONS (shards '2', template 'model', route 'round_robin');
	CREATE TABLE twin (LIKE log INCLUDING GENERATED, PRIMARY KEY (id), UNIQUE (place) DEFERRABLE INITIALLY DEFERRED);
	CREATE VIEW rows AS
	  SELECT id, id AS v, id AS place, CASE id % 5 WHEN 0 THEN '' WHEN 1 THEN 'it''s' WHEN 2 THEN '\N' WHEN 3 THEN E'a\tb\n\\\\' ELSE 'ä' || id END AS t,
	         id / 7.00 AS n, CASE id % 4 WHEN 0 THEN 'NaN'::float8 WHEN 1 THEN '-Infinity' ELSE 1e-300 / (id + 1) END AS f,
	         CASE WHEN id % 9 = 0 THEN 'infinity' ELSE '2020-01-01'::timestamptz + id * interval '37 min 0.000001 s' END AS at,
	         '2020-01-01'::date - id * 300 AS d, md5(id::text)::uuid AS u, decode(md5(id::text), 'hex') AS b, 'c' || id % 9 AS c,
	         (enum_range(NULL::mood))[1 + id % 3] AS m, ARRAY['x', NULL, '\', '{}', id::text] AS a, 'o''' || id AS o,
	         (id || ' mon -' || id || ' s')::interval AS i, CASE WHEN id % 50 = 0 THEN (SELECT string_agg(md5((g * id)::text), '') FROM generate_series(1, 300) g) ELSE 'short' END AS long
	    FROM generate_series(0, 6000) id;
	CREATE FUNCTION fill(target text, low int, high int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	  EXECUTE format('INSERT INTO %s (id, v, place, t, n, f, at, d, u, b, c, m, a, o, i, long) SELECT * FROM rows WHERE id BETWEEN $1 AND $2', target)
	    USING low, high; END $$;
	INSERT INTO log_0 (id, v, place, t, n, f, at, d, u, b, c, m, a, o, i, long) SELECT * FROM rows WHERE id < 4000 AND id % 2 = 0;
	INSERT INTO log_1 (id, v, place, t, n, f, at, d, u, b, c, m, a, o, i, long) SELECT * FROM rows WHERE id < 4000 AND id % 2 = 1;
	INSERT INTO twin (id, v, place, t, n, f, at, d, u, b, c, m, a, o, i, long)
	  SELECT id, v, place, t, n, f, at, d, u, b, c, m, a, o, i, long FROM log;
	ANALYZE log_0});

my $all = q{SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL TABLE %2$s) UNION ALL (TABLE %2$s EXCEPT ALL TABLE %1$s)) d};

sub same
{
	my ($title, $table, $twin) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($here->safe_psql('postgres', sprintf($all, $table // 'log', $twin // 'twin')), '0', "$title: the same rows");
}

# Changes to both tables, by the writer, which does not wait for long.  The shard
# that is moved has the rows with even ids.
sub change
{
	my (@commands) = @_;

	foreach my $table ('log', 'twin')
	{
		$writer->query_safe($_) foreach map { s/\bTBL\b/$table/gr } @commands;
	}
	return;
}

my %server = (local => $here, n1 => $n1, n2 => $n2);
my $keeper;

# Begin to move a shard, and come to the middle of the first pass; then keep it
# from taking the last lock.
sub begin_move
{
	my ($session, $shard, $to) = @_;

	$to //= 'n1';
	$keeper = session($server{$to});
	$keeper->query_safe('SELECT pg_advisory_lock(4711)');
	$session->query_safe(q{SET application_name = 'mover'});
	send_to($session, "SELECT shard_fdw.move_shard('$shard', '$to');\n");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll_ok($server{$to}, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, "$shard is being moved to $to");
	$reader->query_safe("BEGIN; SELECT FROM $shard LIMIT 1");
	return;
}

# Go on until that lock is needed.
sub go_on
{
	$keeper->quit;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll_ok($here, q{SELECT phase = 'waiting for a lock on the shard' FROM shard_fdw.progress WHERE command = 'move_shard'},
		'all but the last pass is done');
	return;
}

sub moved_ok
{
	my ($title) = @_;
	my ($state, undef, undef, $said) = state_of($mover, 'SELECT');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($state, '00000', $title) || diag($said);
}

# A reader keeps the last lock from being taken, when the rows have been copied.
is($here->safe_psql('postgres', 'SELECT count(*), sum(id % 2) FROM log_0'), '2000|0', 'even rows');
state_of($mover, 'SET client_min_messages = notice');
begin_move($mover, 'log_0');
change('DELETE FROM TBL WHERE id % 4 = 0 AND id BETWEEN 1 AND 2999',
	q{UPDATE TBL SET t = t || '''\\', v = NULL WHERE id % 6 = 0 AND id BETWEEN 1000 AND 2000},
	'UPDATE TBL SET long = repeat(long, 3) WHERE id % 10 = 0',
	'UPDATE TBL SET place = 2008 - place WHERE id IN (1002, 1006, 2, 2006)',
	'UPDATE TBL SET n = n + 0.00, f = -0.0 WHERE id IN (2002, 2006)');
go_on();
change('UPDATE TBL SET place = 2008 - place WHERE id IN (1002, 1006)', 'DELETE FROM TBL WHERE id % 16 = 2 AND id > 3000',
	"UPDATE TBL SET t = '', i = '1 mon' WHERE id % 4 = 2 AND id > 3000");
$writer->query_safe(q{SELECT fill(t, 4000, 4500) FROM unnest(ARRAY['log', 'twin']) t});
change('DELETE FROM TBL WHERE id IN (3998, 3996)');
$writer->query_safe(q{SELECT fill(t, 3996, 3996) FROM unnest(ARRAY['log', 'twin']) t});
$writer->query_safe('BEGIN');
change('DELETE FROM TBL WHERE id < 3500');
$writer->query_safe('ROLLBACK');
same('while a shard is moved');
is($here->safe_psql('postgres', 'SELECT count(*) > 1000 FROM log_0'), 't', '... and read');
# One that is under way, and another one that is prepared.
$writer->query_safe('BEGIN');
change('UPDATE TBL SET v = -v WHERE id % 8 = 2 AND id < 500');
$writer->query_safe(q{PREPARE TRANSACTION 'p'; BEGIN});
change('UPDATE TBL SET v = -v WHERE id % 8 = 2 AND id BETWEEN 500 AND 1000');
$reader->query_safe('COMMIT');
$writer->query_safe(q{COMMIT; COMMIT PREPARED 'p'});
my ($state, undef, $output, $said) = state_of($mover, 'SELECT');
is("$state $output", "00000 log_0", 'it has been moved');
like($said, qr/NOTICE:  00000: shard "log_0" has been locked for \d+ ms/, 'it tells for how long others may have waited');
is($n1->safe_psql('postgres', 'SELECT count(*) > 1000 FROM log_0'), 't', 'it is on the node');
same('a shard with changes');
is($here->safe_psql('postgres', q{SELECT shard, problem FROM shard_fdw.check_shards('log') WHERE problem NOT LIKE 'privilege%'}), '',
	'check_shards() is content');
is($here->safe_psql('postgres', q{SELECT * FROM shard_fdw.check_nodes('log')}), '', 'check_nodes() is content');
# Its unique indexes are right, too.
is($n1->safe_psql('postgres', q{SET enable_seqscan = off; SELECT count(*) FROM log_0 WHERE place IN (1002, 1006, 10);
		SELECT count(*) FROM log_0 a WHERE NOT EXISTS (SELECT FROM log_0 b WHERE (b.id, b.t, b.n, b.f) = (a.id, a.t, a.n, a.f) AND b.place = a.place)}),
	"3\n0", 'the indexes are right');

# A transaction that has used the node before would see rows that are gone by now.
my $before = session($here);

is((state_of($mover, q{SELECT shard_fdw.move_shard('log_1', 'n1')}))[0], '00000', 'another shard is there');
is((state_of($mover, q{SET client_min_messages = warning; SELECT shard_fdw.move_shard('log_0', 'local')}))[0], '00000', 'the first is back');
$before->query_safe('BEGIN; SELECT count(*) FROM log_1');
begin_move($mover, 'log_0');
go_on();
$writer->query_safe(q{SELECT fill(t, 4600, 4700) FROM unnest(ARRAY['log_0', 'twin']) t});
$reader->query_safe('COMMIT');
moved_ok('moved, with more rows');
is($before->query_safe('SELECT count(*) = (SELECT count(*) FROM twin) FROM log'), 't', 'it sees those that have come');
$before->query_safe('COMMIT');
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}))[0], '00000', 'the first is back again');
$before->query_safe('BEGIN; SELECT count(*) FROM log_1');
begin_move($mover, 'log_0');
go_on();
change('DELETE FROM TBL WHERE id BETWEEN 3510 AND 3520');
$reader->query_safe('COMMIT');
moved_ok('moved, with rows that are gone');
fails($before, 'SELECT count(*) FROM log', '40001', 'could not read foreign table "log" because its shards have been replaced',
	title => '... of which it does not speak');
$before->query_safe('ROLLBACK');
same('two on a node');
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_1', 'local')}))[0], '00000', 'another shard is back');

# The same with an error at the end: nothing has happened.
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}))[0], '00000', 'back');
foreach my $case ([ 'cut DELETE', '^08' ], [ 'cut COMMIT', '^08' ], [ 'cancel', '57014' ], [ 'terminate', '' ])
{
	my ($mode, $expected) = @$case;
	my $victim = session($here);

	begin_move($victim, 'log_0');
	go_on();
	change('DELETE FROM TBL WHERE id IN (SELECT id FROM TBL WHERE id % 2 = 0 AND id > 0 ORDER BY id LIMIT 10)');
	if ($mode =~ /cut/)
	{
		$proxy->mode($mode);
	}
	else
	{
		$here->safe_psql('postgres', "SELECT pg_${mode}_backend($victim->{pid})");
	}
	$reader->query_safe('COMMIT');
	if ($expected eq '')
	{
		poll_ok($here, "SELECT count(*) = 0 FROM pg_locks WHERE pid = $victim->{pid}", $mode);
	}
	else
	{
		like((state_of($victim, 'SELECT'))[0], qr/$expected/, $mode);
	}
	$proxy->mode('pass');
	same("at the end, $mode");
	is($here->safe_psql('postgres', q{SELECT relkind FROM pg_class WHERE relname = 'log_0'}), 'r', '... where it was');
	poll_ok($n1, q{SELECT count(*) = 0 FROM pg_class WHERE relname = 'log_0'}, '... and nothing is left');
}

# Without a key, a writer waits.  So does one of a shard that comes back.
$here->safe_psql('postgres', q{
	CREATE FOREIGN TABLE plain (id int, v int) SERVER shards OPTIONS (shards '1');
	CREATE TABLE plain_twin (LIKE plain);
	CREATE UNIQUE INDEX ON plain_0 (id);
	INSERT INTO plain SELECT g, g FROM generate_series(1, 1000) g;
	INSERT INTO plain_twin TABLE plain});
$proxy->mode('stall');
send_to($mover, "SELECT shard_fdw.move_shard('plain_0', 'n1');\n");
poll_ok($here, q{SELECT count(*) = 0 FROM pg_locks WHERE relation = 'plain_0'::regclass}, 'it waits for the node, and nobody for it');
$reader->query_safe('BEGIN; INSERT INTO plain VALUES (0, 0); INSERT INTO plain_twin VALUES (0, 0)');
$proxy->mode('pass');
sleep(1);
is($here->safe_psql('postgres', q{SELECT mode FROM pg_locks WHERE relation = 'plain_0'::regclass AND mode LIKE '%Exclusive%' AND granted}),
	'RowExclusiveLock', 'a writer is waited for');
$reader->query_safe('COMMIT');
moved_ok('it has been moved');
same('a table without a key', 'plain', 'plain_twin');

# Unlogged, and a column that was added without a rewrite.
$here->safe_psql('postgres', q{
	CREATE UNLOGGED TABLE u_model (k text COLLATE "C" PRIMARY KEY, v int);
	CREATE INDEX ON u_model (gate(v));
	CREATE FOREIGN TABLE u (k text COLLATE "C", v int) SERVER shards OPTIONS (shards '1', template 'u_model');
	INSERT INTO u SELECT 'k' || g, g FROM generate_series(0, 1000) g;
	ALTER FOREIGN TABLE u ADD w int DEFAULT 7;
	ALTER FOREIGN TABLE u ADD x int;
	ALTER FOREIGN TABLE u DROP x;
	CREATE TABLE u_twin (LIKE u INCLUDING DEFAULTS);
	INSERT INTO u_twin TABLE u});
begin_move($mover, 'u_0');
go_on();
$writer->query_safe($_) foreach map { ("DELETE FROM $_ WHERE k LIKE '%7'", "UPDATE $_ SET w = 8, k = k || 'x' WHERE k LIKE '%8'", "INSERT INTO $_ VALUES ('new')") } 'u', 'u_twin';
$reader->query_safe('COMMIT');
moved_ok('an unlogged one');
same('an unlogged one', 'u', 'u_twin');

# Privileges that are being granted do not make others wait.
my $granter = session($here);

is((state_of($mover, q{SELECT shard_fdw.move_shard('u_0', 'local')}))[0], '00000', 'back');
begin_move($mover, 'u_0');
$granter->query_safe('CREATE ROLE other; BEGIN; GRANT SELECT, UPDATE (w) ON u_0 TO other');
go_on();
$reader->query_safe('COMMIT');
$writer->query_safe(q{SET statement_timeout = '20s'});
$writer->query_safe("UPDATE $_ SET w = 10 WHERE k LIKE 'k2%'") foreach 'u', 'u_twin';
$granter->query_safe('COMMIT');
moved_ok('after GRANT');
same('after GRANT', 'u', 'u_twin');
is($here->safe_psql('postgres', q{SELECT has_table_privilege('other', 'u_0', 'SELECT'), has_column_privilege('other', 'u_0', 'w', 'UPDATE')}),
	't|t', 'the privileges are there');

# A lock for which it has waited is given back like one that was free.
is((state_of($mover, q{SELECT shard_fdw.move_shard('u_0', 'local')}))[0], '00000', 'back');
$reader->query_safe('BEGIN; LOCK TABLE u_0');
send_to($mover, "BEGIN; SELECT shard_fdw.move_shard('u_0', 'n1');\n");
poll_ok($here, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = $mover->{pid}", 'it waits for its first lock');
$reader->query_safe('COMMIT');
($state, undef, $output, $said) = state_of($mover, q{COMMIT});
is("$state $output", '00000 u_0', 'it has been moved');
unlike($said, qr/own a lock/, '... without a warning of locks');
same('after waiting', 'u', 'u_twin');

# From nodes that have the extension, in the same way.
$_->safe_psql('postgres', 'CREATE EXTENSION shard_fdw') foreach @nodes;
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'n1')}))[0], '00000', 'there');
is($here->safe_psql('postgres', 'SELECT count(*) FROM twin WHERE id = 0'), '1', 'the row that it waits for');

sub change_much
{
	my ($n) = @_;

	change("DELETE FROM TBL WHERE id % 12 = $n AND id > 0",
		"UPDATE TBL SET t = t || '''\\', v = NULL WHERE id % 6 = $n AND id > 0 AND id < 4000",
		"UPDATE TBL SET long = 'kurz' WHERE id % 10 = $n", "UPDATE TBL SET a = a || 'y'::text, i = i + '1 s' WHERE id % 14 = $n AND id > 0");
	$writer->query_safe("SELECT fill(t, 5000 + 50 * $n, 5049 + 50 * $n) FROM unnest(ARRAY['log', 'twin']) t");
	$writer->query_safe('BEGIN');
	change("DELETE FROM TBL WHERE id BETWEEN 3500 AND 3700");
	$writer->query_safe('ROLLBACK');
	return;
}
begin_move($mover, 'log_0', 'local');
change_much(2);
go_on();
change_much(4);
is($here->safe_psql('postgres', 'SELECT count(*) > 1000 FROM log_0'), 't', 'it can be read');
$reader->query_safe('COMMIT');
moved_ok('back, with changes');
same('back');
indexes_ok($here, 'back');
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'n1')}))[0], '00000', 'there again');
begin_move($mover, 'log_0', 'n2');
go_on();
change_much(6);
$reader->query_safe('COMMIT');
moved_ok('from node to node, with changes');
same('from node to node');
is(join(' ', map { $_->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname = 'log_0'}) } @nodes), '0 1', 'one table');

# Somebody uses the table on the node itself: those who use the shard do not wait
# for that.
my $holder = session($n2);
$holder->query_safe('BEGIN; DELETE FROM log_0 WHERE id = 3800');
$here->safe_psql('postgres', 'DELETE FROM twin WHERE id = 3800');
send_to($mover, "SELECT shard_fdw.move_shard('log_0', 'local');\n");
poll_ok($here, q{SELECT phase = 'waiting for a lock on the shard' FROM shard_fdw.progress WHERE command = 'move_shard'}, 'it waits for the table');
$writer->query_safe(q{SET statement_timeout = '5s'});
change("UPDATE TBL SET long = 'x' WHERE id = 3900") foreach 1 .. 3;
$holder->query_safe('COMMIT');
moved_ok('back, in spite of that');
same('a table that is used on the node');
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'n2')}))[0], '00000', 'there once more');
$holder->query_safe('BEGIN; DELETE FROM log_0 WHERE id = 3900');
fails($mover, q{SET lock_timeout = '500ms'; SELECT shard_fdw.move_shard('log_0', 'local')}, '55P03',
	'could not obtain lock on the table of shard "log_0" on server "n2" within 500 ms');
state_of($mover, 'RESET lock_timeout');
$holder->query_safe('ROLLBACK');
same('not moved');
is((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'n1')}))[0], '00000', 'to the first');
$proxy->mode('cut is_gone');
like((state_of($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}))[0], qr/^08/, 'a connection that is lost between two passes');
$proxy->mode('pass');
same('not moved either');

# Where the node could not tell, must not tell, or tells of what is not here, it
# is locked against those who write.  So is a column whose value it does not have.
my $ops = q{CREATE OPERATOR CLASS ops FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 %s, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int)};

$here->safe_psql('postgres', sprintf($ops, '='));
$n1->safe_psql('postgres', q{
	CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
	CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
	CREATE ROLE bob LOGIN;
	GRANT CREATE ON SCHEMA public TO bob;
	REVOKE EXECUTE ON FUNCTION shard_fdw.changed_rows FROM PUBLIC;} . sprintf($ops, '==='));
foreach my $case (
	[ 'generated here', 'id int, k int PRIMARY KEY', 'id int, k int GENERATED ALWAYS AS (id * 2) STORED' ],
	[ 'another access method', 'id int PRIMARY KEY, k int) USING other WITH (fillfactor = 90' ],
	[ 'an operator that is not here', 'id int NOT NULL, k int' ],
	[ 'no right to ask', 'id int PRIMARY KEY, k int' ],
	[ 'a right', 'id int PRIMARY KEY, k int', undef, 0 ])
{
	my ($title, $there, $columns, $waits) = @$case;

	$n1->safe_psql('postgres', "CREATE TABLE o_0 ($there); INSERT INTO o_0 SELECT g, g * 2 FROM generate_series(1, 10) g");
	$n1->safe_psql('postgres', 'CREATE UNIQUE INDEX ON o_0 (id ops)') if $title =~ /operator/;
	$n1->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION shard_fdw.changed_rows TO bob') if $title eq 'a right';
	$n1->safe_psql('postgres', 'ALTER TABLE o_0 OWNER TO bob');
	$here->safe_psql('postgres', sprintf(q{
		CREATE FOREIGN TABLE o (%s) SERVER shards;
		CREATE FOREIGN TABLE o_0 () INHERITS (o) SERVER n1}, $columns // 'id int, k int'));
	$here->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER n1 OPTIONS (user 'bob')}) if $title =~ /right/;
	is((state_of($mover, q{BEGIN; SELECT shard_fdw.move_shard('o_0', 'local')}))[0], '00000', "$title: it is moved");
	is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = (SELECT oid FROM pg_class WHERE relname = 'o_0')}),
		$waits // 1, "$title: how it was locked");
	$mover->query_safe('COMMIT');
	is($here->safe_psql('postgres', 'SELECT count(*), sum(k) FROM o'), '10|110', "$title: its rows");
	$here->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER n1 OPTIONS (DROP user)}) if $title =~ /right/;
	$here->safe_psql('postgres', 'SET client_min_messages = error; DROP FOREIGN TABLE o CASCADE');
}

# Several writers, upserts among them.
$here->safe_psql('postgres', q{
	CREATE TABLE acc_model (id bigint PRIMARY KEY, v int NOT NULL, t text);
	CREATE FOREIGN TABLE acc (id bigint, v int, t text) SERVER shards OPTIONS (shards '4', template 'acc_model', route 'hash', key 'id');
	CREATE TABLE acc_twin (LIKE acc, PRIMARY KEY (id));
	INSERT INTO acc SELECT -g, g FROM generate_series(0, 20000) g;
	INSERT INTO acc_twin TABLE acc});
my $write = q{
\set id 1 + :client_id + 8 * random(1, 300)
\set other 1 + :client_id + 8 * random(1, 300)
BEGIN;
DELETE FROM acc WHERE id = :id;
DELETE FROM acc_twin WHERE id = :id;
INSERT INTO acc VALUES (:id, 1, repeat('y', :other));
INSERT INTO acc_twin VALUES (:id, 1, repeat('y', :other));
UPDATE acc SET v = v + 10 WHERE id BETWEEN :other AND :other + 200 AND id % 8 = 1 + :client_id;
UPDATE acc_twin SET v = v + 10 WHERE id BETWEEN :other AND :other + 200 AND id % 8 = 1 + :client_id;
COMMIT;
};
my $read = q{SELECT 1 / (count(*) = 20001)::int FROM acc WHERE id <= 0;};
my $clients = pgbench_start($here, [ [ $write, 5 ], [ $read, 1 ] ], '-c', '4', '-j', '1', '-M', 'prepared', '-T', '6', '--max-tries=50');

foreach my $shard (0 .. 3)
{
	is((state_of($mover, "SELECT shard_fdw.move_shard('acc_$shard', 'n" . (1 + $shard % 2) . "')"))[0], '00000', "acc_$shard, with writers");
}
foreach my $move ([ 0, 'n2' ], [ 1, 'local' ], [ 2, 'n2' ], [ 0, 'local' ])
{
	is((state_of($mover, "SELECT shard_fdw.move_shard('acc_$move->[0]', '$move->[1]')"))[0], '00000', "acc_$move->[0] to $move->[1], with writers");
}
pgbench_ok($clients, 'writers');
same('after writers', 'acc', 'acc_twin');
indexes_ok($here, 'after writers');
is(join(' ', map { $_->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname ~ '^acc_\d$'}) } @nodes), '0 2', 'each is in one place');

done_testing();
