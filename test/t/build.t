# The library's symbols, the compilers' warnings, and the rules of the house
# that a machine can check.
use strict;
use warnings;

use Cwd qw(getcwd);
use File::Basename qw(basename);
use File::Copy qw(copy);
use File::Temp qw(tempdir);
use Test::More;

sub lines_of
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "could not read $file: $!";
	my @lines = <$fh>;
	return @lines;
}

my @sources = sort(glob('src/*.c'), glob('src/*.h'));
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
		  or skip "$compiler is not installed", 2;

		my $dir = tempdir(CLEANUP => 1);
		mkdir "$dir/src";
		copy($_, "$dir/$_") or die "could not copy $_: $!"
		  foreach ('Makefile', 'shard_fdw.control', @sources);
		my @objects = map { s/\.c$/.o/r } grep { /\.c$/ } @sources;
		my $flags =
		    '-Wall -Wextra -Wno-unused-parameter -Wno-sign-compare'
		  . ' -Wno-missing-field-initializers';
		$flags .=
		    ' -Wno-unknown-warning-option -Wno-ignored-optimization-argument'
		  . ' -Wno-unused-command-line-argument -Wno-ignored-attributes'
		  if $compiler eq 'clang';

		my $output = `make -C $dir -j2 CC=$compiler with_llvm=no \\
			PG_CONFIG='$ENV{PG_CONFIG}' COPT='$flags' @objects 2>&1`;
		is($?, 0, "$compiler compiles the sources") or diag($output);
		my @warnings = grep { /warning:/ } split(/^/, $output);
		is(join('', @warnings), '', "$compiler does not warn");
	}
}

foreach my $file (@sources)
{
	my @lines = lines_of($file);

	cmp_ok(scalar @lines, '<=', 900, "$file is not too long");
	is(scalar(grep { /\bPG_VERSION_NUM\b/ } @lines), 0,
		"$file asks for no version")
	  unless $file eq 'src/compat.h';
	unlike(join('', @lines), qr/[^\x00-\x7f]/, "$file is plain ASCII");
}

# What is built is what is listed.
my $makefile = join('', lines_of('Makefile'));
foreach my $file (grep { /\.c$/ } @sources)
{
	my $object = $file =~ s/\.c$/.o/r;
	like($makefile, qr/\Q$object\E/, "$object is in the Makefile");
}

done_testing();
