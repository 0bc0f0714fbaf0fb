-- Where consumers begin, moving them, and how far behind they are, in one
-- session; several are in test/t/seek.t.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE SCHEMA seek_test;
SET LOCAL search_path = seek_test, public;
SET LOCAL timezone = 'UTC';

\ir helpers.psql
CREATE TABLE model (id bigint PRIMARY KEY, at timestamptz, v text);
CREATE INDEX ON model (at);
CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL, v text)
  SERVER shards OPTIONS (shards '2', max_shards '10', commit_order 'true', template 'model');
CREATE FUNCTION at(minute numeric) RETURNS timestamptz
  LANGUAGE sql AS $$ SELECT timestamptz '2026-01-01 10:00 UTC' + minute * interval '1 minute' $$;
CREATE FUNCTION put(shard int, VARIADIC minutes numeric[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('shard_fdw.shard', shard::text, true);
  INSERT INTO log (at, v) SELECT at(m), shard || ' ' || m FROM unnest(minutes) m;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
-- All that a consumer gets.
CREATE FUNCTION rest(consumer text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  result text[] := '{}';
  batch text[];
BEGIN
  LOOP
    batch := ARRAY(SELECT v FROM shard_fdw.read_batch(NULL::log, consumer, 2));
    EXIT WHEN batch = '{}';
    result := result || batch;
  END LOOP;
  RETURN ARRAY(SELECT v FROM unnest(result) v ORDER BY v);
END $$;
CREATE FUNCTION rest_to(consumer text, minute numeric) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  result text[] := '{}';
BEGIN
  FOR i IN 1..6 LOOP
    result := result
      || ARRAY(SELECT v FROM shard_fdw.read_window(NULL::log, consumer, at(minute)));
  END LOOP;
  RETURN ARRAY(SELECT v FROM unnest(result) v ORDER BY v);
END $$;
CREATE FUNCTION shown_lag(name text) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(concat_ws(' ', shard, unread_rows, to_char(oldest, 'HH24:MI')), ', '
      ORDER BY shard::text)
    FROM shard_fdw.consumer_lag('log', name) $$;

--
-- Beginning now
--

SELECT put(0, 1, 2, 3);
SELECT shard_fdw.register_consumer('log', 'c', 'id', 'now');
SELECT is(rest('c'), '{}', 'who begins now does not read what is there');
SELECT put(0, 4), put(1, 5, 6);
SELECT is(shown_lag('c'), 'log_0 1, log_1 2',
  'what is not read yet is counted, without times if there are none');
SELECT is(rest('c'), '{0 4,1 5,1 6}', 'who begins now reads what comes');
SELECT is(shown_lag('c'), 'log_0 0, log_1 0', 'then nothing is left');
SELECT shard_fdw.register_consumer('log', 'first', 'id', start => 'first');
SELECT is(rest('first'), '{0 1,0 2,0 3,0 4,1 5,1 6}', 'who begins with the first row');
SELECT shard_fdw.create_shards('log', 1);
SELECT put(2, 7);
SELECT is(rest('c'), '{2 7}', 'a new shard is read from its first row');

SELECT shard_fdw.register_consumer('log', 'w', 'at', 'now');
SELECT is(rest_to('w', 60), '{}', 'windows from now on');
SELECT ok(bool_and(window_end BETWEEN now() AND clock_timestamp() AND rows_behind = 0
    AND watermark IS NOT NULL), 'windows from now on, in the view')
  FROM shard_fdw.consumers WHERE consumer = 'w';
SELECT put(0, 8);
INSERT INTO log (at, v) VALUES (clock_timestamp(), 'in time');
SELECT is(shown_lag('w') ~ 'log_0 [12] 10:08', true, 'lag of windows, with the time of the oldest');
SELECT is((SELECT sum(rows_behind) FROM shard_fdw.consumers WHERE consumer = 'w'), 2::numeric,
  'lag of windows, in the view');
CREATE FUNCTION windows_now(name text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  up_to timestamptz := clock_timestamp();
  result text[] := '{}';
BEGIN
  FOR i IN 1..3 LOOP
    result := result || ARRAY(SELECT v FROM shard_fdw.read_window(NULL::log, name, up_to));
  END LOOP;
  RETURN ARRAY(SELECT v FROM unnest(result) v ORDER BY v);
END $$;
SELECT pg_sleep(0.001);
SELECT is(windows_now('w'), '{0 8,in time}', 'windows from now on, and a row of an earlier time');
SELECT is((SELECT sum(late_rows) FROM shard_fdw.windows WHERE consumer = 'w'), 1::numeric,
  'windows from now on, the row of an earlier time is late');
DELETE FROM log WHERE v = 'in time';

--
-- Moving
--

SELECT shard_fdw.seek_consumer('log', 'c', 'first');
SELECT is(rest('c'), '{0 1,0 2,0 3,0 4,0 8,1 5,1 6,2 7}', 'back to the first row');
SELECT shard_fdw.seek_consumer('log', 'c', 'first', 'log_1');
SELECT is(rest('c'), '{1 5,1 6}', 'back to the first row of one shard');
SELECT put(0, 9), put(1, 10);
SELECT shard_fdw.seek_consumer('log', 'c', 'now', shard => 'log_0');
SELECT is(rest('c'), '{1 10}', 'past what is in one shard');
SELECT shard_fdw.seek_consumer('log', 'c', id, 'log_0') FROM log WHERE v = '0 3';
SELECT is(rest('c'), '{0 4,0 8,0 9}', 'to an id');
SELECT shard_fdw.seek_consumer('log', 'c', -5, 'log_0');
SELECT is(cardinality(rest('c')), 6, 'to before any id');
SAVEPOINT s;
SELECT shard_fdw.seek_consumer('log', 'c', 'first');
ROLLBACK TO s;
SELECT is(rest('c'), '{}', 'moving is rolled back');

SELECT shard_fdw.register_consumer('log', 'v', 'at');
SELECT is(rest_to('v', 5), '{0 1,0 2,0 3,0 4}', 'the first windows');
SELECT put(0, 2.5);
SELECT shard_fdw.seek_consumer('log', 'v', at(3));
SELECT is(rest_to('v', 5), '{0 2.5,0 3,0 4}',
  'windows again, and what has come late before them');
SELECT is((SELECT string_agg(concat_ws(' ', to_char(window_start, 'MI'), to_char(window_end, 'MI'),
      rows, late_rows), ', ' ORDER BY window_end) FROM shard_fdw.windows
    WHERE consumer = 'v' AND shard = 'log_0'::regclass), '03 05 3 1',
  'windows again, as the record has them');
SELECT put(0, 2.6);
SELECT shard_fdw.seek_consumer('log', 'v', at(9));
SELECT is(rest_to('v', 20), '{0 9,1 10}', 'windows are skipped, with what is late now');
SELECT put(0, 2.7);
SELECT is(rest_to('v', 21), '{0 2.7}', 'windows are skipped, but not what comes later');
SELECT shard_fdw.seek_consumer('log', 'v', 'first', 'log_2');
SELECT is(rest_to('v', 22), '{2 7}', 'all windows of a shard again');
SELECT shard_fdw.seek_consumer('log', 'v', 'now');
SELECT is(rest_to('v', 30), '{}', 'windows from now on');

-- Any moves: what is to be read again is, and nothing else.
SELECT shard_fdw.register_consumer('log', 'r', 'at'), shard_fdw.register_consumer('log', 'i', 'id');
CREATE TABLE windowed (id bigint, at timestamptz, shard oid, up_to timestamptz);
CREATE TABLE batched (id bigint, shard oid);
CREATE TABLE counted (consumer text, told bigint, found bigint);
DO $$
DECLARE
  t numeric := 40;
  back timestamptz;
  s regclass;
  mark bigint;
BEGIN
  PERFORM setseed(0.7);
  FOR n IN 1..200 LOOP
    PERFORM put((random() * 2)::int, VARIADIC (SELECT array_agg((t + random() * 8 - 6)::numeric)
        FROM generate_series(1, (random() * 6)::int + 1)));
    t := t + random()::numeric;
    s := 'log_' || (random() * 2)::int;
    IF random() < 0.6 THEN
      INSERT INTO windowed SELECT w.id, w.at, 0, at(t)
        FROM shard_fdw.read_window(NULL::log, 'r', at(t)) w;
    END IF;
    IF random() < 0.6 THEN
      INSERT INTO batched SELECT b.id, 0
        FROM shard_fdw.read_batch(NULL::log, 'i', 1 + (random() * 10)::int) b;
    END IF;
    UPDATE windowed w SET shard = l.tableoid FROM log l WHERE l.id = w.id;
    UPDATE batched b SET shard = l.tableoid FROM log l WHERE l.id = b.id;
    CASE (random() * 20)::int
      WHEN 1, 2, 3 THEN             -- to a time, back or forth
        back := at(t + 2 - (random() * 10)::numeric);
        IF back < (SELECT window_end FROM shard_fdw.consumers
                    WHERE logical = 'log'::regclass AND consumer = 'r' AND shard = s) THEN
          DELETE FROM windowed WHERE shard = s AND at >= back;
        ELSE
          INSERT INTO windowed SELECT id, at, tableoid, 'infinity' FROM log
           WHERE tableoid = s AND at < back AND id NOT IN (SELECT id FROM windowed);
        END IF;
        PERFORM shard_fdw.seek_consumer('log', 'r', back, s);
      WHEN 4 THEN
        DELETE FROM windowed WHERE shard = s;
        PERFORM shard_fdw.seek_consumer('log', 'r', 'first', s);
      WHEN 5, 6, 7 THEN             -- to an id
        mark := (SELECT id FROM log WHERE tableoid = s ORDER BY random() LIMIT 1);
        CONTINUE WHEN mark IS NULL;
        DELETE FROM batched WHERE shard = s AND id > mark;
        INSERT INTO batched SELECT id, tableoid FROM log
         WHERE tableoid = s AND id <= mark AND id NOT IN (SELECT id FROM batched);
        PERFORM shard_fdw.seek_consumer('log', 'i', mark, s);
      WHEN 8 THEN
        DELETE FROM batched;
        PERFORM shard_fdw.seek_consumer('log', 'i', 'first');
      WHEN 9 THEN
        INSERT INTO batched SELECT id, tableoid FROM log
         WHERE id NOT IN (SELECT id FROM batched);
        PERFORM shard_fdw.seek_consumer('log', 'i', 'now');
      ELSE
        INSERT INTO counted
          SELECT 'r', sum(unread_rows), (SELECT count(*) FROM log
                                          WHERE id NOT IN (SELECT id FROM windowed))
            FROM shard_fdw.consumer_lag('log', 'r')
          UNION ALL
          SELECT 'i', sum(unread_rows), (SELECT count(*) FROM log
                                          WHERE id NOT IN (SELECT id FROM batched))
            FROM shard_fdw.consumer_lag('log', 'i');
    END CASE;
  END LOOP;
  FOR n IN 1..4 LOOP
    INSERT INTO windowed SELECT w.id, w.at, 0, at(1000)
      FROM shard_fdw.read_window(NULL::log, 'r', at(1000)) w;
    INSERT INTO batched SELECT b.id, 0 FROM shard_fdw.read_batch(NULL::log, 'i', 10000) b;
  END LOOP;
END $$;
SELECT is((SELECT count(*) FROM windowed WHERE at >= up_to), 0::bigint,
  'windows that are moved, no row before its time');
SELECT results_eq('SELECT id FROM windowed ORDER BY 1', 'SELECT id FROM log ORDER BY 1',
  'windows that are moved, each row once');
SELECT results_eq('SELECT id FROM batched ORDER BY 1', 'SELECT id FROM log ORDER BY 1',
  'batches that are moved, each row once');
SELECT is_empty('SELECT * FROM counted WHERE told <> found', 'lag is what has not been read');
SELECT cmp_ok((SELECT max(least(told, 10)) FROM counted), '=', 10::bigint, 'lag, not always 0');

--
-- Time of the oldest
--

CREATE TABLE days_model (id bigint PRIMARY KEY, "the day" date NOT NULL);
CREATE FOREIGN TABLE days (id bigint OPTIONS (sequence 'always'), "the day" date NOT NULL)
  SERVER shards OPTIONS (shards '1', commit_order 'true', template 'days_model',
                         time_column '"the day"', maintenance 'manual');
SELECT shard_fdw.register_consumer('days', 'd', 'id');
SELECT results_eq('SELECT * FROM shard_fdw.consumer_lag(''days'')',
  $$ VALUES ('d'::text, 'days_0'::regclass, 0::bigint, NULL::timestamptz) $$, 'nothing to read');
INSERT INTO days ("the day") VALUES ('2026-02-03'), ('2026-01-03'), ('2026-03-01');
SELECT results_eq('SELECT * FROM shard_fdw.consumer_lag(''days'')',
  $$ VALUES ('d'::text, 'days_0'::regclass, 3::bigint, '2026-01-03'::timestamptz) $$,
  'the oldest by the time column');

--
-- What is refused
--

SELECT fails('SELECT shard_fdw.' || call, state, message, detail, hint, title => call)
  FROM (VALUES
  ('register_consumer(''log'', ''x'', ''id'', ''today'')', '22023',
    'invalid value for parameter "start": "today"', '', 'Valid values are: first, now.'),
  ('seek_consumer(''log'', ''c'', ''2026-01-01'')', '22023',
    'invalid value for parameter "start": "2026-01-01"', '', 'Valid values are: first, now.'),
  ('seek_consumer(''log'', ''none'', ''now'')', '42704',
    'consumer "none" of foreign table "log" does not exist', '',
    'Register it with SELECT shard_fdw.register_consumer().'),
  ('seek_consumer(''log'', ''c'', ''now'', ''days_0'')', '42809',
    '"days_0" is not a shard of foreign table "log"', '', ''),
  ('seek_consumer(''log'', ''c'', 1000000, ''log_0'')', '22023',
    'shard "log_0" has not given id 1000000 yet', 'The consumer would miss rows.', ''),
  ('seek_consumer(''log'', ''c'', 1, NULL)', '22004', 'shard must not be null', '', ''),
  ('seek_consumer(''log'', ''w'', 1, ''log_0'')', '55000',
    'consumer "w" of foreign table "log" reads windows of column "at"', '', 'Seek to a time.'),
  ('seek_consumer(''log'', ''c'', now())', '55000',
    'consumer "c" of foreign table "log" does not read windows', '', 'Seek to an id in a shard.'),
  ('seek_consumer(''log'', ''w'', now() + interval ''1 hour'')', '22023',
    'cannot seek to a time that has not come', '',
    'To begin at the present or with the first row, seek to ''now'' or ''first''.'),
  ('seek_consumer(''log'', ''w'', timestamptz ''-infinity'')', '22023', NULL, NULL, NULL),
  ('seek_consumer(''model'', ''w'', ''now'')', '42809', NULL, NULL, NULL),
  ('seek_consumer(''log'', NULL, ''now'')', '22004', 'consumer must not be null', '', ''),
  ('consumer_lag(''log'', ''none'')', '42704',
    'consumer "none" of foreign table "log" does not exist', '',
    'Register it with SELECT shard_fdw.register_consumer().'),
  ('consumer_lag(NULL)', '22004', 'logical table must not be null', '', '')
 ) t(call, state, message, detail, hint);
GRANT USAGE ON SCHEMA seek_test TO shard_user;
SELECT fails('SELECT * FROM shard_fdw.consumer_lag(''log'')', '42501', role => 'shard_user',
  title => 'lag is for those who may read the table');
SELECT fails('SELECT shard_fdw.seek_consumer(''log'', ''c'', ''now'')', '42501',
  role => 'shard_user', title => 'so is moving');
GRANT SELECT ON log TO shard_user;
SELECT fails('SELECT shard_fdw.seek_consumer(''log'', ''c'', ''now'')', '42501',
  'permission denied for consumer "c"', role => 'shard_user',
  title => 'who may read the table does not move a consumer of another role');
GRANT shard_user TO shard_reader;
SET LOCAL ROLE shard_user;
SELECT shard_fdw.register_consumer('log', 'theirs', 'id');
SELECT shard_fdw.register_consumer('log', 'their windows', 'at');
SELECT is(cardinality(ARRAY(SELECT shard_fdw.read_window(NULL::log, 'their windows', at(1000)))) > 0,
  true, 'a role reads windows');
RESET ROLE;
SET LOCAL ROLE shard_reader;
SELECT lives_ok('SELECT shard_fdw.seek_consumer(''log'', ''theirs'', ''now'')',
  'a member of the role may move it');
RESET ROLE;
REVOKE shard_user FROM shard_reader;
GRANT USAGE, CREATE ON SCHEMA seek_test TO shard_reader;
ALTER FOREIGN TABLE log OWNER TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT is((SELECT count(*) FROM shard_fdw.windows WHERE consumer = 'their windows'), 1::bigint,
  'the owner of the table sees the windows of all');
SELECT lives_ok('SELECT shard_fdw.seek_consumer(''log'', ''theirs'', ''first'')',
  'the owner of the table moves the consumers of all');
SELECT isnt_empty('SELECT shard_fdw.read_batch(NULL::log, ''theirs'')',
  'the owner of the table reads for the consumers of all');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
