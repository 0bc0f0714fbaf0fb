# "make html": pages for a browser, made of the documents by pandoc.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

chdir($ENV{TESTDIR}) or die "could not enter the folder: $!";

my $said = `make html PANDOC= 2>&1`;
isnt($?, 0, 'without pandoc there are no pages');
like($said, qr/there is no pandoc.*apt install pandoc/,
	'without pandoc it is said what to install');

if (system('pandoc --version >/dev/null 2>&1') != 0)
{
	done_testing();
	exit;
}

$said = `make -j2 html PG_CONFIG=/nosuch/pg_config 2>&1`;
is($?, 0, 'pages are made, without PostgreSQL') or diag($said);
unlike($said, qr/warning/i, 'nothing is wrong with the documents');
like($said, qr{The first page is \S+/build/html/index\.html}, 'it is said where they are');

my %pages = map { $_ => slurp_file($_) } glob('build/html/*.html build/html/docs/*.html');
my @documents = glob('*.md docs/*.md');
is(scalar(keys %pages), scalar(@documents), 'each document is a page');

my %ids;
foreach my $page (keys %pages)
{
	$ids{$page}{$_} = 1 foreach $pages{$page} =~ / id="([^"]+)"/g;
}
foreach my $page (sort keys %pages)
{
	my ($folder) = $page =~ m{^(.*)/};
	my @broken;

	foreach my $link ($pages{$page} =~ / (?:href|src)="([^"]+)"/g)
	{
		my ($path, $anchor) = split(/#/, $link);
		my $target = $path eq '' ? $page : "$folder/$path";

		next if $link =~ /^https?:/;
		1 while $target =~ s{/[^/]+/\.\./}{/};
		push(@broken, $link) if !-f $target || defined $anchor && !$ids{$target}{$anchor};
	}
	is("@broken", '', "$page: links");
	like($pages{$page}, qr{<title>[^<]+</title>.*<h1}s, "$page: a title and a heading");
	like($pages{$page}, qr/On this page/, "$page: a table of contents")
	  if ($pages{$page} =~ s/<h2/<h2/g) > 1;
	unlike($pages{$page}, qr/<!--/, "$page: no notes for the tests");
}

done_testing();
