-- What a user who may create tables can do to others: nothing.  Whose code
-- runs with whose rights, who may do what, and names that try to be SQL.
-- What needs several sessions is in test/t/security.t.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA security_test;
GRANT ALL ON SCHEMA security_test TO PUBLIC;
SET LOCAL search_path = security_test, public;

\ir helpers.psql

-- What comes of a command that a role runs: the SQLSTATE, or "ok".
CREATE FUNCTION result_as(role text, command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', role, true);
  EXECUTE command;
  PERFORM set_config('role', 'none', true);
  RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END $$;

-- Code that tells as whom it has run.
CREATE TABLE traces (who name, what text);
GRANT SELECT, INSERT, DELETE ON traces TO PUBLIC;
CREATE FUNCTION leave_trace(what text) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  INSERT INTO security_test.traces VALUES (current_user, what);
  RETURN 1;
END $$;
-- The planner calls it if its arguments are constant.
CREATE FUNCTION trace(what text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN security_test.leave_trace(what);
END $$;

-- Does a command of the superuser's run code as anybody but shard_user?
CREATE FUNCTION runs_as_other(command text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  result text[];
BEGIN
  DELETE FROM traces;
  EXECUTE command;
  SELECT array_agg(DISTINCT what || ' as ' || who) INTO result FROM traces
    WHERE who <> 'shard_user';
  RETURN result;
END $$;

--
-- Numbers in constraints that make no sense
--

SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE places (k int) SERVER shards OPTIONS (route 'hash', key 'k');
CREATE TABLE places_0 (CHECK (shard_fdw.in_hash(2, 0, k))) INHERITS (places);
CREATE TABLE places_1 (CHECK (shard_fdw.in_hash(2147483647, 5, k))) INHERITS (places);
SELECT fails('INSERT INTO places SELECT generate_series(1, 10)', '23514',
  title => 'a modulus that no int can add to');
SET LOCAL statement_timeout = '60s';
SELECT results_eq($$ SELECT shard_fdw.create_shards('places', 1)::text $$,
  $$ VALUES ('places_2') $$, 'a modulus that no int can add to does not keep create_shards() busy');
DROP TABLE places_2;
RESET statement_timeout;
CREATE TABLE places_2 (CHECK (shard_fdw.in_hash(4, -100000000, k))) INHERITS (places);
CREATE TABLE places_3 (CHECK (shard_fdw.in_hash(4, 100000000, k))) INHERITS (places);
CREATE TABLE places_4 (CHECK (shard_fdw.in_hash(-4, 1, k))) INHERITS (places);
CREATE TABLE places_5 (CHECK (shard_fdw.in_hash(-2147483648, -1, k))) INHERITS (places);
CREATE TABLE places_6 (CHECK (shard_fdw.in_hash(NULL, 1, k))) INHERITS (places);
SELECT fails('INSERT INTO places SELECT generate_series(1, 10)', '23514',
  title => 'impossible places are none');
DROP TABLE places_1;
SELECT is_empty('SELECT * FROM places WHERE k = 1', 'impossible places are none, nor to queries');
CREATE TABLE places_1 (CHECK (shard_fdw.in_hash(2, 1, k))) INHERITS (places);
INSERT INTO places SELECT generate_series(1, 10);
SELECT is((SELECT array_agg(DISTINCT tableoid::regclass::text ORDER BY tableoid::regclass::text)
    FROM places), '{places_0,places_1}', 'impossible places are none, which have what is left');

CREATE FOREIGN TABLE slots (id bigint OPTIONS (sequence 'always'), v int) SERVER shards
  OPTIONS (max_shards '10');
CREATE TABLE slots_0 (CHECK (shard_fdw.in_slot(10, 2000000000, id))) INHERITS (slots);
CREATE TABLE slots_1 (CHECK (shard_fdw.in_slot(10, -2000000000, id))) INHERITS (slots);
CREATE TABLE slots_2 (CHECK (shard_fdw.in_slot(-10, -3, id))) INHERITS (slots);
CREATE TABLE slots_3 (CHECK (shard_fdw.in_slot(2147483647, 5, id))) INHERITS (slots);
SELECT results_eq($$ SELECT shard_fdw.create_shards('slots', 1)::text $$, $$ VALUES ('slots_4') $$,
  'impossible slots are none');
SELECT fails('SELECT shard_fdw.' || call, '22023', what || ' must not be greater than 65536', '',
  '',
  title => call) FROM (VALUES
  ('in_hash(65537, 5, 1)', 'modulus'), ('in_hash(2147483647, 5, 1)', 'modulus'),
  ('in_slot(65537, 5, 1)', 'stride')) t(call, what);
SELECT lives_ok('SELECT shard_fdw.in_hash(65536, 65535, 1), shard_fdw.in_slot(65536, 65536, 1)',
  'the greatest modulus and stride');
RESET ROLE;

-- A route without a key, after one with it.
CREATE FOREIGN TABLE turned (k int) SERVER shards OPTIONS (shards '4', route 'hash', key 'k');
INSERT INTO turned SELECT generate_series(1, 100);
SELECT is((SELECT count(*) FROM turned WHERE k = 5), 1::bigint, 'a hash table');
ALTER FOREIGN TABLE turned OPTIONS (SET route 'session', DROP key);
SELECT is((SELECT count(*) FROM turned WHERE k = 5), 1::bigint,
  'a hash table becomes one without a key');
DO $$ BEGIN PERFORM * FROM shard_fdw.run_command_on_shards('turned',
    'ALTER TABLE %s DROP CONSTRAINT shard_hash'); END $$;
INSERT INTO turned VALUES (101);
SET LOCAL enable_partitionwise_join = on;
SELECT is((SELECT count(*) FROM turned a JOIN turned b USING (k) WHERE a.k > 0 OR b.k = 5),
  101::bigint, 'a hash table, also in joins');
RESET enable_partitionwise_join;
SELECT is((SELECT count(*) FROM turned WHERE k = 101), 1::bigint,
  'a hash table, whose queries forget where rows were');
ALTER FOREIGN TABLE turned OPTIONS (SET route 'hash', ADD key 'k');
ALTER FOREIGN TABLE turned RENAME k TO other;
SELECT is((SELECT count(*) FROM turned WHERE other = 101), 1::bigint,
  'a hash table, and so when the key has got another name');

-- Ids that the column does not take.
CREATE FOREIGN TABLE narrow (id int OPTIONS (sequence 'by_default'), v int) SERVER shards
  OPTIONS (max_shards '100');
CREATE SEQUENCE wide START 4294967297;
CREATE TABLE narrow_0 (id int NOT NULL DEFAULT nextval('wide'), v int);
ALTER TABLE narrow_0 INHERIT narrow;
SELECT fails('INSERT INTO narrow (v) VALUES (1)', '22003',
  title => 'an id that is too great for the column is not cut');

-- A shard that goes while its table is looked after.
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE shrinking (id bigint OPTIONS (sequence 'by_default')) SERVER shards
  OPTIONS (shards '3');
CREATE FUNCTION detach_others() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = 'security_test.shrinking_2'::regclass) THEN
    ALTER TABLE security_test.shrinking_1 NO INHERIT security_test.shrinking;
    ALTER TABLE security_test.shrinking_2 NO INHERIT security_test.shrinking;
  END IF;
  RETURN 1;
END $$;
CREATE FUNCTION detach() RETURNS int
  LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN security_test.detach_others(); END $$;
CREATE INDEX ON shrinking_0 (id) WHERE detach() = 1;
ALTER TABLE shrinking_1 INHERIT shrinking;
ALTER TABLE shrinking_2 INHERIT shrinking;
SELECT results_eq('SELECT sequence::text FROM shard_fdw.reset_sequences(''shrinking'')',
  $$ VALUES ('shrinking_id_1_seq') $$,
  'shards that a function detaches meanwhile');
RESET ROLE;

--
-- What is another's stays as it is
--

-- A shard's default may draw from any sequence.
SET LOCAL ROLE shard_reader;
CREATE SEQUENCE their_seq;
CREATE TABLE theirs (id int, t text DEFAULT 'secret');
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE drawing (k int, id bigint OPTIONS (sequence 'by_default')) SERVER shards
  OPTIONS (shards '2', route 'hash', key 'k');
ALTER TABLE drawing_0 ALTER id SET DEFAULT nextval('their_seq');
SELECT results_eq('SELECT shard_fdw.reshard(''drawing'', 3)', 'VALUES (0::bigint)',
  'reshard() of a table that draws from a sequence of another''s');
ALTER TABLE drawing_1 ALTER id SET DEFAULT nextval('their_seq');
SELECT fails('SELECT shard_fdw.reset_sequences(''drawing'')', '42501',
  title => 'reset_sequences() of the same');
SELECT fails('SELECT shard_fdw.own_sequences(''drawing'')', '42501', title => 'own_sequences()');
RESET ROLE;
SELECT is((SELECT (relname, relowner::regrole)::text FROM pg_class
    WHERE oid = 'their_seq'::regclass), '(their_seq,shard_reader)',
  'own_sequences() leaves it alone');
SELECT is((SELECT (is_called, last_value)::text FROM their_seq), '(f,1)',
  'own_sequences() leaves it where it is');

--
-- A superuser who looks after a table of shard_user's, or at all tables, runs
-- what is in them as shard_user
--

SET LOCAL ROLE shard_user;
CREATE DOMAIN checked AS int CHECK (leave_trace('domain') = 1);
CREATE FUNCTION trace_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO security_test.traces VALUES (current_user, TG_NAME);
  RETURN NEW;
END $$;
CREATE TABLE bait_template (
  id bigint, k int, d checked, f int, x int DEFAULT leave_trace('default'),
  CHECK (trace('check') = 1), CHECK (leave_trace('volatile check') = 1));
CREATE INDEX ON bait_template ((trace('expression') + k));
CREATE INDEX ON bait_template (k) WHERE trace('predicate') = 1;
CREATE INDEX ON bait_template ((trace('column ' || k)));
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON bait_template FOR EACH ROW EXECUTE
  FUNCTION trace_row();
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON bait_template FOR EACH ROW
  WHEN (trace('when') = 1) EXECUTE FUNCTION trace_row();
CREATE FOREIGN TABLE bait (
  id bigint OPTIONS (sequence 'by_default'), k int, d checked,
  f int DEFAULT leave_trace('logical default'), CHECK (trace('logical check') = 1))
  SERVER shards OPTIONS (shards '2', route 'hash', key 'k', template 'security_test.bait_template');
INSERT INTO bait (k, d) SELECT g, g FROM generate_series(1, 20) g;
CREATE TABLE bait_serial (id serial, CHECK (trace('check') = id));
CREATE INDEX ON bait_serial (id) WHERE trace('predicate') = 1;
CREATE TABLE bait_child (CHECK (trace('check of a child') = id)) INHERITS (bait_serial);
CREATE TABLE bait_parts (id serial) PARTITION BY RANGE ((id + trace('partition')));
CREATE TABLE bait_part PARTITION OF bait_parts FOR VALUES FROM (0) TO (100);
CREATE TABLE bait_policed (id serial);
ALTER TABLE bait_policed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON bait_policed USING (leave_trace('policy') = 1);
INSERT INTO bait_policed DEFAULT VALUES;
SELECT bag_has('SELECT what FROM traces', $$ VALUES ('domain'), ('default'), ('logical default'),
    ('check'), ('volatile check'), ('logical check'), ('expression'),
  ('predicate'), ('column 7'), ('when'), ('before_row'), ('after_row') $$, 'a table full of traps');
RESET ROLE;
SELECT is(runs_as_other(command), NULL, command) FROM (VALUES
  ('SELECT * FROM shard_fdw.shards'),
  ('SELECT * FROM shard_fdw.leases'),
  ('SELECT * FROM shard_fdw.maintenance'),
  ('SELECT * FROM shard_fdw.sequences'),
  ('SELECT shard_fdw.column_maximum(oid, ''id'') FROM pg_class WHERE relname ~ ''^bait'''),
  ('SELECT * FROM shard_fdw.consumers'),
  ('SELECT shard_fdw.list_shards(''bait'')'),
  ('SELECT shard_fdw.format_on_shards(''bait'', ''VACUUM %s'')'),
  ('SELECT shard_fdw.run_command_on_shards(''bait'', ''ANALYZE %s'')'),
  ('SELECT shard_fdw.seal(''bait_0'')'),
  ('SELECT shard_fdw.unseal(''bait_0'')'),
  ('SELECT shard_fdw.reset_sequences(''bait'')'),
  ('SELECT shard_fdw.reset_sequences(''bait_serial'')'),
  ('SELECT shard_fdw.own_sequences(''bait'')'),
  ('DROP TABLE bait_1'),
  ('SELECT shard_fdw.create_shards(''bait'', 1, ''bait_template'')'),
  ('SELECT shard_fdw.run_command_on_shards(''bait'', ''ALTER TABLE %s DROP x'')'),
  ('SELECT shard_fdw.reshard(''bait'', 3)'),
  ('DROP TABLE bait_2'),
  ('SELECT shard_fdw.create_shards(''bait'', 1)'),
  ('ALTER FOREIGN TABLE bait OPTIONS (ADD batch_size ''10'')'),
  ('ANALYZE bait'),
  ('SELECT shard_fdw.reshard(''bait'', 4)')) t(command);
SELECT set_has('SELECT what FROM traces', $$ VALUES ('expression'), ('predicate'),
    ('volatile check') $$, 'the last of these has met them');
SELECT results_eq('SELECT maximum FROM shard_fdw.sequences WHERE tbl = ''bait_serial''::regclass',
  'VALUES (NULL::bigint)', 'the maximum of an empty table');
-- What it sets does not stay, and the errors that it raises spoil nothing.
SET LOCAL ROLE shard_user;
CREATE FUNCTION setter(int, setting text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF setting = 'error' THEN
    RAISE EXCEPTION 'not cancelled' USING ERRCODE = 'query_canceled';
  END IF;
  PERFORM set_config('search_path', setting, false);
  RETURN true;
END $$;
CREATE TABLE bait_setter (id serial PRIMARY KEY);
CREATE INDEX ON bait_setter (id) WHERE setter(1, 'hostile, pg_catalog');
CREATE TABLE bait_error (id serial PRIMARY KEY);
CREATE TABLE bait_locked (id serial PRIMARY KEY);
INSERT INTO bait_locked DEFAULT VALUES;
RESET ROLE;
SAVEPOINT setting;
SET LOCAL search_path = security_test, public;
SELECT lives_ok('SELECT * FROM shard_fdw.sequences', 'a table whose index changes a setting');
SELECT is(current_setting('search_path'), 'security_test, public',
  'a table whose index changes a setting does not change it for others');
ROLLBACK TO setting;
SET LOCAL ROLE shard_user;
DO $$ BEGIN CREATE INDEX ON bait_error (id) WHERE setter(1, 'error'); EXCEPTION WHEN query_canceled
  THEN
  CREATE FUNCTION raiser(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
  CREATE INDEX ON bait_error (id) WHERE raiser(1);
  CREATE OR REPLACE FUNCTION raiser(int) RETURNS bool
    LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE query_canceled; END'; END $$;
RESET ROLE;
SELECT lives_ok('SELECT * FROM shard_fdw.sequences',
  'one whose index says that the query is cancelled');
DROP TABLE bait_setter, bait_error;
SET LOCAL ROLE shard_user;
ALTER TABLE bait_serial DROP CONSTRAINT bait_serial_id_check;
INSERT INTO bait_serial VALUES (1), (20);
RESET ROLE;
SELECT results_eq('SELECT maximum FROM shard_fdw.sequences WHERE tbl = ''bait_serial''::regclass',
  'VALUES (20::bigint)', 'a maximum is seen nevertheless');
SELECT is((SELECT (maximum, last_value)::text FROM shard_fdw.sequences
    WHERE tbl = 'bait_policed'::regclass), '(1,1)',
  'who is above policies sees the maximum without them');
GRANT SELECT ON bait_policed TO shard_reader;
SET LOCAL ROLE shard_reader;
SELECT is((SELECT maximum FROM shard_fdw.sequences WHERE tbl = 'bait_policed'::regclass), NULL,
  'a role that is bound by policies sees no maximum');
SET LOCAL ROLE shard_user;
SELECT is((SELECT maximum FROM shard_fdw.sequences WHERE tbl = 'bait_policed'::regclass), NULL,
  'the owner sees no maximum if policies are forced');
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE FUNCTION spoil() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
  IF current_setting('security_test.spoil', true) = 'yes' THEN RAISE 'spoilt'; END IF;
  RETURN 1;
END $$;
CREATE TABLE spoilt (id serial);
CREATE INDEX ON spoilt (id) WHERE spoil() = 1;
CREATE TABLE revoked (id serial);
REVOKE ALL ON revoked FROM shard_user;
SET LOCAL security_test.spoil = yes;
RESET ROLE;
SELECT results_eq('SELECT tbl::text, maximum FROM shard_fdw.sequences WHERE tbl IN '
                  '(''bait_serial''::regclass, ''spoilt''::regclass, ''revoked''::regclass) ORDER '
                  'BY 1',
  $$ VALUES ('bait_serial', 20::bigint), ('revoked', NULL), ('spoilt', NULL) $$,
  'tables that cannot be read do not spoil the view');
RESET security_test.spoil;
SELECT is(current_user, session_user, 'afterwards the superuser is one again');

--
-- Who may do what
--

-- All that the extension has is for everybody, and none of it gives a right.
SELECT bag_eq($$ SELECT p.proname::text, p.prosecdef, p.proleakproof,
    coalesce(p.proacl::text, 'everybody') FROM pg_proc p
      WHERE p.pronamespace = 'shard_fdw'::regnamespace $$,
  $$ SELECT f, false AS a, false AS b, 'everybody'::text
    FROM unnest('{shard_fdw_handler,shard_fdw_validator,create_shards,cursor_reads,reshard,on_ddl_end,ddl_end,in_hash,in_slot,check_row,
     reset_sequences,own_sequences,column_maximum,sequence_position,table_bytes,rows_behind,check_order,list_shards,last_shard,register_consumer,seek_consumer,seek_consumer,seek_consumer,consumer_lag,drop_consumer,read_batch,read_window,dequeue,claim,seal,unseal,
     alter_column_type,drain,release,convert_table,problems_of,succession_of,columns_of,guard_drop,on_drop_start,
     close_shard,close_node,open_shard,add_range,rotate,retain,maintain,confirm_retention,maintenance_state,range_of,
     list_progress,split_shard,merge_shards,reshard_online,move_shard,rebalance_plan,rebalance,check_shards,features_of,expression_of,check_kind,unfit_clause,place_of,table_state,
     run_command_on_shards,run_on_shards,create_index,format_on_shards,run_command_on_nodes,check_nodes,sync_nodes,add_connections,watch_rows,changed_rows}'::text[]) f $$, 'functions, and who may call them');
SELECT bag_eq($$ SELECT c.relname::text, c.relkind::text,
    array(SELECT a.privilege_type FROM aclexplode(c.relacl) a WHERE a.grantee = 0)::text
      FROM pg_class c
                  WHERE c.relnamespace = 'shard_fdw'::regnamespace AND c.relkind <> 'i' $$,
  $$ VALUES ('sequences', 'v', '{SELECT}'), ('leases', 'v', '{SELECT}'),
    ('tables', 'v', '{SELECT}'), ('progress', 'v', '{SELECT}'), ('shards', 'v', '{SELECT}'), ('stat_shards', 'v', '{SELECT}'), ('nodes', 'v', '{SELECT}'), ('consumers', 'v', '{SELECT}'),
            ('windows', 'v', '{SELECT,DELETE}'),
            ('maintenance', 'v', '{SELECT}'), ('generations', 'r', '{}'), ('maintenance_runs', 'r', '{}'),
            ('closed_shards', 'r', '{}'), ('moved_shards', 'r', '{}'), ('command_runs', 'r', '{}'), ('consumer_registry', 'r', '{}'),
            ('consumer_lanes', 'r', '{}'), ('consumer_windows', 'r', '{}') $$,
  'views and tables, and who may use them');
SELECT is(has_schema_privilege('shard_user', 'shard_fdw', 'CREATE'), false,
  'nobody puts functions into the schema');
SELECT fails('SELECT shard_fdw.on_ddl_end()', '0A000',
  title => 'the function of the event trigger cannot be called');
SELECT fails('SELECT shard_fdw.ddl_end(''x'')', '0A000',
  title => 'nobody has an argument for the function that the event trigger''s calls');
SELECT is((SELECT shard_fdw.ddl_end(NULL) IS NULL), true,
  'the function of the event trigger cannot be called, which does nothing without one');

-- What shard_user may do with a table of shard_reader's: nothing.
SET LOCAL ROLE shard_reader;
CREATE TABLE private_template (id bigint, secret text DEFAULT 'default');
CREATE FOREIGN TABLE private (id bigint OPTIONS (sequence 'always'), secret text) SERVER shards
  OPTIONS (shards '2', commit_order 'true', template 'security_test.private_template');
INSERT INTO private (secret) VALUES ('s1'), ('s2');
SELECT shard_fdw.register_consumer('private', 'reader', 'id');
DO $$ BEGIN PERFORM shard_fdw.read_batch(NULL::private, 'reader', 1); END $$;
CREATE TABLE detached (id bigint NOT NULL, secret text DEFAULT 'default');
CREATE TABLE serial_table (id serial);
INSERT INTO serial_table DEFAULT VALUES;
RESET ROLE;
SET LOCAL ROLE shard_user;
CREATE TABLE mine (id bigint NOT NULL, secret text);
CREATE FOREIGN TABLE my_log (id bigint NOT NULL, secret text) SERVER shards;
RESET ROLE;
CREATE TABLE refused (command text, state text);
INSERT INTO refused VALUES
  ('ALTER TABLE mine INHERIT private', '42501'),
  ('CREATE TABLE mine_too () INHERITS (private)', '42501'),
  ('CREATE TEMP TABLE mine_too () INHERITS (private)', '42501'),
  ('CREATE FOREIGN TABLE mine_too () INHERITS (private) SERVER shards', '42501'),
  ('ALTER FOREIGN TABLE my_log INHERIT private', '42501'),
  ('ALTER TABLE detached INHERIT my_log', '42501'),
  ('ALTER TABLE private_0 INHERIT my_log', '42501'),
  ('ALTER TABLE private_0 NO INHERIT private', '42501'),
  ('ALTER FOREIGN TABLE private OPTIONS (ADD batch_size ''7'')', '42501'),
  ('ALTER FOREIGN TABLE private ALTER id OPTIONS (DROP sequence)', '42501'),
  ('ALTER SERVER shards OPTIONS (ADD batch_size ''7'')', '42501'),
  ('ALTER TABLE private_0 ADD CHECK (false) NOT VALID', '42501'),
  ('DROP TABLE private_0', '42501'),
  ('SELECT shard_fdw.create_shards(''private'', 1)', '42501'),
  ('SELECT shard_fdw.create_shards(''my_log'', 1, ''private_template'')', '42501'),
  ('SELECT shard_fdw.create_shards(''my_log'', 1, ''private_0'')', '42501'),
  ('SELECT shard_fdw.create_shards(''my_log'', 1, ''pg_catalog.pg_authid'')', '42501'),
  ('CREATE FOREIGN TABLE mine_too (id bigint) SERVER shards OPTIONS (shards ''1'', template '
   '''private_template'')', '42501'),
  ('SELECT shard_fdw.reshard(''private'', 1)', '42501'),
  ('SELECT shard_fdw.seal(''private_0'')', '42501'),
  ('SELECT shard_fdw.unseal(''private_0'')', '42501'),
  ('SELECT shard_fdw.reset_sequences(''private'')', '42501'),
  ('SELECT shard_fdw.reset_sequences(''serial_table'')', '42501'),
  ('SELECT shard_fdw.own_sequences(''private'')', '42501'),
  ('SELECT shard_fdw.check_order(''private'')', '42501'),
  ('SELECT shard_fdw.register_consumer(''private'', ''mine'', ''id'')', '42501'),
  ('SELECT shard_fdw.drop_consumer(''private'', ''reader'')', '42501'),
  ('SELECT shard_fdw.read_batch(NULL::private, ''reader'')', '42501'),
  ('SELECT shard_fdw.read_window(NULL::private, ''reader'', now())', '42501'),
  ('SELECT shard_fdw.dequeue(NULL::private)', '42501'),
  ('SELECT shard_fdw.claim(NULL::private)', '42501'),
  ('UPDATE shard_fdw.consumer_lanes SET watermark = 0', '42501'),
  ('DELETE FROM shard_fdw.consumer_registry', '42501'),
  ('SELECT shard_fdw.confirm_retention(''private'')', '42501'),
  ('CALL shard_fdw.maintain(''private'')', '25001'),
  ('UPDATE shard_fdw.generations SET began = now()', '42501'),
  ('UPDATE shard_fdw.maintenance_runs SET is_confirmed = true', '42501'),
  ('SELECT * FROM shard_fdw.consumer_registry', '42501'),
  ('SELECT * FROM private', '42501'),
  ('INSERT INTO private (secret) VALUES (1)', '42501'),
  ('EXPLAIN (ANALYZE) INSERT INTO private (secret) VALUES (1)', '42501'),
  ('COPY private (secret) FROM ''/dev/null''', '42501'),
  ('UPDATE private SET secret = 1', '42501'),
  ('DELETE FROM private', '42501'),
  ('TRUNCATE private', '42501'),
  ('SELECT id FROM private FOR UPDATE', '42501'),
  ('SELECT currval(''private_id_1_seq'')', '42501');
SELECT is(result_as('shard_user', command), state, 'shard_user: ' || command) FROM refused;

-- What anybody may see, and what not.
SET LOCAL ROLE shard_user;
SELECT results_eq($$ SELECT consumer, role, watermark, last_read, rows_behind
    FROM shard_fdw.consumers WHERE logical = 'private'::regclass $$,
  $$ SELECT 'reader', 'shard_reader', NULL::bigint, NULL::timestamptz, NULL::bigint
    FROM generate_series(1, 2) $$, 'a consumer of a table that one may not read shows no ids');
SELECT results_eq($$ SELECT last_value, maximum, collides FROM shard_fdw.sequences
    WHERE sequence = 'serial_table_id_seq'::regclass $$,
  $$ VALUES (NULL::bigint, NULL::bigint, NULL::bool) $$, 'nor does the sequence of one');
RESET ROLE;
GRANT SELECT ON private, serial_table TO shard_user;
SET LOCAL ROLE shard_user;
SELECT results_eq($$ SELECT watermark IS NULL, rows_behind FROM shard_fdw.consumers
    WHERE logical = 'private'::regclass ORDER BY 1 $$,
  $$ VALUES (false, 1::bigint), (true, 0) $$,
  'who may read the table sees ids, and how many there are to read');
SELECT results_eq($$ SELECT last_value, maximum, collides FROM shard_fdw.sequences
    WHERE sequence = 'serial_table_id_seq'::regclass $$,
  $$ VALUES (NULL::bigint, 1::bigint, NULL::bool) $$,
  'a reader of the table sees ids, and is told nothing of a collision it does not know of');
SELECT is(result_as('shard_user', command), '42501', 'may read: ' || command) FROM (VALUES
  ('SELECT shard_fdw.read_batch(NULL::private, ''reader'')'),
  ('SELECT shard_fdw.drop_consumer(''private'', ''reader'')'),
  ('SELECT shard_fdw.dequeue(NULL::private)'),
  ('SELECT * FROM private_0'), ('SELECT shard_fdw.create_shards(''private'', 1)')) t(command);
RESET ROLE;

-- Conditions of the reader's do not see what the views hide.
CREATE FUNCTION leak_row(anyelement, text) RETURNS bool LANGUAGE plpgsql STRICT COST 0.0000001 AS $$
BEGIN
  INSERT INTO security_test.traces VALUES (current_user, $2);
  RETURN true;
END $$;
SET LOCAL ROLE shard_reader;
CREATE FOREIGN TABLE private_times (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL)
  SERVER shards OPTIONS (shards '1', commit_order 'true');
INSERT INTO private_times (at) VALUES ('2000-01-01');
SELECT shard_fdw.register_consumer('private_times', 'times', 'at');
SELECT count(*) FROM shard_fdw.read_window(NULL::private_times, 'times', '2001-01-01');
RESET ROLE;
DELETE FROM traces;
REVOKE SELECT ON private FROM shard_user;
SET LOCAL ROLE shard_user;
SELECT is_empty('SELECT * FROM shard_fdw.windows WHERE leak_row(rows, ''windows'')',
  'windows of another role');
SELECT is_empty('SELECT * FROM shard_fdw.consumers WHERE leak_row(watermark, ''watermark'')',
  'consumers of a table that one may not read');
SELECT is_empty('SELECT * FROM shard_fdw.consumers WHERE leak_row(window_end, ''window_end'')',
  'consumers of a table that one may not read are not shown by their windows');
RESET ROLE;
SELECT is_empty('SELECT * FROM traces',
  'consumers of a table that one may not read are not shown to functions either');

--
-- A schema first in the search path that shadows what PostgreSQL has
--

CREATE SCHEMA hostile AUTHORIZATION shard_user;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
SET LOCAL ROLE shard_user;
DO $$
DECLARE
  t text;
  op text;
  f text;
BEGIN
  FOREACH t IN ARRAY
    '{oid,regclass,int2,int4,int8,name,text,bool,tid,"\"char\"",xid,timestamptz}'::text[] LOOP
    EXECUTE format($f$ CREATE FUNCTION hostile.op(%1$s, %1$s) RETURNS bool
        LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hostile code has run''; END' $f$, t);
    FOREACH op IN ARRAY '{=,<>,<,<=,>,>=}'::text[] LOOP
      EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = '
                     'hostile.op)', op, t, t);
    END LOOP;
    IF t IN ('int4', 'int8') THEN
      EXECUTE format($f$ CREATE FUNCTION hostile.calc(%1$s, %1$s) RETURNS %1$s
          LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hostile code has run''; END' $f$, t);
      FOREACH op IN ARRAY '{+,-,*,/}'::text[] LOOP
        EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = '
                       'hostile.calc)', op, t, t);
      END LOOP;
    END IF;
  END LOOP;
  FOREACH f IN ARRAY ARRAY['format(text, VARIADIC text[])', 'quote_ident(text)',
    'quote_literal(text)', 'now()', 'clock_timestamp()', 'nextval(regclass)', 'nextval(text)',
    'setval(regclass, bigint, bool)', 'currval(regclass)', 'pg_sequence_last_value(regclass)',
    'pg_get_serial_sequence(text, text)', 'to_regrole(text)', 'min(int8)', 'max(int8)',
    'max(int4)', 'count()', 'count(anyelement)', 'bool_or(bool)', 'current_database()',
    'has_table_privilege(oid, text)', 'has_sequence_privilege(oid, text)',
    'pg_is_other_temp_schema(oid)', 'pg_total_relation_size(regclass)', 'list_shards(oid)',
    'list_shards(int4)', 'list_shards(regclass)', 'list_shards(regclass, bool)',
    'table_bytes(regclass)', 'sequence_position(regclass)', 'rows_behind(regclass, regclass, int8)',
    'pg_has_role(text, text)', 'in_hash(int4, int4, int4)',
    'in_slot(int4, int4, int8)', 'column_maximum(oid, name)', 'column_maximum(regclass, name)',
    'pg_event_trigger_ddl_commands()', 'pg_event_trigger_dropped_objects()',
    'unnest(anyarray)', 'int8(int4)', 'int8(oid)', 'oid(int8)', 'regclass(text)', 'text(name)'] LOOP
    EXECUTE format($f$ CREATE FUNCTION hostile.%s RETURNS bigint
        LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hostile code has run''; END' $f$, f);
  END LOOP;
  FOREACH t IN ARRAY
    '{pg_class,pg_inherits,pg_attribute,pg_attrdef,pg_namespace,pg_depend,pg_sequence,pg_locks,pg_database,pg_foreign_table,pg_foreign_server,
                       pg_foreign_data_wrapper,consumer_registry,consumer_lanes,shards,leases}'::text[] LOOP
    EXECUTE format('CREATE VIEW hostile.%I AS SELECT hostile.now() AS oid', t);
  END LOOP;
  FOREACH t IN ARRAY '{oid,int8,int4,bigint,regclass,name,text,record}'::text[] LOOP
    EXECUTE format('CREATE DOMAIN hostile.%I AS pg_catalog.int2 CHECK (hostile.now() > 0)', t);
  END LOOP;
END $$;
RESET ROLE;
-- As the caller's own, but with that path.
CREATE FUNCTION in_hostile_path(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'hostile, pg_catalog, security_test', true);
  EXECUTE command;
  PERFORM pg_catalog.set_config('search_path', 'security_test, public', true);
  RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END $$;
CREATE TABLE path_template (id bigint, k int, v text DEFAULT 'x', CHECK (k > 0));
CREATE INDEX ON path_template (k) WHERE k > 1;
CREATE INDEX ON path_template ((k + 1));
CREATE TRIGGER t AFTER INSERT ON path_template FOR EACH ROW
  WHEN (NEW.k < 0) EXECUTE FUNCTION trace_row();
SELECT is(in_hostile_path('SELECT 1 WHERE 1 = 1'), 'hostile code has run',
  'the path is as hostile as it is meant');
SELECT is(in_hostile_path(command), 'ok', 'hostile path: ' || split_part(btrim(command), E'\n', 1))
  FROM (VALUES
  (1, $$ CREATE FOREIGN TABLE security_test.path_hash (id pg_catalog.int8
        OPTIONS (sequence 'by_default'), k pg_catalog.int4, v pg_catalog.text) SERVER shards
         OPTIONS (shards '3', route 'hash', key 'k', template 'security_test.path_template') $$),
  (2, $$ CREATE FOREIGN TABLE security_test.path_order (id pg_catalog.int8
        OPTIONS (sequence 'always'), v pg_catalog.text,
        at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now()) SERVER shards
         OPTIONS (shards '2', commit_order 'true') $$),
  (3, $$ INSERT INTO security_test.path_hash (k) SELECT * FROM pg_catalog.generate_series(1,
        100) $$),
  (4, $$ INSERT INTO security_test.path_hash (k) VALUES (101) RETURNING * $$),
  (5, $$ INSERT INTO security_test.path_order (v) SELECT 'x' FROM pg_catalog.generate_series(1,
        100) $$),
  (6, $$ SELECT * FROM security_test.path_hash WHERE k OPERATOR(pg_catalog.=) 7 $$),
  (7, $$ SELECT * FROM security_test.path_order WHERE id OPERATOR(pg_catalog.=) 7 $$),
  (8, $$ INSERT INTO security_test.path_hash (k) VALUES (101) ON CONFLICT DO NOTHING $$),
  (9, $$ SELECT shard_fdw.reshard('security_test.path_hash', 4) $$),
  (10, $$ DROP TABLE security_test.path_hash_3 $$),
  (11, $$ SELECT shard_fdw.create_shards('security_test.path_hash', 1) $$),
  (12, $$ SELECT shard_fdw.seal('security_test.path_hash_2') $$),
  (13, $$ SELECT shard_fdw.unseal('security_test.path_hash_2') $$),
  (14, $$ SELECT shard_fdw.reset_sequences('security_test.path_hash') $$),
  (15, $$ SELECT shard_fdw.reset_sequences('security_test.serial_table') $$),
  (16, $$ SELECT shard_fdw.own_sequences('security_test.path_hash') $$),
  (17, $$ SELECT * FROM shard_fdw.list_shards('security_test.path_hash') $$),
  (18, $$ SELECT * FROM shard_fdw.shards $$),
  (19, $$ SELECT * FROM shard_fdw.leases $$),
  (20, $$ SELECT * FROM shard_fdw.sequences $$),
  (21, $$ SELECT shard_fdw.register_consumer('security_test.path_order', 'c', 'id') $$),
  (22, $$ SELECT * FROM shard_fdw.read_batch(NULL::security_test.path_order, 'c', 10) $$),
  (23, $$ SELECT * FROM shard_fdw.read_batch(NULL::security_test.path_order, 'c', 10, 500) $$),
  (24, $$ SELECT * FROM shard_fdw.consumers $$),
  (25, $$ SELECT shard_fdw.drop_consumer('security_test.path_order', 'c') $$),
  (26, $$ SELECT shard_fdw.register_consumer('security_test.path_order', 'w', 'at') $$),
  (27, $$ SELECT * FROM shard_fdw.read_window(NULL::security_test.path_order, 'w',
        pg_catalog.now() OPERATOR(pg_catalog.-) '1 day'::pg_catalog.interval) $$),
  (28, $$ SELECT * FROM shard_fdw.read_window(NULL::security_test.path_order, 'w', pg_catalog.now())
      $$),
  (29, $$ DELETE FROM shard_fdw.windows $$),
  (30, $$ SELECT * FROM shard_fdw.dequeue(NULL::security_test.path_order, 10, 'v') $$),
  (30.1, $$ ALTER FOREIGN TABLE security_test.path_order ADD attempts pg_catalog.int4,
        ADD due pg_catalog.timestamptz DEFAULT pg_catalog.now() $$),
  (30.2, $$ CREATE TABLE security_test.path_dead (LIKE security_test.path_order) $$),
  (30.3, $$ INSERT INTO security_test.path_order (v, attempts) VALUES ('x', 1), ('y', 0) $$),
  (30.4, $$ SELECT * FROM shard_fdw.claim(NULL::security_test.path_order, 10, '1 hour', 1, 'security_test.path_dead', 'v') $$),
  (31, $$ SELECT * FROM shard_fdw.run_command_on_shards('security_test.path_order', 'ANALYZE %s')
      $$),
  (32, $$ SELECT * FROM shard_fdw.format_on_shards('security_test.path_order', 'ANALYZE %s') $$),
  (32.36, $$ ALTER FOREIGN TABLE security_test.path_order OPTIONS (ADD time_column 'at', ADD rotate_every '1 day', ADD retain_for '1 day') $$),
  (32.37, $$ SELECT * FROM shard_fdw.rotate('security_test.path_order') $$),
  (32.38, $$ SELECT shard_fdw.confirm_retention('security_test.path_order') $$),
  (32.39, $$ SELECT * FROM shard_fdw.maintenance $$),
  (32.40, $$ SELECT * FROM shard_fdw.retain('security_test.path_order', '-infinity'::pg_catalog.timestamptz) $$),
  (33, $$ ALTER FOREIGN TABLE security_test.path_order ADD n pg_catalog.int4 $$),
  (34, $$ UPDATE security_test.path_hash SET v = 'y' $$),
  (35, $$ DELETE FROM security_test.path_hash $$),
  (36, $$ ANALYZE security_test.path_hash $$),
  (37, $$ DROP FOREIGN TABLE security_test.path_order CASCADE $$)) t(n, command) ORDER BY n;
SELECT is((SELECT count(*) FROM shard_fdw.shards WHERE logical = 'path_hash'::regclass
    AND state = 'open'), 4::bigint, 'all of that has been done');
DROP SCHEMA hostile CASCADE;

--
-- Row-level security, column privileges, and views
--

CREATE FOREIGN TABLE docs (id int, owner name, body text) SERVER shards
  OPTIONS (shards '2', route 'round_robin');
INSERT INTO docs SELECT g, CASE WHEN g % 4 = 0 THEN 'shard_user' ELSE 'shard_reader' END, 'body '
  || g FROM generate_series(1, 20) g;
SELECT fails('ALTER FOREIGN TABLE docs ENABLE ROW LEVEL SECURITY', '42809',
  title => 'no row-level security on a foreign table');
SELECT fails('ALTER TABLE docs ENABLE ROW LEVEL SECURITY', '42809',
  title => 'no row-level security on a foreign table, by another name neither');
SELECT fails('CREATE POLICY p ON docs USING (owner = current_user)', '42809',
  title => 'no row-level security on a foreign table, nor policies');
GRANT SELECT, INSERT, UPDATE, DELETE ON docs, docs_0, docs_1 TO shard_user;
DO $$ BEGIN PERFORM shard_fdw.run_command_on_shards('docs', command)
  FROM unnest(ARRAY['ALTER TABLE %s OWNER TO shard_reader',
  'ALTER TABLE %s ENABLE ROW LEVEL SECURITY', 'CREATE POLICY p ON %s USING (owner = current_user)'])
  command; END $$;
ALTER FOREIGN TABLE docs OWNER TO shard_reader;
SET LOCAL ROLE shard_user;
SELECT is((SELECT count(*) FROM docs), 20::bigint,
  'policies of shards do not apply through the logical table');
SELECT is((SELECT count(*) FROM docs_0) + (SELECT count(*) FROM docs_1), 5::bigint,
  'policies of shards do not apply through the logical table, but where they are named');
INSERT INTO docs VALUES (21, 'shard_reader', 'x'), (22, 'shard_reader', 'x');
UPDATE docs SET body = 'y' WHERE id = 21;
DELETE FROM docs WHERE id = 22;
SELECT results_eq('SELECT body FROM docs WHERE id > 20', $$ VALUES ('y') $$,
  'policies of shards do not apply through the logical table, also to writing');
RESET ROLE;
SELECT is(result_as('shard_user', 'INSERT INTO docs_0 VALUES (23, ''shard_reader'', ''x'')'),
  '42501', 'policies of shards keep writers away from the shard itself');
SET LOCAL ROLE shard_reader;
INSERT INTO docs SELECT g, 'shard_user', 'x' FROM generate_series(24, 27) g;
SELECT is((SELECT count(*) FROM docs_0) + (SELECT count(*) FROM docs_1), 25::bigint,
  'the owner is not bound by them');
ALTER TABLE docs_0 FORCE ROW LEVEL SECURITY;
ALTER TABLE docs_1 FORCE ROW LEVEL SECURITY;
INSERT INTO docs SELECT g, 'shard_user', 'x' FROM generate_series(28, 29) g;
SELECT is((SELECT count(*) FROM docs), 27::bigint,
  'the owner is not bound by policies through the logical table, even if they are forced');
SELECT is((SELECT count(*) FROM docs_0) + (SELECT count(*) FROM docs_1), 16::bigint,
  'the owner is bound by forced policies if the shard is named');

-- What the reference recommends.
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM docs WHERE owner = current_user;
CREATE VIEW invoker WITH (security_invoker) AS SELECT * FROM docs WHERE id < 5;
CREATE FUNCTION leak(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
  INSERT INTO security_test.traces VALUES (current_user, $1);
  RETURN true;
END $$;
REVOKE ALL ON docs, docs_0, docs_1 FROM shard_user;
GRANT SELECT, INSERT ON barrier, invoker TO shard_user;
RESET ROLE;
SET LOCAL ROLE shard_user;
DELETE FROM traces;
SELECT is((SELECT count(*) FROM barrier WHERE leak(body)), 11::bigint,
  'a security_barrier view shows one''s own');
SELECT is((SELECT count(*) FROM barrier WHERE leak(body) AND id = 8), 1::bigint,
  'a security_barrier view shows one''s own, by a condition that goes to the shards');
RESET ROLE;
SELECT is_empty($$ SELECT what FROM traces JOIN docs ON body = what WHERE owner <> 'shard_user' $$,
  'a security_barrier view shows one''s own, before functions of the reader''s see a row');
SELECT is(result_as('shard_user', 'SELECT * FROM invoker'), '42501',
  'a security_invoker view gives no right');
SELECT is(result_as('shard_user', 'INSERT INTO invoker VALUES (30)'), '42501',
  'a security_invoker view gives no right, to insert neither');
GRANT SELECT, INSERT ON docs TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is((SELECT count(*) FROM invoker), 4::bigint,
  'a security_invoker view gives no right, and takes that on the logical table, not on shards');
INSERT INTO invoker VALUES (30);
RESET ROLE;
REVOKE ALL ON docs FROM shard_user;
GRANT SELECT (id), INSERT (id), UPDATE (body) ON docs TO shard_user;
SELECT is(result_as('shard_user', command), state, command) FROM (VALUES
  ('INSERT INTO docs (id) VALUES (31)', 'ok'),
  ('INSERT INTO docs (id) VALUES (31) RETURNING id', 'ok'),
  ('INSERT INTO docs (id) VALUES (31) RETURNING body', '42501'),
  ('INSERT INTO docs (id, body) VALUES (31, ''x'')', '42501'),
  ('COPY docs (id) FROM ''/dev/null''', '42501'),
  ('UPDATE docs SET body = ''z'' WHERE id = 31', 'ok'),
  ('UPDATE docs SET body = body', '42501'),
  ('UPDATE docs SET id = 1', '42501'),
  ('SELECT id FROM docs', 'ok'),
  ('SELECT docs FROM docs', '42501'),
  ('SELECT id FROM docs WHERE tableoid = 1', '42501'),
  ('SELECT shard_fdw.dequeue(NULL::docs)', '42501')) t(command, state);

-- ON CONFLICT needs what it reads and writes.
CREATE FOREIGN TABLE upserts (k int, v int, w int) SERVER shards OPTIONS (shards '2', route 'hash',
  key 'k');
DO $$ BEGIN PERFORM * FROM shard_fdw.run_command_on_shards('upserts',
    'ALTER TABLE %s ADD UNIQUE (k)'); END $$;
GRANT INSERT ON upserts TO shard_user;
CREATE TABLE upsert_commands AS SELECT * FROM (VALUES
  (1, 'INSERT INTO upserts VALUES (1) ON CONFLICT DO NOTHING'),
  (2, 'INSERT INTO upserts VALUES (1) ON CONFLICT (k) DO NOTHING'),
  (3, 'INSERT INTO upserts VALUES (1) ON CONFLICT (k) DO UPDATE SET v = 1'),
  (4, 'INSERT INTO upserts VALUES (1) ON CONFLICT (k) DO UPDATE SET v = upserts.w'),
  (5, 'INSERT INTO upserts VALUES (1) ON CONFLICT (k) DO UPDATE SET v = 1 WHERE upserts.w = 1'))
  t(n, command);
SELECT is((SELECT string_agg(result_as('shard_user', command), ' ' ORDER BY n)
    FROM upsert_commands), 'ok 42501 42501 42501 42501', 'ON CONFLICT with INSERT alone');
GRANT SELECT (k) ON upserts TO shard_user;
SELECT is((SELECT string_agg(result_as('shard_user', command), ' ' ORDER BY n)
    FROM upsert_commands), 'ok ok 42501 42501 42501',
  'ON CONFLICT with INSERT alone, with SELECT on the target');
GRANT UPDATE (v) ON upserts TO shard_user;
SELECT is((SELECT string_agg(result_as('shard_user', command), ' ' ORDER BY n)
    FROM upsert_commands), 'ok ok ok 42501 42501',
  'ON CONFLICT with INSERT alone, with UPDATE on the column');
GRANT SELECT (w) ON upserts TO shard_user;
SELECT is((SELECT string_agg(result_as('shard_user', command), ' ' ORDER BY n)
    FROM upsert_commands), 'ok ok ok ok ok',
  'ON CONFLICT with INSERT alone, with SELECT on what it reads');

--
-- Names that try to be SQL
--

-- Do all that there is with a table, columns, constraints, a schema and a
-- consumer of that name.
CREATE FUNCTION use_name(name text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  q text := quote_ident(name);
  tbl text := quote_ident(name) || '.' || quote_ident(name);
  shards regclass[];
  plan json;
  result text;
BEGIN
  EXECUTE format('CREATE SCHEMA %I', name);
  EXECUTE format('CREATE TABLE %1$I.template (%1$I int NOT NULL, v text COLLATE "C" DEFAULT %1$L, '
                 'CONSTRAINT %1$I CHECK (%1$I > 0), CONSTRAINT %2$I UNIQUE (%1$I, v))',
                 name, 'u' || name);
  EXECUTE format('ALTER TABLE %1$I.template ADD CONSTRAINT %2$I FOREIGN KEY (%1$I, v) REFERENCES '
                 '%1$I.template (%1$I, v)', name, 'f' || name);
  EXECUTE format('CREATE FUNCTION %1$I.%1$I() RETURNS trigger LANGUAGE plpgsql AS %2$L', name,
    'BEGIN RETURN NEW; END');
  EXECUTE format('CREATE TRIGGER %1$I BEFORE INSERT ON %1$I.template FOR EACH ROW WHEN (NEW.v <> '
                 '%1$L) EXECUTE FUNCTION %1$I.%1$I()', name);
  EXECUTE format('ALTER TABLE %1$I.template DISABLE TRIGGER %1$I', name);
  EXECUTE format('CREATE FOREIGN TABLE %1$I.%1$I (%1$I int, v text COLLATE "C" DEFAULT %1$L) '
                 'SERVER shards OPTIONS (shards %2$L, route %3$L, key %4$L, template %5$L)',
                 name, '3', 'hash', q || ' , v', q || '.template');
  EXECUTE format('INSERT INTO %s (%s) SELECT generate_series(1, 50)', tbl, q);
  EXECUTE format('INSERT INTO %s (%s) VALUES (50) ON CONFLICT DO NOTHING', tbl, q);
  EXECUTE format('INSERT INTO %1$s (%2$s) VALUES (51) ON CONFLICT (%2$s, v) DO UPDATE SET v = '
                 'EXCLUDED.v', tbl, q);
  EXECUTE format('SELECT count(*) FROM %s WHERE %I = 7 AND v = %L', tbl, name, name) INTO result;
  RETURN NEXT 'found ' || result;
  RETURN NEXT 'moved ' || shard_fdw.reshard(tbl::regclass, 4);
  SELECT array_agg(shard ORDER BY ordinal) INTO shards FROM shard_fdw.list_shards(tbl::regclass);
  RETURN NEXT 'shards ' || array_length(shards, 1);
  RETURN NEXT 'checks ' || (SELECT count(*) FROM pg_constraint WHERE conrelid = ANY (shards)
    AND conname IN (name::name, ('f' || name)::name, 'shard_hash') AND contype IN ('c', 'f'));
  RETURN NEXT 'triggers ' || (SELECT count(*) FROM pg_trigger WHERE tgrelid = ANY (shards)
    AND tgname = name AND tgenabled = 'D');
  PERFORM shard_fdw.seal(shards[1]);
  RETURN NEXT 'sealed ' || (SELECT count(*) FROM shard_fdw.shards WHERE logical = tbl::regclass
    AND state = 'sealed');
  result := (SELECT message
    FROM error_of(format('INSERT INTO %s (%s) SELECT generate_series(60, 99)', tbl, q)));
  RETURN NEXT 'said ' || (result = format('shard "%s" of foreign table "%s" is sealed',
      (SELECT relname FROM pg_class WHERE oid = shards[1]), name));
  PERFORM shard_fdw.unseal(shards[1]);
  RETURN NEXT 'run ' || (SELECT count(*) FROM shard_fdw.run_command_on_shards(tbl::regclass,
      'ANALYZE %s; COMMENT ON TABLE %s IS ''50 %''') WHERE success);
  FOR result IN SELECT shard_fdw.format_on_shards(tbl::regclass,
    'ALTER TABLE %s ALTER v SET STATISTICS 10') LOOP
    EXECUTE result;
  END LOOP;
  EXECUTE format('EXPLAIN (ANALYZE, VERBOSE, FORMAT json) INSERT INTO %s (%s) VALUES (52)', tbl, q)
    INTO plan;
  RETURN NEXT 'explained ' || (plan->0->'Plan'->'Shards'->0->>'Schema' = name);
  EXECUTE format('DROP TABLE %s', shards[4]);
  RETURN NEXT 'created ' || (SELECT count(*) FROM shard_fdw.create_shards(tbl::regclass, 1));
  EXECUTE format('ALTER FOREIGN TABLE %s RENAME TO "%%s"', tbl);
  EXECUTE format('ALTER FOREIGN TABLE %I."%%s" RENAME %I TO "k %%s"', name, name);
  EXECUTE format('ALTER FOREIGN TABLE %I."%%s" OPTIONS (SET key %L)', name, '"k %s",v');
  EXECUTE format('SELECT count(*) FROM %I."%%s"', name) INTO result;
  RETURN NEXT 'renamed ' || (result::bigint = shard_fdw.reshard(format('%I."%%s"', name)::regclass,
      1));
  EXECUTE format('DROP SCHEMA %I CASCADE', name);

  -- Sequences and consumers.
  EXECUTE format('CREATE SCHEMA %I', name);
  EXECUTE format('CREATE FOREIGN TABLE %1$I.%1$I (%1$I bigint OPTIONS (sequence %2$L), v text) '
                 'SERVER shards OPTIONS (shards %3$L, commit_order %4$L)', name, 'always', '2',
                 'true');
  EXECUTE format('INSERT INTO %s (v) SELECT %L FROM generate_series(1, 10)', tbl, name);
  PERFORM shard_fdw.register_consumer(tbl::regclass, name, name);
  EXECUTE format('SELECT count(*) FROM shard_fdw.read_batch(NULL::%s, %L, 4)', tbl, name)
    INTO result;
  RETURN NEXT 'read ' || result;
  RETURN NEXT 'behind ' || (SELECT max(rows_behind) FROM shard_fdw.consumers
    WHERE logical = tbl::regclass AND consumer = name AND watermark IS NOT NULL);
  PERFORM shard_fdw.drop_consumer(tbl::regclass, name);
  EXECUTE format('SELECT count(*) FROM shard_fdw.dequeue(NULL::%s, 3, %L)', tbl, name) INTO result;
  RETURN NEXT 'dequeued ' || result;
  RETURN NEXT 'reset ' || (SELECT count(*) FROM shard_fdw.reset_sequences(tbl::regclass));
  RETURN NEXT 'listed ' || (SELECT count(maximum) FROM shard_fdw.sequences s
    JOIN pg_class c ON c.oid = s.sequence WHERE relnamespace = q::regnamespace
      AND column_name = name);
  EXECUTE format('CREATE SEQUENCE %I."seq %s"', name, '%s');
  EXECUTE format('CREATE TABLE %1$I.plain (%1$I int DEFAULT nextval(%2$L), v text)', name,
    q || '."seq %s"');
  EXECUTE format('INSERT INTO %I.plain VALUES (41)', name);
  RETURN NEXT 'owned ' || (SELECT count(*) FROM shard_fdw.own_sequences((q || '.plain')::regclass));
  RETURN NEXT 'next '
    || (SELECT next_value FROM shard_fdw.reset_sequences((q || '.plain')::regclass));
  EXECUTE format('DROP SCHEMA %I CASCADE', name);
END $$;
CREATE TABLE odd_names (name text);
INSERT INTO odd_names VALUES ('a"b'), ('it''s'), ('UPPER'), ('%s %I %% %n'), ('back\slash\'),
  (E'new\nline'), (repeat('x', 63)), (repeat('ü', 31)),
  (repeat('€', 21)), ('select'), ('x.y'), (' a , b '), ('"'), ('''; DROP TABLE odd_names; --'),
    ('$$'), ('{1,"x"}'), ('1');
SELECT is(array_to_string(ARRAY(SELECT use_name(name)), ', '),
  'found 1, moved 51, shards 4, checks 12, triggers 4, sealed 1, said true, run 4, explained '
  'true, created 1, renamed true, '
  || 'read 4, behind 6, dequeued 3, reset 2, listed 1, owned 1, next 42',
  'a name: ' || quote_literal(replace(name, E'\n', '\n'))) FROM odd_names;
-- With the strings of old, which 19 does not know any more.
SELECT current_setting('server_version_num')::int < 190000 AS has_old_strings \gset
\if :has_old_strings
SET LOCAL standard_conforming_strings = off;
SET LOCAL backslash_quote = on;
SET LOCAL escape_string_warning = off;
SELECT is((SELECT count(*) FROM use_name(E'\\''; DROP TABLE odd_names; --')), 18::bigint,
  'a name while backslashes escape');
RESET standard_conforming_strings;
\endif
SELECT has_table('odd_names'::name, 'nothing has been dropped');

--
-- Options that try to be SQL
--

SELECT fails(format('CREATE FOREIGN TABLE injected (a int) SERVER shards OPTIONS (%s)', options),
  state, title => options) FROM (VALUES
  ($$ shards '1; DROP TABLE odd_names' $$, 'HV024'),
  ($$ shards '99999999999999999999' $$, 'HV024'),
  ($$ "shards ' OR 1" '1' $$, 'HV00D'),
  ($$ route E'hash\n', key 'a' $$, 'HV024'),
  ($$ route 'hash', key 'a); DROP TABLE odd_names; --' $$, 'HV024'),
  ($$ route 'hash', key '"a' $$, 'HV024'),
  ($$ route 'hash', key 'a, "a"' $$, 'HV024'),
  ($$ shards '1', route 'hash', key '"a) OR (1"' $$, '42703'),
  ($$ shards '1', route 'hash', key 'tableoid' $$, '42P17'),
  ($$ shards '1', template '(SELECT 1)' $$, 'HV024'),
  ($$ shards '1', template 'odd_names INCLUDING ALL); DROP TABLE odd_names; --' $$, 'HV024'),
  ($$ shards '1', template '"odd_names INCLUDING ALL)"' $$, '42P01'),
  ($$ shards '1', template 'a.b.c.d' $$, '42601'),
  ($$ shards '1', template 'pg_catalog.pg_class_oid_index' $$, '42809')) t(options, state);
SELECT hasnt_table('injected'::name, 'nothing has been created');
SELECT fails(command, state) FROM (VALUES
  ('SET shard_fdw.shard = ''1; x''', '22023'),
  ('SELECT shard_fdw.shard_fdw_validator(ARRAY[''shards=1'', NULL], ''pg_foreign_table''::regclass)', '22004'),
  ('SELECT shard_fdw.shard_fdw_validator(ARRAY[''key''], ''pg_foreign_table''::regclass)', '42601'),
  ('SELECT shard_fdw.create_shards(4294967295, 1)', '42P01'),
  ('SELECT shard_fdw.create_shards(''docs'', 2147483647)', '54000'),
  ('SELECT shard_fdw.create_shards(''docs'', 1, 4294967295)', '42P01'),
  ('SELECT shard_fdw.reshard(''pg_class'', 1)', '42809'),
  ('SELECT shard_fdw.seal(''pg_class'')', '42809'),
  ('SELECT shard_fdw.read_batch(1, ''c'')', '42804'),
  ('SELECT shard_fdw.read_batch(NULL::pg_class, ''c'')', '42809'),
  ('SELECT shard_fdw.dequeue(ARRAY[NULL::docs])', '42804'),
  ('SELECT shard_fdw.dequeue(NULL::docs, 1, ''ctid'')', '42703'),
  ('SELECT shard_fdw.dequeue(NULL::docs, 1, ''id; DROP TABLE odd_names'')', '42703'),
  ('SELECT shard_fdw.in_hash(4, 1, VARIADIC ARRAY[1])', '0A000')) t(command, state);
SELECT has_table('odd_names'::name, 'nothing has been dropped');

SELECT * FROM finish();
ROLLBACK;
