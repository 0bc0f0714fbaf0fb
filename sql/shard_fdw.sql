\echo Use "CREATE EXTENSION shard_fdw" to load this file. \quit

-- The schema is shard_fdw (see shard_fdw.control).
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

CREATE FUNCTION shard_fdw.on_ddl_end()
RETURNS event_trigger
AS 'MODULE_PATHNAME', 'shard_on_ddl_end'
LANGUAGE C;
COMMENT ON FUNCTION shard_fdw.on_ddl_end()
IS 'carries out the options "shards" and "template" of CREATE FOREIGN TABLE';

CREATE EVENT TRIGGER shard_fdw_on_ddl_end ON ddl_command_end
  WHEN TAG IN ('CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'ALTER TABLE')
  EXECUTE FUNCTION shard_fdw.on_ddl_end();
-- Also in sessions that replay changes: a table asked for with shards is of
-- no use without them.
ALTER EVENT TRIGGER shard_fdw_on_ddl_end ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER shard_fdw_on_ddl_end
IS 'creates the shards that CREATE FOREIGN TABLE asks for';

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
-- Looking at shards
--

CREATE FUNCTION shard_fdw.list_shards(
  logical regclass, OUT shard regclass, OUT ordinal int, OUT state text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_list_shards'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION shard_fdw.list_shards(regclass)
IS 'the shards of a logical table in ordinal order, and whether they take inserts';

CREATE FUNCTION shard_fdw.last_shard()
RETURNS regclass
AS 'MODULE_PATHNAME', 'shard_last_shard'
LANGUAGE C VOLATILE;
COMMENT ON FUNCTION shard_fdw.last_shard()
IS 'the shard that this session''s last row went to';

-- The number is LEASE_LOCK_KIND in route.c.
CREATE VIEW shard_fdw.leases AS
SELECT i.inhparent::regclass AS logical,
       c.oid::regclass AS shard,
       l.pid,
       l.objid::bigint AS level
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid = l.classid
  JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
  JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = i.inhparent
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 WHERE l.locktype = 'advisory'
   AND l.objsubid = 28784
   AND l.granted
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                      WHERE d.datname = pg_catalog.current_database())
   AND fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc;
COMMENT ON VIEW shard_fdw.leases
IS 'which session inserts into which shard';

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
            THEN pg_catalog.pg_total_relation_size(s.shard)
        END AS bytes,
       COALESCE(l.sessions, 0) AS sessions
  FROM pg_catalog.pg_foreign_table ft
  JOIN pg_catalog.pg_foreign_server fs ON fs.oid = ft.ftserver
  JOIN pg_catalog.pg_foreign_data_wrapper fdw ON fdw.oid = fs.srvfdw
 CROSS JOIN LATERAL shard_fdw.list_shards(ft.ftrelid) s
  JOIN pg_catalog.pg_class c ON c.oid = s.shard
  LEFT JOIN pg_catalog.pg_foreign_table rt ON rt.ftrelid = s.shard
  LEFT JOIN pg_catalog.pg_foreign_server remote ON remote.oid = rt.ftserver
  LEFT JOIN (SELECT shard, pg_catalog.count(*) AS sessions
               FROM shard_fdw.leases
              GROUP BY shard) l ON l.shard = s.shard
 WHERE fdw.fdwhandler = 'shard_fdw.shard_fdw_handler'::regproc;
COMMENT ON VIEW shard_fdw.shards
IS 'all shards of all logical tables';

GRANT SELECT ON shard_fdw.leases, shard_fdw.shards TO PUBLIC;

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
IS 'lets a sealed shard take inserts again';

CREATE FUNCTION shard_fdw.run_command_on_shards(
  logical regclass, command text,
  OUT shard regclass, OUT success bool, OUT result text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'shard_run_command_on_shards'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION shard_fdw.run_command_on_shards(regclass, text)
IS 'runs a command on every shard; %s in it is the shard''s name';

CREATE FUNCTION shard_fdw.format_on_shards(logical regclass, command text)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'shard_format_on_shards'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION shard_fdw.format_on_shards(regclass, text)
IS 'the command for every shard as text, for psql''s \gexec; %s in it is the shard''s name';
