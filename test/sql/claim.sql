-- claim(): rows that are taken for a while, attempts, and dead letters, in one
-- session; several are in test/specs/claim.spec and test/t/load.t.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE SCHEMA claim_test;
SET LOCAL search_path = claim_test, public;

\ir helpers.psql

-- Columns in another order, dropped ones, and one of the shard's own.
CREATE TABLE model (due timestamptz DEFAULT now(), gone int, id bigint PRIMARY KEY, doc text, attempts int,
  twice bigint GENERATED ALWAYS AS (id * 2) STORED, own int DEFAULT 7);
ALTER TABLE model DROP gone;
CREATE INDEX ON model (due);
CREATE FOREIGN TABLE task (gone int, id bigint OPTIONS (sequence 'always') NOT NULL, doc text,
  attempts int NOT NULL DEFAULT 0, due timestamptz DEFAULT now(), twice bigint GENERATED ALWAYS AS (id * 2) STORED)
  SERVER shards OPTIONS (shards '2', max_shards '10', template 'model');
ALTER FOREIGN TABLE task DROP gone;
CREATE TABLE dead (died timestamptz DEFAULT now(), attempts int, due timestamptz, twice bigint, doc text,
  id bigint GENERATED ALWAYS AS IDENTITY);

-- One shard has tasks, whose ids are 1, 11, 21 and so on.
CREATE FUNCTION put(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('shard_fdw.shard', '0', true);
  INSERT INTO task (doc) SELECT repeat(md5(g::text), 300) FROM generate_series(1, n) g;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
CREATE FUNCTION claimed(args text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE format('SELECT string_agg(concat_ws('' '', id, attempts, twice, length(doc)), '', '' ORDER BY id) '
                 'FROM shard_fdw.claim(NULL::task, %s) WHERE due > now()', args) INTO result;
  RETURN coalesce(result, 'none');
END $$;
SELECT put(5);
SELECT is(claimed($$ 2, '1 hour', order_by => 'id' $$), '1 1 2 9600, 11 1 22 9600', 'rows are claimed');
SELECT is((SELECT count(*) FROM task), 5::bigint, 'they stay in the table');
SELECT is((SELECT array_agg(DISTINCT due) FROM task WHERE attempts = 1), ARRAY(SELECT max(due) FROM task),
  'they are due at the same time');
SELECT is((SELECT max(due) > now() + '59 minutes' AND max(due) < now() + '2 hours' FROM task), true,
  'they are due after the time that was asked for');
SELECT is(claimed($$ 100, '1 hour' $$), '21 1 42 9600, 31 1 62 9600, 41 1 82 9600', 'the others are due');
SELECT is(claimed($$ 100, '1 hour' $$), 'none', 'then none is');
UPDATE task SET due = now() WHERE id IN (11, 31);
SELECT is(claimed($$ 100, '1 hour', 2, 'dead' $$), '11 2 22 9600, 31 2 62 9600', 'a second attempt');
UPDATE task SET due = now() WHERE id IN (11, 41);
SELECT is(claimed($$ 1, '1 hour', 2, 'dead', 'id' $$), '41 2 82 9600',
  'behind a row that has had its attempts there is another');
SELECT is((SELECT array_agg(concat_ws(' ', id, attempts, twice, length(doc), died = now())) FROM dead),
  '{11 2 22 9600 t}', 'dead letters are as the row was');
SELECT is((SELECT array_agg(id ORDER BY id) FROM task), '{1,21,31,41}', 'dead letters are gone from the table');
UPDATE task SET due = NULL WHERE id = 21;
UPDATE task SET due = now() WHERE id = 1;
SELECT is(claimed($$ 100, '1 hour', shard => 'task_1' $$), 'none', 'the shard that is asked for');
SELECT is(claimed($$ 100, '1 hour', shard => 'task_0' $$), '1 2 2 9600', 'a row that is never due');
DELETE FROM task WHERE id = 1 AND attempts = 1;
SELECT is((SELECT count(*) FROM task WHERE id = 1), 1::bigint, 'who comes too late deletes nothing');
SAVEPOINT s;
UPDATE task SET due = now();
SELECT claimed($$ 100, '1 hour', 1, 'dead' $$);
ROLLBACK TO s;
SELECT is((SELECT count(*) || ' ' || sum(attempts) FROM task) || (SELECT ' ' || count(*) FROM dead), '4 7 1',
  'a claim that is rolled back');

-- Sealed and closed shards.
UPDATE task SET due = now();
SELECT shard_fdw.seal('task_0');
SELECT is(claimed('100'), 'none', 'rows of a sealed shard');
SELECT is(claimed($$ 100, shard => 'task_0' $$), 'none', 'rows of the sealed shard that is asked for');
SELECT shard_fdw.unseal('task_0');
SELECT shard_fdw.close_shard('task_0');
SELECT is(claimed($$ 100, '1 hour' $$), '1 3 2 9600, 21 2 42 9600, 31 3 62 9600, 41 3 82 9600', 'rows of a closed shard');

-- Errors.
CREATE TABLE dead_short (id bigint, doc text, attempts int, due timestamptz);
SELECT fails('SELECT shard_fdw.claim(' || args || ')', state, message, detail, hint, title => args) FROM (VALUES
  ('NULL::task, 0', '22023', 'number of rows must be greater than zero', '', ''),
  ('NULL::task, retry_after => NULL', '22004', 'parameter "retry_after" must not be null', '', ''),
  ('NULL::task, 1, ''0''', '22023', 'parameter "retry_after" must be greater than zero', '', ''),
  ('NULL::task, 1, ''-1 day''', '22023', 'parameter "retry_after" must be greater than zero', '', ''),
  ('NULL::task, 1, ''1 day'', 2', '22004', 'parameters "max_attempts" and "dead_letters" require each other', '', ''),
  ('NULL::task, dead_letters => ''dead''', '22004',
    'parameters "max_attempts" and "dead_letters" require each other', '', ''),
  ('NULL::task, 1, ''1 day'', 0, ''dead''', '22023', 'number of attempts must be greater than zero', '', ''),
  ('NULL::task, 1, ''1 day'', 2, ''task''', '22023',
    'dead letters of foreign table "task" must go to another table', '', ''),
  ('NULL::task, 1, ''1 day'', 2, ''task_1''', '22023',
    'dead letters of foreign table "task" must go to another table', '', ''),
  ('NULL::task, 1, ''1 day'', 2, ''dead_short''', '42703', 'column "twice" of relation "dead_short" does not exist',
    'Dead letters of foreign table "task" would lose its value.', ''),
  ('NULL::task, 1, ''1 day'', 2, ''1''', '42P01', NULL, NULL, NULL),
  ('NULL::task, due_column => ''when''', '42703', 'column "when" of foreign table "task" does not exist', '',
    'Add it with ALTER FOREIGN TABLE claim_test.task ADD COLUMN "when" timestamp with time zone DEFAULT now(), '
    'or name another one with parameter "due_column".'),
  ('NULL::task, attempts_column => ''ctid''', '42703', 'column "ctid" of foreign table "task" does not exist', '', NULL),
  ('NULL::task, attempts_column => NULL', '22004', 'parameter "attempts_column" must not be null', '', ''),
  ('NULL::task, attempts_column => ''doc''', '42804', 'column "doc" of foreign table "task" has type text',
    'Parameter "attempts_column" of claim() requires a column of type integer.', ''),
  ('NULL::task, due_column => ''doc''', '42804', 'column "doc" of foreign table "task" has type text',
    'Parameter "due_column" of claim() requires a column of type timestamp with time zone.', ''),
  ('NULL::task, order_by => ''x''', '42703', 'column "x" of foreign table "task" does not exist', '', ''),
  ('NULL::task, shard => ''dead''', '42809', '"dead" is not a shard of foreign table "task"', '', ''),
  ('NULL::dead', '42809', '"dead" is not a foreign table of shard_fdw', '', '')
 ) t(args, state, message, detail, hint);

SAVEPOINT s;
SET LOCAL transaction_read_only = on;
SELECT fails('SELECT shard_fdw.claim(NULL::task)', '25006', title => 'not in a read-only transaction');
ROLLBACK TO s;

-- Rights: those on the logical table, and on the table of the dead letters.
GRANT USAGE ON SCHEMA claim_test TO shard_user;
CREATE FUNCTION claim_as_user(args text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  UPDATE task SET due = now(), attempts = 1;
  SET LOCAL ROLE shard_user;
  EXECUTE format('SELECT count(*) FROM shard_fdw.claim(NULL::task, %s)', args) INTO result;
  RESET ROLE;
  RETURN result;
EXCEPTION WHEN insufficient_privilege THEN
  RESET ROLE;
  RETURN SQLERRM;
END $$;
SELECT is(claim_as_user('9'), 'permission denied for foreign table task', 'without rights');
GRANT SELECT ON task TO shard_user;
SELECT is(claim_as_user('9'), 'permission denied for foreign table task', 'without the right to update');
GRANT UPDATE (due) ON task TO shard_user;
SELECT is(claim_as_user('9'), 'permission denied for foreign table task', 'without that for both columns');
GRANT UPDATE (attempts) ON task TO shard_user;
SELECT is(claim_as_user('9'), '4', 'with the right to update the two columns');
SELECT is(claim_as_user($$ 9, '1 day', 1, 'dead' $$), 'permission denied for table dead',
  'dead letters need the right to insert');
SELECT is(claim_as_user($$ 9, '1 day', 9, 'dead', shard => 'task_1' $$), 'permission denied for table dead',
  'without it the table is not locked');
GRANT INSERT ON dead TO shard_user;
SELECT is(claim_as_user($$ 9, '1 day', 1, 'dead' $$), 'permission denied for foreign table task',
  'dead letters need the right to delete');
GRANT DELETE ON task TO shard_user;
SELECT is(claim_as_user($$ 9, '1 day', 1, 'dead' $$), '0', 'with both');
SELECT is((SELECT count(*) FROM dead), 5::bigint, 'with both, rows become dead letters');

-- Triggers that keep a row.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.id % 20 = 1 THEN NULL
  WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END; END $$;
SELECT shard_fdw.open_shard('task_0');
ALTER SEQUENCE task_id_1_seq RESTART WITH 1;
SELECT put(6);
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON task_0 FOR EACH ROW EXECUTE FUNCTION keep();
SELECT is(claimed($$ 2, '1 hour', order_by => 'id' $$), '11 1 22 9600', 'a trigger keeps a row');
SELECT is(claimed($$ 100, '1 hour', 9, 'dead', order_by => 'id' $$), '31 1 62 9600, 51 1 102 9600', 'the rest');
SELECT is(claimed($$ 3, '1 hour', 9, 'dead' $$), 'none', 'what is kept is not claimed');
DROP TRIGGER keep ON task_0;
UPDATE task SET attempts = 3, due = now();
CREATE TRIGGER keep BEFORE DELETE ON task_0 FOR EACH ROW EXECUTE FUNCTION keep();
SELECT is(claimed($$ 100, '1 hour', 3, 'dead' $$), 'none', 'a trigger keeps rows from becoming dead letters');
SELECT is((SELECT array_agg(id ORDER BY id) FROM task), '{1,21,41}', 'a trigger has kept these');

DROP TRIGGER keep ON task_0;

-- Dead letters that cannot go where they should.
CREATE RULE away AS ON INSERT TO dead DO INSTEAD NOTHING;
SELECT fails($$ SELECT claimed($a$ 100, '1 hour', 3, 'dead', shard => 'task_0' $a$) $$, '42809',
  'could not move rows of foreign table "task" to the dead letters',
  'The table for dead letters has a rule that does something else in place of INSERT.', title => 'a rule in place of INSERT');
DROP RULE away ON dead;
ALTER TABLE dead ADD CHECK (attempts < 9) NOT VALID;
UPDATE task SET attempts = 9;
-- The first call that comes to that shard fails, and the next one goes on with the other.
CREATE FUNCTION try() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN claimed($a$ 1, '1 hour', 9, 'dead' $a$) <> 'none';
EXCEPTION WHEN check_violation THEN
  RETURN 'error';
END $$;
SELECT is(try(), 'error', 'a row that cannot become a dead letter');
SELECT set_config('shard_fdw.shard', '1', true);
INSERT INTO task (doc) VALUES ('x');
SELECT set_config('shard_fdw.shard', '-1', true);
SELECT is(try(), 'true', 'after an error a session goes on with the next shard');

-- Dead letters that lead back to the shard.
CREATE FOREIGN TABLE again (id int, attempts int, due timestamptz) SERVER shards OPTIONS (shards '1');
CREATE VIEW again_dead AS SELECT * FROM again;
INSERT INTO again VALUES (1, 9, now());
SELECT is((SELECT count(*) FROM shard_fdw.claim(NULL::again, 1, '1 hour', 9, 'again_dead')), 0::bigint,
  'a call that would go on for ever comes to an end');
SELECT is((SELECT concat_ws(' ', id, attempts) FROM again), '1 9', 'the row has come back');

-- Dead letters in a logical table, and another one of hash shards.  Random
-- claims, compared with what a plain table should look like.
CREATE FUNCTION differences(kind text, options text, n int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  got int;
  wanted int;
  max_attempts int;
BEGIN
  EXECUTE format($f$
    CREATE FOREIGN TABLE %1$s (k text NOT NULL, tries smallint, next timestamptz) SERVER shards OPTIONS (%2$s);
    CREATE FOREIGN TABLE %1$s_dead (tries bigint, next timestamptz, k text) SERVER shards OPTIONS (shards '2');
    INSERT INTO %1$s SELECT md5(g::text), NULLIF(g %% 4, 0), now() - g * interval '1 second' FROM generate_series(1, %3$s) g;
    CREATE TEMP TABLE before AS SELECT * FROM %1$s;
    CREATE TEMP TABLE claimed (k text, tries int, next timestamptz)$f$, kind, options, n);
  FOR i IN 1 .. 60 LOOP
    max_attempts := 3 + i % 3;
    wanted := 1 + (random() * 6)::int;
    EXECUTE format($f$TRUNCATE before, claimed; INSERT INTO before SELECT * FROM %s$f$, kind);
    EXECUTE format($f$
      INSERT INTO claimed SELECT * FROM shard_fdw.claim(NULL::%1$s, %2$s, '1 hour', %3$s, '%1$s_dead',
        %4$L, NULL, 'tries', 'next')$f$, kind, wanted, max_attempts, (ARRAY['k', 'next', NULL])[1 + i % 3]);
    GET DIAGNOSTICS got = ROW_COUNT;
    IF got > wanted THEN RETURN 'too many'; END IF;
    -- What is claimed was due, and is as it was but for two columns.
    EXECUTE format($f$
      SELECT count(*) FROM (
        SELECT k, tries, next FROM %1$s EXCEPT ALL
        (SELECT b.k, COALESCE(c.tries, b.tries), COALESCE(c.next, b.next)
          FROM before b LEFT JOIN (SELECT * FROM claimed) c USING (k)
         WHERE c.k IS NULL OR b.next <= clock_timestamp() AND c.tries = COALESCE(b.tries, 0) + 1
           AND c.tries <= %2$s)) d$f$, kind, max_attempts) INTO got;
    IF got > 0 THEN RETURN 'wrong rows'; END IF;
    -- What is gone was due, had its attempts, and is a dead letter.
    EXECUTE format($f$
      SELECT count(*) FROM before b WHERE NOT EXISTS (SELECT FROM %1$s t WHERE t.k = b.k)
         AND NOT EXISTS (SELECT FROM %1$s_dead t WHERE t.k = b.k AND t.tries = b.tries AND t.next = b.next
                            AND b.tries >= %2$s AND b.next <= clock_timestamp())$f$, kind, max_attempts) INTO got;
    IF got > 0 THEN RETURN 'rows are lost'; END IF;
    EXECUTE format($f$
      UPDATE %1$s SET next = now() - random() * interval '1 hour' WHERE random() < 0.2;
      DELETE FROM %1$s t USING claimed c WHERE c.k = t.k AND c.tries = t.tries AND random() < 0.2$f$, kind);
  END LOOP;
  -- To the end.
  FOR i IN 1 .. 1000 LOOP
    EXECUTE format($f$
      UPDATE %1$s SET next = now();
      SELECT count(*) FROM shard_fdw.claim(NULL::%1$s, 20, '1 hour', 5, '%1$s_dead', attempts_column => 'tries',
        due_column => 'next')$f$, kind) INTO got;
    EXECUTE format('SELECT count(*) FROM %s', kind) INTO got;
    EXIT WHEN got = 0;
  END LOOP;
  EXECUTE format('SELECT count(*) = count(DISTINCT k) FROM %s_dead', kind) INTO STRICT kind;
  DROP TABLE before, claimed;
  RETURN got || ' left, each dead letter once: ' || kind;
END $$;
SELECT is(differences(kind, options, 120), '0 left, each dead letter once: true', 'random claims: ' || kind) FROM (VALUES
  ('by_turns', $$ shards '3', route 'round_robin' $$), ('by_session', $$ shards '2' $$),
  ('by_hash', $$ shards '4', route 'hash', key 'k' $$)) t(kind, options);

-- Plans that read one shard.
SELECT is(scanned_names($$ UPDATE task t SET attempts = COALESCE(attempts, 0) + 1
    WHERE tableoid = 'task_1'::regclass AND ctid = ANY ('{"(0,1)"}'::tid[]) $$), 'task task_1',
  'the statement that claims reads the shard');

SELECT * FROM finish();
ROLLBACK;
