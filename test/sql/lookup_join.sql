-- Joins and subqueries that look for rows by key: only the shards are read that values lead to.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA lookup_join_test;
SET LOCAL search_path = lookup_join_test, public;
SET LOCAL timezone = 'UTC';
SET LOCAL jit = off;

\ir helpers.psql

-- Tables with keys of many types, plain twins, and tables to join them with.

CREATE DOMAIN positive AS bigint CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE types (name text PRIMARY KEY, type text, other text, literal text);
INSERT INTO types VALUES
  ('big', 'bigint', 'int', '{g}'), ('int', 'int', 'bigint', '{g}'), ('small', 'smallint', 'bigint', '({g})::smallint'),
  ('num', 'numeric', 'numeric', '{g} + 0.5'), ('str', 'text', 'varchar', '''s'' || {g}'),
  ('var', 'varchar(20)', 'text', '''s'' || {g}'), ('day', 'date', 'date', 'date ''2026-01-01'' + {g}'),
  ('moment', 'timestamptz', 'timestamptz', 'timestamptz ''2026-01-01 12:00'' + {g} * interval ''1 hour'''),
  ('uid', 'uuid', 'uuid', 'md5(({g})::text)::uuid'), ('dom', 'positive', 'bigint', '{g}'),
  ('pair', 'pair', 'pair', 'ROW({g}, ''x'')::pair');

-- One shard has its columns in other places, and one that has been dropped; two hold more keys than the others.
CREATE FUNCTION make_twins(name text, type text, other text, literal text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE replace(replace(replace(replace($f$
    CREATE TABLE plain_NAME (id int, k TYPE, n int, note text DEFAULT 'd', UNIQUE (k, id));
    CREATE TABLE tmpl_NAME (LIKE plain_NAME INCLUDING ALL);
    CREATE INDEX ON tmpl_NAME (k, n);
    CREATE FOREIGN TABLE log_NAME (id int, k TYPE, n int, note text DEFAULT 'd')
      SERVER shards OPTIONS (shards '6', route 'hash', key 'k', template 'tmpl_NAME');
    DO $d$ BEGIN FOR i IN 0 .. 5 LOOP EXECUTE 'DROP TABLE log_NAME_' || i; END LOOP; END $d$;
    CREATE TABLE log_NAME_0 (LIKE tmpl_NAME INCLUDING ALL, CHECK (shard_fdw.in_hash(4, 0, k)));
    CREATE TABLE log_NAME_1 (LIKE tmpl_NAME INCLUDING ALL, CHECK (shard_fdw.in_hash(4, 1, k)));
    CREATE TABLE log_NAME_2 (gone int, note text DEFAULT 'd', n int, k TYPE, id int, own int DEFAULT 3,
      UNIQUE (k, id), CHECK (shard_fdw.in_hash(8, 2, k)));
    ALTER TABLE log_NAME_2 DROP COLUMN gone;
    CREATE TABLE log_NAME_3 (LIKE tmpl_NAME INCLUDING ALL, CHECK (shard_fdw.in_hash(8, 3, k)));
    CREATE TABLE log_NAME_4 (LIKE tmpl_NAME INCLUDING ALL, CHECK (shard_fdw.in_hash(8, 6, k)));
    CREATE TABLE log_NAME_5 (LIKE tmpl_NAME INCLUDING ALL, CHECK (shard_fdw.in_hash(8, 7, k)));
    DO $d$ BEGIN FOR i IN REVERSE 5 .. 0 LOOP EXECUTE 'ALTER TABLE log_NAME_' || i || ' INHERIT log_NAME'; END LOOP; END $d$;
    INSERT INTO plain_NAME SELECT 10 * g + i, {LITERAL}, i + g % 3, 'n' || g
      FROM generate_series(1, 40) g, generate_series(1, g % 4) i;
    INSERT INTO plain_NAME VALUES (1000, NULL, 1), (1001, NULL, 2);
    INSERT INTO log_NAME SELECT * FROM plain_NAME;
    CREATE VIEW view_log_NAME WITH (security_barrier) AS SELECT * FROM log_NAME WHERE n > 1;
    CREATE VIEW view_plain_NAME WITH (security_barrier) AS SELECT * FROM plain_NAME WHERE n > 1;
    CREATE TABLE outer_NAME (id int, k TYPE, k2 OTHER, x int);
    INSERT INTO outer_NAME SELECT g, CASE WHEN g % 7 > 0 THEN {LITERAL} END, CASE WHEN g % 5 > 0 THEN {LITERAL} END, g % 4
      FROM generate_series(1, 14) g;
    UPDATE outer_NAME SET k2 = (SELECT k FROM outer_NAME o WHERE o.id = 10) WHERE id IN (3, 12);
    INSERT INTO outer_NAME SELECT id + 20, k, k2, x FROM outer_NAME WHERE id < 4;
    ANALYZE plain_NAME, outer_NAME;
    $f$, '{LITERAL}', replace(literal, '{g}', 'g')), 'NAME', name), 'TYPE', type), 'OTHER', other);
END $$;
SELECT setseed(0.3);
SELECT make_twins(name, type, other, literal) FROM types;

-- Statements; {t} is the table, {o} the one to join it with.  {v} is a value, {a} an array of values.
CREATE TABLE statements (command text, id int GENERATED ALWAYS AS IDENTITY);
INSERT INTO statements (command) VALUES
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k = o.k $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k = o.k2 $$),
  ($$ SELECT array_agg(o.id || t::text || row_to_json(t)::text ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON o.k = t.k AND t.n > 1 $$),
  ($$ SELECT array_agg(o.id || ':' || coalesce(t.id, -1) ORDER BY o.id, t.id) FROM {o} o LEFT JOIN {t} t ON t.k = o.k $$),
  ($$ SELECT array_agg(o.id || coalesce(t::text, '-') ORDER BY o.id, t.id) FROM {o} o LEFT JOIN {t} t ON t.k = o.k AND t.n = o.x $$),
  ($$ SELECT array_agg(o.id || ':' || coalesce(t.id, -1) ORDER BY o.id, t.id) FROM {t} t RIGHT JOIN {o} o ON t.k = o.k AND o.x > 1 $$),
  ($$ SELECT array_agg(o.id ORDER BY o.id) FROM {o} o WHERE EXISTS (SELECT FROM {t} t WHERE t.k = o.k) $$),
  ($$ SELECT array_agg(o.id ORDER BY o.id) FROM {o} o WHERE NOT EXISTS (SELECT FROM {t} t WHERE t.k = o.k AND t.n > 1) $$),
  ($$ SELECT array_agg(t.id ORDER BY t.id) FROM {t} t WHERE k IN (SELECT k FROM {o} o WHERE x > 1) $$),
  ($$ SELECT array_agg(o.id || ':' || l.id ORDER BY o.id, l.id) FROM {o} o,
        LATERAL (SELECT * FROM {t} t WHERE t.k = o.k ORDER BY n DESC, id LIMIT 2) l $$),
  ($$ SELECT array_agg(o.id || ':' || l.n ORDER BY o.id, l.n) FROM {o} o,
        LATERAL (SELECT t.n FROM {t} t WHERE t.k = o.k ORDER BY n LIMIT 2) l $$),
  ($$ SELECT array_agg(o.id || ':' || l.id ORDER BY o.id, l.id) FROM {o} o LEFT JOIN
        LATERAL (SELECT t.id, o.x + t.n AS y FROM {t} t WHERE t.k = o.k OFFSET 0) l ON l.y > 2 $$),
  ($$ SELECT array_agg(o.id || ':' || l.c ORDER BY o.id) FROM {o} o,
        LATERAL (SELECT count(*) AS c, max(t.n) FROM {t} t WHERE t.k = o.k AND t.n >= o.x) l $$),
  ($$ SELECT array_agg((SELECT min(t.n) FROM {t} t WHERE t.k = o.k) ORDER BY o.id) FROM {o} o $$),
  ($$ SELECT array_agg((SELECT t::text FROM {t} t WHERE t.k = o.k ORDER BY n DESC, id LIMIT 1) ORDER BY o.id) FROM {o} o $$),
  ($$ SELECT array_agg((SELECT string_agg(t.note, ',' ORDER BY id) FROM {t} t WHERE t.k IN (o.k, o.k2)) ORDER BY o.id) FROM {o} o $$),
  ($$ SELECT array_agg((SELECT count(*) FROM {t} a JOIN {t} b ON a.k = b.k AND a.id < b.id WHERE a.k = o.k) ORDER BY o.id) FROM {o} o $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = (SELECT k FROM {o} WHERE id = 3) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = (SELECT k FROM {o} WHERE id = 4) AND n > 1 OR n = 3 $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = (SELECT {v}) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = (SELECT k FROM {o} WHERE id = 100) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = ANY ({a}) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = ANY ({a}) AND k = (SELECT {v}) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE NOT k = ANY ({a}) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = ALL ({a}) $$),
  ($$ SELECT array_agg(id) FROM (SELECT id FROM {t} t WHERE k = ANY ({a}) ORDER BY k, id LIMIT 5) t $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k = ANY ((SELECT array_agg(k) FROM {o} WHERE x < 2)::TYPE[]) $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE k IN ({v}, (SELECT k FROM {o} WHERE id = 5), NULL) $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k = ANY (ARRAY[o.k, o.k2::TYPE, o.k]) $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k = o.k AND t.k = ANY ({a}) $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t
        ON t.k = CASE WHEN o.x > 1 THEN o.k ELSE {v} END $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k = CASE WHEN random() < 2 THEN o.k END $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k = o.k OR t.n = 3 $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN {t} t ON t.k IS NOT DISTINCT FROM o.k $$),
  ($$ SELECT array_agg(concat(o.id, ':', a.id, ':', b.id) ORDER BY o.id, a.id, b.id)
        FROM {o} o JOIN {t} a ON a.k = o.k JOIN {t} b ON b.k = a.k AND b.id >= a.id $$),
  ($$ SELECT array_agg(concat(o.id, ':', a.id, ':', b.id) ORDER BY o.id, a.id, b.id)
        FROM {o} o LEFT JOIN {t} a ON a.k = o.k LEFT JOIN {t} b ON b.k = o.k2 AND b.n = a.n $$),
  ($$ SELECT array_agg(concat(p.id, ':', o.id, ':', t.id) ORDER BY p.id, o.id, t.id)
        FROM {o} p LEFT JOIN ({o} o JOIN {t} t ON t.k = o.k) ON o.x = p.x AND t.n > p.x $$),
  ($$ WITH RECURSIVE r(k, id, depth) AS (SELECT k, id, 1 FROM {o} WHERE x = 1
        UNION ALL SELECT t.k, t.id, depth + 1 FROM r JOIN {t} t ON t.k = r.k AND t.n > r.depth WHERE depth < 4)
        SELECT array_agg(id || ':' || depth ORDER BY id, depth) FROM r $$),
  ($$ SELECT array_agg(o.id || ':' || t.id ORDER BY o.id, t.id) FROM {o} o JOIN view_{t} t ON t.k = o.k $$),
  ($$ SELECT array_agg(o.id || ':' || u.id ORDER BY o.id, u.id) FROM {o} o JOIN
        (SELECT k, id FROM {t} WHERE n > 1 UNION ALL SELECT k, -id FROM {t}) u ON u.k = o.k $$),
  ($$ SELECT array_agg(s.id || ':' || s.i ORDER BY s.id, s.i) FROM
        (SELECT o.id, t.id AS i FROM {o} o JOIN {t} t ON t.k = o.k FOR UPDATE OF t) s $$),
  ($$ SELECT array_agg(s.id || ':' || s.i ORDER BY s.id, s.i) FROM
        (SELECT o.id, t.id AS i FROM {o} o JOIN {t} t ON t.k = o.k2 AND t.n > 1 FOR SHARE) s $$),
  ($$ SELECT array_agg(s.id ORDER BY s.id) FROM (SELECT t.id FROM {t} t WHERE k = (SELECT {v}) FOR UPDATE) s $$),
  ($$ WITH u AS (UPDATE {t} t SET n = t.n + o.x, note = 'x' || t.note FROM (SELECT DISTINCT ON (k) * FROM {o} ORDER BY k, id) o
        WHERE t.k = o.k RETURNING t, t.id) SELECT array_agg(u.t::text ORDER BY u.id) FROM u $$),
  ($$ WITH u AS (UPDATE {t} t SET note = DEFAULT WHERE k = (SELECT {v}) RETURNING *) SELECT array_agg(u::text ORDER BY u.id) FROM u $$),
  ($$ WITH u AS (UPDATE {t} t SET n = 7 WHERE k = ANY ({a}) RETURNING *) SELECT array_agg(u::text ORDER BY u.id) FROM u $$),
  ($$ WITH u AS (UPDATE {t} t SET (n, note) = (SELECT max(n), 'm' FROM {t} s WHERE s.k = t.k) WHERE id % 3 = 0 RETURNING *)
        SELECT array_agg(u::text ORDER BY u.id) FROM u $$),
  ($$ WITH d AS (DELETE FROM {t} t USING {o} o WHERE t.k = o.k AND t.n > 1 RETURNING t.id, t.k) SELECT array_agg(d::text ORDER BY d.id) FROM d $$),
  ($$ WITH d AS (DELETE FROM {t} t WHERE k = ANY ({a}) RETURNING t) SELECT array_agg(d.t::text ORDER BY (d.t).id) FROM d $$),
  ($$ WITH d AS (DELETE FROM {t} t WHERE EXISTS (SELECT FROM {o} o WHERE o.k = t.k) RETURNING id) SELECT array_agg(d.id ORDER BY d.id) FROM d $$),
  ($$ WITH i AS (INSERT INTO {t} SELECT t.id + 5000, t.k, o.id, t.note FROM {o} o JOIN {t} t ON t.k = o.k AND o.id < 6 RETURNING *)
        SELECT array_agg(i::text ORDER BY i.id, i.n) FROM i $$);

-- Which of them are planned with what is tested here, for keys of type bigint.
CREATE FUNCTION uses(command text) RETURNS boolean LANGUAGE sql AS
  $$ SELECT plan_text(replace(replace(replace(replace(replace(command, '{v}', '7::bigint'), '{a}', '(ARRAY[1, (SELECT 2)])::bigint[]'),
      '{t}', 'log_big'), '{o}', 'outer_big'), 'TYPE', 'bigint')) ~ 'shard_fdw key lookup' $$;

CREATE FUNCTION outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE command INTO result;
  RAISE EXCEPTION USING errcode = 'ZZ000', message = coalesce(result, 'none');
EXCEPTION
  WHEN SQLSTATE 'ZZ000' THEN RETURN SQLERRM;
  WHEN others THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

CREATE FUNCTION differences(tries int, names text DEFAULT '.') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  t record;
  s text;
  mode text;
  filled text;
  types text;
  v text;
  a text;
  plain text;
  log text;
BEGIN
  FOR t IN SELECT * FROM types WHERE name ~ names ORDER BY name LOOP
    FOR s IN SELECT replace(command, 'TYPE', t.type) FROM statements LOOP
      FOREACH mode IN ARRAY '{once,force_custom_plan,force_generic_plan}'::text[] LOOP
        CONTINUE WHEN s !~ '{[va]}' AND mode <> 'once';
        filled := replace(replace(s, '{v}', '$1'), '{a}', '$2');
        types := format('(%s, %s[])', t.type, t.type);
        IF mode <> 'once' THEN
          PERFORM set_config('plan_cache_mode', mode, true);
          EXECUTE format('PREPARE p_log%s AS %s', types, replace(replace(filled, '{t}', 'log_' || t.name), '{o}', 'outer_' || t.name));
          EXECUTE format('PREPARE p_plain%s AS %s', types, replace(replace(filled, '{t}', 'plain_' || t.name), '{o}', 'outer_' || t.name));
        END IF;
        FOR i IN 1 .. CASE WHEN s ~ '{[va]}' THEN tries ELSE 1 END LOOP
          v := format('(%s)::%s', CASE WHEN random() < 0.1 THEN 'NULL' ELSE replace(t.literal, '{g}', floor(random() * 45)::text) END, t.type);
          SELECT INTO a format('ARRAY[%s]::%s[]', string_agg(CASE WHEN random() < 0.1 THEN 'NULL'
              ELSE replace(t.literal, '{g}', floor(random() * 45)::text) END, ', '), t.type)
            FROM generate_series(1, floor(random() * 6)::int);
          a := CASE WHEN random() < 0.1 THEN format('NULL::%s[]', t.type) ELSE coalesce(a, format('''{}''::%s[]', t.type)) END;
          filled := replace(replace(s, '{v}', v), '{a}', a);
          IF mode = 'once' THEN
            log := outcome(replace(replace(filled, '{t}', 'log_' || t.name), '{o}', 'outer_' || t.name));
            plain := outcome(replace(replace(filled, '{t}', 'plain_' || t.name), '{o}', 'outer_' || t.name));
          ELSE
            log := outcome(format('EXECUTE p_log(%s, %s)', v, a));
            plain := outcome(format('EXECUTE p_plain(%s, %s)', v, a));
          END IF;
          IF plain <> log THEN
            RETURN NEXT format('%s, %s, %s, %s: %s: %s but %s', t.type, mode, v, a, s, log, plain);
          END IF;
        END LOOP;
        IF mode <> 'once' THEN
          DEALLOCATE p_log;
          DEALLOCATE p_plain;
        END IF;
      END LOOP;
    END LOOP;
  END LOOP;
END $$;

SELECT is((SELECT string_agg(d, E'\n') FROM differences(2) d), NULL, 'the same as on plain tables');
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_material = off;
SET LOCAL random_page_cost = 0.01;
SELECT is((SELECT string_agg(d, E'\n') FROM differences(6) d), NULL, 'the same as on plain tables, by nested loops');
SELECT is((SELECT string_agg(id::text, ' ' ORDER BY id) FROM statements WHERE NOT uses(command)),
  '19 24 25 26 32 33 34 39 40', 'what is planned otherwise');
SET LOCAL enable_indexscan = off;
SELECT is((SELECT string_agg(d, E'\n') FROM differences(1) d), NULL, 'the same with bitmaps');
RESET enable_indexscan;
SET LOCAL enable_partitionwise_join = on;
SET LOCAL enable_partitionwise_aggregate = on;
SELECT is((SELECT string_agg(d, E'\n') FROM differences(1, 'big|str|pair') d), NULL, 'the same, partition by partition');
RESET enable_partitionwise_join;
RESET enable_partitionwise_aggregate;
RESET enable_seqscan;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL min_parallel_index_scan_size = 0;
ALTER TABLE outer_big SET (parallel_workers = 2);
SELECT is((SELECT string_agg(d, E'\n') FROM differences(1, 'big') d), NULL, 'the same in workers');
SET LOCAL max_parallel_workers_per_gather = 0;

-- Workers report on all that they execute.
CREATE TABLE many AS SELECT g AS id, g % 60 AS k FROM generate_series(1, 3000) g;
ALTER TABLE many SET (parallel_workers = 2);
SET LOCAL max_parallel_workers_per_gather = 2;
SELECT matches(plan_text('SELECT count(*), sum(t.n) FROM many o JOIN log_big t ON t.k = o.k', 'ANALYZE, COSTS OFF, TIMING OFF'),
  'Gather.*Parallel Seq Scan on many.*shard_fdw key lookup', 'EXPLAIN ANALYZE of a parallel plan');
SELECT results_eq('SELECT count(*), sum(t.n) FROM many o JOIN log_big t ON t.k = o.k',
  'SELECT count(*), sum(t.n) FROM many o JOIN plain_big t ON t.k = o.k', 'a parallel plan');
SET LOCAL max_parallel_workers_per_gather = 0;

SET LOCAL enable_seqscan = off;

-- What EXPLAIN shows.

CREATE TABLE one AS SELECT k FROM log_big_3 WHERE k IS NOT NULL LIMIT 1;
ANALYZE one;
SELECT is(plan_text('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k', 'ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF'),
  regexp_replace(plan_text('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k', 'ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF'),
    'Shards Removed: \d+\n( *->  Index .* log_big_3 [^>]*)$', E'Shards Removed: 5\n\\1'), 'one shard is executed');
SELECT is((plan_text('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k', 'FORMAT json')::json
    -> 0 -> 'Plan' -> 'Plans' -> 1 -> 'Key') ->> 0, 'o.k', 'a value, as json');
SELECT unalike(plan_text('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k'), '%Removed%', 'EXPLAIN shows all');
SELECT matches(plan_text('SELECT t.id FROM log_big t WHERE k = (SELECT 7)', 'ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF'),
  '^Custom Scan \(shard_fdw key lookup\) [^\n]*\n  Key: [^\n]*\n  Shards Removed: 5\n(?!.*Filter)', 'no filter is left');
SELECT unalike(plan_text('SELECT t.id FROM one o LEFT JOIN log_big t ON t.k = NULLIF(o.k, o.k)', 'ANALYZE, COSTS OFF, TIMING OFF'),
  '%Index%', 'NULL leads nowhere');
SET LOCAL enable_partition_pruning = off;
SELECT unalike(plan_text('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k'), '%key lookup%', 'enable_partition_pruning = off');
RESET enable_partition_pruning;

-- A user's own condition of the same form is not lost.
SELECT is_empty(format('SELECT FROM log_big WHERE k = (SELECT %s) AND shard_fdw.in_hash(8, %s, 7)', k, (h + 1) % 8), 'a condition of the user')
  FROM one, LATERAL (SELECT h FROM generate_series(0, 7) h WHERE shard_fdw.in_hash(8, h, 7::int)) i;

-- Rows in the order of an index of one shard.
CREATE INDEX ON log_big_2 (k, n);
SELECT unalike(plan_text('SELECT (SELECT t.n FROM log_big t WHERE t.k = o.k ORDER BY n LIMIT 1) FROM one o'), '%Sort%', 'no sort');

-- Ids, and keys of several columns.

CREATE TABLE tmpl_id (id bigint PRIMARY KEY, v int);
CREATE FOREIGN TABLE log_id (id bigint OPTIONS (sequence 'always'), v int) SERVER shards
  OPTIONS (shards '5', route 'round_robin', template 'tmpl_id');
INSERT INTO log_id (v) SELECT generate_series(1, 50);
CREATE TABLE wanted AS SELECT g::bigint AS id, ARRAY[g, NULL, g + 3, g] AS some, g % 3 AS x FROM generate_series(-2, 60) g;
INSERT INTO wanted VALUES (NULL, NULL, 1), (NULL, '{}', 2);
CREATE TABLE plain_id AS SELECT * FROM log_id;
CREATE FUNCTION alike_id(command text) RETURNS text LANGUAGE sql AS $$
  SELECT results_eq(replace(command, '{t}', 'log_id'), replace(command, '{t}', 'plain_id'), command)
    || E'\n' || alike(plan_text(replace(command, '{t}', 'log_id')), '%shard_fdw key lookup%', 'planned by id: ' || command) $$;
SELECT alike_id('SELECT w.id, v FROM wanted w JOIN {t} t ON t.id = w.id ORDER BY 1');
SELECT alike_id('SELECT w.id, v FROM wanted w LEFT JOIN {t} t ON t.id = w.id::int AND v > w.x ORDER BY 1');
SELECT alike_id('SELECT w.id, t.id, v FROM wanted w JOIN {t} t ON t.id = ANY (w.some) ORDER BY 1, 2');
SELECT alike_id('SELECT id, v FROM {t} WHERE id = (SELECT max(id) FROM wanted WHERE id < 40)');
SELECT alike_id('SELECT w.id, (SELECT v FROM {t} t WHERE t.id = w.some[3]) FROM wanted w ORDER BY 1');
SELECT matches(plan_text('SELECT * FROM log_id WHERE id = (SELECT min(id) FROM wanted WHERE id > 0)', 'ANALYZE, COSTS OFF, TIMING OFF'), 'Id: .*Shards Removed: 4', 'EXPLAIN of an id');
ALTER TABLE log_id_2 NO INHERIT log_id;
SELECT results_eq('SELECT w.id, v FROM wanted w JOIN log_id t ON t.id = w.id ORDER BY 1',
  'SELECT w.id, v FROM wanted w JOIN plain_id t ON t.id = w.id WHERE t.id NOT IN (SELECT id FROM log_id_2) ORDER BY 1', 'ids of a shard that is gone');

CREATE TABLE tmpl_two (a int, b text, c int, UNIQUE (a, b, c));
CREATE FOREIGN TABLE log_two (a int, b text, c int) SERVER shards OPTIONS (shards '6', route 'hash', key 'b, a', template 'tmpl_two');
CREATE TABLE plain_two (LIKE tmpl_two);
INSERT INTO plain_two SELECT g % 7, 's' || g % 5, g FROM generate_series(1, 70) g;
INSERT INTO plain_two VALUES (NULL, 's1', 100), (1, NULL, 101), (NULL, NULL, 102);
INSERT INTO log_two SELECT * FROM plain_two;
CREATE TABLE pairs AS SELECT a, 's' || b AS b FROM generate_series(0, 8) a, generate_series(0, 5) b;
INSERT INTO pairs VALUES (NULL, 's1'), (1, NULL), (NULL, NULL);
CREATE FUNCTION alike_two(command text) RETURNS text LANGUAGE sql AS $$
  SELECT results_eq(replace(command, '{t}', 'log_two'), replace(command, '{t}', 'plain_two'), command)
    || E'\n' || alike(plan_text(replace(command, '{t}', 'log_two')), '%shard_fdw key lookup%', 'planned by key: ' || command) $$;
SELECT alike_two('SELECT p.*, t.c FROM pairs p JOIN {t} t USING (a, b) ORDER BY 1, 2, 3');
SELECT alike_two('SELECT p.*, t.c FROM pairs p JOIN {t} t ON t.a = p.a AND t.b = ''s2'' ORDER BY 1, 2, 3');
SELECT alike_two('SELECT p.*, t.* FROM pairs p JOIN {t} t ON t.a = p.a AND t.b = ANY (ARRAY[p.b, NULL, ''s3'']) ORDER BY 1, 2, t.c');
SELECT alike_two('SELECT p.*, (SELECT max(c) FROM {t} t WHERE t.a = p.a AND t.b = p.b) FROM pairs p ORDER BY 1, 2');
SELECT alike_two('SELECT * FROM {t} WHERE a = (SELECT 3) AND b = ''s1'' ORDER BY c');

-- Privileges are those on the logical table.

CREATE ROLE lookup_join_user;
GRANT USAGE ON SCHEMA lookup_join_test TO lookup_join_user;
GRANT SELECT ON one TO lookup_join_user;
SELECT fails('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k', '42501', role => 'lookup_join_user');
GRANT SELECT (id, k) ON log_big TO lookup_join_user;
SELECT fails('SELECT t.n FROM one o JOIN log_big t ON t.k = o.k', '42501', role => 'lookup_join_user');
SET LOCAL ROLE lookup_join_user;
SELECT isnt_empty('SELECT t.id FROM one o JOIN log_big t ON t.k = o.k', 'privileges on columns');
RESET ROLE;

-- Cursors.

CREATE FUNCTION fetched(tab text, options text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  c refcursor := 'fetched';
  direction text;
  r record;
  result text := '';
BEGIN
  EXECUTE format('DECLARE fetched %s CURSOR FOR SELECT o.id, t.id AS i FROM outer_big o JOIN %I t ON t.k = o.k ORDER BY 1, 2', options, tab);
  FOREACH direction IN ARRAY CASE WHEN options ~ '^SCROLL' THEN '{NEXT,NEXT,PRIOR,LAST,PRIOR,FIRST,NEXT}' ELSE '{NEXT,NEXT,NEXT}' END::text[] LOOP
    BEGIN
      FOR r IN EXECUTE format('FETCH %s FROM fetched', direction) LOOP
        result := result || r::text;
      END LOOP;
      RAISE EXCEPTION SQLSTATE 'ZZ000';
    EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
      result := result || ';';
    END;
  END LOOP;
  CLOSE c;
  RETURN result;
END $$;
SELECT is(fetched('log_big', o), fetched('plain_big', o), 'a cursor: ' || o) FROM unnest('{NO SCROLL,SCROLL}'::text[]) o;
DECLARE held CURSOR WITH HOLD FOR SELECT * FROM log_big WHERE k = (SELECT 7);
SELECT lives_ok('MOVE ALL FROM held', 'a cursor for a subquery''s value');
CLOSE held;
DECLARE current CURSOR FOR SELECT * FROM log_big WHERE k = (SELECT 7);
MOVE 1 FROM current;
UPDATE log_big SET note = 'current' WHERE CURRENT OF current;
SELECT results_eq($$ SELECT k, count(*) FROM log_big WHERE note = 'current' GROUP BY k $$, 'SELECT 7::bigint, 1::bigint', 'WHERE CURRENT OF');
CLOSE current;
UPDATE log_big SET note = 'n7' WHERE note = 'current';

-- A function that is executed while the scan is: scans within scans.
CREATE FUNCTION depth_of(key bigint, depth int) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
BEGIN
  RETURN CASE WHEN depth = 0 THEN key ELSE (SELECT max(depth_of(t.k, depth - 1)) FROM one o JOIN log_big t ON t.k = o.k + key - key) END;
END $$;
SELECT is((SELECT max(depth_of(o.k, 3)) FROM outer_big o JOIN log_big t ON t.k = o.k), (SELECT k FROM one), 'recursion');

-- What changes between two executions.

SET LOCAL plan_cache_mode = force_generic_plan;
PREPARE joined AS SELECT o.id, t.id FROM outer_big o JOIN log_big t ON t.k = o.k ORDER BY 1, 2;
PREPARE some_keys(bigint[]) AS SELECT t.id FROM log_big t WHERE k = ANY ($1) ORDER BY 1;
PREPARE change AS UPDATE log_big t SET n = t.n FROM outer_big o WHERE t.k = o.k;
SELECT alike(plan_text('EXECUTE joined'), '%key lookup%', 'a prepared join');
SELECT alike(plan_text('EXECUTE some_keys(''{1,2}'')'), '%key lookup%', 'a prepared array');
CREATE FUNCTION after(what text, command text, can_change boolean DEFAULT true) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE command;
  RETURN NEXT results_eq('EXECUTE joined', 'SELECT o.id, t.id FROM outer_big o JOIN log_big t ON t.k + 0 = o.k + 0 ORDER BY 1, 2', what);
  RETURN NEXT results_eq('EXECUTE some_keys(''{1,2,3,4,5,6,7,8,9,10,11}'')',
    'SELECT id FROM log_big t WHERE k + 0 BETWEEN 1 AND 11 ORDER BY 1', what || ', an array');
  RETURN NEXT is((error_of('EXECUTE change')).state, CASE WHEN NOT can_change THEN '23514' END, what || ', an update');
END $$;
SELECT after('at first', 'SELECT');
SELECT after('an index is dropped', 'ALTER TABLE log_big_0 DROP CONSTRAINT log_big_0_k_id_key');
SELECT after('a column is added', 'ALTER FOREIGN TABLE log_big ADD COLUMN more int');
SELECT after('a shard is sealed', 'SELECT shard_fdw.seal(''log_big_1'')', false);
SELECT after('a shard is unsealed', 'SELECT shard_fdw.unseal(''log_big_1'')');
SELECT after('a shard is detached', 'ALTER TABLE log_big_3 NO INHERIT log_big');
SELECT after('a shard is attached', 'ALTER TABLE log_big_3 INHERIT log_big');
ALTER TABLE log_big_2 DROP COLUMN own;
SELECT after('more shards', 'SELECT shard_fdw.reshard(''log_big'', 12)');
SELECT after('fewer shards', 'SELECT shard_fdw.reshard(''log_big'', 2)');
DO $$ BEGIN
  EXECUTE (SELECT format('ALTER TABLE log_big_0 DROP CONSTRAINT %I', conname) FROM pg_constraint
    WHERE conrelid = 'log_big_0'::regclass AND pg_get_constraintdef(oid) ~ 'in_hash');
END $$;
SELECT after('rows in the wrong place', 'INSERT INTO log_big_0 (id, k) SELECT 7000 + g, g FROM generate_series(1, 40) g');

SELECT * FROM finish();
ROLLBACK;
