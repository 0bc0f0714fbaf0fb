-- The hash route: placement, pruning, joins and aggregates shard by shard.
--
-- Queries are compared with the same query on a plain table.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
SET LOCAL jit = off;
CREATE SCHEMA hash_test;
SET LOCAL search_path = hash_test, public;

\ir helpers.psql

-- The relations that a plan scans, and those it scans when run.
CREATE FUNCTION plan_nodes(query text, options text) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE format('EXPLAIN (FORMAT JSON, %s) %s', options, query) INTO plan;
  RETURN QUERY SELECT jsonb_path_query(plan, 'strict $.** ? (exists (@."Node Type"))');
END $$;
CREATE FUNCTION scanned(query text) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(string_agg(DISTINCT n->>'Relation Name', ' ' ORDER BY n->>'Relation Name'),
    'none')
    FROM plan_nodes(query, 'VERBOSE off') n
   WHERE n ? 'Relation Name' AND n->>'Node Type' <> 'ModifyTable'
$$;
CREATE FUNCTION executed(query text) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(string_agg(DISTINCT n->>'Relation Name', ' ' ORDER BY n->>'Relation Name'),
    'none')
    FROM plan_nodes(query, 'ANALYZE, TIMING off') n
   WHERE n ? 'Relation Name' AND n->>'Node Type' <> 'ModifyTable' AND (n->>'Actual Loops')::int > 0
$$;
CREATE FUNCTION plan_has(query text, node text) RETURNS bool LANGUAGE sql AS $$
  SELECT bool_or(n->>'Node Type' = node OR n->>'Node Type' || ' ' || (n->>'Partial Mode') = node)
    FROM plan_nodes(query, 'VERBOSE off') n
$$;

-- The rows of a query, sorted.
CREATE FUNCTION rows_of(query text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  result text[];
BEGIN
  EXECUTE format('SELECT array_agg(whole::text ORDER BY whole::text COLLATE "C") FROM (%s OFFSET '
                 '0) whole', query) INTO result;
  RETURN coalesce(result, '{}');
END $$;

--
-- Creating hash tables
--

CREATE TABLE orders_template (order_id int PRIMARY KEY, customer int, item text);
CREATE FOREIGN TABLE orders (order_id int, customer int, item text)
  SERVER shards OPTIONS (shards '6', route 'hash', key 'order_id',
    template 'hash_test.orders_template');
SELECT results_eq(
  $$ SELECT conrelid::regclass::text, pg_get_constraintdef(oid), convalidated FROM pg_constraint
      WHERE conrelid::regclass::text ~ '^orders_\d' AND contype = 'c' ORDER BY 1 $$,
  $$ SELECT 'orders_' || r, format('CHECK (shard_fdw.in_hash(6, %s, order_id))', r), true
       FROM generate_series(0, 5) r $$,
  'every shard says which hashes it holds');
SELECT is((SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'orders'::regclass),
  '{route=hash,key=order_id}', 'route and key are kept as options');

SELECT fails(
  format('CREATE FOREIGN TABLE bad (id int, j json, g int GENERATED ALWAYS AS (id) STORED) SERVER '
         'shards OPTIONS (%s)', options),
  state, message, title => options) FROM (VALUES
  ($$ route 'hash' $$, 'HV024', 'route "hash" requires option "key"'),
  ($$ key 'id', route 'session' $$, 'HV024', 'option "key" requires route "hash"'),
  ($$ route 'hash', key 'nobody' $$, '42703',
    'column "nobody" of the key of foreign table "bad" does not exist'),
  ($$ route 'hash', key 'id, id' $$, 'HV024', 'invalid value for option "key": "id, id"'),
  ($$ route 'hash', key '' $$, 'HV024', 'invalid value for option "key": ""'),
  ($$ route 'hash', key 'id,' $$, 'HV024', 'invalid value for option "key": "id,"'),
  ($$ route 'hash', key 'j' $$, '42883',
    'could not identify an extended hash function for type json'),
  ($$ route 'hash', key 'g' $$, '42P17', 'cannot use column "g" in a key'),
  ($$ route 'hash', key 'tableoid' $$, '42P17', 'cannot use column "tableoid" in a key')
 ) t(options, state, message);
SELECT is((SELECT count(*) FROM pg_class WHERE relname ~ '^bad'), 0::bigint,
  'nothing is left of what failed');

CREATE SERVER by_hash FOREIGN DATA WRAPPER shard_fdw OPTIONS (route 'hash');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER by_hash OPTIONS (shards ''2'')', 'HV00J',
  'foreign table "bad" has route "hash" but no key',
  title => 'the route may be the server''s, the key may not be missing');
CREATE FOREIGN TABLE of_server (id int) SERVER by_hash OPTIONS (shards '2', key 'id');
INSERT INTO of_server SELECT generate_series(1, 100);
SELECT is((SELECT count(*) FROM of_server_0 WHERE NOT shard_fdw.in_hash(2, 0, id)), 0::bigint,
  'the server''s route is used');

SELECT fails('ALTER FOREIGN TABLE orders DROP COLUMN order_id', '42P16',
  'cannot drop column "order_id" because it is part of the key of foreign table "orders"',
  title => 'a column of the key cannot be dropped');
SELECT fails('ALTER FOREIGN TABLE orders OPTIONS (SET key ''nobody'')', '42703',
  title => 'nor the key be one that is not there');
SAVEPOINT s;
ALTER FOREIGN TABLE orders RENAME order_id TO id;
INSERT INTO orders VALUES (1);
SELECT is(scanned('SELECT * FROM orders WHERE id = 1'), shard_fdw.last_shard()::text,
  'the key follows a column that is renamed');
ROLLBACK TO s;

--
-- in_hash()
--

SELECT fails('SELECT shard_fdw.in_hash(' || args || ')', state, message,
  title => 'in_hash(' || args || ')') FROM (VALUES
  ('0, 0, 1', '22023', 'modulus must be greater than zero'),
  ('-1, 0, 1', '22023', 'modulus must be greater than zero'),
  ('4, 4, 1', '22023', 'remainder must be at least zero and less than the modulus'),
  ('4, -1, 1', '22023', 'remainder must be at least zero and less than the modulus'),
  ('NULL, 0, 1', '22004', 'modulus and remainder must not be null'),
  ('4, NULL, 1', '22004', 'modulus and remainder must not be null'),
  ('4, 0, ''{}''::json', '42883', 'could not identify an extended hash function for type json'),
  ('4, 0, VARIADIC ARRAY[1]', '0A000', 'in_hash() does not take VARIADIC with an array')
 ) t(args, state, message);

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE point2 AS (x int, y int);
CREATE TABLE native (id int, i2 int2, i8 int8, n numeric, t text, c char(5), v varchar, u uuid,
  at timestamptz,
  d date, b bytea, m mood, p positive, a int[], r point2, k text COLLATE "C", bo boolean, ip inet,
  js jsonb);
INSERT INTO native
  SELECT CASE WHEN g % 10 > 0 THEN g END, g, g * 1e10, g / 3.0, CASE WHEN g % 7 > 0 THEN 't'
    || g END, g, g,
         md5(g::text)::uuid, to_timestamp(g * 1e6), '2000-01-01'::date + g,
           decode(md5(g::text), 'hex'),
         (enum_range(NULL::mood))[1 + g % 3], g, ARRAY[g, g + 1], (g, g)::point2, 'c' || g,
           g % 2 = 0,
         ('10.0.0.' || g)::inet, jsonb_build_object('g', g)
    FROM generate_series(1, 200) g;
-- A column of "native" with its type, as in CREATE TABLE.
CREATE FUNCTION column_def(col name) RETURNS text LANGUAGE sql AS $$
  SELECT format('%I %s', col, format_type(atttypid, atttypmod)) ||
         CASE WHEN attcollation <> 0 THEN ' COLLATE ' || attcollation::regcollation ELSE '' END
    FROM pg_attribute WHERE attrelid = 'native'::regclass AND attname = col
$$;

-- Rows that native partitioning by the column, in_hash() or a hash table puts elsewhere.
CREATE FUNCTION misplaced(col name) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  result bigint;
BEGIN
  EXECUTE format('CREATE TABLE part (%s, rest int) PARTITION BY HASH (%I)', column_def(col), col);
  EXECUTE format('CREATE FOREIGN TABLE logical (%s, rest int) SERVER shards OPTIONS (shards '
                 '''5'', route ''hash'', key %L)',
                 column_def(col), quote_ident(col));
  FOR r IN 0..4 LOOP
    EXECUTE format('CREATE TABLE part_%s PARTITION OF part FOR VALUES WITH (MODULUS 5, REMAINDER '
                   '%1$s)', r);
  END LOOP;
  EXECUTE format('INSERT INTO part SELECT %I, i2 FROM native', col);
  EXECUTE format('INSERT INTO logical SELECT %I, i2 FROM native', col);
  EXECUTE format($q$
    SELECT (SELECT count(*) FROM part p JOIN logical l USING (rest)
             WHERE replace(p.tableoid::regclass::text, 'part', '')
               <> replace(l.tableoid::regclass::text, 'logical', ''))
         + (SELECT count(*) FROM part, generate_series(0, 4) remainder
             WHERE shard_fdw.in_hash(5, remainder, %1$I)
               <> satisfies_hash_partition('part'::regclass, 5, remainder, %1$I))
         + 200 - (SELECT count(*) FROM logical) $q$, col) INTO result;
  DROP TABLE part;
  DROP FOREIGN TABLE logical CASCADE;
  RETURN result;
END $$;
SELECT is(misplaced(attname), 0::bigint, 'placed as by native partitioning: '
  || column_def(attname))
  FROM pg_attribute WHERE attrelid = 'native'::regclass AND attnum > 0 ORDER BY attnum;

-- Several columns, with collations that differ.
CREATE TABLE multi (t text, k text COLLATE "C", i int) PARTITION BY HASH (k, i, t);
CREATE FOREIGN TABLE several (t text, k text COLLATE "C", i int)
  SERVER shards OPTIONS (shards '7', route 'hash', key 'k, i, t');
INSERT INTO several SELECT t, k, id FROM native;
SELECT is((SELECT count(*) FROM several, generate_series(0, 6) remainder
            WHERE satisfies_hash_partition('multi'::regclass, 7, remainder, k, i, t)
              <> (tableoid::regclass::text = 'several_' || remainder)),
  0::bigint, 'a key of several columns, nulls among them');

-- A partition becomes a shard.
CREATE TABLE old (order_id int PRIMARY KEY, customer int, item text) PARTITION BY HASH (order_id);
SELECT format('CREATE TABLE old_%s PARTITION OF old FOR VALUES WITH (MODULUS 6, REMAINDER %1$s)', r)
  FROM generate_series(0, 5) r \gexec
INSERT INTO old SELECT g, g % 50, 'old ' || g FROM generate_series(1, 3000) g;
CREATE FOREIGN TABLE taken_over (order_id int NOT NULL, customer int, item text)
  SERVER shards OPTIONS (route 'hash', key 'order_id');
SELECT fails('INSERT INTO taken_over VALUES (1)', '55000',
  'foreign table "taken_over" has no shards', title => 'no shards');
CREATE TABLE no_place (order_id int NOT NULL, customer int, item text);
ALTER TABLE no_place INHERIT taken_over;
SELECT fails('INSERT INTO taken_over VALUES (1)', '55000',
  'no shard of foreign table "taken_over" has a place in its hash route',
  title => 'no shard that has a place');
DROP TABLE no_place;
SELECT format(c, r) FROM generate_series(0, 5) r, unnest(ARRAY[
  'ALTER TABLE old DETACH PARTITION old_%s',
  'ALTER TABLE old_%s ADD CHECK (shard_fdw.in_hash(6, %1$s, order_id))',
  'ALTER TABLE old_%s INHERIT taken_over']) WITH ORDINALITY u(c, o) ORDER BY r, o \gexec
SELECT is((SELECT count(*) FROM taken_over), 3000::bigint,
  'detached partitions become shards, and no row is moved');
INSERT INTO taken_over SELECT g, g % 50, 'new ' || g FROM generate_series(3001, 4000) g;
SELECT is(scanned('SELECT * FROM taken_over WHERE order_id = ' || id),
  (SELECT tableoid::regclass::text FROM taken_over WHERE order_id = id),
  'detached partitions become shards, and no row is moved, and queries find what is there')
  FROM unnest(ARRAY[17, 3017]) id;

--
-- Routing, and what keeps rows where they belong
--

-- The shards of orders that rows with these ids are in.
CREATE FUNCTION home(VARIADIC ids int[]) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(DISTINCT 'orders_' || r, ' ' ORDER BY 'orders_' || r)
    FROM unnest(ids) id, generate_series(0, 5) r WHERE shard_fdw.in_hash(6, r, id)
$$;
\set all 'orders_0 orders_1 orders_2 orders_3 orders_4 orders_5'

INSERT INTO orders SELECT g, g % 100, 'item ' || g FROM generate_series(1, 5000) g;
SELECT is((SELECT count(*) FROM orders WHERE tableoid::regclass::text <> home(order_id)), 0::bigint,
  'INSERT ... SELECT puts rows where they belong');
INSERT INTO orders VALUES (5001, 1, 'one');
SELECT is(shard_fdw.last_shard()::text, home(5001), 'so does a single row');
INSERT INTO orders VALUES (5002, 1, 'two'), (5003, 1, 'three'), (5004, 1, 'four')
  RETURNING order_id \g /dev/null
COPY orders FROM stdin;
5005	2	copied
5006	2	copied
5007	2	copied
\.
CREATE TABLE plain AS SELECT * FROM orders;
ALTER TABLE plain ADD PRIMARY KEY (order_id);
SELECT is((SELECT count(*) FROM orders WHERE tableoid::regclass::text = home(order_id)),
  5007::bigint, 'so do VALUES and COPY');
SELECT fails('INSERT INTO orders VALUES (5001)', '23505',
  title => 'a key is unique over all shards');
SELECT fails('INSERT INTO orders_0 SELECT order_id + 10000 FROM orders_1', '23514',
  'new row for relation "orders_0" violates check constraint "shard_hash"',
  title => 'a direct insert into the wrong shard fails');
SELECT fails(
  'UPDATE orders SET order_id = order_id + 10000 WHERE tableoid = ''orders_0''::regclass', '23514',
  'new row for relation "orders_0" violates check constraint "shard_hash"',
  title => 'an update that would move a row fails');
SET LOCAL shard_fdw.shard = 0;
SELECT fails('INSERT INTO orders SELECT 20000 + g FROM generate_series(1, 10) g', '23514',
  title => 'a pinned session cannot put a row into the wrong shard');
SET LOCAL shard_fdw.shard = -1;
SELECT is((SELECT n->>'Route' FROM plan_nodes('INSERT INTO orders VALUES (1)', 'VERBOSE off') n
    WHERE n ? 'Route'), 'hash',
  'EXPLAIN shows the route');
SELECT is((SELECT count(*) FROM shard_fdw.leases WHERE logical = 'orders'::regclass), 0::bigint,
  'there are no leases');

SAVEPOINT s;
CREATE FUNCTION change_key() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN NEW.order_id := NEW.order_id + 10001; RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON orders_0 FOR EACH ROW EXECUTE FUNCTION change_key();
SELECT fails('INSERT INTO orders SELECT 20000 + g FROM generate_series(1, 100) g', '23514',
  title => 'a trigger of a shard cannot smuggle a row in');
DROP TRIGGER t ON orders_0;
CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION change_key();
INSERT INTO orders VALUES (1, 0, 'moved');
SELECT is(shard_fdw.last_shard()::text, home(10002),
  'a trigger of the logical table changes the key before the row is routed');
ROLLBACK TO s;

-- Other columns, and a constraint more.
SAVEPOINT s;
DROP TABLE orders_2;
CREATE TABLE other_layout (x int, item text, customer int CHECK (customer < 1000), order_id int
  PRIMARY KEY, more int DEFAULT 7,
  CHECK (shard_fdw.in_hash(6, 2, order_id)));
ALTER TABLE other_layout DROP x;
ALTER TABLE other_layout INHERIT orders;
INSERT INTO orders SELECT * FROM plain WHERE shard_fdw.in_hash(6, 2, order_id);
SELECT is(rows_of('SELECT * FROM orders'), rows_of('SELECT * FROM plain'),
  'a shard of another layout takes its rows');
SELECT fails('INSERT INTO orders SELECT g, 1000 FROM generate_series(10001, 10030) g', '23514',
  title => 'a shard of another layout takes its rows, and its other constraints are checked');
ROLLBACK TO s;

-- Missing, doubled, sealed, not validated.
SAVEPOINT s;
DROP TABLE orders_3;
SELECT fails('INSERT INTO orders SELECT generate_series(10001, 10050)', '23514',
  'no shard of foreign table "orders" takes the row',
  'Its key (order_id) has the hash remainder 3 of 6.',
  title => 'a missing shard');
SELECT is(rows_of('SELECT * FROM orders WHERE order_id < 100'),
  rows_of('SELECT * FROM plain WHERE order_id < 100 AND NOT shard_fdw.in_hash(6, 3, order_id)'),
  'a missing shard: queries are right');
SELECT is(scanned(format('SELECT * FROM orders WHERE order_id = %s', id)), 'none',
  'a missing shard: a key of the missing shard is nowhere')
  FROM (SELECT min(order_id) AS id FROM plain WHERE shard_fdw.in_hash(6, 3, order_id)) t;
SELECT fails('SELECT shard_fdw.create_shards(''orders'', 2)', '55000',
  'cannot add 2 shards to foreign table "orders"',
  title => 'no more shards can be added than are missing');
SELECT is((SELECT string_agg(s::text, ',') FROM shard_fdw.create_shards('orders', 1) s), 'orders_6',
  'the missing shard is created');
INSERT INTO orders SELECT * FROM plain WHERE shard_fdw.in_hash(6, 3, order_id);
SELECT is(rows_of('SELECT * FROM orders'), rows_of('SELECT * FROM plain'),
  'the missing shard is created, and takes its rows');
SELECT fails('SELECT shard_fdw.create_shards(''orders'', 1)', '55000',
  title => 'then none is missing');
ROLLBACK TO s;

SAVEPOINT s;
CREATE TABLE twin (LIKE orders_template INCLUDING ALL, CHECK (shard_fdw.in_hash(6, 3, order_id)));
INSERT INTO twin SELECT order_id, 1, 'twin' FROM plain WHERE shard_fdw.in_hash(6, 3, order_id)
  AND order_id < 500;
ALTER TABLE twin INHERIT orders;
CREATE VIEW with_twin AS SELECT * FROM plain UNION ALL SELECT * FROM twin;
SELECT is(scanned('SELECT * FROM orders WHERE order_id = 1'), :'all' || ' twin',
  'a doubled remainder: nothing is pruned');
SET LOCAL enable_partitionwise_aggregate = on;
SET LOCAL enable_partitionwise_join = on;
SELECT is(rows_of('SELECT order_id, count(*) FROM orders GROUP BY order_id'),
  rows_of('SELECT order_id, count(*) FROM with_twin GROUP BY order_id'),
  'a doubled remainder: nothing is pruned, groups are right');
SELECT is(rows_of('SELECT count(*) FROM orders a JOIN orders b USING (order_id)'),
  rows_of('SELECT count(*) FROM with_twin a JOIN with_twin b USING (order_id)'),
  'a doubled remainder: nothing is pruned, joins are right');
SELECT lives_ok('INSERT INTO orders SELECT generate_series(10001, 10050)',
  'a doubled remainder: nothing is pruned, and inserts go on');
ROLLBACK TO s;

SAVEPOINT s;
SELECT shard_fdw.seal('orders_4') \g /dev/null
SELECT fails('INSERT INTO orders SELECT generate_series(10001, 10050)', '55000',
  'shard "orders_4" of foreign table "orders" is sealed',
  'It holds the rows whose key (order_id) has the hash remainder 4 of 6.',
  title => 'a sealed shard');
SELECT is(scanned(format('SELECT * FROM orders WHERE order_id = %s', id)), 'orders_4',
  'a sealed shard is still where its rows are')
  FROM (SELECT min(order_id) AS id FROM plain WHERE shard_fdw.in_hash(6, 4, order_id)) t;
ROLLBACK TO s;

SAVEPOINT s;
ALTER TABLE orders_4 DROP CONSTRAINT shard_hash;
INSERT INTO orders_4 SELECT order_id + 1000000, 1, 'stray' FROM plain LIMIT 100;
ALTER TABLE orders_4 ADD CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(6, 4, order_id)) NOT VALID;
SELECT is((SELECT count(*) FROM orders o JOIN orders_4 s ON o.order_id = s.order_id
    WHERE s.item = 'stray' AND scanned('SELECT * FROM orders WHERE order_id = ' || s.order_id)
      <> :'all'),
  0::bigint, 'a constraint that is not valid is not trusted');
SELECT lives_ok('INSERT INTO orders SELECT generate_series(10001, 10050)',
  'a constraint that is not valid is not trusted, though inserts follow it');
SELECT fails('ALTER TABLE orders_4 VALIDATE CONSTRAINT shard_hash', '23514',
  title => 'a constraint that is not valid is not trusted, and it cannot be validated');
ALTER TABLE orders_4 DROP CONSTRAINT shard_hash;
SELECT fails('INSERT INTO orders SELECT generate_series(10101, 10150)', '23514',
  title => 'without one the shard takes nothing');
SELECT is((SELECT count(*) FROM orders WHERE item = 'stray'), 100::bigint,
  'without one the shard takes nothing, but is read');
ROLLBACK TO s;

-- The template has a place of its own.
SAVEPOINT s;
CREATE FOREIGN TABLE copied (order_id int, customer int, item text)
  SERVER shards OPTIONS (shards '3', route 'hash', key 'order_id', template 'hash_test.orders_5');
SELECT results_eq(
  $$ SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid::regclass::text ~ '^copied_'
    AND contype = 'c' ORDER BY 1 $$,
  $$ SELECT format('CHECK (shard_fdw.in_hash(3, %s, order_id))', r) FROM generate_series(0, 2) r $$,
  'a copy of a shard has a place of its own');
ROLLBACK TO s;

--
-- Pruning
--

ANALYZE orders, plain;
SELECT is(scanned('SELECT * FROM orders WHERE ' || condition), wanted, condition) FROM (VALUES
  ('order_id = 42', home(42)),
  ('42 = order_id', home(42)),
  ('order_id IN (1, 2)', home(1, 2)),
  ('order_id = ANY (ARRAY[7, 8, NULL])', home(7, 8)),
  ('order_id = 1 OR order_id = 2', home(1, 2)),
  ('(order_id = 1 AND customer = 3) OR order_id = 2', home(1, 2)),
  ('order_id = 42 AND customer = 42', home(42)),
  ('order_id = 42 AND order_id = 43', 'none'),
  ('order_id = 42::bigint', home(42)),
  ('order_id = 42::smallint', home(42)),
  ('order_id = 40 + 2', home(42)),
  ('order_id = NULL', 'none'),
  ('order_id = 42.0', :'all'),
  ('order_id::bigint = 42', :'all'),
  ('order_id <> 42', :'all'),
  ('order_id < 3', :'all')) t(condition, wanted);
SELECT is(rows_of('SELECT * FROM orders WHERE ' || condition), rows_of('SELECT * FROM plain WHERE '
    || condition), 'rows: ' || condition)
  FROM unnest(ARRAY['order_id = 42', 'order_id IN (1, 2, 99999)', 'order_id = 1 OR customer = 2',
      'order_id = 42::bigint',
    'order_id = 9999999999', 'order_id = 42.0', 'order_id = 42.5', 'order_id::text = ''42''',
    'order_id IS NULL', 'order_id = 42 AND order_id = 43',
    'NOT (order_id = 42) AND order_id < 50', 'order_id = (SELECT 42)',
    'order_id IN (SELECT customer FROM plain WHERE customer < 5)',
    'order_id = ANY ((SELECT array_agg(g) FROM generate_series(1, 7) g)::int[])',
    'order_id = length(item)',
    '(order_id, customer) IN ((1, 1), (2, 3), (104, 4))',
    'order_id = current_setting(''server_version_num'')::int % 1000']) condition;
SELECT is(scanned('DELETE FROM orders WHERE order_id = 42'), home(42), 'DELETE');
SELECT is(scanned('UPDATE orders SET item = ''x'' WHERE order_id = 42'), home(42), 'UPDATE');
SELECT is(scanned('SELECT * FROM orders WHERE order_id = 42 FOR UPDATE'), home(42), 'FOR UPDATE');
SELECT is(scanned('DELETE FROM orders WHERE order_id = 42 AND order_id = 43'), 'none',
  'DELETE of nothing');
SELECT is(scanned('SELECT * FROM orders a JOIN orders b USING (order_id) WHERE a.order_id = 42'),
  home(42), 'both sides of a join');
SELECT is(scanned('SELECT * FROM (SELECT * FROM orders UNION ALL SELECT * FROM orders) o WHERE '
                  'order_id = 42'), home(42), 'below UNION ALL');
SELECT is(scanned('SELECT min(order_id), max(customer) FROM orders WHERE order_id = 42'), home(42),
  'min() and max()');
SELECT is(scanned('SELECT * FROM several WHERE k = ''c17'' AND i = 17 AND t = ''t17'''),
  (SELECT tableoid::regclass::text FROM several WHERE k = 'c17'), 'all columns of a key');
SELECT is(array_length(string_to_array(scanned('SELECT * FROM several WHERE k = ''c17'' AND i = 17'), ' '), 1), 7, 'not all columns of a key');
SELECT is(rows_of('SELECT * FROM several WHERE k = ''c20'' AND i IS NULL AND t = ''t20'''),
  ARRAY['(t20,c20,)'], 'a null in the key');
SET LOCAL enable_partition_pruning = off;
SELECT is(scanned('SELECT * FROM orders WHERE order_id = 42'), :'all',
  'enable_partition_pruning = off');
SET LOCAL enable_partition_pruning = on;

-- Values that are known later.
SET LOCAL plan_cache_mode = force_generic_plan;
PREPARE by_id (int) AS SELECT * FROM orders WHERE order_id = $1;
PREPARE by_bigint (bigint) AS SELECT * FROM orders WHERE order_id = $1;
PREPARE by_numeric (numeric) AS SELECT * FROM orders WHERE order_id = $1;
PREPARE by_array (int[]) AS SELECT * FROM orders WHERE order_id = ANY ($1);
PREPARE by_key (text, int, text) AS SELECT * FROM several WHERE k = $1 AND i = $2 AND t = $3;
PREPARE lock_id (int) AS SELECT * FROM orders WHERE order_id = $1 FOR UPDATE;
PREPARE update_id (int) AS UPDATE orders SET item = 'changed' WHERE order_id = $1;
PREPARE delete_id (int) AS DELETE FROM orders WHERE order_id = $1;
SELECT is(executed('EXECUTE by_id(42)'), home(42), 'generic plan: one shard is scanned');
SELECT ok(executed('EXECUTE by_id(NULL)') !~ ' ',
  'generic plan: one shard is scanned, with a null at most one');
SELECT is(executed('EXECUTE by_bigint(42)'), home(42),
  'generic plan: one shard is scanned, with a parameter of another type');
SELECT is(executed('EXECUTE by_key(''c17'', 17, ''t17'')'),
  (SELECT tableoid::regclass::text FROM several WHERE k = 'c17'),
  'generic plan: one shard is scanned, with a key of several columns');
SELECT is(executed('EXECUTE lock_id(42)'), home(42),
  'generic plan: one shard is scanned, FOR UPDATE');
DECLARE one_order CURSOR FOR SELECT * FROM orders WHERE order_id = 42 FOR UPDATE;
MOVE one_order;
SELECT results_eq($$ UPDATE orders SET item = 'current' WHERE CURRENT OF one_order
    RETURNING order_id $$, 'VALUES (42)', 'WHERE CURRENT OF a cursor that reads one shard');
CLOSE one_order;
SELECT is(returned('DELETE FROM orders WHERE ctid = ANY (ARRAY(SELECT ctid FROM orders WHERE '
                   'order_id = 43 FOR UPDATE)) AND order_id = 43 RETURNING order_id'), '{(43)}',
  'row locks in a subquery');
SELECT is(executed('EXECUTE update_id(42)'), home(42), 'row locks in a subquery: UPDATE');
SELECT is((SELECT item FROM orders WHERE order_id = 42), 'changed',
  'row locks in a subquery, which updates the row');
SELECT is(executed('EXECUTE delete_id(43)'), home(43), 'row locks in a subquery: DELETE');
SELECT is((SELECT count(*) FROM orders WHERE order_id = 43), 0::bigint,
  'row locks in a subquery, which deletes the row');
INSERT INTO orders VALUES (43, 43, 'item 43');
UPDATE orders SET item = 'item 42' WHERE order_id = 42;
SELECT is((SELECT count(*) FROM generate_series(-5, 300) g
            WHERE returned(format('EXECUTE by_id(%s)', g))
              <> rows_of(format('SELECT * FROM plain WHERE order_id = %s', g))),
  0::bigint, 'row locks in a subquery, finds every row');
SELECT is(returned('EXECUTE by_numeric(42)'), rows_of('SELECT * FROM plain WHERE order_id = 42'),
  'a comparison with numeric');
SELECT is(returned('EXECUTE by_bigint(99999999999)'), '{}',
  'a comparison with a bigint that no int is');
SELECT is(returned('EXECUTE by_array(''{1,2,3,4,99999}'')'),
  rows_of('SELECT * FROM plain WHERE order_id IN (1, 2, 3, 4)'), 'a comparison with an array');
SELECT set_config('hash_test.id', '42', true) \g /dev/null
SELECT is(executed('SELECT * FROM orders WHERE order_id = current_setting(''hash_test.id'')::int'),
  home(42), 'a stable function');
SELECT is(executed('SELECT * FROM orders WHERE order_id = (SELECT max(customer) FROM plain WHERE '
                   'customer < 43)'), home(42) || ' plain', 'a subquery''s result');
SELECT is(rows_of('SELECT g, (SELECT item FROM orders o WHERE o.order_id = g) FROM '
                  'generate_series(0, 60) g'),
  rows_of('SELECT g, (SELECT item FROM plain o WHERE o.order_id = g) FROM generate_series(0, 60) g'), 'a correlated subquery');
SELECT is(rows_of('SELECT * FROM generate_series(0, 60) g, LATERAL (SELECT * FROM orders o WHERE '
                  'o.order_id = g) l'),
  rows_of('SELECT * FROM generate_series(0, 60) g, LATERAL (SELECT * FROM plain o WHERE '
          'o.order_id = g) l'), 'a lateral subquery');

-- A plan that leaves shards out does not outlive their constraints.
SELECT min(s) AS other FROM unnest(string_to_array(:'all', ' ')) s WHERE s <> home(5010) \gset
PREPARE kept AS SELECT count(*) FROM orders WHERE order_id = 5010;
EXECUTE kept \gset before_
SAVEPOINT s;
ALTER TABLE :other DROP CONSTRAINT shard_hash;
INSERT INTO :other VALUES (5010);
EXECUTE kept \gset after_
SELECT is(:'before_count' || ' ' || :'after_count', '0 1',
  'a kept plan goes with the constraints that it relies on');
ROLLBACK TO s;
SELECT is(scanned('SELECT * FROM orders WHERE order_id = 42'), home(42),
  'pruning is back when the constraint is');
RESET plan_cache_mode;

-- Every type of key: rows are found by each value, in one shard.
CREATE FUNCTION lost(col name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  -- a value coerced to a domain is no constant
  type text := (SELECT format_type(coalesce(nullif(typbasetype, 0), atttypid), atttypmod)
    FROM pg_attribute
                  JOIN pg_type t ON t.oid = atttypid WHERE attrelid = 'native'::regclass
                    AND attname = col);
  n bigint;
  wanted bigint;
  value text;
  result text := '';
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE logical (%s) SERVER shards OPTIONS (shards ''5'', route '
                 '''hash'', key %L)', column_def(col), quote_ident(col));
  EXECUTE format('INSERT INTO logical SELECT %I FROM native', col);
  FOR value, wanted IN EXECUTE
    format('SELECT %I::text, count(*) FROM native WHERE %1$I IS NOT NULL GROUP BY %1$I LIMIT 40',
      col) LOOP
    EXECUTE format('SELECT count(*) FROM logical WHERE %I = %L::%s', col, value, type) INTO n;
    IF n <> wanted THEN
      result := result || format('%s of %s rows with %s ', n, wanted, value);
    END IF;
    IF scanned(format('SELECT * FROM logical WHERE %I = %L::%s', col, value, type)) ~ ' ' THEN
      result := result || format('%s not pruned ', value);
    END IF;
    EXECUTE format('SELECT count(*) FROM logical WHERE %I = (SELECT %L::%s)', col, value, type)
      INTO n;
    IF n <> wanted THEN
      result := result || format('%s of %s rows with late %s ', n, wanted, value);
    END IF;
  END LOOP;
  DROP FOREIGN TABLE logical CASCADE;
  RETURN result;
END $$;
SELECT is(lost(attname), '', 'found by key, in one shard: ' || column_def(attname))
  FROM pg_attribute WHERE attrelid = 'native'::regclass AND attnum > 0 ORDER BY attnum;

--
-- Joins and aggregates
--

SET LOCAL enable_partitionwise_join = on;
SET LOCAL enable_partitionwise_aggregate = on;
CREATE FOREIGN TABLE lines (order_id int, line int, price numeric) SERVER shards
  OPTIONS (shards '6', route 'hash', key 'order_id');
INSERT INTO lines SELECT 1 + g % 4000, g, g % 77 FROM generate_series(1, 8000) g;
CREATE TABLE part (order_id int, note text) PARTITION BY HASH (order_id);
SELECT format('CREATE TABLE part_%s PARTITION OF part FOR VALUES WITH (MODULUS 6, REMAINDER %1$s)',
  r) FROM generate_series(0, 5) r \gexec
INSERT INTO part SELECT g * 2, 'note ' || g FROM generate_series(1, 3000) g;
CREATE FOREIGN TABLE eight (order_id int, x int) SERVER shards OPTIONS (shards '8', route 'hash',
  key 'order_id');
INSERT INTO eight SELECT g * 3, g FROM generate_series(1, 1000) g;
CREATE FOREIGN TABLE keyless (order_id int, y int) SERVER shards
  OPTIONS (shards '6', route 'round_robin');
INSERT INTO keyless SELECT g * 5, g FROM generate_series(1, 500) g;
CREATE VIEW plain_orders AS SELECT * FROM plain;
CREATE TABLE plain_lines AS SELECT * FROM lines;
CREATE TABLE plain_part AS SELECT * FROM part;
CREATE TABLE plain_eight AS SELECT * FROM eight;
CREATE TABLE plain_keyless AS SELECT * FROM keyless;
ANALYZE lines, part, eight, keyless, plain_lines, plain_part, plain_eight, plain_keyless;

-- How many joins there are in a plan.
CREATE FUNCTION joins(query text) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*) FROM plan_nodes(query, 'VERBOSE off') n WHERE n->>'Node Type' ~ 'Join|Nested Loop'
$$;
SELECT is(joins('SELECT * FROM orders JOIN lines USING (order_id)'), 6::bigint,
  'two hash tables are joined shard by shard');
SELECT is(joins('SELECT * FROM orders JOIN part USING (order_id)'), 6::bigint,
  'a hash table and a natively partitioned one are joined shard by shard');
SELECT is(joins('SELECT * FROM orders JOIN lines USING (order_id) JOIN part USING (order_id)'),
  12::bigint, 'two hash tables are joined shard by shard: three tables');
SELECT is(joins('SELECT * FROM orders FULL JOIN lines USING (order_id)'), 6::bigint,
  'two hash tables are joined shard by shard: FULL JOIN');
SELECT is(joins('SELECT * FROM orders JOIN eight USING (order_id)'), 1::bigint,
  'two hash tables are joined shard by shard, not with another modulus');
SELECT is(joins('SELECT * FROM orders JOIN lines ON orders.customer = lines.order_id'), 1::bigint,
  'two hash tables are joined shard by shard, not by another column');
SELECT is(joins('SELECT * FROM orders JOIN keyless USING (order_id)'), 1::bigint,
  'two hash tables are joined shard by shard, not with a table without key');
SELECT is(joins('SELECT o, l FROM orders o JOIN lines l USING (order_id)'), 1::bigint,
  'two hash tables are joined shard by shard, not for whole rows');
SELECT is((SELECT count(*) FROM plan_nodes('SELECT order_id, count(*) FROM lines GROUP BY order_id',
      'VERBOSE off') n WHERE n->>'Node Type' = 'Aggregate'),
  6::bigint, 'GROUP BY the key is one aggregation a shard');
SELECT ok(plan_has('SELECT price, count(*) FROM lines GROUP BY price', 'Aggregate Partial'),
  'GROUP BY something else is partial');

CREATE TABLE queries (q text);
INSERT INTO queries VALUES
  ('SELECT count(*), sum(price) FROM orders{} o JOIN lines{} l USING (order_id)'),
  ('SELECT o.item, l.line FROM orders{} o LEFT JOIN lines{} l USING (order_id) WHERE o.customer < 3'),
  ('SELECT o.item, l.line FROM lines{} l LEFT JOIN orders{} o ON o.order_id = l.order_id AND '
   'o.customer = 2 WHERE l.price = 3'),
  ('SELECT order_id, o.item, l.line FROM orders{} o FULL JOIN lines{} l USING (order_id) WHERE '
   'o.item IS NULL OR l.line IS NULL'),
  ('SELECT * FROM orders{} o WHERE EXISTS (SELECT FROM lines{} l WHERE l.order_id = o.order_id '
   'AND l.price = 5)'),
  ('SELECT * FROM orders{} o WHERE NOT EXISTS (SELECT FROM lines{} l WHERE l.order_id = o.order_id)'),
  ('SELECT * FROM orders{} WHERE order_id IN (SELECT order_id FROM part{})'),
  ('SELECT count(*), max(note) FROM orders{} o JOIN lines{} l USING (order_id) JOIN part{} p '
   'USING (order_id)'),
  ('SELECT count(*) FROM orders{} o LEFT JOIN part{} p USING (order_id) LEFT JOIN lines{} l USING '
   '(order_id) WHERE p.note IS NULL'),
  ('SELECT p.note, s.n FROM part{} p JOIN (SELECT order_id, count(*) AS n FROM lines{} GROUP BY '
   'order_id) s USING (order_id) WHERE s.n > 1'),
  ('SELECT order_id, count(*), sum(price) FROM lines{} GROUP BY order_id'),
  ('SELECT order_id, price, count(*) FROM lines{} GROUP BY order_id, price HAVING sum(line) > 4000'),
  ('SELECT price, count(DISTINCT order_id) FROM lines{} GROUP BY price'),
  ('SELECT customer, count(*), sum(price) FROM orders{} JOIN lines{} USING (order_id) GROUP BY '
   'customer'),
  ('SELECT DISTINCT order_id FROM lines{}'),
  ('SELECT order_id, rank() OVER (PARTITION BY order_id ORDER BY line) FROM lines{} WHERE '
   'order_id < 50'),
  ('SELECT * FROM orders{} o JOIN eight{} e USING (order_id)'),
  ('SELECT * FROM eight{} e FULL JOIN keyless{} k USING (order_id)'),
  ('SELECT count(*) FROM orders{} a JOIN orders{} b ON a.order_id = b.order_id AND a.customer = '
   'b.customer'),
  ('SELECT count(*) FROM orders{} a JOIN orders{} b ON a.order_id = b.customer'),
  ('SELECT o.*::text, l.*::text FROM orders{} o JOIN lines{} l USING (order_id) WHERE o.customer '
   '= 1'),
  ('SELECT * FROM orders{} o JOIN lines{} l USING (order_id) WHERE o.order_id IN (5, 6, 7)'),
  ('SELECT * FROM orders{} o LEFT JOIN lines{} l ON l.order_id = o.order_id AND l.order_id = 5 '
   'WHERE o.customer = 5'),
  ('SELECT * FROM orders{} o FULL JOIN (SELECT * FROM lines{} WHERE order_id = 5) l USING '
   '(order_id) WHERE o.customer = 5 OR o.customer IS NULL'),
  ('SELECT min(order_id), max(order_id), count(*) FROM orders{}'),
  ('SELECT * FROM (SELECT order_id FROM orders{} UNION ALL SELECT order_id FROM lines{}) u JOIN '
   'part{} p USING (order_id) WHERE order_id < 60'),
  ('SELECT o.order_id, x.n FROM orders{} o, LATERAL (SELECT count(*) AS n FROM lines{} l WHERE '
   'l.order_id = o.order_id) x WHERE o.customer = 7 AND o.order_id < 1000'),
  ('SELECT * FROM orders{} ORDER BY order_id DESC LIMIT 10'),
  ('SELECT grouping(order_id, price), order_id, price, count(*) FROM lines{} WHERE order_id < 20 '
   'GROUP BY ROLLUP (order_id, price)');
CREATE TABLE settings (name text, list text);
INSERT INTO settings VALUES
  ('hash', 'enable_nestloop=off'),
  ('merge', 'enable_hashjoin=off enable_nestloop=off enable_hashagg=off'),
  ('parallel', 'parallel_setup_cost=0 parallel_tuple_cost=0 min_parallel_table_scan_size=0'),
  ('together', 'enable_partitionwise_join=off enable_partitionwise_aggregate=off');
CREATE FUNCTION with_settings(query text, list text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  result text[];
BEGIN
  PERFORM set_config(split_part(item, '=', 1), split_part(item, '=', 2), true)
    FROM unnest(string_to_array(list, ' ')) item;
  result := rows_of(query);
  PERFORM set_config(name, CASE WHEN name ~ 'partitionwise' THEN 'on' ELSE reset_val END, true)
     FROM pg_settings
       WHERE name = ANY (ARRAY(SELECT split_part(item, '=', 1)
           FROM unnest(string_to_array(list, ' ')) item));
  RETURN result;
END $$;
SELECT is((SELECT string_agg(name, ', ') FROM settings
            WHERE with_settings(replace(q, '{}', ''), list) <> wanted), NULL, q)
  FROM (SELECT q, rows_of(regexp_replace(q, '(\w+)\{\}', 'plain_\1', 'g')) AS wanted FROM queries)
    w;

SAVEPOINT s;
-- With several shards for each worker, no two workers join the same shard.
CREATE FOREIGN TABLE many (order_id int, line int, price numeric) SERVER shards
  OPTIONS (shards '12', route 'hash', key 'order_id');
INSERT INTO many SELECT 1 + g % 4000, g, g % 77 FROM generate_series(1, 30000) g;
CREATE FOREIGN TABLE more (order_id int, line int, price numeric) SERVER shards
  OPTIONS (shards '12', route 'hash', key 'order_id');
INSERT INTO more SELECT g, g, g % 11 FROM generate_series(2, 9000, 3) g;
CREATE TABLE plain_many AS SELECT * FROM many;
CREATE TABLE plain_more AS SELECT * FROM more;
ANALYZE many, more, plain_many, plain_more;
SELECT format('ANALYZE %s', shard) FROM shard_fdw.shards WHERE logical IN ('many'::regclass,
  'more'::regclass) \gexec
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL max_parallel_workers_per_gather = 2;
-- How many joins of a plan are one worker's, and how many are several workers'.
CREATE FUNCTION joined_by(query text, OUT one bigint, OUT several bigint) LANGUAGE sql AS $$
  SELECT count(*) FILTER (WHERE NOT partial), count(*) FILTER (WHERE partial)
    FROM (SELECT jsonb_path_exists(n, '$.**."Parallel Aware" ? (@ == true)') AS partial
            FROM plan_nodes(query, 'VERBOSE off') n WHERE n->>'Node Type' ~ 'Join|Nested Loop') j
$$;
SELECT is(joined_by('SELECT count(*) FROM many JOIN more USING (order_id)')::text, '(12,0)',
  'a shard is joined by one worker');
SELECT ok(EXISTS (SELECT FROM plan_nodes('SELECT count(*) FROM many JOIN more USING (order_id)',
      'VERBOSE off') n
                   WHERE n->>'Node Type' = 'Append' AND (n->>'Parallel Aware')::boolean),
  'a shard is joined by one worker, in parallel');
-- 19 estimates that workers had better join the third together, also if these are partitions.
SELECT current_setting('server_version_num')::int >= 190000 AS v19 \gset
\if :v19
SET LOCAL enable_parallel_hash = off;
\endif
SELECT is(joined_by('SELECT a.line, b.price FROM many a JOIN more b USING (order_id) JOIN many c '
                    'USING (order_id)')::text, '(24,0)',
  'a shard is joined by one worker: three tables');
RESET enable_parallel_hash;
SELECT is(rows_of(replace(q, '{}', '')), rows_of(replace(q, '{}', 'plain_')), 'one worker a shard: '
  || q)
  FROM unnest(ARRAY[
    'SELECT count(*), sum(a.line), sum(b.price) FROM {}many a JOIN {}more b USING (order_id)',
    'SELECT a.line, b.line FROM {}many a JOIN {}more b USING (order_id)',
    'SELECT order_id, a.line, b.line FROM {}many a FULL JOIN {}more b USING (order_id)',
    'SELECT a.line, b.line FROM {}many a LEFT JOIN {}more b ON a.order_id = b.order_id AND '
    'b.price < 5',
    'SELECT * FROM {}more b WHERE EXISTS (SELECT FROM {}many a WHERE a.order_id = b.order_id AND '
    'a.price > 70)',
    'SELECT * FROM {}more b WHERE NOT EXISTS (SELECT FROM {}many a WHERE a.order_id = b.order_id)',
    'SELECT price, count(*) FROM {}many JOIN {}more USING (order_id, price) GROUP BY price',
    'SELECT order_id, count(*), max(b.line) FROM {}many a JOIN {}more b USING (order_id) GROUP BY '
    'order_id',
    'SELECT count(*) FROM {}many a JOIN {}more b USING (order_id) JOIN {}many c USING (order_id)',
    'SELECT * FROM (SELECT order_id, a.line FROM {}many a JOIN {}more b USING (order_id) ORDER BY '
    'order_id, a.line LIMIT 50) x JOIN {}more USING (order_id)']) q;
SAVEPOINT s;
SET LOCAL enable_parallel_append = off;
SELECT ok((joined_by('SELECT count(*) FROM many JOIN more USING (order_id)')).several > 0,
  'without parallel append, workers share shards');
ROLLBACK TO s;
SET LOCAL max_parallel_workers_per_gather = 5;
SELECT ok((joined_by('SELECT count(*) FROM many JOIN more USING (order_id)')).several > 0,
  'without parallel append, workers share shards, with too few shards for each worker, too');
SET LOCAL max_parallel_workers_per_gather = 2;
INSERT INTO many SELECT 1, g, 0 FROM generate_series(1, 30000) g;
INSERT INTO plain_many SELECT 1, g, 0 FROM generate_series(1, 30000) g;
ANALYZE many, plain_many;
SELECT format('ANALYZE %s', shard) FROM shard_fdw.shards WHERE logical = 'many'::regclass \gexec
SELECT is(joined_by('SELECT count(*) FROM many JOIN more USING (order_id)')::text, '(11,1)',
  'without parallel append, workers share shards, and of several shards the one that is much larger');
SELECT is(rows_of('SELECT count(*), sum(a.line), sum(b.price) FROM many a JOIN more b USING '
                  '(order_id)'),
  rows_of('SELECT count(*), sum(a.line), sum(b.price) FROM plain_many a JOIN plain_more b USING '
          '(order_id)'), 'without parallel append, workers share shards, with the right result');
ROLLBACK TO s;

-- A set with a gap is joined as far as it goes.
SAVEPOINT s;
DROP TABLE orders_1;
CREATE VIEW gap AS SELECT * FROM plain WHERE NOT shard_fdw.in_hash(6, 1, order_id);
SELECT is(rows_of(format('SELECT * FROM orders o %s lines l USING (order_id) WHERE l.line < 100 '
                         'OR l.line IS NULL', kind)),
  rows_of(format('SELECT * FROM gap o %s plain_lines l USING (order_id) WHERE l.line < 100 OR '
                 'l.line IS NULL', kind)), 'a missing shard: ' || kind)
  FROM unnest(ARRAY['JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN']) kind;
SELECT is(rows_of('SELECT order_id, count(*) FROM orders GROUP BY order_id'),
  rows_of('SELECT order_id, count(*) FROM gap GROUP BY order_id'),
  'a missing shard: GROUP BY');
ROLLBACK TO s;

-- Shards of different moduli that fit together, as native partitions may have.
CREATE FOREIGN TABLE mixed (id int, v text) SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE mixed_a (id int, v text, CHECK (shard_fdw.in_hash(2, 0, id)));
CREATE TABLE mixed_b (id int, v text, CHECK (shard_fdw.in_hash(4, 1, id)));
CREATE TABLE mixed_c (id int, v text, CHECK (shard_fdw.in_hash(4, 3, id)));
ALTER TABLE mixed_c INHERIT mixed;
ALTER TABLE mixed_b INHERIT mixed;
ALTER TABLE mixed_a INHERIT mixed;
INSERT INTO mixed SELECT g, g FROM generate_series(1, 1000) g;
SELECT is((SELECT count(*) FROM mixed), 1000::bigint, 'shards of several moduli take all rows');
SELECT is((SELECT count(*) FROM generate_series(1, 100) g
            WHERE scanned('SELECT * FROM mixed WHERE id = ' || g)
              <> (SELECT tableoid::regclass::text FROM mixed WHERE id = g)),
  0::bigint, 'shards of several moduli take all rows, and every row is found in one shard');
CREATE TABLE mixed_d (id int, v text, CHECK (shard_fdw.in_hash(3, 0, id)));
ALTER TABLE mixed_d INHERIT mixed;
SELECT is(scanned('SELECT * FROM mixed WHERE id = 5'), 'mixed_a mixed_b mixed_c mixed_d',
  'of moduli that do not fit, nothing is pruned');
SELECT is((SELECT count(*) FROM mixed WHERE id <= 100), 100::bigint,
  'of moduli that do not fit, nothing is pruned, and no row is lost');

-- What is missing from any places: together with what create_shards() adds, every row has a shard.
CREATE TABLE plain_rows AS SELECT g AS id, g::text AS v FROM generate_series(-300, 300) g;
CREATE FUNCTION with_places(VARIADIC places int[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  missing int;
  result text;
BEGIN
  CREATE FOREIGN TABLE odd_places (id int, v text) SERVER shards OPTIONS (route 'hash', key 'id');
  FOR i IN 1 .. cardinality(places) BY 2 LOOP
    EXECUTE format('CREATE TABLE odd_places_%s (CHECK (shard_fdw.in_hash(%s, %s, id))) INHERITS '
                   '(odd_places)', i, places[i], places[i + 1]);
  END LOOP;
  result := (error_of('SELECT shard_fdw.create_shards(''odd_places'', 1000)')).detail;
  missing := substring(result FROM 'which (\d+)');
  PERFORM shard_fdw.create_shards('odd_places', missing) WHERE missing > 0;
  INSERT INTO odd_places SELECT * FROM plain_rows;
  IF rows_of('SELECT * FROM odd_places') <> rows_of('SELECT * FROM plain_rows')
     OR EXISTS (SELECT FROM generate_series(-30, 30) g WHERE (SELECT count(*) FROM odd_places
         WHERE id = g) <> 1) THEN
    result := 'rows are missing';
  END IF;
  DROP FOREIGN TABLE odd_places CASCADE;
  RETURN result;
END $$;
SELECT is(with_places(2, 0, 3, 1),
  'Its shards hold the remainders of the hash modulo 6, of which 2 are missing.',
  'moduli that do not fit have a common multiple');
SELECT is(with_places(2, 0, 2, 0, 2, 0),
  'Its shards hold the remainders of the hash modulo 2, of which 1 is missing.',
  'the same place several times');
SELECT is(with_places(1, 0, 4, 1),
  'Its shards hold the remainders of the hash modulo 4, of which 0 are missing.',
  'a place that is in another');
SELECT setseed(0.5);
SELECT isnt(with_places(VARIADIC places), 'rows are missing', 'random places: ' || places::text)
  FROM (SELECT array_agg(n ORDER BY i, n_th) AS places
          FROM (SELECT s, i, m, (random() * 1000)::int % m AS r
            FROM (SELECT s, i, 2 + (random() * 4)::int AS m FROM generate_series(1, 8) s,
              generate_series(1, 3) i) m) p,
               LATERAL (VALUES (1, m), (2, r)) v(n_th, n) GROUP BY s) t;
-- Many places, large moduli: quickly, and with an end.
SET LOCAL statement_timeout = '60s';
CREATE FOREIGN TABLE large_places (id int) SERVER shards OPTIONS (route 'hash', key 'id');
CREATE TABLE large_places_0 (CHECK (shard_fdw.in_hash(65536, 65535, id))) INHERITS (large_places);
DO $$ BEGIN
  FOR i IN 1 .. 50 LOOP
    EXECUTE format('CREATE TABLE large_places_%s (CHECK (shard_fdw.in_hash(%s, 0, id))) INHERITS '
                   '(large_places)', i, CASE WHEN i % 2 = 0 THEN 32768 ELSE 65536 END);
  END LOOP;
END $$;
SELECT shard_fdw.create_shards('large_places', 1) AS created \gset
SELECT is((SELECT string_agg(pg_get_constraintdef(oid), ' ') FROM pg_constraint
    WHERE conrelid = :'created'::regclass AND conname = 'shard_hash'),
  'CHECK (shard_fdw.in_hash(65536, 1, id))', 'the first remainder that is free');
CREATE TABLE large_places_a (CHECK (shard_fdw.in_hash(65535, 0, id))) INHERITS (large_places);
SELECT fails('SELECT shard_fdw.create_shards(''large_places'', 1)', '55000',
  'cannot add shards to foreign table "large_places"',
  'The moduli of its shards have no common multiple of at most 65536.',
  'Redistribute the rows with SELECT shard_fdw.reshard().',
  title => 'moduli without a common multiple');
DROP FOREIGN TABLE large_places CASCADE;
RESET statement_timeout;

-- A shard with children of its own holds whatever they hold.
CREATE TABLE child () INHERITS (orders_0);
ALTER TABLE child DROP CONSTRAINT IF EXISTS none;
SELECT is(scanned('SELECT * FROM orders WHERE order_id = 42'), 'child ' || :'all',
  'with children of shards, nothing is pruned');

--
-- Keys of composite types: "IS NULL" is also true for a row of nulls
--

CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN pair_domain AS pair;
CREATE FOREIGN TABLE by_pair (n int, k pair) SERVER shards OPTIONS (shards '7', route 'hash',
  key 'k');
CREATE FOREIGN TABLE by_pair_and_int (n int, k pair_domain, i int) SERVER shards
  OPTIONS (shards '7', route 'hash', key 'k, i');
CREATE TABLE by_pair_twin (n int, k pair);
CREATE TABLE by_pair_and_int_twin (n int, k pair_domain, i int);
SELECT setseed(0.12);
INSERT INTO by_pair_and_int_twin
SELECT g,
       CASE (random() * 5)::int
         WHEN 0 THEN NULL
         WHEN 1 THEN ROW(NULL, NULL)::pair
         WHEN 2 THEN ROW((random() * 3)::int, NULL)::pair
         ELSE ROW((random() * 3)::int, (random() * 3)::int)::pair
       END,
       nullif((random() * 3)::int, 0)
  FROM generate_series(1, 400) g;
INSERT INTO by_pair_twin SELECT n, k FROM by_pair_and_int_twin;
INSERT INTO by_pair SELECT * FROM by_pair_twin;
INSERT INTO by_pair_and_int SELECT * FROM by_pair_and_int_twin;
SELECT isnt((SELECT shard_fdw.in_hash(7, r, NULL::pair) FROM generate_series(0, 6) r
    WHERE shard_fdw.in_hash(7, r, ROW(NULL, NULL)::pair)),
  true, 'a row of nulls is in another shard than a null');
CREATE TABLE row_conditions (c text, i bool);
INSERT INTO row_conditions VALUES
  ('k IS NULL', false), ('k IS NOT NULL', false), ('k IS NOT DISTINCT FROM NULL', false),
    ('k IS DISTINCT FROM NULL', false),
  ('NOT k IS NULL', false), ('NOT k IS NOT NULL', false),
    ('k IS NULL AND k IS NOT DISTINCT FROM NULL', false),
  ('k IS NULL AND k IS DISTINCT FROM NULL', false), ('k IS NULL OR k = ROW(1, ''2'')::pair', false),
  ('(k IS NULL AND n > 10) OR (k IS NOT NULL AND n < 50)', false),
    ('k IS NULL AND k = ROW(NULL, NULL)::pair', false),
  ('k = ROW(NULL, NULL)::pair', false), ('(k).x IS NULL AND (k).y IS NULL', false),
    ('(k IS NULL) IS TRUE', false),
  ('k::pair IS NULL', false), ('COALESCE(k, ROW(NULL, NULL)::pair) IS NULL', false),
    ('ROW(k, n) IS NULL', false),
  ('k IS NULL AND i = 1', true), ('k IS NULL AND i IS NULL', true),
    ('k IS NOT NULL AND i = 2', true), ('k IS NULL OR i = 2', true),
  ('(k IS NULL OR k = ROW(1, NULL)::pair) AND i = 3', true),
    ('k = ROW(2, ''1'')::pair AND i IS NULL', true), ('k IS NULL AND i IN (1, 2)', true);
SELECT is(rows_of(format('SELECT * FROM %s WHERE %s', t, c)),
  rows_of(format('SELECT * FROM %s_twin WHERE %s', t, c)), format('%s: %s', t, c))
  FROM row_conditions, unnest(ARRAY['by_pair', 'by_pair_and_int']) t WHERE t = 'by_pair_and_int'
    OR NOT i;
SELECT is(returned(format('SELECT l.n, r.n FROM %s l LEFT JOIN %1$s r ON r.n = l.n + 1 AND %s '
                          'WHERE l.k IS NULL', t, regexp_replace(c, '\m[kin]\M', 'r.\&', 'g'))),
          returned(format('SELECT l.n, r.n FROM %s_twin l LEFT JOIN %1$s_twin r ON r.n = l.n + 1 '
                          'AND %s WHERE l.k IS NULL', t, regexp_replace(c, '\m[kin]\M', 'r.\&',
                            'g'))),
          format('%s, joined: %s', t, c))
  FROM row_conditions, unnest(ARRAY['by_pair', 'by_pair_and_int']) t WHERE t = 'by_pair_and_int'
    OR NOT i;
SELECT is(returned(format('SELECT n FROM %s WHERE %s FOR UPDATE', t, c)),
  returned(format('SELECT n FROM %s_twin WHERE %s', t, c)), format('%s, locked: %s', t, c))
  FROM row_conditions, unnest(ARRAY['by_pair', 'by_pair_and_int']) t WHERE t = 'by_pair_and_int'
    OR NOT i;
SELECT is(returned(format('UPDATE %s SET n = -n WHERE %s RETURNING *', t, c)),
  returned(format('UPDATE %s_twin SET n = -n WHERE %s RETURNING *', t, c)),
  format('%s, updated: %s', t, c))
  FROM row_conditions, unnest(ARRAY['by_pair', 'by_pair_and_int']) t WHERE t = 'by_pair_and_int'
    OR NOT i;
SELECT is(returned('DELETE FROM by_pair WHERE k IS NULL RETURNING n'),
  returned('DELETE FROM by_pair_twin WHERE k IS NULL RETURNING n'), 'by_pair, deleted: k IS NULL');
SELECT is(returned('DELETE FROM by_pair WHERE k IS NOT NULL OR n = 3 RETURNING n'),
  returned('DELETE FROM by_pair_twin WHERE k IS NOT NULL OR n = 3 RETURNING n'),
  'by_pair, deleted: k IS NOT NULL');
SELECT is(rows_of('SELECT * FROM by_pair'), rows_of('SELECT * FROM by_pair_twin'),
  'by_pair, deleted: the rest is there');
SELECT unalike(scanned('SELECT * FROM by_pair WHERE k = ROW(1, ''2'')::pair AND k IS NOT NULL'),
  '% %', 'other conditions still leave one shard');
SELECT unalike(scanned('SELECT * FROM by_pair WHERE k IS NOT DISTINCT FROM NULL'), '% %',
  'a test for nothing but null leaves one shard');

SELECT * FROM finish();
ROLLBACK;
