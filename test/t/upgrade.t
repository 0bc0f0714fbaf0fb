# pg_upgrade from an older server takes along rows, shards, ids, consumers.
# Needs that server: OLD_PG_CONFIG for test/with-cluster, as test/matrix does.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no older server is given by OLD_PG_CONFIG'
  unless $ENV{OLD_INSTALL};

my $conf = "shared_preload_libraries = 'shard_fdw'\ntrack_commit_timestamp = on\n";
my $old = shard_node('old', conf => $conf, install_path => $ENV{OLD_INSTALL});

# Tables of every route.  The upgrade keeps no OID but those of relations,
# types and roles; so that luck cannot help, some functions go before.
$old->safe_psql('postgres', q{
	DROP EXTENSION shard_fdw CASCADE;
	CREATE TABLE gone (a int);
	CREATE FUNCTION gone() RETURNS int LANGUAGE sql AS 'SELECT 1';
	DROP TABLE gone;
	CREATE EXTENSION shard_fdw;
	CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw;

	CREATE TABLE log_model (id bigint PRIMARY KEY, gone int, client int, note text);
	CREATE FOREIGN TABLE log (id bigserial, gone int, client int, note text)
	  SERVER shards OPTIONS (shards '4', template 'log_model');
	ALTER TABLE log DROP COLUMN gone;
	ALTER TABLE log ADD COLUMN added int DEFAULT 7;
	CREATE TABLE log_1_sub () INHERITS (log_1);
	INSERT INTO log_1_sub (id, client) VALUES (-1, 1);
	CREATE TABLE archive (note text NOT NULL, added int, client int, own int, id bigint NOT NULL);
	ALTER TABLE archive INHERIT log;
	SET shard_fdw.shard = 0;
	INSERT INTO log (client, note) SELECT g, 'row ' || g FROM generate_series(1, 50) g;
	SET shard_fdw.shard = 3;
	INSERT INTO log (client, note) SELECT g, 'row ' || g FROM generate_series(1, 50) g;
	RESET shard_fdw.shard;
	SELECT shard_fdw.seal('log_3');

	CREATE FOREIGN TABLE turns (n int, v numeric)
	  SERVER shards OPTIONS (shards '3', route 'round_robin', batch_size '7');
	INSERT INTO turns SELECT g, g / 3.0 FROM generate_series(1, 100) g;

	CREATE TABLE hashed_model (k text, n int, at timestamptz, hits int DEFAULT 0,
	  PRIMARY KEY (k, n, at));
	CREATE FOREIGN TABLE hashed (k text, n int, at timestamptz, hits int DEFAULT 0)
	  SERVER shards OPTIONS (shards '5', route 'hash', key 'k, n, at', template 'hashed_model');
	INSERT INTO hashed
	SELECT 'key ' || g, g, '2024-01-01 00:00Z'::timestamptz + g * interval '1 hour'
	  FROM generate_series(1, 200) g;

	CREATE TABLE lanes_model (id bigint PRIMARY KEY, v text);
	CREATE FOREIGN TABLE lanes (id bigint OPTIONS (sequence 'always'), v text)
	  SERVER shards OPTIONS (shards '3', commit_order 'true', template 'lanes_model');
	DO $$ BEGIN
	  FOR i IN 0 .. 2 LOOP
	    PERFORM set_config('shard_fdw.shard', i::text, false);
	    INSERT INTO lanes (v) SELECT g FROM generate_series(1, 10) g;
	  END LOOP;
	  RESET shard_fdw.shard;
	END $$;
	CREATE FOREIGN TABLE old (at timestamptz NOT NULL) SERVER shards
	  OPTIONS (shards '2', time_column 'at', rotate_every '1 day', retain_for '30 days', maintenance 'manual');
	SET shard_fdw.shard = 0;
	INSERT INTO old VALUES (now() - interval '29 days'), (now() - interval '28 days');
	SET shard_fdw.shard = 1;
	INSERT INTO old VALUES (now() - interval '29 days'), (now());
	RESET shard_fdw.shard;
	SELECT shard_fdw.rotate('old');
	CREATE TABLE have_read (id bigint);
	SELECT shard_fdw.register_consumer('lanes', 'reader', 'id');
	INSERT INTO have_read SELECT id FROM shard_fdw.read_batch(NULL::lanes, 'reader', 4);
	INSERT INTO have_read SELECT id FROM shard_fdw.read_batch(NULL::lanes, 'reader', 3);
});

# What is to be the same.
my %facts = (
	'shards' => q{
		SELECT logical, shard, ordinal, state, kind FROM shard_fdw.shards},
	'OIDs of shards' => q{
		SELECT inhrelid::oid, inhrelid::regclass FROM pg_inherits},
	'options' => q{
		SELECT ftrelid::regclass, ARRAY(SELECT unnest(ftoptions) ORDER BY 1),
		       ARRAY(SELECT attfdwoptions FROM pg_attribute WHERE attrelid = ftrelid
		         AND attfdwoptions <> '{}')
		  FROM pg_foreign_table},
	'constraints' => q{
		SELECT conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid)
		  FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text !~ '[.]'},
	'event triggers' => q{
		SELECT evtname, evtevent, evtenabled, evttags, evtfoid::regprocedure FROM pg_event_trigger},
	'maintenance' => q{
		SELECT logical, generations, closed, due, is_confirmed, last_run, last_error
		  FROM shard_fdw.maintenance},
	'ranges' => q{
		SELECT shard, range_start, range_end FROM shard_fdw.shards WHERE logical = 'old'::regclass},
	'consumers' => q{
		SELECT logical, consumer, role, shard, watermark, last_read, rows_behind
		  FROM shard_fdw.consumers},
	'sequences' => q{
		SELECT * FROM shard_fdw.sequences},
	'rows of log' => 'SELECT *, tableoid::regclass FROM log',
	'rows of turns' => 'SELECT *, tableoid::regclass FROM turns',
	'rows of hashed' => 'SELECT *, tableoid::regclass FROM hashed',
	'rows of lanes' => 'SELECT *, tableoid::regclass FROM lanes');

sub gather
{
	my ($node) = @_;
	return {
		map {
			$_ => $node->safe_psql('postgres',
				"SELECT * FROM ($facts{$_}) f ORDER BY f::text")
		} keys %facts
	};
}
$old->safe_psql('postgres', q{CALL shard_fdw.maintain('old');
	ALTER FOREIGN TABLE old OPTIONS (SET retain_for '10 days')});
my $expected = gather($old);
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
# 18 has checksums by default; an upgrade wants both sides to agree.
$new->init(extra => [ $new->pg_version >= 18 ? '--no-data-checksums' : () ]);
$new->append_conf('postgresql.conf', "autovacuum = off\n$conf");
chdir PostgreSQL::Test::Utils::tempdir;
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-d', $old->data_dir, '-b', $old->config_data('--bindir'), '-p', $old->port,
		'-D', $new->data_dir, '-B', $new->config_data('--bindir'), '-P', $new->port,
		'-s', $new->host
	],
	'pg_upgrade from ' . $old->pg_version . ' to ' . $new->pg_version);
$new->start;

my $found = gather($new);
foreach my $name (sort keys %facts)
{
	isnt($expected->{$name}, '', "there are $name");
	is($found->{$name}, $expected->{$name}, "the same $name");
}

sub sql_is
{
	my ($sql, $wanted, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($new->safe_psql('postgres', $sql), $wanted, $title);
}

# The tables that a plan scans.
sub scans
{
	my ($query) = @_;
	my $plan = $new->safe_psql('postgres', "EXPLAIN (COSTS OFF) $query");

	return join ' ', sort $plan =~ /\bon (\w+)/g;
}
my $shard = $new->safe_psql('postgres', 'SELECT tableoid::regclass FROM hashed WHERE n = 42');
is(scans("SELECT * FROM hashed WHERE k = 'key 42' AND n = 42 AND at = '2024-01-02 18:00Z'"),
	$shard, 'one shard is planned for a hash key');
my ($id, $lane) = split /\|/,
  $new->safe_psql('postgres', 'SELECT id, tableoid::regclass FROM lanes ORDER BY id DESC LIMIT 1');
is(scans("SELECT * FROM lanes WHERE id = $id"), $lane, 'one shard is planned for an id');

# Every row is met where the hash of its key says, and no other hash fits.
sql_is(q{
	INSERT INTO hashed SELECT k, n, at FROM hashed
	ON CONFLICT (k, n, at) DO UPDATE SET hits = hashed.hits + 1;
	SELECT count(*), min(hits), max(hits) FROM hashed},
	'200|1|1', 'keys find their rows');
fails($new, "INSERT INTO $shard SELECT * FROM hashed", '23514',
	qr/violates check constraint "shard_hash"$/, title => 'a shard takes no keys of others');

# Inserts go on where they were.
sql_is(q{
	INSERT INTO log (client) VALUES (1000), (1000);
	SELECT count(*), min(id), bool_and(added = 7), bool_and(tableoid = shard_fdw.last_shard()::oid)
	  FROM log WHERE client = 1000;
	SELECT count(*) FROM shard_fdw.leases WHERE logical = 'log'::regclass},
	"2|101|t|t\n1", 'a session leases a shard and goes on with the ids');
fails($new, 'INSERT INTO log_3 (id) VALUES (0)', '23514',
	qr/violates check constraint "shard_sealed"$/, title => 'a sealed shard is sealed');
sql_is(q{
	INSERT INTO turns SELECT 1000 + g FROM generate_series(1, 30) g;
	SELECT count(*), count(DISTINCT tableoid) FROM turns WHERE n > 1000},
	'30|3', 'shards take turns');
sql_is(q{
	SET shard_fdw.shard = 1;
	INSERT INTO lanes (v) VALUES ('new') RETURNING id > 10, shard_fdw.last_shard()},
	't|lanes_1', 'a lane goes on with its ids');

# The consumer goes on where it was.
$new->safe_psql('postgres',
	q{INSERT INTO have_read SELECT id FROM shard_fdw.read_batch(NULL::lanes, 'reader', 100)})
  for 1 .. 3;
sql_is('SELECT count(*), count(DISTINCT id) FROM have_read', '31|31',
	'a consumer has read each row once');
sql_is(q{SELECT count(*) FROM lanes WHERE id NOT IN (SELECT id FROM have_read)},
	'0', 'a consumer has read all rows');
sql_is(
	q{SELECT * FROM shard_fdw.check_order('lanes')},
	'',
	'ids and commits are still in the same order');

# Old rows go without another word: the owner has asked for that.
sql_is(q{
	SET client_min_messages = warning;
	CALL shard_fdw.maintain('old');
	SELECT count(*), bool_and(at > now() - interval '30 days') FROM old;
	SELECT string_agg(shard::text || ' ' || state, ', ' ORDER BY ordinal) FROM shard_fdw.list_shards('old')},
	"2|t\nold_1 closed, old_2 open, old_3 open", 'retention goes on');

# The event triggers are at work.
sql_is(q{
	CREATE FOREIGN TABLE later (a int) SERVER shards OPTIONS (shards '2');
	INSERT INTO later VALUES (1);
	SELECT count(*) FROM shard_fdw.list_shards('later')},
	'2', 'new tables get shards');
sql_is(q{
	SET client_min_messages = warning;
	DROP FOREIGN TABLE lanes CASCADE;
	SELECT count(*) FROM shard_fdw.consumers},
	'0', 'a table that is dropped has no consumers');

$new->stop;
done_testing();
