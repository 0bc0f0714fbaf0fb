-- Statements that name the rows of one shard, by its key or an id: every shape
-- of query over all types of keys, under plans of all kinds, is compared with
-- the same on a plain table; then privileges, triggers, layouts, cursors, locks,
-- and what happens between planning and execution.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
SET LOCAL jit = off;
CREATE SCHEMA lookup_test;
SET LOCAL search_path = lookup_test, public;
SET LOCAL timezone = 'UTC';

\ir helpers.psql

-- What a command returns, sorted, or its error.
CREATE FUNCTION outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN returned(command)::text;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

--
-- Random values, all shapes of queries
--

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'mad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE point2 AS (x int, y text);
CREATE FUNCTION same(anyelement) RETURNS anyelement STABLE LANGUAGE plpgsql
  AS 'BEGIN RETURN $1; END';
CREATE TABLE side (n int, m int);
INSERT INTO side SELECT g, g % 3 FROM generate_series(-2, 12) g;
ANALYZE side;

-- Keys: their columns, values by a number, types of parameters, and conditions,
-- with x. before each column.
CREATE TABLE keys (id int GENERATED ALWAYS AS IDENTITY, cols text, key text, vals text, params text,
  cond text DEFAULT 'x.k = $1', route text DEFAULT 'hash');
INSERT INTO keys (cols, key, vals, params) VALUES
  ('k bigint', 'k', 'g::bigint', 'bigint'),
  ('k bigint', 'k', 'g::bigint', 'int'),
  ('k int', 'k', 'g::int', 'int'),
  ('k int', 'k', 'g::int', 'bigint'),
  ('k smallint', 'k', 'g::smallint', 'int'),
  ('k smallint', 'k', 'g::smallint', 'smallint'),
  ('k text', 'k', '''t'' || g', 'text'),
  ('k text COLLATE "C"', 'k', '''t'' || g', 'text'),
  ('k text COLLATE "C"', 'k', '''t'' || g', 'name'),
  ('k varchar', 'k', '(''t'' || g)::varchar', 'text'),
  ('k char(8)', 'k', '(''t'' || g)::char(8)', 'bpchar'),
  ('k name', 'k', '(''t'' || g)::name', 'text'),
  ('k uuid', 'k', 'md5(g::text)::uuid', 'uuid'),
  ('k date', 'k', '''2026-01-01''::date + g', 'date'),
  ('k numeric', 'k', 'g / 4.0', 'numeric'),
  ('k timestamptz', 'k', 'to_timestamp(g * 1e6)', 'timestamptz'),
  ('k timestamptz', 'k', '(''2026-01-01''::date + g)::timestamptz', 'date'),
  ('k float8', 'k', 'CASE WHEN g = 0 THEN ''-0'' ELSE g::text END::float8', 'float4'),
  ('k bool', 'k', 'g % 2 = 0', 'bool'),
  ('k bytea', 'k', 'decode(md5(g::text), ''hex'')', 'bytea'),
  ('k mood', 'k', '(enum_range(NULL::mood))[1 + abs(g) % 4]', 'mood'),
  ('k positive', 'k', '(abs(g) + 1)::positive', 'int'),
  ('k positive', 'k', '(abs(g) + 1)::positive', 'positive'),
  ('k int[]', 'k', 'ARRAY[g, g + 1]', 'int[]'),
  ('k point2', 'k', '(g, ''p'' || g)::point2', 'point2'),
  ('k jsonb', 'k', 'jsonb_build_object(''g'', g)', 'jsonb');
INSERT INTO keys (cols, key, vals, params, cond) VALUES
  ('k int, l text', 'k, l', 'g, ''l'' || g % 4', 'int, text', 'x.k = $1 AND x.l = $2'),
  ('k int, l text', 'l, k', 'g, ''l'' || g % 4', 'bigint, text', '(x.k, x.l) = ($1, $2)'),
  ('k date, l bigint', 'k, l', '''2026-01-01''::date + g, g::bigint', 'date, int',
    '$2 = x.l AND $1 = x.k'),
  ('k int', 'k', 'g', 'int', 'x.k = same($1)'),
  ('k int', 'k', 'g', 'int', 'x.k = $1 + 1 - 1'),
  ('k int', 'k', 'g', 'int', 'x.k = coalesce($1, 3)'),
  ('k int', 'k', 'g', 'int', 'x.k = CASE WHEN $1 > 3 THEN $1 ELSE same(2) END'),
  ('k int', 'k', 'g', 'int', 'x.k = ANY (ARRAY[$1, 3, NULL])'),
  ('k int', 'k', 'g', 'int', 'x.k IN ($1, 5)'),
  ('k int', 'k', 'g', 'int', 'x.k = (SELECT $1)'),
  ('k int', 'k', 'g', 'int', 'x.k = (SELECT max(n) FROM side WHERE n <= $1)'),
  ('k int', 'k', 'g', 'int', 'x.k IS NOT DISTINCT FROM $1'),
  ('k int', 'k', 'g', 'int', '(x.k = $1 OR x.n = 2)'),
  ('k int', 'k', 'g', 'int', '(x.k = $1) IS NOT TRUE'),
  ('k int', 'k', 'g', 'int', 'x.k = $1 AND x.k = 4'),
  ('k int', 'k', 'g', 'int', 'x.k = $1 AND same(x.k) = $1 AND $1 > 2'),
  ('k int', 'k', 'g', 'int', 'NOT x.k <> $1'),
  ('k int', 'k', 'g', 'int[]', 'x.k = ANY ($1)');
UPDATE keys SET vals = 'g' WHERE cond LIKE '%= ANY ($1)';
INSERT INTO keys (cols, key, vals, params, cond, route) VALUES
  ('k bigint', NULL, 'g', 'int', 'x.id = $1', 'session'),
  ('k bigint', NULL, 'g', 'bigint', 'x.id = $1', 'round_robin'),
  ('k int', 'k', 'g', 'bigint', '$1 = x.id', 'hash'),
  ('k int', 'k', 'g', 'bigint, int', '$1 = x.id AND x.k = $2', 'hash');

-- A table and its plain twin for each key, with the same views.
CREATE FUNCTION make_tables(key keys) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  t text;
BEGIN
  EXECUTE format('CREATE TABLE plain_%s (%s, n int, s text, id bigint)', key.id, key.cols);
  EXECUTE format('CREATE FOREIGN TABLE shard_%s (%s, n int, s text%s) SERVER shards OPTIONS '
                 '(shards ''5'', route %L %s)', key.id, key.cols,
    CASE WHEN key.cond LIKE '%.id%' THEN ', id bigint OPTIONS (sequence ''always'')' ELSE ', id bigint' END,
    key.route, ', key ' || quote_literal(key.key));
  FOR i IN 0 .. CASE WHEN key.route = 'session' THEN 3 ELSE 0 END LOOP
    IF key.route = 'session' THEN PERFORM set_config('shard_fdw.shard', i::text, true); END IF;
    EXECUTE format('INSERT INTO shard_%s SELECT %s, g, ''s'' || g FROM '
      'generate_series(-2, 12) g', key.id, key.vals);
  END LOOP;
  PERFORM set_config('shard_fdw.shard', '-1', true);
  EXECUTE format('INSERT INTO plain_%s SELECT * FROM shard_%1$s', key.id);
  FOREACH t IN ARRAY ARRAY['plain', 'shard'] LOOP
    EXECUTE format('CREATE VIEW %s_%s_v AS SELECT * FROM %1$s_%2$s', t, key.id);
    EXECUTE format('CREATE VIEW %s_%s_b WITH (security_barrier) AS SELECT * FROM %1$s_%2$s x '
      'WHERE n > 0 WITH CHECK OPTION', t, key.id);
  END LOOP;
END $$;
SELECT make_tables(keys) FROM keys \g /dev/null
CREATE TEMP TABLE merged (k int, note text);

-- Queries; {t} is the table, {x} the condition.
CREATE TABLE shapes (id int GENERATED ALWAYS AS IDENTITY, q text);
INSERT INTO shapes (q) VALUES
  ('SELECT * FROM {t} x WHERE {x}'),
  ('SELECT x, x.n, row_to_json(x) FROM {t} x WHERE {x} AND x IS NOT NULL'),
  ('SELECT count(*), max(n), count(x) FROM {t} x WHERE {x}'),
  ('SELECT n FROM {t} x WHERE n > 1 AND {x} FOR UPDATE'),
  ('SELECT x.*, y.m FROM {t} x JOIN side y USING (n) WHERE {x} FOR SHARE OF x'),
  ('SELECT x.n, y.n FROM {t} x JOIN {t} y ON y.n = x.n WHERE {x}'),
  ('SELECT x.n, y.n FROM {t} x JOIN {t} y ON y.k = x.k AND {x}'),
  ('SELECT x, y.n FROM side y LEFT JOIN {t} x ON x.n = y.n AND {x}'),
  ('SELECT x.s, y.n FROM side y LEFT JOIN {t} x ON x.n = y.n WHERE {x}'),
  ('SELECT x.s, y.n FROM {t} x LEFT JOIN side y ON x.n = y.n AND {x}'),
  ('SELECT x.s, y.n FROM {t} x LEFT JOIN side y ON x.n = y.n WHERE {x}'),
  ('SELECT x.s, y.n FROM {t} x RIGHT JOIN side y ON x.n = y.n AND {x}'),
  ('SELECT x.s, y.n FROM side y RIGHT JOIN {t} x ON x.n = y.n AND {x}'),
  ('SELECT x.s, y.n FROM {t} x FULL JOIN side y ON x.n = y.n WHERE {x}'),
  ('SELECT x.s, y.n FROM (SELECT * FROM {t} x WHERE {x}) x FULL JOIN side y ON x.n = y.n'),
  ('SELECT x.s, y.n, z.n FROM side z LEFT JOIN (side y LEFT JOIN {t} x USING (n)) ON z.m = y.m AND {x}'),
  ('SELECT x.s, y.n, z.n FROM (side y LEFT JOIN {t} x USING (n)) LEFT JOIN side z ON z.m = y.m AND {x}'),
  ('SELECT x.s, y.n, z.n FROM (side y FULL JOIN {t} x USING (n)) JOIN side z ON z.n = y.n AND {x}'),
  ('SELECT y.n FROM side y WHERE EXISTS (SELECT FROM {t} x WHERE {x} AND x.n = y.n)'),
  ('SELECT y.n FROM side y WHERE NOT EXISTS (SELECT FROM {t} x WHERE {x} AND x.n = y.n)'),
  ('SELECT y.n FROM side y WHERE y.n NOT IN (SELECT x.n FROM {t} x WHERE {x})'),
  ('SELECT y.n, (SELECT max(x.s) FROM {t} x WHERE {x} AND x.n >= y.n) FROM side y'),
  ('SELECT x.n, (SELECT count(*) FROM {t} z WHERE z.n = x.n), (SELECT count(*) FROM side z WHERE z.n < x.n) FROM {t} x WHERE {x}'),
  ('SELECT x.n, (SELECT x FROM side z LIMIT 1), (SELECT sum(z.m + x.n) FROM side z) FROM {t} x WHERE {x}'),
  ('WITH c AS MATERIALIZED (SELECT * FROM {t} x WHERE {x}) SELECT * FROM c a JOIN c b USING (n)'),
  ('WITH c AS NOT MATERIALIZED (SELECT * FROM {t}) SELECT * FROM c x WHERE {x}'),
  ('WITH c AS (UPDATE {t} x SET s = s || ''!'' WHERE {x} RETURNING *, (tableoid IS NULL)) SELECT * FROM c UNION ALL SELECT *, NULL FROM {t} x WHERE {x}'),
  ('WITH c AS (DELETE FROM {t} x WHERE {x} RETURNING *) INSERT INTO {t} OVERRIDING SYSTEM VALUE SELECT * FROM c RETURNING *'),
  ('WITH RECURSIVE r AS (SELECT n, 1 AS d FROM {t} x WHERE {x} UNION ALL SELECT x.n, d + 1 FROM r, {t} x WHERE {x} AND d < 3) SELECT * FROM r'),
  ('SELECT * FROM {t} x WHERE {x} UNION ALL SELECT * FROM {t} WHERE n = 3'),
  ('SELECT n FROM {t} EXCEPT SELECT n FROM {t} x WHERE {x}'),
  ('SELECT n, q FROM (SELECT n, 1 AS q FROM {t} x WHERE {x} UNION ALL SELECT n, m FROM side) u WHERE q > 0'),
  ('SELECT * FROM {t}_v x WHERE {x}'),
  ('SELECT x FROM {t}_b x WHERE {x}'),
  ('SELECT * FROM (SELECT * FROM {t} OFFSET 0) x WHERE {x}'),
  ('SELECT DISTINCT n, s, count(*) OVER () FROM {t} x WHERE {x} ORDER BY n DESC LIMIT 3'),
  ('SELECT n, s, count(*) FROM {t} x WHERE {x} GROUP BY ROLLUP (n, s) HAVING count(*) > 0'),
  ('SELECT y.n, z.* FROM side y, LATERAL (SELECT x.n, x.s, y.m FROM {t} x WHERE {x} AND x.n > y.n) z'),
  ('SELECT x.s, y.s FROM {t} x, {t} y WHERE {x} AND y.k = x.k AND y.n = x.n'),
  ('SELECT a.n, b.n, c.n, d.n, e.n FROM (SELECT n FROM {t} x WHERE {x}) a, (SELECT n FROM {t} x WHERE {x}) b, (SELECT n FROM {t} x WHERE {x} OFFSET 0) c, (SELECT n FROM {t} x WHERE {x}) d, (SELECT n FROM {t} x WHERE {x}) e WHERE a.n = b.n AND c.n = d.n AND e.n = a.n'),
  ('SELECT CASE WHEN n > 3 THEN (SELECT count(*) FROM {t} x WHERE {x}) END FROM side'),
  ('SELECT j, j.n FROM ({t} x JOIN side y USING (n)) j, LATERAL (SELECT j.n) z WHERE j.n > 0 AND EXISTS (SELECT FROM {t} x WHERE {x})'),
  ('SELECT (x).n, (x.*) = (x.*), x::text || ''?'' FROM {t} x WHERE {x} AND x = x'),
  ('UPDATE {t} x SET s = s || ''.'' WHERE {x} RETURNING n, s, x, tableoid > 0'),
  ('UPDATE {t} x SET n = x.n, s = y.m || x.s FROM side y WHERE y.n = x.n AND {x} RETURNING x.*, y.*'),
  ('UPDATE {t} x SET (s, n) = (SELECT max(s || ''u''), x.n FROM {t} z WHERE z.n = x.n) WHERE {x} RETURNING *'),
  ('UPDATE {t} t SET s = t.s || x.s FROM {t} x WHERE x.n = t.n AND {x} AND t.n IS NOT NULL RETURNING t.n'),
  ('UPDATE {t}_v x SET s = ''v'' || n WHERE {x} RETURNING *'),
  ('UPDATE {t}_b x SET s = ''b'' || n WHERE {x} RETURNING x'),
  ('UPDATE {t}_b x SET n = n - 3 WHERE {x} AND n = 3'),
  ('DELETE FROM {t}_b x WHERE {x} AND n = 4 RETURNING *'),
  ('DELETE FROM {t} x USING side y WHERE y.n = x.n AND y.m = 2 AND {x} AND x.n = 5 RETURNING x, y'),
  ('WITH d AS (DELETE FROM {t} x WHERE {x} AND x.n = 6 RETURNING x.*), u AS (UPDATE {t} x SET s = ''cte'' WHERE {x} AND x.n <> 6 RETURNING x.n) SELECT d.n, u.n FROM d FULL JOIN u ON d.n = u.n'),
  ('MERGE INTO merged m USING {t} x ON m.k = x.n AND {x} WHEN NOT MATCHED THEN INSERT VALUES (x.n, x.s) WHEN MATCHED THEN UPDATE SET note = x.s'),
  ('MERGE INTO merged m USING (SELECT * FROM {t} x WHERE {x}) z ON m.k = z.n WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (z.n, ''m'')'),
  ('INSERT INTO merged SELECT n, s FROM {t} x WHERE {x} RETURNING *');

INSERT INTO shapes (q)
SELECT regexp_replace(replace(q, '{t} x', '(SELECT * FROM {t}_v y) x'), '\{t\}(?!_)', '{t}_v', 'g')
  FROM shapes WHERE q ~ '^SELECT';
INSERT INTO shapes (q) VALUES
  ('SELECT * FROM (SELECT DISTINCT ON (n % 2) * FROM {t} ORDER BY n % 2, n, id) x WHERE {x}'),
  ('SELECT * FROM (SELECT * FROM {t} ORDER BY n, id LIMIT 5) x WHERE {x}'),
  ('SELECT * FROM (SELECT *, count(*) OVER () FROM {t}) x WHERE {x}'),
  ('SELECT * FROM (SELECT *, generate_series(1, 2) FROM {t}) x WHERE {x}'),
  ('SELECT * FROM (SELECT * FROM {t} UNION SELECT * FROM {t} WHERE n > 2) x WHERE {x}'),
  ('SELECT x.n, y.n FROM side y LEFT JOIN (SELECT t.*, m FROM side LEFT JOIN {t} t USING (n)) x ON x.m = y.m WHERE {x}'),
  ('SELECT x.n, y.n FROM side y LEFT JOIN (SELECT t.*, m FROM side FULL JOIN {t} t USING (n)) x ON x.m = y.m AND {x}'),
  ('SELECT x.n, y.n FROM side y FULL JOIN (SELECT t.*, m FROM side RIGHT JOIN {t} t USING (n)) x ON x.m = y.m WHERE {x}'),
  ('SELECT * FROM (SELECT a.k AS k2, b.* FROM {t} a JOIN {t} b USING (n)) x WHERE {x}'),
  ('UPDATE {t} t SET s = ''by view'' FROM {t}_v x WHERE {x} AND t.n = x.n RETURNING t.*'),
  ('DELETE FROM {t} t USING (SELECT * FROM {t}_b WHERE n % 3 = 1) x WHERE {x} AND t.n = x.n RETURNING t.*'),
  ('MERGE INTO merged m USING (SELECT * FROM {t}) x ON m.k = x.n AND {x} WHEN NOT MATCHED THEN INSERT VALUES (x.n, x.s) WHEN MATCHED THEN UPDATE SET note = x.s');

-- Values for the parameters of a key, some of them null or of no row.
CREATE FUNCTION random_params(key keys) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  g int := floor(random() * 19) - 4;
  result text;
BEGIN
  IF key.params LIKE '%[]' AND key.cond LIKE '%ANY%' THEN
    RETURN (ARRAY['NULL', '''{}''', '''{NULL}''', '''{1,NULL,3}''', '''{2}''', '''{4,5,6,7}''',
                  '''{{1,2},{3,4}}'''])[1 + floor(random() * 7)::int];
  ELSIF random() < 0.12 THEN
    RETURN (SELECT string_agg('NULL', ', ') FROM string_to_table(key.params, ','));
  ELSIF key.cond LIKE '%.id%' THEN
    EXECUTE format('SELECT id %s FROM plain_%s ORDER BY random() LIMIT 1',
      CASE WHEN key.params LIKE '%,%' THEN '|| '','' || k' ELSE '' END, key.id) INTO result;
    RETURN CASE WHEN random() < 0.9 THEN result ELSE replace('77777,0', ',0',
      CASE WHEN key.params LIKE '%,%' THEN ',0' ELSE '' END) END;
  END IF;
  RETURN replace(regexp_replace(key.vals, '\mg\M', '(' || g || ')', 'g'), '/ 4.0', '/ 4.00');
END $$;

-- Execute a query with random values several times on both tables of a key.
-- Returns the first difference.
CREATE FUNCTION differs(key keys, shape shapes, mode text, n int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  q text := replace(shape.q, '{x}', '(' || key.cond || ')');
  t text;
  params text;
  results text[];
  contents text[];
BEGIN
  PERFORM set_config('plan_cache_mode', mode, true);
  FOREACH t IN ARRAY ARRAY['plain', 'shard'] LOOP
    EXECUTE format('PREPARE prepared_%s (%s) AS %s', t, key.params,
      replace(q, '{t}', format('%s_%s', t, key.id)));
  END LOOP;
  FOR i IN 1 .. n LOOP
    params := random_params(key);
    results := '{}';
    contents := '{}';
    FOREACH t IN ARRAY ARRAY['plain', 'shard'] LOOP
      TRUNCATE merged;
      INSERT INTO merged VALUES (1, 'old'), (100, 'old');
      results := results || replace(CASE
        WHEN q LIKE 'MERGE%' OR q LIKE '%u AS%' AND q NOT LIKE 'WITH%'
          THEN (SELECT outcome_of_merge(format('EXECUTE prepared_%s (%s)', t, params)))
        ELSE outcome(format('EXECUTE prepared_%s (%s)', t, params)) END,
        format('%s_%s', t, key.id), 'T');
      IF q !~ '^SELECT' THEN
        contents := contents || outcome(format('SELECT * FROM %s_%s', t, key.id));
      END IF;
    END LOOP;
    EXIT WHEN results[1] <> results[2] OR contents[1] <> contents[2];
  END LOOP;
  EXECUTE 'DEALLOCATE prepared_plain';
  EXECUTE 'DEALLOCATE prepared_shard';
  IF results[1] <> results[2] OR contents[1] <> contents[2] THEN
    RETURN format(E'%s, %s, key %s %s, (%s):\n%s\n%s\n%s\n%s', q, mode, key.id, key.cols, params,
      results[1], results[2], contents[1], contents[2]);
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION outcome_of_merge(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE command;
  RETURN (SELECT array_agg(m ORDER BY m)::text FROM merged m);
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Some of all combinations, the same ones each time; psql -v part=1 tries all,
-- -v seed=0.1 others.
\if :{?part}
\else
\set part 0.12
\endif
\if :{?seed}
\else
\set seed 0.7
\endif
SELECT setseed(:seed);
CREATE TABLE runs AS SELECT k, s, m, random() AS r FROM keys k, shapes s,
  unnest(ARRAY['auto', 'force_generic_plan', 'force_custom_plan']) m ORDER BY k.id, s.id, m;
SELECT is(string_agg(differs(k, s, m, CASE m WHEN 'auto' THEN 8 ELSE 4 END), E'\n'), NULL,
    format('as a plain table: %s, %s, parameters %s', (k).cols, (k).cond, (k).params))
  FROM runs WHERE r < :part GROUP BY k ORDER BY (k).id;
RESET plan_cache_mode;

--
-- What is read and locked
--

CREATE TABLE items_template (id int PRIMARY KEY, n int, s text DEFAULT 'new');
CREATE FOREIGN TABLE items (id int, n int, s text DEFAULT 'new') SERVER shards
  OPTIONS (shards '6', route 'hash', key 'id', template 'lookup_test.items_template');
INSERT INTO items SELECT g, g % 7, 's' || g FROM generate_series(1, 200) g;
CREATE TABLE plain AS SELECT * FROM items;
-- The shard of an id.
CREATE FUNCTION home(id int) RETURNS text LANGUAGE sql AS $$
  SELECT 'items_' || r FROM generate_series(0, 5) r WHERE shard_fdw.in_hash(6, r, id)
$$;
CREATE VIEW seen AS SELECT n, id, s FROM items;
CREATE VIEW barrier WITH (security_barrier) AS SELECT id AS number, n FROM seen WHERE n > 0;
PREPARE via (int) AS SELECT * FROM barrier WHERE number = $1 FOR SHARE;
PREPARE sel (int) AS SELECT * FROM items WHERE id = $1;
PREPARE upd (int) AS UPDATE items SET n = n + 1 WHERE id = $1 RETURNING tableoid::regclass, *;
PREPARE del (int) AS DELETE FROM items WHERE id = $1 RETURNING items;
PREPARE loc (int) AS SELECT n FROM items WHERE id = $1 FOR UPDATE;
PREPARE two (int, int) AS SELECT a.id, b.id FROM items a, items b WHERE a.id = $1 AND b.id = $2;

SET LOCAL plan_cache_mode = force_generic_plan;
SELECT is(scanned_names(format(q, i)), home(i), format('only its shard is read: ' || q, i))
  FROM unnest(ARRAY['SELECT * FROM items WHERE id = %s', 'UPDATE items SET n = 1 WHERE id = %s',
    'DELETE FROM items WHERE id = %s', 'SELECT * FROM items WHERE id = %s FOR SHARE',
    'EXECUTE sel (%s)', 'EXECUTE upd (%s)', 'EXECUTE del (%s)', 'EXECUTE loc (%s)',
    'SELECT * FROM items WHERE id = same(%s)', 'SELECT * FROM seen WHERE id = %s',
    'SELECT * FROM barrier b WHERE number = %s AND n > 1', 'UPDATE barrier SET n = 2 WHERE number = %s',
    'SELECT s.n FROM (SELECT x.id, y.n FROM seen x, seen y WHERE y.id = x.n AND y.id = %1$s) s JOIN seen USING (id) WHERE s.id = %1$s',
    'SELECT (SELECT n FROM seen WHERE id = %s)', 'SELECT * FROM items WHERE id = %1$s AND id = %1$s',
    'EXECUTE via (%s)']) q, unnest(ARRAY[17, 18]) i;
SELECT is(scanned_names('EXECUTE two (17, 17)'), home(17), 'two lookups, one shard');
SELECT is(scanned_names('EXECUTE two (17, 18)'),
  (SELECT string_agg(DISTINCT home(i), ' ' ORDER BY home(i)) FROM unnest(ARRAY[17, 18]) i),
  'two lookups, two shards');
SELECT is(returned('EXECUTE sel (NULL)'), '{}', 'no row has the key null');
SELECT ok(outcome(format('EXPLAIN (FORMAT %s, VERBOSE, COSTS, %s) EXECUTE %s (17)', f, o, p))
    ~ home(17), format('EXPLAIN (FORMAT %s, %s) of %s', f, o, p))
  FROM unnest(ARRAY['text', 'json', 'xml', 'yaml']) f, unnest(ARRAY['sel', 'upd', 'loc']) p,
       unnest(ARRAY['SETTINGS', 'ANALYZE, BUFFERS']) o;
SELECT (current_setting('server_version_num')::int >= 160000) AS has_generic \gset
\if :has_generic
SELECT ok(outcome('EXPLAIN (GENERIC_PLAN) SELECT * FROM items WHERE id = $1') ~ 'items_\d',
  'EXPLAIN (GENERIC_PLAN) shows one of the shards');
SELECT ok(outcome('EXPLAIN (GENERIC_PLAN) UPDATE items SET n = $2 WHERE id = $1') ~ 'items_\d',
  'EXPLAIN (GENERIC_PLAN) shows one of the shards for UPDATE');
\endif
RESET plan_cache_mode;

--
-- Change of the key, of rows of another layout, generated columns
--

SELECT fails('UPDATE items SET id = (SELECT min(x) FROM generate_series(1000, 2000) x '
  'WHERE home(x) <> home(17)) WHERE id = 17', '23514', title => 'a row cannot leave its shard');
CREATE FOREIGN TABLE laid (a int, b int, c int, d text) SERVER shards
  OPTIONS (shards '4', route 'hash', key 'a');
CREATE TABLE laid_plain (a int, b int, c int, d text);
CREATE FUNCTION relay(r int, def text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  place text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint
                  WHERE conrelid = format('laid_%s', r)::regclass AND conname = 'shard_hash');
BEGIN
  EXECUTE format('DROP TABLE laid_%s; CREATE TABLE laid_%1$s (%s)', r, def);
  EXECUTE format('ALTER TABLE laid_%s DROP x0, DROP x1; ALTER TABLE laid_%1$s ADD CONSTRAINT '
                 'shard_hash %s; ALTER TABLE laid_%1$s INHERIT laid', r, place);
END $$;
SELECT relay(1, 'x0 int, d text, x1 text, b int, c int, a int');
SELECT relay(2, 'c int, x0 int, a int, own int DEFAULT 5, x1 int, d text, b int');
INSERT INTO laid SELECT g, g % 5, g % 3, 'd' || g FROM generate_series(1, 100) g;
INSERT INTO laid_plain SELECT * FROM laid;
SELECT is(count(DISTINCT tableoid), 4::bigint, 'all layouts have rows') FROM laid;

-- The same on both, with $1 = 1 .. 12; the result sorted.
CREATE FUNCTION same_on(a text, b text, query text, mode text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  got text[];
  t text;
BEGIN
  PERFORM set_config('plan_cache_mode', mode, true);
  EXECUTE 'PREPARE on_a (int) AS ' || replace(query, '{t}', a);
  EXECUTE 'PREPARE on_b (int) AS ' || replace(query, '{t}', b);
  FOR i IN 1 .. 12 LOOP
    got := ARRAY[outcome(format('EXECUTE on_a (%s)', i)), outcome(format('EXECUTE on_b (%s)', i)),
      outcome('SELECT * FROM ' || a), outcome('SELECT * FROM ' || b)];
    EXIT WHEN got[1] <> got[2] OR got[3] <> got[4];
  END LOOP;
  DEALLOCATE on_a;
  DEALLOCATE on_b;
  RESET plan_cache_mode;
  RETURN CASE WHEN got[1] <> got[2] OR got[3] <> got[4] THEN got::text ELSE 'same' END;
END $$;
\set modes 'unnest(ARRAY[''auto'', ''force_generic_plan'', ''force_custom_plan'']) mode'
CREATE TEMP TABLE extra (a int, e text);
INSERT INTO extra SELECT g, 'e' || g FROM generate_series(1, 5) g;
CREATE VIEW laid_v AS SELECT d, a AS key, b FROM laid WHERE b < 4 WITH LOCAL CHECK OPTION;
CREATE VIEW laid_plain_v AS SELECT d, a AS key, b FROM laid_plain WHERE b < 4 WITH LOCAL CHECK OPTION;
SELECT is(same_on('laid', 'laid_plain', q, mode), 'same', format('other layouts, %s: %s', mode, q))
  FROM :modes, unnest(ARRAY[
  'SELECT * FROM {t} WHERE a = $1',
  'SELECT x, x.d, row_to_json(x) FROM {t} x WHERE a = $1',
  'SELECT j FROM ({t} x JOIN extra USING (a)) j WHERE a = $1',
  'SELECT j, x FROM ({t} x (p, q) JOIN extra ON p = a) j RIGHT JOIN {t} x ON x.a = j.p WHERE x.a = $1 AND j.p = $1',
  'SELECT p, q, t FROM {t} t (p, q) WHERE p = $1',
  'SELECT d, (SELECT x.d FROM extra e WHERE e.a = x.a), (SELECT x FROM extra LIMIT 1) FROM {t} x WHERE a = $1',
  'SELECT (SELECT y FROM {t} y WHERE y.a = $1 AND y.b = x.b), x FROM {t} x WHERE x.a = $1',
  'SELECT d, b, count(*) FROM {t} WHERE a = $1 GROUP BY GROUPING SETS ((d), (b))',
  'UPDATE {t} x SET d = d || c, b = c WHERE a = $1 RETURNING *',
  'UPDATE {t} x SET c = b, d = e FROM extra e WHERE x.a = e.a AND x.a = $1 RETURNING x, e, x.d',
  'UPDATE {t} x SET (b, d) = (SELECT c, ''m'' || x.d) WHERE a = $1 RETURNING x.*, x',
  'UPDATE {t}_v x SET d = ''v'', b = 3 WHERE key = $1 RETURNING *, x',
  'UPDATE {t}_v SET b = 9 WHERE key = $1 AND false',
  'SELECT * FROM {t} x WHERE a = $1 FOR NO KEY UPDATE',
  'SELECT x.d, e.* FROM {t} x LEFT JOIN extra e ON e.a = x.a AND x.b > 1 WHERE x.a = $1 FOR UPDATE OF x',
  'WITH d AS (DELETE FROM {t} x WHERE a = $1 RETURNING x, *) INSERT INTO {t} (a, b, c, d) SELECT a, b, c, d || ''r'' FROM d RETURNING *']) q;
SELECT fails('UPDATE laid_v SET b = 9 WHERE key = 1', '44000',
  title => 'WITH CHECK OPTION is checked for shards of any layout');

-- The table changes between executions.
PREPARE laid_all (int) AS SELECT * FROM laid WHERE a = $1;
PREPARE laid_upd (int) AS UPDATE laid SET d = d || '+' WHERE a = $1 RETURNING a, b, d;
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT is(cardinality(returned(format('EXECUTE laid_upd (%s)', i))), 1, 'before the change')
  FROM generate_series(1, 12) i;
ALTER FOREIGN TABLE laid DROP COLUMN c;
SELECT is(returned(format('EXECUTE laid_upd (%s)', i)),
  returned(format('SELECT a, b, d FROM laid WHERE a + 0 = %s', i)), 'after DROP COLUMN')
  FROM generate_series(1, 12) i;
ALTER FOREIGN TABLE laid ADD COLUMN f numeric DEFAULT 2.5;
ALTER FOREIGN TABLE laid RENAME d TO dd;
DEALLOCATE laid_all;
PREPARE laid_all (int) AS SELECT a, dd, f FROM laid WHERE a = $1;
SELECT is(returned(format('EXECUTE laid_all (%s)', i)),
  returned(format('SELECT a, dd, f FROM laid WHERE a + 0 = %s', i)), 'after ADD COLUMN and RENAME')
  FROM generate_series(1, 12) i;
RESET plan_cache_mode;

CREATE FOREIGN TABLE gen (a int, b int, g int GENERATED ALWAYS AS (b * 2) STORED) SERVER shards
  OPTIONS (shards '3', route 'hash', key 'a');
CREATE TABLE gen_plain (a int, b int, g int GENERATED ALWAYS AS (b * 2) STORED);
INSERT INTO gen (a, b) SELECT g, g FROM generate_series(1, 40) g;
INSERT INTO gen_plain (a, b) SELECT a, b FROM gen;
SELECT is(same_on('gen', 'gen_plain', q, mode), 'same', format('generated columns, %s: %s', mode, q))
  FROM :modes, unnest(ARRAY['SELECT * FROM {t} WHERE a = $1',
  'UPDATE {t} SET b = b + 10 WHERE a = $1 RETURNING g, *',
  'UPDATE {t} SET b = DEFAULT WHERE a = $1 AND a = 3 RETURNING *']) q;
SELECT (current_setting('server_version_num')::int >= 180000) AS has_virtual \gset
\if :has_virtual
CREATE FOREIGN TABLE virt (a int, b int, g int GENERATED ALWAYS AS (b * 2) VIRTUAL) SERVER shards
  OPTIONS (shards '3', route 'hash', key 'a');
CREATE TABLE virt_plain (a int, b int, g int GENERATED ALWAYS AS (b * 2) VIRTUAL);
INSERT INTO virt (a, b) SELECT g, g FROM generate_series(1, 40) g;
INSERT INTO virt_plain (a, b) SELECT a, b FROM virt;
SELECT is(same_on('virt', 'virt_plain', q, mode), 'same', format('virtual columns, %s: %s', mode, q))
  FROM :modes, unnest(ARRAY['SELECT * FROM {t} WHERE a = $1', 'SELECT x, g FROM {t} x WHERE a = $1',
  'UPDATE {t} SET b = b + 10 WHERE a = $1 RETURNING g, *',
  'UPDATE {t} SET b = g + 10 WHERE a = $1 AND g > 3 RETURNING old.g, new.g']) q;
\endif

--
-- Triggers
--

CREATE TABLE fired (what text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO fired VALUES (concat_ws(' ', TG_NAME, TG_TABLE_NAME, TG_WHEN, TG_OP, TG_LEVEL));
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE FUNCTION fired_by(command text, OUT result text) LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE fired;
  EXECUTE command;
  result := (SELECT coalesce(string_agg(what, ', ' ORDER BY what COLLATE "C"), 'none') FROM fired);
END $$;
SELECT home(17) AS h \gset
CREATE TRIGGER of_n BEFORE UPDATE OF n ON :h FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER of_s AFTER UPDATE OF s ON :h FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER gone AFTER DELETE ON :h FOR EACH ROW EXECUTE FUNCTION fire();
SELECT is(fired_by('EXECUTE upd (17)'), format('of_n %s BEFORE UPDATE ROW', :'h'),
  'column triggers of the shard, UPDATE of n');
SELECT is(fired_by('UPDATE items SET s = ''t'' WHERE id = 17'),
  format('of_s %s AFTER UPDATE ROW', :'h'), 'column triggers of the shard, UPDATE of s');
SELECT is(fired_by('EXECUTE del (17)'), format('gone %s AFTER DELETE ROW', :'h'),
  'row triggers of the shard, DELETE');
INSERT INTO items SELECT * FROM plain WHERE id = 17;
CREATE TRIGGER st BEFORE UPDATE OR DELETE ON items FOR EACH STATEMENT EXECUTE FUNCTION fire();
CREATE TRIGGER st_shard BEFORE UPDATE OR DELETE ON :h FOR EACH STATEMENT EXECUTE FUNCTION fire();
SELECT is(fired_by('EXECUTE upd (17)'), format('of_n %s BEFORE UPDATE ROW, st items BEFORE UPDATE STATEMENT', :'h'),
  'statement triggers are those of the logical table')
  FROM generate_series(1, 2);
SELECT is(fired_by('DELETE FROM items WHERE id = -1'), 'st items BEFORE DELETE STATEMENT',
  'statement triggers are those of the logical table, without a row');
DROP TRIGGER st ON items;
SELECT is(fired_by('DELETE FROM items WHERE id = 17 AND n = -1'), 'none', 'not those of the shard');
DROP TRIGGER st_shard ON :h;
DROP TRIGGER of_n ON :h;
DROP TRIGGER of_s ON :h;
DROP TRIGGER gone ON :h;

--
-- Privileges
--

CREATE ROLE lookup_some;
GRANT USAGE ON SCHEMA lookup_test TO lookup_some;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lookup_test TO lookup_some;
GRANT SELECT (id, n), UPDATE (n) ON items TO lookup_some;
CREATE ROLE lookup_shards;
GRANT USAGE ON SCHEMA lookup_test TO lookup_shards;
GRANT ALL ON items_0, items_1, items_2, items_3, items_4, items_5 TO lookup_shards;
PREPARE some_ok (int) AS SELECT n FROM items WHERE id = $1;
PREPARE some_upd (int) AS UPDATE items SET n = n + 1 WHERE id = $1 RETURNING n;
PREPARE some_upd_s (int) AS UPDATE items SET s = 'x' WHERE id = $1;
CREATE FUNCTION error_in_mode(mode text, command text, role text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('plan_cache_mode', mode, true);
  RETURN (SELECT state || ' ' || message FROM error_of(command, role));
END $$;
SELECT is(error_in_mode(mode, q, 'lookup_some'), NULL, mode || ', allowed: ' || q)
  FROM :modes, unnest(ARRAY['EXECUTE some_ok (18)', 'EXECUTE some_upd (18)',
    'SELECT id, n FROM items WHERE id = 18',
    'UPDATE items SET n = 1 WHERE id = 18', 'SELECT count(*) FROM items WHERE id = 18']) q;
SELECT is(error_in_mode(mode, q, r), '42501 permission denied for foreign table items',
    format('%s, denied to %s: %s', mode, r, q))
  FROM :modes, (VALUES ('lookup_some', 'EXECUTE sel (18)'), ('lookup_some', 'EXECUTE some_upd_s (18)'),
    ('lookup_some', 'EXECUTE del (18)'), ('lookup_some', 'SELECT s FROM items WHERE id = 18'),
    ('lookup_some', 'SELECT FROM items WHERE id = 18 AND s > '''''),
    ('lookup_some', 'SELECT items FROM items WHERE id = 18'),
    ('lookup_some', 'UPDATE items SET n = 1 WHERE id = 18 RETURNING s'),
    ('lookup_shards', 'EXECUTE sel (18)'), ('lookup_shards', 'EXECUTE some_ok (18)'),
    ('lookup_shards', 'EXECUTE upd (18)'), ('lookup_shards', 'SELECT id FROM items WHERE id = 18'),
    ('lookup_shards', 'DELETE FROM items WHERE id = 18')) v(r, q);
RESET plan_cache_mode;
CREATE VIEW of_owner WITH (security_barrier) AS SELECT * FROM items WHERE n >= 0;
GRANT ALL ON of_owner TO lookup_shards;
SELECT is((error_of('UPDATE of_owner SET n = 3 WHERE id = 18', 'lookup_shards')).state, NULL,
  'a view has the rights of its owner');

--
-- Functions and cursors
--

CREATE FUNCTION by_variable(v bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  w int := v;
  result text;
BEGIN
  SELECT concat_ws(' ', id, n) INTO result FROM items WHERE id = w;
  RETURN result;
END $$;
CREATE FUNCTION by_sql(int) RETURNS text LANGUAGE sql AS
  'SELECT concat_ws('' '', id, n) FROM items WHERE id = $1 LIMIT 1';
CREATE FUNCTION by_set(int) RETURNS SETOF items STABLE LANGUAGE sql AS 'SELECT * FROM items WHERE id = $1';
CREATE FUNCTION by_loop(int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  r record;
  result text;
BEGIN
  FOR r IN SELECT * FROM items WHERE id = $1 LOOP result := concat_ws(' ', r.id, r.n); END LOOP;
  RETURN result;
END $$;
CREATE FUNCTION by_cursor(int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  c CURSOR (i int) FOR SELECT * FROM items WHERE id = i;
  r record;
  ref refcursor;
  result text;
BEGIN
  FOR r IN c($1) LOOP
    UPDATE items SET s = 'current' WHERE CURRENT OF c;
    result := concat_ws(' ', r.id, r.n);
  END LOOP;
  OPEN ref FOR SELECT * FROM items WHERE id = $1 FOR UPDATE;
  LOOP
    FETCH ref INTO r;
    EXIT WHEN NOT FOUND;
    UPDATE items SET s = s || '!' WHERE CURRENT OF ref;
  END LOOP;
  CLOSE ref;
  RETURN result || (SELECT ' ' || s FROM items WHERE id = $1);
END $$;
-- A value that is found by a lookup in the same table.
CREATE FUNCTION next_id(int) RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE result int;
BEGIN
  IF $1 > 5 THEN RETURN $1; END IF;
  SELECT id + 1 INTO result FROM items WHERE id = next_id($1 + 1);
  RETURN result;
END $$;
SELECT is(array_agg(by_variable(id)), array_agg(concat_ws(' ', id, n)), 'a variable of PL/pgSQL') FROM items;
SELECT is(array_agg(by_sql(id)), array_agg(concat_ws(' ', id, n)), 'a function in SQL') FROM items;
SELECT is(array_agg(by_loop(id)), array_agg(concat_ws(' ', id, n)), 'a loop over a query') FROM items;
SELECT is((SELECT count(*) FROM items i, by_set(i.id) b WHERE b.n = i.n), 200::bigint, 'a set');
SELECT is(array_agg(by_cursor(id)), array_agg(concat_ws(' ', id, n, 'current!')), 'cursors of PL/pgSQL')
  FROM items WHERE id < 30;
PREPARE nested (int) AS SELECT id FROM items WHERE id = next_id($1);
SELECT is(returned(format('EXECUTE nested (%s)', i)), ARRAY[format('(%s)', next_id(i))],
  'a value from a lookup in the same table') FROM generate_series(-2, 8) i;

DECLARE s SCROLL CURSOR FOR SELECT id FROM items WHERE id = 20;
FETCH ALL FROM s \g /dev/null
SELECT is(returned('FETCH BACKWARD 1 FROM s'), '{(20)}', 'a cursor goes back');
SELECT lives_ok('UPDATE items SET n = 77 WHERE CURRENT OF s', 'WHERE CURRENT OF');
SELECT is(returned('SELECT n FROM items WHERE id = 20'), '{(77)}', 'WHERE CURRENT OF: the row');
DECLARE h CURSOR WITH HOLD FOR SELECT id FROM items WHERE id = same(21);
SELECT is(returned('FETCH ALL FROM h'), '{(21)}', 'a cursor that outlives the transaction');
CLOSE ALL;

-- Rows that do not meet the condition of MERGE count, too.
TRUNCATE merged;
MERGE INTO merged USING items ON k = id AND id = 17 WHEN NOT MATCHED THEN INSERT VALUES (id, s);
SELECT is((SELECT count(*) FROM merged), 200::bigint, 'MERGE looks at all rows of its source');

-- Workers execute lookups of their own.
CREATE FUNCTION found_by_worker(int) RETURNS int STABLE PARALLEL SAFE LANGUAGE plpgsql AS $$
DECLARE result int;
BEGIN
  SELECT count(*) INTO result FROM items WHERE id = $1;
  RETURN result;
END $$;
CREATE TABLE numbers AS SELECT g AS i, repeat('x', 200) AS filler FROM generate_series(1, 2000) g;
ALTER TABLE numbers SET (parallel_workers = 2);
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_leader_participation = off;
SELECT ok(outcome('EXPLAIN SELECT sum(found_by_worker(i)) FROM numbers') ~ 'Gather',
  'a parallel plan');
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT is((SELECT sum(found_by_worker(i)) FROM numbers), 200::bigint, 'lookups in parallel workers');
RESET plan_cache_mode;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET parallel_leader_participation;

--
-- Changes between executions
--

SET LOCAL plan_cache_mode = force_generic_plan;
CREATE FUNCTION all_found(when_ text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  missed text := '';
  i int;
  n bigint;
BEGIN
  FOR i IN 1 .. 60 LOOP
    EXECUTE format('SELECT count(*) FROM items WHERE id + 0 = %s', i) INTO n;
    IF cardinality(returned(format('EXECUTE sel (%s)', i))) <> n
       OR cardinality(returned(format('EXECUTE upd (%s)', i))) <> n
       OR cardinality(returned(format('EXECUTE loc (%s)', i))) <> n
       OR cardinality(returned(format('SELECT * FROM items WHERE id = %s', i))) <> n THEN
      missed := missed || ' ' || i;
    END IF;
  END LOOP;
  RETURN NEXT is(missed, '', 'every row is found ' || when_);
END $$;
SELECT all_found('at first');
CREATE INDEX more ON :h (n);
ANALYZE items_0, items_1;
SELECT all_found('after CREATE INDEX and ANALYZE');
DROP INDEX more;
SELECT all_found('after DROP INDEX');
SAVEPOINT s;
ALTER TABLE :h DROP CONSTRAINT shard_hash;
INSERT INTO :h SELECT 1000 + g FROM generate_series(1, 20) g;
UPDATE :h SET id = id - 1000 + 30 WHERE id > 1000 AND id NOT IN (SELECT 970 + id FROM :h);
SELECT all_found('with rows in a shard that has no constraint');
ROLLBACK TO s;
SELECT all_found('after ROLLBACK');
ALTER TABLE :h NO INHERIT items;
SELECT all_found('without a shard');
ALTER TABLE :h INHERIT items;
SELECT all_found('with the shard again');
CREATE TABLE twin (LIKE items_template INCLUDING ALL);
INSERT INTO twin SELECT * FROM items WHERE id < 20;
ALTER TABLE twin INHERIT items;
SELECT all_found('with a shard without a place');
ALTER TABLE twin NO INHERIT items;
CREATE TABLE child () INHERITS (items_2);
INSERT INTO child SELECT g FROM generate_series(1, 60) g WHERE home(g) = 'items_2';
SELECT all_found('with a child of a shard');
DROP TABLE child;
SELECT shard_fdw.seal(:'h') \g /dev/null
SELECT is(cardinality(returned(format('EXECUTE sel (%s)', i))), 1, 'with a sealed shard')
  FROM unnest(ARRAY[17, 18]) i;
SELECT fails('EXECUTE upd (17)', '23514', title => 'a sealed shard takes no changes');
SELECT shard_fdw.unseal(:'h') \g /dev/null
ALTER TABLE :h RENAME TO renamed;
SELECT all_found('with a renamed shard');
ALTER TABLE renamed RENAME TO :h;
SELECT all_found('and its old name');
DISCARD PLANS;
SELECT all_found('after DISCARD PLANS');
SET LOCAL enable_partition_pruning = off;
SELECT all_found('without pruning');
SET LOCAL enable_partition_pruning = on;
SELECT all_found('with pruning again');

SELECT * FROM finish();
ROLLBACK;
