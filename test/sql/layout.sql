-- Shards whose columns, dropped ones included, differ from the logical table's.
--
-- Each trial makes a plain table and logical tables that have the same columns,
-- in some order, between columns of random types that are dropped again when
-- the first rows are there.  Then columns are added that these rows lack.
-- After each statement all tables must have returned and hold the same.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE SCHEMA layout_test;
CREATE SCHEMA plain;
CREATE SCHEMA hashed;
CREATE SCHEMA session;
SET LOCAL search_path = layout_test, public;

-- another width in the shard

CREATE FOREIGN TABLE hashed.t (id int, n int, gone int, v text) SERVER shards
  OPTIONS (route 'hash', key 'id');
CREATE TABLE hashed.t_0 (id int PRIMARY KEY, n int, gone bigint, v text,
  CHECK (shard_fdw.in_hash(1, 0, id)));
INSERT INTO hashed.t_0 VALUES (1, 1, 77777777777, 'old 1'), (2, 2, 2, 'old 2');
ALTER TABLE hashed.t_0 DROP gone;
ALTER FOREIGN TABLE hashed.t DROP gone;
ALTER TABLE hashed.t_0 INHERIT hashed.t;
SELECT results_eq($$ INSERT INTO hashed.t VALUES (1, 5, 'new'), (3, 5, 'new') ON CONFLICT (id) DO
    UPDATE
                       SET v = t.v || EXCLUDED.v, n = EXCLUDED.n WHERE t.n < 100 RETURNING *,
                       t::text $$,
                  $$ VALUES (1, 5, 'old 1new', '(1,5,"old 1new")'), (3, 5, 'new', '(3,5,new)') $$,
                  'a dropped column that is wider in the shard');
SELECT results_eq($$ INSERT INTO hashed.t VALUES (2, 5, 'new') ON CONFLICT (id) DO UPDATE
                       SET v = t::text || EXCLUDED::text RETURNING * $$,
                  $$ VALUES (2, 2, '(2,2,"old 2")(2,5,new)') $$,
                  'a dropped column that is wider in the shard, in values of the row type');
DROP FOREIGN TABLE hashed.t CASCADE;

-- random columns

CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';

CREATE TABLE junk (type text, value text);
INSERT INTO junk VALUES ('bool', 'true'), ('"char"', 'g'), ('smallint', '7'), ('int', '9'),
  ('bigint', '12345678901'),
  ('text', 'gone'), ('varchar(500)', 'gone'), ('name', 'gone'), ('numeric', '1.5'),
    ('float4', '1.5'),
  ('uuid', '0007d3a0-5d0f-4d5c-8f7e-1b2a3c4d5e6f'), ('macaddr', '08:00:2b:01:02:03'),
    ('timetz', '10:00+01'),
  ('point', '(1,2)'), ('int[]', '{1,2,3}'), ('interval', '1 day'), ('bit(3)', '101'),
    ('inet', '1.2.3.4'), ('tid', '(1,2)');

-- The order of the columns that stay, with a "-" for each that goes.
CREATE FUNCTION skeleton() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  shuffle bool := pick(3) = 0;
  result text[] := '{}';
  col text;
BEGIN
  FOR col IN SELECT c FROM unnest(ARRAY['id int', 'c "char"', 'v text', 'n bigint', 'm name',
      's smallint']) WITH ORDINALITY u(c, o)
              ORDER BY CASE WHEN shuffle THEN random() ELSE o END
  LOOP
    WHILE pick(10) < 4 LOOP result := result || '-'::text; END LOOP;
    result := result || col;
  END LOOP;
  RETURN result;
END $$;

-- The columns of a table, each "-" replaced by one of some type or other.
CREATE FUNCTION columns(skeleton text[]) RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT string_agg(CASE c WHEN '-' THEN (SELECT format('junk_%s %s DEFAULT %L', o, type, value)
      FROM junk ORDER BY random() + o LIMIT 1)
                    ELSE c END, ', ' ORDER BY o)
    FROM unnest(skeleton) WITH ORDINALITY u(c, o) $$;

CREATE FUNCTION drop_junk(tbl text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  col name;
BEGIN
  FOR col IN SELECT attname FROM pg_attribute WHERE attrelid = tbl::regclass AND attname ~ '^junk'
    ORDER BY random() LOOP
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', tbl, col);
  END LOOP;
END $$;

-- A plain table, and logical tables with three shards each.
CREATE FUNCTION make_tables() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  common text[] := skeleton();
  shard text;
  t text;
BEGIN
  EXECUTE format('CREATE TABLE plain.t (%s, PRIMARY KEY (id))', columns(common));
  PERFORM drop_junk('plain.t');
  FOREACH t IN ARRAY '{hashed,session}'::text[] LOOP
    EXECUTE format('CREATE FOREIGN TABLE %s.t (%s) SERVER shards OPTIONS (%s)', t, columns(common),
                   CASE t WHEN 'hashed' THEN 'route ''hash'', key ''id''' ELSE 'route ''session'''
                     END);
    PERFORM drop_junk(t || '.t');
    FOR i IN 0..2 LOOP
      shard := format('%s.t_%s', t, i);
      EXECUTE format('CREATE TABLE %s (%s, PRIMARY KEY (id))', shard,
        columns(CASE WHEN pick(4) = 0 THEN skeleton() ELSE common END));
      IF t = 'hashed' THEN
        EXECUTE format('ALTER TABLE %s ADD CHECK (shard_fdw.in_hash(3, %s, id))', shard, i);
      END IF;
      -- Rows with values in the columns that go.
      EXECUTE format('INSERT INTO %s (id, c, v, n, m, s) SELECT g, ''o'', ''old '' || g, g, ''m'' '
                     '|| g, g FROM generate_series(1, 30) g WHERE %s',
                     shard, CASE t WHEN 'hashed' THEN format('shard_fdw.in_hash(3, %s, g)', i)
                       ELSE format('g %% 3 = %s', i) END);
      IF pick(3) = 0 THEN
        EXECUTE format('ALTER TABLE %s ADD x text DEFAULT ''shard''', shard);
      END IF;
      PERFORM drop_junk(shard);
      EXECUTE format('ALTER TABLE %s INHERIT %s.t', shard, t);
    END LOOP;
  END LOOP;
  INSERT INTO plain.t (id, c, v, n, m, s) SELECT g, 'o', 'old ' || g, g, 'm' || g,
  g FROM generate_series(1, 30) g;
END $$;

CREATE FUNCTION everywhere(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format(command, 'TABLE plain.t');
  EXECUTE format(command, 'FOREIGN TABLE hashed.t');
  EXECUTE format(command, 'FOREIGN TABLE session.t');
END $$;

-- What a command does to the table of one schema: what it returns or how it
-- fails, and the rows then.
CREATE FUNCTION outcome(command text, schema text, columns text) RETURNS text[]
  LANGUAGE plpgsql AS $$
DECLARE
  r record;
  result text[] := '{}';
  rows text[];
BEGIN
  PERFORM set_config('search_path', schema || ', layout_test, public', true);
  BEGIN
    IF command ~ 'RETURNING' THEN
      FOR r IN EXECUTE command LOOP result := result || r::text; END LOOP;
      result := ARRAY(SELECT u FROM unnest(result) u ORDER BY u COLLATE "C");
    ELSE
      EXECUTE command;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    result := ARRAY[SQLSTATE];
  END;
  EXECUTE format('SELECT ARRAY(SELECT row(%s)::text FROM t ORDER BY id)', columns) INTO rows;
  PERFORM set_config('search_path', 'layout_test, public', true);
  RETURN result || '--'::text || rows;
END $$;

-- Statements whose outcomes differ.
CREATE FUNCTION differ(seed float8) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  columns text := 'id, c, v, n, m, s';
  command text;
  expected text[];
BEGIN
  PERFORM setseed(seed);
  PERFORM make_tables();
  -- Rows from before do not have it.
  IF pick(2) = 0 THEN
    PERFORM everywhere('ALTER %s ADD late text DEFAULT ''late''');
    columns := columns || ', late';
  END IF;
  IF pick(3) = 0 THEN
    PERFORM everywhere('ALTER %s ADD junk_late numeric DEFAULT 1.5');
    PERFORM everywhere('ALTER %s DROP junk_late');
    PERFORM everywhere('ALTER %s ADD later smallint DEFAULT 3');
    columns := columns || ', later';
  END IF;

  FOREACH command IN ARRAY ARRAY[
    $c$ INSERT INTO t (id, c, v, n, m, s) VALUES (41, 'a', 'single', 41, 'mm', 4) $c$,
    $c$ INSERT INTO t (id, c, v, n, m, s) VALUES (42, 'a', NULL, 42, 'mm', NULL),
      (43, NULL, 'many', NULL, 'mm', 4), (44, 'c', repeat('many', 1000), 44, NULL, 4) $c$,
    $c$ INSERT INTO t (s, m, n, v, c, id) SELECT g, 'm', NULLIF(g, 50), repeat('x', g), 'z',
      g FROM generate_series(45, 60) g RETURNING @, (to_jsonb(t) - 'x')::text $c$,
    $c$ INSERT INTO t (s, m, n, v, c, id) SELECT g, 'm', g, repeat('x', g), 'z',
      g FROM generate_series(61, 300) g $c$,
    $c$ COPY t (s, id, v, n, c, m) FROM PROGRAM 'seq -f "1,%g,copied,7,c,mm" 1000 1300' (FORMAT csv)
      $c$,
    $c$ UPDATE t SET v = v || '!', n = NULL WHERE id % 7 = 0 $c$,
    $c$ INSERT INTO t (id) VALUES (3333), (NULL) $c$,
    $c$ DELETE FROM t WHERE id > 100 $c$,
    $c$ INSERT INTO t (id, v) VALUES (1, 'up'), (2, 'up'), (3, 'up'), (4, 'up'), (2001, 'new')
      ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v RETURNING @ $c$,
    $c$ INSERT INTO t (id, c, v, n, m, s) SELECT g, 'u', 'up', 5, 'up',
      6 FROM generate_series(1, 70) g ON CONFLICT (id) DO UPDATE
        SET (v, n, c, m) = (SELECT t.v || EXCLUDED.v || t.m, t.n + EXCLUDED.n + t.s, EXCLUDED.c,
          t.c) WHERE t.s > 3 RETURNING @, t.xmin IS NOT NULL $c$,
    $c$ INSERT INTO t (id, s) SELECT g, 1 FROM generate_series(1, 70) g ON CONFLICT (id) DO
      UPDATE SET v = 'null' WHERE t.v IS NULL OR t.n IS NULL OR t.m = 'm3' $c$,
    $c$ INSERT INTO t (id, s) SELECT g, 1 FROM generate_series(1, 70) g ON CONFLICT (id) DO
      UPDATE SET v = to_json(t)->>'m', n = (to_json(EXCLUDED)->>'id')::bigint RETURNING @ $c$,
    $c$ INSERT INTO t (id, s) SELECT g, 1 FROM generate_series(1, 3000) g
      ON CONFLICT DO NOTHING $c$,
    $c$ INSERT INTO t (id, s) VALUES (5, 1), (5, 2) ON CONFLICT (id) DO
      UPDATE SET s = EXCLUDED.s $c$,
    $c$ INSERT INTO t (id, s) SELECT id, 8 FROM t WHERE id < 25 ON CONFLICT (id) DO
      UPDATE SET s = EXCLUDED.s RETURNING (to_jsonb(t) - 'x')::text $c$,
    $c$ INSERT INTO t (id) VALUES (1) $c$]
  LOOP
    command := replace(command, '@', columns);
    expected := outcome(command, 'plain', columns);
    IF outcome(command, 'hashed', columns) IS DISTINCT FROM expected THEN
      RETURN NEXT 'hashed: ' || command;
    END IF;
    -- The rest is for hash tables only.
    CONTINUE WHEN EXISTS (SELECT FROM plain.t WHERE id = 2001) OR command ~ 'CONFLICT';
    IF outcome(command, 'session', columns) IS DISTINCT FROM expected THEN
      RETURN NEXT 'session: ' || command;
    END IF;
  END LOOP;
  DROP FOREIGN TABLE hashed.t, session.t CASCADE;
  DROP TABLE plain.t;
END $$;

SELECT random() AS seed \gset
SELECT is_empty(format('SELECT differ(%s)', seed), 'columns at random, seed ' || seed)
  FROM (SELECT (:seed::numeric + g * 0.01) % 1 AS seed FROM generate_series(1, 12) g) s;

SELECT * FROM finish();
ROLLBACK;
