-- Shards that are left out by the range of their times.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA prune_time_test;
SET LOCAL search_path = prune_time_test, public;
SET LOCAL timezone = 'UTC';

\ir helpers.psql

-- A clock that can be set.
CREATE FUNCTION clock() RETURNS timestamptz STABLE LANGUAGE sql AS $$
  SELECT current_setting('prune_time_test.now')::timestamptz $$;
CREATE FUNCTION set_clock(t text) RETURNS void LANGUAGE sql AS $$
  SELECT set_config('prune_time_test.now', t, true) $$;

-- The shards that the plan of a statement scans, or would scan, in order.
CREATE FUNCTION scanned(command text, OUT result text) LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT json) ' || command INTO plan;
  SELECT string_agg(DISTINCT substring(m[1] FROM '\d+$'), ' ') INTO result
    FROM regexp_matches(plan::text, '"Relation Name": "(\w+)"', 'g') m;
END $$;

-- Give all closed shards of a table their ranges.
CREATE FUNCTION add_ranges(logical regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  s regclass;
BEGIN
  FOR s IN SELECT shard FROM shard_fdw.list_shards(logical) WHERE state = 'closed' LOOP
    EXECUTE format('CALL shard_fdw.add_range(%L)', s);
  END LOOP;
END $$;

-- Three closed days and an open one.
CREATE FOREIGN TABLE log (id int, at timestamptz NOT NULL, note text)
  SERVER shards OPTIONS (shards '1', time_column 'at');
INSERT INTO log SELECT i, '2026-01-01'::timestamptz + i * interval '1 hour'
  FROM generate_series(0, 23) i;
SELECT FROM shard_fdw.rotate('log');
INSERT INTO log SELECT i, '2026-01-02'::timestamptz + i * interval '1 hour'
  FROM generate_series(0, 23) i;
SELECT FROM shard_fdw.rotate('log');
INSERT INTO log SELECT i, '2026-01-03'::timestamptz + i * interval '1 hour'
  FROM generate_series(0, 23) i;
SELECT FROM shard_fdw.rotate('log');
INSERT INTO log SELECT i, '2026-01-04'::timestamptz + i * interval '1 hour'
  FROM generate_series(0, 23) i;
SELECT is(scanned('SELECT FROM log WHERE at = ''2026-01-02'''), '0 1 2 3',
  'shards without a range are always read');
SELECT add_ranges('log');

--
-- What conditions leave
--

SELECT set_clock('2026-01-03 12:00');
SELECT is(scanned('SELECT FROM log WHERE ' || condition), shards, condition) FROM (VALUES
  ('at >= ''2026-01-03''', '2 3'),
  ('at > ''2026-01-02 23:00''', '2 3'),
  ('at >= ''2026-01-02 23:00''', '1 2 3'),
  ('at < ''2026-01-02''', '0 3'),
  ('at <= ''2026-01-02''', '0 1 3'),
  ('at = ''2026-01-02''', '1 3'),
  ('''2026-01-03'' <= at', '2 3'),
  ('at BETWEEN ''2026-01-02'' AND ''2026-01-02 12:00''', '1 3'),
  ('at BETWEEN ''2026-01-02 23:10'' AND ''2026-01-02 23:20''', '3'),
  ('at BETWEEN SYMMETRIC ''2026-01-02 12:00'' AND ''2026-01-02''', '1 3'),
  ('at >= ''2026-01-02'' AND at < ''2026-01-03''', '1 3'),
  ('at IN (''2026-01-01'', ''2026-01-03'', NULL)', '0 2 3'),
  ('at = ANY (''{2026-01-01,2026-01-03}'')', '0 2 3'),
  ('at = ANY (''{}'')', '3'),
  ('at > ANY (''{2026-01-04,2026-01-03}'')', '2 3'),
  ('at > ALL (''{2026-01-01,2026-01-03}'')', '2 3'),
  ('at NOT IN (''2026-01-01'', ''2026-01-03'')', '0 1 2 3'),
  ('at < ''2026-01-01 12:00'' OR at > ''2026-01-03 12:00''', '0 2 3'),
  ('at < ''2026-01-01 12:00'' OR id = 1', '0 1 2 3'),
  ('(at < ''2026-01-01 12:00'' AND id = 1) OR (at = ''2026-01-03'' AND id = 2)', '0 2 3'),
  ('NOT (at >= ''2026-01-02'')', '0 3'),
  ('NOT (at < ''2026-01-02'' OR at > ''2026-01-02 12:00'')', '1 3'),
  ('(at, id) > (''2026-01-02 22:30'', 5)', '1 2 3'),
  ('(at, id) > (''2026-01-02 23:30'', 5)', '2 3'),
  ('(at, id) <= (''2026-01-01 12:00'', 5)', '0 3'),
  ('at <> ''2026-01-02''', '0 1 2 3'),
  ('at IS NOT NULL', '0 1 2 3'),
  ('at = ''infinity''', '3'),
  ('at < ''infinity''', '0 1 2 3'),
  ('at <= ''-infinity''', '3'),
  ('at >= date ''2026-01-03''', '2 3'),
  ('at >= timestamp ''2026-01-03''', '2 3'),
  ('at >= date ''infinity''', '3'),
  ('at < date ''5874897-12-31''', '0 1 2 3'),
  ('at > date ''5874897-12-31''', '3'),
  ('at >= now()', '3'),
  ('at >= CURRENT_TIMESTAMP - interval ''1 hour''', '3'),
  ('at >= LOCALTIMESTAMP', '3'),
  ('at >= CURRENT_DATE', '3'),
  ('at >= statement_timestamp()', '3'),
  ('at >= clock_timestamp()', '0 1 2 3'),
  ('at >= clock() - interval ''12 hours''', '2 3'),
  ('at >= clock() - interval ''13 hours''', '1 2 3'),
  ('at BETWEEN clock() - interval ''2 days'' AND clock() - interval ''36 hours''', '0 1 3'),
  ('at IN (clock(), clock() - interval ''2 days'')', '0 2 3'),
  ('at + interval ''1 day'' > ''2026-01-04''', '0 1 2 3')) v (condition, shards);

SELECT set_config('timezone', 'Asia/Tokyo', true);
SELECT is(scanned('SELECT FROM log WHERE at >= date ''2026-01-03'''), '1 2 3',
  'a date is one in the session''s time zone');
SELECT set_config('timezone', 'UTC', true);
SET LOCAL enable_partition_pruning = off;
SELECT is(scanned('SELECT FROM log WHERE at >= clock()'), '0 1 2 3',
  'enable_partition_pruning can switch it off');
SET LOCAL enable_partition_pruning = on;

-- Statements that change or lock rows.
SELECT is(scanned('DELETE FROM log WHERE at >= ''2026-01-03'''), '2 3', 'DELETE');
SELECT is(scanned('UPDATE log SET note = ''x'' WHERE at < clock() - interval ''2 days'''), '0 3',
  'UPDATE');
SELECT is(scanned('SELECT FROM log WHERE at = ''2026-01-02'' FOR UPDATE'), '1 3', 'FOR UPDATE');
SELECT is(scanned('SELECT FROM log WHERE at = ''2026-01-02''
  UNION ALL SELECT FROM log WHERE at = ''2026-01-01'''), '0 1 3', 'members of a UNION ALL');

-- What an equivalence tells.
CREATE TABLE other (at timestamptz, d date, n int);
SELECT is(scanned(command), shards, command) FROM (VALUES
  ('SELECT FROM log JOIN other USING (at) WHERE other.at < ''2026-01-01 12:00''', '0 3'),
  ('SELECT FROM log JOIN other ON log.at = other.at AND other.at < clock() - interval ''2 days''',
    '0 3'),
  ('SELECT FROM log WHERE at IN (SELECT at FROM other
      WHERE at = ''2026-01-02'' OR at = ''2026-01-03'')', '1 2 3'),
  ('SELECT FROM log WHERE at NOT IN (SELECT at FROM other WHERE at = ''2026-01-02'')', '0 1 2 3'),
  ('SELECT FROM log WHERE NOT EXISTS (SELECT FROM other WHERE at = log.at AND at = ''2026-01-02'')',
    '0 1 2 3'),
  ('SELECT FROM log LEFT JOIN other ON log.at = other.at AND other.at < ''2026-01-01 12:00''',
    '0 1 2 3'),
  ('SELECT FROM log LEFT JOIN other ON log.at = other.at WHERE log.at < ''2026-01-01 12:00''',
    '0 3'),
  ('SELECT FROM other LEFT JOIN log ON log.at = other.at WHERE other.at < ''2026-01-01 12:00''',
    '0 1 2 3'),
  ('SELECT FROM other o LEFT JOIN (log JOIN other ON log.at = other.at
      AND other.at < ''2026-01-01 12:00'') ON o.n = log.id',
    CASE WHEN current_setting('server_version_num')::int < 160000 THEN '0 1 2 3' ELSE '0 3' END),
  ('DELETE FROM log USING other WHERE log.at = other.at AND other.at < ''2026-01-01 12:00''',
    '0 3'),
  ('SELECT FROM log FULL JOIN other USING (at) WHERE other.at < ''2026-01-01 12:00''', '0 1 2 3'))
  v (command, shards);

--
-- Plans that are kept
--

-- Values that are known when the query runs gate shards.
CREATE FUNCTION executed(command text, OUT result text) LANGUAGE plpgsql AS $$
DECLARE
  line text;
  shards text[] := '{}';
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) ' || command LOOP
    IF line ~ 'Scan (using \w+ )?on ' AND line !~ 'never executed' THEN
      shards := shards || substring(line FROM ' on \w+?_(\d+)');
    END IF;
  END LOOP;
  SELECT string_agg(s, ' ' ORDER BY s) INTO result FROM unnest(shards) s;
END $$;
SET LOCAL plan_cache_mode = force_generic_plan;
PREPARE since(timestamptz) AS SELECT FROM log WHERE at >= $1;
PREPARE at_times(timestamptz[]) AS SELECT FROM log WHERE at = ANY ($1);
PREPARE on_day(date) AS SELECT FROM log WHERE at >= $1 AND at < $1 + 1;
PREPARE two_days(timestamptz, timestamptz) AS SELECT FROM log
  WHERE at = $1 OR (at > $2 AND at < $2 + interval '1 hour' AND id > 0);
SELECT is(executed('EXECUTE since(''2026-01-03'')'), '2 3', 'a parameter');
SELECT is(executed('EXECUTE at_times(''{2026-01-01,2026-01-01 05:00}'')'), '0 3', 'an array');
SELECT is(executed('EXECUTE on_day(''2026-01-02'')'), '1 3', 'a parameter of another type');
SELECT is(executed('EXECUTE two_days(''2026-01-01'', ''2026-01-03 02:30'')'), '0 2 3',
  'parameters in an OR');
INSERT INTO other VALUES ('2026-01-02 03:00', '2026-01-02', 3);
SELECT is(executed('SELECT FROM log WHERE at >= (SELECT timestamptz ''2026-01-03'' OFFSET 0)'),
  '2 3', 'the result of a subquery');
SELECT is(executed('DELETE FROM log WHERE at < (SELECT timestamptz ''1999-01-03'' OFFSET 0)'), '3',
  'the result of a subquery in a DELETE');
SET LOCAL plan_cache_mode = force_custom_plan;
SELECT is(scanned('EXECUTE since(''2026-01-03'')'), '2 3',
  'a custom plan has no shards that the parameter rules out');
SET LOCAL plan_cache_mode = auto;

-- A plan is right although the clock goes on or back, or the time zone changes.
PREPARE recent AS SELECT FROM log WHERE at >= clock() - interval '12 hours';
PREPARE past AS SELECT FROM log WHERE at < clock() - interval '12 hours';
PREPARE day AS SELECT FROM log WHERE at >= date '2026-01-03';
PREPARE remove AS DELETE FROM log WHERE at < clock() - interval '2 days';
SELECT set_clock('2026-01-03 12:00');
SELECT is(scanned('EXECUTE recent'), '2 3', 'a plan is made');
SELECT is(scanned('EXECUTE past'), '0 1 3', 'a plan with an upper bound is made');
SELECT is(scanned('EXECUTE remove'), '0 3', 'a plan of a DELETE is made');
SELECT set_clock('2026-01-04 12:00');
SELECT is(scanned('EXECUTE recent'), '2 3', 'the clock goes on: it is kept');
SELECT is(scanned('EXECUTE past'), '0 1 2 3', 'the clock goes on: what is past grows');
SELECT is(scanned('EXECUTE remove'), '0 1 3', 'the clock goes on: what is to be deleted grows');
SELECT is(scanned('EXECUTE past'), '0 1 2 3',
  'the clock goes on: what is past is the same next time');
SELECT set_clock('2026-01-01 12:00');
SELECT is(scanned('EXECUTE recent'), '0 1 2 3', 'the clock is set back');
SELECT is(scanned('EXECUTE recent'), '0 1 2 3', 'the clock is set back: the same next time');
SELECT is(scanned('EXECUTE day'), '2 3', 'in one time zone');
SELECT set_config('timezone', 'Asia/Tokyo', true);
SELECT is(scanned('EXECUTE day'), '1 2 3', 'in another time zone');
SELECT set_config('timezone', 'UTC', true);
SELECT set_clock('2026-01-02 12:00');
PREPARE counted AS SELECT count(*) AS n FROM log WHERE at >= clock();
SELECT set_clock('2026-01-04');
SELECT is(returned('EXECUTE counted'), '{(24)}', 'rows are counted');
SELECT set_clock('2026-01-02 12:00');
SELECT is(returned('EXECUTE counted'), '{(60)}',
  'rows are counted when the clock has been set back');
SELECT set_clock('2026-01-04');
SELECT is(returned('EXECUTE counted'), '{(24)}',
  'rows are counted when the clock has been set forward again');

-- Cursors, functions and statements within statements are no different.
SELECT set_clock('2026-01-04');
CREATE FUNCTION count_recent() RETURNS bigint
  LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM log WHERE at >= clock()); END $$;
CREATE FUNCTION count_recent_sql() RETURNS SETOF bigint
  LANGUAGE sql AS $$ SELECT count(*) FROM log WHERE at >= clock() $$;
SELECT is(count_recent(), 24::bigint, 'a function in PL/pgSQL');
SELECT is((SELECT * FROM count_recent_sql()), 24::bigint, 'a function in SQL');
SELECT set_clock('2026-01-02 12:00');
SELECT is(count_recent(), 60::bigint, 'a function in PL/pgSQL when the clock has been set back');
SELECT is((SELECT * FROM count_recent_sql()), 60::bigint,
  'a function in SQL when the clock has been set back');
SELECT set_clock('2026-01-04');
PREPARE c AS SELECT id FROM log WHERE at >= clock() ORDER BY at;
SELECT is(array_length(returned('EXECUTE c'), 1), 24, 'a sorted one');
SELECT set_clock('2026-01-02 12:00');
DO $$
DECLARE
  c SCROLL CURSOR FOR SELECT id FROM log WHERE at >= clock() ORDER BY at;
  i int;
BEGIN
  PERFORM set_clock('2026-01-04');
  OPEN c; FETCH LAST FROM c INTO i; FETCH FIRST FROM c INTO i; CLOSE c;
  PERFORM set_config('prune_time_test.first', i::text, true);
  PERFORM set_clock('2026-01-02 12:00');
  OPEN c; FETCH LAST FROM c INTO i; FETCH FIRST FROM c INTO i; CLOSE c;
  PERFORM set_config('prune_time_test.second', i::text, true);
END $$;
SELECT is(current_setting('prune_time_test.first') || ' ' ||
  current_setting('prune_time_test.second'), '0 12', 'a cursor that goes back');
CREATE TABLE copied AS EXECUTE c;
SELECT is((SELECT count(*) FROM copied), 60::bigint, 'CREATE TABLE AS EXECUTE');
SELECT is(returned('WITH d AS (SELECT count(*) AS n FROM log WHERE at >= clock())
  SELECT n, (SELECT count(*) FROM log WHERE at < clock()) FROM d'), '{"(60,36)"}',
  'queries in a query');

-- ... or ranges come and go, or a shard is opened again.
SELECT set_clock('2026-01-03 12:00');
PREPARE again AS SELECT FROM log WHERE at >= clock();
SELECT is(scanned('EXECUTE again'), '2 3', 'a plan');
SAVEPOINT s;
SELECT shard_fdw.open_shard('log_0');
SELECT is(scanned('EXECUTE again'), '0 2 3', 'a shard is opened, which drops its range');
INSERT INTO log_0 VALUES (100, '2027-01-01');
SELECT is(array_length(returned('EXECUTE again'), 1), 37, 'a row in the opened shard is found');
ROLLBACK TO s;
SELECT is(scanned('EXECUTE again'), '2 3', 'after a rollback, the shard has its range again');
ALTER TABLE log_1 DROP CONSTRAINT shard_range;
SELECT is(scanned('EXECUTE again'), '1 2 3', 'a range is dropped');
CALL shard_fdw.add_range('log_1');
SELECT is(scanned('EXECUTE again'), '2 3', 'a range is added');
ALTER TABLE log_1 DROP CONSTRAINT shard_range;
ALTER TABLE log_1 ADD CONSTRAINT shard_range
  CHECK (at IS NOT NULL AND at >= '2026-01-02' AND at <= '2026-01-03') NOT VALID;
SELECT is(scanned('EXECUTE again'), '1 2 3', 'one that is not valid is not believed');
ALTER TABLE log_1 VALIDATE CONSTRAINT shard_range;
SELECT is(scanned('EXECUTE again'), '2 3', 'a range that has become valid is believed');

-- Locks.
SELECT is((SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
  WHERE pid = pg_backend_pid() AND relname ~ '^many'), 0::bigint, 'no lock yet');
CREATE FOREIGN TABLE many (at timestamp NOT NULL)
  SERVER shards OPTIONS (shards '1', time_column 'at');
DO $$ BEGIN FOR i IN 1..30 LOOP PERFORM FROM shard_fdw.rotate('many'); END LOOP; END $$;
SELECT add_ranges('many');
CREATE FUNCTION rows_locked_in(logical regclass) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(DISTINCT i.inhrelid::regclass::text, ' ') FROM pg_locks l
    JOIN pg_inherits i ON i.inhrelid = l.relation
   WHERE i.inhparent = logical AND l.pid = pg_backend_pid() AND l.mode = 'RowExclusiveLock'
$$;
SELECT is(rows_locked_in('many'), NULL, 'nothing is locked yet');
DELETE FROM many WHERE at < '2026-01-01';
SELECT is(rows_locked_in('many'), 'many_30', 'DELETE locks only the shards that can have the rows');
UPDATE many SET at = '2026-01-01' WHERE at < clock()::timestamp - interval '1 day';
SELECT is(rows_locked_in('many'), 'many_30', 'so does UPDATE');
WITH d AS (DELETE FROM many WHERE at = '2026-01-01' RETURNING at)
  UPDATE many m SET at = d.at FROM d WHERE m.at = '2026-01-02';
SELECT is(rows_locked_in('many'), 'many_30', 'so do statements with both');
SELECT is_empty('UPDATE many SET at = now() WHERE at = ''2026-01-01'' AND false RETURNING *',
  'UPDATE with a condition that is false');
SELECT is_empty('UPDATE many SET at = o.at FROM other o WHERE many.at = ''2026-01-01'' AND false
  RETURNING many.*', 'UPDATE ... FROM with a condition that is false');
SELECT is_empty('DELETE FROM many USING other o WHERE many.at < ''2026-01-01''
  AND many.at > ''2026-01-01'' RETURNING many.*', 'DELETE ... USING that no shard can match');
SELECT shard_fdw.close_shard('many_30');
SELECT add_ranges('many');
SELECT is_empty('UPDATE many SET at = ''2026-01-01'' WHERE at = ''2026-01-01'' RETURNING *',
  'UPDATE when the ranges rule out all shards');
SELECT is_empty('DELETE FROM many WHERE at = ''2026-01-01'' RETURNING *',
  'DELETE when the ranges rule out all shards');
CREATE FUNCTION note_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('prune_time_test.fired', TG_OP, true);
  RETURN NULL;
END $$;
CREATE TRIGGER t AFTER UPDATE ON many FOR EACH STATEMENT EXECUTE FUNCTION note_statement();
UPDATE many SET at = '2026-01-01' WHERE at = '2026-01-01';
SELECT is(current_setting('prune_time_test.fired', true), 'UPDATE',
  'a statement trigger fires also if no shard is left');

--
-- Against a plain table, at random
--

CREATE FUNCTION pick(VARIADIC a text[]) RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT a[1 + floor(random() * cardinality(a))::int] $$;
-- A time of the days around a change of clocks, or something odd.
CREATE FUNCTION random_time() RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN random() < 0.03 THEN pick('infinity', '-infinity', '294276-12-31 23:59:59')
    ELSE to_char(pick('2026-03-08 02:00', '2026-10-25 02:00', '2026-11-01 01:00',
      '2026-03-29 02:30', '2026-06-01')::timestamp
      + (random() * 40 - 20) * pick('1 hour', '1 minute', '1 day')::interval,
        'YYYY-MM-DD HH24:MI:SS') END
$$;
CREATE FUNCTION random_zone() RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT pick('UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata', 'Pacific/Apia', '<X>+20',
    'Australia/Lord_Howe')
$$;
-- A value as an expression: a constant, a parameter, or one that is only stable.
CREATE FUNCTION random_value(with_parameters bool) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  type text := pick('timestamptz', 'timestamp', 'date', 'timestamptz');
  t text := random_time();
BEGIN
  IF type = 'timestamptz' AND random() < 0.5 THEN
    RETURN pick('clock()', 'clock() - interval ''1 day''', 'clock() + interval ''1 month''',
      'clock() - interval ''90 minutes''');
  ELSIF with_parameters AND random() < 0.5 THEN
    RETURN pick('$1', '$2', '$3', '$1 - interval ''1 day''');
  END IF;
  RETURN format('%s %L', type, t);
END $$;
CREATE FUNCTION random_condition(with_parameters bool, depth int DEFAULT 0) RETURNS text
  LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v text := random_value(with_parameters);
  w text := random_value(with_parameters);
BEGIN
  IF depth < 2 AND random() < 0.4 THEN
    RETURN format('(%s %s %s)', random_condition(with_parameters, depth + 1), pick('AND', 'OR'),
      random_condition(with_parameters, depth + 1));
  END IF;
  CASE pick('op', 'op', 'op', 'between', 'in', 'row', 'other', 'swap', 'not')
    WHEN 'op' THEN RETURN format('at %s %s', pick('<', '<=', '=', '>=', '>', '<>'), v);
    WHEN 'swap' THEN RETURN format('%s %s at', v, pick('<', '<=', '=', '>=', '>'));
    WHEN 'between' THEN RETURN format('at BETWEEN %s AND %s', v, w);
    WHEN 'in' THEN RETURN format('at %s (ARRAY[%s, %s]::timestamptz[])',
      pick('= ANY', '>= ANY', '< ALL', '>= ALL'), v, w);
    WHEN 'row' THEN RETURN format('(at, id) %s (%s, 50)', pick('<', '<=', '>=', '>'), v);
    WHEN 'not' THEN RETURN format('NOT (at %s %s)', pick('<', '<=', '=', '>=', '>'), v);
    ELSE RETURN pick('id > 50', 'note IS NULL', 'at IS NULL');
  END CASE;
END $$;

-- Tables of each type with generations of shards, and their plain twins.
CREATE FUNCTION make_twins(type text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE log_%1$s (id int, at %1$s NOT NULL, note text)
    SERVER shards OPTIONS (shards ''2'', route ''round_robin'', time_column ''at'')', type);
  EXECUTE format('CREATE TABLE plain_%1$s (id int, at %1$s NOT NULL, note text)', type);
  FOR g IN 0..7 LOOP
    EXECUTE format('WITH times AS MATERIALIZED (SELECT %s * 100 + i AS id, t::%s AS at
      FROM generate_series(1, 14) i,
      LATERAL (SELECT random_time() AS t WHERE i > 0) r)
      INSERT INTO plain_%s SELECT id, at FROM times', g, type, type);
    -- Few in a shard, so that ranges are narrow.
    EXECUTE format('WITH o AS (SELECT id, row_number() OVER (ORDER BY at) AS n
      FROM plain_%1$s WHERE id / 100 = %2$s)
      UPDATE plain_%1$s p SET note = CASE WHEN n %% 2 = 0 THEN ''x'' END FROM o
        WHERE o.id = p.id', type, g);
  END LOOP;
  FOR g IN 0..15 LOOP
    EXECUTE format('INSERT INTO log_%1$s SELECT id, at, note
      FROM (SELECT *, ntile(16) OVER (ORDER BY at) AS n FROM plain_%1$s) x
     WHERE n = %2$s + 1', type, g);
    IF g < 15 THEN
      PERFORM FROM shard_fdw.rotate(('log_' || type)::regclass);
    END IF;
  END LOOP;
  PERFORM add_ranges(('log_' || type)::regclass);
END $$;
SELECT setseed(0.26);
SELECT make_twins(type) FROM unnest('{timestamptz,timestamp,date}'::text[]) type;

-- What differs between the two in so many tries.
CREATE FUNCTION differences(n int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  type text;
  condition text;
  mode text;
  arguments text;
  command text;
  results text[];
BEGIN
  FOR i IN 1..n LOOP
    type := pick('timestamptz', 'timestamp', 'date');
    mode := pick('once', 'once', 'force_generic_plan', 'force_custom_plan', 'auto', 'delete',
      'update', 'delete using', 'update from', 'join');
    condition := random_condition(mode IN ('force_generic_plan', 'force_custom_plan', 'auto'));
    PERFORM set_config('timezone', random_zone(), true), set_clock(random_time());
    arguments := format('(%L, %L, %L)', random_time(), random_time(),
      regexp_replace(random_time(), ' \d.*', ''));
    FOR k IN 1..2 LOOP
      results := '{}';
      FOR j IN 1..2 LOOP
        command := format(CASE mode
          WHEN 'delete' THEN 'WITH d AS (DELETE FROM %1$s_%2$s WHERE %3$s RETURNING id)
            SELECT array_agg(id ORDER BY id) FROM d'
          WHEN 'update' THEN 'WITH d AS (UPDATE %1$s_%2$s SET note = ''y'' WHERE %3$s RETURNING id)
            SELECT array_agg(id ORDER BY id) FROM d'
          WHEN 'delete using' THEN 'WITH d AS (DELETE FROM %1$s_%2$s a
            USING (SELECT at AS t, note FROM plain_%2$s WHERE %3$s) b
            WHERE a.at = b.t AND a.note IS NOT DISTINCT FROM b.note RETURNING a.id)
            SELECT array_agg(id ORDER BY id) FROM d'
          WHEN 'update from' THEN 'WITH d AS (UPDATE %1$s_%2$s a SET id = a.id + 1, note = b.note
            FROM %1$s_%2$s b
            WHERE a.at = b.at AND a.id BETWEEN b.id - 3 AND b.id AND b.id IN (SELECT id FROM plain_%2$s WHERE %3$s)
            RETURNING a.id)
            SELECT array_agg(id ORDER BY id) FROM d'
          WHEN 'join' THEN 'SELECT array_agg(a.id ORDER BY a.id) FROM %1$s_%2$s a
            JOIN (SELECT at FROM plain_%2$s WHERE %3$s) b ON a.at = b.at'
          ELSE 'SELECT array_agg(id ORDER BY id) FROM %1$s_%2$s WHERE %3$s' END,
          CASE j WHEN 1 THEN 'log' ELSE 'plain' END, type, condition);
        DECLARE
          result text;
        BEGIN
          IF mode ~ '^(delete|update)' THEN
            EXECUTE command INTO result;
            RAISE EXCEPTION USING errcode = 'ZZ000', message = coalesce(result, 'none');
          ELSIF mode IN ('once', 'join') THEN
            EXECUTE command INTO result;
          ELSE
            PERFORM set_config('plan_cache_mode', mode, true);
            IF NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'twin_' || j) THEN
              EXECUTE format('PREPARE twin_%s(timestamptz, timestamp, date) AS %s', j, command);
            END IF;
            EXECUTE format('EXECUTE twin_%s%s', j, arguments) INTO result;
          END IF;
          results[j] := coalesce(result, 'none');
        EXCEPTION
          WHEN SQLSTATE 'ZZ000' THEN results[j] := SQLERRM;
          WHEN datetime_field_overflow THEN results[j] := 'out of range';
        END;
      END LOOP;
      IF results[1] <> results[2] AND 'out of range' <> ALL (results) THEN
        RETURN NEXT format('%s, try %s, %s, %s, %s%s: %s but %s', mode, k,
          current_setting('timezone'), current_setting('prune_time_test.now'),
          command, arguments, results[1], results[2]);
      END IF;
      -- Once more, at another time and place.
      PERFORM set_config('timezone', random_zone(), true), set_clock(random_time());
      arguments := format('(%L, %L, %L)', random_time(), random_time(),
        regexp_replace(random_time(), ' \d.*', ''));
    END LOOP;
    IF EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'twin_1') THEN
      DEALLOCATE twin_1;
    END IF;
    IF EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'twin_2') THEN
      DEALLOCATE twin_2;
    END IF;
  END LOOP;
END $$;
SELECT is((SELECT string_agg(d, E'\n') FROM differences(1500) d), NULL,
  'the same rows as in a plain table');

SELECT finish();
ROLLBACK;
