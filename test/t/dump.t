# pg_dump and pg_restore bring everything back: tables, shards and their
# order, options, sealed state, rows, templates, views, privileges.
use strict;
use warnings;

use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = shard_node('dump');
my $dir = PostgreSQL::Test::Utils::tempdir;

# pg_restore's --exit-on-error would stop at the first notice of trouble.
my @restore = ('pg_restore', '--exit-on-error');

$node->safe_psql('postgres', q{
	CREATE ROLE writer LOGIN;
	CREATE ROLE reader LOGIN;
	CREATE ROLE keeper;
	GRANT CREATE ON SCHEMA public TO keeper;
	GRANT USAGE ON FOREIGN SERVER shards TO keeper;
	ALTER SERVER shards OPTIONS (batch_size '500');
	CREATE SCHEMA "odd Schema";
	CREATE SCHEMA parts;

	CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
	  $$ BEGIN NEW.note := coalesce(NEW.note, '') || '!'; RETURN NEW; END $$;
	CREATE TABLE kinds (kind int PRIMARY KEY);
	INSERT INTO kinds VALUES (1), (2);

	-- everything that a template can have
	CREATE TABLE model (
	  id bigserial PRIMARY KEY, kind int DEFAULT 1 REFERENCES kinds,
	  note text COLLATE "C" DEFAULT 'n', at timestamptz DEFAULT '2024-01-01 00:00Z',
	  twice int GENERATED ALWAYS AS (kind * 2) STORED,
	  UNIQUE (id, kind), CONSTRAINT known CHECK (kind > 0)
	) WITH (fillfactor = 80);
	CREATE INDEX model_note ON model (lower(note)) WHERE note IS NOT NULL;
	CREATE STATISTICS model_stat ON id, kind FROM model;
	CREATE TRIGGER stamp BEFORE INSERT ON model FOR EACH ROW EXECUTE FUNCTION stamp();
	COMMENT ON COLUMN model.note IS 'said in the template';

	-- twelve shards: log_2 comes before log_10
	CREATE FOREIGN TABLE log (
	  id bigserial, kind int DEFAULT 1, note text COLLATE "C" DEFAULT 'n',
	  at timestamptz DEFAULT '2024-01-01 00:00Z')
	SERVER shards OPTIONS (shards '12', template 'model', route 'session', max_shards '20');
	COMMENT ON FOREIGN TABLE log IS 'said of the table';
	COMMENT ON TABLE log_3 IS 'said of a shard';
	SELECT shard_fdw.seal('log_5');
	ALTER TABLE log_6 ADD CONSTRAINT closed CHECK (1 > 2) NOT VALID;
	ALTER TABLE log_7 ALTER COLUMN kind SET DEFAULT 2;
	ALTER TABLE log_8 DISABLE TRIGGER stamp;
	GRANT INSERT ON log TO writer;
	GRANT USAGE ON SEQUENCE log_id_seq TO writer;
	GRANT SELECT ON log TO reader;
	GRANT SELECT (id) ON log_3 TO writer;

	CREATE FOREIGN TABLE "odd Schema"."Ev""ents" ("Key" int, "the value" text DEFAULT 'v')
	SERVER shards OPTIONS (shards '3', route 'round_robin', batch_size '7');
	CREATE VIEW events AS SELECT "Key" AS key, "the value" AS value FROM "odd Schema"."Ev""ents";
	GRANT INSERT, SELECT ON events TO writer;
	CREATE VIEW kinds_seen AS SELECT kind, count(*) FROM log GROUP BY kind;
	CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM log;
	CREATE RULE also AS ON DELETE TO events DO INSTEAD DELETE FROM "odd Schema"."Ev""ents"
	  WHERE "Key" = OLD.key;

	-- identity, and an owner who is nobody special
	SET ROLE keeper;
	CREATE FOREIGN TABLE kept (id int GENERATED ALWAYS AS IDENTITY, v text) SERVER shards
	  OPTIONS (shards '2');
	INSERT INTO kept (v) VALUES ('a'), ('b');
	RESET ROLE;

	-- no shards yet
	CREATE FOREIGN TABLE later (a int) SERVER shards OPTIONS (route 'round_robin');

	-- shards in a schema of their own, by the option and by hand
	CREATE FOREIGN TABLE apart (id bigint OPTIONS (sequence 'always'), k int)
	SERVER shards OPTIONS (shards '2', shard_schema 'parts');
	CREATE FOREIGN TABLE moved (a int) SERVER shards OPTIONS (shards '1');
	ALTER TABLE moved_0 SET SCHEMA parts;

	-- by hash
	CREATE FOREIGN TABLE hashed (k text, n int) SERVER shards
	  OPTIONS (shards '4', route 'hash', key 'n, k');
	INSERT INTO hashed SELECT 'k' || g, g FROM generate_series(1, 50) g;

	-- columns with another type and another name than they had
	CREATE FOREIGN TABLE retyped (k int, v text, CONSTRAINT there CHECK (v IS NOT NULL))
	SERVER shards OPTIONS (shards '3', route 'hash', key 'k');
	INSERT INTO retyped SELECT g, g FROM generate_series(1, 50) g;
	SELECT shard_fdw.alter_column_type('retyped', 'v', 'numeric(8,2)', 'v::numeric / 4');
	SELECT shard_fdw.alter_column_type('retyped', 'k', 'bigint');
	ALTER FOREIGN TABLE retyped RENAME k TO "the key";

	-- lanes, and a consumer that has read some of them
	CREATE FOREIGN TABLE lanes (id bigint OPTIONS (sequence 'always'), v text,
	  at timestamptz NOT NULL DEFAULT clock_timestamp())
	SERVER shards OPTIONS (shards '3', max_shards '10', commit_order 'true');
	DO $$ BEGIN
	  FOR i IN 0 .. 2 LOOP
	    PERFORM set_config('shard_fdw.shard', i::text, false);
	    INSERT INTO lanes (v) SELECT g FROM generate_series(1, 5) g;
	  END LOOP;
	  RESET shard_fdw.shard;
	END $$;
	SELECT shard_fdw.register_consumer('lanes', 'reader', 'id');
	SELECT count(*) FROM shard_fdw.read_batch(NULL::lanes, 'reader', 3);
	SELECT count(*) FROM shard_fdw.read_batch(NULL::lanes, 'reader', 2);
	SELECT shard_fdw.register_consumer('lanes', 'window reader', 'at');
	SELECT count(*) FROM shard_fdw.read_window(NULL::lanes, 'window reader', clock_timestamp());

	-- generations, one of which has a range
	CREATE FOREIGN TABLE gens (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL)
	SERVER shards OPTIONS (shards '1', max_shards '10', time_column 'at', rotate_every '1 day',
	  retain_for '30 days', maintenance 'manual');
	INSERT INTO gens (at) VALUES ('2026-01-01 00:00Z'), ('2026-01-02 00:00Z'), ('infinity');
	SELECT shard_fdw.rotate('gens');
	CALL shard_fdw.add_range('gens_0');
	INSERT INTO gens (at) VALUES ('2026-01-03 00:00Z');
	SELECT shard_fdw.rotate('gens');
	INSERT INTO gens (at) VALUES ('2026-01-04 00:00Z');

	-- an unlogged template, and a sub-shard
	CREATE UNLOGGED TABLE quick_model (a int);
	CREATE FOREIGN TABLE quick (a int) SERVER shards OPTIONS (shards '2', template 'quick_model');
	CREATE TABLE quick_sub () INHERITS (quick_1);
	INSERT INTO quick SELECT generate_series(1, 20);
	INSERT INTO quick_sub VALUES (100);

	DO $$ BEGIN
	  FOR i IN 0 .. 11 LOOP
	    CONTINUE WHEN i IN (5, 6);
	    PERFORM set_config('shard_fdw.shard', i::text, false);
	    INSERT INTO log (kind, note) SELECT 1 + g % 2, 'row ' || g
	      FROM generate_series(1, 10 + i) g;
	  END LOOP;
	  RESET shard_fdw.shard;
	END $$;
	INSERT INTO "odd Schema"."Ev""ents" SELECT g, E'tab\t"quote'' back\\slash ' || g
	  FROM generate_series(1, 100) g;
	INSERT INTO "odd Schema"."Ev""ents" VALUES (NULL, NULL), (101, ''), (102, '\N'), (103, E'\\.');
	REFRESH MATERIALIZED VIEW total;
	-- sealed with rows
	SELECT shard_fdw.seal('log_11');
	SELECT shard_fdw.close_shard('log_9');
	ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;
});

# A shard that was attached, in another layout.
$node->safe_psql('postgres', q{
	CREATE DATABASE attached;
});
setup_shards($node, 'attached');
$node->safe_psql('attached', q{
	CREATE FOREIGN TABLE log (a int, b text, c date) SERVER shards OPTIONS (shards '2');
	CREATE TABLE archive (gone int, c date, own text DEFAULT 'own', b text NOT NULL, x int, a int,
	  last int);
	INSERT INTO archive (c, b, a) VALUES ('2001-01-01', 'old', 1);
	ALTER TABLE archive DROP COLUMN gone, DROP COLUMN x;
	ALTER TABLE archive INHERIT log;
	CREATE TABLE before (c date, a int, b text, PRIMARY KEY (a));
	ALTER TABLE before INHERIT log;
	ALTER TABLE log ADD COLUMN d int DEFAULT 9;
	ALTER TABLE log DROP COLUMN c;
	INSERT INTO log SELECT g, 'row ' || g FROM generate_series(2, 40) g;
	SET shard_fdw.shard = 0;
	INSERT INTO log VALUES (1000, 'in archive');
	SET shard_fdw.shard = 1;
	INSERT INTO log VALUES (1001, 'in before');
	SELECT shard_fdw.seal('archive');
});

# What is to come back, as text.  Shards are told by name: their names decide
# on their order.
my %facts = (
	'shards' => q{
		SELECT logical, ordinal, shard, state, kind FROM shard_fdw.shards},
	'options' => q{
		SELECT ftrelid::regclass, ARRAY(SELECT unnest(ftoptions) ORDER BY 1) FROM pg_foreign_table},
	'server' => q{
		SELECT srvname, srvoptions, srvacl FROM pg_foreign_server},
	'columns' => q{
		SELECT attrelid::regclass, attname, atttypid::regtype, attnotnull,
		       attislocal, attinhcount, attidentity, attgenerated, attcollation,
		       pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
		  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		 WHERE attnum > 0 AND NOT attisdropped
		   AND attrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'f')
		                    AND relnamespace::regnamespace::text !~ '^(pg_|information_)')},
	'constraints' => q{
		-- a NOT NULL that is inherited only is not dumped, nor is its name
		SELECT conrelid::regclass, CASE WHEN contype <> 'n' THEN conname END, contype,
		  convalidated, conislocal,
		       coninhcount, pg_get_constraintdef(oid)
		  FROM pg_constraint WHERE conrelid <> 0
		   AND connamespace::regnamespace::text !~ '^(pg_|information_)'},
	'indexes' => q{
		SELECT tablename, indexdef FROM pg_indexes
		 WHERE schemaname IN ('public', 'odd Schema')},
	'triggers' => q{
		SELECT tgrelid::regclass, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger
		 WHERE NOT tgisinternal},
	'relations' => q{
		SELECT oid::regclass, relkind, relpersistence, relowner::regrole, relacl,
		       reloptions, obj_description(oid, 'pg_class')
		  FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_)'
		   AND relkind <> 'i'},
	'rows' => q{
		SELECT id, kind, note, at, tableoid::regclass FROM log ORDER BY id;
		SELECT * FROM events ORDER BY key, value;
		SELECT "Key", tableoid::regclass FROM "odd Schema"."Ev""ents" ORDER BY 1, 2::text;
		SELECT * FROM kept ORDER BY id;
		SELECT * FROM quick ORDER BY a;
		SELECT *, tableoid::regclass FROM hashed ORDER BY n;
		SELECT *, tableoid::regclass FROM retyped ORDER BY v;
		SELECT *, tableoid::regclass FROM lanes ORDER BY id;
		SELECT *, tableoid::regclass FROM gens ORDER BY id;
		SELECT logical, consumer, role, shard, watermark, window_end, last_read
		  FROM shard_fdw.consumers ORDER BY consumer, shard::text;
		SELECT * FROM shard_fdw.windows;
		SELECT * FROM kinds_seen ORDER BY 1;
		SELECT * FROM total;
		SELECT twice, kind FROM log_3 ORDER BY id},
);
# Rows alone do not tell this of tables that hold none.
my @schema_facts = grep { $_ ne 'rows' } sort keys %facts;

sub gather
{
	my ($database, @names) = @_;
	return {
		map {
			$_ => $node->safe_psql($database,
				$_ eq 'rows'
				? $facts{$_}
				: "SELECT * FROM ($facts{$_}) f ORDER BY f::text")
		} @names
	};
}

my $expected = gather('postgres', sort keys %facts);
like($expected->{options}, qr/route=session/, 'options are as given');
like($expected->{options}, qr/shard_schema=parts/, 'an option that CREATE has used stays');
unlike($expected->{options}, qr/\b(shards|template)=/, 'what CREATE consumed is gone');

sub same_facts
{
	my ($database, $title, @names) = @_;
	my $found = gather($database, @names);

	foreach my $name (@names)
	{
		is($found->{$name}, $expected->{$name}, "$title: $name");
	}
}

# Inserts on both routes: into open shards only, with what the template had,
# and with sequences that are where they were.
sub takes_inserts
{
	my ($database, $title) = @_;

	is( $node->safe_psql($database, q{
			BEGIN;
			SET ROLE writer;
			INSERT INTO log (kind) SELECT 2 FROM generate_series(1, 3);
			INSERT INTO events SELECT 1000 + g FROM generate_series(1, 30) g;
			RESET ROLE;
			SELECT count(*), count(DISTINCT tableoid), bool_and(id > 100),
			       bool_and(note = CASE WHEN EXISTS (SELECT FROM pg_trigger
			         WHERE tgrelid = log.tableoid AND tgenabled = 'D')
			                            THEN 'n' ELSE 'n!' END)
			  FROM log WHERE xmin = pg_current_xact_id()::xid AND kind = 2;
			SELECT count(*), count(DISTINCT tableoid), min("the value")
			  FROM "odd Schema"."Ev""ents" WHERE "Key" > 1000;
			INSERT INTO quick VALUES (1), (2);
			INSERT INTO gens (at) VALUES ('2020-01-01') RETURNING id % 10 = 1
			  AND id > 31, shard_fdw.last_shard();
			SELECT count(*) FROM shard_fdw.rotate('gens');
			INSERT INTO gens (at) VALUES ('2020-01-01') RETURNING id % 10 = 1
			  AND id > 31, shard_fdw.last_shard();
			SELECT shard_fdw.retain('gens', '2026-01-04 00:00Z');
			INSERT INTO hashed SELECT k, n + 1000 FROM hashed;
			INSERT INTO kept (v) VALUES ('c');
			SET LOCAL shard_fdw.shard = 1;
			INSERT INTO lanes (v) VALUES ('more') RETURNING id > 42;
			SELECT id FROM shard_fdw.read_batch(NULL::lanes, 'reader', 100, 1000);
			SELECT id FROM shard_fdw.read_batch(NULL::lanes, 'reader', 100, 1000) WHERE id < 40;
			SELECT count(*) FROM shard_fdw.read_batch(NULL::lanes, 'reader', 100, 1000);
			RESET shard_fdw.shard;
			SELECT count(*) FROM shard_fdw.leases
			 WHERE logical = 'log'::regclass
			 AND shard::text IN ('log_5', 'log_6', 'log_9', 'log_11');
			ROLLBACK;
		}),
		"3|1|t|t\n30|3|v\nt|gens_2\n1\nt|gens_3\npublic.gens_1\nt\n3\n13\n23\n33\n43\n31\n4\n0",
		"$title: takes inserts on both routes") or return;
	fails(
		$node, 'INSERT INTO log_5 (kind) VALUES (1)', '23514',
		qr/violates check constraint "shard_sealed"$/,
		database => $database, title => "$title: a sealed shard is sealed");
	is( $node->safe_psql($database, q{
			SET client_min_messages = error;
			BEGIN;
			SELECT shard_fdw.create_shards('log', 2);
			SELECT shard_fdw.create_shards('later', 2);
			SELECT shard_fdw.create_shards('apart', 1);
			SELECT shard_fdw.create_shards('moved', 1);
			INSERT INTO later SELECT generate_series(1, 10);
			SELECT count(*), count(DISTINCT tableoid) FROM later;
			ROLLBACK}),
		"log_12\nlog_13\nlater_0\nlater_1\nparts.apart_2\nparts.moved_1\n10|2",
		"$title: takes new shards");
}

sub create_database
{
	my ($database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	return $node->connstr($database);
}

# A dump as text, without what is made up for each.
sub dump_text
{
	my ($database, @options) = @_;
	my $file = "$dir/text.sql";

	$node->command_ok(
		[ 'pg_dump', @options, '-f', $file, '-d', $node->connstr($database) ],
		"pg_dump @options of $database");
	return slurp_file($file) =~ s/^\\(un)?restrict .*$//mgr;
}

# Dumps are long: show what differs.
sub same_text
{
	my ($found, $wanted, $title) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return if ok($found eq $wanted, $title);
	append_to_file("$dir/found", $found);
	append_to_file("$dir/wanted", $wanted);
	diag(`diff -u $dir/wanted $dir/found`);
}

# Plain text.

my $text = dump_text('postgres');
unlike($text, qr/create_shards|shard_fdw_on_ddl_end/,
	'the extension and what it did are not in the dump');
create_database('plain');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('plain'),
		'-f', "$dir/text.sql" ],
	'plain: restored');
same_facts('plain', 'plain', sort keys %facts);
same_text(dump_text('plain'), $text,
	'a dump of what was restored equals the first');
takes_inserts('plain', 'plain');
takes_inserts('postgres', 'the original');

# The other formats.

my @archives = (
	[ 'custom', [ '-Fc', '-f', "$dir/custom" ], [] ],
	[ 'directory', [ '-Fd', '-j', '2', '-f', "$dir/directory" ], [ '-j', '2' ] ],
	[ 'tar', [ '-Ft', '-f', "$dir/tar" ], [] ]);
foreach my $archive (@archives)
{
	my ($name, $options, $restore) = @$archive;

	$node->command_ok(
		[ 'pg_dump', @$options, '-d', $node->connstr('postgres') ],
		"$name: dumped");
	my $connstr = create_database($name);
	$node->command_ok([ @restore, @$restore, '-d', $connstr, "$dir/$name" ],
		"$name: restored");
	same_facts($name, $name, sort keys %facts);
	takes_inserts($name, $name);
	$node->safe_psql('postgres', "DROP DATABASE $name");
}

# Section by section, in parallel where that is possible.

my $connstr = create_database('sections');
foreach my $section ('pre-data', 'data', 'post-data')
{
	$node->command_ok(
		[ @restore, '-j', '2', "--section=$section", '-d', $connstr,
			"$dir/directory" ],
		"sections: $section restored");
	# Seals are not there before the rows are.
	is( $node->safe_psql('sections',
			q{SELECT count(*) FROM shard_fdw.shards WHERE logical = 'log'::regclass}),
		'12', "sections: after $section, twelve shards");
}
same_facts('sections', 'sections', sort keys %facts);
takes_inserts('sections', 'sections');

# The schema, then the rows.

$connstr = create_database('halves');
$node->command_ok(
	[ @restore, '--schema-only', '-d', $connstr, "$dir/custom" ],
	'halves: schema restored');
same_facts('halves', 'halves', grep { $_ ne 'shards' } @schema_facts);
is( gather('halves', 'shards')->{shards}, $expected->{shards} =~ s/closed/open/gr,
	'halves: without rows, nothing is closed yet');
is($node->safe_psql('halves', 'SELECT count(*) FROM log'),
	'0', 'halves: no rows yet');
is( $node->safe_psql('halves', q{
		BEGIN;
		INSERT INTO kinds VALUES (1);
		INSERT INTO log DEFAULT VALUES;
		INSERT INTO log (kind) VALUES (1), (1);
		SELECT count(*), min(id), max(note) FROM log;
		ROLLBACK}),
	'3|1|n!', 'halves: the schema alone takes inserts');

# Rows alone: the shards are sealed by then, as far as they are.
my $data = dump_text('postgres', '--data-only');
unlike($data, qr/COPY public\.log /, 'the logical table has no rows to dump');
create_database('rows_only');
dump_text('postgres', '--schema-only');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('rows_only'),
		'-f', "$dir/text.sql" ],
	'rows only: schema restored');
$node->safe_psql('rows_only', q{SELECT shard_fdw.unseal('log_11')});
$node->command_ok(
	[ 'pg_dump', '--data-only', '--disable-triggers', '-f', "$dir/data.sql",
		'-d', $node->connstr('postgres') ],
	'rows only: dumped');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('rows_only'),
		'-f', "$dir/data.sql" ],
	'rows only: restored');
$node->safe_psql('rows_only', q{
	SELECT shard_fdw.seal('log_11'); REFRESH MATERIALIZED VIEW total});
# --disable-triggers leaves all triggers enabled.
same_facts('rows_only', 'rows only', grep { $_ ne 'triggers' } sort keys %facts);
takes_inserts('rows_only', 'rows only');

# One logical table and its shards, by pattern.

$connstr = create_database('one');
setup_shards($node, 'one');
$node->safe_psql('one', 'CREATE TABLE kinds (kind int PRIMARY KEY);
	INSERT INTO kinds VALUES (1), (2);'
	  . ' CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS'
	  . q{ $$ BEGIN NEW.note := coalesce(NEW.note, '') || '!'; RETURN NEW; END $$});
dump_text('postgres',
	map { ('-t', $_) } 'log', 'log_[0-9]*', 'log_id_seq', 'model', 'model_id_seq');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $connstr, '-f', "$dir/text.sql" ],
	'one table: restored');
is( $node->safe_psql('one', q{
		SELECT count(*), (SELECT count(*) FROM shard_fdw.shards),
		       (SELECT string_agg(shard::text, ' ' ORDER BY ordinal)
		          FROM shard_fdw.shards WHERE state = 'sealed') FROM log}),
	$node->safe_psql('postgres', q{SELECT count(*) FROM log}) . '|12|log_5 log_6 log_11',
	'one table: rows, shards, seals');

# Attached shards.  pg_dump puts inherited columns first, so that the layout
# is another one after the first restore, and stays from then on.

my $attached_rows = q{
	SELECT a, b, d, tableoid::regclass FROM log ORDER BY a, b;
	SELECT a, b, d, own, last FROM archive ORDER BY a;
	SELECT shard, ordinal, state FROM shard_fdw.shards};
my $rows = $node->safe_psql('attached', $attached_rows);
like($rows, qr/^1\|old\|9\|archive$/m, 'attached: a shard of another layout');
foreach my $step ([ 'attached', 'attached2' ], [ 'attached2', 'attached3' ])
{
	my ($from, $to) = @$step;
	$node->command_ok(
		[ 'pg_dump', '-Fc', '-f', "$dir/$to", '-d', $node->connstr($from) ],
		"$to: dumped");
	my $target = create_database($to);
	$node->command_ok([ @restore, '-d', $target, "$dir/$to" ],
		"$to: restored");
	is($node->safe_psql($to, $attached_rows), $rows, "$to: rows and shards");
	is( $node->safe_psql($to, q{
			BEGIN;
			SET shard_fdw.shard = 1;
			INSERT INTO log (b, a) VALUES ('before', -1) RETURNING shard_fdw.last_shard();
			SET shard_fdw.shard = 2;
			INSERT INTO log SELECT -g, 'g' FROM generate_series(2, 9) g;
			SELECT unseal FROM shard_fdw.unseal('archive');
			SET shard_fdw.shard = 0;
			INSERT INTO log (a, b) VALUES (-20, 'again'), (-21, 'again');
			SELECT a, b, own, d FROM archive WHERE a < 0 ORDER BY a;
			SELECT count(*), sum(a), sum(d) FROM log WHERE a < 0;
			ROLLBACK}),
		"before\n\n-21|again|own|9\n-20|again|own|9\n11|-86|99",
		"$to: takes inserts into every layout");
}
same_text(dump_text('attached3'), dump_text('attached2'),
	'a dump of what was restored equals the one before');

# Foreign data: the rows of a logical table are those of its shards.

$node->safe_psql('postgres', q{CREATE DATABASE foreign_data});
setup_shards($node, 'foreign_data');
$node->safe_psql('foreign_data', q{
	CREATE FOREIGN DATA WRAPPER nothing;
	CREATE SERVER files FOREIGN DATA WRAPPER nothing;
	CREATE TABLE model (id bigint PRIMARY KEY, v text);
	CREATE FOREIGN TABLE hashed (id bigint, v text) SERVER shards
	  OPTIONS (shards '3', route 'hash', key 'id', template 'model');
	CREATE FOREIGN TABLE numbered (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
	  OPTIONS (shards '3', template 'model');
	CREATE FOREIGN TABLE bare (id bigint, v text) SERVER shards
	  OPTIONS (shards '3', route 'round_robin');
	INSERT INTO hashed SELECT g, 'v' FROM generate_series(1, 30) g;
	INSERT INTO bare SELECT g, 'v' FROM generate_series(1, 30) g;
	DO $$ BEGIN
	  FOR i IN 0 .. 2 LOOP
	    PERFORM set_config('shard_fdw.shard', i::text, false);
	    INSERT INTO numbered (v) SELECT 'v' FROM generate_series(1, 10) g;
	  END LOOP;
	END $$});
my $counts =
  join(';', map { "SELECT count(*), count(DISTINCT id) FROM $_" } 'hashed', 'numbered', 'bare');
my $once = join("\n", ('30|30') x 3);
my $unique = q{SELECT count(*) FROM pg_index JOIN pg_inherits ON indrelid = inhrelid};

# Dump, restore, and return what both have said.
sub by_way_of
{
	my ($database, @dump_options) = @_;
	my $said = '';

	IPC::Run::run(
		[
			'pg_dump', '-Fc', @dump_options, '-f',
			"$dir/$database", '-d', $node->connstr('foreign_data')
		],
		'2>',
		\$said) or die "pg_dump failed: $said";
	IPC::Run::run([ 'pg_restore', '-d', create_database($database), "$dir/$database" ],
		'2>>', \$said);
	return $said;
}

my $said = by_way_of('doubled', '--include-foreign-data=*');
is(scalar(() = $said =~ /could not create unique index "(?:hashed|numbered)_\d_pkey"/g),
	6, 'all foreign data: the restore says which indexes it cannot create');
is( $node->safe_psql('doubled', $counts),
	join("\n", ('60|30') x 3),
	'all foreign data: rows are doubled');
is($node->safe_psql('doubled', $unique), '0', 'all foreign data: those indexes are missing');

# What is restored of it can be chosen.
my $list = '';
IPC::Run::run([ 'pg_restore', '--list', "$dir/doubled" ], '>', \$list)
  or die 'pg_restore --list failed';
append_to_file("$dir/list",
	join('', grep { !/ TABLE DATA public (hashed|numbered|bare) / } split(/^/, $list)));
$node->command_ok([ @restore, '-L', "$dir/list", '-d', create_database('chosen'), "$dir/doubled" ],
	'all foreign data: restored without that of the logical tables');
is($node->safe_psql('chosen', "$counts; $unique"),
	"$once\n6", 'all foreign data, without that of the logical tables: all is there once');

is(by_way_of('others', '--include-foreign-data=files'),
	'', 'data of another server: nothing to be said');
is($node->safe_psql('others', "$counts; $unique"),
	"$once\n6", 'data of another server: all is there once');

# Rows that are to be routed anew.
is(by_way_of('routed', '--include-foreign-data=shards', '--exclude-table-data=*_[0-9]'),
	'', 'foreign data without that of the shards');
is($node->safe_psql('routed', "$counts; $unique"),
	"$once\n6", 'foreign data without that of the shards: all is there once');

$node->stop;
done_testing();
