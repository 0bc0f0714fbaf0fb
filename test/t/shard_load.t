# The program shard_load: formats, tables, rejects, conflicts, and jobs that
# load every row exactly once, whatever is killed.
#
# SHARD_LOAD_KILLS is how often something is killed (12).
use strict;
use warnings;

use ShardTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# The program gives its own name.
delete $ENV{PGAPPNAME};

my $node = shard_node('shard_load', conf => "restart_after_crash = on\n");
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

# Exit status, standard output and standard error of shard_load, which has two
# connections unless the arguments say otherwise.
sub load
{
	my (@arguments) = @_;
	my ($in, $out, $err) = ('', '', '');

	$in = ${ shift @arguments } if ref $arguments[0];
	IPC::Run::run([ 'shard_load', @connection, '-j', '2', @arguments ],
		'<', \$in, '>', \$out, '2>', \$err);
	return (($? & 127) ? "signal $?" : $? >> 8, $out, $err);
}

sub load_ok
{
	my ($title, @arguments) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) = load(@arguments);
	is($status, 0, $title) or diag($err);
	return $out;
}

sub load_fails
{
	my ($title, $expected, $pattern, @arguments) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) = load(@arguments);
	is($status, $expected, $title);
	like($err, $pattern, '... and says why');
	return ($out, $err);
}

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->safe_psql('postgres', q{
	CREATE TABLE plain (id int, a text, b text);
	CREATE TABLE keyed (id int PRIMARY KEY, a text, b text);
	CREATE TABLE list (id int, a text, b text) PARTITION BY LIST ((id % 2));
	CREATE TABLE list_0 PARTITION OF list FOR VALUES IN (0);
	CREATE TABLE list_1 PARTITION OF list FOR VALUES IN (1);
	CREATE FOREIGN TABLE session (id int, a text, b text) SERVER shards OPTIONS (shards '4');
	CREATE FOREIGN TABLE robin (id int, a text, b text) SERVER shards OPTIONS (shards '4', route 'round_robin');
	CREATE FOREIGN TABLE hash (id int NOT NULL, a text, b text)
	  SERVER shards OPTIONS (shards '4', route 'hash', key 'id', template 'keyed');
});

# The program itself.
my $out;
my $control = slurp_file('shard_fdw.control');
my ($version) = $control =~ /default_version = '(.*)'/;
is(`shard_load --version`, "shard_load (shard_fdw) $version\n", '--version');
my $help = `shard_load --help`;
like($help, qr/^Usage:\n  shard_load \[OPTION\]\.\.\. TABLE \[FILE\]\.\.\./m, '--help');
my $manual = slurp_file('docs/shard_load.md');
foreach my $option ($help =~ /(--[a-z][a-z-]*)/g)
{
	ok($manual =~ /\Q$option\E/, "the manual has $option");
}
load_fails('no table', 1, qr/no table is named/);
load_fails('an unknown option', 1, qr/unrecognized option.*--help/s, '--nosuch', 'plain');
load_fails('an option that requires another', 1, qr/--max-rejects requires option --rejects/, '--max-rejects=1', 'plain');
load_fails('no such table', 3, qr/table "nosuch" does not exist/, 'nosuch', '/dev/null');
load_fails('no such column', 3, qr/column "c" of relation "plain" does not exist/, '--columns=id,c', 'plain', '/dev/null');
load_fails('no such file', 1, qr/could not open file "nosuch"/, 'plain', 'nosuch');
load_fails('no server', 2, qr/nosuch/, '-h', '/nosuch', 'plain', '/dev/null');
load_fails('an option of COPY that does not fit', 3, qr/quote/i, '--quote="', 'plain', '/dev/null');

# Each kind of table, over several connections.
my $rows = 20000;
my $text = join('', map { "$_\ta $_\tb\\n\\t$_\n" } 1 .. $rows);
my $big = write_file('big.txt', $text);
my $whole = "$rows|" . $rows * ($rows + 1) / 2 . "|$rows";
foreach my $table ('plain', 'keyed', 'list', 'session', 'robin', 'hash')
{
	foreach my $jobs (1, 4)
	{
		my $said = load_ok("$table, $jobs connections", '-j', $jobs, '--chunk-size=20', $table, $big);
		like($said, qr/^$rows rows loaded in \S+ s \(\d+ rows\/s, \d+ kB, \d connections?\)$/, '... with a summary');
		is(sql("SELECT count(*), sum(id), count(DISTINCT a) FROM $table WHERE b = E'b\\n\\t' || id; TRUNCATE $table"),
			$whole, '... has all rows');
	}
}
load_ok('standard input', \$text, 'plain');
is(sql('SELECT count(*), sum(id), count(DISTINCT a) FROM plain'), $whole, '... has all rows');
sql('TRUNCATE plain');

# Files of all kinds.  What PostgreSQL itself makes of one is right: the same
# rows, whatever the chunks are.
sub same_as_copy
{
	my ($title, $file, $copy, @options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql("DROP TABLE IF EXISTS expected; CREATE TABLE expected (LIKE plain); COPY expected FROM '$file' ($copy)");
	foreach my $size (1, 1024)
	{
		load_ok("$title, chunks of $size kB", "--chunk-size=$size", @options, 'plain', $file);
		is(sql(q{SELECT count(*), (SELECT count(*) FROM plain) - (SELECT count(*) FROM expected)
				   FROM (SELECT * FROM plain EXCEPT ALL SELECT * FROM expected) x; TRUNCATE plain}),
			'0|0', '... has the same rows');
	}
	return;
}

my @csv = map {
	my $n = $_;
	my $quoted = $n % 7 == 0 ? qq{"a, ""$n""\r\n\n,"} : $n % 5 == 0 ? '""' : $n % 3 == 0 ? '' : "a $n";
	"$n,$quoted," . ($n % 11 ? "b\\" : '"\\."')
} 1 .. 3000;
write_file('nl.csv', map { "$_\n" } @csv);
same_as_copy('csv', "$dir/nl.csv", 'FORMAT csv', '-F', 'csv');
write_file('crnl.csv', map { "$_\r\n" } map { s/\r//gr } @csv);
same_as_copy('csv with CRLF', "$dir/crnl.csv", 'FORMAT csv', '-F', 'csv');
write_file('cr.csv', join("\r", map { s/\n//gr } @csv));
same_as_copy('csv with CR, and none at the end', "$dir/cr.csv", 'FORMAT csv', '-F', 'csv');
write_file('escape.csv', map { "$_;'a\\'b;\nc\\\\';NA\n" } 1 .. 3000);
same_as_copy('csv with options', "$dir/escape.csv", q{FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE E'\\\\', NULL 'NA'},
	'-F', 'csv', '--delimiter=;', q{--quote='}, '--escape=\\', '--null=NA');
write_file('force.csv', map { qq{$_,"",\n} } 1 .. 3000);
same_as_copy('csv, forced nulls', "$dir/force.csv", 'FORMAT csv, FORCE_NULL (a), FORCE_NOT_NULL (b)',
	'-F', 'csv', '--force-null=A', '--force-not-null="b"');
write_file('odd.txt', map { "$_\ta\\\\\\\nb\t\\\\\n$_\t\\N\t\\x41\\\n\n" } 1 .. 2000);
same_as_copy('text with backslashes', "$dir/odd.txt", 'FORMAT text');
write_file('crnl.txt', map { "$_\ta\tb\r\n" } 1 .. 2000);
same_as_copy('text with CRLF', "$dir/crnl.txt", 'FORMAT text');
write_file('end.txt', "1\ta\tb\n2\ta\tb\n\\.\nnothing\n");
load_ok('text with an end marker', 'plain', "$dir/end.txt");
is(sql('SELECT count(*) FROM plain; TRUNCATE plain'), 2, '... ends there');
write_file('empty.txt', '');
load_ok('an empty file', 'plain', "$dir/empty.txt");
# In SJIS a byte of a character can look like a backslash or a letter.
write_file('sjis.txt', map { "$_\t\x83\x5c\t\x95\x5c\n" } 1 .. 3000);
same_as_copy('text in SJIS', "$dir/sjis.txt", q{ENCODING 'SJIS'}, '--encoding=SJIS');
write_file('latin1.csv', map { qq{$_,"\xe4\n\xf6",\xfc\n} } 1 .. 3000);
same_as_copy('csv in LATIN1', "$dir/latin1.csv", q{FORMAT csv, ENCODING 'LATIN1'}, '-F', 'csv', '--encoding=LATIN1');
sql("INSERT INTO plain SELECT g, CASE WHEN g % 3 > 0 THEN 'a' || g END, repeat('b', g % 100) FROM generate_series(1, 3000) g");
sql("COPY plain TO '$dir/rows.bin' (FORMAT binary); TRUNCATE plain");
same_as_copy('binary', "$dir/rows.bin", 'FORMAT binary', '-F', 'binary');
write_file('cut.bin', substr(slurp_file("$dir/rows.bin"), 0, 5000));
load_fails('binary that is cut off', 1, qr/cut\.bin", row \d+: unexpected end of file/, '-F', 'binary', 'plain', "$dir/cut.bin");
load_fails('what is not binary', 1, qr/is not one of COPY in binary format/, '-F', 'binary', 'plain', $big);
sql('TRUNCATE plain');

# Headers, and a byte order mark before one.
write_file('header.csv', qq{\xEF\xBB\xBFa,"id"\n}, map { "a $_,$_\n" } 1 .. 3000);
load_ok('a header', '-F', 'csv', '--header', '--chunk-size=1', '--columns=a,id', 'plain', "$dir/header.csv");
is(sql('SELECT count(*), sum(id), count(a), count(b) FROM plain; TRUNCATE plain'), '3000|4501500|3000|0', '... is none of the rows');
load_ok('a header that matches', '-F', 'csv', '--match-header', '--columns=a, "id"', 'plain', ("$dir/header.csv") x 2);
is(sql('SELECT count(*), sum(id) FROM plain; TRUNCATE plain'), '6000|9003000', '... in each file');
load_fails('a header that does not', 3, qr/header\.csv".*mismatch/,
	'-F', 'csv', '--match-header', '--columns=id,a', 'plain', "$dir/header.csv");
is(sql('SELECT count(*) FROM plain'), 0, '... keeps everything out');

# Compressed files.
foreach my $method ([ 'gzip', 'gz' ], [ 'zstd', 'zst' ], [ 'lz4', 'lz4' ])
{
	my ($program, $suffix) = @$method;
  SKIP:
	{
		skip "$program is not installed", 2 if system("command -v $program >/dev/null") != 0;
		system("$program -c < $big > $dir/big.$suffix") == 0 or die $program;
		load_ok($program, '--chunk-size=10', 'plain', "$dir/big.$suffix");
		is(sql('SELECT count(*), sum(id), count(DISTINCT a) FROM plain; TRUNCATE plain'), $whole, '... has all rows');
	}
}
my $packed = slurp_file("$dir/big.gz");
load_ok('compressed standard input', \$packed, '--compression=gzip', 'plain');
is(sql('SELECT count(*), sum(id), count(DISTINCT a) FROM plain; TRUNCATE plain'), $whole, '... has all rows');
write_file('cut.gz', substr($packed, 0, length($packed) / 2));
load_fails('a compressed file that is cut off', 1, qr/could not decompress/, 'plain', "$dir/cut.gz");
{
	my $shard_load = (grep { -x "$_/shard_load" } split(/:/, $ENV{PATH}))[0];
	local $ENV{PATH} = $shard_load;
	load_fails('no program to decompress', 1, qr/could not run program "gzip".*Install/s, 'plain', "$dir/big.gz");
}
sql('TRUNCATE plain');

# A large field: 30 MB.
write_file('large.csv', "1,a,b\n2,\"", 'x' x 15_000_000, "\n\"\"", 'y' x 15_000_000, "\",b\n3,a,b\n");
load_ok('a large field', '-F', 'csv', '--chunk-size=64', 'plain', "$dir/large.csv");
is(sql('SELECT count(*), max(length(a)) FROM plain; TRUNCATE plain'), '3|30000002', '... is whole');

# The first error stops the load, and says where it is.
write_file('bad.csv', map { $_ == 1500 ? "x,\"\n\"\n" : "$_,\"a\nb\",c\n" } 1 .. 2000);
my (undef, $said) = load_fails('a bad row', 3, qr/bad\.csv", line 2999: invalid input syntax for type integer/, '-j', '1', '--chunk-size=4', '-F', 'csv', 'plain', "$dir/bad.csv");
my ($last) = $said =~ /rows are loaded: lines 1 to (\d+) of/;
is(sql('SELECT count(*), max(id) FROM plain; TRUNCATE plain'), join('|', ($last / 2) x 2), '... and which rows are loaded');
($out) = load_fails('a bad row, --json', 3, qr/line 2999/, '--json', '-F', 'csv', 'plain', "$dir/bad.csv");
like($out, qr/^\{"status": "failed", "rows": 0,.*"error": "invalid input syntax for type integer: \\"x\\""\}$/, '... as JSON');

# Rejects are those that a loader would have that inserts row by row.
sql(q{
	CREATE TABLE parent (id int PRIMARY KEY);
	INSERT INTO parent SELECT generate_series(0, 9);
	CREATE TABLE child (id int PRIMARY KEY, p int NOT NULL REFERENCES parent, d int REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
	                    v numeric(4) CHECK (v <> 13));
	CREATE TABLE twin (LIKE child INCLUDING ALL, FOREIGN KEY (p) REFERENCES parent, FOREIGN KEY (d) REFERENCES parent);
	CREATE TABLE lines (line int, i text, p text, d text, v text);
	CREATE TABLE refused (line int, sqlstate text);
});
srand(42);
my @lines = map {
	my $i = int(rand(100)) == 0 ? 'x' : int(rand(100)) == 0 ? int($_ / 2) : $_;
	my $p = int(rand(150)) == 0 ? 10 : int(rand(150)) == 0 ? '\N' : int(rand(10));
	my $d = int(rand(150)) == 0 ? 11 : int(rand(10));
	my $v = int(rand(100)) == 0 ? 99999 : int(rand(50));
	"$i\t$p\t$d\t$v\n"
} 1 .. 3000;
my $number = 0;
write_file('rejects.txt', @lines);
write_file('lines.txt', map { ++$number . "\t$_" } @lines);
sql("COPY lines FROM '$dir/lines.txt'");
sql(q{
	DO $$
	DECLARE l lines;
	BEGIN
		FOR l IN SELECT * FROM lines ORDER BY line LOOP
			BEGIN
				INSERT INTO twin VALUES (l.i::int, l.p::int, l.d::int, l.v::numeric);
			EXCEPTION WHEN OTHERS THEN
				INSERT INTO refused VALUES (l.line, sqlstate);
			END;
		END LOOP;
	END $$});
foreach my $case ([ 'one connection', '-j', '1' ], [ 'small chunks', '-j', '1', '--chunk-size=1' ],
	[ 'a job', '-j', '1', '--chunk-size=8', '--job=rejects' ], [ 'the same job', '--job=rejects' ])
{
	my ($title, @options) = @$case;

	load_ok("rejects, $title", @options, "--rejects=$dir/out", 'child', "$dir/rejects.txt");
	is(sql('SELECT count(*) FROM (TABLE child EXCEPT TABLE twin) a FULL JOIN (TABLE twin EXCEPT TABLE child) b ON false'),
		0, '... loads what can be loaded');
	my @refused = map { [ split(/\t/) ] } split(/\n/, slurp_file("$dir/out.errors"));
	is(join("\n", map { "$_->[1]|$_->[2]" } @refused), sql('SELECT * FROM refused ORDER BY line'), '... and tells of the others');
	is(slurp_file("$dir/out"), join('', map { $lines[ $_->[1] - 1 ] } @refused), '... which are as they were');
	sql('TRUNCATE child') unless $title eq 'a job';
}
load_fails('too many rejects', 3, qr/more than 3 rows are rejected.*rejects\.txt", line \d+: /s,
	"--rejects=$dir/out", '--max-rejects=3', 'child', "$dir/rejects.txt");
cmp_ok(scalar(split(/\n/, -e "$dir/out" ? slurp_file("$dir/out") : '')), '<=', 3, '... are not written');
sql('TRUNCATE child');
write_file('good.txt', "1\t1\t1\t1\n");
load_ok('no rejects', "--rejects=$dir/out", 'child', "$dir/good.txt");
ok(!-e "$dir/out" && !-e "$dir/out.errors", '... leave no file');

# Conflicts.
sql("INSERT INTO keyed SELECT g, 'old', 'old' FROM generate_series(1, 100) g; INSERT INTO hash TABLE keyed");
write_file('conflict.txt', map { ($_ % 300 + 51) . "\tnew $_\tb\n" } 0 .. 449);
foreach my $table ('keyed', 'hash')
{
	$said = load_ok("$table, skip", '-j', '1', '--on-conflict=skip', $table, "$dir/conflict.txt");
	like($said, qr/^250 rows loaded.*^200 rows skipped/ms, '... tells how many');
	is(sql("SELECT count(*), count(*) FILTER (WHERE a = 'old') FROM $table"), '350|100', '... keeps old rows');
	load_ok("$table, update", '-j', '1', '--on-conflict=update', $table, "$dir/conflict.txt");
	is(sql("SELECT count(*), count(*) FILTER (WHERE a = 'old'), min(a) FILTER (WHERE id = 60) FROM $table"),
		'350|50|new 309', '... has the last of several rows');
}
load_fails('update without a key', 1, qr/has no primary key.*--conflict-key/s, '--on-conflict=update', 'plain', "$dir/conflict.txt");
load_fails('a conflict that the route does not allow', 3, qr/ON CONFLICT/, '--on-conflict=skip', 'session', "$dir/conflict.txt");
sql('TRUNCATE keyed; TRUNCATE hash');

# Jobs.
load_fails('a job that fails', 3, qr/bad\.csv", line 2999:.*run the same command again/s,
	'-F', 'csv', '--chunk-size=4', '--job=j', 'plain', "$dir/bad.csv");
my $before = sql('SELECT count(*) FROM plain');
load_fails('a job of another table', 1, qr/another table/, '-F', 'csv', '--chunk-size=4', '--job=j', 'keyed', "$dir/bad.csv");
load_fails('a job of other options', 1, qr/other options/, '--job=j', 'plain', "$dir/bad.csv");
my $bad = slurp_file("$dir/bad.csv");
my $changed = $bad =~ s/1,"a/2,"a/r;
load_fails('a job of a changed file', 1, qr/input of job "j" has changed.*line 1 of/s, '-F', 'csv', '--job=j', 'plain', write_file('changed.csv', $changed));
load_fails('a job of a longer file', 1, qr/input of job "j" has changed.*bytes/s, '-F', 'csv', '--job=j', 'plain', write_file('changed.csv', "$bad\n"));
my $short = substr($bad, 0, 20);
load_fails('a job of another standard input', 1, qr/input of job "j" has changed/s, \$short, '-F', 'csv', '--job=j', 'plain');
is(sql('SELECT count(*) FROM plain'), $before, '... loads nothing');
sql('TRUNCATE plain');

sql('CREATE SCHEMA ledger; CREATE ROLE loader LOGIN; GRANT INSERT ON plain TO loader; GRANT CREATE, USAGE ON SCHEMA ledger TO loader;'
	  . ' CREATE ROLE stranger; GRANT ALL ON SCHEMA public TO stranger; CREATE SCHEMA planted; GRANT ALL ON SCHEMA planted TO stranger, loader;'
	  . ' SET ROLE stranger; CREATE TABLE planted.shard_load_jobs (job text)');
load_ok('a user who may only insert', '-U', 'loader', '--job=j', '--job-schema=ledger', 'plain', $big);
load_ok('... twice', '-U', 'loader', '--job=j', '--job-schema=ledger', 'plain', $big);
is(sql('SELECT count(*) FROM plain; TRUNCATE plain'), $rows, '... has loaded each row once');
load_fails('a ledger of somebody else', 1, qr/belongs to another user/, '-U', 'loader', '--job=j', '--job-schema=planted', 'plain', $big);

# Ctrl-C.
sub start_load
{
	my (@arguments) = @_;
	my %run = (out => '', err => '');

	$run{harness} = IPC::Run::start([ 'shard_load', @connection, @arguments ], '<', \undef, '>', \$run{out}, '2>', \$run{err});
	return \%run;
}

sub finish_load
{
	my ($run) = @_;

	eval { $run->{harness}->finish };
	return ($run->{harness}->full_results)[0];
}

my $locker = $node->background_psql('postgres');
foreach my $options ([], ['--job=interrupted'])
{
	# One chunk cannot be committed before the others wait for it.
	sql('TRUNCATE keyed');
	$locker->query_safe('BEGIN; INSERT INTO keyed VALUES (15000)');
	my $run = start_load('-j', '2', '--chunk-size=40', @$options, 'keyed', $big);
	poll_ok($node, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'shard_load' AND wait_event_type = 'Lock'},
		'a load waits');
	poll_ok($node, 'SELECT count(*) > 10000 FROM keyed', '... and another connection goes on');
	$run->{harness}->signal('INT');
	is(finish_load($run) >> 8, 130, 'Ctrl-C ends it');
	$locker->query_safe('ROLLBACK');
	my $count = sql('SELECT count(*) FROM keyed');
	like($run->{err}, qr/canceling, and waiting for the server.*$count rows are loaded/s, '... which tells what is committed');
	like($run->{err}, @$options ? qr/run the same command again/ : qr/lines 1 to \d+ of.*load an input without these lines/s, '... and how to go on');
}
load_ok('the job goes on', '--job=interrupted', 'keyed', $big);
is(sql('SELECT count(*), sum(id), count(DISTINCT a) FROM keyed'), $whole, '... and has all rows');
$locker->quit;

# A connection that is lost.
sql(q{CREATE TABLE slow (LIKE plain);
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.0005); RETURN NEW; END';
	CREATE TRIGGER slow BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION slow()});
my $slow = write_file('slow.txt', join('', (split(/(?<=\n)/, $text))[ 0 .. 2999 ]));
my $run = start_load('-j', '2', '--chunk-size=4', '--job=lost', 'slow', $slow);
foreach (1 .. 3)
{
	poll_ok($node, q{SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE application_name = 'shard_load' AND query ~ 'COPY'},
		'a connection is cut off');
}
is(finish_load($run), 0, '... and the load goes on') or diag($run->{err});
is(sql('SELECT count(*), count(DISTINCT id) FROM slow'), '3000|3000', '... and has every row once');

# On a terminal there is a bar, drawn again and again, and taken away at the end.
SKIP: {
	skip 'no program script', 2 unless grep { -x "$_/script" } split(/:/, $ENV{PATH});
	sql('TRUNCATE slow');
	my $terminal = `script -qec "shard_load @connection -j 2 --chunk-size=4 slow $slow" /dev/null </dev/null 2>&1`;
	like($terminal, qr/\[#+ *\] \d+\.\d%, \d+ rows, \d+ bytes, \d+ rows\/s, \d:\d\d:\d\d left, 2 connections\r\e\[K/, 'a bar');
	like($terminal, qr/\r\e\[K3000 rows loaded in [0-9.]+ s/, '... gives way to the summary');
}

# Whatever is killed, every row is loaded once.
my $kills = $ENV{SHARD_LOAD_KILLS} // 12;
my $killed = 0;
for (my $number = 1; $killed < $kills; $number++)
{
	my $table = (qw(plain hash session robin))[ $number % 4 ];
	my $result = -1;

	sql("TRUNCATE $table");
	while ($result != 0)
	{
		my $run = start_load('-j', 1 + int(rand(4)), '--chunk-size=4', "--job=kill $number", $table, $big);
		my $kind = $killed % 3;

		usleep(50_000 + int(rand(250_000)));
		if ($killed++ >= $kills || !$run->{harness}->pumpable)
		{
			# It may end by itself.
		}
		elsif ($kind == 0)
		{
			$run->{harness}->signal('KILL');
		}
		elsif ($kind == 1)
		{
			my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'shard_load' LIMIT 1});
			kill('KILL', $pid) if $pid;
		}
		else
		{
			$node->stop('immediate');
			$node->start;
		}
		$result = finish_load($run);
		# A server that is just starting up refuses the first connection.
		$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	}
	is(sql("SELECT count(*), sum(id), count(DISTINCT a) FROM $table"), $whole, "job $number, into $table: every row once, after $killed kills");
}

$node->stop;
done_testing();
