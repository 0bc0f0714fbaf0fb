# convert_table() while an application goes on: its sessions and prepared
# statements see no error, and no row and no change is lost.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('convert', conf => "deadlock_timeout = 100ms\n");
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE owner LOGIN;
	GRANT USAGE ON FOREIGN SERVER shards TO owner;
	GRANT ALL ON SCHEMA public TO owner;
	SET ROLE owner;
	CREATE TABLE kinds (kind int PRIMARY KEY, uses int NOT NULL DEFAULT 0);
	INSERT INTO kinds SELECT generate_series(0, 9);
	CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind int NOT NULL REFERENCES kinds,
	  n int NOT NULL DEFAULT 0, v text);
	INSERT INTO orders (kind, v) SELECT g % 10, repeat('x', 50) FROM generate_series(1, 20000) g;
	CREATE TABLE counters (k int PRIMARY KEY, n int NOT NULL);
	INSERT INTO counters SELECT g, 0 FROM generate_series(1, 1000) g;
	CREATE VIEW by_kind AS SELECT kind, count(*) AS n FROM orders GROUP BY kind;
	CREATE TABLE done (id bigint, n int);
	GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app});
my $owner = session($node, 'owner');

my @scripts = (
	[ q{\set kind random(0, 9)
		INSERT INTO orders (kind, v) VALUES (:kind, 'new') RETURNING *;}, 3 ],
	[ q{\set id random(1, 20000)
		BEGIN;
		UPDATE orders SET n = n + 1 WHERE id = :id RETURNING id, n;
		INSERT INTO done VALUES (:id, 1);
		COMMIT;}, 3 ],
	[ q{\set id random(1, 20000)
		SELECT 1 / count(*) FROM orders WHERE id = :id;
		SELECT 1 / (sum(n) >= 20000)::int FROM by_kind;}, 2 ],
	[ q{\set k random(1, 1000)
		UPDATE counters SET n = n + 1 WHERE k = :k;}, 2 ]);

# Run the application, and do something to its tables meanwhile.
sub meanwhile
{
	my ($title, @commands) = @_;
	my $app = pgbench_start($node, \@scripts, '-c', '6', '-j', '2', '-M', 'prepared', '-T', '6', '-U', 'app');

	poll_ok($node, q{SELECT count(*) >= 5 FROM pg_stat_activity WHERE usename = 'app' AND state IS NOT NULL},
		"$title: the application runs");
	is((state_of($owner, $_))[0], '00000', $_) foreach @commands;
	pgbench_ok($app, $title);
	return $app->{each};
}
my $each = meanwhile('converted',
	q{SELECT * FROM shard_fdw.convert_table('orders', 4)},
	q{SELECT * FROM shard_fdw.convert_table('counters', 4, 'hash', 'k')});
my $inserted = $each->[0];
my $counted = $each->[3];

# All that the application has done is there, once.
sub check_rows
{
	my ($database, $title) = @_;

	is($node->safe_psql($database, 'SELECT count(*) || \' \' || count(DISTINCT id) FROM orders'),
		join(' ', (20000 + $inserted) x 2), "$title: no row is lost");
	is($node->safe_psql($database, q{SELECT count(*) FROM (SELECT id, sum(n) AS n FROM done GROUP BY id) d
		FULL JOIN (SELECT id, n FROM orders WHERE n <> 0) o USING (id) WHERE d.n IS DISTINCT FROM o.n}), '0',
		"$title: no update is lost");
	is($node->safe_psql($database, 'SELECT sum(n) FROM counters'), $counted, "$title: nor one of a hash table");
	is($node->safe_psql($database, 'SELECT sum(n) FROM by_kind'), 20000 + $inserted, "$title: a view has all");
	return;
}
check_rows('postgres', 'converted');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM orders WHERE tableoid <> 'orders_old'::regclass}),
	'>', 0, 'new rows are in new shards');

# A dump between the steps, and its rows moved.
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'its restore');
check_rows('copy', 'restored');
$node->safe_psql('copy', q{CALL shard_fdw.drain('orders_old')});
check_rows('copy', 'restored and drained');
is($node->safe_psql('copy', q{INSERT INTO orders (kind) VALUES (1) RETURNING id > (SELECT max(id) FROM done)}), 't',
	'numbers go on in the restored database');

# The rows are moved while the application goes on.
$each = meanwhile('drained', q{CALL shard_fdw.drain('orders_old', 500)});
$inserted += $each->[0];
$counted += $each->[3];
check_rows('postgres', 'drained');
is($node->safe_psql('postgres', 'SELECT count(*) FROM orders_old'), '0', 'the old table is empty');

# Somebody who uses the table for long keeps it from being converted, and nobody else waits for long.
$owner->query_safe('CREATE TABLE slow (a int)');
my $reader = session($node, 'owner');
$reader->query_safe('BEGIN; SELECT * FROM slow');
fails($owner, q{SET lock_timeout = '300ms'; SELECT * FROM shard_fdw.convert_table('slow', 2)}, '55P03',
	'could not obtain lock on relation "slow" within 300 ms', title => 'a table that is in use');
is($node->safe_psql('postgres', q{SELECT relkind FROM pg_class WHERE relname = 'slow'}), 'r', 'it stays what it is');

# What another session has for itself.
$reader->query_safe('COMMIT; CREATE TEMP VIEW peek AS SELECT * FROM slow');
like($node->safe_psql('postgres', q{SELECT problem FROM shard_fdw.convert_table('slow', 2, dry_run => true)}),
	qr/^view pg_temp_\d+\.peek, which uses it, is a temporary one of another session$/, 'a view of another session');
$reader->query_safe('DROP VIEW peek');
is((state_of($owner, q{SET lock_timeout = 0; SELECT * FROM shard_fdw.convert_table('slow', 2)}))[0], '00000', 'when that is gone');
$node->stop;
done_testing();
