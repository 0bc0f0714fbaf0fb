-- Hash tables as shards of hash tables.
BEGIN;
SET LOCAL client_min_messages = error;
CREATE SCHEMA nested;
SET LOCAL search_path = nested, public;
SELECT no_plan();
\ir helpers.psql

-- How evenly the rows of a table are spread: the share of its smallest shard,
-- and of its largest, of what each would have.
CREATE FUNCTION evenness(logical regclass, OUT smallest numeric, OUT largest numeric)
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('SELECT min(n) * count(*) / sum(n), max(n) * count(*) / sum(n)
                    FROM shard_fdw.list_shards(%L) s,
                         LATERAL (SELECT count(*) FROM %s t WHERE t.tableoid = s.shard) c(n)',
                 logical, logical) INTO smallest, largest;
END $$;

-- For some moduli of the outer and numbers of shards of the inner table
CREATE TABLE plain (k int, v text);
INSERT INTO plain SELECT g, 'v' || g FROM generate_series(1, 6000) g;
CREATE FUNCTION try(outer_count int, inner_count int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  title text := format('%s tables of %s shards', outer_count, inner_count);
  name text;
  worst record;
BEGIN
  CREATE FOREIGN TABLE world (k int, v text) SERVER shards OPTIONS (route 'hash', key 'k');
  FOR i IN 0 .. outer_count - 1 LOOP
    name := 'land_' || i;
    EXECUTE format('CREATE FOREIGN TABLE %I (CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(%s, %s, k))) INHERITS (world)
                    SERVER shards OPTIONS (shards %L, route ''hash'', key ''k'')',
                   name, outer_count, i, inner_count);
  END LOOP;
  INSERT INTO world TABLE plain;
  RETURN NEXT bag_eq('SELECT * FROM world', 'SELECT * FROM plain', title || ': all rows are there');
  SELECT min(e.smallest) AS smallest, max(e.largest) AS largest INTO worst
    FROM generate_series(0, outer_count - 1) g, evenness(('land_' || g)::regclass) e;
  RETURN NEXT ok(worst.smallest > 0.6 AND worst.largest < 1.4,
                 format('%s: spread evenly: %s to %s', title, worst.smallest, worst.largest));
  RETURN NEXT is((SELECT count(*) FROM plain p
                   WHERE (SELECT count(*) FROM world w WHERE w.k = p.k) <> 1 AND p.k <= 100),
                 0::bigint, title || ': each key is found');
  RETURN NEXT is((SELECT count(*) FROM plain p, LATERAL (
                   SELECT count(*) FROM land_0 l WHERE l.k = p.k) c(n)
                   WHERE p.k <= 100 AND (n = 1) <> shard_fdw.in_hash(outer_count, 0, p.k)),
                 0::bigint, title || ': each key is found in the inner table, or is not there');
  DROP FOREIGN TABLE world CASCADE;
END $$;
SELECT try(o, i) FROM (VALUES (2, 2), (2, 4), (4, 2), (3, 3), (6, 4), (4, 3)) v(o, i);

-- One by one

CREATE FOREIGN TABLE inner_table (k int, v text, CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(4, 3, k)))
SERVER shards OPTIONS (route 'hash', key 'k');
SELECT shard_fdw.create_shards('inner_table', 3);
SELECT results_eq(
  $$ SELECT pg_get_constraintdef(oid) FROM pg_constraint
      WHERE conname = 'shard_hash_2' AND conrelid::regclass::text LIKE 'inner_table%' ORDER BY conrelid::regclass::text $$,
  $$ SELECT format('CHECK (shard_fdw.in_hash(12, %s, k))', r) FROM unnest('{3,7,11}'::int[]) r $$,
  'the modulus is a multiple of that of the table');
SELECT fails('SELECT shard_fdw.create_shards($$inner_table$$, 1)', '55000',
  'cannot add 1 shards to foreign table "inner_table"', title => 'no remainder is left');
DROP TABLE inner_table_1;
SELECT results_eq($$ SELECT shard_fdw.create_shards('inner_table', 1)::text $$,
  $$ VALUES ('inner_table_3') $$, 'the remainder that is missing');
SELECT ok((SELECT pg_get_constraintdef(oid) LIKE '%(12, 7, k)%' FROM pg_constraint
            WHERE conname = 'shard_hash_2' AND conrelid = 'inner_table_3'::regclass),
  'the remainder that is missing: it is that');
INSERT INTO inner_table SELECT * FROM plain WHERE shard_fdw.in_hash(4, 3, k);
SELECT ok(shard_fdw.reshard('inner_table', 2) > 0, 'reshard()');
SELECT ok(smallest > 0.8, 'reshard() spreads the rows evenly') FROM evenness('inner_table');
SELECT bag_eq('SELECT * FROM inner_table', 'SELECT * FROM plain WHERE shard_fdw.in_hash(4, 3, k)',
  'reshard() keeps them');
SELECT k AS out FROM generate_series(1, 100) k WHERE shard_fdw.in_hash(4, 1, k) LIMIT 1 \gset
SELECT fails('INSERT INTO inner_table VALUES (' || :out || ')', '23514',
  'no shard of foreign table "inner_table" takes the row',
  'Its key (k) has the hash remainder 1 of 4. A CHECK constraint of the foreign table allows 3 only.',
  title => 'a key of another table');
SELECT fails($$ SELECT shard_fdw.reshard('inner_table', 20000) $$, '54000', title => 'too many shards');
ALTER FOREIGN TABLE inner_table OPTIONS (ADD max_shards '65536');
SELECT fails($$ SELECT shard_fdw.reshard('inner_table', 20000) $$, '55000',
  'cannot add 20000 shards to foreign table "inner_table"',
  'A CHECK constraint of the foreign table allows keys with the hash remainder 3 of 4 only, so the modulus of its shards would have to be a multiple of that, and it can be at most 65536.',
  title => 'too great a modulus');

-- The constraint comes late: half of the shards are empty, until reshard().

CREATE FOREIGN TABLE late (k int, v text) SERVER shards OPTIONS (shards '4', route 'hash', key 'k');
ALTER FOREIGN TABLE late ADD CHECK (shard_fdw.in_hash(2, 1, k));
INSERT INTO late SELECT * FROM plain WHERE shard_fdw.in_hash(2, 1, k);
SELECT is((evenness('late')).smallest, 0::numeric, 'a constraint that comes late: some shards are empty');
SELECT ok(shard_fdw.reshard('late', 4) > 0, 'reshard()');
SELECT ok(smallest > 0.8, 'reshard() spreads the rows evenly') FROM evenness('late');
SELECT bag_eq('SELECT * FROM late', 'SELECT * FROM plain WHERE shard_fdw.in_hash(2, 1, k)',
  'reshard() keeps them');

-- Another key has nothing to do with it.
CREATE FOREIGN TABLE other (k int, v text, CHECK (shard_fdw.in_hash(2, 1, k))) SERVER shards
OPTIONS (shards '2', route 'hash', key 'v');
SELECT ok((SELECT bool_and(pg_get_constraintdef(oid) LIKE '%in_hash(2, %, v)%') FROM pg_constraint
            WHERE conname = 'shard_hash' AND conrelid::regclass::text LIKE 'other%'),
  'a constraint on another key does not count');

SELECT * FROM finish();
ROLLBACK;
