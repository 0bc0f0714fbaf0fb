-- reshard(): a hash table with another number of shards.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA reshard_test;
SET LOCAL search_path = reshard_test, public;

\ir helpers.psql

CREATE TABLE kinds (kind text PRIMARY KEY);
INSERT INTO kinds VALUES ('a'), ('b');
CREATE TABLE model (id int, kind text REFERENCES kinds, body text CHECK (body <> ''),
  n int DEFAULT 7,
                    twice int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (id, kind));
CREATE INDEX ON model (n) WHERE n > 5;
CREATE FOREIGN TABLE items (id int GENERATED ALWAYS AS IDENTITY, kind text, body text,
  n int DEFAULT 7,
                            twice int GENERATED ALWAYS AS (n * 2) STORED)
  SERVER shards OPTIONS (shards '3', route 'hash', key 'id, kind', template 'reshard_test.model');
INSERT INTO items (kind, body, n) SELECT CASE WHEN g % 3 = 0 THEN 'a' ELSE 'b' END,
  repeat(md5(g::text), g % 200), g % 10 FROM generate_series(1, 3000) g
  WHERE g % 200 > 0;
CREATE TABLE plain AS SELECT * FROM items;

-- Triggers do not fire for rows that move, and are afterwards as they were.
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired %',
  TG_NAME; END $$;
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['items', 'items_0', 'items_1', 'items_2'] LOOP
    EXECUTE format('CREATE TRIGGER origin BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION '
                   'forbid()', t);
    EXECUTE format('CREATE TRIGGER always AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION forbid()', t);
    EXECUTE format('CREATE TRIGGER replica AFTER INSERT ON %s EXECUTE FUNCTION forbid()', t);
    EXECUTE format('CREATE TRIGGER off AFTER INSERT ON %s EXECUTE FUNCTION forbid()', t);
    EXECUTE format('CREATE TRIGGER gone AFTER DELETE ON %s EXECUTE FUNCTION forbid()', t);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica, '
                   'DISABLE TRIGGER off', t);
  END LOOP;
END $$;
CREATE VIEW triggers AS
SELECT string_agg(DISTINCT tgname::text || ' ' || tgenabled::text, ', ' ORDER BY tgname::text || ' '
  || tgenabled::text) AS states,
       count(*) AS n, count(DISTINCT tgrelid) AS tables
  FROM pg_trigger
 WHERE NOT tgisinternal AND (tgrelid = 'items'::regclass
   OR tgrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'items'::regclass));
CREATE VIEW layout AS
SELECT string_agg(c.relname || ' ' || (SELECT pg_get_constraintdef(o.oid) FROM pg_constraint o
    WHERE o.conrelid = c.oid AND conname = 'shard_hash'), ', '
                  ORDER BY c.relname COLLATE "C") AS shards
  FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'items'::regclass;

PREPARE all_rows AS SELECT * FROM items EXCEPT ALL SELECT * FROM plain;
PREPARE one_row (int) AS SELECT count(*) FROM items WHERE id = $1 AND kind = 'a';
SELECT is_empty('EXECUTE all_rows', 'before');

CREATE FUNCTION check_reshard(count int) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEXT is(shard_fdw.reshard('items', count), (SELECT count(*) FROM plain), 'to ' || count
    || ' shards: all rows move');
  RETURN NEXT results_eq('SELECT * FROM items ORDER BY id', 'SELECT * FROM plain ORDER BY id',
    'before and after reshard() the rows are the same, and are there');
  RETURN NEXT is((SELECT shards FROM layout),
    (SELECT string_agg(format('items_%s CHECK (shard_fdw.in_hash(%s, %s, id, kind))', i, count, i),
        ', ' ORDER BY format('items_%s', i) COLLATE "C")
       FROM generate_series(0, count - 1) i), 'before: the shards have the usual names and places');
  RETURN NEXT is((SELECT t::text FROM triggers t),
    format('("always A, gone O, off D, origin O, replica R",%s,%s)', 5 * (count + 1), count + 1),
    'before: the triggers are as they were');
  RETURN NEXT is((SELECT count(*) FROM pg_index JOIN pg_inherits ON inhrelid = indrelid
      WHERE inhparent = 'items'::regclass), 2::bigint * count,
    'before: the indexes, too');
  RETURN NEXT is((SELECT count(*) FROM pg_constraint JOIN pg_inherits ON inhrelid = conrelid
      WHERE inhparent = 'items'::regclass AND contype = 'f'),
    count::bigint, 'before: the foreign keys, too');
  RETURN NEXT is((SELECT count(*) FROM pg_class WHERE relname LIKE 'reshard\_%'), 0::bigint,
    'before, and nothing is left over');
END $$;
SET LOCAL shard_fdw.shard = 1;
SELECT check_reshard(5);
SELECT check_reshard(2);
SELECT check_reshard(24);
SELECT check_reshard(1);
SELECT check_reshard(3);
RESET shard_fdw.shard;
SELECT is_empty('EXECUTE all_rows', 'prepared statements go on');
SELECT results_eq('EXECUTE one_row(3)', 'SELECT 1::bigint',
  'prepared statements go on, with the right shard');
SELECT is((SELECT count(*) FROM pg_class WHERE relname ~ '^items_0_pkey'), 1::bigint,
  'indexes have their usual names');
ALTER TABLE items DISABLE TRIGGER USER;
SELECT ok(bool_and(success), 'triggers off') FROM shard_fdw.run_command_on_shards('items',
  'ALTER TABLE %s DISABLE TRIGGER USER');
INSERT INTO items (kind, body) VALUES ('a', 'new');
SELECT is((SELECT count(*) FROM items WHERE body = 'new' AND id > 3000 - 20 AND twice = 14),
  1::bigint, 'the identity column goes on');
SELECT fails($$ INSERT INTO items (kind, body) VALUES ('c', 'new') $$, '23503',
  title => 'the foreign key is enforced');
SELECT fails($$ INSERT INTO items (kind, body) VALUES ('a', '') $$, '23514',
  title => 'the CHECK constraint is enforced');
DELETE FROM items WHERE body = 'new';

-- Sets that are not in order are, afterwards.
SAVEPOINT s;
CREATE TABLE lost AS SELECT * FROM items_1;
DROP TABLE items_1;
CREATE TABLE more (twice int GENERATED ALWAYS AS (n * 2) STORED, n int, body text,
  kind text NOT NULL, id int NOT NULL);
INSERT INTO more (id, kind, body, n) SELECT id, kind, body, n FROM lost;
ALTER TABLE more INHERIT items;
SELECT is(shard_fdw.reshard('items', 4), (SELECT count(*) FROM plain), 'a shard with no place');
SELECT is_empty('EXECUTE all_rows', 'a shard with no place, and its rows move');
SELECT is((SELECT count(*) FROM items WHERE id = 3 AND kind = 'a'), 1::bigint,
  'a shard with no place: its rows can be found');
SELECT hasnt_table('reshard_test', 'more', 'a shard with no place: it is gone');
ROLLBACK TO s;

-- A table of the owner's, called by another who may not, and by one who may.
SAVEPOINT s;
GRANT USAGE ON SCHEMA reshard_test TO shard_user;
SET LOCAL ROLE shard_user;
SELECT fails('SELECT shard_fdw.reshard(''items'', 4)', '42501',
  'must be owner of foreign table items', '', '', title => 'only the owner');
RESET ROLE;
GRANT CREATE ON SCHEMA reshard_test TO shard_user;
ALTER TABLE items OWNER TO shard_user;
SELECT ok(bool_and(success), 'ownership') FROM shard_fdw.run_command_on_shards('items',
  'ALTER TABLE %s OWNER TO shard_user');
GRANT REFERENCES, SELECT ON kinds TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is(shard_fdw.reshard('items', 4), 2985::bigint, 'an owner that is no superuser');
RESET ROLE;
SELECT is(shard_fdw.reshard('items', 3), (SELECT count(*) FROM plain), 'a superuser for the owner');
SELECT is((SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class
    WHERE relname ~ '^items'), '{shard_user}', 'the shards are the owner''s');
ROLLBACK TO s;

-- What is refused
SELECT fails(format('SELECT shard_fdw.reshard(%s)', args), state, message, detail, hint,
  title => args) FROM (VALUES
  ('NULL, 3', '22004', 'logical table must not be null', '', ''),
  ('''items'', NULL', '22004', 'number of shards must not be null', '', ''),
  ('''items'', 0', '22023', 'number of shards must be greater than zero', '', ''),
  ('''items'', 2000', '54000', 'foreign table "items" cannot have more than 1024 shards', '',
    'Raise option "max_shards" of the foreign table.'),
  ('''plain'', 2', '42809', '"plain" is not a foreign table of shard_fdw', '', ''),
  ('1, 2', '42P01', 'relation with OID 1 does not exist', '', '')
 ) t(args, state, message, detail, hint);
SELECT fails('SELECT shard_fdw.reshard(''items'', 4) FROM items', '55006',
  title => 'a table that the query reads');
CREATE FOREIGN TABLE log (a int) SERVER shards OPTIONS (shards '2');
SELECT fails('SELECT shard_fdw.reshard(''log'', 4)', '0A000',
  'foreign table "log" has route "session"',
  'Only with route "hash" the number of shards decides where rows are.',
  'Add shards with SELECT shard_fdw.create_shards().', title => 'another route');
CREATE FOREIGN TABLE empty (a int) SERVER shards OPTIONS (route 'hash', key 'a');
SELECT fails('SELECT shard_fdw.reshard(''empty'', 4)', NULL, 'foreign table "empty" has no shards',
  title => 'no shards');
CREATE TABLE numbers AS SELECT generate_series(1, 100) AS n;
ALTER TABLE numbers ADD PRIMARY KEY (n);
CREATE FOREIGN TABLE hash (a int) SERVER shards OPTIONS (shards '2', route 'hash', key 'a');
SAVEPOINT s;
SELECT shard_fdw.seal('hash_1');
SELECT fails('SELECT shard_fdw.reshard(''hash'', 4)', '55000',
  'shard "hash_1" of foreign table "hash" is sealed', 'Its rows would move to shards that are not.',
  'Open it with SELECT shard_fdw.unseal().', title => 'a sealed shard');
ROLLBACK TO s;
ALTER TABLE hash_1 ADD more int;
SELECT fails('SELECT shard_fdw.reshard(''hash'', 4)', '55000',
  'shard "hash_1" has a column "more" that foreign table "hash" has not',
  'Its values would be lost.', 'Add the column to the foreign table, or drop it from the shard.',
  title => 'a column of one shard alone');
ROLLBACK TO s;
CREATE TABLE child () INHERITS (hash_0);
SELECT fails('SELECT shard_fdw.reshard(''hash'', 4)', NULL,
  detail => 'Shard "hash_0" has inheritance children.', title => 'a shard with children');
ROLLBACK TO s;
CREATE FOREIGN TABLE far (a int) SERVER shards;
ALTER FOREIGN TABLE far INHERIT hash;
SELECT fails('SELECT shard_fdw.reshard(''hash'', 4)', NULL,
  detail => 'Shard "far" is a foreign table.', title => 'a shard that is a foreign table');
ROLLBACK TO s;
CREATE VIEW uses AS SELECT * FROM hash_1;
INSERT INTO hash SELECT generate_series(1, 100);
SELECT fails('SELECT shard_fdw.reshard(''hash'', 4)', '2BP01',
  title => 'a shard that something depends on');
SELECT is((SELECT count(*) FROM hash), 100::bigint,
  'a shard that something depends on, and nothing has changed');
SELECT is((SELECT count(*) FROM uses), (SELECT count(*) FROM hash_1),
  'a shard that something depends on: nothing at all has changed');
ROLLBACK TO s;
CREATE TABLE hash_5 ();
SELECT fails('SELECT shard_fdw.reshard(''hash'', 6)', NULL, 'relation "hash_5" already exists',
  title => 'a name that is taken');
ROLLBACK TO s;

-- What would be lost with a shard.
ALTER TABLE hash_0 ENABLE ROW LEVEL SECURITY;
SELECT fails('SELECT shard_fdw.reshard(''hash'', 3)', '55000',
  'shard "hash_0" of foreign table "hash" cannot be replaced', 'It has row-level security.',
  'Disable it, and create its policies on the new shards.', title => 'row-level security');
ROLLBACK TO s;
CREATE PUBLICATION reshard_test FOR TABLE hash_1;
SELECT fails('SELECT shard_fdw.reshard(''hash'', 3)', NULL,
  detail => 'It belongs to a publication.', title => 'a publication');
ROLLBACK TO s;
CREATE TABLE other_parent (a int);
ALTER TABLE hash_1 INHERIT other_parent;
SELECT fails('SELECT shard_fdw.reshard(''hash'', 3)', NULL,
  detail => 'It inherits from another table, too.', title => 'another parent');
ROLLBACK TO s;

-- A table with a serial column of its own becomes the first shard.
CREATE FOREIGN TABLE serial (id int, n int) SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE serial_0 (id serial PRIMARY KEY, n int REFERENCES numbers DEFERRABLE INITIALLY
  DEFERRED, CHECK (shard_fdw.in_hash(1, 0, id)));
INSERT INTO serial_0 (n) SELECT g FROM generate_series(1, 20) g;
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
ALTER TABLE serial_0 INHERIT serial;
SELECT is(shard_fdw.reshard('serial', 4), 20::bigint,
  'a table with a sequence of its own, and a deferred foreign key');
SELECT is(shard_fdw.reshard('serial', 3), 20::bigint,
  'a table with a sequence of its own, and a deferred foreign key, twice in a transaction');
SELECT is((SELECT array_agg(DISTINCT pg_get_expr(adbin, adrelid)) FROM pg_attrdef
    WHERE adrelid IN ('serial_0'::regclass, 'serial_1'::regclass, 'serial_2'::regclass)),
  '{nextval(''serial_0_id_seq''::regclass)}',
  'a table with a sequence of its own: its new shards draw from it');
SELECT is(pg_get_serial_sequence('serial_0', 'id'), 'reshard_test.serial_0_id_seq',
  'a table with a sequence of its own, and a deferred foreign key, which belongs to one of them');
SELECT is((SELECT array_agg(conname::text) FROM pg_constraint WHERE conrelid = 'serial_2'::regclass
    AND contype = 'f'), '{serial_2_n_fkey}',
  'a table with a deferred foreign key: the foreign keys have the usual names');
CREATE SCHEMA reshard_parts;
ALTER FOREIGN TABLE serial OPTIONS (ADD shard_schema 'reshard_parts');
SELECT is(shard_fdw.reshard('serial', 2), 20::bigint, 'new shards in another schema');
SELECT is(pg_get_serial_sequence('reshard_parts.serial_0', 'id'), 'reshard_parts.serial_0_id_seq',
  'new shards in another schema take the sequence with them');

-- Ids of the shards' own sequences.
CREATE FOREIGN TABLE ids (id bigint OPTIONS (sequence 'always'), k int) SERVER shards
  OPTIONS (shards '2', route 'hash', key 'k');
INSERT INTO ids (k) SELECT generate_series(1, 50);
CREATE TEMP TABLE ids_before AS SELECT * FROM ids;
SELECT is(shard_fdw.reshard('ids', 3), 50::bigint, 'shards with sequences');
SELECT set_eq('SELECT * FROM ids', 'SELECT * FROM ids_before',
  'shards with sequences: the rows keep their ids');
INSERT INTO ids (k) SELECT generate_series(51, 100);
SELECT is((SELECT count(DISTINCT id) FROM ids), 100::bigint,
  'shards with sequences, and new ones are different');
SELECT is((SELECT array_agg(relname::text ORDER BY relname) FROM pg_class
    WHERE relname ~ '^ids_id_._seq'),
  '{ids_id_1_seq,ids_id_2_seq,ids_id_3_seq,ids_id_4_seq,ids_id_5_seq}',
  'shards with sequences: the sequences have the usual names, those of the old shards are kept');
DELETE FROM ids;
CREATE TEMP TABLE ids_given AS SELECT id FROM ids_before;
SELECT is(shard_fdw.reshard('ids', n), 0::bigint, format('no rows, to %s shards', n))
  FROM unnest('{2,4,1,3}'::int[]) n;
WITH i AS (INSERT INTO ids (k) SELECT generate_series(1, 200) RETURNING id) INSERT INTO ids_given
  SELECT id FROM i;
SELECT is((SELECT count(*) - count(DISTINCT id) FROM ids_given), 0::bigint,
  'shards with sequences: no id is given twice after rows have been deleted');
CREATE FOREIGN TABLE ids_few (id bigint OPTIONS (sequence 'always'), k int) SERVER shards
  OPTIONS (shards '2', max_shards '3', route 'hash', key 'k');
CREATE TEMP TABLE few_given (id bigint);
DO $$ BEGIN
  FOR i IN 1 .. 12 LOOP
    WITH i AS (INSERT INTO ids_few (k) SELECT generate_series(1, 10) RETURNING id)
      INSERT INTO few_given SELECT id FROM i;
    IF i % 4 = 0 THEN DELETE FROM ids_few; END IF;
    PERFORM shard_fdw.reshard('ids_few', 1 + i % 3);
  END LOOP;
END $$;
SELECT is((SELECT count(DISTINCT id) FROM few_given), 120::bigint,
  'shards with sequences, when slots have to be used again, too');

SELECT * FROM finish();
ROLLBACK;
