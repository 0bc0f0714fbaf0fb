-- Changing logical tables, attaching and detaching shards, and who may do what.
BEGIN;
SET LOCAL client_min_messages = error;
SELECT no_plan();

\ir ddl.psql

--
-- Changing the logical table changes the shards
--

CREATE TABLE prop_template (
  b text NOT NULL DEFAULT 'b', extra int, id int NOT NULL,
  a int CONSTRAINT a_small CHECK (a < 1000)
);
CREATE FOREIGN TABLE prop (
  id int NOT NULL, a int, b text,
  CONSTRAINT a_small CHECK (a < 1000)
) SERVER shards OPTIONS (shards '1', route 'round_robin');
SELECT shard_fdw.create_shards('prop', 1, 'prop_template');
SELECT shard_fdw.create_shards('prop', 1);
CREATE TABLE prop_old (
  b text, a int CONSTRAINT a_small CHECK (a < 1000), gone int, id int NOT NULL);
ALTER TABLE prop_old DROP COLUMN gone;
ALTER TABLE prop_old INHERIT prop;
SELECT is(shard_names('prop'), ARRAY['prop_0', 'prop_1', 'prop_2', 'prop_old'],
  'shards made without a template, with one, from a model, and by hand');
SELECT is_empty($$ SELECT attrelid::regclass, attname FROM pg_attribute
                    WHERE attrelid = ANY ('{prop_0,prop_1,prop_2}'::regclass[])
                      AND attnum > 0 AND attname <> 'extra'
                      AND (attislocal OR attinhcount <> 1) $$,
  'columns of the logical table are inherited only');
SELECT is_empty($$ SELECT conrelid::regclass, conname FROM pg_constraint
                    WHERE conrelid = ANY ('{prop_0,prop_1,prop_2}'::regclass[])
                      AND conislocal AND coninhcount > 0 $$,
  'so are its constraints');

-- The columns of that name in the shards: their types, and NOT NULL.
CREATE FUNCTION columns_of(logical regclass, name name) RETURNS text
LANGUAGE sql AS $$
  SELECT string_agg(format_type(atttypid, atttypmod)
                    || CASE WHEN attnotnull THEN ' not null' ELSE '' END, ', '
                    ORDER BY ordinal)
    FROM shard_fdw.list_shards(logical)
    JOIN pg_attribute ON attrelid = shard
   WHERE attname = name AND NOT attisdropped
$$;

INSERT INTO prop SELECT g, g, 'first' FROM generate_series(1, 4) g;
ALTER FOREIGN TABLE prop ADD COLUMN c int DEFAULT 7;
SELECT is(columns_of('prop', 'c'), 'integer, integer, integer, integer',
  'ADD COLUMN adds it to the shards');
SELECT is((SELECT sum(c) FROM prop), 28::bigint,
  'ADD COLUMN adds it to the shards, with the default');
INSERT INTO prop (id, b, c) SELECT g, 'second', g FROM generate_series(5, 8) g;
SELECT results_eq('SELECT c FROM prop WHERE id > 4 ORDER BY id',
  'VALUES (5), (6), (7), (8)', 'ADD COLUMN adds it to the shards, and it takes values');
ALTER TABLE prop RENAME COLUMN c TO d;
INSERT INTO prop (id, b, d) SELECT g, 'third', g FROM generate_series(9, 12) g;
SELECT is(columns_of('prop', 'd'), 'integer, integer, integer, integer',
  'RENAME COLUMN renames it in the shards');
SELECT results_eq('SELECT d FROM prop WHERE id > 8 ORDER BY id',
  'VALUES (9), (10), (11), (12)', 'RENAME COLUMN renames it in the shards, and it takes values');
ALTER TABLE prop ALTER COLUMN d TYPE bigint,
                 ALTER COLUMN d SET DEFAULT 5000000000;
SELECT is(columns_of('prop', 'd'), 'bigint, bigint, bigint, bigint',
  'ALTER COLUMN TYPE changes it in the shards');
INSERT INTO prop (id, b) SELECT g, 'fourth' FROM generate_series(13, 16) g;
SELECT results_eq('SELECT d FROM prop ORDER BY id',
  'SELECT CASE WHEN g < 5 THEN 7 WHEN g < 13 THEN g ELSE 5000000000 END
     FROM generate_series(1, 16) g',
  'ALTER COLUMN TYPE changes it in the shards: rows keep their values and get new ones');

SELECT fails($$ INSERT INTO prop (id, b, a) VALUES (99, 'x', 1000) $$, '23514',
  title => 'a constraint of the logical table is enforced');
ALTER TABLE prop DROP CONSTRAINT a_small;
SELECT results_eq($$ SELECT conrelid::regclass::text FROM pg_constraint
                      WHERE conname = 'a_small'
                        AND conrelid <> 'prop_template'::regclass $$,
  $$ VALUES ('prop_old') $$,
  'DROP CONSTRAINT drops it from the shards, unless they had it before');
ALTER TABLE prop_old DROP CONSTRAINT a_small;
INSERT INTO prop (id, b, a)
SELECT g, 'fifth', 1000 FROM generate_series(17, 20) g;
SELECT is((SELECT count(DISTINCT tableoid) FROM prop WHERE a = 1000), 4::bigint,
  'DROP CONSTRAINT drops it from the shards, unless they had it before, and all take such rows');
SELECT fails('ALTER TABLE prop ADD CONSTRAINT d_small CHECK (d < 100)', '23514',
  title => 'ADD CONSTRAINT checks the rows in the shards');
ALTER TABLE prop ADD CONSTRAINT d_small CHECK (d < 100) NOT VALID;
SELECT is((SELECT count(*) FROM generate_series(1, 4),
                  error_of($$ INSERT INTO prop (id, b, d)
                              VALUES (99, 'x', 100) $$)
            WHERE state = '23514'), 4::bigint,
  'ADD CONSTRAINT checks the rows in the shards, and guards all shards');
ALTER TABLE prop DROP CONSTRAINT d_small;
SELECT is_empty($$ SELECT conrelid::regclass FROM pg_constraint
                    WHERE conname = 'd_small' $$,
  'ADD CONSTRAINT checks the rows in the shards, until it is dropped');

SELECT fails('ALTER TABLE prop ALTER a SET NOT NULL', '23502',
  title => 'SET NOT NULL checks the rows in the shards');
UPDATE prop SET a = 0 WHERE a IS NULL;
ALTER TABLE prop ALTER a SET NOT NULL;
SELECT is(columns_of('prop', 'a'),
  'integer not null, integer not null, integer not null, integer not null',
  'SET NOT NULL sets it in the shards');
SELECT is((SELECT count(*) FROM generate_series(1, 4),
                  error_of($$ INSERT INTO prop (id, b) VALUES (99, 'x') $$)
            WHERE state = '23502'), 4::bigint,
  'SET NOT NULL sets it in the shards, and is enforced');
ALTER TABLE prop ALTER a DROP NOT NULL;
SELECT is(columns_of('prop', 'a'), 'integer, integer, integer, integer',
  'DROP NOT NULL drops it');
INSERT INTO prop (id, b) SELECT g, 'sixth' FROM generate_series(21, 24) g;
SELECT is((SELECT count(DISTINCT tableoid) FROM prop WHERE a IS NULL),
  4::bigint, 'DROP NOT NULL drops it, and all take such rows');

ALTER TABLE prop DROP COLUMN b;
SELECT results_eq($$ SELECT shard::text FROM shard_fdw.list_shards('prop')
                       JOIN pg_attribute ON attrelid = shard
                      WHERE attname = 'b' $$,
  $$ VALUES ('prop_old') $$,
  'DROP COLUMN drops it from the shards, unless they had it before');
INSERT INTO prop (id, a) SELECT g, g FROM generate_series(25, 28) g;
SELECT results_eq('SELECT id, a, d FROM prop WHERE id > 24 ORDER BY id',
  'SELECT g, g, 5000000000 FROM generate_series(25, 28) g',
  'DROP COLUMN drops it from the shards, unless they had it before, which does not mix up the '
  'others');
INSERT INTO prop_1 (id, extra) VALUES (29, 290);
ALTER TABLE prop ADD COLUMN extra int DEFAULT -1;
INSERT INTO prop (id, extra) SELECT g, g FROM generate_series(31, 34) g;
INSERT INTO prop (id) VALUES (35);
SELECT results_eq('SELECT id, extra FROM prop WHERE id > 28 ORDER BY id',
  'VALUES (29, 290), (31, 31), (32, 32), (33, 33), (34, 34), (35, -1)',
  'ADD COLUMN takes over a column that a shard has already');
ALTER TABLE prop ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED;
INSERT INTO prop (id) SELECT g FROM generate_series(41, 44) g;
SELECT is_empty('SELECT * FROM prop WHERE twice IS DISTINCT FROM id * 2',
  'ADD COLUMN of a generated column');
SELECT is((SELECT count(*) FROM prop), 38::bigint,
  'no row was lost on the way');

--
-- Attaching and detaching tables
--

CREATE FOREIGN TABLE att (id int, t text, CONSTRAINT id_min CHECK (id > 0))
SERVER shards OPTIONS (shards '1');
CREATE TABLE att_order (t text, id int, CONSTRAINT id_min CHECK (id > 0));
CREATE TABLE att_more (
  a int, id int, b int, c date, t text, CONSTRAINT id_min CHECK (id > 0));
ALTER TABLE att_more DROP COLUMN a, DROP COLUMN b;
INSERT INTO att VALUES (1, 'one');
INSERT INTO att_order VALUES ('two', 2);
INSERT INTO att_more VALUES (3, '2000-01-01', 'three');
ALTER TABLE att_order INHERIT att;
ALTER TABLE att_more INHERIT att;
SELECT results_eq('SELECT * FROM att ORDER BY id',
  $$ VALUES (1, 'one'), (2, 'two'), (3, 'three') $$,
  'rows of attached tables are there at once');
SELECT is(shard_names('att'), ARRAY['att_0', 'att_more', 'att_order'],
  'they are shards');
SET LOCAL shard_fdw.shard = 1;
INSERT INTO att VALUES (4, 'four');
INSERT INTO att VALUES (5, 'five'), (6, 'six');
SET LOCAL shard_fdw.shard = 2;
INSERT INTO att VALUES (7, 'seven');
INSERT INTO att VALUES (8, 'eight'), (9, 'nine');
RESET shard_fdw.shard;
SELECT results_eq('SELECT id, c, t FROM att_more ORDER BY id',
  $$ VALUES (3, '2000-01-01'::date, 'three'), (4, NULL, 'four'),
            (5, NULL, 'five'), (6, NULL, 'six') $$,
  'rows in a table with dropped and more columns');
SELECT results_eq('SELECT id, t FROM att_order ORDER BY id',
  $$ VALUES (2, 'two'), (7, 'seven'), (8, 'eight'), (9, 'nine') $$,
  'rows in a table with another order of columns');
ALTER TABLE att_0 NO INHERIT att;
SELECT results_eq('SELECT min(id), count(*) FROM att', 'VALUES (2, 8::bigint)',
  'rows of a detached table are no longer there');
INSERT INTO att SELECT g, 'more' FROM generate_series(10, 20) g;
SELECT results_eq('SELECT * FROM att_0', $$ VALUES (1, 'one') $$,
  'rows of a detached table are no longer there, and it gets no rows');
ALTER TABLE att_more NO INHERIT att;
INSERT INTO att VALUES (21, 'last');
SELECT is(shard_fdw.last_shard(), 'att_order'::regclass,
  'the session goes to the shard that is left');
ALTER TABLE att_more INHERIT att;
ALTER TABLE att_0 INHERIT att;
SELECT results_eq('SELECT id FROM att ORDER BY id',
  'SELECT generate_series(1, 21)', 'attached again');
ALTER TABLE att_order NO INHERIT att;
DROP TABLE att_order;
INSERT INTO att VALUES (22, 'next');
SELECT is((SELECT count(*) FROM att WHERE id = 22), 1::bigint,
  'inserts go on after the session''s shard was detached and dropped');

CREATE TABLE att_missing (id int CONSTRAINT id_min CHECK (id > 0));
CREATE TABLE att_type (id int CONSTRAINT id_min CHECK (id > 0), t varchar);
CREATE TABLE att_check (id int, t text);
SELECT results_eq($$ SELECT name, state
    FROM unnest(ARRAY['att_missing', 'att_type', 'att_check']) name,
         error_of(format('ALTER TABLE %I INHERIT att', name)) $$,
  $$ SELECT name, '42804'
       FROM unnest(ARRAY['att_missing', 'att_type', 'att_check']) name $$,
  'what does not have the columns and constraints cannot be a shard');
CREATE TABLE att_zz (
  id int CONSTRAINT id_min CHECK (id > 0), t text, must int NOT NULL);
ALTER TABLE att_zz INHERIT att;
SET LOCAL shard_fdw.shard = 2;
SELECT fails('INSERT INTO att VALUES (30, ''x'')', '23502',
  'null value in column "must" of relation "att_zz" '
                      || 'violates not-null constraint',
  title => 'a column that only the shard has and that must not be null');
RESET shard_fdw.shard;

-- a table can be a shard of two logical tables

CREATE FOREIGN TABLE one (id int) SERVER shards;
CREATE FOREIGN TABLE two (t text) SERVER shards;
CREATE TABLE both_0 () INHERITS (one, two);
INSERT INTO one VALUES (1);
INSERT INTO two VALUES ('two');
INSERT INTO one VALUES (3);
SELECT bag_eq('SELECT * FROM both_0',
  $$ VALUES (1, NULL), (NULL, 'two'), (3, NULL) $$,
  'a shard of two logical tables');

--
-- Roles
--

SET LOCAL ROLE shard_user;
CREATE TABLE owned_template (id int PRIMARY KEY, t text);
CREATE FOREIGN TABLE owned (
  id int, t text DEFAULT 'none', secret text DEFAULT 'secret',
  n int GENERATED ALWAYS AS IDENTITY, CONSTRAINT id_min CHECK (id > 0)
) SERVER shards
OPTIONS (shards '2', template 'owned_template', route 'round_robin');
SELECT shard_fdw.create_shards('owned', 1);
INSERT INTO owned SELECT g FROM generate_series(1, 6) g;
RESET ROLE;
SELECT is((SELECT count(*) FROM owned), 6::bigint,
  'a role with no more than USAGE on the server creates and fills a table');
SELECT shard_fdw.create_shards('owned', 1);
SELECT results_eq($$ SELECT oid::regclass::text FROM pg_class
                      WHERE relkind IN ('r', 'f') AND relname LIKE 'owned%'
                        AND relowner = 'shard_user'::regrole ORDER BY 1 $$,
  $$ VALUES ('owned'), ('owned_0'), ('owned_1'), ('owned_2'), ('owned_3'),
            ('owned_template') $$,
  'shards belong to the owner of the table, also those a superuser creates');
CREATE TABLE owner_commands (command text);
INSERT INTO owner_commands
VALUES ('SELECT shard_fdw.create_shards(''owned'', 1)'),
       ('ALTER FOREIGN TABLE owned OPTIONS (SET route ''session'')'),
       ('DROP FOREIGN TABLE owned CASCADE');
SELECT results_eq($$ SELECT command, state, message FROM owner_commands,
                            error_of(command, 'shard_reader') $$,
  $$ SELECT command, '42501', 'must be owner of foreign table owned'
       FROM owner_commands $$,
  'others cannot create shards, change or drop the table');
SET LOCAL ROLE shard_reader;
CREATE TABLE foreign_shard (id int, t text, secret text, n int,
                            CONSTRAINT id_min CHECK (id > 0));
RESET ROLE;
SELECT fails('ALTER TABLE foreign_shard INHERIT owned', '42501',
  title => 'others cannot create shards, change or drop the table, nor attach a table to it',
  role => 'shard_reader');
SELECT fails('ALTER TABLE foreign_shard INHERIT owned', '42501',
  title => 'the owner cannot attach the table of another', role => 'shard_user');
GRANT shard_user TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT shard_fdw.create_shards('owned', 1);
RESET ROLE;
REVOKE shard_user FROM shard_reader;
CREATE TABLE model (id int, n int);
SELECT results_eq($$ SELECT relowner::regrole::text FROM pg_class
                      WHERE relname = 'owned_4' $$,
  $$ VALUES ('shard_user') $$,
  'a member of the owner role creates shards for it');
SELECT fails($$ SELECT shard_fdw.create_shards('owned', 1, 'model') $$, '42501',
  title => 'the owner must be allowed to read the template, whoever calls');
SELECT fails($$ CREATE FOREIGN TABLE bad (id int, n int) SERVER shards
     OPTIONS (shards '1', template 'model') $$, '42501',
  title => 'the owner must be allowed to read the template, whoever calls, also in CREATE FOREIGN '
           'TABLE', role => 'shard_user');
CREATE SERVER private FOREIGN DATA WRAPPER shard_fdw;
SELECT fails('CREATE FOREIGN TABLE bad (id int) SERVER private OPTIONS (shards ''1'')', '42501',
  'permission denied for foreign server private', title => 'USAGE on the server is needed',
  role => 'shard_user');
SELECT is_empty($$ SELECT names_like('bad') $$,
  'none of these commands left anything behind');

-- what is in the owner's tables does not run as the caller

CREATE SEQUENCE runs_as_owner;
CREATE SEQUENCE runs_as_other;
GRANT ALL ON SEQUENCE runs_as_owner, runs_as_other TO PUBLIC;
CREATE FUNCTION who() RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  PERFORM CASE current_user WHEN 'shard_user'
          THEN nextval('public.runs_as_owner')
          ELSE nextval('public.runs_as_other') END;
  RETURN true;
END $$;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE trap (id int) SERVER shards OPTIONS (shards '1');
CREATE INDEX ON trap_0 (id) WHERE who();
RESET ROLE;
SELECT setval('runs_as_owner', 1, false), setval('runs_as_other', 1, false);
SELECT shard_fdw.create_shards('trap', 1);
SELECT results_eq('SELECT o.is_called, c.is_called
                     FROM runs_as_owner o, runs_as_other c',
  'VALUES (true, false)', 'create_shards() works as the owner of the table');
SELECT is(current_user, session_user,
  'create_shards() works as the owner of the table, and the caller is who it was');

-- privileges on the logical table are all it takes

CREATE TABLE row_commands (command text);
INSERT INTO row_commands
VALUES ('SELECT * FROM owned'), ('INSERT INTO owned VALUES (7)'),
       ('INSERT INTO owned SELECT 7'), ('UPDATE owned SET id = 7'),
       ('DELETE FROM owned'), ('TRUNCATE owned');
SELECT results_eq($$ SELECT command, state, message FROM row_commands,
                            error_of(command, 'shard_reader') $$,
  $$ SELECT command, '42501', 'permission denied for foreign table owned'
       FROM row_commands $$,
  'no privileges');
GRANT INSERT ON owned TO shard_reader;
SET LOCAL ROLE shard_reader;
INSERT INTO owned (id) VALUES (7);
INSERT INTO owned (id) SELECT g FROM generate_series(8, 20) g;
COPY owned (id) FROM stdin;
21
\.
RESET ROLE;
SELECT results_eq('SELECT id, t, secret FROM owned WHERE id >= 7 ORDER BY id',
  $$ SELECT g, 'none'::text, 'secret'::text FROM generate_series(7, 21) g $$,
  'INSERT on the logical table is enough to insert');
SELECT fails('SELECT * FROM owned', '42501',
  title => 'INSERT on the logical table is enough to insert, not to read', role => 'shard_reader');
SELECT fails('INSERT INTO owned (id) VALUES (8) RETURNING id', '42501',
  title => 'INSERT on the logical table is enough to insert, not for RETURNING',
  role => 'shard_reader');
SELECT fails('INSERT INTO owned_0 VALUES (8)', '42501',
  title => 'INSERT on the logical table is enough to insert, not to insert into a shard by its name', role => 'shard_reader');
SELECT fails('INSERT INTO owned (id)
                    SELECT 20 FROM generate_series(1, 6)', '23505',
  title => 'INSERT on the logical table is enough to insert: constraints of the shards hold',
  role => 'shard_reader');
REVOKE INSERT ON owned FROM shard_reader;
GRANT SELECT ON owned TO shard_reader;
SELECT results_eq($$ SELECT run_as('shard_reader',
    'SELECT count(*), sum(id), count(DISTINCT tableoid) FROM owned') $$,
  $$ VALUES ('(21,231,5)') $$, 'SELECT on the logical table is enough to read');
SET LOCAL constraint_exclusion = on;
SELECT results_eq($$ SELECT run_as('shard_reader',
    'SELECT count(*), sum(id), count(DISTINCT tableoid) FROM owned') $$,
  $$ VALUES ('(21,231,5)') $$,
  'SELECT on the logical table is enough to read, with constraint_exclusion = on, too');
RESET constraint_exclusion;
SET LOCAL enable_seqscan = off;
SELECT results_eq($$ SELECT run_as('shard_reader',
    'SELECT a.id, b.secret FROM owned a JOIN owned b USING (id)
      WHERE a.id IN (3, 15) ORDER BY 1') $$,
  $$ VALUES ('(3,secret)'), ('(15,secret)') $$,
  'SELECT on the logical table is enough to read, by an index, in a join');
RESET enable_seqscan;
SELECT fails('SELECT * FROM owned_0', '42501',
  title => 'SELECT on the logical table is enough to read, not to read a shard by its name',
  role => 'shard_reader');
SELECT fails('INSERT INTO owned (id) VALUES (22)', '42501',
  title => 'SELECT on the logical table is enough to read, not to insert',
  role => 'shard_reader');
SELECT fails('UPDATE owned SET id = id', '42501',
  title => 'SELECT on the logical table is enough to read, not to update',
  role => 'shard_reader');
GRANT UPDATE, DELETE ON owned TO shard_reader;
SET LOCAL ROLE shard_reader;
UPDATE owned SET t = 'updated' WHERE id > 10;
DELETE FROM owned WHERE id > 15;
RESET ROLE;
SELECT results_eq('SELECT t, count(*) FROM owned GROUP BY 1 ORDER BY 1',
  $$ VALUES ('none', 10::bigint), ('updated', 5) $$,
  'UPDATE and DELETE on the logical table are enough, too');
REVOKE ALL ON owned FROM shard_reader;

-- a view gives what its owner may do

SET LOCAL ROLE shard_user;
CREATE VIEW owned_view AS SELECT id, t FROM owned WHERE id < 100;
GRANT SELECT, INSERT ON owned_view TO shard_reader;
SET LOCAL ROLE shard_reader;
INSERT INTO owned_view VALUES (50, 'view');
RESET ROLE;
SELECT results_eq($$ SELECT run_as('shard_reader',
    'SELECT * FROM owned_view WHERE id > 20') $$,
  $$ VALUES ('(50,view)') $$, 'INSERT and SELECT through the owner''s view');

-- columns, compared with a plain table

CREATE TABLE owned_plain (
  id int, t text DEFAULT 'none', secret text DEFAULT 'secret',
  n int GENERATED ALWAYS AS IDENTITY, CONSTRAINT id_min CHECK (id > 0));
CREATE FOREIGN TABLE columns (
  id int, t text DEFAULT 'none', secret text DEFAULT 'secret',
  n int GENERATED ALWAYS AS IDENTITY, CONSTRAINT id_min CHECK (id > 0)
) SERVER shards;
CREATE TABLE columns_turned (
  x text DEFAULT 'hidden', n int NOT NULL, secret text, t text, id int,
  CONSTRAINT id_min CHECK (id > 0));
ALTER TABLE columns_turned INHERIT columns;
GRANT INSERT (id, t), SELECT (t, tableoid) ON columns, owned_plain
  TO shard_reader;
CREATE TABLE attempts (attempt text);
INSERT INTO attempts
VALUES ('INSERT INTO % (id, t) VALUES (1, $$x$$)'),
       ('INSERT INTO % (id, t) SELECT 2, $$y$$'),
       ('INSERT INTO % (id) VALUES (3) RETURNING t'),
       ('INSERT INTO % (id) VALUES (3) RETURNING id'),
       ('INSERT INTO % (id, secret) VALUES (3, $$x$$)'),
       ('INSERT INTO % VALUES (3)'),
       ('INSERT INTO % VALUES (3, $$x$$, $$x$$)'),
       ('INSERT INTO % (id) VALUES (0)'),
       ('INSERT INTO % (id, t) VALUES (0, $$z$$), (1, $$z$$)'),
       ('INSERT INTO % (id, t) SELECT 0, $$z$$ FROM generate_series(1, 3)'),
       ('INSERT INTO % (id) VALUES (0) RETURNING t'),
       ('SELECT t FROM %'),
       ('SELECT count(*) FROM %'),
       ('SELECT id FROM %'),
       ('SELECT t FROM % WHERE id = 1'),
       ('SELECT % FROM %'),
       ('UPDATE % SET t = t'),
       ('DELETE FROM %');
GRANT SELECT ON attempts TO shard_reader;

-- Error code and detail, or else the result.
CREATE FUNCTION try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
  detail text;
BEGIN
  IF command ~ '^SELECT|RETURNING' THEN
    EXECUTE command INTO result;
  ELSE
    EXECUTE command;
  END IF;
  RETURN coalesce(result, 'done');
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN concat_ws(' ', SQLSTATE, detail);
END $$;
SELECT bag_eq($$ SELECT run_as('shard_reader', 'SELECT attempt,
    try(replace(attempt, ''%'', ''columns'')) FROM attempts') $$,
  $$ SELECT run_as('shard_reader', 'SELECT attempt,
    try(replace(attempt, ''%'', ''owned_plain'')) FROM attempts') $$,
  'column privileges let through, refuse and hide as on a plain table');
SELECT results_eq('SELECT x, n, secret, t, id FROM columns_turned ORDER BY n',
  $$ SELECT 'hidden', n, secret, t, id FROM owned_plain ORDER BY n $$,
  'column privileges let through, refuse and hide as on a plain table, and the same rows have got in');
SELECT fails('INSERT INTO columns (id) VALUES (0)', NULL,
  detail => 'Failing row contains (id, t) = (0, none).',
  title => 'an error message does not show what the role may not see', role => 'shard_reader');

--
-- Detaching that is rolled back
--

CREATE FOREIGN TABLE undone (a int) SERVER shards OPTIONS (shards '2', route 'round_robin');
INSERT INTO undone SELECT generate_series(1, 10);
PREPARE undone_before AS SELECT count(*) FROM undone;
SELECT results_eq('EXECUTE undone_before', 'SELECT 10::bigint', 'before detaching');
SAVEPOINT s;
ALTER TABLE undone_0 NO INHERIT undone;
SELECT results_eq('EXECUTE undone_before', 'SELECT 5::bigint', 'one shard is detached');
SAVEPOINT t;
ALTER TABLE undone_1 NO INHERIT undone;
PREPARE undone_within AS SELECT count(*) FROM undone;
SELECT results_eq('EXECUTE undone_within', 'SELECT 0::bigint', 'both are');
RELEASE t;
INSERT INTO undone SELECT generate_series(11, 20) WHERE false;
ROLLBACK TO s;
SELECT results_eq('SELECT count(*) FROM undone', 'SELECT 10::bigint',
  'after a rollback all rows are back');
SELECT results_eq('EXECUTE undone_before', 'SELECT 10::bigint',
  'after a rollback all rows are back, in a statement prepared before');
SELECT results_eq('EXECUTE undone_within', 'SELECT 10::bigint',
  'after a rollback all rows are back, in a statement prepared meanwhile');
INSERT INTO undone SELECT generate_series(11, 20);
SELECT is((SELECT array_agg(n) FROM (SELECT count(*) AS n FROM undone GROUP BY tableoid) t),
  '{10,10}', 'after a rollback all rows are back, and both shards take rows');

SELECT * FROM finish();
ROLLBACK;
