# The program shard_load and hash tables: the rows that one transaction loads
# belong to the same shards, however the key is written; and all else is as with
# other tables.
use strict;
use warnings;

use ShardTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

delete $ENV{PGAPPNAME};

my $node = shard_node('shard_load_hash');
my $dir = PostgreSQL::Test::Utils::tempdir;
my @connection = ('-h', $node->host, '-p', $node->port, '-d', 'postgres');

sub write_file
{
	my ($name, @content) = @_;

	open(my $out, '>', "$dir/$name") or die "$name: $!";
	binmode($out);
	print $out @content;
	close($out);
	return "$dir/$name";
}

# Exit status and standard error of shard_load.
sub load
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'shard_load', @connection, @arguments ],
		'<', \undef, '>', \$out, '2>', \$err);
	return (($? & 127) ? "signal $?" : $? >> 8, $err);
}

sub load_ok
{
	my ($title, @arguments) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $err) = load(@arguments);
	is($status, 0, $title) or diag($err);
	return $err;
}

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Rows that are in only one of two tables.
sub difference
{
	my ($table, $columns) = @_;

	return sql("SELECT count(*) FROM ((SELECT $columns FROM $table EXCEPT ALL SELECT $columns FROM source)"
		  . " UNION ALL (SELECT $columns FROM source EXCEPT ALL SELECT $columns FROM $table)) x");
}

# Transactions with rows of more than one group, of so many.
sub mixed
{
	my ($table, $key, $groups) = @_;

	return sql("SELECT count(*) FROM (SELECT tx FROM $table, generate_series(0, 7) r"
		  . " WHERE shard_fdw.in_hash(8, r, $key) GROUP BY tx HAVING count(DISTINCT r % $groups) > 1) x");
}

my @formats = (
	[ 'text', 'FORMAT text' ],
	[ 'text with options', q{FORMAT text, DELIMITER ';', NULL 'none'}, '--delimiter=;', '--null=none' ],
	[ 'csv', 'FORMAT csv', '-F', 'csv' ],
	[ 'csv with quotes', 'FORMAT csv, HEADER, FORCE_QUOTE *', '-F', 'csv', '--header' ],
	[ 'csv with options', q{FORMAT csv, DELIMITER '|', QUOTE '''', ESCAPE '\\', NULL 'x'}, '-F', 'csv', '--delimiter=|', q{--quote='}, '--escape=\\', '--null=x' ],
	[ 'binary', 'FORMAT binary', '-F', 'binary' ],
);

# Load rows with keys of these types in all formats.  "columns" are definitions
# of a and b, "values" what they are for n.
sub check_key
{
	my ($title, $key, $columns, $values, @more) = @_;

	sql("DROP FOREIGN TABLE IF EXISTS h CASCADE; DROP TABLE IF EXISTS source;"
		  . " CREATE TABLE source (n int, $columns);"
		  . " CREATE FOREIGN TABLE h (n int, $columns, tx xid8 DEFAULT pg_current_xact_id())"
		  . " SERVER shards OPTIONS (shards '8', route 'hash', key '$key');"
		  . " INSERT INTO source SELECT n, $values FROM generate_series(1, 2000) n");
	foreach my $format (@formats, @more)
	{
		my ($name, $copy, @options) = @$format;

		sql("COPY source TO '$dir/source' ($copy)");
		my $said = load_ok("$title, $name", '-v', '-j', '3', '--chunk-size=4', '--columns=n,a,b', @options, 'h', "$dir/source");
		like($said, qr/rows are loaded in 3 groups by their key/, '... in groups');
		is(difference('h', 'n, a, b'), 0, '... has all rows');
		cmp_ok(sql('SELECT count(DISTINCT tx) FROM h'), '>', 3, '... in several transactions');
		is(mixed('h', $key, 3), 0, '... each of which has rows of one group');
		sql('TRUNCATE h');
	}
	return;
}

check_key('int', 'a', 'a int, b text', q{n * 1000 * (n % 3 - 1), 'b' || n});
check_key('bigint', 'b', 'a text, b bigint',
	q{repeat(E'\\\\\t"; ', n % 3), CASE n WHEN 1 THEN 9223372036854775807 WHEN 2 THEN -9223372036854775808 WHEN 3 THEN NULL ELSE n * 123456789012345 END});
check_key('smallint', 'a', 'a smallint, b text', q{n - 1000, NULL});
check_key('uuid', 'b', 'a text, b uuid', q{E'"\n\'', md5(n::text)::uuid});
check_key('text', 'a', 'a text COLLATE "C", b text',
	q{CASE n % 5 WHEN 0 THEN E'\t"' || n || E'"\\\\\n' WHEN 1 THEN 'ä;,|' || n WHEN 2 THEN '' WHEN 3 THEN '\N' || n END, n});
check_key('varchar and char', 'b,a', 'a varchar(20), b char(10)', q{CASE WHEN n % 7 > 0 THEN n END, CASE WHEN n % 3 > 0 THEN n || 'x' END});
sql('CREATE DOMAIN positive AS int CHECK (value > 0)');
check_key('a domain and text', 'b, a', 'a positive, b text',
	q{n, CASE n % 4 WHEN 0 THEN '' WHEN 1 THEN E'\r\n\'' || n WHEN 2 THEN 'nothing' END},
	[ 'csv with forced values', q{FORMAT csv, NULL 'nothing', FORCE_QUOTE *}, '-F', 'csv', '--null=nothing' ]);

# As people write values.
sql(q{CREATE FOREIGN TABLE written ("The Key" int, u uuid, t text, n int, tx xid8 DEFAULT pg_current_xact_id())
	SERVER shards OPTIONS (shards '8', route 'hash', key '"The Key", U, t');
	DROP TABLE source; CREATE TABLE source (n int, "The Key" int, u uuid, t text)});
write_file('written.txt', map {
	my $u = sprintf('%04x', $_);
	my $uuid = (uc("{$u-$u-$u-$u-$u-$u-$u-$u}"), "$u$u$u${u}ABCDABCDABCDABCD")[ $_ % 2 ];
	my $t = ('\x41\x4a\x7', '\101\1\8x', 'a\Nb', '\N', '\\\\N', "a\\\tb\\q", "\\\n$_")[ $_ % 7 ];
	join("\t", $_, (" +$_ ", "-0$_")[ $_ % 2 ], $uuid, $t) . "\r\n"
} 1 .. 3000);
write_file('written.csv', "n,the key,u,t\n", map {
	my $t = ('""', '', "a\"b\n\"\"\"c\"\"", '" x"', 'y ', "\"\n\"")[ $_ % 6 ];
	my $key = ("\"$_\"", " $_", "-\"1\"$_")[ $_ % 3 ];
	"$_,$key,\"" . substr(sprintf('%08x', $_) x 4, 0, 32) . "\",$t\n"
} 1 .. 3000);
foreach my $case ([ 'txt', 'FORMAT text' ], [ 'csv', 'FORMAT csv, HEADER, FORCE_NULL (t)', '-F', 'csv', '--header', '--force-null=t' ],
	[ 'csv', 'FORMAT csv, HEADER, FORCE_NOT_NULL (t)', '-F', 'csv', '--header', '--force-not-null=t' ])
{
	my ($suffix, $copy, @options) = @$case;

	sql("TRUNCATE source; COPY source FROM '$dir/written.$suffix' ($copy)");
	load_ok("as people write, $copy", '-j', '2', '--chunk-size=3', '--columns=n,"The Key",u,T', @options, 'written', "$dir/written.$suffix");
	is(difference('written', 'n, "The Key", u, t'), 0, '... has all rows');
	is(mixed('written', '"The Key", u, t', 2), 0, '... in groups');
	sql('TRUNCATE written');
}

# What cannot be hashed here, or is not there, is loaded as into other tables.
sub check_no_groups
{
	my ($title, $definition, $key, @options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql("DROP TABLE source; CREATE TABLE source ($definition); DROP FOREIGN TABLE h CASCADE;"
		  . " CREATE FOREIGN TABLE h ($definition) SERVER shards OPTIONS (shards '4', route 'hash', key '$key');"
		  . " INSERT INTO source (n, a) SELECT n, n FROM generate_series(1, 2000) n; COPY source (n, a) TO '$dir/source'");
	my $said = load_ok($title, '-v', '-j', '2', '--chunk-size=4', '--columns=n,a', @options, 'h', "$dir/source");
	unlike($said, qr/groups/, '... has no groups');
	is(difference('h', '*'), 0, '... and all rows');
	return;
}
check_no_groups('numeric', 'n int, a numeric', 'a');
check_no_groups('a key that the input does not have', 'n int, a text, b int DEFAULT 7', 'n, b');
check_no_groups('an encoding where a byte can look like ASCII', 'n int, a text', 'n', '--encoding=SJIS');
check_no_groups('one connection', 'n int, a text', 'n', '-j', '1');
SKIP:
{
	skip 'no ICU', 3 unless sql(q{SELECT count(*) FROM pg_collation WHERE collprovider = 'i'}) > 0;
	sql(q{CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)});
	check_no_groups('a collation that is not deterministic', 'n int, a text COLLATE loose', 'a');
}

# Text that the server has to convert is in any group, the rest in its own.
sql(q{DROP TABLE source; CREATE TABLE source (n int, a text); DROP FOREIGN TABLE h CASCADE;
	CREATE FOREIGN TABLE h (n int, a text, tx xid8 DEFAULT pg_current_xact_id()) SERVER shards OPTIONS (shards '8', route 'hash', key 'a')});
write_file('latin1.txt', map { "$_\t" . ($_ % 3 ? 'a' : "\xe4") . "$_\n" } 1 .. 3000);
sql("COPY source FROM '$dir/latin1.txt' (ENCODING 'LATIN1')");
load_ok('another encoding', '-j', '2', '--chunk-size=4', '--columns=n,a', '--encoding=LATIN1', 'h', "$dir/latin1.txt");
is(difference('h', 'n, a'), 0, '... has all rows');
is(sql(q{SELECT count(*) FROM (SELECT tx FROM h, generate_series(0, 7) r
	WHERE a LIKE 'a%' AND shard_fdw.in_hash(8, r, a) GROUP BY tx HAVING count(DISTINCT r % 2) > 1) x}), 0, '... and groups');

# One key only: a group has several chunks.
write_file('one.txt', map { "$_\tthe same\n" } 1 .. 3000);
sql("TRUNCATE h; TRUNCATE source; COPY source FROM '$dir/one.txt'");
load_ok('one key', '-j', '4', '--chunk-size=2', '--columns=n,a', 'h', "$dir/one.txt");
is(difference('h', 'n, a'), 0, '... has all rows');
cmp_ok(sql('SELECT max(c) FROM (SELECT count(*) AS c FROM h GROUP BY tx) x'), '<', 500, '... in several transactions');

# Several files, no line end, an end marker, and nothing at all.
sql('TRUNCATE h; TRUNCATE source');
my @files = (write_file('1.txt', map { "$_\ta$_\n" } 1 .. 500), write_file('2.txt', ''),
	write_file('3.txt', join("\n", map { "$_\ta$_" } 501 .. 1000)), write_file('4.txt', "1001\ta1001\n\\.\n"));
sql("COPY source FROM '$_'") foreach @files;
load_ok('several files', '-j', '2', '--chunk-size=1', '--columns=n,a', 'h', @files);
is(difference('h', 'n, a'), 0, '... have all rows');

# Messages name the line of the file.
sub tells_line
{
	my ($title, $line, @arguments) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql('TRUNCATE h');
	my ($status, $err) = load('-j', '3', '--chunk-size=4', '--columns=n,a', @arguments);
	is($status, 3, $title);
	my ($said) = $err =~ /", line (\d+): invalid input syntax for type integer/;
	is($said, $line, '... tells the line');
	my ($context) = $err =~ /COPY h, line (\d+)/;
	is($context, $line, '... also in the context');
	# Of the lines that it says are loaded all are, of some lines some.
	my ($count, $list) = $err =~ /(\d+) rows are loaded: (.*)/;
	is(sql('SELECT count(*) FROM h'), $count // 0, '... and how many rows are loaded');
	return $list // '';
}
write_file('bad.csv', map { $_ == 1500 ? "x,\"\n\"\n" : "$_,\"a\n$_\"\n" } 1 .. 2000);
foreach my $try (1 .. 3)
{
	my $list = tells_line('a bad row of csv', 2999, '-F', 'csv', 'h', "$dir/bad.csv");
	my %line;

	while ($list =~ /(some of )?lines (\d+) to (\d+)/g)
	{
		my ($some, $from, $to) = ($1, $2, $3);

		foreach my $n (($from + 1) / 2 .. $to / 2)
		{
			$line{$n} = $some ? 'some' : 'all';
		}
	}
	my %there = map { $_ => 1 } split(/\n/, sql('SELECT n FROM h'));
	is(scalar(grep { ($line{$_} // '') eq 'all' && !$there{$_} } 1 .. 2000), 0, '... and no line too many');
	is(scalar(grep { $there{$_} && !$line{$_} } 1 .. 2000), 0, '... nor too few');
}
write_file('bad.txt', map { $_ == 1500 ? "x\ta\n" : "$_\ta$_\n" } 1 .. 2000);
tells_line('a bad row of text', 1500, 'h', "$dir/bad.txt");

# Rejects have their lines, and the others are loaded.
sql('TRUNCATE h');
my %bad = map { $_ * 37 => 1 } 1 .. 50;
write_file('rejects.csv', "n,a\n", map { ($bad{$_} ? "x$_" : $_) . ",\"\n$_\"\n" } 1 .. 2000);
load_ok('rejects', '-j', '3', '--chunk-size=4', '-F', 'csv', '--header', '--columns=n,a', "--rejects=$dir/out", 'h', "$dir/rejects.csv");
is(sql('SELECT count(*), count(DISTINCT n) FROM h'), '1950|1950', '... all others are loaded');
is(join(' ', sort { $a <=> $b } map { (split(/\t/))[1] } split(/\n/, slurp_file("$dir/out.errors"))),
	join(' ', map { 2 * $_ } sort { $a <=> $b } keys %bad), '... have their lines');
is(join('', sort(slurp_file("$dir/out") =~ /(x\d+,"\n\d+"\n)/g)), join('', sort(map { qq{x$_,"\n$_"\n} } keys %bad)), '... and are as they were');

# Conflicts.
sql(q{CREATE TABLE keyed (id int PRIMARY KEY, a text);
	CREATE FOREIGN TABLE hash (id int NOT NULL, a text) SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'keyed')});
write_file('conflict.txt', map { "$_\tnew\n" } 1 .. 3000);
sql("INSERT INTO hash SELECT n, 'old' FROM generate_series(2, 4000, 2) n");
load_ok('skip', '-j', '3', '--chunk-size=4', '--on-conflict=skip', 'hash', "$dir/conflict.txt");
is(sql('SELECT a, count(*) FROM hash GROUP BY a ORDER BY a'), "new|1500\nold|2000", '... keeps old rows');
load_ok('update', '-j', '3', '--chunk-size=4', '--on-conflict=update', 'hash', "$dir/conflict.txt");
is(sql('SELECT a, count(*) FROM hash GROUP BY a ORDER BY a'), "new|3000\nold|500", '... has new rows');

# A job goes on with other numbers of connections, and knows its input.
my $number = 0;
foreach my $jobs ([ 3, 1 ], [ 1, 3 ], [ 2, 4 ], [ 4, 2 ])
{
	my ($first, $second) = @$jobs;
	my @options = ('--chunk-size=2', '--job=' . ++$number, 'hash');

	# The row that is in the way is one of the last.
	sql(q{TRUNCATE hash; INSERT INTO hash VALUES (2900, 'in the way')});
	my ($status, $err) = load('-j', $first, @options, "$dir/conflict.txt");
	is($status, 3, "a job of $first connections fails");
	like($err, qr/duplicate key/, '... because of that row');
	my $loaded = sql('DELETE FROM hash WHERE id = 2900; SELECT count(*) FROM hash');
	cmp_ok($loaded, '>', 0, '... has loaded some rows');
	($status, $err) = load('-j', $second, @options, write_file('changed.txt', map { $_ == 100 ? "$_\tNEW\n" : "$_\tnew\n" } 1 .. 3000));
	is($status, 1, '... does not go on with another input');
	like($err, qr/input of job "$number" has changed/, '... and says so');
	is(sql('SELECT count(*) FROM hash'), $loaded, '... loads none of it');
	load_ok("... goes on with $second", '-j', $second, @options, "$dir/conflict.txt");
	is(sql(q{SELECT count(*), count(DISTINCT id), sum(id) FROM hash WHERE a = 'new'}), '3000|3000|4501500', '... and has each row once');
	load_ok('... is done', '-j', $second, @options, "$dir/conflict.txt");
	is(sql('SELECT count(*) FROM hash'), 3000, '... and loads nothing more');
}
sql(q{UPDATE shard_load_jobs SET options = replace(options, 'by (', 'by ("a" text, ') WHERE job = '1'});
my ($status, $err) = load('-j', '2', '--chunk-size=2', '--job=1', 'hash', "$dir/conflict.txt");
is($status, 1, 'a job of a table that had another key');
like($err, qr/has been begun with another key.*It was "3 groups of hash 4 by \("a" text, "id" integer\)" and is "3 groups of hash 4 by \("id" integer\)" now/s,
	'... is refused');

$node->stop;
done_testing();
