-- The tables of test/t/clients.t.  Each client creates them, in a database of
-- its own, as a role that owns nothing else.
CREATE TABLE event_template (id bigint PRIMARY KEY, what text NOT NULL, at timestamptz NOT NULL);
CREATE FOREIGN TABLE event (
  id   bigint OPTIONS (sequence 'always') NOT NULL,
  what text NOT NULL,
  at   timestamptz NOT NULL DEFAULT now()
) SERVER shards OPTIONS (shards '4', template 'event_template');

CREATE TABLE price_template (product text PRIMARY KEY, price int NOT NULL CHECK (price > 0));
CREATE FOREIGN TABLE price (product text NOT NULL, price int NOT NULL)
  SERVER shards OPTIONS (shards '4', route 'hash', key 'product', template 'price_template');

-- The ids that the client has been told.
CREATE TABLE seen (id bigint PRIMARY KEY);
