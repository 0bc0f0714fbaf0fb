# retain() and maintain(): old shards that are on other servers.
use strict;
use warnings;

use ShardNodes;
use ShardProxy;
use ShardTest;
use Test::More;

my ($here, @nodes) = start_nodes('n1', 'n2');

plan skip_all => 'no postgres_fdw' if !$here;

my ($n1, $n2) = @nodes;
my $proxy = ShardProxy->new($n1);

$here->safe_psql('postgres', sprintf(q{
	ALTER SERVER n1 OPTIONS (SET host '127.0.0.1', SET port '%s', ADD connect_timeout '2');
	ALTER DATABASE postgres SET client_min_messages = warning}, $proxy->{port}));

my $dba = session($here);
my $cutoff = '2024-03-31 01:30:00+00';
my ($state, $message, $output, $said);

# Make a logical table whose shards are in these places, in turn, all closed but
# the last one, each with these rows, as SQL has them: "t_0", "t_1" and so on, all
# of one name here and there.
sub make
{
	my ($type, $places, @rows) = @_;
	my $n = @rows;

	$here->safe_psql('postgres', 'DROP FOREIGN TABLE IF EXISTS t CASCADE; DROP TABLE IF EXISTS model');
	$_->safe_psql('postgres', 'DROP SCHEMA public CASCADE; CREATE SCHEMA public') foreach @nodes;
	$here->safe_psql('postgres', qq{
		SET client_min_messages = error;
		CREATE TABLE model (id int, at $type NOT NULL);
		CREATE INDEX ON model (at);
		CREATE FOREIGN TABLE t (id int, at $type NOT NULL) SERVER shards
		  OPTIONS (shards '@{[ $n + 1 ]}', template 'model', nodes '$places', time_column 'at', route 'round_robin', maintenance 'manual');
		SELECT shard_fdw.close_shard(shard) FROM shard_fdw.shards WHERE logical = 't'::regclass AND ordinal < $n});
	$here->safe_psql('postgres',
		join(';', map { "INSERT INTO t_$_ (id, at) VALUES $rows[$_]" } grep { $rows[$_] } 0 .. $n - 1));
	return;
}

# Call retain().  Gives the names of the shards it returns; the rest is in $said.
sub retain
{
	my ($arguments, $session) = @_;

	($state, $message, $output, $said) = state_of($session // $dba,
		"SELECT shard_fdw.retain('t', " . ($arguments // "'$cutoff'") . ')');
	$output =~ s/public\.//g;
	return $state eq '00000' ? $output =~ s/\n/ /gr : "$state $message";
}

# The tables of shards that are here, and on the nodes.
sub tables
{
	return join(
		' / ',
		map {
			$_->safe_psql('postgres', q{
				SELECT COALESCE(string_agg(relname, ' ' ORDER BY relname), '-') FROM pg_class
				 WHERE relname LIKE 't\_%' AND relnamespace = 'public'::regnamespace AND relkind IN ('r', 'f', 'v', 'p')})
		} $here, @nodes);
}

# The same rule for shards here and there: rows at the limit, before and after it,
# and times that are infinite, in each type and in several time zones.  Each case
# is a shard here and one there.

my @cases = ('', map { "(1, '$_')" } qw(-infinity 20001-01-01 2024-03-30 2024-03-31));
push(@cases, "(1, '0044-03-15 BC')", "(1, '-infinity'), (2, 'infinity')");
push(@cases, map { ("(1, '$_:00'), (2, '-infinity')", "(1, '$_:00'::timestamp - interval '1 us')") }
	  '2024-03-31 01:30', '2024-03-31 03:30', '2024-03-30 21:30');
foreach my $type ('timestamptz', 'timestamp', 'date')
{
	make($type, 'local, n2', map { ($_, $_) } @cases);
	my $before = tables();

	foreach my $zone ($type eq 'timestamptz' ? 'UTC' : ('Europe/Berlin', 'America/New_York'))
	{
		$dba->query_safe("BEGIN; SET LOCAL timezone = '$zone'");
		my %gone = map { $_ => 1 } split(/ /, retain());
		$dba->query_safe('ROLLBACK');
		is_deeply([ grep { !$gone{"t_" . 2 * $_} != !$gone{"t_" . (2 * $_ + 1)} } 0 .. $#cases ],
			[], "$type in $zone: the same shards go here and there");
		cmp_ok(keys %gone, '>', 6, "$type in $zone: some go");
		cmp_ok(keys %gone, '<', 2 * @cases - 3, "$type in $zone: some stay");
	}
	is(tables(), $before, "$type: a rollback drops nothing");
	my %kept = map { $_ => 1 } map { "t_$_" } 0 .. 2 * @cases;
	delete $kept{$_} foreach split(/ /, retain());
	my $kept = join(' ', sort keys %kept);
	is(tables(), join(' / ', $kept, '-', join(' ', grep { /[13579]$/ } split(/ /, $kept))), "$type: tables go on the node, too");
}

# From here on, shards with even numbers are on n1, the others on n2.  All have a
# young row, until age() is called.

make('timestamptz', 'n1, n2', ("(1, now())") x 26);
my $there = session($n1);
my $other = session($here);

sub age
{
	my @shards = @_;

	foreach my $shard (@shards)
	{
		($shard =~ /[13579]$/ ? $n2 : $n1)->safe_psql('postgres', "UPDATE $shard SET at = '2020-01-01'");
	}
	return;
}

sub is_there
{
	my ($shard) = @_;

	return join(' ', map { $_->safe_psql('postgres', "SELECT to_regclass('$shard') IS NOT NULL") }
		  $here, $shard =~ /[13579]$/ ? $n2 : $n1);
}

$dba->query_safe('BEGIN');
is(retain(), '', 'nothing is old');
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE relation IN (SELECT oid FROM pg_class WHERE relname LIKE 't\_%')}),
	0, '... and no table there stays locked');
$dba->query_safe('COMMIT');
age('t_0', 't_1');
is(retain(), 't_0 t_1', 'two nodes');
is(is_there('t_0') . ' ' . is_there('t_1'), 'f f f f', 'two nodes: gone');

# Transactions that write the shard, here or there.

age('t_2', 't_3');
$dba->query_safe(q{SET lock_timeout = '300ms'});
$there->query_safe(q{BEGIN; INSERT INTO t_2 VALUES (9, now())});
is(retain(), 't_3', 'somebody writes the table on the node');
like($said, qr/WARNING:  55P03: shard "t_2" of foreign table "t" is in use, skipping
DETAIL:  A transaction uses it, or its table on server "n1",/, '... a warning');
$there->query_safe('COMMIT');
is(retain(), '', '... its row is kept');
$there->query_safe(q{DELETE FROM t_2 WHERE id = 9});
$other->query_safe(q{BEGIN; INSERT INTO t_2 VALUES (9, now())});
is(retain(), '', 'somebody writes the shard');
like($said, qr/55P03: shard "t_2"/, '... a warning');
$other->query_safe('COMMIT');
is(retain(), '', '... his row is kept');
$there->query_safe(q{BEGIN; UPDATE t_2 SET at = '2020-01-01'});
is(retain(), '', 'rows that become old');
$there->query_safe('COMMIT');

# One that waits, and finds another row when it has the lock.
foreach (['now()', '', 'a young row'], [ q{'2020-01-01'}, 't_2', 'an old row'])
{
	my ($time, $gone, $title) = @$_;

	$there->query_safe("BEGIN; INSERT INTO t_2 VALUES (10, $time)");
	$dba->query_safe(q{SET lock_timeout = '60s'});
	send_to($dba, "SELECT shard_fdw.retain('t', '$cutoff');\n");
	poll_ok($n1, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 't_2'::regclass}, "$title: somebody waits");
	$there->query_safe('COMMIT');
	(undef, undef, $output) = state_of($dba, 'SELECT');
	is($output =~ s/public\.//gr, $gone, "$title: is found") or diag($output);
	is(is_there('t_2'), $gone eq '' ? 't t' : 'f f', "$title: what is left");
	$there->query_safe('DELETE FROM t_2 WHERE id = 10') if $gone eq '';
}

# The own transaction.

$dba->query_safe(q{SET lock_timeout = '300ms'});
age('t_4', 't_5');
$dba->query_safe(q{BEGIN; INSERT INTO t_4 VALUES (9, now())});
is(retain(), 't_5', 'the own transaction has written the shard');
like($said, qr/55P03: shard "t_4"/, '... a warning');
$dba->query_safe('ROLLBACK');
is(is_there('t_4') . ' ' . is_there('t_5'), 't t t t', 'a rollback');
$dba->query_safe('BEGIN; SAVEPOINT a');
is(retain(), 't_4 t_5', 'in a transaction');
fails($dba, 'SELECT * FROM t', '55000', qr/^cannot use foreign table "t" in this transaction/);
$dba->query_safe('ROLLBACK TO SAVEPOINT a');
is(retain(q{'2010-01-01'}), '', 'after ROLLBACK TO SAVEPOINT');
$dba->query_safe('SAVEPOINT b');
is(retain(), 't_4 t_5', 'in a transaction');
age('t_6');
$dba->query_safe('RELEASE SAVEPOINT b; SAVEPOINT c');
is(retain(), 't_6', 'and again');
$dba->query_safe('ROLLBACK TO SAVEPOINT c; COMMIT');
is(join(' ', map { is_there("t_$_") } 4 .. 6), 'f f f f t t', 'COMMIT');
$dba->query_safe('BEGIN');
($state) = state_of($dba, q{SELECT * FROM shard_fdw.run_command_on_nodes('t', 'CREATE TABLE x ()')});
is("$state " . retain(), '00000 ', 'other commands there, before');
like($said, qr/WARNING:  55000: could not drop shard "t_6": cannot run these commands on server "n1" in one transaction/, '... a warning');
$dba->query_safe('ROLLBACK; BEGIN');
is(retain(), 't_6', 'other commands there, afterwards');
fails($dba, q{SELECT * FROM shard_fdw.run_command_on_nodes('t', 'CREATE TABLE x ()')}, '55000', 'cannot run these commands on server "n1" in one transaction');
$dba->query_safe('ROLLBACK');

# A node refuses, after it has done others; the next node goes on.
age('t_8', 't_9');
$n1->safe_psql('postgres', 'CREATE VIEW v AS SELECT * FROM t_8');
$dba->query_safe('BEGIN');
is(retain(), 't_6 t_9', 'a node refuses to drop one of its tables');
like($said, qr/\A\S+ WARNING:  2BP01: could not drop shard "t_8".*\n(?!.*WARNING)/, '... a warning');
$dba->query_safe('ROLLBACK');
$n1->safe_psql('postgres', 'DROP VIEW v; UPDATE t_8 SET at = now()');
$n2->safe_psql('postgres', 'UPDATE t_9 SET at = now()');

# What is kept: open or sealed shards, rows without a time, tables that are no
# ordinary ones, or have something that depends on them.

$here->safe_psql('postgres', q{SET client_min_messages = error;
	SELECT shard_fdw.open_shard('t_7'), shard_fdw.open_shard('t_8'); SELECT shard_fdw.seal('t_7')});
age('t_7', 't_8');
is(retain(), 't_6', 'neither open nor sealed shards');
$here->safe_psql('postgres', q{SELECT shard_fdw.close_shard('t_8')});
$n1->safe_psql('postgres', q{ALTER TABLE t_8 ALTER at DROP NOT NULL; INSERT INTO t_8 VALUES (3, NULL)});
is(retain(), '', 'a row without a time');
$n1->safe_psql('postgres', q{DELETE FROM t_8 WHERE at IS NULL});
$n1->safe_psql('postgres', q{CREATE VIEW v AS SELECT * FROM t_8});
is(retain(), '', 'a view depends on it');
like($said, qr/WARNING:  2BP01: could not drop shard "t_8": command on server "n1" failed: cannot drop table (?:public\.)?t_8 because/, '... a warning');
$n1->safe_psql('postgres', q{DROP VIEW v; ALTER TABLE t_8 RENAME TO u; CREATE VIEW t_8 AS SELECT * FROM u; ALTER TABLE t_10 RENAME TO p;
	CREATE TABLE t_10 (LIKE p) PARTITION BY RANGE (at); CREATE TABLE q PARTITION OF t_10 DEFAULT; INSERT INTO t_10 VALUES (1, '2020-01-01');
	ALTER TABLE t_12 RENAME TO t_12_gone; CREATE TABLE child () INHERITS (t_14); ALTER TABLE t_16 RENAME at TO "When";
	ALTER TABLE t_18 ALTER at TYPE text});
age('t_14', 't_18');
$n1->safe_psql('postgres', q{UPDATE t_16 SET "When" = '2020-01-01'});
is(retain(), '', 'tables of other kinds');
my $nothing = join('', map { "WARNING:  55000: $_\n" } 'could not find out whether shard "t_12" is old: its table on server "n1" is missing',
	'could not find out whether shard "t_16" is old: its table on server "n1" has no column "at" of type timestamp with time zone',
	'could not find out whether shard "t_18" is old: its table on server "n1" has no column "at" of type timestamp with time zone',
	map { qq{could not drop shard "$_": its table on server "n1" is not an ordinary one, or inherits, or is inherited from} } qw(t_8 t_10 t_14));
is(join('', map { "$_\n" } $said =~ /(WARNING:  .*)/g), $nothing, '... warnings');
$here->safe_psql('postgres', q{ALTER FOREIGN TABLE t_16 ALTER at OPTIONS (ADD column_name 'When')});
is(retain(), 't_16', 'another name of the column');
$n1->safe_psql('postgres', q{DROP VIEW t_8; ALTER TABLE u RENAME TO t_8; DROP TABLE t_10; ALTER TABLE p RENAME TO t_10;
	ALTER TABLE t_12_gone RENAME TO t_12; DROP TABLE child; ALTER TABLE t_18 ALTER at TYPE timestamptz USING at::timestamptz});

# Foreign keys, and tables that are kept.

$n1->safe_psql('postgres', q{CREATE TABLE f (id int PRIMARY KEY); INSERT INTO f VALUES (1); ALTER TABLE t_8 ADD FOREIGN KEY (id) REFERENCES f});
$there->query_safe('BEGIN; DELETE FROM f WHERE false');
is(retain(), 't_14 t_18', 'a table that a foreign key points to is in use');
like($said, qr/55P03: shard "t_8"/, '... a warning');
$there->query_safe('COMMIT');
$dba->query_safe(q{BEGIN; SET LOCAL statement_timeout = '60s'});
is(retain("'$cutoff', true"), 't_8', 'keep_tables, in a transaction');
is((state_of($dba, 'ANALYZE t_8; TRUNCATE t_8'))[0], '00000', '... in which the table can be used');
$dba->query_safe('ROLLBACK');
$there->query_safe(q{BEGIN; INSERT INTO t_8 VALUES (1, now())});
is(retain("'$cutoff', true"), '', 'keep_tables: somebody writes the table on the node');
like($said, qr/55P03: shard "t_8"/, '... a warning');
$there->query_safe('ROLLBACK');
is(retain("'$cutoff', true"), 't_8', 'keep_tables');
is(is_there('t_8') . $here->safe_psql('postgres', q{SELECT count(*) FROM pg_inherits WHERE inhrelid = 't_8'::regclass; SELECT id FROM t_8}),
	"t t0\n1", 'keep_tables: detached');

# Two shards that have one table, of which one is open; n1_2 is n1.

$here->safe_psql('postgres', q{SELECT shard_fdw.add_connections('n1', 2);
	CREATE FOREIGN TABLE second () INHERITS (t) SERVER n1_2 OPTIONS (table_name 't_22')});
age('t_22');
is(retain(), '', 'the table of another shard, too') or diag($said);
like($said, qr/55000: could not drop shard "t_22": its table on server "n1" is that of shard "second", too/, '... a warning');
$here->safe_psql('postgres', 'DROP FOREIGN TABLE second');
$n1->safe_psql('postgres', 'UPDATE t_22 SET at = now()');

# Nodes that do not answer, and connections that are lost.

age('t_9', 't_10', 't_12');
$proxy->mode('stall');
is(retain(), 't_9', 'a node that does not answer: others go on');
like($said, qr/WARNING:  08001: could not find out whether shard "t_10" is old: could not connect to server "n1"
DETAIL:  .*
HINT:  Other shards on the server are not looked at, either\./, '... a warning');
unlike($said, qr/t_12/, '... and no other');
$proxy->mode('cut LOCK TABLE');
is(retain(), '', 'a connection is lost');
like($said, qr/WARNING:  08006: could not drop shard "t_10": connection to server "n1" was lost/, '... a warning');
$proxy->mode('cut DROP TABLE');
is(retain(), '', 'a connection is lost');
$proxy->mode('cut COMMIT');
is(retain(), 't_10 t_12', 'a connection is lost after the commit');
like($said, qr/WARNING:  08006: server "n1" may not have dropped the tables of shards that have been moved away or dropped/, '... a warning');
is(is_there('t_10') . ' ' . is_there('t_12'), 'f t f t', '... tables are left there');
age('t_24');
$proxy->mode('swallow COMMIT');
is(retain(), 't_24', 'a commit of which nobody knows');
like($said, qr/WARNING:  08006: server "n1" may not have/, '... a warning');
is(is_there('t_24'), 'f f', '... has been');
$proxy->mode('pass');

# maintain(), by hand and in a worker; and whose user mapping it is.

age('t_11', 't_20');
$here->safe_psql('postgres', q{ALTER FOREIGN TABLE t OPTIONS (ADD retain_for '1 year')});
$n2->stop('fast');
($state, undef, undef, $said) = state_of($dba, q{CALL shard_fdw.maintain('t')});
is($state . ' ' . is_there('t_20'), '00000 f f', 'maintain(): a node is down, others go on');
like($said, qr/WARNING:  08001: could not find out whether shard "t_11" is old: could not connect to server "n2"/, '... a warning');
is($here->safe_psql('postgres', q{SELECT last_error FROM shard_fdw.maintenance}),
	'could not find out whether shard "t_11" is old: could not connect to server "n2"', '... is in the view');
$n2->start;
$here->safe_psql('postgres', sprintf(q{
	CREATE ROLE owner LOGIN;
	GRANT USAGE ON FOREIGN SERVER n1, n2, shards TO owner;
	CREATE USER MAPPING FOR owner SERVER n2 OPTIONS (user 'weak', password_required 'false');
	CREATE USER MAPPING FOR owner SERVER n1 OPTIONS (user '%s', password_required 'false');
	ALTER TABLE t OWNER TO owner;
	SELECT format('ALTER TABLE %%s OWNER TO owner', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 't'::regclass \gexec
	UPDATE shard_fdw.maintenance_runs SET is_confirmed = false}, getpwuid($<)));
$n2->safe_psql('postgres', q{CREATE ROLE weak LOGIN; GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA public TO weak; GRANT USAGE ON SCHEMA public TO weak});
age('t_22');
$dba->query_safe('SET client_min_messages = warning');
($state, undef, undef, $said) = state_of($dba, q{CALL shard_fdw.maintain('t')});
like($said, qr/WARNING:  55000: 2 old shards of foreign table "t" are kept until its owner has confirmed/, 'maintain(): not confirmed');
$here->safe_psql('postgres', q{SELECT shard_fdw.confirm_retention('t')});
($state, undef, undef, $said) = state_of($dba, q{CALL shard_fdw.maintain('t')});
like($said, qr/WARNING:  42501: could not drop shard "t_11": command on server "n2" failed: must be owner of table t_11/, 'the rights of the owner');
is(is_there('t_11') . ' ' . is_there('t_22'), 't t f f', '... the others go');
$here->safe_psql('postgres', 'DROP USER MAPPING FOR owner SERVER n2');
retain();
is(scalar(() = $said =~ /WARNING/g), 1, 'no user mapping: a warning for all shards');
$here->safe_psql('postgres', q{CREATE USER MAPPING FOR owner SERVER n2 OPTIONS (user 'weak', password_required 'false')});
$n2->safe_psql('postgres', 'ALTER TABLE t_11 OWNER TO weak');
$here->safe_psql('postgres', q{UPDATE shard_fdw.maintenance_runs SET last_run = last_run - interval '1 day', failures = 0});
$here->safe_psql('postgres', q{ALTER FOREIGN TABLE t OPTIONS (SET maintenance 'auto')});
$here->safe_psql('postgres', q{INSERT INTO t VALUES (1, now())});
poll_ok($here, q{SELECT to_regclass('t_11') IS NULL}, 'a worker');
poll_ok($n2, q{SELECT to_regclass('t_11') IS NULL}, '... there, too');

done_testing();
