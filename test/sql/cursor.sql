-- WHERE CURRENT OF a cursor, compared with plain tables and with an ordinary
-- inheritance parent that have the same rows.
--
-- A query is written once, with {} after each table's name: {} is nothing for
-- the logical tables, "_twin" for plain tables, and "_parent" for inheritance
-- parents whose children are like the shards, without their constraints.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
SET LOCAL jit = off;
CREATE SCHEMA cursor_test;
SET LOCAL search_path = cursor_test, public;

\ir helpers.psql

CREATE TABLE h_template (k bigint PRIMARY KEY, v int, t text);
CREATE INDEX ON h_template (v);
CREATE FOREIGN TABLE h (k bigint, v int, t text)
  SERVER shards OPTIONS (shards '6', route 'hash', key 'k', template 'cursor_test.h_template');
CREATE TABLE s_template (k bigint PRIMARY KEY, v int, t text);
CREATE FOREIGN TABLE s (k bigint OPTIONS (sequence 'always'), v int, t text)
  SERVER shards OPTIONS (shards '6', max_shards '6', route 'round_robin',
    template 'cursor_test.s_template');
INSERT INTO h SELECT g, g % 10, 'row ' || g FROM generate_series(1, 300) g;
INSERT INTO s (v, t) SELECT g % 10, 'row ' || g FROM generate_series(1, 300) g;
CREATE TABLE other (k bigint, w text);
INSERT INTO other SELECT g, 'other ' || g FROM generate_series(1, 20) g;

-- The twins, and the parents with their children.
DO $$
DECLARE
  t text;
  n int;
BEGIN
  FOREACH t IN ARRAY '{h,s}'::text[] LOOP
    EXECUTE format('CREATE TABLE %1$s_twin (LIKE %1$s); INSERT INTO %1$s_twin SELECT * FROM %1$s; '
                   'CREATE UNIQUE INDEX ON %1$s_twin (k)', t);
    EXECUTE format('CREATE TABLE %1$s_parent (LIKE %1$s)', t);
    FOR n IN 0..5 LOOP
      EXECUTE format('CREATE TABLE %1$s_parent_%2$s (PRIMARY KEY (k)) INHERITS (%1$s_parent); '
                     'INSERT INTO %1$s_parent_%2$s SELECT * FROM %1$s_%2$s', t, n);
    END LOOP;
  END LOOP;
END $$;
ANALYZE;

-- What a change of a cursor's current row after so many FETCHes comes to: the
-- SQLSTATE of an error, else which row was changed, if it was the right one.
-- Undone at the end.
CREATE FUNCTION change(suffix text, query text, command text, nfetch int) RETURNS text
  LANGUAGE plpgsql AS $$
DECLARE
  c refcursor := 'cur';
  r record;
  changed record;
  n int := 0;
  result text := 'nothing';
BEGIN
  BEGIN
    OPEN c FOR EXECUTE replace(query, '{}', suffix);
    FOR n IN 1..nfetch LOOP
      FETCH c INTO r;
    END LOOP;
    FOR changed IN EXECUTE replace(command, '{}', suffix) LOOP
      n := n + 1;
      result := CASE WHEN changed.k = r.k THEN 'the right row' ELSE 'the wrong row' END;
    END LOOP;
    IF n > 1 THEN
      result := n || ' rows';
    END IF;
    RAISE SQLSTATE 'UNDO0' USING MESSAGE = result;
  EXCEPTION
    WHEN SQLSTATE 'UNDO0' THEN RETURN SQLERRM;
    WHEN OTHERS THEN RETURN SQLSTATE;
  END;
END $$;

CREATE TABLE commands (command text);
INSERT INTO commands VALUES ('UPDATE %s{} SET t = ''changed'' WHERE CURRENT OF cur RETURNING k'),
  ('DELETE FROM %s{} WHERE CURRENT OF cur RETURNING k');

-- Queries that an ordinary inheritance parent has the same answer for.
CREATE TABLE queries (query text, nfetch int);
INSERT INTO queries
SELECT query || lock, nfetch
  FROM (VALUES
    ('SELECT * FROM %s{} WHERE k = 42'),
    ('SELECT * FROM %s{} WHERE k IN (7, 42, 100, 101)'),
    ('SELECT * FROM %s{} WHERE k = 5 OR k = 6'),
    ('SELECT * FROM %s{} WHERE k = (SELECT 42)'),
    ('SELECT * FROM %s{} WHERE k = (SELECT 42) OR v = 3'),
    ('SELECT * FROM %s{} WHERE k = 42 AND v > 100'),
    ('SELECT * FROM %s{} WHERE v = 4'),
    ('SELECT * FROM %s{} WHERE k = 42 AND false'),
    ('SELECT * FROM %s{}'),
    ('SELECT * FROM %s{} WHERE k IN (7, 42, 100, 101) LIMIT 2'),
    ('SELECT * FROM (SELECT * FROM %s{} WHERE k IN (7, 42) OFFSET 0) x'),
    ('SELECT * FROM %s{} WHERE k = 42 AND v NOT IN (SELECT v FROM %1$s{} WHERE k BETWEEN 50 AND 51)'),
    ('SELECT * FROM %s{} WHERE k = 42 AND EXISTS (SELECT FROM other WHERE w = t)'),
    ('SELECT x.* FROM %s{} x JOIN other o ON o.k = x.k WHERE x.k = 5')) q(query),
  (VALUES (''), (' FOR UPDATE'), (' FOR SHARE')) l(lock),
    (VALUES (0), (1), (2), (3), (20)) n(nfetch)
 WHERE lock = '' OR query !~ 'OFFSET 0';
INSERT INTO queries
SELECT query, nfetch
  FROM (VALUES
    ('SELECT * FROM %s{} WHERE k = 42 UNION ALL SELECT * FROM %1$s{} WHERE k = 43'),
    ('SELECT * FROM %s{} WHERE k = 42 UNION ALL SELECT * FROM %1$s{} WHERE k = 42'),
    ('SELECT * FROM %s{} WHERE k = 42 UNION ALL SELECT k, k::int, w FROM other'),
    ('SELECT k FROM %s{} WHERE k = 42 UNION SELECT k FROM %1$s{} WHERE k = 43'),
    ('SELECT k FROM %s{} WHERE k = 42 GROUP BY k'),
    ('SELECT k, count(*) OVER () FROM %s{} WHERE k IN (42, 43)'),
    ('SELECT k FROM other'),
    ('SELECT x.k FROM %s{} x, %1$s{} y WHERE x.k = 42 AND y.k = 43')) q(query),
  (VALUES (0), (1), (2)) n(nfetch);
SELECT is(change('', format(query, t), format(command, t), nfetch),
  change('_parent', format(query, t), format(command, t), nfetch),
          format('%s, FETCH %s times: %s', format(query, t), nfetch, format(command, t)))
  FROM queries, commands, unnest('{h,s}'::text[]) t;

-- One shard is also sorted as a plain table is.
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SELECT is(change(suffix, format(query, t), format(command, t), 1), 'the right row',
  format('%s: %s (%L)', format(query, t), format(command, t), suffix))
  FROM unnest('{"",_twin}'::text[]) suffix, (VALUES ('SELECT * FROM %s{} WHERE k = 42 ORDER BY k'),
    ('SELECT * FROM %s{} WHERE k = 42 ORDER BY k DESC')) q(query),
       commands, unnest('{h,s}'::text[]) t;
SELECT is(change('', 'SELECT k FROM h WHERE k IN (42, 43, 44, 45) ORDER BY k',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 2), '24000',
  'rows merged from several shards have no scan of their own');
RESET enable_seqscan;
RESET enable_bitmapscan;

-- A shard that the query leaves out for its tableoid or another constraint of
-- its own, and one that has come since.
SELECT is(change('', 'SELECT * FROM h WHERE tableoid = ''h_3''::regclass',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 2), 'the right row',
  'a cursor on one shard by its tableoid');
SAVEPOINT s;
ALTER TABLE s_2 ADD CHECK (v < 8) NOT VALID;
DELETE FROM s_2 WHERE v >= 8;
ALTER TABLE s_2 VALIDATE CONSTRAINT s_2_v_check;
SELECT is(change('', 'SELECT * FROM s WHERE v = 9',
    'DELETE FROM s WHERE CURRENT OF cur RETURNING k', 4), 'the right row',
  'a shard that a range has left out');
DECLARE before CURSOR FOR SELECT k FROM s WHERE v = 3;
MOVE before;
CREATE TABLE s_late (LIKE s_0 INCLUDING ALL);
ALTER TABLE s_late DROP CONSTRAINT shard_slot;
ALTER TABLE s_late INHERIT s;
SELECT is(cardinality(returned('UPDATE s SET v = -1 WHERE CURRENT OF before RETURNING k')), 1,
  'a shard that has come while a cursor was open');
ROLLBACK TO s;
-- One that says of the logical table itself that it has no rows.
ALTER FOREIGN TABLE h ADD CONSTRAINT no_rows CHECK (false) NO INHERIT;
SELECT is(change('', 'SELECT * FROM h WHERE k = 42',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 1), 'the right row',
  'a logical table with CHECK (false) NO INHERIT');
SET LOCAL constraint_exclusion = on;
SELECT is(change('', 'SELECT * FROM h WHERE k = 42',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 1), 'the right row',
  'a logical table with CHECK (false) NO INHERIT, with constraint_exclusion = on');
ROLLBACK TO s;

-- A cursor on one table, a change of another
SELECT is(change('', 'SELECT * FROM h_3', 'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 1),
  '24000', 'a cursor on a shard does not do for the logical table');
SELECT is(change('', 'SELECT * FROM h', 'DELETE FROM s WHERE CURRENT OF cur RETURNING k', 1),
  '24000', 'one on another logical table neither');
SELECT is(change('', 'SELECT * FROM h WHERE tableoid = ''h_3''::regclass',
    'DELETE FROM h_3 WHERE CURRENT OF cur RETURNING k', 1), 'the right row',
  'a cursor on the logical table does for the shard');
CREATE FOREIGN TABLE top (k bigint, v int, t text) SERVER shards;
ALTER FOREIGN TABLE h INHERIT top;
CREATE TABLE top_plain () INHERITS (top);
INSERT INTO top_plain VALUES (1000, 0, 'plain');
SELECT is(change('', 'SELECT * FROM h WHERE k = 42',
    'DELETE FROM top WHERE CURRENT OF cur RETURNING k', 1), '24000',
  'a cursor on a logical table does not do for one above it');
SELECT is(change('', 'SELECT * FROM top WHERE k = 42',
    'DELETE FROM top WHERE CURRENT OF cur RETURNING k', 1), 'the right row',
  'a logical table as a shard of another');
SELECT is(change('', 'SELECT * FROM top WHERE k = 42',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 1), 'the right row',
  'a logical table as a shard of another, whose cursor does for both');
SELECT is(change('', 'SELECT * FROM top WHERE tableoid = ''h_2''::regclass',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 1), 'the right row',
  'a logical table as a shard of another, also if it reads one shard');
SELECT is(change('', 'SELECT * FROM top WHERE tableoid = ''top_plain''::regclass',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 1), 'nothing',
  'a logical table as a shard of another, and is on a row of another one');
SELECT is(change('', 'SELECT * FROM top WHERE tableoid = ''top_plain''::regclass',
    'DELETE FROM h WHERE CURRENT OF cur RETURNING k', 3), '24000',
  'a logical table as a shard of another, or on none');
ROLLBACK TO s;

-- PL/pgSQL: bound cursors, refcursors as parameters, and plans that are kept
CREATE FUNCTION walk_h(key int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  c CURSOR (key int) FOR SELECT * FROM h WHERE k = key OR k = key + 50;
  n int := 0;
BEGIN
  FOR r IN c (key) LOOP
    UPDATE h SET v = -v - 1 WHERE CURRENT OF c;
    n := n + (SELECT count(*) FROM h WHERE k = r.k AND v = -r.v - 1);
  END LOOP;
  RETURN n;
END $$;
CREATE FUNCTION change_current(c refcursor) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  key bigint;
BEGIN
  UPDATE s SET v = 100 WHERE CURRENT OF c RETURNING k INTO key;
  RETURN key;
END $$;
CREATE FUNCTION delete_current(c refcursor) RETURNS void
  LANGUAGE plpgsql AS 'BEGIN DELETE FROM s WHERE CURRENT OF c; END';
CREATE FUNCTION walk_s(lower int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  c refcursor;
  r record;
  n bigint := 0;
BEGIN
  OPEN c FOR SELECT * FROM s WHERE k = lower OR k = lower + 1;
  LOOP
    FETCH c INTO r;
    EXIT WHEN NOT FOUND;
    n := n + (r.k = change_current(c))::int;
    PERFORM delete_current(c);
  END LOOP;
  CLOSE c;
  RETURN n;
END $$;
CREATE FUNCTION walk_all(mode text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  result bigint[];
BEGIN
  PERFORM set_config('plan_cache_mode', mode, true);
  result := ARRAY[(SELECT sum(walk_h(g)) FROM generate_series(1, 20) g),
    (SELECT sum(walk_s(k::int)) FROM (SELECT k FROM s WHERE k <= 6) x)];
  RETURN result || (SELECT count(*) FROM h WHERE v < 0) || (SELECT count(*) FROM s WHERE k <= 6);
END $$;
SELECT is((SELECT count(DISTINCT tableoid) FROM s WHERE k <= 6), 6::bigint,
  'six rows of six shards');
SAVEPOINT s;
SELECT is(walk_all('force_custom_plan'), '{40,7,40,0}', 'PL/pgSQL: cursors of one or two rows');
ROLLBACK TO s;
SELECT is(walk_all('force_generic_plan'), '{40,7,40,0}',
  'PL/pgSQL: cursors of one or two rows, with generic plans');
ROLLBACK TO s;

-- Prepared statements, cursors that are held, moved, or not there
PREPARE change_cur AS UPDATE h SET v = v + 1000 WHERE CURRENT OF cur RETURNING k;
SELECT fails('EXECUTE change_cur', '34000', title => 'no cursor');
DECLARE cur SCROLL CURSOR FOR SELECT k FROM h WHERE k = 17;
SELECT fails('EXECUTE change_cur', NULL, 'cursor "cur" is not positioned on a row',
  title => 'a cursor before its first row');
MOVE cur;
SELECT results_eq('EXECUTE change_cur', 'VALUES (17::bigint)', 'a prepared UPDATE');
MOVE cur;
SELECT fails('EXECUTE change_cur', NULL, 'cursor "cur" is not positioned on a row',
  title => 'a cursor after its last row');
CLOSE cur;
DECLARE cur CURSOR FOR SELECT k FROM h WHERE k = 18;
MOVE cur;
SELECT results_eq('EXECUTE change_cur', 'VALUES (18::bigint)',
  'a cursor after its last row, by another cursor of the same name, on another shard');
SELECT results_eq('EXECUTE change_cur', 'VALUES (18::bigint)',
  'a cursor after its last row, which finds the new version of the row, too');
CLOSE cur;
DECLARE cur CURSOR FOR SELECT k FROM h_twin WHERE k = 18;
MOVE cur;
SELECT fails('EXECUTE change_cur', '24000',
  title => 'a cursor after its last row, by one on another table');
CLOSE cur;
SET LOCAL plan_cache_mode = force_generic_plan;
DECLARE cur CURSOR FOR SELECT k FROM h WHERE k = (SELECT 19);
MOVE cur;
SELECT results_eq('EXECUTE change_cur', 'VALUES (19::bigint)',
  'a cursor whose shard is known at run time');
RESET plan_cache_mode;
SELECT is(shard_fdw.cursor_reads('cur', 'h_1') AND shard_fdw.cursor_reads('cur', 0::regclass) AND
          shard_fdw.cursor_reads('none', 'h_1') AND shard_fdw.cursor_reads(NULL, 'h_1')
            AND shard_fdw.cursor_reads('cur', NULL) AND
          shard_fdw.cursor_reads('cur', 'other'), true, 'cursor_reads() of anything');
CLOSE cur;

SELECT * FROM finish();
ROLLBACK;
