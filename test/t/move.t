# move_shard() and rebalance(): shards that go to other servers and come back.
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

$n2->safe_psql('postgres', 'CREATE EXTENSION shard_fdw');
$here->safe_psql('postgres', sprintf(q{
	ALTER SERVER n1 OPTIONS (SET host '127.0.0.1', SET port '%s', ADD connect_timeout '5');
	ALTER DATABASE postgres SET client_min_messages = warning}, $proxy->{port}));

my $mover = session($here);

# Move a shard.  Gives what state_of() gives.
sub move
{
	my ($shard, $node) = @_;

	return state_of($mover, "SELECT shard_fdw.move_shard('$shard', '$node')");
}

sub moves_ok
{
	my ($shard, $node, $title) = @_;
	my ($state, $message, $output, $said) = move($shard, $node);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is("$state $output", "00000 $shard", $title // "$shard to $node") || diag($said);
}

# The tables of a name, on each server: r, f or nothing.
sub kinds
{
	my ($name) = @_;

	return join(' ',
		map { $_->safe_psql('postgres', "SELECT relkind FROM pg_class WHERE relname = '$name' AND relnamespace = 'public'::regnamespace") || '-' }
		  $here, @nodes);
}

# Rows of all kinds, with all that a shard can have.
my $xml = has_libxml() ? 'xml' : 'text';

$here->safe_psql('postgres', q{
	CREATE TABLE model (
	  id bigint PRIMARY KEY, v int NOT NULL, t text COLLATE "C", f float8, n numeric(20,5), at timestamptz,
	  i interval, a text[], b bytea, j jsonb, m money, g int GENERATED ALWAYS AS (v * 2) STORED, x xml,
	  UNIQUE (id, v) DEFERRABLE, EXCLUDE USING btree (id WITH =), CONSTRAINT positive CHECK (v > -10))
	  WITH (fillfactor = 80);
	CREATE INDEX model_t_idx ON model (lower(t) DESC) INCLUDE (v) WHERE v > 3;
	CREATE FOREIGN TABLE log (id bigint, v int, t text COLLATE "C", f float8, n numeric(20,5), at timestamptz,
	  i interval, a text[], b bytea, j jsonb, m money, g int GENERATED ALWAYS AS (v * 2) STORED, x xml,
	  CHECK (id > -1000000))
	  SERVER shards OPTIONS (shards '4', template 'model', route 'hash', key 'id');
	CREATE ROLE reader;
	GRANT SELECT (id), UPDATE ON log_1 TO reader;
	COMMENT ON TABLE log_1 IS 'It''s one';
	ALTER TABLE log_1 ALTER v SET STATISTICS 77;
	CREATE TABLE twin (LIKE log INCLUDING GENERATED, PRIMARY KEY (id));
	INSERT INTO log (id, v, t, f, n, at, i, a, b, j, m, x)
	  SELECT -g, g % 11, CASE g % 9 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN chr(92) || '.' WHEN 3 THEN E'a\tb\nc\rd' || chr(92) || 'N' || chr(92)
	           WHEN 4 THEN repeat(g || 'ä€', 3000) ELSE 'row ' || g END,
	         CASE g % 5 WHEN 0 THEN 'NaN'::float8 WHEN 1 THEN '-Infinity' WHEN 2 THEN 1e-300 / 3 ELSE sqrt(g) END,
	         g / 7.0, '2020-01-01'::timestamptz + g * interval '37 min 0.000001 s', (g || ' mon -' || g || ' s')::interval,
	         ARRAY['x', NULL, chr(92), 'NULL', g::text], decode(md5(g::text), 'hex'), jsonb_build_object('k', g, 'q', E'"\n' || chr(92)),
	         g::money, '<a>b</a>'
	    FROM generate_series(0, 500) g;
	INSERT INTO twin (id, v, t, f, n, at, i, a, b, j, m, x) SELECT id, v, t, f, n, at, i, a, b, j, m, x FROM log;
	ANALYZE log_0, log_1, log_2, log_3} =~ s/ xml,/ $xml,/gr);

# The same rows are in both tables, and each where its key says.
sub same
{
	my ($title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is( $here->safe_psql('postgres', q{
			SELECT count(*) FROM ((SELECT log::text FROM log EXCEPT ALL SELECT twin::text FROM twin)
			  UNION ALL (SELECT twin::text FROM twin EXCEPT ALL SELECT log::text FROM log)) d;
			SELECT count(*) FROM (SELECT id FROM twin ORDER BY id LIMIT 300) t
			 WHERE NOT EXISTS (SELECT FROM log WHERE log.id = t.id)}),
		"0\n0", "$title: the same rows");
}

my $indexes = q{SELECT replace(pg_get_indexdef(indexrelid), 'log_1', 'shard') FROM pg_index
	WHERE indrelid = 'log_1'::regclass ORDER BY 1};
my $surroundings = q{SELECT relacl, obj_description(oid, 'pg_class'), reltuples,
	  (SELECT attstattarget FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'v'),
	  (SELECT count(*) FROM pg_statistic WHERE starelid = pg_class.oid) FROM pg_class WHERE oid = 'log_1'::regclass;
	SELECT conname, pg_get_constraintdef(oid), coninhcount FROM pg_constraint
	 WHERE conrelid = 'log_1'::regclass AND contype = 'c' ORDER BY 1;
	SELECT attname, attnotnull, attislocal FROM pg_attribute WHERE attrelid = 'log_1'::regclass AND attnum > 0 ORDER BY attnum};
my ($had_indexes, $had) = map { $here->safe_psql('postgres', $_) } $indexes, $surroundings;

my (undef, undef, undef, $said) = move('log_1', 'n1');
like($said, qr/WARNING:  01000: transactions that write to foreign table "log"/m, 'a first remote shard: the usual warning');
is(kinds('log_1'), 'f r -', 'a shard on a node');
same('there');
is($n1->safe_psql('postgres', $indexes), $had_indexes, 'there: the same indexes');
is($here->safe_psql('postgres', $surroundings), $had, 'there: the same privileges, comment, constraints, statistics');
is($here->safe_psql('postgres', q{SELECT * FROM shard_fdw.check_nodes('log')}), '', 'check_nodes() is content');
moves_ok('log_1', 'n2');
is(kinds('log_1'), 'f - r', 'from node to node');
same('from node to node');
is($n2->safe_psql('postgres', $indexes), $had_indexes, 'from node to node: the same indexes');
like($n2->safe_psql('postgres', $surroundings), qr/in_hash\(4, 1, id\)/, 'the place, where the extension is');
moves_ok('log_1', 'local');
is(kinds('log_1'), 'r - -', 'back again');
same('back again');
is($here->safe_psql('postgres', $indexes), $had_indexes, 'back again: the same indexes');
is( $here->safe_psql('postgres', q{SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname LIKE 'shard_move%'}),
	'', 'names are as they were');
is($here->safe_psql('postgres', $surroundings), $had, 'back again: the rest is the same');
is($here->safe_psql('postgres', q{SELECT reloptions FROM pg_class WHERE oid = 'log_1'::regclass}), '{fillfactor=80}', 'storage parameters');
indexes_ok($here, 'back again');

# Writers and readers all the time.

my $write = q{
\set id 1 + :client_id + 8 * random(1, 100000)
\set other 1 + :client_id + 8 * random(1, 100000)
BEGIN;
DELETE FROM log WHERE id = :id;
DELETE FROM twin WHERE id = :id;
INSERT INTO log (id, v, t) VALUES (:id, 1, 'x');
INSERT INTO twin (id, v, t) VALUES (:id, 1, 'x');
UPDATE log SET v = v + 10, t = repeat('y', :id % 3000) WHERE id BETWEEN :other AND :other + 3000 AND id % 8 = 1 + :client_id;
UPDATE twin SET v = v + 10, t = repeat('y', :id % 3000) WHERE id BETWEEN :other AND :other + 3000 AND id % 8 = 1 + :client_id;
COMMIT;
};
# No row of these changes.
my $read = q{
\set id -random(1, 500)
SELECT 1 / (count(*) = 501)::int FROM log WHERE id <= 0;
SELECT 1 / (count(*) = 1)::int FROM log WHERE id = :id;
};
my @clients = map {
	pgbench_start($here, [ [ $write, 3 ], [ $read, 1 ] ], '-c', '3', '-j', '1', '-M', $_, '-T', '4',
		'--max-tries=50')
} 'prepared';
foreach (
	[ 'log_0', 'n1' ], [ 'log_1', 'n2' ], [ 'log_0', 'n2' ], [ 'log_1', 'local' ],
	[ 'log_2', 'n1' ], [ 'log_0', 'local' ], [ 'log_3', 'n2' ], [ 'log_3', 'n1' ])
{
	moves_ok(@$_);
}
pgbench_ok($_, 'writers') foreach @clients;
same('after writers');
is($here->safe_psql('postgres', q{SELECT shard, problem FROM shard_fdw.check_shards('log') WHERE problem NOT LIKE 'privilege%'}), '',
	'check_shards() is content');
moves_ok($_, 'local') foreach 'log_2', 'log_3';
same('all at home');
indexes_ok($here, 'all at home');

# Ids go on, states stay, and no snapshot misses rows.

$here->safe_psql('postgres', q{
	CREATE TABLE event_model (id bigint PRIMARY KEY, at timestamptz NOT NULL, v int);
	CREATE FOREIGN TABLE events (id bigint OPTIONS (sequence 'always'), at timestamptz, v int)
	  SERVER shards OPTIONS (shards '3', template 'event_model', route 'round_robin', time_column 'at');
	INSERT INTO events (at, v) SELECT '2020-01-01'::timestamptz + g * interval '1 h', g FROM generate_series(1, 300) g;
	SELECT shard_fdw.close_shard('events_2')});
state_of($mover, q{CALL shard_fdw.add_range('events_2')});
my $states = q{SELECT ordinal, state, place, range_start, range_end FROM shard_fdw.stat_shards WHERE logical = 'events'::regclass ORDER BY ordinal};
my $had_states = $here->safe_psql('postgres', $states);
my $old = session($here);
my $there = session($here);
my $running = session($here);

moves_ok('events_0', 'n1');
$old->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM twin LIMIT 1});
# It has a snapshot on the node, too, from before.
$there->query_safe('BEGIN; SELECT count(*) FROM events_0');
$running->query_safe('PREPARE total AS SELECT count(*), sum(v) FROM events; PREPARE one (bigint) AS SELECT v FROM events WHERE id = $1');
my $some = $here->safe_psql('postgres', 'SELECT id FROM events_1 LIMIT 1');
my $was = $running->query_safe("EXECUTE total; EXECUTE one ($some)");
moves_ok('events_1', 'n1');
is($running->query_safe("EXECUTE total; EXECUTE one ($some)"), $was, 'prepared statements go on');
is($there->query_safe('SELECT count(*) FROM events'), '300', 'a snapshot on the node from before shows all rows');
$there->query_safe('COMMIT');
fails($old, 'SELECT count(*) FROM events', '40001', 'could not read foreign table "events" because its shards have been replaced',
	title => 'an old snapshot, and rows that have gone');
$old->query_safe('ROLLBACK');
$old->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM twin LIMIT 1});
moves_ok('events_1', 'local');
fails($old, "SELECT v FROM events WHERE id = $some", '40001', undef, title => 'an old snapshot, and rows that have come');
$old->query_safe('ROLLBACK');
is($old->query_safe('SELECT count(*) FROM events'), '300', 'a new snapshot');

# A closed shard can be read while its rows are copied.
$proxy->mode('stall');
send_to($mover, "SELECT shard_fdw.move_shard('events_1', 'n1');\n");
is($here->safe_psql('postgres', 'SELECT count(*) FROM events_1'), '100', 'while a node does not answer, nobody waits for a shard');
$proxy->mode('pass');
is((state_of($mover, 'SELECT'))[0], '00000', 'the node answers');
my $holder = session($n1);
moves_ok('events_2', 'n1');
$holder->query_safe('BEGIN; LOCK TABLE events_2 IN ROW EXCLUSIVE MODE');
send_to($mover, "SELECT shard_fdw.move_shard('events_2', 'n2');\n");
poll_ok($n1, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}, 'a closed shard is being moved');
is($here->safe_psql('postgres', 'SELECT count(*) FROM events'), '300', '... and can be read');
$holder->query_safe('ROLLBACK');
is((state_of($mover, 'SELECT'))[0], '00000', '... until it has been');
is($here->safe_psql('postgres', $states), $had_states, 'closed shards, places and ranges stay');
unlike($here->safe_psql('postgres', q{EXPLAIN SELECT * FROM events WHERE at > '2021-01-01'}), qr/events_2/, 'a range is used');
is( $here->safe_psql('postgres', q{
		INSERT INTO events (at, v) SELECT now(), g FROM generate_series(301, 600) g;
		SELECT count(*), count(DISTINCT id), min(id - CASE WHEN v > 300 THEN (SELECT max(id) FROM events e WHERE v <= 300 AND e.id % 1024 = events.id % 1024) END) > 0 FROM events}),
	'600|600|t', 'ids go on');
$here->safe_psql('postgres', q{SELECT shard_fdw.open_shard('events_2'); SELECT shard_fdw.seal('events_1')});
moves_ok('events_1', 'n2');
moves_ok('events_1', 'local');
moves_ok('events_2', 'local');
is( $here->safe_psql('postgres', q{SELECT string_agg(state, ' ' ORDER BY ordinal) FROM shard_fdw.stat_shards WHERE logical = 'events'::regclass;
		SELECT count(*), count(DISTINCT id) FROM events}), "open sealed open\n600|600", 'a sealed shard, and one that was opened there');
$here->safe_psql('postgres', q{SELECT shard_fdw.unseal('events_1')});

# An open shard can be read if one wants that, and a writer waits.
moves_ok('events_1', 'n1');
$holder->query_safe('BEGIN; LOCK TABLE events_1 IN ROW EXCLUSIVE MODE');
send_to($mover, "SELECT shard_fdw.move_shard('events_1', 'n2', allow_reads => true);\n");
poll_ok($n1, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}, 'an open shard is being moved');
is($here->safe_psql('postgres', 'SELECT count(*) FROM events'), '600', '... and can be read');
send_to($running, "UPDATE events SET v = v WHERE id = $some;\n");
poll_ok($here, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = $running->{pid}", '... but not written');
$holder->query_safe('ROLLBACK');
is((state_of($mover, 'SELECT'))[0], '00000', '... until it has been');
is((state_of($running, 'SELECT'))[0], '00000', '... and the writer goes on');
# One that has read it, and then waits to write it.
moves_ok('events_1', 'n1');
$holder->query_safe('BEGIN; LOCK TABLE events_1 IN ROW EXCLUSIVE MODE');
send_to($mover, "SELECT shard_fdw.move_shard('events_1', 'local', allow_reads => true);\n");
poll_ok($n1, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}, 'it is being moved again');
$running->query_safe('BEGIN; SELECT count(*) FROM events_1');
send_to($running, "UPDATE events SET v = v WHERE id = $some; COMMIT;\n");
poll_ok($here, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = $running->{pid}", '... and one waits to write it');
$holder->query_safe('ROLLBACK');
like((state_of($mover, 'SELECT'))[0], qr/^(40P01|55P03)$/, '... which makes the move fail');
is((state_of($running, 'SELECT'))[0], '00000', '... and the other one goes on');
moves_ok('events_1', 'local');

# A transaction of several moves, and what is rolled back.

foreach (
	q{BEGIN}, q{SELECT shard_fdw.move_shard('events_1', 'n2')}, q{SAVEPOINT a},
	q{SELECT shard_fdw.move_shard('events_2', 'n2')}, q{ROLLBACK TO a}, q{SELECT shard_fdw.move_shard('events_0', 'local')})
{
	is((state_of($mover, $_))[0], '00000', $_);
}
fails($mover, q{SELECT shard_fdw.move_shard('events_1', 'local')}, '55000', 'cannot run these commands on server "n2" in one transaction');
state_of($mover, 'ROLLBACK');
is(join(' ', map { kinds("events_$_") } 0 .. 2), 'f r - r - - r - -', 'all is rolled back');
is((state_of($mover, q{DO $$ BEGIN
	  PERFORM shard_fdw.move_shard('events_1', 'n2');
	  RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
	  PERFORM shard_fdw.move_shard('events_2', 'n2');
	END $$}))[0], '00000', 'in a subtransaction');
is(join(' ', map { kinds("events_$_") } 0 .. 2), 'f r - r - - f - r', '... that is rolled back');
is($here->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM events'), '600|600', '... and no row is lost');

# Connections that are lost

sub whole
{
	my ($title, $kinds) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(kinds('log_0'), $kinds, "$title: where it is");
	return same($title);
}

foreach my $mode ('bytes 100000', 'cut COMMIT')
{
	$proxy->mode($mode);
	like((move('log_0', 'n1'))[0], qr/^08/, "to a node, $mode: fails");
	$proxy->mode('pass');
	whole("to a node, $mode", 'r - -');
}
$proxy->mode('swallow COMMIT');
like((move('log_0', 'n1'))[3], qr/The server may have committed/, 'to a node, at the commit: an error');
$proxy->mode('pass');
whole('to a node, at the commit', 'r r -');
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'n1')}, '42P07', undef, hint => qr/^It may have been left when/);
$n1->safe_psql('postgres', 'DROP TABLE log_0');
moves_ok('log_0', 'n1');
foreach my $case ([ 'cut COPY', '^08', 'f r -' ], [ 'cut COMMIT', '00000', 'r r -' ], [ 'swallow COMMIT', '00000', 'r - -' ])
{
	my ($mode, $state, $kinds) = @$case;

	$proxy->mode($mode);
	my @result = move('log_0', 'local');
	$proxy->mode('pass');
	like($result[0], qr/$state/, "from a node, $mode: $state");
	whole("from a node, $mode", $kinds);
	next if $state ne '00000';
	like($result[3], qr/WARNING:  08006: server "n1" may not have dropped the tables/, "from a node, $mode: a warning");
	$n1->safe_psql('postgres', 'DROP TABLE IF EXISTS log_0');
	moves_ok('log_0', 'n1');
}

# A backend that is killed, and one that is canceled, in the middle.
$holder->query_safe('BEGIN; LOCK TABLE log_0 IN ROW EXCLUSIVE MODE');
foreach my $signal ('cancel', 'terminate')
{
	my $victim = session($here);

	send_to($victim, "SELECT shard_fdw.move_shard('log_0', 'n2');\n");
	poll_ok($here, "SELECT count(*) = 1 FROM shard_fdw.progress WHERE pid = $victim->{pid} AND command = 'move_shard' AND phase = 'creating the table'",
		'one waits for the table on a node, and is in view progress');
	$here->safe_psql('postgres', "SELECT pg_${signal}_backend($victim->{pid})");
	poll_ok($here, "SELECT count(*) = 0 FROM pg_locks WHERE pid = $victim->{pid} AND relation = 'log_0'::regclass", "pg_${signal}_backend()");
}
$holder->query_safe('ROLLBACK');
whole('one that is ended', 'f r -');
is((state_of($mover, q{SET lock_timeout = '1s'}))[0], '00000', 'with a timeout');
$holder->query_safe('BEGIN; LOCK TABLE log_0 IN ROW EXCLUSIVE MODE');
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'n2')}, '55P03', undef, title => 'a table in use on a node');
$holder->query_safe('ROLLBACK');
state_of($mover, 'RESET lock_timeout');

# What is refused

$n1->safe_psql('postgres', 'CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
	CREATE TRIGGER noop BEFORE INSERT ON log_0 FOR EACH ROW EXECUTE FUNCTION noop()');
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}, '55000', 'shard "log_0" cannot be moved from server "n1"',
	detail => 'Its table there has triggers.');
$n1->safe_psql('postgres', 'DROP TRIGGER noop ON log_0; ALTER TABLE log_0 ADD more int');
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}, '55000', undef,
	detail => 'Its table there has a column "more" that the shard has not.');
$n1->safe_psql('postgres', 'ALTER TABLE log_0 DROP more; CREATE VIEW seen AS SELECT id FROM log_0');
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}, '55000', undef, detail => 'A view or a rule uses its table there.');
$n1->safe_psql('postgres', q{DROP VIEW seen; ALTER TABLE log_0 RENAME v TO "V'"});
$here->safe_psql('postgres', q{ALTER FOREIGN TABLE log_0 ALTER v OPTIONS (ADD column_name 'V''')});
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}, '55000', undef,
	detail => q{Its table there has an index on column "V'", which has another name here.});
$n1->safe_psql('postgres', q{ALTER TABLE log_0 RENAME "V'" TO v});
$here->safe_psql('postgres', q{ALTER FOREIGN TABLE log_0 ALTER v OPTIONS (DROP column_name)});
$here->safe_psql('postgres', q{
	CREATE SERVER n9 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
	CREATE USER MAPPING FOR CURRENT_USER SERVER n9;
	CREATE SERVER n8 FOREIGN DATA WRAPPER postgres_fdw;
	CREATE TABLE other (i int PRIMARY KEY);
	CREATE TABLE s_model (i int PRIMARY KEY);
	CREATE FOREIGN TABLE s (i int) SERVER shards OPTIONS (shards '9', template 's_model');
	ALTER TABLE s_0 ADD FOREIGN KEY (i) REFERENCES other;
	CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
	CREATE TRIGGER noop AFTER INSERT ON s_1 FOR EACH ROW EXECUTE FUNCTION noop();
	ALTER TABLE s_2 ENABLE ROW LEVEL SECURITY;
	CREATE VIEW seen AS SELECT i FROM s_3;
	CREATE TABLE child () INHERITS (s_4);
	ALTER TABLE s_5 ADD more int;
	CREATE PUBLICATION p FOR TABLE s_6;
	CREATE TABLE pointer (i int REFERENCES s_7);
	CREATE FOREIGN TABLE ordered (id bigint OPTIONS (sequence 'always')) SERVER shards OPTIONS (shards '1', commit_order 'true')});
foreach (
	[ q{'other', 'n1'}, '42809', '"other" is not a shard' ],
	[ q{'s_8', 'local'}, '55000', 'shard "s_8" is on this server already' ],
	[ q{'log_0', 'n1'}, '55000', 'shard "log_0" is on server "n1" already' ],
	[ q{'s_8', 'n7'}, '42704', 'server "n7" does not exist' ],
	[ q{'s_8', 'shards'}, '42809', 'server "shards" is not a server of postgres_fdw' ],
	[ q{'s_8', 'n8'}, '42704', qr/has no user mapping for server "n8"/ ],
	[ q{'s_8', 'n9'}, '08001', 'could not connect to server "n9"' ],
	[ q{NULL, 'n1'}, '22004', 'shard must not be null' ],
	[ q{'s_8', NULL}, '22004', 'node must not be null' ],
	[ q{'s_0', 'n1'}, '55000', 'cannot move shard "s_0" of foreign table "s"', detail => 'It has foreign keys.' ],
	[ q{'s_1', 'n1'}, '55000', undef, detail => 'It has triggers.' ],
	[ q{'s_2', 'n1'}, '55000', undef, detail => 'It has row-level security.' ],
	[ q{'s_3', 'n1'}, '2BP01', undef, detail => qr/view public.seen depends/ ],
	[ q{'s_4', 'n1'}, '0A000', undef, detail => 'It has inheritance children.' ],
	[ q{'s_5', 'n1'}, '55000', undef, detail => 'It has a column "more" that the foreign table has not.' ],
	[ q{'s_6', 'n1'}, '55000', undef, detail => 'It belongs to publication "p", or would so.' ],
	[ q{'s_7', 'n1'}, '2BP01', undef, detail => qr/constraint pointer_i_fkey/ ],
	[ q{'ordered_0', 'n1'}, '0A000', undef, detail => qr/commit_order/ ])
{
	my ($arguments, @expected) = @$_;

	fails($mover, "SELECT shard_fdw.move_shard($arguments)", @expected);
}
fails($mover, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT shard_fdw.move_shard('s_8', 'n1')}, '25001', undef, title => 'REPEATABLE READ');
state_of($mover, 'ROLLBACK');

$here->safe_psql('postgres', 'CREATE PUBLICATION q FOR ALL TABLES');
fails($mover, q{SELECT shard_fdw.move_shard('s_8', 'n1')}, '55000', undef, detail => qr/publication "q"/, title => 'a publication of all tables');
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'local')}, '55000', undef, detail => qr/publication "q"/, title => '... and a shard that comes to them');
$here->safe_psql('postgres', 'DROP PUBLICATION q');

# Other connections to the same database: the table that is there is no leftover.
$here->safe_psql('postgres', sprintf(q{
	SELECT shard_fdw.add_connections('n1', 2);
	CREATE SERVER myself FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER myself}, $here->host, $here->port));
fails($mover, q{SELECT shard_fdw.move_shard('log_0', 'n1_2')}, '55000', 'cannot move shard "log_0" of foreign table "log"',
	detail => 'Servers "n1" and "n1_2" are connections to the same database.');
fails($mover, q{SELECT shard_fdw.move_shard('s_8', 'myself')}, '55000', undef,
	detail => 'Server "myself" is a connection to this database.');
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE FOREIGN TABLE spread (id int) SERVER shards OPTIONS (shards '4', nodes 'n1, n1_2')});
is((state_of($mover, q{SELECT * FROM shard_fdw.rebalance_plan('spread')}))[2], '', 'connections to one database need no moves');
is((state_of($mover, q{SELECT count(*), string_agg(DISTINCT target, ' ') FROM shard_fdw.rebalance_plan('spread', 'n1, n1_2, n2')}))[2],
	'2|n2', '... and count as one server');

# A role without superuser

$_->safe_psql('postgres', q{CREATE ROLE app LOGIN PASSWORD 'secret'; GRANT CREATE ON SCHEMA public TO app}) foreach $here, @nodes;
$here->safe_psql('postgres', q{
	GRANT USAGE ON FOREIGN SERVER shards, n1, n2 TO app;
	CREATE USER MAPPING FOR app SERVER n1 OPTIONS (user 'app', password_required 'false');
	CREATE USER MAPPING FOR app SERVER n2 OPTIONS (user 'app', password_required 'false')});
my $app = session($here, 'app');

state_of($app, $_) foreach (
	'CREATE TABLE mine_model (i int PRIMARY KEY, t text)',
	q{CREATE FOREIGN TABLE mine (i int, t text) SERVER shards OPTIONS (shards '6', template 'mine_model', route 'hash', key 'i')},
	q{INSERT INTO mine SELECT g, repeat('x', 100) FROM generate_series(1, 6000) g});
fails($app, q{SELECT shard_fdw.move_shard('log_1', 'n1')}, '42501', undef, title => 'a shard of somebody else');
fails($app, q{SELECT * FROM shard_fdw.rebalance_plan('log')}, '42501', undef, title => 'a table of somebody else');

# rebalance()

my $plan = q{SELECT * FROM shard_fdw.rebalance_plan('mine', 'local, n1, n2')};
my $where = q{SELECT string_agg(count::text, ' ' ORDER BY server NULLS FIRST) FROM (SELECT server, count(*) FROM shard_fdw.shards
	WHERE logical = 'mine'::regclass GROUP BY server) c};
is((state_of($app, q{SELECT * FROM shard_fdw.rebalance_plan('mine')}))[2], '', 'a plan for what is on one server');
is((state_of($app, "SELECT count(*), count(DISTINCT shard), min(source), string_agg(DISTINCT target, ' '), min(bytes) > 100000 FROM ($plan) p"))[2],
	'4|4|local|n1 n2|t', 'a plan for three servers');
fails($app, q{BEGIN; CALL shard_fdw.rebalance('mine', 'local, n1, n2')}, '25001', 'rebalance() cannot be called in a transaction block');
state_of($app, 'ROLLBACK');
my $third = (split(/\n/, (state_of($app, "SELECT shard FROM ($plan) p"))[2]))[2];
my $user = session($here);
$user->query_safe("BEGIN; LOCK TABLE $third IN ACCESS SHARE MODE");
is((state_of($app, q{SET lock_timeout = '300ms'; CALL shard_fdw.rebalance('mine', 'local, n1, n2')}))[0], '55P03', 'a shard that is in use');
is($here->safe_psql('postgres', $where), '4 1 1', 'what was moved before stays');
$user->query_safe('ROLLBACK');
my @result = state_of($app, q{RESET lock_timeout; SET client_min_messages = notice; CALL shard_fdw.rebalance('mine', 'local, n1, n2')});
is($result[0], '00000', 'the same call goes on') or diag($result[3]);
is(() = $result[3] =~ /NOTICE:  00000: moved shard public.mine_\d from "local" to "n[12]"/g, 2, '... and tells what it does');
is($here->safe_psql('postgres', $where), '2 2 2', 'three servers');
is((state_of($app, "SELECT count(*) FROM ($plan) p"))[2], '0', 'there is nothing left to be done');
is((state_of($app, q{CALL shard_fdw.rebalance('mine', 'local')}))[0], '00000', 'all back');
is($here->safe_psql('postgres', "$where; SELECT count(*), count(DISTINCT i) FROM mine"), "6\n6000|6000", 'no row is lost');
is(join(' ', map { $_->safe_psql('postgres', q{SELECT count(*) FROM pg_tables WHERE tablename LIKE 'mine%'}) } @nodes), '0 0', 'no table is left');

$here->stop('immediate');
$here->start;
same('after a crash');

done_testing();
