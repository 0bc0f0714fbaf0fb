-- Aggregates over shards on other servers: computed there in part, finished
-- here, with the results that a plain table gives.
--
-- postgres_fdw connects to this same database, so this file commits what it
-- makes, all of it in one schema, and drops that at the end.
SET client_min_messages = error;
DROP SCHEMA IF EXISTS remote_agg_test CASCADE;
CREATE SCHEMA remote_agg_test;
SET search_path = remote_agg_test, public;
SELECT no_plan();

\ir loopback.psql
SET enable_partitionwise_aggregate = on;
SET jit = off;

\ir helpers.psql

-- What a query has other servers execute.
CREATE FUNCTION sent(query text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT m[1] FROM regexp_matches(plan_text(query, 'VERBOSE, COSTS OFF'),
                                  '(?n)Remote SQL: (.*)$', 'g') m
$$;
-- Do they aggregate?
CREATE FUNCTION is_remote(query text) RETURNS bool LANGUAGE sql AS $$
  SELECT bool_and(s ~ '^SELECT .*(GROUP BY|(count|sum|min|max|bool_and|bit_and)\()')
    FROM sent(query) s
$$;

-- A query is written with {} for a table's name.
CREATE FUNCTION same(query text, tab text DEFAULT 'log') RETURNS bool LANGUAGE sql AS $$
  SELECT returned(replace(query, '{}', tab)) = returned(replace(query, '{}', 'plain'))
$$;
-- Tests: the results are right, and other servers do aggregate, or do not.
CREATE FUNCTION goes(query text, title text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEXT ok(is_remote(replace(query, '{}', 'log')), title || ': there');
  RETURN NEXT ok(same(query), title || ': the same');
END $$;
CREATE FUNCTION stays(query text, title text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEXT ok(NOT is_remote(replace(query, '{}', 'log')), title || ': here');
  RETURN NEXT ok(same(query), title || ': the same');
END $$;

-- Two local shards and four on the "other" server: one with its columns in
-- another order, one that is empty, and one with all of a kind.
CREATE TABLE plain (id int, g int, k smallint, i int, l bigint, f real, d double precision,
  n numeric, b bool, t text, day date, at timestamptz, bits bit(4), money numeric(8,2), iv interval,
  net inet);
CREATE FOREIGN TABLE log (id int, g int, k smallint, i int, l bigint, f real, d double precision,
  n numeric, b bool, t text, day date, at timestamptz, bits bit(4), money numeric(8,2), iv interval,
  net inet) SERVER shards OPTIONS (route 'round_robin');
CREATE TABLE far_1 (LIKE plain);
CREATE TABLE far_2 (net inet, t text, b bool, extra text, n numeric, d double precision, f real,
  l bigint, i int, k smallint, g int, id int, iv interval, money numeric(8,2), bits bit(4),
  at timestamptz, day date);
CREATE TABLE far_3 (LIKE plain);
CREATE TABLE far_4 (LIKE plain);
CREATE FOREIGN TABLE log_1 () INHERITS (log) SERVER loopback OPTIONS (table_name 'far_1');
CREATE TABLE log_2 () INHERITS (log);
CREATE FOREIGN TABLE log_3 (x int, t text, b bool, n numeric, d double precision, f real,
  l bigint, i int, k smallint, g int, id int, iv interval, money numeric(8,2), bits bit(4),
  at timestamptz, day date, net inet) SERVER loopback OPTIONS (table_name 'far_2');
ALTER FOREIGN TABLE log_3 DROP COLUMN x;
ALTER FOREIGN TABLE log_3 INHERIT log;
CREATE TABLE log_4 () INHERITS (log);
CREATE FOREIGN TABLE log_5 () INHERITS (log) SERVER loopback OPTIONS (table_name 'far_3');
CREATE FOREIGN TABLE log_6 () INHERITS (log) SERVER loopback OPTIONS (table_name 'far_4');

-- Floats are multiples of 1/8, whose sums are exact.
SELECT setseed(0.16);
INSERT INTO plain
SELECT g, r[1] * 7, r[2] * 9, CASE WHEN r[3] < 0.9 THEN (r[3] * 2e9)::int - 900000000 END,
       CASE WHEN r[4] < 0.9 THEN (r[4] * 4e18)::bigint END, floor(r[5] * 1000) / 8,
       CASE WHEN r[6] < 0.9 THEN floor(r[6] * 1e6) / 8 END, round((r[7] * 100)::numeric, 3),
       CASE WHEN r[8] < 0.7 THEN r[8] < 0.4 END,
       CASE WHEN r[9] < 0.9 THEN (ARRAY['a', 'B', 'b', 'ä', 'Z', '', 'x y'])[1 + r[9] * 6] END,
       date '2024-01-01' + (r[10] * 5)::int,
       timestamptz '2024-01-01 00:00Z' + r[11] * interval '3 days',
       (r[12] * 15)::int::bit(4), round((r[13] * 1000)::numeric, 2), r[1] * interval '1 day',
       ('10.0.0.' || (r[2] * 200)::int)::inet
  FROM (SELECT g, ARRAY(SELECT random() + g * 0 FROM generate_series(1, 13)) AS r
          FROM generate_series(1, 4000) g OFFSET 0) s;
INSERT INTO log_1 SELECT * FROM plain WHERE id % 5 = 0;
INSERT INTO log_2 SELECT * FROM plain WHERE id % 5 = 1;
INSERT INTO log_3 (id, g, k, i, l, f, d, n, b, t, day, at, bits, money, iv, net)
  SELECT * FROM plain WHERE id % 5 = 2;
INSERT INTO log_4 SELECT * FROM plain WHERE id % 5 = 3;
UPDATE plain SET g = NULL, t = NULL WHERE id % 5 = 4;
INSERT INTO log_6 SELECT * FROM plain WHERE id % 5 = 4;
ANALYZE log_1, log_2, log_3, log_4, log_5, log_6, plain;

--
-- what is sent
--

SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'the rows are the same');
SELECT bag_eq($$ SELECT sent('SELECT count(*) FROM log') $$,
  $$ SELECT 'SELECT count(*) FROM remote_agg_test.far_' || n FROM generate_series(1, 4) n $$,
  'count(*) is sent to each server');
SELECT is((SELECT string_agg(s, E'\n') FROM sent('SELECT g, sum(i) FILTER (WHERE b) FROM log
                                                  WHERE k > 3 GROUP BY g HAVING count(*) > 7') s
            WHERE s ~ 'far_2'),
  'SELECT g, sum(i) FILTER (WHERE b), count(*) FROM remote_agg_test.far_2 WHERE ((k > 3)) '
  'GROUP BY 1',
  'GROUP BY and FILTER are sent, HAVING is not');
SET enable_partitionwise_aggregate = off;
SELECT ok(NOT is_remote('SELECT count(*) FROM log'), 'not without enable_partitionwise_aggregate');
SET enable_partitionwise_aggregate = on;

SELECT goes('SELECT count(*), count(i), count(t) FROM {}', 'count');
SELECT goes('SELECT sum(k), sum(i), sum(f), sum(d), sum(k + i) FROM {}', 'sum');
SELECT goes('SELECT min(k), max(i), min(l), max(n), min(d), max(f), min(day),
                    max(at), min(iv), max(net) FROM {}',
  'min and max');
SELECT goes('SELECT bool_and(b), bool_or(b), every(i > 0) FROM {}', 'bool_and and bool_or');
SELECT goes('SELECT bit_and(k), bit_or(i), bit_and(bits), bit_or(bits) FROM {}', 'bits');
SELECT goes('SELECT avg(k), avg(i) FROM {}', 'avg of integers');
SELECT goes('SELECT round(avg(f)::numeric, 9), round(avg(d)::numeric, 9) FROM {}', 'avg of floats');
SELECT goes('SELECT round(stddev(f)::numeric, 6), round(var_pop(d)::numeric / 1e6, 6),
                    round(stddev_pop(d)::numeric, 6), round(var_samp(f)::numeric, 6),
                    round(variance(d)::numeric / 1e6, 6), round(stddev_samp(d)::numeric, 6)
               FROM {}',
  'deviations of floats');
SELECT goes('SELECT g, round(avg(d)::numeric, 6), round(stddev(d)::numeric, 4), sum(d), count(d)
               FROM {} GROUP BY g',
  'an average and a deviation that share a state');
SELECT goes('SELECT g, round(stddev(d)::numeric, 4), round(avg(d)::numeric, 6) FROM {} GROUP BY g',
  'the other way round');
SELECT goes('SELECT avg(i), avg(k), avg(d) FROM {} WHERE id < 0', 'no rows');
SELECT goes('SELECT sum(f) FROM {} WHERE id < 0 HAVING count(*) > 0', 'no rows at all');
SELECT goes('SELECT avg(i), sum(i), count(i), max(i), stddev(f) FROM {} WHERE id = 3', 'one row');
SELECT goes('SELECT g, count(*) FROM {} WHERE id < 0 GROUP BY g', 'no groups');
SELECT goes('SELECT g FROM {} GROUP BY g', 'groups alone');
SELECT goes('SELECT g, t, count(*) FROM {} GROUP BY g, t', 'two columns');
SELECT goes('SELECT g % 3, k + 1, sum(i) FROM {} GROUP BY 1, 2', 'expressions');
SELECT goes('SELECT sum(i) FROM {} GROUP BY g', 'a group that is not returned');
SELECT goes('SELECT g, g AS again, count(*) FROM {} GROUP BY 1, 2', 'a column twice');
SELECT goes('SELECT day, g * 2 + 1, max(i) - min(i), count(*) * 100 FROM {} GROUP BY day, g',
  'expressions of aggregates');
SELECT goes('SELECT g, k, count(*) FROM {} WHERE g = k GROUP BY g, k',
  'two columns that are equal');
SELECT goes('SELECT g, count(*) FROM {} WHERE g = 3 GROUP BY g', 'a group that is known');
SELECT goes('SELECT g FROM {} GROUP BY g HAVING max(i) > 0 AND avg(k) > 4 AND count(*) % 2 = 0',
  'HAVING');
SELECT goes('SELECT count(*) FILTER (WHERE g = 1), avg(i) FILTER (WHERE b),
                    round(stddev(d) FILTER (WHERE k > 3)::numeric, 4),
                    sum(f) FILTER (WHERE t = ''b''), max(i) FILTER (WHERE false) FROM {}',
  'FILTER');
SELECT goes('SELECT g, rank() OVER (ORDER BY count(*), g) FROM {} GROUP BY g',
  'a window over groups');
SELECT goes('SELECT DISTINCT max(k) FROM {} GROUP BY g', 'DISTINCT of groups');
SELECT goes('SELECT g, count(*) FROM {} GROUP BY g ORDER BY 2 DESC, 1 LIMIT 3',
  'ORDER BY and LIMIT');
SELECT goes('SELECT * FROM (SELECT g, max(i) AS m FROM {} GROUP BY g) s WHERE m > 0', 'a subquery');
SELECT goes('WITH c AS MATERIALIZED (SELECT g, sum(k) AS s FROM {} GROUP BY g)
             SELECT max(s) FROM c',
  'WITH');
SELECT goes('SELECT min(t), max(t COLLATE "default") FROM {}', 'min and max of text');

-- Not what the state of has no value, and not what postgres_fdw does not send.
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION plpgsql_twice(int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS 'BEGIN RETURN $1 * 2; END';
SELECT stays('SELECT sum(l), avg(l) FROM {}', 'bigint');
SELECT stays('SELECT sum(n), avg(n), count(*) FROM {}', 'numeric');
SELECT stays('SELECT stddev(i) FROM {}', 'deviations of integers');
SELECT stays('SELECT count(DISTINCT g) FROM {}', 'DISTINCT');
SELECT stays('SELECT g, array_agg(id ORDER BY id) FROM {} WHERE id < 100 GROUP BY g', 'ORDER BY');
SELECT stays('SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY i) FROM {}', 'ordered sets');
SELECT stays('SELECT count(*) FROM {} WHERE random() >= 0', 'a volatile condition');
SELECT stays('SELECT count(*) > 0, min(random()) < 1 FROM {}', 'a volatile argument');
SELECT stays('SELECT count(*), (random() * 0)::int FROM {} GROUP BY 2', 'a volatile group');
SELECT stays('SELECT sum(plpgsql_twice(i % 100)) FROM {}', 'a function of the user');
SELECT goes('SELECT sum(twice(i % 100)) FROM {}', 'a function of the user that is inlined');
SELECT stays('SELECT sum(k) FROM {} GROUP BY plpgsql_twice(g)', 'grouped by it');
SELECT stays('SELECT count(*) FILTER (WHERE plpgsql_twice(g) = 2) FROM {}', 'filtered by it');
SELECT stays('SELECT count(*) FROM {} WHERE plpgsql_twice(g) = 2', 'where it is');
SELECT stays('SELECT t COLLATE "C", count(*) FROM {} GROUP BY 1', 'a collation');
SELECT stays('SELECT max(t COLLATE "C") FROM {}', 'a collation of the argument');
SELECT stays('SELECT g, k, count(*) FROM {} GROUP BY ROLLUP (g, k)', 'grouping sets');
SELECT ok(NOT is_remote('SELECT tableoid, count(*) FROM log GROUP BY 1'), 'tableoid: here');
SELECT is((SELECT count(*) FROM (SELECT tableoid, count(*) FROM log GROUP BY 1) s), 5::bigint,
  'tableoid: the same');
SELECT is((SELECT count(*) FROM (SELECT log, count(*) FROM log GROUP BY 1) s), 4000::bigint,
  'whole rows');
SELECT stays('SELECT count(*), x FROM {}, (VALUES (1), (2)) v(x) WHERE g > x GROUP BY x',
  'a join with something else');

CREATE AGGREGATE product(double precision) (
  SFUNC = float8mul, STYPE = double precision, COMBINEFUNC = float8mul, INITCOND = '1');
SELECT stays('SELECT g, product(CASE WHEN id % 1000 = 7 THEN 2 ELSE 1 END) FROM {} GROUP BY g',
  'an aggregate of the user');

-- Infinity and NaN, beyond what can be squared.
BEGIN;
UPDATE plain SET d = 'Infinity' WHERE id = 5;
UPDATE plain SET d = 'NaN' WHERE id = 7;
CREATE TEMP TABLE odd AS SELECT * FROM plain WHERE id IN (5, 7);
SELECT is(returned('SELECT id, avg(d), sum(d), max(d), stddev(d) FROM odd GROUP BY id'),
  '{"(5,Infinity,Infinity,Infinity,)","(7,NaN,NaN,NaN,)"}', 'of a plain table');
ROLLBACK;
UPDATE far_1 SET d = 'Infinity' WHERE id = 5;
UPDATE plain SET d = 'Infinity' WHERE id = 5;
SELECT goes('SELECT avg(d), sum(d), stddev(d), var_pop(d) FROM {}', 'infinity');
SELECT goes('SELECT avg(d) FROM {}', 'an average of infinity');
UPDATE far_2 SET d = 'NaN' WHERE id = 7;
UPDATE plain SET d = 'NaN' WHERE id = 7;
SELECT goes('SELECT avg(d), sum(d), min(d), max(d), stddev(d) FROM {}', 'NaN');
UPDATE far_1 SET d = 5 WHERE id = 5;
UPDATE far_2 SET d = 7 WHERE id = 7;
UPDATE plain SET d = id WHERE id IN (5, 7);

-- EXPLAIN
SELECT ok(length(plan_text('SELECT g, avg(i), stddev(f) FROM log GROUP BY g HAVING avg(d) > 0',
                           'VERBOSE, COSTS OFF, FORMAT ' || format)) > 500, 'EXPLAIN in ' || format)
  FROM unnest('{text,xml,json,yaml}'::text[]) format;
SELECT ok(plan_text('SELECT g, avg(i) FROM log GROUP BY g', 'VERBOSE, COSTS OFF') ~
  '(?n)Foreign Scan\n *Output: [\w.]+, \(PARTIAL avg\(.*\)\)$',
  'EXPLAIN VERBOSE says what the columns are');
SELECT ok(plan_text('SELECT g, avg(i) FROM log GROUP BY g',
                    'ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF') ~
  'Foreign Scan \(actual rows=[78]', 'a row for each group comes back');

--
-- how it is executed
--

-- Asynchronously
ALTER SERVER loopback OPTIONS (ADD async_capable 'true');
SELECT ok(plan_text('SELECT g, count(*) FROM log GROUP BY g') ~ 'Async Foreign Scan', 'async');
SELECT goes('SELECT g, count(*), avg(i), max(t) FROM {} GROUP BY g', 'async');
SELECT goes('SELECT count(*) FROM {}', 'async, one row');
SELECT goes('SELECT x, (SELECT count(*) FROM {} WHERE g = x), (SELECT avg(k) FROM {} WHERE g < x)
               FROM generate_series(-1, 8) x', 'again and again, async');
ALTER SERVER loopback OPTIONS (DROP async_capable);
SELECT goes('SELECT x, (SELECT count(*) FROM {} WHERE g = x), s.*
               FROM generate_series(-1, 8) x,
                    LATERAL (SELECT k, avg(i) FROM {} WHERE g < x GROUP BY k) s',
  'again and again');
SELECT goes('SELECT g, count(*) FROM {} WHERE k > (SELECT 3) GROUP BY g',
  'a value from another plan');
SELECT stays('SELECT x, (SELECT count(*) FROM {} GROUP BY x) FROM generate_series(1, 2) x',
  'grouped by a parameter');

-- With workers for the local shards
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT goes('SELECT g, count(*), avg(i), max(t) FROM {} GROUP BY g', 'parallel');
SELECT goes('SELECT count(*), sum(k) FROM {}', 'parallel, one row');
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;

-- Sorted and hashed, with an estimate from the server
SET enable_hashagg = off;
SELECT goes('SELECT g, t, count(*) FROM {} GROUP BY g, t', 'sorted');
RESET enable_hashagg;
ALTER SERVER loopback OPTIONS (ADD use_remote_estimate 'true');
SELECT goes('SELECT g, count(*), avg(d) FROM {} WHERE i > 0 GROUP BY g', 'estimated by the server');
ALTER SERVER loopback OPTIONS (DROP use_remote_estimate);

-- Prepared
SET plan_cache_mode = force_generic_plan;
PREPARE q_log(int, int) AS SELECT g + $1, count(*) FILTER (WHERE k > $2), avg(i) FROM log
  WHERE i > $2 GROUP BY 1 HAVING count(*) > $1;
PREPARE q_plain(int, int) AS SELECT g + $1, count(*) FILTER (WHERE k > $2), avg(i) FROM plain
  WHERE i > $2 GROUP BY 1 HAVING count(*) > $1;
SELECT ok(is_remote('EXECUTE q_log(1, 2)'), 'a generic plan: there');
SELECT is(returned(format('EXECUTE q_log(%L, %L)', a, b)),
  returned(format('EXECUTE q_plain(%L, %L)', a, b)), format('a generic plan: %s, %s', a, b))
  FROM (VALUES (1, 2), (0, 7), (100, -5), (NULL, 1)) v(a, b);
PREPARE if_log(int) AS SELECT count(*), sum(i), avg(d) FROM log WHERE $1 > 3;
PREPARE if_plain(int) AS SELECT count(*), sum(i), avg(d) FROM plain WHERE $1 > 3;
SELECT ok(is_remote('EXECUTE if_log(1)'), 'a condition of parameters alone: there');
SELECT is(returned(format('EXECUTE if_log(%s)', n)), returned(format('EXECUTE if_plain(%s)', n)),
  'a condition of parameters alone: the same for ' || n) FROM unnest('{3, 4}'::int[]) n;
PREPARE groups(int) AS SELECT count(*) FROM log GROUP BY $1;
SELECT ok(NOT is_remote('EXECUTE groups(1)'), 'grouped by a parameter of the query: here');
SELECT is(returned('EXECUTE groups(1)'), '{(4000)}',
  'grouped by a parameter of the query: the same');
RESET plan_cache_mode;

-- A hash table, by what is and what is not its key
CREATE FOREIGN TABLE placed (id int, g int, i int) SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE far_placed_1 (id int, g int, i int);
CREATE TABLE far_placed_2 (id int, g int, i int);
CREATE TABLE placed_0 (CONSTRAINT place CHECK (shard_fdw.in_hash(3, 0, id))) INHERITS (placed);
CREATE FOREIGN TABLE placed_1 (CONSTRAINT place CHECK (shard_fdw.in_hash(3, 1, id)))
  INHERITS (placed) SERVER loopback OPTIONS (table_name 'far_placed_1');
CREATE FOREIGN TABLE placed_2 (CONSTRAINT place CHECK (shard_fdw.in_hash(3, 2, id)))
  INHERITS (placed) SERVER loopback OPTIONS (table_name 'far_placed_2');
INSERT INTO placed SELECT id, g, i FROM plain;
ANALYZE placed_0, placed_1, placed_2, far_placed_1, far_placed_2;
SELECT ok(is_remote('SELECT g, count(*), avg(i) FROM placed GROUP BY g'), 'a hash table: there');
SELECT ok(same('SELECT g, count(*), avg(i) FROM {} GROUP BY g', 'placed'),
  'a hash table: the same');
SELECT ok(same('SELECT id, count(*), avg(i), sum(i) FROM {} GROUP BY id', 'placed'), 'by its key');
SET enable_partitionwise_join = on;
ALTER SERVER loopback OPTIONS (ADD use_remote_estimate 'true');
SELECT ok(is_remote('SELECT a.g, count(*), avg(b.i) FROM placed a JOIN placed b USING (id)
                     GROUP BY a.g'),
  'joined shard by shard: there');
SELECT ok(same('SELECT a.g, count(*), avg(b.i) FROM {} a JOIN {} b USING (id) GROUP BY a.g',
               'placed'),
  'joined shard by shard: the same');
SELECT ok(same('SELECT a.g, count(*), count(b.i) FROM {} a LEFT JOIN {} b ON a.id = b.id AND b.g = 2
                 WHERE a.i > 0 GROUP BY a.g', 'placed'), 'joined shard by shard, outer');
RESET enable_partitionwise_join;
ALTER SERVER loopback OPTIONS (DROP use_remote_estimate);
SET plan_cache_mode = force_generic_plan;
PREPARE by_key(int) AS SELECT count(*), min(g) FROM placed WHERE id = $1;
SELECT is(array_agg(returned(format('EXECUTE by_key(%s)', g))::text ORDER BY g),
  array_agg(returned('SELECT count(*), min(g) FROM plain WHERE id = ' || g)::text ORDER BY g),
  'by a key')
  FROM generate_series(1, 12) g;
RESET plan_cache_mode;

-- One shard alone
CREATE FOREIGN TABLE lone (id int, g int, i int) SERVER shards;
CREATE TABLE far_lone (id int, g int, i int);
CREATE FOREIGN TABLE lone_0 () INHERITS (lone) SERVER loopback OPTIONS (table_name 'far_lone');
INSERT INTO far_lone SELECT id, g, i FROM plain;
ANALYZE lone_0;
SELECT ok(is_remote('SELECT g, count(*), avg(i) FROM lone GROUP BY g HAVING count(*) > 5'),
  'one shard: there');
SELECT ok(same('SELECT g, count(*), avg(i) FROM {} GROUP BY g HAVING count(*) > 5', 'lone'),
  'one shard: the same');

-- Shards that the value of a parameter leaves out are not asked
CREATE FOREIGN TABLE timed (at timestamptz NOT NULL, v int)
  SERVER shards OPTIONS (route 'round_robin', time_column 'at', maintenance 'manual');
CREATE TABLE far_timed_0 (at timestamptz NOT NULL, v int);
CREATE TABLE far_timed_1 (at timestamptz NOT NULL, v int);
CREATE FOREIGN TABLE timed_0 (CONSTRAINT shard_range CHECK (at IS NOT NULL AND
    at >= '2026-01-01 00:00Z'::timestamptz AND at <= '2026-01-02 00:00Z'::timestamptz))
  INHERITS (timed) SERVER loopback OPTIONS (table_name 'far_timed_0');
CREATE FOREIGN TABLE timed_1 (CONSTRAINT shard_range CHECK (at IS NOT NULL AND
    at >= '2026-01-03 00:00Z'::timestamptz AND at <= '2026-01-04 00:00Z'::timestamptz))
  INHERITS (timed) SERVER loopback OPTIONS (table_name 'far_timed_1');
CREATE TABLE timed_2 () INHERITS (timed);
INSERT INTO far_timed_0 SELECT timestamptz '2026-01-01 00:00Z' + g * interval '1 minute', g
  FROM generate_series(0, 1440) g;
INSERT INTO far_timed_1 SELECT timestamptz '2026-01-03 00:00Z' + g * interval '1 minute', g
  FROM generate_series(0, 1440) g;
INSERT INTO timed_2 SELECT timestamptz '2026-01-05 00:00Z' + g * interval '1 minute', g
  FROM generate_series(0, 99) g;
ANALYZE timed_0, timed_1, timed_2;
SET plan_cache_mode = force_generic_plan;
PREPARE since(timestamptz) AS SELECT count(*), avg(v), count(*) FILTER (WHERE v % 2 = 0)
  FROM timed WHERE at >= $1;
SELECT ok(is_remote('EXECUTE since(''2026-01-02'')'), 'gated shards: there');
CREATE VIEW timed_plain AS TABLE far_timed_0 UNION ALL TABLE far_timed_1 UNION ALL TABLE timed_2;
SELECT is(returned(format('EXECUTE since(%L)', at)),
  returned(format('SELECT count(*), avg(v), count(*) FILTER (WHERE v %% 2 = 0)
                     FROM timed_plain WHERE at >= %L', at)),
  'gated shards, since ' || at)
  FROM unnest('{2026-01-01, 2026-01-03 23:50Z, 2026-02-01}'::timestamptz[]) at;
SELECT matches(plan_text('EXECUTE since(''2026-01-03 23:50Z'')',
                         'ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF'),
  'Gate: closed.*Foreign Scan \(actual',
  'gated shards: one server is not asked');
RESET plan_cache_mode;

--
-- who may see what
--

-- A view with a barrier, a policy, and a function that tells.
CREATE TABLE told (g int);
CREATE FUNCTION tell(g int) RETURNS bool LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
  INSERT INTO told VALUES (g);
  RETURN true;
END $$;
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM log WHERE g = 2;
SELECT goes('SELECT k, count(*) FROM {} WHERE g = 2 GROUP BY k', 'without a barrier');
SELECT is(returned('SELECT k, count(*) FROM barrier WHERE tell(g) GROUP BY k'),
          returned('SELECT k, count(*) FROM plain WHERE g = 2 GROUP BY k'),
  'a barrier and a function: the same');
SELECT results_eq('SELECT DISTINCT g FROM told', 'VALUES (2)',
  'a barrier and a function, which sees no more');
TRUNCATE told;

DO $$ BEGIN
  EXECUTE format('CREATE USER MAPPING FOR shard_reader SERVER loopback
                  OPTIONS (user %L, password_required ''false'')', current_user);
END $$;
GRANT USAGE ON SCHEMA remote_agg_test TO shard_reader;
GRANT SELECT ON log, plain TO shard_reader;
GRANT SELECT, INSERT ON told TO shard_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA remote_agg_test TO shard_reader;
SET ROLE shard_reader;
SELECT ok(is_remote('SELECT g, count(*) FROM log GROUP BY g'), 'another role: there');
SELECT ok(same('SELECT g, count(*) FROM {} GROUP BY g'), 'another role: the same');
RESET ROLE;
CREATE VIEW owned AS SELECT * FROM log;
REVOKE SELECT ON log FROM shard_reader;
GRANT SELECT ON owned TO shard_reader;
DROP USER MAPPING FOR shard_reader SERVER loopback;
SET ROLE shard_reader;
SELECT is(returned('SELECT g, count(*) FROM owned GROUP BY g'),
  returned('SELECT g, count(*) FROM plain GROUP BY g'),
  'a view reads as its owner');
RESET ROLE;

--
-- random queries
--

CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';
CREATE FUNCTION one_of(VARIADIC a text[]) RETURNS text LANGUAGE sql VOLATILE
AS 'SELECT a[1 + pick(cardinality(a))]';
CREATE FUNCTION condition() RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT one_of('g = ' || pick(8), 'k > ' || pick(9), 'i % 7 = ' || pick(3), 'b', 'NOT b',
    't IS NULL', 't = ''b''', 'id < ' || pick(4000), 'day >= date ''2024-01-02''', 'd > f',
    'g IN (1, 2, 5)', 'id < 0', 'f BETWEEN 20 AND 90')
$$;
CREATE FUNCTION aggregate() RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT CASE pick(5)
    WHEN 0 THEN one_of('count(*)', 'count(t)', 'count(i)')
    WHEN 1 THEN format('%s(%s)', one_of('min', 'max'),
                       one_of('k', 'i', 'l', 'f', 'd', 'n', 'day', 'at', 'money', 'id + k', 't'))
    WHEN 2 THEN format('sum(%s)', one_of('k', 'i', 'f', 'd', 'k * i::bigint', 'id - g'))
    WHEN 3 THEN one_of('bool_and(b)', 'bool_or(b)', 'bit_and(i)', 'bit_or(k)', 'every(g > 0)')
    ELSE format('%s(%s)', one_of('avg', 'avg', 'stddev', 'var_pop', 'avg'),
                one_of('f', 'd', 'f', 'd', 'k', 'i', 'n')) END
      || CASE WHEN pick(4) = 0 THEN format(' FILTER (WHERE %s)', condition()) ELSE '' END
$$;
-- Averages and deviations of floats are rounded, but first brought off the middle
-- between two floats.
CREATE FUNCTION column_of(aggregate text) RETURNS text LANGUAGE sql AS $$
  SELECT CASE WHEN aggregate ~ '^(avg|stddev|var_pop)'
              THEN format('((%s)::float8 * 0.73105857863)::float4', aggregate)
              ELSE aggregate END
$$;
CREATE FUNCTION differ(seed float8, queries int, OUT wrong text, OUT remote int)
LANGUAGE plpgsql AS $$
DECLARE
  q text;
  keys text[];
  got text[];
  wanted text[];
BEGIN
  PERFORM setseed(seed);
  remote := 0;
  FOR i IN 1 .. queries LOOP
    PERFORM set_config('enable_hashagg', one_of('on', 'on', 'off'), false),
            set_config('enable_sort', one_of('on', 'on', 'off'), false);
    keys := string_to_array(one_of('', '', 'g', 't', 'g; b', 'day', 'g % 3; k', 'i > 0; g + k',
                                   'f > 50', 'bits', 'net; g', 'money < 500'), '; ');
    SELECT 'SELECT ' || array_to_string(keys || array_agg(column_of(aggregate())), ', ')
           || ' FROM {}' INTO q FROM generate_series(1, 1 + pick(4));
    IF pick(2) = 0 THEN
      q := q || ' WHERE ' || condition();
    END IF;
    q := q || coalesce((SELECT ' GROUP BY ' || string_agg(n::text, ', ')
                          FROM generate_subscripts(keys, 1) n), '');
    IF pick(3) = 0 THEN
      q := q || ' HAVING ' || one_of('count(*) > 100', 'max(i) > 10', 'min(k) < 3 OR bool_or(b)',
                                     'sum(f) > 1000');
    END IF;
    got := returned(replace(q, '{}', 'log'));
    wanted := returned(replace(q, '{}', 'plain'));
    IF got IS DISTINCT FROM wanted THEN
      wrong := q;
      RETURN;
    END IF;
    remote := remote + coalesce(is_remote(replace(q, '{}', 'log')), false)::int;
  END LOOP;
  RESET enable_hashagg;
  RESET enable_sort;
END $$;
CREATE TABLE outcome AS SELECT * FROM differ(0.42, 120);
SELECT is(wrong, NULL, 'random queries') FROM outcome;
SELECT cmp_ok(remote, '>', 60, 'random queries, many of which other servers aggregate')
  FROM outcome;

SET search_path = public;
DROP SCHEMA remote_agg_test CASCADE;
SELECT * FROM finish();
