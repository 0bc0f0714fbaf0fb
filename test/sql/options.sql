-- Options of servers and tables: what is valid, what it does, and when.
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT no_plan();

\ir helpers.psql

-- What EXPLAIN VERBOSE says of an INSERT.
CREATE FUNCTION explained(insert text, property text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) ' || insert INTO plan;
  RETURN plan -> 0 -> 'Plan' ->> property;
END $$;

-- How many shards the rows of one INSERT go to.
CREATE FUNCTION spread(logical regclass, nrows int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  result bigint;
BEGIN
  EXECUTE format('TRUNCATE %s', logical);
  EXECUTE format('INSERT INTO %s SELECT generate_series(1, $1)', logical)
    USING nrows;
  EXECUTE format('SELECT count(DISTINCT tableoid) FROM %s', logical)
    INTO result;
  RETURN result;
END $$;

CREATE FUNCTION options_of(logical regclass) RETURNS text
LANGUAGE sql AS $$
  SELECT ftoptions::text FROM pg_foreign_table WHERE ftrelid = logical
$$;

--
-- Names
--

CREATE TABLE template (id int PRIMARY KEY);
CREATE FOREIGN TABLE every (id int) SERVER shards
OPTIONS (shards '3', template 'template', route 'round_robin',
         batch_size '10', max_shards '3', shard_schema 'public');
SELECT is(options_of('every'),
  '{route=round_robin,batch_size=10,max_shards=3,shard_schema=public}',
  'every option of a table');
SELECT is((SELECT count(*) FROM pg_index JOIN pg_inherits ON inhrelid = indrelid
            WHERE inhparent = 'every'::regclass), 3::bigint,
  'every option of a table: shards and template');
SELECT is(spread('every', 3), 3::bigint, 'every option of a table: route');
SELECT is(explained('INSERT INTO every VALUES (1), (2)', 'Batch Size'), '10',
  'every option of a table: batch_size');
SELECT fails($$ SELECT shard_fdw.create_shards('every', 1) $$, '54000',
  title => 'every option of a table: max_shards');
CREATE SERVER every_server FOREIGN DATA WRAPPER shard_fdw
OPTIONS (route 'round_robin', batch_size '10');
SELECT is((SELECT srvoptions::text FROM pg_foreign_server
            WHERE srvname = 'every_server'),
  '{route=round_robin,batch_size=10}', 'every option of a server');

CREATE SERVER no_options FOREIGN DATA WRAPPER shard_fdw;
CREATE FOREIGN TABLE no_options (id int) SERVER no_options;
CREATE TABLE contexts (context text, command text, valid text[]);
INSERT INTO contexts VALUES
  ('table', 'CREATE FOREIGN TABLE bad (id int) SERVER shards OPTIONS (%s)',
   '{shards,template,route,batch_size,max_shards,shard_schema}'),
  ('altered table', 'ALTER FOREIGN TABLE no_options OPTIONS (ADD %s)',
   '{shards,template,route,batch_size,max_shards,shard_schema}'),
  ('server', 'CREATE SERVER bad FOREIGN DATA WRAPPER shard_fdw OPTIONS (%s)',
   '{route,batch_size,shard_schema}'),
  ('altered server', 'ALTER SERVER no_options OPTIONS (ADD %s)',
   '{route,batch_size,shard_schema}'),
  ('wrapper', 'ALTER FOREIGN DATA WRAPPER shard_fdw OPTIONS (ADD %s)', '{}'),
  ('user mapping',
   'CREATE USER MAPPING FOR PUBLIC SERVER no_options OPTIONS (%s)', '{}'),
  ('column',
   'CREATE FOREIGN TABLE bad (id int OPTIONS (%s)) SERVER shards', '{}'),
  ('altered column',
   'ALTER FOREIGN TABLE no_options ALTER COLUMN id OPTIONS (ADD %s)', '{}');

-- Names the hint of the error lists; null if there are none.
CREATE FUNCTION hinted(hint text) RETURNS text[] LANGUAGE sql AS $$
  SELECT string_to_array(substring(hint,
           '^Valid options in this context are: (.*)\.$'), ', ')
$$;

SELECT results_eq(
  $$ SELECT context, state, message FROM contexts,
            error_of(format(command, 'no_such ''x''')) ORDER BY 1 $$,
  $$ SELECT context, 'HV00D', 'invalid option "no_such"'
       FROM contexts ORDER BY 1 $$,
  'an unknown name is an error everywhere');
-- More options may come, so the hint may list more than these.
SELECT is_empty(
  $$ SELECT context, hint FROM contexts,
            error_of(format(command, 'no_such ''x'''))
      WHERE valid <> '{}' AND NOT coalesce(hinted(hint) @> valid, false) $$,
  'an unknown name is an error everywhere, with a hint that lists the valid ones');
SELECT results_eq(
  $$ SELECT DISTINCT hint
       FROM contexts, error_of(format(command, 'no_such ''x'''))
      WHERE context IN ('wrapper', 'user mapping') $$,
  $$ VALUES ('There are no valid options in this context.') $$,
  'an unknown name is an error everywhere, or says that there are none');
SELECT is_empty(
  $$ SELECT context, name, value.state
       FROM contexts, error_of(format(command, 'no_such ''x''')) unknown,
            unnest(hinted(unknown.hint)) name,
            error_of(format(command, name || ' ''no such value''')) value
      WHERE value.state IS DISTINCT FROM 'HV024' $$,
  'every name in a hint is known, its value is checked');
SELECT results_eq(
  $$ SELECT context, name, value.state
       FROM contexts, unnest((SELECT valid FROM contexts
                               WHERE context = 'table')) name,
            error_of(format(command, format('%I ''1''', name))) value
      WHERE name <> ALL (valid) ORDER BY 1, 2 $$,
  $$ SELECT context, name, 'HV00D'
       FROM contexts, unnest((SELECT valid FROM contexts
                               WHERE context = 'table')) name
      WHERE name <> ALL (valid) ORDER BY 1, 2 $$,
  'an option of another kind of object is an error');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER shards
   OPTIONS ("Route" ''session'')', 'HV00D', title => 'names are case-sensitive');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER shards
   OPTIONS (shards ''1'', shards ''2'')', '42710', title => 'an option given twice');
SELECT is_empty(
  $$ SELECT srvname::text FROM pg_foreign_server WHERE srvname = 'bad'
     UNION ALL
     SELECT relname::text FROM pg_class WHERE relname ~ '^bad' $$,
  'nothing is left of what failed');

--
-- Values
--

CREATE TABLE bad_values (name text, value text);
INSERT INTO bad_values VALUES
  ('route', ''), ('route', 'hashed'), ('route', 'Session'), ('route', 'session '),
  ('route', 'session, round_robin'), ('route', '0'), ('route', 'round'),
  ('shards', ''), ('shards', '0'), ('shards', '-1'), ('shards', 'many'),
  ('shards', '65537'), ('shards', '99999999999'), ('shards', '4 kB'),
  ('shards', '2,3'),
  ('batch_size', ''), ('batch_size', '0'), ('batch_size', '-1'),
  ('batch_size', 'x'), ('batch_size', '100001'),
  ('max_shards', ''), ('max_shards', '0'), ('max_shards', '-1'),
  ('max_shards', 'x'), ('max_shards', '65537'),
  ('template', ''), ('template', '.'), ('template', 'a..b'),
  ('template', '"a'), ('template', 'a b');
CREATE VIEW errors AS
SELECT name, value, e.*
  FROM bad_values, error_of(format(
         'CREATE FOREIGN TABLE bad (id int) SERVER shards OPTIONS (%s%I %L)',
         CASE name WHEN 'template' THEN 'shards ''1'', ' END, name, value)) e;
SELECT results_eq(
  'SELECT name, value, state, message FROM errors ORDER BY name, value',
  $$ SELECT name, value, 'HV024',
            format('invalid value for option "%s": "%s"', name, value)
       FROM bad_values ORDER BY name, value $$,
  'bad values of table options');
SELECT results_eq('SELECT DISTINCT name, hint FROM errors ORDER BY name',
  $$ VALUES ('batch_size', 'Valid values are the integers from 1 to 100000.'),
            ('max_shards', 'Valid values are the integers from 1 to 65536.'),
            ('route', 'Valid values are: session, round_robin, hash.'),
            ('shards', 'Valid values are the integers from 1 to 65536.'),
            ('template', 'The value is the name of a table, with its schema '
                         || 'unless it is in the search path.') $$,
  'bad values of table options have a hint that says what is valid');
SELECT results_eq($$ SELECT name, value, state, message FROM bad_values,
    error_of(format('CREATE SERVER bad FOREIGN DATA WRAPPER shard_fdw
                     OPTIONS (%I %L)', name, value))
    WHERE name IN ('route', 'batch_size') ORDER BY name, value $$,
  $$ SELECT name, value, 'HV024',
            format('invalid value for option "%s": "%s"', name, value)
       FROM bad_values WHERE name IN ('route', 'batch_size')
      ORDER BY name, value $$,
  'bad values of server options');
SELECT results_eq($$ SELECT name, value, state FROM bad_values,
    error_of(format('ALTER FOREIGN TABLE every OPTIONS (SET %I %L)',
                    name, value))
    WHERE name IN ('route', 'batch_size', 'max_shards') ORDER BY name, value $$,
  $$ SELECT name, value, 'HV024' FROM bad_values
      WHERE name IN ('route', 'batch_size', 'max_shards')
      ORDER BY name, value $$,
  'bad values in ALTER FOREIGN TABLE');
SELECT is(options_of('every'),
  '{route=round_robin,batch_size=10,max_shards=3,shard_schema=public}',
  'bad values in ALTER FOREIGN TABLE change nothing');

SELECT is((SELECT count(*) FROM shard_fdw.list_shards('every')), 3::bigint,
  'bad values in ALTER FOREIGN TABLE, nor create shards');
SELECT results_eq($$ SELECT name, state
    FROM unnest(ARRAY['shards', 'batch_size', 'max_shards']) name,
         error_of(format('CREATE FOREIGN TABLE bad (id int) SERVER shards
                          OPTIONS (%I ''1.5'')', name)) $$,
  $$ VALUES ('shards', 'HV024'), ('batch_size', 'HV024'),
            ('max_shards', 'HV024') $$,
  'a fraction is not an integer');
CREATE FOREIGN TABLE zeros (id int) SERVER shards OPTIONS (shards '010');
SELECT is((SELECT count(*) FROM shard_fdw.list_shards('zeros')), 10::bigint,
  'a number with a leading zero is decimal');

CREATE TABLE good_values (options text, shards bigint);
INSERT INTO good_values VALUES
  ('shards ''1'', max_shards ''1''', 1), ('max_shards ''65536''', 0),
  ('batch_size ''1''', 0), ('batch_size ''100000''', 0),
  ('route ''session''', 0), ('route ''round_robin''', 0),
  ('shards ''2'', template ''"template"''', 2),
  ('shards ''2'', template ''Public . Template''', 2),
  ('template ''template'', shards ''2''', 2);
CREATE FUNCTION made_with(options text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  result bigint;
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE good (id int) SERVER shards
                  OPTIONS (%s)', options);
  SELECT count(*) INTO result FROM shard_fdw.list_shards('good');
  DROP FOREIGN TABLE good CASCADE;
  RETURN result;
END $$;
SELECT results_eq('SELECT options, made_with(options) FROM good_values',
  'SELECT options, shards FROM good_values', 'good values, up to the limits');

-- values that do not fit together

SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER shards
     OPTIONS (template ''template'')', 'HV024', 'option "template" requires option "shards"',
  hint => 'The template is what the new shards are copied from; '
             || 'say how many to create.', title => 'a template without shards');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER shards
     OPTIONS (shards ''5'', max_shards ''4'')', 'HV024',
  'option "shards" (5) is greater than option "max_shards" (4)',
  title => 'more shards than max_shards');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER shards
     OPTIONS (shards ''1025'')', 'HV024',
  'option "shards" (1025) is greater than '
                      || 'option "max_shards" (1024)',
  title => 'more shards than max_shards is without being given');
SELECT fails('ALTER FOREIGN TABLE every OPTIONS (ADD template ''template'')', 'HV024',
  title => 'ALTER FOREIGN TABLE cannot give a template');

--
-- Servers have defaults for tables
--

CREATE SERVER defaults FOREIGN DATA WRAPPER shard_fdw;
CREATE FOREIGN TABLE plain (id int) SERVER defaults OPTIONS (shards '3');
CREATE FOREIGN TABLE own (id int) SERVER defaults
OPTIONS (shards '3', route 'session', batch_size '7');
PREPARE insert_plain AS INSERT INTO plain SELECT generate_series(1, 3);
PREPARE insert_own AS INSERT INTO own SELECT generate_series(1, 3);
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT is(spread('plain', 3), 1::bigint, 'the built-in route is session');
SELECT is(explained('INSERT INTO plain VALUES (1), (2)', 'Route'), 'session',
  'the built-in route is session: EXPLAIN agrees');
SELECT is(explained('INSERT INTO plain VALUES (1), (2)', 'Batch Size'), '1000',
  'the built-in batch_size is 1000');
EXECUTE insert_plain;
EXECUTE insert_own;

ALTER SERVER defaults OPTIONS (ADD route 'round_robin', ADD batch_size '5');
SELECT is(spread('plain', 3), 3::bigint,
  'ALTER SERVER ... ADD route works at the next insert');
SELECT is(explained('INSERT INTO plain VALUES (1), (2)', 'Route'),
  'round_robin', 'ALTER SERVER ... ADD route works at the next insert: EXPLAIN agrees');
SELECT is(explained('INSERT INTO plain VALUES (1), (2)', 'Batch Size'), '5',
  'ALTER SERVER ... ADD route works at the next insert, as does batch_size');
SELECT is(spread('own', 3), 1::bigint, 'options of the table go first');
SELECT is(explained('INSERT INTO own VALUES (1), (2)', 'Batch Size'), '7',
  'options of the table go first, all of them');
TRUNCATE plain, own;
EXECUTE insert_plain;
EXECUTE insert_own;
SELECT results_eq('SELECT (SELECT count(DISTINCT tableoid) FROM plain),
                          (SELECT count(DISTINCT tableoid) FROM own)',
  'VALUES (3::bigint, 1::bigint)',
  'a statement prepared before follows the new route');
CREATE FOREIGN TABLE later (id int) SERVER defaults OPTIONS (shards '3');
SELECT is(spread('later', 3), 3::bigint, 'a new table has the server''s route');
SELECT is(options_of('later'), NULL, 'a new table has the server''s route, without a copy of it');
ALTER SERVER defaults OPTIONS (SET route 'session');
SELECT is(spread('later', 3), 1::bigint, 'ALTER SERVER ... SET route');
SELECT fails('ALTER SERVER defaults OPTIONS (SET route ''hashed'')', 'HV024',
  title => 'ALTER SERVER ... SET route to a route that does not exist');
SELECT is(spread('later', 3), 1::bigint,
  'ALTER SERVER ... SET route to a route that does not exist changes nothing');
ALTER SERVER defaults OPTIONS (SET route 'round_robin');
SAVEPOINT altered;
ALTER SERVER defaults OPTIONS (DROP route, DROP batch_size);
SELECT is(spread('later', 3), 1::bigint,
  'ALTER SERVER ... DROP route: the built-in one is back');
SELECT is(explained('INSERT INTO later VALUES (1), (2)', 'Batch Size'), '1000',
  'ALTER SERVER ... DROP batch_size: the built-in one is back');
ROLLBACK TO altered;
SELECT is(spread('later', 3), 3::bigint, 'ALTER SERVER is rolled back');
SELECT is(explained('INSERT INTO later VALUES (1), (2)', 'Batch Size'), '5',
  'ALTER SERVER is rolled back, all of it');

--
-- ALTER FOREIGN TABLE
--

CREATE FOREIGN TABLE alt (id int) SERVER shards OPTIONS (shards '3');
SELECT is(spread('alt', 3), 1::bigint, 'a table without options of its own');
ALTER FOREIGN TABLE alt OPTIONS (ADD route 'round_robin', ADD batch_size '2');
SELECT is(spread('alt', 3), 3::bigint,
  'ALTER FOREIGN TABLE ... ADD route works at the next insert');
SELECT is(explained('INSERT INTO alt VALUES (1), (2)', 'Batch Size'), '2',
  'ALTER FOREIGN TABLE ... ADD route works at the next insert, as does batch_size');
SELECT is(spread('alt', 9), 3::bigint, 'several batches');
SELECT results_eq('SELECT id FROM alt ORDER BY 1',
  'SELECT generate_series(1, 9)', 'several batches, with all the rows');
ALTER TABLE alt OPTIONS (SET route 'session', SET batch_size '1');
SELECT is(spread('alt', 9), 1::bigint, 'ALTER TABLE ... SET route');
SELECT is(explained('INSERT INTO alt VALUES (1), (2)', 'Batch Size'), '1',
  'ALTER TABLE ... SET route, and batch_size');
ALTER FOREIGN TABLE alt
  OPTIONS (SET route 'round_robin', SET batch_size '100000');
DO $$
DECLARE
  nshards int[];
BEGIN
  TRUNCATE alt;
  FOR i IN 1..6 LOOP
    INSERT INTO alt VALUES (i);
    IF i = 3 THEN
      nshards := nshards || (SELECT count(DISTINCT tableoid)::int FROM alt);
      ALTER FOREIGN TABLE alt OPTIONS (SET route 'session');
      TRUNCATE alt;
    END IF;
  END LOOP;
  nshards := nshards || (SELECT count(DISTINCT tableoid)::int FROM alt);
  PERFORM set_config('test.nshards', nshards::text, true);
END $$;
SELECT is(current_setting('test.nshards'), '{3,1}',
  'the route changes between two runs of a statement in PL/pgSQL');
SAVEPOINT altered;
ALTER FOREIGN TABLE alt OPTIONS (DROP route, ADD max_shards '3');
SELECT is(spread('alt', 3), 1::bigint, 'ALTER FOREIGN TABLE ... DROP route');
SELECT fails($$ SELECT shard_fdw.create_shards('alt', 1) $$, '54000',
  title => 'ALTER FOREIGN TABLE ... ADD max_shards');
ALTER FOREIGN TABLE alt OPTIONS (ADD route 'round_robin');
ROLLBACK TO altered;
SELECT is(spread('alt', 3), 1::bigint, 'ALTER FOREIGN TABLE is rolled back');
SELECT is(options_of('alt'), '{route=session,batch_size=100000}',
  'ALTER FOREIGN TABLE is rolled back, all of it');
SELECT is((SELECT count(*) FROM shard_fdw.create_shards('alt', 1)), 1::bigint,
  'ALTER FOREIGN TABLE is rolled back: max_shards, too');

-- the same rows whatever the batch size

CREATE TABLE expected AS SELECT g AS id FROM generate_series(1, 2500) g;
CREATE FUNCTION same_rows(batch_size text, route text) RETURNS bool
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER FOREIGN TABLE alt
                  OPTIONS (SET route %L, SET batch_size %L)',
                 route, batch_size);
  TRUNCATE alt;
  INSERT INTO alt SELECT id FROM expected;
  RETURN NOT EXISTS (TABLE alt EXCEPT ALL TABLE expected)
     AND NOT EXISTS (TABLE expected EXCEPT ALL TABLE alt);
END $$;
SELECT ok(same_rows(batch_size, route),
          format('batch_size %s, route %s: the same rows', batch_size, route))
  FROM unnest(ARRAY['1', '2', '999', '2500', '100000']) batch_size,
       unnest(ARRAY['session', 'round_robin']) route;

-- another wrapper with our functions has our options

CREATE FOREIGN DATA WRAPPER ours HANDLER shard_fdw.shard_fdw_handler
  VALIDATOR shard_fdw.shard_fdw_validator;
CREATE SERVER ours FOREIGN DATA WRAPPER ours OPTIONS (route 'round_robin');
CREATE FOREIGN TABLE elsewhere (id int) SERVER ours OPTIONS (shards '2');
SELECT is(spread('elsewhere', 2), 2::bigint, 'a second wrapper works the same');
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER ours OPTIONS (no_such ''x'')', 'HV00D',
  title => 'a second wrapper works the same, and knows the same options');

--
-- A wrapper without the validator, which takes any options
--

CREATE FOREIGN DATA WRAPPER loose HANDLER shard_fdw.shard_fdw_handler OPTIONS (anything 'goes');
CREATE SERVER loose FOREIGN DATA WRAPPER loose;
CREATE FOREIGN TABLE unchecked (id int, v text) SERVER loose OPTIONS (shards '4', route 'hash',
  key 'id');
INSERT INTO unchecked SELECT g, g FROM generate_series(1, 100) g;
SELECT is((SELECT count(*) FROM unchecked WHERE id IN (1, 2, 3)), 3::bigint,
  'good options do what they do');

CREATE TABLE bad (name text, value text, hint text);
INSERT INTO bad VALUES
  ('nonsense', '1', 'Valid options in this context are: %'),
  ('route', 'nowhere', 'Valid values are: %'), ('route', '', 'Valid values are: %'),
  ('batch_size', '0', 'Valid values are the integers from 1 to 100000.'),
    ('batch_size', '', 'Valid values are the integers%'),
  ('batch_size', '99999999999999999999', 'Valid values are the integers%'),
    ('batch_size', repeat('9', 100000), 'Valid values are the integers%'),
  ('commit_order', 'maybe', 'Valid values are: true, false.');
CREATE TABLE bad_of_table AS SELECT * FROM bad;
INSERT INTO bad_of_table VALUES
  ('max_shards', '0', 'Valid values are the integers from 1 to 65536.'),
    ('max_shards', '-3', 'Valid values are the integers%'),
      ('max_shards', 'many', 'Valid values are the integers%'),
  ('key', '', 'The value is a list of%'), ('key', 'id, id', 'The value is a list of%'),
    ('key', 'id,,v', 'The value is a list of%'), ('key', '"id', 'The value is a list of%'),
  ('key', (SELECT string_agg('c' || g, ',') FROM generate_series(1, 33) g),
    'The value is a list of up to 32 different column names%'),
  ('shards', '-1', 'Valid values are the integers%'),
    ('template', 'a..b', 'The value is the name of a table%');
SELECT is((SELECT (e.state LIKE 'HV0%' AND e.hint LIKE b.hint)::text
             FROM error_of(format('CREATE FOREIGN TABLE worse (id int) SERVER loose OPTIONS (%s %L)', b.name, b.value)) e),
          'true', format('CREATE FOREIGN TABLE with %s %s', b.name, left(b.value, 30)))
  FROM bad_of_table b;
SELECT is((SELECT (e.state LIKE 'HV0%' AND e.hint LIKE b.hint)::text
             FROM error_of(format('ALTER FOREIGN TABLE unchecked OPTIONS (%s %s %L)',
                 CASE WHEN b.name IN ('route', 'key') THEN 'SET' ELSE 'ADD' END, b.name,
                 b.value)) e),
          'true', format('ALTER FOREIGN TABLE with %s %s', b.name, left(b.value, 30)))
  FROM bad_of_table b;
SELECT is((SELECT (e.state LIKE 'HV0%' AND e.hint LIKE b.hint)::text
             FROM error_of(format('CREATE FOREIGN TABLE worse (id bigint OPTIONS (%s %L)) SERVER '
                                  'loose', b.name, b.value)) e),
          'true', format('a column with %s %s', b.name, left(b.value, 30)))
  FROM (VALUES ('sequence', 'sometimes', 'Valid values are: always, by_default.'),
    ('sequence', '', 'Valid values are: %'),
               ('column_name', 'x', 'Valid options in this context are: %')) b(name, value, hint);

-- No event trigger looks at servers; then it is who inserts that is told, and
-- nobody else is troubled.
CREATE FUNCTION with_server_option(name text, value text, command text, OUT state text,
  OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER SERVER loose OPTIONS (ADD %s %L)', name, value);
  EXECUTE command;
  RAISE SQLSTATE 'OK000';
EXCEPTION
  WHEN SQLSTATE 'OK000' THEN NULL;
  WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
    hint = PG_EXCEPTION_HINT;
END $$;
CREATE TABLE plain_unchecked AS SELECT * FROM unchecked;
SELECT is((SELECT (e.state LIKE 'HV0%' AND e.hint LIKE b.hint)::text FROM with_server_option(b.name,
      b.value, command) e), 'true',
          format('a server with %s %s: %s', b.name, left(b.value, 30), command))
  FROM (SELECT * FROM bad UNION ALL VALUES ('key', 'id', 'Valid options in this context are: %'),
    ('shards', '2', 'Valid options in this context are: %')) b,
       (VALUES ('INSERT INTO unchecked VALUES (101)'),
         ('COPY unchecked FROM PROGRAM ''echo 1,2'' (FORMAT csv)'),
               ('SELECT shard_fdw.create_shards(''unchecked'', 1)'),
               ('CREATE FOREIGN TABLE worse (id int) SERVER loose')) c(command);
SELECT is((SELECT e.state FROM with_server_option(b.name, b.value, command) e), NULL,
  format('a server with %s %s: %s', b.name, left(b.value, 30), command))
  FROM bad b,
       (VALUES ('SELECT count(*) FROM shard_fdw.shards'),
         ('SELECT count(*) FROM shard_fdw.consumers'), ('SELECT count(*) FROM shard_fdw.leases'),
               ('SELECT 1/(SELECT (count(*) = 4)::int FROM shard_fdw.list_shards(''unchecked''))'),
               ('SELECT 1/(count(*) = 100)::int FROM unchecked'),
               ('SELECT 1/(count(*) = 1)::int FROM unchecked WHERE id = 42'),
               ('UPDATE unchecked SET v = v'), ('DELETE FROM unchecked'),
               ('DROP FOREIGN TABLE unchecked CASCADE'),
               ('INSERT INTO every VALUES (4711)')) c(command);

SELECT * FROM finish();
ROLLBACK;
