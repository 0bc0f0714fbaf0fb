-- Warnings about what can be said but does not do what is meant.  They are seen
-- from outside; see advice.psql for what leads to them.
BEGIN;
SELECT no_plan();
\set told `psql -XqAt -d :'DBNAME' < test/sql/advice.psql 2>&1`
SELECT set_config('test.told', :'told', true) IS NOT NULL AS said \gset
SELECT results_eq($$ SELECT * FROM regexp_split_to_table(current_setting('test.told'), E'\n') $$,
  $$ VALUES
  ('key:'),
  ('WARNING:  option "key" of foreign table "keyless" has no effect'),
  ('WARNING:  option "key" of foreign table "keyless" has no effect'),
  ('WARNING:  option "key" of foreign table "keyless_too" has no effect'),
  ('trigger:'),
  ('WARNING:  trigger "t" of foreign table "hashed" will never fire for UPDATE'),
  ('WARNING:  trigger "t" of foreign table "hashed" will never fire for DELETE'),
  ('WARNING:  trigger "t_all" of foreign table "hashed" will never fire for UPDATE or DELETE'),
  ('place:'),
  ('WARNING:  shard "x" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  It has no CHECK constraint that calls shard_fdw.in_hash() on the key. Until this is '
   'mended, queries read all shards, and INSERT ... ON CONFLICT is refused.'),
  ('HINT:  Use ALTER TABLE public.x ADD CHECK (shard_fdw.in_hash(modulus, remainder, k)).'),
  ('WARNING:  shard "x" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  Its CHECK constraint allows hashes that other shards hold, or its modulus does not '
   'fit theirs. Until this is mended, queries read all shards, and INSERT ... ON CONFLICT is '
   'refused.'),
  ('HINT:  Use ALTER TABLE public.x NO INHERIT public.hashed.'),
  ('WARNING:  shard "x" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  Its CHECK constraint allows hashes that other shards hold, or its modulus does not '
   'fit theirs. Until this is mended, queries read all shards, and INSERT ... ON CONFLICT is '
   'refused.'),
  ('HINT:  Use ALTER TABLE public.x NO INHERIT public.hashed.'),
  ('WARNING:  shard "x" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  It has no CHECK constraint that calls shard_fdw.in_hash() on the key. Until this is '
   'mended, queries read all shards, and INSERT ... ON CONFLICT is refused.'),
  ('HINT:  Use ALTER TABLE public.x ADD CHECK (shard_fdw.in_hash(modulus, remainder, k)).'),
  ('WARNING:  shard "x" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  Its CHECK constraint that calls shard_fdw.in_hash() has not been validated. Until '
   'this is mended, queries read all shards, and INSERT ... ON CONFLICT is refused.'),
  ('HINT:  Use ALTER TABLE public.x VALIDATE CONSTRAINT.'),
  ('WARNING:  shard "x" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  Its CHECK constraint that calls shard_fdw.in_hash() has not been validated. Until '
   'this is mended, queries read all shards, and INSERT ... ON CONFLICT is refused.'),
  ('HINT:  Use ALTER TABLE public.x VALIDATE CONSTRAINT.'),
  ('WARNING:  shard "y" has no place of its own in the hash route of foreign table "hashed"'),
  ('DETAIL:  Its CHECK constraint allows hashes that other shards hold, or its modulus does not '
   'fit theirs. Until this is mended, queries read all shards, and INSERT ... ON CONFLICT is '
   'refused.'),
  ('HINT:  Use ALTER TABLE public.y NO INHERIT public.hashed.'),
  ('template:'),
  ('WARNING:  column "id" of foreign table "bare" has no default, unlike its template "model"'),
  ('WARNING:  column "i" of foreign table "bare" has no default, unlike its template "model"'),
  ('WARNING:  column "w" of foreign table "bare" has no default, unlike its template "model"'),
  ('1'),
  ('1'),
  ('WARNING:  column "w" of foreign table "bare" has no default, unlike its template "model"'),
  ('1'),
  ('work of our own:'),
  ('0'),
  ('ERROR:  relation "work_1" already exists'),
  ('work_1'),
  ('... and of the user, after an error:'),
  ('ERROR:  relation "work_2" already exists'),
  ('WARNING:  shard "last" has no place of its own in the hash route of foreign table "work"')
  $$, 'who makes a mistake is told, and nobody else');

SELECT * FROM finish();
ROLLBACK;
