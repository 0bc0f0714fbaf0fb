# check_shards(): what is damaged is found, and the remedies mend it, as psql's
# \gexec runs them.  It locks no table and waits for nobody.
use strict;
use warnings;

use ShardTest;
use Test::More;

my $node = shard_node('check', conf => "wal_level = logical\n");
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE reader;
	CREATE ROLE other;
	GRANT other TO app;
	GRANT USAGE ON FOREIGN SERVER shards TO app;
	GRANT CREATE ON DATABASE postgres TO app;
	GRANT ALL ON SCHEMA public TO app;
	SET ROLE app;
	CREATE SCHEMA "odd %s";
	GRANT ALL ON SCHEMA "odd %s" TO other;
	CREATE TABLE ref (id int PRIMARY KEY);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TABLE model (
	  id bigint PRIMARY KEY,
	  at timestamptz NOT NULL DEFAULT now(),
	  "V v" text NOT NULL,
	  r int REFERENCES ref ON DELETE SET NULL,
	  c int CHECK (c > 0 AND c <> 5),
	  above bigint REFERENCES model,
	  span int4range,
	  list int[],
	  CONSTRAINT "late one" UNIQUE ("V v", id) INCLUDE (c) DEFERRABLE INITIALLY DEFERRED,
	  EXCLUDE USING gist (span WITH &&) WHERE (c > 1),
	  CHECK ("V v" <> 'it''s "$1"' OR list[1] > 0) NO INHERIT);
	CREATE INDEX ON model (lower("V v") COLLATE "C" DESC, c NULLS FIRST) INCLUDE (r)
	  WHERE c > 3 AND "V v" !~ '\\d';
	CREATE UNIQUE INDEX ON model ("V v" text_pattern_ops, id) NULLS NOT DISTINCT
	  WITH (fillfactor = 70);
	CREATE INDEX ON model USING hash (r);
	CREATE INDEX ON model USING gin (list);
	CREATE INDEX ON model USING brin ((c + 1), (list[1])) WITH (pages_per_range = 4);
	CREATE TRIGGER before BEFORE UPDATE OF c, "V v" ON model FOR EACH ROW
	  WHEN (old.* IS DISTINCT FROM new.* AND new.c > 3) EXECUTE FUNCTION note('a', E'b\\\\c''d');
	CREATE TRIGGER stored AFTER INSERT ON model REFERENCING NEW TABLE AS added
	  FOR EACH STATEMENT EXECUTE FUNCTION note();
	CREATE CONSTRAINT TRIGGER at_end AFTER DELETE ON model DEFERRABLE INITIALLY DEFERRED
	  FOR EACH ROW EXECUTE FUNCTION note('');
	ALTER TABLE model ENABLE ALWAYS TRIGGER stored;
	CREATE FOREIGN TABLE "odd %s"."Log" (id bigint OPTIONS (sequence 'always'),
	  at timestamptz NOT NULL DEFAULT now(), "V v" text NOT NULL, r int, c int, above bigint,
	  span int4range, list int[])
	  SERVER shards OPTIONS (shards '4', template 'model', max_shards '10', time_column 'at',
	                         maintenance 'manual');
	INSERT INTO "odd %s"."Log" ("V v", c) SELECT g::text, 1 FROM generate_series(1, 100) g;
	CREATE TABLE key_model (k int PRIMARY KEY);
	CREATE FOREIGN TABLE keys (k int NOT NULL) SERVER shards
	  OPTIONS (shards '4', route 'hash', key 'k', template 'key_model');
	INSERT INTO keys SELECT generate_series(1, 1000);
	CREATE PUBLICATION "some of it"});

my %sessions = map { $_ => session($node, $_) } 'app', 'postgres';

# What check_shards() finds as the owner: one line for each problem.
sub problems
{
	my ($arguments) = @_;
	my ($state, $message, $output) = state_of($sessions{app},
		"SELECT shard, problem, remedy FROM shard_fdw.check_shards($arguments)");

	return $state eq '00000' ? $output : "$state $message";
}

# Have psql run the remedies.  Returns the first error.
sub mend
{
	my ($arguments, $user) = @_;
	my ($state, $message) = state_of($sessions{ $user // 'app' },
		"SELECT remedy FROM shard_fdw.check_shards($arguments) \\gexec");

	return $state eq '00000' ? '' : "$state $message";
}

# What core says of a shard, its name apart.
sub described
{
	return $sessions{postgres}->query_safe(q{
		SELECT string_agg(DISTINCT d, E'\n')
		  FROM (SELECT string_agg(l, E'\n' ORDER BY l COLLATE "C") AS d
		          FROM pg_inherits i
		          JOIN pg_class c ON c.oid = inhrelid
		         CROSS JOIN LATERAL (
		           SELECT regexp_replace(replace(t, c.oid::regclass::text, 'TABLE'),
		                    'INDEX \S+', 'INDEX')
		             FROM (SELECT concat(pg_get_indexdef(indexrelid), indisvalid) FROM pg_index
		                    WHERE indrelid = c.oid
		                    UNION ALL
		                   SELECT pg_get_constraintdef(oid) FROM pg_constraint
		                    WHERE conrelid = c.oid AND contype <> 'n' AND conname !~ '^shard_'
		                    UNION ALL
		                   SELECT concat(pg_get_triggerdef(oid), tgenabled) FROM pg_trigger
		                    WHERE tgrelid = c.oid AND NOT tgisinternal
		                    UNION ALL
		                   SELECT concat(attname, attnotnull, attacl::text)
		                     FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0
		                    UNION ALL
		                   SELECT concat(relreplident, relowner::regrole)
		                    UNION ALL
		                   SELECT COALESCE(relacl, acldefault('r', relowner))::text
		                    UNION ALL
		                   SELECT p::text FROM pg_publication_tables p
		                    WHERE tablename = relname AND quote_ident(schemaname)::regnamespace = relnamespace)
		               t(t)) l(l)
		         WHERE inhparent = '"odd %s"."Log"'::regclass
		         GROUP BY c.oid) d}) =~ s/Log_\d/Log_N/gr;
}

my $log = q{'"odd %s"."Log"'};
my $whole = described();

is(problems($log), '', 'new shards have no problem');
is(problems("$log, 'model'"), '', 'nor compared with the template');
is(problems(q{'keys'}), '', 'nor those of a hash table');

# Each damage to a shard, and what each problem is that comes of it.
my $shard = '"odd %s"."Log_1"';
my $alter = "ALTER TABLE $shard";
my $drop = 'DROP INDEX "odd %s"';
foreach (
	[ "$drop.\"Log_1_lower_c_r_idx\"",   qr/^index is missing: USING btree/ ],
	[ "$drop.\"Log_1_V v_id_idx\"",      qr/^index is missing: UNIQUE USING btree .*NULLS NOT/ ],
	[ "$drop.\"Log_1_r_idx\"",           qr/^index is missing: USING hash/ ],
	[ "$drop.\"Log_1_list_idx\"",        qr/^index is missing: USING gin/ ],
	[ "$drop.\"Log_1_expr_list_idx\"",   qr/^index is missing: USING brin/ ],
	[ "$alter DROP CONSTRAINT \"Log_1_pkey\" CASCADE", qr/^(?:primary|foreign) key / ],
	[ "$alter DROP CONSTRAINT \"Log_1_V v_id_c_key\"", qr/^unique constraint is missing/ ],
	[ "$alter DROP CONSTRAINT \"Log_1_span_excl\"",    qr/^exclusion constraint is missing/ ],
	[ "$alter DROP CONSTRAINT model_c_check",          qr/^CHECK constraint / ],
	[ "$alter DROP CONSTRAINT model_check",         qr/^CHECK constraint / ],
	[ "$alter DROP CONSTRAINT \"Log_1_r_fkey\"",       qr/^foreign key / ],
	[ "$alter DROP CONSTRAINT \"Log_1_above_fkey\"",   qr/^foreign key / ],
	[
		"$alter DROP CONSTRAINT \"Log_1_r_fkey\",
			ADD FOREIGN KEY (r) REFERENCES ref ON DELETE SET NULL NOT VALID",
		qr/^constraint is not validated: "Log_1_r_fkey"/
	],
	[
		"$alter DROP CONSTRAINT shard_slot, ADD CONSTRAINT shard_slot
			CHECK (shard_fdw.in_slot(10, 2, id)) NOT VALID",
		qr/^constraint is not validated: shard_slot/
	],
	[
		"SELECT shard_fdw.close_shard('$shard');
		$alter ADD CONSTRAINT shard_range CHECK (at IS NOT NULL AND at >= '2000-01-01'
			AND at <= '2100-01-01') NOT VALID",
		qr/^constraint is not validated: shard_range/
	],
	[ "SELECT shard_fdw.open_shard('$shard')", undef ],
	[ "DROP TRIGGER before ON $shard", qr/^trigger is missing: before/ ],
	[ "DROP TRIGGER stored ON $shard", qr/^trigger is missing: stored/ ],
	[ "DROP TRIGGER at_end ON $shard", qr/^trigger is missing: at_end/ ],
	[
		"CREATE OR REPLACE TRIGGER before BEFORE UPDATE ON $shard
			FOR EACH ROW EXECUTE FUNCTION note()",
		qr/^trigger differs: before/
	],
	[ "$alter DISABLE TRIGGER before", qr/^trigger before is not in the state ENABLE$/ ],
	[ "$alter ENABLE TRIGGER stored",  qr/^trigger stored is not in the state ENABLE ALWAYS$/ ],
	[ "$alter REPLICA IDENTITY FULL",  qr/^replica identity is not DEFAULT$/ ],
	[ "$alter OWNER TO other",         qr/^owner is other$/, 'postgres' ],
	[
		"SELECT setval(sequence, 2) FROM shard_fdw.sequences WHERE tbl = '$shard'::regclass",
		qr/^sequence \S+ \S+ gives values of column id that are there already$/
	],
	# What is only about one shard's rows is no problem of the others.
	[ "SELECT shard_fdw.seal('$shard')",   undef ],
	[ "SELECT shard_fdw.unseal('$shard')", undef ],
	[
		"SELECT shard_fdw.seal(shard) FROM shard_fdw.list_shards('\"odd %s\".\"Log\"')
			WHERE ordinal > 0", undef
	],
	[
		"SELECT shard_fdw.unseal(shard) FROM shard_fdw.list_shards('\"odd %s\".\"Log\"')
			WHERE ordinal > 0", undef
	])
{
	my ($command, $problem, $user) = @$_;
	my ($title) = $command =~ /(.*)/;
	my @found;

	is((state_of($sessions{postgres}, $command))[1], '', $title);
	@found = split(/\n/, problems($log));
	if (!defined $problem)
	{
		is("@found", '', "$title: no problem");
		next;
	}
	isnt("@found", '', "$title: found");
	is(join("\n", grep { my @f = split(/\|/); $f[0] ne $shard || $f[1] !~ $problem } @found),
		'', "$title: what is found");
	is(mend($log, $user), '', "$title: the remedies run");
	is(problems($log), '', "$title: then all is well");
	is(described(), $whole, "$title: the shards are alike");
}

# What is on half of the shards is meant for all.
sub spread_ok
{
	my ($title, @commands) = @_;

	is((state_of($sessions{app}, $_))[1], '', "$title: $_") foreach @commands;
	my @found = split(/\n/, problems($log));

	is(@found, 2, "$title: found") or diag("@found");
	is(mend($log), '', "$title: the remedies run");
	is(problems($log), '', "$title: then all is well");
	is($sessions{postgres}->query_safe(qq{SELECT count(DISTINCT (
		SELECT string_agg(concat(f.kind, f.definition, f.state), ' '
		         ORDER BY f.rank, f.definition COLLATE "C")
		  FROM shard_fdw.features_of(shard) f)) FROM shard_fdw.list_shards($log)}),
		'1', "$title: the shards are alike");
}
my @half = map { "\"odd %s\".\"Log_$_\"" } 0, 3;
spread_ok('privilege', map { "GRANT SELECT ON $_ TO reader" } @half);
spread_ok('privilege on a column', map { "GRANT UPDATE (\"V v\") ON $_ TO PUBLIC" } @half);
spread_ok('privilege to grant', map { "GRANT SELECT ON $_ TO reader WITH GRANT OPTION" } @half);
spread_ok('publication',
	map { "ALTER PUBLICATION \"some of it\" ADD TABLE $_ (id, c) WHERE (id > 1)" } @half);
spread_ok('NOT NULL constraint', map { "ALTER TABLE $_ ALTER c SET NOT NULL" } @half);
spread_ok('index', map { "CREATE INDEX ON $_ (at)" } @half);
$sessions{app}->query_safe("ALTER TABLE \"odd %s\".\"Log_$_\"
	REPLICA IDENTITY USING INDEX \"Log_${_}_pkey\"") foreach 0, 2, 3;
is(problems($log), "$shard|replica identity is not an index PRIMARY KEY (id)|"
	. "$alter REPLICA IDENTITY USING INDEX \"Log_1_pkey\"", 'an index as replica identity');
is(mend($log), '', 'an index as replica identity: the remedies run');
is(problems($log), '', 'an index as replica identity: then all is well');

$sessions{app}->query_safe("ALTER TABLE $_ ADD CONSTRAINT few CHECK (c < 10)") foreach @half;
is(problems($log), '', 'a CHECK constraint of half of the shards may be about their rows');
$sessions{app}->query_safe("ALTER TABLE $_ DROP CONSTRAINT few") foreach @half;

# What fewer shards have is not, unless the template has it.
$sessions{app}->query_safe("CREATE INDEX ON $shard (at, c); CREATE INDEX ON model (at, c)");
is(problems($log), '', 'an index that only one shard has');
is(scalar(() = problems("$log, 'model'") =~ /\|index is missing: USING btree \(at, c\)\|/g),
	3, 'an index that the template has');
is(mend("$log, 'model'"), '', 'an index that the template has: the remedies run');
is(problems("$log, 'model'"), '', 'an index that the template has: then all is well');

# An index that could not be built, and one that is there twice.
state_of($sessions{app}, "UPDATE $shard SET list = '{1}'");
state_of($sessions{app}, "CREATE UNIQUE INDEX CONCURRENTLY failed ON $shard (list)");
like(problems($log),
	qr/^\Q$shard\E\|index is not valid: failed\|REINDEX INDEX CONCURRENTLY "odd %s"\.failed$/,
	'an index that is not valid');
$sessions{app}->query_safe("UPDATE $shard SET list = ARRAY[id]");
is(mend($log), '', 'an index that is not valid is built');
is(problems($log), '', 'an index that is not valid is built: then all is well');
$sessions{postgres}->query_safe(qq{CREATE UNIQUE INDEX again ON $shard (list);
	UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"odd %s".again'::regclass});
like(problems($log), qr/\|DROP INDEX CONCURRENTLY "odd %s"\.again$/, 'an index that is there twice');
is(mend($log), '', 'an index that is there twice is dropped');
is(problems($log), '', 'an index that is there twice is dropped: then all is well');

# A name that is taken.
$sessions{app}->query_safe(
	"$alter DROP CONSTRAINT model_c_check, ADD CONSTRAINT model_c_check CHECK (c > 0)");
like(problems($log), qr/ ADD CONSTRAINT "?model_c_check_/, 'a name that is taken');
is(mend($log), '', 'a name that is taken: the remedies run');
is(problems($log), '', 'a name that is taken: then all is well');

# Places.
my $keys = q{'keys'};
foreach (
	[
		'ALTER TABLE keys_2 DROP CONSTRAINT shard_hash',
		qr/^(?:keys_2\|no CHECK constraint says which hashes .*(?:\n|\z)){2}\z/
	],
	[
		'ALTER TABLE keys_2 DROP CONSTRAINT shard_hash,
			ADD CHECK (shard_fdw.in_hash(4, 2, k)) NOT VALID',
		qr/^keys_2\|constraint is not validated: keys_2_k_check\|.*\z/
	],
	[ 'DROP TABLE keys_1', qr/^\|no shard of public\.keys holds some hashes of the key\|.*, 1\)\z/ ])
{
	my ($command, $wanted) = @$_;
	my ($title) = $command =~ /(.*)/;

	state_of($sessions{app}, $command);
	like(problems($keys), $wanted, "$title: what is found");
	is(mend($keys), '', "$title: the remedies run");
	is(problems($keys), '', "$title: then all is well");
}
$sessions{app}->query_safe(
	'CREATE TABLE twice (LIKE key_model INCLUDING ALL, CHECK (shard_fdw.in_hash(2, 0, k)))');
state_of($sessions{app}, 'ALTER TABLE twice INHERIT keys');
like(problems($keys), qr/^twice\|shard holds hashes that are also in public\.keys_0, public\.keys_2\|$/m,
	'hashes that several shards hold, of which somebody has to choose');
state_of($sessions{app}, 'DROP TABLE twice');

# Shards without a sequence, and of other kinds.
state_of($sessions{app}, 'ALTER TABLE "odd %s"."Log_2" ALTER id DROP DEFAULT');
like(problems($log), qr/Log_2"\|column id has no sequence\|.*reset_sequences\(.*\)$/,
	'a shard without a sequence');
is(mend($log), '', 'a shard without a sequence gets one');
is(problems($log), '', 'a shard without a sequence gets one: then all is well');
state_of($sessions{postgres}, q{CREATE EXTENSION postgres_fdw;
	CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
	CREATE FOREIGN TABLE keys_far () INHERITS (keys) SERVER far;
	CREATE TEMP TABLE keys_temp () INHERITS (keys);
	ALTER FOREIGN TABLE keys_far OWNER TO app});
is(problems($keys), 'keys_far|no CHECK constraint says which hashes of the key the shard holds|',
	'a foreign table among the shards, and a temporary one');
state_of($sessions{postgres}, 'DROP TABLE keys_temp; DROP FOREIGN TABLE keys_far');

# Who calls it, and for what.
is($node->safe_psql('postgres', "SET ROLE reader; SELECT count(*) FROM shard_fdw.check_shards($keys)"),
	'0', 'anybody can look');
is($node->safe_psql('postgres', 'SELECT count(*) FROM shard_fdw.check_shards(NULL)'),
	'0', 'no table');
fails($node, q{SELECT * FROM shard_fdw.check_shards('model')},
	'42809', '"model" is not a foreign table of shard_fdw');
$sessions{app}->query_safe(q{CREATE FOREIGN TABLE empty (id int) SERVER shards});
is(problems(q{'empty'}), '', 'a table without shards');

# The text of expressions is what core says, which locks the table for it, apart
# from line breaks and needless parentheses.
my $xml = has_libxml()
  ? q{, CHECK (xmlserialize(CONTENT '<a/>'::xml AS text) = "B $2 ""c""")} : '';
$sessions{app}->query_safe((q{
	CREATE TYPE pair AS (x int, "Y $1" text);
	CREATE TABLE expressions (a int, "B $2 ""c""" text, d date[], e pair, f jsonb, g numeric(5, 2),
	  CHECK (a IS NOT NULL AND "B $2 ""c""" <> '$1 "a" ''$2'' \\'),
	  CHECK (CASE WHEN a > 1 THEN "B $2 ""c""" LIKE E'x\\n$3%' WHEN a IS NULL THEN false ELSE true END),
	  CHECK (d[1] > '2026-01-01' AND d[a:a + 1] <> '{}' AND NOT d @> ARRAY['2026-02-03'::date]),
	  CHECK ((e).x > 1 OR (e)."Y $1" ~ '\\d$4'), CHECK (e IS NOT NULL), CHECK (e IS DISTINCT FROM ROW(1, '$1')),
	  CHECK (f ->> '$5' IN ('a', 'b') OR f @? '$.a[*] ? (@ > 1)'), CHECK (g BETWEEN 1 AND 2.50),
	  CHECK (COALESCE(a, length("B $2 ""c"""), 0) = ANY ('{1,2}'::int[])), CHECK ((a, g) < (1, 2)),
	  CHECK (("B $2 ""c""" COLLATE "C")::varchar(3) > 'x' AND may_be(a => a, b => "B $2 ""c""")),
	  CHECK (NULLIF(a, 1) IS NULL IS TRUE), CHECK (GREATEST(a, -1) > extract(year FROM d[1])),
	  CHECK (a::text::pair IS NULL)} . "$xml)")
	=~ s/CREATE TABLE/CREATE FUNCTION may_be(a int, b text) RETURNS bool IMMUTABLE
		LANGUAGE sql AS 'SELECT true'; CREATE TABLE/r);
is($sessions{postgres}->query_safe(q{
	SELECT count(*) > 30, string_agg(concat_ws(E'\n', theirs, ours), E'\n')
	         FILTER (WHERE regexp_replace(regexp_replace(ours, '\s', '', 'g'),
	                                      '\((d|list)\)\[', '\1[', 'g')
	                       IS DISTINCT FROM regexp_replace(theirs, '\s', '', 'g'))
	  FROM (SELECT pg_get_expr(conbin, conrelid), shard_fdw.expression_of(conbin, conrelid, 1)
	          FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0
	         UNION ALL
	        SELECT pg_get_expr(indpred, indrelid), shard_fdw.expression_of(indpred, indrelid, 1)
	          FROM pg_index WHERE indpred IS NOT NULL) e(theirs, ours)}), 't|',
	'texts of expressions');

# Nobody's code is run, and no table is locked: it does not wait, nor does
# anybody have to wait for it.
$sessions{app}->query_safe(q{
	CREATE FUNCTION failing(int) RETURNS bool IMMUTABLE
	  LANGUAGE plpgsql AS 'BEGIN RAISE ''the owner''''s function has run''; END';
	CREATE DOMAIN nasty AS int CHECK (failing(1));
	CREATE TABLE nasty_model (id int, n nasty, CHECK (failing(id) AND id::nasty > 0));
	CREATE INDEX ON nasty_model (failing(id)) WHERE failing(id + 1);
	CREATE FOREIGN TABLE nasty_log (id int, n nasty) SERVER shards
	  OPTIONS (shards '2', template 'nasty_model');
	ALTER TABLE nasty_log_1 ADD CHECK (failing(1) AND 1 / 0 = 1) NOT VALID});
$node->safe_psql('postgres', 'CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap TO app');
$sessions{app}->query_safe(q{
	CREATE FUNCTION trap.op(name, text) RETURNS bool
	  LANGUAGE plpgsql AS 'BEGIN RAISE ''trap''; END';
	CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = text, FUNCTION = trap.op)});
is( $node->safe_psql('postgres', q{SET search_path = trap, pg_catalog;
		SELECT problem FROM shard_fdw.check_shards('public.nasty_log')}),
	'constraint is not validated: nasty_log_1_check', q{it runs nobody's code});

my ($locker, $checker) = (session($node), session($node, 'app'));
$checker->query_safe(q{SET lock_timeout = 1; SET statement_timeout = '60s'});
foreach my $command (
	'LOCK TABLE "odd %s"."Log_0", "odd %s"."Log_1", "odd %s"."Log_2", "odd %s"."Log_3", model',
	'ALTER FOREIGN TABLE "odd %s"."Log" ADD more int',
	'DROP INDEX "odd %s"."Log_1_lower_c_r_idx"',
	'ALTER TABLE "odd %s"."Log_1" DROP CONSTRAINT "Log_1_r_fkey", DISABLE TRIGGER before',
	'DROP FOREIGN TABLE "odd %s"."Log" CASCADE')
{
	$locker->query_safe('BEGIN');
	is((state_of($locker, $command))[1], '', $command);
	is((state_of($checker, "SELECT count(*) FROM shard_fdw.check_shards($log, 'model')"))[2],
		'0', "$command: does not have it wait");
	state_of($locker, 'ROLLBACK');
}
is( (state_of($checker, qq{BEGIN;
		SELECT count(*) FROM shard_fdw.check_shards($log, 'model');
		SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = relation
		 WHERE pid = pg_backend_pid() AND (mode <> 'AccessShareLock'
		       OR relnamespace NOT IN ('pg_catalog'::regnamespace, 'shard_fdw'::regnamespace));
		COMMIT}))[2], "0\n0", 'it has no lock on tables');
$_->quit foreach $locker, $checker, values %sessions;
$node->stop;
done_testing();
