-- Views and functions that show shards, seal them, and work on them.
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT no_plan();

\ir helpers.psql

-- What a query returns to a role, row by row.
CREATE FUNCTION run_as(role text, query text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
  result record;
BEGIN
  PERFORM set_config('role', role, true);
  FOR result IN EXECUTE query LOOP
    RETURN NEXT result::text;
  END LOOP;
  PERFORM set_config('role', 'none', true);
END $$;

--
-- The extension's objects
--

-- Row types belong to their views, in some versions to the extension as well.
CREATE VIEW members AS
SELECT o.type, o.schema, o.identity, d.classid, d.objid,
       obj_description(d.objid, d.classid::regclass::text) AS comment
  FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) o
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'shard_fdw')
   AND o.type NOT LIKE 'type%';
SELECT bag_eq('SELECT DISTINCT type FROM members',
  $$ VALUES ('function'), ('procedure'), ('view'), ('table'), ('event trigger'),
            ('foreign-data wrapper') $$,
  'kinds of objects that the extension has');
SELECT is_empty('SELECT type, identity FROM members WHERE comment IS NULL',
  'all of them have a comment');
SELECT is_empty($$ SELECT type, identity FROM members
                    WHERE schema IS DISTINCT FROM 'shard_fdw'
                      AND type NOT IN ('event trigger',
                                       'foreign-data wrapper') $$,
  'all that can be in a schema are in shard_fdw');
SELECT is_empty($$ SELECT oid::regprocedure::text FROM pg_proc
                    WHERE pronamespace = 'shard_fdw'::regnamespace
                      AND oid NOT IN (SELECT objid FROM members)
                    UNION ALL
                   SELECT oid::regclass::text FROM pg_class
                    WHERE relnamespace = 'shard_fdw'::regnamespace AND relkind <> 'i'
                      AND oid NOT IN (SELECT objid FROM members) $$,
  'all in that schema belongs to the extension');
SELECT is_empty($$ SELECT identity FROM members
                    WHERE type = 'function' AND NOT
                          has_function_privilege('shard_reader', objid, 'EXECUTE')
                       OR type = 'view' AND NOT
                          has_table_privilege('shard_reader', objid, 'SELECT') $$,
  'everybody may call the functions and read the views');
SELECT is_empty($$ SELECT identity FROM members JOIN pg_proc p ON p.oid = objid
                    WHERE type = 'function' AND (prosecdef OR proleakproof) $$,
  'no function works with the rights of another');
SELECT is((SELECT array_agg(DISTINCT evtenabled) FROM pg_event_trigger
            WHERE evtname ~ '^shard_fdw'), '{A}',
  'the event triggers fire always');
SELECT is_empty($$ SELECT evtname FROM pg_event_trigger JOIN pg_proc p ON p.oid = evtfoid
                     WHERE evtname ~ '^shard_fdw' AND p.proconfig IS DISTINCT FROM '{jit=off}' $$,
  'nobody''s DDL has to wait for queries of the event triggers to be compiled');
CREATE FUNCTION columns_of(view regclass) RETURNS text[] LANGUAGE sql AS $$
  SELECT array_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod))
                   ORDER BY attnum)
    FROM pg_attribute WHERE attrelid = view
$$;
SELECT is(columns_of('shard_fdw.leases'),
  ARRAY['logical regclass', 'shard regclass', 'pid integer', 'level bigint',
        'lane boolean'],
  'columns of view "leases"');
SELECT is(columns_of('shard_fdw.shards'),
  ARRAY['logical regclass', 'shard regclass', 'ordinal integer', 'state text',
        'kind text', 'server name', 'estimated_rows bigint', 'bytes bigint',
        'sessions bigint', 'range_start text', 'range_end text',
        'dead_rows bigint', 'last_vacuum timestamp with time zone'],
  'columns of view "shards"');
SELECT is(columns_of('shard_fdw.stat_shards'),
  ARRAY['logical regclass', 'shard regclass', 'ordinal integer', 'state text', 'place text',
        'range_start text', 'range_end text', 'bytes bigint', 'live_rows bigint',
        'dead_rows bigint', 'inserts bigint', 'updates bigint', 'deletes bigint',
        'inserts_since_vacuum bigint', 'changes_since_analyze bigint',
        'last_vacuum timestamp with time zone',
        'last_analyze timestamp with time zone'], 'columns of view "stat_shards"');
SELECT is(columns_of('shard_fdw.progress'),
  ARRAY['pid integer', 'datname name', 'logical regclass', 'command text', 'phase text',
        'done bigint', 'total bigint', 'since timestamp with time zone'],
  'columns of view "progress"');
SELECT is(columns_of('shard_fdw.maintenance'),
  ARRAY['logical regclass', 'mode text', 'rotate_every interval',
        'retain_for interval', 'generations integer', 'open integer',
        'closed integer', 'sealed integer', 'began timestamp with time zone',
        'next_rotation timestamp with time zone', 'due text',
        'is_confirmed boolean', 'last_run timestamp with time zone',
        'last_error text'], 'columns of view "maintenance"');

--
-- last_shard(), view "shards", list_shards()
--

SELECT is(shard_fdw.last_shard(), NULL, 'last_shard() before the first row');
CREATE FOREIGN TABLE log (id int, t text) SERVER shards
OPTIONS (shards '12', route 'round_robin');
SELECT results_eq($$ SELECT * FROM shard_fdw.list_shards('log') $$,
  $$ SELECT format('log_%s', g)::regclass, g, 'open'::text
       FROM generate_series(0, 11) g $$, 'list_shards()');
SELECT results_eq($$ SELECT * FROM shard_fdw.shards
                      WHERE logical = 'log'::regclass $$,
  $$ SELECT 'log'::regclass, shard, ordinal, state, 'table'::text, NULL::name,
            NULL::bigint, pg_total_relation_size(shard), 0::bigint, NULL, NULL,
            0::bigint, NULL::timestamptz
       FROM shard_fdw.list_shards('log') $$, 'view "shards" of an empty table');
SELECT is_empty('SELECT * FROM shard_fdw.list_shards(NULL)',
  'list_shards(NULL)');
SELECT is_empty('SELECT * FROM shard_fdw.list_shards(4294967295)',
  'a table that has been dropped has no shards');
SELECT fails('SELECT * FROM shard_fdw.list_shards(''log_0'')', '42809',
  '"log_0" is not a foreign table of shard_fdw', title => 'a table that is not a logical table');
SELECT is_empty($$ SELECT * FROM shard_fdw.list_shards('log_0', true) $$,
  'a table that is not a logical table, which has no shards where that is no error');
CREATE FOREIGN TABLE none (id int) SERVER shards;
SELECT is_empty($$ SELECT * FROM shard_fdw.list_shards('none') $$,
  'a logical table without shards');
SELECT is_empty($$ SELECT * FROM shard_fdw.shards
                    WHERE logical = 'none'::regclass $$,
  'a logical table without shards has none in the view');

INSERT INTO log SELECT g, repeat('x', 1000) FROM generate_series(1, 240) g;
ANALYZE log_3, log_10;
SELECT results_eq($$ SELECT ordinal, estimated_rows FROM shard_fdw.shards
                      WHERE logical = 'log'::regclass
                        AND estimated_rows IS NOT NULL $$,
  'VALUES (3, 20::bigint), (10, 20)', 'estimated_rows is known after ANALYZE');
SELECT is_empty($$ SELECT * FROM shard_fdw.shards
                    WHERE logical = 'log'::regclass
                      AND (bytes IS DISTINCT FROM pg_total_relation_size(shard)
                           OR bytes < 20000) $$,
  'bytes are all that the shard takes');
SELECT is(shard_fdw.last_shard(),
  (SELECT tableoid::regclass FROM log WHERE id = 240),
  'last_shard() after many rows');
INSERT INTO log VALUES (241);
SELECT is(shard_fdw.last_shard(),
  (SELECT tableoid::regclass FROM log WHERE id = 241),
  'last_shard() after many rows, after one');
SET LOCAL shard_fdw.shard = 7;
INSERT INTO log VALUES (242);
RESET shard_fdw.shard;
SELECT is(shard_fdw.last_shard(), 'log_7'::regclass,
  'last_shard() after many rows, in a shard of choice');
COPY log (id) FROM stdin;
243
\.
SELECT is(shard_fdw.last_shard(),
  (SELECT tableoid::regclass FROM log WHERE id = 243),
  'last_shard() after many rows, after COPY');
SELECT shard_fdw.last_shard() AS last \gset
INSERT INTO log SELECT 1 WHERE false;
UPDATE log SET t = 'y' WHERE id = 1;
DELETE FROM log WHERE id = 2;
SELECT is(shard_fdw.last_shard(), :'last'::regclass,
  'last_shard() after many rows, which only inserts of rows change');
SAVEPOINT dropping;
DROP TABLE :last;
SELECT is(shard_fdw.last_shard(), NULL, 'last_shard() after many rows, until the shard is gone');
ROLLBACK TO dropping;

CREATE FOREIGN TABLE kinds (id int) SERVER shards
OPTIONS (shards '1', route 'round_robin');
CREATE UNLOGGED TABLE kinds_unlogged () INHERITS (kinds);
CREATE TEMP TABLE kinds_temp () INHERITS (kinds);
CREATE FOREIGN TABLE kinds_foreign () INHERITS (kinds)
SERVER shards OPTIONS (shards '1', route 'round_robin');
SELECT results_eq($$ SELECT shard::text, kind, server::text COLLATE "default",
                            bytes IS NULL
                       FROM shard_fdw.shards WHERE logical = 'kinds'::regclass ORDER BY ordinal $$,
  $$ VALUES ('kinds_0', 'table', NULL, false),
            ('kinds_foreign', 'foreign table', 'shards', true),
            ('kinds_temp', 'temporary table', NULL, false),
            ('kinds_unlogged', 'unlogged table', NULL, false) $$,
  'kinds of shards');
INSERT INTO kinds SELECT generate_series(1, 9);
SELECT results_eq('SELECT tableoid::regclass::text, count(*) FROM kinds
                    GROUP BY 1 ORDER BY 1',
  $$ VALUES ('kinds_0', 3::bigint), ('kinds_foreign_0', 3),
            ('kinds_unlogged', 3) $$,
  'rows do not go to a temporary table');
SELECT isnt((SELECT state FROM shard_fdw.list_shards('kinds')
              WHERE shard = 'kinds_temp'::regclass), 'open',
  'rows do not go to a temporary table, which is not open');

SELECT results_eq($$ SELECT run_as('shard_reader',
    'SELECT shard, ordinal, state, kind, bytes > 0 FROM shard_fdw.shards
      WHERE logical = ''log''::regclass AND ordinal = 3') $$,
  $$ VALUES ('(log_3,3,open,table,t)') $$, 'anybody can look at shards');
SELECT is((SELECT count(*) FROM run_as('shard_reader',
             'SELECT * FROM shard_fdw.list_shards(''log'')')), 12::bigint,
  'anybody can look at shards, and list them');
SET LOCAL search_path = '';
SELECT logical, shard, command FROM shard_fdw.shards,
       shard_fdw.format_on_shards(shards.logical, '') command
 WHERE logical = 'public.kinds'::pg_catalog.regclass AND ordinal = 0
 LIMIT 1 \gset
SET LOCAL search_path = public;
SELECT is(ARRAY[:'logical', :'shard'], ARRAY['public.kinds', 'public.kinds_0'],
  'an empty search_path does not matter');

--
-- View "leases"
--

CREATE VIEW my_leases AS
SELECT logical, shard, level FROM shard_fdw.leases WHERE pid = pg_backend_pid();
SELECT is_empty('SELECT * FROM my_leases', 'round robin takes no lease');
CREATE FOREIGN TABLE leased (id int) SERVER shards OPTIONS (shards '3');
CREATE FOREIGN TABLE twin (id int) SERVER shards OPTIONS (shards '3');
SAVEPOINT leasing;
INSERT INTO leased VALUES (1);
SELECT shard_fdw.last_shard() AS shard \gset
SELECT results_eq('SELECT * FROM my_leases',
  format('SELECT %L::regclass, %L::regclass, 0::bigint', 'leased', :'shard'),
  'a session route does');
SELECT results_eq($$ SELECT ordinal, sessions FROM shard_fdw.shards
                      WHERE logical = 'leased'::regclass $$,
  format($$ SELECT ordinal, (shard = %L::regclass)::int::bigint
              FROM shard_fdw.list_shards('leased') $$, :'shard'),
  'view "shards" counts it');
ROLLBACK TO leasing;
SELECT results_eq('SELECT * FROM my_leases',
  format('SELECT %L::regclass, %L::regclass, 0::bigint', 'leased', :'shard'),
  'a rollback does not end it');
INSERT INTO leased VALUES (2);
SELECT is(shard_fdw.last_shard(), :'shard'::regclass,
  'a rollback does not end it, and it is used again');
INSERT INTO twin VALUES (1);
SELECT pg_advisory_lock(7), pg_advisory_lock(7, 7);
SELECT results_eq('SELECT logical FROM my_leases ORDER BY logical::text',
  $$ VALUES ('leased'::regclass), ('twin') $$,
  'a lease per table; other advisory locks are none');
SELECT results_eq($$ SELECT run_as('shard_reader',
    'SELECT DISTINCT logical FROM shard_fdw.leases WHERE pid = pg_backend_pid()
      ORDER BY 1') $$,
  $$ SELECT format('(%s)', logical) FROM my_leases ORDER BY logical $$,
  'anybody can look at leases');
SELECT pg_advisory_unlock_all();
SELECT is_empty('SELECT * FROM my_leases',
  'pg_advisory_unlock_all() ends leases');
INSERT INTO leased VALUES (3);
INSERT INTO leased VALUES (4);
SELECT results_eq('SELECT logical, shard FROM my_leases',
  $$ SELECT 'leased'::regclass, shard_fdw.last_shard() $$,
  'pg_advisory_unlock_all() ends leases, and the next insert takes one');
SELECT shard_fdw.last_shard() AS shard \gset
SELECT shard_fdw.seal(:'shard');
INSERT INTO leased VALUES (5);
SELECT results_eq('SELECT shard FROM my_leases',
  'SELECT shard_fdw.last_shard()', 'after sealing, another shard is leased');
SELECT isnt(shard_fdw.last_shard(), :'shard'::regclass,
  'after sealing, another shard is leased, really another');
DROP FOREIGN TABLE leased CASCADE;
SELECT is_empty('SELECT * FROM my_leases',
  'no lease of a dropped table is shown');

--
-- Sealing
--

CREATE FOREIGN TABLE sess (id int, t text) SERVER shards OPTIONS (shards '3');
INSERT INTO sess SELECT g, 'before' FROM generate_series(1, 10) g;
SELECT shard_fdw.last_shard() AS first \gset
SELECT shard_fdw.seal(:'first');
SELECT results_eq(format($$ SELECT conname, pg_get_constraintdef(oid)
                              FROM pg_constraint WHERE conrelid = %L::regclass
                               AND contype = 'c' $$, :'first'),
  $$ VALUES ('shard_sealed'::name, 'CHECK (false) NOT VALID') $$,
  'seal() adds a CHECK constraint');
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.list_shards('sess')
                      WHERE state = 'sealed' $$,
  format('VALUES (%L)', :'first'), 'list_shards() tells');
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.shards
                      WHERE logical = 'sess'::regclass AND state = 'sealed' $$,
  format('VALUES (%L)', :'first'), 'so does the view');
SELECT fails(format('INSERT INTO %I VALUES (0)', :'first'), '23514',
  format('new row for relation "%s" violates check constraint "shard_sealed"', :'first'),
  title => 'an insert by the shard''s own name fails');
INSERT INTO sess VALUES (11, 'after');
INSERT INTO sess VALUES (12, 'after'), (13, 'after');
INSERT INTO sess SELECT g, 'after' FROM generate_series(14, 20) g;
COPY sess FROM stdin;
21	after
\.
SELECT results_eq('SELECT t, count(*), count(DISTINCT tableoid) FROM sess
                    GROUP BY t ORDER BY t',
  $$ VALUES ('after', 11::bigint, 1::bigint), ('before', 10, 1) $$,
  'the session''s inserts go elsewhere');
SELECT is((SELECT count(*) FROM sess WHERE tableoid = :'first'::regclass),
  10::bigint, 'the session''s inserts go elsewhere: none into the sealed shard');
SELECT ordinal AS first_ordinal FROM shard_fdw.list_shards('sess')
 WHERE shard = :'first'::regclass \gset
SELECT set_config('shard_fdw.shard', :'first_ordinal', true);
SELECT fails('INSERT INTO sess VALUES (0)', '55000',
  format('shard "%s" of foreign table "sess" is sealed', :'first'),
  format('"shard_fdw.shard" sends this session''s inserts to shard number %s.', :'first_ordinal'),
  'Set "shard_fdw.shard" to another number, or to -1 to let the table''s route decide.',
  title => 'the sealed shard cannot be chosen, either');
RESET shard_fdw.shard;
SELECT shard_fdw.seal(shard_fdw.last_shard());
INSERT INTO sess VALUES (22, 'third');
SELECT is((SELECT count(DISTINCT tableoid) FROM sess), 3::bigint,
  'two are sealed, the third is used');
SELECT shard_fdw.seal(shard_fdw.last_shard());
CREATE TABLE sealed_queries (query text);
INSERT INTO sealed_queries
VALUES ('VALUES (0)'), ('VALUES (0), (1)'), ('SELECT 0'), ('DEFAULT VALUES');
SELECT results_eq($$ SELECT query, state, message, hint FROM sealed_queries,
                            error_of('INSERT INTO sess ' || query) $$,
  $$ SELECT query, '55000', 'all shards of foreign table "sess" are sealed',
            'Create shards with SELECT shard_fdw.create_shards(), '
            || 'or open one with SELECT shard_fdw.unseal().'
       FROM sealed_queries $$, 'all shards are sealed');
INSERT INTO sess SELECT 0 WHERE false;
SELECT is((SELECT count(*) FROM sess), 22::bigint,
  'nothing was inserted, an insert of no rows is none');

-- what can be done to rows of sealed shards

SET LOCAL constraint_exclusion = on;
SELECT results_eq('SELECT id FROM sess ORDER BY id',
  'SELECT generate_series(1, 22)',
  'rows of sealed shards are read with constraint_exclusion = on');
SELECT results_eq('SELECT t, count(*) FROM sess WHERE id > 5
                    GROUP BY 1 ORDER BY 1',
  $$ VALUES ('after', 11::bigint), ('before', 5), ('third', 1) $$,
  'rows of sealed shards are read with constraint_exclusion = on, and aggregated');
SELECT results_eq('SELECT id FROM sess WHERE id < 4 ORDER BY id FOR UPDATE',
  'VALUES (1), (2), (3)',
  'rows of sealed shards are read with constraint_exclusion = on, and locked');
SET LOCAL constraint_exclusion = partition;
SELECT results_eq('SELECT id FROM sess ORDER BY id',
  'SELECT generate_series(1, 22)',
  'rows of sealed shards are read with constraint_exclusion = partition');
RESET constraint_exclusion;
SELECT fails('UPDATE sess SET t = ''x'' WHERE id = 1', '23514',
  title => 'a row of a sealed shard cannot be updated');
SELECT fails('UPDATE sess SET t = t', '23514',
  title => 'a row of a sealed shard cannot be updated, not even to the same');
UPDATE sess SET t = 'x' WHERE id > 1000;
DELETE FROM sess WHERE id IN (1, 11);
SELECT is((SELECT count(*) FROM sess), 20::bigint,
  'a row of a sealed shard cannot be updated, but deleted');
ALTER FOREIGN TABLE sess ADD COLUMN n int DEFAULT 1;
ALTER TABLE sess ALTER COLUMN id TYPE bigint;
SELECT results_eq('SELECT sum(id), sum(n) FROM sess',
  'VALUES (241::numeric, 20::bigint)',
  'a row of a sealed shard cannot be updated, and rewritten by ALTER TABLE');
SELECT shard_fdw.unseal(:'first');
UPDATE sess SET t = 'x' WHERE tableoid = :'first'::regclass;
SELECT is((SELECT count(*) FROM sess WHERE t = 'x'), 9::bigint,
  'rows of a shard that was opened again can be updated');
INSERT INTO sess VALUES (30);
SELECT is(shard_fdw.last_shard(), :'first'::regclass,
  'rows of a shard that was opened again can be updated, and it takes rows');
SELECT shard_fdw.seal(:'first');
TRUNCATE sess;
SELECT is_empty('SELECT * FROM sess', 'sealed shards can be truncated');

-- round robin

CREATE FOREIGN TABLE rr (id int) SERVER shards
OPTIONS (shards '3', route 'round_robin');
SELECT shard_fdw.seal('rr_1');
INSERT INTO rr SELECT generate_series(1, 10);
DO 'BEGIN FOR i IN 11..20 LOOP INSERT INTO rr VALUES (i); END LOOP; END';
SELECT results_eq('SELECT tableoid::regclass::text, count(*) FROM rr
                    GROUP BY 1 ORDER BY 1',
  $$ VALUES ('rr_0', 10::bigint), ('rr_2', 10) $$,
  'round robin leaves out sealed shards');
SELECT shard_fdw.unseal('rr_1');
INSERT INTO rr SELECT generate_series(21, 29);
SELECT is((SELECT count(*) FROM rr_1), 3::bigint,
  'round robin leaves out sealed shards, until they are open again');

-- in one command, through what lists them

DO $$ BEGIN
  PERFORM shard_fdw.seal(shard) FROM shard_fdw.shards
    WHERE logical = 'rr'::regclass;
END $$;
SELECT results_eq($$ SELECT DISTINCT state FROM shard_fdw.list_shards('rr') $$,
  $$ VALUES ('sealed') $$, 'seal all that the view lists');
SELECT fails('INSERT INTO rr VALUES (1)', '55000', title => 'round robin, all sealed');
SELECT shard_fdw.create_shards('rr', 1);
INSERT INTO rr VALUES (30), (31);
SELECT is((SELECT count(*) FROM rr_3), 2::bigint,
  'round robin, all sealed, until there is a new shard');
DO $$ BEGIN
  PERFORM shard_fdw.unseal(shard) FROM shard_fdw.list_shards('rr');
END $$;
SELECT results_eq($$ SELECT state, count(*)
                       FROM shard_fdw.list_shards('rr') GROUP BY 1 $$,
  $$ VALUES ('open', 4::bigint) $$, 'unseal all, open ones included');
SAVEPOINT sealing;
SELECT shard_fdw.seal('rr_0');
INSERT INTO rr SELECT generate_series(41, 60);
ROLLBACK TO sealing;
SELECT is((SELECT state FROM shard_fdw.list_shards('rr') WHERE ordinal = 0),
  'open', 'sealing is rolled back');
INSERT INTO rr SELECT generate_series(71, 74);
SELECT is((SELECT count(DISTINCT tableoid) FROM rr WHERE id > 70), 4::bigint,
  'sealing is rolled back, and the shard takes rows');

-- a notice if there is nothing to do; seen from outside, where notices show

CREATE TEMP TABLE notice_commands (command text);
INSERT INTO notice_commands
VALUES ('BEGIN'),
       ('CREATE TABLE notices_template (id int PRIMARY KEY)'),
       ('CREATE FOREIGN TABLE notices (id int NOT NULL) SERVER shards '
        || 'OPTIONS (shards ''1'', template ''notices_template'')'),
       ('SELECT shard_fdw.create_shards(''notices'', 1)'),
       ('SELECT ''unseal'' FROM shard_fdw.unseal(''notices_0'')'),
       ('SELECT ''seal'' FROM shard_fdw.seal(''notices_0'')'),
       ('SELECT ''seal'' FROM shard_fdw.seal(''notices_0'')'),
       ('SELECT ''unseal'' FROM shard_fdw.unseal(''notices_0'')'),
       ('SELECT count(*) FROM pg_constraint WHERE conname = ''shard_sealed'''
        || ' AND conrelid = ''notices_0''::regclass'),
       ('ROLLBACK');
SELECT string_agg(command, '; ') AS commands FROM notice_commands \gset
\set notices `psql -XqAt -d :'DBNAME' -c :'commands' 2>&1`
SELECT is((SELECT array_agg(line ORDER BY line)
             FROM regexp_split_to_table(:'notices', E'\n') line
            WHERE line ~ '^[A-Z]'),
  ARRAY['NOTICE:  shard "notices_0" is already sealed, skipping',
        'NOTICE:  shard "notices_0" is not sealed, skipping'],
  'a notice if there is nothing to do, and none when shards are created');
SELECT is((SELECT array_agg(line)
             FROM regexp_split_to_table(:'notices', E'\n') line
            WHERE line ~ '^[a-z0-9]'),
  ARRAY['notices_1', 'unseal', 'seal', 'seal', 'unseal', '0'],
  'a notice if there is nothing to do, and none when shards are created, which are no errors');

-- a warning of what new shards do not have

CREATE TEMP TABLE warning_commands (command text);
INSERT INTO warning_commands
VALUES ('BEGIN'),
       ('SET shard_fdw.shard = -1'),
       ('CREATE FOREIGN TABLE warned (at date, n int) SERVER shards'),
       ('SELECT shard_fdw.create_shards(''warned'', 2)'),
       ('ALTER TABLE warned_0 ADD CONSTRAINT year CHECK (at < ''2027-01-01'')'),
       ('ALTER TABLE warned_1 ADD CONSTRAINT year CHECK (at < ''2027-01-01''), ADD CONSTRAINT own '
        'CHECK (n > 5)'),
       ('SELECT shard_fdw.seal(shard) FROM shard_fdw.list_shards(''warned'')'),
       ('SELECT shard_fdw.create_shards(''warned'', 2)'),
       ('ROLLBACK');
SELECT string_agg(command, '; ') AS commands FROM warning_commands \gset
\set warnings `psql -XqAt -d :'DBNAME' -c :'commands' 2>&1`
SELECT results_eq($$ SELECT line FROM regexp_split_to_table($$ || quote_literal(:'warnings')
    || $$, E'\n')
                       WITH ORDINALITY l(line, n) WHERE line ~ '^[A-Z]' ORDER BY n $$,
  $$ VALUES ('WARNING:  foreign table "warned" has no shard to be copied'),
            ('DETAIL:  The new shards have its columns and constraints, but no primary key and no '
             'index.'),
            ('HINT:  Call create_shards() with a table to be copied, or create indexes with '
             'SELECT shard_fdw.run_command_on_shards().'),
            ('WARNING:  CHECK constraint "own" of sealed shard "warned_1" is not copied'),
            ('DETAIL:  It ends at some time, or other shards do not have it: it seems to be about '
             'the rows of that shard.'),
            ('HINT:  If new shards are to have it, add it to them, or call create_shards() with a '
             'table to be copied.'),
            ('WARNING:  CHECK constraint "year" of sealed shard "warned_1" is not copied'),
            ('DETAIL:  It ends at some time, or other shards do not have it: it seems to be about '
             'the rows of that shard.'),
            ('HINT:  If new shards are to have it, add it to them, or call create_shards() with a '
             'table to be copied.') $$,
  'warnings when shards are created');

-- what counts as sealed

CREATE TABLE checks (expression text, state text);
INSERT INTO checks VALUES
  ('false', 'sealed'), ('1 = 0', 'sealed'), ('NOT true', 'sealed'),
  ('false AND true', 'sealed'), ('false AND id > 0', 'sealed'),
  ('true', 'open'), ('1 = 1', 'open'), ('NULL', 'open'),
  ('NULL::bool AND true', 'open'), ('id > 0', 'open'),
  ('false OR id > 0', 'open');
CREATE FUNCTION state_with(definition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  CREATE FOREIGN TABLE checked (id int) SERVER shards OPTIONS (shards '1');
  EXECUTE format('ALTER TABLE checked_0 ADD CONSTRAINT "By %%s hand" %s',
                 definition);
  SELECT state INTO result FROM shard_fdw.list_shards('checked');
  IF (result = 'open')
     <> ((error_of('INSERT INTO checked VALUES (1)')).state IS NULL) THEN
    RAISE 'insert does not agree';
  END IF;
  PERFORM shard_fdw.unseal('checked_0');
  INSERT INTO checked VALUES (1);
  IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'By %s hand')
     <> (result = 'sealed') THEN
    RAISE 'unseal() dropped the wrong constraints';
  END IF;
  DROP FOREIGN TABLE checked CASCADE;
  RETURN result;
END $$;
SELECT results_eq($$ SELECT expression,
                            state_with(format('CHECK (%s)', expression))
                       FROM checks $$, 'SELECT expression, state FROM checks',
  'a shard with a CHECK constraint that is constant false is sealed');
SELECT results_eq($$ SELECT expression,
                       state_with(format('CHECK (%s) NOT VALID', expression))
                       FROM checks $$, 'SELECT expression, state FROM checks',
  'a shard with a CHECK constraint that is constant false is sealed, validated or not');
SELECT current_setting('server_version_num')::int >= 180000
       AS not_enforced \gset
\if :not_enforced
SELECT is(state_with('CHECK (false) NOT ENFORCED'), 'open',
  'a shard with a CHECK constraint that is constant false is sealed, but it must be enforced');
\endif

CREATE FOREIGN TABLE hand (id int) SERVER shards OPTIONS (shards '2');
ALTER TABLE hand_0
  ADD CONSTRAINT a CHECK (false) NOT VALID,
  ADD CONSTRAINT b CHECK (1 > 2) NOT VALID,
  ADD CONSTRAINT c CHECK (id > 0);
SELECT lives_ok($$ SELECT shard_fdw.seal('hand_0') $$, 'a shard sealed by hand is sealed already');
SELECT shard_fdw.seal('hand_0');
SELECT is((SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint
            WHERE conrelid = 'hand_0'::regclass AND contype = 'c'),
  ARRAY['a', 'b', 'c'], 'a shard sealed by hand is sealed already, and gets no more constraints');
SELECT shard_fdw.unseal('hand_0');
SELECT is((SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint
            WHERE conrelid = 'hand_0'::regclass AND contype = 'c'),
  ARRAY['c'], 'unseal() drops all that seal it, and no other');
ALTER TABLE hand_0 DROP CONSTRAINT c,
  ADD CONSTRAINT shard_sealed CHECK (id > 0);
SELECT fails($$ SELECT shard_fdw.seal('hand_0') $$, '42710',
  title => 'the constraint''s name is taken');

-- the logical table seals all its shards

ALTER FOREIGN TABLE hand ADD CONSTRAINT all_sealed CHECK (false) NOT VALID;
SELECT fails('INSERT INTO hand VALUES (1)', '55000',
  title => 'CHECK (false) on the logical table seals all shards');
SELECT fails($$ SELECT shard_fdw.unseal('hand_1') $$, '42P16',
  title => 'CHECK (false) on the logical table seals all shards: one cannot be opened alone');
ALTER FOREIGN TABLE hand DROP CONSTRAINT all_sealed;
INSERT INTO hand VALUES (1);
SELECT is((SELECT count(*) FROM hand), 1::bigint,
  'CHECK (false) on the logical table seals all shards: dropped there, all are open');

-- which tables

CREATE TABLE parent (id int);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE detached () INHERITS (hand);
ALTER TABLE detached NO INHERIT hand;
CREATE INDEX hand_index ON hand_1 (id);
CREATE VIEW hand_view AS SELECT * FROM hand;
CREATE TABLE not_shards AS
SELECT f AS function, t AS relation
  FROM unnest(ARRAY['seal', 'unseal']) f,
       unnest(ARRAY['parent', 'child', 'detached', 'hand', 'hand_index',
                    'hand_view']) t;
SELECT results_eq($$ SELECT relation, function, state, message, detail
    FROM not_shards,
         error_of(format('SELECT shard_fdw.%I(%L)', function, relation)) $$,
  $$ SELECT relation, function, '42809',
            format('"%s" is not a shard', relation), 'A shard is a table '
            || 'that inherits from a foreign table of shard_fdw.'
       FROM not_shards $$, 'relations that are not shards');
-- Sealed, then detached.
SELECT shard_fdw.seal('hand_1');
ALTER TABLE hand_1 NO INHERIT hand;
ALTER TABLE hand_1 ADD CONSTRAINT never CHECK (1 > 2) NOT VALID;
SELECT fails('INSERT INTO hand_1 VALUES (1)', '23514',
  'new row for relation "hand_1" violates check constraint "never"',
  title => 'a sealed shard that is detached is still sealed');
SELECT fails($$ SELECT shard_fdw.seal('hand_1') $$, '42809',
  title => 'a sealed shard that is detached is still sealed, and cannot be sealed');
SELECT fails($$ SELECT shard_fdw.unseal('hand_1') $$, '42501',
  title => 'a sealed shard that is detached is not opened by just anybody',
  role => 'shard_user');
SELECT is((SELECT shard_fdw.unseal('hand_1')::text), '',
  'a sealed shard that is detached is opened by its owner');
SELECT lives_ok('INSERT INTO hand_1 VALUES (1)',
  'a sealed shard that is detached is still sealed, and takes rows');
SELECT fails($$ SELECT shard_fdw.unseal('hand_1') $$, '42809', title => 'there is no more to open');
DELETE FROM hand_1;
ALTER TABLE hand_1 INHERIT hand;
SELECT fails('SELECT shard_fdw.seal(4294967295)', '42P01', title => 'no relation');
SELECT fails('SELECT shard_fdw.unseal(4294967295)', '42P01', title => 'no relation to unseal');
SELECT is((SELECT shard_fdw.seal(NULL)::text), NULL, 'seal(NULL) does nothing');
SELECT shard_fdw.seal('kinds_foreign');
INSERT INTO kinds SELECT generate_series(11, 14);
SELECT is((SELECT count(*) FROM kinds_foreign), 3::bigint,
  'a shard that is a foreign table is sealed');
SELECT shard_fdw.unseal('kinds_foreign');
INSERT INTO kinds SELECT generate_series(21, 23);
SELECT is((SELECT count(*) FROM kinds_foreign), 4::bigint,
  'a shard that is a foreign table is sealed, and opened');
CREATE TABLE "Shard %s.x""y" (id int);
ALTER TABLE "Shard %s.x""y" INHERIT hand;
SELECT shard_fdw.seal('"Shard %s.x""y"');
SELECT is((SELECT state FROM shard_fdw.list_shards('hand')
            WHERE shard = '"Shard %s.x""y"'::regclass), 'sealed',
  'a shard with an unusual name is sealed');
SELECT shard_fdw.unseal('"Shard %s.x""y"');
SELECT is((SELECT state FROM shard_fdw.list_shards('hand')
            WHERE shard = '"Shard %s.x""y"'::regclass), 'open',
  'a shard with an unusual name is sealed, and opened');

-- who may

SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE owned (id int) SERVER shards OPTIONS (shards '2');
SELECT shard_fdw.seal('owned_0');
RESET ROLE;
SELECT is((SELECT state FROM shard_fdw.list_shards('owned') WHERE ordinal = 0),
  'sealed', 'the owner seals a shard');
GRANT ALL ON owned, owned_0, owned_1 TO shard_reader;
SELECT results_eq($$ SELECT command, state, message
    FROM unnest(ARRAY['seal(''owned_1'')', 'unseal(''owned_0'')']) command,
         error_of('SELECT shard_fdw.' || command, 'shard_reader') $$,
  $$ VALUES ('seal(''owned_1'')', '42501',
             'must be owner of table owned_1'),
            ('unseal(''owned_0'')', '42501',
             'must be owner of table owned_0') $$,
  'nobody else does, whatever they have been granted');
REVOKE ALL ON owned, owned_0, owned_1 FROM shard_reader;
GRANT shard_user TO shard_reader;
SELECT is((error_of($$ SELECT shard_fdw.unseal('owned_0') $$, 'shard_reader')).state, NULL,
  'a member of the owner role may');
REVOKE shard_user FROM shard_reader;
SELECT lives_ok($$ SELECT shard_fdw.unseal('owned_0') $$, 'a superuser may');

-- Looking at shards must not run what their owners wrote.
CREATE SEQUENCE ran_as_other;
GRANT ALL ON SEQUENCE ran_as_other TO PUBLIC;
SET LOCAL ROLE shard_user;
CREATE FUNCTION trap() RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  IF current_user <> 'shard_user' THEN
    PERFORM nextval('public.ran_as_other');
  END IF;
  RETURN true;
END $$;
ALTER TABLE owned_1 ADD CONSTRAINT trap CHECK (trap());
RESET ROLE;
SELECT is((SELECT count(*) FROM shard_fdw.shards
            WHERE logical = 'owned'::regclass), 2::bigint,
  'a superuser looks at the shards of others');
SELECT is((SELECT count(*) FROM shard_fdw.list_shards('owned')), 2::bigint,
  'a superuser looks at the shards of others, and lists them');
SELECT results_eq('SELECT is_called FROM ran_as_other', 'VALUES (false)',
  'a superuser looks at the shards of others, which does not run their functions');
SET LOCAL ROLE shard_user;
ALTER TABLE owned_1 DROP CONSTRAINT trap;
RESET ROLE;

--
-- format_on_shards()
--

CREATE SCHEMA "odd %s";
CREATE FOREIGN TABLE "odd %s"."Ta""b" (id int) SERVER shards
OPTIONS (shards '2');
SELECT results_eq($$ SELECT * FROM shard_fdw.format_on_shards(
    '"odd %s"."Ta""b"', 'SELECT ''%s'', 5 %2, ''100%'' FROM %s %% %') $$,
  $$ SELECT format('SELECT ''%1$s'', 5 %%2, ''100%%'' FROM %1$s %%%% %%',
                   '"odd %s"."Ta""b_' || g || '"')
       FROM generate_series(0, 1) g $$,
  '%s is replaced wherever it is, nothing else is');
SELECT results_eq($$ SELECT * FROM shard_fdw.format_on_shards('rr', '%s') $$,
  $$ VALUES ('public.rr_0'), ('public.rr_1'), ('public.rr_2'),
            ('public.rr_3') $$,
  'names have their schema, in ordinal order');
SELECT results_eq($$ SELECT shard_fdw.format_on_shards('rr', 'x') UNION ALL
                     SELECT shard_fdw.format_on_shards('rr', '') $$,
  $$ VALUES ('x'), ('x'), ('x'), ('x'), (''), (''), (''), ('') $$,
  'a command without %s, and an empty one');
SELECT is_empty($$ SELECT shard_fdw.format_on_shards('none', '%s') UNION ALL
                   SELECT shard_fdw.format_on_shards(NULL, '%s') UNION ALL
                   SELECT shard_fdw.format_on_shards('rr', NULL) $$,
  'no shards, no table, no command');
SELECT fails($$ SELECT shard_fdw.format_on_shards('rr_0', '%s') $$, '42809',
  title => 'not a logical table');
SELECT * FROM shard_fdw.format_on_shards('rr', 'CREATE INDEX ON %s (id)') \gexec
SELECT is((SELECT count(*) FROM pg_index JOIN pg_inherits ON inhrelid = indrelid
            WHERE inhparent = 'rr'::regclass), 4::bigint,
  '\gexec runs the commands');

--
-- run_command_on_shards()
--

TRUNCATE rr;
INSERT INTO rr_0 VALUES (1);
INSERT INTO rr_1 VALUES (1), (1);
INSERT INTO rr_3 VALUES (NULL);
CREATE FUNCTION run(command text)
RETURNS TABLE (shard text, success bool, result text)
LANGUAGE sql AS $$
  SELECT shard::text, success, result
    FROM shard_fdw.run_command_on_shards('rr', command, on_error => 'continue')
$$;
SELECT results_eq($$ SELECT * FROM run('SELECT count(*), 5 FROM %s') $$,
  $$ VALUES ('rr_0', true, '1'), ('rr_1', true, '2'), ('rr_2', true, '0'),
            ('rr_3', true, '1') $$, 'the result of a query is its first value');
SELECT results_eq($$ SELECT * FROM run('SELECT id FROM %s') $$,
  $$ VALUES ('rr_0', true, '1'), ('rr_1', true, '1'), ('rr_2', true, NULL),
            ('rr_3', true, NULL) $$, 'the result of a query is null if there is no row or a null');
CREATE TABLE command_results (command text, results text[]);
INSERT INTO command_results VALUES
  ('SELECT FROM %s', '{NULL,NULL,NULL,NULL}'),
  ('VALUES (ARRAY[1, NULL]), (NULL)',
   '{"{1,NULL}","{1,NULL}","{1,NULL}","{1,NULL}"}'),
  ('UPDATE %s SET id = 2', '{UPDATE 1,UPDATE 2,UPDATE 0,UPDATE 1}'),
  ('UPDATE %s SET id = 3 RETURNING id', '{3,3,NULL,3}'),
  ('DELETE FROM %s', '{DELETE 1,DELETE 2,DELETE 0,DELETE 1}'),
  ('INSERT INTO %s SELECT 5 FROM generate_series(1, 3)',
   '{INSERT 0 3,INSERT 0 3,INSERT 0 3,INSERT 0 3}'),
  ('INSERT INTO %s VALUES (9) RETURNING id * 2', '{18,18,18,18}'),
  ('WITH d AS (DELETE FROM %s RETURNING id) SELECT sum(id) FROM d',
   '{1,2,NULL,NULL}'),
  ('TRUNCATE %s',
   '{TRUNCATE TABLE,TRUNCATE TABLE,TRUNCATE TABLE,TRUNCATE TABLE}'),
  ('ANALYZE %s', '{ANALYZE,ANALYZE,ANALYZE,ANALYZE}'),
  ('ALTER TABLE %s SET (fillfactor = 50)',
   '{ALTER TABLE,ALTER TABLE,ALTER TABLE,ALTER TABLE}'),
  ('CREATE INDEX ON %s (id)',
   '{CREATE INDEX,CREATE INDEX,CREATE INDEX,CREATE INDEX}'),
  ('DO ''BEGIN PERFORM FROM %s; END''', '{DO,DO,DO,DO}'),
  ('SHOW shard_fdw.shard', '{-1,-1,-1,-1}'),
  ('UPDATE %s SET id = 7; SELECT max(id) FROM %s', '{7,7,NULL,7}'),
  ('SELECT 1; DELETE FROM %s', '{DELETE 1,DELETE 2,DELETE 0,DELETE 1}'),
  ('DELETE FROM %s; CREATE INDEX ON %s (id); INSERT INTO %s VALUES (1)',
   '{INSERT 0 1,INSERT 0 1,INSERT 0 1,INSERT 0 1}'),
  ('SELECT 17 % 10 WHERE ''50%'' LIKE ''%0%'' AND ''%s'' = ''%s''',
   '{7,7,7,7}'),
  ('SELECT count(*) FROM %s a JOIN %s b USING (id)', '{1,4,0,0}');

-- Runs the command and takes it back.
CREATE FUNCTION results_of(command text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  results text[];
BEGIN
  SELECT array_agg(CASE WHEN success THEN result ELSE 'failed: ' || result END
                   ORDER BY shard) INTO results
    FROM run(command);
  RAISE SQLSTATE 'OK000';
EXCEPTION WHEN SQLSTATE 'OK000' THEN
  RETURN results;
END $$;
SELECT results_eq('SELECT command, results_of(command) FROM command_results',
  'SELECT command, results FROM command_results', 'results and command tags');
SELECT is((SELECT count(*) FROM rr), 4::bigint, 'results and command tags could be taken back');

SELECT results_eq($$ SELECT * FROM run('CREATE INDEX %s_index ON %s (id)') $$,
  $$ SELECT 'rr_' || g, false, 'syntax error at or near "."'
       FROM generate_series(0, 3) g $$, 'a command that fails everywhere');
SELECT results_eq($$ SELECT * FROM run('CREATE UNIQUE INDEX ON %s (id, id)') $$,
  $$ VALUES ('rr_0', true, 'CREATE INDEX'),
            ('rr_1', false, 'could not create unique index "rr_1_id_id1_idx"'),
            ('rr_2', true, 'CREATE INDEX'), ('rr_3', true, 'CREATE INDEX') $$,
  'a command that fails on one shard');
SELECT bag_eq($$ SELECT indrelid::regclass::text FROM pg_index
                  WHERE indisunique AND indrelid::regclass::text LIKE 'rr_%' $$,
  $$ VALUES ('rr_0'), ('rr_2'), ('rr_3') $$,
  'a command that fails on one shard is done on the others');
SELECT results_eq($$ SELECT * FROM run('INSERT INTO %s VALUES (100);
                                        SELECT 1 / (count(*) - 2) FROM %s') $$,
  $$ VALUES ('rr_0', false, 'division by zero'), ('rr_1', true, '1'),
            ('rr_2', true, '-1'), ('rr_3', false, 'division by zero') $$,
  'several statements, of which the last fails on two shards');
SELECT results_eq('SELECT tableoid::regclass::text FROM rr WHERE id = 100
                    ORDER BY 1',
  $$ VALUES ('rr_1'), ('rr_2') $$,
  'several statements, of which the last fails on two shards, are all undone there');
SELECT results_eq($$ SELECT * FROM run('no such command') $$,
  $$ SELECT 'rr_' || g, false, 'syntax error at or near "no"'
       FROM generate_series(0, 3) g $$, 'no command at all');
SELECT results_eq($$ SELECT * FROM run('DO ''BEGIN RAISE ''''%s!''''; END''')
                      WHERE shard = 'rr_2' $$,
  $$ VALUES ('rr_2', false, 'public.rr_2!') $$, 'an error of a function');
SELECT is((SELECT bool_or(success) FROM run('VACUUM %s')), false,
  'VACUUM cannot run in a function');
CREATE TABLE refused (command text);
INSERT INTO refused
VALUES ('COMMIT'), ('ROLLBACK'), ('BEGIN'), ('SAVEPOINT s'),
       ('ROLLBACK TO sealing'), ('RELEASE sealing'),
       ('PREPARE TRANSACTION ''x'''), ('COPY %s TO stdout'),
       ('INSERT INTO %s VALUES (200); COMMIT');
SELECT results_eq($$ SELECT command, bool_or(success), bool_and(result ~ 'cannot')
                       FROM refused, run(command)
                      GROUP BY command ORDER BY command $$,
  'SELECT command, false, true FROM refused ORDER BY command',
  'transaction control and COPY to the client are refused');
SELECT is_empty('SELECT * FROM rr WHERE id = 200',
  'what comes before transaction control in the command is undone');
SELECT is_empty($$ SELECT command, result FROM refused, run(command)
                    WHERE command !~ 'COPY' AND result !~* 'transaction' $$,
  'transaction control and COPY to the client are refused, and the result says why');
SELECT fails($$ SELECT run('SELECT pg_cancel_backend(pg_backend_pid()),
                                         pg_sleep(5)') $$, '57014',
  title => 'a cancel stops it all');
SELECT is_empty($$ SELECT shard_fdw.run_command_on_shards('none', 'SELECT 1')
                   UNION ALL
                   SELECT shard_fdw.run_command_on_shards(4294967295, 'SELECT 1') $$,
  'no shards, no table');
SELECT results_eq($$ SELECT state, message FROM
    unnest(ARRAY['NULL, ''SELECT 1''', '''rr'', NULL',
                 '''rr'', ''SELECT 1'', NULL']) arguments,
    error_of('SELECT shard_fdw.run_command_on_shards(' || arguments || ')') $$,
  $$ VALUES ('22004', 'logical table must not be null'),
            ('22004', 'command must not be null'),
            ('22004', 'parameter "on_error" must not be null') $$,
  'nulls');

-- An error ends it all, unless it is not to.
SELECT results_eq($$ SELECT shard::text, success, result
    FROM shard_fdw.run_command_on_shards('rr', 'SELECT count(*) FROM %s') $$,
  $$ SELECT * FROM run('SELECT count(*) FROM %s') $$,
  'without an error there is no difference');
SELECT fails('SELECT shard_fdw.run_command_on_shards(''rr'',
       ''CREATE INDEX stopped ON %s (id, id, id)'')', '42P07', 'relation "stopped" already exists',
  '', '', title => 'the first error is raised');
SELECT hasnt_index('rr_0', 'stopped', 'the first error is raised, and undoes what was done before');
CREATE FUNCTION complain(shard text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF shard = 'public.rr_2' THEN
    RAISE 'no %', shard USING ERRCODE = 'SF001', DETAIL = 'why', HINT = 'how';
  END IF;
END $$;
CREATE FUNCTION context_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  context text;
BEGIN
  EXECUTE command;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
  RETURN context;
END $$;
SELECT fails(
  'SELECT shard_fdw.run_command_on_shards(''rr'', ''SELECT complain(''''%s'''')'', ''stop'')',
  'SF001', 'no public.rr_2', 'why', 'how', title => 'it is what it was');
SELECT ok('command on shard "rr_2"' = ANY (string_to_array(context_of(
    'SELECT shard_fdw.run_command_on_shards(''rr'', ''SELECT complain(''''%s'''')'')'), E'\n')),
  'the error is what it was, and its context names the shard');
SELECT results_eq($$ SELECT * FROM run('SELECT complain(''%s'')') $$,
  $$ VALUES ('rr_0', true, ''), ('rr_1', true, ''), ('rr_2', false, 'no public.rr_2'),
            ('rr_3', true, '') $$, 'with "continue" it is a result');
SELECT fails('SELECT shard_fdw.run_command_on_shards(''rr'', ''SELECT 1'', ''Stop'')', '22023',
  'invalid value for parameter "on_error": "Stop"', '', 'Valid values are: stop, continue.',
  title => 'another value');
SELECT fails($$ SELECT shard_fdw.run_command_on_shards('rr', 'COMMIT') $$, '0A000',
  title => 'transaction control');
SELECT fails($$ SELECT shard_fdw.run_command_on_shards('rr',
    'SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)') $$, '57014', title => 'a cancel');
SELECT is((SELECT array_agg(DISTINCT mode) FROM pg_locks
            WHERE pid = pg_backend_pid() AND relation = 'rr'::regclass
              AND mode LIKE 'ShareUpdate%'),
  '{ShareUpdateExclusiveLock}', 'others that run commands wait');
SELECT fails($$ SELECT shard_fdw.run_command_on_shards('rr_0', 'SELECT 1') $$, '42809',
  title => 'not a logical table');
SELECT results_eq($$ SELECT ordinality, shard::text, result
    FROM shard_fdw.run_command_on_shards('log', 'SELECT ''%s''') WITH ORDINALITY
   WHERE ordinality > 9 $$,
  $$ SELECT ordinality, shard::text, 'public.' || shard::text
       FROM shard_fdw.list_shards('log') WITH ORDINALITY
      WHERE ordinality > 9 $$,
  'in ordinal order');
SELECT results_eq($$ SELECT success, result FROM shard_fdw.run_command_on_shards(
    '"odd %s"."Ta""b"', 'INSERT INTO %s VALUES (1)') $$,
  $$ VALUES (true, 'INSERT 0 1'), (true, 'INSERT 0 1') $$, 'unusual names');
SELECT is((SELECT count(*) FROM "odd %s"."Ta""b"), 2::bigint,
  'unusual names find their tables');

-- with the rights of the caller

SELECT bag_eq($$ SELECT run_as('shard_reader',
    'SELECT * FROM shard_fdw.run_command_on_shards(''owned'',
       ''INSERT INTO %s VALUES (1)'', ''continue'')') $$,
  $$ VALUES ('(owned_0,f,"permission denied for table owned_0")'),
            ('(owned_1,f,"permission denied for table owned_1")') $$,
  'a role without privileges on the shards');
GRANT INSERT, SELECT ON owned_1 TO shard_reader;
SELECT bag_eq($$ SELECT run_as('shard_reader',
    'SELECT * FROM shard_fdw.run_command_on_shards(''owned'',
       ''INSERT INTO %s VALUES (1) RETURNING current_user'', ''continue'')') $$,
  $$ VALUES ('(owned_0,f,"permission denied for table owned_0")'),
            ('(owned_1,t,shard_reader)') $$,
  'a role with privileges on one of them');
SELECT is((SELECT current_user), session_user, 'the caller is who it was');
SELECT fails('SELECT shard_fdw.run_command_on_shards(''owned'', ''DELETE FROM %s'')', '42501',
  title => 'an error of rights ends it, too', role => 'shard_reader');

-- commands that are empty, and commands that drop shards

SELECT is((SELECT count(*) FROM run('')), 4::bigint, 'an empty command');
SELECT is((SELECT count(*) FROM run(' ; -- nothing')), 4::bigint,
  'a command that is but a comment');
SELECT is((SELECT array_agg(result ORDER BY result)
             FROM run('DROP TABLE rr_0, rr_2') WHERE success),
  ARRAY['DROP TABLE'], 'a command that drops another shard');
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.list_shards('rr') $$,
  $$ VALUES ('rr_1'), ('rr_3') $$, 'a command that drops another shard, and its own');
SELECT is((SELECT array_agg(result) FROM run('DROP FOREIGN TABLE rr CASCADE')
            WHERE success), ARRAY['DROP FOREIGN TABLE'],
  'a command that drops the logical table');
SELECT is(to_regclass('rr'), NULL, 'a command that drops the logical table does so');
CREATE FOREIGN TABLE growing (id int) SERVER shards OPTIONS (shards '2');
SELECT is((SELECT array_agg(result) FROM shard_fdw.run_command_on_shards('growing',
             'SELECT shard_fdw.create_shards(''growing'', 1)')),
  '{growing_2,growing_3}', 'a command that adds shards is run on those that were there');
SELECT is((SELECT array_agg(result) FROM shard_fdw.run_command_on_shards('growing',
             'ALTER TABLE %s NO INHERIT growing; DROP TABLE %s')),
  '{DROP TABLE,DROP TABLE,DROP TABLE,DROP TABLE}', 'a command that detaches them all');
SELECT is_empty($$ SELECT * FROM shard_fdw.list_shards('growing') $$,
  'a command that detaches them all does so');

-- A constraint that cannot be evaluated spoils no view.
CREATE FOREIGN TABLE spoilt (a int) SERVER shards OPTIONS (shards '1');
ALTER TABLE spoilt_0 ADD CHECK (1 / 0 = 1) NOT VALID;
SELECT results_eq($$ SELECT state FROM shard_fdw.shards WHERE logical = 'spoilt'::regclass $$,
  $$ VALUES ('open') $$, 'a constraint that fails when it is evaluated');

SELECT * FROM finish();
ROLLBACK;
