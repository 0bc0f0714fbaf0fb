-- split_shard() and merge_shards(): what they refuse, what the new shards have,
-- and that the rows are those of a plain table.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA split_test;
GRANT USAGE ON SCHEMA split_test TO shard_user, shard_reader;
SET LOCAL search_path = split_test, public;

\ir helpers.psql

CREATE TABLE ref (id int PRIMARY KEY);
INSERT INTO ref SELECT generate_series(0, 9);
CREATE TABLE model (id bigint PRIMARY KEY, v int CHECK (v >= 0), r int REFERENCES ref,
  t text, g int GENERATED ALWAYS AS (v * 2) STORED) WITH (fillfactor = 80);
ALTER TABLE model ALTER t SET STORAGE EXTERNAL;
CREATE INDEX ON model (v) INCLUDE (r);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
CREATE FOREIGN TABLE log (id bigint, v int, r int, t text, g int GENERATED ALWAYS AS (v * 2) STORED)
  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'split_test.model');
CREATE TABLE twin (LIKE model INCLUDING ALL);
INSERT INTO log (id, v, r, t) SELECT g, g % 7, g % 10, repeat('x', g % 50 * 100)
  FROM generate_series(1, 2000) g;
DELETE FROM log WHERE id % 11 = 0;
UPDATE log SET v = v + 1 WHERE id % 5 = 0;
INSERT INTO twin (id, v, r, t) SELECT id, v, r, t FROM log;
CREATE FUNCTION differences() RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*) FROM ((TABLE log EXCEPT ALL TABLE twin)
                        UNION ALL (TABLE twin EXCEPT ALL TABLE log)) d $$;
CREATE FUNCTION places() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(place, ', ' ORDER BY place) FROM shard_fdw.stat_shards
   WHERE logical = 'log'::regclass $$;

-- What a shard has goes to its successors; no trigger fires.
CREATE TRIGGER note BEFORE INSERT ON log_1 FOR EACH ROW EXECUTE FUNCTION note();
GRANT SELECT, UPDATE (v) ON log_1 TO shard_reader;
GRANT INSERT, DELETE ON log_1 TO shard_reader WITH GRANT OPTION;
SET LOCAL ROLE shard_reader;
GRANT DELETE ON log_1 TO PUBLIC;
RESET ROLE;
REVOKE TRUNCATE ON log_1 FROM CURRENT_USER;
ALTER DEFAULT PRIVILEGES IN SCHEMA split_test GRANT TRIGGER ON TABLES TO PUBLIC;
CREATE TABLE acl_before AS SELECT relacl::text || (SELECT string_agg(attname || attacl::text, ' ' ORDER BY attname)
  FROM pg_attribute WHERE attrelid = oid) AS acl FROM pg_class WHERE oid = 'log_1'::regclass;
COMMENT ON TABLE log_1 IS 'of its own';
ALTER TABLE log_1 ALTER v SET STATISTICS 17, ALTER v SET (n_distinct = 50),
  REPLICA IDENTITY FULL, ADD COLUMN gone int, ADD COLUMN extra int DEFAULT 5;
ALTER TABLE log_1 DROP COLUMN gone;
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.split_shard('log_1', 3) shard $$,
  $$ VALUES ('log_4'), ('log_5'), ('log_6') $$, 'a shard is split into three');
SELECT is(places(), 'hash 0 of 4, hash 1 of 12, hash 2 of 4, hash 3 of 4, hash 5 of 12, hash 9 of 12',
  'the places of the parts');
SELECT is(differences(), 0::bigint, 'the rows are those of the twin');
SELECT bag_eq($$ SELECT kind, replace(definition, 'log_5', 'log_1') FROM shard_fdw.features_of('log_5')
                  WHERE kind NOT LIKE '%CHECK%' AND kind NOT LIKE 'NOT NULL%' $$,
  $$ SELECT 'privilege', unnest('{SELECT TO shard_reader,UPDATE (v) TO shard_reader,INSERT TO shard_reader,
       INSERT TO shard_reader WITH GRANT OPTION,DELETE TO shard_reader,DELETE TO shard_reader WITH GRANT OPTION,DELETE TO PUBLIC}'::text[])
     UNION ALL SELECT kind, definition FROM shard_fdw.features_of('log_0')
                WHERE kind IN ('index', 'primary key', 'unique constraint', 'foreign key')
     UNION ALL SELECT kind, definition FROM shard_fdw.features_of('log_4') WHERE kind = 'trigger' $$,
  'indexes, constraints, triggers and privileges');
SELECT is((SELECT relacl::text || (SELECT string_agg(attname || attacl::text, ' ' ORDER BY attname)
  FROM pg_attribute WHERE attrelid = oid) FROM pg_class WHERE oid = 'log_6'::regclass), (SELECT acl FROM acl_before),
  'privileges, with those that the owner has not and who has granted them, and no default ones');
SELECT results_eq($$ SELECT count(*) FROM pg_shdepend WHERE objid = 'log_6'::regclass AND deptype = 'a' $$,
  $$ SELECT 2::bigint $$, 'the role is known to have privileges on the table and on the column');
ALTER DEFAULT PRIVILEGES IN SCHEMA split_test REVOKE TRIGGER ON TABLES FROM PUBLIC;
SELECT is(obj_description('log_6'::regclass, 'pg_class'), 'of its own', 'the comment');
SELECT is((SELECT array[attstattarget::text, substring(attoptions::text from 'n_distinct=50')] FROM pg_attribute
            WHERE attrelid = 'log_6'::regclass AND attname = 'v'), '{17,n_distinct=50}',
  'the statistics target and options of columns');
SELECT is((SELECT array[relreplident::text, reloptions::text] FROM pg_class WHERE oid = 'log_6'::regclass),
  '{f,"{fillfactor=80}"}', 'replica identity and storage parameters');
SELECT is((SELECT count(*) FROM shard_fdw.check_shards('log') WHERE problem ~ 'place|hash|valid'),
  0::bigint, 'the places are right');
DROP TRIGGER note ON log_4;
DROP TRIGGER note ON log_5;
DROP TRIGGER note ON log_6;

-- Queries, changes and ON CONFLICT with mixed moduli.
SELECT is((SELECT count(*) FROM twin t WHERE (SELECT l.id FROM log l WHERE l.id = t.id) IS NULL), 0::bigint,
  'every row is found by its key');
INSERT INTO log (id, v, r) SELECT g, 3, 3 FROM generate_series(1990, 2100) g ON CONFLICT DO NOTHING;
INSERT INTO twin (id, v, r) SELECT g, 3, 3 FROM generate_series(1990, 2100) g ON CONFLICT DO NOTHING;
UPDATE log SET v = 100 WHERE id IN (SELECT g * 3 FROM generate_series(1, 500) g);
UPDATE twin SET v = 100 WHERE id IN (SELECT g * 3 FROM generate_series(1, 500) g);
SELECT is(differences(), 0::bigint, 'changes reach the rows');
SELECT fails($$ INSERT INTO log_4 (id) SELECT id FROM log_5 LIMIT 1 $$, '23514',
  title => 'a part refuses the rows of another one');

-- Merging.
SELECT fails($$ SELECT shard_fdw.merge_shards('log_4', 'log_5') $$, '22023',
  'these shards of foreign table "log" cannot be merged', title => 'two thirds of a place');
SELECT fails($$ SELECT shard_fdw.merge_shards('log_0', 'log_3') $$, '22023',
  'these shards of foreign table "log" cannot be merged', title => 'two places that do not go together');
SELECT fails($$ SELECT shard_fdw.merge_shards('log_0', 'log_0') $$, '22023',
  'merge_shards() requires at least two shards');
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.merge_shards('log_6', 'log_4', 'log_5') shard $$,
  $$ VALUES ('log_7') $$, 'three parts are merged');
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.merge_shards('log_0', 'log_2') shard $$,
  $$ VALUES ('log_8') $$, 'and two others');
SELECT is(places(), 'hash 0 of 2, hash 1 of 4, hash 3 of 4', 'the places then');
SELECT is(differences(), 0::bigint, 'the rows are those of the twin');

-- What is refused.
CREATE VIEW on_shard AS SELECT id FROM log_7;
SELECT fails($$ SELECT shard_fdw.split_shard('log_7') $$, '2BP01', title => 'a view of a shard');
DROP VIEW on_shard;
SELECT fails($$ SELECT shard_fdw.split_shard('log_7', 1) $$, '22023',
  'number of parts must be greater than one');
SELECT fails($$ SELECT shard_fdw.split_shard('log_7', NULL) $$, '22004');
SELECT fails($$ SELECT shard_fdw.split_shard('log_7', 100000) $$, '54000',
  'shard "log_7" cannot be split into 100000 parts');
SELECT fails($$ SELECT shard_fdw.split_shard('model') $$, '42809',
  '"model" is not a shard of one foreign table of shard_fdw');
ALTER TABLE log_7 ENABLE ROW LEVEL SECURITY;
SELECT fails($$ SELECT shard_fdw.split_shard('log_7') $$, '55000',
  'shard "log_7" of foreign table "log" cannot be replaced', title => 'row-level security');
ALTER TABLE log_7 DISABLE ROW LEVEL SECURITY;
SELECT fails($$ CALL shard_fdw.reshard_online('log', 2) $$, '25001',
  'reshard_online() cannot be called in a transaction block');
ALTER TABLE log_7 ADD own int GENERATED ALWAYS AS IDENTITY;
SELECT fails($$ SELECT shard_fdw.split_shard('log_7') $$, '55000', NULL,
  'Its column "own" is an identity column, whose new sequence would begin anew.');
ALTER TABLE log_7 DROP own;
SET LOCAL ROLE shard_user;
SELECT fails($$ SELECT shard_fdw.split_shard('split_test.log_7') $$, '42501');
RESET ROLE;
CREATE FOREIGN TABLE other (id bigint) SERVER shards OPTIONS (shards '2');
SELECT fails($$ SELECT shard_fdw.split_shard('other_0') $$, '0A000',
  'foreign table "other" has route "session"');

-- Ids: the rows keep theirs, and new ones differ.
CREATE FOREIGN TABLE ids (id bigint OPTIONS (sequence 'always') NOT NULL, k int NOT NULL)
  SERVER shards OPTIONS (shards '2', route 'hash', key 'k');
SELECT * FROM shard_fdw.run_command_on_shards('ids', 'CREATE UNIQUE INDEX ON %s (id)');
INSERT INTO ids (k) SELECT generate_series(1, 300);
CREATE TABLE ids_before AS SELECT * FROM ids;
SELECT shard_fdw.split_shard('ids_0');
SELECT fails($$ SELECT shard_fdw.split_shard('ids_1', 3) $$, '55000',
  'foreign table "ids" cannot have places with modulus 6 beside "ids_2" with modulus 4');
SELECT shard_fdw.split_shard('ids_1', 4);
INSERT INTO ids (k) SELECT generate_series(1, 300);
SELECT is((SELECT count(DISTINCT id) FROM ids), 600::bigint, 'no id is given twice');
SELECT is((SELECT count(*) FROM ids_before b WHERE (SELECT i.k FROM ids i WHERE i.id = b.id) = b.k), 300::bigint,
  'rows are found by the ids that they had');
-- Sequences that are behind ids which those of other slots have given.
INSERT INTO ids (k) SELECT 1 FROM generate_series(1, 300);
SELECT tableoid::regclass AS shard FROM ids WHERE k = 1 LIMIT 1 \gset
SELECT shard_fdw.split_shard(:'shard');
SELECT is_empty($$ SELECT * FROM shard_fdw.check_shards('ids') $$, 'they are no problem');
SELECT is_empty($$ SELECT * FROM shard_fdw.sequences WHERE collides AND tbl::text ~ '^ids' $$, 'they do not collide');
INSERT INTO ids OVERRIDING SYSTEM VALUE SELECT max(id) + 1024 * 10, 1 FROM ids;
SELECT is((SELECT count(*) FROM shard_fdw.check_shards('ids') WHERE problem ~ '^sequence .* there already$'), 1::bigint,
  'an id that no sequence has given is one');
SELECT count(*) FROM shard_fdw.reset_sequences('ids');
SELECT is_empty($$ SELECT * FROM shard_fdw.check_shards('ids') $$, 'the remedy mends it');
CREATE FOREIGN TABLE full_ids (id bigint OPTIONS (sequence 'always') NOT NULL, k int NOT NULL)
  SERVER shards OPTIONS (shards '4', max_shards '4', route 'hash', key 'k');
SELECT fails($$ SELECT shard_fdw.merge_shards('full_ids_0', 'full_ids_2') $$, '54000',
  'all 4 slots of foreign table "full_ids" are taken', 'The sequences of its shards go in steps of 4.',
  'Drop a shard.  To replace shards of a hash table, use SELECT shard_fdw.reshard(), which needs no slots beside theirs.');
SELECT is(shard_fdw.reshard('full_ids', 2), 0::bigint, 'that does it');

SELECT finish();
ROLLBACK;
