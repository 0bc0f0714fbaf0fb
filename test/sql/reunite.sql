-- release() into one table and into partitions: the way back from a logical
-- table, under its name.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA reunite_test;
CREATE SCHEMA reunite_parts;
GRANT ALL ON SCHEMA reunite_test TO PUBLIC;
SET LOCAL search_path = reunite_test, public;

\ir helpers.psql

--
-- One table
--

CREATE TABLE ref (r int PRIMARY KEY);
INSERT INTO ref SELECT generate_series(0, 9);
GRANT REFERENCES, SELECT ON ref TO shard_user;
GRANT ALL ON SCHEMA reunite_parts TO shard_user;
SET LOCAL ROLE shard_user;
CREATE TABLE noted (what text);
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO reunite_test.noted VALUES (TG_OP); RETURN NULL; END $$;
CREATE TABLE model (v text, id bigint PRIMARY KEY, s int, r int REFERENCES ref, at timestamptz NOT NULL,
  g int GENERATED ALWAYS AS (r * 2) STORED, CONSTRAINT positive CHECK (r >= 0));
CREATE INDEX ON model (r);
CREATE TRIGGER mark BEFORE INSERT ON model FOR EACH ROW EXECUTE FUNCTION mark();
ALTER TABLE model DISABLE TRIGGER mark;
CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always') NOT NULL, s serial, r int DEFAULT 3, v text,
  at timestamptz NOT NULL DEFAULT '2026-01-01Z', g int GENERATED ALWAYS AS (r * 2) STORED)
  SERVER shards OPTIONS (shards '4', template 'model', shard_schema 'reunite_parts', max_shards '8', route 'round_robin',
    time_column 'at', maintenance 'manual');
CREATE TRIGGER stmt AFTER INSERT ON log EXECUTE FUNCTION note();
COMMENT ON FOREIGN TABLE log IS 'said of it';
COMMENT ON COLUMN log.r IS 'said of a column';
COMMENT ON TRIGGER stmt ON log IS 'said of a trigger';
REVOKE TRUNCATE ON log FROM shard_user;
GRANT SELECT, UPDATE (v) ON log TO shard_reader;
CREATE VIEW few WITH (security_barrier) AS SELECT id, r, v FROM log WHERE r < 5 WITH CHECK OPTION;
CREATE VIEW fewer AS SELECT count(*) AS n FROM few WHERE r < 3;
CREATE FUNCTION parsed() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM log; END;
INSERT INTO log (r, v) SELECT (random() * 9)::int, repeat('x', (random() * 30)::int) FROM generate_series(1, 200);
DO $$ BEGIN
  PERFORM shard_fdw.seal('reunite_parts.log_0'), shard_fdw.close_shard('reunite_parts.log_1'); END $$;
CREATE TABLE twin AS SELECT * FROM log;
PREPARE ins(int) AS INSERT INTO log (r, v) VALUES ($1, 'new') RETURNING s;
PREPARE sel(bigint) AS SELECT * FROM log WHERE id = $1;
EXECUTE sel(1);
TRUNCATE noted;
SELECT results_eq($$ SELECT shard_fdw.release('log', 'one')::text $$, $$ VALUES ('log') $$, 'one table');
SELECT is((SELECT relkind::text || pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'log'::regclass), 'rshard_user',
  'one table, an ordinary one of the same owner');
SELECT bag_eq('SELECT id, s, r, v, at, g FROM log', 'SELECT * FROM twin', 'one table, with all rows');
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relname ~ '^log_\d+$|^release_' $$, 'the other shards are gone');
EXECUTE ins(1);
SELECT is((SELECT id > (SELECT max(id) FROM twin) AND s = 201 AND at = '2026-01-01Z' AND g = 2 FROM log WHERE v = 'new'), true,
  'numbers and defaults go on');
SELECT is(pg_get_serial_sequence('log', 's') || ' ' || pg_get_serial_sequence('log', 'id'),
  'reunite_test.log_s_seq reunite_test.log_id_seq', 'sequences belong to it');
SELECT is((SELECT attidentity::text FROM pg_attribute WHERE attrelid = 'log'::regclass AND attname = 'id'), 'a',
  'option "sequence" becomes an identity column');
SELECT fails('INSERT INTO log (id, r) VALUES (1, 1)', '428C9', title => 'values of its own are refused as before');
SELECT fails('INSERT INTO log (r) VALUES (77)', '23503', title => 'foreign keys');
SELECT fails('INSERT INTO log (r) VALUES (-1)', '23514', title => 'CHECK constraints');
SELECT bag_eq($$ SELECT conname::text FROM pg_constraint WHERE conrelid = 'log'::regclass AND contype = 'c' $$,
  $$ VALUES ('positive') $$, 'no constraint of ours');
SELECT is((SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger
  WHERE tgrelid = 'log'::regclass AND NOT tgisinternal), 'markD stmtO', 'triggers, as they were');
SELECT is((SELECT string_agg(what, ' ') FROM noted), 'INSERT', 'triggers of statements fire, and not for rows that are moved');
SELECT is(obj_description('log'::regclass) || col_description('log'::regclass, (SELECT attnum FROM pg_attribute
  WHERE attrelid = 'log'::regclass AND attname = 'r')), 'said of itsaid of a column', 'comments');
SELECT is(has_table_privilege('shard_reader', 'log', 'SELECT') AND has_column_privilege('shard_reader', 'log', 'v', 'UPDATE')
  AND NOT has_table_privilege('shard_reader', 'log', 'INSERT') AND NOT has_table_privilege('shard_user', 'log', 'TRUNCATE'),
  true, 'privileges');
SELECT is((SELECT obj_description(oid, 'pg_trigger') FROM pg_trigger WHERE tgrelid = 'log'::regclass AND tgname = 'stmt'),
  'said of a trigger', 'comments of triggers');
SELECT is((SELECT count(*) FROM few), (SELECT count(*) FROM log WHERE r < 5), 'a view');
SELECT is((SELECT n FROM fewer), (SELECT count(*) FROM log WHERE r < 3), 'a view of a view');
SELECT fails('INSERT INTO few (r) VALUES (7)', '44000', title => 'the check option of a view');
SELECT is(parsed(), 201::bigint, 'a function');
EXECUTE sel(1);

-- An identity column, and there and back again.
CREATE TABLE round (id int GENERATED BY DEFAULT AS IDENTITY (START 10 INCREMENT 10) PRIMARY KEY, v text DEFAULT 'd');
INSERT INTO round (v) SELECT g FROM generate_series(1, 50) g;
CREATE VIEW trip AS SELECT sum(id) AS s FROM round;
CREATE TABLE round_twin AS SELECT * FROM round;
SELECT is_empty($$ SELECT shard_fdw.convert_table('round', 3) $$, 'there');
INSERT INTO round (v) VALUES ('between');
SELECT is(shard_fdw.release('round', 'one')::text, 'round', 'and back');
INSERT INTO round DEFAULT VALUES;
INSERT INTO round_twin VALUES (510, 'between'), (520, 'd');
SELECT bag_eq('SELECT * FROM round', 'SELECT * FROM round_twin', 'there and back, with all rows and numbers');
SELECT is((SELECT s FROM trip), (SELECT sum(id) FROM round_twin), 'there and back, with a view');
RESET ROLE;

--
-- Partitions
--

CREATE TABLE keyed_model (v text, k int, n int REFERENCES ref, id int NOT NULL, PRIMARY KEY (k), UNIQUE (v, n, k),
  CONSTRAINT small CHECK (n < 10));
CREATE INDEX ON keyed_model (n) WHERE n > 2;
CREATE TRIGGER mark BEFORE INSERT ON keyed_model FOR EACH ROW EXECUTE FUNCTION mark();
CREATE FOREIGN TABLE keyed (k int NOT NULL, v text NOT NULL DEFAULT 'd', n int, id int GENERATED ALWAYS AS IDENTITY)
  SERVER shards OPTIONS (shards '3', route 'hash', key 'k', template 'keyed_model');
CREATE VIEW of_keyed AS SELECT * FROM keyed WHERE n = 5;
GRANT SELECT ON keyed TO shard_reader;
INSERT INTO keyed (k, v, n) SELECT g, 'v' || g % 3, g % 10 FROM generate_series(1, 200) g;
CREATE TABLE keyed_twin AS SELECT * FROM keyed;
SELECT is(shard_fdw.release('keyed', 'partitions')::text, 'keyed', 'partitions');
SELECT is(pg_get_partkeydef('keyed'::regclass), 'HASH (k)', 'the key of partitions');
SELECT bag_eq('SELECT * FROM keyed', 'SELECT * FROM keyed_twin', 'rows of partitions');
SELECT is((SELECT count(*) FROM pg_inherits WHERE inhparent = 'keyed'::regclass), 3::bigint, 'each shard is a partition');
INSERT INTO keyed (k, n) VALUES (1000, 1);
SELECT is((SELECT v || id FROM keyed WHERE k = 1000), 'd!201', 'numbers, defaults and triggers of partitions');
SELECT bag_eq($$ SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'keyed'::regclass AND contype <> 'n' $$,
  $$ VALUES ('PRIMARY KEY (k)'), ('UNIQUE (v, n, k)'), ('CHECK ((n < 10))'), ('FOREIGN KEY (n) REFERENCES ref(r)') $$,
  'constraints of the partitioned table');
SELECT is((SELECT count(*) FROM pg_index WHERE indrelid = 'keyed'::regclass AND indisvalid), 3::bigint,
  'its indexes are valid');
SELECT is((SELECT count(*) FROM pg_index WHERE indrelid = 'keyed_0'::regclass), 3::bigint, 'no index is made twice');
SELECT is((SELECT count(*) FROM of_keyed), 20::bigint, 'a view of partitions');
SELECT is(has_table_privilege('shard_reader', 'keyed', 'SELECT'), true, 'privileges of partitions');
SELECT is_empty($$ SELECT shard_fdw.convert_table('keyed', 3, 'hash', 'k') $$, 'partitions become shards again');
SELECT is((SELECT count(*) FROM keyed), 201::bigint, 'partitions become shards again, with all rows');

-- What a partitioned table cannot have, or not all shards have, stays with the partitions.
CREATE FOREIGN TABLE various (k int NOT NULL, n int, v text CONSTRAINT ours CHECK (v <> 'ours')) SERVER shards
  OPTIONS (shards '2', route 'hash', key 'k');
COMMENT ON CONSTRAINT ours ON various IS 'said of a constraint';
INSERT INTO various SELECT g, g, 'v' FROM generate_series(1, 100) g;
ALTER TABLE various_0 ADD CONSTRAINT own CHECK (n > 0) NO INHERIT, ADD CONSTRAINT single CHECK (n < 1000),
  ADD CONSTRAINT other CHECK (n < 1001), ADD CONSTRAINT late CHECK (n < 1002) NOT VALID, ADD CONSTRAINT shared CHECK (n < 1003),
  ADD UNIQUE (n), ADD EXCLUDE (v WITH =) WHERE (v <> 'v'), ADD PRIMARY KEY (k);
ALTER TABLE various_1 ADD CONSTRAINT own CHECK (n > 0) NO INHERIT, ADD CONSTRAINT other CHECK (n < 2001),
  ADD CONSTRAINT late CHECK (n < 1002), ADD CONSTRAINT shared CHECK (n < 1003), ADD PRIMARY KEY (k),
  ADD CONSTRAINT small FOREIGN KEY (n) REFERENCES ref NOT VALID;
CREATE UNIQUE INDEX ON various_0 (n, k);
INSERT INTO various_0 SELECT k, n, v FROM various WHERE false;
CREATE TABLE various_before AS SELECT conrelid, conname, pg_get_constraintdef(oid) FROM pg_constraint
  WHERE conrelid IN ('various_0'::regclass, 'various_1'::regclass) AND contype <> 'n' AND conname <> 'shard_hash';
SELECT is(shard_fdw.release('various', 'partitions')::text, 'various', 'shards that differ');
SELECT bag_has('SELECT conrelid, conname, pg_get_constraintdef(oid) FROM pg_constraint', 'SELECT * FROM various_before',
  'shards that differ keep their constraints');
SELECT bag_eq($$ SELECT conname::text FROM pg_constraint WHERE conrelid = 'various'::regclass AND contype <> 'n' $$,
  $$ VALUES ('ours'), ('shared'), ('various_pkey') $$, 'the table gets what all shards have');
SELECT is((SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conrelid = 'various'::regclass AND conname = 'ours'),
  'said of a constraint', 'comments of constraints');
SELECT is((SELECT count(*) FROM pg_index WHERE indrelid = 'various'::regclass AND indisvalid), 2::bigint,
  'the table gets unique indexes that have the key');

--
-- What is refused
--

CREATE FOREIGN TABLE none (a int) SERVER shards;
CREATE FOREIGN TABLE wider (a int) SERVER shards OPTIONS (shards '2');
ALTER TABLE wider_1 ADD b int;
CREATE FOREIGN TABLE parent (a int) SERVER shards OPTIONS (shards '2');
CREATE TABLE parent_child () INHERITS (parent_0);
SELECT fails($$ SELECT shard_fdw.release('wider', 'two') $$, '22023', 'invalid value for parameter "kind": "two"',
  hint => 'Valid values are: tables, partitions, one.');
SELECT fails($$ SELECT shard_fdw.release('none', 'one') $$, '55000',
  'cannot release foreign table "none" into one table', 'It has no shards.');
SELECT fails($$ SELECT shard_fdw.release('wider', 'one') $$, '55000', NULL,
  'Shard "wider_1" has a column "b" that the foreign table has not.');
SELECT fails($$ SELECT shard_fdw.release('wider', 'partitions') $$, '55000', NULL,
  'Only the shards of a hash table have rows that partitions could have.');
SELECT fails($$ SELECT shard_fdw.release('keyed', 'partitions') $$, '55000', NULL,
  'Its shards are not placed as partitions are: some have no constraint "shard_hash", or one that is not validated, '
  'or hold the same hashes.');
SELECT fails($$ SELECT shard_fdw.release('parent', 'one') $$, '0A000', 'cannot release foreign table "parent"');
CREATE FOREIGN TABLE twice (a int) SERVER shards OPTIONS (shards '2');
CREATE UNIQUE INDEX ON twice_0 (a);
CREATE UNIQUE INDEX ON twice_1 (a);
INSERT INTO twice_0 VALUES (1);
INSERT INTO twice_1 VALUES (1);
SELECT fails($$ SELECT shard_fdw.release('twice', 'one') $$, '23505', title => 'rows that cannot be in one table');
SELECT is((SELECT count(*) FROM twice), 2::bigint, 'rows that cannot be in one table stay where they are');

-- Constraints that are checked later: those of the table at once, others not.
CREATE TABLE late_model (a int, r int REFERENCES ref DEFERRABLE INITIALLY DEFERRED, "U q" int);
ALTER TABLE late_model ADD CONSTRAINT "a, b" UNIQUE ("U q") DEFERRABLE;
CREATE FOREIGN TABLE late (a int, r int, "U q" int) SERVER shards OPTIONS (shards '2', template 'late_model');
INSERT INTO late_0 VALUES (1, 1, 1);
INSERT INTO late_1 VALUES (1, 2, 1);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT fails($$ SELECT shard_fdw.release('late', 'one') $$, '23505', title => 'rows that break a deferrable constraint');
UPDATE late_1 SET "U q" = 2;
CREATE TABLE other (r int REFERENCES ref DEFERRABLE INITIALLY DEFERRED);
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO other VALUES (77);
SELECT is(shard_fdw.release('late', 'one')::text, 'late', 'constraints of another table are checked later');
INSERT INTO late VALUES (2, 77, 3);
UPDATE other SET r = 7;
UPDATE late SET r = 7 WHERE a = 2;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is((SELECT count(*) FROM late), 3::bigint, 'constraints are checked later afterwards');

-- Rows that would get lost, or into other columns.
CREATE FOREIGN TABLE hidden (a int, b int) SERVER shards OPTIONS (shards '2');
INSERT INTO hidden_0 VALUES (1, 1), (2, 2);
INSERT INTO hidden_1 VALUES (3, 3);
CREATE RULE never AS ON INSERT TO hidden_0 DO INSTEAD NOTHING;
SELECT fails($$ SELECT shard_fdw.release('hidden', 'one') $$, '55000', NULL, 'Shard "hidden_0" has rules.');
DROP RULE never ON hidden_0;
ALTER TABLE hidden_1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT fails($$ SELECT shard_fdw.release('hidden', 'one') $$, '55000', NULL, 'Shard "hidden_1" has row-level security.');
ALTER TABLE hidden_1 DISABLE ROW LEVEL SECURITY;
ALTER TABLE hidden_0 SET UNLOGGED;
SELECT fails($$ SELECT shard_fdw.release('hidden', 'one') $$, '55000', NULL,
  'Some of its shards are unlogged, and others are not.');
ALTER TABLE hidden_0 SET LOGGED;
CREATE TABLE hidden_2 (b int, a int);
INSERT INTO hidden_2 SELECT g, -g FROM generate_series(1, 5000) g;
ALTER TABLE hidden_2 INHERIT hidden;
CREATE ROLE column_reader;
GRANT SELECT (b) ON hidden_0 TO column_reader;
SELECT is(shard_fdw.release('hidden', 'one')::text, 'hidden', 'a shard with another order of columns');
INSERT INTO hidden VALUES (7, 8);
SELECT results_eq('SELECT count(*), sum(a), sum(b) FROM hidden',
  'VALUES (5004::bigint, -12502500::bigint + 13, 12502500::bigint + 14)', 'the columns are in the order of the foreign table');
SELECT ok(NOT has_column_privilege('column_reader', 'hidden', 'b', 'SELECT'), 'privileges on a shard''s column are not the table''s');

SELECT * FROM finish();
ROLLBACK;
