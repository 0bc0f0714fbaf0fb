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
  logical regclass, count int, template regclass DEFAULT NULL,
  node text DEFAULT NULL)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_create_shards'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.create_shards(regclass, int, regclass, text)
IS 'adds shards to a logical table, copied from the template or else from its last open shard, here or on nodes';

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

CREATE PROCEDURE shard_fdw.drain(shard regclass, batch_size int DEFAULT 10000)
AS 'MODULE_PATHNAME', 'shard_drain'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.drain(regclass, int)
IS 'closes a shard and moves its rows to the open ones, about so many in a transaction';

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
        OR c.object_type OPERATOR(pg_catalog.=) ANY ('{table,table column,table constraint,foreign table,foreign table column}')
       AND EXISTS (
             WITH RECURSIVE below AS (
               SELECT CASE WHEN c.object_type OPERATOR(pg_catalog.=) 'table constraint'
                           THEN (SELECT x.conrelid FROM pg_catalog.pg_constraint x
                                  WHERE x.oid OPERATOR(pg_catalog.=) c.objid)
                           ELSE c.objid END AS relid
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

CREATE FUNCTION shard_fdw.release(logical regclass, kind text DEFAULT 'tables')
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_release'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.release(regclass, text)
IS 'makes ordinary tables of the shards of a logical table, which is dropped, or one table, or a partitioned one';

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
       CASE WHEN q.increment_by > 0
            -- Not with an id that the sequence of another slot has given.
            THEN CASE WHEN q.next_value <= q.maximum
                      THEN NOT EXISTS (
                             SELECT FROM pg_catalog.pg_depend o
                               JOIN pg_catalog.pg_sequence s ON s.seqrelid = o.objid
                              CROSS JOIN LATERAL shard_fdw.sequence_position(s.seqrelid) p
                              WHERE o.classid = 'pg_catalog.pg_class'::regclass
                                AND o.refclassid = 'pg_catalog.pg_class'::regclass
                                AND o.refobjid = q.owner
                                AND o.refobjsubid = q.owner_column
                                AND o.deptype = 'a'
                                AND o.objid <> q.sequence
                                AND q.increment_by > 1
                                AND s.seqincrement = q.increment_by
                                AND (q.maximum - s.seqstart) % q.increment_by = 0
                                AND p.next_value > q.maximum)
                      ELSE q.next_value <= q.maximum END
        END AS collides
  FROM (SELECT s.seqrelid::regclass AS sequence,
               a.attrelid::regclass AS tbl,
               a.attname AS column_name,
               own.objid IS NOT NULL AS is_owned,
               own.refobjid AS owner,
               own.refobjsubid AS owner_column,
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

CREATE FUNCTION shard_fdw.table_state(
  logical regclass, server_options text[], options text[],
  OUT route text, OUT key text, OUT time_column text,
  OUT open int, OUT closed int, OUT sealed int,
  OUT prunes_by text[], OUT on_conflict bool, OUT why_not text)
RETURNS record
AS 'MODULE_PATHNAME', 'shard_table_state'
LANGUAGE C VOLATILE COST 1000;
COMMENT ON FUNCTION shard_fdw.table_state(regclass, text[], text[])
IS 'the route of a table and what it can do; for view tables';

CREATE VIEW shard_fdw.tables AS
SELECT ft.ftrelid::regclass AS logical, s.*
  FROM pg_catalog.pg_foreign_table ft
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 CROSS JOIN LATERAL shard_fdw.table_state(ft.ftrelid, fs.srvoptions, ft.ftoptions) s
 WHERE fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc
 ORDER BY ft.ftrelid;
COMMENT ON VIEW shard_fdw.tables
IS 'all logical tables: route, key, numbers of shards, and what queries and ON CONFLICT can do by it';
GRANT SELECT ON shard_fdw.tables TO PUBLIC;

CREATE FUNCTION shard_fdw.list_progress(
  OUT pid int, OUT datid oid, OUT logical regclass, OUT command text, OUT phase text,
  OUT done bigint, OUT total bigint, OUT since timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_list_progress'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION shard_fdw.list_progress()
IS 'the commands of shard_fdw that are running; for view progress';

CREATE VIEW shard_fdw.progress AS
SELECT p.pid, d.datname, p.logical, p.command, p.phase, p.done, NULLIF(p.total, 0) AS total, p.since
  FROM shard_fdw.list_progress() p
  JOIN pg_catalog.pg_database d ON d.oid = p.datid;
COMMENT ON VIEW shard_fdw.progress
IS 'the commands of shard_fdw that are running, what they are doing, and how far they have come';
GRANT SELECT ON shard_fdw.progress TO PUBLIC;

--
-- Nodes
--

-- Whether a server can be reached is known by trying only: check_nodes() does.
CREATE VIEW shard_fdw.nodes AS
SELECT fs.srvname AS node,
       pg_catalog.count(DISTINCT m.logical)::int AS tables,
       pg_catalog.count(m.shard)::int AS shards,
       (pg_catalog.count(m.shard) FILTER (WHERE m.state = 'open'))::int AS open,
       pg_catalog.sum(m.estimated_rows)::bigint AS estimated_rows,
       pg_catalog.has_server_privilege(fs.oid, 'USAGE')
         AND EXISTS (SELECT FROM pg_catalog.pg_user_mappings u
                      WHERE u.srvid = fs.oid
                        AND (u.umuser = 0 OR u.usename = CURRENT_USER)) AS usable
  FROM pg_catalog.pg_foreign_server fs
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
  JOIN pg_catalog.pg_proc p ON p.oid = fdw.fdwhandler AND p.proname = 'postgres_fdw_handler'
  LEFT JOIN (SELECT rt.ftserver, ft.ftrelid AS logical, s.shard, s.state,
                    CASE WHEN c.reltuples >= 0 THEN c.reltuples END AS estimated_rows
               FROM pg_catalog.pg_foreign_table ft
               JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
               JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
              CROSS JOIN LATERAL shard_fdw.list_shards(ft.ftrelid, true) s
               JOIN pg_catalog.pg_class c ON c.oid = s.shard
               JOIN pg_catalog.pg_foreign_table rt ON rt.ftrelid = s.shard
              WHERE fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc) m ON m.ftserver = fs.oid
 GROUP BY fs.oid, fs.srvname
 ORDER BY fs.srvname;
COMMENT ON VIEW shard_fdw.nodes
IS 'the servers of postgres_fdw, and how many shards are there; asks none of them';
GRANT SELECT ON shard_fdw.nodes TO PUBLIC;

CREATE FUNCTION shard_fdw.check_nodes(
  logical regclass, OUT node name, OUT shard regclass, OUT problem text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_check_nodes'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.check_nodes(regclass)
IS 'asks the nodes of a table, and tells which do not answer and what their tables lack';

CREATE FUNCTION shard_fdw.sync_nodes(
  logical regclass, only_node name DEFAULT NULL,
  OUT node name, OUT shard regclass, OUT command text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_sync_nodes'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.sync_nodes(regclass, name)
IS 'makes the tables on nodes, or on one, like the shards of a table, and returns the commands that it took';

CREATE FUNCTION shard_fdw.run_command_on_nodes(
  logical regclass, command text, on_error text DEFAULT 'stop',
  OUT node name, OUT success bool, OUT result text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_run_command_on_nodes'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.run_command_on_nodes(regclass, text, text)
IS 'runs a command once on every server that has shards of a table, in a transaction that ends with this one';

-- What move_shard() asks a node while others write the table there.  Without a
-- column in it, a condition that is not volatile is evaluated before the first row is read.
CREATE FUNCTION shard_fdw.watch_rows(tbl regclass)
RETURNS boolean
AS 'MODULE_PATHNAME', 'shard_watch_rows'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION shard_fdw.watch_rows(regclass)
IS 'notes which rows of a table the calling query can see, for changed_rows(); returns true';

CREATE FUNCTION shard_fdw.changed_rows(tbl anyelement)
RETURNS TABLE (is_gone boolean, r anyelement)
AS 'MODULE_PATHNAME', 'shard_changed_rows'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.changed_rows(anyelement)
IS 'the rows of a table that are gone, and those that are new, since watch_rows() or the last call in the transaction';

-- postgres_fdw has one connection for each server and user.  Nothing is done that
-- the caller could not do alone, so it runs as the caller.  An error is raised
-- anew, so that its context has no command with a password.
CREATE FUNCTION shard_fdw.add_connections(node name, count int)
RETURNS SETOF name
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  server record;
  added name;
  r record;
BEGIN
  SELECT fs.oid, fs.srvoptions, fs.srvacl, fs.srvowner, fs.srvtype, fs.srvversion, fdw.fdwname
    INTO server
    FROM pg_foreign_server fs
    JOIN pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
    JOIN pg_proc p ON p.oid = fdw.fdwhandler AND p.proname = 'postgres_fdw_handler'
   WHERE fs.srvname = node;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = format('server "%s" of postgres_fdw does not exist', node);
  END IF;
  IF NOT pg_has_role(server.srvowner, 'USAGE') THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = format('must be owner of foreign server %s', node);
  END IF;
  IF count < 1 OR count > 64 THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'number of connections must be between 1 and 64';
  END IF;
  RETURN NEXT node;
  FOR i IN 2 .. count LOOP
    added := node || '_' || i;
    IF added::text <> node || '_' || i THEN
      RAISE EXCEPTION USING ERRCODE = 'name_too_long',
        MESSAGE = format('name of server "%s" is too long', node);
    END IF;
    RETURN NEXT added;
    -- It may be there from an earlier call.
    PERFORM FROM pg_foreign_server fs WHERE fs.srvname = added;
    CONTINUE WHEN FOUND;
    BEGIN
      EXECUTE format('CREATE SERVER %I%s%s FOREIGN DATA WRAPPER %I%s', added,
        ' TYPE ' || quote_literal(server.srvtype), ' VERSION ' || quote_literal(server.srvversion), server.fdwname,
        (SELECT format(' OPTIONS (%s)', string_agg(format('%I %L', option_name, option_value), ', '))
           FROM pg_options_to_table(server.srvoptions) HAVING count(*) > 0));
      FOR r IN SELECT grantee, is_grantable
                 FROM aclexplode(server.srvacl) a WHERE grantee <> server.srvowner LOOP
        EXECUTE format('GRANT USAGE ON FOREIGN SERVER %I TO %s%s', added,
          CASE WHEN r.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r.grantee)) END,
          CASE WHEN r.is_grantable THEN ' WITH GRANT OPTION' END);
      END LOOP;
      FOR r IN SELECT m.umuser, m.usename, m.umoptions,
                      m.umuser = 0 OR m.usename = CURRENT_USER
                        OR (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER) AS is_visible
                 FROM pg_user_mappings m WHERE m.srvid = server.oid LOOP
        IF r.is_visible THEN
          EXECUTE format('CREATE USER MAPPING FOR %s SERVER %I%s',
            CASE WHEN r.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(r.usename) END, added,
            (SELECT format(' OPTIONS (%s)', string_agg(format('%I %L', option_name, option_value), ', '))
               FROM pg_options_to_table(r.umoptions) HAVING count(*) > 0));
        ELSE
          RAISE WARNING USING
            MESSAGE = format('server "%s" has no user mapping for role "%s"', added, r.usename),
            DETAIL = format('Only that role can read the options of its user mapping for server "%s".', node),
            HINT = 'Have the role use CREATE USER MAPPING.';
        END IF;
      END LOOP;
    EXCEPTION WHEN OTHERS THEN
      RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
    END;
  END LOOP;
END $$;
COMMENT ON FUNCTION shard_fdw.add_connections(name, int)
IS 'creates servers that are copies of one, until there are that many, and returns them, for option "nodes"';

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

-- A shard that has come from another place, by the transaction that has put it
-- where it is; read in the same way, and in no dump.
CREATE TABLE shard_fdw.moved_shards (
  shard regclass PRIMARY KEY,
  -- Rows have been deleted where it is now before the move was committed.
  rows_gone boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE shard_fdw.moved_shards
IS 'shards that move_shard() has put where they are, so that older snapshots are not used to read them';

CREATE FUNCTION shard_fdw.close_shard(shard regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_close_shard'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.close_shard(regclass)
IS 'has rows of the logical table go to other shards, without waiting for anybody';

CREATE FUNCTION shard_fdw.close_node(node name)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_close_node'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.close_node(name)
IS 'closes one''s shards on a server, without asking it; returns those that were open';

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
  logical regclass, consumer text, order_by name, start text DEFAULT 'first')
RETURNS void
AS 'MODULE_PATHNAME', 'shard_register_consumer'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.register_consumer(regclass, text, name, text)
IS 'makes the current role a consumer of a table with commit order, from its first row on or from now on';

CREATE FUNCTION shard_fdw.seek_consumer(
  logical regclass, consumer text, start text, shard regclass DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_seek_consumer'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.seek_consumer(regclass, text, text, regclass)
IS 'has a consumer read from the first row on, or from now on';

CREATE FUNCTION shard_fdw.seek_consumer(
  logical regclass, consumer text, watermark bigint, shard regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_seek_consumer_id'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.seek_consumer(regclass, text, bigint, regclass)
IS 'has a consumer read a shard from after an id on';

CREATE FUNCTION shard_fdw.seek_consumer(
  logical regclass, consumer text, window_end timestamptz,
  shard regclass DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'shard_seek_consumer_time'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.seek_consumer(regclass, text, timestamptz, regclass)
IS 'has a consumer read the windows from a time on';

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

CREATE FUNCTION shard_fdw.claim(
  tbl anyelement, max_rows int DEFAULT 1000, retry_after interval DEFAULT '1 minute',
  max_attempts int DEFAULT NULL, dead_letters regclass DEFAULT NULL,
  order_by name DEFAULT NULL, shard regclass DEFAULT NULL,
  attempts_column name DEFAULT 'attempts', due_column name DEFAULT 'due')
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'shard_claim'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.claim(anyelement, int, interval, int, regclass, name, regclass, name, name)
IS 'returns rows of one shard that are due, which come again unless they are deleted, or go to the dead letters';

CREATE FUNCTION shard_fdw.rows_behind(
  logical regclass, shard regclass, watermark bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'shard_rows_behind'
LANGUAGE C VOLATILE COST 100;
COMMENT ON FUNCTION shard_fdw.rows_behind(regclass, regclass, bigint)
IS 'about how many rows of a shard have ids beyond a watermark; for view consumers';

CREATE FUNCTION shard_fdw.consumer_lag(
  logical regclass, consumer text DEFAULT NULL,
  OUT consumer_name text, OUT shard regclass, OUT unread_rows bigint,
  OUT oldest timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_consumer_lag'
LANGUAGE C VOLATILE COST 1000;
COMMENT ON FUNCTION shard_fdw.consumer_lag(regclass, text)
IS 'how many rows of each shard a consumer has not read, and the time of the oldest';

-- The table may have been dropped, and another may have its OID.
CREATE VIEW shard_fdw.consumers WITH (security_barrier) AS
SELECT r.logical, r.consumer, r.role, s.shard, k.watermark, k.window_end,
       k.last_read,
       shard_fdw.rows_behind(r.logical, s.shard, k.watermark) AS rows_behind
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
                 JOIN pg_catalog.pg_class t ON t.oid = r.logical
                WHERE r.logical = w.logical AND r.consumer = w.consumer
                  AND (pg_catalog.pg_has_role(pg_catalog.to_regrole(r.role), 'USAGE')
                       OR pg_catalog.pg_has_role(t.relowner, 'USAGE')))
   AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = w.shard);
COMMENT ON VIEW shard_fdw.windows
IS 'the windows that consumers of the current role, or of its tables, have read; old ones may be deleted';
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

CREATE FUNCTION shard_fdw.split_shard(shard regclass, parts int DEFAULT 2)
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_split_shard'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.split_shard(regclass, int)
IS 'replaces a shard of a hash table by several, whose rows are copied while others use them';

CREATE FUNCTION shard_fdw.merge_shards(VARIADIC shards regclass[])
RETURNS SETOF regclass
AS 'MODULE_PATHNAME', 'shard_merge_shards'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.merge_shards(regclass[])
IS 'replaces shards of a hash table by one, whose rows are copied while others use them';

CREATE PROCEDURE shard_fdw.reshard_online(logical regclass, new_count int)
AS 'MODULE_PATHNAME', 'shard_reshard_online'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.reshard_online(regclass, int)
IS 'gives a hash table another number of shards, a few at a time, while others use it';

CREATE FUNCTION shard_fdw.move_shard(
  shard regclass, node name, allow_reads bool DEFAULT false)
RETURNS regclass
AS 'MODULE_PATHNAME', 'shard_move_shard'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.move_shard(regclass, name, bool)
IS 'moves a shard to a server of postgres_fdw, or with "local" to this one';

CREATE FUNCTION shard_fdw.rebalance_plan(
  logical regclass, nodes text DEFAULT NULL,
  OUT shard regclass, OUT source name, OUT target name,
  OUT estimated_rows bigint, OUT bytes bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_rebalance_plan'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.rebalance_plan(regclass, text)
IS 'the moves that rebalance() would make so that all servers hold about as much of a table';

CREATE PROCEDURE shard_fdw.rebalance(
  logical regclass, nodes text DEFAULT NULL, allow_reads bool DEFAULT false)
AS 'MODULE_PATHNAME', 'shard_rebalance'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.rebalance(regclass, text, bool)
IS 'moves shards until all servers hold about as much of a table, a transaction for each';

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

-- A row for each shard that a run is for, until it is complete.
CREATE TABLE shard_fdw.command_runs (
  logical regclass NOT NULL,
  command text NOT NULL,
  shard regclass NOT NULL,
  started timestamptz NOT NULL DEFAULT pg_catalog.now(),
  finished timestamptz
);
COMMENT ON TABLE shard_fdw.command_runs
IS 'on which shards a command has been run, as long as there are others left; written by run_on_shards()';
SELECT pg_catalog.pg_extension_config_dump('shard_fdw.command_runs',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = logical)
     AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = shard)');
GRANT SELECT ON shard_fdw.command_runs TO pg_database_owner;

CREATE PROCEDURE shard_fdw.run_on_shards(
  logical regclass, command text, on_error text DEFAULT 'stop',
  restart bool DEFAULT false)
AS 'MODULE_PATHNAME', 'shard_run_on_shards'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.run_on_shards(regclass, text, text, bool)
IS 'runs a command on every shard, in a transaction of its own, and goes on where it has ended early';

CREATE PROCEDURE shard_fdw.create_index(logical regclass, definition text)
AS 'MODULE_PATHNAME', 'shard_create_index'
LANGUAGE C;
COMMENT ON PROCEDURE shard_fdw.create_index(regclass, text)
IS 'has every shard have such an index, created while others write';

--
-- Checking shards
--

CREATE FUNCTION shard_fdw.expression_of(expression pg_node_tree, tbl oid, n int)
RETURNS text
AS 'MODULE_PATHNAME', 'shard_expression_of'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION shard_fdw.expression_of(pg_node_tree, oid, int)
IS 'what pg_get_expr() says, but without a lock; for features_of()';

CREATE FUNCTION shard_fdw.check_kind(expression pg_node_tree, constraint_name name)
RETURNS text
AS 'MODULE_PATHNAME', 'shard_check_kind_of'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION shard_fdw.check_kind(pg_node_tree, name)
IS 'whether a CHECK constraint is a seal, a place or a range of a shard';

CREATE FUNCTION shard_fdw.unfit_clause(query pg_node_tree, tbl oid, is_partitioned bool)
RETURNS text
AS 'MODULE_PATHNAME', 'shard_unfit_clause'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION shard_fdw.unfit_clause(pg_node_tree, oid, bool)
IS 'what the query of a view, a rule or a function does to a table that a logical table does not allow, or would do otherwise; for convert_table()';

CREATE FUNCTION shard_fdw.place_of(
  logical regclass, options text[], shard regclass,
  OUT modulus int, OUT remainder int, OUT stride int, OUT slot int,
  OUT id_column text, OUT sequence regclass)
RETURNS record
AS 'MODULE_PATHNAME', 'shard_place_of'
LANGUAGE C STABLE STRICT COST 100;
COMMENT ON FUNCTION shard_fdw.place_of(regclass, text[], regclass)
IS 'which hashes and ids a shard holds by its constraints, and where its ids come from';

-- What a table has that all shards should have: how it is defined, apart from
-- names that PostgreSQL makes, what it is called there, the command that
-- gives it to another table, and its state.  In these texts the characters 1,
-- 2 and 4 stand for the table: with its schema, without it and not quoted,
-- without it and quoted.  3 stands for the name that a constraint gets.
--
-- The functions used here lock no table.  Columns of the catalogs that not all
-- versions have are read by way of JSON.
CREATE FUNCTION shard_fdw.features_of(
  tbl regclass, OUT rank int, OUT kind text, OUT definition text,
  OUT name text, OUT command text, OUT state text)
RETURNS SETOF record
LANGUAGE sql STABLE STRICT COST 1000 ROWS 20
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
  SELECT 1, 'NOT NULL constraint', pg_catalog.quote_ident(a.attname), a.attname::text,
         pg_catalog.format(E'ALTER TABLE \x01 ALTER COLUMN %I SET NOT NULL', a.attname), NULL::text
    FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = features_of.tbl AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
  UNION ALL
  -- Indexes, and the constraints that they are for.
  SELECT CASE WHEN d.clause IS NULL THEN 3 ELSE 2 END,
         COALESCE(d.kind, 'index'),
         COALESCE(d.clause, pg_catalog.concat(d.is_unique, d.columns, d.predicate)),
         d.name,
         CASE WHEN d.clause IS NULL
              THEN pg_catalog.concat('CREATE ', d.is_unique, E'INDEX CONCURRENTLY ON \x01 ',
                                     d.columns, d.parameters, d.predicate)
              ELSE pg_catalog.concat(E'ALTER TABLE \x01 ADD ', d.clause, d.parameters,
                                     d.predicate, d.deferrable)
          END,
         CASE WHEN d.indisvalid THEN 'valid' ELSE 'invalid' END
    FROM (SELECT ic.relname::text AS name, i.indisvalid,
                 CASE WHEN i.indisunique THEN 'UNIQUE ' END AS is_unique,
                 pg_catalog.concat('USING ', pg_catalog.quote_ident(am.amname), ' (', k.keys, ')',
                   ' INCLUDE (' || k.included || ')',
                   CASE WHEN i.indnullsnotdistinct THEN ' NULLS NOT DISTINCT' END) AS columns,
                 CASE con.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint'
                      WHEN 'x' THEN 'exclusion constraint' END AS kind,
                 CASE con.contype
                      WHEN 'p' THEN 'PRIMARY KEY ('
                      WHEN 'u' THEN pg_catalog.concat('UNIQUE ',
                        CASE WHEN i.indnullsnotdistinct THEN 'NULLS NOT DISTINCT ' END, '(')
                      WHEN 'x' THEN pg_catalog.format('EXCLUDE USING %I (', am.amname)
                  END
                  || CASE con.contype WHEN 'x' THEN k.exclusions ELSE k.plain END
                  || CASE WHEN pg_catalog.to_jsonb(con) ->> 'conperiod' = 'true'
                               AND con.contype <> 'x' THEN ' WITHOUT OVERLAPS)' ELSE ')' END
                  || COALESCE(' INCLUDE (' || k.included || ')', '') AS clause,
                 ' WITH (' || pg_catalog.array_to_string(ic.reloptions, ', ') || ')' AS parameters,
                 ' WHERE (' || shard_fdw.expression_of(i.indpred, i.indrelid, 1) || ')' AS predicate,
                 CASE WHEN con.condeferrable
                      THEN ' DEFERRABLE' || CASE WHEN con.condeferred
                        THEN ' INITIALLY DEFERRED' ELSE '' END
                  END AS deferrable
            FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
            JOIN pg_catalog.pg_am am ON am.oid = ic.relam
            LEFT JOIN pg_catalog.pg_constraint con
                   ON con.conrelid = i.indrelid AND con.conindid = i.indexrelid
                  AND con.contype IN ('p', 'u', 'x')
           CROSS JOIN LATERAL (
             SELECT pg_catalog.string_agg(e.text || e.direction, ', ' ORDER BY e.n)
                      FILTER (WHERE e.n <= i.indnkeyatts) AS keys,
                    pg_catalog.string_agg(e.text || e.operator, ', ' ORDER BY e.n)
                      FILTER (WHERE e.n <= i.indnkeyatts) AS exclusions,
                    pg_catalog.string_agg(e.plain, ', ' ORDER BY e.n)
                      FILTER (WHERE e.n <= i.indnkeyatts) AS plain,
                    pg_catalog.string_agg(e.plain, ', ' ORDER BY e.n)
                      FILTER (WHERE e.n > i.indnkeyatts) AS included
               FROM (SELECT c.n, c.plain,
                            pg_catalog.concat(c.plain,
                              CASE WHEN co.oid <> COALESCE(a.attcollation, 0)
                                   THEN pg_catalog.format(' COLLATE %s.%I',
                                     co.collnamespace::regnamespace, co.collname) END,
                              CASE WHEN NOT op.opcdefault OR ia.attoptions IS NOT NULL
                                        OR op.opcintype NOT IN (ia.atttypid, 'anyarray'::regtype,
                                          'anyenum'::regtype, 'anyrange'::regtype,
                                          'anymultirange'::regtype)
                                           AND NOT (op.opcintype = 'text'::regtype
                                                    AND ia.atttypid = 'varchar'::regtype)
                                   THEN pg_catalog.concat(' ', op.opcnamespace::regnamespace, '.',
                                     pg_catalog.quote_ident(op.opcname),
                                     ' (' || pg_catalog.array_to_string(ia.attoptions, ', ') || ')')
                               END) AS text,
                            CASE i.indoption[c.n - 1]
                                 WHEN 1 THEN ' DESC NULLS LAST' WHEN 2 THEN ' NULLS FIRST'
                                 WHEN 3 THEN ' DESC' ELSE '' END AS direction,
                            (SELECT pg_catalog.format(' WITH OPERATOR(%s.%s)',
                                      o.oprnamespace::regnamespace, o.oprname)
                               FROM pg_catalog.pg_operator o
                              WHERE o.oid = con.conexclop[c.n]) AS operator
                       FROM (SELECT u.n::int AS n, u.attnum,
                                    CASE WHEN u.attnum = 0
                                         THEN '(' || shard_fdw.expression_of(i.indexprs, i.indrelid,
                                           (pg_catalog.count(*) FILTER (WHERE u.attnum = 0)
                                              OVER (ORDER BY u.n))::int) || ')'
                                         ELSE (SELECT pg_catalog.quote_ident(a.attname)
                                                 FROM pg_catalog.pg_attribute a
                                                WHERE a.attrelid = i.indrelid
                                                  AND a.attnum = u.attnum)
                                     END AS plain
                               FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY u(attnum, n)) c
                       JOIN pg_catalog.pg_attribute ia
                         ON ia.attrelid = i.indexrelid AND ia.attnum = c.n
                       LEFT JOIN pg_catalog.pg_attribute a
                              ON a.attrelid = i.indrelid AND a.attnum = c.attnum AND c.attnum <> 0
                       LEFT JOIN pg_catalog.pg_collation co ON co.oid = i.indcollation[c.n - 1]
                       LEFT JOIN pg_catalog.pg_opclass op ON op.oid = i.indclass[c.n - 1]) e) k
           WHERE i.indrelid = features_of.tbl) d
  UNION ALL
  -- Those that are inherited are the logical table's.
  SELECT 4, 'CHECK constraint', d.definition, d.conname::text,
         pg_catalog.concat(E'ALTER TABLE \x01 ADD CONSTRAINT \x03 ', d.definition,
                           CASE WHEN d.is_enforced THEN ' NOT VALID' END),
         CASE WHEN d.is_enforced THEN 'enforced' END
    FROM (SELECT con.conname, f.is_enforced,
                 pg_catalog.concat('CHECK (',
                   shard_fdw.expression_of(con.conbin, con.conrelid, 1), ')',
                   CASE WHEN con.connoinherit THEN ' NO INHERIT' END,
                   CASE WHEN NOT f.is_enforced THEN ' NOT ENFORCED' END) AS definition
            FROM pg_catalog.pg_constraint con
           CROSS JOIN LATERAL (
             SELECT COALESCE((pg_catalog.to_jsonb(con) ->> 'conenforced')::bool, true)) f(is_enforced)
           WHERE con.conrelid = features_of.tbl AND con.contype = 'c' AND con.coninhcount = 0
             AND shard_fdw.check_kind(con.conbin, con.conname) IS NULL) d
  UNION ALL
  SELECT 5, 'foreign key', d.definition,
         CASE WHEN pg_catalog.starts_with(d.conname, d.relname || '_')
              THEN E'\x02' || pg_catalog.substr(d.conname, pg_catalog.length(d.relname) + 1)
              ELSE d.conname END,
         pg_catalog.concat(E'ALTER TABLE \x01 ADD CONSTRAINT \x03 ', d.definition,
                           CASE WHEN d.is_enforced THEN ' NOT VALID' END),
         CASE WHEN d.is_enforced THEN 'enforced' END
    FROM (SELECT con.conname::text, c.relname::text,
                 pg_catalog.replace(
                   pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(con.oid),
                                             ' NOT VALID$', ''),
                   ' REFERENCES ' || c.oid::regclass || '(', E' REFERENCES \x01(') AS definition,
                 COALESCE((pg_catalog.to_jsonb(con) ->> 'conenforced')::bool, true) AS is_enforced
            FROM pg_catalog.pg_constraint con
            JOIN pg_catalog.pg_class c ON c.oid = con.conrelid
           WHERE con.conrelid = features_of.tbl AND con.contype = 'f'
             AND con.conparentid = 0) d
  UNION ALL
  SELECT 6, 'trigger', d.definition, d.tgname::text,
         d.definition || CASE d.tgenabled
           WHEN 'O' THEN ''
           ELSE pg_catalog.format(E'; ALTER TABLE \x01 %s TRIGGER %I',
             CASE d.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                              ELSE 'ENABLE REPLICA' END, d.tgname) END,
         CASE d.tgenabled WHEN 'O' THEN 'ENABLE' WHEN 'D' THEN 'DISABLE'
                          WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END
    FROM (SELECT t.tgname, t.tgenabled,
                 pg_catalog.concat('CREATE ',
                   CASE WHEN t.tgconstraint <> 0 THEN 'CONSTRAINT ' END, 'TRIGGER ',
                   pg_catalog.quote_ident(t.tgname),
                   CASE WHEN t.tgtype::int & 2 <> 0 THEN ' BEFORE ' ELSE ' AFTER ' END,
                   pg_catalog.concat_ws(' OR ',
                     CASE WHEN t.tgtype::int & 4 <> 0 THEN 'INSERT' END,
                     CASE WHEN t.tgtype::int & 8 <> 0 THEN 'DELETE' END,
                     CASE WHEN t.tgtype::int & 16 <> 0
                          THEN pg_catalog.concat('UPDATE', ' OF ' || (
                            SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', '
                                                         ORDER BY u.n)
                              FROM pg_catalog.unnest(t.tgattr::int2[]) WITH ORDINALITY u(attnum, n)
                              JOIN pg_catalog.pg_attribute a
                                ON a.attrelid = t.tgrelid AND a.attnum = u.attnum)) END,
                     CASE WHEN t.tgtype::int & 32 <> 0 THEN 'TRUNCATE' END),
                   E' ON \x01',
                   CASE WHEN t.tgconstraint <> 0 AND t.tgconstrrelid <> 0
                        THEN ' FROM ' || t.tgconstrrelid::regclass END,
                   CASE WHEN t.tgdeferrable
                        THEN ' DEFERRABLE' || CASE WHEN t.tginitdeferred
                          THEN ' INITIALLY DEFERRED' ELSE '' END END,
                   CASE WHEN t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL
                        THEN pg_catalog.concat(' REFERENCING',
                          ' OLD TABLE AS ' || pg_catalog.quote_ident(t.tgoldtable),
                          ' NEW TABLE AS ' || pg_catalog.quote_ident(t.tgnewtable)) END,
                   ' FOR EACH ',
                   CASE WHEN t.tgtype::int & 1 <> 0 THEN 'ROW' ELSE 'STATEMENT' END,
                   ' WHEN (' || shard_fdw.expression_of(t.tgqual, t.tgrelid, 0) || ')',
                   ' EXECUTE FUNCTION ',
                   (SELECT pg_catalog.format('%I.%I', n.nspname, p.proname)
                      FROM pg_catalog.pg_proc p
                      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                     WHERE p.oid = t.tgfoid),
                   '(', (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(
                                  pg_catalog.convert_from(pg_catalog.decode(u.arg, 'escape'),
                                    pg_catalog.getdatabaseencoding())), ', ' ORDER BY u.n)
                           FROM pg_catalog.unnest(pg_catalog.string_to_array(
                                  pg_catalog.encode(t.tgargs, 'escape'), '\000'))
                                WITH ORDINALITY u(arg, n)
                          WHERE u.n <= t.tgnargs), ')') AS definition
            FROM pg_catalog.pg_trigger t
           WHERE t.tgrelid = features_of.tbl AND NOT t.tgisinternal) d
  UNION ALL
  -- Who may grant a privilege has it as well.
  SELECT 7, 'privilege', pg_catalog.concat(d.privilege, ' TO ', d.grantee, o.option), NULL,
         pg_catalog.concat('GRANT ', d.privilege, E' ON TABLE \x01 TO ', d.grantee, o.option), NULL
    FROM (SELECT x.privilege_type || COALESCE(' (' || pg_catalog.quote_ident(g.attname) || ')', ''),
                 CASE WHEN x.grantee = 0 THEN 'PUBLIC'
                      ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END,
                 x.is_grantable
            FROM pg_catalog.pg_class c
           CROSS JOIN LATERAL (
             SELECT c.relacl AS acl, NULL::name AS attname
              UNION ALL
             SELECT a.attacl, a.attname FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND NOT a.attisdropped) g
           CROSS JOIN LATERAL pg_catalog.aclexplode(g.acl) x
           WHERE c.oid = features_of.tbl AND x.grantee <> c.relowner)
         d(privilege, grantee, is_grantable)
   CROSS JOIN LATERAL (SELECT NULL AS option UNION ALL
                       SELECT ' WITH GRANT OPTION' WHERE d.is_grantable) o
  UNION ALL
  SELECT 8, 'publication', d.definition, d.pubname::text,
         pg_catalog.format(E'ALTER PUBLICATION %I ADD TABLE \x01', d.pubname) || d.what, NULL
    FROM (SELECT p.pubname, p.pubname || w.what AS definition, w.what
            FROM pg_catalog.pg_publication_rel r
            JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
           CROSS JOIN LATERAL (SELECT pg_catalog.concat(
             ' (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', '
                                                   ORDER BY a.attname)
                        FROM pg_catalog.unnest(r.prattrs::int2[]) u(attnum)
                        JOIN pg_catalog.pg_attribute a
                          ON a.attrelid = r.prrelid AND a.attnum = u.attnum) || ')',
             ' WHERE (' || shard_fdw.expression_of(r.prqual, r.prrelid, 1) || ')') AS what) w
           WHERE r.prrelid = features_of.tbl
             AND (pg_catalog.to_jsonb(r) ->> 'prexcept') IS DISTINCT FROM 'true'
           UNION ALL
          SELECT p.pubname, p.pubname::text, ''
            FROM pg_catalog.pg_publication_namespace s
            JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
            JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid
           WHERE c.oid = features_of.tbl) d;
END;
COMMENT ON FUNCTION shard_fdw.features_of(regclass)
IS 'indexes, constraints, triggers, privileges and publications of a table; for check_shards()';

CREATE FUNCTION shard_fdw.check_shards(
  logical regclass, template regclass DEFAULT NULL,
  OUT shard regclass, OUT problem text, OUT remedy text)
RETURNS SETOF record
LANGUAGE sql STABLE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
  WITH shards AS MATERIALIZED (
    SELECT l.shard, l.ordinal, l.state, c.relowner, c.relreplident, c.relpersistence,
           c.relkind = 'r' AS is_local, c.relname::text AS relname,
           pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
           p.modulus, p.remainder, p.id_column, p.sequence
      FROM shard_fdw.list_shards(check_shards.logical) l
      LEFT JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = check_shards.logical
      JOIN pg_catalog.pg_class c ON c.oid = l.shard
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL shard_fdw.place_of(ft.ftrelid, COALESCE(ft.ftoptions, '{}'), l.shard) p
     WHERE c.relpersistence <> 't'),
  parent AS MATERIALIZED (
    SELECT c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
           o.time_column IS NOT NULL AS is_timed, o.key,
           COALESCE(o.route, (SELECT so.option_value
                                FROM pg_catalog.pg_options_to_table(fs.srvoptions) so
                               WHERE so.option_name = 'route')) = 'hash' AS is_hash,
           p.modulus
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = c.oid
      JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
     CROSS JOIN LATERAL (
       SELECT pg_catalog.max(x.option_value) FILTER (WHERE x.option_name = 'time_column'),
              pg_catalog.max(x.option_value) FILTER (WHERE x.option_name = 'route'),
              pg_catalog.max(x.option_value) FILTER (WHERE x.option_name = 'key')
         FROM pg_catalog.pg_options_to_table(ft.ftoptions) x) o(time_column, route, key)
     CROSS JOIN LATERAL shard_fdw.place_of(ft.ftrelid, COALESCE(ft.ftoptions, '{}'), ft.ftrelid) p
     WHERE c.oid = check_shards.logical),
  -- What of the hashes the shards hold; "modulus" is null if it is not that of
  -- all of them, and "left_over" the only remainder of it that none has.
  places AS MATERIALIZED (
    SELECT g.share, g.n_without, g.greatest,
           CASE WHEN g.n_remainders = g.greatest - 1 AND g.least = g.greatest
                THEN g.greatest::bigint * (g.greatest - 1) / 2 - g.remainders END AS left_over
      FROM (SELECT pg_catalog.sum(1.0::numeric(40, 30) / s.modulus) AS share,
                   pg_catalog.count(*) FILTER (WHERE s.modulus IS NULL) AS n_without,
                   pg_catalog.max(s.modulus) AS greatest, pg_catalog.min(s.modulus) AS least,
                   pg_catalog.count(DISTINCT s.remainder) AS n_remainders,
                   pg_catalog.sum(DISTINCT s.remainder) AS remainders
              FROM shards s) g),
  features AS MATERIALIZED (
    SELECT s.shard, f.rank, f.kind, f.definition, f.name, f.command, f.state
      FROM shards s
     CROSS JOIN LATERAL shard_fdw.features_of(s.shard) f
     WHERE s.is_local),
  -- What the template has, or at least half of the shards; a CHECK constraint of
  -- half of them may be about their rows.
  expected AS MATERIALIZED (
    SELECT f.rank, f.kind, f.definition, pg_catalog.min(f.name) AS name,
           pg_catalog.min(f.command) AS command,
           pg_catalog.mode() WITHIN GROUP (ORDER BY f.state DESC) AS state
      FROM features f
     WHERE check_shards.template IS NULL OR f.kind IN ('privilege', 'publication')
     GROUP BY f.rank, f.kind, f.definition
    HAVING pg_catalog.count(DISTINCT f.shard) * 2
           >= (SELECT pg_catalog.count(*) + (f.kind = 'CHECK constraint')::int
                 FROM shards s WHERE s.is_local)
     UNION ALL
    SELECT f.rank, f.kind, f.definition, pg_catalog.min(f.name), pg_catalog.min(f.command),
           pg_catalog.min(f.state)
      FROM shard_fdw.features_of(check_shards.template) f
     WHERE f.kind NOT IN ('privilege', 'publication')
     GROUP BY f.rank, f.kind, f.definition),
  missing AS MATERIALIZED (
    SELECT s.shard, s.ordinal, e.rank, e.kind, e.definition, s.full_name, s.relname, e.command,
           e.state, e.kind IN ('trigger', 'publication') AND EXISTS (
             SELECT FROM features f
              WHERE f.shard = s.shard AND f.kind = e.kind AND f.name = e.name) AS differs,
           e.name,
           -- A name that is taken gets an end that is always the same.
           g.name || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint c
                                        WHERE c.conrelid = s.shard AND c.conname = g.name::name)
                          THEN '_' || pg_catalog.hashtext(e.definition) ELSE '' END AS new_name
      FROM shards s
     CROSS JOIN expected e
     CROSS JOIN LATERAL (SELECT pg_catalog.replace(e.name, E'\x02', s.relname)) g(name)
     WHERE s.is_local
       AND (e.kind <> 'publication' OR s.relpersistence = 'p')
       AND NOT EXISTS (SELECT FROM features f
                        WHERE f.shard = s.shard AND f.kind = e.kind
                          AND f.definition = e.definition)),
  -- Replica identities, with an index by what it is.
  identities AS MATERIALIZED (
    SELECT t.tbl, t.identity || COALESCE(f.definition, '') AS identity, f.definition
      FROM (SELECT s.shard AS tbl, s.relreplident::text AS identity FROM shards s WHERE s.is_local
             UNION ALL
            SELECT c.oid, c.relreplident::text FROM pg_catalog.pg_class c
             WHERE c.oid = check_shards.template) t
      LEFT JOIN (pg_catalog.pg_index i
                 JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
                CROSS JOIN LATERAL shard_fdw.features_of(i.indrelid) f)
             ON t.identity = 'i' AND i.indrelid = t.tbl AND i.indisreplident
            AND f.rank IN (2, 3) AND f.name = ic.relname),
  wanted AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.min(i.identity) FILTER (WHERE i.tbl = check_shards.template),
                    pg_catalog.mode() WITHIN GROUP (ORDER BY i.identity)) AS identity
      FROM identities i)
  SELECT r.shard, r.problem, r.remedy
    FROM (
      SELECT s.shard, s.ordinal, 0.0 AS rank,
             pg_catalog.format('owner is %I', s.relowner::regrole) AS problem,
             pg_catalog.format('ALTER TABLE %s OWNER TO %s', s.full_name, p.relowner::regrole)
               AS remedy
        FROM shards s
        JOIN parent p ON p.relowner <> s.relowner
      UNION ALL
      SELECT m.shard, m.ordinal, m.rank,
             pg_catalog.format(CASE WHEN m.differs THEN '%s differs: %s' ELSE '%s is missing: %s' END,
               m.kind,
               CASE WHEN m.kind IN ('trigger') THEN pg_catalog.quote_ident(m.name)
                    ELSE pg_catalog.translate(
                      pg_catalog.replace(m.definition, E'\x01', m.full_name), E'\x04', '') END),
             CASE WHEN NOT m.differs THEN ''
                  WHEN m.kind = 'trigger'
                  THEN pg_catalog.format('DROP TRIGGER %I ON %s; ', m.name, m.full_name)
                  ELSE pg_catalog.format('ALTER PUBLICATION %I DROP TABLE %s; ', m.name, m.full_name)
              END
              || pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(m.command,
                   E'\x01', m.full_name), E'\x04', pg_catalog.quote_ident(m.relname)),
                   E'\x03', COALESCE(pg_catalog.quote_ident(m.new_name), ''))
        FROM missing m
      UNION ALL
      SELECT m.shard, m.ordinal, m.rank + 0.5,
             pg_catalog.format('%s has to be validated: %s', m.kind,
               pg_catalog.quote_ident(m.new_name)),
             pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', m.full_name, m.new_name)
        FROM missing m
       WHERE m.kind IN ('CHECK constraint', 'foreign key') AND m.state = 'enforced'
      UNION ALL
      SELECT s.shard, s.ordinal, f.rank,
             pg_catalog.format('%s is not valid: %I', f.kind, f.name),
             pg_catalog.format(
               CASE WHEN f.kind = 'index' AND EXISTS (
                           SELECT FROM features o
                            WHERE o.shard = f.shard AND o.kind = 'index' AND o.state = 'valid'
                              AND o.definition = f.definition)
                    THEN 'DROP INDEX CONCURRENTLY %s.%I'
                    WHEN f.kind = 'exclusion constraint' THEN 'REINDEX INDEX %s.%I'
                    ELSE 'REINDEX INDEX CONCURRENTLY %s.%I' END,
               (SELECT c.relnamespace::regnamespace FROM pg_catalog.pg_class c
                 WHERE c.oid = s.shard), f.name)
        FROM shards s
        JOIN features f ON f.shard = s.shard AND f.state = 'invalid'
      UNION ALL
      SELECT s.shard, s.ordinal, 5.5,
             pg_catalog.format('constraint is not validated: %I', con.conname),
             CASE WHEN k.kind = 'range' AND p.is_timed AND s.state <> 'open' AND s.is_local
                  THEN pg_catalog.format('CALL shard_fdw.add_range(%L)', s.full_name)
                  ELSE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', s.full_name,
                                         con.conname) END
        FROM shards s
       CROSS JOIN parent p
        JOIN pg_catalog.pg_constraint con ON con.conrelid = s.shard
       CROSS JOIN LATERAL (SELECT CASE WHEN con.contype = 'c'
         THEN shard_fdw.check_kind(con.conbin, con.conname) END) k(kind)
       WHERE NOT con.convalidated AND con.conparentid = 0
         AND k.kind IS DISTINCT FROM 'seal'
         AND (pg_catalog.to_jsonb(con) ->> 'conenforced') IS DISTINCT FROM 'false'
      UNION ALL
      SELECT s.shard, s.ordinal, 6.5,
             pg_catalog.format('trigger %I is not in the state %s', f.name, e.state),
             pg_catalog.format('ALTER TABLE %s %s TRIGGER %I', s.full_name, e.state, f.name)
        FROM shards s
        JOIN features f ON f.shard = s.shard AND f.kind = 'trigger'
        JOIN expected e ON e.kind = 'trigger' AND e.definition = f.definition
                       AND e.state <> f.state
      UNION ALL
      SELECT s.shard, s.ordinal, 9,
             pg_catalog.format('replica identity is not %s',
               CASE pg_catalog.left(w.identity, 1) WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL'
                    WHEN 'n' THEN 'NOTHING' ELSE 'an index ' || pg_catalog.substr(w.identity, 2) END),
             pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY %s', s.full_name,
               CASE pg_catalog.left(w.identity, 1) WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL'
                    WHEN 'n' THEN 'NOTHING'
                    ELSE 'USING INDEX ' || pg_catalog.quote_ident(x.name) END)
        FROM shards s
        JOIN identities i ON i.tbl = s.shard
        JOIN wanted w ON w.identity <> i.identity
        LEFT JOIN LATERAL (SELECT pg_catalog.min(f.name) AS name FROM features f
                            WHERE f.shard = s.shard AND f.rank IN (2, 3)
                              AND 'i' || f.definition = w.identity) x ON true
      UNION ALL
      -- If one place is left, it is the only one that the shard can have.
      SELECT s.shard, s.ordinal, v.rank,
             'no CHECK constraint says which hashes of the key the shard holds',
             CASE WHEN s.is_local AND g.n_without = 1 AND g.left_over IS NOT NULL
                  THEN pg_catalog.format(v.command, s.full_name, g.greatest, g.left_over, p.key) END
        FROM shards s
        JOIN parent p ON p.is_hash
       CROSS JOIN places g
       CROSS JOIN (VALUES
         (10, 'ALTER TABLE %s ADD CONSTRAINT shard_hash CHECK (shard_fdw.in_hash(%s, %s, %s)) NOT VALID'),
         (10.5, 'ALTER TABLE %s VALIDATE CONSTRAINT shard_hash')) v(rank, command)
       WHERE s.modulus IS NULL
         AND (v.rank = 10 OR s.is_local AND g.n_without = 1 AND g.left_over IS NOT NULL)
      UNION ALL
      SELECT s.shard, s.ordinal, 10, 'shard holds hashes that are also in '
               || pg_catalog.string_agg(o.full_name, ', ' ORDER BY o.ordinal), NULL
        FROM shards s
        JOIN parent p ON p.is_hash
        JOIN shards o ON o.shard <> s.shard
                     AND s.remainder % pg_catalog.gcd(s.modulus, o.modulus)
                         = o.remainder % pg_catalog.gcd(s.modulus, o.modulus)
       GROUP BY s.shard, s.ordinal
      UNION ALL
      -- A table that is itself a shard of a hash table need not hold all.
      SELECT NULL, NULL, 10,
             pg_catalog.format('no shard of %s holds some hashes of the key', p.full_name),
             CASE WHEN NOT EXISTS (SELECT FROM shards s WHERE g.greatest % s.modulus <> 0)
                  THEN pg_catalog.format('SELECT * FROM shard_fdw.create_shards(%L, %s)', p.full_name,
                         pg_catalog.round(g.greatest * (1 - g.share))) END
        FROM parent p
       CROSS JOIN places g
       WHERE p.is_hash AND p.modulus IS NULL AND g.n_without = 0 AND g.share < 0.999999999
      UNION ALL
      SELECT s.shard, s.ordinal, 11,
             pg_catalog.format('column %I has no sequence', s.id_column),
             CASE WHEN s.is_local
                  THEN pg_catalog.format('SELECT * FROM shard_fdw.reset_sequences(%L)', p.full_name)
              END
        FROM shards s
       CROSS JOIN parent p
       WHERE s.id_column IS NOT NULL AND s.sequence IS NULL
      UNION ALL
      SELECT s.shard, s.ordinal, 12,
             pg_catalog.format('sequence %s gives values of column %I that are there already',
                               q.sequence, q.column_name),
             pg_catalog.format('SELECT * FROM shard_fdw.reset_sequences(%L)', p.full_name)
        FROM shards s
       CROSS JOIN parent p
        JOIN shard_fdw.sequences q ON q.tbl = s.shard AND q.collides) r
   ORDER BY r.ordinal, r.rank, r.problem;
END;
COMMENT ON FUNCTION shard_fdw.check_shards(regclass, regclass)
IS 'what shards lack that most of them, or a template, have, and commands that mend it; empty if all is well';

CREATE VIEW shard_fdw.stat_shards AS
SELECT ft.ftrelid::regclass AS logical,
       s.shard,
       s.ordinal,
       s.state,
       NULLIF(pg_catalog.concat_ws(', ',
                'hash ' || p.remainder || ' of ' || p.modulus,
                'ids ' || p.slot || ' of ' || p.stride), '') AS place,
       r.range_start,
       r.range_end,
       t.bytes,
       t.live_rows,
       t.dead_rows,
       t.inserts,
       t.updates,
       t.deletes,
       t.inserts_since_vacuum,
       t.changes_since_analyze,
       t.last_vacuum,
       t.last_analyze
  FROM pg_catalog.pg_foreign_table ft
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 CROSS JOIN LATERAL shard_fdw.list_shards(ft.ftrelid, true) s
  JOIN pg_catalog.pg_class c ON c.oid = s.shard
 CROSS JOIN LATERAL shard_fdw.place_of(ft.ftrelid, COALESCE(ft.ftoptions, '{}'), s.shard) p
 CROSS JOIN LATERAL shard_fdw.range_of(ft.ftrelid, COALESCE(ft.ftoptions, '{}'), s.shard) r
  -- A foreign table has no numbers here.
  LEFT JOIN LATERAL (
    SELECT shard_fdw.table_bytes(c.oid) AS bytes,
           pg_catalog.pg_stat_get_live_tuples(c.oid) AS live_rows,
           pg_catalog.pg_stat_get_dead_tuples(c.oid) AS dead_rows,
           pg_catalog.pg_stat_get_tuples_inserted(c.oid) AS inserts,
           pg_catalog.pg_stat_get_tuples_updated(c.oid) AS updates,
           pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS deletes,
           pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) AS inserts_since_vacuum,
           pg_catalog.pg_stat_get_mod_since_analyze(c.oid) AS changes_since_analyze,
           GREATEST(pg_catalog.pg_stat_get_last_vacuum_time(c.oid),
                    pg_catalog.pg_stat_get_last_autovacuum_time(c.oid)) AS last_vacuum,
           GREATEST(pg_catalog.pg_stat_get_last_analyze_time(c.oid),
                    pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid)) AS last_analyze) t
         ON c.relkind <> 'f'
 WHERE fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc
 ORDER BY ft.ftrelid, s.ordinal;
COMMENT ON VIEW shard_fdw.stat_shards
IS 'what has been done to each shard, as the statistics have it, and what the shard holds';
GRANT SELECT ON shard_fdw.stat_shards TO PUBLIC;

--
-- From a plain table to a logical table, and back
--

-- The functions here are called with search_path pg_catalog, so that names in
-- the texts that they make have their schemas.

-- The columns and CHECK constraints of a table, as CREATE FOREIGN TABLE has them.
-- The sequences of identity columns come later.
CREATE FUNCTION shard_fdw.columns_of(tbl regclass)
RETURNS text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
  SELECT pg_catalog.string_agg(d.line, ', ' ORDER BY d.rank, d.n)
    FROM (SELECT 1, a.attnum::int,
                 pg_catalog.concat(pg_catalog.quote_ident(a.attname), ' ',
                   pg_catalog.format_type(a.atttypid, a.atttypmod),
                   CASE WHEN a.attcollation <> t.typcollation
                        THEN pg_catalog.format(' COLLATE %s.%I', c.collnamespace::regnamespace, c.collname) END,
                   CASE a.attgenerated
                     WHEN '' THEN ' DEFAULT ' || pg_catalog.pg_get_expr(ad.adbin, ad.adrelid)
                     ELSE pg_catalog.format(' GENERATED ALWAYS AS (%s) %s',
                       pg_catalog.pg_get_expr(ad.adbin, ad.adrelid),
                       CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END) END,
                   CASE WHEN a.attnotnull
                        THEN (SELECT pg_catalog.format(' CONSTRAINT %I', con.conname)
                                FROM pg_catalog.pg_constraint con
                               WHERE con.conrelid = a.attrelid AND con.contype = 'n'
                                 AND con.conkey[1] = a.attnum) END,
                   CASE WHEN a.attnotnull THEN ' NOT NULL' END)
            FROM pg_catalog.pg_attribute a
            JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
            LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
           WHERE a.attrelid = columns_of.tbl AND a.attnum > 0 AND NOT a.attisdropped
           UNION ALL
          SELECT 2, pg_catalog.row_number() OVER (ORDER BY con.conname)::int,
                 pg_catalog.format('CONSTRAINT %I %s', con.conname, pg_catalog.pg_get_constraintdef(con.oid))
            FROM pg_catalog.pg_constraint con
           WHERE con.conrelid = columns_of.tbl AND con.contype = 'c' AND con.convalidated
             AND NOT con.connoinherit) d(rank, n, line);
END;
COMMENT ON FUNCTION shard_fdw.columns_of(regclass)
IS 'columns and CHECK constraints of a table, as a command has them; for convert_table()';

-- The commands that give another table, which will have the name that this one
-- has now, its comments, security labels and triggers, and that have views,
-- rules and functions use that one.
CREATE FUNCTION shard_fdw.succession_of(tbl regclass, OUT is_own bool, OUT command text)
RETURNS SETOF record
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
  SELECT d.is_own, d.command
    FROM (SELECT 2, true, pg_catalog.format('COMMENT ON %s %s.%I IS %L',
                   CASE c.relkind WHEN 'f' THEN 'TABLE' ELSE 'FOREIGN TABLE' END, c.relnamespace::regnamespace, c.relname, ds.description)
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_description ds
              ON ds.objoid = c.oid AND ds.classoid = 'pg_catalog.pg_class'::regclass AND ds.objsubid = 0
           WHERE c.oid = succession_of.tbl
           UNION ALL
          SELECT 3, true, pg_catalog.format('COMMENT ON COLUMN %s.%I.%I IS %L',
                   c.relnamespace::regnamespace, c.relname, a.attname, ds.description)
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            JOIN pg_catalog.pg_description ds
              ON ds.objoid = c.oid AND ds.classoid = 'pg_catalog.pg_class'::regclass
             AND ds.objsubid = a.attnum
           WHERE c.oid = succession_of.tbl
           UNION ALL
          -- Those of the constraints that columns_of() takes along.
          SELECT 3, true, pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s.%I IS %L',
                   con.conname, c.relnamespace::regnamespace, c.relname, ds.description)
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_constraint con ON con.conrelid = c.oid
             AND (con.contype = 'c' AND con.convalidated AND NOT con.connoinherit
               OR con.contype = 'n' AND c.relkind <> 'f')
            JOIN pg_catalog.pg_description ds
              ON ds.objoid = con.oid AND ds.classoid = 'pg_catalog.pg_constraint'::regclass
           WHERE c.oid = succession_of.tbl
           UNION ALL
          SELECT 3, true, pg_catalog.format('SECURITY LABEL FOR %I ON %s IS %L', l.provider,
                   CASE WHEN l.objsubid <> 0
                        THEN pg_catalog.format('COLUMN %s.%I.%I', c.relnamespace::regnamespace, c.relname, a.attname)
                        ELSE pg_catalog.format('%s %s.%I', CASE c.relkind WHEN 'f' THEN 'TABLE' ELSE 'FOREIGN TABLE' END,
                          c.relnamespace::regnamespace, c.relname) END, l.label)
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_seclabel l
              ON l.objoid = c.oid AND l.classoid = 'pg_catalog.pg_class'::regclass
            LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = l.objsubid
           WHERE c.oid = succession_of.tbl
           UNION ALL
          -- Shards have their own.
          SELECT 4, true, pg_catalog.concat('ALTER TABLE ONLY ', n.name, ' ALTER COLUMN ', pg_catalog.quote_ident(a.attname),
                   ' SET ', o.setting)
            FROM pg_catalog.pg_attribute a
           CROSS JOIN LATERAL (
             SELECT pg_catalog.format('%s.%I', c.relnamespace::regnamespace, c.relname)
               FROM pg_catalog.pg_class c WHERE c.oid = a.attrelid) n(name)
           CROSS JOIN LATERAL (
             SELECT 'STATISTICS ' || (pg_catalog.to_jsonb(a) ->> 'attstattarget')
              WHERE (pg_catalog.to_jsonb(a) ->> 'attstattarget')::int >= 0
              UNION ALL
             SELECT pg_catalog.format('(%s)', o) FROM pg_catalog.unnest(a.attoptions) o
              WHERE o LIKE 'n\_distinct%') o(setting)
           WHERE a.attrelid = succession_of.tbl AND a.attnum > 0 AND NOT a.attisdropped
           UNION ALL
          -- Row triggers of an ordinary table stay with its rows.
          SELECT 5, true, pg_catalog.pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN ''
                   ELSE pg_catalog.format('; ALTER TABLE %s.%I %s TRIGGER %I',
                     c.relnamespace::regnamespace, c.relname,
                     CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                      ELSE 'ENABLE REPLICA' END, t.tgname) END
            FROM pg_catalog.pg_trigger t
            JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
           WHERE t.tgrelid = succession_of.tbl AND NOT t.tgisinternal
             AND (c.relkind = 'f' OR t.tgtype::int & 1 = 0)
           UNION ALL
          SELECT 6, true, pg_catalog.format('COMMENT ON TRIGGER %I ON %s.%I IS %L', t.tgname,
                   c.relnamespace::regnamespace, c.relname, ds.description)
            FROM pg_catalog.pg_trigger t
            JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
            JOIN pg_catalog.pg_description ds
              ON ds.objoid = t.oid AND ds.classoid = 'pg_catalog.pg_trigger'::regclass
           WHERE t.tgrelid = succession_of.tbl AND NOT t.tgisinternal
             AND (c.relkind = 'f' OR t.tgtype::int & 1 = 0)
           UNION ALL
          -- These keep their owners, privileges and comments, and what uses them.
          SELECT DISTINCT 7, false, CASE
                   WHEN r.rulename = '_RETURN'
                   THEN pg_catalog.format('CREATE OR REPLACE VIEW %s.%I%s AS %s',
                          v.relnamespace::regnamespace, v.relname,
                          ' WITH (' || (SELECT pg_catalog.string_agg(
                              CASE WHEN pg_catalog.strpos(o, '=') > 0
                                   THEN pg_catalog.format('%s = %L', pg_catalog.split_part(o, '=', 1),
                                          pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1))
                                   ELSE o END, ', ') FROM pg_catalog.unnest(v.reloptions) o) || ')',
                          pg_catalog.pg_get_viewdef(v.oid))
                   ELSE pg_catalog.regexp_replace(pg_catalog.pg_get_ruledef(r.oid), '^CREATE RULE',
                          'CREATE OR REPLACE RULE') END
            FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class <> succession_of.tbl
            JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
           WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
             AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = succession_of.tbl
           UNION ALL
          SELECT DISTINCT 8, false, pg_catalog.pg_get_functiondef(d.objid)
            FROM pg_catalog.pg_depend d
           WHERE d.classid = 'pg_catalog.pg_proc'::regclass
             AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = succession_of.tbl)
         d(rank, is_own, command)
   ORDER BY d.rank;
END;
COMMENT ON FUNCTION shard_fdw.succession_of(regclass)
IS 'commands that put another table in the place of one; for convert_table() and release()';

-- What keeps convert_table() from making a logical table of a table.
CREATE FUNCTION shard_fdw.problems_of(
  tbl regclass, route text, key text[], old_name text, OUT problem text, OUT remedy text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
  WITH t AS MATERIALIZED (
    SELECT c.*, pg_catalog.format('%s.%I', c.relnamespace::regnamespace, c.relname) AS name,
           problems_of.key::name[] AS key_columns,
           c.relkind = 'p' AND pg_catalog.pg_get_partkeydef(c.oid) =
             (SELECT pg_catalog.format('HASH (%s)',
                       pg_catalog.string_agg(pg_catalog.quote_ident(u.name), ', ' ORDER BY u.n))
                FROM pg_catalog.unnest(problems_of.key) WITH ORDINALITY u(name, n)) AS has_places
      FROM pg_catalog.pg_class c
     WHERE c.oid = problems_of.tbl)
  SELECT pg_catalog.format('table %s is temporary', t.name), 'Use a table that is not.'
    FROM t WHERE t.relpersistence = 't'
   UNION ALL
  SELECT pg_catalog.format('table %s is of type %s', t.name, t.reloftype::regtype),
         pg_catalog.format('ALTER TABLE %s NOT OF', t.name)
    FROM t WHERE t.reloftype <> 0
   UNION ALL
  SELECT pg_catalog.format('table %s inherits from table %s', t.name, i.inhparent::regclass),
         CASE WHEN t.relispartition THEN pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s', i.inhparent::regclass, t.name)
              ELSE pg_catalog.format('ALTER TABLE %s NO INHERIT %s', t.name, i.inhparent::regclass) END
    FROM t JOIN pg_catalog.pg_inherits i ON i.inhrelid = t.oid
   UNION ALL
  SELECT pg_catalog.format('table %s inherits from it', i.inhrelid::regclass),
         pg_catalog.format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::regclass, t.name)
    FROM t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid WHERE t.relkind = 'r'
   UNION ALL
  SELECT pg_catalog.format('partition %s is partitioned, or a foreign table', i.inhrelid::regclass),
         pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s', t.name, i.inhrelid::regclass)
    FROM t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
    JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid AND p.relkind <> 'r'
   WHERE t.relkind = 'p'
   UNION ALL
  SELECT 'a foreign table with route "hash" needs a place for each row, and partitions by something else than the hash of the key have none',
         'Use another route, or partition the table by hash, with the key.'
    FROM t WHERE t.relkind = 'p' AND problems_of.route = 'hash' AND NOT t.has_places
   UNION ALL
  SELECT pg_catalog.format('foreign key %I of table %s points to it', con.conname, con.conrelid::regclass),
         pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', con.conrelid::regclass, con.conname)
    FROM t JOIN pg_catalog.pg_constraint con
      ON con.confrelid = t.oid AND con.contype = 'f' AND con.conparentid = 0
   UNION ALL
  SELECT pg_catalog.format('it has rule %I', r.rulename), pg_catalog.format('DROP RULE %I ON %s', r.rulename, t.name)
    FROM t JOIN pg_catalog.pg_rewrite r ON r.ev_class = t.oid
   UNION ALL
  SELECT pg_catalog.format('it has policy %I', p.polname), pg_catalog.format('DROP POLICY %I ON %s', p.polname, t.name)
    FROM t JOIN pg_catalog.pg_policy p ON p.polrelid = t.oid
   UNION ALL
  SELECT 'it has row-level security', pg_catalog.format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', t.name)
    FROM t WHERE t.relrowsecurity
   UNION ALL
  SELECT pg_catalog.format('publication %I publishes it', p.pubname),
         CASE WHEN p.puballtables THEN 'Publish single tables.'
              WHEN r.oid IS NULL THEN pg_catalog.format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %s', p.pubname, t.relnamespace::regnamespace)
              ELSE pg_catalog.format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, t.name) END
    FROM t CROSS JOIN pg_catalog.pg_publication p
    LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = t.oid
   WHERE p.puballtables OR r.oid IS NOT NULL
      OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s
                  WHERE s.pnpubid = p.oid AND s.pnnspid = t.relnamespace)
   UNION ALL
  SELECT 'a subscription replicates into it', 'Drop the subscription, or refresh it without the table.'
    FROM t WHERE EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = t.oid)
   UNION ALL
  SELECT pg_catalog.format('it belongs to extension %I', e.extname),
         pg_catalog.format('ALTER EXTENSION %I DROP TABLE %s', e.extname, t.name)
    FROM t JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = t.oid
     AND d.deptype = 'e'
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
   UNION ALL
  -- Triggers that a foreign table or a shard cannot have.
  SELECT pg_catalog.format('trigger %I %s', g.tgname, CASE WHEN g.tgtype::int & 32 <> 0
           THEN 'fires for TRUNCATE' ELSE 'has transition tables' END),
         pg_catalog.format('DROP TRIGGER %I ON %s', g.tgname, t.name)
    FROM t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
   WHERE g.tgoldtable IS NOT NULL OR g.tgnewtable IS NOT NULL
      OR (g.tgtype::int & 32 <> 0 AND pg_catalog.current_setting('server_version_num')::int < 160000)
   UNION ALL
  -- What a unique constraint promises has to hold over all shards.
  SELECT pg_catalog.format('unique index %s would hold in each shard only', i.indexrelid::regclass),
         CASE WHEN con.oid IS NULL THEN pg_catalog.format('DROP INDEX %s', i.indexrelid::regclass)
              ELSE pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', t.name, con.conname) END
    FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid AND (i.indisunique OR i.indisexclusion)
    LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = t.oid
     AND con.contype IN ('p', 'u', 'x')
   CROSS JOIN LATERAL (
     SELECT pg_catalog.array_agg(a.attname) AS columns,
            -- Values that nobody else gets.
            pg_catalog.bool_or(a.attidentity <> '' OR a.atttypid = 'uuid'::regtype AND a.atthasdef
              OR EXISTS (SELECT FROM pg_catalog.pg_attrdef ad
                         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass
                          AND d.objid = ad.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
                         JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
                        WHERE ad.adrelid = a.attrelid AND ad.adnum = a.attnum)) AS is_given
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = t.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) c
   -- Equal for the index is equal for the key.
   CROSS JOIN LATERAL (
     SELECT pg_catalog.bool_and(i.indcollation[n] = a.attcollation AND o.opcdefault) AS is_usual
       FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) n
       JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[n]
       JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[n]
      WHERE problems_of.route <> 'hash' OR a.attname = ANY (t.key_columns)) e
   WHERE NOT CASE WHEN problems_of.route = 'hash' THEN c.columns @> t.key_columns AND i.indisunique AND COALESCE(e.is_usual, false)
                  ELSE COALESCE(c.is_given, false) END
   UNION ALL
  -- What uses the table, or the type of its rows, and cannot be replaced.
  SELECT DISTINCT pg_catalog.format('%s depends on %s', CASE WHEN r.oid IS NULL
             THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
             ELSE pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0) END,
           CASE d.refclassid WHEN 'pg_catalog.pg_type'::regclass THEN 'the type of its rows'
                WHEN 'pg_catalog.pg_constraint'::regclass THEN 'its primary key' ELSE 'it' END),
         'Drop it, and create it again afterwards.'
    FROM t JOIN pg_catalog.pg_depend d
      ON d.deptype <> 'i'
     AND (d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid
       OR d.refclassid = 'pg_catalog.pg_type'::regclass
          AND (d.refobjid = t.reltype
            OR d.refobjid = (SELECT y.typarray FROM pg_catalog.pg_type y WHERE y.oid = t.reltype))
       OR d.refclassid = 'pg_catalog.pg_constraint'::regclass
          AND d.refobjid IN (SELECT con.oid FROM pg_catalog.pg_constraint con
                              WHERE con.conrelid = t.oid AND con.contype IN ('p', 'u')))
    LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
   WHERE NOT (d.classid IN ('pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_trigger'::regclass,
                'pg_catalog.pg_publication_rel'::regclass, 'pg_catalog.pg_statistic_ext'::regclass)
              AND d.refclassid = 'pg_catalog.pg_class'::regclass)
     AND d.classid <> 'pg_catalog.pg_constraint'::regclass
     AND NOT (d.classid = 'pg_catalog.pg_policy'::regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.oid = d.objid AND p.polrelid = t.oid))
     AND NOT (d.classid = 'pg_catalog.pg_class'::regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.oid = d.objid
                             AND (o.relkind IN ('i', 'I', 'S', 't')
                               OR EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                           WHERE i.inhrelid = o.oid AND i.inhparent = t.oid))
                             AND d.refclassid = 'pg_catalog.pg_class'::regclass))
     AND COALESCE(r.ev_class <> t.oid, true)
     -- Views, rules and functions are replaced.
     AND (d.refclassid <> 'pg_catalog.pg_class'::regclass
       OR NOT (d.classid = 'pg_catalog.pg_rewrite'::regclass AND v.relkind <> 'm'
               OR d.classid = 'pg_catalog.pg_proc'::regclass))
   UNION ALL
  SELECT DISTINCT pg_catalog.format('%s, which uses it, belongs to another role',
           pg_catalog.pg_describe_object(o.classid, o.objid, 0)),
         'Call convert_table() as a superuser.'
    FROM t JOIN pg_catalog.pg_depend d
      ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid
   CROSS JOIN LATERAL (
     SELECT 'pg_catalog.pg_class'::regclass::oid AS classid, v.oid AS objid, v.relowner AS owner
       FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
      WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid AND v.oid <> t.oid
        AND v.relkind <> 'm'
      UNION ALL
     SELECT d.classid, p.oid, p.proowner FROM pg_catalog.pg_proc p
      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objid) o
   WHERE NOT pg_catalog.pg_has_role(o.owner, 'USAGE')
   UNION ALL
  SELECT pg_catalog.format('view %s, which uses it, is a temporary one of another session', v.oid::regclass),
         'Have that session drop it, or end the session.'
    FROM t JOIN pg_catalog.pg_class v ON v.relkind = 'v' AND pg_catalog.pg_is_other_temp_schema(v.relnamespace)
   WHERE EXISTS (SELECT FROM pg_catalog.pg_depend d
                   JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class = v.oid
                  WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid)
   UNION ALL
  -- A logical table has no rows itself, and so none that are not in its shards.
  SELECT DISTINCT pg_catalog.format('%s uses it with %s', q.user_name, q.clause),
         pg_catalog.format('Replace it by one without %s.', q.clause)
    FROM t
   CROSS JOIN LATERAL (
     SELECT CASE WHEN r.rulename = '_RETURN'
                 THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0)
                 ELSE pg_catalog.pg_describe_object(d.classid, d.objid, 0) END,
            shard_fdw.unfit_clause(r.ev_action, t.oid, t.relkind = 'p')
       FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
      WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid AND r.ev_class <> t.oid
      UNION ALL
     SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0),
            shard_fdw.unfit_clause(p.prosqlbody, t.oid, t.relkind = 'p')
       FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
      WHERE d.classid = 'pg_catalog.pg_proc'::regclass
        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid) q(user_name, clause)
   WHERE q.clause IS NOT NULL
   UNION ALL
  SELECT pg_catalog.format('its owner, role %I, may not create tables in schema %s',
           pg_catalog.pg_get_userbyid(t.relowner), t.relnamespace::regnamespace),
         pg_catalog.format('GRANT CREATE ON SCHEMA %s TO %I', t.relnamespace::regnamespace,
           pg_catalog.pg_get_userbyid(t.relowner))
    FROM t WHERE NOT pg_catalog.has_schema_privilege(t.relowner, t.relnamespace, 'CREATE')
   UNION ALL
  -- New shards are made LIKE it.
  SELECT pg_catalog.format('its owner, role %I, may not read it', pg_catalog.pg_get_userbyid(t.relowner)),
         pg_catalog.format('GRANT SELECT ON %s TO %I', t.name, pg_catalog.pg_get_userbyid(t.relowner))
    FROM t WHERE problems_of.route <> 'hash' AND NOT pg_catalog.has_table_privilege(t.relowner, t.oid, 'SELECT')
   UNION ALL
  SELECT pg_catalog.format('%s %s.%I exists', o.kind, t.relnamespace::regnamespace, problems_of.old_name),
         'Rename it, or call convert_table() with another name for parameter "old_name".'
    FROM t CROSS JOIN LATERAL (
      SELECT 'relation' FROM pg_catalog.pg_class r
       WHERE r.relnamespace = t.relnamespace AND r.relname = problems_of.old_name
       UNION ALL
      -- PostgreSQL renames types of arrays.
      SELECT 'type' FROM pg_catalog.pg_type y
       WHERE y.typnamespace = t.relnamespace AND y.typname = problems_of.old_name
         AND y.typrelid = 0 AND y.typcategory <> 'A') o(kind);
END;
COMMENT ON FUNCTION shard_fdw.problems_of(regclass, text, text[], text)
IS 'what keeps a table from becoming a logical table; for convert_table()';

CREATE FUNCTION shard_fdw.convert_table(
  tbl regclass, shards int, route text DEFAULT 'session', key text DEFAULT NULL,
  options text[] DEFAULT '{}', server name DEFAULT NULL, old_name name DEFAULT NULL,
  dry_run bool DEFAULT false,
  OUT problem text, OUT remedy text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_convert_table'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.convert_table(regclass, int, text, text, text[], name, name, bool)
IS 'makes a logical table of a table, under its name and with its rows; or, if dry_run, tells what is in the way';
