-- Creating and dropping logical tables and shards.
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT no_plan();

\ir ddl.psql

--
-- CREATE FOREIGN TABLE
--

CREATE FOREIGN TABLE log (id bigint, msg text NOT NULL DEFAULT 'none')
SERVER shards OPTIONS (shards '12', route 'round_robin', max_shards '20');
SELECT is(shard_names('log'),
  ARRAY['log_0', 'log_1', 'log_2', 'log_3', 'log_4', 'log_5', 'log_6',
        'log_7', 'log_8', 'log_9', 'log_10', 'log_11'],
  'shards are created, and log_2 comes before log_10');
SELECT bag_eq($$ SELECT inhrelid::regclass::text FROM pg_inherits
                  WHERE inhparent = 'log'::regclass $$,
  $$ SELECT 'log_' || g FROM generate_series(0, 11) g $$,
  'they are children of the logical table');
SELECT is((SELECT ftoptions::text FROM pg_foreign_table
            WHERE ftrelid = 'log'::regclass),
  '{route=round_robin,max_shards=20}',
  'option "shards" is used up, others stay');
INSERT INTO log SELECT g FROM generate_series(1, 24) g;
SELECT results_eq('SELECT tableoid, count(*), min(msg) FROM log GROUP BY 1
                    ORDER BY 1',
  $$ SELECT shard::oid, 2::bigint, 'none'::text
       FROM shard_fdw.list_shards('log') ORDER BY 1 $$,
  'all of them take rows');
SELECT results_eq($$ SELECT oid::regclass::text, relkind::text,
                            relpersistence::text, relowner::regrole::text
                       FROM pg_class WHERE relname IN ('log', 'log_0')
                      ORDER BY 1 $$,
  format($$ VALUES ('log', 'f', 'p', %1$L), ('log_0', 'r', 'p', %1$L) $$,
         current_user),
  'a shard is an ordinary table of the same owner');

-- natural order does not depend on the order of creation, nor do zeros hurt

CREATE FOREIGN TABLE natural_order (id int) SERVER shards;
CREATE TABLE old_1 () INHERITS (natural_order);
CREATE TABLE part_10 () INHERITS (natural_order);
CREATE TABLE part_9 () INHERITS (natural_order);
CREATE TABLE part_010 () INHERITS (natural_order);
CREATE TABLE part () INHERITS (natural_order);
CREATE TABLE part_ () INHERITS (natural_order);
CREATE TABLE part_99999999999999999999999999 () INHERITS (natural_order);
CREATE TABLE part_11 () INHERITS (natural_order);
SELECT is(shard_names('natural_order'),
  ARRAY['old_1', 'part', 'part_', 'part_9', 'part_010', 'part_10', 'part_11',
        'part_99999999999999999999999999'],
  'ordinals follow the names, numbers by value');
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('natural_order', 1) $$,
  $$ VALUES ('natural_order_0') $$, 'names of other making do not count');

-- in other words

SELECT lives_ok($$ DO 'BEGIN
                     EXECUTE ''CREATE FOREIGN TABLE dynamic (id int)
                               SERVER shards OPTIONS (shards ''''2'''')'';
                     INSERT INTO dynamic VALUES (1);
                   END' $$, 'CREATE FOREIGN TABLE and INSERT in PL/pgSQL');
SELECT is((SELECT count(*) FROM dynamic), 1::bigint,
  'CREATE FOREIGN TABLE and INSERT in PL/pgSQL work');
CREATE FOREIGN TABLE IF NOT EXISTS log (other int)
SERVER shards OPTIONS (shards '30');
SELECT results_eq(
  $$ SELECT (SELECT count(*) FROM shard_fdw.list_shards('log')),
            (SELECT count(*) FROM log) $$,
  'VALUES (12::bigint, 24::bigint)',
  'IF NOT EXISTS leaves an existing table alone');
CREATE FOREIGN TABLE IF NOT EXISTS log_new (id int)
SERVER shards OPTIONS (shards '2');
SELECT is(shard_names('log_new'), ARRAY['log_new_0', 'log_new_1'],
  'IF NOT EXISTS creates a new table with its shards');
SET LOCAL session_replication_role = replica;
CREATE FOREIGN TABLE replayed (id int) SERVER shards OPTIONS (shards '2');
SET LOCAL session_replication_role = origin;
SELECT is(shard_names('replayed'), ARRAY['replayed_0', 'replayed_1'],
  'also where ordinary triggers do not fire');
CREATE TABLE base (id int);
CREATE FOREIGN TABLE inheriting (x int) INHERITS (base)
SERVER shards OPTIONS (shards '2');
INSERT INTO inheriting VALUES (1, 2);
SELECT results_eq('SELECT id, tableoid FROM base',
  'SELECT 1, shard_fdw.last_shard()::oid', 'a logical table that inherits');
CREATE FOREIGN TABLE no_columns () SERVER shards OPTIONS (shards '2');
INSERT INTO no_columns DEFAULT VALUES;
ALTER FOREIGN TABLE no_columns ADD COLUMN id int DEFAULT 5;
INSERT INTO no_columns DEFAULT VALUES;
SELECT results_eq('SELECT id FROM no_columns', 'VALUES (5), (5)',
  'a logical table without columns, and one later');
SET LOCAL search_path = '';
CREATE FOREIGN TABLE public.no_path (id pg_catalog.int4)
SERVER shards OPTIONS (shards '1');
SELECT shard_fdw.create_shards('public.no_path', 1);
INSERT INTO public.no_path VALUES (1);
SET LOCAL search_path = public;
SELECT results_eq($$ SELECT shard_names('no_path'), count(*) FROM no_path $$,
  $$ VALUES (ARRAY['no_path_0', 'no_path_1'], 1::bigint) $$,
  'with an empty search_path');
CREATE FOREIGN TABLE pg_temp.passing (id int)
SERVER shards OPTIONS (shards '2');
SELECT lives_ok('INSERT INTO passing VALUES (1)',
  'a temporary logical table takes rows');
SELECT is((SELECT count(*) FROM passing), 1::bigint,
  'a temporary logical table takes rows, and shows them');
SELECT is((SELECT array_agg(DISTINCT relpersistence::text) FROM pg_class
            WHERE relname IN ('passing_0', 'passing_1')), ARRAY['t'],
  'a temporary logical table takes rows: its shards are temporary too');

-- other event triggers see the shards come

CREATE TABLE seen (tag text, identity text);
CREATE FUNCTION note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.seen SELECT command_tag, object_identity
                     FROM pg_event_trigger_ddl_commands();
END $$;
CREATE EVENT TRIGGER note_ddl ON ddl_command_end
  WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION note_ddl();
CREATE FOREIGN TABLE watched (id int) SERVER shards OPTIONS (shards '1');
DROP EVENT TRIGGER note_ddl;
SELECT bag_eq('SELECT * FROM seen',
  $$ VALUES ('CREATE TABLE', 'public.watched_0') $$,
  'event triggers of others see the shards');

--
-- Names
--

-- 63 bytes are the limit; small letters sort after "_", capitals before it
SELECT repeat('z', 63) AS long, repeat('z', 61) || 'yy' AS clash,
       repeat('Z', 62) AS upper, 'x' || repeat(chr(228), 31) AS multibyte \gset
CREATE TABLE long_model (id int PRIMARY KEY, t text CHECK (t <> ''));
CREATE FOREIGN TABLE :"long" (id int, t text) SERVER shards
OPTIONS (shards '12', template 'long_model', route 'round_robin');
CREATE FOREIGN TABLE :"upper" (id int) SERVER shards OPTIONS (shards '12');
CREATE FOREIGN TABLE :"multibyte" (id int) SERVER shards
OPTIONS (shards '12', route 'round_robin');
SELECT is(array_agg(substring(name, '_(\d+)$')::int ORDER BY ordinal),
          ARRAY[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
          format('ordinals of shards of %s... follow the numbers', logical))
  FROM (VALUES (left(:'long', 5), :'long'), (left(:'upper', 5), :'upper'),
               (left(:'multibyte', 5), :'multibyte')) v(logical, relname),
       unnest(shard_names(quote_ident(relname)::regclass))
         WITH ORDINALITY n(name, ordinal)
 GROUP BY logical ORDER BY logical;
SELECT is_empty(format($$ SELECT name FROM unnest(shard_names(%L)
                                                  || shard_names(%L)) name
                           WHERE octet_length(name) > 63
                              OR left(name, 28) NOT IN (left(%L, 28),
                                                        left(%L, 28)) $$,
                       :'long', :'multibyte', :'long', :'multibyte'),
  'long names are cut between characters, and the number is kept');
INSERT INTO :"long" SELECT g, 'x' FROM generate_series(1, 24) g;
INSERT INTO :"multibyte" SELECT g FROM generate_series(1, 24) g;
SELECT results_eq(format('SELECT (SELECT count(DISTINCT tableoid) FROM %I),
                                 (SELECT count(DISTINCT tableoid) FROM %I)',
                         :'long', :'multibyte'),
  'VALUES (12::bigint, 12::bigint)', 'shards with long names take rows');
SELECT results_eq(format($$ SELECT substring(create_shards::text, '_(\d+)"?$')
                              FROM shard_fdw.create_shards(%L, 2) $$, name),
  $$ VALUES ('12'), ('13') $$, 'create_shards() goes on from there')
  FROM (VALUES (:'long'), (:'multibyte')) v(name);
SELECT fails(format($$ CREATE FOREIGN TABLE %I (id int) SERVER shards
                             OPTIONS (shards '2') $$, :'clash'), '42P07',
  title => 'names that are equal once cut are refused');
SELECT is(to_regclass(:'clash'), NULL,
  'names that are equal once cut are refused, and the table is not created');

-- quotes, percent signs, blanks, dots, capitals

CREATE SCHEMA "Sch %s.""n%";
CREATE TABLE "Sch %s.""n%"."Tem %d"".plate" (
  "Id %s" int PRIMARY KEY, "Te xt" text CHECK ("Te xt" <> '%s''"'));
CREATE FOREIGN TABLE "Sch %s.""n%"."Ta %s %n ""ble" (
  "Id %s" int, "Te xt" text DEFAULT 'a%s')
SERVER shards
OPTIONS (shards '2', template '"Sch %s.""n%"."Tem %d"".plate"');
SELECT is(shard_names('"Sch %s.""n%"."Ta %s %n ""ble"'),
  ARRAY['Ta %s %n "ble_0', 'Ta %s %n "ble_1'],
  'shards of a table with an unusual name');
SELECT results_eq($$ SELECT create_shards::text FROM
  shard_fdw.create_shards('"Sch %s.""n%"."Ta %s %n ""ble"', 1) $$,
  $$ VALUES ('"Sch %s.""n%"."Ta %s %n ""ble_2"') $$,
  'shards of a table with an unusual name: more of them');
INSERT INTO "Sch %s.""n%"."Ta %s %n ""ble" ("Id %s")
SELECT g FROM generate_series(1, 5) g;
SELECT results_eq($$ SELECT "Te xt", count(*)
                       FROM "Sch %s.""n%"."Ta %s %n ""ble" GROUP BY 1 $$,
  $$ VALUES ('a%s', 5::bigint) $$, 'shards of a table with an unusual name take rows');
SELECT fails($$ INSERT INTO "Sch %s.""n%"."Ta %s %n ""ble" VALUES (6, '%s''"') $$, '23514',
  title => 'shards of a table with an unusual name, and have the constraints of the template');

-- the name of the logical table and the schema of the model decide

CREATE SCHEMA elsewhere;
CREATE TABLE moved_template (id int PRIMARY KEY);
CREATE FOREIGN TABLE moving (id int) SERVER shards OPTIONS (shards '2');
ALTER FOREIGN TABLE moving SET SCHEMA elsewhere;
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('elsewhere.moving', 1) $$,
  $$ VALUES ('moving_2') $$, 'new shards go where the shard is that they are like');
ALTER FOREIGN TABLE elsewhere.moving RENAME TO moved;
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('elsewhere.moved', 1) $$,
  $$ VALUES ('moved_0') $$,
  'new shards go where the shard is that they are like, and have the name of the table');
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('elsewhere.moved', 1, 'moved_template') $$,
  $$ VALUES ('elsewhere.moved_1') $$,
  'what is like a table that is not a shard goes to the logical table''s schema');
INSERT INTO elsewhere.moved SELECT g FROM generate_series(1, 10) g;
SELECT is((SELECT count(*) FROM elsewhere.moved), 10::bigint,
  'a table that was moved and renamed takes rows');

-- option "shard_schema"

CREATE SCHEMA "Parts";
CREATE FOREIGN TABLE apart (id int) SERVER shards
OPTIONS (shards '2', template 'moved_template', shard_schema '"Parts"', route 'hash', key 'id');
CREATE FUNCTION shards_of(logical regclass) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(shard::text, ' ' ORDER BY ordinal) FROM shard_fdw.list_shards(logical)
$$;
SELECT is(shards_of('apart'), '"Parts".apart_0 "Parts".apart_1', 'shards in a schema of their own');
SELECT is((SELECT string_agg(relname, ' ') FROM pg_class WHERE relname ~ '^apart'
    AND relkind IN ('r', 'f', 'S', 'i')
              AND pg_table_is_visible(oid) AND relname !~ 'template'), 'apart',
  'what is seen is the one table');
SELECT is((SELECT ftoptions::text FROM pg_foreign_table WHERE ftrelid = 'apart'::regclass),
  '{"shard_schema=\"Parts\"",route=hash,key=id}', 'the option stays');
INSERT INTO apart SELECT generate_series(1, 100);
SELECT is(shard_fdw.reshard('apart', 3), 100::bigint, 'reshard()');
SELECT is(shards_of('apart'), '"Parts".apart_0 "Parts".apart_1 "Parts".apart_2',
  'reshard() stays in the schema');
CREATE TABLE "Parts".apart_3 ();
CREATE TABLE elsewhere.apart_3 ();
SELECT fails('SELECT shard_fdw.reshard(''apart'', 4)', NULL, 'relation "apart_3" already exists',
  title => 'a name that is taken in that schema');
ALTER FOREIGN TABLE apart OPTIONS (SET shard_schema 'public');
SELECT is(shards_of('apart'), '"Parts".apart_0 "Parts".apart_1 "Parts".apart_2',
  'changing the option moves no shard');
SELECT is(shard_fdw.reshard('apart', 4), 100::bigint,
  'changing the option moves no shard, but new ones go elsewhere');
SELECT is(shards_of('apart'), 'apart_0 apart_1 apart_2 apart_3',
  'after the option has changed new shards go there, and the name is free');
SELECT is((SELECT count(*) FROM apart), 100::bigint,
  'after the option has changed the rows go to the new shards, too');
SELECT fails(
  'CREATE FOREIGN TABLE astray (id int) SERVER shards OPTIONS (shards ''2'', shard_schema '
  '''nowhere'')', '3F000', 'schema "nowhere" does not exist',
  'Option "shard_schema" of foreign table "astray" or of its server says that new shards go there.',
  'Create the schema, or change the option.', title => 'no such schema');
SELECT is(to_regclass('astray'), NULL, 'no such schema: nothing is created');
SET LOCAL client_min_messages = error;
CREATE FOREIGN TABLE astray (id int) SERVER shards OPTIONS (shard_schema 'nowhere');
SET LOCAL client_min_messages = warning;
SELECT fails($$ SELECT shard_fdw.create_shards('astray', 1, 'moved_template') $$, '3F000',
  title => 'without shards it is created, and new ones have nowhere to go');
CREATE SCHEMA nowhere;
SELECT is((SELECT array_agg(s::text) FROM shard_fdw.create_shards('astray', 1, 'moved_template') s),
  '{nowhere.astray_0}', 'new shards have nowhere to go until the schema is there');
SELECT results_eq($$ SELECT value, state, hint FROM unnest(ARRAY['', 'a.b', 'a b', '"a']) value,
    error_of(format('CREATE FOREIGN TABLE bad (id int) SERVER shards OPTIONS (shard_schema %L)',
        value)) $$,
  $$ SELECT value, 'HV024', 'The value is the name of a schema, in double quotes if SQL needs them.'
       FROM unnest(ARRAY['', 'a.b', 'a b', '"a']) value $$, 'what is no name of a schema');
CREATE SERVER apart_server FOREIGN DATA WRAPPER shard_fdw OPTIONS (shard_schema 'NoWhere');
CREATE FOREIGN TABLE by_server (id int) SERVER apart_server OPTIONS (shards '1');
SELECT is(shards_of('by_server'), 'nowhere.by_server_0',
  'the server''s option, folded as SQL does it');

-- shards that have been moved
CREATE FOREIGN TABLE tidy (id int) SERVER shards OPTIONS (shards '2', route 'hash', key 'id',
  template 'moved_template');
ALTER TABLE tidy_0 SET SCHEMA "Parts";
ALTER TABLE tidy_1 SET SCHEMA "Parts";
INSERT INTO tidy SELECT generate_series(1, 50);
SELECT is(shard_fdw.reshard('tidy', 3), 50::bigint, 'moved shards');
SELECT is(shards_of('tidy'), '"Parts".tidy_0 "Parts".tidy_1 "Parts".tidy_2',
  'moved shards, stay in their schema after reshard()');
CREATE FOREIGN TABLE tidy_log (id int) SERVER shards OPTIONS (shards '1');
ALTER TABLE tidy_log_0 SET SCHEMA "Parts";
SELECT is((SELECT array_agg(s::text) FROM shard_fdw.create_shards('tidy_log', 2) s),
  '{"\"Parts\".tidy_log_1","\"Parts\".tidy_log_2"}', 'moved shards, and after create_shards()');
SELECT is((SELECT array_agg(s::text) FROM shard_fdw.create_shards('tidy_log', 1,
      '"Parts".tidy_log_0') s),
  '{"\"Parts\".tidy_log_3"}', 'moved shards, also if the shard is named');

-- the rights are the owner's
CREATE SCHEMA closed;
GRANT USAGE ON SCHEMA closed TO shard_user;
CREATE FOREIGN TABLE refused (id int) SERVER shards OPTIONS (shard_schema 'closed');
ALTER FOREIGN TABLE refused OWNER TO shard_user;
SELECT fails('SELECT shard_fdw.create_shards(''refused'', 1, ''moved_template'')', '42501',
  'permission denied for schema closed',
  title => 'an owner that may not create tables in the schema');

-- taken names

CREATE TABLE taken_2 (id int);
SELECT fails('CREATE FOREIGN TABLE taken (id int) SERVER shards
     OPTIONS (shards ''4'')', '42P07', 'relation "taken_2" already exists',
  'It has the name of the next shard of foreign table "taken".',
  'Rename it, or make it a shard with ALTER TABLE ... INHERIT.', title => 'a name that is taken');
SELECT results_eq($$ SELECT names_like('taken') $$, $$ VALUES ('taken_2') $$,
  'a name that is taken leaves nothing behind');
CREATE FOREIGN TABLE taken (id int) SERVER shards OPTIONS (shards '1');
SELECT fails($$ SELECT shard_fdw.create_shards('taken', 4) $$, '42P07',
  title => 'the same with create_shards()');
SELECT is(shard_names('taken'), ARRAY['taken_0'],
  'the same with create_shards(), which adds none then');
ALTER TABLE taken_2 INHERIT taken;
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('taken', 2) $$,
  $$ VALUES ('taken_3'), ('taken_4') $$,
  'attached, the table counts as a shard');
CREATE SEQUENCE taken_seq_1;
SELECT fails($$ CREATE FOREIGN TABLE taken_seq (id int) SERVER shards
     OPTIONS (shards '2') $$, '42P07', title => 'taken by a sequence');
CREATE TYPE taken_type_1 AS ENUM ('a');
SELECT fails($$ CREATE FOREIGN TABLE taken_type (id int) SERVER shards
     OPTIONS (shards '2') $$, '42710', title => 'taken by a type');
SELECT results_eq($$ SELECT names_like('taken_seq') UNION ALL
                     SELECT names_like('taken_type') $$,
  $$ VALUES ('taken_seq_1'), ('taken_type_1') $$, 'taken by a type: nothing is left behind');
SELECT fails($$ CREATE FOREIGN TABLE taken (id int) SERVER shards
     OPTIONS (shards '2') $$, '42P07', title => 'the logical table exists');

--
-- Templates
--

CREATE TABLE ref (id int PRIMARY KEY);
CREATE TABLE template (
  extra int NOT NULL DEFAULT 9,
  t text COLLATE "C" CONSTRAINT t_short CHECK (length(t) < 10),
  id int PRIMARY KEY,
  plus int GENERATED ALWAYS AS (id + 1) STORED,
  n serial,
  ref_id int CONSTRAINT must_exist REFERENCES ref
) WITH (fillfactor = 70);
CREATE INDEX ON template (lower(t)) WHERE extra > 1;
CREATE TRIGGER noop BEFORE INSERT ON template FOR EACH ROW
  EXECUTE FUNCTION noop('%s');
CREATE FOREIGN TABLE made (id int, t text COLLATE "C") SERVER shards
OPTIONS (shards '2', template 'template', route 'round_robin');
SELECT is(shard_names('made'), ARRAY['made_0', 'made_1'],
  'shards of a template');
SELECT is((SELECT ftoptions::text FROM pg_foreign_table
            WHERE ftrelid = 'made'::regclass), '{route=round_robin}',
  'option "template" is used up');
SELECT bag_eq(format($$ SELECT structure(%L) $$, shard),
  $$ SELECT structure('template') $$, format('%s is made like it', shard))
  FROM unnest(ARRAY['made_0', 'made_1']) shard;
SELECT is((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = 'made_0'::regclass AND attnum > 0),
  ARRAY['id', 't', 'extra', 'plus', 'n', 'ref_id'],
  'columns of the logical table come first');
INSERT INTO made VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, NULL);
SELECT results_eq('SELECT id, t COLLATE "default" FROM made ORDER BY id',
  $$ VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, NULL) $$,
  'rows go to the right columns');
SELECT bag_eq('SELECT id, t, extra, plus, ref_id FROM made_0
               UNION ALL SELECT id, t, extra, plus, ref_id FROM made_1',
  'SELECT id, t, 9 AS extra, id + 1 AS plus, NULL::int AS ref_id FROM made',
  'the template''s own columns get their defaults');
SELECT fails($$ INSERT INTO made VALUES (5, repeat('x', 10)) $$, '23514',
  title => 'the template''s CHECK constraint is enforced');
SELECT fails($$ INSERT INTO made (t) VALUES ('x') $$, '23502',
  title => 'the template''s NOT NULL constraint is enforced');
SELECT fails($$ INSERT INTO made VALUES (1, 'x'), (1, 'x'), (1, 'x') $$, '23505',
  title => 'the template''s primary key is enforced');
INSERT INTO template (id) VALUES (1);
SELECT is((SELECT count(*) FROM made), 4::bigint,
  'the template is not a shard');
DROP TRIGGER noop ON template;
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'made_0'::regclass
              AND NOT tgisinternal), 1::bigint,
  'the template is not a shard, nor tied to the shards');

CREATE FOREIGN TABLE gone (id int) SERVER shards;
CREATE TEMP TABLE temp_template (id int UNIQUE) WITH (fillfactor = 50);
CREATE VIEW view_template AS SELECT 1 AS id, 'x'::text AS t;
CREATE TYPE type_template AS (id int, t text);
CREATE TABLE part_template (id int PRIMARY KEY) PARTITION BY HASH (id);
SELECT shard_fdw.create_shards('gone', 1, 'temp_template');
SELECT shard_fdw.create_shards('gone', 1, 'view_template');
SELECT shard_fdw.create_shards('gone', 1, 'type_template');
SELECT shard_fdw.create_shards('gone', 1, 'part_template');
SELECT results_eq($$ SELECT c.oid::regclass::text, relpersistence::text,
                            reloptions::text COLLATE "default",
                            pg_get_indexdef(indexrelid)
                       FROM pg_class c LEFT JOIN pg_index ON indrelid = c.oid
                      WHERE relname ~ '^gone_\d$' ORDER BY 1 $$,
  $$ VALUES ('gone_0', 'p', '{fillfactor=50}',
             'CREATE UNIQUE INDEX gone_0_id_key ON public.gone_0 '
             || 'USING btree (id)'),
            ('gone_1', 'p', NULL, NULL), ('gone_2', 'p', NULL, NULL),
            ('gone_3', 'p', NULL,
             'CREATE UNIQUE INDEX gone_3_pkey ON public.gone_3 '
             || 'USING btree (id)') $$,
  'a temporary table, a view, a type, a partitioned table as the template');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER shards
     OPTIONS (shards ''2'', template ''no_such'')', '42P01', 'relation "no_such" does not exist',
  title => 'a template that does not exist');
SELECT fails($$ CREATE FOREIGN TABLE bad (id int) SERVER shards
     OPTIONS (shards '2', template 'no_such.template') $$, '3F000',
  title => 'a template that does not exist, nor its schema');
SELECT fails($$ CREATE FOREIGN TABLE bad (id int) SERVER shards
     OPTIONS (shards '2', template 'template_pkey') $$, '42809',
  title => 'an index as the template');
SELECT fails($$ CREATE FOREIGN TABLE bad (id text) SERVER shards
     OPTIONS (shards '2', template 'template') $$, '42804',
  title => 'a template with another type for a column');
SELECT is_empty($$ SELECT names_like('bad') $$,
  'a template with another type for a column, all leave nothing behind');
SELECT fails($$ SELECT shard_fdw.create_shards('gone', 1, 4294967295::oid) $$, '42P01',
  title => 'create_shards() with the OID of no table as the template');

-- generated, identity and serial columns of the logical table

CREATE FOREIGN TABLE computed (
  id int GENERATED ALWAYS AS IDENTITY, s serial, a int,
  twice int GENERATED ALWAYS AS (a * 2) STORED
) SERVER shards OPTIONS (shards '1', route 'round_robin');
ALTER TABLE computed_0 ADD PRIMARY KEY (id);
CREATE TABLE computed_template (
  a int CHECK (a < 100), id int, twice int, s int, b int DEFAULT 1);
SELECT shard_fdw.create_shards('computed', 1);
SELECT shard_fdw.create_shards('computed', 1, 'computed_template');
INSERT INTO computed (a) SELECT g FROM generate_series(1, 30) g;
SELECT results_eq('SELECT id, s, a, twice FROM computed ORDER BY id',
  'SELECT g, g, g, g * 2 FROM generate_series(1, 30) g',
  'shards of a table with generated, identity and serial columns');
SELECT is((SELECT count(DISTINCT tableoid) FROM computed), 3::bigint,
  'shards of a table with generated, identity and serial columns, all of them take rows');
SELECT bag_eq($$ SELECT structure('computed_1') $$,
  $$ SELECT structure('computed_0') $$,
  'shards of a table with generated, identity and serial columns: copied from one another');
UPDATE computed SET a = 50;
SELECT is((SELECT count(*) FROM computed WHERE twice = 100), 30::bigint,
  'shards of a table with generated, identity and serial columns, and compute the column on UPDATE');
SELECT fails('SELECT shard_fdw.create_shards(''computed'', 1, ''template'')', '0A000',
  'cannot copy generated column "plus" of "template" '
                      || 'into shards of "computed"',
  hint => 'Create the table by hand and attach it '
             || 'with ALTER TABLE ... INHERIT.', title => 'generated columns on both sides');

--
-- create_shards(): an open shard is the model
--

CREATE FOREIGN TABLE copied (id int NOT NULL, t text DEFAULT 'd', n int,
  CONSTRAINT n_min CHECK (n > 0))
SERVER shards OPTIONS (route 'round_robin');
CREATE UNLOGGED TABLE model (
  dropped int,
  n int NOT NULL,
  extra int DEFAULT 5,
  id int NOT NULL,
  t varchar(20) DEFAULT 'own',
  CONSTRAINT n_min CHECK (n > 0),
  CONSTRAINT n_max CHECK (n < 1000),
  CONSTRAINT no_overlap EXCLUDE USING btree (extra WITH =) WHERE (extra > 5)
    DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT model_pkey PRIMARY KEY (id) INCLUDE (n) WITH (fillfactor = 80),
  CONSTRAINT named_fk FOREIGN KEY (n) REFERENCES ref ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  FOREIGN KEY (extra) REFERENCES ref NOT VALID
) WITH (fillfactor = 66, autovacuum_enabled = false);
ALTER TABLE model DROP COLUMN dropped;
ALTER TABLE model ALTER t TYPE text;
CREATE UNIQUE INDEX model_n ON model (n, id);
CREATE INDEX ON model (lower(t) DESC) WHERE n > 5;
CREATE INDEX ON model USING hash (t);
CREATE STATISTICS model_stat ON n, extra FROM model;
COMMENT ON COLUMN model.n IS 'a number';
CREATE TRIGGER a BEFORE INSERT ON model FOR EACH ROW
  WHEN (NEW.id > 3) EXECUTE FUNCTION noop('%s', '"q"', 'it''s');
CREATE TRIGGER b AFTER UPDATE OF id, t ON model FOR EACH STATEMENT
  EXECUTE FUNCTION noop();
CREATE TRIGGER c AFTER DELETE ON model FOR EACH ROW EXECUTE FUNCTION noop();
CREATE TRIGGER d AFTER INSERT ON model REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION noop();
CREATE CONSTRAINT TRIGGER e AFTER INSERT ON model DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION noop();
CREATE TRIGGER "F %s" AFTER INSERT ON model FOR EACH ROW
  EXECUTE FUNCTION noop();
ALTER TABLE model DISABLE TRIGGER a;
ALTER TABLE model ENABLE ALWAYS TRIGGER b;
ALTER TABLE model ENABLE REPLICA TRIGGER "F %s";
ALTER TABLE model INHERIT copied;
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('copied', 2) $$,
  $$ VALUES ('copied_0'), ('copied_1') $$,
  'create_shards() returns the shards');
-- NOT VALID is of no use on an empty table, and need not be kept.
SELECT bag_eq($$ SELECT replace(structure('copied_1'), ' NOT VALID', '') $$,
  $$ SELECT replace(structure('model'), ' NOT VALID', '') $$,
  'a shard is made like the last open shard');
SELECT results_eq($$ SELECT conname::text COLLATE "default" FROM pg_constraint
                      WHERE conrelid = 'copied_1'::regclass
                        AND contype IN ('c', 'f', 'p') ORDER BY 1 $$,
  $$ VALUES ('copied_1_extra_fkey'), ('copied_1_pkey'), ('n_max'), ('n_min'),
            ('named_fk') $$,
  'names that follow from the table''s are new, others are kept');
INSERT INTO ref SELECT g FROM generate_series(1, 100) g;
INSERT INTO copied SELECT g, 't' || g, g FROM generate_series(1, 60) g;
SELECT results_eq('SELECT tableoid::regclass::text, count(*) FROM copied
                    GROUP BY 1 ORDER BY 1',
  $$ VALUES ('copied_0', 20::bigint), ('copied_1', 20), ('model', 20) $$,
  'all take rows');
SELECT results_eq('SELECT id, t, n FROM copied ORDER BY id',
  $$ SELECT g, 't' || g, g FROM generate_series(1, 60) g $$,
  'all take rows, in the right way');
SELECT is((SELECT count(*) FROM copied_1 WHERE extra = 5), 20::bigint,
  'all take rows, with the defaults of the model');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT fails('INSERT INTO copied SELECT 101, NULL, 101
                      FROM generate_series(1, 3)', '23503',
  title => 'a copied foreign key is enforced');

CREATE FOREIGN TABLE toasted (t text) SERVER shards OPTIONS (shards '1');
ALTER TABLE toasted_0 SET (toast.autovacuum_enabled = false,
                           toast_tuple_target = 256);
SELECT shard_fdw.create_shards('toasted', 1);
SELECT results_eq($$ SELECT c.reloptions, t.reloptions
                       FROM pg_class c
                       JOIN pg_class t ON t.oid = c.reltoastrelid
                      WHERE c.oid = 'toasted_1'::regclass $$,
  $$ VALUES ('{toast_tuple_target=256}'::text[] COLLATE "C",
             '{autovacuum_enabled=false}'::text[] COLLATE "C") $$,
  'storage parameters are copied, those of the TOAST table too');

CREATE FOREIGN TABLE stored (a text, b text) SERVER shards OPTIONS (shards '1');
ALTER TABLE stored_0 ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE MAIN;
SELECT lives_ok($$ SELECT shard_fdw.create_shards('stored', 1) $$,
  'columns may be stored in another way than the logical table says');
SELECT is((SELECT string_agg(attstorage::text, '' ORDER BY attnum)
             FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
            WHERE relname = 'stored_1' AND attnum > 0), 'em',
  'columns may be stored in another way than the logical table says, which is copied');

CREATE FOREIGN TABLE identities (id int NOT NULL) SERVER shards
OPTIONS (shards '1');
CREATE UNIQUE INDEX identities_index ON identities_0 (id);
ALTER TABLE identities_0 REPLICA IDENTITY FULL;
SELECT create_shards AS new FROM shard_fdw.create_shards('identities', 1) \gset
SELECT is((SELECT relreplident FROM pg_class WHERE oid = :'new'::regclass),
  'f', 'REPLICA IDENTITY FULL is copied');
ALTER TABLE :new REPLICA IDENTITY NOTHING;
SELECT create_shards AS new FROM shard_fdw.create_shards('identities', 1) \gset
SELECT is((SELECT relreplident FROM pg_class WHERE oid = :'new'::regclass),
  'n', 'REPLICA IDENTITY NOTHING is copied');
ALTER TABLE :new REPLICA IDENTITY USING INDEX identities_2_id_idx;
SELECT create_shards AS new FROM shard_fdw.create_shards('identities', 1) \gset
SELECT results_eq(
  format($$ SELECT relreplident::text, indexrelid::regclass::text
              FROM pg_class c
              LEFT JOIN pg_index ON indrelid = c.oid AND indisreplident
             WHERE c.oid = %L::regclass $$, :'new'),
  $$ VALUES ('i', 'identities_3_id_idx') $$,
  'REPLICA IDENTITY USING INDEX is copied');

CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_template (id int) USING other_heap;
CREATE FOREIGN TABLE other (id int) SERVER shards
OPTIONS (shards '1', template 'other_template', route 'round_robin');
SELECT shard_fdw.create_shards('other', 1);
INSERT INTO other SELECT g FROM generate_series(1, 5) g;
SELECT results_eq($$ SELECT amname::text COLLATE "default", count(*)
                       FROM pg_class c JOIN pg_am am ON am.oid = relam
                      WHERE relname IN ('other_0', 'other_1') GROUP BY 1 $$,
  $$ VALUES ('other_heap', 2::bigint) $$, 'the table access method is copied');
SELECT results_eq('SELECT count(*), sum(id) FROM other',
  'VALUES (5::bigint, 15::bigint)', 'the table access method is copied, and used');

-- constraints of a sealed shard that new ones must not have

CREATE FUNCTION checks_of(shard regclass) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(conname, ' ' ORDER BY conname COLLATE "C") FROM pg_constraint
   WHERE conrelid = shard AND contype = 'c'
$$;
CREATE TABLE aging_template (id int PRIMARY KEY, at timestamptz, day date, k text CONSTRAINT filled
  CHECK (k <> ''));
CREATE FOREIGN TABLE aging (id int, at timestamptz, day date, k text) SERVER shards
OPTIONS (shards '2', template 'aging_template', route 'round_robin');
ALTER FOREIGN TABLE aging ADD CONSTRAINT inherited CHECK (at < '2100-01-01');
DO $$ BEGIN
  FOR i IN 0 .. 1 LOOP
    -- about the rows of a month, and of no use for others
    EXECUTE format('ALTER TABLE aging_%s ADD CONSTRAINT month CHECK (at >= ''2026-01-01'' AND at < ''2026-02-01''),
      ADD CONSTRAINT month_or_null CHECK (at IS NULL OR ''2026-02-01'' > at),
      ADD CONSTRAINT one_day CHECK (day = ''2026-01-01''),
      ADD CONSTRAINT by_function CHECK ((at AT TIME ZONE ''UTC'') BETWEEN timestamp ''2026-01-01'' AND timestamp ''2026-02-01'')', i);
    -- about all rows
    EXECUTE format('ALTER TABLE aging_%s ADD CONSTRAINT not_before CHECK (at >= ''2020-01-01''),
      ADD CONSTRAINT not_yet CHECK (at < now()), ADD CONSTRAINT positive CHECK (id BETWEEN 1 AND 1000),
      ADD CONSTRAINT either CHECK (day < ''2026-02-01'' OR k = ''x'')', i);
  END LOOP;
END $$;
ALTER TABLE aging_0 ADD CONSTRAINT ids CHECK (id < 100);
ALTER TABLE aging_1 ADD CONSTRAINT ids CHECK (id >= 100);
SELECT is((SELECT checks_of(create_shards) FROM shard_fdw.create_shards('aging', 1, 'aging_1')),
  'by_function either filled ids inherited month month_or_null not_before not_yet one_day positive',
  'a table that is named is copied as it is');
DROP TABLE aging_2;
SELECT is((SELECT checks_of(create_shards) FROM shard_fdw.create_shards('aging', 1)),
  'by_function either filled ids inherited month month_or_null not_before not_yet one_day positive',
  'an open shard is copied as it is');
DROP TABLE aging_2;
SELECT shard_fdw.seal('aging_0');
SELECT shard_fdw.seal('aging_1');
SET LOCAL client_min_messages = error;
SELECT results_eq($$ SELECT checks_of(create_shards) FROM shard_fdw.create_shards('aging', 2) $$,
  $$ SELECT 'either filled inherited not_before not_yet positive' FROM generate_series(1, 2) $$,
  'of a sealed shard remains what does not end and what others have, too');
SET LOCAL client_min_messages = warning;
INSERT INTO aging VALUES (150, '2026-03-01', '2026-03-01', 'x'), (50, '2026-03-01', '2026-03-01',
  'x');
SELECT is((SELECT count(*) FROM aging), 2::bigint,
  'a new shard after sealed ones takes the rows of a new month');
CREATE FOREIGN TABLE aging_slots (id bigint OPTIONS (sequence 'always'), k int) SERVER shards
  OPTIONS (shards '2');
SELECT shard_fdw.seal(shard) FROM shard_fdw.list_shards('aging_slots');
SELECT is((SELECT checks_of(create_shards) FROM shard_fdw.create_shards('aging_slots', 1)),
  'shard_slot', 'slots are not meant by that');

-- which shard is the model

CREATE FOREIGN TABLE models (id int, t text) SERVER shards OPTIONS (shards '3');
CREATE INDEX ON models_0 (id);
CREATE INDEX ON models_1 (t);
CREATE INDEX ON models_2 (id, t);
SELECT shard_fdw.seal('models_2');
CREATE FOREIGN TABLE models_foreign (id int, t text) SERVER shards
OPTIONS (shards '1');
ALTER FOREIGN TABLE models_foreign INHERIT models;
SELECT create_shards AS new FROM shard_fdw.create_shards('models', 1) \gset
SELECT bag_eq(format('SELECT structure(%L)', :'new'),
  $$ SELECT structure('models_1') $$,
  'the last open table is the model, not a sealed one or a foreign table');
SELECT create_shards AS new
  FROM shard_fdw.create_shards('models', 1, 'models_0') \gset
SELECT bag_eq(format('SELECT structure(%L)', :'new'),
  $$ SELECT structure('models_0') $$, 'a template goes before a model');
ALTER FOREIGN TABLE models_foreign NO INHERIT models;
DO $$ BEGIN
  PERFORM shard_fdw.seal(shard) FROM shard_fdw.list_shards('models')
    WHERE state = 'open';
END $$;
SELECT create_shards AS new FROM shard_fdw.create_shards('models', 1) \gset
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.list_shards('models')
                      WHERE state = 'open' $$,
  format('VALUES (%L)', :'new'), 'all shards sealed: the new one is open');
INSERT INTO models VALUES (1, 'x');
SELECT is(shard_fdw.last_shard(), :'new'::regclass,
  'all shards sealed: the new one is open, and takes the rows');

-- arguments

CREATE FOREIGN TABLE few (id int) SERVER shards
OPTIONS (shards '2', max_shards '4');
CREATE TABLE plain (id int);
CREATE VIEW few_view AS SELECT * FROM few;
SELECT fails('SELECT shard_fdw.create_shards(''few'', 3)', '54000',
  'foreign table "few" cannot have more than 4 shards', 'It has 2 shards now.',
  'Raise option "max_shards" of the foreign table.', title => 'more than max_shards');
SELECT fails($$ SELECT shard_fdw.create_shards('few', 2147483647) $$, '54000',
  title => 'far more than max_shards');
SELECT is(shard_names('few'), ARRAY['few_0', 'few_1'], 'far more than max_shards adds none');
SELECT shard_fdw.create_shards('few', 2);
SELECT is(shard_names('few'), ARRAY['few_0', 'few_1', 'few_2', 'few_3'],
  'just max_shards');
ALTER FOREIGN TABLE few OPTIONS (SET max_shards '5');
SELECT shard_fdw.create_shards('few', 1);
SELECT is(array_length(shard_names('few'), 1), 5, 'max_shards has been raised');
ALTER FOREIGN TABLE few OPTIONS (SET max_shards '1');
SELECT fails($$ SELECT shard_fdw.create_shards('few', 1) $$, '54000',
  title => 'max_shards is below what there is');
INSERT INTO few VALUES (1);
SELECT is((SELECT count(*) FROM few), 1::bigint,
  'max_shards is below what there is, which does not stop inserts');
SELECT fails('SELECT shard_fdw.create_shards(''few'', 0)', '22023',
  'number of shards must be greater than zero', hint => '', title => 'no shards');
SELECT fails($$ SELECT shard_fdw.create_shards('few', -1) $$, '22023', title => 'less than none');
SELECT results_eq($$ SELECT arguments, state, message
    FROM unnest(ARRAY['NULL, 1', '''log'', NULL',
                      'NULL, NULL, NULL']) arguments,
         error_of(format('SELECT shard_fdw.create_shards(%s)', arguments)) $$,
  $$ VALUES ('NULL, 1', '22004', 'logical table must not be null'),
            ('''log'', NULL', '22004', 'number of shards must not be null'),
            ('NULL, NULL, NULL', '22004', 'logical table must not be null') $$,
  'NULL arguments');
SELECT results_eq($$ SELECT name, state, message
    FROM unnest(ARRAY['plain', 'few_view', 'few_0', 'ref_pkey']) name,
         error_of(format('SELECT shard_fdw.create_shards(%L, 1)', name)) $$,
  $$ SELECT name, '42809',
            format('"%s" is not a foreign table of shard_fdw', name)
       FROM unnest(ARRAY['plain', 'few_view', 'few_0', 'ref_pkey']) name $$,
  'relations that are no logical table');
SELECT fails('SELECT shard_fdw.create_shards(4294967295::oid, 1)', '42P01',
  title => 'no relation at all');
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nothing FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE not_ours (id int) SERVER nothing OPTIONS (shards '2');
SELECT fails($$ SELECT shard_fdw.create_shards('not_ours', 1) $$, '42809',
  title => 'a foreign table of another wrapper');
SELECT results_eq($$ SELECT ftoptions::text COLLATE "default", relhassubclass
                       FROM pg_foreign_table JOIN pg_class c ON c.oid = ftrelid
                      WHERE ftrelid = 'not_ours'::regclass $$,
  $$ VALUES ('{shards=2}', false) $$,
  'a foreign table of another wrapper keeps its options to itself');

CREATE TABLE partitioned (id int) PARTITION BY LIST (id);
SELECT fails($$ CREATE FOREIGN TABLE partition_1
                      PARTITION OF partitioned FOR VALUES IN (1)
                      SERVER shards OPTIONS (shards '2') $$, '42809',
  title => 'a partition can have no shards');
SELECT is_empty($$ SELECT names_like('partition_1') $$,
  'a partition can have no shards, and is not created');

-- ALTER ... OPTIONS is not the way to more shards

SELECT results_eq($$ SELECT DISTINCT state, message, hint
    FROM unnest(ARRAY['FOREIGN TABLE', 'TABLE']) kind,
         unnest(ARRAY['ADD shards ''2''',
                      'ADD shards ''2'', ADD template ''ref''']) options,
         error_of(format('ALTER %s log OPTIONS (%s)', kind, options)) $$,
  $$ VALUES ('HV00D', 'option "shards" is only for CREATE FOREIGN TABLE',
             'Add shards to foreign table "log" '
             || 'with SELECT shard_fdw.create_shards().') $$,
  'option "shards" is only for CREATE FOREIGN TABLE');
SELECT results_eq($$ SELECT (SELECT ftoptions::text COLLATE "default"
                               FROM pg_foreign_table
                              WHERE ftrelid = 'log'::regclass),
                            array_length(shard_names('log'), 1) $$,
  $$ VALUES ('{route=round_robin,max_shards=20}', 12) $$,
  'option "shards" is only for CREATE FOREIGN TABLE: nothing has changed');

--
-- No shards
--

CREATE FOREIGN TABLE bare (id int) SERVER shards;
CREATE TABLE bare_queries (query text);
INSERT INTO bare_queries
VALUES ('VALUES (1)'), ('VALUES (1), (2)'), ('SELECT 1'), ('DEFAULT VALUES');
SELECT results_eq($$ SELECT query, state, message, hint FROM bare_queries,
                            error_of('INSERT INTO bare ' || query) $$,
  $$ SELECT query, '55000', 'foreign table "bare" has no shards',
            'Create shards with SELECT shard_fdw.create_shards(), '
            || 'or attach an existing table with ALTER TABLE ... INHERIT.'
       FROM bare_queries $$,
  'a table without shards takes no rows, and the hint says how to get some');
INSERT INTO bare SELECT 1 WHERE false;
UPDATE bare SET id = 2;
DELETE FROM bare;
TRUNCATE bare;
SELECT is_empty('SELECT * FROM bare',
  'a table without shards takes no rows, and the hint says how to get some, but is a table for '
  'all else');
CREATE TABLE bare_old (x int, id int);
INSERT INTO bare_old VALUES (1, 1);
ALTER TABLE bare_old INHERIT bare;
INSERT INTO bare VALUES (2);
SELECT results_eq('SELECT * FROM bare_old ORDER BY id',
  'VALUES (1, 1), (NULL, 2)', 'the second way of the hint works');
DROP TABLE bare_old;
SELECT fails('INSERT INTO bare VALUES (1)', '55000', title => 'the last shard is dropped');
SET LOCAL client_min_messages = error;
SELECT shard_fdw.create_shards('bare', 1);
SET LOCAL client_min_messages = warning;
INSERT INTO bare VALUES (3);
SELECT results_eq('SELECT id FROM bare', 'VALUES (3)', 'the first way works');

--
-- Dropping
--

CREATE FOREIGN TABLE drops (id int) SERVER shards
OPTIONS (shards '3', route 'round_robin');
INSERT INTO drops SELECT g FROM generate_series(1, 6) g;
SELECT fails('DROP FOREIGN TABLE drops', '2BP01',
  title => 'DROP FOREIGN TABLE refuses while there are shards');
DROP TABLE drops_1;
INSERT INTO drops SELECT g FROM generate_series(11, 14) g;
SELECT results_eq('SELECT tableoid::regclass::text, count(*) FROM drops
                    GROUP BY 1 ORDER BY 1',
  $$ VALUES ('drops_0', 4::bigint), ('drops_2', 4) $$,
  'inserts go on in the others after DROP TABLE of a shard');
SELECT results_eq($$ SELECT create_shards::text
                       FROM shard_fdw.create_shards('drops', 1) $$,
  $$ VALUES ('drops_3') $$, 'numbers are not used again');
INSERT INTO drops SELECT g FROM generate_series(21, 23) g;
SELECT is((SELECT count(DISTINCT tableoid) FROM drops WHERE id > 20), 3::bigint,
  'the new shard gets its share');
SELECT fails('DROP SERVER shards', '2BP01', title => 'DROP SERVER refuses while tables use it');
SELECT fails('DROP EXTENSION shard_fdw', '2BP01',
  title => 'DROP EXTENSION refuses while tables use it');
SELECT fails('DROP FOREIGN DATA WRAPPER shard_fdw', '2BP01',
  title => 'the wrapper belongs to the extension');
SELECT fails('DROP EVENT TRIGGER shard_fdw_on_ddl_end', '2BP01',
  title => 'the wrapper belongs to the extension, as does the event trigger');
SELECT is((SELECT count(*) FROM drops), 11::bigint, 'the rows are still there');
SAVEPOINT dropping;
DROP FOREIGN TABLE drops CASCADE;
SELECT is_empty($$ SELECT names_like('drops') $$, 'CASCADE drops the shards');
CREATE FOREIGN TABLE drops (id int) SERVER shards OPTIONS (shards '1');
INSERT INTO drops VALUES (1);
SELECT results_eq('SELECT id FROM drops', 'VALUES (1)',
  'a new table of the same name');
ROLLBACK TO dropping;
INSERT INTO drops SELECT g FROM generate_series(31, 33) g;
SELECT results_eq('SELECT count(*), count(DISTINCT tableoid) FROM drops',
  'VALUES (14::bigint, 3::bigint)', 'DROP is rolled back');
DROP TABLE drops_0, drops_2, drops_3;
DROP FOREIGN TABLE drops;
SELECT is_empty($$ SELECT names_like('drops') $$,
  'DROP FOREIGN TABLE once there are no shards');
SAVEPOINT creating;
CREATE FOREIGN TABLE passed (id int) SERVER shards OPTIONS (shards '2');
INSERT INTO passed VALUES (1);
ROLLBACK TO creating;
SELECT is_empty($$ SELECT names_like('passed') $$,
  'nothing is left of a table whose creation is rolled back');
SAVEPOINT dropping;
SET LOCAL shard_fdw.allow_drop_with_rows = on;
DROP SERVER shards CASCADE;
SELECT is_empty($$ SELECT names_like('copied') $$,
  'DROP SERVER CASCADE drops logical tables and shards');
ROLLBACK TO dropping;
SET LOCAL shard_fdw.allow_drop_with_rows = on;
DROP EXTENSION shard_fdw CASCADE;
SELECT is_empty($$ SELECT names_like('copied') UNION ALL
                   SELECT evtname::text FROM pg_event_trigger
                    WHERE evtname LIKE 'shard_fdw%' $$,
  'DROP EXTENSION CASCADE drops all');
ROLLBACK TO dropping;
INSERT INTO copied VALUES (99, 'back', 99);
SELECT is((SELECT t FROM copied WHERE id = 99), 'back',
  'DROP EXTENSION CASCADE drops all, and comes back');

SELECT * FROM finish();
ROLLBACK;
