# The library's symbols, the compilers' warnings, the rules of the house that a
# machine can check, and how make and its scripts take what they find.
use strict;
use warnings;

use Cwd qw(getcwd);
use File::Basename qw(basename dirname);
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use JSON::PP qw(decode_json);
use Test::More;

sub lines_of
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "could not read $file: $!";
	my @lines = <$fh>;
	return @lines;
}

my ($comment, $version) =
  map { /^(?:comment|default_version) = '(.*)'/ } lines_of('shard_fdw.control');
my @sources = sort(map { glob("src/$_") } qw(*.c *.h */*.c */*.h));
cmp_ok(scalar @sources, '>', 5, 'the sources are here');

# All modules of a server share one space of symbols.
my @symbols = map { (split)[-1] } `nm -D --defined-only shard_fdw.so`;
is($?, 0, 'nm reads the library');
my @foreign = grep {
	!/^(shard\w*|_PG_init|Pg_magic_func|pg_finfo_shard\w*)$/
	  && !/^(_init|_fini|_edata|_end|__bss_start)$/
} @symbols;
is("@foreign", '', 'exported symbols are prefixed');
ok((grep { $_ eq 'shard_fdw_handler' } @symbols), 'the handler is exported');

# Objects only: another compiler may not be able to link with the options
# that the server was built with, nor know all of its warnings.
foreach my $compiler ('gcc', 'clang')
{
  SKIP:
	{
		system("command -v $compiler >/dev/null") == 0
		  or skip "$compiler is not installed", 3;

		# The build has a folder of its own, as Debian's packages do it.
		my $dir = tempdir(CLEANUP => 1);
		foreach ('Makefile', 'shard_fdw.control', @sources)
		{
			make_path("$dir/" . dirname($_));
			copy($_, "$dir/$_") or die "could not copy $_: $!";
		}
		mkdir "$dir/out";
		my @objects = map { s/\.c$/.o/r } grep { /\.c$/ } @sources;
		my $flags =
		    '-Wall -Wextra -Wno-unused-parameter -Wno-sign-compare'
		  . ' -Wno-missing-field-initializers';
		$flags .=
		    ' -Wno-unknown-warning-option -Wno-ignored-optimization-argument'
		  . ' -Wno-unused-command-line-argument -Wno-ignored-attributes'
		  if $compiler eq 'clang';

		my $output = `make -C $dir/out -f ../Makefile VPATH=.. -j2 CC=$compiler with_llvm=no \\
			PG_CONFIG='$ENV{PG_CONFIG}' COPT='$flags' @objects 2>&1`;
		is($?, 0, "$compiler compiles the sources") or diag($output);
		my @warnings = grep { /warning:/ } split(/^/, $output);
		is(join('', @warnings), '', "$compiler does not warn");
		my @beside = map { glob("$dir/src/$_") } qw(*.o */*.o);
		is("@beside", '', 'nothing is built beside the sources');
	}
}

foreach my $file (@sources)
{
	my @lines = lines_of($file);

	cmp_ok(scalar @lines, '<=', 900, "$file is not too long");
	unlike(join('', @lines), qr/[^\x00-\x7f]/, "$file is plain ASCII");
}

# The wings of the source, and that the check of them sees what it is to see.
sub wings_with
{
	my ($file, $text) = @_;
	my $dir = tempdir(CLEANUP => 1);
	foreach (@sources)
	{
		make_path("$dir/" . dirname($_));
		copy($_, "$dir/$_") or die "could not copy $_: $!";
	}
	if (defined $file)
	{
		open(my $out, '>>', "$dir/src/$file") or die "$file: $!";
		print $out $text;
		close($out);
	}
	return scalar `$^X test/wings $dir 2>&1`;
}

is(wings_with(), '', 'files keep to their wings');
like(wings_with(@$_), qr/$_->[2]/, "a file outside its wing is told: $_->[2]")
  foreach [
	'table/lock.c',
	qq{#include "write/write.h"\n},
	'includes write/write.h of a wing above'
  ],
  [ 'shards/view.c', qq{#include "consume/consume_private.h"\n}, q{another wing's own} ],
  [
	'shards/view.c',
	"extern void shard_copy_end(ShardInsert *insert);\n",
	'declares shard_copy_end, which belongs in a header'
  ],
  [
	'table/table.h',
	"extern bool shard_made_up(void);\n",
	'declares shard_made_up, which no other wing uses'
  ],
  [
	'table/table.h',
	"extern bool shard_check_column_option(DefElem *def, bool missing_ok);\n",
	'declares shard_check_column_option, as table/table.h does'
  ],
  [
	'table/option.c',
	"static void plant(void)\n{\n\tshard_table_get(0);\n}\n",
	'option.c: is in a circle, by shard_table_get of table/cache.c'
  ],
  [ 'table/lock.c', "#if PG_VERSION_NUM >= 170000\n#endif\n",
	'PG_VERSION_NUM belongs in compat.h' ];

# A pg_config of another kind: it gives these answers, and that of the server
# to other questions.
sub pg_config
{
	my ($file, %answers) = @_;

	open(my $fh, '>', $file) or die "could not write $file: $!";
	print $fh "#!/bin/sh\ncase \$1 in\n";
	print $fh "\t$_) echo '$answers{$_}' ;;\n" foreach sort keys %answers;
	print $fh "\t*) exec '$ENV{PG_CONFIG}' \"\$@\" ;;\nesac\n";
	close $fh;
	chmod(0755, $file) or die "could not chmod $file: $!";
	return $file;
}

sub write_file
{
	my ($file, $content) = @_;

	make_path($file =~ s{/[^/]*$}{}r);
	open(my $fh, '>', $file) or die "could not write $file: $!";
	print $fh $content;
	close $fh;
	return;
}

# Where nothing can be built, make says why and fails.
my $scratch = tempdir(CLEANUP => 1);
write_file("$scratch/pgxs.mk", "MAJORVERSION = 14\nVERSION = 14.9\n");
my @unusable = (
	[ '/nosuch/pg_config', qr{cannot run "/nosuch/pg_config"} ],
	[ 'false', qr{cannot run "false"} ],
	[
		pg_config("$scratch/no_headers", '--pgxs' => '/nosuch/pgxs.mk'),
		qr{no server headers: there is no /nosuch/pgxs\.mk}
	],
	[
		pg_config("$scratch/old", '--pgxs' => "$scratch/pgxs.mk"),
		qr{requires PostgreSQL 15\.2 or later; "\S+" belongs to 14\.9}
	]);
foreach my $case (@unusable)
{
	my ($pg_config, $message) = @$case;
	my $name = basename($pg_config);

	foreach my $goal ('', 'install')
	{
		my $output = `make $goal PG_CONFIG=$pg_config DESTDIR=$scratch/install 2>&1`;

		isnt($?, 0, "make $goal PG_CONFIG=$name fails");
		like($output, $message, "make $goal PG_CONFIG=$name says why it fails");
	}
}
my $said = `make test PG_CONFIG=/nosuch/pg_config 2>&1`;
isnt($?, 0, 'make test fails without a server, too');
like(
	$said,
	qr{no PostgreSQL server with headers belongs to PG_CONFIG=/nosuch/pg_config},
	'make test says that there is no server');

# Packages can be missing and nobody there who may install them.
write_file("$scratch/bin/$_", "#!/bin/sh\necho '$_: you may not' >&2\nexit 1\n")
  foreach 'sudo', 'apt-get';
chmod(0755, glob("$scratch/bin/*")) or die "could not chmod: $!";
my $no_pgtap = pg_config("$scratch/no_pgtap", '--sharedir' => "$scratch/nothing");
# They need a terminal, which a container may not have.
my $has_terminal = system('script -qec true /dev/null >/dev/null 2>&1') == 0;
SKIP:
{
	skip 'script(1) cannot make a terminal', 2 unless $has_terminal;
	$said =
	  `PATH='$scratch/bin:$ENV{PATH}' PG_CONFIG=$no_pgtap \
		script -qec test/setup /dev/null </dev/null`;
	like(
		$said,
		qr/missing: postgresql-\d+-pgtap; install them, or run this as root or with sudo/,
		'what is missing is said');
	is(scalar(() = $said =~ /you may not/g),
		1, 'it is said once why what is missing cannot be installed')
	  or diag($said);
}

# What "make install" has left on the machine is in nobody's way, be it of this
# version or of another; nor are the user's settings.
my %place = map { my $answer = `$ENV{PG_CONFIG} --$_`; chomp $answer; ("--$_" => $answer) }
  'bindir', 'pkglibdir', 'sharedir';
foreach my $dir (values %place)
{
	make_path("$scratch/root$dir");
	system('cp', '-RsT', $dir, "$scratch/root$dir") == 0 or die "could not copy $dir";
}
my %installed = (
	"$place{'--pkglibdir'}/shard_fdw.so" => 'not a library',
	"$place{'--pkglibdir'}/bitcode/shard_fdw.index.bc" => 'no bitcode',
	"$place{'--pkglibdir'}/bitcode/shard_fdw/src/write/insert.bc" => 'no bitcode',
	"$place{'--sharedir'}/extension/shard_fdw.control" => "default_version = '0.1'\n",
	"$place{'--sharedir'}/extension/shard_fdw--0.1.sql" => 'SELECT 0.1;');
foreach my $file (keys %installed)
{
	unlink "$scratch/root$file";
	write_file("$scratch/root$file", $installed{$file});
}
my $fake = pg_config("$scratch/installed", map { ($_ => "$scratch/root$place{$_}") } keys %place);

write_file("$scratch/home/.psqlrc", "\\echo psqlrc\n");
write_file("$scratch/home/.proverc", "--nosuch\n");
write_file("$scratch/look", <<'SH');
psql -Atc "CREATE EXTENSION shard_fdw" \
	-c "SELECT extversion FROM pg_extension WHERE extname = 'shard_fdw'" \
	-c "SELECT shard_fdw.last_shard() IS NULL" \
	-c "SELECT count(*) FROM pg_available_extension_versions WHERE name = 'shard_fdw'" \
	-c "SELECT current_setting('DateStyle'), current_setting('client_encoding'),
		current_setting('search_path'), current_setting('application_name')"
env | grep -E '^(PG|LC_|LANG|HARNESS|PERL|MAKE|CDPATH)' | cut -d= -f1 | sort | xargs
[ -z "$HAS_TERMINAL" ] ||
	script -qec "psql -Xc 'SELECT generate_series(1, 200)'" /dev/null | grep -c rows
SH
{
	local %ENV = (
		%ENV,
		HOME => "$scratch/home",
		HAS_TERMINAL => $has_terminal,
		PG_CONFIG => $fake,
		COPT => '-O0',
		CDPATH => '/:.',
		PGHOST => '/nosuch',
		PGHOSTADDR => '127.0.0.1',
		PGSERVICE => 'nosuch',
		PGDATABASE => 'nosuch',
		PGUSER => 'nosuch',
		PGOPTIONS => '-c search_path=nosuch',
		PGAPPNAME => 'nosuch',
		PGDATESTYLE => 'German',
		PGTZ => 'Asia/Tokyo',
		PGCLIENTENCODING => 'LATIN1',
		PG_COLOR => 'always',
		LC_ALL => 'C',
		LANGUAGE => 'de',
		TZ => 'Asia/Tokyo',
		PAGER => 'sleep 600',
		PSQL_PAGER => 'sleep 600',
		HARNESS_OPTIONS => 'j8',
		PERL5OPT => '-MNoSuch',
		MAKEFLAGS => 'k');
	$said = `timeout 300 test/with-cluster sh $scratch/look 2>$scratch/progress`;
}
my @expected = (
	'CREATE EXTENSION', $version, 't', 1, 'ISO, MDY|UTF8|"$user", public|psql',
	'LANG PGDATABASE PGHOST PGPORT PGUSER PG_CONFIG PG_REGRESS');
push(@expected, 1) if $has_terminal;
is( $said,
	join("\n", @expected) . "\n",
	'a cluster with what was built just now, and nothing from elsewhere'
) or diag(lines_of("$scratch/progress"));
like(
	join('', lines_of("$scratch/progress")),
	qr{^building shard_fdw for PostgreSQL \d+.* \.\.\.\n.*^starting a private cluster \.\.\.$}ms,
	'it says what it is doing');

# There is one version.  A release is called 1.0, 1.0.1, 1.1 and so on, and PGXN
# wants three numbers always; the extension has the first two of them.
my $meta = decode_json(join('', lines_of('META.json')));
my $release = $meta->{version} =~ s/^(\d+\.\d+)\.0$/$1/r;
like($release, qr/^\Q$version\E(\.[1-9]\d*)?$/, 'META.json has the version of the control file');
is((map { /^## (\S+)/ } lines_of('CHANGELOG.md'))[0], $release, 'CHANGELOG.md has the version');
is((lines_of('debian/changelog'))[0] =~ s/^shard-fdw \(([^-]*)-.*\n/$1/r,
	$release, 'debian/changelog has the version');
is(`src/load/shard_load --version`, "shard_load (shard_fdw) $release\n", 'shard_load has the version');
like(
	`make -n dist PG_CONFIG=/nosuch/pg_config`,
	qr{--prefix=shard_fdw-\Q$meta->{version}\E/ .*/shard_fdw-\Q$meta->{version}\E\.zip},
	'the archive has the version, and needs no PostgreSQL');

# What PGXN says of the extension is true.
my %provided = %{ $meta->{provides}{shard_fdw} };
is("$provided{version}: $provided{abstract}",
	"$meta->{version}: $comment", 'META.json says what the control file says');
ok(-f $provided{$_}, "META.json names a file: $_") foreach 'file', 'docfile';

# A short test of an installation, as packages and PGXN's testers run it.
{
	my $dir = tempdir(CLEANUP => 1);
	my $here = getcwd;
	my $output = `make -C $dir -f $here/Makefile VPATH=$here installcheck 2>&1`;

	is($?, 0, 'make installcheck passes')
	  or diag($output, -f "$dir/regression.diffs" ? lines_of("$dir/regression.diffs") : ());
}

# A statement that is to fail does so where psql does not show it.
foreach my $file (glob('test/sql/*.sql'))
{
	unlike(join('', lines_of($file)), qr/ON_ERROR_STOP 0/, "$file shows no errors");
}

# What is built is what is listed.
my $makefile = join('', lines_of('Makefile'));
foreach my $file (grep { /\.c$/ } @sources)
{
	my $object = $file =~ s/\.c$/.o/r;
	like($makefile, qr/\Q$object\E/, "$object is in the Makefile");
}

done_testing();
