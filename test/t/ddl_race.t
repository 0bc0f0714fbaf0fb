# Clients insert, read and take rows while the set of shards changes all the
# time: nobody fails, and every row that was committed is in one table.
use strict;
use warnings;

use ShardTest;
use IPC::Run;
use Test::More;

my $seconds = 5;
my $node = shard_node('race', conf => "deadlock_timeout = 200ms\n");
$node->safe_psql('postgres', q{
	CREATE TABLE model (id bigserial PRIMARY KEY, client int, n int);
	CREATE FOREIGN TABLE log (id bigserial, client int, n int)
	  SERVER shards OPTIONS (shards '4', template 'model', batch_size '3');
	CREATE FOREIGN TABLE rr (id bigserial, client int, n int)
	  SERVER shards OPTIONS (shards '4', template 'model', batch_size '3', route 'round_robin');
	-- where rows go that leave a logical table for good
	CREATE TABLE moved_log (LIKE model);
	CREATE TABLE moved_rr (LIKE model);
	CREATE TABLE changes (logical regclass, kind text);

	-- All the ways to change the set of shards, over and over.  At least three
	-- shards stay open, so that inserts always find one.  A table that was
	-- detached is named old_*, to leave the name to a new shard.
	CREATE PROCEDURE churn(logical regclass, deadline timestamptz) LANGUAGE plpgsql AS $$
	<<me>>
	DECLARE
	  kind text;
	  shard regclass;
	  other regclass;
	  members int;
	  opened int;
	BEGIN
	  WHILE clock_timestamp() < deadline LOOP
	    FOREACH kind IN ARRAY ARRAY[
	      'create two', 'seal', 'column', 'detach', 'attach', 'index', 'detach', 'replace',
	      'unseal', 'rename', 'detach', 'drop', 'create', 'close', 'logical', 'move',
	      'attach', 'move']
	    LOOP
	      SELECT count(*), count(*) FILTER (WHERE state = 'open') INTO members, opened
	        FROM shard_fdw.list_shards(logical);
	      shard := NULL;
	      IF kind IN ('attach', 'drop', 'replace') THEN
	        SELECT oid INTO shard FROM pg_class c
	         WHERE relname LIKE 'old_' || logical || '%' AND relkind = 'r'
	           AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
	         ORDER BY random() LIMIT 1;
	      ELSIF kind = 'unseal' OR kind = 'move' AND opened <= 3 THEN
	        SELECT s.shard INTO shard FROM shard_fdw.list_shards(logical) s
	         WHERE state = 'sealed' ORDER BY random() LIMIT 1;
	      ELSIF opened > 3 THEN
	        SELECT s.shard INTO shard FROM shard_fdw.list_shards(logical) s
	         WHERE state = 'open' ORDER BY random() LIMIT 1;
	      END IF;
	      CONTINUE WHEN shard IS NULL AND kind NOT IN ('create', 'create two', 'logical')
	                    OR kind LIKE 'create%' AND members > 9;

	      CASE kind
	        WHEN 'create' THEN PERFORM shard_fdw.create_shards(logical, 1);
	        WHEN 'create two' THEN PERFORM shard_fdw.create_shards(logical, 2, 'model');
	        WHEN 'seal' THEN PERFORM shard_fdw.seal(shard);
	        WHEN 'unseal' THEN PERFORM shard_fdw.unseal(shard);
	        WHEN 'close' THEN
	          EXECUTE format('ALTER TABLE %s ADD CONSTRAINT closed CHECK (1 = 2) NOT VALID', shard);
	        WHEN 'column' THEN
	          EXECUTE format('ALTER TABLE %s DROP COLUMN IF EXISTS extra', shard);
	          EXECUTE format('ALTER TABLE %s ADD COLUMN extra text DEFAULT %L', shard, kind);
	        WHEN 'index' THEN
	          EXECUTE format('CREATE INDEX ON %s (client)', shard);
	        WHEN 'rename' THEN
	          EXECUTE format('ALTER TABLE %s RENAME TO old_%s_%s', shard, logical, txid_current());
	        WHEN 'detach' THEN
	          EXECUTE format('ALTER TABLE %s NO INHERIT %s', shard, logical);
	          EXECUTE format('ALTER TABLE %s RENAME TO old_%s_%s', shard, logical, txid_current());
	        WHEN 'attach' THEN
	          EXECUTE format('ALTER TABLE %s INHERIT %s', shard, logical);
	        WHEN 'replace' THEN
	          -- a change of several shards at once could deadlock with a query of
	          -- all; so nobody is to be at it
	          EXECUTE format('ALTER FOREIGN TABLE %s OPTIONS (SET batch_size %L)',
	                         logical, 1 + trunc(random() * 10));
	          EXECUTE format('ALTER TABLE %s INHERIT %s', shard, logical);
	          SELECT s.shard INTO other FROM shard_fdw.list_shards(logical) s
	           WHERE s.shard <> me.shard ORDER BY random() LIMIT 1;
	          EXECUTE format('ALTER TABLE %s NO INHERIT %s', other, logical);
	          EXECUTE format('ALTER TABLE %s RENAME TO old_%s_%s', other, logical, txid_current());
	        WHEN 'move', 'drop' THEN
	          EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', shard);
	          EXECUTE format('INSERT INTO moved_%s SELECT id, client, n FROM %s', logical, shard);
	          EXECUTE format('DROP TABLE %s', shard);
	        WHEN 'logical' THEN
	          EXECUTE format('ALTER TABLE %s ADD COLUMN added int DEFAULT 1', logical);
	          COMMIT;
	          EXECUTE format('ALTER TABLE %s DROP COLUMN added', logical);
	      END CASE;
	      INSERT INTO changes VALUES (logical, kind);
	      COMMIT;
	    END LOOP;
	  END LOOP;
	END $$;

	-- every row of a logical table, of the tables it has lost, and moved ones
	CREATE FUNCTION all_rows(logical text) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
	DECLARE
	  t regclass;
	BEGIN
	  FOR t IN SELECT oid FROM pg_class
	            WHERE relkind = 'r' 
	              AND relname ~ ('^((old_)?' || logical || '_\d+|moved_' || logical || ')$')
	  LOOP
	    RETURN QUERY EXECUTE format('SELECT id FROM %s', t);
	  END LOOP;
	END $$;
});

# Rows per transaction, weight, and the script; then those that only look.
my @writers = (
	[ log => 1, 6, 'INSERT INTO log (client, n) VALUES (:client_id, 1);' ],
	[ log => 5, 2, q{
BEGIN;
INSERT INTO log (client, n) VALUES (:client_id, 1);
INSERT INTO log (client, n) SELECT :client_id, g FROM generate_series(2, 4) g;
SAVEPOINT s;
INSERT INTO log (client, n) VALUES (-1, -1);
ROLLBACK TO s;
INSERT INTO log (client, n) VALUES (:client_id, 5);
COMMIT;
} ],
	[ rr => 1, 4, 'INSERT INTO rr (client, n) VALUES (:client_id, 1) RETURNING id;' ],
	[ rr => 4, 2, 'INSERT INTO rr (client, n)
		VALUES (:client_id, 1), (:client_id, 2), (:client_id, 3), (:client_id, 4);' ]);
my @others = (
	[ 'SELECT count(*), max(id), sum(n) FROM log;', 1 ],
	[ 'SELECT client, count(*) FROM rr GROUP BY client ORDER BY client;', 1 ],
	[ q{
\set id random(1, 1000)
SELECT id, client, n FROM log WHERE id = :id;
SELECT id, n FROM rr WHERE id > :id ORDER BY id LIMIT 3;
}, 2 ],
	[ q{
WITH taken AS (
  DELETE FROM log WHERE id = (SELECT id FROM log ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
  RETURNING id, client, n)
INSERT INTO moved_log SELECT * FROM taken;
}, 1 ]);

# A thread for every client: preparing a statement blocks the whole thread, and
# may have to wait for another client's transaction.
my %expected = (log => 0, rr => 0);
foreach my $mode ('simple', 'extended', 'prepared')
{
	my $bench = pgbench_start(
		$node,
		[ (map { [ $_->[3], $_->[2] ] } @writers), @others ],
		'-c', '8', '-j', '8', '-T', $seconds, '-M', $mode);
	my @churns = map {
		my %churn = (out => '');
		$churn{harness} = IPC::Run::start(
			[
				'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d',
				$node->connstr('postgres'), '-c',
				"SET client_min_messages = warning", '-c',
				"CALL churn('$_', clock_timestamp() + '$seconds s')"
			],
			'<', \undef, '>&', \$churn{out});
		\%churn;
	} 'log', 'rr';
	foreach my $churn (@churns)
	{
		$churn->{harness}->finish;
		is(($churn->{harness}->full_results)[0],
			0, "$mode: the changes went through")
		  or diag($churn->{out});
	}
	pgbench_ok($bench, $mode);

	foreach my $i (0 .. $#writers)
	{
		my ($table, $rows) = @{ $writers[$i] };
		cmp_ok($bench->{each}[$i], '>', 0, "$mode: script $i ran");
		$expected{$table} += $rows * $bench->{each}[$i];
	}
	foreach my $table ('log', 'rr')
	{
		is( $node->safe_psql('postgres',
				"SELECT count(*), count(DISTINCT id) FROM all_rows('$table') id"),
			"$expected{$table}|$expected{$table}",
			"$mode: every row of $table is in one table");
		is( $node->safe_psql('postgres', qq{
				SELECT count(*) FROM $table
				EXCEPT
				SELECT sum(result::bigint)
				  FROM shard_fdw.run_command_on_shards('$table', 'SELECT count(*) FROM %s')}),
			'', "$mode: $table shows the rows of its shards");
	}
	poll_ok($node, 'SELECT count(*) = 0 FROM shard_fdw.leases',
		"$mode: no lease is left");
}
is( $node->safe_psql('postgres', q{
		SELECT count(DISTINCT kind) FROM changes GROUP BY logical}),
	"14\n14", 'there was every kind of change to either table');
note $node->safe_psql('postgres',
	'SELECT logical, kind, count(*) FROM changes GROUP BY 1, 2 ORDER BY 1, 2');
is($node->safe_psql('postgres', 'SELECT count(*) FROM all_rows($$log$$) WHERE all_rows IS NULL'),
	'0', 'no row is without its id');

$node->stop;
done_testing();
