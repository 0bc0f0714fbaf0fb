\echo Use "CREATE EXTENSION shard_fdw" to load this file. \quit

-- The schema is shard_fdw (see shard_fdw.control).  If it has been there
-- before, its owner could put functions in it that ours would call.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n
               JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
              WHERE n.nspname OPERATOR(pg_catalog.=) 'shard_fdw'
                AND r.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
                AND NOT r.rolsuper) THEN
    RAISE insufficient_privilege USING
      MESSAGE = 'schema "shard_fdw" belongs to a role that is not a superuser',
      HINT = 'Drop the schema, or change its owner after looking at what is in it.';
  END IF;
END $$;

GRANT USAGE ON SCHEMA shard_fdw TO PUBLIC;

CREATE FUNCTION shard_fdw.shard_fdw_handler()
RETURNS fdw_handler
AS 'MODULE_PATHNAME', 'shard_fdw_handler'
LANGUAGE C STRICT;
COMMENT ON FUNCTION shard_fdw.shard_fdw_handler()
IS 'callbacks of foreign-data wrapper shard_fdw';

CREATE FUNCTION shard_fdw.shard_fdw_validator(text[], oid)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_fdw_validator'
LANGUAGE C STRICT;
COMMENT ON FUNCTION shard_fdw.shard_fdw_validator(text[], oid)
IS 'checks the options of foreign-data wrapper shard_fdw';

CREATE FOREIGN DATA WRAPPER shard_fdw
  HANDLER shard_fdw.shard_fdw_handler
  VALIDATOR shard_fdw.shard_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER shard_fdw
IS 'one name for many tables: inserts are spread, queries see one table';

--
-- Creating shards
--

CREATE FUNCTION shard_fdw.create_shards(
  logical regclass, count int, template regclass DEFAULT NULL)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_create_shards'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.create_shards(regclass, int, regclass)
IS 'adds shards to a logical table, copied from the template or else from its last open shard';

CREATE FUNCTION shard_fdw.reshard(logical regclass, new_count int)
RETURNS bigint
AS 'MODULE_PATHNAME', 'shard_reshard'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.reshard(regclass, int)
IS 'moves the rows of a hash table to another number of shards; returns how many';

CREATE FUNCTION shard_fdw.alter_column_type(
  logical regclass, column_name name, new_type text, using_expr text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_alter_column_type'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.alter_column_type(regclass, name, text, text)
IS 'ALTER COLUMN ... TYPE ... USING for a logical table and its shards';

CREATE FUNCTION shard_fdw.ddl_end(command pg_ddl_command)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_ddl_end'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.ddl_end(pg_ddl_command)
IS 'does what a DDL command on a logical table leads to';

-- Runs after the DDL of everybody, so it looks at nothing but the system
-- catalogs, and calls C, which loads the library, for our tables only.  They
-- are foreign tables that are not known to be those of another wrapper (in a
-- transaction with an old snapshot, that of a new one cannot be seen), shards,
-- tables that a logical table inherits from, and triggers of logical tables.  The search path stays that
-- of the user, for the name of a template; so nothing here depends on it.
--
-- The planner cannot know how few tables inherit from the one that the command
-- is about.  In a database with a thousand shards it expects so much that the
-- query would be compiled each time, which takes longer than any DDL.
CREATE FUNCTION shard_fdw.on_ddl_end()
RETURNS event_trigger
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
  r record;
BEGIN
  FOR r IN
    SELECT c.command
      FROM pg_catalog.pg_event_trigger_ddl_commands() c
     WHERE c.object_type OPERATOR(pg_catalog.=) ANY ('{foreign table,foreign table column}')
       AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_foreign_table ft
               JOIN pg_catalog.pg_foreign_server fs ON fs.oid OPERATOR(pg_catalog.=) ft.ftserver
               JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid OPERATOR(pg_catalog.=) fs.srvfdw
              WHERE ft.ftrelid OPERATOR(pg_catalog.=) c.objid
                AND fdw.fdwhandler OPERATOR(pg_catalog.<>) 'shard_fdw.shard_fdw_handler'::pg_catalog.regproc)
        OR c.object_type OPERATOR(pg_catalog.=) ANY ('{table,table column,foreign table,foreign table column}')
       AND EXISTS (
             WITH RECURSIVE below AS (
               SELECT c.objid AS relid
                UNION
               SELECT i.inhrelid
                 FROM below b
                 JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) b.relid),
             candidates AS (
               SELECT b.relid FROM below b
                UNION ALL
               SELECT i.inhparent FROM pg_catalog.pg_inherits i
                WHERE i.inhrelid OPERATOR(pg_catalog.=) c.objid)
             SELECT FROM candidates l
               JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid OPERATOR(pg_catalog.=) l.relid
               JOIN pg_catalog.pg_foreign_server fs ON fs.oid OPERATOR(pg_catalog.=) ft.ftserver
               JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid OPERATOR(pg_catalog.=) fs.srvfdw
              WHERE fdw.fdwhandler OPERATOR(pg_catalog.=) 'shard_fdw.shard_fdw_handler'::pg_catalog.regproc)
        OR c.object_type OPERATOR(pg_catalog.=) 'trigger'
       AND EXISTS (
             SELECT FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid OPERATOR(pg_catalog.=) t.tgrelid
               JOIN pg_catalog.pg_foreign_server fs ON fs.oid OPERATOR(pg_catalog.=) ft.ftserver
               JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid OPERATOR(pg_catalog.=) fs.srvfdw
              WHERE t.oid OPERATOR(pg_catalog.=) c.objid
                AND fdw.fdwhandler OPERATOR(pg_catalog.=) 'shard_fdw.shard_fdw_handler'::pg_catalog.regproc)
  LOOP
    PERFORM shard_fdw.ddl_end(r.command);
  END LOOP;
END $$;
COMMENT ON FUNCTION shard_fdw.on_ddl_end()
IS 'finds the DDL commands on logical tables and has ddl_end() see to them';

CREATE EVENT TRIGGER shard_fdw_on_ddl_end ON ddl_command_end
  WHEN TAG IN ('CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE TABLE',
               'ALTER TABLE', 'CREATE TRIGGER')
  EXECUTE FUNCTION shard_fdw.on_ddl_end();
-- Also in sessions that replay changes: a table asked for with shards is of
-- no use without them.
ALTER EVENT TRIGGER shard_fdw_on_ddl_end ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER shard_fdw_on_ddl_end
IS 'creates the shards that CREATE FOREIGN TABLE asks for';

--
-- Getting away
--

CREATE FUNCTION shard_fdw.release(logical regclass)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_release'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.release(regclass)
IS 'makes ordinary tables of the shards of a logical table, which is dropped';

CREATE FUNCTION shard_fdw.guard_drop()
RETURNS void
AS 'MODULE_PATHNAME', 'shard_guard_drop'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.guard_drop()
IS 'has a command that begins not drop servers together with shards that have rows';

-- As on_ddl_end(), this is written for those who have nothing to do with us,
-- or have no library.  The setting is there if the library is loaded; then
-- the guard that was started last has to be ended.
CREATE FUNCTION shard_fdw.on_drop_start()
RETURNS event_trigger
LANGUAGE plpgsql SET jit = off AS $$
BEGIN
  IF pg_catalog.current_setting('shard_fdw.shard', true) IS NOT NULL
     OR EXISTS (
       SELECT FROM pg_catalog.pg_foreign_table ft
         JOIN pg_catalog.pg_foreign_server fs ON fs.oid OPERATOR(pg_catalog.=) ft.ftserver
         JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid OPERATOR(pg_catalog.=) fs.srvfdw
        WHERE fdw.fdwhandler OPERATOR(pg_catalog.=) 'shard_fdw.shard_fdw_handler'::pg_catalog.regproc) THEN
    BEGIN
      PERFORM shard_fdw.guard_drop();
    EXCEPTION WHEN OTHERS THEN
      -- The library cannot be loaded, so this is the only way to be rid of it.
      NULL;
    END;
  END IF;
END $$;
COMMENT ON FUNCTION shard_fdw.on_drop_start()
IS 'has guard_drop() look after commands that might drop servers';

CREATE EVENT TRIGGER shard_fdw_on_drop_start ON ddl_command_start
  WHEN TAG IN ('DROP EXTENSION', 'DROP SERVER', 'DROP FOREIGN DATA WRAPPER',
               'DROP SCHEMA', 'DROP OWNED')
  EXECUTE FUNCTION shard_fdw.on_drop_start();
ALTER EVENT TRIGGER shard_fdw_on_drop_start ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER shard_fdw_on_drop_start
IS 'keeps DROP EXTENSION and DROP SERVER from taking rows with them';

--
-- The hash route
--

CREATE FUNCTION shard_fdw.in_hash(
  modulus int, remainder int, VARIADIC key "any")
RETURNS bool
AS 'MODULE_PATHNAME', 'shard_in_hash'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION shard_fdw.in_hash(int, int, "any")
IS 'in a CHECK constraint: says which hashes of its key a shard holds';

--
-- Shards on other servers
--

CREATE FUNCTION shard_fdw.check_row(row_of_shard record)
RETURNS bool
AS 'MODULE_PATHNAME', 'shard_check_row_of'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION shard_fdw.check_row(record)
IS 'checks a row of a foreign table against its constraints; plans call it';

--
-- Ids
--

CREATE FUNCTION shard_fdw.in_slot(stride int, slot int, id bigint)
RETURNS bool
AS 'MODULE_PATHNAME', 'shard_in_slot'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION shard_fdw.in_slot(int, int, bigint)
IS 'in a CHECK constraint: says which ids of its sequence a shard holds';

CREATE FUNCTION shard_fdw.reset_sequences(
  tbl regclass, OUT sequence regclass, OUT next_value bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_reset_sequences'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.reset_sequences(regclass)
IS 'moves the sequences of a table or of its shards past the values that are there; gives one to shards that have none';

CREATE FUNCTION shard_fdw.own_sequences(tbl regclass)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_own_sequences'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.own_sequences(regclass)
IS 'makes the sequences that defaults of a table draw from belong to its columns';

-- For the views: these wait for nobody, run nobody's code, and return null
-- for what cannot be known that way or must not be seen by the caller.
CREATE FUNCTION shard_fdw.column_maximum(tbl regclass, column_name name)
RETURNS bigint
AS 'MODULE_PATHNAME', 'shard_column_maximum'
LANGUAGE C VOLATILE STRICT COST 100;
COMMENT ON FUNCTION shard_fdw.column_maximum(regclass, name)
IS 'the greatest value of an integer column, by an index or from a small table; null where it may not be read';

CREATE FUNCTION shard_fdw.sequence_position(
  sequence regclass, OUT last_value bigint, OUT next_value bigint)
RETURNS record
AS 'MODULE_PATHNAME', 'shard_sequence_position'
LANGUAGE C VOLATILE STRICT COST 20;
COMMENT ON FUNCTION shard_fdw.sequence_position(regclass)
IS 'what a sequence has given last and gives next; null where it may not be read';

CREATE VIEW shard_fdw.sequences AS
SELECT q.sequence, q.tbl, q.column_name, q.is_owned, q.last_value,
       q.increment_by, q.cache_size, q.maximum,
       CASE WHEN q.increment_by > 0 THEN q.next_value <= q.maximum
        END AS collides
  FROM (SELECT s.seqrelid::regclass AS sequence,
               a.attrelid::regclass AS tbl,
               a.attname AS column_name,
               own.objid IS NOT NULL AS is_owned,
               p.last_value,
               p.next_value,
               s.seqincrement AS increment_by,
               s.seqcache AS cache_size,
               -- A slot that no shard has now has no ids to compare with.
               CASE WHEN d.oid IS NOT NULL OR a.attfdwoptions IS NULL
                    THEN shard_fdw.column_maximum(a.attrelid, a.attname)
                END AS maximum
          FROM pg_catalog.pg_sequence s
         CROSS JOIN LATERAL shard_fdw.sequence_position(s.seqrelid) p
          LEFT JOIN pg_catalog.pg_depend own
                 ON own.classid = 'pg_catalog.pg_class'::regclass
                AND own.objid = s.seqrelid
                AND own.refclassid = 'pg_catalog.pg_class'::regclass
                AND own.refobjsubid > 0
                AND own.deptype IN ('a', 'i')
          LEFT JOIN (pg_catalog.pg_depend used
                     JOIN pg_catalog.pg_attrdef d ON d.oid = used.objid)
                 ON used.classid = 'pg_catalog.pg_attrdef'::regclass
                AND used.refclassid = 'pg_catalog.pg_class'::regclass
                AND used.refobjid = s.seqrelid
          LEFT JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = COALESCE(d.adrelid, own.refobjid)
                AND a.attnum = COALESCE(d.adnum, own.refobjsubid)
         WHERE NOT pg_catalog.pg_is_other_temp_schema(
                     (SELECT c.relnamespace FROM pg_catalog.pg_class c
                       WHERE c.oid = s.seqrelid))) q;
COMMENT ON VIEW shard_fdw.sequences
IS 'all sequences, the columns they serve, and whether the next value is behind the values there';
GRANT SELECT ON shard_fdw.sequences TO PUBLIC;

CREATE FUNCTION shard_fdw.check_order(
  logical regclass, OUT shard regclass, OUT id bigint,
  OUT committed timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_check_order'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.check_order(regclass)
IS 'rows of a table with commit order that were committed before a row of their shard with a smaller id';

--
-- Looking at shards
--

CREATE FUNCTION shard_fdw.list_shards(
  logical regclass, missing_ok bool DEFAULT false,
  OUT shard regclass, OUT ordinal int, OUT state text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_list_shards'
LANGUAGE C STABLE STRICT COST 100 ROWS 16;
COMMENT ON FUNCTION shard_fdw.list_shards(regclass, bool)
IS 'the shards of a logical table in ordinal order, and whether they take inserts';

CREATE FUNCTION shard_fdw.last_shard()
RETURNS regclass
AS 'MODULE_PATHNAME', 'shard_last_shard'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.last_shard()
IS 'the shard that this session''s last row went to';

CREATE FUNCTION shard_fdw.cursor_reads(cursor refcursor, shard regclass)
RETURNS bool
AS 'MODULE_PATHNAME', 'shard_cursor_reads'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION shard_fdw.cursor_reads(refcursor, regclass)
IS 'may the current row of a cursor be one of the shard? asked by plans of WHERE CURRENT OF';

-- The numbers are SHARD_LEASE_LOCK_KIND and SHARD_LANE_LOCK_KIND in
-- table.h.  A prepared transaction that has a lane has no pid.
CREATE VIEW shard_fdw.leases AS
SELECT i.inhparent::regclass AS logical,
       c.oid::regclass AS shard,
       l.pid,
       pg_catalog.min(l.objid::bigint) FILTER (WHERE l.objsubid = 28784) AS level,
       pg_catalog.bool_or(l.objsubid = 28785) AS lane
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid = l.classid
  JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
  JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = i.inhparent
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 WHERE l.locktype = 'advisory'
   AND l.objsubid IN (28784, 28785)
   AND l.granted
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                      WHERE d.datname = pg_catalog.current_database())
   AND fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc
 GROUP BY i.inhparent, c.oid, l.pid;
COMMENT ON VIEW shard_fdw.leases
IS 'which session inserts into which shard, and whose transaction has its lane';

-- The options are those of pg_foreign_table.
CREATE FUNCTION shard_fdw.range_of(
  logical regclass, options text[], shard regclass,
  OUT range_start text, OUT range_end text)
RETURNS record
AS 'MODULE_PATHNAME', 'shard_range_of'
LANGUAGE C STABLE STRICT COST 100;
COMMENT ON FUNCTION shard_fdw.range_of(regclass, text[], regclass)
IS 'from when to when the rows of a closed shard are, if it has a range';

CREATE FUNCTION shard_fdw.table_bytes(tbl regclass)
RETURNS bigint
AS 'MODULE_PATHNAME', 'shard_table_bytes'
LANGUAGE C STABLE STRICT COST 20;
COMMENT ON FUNCTION shard_fdw.table_bytes(regclass)
IS 'what a table takes with its indexes, as pg_total_relation_size() says, but without a lock';

CREATE VIEW shard_fdw.shards AS
SELECT ft.ftrelid::regclass AS logical,
       s.shard,
       s.ordinal,
       s.state,
       CASE WHEN c.relkind = 'f' THEN 'foreign table'
            WHEN c.relpersistence = 'u' THEN 'unlogged table'
            WHEN c.relpersistence = 't' THEN 'temporary table'
            ELSE 'table'
        END AS kind,
       remote.srvname AS server,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint
        END AS estimated_rows,
       CASE WHEN c.relkind <> 'f'
            THEN shard_fdw.table_bytes(s.shard)
        END AS bytes,
       COALESCE(l.sessions, 0) AS sessions,
       r.range_start,
       r.range_end,
       CASE WHEN c.relkind <> 'f'
            THEN pg_catalog.pg_stat_get_dead_tuples(s.shard)
        END AS dead_rows,
       GREATEST(pg_catalog.pg_stat_get_last_vacuum_time(s.shard),
                pg_catalog.pg_stat_get_last_autovacuum_time(s.shard)) AS last_vacuum
  FROM pg_catalog.pg_foreign_table ft
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 CROSS JOIN LATERAL shard_fdw.list_shards(ft.ftrelid, true) s
  JOIN pg_catalog.pg_class c ON c.oid = s.shard
  LEFT JOIN pg_catalog.pg_foreign_table rt ON rt.ftrelid = s.shard
  LEFT JOIN pg_catalog.pg_foreign_server remote ON remote.oid = rt.ftserver
  LEFT JOIN (SELECT shard, pg_catalog.count(level) AS sessions
               FROM shard_fdw.leases
              GROUP BY shard) l ON l.shard = s.shard
 CROSS JOIN LATERAL shard_fdw.range_of(ft.ftrelid, COALESCE(ft.ftoptions, '{}'), s.shard) r
 WHERE fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc
 ORDER BY ft.ftrelid, s.ordinal;
COMMENT ON VIEW shard_fdw.shards
IS 'all shards of all logical tables';

GRANT SELECT ON shard_fdw.leases, shard_fdw.shards TO PUBLIC;

--
-- The life of a shard
--

-- A shard that is in it gets no rows by any route.  Backends read it as they
-- read catalogs, so rows are inserted and deleted, and never updated.
CREATE TABLE shard_fdw.closed_shards (
  shard regclass PRIMARY KEY,
  closed timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE shard_fdw.closed_shards
IS 'shards that are closed, and since when; written by close_shard() and open_shard()';
SELECT pg_catalog.pg_extension_config_dump('shard_fdw.closed_shards',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = shard)');
GRANT SELECT ON shard_fdw.closed_shards TO pg_database_owner;

CREATE FUNCTION shard_fdw.close_shard(shard regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_close_shard'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.close_shard(regclass)
IS 'has rows of the logical table go to other shards, without waiting for anybody';

CREATE FUNCTION shard_fdw.open_shard(shard regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_open_shard'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.open_shard(regclass)
IS 'lets a closed shard get rows again';

CREATE PROCEDURE shard_fdw.add_range(shard regclass)
AS 'MODULE_PATHNAME', 'shard_add_range'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.add_range(regclass)
IS 'notes from when to when the rows of a closed shard are, in a CHECK constraint';

CREATE FUNCTION shard_fdw.rotate(logical regclass, count int DEFAULT NULL)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_rotate_sql'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.rotate(regclass, int)
IS 'creates as many shards as are open, or as given, and closes those that were';

CREATE FUNCTION shard_fdw.retain(
  logical regclass, older_than timestamptz DEFAULT NULL,
  keep_tables bool DEFAULT false)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'shard_retain_sql'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.retain(regclass, timestamptz, bool)
IS 'drops the closed shards all of whose rows are older than a time, or than option "retain_for" says';

--
-- Maintenance
--

-- Backends read these two as they read closed_shards.
CREATE TABLE shard_fdw.generations (
  logical regclass PRIMARY KEY,
  began timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE shard_fdw.generations
IS 'since when the open shards of a table are; written by rotate() and maintain()';
SELECT pg_catalog.pg_extension_config_dump('shard_fdw.generations',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = logical)');
GRANT SELECT ON shard_fdw.generations TO pg_database_owner;

-- This one is in no dump: who restores a table has to confirm that its old
-- rows are to go.
CREATE TABLE shard_fdw.maintenance_runs (
  logical regclass PRIMARY KEY,
  is_confirmed bool NOT NULL DEFAULT false,
  last_run timestamptz,
  failures int NOT NULL DEFAULT 0,
  last_error text
);
COMMENT ON TABLE shard_fdw.maintenance_runs
IS 'how the last maintenance of a table went; written by maintain() and confirm_retention()';

CREATE PROCEDURE shard_fdw.maintain(logical regclass DEFAULT NULL)
AS 'MODULE_PATHNAME', 'shard_maintain'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.maintain(regclass)
IS 'does what is due about a table, or about all that one owns: new generations, ranges, dropping old shards';

CREATE FUNCTION shard_fdw.confirm_retention(logical regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_confirm_retention'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.confirm_retention(regclass)
IS 'lets maintain() drop old shards of a table that comes from a dump';

CREATE FUNCTION shard_fdw.maintenance_state(
  logical regclass, options text[],
  OUT mode text, OUT rotate_every interval, OUT retain_for interval,
  OUT open int, OUT closed int, OUT sealed int,
  OUT began timestamptz, OUT next_rotation timestamptz, OUT due text)
RETURNS record
AS 'MODULE_PATHNAME', 'shard_maintenance_state'
LANGUAGE C VOLATILE STRICT COST 1000;
COMMENT ON FUNCTION shard_fdw.maintenance_state(regclass, text[])
IS 'the generations of a table and what is due; for view maintenance';

CREATE VIEW shard_fdw.maintenance WITH (security_barrier) AS
SELECT ft.ftrelid::regclass AS logical,
       s.mode,
       s.rotate_every,
       s.retain_for,
       (s.open > 0)::int
         + (SELECT pg_catalog.count(DISTINCT k.closed)::int
              FROM shard_fdw.list_shards(ft.ftrelid, true) l
              JOIN shard_fdw.closed_shards k ON k.shard = l.shard) AS generations,
       s.open,
       s.closed,
       s.sealed,
       s.began,
       s.next_rotation,
       s.due,
       COALESCE(r.is_confirmed, false) AS is_confirmed,
       r.last_run,
       -- It may tell about others' rows.
       CASE WHEN pg_catalog.pg_has_role(c.relowner, 'USAGE')
              OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
            THEN r.last_error
        END AS last_error
  FROM pg_catalog.pg_foreign_table ft
  JOIN pg_catalog.pg_class c ON c.oid = ft.ftrelid
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 CROSS JOIN LATERAL shard_fdw.maintenance_state(ft.ftrelid, ft.ftoptions) s
  LEFT JOIN shard_fdw.maintenance_runs r ON r.logical = ft.ftrelid
 WHERE fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc
   AND s.mode IS NOT NULL
 ORDER BY ft.ftrelid;
COMMENT ON VIEW shard_fdw.maintenance
IS 'the generations of tables with a time column, what is due, and how the last maintenance went';
GRANT SELECT ON shard_fdw.maintenance TO PUBLIC;

--
-- Consumers
--

CREATE TABLE shard_fdw.consumer_registry (
  logical regclass NOT NULL,
  consumer text NOT NULL,
  order_by name NOT NULL,
  windows boolean NOT NULL,
  role text NOT NULL,
  PRIMARY KEY (logical, consumer)
);
COMMENT ON TABLE shard_fdw.consumer_registry
IS 'who reads which tables bit by bit; written by register_consumer() and drop_consumer()';

-- No foreign key: a parallel restore may fill this table first.
CREATE TABLE shard_fdw.consumer_lanes (
  logical regclass NOT NULL,
  consumer text NOT NULL,
  shard regclass NOT NULL,
  watermark bigint,
  window_end timestamptz,
  last_read timestamptz,
  PRIMARY KEY (logical, consumer, shard)
);
COMMENT ON TABLE shard_fdw.consumer_lanes
IS 'the last id of each shard that a consumer has read; written by read_batch() and read_window()';

CREATE TABLE shard_fdw.consumer_windows (
  logical regclass NOT NULL,
  consumer text NOT NULL,
  shard regclass NOT NULL,
  window_start timestamptz,
  window_end timestamptz NOT NULL,
  rows bigint NOT NULL,
  late_rows bigint NOT NULL,
  consumed timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (logical, consumer, shard, window_end)
);
COMMENT ON TABLE shard_fdw.consumer_windows
IS 'the windows of each shard that a consumer has read; written by read_window()';

-- What is left of tables that have been dropped is not to be in a dump.
SELECT pg_catalog.pg_extension_config_dump('shard_fdw.consumer_registry',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = logical)');
SELECT pg_catalog.pg_extension_config_dump('shard_fdw.consumer_lanes',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = logical)
     AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = shard)');
SELECT pg_catalog.pg_extension_config_dump('shard_fdw.consumer_windows',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = logical)
     AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = shard)');
-- Who owns the database can dump it.
GRANT SELECT ON shard_fdw.consumer_registry, shard_fdw.consumer_lanes,
    shard_fdw.consumer_windows
  TO pg_database_owner;

CREATE FUNCTION shard_fdw.register_consumer(
  logical regclass, consumer text, order_by name)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_register_consumer'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.register_consumer(regclass, text, name)
IS 'makes the current role a consumer of a table with commit order, from its first row on';

CREATE FUNCTION shard_fdw.drop_consumer(logical regclass, consumer text)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_drop_consumer'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.drop_consumer(regclass, text)
IS 'forgets a consumer and how far it has read';

CREATE FUNCTION shard_fdw.read_batch(
  tbl anyelement, consumer text, max_rows int DEFAULT 1000,
  up_to bigint DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'shard_read_batch'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.read_batch(anyelement, text, int, bigint)
IS 'the next rows of one shard for a consumer, exactly once if the transaction commits';

CREATE FUNCTION shard_fdw.read_window(
  tbl anyelement, consumer text, up_to timestamptz)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'shard_read_window'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.read_window(anyelement, text, timestamptz)
IS 'the rows of one shard from before a time that a consumer has not read, exactly once if the transaction commits';

CREATE FUNCTION shard_fdw.dequeue(
  tbl anyelement, max_rows int DEFAULT 1000, order_by name DEFAULT NULL,
  shard regclass DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'shard_dequeue'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.dequeue(anyelement, int, name, regclass)
IS 'deletes rows of one shard that nobody has locked, and returns them';

CREATE FUNCTION shard_fdw.rows_behind(
  logical regclass, shard regclass, watermark bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'shard_rows_behind'
LANGUAGE C VOLATILE COST 100;
COMMENT ON FUNCTION shard_fdw.rows_behind(regclass, regclass, bigint)
IS 'about how many rows of a shard have ids beyond a watermark; for view consumers';

-- The table may have been dropped, and another may have its OID.
CREATE VIEW shard_fdw.consumers WITH (security_barrier) AS
SELECT r.logical, r.consumer, r.role, s.shard, k.watermark, k.window_end,
       k.last_read,
       CASE WHEN NOT r.windows
            THEN shard_fdw.rows_behind(r.logical, s.shard, k.watermark)
        END AS rows_behind
  FROM shard_fdw.consumer_registry r
 CROSS JOIN LATERAL shard_fdw.list_shards(r.logical, true) s
  LEFT JOIN shard_fdw.consumer_lanes k
         ON k.logical = r.logical AND k.consumer = r.consumer AND k.shard = s.shard
        -- Ids tell about rows.
        AND (pg_catalog.has_table_privilege(r.logical, 'SELECT')
             OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'));
COMMENT ON VIEW shard_fdw.consumers
IS 'how far each consumer has read each shard, and about how many rows it is behind';
GRANT SELECT ON shard_fdw.consumers TO PUBLIC;

-- Deleting through it is how a consumer's role gets rid of old ones.
CREATE VIEW shard_fdw.windows WITH (security_barrier) AS
SELECT w.logical, w.consumer, w.shard, w.window_start, w.window_end, w.rows,
       w.late_rows, w.consumed
  FROM shard_fdw.consumer_windows w
 WHERE EXISTS (SELECT FROM shard_fdw.consumer_registry r
                 JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = r.logical
                WHERE r.logical = w.logical AND r.consumer = w.consumer
                  AND pg_catalog.pg_has_role(pg_catalog.to_regrole(r.role), 'USAGE'))
   AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = w.shard);
COMMENT ON VIEW shard_fdw.windows
IS 'the windows that consumers of the current role have read; old ones may be deleted';
GRANT SELECT, DELETE ON shard_fdw.windows TO PUBLIC;

--
-- Working on shards
--

CREATE FUNCTION shard_fdw.seal(shard regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_seal'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.seal(regclass)
IS 'stops inserts and updates of a shard; its rows stay readable and deletable';

CREATE FUNCTION shard_fdw.unseal(shard regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_unseal'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.unseal(regclass)
IS 'lets a sealed shard take inserts again, also after it has been detached';

CREATE FUNCTION shard_fdw.run_command_on_shards(
  logical regclass, command text, on_error text DEFAULT 'stop',
  OUT shard regclass, OUT success bool, OUT result text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_run_command_on_shards'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.run_command_on_shards(regclass, text, text)
IS 'runs a command on every shard; %s in it is the shard''s name';

CREATE FUNCTION shard_fdw.format_on_shards(logical regclass, command text)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'shard_format_on_shards'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION shard_fdw.format_on_shards(regclass, text)
IS 'the command for every shard as text, for psql''s \gexec; %s in it is the shard''s name';
