# Connections to a node that are lost or stalled, by a proxy.
use strict;
use warnings;

use ShardNodes;
use ShardProxy;
use ShardTest;
use Test::More;
use Time::HiRes qw(time);

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;
my $proxy = ShardProxy->new($n1);

$here->safe_psql('postgres', sprintf(q{
	ALTER SERVER n1 OPTIONS (SET host '127.0.0.1', SET port '%s', SET batch_size '100', ADD connect_timeout '2');
	SET client_min_messages = error;
	CREATE TABLE model (id int PRIMARY KEY, v text);
	CREATE FOREIGN TABLE t (id int, v text) SERVER shards
	  OPTIONS (shards '3', template 'model', nodes 'local, n1, n2', route 'hash', key 'id')}, $proxy->{port}));

my $session = session($here);
my $rows = q{SELECT g, repeat('x', 100) FROM generate_series(1, 9000) g};

# How many rows are here and on each node.
sub rows
{
	return join(' ',
		$here->safe_psql('postgres', 'SELECT count(*) FROM t_0'),
		$n1->safe_psql('postgres', 'SELECT count(*) FROM t_1'),
		$n2->safe_psql('postgres', 'SELECT count(*) FROM t_2'));
}

# A command whose connection is lost: it fails, and says so.
sub loses
{
	my ($mode, $command, $title) = @_;

	$proxy->mode($mode);
	my ($state, $message, undef, $said) = state_of($session, $command);
	$proxy->mode('pass');
	like($state, qr/^08/, "$title: fails") or diag("$state $message $said");
	return $said;
}

state_of($session, 'SELECT count(*) FROM t');

# In the middle of a command, nothing is left anywhere.
foreach my $case (
	[ 'bytes 150000', qq{COPY t FROM PROGRAM 'seq -f "%.0f,row row row row row row row row row row row row row" 1 9000' (FORMAT csv)}, 'COPY' ],
	[ 'bytes 150000', "INSERT INTO t $rows", 'a batch' ])
{
	my ($mode, $command, $title) = @$case;
	my $said = loses($mode, $command, $title);

	like($said, qr/insert into shard "t_1" on server "n1"/, "$title: the error says where");
	is(rows(), '0 0 0', "$title: nothing is left");
	is((state_of($session, $command))[0], '00000', "$title: again");
	is($here->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM t'), '9000|9000', "$title: each row once");
	state_of($session, 'TRUNCATE t');
}

# Before the node is told to commit.  Another one may have committed by then.
loses('cut COMMIT', "INSERT INTO t $rows", 'before the commit');
like(rows(), qr/^0 0 /, 'before the commit: nothing is left here, nor there');
state_of($session, 'TRUNCATE t');

# The node has committed, and we cannot know.  This server has not.  Rows are not
# written twice, as keys tell.
my $said = loses('swallow COMMIT', "INSERT INTO t $rows", 'at the commit');
like($said, qr/COMMIT TRANSACTION/, 'at the commit: the error says that it was the commit');
like(rows(), qr/^0 [1-9]\d* (0|[1-9]\d*)$/, 'at the commit: the node may have committed, and this server has not');
fails($session, "INSERT INTO t $rows", '23505', undef, title => 'at the commit: again');
state_of($session, 'TRUNCATE t');
is(rows(), '0 0 0', 'at the commit: the session goes on');

# A node refuses to commit.  It has nothing then, nor has this server.
$n2->safe_psql('postgres', 'ALTER TABLE t_2 ADD CONSTRAINT later UNIQUE (v) DEFERRABLE INITIALLY DEFERRED');
fails($session, "INSERT INTO t $rows", '23505', 'duplicate key value violates unique constraint "later"', title => 'a node refuses to commit');
like(rows(), qr/^0 \d+ 0$/, 'a node refuses to commit: nothing is left there, nor here');
$n2->safe_psql('postgres', 'ALTER TABLE t_2 DROP CONSTRAINT later');
state_of($session, 'TRUNCATE t');

# Something else fails before any node is told.
$here->safe_psql('postgres', 'CREATE TABLE strict (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
state_of($session, $_) foreach 'BEGIN', "INSERT INTO t $rows", 'INSERT INTO strict VALUES (1), (1)';
fails($session, 'COMMIT', '23505', qr/"strict_i_key"$/, title => 'this server refuses to commit');
is(rows(), '0 0 0', 'this server refuses to commit: nothing is left');

# With a savepoint, what came before it is lost, too, and is not committed in part.
my ($near, $far) = map { $here->safe_psql('postgres', "SELECT min(g) FROM generate_series(1, 100) g WHERE shard_fdw.in_hash(3, $_, g)") } 0, 1;
state_of($session, $_) foreach 'BEGIN', "INSERT INTO t VALUES ($near, 'v'), ($far, 'v')", 'SAVEPOINT a';
loses('cut INSERT', "INSERT INTO t SELECT g, 'v' FROM generate_series(1000, 1100) g", 'after a savepoint');
is((state_of($session, 'ROLLBACK TO SAVEPOINT a'))[0], '00000', 'after a savepoint: back to it');
like((state_of($session, 'COMMIT'))[0], qr/^08/, 'after a savepoint: COMMIT fails');
is(rows(), '0 0 0', 'after a savepoint: nothing is left');

# ROLLBACK needs no connection.
state_of($session, $_) foreach 'BEGIN', "INSERT INTO t $rows";
$proxy->mode('cut ABORT');
is((state_of($session, 'ROLLBACK'))[0], '00000', 'ROLLBACK without a connection');
$proxy->mode('pass');
is(rows(), '0 0 0', 'ROLLBACK without a connection: nothing is left');
is((state_of($session, 'SELECT count(*) FROM t'))[2], '0', 'ROLLBACK without a connection: the session goes on');

# Shards that a node has, and this server has not
$here->safe_psql('postgres', 'SET client_min_messages = error; CREATE FOREIGN TABLE made (id int, v text) SERVER shards');
my $create = q{SELECT shard_fdw.create_shards('made', 1, 'model', node => 'n1')};
loses('cut COMMIT', $create, 'create_shards(), before the commit');
is($n1->safe_psql('postgres', q{SELECT to_regclass('made_0') IS NULL}), 't', 'create_shards(), before the commit: nothing is there');
loses('swallow COMMIT', $create, 'create_shards(), at the commit');
is($here->safe_psql('postgres', q{SELECT to_regclass('made_0') IS NULL}), 't', 'create_shards(), at the commit: nothing is here');
fails($session, $create, '42P07', qr/relation "made_0" already exists/, hint => qr/foreign table/, title => 'create_shards(), at the commit: again');
is( $here->safe_psql('postgres', q{
		CREATE FOREIGN TABLE made_0 () INHERITS (made) SERVER n1 OPTIONS (table_name 'made_0');
		SELECT count(*) FROM shard_fdw.check_nodes('made')}), '0', 'create_shards(), at the commit: it can be attached');

# Commands on nodes
$said = loses('cut COMMIT', 'ALTER TABLE t ADD a int', 'ALTER, before the commit');
like($said, qr/connection to server "n1" was lost/, 'ALTER: the error names the server');
like($said, qr/HINT:  The server may have committed/, 'ALTER: a hint');
my $columns = q{SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
	WHERE attrelid = '%s'::regclass AND attnum > 0 AND NOT attisdropped};
is($here->safe_psql('postgres', sprintf($columns, 't_0')), 'id v', 'ALTER: nothing is altered here');
is($n1->safe_psql('postgres', sprintf($columns, 't_1')), 'id v', 'ALTER: nor there');
$said = loses('swallow COMMIT', 'ALTER TABLE t ADD a int', 'ALTER, at the commit');
is($here->safe_psql('postgres', sprintf($columns, 't_0')), 'id v', 'ALTER, at the commit: nothing is altered here');
is($n1->safe_psql('postgres', sprintf($columns, 't_1')), 'id v a', 'ALTER, at the commit: the server has committed');
is((state_of($session, 'ALTER TABLE t ADD a int'))[0], '00000', 'ALTER again takes what is there');
is($here->safe_psql('postgres', q{SELECT count(*) FROM shard_fdw.check_nodes('t')}), '0', 'all are alike');

# Timeouts

my $fresh = session($here);
my $start = time();
$proxy->mode('stall');
# Since 16, postgres_fdw does not look at connect_timeout.
if ($here->safe_psql('postgres', 'SHOW server_version_num') < 160000)
{
	fails($fresh, 'SELECT count(*) FROM t', '08001', 'could not connect to server "n1"', title => 'connect_timeout: a query');
}
else
{
	state_of($fresh, q{SET statement_timeout = '1s'});
	fails($fresh, 'SELECT count(*) FROM t', '57014', 'canceling statement due to statement timeout', title => 'no connect_timeout: a query');
	state_of($fresh, 'RESET statement_timeout');
}
fails($fresh, q{SELECT shard_fdw.run_command_on_nodes('t', 'SELECT 1')}, '08001', 'could not connect to server "n1"',
	title => 'connect_timeout: a command', detail => qr/./);
$proxy->mode('pass');
cmp_ok(time() - $start, '<', 60, 'connect_timeout is honoured');

my $locker = session($n1);
state_of($locker, 'BEGIN; LOCK TABLE t_1');
state_of($fresh, q{SET statement_timeout = '500ms'});
fails($fresh, 'SELECT count(*) FROM t', '57014', 'canceling statement due to statement timeout');
fails($fresh, q{SELECT shard_fdw.run_command_on_shards('t', 'SELECT count(*) FROM %s')}, '57014',
	'canceling statement due to statement timeout', title => 'statement_timeout: a command on shards');
fails($fresh, 'ALTER TABLE t ADD b int', '57014', 'canceling statement due to statement timeout', title => 'statement_timeout: ALTER');
state_of($locker, 'ROLLBACK');
state_of($fresh, 'RESET statement_timeout');
is((state_of($fresh, 'SELECT count(*) FROM t'))[2], '0', 'statement_timeout: the session goes on');
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND backend_type = 'client backend'}),
	'0', 'statement_timeout: nothing goes on there');

done_testing();
