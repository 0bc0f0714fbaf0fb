# ALTER EXTENSION UPDATE: what a database has after it is what CREATE EXTENSION
# gives, and tables go on.  From each release, the scripts of which are in
# test/released, and from a version made up here.
use strict;
use warnings;

use File::Basename qw(basename);
use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($install_path, @files) = copy_installation();
my ($control) = grep { /\.control$/ } @files;
my $folder = $control =~ s{/[^/]*$}{}r;
my $version = (slurp_file($control) =~ /^default_version = '(.*)'/m)[0];
my $script = slurp_file("$folder/shard_fdw--$version.sql");
my @releases = map { basename($_, '.sql') =~ s/^shard_fdw--//r } glob('test/released/*.sql');
my $node = shard_node('update', install_path => $install_path);

# All that belongs to the extension, and how it is made.  It has no types but
# those of the rows of its tables and views, which newer servers list.
my $description = q{
	SELECT pg_describe_object(d.classid, d.objid, 0), obj_description(d.objid, d.classid::regclass::name),
	  CASE d.classid
	    WHEN 'pg_proc'::regclass THEN (
	      SELECT jsonb_build_array(pg_get_functiondef(p.oid), acl(p.proacl)) FROM pg_proc p
	       WHERE p.oid = d.objid)
	    WHEN 'pg_class'::regclass THEN (
	      SELECT jsonb_build_array(c.relkind, c.reloptions, acl(c.relacl),
	        CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END,
	        ARRAY(SELECT ROW(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
	                         col_description(c.oid, a.attnum), acl(a.attacl),
	                         pg_get_expr(e.adbin, e.adrelid))::text
	                FROM pg_attribute a
	                LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
	               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
	        ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
	        ARRAY(SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
	               WHERE conrelid = c.oid ORDER BY 1),
	        (SELECT condition
	           FROM pg_extension x, unnest(x.extconfig, x.extcondition) u (relation, condition)
	          WHERE x.oid = d.refobjid AND relation = c.oid))
	        FROM pg_class c
	       WHERE c.oid = d.objid)
	    WHEN 'pg_event_trigger'::regclass THEN (
	      SELECT jsonb_build_array(evtevent, evtfoid::regproc, evtenabled, evttags)
	        FROM pg_event_trigger WHERE oid = d.objid)
	    WHEN 'pg_foreign_data_wrapper'::regclass THEN (
	      SELECT jsonb_build_array(fdwhandler::regproc, fdwvalidator::regproc, fdwoptions, acl(fdwacl))
	        FROM pg_foreign_data_wrapper WHERE oid = d.objid)
	  END
	  FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
	 WHERE x.extname = 'shard_fdw' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	   AND d.classid <> 'pg_type'::regclass
	 ORDER BY 1};

sub describe
{
	my ($database) = @_;
	return $node->safe_psql($database, qq{
		CREATE FUNCTION pg_temp.acl(acl aclitem[]) RETURNS text[] LANGUAGE sql
		  AS 'SELECT ARRAY(SELECT x::text FROM unnest(acl) x ORDER BY 1)';
		} . $description =~ s/\bacl\(/pg_temp.acl(/gr);
}

# A database with an older version in which there are rows.
sub old_database
{
	my ($old) = @_;
	my $database = "from_$old";

	$node->safe_psql('postgres', qq{CREATE DATABASE "$database"});
	$node->safe_psql($database, qq{
		CREATE EXTENSION shard_fdw VERSION '$old';
		CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw;
		CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v int)
		  SERVER shards OPTIONS (shards '3', commit_order 'true');
		INSERT INTO log (v) SELECT generate_series(1, 10);
		SELECT shard_fdw.register_consumer('log', 'c', 'id');
		CREATE FOREIGN TABLE hashed (k int, v int)
		  SERVER shards OPTIONS (shards '2', route 'hash', key 'k');
		INSERT INTO hashed SELECT g, g FROM generate_series(1, 10) g;
		SELECT shard_fdw.close_shard('log_2')});
	return $database;
}

sub update_ok
{
	my ($old) = @_;
	my $database = old_database($old);
	my $session = $node->background_psql($database);

	# A session that knows the version before.
	$session->query_safe('INSERT INTO log (v) VALUES (11)');
	$node->safe_psql($database, 'ALTER EXTENSION shard_fdw UPDATE');
	is($node->safe_psql($database, q{SELECT extversion FROM pg_extension WHERE extname = 'shard_fdw'}),
		$version, "$old is updated");
	is(describe($database), describe('postgres'), "$old: afterwards, all is as if created");
	is($session->query_safe('INSERT INTO log (v) VALUES (12); SELECT count(*), count(DISTINCT id) FROM log'),
		'12|12', "$old: a session goes on");
	$session->quit;
	is( $node->safe_psql($database, q{
			INSERT INTO log (v) VALUES (13);
			SELECT count(*), count(DISTINCT id) FROM log;
			SELECT count(*) FROM hashed WHERE k = 3;
			SELECT string_agg(state, ' ' ORDER BY ordinal) FROM shard_fdw.list_shards('log');
			CREATE FOREIGN TABLE later (a int) SERVER shards OPTIONS (shards '2');
			SELECT count(*) FROM shard_fdw.list_shards('later')}),
		"13|13\n1\nopen open closed\n2", "$old: tables go on");
	fails($node, 'DROP EXTENSION shard_fdw CASCADE', '2BP01', qr/have rows$/,
		database => $database, title => "$old: rows are guarded");
	return;
}

my $all = describe('postgres');
like($all, qr/^$_\|\w/m, "the description has $_ and its comment")
  foreach 'function shard_fdw.seal\(regclass\)', 'view shard_fdw.shards',
  'table shard_fdw.generations', 'event trigger shard_fdw_on_ddl_end',
  'foreign-data wrapper shard_fdw';
is(join("\n", grep { /\|$/ } split(/\n/, $all)), '', 'it describes objects of each kind');
is( $node->safe_psql('postgres', 'ALTER EXTENSION shard_fdw UPDATE') . describe('postgres'),
	$all, 'an update from this version to itself');

# What is released is not changed any more: it gets another version.
foreach my $release (@releases)
{
	my $released = slurp_file("test/released/shard_fdw--$release.sql");

	if ($release eq $version)
	{
		ok($released eq $script, "sql/shard_fdw.sql is still what was released as $version");
		next;
	}
	append_to_file("$folder/shard_fdw--$release.sql", $released);
	update_ok($release);
}

# Old scripts, also those in databases that go through pg_upgrade, name
# functions of the library.
my ($library) = grep { /\.(so|dylib)$/ } @files;
my %symbols = map { (split)[-1] => 1 } `nm -D --defined-only '$library'`;
foreach my $file ("$folder/shard_fdw--$version.sql", glob('test/released/*.sql'))
{
	my @missing = grep { !$symbols{$_} } slurp_file($file) =~ /'MODULE_PATHNAME', '(\w+)'/g;
	is("@missing", '', 'the library has all functions of ' . basename($file));
}

# An older version: without a view, a comment and an event trigger, and with
# another volatility and default.
my $old = $script;
my $new_parts = '';
foreach my $part (
	qr/^CREATE VIEW shard_fdw\.windows .*?^GRANT SELECT, DELETE .*?;\n/ms,
	qr/^COMMENT ON FUNCTION shard_fdw\.seal\(.*?;\n/ms,
	qr/^CREATE EVENT TRIGGER shard_fdw_on_drop_start .*?^COMMENT .*?;\n/ms)
{
	$old =~ s/($part)// or die "the script has no $part";
	$new_parts .= $1;
}
$old =~ s/('shard_format_on_shards'\nLANGUAGE C) STABLE/$1 VOLATILE/ or die 'no format_on_shards';
$old =~ s/(began .* DEFAULT pg_catalog\.)clock_timestamp/$1now/ or die 'no default';
my $update = $new_parts . q{
	ALTER TABLE shard_fdw.generations ALTER began SET DEFAULT pg_catalog.clock_timestamp();
};
append_to_file("$folder/shard_fdw--0.8.sql", $old);
append_to_file("$folder/shard_fdw--0.8--0.9.sql", $update);
append_to_file("$folder/shard_fdw--0.9--$version.sql",
	'ALTER FUNCTION shard_fdw.format_on_shards(regclass, text) STABLE;');
update_ok('0.8');

# Whatever an update forgets is seen.
append_to_file("$folder/shard_fdw--0.7.sql", $old);
append_to_file("$folder/shard_fdw--0.7--$version.sql", $update);
my $database = old_database('0.7');
$node->safe_psql($database, 'ALTER EXTENSION shard_fdw UPDATE');
isnt(describe($database), $all, 'a difference that is left is seen');

$node->stop;
done_testing();
