-- The life of a shard: closing and opening.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA lifecycle_test;
SET LOCAL search_path = lifecycle_test, public;

\ir helpers.psql

-- The states of a table's shards, in their order.
CREATE FUNCTION states(logical regclass) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(state, ' ' ORDER BY ordinal) FROM shard_fdw.list_shards(logical)
$$;
-- Where a row goes.
CREATE FUNCTION shard_of_one_row(tbl text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('INSERT INTO %s DEFAULT VALUES', tbl);
  RETURN shard_fdw.last_shard()::text;
END $$;

--
-- Closing
--

CREATE FOREIGN TABLE log (a int DEFAULT 1) SERVER shards OPTIONS (shards '3');
SELECT shard_of_one_row('log') AS first \gset
SELECT lives_ok(format('SELECT shard_fdw.close_shard(%L)', :'first'), 'a shard is closed');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass),
  'closed', 'list_shards() tells');
SELECT is((SELECT state FROM shard_fdw.shards WHERE shard = :'first'::regclass), 'closed',
  'so does the view');
SELECT is((SELECT closed FROM shard_fdw.closed_shards WHERE shard = :'first'::regclass), now(),
  'the table knows since when');
SELECT shard_of_one_row('log') AS second \gset
SELECT isnt(:'second'::text, :'first', 'the session that leased it leases another');
INSERT INTO log SELECT generate_series(1, 10);
INSERT INTO log VALUES (1), (2);
COPY log FROM stdin;
1
2
\.
SELECT is((SELECT count(*) FROM log WHERE tableoid = :'first'::regclass), 1::bigint,
  'no row goes there any more');
SELECT is((SELECT count(*) FROM log), 16::bigint, 'no row goes there any more, and none is lost');
SELECT is((SELECT count(*) FROM shard_fdw.leases WHERE shard = :'first'::regclass
    AND pid = pg_backend_pid()), 0::bigint, 'the lease is given up');

SELECT lives_ok('UPDATE log SET a = a + 1', 'rows of a closed shard can be updated');
SELECT lives_ok(format('INSERT INTO %s VALUES (7)', :'first'),
  'rows of a closed shard can be updated, and be inserted by its own name');
SELECT lives_ok('DELETE FROM log WHERE a < 3',
  'rows of a closed shard can be updated, and be deleted');
SELECT is((SELECT array_agg(a) FROM log WHERE tableoid = :'first'::regclass), '{7}',
  'rows of a closed shard can be updated, all of that has been done');

SELECT fails(format('SET LOCAL shard_fdw.shard = %s; INSERT INTO log VALUES (1)', ordinal), '55000',
  format('shard "%s" of foreign table "log" is closed', shard),
  format('"shard_fdw.shard" sends this session''s inserts to shard number %s.', ordinal),
  'Open the shard with SELECT shard_fdw.open_shard(), or set "shard_fdw.shard" to another number, '
  'or to -1 to let the table''s route decide.', title => 'a closed shard cannot be chosen, either')
  FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass;

SELECT shard_fdw.seal(:'second');
SELECT is(states('log'),
  (SELECT string_agg(CASE shard::text WHEN :'first' THEN 'closed' WHEN :'second' THEN 'sealed'
      ELSE 'open' END, ' ' ORDER BY ordinal)
  FROM shard_fdw.list_shards('log')), 'open, closed and sealed');
SELECT shard_fdw.close_shard(shard) FROM shard_fdw.list_shards('log') WHERE state = 'open';
SELECT fails('INSERT INTO log VALUES (1)', '55000',
  'all shards of foreign table "log" are closed or sealed', '',
  'Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT '
  'shard_fdw.open_shard().', title => 'no shard is open');
SELECT shard_fdw.unseal(:'second');
SELECT shard_fdw.close_shard(:'second');
SELECT fails('INSERT INTO log VALUES (1)', '55000', 'all shards of foreign table "log" are closed',
  '',
  'Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT '
  'shard_fdw.open_shard().', title => 'all shards are closed');
SELECT is((SELECT count(*) FROM shard_fdw.create_shards('log', 1)), 1::bigint,
  'a shard is created in the likeness of a closed one');
SELECT is(shard_of_one_row('log'), 'log_3',
  'a shard is created in the likeness of a closed one, and is open');

SELECT shard_fdw.seal(:'first');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass),
  'sealed', 'a closed shard that is sealed shows as such');
SELECT shard_fdw.unseal(:'first');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass),
  'closed', 'a closed shard that is sealed shows as such, and is closed when the seal is lifted');

--
-- Opening
--

SELECT lives_ok(format('SELECT shard_fdw.open_shard(%L)', :'first'), 'a shard is opened');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass), 'open',
  'list_shards() tells');
SELECT shard_fdw.close_shard('log_3');
SELECT is(shard_of_one_row('log'), :'first', 'it gets rows again');

-- A rollback, of a subtransaction here, undoes both.
SAVEPOINT s;
SELECT shard_fdw.close_shard(:'first');
SELECT shard_fdw.open_shard('log_3');
SELECT is(shard_of_one_row('log'), 'log_3', 'closed and opened in a subtransaction');
ROLLBACK TO s;
SELECT is(shard_of_one_row('log'), :'first',
  'closed and opened in a subtransaction, which is rolled back');

-- What it has to say beside errors, seen from outside.
SELECT string_agg(command, '; ') AS commands
  FROM (VALUES ('BEGIN'), ('SET LOCAL client_min_messages = warning'),
  ('CREATE FOREIGN TABLE noisy (a int) SERVER shards OPTIONS (shards ''2'')'),
  ('RESET client_min_messages'),
  ('SELECT FROM shard_fdw.open_shard(''noisy_1'')'),
  ('SELECT FROM shard_fdw.close_shard(''noisy_0'')'),
  ('SELECT FROM shard_fdw.close_shard(''noisy_0'')'),
  ('SELECT FROM shard_fdw.close_shard(''noisy_1'')'),
  ('SELECT FROM shard_fdw.seal(''noisy_0'')'), ('SELECT FROM shard_fdw.unseal(''noisy_0'')'),
  ('SELECT FROM shard_fdw.seal(''noisy_1'')'), ('SELECT FROM shard_fdw.open_shard(''noisy_1'')'),
  ('ROLLBACK')) c(command) \gset
\set notices `psql -XqAt -d :'DBNAME' -c :'commands' 2>&1`
SELECT is((SELECT array_agg(line) FROM regexp_split_to_table(:'notices', E'\n') line
    WHERE line <> ''),
  ARRAY['NOTICE:  shard "noisy_1" is not closed, skipping',
        'NOTICE:  shard "noisy_0" is already closed, skipping',
        'WARNING:  foreign table "noisy" has no open shard left',
        'DETAIL:  It takes no inserts.',
        'HINT:  Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT '
        'shard_fdw.open_shard().',
        'WARNING:  shard "noisy_0" is closed',
        'DETAIL:  No row of an insert into its foreign table goes there.',
        'HINT:  Open it with SELECT shard_fdw.open_shard().',
        'WARNING:  shard "noisy_1" is sealed',
        'DETAIL:  It takes no inserts.',
        'HINT:  Lift the seal with SELECT shard_fdw.unseal().'], 'notices and warnings');

--
-- What is closed, and by whom
--

CREATE TABLE plain (a int);
SELECT fails('SELECT shard_fdw.' || f || '(''plain'')', '42809', '"plain" is not a shard',
  'A shard is a table that inherits from a foreign table of shard_fdw.', '',
  title => f || '() of a table that is no shard') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT fails('SELECT shard_fdw.' || f || '(''log'')', '42809', '"log" is not a shard',
  'A shard is a table that inherits from a foreign table of shard_fdw.', '',
  title => f || '() of a logical table') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT fails('SELECT shard_fdw.' || f || '(1)', '42P01', 'relation with OID 1 does not exist', '',
  '', title => f || '() of nothing') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT lives_ok('SELECT shard_fdw.' || f || '(NULL)', f || '(NULL) does nothing')
  FROM unnest('{close_shard,open_shard}'::text[]) f;
GRANT ALL ON SCHEMA lifecycle_test TO shard_user, shard_reader;
GRANT ALL ON log TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT fails('SELECT shard_fdw.' || f || '(''log_0'')', '42501', 'must be owner of table log_0', '',
  '', title => f || '() is for the owner') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT fails('DELETE FROM shard_fdw.closed_shards', '42501',
  title => 'nobody writes into the table of closed shards');
SELECT fails('SELECT FROM shard_fdw.closed_shards', '42501',
  title => 'nobody reads the table of closed shards');
SELECT is(states('log') ~ 'closed', true, 'anybody may know the states');
INSERT INTO log VALUES (1);
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE own (a int) SERVER shards OPTIONS (shards '2');
SELECT lives_ok('SELECT shard_fdw.close_shard(''own_0'')', 'the owner need not be a superuser');
INSERT INTO own VALUES (1);
SELECT is(shard_fdw.last_shard()::text, 'own_1', 'the owner need not be a superuser: it is closed');
SELECT lives_ok('SELECT shard_fdw.open_shard(''own_0'')',
  'the owner need not be a superuser, and opened');
SELECT is(current_user::text, 'shard_user',
  'the owner need not be a superuser, who stays who he was');
RESET ROLE;

-- Nothing in the search path can be in the way.
CREATE SCHEMA spoof;
CREATE FUNCTION spoof.never(regclass, regclass) RETURNS bool
  LANGUAGE plpgsql AS $$ BEGIN RAISE 'spoofed'; END $$;
CREATE OPERATOR spoof.= (LEFTARG = regclass, RIGHTARG = regclass, FUNCTION = spoof.never);
CREATE TABLE spoof.closed_shards (shard int);
SET LOCAL search_path = spoof, pg_catalog, lifecycle_test, public;
SELECT lives_ok('SELECT shard_fdw.close_shard(''own_0'')',
  'the search path is nobody''s to play with');
SELECT lives_ok('SELECT shard_fdw.open_shard(''own_0'')',
  'the search path is nobody''s to play with, when opening, too');
SET LOCAL search_path = lifecycle_test, public;
DROP SCHEMA spoof CASCADE;

--
-- Other routes
--

CREATE FOREIGN TABLE rr (a int) SERVER shards OPTIONS (shards '3', route 'round_robin');
SELECT shard_fdw.close_shard('rr_1');
INSERT INTO rr SELECT generate_series(1, 10);
SELECT is((SELECT array_agg(n ORDER BY n) FROM (SELECT count(*) AS n FROM rr GROUP BY tableoid) t),
  '{5,5}', 'round robin goes past a closed shard');

CREATE FOREIGN TABLE h (k int) SERVER shards OPTIONS (shards '4', route 'hash', key 'k');
INSERT INTO h SELECT generate_series(1, 100);
SELECT fails('SELECT shard_fdw.close_shard(''h_2'')', '55000',
  'cannot close shard "h_2" of foreign table "h"',
  'No other open shard takes the rows whose key has the hash remainder 2 of 4.',
  'Create a shard with the same in_hash() constraint and attach it with ALTER TABLE ... INHERIT, '
  'or seal this one with SELECT shard_fdw.seal().',
  title => 'a hash shard is not closed if nobody takes its rows');
CREATE TABLE h_a (k int, CHECK (shard_fdw.in_hash(8, 2, k)));
ALTER TABLE h_a INHERIT h;
SELECT fails('SELECT shard_fdw.close_shard(''h_2'')', '55000',
  title => 'a hash shard is not closed if nobody takes its rows: half of them is not enough');
CREATE TABLE h_b (k int, CHECK (shard_fdw.in_hash(8, 6, k)));
ALTER TABLE h_b INHERIT h;
SELECT lives_ok('SELECT shard_fdw.close_shard(''h_2'')',
  'a hash shard is not closed if nobody takes its rows, all of them is');
INSERT INTO h SELECT generate_series(101, 200);
SELECT is((SELECT count(*) FROM h_2 WHERE k > 100), 0::bigint,
  'a hash shard is not closed if nobody takes its rows: nothing goes there');
SELECT is((SELECT count(*) FROM h), 200::bigint,
  'a hash shard is not closed if nobody takes its rows, and all rows find a place');
SELECT is((SELECT count(*) FROM h WHERE k = 5), 1::bigint,
  'a hash shard is not closed if nobody takes its rows, and are found');
SELECT fails('SELECT shard_fdw.close_shard(''h_a'')', '55000',
  title => 'those that took over stay open');
SELECT fails('SELECT shard_fdw.reshard(''h'', 2)', NULL,
  'shard "h_2" of foreign table "h" is closed', title => 'reshard() does not open it silently');
ALTER TABLE h_a NO INHERIT h;
ALTER TABLE h_b NO INHERIT h;
SELECT fails('INSERT INTO h VALUES (' || min(k) || ')', NULL,
  'shard "h_2" of foreign table "h" is closed',
  'It holds the rows whose key (k) has the hash remainder 2 of 4.',
  'Open it with SELECT shard_fdw.open_shard().', title => 'a row that only a closed shard holds')
  FROM h_2;

-- A closed shard with ids of its own, and lanes.
CREATE FOREIGN TABLE ids (id bigint OPTIONS (sequence 'always'), t text) SERVER shards
  OPTIONS (shards '2', commit_order 'true', max_shards '10');
INSERT INTO ids (t) VALUES ('a');
SELECT shard_fdw.last_shard() AS first \gset
SELECT shard_fdw.close_shard(:'first');
INSERT INTO ids (t) VALUES ('b');
SELECT isnt(shard_fdw.last_shard()::text, :'first',
  'a transaction that has the lane of a closed shard takes another');
SELECT fails(
  format('INSERT INTO ids OVERRIDING SYSTEM VALUE SELECT id + 10, ''c'' FROM %s', :'first'),
  '428C9', title => 'ids are not the user''s');

--
-- Gone, come back
--

SELECT shard_fdw.close_shard('own_0');
ALTER TABLE own_0 NO INHERIT own;
SELECT fails('SELECT shard_fdw.open_shard(''own_0'')', '42809',
  title => 'a table that has been detached is no shard');
ALTER TABLE own_0 INHERIT own;
SELECT is(states('own'), 'closed open', 'one that comes back is still closed');
DROP TABLE own_0;
SELECT is((SELECT count(*) FROM shard_fdw.closed_shards s WHERE NOT EXISTS (SELECT FROM pg_class c
      WHERE c.oid = s.shard)), 1::bigint, 'DROP leaves a row behind');
SELECT shard_fdw.close_shard('own_1');
SELECT is((SELECT count(*) FROM shard_fdw.closed_shards s WHERE NOT EXISTS (SELECT FROM pg_class c
      WHERE c.oid = s.shard)), 0::bigint,
  'DROP leaves a row behind, which the next call tidies up');

--
-- Options
--

SELECT fails(format('CREATE FOREIGN TABLE bad (at timestamptz NOT NULL, a int) SERVER shards
                      OPTIONS (shards ''2'', %s)', options),
  state, message, detail, hint, title => options)
  FROM (VALUES
    ($$ time_column 'nobody' $$, '42703',
      'time column "nobody" of foreign table "bad" does not exist', '',
      'Name another column with option "time_column" of the foreign table, or drop that option '
      'first.'),
    ($$ time_column 'a' $$, '42P17', 'column "a" of foreign table "bad" cannot be its time column',
      'Its type is integer.',
      'A time column has type timestamp with time zone, timestamp without time zone, or date.'),
    ($$ time_column 'tableoid' $$, '42P17',
      'column "tableoid" of foreign table "bad" cannot be its time column',
      'It is a system column.',
      'A time column has type timestamp with time zone, timestamp without time zone, or date.'),
    ($$ time_column 'at, a' $$, 'HV024', 'invalid value for option "time_column": "at, a"', '',
      'The value is the name of a column.'),
    ($$ time_column '' $$, 'HV024', 'invalid value for option "time_column": ""', '',
      'The value is the name of a column.'),
    ($$ rotate_every '1 day' $$, 'HV024', 'option "rotate_every" requires option "time_column"', '',
      'Name the column that says of which time a row is.'),
    ($$ retain_for '1 day' $$, 'HV024', 'option "retain_for" requires option "time_column"', '',
      'Name the column that says of which time a row is.'),
    ($$ time_column 'at', rotate_every 'soon' $$, 'HV024',
      'invalid value for option "rotate_every": "soon"', '',
      'The value is an interval greater than zero, such as "1 day" or "3 months".'),
    ($$ time_column 'at', rotate_every '0' $$, 'HV024',
      'invalid value for option "rotate_every": "0"', '',
      'The value is an interval greater than zero, such as "1 day" or "3 months".'),
    ($$ time_column 'at', retain_for '1 month -1 day' $$, 'HV024',
      'invalid value for option "retain_for": "1 month -1 day"', '',
      'The value is an interval greater than zero, such as "1 day" or "3 months".'),
    ($$ time_column 'at', retain_for '-1 hour' $$, 'HV024',
      'invalid value for option "retain_for": "-1 hour"', '',
      'The value is an interval greater than zero, such as "1 day" or "3 months".'),
    ($$ time_column 'at', retain_for '999999999999 years' $$, 'HV024',
      'invalid value for option "retain_for": "999999999999 years"', '',
      'The value is an interval greater than zero, such as "1 day" or "3 months".'),
    ($$ maintenance 'always' $$, 'HV024', 'invalid value for option "maintenance": "always"', '',
      'Valid values are: auto, manual.'),
    ($$ time_column 'at', rotate_every '1 day', route 'hash', key 'a' $$, '42P17',
      'option "rotate_every" of foreign table "bad" cannot be used with route "hash"',
      'Each generation of shards could hold the same keys once more.', ''))
  t(options, state, message, detail, hint);
SELECT lives_ok('CREATE FOREIGN TABLE bad (at timestamptz NOT NULL, a int) SERVER shards
                   OPTIONS (shards ''2'', '
                || $$ time_column 'at', rotate_every '1 month', retain_for '3 years 2 days',
                  maintenance 'manual' $$ || ')',
  ' time_column ''at'', rotate_every ''1 month'', retain_for ''3 years 2 days'', maintenance '
  '''manual'' ');
DROP FOREIGN TABLE bad CASCADE;
SELECT fails(
  'CREATE FOREIGN TABLE bad (at date) SERVER shards OPTIONS (shards ''1'', time_column ''at'')',
  '42P17', 'time column "at" of foreign table "bad" can be null in shard "bad_0"', '',
  'Declare the column NOT NULL, in the foreign table or in each shard.',
  title => 'a time column that can be null');
CREATE TABLE timed_template (at date NOT NULL);
CREATE FOREIGN TABLE timed (at date) SERVER shards OPTIONS (shards '1', template 'timed_template',
  time_column 'at');
SELECT fails('ALTER TABLE timed_0 ALTER COLUMN at DROP NOT NULL', '42P17',
  title => 'a time column that can be null, if the template has it NOT NULL that is enough, and '
           'it stays so');
CREATE TABLE timed_more (at date);
SELECT fails('ALTER TABLE timed_more INHERIT timed', '42P17',
  title => 'a time column that can be null: a table is not attached where it can be null');
SELECT fails('ALTER FOREIGN TABLE timed DROP COLUMN at', '42P16',
  'cannot drop column "at" because it is the time column of foreign table "timed"',
  title => 'the time column cannot be dropped');
ALTER FOREIGN TABLE timed RENAME COLUMN at TO "when, then";
SELECT is((SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'timed'::regclass),
  ARRAY['time_column="when, then"'], 'the option follows when it is renamed');
SELECT lives_ok('ALTER FOREIGN TABLE timed OPTIONS (DROP time_column)',
  'the option can be dropped');
SELECT lives_ok('ALTER FOREIGN TABLE timed OPTIONS (ADD time_column ''"when, then"'')',
  'the option can be dropped, and be added');

--
-- Ranges
--

SET LOCAL timezone = 'America/New_York';
SET LOCAL datestyle = 'SQL, DMY';
SET LOCAL intervalstyle = 'sql_standard';
-- Times of one type in a shard, and the range that this gives.
CREATE FUNCTION range_of(type text, times text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE t (a int, at %s NOT NULL) SERVER shards OPTIONS (shards '
                 '''1'', time_column ''at'')', type);
  EXECUTE format('INSERT INTO t SELECT 1, u::%s FROM unnest($1) u', type) USING times;
  PERFORM shard_fdw.close_shard('t_0');
  CALL shard_fdw.add_range('t_0');
  SET LOCAL datestyle = 'ISO';
  SET LOCAL timezone = 'UTC';
  SELECT string_agg(conname || ' ' || convalidated || ' ' || pg_get_constraintdef(oid), '; ')
    INTO result
    FROM pg_constraint WHERE conrelid = 't_0'::regclass AND contype = 'c';
  SET LOCAL datestyle = 'SQL, DMY';
  SET LOCAL timezone = 'America/New_York';
  DROP FOREIGN TABLE t CASCADE;
  RETURN result;
END $$;
SELECT is(range_of(type, times::text[]),
  format('shard_range true CHECK (((at IS NOT NULL) AND (at >= %L::%s) AND (at <= %L::%s)))',
    wanted_min, long_name, wanted_max, long_name), type || ' ' || times)
  FROM (VALUES
    ('timestamptz', 'timestamp with time zone', '{2026-03-08 06:59:59.999999Z,2026-03-08 07:00Z}',
      '2026-03-08 06:59:59.999999+00', '2026-03-08 07:00:00+00'),
    ('timestamptz', 'timestamp with time zone', '{-infinity,infinity}', '-infinity', 'infinity'),
    ('timestamptz', 'timestamp with time zone', '{4713-01-01 00:00Z BC,294276-12-31 23:59:59Z}',
      '4713-01-01 00:00:00+00 BC', '294276-12-31 23:59:59+00'),
    ('timestamptz', 'timestamp with time zone', '{}', 'infinity', '-infinity'),
    ('timestamp', 'timestamp without time zone', '{2026-03-08 02:30,2026-03-08 02:31}',
      '2026-03-08 02:30:00', '2026-03-08 02:31:00'),
    ('timestamp', 'timestamp without time zone', '{}', 'infinity', '-infinity'),
    ('date', 'date', '{2026-05-04,2026-04-05}', '2026-04-05', '2026-05-04'),
    ('date', 'date', '{-infinity,2026-04-05,0044-03-15 BC}', '-infinity', '2026-04-05'),
    ('date', 'date', '{}', 'infinity', '-infinity')) v(type, long_name, times, wanted_min,
    wanted_max);

CREATE TABLE day_template (at timestamptz NOT NULL, a int, PRIMARY KEY (at, a));
CREATE FOREIGN TABLE day (at timestamptz, a int) SERVER shards
  OPTIONS (shards '1', template 'day_template', time_column 'at');
INSERT INTO day SELECT '2026-01-01Z'::timestamptz + g * interval '1 hour',
  g FROM generate_series(0, 23) g;
SELECT fails('CALL shard_fdw.add_range(''day_0'')', '55000', 'shard "day_0" is open',
  'Rows of any time may come.', 'Close it with SELECT shard_fdw.close_shard().',
  title => 'an open shard has no range');
SELECT shard_fdw.close_shard('day_0');
SELECT lives_ok('CALL shard_fdw.add_range(''day_0'')', 'a closed one gets it');
SELECT lives_ok('CALL shard_fdw.add_range(''day_0'')', 'a closed shard gets a range once');
SELECT is((SELECT count(*) FROM pg_constraint WHERE conrelid = 'day_0'::regclass AND contype = 'c'),
  1::bigint, 'a closed shard gets a range, indeed');
SELECT fails('UPDATE day SET at = ''2026-01-02Z'' WHERE a = 1', '23514',
  'new row for relation "day_0" violates check constraint "shard_range"',
  title => 'no row leaves the range');
SELECT fails('INSERT INTO day_0 VALUES (''2026-01-02Z'', 0)', '23514',
  title => 'no row leaves the range, nor comes in from outside');
SELECT lives_ok('UPDATE day SET at = at + interval ''1 minute'' WHERE a = 1',
  'no row leaves the range, but can be changed within');
SELECT is((SELECT count(*) FROM shard_fdw.create_shards('day', 1)), 1::bigint,
  'a shard in the likeness of a closed one');
SELECT lives_ok('INSERT INTO day VALUES (''2026-01-02Z'', 30)',
  'a shard in the likeness of a closed one does not have its range');
SELECT is(shard_fdw.last_shard()::text, 'day_1',
  'a shard in the likeness of a closed one, and takes rows of any time');
SELECT lives_ok('SELECT shard_fdw.open_shard(''day_0'')', 'a shard is opened');
SELECT is((SELECT count(*) FROM pg_constraint WHERE conrelid = 'day_0'::regclass AND contype = 'c'),
  0::bigint, 'a shard is opened, and has lost its range');
SELECT shard_fdw.close_shard('day_1');
SELECT lives_ok('INSERT INTO day VALUES (''2027-01-02Z'', 31)',
  'a shard is opened, and takes rows of any time');
SELECT shard_fdw.close_shard('day_0');

-- A row may have come between: the constraint is not valid then, and made anew.
SAVEPOINT s;
ALTER TABLE day_0 ADD CONSTRAINT shard_range
  CHECK (at IS NOT NULL AND at >= '2026-01-01Z'::timestamptz AND at <= '2026-01-02Z'::timestamptz)
    NOT VALID;
SELECT lives_ok('CALL shard_fdw.add_range(''day_0'')', 'a range that is wrong');
SELECT is((SELECT convalidated AND pg_get_constraintdef(oid) ~ '2027' FROM pg_constraint
    WHERE conrelid = 'day_0'::regclass AND contype = 'c'), true,
  'a range that is wrong is replaced');
ROLLBACK TO s;

-- What the range is of changes with the option.
ALTER FOREIGN TABLE day ADD COLUMN d date NOT NULL DEFAULT '2026-02-02';
CALL shard_fdw.add_range('day_0');
ALTER FOREIGN TABLE day OPTIONS (SET time_column 'd');
CALL shard_fdw.add_range('day_0');
SELECT is((SELECT array_agg(pg_get_constraintdef(oid) ~ 'd >=') FROM pg_constraint
    WHERE conrelid = 'day_0'::regclass AND contype = 'c'), '{t}',
  'another time column, another range');
ALTER FOREIGN TABLE day OPTIONS (SET time_column 'at');
CALL shard_fdw.add_range('day_0');
SELECT is((SELECT array_agg(pg_get_constraintdef(oid) ~ 'at >=') FROM pg_constraint
    WHERE conrelid = 'day_0'::regclass AND contype = 'c'), '{t}',
  'another time column, another range, and back');

SELECT fails('CALL shard_fdw.add_range(''noone'')', '42P01', title => 'add_range() of nothing');
SELECT fails('CALL shard_fdw.add_range(NULL)', '22004', 'shard must not be null', '', '',
  title => 'add_range(NULL)');
SELECT fails('CALL shard_fdw.add_range(''log_0'')', '55000', 'shard "log_0" has no time column', '',
  'Set option "time_column" of its foreign table.', title => 'add_range() without a time column');
CREATE TABLE day_child () INHERITS (day_0);
SELECT shard_fdw.open_shard('day_0');
SELECT shard_fdw.close_shard('day_0');
SELECT fails('CALL shard_fdw.add_range(''day_0'')', '0A000', 'shard "day_0" cannot have a range',
  'It is a foreign table or has inheritance children.', '',
  title => 'add_range() of a shard with children');
DROP TABLE day_child;

--
-- Rotation
--

SELECT fails('SELECT shard_fdw.rotate(''h'')', '0A000', 'cannot rotate foreign table "h"',
  'Its route is "hash": each generation of shards could hold the same keys once more.',
  'Use route "session" or "round_robin".', title => 'a hash table is not rotated');
SELECT fails('SELECT shard_fdw.rotate(''rr'', 0)', '22023',
  'number of shards must be greater than zero', '', '', title => 'rotate() to none');
SELECT fails('SELECT shard_fdw.rotate(NULL)', '22004', 'logical table must not be null', '', '',
  title => 'rotate(NULL)');
SELECT fails('SELECT shard_fdw.rotate(''plain'')', '42809',
  '"plain" is not a foreign table of shard_fdw', '', '', title => 'rotate() of a plain table');
SELECT is((SELECT array_agg(r::text) FROM shard_fdw.rotate('rr') r), '{rr_3,rr_4}',
  'as many new shards as were open');
SELECT is(states('rr'), 'closed closed closed open open',
  'as many new shards as were open, and those are closed');
SELECT is((SELECT array_agg(r::text) FROM shard_fdw.rotate('rr', 3) r), '{rr_5,rr_6,rr_7}',
  'as many as given');
SELECT is(states('rr'), 'closed closed closed closed closed open open open',
  'as many as given, and those before are closed');
INSERT INTO rr SELECT generate_series(1, 9);
SELECT is((SELECT array_agg(n) FROM (SELECT count(*) AS n FROM rr WHERE tableoid::regclass::text
      ~ 'rr_[567]' GROUP BY tableoid) t), '{3,3,3}', 'rows go to the new generation');
SELECT shard_fdw.close_shard(shard) FROM shard_fdw.list_shards('rr') WHERE state = 'open';
SELECT fails('SELECT shard_fdw.rotate(''rr'')', '55000', 'foreign table "rr" has no open shards',
  '', 'Say how many shards to create.', title => 'without open shards one has to say how many');
SELECT is((SELECT count(*) FROM shard_fdw.rotate('rr', 1)), 1::bigint,
  'without open shards one has to say how many, which will do');

-- Ids go on, in the slots of the generation before.
CREATE TABLE refs (n int PRIMARY KEY);
INSERT INTO refs VALUES (1);
CREATE TABLE gen_template (id bigint PRIMARY KEY, at timestamptz NOT NULL, n int REFERENCES refs);
CREATE INDEX ON gen_template (at);
CREATE FOREIGN TABLE gen (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL, n int)
  SERVER shards OPTIONS (shards '2', max_shards '10', commit_order 'true', time_column 'at',
    retain_for '10 days', template 'gen_template');
CREATE FUNCTION fill(day text) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
  shard int;
BEGIN
  FOR shard IN SELECT ordinal FROM shard_fdw.list_shards('gen') WHERE state = 'open' LOOP
    PERFORM set_config('shard_fdw.shard', shard::text, true);
    RETURN QUERY INSERT INTO gen (at, n) SELECT day::timestamptz + g * interval '1 hour',
    1 FROM generate_series(0, 1) g RETURNING id;
  END LOOP;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
SELECT is(array(SELECT fill('2026-01-01Z')), '{1,11,2,12}', 'ids of the first generation');
SELECT is((SELECT array_agg(r::text) FROM shard_fdw.rotate('gen') r), '{gen_2,gen_3}',
  'the second generation');
SELECT is(array(SELECT fill('2026-01-02Z')), '{21,31,22,32}',
  'the second generation: its ids go on where those of the first have ended');
SELECT is((SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conrelid::regclass::text)
    FROM pg_constraint WHERE conrelid::regclass::text ~ '^gen_[23]' AND contype = 'c'),
  'CHECK (shard_fdw.in_slot(10, 1, id)) CHECK (shard_fdw.in_slot(10, 2, id))',
  'the second generation, as the slots say');
SELECT shard_fdw.rotate('gen') \g /dev/null
SELECT is(array(SELECT fill('2026-01-03Z')), '{41,51,42,52}',
  'the second generation, nor does the third begin anew');
SELECT shard_fdw.rotate('gen', 3) \g /dev/null
SELECT is(array(SELECT fill('2026-01-04Z')), '{61,71,62,72,63,73}',
  'one more shard takes a slot that nobody has had, and begins where the others are');
SELECT is((SELECT count(DISTINCT id) FROM gen), (SELECT count(*) FROM gen), 'no id is given twice');
SELECT is((SELECT count(*) FROM pg_constraint WHERE conrelid::regclass::text ~ '^gen_\d'
    AND contype = 'f'), 9::bigint, 'all have the foreign key');

--
-- Retention
--

SELECT fails('SELECT shard_fdw.retain(NULL)', '22004', 'logical table must not be null', '', '',
  title => 'retain(NULL)');
SELECT fails('SELECT shard_fdw.retain(''plain'')', '42809',
  '"plain" is not a foreign table of shard_fdw', '', '', title => 'retain() of a plain table');
SELECT fails('SELECT shard_fdw.retain(''rr'')', '55000', 'foreign table "rr" has no time column',
  '', 'Set option "time_column" of the foreign table.', title => 'retain() without a time column');
SELECT fails('SELECT shard_fdw.retain(''day'')', '55000',
  'foreign table "day" has no option "retain_for"', '',
  'Set the option, or call retain() with a time.', title => 'retain() without a time');
SELECT is(array(SELECT shard_fdw.retain('gen', '-infinity')), '{}',
  'nothing is older than all times');
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-01 01:00Z')), '{}',
  'a row of just that time is not older');
CALL shard_fdw.add_range('gen_0');
CALL shard_fdw.add_range('gen_2');
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-01 01:00Z')), '{}',
  'a row of just that time is not older, as the range says as well');
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-01 01:00:00.000001Z')),
  '{lifecycle_test.gen_0,lifecycle_test.gen_1}', 'shards are dropped by range or by their rows');
SELECT is(to_regclass('gen_0') IS NULL AND to_regclass('gen_1') IS NULL, true,
  'shards are dropped by range or by their rows, indeed');
SELECT is((SELECT count(*) FROM shard_fdw.closed_shards s WHERE NOT EXISTS (SELECT FROM pg_class c
      WHERE c.oid = s.shard)), 0::bigint,
  'shards are dropped by range or by their rows, and nothing is left of them');
SELECT is((SELECT array_agg(DISTINCT tableoid::regclass::text) FROM gen),
  '{gen_2,gen_3,gen_4,gen_5,gen_6,gen_7,gen_8}',
  'shards are dropped by range or by their rows, and nothing else is gone');

-- Consumers.
SELECT shard_fdw.register_consumer('gen', 'slow', 'id');
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-03Z')), '{}',
  'what has not been read stays');
SELECT is((SELECT count(*) FROM shard_fdw.read_batch(NULL::gen, 'slow', 1)), 1::bigint,
  'a shard is read, but not to its end');
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-03Z')), '{}',
  'a shard is read, but not to its end, and stays');
DO $$ BEGIN LOOP EXIT WHEN NOT EXISTS (SELECT FROM shard_fdw.read_batch(NULL::gen, 'slow', 100));
END LOOP; END $$;
SELECT shard_fdw.register_consumer('gen', 'by time', 'at');
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-03Z')), '{}',
  'what one of two has not read stays');
DO $$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM shard_fdw.read_window(NULL::gen, 'by time',
    '2026-01-03 00:30Z'); END LOOP; END $$;
SELECT is(array(SELECT shard_fdw.retain('gen', '2026-01-04Z', keep_tables => true)),
  '{lifecycle_test.gen_2,lifecycle_test.gen_3}',
  'what both have read is detached, what is in no window yet stays');
SELECT is((SELECT count(*) FROM gen_2), 2::bigint,
  'what both have read is detached, what is in no window yet stays, with its rows');
SELECT is((SELECT count(*) FROM gen WHERE tableoid = 'gen_2'::regclass), 0::bigint,
  'what both have read is detached, what is in no window yet stays, which are no longer in the '
  'table');
DO $$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM shard_fdw.read_window(NULL::gen, 'by time',
    '2026-01-05Z'); END LOOP; END $$;
ALTER TABLE gen_2 INHERIT gen;
SELECT is((SELECT state FROM shard_fdw.list_shards('gen') WHERE shard = 'gen_2'::regclass),
  'closed', 'one that comes back is still closed');
SELECT is(array(SELECT shard_fdw.retain('gen')),
  '{lifecycle_test.gen_2,lifecycle_test.gen_4,lifecycle_test.gen_5}',
  'without a time, option "retain_for" says it');
SELECT is(states('gen'), 'open open open',
  'without a time, option "retain_for" says it: open shards stay, however old');

-- What cannot be dropped is in nobody's way.
SELECT shard_fdw.rotate('gen', 1) \g /dev/null
CREATE VIEW depends AS SELECT * FROM gen_6;
SELECT is(array(SELECT shard_fdw.retain('gen')), '{lifecycle_test.gen_7,lifecycle_test.gen_8}',
  'a shard that something depends on is kept, the others go');
SELECT shard_fdw.seal('gen_6');
SELECT is(array(SELECT shard_fdw.retain('gen', keep_tables => true)), '{lifecycle_test.gen_6}',
  'a shard that something depends on is kept, the others go: it can be detached, and be sealed');
SELECT shard_fdw.rotate('gen', 1) \g /dev/null
SELECT is(array(SELECT shard_fdw.retain('gen')), '{lifecycle_test.gen_9}',
  'an empty closed shard goes at once');

-- Times of other types are compared as DELETE would.
CREATE FUNCTION retained(type text, row_at text, older_than text, with_range bool) RETURNS text
  LANGUAGE plpgsql AS $$
DECLARE
  n int;
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE t (a int, at %s NOT NULL) SERVER shards OPTIONS (shards '
                 '''1'', time_column ''at'')', type);
  EXECUTE format('INSERT INTO t VALUES (1, %L)', row_at);
  PERFORM shard_fdw.close_shard('t_0');
  IF with_range THEN CALL shard_fdw.add_range('t_0'); END IF;
  EXECUTE format('SELECT count(*) FROM t WHERE at < %L::timestamptz', older_than) INTO n;
  RETURN n || ' ' || (SELECT count(*) FROM shard_fdw.retain('t', older_than::timestamptz));
END $$;
CREATE TABLE results (tried text, result text);
DO $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM unnest('{timestamptz,timestamp,date}'::text[]) type,
  unnest('{2026-03-08,2026-11-01 01:30,infinity,-infinity}'::text[]) row_at,
                         unnest('{2026-03-08,2026-03-08 12:00,2026-03-08 00:00Z,2026-03-08 '
                                '05:00Z,2026-03-08 05:00:00.1Z,2026-11-01 05:30Z,2026-11-01 '
                                '05:31Z,2026-11-01 06:31Z,infinity,-infinity}'::text[]) older_than,
                         unnest('{t,f}'::bool[]) with_range LOOP
    BEGIN
      INSERT INTO results SELECT r::text, retained(r.type, r.row_at, r.older_than, r.with_range);
      RAISE SQLSTATE 'OK000' USING MESSAGE = (SELECT result FROM results WHERE tried = r::text);
    EXCEPTION WHEN SQLSTATE 'OK000' THEN
      INSERT INTO results VALUES (r::text, SQLERRM);
    END;
  END LOOP;
END $$;
SELECT is((SELECT count(*) FROM results), 240::bigint, 'all have been tried');
SELECT is_empty($$ SELECT * FROM results WHERE split_part(result, ' ', 1) <> split_part(result, ' ',
      2) $$, 'a shard goes if DELETE would take its row');
SELECT is((SELECT count(DISTINCT result) FROM results), 2::bigint,
  'a shard goes if DELETE would take its row, which happens or not');

-- Rights.
SET LOCAL ROLE shard_reader;
SELECT fails(command, '42501', title => command || ' is for the owner')
  FROM unnest(ARRAY['SELECT shard_fdw.rotate(''gen'')', 'SELECT shard_fdw.retain(''gen'')',
      'CALL shard_fdw.add_range(''gen_10'')']) command;
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE theirs (at timestamptz NOT NULL) SERVER shards
  OPTIONS (shards '1', time_column 'at');
INSERT INTO theirs VALUES ('2026-01-01');
SELECT lives_ok('SELECT shard_fdw.rotate(''theirs'')',
  'the owner need not be a superuser to rotate');
SELECT lives_ok('CALL shard_fdw.add_range(''theirs_0'')',
  'the owner need not be a superuser to rotate, to add a range');
SELECT is(array(SELECT shard_fdw.retain('theirs', 'infinity')), '{lifecycle_test.theirs_0}',
  'the owner need not be a superuser to rotate, and to drop');
RESET ROLE;

--
-- What is due, and when
--

SELECT fails('CALL shard_fdw.maintain(''gen'')', '25001',
  'maintain() cannot be called in a transaction block',
  'It commits after each step.', 'In a transaction block, use rotate() and retain().',
  'maintain() is not for transaction blocks');
CREATE FOREIGN TABLE due (at timestamptz NOT NULL)
  SERVER shards OPTIONS (shards '2', time_column 'at', rotate_every '1 day', retain_for '2 days');
SELECT is((SELECT ARRAY[mode, (rotate_every = '1 day')::text, (retain_for = '2 days')::text,
  generations::text, open::text, closed::text, sealed::text, due] FROM shard_fdw.maintenance
  WHERE logical = 'due'::regclass),
  '{auto,true,true,1,2,0,0,NULL}', 'a new table in view "maintenance"');
SELECT is((SELECT is_confirmed AND last_run IS NULL AND began BETWEEN now() AND clock_timestamp()
  FROM shard_fdw.maintenance WHERE logical = 'due'::regclass), true,
  'a new table may have old rows dropped');
-- The grid is that of UTC, whatever the time zone is.
SET LOCAL timezone = 'America/New_York';
CREATE TABLE grid (every text, began timestamptz, next timestamptz, got timestamptz);
INSERT INTO grid VALUES
  ('1 day', '2026-03-08 00:00Z', '2026-03-09 00:00Z'),
  ('1 day', '2026-03-07 23:59:59.999999Z', '2026-03-08 00:00Z'),
  ('1 hour', '2026-03-08 06:59Z', '2026-03-08 07:00Z'),
  ('1 hour', '2026-11-01 05:30Z', '2026-11-01 06:00Z'),
  ('1 week', '2026-11-29 12:00Z', '2026-11-30 00:00Z'),
  ('1 week', '2026-11-30 00:00Z', '2026-12-07 00:00Z'),
  ('1 month', '2024-02-29 12:00Z', '2024-03-01 00:00Z'),
  ('1 month', '2026-12-01 00:00Z', '2027-01-01 00:00Z'),
  ('3 months', '2026-11-29 12:00Z', '2027-01-01 00:00Z'),
  ('1 year', '2026-11-29 12:00Z', '2027-01-01 00:00Z'),
  ('1 month', '1999-12-31 23:00Z', '2000-01-01 00:00Z'),
  ('1 day', '1999-12-31 23:00Z', '2000-01-01 00:00Z'),
  ('90 minutes', '2001-01-01 01:00Z', '2001-01-01 01:30Z'),
  ('1.5 seconds', '2001-01-01 00:00:01.4Z', '2001-01-01 00:00:01.5Z'),
  ('1 month 1 day', '2026-01-31 10:00Z', '2026-03-01 10:00Z'),
  ('1 day 12 hours', '2001-01-01 13:00Z', '2001-01-02 12:00Z'),
  ('170000000 years', '2026-01-01 00:00Z', NULL), ('2147483647 days', '2026-01-01 00:00Z', NULL),
  ('1 day', 'infinity', NULL);
DO $$
DECLARE
  g record;
BEGIN
  FOR g IN SELECT ctid, * FROM grid LOOP
    EXECUTE format('ALTER FOREIGN TABLE due OPTIONS (SET rotate_every %L)', g.every);
    UPDATE shard_fdw.generations SET began = g.began WHERE logical = 'due'::regclass;
    UPDATE grid SET got = next_rotation FROM shard_fdw.maintenance m
     WHERE grid.ctid = g.ctid AND m.logical = 'due'::regclass;
  END LOOP;
END $$;
SELECT is_empty('SELECT * FROM grid WHERE next IS DISTINCT FROM got', 'generations end on a grid');
ALTER FOREIGN TABLE due OPTIONS (SET rotate_every '1 day');
-- What is due is counted.
UPDATE shard_fdw.generations SET began = now() - interval '1 day' WHERE logical = 'due'::regclass;
INSERT INTO due SELECT now() - interval '3 days';
SELECT is((SELECT due FROM shard_fdw.maintenance WHERE logical = 'due'::regclass), 'rotation',
  'a rotation is due');
SELECT shard_fdw.rotate('due') \g /dev/null
SELECT is((SELECT due FROM shard_fdw.maintenance WHERE logical = 'due'::regclass), '2 ranges',
  'after the rotation, ranges are due');
CALL shard_fdw.add_range('due_0');
CALL shard_fdw.add_range('due_1');
SELECT is((SELECT ARRAY[due, generations::text, closed::text] FROM shard_fdw.maintenance
  WHERE logical = 'due'::regclass), '{2 shards to drop,2,2}',
  'after the ranges, old shards are to go');
SELECT is((SELECT count(*) FROM shard_fdw.shards WHERE logical = 'due'::regclass
  AND range_start = (now() - interval '3 days')::text AND range_end = range_start), 1::bigint,
  'view "shards" has the range');
SELECT is((SELECT count(*) FROM shard_fdw.shards WHERE logical = 'due'::regclass
  AND range_start IS NULL), 3::bigint, 'view "shards" has no range of open and empty shards');
ALTER FOREIGN TABLE due OPTIONS (SET retain_for '1000000 years');
SELECT is((SELECT due FROM shard_fdw.maintenance WHERE logical = 'due'::regclass), NULL,
  'longer than all times');
SELECT is(array(SELECT shard_fdw.retain('due')), '{}', 'longer than all times for retain(), too');
SELECT shard_fdw.seal('due_2');
ALTER FOREIGN TABLE due OPTIONS (SET retain_for '1 day');
CALL shard_fdw.add_range('due_2');
SELECT is((SELECT ARRAY[due, open::text, sealed::text] FROM shard_fdw.maintenance
  WHERE logical = 'due'::regclass), '{2 shards to drop,1,1}',
  'what is sealed and was not closed stays');
-- Without option "shards", as it comes from a dump.
CREATE FOREIGN TABLE dumped (at timestamptz NOT NULL)
  SERVER shards OPTIONS (time_column 'at', retain_for '2 days');
SELECT is((SELECT is_confirmed FROM shard_fdw.maintenance WHERE logical = 'dumped'::regclass),
  false, 'without its shards, it may come from a dump');
ALTER FOREIGN TABLE dumped OPTIONS (ADD maintenance 'manual');
SELECT is((SELECT is_confirmed FROM shard_fdw.maintenance WHERE logical = 'dumped'::regclass),
  false, 'another option does not confirm the retention');
ALTER FOREIGN TABLE dumped OPTIONS (SET retain_for '3 days');
SELECT is((SELECT is_confirmed FROM shard_fdw.maintenance WHERE logical = 'dumped'::regclass), true,
  'who says how long to keep rows confirms the retention');
SELECT is((SELECT count(*) FROM shard_fdw.maintenance WHERE logical = 'log'::regclass), 0::bigint,
  'tables without a time column are not shown');
UPDATE shard_fdw.maintenance_runs SET last_error = 'secret' WHERE logical = 'due'::regclass;
SET LOCAL ROLE shard_reader;
SELECT is((SELECT count(*) FILTER (WHERE last_error IS NULL) FROM shard_fdw.maintenance),
  (SELECT count(*) FROM shard_fdw.maintenance), 'errors are not for everybody');
SELECT fails('SELECT FROM shard_fdw.' || t, '42501', title => t || ' is not to be read')
  FROM unnest('{generations,maintenance_runs}'::text[]) t;
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
