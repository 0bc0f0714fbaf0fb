-- Reading a logical table: plans, and the same answers as a plain table.
--
-- A query is written once, with {} after each table's name: {} is nothing for
-- the logical tables and "_twin" for plain tables with the same rows.
SELECT no_plan();
SET client_min_messages = warning;
-- Disabled plan types look costly enough for it, which takes most of the time.
SET jit = off;

CREATE SCHEMA select_test;
GRANT USAGE ON SCHEMA select_test TO PUBLIC;
SET search_path = select_test, public;

-- Settings as 'name=value name=value', for the duration of a query.
CREATE FUNCTION put(settings text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  item text;
  before text := '';
BEGIN
  FOREACH item IN ARRAY string_to_array(settings, ' ') LOOP
    before := concat_ws(' ', nullif(before, ''), split_part(item, '=', 1) || '='
                        || current_setting(split_part(item, '=', 1)));
    PERFORM set_config(split_part(item, '=', 1), split_part(item, '=', 2), false);
  END LOOP;
  RETURN before;
END $$;

-- The rows of a query as text; sorted unless the query sorts them.
CREATE FUNCTION rows_of(query text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  result text[];
BEGIN
  -- A limit keeps the query from being merged into this one.
  EXECUTE format('SELECT array_agg(t::text) FROM (%s %s) t', query,
                 CASE WHEN query !~* '(LIMIT|FETCH FIRST) [^()]*$' THEN 'OFFSET 0' END)
     INTO result;
  IF query !~* 'ORDER BY [^()]*$' THEN
    result := ARRAY(SELECT u FROM unnest(result) u ORDER BY u COLLATE "C");
  END IF;
  RETURN coalesce(result, '{}');
END $$;

\ir helpers.psql

-- What a plan is made of: node types and scanned relations.
CREATE FUNCTION plan_nodes(query text) RETURNS jsonb[] LANGUAGE plpgsql AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT JSON, VERBOSE) ' || query INTO plan;
  RETURN ARRAY(SELECT jsonb_path_query(plan, 'strict $.** ? (exists (@."Node Type"))'));
END $$;
CREATE FUNCTION nodes(query text) RETURNS text[] LANGUAGE sql AS $$
  SELECT coalesce(array_agg(DISTINCT concat_ws(' ',
           CASE WHEN n->>'Parallel Aware' = 'true' THEN 'Parallel' END,
           nullif(n->>'Partial Mode', 'Simple'), n->>'Node Type')), '{}')
    FROM unnest(plan_nodes(query)) n
$$;
CREATE FUNCTION scanned(query text) RETURNS text[] LANGUAGE sql AS $$
  SELECT coalesce(array_agg(DISTINCT n->>'Relation Name')
                    FILTER (WHERE n ? 'Relation Name' AND
                                  n->>'Node Type' <> 'ModifyTable'), '{}')
    FROM unnest(plan_nodes(query)) n
$$;

-- Each of these may lead to another kind of plan.
CREATE TABLE profiles (name text, settings text);
INSERT INTO profiles VALUES
  ('default', 'work_mem=4MB'),
  ('partition-wise',
   'enable_partitionwise_aggregate=on enable_partitionwise_join=on'),
  ('partition-wise, sorted',
   'enable_partitionwise_aggregate=on enable_hashagg=off enable_seqscan=off'),
  ('parallel',
   'parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0 '
   'min_parallel_index_scan_size=0 max_parallel_workers_per_gather=2'),
  ('parallel, partition-wise',
   'parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0 '
   'min_parallel_index_scan_size=0 max_parallel_workers_per_gather=2 '
   'enable_partitionwise_aggregate=on enable_partitionwise_join=on '
   'enable_hashagg=off'),
  ('nested loops', 'enable_hashjoin=off enable_mergejoin=off enable_seqscan=off'),
  ('merge joins', 'enable_hashjoin=off enable_nestloop=off enable_hashagg=off'),
  ('bitmaps', 'enable_seqscan=off enable_indexscan=off enable_sort=off'),
  ('exclusion', 'constraint_exclusion=on enable_partitionwise_aggregate=on');

-- The logical tables answer like the twins, whatever the plan.
CREATE FUNCTION same(query text, description text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  profile record;
  before text;
  wanted text[] := rows_of(replace(query, '{}', '_twin'));
  found text[];
  problems text := '';
BEGIN
  IF wanted = '{}' THEN
    RETURN fail(description || ': the query finds nothing');
  END IF;
  FOR profile IN SELECT * FROM profiles LOOP
    before := put(profile.settings);
    BEGIN
      found := rows_of(replace(query, '{}', ''));
      IF found <> wanted THEN
        problems := problems || format(E'%s: %s rows, not %s; first %s, not %s\n',
          profile.name, cardinality(found), cardinality(wanted), found[1], wanted[1]);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      problems := problems || format(E'%s: %s\n', profile.name, sqlerrm);
    END;
    PERFORM put(before);
  END LOOP;
  RETURN ok(problems = '', description)
    || CASE WHEN problems <> '' THEN E'\n' || diag(problems) ELSE '' END;
END $$;

-- With these settings the plan has these nodes, never scans the logical
-- tables themselves, and answers like the twins.
CREATE FUNCTION shape(settings text, wanted text[], query text, description text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  before text := put(settings);
  logical text := replace(query, '{}', '');
  found text[] := nodes(logical);
  relations text[] := scanned(logical);
BEGIN
  RETURN NEXT ok(found @> wanted AND NOT found @> '{Foreign Scan}' AND
                 NOT relations && '{ev,dim}', description || ': plan');
  IF NOT found @> wanted THEN
    RETURN NEXT diag(format('%s in %s', found, relations));
  END IF;
  RETURN NEXT is(rows_of(logical), rows_of(replace(query, '{}', '_twin')),
                 description || ': rows');
  PERFORM put(before);
END $$;

CREATE TABLE ev_template (
  id int PRIMARY KEY,
  grp int NOT NULL,
  val int,
  price numeric(10,2),
  txt text,
  at timestamp,
  arr int[],
  doc jsonb
);
CREATE INDEX ON ev_template (grp, val);
CREATE INDEX ON ev_template (at);
CREATE INDEX ON ev_template USING gin (arr);
CREATE INDEX ON ev_template (val) WHERE grp = 3;
CREATE INDEX ON ev_template (lower(txt));
CREATE FOREIGN TABLE ev (
  id int, grp int NOT NULL, val int, price numeric(10,2), txt text, at timestamp,
  arr int[], doc jsonb
) SERVER shards
OPTIONS (shards '6', route 'round_robin', template 'select_test.ev_template');
CREATE TABLE ev_twin (LIKE ev_template INCLUDING ALL);
INSERT INTO ev_twin
SELECT g, g % 17, CASE WHEN g % 11 > 0 THEN g * 7919 % 1000 END, g % 97 + 0.25,
       'Txt ' || g % 50, timestamp '2026-01-01' + g * interval '1 hour',
       ARRAY[g % 7, g % 13], jsonb_build_object('k', g % 5, 'g', g)
  FROM generate_series(1, 4200) g;
INSERT INTO ev SELECT * FROM ev_twin ORDER BY id % 101, id;

CREATE TABLE dim_template (grp int PRIMARY KEY, name text, cls int);
CREATE FOREIGN TABLE dim (grp int, name text, cls int) SERVER shards
OPTIONS (shards '3', route 'round_robin', template 'select_test.dim_template');
CREATE TABLE dim_twin (LIKE dim_template INCLUDING ALL);
INSERT INTO dim_twin SELECT g, 'name ' || g, g % 4 FROM generate_series(3, 25) g;
INSERT INTO dim SELECT * FROM dim_twin;

DO $$ DECLARE s regclass; BEGIN
  FOR s IN SELECT shard FROM shard_fdw.shards
            WHERE logical IN ('ev'::regclass, 'dim'::regclass)
            UNION ALL VALUES ('ev_twin'::regclass), ('dim_twin'), ('ev'), ('dim') LOOP
    EXECUTE format('ANALYZE %s', s);
  END LOOP;
END $$;

-- outside a transaction block: parallel plans, a cursor that outlives its
-- transaction

SELECT shape(settings, '{Gather,Parallel Append,Parallel Seq Scan}',
             'SELECT count(*), sum(id), max(txt) FROM ev{} WHERE price > 5',
             'parallel append outside a transaction block')
  FROM profiles WHERE name = 'parallel';
DECLARE held CURSOR WITH HOLD FOR SELECT id, grp FROM ev ORDER BY id;
INSERT INTO ev (id, grp) VALUES (0, 0);
CREATE FUNCTION fetch_all(cursor refcursor) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
  LOOP
    FETCH cursor INTO r;
    EXIT WHEN NOT FOUND;
    RETURN NEXT r;
  END LOOP;
END $$;
SELECT results_eq($$ SELECT * FROM fetch_all('held') AS f(id int, grp int) $$,
  'SELECT id, grp FROM ev_twin ORDER BY id',
  'a cursor WITH HOLD keeps what it saw');
CLOSE held;
DELETE FROM ev WHERE id = 0;

BEGIN;

-- kinds of scans

SELECT shape('work_mem=4MB', '{Append,Seq Scan}',
  'SELECT * FROM ev{} WHERE price = 7.25', 'sequential scan');
SELECT is(scanned('SELECT * FROM ev'), '{ev_0,ev_1,ev_2,ev_3,ev_4,ev_5}',
  'all shards are scanned, and nothing else');
SELECT shape('enable_bitmapscan=off', '{Append,Index Scan}',
  'SELECT * FROM ev{} WHERE id = 1234', 'index scan');
SELECT shape('enable_seqscan=off enable_bitmapscan=off', '{Append,Index Only Scan}',
  'SELECT id FROM ev{} WHERE id BETWEEN 100 AND 120', 'index-only scan');
SELECT shape('enable_seqscan=off enable_indexscan=off',
  '{Append,Bitmap Heap Scan,Bitmap Index Scan}',
  'SELECT * FROM ev{} WHERE id BETWEEN 100 AND 120', 'bitmap scan');
SELECT shape('enable_seqscan=off enable_indexscan=off', '{BitmapOr}',
  $$ SELECT id, txt FROM ev{}
      WHERE id < 20 OR at > '2026-06-20' OR lower(txt) = 'txt 7' $$,
  'bitmaps combined');
SELECT shape('enable_seqscan=off', '{Append,Bitmap Heap Scan}',
  'SELECT id FROM ev{} WHERE arr @> ARRAY[3, 9]', 'GIN index');
SELECT shape('enable_seqscan=off enable_bitmapscan=off', '{Index Scan}',
  'SELECT id, val FROM ev{} WHERE grp = 3 AND val > 900', 'partial index');
SELECT shape('enable_seqscan=off enable_bitmapscan=off', '{Index Scan}',
  $$ SELECT id FROM ev{} WHERE lower(txt) = 'txt 7' $$, 'expression index');
SELECT shape('work_mem=4MB', '{Limit,Merge Append,Index Scan}',
  'SELECT * FROM ev{} ORDER BY id LIMIT 20', 'MergeAppend');
SELECT shape('work_mem=4MB', '{Limit,Merge Append,Index Scan}',
  'SELECT * FROM ev{} ORDER BY id DESC LIMIT 7 OFFSET 11', 'MergeAppend backward');
SELECT shape('enable_seqscan=off enable_bitmapscan=off', '{Merge Append}',
  'SELECT grp, val, id FROM ev{} WHERE grp IN (2, 5) ORDER BY grp, val, id',
  'MergeAppend over several columns');
SELECT shape('work_mem=4MB', '{Limit,Merge Append,Index Only Scan}',
  'SELECT min(id), max(id) FROM ev{}', 'min() and max() over an index');
SELECT shape('work_mem=4MB', '{Limit,Merge Append}',
  'SELECT max(at), min(at) FROM ev{} WHERE at < timestamp $$2026-03-01$$',
  'min() and max() over a part of an index');
SELECT shape('enable_hashjoin=off enable_mergejoin=off enable_material=off',
  '{Nested Loop,Append,Index Scan}',
  'SELECT d.name, e.txt FROM dim{} d JOIN ev{} e ON e.id = d.grp * 100',
  'nested loop with inner index scans');
SELECT put('enable_hashjoin=off enable_mergejoin=off') \gset was_
SELECT ok(EXISTS (
    SELECT FROM unnest(plan_nodes(
      'SELECT d.name, e.txt FROM dim d JOIN ev e ON e.id = d.grp * 100')) n
     WHERE n->>'Index Cond' LIKE '%d.grp * 100%'
       AND n->>'Relation Name' LIKE 'ev\__'),
  'nested loop with inner index scans, whose condition is the join''s');
SELECT put(:'was_put') \gset was_
SELECT results_eq($$ SELECT count(*) FROM ev WHERE ctid = '(0,1)' $$,
  $$ SELECT count(*) FROM ev_twin WHERE id <= 6 $$, 'TID scan of every shard');
SELECT is(nodes($$ SELECT * FROM ev WHERE ctid = '(0,1)' $$), '{Append,Tid Scan}',
  'a TID scan of every shard is one');

-- parallel plans, now in a transaction block that has changed things

UPDATE ev SET txt = txt WHERE id < 10;
UPDATE ev_twin SET txt = txt WHERE id < 10;
SELECT shape(settings,
  '{Gather,Parallel Append,Parallel Seq Scan,Partial Aggregate,Finalize Aggregate}',
  'SELECT count(*), sum(price), avg(val) FROM ev{}', 'parallel aggregate')
  FROM profiles WHERE name = 'parallel';
SELECT shape(settings, '{Gather Merge}',
  'SELECT id, txt FROM ev{} WHERE price > 50 ORDER BY price, id', 'Gather Merge')
  FROM profiles WHERE name = 'parallel';
SELECT shape(settings || ' enable_seqscan=off enable_bitmapscan=off',
  '{Parallel Append,Parallel Index Scan}',
  'SELECT count(txt) FROM ev{} WHERE id > 100', 'parallel index scan')
  FROM profiles WHERE name = 'parallel';
SELECT shape(settings || ' enable_seqscan=off enable_indexscan=off',
  '{Parallel Bitmap Heap Scan}',
  'SELECT count(txt) FROM ev{} WHERE id > 100', 'parallel bitmap scan')
  FROM profiles WHERE name = 'parallel';
SELECT shape(settings || ' enable_nestloop=off enable_mergejoin=off',
  '{Parallel Hash Join,Parallel Append}',
  'SELECT count(*), sum(b.id) FROM ev{} a JOIN ev{} b ON a.val = b.id',
  'parallel hash join')
  FROM profiles WHERE name = 'parallel';

-- a function that workers must not run keeps the plan serial
CREATE FUNCTION unsafe(i int) RETURNS int LANGUAGE plpgsql PARALLEL UNSAFE
AS 'BEGIN RETURN i; END';
SELECT put(settings) FROM profiles WHERE name = 'parallel' \gset was_
SELECT ok(NOT nodes('SELECT count(*) FROM ev WHERE unsafe(id) > 5') && '{Gather,Gather Merge}',
  'no workers for functions that forbid them');
SELECT put(:'was_put') \gset was_

-- partition-wise aggregation: partial below the append, on and off

SELECT shape('enable_partitionwise_aggregate=on',
  '{Finalize Aggregate,Append,Partial Aggregate}',
  'SELECT grp, count(*), sum(val), avg(price) FROM ev{} GROUP BY grp',
  'partial aggregates');
SELECT is((SELECT count(*) FROM unnest(plan_nodes('SELECT grp, count(*) FROM ev GROUP BY grp')) n
            WHERE n->>'Partial Mode' = 'Partial'), 0::bigint,
  'partial aggregates, not without the setting');
SELECT put('enable_partitionwise_aggregate=on') \gset was_
SELECT is((SELECT count(*) FROM unnest(plan_nodes('SELECT grp, count(*) FROM ev GROUP BY grp')) n
            WHERE n->>'Partial Mode' = 'Partial' AND n->>'Parent Relationship' = 'Member'),
  6::bigint, 'partial aggregates: one for each shard');
SELECT is((SELECT count(*) FROM unnest(plan_nodes('SELECT id, count(*) FROM ev GROUP BY id')) n
            WHERE n->>'Partial Mode' = 'Simple' AND n->>'Parent Relationship' = 'Member'),
  0::bigint, 'partial aggregates: never a full one, even if the column is unique in each shard');
SELECT put(:'was_put') \gset was_
SELECT shape('enable_partitionwise_aggregate=on', '{Append,Partial Aggregate}',
  'SELECT count(*), min(txt) FROM ev{}', 'partial aggregates without GROUP BY');
SELECT shape('enable_partitionwise_aggregate=on enable_hashagg=off enable_sort=off',
  '{Finalize Aggregate,Merge Append,Partial Aggregate}',
  'SELECT grp, count(*) FROM ev{} GROUP BY grp ORDER BY grp',
  'partial aggregates in index order');
SELECT shape(settings || ' enable_hashagg=on',
  '{Gather,Parallel Append,Partial Aggregate,Finalize Aggregate}',
  'SELECT txt, count(*), sum(val) FROM ev{} GROUP BY txt',
  'partial aggregates in workers')
  FROM profiles WHERE name = 'parallel, partition-wise';

-- grouping

SELECT same(query, 'grouping: ' || query) FROM (VALUES
  ('SELECT grp FROM ev{} GROUP BY grp'),
  ('SELECT grp, count(*), count(val), sum(val), min(price), max(at), avg(price), bool_or(val > '
   '900) FROM ev{} GROUP BY grp'),
  ('SELECT grp, count(*) FROM ev{} GROUP BY grp HAVING count(val) > 224 AND grp > 2'),
  ('SELECT grp, txt, count(*) FROM ev{} WHERE val > 300 GROUP BY grp, txt HAVING sum(val) > 2500'),
  ('SELECT txt, grp, sum(val) FROM ev{} GROUP BY txt, grp ORDER BY txt, grp'),
  ('SELECT grp % 3 AS k, sum(val + 1) FROM ev{} GROUP BY grp % 3'),
  ('SELECT lower(txt) AS k, length(txt) + 1 AS l, count(*) FROM ev{} GROUP BY lower(txt), '
   'length(txt)'),
  ('SELECT doc->>''k'' AS k, count(DISTINCT grp), max(id) FROM ev{} GROUP BY 1'),
  ('SELECT 1 AS one, count(*) FROM ev{} GROUP BY 1'),
  ('SELECT ''c'' AS c, grp, count(*) FROM ev{} GROUP BY 1, 2'),
  ('SELECT count(*) FROM ev{} GROUP BY ()'),
  ('SELECT count(*), sum(id) FROM ev{} WHERE id < 0 GROUP BY ()'),
  ('SELECT count(*), sum(id), max(val) FROM ev{} WHERE false'),
  ('SELECT count(*) FROM ev{} HAVING count(*) > 10'),
  ('SELECT 5 AS five FROM ev{} HAVING true'),
  ('SELECT val IS NULL AS k, count(*) FROM ev{} GROUP BY 1'),
  ('SELECT val, count(*) FROM ev{} GROUP BY val HAVING val IS NULL OR count(*) > 4'),
  ('SELECT arr, count(*) FROM ev{} GROUP BY arr HAVING count(*) > 46'),
  ('SELECT DISTINCT grp FROM ev{}'),
  ('SELECT DISTINCT grp, txt FROM ev{} WHERE id % 3 = 0'),
  ('SELECT DISTINCT count(*) FROM ev{} GROUP BY grp'),
  ('SELECT DISTINCT ON (grp) grp, id, txt FROM ev{} ORDER BY grp, id DESC'),
  ('SELECT count(DISTINCT txt), count(DISTINCT grp), sum(DISTINCT val) FROM ev{}'),
  ('SELECT grp, count(DISTINCT val), count(*) FROM ev{} GROUP BY grp'),
  ('SELECT grp, array_agg(id ORDER BY id DESC) FROM ev{} WHERE id < 200 GROUP BY grp'),
  ('SELECT grp, string_agg(txt, '','' ORDER BY txt, id) FROM ev{} WHERE val > 950 GROUP BY grp'),
  ('SELECT grp, percentile_cont(0.5) WITHIN GROUP (ORDER BY val), mode() WITHIN GROUP (ORDER BY '
   'txt) FROM ev{} GROUP BY grp'),
  ('SELECT percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY price) AS p FROM ev{}'),
  ('SELECT grp, count(*) FILTER (WHERE val > 500), sum(val) FILTER (WHERE false) FROM ev{} GROUP '
   'BY grp'),
  ('SELECT grp, round(stddev(val), 4) AS s, round(variance(price), 4) AS v FROM ev{} GROUP BY grp'),
  ('SELECT grp, jsonb_agg(id ORDER BY id) FROM ev{} WHERE id < 100 GROUP BY grp'),
  ('SELECT grp, val % 2 AS v, count(*), grouping(grp, val % 2) FROM ev{} GROUP BY GROUPING SETS '
   '((grp), (val % 2), ())'),
  ('SELECT grp, doc->''k'' AS k, sum(price) FROM ev{} GROUP BY ROLLUP (grp, doc->''k'')'),
  ('SELECT grp % 4 AS a, id % 3 AS b, count(*) FROM ev{} GROUP BY CUBE (grp % 4, id % 3)'),
  ('SELECT grp, sum(count(*)) OVER (ORDER BY grp) FROM ev{} GROUP BY grp'),
  ('SELECT max(c), min(c), sum(c) FROM (SELECT count(*) AS c FROM ev{} GROUP BY grp, txt) s'),
  ('SELECT count(*), sum(x) FROM (SELECT DISTINCT val AS x FROM ev{}) s'),
  ('SELECT e.grp, count(*), sum(d.cls) FROM ev{} e JOIN dim{} d USING (grp) GROUP BY e.grp'),
  ('SELECT d.cls, max(e.val), count(DISTINCT e.grp) FROM ev{} e LEFT JOIN dim{} d USING (grp) '
   'GROUP BY d.cls'),
  ('SELECT generate_series(1, grp % 3) AS s, count(*) FROM ev{} GROUP BY 1'),
  ('SELECT grp, generate_series(1, 2) AS s, max(id) FROM ev{} GROUP BY grp'),
  ('SELECT grp, EXISTS (SELECT FROM dim{} d WHERE d.grp = e.grp) AS x, count(*) FROM ev{} e GROUP '
   'BY grp'),
  ('SELECT (SELECT name FROM dim{} d WHERE d.grp = e.grp) AS n, max(val) FROM ev{} e GROUP BY 1'),
  ('SELECT grp, sum((SELECT cls FROM dim{} d WHERE d.grp = e.grp)) FROM ev{} e GROUP BY grp '
   'HAVING max(id) > (SELECT count(*) - 10 FROM ev{})'),
  ('SELECT count(ev{}) AS c, count(ev{}.*) AS d FROM ev{}'),
  ('SELECT ev{}::text AS r, count(*) FROM ev{} WHERE id < 60 GROUP BY ev{}'),
  ('SELECT e.grp, (array_agg(e ORDER BY e.id))[1]::text AS r FROM ev{} e GROUP BY e.grp'),
  ('SELECT every(ev{} IS NOT NULL) AS e, count(*) FILTER (WHERE ev{} IS NULL) AS n FROM ev{}')
) q(query);

-- window functions

SELECT same(query, 'window: ' || query) FROM (VALUES
  ('SELECT id, row_number() OVER (ORDER BY id) AS n FROM ev{} WHERE grp = 5'),
  ('SELECT id, rank() OVER (PARTITION BY grp ORDER BY val, id) AS r, lag(id) OVER (PARTITION BY '
   'grp ORDER BY id) AS l FROM ev{} WHERE id < 900'),
  ('SELECT grp, sum(sum(val)) OVER (ORDER BY grp ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s '
   'FROM ev{} GROUP BY grp'),
  ('SELECT * FROM (SELECT id, grp, row_number() OVER (PARTITION BY grp ORDER BY id) AS n FROM '
   'ev{}) s WHERE n <= 2'),
  ('SELECT id, count(*) OVER () AS c, ntile(4) OVER (ORDER BY id) AS q FROM ev{} WHERE val > 800'),
  ('SELECT DISTINCT first_value(id) OVER w AS f, last_value(id) OVER w AS l FROM ev{} WINDOW w AS '
   '(PARTITION BY txt ORDER BY id RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)')
) q(query);

-- joins

SELECT same(query, 'join: ' || query) FROM (VALUES
  ('SELECT e.id, d.name FROM ev{} e JOIN dim{} d ON d.grp = e.grp WHERE e.val < 50'),
  ('SELECT e.id, d.name FROM ev{} e, dim{} d WHERE d.grp = e.grp AND d.grp = 7'),
  ('SELECT e.id, d.name FROM ev{} e LEFT JOIN dim{} d ON d.grp = e.grp AND d.cls = 1 WHERE e.id < '
   '100'),
  ('SELECT e.id, d.name FROM ev{} e RIGHT JOIN dim{} d ON d.grp = e.grp AND e.val > 950'),
  ('SELECT e.id, d.grp FROM ev{} e FULL JOIN dim{} d ON d.grp = e.id'),
  ('SELECT e.id, d.grp FROM (SELECT * FROM ev{} WHERE grp < 5) e FULL JOIN dim{} d ON d.grp = '
   'e.grp WHERE coalesce(e.id, 0) < 30'),
  ('SELECT a.id AS i, b.id AS j FROM ev{} a JOIN ev{} b ON a.id = b.id + 1 WHERE a.grp = 4'),
  ('SELECT a.id AS i, b.id AS j FROM ev{} a JOIN ev{} b ON a.val = b.val AND a.id < b.id WHERE '
   'a.grp = 1'),
  ('SELECT a.id AS i, b.id AS j, c.id AS k FROM ev{} a, ev{} b, ev{} c WHERE a.id = b.id AND b.id '
   '= c.id AND c.id IN (1, 77, 4200)'),
  ('SELECT a.id AS i, d.name, b.id AS j FROM ev{} a JOIN dim{} d USING (grp) LEFT JOIN ev{} b ON '
   'b.id = a.val WHERE a.id BETWEEN 40 AND 90'),
  ('SELECT d.grp FROM dim{} d WHERE EXISTS (SELECT FROM ev{} e WHERE e.grp = d.grp AND e.val > 990)'),
  ('SELECT d.grp FROM dim{} d WHERE NOT EXISTS (SELECT FROM ev{} e WHERE e.grp = d.grp)'),
  ('SELECT id FROM ev{} WHERE grp IN (SELECT grp FROM dim{} WHERE cls = 2) AND id < 300'),
  ('SELECT id FROM ev{} WHERE grp NOT IN (SELECT grp FROM dim{}) AND id < 300'),
  ('SELECT id FROM ev{} WHERE (grp, val) IN (SELECT grp, val FROM ev{} WHERE id BETWEEN 10 AND 30)'),
  ('SELECT id FROM ev{} e WHERE val = (SELECT max(val) FROM ev{} WHERE grp = e.grp)'),
  ('SELECT id, (SELECT name FROM dim{} d WHERE d.grp = e.grp) AS n FROM ev{} e WHERE id < 60'),
  ('SELECT id FROM ev{} WHERE val > ALL (SELECT grp * 39 FROM dim{})'),
  ('SELECT id FROM ev{} WHERE id = ANY (SELECT val FROM ev{} WHERE grp = 9)'),
  ('SELECT d.grp, x.id FROM dim{} d, LATERAL (SELECT id FROM ev{} e WHERE e.grp = d.grp ORDER BY '
   'val DESC NULLS LAST, id LIMIT 2) x'),
  ('SELECT d.grp, x.c FROM dim{} d LEFT JOIN LATERAL (SELECT count(*) AS c FROM ev{} e WHERE '
   'e.grp = d.grp AND e.val > d.cls * 300) x ON true'),
  ('SELECT e.id, f.g FROM ev{} e, LATERAL generate_series(1, e.grp % 3) f(g) WHERE e.id < 40'),
  ('SELECT e.id, x.a FROM ev{} e LEFT JOIN LATERAL (SELECT e.id + d.grp AS a FROM dim{} d WHERE '
   'd.cls = e.id % 4) x ON x.a % 2 = 0 WHERE e.id < 40'),
  ('SELECT e.id, s.n FROM ev{} e LEFT JOIN (SELECT grp, coalesce(name, ''none'') AS n FROM dim{} '
   'd WHERE cls > 0) s ON s.grp = e.grp WHERE e.id < 60'),
  ('SELECT e.id FROM ev{} e JOIN dim{} d ON e.grp = d.grp OR e.id = d.grp * 10 WHERE d.cls = 3 '
   'AND e.id < 400'),
  ('SELECT e.id, d.grp FROM ev{} e JOIN dim{} d ON (e.grp = 4 AND d.grp = 5) OR (e.grp = 6 AND '
   'd.grp = 7)'),
  ('SELECT e.id, d.grp FROM ev{} e JOIN dim{} d ON e.id > d.grp * 180'),
  ('SELECT e.tableoid IS NOT NULL AS t, d.name FROM ev{} e JOIN dim{} d ON d.grp = e.id'),
  ('SELECT e::text AS e, d::text AS d FROM ev{} e LEFT JOIN dim{} d ON d.grp = e.id WHERE e.id < 30'),
  ('SELECT v.x, e.id FROM (VALUES (5), (17), (9999)) v(x) LEFT JOIN ev{} e ON e.id = v.x'),
  ('SELECT e.id FROM ev{} e JOIN unnest(ARRAY[3, 33, 333]) u ON u = e.id'),
  ('SELECT DISTINCT d.cls FROM dim{} d JOIN ev{} e ON e.grp = d.grp'),
  ('SELECT d.name, s.c FROM dim{} d JOIN (SELECT grp, count(*) AS c FROM ev{} GROUP BY grp) s '
   'USING (grp)'),
  ('SELECT a.id AS i FROM ev{} a LEFT JOIN ev{} b ON b.id = a.id + 4000 WHERE b.id IS NULL AND '
   'a.id > 150'),
  ('SELECT a.grp, count(*) FROM ev{} a JOIN ev{} b ON a.txt = b.txt AND a.grp = b.grp GROUP BY '
   'a.grp'),
  ('SELECT e.id, d.name FROM ev{} e JOIN dim{} d ON d.grp = e.grp ORDER BY e.id, d.name LIMIT 15'),
  ('SELECT e.id, d.cls FROM ev{} e JOIN dim{} d ON d.grp = e.grp ORDER BY e.at DESC, e.id LIMIT 15')
) q(query);

-- subqueries, set operations, WITH, order and limits

SELECT same(query, 'query: ' || query) FROM (VALUES
  ('SELECT * FROM (SELECT id, grp FROM ev{} UNION ALL SELECT grp, cls FROM dim{}) u WHERE id < 20'),
  ('SELECT grp, count(*) FROM (SELECT id, grp FROM ev{} UNION ALL SELECT id, grp FROM ev{} WHERE '
   'val > 500) u GROUP BY grp'),
  ('SELECT id FROM (SELECT id FROM ev{} UNION ALL SELECT id + 10000 FROM ev{}) u ORDER BY id '
   'LIMIT 12'),
  ('SELECT u.id, d.name FROM (SELECT id, grp FROM ev{} WHERE id < 30 UNION ALL SELECT -grp, grp '
   'FROM dim{}) u JOIN dim{} d ON d.grp = u.grp'),
  ('SELECT max(id), min(id) FROM (SELECT id FROM ev{} UNION ALL SELECT grp FROM dim{}) u'),
  ('SELECT * FROM (SELECT id, val FROM ev{} WHERE grp = 1 UNION ALL (SELECT id, val FROM ev{} '
   'WHERE grp = 2 UNION ALL SELECT grp, cls FROM dim{})) u WHERE val < 100'),
  ('SELECT grp FROM ev{} INTERSECT SELECT grp FROM dim{}'),
  ('SELECT grp FROM dim{} EXCEPT SELECT grp FROM ev{}'),
  ('SELECT grp FROM ev{} EXCEPT ALL SELECT grp FROM dim{}'),
  ('SELECT grp FROM ev{} UNION SELECT grp FROM dim{}'),
  ('WITH e AS MATERIALIZED (SELECT * FROM ev{} WHERE val > 900) SELECT a.id FROM e a JOIN e b ON '
   'a.id = b.id + 1'),
  ('WITH e AS (SELECT grp, max(id) AS m FROM ev{} GROUP BY grp) SELECT e.m, ev{}.txt FROM e JOIN '
   'ev{} ON ev{}.id = e.m'),
  ('WITH RECURSIVE r(id, n) AS (SELECT id, 0 FROM ev{} WHERE id = 1 UNION ALL SELECT e.id, n + 1 '
   'FROM r JOIN ev{} e ON e.id = r.id * 2 + 1) SELECT * FROM r'),
  ('SELECT id, val FROM ev{} ORDER BY val NULLS FIRST, id LIMIT 30 OFFSET 370'),
  ('SELECT grp, id FROM ev{} WHERE id < 500 ORDER BY grp DESC, id'),
  ('SELECT grp, txt, id FROM ev{} ORDER BY grp, txt, id LIMIT 40'),
  ('SELECT id, at FROM ev{} WHERE at BETWEEN timestamp ''2026-02-01'' AND timestamp '
   '''2026-02-02'' ORDER BY at'),
  ('SELECT id FROM (SELECT id FROM ev{} ORDER BY price FETCH FIRST 45 ROWS WITH TIES) s'),
  ('SELECT id FROM ev{} WHERE id IN (1, 2, 3, 500, NULL)'),
  ('SELECT id FROM ev{} WHERE NOT (val > 10) OR val IS NULL'),
  ('SELECT id FROM ev{} WHERE val IS NOT NULL AND grp IS NOT NULL AND id < 40'),
  ('SELECT count(*) FROM ev{} WHERE grp IS NULL'),
  ('SELECT id FROM ev{} WHERE txt LIKE ''Txt 4_'' AND doc @> ''{"k": 2}'''),
  ('SELECT id, doc->''g'' AS g, arr[2] AS a, price * 2 AS p FROM ev{} WHERE arr && ARRAY[12]'),
  ('SELECT ev{}::text AS r FROM ev{} WHERE id < 50'),
  ('SELECT (ev{}).txt, (ev{}).id FROM ev{} WHERE (ev{}).grp = 3'),
  ('SELECT row_to_json(e)->>''txt'' AS j FROM ev{} e WHERE id < 50'),
  ('SELECT e.*, 1 AS one FROM ev{} e WHERE e.id = 99'),
  ('SELECT CASE WHEN val > 500 THEN txt ELSE (SELECT max(name) FROM dim{}) END AS c FROM ev{} '
   'WHERE id < 50'),
  ('SELECT id FROM ev{} WHERE random() >= 0 AND id < 9'),
  ('SELECT generate_series(1, 2) AS g, id FROM ev{} WHERE id < 30'),
  ('SELECT id, unnest(arr) AS u FROM ev{} WHERE id < 30 ORDER BY id, u LIMIT 17'),
  ('SELECT exists(SELECT FROM ev{} WHERE id = 4200) AS a, exists(SELECT FROM ev{} WHERE id = '
   '4201) AS b'),
  ('SELECT ARRAY(SELECT id FROM ev{} WHERE grp = 16 ORDER BY id) AS a')
) q(query);

-- views; a security barrier holds back what must not be seen

CREATE VIEW small AS SELECT id, grp, val FROM ev WHERE id <= 1000;
CREATE VIEW small_twin AS SELECT id, grp, val FROM ev_twin WHERE id <= 1000;
CREATE VIEW per_grp AS SELECT grp, count(*) AS c, max(id) AS m FROM ev GROUP BY grp;
CREATE VIEW per_grp_twin AS SELECT grp, count(*) AS c, max(id) AS m FROM ev_twin GROUP BY grp;
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM ev WHERE grp <> 13;
CREATE VIEW barrier_twin WITH (security_barrier) AS SELECT * FROM ev_twin WHERE grp <> 13;
CREATE FUNCTION tells(grp int) RETURNS bool LANGUAGE plpgsql COST 0.0001 PARALLEL SAFE
AS 'BEGIN IF grp = 13 THEN RAISE ''seen''; END IF; RETURN true; END';
SELECT same(query, 'view: ' || query) FROM (VALUES
  ('SELECT grp, sum(val) FROM small{} GROUP BY grp'),
  ('SELECT s.id, p.c FROM small{} s JOIN per_grp{} p ON p.m = s.id + 3200 + s.grp'),
  ('SELECT * FROM per_grp{} WHERE grp > 10'),
  ('SELECT id, val FROM barrier{} WHERE tells(grp) AND id < 400'),
  ('SELECT grp, count(*) FROM barrier{} WHERE tells(grp) GROUP BY grp'),
  ('SELECT b.id FROM barrier{} b JOIN dim{} d USING (grp) WHERE tells(b.grp) AND d.cls = 1')
) q(query);
SELECT fails('SELECT count(*) FROM ev WHERE tells(grp) AND grp <> 13', 'P0001', 'seen',
  title => 'without the barrier it is seen, cheap as it is');

-- functions

CREATE FUNCTION of_grp(int) RETURNS SETOF ev LANGUAGE sql STABLE
AS 'SELECT * FROM ev WHERE grp = $1';
CREATE FUNCTION of_grp_twin(int) RETURNS SETOF ev_twin LANGUAGE sql STABLE
AS 'SELECT * FROM ev_twin WHERE grp = $1';
CREATE FUNCTION sum_up(int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
  e ev%ROWTYPE;
  s bigint := 0;
BEGIN
  FOR e IN SELECT * FROM ev WHERE grp = $1 LOOP s := s + e.id; END LOOP;
  RETURN s;
END $$;
CREATE FUNCTION sum_up_twin(int) RETURNS bigint LANGUAGE sql STABLE
AS 'SELECT coalesce(sum(id), 0) FROM ev_twin WHERE grp = $1';
SELECT same(query, 'function: ' || query) FROM (VALUES
  ('SELECT id, txt FROM of_grp{}(4) WHERE val > 500'),
  ('SELECT d.grp, count(*) FROM dim{} d, of_grp{}(d.grp) e GROUP BY d.grp'),
  ('SELECT d.grp, sum_up{}(d.grp) AS s FROM dim{} d')
) q(query);

-- system columns, ONLY, TABLESAMPLE

SELECT results_eq('SELECT tableoid::regclass::text, count(*) FROM ev GROUP BY 1 ORDER BY 1',
  $$ SELECT 'ev_' || g, 700::bigint FROM generate_series(0, 5) g $$, 'tableoid');
SELECT put('enable_partitionwise_aggregate=on') \gset was_
SELECT results_eq('SELECT tableoid::regclass::text, count(*), count(DISTINCT ctid) FROM ev GROUP '
                  'BY tableoid ORDER BY 1',
  $$ SELECT 'ev_' || g, 700::bigint, 700::bigint FROM generate_series(0, 5) g $$,
  'grouping by tableoid');
SELECT put(:'was_put') \gset was_
SELECT bag_eq($$ SELECT id FROM ev WHERE tableoid = 'ev_3'::regclass $$,
  'SELECT id FROM ev_3', 'tableoid in a condition');
SELECT results_eq('SELECT id, xmin = pg_current_xact_id()::xid, tableoid <> ''ev''::regclass
                     FROM ev WHERE id IN (5, 20) ORDER BY id',
  $$ VALUES (5, true, true), (20, false, true) $$, 'xmin');
SELECT is_empty('SELECT * FROM ONLY ev', 'ONLY finds nothing');
SELECT is(nodes('SELECT * FROM ONLY ev'), '{Result}', 'ONLY finds nothing, and scans nothing');
SELECT results_eq('SELECT count(*) FROM ONLY ev a RIGHT JOIN dim b ON true',
  'VALUES (23::bigint)', 'ONLY finds nothing, also in an outer join');
SELECT fails('SELECT * FROM ev TABLESAMPLE system (10)', NULL,
  'TABLESAMPLE clause can only be applied to tables and materialized views',
  title => 'TABLESAMPLE is refused as for any foreign table');

-- EXPLAIN in all formats

SELECT ok(plan ~ '\mev_0\M' AND plan ~ '\mev_5\M' AND plan ~ '\mdim_2\M' AND plan !~ 'Foreign',
  'EXPLAIN (' || options || ')')
  FROM unnest(ARRAY['FORMAT text', 'FORMAT json', 'FORMAT xml', 'FORMAT yaml',
                    'VERBOSE, FORMAT text', 'VERBOSE, FORMAT json', 'VERBOSE, FORMAT xml',
                    'VERBOSE, FORMAT yaml', 'ANALYZE, VERBOSE, BUFFERS, TIMING OFF',
                    'ANALYZE, SETTINGS, WAL, SUMMARY, FORMAT json']) options,
  LATERAL (SELECT plan_text(
    'SELECT e.txt, count(e), max(d.name) FROM ev e LEFT JOIN dim d ON d.grp = e.grp
      WHERE e.val > 7 GROUP BY e.txt HAVING count(*) > 2 ORDER BY 2', options) AS plan) p;
SELECT is(plan_text('SELECT * FROM ev WHERE id = 5', 'FORMAT json, COSTS OFF')::jsonb #>>
  '{0,Plan,Node Type}',
  'Append', 'the JSON is JSON');
SELECT matches(plan_text('SELECT * FROM ev', 'FORMAT xml'), '^<explain .*</explain>\s*$',
  'the XML is whole');

-- constraint exclusion

CREATE FOREIGN TABLE rng (k int, v int) SERVER shards OPTIONS (shards '4');
CREATE TABLE rng_twin (k int, v int);
ALTER TABLE rng_0 ADD CHECK (k < 100);
ALTER TABLE rng_1 ADD CHECK (k >= 100 AND k < 200);
ALTER TABLE rng_2 ADD CHECK (k >= 200 AND k < 300);
DO $$ BEGIN
  FOR s IN 0..3 LOOP
    PERFORM set_config('shard_fdw.shard', s::text, true);
    INSERT INTO rng SELECT s * 100 + g, CASE WHEN g % 3 > 0 THEN g END
      FROM generate_series(0, 99) g;
  END LOOP;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
INSERT INTO rng_twin SELECT * FROM rng;
SELECT is(scanned(query), relations::text[], 'exclusion: ' || query)
  FROM (VALUES
    ('SELECT * FROM rng WHERE k = 150', '{rng_1,rng_3}'),
    ('SELECT * FROM rng WHERE k < 120', '{rng_0,rng_1,rng_3}'),
    ('SELECT * FROM rng WHERE k IN (5, 250)', '{rng_0,rng_2,rng_3}'),
    ('SELECT * FROM rng WHERE k = 5 OR (k > 210 AND v = 3)', '{rng_0,rng_2,rng_3}'),
    ('SELECT * FROM rng WHERE k = 5 AND k = 6', '{}'),
    ('SELECT * FROM rng WHERE k IS NULL', '{rng_0,rng_1,rng_2,rng_3}'),
    ('SELECT sum(v) FROM rng WHERE k BETWEEN 150 AND 160', '{rng_1,rng_3}'),
    ('SELECT * FROM (SELECT k FROM rng UNION ALL SELECT k FROM rng) u WHERE k = 150',
     '{rng_1,rng_3}'),
    ('SELECT * FROM rng a JOIN rng b ON a.k = b.k WHERE a.k = 150', '{rng_1,rng_3}'),
    ('SELECT * FROM rng WHERE k = 150 FOR UPDATE', '{rng_1,rng_3}'),
    ('SELECT * FROM rng WHERE k = now()::date - date ''2000-01-01''',
     '{rng_0,rng_1,rng_2,rng_3}')
  ) q(query, relations);
ALTER TABLE rng_3 ADD CHECK (k >= 300);
SELECT is(scanned('SELECT * FROM rng WHERE k = 150'), '{rng_1}', 'exclusion to one shard');
SELECT is(nodes('SELECT * FROM rng WHERE k = 150'), '{Seq Scan}',
  'exclusion to one shard, without an Append');
SELECT is(scanned('DELETE FROM rng WHERE k = 150'), '{rng_1}',
  'exclusion to one shard, for DELETE');
SELECT shape('enable_partitionwise_aggregate=on', '{Finalize Aggregate,Partial Aggregate}',
  'SELECT v, count(*) FROM rng{} WHERE k < 150 GROUP BY v', 'exclusion and partial aggregates');
SELECT shape('enable_partitionwise_aggregate=on', '{Aggregate}',
  'SELECT v, count(*) FROM rng{} WHERE k < 50 GROUP BY v',
  'exclusion and partial aggregates, with one shard left');
SELECT put('constraint_exclusion=off') \gset was_
SELECT is(scanned('SELECT * FROM rng WHERE k = 150'), '{rng_0,rng_1,rng_2,rng_3}',
  'constraint_exclusion = off');
SELECT put(:'was_put') \gset was_
SELECT put('constraint_exclusion=on') \gset was_
SELECT is(scanned('SELECT * FROM rng WHERE k = 150'), '{rng_1}', 'constraint_exclusion = on');
SELECT put(:'was_put') \gset was_

-- what holds for the logical table alone says nothing of the shards

ALTER FOREIGN TABLE rng ADD CONSTRAINT mine CHECK (k < 0) NO INHERIT;
SELECT current_setting('server_version_num')::int >= 180000 AS is_18 \gset
\if :is_18
ALTER FOREIGN TABLE rng ADD CONSTRAINT v_mine NOT NULL v NO INHERIT;
\else
ALTER FOREIGN TABLE ONLY rng ALTER v SET NOT NULL;
\endif
SELECT ok(attnotnull, 'the logical table''s column is NOT NULL')
  FROM pg_attribute WHERE attrelid = 'rng'::regclass AND attname = 'v';
UPDATE rng SET v = 0 WHERE v IS NULL AND k < 100;
UPDATE rng_twin SET v = 0 WHERE v IS NULL AND k < 100;
ALTER TABLE rng_0 ALTER v SET NOT NULL;
SELECT same(query, 'only in the parent: ' || query) FROM (VALUES
  ('SELECT * FROM rng{} WHERE k > 290'),
  ('SELECT count(*), sum(k) FROM rng{} WHERE v IS NULL'),
  ('SELECT count(*), sum(k) FROM rng{} WHERE v IS NOT NULL'),
  ('SELECT k FROM rng{} WHERE v IS NULL OR v > 95'),
  ('SELECT v IS NULL AS n, count(*) FROM rng{} GROUP BY 1'),
  ('SELECT a.k FROM rng{} a JOIN rng{} b ON a.k = b.k AND b.v IS NULL'),
  ('SELECT a.k, b.k AS l FROM rng{} a LEFT JOIN rng{} b ON b.k = a.k + 1 AND a.v IS NULL'),
  ('SELECT max(v), min(v) FROM rng{} WHERE v IS NOT NULL'),
  ('SELECT k FROM rng{} WHERE v IS NULL AND k < 130'),
  ('SELECT k FROM (SELECT * FROM rng{} UNION ALL SELECT * FROM rng{}) u WHERE v IS NULL')
) q(query);
SELECT put('constraint_exclusion=on') \gset was_
SELECT is(scanned('SELECT * FROM rng WHERE v IS NULL'), '{rng_1,rng_2,rng_3}',
  'a shard with NOT NULL is ruled out');
SELECT put(:'was_put') \gset was_

-- statistics

SELECT set_eq($$ SELECT attname FROM pg_stats WHERE schemaname = 'select_test'
                    AND tablename = 'ev' AND inherited $$,
  ARRAY['id', 'grp', 'val', 'price', 'txt', 'at', 'arr', 'doc'],
  'ANALYZE has collected inherited statistics');
SELECT is_empty($$ SELECT attname FROM pg_stats WHERE schemaname = 'select_test'
                     AND tablename = 'ev' AND NOT inherited $$,
  'ANALYZE has collected inherited statistics, and none of the empty table itself');
CREATE FUNCTION estimate(query text) RETURNS float LANGUAGE sql
AS 'SELECT ((plan_nodes(query))[1]->>''Plan Rows'')::float';
SELECT ok(estimate('SELECT * FROM ev') BETWEEN 4100 AND 4500, 'estimate of all rows');
SELECT is(estimate('SELECT grp FROM ev GROUP BY grp'), 17::float, 'estimate of groups');
SELECT is(estimate('SELECT grp, price, count(*) FROM ev WHERE id < 0 GROUP BY grp, price') < 20,
  true, 'estimate of groups of few rows');
SELECT ok(estimate('SELECT * FROM ev WHERE grp = 3') BETWEEN 200 AND 300,
  'estimate of a condition');
SELECT ok(estimate('SELECT * FROM ev a JOIN ev b USING (id)') BETWEEN 4100 AND 4300,
  'estimate of a join');
CREATE STATISTICS ev_statistics (ndistinct, dependencies) ON grp, txt FROM ev;
UPDATE ev SET txt = 'grp ' || grp;
ANALYZE ev;
SELECT is((SELECT count(*) FROM pg_statistic_ext_data d JOIN pg_statistic_ext e ON e.oid = stxoid
            WHERE stxname = 'ev_statistics' AND stxdinherit AND stxdndistinct IS NOT NULL),
  1::bigint, 'extended statistics are inherited ones');
SELECT is(estimate('SELECT grp, txt FROM ev GROUP BY grp, txt'), 17::float,
  'extended statistics are inherited ones, and used');
UPDATE ev SET txt = t.txt FROM ev_twin t WHERE t.id = ev.id;

-- prepared statements: plans die when the shards change

CREATE FOREIGN TABLE prep (k int, v text) SERVER shards;
CREATE TABLE prep_like (k int, v text);
CREATE INDEX ON prep_like (k);
PREPARE total AS SELECT count(*), sum(k::bigint) FROM prep;
PREPARE below(int) AS SELECT k, v FROM prep WHERE k < $1 ORDER BY k;
PREPARE joined(int) AS SELECT a.v FROM prep a JOIN prep b ON b.k = a.k AND b.k = $1;
CREATE FUNCTION of_prep(int) RETURNS bigint LANGUAGE plpgsql
AS 'BEGIN RETURN (SELECT count(*) FROM prep WHERE k < $1); END';
CREATE FUNCTION prepared_agree() RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
  mode text;
  c bigint; s bigint; n bigint; good bool := true;
BEGIN
  FOREACH mode IN ARRAY ARRAY['force_generic_plan', 'force_custom_plan', 'auto'] LOOP
    PERFORM set_config('plan_cache_mode', mode, true);
    FOR i IN 1..2 LOOP
      EXECUTE 'EXECUTE total' INTO c, s;
      good := good AND (c, coalesce(s, 0)) =
        (SELECT count(*), coalesce(sum(k), 0) FROM prep_twin);
      EXECUTE 'EXECUTE below(60)';
      GET DIAGNOSTICS n = ROW_COUNT;
      good := good AND n = (SELECT count(*) FROM prep_twin WHERE k < 60);
      EXECUTE 'EXECUTE joined(7)';
      GET DIAGNOSTICS n = ROW_COUNT;
      good := good AND n = (SELECT count(*) ^ 2 FROM prep_twin WHERE k = 7);
      good := good AND of_prep(60) = (SELECT count(*) FROM prep_twin WHERE k < 60);
    END LOOP;
  END LOOP;
  RETURN good;
END $$;
CREATE TABLE prep_twin (k int, v text);
SELECT ok(prepared_agree(), 'prepared: no shards');
SELECT is(count(*), 2::bigint, 'two shards')
  FROM shard_fdw.create_shards('prep', 2, 'prep_like');
INSERT INTO prep SELECT g, 'a' FROM generate_series(1, 100) g;
INSERT INTO prep_twin SELECT g, 'a' FROM generate_series(1, 100) g;
SELECT ok(prepared_agree(), 'prepared: shards were added');
SELECT is(count(*), 2::bigint, 'two more') FROM shard_fdw.create_shards('prep', 2);
SET LOCAL shard_fdw.shard = 3;
INSERT INTO prep SELECT g, 'b' FROM generate_series(50, 150) g;
INSERT INTO prep_twin SELECT g, 'b' FROM generate_series(50, 150) g;
RESET shard_fdw.shard;
SELECT ok(prepared_agree(), 'prepared: shards were added again');
ALTER TABLE prep_3 NO INHERIT prep;
DELETE FROM prep_twin WHERE v = 'b';
SELECT ok(prepared_agree(), 'prepared: a shard was detached');
ALTER TABLE prep_3 INHERIT prep;
INSERT INTO prep_twin SELECT * FROM prep_3;
SELECT ok(prepared_agree(), 'prepared: it was attached again');
ALTER TABLE prep_3 ADD CONSTRAINT high CHECK (k >= 50);
SELECT is(scanned('SELECT * FROM prep WHERE k < 20'), '{prep_0,prep_1,prep_2}',
  'a constraint rules a shard out');
PREPARE small AS SELECT count(*) FROM prep WHERE k < 20;
SELECT results_eq('small', 'SELECT count(*) FROM prep_twin WHERE k < 20',
  'prepared: without a shard');
ALTER TABLE prep_3 DROP CONSTRAINT high;
INSERT INTO prep_3 VALUES (7, 'c');
INSERT INTO prep_twin VALUES (7, 'c');
SELECT results_eq('small', 'SELECT count(*) FROM prep_twin WHERE k < 20',
  'prepared: the constraint of a ruled-out shard is gone');
SELECT ok(prepared_agree(), 'prepared: as before');
SELECT shard_fdw.seal('prep_0');
SELECT ok(prepared_agree(), 'prepared: a shard is sealed');
SELECT shard_fdw.unseal('prep_0');
DELETE FROM prep_twin WHERE v IN ('b', 'c');
DROP TABLE prep_3;
SELECT ok(prepared_agree(), 'prepared: a shard was dropped');
CREATE TABLE prep_child () INHERITS (prep_1);
INSERT INTO prep_child SELECT g, 'd' FROM generate_series(1, 30) g;
INSERT INTO prep_twin SELECT g, 'd' FROM generate_series(1, 30) g;
SELECT ok(prepared_agree(), 'prepared: a shard got a child');
DROP TABLE prep_child;
DELETE FROM prep_twin WHERE v = 'd';
SELECT ok(prepared_agree(), 'prepared: and lost it');
DROP INDEX prep_0_k_idx, prep_1_k_idx;
SELECT ok(prepared_agree(), 'prepared: indexes were dropped');
ALTER FOREIGN TABLE prep ADD COLUMN w int DEFAULT 5;
SELECT ok(prepared_agree(), 'prepared: a column was added');
ALTER TABLE prep ALTER k TYPE bigint;
ALTER TABLE prep_twin ALTER k TYPE bigint;
SELECT fails('EXECUTE below(60)', '0A000', 'cached plan must not change result type',
  title => 'prepared: a column has another type');
DEALLOCATE below;
PREPARE below(int) AS SELECT k, v FROM prep WHERE k < $1 ORDER BY k;
SELECT ok(prepared_agree(), 'prepared: a column has another type');
TRUNCATE prep, prep_twin;
SELECT ok(prepared_agree(), 'prepared: truncated');
DROP TABLE prep_0, prep_1, prep_2;
SELECT ok(prepared_agree(), 'prepared: no shards are left');
SET LOCAL client_min_messages = error;
SELECT is(count(*), 1::bigint, 'a new one') FROM shard_fdw.create_shards('prep', 1);
SET LOCAL client_min_messages = warning;
INSERT INTO prep SELECT g FROM generate_series(1, 70) g;
INSERT INTO prep_twin SELECT g FROM generate_series(1, 70) g;
SELECT ok(prepared_agree(), 'prepared: shards are back');

-- cursors

CREATE FUNCTION walk(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  c SCROLL CURSOR (q text) FOR SELECT 1;
  r record;
  result text := '';
  cur refcursor;
BEGIN
  OPEN cur SCROLL FOR EXECUTE query;
  FETCH NEXT FROM cur INTO r; result := result || r;
  FETCH RELATIVE 5 FROM cur INTO r; result := result || r;
  FETCH PRIOR FROM cur INTO r; result := result || r;
  FETCH LAST FROM cur INTO r; result := result || r;
  FETCH RELATIVE -3 FROM cur INTO r; result := result || r;
  FETCH FIRST FROM cur INTO r; result := result || r;
  FETCH ABSOLUTE 17 FROM cur INTO r; result := result || r;
  MOVE BACKWARD ALL FROM cur;
  FETCH NEXT FROM cur INTO r; result := result || r;
  CLOSE cur;
  RETURN result;
END $$;
SELECT is(walk(replace(query, '{}', '')), walk(replace(query, '{}', '_twin')), 'cursor: ' || query)
  FROM (VALUES
    ('SELECT id, txt FROM ev{} ORDER BY id'),
    ('SELECT id, val FROM ev{} WHERE grp = 4 ORDER BY at DESC'),
    ('SELECT grp, count(*) FROM ev{} GROUP BY grp ORDER BY grp'),
    ('SELECT e.id, d.name FROM ev{} e JOIN dim{} d USING (grp) ORDER BY e.id')
  ) q(query);
DECLARE unsorted SCROLL CURSOR FOR SELECT id FROM ev;
MOVE 4000 IN unsorted;
MOVE BACKWARD 3990 IN unsorted;
SELECT results_eq($$ SELECT count(*), count(DISTINCT id)
                       FROM fetch_all('unsorted') AS f(id int) $$,
  'VALUES (4190::bigint, 4190::bigint)', 'a cursor goes back over several shards');

-- shards with other column orders, dropped and extra columns

CREATE FOREIGN TABLE lay (gone int, a int, b text, c numeric, gone_too int) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE lay_twin (a int, b text, c numeric, d int DEFAULT 4);
CREATE TABLE lay_0 (gone int, a int, b text, c numeric, gone_too int);
CREATE TABLE lay_1 (c numeric, extra text DEFAULT 'x', b text, gone_too int, a int, gone int);
CREATE TABLE lay_2 (x int, gone int, a int, y int, b text, c numeric, z int, gone_too int);
ALTER TABLE lay_2 DROP x, DROP y, DROP z;
CREATE TABLE lay_3 (b text, a int, plus int GENERATED ALWAYS AS (a + 1) STORED,
                    gone int, c numeric, more serial, gone_too int);
ALTER TABLE lay_0 INHERIT lay;
ALTER TABLE lay_1 INHERIT lay;
ALTER TABLE lay_2 INHERIT lay;
ALTER TABLE lay_3 INHERIT lay;
CREATE INDEX ON lay_0 (a);
CREATE INDEX ON lay_1 (a);
CREATE INDEX ON lay_3 (b);
ALTER FOREIGN TABLE lay DROP gone, DROP gone_too, ADD d int DEFAULT 4;
INSERT INTO lay_twin SELECT g, 'b' || g % 7, g / 4.0 FROM generate_series(1, 400) g;
INSERT INTO lay SELECT a, b, c FROM lay_twin ORDER BY a;
SELECT results_eq('SELECT DISTINCT tableoid::regclass::text FROM lay ORDER BY 1',
  $$ VALUES ('lay_0'), ('lay_1'), ('lay_2'), ('lay_3') $$, 'all layouts have rows');
SELECT same(query, 'layouts: ' || query) FROM (VALUES
  ('SELECT * FROM lay{}'),
  ('SELECT lay{}::text AS r FROM lay{}'),
  ('SELECT (lay{}).c, (lay{}).b FROM lay{} WHERE (lay{}).a % 7 = 2'),
  ('SELECT lay{}::text AS r, count(*) FROM lay{} GROUP BY lay{}'),
  ('SELECT l.b, max(l.c), count(l), sum(d) FROM lay{} l GROUP BY l.b'),
  ('SELECT b, array_agg(l ORDER BY l.a)::text AS r FROM lay{} l WHERE a < 60 GROUP BY b'),
  ('SELECT a, b FROM lay{} ORDER BY a DESC LIMIT 9'),
  ('SELECT x.a, y.c FROM lay{} x JOIN lay{} y ON x.a = y.c'),
  ('SELECT x::text AS x, y::text AS y FROM lay{} x LEFT JOIN lay{} y ON y.a = x.c * 4 + 1'),
  ('SELECT l.a, c * a AS p, row_number() OVER (PARTITION BY b ORDER BY a) AS n FROM lay{} l'),
  ('SELECT q.b, q.a FROM (SELECT a, b, c FROM lay{} UNION ALL SELECT a, b, c FROM lay{}) q WHERE '
   'q.a < 9'),
  ('SELECT to_jsonb(l) - ''c'' AS j FROM lay{} l WHERE l.a BETWEEN 5 AND 25'),
  ('SELECT l.a FROM lay{} l WHERE l = (SELECT m FROM lay{} m WHERE m.a = 9)')
) q(query);
SELECT ok(plan_text('SELECT l FROM lay l', 'VERBOSE') ~ 'lay_3', 'EXPLAIN VERBOSE of whole rows');

-- tables without shards

CREATE FOREIGN TABLE void (a int, b text) SERVER shards;
CREATE TABLE void_twin (a int, b text);
SELECT is(nodes('SELECT * FROM void'), '{Result}', 'no shards: nothing to scan');
SELECT same(query, 'no shards: ' || query) FROM (VALUES
  ('SELECT count(*), max(a) FROM void{}'),
  ('SELECT d.grp FROM dim{} d LEFT JOIN void{} v ON v.a = d.grp'),
  ('SELECT d.grp FROM dim{} d WHERE NOT EXISTS (SELECT FROM void{} v WHERE v.a = d.grp)'),
  ('SELECT count(*) FROM (SELECT a FROM void{} UNION ALL SELECT grp FROM dim{}) u'),
  ('SELECT (SELECT b FROM void{} LIMIT 1) AS b'),
  ('SELECT count(*) FROM void{} a FULL JOIN void{} b ON a.a = b.a')
) q(query);
-- one that has had shards
SET LOCAL client_min_messages = error;
SELECT is(count(*), 1::bigint, 'a shard') FROM shard_fdw.create_shards('void', 1);
SET LOCAL client_min_messages = warning;
DROP TABLE void_0;
SELECT same('SELECT count(*), max(a) FROM void{}', 'no shards any more');

-- shards with children of their own, one of them reached by two paths

CREATE FOREIGN TABLE deep (a int, b text) SERVER shards OPTIONS (shards '3', route 'round_robin');
CREATE TABLE deep_twin (a int, b text);
CREATE TABLE deep_0_child (note text) INHERITS (deep_0);
CREATE TABLE deep_0_grandchild () INHERITS (deep_0_child);
CREATE TABLE deep_both () INHERITS (deep_1, deep_2);
CREATE TABLE deep_direct () INHERITS (deep, deep_1);
INSERT INTO deep SELECT g, 'shard' FROM generate_series(1, 90) g;
INSERT INTO deep_0_child SELECT g, 'child', 'n' FROM generate_series(100, 120) g;
INSERT INTO deep_0_grandchild SELECT g, 'grandchild', 'n' FROM generate_series(200, 220) g;
INSERT INTO deep_both SELECT g, 'both' FROM generate_series(300, 320) g;
INSERT INTO deep_direct SELECT g, 'direct' FROM generate_series(400, 420) g;
INSERT INTO deep_twin
SELECT g, 'shard' FROM generate_series(1, 90) g UNION ALL
SELECT g, 'child' FROM generate_series(100, 120) g UNION ALL
SELECT g, 'grandchild' FROM generate_series(200, 220) g UNION ALL
SELECT g, 'both' FROM generate_series(300, 320) g UNION ALL
SELECT g, 'direct' FROM generate_series(400, 420) g;
SELECT same(query, 'children of shards: ' || query) FROM (VALUES
  ('SELECT a, b FROM deep{}'),
  ('SELECT b, count(*), sum(a) FROM deep{} GROUP BY b'),
  ('SELECT x.a, y.b FROM deep{} x JOIN deep{} y ON x.a = y.a + 100'),
  ('SELECT deep{}::text AS r FROM deep{} ORDER BY a LIMIT 110')
) q(query);
SELECT is(scanned('SELECT * FROM deep'),
  '{deep_0,deep_0_child,deep_0_grandchild,deep_1,deep_2,deep_both,deep_direct}',
  'each is scanned');
SELECT is((SELECT count(*) FROM unnest(plan_nodes('SELECT * FROM deep')) n
            WHERE n->>'Relation Name' IN ('deep_both', 'deep_direct')), 2::bigint,
  'each is scanned, and once');
SELECT is(returned('UPDATE deep SET a = -a WHERE b IN (''both'', ''grandchild'') RETURNING a, b'),
  returned('UPDATE deep_twin SET a = -a WHERE b IN (''both'', ''grandchild'') RETURNING a, b'),
  'each is scanned, and updated once');

-- a logical table as a child of plain tables

CREATE TABLE top (a int, b text);
CREATE TABLE middle (m int) INHERITS (top);
CREATE FOREIGN TABLE leaf (l int) INHERITS (middle) SERVER shards
  OPTIONS (shards '2', route 'round_robin');
CREATE TABLE top_twin (a int, b text);
CREATE TABLE middle_twin (a int, b text, m int);
INSERT INTO top VALUES (1, 'top');
INSERT INTO middle VALUES (2, 'middle', 2);
INSERT INTO leaf SELECT g, 'leaf', g, g FROM generate_series(3, 40) g;
INSERT INTO middle_twin SELECT 2, 'middle', 2 UNION ALL SELECT g, 'leaf',
  g FROM generate_series(3, 40) g;
INSERT INTO top_twin SELECT 1, 'top' UNION ALL SELECT a, b FROM middle_twin;
SELECT same(query, 'child of plain tables: ' || query) FROM (VALUES
  ('SELECT a, b FROM top{}'),
  ('SELECT b, count(*) FROM top{} GROUP BY b'),
  ('SELECT a, b, m FROM middle{} WHERE m < 20'),
  ('SELECT t.a, m.m FROM top{} t LEFT JOIN middle{} m ON m.m = t.a + 1')
) q(query);
SELECT is(scanned('SELECT * FROM top'), '{leaf_0,leaf_1,middle,top}', 'it is not scanned itself');
UPDATE top SET b = 'new ' || b WHERE a < 10;
UPDATE top_twin SET b = 'new ' || b WHERE a < 10;
DELETE FROM top WHERE a BETWEEN 20 AND 25;
DELETE FROM top_twin WHERE a BETWEEN 20 AND 25;
SELECT bag_eq('SELECT a, b FROM top', 'SELECT * FROM top_twin', 'UPDATE and DELETE from the top');
ANALYZE top;
SELECT is((SELECT count(*) FROM pg_stats WHERE schemaname = 'select_test' AND tablename = 'top'
              AND inherited), 2::bigint, 'ANALYZE from the top');
-- and a logical table as a shard of another
CREATE FOREIGN TABLE outer_log (a int, b text, m int, l int) SERVER shards OPTIONS (shards '1');
CREATE FOREIGN TABLE inner_log () INHERITS (outer_log) SERVER shards
  OPTIONS (shards '2', route 'round_robin');
INSERT INTO inner_log SELECT g, 'inner', g, g FROM generate_series(1, 20) g;
INSERT INTO outer_log_0 SELECT g, 'outer', g, g FROM generate_series(1, 5) g;
SELECT results_eq('SELECT b, count(*), sum(a) FROM outer_log GROUP BY b ORDER BY b',
  $$ VALUES ('inner', 20::bigint, 210::bigint), ('outer', 5, 15) $$,
  'a logical table below a logical table');
SELECT is(scanned('SELECT * FROM outer_log'), '{inner_log_0,inner_log_1,outer_log_0}',
  'a logical table below a logical table is not scanned');

-- temporary and unlogged shards

CREATE TEMP TABLE temp_shard (LIKE ev_template INCLUDING ALL);
ALTER TABLE temp_shard INHERIT ev;
INSERT INTO temp_shard (id, grp, val, txt) VALUES (9001, 3, 5, 'temp'), (9002, 4, 6, 'temp');
INSERT INTO ev_twin (id, grp, val, txt) VALUES (9001, 3, 5, 'temp'), (9002, 4, 6, 'temp');
SELECT same('SELECT grp, count(*), max(id) FROM ev{} GROUP BY grp', 'a temporary shard is read');
SELECT put(settings) FROM profiles WHERE name = 'parallel' \gset was_
SELECT ok(NOT nodes('SELECT count(*) FROM ev') && '{Gather,Gather Merge}',
  'a logical table below a logical table, and not by workers');
SELECT put(:'was_put') \gset was_
DROP TABLE temp_shard;
DELETE FROM ev_twin WHERE id > 9000;

-- reading and writing in one command, with row locks elsewhere

INSERT INTO ev (id, grp, txt)
SELECT e.id + 10000, d.cls, 'copy of ' || e.txt FROM ev e JOIN dim d USING (grp) WHERE e.id < 500;
INSERT INTO ev_twin (id, grp, txt)
SELECT e.id + 10000, d.cls, 'copy of ' || e.txt FROM ev_twin e JOIN dim_twin d USING (grp)
  WHERE e.id < 500;
SELECT bag_eq('SELECT * FROM ev', 'SELECT * FROM ev_twin', 'INSERT from itself and another');
WITH gone AS (DELETE FROM ev WHERE id > 10200 RETURNING id, grp)
INSERT INTO dim SELECT id, 'from ' || grp, (SELECT count(*) FROM ev WHERE id > 10200) FROM gone;
WITH gone AS (DELETE FROM ev_twin WHERE id > 10200 RETURNING id, grp)
INSERT INTO dim_twin SELECT id, 'from ' || grp, (SELECT count(*) FROM ev_twin WHERE id > 10200)
  FROM gone;
SELECT bag_eq('SELECT * FROM dim', 'SELECT * FROM dim_twin',
  'DELETE, INSERT and SELECT in one command');
SELECT bag_eq('SELECT * FROM ev', 'SELECT * FROM ev_twin',
  'DELETE, INSERT and SELECT in one command, on both tables');
CREATE TABLE plain AS SELECT g AS grp, 'plain ' || g AS name FROM generate_series(1, 30) g;
CREATE TABLE plain_twin AS SELECT * FROM plain;
SELECT bag_eq('SELECT p.name, e.id FROM plain p JOIN ev e USING (grp) WHERE e.id < 200 FOR UPDATE '
              'OF p',
  'SELECT p.name, e.id FROM plain p JOIN ev_twin e USING (grp) WHERE e.id < 200',
  'FOR UPDATE of a plain table joined to a logical one');
SELECT bag_eq('SELECT d.name, e.id FROM dim d JOIN ev e USING (grp) WHERE e.id < 200 FOR SHARE OF d',
  'SELECT d.name, e.id FROM dim_twin d JOIN ev_twin e USING (grp) WHERE e.id < 200',
  'FOR SHARE of one logical table, plain read of the other');
SELECT bag_eq('SELECT name, (SELECT count(*) FROM ev e WHERE e.grp = d.grp) FROM dim d FOR UPDATE',
  'SELECT name, (SELECT count(*) FROM ev_twin e WHERE e.grp = d.grp) FROM dim_twin d',
  'FOR UPDATE with a logical table in a subquery');
UPDATE plain p SET name = e.txt || d.name FROM ev e LEFT JOIN dim d ON d.grp = e.grp
  WHERE e.id = p.grp;
UPDATE plain_twin p SET name = e.txt || d.name FROM ev_twin e LEFT JOIN dim_twin d ON d.grp = e.grp
  WHERE e.id = p.grp;
SELECT bag_eq('SELECT * FROM plain', 'SELECT * FROM plain_twin', 'UPDATE ... FROM logical tables');
SELECT is(returned('DELETE FROM plain p USING ev e WHERE e.id = p.grp AND e.val > 500 RETURNING '
                   'p.grp, e'),
  returned('DELETE FROM plain_twin p USING ev_twin e WHERE e.id = p.grp AND e.val > 500 RETURNING '
           'p.grp, e'),
  'DELETE ... USING a logical table');
MERGE INTO plain p USING ev e ON e.id = p.grp AND p.grp < 10
 WHEN MATCHED AND e.val > 300 THEN UPDATE SET name = 'merged ' || e.txt
 WHEN MATCHED THEN DELETE
 WHEN NOT MATCHED AND e.id < 50 THEN INSERT VALUES (e.id, e.txt);
MERGE INTO plain_twin p USING ev_twin e ON e.id = p.grp AND p.grp < 10
 WHEN MATCHED AND e.val > 300 THEN UPDATE SET name = 'merged ' || e.txt
 WHEN MATCHED THEN DELETE
 WHEN NOT MATCHED AND e.id < 50 THEN INSERT VALUES (e.id, e.txt);
SELECT bag_eq('SELECT * FROM plain', 'SELECT * FROM plain_twin', 'MERGE ... USING a logical table');
MERGE INTO plain p USING (SELECT grp, max(txt) AS t FROM ev GROUP BY grp) e ON e.grp = p.grp
 WHEN MATCHED THEN UPDATE SET name = e.t WHEN NOT MATCHED THEN INSERT VALUES (e.grp, 'none');
MERGE INTO plain_twin p USING (SELECT grp, max(txt) AS t FROM ev_twin GROUP BY grp) e ON e.grp
  = p.grp
 WHEN MATCHED THEN UPDATE SET name = e.t WHEN NOT MATCHED THEN INSERT VALUES (e.grp, 'none');
SELECT bag_eq('SELECT * FROM plain', 'SELECT * FROM plain_twin',
  'MERGE ... USING groups of a logical table');
CREATE MATERIALIZED VIEW mat AS SELECT grp, count(*) AS c FROM ev GROUP BY grp;
DELETE FROM ev WHERE grp = 2;
REFRESH MATERIALIZED VIEW mat;
SELECT bag_eq('SELECT * FROM mat', 'SELECT grp, count(*) FROM ev_twin WHERE grp <> 2 GROUP BY grp',
  'a materialized view');

-- who may read: the logical table's privileges count, not the shards'

GRANT SELECT (id, grp) ON ev TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT results_eq('SELECT count(id), max(grp) FROM ev WHERE id < 100',
  'VALUES (93::bigint, 16)', 'SELECT on the logical table is enough');
SELECT fails('SELECT txt FROM ev', '42501',
  title => 'SELECT on the logical table is enough, for the columns granted');
SELECT fails('SELECT id FROM ev_0', '42501',
  title => 'SELECT on the logical table is enough, and not for a shard by itself');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
DROP SCHEMA select_test CASCADE;
