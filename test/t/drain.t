# drain(): the rows of a shard go to the others, some at a time, and nobody who
# reads or writes meanwhile sees a row twice or misses one.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('drain', conf => "deadlock_timeout = 100ms\n");
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER shards TO app;
	GRANT ALL ON SCHEMA public TO app;
	SET ROLE app;
	CREATE TABLE kinds (kind int PRIMARY KEY);
	INSERT INTO kinds SELECT generate_series(0, 9);
	-- whatever is inserted by a user is changed and noted
	CREATE TABLE noted (id bigint);
	CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS
	  $$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$;
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	  $$ BEGIN INSERT INTO noted VALUES (NEW.id); RETURN NULL; END $$;
	CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a row is deleted'; END $$;
	CREATE TABLE model (id bigint PRIMARY KEY, kind int REFERENCES kinds, v text NOT NULL,
	  n int DEFAULT 0, twice int GENERATED ALWAYS AS (kind * 2) STORED, CHECK (n >= 0));
	CREATE TRIGGER mark BEFORE INSERT ON model FOR EACH ROW EXECUTE FUNCTION mark();
	CREATE TRIGGER note AFTER INSERT ON model FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TRIGGER forbid BEFORE DELETE ON model FOR EACH ROW EXECUTE FUNCTION forbid();
	CREATE FOREIGN TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, kind int, v text NOT NULL,
	  n int DEFAULT 0, twice int GENERATED ALWAYS AS (kind * 2) STORED)
	  SERVER shards OPTIONS (shards '4', template 'model');
	CREATE TRIGGER of_all BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION mark();
	CREATE TRIGGER statements AFTER INSERT ON log EXECUTE FUNCTION note()});
my $app = session($node, 'app');

# The notices and warnings, without what is of no interest.
sub said
{
	my ($text) = @_;

	return join("\n", $text =~ /(?:NOTICE|WARNING):  \w{5}: (.*)/g);
}

# Drain a shard and tell what is said.
sub drain
{
	my ($shard, $more) = @_;
	my ($state, $message, $out, $errors) =
	  state_of($app, "CALL shard_fdw.drain('$shard'" . ($more ? ", $more" : '') . ')');

	return $state eq '00000' ? said($errors) : "$state $message";
}

# Run commands as the owner, who does not mind warnings.
sub setup
{
	my ($commands) = @_;

	$node->safe_psql('postgres', "SET ROLE app; $commands");
	return;
}

# How many rows of a table are not in another, and the other way round.
sub differences
{
	my ($table, $twin) = @_;

	return $node->safe_psql('postgres', "SELECT
		(SELECT count(*) FROM (SELECT * FROM $table EXCEPT ALL SELECT * FROM $twin) d) || ' ' ||
		(SELECT count(*) FROM (SELECT * FROM $twin EXCEPT ALL SELECT * FROM $table) d)");
}

# A shard of a table with triggers, foreign keys, identity and generated columns.
setup(q{SET shard_fdw.shard = 1;
	INSERT INTO log (kind, v, n) SELECT (random() * 9)::int, repeat('x', (random() * 200)::int), (random() * 1000)::int
	  FROM generate_series(1, 5000);
	SET shard_fdw.shard = 2;
	INSERT INTO log (kind, v) VALUES (1, 'another');
	RESET shard_fdw.shard;
	CREATE TABLE twin AS SELECT * FROM log;
	TRUNCATE noted});
is(drain('log_1', '1000'), 'moved 5000 rows of shard "log_1"', 'a shard is drained');
is(differences('log', 'twin'), '0 0', 'the rows are what they were');
is($node->safe_psql('postgres', 'SELECT count(*) FROM log_1'), '0', 'the shard is empty');
is($node->safe_psql('postgres', 'SELECT count(*) FROM noted'), '0', 'triggers do not fire for them');
is($node->safe_psql('postgres', q{SELECT max(n) - min(n) < 10 FROM
	(SELECT count(*) AS n FROM log WHERE tableoid <> 'log_1'::regclass GROUP BY tableoid) s}), 't',
	'the rows are spread evenly, although each session has a shard');
is($node->safe_psql('postgres', q{SELECT state FROM shard_fdw.shards WHERE shard = 'log_1'::regclass}),
	'closed', 'the shard is closed');
is(drain('log_1'), 'moved 0 rows of shard "log_1"', 'a drained shard has nothing to move');
setup(q{INSERT INTO log (kind, v) VALUES (1, 'new')});
is($node->safe_psql('postgres', 'SELECT count(*) FROM noted'), '2', 'triggers fire for what comes later');
is($node->safe_psql('postgres', q{SELECT v FROM log WHERE v ~ '^new'}), 'new!!',
	'they change what comes later');

# Rows in blocks that are not full, and those that come by the shard's own name.
setup(q{INSERT INTO log_1 (id, kind, v) SELECT -g, 2, 'direct' FROM generate_series(1, 3000) g;
	UPDATE log_1 SET n = n + 1 WHERE id % 3 = 0;
	DROP TABLE twin;
	CREATE TABLE twin AS SELECT * FROM log});
is(drain('log_1', '1'), 'moved 3000 rows of shard "log_1"', 'a batch has a block at least');
is(differences('log', 'twin'), '0 0', 'they are all moved');

# Hash tables: by key.
setup(q{
	CREATE TABLE keyed_model (k int PRIMARY KEY, v text);
	CREATE FOREIGN TABLE keyed (v text, k int NOT NULL)
	  SERVER shards OPTIONS (shards '3', route 'hash', key 'k', template 'keyed_model');
	CREATE TABLE came (k int PRIMARY KEY, gone int, v text);
	ALTER TABLE came DROP COLUMN gone;
	INSERT INTO came SELECT g, 'v' || g FROM generate_series(1, 1000) g;
	ALTER TABLE came INHERIT keyed;
	INSERT INTO keyed (k, v) VALUES (1001, 'first'), (500, 'twice')});
is(drain('came', '100'), '23505 duplicate key value violates unique constraint "keyed_'
	. $node->safe_psql('postgres', q{SELECT right(tableoid::regclass::text, 1) FROM keyed WHERE v = 'twice'})
	. '_pkey"', 'a key that is in both is found');
my $moved = $node->safe_psql('postgres', 'SELECT 1000 - count(*) FROM came');
cmp_ok($moved, '>', 0, 'what was moved before stays so');
setup(q{DELETE FROM keyed WHERE v = 'twice'});
is(drain('came', '100'), sprintf('moved %d rows of shard "came"', 1000 - $moved), 'the next call goes on');
is($node->safe_psql('postgres', q{SELECT count(*) || ' ' || count(DISTINCT k) || ' ' || sum(k) FROM keyed
	WHERE v = 'v' || k}), '1000 1000 500500', 'all rows are there, once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM keyed_0 WHERE NOT shard_fdw.in_hash(3, 0, k)}), '0',
	'each row is where its key belongs');
fails($app, q{CALL shard_fdw.drain('keyed_1')}, '55000',
	'cannot close shard "keyed_1" of foreign table "keyed"', title => 'one that no other can stand in for');

# Ids of option "sequence".
setup(q{
	CREATE FOREIGN TABLE ids (id bigint OPTIONS (sequence 'always'), v text)
	  SERVER shards OPTIONS (shards '2', max_shards '16');
	INSERT INTO ids (v) SELECT g FROM generate_series(1, 100) g;
	SELECT shard_fdw.rotate('ids');
	CREATE TABLE ids_twin AS SELECT * FROM ids});
my $full = $node->safe_psql('postgres', 'SELECT DISTINCT tableoid::regclass FROM ids');
is(drain($full), "moved 100 rows of shard \"$full\"", 'rows go to the shard that has their slot now');
is(differences('ids', 'ids_twin'), '0 0', 'ids are kept');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ids WHERE id = (SELECT min(id) FROM ids)}), '1',
	'they are found by id');
setup(q{INSERT INTO ids (v) VALUES ('new')});
is($node->safe_psql('postgres', 'SELECT count(DISTINCT id) FROM ids'), '101', 'ids are not given twice');
my $now = $node->safe_psql('postgres', q{SELECT tableoid::regclass FROM ids WHERE v = '1'});
fails($app, "CALL shard_fdw.drain('$now')", '55000', "cannot drain shard \"$now\" of foreign table \"ids\"",
	detail => 'Constraints "shard_slot" of the open shards allow ids of other slots only.',
	title => 'ids that no other shard may have');
setup(q{SELECT shard_fdw.run_command_on_shards('ids', 'ALTER TABLE %s DROP CONSTRAINT IF EXISTS shard_slot');
	SELECT count(*) FROM shard_fdw.create_shards('ids', 1);
	SELECT shard_fdw.run_command_on_shards('ids', 'ALTER TABLE %s DROP CONSTRAINT IF EXISTS shard_slot');
	DROP TABLE ids_twin; CREATE TABLE ids_twin AS SELECT * FROM ids});
like(drain($now), qr/^moved \d+ rows? of shard "$now"$/, 'without the constraints, any shard takes them');
is(differences('ids', 'ids_twin'), '0 0', 'ids are kept then, too');
is($node->safe_psql('postgres', "SELECT count(*) > 1 FROM (SELECT DISTINCT tableoid FROM ids WHERE v <> 'new') s"),
	't', 'the rows are spread');

# What is refused.
setup(q{
	CREATE FOREIGN TABLE ordered (id bigint OPTIONS (sequence 'always'), v text)
	  SERVER shards OPTIONS (shards '2', commit_order 'true');
	CREATE FOREIGN TABLE single (a int) SERVER shards OPTIONS (shards '1');
	CREATE FOREIGN TABLE wider (a int) SERVER shards OPTIONS (shards '2');
	ALTER TABLE wider_0 ADD b int;
	CREATE TABLE wider_child () INHERITS (wider_1);
	ALTER TABLE keyed_2 ADD UNIQUE (v);
	CREATE TABLE pointing (v text REFERENCES keyed_2 (v))});
fails($app, q{CALL shard_fdw.drain('ordered_0')}, '0A000', 'cannot drain shard "ordered_0" of foreign table "ordered"',
	detail => qr/^The foreign table has option "commit_order"/, title => 'commit order');
fails($app, q{CALL shard_fdw.drain('single_0')}, '55000', 'cannot drain shard "single_0" of foreign table "single"',
	detail => 'There is no other open shard that could take its rows.');
fails($app, q{CALL shard_fdw.drain('wider_0')}, '55000', 'cannot drain shard "wider_0" of foreign table "wider"',
	detail => 'It has a column "b" that the foreign table has not, whose values would be lost.');
fails($app, q{CALL shard_fdw.drain('wider_1')}, '0A000', 'cannot drain shards of foreign table "wider"');
fails($app, q{CALL shard_fdw.drain('keyed_2')}, '0A000', 'cannot drain shard "keyed_2" of foreign table "keyed"',
	detail => 'A foreign key points to it.');
fails($app, q{CALL shard_fdw.drain('model')}, '42809', '"model" is not a shard');
fails($app, q{CALL shard_fdw.drain(NULL)}, '22004', 'shard must not be null');
fails($app, q{CALL shard_fdw.drain('log_1', NULL)}, '22004', 'parameter "batch_size" must not be null');
fails($app, q{CALL shard_fdw.drain('log_1', 0)}, '22023', 'batch size must be greater than zero');
fails($app, q{BEGIN; CALL shard_fdw.drain('log_1')}, '25001', 'drain() cannot be called in a transaction block');
$app->query('ROLLBACK');
fails($app, q{SET default_transaction_isolation = 'repeatable read'; CALL shard_fdw.drain('log_1')},
	'25001', undef, title => 'another isolation level');
$app->query('RESET default_transaction_isolation');
fails($node, q{CALL shard_fdw.drain('log_1')}, '42501', 'must be owner of table log_1', user => 'other',
	title => 'it is for the owner');
is($node->safe_psql('postgres', q{SELECT string_agg(shard::text, ' ') FROM shard_fdw.shards
	WHERE logical::text ~ 'wider|ordered|single' AND state <> 'open'}), '', 'what is refused closes nothing');

# Those who read and write meanwhile.
setup(q{
	CREATE TABLE busy_model (id int PRIMARY KEY, kind int REFERENCES kinds, n int NOT NULL, pad text);
	CREATE FOREIGN TABLE busy (id int, kind int, n int NOT NULL, pad text)
	  SERVER shards OPTIONS (shards '3', template 'busy_model');
	INSERT INTO busy_0 SELECT g, g % 10, 0, repeat('x', 100) FROM generate_series(1, 20000) g;
	CREATE TABLE counts (id int PRIMARY KEY, n int);
	INSERT INTO counts SELECT g, 0 FROM generate_series(1, 20000) g;
	CREATE SEQUENCE news START 100000});
my $writers = pgbench_start($node, [
	[ q{\set id random(1, 20000)
		BEGIN;
		UPDATE busy SET n = n + 1 WHERE id = :id;
		UPDATE counts SET n = n + 1 WHERE id = :id;
		COMMIT;}, 4 ],
	[ q{INSERT INTO busy VALUES (nextval('news'), 1, 0, 'new');}, 1 ],
	[ q{SELECT 1 / (count(*) = 20000)::int FROM busy WHERE id <= 20000;}, 1 ] ],
	'-c', '4', '-j', '2', '-M', 'prepared', '-T', '8', '-U', 'app');
my $first = session($node, 'app');
send_to($first, "CALL shard_fdw.drain('busy_0', 500);\n");
poll_ok($node, 'SELECT count(*) < 19000 FROM busy_0', 'a run has moved some rows');
is((state_of($app, "CALL shard_fdw.drain('busy_0')"))[0], '55006', 'one run at a time');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($first->{pid})");
poll_ok($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $first->{pid}", 'it is killed');
like(drain('busy_0', '500'), qr/^moved \d+ rows of shard "busy_0"$/, 'another one goes on');
pgbench_ok($writers, 'writers and readers');
is($node->safe_psql('postgres', 'SELECT count(*) FROM busy_0'), '0', 'the shard is empty in the end');
is($node->safe_psql('postgres', q{SELECT count(*) FROM busy JOIN counts USING (id)}), '20000', 'no row is lost');
is($node->safe_psql('postgres', q{SELECT count(*) FROM busy b JOIN counts c USING (id) WHERE b.n <> c.n}), '0',
	'no update is lost');
indexes_ok($node, 'after writers');

# A crash, and a dump between two runs.
setup(q{SELECT shard_fdw.open_shard('busy_0');
	INSERT INTO busy_0 SELECT -g, g % 10, 0, repeat('x', 100) FROM generate_series(1, 20000) g;
	DROP TABLE twin; CREATE TABLE twin AS SELECT * FROM busy});
$first = session($node, 'app');
send_to($first, "CALL shard_fdw.drain('busy_0', 500);\n");
poll_ok($node, 'SELECT count(*) < 19000 FROM busy_0', 'another run has moved some rows');
$node->stop('immediate');
$node->start;
is(differences('busy', 'twin'), '0 0', 'a crash loses no row');
$app = session($node, 'app');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'its restore');
is($node->safe_psql('copy', q{CALL shard_fdw.drain('busy_0'); SELECT count(*) FROM busy_0}), '0',
	'the restored database goes on');
is($node->safe_psql('copy', q{SELECT (SELECT count(*) FROM busy) - (SELECT count(*) FROM twin)}), '0',
	'the restored database has all rows');
like(drain('busy_0'), qr/^moved \d+ rows of shard "busy_0"$/, 'so does the one that has crashed');
is(differences('busy', 'twin'), '0 0', 'it has all rows, too');
$node->stop;
done_testing();
