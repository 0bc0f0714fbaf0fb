-- Index entries of large loads, which are sorted: compared with a plain table.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
SET LOCAL jit = off;
CREATE SCHEMA sorted_test;
SET LOCAL search_path = sorted_test, public;

\ir helpers.psql

SELECT count(*) > 0 AS has_amcheck FROM pg_available_extensions WHERE name = 'amcheck' \gset
\if :has_amcheck
CREATE EXTENSION IF NOT EXISTS amcheck;
\endif
SELECT current_setting('server_version_num')::int >= 160000 AS v16 \gset

CREATE FUNCTION path() RETURNS text LANGUAGE sql
AS $$ SELECT current_setting('data_directory') || '/shard_fdw_sorted_test' $$;

-- A value that depends on n as a random one would.
CREATE FUNCTION hash_of(n int, seed int) RETURNS text LANGUAGE sql IMMUTABLE
AS $$ SELECT md5(seed || ' ' || n) $$;

CREATE TYPE made AS (id int, a bigint, b text, c uuid, d numeric, e int, f float8);

-- Rows in random order, some with nulls, some with long values that cannot be
-- compressed.
CREATE FUNCTION rows_of(n int, seed int) RETURNS SETOF made LANGUAGE sql STABLE AS $$
  SELECT g,
         CASE WHEN g % 10 <> 0 THEN ('x' || substr(h, 1, 12))::bit(48)::bigint - (1::bigint << 47) END,
         CASE WHEN g % 500 = 7 THEN (SELECT string_agg(hash_of(i, g), '') FROM generate_series(1, 60) i)
              WHEN g % 7 <> 0 THEN substr(h, 9, 1 + g % 20) END,
         hash_of(g, seed + 1)::uuid,
         CASE WHEN g % 9 <> 0 THEN ('x' || substr(h, 5, 8))::bit(32)::int / 1000.0 END,
         ('x' || substr(h, 20, 4))::bit(16)::int % 5,
         CASE WHEN g % 11 = 0 THEN 'NaN' ELSE sin(g * 7919) END
    FROM generate_series(1, n) g, hash_of(g, seed) h
   ORDER BY h
$$;

CREATE FUNCTION shards_of(logical regclass) RETURNS SETOF regclass LANGUAGE sql STABLE
AS $$ SELECT shard FROM shard_fdw.list_shards(logical) $$;

-- Indexes in which something is wrong: a row that a scan of the index does not
-- find, or what amcheck says.
CREATE FUNCTION wrong_indexes(logical regclass) RETURNS SETOF text
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
  r record;
  expected bigint;
  found_rows bigint;
BEGIN
  FOR r IN
    SELECT s, i.indexrelid::regclass AS index, am.amname,
           pg_get_expr(i.indpred, i.indrelid) AS predicate,
           pg_get_indexdef(i.indexrelid, 1, true) AS col
      FROM shards_of(logical) s JOIN pg_index i ON i.indrelid = s
      JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
  LOOP
    CONTINUE WHEN r.amname <> 'btree';
    IF to_regprocedure('bt_index_check(regclass, boolean)') IS NOT NULL THEN
      BEGIN
        PERFORM bt_index_check(r.index, true);
      EXCEPTION WHEN OTHERS THEN
        RETURN NEXT r.index || ': ' || SQLERRM;
      END;
    END IF;
    PERFORM set_config('enable_indexscan', 'off', true),
            set_config('enable_indexonlyscan', 'off', true),
            set_config('enable_seqscan', 'on', true);
    EXECUTE format('SELECT count(*) FROM %s WHERE %s', r.s, coalesce(r.predicate, 'true'))
      INTO expected;
    PERFORM set_config('enable_indexscan', 'on', true),
            set_config('enable_indexonlyscan', 'on', true),
            set_config('enable_seqscan', 'off', true);
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s WHERE %s ORDER BY %s LIMIT 1000000) x',
                   r.s, coalesce(r.predicate, 'true'), r.col)
      INTO found_rows;
    IF found_rows <> expected THEN
      RETURN NEXT format('%s: %s rows, not %s', r.index, found_rows, expected);
    END IF;
  END LOOP;
  PERFORM set_config('enable_seqscan', 'on', true);
END $$;

CREATE FUNCTION sorted_entries(command text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) ' || command INTO plan;
  RETURN plan -> 0 -> 'Plan' ->> 'Sorted Index Entries';
END $$;
CREATE FUNCTION sorts(command text, low bigint, high bigint, title text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  n bigint := sorted_entries(command);
BEGIN
  RETURN ok(n BETWEEN low AND high, format('%s (%s)', title, n));
END $$;

--
-- random sets of indexes
--

CREATE TABLE kinds (n int GENERATED ALWAYS AS IDENTITY, ddl text);
INSERT INTO kinds (ddl) VALUES
  ('CREATE UNIQUE INDEX ON plain (id)'),
  ('CREATE INDEX ON plain (a)'),
  ('CREATE INDEX ON plain (a DESC NULLS FIRST, b)'),
  ('CREATE INDEX ON plain (substr(b, 1, 700) COLLATE "C")'),
  ('CREATE INDEX ON plain (substr(b, 1, 700) COLLATE "C" DESC)'),
  ('CREATE INDEX ON plain (substr(b, 1, 700))'),
  ('CREATE INDEX ON plain (b)'),
  ('CREATE UNIQUE INDEX ON plain (c) INCLUDE (e, b)'),
  ('CREATE INDEX ON plain (upper(b)) WHERE a % 2 = 0'),
  ('CREATE INDEX ON plain (d, a)'),
  ('CREATE INDEX ON plain (d DESC)'),
  ('CREATE UNIQUE INDEX ON plain (c DESC, id) NULLS NOT DISTINCT'),
  ('CREATE INDEX ON plain (e)'),
  ('CREATE INDEX ON plain (e, id DESC) WHERE b IS NULL'),
  ('CREATE INDEX ON plain (f DESC NULLS FIRST)'),
  ('CREATE INDEX ON plain ((b::varchar(4)) varchar_pattern_ops, d)'),
  ('CREATE INDEX ON plain ((b::name))'),
  ('CREATE INDEX ON plain (int4range(0, e), id)'),
  ('CREATE INDEX ON plain (d) WITH (deduplicate_items = off)'),
  ('CREATE INDEX ON plain USING hash (a)'),
  ('CREATE INDEX ON plain USING gin ((ARRAY[e]))'),
  ('CREATE INDEX ON plain USING gist (point(f, e)) WHERE f <> ''NaN'''),
  ('CREATE INDEX ON plain USING brin (a)'),
  ('ALTER TABLE plain ADD UNIQUE (c) DEFERRABLE'),
  ('ALTER TABLE plain ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED'),
  ('ALTER TABLE plain ADD EXCLUDE USING hash (c WITH =)');

-- Load rows into a plain and into logical tables with the same indexes; all that
-- differs is returned.
CREATE FUNCTION differ(seed int, nkinds int, mem text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
  r record;
  logical text;
  command text;
BEGIN
  DROP TABLE IF EXISTS plain CASCADE;
  DROP FOREIGN TABLE IF EXISTS log, rr, hsh CASCADE;
  CREATE TABLE plain OF made;
  ALTER TABLE plain NOT OF;
  FOR r IN SELECT ddl FROM kinds ORDER BY hash_of(n, seed) LIMIT nkinds LOOP
    EXECUTE r.ddl;
  END LOOP;
  CREATE FOREIGN TABLE log (id int, a bigint, b text, c uuid, d numeric, e int, f float8)
    SERVER shards OPTIONS (shards '2', template 'plain');
  CREATE FOREIGN TABLE rr (id int, a bigint, b text, c uuid, d numeric, e int, f float8)
    SERVER shards OPTIONS (shards '3', route 'round_robin', template 'plain');
  CREATE FOREIGN TABLE hsh (id int, a bigint, b text, c uuid, d numeric, e int, f float8)
    SERVER shards OPTIONS (shards '3', route 'hash', key 'id', template 'plain');
  EXECUTE format('COPY (SELECT * FROM rows_of(6000, %s)) TO %L', seed, path());
  INSERT INTO plain SELECT * FROM rows_of(6000, seed);
  INSERT INTO plain SELECT id + 10000, a, b, hash_of(id, seed)::uuid, d, e, f
    FROM rows_of(3000, seed);

  PERFORM set_config('shard_fdw.load_work_mem', mem, true);
  FOREACH logical IN ARRAY '{log,rr,hsh}'::text[] LOOP
    EXECUTE format('COPY %s FROM %L', logical, path());
    EXECUTE format('INSERT INTO %s SELECT id + 10000, a, b, hash_of(id, %s)::uuid, d, e, f
                      FROM rows_of(3000, %2$s)', logical, seed);
    FOR r IN EXECUTE format('(TABLE plain EXCEPT ALL TABLE %s) UNION ALL
                             (TABLE %1$s EXCEPT ALL TABLE plain) LIMIT 3', logical) LOOP
      RETURN NEXT logical || ': ' || r::text;
    END LOOP;
    RETURN QUERY SELECT wrong_indexes(logical::regclass);
  END LOOP;
END $$;

SELECT is_empty(format('SELECT differ(%s, %s, %L)', seed, nkinds, mem),
                format('loads into %s indexes of random kinds, sorted in %s: seed %s', nkinds, mem, seed))
  FROM (VALUES (1, 4, '64MB'), (2, 7, '64kB'), (3, 5, '300kB'), (4, 12, '1MB')) v(seed, nkinds, mem);
SELECT is_empty('SELECT differ(5, 100, ''200kB'')', 'loads into indexes of all kinds');

--
-- what waits, and what does not
--

DROP TABLE plain CASCADE;
DROP FOREIGN TABLE log, rr, hsh CASCADE;
RESET shard_fdw.load_work_mem;
CREATE TABLE plain (id int PRIMARY KEY, c uuid, k int);
CREATE INDEX ON plain (c);
CREATE INDEX ON plain (k, id);
CREATE FOREIGN TABLE log (id int, c uuid, k int) SERVER shards OPTIONS (shards '1', template 'plain');

SELECT sorts('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1 FROM generate_series(1, 8000) g',
             4000, 7999, 'entries of an index wait, those of indexes with ascending keys do not');
SELECT is(sorted_entries('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1 FROM generate_series(8001, 9900) g'),
          NULL, 'entries of a short statement do not wait');
SET LOCAL shard_fdw.load_work_mem = 0;
SELECT is(sorted_entries('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1 FROM generate_series(10001, 18000) g'),
          NULL, 'without memory, no entries wait');
RESET shard_fdw.load_work_mem;
SELECT sorts('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1
                FROM generate_series(20001, 28000) g ORDER BY hash_of(g, 1)',
             12000, 23999, 'keys of all indexes in random order');
SELECT sorts('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1
                FROM generate_series(30001, 38000) g ORDER BY 2',
             8000, 16000, 'the order of each load decides');
CREATE FOREIGN TABLE hsh (id int, c uuid, k int)
  SERVER shards OPTIONS (shards '2', route 'hash', key 'id', template 'plain');
SELECT is(sorted_entries('INSERT INTO hsh SELECT g, hash_of(g, 0)::uuid, 1
                            FROM generate_series(1, 8000) g ON CONFLICT DO NOTHING'),
          NULL, 'ON CONFLICT goes row by row');
SELECT sorts('INSERT INTO hsh SELECT g, hash_of(g, 0)::uuid, 1 FROM generate_series(10001, 18000) g',
             2000, 7999, 'two shards');
SELECT is_empty('SELECT wrong_indexes(''log'') UNION ALL SELECT wrong_indexes(''hsh'')',
                'all have the right entries');

CREATE FUNCTION explained(command text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  line text;
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) ' || command LOOP
    RETURN NEXT line;
  END LOOP;
END $$;
SELECT matches(
  (SELECT line FROM explained('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1
                                 FROM generate_series(50001, 58000) g ORDER BY hash_of(g, 1)') line
    WHERE line ~ 'Sorted'),
  '^ *Sorted Index Entries: \d+  Runs: 3  Memory: \d+kB$', 'EXPLAIN shows runs and memory');
SET LOCAL shard_fdw.load_work_mem = '64kB';
SELECT ok((SELECT max((regexp_match(line, 'Runs: (\d+)'))[1]::int) > 5 AND
                  max((regexp_match(line, 'Memory: (\d+)kB'))[1]::int) <= 64
             FROM explained('INSERT INTO log SELECT g, hash_of(g, 0)::uuid, 1
                               FROM generate_series(60001, 68000) g ORDER BY hash_of(g, 1)') line
            WHERE line ~ 'Sorted'),
          'the setting bounds memory');
SELECT is_empty('SELECT wrong_indexes(''log'')', 'all have the right entries');
RESET shard_fdw.load_work_mem;

--
-- errors
--

CREATE FUNCTION load_error(target text, content text, by_copy bool) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
  error record;
BEGIN
  EXECUTE format('COPY (%s) TO %L', content, path());
  IF by_copy THEN
    error := diagnostics(format('COPY %s FROM %L', target, path()));
  ELSE
    error := diagnostics(format('INSERT INTO %s %s', target, content));
  END IF;
  RETURN ARRAY[error.state, replace(error.message, '"log_0', '"plain'), error.detail];
END $$;
CREATE FUNCTION copy_context(target text) RETURNS text LANGUAGE sql AS $$
  SELECT (regexp_match(context, '(?n)^COPY .*$'))[1]
    FROM diagnostics(format('COPY %s FROM %L', target, path()))
$$;

DROP FOREIGN TABLE log, hsh CASCADE;
TRUNCATE plain;
CREATE UNIQUE INDEX ON plain (c);
INSERT INTO plain SELECT -g, hash_of(g, 3)::uuid, 0 FROM generate_series(1, 5000) g;
CREATE FOREIGN TABLE log (id int, c uuid, k int) SERVER shards OPTIONS (shards '1', template 'plain');
INSERT INTO log SELECT * FROM plain;

CREATE TABLE bad (what text, content text);
INSERT INTO bad VALUES
  ('the key of a row that was there',
   'SELECT g, hash_of(CASE WHEN g = 3500 THEN 77 ELSE g + 5000 END, 3)::uuid, g FROM generate_series(1, 6000) g'),
  ('the same key twice',
   'SELECT g, hash_of(CASE WHEN g = 5500 THEN 3000 ELSE g + 5000 END, 3)::uuid, g FROM generate_series(1, 6000) g WHERE g <> 100
    UNION ALL SELECT 9999, hash_of(9000, 3)::uuid, 1'),
  ('an id twice, in random order',
   'SELECT CASE WHEN g = 17 THEN 4000 ELSE g END, hash_of(g + 5000, 3)::uuid, g FROM generate_series(1, 6000) g ORDER BY hash_of(g, 4)');
SELECT is(load_error('log', content, by_copy), load_error('plain', content, by_copy),
          format('%s, %s', what, CASE WHEN by_copy THEN 'COPY' ELSE 'INSERT' END))
  FROM bad, unnest('{f,t}'::bool[]) by_copy;
SELECT is((load_error('log', content, false))[1], '23505', what || ': a unique violation') FROM bad;
SELECT is((SELECT count(*) FROM log), 5000::bigint, 'nothing is left of it');
SELECT is_empty('SELECT wrong_indexes(''log'')', 'all have the right entries');

SELECT load_error('plain', content, true) FROM bad WHERE what ~ 'was there' \g /dev/null
SELECT ok(copy_context('log') = CASE WHEN :'v16' THEN 'COPY log' ELSE 'COPY log, line 3500' END,
          'COPY names the line of a key that was there');
SELECT load_error('plain', content, true) FROM bad WHERE what ~ 'key twice' \g /dev/null
SELECT ok(copy_context('log') = 'COPY log' OR NOT :'v16', 'COPY names no wrong line');

-- An error in an expression names its row's line.
CREATE INDEX ON log_0 ((1000000 / (k - 4321)));
SELECT format('COPY (SELECT g, hash_of(g + 5000, 3)::uuid, g FROM generate_series(1, 6000) g) TO %L', path()) \gexec
SELECT ok(copy_context('log') = CASE WHEN :'v16' THEN 'COPY log' ELSE 'COPY log, line 4321' END,
          'COPY names the line whose expression fails');

-- A caught error leaves nothing behind.
DO $$
BEGIN
  INSERT INTO log SELECT g, hash_of(g, 3)::uuid, -g FROM generate_series(1, 6000) g;
EXCEPTION WHEN unique_violation THEN
  INSERT INTO log SELECT g, hash_of(g + 10000, 3)::uuid, -g FROM generate_series(1, 6000) g;
END $$;
SELECT is((SELECT count(*) FROM log), 11000::bigint, 'a block goes on after an error');
SELECT is_empty('SELECT wrong_indexes(''log'')', 'all have the right entries');

-- A deferred constraint is checked later.
DROP FOREIGN TABLE log CASCADE;
DROP TABLE plain CASCADE;
CREATE TABLE plain (id int, c uuid UNIQUE DEFERRABLE INITIALLY DEFERRED, k int);
CREATE INDEX ON plain (k);
CREATE FOREIGN TABLE log (id int, c uuid, k int) SERVER shards OPTIONS (shards '1', template 'plain');
SELECT lives_ok($$INSERT INTO log SELECT g, hash_of(g % 5900, 3)::uuid, hashint4(g) FROM generate_series(1, 6000) g$$,
                'duplicates may be there for a while');
SELECT lives_ok('DELETE FROM log WHERE id > 5900; SET CONSTRAINTS ALL IMMEDIATE', '... until they are gone');
SELECT lives_ok($$SET CONSTRAINTS ALL DEFERRED;
                  INSERT INTO log SELECT g, hash_of(g % 5900, 3)::uuid, hashint4(g) FROM generate_series(6000, 12000) g$$,
                'duplicates again');
SELECT fails('SET CONSTRAINTS ALL IMMEDIATE', '23505');
DELETE FROM log WHERE id >= 6000;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is_empty('SELECT wrong_indexes(''log'')', 'all have the right entries');

--
-- those who look
--

DROP FOREIGN TABLE log CASCADE;
DROP TABLE plain CASCADE;
CREATE TABLE plain (id int, c uuid, k int, parent uuid);
CREATE UNIQUE INDEX ON plain (c);
CREATE INDEX ON plain (k);
CREATE FOREIGN TABLE log (id int, c uuid, k int, parent uuid) SERVER shards OPTIONS (shards '1', template 'plain');
CREATE FOREIGN TABLE rr (id int, c uuid, k int, parent uuid)
  SERVER shards OPTIONS (shards '2', route 'round_robin', template 'plain');
CREATE TABLE seen (who text, n bigint);

-- How many rows of the table an index shows.
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %I WHERE k >= 0', TG_ARGV[0]) INTO n;
  INSERT INTO seen VALUES (TG_ARGV[0] || ' ' || TG_LEVEL, n);
  RETURN NULL;
END $$;
SELECT format('COPY (SELECT g, hash_of(g, 5)::uuid, abs(hashint4(g)), NULL FROM generate_series(1, 6000) g) TO %L', path()) \gexec
CREATE FUNCTION load(target text, by_copy bool) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM seen;
  EXECUTE 'DELETE FROM ' || target;
  IF by_copy THEN
    EXECUTE format('COPY %s FROM %L', target, path());
  ELSE
    EXECUTE format('INSERT INTO %s SELECT g, hash_of(g, 5)::uuid, abs(hashint4(g)), NULL
                      FROM generate_series(1, 6000) g', target);
  END IF;
  RETURN (SELECT string_agg(DISTINCT who || ': ' || n, ', ' ORDER BY who || ': ' || n) FROM seen);
END $$;

CREATE TRIGGER look AFTER INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION look('log');
SELECT is(load('log', by_copy), 'log STATEMENT: 6000', 'a statement trigger sees all rows')
  FROM unnest('{f,t}'::bool[]) by_copy;
DROP TRIGGER look ON log;

CREATE TRIGGER look AFTER INSERT ON log_0 FOR EACH ROW WHEN (NEW.id % 1000 = 0) EXECUTE FUNCTION look('log');
SELECT is(load('log', by_copy), 'log ROW: 6000', 'a row trigger of the shard sees all rows')
  FROM unnest('{f,t}'::bool[]) by_copy;
DROP TRIGGER look ON log_0;

CREATE TRIGGER look AFTER INSERT ON log FOR EACH ROW WHEN (NEW.id % 1000 = 0) EXECUTE FUNCTION look('log');
SELECT is(load('log', by_copy), 'log ROW: 6000', 'a row trigger of the logical table sees all rows')
  FROM unnest('{f,t}'::bool[]) by_copy;
DROP TRIGGER look ON log;

-- Only one of the shards has a trigger, which looks at all.
CREATE TRIGGER look AFTER INSERT ON rr_1 FOR EACH ROW WHEN (NEW.id % 500 IN (0, 1)) EXECUTE FUNCTION look('rr');
SELECT is(load('rr', by_copy), 'rr ROW: 6000', 'a trigger of one shard sees the rows of others')
  FROM unnest('{f,t}'::bool[]) by_copy;
DROP TRIGGER look ON rr_1;
CREATE TRIGGER look AFTER INSERT ON rr_0 FOR EACH ROW WHEN (NEW.id % 500 IN (0, 1)) EXECUTE FUNCTION look('rr');
SELECT is(load('rr', by_copy), 'rr ROW: 6000', 'a trigger of the first shard sees the rows of others')
  FROM unnest('{f,t}'::bool[]) by_copy;
DROP TRIGGER look ON rr_0;
SELECT is_empty('SELECT wrong_indexes(''rr'')', 'all have the right entries');

-- Its first row comes when entries of the other shard are just about to wait: on
-- 16 and later core hands over 512 of these lines of 128 bytes at a time.
CREATE TABLE wide (id int, k int, pad text);
CREATE INDEX ON wide (k);
CREATE FOREIGN TABLE two (id int, k int, pad text)
  SERVER shards OPTIONS (shards '2', route 'hash', key 'id', template 'wide');
CREATE TRIGGER look AFTER INSERT ON two_1 FOR EACH ROW EXECUTE FUNCTION look('two');
CREATE TABLE ids AS SELECT g AS id, shard_fdw.in_hash(2, 1, g) AS is_last FROM generate_series(10001, 18000) g;
CREATE FUNCTION load_last(n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM seen;
  DELETE FROM two;
  EXECUTE format('COPY (SELECT id, 100000000 + abs(hashint4(id)::bigint) %% 900000000, repeat(''x'', 112) FROM (
    (SELECT id FROM ids WHERE NOT is_last ORDER BY id LIMIT %1$s) UNION ALL
    (SELECT id FROM ids WHERE is_last LIMIT 1) UNION ALL
    (SELECT id FROM ids WHERE NOT is_last ORDER BY id OFFSET %1$s LIMIT 500)) i) TO %2$L', n, path());
  EXECUTE format('COPY two FROM %L', path());
  RETURN (SELECT string_agg(who || ': ' || seen.n, ', ') FROM seen);
EXCEPTION WHEN others THEN
  RETURN SQLERRM;
END $$;
SELECT is(load_last(n), 'two ROW: ' || n + 501, format('a trigger comes after %s rows', n))
  FROM generate_series(1900, 2800, 100) n;
SELECT is_empty('SELECT wrong_indexes(''two'')', 'all have the right entries');

-- A foreign key to the table itself.
DELETE FROM log;
ALTER TABLE log_0 ADD FOREIGN KEY (parent) REFERENCES log_0 (c);
SELECT lives_ok($$INSERT INTO log SELECT g, hash_of(g, 5)::uuid, abs(hashint4(g)), hash_of(6001 - g, 5)::uuid
                    FROM generate_series(1, 6000) g$$, 'a foreign key to rows of the same statement');
SELECT fails($$INSERT INTO log SELECT g, hash_of(g, 6)::uuid, abs(hashint4(g)), hash_of(g, 7)::uuid
                 FROM generate_series(1, 6000) g$$, '23503', title => 'a foreign key to rows that are not there');
DELETE FROM log;
SELECT format('COPY (SELECT g, hash_of(g, 5)::uuid, abs(hashint4(g)), hash_of(6001 - g, 5)::uuid
                       FROM generate_series(1, 6000) g) TO %L', path()) \gexec
SELECT lives_ok(format('COPY log FROM %L', path()), 'the same for COPY');
SELECT is_empty('SELECT wrong_indexes(''log'')', 'all have the right entries');

-- Several statements in one; RETURNING; functions that look.
DELETE FROM rr;
WITH one AS (INSERT INTO rr SELECT g, hash_of(g, 5)::uuid, hashint4(g) FROM generate_series(1, 6000) g),
     two AS (INSERT INTO rr SELECT g, hash_of(g, 6)::uuid, hashint4(g) FROM generate_series(1, 6000) g RETURNING id)
INSERT INTO rr SELECT id, hash_of(id, 7)::uuid, hashint4(id) FROM two;
SELECT is((SELECT count(*) FROM rr), 18000::bigint, 'a statement with three inserts');
SELECT is_empty('SELECT wrong_indexes(''rr'')', 'all have the right entries');
CREATE FUNCTION count_by_index(n int) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$ BEGIN RETURN (SELECT count(*) FROM log WHERE k >= 0); END $$;
DELETE FROM log;
INSERT INTO log (id, c, k) SELECT g, hash_of(g, 5)::uuid,
    CASE WHEN g % 1000 = 0 THEN count_by_index(g) ELSE hashint4(g) & 1073741823 END
  FROM generate_series(1, 5000) g;
SELECT is((SELECT array_agg(k ORDER BY id) FROM log WHERE id % 1000 = 0), '{999,1999,2999,3999,4999}'::int[],
          'a function that looks sees each row by the index');

SELECT * FROM finish();
ROLLBACK;
