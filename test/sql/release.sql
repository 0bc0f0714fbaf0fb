-- release(), and what keeps DROP EXTENSION and DROP SERVER from taking rows.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA release_test;
GRANT ALL ON SCHEMA release_test TO PUBLIC;
CREATE SCHEMA release_other;
SET LOCAL search_path = release_test, public;

\ir helpers.psql
-- What a table is, names of shards apart.
CREATE FUNCTION shape(tbl regclass) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(line, '; ' ORDER BY line COLLATE "C") FROM (
    SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull
      THEN 'not null' END, NULLIF(attidentity, ''), NULLIF(attgenerated, ''),
                     pg_get_expr(adbin, adrelid), CASE WHEN NOT attislocal OR attinhcount > 0
                       THEN 'inherited' END) AS line
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = tbl AND attnum > 0 AND NOT attisdropped
     UNION ALL
    SELECT concat_ws(' ', pg_get_constraintdef(oid), CASE WHEN NOT conislocal OR coninhcount > 0
      THEN 'inherited' END) FROM pg_constraint WHERE conrelid = tbl AND contype <> 'n') l
$$;
CREATE FUNCTION owner_of(seq regclass) RETURNS text LANGUAGE sql AS $$
  SELECT refobjid::regclass || '.' || attname FROM pg_depend JOIN pg_attribute ON attrelid
    = refobjid AND attnum = refobjsubid
   WHERE classid = 'pg_class'::regclass AND objid = seq AND refclassid = 'pg_class'::regclass
     AND deptype IN ('a', 'i')
$$;
-- What of the database still needs the extension.
CREATE FUNCTION still_needed() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_depend d JOIN pg_depend e ON e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e'
      AND (e.classid, e.objid) = (d.refclassid, d.refobjid)
   WHERE e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'shard_fdw')
     AND d.classid IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_class'::regclass,
       'pg_trigger'::regclass)
     AND NOT EXISTS (SELECT FROM pg_depend m WHERE (m.classid, m.objid) = (d.classid, d.objid)
       AND m.deptype = 'e')
     AND pg_describe_object(d.classid, d.objid, d.objsubid) !~ 'shard_fdw[.]|pg_toast'
$$;
SELECT is_empty('SELECT still_needed()', 'nothing needs the extension');

--
-- Sequences
--

-- One sequence for all shards.
CREATE TABLE model (id bigint PRIMARY KEY, v text, at timestamptz,
  g int GENERATED ALWAYS AS (length(v)) STORED, own int DEFAULT 5, CHECK (v <> 'own'));
CREATE FOREIGN TABLE serial (id bigserial, v text CONSTRAINT ours CHECK (v <> 'ours'),
  at timestamptz NOT NULL DEFAULT now(), g int GENERATED ALWAYS AS (length(v)) STORED)
  SERVER shards OPTIONS (shards '3', route 'round_robin', template 'model');
INSERT INTO serial (v) SELECT g FROM generate_series(1, 9) g;
CREATE TEMP TABLE before AS SELECT *, tableoid AS shard FROM serial;
SELECT shard_fdw.seal('serial_0'), shard_fdw.close_shard('serial_1');
SELECT results_eq($$ SELECT shard_fdw.release('serial')::text $$,
  $$ VALUES ('serial_0'), ('serial_1'), ('serial_2') $$, 'release() returns the tables');
SELECT is(to_regclass('serial'), NULL,
  'release() returns the tables, and the logical table is gone');
SELECT bag_eq('SELECT *, tableoid AS shard FROM serial_0 UNION ALL SELECT *, tableoid FROM '
              'serial_1 UNION ALL SELECT *, tableoid FROM serial_2',
  'SELECT id, v, at, g, 5 AS own, shard FROM before',
  'release() returns the tables, all rows are in them');
SELECT is(shape(t),
  'CHECK ((v <> ''ours''::text)); CHECK ((v <> ''own''::text)); PRIMARY KEY (id); at timestamp '
  'with time zone not null now(); g integer s length(v); '
  || 'id bigint not null nextval(''serial_id_seq''::regclass); own integer 5; v text',
  t || ' is an ordinary table') FROM unnest('{serial_0,serial_1,serial_2}'::regclass[]) t;
INSERT INTO serial_0 (v) VALUES ('a');
INSERT INTO serial_1 (v) VALUES ('b');
SELECT is((SELECT max(id) FROM serial_0) || ' ' || (SELECT max(id) FROM serial_1), '10 11',
  'release() returns the tables, also the sealed and the closed one');
SELECT is(owner_of('serial_id_seq'), NULL, 'a sequence that several draw from belongs to none');
DROP TABLE serial_0;
INSERT INTO serial_1 (v) VALUES ('c');
SELECT is_empty('SELECT * FROM shard_fdw.closed_shards', 'no shard is closed');

CREATE FOREIGN TABLE single (id serial, v text) SERVER shards OPTIONS (shards '1');
INSERT INTO single (v) VALUES ('a');
SELECT shard_fdw.release('single');
SELECT is(owner_of('single_id_seq'), 'single_0.id', 'one that one draws from belongs to it');
DROP TABLE single_0;
SELECT is(to_regclass('single_id_seq'), NULL,
  'one that one draws from belongs to it, and goes with it');

-- A sequence for each slot.
CREATE FOREIGN TABLE slots (id int OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '4', max_shards '100', commit_order 'true');
INSERT INTO slots (v) SELECT g FROM generate_series(1, 5) g;
SET LOCAL shard_fdw.shard = 2;
INSERT INTO slots (v) VALUES ('x');
RESET shard_fdw.shard;
ALTER TABLE slots_1 NO INHERIT slots;
DROP TABLE slots_3;
SELECT shard_fdw.register_consumer('slots', 'c', 'id');
SELECT count(*) FROM shard_fdw.read_batch(NULL::slots, 'c');
SELECT is((SELECT array_agg(t::text) FROM shard_fdw.release('slots') t), '{slots_0,slots_2}',
  'ids of slots');
SELECT is(shape('slots_2'), 'id integer not null nextval(''slots_id_3_seq''::regclass); v text',
  'ids of slots come from the slot''s sequence still');
SELECT is(owner_of('slots_id_1_seq') || ' ' || owner_of('slots_id_3_seq'), 'slots_0.id slots_2.id',
  'ids of slots, which belongs to the table');
SELECT is(owner_of('slots_id_2_seq'), 'slots_1.id',
  'ids of slots, also that of a shard that was detached before');
SELECT is(to_regclass('slots_id_4_seq'), NULL, 'ids of slots, and goes if there is none');
INSERT INTO slots_2 (v) VALUES ('y');
SELECT is((SELECT id FROM slots_2 WHERE v = 'y'), (SELECT max(id) + 100 FROM slots_2
    WHERE v <> 'y'), 'ids of slots: ids go on');
INSERT INTO slots_1 (v) VALUES ('y');
SELECT is((SELECT max(id) % 100 FROM slots_1), 2, 'ids of slots, of each table in its slot');
SELECT is_empty('SELECT * FROM shard_fdw.consumer_registry', 'consumers are forgotten');
SELECT is_empty('SELECT * FROM shard_fdw.consumer_lanes',
  'consumers are forgotten, and how far they have read');

-- Identity columns, of the logical table and of the shards.
CREATE TABLE ident_model (id int, own int GENERATED BY DEFAULT AS IDENTITY (START 7));
CREATE FOREIGN TABLE ident (id int GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5), own int)
  SERVER shards OPTIONS (shards '2', template 'ident_model');
INSERT INTO ident (own) VALUES (1), (1);
SELECT shard_fdw.release('ident');
SELECT is(shape('ident_1'),
  'id integer not null nextval(''ident_id_seq''::regclass); own integer not null d', 'identity');
INSERT INTO ident_0 DEFAULT VALUES;
INSERT INTO ident_1 DEFAULT VALUES;
SELECT is((SELECT max(id) FROM ident_0) || ' ' || (SELECT max(id) FROM ident_1) || ' '
  || (SELECT max(own) FROM ident_0), '110 115 7', 'identity: numbers go on');
CREATE FOREIGN TABLE ident1 (id int GENERATED ALWAYS AS IDENTITY) SERVER shards
  OPTIONS (shards '1');
SELECT shard_fdw.release('ident1');
SELECT is(owner_of('ident1_id_seq'), 'ident1_0.id', 'identity, of one shard belong to it');
INSERT INTO ident1_0 DEFAULT VALUES;
SELECT is((SELECT id FROM ident1_0), 1, 'identity, from the first on');

-- A shard in another schema, and one that came with a sequence of its own.
CREATE FOREIGN TABLE mixed (id bigserial, v text) SERVER shards OPTIONS (shards '1');
ALTER TABLE mixed_0 SET SCHEMA release_other;
CREATE TABLE came (v text, id bigserial PRIMARY KEY);
INSERT INTO came (v) VALUES ('old');
ALTER TABLE came INHERIT mixed;
SELECT is((SELECT array_agg(t::text ORDER BY t::text) FROM shard_fdw.release('mixed') t),
  '{came,release_other.mixed_0}', 'a shard in another schema');
SELECT is(owner_of('mixed_id_seq'), NULL, 'a shard in another schema cannot own the sequence');
INSERT INTO release_other.mixed_0 (v) VALUES ('a');
SELECT is(owner_of('came_id_seq'), 'came.id', 'a table that was attached keeps its own');
INSERT INTO came (v) VALUES ('new');
SELECT is((SELECT array_agg(id ORDER BY id) FROM came), '{1,2}',
  'a table that was attached keeps its own, and goes on');

--
-- Constraints, triggers, and other kinds of shards
--

CREATE TABLE keyed_model (k int PRIMARY KEY, v text);
CREATE INDEX ON keyed_model (v);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v
  || '!'; RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT ON keyed_model FOR EACH ROW EXECUTE FUNCTION note();
CREATE FOREIGN TABLE keyed (k int, v text) SERVER shards OPTIONS (shards '3', route 'hash', key 'k',
  template 'keyed_model');
CREATE TRIGGER of_all AFTER INSERT ON keyed FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO keyed SELECT g, g FROM generate_series(1, 30) g;
ALTER TABLE keyed_1 ADD CONSTRAINT two_in_one CHECK (v <> 'none' AND shard_fdw.in_hash(3, 1, k)),
  ADD CONSTRAINT never CHECK (1 > 2) NOT VALID;
SELECT shard_fdw.release('keyed');
SELECT is(shape(t), 'PRIMARY KEY (k); k integer not null; v text',
  t || ' has no constraint of ours') FROM unnest('{keyed_0,keyed_1,keyed_2}'::regclass[]) t;
INSERT INTO keyed_1 SELECT g, g FROM generate_series(101, 130) g;
SELECT is((SELECT count(*) FROM keyed_1 WHERE k > 100 AND v LIKE '%!'), 30::bigint,
  'a table that was attached takes rows of any key, and fires its triggers');
SELECT is((SELECT count(*) FROM pg_index WHERE indrelid = 'keyed_2'::regclass), 2::bigint,
  'a table that was attached keeps its own, and has its indexes');

-- The range of a closed shard.
CREATE FOREIGN TABLE timed (at timestamptz NOT NULL) SERVER shards
  OPTIONS (shards '2', time_column 'at', maintenance 'manual');
INSERT INTO timed_0 VALUES ('2026-01-01'), ('2026-01-02');
SELECT shard_fdw.close_shard('timed_0');
ALTER TABLE timed_0 ADD CONSTRAINT shard_range CHECK (at >= '2026-01-01' AND at <= '2026-01-02'),
  ADD CONSTRAINT mine CHECK (at >= '2020-01-01' AND at <= '2030-01-01');
SELECT shard_fdw.release('timed');
SELECT is((SELECT array_agg(conname::text) FROM pg_constraint WHERE conrelid = 'timed_0'::regclass
    AND contype = 'c'), '{mine}', 'the range of a closed shard goes, others stay');
INSERT INTO timed_0 VALUES ('2027-01-01');

CREATE FOREIGN DATA WRAPPER release_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER release_fdw;
CREATE FOREIGN TABLE outside (a int) SERVER shards OPTIONS (shards '1');
CREATE FOREIGN TABLE inside (a int) SERVER shards OPTIONS (shards '2');
ALTER FOREIGN TABLE inside INHERIT outside;
CREATE FOREIGN TABLE remote (a int) SERVER far;
ALTER FOREIGN TABLE remote INHERIT outside;
CREATE UNLOGGED TABLE quick () INHERITS (outside);
CREATE TABLE quick_child () INHERITS (quick);
INSERT INTO inside VALUES (1), (2);
INSERT INTO quick_child VALUES (3);
SELECT is((SELECT array_agg(t::text ORDER BY t::text) FROM shard_fdw.release('outside') t),
  '{inside,outside_0,quick,remote}', 'foreign tables, logical tables and others');
SELECT is((SELECT count(*) FROM inside), 2::bigint, 'a logical table is one still');
SELECT is((SELECT array_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits
    WHERE inhrelid::regclass::text ~ '^(quick|inside|remote|outside)'),
  '{inside_0,inside_1,quick_child}', 'a logical table is one still, and children are children');
CREATE FOREIGN TABLE one (k int) SERVER shards OPTIONS (route 'hash', key 'k');
CREATE FOREIGN TABLE two (k int) SERVER shards OPTIONS (route 'hash', key 'k');
CREATE TABLE shared (k int, CHECK (shard_fdw.in_hash(1, 0, k))) INHERITS (one, two);
SELECT shard_fdw.release('one');
SELECT is((SELECT count(*) FROM pg_constraint WHERE conrelid = 'shared'::regclass), 1::bigint,
  'a shard of two keeps its place in the other');
INSERT INTO two VALUES (1);
SELECT shard_fdw.release('two');
SELECT is((SELECT count(*) FROM pg_constraint WHERE conrelid = 'shared'::regclass
    AND contype = 'c'), 0::bigint,
  'a shard of two keeps its place in the other, until that is released');
CREATE FOREIGN TABLE empty (a int) SERVER shards;
SELECT is_empty($$ SELECT shard_fdw.release('empty') $$, 'a table without shards');
SELECT is(to_regclass('empty'), NULL, 'a table without shards is dropped');
SELECT shard_fdw.release('inside');
SELECT bag_eq('SELECT still_needed()', $$ VALUES ('constraint shard_slot on table slots_1') $$,
  'nothing needs the extension but what was detached before');
ALTER TABLE slots_1 DROP CONSTRAINT shard_slot;

--
-- What is refused, and who may
--

CREATE FOREIGN TABLE viewed (id bigserial, v text) SERVER shards OPTIONS (shards '2');
INSERT INTO viewed (v) VALUES ('a');
CREATE VIEW viewer AS SELECT * FROM viewed;
SELECT fails($$ SELECT shard_fdw.release('viewed') $$, '2BP01',
  'cannot drop foreign table release_test.viewed because other objects depend on it',
  'view release_test.viewer depends on foreign table release_test.viewed',
  'Use DROP ... CASCADE to drop the dependent objects too.',
  title => 'a view depends on the logical table');
SELECT is((SELECT count(*) FROM shard_fdw.list_shards('viewed')), 2::bigint,
  'a view depends on the logical table, so nothing is released');
SELECT is(owner_of('viewed_id_seq'), 'viewed.id',
  'a view depends on the logical table, nor its sequence');
SELECT fails($$ SELECT shard_fdw.release('model') $$, '42809', title => 'not a logical table');
SELECT fails('SELECT shard_fdw.release(4294967295)', '42P01', title => 'no table');
SELECT is_empty('SELECT shard_fdw.release(NULL)', 'NULL');
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE mine (id serial, v text) SERVER shards OPTIONS (shards '2');
INSERT INTO mine (v) VALUES ('a');
RESET ROLE;
GRANT ALL ON mine, mine_0, mine_1 TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT fails($$ SELECT shard_fdw.release('mine') $$, '42501', title => 'only the owner may');
SET LOCAL ROLE shard_user;
SELECT is((SELECT count(*) FROM shard_fdw.release('mine')), 2::bigint,
  'the owner may release a table');
INSERT INTO mine_0 (v) VALUES ('b');
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE theirs (id int GENERATED ALWAYS AS IDENTITY, n serial, s bigint
  OPTIONS (sequence 'by_default')) SERVER shards OPTIONS (shards '2', commit_order 'true');
SET LOCAL shard_fdw.shard = 0;
INSERT INTO theirs (n) VALUES (DEFAULT), (DEFAULT);
RESET shard_fdw.shard;
SELECT shard_fdw.register_consumer('theirs', 'c', 's');
RESET ROLE;
SELECT shard_fdw.seal('theirs_1');
SELECT is((SELECT count(*) FROM shard_fdw.release('theirs')), 2::bigint,
  'a superuser may release a table');
SELECT is((SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class
    WHERE relname ~ '^theirs_'), '{shard_user}',
  'the tables that are released stay their owners''');
SET LOCAL ROLE shard_user;
INSERT INTO theirs_1 DEFAULT VALUES;
SELECT is((SELECT id || ' ' || n FROM theirs_1), '3 3',
  'only the owner may, not a role that may use the tables');
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE mine2 (id serial, v text) SERVER shards OPTIONS (shards '1');
RESET ROLE;
ALTER TABLE mine2_0 OWNER TO shard_reader;
SELECT fails($$ SELECT shard_fdw.release('mine2') $$, '42501',
  title => 'the owner must own the shards, too');
DROP FOREIGN TABLE mine2 CASCADE;
SAVEPOINT s;
SET LOCAL transaction_read_only = on;
SELECT fails($$ SELECT shard_fdw.release('viewed') $$, '25006',
  title => 'not in a read-only transaction');
ROLLBACK TO s;

--
-- The guard
--

CREATE SERVER guarded FOREIGN DATA WRAPPER shard_fdw;
CREATE SERVER unused FOREIGN DATA WRAPPER shard_fdw;
CREATE FOREIGN TABLE kept (a int) SERVER guarded OPTIONS (shards '2');
SELECT lives_ok('DROP SERVER unused; CREATE SERVER unused FOREIGN DATA WRAPPER shard_fdw',
  'a server without tables is dropped');
SAVEPOINT s;
SELECT lives_ok('DROP SERVER guarded CASCADE', 'one whose tables have no rows, too');
ROLLBACK TO s;
INSERT INTO kept_1 VALUES (1);
SELECT fails('DROP SERVER guarded CASCADE', '2BP01',
  'cannot drop server "guarded" because shards of its foreign tables have rows',
  'Shard "kept_1" of foreign table "kept" would be dropped with its rows.',
  'Make the shards ordinary tables with SELECT shard_fdw.release(), '
  'or set shard_fdw.allow_drop_with_rows to on to lose the rows.',
  title => 'one whose tables have some is not');
CREATE ROLE release_role SUPERUSER;
SELECT fails(command, NULL,
  'cannot drop server "guarded" because shards of its foreign tables have rows') FROM (VALUES
  ('DROP SERVER unused, guarded CASCADE'),
  ('DROP SERVER guarded, unused CASCADE'),
  ('DO $x$ BEGIN DROP TABLE release_test.kept_0; DROP SERVER guarded CASCADE; END $x$'),
  ('DO $x$ BEGIN BEGIN DROP SERVER guarded CASCADE; EXCEPTION WHEN OTHERS THEN DROP SERVER '
   'guarded CASCADE; END; END $x$'),
  ('ALTER SERVER guarded OWNER TO release_role; DROP OWNED BY release_role CASCADE')) t(command);
SELECT matches((error_of(command)).message,
  '^cannot drop server ".*" because shards of its foreign tables have rows$', command) FROM (VALUES
  ('DROP EXTENSION shard_fdw CASCADE'), ('DROP SCHEMA shard_fdw CASCADE'),
  ('DROP EXTENSION plpgsql CASCADE')) t(command);
SELECT fails('DROP SERVER guarded', NULL,
  'cannot drop server guarded because other objects depend on it',
  title => 'without CASCADE, core refuses');
SELECT is((SELECT count(*) FROM kept), 1::bigint, 'the row is there');

-- Rows of a shard's child, deleted rows, and rows of this transaction.
DELETE FROM kept;
SAVEPOINT s;
SELECT lives_ok('DROP SERVER guarded CASCADE', 'rows that have been deleted are none');
ROLLBACK TO s;
CREATE TABLE kept_child () INHERITS (kept_0);
INSERT INTO kept_child VALUES (1);
SELECT fails('DROP SERVER guarded CASCADE', NULL,
  detail => 'Shard "kept_child" of foreign table "kept" would be dropped with its rows.',
  title => 'rows of a child of a shard');
DROP TABLE kept_child;
CREATE FOREIGN TABLE remote_kept (a int) SERVER far;
ALTER FOREIGN TABLE remote_kept INHERIT kept;
CREATE FOREIGN TABLE inner_kept (a int) SERVER shards OPTIONS (shards '1');
ALTER FOREIGN TABLE inner_kept INHERIT kept;
INSERT INTO inner_kept VALUES (1);
SELECT fails('DROP SERVER guarded CASCADE', NULL,
  detail => 'Shard "inner_kept_0" of foreign table "kept" would be dropped with its rows.',
  title => 'rows of a logical table that is a shard');
DROP FOREIGN TABLE inner_kept CASCADE;
SAVEPOINT s;
SELECT lives_ok('DROP SERVER guarded CASCADE',
  'a shard that is a foreign table keeps its rows where they are');
ROLLBACK TO s;

-- What is allowed.
INSERT INTO kept_0 VALUES (1);
SAVEPOINT s;
SELECT lives_ok('DROP FOREIGN TABLE kept CASCADE; DROP SERVER guarded',
  'DROP FOREIGN TABLE CASCADE drops rows, and then the server may go');
ROLLBACK TO s;
SELECT lives_ok('DROP TABLE kept_0; DROP SERVER guarded CASCADE', 'so does DROP TABLE');
ROLLBACK TO s;
SELECT lives_ok('DO $x$ BEGIN BEGIN DROP SERVER guarded CASCADE; EXCEPTION WHEN OTHERS THEN NULL; '
                'END; DROP FOREIGN TABLE kept CASCADE; DROP SERVER guarded; END $x$',
  'so does DROP TABLE, also after an attempt that has failed');
ROLLBACK TO s;
SELECT lives_ok('DROP SERVER unused; DROP FOREIGN TABLE kept CASCADE; DROP FOREIGN TABLE viewed '
                'CASCADE; DROP SERVER guarded', 'so does DROP TABLE, and after one that has not');
ROLLBACK TO s;
CREATE SCHEMA crowded;
CREATE FOREIGN TABLE crowded.log (a int) SERVER guarded OPTIONS (shards '1');
INSERT INTO crowded.log VALUES (1);
SELECT lives_ok('DROP SCHEMA crowded CASCADE', 'DROP SCHEMA drops the tables in it');
SELECT lives_ok('SET LOCAL shard_fdw.allow_drop_with_rows = on; DROP SERVER guarded CASCADE',
  'with the setting all may go');
ROLLBACK TO s;
SELECT shard_fdw.release('kept');
SELECT lives_ok('DROP SERVER guarded', 'after release(), no CASCADE is necessary');
SELECT is((SELECT count(*) FROM kept_0), 1::bigint,
  'after release(), no CASCADE is necessary, and the row is there');

SELECT * FROM finish();
ROLLBACK;
