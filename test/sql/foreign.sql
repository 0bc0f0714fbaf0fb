-- Shards that are foreign tables: of postgres_fdw, and logical tables again.
--
-- postgres_fdw connects to this same database, and its sessions see only what
-- is committed.  So this file commits what it makes, all of it in one schema,
-- and drops that at the end.
-- A warning for each first shard on another server is not news here.
SET client_min_messages = error;
DROP SCHEMA IF EXISTS foreign_test CASCADE;
CREATE SCHEMA foreign_test;
SET search_path = foreign_test, public;
SELECT no_plan();

\ir loopback.psql

CREATE PROCEDURE on_both(command text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE replace(command, '%s', 'plain');
  EXECUTE replace(command, '%s', 'log');
END $$;

CREATE FUNCTION explain(command text, options text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
  result json;
BEGIN
  EXECUTE format('EXPLAIN (FORMAT json%s) %s', options, command) INTO result;
  RETURN result;
END $$;

\ir helpers.psql

-- Two local shards and two on the "other" server, one of them with its
-- columns in another order on either side.
CREATE FOREIGN TABLE log (id int, msg text, n int DEFAULT 7) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE plain (id int, msg text, n int DEFAULT 7);
CREATE TABLE far_1 (id int PRIMARY KEY, msg text, n int CHECK (n < 1000));
CREATE TABLE far_3 (note text DEFAULT 'far', n int CHECK (n < 1000), id int PRIMARY KEY, msg text);
CREATE TABLE log_0 (PRIMARY KEY (id)) INHERITS (log);
CREATE FOREIGN TABLE log_1 () INHERITS (log) SERVER loopback
OPTIONS (schema_name 'foreign_test', table_name 'far_1');
CREATE TABLE log_2 (PRIMARY KEY (id)) INHERITS (log);
CREATE FOREIGN TABLE log_3 (x int, msg text, n int, id int) SERVER loopback
OPTIONS (schema_name 'foreign_test', table_name 'far_3');
ALTER FOREIGN TABLE log_3 DROP COLUMN x;
ALTER FOREIGN TABLE log_3 INHERIT log;

SELECT results_eq('SELECT shard, ordinal, state, kind, server, bytes IS NULL
                     FROM shard_fdw.shards WHERE logical = $$log$$::regclass ORDER BY ordinal',
  $$ VALUES ('log_0'::regclass, 0, 'open', 'table', NULL::name, false),
            ('log_1', 1, 'open', 'foreign table', 'loopback', true),
            ('log_2', 2, 'open', 'table', NULL, false),
            ('log_3', 3, 'open', 'foreign table', 'loopback', true) $$,
  'shard_fdw.shards tells local shards from foreign ones');

-- inserts of every kind

-- How many rows each shard of log has.
CREATE FUNCTION shares() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(s.shard || ' ' || n, ', ' ORDER BY s.ordinal)
    FROM shard_fdw.shards s,
         LATERAL (SELECT count(*) FROM log l WHERE l.tableoid = s.shard) c(n)
   WHERE s.logical = 'log'::regclass
$$;

CALL on_both('INSERT INTO %s VALUES (1, ''one'')');
CALL on_both('INSERT INTO %s VALUES (2, ''two'', 2), (3, ''three'', NULL), (4, NULL, 4)');
CALL on_both('INSERT INTO %s SELECT g, ''many '' || g, g % 100 FROM generate_series(5, 4000) g');
CALL on_both('COPY %s (id, msg) FROM PROGRAM ''seq 4001 8000 | sed "s/$/,copy/"'' (FORMAT csv)');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'single rows, several, many, and COPY');
SELECT is(shares(), 'log_0 2000, log_1 2000, log_2 2000, log_3 2000',
  'single rows, several, many, and COPY, evenly spread');
SELECT bag_eq('SELECT id, msg, n FROM far_1 UNION ALL SELECT id, msg, n FROM far_3',
  'SELECT id, msg, n FROM log_1 UNION ALL SELECT id, msg, n FROM log_3',
  'single rows, several, many, and COPY, all committed on the other server');
SELECT is((SELECT count(*) FROM far_3 WHERE note = 'far'), 2000::bigint,
  'a column that only the remote table has gets its default');
SET shard_fdw.shard = 3;
INSERT INTO log VALUES (8001, 'pinned');
SELECT is(shard_fdw.last_shard(), 'log_3'::regclass, 'last_shard()');
INSERT INTO log VALUES (8002, 'pinned'), (8003, 'pinned');
COPY log FROM STDIN;
8004	pinned	1
\.
SELECT is((SELECT count(*) FROM far_3 WHERE msg = 'pinned'), 4::bigint, 'a pin on a foreign shard');
RESET shard_fdw.shard;
DELETE FROM log WHERE id > 8000;
SELECT is(shares(), 'log_0 2000, log_1 2000, log_2 2000, log_3 2000', 'DELETE reaches it');

CREATE TABLE returned (id int, msg text, n int, whole text, here bool);
WITH i AS (INSERT INTO log SELECT g, 'r' FROM generate_series(8001, 8020) g
           RETURNING id, msg, n, log::text, shard_fdw.last_shard() IS NOT NULL)
INSERT INTO returned SELECT * FROM i;
SELECT bag_eq('SELECT * FROM returned',
  $$ SELECT g, 'r' AS msg, 7 AS n, format('(%s,r,7)', g), true
    FROM generate_series(8001, 8020) g $$,
  'RETURNING');
SELECT is(shares(), 'log_0 2005, log_1 2005, log_2 2005, log_3 2005', 'RETURNING, evenly spread');

-- batches on the wire

SELECT is((SELECT count(*) FROM log WHERE id > 8000), 20::bigint, 'before batches');
DELETE FROM log WHERE id > 8000;
ALTER SERVER loopback OPTIONS (ADD batch_size '70');
CALL on_both('INSERT INTO %s SELECT g, ''batch'' FROM generate_series(8001, 12000) g');
CALL on_both('INSERT INTO %s VALUES (12001, ''a''), (12002, ''b''), (12003, ''c''), (12004, ''d'')');
CALL on_both('COPY %s (id, msg) FROM PROGRAM ''seq 12005 16000 | sed "s/$/,copy/"'' (FORMAT csv)');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'with batch_size on the server');
SELECT is(shares(), 'log_0 4000, log_1 4000, log_2 4000, log_3 4000',
  'with batch_size on the server, evenly spread');

-- errors

SELECT fails('INSERT INTO log SELECT id, ''again'' FROM log', '23505',
  title => 'a unique violation, wherever it happens');
SET shard_fdw.shard = 1;
SELECT fails('INSERT INTO log SELECT id FROM log_1 LIMIT 1', '23505',
  'duplicate key value violates unique constraint "far_1_pkey"',
  title => 'one on the other server, single row');
SELECT fails('INSERT INTO log
                       SELECT 20000 + g, ''x'', CASE g WHEN 500 THEN 1000 END FROM generate_series(1, 900) g',
  '23514', 'new row for relation "far_1" violates check constraint "far_1_n_check"',
  title => 'a check violation there, in a batch');
-- The row at fault is one of a batch, so the line may go unnamed.
SELECT results_eq($$ SELECT state, context ~ '(?n)^COPY log($|, line 500($|[:,]))'
    FROM diagnostics(
      'COPY log (id, n) FROM PROGRAM ''seq 20001 20900 | sed "s/$/,1/; 500s/,1/,1000/"'' (FORMAT '
      'csv)') $$,
  $$ VALUES ('23514', true) $$,
  'a check violation there, in a batch, in COPY, which names no wrong line');
ALTER SERVER loopback OPTIONS (DROP batch_size);
SELECT results_eq($$ SELECT state, context ~ '(?n)^COPY log($|, line 500($|[:,]))'
    FROM diagnostics(
      'COPY log (id, n) FROM PROGRAM ''seq 20001 20900 | sed "s/$/,1/; 500s/,1/,1000/"'' (FORMAT '
      'csv)') $$,
  $$ VALUES ('23514', true) $$, 'a check violation there, in a batch, nor without batches');
RESET shard_fdw.shard;
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'nothing is left behind, here or there');
SELECT fails('INSERT INTO log VALUES (1) ON CONFLICT DO NOTHING', '0A000',
  'cannot use ON CONFLICT on foreign table "log"', title => 'ON CONFLICT is refused');

-- transactions

BEGIN;
INSERT INTO log SELECT g, 'tx' FROM generate_series(30001, 30008) g;
SAVEPOINT s;
INSERT INTO log SELECT g, 'gone' FROM generate_series(30009, 30016) g;
INSERT INTO log VALUES (30017, 'gone'), (30018, 'gone');
ROLLBACK TO s;
SELECT is((SELECT count(*) FROM log WHERE id > 30000), 8::bigint, 'ROLLBACK TO SAVEPOINT');
COMMIT;
BEGIN;
INSERT INTO log SELECT g, 'gone' FROM generate_series(30009, 30016) g;
DELETE FROM log WHERE msg = 'tx';
ROLLBACK;
SELECT is((SELECT count(*) FROM log WHERE id > 30000), 8::bigint, 'ROLLBACK');
SELECT is((SELECT count(*) FROM far_1 WHERE id > 30000), 2::bigint,
  'ROLLBACK, on the other server');
DELETE FROM log WHERE id > 30000;

-- triggers

CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.msg = 'skip' THEN RETURN NULL; END IF;
  NEW.msg := upper(NEW.msg) || ' by ' || TG_TABLE_NAME;
  RETURN NEW;
END $$;
CREATE TABLE images (who text, j jsonb);
CREATE FUNCTION image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO images VALUES (TG_TABLE_NAME, to_jsonb(NEW));
  RETURN NULL;
END $$;
BEGIN;
CREATE TRIGGER shout BEFORE INSERT ON log_1 FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER shout BEFORE INSERT ON log_3 FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER image AFTER INSERT ON log_3 FOR EACH ROW EXECUTE FUNCTION image();
CREATE TRIGGER image AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION image();
WITH i AS (INSERT INTO log SELECT g, CASE WHEN g > 30016 THEN 'skip' ELSE 'loud' END
             FROM generate_series(30001, 30020) g RETURNING *)
INSERT INTO returned (id, msg, n) SELECT * FROM i;
SELECT results_eq('SELECT msg, count(*) FROM log WHERE id > 30000 GROUP BY 1 ORDER BY 1',
  $$ VALUES ('LOUD by log_1', 4::bigint), ('LOUD by log_3', 4), ('loud', 8), ('skip', 2) $$,
  'BEFORE ROW triggers on foreign shards change and skip rows');
SELECT bag_eq('SELECT id, msg, n FROM returned WHERE id > 30000',
  'SELECT * FROM log WHERE id > 30000',
  'BEFORE ROW triggers on foreign shards change and skip rows, as RETURNING shows');
SELECT bag_eq($$ SELECT j FROM images WHERE who = 'log_3' $$,
  'SELECT to_jsonb(r) FROM log_3 r WHERE id > 30000', 'AFTER ROW triggers on foreign shards');
SELECT bag_eq($$ SELECT j FROM images WHERE who = 'log' $$,
  'SELECT to_jsonb(r) FROM log r WHERE id > 30000',
  'AFTER ROW triggers on foreign shards, and on the logical table');
ROLLBACK;

-- What happens on the other server is seen here.
CREATE TRIGGER shout BEFORE INSERT ON far_1 FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER shout BEFORE INSERT ON far_3 FOR EACH ROW EXECUTE FUNCTION shout();
TRUNCATE returned;
WITH i AS (INSERT INTO log SELECT g, 'loud' FROM generate_series(30001, 30008) g
           RETURNING *)
INSERT INTO returned (id, msg, n) SELECT * FROM i;
SELECT results_eq('SELECT msg, count(*) FROM log WHERE id > 30000 GROUP BY 1 ORDER BY 1',
  $$ VALUES ('LOUD by far_1', 2::bigint), ('LOUD by far_3', 2), ('loud', 4) $$,
  'triggers on the other server change rows');
SELECT bag_eq('SELECT id, msg, n FROM returned', 'SELECT * FROM log WHERE id > 30000',
  'triggers on the other server change rows, as RETURNING shows');
TRUNCATE images;
CREATE TRIGGER image AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION image();
INSERT INTO log SELECT g, 'loud' FROM generate_series(30011, 30018) g;
SELECT bag_eq($$ SELECT j FROM images $$, 'SELECT to_jsonb(r) FROM log r WHERE id > 30010',
  'triggers on the other server change rows, and AFTER triggers of the logical table see');
DROP TRIGGER image ON log;
SET shard_fdw.shard = 1;
SELECT results_eq($$ WITH i AS (INSERT INTO log VALUES (30101, 'skip'), (30102, 'x') RETURNING id)
                     SELECT * FROM i $$, 'VALUES (30102)',
  'a row that the other server skips is not returned');
RESET shard_fdw.shard;
DROP TRIGGER shout ON far_1;
DROP TRIGGER shout ON far_3;
DELETE FROM log WHERE id > 30000;

-- reads, updates and deletes

SELECT bag_eq('SELECT n, count(*), min(id), max(msg) FROM log GROUP BY n',
  'SELECT n, count(*), min(id), max(msg) FROM plain GROUP BY n', 'aggregates');
BEGIN;
SET LOCAL enable_partitionwise_aggregate = on;
SELECT bag_eq('SELECT n, count(*), sum(id), max(msg) FROM log GROUP BY n',
  'SELECT n, count(*), sum(id), max(msg) FROM plain GROUP BY n', 'aggregates: shard by shard');
ROLLBACK;
SELECT results_eq('SELECT * FROM log WHERE id % 17 = 3 ORDER BY id LIMIT 20 OFFSET 5',
  'SELECT * FROM plain WHERE id % 17 = 3 ORDER BY id LIMIT 20 OFFSET 5', 'ORDER BY and LIMIT');
SELECT bag_eq('SELECT l.id, p.msg FROM log l JOIN plain p USING (id) WHERE l.n = 7 AND p.id < 5000',
  'SELECT id, msg FROM plain WHERE n = 7 AND id < 5000', 'joins');
SELECT results_eq('SELECT id FROM log WHERE id IN (17, 18, 19, 20) ORDER BY id FOR UPDATE',
  'VALUES (17), (18), (19), (20)', 'SELECT FOR UPDATE');
ALTER SERVER loopback OPTIONS (ADD async_capable 'true');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'asynchronous scans');
ALTER SERVER loopback OPTIONS (DROP async_capable);
CALL on_both('UPDATE %s SET msg = msg || ''!'', n = n + 1 WHERE id % 3 = 0');
CREATE TABLE other AS TABLE plain;
CALL on_both('UPDATE %s t SET n = o.n + 1 FROM other o WHERE o.id = t.id + 1 AND t.id < 100 AND '
             't.id % 2 = 0');
CALL on_both('DELETE FROM %s WHERE id % 5 = 0');
CALL on_both('DELETE FROM %s t USING other o WHERE o.id = t.id AND o.n = 50');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'UPDATE and DELETE');
SELECT bag_eq($$ WITH u AS (UPDATE log SET n = 0 WHERE id < 50 RETURNING id, msg, n) TABLE u $$,
  $$ WITH u AS (UPDATE plain SET n = 0 WHERE id < 50 RETURNING id, msg, n) TABLE u $$,
  'UPDATE and DELETE, with RETURNING');
CALL on_both('WITH d AS MATERIALIZED (SELECT * FROM %s OFFSET 0)
               INSERT INTO %s SELECT id + 100000, msg, n FROM d ORDER BY id');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'inserts from the table itself');

-- EXPLAIN

SELECT bag_eq($$ SELECT n->>'Node Type' AS t, n->>'Relation Name'
                   FROM jsonb_path_query(explain('SELECT * FROM log'),
                          'strict $.** ? (@."Node Type" like_regex "Scan")') n $$,
  $$ VALUES ('Seq Scan', 'log_0'), ('Foreign Scan', 'log_1'),
            ('Seq Scan', 'log_2'), ('Foreign Scan', 'log_3') $$,
  'foreign scans are those of foreign shards');
SELECT explain('INSERT INTO log SELECT g FROM generate_series(300001, 300008) g',
               ', ANALYZE, VERBOSE') AS plan \gset
SELECT bag_eq(format($$ SELECT s->>'Shard' AS t, (s->'Rows')::int
                          FROM jsonb_path_query(%L::jsonb, 'strict $.**."Shards"[*]') s $$,
    :'plan'),
  $$ VALUES ('log_0', 2), ('log_1', 2), ('log_2', 2), ('log_3', 2) $$,
  'EXPLAIN ANALYZE of an insert counts their rows as well');

-- sealed, read-only and missing

SELECT shard_fdw.seal('log_1');
SELECT is((SELECT state FROM shard_fdw.shards WHERE shard = 'log_1'::regclass), 'sealed',
  'a foreign shard can be sealed');
TRUNCATE log;
SELECT is((SELECT count(*) FROM far_1) + (SELECT count(*) FROM far_3), 0::bigint,
  'TRUNCATE reaches the other server');
INSERT INTO log SELECT generate_series(1, 30);
INSERT INTO log VALUES (31), (32), (33);
SELECT is(shares(), 'log_0 11, log_1 0, log_2 11, log_3 11',
  'TRUNCATE reaches the other server: it gets no rows');
SET shard_fdw.shard = 1;
SELECT fails('INSERT INTO log VALUES (1)', '55000',
  'shard "log_1" of foreign table "log" is sealed',
  title => 'TRUNCATE reaches the other server, also not by a pin');
SELECT shard_fdw.unseal('log_1');
ALTER FOREIGN TABLE log_1 OPTIONS (ADD updatable 'false');
SELECT fails('INSERT INTO log VALUES (1)', '55000', 'foreign table "log_1" does not allow inserts',
  title => 'a shard that is read only over there');
SELECT fails('INSERT INTO log SELECT generate_series(1, 9)', '55000',
  'foreign table "log_1" does not allow inserts',
  title => 'a shard that is read only over there, in a batch');
ALTER FOREIGN TABLE log_1 OPTIONS (DROP updatable, SET table_name 'nowhere');
SELECT fails('INSERT INTO log VALUES (1)', '42P01', title => 'a remote table that is missing');
ALTER FOREIGN TABLE log_1 OPTIONS (SET table_name 'far_1');
INSERT INTO log VALUES (34);
SELECT is((SELECT count(*) FROM far_1), 1::bigint, 'a remote table that is missing, and is back');
RESET shard_fdw.shard;

-- privileges: those on the logical table are enough

CREATE USER MAPPING FOR shard_user SERVER loopback OPTIONS (user 'shard_user');
GRANT USAGE ON SCHEMA foreign_test TO shard_user;
GRANT INSERT, SELECT ON log TO shard_user;
DO $$ BEGIN
  EXECUTE format('ALTER USER MAPPING FOR shard_user SERVER loopback
                  OPTIONS (SET user %L, ADD password_required ''false'')', current_user);
END $$;
BEGIN;
SET LOCAL ROLE shard_user;
INSERT INTO foreign_test.log SELECT generate_series(101, 104);
INSERT INTO foreign_test.log VALUES (105);
SELECT count(*) AS n FROM foreign_test.log WHERE id > 100 \gset
COMMIT;
SELECT is(:n, 5, 'a user with rights on the logical table only');

-- the session route: a foreign shard is leased like any other

CREATE FOREIGN TABLE remote (id int) SERVER shards;
CREATE TABLE far_0 (id int);
CREATE FOREIGN TABLE remote_0 () INHERITS (remote) SERVER loopback
OPTIONS (schema_name 'foreign_test', table_name 'far_0');
INSERT INTO remote VALUES (1);
INSERT INTO remote SELECT generate_series(2, 1500);
SELECT results_eq('SELECT shard, level FROM shard_fdw.leases
                    WHERE pid = pg_backend_pid() AND logical = $$remote$$::regclass',
  $$ VALUES ('remote_0'::regclass, 0::bigint) $$, 'a foreign shard is leased');
SELECT is((SELECT count(*) FROM far_0), 1500::bigint, 'a foreign shard is leased, and written');

-- another server's logical table as a shard

CREATE FOREIGN TABLE far_log (id int, msg text DEFAULT 'far') SERVER shards
OPTIONS (shards '3', route 'round_robin');
CREATE FOREIGN TABLE near (id int, msg text DEFAULT 'near') SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE near_0 () INHERITS (near);
CREATE FOREIGN TABLE near_1 () INHERITS (near) SERVER loopback
OPTIONS (schema_name 'foreign_test', table_name 'far_log', batch_size '10');
INSERT INTO near SELECT generate_series(1, 600);
COPY near (id) FROM PROGRAM 'seq 601 900';
INSERT INTO near VALUES (901), (902);
UPDATE near SET msg = 'even' WHERE id % 2 = 0;
DELETE FROM near WHERE id <= 100;
SELECT results_eq('SELECT count(*), sum(id), count(*) FILTER (WHERE msg = $$even$$) FROM near',
  'SELECT count(*), sum(g), count(*) FILTER (WHERE g % 2 = 0) FROM generate_series(101, 902) g',
  'a logical table of another server as a shard');
SELECT is((SELECT count(DISTINCT tableoid) FROM far_log), 3::bigint,
  'a logical table of another server as a shard spreads its rows over shards of its own');

-- logical tables in logical tables

CREATE FOREIGN TABLE world (id int, msg text, n int DEFAULT 1) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE globe (id int, msg text, n int DEFAULT 1);
CREATE TABLE world_0 () INHERITS (world);
CREATE FOREIGN TABLE world_1 (country text, n int, msg text, id int) SERVER shards
OPTIONS (route 'round_robin');
ALTER FOREIGN TABLE world_1 INHERIT world;
CREATE TABLE land_0 (PRIMARY KEY (id)) INHERITS (world_1);
CREATE FOREIGN TABLE land_1 () INHERITS (world_1) SERVER shards OPTIONS (route 'round_robin');
CREATE TABLE town_0 (id int, country text DEFAULT 'town', msg text, n int);
ALTER TABLE town_0 INHERIT land_1;
CREATE TABLE far_town (id int, msg text, n int, country text);
CREATE FOREIGN TABLE town_1 () INHERITS (land_1) SERVER loopback
OPTIONS (schema_name 'foreign_test', table_name 'far_town');

INSERT INTO world VALUES (1, 'one');
INSERT INTO world VALUES (2, 'two', 2), (3, 'three', NULL), (4, NULL, 4);
INSERT INTO world SELECT g, 'many ' || g FROM generate_series(5, 2000) g;
COPY world (id, msg) FROM PROGRAM 'seq 2001 4000 | sed "s/$/,copy/"' (FORMAT csv);
INSERT INTO globe VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', NULL), (4, NULL, 4);
INSERT INTO globe SELECT g, 'many ' || g FROM generate_series(5, 2000) g;
INSERT INTO globe SELECT g, 'copy' FROM generate_series(2001, 4000) g;
SELECT bag_eq('SELECT * FROM world', 'SELECT * FROM globe',
  'a logical table as a shard of another, three deep');
SELECT bag_eq('SELECT tableoid::regclass::text AS t, count(*) FROM world GROUP BY 1',
  $$ VALUES ('world_0', 2000::bigint), ('land_0', 1000), ('town_0', 500), ('town_1', 500) $$,
  'a logical table as a shard of another, three deep: each takes its turns');
TRUNCATE returned;
WITH i AS (INSERT INTO world SELECT g, 'r' FROM generate_series(5001, 5008) g
           RETURNING id, msg, n, world::text)
INSERT INTO returned SELECT * FROM i;
SELECT bag_eq('SELECT id, msg, n, whole FROM returned',
  $$ SELECT g, 'r' AS msg, 1 AS n, format('(%s,r,1)', g) FROM generate_series(5001, 5008) g $$,
  'a logical table as a shard of another, three deep: RETURNING');
SELECT bag_eq($$ SELECT DISTINCT n->>'Relation Name' AS t
                   FROM jsonb_path_query(explain('SELECT * FROM world'),
                          'strict $.** ? (@."Node Type" like_regex "Scan")') n $$,
  $$ VALUES ('world_0'), ('land_0'), ('town_0'), ('town_1') $$,
  'a logical table as a shard of another, three deep, only the innermost shards are scanned');
UPDATE world SET n = n + 10 WHERE id % 4 = 0;
UPDATE globe SET n = n + 10 WHERE id % 4 = 0;
DELETE FROM world WHERE id % 10 = 0 OR id > 5000;
DELETE FROM globe WHERE id % 10 = 0;
SELECT bag_eq('SELECT * FROM world', 'SELECT * FROM globe',
  'a logical table as a shard of another, three deep: UPDATE and DELETE');
SELECT results_eq('SELECT n, count(*) FROM world GROUP BY n ORDER BY n',
  'SELECT n, count(*) FROM globe GROUP BY n ORDER BY n',
  'a logical table as a shard of another, three deep: aggregates');

-- Errors from the depths.
ALTER TABLE world_0 ADD CONSTRAINT big CHECK (n < 1000);
ALTER TABLE land_0 ADD CONSTRAINT big CHECK (n < 1000);
ALTER TABLE town_0 ADD CONSTRAINT big CHECK (n < 1000);
SELECT fails('INSERT INTO world VALUES (1, ''x'', 1000), (2, ''x'', 1000)', '23514',
  title => 'a logical table as a shard of another, three deep: constraints of shards');
SET shard_fdw.shard = 0;
SELECT fails('INSERT INTO land_1 VALUES (''x'', 1000, ''x'', 1)', '23514',
  'new row for relation "town_0" violates check constraint "big"',
  title => 'a logical table as a shard of another, three deep, of one level');
SELECT fails('INSERT INTO world_1 VALUES (''x'', 1000, ''x'', 1)', '23514',
  'new row for relation "land_0" violates check constraint "big"',
  title => 'a logical table as a shard of another, three deep, of two');
RESET shard_fdw.shard;
SELECT shard_fdw.seal('world_0');
SELECT shard_fdw.seal('land_0');
SELECT shard_fdw.seal('town_1');
SELECT fails('INSERT INTO world VALUES (1, ''x'', 1000)', '23514',
  'new row for relation "town_0" violates check constraint "big"',
  title => 'a logical table as a shard of another, three deep, of three');
SELECT fails('INSERT INTO world
                       SELECT g, ''x'', g FROM generate_series(900, 1100) g', '23514',
  'new row for relation "town_0" violates check constraint "big"',
  title => 'a logical table as a shard of another, three deep, in a batch');
SELECT results_eq($$ SELECT state, context ~ '(?n)^COPY world($|, line 21($|[:,]))'
    FROM diagnostics(
      'COPY world (id, n) FROM PROGRAM ''seq 980 1100 | sed "s/.*/&,&/"'' (FORMAT csv)') $$,
  $$ VALUES ('23514', true) $$,
  'a logical table as a shard of another, three deep, in COPY, which names no wrong line');
INSERT INTO world VALUES (-1, 'deep');
SELECT is(shard_fdw.last_shard(), 'town_0'::regclass, 'last_shard() is the innermost');
SELECT shard_fdw.seal('town_0');
SELECT fails('INSERT INTO world VALUES (1)', '55000',
  'all shards of foreign table "land_1" are sealed', title => 'all shards sealed at some level');
SELECT shard_fdw.seal('land_1');
SELECT fails('INSERT INTO world VALUES (1)', '55000',
  'all shards of foreign table "world_1" are sealed',
  title => 'all shards sealed at some level, at the next');
SELECT shard_fdw.unseal(s) FROM unnest('{world_0,land_0,land_1,town_0,town_1}'::regclass[]) s;

-- Triggers and keys at every level.
CREATE TRIGGER shout BEFORE INSERT ON town_0 FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER image AFTER INSERT ON land_1 FOR EACH ROW EXECUTE FUNCTION image();
CREATE TRIGGER image AFTER INSERT ON town_0 FOR EACH ROW EXECUTE FUNCTION image();
CREATE TRIGGER image AFTER INSERT ON world FOR EACH ROW EXECUTE FUNCTION image();
TRUNCATE images, world, returned;
WITH i AS (INSERT INTO world SELECT g, 'x' FROM generate_series(1, 80) g RETURNING *)
INSERT INTO returned (id, msg, n) SELECT * FROM i;
SELECT bag_eq('SELECT id, msg, n FROM returned', 'SELECT * FROM world',
  'RETURNING shows what triggers at all levels made');
SELECT is((SELECT count(*) FROM town_0 WHERE msg = 'X by town_0'), 10::bigint,
  'RETURNING shows what triggers at all levels made, of the innermost shard');
SELECT bag_eq($$ SELECT j FROM images WHERE who = 'world' $$, 'SELECT to_jsonb(r) FROM world r',
  'AFTER triggers of the outermost table see it');
SELECT bag_eq($$ SELECT j FROM images WHERE who = 'land_1' $$, 'SELECT to_jsonb(r) FROM land_1 r',
  'AFTER triggers of the outermost table see it: those in between');
SELECT bag_eq($$ SELECT j FROM images WHERE who = 'town_0' $$, 'SELECT to_jsonb(r) FROM town_0 r',
  'AFTER triggers of the outermost table see it, and those of the shard');
DROP TRIGGER image ON world;
DROP TRIGGER image ON land_1;
TRUNCATE images, world;
INSERT INTO world SELECT g, 'x' FROM generate_series(1, 80) g;
COPY world (id, msg) FROM PROGRAM 'seq 81 160 | sed "s/$/,skip/"' (FORMAT csv);
SELECT results_eq('SELECT (SELECT count(*) FROM world), (SELECT count(*) FROM town_0), count(*) '
                  'FROM images',
  'VALUES (150::bigint, 10::bigint, 10::bigint)', 'triggers fire for many rows and COPY');

TRUNCATE images, world;
COPY world (id, msg) FROM PROGRAM 'seq 1 7776 | sed "s/$/,x/"' (FORMAT csv);
SELECT results_eq('SELECT count(*), sum(id) FROM world', 'VALUES (7776::bigint, 30236976::bigint)',
  'a long COPY');
SELECT bag_eq('SELECT j FROM images', 'SELECT to_jsonb(r) FROM town_0 r',
  'a long COPY, with AFTER triggers deep down');
DROP TRIGGER image ON town_0;
DROP TRIGGER shout ON town_0;
TRUNCATE world;
COPY world (id, msg) FROM PROGRAM 'seq 1 7776 | sed "s/$/,x/"' (FORMAT csv);
SELECT results_eq('SELECT count(*), sum(id), count(*) FILTER (WHERE tableoid = '
                  '''town_0''::regclass) FROM world',
  'VALUES (7776::bigint, 30236976::bigint, 972::bigint)', 'a long COPY, and without');

CREATE TABLE noted (id int, seen bigint);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noted SELECT NEW.id, count(*) FROM world;
  RETURN NEW;
END $$;
CREATE TRIGGER watch BEFORE INSERT ON town_0 FOR EACH ROW EXECUTE FUNCTION watch();
TRUNCATE world;
INSERT INTO world SELECT g, 'x' FROM generate_series(1, 80) g;
INSERT INTO world VALUES (81), (82), (83), (84), (85), (86), (87), (88);
COPY world (id) FROM PROGRAM 'seq 89 160';
SELECT results_eq('SELECT count(*), bool_and(seen = id - 1) FROM noted',
  'VALUES (20::bigint, true)', 'a BEFORE trigger deep down sees the rows before its own');

-- Constraints that are checked later.
CREATE TABLE kinds (n int PRIMARY KEY);
INSERT INTO kinds VALUES (1);
ALTER TABLE town_0 ADD FOREIGN KEY (n) REFERENCES kinds DEFERRABLE;
ALTER TABLE town_0 ADD UNIQUE (id) DEFERRABLE;
SELECT fails('INSERT INTO world SELECT g, ''x'', 2 FROM generate_series(1001, 1080) g', '23503',
  title => 'a foreign key deep down');
SELECT is((SELECT count(*) FROM world WHERE id > 1000), 0::bigint,
  'a foreign key deep down: nothing is left behind');
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO world SELECT g, 'x', 2 FROM generate_series(1001, 1080) g;
INSERT INTO kinds VALUES (2);
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE', 'a deferred one');
COMMIT;
SELECT is((SELECT count(*) FROM world WHERE n = 2), 80::bigint, 'a deferred one, with its rows');

-- Sessions lease at each level.
CREATE FOREIGN TABLE outer_log (id int) SERVER shards;
CREATE FOREIGN TABLE inner_log () INHERITS (outer_log) SERVER shards;
CREATE TABLE inner_log_0 () INHERITS (inner_log);
CREATE TABLE inner_log_1 () INHERITS (inner_log);
INSERT INTO outer_log VALUES (1);
INSERT INTO outer_log SELECT generate_series(2, 1500);
SELECT results_eq('SELECT logical, shard = ''inner_log''::regclass FROM shard_fdw.leases
                    WHERE pid = pg_backend_pid() AND logical::text IN (''outer_log'', ''inner_log'')
                    ORDER BY logical::text',
  $$ VALUES ('inner_log'::regclass, false), ('outer_log', true) $$,
  'a session leases at each level');
SELECT is((SELECT max(c) FROM (SELECT count(*) AS c FROM outer_log GROUP BY tableoid) x),
  1500::bigint, 'a session leases at each level, and all rows are in one shard');

-- What a foreign shard may hold is checked here: the planner relies on it.
CREATE FOREIGN TABLE placed (k int, v int NOT NULL) SERVER shards OPTIONS (route 'hash', key 'k');
CREATE TABLE far_placed_0 (k int, v int);
CREATE TABLE far_placed_1 (k int, v int);
CREATE FOREIGN TABLE placed_0 (CONSTRAINT place CHECK (shard_fdw.in_hash(2, 0, k)), CONSTRAINT small
  CHECK (v < 100)) INHERITS (placed)
  SERVER loopback OPTIONS (schema_name 'foreign_test', table_name 'far_placed_0');
CREATE FOREIGN TABLE placed_1 (CONSTRAINT place CHECK (shard_fdw.in_hash(2, 1, k)))
  INHERITS (placed)
  SERVER loopback OPTIONS (schema_name 'foreign_test', table_name 'far_placed_1');
INSERT INTO placed SELECT g, g FROM generate_series(1, 50) g;
SELECT results_eq('SELECT tableoid::regclass, count(*) = count(*) FILTER (WHERE shard_fdw.in_hash(2, CASE tableoid WHEN ''placed_0''::regclass THEN 0 ELSE 1 END, k))
                     FROM placed GROUP BY 1 ORDER BY 1', $$ VALUES ('placed_0'::regclass, true),
                       ('placed_1', true) $$, 'a hash table of foreign shards');
SELECT g AS k0 FROM generate_series(1, 50) g WHERE shard_fdw.in_hash(2, 0, g) LIMIT 1 \gset
SELECT g AS k1 FROM generate_series(1, 50) g WHERE shard_fdw.in_hash(2, 1, g) LIMIT 1 \gset
SET shard_fdw.shard = 0;
SELECT fails(format('INSERT INTO placed VALUES (%s, 1)', :k1), '23514',
  'new row for relation "placed_0" violates check constraint "place"',
  title => 'a pin on a shard that must not hold the row');
SELECT fails(format('INSERT INTO placed VALUES (%s, 1), (%s, 1)', :k0, :k1), '23514',
  title => 'a pin on a shard that must not hold the row, in a batch');
RESET shard_fdw.shard;
SELECT fails(format('INSERT INTO placed VALUES (%s, 100)', :k0), '23514',
  'new row for relation "placed_0" violates check constraint "small"',
  title => 'another constraint');
SELECT fails(format('INSERT INTO placed VALUES (%s, NULL)', :k1), '23502', title => 'NOT NULL');
CREATE FUNCTION other_key() RETURNS trigger
  LANGUAGE plpgsql AS 'BEGIN NEW.k := NEW.v; RETURN NEW; END';
CREATE TRIGGER other_key BEFORE INSERT ON placed_1 FOR EACH ROW EXECUTE FUNCTION other_key();
SELECT fails(format('INSERT INTO placed VALUES (%s, %s)', :k1, :k0), '23514',
  title => 'a trigger that changes the key');
SELECT lives_ok(format('INSERT INTO placed VALUES (%s, %s)', :k1, :k1),
  'a trigger that changes the key, or does not');
SELECT is((SELECT count(*) FROM placed), 51::bigint,
  'a trigger that changes the key, and that is all');

SET search_path = public;
DROP SCHEMA foreign_test CASCADE;
SELECT * FROM finish();
