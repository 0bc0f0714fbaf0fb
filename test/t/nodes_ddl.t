# ALTER of a logical table reaches the tables on nodes; sync_nodes(); commands on
# remote shards.
use strict;
use warnings;

use ShardNodes;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;
my $session = session($here);

$n2->safe_psql('postgres', 'CREATE EXTENSION shard_fdw');
$here->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE SCHEMA near;
	CREATE TABLE model (id bigint PRIMARY KEY, k int NOT NULL, v text, made int NOT NULL DEFAULT 7 CHECK (made > 0));
	CREATE INDEX ON model (lower(v));
	CREATE FOREIGN TABLE t (id bigint, k int, v text CONSTRAINT short CHECK (length(v) < 100)) SERVER shards
	  OPTIONS (shards '4', template 'model', nodes 'n1, n2, local', route 'hash', key 'id');
	CREATE FOREIGN TABLE near.t (id bigint, k int, v text CONSTRAINT short CHECK (length(v) < 100)) SERVER shards
	  OPTIONS (shards '4', template 'model', route 'hash', key 'id');
	INSERT INTO t SELECT g, g, 'v' || g FROM generate_series(1, 100) g;
	INSERT INTO near.t SELECT * FROM t});

# What a table is like, without its name and the order of its columns.
my $features = q{
	SELECT attname, format_type(atttypid, atttypmod), attcollation::regcollation, attnotnull, attgenerated
	  FROM pg_attribute WHERE attrelid = '%1$s'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1;
	SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
	 WHERE conrelid = '%1$s'::regclass AND contype = 'c' AND conname <> 'shard_hash' ORDER BY 1;
	SELECT substring(pg_get_indexdef(indexrelid) FROM 'USING.*') FROM pg_index
	 WHERE indrelid = '%1$s'::regclass ORDER BY 1};
my @places = ([ $n1, 't_0' ], [ $n2, 't_1' ], [ $n1, 't_3' ]);

# Run a command on a table with remote shards and on its twin without.  Then all
# shards must be alike, and so must the rows.
sub alters_all
{
	my ($command, $title) = @_;
	my ($state, $message, $said);

	foreach my $schema ('near', 'public')
	{
		(my $sql = $command) =~ s/\bt\b/$schema.t/g;
		($state, $message, $said) = sqlstate($here, $sql);
		is($state, '00000', "$title: $command") or diag($said);
	}
	my $local = $here->safe_psql('postgres', sprintf($features, 'near.t_0'));
	foreach my $place (@places)
	{
		my ($node, $shard) = @$place;

		is($node->safe_psql('postgres', sprintf($features, $shard)),
			$local, "$title: $shard on " . $node->name);
	}
	is( $here->safe_psql('postgres', q{
			SELECT count(*) FROM (TABLE t EXCEPT ALL TABLE near.t) d;
			SELECT node, shard, problem FROM shard_fdw.check_nodes('t')}), '0', "$title: rows");
	return;
}

alters_all($$_[1], $$_[0]) foreach (
	[ 'a column', 'ALTER TABLE t ADD note varchar(20) COLLATE "C"' ],
	[ 'a column with default', q{ALTER FOREIGN TABLE t ADD "Two words" int NOT NULL DEFAULT 5, ADD d date DEFAULT '2020-01-01'} ],
	[ 'a column with a constraint', 'ALTER TABLE t ADD c int DEFAULT 3 CONSTRAINT c_small CHECK (c < 10)' ],
	[ 'IF NOT EXISTS', 'ALTER TABLE t ADD IF NOT EXISTS c int' ],
	[ 'a generated column', 'ALTER TABLE t ADD g int GENERATED ALWAYS AS (k * 2) STORED' ],
	[ 'renaming a column', 'ALTER TABLE t RENAME note TO remark' ],
	[ 'renaming a key', 'ALTER FOREIGN TABLE t RENAME COLUMN id TO "Id"' ],
	[ 'renaming a constraint', 'ALTER TABLE t RENAME CONSTRAINT short TO "Not long"' ],
	[ 'another type', 'ALTER TABLE t ALTER c TYPE numeric(10,2), ALTER remark TYPE text COLLATE "POSIX"' ],
	[ 'NOT NULL', 'ALTER TABLE t ALTER v SET NOT NULL' ],
	[ 'no NOT NULL', 'ALTER TABLE t ALTER v DROP NOT NULL, ALTER "Two words" DROP NOT NULL' ],
	[ 'a constraint', 'ALTER TABLE t ADD CONSTRAINT positive CHECK (k > 0), ADD CHECK (c <> 4)' ],
	[ 'not valid', q{ALTER TABLE t ADD CONSTRAINT later CHECK (v <> 'x') NOT VALID} ],
	[ 'valid', 'ALTER TABLE t VALIDATE CONSTRAINT later' ],
	[ 'no constraint', 'ALTER TABLE t DROP CONSTRAINT positive, DROP CONSTRAINT "Not long"' ],
	[ 'another constraint of the same name', 'ALTER TABLE t DROP CONSTRAINT later, ADD CONSTRAINT later CHECK (k >= 0)' ],
	[ 'no expression', 'ALTER TABLE t ALTER g DROP EXPRESSION' ],
	[ 'another column of the same name', 'ALTER TABLE t DROP d, ADD d int DEFAULT 1' ],
	[ 'no column', 'ALTER TABLE t DROP remark, DROP COLUMN c' ],
	[ 'nothing to drop', 'ALTER TABLE t DROP COLUMN IF EXISTS c' ]);

# Defaults are given here.
$here->safe_psql('postgres', q{
	ALTER TABLE t ALTER d SET DEFAULT 9;
	INSERT INTO t ("Id", k, v) SELECT g, g, 'w' FROM generate_series(101, 140) g});
is($here->safe_psql('postgres', q{SELECT d, "Two words", count(*) FROM t WHERE v = 'w' GROUP BY 1, 2}),
	'9|5|40', 'defaults');
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_attrdef WHERE adrelid = 't_0'::regclass}), '1',
	'the node has no defaults, other than its own');

# From a table above

$here->safe_psql('postgres', q{
	CREATE TABLE above (k int);
	ALTER TABLE t INHERIT above});
$here->safe_psql('postgres', 'ALTER TABLE above RENAME k TO kk; ALTER TABLE above ADD top int DEFAULT 2');
is( $here->safe_psql('postgres', q{
		SELECT sum(kk), sum(top) FROM t;
		SELECT problem FROM shard_fdw.check_nodes('t');
		ALTER TABLE t NO INHERIT above; ALTER TABLE t RENAME kk TO k; ALTER TABLE t DROP top}),
	'9870|280', 'commands on a table above');

# With the transaction, and not without it

my $columns = q{SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
	WHERE attrelid = 't_0'::regclass AND attnum > 0 AND NOT attisdropped};
my $before = $n1->safe_psql('postgres', $columns);

state_of($session, $_) foreach ('BEGIN', 'ALTER TABLE t ADD x1 int', 'SAVEPOINT a', 'ALTER TABLE t ADD x2 int');
fails($session, 'SELECT count(*) FROM t', '55000', 'cannot use foreign table "t" in this transaction');
state_of($session, $_) foreach ('ROLLBACK TO a', 'ALTER TABLE t ADD x3 int', 'COMMIT');
is($n1->safe_psql('postgres', $columns), "$before x1 x3", 'savepoints');
state_of($session, $_) foreach ('BEGIN', 'ALTER TABLE t DROP x1, DROP x3', 'ROLLBACK');
is($n1->safe_psql('postgres', $columns), "$before x1 x3", 'rollback');
is($here->safe_psql('postgres', 'ALTER TABLE t DROP x1, DROP x3; SELECT count(*) FROM t'), '140', 'and on');

# What the node refuses

$n1->safe_psql('postgres', q{INSERT INTO t_3 ("Id", k, v) VALUES (-1, 0, 'there')});
fails($here, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (k > 0)', '23514',
	'command on server "n1" failed: check constraint "positive" of relation "t_3" is violated by some row',
	hint => 'To alter the tables of this server only, set shard_fdw.alter_nodes to off.');
is($here->safe_psql('postgres', q{SELECT count(*) FROM pg_constraint WHERE conname = 'positive'}), '0',
	'then nothing is altered here');
is($n2->safe_psql('postgres', q{SELECT count(*) FROM pg_constraint WHERE conname = 'positive'}), '0', 'nor elsewhere');
$n1->safe_psql('postgres', 'DELETE FROM t_3 WHERE k = 0');
fails($here, q{ALTER TABLE t ADD e int DEFAULT near.now_here()}, '42883', undef);
$here->safe_psql('postgres', 'CREATE FUNCTION near.one() RETURNS int IMMUTABLE LANGUAGE sql RETURN 1');
fails($here, q{ALTER TABLE t ADD e int DEFAULT near.one()}, '3F000',
	'command on server "n1" failed: schema "near" does not exist', title => 'a function that is not there');
state_of($session, $_) foreach ('BEGIN', 'SELECT count(*) FROM t', q{SET LOCAL lock_timeout = '300ms'});
fails($session, 'ALTER TABLE t ADD e int', '55P03', 'command on server "n1" failed: canceling statement due to lock timeout',
	hint => 'If this transaction has used the table on the server, commit it first.');
state_of($session, 'ROLLBACK');

# Here only, and the nodes later

$here->safe_psql('postgres', q{
	SET shard_fdw.alter_nodes = off;
	ALTER TABLE t ADD late int DEFAULT 4, ADD CONSTRAINT late CHECK (late > 0), ALTER v TYPE varchar(50);
	SELECT shard_fdw.run_command_on_shards('near.t', 'SELECT 1')});
$n1->safe_psql('postgres', 'DROP TABLE t_3; ALTER TABLE t_0 DROP CONSTRAINT t_0_pkey');
my $sync = q{SELECT node, shard, command FROM shard_fdw.sync_nodes('t')};
is( $here->safe_psql('postgres', $sync),
	join("\n",
		'n1|t_0|ALTER TABLE public.t_0 ALTER COLUMN v TYPE character varying(50)',
		'n1|t_0|ALTER TABLE public.t_0 ADD COLUMN late integer DEFAULT 4',
		'n1|t_0|ALTER TABLE public.t_0 ALTER COLUMN late DROP DEFAULT',
		'n1|t_0|ALTER TABLE public.t_0 ADD CONSTRAINT late CHECK ((late > 0))',
		'n1|t_0|ALTER TABLE public.t_0 ADD PRIMARY KEY ("Id")',
		'n2|t_1|ALTER TABLE public.t_1 ALTER COLUMN v TYPE character varying(50)',
		'n2|t_1|ALTER TABLE public.t_1 ADD COLUMN late integer DEFAULT 4',
		'n2|t_1|ALTER TABLE public.t_1 ALTER COLUMN late DROP DEFAULT',
		'n2|t_1|ALTER TABLE public.t_1 ADD CONSTRAINT late CHECK ((late > 0))',
		'n1|t_3|CREATE TABLE public.t_3'),
	'sync_nodes()');
is($here->safe_psql('postgres', $sync), '', 'sync_nodes() again');
is($here->safe_psql('postgres', q{SELECT problem FROM shard_fdw.check_nodes('t')}), '', 'sync_nodes(): as check_nodes() wants it');
is( $here->safe_psql('postgres', q{
		SELECT shard_fdw.seal('t_0');
		SELECT problem FROM shard_fdw.check_nodes('t');
		SELECT command FROM shard_fdw.sync_nodes('t');
		SELECT shard_fdw.unseal('t_0')}), "\n", 'a seal is none of the node');
$here->safe_psql('postgres', 'CREATE ROLE app');
fails($here, q{SET ROLE app; SELECT shard_fdw.sync_nodes('t')}, '42501', 'must be owner of foreign table t');

# Commands on remote shards run there.

is( $here->safe_psql('postgres', q{
		SELECT * FROM shard_fdw.run_command_on_shards('t', 'CREATE INDEX ON %s (k)')}),
	join("\n", map { "t_$_|t|CREATE INDEX" } 0 .. 3), 'run_command_on_shards(): CREATE INDEX');
is($n2->safe_psql('postgres', q{SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%(k)'}),
	'CREATE INDEX t_1_k_idx ON public.t_1 USING btree (k)', 'it is there');
is( $here->safe_psql('postgres', q{
		BEGIN;
		SELECT * FROM shard_fdw.run_command_on_shards('t', 'SELECT current_setting(''port'') || '' %s''');
		SELECT count(*) FROM t WHERE k < 0;
		COMMIT}),
	join("\n", map { "t_$$_[0]|t|" . $$_[1]->port . " public.t_$$_[0]" } [ 0, $n1 ], [ 1, $n2 ], [ 2, $here ], [ 3, $n1 ]) . "\n0",
	'run_command_on_shards(): a query, and what it has read can be read');
is( $here->safe_psql('postgres', q{
		BEGIN;
		SELECT count(*) FROM shard_fdw.run_command_on_shards('t', 'UPDATE %s SET late = 8 WHERE k = 20');
		COMMIT;
		SELECT count(*) FROM t WHERE late = 8}), "4\n" . $here->safe_psql('postgres', 'SELECT count(*) FROM t WHERE k = 20'),
	'run_command_on_shards(): UPDATE');
fails($here, q{BEGIN; SELECT shard_fdw.run_command_on_shards('t', 'UPDATE %s SET late = 7'); SELECT count(*) FROM t}, '55000',
	'cannot use foreign table "t" in this transaction', title => 'what was changed cannot be read');
is( $here->safe_psql('postgres', q{
		SELECT * FROM shard_fdw.run_command_on_shards('t', 'CREATE TABLE IF NOT EXISTS extra.x ()', 'continue')}),
	join("\n", map { "t_$$_[0]|f|$$_[1]schema \"extra\" does not exist" }
		  [ 0, 'command on server "n1" failed: ' ], [ 1, 'command on server "n2" failed: ' ], [ 2, '' ], [ 3, 'command on server "n1" failed: ' ]),
	'run_command_on_shards(): errors');
fails($here, q{BEGIN READ ONLY; SELECT shard_fdw.run_command_on_shards('t', 'DELETE FROM %s')}, '25006', undef,
	title => 'run_command_on_shards(): a read-only transaction');
is((sqlstate($here, q{CALL shard_fdw.run_on_shards('t', 'ALTER TABLE %s ADD own int')}))[0], '00000', 'run_on_shards()');
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_attribute WHERE attname = 'own'}), '2', 'run_on_shards(): it is there');

# Statistics, as docs/nodes.md says

$here->safe_psql('postgres', q{
	SELECT format('ANALYZE %s', shard) FROM shard_fdw.shards
	 WHERE logical = 't'::regclass AND server IS NOT NULL \gexec
	ANALYZE t});
is( $here->safe_psql('postgres', q{
		SELECT sum(reltuples) = (SELECT count(*) FROM t WHERE tableoid <> 't_2'::regclass) FROM pg_class
		 WHERE relname ~ '^t_[013]$' AND relnamespace = 'public'::regnamespace;
		SELECT n_distinct FROM pg_stats WHERE tablename = 't' AND schemaname = 'public' AND inherited AND attname = 'Id'}),
	"t\n-1", 'ANALYZE');
is((sqlstate($here, q{ALTER SERVER n1 OPTIONS (ADD analyze_sampling 'system'); ANALYZE t_0}))[0],
	$here->pg_version < 16 ? 'HV00D' : '00000', 'analyze_sampling');

# A node is down.

$n2->stop('immediate');
fails($here, 'ALTER TABLE t ADD e int', '08001', 'could not connect to server "n2"',
	hint => qr/^To alter the tables of this server only, set shard_fdw\.alter_nodes to off/);
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_attribute WHERE attname = 'e'}), '0', 'a node is down: nothing is altered');
is((sqlstate($here, 'SET shard_fdw.alter_nodes = off; ALTER TABLE t ADD e int'))[0], '00000', 'here only');
$n2->start;
is($here->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.sync_nodes('t')}), '3', 'and the nodes later');

done_testing();
