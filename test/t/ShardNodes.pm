# What the tests of shards on other servers share: servers that know each other,
# and shards on them.
package ShardNodes;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use ShardTest;

our @EXPORT = qw(start_nodes add_shards);

my ($here, @nodes);

# A server with shard_fdw, in whose database postgres each node is a server of
# postgres_fdw; then the nodes, which have no extension.  Nothing if there is no
# postgres_fdw.
sub start_nodes
{
	my @names = @_;

	$here = shard_node('here');
	return
	  if !$here->safe_psql('postgres',
		q{SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'});
	$here->safe_psql('postgres', 'CREATE EXTENSION postgres_fdw');
	foreach my $name (@names)
	{
		my $node = PostgreSQL::Test::Cluster->new($name);

		$node->init;
		$node->append_conf('postgresql.conf', "log_statement = none\nautovacuum = off\n");
		$node->start;
		$here->safe_psql('postgres', sprintf(q{
			CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw
			  OPTIONS (host '%s', port '%s', dbname 'postgres', batch_size '1000');
			CREATE USER MAPPING FOR CURRENT_USER SERVER %1$s}, $name, $node->host, $node->port));
		push(@nodes, $node);
	}
	return ($here, @nodes);
}

# Give a logical table shards in these places: names of nodes, or "local".
# "columns" are those of the tables there, "constraint" is one of each shard, %d
# its number.
sub add_shards
{
	my ($table, $columns, $constraint, @places) = @_;

	foreach my $i (0 .. $#places)
	{
		my ($node) = grep { $_->name eq $places[$i] } @nodes;
		my $own = sprintf($constraint, $i);
		(my $name = "${table}_$i") =~ s/.*\.//;

		$own = "CONSTRAINT shard_hash CHECK ($own)" if $own ne '';
		if (!$node)
		{
			$here->safe_psql('postgres', "CREATE TABLE ${table}_$i ($own) INHERITS ($table)");
			next;
		}
		$node->safe_psql('postgres', "CREATE TABLE $name ($columns)");
		$here->safe_psql('postgres', qq{
			SET client_min_messages = error;
			CREATE FOREIGN TABLE ${table}_$i ($own) INHERITS ($table)
			  SERVER $places[$i] OPTIONS (schema_name 'public', table_name '$name')});
	}
	return;
}

1;
