# Getting away from shard_fdw as README says, with all rows; and what keeps
# one from losing them.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($install_path, @files) = copy_installation();
my $node = shard_node('uninstall', install_path => $install_path);
my $dir = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql('postgres', q{
	CREATE ROLE app;
	GRANT ALL ON SCHEMA public TO app;
	GRANT USAGE ON FOREIGN SERVER shards TO app;
	SET ROLE app;
	CREATE TABLE kinds (kind int PRIMARY KEY);
	INSERT INTO kinds SELECT generate_series(0, 9);
	CREATE TABLE log_template (id bigint PRIMARY KEY, kind int REFERENCES kinds, message text,
	  at timestamptz NOT NULL,
	                           size int GENERATED ALWAYS AS (length(message)) STORED);
	CREATE INDEX ON log_template (at);
	CREATE FOREIGN TABLE log (id bigserial, kind int, message text CHECK (message <> ''),
	  at timestamptz DEFAULT now())
	  SERVER shards OPTIONS (shards '4', template 'log_template', route 'round_robin');
	INSERT INTO log (kind, message) SELECT g % 10, 'message ' || g FROM generate_series(1, 40) g;
	SELECT shard_fdw.seal('log_0'), shard_fdw.close_shard('log_1');

	CREATE FOREIGN TABLE events (id bigint OPTIONS (sequence 'always'), what text,
	  at timestamptz NOT NULL DEFAULT clock_timestamp())
	  SERVER shards OPTIONS (shards '3', commit_order 'true');
	INSERT INTO events (what) SELECT g FROM generate_series(1, 20) g;
	SELECT shard_fdw.register_consumer('events', 'billing', 'id');
	SELECT count(*) FROM shard_fdw.read_batch(NULL::events, 'billing', 10);

	CREATE TABLE orders_template (order_id bigint PRIMARY KEY, total numeric);
	CREATE FOREIGN TABLE orders (order_id bigint, total numeric)
	  SERVER shards OPTIONS (shards '5', route 'hash', key 'order_id', template 'orders_template');
	INSERT INTO orders SELECT g, g FROM generate_series(1, 100) g;
	CREATE FUNCTION double() RETURNS trigger LANGUAGE plpgsql
	  AS 'BEGIN NEW.total := NEW.total * 2; RETURN NEW; END';
	CREATE TRIGGER of_all BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION double();

	CREATE FOREIGN TABLE numbered (id int GENERATED ALWAYS AS IDENTITY, v text) SERVER shards
	  OPTIONS (shards '2');
	INSERT INTO numbered (v) VALUES ('a'), ('b'), ('c');
	CREATE VIEW totals AS SELECT sum(total) FROM orders});

# In new sessions, which have not loaded the library before

foreach my $command (
	'DROP EXTENSION shard_fdw CASCADE',
	'DROP SERVER shards CASCADE',
	'DROP SCHEMA shard_fdw CASCADE',
	'BEGIN; DROP FOREIGN TABLE orders CASCADE; DROP SERVER shards CASCADE',
	"DO 'BEGIN DROP EXTENSION shard_fdw CASCADE; END'",
	'ALTER SERVER shards OWNER TO app; DROP OWNED BY app CASCADE')
{
	fails($node, "SET client_min_messages = warning; $command", '2BP01',
		'cannot drop server "shards" because shards of its foreign tables have rows',
		hint => qr/^Make the shards ordinary tables with SELECT shard_fdw\.release\(\)/,
		title => $command);
}
foreach my $command ('DROP EXTENSION shard_fdw CASCADE', 'DROP SERVER shards CASCADE')
{
	my ($state) =
	  sqlstate($node, "SET shard_fdw.allow_drop_with_rows = on; BEGIN; $command; ROLLBACK");
	is($state, '00000', "$command, if it is allowed");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM log'), '40', 'all is there');
fails($node, q{SELECT shard_fdw.release('orders')}, '2BP01', undef,
	detail => qr/^view (public\.)?totals depends on/,
	title => 'a table that a view depends on is not released');

# As README says

my %rows = map {
	$_ => $node->safe_psql('postgres',
		"SELECT tableoid::regclass::text COLLATE \"C\", * FROM $_ ORDER BY 1, 2")
} 'log', 'events', 'orders', 'numbered';
my $stderr = '';
$node->psql('postgres', q{
	DROP VIEW totals;
	SELECT DISTINCT format('SELECT shard_fdw.release(%L)', logical) FROM shard_fdw.shards \gexec
	DROP SERVER shards;
	DROP EXTENSION shard_fdw;
	DROP SCHEMA shard_fdw},
	stderr => \$stderr, on_error_stop => 1) == 0
  or fail('README\'s uninstallation');
is($stderr =~ s/^.*(NOTICE|DETAIL|HINT|ERROR):/$1:/mgr,
	qq{NOTICE:  trigger "of_all" is dropped with foreign table "orders"},
	'README\'s uninstallation, and what it tells');
$node->stop;
unlink($_) or die "cannot remove $_" foreach @files;
$node->start;

sub all_is_well
{
	my ($database, $title, $log_id, $number) = @_;

	foreach my $table (sort keys %rows)
	{
		my $union = $node->safe_psql($database, qq{
			SELECT string_agg('SELECT tableoid::regclass::text COLLATE "C", *
			  FROM ' || c.oid::regclass, ' UNION ALL ')
			  FROM pg_class c WHERE relname ~ '^${table}_[0-9]\$' AND relkind = 'r'});

		# The logical table does not show what only the shards have.
		my $columns = $table eq 'log' ? 'tableoid, id, kind, message, at' : '*';
		is($node->safe_psql($database, "SELECT $columns FROM ($union) u ORDER BY 1, 2"),
			$rows{$table}, "$title: rows of $table");
	}
	is( $node->safe_psql($database, q{
			SET ROLE app;
			BEGIN;
			INSERT INTO log_0 (kind, message, at) VALUES (1, 'x', now()) RETURNING id, size;
			INSERT INTO log_1 (kind, message, at) VALUES (1, 'yy', now()) RETURNING id, size;
			INSERT INTO events_0 (what) VALUES ('x') RETURNING id % 1024;
			INSERT INTO events_2 (what) VALUES ('x') RETURNING id % 1024;
			SELECT count(*), count(DISTINCT id)
			  FROM (SELECT id FROM events_0 UNION ALL SELECT id FROM events_1 UNION ALL SELECT id
			  FROM events_2) e;
			INSERT INTO orders_3 SELECT g, 1 FROM generate_series(1001, 1020) g;
			INSERT INTO numbered_0 (v) VALUES ('d') RETURNING id;
			INSERT INTO numbered_1 (v) VALUES ('e') RETURNING id;
			ROLLBACK}),
		join("\n", "$log_id|1", $log_id + 1 . '|2', 1, 3, '22|22', $number, $number + 1),
		"$title: they take rows, with values as before");
	fails($node, $_->[0], $_->[1], undef, database => $database, title => "$title: $_->[0]")
	  foreach
		[ q{INSERT INTO log_0 (kind, message, at) VALUES (1, 'x', NULL)}, '23502' ],
		[ q{INSERT INTO log_0 (kind, message, at) VALUES (77, 'x', now())}, '23503' ],
		[ q{INSERT INTO log_0 (kind, message, at) VALUES (1, '', now())}, '23514' ],
		[ q{INSERT INTO orders_0 SELECT * FROM orders_0 LIMIT 1}, '23505' ];
}

all_is_well('postgres', 'without the extension and its files', 41, 4);
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM pg_proc WHERE probin LIKE '%shard_fdw%'}), '0', 'nothing of it is left');

$node->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", $node->connstr('postgres') ], 'pg_dump');
unlike(slurp_file("$dir/dump.sql"), qr/shard_fdw/, 'the dump does not speak of it');
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1',
		'-d', $node->connstr('restored'), '-f', "$dir/dump.sql"
	],
	'the dump is restored');
# What was rolled back has used numbers.
all_is_well('restored', 'restored', 46, 6);

$node->stop;
done_testing();
