-- COPY into a logical table, compared with COPY into a plain table.
BEGIN;
SELECT no_plan();

\ir helpers.psql

SELECT current_setting('server_version_num')::int >= 170000 AS v17 \gset

CREATE FUNCTION path() RETURNS text LANGUAGE sql
AS $$ SELECT current_setting('data_directory') || '/shard_fdw_copy_test' $$;

-- A file that the server can read.
CREATE FUNCTION write_file(content text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  lo oid := lo_from_bytea(0, convert_to(content, 'UTF8'));
BEGIN
  PERFORM lo_export(lo, path());
  PERFORM lo_unlink(lo);
  RETURN path();
END $$;

-- Returns the number in the command tag.
CREATE FUNCTION copy_in(target text, content text, options text DEFAULT '')
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('COPY %s FROM %L %s', target, write_file(content), options);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

CREATE PROCEDURE copy_each(targets text[], content text)
LANGUAGE plpgsql AS $$
DECLARE
  target text;
BEGIN
  FOREACH target IN ARRAY targets LOOP
    PERFORM copy_in(target, content);
  END LOOP;
END $$;

-- What COPY FROM raises, and the line that it blames.
CREATE FUNCTION copy_error(target text, content text, options text DEFAULT '',
                           OUT state text, OUT message text, OUT context text)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM copy_in(target, content, options);
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                          context = PG_EXCEPTION_CONTEXT;
  context := (regexp_match(context, '(?n)^COPY .*$'))[1];
END $$;

-- From PostgreSQL 16 on it is core that collects rows for a foreign table,
-- and it then names no line.  Nobody may name a wrong one.
CREATE FUNCTION blames(context text, line int) RETURNS bool LANGUAGE sql AS $$
  SELECT context ~ format('^COPY log, line %s($|[:,])', line) OR
         (context = 'COPY log' AND
          current_setting('server_version_num')::int >= 160000)
$$;

CREATE FUNCTION lines(n int, expr text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE format('SELECT string_agg(%s, E''\n'' ORDER BY g) || E''\n''
                    FROM generate_series(1, %s) g', expr, n) INTO result;
  RETURN result;
END $$;

-- Rows of the most and of the least filled shard.
CREATE FUNCTION spread(logical regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  result bigint;
BEGIN
  EXECUTE format('SELECT max(n) - min(n) FROM (
                    SELECT count(l.ctid) AS n FROM shard_fdw.shards s
                      LEFT JOIN %s l ON l.tableoid = s.shard
                     WHERE s.logical = %L::regclass AND s.state = ''open''
                     GROUP BY s.shard) x', logical, logical) INTO result;
  RETURN result;
END $$;

CREATE FOREIGN TABLE log (
  id bigint DEFAULT -1,
  a int DEFAULT 7,
  msg text
) SERVER shards OPTIONS (shards '4', route 'round_robin');
CREATE TABLE plain (id bigint DEFAULT -1, a int DEFAULT 7, msg text);

-- formats

COPY log FROM STDIN;
1	10	one
2	\N	tab\tand\nnewline
3	30	\N
\.
SELECT is(:ROW_COUNT, 3, 'the command tag counts the rows');
SELECT bag_eq('SELECT * FROM log',
  $$ VALUES (1::bigint, 10, 'one'), (2, NULL, E'tab\tand\nnewline'),
            (3, 30, NULL) $$,
  'text');
SELECT is((SELECT tableoid::regclass FROM log WHERE id = 3),
  shard_fdw.last_shard(), 'last_shard() is where the last row went');
TRUNCATE log;

COPY log FROM STDIN (FORMAT csv, HEADER, NULL 'nil');
id,a,msg
1,10,"quoted, with ""quotes""
and a line break"
2,nil,nil
3,30,"nil"
4,40,
\.
SELECT bag_eq('SELECT * FROM log',
  $$ VALUES (1::bigint, 10, E'quoted, with "quotes"\nand a line break'),
            (2, NULL, NULL), (3, 30, 'nil'), (4, 40, '') $$,
  'csv with a header, quotes and a NULL string');
TRUNCATE log;

COPY log (msg, id) FROM STDIN (DELIMITER '|', NULL '-');
one|1
-|2
\.
SELECT bag_eq('SELECT * FROM log',
  $$ VALUES (1::bigint, 7, 'one'), (2, 7, NULL) $$,
  'a column list, a delimiter, and defaults for what is not listed');
TRUNCATE log;

SELECT is(copy_in('log', E'id;a;msg\n1;2;x\n',
                  $$ (FORMAT csv, HEADER match, DELIMITER ';') $$), 1::bigint,
  'HEADER match');
SELECT results_eq($$ SELECT state FROM copy_error('log', E'id;msg;a\n1;2;x\n',
                       '(FORMAT csv, HEADER match, DELIMITER '';'')') $$,
  $$ VALUES ('22P04') $$, 'HEADER match knows the columns of the logical table');
SELECT results_eq('SELECT * FROM log', $$ VALUES (1::bigint, 2, 'x') $$,
  'HEADER match, and only the right file got in');
TRUNCATE log;

COPY log FROM PROGRAM 'seq 1 10 | sed "s/$/,5,x/"' (FORMAT csv);
SELECT results_eq('SELECT count(*), sum(id), min(a) FROM log',
  'VALUES (10::bigint, 55::numeric, 5)', 'from a program');
\copy log (id) FROM PROGRAM 'seq 11 20'
SELECT results_eq('SELECT count(*), sum(id) FROM log',
  'VALUES (20::bigint, 210::numeric)', 'psql''s \copy');
TRUNCATE log;

INSERT INTO plain SELECT g, NULLIF(g % 10, 0), 'binary ' || g
  FROM generate_series(1, 3000) g;
DO $$ BEGIN
  EXECUTE format('COPY plain TO %L (FORMAT binary)', path());
  EXECUTE format('COPY log FROM %L (FORMAT binary)', path());
END $$;
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain', 'binary');
SELECT cmp_ok(spread('log'), '<=', 1::bigint, 'binary COPY, evenly spread');
TRUNCATE log, plain;

SELECT is(copy_in('log', E'1\t1\tx\n2\t2\ty\n3\t3\tz\n', 'WHERE id <> 2'),
  2::bigint, 'WHERE leaves rows out of the command tag');
SELECT bag_eq('SELECT id FROM log', 'VALUES (1::bigint), (3)',
  'WHERE leaves rows out of the command tag, and out of the table');
TRUNCATE log;

SELECT is(copy_in('log', ''), 0::bigint, 'no rows');
SELECT is(copy_in('log', E'id,a,msg\n', '(FORMAT csv, HEADER)'), 0::bigint,
  'a header only');
SELECT is(copy_in('log', E'1\t1\tx\n', 'WHERE false'), 0::bigint,
  'WHERE leaves nothing');
SELECT is_empty('SELECT * FROM log', 'so nothing is there');

\if :v17
SET LOCAL client_min_messages = warning;
SELECT is(copy_in('log', E'1\t1\tx\nbad\t2\ty\n3\t3\tz\n', '(ON_ERROR ignore)'),
  2::bigint, 'ON_ERROR ignore');
SELECT bag_eq('SELECT id, msg FROM log', $$ VALUES (1::bigint, 'x'), (3, 'z') $$,
  'ON_ERROR ignore skips the bad row only');
TRUNCATE log;
SELECT is(copy_in('log', E'1\tD\tx\n2\t5\ty\n', $$ (DEFAULT 'D') $$), 2::bigint,
  'the DEFAULT option');
SELECT bag_eq('SELECT id, a FROM log', 'VALUES (1::bigint, 7), (2, 5)',
  'the DEFAULT option gives the default of the logical table');
RESET client_min_messages;
TRUNCATE log;
\endif

-- FREEZE

SELECT format($$ CREATE FOREIGN TABLE frozen (id int) SERVER shards OPTIONS (shards '1');
                  COPY frozen FROM %L (FREEZE) $$, write_file(E'1\n')) AS freeze \gset
SELECT fails(:'freeze', '0A000', title => 'FREEZE is refused');
SELECT throws_matching(:'freeze',
  '^cannot perform COPY FREEZE on (a foreign table|foreign table "frozen")$',
  'FREEZE is refused, with a clear message');

-- many rows: more than one flush, by number and by size

CREATE FOREIGN TABLE leased (id bigint DEFAULT -1, a int DEFAULT 7, msg text)
SERVER shards OPTIONS (shards '4');
SELECT is(copy_in('log', lines(7003, $$ format(E'%s\t%s\trow %s', g, g % 7, g) $$)),
  7003::bigint, 'thousands of rows, round robin');
CALL copy_each('{plain}', lines(7003, $$ format(E'%s\t%s\trow %s', g, g % 7, g) $$));
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain',
  'thousands of rows, round robin, as in a plain table');
SELECT is(spread('log'), 1::bigint, 'thousands of rows, round robin: shares differ by one at most');
SELECT is(copy_in('leased', lines(7003, $$ format(E'%s\t%s\trow %s', g, g % 7, g) $$)),
  7003::bigint, 'thousands of rows, session');
SELECT bag_eq('SELECT * FROM leased', 'SELECT * FROM plain',
  'thousands of rows, session, as in a plain table');
SELECT results_eq('SELECT DISTINCT tableoid::regclass FROM leased',
  'SELECT shard FROM shard_fdw.leases
    WHERE logical = $$leased$$::regclass AND pid = pg_backend_pid()',
  'thousands of rows, session, all in the leased shard');
TRUNCATE log, leased, plain;

CALL copy_each('{log,leased,plain}', lines(1000, $$ format(E'%s\t0\t%s', g,
  (SELECT string_agg(md5((g * 100 + i)::text), '')
     FROM generate_series(1, 50) i)) $$));
SELECT bag_eq('SELECT id, md5(msg) AS m FROM log', 'SELECT id, md5(msg) FROM plain',
  'wide rows, round robin');
SELECT bag_eq('SELECT id, md5(msg) AS m FROM leased', 'SELECT id, md5(msg) FROM plain',
  'wide rows, session');
SELECT is(spread('log'), 0::bigint, 'wide rows, session: shares are equal');
TRUNCATE log, leased, plain;

CALL copy_each('{log,leased,plain}', lines(60, $$ format(E'%s\t0\t%s', g,
  (SELECT string_agg(md5((g * 1000 + i)::text), '')
     FROM generate_series(1, 1000) i)) $$));
SELECT bag_eq('SELECT id, md5(msg) AS m FROM log', 'SELECT id, md5(msg) FROM plain',
  'toasted values, round robin');
SELECT bag_eq('SELECT id, md5(msg) AS m FROM leased', 'SELECT id, md5(msg) FROM plain',
  'toasted values, session');
SELECT is((SELECT count(*) FROM shard_fdw.shards s
             JOIN pg_class c ON c.oid = s.shard
            WHERE s.logical = 'log'::regclass
              AND pg_relation_size(c.reltoastrelid) > 15 * 16000), 4::bigint,
  'toasted values, session, and each shard has toasted its share');
TRUNCATE log, leased, plain;

-- expressions that look at the table see the rows before their own

CREATE FUNCTION rows_in(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s', target) INTO n;
  RETURN n;
END $$;

SELECT is(copy_in('plain', lines(40, 'g::text || E''\t0\tx'''),
                  'WHERE rows_in(''plain'') < 25'),
  25::bigint, 'a volatile function in WHERE, plain table');
SELECT is(copy_in('log', lines(40, 'g::text || E''\t0\tx'''),
                  'WHERE rows_in(''log'') < 25'),
  25::bigint, 'a volatile function in WHERE, round robin');
SELECT is(copy_in('leased', lines(40, 'g::text || E''\t0\tx'''),
                  'WHERE rows_in(''leased'') < 25'),
  25::bigint, 'a volatile function in WHERE, session');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain',
  'a volatile function in WHERE, the same rows everywhere');
TRUNCATE log, leased, plain;

CREATE FOREIGN TABLE counted (id int, n bigint) SERVER shards
OPTIONS (shards '3', route 'round_robin');
CREATE TABLE counted_plain (id int, n bigint DEFAULT rows_in('counted_plain'));
ALTER TABLE counted ALTER n SET DEFAULT rows_in('counted');
CALL copy_each('{counted (id),counted_plain (id)}', lines(30, 'g::text'));
SELECT results_eq('SELECT id, n FROM counted ORDER BY id',
  'SELECT g, g - 1::bigint FROM generate_series(1, 30) g',
  'a volatile default');
SELECT bag_eq('SELECT * FROM counted', 'SELECT * FROM counted_plain',
  'a volatile default, as in a plain table');
CREATE FOREIGN TABLE own (id int) SERVER shards OPTIONS (route 'round_robin');
CREATE TABLE own_0 (id int, n bigint DEFAULT rows_in('own'));
CREATE TABLE own_1 (id int);
ALTER TABLE own_0 INHERIT own;
ALTER TABLE own_1 INHERIT own;
CALL copy_each('{own}', lines(30, 'g::text'));
SELECT is_empty('SELECT * FROM own_0 WHERE n <> id - 1',
  'a volatile default of a column that only a shard has');
CREATE SEQUENCE numbers;
ALTER TABLE counted ALTER n SET DEFAULT nextval('numbers');
TRUNCATE counted;
CALL copy_each('{counted (id)}', lines(3000, 'g::text'));
SELECT is_empty('SELECT * FROM counted WHERE id <> n',
  'nextval() in a default gives numbers in the order of the file');

-- errors name the line, and leave nothing behind

CREATE UNIQUE INDEX ON leased_0 (id);
CREATE UNIQUE INDEX ON leased_1 (id);
CREATE UNIQUE INDEX ON leased_2 (id);
CREATE UNIQUE INDEX ON leased_3 (id);
ALTER FOREIGN TABLE log RENAME TO robin;
ALTER FOREIGN TABLE leased RENAME TO log;
ALTER FOREIGN TABLE log ADD CONSTRAINT small CHECK (a < 100);
ALTER FOREIGN TABLE log ALTER id SET NOT NULL;
INSERT INTO log VALUES (-5, 0, 'before');
SELECT shard_fdw.last_shard() AS shard \gset

SELECT results_eq($$ SELECT * FROM copy_error('log',
                       E'1\t1\tx\n2\t2\ty\nthree\t3\tz\n') $$,
  $$ VALUES ('22P02', 'invalid input syntax for type bigint: "three"',
             'COPY log, line 3, column id: "three"') $$,
  'a bad value');
SELECT results_eq($$ SELECT * FROM copy_error('log',
                       lines(2500, 'g::text || E''\t0\t'' || g') || 'end') $$,
  $$ VALUES ('22P02', 'invalid input syntax for type bigint: "end"',
             'COPY log, line 2501, column id: "end"') $$,
  'a bad value, after a flush');
SELECT results_eq($$ SELECT * FROM copy_error('log', E'1\t1\tx\n2\t2\n') $$,
  $$ VALUES ('22P04', 'missing data for column "msg"',
             'COPY log, line 2: "2' || chr(9) || '2"') $$,
  'a missing column');
SELECT results_eq($$ SELECT state, message, blames(context, 3)
                       FROM copy_error('log', E'1\t1\tx\n2\t2\ty\n3\t300\tz\n4\t4\t4\n') $$,
  format($$ VALUES ('23514', 'new row for relation "%s" violates check constraint "small"',
                    true) $$, :'shard'),
  'a check constraint');
SELECT results_eq($$ SELECT state, blames(context, 2200)
                       FROM copy_error('log', lines(5000,
                         'g::text || E''\t'' || CASE g WHEN 2200 THEN 100 ELSE 1 END || E''\t'' '
                         '|| g')) $$,
  $$ VALUES ('23514', true) $$, 'a check constraint, after a flush');
SELECT results_eq($$ SELECT state, message, blames(context, 2)
                       FROM copy_error('log', E'1\t1\tx\n\\N\t2\ty\n3\t3\tz\n') $$,
  format($$ VALUES ('23502', 'null value in column "id" of relation "%s" violates not-null '
                             'constraint',
                    true) $$, :'shard'),
  'a not-null constraint');
SELECT results_eq($$ SELECT state, blames(context, 700)
                       FROM copy_error('log', lines(1500,
                         'CASE g WHEN 700 THEN 650 ELSE g END || E''\t1\t'' || g')) $$,
  $$ VALUES ('23505', true) $$,
  'a unique violation in the middle of a flush');
SELECT results_eq($$ SELECT state, blames(context, 4321)
                       FROM copy_error('log', lines(5000,
                         'CASE g WHEN 4321 THEN 1 ELSE g END || E''\t1\t'' || g')) $$,
  $$ VALUES ('23505', true) $$,
  'a unique violation in the middle of a flush, with a row of an earlier flush');
SELECT results_eq($$ SELECT state, blames(context, 1)
                       FROM copy_error('log', E'-5\t1\tx\n') $$,
  $$ VALUES ('23505', true) $$,
  'a unique violation in the middle of a flush, with a row that was there before');
SELECT results_eq($$ SELECT state, blames(context, 4)
                       FROM copy_error('log', E'id,a,msg\n1,1,"x\ny"\n-5,1,z\n5,5,5\n',
                                       '(FORMAT csv, HEADER)') $$,
  $$ VALUES ('23505', true) $$,
  'lines are counted as core does, headers and line breaks included');
SELECT results_eq('SELECT * FROM log', $$ VALUES (-5::bigint, 0, 'before') $$,
  'failed COPYs have left nothing behind');
SELECT is(copy_in('log', lines(2500, 'g::text || E''\t0\t'' || g')), 2500::bigint,
  'the same ids get in afterwards');
TRUNCATE log;

-- The line of the row at fault, when rows wait for several shards.
ALTER FOREIGN TABLE log RENAME TO leased;
ALTER FOREIGN TABLE robin RENAME TO log;
CREATE UNIQUE INDEX ON log_0 (msg);
CREATE UNIQUE INDEX ON log_1 (msg);
CREATE UNIQUE INDEX ON log_2 (msg);
CREATE UNIQUE INDEX ON log_3 (msg);
SELECT results_eq($$ SELECT state, blames(context, 1005)
                       FROM copy_error('log', lines(1800,
                         'g || E''\t0\t'' || CASE g WHEN 1005 THEN 1001 ELSE g END')) $$,
  $$ VALUES ('23505', true) $$, 'a unique violation in one of several shards');
SELECT is_empty('SELECT * FROM log',
  'a unique violation in one of several shards: nothing is left in any');

-- COPY TO

SELECT fails(format('COPY log TO %L', path()), '42809', 'cannot copy from foreign table "log"',
  title => 'COPY TO needs a SELECT');
CALL copy_each('{log}', lines(100, 'g || E''\t0\t'' || g'));
DO $$ BEGIN
  EXECUTE format('COPY (SELECT * FROM log) TO %L', path());
  EXECUTE format('COPY plain FROM %L', path());
END $$;
SELECT bag_eq('SELECT * FROM plain', 'SELECT * FROM log', 'COPY (SELECT) TO');
TRUNCATE log, plain;

-- in a transaction with other statements

INSERT INTO log VALUES (1, 1, 'insert');
COPY log FROM STDIN;
2	2	copy
\.
INSERT INTO log SELECT id + 2, a, msg || ' again' FROM log;
SAVEPOINT s;
COPY log FROM STDIN;
100	0	gone
\.
SELECT is((SELECT count(*) FROM log), 5::bigint, 'COPY and INSERT in turn');
ROLLBACK TO s;
COPY log FROM STDIN;
5	5	last
\.
SELECT bag_eq('SELECT id, msg FROM log',
  $$ VALUES (1::bigint, 'insert'), (2, 'copy'), (3, 'insert again'),
            (4, 'copy again'), (5, 'last') $$,
  'rows of a COPY that was rolled back are gone, the others are not');
SELECT cmp_ok(spread('log'), '<=', 2::bigint,
  'single rows, batches and COPY take turns');
TRUNCATE log;

-- where rows go

SET LOCAL shard_fdw.shard = 2;
CALL copy_each('{log,leased}', lines(10, 'g || E''\t0\t'' || g'));
SELECT results_eq('SELECT DISTINCT tableoid::regclass FROM log',
  $$ VALUES ('log_2'::regclass) $$, 'shard_fdw.shard, round robin');
SELECT is((SELECT count(*) FROM leased_2 WHERE msg = id::text AND id <= 10), 10::bigint,
  'shard_fdw.shard, session');
SET LOCAL shard_fdw.shard = 4;
SELECT results_eq($$ SELECT state, message, context
                       FROM copy_error('log', E'1\t1\tx\n') $$,
  $$ VALUES ('22023', 'foreign table "log" has no shard number 4', NULL) $$,
  'a number out of range, before any line');
RESET shard_fdw.shard;
TRUNCATE log, leased;

SELECT shard_fdw.seal('log_1');
CALL copy_each('{log}', lines(3000, 'g || E''\t0\t'' || g'));
SELECT bag_eq('SELECT tableoid::regclass::text AS t, count(*) FROM log GROUP BY 1',
  $$ VALUES ('log_0', 1000::bigint), ('log_2', 1000), ('log_3', 1000) $$,
  'a sealed shard gets nothing, the others the same');
SELECT shard_fdw.seal(s) FROM unnest('{log_0,log_2,log_3}'::regclass[]) s;
SELECT results_eq($$ SELECT state, message FROM copy_error('log', E'1\t1\tx\n') $$,
  $$ VALUES ('55000', 'all shards of foreign table "log" are sealed') $$,
  'all shards sealed');
SELECT shard_fdw.unseal(s) FROM unnest('{log_0,log_1,log_2,log_3}'::regclass[]) s;
SELECT shard_fdw.seal(shard) FROM shard_fdw.leases
 WHERE logical = 'leased'::regclass AND pid = pg_backend_pid();
CALL copy_each('{leased}', lines(100, 'g || E''\t0\t'' || g'));
SELECT results_eq('SELECT DISTINCT tableoid::regclass FROM leased',
  'SELECT shard FROM shard_fdw.shards
    WHERE logical = $$leased$$::regclass AND state = $$open$$ AND sessions = 1',
  'when the leased shard is sealed, rows go to another that is leased');
TRUNCATE log, leased;

CREATE FOREIGN TABLE bare (id int) SERVER shards;
SELECT results_eq($$ SELECT state, message FROM copy_error('bare', E'1\n') $$,
  $$ VALUES ('55000', 'foreign table "bare" has no shards') $$,
  'a table without shards');
SELECT is(copy_in('bare', ''), 0::bigint, 'a table without shards takes a COPY of no rows');

-- shards laid out in another way

CREATE FOREIGN TABLE odd (a int, b text, c int DEFAULT 3) SERVER shards
OPTIONS (route 'round_robin');
CREATE TABLE odd_order (c int, b text, a int);
CREATE TABLE odd_dropped (x int, a int, y text, b text, c int);
ALTER TABLE odd_dropped DROP COLUMN x, DROP COLUMN y;
CREATE TABLE odd_extra (extra text DEFAULT 'filled', b text, a int, c int,
                        n serial, plus int GENERATED ALWAYS AS (a + c) STORED,
                        empty int);
CREATE TABLE odd_same (a int, b text, c int);
ALTER TABLE odd_order INHERIT odd;
ALTER TABLE odd_dropped INHERIT odd;
ALTER TABLE odd_extra INHERIT odd;
ALTER TABLE odd_same INHERIT odd;
SELECT is(copy_in('odd (b, a)', lines(4000, 'md5(g::text) || E''\t'' || g')),
  4000::bigint, 'shards with other layouts');
SELECT results_eq('SELECT a, b, c FROM odd ORDER BY a',
  'SELECT g, md5(g::text), 3 FROM generate_series(1, 4000) g',
  'shards with other layouts: columns are matched by name');
SELECT is(spread('odd'), 0::bigint, 'shards with other layouts, all got their share');
SELECT results_eq(
  'SELECT count(*), count(DISTINCT n), min(n), max(n), min(extra), max(extra),
          bool_and(plus = a + c), count(empty) FROM odd_extra',
  $$ VALUES (1000::bigint, 1000::bigint, 1, 1000, 'filled', 'filled', true,
             0::bigint) $$,
  'shards with other layouts, with defaults and generated columns of their own');
ALTER TABLE odd_extra ADD CHECK (a < 5000);
SET LOCAL shard_fdw.shard = 1;
SELECT results_eq($$ SELECT state, message, blames(replace(context, 'odd', 'log'), 3)
                       FROM copy_error('odd', E'1\tx\t1\n2\tx\t1\n5000\tx\t1\n') $$,
  $$ VALUES ('23514',
      'new row for relation "odd_extra" violates check constraint "odd_extra_a_check"',
             true) $$,
  'a constraint of one of them is checked');
RESET shard_fdw.shard;
SELECT is((SELECT count(*) FROM odd), 4000::bigint,
  'a constraint of one of them is checked, with nothing left behind');
TRUNCATE odd;

-- generated columns, identity, domains and other types

CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FOREIGN TABLE typed (
  id int GENERATED BY DEFAULT AS IDENTITY,
  p pair, d positive, arr int[],
  twice int GENERATED ALWAYS AS (d * 2) STORED
) SERVER shards OPTIONS (shards '2', route 'round_robin');
COPY typed (p, d, arr) FROM STDIN;
(1,one)	1	{1,NULL,3}
(2,"two, too")	2	{}
\N	3	\N
\.
COPY typed (id, d) FROM STDIN;
77	4
\.
SELECT results_eq('SELECT id, p, d::int, arr, twice FROM typed ORDER BY d',
  $$ VALUES (1, '(1,one)'::pair, 1, '{1,NULL,3}'::int[], 2),
            (2, '(2,"two, too")', 2, '{}', 4),
            (3, NULL, 3, NULL, 6), (77, NULL, 4, NULL, 8) $$,
  'identity, composite, domain, array and generated columns');
SELECT results_eq($$ SELECT * FROM copy_error('typed (d)', E'1\n2\n0\n') $$,
  $$ VALUES ('23514', 'value for domain positive violates check constraint "positive_check"',
             'COPY typed, line 3, column d: "0"') $$,
  'a domain is checked');
SELECT results_eq($$ SELECT state FROM copy_error('typed (twice)', E'1\n') $$,
  $$ VALUES ('42P10') $$, 'a generated column takes no value');
SELECT is((SELECT count(*) FROM typed), 4::bigint,
  'a generated column takes no value, with nothing left behind');

-- row triggers on shards

CREATE TABLE noted (seq serial, who text, what text, id bigint, n bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  target regclass := TG_ARGV[0];
BEGIN
  INSERT INTO noted (who, what, id, n)
  VALUES (TG_TABLE_NAME, TG_WHEN || ' ' || TG_LEVEL || ' ' || TG_OP,
          CASE WHEN TG_LEVEL = 'ROW' THEN NEW.id END, rows_in(target));
  IF TG_LEVEL = 'ROW' AND TG_WHEN = 'BEFORE' THEN
    IF NEW.msg = 'skip' THEN RETURN NULL; END IF;
    IF NEW.msg = 'raise' THEN RAISE 'trigger says no'; END IF;
    NEW.msg := upper(NEW.msg);
  END IF;
  RETURN NEW;
END $$;

CREATE PROCEDURE on_shards(logical regclass, command text) LANGUAGE plpgsql AS $$
BEGIN
  ASSERT (SELECT bool_and(success)
            FROM shard_fdw.run_command_on_shards(logical, command));
END $$;

TRUNCATE log, plain;
CALL on_shards('log', $$ CREATE TRIGGER note_before BEFORE INSERT ON %s
                         FOR EACH ROW EXECUTE FUNCTION note('log') $$);
CREATE TRIGGER note_before BEFORE INSERT ON plain
  FOR EACH ROW EXECUTE FUNCTION note('plain');
SELECT is(copy_in('log', E'1\t1\ta\n2\t2\tskip\n3\t3\tb\n4\t4\tskip\n5\t5\tc\n'),
  3::bigint, 'rows that a trigger skips are not counted');
SELECT is(copy_in('plain', E'1\t1\ta\n2\t2\tskip\n3\t3\tb\n4\t4\tskip\n5\t5\tc\n'),
  3::bigint, 'rows that a trigger skips are not counted, as in a plain table');
SELECT results_eq('SELECT id, msg FROM log ORDER BY id',
  $$ VALUES (1::bigint, 'A'), (3, 'B'), (5, 'C') $$,
  'BEFORE ROW triggers of shards change rows');
SELECT results_eq(
  $$ SELECT what, id, n FROM noted WHERE who LIKE 'log%' ORDER BY seq $$,
  $$ SELECT what, id, n FROM noted WHERE who = 'plain' ORDER BY seq $$,
  'BEFORE ROW triggers of shards change rows, and see the rows before their own, as in a plain '
  'table');
SELECT results_eq($$ SELECT * FROM copy_error('log',
                       E'6\t6\td\n7\t7\te\n8\t8\traise\n9\t9\tf\n') $$,
  $$ VALUES ('P0001', 'trigger says no',
             'COPY log, line 3: "8' || chr(9) || '8' || chr(9) || 'raise"') $$,
  'BEFORE ROW triggers of shards change rows, and may raise');
SELECT is((SELECT count(*) FROM log), 3::bigint,
  'BEFORE ROW triggers of shards change rows, which leaves nothing behind');

-- Triggers on two shards of four: rows that wait for the others are seen.
DROP TRIGGER note_before ON log_1;
DROP TRIGGER note_before ON log_3;
TRUNCATE log, noted;
SELECT is(copy_in('log', lines(400, 'g || E''\t0\t'' || g')), 400::bigint,
  'triggers on some of the shards only');
SELECT results_eq('SELECT count(*), bool_and(n = id - 1) FROM noted',
  'VALUES (200::bigint, true)',
  'triggers on some of the shards only: they see all rows before their own');
DROP TRIGGER note_before ON log_0;
DROP TRIGGER note_before ON log_2;
DROP TRIGGER note_before ON plain;

CALL on_shards('log', $$ CREATE TRIGGER note_after AFTER INSERT ON %s
                         FOR EACH ROW EXECUTE FUNCTION note('log') $$);
CREATE TRIGGER note_after AFTER INSERT ON plain
  FOR EACH ROW EXECUTE FUNCTION note('plain');
TRUNCATE log, plain, noted;
CALL copy_each('{log,plain}', lines(2500, 'g || E''\t0\t'' || g'));
SELECT bag_eq(
  $$ SELECT what, id, n FROM noted WHERE who LIKE 'log%' $$,
  $$ SELECT what, id, n FROM noted WHERE who = 'plain' $$,
  'AFTER ROW triggers of shards, as of a plain table');
SELECT is_empty('SELECT id FROM log EXCEPT
                 SELECT n.id FROM noted n JOIN log l
                     ON l.id = n.id AND l.tableoid::regclass::text = n.who',
  'AFTER ROW triggers of shards, as of a plain table: each fired for the rows of its own shard');
CALL on_shards('log', 'DROP TRIGGER note_after ON %s');
DROP TRIGGER note_after ON plain;

-- triggers on the logical table

CREATE PROCEDURE note_all(target regclass) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER a BEFORE INSERT ON %1$s
                  FOR EACH ROW EXECUTE FUNCTION note(%1$L)', target);
  EXECUTE format('CREATE TRIGGER b AFTER INSERT ON %1$s
                  FOR EACH ROW EXECUTE FUNCTION note(%1$L)', target);
  EXECUTE format('CREATE TRIGGER c BEFORE INSERT ON %1$s
                  FOR EACH STATEMENT EXECUTE FUNCTION note(%1$L)', target);
  EXECUTE format('CREATE TRIGGER d AFTER INSERT ON %1$s
                  FOR EACH STATEMENT EXECUTE FUNCTION note(%1$L)', target);
END $$;
CALL note_all('log');
CALL note_all('plain');
TRUNCATE log, plain, noted;
SELECT is(copy_in('log', E'1\t1\ta\n2\t2\tskip\n3\t3\tb\n'), 2::bigint,
  'row and statement triggers on the logical table');
CALL copy_each('{plain}', E'1\t1\ta\n2\t2\tskip\n3\t3\tb\n');
CALL copy_each('{log,plain}', '');
CALL copy_each('{log,plain}', lines(300, '10 + g || E''\t0\t'' || g'));
SELECT results_eq(
  $$ SELECT what, id, n FROM noted WHERE who = 'log' ORDER BY seq $$,
  $$ SELECT what, id, n FROM noted WHERE who = 'plain' ORDER BY seq $$,
  'row and statement triggers on the logical table fire as those of a plain table do');
SELECT bag_eq('SELECT * FROM log', 'SELECT * FROM plain',
  'row and statement triggers on the logical table, and change and skip the same rows');
SELECT results_eq($$ SELECT * FROM copy_error('log', E'6\t6\ta\n7\t7\traise\n') $$,
  $$ VALUES ('P0001', 'trigger says no',
             'COPY log, line 2: "7' || chr(9) || '7' || chr(9) || 'raise"') $$,
  'row and statement triggers on the logical table, and may raise');
DROP TRIGGER a ON log;
DROP TRIGGER b ON log;
DROP TRIGGER a ON plain;
DROP TRIGGER b ON plain;
TRUNCATE log, plain, noted;
CALL copy_each('{log,plain}', lines(3000, 'g || E''\t0\t'' || g'));
SELECT results_eq(
  $$ SELECT what, n FROM noted WHERE who = 'log' ORDER BY seq $$,
  $$ VALUES ('BEFORE STATEMENT INSERT', 0::bigint),
            ('AFTER STATEMENT INSERT', 3000) $$,
  'statement triggers alone: AFTER sees all rows');
DROP TRIGGER c ON log;
DROP TRIGGER d ON log;

-- Rows of the one shard wait, those of the other do not: writing those that wait
-- must not touch the row at hand.  The constraint uses the memory that it is in.
CREATE TABLE mixed_ids AS SELECT generate_series(1, 400)::bigint AS id;
ALTER TABLE mixed_ids ADD PRIMARY KEY (id);
CREATE FOREIGN TABLE mixed (id bigint, msg text, CHECK (length(repeat('-', 500) || msg) > 0))
  SERVER shards OPTIONS (shards '2', route 'round_robin');
CREATE INDEX ON mixed_0 (id);
ALTER TABLE mixed_1 ADD FOREIGN KEY (id) REFERENCES mixed_ids;
SELECT is(copy_in('mixed', lines(400, 'g || E''\t'' || repeat(g::text, 30)')), 400::bigint,
  'a shard with a foreign key, and one without');
SELECT is((SELECT count(*) FROM mixed WHERE msg = repeat(id::text, 30)), 400::bigint,
  'a shard with a foreign key and one without get the values that were sent');

-- A trigger of a shard that starts a COPY of its own in the middle of ours.
CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('COPY leased FROM %L', path() || '2');
  RETURN NEW;
END $$;
TRUNCATE log, leased;
DO $$ BEGIN
  EXECUTE format('COPY (SELECT NULL::int, 1, ''nested'' FROM generate_series(1, 3))
                    TO %L', path() || '2');
END $$;
CREATE TRIGGER nested BEFORE INSERT ON log_2 FOR EACH ROW
  EXECUTE FUNCTION nested();
ALTER FOREIGN TABLE leased ALTER id DROP NOT NULL;
CALL copy_each('{log}', lines(2200, 'g || E''\t0\t'' || g'));
SELECT results_eq('SELECT (SELECT count(*) FROM log), (SELECT sum(id) FROM log),
                          (SELECT count(*) FROM leased)',
  'VALUES (2200::bigint, 2200 * 2201 / 2::numeric, 1650::bigint)',
  'a COPY inside a COPY');
SELECT results_eq($$ SELECT state, context FROM copy_error('log',
                       lines(2200, 'g || E''\t0\tmore '' || g') || E'x\tx\tx\n') $$,
  $$ VALUES ('22P02', 'COPY log, line 2201, column id: "x"') $$,
  'a COPY inside a COPY: lines are still counted right');
DROP TRIGGER nested ON log_2;

-- foreign keys of shards

CREATE TABLE kinds (id int PRIMARY KEY);
INSERT INTO kinds SELECT generate_series(0, 9);
CREATE FOREIGN TABLE keyed (id int, parent int, kind int) SERVER shards
OPTIONS (shards '3');
CALL on_shards('keyed', 'ALTER TABLE %s ADD PRIMARY KEY (id)');
CALL on_shards('keyed', 'ALTER TABLE %s ADD FOREIGN KEY (parent) REFERENCES %s');
CALL on_shards('keyed', 'ALTER TABLE %s ADD CONSTRAINT kind
                           FOREIGN KEY (kind) REFERENCES kinds');
SELECT is(copy_in('keyed', lines(3000, $$ format(E'%s\t%s\t%s', g,
                             CASE WHEN g < 3000 THEN g + 1 ELSE 1 END, g % 10) $$)),
  3000::bigint, 'foreign keys to rows that come later, within the shard');
SELECT results_eq($$ SELECT state, context FROM copy_error('keyed',
                       lines(2500, $_$ format(E'%s\t%s\t%s', g + 3000,
                             CASE WHEN g < 2500 THEN g + 3001 ELSE 5501 END, 1) $_$)) $$,
  $$ VALUES ('23503', NULL::text) $$, 'a key that is missing');
SELECT results_eq($$ SELECT state, message FROM copy_error('keyed',
                       lines(2500, $_$ format(E'%s\t%s\t%s', g + 3000, g + 3000,
                             CASE WHEN g < 2500 THEN 1 ELSE 10 END) $_$)) $$,
  $$ SELECT '23503', format('insert or update on table "%s" violates foreign key constraint "kind"',
                            tableoid::regclass) FROM keyed LIMIT 1 $$,
  'a key that is missing in another table');
SELECT is((SELECT count(*) FROM keyed), 3000::bigint,
  'a key that is missing in another table: nothing is left behind');

-- Deferred ones wait for the end of the transaction.
CALL on_shards('keyed', 'ALTER TABLE %s ALTER CONSTRAINT kind
                           DEFERRABLE INITIALLY DEFERRED');
SELECT is(copy_in('keyed', E'9001\t\\N\t77\n'), 1::bigint, 'a deferred foreign key');
SELECT fails('SET CONSTRAINTS ALL IMMEDIATE', '23503',
  title => 'a deferred foreign key is checked later');
INSERT INTO kinds VALUES (77);
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE', 'a deferred foreign key, and may hold by then');

-- The files were outside the transaction.
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm -f shard_fdw_copy_test shard_fdw_copy_test2';

SELECT * FROM finish();
ROLLBACK;
