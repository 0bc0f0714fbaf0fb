-- A short look at each part of what is installed: "make installcheck".
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE EXTENSION shard_fdw;
CREATE SERVER shards FOREIGN DATA WRAPPER shard_fdw;

-- Route session: the rows of a session are in one shard.
CREATE TABLE log_template (id bigint PRIMARY KEY, client int, at timestamptz NOT NULL);
CREATE FOREIGN TABLE log (
  id bigint OPTIONS (sequence 'always') NOT NULL, client int, at timestamptz NOT NULL DEFAULT now())
  SERVER shards OPTIONS (shards '4', template 'log_template',
                         time_column 'at', rotate_every '1 day', retain_for '30 days',
                         maintenance 'manual');
INSERT INTO log (client) SELECT g % 3 FROM generate_series(1, 100) g;
COPY log (client) FROM stdin;
7
7
\.
INSERT INTO log (client) VALUES (8) RETURNING client, tableoid::regclass;
SELECT count(*), count(DISTINCT id), count(DISTINCT tableoid) FROM log;
SELECT count(*) FROM log WHERE tableoid = shard_fdw.last_shard()::oid;
UPDATE log SET client = 9 WHERE client = 7;
DELETE FROM log WHERE client < 2;
SELECT client, count(*) FROM log GROUP BY client ORDER BY client;
SELECT logical, count(*), sum(sessions) FROM shard_fdw.shards GROUP BY logical;

-- A shard that is closed and one that is sealed take no new rows.
SELECT shard_fdw.close_shard('log_0');
SELECT shard_fdw.seal('log_1');
SELECT * FROM shard_fdw.list_shards('log');
INSERT INTO log_1 VALUES (1, 1, now());

-- A new generation, and an old one that is due.
SELECT shard_fdw.rotate('log', 2);
SELECT * FROM shard_fdw.list_shards('log');
DO $$ BEGIN PERFORM shard_fdw.retain('log', now() + interval '1 hour'); END $$;
SELECT * FROM shard_fdw.list_shards('log');

-- Route round_robin: shards take turns.
CREATE FOREIGN TABLE turns (n int) SERVER shards OPTIONS (shards '3', route 'round_robin');
INSERT INTO turns SELECT generate_series(1, 30);
SELECT tableoid::regclass, count(*) FROM turns GROUP BY tableoid ORDER BY tableoid::regclass::text;
SELECT shard_fdw.create_shards('turns', 1);
SELECT * FROM shard_fdw.run_command_on_shards('turns', 'CREATE INDEX ON %s (n)');

-- Route hash: a key is in one shard, and is there once.
CREATE TABLE orders_template (id bigint PRIMARY KEY, total numeric);
CREATE FOREIGN TABLE orders (id bigint, total numeric)
  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'orders_template');
INSERT INTO orders SELECT g, g FROM generate_series(1, 1000) g;
INSERT INTO orders VALUES (42, 1), (1001, 1)
  ON CONFLICT (id) DO UPDATE SET total = orders.total + excluded.total RETURNING *;
INSERT INTO orders VALUES (42, 1);
EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE id = 42;
SELECT shard_fdw.reshard('orders', 6);
SELECT count(*), sum(total), count(DISTINCT tableoid) FROM orders;

-- Commit order, and a consumer that reads each row once.
CREATE FOREIGN TABLE events (id bigint OPTIONS (sequence 'always'), what text)
  SERVER shards OPTIONS (shards '2', commit_order 'true');
SELECT shard_fdw.register_consumer('events', 'reader', 'id');
INSERT INTO events (what) VALUES ('a'), ('b'), ('c');
SELECT what FROM shard_fdw.read_batch(NULL::events, 'reader', 2);
SELECT what FROM shard_fdw.read_batch(NULL::events, 'reader', 2);
SELECT what FROM shard_fdw.read_batch(NULL::events, 'reader', 2);
SELECT consumer, sum(rows_behind) FROM shard_fdw.consumers GROUP BY consumer;
SELECT what FROM shard_fdw.dequeue(NULL::events, 1, 'id');

-- Rows are not lost with the extension, and the shards can be kept without it.
DROP EXTENSION shard_fdw CASCADE;
SELECT shard FROM shard_fdw.release('orders') shard ORDER BY shard::text;
SET shard_fdw.allow_drop_with_rows = on;
DROP EXTENSION shard_fdw CASCADE;
SELECT count(*) > 0 FROM orders_0;
