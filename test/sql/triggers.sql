-- Triggers on shards and on the logical table, compared with those of a plain
-- table.
BEGIN;
SELECT no_plan();

\ir helpers.psql

CREATE FOREIGN TABLE log (id int, msg text, n int DEFAULT 0) SERVER shards
OPTIONS (shards '3', route 'round_robin');
CREATE FOREIGN TABLE leased (id int, msg text, n int DEFAULT 0) SERVER shards
OPTIONS (shards '3');
CREATE TABLE plain (id int, msg text, n int DEFAULT 0);

CREATE TABLE noted (seq serial, target text, who text, name text, what text,
                    id int, msg text, seen bigint);
CREATE TABLE tags (target text, kind text, n bigint);

CREATE FUNCTION rows_in(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s', target) INTO n;
  RETURN n;
END $$;

-- Notes who fires, for which row, and how many rows it sees in the target.
-- BEFORE ROW also does what the message says.
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  target regclass := TG_ARGV[0];
BEGIN
  ASSERT TG_RELID = TG_TABLE_NAME::regclass;
  ASSERT TG_TABLE_SCHEMA = (SELECT relnamespace::regnamespace::text
                              FROM pg_class WHERE oid = TG_RELID);
  INSERT INTO noted (target, who, name, what, id, msg, seen)
  VALUES (target, TG_TABLE_NAME, TG_NAME,
          TG_WHEN || ' ' || TG_LEVEL || ' ' || TG_OP,
          CASE WHEN TG_LEVEL = 'ROW' THEN NEW.id END,
          CASE WHEN TG_LEVEL = 'ROW' THEN NEW.msg END,
          rows_in(target));
  IF TG_LEVEL = 'ROW' AND TG_WHEN = 'BEFORE' THEN
    IF NEW.msg = 'skip' THEN RETURN NULL; END IF;
    IF NEW.msg = 'raise' THEN RAISE 'trigger says no'; END IF;
    NEW.msg := NEW.msg || '+';
  END IF;
  RETURN NEW;
END $$;

CREATE PROCEDURE on_shards(logical regclass, command text) LANGUAGE plpgsql AS $$
BEGIN
  ASSERT (SELECT bool_and(success)
            FROM shard_fdw.run_command_on_shards(logical, command));
END $$;

-- Row triggers on plain, and on all shards of log and leased.
CREATE PROCEDURE add_trigger(name text, what text, condition text DEFAULT '')
LANGUAGE plpgsql AS $$
DECLARE
  command text := 'CREATE TRIGGER ' || name || ' ' || what || ' ON %s FOR EACH ROW '
                  || condition || ' EXECUTE FUNCTION note(';
BEGIN
  EXECUTE replace(command, '%s', 'plain') || '''plain'')';
  CALL on_shards('log', command || '''log'')');
  CALL on_shards('leased', command || '''leased'')');
END $$;

CREATE PROCEDURE drop_trigger(name text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DROP TRIGGER %s ON plain', name);
  CALL on_shards('log', format('DROP TRIGGER %s ON %%s', name));
  CALL on_shards('leased', format('DROP TRIGGER %s ON %%s', name));
END $$;

CREATE FUNCTION path() RETURNS text LANGUAGE sql
AS $$ SELECT current_setting('data_directory') || '/shard_fdw_triggers_test' $$;
DO $$ BEGIN
  EXECUTE format('COPY (SELECT 200 + g, CASE g %% 10 WHEN 3 THEN ''skip''
                                                    ELSE ''copy'' END
                          FROM generate_series(1, 30) g) TO %L', path());
END $$;

-- Every kind of insert into each of the three; keeps the command tags.
CREATE PROCEDURE insert_each() LANGUAGE plpgsql AS $$
DECLARE
  t text;
  kind text;
  command text;
  count bigint;
BEGIN
  TRUNCATE plain, log, leased, noted, tags;
  FOREACH t IN ARRAY '{plain,log,leased}'::text[] LOOP
    FOR kind, command IN VALUES
      ('one', 'INSERT INTO %s VALUES (1, ''one'')'),
      ('one skipped', 'INSERT INTO %s VALUES (2, ''skip'')'),
      ('some', 'INSERT INTO %s VALUES (11, ''some''), (12, ''skip''),
                                      (13, ''some''), (14, ''some'')'),
      ('many', 'INSERT INTO %s
                SELECT 100 + g, CASE g %% 7 WHEN 0 THEN ''skip'' ELSE ''many'' END
                  FROM generate_series(1, 40) g'),
      ('copy', 'COPY %s (id, msg) FROM ' || quote_literal(path())),
      ('returning', 'WITH i AS (
                       INSERT INTO %s VALUES (21, ''r''), (22, ''skip''), (23, ''r'')
                       RETURNING *)
                     INSERT INTO tags SELECT msg, ''row'', id FROM i')
    LOOP
      EXECUTE format(command, t);
      GET DIAGNOSTICS count = ROW_COUNT;
      INSERT INTO tags VALUES (t, kind, count);
    END LOOP;
  END LOOP;
END $$;

-- Compares all that insert_each() has done.  Rows of one shard are in the
-- order of the statement; so are all rows where triggers run before the rows.
CREATE FUNCTION compare(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  t text;
BEGIN
  ASSERT (SELECT count(*) FROM tags) >= 18 AND (SELECT count(*) FROM plain) > 50;
  FOREACH t IN ARRAY '{log,leased}'::text[] LOOP
    RETURN NEXT bag_eq('SELECT * FROM ' || t, 'SELECT * FROM plain',
                       format('%s, %s: the same rows', what, t));
    RETURN NEXT results_eq(
      format('SELECT kind, n FROM tags WHERE target = %L', t),
      'SELECT kind, n FROM tags WHERE target = ''plain''',
      format('%s, %s: the same command tags', what, t));
    RETURN NEXT results_eq(
      format('SELECT name, what, id, msg, seen FROM noted
               WHERE target = %L AND (what NOT LIKE ''AFTER ROW%%'' OR target <> ''log'')
               ORDER BY seq', t),
      format('SELECT name, what, id, msg, seen FROM noted
               WHERE target = ''plain'' AND (what NOT LIKE ''AFTER ROW%%'' OR %L <> ''log'')
               ORDER BY seq', t),
      format('%s, %s: triggers fire in the same order and see the same', what, t));
    RETURN NEXT bag_eq(
      format('SELECT name, what, id, msg, seen FROM noted WHERE target = %L', t),
      'SELECT name, what, id, msg, seen FROM noted WHERE target = ''plain''',
      format('%s, %s: triggers fire for the same rows', what, t));
  END LOOP;
END $$;

-- row triggers of shards

CALL add_trigger('b', 'BEFORE INSERT');
CALL insert_each();
SELECT compare('BEFORE ROW on shards');
SELECT results_eq($$ SELECT target, n FROM tags WHERE kind = 'row' ORDER BY n, 1 $$,
  $$ VALUES ('r+', 21::bigint), ('r+', 21), ('r+', 21),
            ('r+', 23), ('r+', 23), ('r+', 23) $$,
  'RETURNING shows the changed rows and no skipped ones');
SELECT is_empty('SELECT * FROM noted n JOIN log l USING (id)
                  WHERE n.target = $$log$$ AND n.who <> l.tableoid::regclass::text',
  'TG_TABLE_NAME is the shard that the row goes to');
SELECT is((SELECT count(DISTINCT who) FROM noted WHERE target = 'log'), 3::bigint,
  'TG_TABLE_NAME is the shard that the row goes to: each of them');
SELECT fails($$ INSERT INTO log SELECT 1000 + g, CASE g WHEN 17 THEN 'raise' ELSE 'x' END
                      FROM generate_series(1, 20) g $$, 'P0001', 'trigger says no',
  title => 'a trigger may raise');
SELECT is((SELECT count(*) FROM log WHERE id > 1000), 0::bigint,
  'a trigger may raise, and nothing is left behind');

CALL add_trigger('a', 'BEFORE INSERT');
CALL insert_each();
SELECT compare('two BEFORE ROW triggers');
CALL drop_trigger('a');
CALL drop_trigger('b');

CALL add_trigger('z', 'AFTER INSERT');
CALL insert_each();
SELECT compare('AFTER ROW on shards');
SELECT is_empty('SELECT l.id, l.tableoid::regclass::text AS t FROM log l EXCEPT ALL
                 SELECT id, who FROM noted WHERE target = $$log$$',
  'each fires for the rows of its own shard');
CALL add_trigger('b', 'BEFORE INSERT');
CALL insert_each();
SELECT compare('BEFORE and AFTER ROW on shards');
CALL drop_trigger('b');
CALL drop_trigger('z');

CALL add_trigger('b', 'BEFORE INSERT', $$ WHEN (NEW.id % 4 = 1 OR NEW.msg = 'skip') $$);
CALL add_trigger('z', 'AFTER INSERT',
  $$ WHEN (NEW.tableoid IS NOT NULL AND NEW.msg LIKE '%+' AND NEW.n = 0) $$);
CALL insert_each();
SELECT compare('WHEN conditions');
CALL drop_trigger('b');
CALL drop_trigger('z');
CALL on_shards('log', 'CREATE TRIGGER z AFTER INSERT ON %s FOR EACH ROW
  WHEN (NEW.tableoid <> ''log''::regclass) EXECUTE FUNCTION note(''log'')');
TRUNCATE noted;
INSERT INTO log SELECT g, 'oid' FROM generate_series(301, 309) g;
INSERT INTO log VALUES (310, 'oid');
SELECT is((SELECT count(*) FROM noted), 10::bigint,
  'in a WHEN condition, tableoid is the shard''s');
CALL on_shards('log', 'DROP TRIGGER z ON %s');

-- A trigger on one of the shards sees the rows that went to the others.
CREATE TRIGGER b BEFORE INSERT ON log_1
  FOR EACH ROW EXECUTE FUNCTION note('log');
TRUNCATE log, noted;
INSERT INTO log SELECT g, 'x' FROM generate_series(1, 30) g;
INSERT INTO log VALUES (31, 'x'), (32, 'x'), (33, 'x');
SELECT results_eq('SELECT count(*), bool_and(seen = id - 1) FROM noted',
  'VALUES (11::bigint, true)', 'a trigger on one of the shards');
DROP TRIGGER b ON log_1;

-- A trigger that comes in the middle of a session, and goes again.
PREPARE ins AS INSERT INTO log SELECT g, 'x' FROM generate_series(1, 6) g;
TRUNCATE log;
EXECUTE ins;
CALL add_trigger('b', 'BEFORE INSERT');
EXECUTE ins;
CALL drop_trigger('b');
EXECUTE ins;
SELECT results_eq('SELECT msg, count(*) FROM log GROUP BY 1 ORDER BY 1',
  $$ VALUES ('x', 12::bigint), ('x+', 6) $$,
  'prepared statements notice new triggers');

-- constraint triggers, deferred

CALL on_shards('log', 'CREATE CONSTRAINT TRIGGER late AFTER INSERT ON %s
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.msg <> ''quiet'') EXECUTE FUNCTION note(''log'')');
TRUNCATE log, noted;
INSERT INTO log VALUES (1, 'one');
INSERT INTO log VALUES (2, 'quiet'), (3, 'some'), (4, 'some');
INSERT INTO log SELECT g, 'many' FROM generate_series(5, 8) g;
DO $$ BEGIN EXECUTE format('COPY log (id, msg) FROM %L', path()); END $$;
SAVEPOINT s;
INSERT INTO log VALUES (99, 'gone');
ROLLBACK TO s;
SELECT is_empty('SELECT * FROM noted', 'deferred triggers wait');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT bag_eq('SELECT id, msg, who, seen FROM noted',
  $$ SELECT id, msg, tableoid::regclass::text AS who, 38::bigint FROM log
      WHERE msg <> 'quiet' $$,
  'deferred triggers wait, then fire for every row that is left');
CALL on_shards('log', 'DROP TRIGGER late ON %s');
SELECT fails('CREATE CONSTRAINT TRIGGER late AFTER INSERT ON log
                  FOR EACH ROW EXECUTE FUNCTION note(''log'')', '42809',
  title => 'PostgreSQL has no constraint triggers on foreign tables');

-- triggers on the logical table

CREATE PROCEDURE add_on_target(name text, what text, level text)
LANGUAGE plpgsql AS $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY '{plain,log,leased}'::text[] LOOP
    EXECUTE format('CREATE TRIGGER %s %s ON %s FOR EACH %s
                    EXECUTE FUNCTION note(%L)', name, what, t, level, t);
  END LOOP;
END $$;

CREATE PROCEDURE drop_on_target(name text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DROP TRIGGER %s ON plain', name);
  EXECUTE format('DROP TRIGGER %s ON log', name);
  EXECUTE format('DROP TRIGGER %s ON leased', name);
END $$;

CALL add_on_target('b', 'BEFORE INSERT', 'ROW');
CALL insert_each();
SELECT compare('BEFORE ROW on the logical table');
CALL add_on_target('z', 'AFTER INSERT', 'ROW');
CALL insert_each();
SELECT compare('BEFORE and AFTER ROW on the logical table');
SELECT bag_eq($$ SELECT who FROM noted WHERE target <> 'plain' GROUP BY who $$,
  $$ VALUES ('log'), ('leased') $$, 'TG_TABLE_NAME is the logical table');
CALL add_on_target('s', 'BEFORE INSERT', 'STATEMENT');
CALL add_on_target('t', 'AFTER INSERT', 'STATEMENT');
CALL insert_each();
SELECT compare('all kinds on the logical table');
CALL drop_on_target('b');
CALL insert_each();
SELECT compare('AFTER ROW and statement triggers on the logical table');
CALL drop_on_target('z');
CALL insert_each();
SELECT compare('statement triggers on the logical table');

-- Statement triggers fire once, even without rows, and also for UPDATE,
-- DELETE and TRUNCATE; those of a shard do not fire.
CALL on_shards('log', 'CREATE TRIGGER s BEFORE INSERT OR UPDATE OR DELETE ON %s
  FOR EACH STATEMENT EXECUTE FUNCTION note(''log'')');
CALL on_shards('log', 'CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON %s
  FOR EACH STATEMENT EXECUTE FUNCTION note(''log'')');
CREATE TRIGGER u AFTER UPDATE OR DELETE ON log
  FOR EACH STATEMENT EXECUTE FUNCTION note('log');
TRUNCATE log, noted;
INSERT INTO log SELECT g, 'x' FROM generate_series(1, 9) g;
INSERT INTO log SELECT g, 'x' FROM generate_series(1, 9) g WHERE false;
UPDATE log SET msg = 'y';
DELETE FROM log WHERE id > 5;
SELECT results_eq('SELECT who, name, what, seen FROM noted ORDER BY seq',
  $$ VALUES ('log', 's', 'BEFORE STATEMENT INSERT', 0::bigint),
            ('log', 't', 'AFTER STATEMENT INSERT', 9),
            ('log', 's', 'BEFORE STATEMENT INSERT', 9),
            ('log', 't', 'AFTER STATEMENT INSERT', 9),
            ('log', 'u', 'AFTER STATEMENT UPDATE', 9),
            ('log', 'u', 'AFTER STATEMENT DELETE', 5) $$,
  'statement triggers of shards do not fire, those of the logical table do');
TRUNCATE noted;
INSERT INTO log_0 VALUES (1, 'direct');
SELECT is((SELECT count(*) FROM noted WHERE who = 'log_0'), 2::bigint,
  'statement triggers of shards do not fire, those of the logical table do, but for direct inserts');
CALL on_shards('log', 'DROP TRIGGER s ON %s');
CALL on_shards('log', 'DROP TRIGGER t ON %s');
DROP TRIGGER u ON log;

-- Both together, and the order they fire in.
CALL add_on_target('b', 'BEFORE INSERT', 'ROW');
CALL add_on_target('z', 'AFTER INSERT', 'ROW');
CALL on_shards('log', 'CREATE TRIGGER b BEFORE INSERT ON %s FOR EACH ROW
  EXECUTE FUNCTION note(''log'')');
CALL on_shards('log', 'CREATE TRIGGER z AFTER INSERT ON %s FOR EACH ROW
  EXECUTE FUNCTION note(''log'')');
SET LOCAL shard_fdw.shard = 1;
CREATE FUNCTION order_of(command text) RETURNS SETOF noted LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE log, noted;
  EXECUTE command;
  RETURN QUERY SELECT * FROM noted ORDER BY seq;
END $$;
SELECT results_eq(
  $$ SELECT who, what, id, msg, seen
       FROM order_of('INSERT INTO log VALUES (1, ''x'')') $$,
  $$ VALUES ('log', 'BEFORE STATEMENT INSERT', NULL::int, NULL, 0::bigint),
            ('log', 'BEFORE ROW INSERT', 1, 'x', 0),
            ('log_1', 'BEFORE ROW INSERT', 1, 'x+', 0),
            ('log_1', 'AFTER ROW INSERT', 1, 'x++', 1),
            ('log', 'AFTER ROW INSERT', 1, 'x++', 1),
            ('log', 'AFTER STATEMENT INSERT', NULL, NULL, 1) $$,
  'the order of firing');
CREATE TEMP TABLE expected AS
SELECT * FROM (VALUES
  ('log', 'BEFORE STATEMENT INSERT', NULL::int, NULL, 0::bigint),
  ('log', 'BEFORE ROW INSERT', 1, 'x', 0),
  ('log_1', 'BEFORE ROW INSERT', 1, 'x+', 0),
  ('log', 'BEFORE ROW INSERT', 2, 'skip', 1),
  ('log', 'BEFORE ROW INSERT', 3, 'y', 1),
  ('log_1', 'BEFORE ROW INSERT', 3, 'y+', 1),
  ('log_1', 'AFTER ROW INSERT', 1, 'x++', 2),
  ('log', 'AFTER ROW INSERT', 1, 'x++', 2),
  ('log_1', 'AFTER ROW INSERT', 3, 'y++', 2),
  ('log', 'AFTER ROW INSERT', 3, 'y++', 2),
  ('log', 'AFTER STATEMENT INSERT', NULL, NULL, 2)) v;
SELECT results_eq(
  $$ SELECT who, what, id, msg, seen FROM order_of(
       'INSERT INTO log VALUES (1, ''x''), (2, ''skip''), (3, ''y'')') $$,
  'SELECT * FROM expected', 'the order of firing, for several rows');
SELECT results_eq(
  $$ SELECT who, what, id, msg, seen FROM order_of(
       'INSERT INTO log SELECT g, (ARRAY[''x'', ''skip'', ''y''])[g]
          FROM generate_series(1, 3) g') $$,
  'SELECT * FROM expected', 'the order of firing, for INSERT ... SELECT');
COPY (VALUES (1, 'x'), (2, 'skip'), (3, 'y')) TO PROGRAM 'cat > shard_fdw_triggers_test2';
SELECT results_eq(
  $$ SELECT who, what, id, msg, seen FROM order_of(
       'COPY log (id, msg) FROM PROGRAM ''cat shard_fdw_triggers_test2''') $$,
  'SELECT * FROM expected', 'the order of firing, for COPY');
RESET shard_fdw.shard;
CALL on_shards('log', 'DROP TRIGGER b ON %s');
CALL on_shards('log', 'DROP TRIGGER z ON %s');
CALL drop_on_target('b');
CALL drop_on_target('z');
CALL drop_on_target('s');
CALL drop_on_target('t');

-- triggers that insert

CREATE FUNCTION spawn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.n < 3 THEN
    EXECUTE format('INSERT INTO %s VALUES (%s, %L, %s)', TG_ARGV[0],
                   NEW.id * 10, 'child', NEW.n + 1);
    EXECUTE format('INSERT INTO %s SELECT %s + g, %L, 3
                      FROM generate_series(1, 2) g', TG_ARGV[0], NEW.id * 10, 'leaf');
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER spawn BEFORE INSERT ON plain
  FOR EACH ROW EXECUTE FUNCTION spawn('plain');
CALL on_shards('log', 'CREATE TRIGGER spawn BEFORE INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION spawn(''log'')');
CALL on_shards('leased', 'CREATE TRIGGER spawn BEFORE INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION spawn(''leased'')');
CALL insert_each();
SELECT compare('BEFORE triggers of shards that insert into the same table');
DROP TRIGGER spawn ON plain;
CALL on_shards('log', 'DROP TRIGGER spawn ON %s');
CALL on_shards('leased', 'DROP TRIGGER spawn ON %s');

CREATE TRIGGER spawn AFTER INSERT ON plain
  FOR EACH ROW EXECUTE FUNCTION spawn('plain');
CALL on_shards('log', 'CREATE TRIGGER spawn AFTER INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION spawn(''log'')');
CALL on_shards('leased', 'CREATE TRIGGER spawn AFTER INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION spawn(''leased'')');
CALL insert_each();
SELECT compare('AFTER triggers of shards that insert into the same table');
DROP TRIGGER spawn ON plain;
CALL on_shards('log', 'DROP TRIGGER spawn ON %s');
CALL on_shards('leased', 'DROP TRIGGER spawn ON %s');

CREATE TRIGGER spawn BEFORE INSERT ON plain
  FOR EACH ROW EXECUTE FUNCTION spawn('plain');
CREATE TRIGGER spawn BEFORE INSERT ON log
  FOR EACH ROW EXECUTE FUNCTION spawn('log');
CREATE TRIGGER spawn AFTER INSERT ON leased
  FOR EACH ROW EXECUTE FUNCTION spawn('leased');
CALL insert_each();
SELECT compare('triggers of the logical table that insert into it');
DROP TRIGGER spawn ON plain;
DROP TRIGGER spawn ON log;
DROP TRIGGER spawn ON leased;

CREATE FOREIGN TABLE other (id int, msg text, n int) SERVER shards
OPTIONS (shards '4', route 'round_robin');
CALL on_shards('log', 'CREATE TRIGGER spawn AFTER INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION spawn(''other'')');
CREATE TRIGGER spawn BEFORE INSERT ON leased
  FOR EACH ROW EXECUTE FUNCTION spawn('other');
CALL insert_each();
SELECT results_eq('SELECT msg, count(*) FROM other GROUP BY 1 ORDER BY 1',
  $$ SELECT v, k * ((SELECT count(*) FROM log) + (SELECT count(*) FROM leased))
       FROM (VALUES ('child', 1), ('leaf', 2)) x(v, k) $$,
  'triggers that insert into another logical table');
SELECT is((SELECT max(c) - min(c) <= 1 FROM (
             SELECT count(*) AS c FROM other GROUP BY tableoid) x), true,
  'triggers that insert into another logical table, evenly');
CALL on_shards('log', 'DROP TRIGGER spawn ON %s');
DROP TRIGGER spawn ON leased;

-- A view's INSTEAD OF trigger.
CREATE VIEW door AS SELECT id, msg FROM log;
CREATE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO log (id, msg) VALUES (NEW.id, 'door ' || NEW.msg);
  RETURN NEW;
END $$;
CREATE TRIGGER enter INSTEAD OF INSERT ON door
  FOR EACH ROW EXECUTE FUNCTION enter();
INSERT INTO door SELECT g, 'x' FROM generate_series(7001, 7004) g;
SELECT results_eq('SELECT id, msg FROM log WHERE id > 7000 ORDER BY id',
  $$ SELECT g, 'door x' FROM generate_series(7001, 7004) g $$,
  'INSTEAD OF triggers of a view');

-- triggers that change the set of shards under the statement

CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id IN (5, 10, 15) THEN
    PERFORM shard_fdw.create_shards(TG_ARGV[0]::regclass, 1);
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER grow BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION grow('log');
TRUNCATE log;
INSERT INTO log SELECT g, 'x' FROM generate_series(1, 29) g;
DROP TRIGGER grow ON log;
SELECT results_eq('SELECT count(*), sum(id), count(DISTINCT tableoid) FROM log',
  'VALUES (29::bigint, 435::bigint, 6::bigint)',
  'shards that are added in the middle of a statement get rows, none is lost');
DROP TABLE log_3, log_4, log_5;
CREATE TRIGGER grow BEFORE INSERT ON log_2
  FOR EACH ROW EXECUTE FUNCTION grow('log');
TRUNCATE log;
INSERT INTO log SELECT 5, 'x' FROM generate_series(1, 21) g;
DROP TRIGGER grow ON log_2;
SELECT is((SELECT count(*) FROM log), 21::bigint,
  'shards that a trigger of a shard adds in the middle of a statement get no rows');
SELECT cmp_ok((SELECT count(DISTINCT tableoid) FROM log), '>', 3::bigint,
  'shards that are added in the middle of a statement get no rows that would not be found at once');

-- Triggers of another table that the same command changes see the rows that
-- have gone into ours so far.

CREATE TABLE source (id int, msg text);
CREATE PROCEDURE move(target text, command text) LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE source;
  INSERT INTO source SELECT g, 'x' FROM generate_series(1, 30) g;
  EXECUTE format('CREATE TRIGGER b BEFORE UPDATE OR DELETE ON source
                  FOR EACH ROW EXECUTE FUNCTION watch(%L)', target);
  EXECUTE format(command, target);
  DROP TRIGGER b ON source;
END $$;
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noted (target, what, id, seen)
  VALUES (TG_ARGV[0], TG_OP, OLD.id, rows_in(TG_ARGV[0]));
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
TRUNCATE plain, log, leased, noted;
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY '{plain,log,leased}'::text[] LOOP
    CALL move(t, 'WITH d AS (DELETE FROM source RETURNING *) INSERT INTO %s SELECT * FROM d');
    CALL move(t, 'WITH u AS (UPDATE source SET id = id + 100 RETURNING *) INSERT INTO %s SELECT * '
                 'FROM u');
  END LOOP;
END $$;
SELECT results_eq($$ SELECT what, id, seen FROM noted WHERE target = 'log' ORDER BY seq $$,
  $$ SELECT what, id, seen FROM noted WHERE target = 'plain' ORDER BY seq $$,
  'triggers of a table that rows come from, round robin');
SELECT results_eq($$ SELECT what, id, seen FROM noted WHERE target = 'leased' ORDER BY seq $$,
  $$ SELECT what, id, seen FROM noted WHERE target = 'plain' ORDER BY seq $$,
  'triggers of a table that rows come from, round robin: session');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain',
  'triggers of a table that rows come from, round robin, with the same rows');

-- What a trigger made of a row is what a view checks, and what other columns
-- are computed from.

CREATE FOREIGN TABLE made (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)
SERVER shards OPTIONS (shards '2', route 'round_robin');
CREATE VIEW positive AS SELECT * FROM made WHERE id > 0 WITH CHECK OPTION;
CREATE FUNCTION minus() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN NEW.id := NEW.id - 10; RETURN NEW; END';
CALL on_shards('made', 'CREATE TRIGGER minus BEFORE INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION minus()');
SELECT fails('INSERT INTO positive VALUES (15), (5)', '44000',
  title => 'WITH CHECK OPTION looks at what a trigger of a shard made');
SELECT results_eq('INSERT INTO positive VALUES (11), (12), (13) RETURNING id, twice',
  'VALUES (1, 2), (2, 4), (3, 6)',
  'WITH CHECK OPTION looks at what a trigger of a shard made, and lets it in if it is right');
SELECT results_eq('SELECT * FROM made ORDER BY id', 'VALUES (1, 2), (2, 4), (3, 6)',
  'WITH CHECK OPTION looks at what a trigger of a shard made, with generated columns');

-- trigger states

TRUNCATE log, noted;
CREATE FOREIGN TABLE states (id int, msg text) SERVER shards OPTIONS (shards '1');
CREATE TRIGGER b BEFORE INSERT ON states_0
  FOR EACH ROW EXECUTE FUNCTION note('states');
CREATE TRIGGER z AFTER INSERT ON states
  FOR EACH ROW EXECUTE FUNCTION note('states');
CREATE FUNCTION fired() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE states, noted;
  INSERT INTO states SELECT g, 'x' FROM generate_series(1, 2) g;
  RETURN (SELECT string_agg(format('%s %s', name, id), ', ' ORDER BY seq) FROM noted);
END $$;
SELECT is(fired(), 'b 1, b 2, z 1, z 2', 'enabled triggers');
ALTER TABLE states_0 DISABLE TRIGGER b;
SELECT is(fired(), 'z 1, z 2', 'a disabled trigger of a shard');
ALTER FOREIGN TABLE states DISABLE TRIGGER z;
SELECT is(fired(), NULL, 'a disabled trigger of the logical table');
ALTER TABLE states_0 ENABLE REPLICA TRIGGER b;
ALTER FOREIGN TABLE states ENABLE ALWAYS TRIGGER z;
SELECT is(fired(), 'z 1, z 2', 'ENABLE REPLICA and ENABLE ALWAYS');
SET LOCAL session_replication_role = replica;
SELECT is(fired(), 'b 1, b 2, z 1, z 2',
  'ENABLE REPLICA and ENABLE ALWAYS, in a session that replays changes');
ALTER TABLE states_0 ENABLE TRIGGER b;
ALTER FOREIGN TABLE states ENABLE TRIGGER z;
SELECT is(fired(), NULL, 'ENABLE REPLICA and ENABLE ALWAYS, which leaves out ordinary triggers');
RESET session_replication_role;
SELECT is(fired(), 'b 1, b 2, z 1, z 2', 'ENABLE REPLICA and ENABLE ALWAYS, and they are back');

-- transition tables

SELECT fails('CREATE TRIGGER t AFTER INSERT ON log REFERENCING NEW TABLE AS n
                  FOR EACH STATEMENT EXECUTE FUNCTION note(''log'')', '42809',
  '"log" is a foreign table', title => 'PostgreSQL has no transition tables on foreign tables');
SELECT fails('CREATE TRIGGER t AFTER INSERT ON log_0 REFERENCING NEW TABLE AS n
                  FOR EACH ROW EXECUTE FUNCTION note(''log'')', '0A000',
  'ROW triggers with transition tables are not supported on inheritance children',
  title => 'PostgreSQL has no transition tables on foreign tables, nor for row triggers of shards');
CREATE FUNCTION collect() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noted (target, id) SELECT TG_TABLE_NAME, id FROM fresh;
  RETURN NULL;
END $$;
CREATE TRIGGER t AFTER INSERT ON log_0 REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION collect();
TRUNCATE log, noted;
INSERT INTO log SELECT g, 'x' FROM generate_series(1, 9) g;
INSERT INTO log_0 VALUES (10, 'x'), (11, 'x');
SELECT bag_eq('SELECT target, id FROM noted',
  $$ VALUES ('log_0', 10), ('log_0', 11) $$,
  'a statement trigger of a shard with one is for direct inserts');
DROP TRIGGER t ON log_0;

-- shards laid out in another way

CREATE FOREIGN TABLE odd (a int, b text, c int DEFAULT 3) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE odd_0 (c int, b text, a int);
CREATE TABLE odd_1 (x int, a int, y text, b text, c int);
ALTER TABLE odd_1 DROP COLUMN x, DROP COLUMN y;
CREATE TABLE odd_2 (extra text DEFAULT 'default', b text, a int, c int,
                    plus int GENERATED ALWAYS AS (a + c) STORED);
CREATE TABLE odd_3 (a int, b text, c int);
ALTER TABLE odd_0 INHERIT odd;
ALTER TABLE odd_1 INHERIT odd;
ALTER TABLE odd_2 INHERIT odd;
ALTER TABLE odd_3 INHERIT odd;
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.a % 10 = 9 THEN RETURN NULL; END IF;
  NEW.b := NEW.b || ' in ' || TG_TABLE_NAME;
  NEW.c := NEW.c * 2;
  IF TG_TABLE_NAME = 'odd_2' THEN
    NEW.extra := NEW.extra || ' and ' || NEW.a;
  END IF;
  RETURN NEW;
END $$;
CALL on_shards('odd', 'CREATE TRIGGER change BEFORE INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION change()');
CREATE TABLE returned (a int, b text, c int, whole text);
WITH i AS (INSERT INTO odd SELECT g, 'b' || g FROM generate_series(1, 20) g
           RETURNING a, b, c, odd::text)
INSERT INTO returned SELECT * FROM i;
SELECT bag_eq('SELECT * FROM returned',
  $$ SELECT a, format('b%s in %s', a, tableoid::regclass) AS b, 6,
            format('(%s,"b%s in %s",6)', a, a, tableoid::regclass) FROM odd $$,
  'RETURNING shows what triggers made of the rows');
SELECT results_eq('SELECT count(*), sum(a), count(DISTINCT tableoid) FROM odd',
  'VALUES (18::bigint, 210 - 9 - 19::bigint, 4::bigint)',
  'RETURNING shows what triggers made of the rows, and the table has them');
SELECT is_empty($$ SELECT * FROM odd_2
                    WHERE extra IS DISTINCT FROM 'default and ' || a
                       OR plus <> a + 6 $$,
  'columns of the shard''s own are the trigger''s to change; generated ones follow');
INSERT INTO odd SELECT g, 'b' || g FROM generate_series(21, 40) g;
INSERT INTO odd VALUES (41, 'b41');
DO $$ BEGIN EXECUTE format('COPY odd (a, b) FROM %L', path()); END $$;
SELECT bag_eq('SELECT a, b, c FROM odd WHERE a > 20',
  $$ SELECT a, format('%s in %s', CASE WHEN a > 200 THEN CASE a % 10 WHEN 3 THEN 'skip' ELSE 'copy'
      END
                                       ELSE 'b' || a END,
                      tableoid::regclass), 6
       FROM odd WHERE a > 20 $$,
  'other kinds of inserts');
SELECT is((SELECT count(*) FROM odd WHERE a > 20), 18 + 1 + 27::bigint,
  'other kinds of inserts skip the same rows');

-- AFTER triggers see the row in the shard's layout and in the logical table's.
CALL on_shards('odd', 'DROP TRIGGER change ON %s');
CREATE TABLE images (who text, j jsonb);
CREATE FUNCTION image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO images VALUES (TG_TABLE_NAME, to_jsonb(NEW));
  RETURN NULL;
END $$;
CALL on_shards('odd', 'CREATE TRIGGER image AFTER INSERT ON %s
  FOR EACH ROW EXECUTE FUNCTION image()');
CREATE TRIGGER image AFTER INSERT ON odd FOR EACH ROW EXECUTE FUNCTION image();
TRUNCATE odd;
INSERT INTO odd SELECT g, 'b' || g FROM generate_series(1, 8) g;
DO $$ BEGIN EXECUTE format('COPY odd (a, b) FROM %L', path()); END $$;
SELECT bag_eq($$ SELECT who, j FROM images WHERE who <> 'odd' $$,
  $$ SELECT 'odd_0', to_jsonb(r) FROM odd_0 r UNION ALL
     SELECT 'odd_1', to_jsonb(r) FROM odd_1 r UNION ALL
     SELECT 'odd_2', to_jsonb(r) FROM odd_2 r UNION ALL
     SELECT 'odd_3', to_jsonb(r) FROM odd_3 r $$,
  'AFTER triggers of shards see the row in its shard''s layout');
SELECT bag_eq($$ SELECT j FROM images WHERE who = 'odd' $$,
  'SELECT to_jsonb(r) FROM odd r',
  'AFTER triggers of the logical table see the row in the logical table''s layout');
DROP TRIGGER image ON odd;
TRUNCATE odd, images;
INSERT INTO odd SELECT g, 'b' || g FROM generate_series(1, 8) g;
SELECT bag_eq($$ SELECT j->'a' AS a FROM images $$,
  'SELECT to_jsonb(a) FROM odd',
  'AFTER triggers of shards see the row in its shard''s layout, in batches, too');

-- The system columns of a new row, however it comes.
CREATE FOREIGN TABLE sysless (id int, v text) SERVER shards OPTIONS (shards '1');
CREATE TABLE seen_xmin (v text);
CREATE FUNCTION see_xmin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen_xmin
  VALUES (NEW.v); RETURN NULL; END $$;
CREATE TRIGGER x AFTER INSERT ON sysless_0 FOR EACH ROW
  WHEN (NEW.xmin IS NOT NULL AND NEW.tableoid = 'sysless_0'::regclass) EXECUTE FUNCTION see_xmin();
INSERT INTO sysless (v) VALUES ('single');
INSERT INTO sysless (v) SELECT 'many' FROM generate_series(1, 3);
INSERT INTO sysless (v) SELECT note FROM (VALUES ('a'), ('b')) n (note) WHERE rows_in('sysless')
  > 0;
SELECT results_eq('SELECT v FROM seen_xmin', $$ VALUES ('single'), ('many'), ('many'), ('many'),
    ('a'), ('b') $$, 'WHEN may name system columns');

-- The files were outside the transaction.
COPY (SELECT 1) TO PROGRAM
  'cat >/dev/null; rm -f shard_fdw_triggers_test shard_fdw_triggers_test2';

SELECT * FROM finish();
ROLLBACK;
