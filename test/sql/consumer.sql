-- Commit order, consumers, and dequeue, in one session; several are in
-- test/specs/lanes.spec and test/t/lanes.t.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE SCHEMA consumer_test;
SET LOCAL search_path = consumer_test, public;

\ir helpers.psql
CREATE FUNCTION fill(tbl regclass, shard int, rows int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('shard_fdw.shard', shard::text, true);
  EXECUTE format('INSERT INTO %s (v) SELECT %L || g FROM generate_series(1, %s) g', tbl, shard
    || ' ', rows);
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;

--
-- Option commit_order
--

CREATE TABLE model (id bigint PRIMARY KEY, gone int, v text);
ALTER TABLE model DROP gone;
CREATE FOREIGN TABLE log (gone int, id bigint OPTIONS (sequence 'always'), v text)
  SERVER shards OPTIONS (shards '3', max_shards '10', commit_order 'true');
ALTER FOREIGN TABLE log DROP gone;
SELECT fails('CREATE FOREIGN TABLE bad (a int) SERVER shards OPTIONS (' || options || ')', state,
  message, detail, hint, title => options) FROM (VALUES
  ('commit_order ''perhaps''', 'HV024', 'invalid value for option "commit_order": "perhaps"', '',
    'Valid values are: true, false.'),
  ('commit_order ''on'', route ''round_robin''', 'HV024',
    'option "commit_order" cannot be used with route "round_robin"', '',
    'With commit order a transaction keeps to few shards; use route "session" or "hash".')
 ) t(options, state, message, detail, hint);
SELECT fails('INSERT INTO log OVERRIDING SYSTEM VALUE VALUES (1)', '428C9',
  'cannot insert a non-DEFAULT value into column "id"',
  'Foreign table "log" has option "commit_order", and its ids have to show the order of commits.',
  'Leave the column out, or insert into one shard.', title => 'ids of the user''s are refused');
CREATE TEMP TABLE explained (line text);
DO $$
DECLARE
  line text;
BEGIN
  FOR line IN EXPLAIN (COSTS off) INSERT INTO log (v) VALUES ('x') LOOP INSERT INTO explained
    VALUES (line); END LOOP;
END $$;
SELECT ok(EXISTS (SELECT FROM explained WHERE line ~ 'Commit Order: true'), 'EXPLAIN shows it');
SELECT is_empty('SELECT * FROM shard_fdw.leases WHERE lane', 'EXPLAIN shows it, and takes no lane');
INSERT INTO log (v) VALUES ('x');
SELECT is((SELECT count(*) FROM shard_fdw.leases WHERE logical = 'log'::regclass AND lane
    AND pid = pg_backend_pid()), 1::bigint, 'view leases shows the lane');
SELECT is((SELECT sum(sessions) FROM shard_fdw.shards WHERE logical = 'log'::regclass), 1::numeric,
  'view leases shows the lane, and view shards one session');
TRUNCATE log RESTART IDENTITY;
CREATE SERVER ordered FOREIGN DATA WRAPPER shard_fdw OPTIONS (commit_order 'true');
CREATE FOREIGN TABLE turning (a int) SERVER ordered OPTIONS (shards '2', route 'round_robin');
SELECT fails('INSERT INTO turning VALUES (1)', '55000',
  title => 'round robin by default of the server');
SELECT fails('SELECT shard_fdw.check_order(''log'')', NULL, 'could not get commit timestamp data',
  title => 'check_order wants commit timestamps');
SELECT fails('SELECT shard_fdw.check_order(''turning'')', NULL,
  'foreign table "turning" has no column with option "sequence"',
  title => 'check_order wants commit timestamps, and ids');

--
-- Consumers
--

SELECT fill('log', 0, 5), fill('log', 1, 3);
SELECT lives_ok($$ SELECT shard_fdw.register_consumer('log', 'c', 'id') $$,
  'a consumer is registered');
SELECT is((SELECT string_agg(concat_ws(' ', consumer, shard, coalesce(watermark, -1), rows_behind),
      ', ' ORDER BY shard::text) FROM shard_fdw.consumers WHERE logical = 'log'::regclass
    AND shard <> 'log_2'::regclass),
  'c log_0 -1 ' || ((SELECT count(*) FROM log_0) + (SELECT (min(id) - 1) / 10 FROM log_0))
    || ', c log_1 -1 ' || ((SELECT count(*) FROM log_1) + (SELECT (min(id) - 2) / 10 FROM log_1)),
    'view consumers');
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c', 2)), '{0 1,0 2}',
  'a batch');
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c', 2)), '{1 1,1 2}',
  'a batch, of another shard');
SAVEPOINT s;
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c', 2)), '{0 3,0 4}',
  'a batch, of the first');
ROLLBACK TO s;
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c', 2)), '{0 3,0 4}',
  'a batch, which comes again after a rollback');
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c')), '{1 3}',
  'what is left of one');
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c')), '{0 5}',
  'what is left of one shard, and of the other');
SELECT is_empty($$ SELECT * FROM shard_fdw.read_batch(NULL::log, 'c') $$, 'there is no more');
SELECT ok(bool_and(rows_behind = 0 AND (shard = 'log_2'::regclass OR last_read > now())),
  'view consumers') FROM shard_fdw.consumers WHERE logical = 'log'::regclass;

-- Two consumers have nothing to do with each other.
SELECT shard_fdw.register_consumer('log', 'd', 'id');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::log, 'd')), 5::bigint,
  'another consumer begins with the first row');

-- Bounded.
SELECT fill('log', 2, 9);
SELECT is((SELECT array_agg(id) FROM shard_fdw.read_batch(NULL::log, 'c', 100, 43)),
  '{3,13,23,33,43}', 'up to an id');
SELECT is_empty($$ SELECT * FROM shard_fdw.read_batch(NULL::log, 'c', 100, 43) $$,
  'up to an id, and only once');
SELECT is((SELECT array_agg(id) FROM shard_fdw.read_batch(NULL::log, 'c', 3, 1000)), '{53,63,73}',
  'up to an id, and on from there');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::log, 'c')), 1::bigint,
  'up to an id, to the end');

-- New, sealed, detached and dropped shards.
SELECT shard_fdw.create_shards('log', 1);
SELECT fill('log', 3, 2);
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_batch(NULL::log, 'c')), '{3 1,3 2}',
  'a new shard joins');
SELECT fill('log', 0, 2);
SELECT shard_fdw.seal('log_0');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::log, 'c')), 2::bigint,
  'a sealed one is read to its end');
SELECT fill('log', 1, 2);
ALTER TABLE log_1 NO INHERIT log;
SELECT is_empty($$ SELECT * FROM shard_fdw.read_batch(NULL::log, 'c') $$,
  'one that has been detached is not read');
ALTER TABLE log_1 INHERIT log;
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::log, 'c')), 2::bigint,
  'a shard that has been detached is not read, and goes on when it is back');
DROP TABLE log_3;
SELECT is((SELECT count(*) FROM shard_fdw.consumers WHERE consumer = 'c'), 3::bigint,
  'one that is dropped is not shown');
SELECT is_empty($$ SELECT * FROM shard_fdw.read_batch(NULL::log, 'c') $$,
  'a shard that is dropped is not shown, and nothing is read twice');
SELECT is((SELECT count(*) FROM shard_fdw.consumer_lanes WHERE consumer = 'c'), 3::bigint,
  'a shard that is dropped is not shown, and is forgotten when the consumer reads');

-- Whose it is.
GRANT USAGE ON SCHEMA consumer_test TO shard_user;
GRANT SELECT, INSERT ON log TO shard_user;
SELECT fill('log', 2, 2);
SET LOCAL ROLE shard_user;
SELECT fails('SELECT shard_fdw.read_batch(NULL::log, ''c'')', '42501',
  'permission denied for consumer "c"',
  'It is for members of the role that has registered it, and for the owner of the table.', '',
  title => 'another role''s consumer');
SELECT fails('SELECT shard_fdw.drop_consumer(''log'', ''c'')', '42501',
  title => 'another role''s consumer cannot be dropped either');
SELECT fails('INSERT INTO shard_fdw.consumer_lanes DEFAULT VALUES', '42501',
  title => 'another role''s consumer, nor changed');
SELECT lives_ok($$ SELECT shard_fdw.register_consumer('log', 'mine', 'id') $$,
  'who may read the table can register one');
SELECT is((SELECT count(*) > 0 FROM shard_fdw.read_batch(NULL::log, 'mine')), true,
  'who may read the table can register one, and read');
RESET ROLE;

-- How many, and who gets rid of them.
SAVEPOINT many;
CREATE FUNCTION register(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP PERFORM shard_fdw.register_consumer('log', 'number ' || i, 'id'); END LOOP;
END $$;
SET LOCAL ROLE shard_user;
SELECT fails('SELECT register(100)', '54000',
  'role "shard_user" cannot have more than 100 consumers of foreign table "log"',
  'Only roles that own the table can.',
  'Drop those that are not used any more with SELECT shard_fdw.drop_consumer().',
  title => 'a role cannot register without limit');
SELECT lives_ok('SELECT register(99)', 'a role cannot register without limit, but many');
SELECT fails('SELECT shard_fdw.register_consumer(''log'', ''one more'', ''id'')', '54000',
  title => 'a role cannot register without limit, and that is all');
SELECT shard_fdw.drop_consumer('log', 'number 5');
SELECT lives_ok('SELECT shard_fdw.register_consumer(''log'', ''one more'', ''id'')',
  'when one is dropped there is room for another');
SELECT fails(format('SELECT shard_fdw.register_consumer(''log'', %L, ''id'')', name), '42622',
  'name of consumer is too long', 'It can have up to 63 bytes.', '',
  title => 'a name that is too long')
  FROM unnest(ARRAY[repeat('x', 64), repeat('é', 32), repeat('x', 1000000)]) name;
RESET ROLE;
SELECT lives_ok(format('SELECT shard_fdw.register_consumer(''log'', %L, ''id'')', repeat('x', 63)),
  'the longest name');
GRANT SELECT ON log TO shard_reader;
GRANT USAGE, CREATE ON SCHEMA consumer_test TO shard_reader;
ALTER FOREIGN TABLE log OWNER TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT is((SELECT count(DISTINCT consumer) FROM shard_fdw.consumers WHERE logical = 'log'::regclass
    AND role = 'shard_user'), 100::bigint, 'the owner of the table sees them');
SELECT isnt_empty('SELECT shard_fdw.read_batch(NULL::log, ''number 6'')',
  'the owner of the table sees them, and may read for them');
SELECT lives_ok('SELECT shard_fdw.seek_consumer(''log'', ''number 6'', ''now'')',
  'the owner of the table sees them, and may move them');
SELECT lives_ok('SELECT shard_fdw.drop_consumer(''log'', ''number 6'')',
  'the owner of the table sees them, and gets rid of them');
SELECT is((SELECT count(*) FROM shard_fdw.consumers WHERE logical = 'log'::regclass
    AND consumer = 'number 6'), 0::bigint, 'the owner of the table gets rid of them for good');
SELECT lives_ok($$ SELECT shard_fdw.register_consumer('log', 'owner ' || i, 'id')
    FROM generate_series(1, 110) i $$,
  'the owner of the table sees them, and may have as many as he likes');
RESET ROLE;
SELECT lives_ok('SELECT shard_fdw.drop_consumer(''log'', ''owner 6'')', 'a superuser drops any');
ROLLBACK TO many;

REVOKE SELECT ON log FROM shard_user;
SET LOCAL ROLE shard_user;
SELECT fails('SELECT shard_fdw.read_batch(NULL::log, ''mine'')', '42501',
  title => 'a role reads as long as it may read the table');
SELECT fails('SELECT shard_fdw.register_consumer(''log'', ''more'', ''id'')', '42501',
  title => 'another role may register as long as it may read, no longer');
RESET ROLE;

-- What is refused
CREATE FOREIGN TABLE loose (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '2');
CREATE FOREIGN TABLE numberless (v text) SERVER shards OPTIONS (shards '2', commit_order 'true');
CREATE TABLE plain (id int);
SELECT fails('SELECT shard_fdw.' || call, state, message, detail, hint, title => call)
  FROM (VALUES
  ('register_consumer(''loose'', ''c'', ''id'')', '55000',
    'foreign table "loose" has no commit order',
    'A row may become visible after a row of its shard with a greater value, and a consumer would '
    'miss it.', 'Set option "commit_order" of the foreign table to true.'),
  ('register_consumer(''numberless'', ''c'', ''v'')', '55000',
    'foreign table "numberless" has no column with option "sequence"',
    'A row may become visible after a row of its shard with a greater value, and a consumer would '
    'miss it.', 'Give a column of the foreign table the option "sequence".'),
  ('register_consumer(''log'', ''e'', ''v'')', '0A000',
    'cannot read foreign table "log" in order of column "v"',
    'Consumers read in order of column "id", which has option "sequence", or windows of a column '
    'of type timestamp with time zone that is NOT NULL.', ''),
  ('register_consumer(''log'', ''c'', ''id'')', '42710',
    'consumer "c" of foreign table "log" already exists', '', ''),
  ('register_consumer(''plain'', ''c'', ''id'')', '42809',
    '"plain" is not a foreign table of shard_fdw', '', ''),
  ('read_batch(NULL::log, ''none'')', '42704',
    'consumer "none" of foreign table "log" does not exist', '',
    'Register it with SELECT shard_fdw.register_consumer().'),
  ('read_batch(NULL::log, NULL)', '22004', 'consumer must not be null', '', ''),
  ('read_batch(NULL::log, ''c'', 0)', '22023', 'number of rows must be greater than zero', '', ''),
  ('read_batch(NULL::int, ''c'')', '42804',
    'first argument of read_batch() must have the row type of a foreign table', '',
    'Write NULL::log for foreign table "log".'),
  ('read_batch(NULL::plain, ''c'')', '42809', '"plain" is not a foreign table of shard_fdw', '',
    ''),
  ('drop_consumer(''log'', ''none'')', '42704',
    'consumer "none" of foreign table "log" does not exist', '',
    'Register it with SELECT shard_fdw.register_consumer().')
 ) t(call, state, message, detail, hint);
ALTER FOREIGN TABLE log OPTIONS (SET commit_order 'false');
SELECT fails('SELECT shard_fdw.read_batch(NULL::log, ''c'')', '55000',
  title => 'a table that has lost its commit order');
ALTER FOREIGN TABLE log OPTIONS (SET commit_order 'true');
SELECT lives_ok($$ SELECT shard_fdw.drop_consumer('log', 'c') $$, 'a consumer is dropped');
SELECT fails('SELECT shard_fdw.read_batch(NULL::log, ''c'')', '42704',
  title => 'a consumer is dropped, and gone');
DROP FOREIGN TABLE log CASCADE;
SELECT is_empty('SELECT * FROM shard_fdw.consumers', 'with a table its consumers go');
CREATE VIEW dumped AS
SELECT t.oid::regclass AS tbl, c.condition
  FROM pg_extension e, unnest(e.extconfig, e.extcondition) c(config, condition)
    JOIN pg_class t ON t.oid = c.config
 WHERE e.extname = 'shard_fdw';
CREATE FUNCTION rows_dumped() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  r record;
  n bigint;
  total bigint := 0;
BEGIN
  FOR r IN SELECT * FROM dumped LOOP
    EXECUTE format('SELECT count(*) FROM ONLY %s %s', r.tbl, r.condition) INTO n;
    total := total + n;
  END LOOP;
  RETURN total;
END $$;
SELECT isnt_empty('SELECT * FROM shard_fdw.consumer_registry',
  'with a table its consumers go, though they are still on record');
SELECT is(rows_dumped(), 0::bigint, 'with a table its consumers go, but not in a dump');
CREATE FOREIGN TABLE next (id bigint OPTIONS (sequence 'always'),
  at timestamptz NOT NULL DEFAULT clock_timestamp())
  SERVER shards OPTIONS (shards '1', max_shards '10', commit_order 'true');
INSERT INTO next DEFAULT VALUES;
SELECT shard_fdw.register_consumer('next', 'c', 'id'), shard_fdw.register_consumer('next', 'w',
  'at');
SELECT is((SELECT count(*) FROM shard_fdw.read_window(NULL::next, 'w', clock_timestamp())),
  1::bigint, 'a window is read');
SELECT is((SELECT array_agg(DISTINCT logical::text) FROM shard_fdw.consumer_registry), '{next}',
  'whoever registers next has them forgotten');
SELECT is((SELECT array_agg(DISTINCT logical::text) FROM shard_fdw.consumer_lanes), '{next}',
  'whoever registers next has them forgotten, and their watermarks');
SELECT is(rows_dumped(), 5::bigint, 'what is there is in a dump');
-- Another table may get the OID of one that has been dropped.
CREATE TABLE later (a int);
INSERT INTO shard_fdw.consumer_registry VALUES ('later', 'c', 'id', false, 'postgres');
INSERT INTO shard_fdw.consumer_lanes (logical, consumer, shard, watermark)
  VALUES ('later', 'c', 'later', 1);
SELECT is_empty($$ SELECT * FROM shard_fdw.consumers WHERE logical = 'later'::regclass $$,
  'a table that is none of ours has no consumers');
SELECT is(rows_dumped(), 5::bigint,
  'a table that is none of ours has no consumers, in a dump neither');
INSERT INTO shard_fdw.consumer_registry SELECT 'later'::regclass::oid::bigint + g, 'c', 'id', false,
  'postgres' FROM generate_series(1, 100) g;
INSERT INTO shard_fdw.consumer_lanes (logical, consumer, shard, watermark)
  SELECT 'later'::regclass::oid::bigint + g, 'c', 'later', 1 FROM generate_series(1, 100) g;
CREATE FOREIGN TABLE latest (id bigint OPTIONS (sequence 'always')) SERVER shards
  OPTIONS (shards '1', commit_order 'true');
SELECT ok('latest'::regclass::oid::bigint - 'later'::regclass::oid::bigint < 100,
  'a new table with an OID that had consumers');
SELECT is_empty($$ SELECT FROM shard_fdw.consumer_registry WHERE logical = 'latest'::regclass $$,
  'a new table with an OID that had consumers begins without them');
SELECT is_empty($$ SELECT FROM shard_fdw.consumer_lanes WHERE logical = 'latest'::regclass $$,
  'a new table with an OID that had consumers, and their watermarks');
SELECT shard_fdw.drop_consumer('next', 'w');
SELECT is((SELECT count(*) FROM shard_fdw.consumer_registry), 1::bigint,
  'who drops a consumer has those forgotten, too');
DROP FOREIGN TABLE next, latest CASCADE;

-- Ids that go back.
CREATE FOREIGN TABLE back (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '1', commit_order 'true');
SELECT fill('back', 0, 5);
SELECT shard_fdw.register_consumer('back', 'c', 'id');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::back, 'c')), 5::bigint,
  'before ids go back');
TRUNCATE back RESTART IDENTITY;
SELECT fill('back', 0, 2);
SELECT fails('SELECT shard_fdw.read_batch(NULL::back, ''c'')', '55000',
  'sequence of shard "back_0" has moved backwards',
  'Consumer "c" has read the shard up to 4097, and the sequence is behind that.',
  'Set the sequence past the ids that have been read, or drop the consumer and register it again.',
  title => 'a sequence behind the watermark is no silence');
SELECT fails('SELECT shard_fdw.reshard(''back'', 2)', '0A000',
  title => 'such a table is not resharded');
SELECT shard_fdw.drop_consumer('back', 'c');
SELECT shard_fdw.register_consumer('back', 'c', 'id');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::back, 'c')), 2::bigint,
  'such a table is not resharded, and a new consumer reads on');
CREATE TABLE back_child () INHERITS (back_0);
SELECT fails('SELECT shard_fdw.read_batch(NULL::back, ''c'')', NULL,
  'cannot consume rows of foreign table "back"', title => 'a shard with children');
CREATE FOREIGN TABLE hash_order (id bigint OPTIONS (sequence 'always'), k int) SERVER shards
  OPTIONS (shards '2', route 'hash', key 'k', commit_order 'true');
SELECT fails('SELECT shard_fdw.reshard(''hash_order'', 3)', NULL,
  'cannot reshard foreign table "hash_order"', title => 'nor is a hash table with commit order');
CREATE FOREIGN TABLE bare_queue () SERVER shards OPTIONS (shards '1');
INSERT INTO bare_queue DEFAULT VALUES;
SELECT is((SELECT count(*) FROM shard_fdw.dequeue(NULL::bare_queue)), 1::bigint,
  'dequeue from a table without columns');

--
-- Windows of time
--

CREATE TABLE timed_model (id bigint PRIMARY KEY, at timestamptz, v text);
CREATE INDEX ON timed_model (at);
CREATE FOREIGN TABLE timed (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL, v text,
  maybe timestamptz, "on" date NOT NULL DEFAULT now())
  SERVER shards OPTIONS (shards '2', commit_order 'true', template 'timed_model');
CREATE FUNCTION at(minute numeric) RETURNS timestamptz
  LANGUAGE sql AS $$ SELECT timestamptz '2026-01-01 10:00 UTC' + minute * interval '1 minute' $$;
CREATE FUNCTION put(shard int, VARIADIC minutes numeric[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('shard_fdw.shard', shard::text, true);
  INSERT INTO timed (at, v) SELECT at(m), shard || ' ' || m FROM unnest(minutes) m;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
CREATE FUNCTION window_to(minute numeric, consumer text DEFAULT 'w') RETURNS text[]
  LANGUAGE sql AS $$
  SELECT array_agg(v) FROM shard_fdw.read_window(NULL::timed, consumer, at(minute)) $$;
SELECT put(0, 1, 3, 2, 6, 5), put(1, 4);
SELECT lives_ok($$ SELECT shard_fdw.register_consumer('timed', 'w', 'at') $$,
  'a consumer of windows');
SELECT is(window_to(5), '{0 1,0 2,0 3}', 'the rows of a window, in order of time');
SELECT is(window_to(5), '{1 4}', 'the rows of a window, in order of time, and of the other shard');
SELECT is(window_to(5), NULL, 'the rows of a window, in order of time, once');
SELECT put(0, 5.5, 4.5, 8);
SELECT is(window_to(4), NULL, 'no window before the last one');
SELECT is(window_to(5), NULL, 'no window before the last one, and not for a late row');
SAVEPOINT s;
SELECT is(window_to(7), '{0 4.5,0 5,0 5.5,0 6}',
  'rows that came before their window, and a late one');
ROLLBACK TO s;
SELECT put(1, 6.5, 7);
SELECT is(window_to(7), '{0 4.5,0 5,0 5.5,0 6}',
  'rows that came before their window, and a late one come again after a rollback');
SELECT is(window_to(7), '{1 6.5}',
  'rows that came before their window, and a late one, and the other shard''s');
SELECT is(window_to(7), NULL, 'rows that came before their window, and a late one, once');
-- The first shard has an empty window.
DELETE FROM timed WHERE v = '0 8';
SELECT put(1, 8.5);
SELECT is(window_to(9), '{1 7,1 8.5}', 'the end of a window is not in it');
SELECT is((SELECT array_agg(concat_ws(' ', shard, coalesce(extract(minute FROM window_start at time zone 'UTC')::text, '-'), extract(minute FROM window_end at time zone 'UTC'), rows, late_rows) ORDER BY shard::text, window_end) FROM shard_fdw.windows WHERE consumer = 'w'),
  '{timed_0 - 5 3 0,timed_0 5 7 4 1,timed_0 7 9 0 0,timed_1 - 5 1 0,timed_1 5 7 1 0,timed_1 7 9 2 0}', 'view windows');
SELECT ok(bool_and(window_end = at(9) AND rows_behind = 0), 'view consumers')
  FROM shard_fdw.consumers WHERE logical = 'timed'::regclass AND consumer = 'w';
-- Any partition into windows, and any arrival, gives each row once.
SELECT shard_fdw.create_shards('timed', 1);
CREATE TABLE windowed (n serial, at timestamptz, id bigint, up_to timestamptz);
DO $$
DECLARE
  t numeric := 10;
BEGIN
  PERFORM setseed(0.4);
  FOR i IN 1..60 LOOP
    PERFORM put((random() * 2)::int, VARIADIC (SELECT array_agg((t + random() * 8 - 6)::numeric)
        FROM generate_series(1, (random() * 6)::int + 1)));
    t := t + random()::numeric;
    IF random() < 0.7 THEN
      INSERT INTO windowed (at, id, up_to) SELECT w.at, w.id, at(t)
        FROM shard_fdw.read_window(NULL::timed, 'w', at(t)) w;
    END IF;
  END LOOP;
  FOR i IN 1..3 LOOP
    INSERT INTO windowed (at, id, up_to) SELECT w.at, w.id, at(1000)
      FROM shard_fdw.read_window(NULL::timed, 'w', at(1000)) w;
  END LOOP;
END $$;
SELECT is((SELECT count(*) FROM windowed WHERE at >= up_to), 0::bigint, 'no row before its time');
SELECT set_eq('SELECT id FROM windowed', $$ SELECT id FROM timed WHERE v !~ '^[01] [1-8](\.5)?$' $$,
  'none is missed');
SELECT is((SELECT count(*) FROM windowed), (SELECT count(DISTINCT id) FROM windowed),
  'none is missed, nor read twice');
SELECT is((SELECT sum(rows) FROM shard_fdw.windows WHERE consumer = 'w' AND window_end > at(9)),
  (SELECT count(*)::numeric FROM windowed), 'none is missed, and the record agrees');
SELECT cmp_ok((SELECT sum(late_rows) FROM shard_fdw.windows WHERE consumer = 'w'), '>', 1::numeric,
  'none is missed, with some late ones');
SELECT is((SELECT count(*) FROM (SELECT window_start, lag(window_end) OVER (PARTITION BY shard
      ORDER BY window_end) AS before FROM shard_fdw.windows WHERE consumer = 'w') w
  WHERE window_start IS DISTINCT FROM before), 0::bigint,
  'each window begins where the one before has ended');
-- Other settings of dates.
SET LOCAL datestyle = 'German';
SET LOCAL timezone = 'Asia/Kathmandu';
SELECT put(2, 1500);
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_window(NULL::timed, 'w', at(1600))), '{2 1500}',
  'in German');
RESET datestyle;
SET LOCAL timezone = '<far>-20';
SELECT put(2, 1600.5);
SELECT is((SELECT array_agg(v) FROM shard_fdw.read_window(NULL::timed, 'w', at(1600.7))),
  '{2 1600.5}', 'far away');
SELECT is((SELECT max(window_end) FROM shard_fdw.windows WHERE consumer = 'w'), at(1600.7),
  'windows far away, and long ago');
RESET timezone;
-- Whose they are.
DELETE FROM shard_fdw.windows WHERE window_end < at(1000);
SELECT is((SELECT min(window_end) FROM shard_fdw.windows), at(1000), 'records can be deleted');
GRANT SELECT ON timed TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is_empty('SELECT * FROM shard_fdw.windows', 'another role does not see them');
DELETE FROM shard_fdw.windows;
RESET ROLE;
SELECT isnt_empty('SELECT * FROM shard_fdw.windows',
  'another role does not see them, nor delete them');
SELECT fails('SELECT ' || call, state, message, detail, hint, title => call)
  FROM (VALUES
  ('shard_fdw.register_consumer(''timed'', ''x'', ''maybe'')', '0A000',
    'cannot read foreign table "timed" in order of column "maybe"',
    'Consumers read in order of column "id", which has option "sequence", or windows of a column '
    'of type timestamp with time zone that is NOT NULL.', ''),
  ('shard_fdw.register_consumer(''timed'', ''x'', ''on'')', '0A000',
    'cannot read foreign table "timed" in order of column "on"',
    'Consumers read in order of column "id", which has option "sequence", or windows of a column '
    'of type timestamp with time zone that is NOT NULL.', ''),
  ('shard_fdw.register_consumer(''timed'', ''x'', ''ctid'')', '0A000',
    'cannot read foreign table "timed" in order of column "ctid"',
    'Consumers read in order of column "id", which has option "sequence", or windows of a column '
    'of type timestamp with time zone that is NOT NULL.', ''),
  ('shard_fdw.register_consumer(''timed'', ''x'', ''none'')', '42703',
    'column "none" of foreign table "timed" does not exist', '', ''),
  ('shard_fdw.read_batch(NULL::timed, ''w'')', '55000',
    'consumer "w" of foreign table "timed" reads windows of column "at"', '', 'Use read_window().'),
  ('shard_fdw.read_window(NULL::back, ''c'', now())', '55000',
    'consumer "c" of foreign table "back" does not read windows', '', 'Use read_batch().'),
  ('shard_fdw.read_window(NULL::timed, ''none'', now())', '42704',
    'consumer "none" of foreign table "timed" does not exist', '',
    'Register it with SELECT shard_fdw.register_consumer().'),
  ('shard_fdw.read_window(NULL::timed, NULL, now())', '22004', 'consumer must not be null', '', ''),
  ('shard_fdw.read_window(NULL::timed, ''w'', NULL)', '22004', 'end of the window must not be null',
    '', ''),
  ('shard_fdw.read_window(NULL::timed, ''w'', ''infinity'')', '22023',
    'end of the window must be finite', '', ''),
  ('shard_fdw.read_window(NULL::timed, ''w'', ''3000-01-01 UTC'') FROM set_config(''timezone'', '
   '''UTC'', true)',
    '22023', 'window is not over', 'Rows may come until 3000-01-01 00:00:00+00.', '')
 ) t(call, state, message, detail, hint);
ALTER FOREIGN TABLE timed RENAME at TO "the time";
SELECT lives_ok($$ SELECT shard_fdw.read_window(NULL::timed, 'w', at(1601)) $$,
  'a column that has been renamed');
SELECT is((SELECT order_by FROM shard_fdw.consumer_registry WHERE consumer = 'w'), 'the time',
  'a column that has been renamed: the consumer knows');
ALTER TABLE timed RENAME COLUMN "the time" TO at;
ALTER TABLE timed RENAME COLUMN v TO v2;
ALTER TABLE timed RENAME COLUMN v2 TO v;
SELECT fails('ALTER FOREIGN TABLE timed DROP at', '2BP01',
  'cannot drop column "at" of foreign table "timed" because consumer "w" reads in its order', '',
  'Drop the consumer with SELECT shard_fdw.drop_consumer() first.',
  title => 'one that a consumer reads by is not dropped');
ALTER FOREIGN TABLE timed ADD other int;
SELECT lives_ok('ALTER FOREIGN TABLE timed DROP other',
  'a column that a consumer reads by is not dropped; others are');
ALTER FOREIGN TABLE timed ALTER at DROP NOT NULL;
SELECT fails($$ SELECT shard_fdw.read_window(NULL::timed, 'w', now()) $$, '0A000',
  title => 'a consumer does not read by a column that may be null');
ALTER FOREIGN TABLE timed ALTER at SET NOT NULL;
TRUNCATE timed RESTART IDENTITY;
SELECT fails($$ SELECT shard_fdw.read_window(NULL::timed, 'w', now()) $$, NULL,
  'sequence of shard "timed_0" has moved backwards', title => 'ids that have gone back');
DROP TABLE timed_2;
SELECT set_eq($$ SELECT shard::text FROM shard_fdw.windows WHERE consumer = 'w' $$,
  $$ VALUES ('timed_0'), ('timed_1') $$, 'with a shard its windows go');
SELECT shard_fdw.drop_consumer('timed', 'w');
SELECT is_empty('SELECT * FROM shard_fdw.consumer_windows',
  'with a shard its windows go, and with the consumer');

--
-- dequeue
--

CREATE FOREIGN TABLE "Job %" (n int, gone int, v text) SERVER shards
  OPTIONS (shards '3', route 'round_robin');
ALTER FOREIGN TABLE "Job %" DROP gone;
INSERT INTO "Job %" SELECT g, g FROM generate_series(1, 30) g;
CREATE TABLE jobs_before AS SELECT * FROM "Job %";
SAVEPOINT s;
SELECT is((SELECT array_agg(DISTINCT n % 3) FROM shard_fdw.dequeue(NULL::"Job %", 100, 'n',
      '"Job %_1"')), (SELECT array_agg(DISTINCT n % 3) FROM "Job %_1"),
  'rows of the shard that is asked for');
SELECT is_empty($$ SELECT * FROM shard_fdw.dequeue(NULL::"Job %", 100, shard => '"Job %_1"') $$,
  'rows of the shard that is asked for, which has no more');
ROLLBACK TO s;
CREATE TABLE jobs AS SELECT 0 AS batch, * FROM shard_fdw.dequeue(NULL::"Job %", 4, 'n');
SELECT is((SELECT count(*) FROM jobs), 4::bigint, 'rows are dequeued');
SELECT is((SELECT array_agg(n - lag) FROM (SELECT n, lag(n) OVER (ORDER BY n) AS lag FROM jobs) t
    WHERE lag IS NOT NULL), '{3,3,3}', 'rows are dequeued, of one shard, in order');
SELECT is((SELECT count(*) FROM "Job %"), 26::bigint, 'rows are dequeued, and are gone');
DO $$
BEGIN
  FOR i IN 1 .. 20 LOOP
    INSERT INTO jobs SELECT i, * FROM shard_fdw.dequeue(NULL::"Job %", 3);
  END LOOP;
END $$;
SELECT set_eq('SELECT n, v FROM jobs', 'SELECT * FROM jobs_before', 'each row comes');
SELECT is((SELECT count(*) FROM jobs), 30::bigint, 'each row comes, once');
SELECT is_empty($$ SELECT * FROM shard_fdw.dequeue(NULL::"Job %") $$, 'then there are none');
INSERT INTO "Job %" VALUES (1), (2), (3);
SELECT fails('SELECT shard_fdw.dequeue(' || args || ')', state, message, detail, hint,
  title => args) FROM (VALUES
  ('NULL::"Job %", 0', '22023', 'number of rows must be greater than zero', '', ''),
  ('NULL::"Job %", 1, NULL, ''plain''', '42809', '"plain" is not a shard of foreign table "Job %"',
    '', ''),
  ('NULL::"Job %", 1, NULL, ''1''', '42809', '"1" is not a shard of foreign table "Job %"', '', ''),
  ('NULL::"Job %", 1, ''x''', '42703', 'column "x" of foreign table "Job %" does not exist', '',
    ''),
  ('NULL::plain', '42809', '"plain" is not a foreign table of shard_fdw', '', '')
 ) t(args, state, message, detail, hint);
GRANT SELECT ON "Job %" TO shard_user;
SET LOCAL ROLE shard_user;
SELECT fails('SELECT shard_fdw.dequeue(NULL::"Job %")', '42501',
  title => 'dequeue wants the privileges to lock and to delete');
RESET ROLE;
GRANT DELETE, UPDATE ON "Job %" TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is((SELECT count(*) FROM shard_fdw.dequeue(NULL::"Job %")), 1::bigint,
  'dequeue wants the privileges to lock and to delete, and nothing else');
RESET ROLE;

-- Ids of each type.
-- A shard that goes on with a sequence, and a sequence that is set forward.
CREATE FOREIGN TABLE renewed (id bigint OPTIONS (sequence 'always'), v int) SERVER shards
  OPTIONS (shards '2', max_shards '2', commit_order 'true');
SELECT shard_fdw.register_consumer('renewed', 'c', 'id');
CREATE FUNCTION renewed(ordinal int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('shard_fdw.shard', ordinal::text, true);
  INSERT INTO renewed (v) SELECT generate_series(1, 5);
  PERFORM set_config('shard_fdw.shard', '-1', true);
  RETURN (SELECT string_agg(concat_ws(' ', shard, watermark, rows_behind), ', '
      ORDER BY shard::text) FROM shard_fdw.consumers WHERE logical = 'renewed'::regclass);
END $$;
SELECT is(renewed(1), 'renewed_0 0, renewed_1 5', 'how far a consumer is behind');
DROP TABLE renewed_1;
SELECT shard_fdw.create_shards('renewed', 1);
SELECT is((SELECT sum(rows_behind) FROM shard_fdw.consumers WHERE logical = 'renewed'::regclass),
  0::numeric, 'a shard that goes on with a sequence has no rows');
SELECT is(renewed(1), 'renewed_0 0, renewed_1 5',
  'a shard that goes on with a sequence has no rows: it counts its own');
SELECT is((SELECT array_agg(id) FROM shard_fdw.read_batch(NULL::renewed, 'c', 3)), '{12,14,16}',
  'a shard that goes on with a sequence: its own rows are read');
SELECT is(renewed(1), 'renewed_0 0, renewed_1 16 7',
  'a shard that goes on with a sequence is read bit by bit');
INSERT INTO renewed_1 VALUES (100, 6);
SELECT results_eq($$ SELECT sequence::text, next_value FROM shard_fdw.reset_sequences('renewed')
    ORDER BY 1 $$, $$ VALUES ('renewed_id_1_seq', 1::bigint), ('renewed_id_2_seq', 102) $$,
  'a sequence that is set forward');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::renewed, 'c', 100)), 8::bigint,
  'a sequence that is set forward is not behind what has been read');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::renewed, 'c', 100)), 0::bigint,
  'a sequence that is set forward is read up to the end');
SELECT is(renewed(1), 'renewed_0 0, renewed_1 100 5',
  'a sequence that is set forward, and goes on');

CREATE FOREIGN TABLE aged (id bigint OPTIONS (sequence 'always'), v int) SERVER shards
  OPTIONS (shards '1', max_shards '10', commit_order 'true');
CREATE TABLE aged_before AS SELECT g::bigint AS id, g AS v FROM generate_series(1, 27) g;
SET LOCAL client_min_messages = error;
ALTER TABLE aged_before INHERIT aged;
SET LOCAL client_min_messages = warning;
SELECT shard_fdw.register_consumer('aged', 'c', 'id');
SELECT is((SELECT array_agg(next_value ORDER BY next_value) FROM shard_fdw.reset_sequences('aged')),
  '{31,32}', 'a table that came with ids of any slot');
SELECT is((SELECT count(*) FROM (SELECT FROM shard_fdw.read_batch(NULL::aged, 'c') UNION ALL
      SELECT FROM shard_fdw.read_batch(NULL::aged, 'c')) r), 27::bigint,
  'a table that came with ids of any slot is read');
SELECT is((SELECT count(*) FROM (SELECT FROM shard_fdw.read_batch(NULL::aged, 'c') UNION ALL
      SELECT FROM shard_fdw.read_batch(NULL::aged, 'c')) r), 0::bigint,
  'a table that came with ids of any slot, and has not gone back');
SELECT setval('aged_id_1_seq', 501);
DELETE FROM aged;
SET LOCAL client_min_messages = error;
ALTER TABLE aged_before ALTER id DROP DEFAULT;
SET LOCAL client_min_messages = warning;
SELECT is((SELECT max(next_value) FROM shard_fdw.reset_sequences('aged')), 513::bigint,
  'the ids of a shard go on ascending with another sequence');

CREATE FUNCTION batches_of(type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text[];
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE typed_%1$s (id %1$s OPTIONS (sequence %2$L), v int) SERVER '
                 'shards OPTIONS (shards %3$L, max_shards %3$L, commit_order %4$L)', type, 'always',
                 '1', 'true');
  EXECUTE format('INSERT INTO typed_%s (v) SELECT generate_series(11, 15)', type);
  PERFORM shard_fdw.register_consumer(('typed_' || type)::regclass, 'c', 'id');
  FOR i IN 1 .. 3 LOOP
    EXECUTE format('SELECT $1 || string_agg(concat_ws('' '', id, v), '', '') FROM '
                   'shard_fdw.read_batch(NULL::typed_%s, ''c'', 2)', type) INTO result USING result;
  END LOOP;
  RETURN array_to_string(result, '; ') || (SELECT '; read up to ' || watermark
    FROM shard_fdw.consumers WHERE logical = ('typed_' || type)::regclass);
END $$;
SET LOCAL client_min_messages = error;
SELECT is(batches_of(type), '1 11, 2 12; 3 13, 4 14; 5 15; read up to 5',
  'batches with ids of type ' || type) FROM unnest('{smallint,int,bigint}'::text[]) type;
SET LOCAL client_min_messages = warning;

-- A row is deleted as it is found, or by a statement where that fires triggers
-- or where there are not the privileges for the whole table.
CREATE TABLE job_model (later text, gone int, n int, twice int GENERATED ALWAYS AS (n * 2) STORED,
  doc text);
ALTER TABLE job_model DROP gone;
CREATE FOREIGN TABLE job (n int, gone int, doc text, twice int GENERATED ALWAYS AS (n * 2) STORED)
  SERVER shards OPTIONS (shards '1');
ALTER FOREIGN TABLE job DROP gone;
ALTER TABLE job_model INHERIT job;
CREATE TABLE job_log (what text);
CREATE FUNCTION log_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_log VALUES (concat_ws(' ', TG_RELID::regclass, TG_WHEN, CASE TG_LEVEL WHEN 'ROW'
      THEN OLD.n END));
  RETURN CASE TG_LEVEL WHEN 'ROW' THEN CASE WHEN OLD.n <> 3 THEN OLD END END;
END $$;
CREATE FUNCTION taken(shard regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  DELETE FROM job_log;
  EXECUTE format('TRUNCATE job; INSERT INTO %s (n, doc) SELECT g, (SELECT string_agg(md5(g || '' '
                 ''' || h), '''') FROM generate_series(1, 300) h) FROM generate_series(5, 1, -1) g',
                 shard);
  PERFORM FROM job WHERE n = 2 FOR UPDATE;
  SELECT string_agg(concat_ws(' ', n, twice, length(doc), substr(doc, 1, 32) = md5(n || ' 1')),
    ', ') INTO result
    FROM shard_fdw.dequeue(NULL::job, 4, 'n', shard);
  RETURN result || '; left: ' || (SELECT string_agg(n::text, ' ' ORDER BY n) FROM job)
    || coalesce('; ' || (SELECT string_agg(what, ', ' ORDER BY what) FROM job_log), '');
END $$;
SELECT is(taken(shard), '1 2 9600 t, 2 4 9600 t, 3 6 9600 t, 4 8 9600 t; left: 5', 'rows of '
  || shard || ' in order, with toasted values, locked by oneself or not')
  FROM unnest('{job_0,job_model}'::regclass[]) shard;
CREATE TRIGGER row_before BEFORE DELETE ON job_model FOR EACH ROW EXECUTE FUNCTION log_job();
SELECT is(taken('job_model'),
  '1 2 9600 t, 2 4 9600 t, 4 8 9600 t; left: 3 5; job_model BEFORE 1, job_model BEFORE 2, '
  'job_model BEFORE 3, job_model BEFORE 4', 'a trigger of the shard''s can keep a row');
SELECT is(taken('job_0'), '1 2 9600 t, 2 4 9600 t, 3 6 9600 t, 4 8 9600 t; left: 5',
  'a trigger of the shard''s can keep a row of that shard');
DROP TRIGGER row_before ON job_model;
CREATE TRIGGER row_after AFTER DELETE ON job_model FOR EACH ROW EXECUTE FUNCTION log_job();
SELECT is(taken('job_model'),
  '1 2 9600 t, 2 4 9600 t, 3 6 9600 t, 4 8 9600 t; left: 5; job_model AFTER 1, job_model AFTER 2, '
  'job_model AFTER 3, job_model AFTER 4', 'a trigger after it');
DROP TRIGGER row_after ON job_model;
CREATE TRIGGER before BEFORE DELETE ON job EXECUTE FUNCTION log_job();
SELECT is(taken('job_0'), '1 2 9600 t, 2 4 9600 t, 3 6 9600 t, 4 8 9600 t; left: 5; job BEFORE',
  'a trigger of the table''s');
DROP TRIGGER before ON job;
CREATE TRIGGER after AFTER DELETE ON job EXECUTE FUNCTION log_job();
SELECT is(taken('job_0'), '1 2 9600 t, 2 4 9600 t, 3 6 9600 t, 4 8 9600 t; left: 5; job AFTER',
  'a trigger of the table''s fires after it');
DROP TRIGGER after ON job;
ALTER TABLE job_model ADD UNIQUE (n);
SELECT taken('job_model');
CREATE TABLE job_part (n int REFERENCES job_model (n));
INSERT INTO job_part SELECT n FROM job;
SELECT fails('SELECT shard_fdw.dequeue(NULL::job, 1, NULL, ''job_model'')', '23503',
  title => 'rows that a foreign key refers to');
INSERT INTO job_0 (n) VALUES (6), (7);
GRANT SELECT, DELETE, UPDATE (n) ON job TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is((SELECT count(*) FROM shard_fdw.dequeue(NULL::job, 1, NULL, 'job_0')), 1::bigint,
  'the right to update a column is enough to lock');
RESET ROLE;
SET LOCAL client_min_messages = error;
CREATE PUBLICATION deletions FOR TABLE job_0 WITH (publish = 'delete');
SELECT fails('SELECT shard_fdw.dequeue(NULL::job, 1, NULL, ''job_0'')', NULL,
  'cannot delete from table "job_0" because it does not have a replica identity and publishes '
  'deletes', title => 'no replica identity');
DROP PUBLICATION deletions;
SET LOCAL client_min_messages = warning;
SAVEPOINT s;
SET LOCAL transaction_read_only = on;
SELECT fails('SELECT shard_fdw.dequeue(NULL::job)', '25006',
  title => 'not in a read-only transaction');
ROLLBACK TO s;

-- The recipe with the bare ctid takes rows of other shards, too.
CREATE FOREIGN TABLE bare (n int) SERVER shards OPTIONS (shards '3', route 'round_robin');
INSERT INTO bare SELECT generate_series(1, 30);
WITH d AS (DELETE FROM bare WHERE ctid = ANY (ARRAY(SELECT ctid FROM bare LIMIT 4)) RETURNING *)
  SELECT count(*) > 4 AS too_many FROM d \gset
SELECT ok(:'too_many', 'why not the bare ctid');
-- Conditions on tableoid.
SELECT is((SELECT count(*) FROM bare WHERE tableoid = 'bare_1'::regclass),
  (SELECT count(*) FROM bare_1), 'tableoid');
SELECT is((SELECT count(*) FROM bare WHERE tableoid = 'bare'::regclass), 0::bigint,
  'tableoid, of the table itself');
SELECT is((SELECT count(*) FROM bare WHERE tableoid <> 'bare_1'::regclass),
  (SELECT count(*) FROM bare_0) + (SELECT count(*) FROM bare_2), 'tableoid, compared by <>');
CREATE TABLE child () INHERITS (bare_2);
INSERT INTO child VALUES (1), (2);
SELECT is((SELECT count(*) FROM bare WHERE tableoid = 'child'::regclass), 2::bigint,
  'tableoid, of a child of a shard');

SELECT * FROM finish();
ROLLBACK;
