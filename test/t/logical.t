# Logical replication of the shards to a logical table on another server, whose
# shards have the same names.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = shard_node('publisher', allows_streaming => 'logical',
	conf => "session_preload_libraries = 'shard_fdw'\n");
my $subscriber = shard_node('subscriber');
my $tables = q{
	CREATE TABLE model (id bigint PRIMARY KEY, k int, v text);
	CREATE TABLE keyed_model (k int PRIMARY KEY, v text);
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), k int, v text)
	  SERVER shards OPTIONS (shards '3', template 'model');
	CREATE FOREIGN TABLE lanes (id bigint OPTIONS (sequence 'always'), k int, v text)
	  SERVER shards OPTIONS (shards '2', template 'model', commit_order 'true');
	CREATE FOREIGN TABLE keyed (k int, v text)
	  SERVER shards OPTIONS (shards '3', template 'keyed_model', route 'hash', key 'k');
	CREATE FOREIGN TABLE misplaced (k int, v text)
	  SERVER shards OPTIONS (shards '%d', template 'keyed_model', route 'hash', key 'k')};
$publisher->safe_psql('postgres', sprintf($tables, 3));
$subscriber->safe_psql('postgres', sprintf($tables, 4));

fails($publisher, 'CREATE PUBLICATION p FOR TABLE log', '22023',
	'cannot add relation "log" to publication',
	title => 'a logical table cannot be published, its shards can');
$publisher->safe_psql('postgres', q{
	DO $$ BEGIN EXECUTE (SELECT 'CREATE PUBLICATION p FOR TABLE ' || string_agg(shard::text, ', ')
	                       FROM shard_fdw.shards
	                       WHERE logical::text IN ('log', 'lanes', 'keyed')); END $$;
	CREATE PUBLICATION q FOR TABLE misplaced_0, misplaced_1, misplaced_2;
	-- what was there before
	INSERT INTO log (k) SELECT generate_series(1, 100);
	INSERT INTO keyed SELECT generate_series(1, 100)});
my $connection = $publisher->connstr('postgres') =~ s/'/''/gr;
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION p CONNECTION '$connection' PUBLICATION p");

# Both have the same rows, in the same shards.
sub same_rows
{
	my ($title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$subscriber->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'})
	  or die 'the subscription does not get ready';
	$publisher->wait_for_catchup('p');
	foreach my $table ('log', 'lanes', 'keyed')
	{
		my $rows = qq{
			SELECT tableoid::regclass, count(*), md5(string_agg(t::text, ',' ORDER BY t::text))
			  FROM $table t GROUP BY 1 ORDER BY 1::text};

		is($subscriber->safe_psql('postgres', $rows),
			$publisher->safe_psql('postgres', $rows), "$title: $table");
	}
}

same_rows('rows that were there');
$publisher->safe_psql('postgres', q{
	SET shard_fdw.shard = 0; INSERT INTO log (k, v) SELECT g, 'a' FROM generate_series(1, 1000) g;
	SET shard_fdw.shard = 2; INSERT INTO log (k, v) SELECT g, 'b' FROM generate_series(1, 1000) g;
	RESET shard_fdw.shard;
	INSERT INTO log (k, v) VALUES (0, 'one');
	INSERT INTO lanes (k) SELECT generate_series(1, 100);
	INSERT INTO lanes (k) SELECT generate_series(1, 100);
	INSERT INTO keyed SELECT g, 'c' FROM generate_series(101, 2000) g;
	BEGIN; INSERT INTO keyed VALUES (-1); INSERT INTO log (k) VALUES (-1); ROLLBACK});
same_rows('inserts');
$publisher->safe_psql('postgres', q{
	INSERT INTO keyed SELECT g, 'd' FROM generate_series(1, 3000, 7) g ON CONFLICT (k)
	  DO UPDATE SET v = keyed.v || EXCLUDED.v;
	UPDATE log SET v = 'updated' WHERE k % 10 = 1;
	DELETE FROM log WHERE k % 10 = 2;
	DELETE FROM keyed WHERE k BETWEEN 50 AND 60;
	BEGIN; SAVEPOINT s; INSERT INTO keyed VALUES (-2); ROLLBACK TO s;
	INSERT INTO keyed VALUES (-3); COMMIT});
same_rows('changes');
is( $subscriber->safe_psql('postgres', q{
		SELECT shard_fdw.register_consumer('lanes', 'c', 'id');
		SELECT count(*), count(DISTINCT k) FROM shard_fdw.read_batch(NULL::lanes, 'c', 1000);
		SELECT count(*), count(DISTINCT k) FROM shard_fdw.read_batch(NULL::lanes, 'c', 1000);
		SELECT count(*) FROM shard_fdw.read_batch(NULL::lanes, 'c', 1000)}),
	"\n200|100\n0|0\n0", 'a consumer at the subscriber reads them, and waits for more');
my $id = $publisher->safe_psql('postgres', 'SELECT max(id) FROM log');
foreach my $query (
	"SELECT * FROM log WHERE id = $id",
	'SELECT * FROM keyed WHERE k IN (-3, 1, 8, 101)  ORDER BY k',
	'SELECT v, count(*), sum(id) FROM log GROUP BY v ORDER BY v',
	'SELECT count(*) FROM log JOIN keyed USING (k)')
{
	is($subscriber->safe_psql('postgres', $query),
		$publisher->safe_psql('postgres', $query), "the subscriber says the same: $query");
}
$publisher->safe_psql('postgres', 'TRUNCATE lanes; INSERT INTO lanes (k) VALUES (1)');
same_rows('truncation');

# Shards that come later have to be published and subscribed to.
$_->safe_psql('postgres', q{SELECT FROM shard_fdw.create_shards('log', 1)})
  foreach $publisher, $subscriber;
$publisher->safe_psql('postgres', q{
	ALTER PUBLICATION p ADD TABLE log_3;
	SET shard_fdw.shard = 3;
	INSERT INTO log (k) SELECT generate_series(1, 50)});
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION p REFRESH PUBLICATION');
same_rows('a new shard');

# Shards that hold other hashes keep rows out that are not theirs.
my $log = -s $subscriber->logfile;
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION q CONNECTION '$connection' PUBLICATION q WITH (copy_data = off)");
$publisher->safe_psql('postgres', 'INSERT INTO misplaced SELECT generate_series(1, 100)');
ok( $subscriber->wait_for_log(
		qr/new row for relation "misplaced_\d" violates check constraint "shard_hash"/, $log),
	'other places: rows are kept out');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION q');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM misplaced'),
	'0', 'other places: all rows are kept out');

# The subscriber takes over.  Sequences are not replicated.
$publisher->wait_for_catchup('p');
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION p DISABLE');
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION p SET (slot_name = NONE)');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION p');
is( $subscriber->safe_psql('postgres', q{
		SELECT bool_and(collides) FROM shard_fdw.sequences
		 WHERE tbl::text IN (SELECT tableoid::regclass::text FROM log)}),
	't', 'sequences are behind the ids that have come');
fails($subscriber, 'SET shard_fdw.shard = 0; INSERT INTO log (k) VALUES (1)',
	'23505', qr/^duplicate key value violates unique constraint/,
	title => 'a unique index notices an id that is given again');
is( $subscriber->safe_psql('postgres', q{
		SELECT count(*) FROM shard_fdw.reset_sequences('log');
		SET shard_fdw.shard = 0;
		INSERT INTO log (k) SELECT generate_series(1, 100);
		RESET shard_fdw.shard;
		INSERT INTO log (k) SELECT generate_series(1, 100);
		INSERT INTO keyed VALUES (-4);
		SELECT count(*) = count(DISTINCT id),
		  bool_and(id % 1024 = (SELECT min(id) % 1024 FROM log l WHERE l.tableoid = log.tableoid))
		    FROM log}),
	"4\nt|t", 'reset_sequences() gets them past those: the subscriber takes rows');

$publisher->stop;
$subscriber->stop;
done_testing();
