-- Columns of a logical table that are renamed, dropped, or given another type.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA columns_test;
GRANT ALL ON SCHEMA columns_test TO PUBLIC;
SET LOCAL search_path = columns_test, public;

\ir helpers.psql
CREATE FUNCTION key_of(tbl regclass) RETURNS text LANGUAGE sql AS $$
  SELECT option_value FROM pg_foreign_table, pg_options_to_table(ftoptions) WHERE ftrelid = tbl
    AND option_name = 'key'
$$;

--
-- Renaming and dropping a column of the key
--

CREATE TABLE two_model (a int, b text, c int, PRIMARY KEY (a, b));
CREATE FOREIGN TABLE two (a int, b text, c int) SERVER shards OPTIONS (shards '4', route 'hash',
  key 'b, a', template 'two_model');
INSERT INTO two SELECT g, 'x' || g % 7, g FROM generate_series(1, 200) g;
CREATE TEMP TABLE before AS SELECT *, tableoid AS shard FROM two;
ALTER FOREIGN TABLE two RENAME a TO "Odd, name";
SELECT is(key_of('two'), 'b, "Odd, name"', 'the key has the new name');
ALTER TABLE two RENAME b TO "B""";
ALTER TABLE two RENAME c TO a;
SELECT is(key_of('two'), '"B""", "Odd, name"',
  'the key has the new name, of another column, too, and of none that is not in it');
INSERT INTO two SELECT g, 'x' || g % 7, g FROM generate_series(201, 400) g;
SELECT is((SELECT count(*) FROM two t WHERE NOT EXISTS (SELECT FROM before b
      WHERE b.a = t."Odd, name" AND b.b = t."B""" AND b.shard = t.tableoid) AND t.a <= 200),
  0::bigint, 'rows are where they were');
SELECT is((SELECT sum(n) FROM generate_series(1, 400) g, LATERAL (SELECT count(*) AS n FROM two
      WHERE "Odd, name" = g AND "B""" = 'x' || g % 7) q), 400::numeric,
  'rows are where they were, and are found, old and new ones');
SELECT fails($$ INSERT INTO two VALUES (7, 'x0', 0) $$, '23505',
  title => 'the key is as unique as before');
SELECT fails('ALTER FOREIGN TABLE two DROP COLUMN "Odd, name"', '42P16',
  'cannot drop column "Odd, name" because it is part of the key of foreign table "two"', '', '',
  title => 'a column of the key is not dropped');
SELECT fails(command, '42P16', title => 'a column of the key is not dropped, nor by: ' || command)
  FROM (VALUES
  ('ALTER TABLE two DROP "B""", ADD d int'),
  ('ALTER TABLE two DROP a, DROP "B""" CASCADE'),
  ('ALTER TABLE two DROP "Odd, name" CASCADE, ADD "Odd, name" int')) t(command);
SELECT fails('ALTER TABLE two DROP nobody', '42703', title => 'one that is not there');
SELECT lives_ok('ALTER TABLE two DROP IF EXISTS nobody',
  'a column that is not there, with IF EXISTS');
SELECT lives_ok('ALTER TABLE two DROP a', 'one that is not in the key is dropped');
SELECT is((SELECT count(*) FROM two), 400::bigint,
  'a column that is not in the key is dropped, and the rows stay');
SAVEPOINT s;
ALTER TABLE two RENAME "Odd, name" TO later;
ROLLBACK TO s;
SELECT is(key_of('two'), '"B""", "Odd, name"', 'a name that is rolled back');

-- Through a table that the logical one inherits from.
CREATE TABLE above (k int, v int);
CREATE FOREIGN TABLE below (own int) INHERITS (above) SERVER shards
  OPTIONS (shards '2', route 'hash', key 'k,own');
ALTER TABLE above RENAME k TO kk;
SELECT is(key_of('below'), 'kk, own', 'renamed above');
INSERT INTO below SELECT g, g, g FROM generate_series(1, 20) g;
SELECT is((SELECT count(*) FROM below WHERE kk = 3 AND own = 3), 1::bigint,
  'a column renamed above: rows are found');
SELECT fails('ALTER TABLE above DROP kk', NULL,
  'cannot drop column "kk" because it is part of the key of foreign table "below"',
  title => 'dropped above');
SELECT lives_ok('ALTER TABLE above DROP v', 'a column that is not in the key, dropped above');
ALTER TABLE ONLY above DROP kk;
SELECT is((SELECT count(*) FROM below WHERE kk = 3), 1::bigint,
  'a column that is above only, dropped there');

-- A column that is in two options.
CREATE FOREIGN TABLE timed (at timestamptz NOT NULL, v int) SERVER shards
  OPTIONS (shards '2', route 'hash', key 'v, at', time_column 'at');
ALTER TABLE timed RENAME at TO "the time";
SELECT is((SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'timed'::regclass),
  '{route=hash,"key=v, \"the time\"","time_column=\"the time\""}', 'the key and the time column');
INSERT INTO timed VALUES ('2026-01-01', 1), ('2026-01-02', 2);
SELECT is((SELECT count(*) FROM timed WHERE v = 2 AND "the time" = '2026-01-02'), 1::bigint,
  'the key and the time column: rows are found');
SELECT fails('ALTER TABLE timed DROP "the time"', '42P16',
  title => 'the key and the time column: it is not dropped');
SELECT lives_ok(
  'ALTER FOREIGN TABLE timed DROP "the time", OPTIONS (SET key ''v'', DROP time_column)',
  'the key and the time column, unless the options change with it');
-- A key that is not in use.
CREATE FOREIGN TABLE idle (k int, v int) SERVER shards OPTIONS (shards '2', key 'k');
SELECT lives_ok('ALTER TABLE idle DROP k', 'a key without route "hash" does not hold a column');
-- Not ours.
CREATE TABLE plain (k int, v int);
ALTER TABLE plain RENAME k TO kk;
SELECT lives_ok('ALTER TABLE plain DROP kk', 'other tables');

--
-- alter_column_type()
--

CREATE FUNCTION alter_type(tbl regclass, col name, typ text, expr text) RETURNS void
  LANGUAGE plpgsql AS $$ BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = tbl) = 'f' THEN
    PERFORM shard_fdw.alter_column_type(tbl, col, typ, expr);
  ELSE
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s %s', tbl, col, typ, 'USING ' || expr);
  END IF;
END $$;
-- All that the catalogs say of how a shard's columns and constraints are its
-- own, names and types included.
CREATE FUNCTION ownership(tbl regclass) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attcollation::regcollation,
    attislocal, attinhcount, attnotnull, atthasdef, attstorage)
    FROM pg_attribute WHERE attrelid = tbl AND attnum > 0 AND NOT attisdropped
   UNION ALL
  SELECT concat_ws(' ', conname, contype, conislocal, coninhcount, convalidated,
    pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = tbl
   UNION ALL
  SELECT concat_ws(' ', indisvalid, pg_get_indexdef(indexrelid)) FROM pg_index WHERE indrelid = tbl
   ORDER BY 1
$$;

-- Side by side with a plain table, over random rows.
CREATE TABLE kinds (kind int PRIMARY KEY);
INSERT INTO kinds SELECT generate_series(0, 9);
CREATE TABLE items_model (gone int, id bigint PRIMARY KEY, kind int REFERENCES kinds,
  price text DEFAULT '0', seen text, note text,
                          CONSTRAINT own CHECK (length(price) > 0), UNIQUE (price, id));
CREATE INDEX ON items_model (lower(note)) WHERE price IS NOT NULL;
ALTER TABLE items_model DROP gone;
CREATE FOREIGN TABLE items (id bigint, kind int, price text DEFAULT '0', seen text NOT NULL,
  note text,
                            CONSTRAINT ours CHECK (price <> 'none'), CONSTRAINT later
                              CHECK (seen <> '') NOT VALID)
  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'items_model');
CREATE TABLE plain_items (LIKE items INCLUDING ALL);
-- One that has columns of its own, in another order, and one with a child.
DROP TABLE items_1;
CREATE TABLE items_1 (x int DEFAULT 7, note text, price text DEFAULT '0', seen text NOT NULL,
  kind int, id bigint PRIMARY KEY,
  CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(4, 1, id)), CONSTRAINT ours
    CHECK (price <> 'none'), CONSTRAINT later CHECK (seen <> '') NOT VALID);
ALTER TABLE items_1 INHERIT items;
CREATE TABLE items_2_child () INHERITS (items_2);
SELECT setseed(0.5);
INSERT INTO plain_items
SELECT g, CASE WHEN random() < 0.9 THEN random() * 9 END, CASE WHEN random() < 0.9
  THEN round((random() * 1000)::numeric, 2)::text END,
       (date '2020-01-01' + (random() * 1000)::int)::text, 'note ' || g
  FROM generate_series(1, 500) g;
INSERT INTO items SELECT * FROM plain_items;
SELECT shard_fdw.seal('items_3');

ALTER TABLE items ALTER price DROP DEFAULT;
ALTER TABLE plain_items ALTER price DROP DEFAULT;
ALTER TABLE items DROP CONSTRAINT ours;
ALTER TABLE plain_items DROP CONSTRAINT ours;
ALTER TABLE items_1 DROP CONSTRAINT ours;
ALTER TABLE items_0 DROP CONSTRAINT own;
ALTER TABLE items_2 DROP CONSTRAINT own;
ALTER TABLE items_3 DROP CONSTRAINT own;
SELECT alter_type(t, 'price', 'numeric(10,1)',
  'round(nullif(price, '''')::numeric * 2, 1) + coalesce(kind, 0)')
  FROM unnest('{items,plain_items}'::regclass[]) t;
ALTER TABLE items DROP CONSTRAINT later;
ALTER TABLE plain_items DROP CONSTRAINT later;
ALTER TABLE items_1 DROP CONSTRAINT later;
SELECT alter_type(t, 'seen', 'date', 'seen::date -- a comment')
  FROM unnest('{items,plain_items}'::regclass[]) t;
SELECT alter_type(t, 'note', 'int', 'substr(note, 6)::int') FROM unnest('{plain_items}'::regclass[])
  t;
DROP INDEX items_0_lower_idx, items_2_lower_idx, items_3_lower_idx;
SELECT alter_type(t, 'note', 'int', 'substr(note, 6)::int') FROM unnest('{items}'::regclass[]) t;
SELECT bag_eq('SELECT * FROM items', 'SELECT * FROM plain_items',
  'rows are converted as those of a plain table');
SELECT is(format_type(atttypid, atttypmod), 'numeric(10,1)', 'type of the column of '
  || attrelid::regclass)
  FROM pg_attribute WHERE attname = 'price' AND attrelid::regclass::text ~ '^items(_[0-9])?$';
SELECT is((SELECT string_agg(concat_ws(' ', shard, attname, attislocal, attinhcount), ', '
      ORDER BY ordinal, attname) FROM shard_fdw.list_shards('items'), pg_attribute
            WHERE attrelid = shard AND attnum > 0 AND NOT attisdropped
              AND attname IN ('id', 'price', 'x')),
  'items_0 id f 1, items_0 price f 1, items_1 id t 1, items_1 price t 1, items_1 x t 0, items_2 '
  'id f 1, items_2 price f 1, items_3 id f 1, items_3 price f 1',
  'what is inherited only is so still');
SELECT is((SELECT array_agg(state) FROM shard_fdw.list_shards('items')), '{open,open,open,sealed}',
  'a sealed shard is still sealed');
SELECT is((SELECT count(*) FROM items_2_child), 0::bigint,
  'a child of a shard is a child of it still');
SELECT shard_fdw.unseal('items_3');
INSERT INTO items SELECT g, 1, 1, 'today', g FROM generate_series(1001, 1100) g;
SELECT is((SELECT sum(n) FROM generate_series(1, 1100) g, LATERAL (SELECT count(*) AS n FROM items
      WHERE id = g) q), 600::numeric, 'rows are found by their key');
SELECT fails('INSERT INTO items VALUES (1, 1, 1, ''today'', 1)', '23505',
  title => 'indexes keep what they kept');
SELECT is((error_of('INSERT INTO items VALUES (2001, 77, 1, ''today'', 1)')).state,
  CASE WHEN shard_fdw.in_hash(4, 1, 2001::bigint) THEN NULL ELSE '23503' END,
  'indexes keep what they kept, and foreign keys');
SELECT fails('INSERT INTO items VALUES (2001, 1, 1, NULL, 1)', '23502',
  title => 'indexes keep what they kept, and NOT NULL');
ALTER TABLE items DROP seen;
SELECT is_empty($$ SELECT FROM pg_attribute WHERE attname = 'seen' AND attrelid::regclass::text
    ~ '^items_[02]' AND NOT attisdropped $$, 'a column that is dropped goes from the shards');

-- Constraints, defaults and indexes are made anew for the new type.
CREATE TABLE made_model (id int PRIMARY KEY, v int, w int DEFAULT 3, CHECK (v < 1000));
CREATE INDEX ON made_model (v DESC);
CREATE FOREIGN TABLE made (id int, v int, w int DEFAULT 3, CONSTRAINT positive CHECK (v > 0))
  SERVER shards OPTIONS (shards '3', route 'hash', key 'id', template 'made_model');
ALTER FOREIGN TABLE made ADD CONSTRAINT loose CHECK (v <> 13) NOT VALID;
INSERT INTO made SELECT g, g FROM generate_series(1, 100) g WHERE g <> 13;
CREATE TABLE as_made (LIKE made_model INCLUDING ALL);
CREATE FOREIGN TABLE as_if (id int, v bigint, w bigint DEFAULT 3, CONSTRAINT positive CHECK (v > 0))
  SERVER shards OPTIONS (route 'hash', key 'id');
SELECT shard_fdw.alter_column_type('made', 'v', 'bigint', 'v * 2');
SELECT shard_fdw.alter_column_type('made', 'w', 'bigint', 'w + 1');
ALTER TABLE as_made ALTER v TYPE bigint, ALTER w TYPE bigint;
SELECT is((SELECT count(*) FROM shard_fdw.create_shards('as_if', 3, 'as_made')), 3::bigint,
  'a table made with the new types');
ALTER FOREIGN TABLE as_if ADD CONSTRAINT loose CHECK (v <> 13) NOT VALID;
SELECT is((SELECT string_agg(replace(o, 'made_1', 'as_if_1'), E'\n' ORDER BY replace(o, 'made_1',
      'as_if_1') COLLATE "C") FROM ownership('made_1') o),
  (SELECT string_agg(o, E'\n' ORDER BY o COLLATE "C") FROM ownership('as_if_1') o),
  'a table made with the new types is the same');
SELECT fails(command, '23514') FROM (VALUES ('INSERT INTO made VALUES (200, 0)'),
  ('INSERT INTO made VALUES (200, 1000)'), ('INSERT INTO made VALUES (200, 13)')) t(command);
INSERT INTO made (id, v) VALUES (200, 1);
SELECT is((SELECT w FROM made WHERE id = 200), 3::bigint, 'a default');
SELECT fails($$ SELECT shard_fdw.alter_column_type('made', 'v', 'int', '-v') $$, '23514',
  title => 'rows that the constraints do not allow');
SELECT is((SELECT format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = 'made'::regclass AND attname = 'v'), 'bigint',
  'rows that the constraints do not allow change nothing');
SELECT is((SELECT count(*) FROM shard_fdw.list_shards('made')), 3::bigint,
  'rows that the constraints do not allow, and detach no shard');

-- The key.
SELECT shard_fdw.alter_column_type('made', 'id', 'bigint', 'id::bigint');
SELECT is((SELECT count(*) FROM made WHERE id = 50), 1::bigint, 'a key whose hash stays the same');
SELECT is((SELECT array_agg(pg_get_constraintdef(oid) ORDER BY conrelid) FROM pg_constraint
    WHERE conname = 'shard_hash' AND convalidated AND conrelid::regclass::text ~ '^made'),
  '{"CHECK (shard_fdw.in_hash(3, 0, id))","CHECK (shard_fdw.in_hash(3, 1, id))","CHECK '
  '(shard_fdw.in_hash(3, 2, id))"}', 'a key whose hash stays the same, and places are valid');
SELECT is((SELECT state || ' ' || regexp_replace(message, 'made_[0-9]', 'made_N')
    FROM error_of($$ SELECT shard_fdw.alter_column_type('made', 'id', 'text', 'id::text') $$)),
  '23514 check constraint "shard_hash" of relation "made_N" is violated by some row',
  'a key whose rows would have to move is not changed');
SELECT is((SELECT count(*) FROM made WHERE id = 50), 1::bigint,
  'a key whose rows would have to move stays as it is');
SELECT fails($$ SELECT shard_fdw.alter_column_type('made', 'id', 'json', 'to_json(id)') $$, '42704',
  title => 'a key is not changed to a type that cannot be hashed');
DELETE FROM made;
SELECT shard_fdw.alter_column_type('made', 'id', 'text', '''x'' || id');
INSERT INTO made SELECT g, g FROM generate_series(1, 100) g WHERE g <> 13;
SELECT is((SELECT count(*) FROM made WHERE id = '50'), 1::bigint,
  'a key whose rows would have to move: without rows there are none to move');

-- Ids.
CREATE FOREIGN TABLE ids (id int OPTIONS (sequence 'always'), v int) SERVER shards
  OPTIONS (shards '2');
INSERT INTO ids (v) SELECT generate_series(1, 10);
SELECT shard_fdw.alter_column_type('ids', 'id', 'bigint');
SELECT is((SELECT array_agg(DISTINCT data_type::text) FROM pg_sequences
    WHERE sequencename ~ '^ids_'), '{bigint}', 'sequences get the type of the column');
SELECT is((SELECT count(*) FROM ids WHERE id = (SELECT min(id) FROM ids)), 1::bigint,
  'sequences get the type of the column: ids are found');
SELECT shard_fdw.alter_column_type('ids', 'id', 'int', 'id::int');
INSERT INTO ids (v) VALUES (11);
SELECT is((SELECT count(DISTINCT id) FROM ids), 11::bigint,
  'sequences get the type of the column, and go on');
SELECT is((SELECT count(*) FROM pg_constraint WHERE conrelid IN ('ids_0'::regclass,
      'ids_1'::regclass) AND pg_get_constraintdef(oid) LIKE '%in_slot(1024, _, %' AND convalidated),
  2::bigint, 'slots stay');
SELECT is((SELECT bool_and(shard_fdw.in_slot(1024, split_part(tableoid::regclass::text, '_', 2)::int
      + 1, id)) FROM ids), true, 'slots stay, and rows in them');
SELECT fails($$ SELECT shard_fdw.alter_column_type('ids', 'id', 'text', 'id::text') $$, '42P17',
  title => 'ids have to be numbers');

-- Shards of other kinds.
CREATE FOREIGN TABLE outer_log (a int, b text) SERVER shards OPTIONS (shards '1');
CREATE FOREIGN TABLE inner_log (a int, b text) SERVER shards OPTIONS (shards '2');
ALTER FOREIGN TABLE inner_log INHERIT outer_log;
INSERT INTO inner_log SELECT g, g FROM generate_series(1, 5) g;
INSERT INTO outer_log_0 SELECT g, g FROM generate_series(6, 9) g;
SELECT shard_fdw.alter_column_type('outer_log', 'b', 'int', 'b::int * 10');
SELECT is((SELECT sum(b) FROM outer_log), 450::bigint, 'a shard that is a logical table itself');
SELECT is((SELECT count(*) FROM pg_inherits WHERE inhparent IN ('outer_log'::regclass,
      'inner_log'::regclass)), 4::bigint,
  'a shard that is a logical table itself, all is attached again');
SELECT fails($$ SELECT shard_fdw.alter_column_type('inner_log', 'b', 'text', 'b::text') $$, NULL,
  'cannot alter inherited column "b"',
  title => 'a shard that is a logical table itself, and cannot be altered by itself');
CREATE FOREIGN DATA WRAPPER columns_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER columns_fdw;
CREATE FOREIGN TABLE mixed (a int) SERVER shards OPTIONS (shards '1');
CREATE FOREIGN TABLE remote (a int) SERVER far;
ALTER FOREIGN TABLE remote INHERIT mixed;
SELECT fails($$ SELECT shard_fdw.alter_column_type('mixed', 'a', 'text', 'a::text') $$, '0A000',
  'cannot convert the rows of shard "remote" of foreign table "mixed"',
  'The shard is a foreign table.',
  'Detach it with ALTER TABLE ... NO INHERIT, change it on both servers, and attach it again.',
  title => 'a shard that is a foreign table');
SELECT lives_ok($$ SELECT shard_fdw.alter_column_type('mixed', 'a', 'text') $$,
  'a shard that is a foreign table does not matter without an expression');
CREATE FOREIGN TABLE empty (a int) SERVER shards;
SELECT shard_fdw.alter_column_type('empty', 'a', 'text', 'a::text');
SELECT is((SELECT format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = 'empty'::regclass AND attname = 'a'), 'text', 'a table without shards');

-- What depends on the column.
CREATE FOREIGN TABLE used (a int, b text, c text DEFAULT 'x') SERVER shards OPTIONS (shards '2');
CREATE VIEW users AS SELECT a FROM used;
SELECT fails($$ SELECT shard_fdw.alter_column_type('used', 'a', 'text', 'a::text') $$, NULL,
  'cannot alter type of a column used by a view or rule', title => 'a view');
DROP VIEW users;
CREATE VIEW users AS SELECT a FROM used_1;
SELECT fails($$ SELECT shard_fdw.alter_column_type('used', 'a', 'text', 'a::text') $$, NULL,
  'cannot alter type of a column used by a view or rule', title => 'a view, of a shard');
SELECT fails($$ SELECT shard_fdw.alter_column_type('used', 'c', 'int', '1') $$, NULL,
  'default for column "c" cannot be cast automatically to type integer',
  title => 'a default that does not fit');
SELECT is((SELECT count(*) FROM shard_fdw.list_shards('used')), 2::bigint,
  'a default that does not fit: nothing is detached');

-- Arguments.
SELECT fails('SELECT shard_fdw.alter_column_type(' || args || ')', state, message, title => args)
  FROM (VALUES
  ($$ 'used', 'a', NULL $$, '22004', 'type must not be null'),
  ($$ 'used', NULL, 'text' $$, '22004', 'column must not be null'),
  ($$ NULL, 'a', 'text' $$, '22004', 'logical table must not be null'),
  ($$ 'plain', 'v', 'text' $$, '42809', '"plain" is not a foreign table of shard_fdw'),
  ($$ 'used', 'nobody', 'text', '1' $$, '42703',
    'column "nobody" of relation "used_0" does not exist'),
  ($$ 'used', 'a', 'nothing' $$, '42704', 'type "nothing" does not exist'),
  ($$ 'used', 'a', 'text, DROP b' $$, '42601', 'more than a type and an expression is given'),
  ($$ 'used', 'a', 'text; DROP TABLE used_0' $$, '42601',
    'more than a type and an expression is given'),
  ($$ 'used', 'a', 'text', 'a), DROP COLUMN b' $$, '42601', 'syntax error at or near ")"'),
  ($$ 'used', 'a', 'text', 'a::text), DROP b, ADD CHECK (true' $$, '42601',
    'more than a type and an expression is given'),
  ($$ 'used', 'a', 'text', 'a::text); DROP TABLE used_0; SELECT (1' $$, '42601',
    'more than a type and an expression is given')) t(args, state, message);
SELECT lives_ok($$ SELECT shard_fdw.alter_column_type('used', 'c', 'varchar(30) COLLATE "C"',
      'c || ''!''') $$, 'a collation');
SELECT is((SELECT array_agg(attcollation::regcollation::text) FROM pg_attribute WHERE attname = 'c'
    AND attrelid::regclass::text ~ '^used'), '{"\"C\"","\"C\"","\"C\""}',
  'a collation, of table and shards');
SET LOCAL search_path = public;
CREATE DOMAIN columns_test.small AS int CHECK (VALUE < 10);
CREATE FUNCTION columns_test.digit(int) RETURNS int LANGUAGE sql AS 'SELECT $1 % 10';
SET LOCAL search_path = columns_test, public;
CREATE FOREIGN TABLE named (a int) SERVER shards OPTIONS (shards '2');
INSERT INTO named SELECT generate_series(1, 20);
SELECT lives_ok($$ SELECT shard_fdw.alter_column_type('named', 'a', 'small', 'digit(a)') $$,
  'names of the caller''s search path');
SELECT is((SELECT max(a)::int FROM named), 9,
  'names of the caller''s search path, with the caller''s functions');
SELECT is(current_setting('search_path'), 'columns_test, public',
  'names of the caller''s search path, which is as it was');

-- Who may, and who it is.
CREATE FUNCTION who() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE mine (a int) SERVER shards OPTIONS (shards '2');
INSERT INTO mine VALUES (1);
RESET ROLE;
GRANT ALL ON mine, mine_0, mine_1 TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT fails($$ SELECT shard_fdw.alter_column_type('mine', 'a', 'text', 'a::text') $$, '42501',
  title => 'only the owner may');
RESET ROLE;
SELECT shard_fdw.alter_column_type('mine', 'a', 'text', 'who()');
SELECT is((SELECT a FROM mine), 'shard_user', 'the expression runs as the owner');
SELECT is(current_user, session_user,
  'the expression runs as the owner, and the caller is the caller again');
SET LOCAL transaction_read_only = on;
SELECT fails($$ SELECT shard_fdw.alter_column_type('mine', 'a', 'text') $$, '25006',
  title => 'not in a read-only transaction');

SELECT * FROM finish();
ROLLBACK;
