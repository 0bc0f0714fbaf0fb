# Queries by time lock no shards but those that they read, and an old snapshot
# sees rows that a newer range knows nothing of.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $generations = 30;
my $node = shard_node('prune_time');
$node->safe_psql('postgres', qq{
	CREATE TABLE model (id bigint, at timestamptz NOT NULL);
	CREATE INDEX ON model (at);
	CREATE FOREIGN TABLE log (id bigint, at timestamptz NOT NULL)
	  SERVER shards OPTIONS (shards '4', template 'model', time_column 'at', maintenance 'manual');
	DO \$\$
	BEGIN
	  FOR g IN 1..$generations LOOP
	    INSERT INTO log SELECT i, now() - ($generations - g) * interval '1 day' - i * interval
	      '1 minute'
	      FROM generate_series(1, 10) i;
	    IF g < $generations THEN PERFORM shard_fdw.rotate('log'); END IF;
	  END LOOP;
	END \$\$;
});
$node->safe_psql('postgres', $_) for split /\n/, $node->safe_psql('postgres', q{
	SELECT format('CALL shard_fdw.add_range(%L)', shard) FROM shard_fdw.list_shards('log')
	  WHERE state = 'closed'
});

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $recent = q{SELECT count(*) FROM log WHERE at >= now() - interval '1 hour'};
my $locks = q{SELECT count(DISTINCT relation) FROM pg_locks JOIN pg_class c ON c.oid = relation
	WHERE pid = pg_backend_pid() AND c.relname ~ '^log_'};
my $shards = q{SELECT count(DISTINCT relation) FROM pg_locks JOIN pg_class c ON c.oid = relation
	WHERE pid = pg_backend_pid() AND c.relname ~ '^log_' AND c.relkind = 'r'};

# Four shards are open.
sub check_locks
{
	my ($command, $rows, $title) = @_;
	$session->query_safe('BEGIN');
	is($session->query_safe($command), $rows, $title);
	is($session->query_safe($shards), 4, "$title locks the open shards");
	cmp_ok($session->query_safe($locks), '<=', 8, "$title locks at most their indexes besides");
	$session->query_safe('COMMIT');
	return;
}

# The library comes with the first query, too late to see its planning begin.
is($session->query_safe($recent), 10, 'the first query of a session');
check_locks($recent, 10, 'a query for the last hour');
$session->query_safe("PREPARE recent AS $recent");
check_locks('EXECUTE recent', 10, 'a prepared one');
check_locks('EXECUTE recent', 10, 'a prepared one whose plan has been kept');
$session->query_safe('PREPARE since(interval) AS SELECT count(*) FROM log WHERE at >= now() - $1');
check_locks("EXECUTE since('1 hour')", 10, 'one with a parameter');

# Rows that are deleted before a range is made are there for who began before.
my $old = $node->safe_psql('postgres', q{
	SELECT tableoid::regclass FROM log WHERE at < now() - interval '20 days' ORDER BY at LIMIT 1
});
my $ancient = q{SELECT count(*) FROM log WHERE at < now() - interval '28 days 20 hours'};
my $n = $node->safe_psql('postgres', $ancient);
cmp_ok($n, '>', 0, 'there are old rows');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$node->safe_psql('postgres', qq{ALTER TABLE $old DROP CONSTRAINT shard_range});
$node->safe_psql('postgres', qq{DELETE FROM $old});
$node->safe_psql('postgres', qq{CALL shard_fdw.add_range('$old')});
is($session->query_safe($ancient), $n, 'an old snapshot sees rows deleted since');
$session->query_safe('COMMIT');
is($session->query_safe($ancient), 0, 'a new one does not');
unlike($session->query_safe("EXPLAIN $ancient"),
	qr/\b$old\b/, 'a new snapshot has the shard left out');

$session->quit;
$node->stop;
done_testing();
