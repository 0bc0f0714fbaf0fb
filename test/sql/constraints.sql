-- Constraints and indexes of shards are kept as if rows were inserted into
-- them directly, and errors read as those of a partition.
BEGIN;
SELECT no_plan();

\ir helpers.psql

CREATE PROCEDURE on_shards(logical regclass, command text) LANGUAGE plpgsql AS $$
DECLARE
  failed text := (SELECT min(result) FROM shard_fdw.run_command_on_shards(logical, command)
                   WHERE NOT success);
BEGIN
  ASSERT failed IS NULL, failed;
END $$;

CREATE FUNCTION rows_in(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s', target) INTO n;
  RETURN n;
END $$;

-- errors, compared with those of a partition laid out in the same way

CREATE FOREIGN TABLE same (a int NOT NULL, b text, c int DEFAULT 3, k int DEFAULT 0)
SERVER shards;
CREATE TABLE same_0 (a int NOT NULL, b text, c int, k int);
ALTER TABLE same_0 INHERIT same;
CREATE TABLE same_part (a int NOT NULL, b text, c int DEFAULT 3, k int DEFAULT 0)
PARTITION BY LIST (k);
CREATE TABLE same_part_0 (a int NOT NULL, b text, c int, k int);
ALTER TABLE same_part ATTACH PARTITION same_part_0 FOR VALUES IN (0);

CREATE FOREIGN TABLE odd (a int NOT NULL, b text, c int DEFAULT 3, k int DEFAULT 0)
SERVER shards;
CREATE TABLE odd_0 (x int, k int, c int, b text, y int, a int NOT NULL);
ALTER TABLE odd_0 DROP COLUMN x, DROP COLUMN y;
ALTER TABLE odd_0 INHERIT odd;
CREATE TABLE odd_part (a int NOT NULL, b text, c int DEFAULT 3, k int DEFAULT 0)
PARTITION BY LIST (k);
CREATE TABLE odd_part_0 (x int, k int, c int, b text, y int, a int NOT NULL);
ALTER TABLE odd_part_0 DROP COLUMN x, DROP COLUMN y;
ALTER TABLE odd_part ATTACH PARTITION odd_part_0 FOR VALUES IN (0);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY '{same,same_part,odd,odd_part}'::text[] LOOP
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT of_all CHECK (a < 1000)', t);
    EXECUTE format('ALTER TABLE %s_0 ADD CONSTRAINT of_one CHECK (c <> a)', t);
    EXECUTE format('ALTER TABLE %s_0 ADD CONSTRAINT not_valid CHECK (b <> ''no'') NOT VALID', t);
    EXECUTE format('ALTER TABLE %s_0 ADD CONSTRAINT own_oid CHECK (tableoid = ''%s_0''::regclass)',
      t, t);
    EXECUTE format('ALTER TABLE %s_0 ADD CONSTRAINT %s_uniq UNIQUE (a)', t, t);
    EXECUTE format('CREATE UNIQUE INDEX %s_expr ON %s_0 (lower(b), c) WHERE c > 5', t, t);
    EXECUTE format('INSERT INTO %s VALUES (500, ''there'', 6)', t);
    EXECUTE format('GRANT INSERT ON %s TO shard_user', t);
    EXECUTE format('GRANT INSERT (b, a), SELECT (c) ON %s TO shard_reader', t);
  END LOOP;
END $$;

CREATE FUNCTION same_error(what text, command text, expected text,
                           role text DEFAULT 'none')
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY '{same,odd}'::text[] LOOP
    RETURN NEXT is(
      (SELECT (state, message, detail, hint, constr, col)::text
         FROM diagnostics(format(command, t), role)),
      (SELECT replace((state, message, detail, hint, constr, col)::text, '_part', '')
         FROM diagnostics(format(command, t || '_part'), role)),
      format('%s (%s): the error is that of a partition', what, t));
    RETURN NEXT is((SELECT state FROM error_of(format(command, t), role)), expected,
      format('%s (%s): %s', what, t, expected));
  END LOOP;
END $$;

SELECT same_error('not null', 'INSERT INTO %s VALUES (NULL, ''x'')', '23502');
SELECT same_error('not null, column left out', 'INSERT INTO %s (b) VALUES (''x'')', '23502');
SELECT same_error('not null, several rows',
  'INSERT INTO %s VALUES (1, ''x''), (NULL, ''y''), (2, ''z'')', '23502');
SELECT same_error('not null, many rows',
  'INSERT INTO %s SELECT NULLIF(g, 35), ''x'' || g FROM generate_series(31, 39) g', '23502');
SELECT same_error('check', 'INSERT INTO %s (b, a) VALUES (''x'', 1000)', '23514');
SELECT same_error('check, RETURNING',
  'INSERT INTO %s VALUES (1, ''x''), (1001, ''y'') RETURNING a', '23514');
SELECT same_error('check of one', 'INSERT INTO %s VALUES (3, ''x'')', '23514');
SELECT same_error('check of one, many rows',
  'INSERT INTO %s SELECT g, ''x'' || g, 7 FROM generate_series(1, 9) g', '23514');
SELECT same_error('check not valid', 'INSERT INTO %s VALUES (1, ''no'')', '23514');
SELECT same_error('unique', 'INSERT INTO %s VALUES (500, ''x'')', '23505');
SELECT same_error('unique, several rows',
  'INSERT INTO %s VALUES (1, ''x''), (2, ''y''), (1, ''z'')', '23505');
SELECT same_error('unique expression, partial',
  'INSERT INTO %s VALUES (7, ''There'', 6)', '23505');
SELECT same_error('unique expression, partial, many rows',
  'INSERT INTO %s SELECT g, ''E'' || g / 2, 20 FROM generate_series(1, 9) g', '23505');
-- Who may not read the row is not shown it.
SELECT same_error('check, hidden row', 'INSERT INTO %s VALUES (1000, ''x'')',
  '23514', 'shard_user');
SELECT same_error('check, columns that were given', 'INSERT INTO %s (b, a) VALUES (''x'', 1000)',
  '23514', 'shard_reader');
SELECT same_error('not null, columns that were given',
  'INSERT INTO %s (b) SELECT ''x'' FROM generate_series(1, 3)', '23502', 'shard_reader');
SELECT same_error('unique, hidden key', 'INSERT INTO %s VALUES (500, ''x'')',
  '23505', 'shard_user');

SELECT results_eq('SELECT * FROM same', $$ VALUES (500, 'there', 6, 0) $$,
  'failed inserts have left nothing behind');
SELECT results_eq('SELECT * FROM odd', $$ VALUES (500, 'there', 6, 0) $$,
  'failed inserts have left nothing behind, in the other layout');
INSERT INTO same SELECT g, 'x' FROM generate_series(10, 20) g;
INSERT INTO odd VALUES (21, 'x');
INSERT INTO odd SELECT g, 'x' FROM generate_series(10, 20) g;
SELECT is((SELECT count(*) FROM same) + (SELECT count(*) FROM odd), 25::bigint,
  'rows that pass get in');

-- The row is shown without what only the shard has.
CREATE FOREIGN TABLE log (id int, msg text, n int DEFAULT 0) SERVER shards
OPTIONS (shards '3', route 'round_robin');
CREATE TABLE extra (own text DEFAULT 'own', n int, msg text, id int,
                    twice int GENERATED ALWAYS AS (id * 2) STORED CHECK (twice < 100));
ALTER TABLE extra INHERIT log;
SET LOCAL shard_fdw.shard = 0;
SELECT fails('INSERT INTO log VALUES (77, ''x'')', '23514',
  'new row for relation "extra" violates check constraint "extra_twice_check"',
  'Failing row contains (77, x, 0).', title => 'a shard with columns of its own');
SELECT fails('INSERT INTO log SELECT g, ''x'' FROM generate_series(40, 60) g', '23514',
  'new row for relation "extra" violates check constraint "extra_twice_check"',
  'Failing row contains (50, x, 0).', title => 'a shard with columns of its own, in a batch');
ALTER TABLE extra ALTER own DROP DEFAULT, ALTER own SET NOT NULL;
SELECT fails('INSERT INTO log VALUES (7, ''x'')', '23502',
  'null value in column "own" of relation "extra" violates not-null constraint',
  'Failing row contains (7, x, 0).', title => 'a column that only the shard has, not null');
CREATE DOMAIN given AS text NOT NULL;
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN preset AS int DEFAULT 42 NOT NULL;
ALTER TABLE extra DROP COLUMN own, ADD COLUMN own given, ADD COLUMN p preset;
SELECT fails('INSERT INTO log VALUES (7, ''x'')', '23502',
  'domain given does not allow null values',
  title => 'a column that only the shard has, not null, of a domain that is not null, as in a '
           'direct insert');
SELECT fails('INSERT INTO log SELECT g FROM generate_series(1, 3) g', '23502',
  'domain given does not allow null values',
  title => 'a column that only the shard has, not null, in a batch');
ALTER TABLE extra DROP COLUMN own;
INSERT INTO log VALUES (7, 'x'), (8, 'x');
SELECT results_eq('SELECT DISTINCT p::int FROM extra', 'VALUES (42)',
  'the default of a domain');
RESET shard_fdw.shard;
DROP TABLE extra;

-- checks on the logical table and on shards

ALTER FOREIGN TABLE log ADD CONSTRAINT here CHECK (n < 100) NO INHERIT;
INSERT INTO log VALUES (1, 'x', 500);
INSERT INTO log SELECT g, 'x', 500 FROM generate_series(2, 4) g;
SELECT is((SELECT count(*) FROM log WHERE n = 500), 4::bigint,
  'NO INHERIT on the logical table is about rows it does not have');
ALTER FOREIGN TABLE log DROP CONSTRAINT here;
TRUNCATE log;
ALTER TABLE log_1 ADD CONSTRAINT own CHECK (n < 100) NO INHERIT;
SELECT fails('INSERT INTO log SELECT g, ''x'', 500 FROM generate_series(1, 3) g', '23514',
  'new row for relation "log_1" violates check constraint "own"',
  title => 'NO INHERIT on a shard is about its rows');
SELECT is((SELECT count(*) FROM log), 0::bigint,
  'NO INHERIT on a shard is about its rows, and rows for the other shards are not left behind');
ALTER TABLE log_1 DROP CONSTRAINT own;
INSERT INTO log SELECT g, 'x', 500 FROM generate_series(1, 3) g;
SELECT is((SELECT count(*) FROM log), 3::bigint, 'a dropped constraint is gone');
ALTER TABLE log_2 ADD CONSTRAINT one_day CHECK (n = 500);
SELECT fails('INSERT INTO log SELECT g, ''x'', 501 FROM generate_series(1, 3) g', '23514',
  title => 'a new one is noticed');
ALTER TABLE log_2 DROP CONSTRAINT one_day;
TRUNCATE log;

-- A constraint that counts rows sees those before its own.
CREATE TABLE plain (id int, msg text, n int DEFAULT 0, CHECK (rows_in('plain') < 10));
ALTER FOREIGN TABLE log ADD CONSTRAINT few CHECK (rows_in('log') < 10);
INSERT INTO plain SELECT g FROM generate_series(1, 10) g;
INSERT INTO log SELECT g FROM generate_series(1, 10) g;
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain',
  'a constraint that looks at the table is met');
TRUNCATE log, plain;
SELECT fails('INSERT INTO plain SELECT g FROM generate_series(1, 20) g', '23514',
  title => 'a constraint that looks at the table is met: it can be broken in the middle of a '
           'statement');
SELECT fails('INSERT INTO log SELECT g FROM generate_series(1, 20) g', '23514',
  title => 'a constraint that looks at the table is met, also through a logical table');
TRUNCATE log;
ALTER FOREIGN TABLE log DROP CONSTRAINT few;

-- NOT NULL of columns far to the right

CREATE FUNCTION wide(of_column text, separator text) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(format(of_column, g), separator) FROM generate_series(1, 70) g $$;
SELECT format('CREATE FOREIGN TABLE wide (%s) SERVER shards OPTIONS (shards ''2'', route '
              '''round_robin'')',
              wide('c%s int', ', ')) \gexec
ALTER TABLE wide ALTER c1 SET NOT NULL, ALTER c3 SET NOT NULL, ALTER c64 SET NOT NULL,
  ALTER c65 SET NOT NULL, ALTER c70 SET NOT NULL;
SELECT is((SELECT state || ' ' || col
             FROM diagnostics(format(command, regexp_replace(wide('%s', ','), '\m' || c || '\M',
                                                             'NULL')))),
          '23502 c' || c, format('column %s is not null, %s', c, what))
  FROM unnest('{1,3,64,65,70}'::int[]) c,
       (VALUES ('one row', 'INSERT INTO wide VALUES (%s)'),
               ('several rows', 'INSERT INTO wide VALUES (%1$s), (%1$s)'),
               ('COPY', 'COPY wide FROM PROGRAM ''echo %s'' (FORMAT csv, NULL ''NULL'')')) v (what,
               command);
SELECT format('INSERT INTO wide VALUES (%1$s), (%1$s)', regexp_replace(wide('%s', ','),
    '\m(2|63|66)\M', 'NULL', 'g')) \gexec
SELECT is((SELECT count(*) FROM wide WHERE num_nulls(c2, c63, c66) = 3), 2::bigint,
  'columns that are not constrained can be null');

-- generated columns are computed before constraints are checked

CREATE FOREIGN TABLE computed (
  a int, b int GENERATED ALWAYS AS (a + 1) STORED NOT NULL CHECK (b < 10)
) SERVER shards OPTIONS (shards '2', route 'round_robin');
INSERT INTO computed SELECT generate_series(1, 8);
INSERT INTO computed VALUES (5);
SELECT fails('INSERT INTO computed VALUES (9)', '23514', title => 'a check of a generated column');
SELECT fails('INSERT INTO computed VALUES (1), (NULL)', '23502',
  title => 'a generated column that is null');
SELECT results_eq('SELECT count(*), sum(b) FROM computed', 'VALUES (9::bigint, 50::bigint)',
  'rows whose generated column is not null get in');

SELECT current_setting('server_version_num')::int >= 160000 AS v16,
       current_setting('server_version_num')::int >= 180000 AS v18 \gset
\if :v16
-- A shard may compute a column in a way of its own.
CREATE FOREIGN TABLE ways (a int, b int GENERATED ALWAYS AS (a + 1) STORED)
SERVER shards OPTIONS (route 'round_robin');
CREATE TABLE ways_0 (a int, b int GENERATED ALWAYS AS (a - 1) STORED);
CREATE TABLE ways_1 (b int GENERATED ALWAYS AS (a * 10) STORED, a int);
ALTER TABLE ways_0 INHERIT ways;
ALTER TABLE ways_1 INHERIT ways;
CREATE TABLE returned (a int, b int);
WITH i AS (INSERT INTO ways VALUES (100), (100) RETURNING *) INSERT INTO returned SELECT * FROM i;
SELECT bag_eq('SELECT * FROM returned', 'VALUES (100, 99), (100, 1000)',
  'shards that compute a column in a way of their own');
INSERT INTO ways SELECT generate_series(1, 50);
SELECT is_empty('SELECT * FROM ways_0 WHERE b <> a - 1 UNION ALL
                 SELECT a, b FROM ways_1 WHERE b <> a * 10',
                 'shards that compute a column in a way of their own, in batches, too');
\endif
\if :v18
CREATE FOREIGN TABLE virtual (
  a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL NOT NULL CHECK (b < 10)
) SERVER shards OPTIONS (shards '2', route 'round_robin');
INSERT INTO virtual SELECT generate_series(1, 8);
INSERT INTO virtual VALUES (5);
SELECT fails('INSERT INTO virtual VALUES (9)', '23514',
  title => 'a check of a virtual generated column');
SELECT fails('INSERT INTO virtual VALUES (1), (NULL)', '23502',
  title => 'a virtual generated column that is null');
SELECT results_eq('INSERT INTO virtual VALUES (6), (7) RETURNING a, b', 'VALUES (6, 7), (7, 8)',
  'a virtual generated column that is null that is returned');
SELECT results_eq('SELECT count(*), sum(b) FROM virtual', 'VALUES (11::bigint, 65::bigint)',
  'a virtual generated column that is null, and read');
ALTER TABLE virtual_0 ADD CONSTRAINT lax CHECK (false) NOT ENFORCED;
INSERT INTO virtual VALUES (1), (2), (3), (4);
SELECT is((SELECT state FROM shard_fdw.shards WHERE shard = 'virtual_0'::regclass), 'open',
  'a constraint that is not enforced seals nothing');
SELECT is((SELECT count(*) FROM virtual), 15::bigint,
  'a constraint that is not enforced seals nothing, and stops no row');
\endif

-- unique constraints and primary keys

CREATE FOREIGN TABLE keyed (id int, v int) SERVER shards
OPTIONS (shards '2', route 'round_robin');
CALL on_shards('keyed', 'ALTER TABLE %s ADD PRIMARY KEY (id)');
CALL on_shards('keyed', 'ALTER TABLE %s ADD UNIQUE NULLS NOT DISTINCT (v)');
SELECT fails('INSERT INTO keyed VALUES (NULL, 1)', '23502', title => 'a primary key is not null');
INSERT INTO keyed VALUES (1, 1), (2, 2), (3, 3), (4, 4);
SELECT fails('INSERT INTO keyed SELECT g, g FROM generate_series(5, 1, -1) g', '23505',
  title => 'a duplicate in a batch');
INSERT INTO keyed VALUES (5, NULL), (6, NULL);
SELECT fails('INSERT INTO keyed VALUES (7, NULL)', '23505', title => 'NULLS NOT DISTINCT');
SET LOCAL shard_fdw.shard = 1;
SELECT fails('INSERT INTO keyed SELECT id, -id FROM keyed_1', '23505',
  title => 'unique within a shard');
INSERT INTO keyed SELECT id, -id FROM keyed_0;
SELECT is((SELECT count(*) FROM keyed), 9::bigint, 'unique within a shard, not beyond');
SELECT fails('UPDATE keyed SET id = 1 WHERE tableoid = ''keyed_1''::regclass', '23505',
  title => 'unique within a shard, also for UPDATE');
RESET shard_fdw.shard;

-- deferrable ones: checked at the end of the statement or of the transaction

CREATE FOREIGN TABLE later (id int, v int) SERVER shards
OPTIONS (shards '2', route 'round_robin');
CALL on_shards('later', 'ALTER TABLE %s ADD UNIQUE (id) DEFERRABLE');
CALL on_shards('later', 'ALTER TABLE %s ADD EXCLUDE (v WITH =) DEFERRABLE');
INSERT INTO later SELECT g, g FROM generate_series(1, 10) g;
SELECT fails('INSERT INTO later VALUES (1, 21), (2, 22), (1, 23), (2, 24)', '23505',
  title => 'a deferrable unique constraint, several rows');
SELECT fails('INSERT INTO later SELECT g / 5, g FROM generate_series(55, 80) g', '23505',
  title => 'a deferrable unique constraint, several rows, in a batch');
SELECT fails('COPY later FROM PROGRAM ''seq 55 80 | sed "s/[0-9]*/x,&/; s/x/77/"'' (FORMAT csv)',
  '23505', title => 'a deferrable unique constraint, several rows, in COPY');
SET LOCAL shard_fdw.shard = 0;
SELECT fails('INSERT INTO later SELECT id, 99 FROM later_0 LIMIT 1', '23505',
  title => 'a deferrable unique constraint, several rows: a single row');
SELECT fails('INSERT INTO later SELECT 99, v FROM later_0 LIMIT 1', '23P01',
  title => 'a deferrable exclusion constraint');
SELECT fails('INSERT INTO later VALUES (98, 98), (99, 98)', '23P01',
  title => 'a deferrable exclusion constraint: several rows');
UPDATE later SET id = id + 1;
SELECT is((SELECT sum(id) FROM later), 65::bigint,
  'UPDATE may swap keys within a statement');

SET CONSTRAINTS ALL DEFERRED;
INSERT INTO later SELECT id, v FROM later_0 ORDER BY v LIMIT 3;
INSERT INTO later SELECT max(id), max(v) FROM later_0;
SELECT is((SELECT count(*) FROM later), 14::bigint,
  'duplicates wait while constraints are deferred');
SELECT fails('SET CONSTRAINTS ALL IMMEDIATE', '23505',
  title => 'duplicates wait while constraints are deferred, but not for ever');
SET CONSTRAINTS ALL DEFERRED;
DELETE FROM later l USING (SELECT max(ctid) AS c, v, tableoid AS t FROM later
                            GROUP BY v, tableoid HAVING count(*) > 1) d
 WHERE l.ctid = d.c AND l.tableoid = d.t;
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE',
  'duplicates wait while constraints are deferred, and can be put right');
SELECT is((SELECT count(*) FROM later), 10::bigint,
  'duplicates wait while constraints are deferred, by removing them');
SET CONSTRAINTS ALL DEFERRED;
SAVEPOINT s;
INSERT INTO later SELECT * FROM later_0;
ROLLBACK TO s;
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE',
  'duplicates that were rolled back do not matter');
RESET shard_fdw.shard;

-- exclusion constraints

CREATE FOREIGN TABLE booked (during int4range, who text) SERVER shards OPTIONS (shards '1');
ALTER TABLE booked_0 ADD EXCLUDE USING gist (during WITH &&);
INSERT INTO booked SELECT int4range(g * 10, g * 10 + 5) FROM generate_series(1, 50) g;
SELECT fails('INSERT INTO booked VALUES (''[12,20)'')', '23P01',
  detail => 'Key (during)=([12,20)) conflicts with existing key (during)=([10,15)).',
  title => 'an exclusion constraint');
SELECT fails($$ INSERT INTO booked SELECT int4range(1000 + g * 9, 1010 + g * 9)
                      FROM generate_series(1, 30) g $$, '23P01',
  title => 'an exclusion constraint, within a batch');
SELECT fails('COPY booked (during) FROM PROGRAM ''printf "[2000,2010)\\n[2009,2011)\\n"''', '23P01',
  title => 'an exclusion constraint, within a COPY');
SELECT is((SELECT count(*) FROM booked), 50::bigint,
  'an exclusion constraint: nothing is left behind');
INSERT INTO booked VALUES ('[15,20)');
SELECT is((SELECT count(*) FROM booked), 51::bigint, 'an exclusion constraint: what fits gets in');

-- foreign keys

CREATE TABLE kinds (id int PRIMARY KEY, name text);
INSERT INTO kinds SELECT g, 'kind ' || g FROM generate_series(1, 5) g;
CREATE FOREIGN TABLE refers (id int, kind int) SERVER shards
OPTIONS (shards '2', route 'round_robin');
CALL on_shards('refers', 'ALTER TABLE %s ADD CONSTRAINT kind
                            FOREIGN KEY (kind) REFERENCES kinds ON DELETE CASCADE');
SELECT fails('INSERT INTO refers VALUES (1, 6)', '23503',
  detail => 'Key (kind)=(6) is not present in table "kinds".',
  title => 'a foreign key, a single row');
SELECT fails('INSERT INTO refers SELECT g, g FROM generate_series(1, 6) g', '23503',
  title => 'a foreign key, a single row: a batch');
SELECT is_empty('SELECT * FROM refers', 'a foreign key, a single row: nothing is left behind');
INSERT INTO refers SELECT g, 1 + g % 5 FROM generate_series(1, 1200) g;
INSERT INTO refers VALUES (0, NULL);
DELETE FROM kinds WHERE id = 3;
SELECT results_eq('SELECT kind, count(*) FROM refers GROUP BY 1 ORDER BY 1',
  'VALUES (1, 240::bigint), (2, 240), (4, 240), (5, 240), (NULL, 1)',
  'ON DELETE CASCADE reaches all shards');
CALL on_shards('refers', 'ALTER TABLE %s ALTER CONSTRAINT kind DEFERRABLE');
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO refers SELECT g, 8 FROM generate_series(1, 4) g;
INSERT INTO refers VALUES (5, 8);
SELECT fails('SET CONSTRAINTS ALL IMMEDIATE', '23503',
  title => 'a deferred foreign key is checked later');
INSERT INTO kinds VALUES (8);
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE',
  'a deferred foreign key is checked later, and holds by then');
SELECT is((SELECT count(*) FROM refers WHERE kind = 8), 5::bigint,
  'a deferred foreign key is checked later, with all rows in');

-- a foreign key to a shard

ALTER TABLE keyed_0 DROP CONSTRAINT keyed_0_v_key;
CREATE TABLE child (id int REFERENCES keyed_0 ON DELETE CASCADE);
SET LOCAL shard_fdw.shard = 0;
INSERT INTO keyed VALUES (1001, 1), (1002, 2);
INSERT INTO keyed VALUES (1003, 3);
INSERT INTO child VALUES (1001), (1003);
SELECT fails('INSERT INTO child VALUES (1004)', '23503', title => 'a foreign key to a shard');
DELETE FROM keyed WHERE id = 1003;
SELECT results_eq('SELECT id FROM child', 'VALUES (1001)',
  'DELETE on the logical table cascades');
SELECT fails('UPDATE keyed SET id = 1010 WHERE id = 1001', '23503',
  title => 'UPDATE does not break the reference');
RESET shard_fdw.shard;
SELECT fails('CREATE TABLE c (id int REFERENCES keyed)', '42809',
  'referenced relation "keyed" is not a table',
  title => 'PostgreSQL has no foreign keys to foreign tables');

-- domains

CREATE FOREIGN TABLE domains (d positive, g given) SERVER shards
OPTIONS (shards '2', route 'round_robin');
SELECT fails('INSERT INTO domains VALUES (0, ''x'')', '23514',
  'value for domain positive violates check constraint "positive_check"', title => 'a domain');
SELECT fails('INSERT INTO domains SELECT 5 - g, ''x'' FROM generate_series(1, 9) g', '23514',
  title => 'a domain, in a batch');
SELECT fails('INSERT INTO domains (d) VALUES (1)', '23502',
  'domain given does not allow null values', title => 'a domain that is not null');
INSERT INTO domains SELECT g, 'x' || g FROM generate_series(1, 9) g;
SELECT results_eq('SELECT count(*), sum(d)::int FROM domains', 'VALUES (9::bigint, 45)',
  'a domain that is not null, and values that pass');

-- indexes of every kind get their entries

CREATE FOREIGN TABLE idx (id int, t text, arr int[], p point, n int) SERVER shards
OPTIONS (shards '2', route 'round_robin');
-- Entries are made for rows that come before the index and after it.
INSERT INTO idx SELECT g, 'old ' || g, ARRAY[g, g % 10], point(g, g), g
  FROM generate_series(-500, 0) g;
CALL on_shards('idx', 'CREATE INDEX ON %s USING btree (id) INCLUDE (n)');
CALL on_shards('idx', 'CREATE INDEX ON %s USING hash (t)');
CALL on_shards('idx', 'CREATE INDEX ON %s USING gin (arr)');
CALL on_shards('idx', 'CREATE INDEX ON %s USING gist (p)');
CALL on_shards('idx', 'CREATE INDEX ON %s USING spgist (p)');
CALL on_shards('idx', 'CREATE INDEX ON %s USING brin (n)');
CALL on_shards('idx', 'CREATE INDEX ON %s ((n * 2)) WHERE n % 3 = 0');
INSERT INTO idx SELECT g, 'batch ' || g, ARRAY[g, g % 10], point(g, g), g
  FROM generate_series(1, 3000) g;
INSERT INTO idx VALUES (9001, 'one', '{9001,1}', '(9001,9001)', 9001);
INSERT INTO idx VALUES (9002, 'two', '{9002,2}', '(9002,9002)', 9002),
                       (9003, 'three', '{9003,3}', '(9003,9003)', 9003);
COPY idx FROM STDIN;
9004	copy	{9004,4}	(9004,9004)	9004
9005	copy	{9005,5}	(9005,9005)	9005
\.

CREATE FUNCTION nodes(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
  RETURN QUERY SELECT DISTINCT n #>> '{}'
                 FROM jsonb_path_query(plan::jsonb, 'strict $.**."Node Type"') n;
END $$;

-- The query by the index, and by reading all.
CREATE FUNCTION by_index(query text, node text, what text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  found text;
  there text;
BEGIN
  SET LOCAL enable_indexscan = off;
  SET LOCAL enable_indexonlyscan = off;
  SET LOCAL enable_bitmapscan = off;
  EXECUTE format('SELECT string_agg(r::text, '' '' ORDER BY r::text) FROM (%s) r', query)
    INTO there;
  SET LOCAL enable_indexscan = on;
  SET LOCAL enable_indexonlyscan = on;
  PERFORM set_config('enable_bitmapscan', (node LIKE 'Bitmap%')::text, true);
  SET LOCAL enable_seqscan = off;
  EXECUTE format('SELECT string_agg(r::text, '' '' ORDER BY r::text) FROM (%s) r', query)
    INTO found;
  RETURN NEXT ok(there IS NOT NULL AND node IN (SELECT nodes(query))
                 AND 'Seq Scan' NOT IN (SELECT nodes(query)), what || ' is used');
  RETURN NEXT is(found, there, 'a domain that is not null, and finds all rows');
  SET LOCAL enable_seqscan = on;
END $$;

SELECT by_index('SELECT id, n FROM idx WHERE id IN (-3, 7, 2999, 9001, 9002, 9003, 9004, 9005)',
  'Index Only Scan', 'a btree index');
SELECT by_index('SELECT id, n FROM idx WHERE id BETWEEN -10 AND 9005',
  'Index Only Scan', 'a btree index, for a range,');
SELECT by_index('SELECT id FROM idx WHERE t = ''copy''', 'Index Scan', 'a hash index');
SELECT by_index('SELECT id FROM idx WHERE t = ''batch 1234''', 'Index Scan', 'a hash index');
SELECT by_index('SELECT id FROM idx WHERE arr @> ''{3}''', 'Bitmap Index Scan', 'a gin index');
SELECT by_index('SELECT id FROM idx WHERE p <@ box ''(2990,2990),(9004,9004)''',
  'Index Scan', 'a gist or spgist index');
SELECT by_index('SELECT id FROM idx WHERE n > 2990', 'Bitmap Index Scan', 'a brin index');
SELECT by_index('SELECT id FROM idx WHERE n % 3 = 0 AND n * 2 > 5990', 'Index Scan',
  'a partial index on an expression');
DO $$
DECLARE
  index regclass;
BEGIN
  FOR index IN SELECT i.indexrelid FROM shard_fdw.shards s
                 JOIN pg_index i ON i.indrelid = s.shard
                 JOIN pg_class c ON c.oid = i.indexrelid
                 JOIN pg_am a ON a.oid = c.relam
                WHERE s.logical = 'idx'::regclass AND a.amname = 'brin'
  LOOP
    PERFORM brin_summarize_new_values(index);
  END LOOP;
END $$;
INSERT INTO idx (n) SELECT -1000000 - g FROM generate_series(1, 10) g;
INSERT INTO idx (n) VALUES (-2000000);
SELECT by_index('SELECT n FROM idx WHERE n < -1000000', 'Bitmap Index Scan',
  'a brin index that had been summarized');

-- An index expression that fails.
CALL on_shards('idx', 'CREATE INDEX ON %s ((1000 / (id - 7777)))');
SELECT fails('INSERT INTO idx (id) SELECT g FROM generate_series(7700, 7800) g', '22012',
  title => 'an index expression may fail');
SELECT is((SELECT count(*) FROM idx WHERE id BETWEEN 7700 AND 7800), 0::bigint,
  'an index expression may fail: nothing is left behind');

-- row-level security of a shard is for those who name the shard

CALL on_shards('log', 'ALTER TABLE %s ENABLE ROW LEVEL SECURITY');
CALL on_shards('log', 'ALTER TABLE %s FORCE ROW LEVEL SECURITY');
CALL on_shards('log', 'CREATE POLICY nobody ON %s USING (false) WITH CHECK (false)');
CALL on_shards('log', 'GRANT INSERT, SELECT ON %s TO shard_user');
GRANT INSERT, SELECT ON log TO shard_user;
SET LOCAL ROLE shard_user;
INSERT INTO log VALUES (1, 'x');
INSERT INTO log SELECT g, 'x' FROM generate_series(2, 10) g;
SELECT count(*) AS through FROM log \gset
SELECT count(*) AS direct FROM log_0 \gset
SET LOCAL ROLE none;
SELECT is(:through, 10, 'policies of shards do not apply through the logical table');
SELECT is(:direct, 0,
  'policies of shards do not apply through the logical table, but do on the shard itself');
SELECT fails('INSERT INTO log_0 VALUES (1)', '42501',
  title => 'policies of shards do not apply through the logical table, also for inserts',
  role => 'shard_user');

-- storage: access methods, unlogged tables

CREATE ACCESS METHOD pile TYPE TABLE HANDLER heap_tableam_handler;
CREATE FOREIGN TABLE stored (id int, msg text) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE stored_0 (PRIMARY KEY (id)) INHERITS (stored) USING heap;
CREATE TABLE stored_1 (PRIMARY KEY (id)) INHERITS (stored) USING pile;
CREATE UNLOGGED TABLE stored_2 (PRIMARY KEY (id)) INHERITS (stored);
CREATE TABLE stored_3 (PRIMARY KEY (id)) INHERITS (stored) WITH (fillfactor = 20)
  TABLESPACE pg_default;
INSERT INTO stored SELECT g, 'row ' || g FROM generate_series(1, 4000) g;
INSERT INTO stored SELECT 4000 + g, (SELECT string_agg(md5((g * i)::text), '')
                                       FROM generate_series(1, 300) i)
  FROM generate_series(1, 8) g;
INSERT INTO stored VALUES (5001, 'x'), (5002, 'x'), (5003, 'x'), (5004, 'x');
DELETE FROM stored WHERE id BETWEEN 101 AND 200;
UPDATE stored SET msg = 'new' WHERE id BETWEEN 201 AND 300;
SELECT bag_eq('SELECT tableoid::regclass::text AS t, count(*) FROM stored GROUP BY 1',
  $$ VALUES ('stored_0', 978::bigint), ('stored_1', 978), ('stored_2', 978),
            ('stored_3', 978) $$,
  'shards with other access methods, unlogged, or with storage parameters');
SELECT results_eq('SELECT id, msg FROM stored WHERE id IN (1, 2, 3, 4, 201, 202, 203, 204)
                    ORDER BY id',
  $$ VALUES (1, 'row 1'), (2, 'row 2'), (3, 'row 3'), (4, 'row 4'),
            (201, 'new'), (202, 'new'), (203, 'new'), (204, 'new') $$,
  'shards with other access methods, unlogged, or with storage parameters hold the rows');
SELECT is((SELECT count(DISTINCT md5(msg)) FROM stored WHERE length(msg) = 9600),
  8::bigint,
  'shards with other access methods, unlogged, or with storage parameters, and the toasted ones');
SELECT results_eq($$ SELECT shard::text, kind FROM shard_fdw.shards
                      WHERE logical = 'stored'::regclass AND kind <> 'table' $$,
  $$ VALUES ('stored_2', 'unlogged table') $$, 'shard_fdw.shards tells which are unlogged');
SELECT cmp_ok(pg_relation_size('stored_3'), '>', 3 * pg_relation_size('stored_0'),
  'the fill factor is kept');

SELECT * FROM finish();
ROLLBACK;
