# A server where the library is missing: its package has been removed, or the
# data directory has been taken elsewhere.
use strict;
use warnings;

use ShardTest;
use Test::More;

my ($install_path, $library) = copy_installation();
my $node = shard_node('no_library', install_path => $install_path);
$node->safe_psql('postgres', q{
	CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v int)
	  SERVER shards OPTIONS (shards '3', commit_order 'true');
	INSERT INTO log (v) VALUES (1), (2);
	SELECT shard_fdw.register_consumer('log', 'c', 'id');
	CREATE FOREIGN TABLE hashed (k int, v int)
	  SERVER shards OPTIONS (shards '2', route 'hash', key 'k');
	CREATE TABLE plain (a int, b int);
	CREATE TABLE parted (a int) PARTITION BY LIST (a);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
	CREATE TABLE parent (a int);
	CREATE TABLE child () INHERITS (parent);
	CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE FOREIGN DATA WRAPPER foreign_things;
	CREATE SERVER elsewhere FOREIGN DATA WRAPPER foreign_things;
	CREATE FOREIGN TABLE remote (a int) SERVER elsewhere;
	CREATE SCHEMA scrap CREATE TABLE scrap (a int);
	CREATE ROLE leaver;
	CREATE EXTENSION pgtap});

$node->stop;
unlink($library) or die "cannot remove $library";
$node->start;
fails($node, 'INSERT INTO log (v) VALUES (1)', '58P01', qr/^could not access file "/,
	title => 'the library is missing');

# What has nothing to do with us, in sessions of their own

foreach my $command (
	'CREATE TABLE another (a int)',
	'CREATE TABLE another_child () INHERITS (another)',
	'CREATE FOREIGN TABLE another_remote (a int) SERVER elsewhere',
	'CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2)',
	'CREATE INDEX ON plain (a)',
	'CREATE TRIGGER t BEFORE UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION f()',
	'ALTER TABLE plain ADD c int DEFAULT 1, DROP b',
	'ALTER TABLE plain RENAME a TO z',
	'ALTER TABLE plain RENAME TO plain_2',
	'ALTER TABLE parent RENAME a TO z',
	'ALTER TABLE child NO INHERIT parent',
	'ALTER TABLE child INHERIT parent',
	'ALTER TABLE parted DETACH PARTITION parted_1',
	'ALTER FOREIGN TABLE remote ADD b int',
	'ALTER FOREIGN TABLE remote RENAME a TO z',
	'CREATE VIEW v AS SELECT 1 AS a',
	'DROP VIEW v',
	'DROP TRIGGER t ON plain_2',
	'DROP TABLE plain_2',
	'DROP TABLE parent CASCADE',
	'DROP FOREIGN TABLE remote',
	'DROP SERVER elsewhere CASCADE',
	'DROP FOREIGN DATA WRAPPER foreign_things',
	'DROP FUNCTION f()',
	'DROP SCHEMA scrap CASCADE',
	'DROP OWNED BY leaver',
	'DROP EXTENSION pgtap')
{
	my ($state, $message) = sqlstate($node, $command);
	is("$state $message", '00000 ', $command);
}

# What is ours, as far as it goes: the rows are there, and one can get away.

foreach my $command (
	'SELECT count(*) FROM log_0',
	'ALTER TABLE log_0 NO INHERIT log',
	'ALTER TABLE log_0 ADD w int',
	'DROP TABLE log_1',
	'DROP TABLE hashed_0',
	'DROP FOREIGN TABLE log CASCADE',
	'DROP SERVER shards CASCADE',
	'DROP EXTENSION shard_fdw CASCADE',
	'DROP TABLE log_0')
{
	my ($state, $message) = sqlstate($node, $command);
	is("$state $message", '00000 ', $command);
}

$node->stop;
done_testing();
