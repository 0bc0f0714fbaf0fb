-- Statements that give the key of their rows: planned and executed as on one shard.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA lookup_test;
SET LOCAL search_path = lookup_test, public;
SET LOCAL timezone = 'UTC';

\ir helpers.psql

-- Tables with keys of many types, and plain twins.

CREATE DOMAIN positive AS bigint CHECK (VALUE > 0);
CREATE TYPE colour AS ENUM ('red', 'green', 'blue', 'white', 'black', 'grey', 'pink', 'brown');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE types (name text PRIMARY KEY, type text, literal text);
INSERT INTO types VALUES
  ('big', 'bigint', '{g}'), ('int', 'int', '{g}'), ('small', 'smallint', '({g})::smallint'),
  ('num', 'numeric', '{g} + 0.5'), ('str', 'text', '''s'' || {g}'), ('day', 'date', 'date ''2026-01-01'' + {g}'),
  ('moment', 'timestamptz', 'timestamptz ''2026-01-01 12:00'' + {g} * interval ''1 hour'''),
  ('uid', 'uuid', 'md5(({g})::text)::uuid'), ('dom', 'positive', '{g}'),
  ('colour', 'colour', '(enum_range(NULL::colour))[{g} % 8 + 1]'),
  ('arr', 'int[]', 'ARRAY[{g}, 7]'), ('pair', 'pair', 'ROW({g}, ''x'')::pair');

-- One shard has its columns in other places, and one that has been dropped.
CREATE FUNCTION make_twins(name text, type text, literal text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE replace(replace(replace($f$
    CREATE TABLE plain_NAME (id int, k TYPE, n int, note text DEFAULT 'd', UNIQUE (k, id));
    CREATE TABLE tmpl_NAME (LIKE plain_NAME INCLUDING ALL);
    CREATE FOREIGN TABLE log_NAME (id int, k TYPE, n int, note text DEFAULT 'd')
      SERVER shards OPTIONS (shards '4', route 'hash', key 'k', template 'tmpl_NAME');
    ALTER TABLE log_NAME_2 NO INHERIT log_NAME;
    DROP TABLE log_NAME_2;
    CREATE TABLE log_NAME_2 (gone int, note text DEFAULT 'd', n int, k TYPE, id int, own int DEFAULT 3,
      UNIQUE (k, id), CHECK (shard_fdw.in_hash(4, 2, k)));
    ALTER TABLE log_NAME_2 DROP COLUMN gone;
    ALTER TABLE log_NAME_2 INHERIT log_NAME;
    INSERT INTO plain_NAME SELECT 10 * g + i, %s, i + g % 3, 'n' || g
      FROM generate_series(1, 30) g, generate_series(1, g % 4) i;
    INSERT INTO plain_NAME VALUES (1000, NULL, 1), (1001, NULL, 2);
    INSERT INTO log_NAME SELECT * FROM plain_NAME;
    CREATE VIEW view_log_NAME AS SELECT * FROM log_NAME WHERE n > 1 WITH CHECK OPTION;
    CREATE VIEW view_plain_NAME AS SELECT * FROM plain_NAME WHERE n > 1 WITH CHECK OPTION;
    CREATE FUNCTION same(v TYPE) RETURNS TYPE STABLE LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
    $f$, '%s', replace(literal, '{g}', 'g')), 'NAME', name), 'TYPE', type);
END $$;
SELECT make_twins(name, type, literal) FROM types;
CREATE TABLE base (id int);
INSERT INTO base SELECT generate_series(0, 6);

-- Statements; {t} is the table, {v} the value.
CREATE TABLE statements (command text);
INSERT INTO statements VALUES
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k = {v} $$),
  ($$ SELECT array_agg(t::text ORDER BY id) FROM {t} t WHERE {v} = k AND n > 1 $$),
  ($$ SELECT array_agg(row_to_json(t)::text ORDER BY id) FROM {t} t WHERE k = {v} $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k = {v} OR n = 3 $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k = {v} AND k IS NULL $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE NOT (k = {v}) $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE (k = {v}) IS NOT FALSE $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k IS NOT DISTINCT FROM {v} $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k IN ({v}, NULL) $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k = (SELECT {v}) $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k = {v} AND k = same({v}) $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM {t} WHERE k = CASE WHEN random() < 2 THEN {v} END $$),
  ($$ SELECT array_agg(a.id || ':' || coalesce(b.id, -1) ORDER BY a.id, b.id)
        FROM base a LEFT JOIN {t} b ON a.id = b.n AND b.k = {v} $$),
  ($$ SELECT array_agg(a.id || ':' || coalesce(b.id, -1) ORDER BY a.id, b.id)
        FROM {t} b RIGHT JOIN base a ON a.id = b.n AND b.k = {v} $$),
  ($$ SELECT array_agg(b.id || ':' || coalesce(a.id, -1) ORDER BY a.id, b.id)
        FROM {t} b LEFT JOIN base a ON a.id = b.n AND b.k = {v} $$),
  ($$ SELECT array_agg(a.id || ':' || coalesce(b.id, -1) ORDER BY a.id, b.id)
        FROM base a LEFT JOIN {t} b ON a.id = b.n WHERE b.k = {v} $$),
  ($$ SELECT array_agg(a.id || ':' || coalesce(b.id, -1) ORDER BY a.id, b.id)
        FROM base a LEFT JOIN (base c JOIN {t} b ON b.k = {v} AND c.id = b.n) ON a.id = b.n $$),
  ($$ SELECT array_agg(coalesce(a.id, -1) || ':' || coalesce(b.id, -1) ORDER BY a.id, b.id)
        FROM base a FULL JOIN (SELECT * FROM {t} WHERE k = {v}) b ON a.id = b.n $$),
  ($$ SELECT array_agg(a.id || ':' || b.id ORDER BY a.id, b.id)
        FROM {t} a JOIN {t} b USING (k) WHERE k = {v} $$),
  ($$ SELECT array_agg(a.id || ':' || b.id ORDER BY a.id, b.id) FROM {t} a, {t} b, {t} c, {t} d, {t} e
        WHERE a.k = {v} AND b.k = {v} AND c.k = {v} AND d.k = {v} AND e.k = {v} $$),
  ($$ SELECT array_agg((SELECT max(b.n) FROM {t} b WHERE b.k = {v} AND b.id >= a.id) ORDER BY a.id)
        FROM {t} a WHERE a.n < 3 $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM base a WHERE EXISTS
        (SELECT FROM {t} b WHERE b.k = {v} AND b.n = a.id) $$),
  ($$ SELECT array_agg(l.id ORDER BY l.id) FROM base a,
        LATERAL (SELECT b.id FROM {t} b WHERE b.k = {v} AND b.n = a.id) l $$),
  ($$ WITH c AS (SELECT * FROM {t} WHERE k = {v}) SELECT array_agg(c::text ORDER BY id) FROM c $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM
        (SELECT id FROM {t} WHERE k = {v} UNION ALL SELECT id FROM {t} WHERE n = 2) u $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM view_{t} WHERE k = {v} $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM {t} WHERE k = {v} FOR UPDATE) s $$),
  ($$ SELECT array_agg(id ORDER BY id) FROM
        (SELECT t.id FROM {t} t JOIN base b ON b.id = t.n WHERE k = {v} FOR SHARE OF t) s $$),
  ($$ WITH u AS (UPDATE {t} SET n = n + 100, note = DEFAULT WHERE k = {v} RETURNING *)
        SELECT array_agg(u::text ORDER BY id) FROM u $$),
  ($$ WITH u AS (UPDATE {t} t SET n = t.n + b.id FROM base b WHERE k = {v} AND b.id = t.n
        RETURNING t, b.id AS b, t.id) SELECT array_agg(u.t::text ORDER BY u.id) FROM u $$),
  ($$ WITH u AS (UPDATE {t} SET (note, n) = (SELECT max(note), 5 FROM {t} WHERE k = {v}) WHERE k = {v} RETURNING *)
        SELECT array_agg(u::text ORDER BY id) FROM u $$),
  ($$ WITH u AS (UPDATE view_{t} SET n = n - 1 WHERE k = {v} RETURNING *)
        SELECT array_agg(u::text ORDER BY id) FROM u $$),
  ($$ WITH d AS (DELETE FROM {t} WHERE k = {v} RETURNING *) SELECT array_agg(d::text ORDER BY id) FROM d $$),
  ($$ WITH d AS (DELETE FROM {t} t USING {t} o WHERE t.k = {v} AND o.k = {v} AND o.id > t.id RETURNING t.id)
        SELECT array_agg(d.id ORDER BY d.id) FROM d $$),
  ($$ WITH i AS (INSERT INTO {t} SELECT id + 5000, k, n, note FROM {t} WHERE k = {v} RETURNING id)
        SELECT array_agg(i.id ORDER BY i.id) FROM i $$);

-- The result of a command, or its SQLSTATE; it is undone.
CREATE FUNCTION outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE command INTO result;
  RAISE EXCEPTION USING errcode = 'ZZ000', message = coalesce(result, 'none');
EXCEPTION
  WHEN SQLSTATE 'ZZ000' THEN RETURN SQLERRM;
  WHEN others THEN RETURN SQLSTATE;
END $$;

CREATE FUNCTION differences(tries int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  t record;
  s text;
  mode text;
  literals text[];
  plain text;
  log text;
BEGIN
  FOR t IN SELECT * FROM types ORDER BY name LOOP
    FOR s IN SELECT command FROM statements LOOP
      literals := '{NULL}';
      FOR i IN 1 .. tries LOOP
        literals := literals || replace(t.literal, '{g}', (1 + floor(random() * 34)::int)::text);
      END LOOP;
      FOREACH mode IN ARRAY '{once,force_custom_plan,force_generic_plan,auto}'::text[] LOOP
        IF mode <> 'once' THEN
          PERFORM set_config('plan_cache_mode', mode, true);
          EXECUTE format('PREPARE p_log(%s) AS %s', t.type, replace(replace(s, '{v}', '$1'), '{t}', 'log_' || t.name));
          EXECUTE format('PREPARE p_plain(%s) AS %s', t.type, replace(replace(s, '{v}', '$1'), '{t}', 'plain_' || t.name));
        END IF;
        FOR i IN 1 .. cardinality(literals) LOOP
          IF mode = 'once' THEN
            plain := outcome(replace(replace(s, '{v}', '(' || literals[i] || ')::' || t.type), '{t}', 'plain_' || t.name));
            log := outcome(replace(replace(s, '{v}', '(' || literals[i] || ')::' || t.type), '{t}', 'log_' || t.name));
          ELSE
            plain := outcome(format('EXECUTE p_plain(%s)', literals[i]));
            log := outcome(format('EXECUTE p_log(%s)', literals[i]));
          END IF;
          IF plain <> log THEN
            RETURN NEXT format('%s, %s, %s, %s: %s but %s', t.type, mode, literals[i], s, log, plain);
          END IF;
        END LOOP;
        IF mode <> 'once' THEN
          DEALLOCATE p_log;
          DEALLOCATE p_plain;
        END IF;
      END LOOP;
    END LOOP;
  END LOOP;
END $$;
SELECT setseed(0.15);
SELECT is((SELECT string_agg(d, E'\n') FROM differences(12) d), NULL, 'the same as on plain tables');
SET LOCAL plan_cache_mode = force_generic_plan;

-- MERGE has use for rows that do not meet its condition.
CREATE TABLE merged (id int, k bigint);
MERGE INTO merged m USING log_big s ON m.id = s.id AND s.k = 7
  WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.k);
SELECT set_eq('TABLE merged', 'SELECT id, k FROM plain_big', 'MERGE reads all rows');

-- What is scanned and locked.

SELECT is(scanned_names('SELECT * FROM log_big WHERE k = ' || g), tableoid::regclass::text, 'a constant: ' || g)
  FROM generate_series(1, 3) g, LATERAL (SELECT DISTINCT tableoid FROM log_big WHERE k = g) t;
PREPARE by_key(bigint) AS SELECT id FROM log_big WHERE k = $1;
PREPARE change(bigint) AS UPDATE log_big SET n = n + 1 WHERE k = $1;
SELECT is(scanned_names(format('EXECUTE by_key(%s)', g)), tableoid::regclass::text, 'a parameter: ' || g)
  FROM generate_series(1, 3) g, LATERAL (SELECT DISTINCT tableoid FROM log_big WHERE k = g) t;
SELECT is(scanned_names(format('EXECUTE change(%s)', g)), tableoid::regclass::text, 'a change: ' || g)
  FROM generate_series(1, 3) g, LATERAL (SELECT DISTINCT tableoid FROM log_big WHERE k = g) t;
SELECT matches(plan_text('EXECUTE change(1)'),
  '^Update on log_big_\d\n  ->  Custom Scan \(shard_fdw lookup\)\n        Shards Removed: 3\n', 'EXPLAIN tells');
SELECT is(scanned_names('SELECT FROM log_big a JOIN log_big b ON a.k = 1 AND b.k = 1 AND a.id = b.id'),
  scanned_names('SELECT FROM log_big WHERE k = 1'), 'a lookup in each of two tables');
SET LOCAL enable_partition_pruning = off;
SELECT is(scanned_names('SELECT * FROM log_big WHERE k = 1'), 'log_big_0 log_big_1 log_big_2 log_big_3',
  'enable_partition_pruning = off');
RESET enable_partition_pruning;

-- Privileges are those on the logical table.

CREATE ROLE lookup_user;
GRANT USAGE ON SCHEMA lookup_test TO lookup_user;
SELECT fails(command, '42501', title => 'no privilege: ' || command, role => 'lookup_user')
  FROM unnest('{SELECT id FROM log_big WHERE k = 1,UPDATE log_big SET n = 1 WHERE k = 1,DELETE FROM log_big WHERE k = 1}'::text[]) command;
GRANT ALL ON log_big_0, log_big_1, log_big_2, log_big_3 TO lookup_user;
SELECT fails(command, '42501', title => 'privileges on shards do not help: ' || command, role => 'lookup_user')
  FROM unnest('{SELECT id FROM log_big WHERE k = 1,UPDATE log_big SET n = 1 WHERE k = 1,DELETE FROM log_big WHERE k = 1}'::text[]) command;
REVOKE ALL ON log_big_0, log_big_1, log_big_2, log_big_3 FROM lookup_user;
GRANT SELECT (id, k), UPDATE (n) ON log_big TO lookup_user;
SET LOCAL ROLE lookup_user;
SELECT results_eq(format('SELECT count(*) FROM log_big WHERE k = %s', g),
  format('SELECT %s::bigint', g % 4), 'privileges on columns: SELECT') FROM generate_series(1, 7) g;
SELECT lives_ok(format('UPDATE log_big SET n = 7 WHERE k = %s', g), 'privileges on columns: UPDATE')
  FROM generate_series(1, 7) g;
SELECT throws_ok(format(command, g), '42501', NULL, 'other columns: ' || command)
  FROM generate_series(1, 5) g, unnest('{SELECT n FROM log_big WHERE k = %s,SELECT log_big FROM log_big WHERE k = %s,
    UPDATE log_big SET note = 1 WHERE k = %s,UPDATE log_big SET n = n + 1 WHERE k = %s,SELECT id FROM log_big WHERE k = %s FOR UPDATE OF log_big NOWAIT; SELECT n FROM log_big,
    DELETE FROM log_big WHERE k = %s}'::text[]) command WHERE command !~ 'NOWAIT';
RESET ROLE;
UPDATE log_big l SET n = p.n FROM plain_big p WHERE p.id = l.id;

-- A row does not leave its shard.
SELECT fails(format('UPDATE log_big SET k = k + 1 WHERE k = %s', g), '23514', title => 'the key changes')
  FROM generate_series(1, 30) g
 WHERE g % 4 > 0 AND scanned_names('SELECT FROM log_big WHERE k = ' || g) <> scanned_names('SELECT FROM log_big WHERE k = ' || g + 1);

-- Triggers: those for statements are those of the table that is named.

CREATE TABLE fired (id int GENERATED ALWAYS AS IDENTITY, tab text, what text);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO fired (tab, what) VALUES (TG_TABLE_NAME, concat_ws(' ', TG_NAME, TG_WHEN, TG_LEVEL, TG_OP));
  RETURN NEW;
END $$;
CREATE TRIGGER of_row BEFORE UPDATE OF n ON log_int_0 FOR EACH ROW EXECUTE FUNCTION note_it();
CREATE TRIGGER of_row BEFORE UPDATE OF n ON log_int_2 FOR EACH ROW EXECUTE FUNCTION note_it();
PREPARE fire(int) AS UPDATE log_int SET n = n WHERE k = $1;
PREPARE fire_not(int) AS UPDATE log_int SET note = note WHERE k = $1;
DO $$ BEGIN FOR g IN 1 .. 12 LOOP EXECUTE format('EXECUTE fire(%s)', g); EXECUTE format('EXECUTE fire_not(%s)', g); END LOOP; END $$;
SELECT results_eq($$ SELECT tab, count(*) FROM fired GROUP BY tab ORDER BY tab $$,
  $$ SELECT tableoid::regclass::text, count(*) FROM log_int WHERE k <= 12 AND tableoid IN ('log_int_0'::regclass, 'log_int_2'::regclass)
      GROUP BY 1 ORDER BY 1 $$, 'triggers for rows, UPDATE OF a column');
TRUNCATE fired;
CREATE TRIGGER of_logical BEFORE UPDATE ON log_int FOR EACH STATEMENT EXECUTE FUNCTION note_it();
CREATE TRIGGER of_shard AFTER UPDATE ON log_int_1 FOR EACH STATEMENT EXECUTE FUNCTION note_it();
DROP TRIGGER of_row ON log_int_0;
DROP TRIGGER of_row ON log_int_2;
DO $$ BEGIN FOR g IN 1 .. 4 LOOP EXECUTE format('EXECUTE fire(%s)', g); EXECUTE format('UPDATE log_int SET n = n WHERE k = %s', g); END LOOP; END $$;
SELECT results_eq('SELECT tab, what, count(*) FROM fired GROUP BY 1, 2',
  $$ VALUES ('log_int', 'of_logical BEFORE STATEMENT UPDATE', 8::bigint) $$, 'triggers for statements');
DROP TRIGGER of_logical ON log_int;
TRUNCATE fired;
DO $$ BEGIN FOR g IN 1 .. 8 LOOP EXECUTE format('EXECUTE fire(%s)', g); EXECUTE format('UPDATE log_int SET n = n WHERE k = %s', g); END LOOP; END $$;
SELECT is_empty('TABLE fired', 'triggers for statements of shards are not for the logical table');

-- Generated columns.
CREATE FOREIGN TABLE made (k int, a int, b int GENERATED ALWAYS AS (a * 2) STORED) SERVER shards
  OPTIONS (shards '3', route 'hash', key 'k');
INSERT INTO made SELECT g, g FROM generate_series(1, 12) g;
PREPARE make(int) AS UPDATE made SET a = a + 1 WHERE k = $1;
DO $$ BEGIN FOR g IN 1 .. 12 LOOP EXECUTE format('EXECUTE make(%s)', g); EXECUTE format('UPDATE made SET a = a + 1 WHERE k = %s', g); END LOOP; END $$;
SELECT results_eq('SELECT k, a, b FROM made ORDER BY k', 'SELECT g, g + 2, 2 * g + 4 FROM generate_series(1, 12) g',
  'generated columns');

-- What changes between two executions.

CREATE FUNCTION found_by(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result int[] := '{}';
  r int;
BEGIN
  FOR g IN 1 .. 30 LOOP
    FOR r IN EXECUTE format('EXECUTE %I(%s)', name, g) LOOP
      result := result || r;
    END LOOP;
  END LOOP;
  RETURN result;
END $$;
CREATE FUNCTION found_all() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  mode text;
  expected text := (SELECT array_agg(id ORDER BY k, id) FROM log_big WHERE k IS NOT NULL);
BEGIN
  FOREACH mode IN ARRAY '{custom,generic,constants}'::text[] LOOP
    PERFORM set_config('plan_cache_mode', CASE mode WHEN 'custom' THEN 'force_custom_plan' ELSE 'force_generic_plan' END, true);
    IF found_by('by_key') <> expected THEN
      RETURN NEXT mode;
    END IF;
  END LOOP;
END $$;
DEALLOCATE by_key;
PREPARE by_key(bigint) AS SELECT id FROM log_big WHERE k = $1 ORDER BY id;
PREPARE seven AS SELECT id FROM log_big WHERE k = 7 ORDER BY id;
SELECT is_empty('SELECT found_all()', 'at first');
SELECT results_eq('EXECUTE seven', 'SELECT id FROM plain_big WHERE k = 7 ORDER BY id', 'at first, with a constant');
CREATE FUNCTION after(what text, command text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE command;
  RETURN NEXT is_empty('SELECT found_all()', what);
  RETURN NEXT results_eq('EXECUTE seven', 'SELECT id FROM log_big WHERE k + 0 = 7 ORDER BY id', what || ', with a constant');
END $$;
SELECT after('an index is dropped', 'ALTER TABLE log_big_0 DROP CONSTRAINT log_big_0_k_id_key');
SELECT after('an index is made', 'CREATE INDEX ON log_big_0 (k)');
SELECT after('a column is added', 'ALTER FOREIGN TABLE log_big ADD COLUMN more int');
SELECT after('a column is dropped', 'ALTER FOREIGN TABLE log_big DROP COLUMN more');
SELECT after('a shard is renamed', 'ALTER TABLE log_big_1 RENAME TO log_big_one');
SELECT after('statistics', 'ANALYZE log_big_0');
SELECT after('a shard is sealed', 'SELECT shard_fdw.seal(''log_big_0'')');
SELECT after('a shard is unsealed', 'SELECT shard_fdw.unseal(''log_big_0'')');
ALTER TABLE log_big_2 DROP COLUMN own;
SELECT after('more shards', 'SELECT shard_fdw.reshard(''log_big'', 8)');
SELECT after('fewer shards', 'SELECT shard_fdw.reshard(''log_big'', 2)');
SELECT after('a shard is detached', $$ ALTER TABLE log_big_0 NO INHERIT log_big $$);
SELECT after('a shard is attached', $$ ALTER TABLE log_big_0 INHERIT log_big $$);
-- Without its constraint a shard may have any row.
DO $$ BEGIN
  EXECUTE (SELECT format('ALTER TABLE log_big_0 DROP CONSTRAINT %I', conname) FROM pg_constraint
    WHERE conrelid = 'log_big_0'::regclass AND pg_get_constraintdef(oid) ~ 'in_hash');
END $$;
SELECT after('a row in the wrong place', 'INSERT INTO log_big_0 (id, k) SELECT 7000 + g, g FROM generate_series(1, 30) g');

-- Recursion: the value comes from a function that looks up the same table.
CREATE FUNCTION next_key(key int) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
  IF key <= 1 THEN
    RETURN 2;
  END IF;
  RETURN (SELECT k FROM log_int WHERE k = next_key(key - 1) LIMIT 1);
END $$;
PREPARE deep(int) AS SELECT DISTINCT k FROM log_int WHERE k = next_key($1);
SELECT results_eq('EXECUTE deep(4)', 'SELECT 2', 'a function that looks up the same table');
-- A function in PL/pgSQL keeps its plans.
CREATE FUNCTION many_lookups(out result bigint) LANGUAGE plpgsql AS $$
DECLARE
  c bigint;
BEGIN
  result := 0;
  FOR g IN 1 .. 60 LOOP
    SELECT count(*) INTO c FROM log_str WHERE k = 's' || g % 30 + 1;
    result := result + c * g;
    UPDATE log_str SET n = n + 1 WHERE k = 's' || g % 30 + 1;
  END LOOP;
END $$;
SELECT is(many_lookups(), (SELECT sum(c * g)::bigint FROM generate_series(1, 60) g,
  LATERAL (SELECT count(*) AS c FROM plain_str WHERE k = 's' || g % 30 + 1) s), 'statements of PL/pgSQL');
SELECT is((SELECT sum(n) FROM log_str WHERE k IS NOT NULL), (SELECT sum(n + 2) FROM plain_str WHERE k IS NOT NULL),
  'statements of PL/pgSQL: UPDATE');

-- Cursors.
CREATE FUNCTION fetched(name text, direction text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  c refcursor := name;
  r record;
  result text := '';
BEGIN
  FOR i IN 1 .. 4 LOOP
    IF direction = 'backward' THEN
      FETCH BACKWARD FROM c INTO r;
    ELSE
      FETCH FROM c INTO r;
    END IF;
    EXIT WHEN NOT FOUND;
    result := result || r.id || ' ';
  END LOOP;
  RETURN result;
END $$;
DECLARE scrolled SCROLL CURSOR FOR SELECT id FROM log_str WHERE k = 's7';
SELECT is(length(fetched('scrolled', 'forward')), length(fetched('scrolled', 'backward')), 'a cursor goes back');
DECLARE marked CURSOR FOR SELECT id FROM log_str WHERE k = 's6' FOR UPDATE;
FETCH FROM marked;
SELECT lives_ok('UPDATE log_str SET note = ''here'' WHERE CURRENT OF marked', 'CURRENT OF a cursor FOR UPDATE');
DECLARE unmarked CURSOR FOR SELECT id FROM log_str WHERE k = 's7';
FETCH FROM unmarked;
SELECT lives_ok('DELETE FROM log_str WHERE CURRENT OF unmarked', 'CURRENT OF another cursor');
SELECT results_eq($$ SELECT k, count(*), count(*) FILTER (WHERE note = 'here') FROM log_str WHERE k IN ('s6', 's7') GROUP BY k ORDER BY k $$,
  $$ VALUES ('s6', 2::bigint, 1::bigint), ('s7', 2, 0) $$, 'CURRENT OF finds its row');

-- Ids, on each route.
CREATE FUNCTION ids_found(route text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  wrong int := 0;
  r record;
  c bigint;
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE id_%1$s (id bigint OPTIONS (sequence ''always''), k int, v int) SERVER shards
    OPTIONS (shards ''5'', route %1$L %2$s)', route, CASE route WHEN 'hash' THEN ', key ''k''' END);
  FOR g IN 0 .. 4 LOOP
    IF route = 'session' THEN
      PERFORM set_config('shard_fdw.shard', g::text, true);
    END IF;
    EXECUTE format('INSERT INTO id_%s (k, v) SELECT g, g FROM generate_series(1, 8) g', route);
  END LOOP;
  RESET shard_fdw.shard;
  EXECUTE format('PREPARE one_id(bigint) AS SELECT count(*) FROM id_%s WHERE id = $1', route);
  EXECUTE format('PREPARE up_id(bigint) AS UPDATE id_%s SET v = v + 1 WHERE id = $1', route);
  FOR r IN EXECUTE format('SELECT id, tableoid::regclass::text AS shard FROM id_%s', route) LOOP
    EXECUTE format('EXECUTE one_id(%s)', r.id) INTO c;
    EXECUTE format('EXECUTE up_id(%s)', r.id);
    wrong := wrong + (c <> 1)::int + (scanned_names(format('EXECUTE up_id(%s)', r.id)) <> r.shard)::int;
  END LOOP;
  EXECUTE format('SELECT sum(v) FROM id_%s', route) INTO c;
  DEALLOCATE one_id;
  DEALLOCATE up_id;
  RETURN wrong || ' ' || c;
END $$;
SELECT is(ids_found(route), '0 220', 'ids, route ' || route) FROM unnest('{session,round_robin,hash}'::text[]) route;

SELECT finish();
ROLLBACK;
