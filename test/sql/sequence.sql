-- Ids from the shards' own sequences, and the care of sequences.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE SCHEMA sequence_test;
SET LOCAL search_path = sequence_test, public;

\ir helpers.psql
CREATE FUNCTION scanned(query text, options text DEFAULT 'VERBOSE off') RETURNS text
  LANGUAGE plpgsql AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE format('EXPLAIN (FORMAT JSON, %s) %s', options, query) INTO plan;
  RETURN (SELECT coalesce(string_agg(DISTINCT n->>'Relation Name', ' '
        ORDER BY n->>'Relation Name'), 'none')
            FROM jsonb_path_query(plan, 'strict $.** ? (exists (@."Relation Name"))') n
           WHERE n->>'Node Type' <> 'ModifyTable' AND coalesce((n->>'Actual Loops')::int, 1) > 0);
END $$;

--
-- sequence 'always'
--

CREATE TABLE model (id bigint PRIMARY KEY, v text, at timestamptz DEFAULT now());
CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), v text,
  at timestamptz DEFAULT now())
  SERVER shards OPTIONS (shards '3', template 'sequence_test.model');
-- The sequence that a table's column "id" draws from.
CREATE FUNCTION drawn(tbl text) RETURNS regclass LANGUAGE sql AS $$
  SELECT refobjid::regclass FROM pg_attrdef d JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass
    AND p.objid = d.oid
    JOIN pg_sequence ON seqrelid = refobjid WHERE adrelid = tbl::regclass $$;
SELECT is((SELECT string_agg(concat_ws(' ', s.seqrelid::regclass, s.seqstart, s.seqincrement), ', '
      ORDER BY i)
             FROM generate_series(0, 2) i JOIN pg_sequence s ON s.seqrelid = drawn('log_' || i)),
  'log_id_1_seq 1 1024, log_id_2_seq 2 1024, log_id_3_seq 3 1024',
  'every shard has a sequence of its own');
SELECT is((SELECT array_agg(DISTINCT refobjid::regclass || ' ' || refobjsubid) FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND deptype = 'a'
            AND objid IN (SELECT drawn('log_' || i) FROM generate_series(0, 2) i)), '{"log 1"}',
  'every shard has a sequence of its own, which belongs to the column of the logical table');
SELECT is((SELECT array_agg(pg_get_constraintdef(oid) ORDER BY conrelid::regclass::text)
    FROM pg_constraint WHERE conname = 'shard_slot'),
  '{"CHECK (shard_fdw.in_slot(1024, 1, id))","CHECK (shard_fdw.in_slot(1024, 2, id))","CHECK '
  '(shard_fdw.in_slot(1024, 3, id))"}',
  'every shard has a sequence of its own, and a constraint that says so');

SET LOCAL shard_fdw.shard = 1;
INSERT INTO log (v) VALUES ('a') RETURNING id \gset
SELECT lastval(), currval('log_id_2_seq') \gset
SELECT is(:id, 2, 'RETURNING gives the id');
SELECT is(:lastval, 2, 'RETURNING gives the id: lastval() as well');
SELECT is(:currval, 2, 'RETURNING gives the id, and currval() of the shard''s sequence');
SELECT is(shard_fdw.last_shard(), 'log_1'::regclass,
  'RETURNING gives the id, and last_shard() the shard');
SELECT results_eq('INSERT INTO log (v) VALUES (''b''), (''c'') RETURNING id, v',
  $$ VALUES (1026::bigint, 'b'), (2050, 'c') $$, 'several rows');
SELECT results_eq('INSERT INTO log (v, id) VALUES (''d'', DEFAULT), (''e'', NULL) RETURNING id',
  'VALUES (3074::bigint), (4098)', 'DEFAULT and NULL');
INSERT INTO log (v) SELECT repeat('x', 3000) || g FROM generate_series(1, 500) g;
SELECT is((SELECT array_agg(DISTINCT id - lag) FROM (SELECT id, lag(id) OVER (ORDER BY id) AS lag
      FROM log_1) t), '{1024,NULL}', 'INSERT ... SELECT: no gap');
SELECT is((SELECT count(*) FROM log WHERE length(v) > 3000 AND right(v, length(v) - 3000)::int
    * 1024 + 4098 = id), 500::bigint, 'INSERT ... SELECT: no gap, each row has its id');
COPY log (v) FROM STDIN;
copied
copied too
\.
SELECT is((SELECT array_agg((id - 2) / 1024 ORDER BY id) FROM log WHERE v LIKE 'copied%'),
  '{505,506}', 'COPY fills ids in');
RESET shard_fdw.shard;

-- Values of the user's.
SELECT fails('INSERT INTO log VALUES (7, ''x'')', '428C9',
  'cannot insert a non-DEFAULT value into column "id"',
  'Column "id" of foreign table "log" has option "sequence" with value "always".',
  'Use OVERRIDING SYSTEM VALUE to override.', title => 'a value of the user''s');
SELECT fails('INSERT INTO log (id) SELECT 7', '428C9',
  title => 'a value of the user''s, from a query');
SET LOCAL shard_fdw.shard = -1;
INSERT INTO log OVERRIDING SYSTEM VALUE VALUES (10240003, 'mine'), (10240001, 'mine'),
  (10240002, 'mine');
SELECT is((SELECT array_agg(concat_ws(' ', tableoid::regclass, id) ORDER BY id) FROM log
    WHERE v = 'mine'), '{log_0 10240001,log_1 10240002,log_2 10240003}',
  'OVERRIDING SYSTEM VALUE: it goes to the shard of its slot');
SELECT fails('INSERT INTO log OVERRIDING SYSTEM VALUE VALUES (4, ''x'')', '23514',
  'no shard of foreign table "log" takes the row',
  'The value 4 of column "id" is of a slot that no open shard has.',
  'Leave the column out, or insert into a shard that takes any value.',
  title => 'OVERRIDING SYSTEM VALUE: it goes to the shard of its slot, or nowhere');
INSERT INTO log OVERRIDING USER VALUE VALUES (4, 'user') RETURNING id % 1024 IN (1, 2, 3)
  AND id < 1000000 AS ok \gset
SELECT ok(:'ok', 'OVERRIDING USER VALUE: it does not count');
COPY log FROM STDIN;
20480001	loaded	2026-01-01
20480003	loaded	2026-01-01
\N	loaded	2026-01-01
\.
SELECT is((SELECT array_agg(tableoid::regclass::text ORDER BY id DESC)
    FROM (SELECT tableoid, id FROM log WHERE v = 'loaded' AND id > 20000000) t), '{log_2,log_0}',
  'COPY keeps values, as with identity columns');
SELECT is((SELECT count(*) FROM log WHERE v = 'loaded'), 3::bigint,
  'COPY keeps values, as with identity columns, and fills in what is null');
SELECT fails('INSERT INTO log_0 VALUES (2, ''x'')', '23514',
  title => 'a direct insert of another shard''s id');
SELECT fails('UPDATE log SET id = id + 1 WHERE id = 10240001', '23514',
  title => 'an update to another shard''s id');
SELECT is((SELECT count(DISTINCT id) FROM log), (SELECT count(*) FROM log),
  'all ids are different');

-- Triggers of the logical table do not see the id yet, those of the shard do.
SAVEPOINT s;
CREATE TABLE seen (who text, id bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen
  VALUES (TG_WHEN || ' ' || TG_TABLE_NAME, NEW.id); RETURN NEW; END $$;
CREATE TRIGGER t BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER u AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER t BEFORE INSERT ON log_0 FOR EACH ROW EXECUTE FUNCTION note();
SET LOCAL shard_fdw.shard = 0;
INSERT INTO log (v) VALUES ('seen'), ('seen');
SELECT is((SELECT array_agg(who ORDER BY who, id) FROM seen WHERE id IS NULL),
  '{"BEFORE log","BEFORE log"}', 'triggers');
SELECT is((SELECT array_agg(DISTINCT (who, id IN (SELECT id FROM log_0 WHERE v = 'seen'))::text
      ORDER BY (who, id IN (SELECT id FROM log_0 WHERE v = 'seen'))::text) FROM seen
    WHERE id IS NOT NULL),
  '{"(\"AFTER log\",t)","(\"BEFORE log_0\",t)"}', 'triggers, with the id');
ROLLBACK TO s;

-- Rollbacks leave gaps, no duplicates.
SAVEPOINT s;
INSERT INTO log (v) VALUES ('gone');
ROLLBACK TO s;
INSERT INTO log (v) SELECT 'after' FROM generate_series(1, 10);
SELECT is((SELECT count(DISTINCT id) FROM log), (SELECT count(*) FROM log),
  'after a rollback, all ids are different');

--
-- Which shards are read
--

ANALYZE log;
CREATE TABLE plain AS SELECT * FROM log;
SELECT is(scanned('SELECT * FROM log WHERE ' || clause), wanted, clause) FROM (VALUES
  ('id = 2', 'log_1'), ('id = 2::int', 'log_1'), ('2::smallint = id', 'log_1'), ('id = 4', 'none'),
  ('id IN (1, 3)', 'log_0 log_2'),
  ('id IN (1, 1025, NULL)', 'log_0'), ('id = ANY (''{3,1027}''::bigint[])', 'log_2'),
  ('id = NULL', 'none'), ('id = 2 AND v = ''a''', 'log_1'),
  ('id = 2 OR id = 1', 'log_0 log_1 log_2'), ('id = 2.0', 'log_0 log_1 log_2'),
  ('id > 2', 'log_0 log_1 log_2'), ('id <> ALL (''{1}'')', 'log_0 log_1 log_2'),
  ('id = -1022', 'log_1'), ('id = 99999999999999999', 'none')) t(clause, wanted);
SELECT is(scanned('UPDATE log SET v = ''u'' WHERE id = 2'), 'log_1', 'UPDATE');
SELECT is(scanned('DELETE FROM log WHERE id IN (2, 3)'), 'log_1 log_2', 'DELETE');
SELECT is(scanned('SELECT * FROM log WHERE id = 2 FOR UPDATE'), 'log_1', 'FOR UPDATE');
PREPARE by_id (bigint) AS SELECT id, v FROM log WHERE id = $1;
PREPARE by_int (int) AS SELECT id, v FROM log WHERE id = $1;
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT is(scanned('EXECUTE by_id(2)', 'ANALYZE, TIMING off'), 'log_1',
  'a generic plan executes one shard');
SELECT is(scanned('EXECUTE by_int(1027)', 'ANALYZE, TIMING off'), 'log_2',
  'a generic plan executes one shard: int');
SELECT is(scanned('EXECUTE by_id(NULL)', 'ANALYZE, TIMING off'), 'none',
  'a generic plan executes one shard: null');
SELECT is(scanned('UPDATE log SET v = v WHERE id = (SELECT 3)', 'ANALYZE, TIMING off'), 'log_2',
  'the result of a subquery');
SELECT results_eq('EXECUTE by_id(2)', 'SELECT id, v FROM plain WHERE id = 2',
  'the result of a subquery, and finds the row');
RESET plan_cache_mode;
CREATE FUNCTION counted(tbl text, clause text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s WHERE %s', tbl, clause) INTO n;
  RETURN n;
END $$;
SELECT is((SELECT count(*) FROM plain p WHERE counted('log', 'id = ' || id) <> 1), 0::bigint,
  'every row is found by its id');
SELECT is(counted('log', format('id IN (%s)', string_agg(id::text, ', '))), count(*),
  'every row is found by its id, and all by all ids') FROM plain;
SELECT is(counted('log', 'id = ' || g), counted('plain', 'id = ' || g), 'id ' || g)
  FROM generate_series(-3, 9) g;

-- Not pruned: a constraint that has not been validated, a shard with children.
SAVEPOINT s;
ALTER TABLE log_1 DROP CONSTRAINT shard_slot;
SELECT is(scanned('SELECT * FROM log WHERE id = 1'), 'log_0 log_1',
  'a shard without the constraint');
ALTER TABLE log_1 ADD CHECK (shard_fdw.in_slot(1024, 2, id)) NOT VALID;
SELECT is(scanned('SELECT * FROM log WHERE id = 1'), 'log_0 log_1',
  'a shard without the constraint, with one that has not been validated');
ROLLBACK TO s;
CREATE TABLE child () INHERITS (log_1);
SELECT is(scanned('SELECT * FROM log WHERE id = 1'), 'child log_0 log_1',
  'a shard without the constraint, with children');
ROLLBACK TO s;
DEALLOCATE by_id;
PREPARE by_one AS SELECT count(*) FROM log WHERE id = 1;
SELECT results_eq('EXECUTE by_one', 'SELECT count(*) FROM log_0 WHERE id = 1',
  'a prepared statement');
ALTER TABLE log_1 DROP CONSTRAINT shard_slot;
INSERT INTO log_1 (id) VALUES (1);
SELECT results_eq('EXECUTE by_one', 'SELECT 1 + count(*) FROM log_0 WHERE id = 1',
  'a prepared statement follows the constraint');
ROLLBACK TO s;

--
-- More shards, other layouts, TRUNCATE
--

DO $$ BEGIN PERFORM nextval(drawn('log_' || i)) FROM generate_series(0, 2) i; END $$;
SELECT is((SELECT array_agg(s::text) FROM shard_fdw.create_shards('log', 2) s), '{log_3,log_4}',
  'more shards');
SELECT is((SELECT array_agg(seqstart % 1024 ORDER BY seqstart % 1024) FROM pg_sequence
    WHERE seqrelid::regclass::text ~ '^log_id_._seq'), '{1,2,3,4,5}',
  'more shards have the next slots');
SELECT ok((SELECT min(seqstart) FROM pg_sequence WHERE seqrelid::regclass::text
    ~ '^log_id_[45]_seq') > (SELECT min(last_value) FROM pg_sequences
      WHERE sequencename ~ '^log_id_[123]_seq'),
  'more shards, and begin where others are');
DROP TABLE log_1;
SELECT shard_fdw.create_shards('log', 1) AS shard \gset
SELECT is(seqstart % 1024, 6::bigint, 'more shards, not one that another has had') FROM pg_sequence
  WHERE seqrelid = drawn(:'shard');
SET LOCAL shard_fdw.shard = 3;
INSERT INTO log (v) VALUES ('five') RETURNING id \gset
SELECT is(:id % 1024, 5, 'more shards, and ids of their own');
TRUNCATE log RESTART IDENTITY;
SELECT results_eq('INSERT INTO log (v) VALUES (''again'') RETURNING id', 'SELECT bigint ''' || :id
  || '''', 'TRUNCATE RESTART IDENTITY');
TRUNCATE log_4 RESTART IDENTITY;
SELECT results_eq('INSERT INTO log (v) VALUES (''next'') RETURNING id', 'SELECT 1024 + bigint '''
  || :id || '''', 'TRUNCATE RESTART IDENTITY, of the shard alone restarts nothing');
RESET shard_fdw.shard;
SET LOCAL client_min_messages = error;
CREATE FOREIGN TABLE few (id smallint OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '2', max_shards '2');
SET LOCAL client_min_messages = warning;
SELECT fails('SELECT shard_fdw.create_shards(''few'', 1)', '54000',
  title => 'no more shards than slots');
INSERT INTO few (v) SELECT g FROM generate_series(1, 10) g;
SELECT is((SELECT array_agg(DISTINCT id % 2 = (tableoid = 'few_0'::regclass)::int) FROM few), '{t}',
  'smallint, stride 2');
SET LOCAL shard_fdw.shard = 0;
SELECT fails('INSERT INTO few (v) SELECT g FROM generate_series(1, 20000) g', '2200H',
  title => 'smallint, stride 2, until there are no more');
RESET shard_fdw.shard;

CREATE TABLE turned (v text, gone int, more int DEFAULT 7, at timestamptz DEFAULT now(),
  id bigint DEFAULT nextval('log_id_1_seq'));
ALTER TABLE turned DROP gone;
CREATE FOREIGN TABLE other (id bigint OPTIONS (sequence 'always'), v text,
  at timestamptz DEFAULT now()) SERVER shards;
CREATE SEQUENCE turned_seq START 3 INCREMENT 1024;
ALTER TABLE turned ALTER id SET DEFAULT nextval('turned_seq');
ALTER TABLE turned INHERIT other;
SELECT results_eq('INSERT INTO other (v) VALUES (''t''), (''u'') RETURNING id, v',
  $$ VALUES (3::bigint, 't'), (1027, 'u') $$, 'a shard of another layout, with a default');
INSERT INTO other (v) SELECT 'x' FROM generate_series(1, 10);
SELECT results_eq('SELECT count(*), max(id) FROM turned WHERE more = 7',
  'VALUES (12::bigint, 11 * 1024 + 3::bigint)',
  'a shard of another layout, with a default: batches');

-- A sequence that somebody has set to ids of another shard.
SAVEPOINT s;
SELECT setval('few_id_1_seq', 6);
SET LOCAL shard_fdw.shard = 0;
SELECT fails('INSERT INTO few (v) VALUES (''x'')', '23514',
  'sequence "few_id_1_seq" does not give ids of shard "few_0"',
  'It has given 8; the shard holds ids of slot 1 of 2.',
  'Set the sequence to such an id, and its increment to the stride.',
  title => 'a sequence out of its slot');
ROLLBACK TO s;

-- by_default
CREATE FOREIGN TABLE loose (id int OPTIONS (sequence 'by_default'), v text) SERVER shards
  OPTIONS (shards '2', max_shards '100');
SET LOCAL shard_fdw.shard = 1;
SELECT results_eq('INSERT INTO loose VALUES (DEFAULT, ''a''), (77, ''b''), (NULL, ''c'') '
                  'RETURNING *', $$ VALUES (2, 'a'), (77, 'b'), (102, 'c') $$,
                  'by_default keeps what is there');
SELECT is(scanned('SELECT * FROM loose WHERE id = 77'), 'loose_0 loose_1',
  'by_default keeps what is there, and any shard may have any id');
SELECT results_eq('INSERT INTO loose OVERRIDING USER VALUE VALUES (5, ''d'') RETURNING id',
  'SELECT 202', 'by_default keeps what is there, unless overridden');
RESET shard_fdw.shard;

-- Hash tables.
CREATE FOREIGN TABLE hashed (id bigint OPTIONS (sequence 'always'), k int) SERVER shards
  OPTIONS (shards '3', route 'hash', key 'k');
INSERT INTO hashed (k) SELECT g % 50 FROM generate_series(1, 300) g;
SELECT is((SELECT count(DISTINCT id) FROM hashed), 300::bigint, 'a hash table');
SELECT is((SELECT count(*) FROM hashed h WHERE scanned('SELECT * FROM hashed WHERE id = ' || id)
    <> tableoid::regclass::text), 0::bigint, 'a hash table is read by id in one shard');
SELECT is(scanned('SELECT * FROM hashed WHERE k = 3 AND id = ' || id),
  scanned('SELECT * FROM hashed WHERE k = 3'),
  'a hash table is read by its key in one shard, whatever the id') FROM (
  SELECT id FROM hashed WHERE tableoid <> (SELECT tableoid FROM hashed WHERE k = 3 LIMIT 1)
    LIMIT 1) t;

-- Who may insert needs nothing else.
GRANT USAGE ON SCHEMA sequence_test TO shard_user;
GRANT INSERT, SELECT ON log TO shard_user;
SET LOCAL ROLE shard_user;
SELECT lives_ok('INSERT INTO log (v) VALUES (''user'') RETURNING id',
  'no privilege on the sequences is needed');
RESET ROLE;

--
-- What is refused
--

SELECT fails('CREATE FOREIGN TABLE bad (' || columns || ') SERVER shards ' || options, state,
  message, detail, hint, title => columns) FROM (VALUES
  ('a int OPTIONS (sequence ''sometimes'')', '', 'HV024',
    'invalid value for option "sequence": "sometimes"', '',
    'Valid values are: always, by_default.'),
  ('a int OPTIONS (sequenze ''always'')', '', 'HV00D', 'invalid option "sequenze"', '',
    'Valid options in this context are: sequence.'),
  ('a text OPTIONS (sequence ''always'')', '', '42P17',
    'column "a" of foreign table "bad" cannot have option "sequence"',
    'Its type is not smallint, integer or bigint.', ''),
  ('a int OPTIONS (sequence ''always'') DEFAULT 1', '', '42P17',
    'column "a" of foreign table "bad" cannot have option "sequence"',
    'It has a default, is an identity column, or is generated.', ''),
  ('a int OPTIONS (sequence ''always''), b int OPTIONS (sequence ''always'')', '', '42P17',
    'column "b" of foreign table "bad" cannot have option "sequence"',
    'Another column has it already.', ''),
  ('a int OPTIONS (sequence ''always'')', 'OPTIONS (route ''hash'', key ''a'')', '42P17',
    'column "a" of foreign table "bad" cannot have option "sequence"',
    'It belongs to the key, which decides the shard, whose sequence it would be.', '')
 ) t(columns, options, state, message, detail, hint);
SELECT fails('ALTER FOREIGN TABLE log ALTER v OPTIONS (ADD sequence ''always'')', '42P17',
  title => 'ALTER FOREIGN TABLE is checked, too');
SELECT fails('SELECT shard_fdw.in_slot(0, 1, 1)', '22023', title => 'in_slot: stride');
SELECT fails('SELECT shard_fdw.in_slot(8, 9, 1)', '22023', title => 'in_slot: slot');
SELECT is((SELECT array_agg(g) FROM generate_series(-20, 20) g WHERE shard_fdw.in_slot(8, 8, g)),
  '{-16,-8,0,8,16}', 'in_slot');
SELECT is((SELECT array_agg(g) FROM generate_series(-20, 20) g WHERE shard_fdw.in_slot(8, 3, g)),
  '{-13,-5,3,11,19}', 'in_slot');

--
-- Looking after sequences
--

-- A table of old joins.
CREATE TABLE old (id bigint PRIMARY KEY, v text);
INSERT INTO old SELECT g, 'old' FROM generate_series(1, 100000) g;
CREATE FOREIGN TABLE joined (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '2', template 'sequence_test.old');
INSERT INTO joined (v) SELECT 'new' FROM generate_series(1, 5);
SET LOCAL client_min_messages = error;
ALTER TABLE old INHERIT joined;
SET LOCAL client_min_messages = warning;
SET LOCAL shard_fdw.shard = 2;
SELECT fails('INSERT INTO joined (v) VALUES (''x'')', '55000',
  'shard "old" of foreign table "joined" has no sequence for column "id"',
  'The default of the shard''s column is not a call of nextval().',
  'Give it one with SELECT shard_fdw.reset_sequences().', title => 'a shard without a sequence');
SELECT is((SELECT array_agg(sequence::text || ' ' || next_value ORDER BY sequence::text)
    FROM shard_fdw.reset_sequences('joined')),
  '{"joined_id_1_seq 100353","joined_id_2_seq 100354","joined_id_3_seq 100355"}',
  'reset_sequences gives it one, and gets all past the old ids');
SELECT results_eq('INSERT INTO joined (v) VALUES (''x'') RETURNING id', 'SELECT 100355::bigint',
  'reset_sequences gives it one and gets all past the old ids, which works');
RESET shard_fdw.shard;
INSERT INTO joined (v) SELECT 'more' FROM generate_series(1, 100);
SELECT is((SELECT count(DISTINCT id) FROM joined), 100101::bigint,
  'after reset_sequences no id is given twice (five were there before)');
SELECT is(scanned('SELECT * FROM joined WHERE id = 5'), 'old',
  'after reset_sequences the old shard is read for any id');
SELECT is((SELECT count(*) FROM shard_fdw.reset_sequences('joined') r
    JOIN pg_sequences s ON s.schemaname || '.' || s.sequencename = 'sequence_test.' || r.sequence
            WHERE next_value <= last_value), 0::bigint, 'never backwards');
SELECT is((SELECT array_agg(sequence::text || ' ' || next_value ORDER BY sequence::text)
    FROM shard_fdw.reset_sequences('joined')),
  (SELECT array_agg(sequence::text || ' ' || next_value ORDER BY sequence::text)
    FROM shard_fdw.reset_sequences('joined')),
  'reset_sequences never sets a sequence forwards without need');

-- Plain tables and logical tables with a sequence of their own.
CREATE TABLE serial (id serial PRIMARY KEY, other int GENERATED BY DEFAULT AS IDENTITY, v text);
INSERT INTO serial (id, other) VALUES (500, 70);
SELECT is((SELECT array_agg(sequence::text || ' ' || next_value ORDER BY sequence::text)
    FROM shard_fdw.reset_sequences('serial')),
  '{"serial_id_seq 501","serial_other_seq 71"}', 'a plain table');
SELECT results_eq('INSERT INTO serial (v) VALUES (''x'') RETURNING id, other', 'VALUES (501, 71)',
  'a plain table goes on behind the maximum');
CREATE FOREIGN TABLE big (id bigserial, v text) SERVER shards OPTIONS (shards '2');
INSERT INTO big SELECT g FROM generate_series(10, 20) g;
SELECT is((SELECT r::text FROM shard_fdw.reset_sequences('big') r), '(big_id_seq,21)',
  'a logical table with one sequence for all');
CREATE SEQUENCE down INCREMENT -1;
CREATE TABLE counting (n int DEFAULT nextval('down'));
INSERT INTO counting VALUES (5);
SELECT is((SELECT r::text FROM shard_fdw.reset_sequences('counting') r), '(down,-1)',
  'a descending sequence is left alone');
SELECT fails(format('SELECT * FROM shard_fdw.reset_sequences(%s)', arg), wanted, title => arg)
  FROM (VALUES ('1', '42P01'), ('''down''', '42809')) t(arg, wanted);

-- The view
SELECT results_eq($$ SELECT sequence::text, tbl::text, column_name::text COLLATE "default",
    is_owned, increment_by, cache_size, maximum, collides FROM shard_fdw.sequences
                     WHERE tbl = 'serial'::regclass ORDER BY 1 $$,
  $$ VALUES ('serial_id_seq', 'serial', 'id', true, 1::bigint, 1::bigint, 501::bigint, false),
    ('serial_other_seq', 'serial', 'other', true, 1, 1, 71, false) $$, 'the view');
INSERT INTO serial (id) VALUES (502);
SELECT ok(collides, 'the view says what would collide') FROM shard_fdw.sequences
  WHERE sequence = 'serial_id_seq'::regclass;
CREATE SEQUENCE orphan;
SELECT is((SELECT (tbl, is_owned)::text FROM shard_fdw.sequences
    WHERE sequence = 'orphan'::regclass), '(,f)', 'the view says which sequences serve nobody');
SELECT is((SELECT (tbl, is_owned)::text FROM shard_fdw.sequences
    WHERE sequence = 'turned_seq'::regclass), '(turned,f)',
  'the view says which sequences do not belong where they serve');
SELECT is((SELECT array_agg(o::text ORDER BY o::text) FROM shard_fdw.own_sequences('other') o),
  '{turned_seq}', 'own_sequences mends that');
SELECT is((SELECT (tbl, is_owned)::text FROM shard_fdw.sequences
    WHERE sequence = 'turned_seq'::regclass), '(turned,t)',
  'own_sequences mends that, for the shards of a logical table');
SELECT is_empty($$ SELECT shard_fdw.own_sequences('other') $$, 'own_sequences mends that, once');
GRANT SELECT ON shard_fdw.sequences TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is((SELECT (maximum, last_value)::text FROM shard_fdw.sequences
    WHERE sequence = 'serial_id_seq'::regclass), '(,)', 'who may not read sees no values');
SELECT fails('SELECT shard_fdw.reset_sequences(''serial'')', '42501',
  title => 'a role that may not read the table resets nothing');
SELECT fails('SELECT shard_fdw.own_sequences(''serial'')', '42501',
  title => 'a role that may not read the table owns no sequences');
RESET ROLE;

-- What is in tables of others must not run for who looks at the view, nor spoil it.
CREATE TYPE odd AS ENUM ('a');
CREATE FUNCTION odd_cast(odd) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'the cast has run';
END $$;
CREATE CAST (odd AS bigint) WITH FUNCTION odd_cast(odd);
CREATE TABLE odd_table (e odd, code text DEFAULT 'A' || nextval('orphan'), j json);
INSERT INTO odd_table VALUES ('a', 'A1');
CREATE SEQUENCE odd_seq OWNED BY odd_table.e;
CREATE SEQUENCE json_seq OWNED BY odd_table.j;
SELECT is((SELECT count(*) FROM shard_fdw.sequences WHERE tbl = 'odd_table'::regclass
    AND maximum IS NULL), 3::bigint, 'columns of other types have no maximum');
CREATE TABLE policed (id serial);
ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON policed TO shard_user;
SET LOCAL ROLE shard_user;
SELECT is((SELECT maximum FROM shard_fdw.sequences WHERE tbl = 'policed'::regclass), NULL,
  'nor have tables with policies');
RESET ROLE;

-- The stride stays what it is.
CREATE FOREIGN TABLE stride (id bigint OPTIONS (sequence 'always'), v int) SERVER shards
  OPTIONS (shards '2', max_shards '4');
SELECT fails('ALTER FOREIGN TABLE stride OPTIONS (SET max_shards ''6'')', '55000',
  'option "max_shards" of foreign table "stride" cannot be greater than 4',
  'The sequences of column "id" go in steps of 4, so there are ids for 4 shards.',
  'Create another foreign table with more "max_shards", and insert the rows there.',
  title => 'more shards than the stride');
SELECT fails('ALTER FOREIGN TABLE stride OPTIONS (DROP max_shards)', '55000',
  title => 'more shards than the stride, by the default');
ALTER FOREIGN TABLE stride OPTIONS (SET max_shards '2');
SELECT fails('SELECT shard_fdw.create_shards(''stride'', 1)', '54000',
  title => 'fewer shards than the stride');
ALTER FOREIGN TABLE stride OPTIONS (SET max_shards '4');
SELECT shard_fdw.create_shards('stride', 2);
DO $$ BEGIN
  FOR i IN 0 .. 3 LOOP
    PERFORM set_config('shard_fdw.shard', i::text, true);
    INSERT INTO stride (v) SELECT generate_series(1, 20);
  END LOOP;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
SELECT is((SELECT count(DISTINCT id) FROM stride), 80::bigint,
  'ids are different when max_shards has changed and come back');

-- A sequence that has been dropped.
DROP SEQUENCE stride_id_2_seq CASCADE;
DO $$ BEGIN PERFORM shard_fdw.reset_sequences('stride'); END $$;
SET LOCAL shard_fdw.shard = 1;
INSERT INTO stride (v) VALUES (21) RETURNING id \gset
SELECT is(:id, 82, 'a sequence that was dropped is made anew, for the same slot');
RESET shard_fdw.shard;

--
-- An id is never given twice
--

CREATE FOREIGN TABLE once (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '2', max_shards '3');
CREATE TABLE given (id bigint);
CREATE FUNCTION fill(ordinal int DEFAULT -1, n int DEFAULT 1) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  first bigint;
BEGIN
  PERFORM set_config('shard_fdw.shard', ordinal::text, true);
  WITH i AS (INSERT INTO once (v) SELECT 'x' FROM generate_series(1, n) RETURNING id),
       g AS (INSERT INTO given SELECT id FROM i) SELECT min(id) INTO first FROM i;
  PERFORM set_config('shard_fdw.shard', '-1', true);
  RETURN first;
END $$;
SELECT is(fill(1), 2::bigint, 'the second shard''s first id');
DROP TABLE once_1;
SELECT shard_fdw.create_shards('once', 1);
SELECT is(fill(1), 3::bigint, 'a new shard takes a slot that none has had');
DROP TABLE once_1;
SELECT shard_fdw.create_shards('once', 1);
SELECT is(drawn('once_1')::text, 'once_id_2_seq',
  'a new shard takes a slot that none has had, or else continues that of another');
SELECT is(fill(1), 5::bigint, 'a new shard takes a slot that none has had, with its next id');
SELECT is(scanned('SELECT * FROM once WHERE id = 8'), 'once_1',
  'a new shard takes a slot that none has had, and is found by its ids');
SAVEPOINT s;
SELECT shard_fdw.create_shards('once', 1);
SELECT is(fill(2), 6::bigint, 'a shard whose creation is rolled back');
ROLLBACK TO s;
SELECT is(last_value, 6::bigint,
  'a shard whose creation is rolled back leaves the sequence where it is') FROM once_id_3_seq;
DROP TABLE once_0, once_1;
SET LOCAL client_min_messages = error;
SELECT shard_fdw.create_shards('once', 3);
SET LOCAL client_min_messages = warning;
SELECT is((SELECT array_agg(drawn('once_' || i)::text ORDER BY i) FROM generate_series(0, 2) i),
  '{once_id_1_seq,once_id_2_seq,once_id_3_seq}', 'all slots again');
SELECT is((SELECT array_agg(seqstart ORDER BY seqrelid::regclass::text) FROM pg_sequence
    WHERE seqrelid::regclass::text ~ '^once_id'), '{1,8,9}',
  'all slots again: the sequences start where these shards have begun');
SAVEPOINT s;
SELECT fill(1, 3);
TRUNCATE once RESTART IDENTITY;
SELECT is(fill(1), 8::bigint, 'all slots again, and are restarted there');
ROLLBACK TO s;
SELECT fill(i, 5) FROM generate_series(0, 2) i;
ALTER TABLE once_0 NO INHERIT once;
ALTER TABLE once_0 RENAME TO away;
SELECT shard_fdw.create_shards('once', 1);
SELECT is(drawn('once_3'), drawn('away'),
  'a detached shard and one that has taken its slot draw from one sequence');
SELECT fill(2, 5);
WITH i AS (INSERT INTO away (v) VALUES ('own') RETURNING id) INSERT INTO given SELECT id FROM i;
ALTER TABLE away INHERIT once;
SELECT fill(0, 5), fill(3, 5);
SELECT fails('SELECT shard_fdw.create_shards(''once'', 1)', '54000',
  title => 'a detached shard and one that has taken its slot draw from one sequence, and count as '
           'two shards');
SELECT is((SELECT count(*) - count(DISTINCT id) FROM given), 0::bigint,
  'no id has been given twice');
SELECT is((SELECT count(*) - count(DISTINCT id) FROM once), 0::bigint,
  'no id has been given twice, and none is there twice');
SELECT is(scanned('SELECT * FROM once WHERE id = 1'), 'away once_3',
  'both are read for an id of the slot');

-- A lost default, an own default, renaming, moving, a wider type.
SET LOCAL client_min_messages = error;
SELECT lives_ok('ALTER TABLE once_3 ALTER id DROP DEFAULT', 'a shard that loses its default');
SET LOCAL client_min_messages = warning;
SELECT fails('INSERT INTO once_3 (v) VALUES (1)', '23502',
  title => 'a shard that loses its default gets no ids');
SELECT is((SELECT count(*) FROM shard_fdw.reset_sequences('once')), 3::bigint,
  'a shard that loses its default, until reset_sequences()');
SELECT is(drawn('once_3')::text, 'once_id_1_seq',
  'a shard that loses its default gives it back the sequence of its slot');
SELECT fill(i, 5) FROM generate_series(0, 3) i;
SELECT setval('once_id_1_seq', 3000001);
SELECT is((SELECT next_value FROM shard_fdw.reset_sequences('once')
    WHERE sequence::text = 'once_id_1_seq'), 3000004::bigint,
  'a shard that loses its default, which does not go backwards');
SELECT fails('DROP SEQUENCE once_id_1_seq', '2BP01', title => 'a sequence in use is not dropped');
SELECT fails('ALTER SEQUENCE once_id_1_seq SET SCHEMA public', '0A000',
  title => 'a sequence in use is not dropped, nor moved');
CREATE SCHEMA elsewhere;
CREATE SCHEMA shards_only;
ALTER TABLE once_1 SET SCHEMA shards_only;
ALTER FOREIGN TABLE once SET SCHEMA elsewhere;
SELECT is((SELECT array_agg(DISTINCT relnamespace::regnamespace::text) FROM pg_class
    WHERE relname ~ '^once_id_._seq$'), '{elsewhere}', 'sequences follow the logical table');
ALTER FOREIGN TABLE elsewhere.once RENAME COLUMN id TO nr;
ALTER FOREIGN TABLE elsewhere.once OWNER TO shard_user;
SELECT is((SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class
    WHERE relname ~ '^once_id_._seq$'), '{shard_user}',
  'sequences follow the logical table, to its owner, too');
GRANT USAGE ON SCHEMA elsewhere TO shard_reader;
GRANT INSERT, SELECT ON elsewhere.once TO shard_reader;
SET LOCAL ROLE shard_reader;
INSERT INTO elsewhere.once (v) VALUES ('moved');
INSERT INTO elsewhere.once (v) VALUES ('moved');
RESET ROLE;
SELECT is((SELECT count(*) - count(DISTINCT nr) FROM elsewhere.once), 0::bigint,
  'sequences follow the logical table, and give ids as before');
ALTER FOREIGN TABLE elsewhere.once OWNER TO CURRENT_USER;
DROP TABLE once_2, shards_only.once_1, away, once_3;
SET LOCAL client_min_messages = error;
SELECT lives_ok('SELECT shard_fdw.create_shards(''elsewhere.once'', 2)',
  'shards of a table that was moved');
SET LOCAL client_min_messages = warning;
SELECT is((SELECT array_agg(DISTINCT refobjid::regclass::text) FROM pg_attrdef d
    JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
    JOIN pg_sequence ON seqrelid = refobjid JOIN pg_inherits ON inhrelid = adrelid
      WHERE inhparent = 'elsewhere.once'::regclass),
  '{elsewhere.once_id_1_seq,elsewhere.once_id_2_seq}',
  'shards of a table that was moved go on with its sequences');
ALTER FOREIGN TABLE elsewhere.once RENAME TO twice;
DROP TABLE elsewhere.once_0;
SELECT lives_ok('SELECT shard_fdw.create_shards(''elsewhere.twice'', 1)',
  'shards of a table that was moved, and of one that was renamed');
SELECT is((SELECT count(*) FROM pg_sequences WHERE schemaname = 'elsewhere'), 3::bigint,
  'shards of a table that was moved, with no other');
SELECT lives_ok('ALTER FOREIGN TABLE elsewhere.twice DROP COLUMN nr', 'the column can be dropped');
SELECT is((SELECT count(*) FROM pg_sequences WHERE schemaname = 'elsewhere'), 0::bigint,
  'the column can be dropped, with its sequences');

CREATE FOREIGN TABLE gone (id bigint OPTIONS (sequence 'by_default'), v text) SERVER shards
  OPTIONS (shards '2');
ALTER TABLE gone_1 NO INHERIT gone;
SELECT fails('DROP FOREIGN TABLE gone', '2BP01', title => 'a logical table with shards');
SET LOCAL client_min_messages = error;
DROP FOREIGN TABLE gone CASCADE;
SET LOCAL client_min_messages = warning;
SELECT is((SELECT count(*) FROM pg_class WHERE relname ~ '^gone_id'), 0::bigint,
  'a logical table with shards takes the sequences with it');
SELECT is(drawn('gone_1'), NULL,
  'a logical table with shards, and the default of a table that was a shard');

SET LOCAL client_min_messages = error;
CREATE FOREIGN TABLE wider (id smallint OPTIONS (sequence 'by_default'), v text) SERVER shards
  OPTIONS (shards '1', max_shards '5');
INSERT INTO wider VALUES (32767);
SELECT is((SELECT next_value > 32767 FROM shard_fdw.reset_sequences('wider')), true,
  'a sequence that has no value left');
SELECT fails('INSERT INTO wider (v) VALUES (1)', '2200H',
  title => 'a sequence that has no value left gives none');
ALTER TABLE wider ALTER id TYPE bigint;
SELECT lives_ok('INSERT INTO wider (v) VALUES (1)',
  'a sequence that has no value left, until the column gets wider');
SET LOCAL client_min_messages = warning;

-- From one sequence for all to one for each shard.
CREATE FOREIGN TABLE converted (id bigserial, v text) SERVER shards
  OPTIONS (shards '2', max_shards '4');
INSERT INTO converted (v) SELECT 'old' FROM generate_series(1, 101);
DELETE FROM converted WHERE id > 90;
SET LOCAL client_min_messages = error;
ALTER FOREIGN TABLE converted ALTER id DROP DEFAULT, ALTER id OPTIONS (ADD sequence 'always');
SET LOCAL client_min_messages = warning;
SELECT is((SELECT array_agg(next_value ORDER BY next_value)
    FROM shard_fdw.reset_sequences('converted')), '{105,106}',
  'ids go on behind those of a serial column');
SELECT shard_fdw.create_shards('converted', 1);
SET LOCAL shard_fdw.shard = 2;
SELECT results_eq('INSERT INTO converted (v) VALUES (1) RETURNING id', 'SELECT 107::bigint',
  'ids go on behind those of a serial column: those of shards that come later, too');
RESET shard_fdw.shard;

-- Ids that came with a table are behind those of shards to come.
CREATE TABLE came AS SELECT g::bigint AS id, 'came'::text AS v FROM generate_series(1, 1000) g;
CREATE FOREIGN TABLE joint (id bigint OPTIONS (sequence 'always'), v text) SERVER shards
  OPTIONS (shards '1', max_shards '4');
SET LOCAL client_min_messages = error;
ALTER TABLE came INHERIT joint;
SET LOCAL client_min_messages = warning;
SELECT shard_fdw.reset_sequences('joint') \g /dev/null
DROP TABLE joint_0;
SELECT shard_fdw.create_shards('joint', 3);
SELECT is((SELECT count(*) FROM joint), 1000::bigint, 'a table that came with ids');
INSERT INTO joint (v) SELECT 'new' FROM generate_series(1, 100);
SELECT shard_fdw.seal('came');
DO $$ BEGIN
  FOR i IN 1 .. 3 LOOP
    PERFORM set_config('shard_fdw.shard', i::text, true);
    INSERT INTO joint (v) SELECT 'new' FROM generate_series(1, 400);
  END LOOP;
  PERFORM set_config('shard_fdw.shard', '-1', true);
END $$;
SELECT is((SELECT count(*) - count(DISTINCT id) FROM joint), 0::bigint,
  'a table that came with ids: no other shard gives one of them');

-- Long names are cut, but not their numbers.
CREATE FOREIGN TABLE ttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt (
  ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc bigint
    OPTIONS (sequence 'always')) SERVER shards OPTIONS (shards '12');
SELECT is((SELECT array_agg(substring(relname, '_\d+_seq$') ORDER BY c.oid) FROM pg_class c
    WHERE relname ~ '^ttttt.*seq$'),
  (SELECT array_agg(format('_%s_seq', i) ORDER BY i) FROM generate_series(1, 12) i), 'long names');

-- Another's sequence as a shard's default.
GRANT CREATE ON SCHEMA sequence_test TO shard_user;
CREATE SEQUENCE secret;
SET LOCAL ROLE shard_user;
CREATE FOREIGN TABLE sly (id bigint OPTIONS (sequence 'by_default'), v int) SERVER shards
  OPTIONS (shards '1');
INSERT INTO sly (v) VALUES (1);
ALTER TABLE sly_0 ALTER id SET DEFAULT nextval('secret');
SELECT fails('INSERT INTO sly (v) VALUES (1)', '42501',
  title => 'a sequence that is not the shard''s wants a privilege');
RESET ROLE;

--
-- Whatever makes the rows, they get their ids and keep the rest
--

CREATE FOREIGN TABLE filled (v int, id bigint OPTIONS (sequence 'always'), w text,
  u numeric DEFAULT 5) SERVER shards OPTIONS (shards '2', route 'round_robin');
CREATE TABLE rows_in (v int, id bigint, w text, u numeric);
INSERT INTO rows_in SELECT g, NULL, repeat('x', g % 50), g / 7.0 FROM generate_series(1, 200) g;
CREATE INDEX ON rows_in (v);
CREATE FUNCTION lost_rows(query text, overriding text DEFAULT '') RETURNS bigint
  LANGUAGE plpgsql AS $$
DECLARE
  lost bigint;
BEGIN
  DELETE FROM filled;
  EXECUTE format('INSERT INTO filled (v, id, w, u) %s %s', overriding, query);
  EXECUTE format('SELECT count(*) FROM (SELECT q.v, w, u FROM (%s) AS q (v, id, w, u) EXCEPT ALL '
                 'SELECT v, w, u FROM filled) l', query) INTO lost;
  RETURN lost + (SELECT count(*) - count(DISTINCT id) FROM filled) + (SELECT count(*) FROM filled
    WHERE id IS NULL);
END $$;
SELECT is(lost_rows(q), 0::bigint, q) FROM unnest(ARRAY[
  'VALUES (1, NULL::bigint, ''a'', 2.5)',
  'VALUES (1, NULL::bigint, ''a'', 2.5), (2, NULL, NULL, NULL), (NULL, NULL, ''c'', 1)',
  'SELECT * FROM rows_in',
  'SELECT * FROM rows_in ORDER BY w, v LIMIT 70',
  'SELECT * FROM rows_in ORDER BY v FETCH FIRST 3 ROWS WITH TIES',
  'SELECT DISTINCT v % 5, NULL::bigint, w, 1.5 FROM rows_in',
  'SELECT v, id, w, u FROM rows_in UNION ALL SELECT v + 1000, id, w, u FROM rows_in ORDER BY 1',
  'SELECT v, id, w, u FROM rows_in INTERSECT SELECT v, id, w, u FROM rows_in WHERE v > 20',
  'SELECT v % 9, NULL::bigint, ''w''::text, 1.5 FROM rows_in EXCEPT ALL SELECT v % 3, NULL, '
  '''w'', 1.5 FROM rows_in WHERE v < 30',
  'SELECT v % 9, NULL::bigint, ''w''::text, 1.5 FROM rows_in INTERSECT ALL SELECT v % 8, NULL, '
  '''w'', 1.5 FROM rows_in',
  'SELECT v, NULL::bigint, lag(w) OVER (ORDER BY v), sum(u) OVER (ORDER BY v) FROM rows_in',
  'SELECT max(v), NULL::bigint, w, sum(u) FROM rows_in GROUP BY w',
  'SELECT a.v, NULL::bigint, b.w, a.u FROM rows_in a JOIN rows_in b ON a.v = b.v + 1',
  'SELECT unnest(ARRAY[v, -v]), NULL::bigint, w, u FROM rows_in',
  'WITH RECURSIVE r AS (SELECT 1 AS v, NULL::bigint AS id, ''x''::text AS w, 1.0 AS u UNION ALL '
  'SELECT v + 1, id, w || v, u FROM r WHERE v < 30) SELECT * FROM r',
  'WITH c AS MATERIALIZED (SELECT * FROM rows_in) SELECT * FROM c UNION ALL SELECT * FROM c']) q;
SET LOCAL enable_hashagg = off;
SELECT is(lost_rows(q), 0::bigint, 'sorted: ' || q) FROM unnest(ARRAY[
  'SELECT v % 9, NULL::bigint, ''w''::text, 1.5 FROM rows_in EXCEPT ALL SELECT v % 3, NULL, '
  '''w'', 1.5 FROM rows_in WHERE v < 30',
  'SELECT v % 9, NULL::bigint, ''w''::text, 1.5 FROM rows_in INTERSECT ALL SELECT v % 8, NULL, '
  '''w'', 1.5 FROM rows_in']) q;
RESET enable_hashagg;
SELECT is(lost_rows('SELECT * FROM (VALUES (1, 7::bigint, ''a''::text, 2.5::numeric), (2, 8, '
                    '''b'', 3.5), (3, 9, ''c'', NULL)) x', 'OVERRIDING USER VALUE'), 0::bigint,
  'ids that are there are replaced');

--
-- The ids of batches
--

CREATE FOREIGN TABLE ahead (id bigint OPTIONS (sequence 'always'), v int)
  SERVER shards OPTIONS (shards '3', max_shards '10', commit_order 'true');
SET LOCAL shard_fdw.shard = 0;
INSERT INTO ahead (v) SELECT g FROM generate_series(1, 1000) g;
SELECT lastval() \gset
SELECT is((SELECT count(*) FROM ahead WHERE id = 1 + (v - 1) * 10), 1000::bigint,
  'the ids of a batch are in the order of its rows, without a gap');
SELECT is(currval('ahead_id_1_seq'), 9991::bigint,
  'the ids of a batch are in the order of its rows, without a gap: currval() is the last one');
SELECT is(:lastval, 9991,
  'the ids of a batch are in the order of its rows, without a gap, and lastval()');
SELECT is((SELECT last_value FROM ahead_id_1_seq), 9991::bigint,
  'the ids of a batch are in the order of its rows, without a gap, and none more has been taken');
SELECT is((SELECT count(*) FROM pg_locks WHERE relation = 'ahead_id_1_seq'::regclass
    AND mode = 'ShareRowExclusiveLock'), 0::bigint,
  'after a batch no lock is left that would keep others from the sequence');
SELECT results_eq('INSERT INTO ahead (v) VALUES (1001) RETURNING id', 'SELECT 10001::bigint',
  'the ids of a batch are in the order of its rows, without a gap: the next row has the next id');
COPY ahead (v) FROM PROGRAM 'seq 1002 3000';
SELECT is((SELECT count(*) FROM ahead WHERE id = 1 + (v - 1) * 10), 3000::bigint,
  'COPY does the same');
SELECT is(currval('ahead_id_1_seq'), 29991::bigint, 'COPY does the same, with the same currval()');
INSERT INTO ahead (v) SELECT g FROM generate_series(3001, 53000) g;
SELECT is((SELECT count(*) FROM ahead WHERE id = 1 + (v - 1) * 10), 53000::bigint,
  'COPY does the same, as do many batches');
SELECT fails('INSERT INTO ahead (v) SELECT 1 / (900 - g) FROM generate_series(1, 1000) g', '22012',
  title => 'a statement that fails');
INSERT INTO ahead (v) SELECT g FROM generate_series(1, 100) g;
SELECT is((SELECT count(DISTINCT id) FROM ahead), 53100::bigint,
  'a statement that fails leaves ids that nobody has');
ALTER SEQUENCE ahead_id_1_seq INCREMENT 30;
INSERT INTO ahead (v) SELECT g FROM generate_series(1, 100) g;
SELECT is((SELECT count(*) FROM (SELECT id - lag(id) OVER (ORDER BY id) AS step FROM ahead
      ORDER BY id DESC LIMIT 100) d WHERE step = 30), 100::bigint,
  'the sequence''s own increment counts');
ALTER SEQUENCE ahead_id_1_seq INCREMENT 5;
SELECT fails('INSERT INTO ahead (v) SELECT g FROM generate_series(1, 100) g', '23514',
  title => 'the sequence''s own increment counts, and does not lead to another shard''s ids');
SET LOCAL shard_fdw.shard = 1;
ALTER SEQUENCE ahead_id_2_seq MAXVALUE 312;
SELECT fails('INSERT INTO ahead (v) SELECT g FROM generate_series(1, 40) g', '2200H',
  title => 'a batch that reaches the end of the sequence is refused');
ALTER SEQUENCE ahead_id_2_seq RESTART;
INSERT INTO ahead (v) SELECT g FROM generate_series(1, 32) g;
SELECT is((SELECT array_agg(id ORDER BY id) FROM ahead_1),
  ARRAY(SELECT generate_series(2::bigint, 312, 10)),
  'a batch that reaches the end of the sequence is refused: one that just fits is not');
SET LOCAL shard_fdw.shard = 2;
ALTER SEQUENCE ahead_id_3_seq CACHE 7;
INSERT INTO ahead (v) SELECT g FROM generate_series(1, 100) g;
SELECT is((SELECT count(*) FROM ahead_2 WHERE id = 3 + (v - 1) * 10), 100::bigint,
  'a sequence that caches goes on doing so');
SET LOCAL shard_fdw.shard = 0;
ALTER SEQUENCE ahead_id_1_seq INCREMENT 10;
SELECT setval('ahead_id_1_seq', (SELECT max(id) FROM ahead_0)) \g /dev/null
WITH a AS (INSERT INTO ahead (v) SELECT g FROM generate_series(1, 100) g RETURNING v)
  INSERT INTO ahead (v) SELECT v FROM a;
INSERT INTO ahead (v) SELECT nextval('ahead_id_1_seq') FROM generate_series(1, 100)
  RETURNING v \g /dev/null
WITH a AS (INSERT INTO ahead_0 (v) SELECT g FROM generate_series(1, 100) g RETURNING v)
  INSERT INTO ahead (v) SELECT v FROM a;
INSERT INTO ahead (v) SELECT g FROM generate_series(1, 100) g;
SELECT is((SELECT count(*) - count(DISTINCT id) FROM ahead), 0::bigint,
  'ids that others draw while a statement runs are theirs');
RESET shard_fdw.shard;

CREATE FOREIGN TABLE ahead_of_key (id bigint OPTIONS (sequence 'always'), k int)
  SERVER shards OPTIONS (shards '5', max_shards '10', route 'hash', key 'k', commit_order 'true');
INSERT INTO ahead_of_key (k) SELECT g FROM generate_series(1, 5000) g;
SELECT lastval() \gset
SELECT is((SELECT count(DISTINCT id) FROM ahead_of_key), 5000::bigint, 'several shards at once');
SELECT is((SELECT id FROM ahead_of_key WHERE k = 5000), :lastval::bigint,
  'several shards at once: lastval() is the last row''s');
SELECT is((SELECT count(*) FROM (SELECT tableoid, (max(id) - min(id)) / 10 + 1 AS n, count(*)
      FROM ahead_of_key GROUP BY tableoid) s WHERE n = count), 5::bigint,
  'several shards at once: none with a gap');

-- With no privilege but the one to insert.
GRANT USAGE ON SCHEMA sequence_test TO shard_user;
GRANT INSERT ON ahead_of_key TO shard_user;
SET LOCAL ROLE shard_user;
INSERT INTO ahead_of_key (k) SELECT g FROM generate_series(5001, 6000) g;
SELECT is(current_user::text, 'shard_user', 'who inserts stays who he is');
SELECT fails('SELECT nextval(''ahead_of_key_id_1_seq'')', '42501',
  title => 'who inserts stays who he is, and may not use the sequences');
RESET ROLE;
SELECT is((SELECT count(DISTINCT id) FROM ahead_of_key), 6000::bigint,
  'who inserts stays who he is, but his rows have their ids');

SELECT * FROM finish();
ROLLBACK;
