-- First responses of a customer service: the tables and the state machine.
-- docs/example.md tells of it.

CREATE TYPE direction AS ENUM ('in', 'out');

-- What customers and agents write, and what each shard is to look like.
CREATE TABLE message_like (
  id        bigint PRIMARY KEY,
  customer  int NOT NULL,
  agent     int,
  direction direction NOT NULL,
  at        timestamptz NOT NULL
);
CREATE INDEX ON message_like (at);

CREATE FOREIGN TABLE message (
  id        bigint OPTIONS (sequence 'always'),
  customer  int NOT NULL,
  agent     int,
  direction direction NOT NULL,
  at        timestamptz NOT NULL DEFAULT clock_timestamp()
) SERVER shards
  OPTIONS (shards '64', route 'hash', key 'customer', commit_order 'true', template 'message_like');

-- A customer's first message opens a conversation, and the first reply of any
-- agent closes it; so there is at most one that is open.
CREATE TABLE response (
  customer  int NOT NULL,
  opened    timestamptz NOT NULL,
  agent     int,
  answered  timestamptz,
  EXCLUDE USING btree (customer WITH =) WHERE (answered IS NULL)
);

-- The state machine, for a batch of messages: all those of a customer since
-- the last batch, up to some point.  Returns how many there are, or NULL.
CREATE FUNCTION take(batch message[]) RETURNS int LANGUAGE sql AS $$
  WITH turn AS (
    -- A message counts if the one before was the other side's.
    SELECT * FROM (
      SELECT m.*, lag(m.direction, 1,
                      CASE WHEN r.customer IS NULL THEN 'out'::direction ELSE 'in' END)
                    OVER (PARTITION BY m.customer ORDER BY m.id) AS before
        FROM unnest(batch) m
        LEFT JOIN response r ON r.customer = m.customer AND r.answered IS NULL) m
     WHERE direction <> before
  ), pair AS (
    SELECT customer, direction, at, agent, lag(at) OVER w AS previous,
           lead(agent) OVER w AS next_agent, lead(at) OVER w AS next
      FROM turn WINDOW w AS (PARTITION BY customer ORDER BY id)
  ), closed AS (
    UPDATE response r SET agent = p.agent, answered = p.at
      FROM pair p
     WHERE p.direction = 'out' AND p.previous IS NULL
       AND r.customer = p.customer AND r.answered IS NULL
    RETURNING 1
  ), opened AS (
    -- The old one has to be closed before.
    INSERT INTO response
    SELECT customer, at, next_agent, next
      FROM pair
     WHERE direction = 'in' AND (SELECT count(*) FROM closed) >= 0
  )
  SELECT cardinality(batch)
$$;

-- The same answer by one query over all messages.
CREATE VIEW response_by_query AS
SELECT customer, at AS opened, agent, answered
  FROM (SELECT customer, direction, at, lead(agent) OVER w AS agent, lead(at) OVER w AS answered
          FROM (SELECT *, lag(direction, 1, 'out') OVER (PARTITION BY customer ORDER BY id) AS before
                  FROM message) m
         WHERE direction <> before
        WINDOW w AS (PARTITION BY customer ORDER BY id)) turn
 WHERE direction = 'in';

-- Consumers.  Each call works until there is nothing left for it; several may
-- be called at the same time.

-- Read batches, and remember how far.
CREATE PROCEDURE consume_batches(max_rows int) LANGUAGE plpgsql AS $$
DECLARE
  taken int;
BEGIN
  LOOP
    SELECT take(array_agg(m)) INTO taken
      FROM shard_fdw.read_batch(NULL::message, 'batches', max_rows) m;
    COMMIT;
    EXIT WHEN taken IS NULL;
  END LOOP;
END $$;

-- Read windows of time up to a moment.
CREATE PROCEDURE consume_windows(first timestamptz, width interval, last timestamptz) LANGUAGE plpgsql AS $$
DECLARE
  up_to timestamptz := least(first + width, last);
  taken int;
BEGIN
  LOOP
    SELECT take(array_agg(m)) INTO taken
      FROM shard_fdw.read_window(NULL::message, 'windows', up_to) m;
    COMMIT;
    IF taken IS NULL THEN
      EXIT WHEN up_to = last;
      up_to := least(up_to + width, last);
    END IF;
  END LOOP;
END $$;

-- Take the rows out.  Of "parts" consumers, each has its own shards, so that
-- nobody else is at the later messages of a customer.
CREATE PROCEDURE consume_queue(max_rows int, part int, parts int) LANGUAGE plpgsql AS $$
DECLARE
  mine  regclass;
  taken int;
BEGIN
  FOR mine IN SELECT shard FROM shard_fdw.list_shards('message') WHERE ordinal % parts = part LOOP
    LOOP
      SELECT take(array_agg(m)) INTO taken
        FROM shard_fdw.dequeue(NULL::message, max_rows, 'id', mine) m;
      COMMIT;
      EXIT WHEN taken IS NULL OR taken < max_rows;
    END LOOP;
  END LOOP;
END $$;
