# What a user can do to others while they are at it: locks that he has no right
# to, tables that take the place of a shard, and rights that go away.  And what
# needs a database or a setting of its own.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('security', conf => "track_commit_timestamp = on\n");
$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN;
	CREATE ROLE reader LOGIN;
	CREATE ROLE writer LOGIN;
	CREATE ROLE mallory LOGIN;
	GRANT USAGE ON FOREIGN SERVER shards TO PUBLIC;
	GRANT ALL ON SCHEMA public TO PUBLIC;
	SET ROLE owner;
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v text)
	  SERVER shards OPTIONS (shards '2', commit_order 'true');
	GRANT INSERT ON log TO writer;
	GRANT SELECT ON log TO reader, writer});

# Have a session begin something that has to wait, and see it wait.
sub start_waiting
{
	my ($session, $sql, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->query_until(qr/begun/, "\\echo begun\n$sql;\n\\echo done\n");
	poll_ok($node,
		"SELECT cardinality(pg_blocking_pids($session->{pid})) > 0", $title);
}

# Locks

my ($mallory, $reader, $writer, $owner) =
  map { session($node, $_) } qw(mallory reader writer owner);
$_->query_safe('SET client_min_messages = warning')
  foreach ($mallory, $reader, $writer, $owner);

$mallory->query_safe('BEGIN');
is( $mallory->query_safe(q{
		SELECT count(*) FROM shard_fdw.list_shards('log')}),
	'2', 'anybody may list the shards');
$mallory->query_safe(
	q{SELECT count(*) FROM shard_fdw.format_on_shards('log', '%s')});
$mallory->query_safe(
	'SELECT count(*) FROM shard_fdw.shards, shard_fdw.leases, shard_fdw.consumers');
is( $mallory->query_safe(q{
		SELECT count(*) FROM pg_locks
		 WHERE pid = pg_backend_pid() AND relation IN ('log'::regclass, 'log_0'::regclass)}),
	'0', 'who looks at tables that are not his keeps no lock on them');
$mallory->query_safe('COMMIT');

$writer->query_safe('BEGIN');
$writer->query_safe(q{INSERT INTO log (v) VALUES ('w')});
fails($node,
	q{SET lock_timeout = '10ms'; SELECT shard_fdw.register_consumer('log', 'm', 'id')},
	'42501', 'permission denied for foreign table log', user => 'mallory',
	title => 'who may not read the table is told so, and waits for nobody');
start_waiting($reader,
	q{SELECT shard_fdw.register_consumer('log', 'c', 'id')},
	'a consumer waits for a writer');
is( $node->safe_psql('postgres', q{
		SET ROLE writer;
		SET lock_timeout = '180s';
		INSERT INTO log (v) VALUES ('x') RETURNING v}),
	'x', 'nobody waits for the consumer');
$writer->query_safe('COMMIT');
$reader->query_until(qr/done/, '');
is( $node->safe_psql('postgres', 'SELECT role, count(*) FROM shard_fdw.consumers GROUP BY 1'),
	'reader|2', 'then it is registered');

# A new shard is for all consumers, also while one holds on to it.
$writer->query_safe(q{SELECT shard_fdw.register_consumer('log', 'w', 'id')});
$owner->query_safe(q{SELECT shard_fdw.create_shards('log', 1)});
$owner->query_safe(q{SET shard_fdw.shard = 2});
$owner->query_safe(q{INSERT INTO log (v) VALUES ('new')});
$reader->query_safe('BEGIN');
$reader->query_safe(q{SELECT count(*) FROM shard_fdw.read_batch(NULL::log, 'c')});
is( $writer->query_safe(q{
		SELECT string_agg(v, ' ' ORDER BY v) FROM (
		  SELECT v FROM shard_fdw.read_batch(NULL::log, 'w')
		  UNION ALL SELECT v FROM shard_fdw.read_batch(NULL::log, 'w')
		  UNION ALL SELECT v FROM shard_fdw.read_batch(NULL::log, 'w')) b}),
	'new w x', 'a consumer sees new shards while another has found them');
$reader->query_safe('COMMIT');

# A table that takes a shard's place

$owner->query_safe(q{
	CREATE FOREIGN TABLE rows (v text) SERVER shards OPTIONS (shards '2', route 'round_robin');
	GRANT INSERT, SELECT ON rows TO writer;});
$writer->query_safe(q{PREPARE ins AS INSERT INTO rows VALUES ($1)});
$writer->query_safe(q{PREPARE total AS SELECT count(*) FROM rows});
$writer->query_safe(q{EXECUTE ins ('before'); EXECUTE total}) for 1 .. 6;
$owner->query_safe(q{BEGIN});
$owner->query_safe(q{ALTER TABLE rows_0 NO INHERIT rows});
$owner->query_safe(q{ALTER TABLE rows_0 RENAME TO detached});
start_waiting($writer,
	q{INSERT INTO rows SELECT 'meanwhile' FROM generate_series(1, 10)},
	'a writer waits for the shard that goes');
$owner->query_safe(q{CREATE TABLE rows_0 (v text)});
$owner->query_safe(q{COMMIT});
$writer->query_until(qr/done/, '');
$writer->query_safe(q{EXECUTE ins ('after')}) for 1 .. 6;
is( $node->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM rows_0), (SELECT count(*) FROM detached WHERE v <> 'before'),
		       (SELECT count(*) FROM rows_1 WHERE v = 'meanwhile'),
		       (SELECT count(*) FROM rows_1 WHERE v = 'after')}),
	'0|0|10|6',
	'rows go neither to the shard that was nor to what has its name');
is($writer->query_safe('EXECUTE total'),
	'19', 'rows are read neither in the shard that was nor in what has its name');

# The same with the whole table, dropped and made anew by somebody else.
$owner->query_safe(q{DROP TABLE rows_0});
$owner->query_safe(q{DROP FOREIGN TABLE rows CASCADE});
$mallory->query_safe(
	q{CREATE FOREIGN TABLE rows (v text) SERVER shards OPTIONS (shards '1')});
fails($writer, $_, '42501', 'permission denied for foreign table rows',
	title => "$_: another's table of that name takes rights of its own")
  foreach q{EXECUTE ins ('x')}, 'EXECUTE total';
$owner->query_safe(q{REVOKE SELECT ON log FROM reader});
fails($reader, q{SELECT * FROM shard_fdw.read_batch(NULL::log, 'c')},
	'42501', 'permission denied for foreign table log',
	title => 'a consumer whose right is gone reads no more');
$_->quit foreach ($mallory, $reader, $writer, $owner);

# check_order() runs what is in the table as its owner

$node->safe_psql('postgres', q{
	SET ROLE mallory;
	CREATE TABLE traces (who text);
	GRANT ALL ON traces TO PUBLIC;
	CREATE FUNCTION leave_trace() RETURNS int LANGUAGE plpgsql VOLATILE AS
	  'BEGIN INSERT INTO public.traces VALUES (current_user); RETURN 1; END';
	CREATE FUNCTION trace() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	  'BEGIN RETURN public.leave_trace(); END';
	CREATE FOREIGN TABLE bait (id bigint OPTIONS (sequence 'always'))
	  SERVER shards OPTIONS (shards '1', commit_order 'true');
	CREATE INDEX ON bait_0 (id) WHERE trace() = 1;
	ALTER TABLE bait_0 ADD CHECK (trace() = id) NOT VALID;
	TRUNCATE traces;
	RESET ROLE;
	SELECT * FROM shard_fdw.check_order('bait')});
is($node->safe_psql('postgres', 'SELECT DISTINCT who FROM traces'),
	'mallory', q{check_order() runs the owner's functions as the owner});
fails($node, q{SELECT shard_fdw.check_order('bait')},
	'42501', 'permission denied for foreign table bait', user => 'writer',
	title => 'check_order() is for those who may read the table');
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	GRANT SELECT ON bait TO writer;
	SET ROLE writer;
	SELECT * FROM shard_fdw.check_order('bait')});

# A schema that was there before the extension

$node->safe_psql('postgres', 'CREATE DATABASE early');
$node->safe_psql('early', q{
	GRANT CREATE ON DATABASE early TO mallory;
	SET ROLE mallory;
	CREATE SCHEMA shard_fdw});
fails($node, 'CREATE EXTENSION shard_fdw', '42501',
	'schema "shard_fdw" belongs to a role that is not a superuser',
	database => 'early', title => 'the extension does not move in with anybody');
$node->safe_psql('early', q{
	ALTER SCHEMA shard_fdw OWNER TO CURRENT_USER;
	CREATE EXTENSION shard_fdw});

# The owner of a database dumps it

$node->safe_psql('postgres', 'CREATE DATABASE owned OWNER owner');
setup_shards($node, 'owned');
$node->command_ok([ 'pg_dump', '-U', 'owner', '-f', '/dev/null', $node->connstr('owned') ],
	'who owns the database can dump it');

# Odd names in a dump

my $names = q{
	SELECT logical, shard, ordinal, state FROM shard_fdw.shards
	 ORDER BY shard::text;
	SELECT logical, consumer, role, shard, watermark FROM shard_fdw.consumers
	 ORDER BY shard::text;
	SELECT sequence, tbl, column_name, is_owned, last_value FROM shard_fdw.sequences
	 ORDER BY sequence::text;
	SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
	 WHERE connamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'n %')
	 ORDER BY conrelid::regclass::text, conname};
$node->safe_psql('postgres', 'CREATE DATABASE "odd ""db"" %s"');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('odd "db" %s', q{
	CREATE EXTENSION shard_fdw;
	CREATE ROLE "odd ""role"" 'x' %s" SUPERUSER;
	CREATE SERVER "odd ""server"" 'x' %s" FOREIGN DATA WRAPPER shard_fdw;
	SET ROLE "odd ""role"" 'x' %s";
	DO $$
	DECLARE
	  name text;
	BEGIN
	  FOREACH name IN ARRAY ARRAY['a"b', 'it''s', 'UPPER', '%s %I', 'back\slash\\',
	    E'new\nline', 'select', ' a , b ', repeat('x', 61), repeat('€', 20)] LOOP
	    EXECUTE format('CREATE SCHEMA %I', 'n ' || name);
	    EXECUTE format('SET LOCAL search_path = %I', 'n ' || name);
	    EXECUTE format('CREATE FOREIGN TABLE %1$I (%1$I int, v text DEFAULT %1$L)
	        SERVER %2$I OPTIONS (shards %3$L, route %4$L, key %5$L)',
	                   name, 'odd "server" ''x'' %s', '2', 'hash', quote_ident(name));
	    EXECUTE format('INSERT INTO %1$I SELECT generate_series(1, 10)', name);
	    PERFORM shard_fdw.seal(format('%I', left(name, 58) || '_1')::regclass)
	      WHERE octet_length(name) < 58;
	    EXECUTE format('CREATE FOREIGN TABLE "order"
	        (%1$I int OPTIONS (sequence %3$L), v text DEFAULT %1$L)
	        SERVER %2$I OPTIONS (shards %4$L, commit_order %5$L)',
	                   name, 'odd "server" ''x'' %s', 'always', '2', 'true');
	    INSERT INTO "order" (v) SELECT 'x' FROM generate_series(1, 10);
	    PERFORM shard_fdw.register_consumer('"order"', name, name);
	    PERFORM shard_fdw.read_batch(NULL::"order", name, 3);
	  END LOOP;
	END $$});
my $before = $node->safe_psql('odd "db" %s', $names);
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('odd "db" %s') ],
	'pg_dump of odd names');
$node->command_ok([ 'pg_restore', '-e', '-d', 'restored', $dump ], 'pg_restore of odd names');
is($node->safe_psql('restored', $names), $before, 'odd names: all is there');
like($before, qr/\|sealed\n/, 'odd names: sealed shards are among it');

$node->stop;
done_testing();
