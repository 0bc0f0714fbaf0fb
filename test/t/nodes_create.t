# Shards that are created on other servers.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;

# What is in schemas of users, on each server.
sub tables
{
	return join(
		' ', map {
			$_->safe_psql('postgres', q{
				SELECT count(*) FROM pg_class
				 WHERE relkind IN ('r', 'f') AND relnamespace >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
				    OR relkind IN ('r', 'f') AND relnamespace = 'public'::regnamespace})
		} $here, @nodes);
}

# One node has the extension.
$n2->safe_psql('postgres', 'CREATE EXTENSION shard_fdw');
$_->safe_psql('postgres', 'CREATE SCHEMA "Two words"') foreach $here, @nodes;

# A table like its template, everywhere

my ($state, $message, $said) = sqlstate($here, q{
	CREATE TABLE model (
	  id bigint PRIMARY KEY, k int NOT NULL, v text COLLATE "C" CONSTRAINT short CHECK (length(v) < 100),
	  "Two words" numeric(10,2) DEFAULT 1.5, t timestamptz, g int GENERATED ALWAYS AS (k * 2) STORED,
	  made int NOT NULL DEFAULT 7 CONSTRAINT made CHECK (made > 0),
	  UNIQUE (v, k) INCLUDE (id) DEFERRABLE INITIALLY DEFERRED,
	  EXCLUDE USING hash (t WITH =))
	  WITH (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off);
	CREATE INDEX ON model (lower(v) DESC NULLS LAST) WHERE k > 5;
	CREATE UNIQUE INDEX ON model ("Two words", id) INCLUDE (t) WITH (fillfactor = 60);
	CREATE INDEX ON model USING brin (t);
	CREATE FOREIGN TABLE orders (id bigint, k int, v text COLLATE "C", "Two words" numeric(10,2) CHECK ("Two words" <> 3),
	  t timestamptz, g int GENERATED ALWAYS AS (k * 2) STORED)
	  SERVER shards OPTIONS (shards '6', template 'model', nodes 'n1, "n2", local', route 'hash', key 'id', shard_schema '"Two words"')});
is($state, '00000', 'CREATE FOREIGN TABLE with nodes') or diag($said);
is(() = $said =~ /WARNING:  01000: transactions that write/g, 1, 'nodes: one warning');
is( $here->safe_psql('postgres', q{
		SELECT string_agg(COALESCE(server, 'here'), ' ' ORDER BY ordinal) FROM shard_fdw.shards;
		SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'orders'::regclass}),
	qq(n1 n2 here n1 n2 here\n{route=hash,key=id,"shard_schema=\\"Two words\\""}),
	'nodes: the shards are spread');

# What a table is like, without its name.
my $columns = q{
	SELECT attname, format_type(atttypid, atttypmod), attnotnull, attgenerated, attcollation::regcollation
	  FROM pg_attribute WHERE attrelid = '"Two words".orders_%1$s'::regclass AND attnum > 0 AND NOT attisdropped
	 ORDER BY attname;
	SELECT reloptions, (SELECT t.reloptions FROM pg_class t WHERE t.oid = c.reltoastrelid)
	  FROM pg_class c WHERE oid = '"Two words".orders_%1$s'::regclass;
	SELECT replace(pg_get_indexdef(indexrelid), 'orders_%1$s', 'shard') FROM pg_index
	 WHERE indrelid = '"Two words".orders_%1$s'::regclass ORDER BY 1;
	SELECT pg_get_constraintdef(oid) FROM pg_constraint
	 WHERE conrelid = '"Two words".orders_%1$s'::regclass AND contype <> 'n' AND conname <> 'shard_hash' ORDER BY 1};
my $local = $here->safe_psql('postgres', sprintf($columns, 2));
is($n1->safe_psql('postgres', sprintf($columns, 0)), $local, 'nodes: a table like the local one');
is($n2->safe_psql('postgres', sprintf($columns, 4)), $local, 'nodes: another one');
my $hash = q{SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'shard_hash' ORDER BY 1};
is( join("\n", $n1->safe_psql('postgres', $hash), $n2->safe_psql('postgres', $hash)),
	"\nCHECK (shard_fdw.in_hash(6, 1, id))\nCHECK (shard_fdw.in_hash(6, 4, id))",
	'nodes: in_hash() where the extension is');

$here->safe_psql('postgres', q{
	INSERT INTO orders (id, k, v, t) SELECT g, g, g, '2020-01-01'::timestamptz + g * interval '1 h' FROM generate_series(1, 600) g});
is( $here->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT tableoid), sum(g) FROM orders;
		SELECT count(*) FROM generate_series(1, 600) i WHERE (SELECT id FROM orders WHERE id = i) = i;
		UPDATE orders SET k = k + 1 WHERE id <= 10 RETURNING g - k * 2}),
	"600|6|360600\n600\n" . join("\n", (0) x 10), 'nodes: rows');
is( $n1->safe_psql('postgres', q{SELECT DISTINCT made FROM "Two words".orders_0}), '7',
	'nodes: a column that only the template has');
fails($here, 'INSERT INTO orders (id, k) VALUES (1000, NULL)', '23502', qr/null value in column "k"/);
fails($here, q{INSERT INTO orders (id, k, v) SELECT g, 1, repeat('x', 200) FROM generate_series(1000, 1005) g}, '23514',
	qr/violates check constraint "short"/);

# What transactions and savepoints do here, they do there.

my $session = session($here);
my $made = q{SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind IN ('r', 'f') AND relname LIKE 's\_%'};

$here->safe_psql('postgres', q{
	CREATE TABLE plain (i int PRIMARY KEY);
	CREATE FOREIGN TABLE s (i int) SERVER shards});
state_of($session, $_) foreach (
	'BEGIN',
	q{SELECT shard_fdw.create_shards('s', 2, 'plain', node => 'n1')},
	'SAVEPOINT a',
	q{SELECT shard_fdw.create_shards('s', 2, 'plain', node => 'n1, n2')},
	q{SELECT 1 / 0},
	'ROLLBACK TO SAVEPOINT a',
	q{DO $$ BEGIN
	    PERFORM shard_fdw.create_shards('s', 1, 'plain', node => 'n2');
	    PERFORM 1 / 0;
	  EXCEPTION WHEN division_by_zero THEN
	    PERFORM shard_fdw.create_shards('s', 1, 'plain', node => 'n1');
	  END $$},
	'SAVEPOINT b');
fails($session, 'SELECT * FROM s', '55000', 'cannot use foreign table "s" in this transaction',
	detail => 'The transaction has run commands on server "n1", which queries cannot see before it is committed.',
	hint => 'Commit the transaction first.', title => 'shards that are not committed are not read');
state_of($session, 'ROLLBACK TO SAVEPOINT b; COMMIT');
is( join('|', map { $_->safe_psql('postgres', $made) } $here, @nodes),
	's_0 s_1 s_2|s_0 s_1 s_2|', 'savepoints');
is($here->safe_psql('postgres', 'INSERT INTO s SELECT generate_series(1, 10); SELECT count(*) FROM s'), '10',
	'shards that are committed are used');

my $before = tables();

state_of($session, $_)
  foreach ('BEGIN', q{SELECT shard_fdw.create_shards('s', 3, 'plain', node => 'n2, local, n1')}, 'ROLLBACK');
is(tables(), $before, 'rollback');
state_of($session, $_)
  foreach ('BEGIN', q{SELECT shard_fdw.create_shards('s', 1, 'plain', node => 'n2')});
fails($session, q{PREPARE TRANSACTION 'p'}, '0A000', 'cannot PREPARE a transaction that has run commands on nodes');
is(tables(), $before, 'PREPARE TRANSACTION');

# The name is taken there by somebody who has not committed yet.
my $other = session($n2);

state_of($other, 'BEGIN; CREATE TABLE s_4 ()');
state_of($session, q{SET statement_timeout = 500});
fails($session, q{SELECT shard_fdw.create_shards('s', 2, 'plain', node => 'n1, n2')}, '57014', undef,
	title => 'one can cancel what waits for a node');
state_of($session, q{RESET statement_timeout});
state_of($other, 'ROLLBACK');
is(tables(), $before, 'cancel');

# Templates of other kinds

state_of($session, $_) foreach (
	'CREATE TEMP TABLE fleeting (i int PRIMARY KEY)',
	'CREATE INDEX ON fleeting (i DESC)',
	'CREATE TABLE parted (i int PRIMARY KEY) PARTITION BY RANGE (i)',
	'CREATE INDEX ON parted (abs(i))',
	'CREATE UNLOGGED TABLE fast (i int UNIQUE)',
	'CREATE VIEW seen AS SELECT i FROM plain',
	'CREATE FOREIGN TABLE kinds (i int) SERVER shards');
is( (state_of($session, "SELECT shard_fdw.create_shards('kinds', 1, '$_', node => 'n1')"))[0],
	'00000', "template: $_") foreach 'fleeting', 'parted', 'fast', 'seen';
is( $n1->safe_psql('postgres', q{
		SELECT tablename, relpersistence, substring(indexdef FROM 'CREATE.*INDEX'), substring(indexdef FROM 'USING.*')
		  FROM pg_indexes JOIN pg_class ON relname = tablename WHERE tablename LIKE 'kinds%' ORDER BY 1, substring(indexdef FROM 'USING.*') COLLATE "C"}),
	join("\n",
		'kinds_0|p|CREATE INDEX|USING btree (i DESC)',
		'kinds_0|p|CREATE UNIQUE INDEX|USING btree (i)',
		'kinds_1|p|CREATE INDEX|USING btree (abs(i))',
		'kinds_1|p|CREATE UNIQUE INDEX|USING btree (i)',
		'kinds_2|u|CREATE UNIQUE INDEX|USING btree (i)'),
	'templates of other kinds');

# What is refused

$here->safe_psql('postgres', q{
	CREATE SERVER n9 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', connect_timeout '10');
	CREATE USER MAPPING FOR CURRENT_USER SERVER n9;
	CREATE FOREIGN TABLE away (i int) SERVER n1 OPTIONS (table_name 's_0');
	CREATE SCHEMA only_here;
	CREATE FOREIGN TABLE e (i int) SERVER shards OPTIONS (shard_schema 'only_here');
	CREATE TABLE serials (i int, j serial);
	CREATE TABLE doubles (i float)});
$n2->safe_psql('postgres', 'CREATE TABLE s_4 ()');
$before = tables();
foreach (
	[ q{'s', 1, node => 'n8'}, '42704', 'server "n8" does not exist' ],
	[ q{'s', 1, node => 'shards'}, '42809', 'server "shards" is not a server of postgres_fdw' ],
	[ q{'s', 1, node => ''}, '22023', 'invalid list of nodes: ""' ],
	[ q{'s', 2, 'plain', node => 'n1, n9'}, '08001', 'could not connect to server "n9"', detail => qr/refused/ ],
	[ q{'s', 1, 'away', node => 'n1'}, '42809', 'foreign table "away" cannot be copied into shards' ],
	[ q{'s', 1, 'away'}, '42809', 'foreign table "away" cannot be copied into shards' ],
	[ q{'s', 2, 'plain', node => 'n1, n2'}, '42P07', 'command on server "n2" failed: relation "s_4" already exists',
	  hint => qr/^It has the name of the next shard\. / ],
	[ q{'e', 2, node => 'local, n1'}, '3F000', 'command on server "n1" failed: schema "only_here" does not exist',
	  hint => 'The schema of the new shard is only_here. It must exist on the server, too.' ],
	[ q{'s', 1, 'serials', node => 'n1'}, '0A000', 'cannot copy column "j" of "serials" to a node' ],
	[ q{'s', 1, 'doubles', node => 'n1'}, '42804', 'column "i" of "doubles" is not like that of foreign table "s"' ],
  )
{
	my ($arguments, @expected) = @$_;

	fails($session, "SELECT shard_fdw.create_shards($arguments)", @expected);
}
fails($session, q{CREATE FOREIGN TABLE f (i int) SERVER shards OPTIONS (nodes 'n1')}, 'HV024',
	'option "nodes" requires option "shards"');
fails($session, q{CREATE FOREIGN TABLE f (i int) SERVER shards OPTIONS (shards '2', nodes 'n1,,')}, 'HV024',
	'invalid value for option "nodes": "n1,,"');
fails($session, q{CREATE FOREIGN TABLE f (i int) SERVER shards OPTIONS (shards '2', nodes 'n2, n9')}, '08001',
	'could not connect to server "n9"');
is(tables(), $before, 'nothing half done');
$n2->safe_psql('postgres', 'DROP TABLE s_4');

# A role without superuser needs all rights, and a password that is used.

$_->safe_psql('postgres', q{CREATE ROLE app LOGIN PASSWORD 'secret'}) foreach $here, @nodes;
$here->safe_psql('postgres', q{GRANT CREATE ON SCHEMA public TO app; GRANT USAGE ON FOREIGN SERVER shards TO app});
$n1->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO app');
my $hba = $n2->data_dir . '/pg_hba.conf';
my $rules = PostgreSQL::Test::Utils::slurp_file($hba);

unlink($hba);
$n2->append_conf('pg_hba.conf', "local all app scram-sha-256\n$rules");
$n2->reload;
my $app = session($here, 'app');

state_of($app, 'CREATE FOREIGN TABLE log (i int) SERVER shards');
$before = tables();
my $attempt = q{SELECT shard_fdw.create_shards('log', 1, node => '%s')};

fails($app, q{SELECT shard_fdw.create_shards('s', 1, node => 'n2')}, '42501', 'must be owner of foreign table s');
fails($app, sprintf($attempt, 'n2'), '42501', 'permission denied for foreign server n2');
$here->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER n1, n2 TO app');
fails($app, sprintf($attempt, 'n2'), '42704', 'role "app" has no user mapping for server "n2"',
	hint => 'Use CREATE USER MAPPING FOR app SERVER n2.');
state_of($app, q{CREATE USER MAPPING FOR app SERVER n2 OPTIONS (user 'app')});
fails($app, sprintf($attempt, 'n2'), '2F003', 'password is required for server "n2"',
	detail => 'Non-superusers must provide a password in the user mapping.');
state_of($app, q{CREATE USER MAPPING FOR app SERVER n1 OPTIONS (user 'app', password 'secret')});
fails($app, sprintf($attempt, 'n1'), '2F003', 'password is required for server "n1"',
	detail => 'Non-superuser cannot connect if the server does not request a password.',
	title => 'a password that is not used');
state_of($app, q{ALTER USER MAPPING FOR app SERVER n2 OPTIONS (ADD password 'wrong')});
fails($app, sprintf($attempt, 'n2'), '08001', 'could not connect to server "n2"',
	detail => qr/password authentication failed/);
state_of($app, q{ALTER USER MAPPING FOR app SERVER n2 OPTIONS (SET password 'secret')});
$n2->safe_psql('postgres', 'REVOKE CREATE ON SCHEMA public FROM PUBLIC');
fails($app, sprintf($attempt, 'n2'), '42501', 'command on server "n2" failed: permission denied for schema public',
	hint => 'The role that the user mapping names needs CREATE on schema public there.');
is(tables(), $before, 'nothing half done without rights');
$n2->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO app');
is((state_of($app, sprintf($attempt, 'n2')))[0], '00000', 'with all rights, and a password');
is((state_of($app, 'INSERT INTO log VALUES (1); SELECT i FROM log'))[2], '1', 'a role without superuser uses it');
is($n2->safe_psql('postgres', q{SELECT tableowner FROM pg_tables WHERE tablename = 'log_0'}), 'app',
	'the table belongs to the role of the user mapping');
# A superuser can allow to do without.
$here->safe_psql('postgres', q{ALTER USER MAPPING FOR app SERVER n1 OPTIONS (ADD password_required 'false')});
is((state_of($app, sprintf($attempt, 'n1')))[0], '00000', 'without a password, if a superuser allows it');

# A node that is lost before the commit

$before = join('|', map { $_->safe_psql('postgres', $made) } $here, $n1);
state_of($session, $_)
  foreach ('BEGIN', q{SELECT shard_fdw.create_shards('s', 2, 'plain', node => 'n1, n2')});
$n2->stop('immediate');
fails($session, 'COMMIT', '08006', 'connection to server "n2" was lost');
is(join('|', map { $_->safe_psql('postgres', $made) } $here, $n1), $before, 'a lost node: nothing is left elsewhere');

# A time column cannot be null in any shard, which only the template says.
$here->safe_psql('postgres', q{
	CREATE TABLE timed_model (at timestamptz NOT NULL, v varchar(9) COLLATE "C" NOT NULL, g int GENERATED ALWAYS AS (1) STORED NOT NULL)});
is((state_of($session, q{CREATE FOREIGN TABLE timed (at timestamptz, v varchar(9) COLLATE "C", g int GENERATED ALWAYS AS (1) STORED)
	SERVER shards OPTIONS (shards '2', template 'timed_model', nodes 'local, n1', time_column 'at')}))[0], '00000', 'a time column');
is( $here->safe_psql('postgres', q{
		SELECT count(*), count(*) FILTER (WHERE attnotnull AND NOT attislocal AND attcollation IN (0, 950))
		  FROM pg_attribute WHERE attrelid IN ('timed_0'::regclass, 'timed_1'::regclass) AND attnum > 0}),
	'6|6', 'a shard on a node has the NOT NULL of the template');
is($here->safe_psql('postgres', q{SELECT * FROM shard_fdw.check_nodes('timed')}), '', '... and the table there, too');

done_testing();
