# sqlsmith's random queries: no crash, and no internal error that plain tables
# do not have, too.
#
# There are two databases with the same tables, rows, sequences and names.  In
# one the logical tables are foreign tables of shard_fdw, in the other plain ones
# with the shards as their inheritance children.  A statement that fails with an
# internal error (SQLSTATE XX...) is repeated in the other database.  If it
# fails there with the same message, that is PostgreSQL's.  So it is if it fails
# in the first database without this library in the process.  Which rows a
# function gets to see depends on the plan, so several are tried.
#
# sqlsmith calls whatever functions it finds.  It runs as a role that has no
# rights but on these tables, which it owns; what it does is rolled back.  It
# looks for functions in "pg_proc", which a search path makes a view: either of
# those that it can call (without pseudotypes), or mostly of this extension's.
#
# To look for more:
#   SHARD_SMITH_SEED=1-20 SHARD_SMITH_QUERIES=5000 test/with-cluster -l test/suite test/t/sqlsmith.t
use strict;
use warnings;

use IPC::Run;
use ShardTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'NOT TESTED: sqlsmith is not installed (Debian has a package of that name)'
  if !grep { -x "$_/sqlsmith" } split(/:/, $ENV{PATH});

my @seeds = map { /^(\d+)-(\d+)$/ ? ($1 .. $2) : $_ }
  split(' ', $ENV{SHARD_SMITH_SEED} // '1 2');
my $queries = $ENV{SHARD_SMITH_QUERIES} // 600;

my $node = shard_node('sqlsmith', conf => qq{
	session_preload_libraries = 'shard_fdw'
	log_line_prefix = '%d|'
	log_error_verbosity = verbose
	log_min_error_statement = error
	jit = off
	enable_partitionwise_join = on
	enable_partitionwise_aggregate = on
	max_parallel_workers_per_gather = 2
	min_parallel_table_scan_size = 0
	min_parallel_index_scan_size = 0
	parallel_setup_cost = 10
});

$node->safe_psql('postgres', q{
	CREATE ROLE smith LOGIN;
	ALTER ROLE smith SET statement_timeout = '1min';    -- sqlsmith sets 1 s
	ALTER ROLE smith SET client_min_messages = error;
});

# Make the tables.  Logical tables and their shards are named alike, so that
# statements can be repeated.
sub create_tables
{
	my ($database, $is_logical) = @_;
	my $sql = '';
	my @tables = (
		[ 'by_session', 3, '', 'id int, grp int, val int, txt text, num numeric, at timestamptz' ],
		[
			'by_turns', 3,
			", route 'round_robin'",
			'id int, grp int, val int, txt text, flag boolean, day date'
		],
		[
			'by_hash', 4,
			", route 'hash', key 'id'",
			'id int, grp int, val int, txt text, num numeric'
		],
		[
			'by_two', 3,
			", route 'hash', key 'grp, txt'",
			'id int, grp int, txt text, doc jsonb, tags int[]'
		],
		[ 'in_order', 2, ", commit_order 'true'", 'grp int, val int, txt text' ]);

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	setup_shards($node, $database);
	$node->safe_psql($database, q{
		CREATE SCHEMA callable AUTHORIZATION smith;
		CREATE SCHEMA own AUTHORIZATION smith;
		GRANT CREATE ON SCHEMA public TO smith;
		GRANT USAGE ON FOREIGN SERVER shards TO smith;
		REVOKE EXECUTE ON FUNCTION pg_terminate_backend, pg_cancel_backend, set_config,
		  pg_sleep, pg_sleep_for, pg_sleep_until FROM PUBLIC;
	});
	foreach my $table (@tables)
	{
		my ($name, $shards, $options, $columns) = @$table;
		my $id = $name eq 'in_order' ? ', id bigint' : '';

		$sql .= "CREATE TABLE ${name}_model ($columns);\n";
		$sql .= "CREATE INDEX ON ${name}_model (grp);\n";
		$sql .= "ALTER TABLE ${name}_model ADD PRIMARY KEY (id);\n" if $name eq 'by_hash';
		$sql .= "ALTER TABLE ${name}_model ADD UNIQUE (grp, txt);\n" if $name eq 'by_two';
		if ($is_logical)
		{
			$id .= " OPTIONS (sequence 'always')" if $id;
			$sql .= "CREATE FOREIGN TABLE $name ($columns$id) SERVER shards
				OPTIONS (shards '$shards', template '${name}_model'$options);\n";
		}
		else
		{
			$sql .= "CREATE TABLE $name ($columns$id);\n";
			$sql .= "CREATE TABLE ${name}_$_ (LIKE ${name}_model INCLUDING ALL)
				INHERITS ($name);\n" foreach 0 .. $shards - 1;
		}
	}
	$sql .= q{
		CREATE TABLE by_turns_9 (extra text, day date, flag boolean, gone int, txt text, val int,
		  grp int, id int);
		ALTER TABLE by_turns_9 DROP gone;
		ALTER TABLE by_turns_9 INHERIT by_turns;
		CREATE TABLE child () INHERITS (by_session_1);
		CREATE TABLE plain (id int PRIMARY KEY, grp int, txt text);
		INSERT INTO plain SELECT g, g % 5, 'row ' || g FROM generate_series(1, 50) g;
		CREATE VIEW joined AS
		  SELECT h.id, h.txt, s.num, t.day FROM by_hash h JOIN by_session s USING (id)
		    LEFT JOIN by_turns t USING (id);
		CREATE VIEW grouped AS SELECT grp, count(*) AS n, max(val) AS val FROM by_hash GROUP BY grp;
		CREATE VIEW few AS SELECT id, grp, txt FROM by_session WHERE val < 10;
		-- values for the arguments of functions
		CREATE TABLE names AS
		SELECT oid::regclass AS tbl, relname AS name, relname::text AS txt, oid, relnatts::int
		  AS n, ARRAY['shards=2'] AS options
		  FROM pg_class WHERE relnamespace = 'public'::regnamespace
		  AND relname ~ '^((by|in)_[a-z]+(_1)?|plain|joined)$' AND relname !~ 'model';

		-- sqlsmith calls no functions that return sets, and sees no "any"
		CREATE FUNCTION w_create(regclass, int, regclass) RETURNS bigint
		  LANGUAGE sql AS 'SELECT count(*) FROM shard_fdw.create_shards($1, $2 % 4, $3)';
		CREATE FUNCTION w_create(regclass, int) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.create_shards($1, $2)';
		CREATE FUNCTION w_reshard(regclass, int) RETURNS bigint
		  LANGUAGE sql AS 'SELECT shard_fdw.reshard($1, $2 % 8)';
		CREATE FUNCTION w_seal(regclass) RETURNS text
		  LANGUAGE sql AS 'SELECT shard_fdw.seal($1)::text';
		CREATE FUNCTION w_unseal(regclass) RETURNS text
		  LANGUAGE sql AS 'SELECT shard_fdw.unseal($1)::text';
		CREATE FUNCTION w_run(regclass, text) RETURNS text LANGUAGE sql AS 'SELECT max(result)
		  FROM shard_fdw.run_command_on_shards($1, $2)';
		CREATE FUNCTION w_drop(regclass) RETURNS text
		  LANGUAGE sql AS $$SELECT max(result)
		    FROM shard_fdw.run_command_on_shards($1, 'DROP TABLE %s')$$;
		CREATE FUNCTION w_detach(regclass) RETURNS text
		  LANGUAGE sql AS $$SELECT max(result)
		    FROM shard_fdw.run_command_on_shards($1, 'ALTER TABLE %s NO INHERIT ' || $1)$$;
		CREATE FUNCTION w_format(regclass, text) RETURNS text LANGUAGE sql AS 'SELECT max(f)
		  FROM shard_fdw.format_on_shards($1, $2) f';
		CREATE FUNCTION w_list(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.list_shards($1)';
		CREATE FUNCTION w_reset(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.reset_sequences($1)';
		CREATE FUNCTION w_own(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.own_sequences($1)';
		CREATE FUNCTION w_register(regclass, text, name) RETURNS text
		  LANGUAGE sql AS 'SELECT shard_fdw.register_consumer($1, $2, $3)::text';
		CREATE FUNCTION w_register(text) RETURNS text
		  LANGUAGE sql AS $$SELECT shard_fdw.register_consumer('in_order', $1, 'id')::text$$;
		CREATE FUNCTION w_drop_consumer(regclass, text) RETURNS text
		  LANGUAGE sql AS 'SELECT shard_fdw.drop_consumer($1, $2)::text';
		CREATE FUNCTION w_read(text, int, bigint) RETURNS bigint LANGUAGE sql AS $$
		  SELECT shard_fdw.register_consumer('in_order', $1, 'id');
		  SELECT count(*) FROM shard_fdw.read_batch(NULL::in_order, $1, $2, $3)$$;
		CREATE FUNCTION w_read(text) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.read_batch(NULL::by_hash, $1)';
		CREATE FUNCTION w_dequeue(int, name) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.dequeue(NULL::by_turns, $1, $2)';
		CREATE FUNCTION w_dequeue(int) RETURNS bigint LANGUAGE sql AS 'SELECT max(id)
		  FROM shard_fdw.dequeue(NULL::by_hash, $1)';
		CREATE FUNCTION w_check(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT count(*)
		  FROM shard_fdw.check_order($1)';
		CREATE FUNCTION w_in_hash(int, int, int) RETURNS boolean
		  LANGUAGE sql AS 'SELECT shard_fdw.in_hash($1, $2, $3)';
		CREATE FUNCTION w_in_hash(int, int, text, numeric) RETURNS boolean
		  LANGUAGE sql AS 'SELECT shard_fdw.in_hash($1, $2, $3, $4)';
		CREATE FUNCTION w_in_hash(int, int, jsonb, name) RETURNS boolean
		  LANGUAGE sql AS 'SELECT shard_fdw.in_hash($1, $2, $3, $4)';
		CREATE FUNCTION w_insert(int, text) RETURNS bigint LANGUAGE sql AS $$
		  WITH i AS (INSERT INTO by_session (id, txt) VALUES ($1, $2) RETURNING id)
		    SELECT count(*) FROM i$$;
		CREATE FUNCTION w_insert(int) RETURNS bigint LANGUAGE sql AS $$
		  WITH i AS (INSERT INTO by_hash (id) SELECT g
		    FROM generate_series($1, $1 + 5) g ON CONFLICT DO NOTHING RETURNING id)
		  SELECT count(*) FROM i$$;

		CREATE VIEW callable.pg_proc AS
		SELECT * FROM pg_catalog.pg_proc p
		 WHERE proname !~ '^w_' AND has_function_privilege(oid, 'EXECUTE') AND NOT EXISTS (
		   SELECT FROM unnest(prorettype || proargtypes::oid[]) a JOIN pg_type t ON t.oid = a
		     WHERE typtype = 'p');
		-- it would make nulls of pseudotypes
		CREATE VIEW callable.pg_type AS
		SELECT oid, typnamespace, typdelim, typrelid, typelem, typarray,
		       CASE WHEN instead IS NULL THEN typtype ELSE 'b' END
		         AS typtype, coalesce(instead, typname) AS typname
		  FROM pg_catalog.pg_type
		  LEFT JOIN (VALUES ('anyelement', 'int4'), ('anynonarray', 'int4'), ('any', 'int4'),
		                    ('anycompatible', 'int4'),
		                    ('anycompatiblenonarray', 'int4'), ('anyenum', 'text'),
		                    ('anycompatiblearray', '_int4'), ('anyrange', 'int4range'),
		                    ('anycompatiblerange', 'int4range'),
		                    ('anymultirange', 'int4multirange'),
		                    ('anycompatiblemultirange', 'int4multirange')
		            ) v (typname, instead) USING (typname);
		CREATE VIEW own.pg_type AS SELECT * FROM callable.pg_type;
		CREATE VIEW own.pg_proc AS
		SELECT * FROM pg_catalog.pg_proc
		 WHERE proname ~ '^w_' OR pronamespace = 'shard_fdw'::regnamespace
		    OR oid::regprocedure::text IN ('lower(text)', 'abs(integer)', 'length(text)',
		      'int8(integer)', 'now()', 'version()')
		    OR prokind = 'a' AND proname IN ('count', 'max', 'min', 'sum');
	};
	$sql .= q{
		INSERT INTO by_session SELECT g, g % 5, g % 17, 'row ' || g, g / 4.0,
		  '2024-01-01'::timestamptz + g * interval '1 hour' FROM generate_series(1, 100) g;
		INSERT INTO child SELECT g, g % 5, g % 17, 'row ' || g, g / 4.0, '2024-01-01'
		  FROM generate_series(101, 110) g;
		INSERT INTO by_turns SELECT g, g % 5, g % 17, 'row ' || g, g % 2 = 0,
		  '2024-01-01'::date + g FROM generate_series(1, 100) g;
		INSERT INTO by_hash SELECT g, g % 5, g % 17, 'row ' || g, g / 4.0
		  FROM generate_series(1, 100) g;
		INSERT INTO by_two SELECT g, g % 5, 'row ' || g, jsonb_build_object('a', g), ARRAY[g,
		  g + 1] FROM generate_series(1, 60) g;
		INSERT INTO in_order (grp, val, txt) SELECT g % 5, g % 17, 'row ' || g
		  FROM generate_series(1, 50) g;
		SELECT shard_fdw.seal('by_session_2');
		SELECT shard_fdw.seal('by_hash_3');
	} if $is_logical;
	$node->safe_psql($database, $sql, extra_params => [ '-U', 'smith' ]);
}

# Give the plain tables the rows that the shards have, and the database the
# sequences.
sub copy_contents
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $children = $node->safe_psql('logical', q{
		SELECT oid::regclass FROM pg_class
		 WHERE oid IN (SELECT inhrelid FROM pg_inherits) AND relkind = 'r'});

	foreach my $child (split(/\n/, $children))
	{
		$node->safe_psql('logical', "COPY $child TO '$dir/$child'");
		$node->safe_psql('plain', "COPY $child FROM '$dir/$child'");
	}
	$node->safe_psql('plain', $node->safe_psql('logical', q{
		SELECT format('CREATE SEQUENCE %s; ALTER SEQUENCE %1$s OWNER TO smith;', oid::regclass)
		  FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace}));
	$node->safe_psql($_, 'ANALYZE') foreach 'logical', 'plain';
}

# Run sqlsmith; it has no way to stop the server, or to stay for ever.
sub smith
{
	my ($database, $seed, $functions, @options) = @_;
	my $output = '';
	my $run;

	local $ENV{PGOPTIONS} = "-c search_path=$functions,public,pg_catalog";
	$run = IPC::Run::start(
		[
			'sqlsmith',
			"--target=host="
			  . $node->host
			  . ' port='
			  . $node->port
			  . " dbname=$database user=smith",
			"--seed=$seed",
			"--max-queries=$queries",
			@options
		],
		'<',
		\undef,
		'>&',
		\$output,
		IPC::Run::timeout(20 * $PostgreSQL::Test::Utils::timeout_default));
	$run->finish;
	note $output;
	is(($run->full_results)[0], 0, "seed $seed, $functions @options: sqlsmith has come to its end")
	  or diag($output);
}

# What the log tells of errors: a list of SQLSTATE, message, place, statement.
sub errors
{
	my ($log, $database) = @_;
	my @errors;
	my $error;
	my $part = '';

	foreach my $line (split(/\n/, $log))
	{
		if ($line =~ /^\Q$database\E\|(LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC):  (\w{5}): (.*)/)
		{
			$error = { state => $2, message => $3, location => '', statement => '' };
			push(@errors, $error) if $1 =~ /^(?:ERROR|FATAL|PANIC)$/;
			$part = 'message';
		}
		elsif ($line =~ /^\Q$database\E\|(LOCATION|STATEMENT):  (.*)/)
		{
			$part = lc($1);
			$error->{$part} = $2;
		}
		elsif ($line =~ /^\t(.*)/)
		{
			$error->{$part} .= "\n$1" if $part;
		}
		else
		{
			$part = '';
		}
	}
	return @errors;
}

# OIDs and the like differ.
sub normalized { return $_[0] =~ s/\d+/N/gr; }

# Does PostgreSQL alone give that error, too?
sub is_of_core
{
	my ($error, $functions) = @_;
	my $expected = "$error->{state} " . normalized($error->{message} =~ s/\n.*//sr);
	my $sql =
	  "SET search_path = $functions, public, pg_catalog; BEGIN; $error->{statement};\nROLLBACK";
	my @plans = (
		'',
		map { "SET $_;" } 'max_parallel_workers_per_gather = 0',
		'enable_hashjoin = off',
		'enable_mergejoin = off',
		'enable_nestloop = off',
		'enable_indexscan = off',
		'join_collapse_limit = 1');
	my @got;

	foreach my $plan (@plans)
	{
		my ($state, $message) = sqlstate($node, "$plan $sql", database => 'plain', user => 'smith');

		push(@got, "$state " . normalized($message));
		return 1 if $got[-1] eq $expected;
	}
	foreach my $plan (@plans)
	{
		my ($stdout, $stderr);
		local $ENV{PGOPTIONS} = '-c session_preload_libraries=';

		# The library's parameter tells if it has been loaded.
		$node->psql('logical',
			"SET SESSION AUTHORIZATION smith; $plan $sql;\n"
			  . q{SELECT 'parameters: ' || count(*) FROM pg_catalog.pg_settings
			    WHERE name ~ '^shard_fdw'},
			stdout => \$stdout, stderr => \$stderr, on_error_stop => 0,
			extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		last if $stdout !~ /^parameters: 0$/m;
		push(@got, $stderr =~ /ERROR:  (\w{5}): (.*)/ ? "$1 " . normalized($2) : 'no error');
		return 1 if $got[-1] eq $expected;
	}
	diag("expected: $expected");
	diag("got: $_") foreach @got;
	return 0;
}

# Internal errors of a run.
sub check_log
{
	my ($database, $from, $functions, $title) = @_;
	my $log = substr(slurp_file($node->logfile), $from);
	my @errors = errors($log, $database);
	my %states;
	my %seen;

	unlike(
		$log,
		qr/TRAP: |PANIC: |was terminated by signal|terminated abnormally/,
		"$title: no crash");
	$states{ $_->{state} }++ foreach @errors;
	note "$title: " . join(', ', map { "$_ $states{$_}" } sort keys %states);
	foreach my $error (grep { $_->{state} =~ /^XX/ } @errors)
	{
		next if $seen{ normalized($error->{message}) }++ && $error->{location} !~ /^shard_/;
		ok(is_of_core($error, $functions),
			"$title: an internal error that plain tables have, too: $error->{message}")
		  or diag("$error->{message}\n$error->{location}\n$error->{statement}");
	}
	return \%states;
}

create_tables('logical', 1);
create_tables('plain', 0);
copy_contents();

foreach my $seed (@seeds)
{
	foreach
	  my $run (['callable'], [ 'callable', '--exclude-catalog' ], [ 'own', '--exclude-catalog' ])
	{
		my $from = -s $node->logfile;

		smith('logical', $seed, @$run);
		check_log('logical', $from, $run->[0], "seed $seed, @$run");
	}
}

$node->stop;
done_testing();
