-- Which shard a row goes to.
--
-- Leases outlive transactions, so the first half works through sessions of
-- its own on tables that it commits in schema route_test and drops again.
-- This session must not touch those tables: the others would wait for its
-- locks for ever.
BEGIN;
SELECT no_plan();

SET LOCAL client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dblink;

\ir helpers.psql

CREATE PROCEDURE connect(name text) LANGUAGE sql AS $$
  SELECT dblink_connect(name, format(
    'host=%s port=%s dbname=%s user=%s options=''-c statement_timeout=60s -c '
    'search_path=route_test,public -c client_min_messages=warning''',
    split_part(current_setting('unix_socket_directories'), ',', 1),
    current_setting('port'), current_database(), current_user));
$$;

-- Runs a command in a session; returns its command tag or its only value.
CREATE FUNCTION run(name text, command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF command ~ '^(SELECT|EXPLAIN|EXECUTE|SHOW)' THEN
    RETURN (SELECT v FROM dblink(name, command) t(v text));
  END IF;
  RETURN dblink_exec(name, command);
END $$;

CREATE PROCEDURE go(name text, command text) LANGUAGE sql
AS $$ SELECT run(name, command) $$;

-- One row; returns where it went.
CREATE FUNCTION ins(name text, target text DEFAULT 'log') RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM dblink_exec(name, format('INSERT INTO %s VALUES (1)', target));
  RETURN run(name, 'SELECT shard_fdw.last_shard()::text');
END $$;

CREATE PROCEDURE put(name text, target text DEFAULT 'log') LANGUAGE sql
AS $$ SELECT ins(name, target) $$;

CREATE FUNCTION pid(name text) RETURNS int LANGUAGE sql AS $$
  SELECT run(name, 'SELECT pg_backend_pid()::text')::int
$$;

-- What a session leases, as "logical shard level".  The names are resolved in
-- a session that sees them.
CREATE FUNCTION leases(name text) RETURNS text LANGUAGE sql AS $$
  SELECT run('admin', format(
    'SELECT string_agg(logical || '' '' || shard || '' '' || level, '', '' ORDER BY logical::text)
       FROM shard_fdw.leases WHERE pid = %s', pid(name)))
$$;

-- Locks of the leasing kind that a session has, in the view or not.
CREATE FUNCTION locks(name text) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*) FROM pg_locks
   WHERE locktype = 'advisory' AND pid = pid(name)
$$;

CALL connect('admin');
CALL go('admin', 'DROP SCHEMA IF EXISTS route_test CASCADE');
CALL go('admin', 'CREATE SCHEMA route_test');
CALL go('admin', 'CREATE FOREIGN TABLE log (id int) SERVER shards OPTIONS (shards ''4'')');
CALL go('admin', 'CREATE FOREIGN TABLE log2 (id int) SERVER shards OPTIONS (shards ''3'')');

-- one session

CALL connect('a');
SELECT is(run('a', 'SELECT shard_fdw.last_shard()::text'), NULL,
  'last_shard() is null before the first row');
SELECT is(locks('a'), 0::bigint, 'no lease before the first row');
CALL go('a', 'SELECT count(*)::text FROM log');
SELECT is(locks('a'), 0::bigint, 'reading takes no lease');

SELECT ins('a') AS shard \gset
SELECT matches(:'shard'::text, '^log_[0-3]$', 'a row goes to one of the shards');
SELECT is(leases('a'), 'log ' || :'shard'::text || ' 0',
  'a row goes to one of the shards, which is leased at level 0');
SELECT is(run('a',
    format('SELECT string_agg(concat_ws('' '', classid::regclass, objid, objsubid, mode, granted,
                                     database = (SELECT oid FROM pg_database
                                                  WHERE datname = current_database())), '','')
                             FROM pg_locks WHERE locktype = ''advisory'' AND pid = %s', pid('a'))),
  :'shard'::text || ' 0 28784 ExclusiveLock t t',
  'a row goes to one of the shards, as pg_locks shows');
SELECT is(run('admin', 'SELECT string_agg(shard::text, '','') FROM shard_fdw.shards
                         WHERE logical = ''log''::regclass AND sessions = 1'),
  :'shard'::text, 'a row goes to one of the shards, and shard_fdw.shards');
SELECT is(run('admin', 'SELECT sum(sessions)::text FROM shard_fdw.shards
                         WHERE logical = ''log''::regclass'), '1',
    'a row goes to one of the shards, once');
SELECT results_eq($$ SELECT ins('a') FROM generate_series(1, 3) $$,
  format($$ SELECT %L FROM generate_series(1, 3) $$, :'shard'::text),
  'it is kept over statements and transactions');

CALL go('a', 'BEGIN');
SELECT is(ins('a'), :'shard'::text,
  'it is kept over statements and transactions, in a transaction');
CALL go('a', 'SAVEPOINT s');
CALL go('a', 'INSERT INTO log SELECT generate_series(1, 1000)');
CALL go('a', 'ROLLBACK TO s');
SELECT is(ins('a'), :'shard'::text,
  'it is kept over statements and transactions, over ROLLBACK TO SAVEPOINT');
CALL go('a', 'ROLLBACK');
SELECT is(leases('a'), 'log ' || :'shard'::text || ' 0',
  'it is kept over statements and transactions, over ROLLBACK');
SELECT fails(
  $$ SELECT run('a', 'INSERT INTO log SELECT 1 / (3 - g) FROM generate_series(1, 5) g') $$, '22012',
  title => 'a statement that fails');
SELECT is(ins('a'), :'shard'::text, 'a statement that fails does not change it');
SELECT is(leases('a'), 'log ' || :'shard'::text || ' 0',
  'a statement that fails, and one lease is all there is');

CALL connect('b');
CALL go('b', 'BEGIN');
SELECT ins('b') AS shard_b \gset
CALL go('b', 'ROLLBACK');
SELECT isnt(:'shard_b'::text, :'shard'::text, 'a second session takes another shard');
SELECT is(leases('b'), 'log ' || :'shard_b'::text || ' 0',
  'a session keeps the lease that it got in a transaction that was rolled back');
SELECT is(ins('b'), :'shard_b'::text, 'a second session takes another shard, and uses it');

-- losing the lease behind our back

CALL go('b', 'SELECT pg_advisory_unlock_all()::text');
SELECT is(leases('b'), NULL, 'pg_advisory_unlock_all() releases the lease');
DO $$
DECLARE
  c text;
BEGIN
  FOREACH c IN ARRAY '{c,d,e}'::text[] LOOP
    CALL connect(c);
    CALL put(c);
  END LOOP;
END $$;
SELECT is(run('admin',
    'SELECT string_agg(shard || '' '' || level, '', '' ORDER BY shard || '' '' || level)
                          FROM shard_fdw.leases WHERE logical = ''log''::regclass'),
  'log_0 0, log_1 0, log_2 0, log_3 0',
  'pg_advisory_unlock_all() releases the lease, so that others can take the shard');
SELECT is('log ' || ins('b') || ' 1', leases('b'),
  'after pg_advisory_unlock_all() the next insert leases again, now a shard that another session '
  'has');
CALL go('b', 'BEGIN');
CALL put('b');
CALL go('b', 'SELECT pg_advisory_unlock_all()::text');
SELECT ok(ins('b') IS NOT NULL AND leases('b') IS NOT NULL,
  'pg_advisory_unlock_all() releases the lease in the middle of a transaction, too');
CALL go('b', 'COMMIT');
CALL go('b', 'DISCARD ALL');
CALL go('b', 'SET search_path = route_test, public');
SELECT is(leases('b'), NULL, 'DISCARD ALL releases the lease');
SELECT is('log ' || ins('b') || ' 1', leases('b'),
  'DISCARD ALL releases the lease, and the next insert leases again');

-- more sessions than shards

DO $$
DECLARE
  c text;
BEGIN
  FOREACH c IN ARRAY '{f,g,h}'::text[] LOOP
    CALL connect(c);
    CALL put(c);
  END LOOP;
END $$;
SELECT is(run('admin', 'SELECT string_agg(shard || '' '' || sessions, '', '' ORDER BY ordinal)
                          FROM shard_fdw.shards WHERE logical = ''log''::regclass'),
  'log_0 2, log_1 2, log_2 2, log_3 2', 'eight sessions share four shards evenly');
SELECT is(run('admin',
    'SELECT string_agg(DISTINCT shard || '' '' || level, '', '' ORDER BY shard || '' '' || level)
                          FROM shard_fdw.leases WHERE logical = ''log''::regclass'),
  'log_0 0, log_0 1, log_1 0, log_1 1, log_2 0, log_2 1, log_3 0, log_3 1',
  'eight sessions share four shards evenly, at two levels');
CALL connect('i');
SELECT matches(ins('i') || leases('i'), '^(log_.)log \1 2$', 'the ninth is at level 2');

CREATE PROCEDURE quit(name text) LANGUAGE plpgsql AS $$
DECLARE
  gone int := pid(name);
BEGIN
  PERFORM dblink_disconnect(name);
  WHILE EXISTS (SELECT FROM pg_locks WHERE pid = gone) LOOP
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;
SELECT leases('d') AS lease_d \gset
CALL quit('d');
CALL connect('j');
CALL put('j');
SELECT is(leases('j'), :'lease_d'::text, 'a session that ends frees its place');
DO $$
DECLARE
  c text;
BEGIN
  FOREACH c IN ARRAY '{c,e,f,g,h,i,j}'::text[] LOOP
    CALL quit(c);
  END LOOP;
END $$;
SELECT is(run('admin', 'SELECT count(*)::text FROM shard_fdw.leases'), '2',
  'leases of sessions that have ended are gone');

-- the leased shard goes away

SELECT ins('a') AS shard \gset
CALL go('admin', format('SELECT shard_fdw.seal(%L)::text', :'shard'::text));
SELECT ins('a') AS second \gset
SELECT isnt(:'second'::text, :'shard'::text, 'when the shard is sealed, rows go elsewhere');
SELECT is(leases('a'), 'log ' || :'second'::text || ' 0',
  'when the shard is sealed, rows go elsewhere, and the old lease is gone');
SELECT is(locks('a'), 1::bigint, 'when the shard is sealed, rows go elsewhere, entirely');
CALL go('admin', format('SELECT shard_fdw.unseal(%L)::text', :'shard'::text));
SELECT is(ins('a'), :'second'::text,
  'when the shard is sealed, rows go elsewhere, and stays gone when it is unsealed');
SELECT run('admin', format('SELECT count(*)::text FROM %I', :'second'::text)) AS before \gset
CALL go('admin', format('ALTER TABLE %I NO INHERIT log', :'second'::text));
SELECT ins('a') AS third \gset
SELECT isnt(:'third'::text, :'second'::text, 'when the shard is detached, rows go elsewhere');
SELECT is(run('admin', format('SELECT count(*)::text FROM %I', :'second'::text)), :'before'::text,
  'when the shard is detached, rows go elsewhere, and not into the detached table');
SELECT is(leases('a') || locks('a'), 'log ' || :'third'::text || ' 01',
  'when the shard is detached, rows go elsewhere, and the old lease is gone');
CALL go('admin', format('ALTER TABLE %I INHERIT log', :'second'::text));
SELECT is(ins('a'), :'third'::text,
  'when the shard is detached, rows go elsewhere, and stays gone when it is attached again');
CALL go('admin', format('DROP TABLE %I', :'third'::text));
SELECT ins('a') AS fourth \gset
SELECT isnt(:'fourth'::text, :'third'::text, 'when the shard is dropped, rows go elsewhere');
SELECT is(leases('a') || locks('a'), 'log ' || :'fourth'::text || ' 01',
  'when the shard is dropped, rows go elsewhere, and the old lease is gone');
CALL go('admin', 'SELECT count(*)::text FROM shard_fdw.create_shards(''log'', 2)');
SELECT is(ins('a'), :'fourth'::text, 'new shards change nothing');
CALL go('admin', format('ALTER TABLE %I RENAME TO renamed', :'fourth'::text));
SELECT is(ins('a'), 'renamed', 'nor does renaming');
CALL go('a', 'BEGIN');
CALL go('a', 'SELECT shard_fdw.seal(''renamed'')::text');
SELECT ins('a') AS fifth \gset
CALL go('a', 'ROLLBACK');
SELECT isnt(:'fifth'::text, 'renamed'::text, 'sealing counts at once in the same transaction');
SELECT is(ins('a'), :'fifth'::text, 'after sealing is rolled back the session stays where it went');

-- several logical tables

SELECT ins('a', 'log2') AS other \gset
SELECT matches(:'other'::text, '^log2_[0-2]$', 'another logical table');
SELECT is(leases('a'), format('log %s 0, log2 %s 0', :'fifth'::text, :'other'::text),
  'another logical table has a lease of its own');
CALL go('a', 'BEGIN');
SELECT is(ins('a'), :'fifth'::text, 'inserts into one');
SELECT is(ins('a', 'log2'), :'other'::text, 'inserts into one table, and into the other');
CALL go('a', 'COMMIT');
SELECT is(locks('a'), 2::bigint, 'inserts into one table need no more leases');

-- user advisory locks are another matter

SELECT run('admin', format('SELECT ''%s''::regclass::oid::text', :'fifth'::text)) AS oid \gset
SELECT is(run('b', format('SELECT pg_try_advisory_lock(%s, 0)::text', :oid)), 'true',
  'advisory locks of two numbers do not clash with leases');
SELECT is(run('b', format('SELECT pg_try_advisory_lock(%s::bigint << 32)::text', :oid)), 'true',
  'advisory locks of two numbers do not clash with leases, nor do those of one');
SELECT is(run('a', format('SELECT pg_try_advisory_lock(%s, 0)::text', :oid)), 'false',
  'advisory locks of two numbers do not clash with leases, which lock each other out as ever');
SELECT is(run('a', 'SELECT pg_advisory_unlock(' || :oid || ', 0)::text'), 'false',
  'nobody can unlock a lease by its number');
SELECT is(leases('a'), format('log %s 0, log2 %s 0', :'fifth'::text, :'other'::text),
  'nobody can unlock a lease by its number: it is still there');
SELECT matches(ins('b') || leases('b'), '^(\w+)log \1 [01]$',
  'shard_fdw.leases shows no user locks');
CALL go('a', 'SELECT pg_advisory_unlock_all()::text');
SELECT is(leases('a'), NULL, 'shard_fdw.leases shows no user locks, nor what was released');
-- With all numbers taken by a user, a lease is still to be had.
CALL go('b', 'SELECT count(pg_advisory_lock(shard::oid::int, 0))::text FROM shard_fdw.shards');
SELECT matches(ins('a') || leases('a'), '^(\w+)log \1 0$', 'locks of users do not stop leases');
CALL go('b', 'SELECT pg_advisory_unlock_all()::text');

-- dropping the logical table

CALL put('a', 'log2');
SELECT is(locks('a'), 2::bigint, 'leases on two tables');
CALL go('admin', 'DROP FOREIGN TABLE log2 CASCADE');
SELECT is(run('a', 'SELECT shard_fdw.last_shard()::text'), NULL,
  'last_shard() is null when the shard has been dropped');
SELECT is(leases('a') !~ 'log2', true, 'a dropped table is not among the leases');
CALL go('admin', 'CREATE FOREIGN TABLE log3 (id int) SERVER shards OPTIONS (shards ''2'')');
CALL put('a', 'log3');
SELECT is(locks('a'), 2::bigint,
  'a dropped table is not among the leases, and the next lease sweeps up the old one');
CALL go('a', 'BEGIN');
CALL go('a', 'CREATE FOREIGN TABLE brief (id int) SERVER shards OPTIONS (shards ''2'')');
SELECT matches(ins('a', 'brief'), '^brief_[01]$', 'a table of the same transaction');
CALL go('a', 'ROLLBACK');
CALL go('a', 'SELECT pg_advisory_unlock(1)::text');
CALL go('admin', 'CREATE FOREIGN TABLE log4 (id int) SERVER shards OPTIONS (shards ''2'')');
CALL put('a', 'log4');
SELECT is(locks('a'), 3::bigint,
  'a table of the same transaction leaves no lease for ever when it is rolled back');

-- two-phase commit

SELECT current_setting('max_prepared_transactions')::int > 0 AS two_phase \gset
\if :two_phase
SELECT ins('a') AS shard \gset
CALL go('a', 'BEGIN');
CALL go('a', 'INSERT INTO log SELECT 4711 FROM generate_series(1, 10)');
CALL go('a', 'PREPARE TRANSACTION ''route_test''');
SELECT is(ins('a'), :'shard'::text, 'a lease is not part of a prepared transaction');
CALL go('b', 'COMMIT PREPARED ''route_test''');
SELECT is(run('b', 'SELECT count(*)::text FROM log WHERE id = 4711'), '10',
  'a lease is not part of a prepared transaction, whose rows come with its commit');
\endif

-- A pin keeps to its shard in later transactions, whatever others do.
CALL go('admin', 'CREATE FOREIGN TABLE steady (id int) SERVER shards OPTIONS (shards ''8'')');
CALL go('a', 'SET shard_fdw.shard = 4');
SELECT is(ins('a', 'steady'), 'steady_4', 'a pinned session');
CALL go('admin', 'DROP TABLE steady_1');
SELECT is(ins('a', 'steady'), 'steady_4',
  'a pinned session keeps to its shard after another has been dropped');
CALL go('a', 'BEGIN');
CALL go('a', 'SET LOCAL shard_fdw.shard = 4');
SELECT is(ins('a', 'steady'), 'steady_5',
  'a pinned session, but for a transaction with a setting of its own');
CALL go('a', 'SET LOCAL shard_fdw.shard = 0');
SELECT is(ins('a', 'steady'), 'steady_0', 'a pinned session, or two');
CALL go('a', 'COMMIT');
SELECT is(ins('a', 'steady'), 'steady_4', 'a pinned session, and afterwards');
CALL go('a', 'BEGIN');
CALL go('a', 'SET shard_fdw.shard = 0');
CALL go('a', 'ROLLBACK');
SELECT is(ins('a', 'steady'), 'steady_4',
  'a pinned session, or after a setting that is rolled back');
CALL go('a', 'SET shard_fdw.shard = 4');
SELECT is(ins('a', 'steady'), 'steady_5', 'setting it anew counts anew');
CALL go('a', 'BEGIN');
CALL go('a', 'DROP TABLE steady_0');
CALL go('a', 'SET shard_fdw.shard = 4');
SELECT is(ins('a', 'steady'), 'steady_6',
  'setting it anew counts anew, in a transaction that has dropped another');
CALL go('a', 'ROLLBACK');
SELECT is(ins('a', 'steady'), 'steady_5',
  'setting it anew counts anew, and keeps to what it was when that is rolled back');
CALL go('a', 'SET shard_fdw.shard = 2');
CALL go('a', 'BEGIN');
CALL go('a', 'DROP TABLE steady_0');
SELECT is(ins('a', 'steady'), 'steady_4', 'a first row in a transaction with DDL');
CALL go('a', 'ROLLBACK');
SELECT is(ins('a', 'steady'), 'steady_3',
  'a first row in a transaction with DDL that is rolled back does not count');
CALL go('admin', 'DROP TABLE steady_3');
SELECT fails($$ CALL put('a', 'steady') $$, '55000',
  'a shard of foreign table "steady" no longer exists',
  title => 'without its shard a pinned session fails');
SELECT fails($$ CALL go('a', 'COPY steady FROM PROGRAM ''echo 1''') $$, '55000',
  'a shard of foreign table "steady" no longer exists',
  title => 'without its shard a pinned session fails, with COPY, too');
CALL go('a', 'SET shard_fdw.shard = 2');
SELECT is(ins('a', 'steady'), 'steady_4',
  'without its shard a pinned session fails, until it is set anew');
CALL go('a', 'RESET shard_fdw.shard');

CALL go('admin', 'DROP SCHEMA route_test CASCADE');
CALL quit('a');
CALL quit('b');
CALL quit('admin');

-- From here on everything is in this transaction.

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

-- round robin

CREATE FOREIGN TABLE rr (id int) SERVER shards OPTIONS (shards '4', route 'round_robin');
CREATE FUNCTION mixed() RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..23 LOOP
    INSERT INTO rr VALUES (i);
    RETURN NEXT spread('rr');
  END LOOP;
  INSERT INTO rr SELECT generate_series(24, 1030);
  RETURN NEXT spread('rr');
  INSERT INTO rr VALUES (1031), (1032), (1033);
  RETURN NEXT spread('rr');
  COPY rr FROM PROGRAM 'seq 1034 3040';
  RETURN NEXT spread('rr');
  WITH i AS (INSERT INTO rr VALUES (3041), (3042) RETURNING id)
  INSERT INTO rr SELECT id + 2 FROM i;
  RETURN NEXT spread('rr');
  COPY rr FROM PROGRAM 'seq 3045 3045';
  RETURN NEXT spread('rr');
  INSERT INTO rr SELECT 3046;
  RETURN NEXT spread('rr');
END $$;
SELECT is((SELECT max(s) FROM mixed() s), 1::bigint,
  'round robin: shares never differ by more than one');
SELECT results_eq('SELECT count(*), count(DISTINCT id), max(id) FROM rr',
  'VALUES (3046::bigint, 3046::bigint, 3046)',
  'round robin: shares never differ by more than one, and no row is lost');
SELECT is((SELECT count(*) FROM shard_fdw.leases WHERE logical = 'rr'::regclass), 0::bigint,
  'round robin: shares never differ by more than one, and no lease is taken');
SELECT shard_fdw.seal('rr_2');
TRUNCATE rr;
INSERT INTO rr SELECT generate_series(1, 10);
INSERT INTO rr VALUES (11);
INSERT INTO rr VALUES (12);
SELECT bag_eq('SELECT tableoid::regclass::text AS t, count(*) FROM rr GROUP BY 1',
  $$ VALUES ('rr_0', 4::bigint), ('rr_1', 4), ('rr_3', 4) $$, 'a sealed shard is left out');
SELECT shard_fdw.unseal('rr_2');
DO $$ BEGIN PERFORM shard_fdw.create_shards('rr', 2); END $$;
TRUNCATE rr;
INSERT INTO rr SELECT generate_series(1, 12);
SELECT results_eq('SELECT count(*), count(DISTINCT tableoid) FROM rr',
  'VALUES (12::bigint, 6::bigint)', 'unsealed and new shards join in');
SELECT is(spread('rr'), 0::bigint, 'unsealed and new shards join in, with equal shares');

-- Others' temporary tables and our own are no place for rows that are to last.
CREATE TEMP TABLE rr_temp () INHERITS (rr);
INSERT INTO rr SELECT generate_series(1, 14);
SELECT is((SELECT count(*) FROM rr_temp), 0::bigint, 'a temporary table gets no rows');
DROP TABLE rr_temp;

-- A change of a table without columns is noticed as well.
CREATE FOREIGN TABLE bare () SERVER shards OPTIONS (shards '2', route 'round_robin');
INSERT INTO bare DEFAULT VALUES;
INSERT INTO bare DEFAULT VALUES;
SELECT results_eq('SELECT (SELECT count(*) FROM bare_0), (SELECT count(*) FROM bare_1)',
  'VALUES (1::bigint, 1::bigint)', 'a table without columns');
ALTER TABLE bare_0 NO INHERIT bare;
INSERT INTO bare DEFAULT VALUES;
INSERT INTO bare DEFAULT VALUES;
SELECT results_eq('SELECT (SELECT count(*) FROM bare_0), (SELECT count(*) FROM bare_1)',
  'VALUES (1::bigint, 3::bigint)', 'a table without columns notices that a shard is gone');

-- the pin

CREATE FOREIGN TABLE wide (id int) SERVER shards OPTIONS (shards '12');
SELECT is(current_setting('shard_fdw.shard'), '-1', 'the default is -1');
SET LOCAL shard_fdw.shard = 10;
INSERT INTO wide VALUES (1);
INSERT INTO wide VALUES (2), (3);
INSERT INTO wide SELECT generate_series(4, 9);
COPY wide FROM PROGRAM 'seq 10 20';
SELECT results_eq('SELECT tableoid::regclass::text, count(*) FROM wide GROUP BY 1',
  $$ VALUES ('wide_10', 20::bigint) $$,
  'shard_fdw.shard sends all rows to the n-th shard; numbers in names count as numbers');
SELECT is((SELECT count(*) FROM shard_fdw.leases WHERE logical = 'wide'::regclass), 0::bigint,
  'shard_fdw.shard sends all rows to the n-th shard without a lease');
SELECT is((SELECT shard FROM shard_fdw.shards
            WHERE logical = 'wide'::regclass AND ordinal = 10), 'wide_10'::regclass,
  'shard_fdw.shard sends rows to the shard that has the number in the view');
SET LOCAL shard_fdw.shard = 3;
TRUNCATE rr;
INSERT INTO rr SELECT generate_series(1, 9);
INSERT INTO rr VALUES (10);
SELECT results_eq('SELECT DISTINCT tableoid::regclass FROM rr', $$ VALUES ('rr_3'::regclass) $$,
  'shard_fdw.shard sends all rows to the n-th shard on any route');
PREPARE ins AS INSERT INTO wide VALUES (100);
SET LOCAL plan_cache_mode = force_generic_plan;
EXECUTE ins;
SET LOCAL shard_fdw.shard = 4;
EXECUTE ins;
RESET plan_cache_mode;
SELECT bag_eq('SELECT tableoid::regclass::text AS t FROM wide WHERE id = 100',
  $$ VALUES ('wide_3'), ('wide_4') $$, 'a generic plan follows the setting');

SET LOCAL shard_fdw.shard = -1;
TRUNCATE wide;
INSERT INTO wide VALUES (1);
SELECT shard_fdw.last_shard() AS shard \gset
SAVEPOINT s;
SELECT (substring(:'shard'::text FROM '\d+')::int + 1) % 12 AS next \gset
SET LOCAL shard_fdw.shard = :next;
INSERT INTO wide VALUES (2);
SELECT is(shard_fdw.last_shard()::text, 'wide_' || :next, 'a pin goes before the lease');
ROLLBACK TO s;
INSERT INTO wide VALUES (3);
SELECT is(shard_fdw.last_shard()::text, :'shard'::text,
  'a pin goes before the lease, which is used again afterwards');
CREATE FUNCTION pinned() RETURNS regclass LANGUAGE plpgsql SET shard_fdw.shard = 7 AS $$
BEGIN
  INSERT INTO wide VALUES (4);
  RETURN shard_fdw.last_shard();
END $$;
SELECT is(pinned(), 'wide_7'::regclass, 'a function may have a pin');
INSERT INTO wide VALUES (5);
SELECT is(shard_fdw.last_shard()::text, :'shard'::text, 'a function may have a pin, for itself');

SET LOCAL shard_fdw.shard = 12;
SELECT fails('INSERT INTO wide VALUES (1)', '22023', 'foreign table "wide" has no shard number 12',
  'The table has 12 shards, numbered from 0.',
  'Set "shard_fdw.shard" to a number in that range, or to -1 to let the table''s route decide.',
  title => 'a number out of range');
SELECT fails('INSERT INTO wide SELECT generate_series(1, 9)', '22023',
  title => 'a number out of range, in a batch');
SET LOCAL shard_fdw.shard = 7;
SELECT shard_fdw.seal('wide_7');
SELECT fails('INSERT INTO wide VALUES (1)', '55000',
  'shard "wide_7" of foreign table "wide" is sealed',
  '"shard_fdw.shard" sends this session''s inserts to shard number 7.',
  'Set "shard_fdw.shard" to another number, or to -1 to let the table''s route decide.',
  title => 'a sealed shard');
CREATE FOREIGN TABLE empty (id int) SERVER shards;
SELECT fails('INSERT INTO empty VALUES (1)', '55000', 'foreign table "empty" has no shards',
  title => 'a table without shards');
RESET shard_fdw.shard;
SELECT is(current_setting('shard_fdw.shard'), '-1', 'RESET');

-- It means a shard, not whatever comes to have its number.
CREATE FOREIGN TABLE pins (id int) SERVER shards OPTIONS (shards '4', route 'round_robin');
SAVEPOINT s;
SET LOCAL shard_fdw.shard = 2;
PREPARE to_pins AS INSERT INTO pins VALUES (1);
EXECUTE to_pins;
CREATE TABLE pins_00 (id int);
ALTER TABLE pins_00 INHERIT pins;
SELECT is((SELECT ordinal FROM shard_fdw.list_shards('pins') WHERE shard = 'pins_2'::regclass), 3,
  'a shard gets another number');
EXECUTE to_pins;
INSERT INTO pins VALUES (1);
COPY pins FROM PROGRAM 'seq 1 3';
SELECT results_eq('SELECT DISTINCT tableoid::regclass::text FROM pins', $$ VALUES ('pins_2') $$,
  'a shard gets another number, and is still the one that a pin means');
SAVEPOINT t;
SET LOCAL shard_fdw.shard = 2;
EXECUTE to_pins;
SELECT is(shard_fdw.last_shard()::text, 'pins_1',
  'a shard gets another number, until it is set anew');
ROLLBACK TO t;
EXECUTE to_pins;
SELECT is(shard_fdw.last_shard()::text, 'pins_2',
  'a shard gets another number, unless that is rolled back');
ALTER TABLE pins_2 NO INHERIT pins;
SELECT fails('EXECUTE to_pins', '55000',
  'table "pins_2" is no longer a shard of foreign table "pins"',
  '"shard_fdw.shard" sends this session''s inserts to it.',
  'Set "shard_fdw.shard" again, or to -1 to let the table''s route decide.',
  title => 'a shard that has been detached is no longer meant by its number');
ALTER TABLE pins_2 INHERIT pins;
EXECUTE to_pins;
SELECT is(shard_fdw.last_shard()::text, 'pins_2',
  'a shard that has been detached is no longer meant by its number, and is again when it comes back');
SELECT shard_fdw.seal('pins_2');
SELECT fails('EXECUTE to_pins', NULL, 'shard "pins_2" of foreign table "pins" is sealed',
  title => 'a shard that has been detached is no longer meant by its number: sealed or not');
ROLLBACK TO s;
SET LOCAL shard_fdw.shard = 2;
SAVEPOINT t;
DROP TABLE pins_0;
EXECUTE to_pins;
SELECT is(shard_fdw.last_shard()::text, 'pins_3', 'a number with a savepoint''s DDL');
ROLLBACK TO t;
EXECUTE to_pins;
SELECT is(shard_fdw.last_shard()::text, 'pins_2',
  'a number with a savepoint''s DDL does not outlive the savepoint');
INSERT INTO pins SELECT CASE WHEN g = 3 THEN set_config('shard_fdw.shard', '0', true)::int
  ELSE g END FROM generate_series(1, 5) g;
SELECT is(shard_fdw.last_shard()::text, 'pins_2', 'a statement under way keeps its pin');
INSERT INTO pins VALUES (1);
SELECT is(shard_fdw.last_shard()::text, 'pins_0',
  'a statement under way keeps its pin, and the next one has the new one');
CREATE FOREIGN TABLE pins_hash (id int) SERVER shards OPTIONS (shards '2', route 'hash', key 'id');
INSERT INTO pins_hash SELECT g FROM generate_series(1, 100) g WHERE shard_fdw.in_hash(2, 0, g);
SELECT shard_fdw.reshard('pins_hash', 4);
SELECT fails(
  'INSERT INTO pins_hash SELECT g FROM generate_series(1, 100) g WHERE shard_fdw.in_hash(4, 0, g)',
  NULL, 'a shard of foreign table "pins_hash" no longer exists',
  title => 'reshard() makes other shards');
ROLLBACK TO s;
RESET shard_fdw.shard;

SELECT fails('SET shard_fdw.shard = ''first''', '22023',
  'invalid value for parameter "shard_fdw.shard": "first"', title => 'a word is no number');
SELECT fails('SET shard_fdw.shard = -2', '22023', title => 'nor is -2 a shard');
SELECT fails('SET shard_fdw.shard = 2147483648', '22023', title => 'nor what is too big');
SELECT fails('SET shard_fdw.shards = 1', '42602',
  'invalid configuration parameter name "shard_fdw.shards"',
  title => 'unknown settings are refused');
SELECT fails('SELECT set_config(''shard_fdw.route'', ''session'', true)', '42602',
  title => 'unknown settings are refused, however they are set');

-- all shards sealed, and none at all

SELECT shard_fdw.seal(shard) FROM shard_fdw.shards
 WHERE logical = 'rr'::regclass;
SELECT fails('INSERT INTO rr VALUES (1)', '55000', 'all shards of foreign table "rr" are sealed',
  hint => 'Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT '
          'shard_fdw.unseal().',
  title => 'all shards sealed, round robin');
SELECT shard_fdw.seal(shard) FROM shard_fdw.shards
 WHERE logical = 'wide'::regclass AND state = 'open';
SELECT fails('INSERT INTO wide SELECT 1', '55000', 'all shards of foreign table "wide" are sealed',
  title => 'all shards sealed, round robin: session');
SELECT fails('INSERT INTO empty VALUES (1)', '55000', 'foreign table "empty" has no shards',
  hint => 'Create shards with SELECT shard_fdw.create_shards(), or attach an existing table with '
          'ALTER TABLE ... INHERIT.',
  title => 'no shards at all');
SELECT shard_fdw.unseal('wide_5');
INSERT INTO wide VALUES (1);
SELECT is(shard_fdw.last_shard(), 'wide_5'::regclass, 'one shard opened again');

-- changes of the route

CREATE FOREIGN TABLE changing (id int) SERVER shards OPTIONS (shards '3');
PREPARE many AS INSERT INTO changing SELECT generate_series(1, 9);
EXECUTE many;
SELECT is((SELECT count(DISTINCT tableoid) FROM changing), 1::bigint, 'session by default');
ALTER FOREIGN TABLE changing OPTIONS (ADD route 'round_robin');
TRUNCATE changing;
EXECUTE many;
SELECT is((SELECT count(DISTINCT tableoid) FROM changing), 3::bigint, 'now round robin');
ALTER FOREIGN TABLE changing OPTIONS (SET route 'session');
TRUNCATE changing;
EXECUTE many;
SELECT results_eq('SELECT DISTINCT tableoid::regclass FROM changing',
  $$ SELECT shard FROM shard_fdw.leases WHERE logical = 'changing'::regclass $$,
  'and session again');
ALTER FOREIGN TABLE changing OPTIONS (DROP route);
ALTER SERVER shards OPTIONS (ADD route 'round_robin');
TRUNCATE changing;
EXECUTE many;
SELECT is((SELECT count(DISTINCT tableoid) FROM changing), 3::bigint,
  'the server''s option counts for tables without one');
ALTER FOREIGN TABLE changing OPTIONS (ADD route 'session');
TRUNCATE changing;
EXECUTE many;
SELECT is((SELECT count(DISTINCT tableoid) FROM changing), 1::bigint,
  'the server''s option counts for tables without one, not for others');

SELECT * FROM finish();
ROLLBACK;
