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
-- How an error reads.
CREATE FUNCTION said(command text) RETURNS text LANGUAGE sql AS $$
  SELECT concat_ws(E'\n', state || ' ' || message, nullif(detail, ''), nullif(hint, '')) FROM error_of(command)
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
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass), 'closed', 'list_shards() tells');
SELECT is((SELECT state FROM shard_fdw.shards WHERE shard = :'first'::regclass), 'closed', 'so does the view');
SELECT is((SELECT closed FROM shard_fdw.closed_shards WHERE shard = :'first'::regclass), now(), 'the table knows since when');
SELECT shard_of_one_row('log') AS second \gset
SELECT isnt(:'second'::text, :'first', 'the session that leased it leases another');
INSERT INTO log SELECT generate_series(1, 10);
INSERT INTO log VALUES (1), (2);
COPY log FROM stdin;
1
2
\.
SELECT is((SELECT count(*) FROM log WHERE tableoid = :'first'::regclass), 1::bigint, 'no row goes there any more');
SELECT is((SELECT count(*) FROM log), 16::bigint, '... and none is lost');
SELECT is((SELECT count(*) FROM shard_fdw.leases WHERE shard = :'first'::regclass AND pid = pg_backend_pid()), 0::bigint, 'the lease is given up');

SELECT lives_ok('UPDATE log SET a = a + 1', 'rows of a closed shard can be updated');
SELECT lives_ok(format('INSERT INTO %s VALUES (7)', :'first'), '... and be inserted by its own name');
SELECT lives_ok('DELETE FROM log WHERE a < 3', '... and be deleted');
SELECT is((SELECT array_agg(a) FROM log WHERE tableoid = :'first'::regclass), '{7}', '... all of that has been done');

SELECT is(said(format('SET LOCAL shard_fdw.shard = %s; INSERT INTO log VALUES (1)', (SELECT ordinal FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass))),
  format('55000 shard "%s" of foreign table "log" is closed
"shard_fdw.shard" sends this session''s inserts to shard number %s.
Open the shard with SELECT shard_fdw.open_shard(), or set "shard_fdw.shard" to another number, or to -1 to let the table''s route decide.', :'first',
    (SELECT ordinal FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass)), 'a closed shard cannot be chosen, either');

SELECT shard_fdw.seal(:'second');
SELECT is(states('log'), (SELECT string_agg(CASE shard::text WHEN :'first' THEN 'closed' WHEN :'second' THEN 'sealed' ELSE 'open' END, ' ' ORDER BY ordinal)
  FROM shard_fdw.list_shards('log')), 'open, closed and sealed');
SELECT shard_fdw.close_shard(shard) FROM shard_fdw.list_shards('log') WHERE state = 'open';
SELECT is(said('INSERT INTO log VALUES (1)'), '55000 all shards of foreign table "log" are closed or sealed
Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT shard_fdw.open_shard().', 'no shard is open');
SELECT shard_fdw.unseal(:'second');
SELECT shard_fdw.close_shard(:'second');
SELECT is(said('INSERT INTO log VALUES (1)'), '55000 all shards of foreign table "log" are closed
Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT shard_fdw.open_shard().', 'all shards are closed');
SELECT is((SELECT count(*) FROM shard_fdw.create_shards('log', 1)), 1::bigint, 'a shard is created in the likeness of a closed one');
SELECT is(shard_of_one_row('log'), 'log_3', '... and is open');

SELECT shard_fdw.seal(:'first');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass), 'sealed', 'a closed shard that is sealed shows as such');
SELECT shard_fdw.unseal(:'first');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass), 'closed', '... and is closed when the seal is lifted');

--
-- Opening
--

SELECT lives_ok(format('SELECT shard_fdw.open_shard(%L)', :'first'), 'a shard is opened');
SELECT is((SELECT state FROM shard_fdw.list_shards('log') WHERE shard = :'first'::regclass), 'open', 'list_shards() tells');
SELECT shard_fdw.close_shard('log_3');
SELECT is(shard_of_one_row('log'), :'first', 'it gets rows again');

-- A rollback, of a subtransaction here, undoes both.
SAVEPOINT s;
SELECT shard_fdw.close_shard(:'first');
SELECT shard_fdw.open_shard('log_3');
SELECT is(shard_of_one_row('log'), 'log_3', 'closed and opened in a subtransaction');
ROLLBACK TO s;
SELECT is(shard_of_one_row('log'), :'first', '... which is rolled back');

-- What it has to say beside errors, seen from outside.
SELECT string_agg(command, '; ') AS commands FROM (VALUES ('BEGIN'), ('SET LOCAL client_min_messages = warning'),
  ('CREATE FOREIGN TABLE noisy (a int) SERVER shards OPTIONS (shards ''2'')'), ('RESET client_min_messages'),
  ('SELECT FROM shard_fdw.open_shard(''noisy_1'')'), ('SELECT FROM shard_fdw.close_shard(''noisy_0'')'),
  ('SELECT FROM shard_fdw.close_shard(''noisy_0'')'), ('SELECT FROM shard_fdw.close_shard(''noisy_1'')'),
  ('SELECT FROM shard_fdw.seal(''noisy_0'')'), ('SELECT FROM shard_fdw.unseal(''noisy_0'')'),
  ('SELECT FROM shard_fdw.seal(''noisy_1'')'), ('SELECT FROM shard_fdw.open_shard(''noisy_1'')'), ('ROLLBACK')) c(command) \gset
\set notices `psql -XqAt -d :'DBNAME' -c :'commands' 2>&1`
SELECT is((SELECT array_agg(line) FROM regexp_split_to_table(:'notices', E'\n') line WHERE line <> ''),
  ARRAY['NOTICE:  shard "noisy_1" is not closed, skipping',
        'NOTICE:  shard "noisy_0" is closed already, skipping',
        'WARNING:  foreign table "noisy" has no open shard left',
        'DETAIL:  It takes no inserts.',
        'HINT:  Create shards with SELECT shard_fdw.create_shards(), or open one with SELECT shard_fdw.open_shard().',
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
SELECT is(said('SELECT shard_fdw.' || f || '(''plain'')'), '42809 "plain" is not a shard
A shard is a table that inherits from a foreign table of shard_fdw.', f || '() of a table that is no shard') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT is(said('SELECT shard_fdw.' || f || '(''log'')'), '42809 "log" is not a shard
A shard is a table that inherits from a foreign table of shard_fdw.', f || '() of a logical table') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT is(said('SELECT shard_fdw.' || f || '(1)'), '42P01 relation with OID 1 does not exist', f || '() of nothing') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT is(said('SELECT shard_fdw.' || f || '(NULL)'), '', f || '(NULL) does nothing') FROM unnest('{close_shard,open_shard}'::text[]) f;
GRANT ALL ON SCHEMA lifecycle_test TO shard_user, shard_reader;
GRANT ALL ON log TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT is(said('SELECT shard_fdw.' || f || '(''log_0'')'), '42501 must be owner of table log_0', f || '() is for the owner') FROM unnest('{close_shard,open_shard}'::text[]) f;
SELECT is((SELECT state FROM error_of('DELETE FROM shard_fdw.closed_shards')), '42501', '... who is not to write into the table');
SELECT is((SELECT state FROM error_of('SELECT FROM shard_fdw.closed_shards')), '42501', '... nor to read it');
SELECT is(states('log') ~ 'closed', true, '... but anybody may know the states');
INSERT INTO log VALUES (1);
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE own (a int) SERVER shards OPTIONS (shards '2');
SELECT is(said('SELECT shard_fdw.close_shard(''own_0'')'), '', 'the owner need not be a superuser');
INSERT INTO own VALUES (1);
SELECT is(shard_fdw.last_shard()::text, 'own_1', '... it is closed');
SELECT is(said('SELECT shard_fdw.open_shard(''own_0'')'), '', '... and opened');
SELECT is(current_user::text, 'shard_user', '... who stays who he was');
RESET ROLE;

-- Nothing in the search path can be in the way.
CREATE SCHEMA spoof;
CREATE FUNCTION spoof.never(regclass, regclass) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'spoofed'; END $$;
CREATE OPERATOR spoof.= (LEFTARG = regclass, RIGHTARG = regclass, FUNCTION = spoof.never);
CREATE TABLE spoof.closed_shards (shard int);
SET LOCAL search_path = spoof, pg_catalog, lifecycle_test, public;
SELECT is(said('SELECT shard_fdw.close_shard(''own_0'')'), '', 'the search path is nobody''s to play with');
SELECT is(said('SELECT shard_fdw.open_shard(''own_0'')'), '', '... when opening, too');
SET LOCAL search_path = lifecycle_test, public;
DROP SCHEMA spoof CASCADE;

--
-- Other routes
--

CREATE FOREIGN TABLE rr (a int) SERVER shards OPTIONS (shards '3', route 'round_robin');
SELECT shard_fdw.close_shard('rr_1');
INSERT INTO rr SELECT generate_series(1, 10);
SELECT is((SELECT array_agg(n ORDER BY n) FROM (SELECT count(*) AS n FROM rr GROUP BY tableoid) t), '{5,5}', 'round robin goes past a closed shard');

CREATE FOREIGN TABLE h (k int) SERVER shards OPTIONS (shards '4', route 'hash', key 'k');
INSERT INTO h SELECT generate_series(1, 100);
SELECT is(said('SELECT shard_fdw.close_shard(''h_2'')'), '55000 cannot close shard "h_2" of foreign table "h"
No other open shard takes the rows whose key has the hash remainder 2 of 4.
Create a shard with the same in_hash() constraint and attach it with ALTER TABLE ... INHERIT, or seal this one with SELECT shard_fdw.seal().',
  'a hash shard is not closed if nobody takes its rows');
CREATE TABLE h_a (k int, CHECK (shard_fdw.in_hash(8, 2, k)));
ALTER TABLE h_a INHERIT h;
SELECT is((SELECT state FROM error_of('SELECT shard_fdw.close_shard(''h_2'')')), '55000', '... half of them is not enough');
CREATE TABLE h_b (k int, CHECK (shard_fdw.in_hash(8, 6, k)));
ALTER TABLE h_b INHERIT h;
SELECT is(said('SELECT shard_fdw.close_shard(''h_2'')'), '', '... all of them is');
INSERT INTO h SELECT generate_series(101, 200);
SELECT is((SELECT count(*) FROM h_2 WHERE k > 100), 0::bigint, '... nothing goes there');
SELECT is((SELECT count(*) FROM h), 200::bigint, '... and all rows find a place');
SELECT is((SELECT count(*) FROM h WHERE k = 5), 1::bigint, '... and are found');
SELECT is((SELECT state FROM error_of('SELECT shard_fdw.close_shard(''h_a'')')), '55000', 'those that took over stay open');
SELECT is((SELECT message FROM error_of('SELECT shard_fdw.reshard(''h'', 2)')), 'shard "h_2" of foreign table "h" is closed', 'reshard() does not open it silently');
ALTER TABLE h_a NO INHERIT h;
ALTER TABLE h_b NO INHERIT h;
SELECT is((SELECT DISTINCT concat_ws(E'\n', message, detail, hint) FROM (SELECT min(k) AS k FROM h_2) t, error_of('INSERT INTO h VALUES (' || k || ')')),
  'shard "h_2" of foreign table "h" is closed
It holds the rows whose key (k) has the hash remainder 2 of 4.
Open it with SELECT shard_fdw.open_shard().', 'a row that only a closed shard holds');

-- A closed shard with ids of its own, and lanes.
CREATE FOREIGN TABLE ids (id bigint OPTIONS (sequence 'always'), t text) SERVER shards OPTIONS (shards '2', commit_order 'true', max_shards '10');
INSERT INTO ids (t) VALUES ('a');
SELECT shard_fdw.last_shard() AS first \gset
SELECT shard_fdw.close_shard(:'first');
INSERT INTO ids (t) VALUES ('b');
SELECT isnt(shard_fdw.last_shard()::text, :'first', 'a transaction that has the lane of a closed shard takes another');
SELECT is((SELECT state FROM error_of(format('INSERT INTO ids OVERRIDING SYSTEM VALUE SELECT id + 10, ''c'' FROM %s', :'first'))), '428C9', 'ids are not the user''s');

--
-- Gone, come back
--

SELECT shard_fdw.close_shard('own_0');
ALTER TABLE own_0 NO INHERIT own;
SELECT is(said('SELECT shard_fdw.open_shard(''own_0'')') LIKE '42809%', true, 'a table that has been detached is no shard');
ALTER TABLE own_0 INHERIT own;
SELECT is(states('own'), 'closed open', 'one that comes back is still closed');
DROP TABLE own_0;
SELECT is((SELECT count(*) FROM shard_fdw.closed_shards s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.shard)), 1::bigint, 'DROP leaves a row behind');
SELECT shard_fdw.close_shard('own_1');
SELECT is((SELECT count(*) FROM shard_fdw.closed_shards s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.shard)), 0::bigint, '... which the next call tidies up');

SELECT * FROM finish();
ROLLBACK;
