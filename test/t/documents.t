# The examples in README.md and docs/: each ```sql block is run by psql, in the
# order of the document, in a database of the document's own.  Links are
# followed, too.
#
# Blocks are run by role app_owner, which owns database app and nothing else.
# A ```text block that follows an SQL block, with nothing but blank lines in
# between, is what psql -q prints for it; without one, it must not print an
# error or a warning.  In the text, "..." stands for any characters, or, on a
# line of its own, for any lines but errors and warnings.  Comments above a block say more:
#
#   <!-- as postgres -->            another role runs it, in a session of its own
#   <!-- new session -->            the session before ends
#   <!-- numbers vary -->           of the output, numbers and widths do not count
#   <!-- not run: the reason -->
#   <!-- sql                        SQL that readers do not see
#   ... -->
use strict;
use warnings;

use CPAN::Meta::YAML;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;

my $most_not_run = 12;
my @files =
  ("$ENV{TESTDIR}/README.md", sort glob("$ENV{TESTDIR}/docs/*.md"));
my %headings = map { $_ => headings($_) } @files;
my $not_run = 0;

my $node = PostgreSQL::Test::Cluster->new('documents');
$node->init;
$node->append_conf('postgresql.conf',
	"max_connections = 30\nautovacuum = off\nwal_level = logical\n");
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE app_owner LOGIN');
$node->safe_psql('postgres', 'CREATE DATABASE installed');
setup_shards($node, 'installed');
$node->safe_psql('installed', 'GRANT USAGE ON FOREIGN SERVER shards TO app_owner');

foreach my $file (@files)
{
	my ($name) = $file =~ m{^\Q$ENV{TESTDIR}\E/(.*)};
	my $text = slurp_file($file);
	my @blocks = blocks($text);

	links_ok($file, $name, $text);
	next if !@blocks;
	fresh_database($name eq 'README.md');
	blocks_ok($name, @blocks);
}
cmp_ok($not_run, '<=', $most_not_run, 'few examples are not run');

monitoring_ok();

$node->stop;
done_testing();

# A database "app" with nothing in it, owned by "app_owner"; unless it is to be
# bare, what README's section about the installation says has been done.
sub fresh_database
{
	my ($is_bare) = @_;

	my $template = $is_bare ? 'template0' : 'installed';

	$node->safe_psql('postgres', qq{
		DROP DATABASE IF EXISTS app WITH (FORCE);
		SELECT format('DROP ROLE %I', rolname) FROM pg_roles
		 WHERE oid >= 16384 AND rolname <> 'app_owner' \\gexec
		CREATE DATABASE app TEMPLATE $template OWNER app_owner});
}

# The SQL of a document: where it is, SQL, output, and what the comments say.
sub blocks
{
	my ($text) = @_;
	my (@blocks, %notes);
	my $between = '';
	my $line = 1;

	while ($text =~ m{\G(?:
			(?<open>^```(?<language>\w*)\n) (?<body>.*?) ^```\n |
			^<!--\ sql\n (?<hidden>.*?) ^-->\n |
			^<!--\ (?<note>[^\n]*)\ -->\n |
			(?<other>[^\n]*\n) )}gmsx)
	{
		my ($all, $language, $body) = ($&, $+{language} // '', $+{body});

		if (defined $+{hidden})
		{
			push(@blocks, { line => $line, sql => $+{hidden} });
		}
		elsif (defined $+{note})
		{
			my ($key, $value) =
			  $+{note} =~ /^(as|not run:|new session|numbers vary) ?(.*)$/;

			$notes{$key} = $value if defined $key;
		}
		elsif (defined $+{other})
		{
			$between .= $all;
			%notes = () if $all =~ /\S/;
		}
		elsif ($language eq 'sql')
		{
			push(@blocks, { line => $line, sql => $body, %notes });
			$between = '';
			%notes = ();
		}
		elsif ($language eq 'text' && @blocks && $between !~ /\S/)
		{
			$blocks[-1]{output} = $body;
			$blocks[-1] = { %{ $blocks[-1] }, %notes };
			$between = 'output';
			%notes = ();
		}
		$between .= 'other' if defined $+{open} && $language !~ /^(?:sql|text)$/;
		$line += $all =~ tr/\n//;
	}
	return @blocks;
}

# Run the blocks of a document, and compare what psql prints.
sub blocks_ok
{
	my ($name, @blocks) = @_;
	my $mark = '=== end of example';
	my $role = 'app_owner';
	my ($script, $printed) = ("\\set QUIET on\n", '');

	my @run = grep { !exists $_->{'not run:'} } @blocks;

	$not_run += @blocks - @run;
	foreach my $block (@run)
	{
		my $wanted = $block->{as} // 'app_owner';

		$script .= "\\connect - $wanted\n"
		  if $wanted ne $role || exists $block->{'new session'};
		$script .= "$block->{sql}\n\\echo '$mark'\n";
		$role = $wanted;
	}
	local %ENV = (%ENV, $node->_get_env, PGUSER => 'app_owner');
	IPC::Run::run(
		[ 'psql', '-Xq', 'app' ],
		'<', \$script, '>&', \$printed,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my @printed = split(/^\Q$mark\E\n/m, $printed, -1);

	is(@printed - 1, @run, "$name: all is run") or diag($printed);
	foreach my $block (@run)
	{
		my $got = trimmed(shift(@printed) // '');
		my ($first) = $block->{sql} =~ /^(?!--)(.*)/m;
		my $title = "$name, line $block->{line}: $first";

		if (defined $block->{output})
		{
			my $expected = trimmed($block->{output});

			$_ = without_numbers($_)
			  foreach exists $block->{'numbers vary'} ? ($got, $expected) : ();
			ok("$got\n" =~ pattern("$expected\n"), $title)
			  or diag("it prints\n$got\nand should print\n$expected");
		}
		else
		{
			unlike($got, qr/^(?:ERROR|FATAL|WARNING|psql|invalid command)\b.*/m, $title);
		}
	}
}

sub trimmed
{
	my ($text) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/\A\n+|\n+\z//g;
	$text =~ s/\n{2,}/\n\n/g;
	return $text;
}

sub without_numbers
{
	my ($text) = @_;

	$text =~ s/\d+(?:\.\d+)?/0/g;
	$text =~ s/-{2,}/--/g;
	$text =~ s/ {2,}/ /g;
	$text =~ s/^ | $//mg;
	return $text;
}

# What is between the dots, literally.
sub pattern
{
	my ($expected) = @_;
	my $pattern = quotemeta($expected);

	$pattern =~ s/^(?:\\ )*\\\.\\\.\\\.\\\n/(?:(?!ERROR|FATAL|WARNING).*\\n)*?/mg;
	$pattern =~ s/\\\.\\\.\\\./.*?/g;
	return qr/\A$pattern\z/;
}

# The anchors of a document's headings, as GitHub makes them.
sub headings
{
	my ($file) = @_;
	my $text = slurp_file($file);
	my (%headings, %seen);

	$text =~ s/^```.*?^```$//msg;
	foreach my $heading ($text =~ /^#+ +(.*)$/mg)
	{
		my $anchor = lc $heading;

		$anchor =~ s/[^\w\- ]//g;
		$anchor =~ s/ /-/g;
		$anchor .= "-$seen{$anchor}" if $seen{$anchor}++;
		$headings{$anchor} = 1;
	}
	return \%headings;
}

# All links of a document lead somewhere.
sub links_ok
{
	my ($file, $name, $text) = @_;
	my ($folder) = $file =~ m{^(.*)/};
	my @broken;

	$text =~ s/^```.*?^```$//msg;
	foreach my $link ($text =~ /\]\(([^)]+)\)/g)
	{
		my ($path, $anchor) = split(/#/, $link);
		my $target = $path eq '' ? $file : "$folder/$path";

		next if $link =~ /^https?:/;
		1 while $target =~ s{/[^/]+/\.\./}{/};
		push(@broken, $link)
		  if !-e $target
		  || defined $anchor && !($headings{$target} && $headings{$target}{$anchor});
	}
	is("@broken", '', "$name: links");
}

# What other programs read: it parses, and its queries run, as a member of
# pg_monitor.  Columns are those that the program is told of.
sub monitoring_ok
{
	my $exporter = CPAN::Meta::YAML->read("$ENV{TESTDIR}/docs/postgres_exporter.yaml")->[0];
	my $grafana = decode_json(slurp_file("$ENV{TESTDIR}/docs/grafana.json"));
	my ($variable) = grep { $_->{type} eq 'query' } @{ $grafana->{templating}{list} };
	my %ids;

	$node->safe_psql('installed', q{
		CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
		CREATE FOREIGN TABLE log (id bigint OPTIONS (sequence 'always'), at timestamptz NOT NULL)
		  SERVER shards OPTIONS (shards '3', commit_order 'true', time_column 'at');
		CREATE FOREIGN TABLE "Key's" (k int) SERVER shards OPTIONS (shards '2', route 'hash', key 'k');
		INSERT INTO log (at) SELECT now() FROM generate_series(1, 10);
		SELECT shard_fdw.register_consumer('log', 'c', 'id')});
	foreach my $name (sort keys %$exporter)
	{
		my @metrics = map { keys %$_ } @{ $exporter->{$name}{metrics} };
		my @got = rows($exporter->{$name}{query}, 1);
		my @bad = grep { $_->{ (keys %$_)[0] }{usage} !~ /^(?:LABEL|GAUGE|COUNTER)$/ }
		  @{ $exporter->{$name}{metrics} };

		is($got[0], join('|', @metrics), "postgres_exporter: columns of $name");
		cmp_ok(@got, '>', 1, "postgres_exporter: $name has rows");
		is(@bad, 0, "postgres_exporter: usages of $name");
	}

	my @tables = rows($variable->{query});
	my $all = join(',', map { "'" . s/'/''/gr . "'" } @tables);

	is_deeply(\@tables, [ '"Key\'s"', 'log' ], 'Grafana: tables to choose from');
	foreach my $panel (@{ $grafana->{panels} })
	{
		my $sql = $panel->{targets}[0]{rawSql} =~ s/\$\{table:sqlstring\}/$all/gr;
		my @got = rows($sql, 1);

		unlike($got[0], qr/ERROR/, "Grafana: panel $panel->{id}, $panel->{title}");
		cmp_ok(@got, '>', 1, "Grafana: panel $panel->{id} has rows")
		  if $panel->{title} !~ /^(?:Problems|Sessions per shard)$/;
		ok(!$ids{ $panel->{id} }++, "Grafana: panel $panel->{id} is one");
	}
}

# What a query returns to a member of pg_monitor: rows, and their columns before.
sub rows
{
	my ($sql, $with_columns) = @_;
	my ($stdout, $stderr);

	$node->psql('installed', $sql, stdout => \$stdout, stderr => \$stderr,
		extra_params => [ '-U', 'monitor', $with_columns ? ('-P', 'tuples_only=off', '-P', 'footer=off') : () ]);
	return split(/\n/, $stderr ne '' ? $stderr : $stdout);
}
