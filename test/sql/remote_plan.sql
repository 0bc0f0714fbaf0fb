-- Queries on tables with shards here and on another server: local shards are
-- scanned by workers, and LIMIT reaches the others, with the results that a
-- plain table gives.
--
-- postgres_fdw connects to this same database, so this file commits what it
-- makes, all of it in one schema, and drops that at the end.
SET client_min_messages = error;
DROP SCHEMA IF EXISTS remote_plan_test CASCADE;
CREATE SCHEMA remote_plan_test;
SET search_path = remote_plan_test, public;
SELECT no_plan();

\ir loopback.psql
SET jit = off;

\ir helpers.psql

-- What a query returns, sorted.  Workers do not execute what a loop fetches from.
CREATE FUNCTION all_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE format('SELECT string_agg(s::text, E''\n'' ORDER BY s::text COLLATE "C") FROM (%s) s', query)
    INTO result;
  RETURN result;
END $$;

CREATE TABLE plain (id int, g int, k int, v text, at timestamptz NOT NULL);
SELECT setseed(0.9);
INSERT INTO plain
  SELECT n, CASE WHEN random() < 0.95 THEN (random() * 20)::int END, (random() * 100)::int,
         CASE WHEN random() < 0.9 THEN repeat(chr(97 + (random() * 5)::int), (random() * 5)::int) END,
         timestamptz '2026-01-01 00:00Z' + random() * interval '1 day'
    FROM generate_series(1, 3000) n;

-- Four local shards and two remote ones, without a key and with one.
CREATE FOREIGN TABLE log (id int, g int, k int, v text, at timestamptz NOT NULL) SERVER shards OPTIONS (route 'round_robin');
CREATE FOREIGN TABLE placed (id int, g int, k int, v text, at timestamptz NOT NULL) SERVER shards OPTIONS (route 'hash', key 'id');
DO $$ BEGIN
  FOR i IN 0 .. 5 LOOP
    IF i IN (1, 4) THEN
      EXECUTE format('CREATE TABLE far_log_%s (LIKE plain)', i);
      EXECUTE format('CREATE TABLE far_placed_%s (LIKE plain)', i);
      EXECUTE format('CREATE FOREIGN TABLE log_%s () INHERITS (log) SERVER loopback
                      OPTIONS (table_name ''far_log_%1$s'')', i);
      EXECUTE format('CREATE FOREIGN TABLE placed_%s (CONSTRAINT place CHECK (shard_fdw.in_hash(6, %1$s, id)))
                      INHERITS (placed) SERVER loopback OPTIONS (table_name ''far_placed_%1$s'')', i);
    ELSE
      EXECUTE format('CREATE TABLE log_%s () INHERITS (log)', i);
      EXECUTE format('CREATE TABLE placed_%s (CONSTRAINT place CHECK (shard_fdw.in_hash(6, %1$s, id)))
                      INHERITS (placed)', i);
      EXECUTE format('CREATE INDEX ON log_%s (at, id)', i);
      EXECUTE format('CREATE INDEX ON placed_%s (id)', i);
    END IF;
  END LOOP;
END $$;
INSERT INTO log TABLE plain;
INSERT INTO placed TABLE plain;
ANALYZE plain, log_0, log_1, log_2, log_3, log_4, log_5, placed_0, placed_1, placed_2, placed_3, placed_4, placed_5;
ANALYZE log, placed;

SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;

--
-- plans
--

-- How many local shards a Gather is above, and how many scans of others it has below it.
CREATE FUNCTION gathered(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  plan text := plan_text(query);
  below text := (regexp_match(plan, '(?n)^( *)(?:->  )?Gather(?: Merge)?\n((?:\1 {2,}.*\n)*)'))[2];
BEGIN
  RETURN format('%s scans with workers, %s of them foreign, %s foreign',
    (SELECT count(*) FROM regexp_matches(below, '(Seq|Index|Index Only|Bitmap Heap) Scan', 'g')),
    (SELECT count(*) FROM regexp_matches(below, 'Foreign Scan', 'g')),
    (SELECT count(*) FROM regexp_matches(plan, 'Foreign Scan', 'g')));
END $$;
CREATE FUNCTION is_gathered(query text, title text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEXT is(gathered(query), '4 scans with workers, 0 of them foreign, 2 foreign', title)
    || CASE WHEN gathered(query) LIKE '4 %' THEN '' ELSE E'\n' || diag(plan_text(query)) END;
END $$;

SELECT is_gathered('SELECT * FROM ' || t, t || ': rows') FROM unnest('{log,placed}'::text[]) t;
SELECT is_gathered(format('SELECT g, count(*) FROM %s GROUP BY g', t), t || ': groups of rows')
  FROM unnest('{log,placed}'::text[]) t;
SELECT is_gathered(format('SELECT count(DISTINCT k) FROM %s', t), t || ': not in parts')
  FROM unnest('{log,placed}'::text[]) t;
SELECT is_gathered('SELECT l.k, p.v FROM log l JOIN plain p USING (id)', 'a join');
SELECT is_gathered('SELECT * FROM (SELECT k, max(id) AS m FROM log GROUP BY k) s WHERE m > 5', 'a subquery');
SET enable_partitionwise_aggregate = on;
SELECT is_gathered('SELECT * FROM ' || t, t || ': rows, partition-wise') FROM unnest('{log,placed}'::text[]) t;
SELECT is_gathered(format('SELECT g, count(*), avg(k) FROM %s GROUP BY g', t), t || ': groups')
  FROM unnest('{log,placed}'::text[]) t;
SELECT is_gathered(format('SELECT count(*), max(v) FROM %s', t), t || ': one group')
  FROM unnest('{log,placed}'::text[]) t;
SELECT is_gathered('SELECT id, count(*), avg(k) FROM placed GROUP BY id', 'groups of one shard each');
SELECT is_gathered('SELECT count(DISTINCT k) FROM placed', 'not in parts, partition-wise');
SELECT matches(plan_text('SELECT g, count(*), avg(k) FROM log GROUP BY g'),
  'Finalize .*Append\n.*Gather\n.*Parallel Append\n.*Partial HashAggregate\n.*Parallel Seq Scan.*\n *->  Foreign Scan\n',
  'the plan of groups');
SELECT ok(plan_text('SELECT g, count(*), avg(k) FROM log GROUP BY g', 'VERBOSE, COSTS OFF')
  ~ 'Remote SQL: SELECT g, count\(\*\), array_replace', 'other servers aggregate their rows');

-- Not what workers cannot do, and not where it does not pay.
SELECT ok(plan_text(query) !~ 'Gather', query)
  FROM unnest(ARRAY['SELECT * FROM log WHERE all_of(''SELECT 1'') = ''1''',
    'SELECT g, count(*) FROM log WHERE tableoid = ''log_1''::regclass GROUP BY g',
    'SELECT * FROM log FOR UPDATE', 'SELECT * FROM placed WHERE id = 7',
    'WITH d AS (DELETE FROM plain WHERE false RETURNING id) SELECT * FROM log, d']) query;
RESET parallel_setup_cost;
SELECT ok(plan_text('SELECT count(*) FROM log') !~ 'Gather', 'few rows');
SET parallel_setup_cost = 0;
SET enable_partitionwise_join = on;
SELECT matches(gathered('SELECT count(*) FROM placed a JOIN placed b USING (id)'), ' 0 of them foreign',
  'no foreign scan below a Gather: a join of parts');
RESET enable_partitionwise_join;

--
-- results
--

-- A random query; {} stands for the table.
CREATE FUNCTION random_query() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  conditions text[] := ARRAY['true', 'k < 50', 'g = 3', 'g IS NULL', 'id % 3 = 0', 'id = 77', 'id IN (3, 500, 2999)',
    'v > ''b''', 'at < ''2026-01-01 12:00Z''', 'k BETWEEN 10 AND 20', 'id < (SELECT max(k) * 20 FROM plain)', 'false',
    'tableoid IS NOT NULL', 'g IN (SELECT k FROM plain WHERE id < 9)'];
  condition text := conditions[1 + floor(random() * 14)::int] ||
    CASE WHEN random() < 0.3 THEN ' AND ' || conditions[1 + floor(random() * 14)::int] ELSE '' END;
  aggregates text[] := ARRAY['count(*)', 'count(v)', 'sum(k)', 'avg(k)', 'min(v)', 'max(at)', 'count(*) FILTER (WHERE k > 9)',
    'sum(k::bigint)', 'round(avg(k::numeric), 3)', 'bool_or(k = 7)', 'string_agg(v, '''' ORDER BY id)', 'count(DISTINCT k)'];
  aggregated text := aggregates[1 + floor(random() * 12)::int] || ' AS x, '
    || aggregates[1 + floor(random() * 12)::int] || ' AS y';
  groups text := (ARRAY['g', 'id', 'g, k % 3', 'v', 'k', 'id, g', 'g + 1'])[1 + floor(random() * 7)::int];
  orders text := (ARRAY['id', 'at, id', 'k, id', 'g DESC NULLS LAST, id', 'v, id'])[1 + floor(random() * 5)::int];
BEGIN
  RETURN CASE floor(random() * 8)::int
    WHEN 0 THEN format('SELECT id, g, v FROM {} WHERE %s', condition)
    WHEN 1 THEN format('SELECT %s FROM {} WHERE %s', aggregated, condition)
    WHEN 2 THEN format('SELECT %s, %s FROM {} WHERE %s GROUP BY %1$s', groups, aggregated, condition)
    WHEN 3 THEN format('SELECT %s, %s FROM {} WHERE %s GROUP BY %1$s HAVING count(*) > %4$s', groups, aggregated,
                       condition, (random() * 20)::int)
    WHEN 4 THEN format('SELECT row_number() OVER (), s.* FROM (SELECT * FROM {} WHERE %s ORDER BY %s LIMIT %s OFFSET %s) s',
                       condition, orders, (random() * 40)::int, (random() * random() * 200)::int)
    WHEN 5 THEN format('SELECT a.id, b.k FROM {} a JOIN {} b ON a.id = b.id + %s WHERE a.%s', (random() * 2)::int,
                       (ARRAY['k < 30', 'g = 2', 'id < 500'])[1 + floor(random() * 3)::int])
    WHEN 6 THEN format('SELECT p.k, (SELECT count(*) FROM {} t WHERE t.g = p.k AND %s) FROM plain p WHERE p.id < 5',
                       replace(condition, 'g = 3', 't.k > 3'))
    ELSE format('SELECT DISTINCT %s FROM {} WHERE %s', groups, condition)
  END;
END $$;

-- Which of some random queries have another result on a table, and how many are answered with workers.
CREATE FUNCTION differences(tab text, seed float8, n int, OUT wrong text, OUT gathered int)
LANGUAGE plpgsql AS $$
DECLARE
  query text;
BEGIN
  PERFORM setseed(seed);
  gathered := 0;
  FOR i IN 1 .. n LOOP
    query := random_query();
    IF all_of(replace(query, '{}', tab)) IS DISTINCT FROM all_of(replace(query, '{}', 'plain')) THEN
      wrong := concat_ws(E'\n', wrong, query);
    END IF;
    IF plan_text(format('SELECT string_agg(s::text, '''') FROM (%s) s', replace(query, '{}', tab))) ~ 'Gather(.*\n)*.*Foreign' THEN
      gathered := gathered + 1;
    END IF;
  END LOOP;
END $$;

CREATE FUNCTION compare(title text, seed float8) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  tab text;
  d record;
BEGIN
  FOREACH tab IN ARRAY ARRAY['log', 'placed'] LOOP
    d := differences(tab, seed, 14);
    RETURN NEXT is(d.wrong, NULL, format('random queries on %s: %s', tab, title));
    RETURN NEXT ok(d.gathered > 2, format('random queries on %s: %s: some with workers', tab, title))
      || E'\n# ' || d.gathered;
  END LOOP;
END $$;

SELECT compare('partition-wise', 0.1);
SET enable_partitionwise_aggregate = off;
SELECT compare('not partition-wise', 0.2);
ALTER SERVER loopback OPTIONS (ADD async_capable 'true');
SET enable_partitionwise_aggregate = on;
SET enable_partitionwise_join = on;
SELECT compare('async, with partition-wise joins', 0.3);
SET enable_hashagg = off;
SET enable_parallel_append = off;
SELECT compare('async, sorted, without Parallel Append', 0.4);
RESET enable_hashagg;
RESET enable_parallel_append;
RESET enable_partitionwise_join;
SET parallel_leader_participation = off;
SELECT compare('async, without the leader', 0.5);
RESET parallel_leader_participation;
ALTER SERVER loopback OPTIONS (DROP async_capable);

-- Generic plans
SET plan_cache_mode = force_generic_plan;
PREPARE q(int) AS SELECT g, count(*), sum(k) FROM placed WHERE k < $1 GROUP BY g;
SELECT is_gathered('EXECUTE q(40)', 'a generic plan');
SELECT is(returned('EXECUTE q(40)'), returned('SELECT g, count(*), sum(k) FROM plain WHERE k < 40 GROUP BY g'),
  'a generic plan: the same');
RESET plan_cache_mode;

--
-- LIMIT
--

CREATE FUNCTION sent(query text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT m[1] FROM regexp_matches(plan_text(query, 'VERBOSE, COSTS OFF'), '(?n)Remote SQL: (.*)$', 'g') m
$$;
SET max_parallel_workers_per_gather = 0;
SELECT bag_eq($$ SELECT sent('SELECT id, at FROM log ORDER BY at, id LIMIT 10') $$,
  $$ SELECT format('SELECT id, at FROM remote_plan_test.far_log_%s ORDER BY at ASC NULLS LAST, id ASC NULLS LAST LIMIT 10', n)
       FROM unnest('{1,4}'::int[]) n $$, 'LIMIT is sent');
SELECT is((SELECT count(*) FROM sent('SELECT id + k FROM log WHERE k > 4 ORDER BY at LIMIT 10 OFFSET 7') s
            WHERE s LIKE '% LIMIT 17'), 2::bigint, 'with OFFSET, and expressions of the result');
SELECT is((SELECT count(*) FROM sent(query) s WHERE s LIKE '%LIMIT%'), 0::bigint, query)
  FROM unnest(ARRAY['SELECT id FROM log WHERE length(all_of(v)) > 3 ORDER BY at LIMIT 10',
    'SELECT id FROM log ORDER BY at FETCH FIRST 10 ROWS WITH TIES', 'SELECT id FROM log ORDER BY at LIMIT ALL',
    'SELECT id FROM log ORDER BY at LIMIT (SELECT 3)', 'SELECT id, generate_series(1, k % 3) FROM log ORDER BY at LIMIT 10',
    'SELECT id FROM log ORDER BY at LIMIT 10 FOR UPDATE', 'SELECT DISTINCT ON (at) id, at FROM log ORDER BY at LIMIT 10']) query;
SELECT is(all_of(replace(query, '{}', 'log')), all_of(replace(query, '{}', 'plain')), query)
  FROM unnest(ARRAY['SELECT row_number() OVER (), * FROM (SELECT id, at FROM {} ORDER BY at, id LIMIT 10) s',
    'SELECT row_number() OVER (), * FROM (SELECT id, k FROM {} WHERE k > 7 ORDER BY k, id LIMIT 30 OFFSET 300) s',
    'SELECT id FROM {} ORDER BY at, id LIMIT 0', 'SELECT id FROM {} ORDER BY at, id LIMIT 10000',
    'SELECT p.id, s.* FROM plain p, LATERAL (SELECT id FROM {} t WHERE t.k = p.k ORDER BY at, id LIMIT 2) s WHERE p.id < 9']) query;
RESET max_parallel_workers_per_gather;

SET search_path = public;
DROP SCHEMA remote_plan_test CASCADE;
SELECT * FROM finish();
