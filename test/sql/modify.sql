-- UPDATE, DELETE, row locks, TRUNCATE, VACUUM and triggers, compared with
-- plain tables.
--
-- A command is written once, with {} after each table's name: {} is nothing
-- for the logical tables and "_twin" for plain tables with the same rows.
SELECT no_plan();
SET client_min_messages = error;

CREATE SCHEMA modify_test;
SET search_path = modify_test, public;

\ir helpers.psql

-- outside a transaction block: VACUUM, and locks that others hold

CREATE FOREIGN TABLE vac (a int, b text) SERVER shards
OPTIONS (shards '2', route 'round_robin');
ALTER TABLE vac_0 SET (autovacuum_enabled = off);
ALTER TABLE vac_1 SET (autovacuum_enabled = off);
CREATE INDEX ON vac_0 (a);
CREATE INDEX ON vac_1 (a);
INSERT INTO vac SELECT g, repeat('x', 100) FROM generate_series(1, 2000) g;
DELETE FROM vac WHERE a > 200;
SELECT pg_relation_size('vac_0') AS size_0, pg_relation_size('vac_1') AS size_1 \gset
VACUUM (ANALYZE) vac_0;
SELECT ok(pg_relation_size('vac_0') < :size_0 AND pg_relation_size('vac_1') = :size_1,
  'VACUUM of a shard truncates it, and only it');
SELECT results_eq($$ SELECT reltuples, relallvisible = relpages FROM pg_class
                      WHERE oid = 'vac_0'::regclass $$,
  'VALUES (100::real, true)',
  'VACUUM of a shard truncates it, and only it, and notes what is left');
VACUUM FULL vac_1;
SELECT cmp_ok(pg_relation_size('vac_1'), '<', :size_1::bigint, 'VACUUM FULL of a shard');
SELECT results_eq('SELECT count(*), sum(a), min(b) = max(b) FROM vac',
  'VALUES (200::bigint, 20100::bigint, true)', 'VACUUM FULL of a shard loses nothing');
SET enable_seqscan = off;
SELECT results_eq('SELECT a FROM vac WHERE a BETWEEN 99 AND 102 ORDER BY a',
  'VALUES (99), (100), (101), (102)', 'VACUUM FULL of a shard, and leaves good indexes');
RESET enable_seqscan;
DELETE FROM vac WHERE a > 100;
SELECT pg_relation_size('vac_0') AS size_0 \gset
VACUUM vac;
-- From 18 on, it goes on to the children.
SELECT current_setting('server_version_num')::int >= 180000 AS is_18 \gset
SELECT is(pg_relation_size('vac_0') < :size_0, :'is_18',
  'VACUUM of the logical table does what it does with any inheritance parent');
ANALYZE vac;
SELECT set_eq($$ SELECT attname, inherited FROM pg_stats
                  WHERE schemaname = 'modify_test' AND tablename = 'vac' $$,
  $$ VALUES ('a'::name, true), ('b', true) $$, 'ANALYZE of the logical table');

-- the second session
SELECT count(*) > 0 AS has_dblink FROM pg_available_extensions WHERE name = 'dblink' \gset
\if :has_dblink
CREATE EXTENSION dblink SCHEMA modify_test;
SELECT is(dblink_connect('other', format('host=%s port=%s dbname=%s user=%s',
    split_part(current_setting('unix_socket_directories'), ',', 1),
    current_setting('port'), current_database(), current_user)), 'OK', 'a second session');
SELECT dblink_exec('other', 'BEGIN') \gset
SELECT is((SELECT count(*) FROM dblink('other',
    'SELECT a FROM modify_test.vac WHERE a <= 10 ORDER BY a FOR UPDATE') t(a int)),
  10::bigint, 'a second session locks rows of several shards');
SELECT results_eq('SELECT a FROM vac WHERE a <= 12 ORDER BY a FOR UPDATE SKIP LOCKED',
  'VALUES (11), (12)', 'SKIP LOCKED skips them');
SELECT results_eq('SELECT a FROM vac ORDER BY a LIMIT 3 FOR UPDATE SKIP LOCKED',
  'VALUES (11), (12), (13)', 'SKIP LOCKED skips them, with ORDER BY and LIMIT');
SELECT results_eq('SELECT a FROM vac WHERE a > 8 ORDER BY a LIMIT 1 FOR KEY SHARE SKIP LOCKED',
  'VALUES (11)', 'SKIP LOCKED skips them, for the weakest lock');
SELECT fails('SELECT a FROM vac WHERE a = 10 FOR UPDATE NOWAIT', '55P03',
  title => 'NOWAIT does not wait');
SELECT fails('SELECT a FROM vac WHERE a = 9 FOR SHARE NOWAIT', '55P03',
  title => 'NOWAIT does not wait, on another shard');
SELECT lives_ok('SELECT a FROM vac WHERE a = 11 FOR UPDATE NOWAIT',
  'NOWAIT does not wait, for a free row it has not to');
SELECT dblink_exec('other', 'ROLLBACK') \gset
SELECT dblink_exec('other', 'BEGIN') \gset
SELECT is((SELECT count(*) FROM dblink('other',
    'SELECT a FROM modify_test.vac WHERE a <= 10 FOR SHARE') t(a int)),
  10::bigint, 'the second session locks in share mode');
SELECT is((SELECT count(*) FROM (SELECT a FROM vac WHERE a <= 10 FOR SHARE NOWAIT) s), 10::bigint,
  'share locks go together');
SELECT is((SELECT count(*) FROM (SELECT a FROM vac WHERE a <= 12 FOR NO KEY UPDATE SKIP LOCKED) s),
  2::bigint, 'share locks go together, and not with NO KEY UPDATE');
SELECT dblink_exec('other', 'ROLLBACK') \gset
SELECT dblink_exec('other', 'BEGIN') \gset
SELECT dblink_exec('other', 'DELETE FROM modify_test.vac WHERE a = 5') \gset
SELECT results_eq('SELECT a FROM vac WHERE a < 7 ORDER BY a FOR UPDATE SKIP LOCKED',
  'VALUES (1), (2), (3), (4), (6)', 'a row being deleted elsewhere is locked');
SELECT dblink_exec('other', 'COMMIT') \gset
SELECT results_eq('SELECT a FROM vac WHERE a < 7 ORDER BY a FOR UPDATE SKIP LOCKED',
  'VALUES (1), (2), (3), (4), (6)', 'a row being deleted elsewhere is locked, and gone then');
SELECT dblink_disconnect('other') \gset
\endif
DROP FOREIGN TABLE vac CASCADE;

BEGIN;

-- What a command returns, sorted; its row count; what it raises.
CREATE FUNCTION outcome(command text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  r record;
  n bigint;
  result text[] := '{}';
BEGIN
  BEGIN
    IF command ~* 'RETURNING|^SELECT|FOR UPDATE' THEN
      FOR r IN EXECUTE command LOOP result := result || r::text; END LOOP;
      IF command !~* 'ORDER BY [^()]*$' THEN
        result := ARRAY(SELECT u FROM unnest(result) u ORDER BY u COLLATE "C");
      END IF;
    ELSE
      EXECUTE command;
      GET DIAGNOSTICS n = ROW_COUNT;
      result := ARRAY[n::text];
    END IF;
  EXCEPTION WHEN OTHERS THEN
    result := ARRAY[sqlstate];
  END;
  RETURN result;
END $$;

CREATE TABLE tables (name text);
INSERT INTO tables VALUES ('acc'), ('ref');
CREATE FUNCTION contents(suffix text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  t text;
  r text[];
  result text[] := '{}';
BEGIN
  FOR t IN SELECT name FROM tables LOOP
    EXECUTE format('SELECT array_agg(t::text ORDER BY t::text COLLATE "C") FROM %I t',
                   t || suffix) INTO r;
    result := result || t || r;
  END LOOP;
  RETURN result;
END $$;

-- The command does the same to both: returned rows, counts, errors, contents.
CREATE FUNCTION alike(command text, description text DEFAULT NULL,
                     error text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  found text[] := outcome(replace(command, '{}', ''));
  wanted text[] := outcome(replace(command, '{}', '_twin'));
  problem text := '';
BEGIN
  IF error IS NOT NULL AND wanted <> ARRAY[error] THEN
    problem := format(E'the plain table gives %s, not %s\n', wanted, error);
  ELSIF error IS NULL AND wanted[1] ~ '^[0-9A-Z]{5}$' THEN
    problem := format(E'the plain table gives %s\n', wanted);
  ELSIF error IS NULL AND wanted IN ('{}', '{0}') AND command !~ 'nothing' THEN
    problem := E'the plain table has nothing to change\n';
  END IF;
  IF found IS DISTINCT FROM wanted THEN
    problem := problem || format(E'%s, not %s\n', left(found::text, 300), left(wanted::text, 300));
  END IF;
  IF contents('') IS DISTINCT FROM contents('_twin') THEN
    problem := problem || E'contents differ\n';
  END IF;
  RETURN ok(problem = '', coalesce(description || ': ', '') || command)
    || CASE WHEN problem <> '' THEN E'\n' || diag(problem) ELSE '' END;
END $$;

-- Shards of several layouts.
CREATE FOREIGN TABLE acc (
  id int NOT NULL, grp int DEFAULT 1, val int, txt text,
  twice int GENERATED ALWAYS AS (val * 2) STORED
) SERVER shards OPTIONS (route 'round_robin');
CREATE TABLE acc_0 (id int NOT NULL PRIMARY KEY, grp int DEFAULT 1, val int, txt text,
                    twice int GENERATED ALWAYS AS (val * 2) STORED);
CREATE TABLE acc_1 (txt text, twice int GENERATED ALWAYS AS (val * 2) STORED, val int,
  extra int DEFAULT 3,
                    grp int DEFAULT 1, id int NOT NULL PRIMARY KEY);
CREATE TABLE acc_2 (x int, id int NOT NULL, y text, grp int DEFAULT 1, val int, txt text, z int,
                    twice int GENERATED ALWAYS AS (val * 2) STORED);
ALTER TABLE acc_2 DROP x, DROP y, DROP z, ADD PRIMARY KEY (id);
CREATE UNLOGGED TABLE acc_3 (LIKE acc_0 INCLUDING ALL);
ALTER TABLE acc_0 INHERIT acc;
ALTER TABLE acc_1 INHERIT acc;
ALTER TABLE acc_2 INHERIT acc;
ALTER TABLE acc_3 INHERIT acc;
CREATE INDEX ON acc_0 (grp, val);
CREATE INDEX ON acc_1 (grp, val);
CREATE INDEX ON acc_2 (val);
CREATE TABLE acc_twin (LIKE acc_0 INCLUDING ALL);
CREATE FOREIGN TABLE ref (id int, name text) SERVER shards
  OPTIONS (shards '2', route 'round_robin');
CREATE TABLE ref_twin (id int, name text);
INSERT INTO acc_twin (id, grp, val, txt)
SELECT g, g % 10, CASE WHEN g % 7 > 0 THEN g * 31 % 100 END, 'txt ' || g
  FROM generate_series(1, 400) g;
INSERT INTO acc (id, grp, val, txt) SELECT id, grp, val, txt FROM acc_twin ORDER BY id;
INSERT INTO ref_twin SELECT g, 'ref ' || g FROM generate_series(1, 12) g;
INSERT INTO ref SELECT * FROM ref_twin;
SELECT ok(contents('') = contents('_twin'), 'both have the same rows');

-- UPDATE

SELECT alike(command) FROM (VALUES
  ('UPDATE acc{} SET val = 1000 WHERE id = 17'),
  ('UPDATE acc{} SET val = val + 1, txt = txt || ''!'' WHERE id BETWEEN 20 AND 40'),
  ('UPDATE acc{} SET val = -val WHERE grp = 4 AND val > 50'),
  ('UPDATE acc{} SET txt = NULL WHERE val IS NULL'),
  ('UPDATE acc{} SET grp = DEFAULT, val = DEFAULT WHERE id = 33'),
  ('UPDATE acc{} SET id = id + 1000 WHERE id < 20'),
  ('UPDATE acc{} SET id = -id, grp = grp + 1, val = 5, txt = ''all'' WHERE id BETWEEN 100 AND 110'),
  ('UPDATE acc{} SET (grp, txt) = (SELECT r.id, r.name FROM ref{} r WHERE r.id = acc{}.grp) WHERE '
   'val < 30'),
  ('UPDATE acc{} SET (val, txt) = (7, ''row'') WHERE id % 50 = 1'),
  ('UPDATE acc{} a SET txt = r.name FROM ref{} r WHERE r.id = a.grp AND a.val > 60'),
  ('UPDATE acc{} a SET val = b.val FROM acc{} b WHERE b.id = a.id + 1'),
  ('UPDATE acc{} a SET val = s.m FROM (SELECT grp, max(val) AS m FROM acc{} GROUP BY grp) s WHERE '
   's.grp = a.grp AND a.id < 150'),
  ('UPDATE acc{} a SET txt = ''matched'' FROM acc{} b JOIN ref{} r ON r.id = b.grp WHERE a.val = '
   'b.val AND b.id > 350'),
  ('UPDATE acc{} SET val = (SELECT count(*) FROM acc{} x WHERE x.grp = acc{}.grp) WHERE id < 60'),
  ('UPDATE acc{} SET val = val + 1 WHERE id IN (SELECT id FROM acc{} ORDER BY val NULLS LAST, id '
   'LIMIT 9)'),
  ('UPDATE acc{} SET val = 1 WHERE EXISTS (SELECT FROM ref{} r WHERE r.id = acc{}.grp AND r.id > 8)'),
  ('WITH r AS (SELECT * FROM ref{} WHERE id > 3) UPDATE acc{} SET txt = r.name FROM r WHERE r.id '
   '= grp AND acc{}.id > 300'),
  ('WITH u AS (UPDATE ref{} SET name = name || ''+'' RETURNING *) UPDATE acc{} SET txt = u.name '
   'FROM u WHERE u.id = acc{}.grp RETURNING acc{}.id'),
  ('UPDATE acc{} SET val = val RETURNING id, grp, val, txt, twice'),
  ('UPDATE acc{} SET val = 11 WHERE grp = 5 RETURNING *'),
  ('UPDATE acc{} SET txt = ''r'' WHERE id = 200 RETURNING acc{}, upper(txt), (SELECT max(name) '
   'FROM ref{})'),
  ('UPDATE acc{} a SET val = r.id FROM ref{} r WHERE r.id = a.grp AND a.id < 80 RETURNING a.id, '
   'r.name, a.twice'),
  ('UPDATE acc{} SET val = 1 WHERE false /* nothing */'),
  ('UPDATE acc{} SET val = 1 WHERE id = 5 AND id = 6 /* nothing */ RETURNING *'),
  ('UPDATE acc{} SET val = 1 WHERE id = 99999 /* nothing */'),
  ('UPDATE acc{} SET val = val + 1')
) c(command);
-- each row once, though the index scan meets the new versions
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SELECT alike('UPDATE acc{} SET id = id + 5000 WHERE id > 0');
SELECT alike('UPDATE acc{} SET id = id - 5000 WHERE id > 5000');
RESET enable_seqscan;
RESET enable_bitmapscan;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SELECT alike('UPDATE acc{} a SET txt = b.txt || r.name FROM acc{} b, ref{} r WHERE b.id = a.id - '
             '1 AND r.id = a.id % 12');
RESET enable_hashjoin;
RESET enable_mergejoin;
SELECT ok((SELECT bool_and(place = shard) FROM (
    SELECT unnest(outcome('UPDATE acc SET val = 12 WHERE id > 380 RETURNING id, tableoid::regclass')) AS place) p
  JOIN LATERAL (SELECT (id, tableoid::regclass)::text AS shard FROM acc
                 WHERE id = substring(place FROM '\d+')::int) s ON true),
  'RETURNING tableoid says where the row is');
UPDATE acc_twin SET val = 12 WHERE id > 380;
CREATE TABLE places AS SELECT id, tableoid AS place FROM acc;
SELECT alike('UPDATE acc{} SET grp = grp + 1, val = 3');
SELECT is_empty('SELECT * FROM acc JOIN places USING (id) WHERE acc.tableoid <> place',
  'an updated row stays in its shard');
SELECT is_empty('UPDATE ONLY acc SET val = 1 RETURNING *', 'UPDATE ONLY changes nothing');
SELECT ok(contents('') = contents('_twin'), 'UPDATE ONLY changes nothing, indeed');
SELECT is((SELECT array_agg(DISTINCT extra) FROM acc_1), '{3}',
  'what only the shard has is left alone');

-- errors undo all

ALTER TABLE acc_1 ADD CONSTRAINT few CHECK (grp < 900);
ALTER TABLE acc_twin ADD CONSTRAINT few CHECK (grp < 900);
SELECT alike(command, 'error', error) FROM (VALUES
  ('UPDATE acc{} SET id = NULL WHERE id > 300', '23502'),
  ('UPDATE acc{} SET grp = id + 890 WHERE id BETWEEN 1 AND 30', '23514'),
  ('UPDATE acc{} SET val = 1 / (id - 250)', '22012'),
  ('UPDATE acc{} SET id = 7', '23505'),
  ('UPDATE acc{} SET twice = 5', '428C9'),
  ('UPDATE acc{} SET nosuch = 5', '42703'),
  ('SELECT grp FROM acc{} GROUP BY grp FOR UPDATE', '0A000')
) c(command, error);

-- DELETE

SELECT alike(command) FROM (VALUES
  ('DELETE FROM acc{} WHERE id = 21'),
  ('DELETE FROM acc{} WHERE id BETWEEN 50 AND 60 RETURNING *'),
  ('DELETE FROM acc{} a USING ref{} r WHERE r.id = a.grp AND a.id % 5 = 0 RETURNING a.id, r.name'),
  ('DELETE FROM acc{} a USING acc{} b WHERE b.id = a.id + 1 AND b.id % 9 = 0'),
  ('DELETE FROM acc{} WHERE id IN (SELECT id FROM acc{} ORDER BY id DESC LIMIT 12) RETURNING acc{}'),
  ('DELETE FROM acc{} WHERE NOT EXISTS (SELECT FROM acc{} b WHERE b.id = acc{}.id + 1) AND id < 300'),
  ('DELETE FROM acc{} WHERE val = 99999 /* nothing */'),
  ('DELETE FROM acc{} WHERE false /* nothing */ RETURNING id'),
  ('WITH d AS (DELETE FROM acc{} WHERE grp = 3 RETURNING id, txt) UPDATE ref{} SET name = (SELECT '
   'max(txt) || count(*) FROM d) WHERE id < 5 RETURNING *'),
  ('WITH d AS (DELETE FROM acc{} WHERE id > 350 RETURNING *), i AS (INSERT INTO ref{} SELECT id, '
   'txt FROM d) SELECT count(*) FROM d')
) c(command);
SELECT is_empty('DELETE FROM ONLY acc RETURNING *', 'DELETE FROM ONLY deletes nothing');
WITH d AS (DELETE FROM acc WHERE (tableoid, ctid) IN
             (SELECT tableoid, ctid FROM acc ORDER BY id LIMIT 10) RETURNING id)
DELETE FROM acc_twin WHERE id IN (SELECT id FROM d);
SELECT ok(contents('') = contents('_twin'), 'DELETE by (tableoid, ctid)');
SELECT is((SELECT count(*) FROM acc_twin), (SELECT count(*) FROM acc),
  'DELETE by (tableoid, ctid), of ten rows');

-- subtransactions, and several changes of one row

INSERT INTO acc (id, grp, val, txt) SELECT g, g % 6, g % 20, 'new'
  FROM generate_series(2000, 2200) g;
INSERT INTO acc_twin (id, grp, val, txt) SELECT g, g % 6, g % 20, 'new'
  FROM generate_series(2000, 2200) g;
SAVEPOINT s;
UPDATE acc SET txt = 'gone', val = 1;
DELETE FROM acc WHERE grp < 3;
UPDATE ref SET name = 'gone';
ROLLBACK TO s;
SELECT ok(contents('') = contents('_twin'), 'ROLLBACK TO SAVEPOINT undoes changes');
SELECT alike(command, 'again and again') FROM (VALUES
  ('UPDATE acc{} SET val = val + 1 WHERE grp = 2'),
  ('UPDATE acc{} SET val = val + 1 WHERE grp = 2'),
  ('DELETE FROM acc{} WHERE grp = 2 AND val > 12'),
  ('UPDATE acc{} SET grp = 3 WHERE grp = 2')
) c(command);

-- cursors and WHERE CURRENT OF

CREATE FUNCTION walk(suffix text, query text, changes text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  c refcursor := 'walker';
  r record;
  n int := 0;
  result text := '';
BEGIN
  OPEN c FOR EXECUTE replace(query, '{}', suffix);
  LOOP
    FETCH c INTO r;
    EXIT WHEN NOT FOUND;
    n := n + 1;
    IF n % 3 > 0 THEN
      EXECUTE format(replace(changes[n % 3], '{}', suffix), r.id);
    END IF;
    result := result || r.id || ' ';
  END LOOP;
  CLOSE c;
  RETURN result;
END $$;
SELECT is(walk('', query, changes), walk('_twin', query, changes), 'WHERE CURRENT OF: ' || query)
  FROM (VALUES ('SELECT id FROM acc{} WHERE id > 2000 AND id < 2030 ORDER BY id FOR UPDATE'),
               ('SELECT id, txt FROM acc{} WHERE id BETWEEN 2030 AND 2060 ORDER BY id FOR NO KEY '
                'UPDATE'),
               ('SELECT a.id FROM acc{} a JOIN ref{} r ON r.id = a.grp WHERE a.id BETWEEN 2050 '
                'AND 2080 ORDER BY a.id FOR UPDATE OF a')) q(query),
       (VALUES (ARRAY['UPDATE acc{} SET txt = ''current %s'', val = -1 WHERE CURRENT OF walker',
                      'DELETE FROM acc{} WHERE CURRENT OF walker'])) c(changes);
SELECT ok(contents('') = contents('_twin'), 'WHERE CURRENT OF changes the right rows');
DECLARE plain_cursor CURSOR FOR SELECT id FROM acc WHERE id BETWEEN 2100 AND 2140;
MOVE 9 IN plain_cursor;
CREATE FUNCTION current_row(cursor refcursor) RETURNS int LANGUAGE plpgsql
AS 'DECLARE r record; BEGIN FETCH NEXT FROM cursor INTO r; RETURN r.id; END';
SELECT current_row('plain_cursor') AS current_id \gset
SELECT is(outcome('UPDATE acc SET txt = ''here'' WHERE CURRENT OF plain_cursor RETURNING id'),
  ARRAY[format('(%s)', :current_id)], 'WHERE CURRENT OF an unsorted cursor');
MOVE 20 IN plain_cursor;
SELECT current_row('plain_cursor') AS second_id \gset
SELECT is(outcome('DELETE FROM acc WHERE CURRENT OF plain_cursor RETURNING id'),
  ARRAY[format('(%s)', :second_id)], 'WHERE CURRENT OF an unsorted cursor, on another shard');
UPDATE acc_twin SET txt = 'here' WHERE id = :current_id;
DELETE FROM acc_twin WHERE id = :second_id;
SELECT ok(contents('') = contents('_twin'),
  'WHERE CURRENT OF an unsorted cursor, and nothing else');
SELECT is((SELECT array_agg(x::text ORDER BY x::text COLLATE "C") FROM ref x),
          (SELECT array_agg(x::text ORDER BY x::text COLLATE "C") FROM ref_twin x),
          'WHERE CURRENT OF an unsorted cursor, in no table');
CLOSE plain_cursor;

-- row locks: the same rows, and locked

SELECT alike(command, 'lock') FROM (VALUES
  ('SELECT * FROM acc{} WHERE grp = 1 FOR UPDATE'),
  ('SELECT * FROM acc{} WHERE id < 2050 ORDER BY id LIMIT 5 FOR UPDATE'),
  ('SELECT id FROM acc{} ORDER BY id DESC LIMIT 5 OFFSET 3 FOR NO KEY UPDATE'),
  ('SELECT id FROM acc{} WHERE grp = 4 FOR SHARE NOWAIT'),
  ('SELECT id FROM acc{} WHERE grp = 5 FOR KEY SHARE SKIP LOCKED'),
  ('SELECT a.id, r.name FROM acc{} a JOIN ref{} r ON r.id = a.grp WHERE a.id > 2100 FOR UPDATE'),
  ('SELECT a.id, r.name FROM acc{} a LEFT JOIN ref{} r ON r.id = a.grp FOR UPDATE OF a'),
  ('SELECT a.id, b.id AS next FROM acc{} a JOIN acc{} b ON b.id = a.id + 1 FOR UPDATE OF a FOR '
   'SHARE OF b'),
  ('SELECT * FROM (SELECT id, txt FROM acc{} WHERE val < 9 FOR UPDATE) s'),
  ('WITH l AS (SELECT id FROM acc{} WHERE grp = 0 FOR UPDATE) SELECT count(*) FROM l'),
  ('SELECT acc{}, ctid IS NULL AS n FROM acc{} WHERE id = 2079 FOR UPDATE'),
  ('SELECT id FROM acc{} WHERE id = -1 /* nothing */ FOR UPDATE')
) c(command);
SAVEPOINT s;
SELECT is((SELECT count(*) FROM (SELECT id FROM acc WHERE grp = 4 FOR UPDATE) s),
          (SELECT count(*) FROM acc_twin WHERE grp = 4), 'rows locked');
SELECT bag_eq('SELECT id FROM acc WHERE xmax = pg_current_xact_id()::xid OR xmax::text::int > 0 '
              'AND grp = 4',
  'SELECT id FROM acc_twin WHERE grp = 4', 'rows locked are marked as such in their shards');
ROLLBACK TO s;
CREATE FUNCTION nodes(query text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
  RETURN (SELECT array_agg(DISTINCT (coalesce(n->>'Relation Name' || ' ', '') || (n->>'Node Type'))
      COLLATE "C")
            FROM jsonb_path_query(plan, 'strict $.** ? (exists (@."Node Type"))') n);
END $$;
SELECT is(nodes('SELECT * FROM ref FOR UPDATE'),
  '{Append,LockRows,"ref_0 Seq Scan","ref_1 Seq Scan"}',
  'the locks are PostgreSQL''s own');
SELECT is(nodes('DELETE FROM ref'), '{Append,"ref ModifyTable","ref_0 Seq Scan","ref_1 Seq Scan"}',
  'the locks are PostgreSQL''s own, and the changes too');
SELECT is(nodes('UPDATE ONLY ref SET id = 1'), '{Result,"ref ModifyTable"}',
  'the locks are PostgreSQL''s own: ONLY scans nothing');

-- a table without shards

CREATE FOREIGN TABLE void (a int, b text) SERVER shards;
CREATE TABLE void_twin (a int, b text);
INSERT INTO tables VALUES ('void');
SELECT alike(command, 'no shards') FROM (VALUES
  ('UPDATE void{} SET a = 1 /* nothing */'),
  ('UPDATE void{} SET a = 1 /* nothing */ RETURNING *'),
  ('DELETE FROM void{} /* nothing */'),
  ('DELETE FROM void{} USING acc{} x WHERE x.id = a /* nothing */ RETURNING b'),
  ('SELECT * FROM void{} /* nothing */ FOR UPDATE'),
  ('UPDATE acc{} SET txt = b FROM void{} WHERE a = id /* nothing */'),
  ('UPDATE acc{} SET txt = ''void'' WHERE NOT EXISTS (SELECT FROM void{} WHERE a = id) AND grp = 1')
) c(command);

-- views

CREATE VIEW low AS SELECT id, val, txt FROM acc WHERE val < 50 WITH CHECK OPTION;
CREATE VIEW low_twin AS SELECT id, val, txt FROM acc_twin WHERE val < 50 WITH CHECK OPTION;
CREATE VIEW barrier WITH (security_barrier) AS SELECT id, val, txt FROM acc WHERE grp <> 3;
CREATE VIEW barrier_twin WITH (security_barrier) AS SELECT id, val, txt FROM acc_twin
  WHERE grp <> 3;
SELECT alike(command, 'view', error) FROM (VALUES
  ('UPDATE low{} SET txt = ''low'' WHERE id > 2100', NULL),
  ('UPDATE low{} SET val = 60 WHERE id > 2100', '44000'),
  ('UPDATE low{} SET val = val + 1 WHERE id < 2100 RETURNING id, val', NULL),
  ('DELETE FROM low{} WHERE val = 4 RETURNING *', NULL),
  ('UPDATE barrier{} SET txt = ''barrier'' WHERE id % 4 = 0', NULL),
  ('DELETE FROM barrier{} WHERE id % 31 = 0', NULL),
  ('SELECT id FROM barrier{} WHERE val > 3 FOR UPDATE', NULL)
) c(command, error);

-- sealed shards: rows can go, not change

SELECT shard_fdw.seal('acc_2');
SELECT fails('UPDATE acc SET val = 77 WHERE tableoid = ''acc_2''::regclass', '23514',
  title => 'rows of a sealed shard cannot be updated');
SELECT fails('UPDATE acc SET val = 77', '23514',
  title => 'rows of a sealed shard cannot be updated, nor those of the others with them');
SELECT ok(contents('') = contents('_twin'),
  'rows of a sealed shard cannot be updated, so nothing has changed');
SELECT is((SELECT count(*) FROM (SELECT FROM acc WHERE tableoid = 'acc_2'::regclass FOR UPDATE) s),
  (SELECT count(*) FROM acc_2), 'rows of a sealed shard cannot be updated, but they can be locked');
CREATE TABLE others AS SELECT id FROM acc WHERE tableoid <> 'acc_2'::regclass;
SELECT lives_ok('UPDATE acc SET val = 76 WHERE tableoid <> ''acc_2''::regclass',
  'rows of the other shards can');
UPDATE acc_twin SET val = 76 WHERE id IN (SELECT id FROM others);
SELECT ok(contents('') = contents('_twin'), 'rows of the other shards can be updated, just those');
SELECT alike('DELETE FROM acc{} WHERE id % 3 = 0 RETURNING id, txt', 'sealed');
SELECT is_empty('SELECT id FROM acc_2 WHERE id % 3 = 0',
  'sealed: rows of the sealed shard are deleted');
SELECT shard_fdw.unseal('acc_2');
SELECT alike('UPDATE acc{} SET val = val + 1, txt = ''unsealed''');

-- privileges: on the logical table, by column

GRANT USAGE ON SCHEMA modify_test TO shard_user;
GRANT SELECT ON acc TO shard_user;
GRANT UPDATE (txt) ON acc TO shard_user;
SET LOCAL ROLE shard_user;
SELECT lives_ok('UPDATE acc SET txt = ''by user'' WHERE id < 2100', 'UPDATE of a granted column');
SELECT fails('UPDATE acc SET val = 1 WHERE id < 2100', '42501',
  title => 'UPDATE of a granted column, not of another');
SELECT fails('DELETE FROM acc', '42501', title => 'UPDATE of a granted column, nor DELETE');
SELECT fails('UPDATE acc_0 SET txt = ''x''', '42501',
  title => 'UPDATE of a granted column, nor of a shard by itself');
SELECT fails('TRUNCATE acc', '42501', title => 'UPDATE of a granted column, nor TRUNCATE');
SELECT lives_ok('SELECT id FROM acc FOR UPDATE', 'a lock needs UPDATE of one column');
RESET ROLE;
UPDATE acc_twin SET txt = 'by user' WHERE id < 2100;
SELECT ok(contents('') = contents('_twin'), 'the user changed what the user may');

-- triggers, compared with an ordinary inheritance set

CREATE FOREIGN TABLE trig (a int, b text, c int) SERVER shards;
CREATE TABLE trig_twin (a int, b text, c int);
CREATE TABLE trig_0 (a int, b text, c int);
CREATE TABLE trig_1 (c int, a int, b text);
CREATE TABLE trig_twin_0 (a int, b text, c int);
CREATE TABLE trig_twin_1 (c int, a int, b text);
ALTER TABLE trig_0 INHERIT trig;
ALTER TABLE trig_1 INHERIT trig;
ALTER TABLE trig_twin_0 INHERIT trig_twin;
ALTER TABLE trig_twin_1 INHERIT trig_twin;
INSERT INTO trig_0 SELECT g, 'zero', g % 3 FROM generate_series(1, 6) g;
INSERT INTO trig_1 SELECT g % 3, g, 'one' FROM generate_series(7, 12) g;
INSERT INTO trig_twin_0 SELECT * FROM trig_0;
INSERT INTO trig_twin_1 SELECT * FROM trig_1;
CREATE TABLE fired (n serial, tbl text, trg text, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO fired (tbl, trg, what)
  VALUES (TG_TABLE_NAME, TG_NAME, concat_ws(' ', TG_WHEN, TG_LEVEL, TG_OP,
    CASE WHEN TG_LEVEL = 'ROW' AND TG_OP IN ('UPDATE', 'DELETE')
         THEN format('old %s %s %s', OLD.a, OLD.b, OLD.c) END,
    CASE WHEN TG_LEVEL = 'ROW' AND TG_OP IN ('UPDATE', 'INSERT')
         THEN format('new %s %s %s', NEW.a, NEW.b, NEW.c) END));
  IF TG_LEVEL = 'STATEMENT' OR TG_WHEN = 'AFTER' THEN RETURN NULL; END IF;
  IF TG_OP = 'DELETE' THEN RETURN CASE WHEN OLD.a % 5 > 0 THEN OLD END; END IF;
  IF NEW.b = 'skip' THEN RETURN NULL; END IF;
  NEW.b := NEW.b || ' by ' || TG_NAME;
  RETURN NEW;
END $$;
DO $$
DECLARE
  t text; i text;
BEGIN
  FOREACH t IN ARRAY ARRAY['trig', 'trig_twin'] LOOP
    EXECUTE format('CREATE TRIGGER stmt_before BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH '
                   'STATEMENT EXECUTE FUNCTION note()', t);
    EXECUTE format('CREATE TRIGGER stmt_after AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH '
                   'STATEMENT EXECUTE FUNCTION note()', t);
    EXECUTE format('CREATE TRIGGER row_before BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE '
                   'FUNCTION note()', t);
    EXECUTE format('CREATE TRIGGER row_after AFTER UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE '
                   'FUNCTION note()', t);
    FOREACH i IN ARRAY ARRAY['_0', '_1'] LOOP
      EXECUTE format('CREATE TRIGGER stmt_shard BEFORE UPDATE OR DELETE ON %I FOR EACH STATEMENT '
                     'EXECUTE FUNCTION note()', t || i);
      EXECUTE format('CREATE TRIGGER row_after_c AFTER UPDATE OF c ON %I FOR EACH ROW EXECUTE '
                     'FUNCTION note()', t || i);
      EXECUTE format('CREATE TRIGGER row_after_when AFTER UPDATE ON %I FOR EACH ROW WHEN (OLD.a '
                     '<> NEW.a) EXECUTE FUNCTION note()', t || i);
      EXECUTE format('CREATE TRIGGER row_after_del AFTER DELETE ON %I FOR EACH ROW EXECUTE '
                     'FUNCTION note()', t || i);
    END LOOP;
    EXECUTE format('CREATE TRIGGER row_before_1 BEFORE UPDATE OR DELETE ON %I FOR EACH ROW '
                   'EXECUTE FUNCTION note()', t || '_1');
    EXECUTE format('CREATE CONSTRAINT TRIGGER row_late AFTER UPDATE ON %I DEFERRABLE INITIALLY '
                   'DEFERRED FOR EACH ROW EXECUTE FUNCTION note()', t || '_0');
  END LOOP;
END $$;
INSERT INTO tables VALUES ('trig');
CREATE FUNCTION log_of(suffix text) RETURNS text[] LANGUAGE sql AS $$
  SELECT array_agg(replace(tbl, '_twin', '') || ' ' || trg || ' ' || what ORDER BY n)
    FROM fired WHERE (tbl ~ 'twin') = (suffix <> '')
$$;
SELECT alike(command, 'triggers') || E'\n' ||
       is(log_of(''), log_of('_twin'), 'fired: ' || command)
  FROM (VALUES
    ('UPDATE trig{} SET b = ''upd'' WHERE a IN (1, 2, 8)'),
    ('UPDATE trig{} SET c = c + 1 WHERE a IN (3, 9) RETURNING a, b, c'),
    ('UPDATE trig{} SET a = a + 100 WHERE c = 2 RETURNING a, b, c'),
    ('UPDATE trig{} SET b = ''skip'' WHERE a < 50 RETURNING a, b'),
    ('UPDATE trig{} SET a = a WHERE a = 4711 /* nothing */'),
    ('UPDATE trig{} SET a = a WHERE false /* nothing */'),
    ('UPDATE ONLY trig{} SET a = 1 /* nothing */'),
    ('UPDATE trig{}_1 SET c = 7 WHERE a = 12'),
    ('DELETE FROM trig{} WHERE a < 11 RETURNING a'),
    ('DELETE FROM ONLY trig{} /* nothing */'),
    ('DELETE FROM trig{} WHERE a < 11 AND a > 11 /* nothing */')
  ) c(command);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is(log_of(''), log_of('_twin'), 'deferred triggers');
SELECT cmp_ok((SELECT count(*) FROM fired WHERE trg = 'row_late'), '>', 0::bigint,
  'deferred triggers have fired');
SELECT is((SELECT count(*) FROM fired WHERE tbl = 'trig' AND what ~ 'ROW'), 0::bigint,
  'row triggers of the logical table are for rows of its own');
SELECT isnt_empty($$ SELECT FROM fired WHERE tbl = 'trig' AND what = 'AFTER STATEMENT UPDATE' $$,
  'its statement triggers are for all');
SELECT is_empty($$ SELECT FROM fired WHERE tbl = 'trig_0' AND trg = 'stmt_shard' $$,
  'statement triggers of shards are for commands that name the shard');
SET CONSTRAINTS ALL DEFERRED;
DELETE FROM tables WHERE name = 'trig';

-- foreign keys of shards, deferrable constraints

CREATE TABLE owner (id int PRIMARY KEY);
CREATE TABLE owner_twin (id int PRIMARY KEY);
INSERT INTO owner SELECT generate_series(1, 10);
INSERT INTO owner_twin SELECT generate_series(1, 10);
CREATE TABLE own_template (
  id int UNIQUE DEFERRABLE,
  casc int REFERENCES owner ON UPDATE CASCADE ON DELETE CASCADE,
  nulled int REFERENCES owner ON UPDATE CASCADE ON DELETE SET NULL,
  late int REFERENCES owner DEFERRABLE INITIALLY DEFERRED
);
CREATE FOREIGN TABLE own (id int, casc int, nulled int, late int) SERVER shards
OPTIONS (shards '3', route 'round_robin', template 'modify_test.own_template');
CREATE TABLE own_twin (
  id int UNIQUE DEFERRABLE,
  casc int REFERENCES owner_twin ON UPDATE CASCADE ON DELETE CASCADE,
  nulled int REFERENCES owner_twin ON UPDATE CASCADE ON DELETE SET NULL,
  late int REFERENCES owner_twin DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO tables VALUES ('own'), ('owner');
INSERT INTO own SELECT g, g % 9 + 1, g % 8 + 1, 10 FROM generate_series(1, 60) g;
INSERT INTO own_twin SELECT * FROM own;
SELECT alike(command, 'foreign keys', error) FROM (VALUES
  ('UPDATE owner{} SET id = 100 WHERE id = 4', NULL),
  ('DELETE FROM owner{} WHERE id = 5', NULL),
  ('DELETE FROM owner{} WHERE id = 10 AND false /* nothing */', NULL),
  ('UPDATE own{} SET casc = 999 WHERE id = 3', '23503'),
  ('UPDATE own{} SET casc = 100 WHERE casc = 1', NULL),
  ('UPDATE own{} SET id = id + 3 WHERE id > 0', NULL),
  ('UPDATE own{} SET late = 55 WHERE id = 20', NULL)
) c(command, error);
SELECT fails('SET CONSTRAINTS ALL IMMEDIATE', '23503',
  title => 'a deferred foreign key is checked');
SELECT alike('UPDATE own{} SET late = 1 WHERE late = 55');
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE', 'a shard that fails is well once mended');
SET CONSTRAINTS ALL DEFERRED;
-- a key that refers to a shard
ALTER TABLE own_1 ADD PRIMARY KEY (id);
CREATE TABLE part (id int REFERENCES own_1 ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO part SELECT id FROM own_1;
SELECT alike('UPDATE own{} SET id = id + 1000 WHERE id > 40');
SELECT bag_eq('SELECT id FROM part', 'SELECT id FROM own_1', 'ON UPDATE CASCADE from a shard');
SELECT alike('DELETE FROM own{} WHERE casc = 2');
SELECT bag_eq('SELECT id FROM part', 'SELECT id FROM own_1', 'ON DELETE CASCADE from a shard');

-- TRUNCATE

SET CONSTRAINTS ALL IMMEDIATE;
SAVEPOINT truncate;
SELECT fails('TRUNCATE own', '0A000', title => 'TRUNCATE minds foreign keys to a shard');
SELECT isnt_empty('SELECT * FROM own', 'TRUNCATE minds foreign keys to a shard, and takes nothing');
TRUNCATE own CASCADE;
SELECT is((SELECT count(*) FROM own) + (SELECT count(*) FROM part), 0::bigint,
  'TRUNCATE ... CASCADE');
SELECT isnt_empty('SELECT * FROM owner',
  'TRUNCATE ... CASCADE takes what refers to it, not what it refers to');
TRUNCATE own_twin;
INSERT INTO own VALUES (1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 1, 1), (4, 1, 1, 1);
INSERT INTO own_twin VALUES (1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 1, 1), (4, 1, 1, 1);
SELECT ok(contents('') = contents('_twin'), 'the table is filled again');
ROLLBACK TO truncate;
SELECT ok(contents('') = contents('_twin'), 'a TRUNCATE that is rolled back');

CREATE FOREIGN TABLE ids (
  i int GENERATED ALWAYS AS IDENTITY (START 50), s serial, x int
) SERVER shards OPTIONS (shards '2', route 'round_robin');
CREATE TABLE ids_twin (i int GENERATED ALWAYS AS IDENTITY (START 50), s serial, x int);
INSERT INTO tables VALUES ('ids');
SELECT alike(command, 'TRUNCATE') FROM (VALUES
  ('INSERT INTO ids{} (x) VALUES (1), (2), (3) RETURNING *'),
  ('INSERT INTO ids{} (x) SELECT generate_series(4, 9) RETURNING *'),
  ('TRUNCATE ids{} CONTINUE IDENTITY /* nothing */'),
  ('INSERT INTO ids{} (x) VALUES (1), (2), (3) RETURNING *'),
  ('TRUNCATE ids{} /* nothing */'),
  ('INSERT INTO ids{} (x) VALUES (1), (2), (3) RETURNING *'),
  ('TRUNCATE ids{} RESTART IDENTITY /* nothing */'),
  ('INSERT INTO ids{} (x) VALUES (1), (2), (3) RETURNING *'),
  ('TRUNCATE ids{}, ref{}, acc{} RESTART IDENTITY /* nothing */'),
  ('INSERT INTO ids{} (x) SELECT 5 RETURNING *')
) c(command);
SELECT is((SELECT count(*) FROM acc) + (SELECT count(*) FROM ref), 0::bigint,
  'several tables at once');
TRUNCATE ONLY ids;
SELECT is((SELECT count(*) FROM ids), 1::bigint, 'TRUNCATE ONLY takes nothing from the shards');
SELECT is(outcome('TRUNCATE ids_0'), '{0}', 'TRUNCATE of a shard');
SELECT is((SELECT count(*) FROM ids_0), 0::bigint, 'TRUNCATE of a shard takes its rows');
CREATE FUNCTION note_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO fired (tbl, what) VALUES (TG_TABLE_NAME, concat_ws(' ', TG_WHEN, TG_LEVEL, TG_OP));
  RETURN NULL;
END $$;
CREATE TRIGGER trunc BEFORE TRUNCATE ON ids_1 FOR EACH STATEMENT EXECUTE FUNCTION note_truncate();
SELECT current_setting('server_version_num')::int >= 160000 AS has_truncate_triggers \gset
\if :has_truncate_triggers
CREATE TRIGGER trunc AFTER TRUNCATE ON ids FOR EACH STATEMENT EXECUTE FUNCTION note_truncate();
\endif
TRUNCATE fired, ids_twin;
TRUNCATE ids;
SELECT results_eq('SELECT tbl, what FROM fired ORDER BY tbl',
\if :has_truncate_triggers
  $$ VALUES ('ids', 'AFTER STATEMENT TRUNCATE'), ('ids_1', 'BEFORE STATEMENT TRUNCATE') $$,
\else
  $$ VALUES ('ids_1', 'BEFORE STATEMENT TRUNCATE') $$,
\endif
  'TRUNCATE triggers');

-- a function that changes the table while it is being read

INSERT INTO ref SELECT g, 'f' FROM generate_series(1, 10) g;
INSERT INTO ref_twin SELECT g, 'f' FROM generate_series(1, 10) g;
DO $$
DECLARE
  t text; r record;
BEGIN
  FOREACH t IN ARRAY ARRAY['ref', 'ref_twin'] LOOP
    FOR r IN EXECUTE 'SELECT id FROM ' || t LOOP
      EXECUTE format('UPDATE %I SET id = id + 100 WHERE id = %s', t, r.id);
      EXECUTE format('INSERT INTO %I VALUES (%s, ''loop'')', t, r.id);
    END LOOP;
  END LOOP;
END $$;
SELECT ok(contents('') = contents('_twin'),
  'a loop over the table that changes it sees each row once');
SELECT is((SELECT count(*) FROM ref), 20::bigint,
  'a loop over the table that changes it sees each row once, and ends');

SELECT * FROM finish();
ROLLBACK;
DROP SCHEMA modify_test CASCADE;
