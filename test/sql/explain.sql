-- What EXPLAIN says of commands on a logical table, and with it when rows are
-- inserted in batches.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;

CREATE FUNCTION explain(command text, options text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
  result json;
BEGIN
  EXECUTE format('EXPLAIN (FORMAT json%s) %s', options, command) INTO result;
  RETURN result;
END $$;

CREATE FUNCTION explain_text(command text, options text DEFAULT 'COSTS off')
RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY EXECUTE format('EXPLAIN (%s) %s', options, command);
END $$;

CREATE FUNCTION all_of(plan jsonb, key text) RETURNS SETOF jsonb LANGUAGE sql AS $$
  SELECT jsonb_path_query(plan, format('strict $.**.%I', key)::jsonpath)
$$;

CREATE FUNCTION batch_size(command text) RETURNS int LANGUAGE sql AS $$
  SELECT all_of::int FROM all_of(explain(command, ', VERBOSE'), 'Batch Size')
$$;

-- Tables that are scanned anywhere in the plan.
CREATE FUNCTION scanned(command text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT DISTINCT n->>'Relation Name'
    FROM jsonb_path_query(explain(command),
           'strict $.** ? (@."Node Type" like_regex "Scan")') n
   WHERE n ? 'Relation Name'
$$;

CREATE FOREIGN TABLE log (id int, msg text) SERVER shards OPTIONS (shards '3');
CREATE FOREIGN TABLE rr (id serial, msg text) SERVER shards
OPTIONS (shards '3', route 'round_robin');

-- without ANALYZE

SELECT is((SELECT array_agg(trim(l)) FROM explain_text('INSERT INTO log VALUES (1)') l
            WHERE l ~ 'Route|Shard|Batch'),
  '{Route: session}', 'the route is shown');
SELECT is((SELECT array_agg(trim(l))
    FROM explain_text('INSERT INTO rr SELECT generate_series(1, 9)') l
            WHERE l ~ 'Route|Shard|Batch'),
  '{Route: round_robin}', 'the route is shown, also the other one');
SELECT is((SELECT array_agg(l) FROM all_of(explain('INSERT INTO rr VALUES (1)'), 'Route') l),
  '{"\"round_robin\""}', 'the route is shown, in JSON');
SELECT is_empty($$ SELECT * FROM all_of(explain('INSERT INTO rr VALUES (1)'), 'Shards') $$,
  'nothing has been written, so no shards are');
SET LOCAL shard_fdw.shard = 1;
SELECT ok('Route: pinned' IN (SELECT trim(l) FROM explain_text('INSERT INTO log VALUES (1)') l),
  'a pin is shown');
RESET shard_fdw.shard;
SELECT is((SELECT count(*) FROM shard_fdw.leases
            WHERE logical = 'log'::regclass AND pid = pg_backend_pid()), 0::bigint,
  'EXPLAIN takes no lease');
CREATE FUNCTION shards_locked(logical regclass) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(DISTINCT l.relation) FROM pg_locks l
    JOIN pg_inherits i ON i.inhrelid = l.relation
   WHERE i.inhparent = logical AND l.pid = pg_backend_pid() AND l.mode = 'RowExclusiveLock'
$$;
SELECT is(shards_locked('rr') + shards_locked('log'), 0::bigint,
  'EXPLAIN takes no lease, and locks no shard');
SELECT is((SELECT count(*) FROM rr) + (SELECT count(*) FROM log), 0::bigint,
  'EXPLAIN takes no lease, and writes nothing');
CREATE FOREIGN TABLE bare (id int) SERVER shards;
SELECT ok('Route: session' IN (SELECT trim(l) FROM explain_text('INSERT INTO bare VALUES (1)') l),
  'a table without shards');

-- with ANALYZE

SELECT string_agg(trim(l), ', ') AS plan
  FROM explain_text('INSERT INTO log SELECT generate_series(1, 10)', 'ANALYZE, COSTS off') l
 WHERE l ~ 'Route|Shard|Batch' \gset
SELECT is(:'plan', format('Route: session, Shard: %s (rows=10)', shard_fdw.last_shard()),
  'ANALYZE shows where the rows went');
SELECT is(shards_locked('log'), 1::bigint,
  'ANALYZE shows where the rows went, to the one shard that was locked');
SELECT is((SELECT count(*) FROM log), 10::bigint,
  'ANALYZE shows where the rows went, which it has really written');
SELECT string_agg(trim(l), ', ') AS plan
  FROM explain_text('INSERT INTO log VALUES (1)', 'ANALYZE, VERBOSE, COSTS off') l
 WHERE l ~ 'Route|Shard|Batch' \gset
SELECT is(:'plan', format('Route: session, Batch Size: 1, Shard: public.%s (rows=1)',
                          shard_fdw.last_shard()),
  'VERBOSE adds the schema and the batch size');
SELECT explain('INSERT INTO rr SELECT generate_series(1, 3001)', ', ANALYZE') AS plan \gset
SELECT bag_eq(
  format($$ SELECT s->>'Shard' AS t, s->>'Schema', (s->'Rows')::bigint
              FROM jsonb_path_query(%L::jsonb, 'strict $.**."Shards"[*]') s $$, :'plan'),
  $$ SELECT tableoid::regclass::text AS t, NULL, count(*) FROM rr GROUP BY 1 $$,
  'in JSON, the shards of round robin');
SELECT is((SELECT count(*) FROM rr), 3001::bigint,
  'in JSON, the shards of round robin, all rows of them');
SELECT results_eq($$ SELECT s FROM jsonb_path_query(
                              explain('INSERT INTO rr VALUES (1), (2), (3), (4), (5), (6)',
                                      ', ANALYZE, VERBOSE'),
                              'strict $.**."Shards"[*]') s ORDER BY s->>'Shard' $$,
  $$ SELECT jsonb_build_object('Shard', 'rr_' || g, 'Schema', 'public', 'Rows', 2)
       FROM generate_series(0, 2) g $$,
  'in JSON, the shards of round robin, with the schema if VERBOSE');
SELECT is((SELECT s FROM all_of(explain('INSERT INTO rr SELECT 1 WHERE false', ', ANALYZE'),
      'Shards') s),
  '[]', 'no rows, no shards');
SELECT results_eq($$ SELECT a.r, b.s FROM (
    SELECT explain('WITH i AS (INSERT INTO log SELECT generate_series(1, 5) RETURNING id)
                    INSERT INTO rr SELECT id FROM i', ', ANALYZE') e) p,
    LATERAL (SELECT array_agg(r ORDER BY r) FROM all_of(e, 'Route') r) a(r),
    LATERAL (SELECT sum(s::int) FROM jsonb_path_query(e, 'strict $.**."Shards"[*]."Rows"') s) b(s)
      $$,
  $$ VALUES ('{"\"round_robin\"","\"session\""}'::jsonb[], 10::bigint) $$,
  'two inserts in one command');
SELECT results_eq(
  $$ SELECT (r #>> '{}') FROM all_of(explain('INSERT INTO rr SELECT id FROM log RETURNING id',
                                              ', ANALYZE'), 'Route') r $$,
  $$ VALUES ('round_robin') $$, 'RETURNING');

-- a constant key

CREATE TABLE by_key_template (id bigint PRIMARY KEY, a text, v int);
CREATE FOREIGN TABLE by_key (id bigint NOT NULL, a text, v int) SERVER shards
OPTIONS (shards '4', route 'hash', key 'id', template 'by_key_template');
CREATE FUNCTION shards_shown(command text) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(trim(l), ', ') FROM explain_text(command) l WHERE l ~ 'Shard'
$$;
SELECT is((SELECT string_agg(trim(l), ', ') FROM explain_text('INSERT INTO by_key VALUES (42)') l
            WHERE l ~ 'Route|Shard'),
  'Route: hash, Shard: by_key_2', 'the shard of a constant key is shown');
SELECT is(shards_locked('by_key'), 0::bigint, 'the shard of a constant key is not locked for that');
SELECT is_empty($$ WITH shown AS (
                     SELECT k, shards_shown(format('INSERT INTO by_key VALUES (%s)', k)) AS shard
                       FROM unnest('{-9223372036854775808,-1,0,1,2,3,4,5,6,7,99}'::bigint[]) k),
                        written AS (INSERT INTO by_key SELECT k FROM shown RETURNING id, tableoid)
                   SELECT * FROM shown WHERE shard IS NULL $$,
  'the shard of a constant key is shown, whatever the value');
SELECT is_empty($$ SELECT id, tableoid::regclass FROM by_key_0 UNION ALL
                   SELECT id, tableoid::regclass FROM by_key_1 UNION ALL
                   SELECT id, tableoid::regclass FROM by_key_2 UNION ALL
                   SELECT id, tableoid::regclass FROM by_key_3
                   EXCEPT
                   SELECT id, substring(shards_shown(format('INSERT INTO by_key VALUES (%s)', id))
                                        FROM 'Shard: (.*)')::regclass FROM by_key $$,
  'the shard of a constant key is shown, and it is where the row goes');
SELECT is((SELECT s
             FROM all_of(explain('INSERT INTO by_key VALUES (42)', ', VERBOSE'), 'Shards') s),
  '[{"Shard": "by_key_2", "Schema": "public"}]', 'the shard of a constant key, in JSON');
SELECT is(shards_shown($$INSERT INTO by_key VALUES ('42') ON CONFLICT DO NOTHING$$),
  'Shard: by_key_2', 'the shard of a constant key, with ON CONFLICT');
SELECT is(shards_shown('INSERT INTO by_key (v, id) SELECT id, 42 FROM rr'),
  'Shard: by_key_2', 'the shard of a constant key, for many rows');
SELECT is(shards_shown('WITH i AS (INSERT INTO by_key VALUES (42)) SELECT 1'),
  'Shard: by_key_2', 'the shard of a constant key, in WITH');
SELECT is(shards_shown('INSERT INTO by_key VALUES (1), (42)'), NULL, 'no constant: two rows');
SELECT is(shards_shown('INSERT INTO by_key SELECT id FROM rr'), NULL, 'no constant: a column');
SELECT is(shards_shown('INSERT INTO by_key VALUES ((random() * 9)::int)'), NULL,
  'no constant: a volatile function');
PREPARE by_key(bigint) AS INSERT INTO by_key VALUES ($1);
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT is(shards_shown('EXECUTE by_key(42)'), 'Shard: by_key_2', 'a parameter');
SET LOCAL plan_cache_mode = force_custom_plan;
SELECT is(shards_shown('EXECUTE by_key(42)'), 'Shard: by_key_2', 'a parameter of a custom plan');
RESET plan_cache_mode;
SET LOCAL shard_fdw.shard = 1;
SELECT is(shards_shown('INSERT INTO by_key VALUES (42)'), NULL, 'a pin goes before the key');
RESET shard_fdw.shard;
SELECT shard_fdw.seal('by_key_2');
SELECT is(shards_shown('INSERT INTO by_key VALUES (42)'), NULL, 'a sealed shard takes no row');
SELECT shard_fdw.unseal('by_key_2');
CREATE FUNCTION other_key() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN NEW.id := 1; RETURN NEW; END';
CREATE TRIGGER other_key BEFORE INSERT ON by_key FOR EACH ROW EXECUTE FUNCTION other_key();
SELECT is(shards_shown('INSERT INTO by_key VALUES (42)'), NULL, 'a trigger may change the key');
DROP TRIGGER other_key ON by_key;
CREATE FOREIGN TABLE by_two (a text, b int, v int DEFAULT 1) SERVER shards
OPTIONS (shards '5', route 'hash', key 'b, a');
SELECT is(shards_shown(format('INSERT INTO by_two VALUES (%L, 7)', a)),
    (SELECT format('Shard: %s', s.shard) FROM shard_fdw.list_shards('by_two') s
      WHERE shard_fdw.in_hash(5, s.ordinal, 7, a)), 'a key of two columns: ' || coalesce(a, 'null'))
  FROM (VALUES ('x'), (NULL)) t(a);
SELECT is(shards_shown('INSERT INTO by_two SELECT msg, 7 FROM rr'), NULL,
  'a key of two columns, of which one is not constant');

-- many shards

CREATE FOREIGN TABLE many (id int) SERVER shards OPTIONS (shards '12', route 'round_robin');
CREATE FUNCTION lines_shown(command text, options text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT trim(l) FROM explain_text(command, options) l WHERE l ~ 'Shard'
$$;
SELECT results_eq($$ SELECT * FROM lines_shown('INSERT INTO many SELECT generate_series(1, 30)',
                                               'ANALYZE, COSTS off') $$,
  $$ VALUES ('Shards: 12 (rows=30 fewest=2 most=3)') $$, 'many shards are summarized');
SELECT results_eq($$ SELECT regexp_replace(l, '[23]\)', '2|3)')
                       FROM lines_shown('INSERT INTO many SELECT generate_series(1, 30)',
                                        'ANALYZE, VERBOSE, COSTS off') l $$,
  $$ VALUES ('Shards: 12 (rows=30 fewest=2 most=2|3)')
      UNION ALL
     SELECT 'Shard: public.many_' || g || ' (rows=2|3)' FROM generate_series(0, 11) g $$,
  'many shards are listed in their order with VERBOSE');
SELECT is((SELECT array_agg(s->>'Shard') FROM jsonb_path_query(
             explain('INSERT INTO many SELECT generate_series(1, 30)', ', ANALYZE'),
             'strict $.**."Shards"[*]') s),
  (SELECT array_agg('many_' || g) FROM generate_series(0, 11) g),
  'all are listed in JSON, in their order');
SELECT results_eq($$ SELECT regexp_replace(l, '\d+\)', 'n)')
                       FROM lines_shown('INSERT INTO by_key SELECT generate_series(2001, 2500)',
                                        'ANALYZE, COSTS off') l OFFSET 1 $$,
  $$ SELECT 'Shard: by_key_' || g || ' (rows=n)' FROM generate_series(0, 3) g $$,
  'few shards are listed in their order');

-- Rows that a trigger skips are not written.
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN IF NEW.id % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END';
SET LOCAL shard_fdw.shard = 1;
CREATE TRIGGER skip BEFORE INSERT ON rr_1 FOR EACH ROW EXECUTE FUNCTION skip();
CREATE TRIGGER after AFTER INSERT ON rr_1 FOR EACH ROW EXECUTE FUNCTION skip();
SELECT explain('INSERT INTO rr SELECT generate_series(1, 9)', ', ANALYZE') AS plan \gset
SELECT is((SELECT s FROM all_of(:'plan'::jsonb, 'Shards') s),
  '[{"Rows": 5, "Shard": "rr_1"}]', 'rows that a trigger skips do not count');
SELECT bag_eq(format($$ SELECT t->>'Trigger Name' AS n, t->>'Relation', (t->>'Calls')::numeric::int
                          FROM jsonb_path_query(%L::jsonb, 'strict $.**."Triggers"[*]') t $$,
    :'plan'),
  $$ VALUES ('skip', 'rr_1', 9), ('after', 'rr_1', 5) $$,
  'triggers of shards and their calls are shown');
DROP TRIGGER skip ON rr_1;
DROP TRIGGER after ON rr_1;
RESET shard_fdw.shard;

-- Names that need quotes.
CREATE SCHEMA "Two Words";
CREATE FOREIGN TABLE "Two Words"."Log Book" (id int) SERVER shards OPTIONS (shards '1');
SELECT results_eq($$ SELECT trim(l)
    FROM explain_text('INSERT INTO "Two Words"."Log Book" VALUES (1)',
                              'ANALYZE, COSTS off') l WHERE l ~ 'Shard' $$,
  $$ VALUES ('Shard: "Log Book_0" (rows=1)') $$, 'names are quoted in text');
SELECT results_eq($$ SELECT trim(l)
    FROM explain_text('INSERT INTO "Two Words"."Log Book" VALUES (1)',
                              'ANALYZE, VERBOSE, COSTS off') l WHERE l ~ 'Shard' $$,
  $$ VALUES ('Shard: "Two Words"."Log Book_0" (rows=1)') $$,
  'names are quoted in text, also the schema');
SELECT is((SELECT s FROM all_of(explain('INSERT INTO "Two Words"."Log Book" VALUES (1)',
                                        ', ANALYZE, VERBOSE'), 'Shards') s),
  '[{"Rows": 1, "Shard": "Log Book_0", "Schema": "Two Words"}]',
  'names are quoted in text, and not in JSON');

-- other formats

CREATE FUNCTION has_xml() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
  PERFORM xmlparse(DOCUMENT '<a/>');
  RETURN true;
EXCEPTION WHEN feature_not_supported THEN
  RETURN false;
END $$;
CREATE FUNCTION explain_as(command text, format text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE format('EXPLAIN (ANALYZE, VERBOSE, FORMAT %s) %s', format, command) INTO result;
  RETURN result;
END $$;
SELECT has_xml() \gset
\if :has_xml
SELECT explain_as('INSERT INTO rr VALUES (1), (2), (3)', 'xml') AS plan \gset
SELECT is((xpath('//e:Shard/e:Rows/text()', :'plan'::xml,
                 '{{e,http://www.postgresql.org/2009/explain}}'))::text,
  '{1,1,1}', 'XML');
SELECT is((xpath('//e:Route/text()', :'plan'::xml,
                 '{{e,http://www.postgresql.org/2009/explain}}'))::text,
  '{round_robin}', 'XML, with the route');
\endif
SELECT explain_as('INSERT INTO rr VALUES (1), (2), (3)', 'yaml') AS plan \gset
SELECT is((SELECT count(*) FROM regexp_matches(:'plan',
             '\n +- Schema: "public"\n +Shard: "rr_[012]"\n +Rows: 1(?=\n)', 'g')),
  3::bigint, 'YAML');
SELECT is_empty(format($$ SELECT l FROM regexp_split_to_table(%L, '\n') l
                           WHERE l !~ '^ *(- )?([A-Z][A-Za-z /-]*: ?.*|"(\\.|[^\\"])*")$' $$,
    :'plan'),
  'YAML has but names and values');

-- reads, updates and deletes

TRUNCATE log, rr;
INSERT INTO rr SELECT generate_series(1, 30);
SELECT bag_eq($$ SELECT scanned('SELECT * FROM rr') $$,
  $$ VALUES ('rr_0'), ('rr_1'), ('rr_2') $$, 'SELECT scans the shards and nothing else');
SELECT bag_eq($$ SELECT scanned('UPDATE rr SET msg = ''x''') $$,
  $$ VALUES ('rr_0'), ('rr_1'), ('rr_2') $$, 'UPDATE does');
SELECT bag_eq($$ SELECT scanned('DELETE FROM rr') $$,
  $$ VALUES ('rr_0'), ('rr_1'), ('rr_2') $$, 'DELETE does');
SELECT bag_eq($$ SELECT scanned('SELECT * FROM rr FOR UPDATE') $$,
  $$ VALUES ('rr_0'), ('rr_1'), ('rr_2') $$, 'SELECT FOR UPDATE does');
SELECT bag_eq($$ SELECT scanned('UPDATE rr SET msg = log.msg FROM log WHERE log.id = rr.id') $$,
  $$ VALUES ('rr_0'), ('rr_1'), ('rr_2'), ('log_0'), ('log_1'), ('log_2') $$,
  'UPDATE from another logical table does');
SELECT is_empty(format($$ SELECT * FROM (VALUES ('SELECT * FROM rr'), ('UPDATE rr SET msg = 1'),
                                                ('DELETE FROM rr'), ('SELECT * FROM rr FOR SHARE'),
                                                ('INSERT INTO log SELECT * FROM rr')) c(command),
                                 LATERAL all_of(explain(command), 'Node Type') n
                          WHERE n #>> '{}' = 'Foreign Scan' $$),
  'there are no foreign scans');
SELECT is_empty($$ SELECT * FROM all_of(explain('UPDATE rr SET msg = ''x''', ', ANALYZE, VERBOSE'),
      'Route')
                   UNION ALL
                   SELECT * FROM all_of(explain('DELETE FROM rr WHERE id > 20',
                       ', ANALYZE, VERBOSE'), 'Route') $$,
  'UPDATE and DELETE have no route');
SELECT results_eq('SELECT count(*), count(msg), max(id) FROM rr',
  'VALUES (20::bigint, 20::bigint, 20)', 'UPDATE and DELETE have no route, but do their work');
SELECT is_empty($$ SELECT * FROM scanned('SELECT * FROM ONLY rr') UNION ALL
                   SELECT * FROM scanned('SELECT * FROM bare') UNION ALL
                   SELECT * FROM scanned('UPDATE bare SET id = 1') UNION ALL
                   SELECT * FROM scanned('DELETE FROM ONLY rr') $$,
  'without shards there is nothing to scan');

-- batches: used

SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 1000, 'several rows are a batch');
SELECT is(batch_size('INSERT INTO log SELECT 1 FROM generate_series(1, 2)'), 1000,
  'INSERT ... SELECT');
SELECT is(batch_size('INSERT INTO log SELECT * FROM rr'), 1000,
  'INSERT ... SELECT, from a logical table');
SELECT is(batch_size('INSERT INTO rr SELECT * FROM rr'), 1000,
  'INSERT ... SELECT, from the table itself');
SELECT is(batch_size('INSERT INTO log TABLE rr ORDER BY id LIMIT 5'), 1000,
  'INSERT ... SELECT, with a limit');
SELECT is(batch_size('WITH d AS (DELETE FROM rr RETURNING *) INSERT INTO log TABLE d'), 1000,
  'INSERT ... SELECT, from WITH');
SELECT is(batch_size('INSERT INTO log SELECT (random() * 9)::int FROM generate_series(1, 9)'), 1000,
  'random() does not look at tables');
SELECT is(batch_size('INSERT INTO log SELECT 1, clock_timestamp() FROM generate_series(1, 9)'),
  1000,
  'nor does clock_timestamp()');
SELECT is(batch_size('INSERT INTO log SELECT 1, gen_random_uuid() FROM generate_series(1, 9)'),
  1000,
  'nor gen_random_uuid()');
SELECT is(batch_size('INSERT INTO rr (msg) VALUES (1), (2)'), 1000, 'nor the default nextval()');
SELECT is(batch_size('INSERT INTO log SELECT nextval(''rr_id_seq'') FROM generate_series(1, 9)'),
  1000,
  'nor nextval() itself');
CREATE FUNCTION calm(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
SELECT is(batch_size('INSERT INTO log SELECT calm(g) FROM generate_series(1, 9) g'), 1000,
  'a stable function sees what the statement saw at its start');

-- batches: refused

CREATE FUNCTION rows_in(target regclass) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  n int;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s', target) INTO n;
  RETURN n;
END $$;
-- Runs the command, which puts the number of rows before it into each row.
CREATE FUNCTION sees_rows(target text, command text, n int) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEXT is(batch_size(command), 1,
                 'no batch for ' || regexp_replace(command, '\s+', ' ', 'g'));
  EXECUTE 'TRUNCATE ' || target;
  EXECUTE command;
  RETURN NEXT results_eq('SELECT id FROM ' || target || ' ORDER BY id',
                         format('SELECT generate_series(0, %s)', n - 1),
                         'a volatile function sees all rows before its own');
END $$;
SELECT is(batch_size('INSERT INTO log VALUES (1)'), 1, 'a single row is no batch');
SELECT is(batch_size('INSERT INTO log DEFAULT VALUES'), 1, 'DEFAULT VALUES is no batch');
SELECT is(batch_size('INSERT INTO log VALUES (1), (2) RETURNING id'), 1, 'RETURNING');
SELECT sees_rows('log', 'INSERT INTO log SELECT rows_in(''log'') FROM generate_series(1, 5)', 5);
SELECT sees_rows('log', 'INSERT INTO log VALUES (rows_in(''log'')), (rows_in(''log''))', 2);
SELECT sees_rows('log',
  'INSERT INTO log SELECT (SELECT rows_in(''log'') + 0 * g) FROM generate_series(1, 5) g', 5);
SELECT sees_rows('log',
  'INSERT INTO log SELECT g FROM generate_series(0, 9) g WHERE rows_in(''log'') < 4', 4);
SELECT sees_rows('log', 'INSERT INTO log SELECT l.n FROM generate_series(1, 5) g,
                           LATERAL (SELECT rows_in(''log'') + 0 * g AS n) l', 5);
CREATE VIEW watching AS SELECT rows_in('log') AS n FROM generate_series(1, 5);
SELECT sees_rows('log', 'INSERT INTO log SELECT n FROM watching', 5);
SELECT sees_rows('log', 'WITH w AS (SELECT rows_in(''log'') AS n FROM generate_series(1, 5))
                         INSERT INTO log SELECT n FROM w', 5);
SELECT sees_rows('log',
  'WITH w AS MATERIALIZED (SELECT rows_in(''log'') AS n FROM generate_series(1, 5))
                         INSERT INTO log SELECT n FROM w', 5);
SELECT sees_rows('log', 'INSERT INTO log SELECT rows_in(''log'') FROM generate_series(1, 3)
                         UNION ALL SELECT rows_in(''log'') FROM generate_series(1, 3)', 6);
SELECT sees_rows('log', 'INSERT INTO log SELECT CASE WHEN g % 2 = 0 THEN rows_in(''log'')
                                                     ELSE COALESCE(NULL, rows_in(''log'')) END
                           FROM generate_series(1, 5) g', 5);
CREATE FUNCTION plus_rows(int, regclass) RETURNS int LANGUAGE plpgsql
AS 'BEGIN RETURN $1 + rows_in($2); END';
CREATE OPERATOR +# (FUNCTION = plus_rows, LEFTARG = int, RIGHTARG = regclass);
SELECT sees_rows('log',
  'INSERT INTO log SELECT 0 * g +# ''log''::regclass FROM generate_series(1, 5) g', 5);
CREATE FUNCTION in_sql() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT count(*)::int FROM log';
SELECT sees_rows('log', 'INSERT INTO log SELECT in_sql() FROM generate_series(1, 5)', 5);
CREATE FOREIGN TABLE counted (id int DEFAULT rows_in('counted'), msg text) SERVER shards
OPTIONS (shards '2', route 'round_robin');
SELECT sees_rows('counted', 'INSERT INTO counted (msg) SELECT g FROM generate_series(1, 5) g', 5);
SELECT sees_rows('counted', 'INSERT INTO counted (msg) VALUES (1), (2), (3)', 3);
PREPARE counting(int) AS INSERT INTO log SELECT rows_in('log') FROM generate_series(1, $1);
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT sees_rows('log', 'EXECUTE counting(5)', 5);
RESET plan_cache_mode;

CREATE VIEW checked AS SELECT * FROM log WHERE id > 0 WITH CHECK OPTION;
CREATE VIEW unchecked AS SELECT * FROM log WHERE id > 0;
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1, 'WITH CHECK OPTION');
SELECT is(batch_size('INSERT INTO unchecked VALUES (1), (2)'), 1000,
  'a view without CHECK OPTION does not stop batches');

-- triggers

CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION batch_with(kind text, target text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  result int;
BEGIN
  EXECUTE format('CREATE TRIGGER t %s EXECUTE FUNCTION nothing()', format(kind, target));
  result := batch_size('INSERT INTO log VALUES (1), (2)');
  EXECUTE format('DROP TRIGGER t ON %s', target);
  RETURN result;
END $$;
SELECT is(batch_with('BEFORE INSERT ON %s FOR EACH ROW', 'log'), 1,
  'a BEFORE ROW trigger on the logical table');
SELECT is(batch_with('AFTER INSERT ON %s FOR EACH ROW', 'log'), 1,
  'a BEFORE ROW trigger on the logical table: AFTER ROW');
SELECT is(batch_with('BEFORE UPDATE ON %s FOR EACH ROW', 'log'), 1000,
  'a BEFORE ROW trigger on the logical table, not for UPDATE');
SELECT is(batch_with('BEFORE INSERT ON %s FOR EACH STATEMENT', 'log'), 1000,
  'a BEFORE ROW trigger on the logical table, not BEFORE STATEMENT');
SELECT is(batch_with('AFTER INSERT ON %s FOR EACH STATEMENT', 'log'), 1000,
  'a BEFORE ROW trigger on the logical table, nor AFTER STATEMENT');
SELECT is(batch_with('BEFORE INSERT ON %s FOR EACH ROW', 'log_1'), 1,
  'a BEFORE ROW trigger on a shard');
SELECT is(batch_with('BEFORE INSERT OR UPDATE ON %s FOR EACH ROW', 'log_2'), 1,
  'a BEFORE ROW trigger on a shard, also for UPDATE');
SELECT is(batch_with('BEFORE UPDATE ON %s FOR EACH ROW', 'log_1'), 1000,
  'a BEFORE ROW trigger on a shard, not only for UPDATE');
SELECT is(batch_with('AFTER INSERT ON %s FOR EACH ROW', 'log_1'), 1000,
  'a BEFORE ROW trigger on a shard, not AFTER ROW');
SELECT is(batch_with('BEFORE INSERT ON %s FOR EACH STATEMENT', 'log_1'), 1000,
  'a BEFORE ROW trigger on a shard, not the statement triggers of a shard, which do not fire');
CREATE TRIGGER t BEFORE INSERT ON log_1 FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE log_1 DISABLE TRIGGER t;
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 1000,
  'a BEFORE ROW trigger on a shard, nor a disabled one');
ALTER TABLE log_1 ENABLE ALWAYS TRIGGER t;
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 1,
  'a BEFORE ROW trigger on a shard, but one that is enabled again');
SELECT shard_fdw.seal('log_1');
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 1000,
  'a BEFORE ROW trigger on a shard, unless the shard is sealed and gets no rows');
DROP TRIGGER t ON log_1;
SELECT shard_fdw.unseal('log_1');

-- the size

ALTER FOREIGN TABLE log OPTIONS (ADD batch_size '7');
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 7, 'option batch_size');
TRUNCATE log;
INSERT INTO log SELECT generate_series(1, 100);
SELECT results_eq('SELECT count(*), sum(id) FROM log', 'VALUES (100::bigint, 5050::bigint)',
  'option batch_size gives the same rows');
ALTER FOREIGN TABLE log OPTIONS (SET batch_size '1');
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 1,
  'option batch_size: 1 turns batches off');
TRUNCATE log;
INSERT INTO log SELECT generate_series(1, 100);
SELECT results_eq('SELECT count(*), sum(id) FROM log', 'VALUES (100::bigint, 5050::bigint)',
  'option batch_size, with the same rows');
ALTER FOREIGN TABLE log OPTIONS (DROP batch_size);
ALTER SERVER shards OPTIONS (ADD batch_size '50');
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 50, 'option batch_size, of the server');
ALTER FOREIGN TABLE log OPTIONS (ADD batch_size '60');
SELECT is(batch_size('INSERT INTO log VALUES (1), (2)'), 60,
  'option batch_size: the table''s goes before');
ALTER FOREIGN TABLE log OPTIONS (SET batch_size '100000');
SELECT is(batch_size('INSERT INTO log SELECT 1'), 1,
  'INSERT ... SELECT of one row is a single row');
CREATE FOREIGN TABLE broad (id int, c char(100000)) SERVER shards
OPTIONS (shards '2', route 'round_robin', batch_size '1000');
INSERT INTO broad SELECT g, g FROM generate_series(1, 300) g;
SELECT results_eq('SELECT count(*), count(DISTINCT c), bool_and(id = c::int), '
                  'min(octet_length(c)) FROM broad',
  'VALUES (300::bigint, 300::bigint, true, 100000)', 'batches of wide rows');

SELECT * FROM finish();
ROLLBACK;
