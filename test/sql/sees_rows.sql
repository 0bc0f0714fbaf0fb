-- Whatever can look at the table while rows are inserted sees the rows before
-- its own, as with a plain table.  Here that is look(), which writes down how
-- many there are.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE SCHEMA sees_rows_test;
SET LOCAL search_path = sees_rows_test, public;

SELECT current_setting('server_version_num')::int >= 170000 AS v17,
       EXISTS (SELECT FROM pg_config() WHERE name = 'CONFIGURE' AND setting ~ 'with-libxml')
         AS has_xml \gset

CREATE TABLE seen (o serial, n bigint);
-- A volatile function, which takes and returns any number.
CREATE FUNCTION look(int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s', current_setting('sees_rows.target')) INTO n;
  INSERT INTO seen (n) VALUES (n);
  RETURN $1;
END $$;
CREATE DOMAIN watched AS int CHECK (look(0) = 0);
CREATE DOMAIN deeper AS watched CHECK (VALUE < 1000000);
CREATE TYPE pair AS (a watched, b text);
CREATE TYPE pairs AS (p pair[]);
CREATE TYPE stretch AS RANGE (subtype = watched);
CREATE TYPE letter AS ENUM ('a', 'b');
CREATE FUNCTION letter_to_json(letter) RETURNS json LANGUAGE sql AS $$ SELECT to_json(look(1)) $$;
CREATE CAST (letter AS json) WITH FUNCTION letter_to_json(letter);
CREATE FUNCTION looking_add(int, int) RETURNS int LANGUAGE sql AS 'SELECT look($1) + $2';
CREATE FUNCTION looking_eq(int, int) RETURNS bool LANGUAGE sql AS 'SELECT look($1) = $2';
CREATE OPERATOR +# (FUNCTION = looking_add, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR =# (FUNCTION = looking_eq, LEFTARG = int, RIGHTARG = int);
CREATE AGGREGATE looking_sum(int) (sfunc = looking_add, stype = int, initcond = '0');
CREATE FUNCTION looking_end(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN look($1); END';
CREATE AGGREGATE ending_sum(int) (sfunc = int4pl, stype = int, initcond = '0',
  finalfunc = looking_end);
CREATE FUNCTION with_default(a int, b int DEFAULT look(0)) RETURNS int STABLE
  LANGUAGE plpgsql AS 'BEGIN RETURN a + b; END';

CREATE TABLE plain (id int, x text);
CREATE FOREIGN TABLE log (id int, x text) SERVER shards OPTIONS (shards '3', route 'round_robin');

CREATE FUNCTION batch_size(command text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  result json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT json, VERBOSE) ' || command INTO result;
  RETURN jsonb_path_query(result::jsonb, 'strict $.**."Batch Size"');
END $$;

-- What look() sees while a command inserts into a table, "@" in the command.
-- Numbers that come in a row are shown once: generated columns are computed
-- for the logical table and for the shard.
CREATE FUNCTION seen_by(command text, target text) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'TRUNCATE ' || target;
  DELETE FROM seen;
  PERFORM set_config('sees_rows.target', target, true);
  EXECUTE replace(command, '@', target);
  RETURN ARRAY(SELECT n FROM (SELECT o, n, lag(n) OVER (ORDER BY o) AS before FROM seen) s WHERE n
    IS DISTINCT FROM before ORDER BY o);
END $$;
CREATE FUNCTION same(command text, plain text DEFAULT 'plain', log text DEFAULT 'log') RETURNS SETOF
  text LANGUAGE plpgsql AS $$
DECLARE
  expected bigint[] := seen_by(command, plain);
BEGIN
  RETURN NEXT ok((SELECT max(n) > 0 FROM unnest(expected) n), 'rows are seen: ' || command);
  RETURN NEXT is(seen_by(command, log), expected, 'as many rows are seen: ' || command);
END $$;

-- the query

CREATE TABLE leaves (expr text);
INSERT INTO leaves VALUES
  ('look(g)'), ('g::watched'), ('(g::text)::watched'), ('g::deeper'), ('(g::text)::deeper'),
    ('(ARRAY[g]::watched[])[1]'),
  ('((''{'' || g || ''}'')::watched[])[1]'), ('(ROW(g, ''b'')::pair).a'),
    ('((''('' || g || '',b)'')::pair).a'),
  ('cardinality(((''("{""('' || g || '',b)""}")'')::pairs).p)'),
  ('lower((''['' || g || '',)'')::stretch)'),
    ('(json_populate_record(NULL::pair, json_build_object(''a'', g))).a'),
  ('(jsonb_populate_record(NULL::pairs, jsonb_build_object(''p'', '
   'jsonb_build_array(jsonb_build_object(''a'', g))))).p[1].a'),
  ('length(to_json(CASE WHEN g % 2 = 0 THEN letter ''a'' ELSE ''b'' END)::text)'),
  ('length(json_build_array(g, CASE WHEN g % 2 = 0 THEN letter ''a'' ELSE ''b'' END)::text)'),
  ('g +# 1'), ('(g =# ANY (ARRAY[1, 2]))::int'), ('with_default(g)'),
  ('(SELECT looking_sum(v) FROM (VALUES (g), (1)) v(v))'),
    ('(SELECT ending_sum(v) FROM (VALUES (g), (1)) v(v))'),
  ('(SELECT looking_sum(v) OVER () FROM (VALUES (g)) v(v))'),
  ('(SELECT j.a FROM json_to_recordset(json_build_array(json_build_object(''a'', g))) AS j(a '
   'watched))');
INSERT INTO leaves
  SELECT $$(SELECT x.a FROM xmltable('/r' PASSING xmlparse(content '<r><a>' || g || '</a></r>')
        COLUMNS a watched PATH 'a') x)$$ WHERE :'has_xml';
INSERT INTO leaves
  SELECT unnest(ARRAY[$$JSON_VALUE(jsonb_build_array(g), '$[0]' RETURNING watched)$$,
  $$(SELECT j.a FROM JSON_TABLE(jsonb_build_array(g), '$[*]' COLUMNS (a watched PATH '$')) j)$$])
  WHERE :'v17';

SELECT same(format('INSERT INTO @ SELECT %s FROM generate_series(1, 5) g', expr)) FROM leaves;
SELECT is(batch_size(format('INSERT INTO log SELECT %s FROM generate_series(1, 5) g', expr)), 1,
  'no batch with ' || expr) FROM leaves;
SELECT same(format('INSERT INTO @ VALUES %s',
    (SELECT string_agg(format('(%s)', regexp_replace(expr, '\mg\M', i::text, 'g')), ', ')
      FROM generate_series(1, 4) i)))
  FROM leaves;
SELECT same('INSERT INTO @ SELECT w FROM generate_series(1, 5) g, look(g) w');
SELECT same('INSERT INTO @ SELECT looking_sum(g) OVER (ORDER BY g) FROM generate_series(1, 5) g');
SET LOCAL enable_hashagg = off;
SELECT same('INSERT INTO @ SELECT g FROM generate_series(1, 5) g GROUP BY g HAVING looking_sum(g) '
            '> 0');
RESET enable_hashagg;

-- random queries

CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';
CREATE TYPE calm_pair AS (a int, b text);
CREATE FUNCTION random_command() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  wraps CONSTANT text[] := ARRAY['CASE WHEN g % 2 = 0 THEN @ ELSE 0 END',
    'COALESCE(NULLIF(@, -1), 0)', '(ARRAY[@, g])[1]', '(SELECT @ + 0 * g)', 'greatest(@, g)',
    '(ROW(@, ''b'')::calm_pair).a', 'abs(@)', '(@)::text::int',
    '(jsonb_build_object(''a'', @)->>''a'')::int', '(@ IN (1, 2, g))::int',
    '(NOT (@ > 2 OR g > 4))::int',
    '(EXISTS (SELECT FROM generate_series(1, 2) i WHERE i < @))::int',
    '(SELECT max(i) FROM generate_series(1, 1) i WHERE @ > i - 5)', 'cardinality(ARRAY(SELECT @))',
    '(ROW(g, @) < ROW(3, 3))::int', '(@ IS DISTINCT FROM g)::int'];
  shapes CONSTANT text[] := ARRAY['INSERT INTO @ SELECT ~E~ FROM generate_series(1, 6) g',
    'INSERT INTO @ SELECT g FROM generate_series(1, 6) g WHERE ~E~ > -100',
    'WITH w AS MATERIALIZED (SELECT ~E~ AS e FROM generate_series(1, 6) g) INSERT INTO @ SELECT e '
    'FROM w',
    'INSERT INTO @ SELECT e FROM (SELECT ~E~ AS e FROM generate_series(1, 6) g OFFSET 0) s',
    'INSERT INTO @ SELECT ~E~ FROM generate_series(1, 3) g UNION ALL SELECT ~E~ FROM '
    'generate_series(1, 3) g',
    'INSERT INTO @ SELECT e FROM generate_series(1, 6) g, LATERAL (SELECT ~E~ AS e) l',
    'INSERT INTO @ SELECT e FROM generate_series(1, 6) g LEFT JOIN LATERAL (SELECT ~E~ AS e '
    'OFFSET 0) l ON true',
    'INSERT INTO @ SELECT i FROM generate_series(1, 6) g, generate_series(1, abs(~E~) % 3 + 1) i',
    'INSERT INTO @ (x, id) SELECT e, 1 FROM generate_series(1, 6) g CROSS JOIN LATERAL (VALUES '
    '(~E~), (2)) v(e)', 'INSERT INTO @ VALUES (~V~), (~V~), (~V~)'];
  result text := shapes[1 + pick(cardinality(shapes))];
  expr text;
BEGIN
  SELECT l.expr INTO expr FROM leaves l ORDER BY random() LIMIT 1;
  WHILE pick(3) > 0 LOOP
    expr := replace(wraps[1 + pick(cardinality(wraps))], '@', expr);
  END LOOP;
  WHILE result ~ '~V~' LOOP
    result := regexp_replace(result, '~V~', regexp_replace(expr, '\mg\M', (1 + pick(9))::text,
        'g'));
  END LOOP;
  RETURN replace(result, '~E~', expr);
END $$;
CREATE FUNCTION differ(seed float8, n int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  command text;
BEGIN
  PERFORM setseed(seed);
  FOR i IN 1..n LOOP
    command := random_command();
    IF seen_by(command, 'log') IS DISTINCT FROM seen_by(command, 'plain') THEN
      RETURN NEXT command;
    END IF;
  END LOOP;
END $$;
SELECT random() AS seed \gset
SELECT is_empty(format('SELECT differ(%s, 150)', :seed), 'random queries, seed ' || :seed);

-- what belongs to the tables

CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
-- Tables with "definition", and commands for the plain one and each shard.
CREATE FUNCTION same_with(definition text, commands text DEFAULT NULL, own text DEFAULT NULL)
  RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  t text;
BEGIN
  EXECUTE format('CREATE TABLE p (%s)', concat_ws(', ', definition, own));
  EXECUTE format('CREATE FOREIGN TABLE l (%s) SERVER shards OPTIONS (route ''round_robin'')',
    definition);
  FOREACH t IN ARRAY '{l_0,l_1}'::text[] LOOP
    EXECUTE format('CREATE TABLE %s (%s) INHERITS (l)', t, own);
  END LOOP;
  IF commands IS NOT NULL THEN
    FOREACH t IN ARRAY '{p,l_0,l_1}'::text[] LOOP EXECUTE replace(commands, '%s', t); END LOOP;
  END IF;
  RETURN QUERY SELECT same('INSERT INTO @ (id) SELECT generate_series(1, 5)', 'p', 'l');
  RETURN QUERY SELECT same('INSERT INTO @ (id) VALUES (1), (2), (3), (4)', 'p', 'l');
  -- A plain table is filled in batches, and look() sees fewer of them.
  RETURN NEXT is(seen_by('COPY @ (id) FROM PROGRAM ''seq 6''', 'l'),
    seen_by('INSERT INTO @ (id) SELECT generate_series(1, 6)', 'p'),
    'as many rows are seen: COPY');
  DROP TABLE p;
  DROP FOREIGN TABLE l CASCADE;
END $$;

SELECT same_with('id watched');
SELECT same_with('id deeper');
SELECT same_with('id int, w watched DEFAULT 1');
SELECT same_with('id int, w int DEFAULT 1::watched');
SELECT same_with('id int, w watched GENERATED ALWAYS AS (id + 1) STORED');
SELECT same_with('id int, w int GENERATED ALWAYS AS (id::watched + 1) STORED');
SELECT same_with('id int CHECK (id::watched IS NOT NULL)');
SELECT same_with('id int CHECK ((ROW(id, ''b'')::pair).a > 0)');
SELECT same_with('id int', 'ALTER TABLE %s ADD CHECK (id::text::deeper > 0)');
SELECT same_with('id int', own => 'w watched DEFAULT 1');
SELECT same_with('id int', own => 'w int DEFAULT 1::watched');
SELECT same_with('id int', own => 'w watched');
SELECT same_with('id int', own => 'w int DEFAULT with_default(1)');
SELECT same_with('id int', 'CREATE INDEX ON %s ((id::watched))');
SELECT same_with('id int', 'CREATE INDEX ON %s (id) WHERE id::watched > 0');
SELECT same_with('id int',
  'CREATE TRIGGER t AFTER INSERT ON %s FOR EACH ROW WHEN (look(NEW.id) > 0) EXECUTE FUNCTION '
  'nothing()');
SELECT same_with('id int',
  'CREATE TRIGGER t AFTER INSERT ON %s FOR EACH ROW WHEN (NEW.id::watched > 0) EXECUTE FUNCTION '
  'nothing()');

-- COPY, by columns and WHERE

CREATE FOREIGN TABLE typed (id int, w watched, p pair, a deeper[], r stretch) SERVER shards
  OPTIONS (shards '2', route 'round_robin');
SELECT is(seen_by(format('COPY @ (id, %s) FROM PROGRAM %L WITH (DELIMITER '';'')', col,
      'for i in 1 2 3 4 5; do echo "$i;' || value || '"; done'), 'typed'),
          ARRAY(SELECT generate_series(0, 4)::bigint), 'COPY into a column of type ' || type)
  FROM (VALUES ('w', 'domain', '$i'), ('p', 'composite type', '($i,b)'), ('a', 'array', '{$i}'))
    v(col, type, value);
SELECT is(seen_by('COPY @ (id) FROM PROGRAM ''seq 5'' WHERE look(id) > 0', 'log'),
  ARRAY(SELECT generate_series(0, 4)::bigint), 'COPY ... WHERE');

-- what does not look may wait

CREATE DOMAIN positive AS int CHECK (VALUE > 0) CHECK (length(VALUE::text) < 100);
CREATE TYPE positives AS (p positive, l text[]);
CREATE TYPE size AS ENUM ('s', 'm');
SELECT is(batch_size(format('INSERT INTO log SELECT %s FROM generate_series(1, 5) g', expr)), 1000,
  'a batch with ' || expr)
  FROM unnest(ARRAY['g::positive', '(g::text)::positive', '(ARRAY[g]::positive[])[1]',
      '(ROW(g, NULL)::positives).p', '1, to_json(ROW(g, NULL)::positives)::text',
                    '1, to_json(size ''s'')::text', '1, (size ''s'')::text',
                    '(json_populate_record(NULL::positives, json_build_object(''p'', g))).p',
                    'sum(g) OVER ()']) expr;
SELECT is(batch_size('INSERT INTO log SELECT (l).* FROM log l'), 1000,
  'COPY ... WHERE, with values of a table''s row type');
CREATE FOREIGN TABLE calm (id positive, p positives, s size DEFAULT 's',
  g positive GENERATED ALWAYS AS (1) STORED) SERVER shards OPTIONS (shards '2');
SELECT is(batch_size('INSERT INTO calm SELECT generate_series(1, 5)'), 1000,
  'COPY ... WHERE, in columns of such types');

-- changes

SET LOCAL plan_cache_mode = force_generic_plan;
CREATE DOMAIN later AS int;
PREPARE later AS INSERT INTO log SELECT g::later FROM generate_series(1, 5) g;
SELECT is(batch_size('EXECUTE later'), 1000, 'a domain without constraints');
ALTER DOMAIN later ADD CHECK (VALUE > 0);
SELECT is(batch_size('EXECUTE later'), 1000, 'a domain with a harmless constraint');
ALTER DOMAIN later ADD CONSTRAINT looks CHECK (look(VALUE) > 0);
SELECT is(batch_size('EXECUTE later'), 1, 'a domain with a constraint that looks');
SELECT is(seen_by('EXECUTE later', 'log'), '{0,1,2,3,4}',
  'a domain with a constraint that looks sees all rows');
ALTER DOMAIN later DROP CONSTRAINT looks;
-- The transaction itself learns of that with its next change.
COMMENT ON DOMAIN later IS 'calm';
SELECT is(batch_size('EXECUTE later'), 1000, 'a domain without constraints, and without it again');

CREATE FUNCTION fickle(int) RETURNS bool IMMUTABLE
  LANGUAGE plpgsql AS 'BEGIN RETURN look($1) > 0; END';
CREATE DOMAIN indirect AS int CHECK (fickle(VALUE));
PREPARE indirect AS INSERT INTO log SELECT ((g || '')::indirect) FROM generate_series(1, 5) g;
SELECT is(batch_size('EXECUTE indirect'), 1000, 'a function that a domain calls');
ALTER FUNCTION fickle(int) VOLATILE;
SELECT is(batch_size('EXECUTE indirect'), 1, 'a function that a domain calls is made volatile');
ALTER FUNCTION fickle(int) STABLE;
SELECT is(batch_size('EXECUTE indirect'), 1000, 'a function that a domain calls, and stable again');

CREATE FOREIGN TABLE checked (id int) SERVER shards OPTIONS (shards '2', route 'round_robin');
ALTER FUNCTION fickle(int) IMMUTABLE;
ALTER TABLE checked_1 ADD CHECK (fickle(id));
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1000,
  'a function that a constraint of a shard calls');
ALTER FUNCTION fickle(int) VOLATILE;
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1,
  'a function that a constraint of a shard calls is made volatile');
SAVEPOINT s;
ALTER FUNCTION fickle(int) STABLE;
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1000,
  'a function that a constraint of a shard calls, and stable again');
ROLLBACK TO s;
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1,
  'a function that a constraint of a shard calls, which is rolled back');
CREATE DOMAIN of_shard AS int;
ALTER TABLE checked_1 DROP CONSTRAINT checked_1_id_check, ADD CHECK (id::of_shard > 0);
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1000,
  'a domain in a constraint of a shard');
ALTER DOMAIN of_shard ADD CHECK (look(VALUE) > 0);
SELECT is(batch_size('INSERT INTO checked VALUES (1), (2)'), 1,
  'a domain in a constraint of a shard gets a constraint that looks');

SELECT * FROM finish();
ROLLBACK;
