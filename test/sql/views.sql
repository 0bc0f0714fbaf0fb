-- The views are for everybody: nothing that the owner of a table does makes
-- them fail for others.  Locks are in test/t/views.t.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
SET LOCAL jit = off;
CREATE SCHEMA views_test;
GRANT ALL ON SCHEMA views_test TO PUBLIC;
SET LOCAL search_path = views_test, public;

\ir helpers.psql

-- What comes of all views for a role: a line for each that fails.
CREATE FUNCTION failing_views(role text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  command text;
BEGIN
  FOR command IN SELECT format('SELECT v::text FROM shard_fdw.%I v', relname) FROM pg_class
                  WHERE relnamespace = 'shard_fdw'::regnamespace AND relkind = 'v' LOOP
    BEGIN
      PERFORM set_config('role', role, true);
      EXECUTE command;
      PERFORM set_config('role', 'none', true);
    EXCEPTION WHEN OTHERS THEN
      RETURN NEXT role || ': ' || command || ': ' || SQLERRM;
    END;
  END LOOP;
END $$;
CREATE FUNCTION views_work(title text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT is_empty($q$ SELECT failing_views(role) FROM unnest('{postgres,shard_user,shard_reader}'::text[]) role $q$, title)
$$;

--
-- Constraints and defaults that nobody but their table's owner should meet
--

CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
SET LOCAL ROLE shard_user;
CREATE FUNCTION failing(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE ''the owner''''s function has run''; END';
CREATE DOMAIN nasty AS bool CHECK (failing(1));
CREATE FOREIGN TABLE nasty_table (id bigint OPTIONS (sequence 'by_default'), k int, b bool) SERVER shards
  OPTIONS (shards '2', commit_order 'true');
SELECT shard_fdw.register_consumer('nasty_table', 'c', 'id');
CREATE TABLE nasty_checks (expression text, state text, title text);
INSERT INTO nasty_checks VALUES
  -- what cannot be evaluated
  ('ARRAY[''{1,2}''::int[], ''{1}''::int[]] IS NOT NULL', 'open'),
  ('(1 / 0) IS NULL', 'open'), ('1 / 0 = 1', 'open'), ('''a'' ~ ''(''', 'open'), ('2147483647 + 1 > 0', 'open'),
  ('ROW(1, NULL) IS NULL', 'open'),
  ('CASE WHEN true THEN false END', 'open'), ('COALESCE(false, true)', 'open'), ('1 IN (2, 3)', 'open'), ('1 IS DISTINCT FROM 1', 'open'),
  ('''x'' > ''y''', 'open'), ('1.5 > 2', 'open'), ('date ''infinity'' - date ''2000-01-01'' > 1', 'open'), ('pg_sleep(1000) IS NULL', 'open'),
  ('failing(1)', 'open'), ('failing(1) AND k > 1', 'open'), ('false::nasty', 'open'), ('1 OPERATOR(views_test.===) 1', 'open'), ('NOT 1 OPERATOR(views_test.===) 1', 'open'),
  ('repeat(''x'', 1000000000) IS NULL', 'open'), ('current_setting(''nothing'') = ''x''', 'open'), ('XMLPARSE(DOCUMENT ''<'') IS NULL', 'open'),
  ('shard_fdw.in_hash(0, 0, k)', 'open'), ('shard_fdw.in_hash(2147483647, 5, k)', 'open'), ('shard_fdw.in_hash(2, 1, 1)', 'open'), ('shard_fdw.in_slot(0, -1, id)', 'open'),
  ('shard_fdw.in_hash(NULL, NULL, k)', 'open'), ('shard_fdw.in_hash(1, 0, NULL::text)', 'open'),
  -- what is known
  ('false', 'sealed'), ('1 = 0', 'sealed'), ('NULL IS NOT NULL', 'sealed'), ('NOT true', 'sealed'), ('1 <> 1', 'sealed'), ('int2 ''1'' > int8 ''2''', 'sealed'),
  ('2 <= int2 ''1''', 'sealed'), ('1 >= 2', 'sealed'), ('2 < 1', 'sealed'), ('true = false', 'sealed'), ('true <> true', 'sealed'), ('false > false', 'sealed'),
  ('9223372036854775807 < -9223372036854775808', 'sealed'), ('NULL::int IS NOT NULL', 'sealed'), ('1 IS NULL', 'sealed'), ('''x''::varchar::text IS NULL', 'sealed'),
  ('false AND k > 0', 'sealed'), ('k > 0 AND failing(1) AND 1 = 2', 'sealed'), ('NOT (k > 0 OR true)', 'sealed'), ('false OR (NULL AND false)', 'sealed'),
  ('true IS FALSE', 'sealed'), ('false IS TRUE', 'sealed'), ('(1 = 1) IS NOT TRUE', 'sealed'), ('(1 = 2) IS NOT FALSE', 'sealed'),
  ('NULL::bool IS TRUE', 'sealed'), ('NULL::bool IS NOT UNKNOWN', 'sealed'), ('true IS UNKNOWN', 'sealed'),
  ('NULL::bool', 'open'), ('1 = NULL', 'open'), ('NULL::bool AND true', 'open'), ('NULL::bool OR false', 'open'), ('NOT NULL::bool', 'open'), ('true', 'open'), ('0 = 0', 'open'),
  ('b', 'open'), ('b AND NOT b', 'open'), ('k IS NULL', 'open'), ('b IS UNKNOWN', 'open'), ('k = 1', 'open'), ('false OR b', 'open'), ('true AND b', 'open'),
  ('(NULL::bool OR b) AND true', 'open'), ('2 > 1', 'open'), ('true > false', 'open'), ('1 < 9223372036854775807', 'open'), ('NULL::bool IS UNKNOWN', 'open');
-- Long and deep ones, which cannot be read with the stack that there is.
INSERT INTO nasty_checks SELECT string_agg('k = ' || g, ' OR '), 'open', 'a long constraint' FROM generate_series(1, 5000) g;
INSERT INTO nasty_checks SELECT repeat('(false OR ', n) || 'false' || repeat(')', n), CASE WHEN n < 100 THEN 'sealed' ELSE 'open' END, 'a constraint of depth ' || n
  FROM unnest('{4,40,400,1000,1500,2000}'::int[]) n;
INSERT INTO nasty_checks SELECT repeat('NOT ', n) || 'false', 'open', n || ' times NOT' FROM unnest('{1001,2001,4001}'::int[]) n;
INSERT INTO nasty_checks SELECT '1' || repeat(' + k', n) || ' = 1', 'open', 'a sum of ' || n FROM unnest('{100,1000,2000,3000,4000}'::int[]) n;
RESET ROLE;

-- The state of a shard with such a constraint, and the views meanwhile.
CREATE FUNCTION with_check(expression text, wanted text, title text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  command text := format('ALTER TABLE nasty_table_1 ADD CONSTRAINT nasty CHECK (%s) NOT VALID', expression);
  error text;
BEGIN
  SET LOCAL ROLE shard_user;
  error := (error_of(command)).message;
  SET LOCAL ROLE none;
  -- Not every depth can be written down.
  IF error ~ 'stack depth' THEN
    RETURN NEXT pass('no stack for ' || title);
    RETURN;
  END IF;
  RETURN NEXT is(error, NULL, 'CHECK: ' || title);
  RETURN NEXT is((SELECT state FROM shard_fdw.list_shards('nasty_table') WHERE shard = 'nasty_table_1'::regclass), wanted, '... the shard is ' || wanted);
  RETURN NEXT is((SELECT string_agg(v, E'\n') FROM failing_views('shard_reader') v), NULL, '... and the views work');
  ALTER TABLE nasty_table_1 DROP CONSTRAINT IF EXISTS nasty;
END $$;
SELECT with_check(expression, state, coalesce(title, expression)) FROM nasty_checks;

SELECT * FROM finish();
ROLLBACK;
