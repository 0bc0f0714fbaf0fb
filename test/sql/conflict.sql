-- INSERT ... ON CONFLICT into hash tables.
--
-- Statements are run on a plain table and on a hash table of the same name,
-- whose shards have several layouts.  What they return, how many rows they
-- report, which triggers fire, how they fail and what they leave behind must
-- be the same.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA conflict_test;
CREATE SCHEMA plain;
CREATE SCHEMA sharded;
SET LOCAL search_path = conflict_test, public;
\ir helpers.psql

CREATE TABLE fired (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO conflict_test.fired
  VALUES (concat_ws(' ', TG_WHEN, TG_OP, TG_LEVEL, CASE WHEN TG_LEVEL = 'ROW' THEN
            concat_ws(' ', CASE WHEN TG_OP = 'UPDATE' THEN row(OLD.id, OLD.kind, OLD.v, OLD.n,
                OLD.twice) END,
                           row(NEW.id, NEW.kind, NEW.v, NEW.n, CASE WHEN TG_WHEN = 'AFTER'
                             THEN NEW.twice END)) END));
  IF TG_LEVEL = 'ROW' AND TG_WHEN = 'BEFORE' THEN
    IF NEW.v = 'skip ' || lower(TG_OP) THEN RETURN NULL; END IF;
    IF NEW.v = 'change ' || lower(TG_OP) THEN NEW.v := 'changed'; NEW.n := NEW.n + 100; END IF;
  END IF;
  RETURN NEW;
END $$;

CREATE TABLE plain.items (id int, kind text, v text CHECK (v <> 'bad'), n int DEFAULT 1,
                          twice int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (id, kind));
CREATE UNIQUE INDEX ON plain.items (id, lower(kind)) WHERE n > 1000;
CREATE FOREIGN TABLE sharded.items (id int, kind text, v text, n int DEFAULT 1,
  twice int GENERATED ALWAYS AS (n * 2) STORED)
  SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE sharded.same (LIKE plain.items INCLUDING ALL, CHECK (shard_fdw.in_hash(3, 0, id)));
CREATE TABLE sharded.other (n int DEFAULT 1, gone int, v text CHECK (v <> 'bad'),
  twice int GENERATED ALWAYS AS (n * 2) STORED,
                            more text DEFAULT 'more', id int, kind text, PRIMARY KEY (kind, id),
                            CHECK (shard_fdw.in_hash(3, 1, id)));
ALTER TABLE sharded.other DROP gone;
CREATE UNIQUE INDEX ON sharded.other (lower(kind), id) WHERE n > 1000;
CREATE TABLE sharded.third (kind text, id int, twice int GENERATED ALWAYS AS (n * 2) STORED,
  n int DEFAULT 1, v text CHECK (v <> 'bad'),
                            PRIMARY KEY (id, kind), CHECK (shard_fdw.in_hash(3, 2, id)));
CREATE UNIQUE INDEX ON sharded.third (id, lower(kind)) WHERE n > 1000;
ALTER TABLE sharded.same INHERIT sharded.items;
ALTER TABLE sharded.other INHERIT sharded.items;
ALTER TABLE sharded.third INHERIT sharded.items;

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['plain.items', 'sharded.same', 'sharded.other', 'sharded.third'] LOOP
    EXECUTE format('CREATE TRIGGER note_before BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE '
                   'FUNCTION note()', t);
    EXECUTE format('CREATE TRIGGER note_after AFTER INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE '
                   'FUNCTION note()', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['plain.items', 'sharded.items'] LOOP
    EXECUTE format('CREATE TRIGGER note_first BEFORE INSERT OR UPDATE ON %s EXECUTE FUNCTION note()', t);
    EXECUTE format('CREATE TRIGGER note_last AFTER INSERT OR UPDATE ON %s EXECUTE FUNCTION note()',
      t);
    EXECUTE format('CREATE VIEW %s AS SELECT kind, id AS number, v, n FROM %s WHERE n < 5000 WITH '
                   'CHECK OPTION',
                   replace(t, 'items', 'view'), t);
    EXECUTE format('INSERT INTO %s SELECT g, ''k'', ''old '' || g FROM generate_series(1, 30) g',
      t);
  END LOOP;
END $$;

-- What a command returns and does in one of the schemas.
CREATE FUNCTION outcome(command text, schema text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  r record;
  result text[] := '{}';
  count bigint;
  state text;
  message text;
BEGIN
  PERFORM set_config('search_path', schema || ', conflict_test, public', true);
  TRUNCATE conflict_test.fired;
  BEGIN
    IF command ~ 'RETURNING|^\s*(WITH|EXECUTE)' THEN
      FOR r IN EXECUTE command LOOP result := result || r::text; END LOOP;
      result := ARRAY(SELECT u FROM unnest(result) u ORDER BY u COLLATE "C");
    ELSE
      EXECUTE command;
      GET DIAGNOSTICS count = ROW_COUNT;
      result := ARRAY[count::text];
    END IF;
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    result := ARRAY[state, regexp_replace(message, '"(items|same|other|third)(_\w+)?"', '...',
        'g')];
  END;
  result := result || '--'::text || ARRAY(SELECT what FROM conflict_test.fired
    ORDER BY what COLLATE "C");
  EXECUTE 'SELECT $1 || ''--''::text || ARRAY(SELECT row(id, kind, v, n, twice)::text FROM items '
          'ORDER BY id, kind)'
    INTO result USING result;
  PERFORM set_config('search_path', 'conflict_test, public', true);
  RETURN result;
END $$;
CREATE FUNCTION same(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  here text[] := outcome(command, 'sharded');
  there text[] := outcome(command, 'plain');
BEGIN
  RETURN is(ARRAY(SELECT unnest(here) EXCEPT ALL SELECT unnest(there)),
            ARRAY(SELECT unnest(there) EXCEPT ALL SELECT unnest(here)), command);
END $$;

-- What EXPLAIN ANALYZE says of conflicts.
CREATE FUNCTION explained(command text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  line text;
  result text[] := '{}';
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) '
    || command LOOP
    IF line ~ 'Conflict|Tuples|Route' THEN result := result || btrim(line); END IF;
  END LOOP;
  RETURN result;
END $$;

SELECT same(command) FROM unnest(ARRAY[
  -- no target
  $$ INSERT INTO items VALUES (1, 'k', 'again') ON CONFLICT DO NOTHING $$,
  $$ INSERT INTO items VALUES (40, 'k', 'new') ON CONFLICT DO NOTHING RETURNING * $$,
  $$ INSERT INTO items VALUES (40, 'k', 'again'), (41, 'k', 'new'), (41, 'k', 'twice'),
    (2, 'k', 'again'), (2, 'l', 'new'), (NULL, 'k', 'null')
     ON CONFLICT DO NOTHING RETURNING * $$,
  $$ INSERT INTO items VALUES (40, 'k', 'again'), (41, 'k', 'again'), (42, 'k', 'new'),
    (42, 'k', 'twice'), (43, 'l', 'new')
     ON CONFLICT DO NOTHING RETURNING * $$,
  $$ INSERT INTO items SELECT g, 'k', 'many' FROM generate_series(25, 50) g ON CONFLICT DO NOTHING
    RETURNING id, v $$,
  $$ INSERT INTO items SELECT id + 3, kind, 'shifted' FROM items ON CONFLICT DO NOTHING $$,
  $$ WITH found AS (SELECT * FROM items WHERE id = 60),
          made AS (INSERT INTO items SELECT 60, 'k', 'made' WHERE NOT EXISTS (SELECT FROM found)
            ON CONFLICT DO NOTHING RETURNING *)
     SELECT * FROM found UNION ALL SELECT * FROM made $$,
  $$ WITH found AS (SELECT * FROM items WHERE id = 60),
          made AS (INSERT INTO items SELECT 60, 'k', 'again' WHERE NOT EXISTS (SELECT FROM found)
            ON CONFLICT DO NOTHING RETURNING *)
     SELECT * FROM found UNION ALL SELECT * FROM made $$,
  -- DO NOTHING with a target
  $$ INSERT INTO items VALUES (1, 'k', 'again') ON CONFLICT (id, kind) DO NOTHING RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'again'), (1, 'm', 'new'), (70, 'k', 'new'),
    (70, 'k', 'twice') ON CONFLICT (kind, id) DO NOTHING RETURNING * $$,
  $$ INSERT INTO items VALUES (71, 'A', 'new', 2000), (71, 'a', 'partial', 2000)
    ON CONFLICT (id, lower(kind)) WHERE n > 1000 DO NOTHING RETURNING * $$,
  $$ INSERT INTO items VALUES (71, 'a', 'partial', 2000) ON CONFLICT (id, kind) DO NOTHING
    RETURNING * $$,
  $$ INSERT INTO items VALUES (72, 'a', 'x', 2000), (73, 'a', 'x', 2000), (74, 'a', 'x', 2000)
    ON CONFLICT (lower(kind), id) WHERE n > 1000 AND n < 3000 DO NOTHING $$,
  $$ INSERT INTO items VALUES (72, 'A', 'x', 1999), (73, 'A', 'x', 5), (74, 'A', 'x', 2000)
    ON CONFLICT (lower(kind), id) WHERE n > 2000 DO NOTHING $$,
  $$ INSERT INTO items VALUES (72, 'B', 'x') ON CONFLICT (lower(kind), id) DO NOTHING $$,
  $$ INSERT INTO items VALUES (72, 'B', 'x') ON CONFLICT (lower(kind), id)
    WHERE n > 500 DO NOTHING $$,
  -- DO UPDATE
  $$ INSERT INTO items VALUES (1, 'k', 'new', 5) ON CONFLICT (id, kind) DO
    UPDATE SET v = EXCLUDED.v, n = items.n + EXCLUDED.n $$,
  $$ INSERT INTO items VALUES (1, 'k', 'new', 5), (2, 'k', 'new', 6), (3, 'k', 'new', 7),
    (4, 'k', 'new', 8), (80, 'k', 'new', 9)
     ON CONFLICT (id, kind) DO UPDATE SET v = items.v || ' ' || EXCLUDED.v, n = EXCLUDED.n
       RETURNING *, xmax = 0 AS inserted $$,
  $$ INSERT INTO items SELECT g, 'k', 'many' FROM generate_series(1, 100) g ON CONFLICT (id, kind)
    DO UPDATE SET n = items.n + 1 $$,
  $$ INSERT INTO items SELECT id, kind, 'self', n FROM items ON CONFLICT (id, kind) DO
    UPDATE SET (v, n) = (EXCLUDED.v, items.n + EXCLUDED.n) RETURNING v, n, twice $$,
  $$ INSERT INTO items AS i VALUES (1, 'k', 'where'), (2, 'k', 'where'), (3, 'k', 'where'),
    (101, 'k', 'where')
     ON CONFLICT (id, kind) DO UPDATE SET v = EXCLUDED.v WHERE i.id <> 2 AND EXCLUDED.id <> 3
       RETURNING i.id, i.v $$,
  $$ INSERT INTO items VALUES (1, 'k', 'never') ON CONFLICT (id, kind) DO UPDATE SET v = 'no'
    WHERE false RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'null') ON CONFLICT (id, kind) DO UPDATE SET v = 'no'
    WHERE items.v = NULL RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'sub'), (2, 'k', 'sub'), (3, 'k', 'sub'), (102, 'k', 'sub')
     ON CONFLICT (id, kind) DO UPDATE SET v = (SELECT max(v) FROM items s WHERE s.id < EXCLUDED.id
       AND s.id < 5) WHERE EXISTS (SELECT FROM items s WHERE s.id = items.id) $$,
  $$ INSERT INTO items (id, kind) VALUES (1, 'k'), (2, 'k'), (3, 'k') ON CONFLICT (id, kind) DO
    UPDATE SET v = DEFAULT, n = DEFAULT, twice = DEFAULT RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'a', 50), (2, 'k', 'b', 50), (3, 'k', 'c', 50)
    ON CONFLICT (id, kind) DO UPDATE SET n = EXCLUDED.twice + items.twice RETURNING n, twice $$,
  $$ INSERT INTO items VALUES (71, 'a', 'partial', 2001) ON CONFLICT (id, lower(kind))
    WHERE n > 1000 DO UPDATE SET v = EXCLUDED.v, kind = EXCLUDED.kind RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'same key'), (2, 'k', 'same key'), (3, 'k', 'same key')
    ON CONFLICT (id, kind) DO UPDATE SET id = EXCLUDED.id, v = EXCLUDED.v RETURNING id, v $$,
  $$ INSERT INTO items VALUES (1, 'k', 'row'), (2, 'k', 'row'), (3, 'k', 'row')
    ON CONFLICT (id, kind) DO UPDATE SET v = items::text || EXCLUDED::text RETURNING items $$,
  $$ INSERT INTO items VALUES (1, 'k', 'sys'), (2, 'k', 'sys'), (3, 'k', 'sys')
    ON CONFLICT (id, kind) DO UPDATE SET v = 'system' WHERE items.xmin IS NOT NULL
      AND items.ctid IS NOT NULL RETURNING v $$,
  $$ WITH up AS (INSERT INTO items VALUES (1, 'k', 'cte'), (2, 'k', 'cte'), (3, 'k', 'cte')
      ON CONFLICT (id, kind) DO UPDATE SET v = EXCLUDED.v RETURNING *),
          more AS (INSERT INTO items SELECT id + 200, kind FROM up ON CONFLICT (kind, id) DO NOTHING
            RETURNING *)
     INSERT INTO items SELECT id + 10, kind, v FROM up UNION SELECT id, kind, v FROM more
     ON CONFLICT (id, kind) DO UPDATE SET v = EXCLUDED.v || items.v RETURNING * $$,
  -- triggers that change or skip
  $$ INSERT INTO items VALUES (1, 'k', 'skip insert'), (2, 'k', 'skip insert'),
    (3, 'k', 'change insert'), (4, 'k', 'change insert'), (5, 'k', 'change insert')
     ON CONFLICT (id, kind) DO UPDATE SET v = EXCLUDED.v, n = EXCLUDED.n RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'x'), (2, 'k', 'x'), (3, 'k', 'x'), (4, 'k', 'x')
    ON CONFLICT (id, kind) DO UPDATE SET v = 'skip update' RETURNING * $$,
  $$ INSERT INTO items VALUES (1, 'k', 'x'), (2, 'k', 'x'), (3, 'k', 'x'), (4, 'k', 'x')
    ON CONFLICT (id, kind) DO UPDATE SET v = 'change update' RETURNING * $$,
  -- through a view
  $$ INSERT INTO view VALUES ('k', 1, 'view', 7), ('k', 2, 'view', 7), ('k', 3, 'view', 7),
    ('k', 300, 'view', 7) ON CONFLICT (kind, number) DO UPDATE SET v = EXCLUDED.v || view.n
      RETURNING * $$,
  $$ INSERT INTO view VALUES ('k', 1, 'view', 7) ON CONFLICT (kind, number) DO
    UPDATE SET n = 6000 $$,
  $$ INSERT INTO view VALUES ('k', 301, 'view', 6000) ON CONFLICT (kind, number) DO
    UPDATE SET n = 1 $$,
  -- errors
  $$ INSERT INTO items VALUES (1, 'k'), (1, 'k') ON CONFLICT (id, kind) DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (400, 'k'), (400, 'k') ON CONFLICT (id, kind) DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (2, 'k'), (2, 'k') ON CONFLICT (id, kind) DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT (id, kind) DO UPDATE SET v = 'bad' $$,
  $$ INSERT INTO items VALUES (3, 'k', 'bad') ON CONFLICT (id, kind) DO UPDATE SET v = 'good' $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT (id, kind) DO UPDATE SET kind = NULL $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT (id, kind) DO UPDATE SET twice = 1 $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT (id, kind) DO UPDATE SET nothing = 1 $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT (id, v) DO NOTHING $$,
  $$ INSERT INTO items VALUES (71, 'x', '', 2000) ON CONFLICT (id, kind) DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (72, 'A', '', 2000) ON CONFLICT (id, kind) DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (73, 'A', '', 2000) ON CONFLICT (id, kind) DO UPDATE SET n = 1 $$,
  $$ INSERT INTO items VALUES (74, 'A', '', 2000) ON CONFLICT (id, kind) DO
    UPDATE SET n = 1 $$]) command;

-- What must not be null simplifies the expressions of indexes and of conflict targets.
SAVEPOINT s;
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['plain.items', 'sharded.same', 'sharded.other', 'sharded.third'] LOOP
    EXECUTE format('ALTER TABLE %s ALTER n SET NOT NULL', t);
    EXECUTE format('CREATE UNIQUE INDEX ON %s (id, coalesce(kind, v), (n IS NULL)) WHERE n > 0', t);
    EXECUTE format('CREATE UNIQUE INDEX ON %s (id, (kind || ''!'')) WHERE n IS NOT NULL AND v IS '
                   'NOT NULL', t);
  END LOOP;
END $$;
SELECT same(command) FROM unnest(ARRAY[
  $$ INSERT INTO items VALUES (1, 'k', 'x') ON CONFLICT (id, coalesce(kind, v), (n IS NULL))
    WHERE n > 0 DO UPDATE SET v = 'by expression' RETURNING * $$,
  $$ INSERT INTO items VALUES (2, 'k', 'x') ON CONFLICT (id, (kind || '!')) WHERE v IS NOT NULL
    AND n IS NOT NULL DO UPDATE SET v = 'by condition' RETURNING * $$,
  $$ INSERT INTO items VALUES (3, 'k', 'x') ON CONFLICT (id, (kind || '!')) WHERE v > ''
    AND n > 7 DO NOTHING RETURNING * $$,
  $$ INSERT INTO items VALUES (3, 'K', 'x') ON CONFLICT (id, lower(kind), coalesce(n, 1)) DO NOTHING
    RETURNING * $$]) command;
ROLLBACK TO s;

-- DO SELECT.
SELECT current_setting('server_version_num')::int >= 190000 AS v19 \gset
\if :v19
SELECT same(command) FROM unnest(ARRAY[
  $$ INSERT INTO items VALUES (1, 'k', 'x'), (2, 'k', 'x'), (800, 'k', 'new')
    ON CONFLICT (id, kind) DO SELECT RETURNING * $$,
  $$ INSERT INTO items SELECT g, 'k', 'x' FROM generate_series(790, 810) g ON CONFLICT (id, kind) DO
    SELECT FOR UPDATE RETURNING id, v, new.twice $$,
  $$ INSERT INTO items SELECT g, 'k', 'x' FROM generate_series(1, 12) g ON CONFLICT (id, kind) DO
    SELECT FOR KEY SHARE WHERE items.id % 2 = 0 AND EXCLUDED.v = 'x' RETURNING * $$,
  $$ INSERT INTO items VALUES (820, 'k', 'x'), (820, 'k', 'y') ON CONFLICT (id, kind) DO
    SELECT RETURNING * $$,
  $$ INSERT INTO items VALUES (821, 'k', 'x'), (821, 'k', 'y') ON CONFLICT (id, kind) DO
    SELECT FOR SHARE RETURNING * $$,
  $$ INSERT INTO items VALUES (73, 'A', '', 2000), (72, 'x', '', 2000) ON CONFLICT (id, lower(kind))
    WHERE n > 1000 DO SELECT RETURNING id, v $$,
  $$ WITH i AS (INSERT INTO items VALUES (3, 'k'), (822, 'k') ON CONFLICT (id, kind) DO
      SELECT FOR NO KEY UPDATE RETURNING id, v) SELECT * FROM i $$,
  $$ INSERT INTO items VALUES (1, 'k', 'skip insert') ON CONFLICT (id, kind) DO
    SELECT RETURNING * $$,
  $$ INSERT INTO view VALUES ('k', 4, 'x'), ('k', 823, 'x') ON CONFLICT (number, kind) DO
    SELECT RETURNING * $$,
  $$ INSERT INTO items VALUES (3, 'k') ON CONFLICT (id, kind) DO SELECT $$]) command;
SELECT results_eq('SELECT id, kind, xmax <> 0 FROM sharded.items ORDER BY id, kind',
  'SELECT id, kind, xmax <> 0 FROM plain.items ORDER BY id, kind',
  'rows that are selected FOR something are locked, and no others');
SELECT is(explained($$ INSERT INTO sharded.items VALUES (1, 'k'), (2, 'k'), (830, 'k')
      ON CONFLICT (id, kind) DO SELECT FOR UPDATE WHERE items.id > 1 RETURNING * $$),
  ARRAY['Route: hash', 'Conflict Resolution: SELECT FOR UPDATE', 'Conflict Filter: (items.id > 1)',
    'Rows Removed by Conflict Filter: 1', 'Tuples Inserted: 1',
        'Conflicting Tuples: 2'], 'EXPLAIN of DO SELECT');
SELECT fails(
  $$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind) DO SELECT RETURNING old.v $$,
  '0A000', 'cannot return old values from ON CONFLICT DO SELECT on foreign table "items"',
  title => 'DO SELECT returns no old values');
\endif

-- Columns that only a shard has keep their values.
UPDATE sharded.other SET more = 'kept ' || id;
INSERT INTO sharded.items SELECT g, 'k', 'kept' FROM generate_series(1, 20) g ON CONFLICT (id, kind)
  DO UPDATE SET v = EXCLUDED.v;
SELECT ok(bool_and(more = 'kept ' || id) AND count(*) > 3,
  'columns of the shard alone keep their values') FROM sharded.other WHERE v = 'kept';

-- The same in prepared statements, with generic and custom plans, and in functions.
PREPARE upsert_sharded (int, text) AS INSERT INTO sharded.items VALUES ($1, 'p', $2)
  ON CONFLICT (id, kind) DO UPDATE SET v = items.v || EXCLUDED.v || $2 RETURNING v;
PREPARE upsert_plain (int, text) AS INSERT INTO plain.items VALUES ($1, 'p', $2)
  ON CONFLICT (id, kind) DO UPDATE SET v = items.v || EXCLUDED.v || $2 RETURNING v;
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT results_eq(format('EXECUTE upsert_sharded (%s, ''%s'')', 1 + i % 3, i),
  format('EXECUTE upsert_plain (%s, ''%s'')', 1 + i % 3, i), 'prepared, ' || i)
  FROM generate_series(1, 9) i;
RESET plan_cache_mode;
SELECT results_eq(format('EXECUTE upsert_sharded (%s, ''%s'')', 1 + i % 3, i),
  format('EXECUTE upsert_plain (%s, ''%s'')', 1 + i % 3, i), 'prepared, ' || i)
  FROM generate_series(10, 12) i;
CREATE FUNCTION upsert(int) RETURNS SETOF text LANGUAGE sql AS
  $$ INSERT INTO sharded.items VALUES ($1, 'f', 'f') ON CONFLICT (id, kind) DO
    UPDATE SET v = items.v || EXCLUDED.v RETURNING v $$;
SELECT is(array(SELECT upsert(1 + i % 3) FROM generate_series(1, 6) i)::text, '{f,f,f,ff,ff,ff}',
  'in an SQL function');

--
-- What EXPLAIN shows
--

SELECT is(explained($$ INSERT INTO sharded.items VALUES (1, 'k'), (2, 'k'), (500, 'k')
      ON CONFLICT (id, kind) DO UPDATE SET n = 3 WHERE items.id > 1 $$),
  ARRAY['Route: hash', 'Conflict Resolution: UPDATE', 'Conflict Filter: (items.id > 1)',
    'Rows Removed by Conflict Filter: 1', 'Tuples Inserted: 1',
        'Conflicting Tuples: 2'], 'EXPLAIN of DO UPDATE');
SELECT is(explained($$ INSERT INTO sharded.items SELECT g, 'k' FROM generate_series(491, 500) g
      ON CONFLICT DO NOTHING $$),
  ARRAY['Route: hash', 'Conflict Resolution: NOTHING', 'Tuples Inserted: 9',
    'Conflicting Tuples: 1'], 'EXPLAIN of DO NOTHING');

-- Triggers on the logical table fire for the rows that are inserted.
SAVEPOINT s;
CREATE TRIGGER row_before BEFORE INSERT ON sharded.items FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER row_after AFTER INSERT ON sharded.items FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE sharded.same DISABLE TRIGGER USER;
ALTER TABLE sharded.other DISABLE TRIGGER USER;
ALTER TABLE sharded.third DISABLE TRIGGER USER;
TRUNCATE fired;
INSERT INTO sharded.items SELECT g, 'k', 'x' FROM generate_series(598, 600) g;
INSERT INTO sharded.items SELECT g, 'k', 'y' FROM generate_series(597, 603) g ON CONFLICT (id, kind)
  DO UPDATE SET v = 'y', n = 7;
SELECT is(array(SELECT what FROM fired WHERE what ~ '^AFTER INSERT ROW' ORDER BY what COLLATE "C"),
  array(SELECT format('AFTER INSERT ROW (%s,k,%s,1,2)', g, CASE WHEN g BETWEEN 598 AND 600 THEN 'x'
      ELSE 'y' END) FROM generate_series(597, 603) g),
  'AFTER ROW triggers of the logical table fire for new rows only');
SELECT is((SELECT count(*) FROM fired WHERE what ~ '^BEFORE INSERT ROW'), 10::bigint,
  'BEFORE ROW triggers fire for all that is proposed');
ROLLBACK TO s;

--
-- What is refused
--

SELECT fails(
  $$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind) DO UPDATE SET id = 2 $$,
  '0A000', 'cannot change the key of foreign table "items" in ON CONFLICT DO UPDATE',
  'The value of column "id" would change, and with it the row''s shard.',
  'Delete the row and insert a new one.', title => 'the key cannot change');
SELECT fails(
  $$ INSERT INTO sharded.items VALUES (2, 'k') ON CONFLICT (id, kind) DO UPDATE SET id = NULL $$,
  '0A000', title => 'the key cannot change, to null neither');
SELECT fails($$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (kind) DO NOTHING $$, '0A000',
  'conflict target does not include column "id" of the key of foreign table "items"',
  'Only rows with equal keys (id) are sure to be in one shard, so a conflicting row in another '
  'shard would not be seen.', 'Name the columns of a unique index that includes the key.',
  title => 'a target without the key');
SELECT fails($$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (abs(id), kind) DO NOTHING $$,
  '0A000', title => 'a target without the key, or with an expression of it');
SELECT fails($$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind, n) DO NOTHING $$,
  '42P10', 'there is no unique or exclusion constraint matching the ON CONFLICT specification',
  'Shard "other" has none.',
  'Create a unique index on the columns of the conflict target on every shard.',
  title => 'no index on any shard');
CREATE UNIQUE INDEX ON sharded.same (id, kind, n);
CREATE UNIQUE INDEX ON sharded.third (id, kind, n);
SELECT fails($$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind, n) DO NOTHING $$,
  NULL, detail => 'Shard "other" has none.', title => 'no index on one shard');
CREATE UNIQUE INDEX other_index ON sharded.other (id, kind, n);
PREPARE nothing AS INSERT INTO sharded.items SELECT g, 'new', 'x', g FROM generate_series(1, 20) g
  ON CONFLICT (id, kind, n) DO NOTHING;
SELECT lives_ok('EXECUTE nothing', 'an index on every shard');
DROP INDEX sharded.other_index;
SELECT fails('EXECUTE nothing', NULL, detail => 'Shard "other" has none.',
  title => 'an index dropped under a prepared statement');
ALTER TABLE sharded.items ADD CONSTRAINT c CHECK (id > 0) NOT VALID;
SELECT fails($$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT ON CONSTRAINT c DO NOTHING $$,
  '0A000', 'cannot use ON CONFLICT ON CONSTRAINT on foreign table "items"',
  'Unique constraints belong to the shards.', 'Name the columns: ON CONFLICT (...).',
  title => 'ON CONSTRAINT');
SELECT fails(
  $$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT ON CONSTRAINT items_pkey DO NOTHING $$,
  '42704', title => 'ON CONSTRAINT, with a constraint of no such table');
ALTER TABLE sharded.items DROP CONSTRAINT c;

-- An index that is not an arbiter raises its errors.
CREATE UNIQUE INDEX ON sharded.same (v) WHERE v ~ '^unique';
INSERT INTO sharded.items SELECT g, 'u', 'unique' FROM generate_series(1, 100) g
  WHERE shard_fdw.in_hash(3, 0, g) LIMIT 1;
SELECT fails(
  $$ INSERT INTO sharded.items SELECT g, 'w', 'unique' FROM generate_series(1, 100) g
    WHERE shard_fdw.in_hash(3, 0, g)
                       ON CONFLICT (id, kind) DO NOTHING $$, '23505',
  title => 'a violation of another index is an error');

-- Deferrable constraints cannot arbitrate, as in core.
SAVEPOINT s;
ALTER TABLE sharded.same ADD UNIQUE (id, kind, n) DEFERRABLE;
SELECT fails(
  $$ INSERT INTO sharded.items SELECT g, 'd' FROM generate_series(1, 50) g
    ON CONFLICT DO NOTHING $$,
  '55000', title => 'a deferrable constraint cannot arbitrate');
SELECT lives_ok($$ INSERT INTO sharded.items SELECT g, 'd' FROM generate_series(1, 50) g
    ON CONFLICT (id, kind) DO NOTHING $$,
  'a deferrable constraint cannot arbitrate, but it need not');
ROLLBACK TO s;

-- Not owner of anything, but with the privileges.
SAVEPOINT s;
GRANT USAGE ON SCHEMA sharded, conflict_test TO shard_user;
GRANT INSERT, SELECT ON sharded.items TO shard_user;
ALTER TABLE sharded.same DISABLE TRIGGER USER;
ALTER TABLE sharded.other DISABLE TRIGGER USER;
ALTER TABLE sharded.third DISABLE TRIGGER USER;
ALTER TABLE sharded.items DISABLE TRIGGER USER;
SET LOCAL ROLE shard_user;
SELECT fails(
  $$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind) DO UPDATE SET v = 'x' $$,
  '42501', title => 'DO UPDATE wants the privilege to update');
SELECT lives_ok($$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind) DO NOTHING $$,
  'DO NOTHING does not');
RESET ROLE;
GRANT UPDATE (v) ON sharded.items TO shard_user;
SET LOCAL ROLE shard_user;
SELECT lives_ok($$ INSERT INTO sharded.items VALUES (1, 'k'), (2, 'k'), (3, 'k')
    ON CONFLICT (id, kind) DO UPDATE SET v = 'user' $$, 'DO UPDATE with the privilege');
SELECT fails(
  $$ INSERT INTO sharded.items VALUES (1, 'k') ON CONFLICT (id, kind) DO UPDATE SET n = 3 $$,
  '42501', title => 'DO UPDATE with the privilege, for that column only');
RESET ROLE;
ROLLBACK TO s;

-- A shard with a place elsewhere.
SAVEPOINT s;
CREATE FOREIGN TABLE far (id int, v text) SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE far_0 (id int PRIMARY KEY, v text, CHECK (shard_fdw.in_hash(2, 0, id)));
ALTER TABLE far_0 INHERIT far;
CREATE FOREIGN TABLE far_1 (id int, v text, CHECK (shard_fdw.in_hash(2, 1, id))) SERVER shards;
ALTER FOREIGN TABLE far_1 INHERIT far;
SELECT fails('INSERT INTO far SELECT generate_series(1, 10) ON CONFLICT (id) DO NOTHING', '0A000',
  'cannot use ON CONFLICT with a conflict target on foreign table "far"',
  'Shard "far_1" is a foreign table.',
  'ON CONFLICT DO NOTHING without a conflict target is possible.',
  title => 'a shard that is a foreign table');
ROLLBACK TO s;

-- Foreign keys follow the rows.
SAVEPOINT s;
CREATE TABLE kinds (kind text PRIMARY KEY);
INSERT INTO kinds VALUES ('one'), ('two');
CREATE TABLE kept_model (id int PRIMARY KEY, kind text REFERENCES kinds);
CREATE FOREIGN TABLE kept (id int, kind text) SERVER shards OPTIONS (shards '3', route 'hash',
  key 'id', template 'kept_model');
INSERT INTO kept SELECT g, 'one' FROM generate_series(1, 9) g;
INSERT INTO kept SELECT g, 'two' FROM generate_series(1, 9) g ON CONFLICT (id) DO
  UPDATE SET kind = EXCLUDED.kind;
SELECT fails(
  $$ INSERT INTO kept SELECT g, 'two' FROM generate_series(1, 9) g ON CONFLICT (id) DO
    UPDATE SET kind = 'three' $$,
  '23503', title => 'foreign keys are checked for the updated row');
SELECT is((SELECT count(*) FROM kept WHERE kind = 'two'), 9::bigint,
  'foreign keys are checked for the updated row, and for nothing else');
ROLLBACK TO s;

-- Keys whose equality the index does not share.  A server can be built without
-- the collations that can tell.
SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i') AS has_icu \gset
\if :has_icu
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FOREIGN TABLE words (word text) SERVER shards OPTIONS (route 'hash', key 'word');
CREATE TABLE words_0 (word text, CHECK (shard_fdw.in_hash(2, 0, word)));
CREATE TABLE words_1 (word text, CHECK (shard_fdw.in_hash(2, 1, word)));
ALTER TABLE words_0 INHERIT words;
ALTER TABLE words_1 INHERIT words;
CREATE UNIQUE INDEX ON words_0 (word COLLATE caseless);
CREATE UNIQUE INDEX ON words_1 (word COLLATE caseless);
SELECT fails($$ INSERT INTO words VALUES ('a') ON CONFLICT (word) DO NOTHING $$, '42P10',
  title => 'an index that takes more values for equal does not do');
CREATE UNIQUE INDEX ON words_0 (word COLLATE "C");
CREATE UNIQUE INDEX ON words_1 (word text_pattern_ops);
SELECT lives_ok($$ INSERT INTO words VALUES ('a'), ('b'), ('a'), ('c')
    ON CONFLICT (word) DO NOTHING $$,
  'an index that takes more values for equal does not do; others do');
SELECT is((SELECT count(*) FROM words), 3::bigint,
  'an index that takes more values for equal: the others are looked at');
\else
SELECT skip('the server has no ICU collations', 3);
\endif

-- Shards that are not placed for it.
CREATE FOREIGN TABLE placed (id int, n int) SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE placed_0 (id int PRIMARY KEY, n int, CHECK (shard_fdw.in_hash(2, 0, id)));
ALTER TABLE placed_0 INHERIT placed;
PREPARE placed_upsert AS INSERT INTO placed SELECT g, g FROM generate_series(1, 20) g
  WHERE shard_fdw.in_hash(2, 0, g) ON CONFLICT (id) DO UPDATE SET n = 100;
SELECT lives_ok('EXECUTE placed_upsert', 'a gap does no harm');
SELECT fails('INSERT INTO placed SELECT generate_series(1, 20) ON CONFLICT (id) DO NOTHING', NULL,
  'no shard of foreign table "placed" takes the row',
  title => 'a gap does no harm, but to rows of it');
SAVEPOINT s;
CREATE TABLE placed_1 (LIKE placed_0 INCLUDING ALL);
ALTER TABLE placed_1 INHERIT placed;
SELECT fails('INSERT INTO placed VALUES (1) ON CONFLICT ' || clause, '55000',
  'cannot use ON CONFLICT on foreign table "placed"',
  'Not every shard has a validated constraint that gives it hashes of the key that no other shard '
  'has, so a conflicting row may be in another shard.',
  'Put the shards in order with SELECT shard_fdw.reshard(), or validate their constraints.',
  title => 'two shards for the same rows, ' || clause)
  FROM unnest(ARRAY['DO NOTHING', '(id) DO NOTHING', '(id) DO UPDATE SET n = 1']) clause;
SELECT fails('EXECUTE placed_upsert', '55000', title => 'a gap does no harm: a prepared statement');
ROLLBACK TO s;
SELECT lives_ok('EXECUTE placed_upsert', 'a gap does no harm, and without it again');
CREATE TABLE placed_1 (id int PRIMARY KEY, n int);
ALTER TABLE placed_1 INHERIT placed;
SELECT fails('INSERT INTO placed VALUES (1) ON CONFLICT DO NOTHING', '55000',
  title => 'a shard without a place');
ROLLBACK TO s;
CREATE TABLE placed_1 (id int PRIMARY KEY, n int);
ALTER TABLE placed_1 ADD CHECK (shard_fdw.in_hash(2, 1, id)) NOT VALID;
ALTER TABLE placed_1 INHERIT placed;
SELECT fails('INSERT INTO placed VALUES (1) ON CONFLICT DO NOTHING', '55000',
  title => 'a place that has not been validated');
ROLLBACK TO s;

-- A key that is not good, whatever the session has set.
ALTER EVENT TRIGGER shard_fdw_on_ddl_end DISABLE;
ALTER FOREIGN TABLE placed RENAME id TO id2;
ALTER EVENT TRIGGER shard_fdw_on_ddl_end ENABLE ALWAYS;
SET LOCAL shard_fdw.shard = 0;
SELECT fails('INSERT INTO placed (id2) VALUES (1) ON CONFLICT ' || clause, NULL,
  'column "id" of the key of foreign table "placed" does not exist',
  title => 'a key that is not there, ' || clause)
  FROM unnest(ARRAY['DO NOTHING', '(id2) DO NOTHING', '(id2) DO UPDATE SET n = 1']) clause;
SELECT fails('EXECUTE placed_upsert', '42703',
  title => 'a place that has not been validated: a prepared statement');
RESET shard_fdw.shard;

-- The pin counts as it is when the statement begins.
CREATE FOREIGN TABLE pins (id int, v text) SERVER shards OPTIONS (shards '3', route 'hash',
  key 'id');
INSERT INTO pins SELECT g, CASE WHEN g = 50 THEN set_config('shard_fdw.shard', '0', true) END
  FROM generate_series(1, 100) g;
RESET shard_fdw.shard;
SELECT is((SELECT count(*) FROM pins_0 WHERE NOT shard_fdw.in_hash(3, 0, id)), 0::bigint,
  'a pin set in the middle of a statement leads no row astray');

-- Statements with ever new targets take no ever more memory.
CREATE FUNCTION targets(n int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    EXECUTE format('INSERT INTO sharded.items VALUES (1, ''k'') ON CONFLICT (id, kind) WHERE n > '
                   '%s DO NOTHING', i);
  END LOOP;
  RETURN (SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'shard_fdw%');
END $$;
SELECT ok(targets(20) * 1.5 > targets(500), 'memory for conflict targets is bounded');

-- Routes without a key.
CREATE FOREIGN TABLE log (id int) SERVER shards OPTIONS (shards '2');
SELECT fails('INSERT INTO log VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 1', NULL,
  'cannot use ON CONFLICT on foreign table "log"', title => 'a table without a key');

SELECT * FROM finish();
ROLLBACK;
