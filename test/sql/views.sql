-- The views are for everybody: nothing that the owner of a table does makes
-- them fail for others.  Locks are in test/t/views.t.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA views_test;
GRANT ALL ON SCHEMA views_test TO PUBLIC;
SET LOCAL search_path = views_test, public;

\ir helpers.psql

-- What comes of all views for a role: a line for each that fails.
CREATE FUNCTION failing_views(role text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  command text;
BEGIN
  FOR command IN SELECT format('SELECT v::text FROM shard_fdw.%I v', relname) FROM pg_class
                  WHERE relnamespace = 'shard_fdw'::regnamespace AND relkind = 'v' LOOP
    BEGIN
      PERFORM set_config('role', role, true);
      EXECUTE command;
      PERFORM set_config('role', 'none', true);
    EXCEPTION WHEN OTHERS THEN
      RETURN NEXT role || ': ' || command || ': ' || SQLERRM;
    END;
  END LOOP;
END $$;
CREATE FUNCTION failing_views() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(v, E'\n') FROM unnest('{postgres,shard_user,shard_reader}'::text[]) role,
  failing_views(role) v
$$;

--
-- Constraints and defaults that nobody but their table's owner should meet
--

CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
SET LOCAL ROLE shard_user;
CREATE FUNCTION failing(int) RETURNS bool IMMUTABLE
  LANGUAGE plpgsql AS 'BEGIN RAISE ''the owner''''s function has run''; END';
CREATE DOMAIN nasty AS bool CHECK (failing(1));
CREATE FOREIGN TABLE nasty_table (id bigint OPTIONS (sequence 'by_default'), k int, b bool)
  SERVER shards
  OPTIONS (shards '2', commit_order 'true');
SELECT shard_fdw.register_consumer('nasty_table', 'c', 'id');
CREATE TABLE nasty_checks (expression text, state text, title text);
INSERT INTO nasty_checks VALUES
  -- what cannot be evaluated
  ('ARRAY[''{1,2}''::int[], ''{1}''::int[]] IS NOT NULL', 'open'),
  ('(1 / 0) IS NULL', 'open'), ('1 / 0 = 1', 'open'), ('''a'' ~ ''(''', 'open'),
    ('2147483647 + 1 > 0', 'open'),
  ('ROW(1, NULL) IS NULL', 'open'),
  ('CASE WHEN true THEN false END', 'open'), ('COALESCE(false, true)', 'open'),
    ('1 IN (2, 3)', 'open'), ('1 IS DISTINCT FROM 1', 'open'),
  ('''x'' > ''y''', 'open'), ('1.5 > 2', 'open'), ('date ''infinity'' - date ''2000-01-01'' > 1',
    'open'), ('pg_sleep(1000) IS NULL', 'open'),
  ('failing(1)', 'open'), ('failing(1) AND k > 1', 'open'), ('false::nasty', 'open'),
    ('1 OPERATOR(views_test.===) 1', 'open'), ('NOT 1 OPERATOR(views_test.===) 1', 'open'),
  ('repeat(''x'', 1000000000) IS NULL', 'open'), ('current_setting(''nothing'') = ''x''', 'open'),
    ('XMLPARSE(DOCUMENT ''<'') IS NULL', 'open'),
  ('shard_fdw.in_hash(0, 0, k)', 'open'), ('shard_fdw.in_hash(2147483647, 5, k)', 'open'),
    ('shard_fdw.in_hash(2, 1, 1)', 'open'), ('shard_fdw.in_slot(0, -1, id)', 'open'),
  ('shard_fdw.in_hash(NULL, NULL, k)', 'open'), ('shard_fdw.in_hash(1, 0, NULL::text)', 'open'),
  -- what is known
  ('false', 'sealed'), ('1 = 0', 'sealed'), ('NULL IS NOT NULL', 'sealed'), ('NOT true', 'sealed'),
    ('1 <> 1', 'sealed'), ('int2 ''1'' > int8 ''2''', 'sealed'),
  ('2 <= int2 ''1''', 'sealed'), ('1 >= 2', 'sealed'), ('2 < 1', 'sealed'),
    ('true = false', 'sealed'), ('true <> true', 'sealed'), ('false > false', 'sealed'),
  ('9223372036854775807 < -9223372036854775808', 'sealed'), ('NULL::int IS NOT NULL', 'sealed'),
    ('1 IS NULL', 'sealed'), ('''x''::varchar::text IS NULL', 'sealed'),
  ('false AND k > 0', 'sealed'), ('k > 0 AND failing(1) AND 1 = 2', 'sealed'),
    ('NOT (k > 0 OR true)', 'sealed'), ('false OR (NULL AND false)', 'sealed'),
  ('true IS FALSE', 'sealed'), ('false IS TRUE', 'sealed'), ('(1 = 1) IS NOT TRUE', 'sealed'),
    ('(1 = 2) IS NOT FALSE', 'sealed'),
  ('NULL::bool IS TRUE', 'sealed'), ('NULL::bool IS NOT UNKNOWN', 'sealed'),
    ('true IS UNKNOWN', 'sealed'),
  ('NULL::bool', 'open'), ('1 = NULL', 'open'), ('NULL::bool AND true', 'open'),
    ('NULL::bool OR false', 'open'), ('NOT NULL::bool', 'open'), ('true', 'open'),
      ('0 = 0', 'open'),
  ('b', 'open'), ('b AND NOT b', 'open'), ('k IS NULL', 'open'), ('b IS UNKNOWN', 'open'),
    ('k = 1', 'open'), ('false OR b', 'open'), ('true AND b', 'open'),
  ('(NULL::bool OR b) AND true', 'open'), ('2 > 1', 'open'), ('true > false', 'open'),
    ('1 < 9223372036854775807', 'open'), ('NULL::bool IS UNKNOWN', 'open');
-- Long and deep ones, which cannot be read with the stack that there is.
INSERT INTO nasty_checks SELECT string_agg('k = ' || g, ' OR '), 'open', 'a long constraint'
  FROM generate_series(1, 5000) g;
INSERT INTO nasty_checks SELECT repeat('(false OR ', n) || 'false' || repeat(')', n),
  CASE WHEN n < 100 THEN 'sealed' ELSE 'open' END, 'a constraint of depth ' || n
  FROM unnest('{4,40,400,1000,1500,2000}'::int[]) n;
INSERT INTO nasty_checks SELECT repeat('NOT ', n) || 'false', 'open', n || ' times NOT'
  FROM unnest('{1001,2001,4001}'::int[]) n;
INSERT INTO nasty_checks SELECT '1' || repeat(' + k', n) || ' = 1', 'open', 'a sum of ' || n
  FROM unnest('{100,1000,2000,3000,4000}'::int[]) n;
RESET ROLE;

-- The state of a shard with such a constraint, and the views meanwhile.
CREATE FUNCTION with_check(expression text, wanted text, title text) RETURNS SETOF text
  LANGUAGE plpgsql AS $$
DECLARE
  command text := format('ALTER TABLE nasty_table_1 ADD CONSTRAINT nasty CHECK (%s) NOT VALID',
    expression);
  error text;
BEGIN
  SET LOCAL ROLE shard_user;
  error := (error_of(command)).message;
  SET LOCAL ROLE none;
  -- Not every depth can be written down.
  IF error ~ 'stack depth' THEN
    RETURN NEXT pass('no stack for ' || title);
    RETURN;
  END IF;
  RETURN NEXT is(error, NULL, 'CHECK: ' || title);
  RETURN NEXT is((SELECT state FROM shard_fdw.list_shards('nasty_table')
      WHERE shard = 'nasty_table_1'::regclass), wanted,
    title || ': the shard is ' || wanted);
  RETURN NEXT is((SELECT string_agg(v, E'\n') FROM failing_views('shard_reader') v), NULL,
    title || ': the views work');
  ALTER TABLE nasty_table_1 DROP CONSTRAINT IF EXISTS nasty;
END $$;
SELECT with_check(expression, state, coalesce(title, expression)) FROM nasty_checks;

SELECT is(failing_views(), NULL, 'afterwards the views work for all');

-- Defaults that cannot be read, or draw from what is no sequence.
CREATE FUNCTION with_default(expression text, title text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  error text;
BEGIN
  SET LOCAL ROLE shard_user;
  error := (error_of(format('ALTER TABLE nasty_table_1 ALTER id SET DEFAULT %s',
        expression))).message;
  SET LOCAL ROLE none;
  IF error ~ 'stack depth' THEN
    RETURN NEXT pass('no stack for ' || title);
    RETURN;
  END IF;
  RETURN NEXT is(error, NULL, 'DEFAULT: ' || title);
  RETURN NEXT is(failing_views(), NULL, title || ': the views work');
END $$;
SELECT with_default(expression, left(expression, 40))
  FROM (VALUES ('nextval(''nasty_table''::regclass)'), ('nextval(NULL)'), ('nextval(0)'),
    ('nextval(4294967295::oid)'),
  ('1 / 0'), ('failing(1)::int'), ('nextval(''pg_class''::regclass)'),
  (repeat('(1 + ', 1500) || '1' || repeat(')', 1500)), (repeat('- ', 3000) || '1'),
  (format('length(%L)', repeat('x', 100000)))) t(expression);

-- Options that no validator of ours has seen, and other wrappers.
SAVEPOINT validator;
ALTER FOREIGN DATA WRAPPER shard_fdw NO VALIDATOR;
ALTER SERVER shards OPTIONS (ADD route 'nonsense', ADD batch_size '-1');
SELECT fails('INSERT INTO nasty_table (k) VALUES (1)', 'HV024',
  title => 'options that make no sense');
SELECT is(failing_views(), NULL, 'options that make no sense are no matter for the views');
SELECT is((SELECT count(*) FROM shard_fdw.shards WHERE logical = 'nasty_table'::regclass),
  2::bigint, 'options that make no sense, which show the shards');
ROLLBACK TO validator;
CREATE FUNCTION gone_handler() RETURNS fdw_handler LANGUAGE c AS '$libdir/shard_fdw',
  'shard_fdw_handler';
UPDATE pg_proc SET probin = '$libdir/gone', prosrc = 'gone_handler' WHERE proname = 'gone_handler';
CREATE FOREIGN DATA WRAPPER gone HANDLER gone_handler;
CREATE SERVER gone FOREIGN DATA WRAPPER gone;
CREATE FOREIGN DATA WRAPPER none;
CREATE SERVER none FOREIGN DATA WRAPPER none;
CREATE TABLE with_gone (id serial PRIMARY KEY);
INSERT INTO with_gone DEFAULT VALUES;
CREATE FOREIGN TABLE gone () INHERITS (with_gone) SERVER gone;
CREATE FOREIGN TABLE none (id int) SERVER none;
CREATE TABLE shard_of_none () INHERITS (none);
SELECT is(failing_views(), NULL, 'foreign tables whose wrapper cannot be loaded');
SELECT results_eq($$ SELECT last_value, maximum, collides FROM shard_fdw.sequences
    WHERE sequence = 'with_gone_id_seq'::regclass AND tbl = 'with_gone'::regclass $$,
  'VALUES (1::bigint, NULL::bigint, NULL::bool)',
  'foreign tables whose wrapper cannot be loaded have rows that nobody looks at');
DROP TABLE with_gone CASCADE;

--
-- What a plan costs: below the cost of compiling it, whatever is known of the tables
--

CREATE FUNCTION plan_cost(query text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
  RETURN plan->0->'Plan'->>'Total Cost';
END $$;
SELECT cmp_ok(plan_cost(format('SELECT * FROM shard_fdw.%I', relname)), '<',
  current_setting('jit_above_cost')::numeric / 4, 'a plan of view ' || relname) FROM pg_class
 WHERE relnamespace = 'shard_fdw'::regnamespace AND relkind = 'v' ORDER BY relname;

-- In order, whatever the plan is; asking for one table, or for no sizes, does not cost what all of
-- it does.
CREATE FOREIGN TABLE ordered (id int) SERVER shards OPTIONS (shards '12');
SELECT is((SELECT array_agg(ordinal) FROM (SELECT ordinal FROM shard_fdw.shards
      WHERE logical = 'ordered'::regclass) s), ARRAY(SELECT generate_series(0, 11)),
  'shards are in order');
CREATE FUNCTION plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  plan json;
BEGIN
  EXECUTE 'EXPLAIN (VERBOSE, FORMAT JSON) ' || query INTO plan;
  RETURN plan::text;
END $$;
SELECT doesnt_match(plan_of('SELECT count(*) FROM shard_fdw.shards'), 'table_bytes',
  'no sizes if nobody asks');
SELECT matches(plan_of('SELECT * FROM shard_fdw.shards WHERE logical = ''ordered''::regclass'),
  'ft\.ftrelid = ''\d+''::oid', 'one table if one is asked for');

--
-- Greatest ids, without any function of the owner's
--

CREATE TABLE traces (what text);
GRANT ALL ON traces TO PUBLIC;
CREATE FUNCTION leave_trace(what text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO views_test.traces VALUES (what);
  RETURN 1;
END $$;
CREATE FUNCTION trace(what text) RETURNS int
  LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN views_test.leave_trace(what); END $$;
-- A table too large to be read from end to end, and what is found in it; compared with max(),
-- which may run the functions.
CREATE FUNCTION make_table(definition text, rows int DEFAULT 3000) RETURNS regclass
  LANGUAGE plpgsql AS $$
BEGIN
  DROP TABLE IF EXISTS looked_at CASCADE;
  EXECUTE 'CREATE TABLE looked_at ' || definition;
  INSERT INTO looked_at (id, fill) SELECT g, repeat('x', 400) FROM generate_series(1, rows) g;
  RETURN 'looked_at';
END $$;
CREATE FUNCTION found_maximum(commands text DEFAULT '') RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  result bigint;
BEGIN
  EXECUTE commands;
  DELETE FROM traces;
  result := shard_fdw.column_maximum('looked_at', 'id');
  IF EXISTS (SELECT FROM traces) THEN
    RAISE 'the owner''s function has run';
  END IF;
  IF result <> (SELECT max(id) FROM looked_at) THEN
    RAISE 'wrong maximum: %', result;
  END IF;
  RETURN result;
END $$;
CREATE FUNCTION trace_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT is(CASE WHEN make_table(definition) IS NOT NULL THEN found_maximum(commands) END,
  wanted::bigint, definition || ' ' || commands)
  FROM (VALUES ('(id int, fill text)', '', NULL),
               ('(id int PRIMARY KEY, fill text)', '', 3000),
               ('(id int2 PRIMARY KEY, fill text)', '', 3000),
               ('(id int8 UNIQUE, fill text)',
                 'INSERT INTO looked_at VALUES (NULL), (NULL), (9223372036854775807)',
                 9223372036854775807),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id DESC); INSERT INTO looked_at VALUES (NULL)', 3000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id DESC NULLS LAST); INSERT INTO looked_at VALUES '
                 '(NULL)', 3000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id NULLS FIRST, fill); INSERT INTO looked_at VALUES '
                 '(NULL)', 3000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); UPDATE looked_at SET id = NULL', NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at (id); DELETE FROM looked_at',
                 NULL),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); DELETE FROM looked_at WHERE id > 20', 20),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); UPDATE looked_at SET id = -id', -1),
               ('(dropped text, id int8, fill text)',
                 'ALTER TABLE looked_at DROP dropped; CREATE INDEX ON looked_at (id); UPDATE '
                 'looked_at SET fill = NULL', 3000),
               ('(id int8, fill text)',
                 'ALTER TABLE looked_at RENAME id TO other; ALTER TABLE looked_at ADD id int8 '
                 'DEFAULT 5; CREATE INDEX ON looked_at (id)', 5),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at (fill, id)', NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at (id) WHERE id > 5', NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at ((id + 1))', NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at USING hash (id)', NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at USING brin (id)', NULL),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id) WHERE trace(''predicate'') = 1', NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at (trace(''expression'' || id))',
                 NULL),
               ('(id int8, fill text)', 'CREATE INDEX ON looked_at (id, (trace(''second'' || id)))',
                 3000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); ALTER TABLE looked_at ADD CHECK '
                 '(trace(''check'') = id) NOT VALID', 3000),
               ('(id int8, fill text, more int GENERATED ALWAYS AS (trace(''generated'')) STORED)',
                 'CREATE INDEX ON looked_at (id)', 3000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); CREATE TABLE child (UNIQUE (id)) INHERITS '
                 '(looked_at); INSERT INTO child VALUES (5000)', 5000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); CREATE TABLE child () INHERITS (looked_at); '
                 'INSERT INTO child VALUES (5000)', 5000),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); CREATE TABLE child () INHERITS (looked_at); '
                 'INSERT INTO child SELECT g, repeat(''x'', 1000) FROM generate_series(1, 2000) g',
                 NULL),
               ('(id int8, fill text)',
                 'CREATE INDEX ON looked_at (id); CREATE FOREIGN TABLE child () INHERITS '
                 '(looked_at) SERVER shards OPTIONS (shards ''2''); INSERT INTO child SELECT 6000',
                 6000),
               ('(id int8, fill text) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF '
                'looked_at FOR VALUES FROM (0) TO (1000000)', 'CREATE INDEX ON looked_at (id)',
                3000),
               ('(id numeric, fill text)', 'CREATE INDEX ON looked_at (id)',
                 NULL)) t(definition, commands, wanted);
-- An index that is not valid.
SELECT make_table('(id int8 UNIQUE, fill text)');
UPDATE pg_index SET indisvalid = false WHERE indrelid = 'looked_at'::regclass;
SELECT is(shard_fdw.column_maximum('looked_at', 'id'), NULL, 'an index that is not valid');
SELECT make_table('(id int8 UNIQUE, fill text)');
SAVEPOINT gone_child;
CREATE FOREIGN TABLE child () INHERITS (looked_at) SERVER none;
SELECT is(shard_fdw.column_maximum('looked_at', 'id'), NULL, 'a foreign table below');
ROLLBACK TO gone_child;
SELECT make_table('(id int8, fill text)', 20);
SELECT is(found_maximum(), 20::bigint, 'a small table is read');
SELECT is(shard_fdw.column_maximum('looked_at', column_name), NULL, 'no maximum of ' || column_name)
  FROM unnest('{fill,tableoid,ctid,none}'::name[]) column_name;
SELECT is(shard_fdw.column_maximum(relid, 'id'), NULL, 'nor of what is no table')
  FROM unnest('{0,4294967295}'::oid[]) relid;
CREATE TEMP TABLE temporary (id serial PRIMARY KEY);
INSERT INTO temporary DEFAULT VALUES;
SELECT is((SELECT maximum FROM shard_fdw.sequences WHERE tbl = 'temporary'::regclass), 1::bigint,
  'a temporary table of one''s own');
-- Other access methods.
CREATE ACCESS METHOD like_heap TYPE TABLE HANDLER heap_tableam_handler;
SELECT make_table('(id int8, fill text) USING like_heap', 20);
SELECT is(found_maximum(), 20::bigint, 'another name of heap');

-- Where sequences are.
CREATE SEQUENCE s;
CREATE FUNCTION pos() RETURNS text LANGUAGE sql AS $$ SELECT p::text
  FROM shard_fdw.sequence_position('s') p $$;
SELECT is(pos(), '(,1)', 'a new sequence');
SELECT nextval('s'), nextval('s');
SELECT is(pos(), '(2,3)', 'a new sequence that has been used');
SELECT setval('s', 40, false);
SELECT is(pos(), '(,40)', 'a new sequence that has been set');
SELECT setval('s', 40);
SELECT is(pos(), '(40,41)', 'a new sequence, or has given that');
ALTER SEQUENCE s INCREMENT -7 MINVALUE -100;
SELECT is(pos(), '(40,33)', 'a new sequence, and goes down');
ALTER SEQUENCE s INCREMENT 1 MAXVALUE 9223372036854775807 RESTART 9223372036854775807;
SELECT nextval('s');
SELECT is(pos(), '(9223372036854775807,)', 'a new sequence, to its end');
SELECT is((SELECT p::text FROM shard_fdw.sequence_position(relid) p), '(,)', 'no sequence')
  FROM unnest('{pg_class,looked_at}'::regclass[] || 0::regclass) relid;
SET LOCAL ROLE shard_reader;
SELECT is(pos(), '(,)', 'who has no right on it sees nothing');
RESET ROLE;
CREATE TABLE set_back (id serial PRIMARY KEY);
INSERT INTO set_back SELECT generate_series(1, 5);
SELECT setval('set_back_id_seq', 6, false);
SELECT is((SELECT collides FROM shard_fdw.sequences WHERE tbl = 'set_back'::regclass), false,
  'a sequence whose next value is free');
SELECT setval('set_back_id_seq', 5, false);
SELECT is((SELECT collides FROM shard_fdw.sequences WHERE tbl = 'set_back'::regclass), true,
  'a sequence whose next value is free, and one whose next value is not');

-- Rows behind.
CREATE TABLE behind_model (id bigint PRIMARY KEY, fill text);
CREATE FOREIGN TABLE behind (id bigint OPTIONS (sequence 'always'), fill text) SERVER shards
  OPTIONS (shards '2', max_shards '10', commit_order 'true', template 'views_test.behind_model');
SELECT shard_fdw.register_consumer('behind', 'c', 'id');
CREATE FUNCTION rows_behind() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(coalesce(rows_behind::text, '-'), ' ' ORDER BY shard::text)
    FROM shard_fdw.consumers WHERE logical = 'behind'::regclass $$;
SELECT is(rows_behind(), '0 0', 'no rows');
SET LOCAL shard_fdw.shard = 0;
INSERT INTO behind (fill) SELECT repeat('x', 400) FROM generate_series(1, 3000);
SELECT is(rows_behind(), '3000 0', 'nothing has been read');
SELECT count(*) FROM shard_fdw.read_batch(NULL::behind, 'c', 1000);
SELECT is(rows_behind(), '2000 0', 'some have');
DELETE FROM behind WHERE id > 20001;
SELECT is(rows_behind(), '1001 0', 'some are gone');
ALTER TABLE behind_0 DROP CONSTRAINT behind_0_pkey;
SELECT is(rows_behind(), '2000 0', 'without an index the sequence tells');
SELECT count(*) FROM shard_fdw.read_batch(NULL::behind, 'c', 1000);
SELECT is(rows_behind(), '1000 0', 'without an index the sequence tells, also then');
SELECT is(shard_fdw.rows_behind(logical, shard, 5), NULL, 'no shard of that table')
  FROM (VALUES ('behind'::regclass, 'set_back'::regclass), ('set_back', 'behind_0'),
    ('behind', NULL), (NULL, 'behind_0'), ('0', '0')) t(logical, shard);
RESET shard_fdw.shard;

--
-- Members of pg_monitor see numbers of tables that they may not read
--

CREATE ROLE views_monitor IN ROLE pg_monitor;
CREATE FUNCTION numbers(role text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  PERFORM set_config('role', role, true);
  SELECT string_agg(concat_ws(' ', coalesce(watermark::text, '-'), (last_read IS NOT NULL)::text,
      coalesce(rows_behind::text, '-')), ', ' ORDER BY shard::text) INTO result
    FROM shard_fdw.consumers WHERE logical = 'behind'::regclass;
  result := result || (SELECT format('; %s %s', count(bytes), bool_and(bytes > 0))
    FROM shard_fdw.shards WHERE logical = 'behind'::regclass)
    || (SELECT format('; %s %s', max(last_value), max(maximum)) FROM shard_fdw.sequences
      WHERE tbl = 'behind_0'::regclass);
  PERFORM set_config('role', 'none', true);
  RETURN result;
END $$;
SELECT is(numbers('views_monitor'), '19991 true 1000, - false 0; 2 t; 29991 ',
  'a member of pg_monitor');
SELECT is(numbers('shard_reader'), '- false -, - false -; 2 t;  ', 'somebody else');


--
-- View "tables"
--

CREATE FUNCTION seen(tbl regclass) RETURNS text LANGUAGE sql AS $$
  SELECT concat_ws('; ', route, key, time_column, concat_ws(' ', open, closed, sealed), prunes_by,
           on_conflict, why_not)
    FROM shard_fdw.tables WHERE logical = tbl
$$;
CREATE TABLE seen_template (k int, v text COLLATE "C", at date NOT NULL, id bigint,
                            PRIMARY KEY (v, k));
CREATE FOREIGN TABLE seen_plain (k int) SERVER shards OPTIONS (shards '2');
CREATE FOREIGN TABLE seen_timed (k int, v text COLLATE "C", at date NOT NULL,
                                 id bigint OPTIONS (sequence 'always'))
  SERVER shards OPTIONS (shards '3', route 'round_robin', time_column 'at',
                         template 'seen_template');
CREATE FOREIGN TABLE seen_hash (k int, v text COLLATE "C", at date NOT NULL, id bigint)
  SERVER shards OPTIONS (shards '3', route 'hash', key 'k, v', template 'seen_template');
CREATE FOREIGN TABLE seen_none (k int) SERVER shards OPTIONS (route 'hash', key 'k');

SELECT is(seen('seen_plain'), 'session; 2 0 0; f; route "session" has no key', 'route "session"');
SELECT is(seen('seen_timed'), 'round_robin; at; 3 0 0; {id,at}; f; route "round_robin" has no key',
  'a table with ids and a time column');
SELECT is(seen('seen_hash'), 'hash; k, v; 3 0 0; {"k, v"}; t', 'a hash table');
SELECT is(seen('seen_none'), 'hash; k; 0 0 0; f; there are no shards', 'no shards');
SELECT shard_fdw.close_shard('seen_timed_0'), shard_fdw.seal('seen_timed_1');
SELECT is(seen('seen_timed'), 'round_robin; at; 1 1 1; {id,at}; f; route "round_robin" has no key',
  'a closed shard and a sealed one');
ALTER SERVER shards OPTIONS (ADD route 'round_robin');
SELECT is(seen('seen_plain'), 'round_robin; 2 0 0; f; route "round_robin" has no key',
  'the route of the server');
ALTER SERVER shards OPTIONS (DROP route);
SELECT is(seen('seen_template'), NULL, 'no logical table');

-- It says what the commands do.  Each change is undone.
CREATE FUNCTION after(change text, OUT shown text, OUT error text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE change;
  shown := replace(seen('seen_hash'), 'hash; k, v; ', '');
  -- Rows for shard 1.
  error := (error_of('INSERT INTO seen_hash SELECT g, ''x'', ''2000-01-01''
                        FROM generate_series(1, 50) g
                       WHERE shard_fdw.in_hash(3, 1, g, ''x''::text COLLATE "C")
                      ON CONFLICT (k, v) DO NOTHING')).message;
  RAISE 'undo';
EXCEPTION WHEN raise_exception THEN
  NULL;
END $$;
SELECT is(a.shown || CASE WHEN (a.error IS NULL) = (a.shown ~ '; t$') THEN ''
                          ELSE '; but: ' || coalesce(a.error, 'no error') END,
    expected || coalesce('; ' || why_not, ''), change)
  FROM (VALUES
    ('SELECT 1', '3 0 0; {"k, v"}; t', NULL),
    ('SELECT shard_fdw.seal(''seen_hash_0'')', '2 0 1; {"k, v"}; t', NULL),
    ('DROP TABLE seen_hash_2', '2 0 0; {"k, v"}; t', NULL),
    ('CREATE TABLE below () INHERITS (seen_hash_2)', '3 0 0; {"k, v"}; f',
     'shard seen_hash_2 may have rows in tables that inherit from it'),
    ('CREATE TABLE more () INHERITS (seen_hash)', '4 0 0; {"k, v"}; f', 'shard more has no place'),
    ('CREATE TABLE more (CHECK (shard_fdw.in_hash(3, 1, k, v))) INHERITS (seen_hash)',
     '4 0 0; {"k, v"}; f', 'the places of shards overlap'),
    ('ALTER TABLE seen_hash_0 DROP CONSTRAINT shard_hash,
       ADD CHECK (shard_fdw.in_hash(3, 0, k, v)) NOT VALID',
     '3 0 0; {"k, v"}; f', 'shard seen_hash_0 has a place that is not validated')
  ) t(change, expected, why_not), LATERAL after(change) a;
SELECT is(a.shown || CASE WHEN (a.error IS NULL) = (a.shown ~ '; t$') THEN ''
                          ELSE '; but: ' || coalesce(a.error, 'no error') END,
    '3 0 0; {"k, v"}; ' || CASE WHEN is_good THEN 't'
      ELSE 'f; shard seen_hash_1 has no unique index that includes the key' END,
    'in place of the primary key: ' || index)
  FROM (VALUES
    ('SELECT 1', false),
    ('CREATE UNIQUE INDEX ON seen_hash_1 (k, v)', true),
    ('CREATE UNIQUE INDEX ON seen_hash_1 (k)', false),
    ('CREATE UNIQUE INDEX ON seen_hash_1 (k, v) WHERE k > 0', false),
    ('CREATE INDEX ON seen_hash_1 (k, v)', false),
    ('CREATE UNIQUE INDEX ON seen_hash_1 (k) INCLUDE (v)', false),
    ('ALTER TABLE seen_hash_1 ADD UNIQUE (k, v) DEFERRABLE', false)) t(index, is_good),
  LATERAL after('ALTER TABLE seen_hash_1 DROP CONSTRAINT seen_hash_1_pkey; ' || index) a;
-- Options that no validator has seen.
UPDATE pg_foreign_table SET ftoptions = '{route=hash,key=w}'
 WHERE ftrelid = 'seen_hash'::regclass;
SELECT is(seen('seen_hash'),
  'hash; w; 3 0 0; f; the columns that option "key" names cannot be a key', 'a bad key');
UPDATE pg_foreign_table SET ftoptions = '{route=hash}'
 WHERE ftrelid = 'seen_hash'::regclass;
SELECT is(seen('seen_hash'), 'hash; 3 0 0; f; option "key" is not given', 'no key');
UPDATE pg_foreign_table SET ftoptions = '{route=hash,"key=k, v"}'
 WHERE ftrelid = 'seen_hash'::regclass;

SELECT * FROM finish();
ROLLBACK;
