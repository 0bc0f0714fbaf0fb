# A disk that is full: the statement fails as a whole, shards on other disks go
# on, and when there is room again, so does the shard.
use strict;
use warnings;

use ShardTest;
use File::Path qw(remove_tree);
use PostgreSQL::Test::Utils;
use Test::More;

my $small = $ENV{TEST_SMALL_DISK};
plan skip_all => 'there is no small disk: test/with-cluster mounts one as root only'
  unless $small;

my $node = shard_node('disk_full', conf => "session_preload_libraries = 'shard_fdw'\n");
mkdir("$small/space") or die "$small/space: $!";
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$small/space'");
# Without a TOAST table, whose empty index would take room, too.
my $columns = 'client int, n int, part int, v varchar(400)';
$node->safe_psql('postgres', qq{
	CREATE TABLE model ($columns, PRIMARY KEY (client, n, part));
	CREATE FOREIGN TABLE log ($columns)
	  SERVER shards OPTIONS (shards '4', template 'model');
	CREATE FOREIGN TABLE rr ($columns)
	  SERVER shards OPTIONS (shards '4', template 'model', route 'round_robin');
	CREATE FOREIGN TABLE keyed ($columns)
	  SERVER shards OPTIONS (shards '4', template 'model', route 'hash', key 'client, n');
	ALTER TABLE log_1 SET TABLESPACE small;
	ALTER TABLE rr_1 SET TABLESPACE small;
	ALTER TABLE keyed_1 SET TABLESPACE small;
	SET shard_fdw.shard = 1;
	INSERT INTO log SELECT 1, 1, g FROM generate_series(1, 10) g;
	RESET shard_fdw.shard;
	INSERT INTO rr SELECT 1, 1, g FROM generate_series(1, 10) g;
	INSERT INTO keyed SELECT 1, g, 1 FROM generate_series(1, 10) g});
# Reading a table can make its visibility map, from 19 on.
$node->safe_psql('postgres', 'VACUUM log_1, rr_1, keyed_1');
my $session = session($node);
my $other = session($node);
my $wide = q{repeat('x', 300)};
my $count = 'SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM rr),
	(SELECT count(*) FROM keyed)';

# One session inserts into the shard that is going to be full, one elsewhere.
$other->query_safe('SET shard_fdw.shard = 2');
my $before = $node->safe_psql('postgres', $count);

foreach my $statement (
	"SET shard_fdw.shard = 1;\nINSERT INTO log SELECT 2, 2, g, $wide
		FROM generate_series(1, 30000) g",
	"RESET shard_fdw.shard;\nINSERT INTO rr SELECT 2, 2, g, $wide
		FROM generate_series(1, 100000) g",
	"INSERT INTO keyed SELECT 2, g, 2, $wide FROM generate_series(1, 100000) g",
	"INSERT INTO keyed SELECT 2, g, 2, $wide FROM generate_series(1, 100000) g
		ON CONFLICT (client, n, part) DO UPDATE SET v = 'b'")
{
	my $title = 'full: ' . ($statement =~ s/^(RE)?SET.*;\n//r =~ s/\s+/ /gr);

	fails($session, $statement, '53100', qr/^could not (extend|write)/, title => $title);
	is($node->safe_psql('postgres', $count), $before, "$title: nothing is lost, nothing stays");
}
my $file = PostgreSQL::Test::Utils::tempdir . '/rows';
$node->safe_psql('postgres',
	"COPY (SELECT 2, 2, g, $wide FROM generate_series(1, 100000) g) TO '$file'");
my ($state, $message) = state_of($session, "COPY rr FROM '$file'");
is($state, '53100', "full: COPY: $message");
is($node->safe_psql('postgres', $count), $before, 'full: COPY fails as a whole');

# The file keeps the room that rolled back rows have taken.  Fill what is
# left, to the last page.
$state = '00000';
$state = (state_of($session, "SET shard_fdw.shard = 1;\nINSERT INTO log
	SELECT 4, pg_backend_pid(), coalesce(max(part), 0) + 1, $wide FROM log WHERE client = 4"))[0]
  while $state eq '00000';
is($state, '53100', 'full: not one more row');
is( (state_of($other, "INSERT INTO log SELECT 3, 1, g, $wide FROM generate_series(1, 10000) g"))[0],
	'00000', 'full: a session with another shard goes on');

# Sealed, the shard is nobody's any more; emptied, it takes rows again.
$session->query_safe(q{RESET shard_fdw.shard; SELECT FROM shard_fdw.seal('rr_1')});
is((state_of($session, "COPY rr FROM '$file'"))[0],
	'00000', 'sealed: COPY goes to the other shards');
is( $node->safe_psql(
		'postgres', 'SELECT count(*), count(DISTINCT tableoid) FROM rr WHERE client = 2 AND n = 2'),
	'100000|3',
	'sealed: the other shards have all rows of the COPY');
$node->safe_psql('postgres', 'CHECKPOINT');
$session->query_safe('TRUNCATE log');
is( (state_of($session, "SET shard_fdw.shard = 1;\nINSERT INTO log SELECT 5, 1, g, $wide
	FROM generate_series(1, 1000) g;\nSELECT count(*) FROM log_1"))[2],
	'1000', 'emptied: the shard takes rows again');
indexes_ok($node, 'full disk');
$_->quit foreach $session, $other;
$node->stop;
remove_tree("$small/space");
done_testing();
