-- What a shard may hold is checked unless the route has ensured it.
--
-- Whatever the shards look like: no row violates a constraint of the shard that
-- it is in, and a row that is refused would be refused by the shard itself.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;
CREATE SCHEMA placement_test;
SET LOCAL search_path = placement_test, public;
\ir helpers.psql

-- Before PostgreSQL 16 a shard may generate a column that is ordinary in the
-- logical table.
SELECT current_setting('server_version_num')::int < 160000 AS may_generate \gset

-- Rows that violate a CHECK constraint of their shard.
CREATE FUNCTION misplaced(logical regclass) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  shard regclass;
  expr text;
BEGIN
  FOR shard, expr IN SELECT conrelid, pg_get_expr(conbin, conrelid) FROM pg_inherits
    JOIN pg_constraint ON conrelid = inhrelid
                      WHERE inhparent = logical AND contype = 'c' LOOP
    RETURN QUERY EXECUTE format('SELECT ''%1$s: '' || t::text FROM %1$s t WHERE NOT (%2$s)', shard,
      expr);
  END LOOP;
END $$;

-- a key that the shard generates

CREATE FOREIGN TABLE made (k int, v int) SERVER shards OPTIONS (route 'hash', key 'k');
SELECT format('CREATE TABLE made_%s (k int %s, v int, CHECK (shard_fdw.in_hash(2, %1$s, k)))', r,
              CASE WHEN :'may_generate' THEN 'GENERATED ALWAYS AS (v * 7 + 1) STORED' END)
  FROM generate_series(0, 1) r \gexec
ALTER TABLE made_0 INHERIT made;
ALTER TABLE made_1 INHERIT made;
CREATE FUNCTION insert_singly(target text, rows text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  value text;
  refused bigint := 0;
BEGIN
  FOR value IN EXECUTE rows LOOP
    BEGIN
      EXECUTE format('INSERT INTO %s VALUES %s', target, value);
    EXCEPTION WHEN check_violation THEN
      refused := refused + 1;
    END;
  END LOOP;
  RETURN refused;
END $$;
SELECT is(insert_singly('made', 'SELECT format(''(%s, %s)'', g, g) FROM generate_series(1, 100) g'),
          CASE WHEN :'may_generate' THEN (SELECT count(*) FROM generate_series(1, 100) g
                                           WHERE shard_fdw.in_hash(2, 0, g) <> shard_fdw.in_hash(2,
                                             0, g * 7 + 1)) ELSE 0 END,
          'a key that the shard computes anew may belong elsewhere');
SELECT is_empty('SELECT misplaced(''made'')',
  'a key that the shard computes anew may belong elsewhere, and then the row is refused');
SELECT is_empty('SELECT m.k FROM made m WHERE NOT EXISTS (SELECT FROM made WHERE k = m.k + 0)',
  'a key that the shard computes anew may belong elsewhere, so that no query misses it');
SELECT is(count(*), sum((SELECT count(*) FROM made WHERE k = ks.k))::bigint,
  'a key that the shard computes anew may belong elsewhere, by its key')
  FROM (SELECT k FROM made) ks;

-- more than one constraint of the kind

CREATE FOREIGN TABLE two (k int, id bigint OPTIONS (sequence 'always')) SERVER shards
  OPTIONS (route 'hash', key 'k', max_shards '4');
SELECT shard_fdw.create_shards('two', 2);
INSERT INTO two SELECT generate_series(1, 100);
SELECT is_empty('SELECT misplaced(''two'')', 'rows where the constraints say what the place says');
ALTER TABLE two_0 ADD CHECK (shard_fdw.in_hash(2, 0, k));
INSERT INTO two SELECT generate_series(1, 100);
SELECT is((SELECT count(*) FROM two), 200::bigint, 'a constraint that says the same once more');
ALTER TABLE two_0 ADD CONSTRAINT z CHECK (shard_fdw.in_hash(4, 0, k)) NOT VALID;
SELECT is((error_of(format('INSERT INTO two VALUES (%s)', g))).state,
  CASE WHEN shard_fdw.in_hash(2, 0, g) AND NOT shard_fdw.in_hash(4, 0, g) THEN '23514' END,
          'one of another modulus, key ' || g) FROM generate_series(1, 12) g;
ALTER TABLE two_0 DROP CONSTRAINT z, DROP CONSTRAINT two_0_k_check, ADD CONSTRAINT a
  CHECK (shard_fdw.in_slot(4, 2, id)) NOT VALID;
SELECT is((error_of(format('INSERT INTO two VALUES (%s)', g))).state,
  CASE WHEN shard_fdw.in_hash(2, 0, g) THEN '23514' END,
          'one for the ids of another slot, key ' || g) FROM generate_series(1, 6) g;
ALTER TABLE two_0 DROP CONSTRAINT a;
ALTER FOREIGN TABLE two ADD CONSTRAINT of_all CHECK (shard_fdw.in_hash(3, 1, k)) NOT VALID;
SELECT is((error_of(format('INSERT INTO two VALUES (%s)', g))).state,
  CASE WHEN NOT shard_fdw.in_hash(3, 1, g) THEN '23514' END,
          'one that is inherited, key ' || g) FROM generate_series(1, 12) g;

-- the id is the key, which only a change of the server can bring about

CREATE SERVER turning FOREIGN DATA WRAPPER shard_fdw OPTIONS (route 'session');
CREATE FOREIGN TABLE turned (id bigint OPTIONS (sequence 'by_default'), v int) SERVER turning
  OPTIONS (key 'id');
SELECT shard_fdw.create_shards('turned', 2);
ALTER TABLE turned_0 ADD CHECK (shard_fdw.in_hash(2, 0, id));
ALTER TABLE turned_1 ADD CHECK (shard_fdw.in_hash(2, 1, id));
ALTER SERVER turning OPTIONS (SET route 'hash');
SELECT insert_singly('turned (v)', 'SELECT ''(1)'' FROM generate_series(1, 40)') > 0 AS refused
  \gset
SELECT ok(:'refused', 'ids that the route cannot know');
SELECT is_empty('SELECT misplaced(''turned'')', 'ids that the route cannot know are checked');

-- shards at random

CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';
CREATE FUNCTION change_key() RETURNS trigger
  LANGUAGE plpgsql AS 'BEGIN NEW.a := NEW.a + 1; RETURN NEW; END';
CREATE DOMAIN small AS int CHECK (VALUE < 100000);

CREATE FUNCTION make_table(may_generate bool) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  type text := (ARRAY['int', 'bigint', 'small', 'numeric', 'text', 'text COLLATE "C"'])[1
    + pick(6)];
  keys text := (ARRAY['a', 'a, b', 'b, a'])[1 + pick(3)];
  with_id bool := pick(2) = 0;
  placed int := 0;
  t text;
BEGIN
  EXECUTE format('CREATE FOREIGN TABLE t (%s) SERVER shards OPTIONS (route ''hash'', key %L, '
                 'max_shards ''8'')',
                 concat_ws(', ', 'gone int, a ' || type, 'b int, v text', CASE WHEN with_id
                   THEN 'id bigint OPTIONS (sequence ''always'')' END), keys);
  ALTER FOREIGN TABLE t DROP gone;
  FOR i IN 0..3 LOOP
    t := 't_' || i;
    EXECUTE format('CREATE TABLE %s (%s)', t,
                   concat_ws(', ', CASE pick(3) WHEN 0 THEN 'gone int, more int DEFAULT 7' WHEN 1
                     THEN 'gone bigint' ELSE 'gone int' END,
                             format('a %s %s', type, CASE WHEN pick(6) = 0 AND may_generate
                               AND type = 'int' THEN 'GENERATED ALWAYS AS (length(v) % 10) STORED'
                                 END),
                             'b int, v text', CASE WHEN with_id THEN 'id bigint' END));
    EXECUTE format('ALTER TABLE %s DROP gone', t);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT c%s CHECK (shard_fdw.in_hash(4, %s, %s)) %s', t,
      pick(10), i, keys,
                   CASE WHEN pick(5) = 0 THEN 'NOT VALID' END);
    IF pick(4) = 0 THEN
      EXECUTE format('ALTER TABLE %s ADD CONSTRAINT d%s CHECK (shard_fdw.in_hash(%s, %s, %s)) %s',
        t, pick(10), 4 * (1 + pick(2)), i + 4 * pick(1),
                     CASE WHEN pick(4) = 0 THEN 'b, a' ELSE keys END, CASE WHEN pick(2) = 0
                       THEN 'NOT VALID' END);
    END IF;
    IF pick(8) = 0 AND type <> 'text' AND type <> 'text COLLATE "C"' THEN
      EXECUTE format('CREATE TRIGGER change_key BEFORE INSERT OR UPDATE ON %s FOR EACH ROW '
                     'EXECUTE FUNCTION change_key()', t);
    END IF;
    IF pick(8) = 0 THEN EXECUTE format('ALTER TABLE %s ADD CHECK (b <> 7)', t); END IF;
    EXECUTE format('ALTER TABLE %s INHERIT t', t);
  END LOOP;
  IF with_id THEN
    PERFORM shard_fdw.reset_sequences('t');
    FOR i IN 0..3 LOOP
      EXECUTE format('ALTER TABLE t_%s ADD CONSTRAINT s%s CHECK (shard_fdw.in_slot(8, %s, id)) %s',
        i, pick(10),
                     CASE WHEN pick(4) = 0 THEN 1 + pick(8) ELSE i + 1 END, CASE WHEN pick(2) = 0
                       THEN 'NOT VALID' END);
      IF pick(6) = 0 THEN
        EXECUTE format('ALTER TABLE t_%s ADD CONSTRAINT t%s CHECK (shard_fdw.in_slot(8, %s, id)) %s', i, pick(10), 1 + pick(8), CASE WHEN pick(2) = 0 THEN 'NOT VALID' END);
      END IF;
    END LOOP;
  END IF;
END $$;

CREATE FUNCTION misplaced_at_random(seed float8, may_generate bool) RETURNS SETOF text
  LANGUAGE plpgsql AS $$
DECLARE
  command text;
BEGIN
  PERFORM setseed(seed);
  PERFORM make_table(may_generate);
  FOR i IN 1..60 LOOP
    command := format((ARRAY['INSERT INTO t (a, b, v) VALUES %s',
          'INSERT INTO t (a, b, v) VALUES %s, %s', 'INSERT INTO t (a, b, v) VALUES %s RETURNING *',
                             'INSERT INTO t (a, b, v) VALUES %s ON CONFLICT DO NOTHING'])[1
      + pick(4)],
                      format('(%L, %s, repeat(''x'', %s))', NULLIF(pick(30), 0)::text, pick(10),
                        pick(20)),
                      format('(%L, NULL, repeat(''x'', %s))', pick(30)::text, pick(20)));
    IF pick(10) = 0 THEN PERFORM set_config('shard_fdw.shard', pick(4)::text, true); END IF;
    BEGIN
      EXECUTE command;
    EXCEPTION WHEN check_violation OR object_not_in_prerequisite_state THEN
      NULL;
    END;
    PERFORM set_config('shard_fdw.shard', '-1', true);
  END LOOP;
  RETURN QUERY SELECT misplaced('t');
  DROP FOREIGN TABLE t CASCADE;
END $$;
SELECT random() AS seed \gset
SELECT is_empty(format('SELECT misplaced_at_random(%s, %L)', seed, :'may_generate'),
  'shards at random, seed ' || seed)
  FROM (SELECT (:seed::numeric + g * 0.001) % 1 AS seed FROM generate_series(1, 60) g) s;

SELECT * FROM finish();
ROLLBACK;
