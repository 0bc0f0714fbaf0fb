-- Every kind of INSERT, compared with what a plain table would do.
BEGIN;
SELECT no_plan();

\ir helpers.psql

CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE FOREIGN TABLE log (
  id bigserial,
  a int DEFAULT 7,
  msg text,
  at timestamptz DEFAULT now()
) SERVER shards OPTIONS (shards '4');

-- single rows

SELECT lives_ok($$ INSERT INTO log (msg) VALUES ('one') $$, 'a row');
SELECT results_eq('SELECT id, a, msg, at = now() FROM log',
  $$ VALUES (1::bigint, 7, 'one', true) $$, 'defaults are filled in');
SELECT is((SELECT count(DISTINCT tableoid) FROM log), 1::bigint,
  'the row is in one shard');
SELECT is((SELECT tableoid::regclass FROM log), shard_fdw.last_shard(),
  'last_shard() says which');
SELECT is_empty('SELECT * FROM ONLY log', 'none in the logical table itself');
SELECT lives_ok('INSERT INTO log DEFAULT VALUES', 'DEFAULT VALUES');
SELECT results_eq($$ INSERT INTO log VALUES (DEFAULT, DEFAULT, 'two', NULL)
                     RETURNING id, a, msg, at $$,
  $$ VALUES (3::bigint, 7, 'two', NULL::timestamptz) $$, 'DEFAULT keyword');
SELECT results_eq($$ INSERT INTO log (msg) VALUES ('three')
                     RETURNING log.msg || '!', shard_fdw.last_shard() IS NOT NULL,
                               ctid IS NOT NULL, log IS NULL $$,
  $$ VALUES ('three!', true, true, false) $$, 'RETURNING with expressions');
SELECT results_eq($$ WITH i AS (INSERT INTO log (msg) VALUES ('four') RETURNING *)
                     SELECT msg FROM i $$,
  $$ VALUES ('four') $$, 'INSERT in WITH');
SELECT results_eq('SELECT count(*) FROM log', 'VALUES (5::bigint)',
  'all rows are there');

-- several rows

DO $$ BEGIN
  INSERT INTO log (id, msg) VALUES (100, 'a'), (101, 'b'), (102, NULL);
  ASSERT (SELECT count(*) FROM log WHERE id BETWEEN 100 AND 102) = 3;
END $$;
SELECT results_eq($$ INSERT INTO log (id, msg) VALUES (110, 'a'), (111, 'b')
                     RETURNING id $$,
  'VALUES (110::bigint), (111)', 'several rows with RETURNING');
INSERT INTO log (id, msg)
SELECT 1000 + g, 'row ' || g FROM generate_series(1, 5000) g;
SELECT results_eq('SELECT count(*), min(id), max(id), count(DISTINCT msg)
                     FROM log WHERE id > 1000',
  'VALUES (5000::bigint, 1001::bigint, 6000::bigint, 5000::bigint)',
  'INSERT ... SELECT over several batches');
INSERT INTO log (id, msg) SELECT id + 100000, msg FROM log WHERE id > 1000;
SELECT results_eq('SELECT count(*) FROM log WHERE id > 100000',
  'VALUES (5000::bigint)',
  'INSERT ... SELECT from the table itself sees each row once');
INSERT INTO log (id) SELECT 1 WHERE false;
SELECT is((SELECT count(*) FROM log WHERE id = 1), 1::bigint,
  'INSERT ... SELECT of no rows');
WITH moved AS (DELETE FROM log WHERE id > 100000 RETURNING *)
INSERT INTO log (id, msg) SELECT id + 1000000, msg FROM moved;
SELECT results_eq('SELECT count(*), min(id) FROM log WHERE id > 100000',
  'VALUES (5000::bigint, 1101001::bigint)', 'DELETE and INSERT in one command');

-- a function that looks at the table sees the rows before its own

CREATE FUNCTION log_count() RETURNS bigint LANGUAGE plpgsql VOLATILE
AS 'BEGIN RETURN (SELECT count(*) FROM log); END';
TRUNCATE log;
INSERT INTO log (id) SELECT log_count() FROM generate_series(1, 5);
SELECT results_eq('SELECT id FROM log ORDER BY id',
  'VALUES (0::bigint), (1), (2), (3), (4)',
  'a volatile function in the select list');
TRUNCATE log;
INSERT INTO log (id) SELECT (SELECT log_count() + g * 0)
  FROM generate_series(1, 5) g;
SELECT results_eq('SELECT id FROM log ORDER BY id',
  'VALUES (0::bigint), (1), (2), (3), (4)',
  'a volatile function in a subquery of the select list');
TRUNCATE log;
INSERT INTO log (id) VALUES (log_count()), (log_count()), (log_count());
SELECT results_eq('SELECT id FROM log ORDER BY id',
  'VALUES (0::bigint), (1), (2)', 'a volatile function in VALUES');

-- prepared statements, PL/pgSQL, savepoints, many statements

TRUNCATE log;
PREPARE ins(bigint, text) AS INSERT INTO log (id, msg) VALUES ($1, $2);
SET LOCAL plan_cache_mode = force_generic_plan;
EXECUTE ins(1, 'p1');
EXECUTE ins(2, 'p2');
SET LOCAL plan_cache_mode = force_custom_plan;
EXECUTE ins(3, 'p3');
RESET plan_cache_mode;
SELECT results_eq('SELECT id, msg FROM log ORDER BY id',
  $$ VALUES (1::bigint, 'p1'), (2, 'p2'), (3, 'p3') $$, 'prepared statement');
DO $$ BEGIN
  FOR i IN 1..1000 LOOP
    INSERT INTO log (id, msg) VALUES (i + 10, 'loop');
  END LOOP;
END $$;
SELECT is((SELECT count(*) FROM log WHERE msg = 'loop'), 1000::bigint,
  'a thousand statements in a loop');
SAVEPOINT s;
INSERT INTO log (id, msg) VALUES (5000, 'gone');
INSERT INTO log (id, msg) SELECT g, 'gone' FROM generate_series(6000, 8000) g;
ROLLBACK TO s;
SELECT is((SELECT count(*) FROM log WHERE msg = 'gone'), 0::bigint,
  'nothing is left after ROLLBACK TO SAVEPOINT');
INSERT INTO log (id, msg) VALUES (5000, 'stays');
SELECT is((SELECT count(*) FROM log WHERE msg = 'stays'), 1::bigint,
  'the table takes inserts afterwards');
SELECT fails($$ INSERT INTO log (id, msg)
                    SELECT g, 1 / (2500 - g) FROM generate_series(1, 3000) g $$, '22012',
  title => 'a statement that fails in the middle');
SELECT is((SELECT count(*) FROM log), 1004::bigint,
  'a statement that fails in the middle leaves nothing behind');

-- several logical tables in one transaction and in one statement

CREATE FOREIGN TABLE other (id int, msg text) SERVER shards
OPTIONS (shards '3', route 'round_robin');
WITH a AS (INSERT INTO log (id, msg)
           SELECT g, 'both' FROM generate_series(20001, 20500) g RETURNING id, msg)
INSERT INTO other SELECT id, msg FROM a;
SELECT results_eq(
  $$ SELECT (SELECT count(*) FROM log WHERE msg = 'both'),
            (SELECT count(*) FROM other) $$,
  'VALUES (500::bigint, 500::bigint)', 'two logical tables in one command');
WITH a AS (INSERT INTO other SELECT g, 'x' FROM generate_series(1, 10) g),
     b AS (INSERT INTO other SELECT g, 'y' FROM generate_series(1, 10) g)
INSERT INTO other SELECT g, 'z' FROM generate_series(1, 10) g;
SELECT results_eq($$ SELECT msg, count(*) FROM other
                      WHERE msg IN ('x', 'y', 'z') GROUP BY 1 ORDER BY 1 $$,
  $$ VALUES ('x', 10::bigint), ('y', 10), ('z', 10) $$,
  'one logical table three times in one command');

-- identity and generated columns

CREATE FOREIGN TABLE ident (
  id int GENERATED ALWAYS AS IDENTITY,
  n int,
  twice int GENERATED ALWAYS AS (n * 2) STORED
) SERVER shards OPTIONS (shards '2', route 'round_robin');
INSERT INTO ident (n) VALUES (10), (20), (30);
INSERT INTO ident (n) VALUES (40);
SELECT results_eq('SELECT * FROM ident ORDER BY id',
  'VALUES (1, 10, 20), (2, 20, 40), (3, 30, 60), (4, 40, 80)',
  'identity and generated columns');
SELECT fails('INSERT INTO ident (id, n) VALUES (9, 9)', '428C9',
  title => 'GENERATED ALWAYS refuses a value');
SELECT results_eq('INSERT INTO ident (id, n) OVERRIDING SYSTEM VALUE
                   VALUES (9, 9) RETURNING *',
  'VALUES (9, 9, 18)', 'GENERATED ALWAYS refuses a value, but for OVERRIDING SYSTEM VALUE');
SELECT results_eq('INSERT INTO ident (id, n) OVERRIDING USER VALUE
                   VALUES (9, 9) RETURNING *',
  'VALUES (5, 9, 18)', 'OVERRIDING USER VALUE');
SELECT fails('INSERT INTO ident (n, twice) VALUES (1, 1)', '428C9',
  title => 'a generated column refuses a value');
UPDATE ident SET n = 100 WHERE id = 1;
SELECT results_eq('SELECT twice FROM ident WHERE id = 1', 'VALUES (200)',
  'UPDATE computes generated columns');

-- composite, domain, array and toasted values

CREATE FOREIGN TABLE types (
  c pair, d positive, arr int[], j jsonb, big text, m mood, r int4range
) SERVER shards OPTIONS (shards '2', route 'round_robin');
CREATE TABLE types_plain (LIKE types);
INSERT INTO types_plain
SELECT (g, 'y' || g)::pair, g, ARRAY[g, NULL, g + 1],
       jsonb_build_object('g', g),
       (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 300) i),
       'ok', int4range(g, g + 5)
  FROM generate_series(1, 40) g;
INSERT INTO types SELECT * FROM types_plain;
INSERT INTO types SELECT * FROM types_plain WHERE d = 7;
INSERT INTO types_plain SELECT * FROM types_plain WHERE d = 7;
SELECT bag_eq('SELECT * FROM types', 'SELECT * FROM types_plain',
  'composite, domain, array, json, range and toasted values');
SELECT cmp_ok(pg_relation_size((SELECT reltoastrelid FROM pg_class
                                 WHERE oid = 'types_0'::regclass)),
  '>', 0::bigint, 'long values are toasted in the shard');
SELECT fails('INSERT INTO types (d) VALUES (-1)', '23514', title => 'the domain is checked');

-- views and rules

CREATE VIEW big AS SELECT * FROM log WHERE id > 1000000
  WITH CHECK OPTION;
INSERT INTO big (id, msg) VALUES (1000001, 'view'), (1000002, 'view');
SELECT results_eq('SELECT id FROM big ORDER BY id',
  'VALUES (1000001::bigint), (1000002)', 'INSERT through a view');
SELECT fails('INSERT INTO big (id) VALUES (1)', '44000', title => 'WITH CHECK OPTION is enforced');
SELECT fails('INSERT INTO big (id)
                  SELECT g FROM generate_series(1000003, 999999, -1) g', '44000',
  title => 'WITH CHECK OPTION is enforced, for many rows too');
SELECT is((SELECT count(*) FROM big), 2::bigint,
  'WITH CHECK OPTION is enforced, and leaves nothing behind');
UPDATE big SET msg = 'changed' WHERE id = 1000001;
DELETE FROM big WHERE id = 1000002;
SELECT results_eq('SELECT id, msg FROM big',
  $$ VALUES (1000001::bigint, 'changed') $$, 'UPDATE and DELETE through a view');
SELECT fails('CREATE RULE r AS ON INSERT TO log DO INSTEAD NOTHING', '42809',
  title => 'PostgreSQL has no rules on foreign tables');
CREATE TABLE seen (id bigint);
CREATE VIEW ruled AS SELECT id, msg FROM log;
CREATE RULE note AS ON INSERT TO ruled
  DO ALSO INSERT INTO seen VALUES (NEW.id);
CREATE RULE redirect AS ON INSERT TO ruled
  DO INSTEAD INSERT INTO log (id, msg) VALUES (NEW.id, 'rule ' || NEW.msg);
INSERT INTO ruled VALUES (77001, 'a'), (77002, 'b');
SELECT results_eq('SELECT id, msg FROM log WHERE id IN (SELECT id FROM seen)
                    ORDER BY id',
  $$ VALUES (77001::bigint, 'rule a'), (77002, 'rule b') $$,
  'rules of a view insert into the logical table');

-- ON CONFLICT and MERGE

SELECT fails('INSERT INTO log (id) VALUES (1) ON CONFLICT DO NOTHING', '0A000',
  'cannot use ON CONFLICT on foreign table "log"', title => 'ON CONFLICT is refused');
SELECT fails('INSERT INTO log (id) VALUES (1) ON CONFLICT (id) DO NOTHING', '0A000',
  'cannot use ON CONFLICT on foreign table "log"',
  title => 'ON CONFLICT is refused, with a target');
SELECT fails($$ INSERT INTO log (id) VALUES (1)
                    ON CONFLICT (id) DO UPDATE SET msg = 'x' $$, '0A000',
  'cannot use ON CONFLICT on foreign table "log"',
  title => 'ON CONFLICT is refused, with DO UPDATE');
SELECT fails('WITH i AS (INSERT INTO log (id) VALUES (1)
                             ON CONFLICT (id) DO NOTHING) SELECT 1', '0A000',
  'cannot use ON CONFLICT on foreign table "log"', title => 'ON CONFLICT is refused, in WITH');
SELECT fails('MERGE INTO log USING (VALUES (1::bigint)) v(i) ON id = i
                  WHEN NOT MATCHED THEN INSERT (id) VALUES (i)', '0A000',
  title => 'MERGE is refused');

-- shards laid out in another way

CREATE FOREIGN TABLE odd (a int, b text, c int DEFAULT 3) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE odd_order (c int, b text, a int);
CREATE TABLE odd_dropped (x int, a int, y text, b text, c int);
ALTER TABLE odd_dropped DROP COLUMN x, DROP COLUMN y;
CREATE TABLE odd_extra (extra text DEFAULT 'filled', b text, a int, c int,
                        n serial, plus int GENERATED ALWAYS AS (a + c) STORED,
                        empty int);
CREATE TABLE odd_same (a int, b text, c int);
ALTER TABLE odd_order INHERIT odd;
ALTER TABLE odd_dropped INHERIT odd;
ALTER TABLE odd_extra INHERIT odd;
ALTER TABLE odd_same INHERIT odd;
INSERT INTO odd SELECT g, 'b' || g FROM generate_series(1, 8) g;
SELECT results_eq('SELECT a, b, c FROM odd ORDER BY a',
  $$ SELECT g, 'b' || g, 3 FROM generate_series(1, 8) g $$,
  'columns are matched by name, in batches');
SELECT results_eq('INSERT INTO odd VALUES (9, $$b9$$, 30), (10, $$b10$$, 30),
                                          (11, $$b11$$, 30), (12, $$b12$$, 30)
                   RETURNING a, b, c, odd',
  $$ SELECT g, 'b' || g, 30, (g, 'b' || g, 30)::odd
       FROM generate_series(9, 12) g $$,
  'columns are matched by name, row by row, and back for RETURNING');
DO $$ BEGIN
  FOR i IN 13..16 LOOP INSERT INTO odd VALUES (i, 'b' || i); END LOOP;
END $$;
SELECT bag_eq('SELECT tableoid::regclass AS shard, count(*) FROM odd GROUP BY 1',
  $$ VALUES ('odd_dropped'::regclass, 4::bigint), ('odd_extra', 4),
            ('odd_order', 4), ('odd_same', 4) $$,
  'all shards got their share');
SELECT results_eq('SELECT extra, n, plus - a - c, empty FROM odd_extra ORDER BY n',
  $$ VALUES ('filled', 1, 0, NULL::int), ('filled', 2, 0, NULL),
            ('filled', 3, 0, NULL), ('filled', 4, 0, NULL) $$,
  'columns that only the shard has get their defaults');
ALTER FOREIGN TABLE odd ADD COLUMN d int DEFAULT 5;
INSERT INTO odd (a, b) SELECT g, 'more' FROM generate_series(17, 20) g;
SELECT results_eq('SELECT d, count(*) FROM odd GROUP BY 1',
  'VALUES (5, 20::bigint)', 'a column added later');
ALTER FOREIGN TABLE odd DROP COLUMN b;
INSERT INTO odd (a) SELECT g FROM generate_series(21, 24) g;
INSERT INTO odd (a) VALUES (25);
SELECT results_eq('SELECT count(*), sum(a), sum(c), sum(d) FROM odd',
  'VALUES (25::bigint, 325::bigint, 183::bigint, 125::bigint)',
  'a column dropped later');

SELECT * FROM finish();
ROLLBACK;
