# What was in flight when a standby is promoted: leases, lanes, sequences,
# consumers and prepared transactions.  (standby.t has queries on a standby.)
use strict;
use warnings;

use ShardTest;
use Test::More;

my $primary = shard_node('old', allows_streaming => 1, conf => q{
max_prepared_transactions = 10
track_commit_timestamp = on
session_preload_libraries = 'shard_fdw'
});
$primary->safe_psql('postgres', q{
	CREATE TABLE model (id bigint PRIMARY KEY, v text);
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v text)
	  SERVER shards OPTIONS (shards '2', template 'model');
	CREATE FOREIGN TABLE lanes (id bigint OPTIONS (sequence 'always'), v text)
	  SERVER shards OPTIONS (shards '3', template 'model', commit_order 'true');
	CREATE TABLE keyed_model (k int PRIMARY KEY, n int);
	CREATE FOREIGN TABLE keyed (k int, n int)
	  SERVER shards OPTIONS (shards '3', template 'keyed_model', route 'hash', key 'k');
	CREATE FOREIGN TABLE serial (id bigserial, v text) SERVER shards
	  OPTIONS (shards '2', route 'round_robin');
	ALTER SEQUENCE lanes_id_1_seq CACHE 10;
	SELECT shard_fdw.register_consumer('lanes', 'c', 'id');
	CREATE TABLE have_read (id bigint PRIMARY KEY, v text)});
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('new');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my @sessions = map { session($primary) } 1 .. 2;
foreach my $session (@sessions)
{
	$session->query_safe(q{
		INSERT INTO log (v) SELECT 'old' FROM generate_series(1, 50);
		INSERT INTO lanes (v) SELECT 'old' FROM generate_series(1, 50);
		INSERT INTO serial (v) SELECT 'old' FROM generate_series(1, 50)});
}
$primary->safe_psql('postgres', q{
	INSERT INTO keyed SELECT g, 0 FROM generate_series(1, 20) g;
	SET shard_fdw.shard = 0; INSERT INTO lanes (v) SELECT 'old' FROM generate_series(1, 50);
	SET shard_fdw.shard = 1; INSERT INTO lanes (v) SELECT 'old' FROM generate_series(1, 50);
	SET shard_fdw.shard = 2; INSERT INTO lanes (v) SELECT 'old' FROM generate_series(1, 50)});
# Some of it has been read; a reading that is prepared, one that is under way.
$primary->safe_psql('postgres',
	q{INSERT INTO have_read SELECT id, v FROM shard_fdw.read_batch(NULL::lanes, 'c', 30)});
$primary->safe_psql('postgres', q{
	BEGIN;
	INSERT INTO have_read SELECT id, v FROM shard_fdw.read_batch(NULL::lanes, 'c', 30);
	PREPARE TRANSACTION 'reader'});
$sessions[0]->query_safe(q{
	BEGIN;
	INSERT INTO have_read SELECT id, v FROM shard_fdw.read_batch(NULL::lanes, 'c', 30);
	INSERT INTO lanes (v) VALUES ('lost');
	INSERT INTO log (v) VALUES ('lost')});
# Prepared, too: rows with lanes of two shards, and an upsert.
foreach my $name ('kept', 'dropped')
{
	$sessions[1]->query_safe(qq{
		BEGIN;
		INSERT INTO log (v) VALUES ('$name');
		INSERT INTO lanes (v) VALUES ('$name') RETURNING id % 1024;
		INSERT INTO serial (v) VALUES ('$name');
		INSERT INTO keyed VALUES (}
		  . ($name eq 'kept' ? '1' : '2')
		  . qq{, 100), (}
		  . ($name eq 'kept' ? '101' : '102')
		  . qq{, 100)
		  ON CONFLICT (k) DO UPDATE SET n = keyed.n + EXCLUDED.n;
		PREPARE TRANSACTION '$name'});
}
my $given = $primary->safe_psql('postgres', q{
	SELECT string_agg(format('(%L, %s)', sequencename, last_value), ', ') FROM pg_sequences});
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;

# Lanes that prepared transactions have are still taken, leases are not.
is($standby->safe_psql('postgres', q{
		SELECT count(*) FROM shard_fdw.leases WHERE NOT lane;
		SELECT count(*), count(pid) FROM shard_fdw.leases WHERE lane
		  AND logical = 'lanes'::regclass}),
	"0\n2|0", 'promoted: prepared transactions have their lanes, nobody has a lease');
eval { $_->quit } foreach @sessions;
@sessions = map { session($standby) } 1 .. 2;
my $taken = $standby->safe_psql('postgres',
	'SELECT string_agg(shard::oid::text, $$, $$) FROM shard_fdw.leases');
$sessions[0]->query_safe(q{SET lock_timeout = '10s'; BEGIN; INSERT INTO lanes (v) VALUES ('new')});
is( $sessions[0]
	  ->query_safe("SELECT count(*) FROM lanes WHERE v = 'new' AND tableoid NOT IN ($taken)"),
	'1', 'promoted: who inserts takes the lane that is free');
$sessions[1]->query_safe(q{SET lock_timeout = '100ms'});
fails($sessions[1], q{INSERT INTO lanes (v) VALUES ('late')}, '55P03',
	'canceling statement due to lock timeout', title => 'promoted: there is no other');
fails($sessions[1], 'INSERT INTO keyed VALUES (101, 1)', '55P03',
	'canceling statement due to lock timeout',
	title => 'promoted: a key of a prepared transaction is waited for');
$sessions[1]->query_safe('RESET lock_timeout');

# Rows of all, with ids that nobody has had; those of a shard ascend.
foreach my $session (@sessions)
{
	$session->query_safe('COMMIT') if $session == $sessions[0];
	$session->query_safe(q{
		INSERT INTO log (v) SELECT 'new' FROM generate_series(1, 50);
		INSERT INTO lanes (v) SELECT 'new' FROM generate_series(1, 50);
		INSERT INTO serial (v) SELECT 'new' FROM generate_series(1, 50)});
}
is( $standby->safe_psql('postgres',
		q{SELECT count(*), count(DISTINCT (shard, level)) FROM shard_fdw.leases
			WHERE logical = 'log'::regclass}),
	'2|2', 'promoted: the sessions have leases of their own');
foreach my $table ('log', 'serial')
{
	is( $standby->safe_psql('postgres', qq{
			SELECT min(id) FILTER (WHERE v = 'new') > max(id) FILTER (WHERE v = 'old')
			  FROM $table GROUP BY CASE '$table' WHEN 'log' THEN tableoid END
			  HAVING count(DISTINCT v) > 1}),
		$table eq 'log' ? "t\nt" : 't', "promoted: ids of $table go on");
}
is( $standby->safe_psql('postgres', qq{
		SELECT count(*) FROM (VALUES $given) g (name, given)
		  JOIN pg_sequences ON sequencename = name
		 WHERE last_value < given}),
	'0', 'promoted: no sequence has gone back');

# Prepared transactions end as they are told.
$standby->safe_psql('postgres', q{COMMIT PREPARED 'kept'});
$standby->safe_psql('postgres', q{ROLLBACK PREPARED 'dropped'});
is( $standby->safe_psql('postgres', q{
		SELECT (SELECT string_agg(v, ' ') FROM log WHERE v NOT IN ('old', 'new')),
		       (SELECT string_agg(v, ' ') FROM lanes WHERE v NOT IN ('old', 'new')),
		       (SELECT string_agg(v, ' ') FROM serial WHERE v NOT IN ('old', 'new')),
		       (SELECT string_agg(k::text, ' ' ORDER BY k) FROM keyed WHERE n = 100)}),
	'kept|kept|kept|1 101', 'promoted: prepared transactions are committed and rolled back');
is((state_of($sessions[1], q{INSERT INTO keyed VALUES (2, 1), (101, 1) ON CONFLICT (k)
	DO UPDATE SET n = keyed.n + EXCLUDED.n RETURNING n}))[2],
	"1\n101", 'promoted: upserts find what they left');

# The consumer goes on where it was, and reads the rest once.
my $reader = session($standby);
my $unread = q{
	WITH r AS (INSERT INTO have_read SELECT id, v FROM shard_fdw.read_batch(NULL::lanes, 'c', 40)
	  RETURNING 1)
	SELECT count(*) FROM r};
1 while $reader->query_safe($unread) > 0;
is( $standby->safe_psql('postgres', q{
		SELECT count(DISTINCT tableoid) FROM lanes l
		 WHERE NOT EXISTS (SELECT FROM have_read r WHERE r.id = l.id)}),
	'1', 'promoted: all is read but the shard that the prepared reader has');
$standby->safe_psql('postgres', q{COMMIT PREPARED 'reader'});
$sessions[0]->query_safe(q{INSERT INTO lanes (v) VALUES ('last')});
1 while $reader->query_safe($unread) > 0;
is($standby->safe_psql('postgres', q{
		SELECT id, v FROM lanes EXCEPT SELECT id, v FROM have_read;
		SELECT count(*) - (SELECT count(*) FROM lanes) FROM have_read}),
	'0', 'promoted: every row has been read');
is($standby->safe_psql('postgres', q{
		SELECT count(*) FROM shard_fdw.check_order('lanes');
		SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM log UNION ALL SELECT id
		  FROM lanes WHERE false) ids}),
	"0\n201|201", 'promoted: ids are in order and unique');
$_->quit foreach @sessions, $reader;

$standby->stop;
done_testing();
