# The works about shards on other servers: two nodes on this machine, next door and 1 ms away.
# Part of test/bench/run, whose functions it uses.

use strict;
use warnings;

use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

# For beside_writers().
require './test/bench/growth.pl';

# With both, all tables have the same rows.
my $columns = 'id bigint, a int, b int, at timestamptz';
my $ours = 'shard_fdw, 8 shards on nodes';
my $fetched = 'shard_fdw, rows fetched';
my $native = 'native hash partitions, 8 on nodes';
my $mixed = 'shard_fdw, 8 shards here, 2 on nodes';
my $local = 'shard_fdw, 10 shards here';
my %table = ($ours => 'far', $fetched => 'far', $native => 'far_native', $mixed => 'mixed', $local => 'near');

my $dir;
my (%node, @proxies);
my $owner = $$;

# Our own processes end with us.
END
{
	if ($$ == $owner)
	{
		local $?;
		kill('KILL', @proxies) if @proxies;
		system("pg_ctl -D $dir/$_ -m immediate stop >/dev/null") for keys %node;
	}
}

# Pass on what comes, half of a round trip later.
sub delay
{
	my ($listener, $path, $half) = @_;
	my $select = IO::Select->new($listener);
	my (%peer, @queue);

	while (getppid() == $owner)
	{
		my $wait = @queue ? $queue[0][0] - time() : 1;
		foreach my $from ($select->can_read($wait > 0 ? $wait : 0))
		{
			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $path) or next;
				setsockopt($client, IPPROTO_TCP, TCP_NODELAY, 1);
				@peer{ $client, $server } = ($server, $client);
				$select->add($client, $server);
				next;
			}
			my $n = sysread($from, my $data, 65536);
			$select->remove($from) if !$n;
			push(@queue, [ time() + $half, $peer{$from}, $n ? $data : undef ]);
		}
		while (@queue && $queue[0][0] <= time())
		{
			my (undef, $to, $data) = @{ shift @queue };
			if (!defined($data))
			{
				shutdown($to, 1);
				next;
			}
			for (my $at = 0; $at < length($data);)
			{
				$at += syswrite($to, $data, length($data) - $at, $at) // last;
			}
		}
	}
	return;
}

# Start the nodes, and what delays connections to them.
sub start_nodes
{
	return if $dir;
	$dir = tempdir(DIR => $ENV{PGHOST}, CLEANUP => 1);
	psql('CREATE EXTENSION IF NOT EXISTS postgres_fdw;');
	foreach my $name ('n1', 'n2')
	{
		my $port = $name eq 'n1' ? 6001 : 6002;
		my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20) or die "cannot listen: $!";
		system("initdb -D $dir/$name -U postgres -A trust -N >$dir/$name.log 2>&1 && pg_ctl -D $dir/$name -w -l $dir/$name.log"
			  . " -o \"-k $dir -p $port -c listen_addresses='' -c shared_buffers=256MB -c autovacuum=off -c max_wal_size=8GB\""
			  . ' start >/dev/null') == 0 or die "cannot start node $name\n";
		$node{$name} = { port => $port, proxy => $listener->sockport };
		my $pid = fork() // die "cannot fork: $!";
		if (!$pid)
		{
			local $SIG{PIPE} = 'IGNORE';
			delay($listener, "$dir/.s.PGSQL.$port", 0.0005);
			POSIX::_exit(0);
		}
		push(@proxies, $pid);
		psql("CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw
			OPTIONS (host '$dir', port '$port', dbname 'postgres', batch_size '1000', fetch_size '10000', async_capable 'true');
			CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (user 'postgres');");
	}
	return;
}

# From now on, nodes are so far away.
sub set_distance
{
	my ($is_away) = @_;

	foreach my $name (sort keys %node)
	{
		my ($host, $port) = $is_away ? ('127.0.0.1', $node{$name}{proxy}) : ($dir, $node{$name}{port});
		psql("ALTER SERVER $name OPTIONS (SET host '$host', SET port '$port');");
	}
	return;
}

sub on_node
{
	my ($name, $sql) = @_;
	return psql($sql, "-h $dir -p $node{$name}{port} -d postgres");
}

# Create them once.
sub create_far
{
	my ($rows) = @_;

	return if $dir;
	create_contenders();
	start_nodes();
	psql("SET client_min_messages = error;
		CREATE TABLE far_model ($columns, PRIMARY KEY (id));
		CREATE TABLE far_native ($columns) PARTITION BY HASH (id);
		CREATE FOREIGN TABLE far ($columns) SERVER shards
		  OPTIONS (shards '8', route 'hash', key 'id', template 'far_model', nodes 'n1, n2');
		CREATE FOREIGN TABLE near ($columns) SERVER shards
		  OPTIONS (shards '10', route 'hash', key 'id', template 'far_model');
		CREATE FOREIGN TABLE mixed ($columns) SERVER shards
		  OPTIONS (shards '10', route 'hash', key 'id', template 'far_model', nodes 'local, local, local, local, n1, local, local, local, local, n2');");
	foreach my $i (0 .. 7)
	{
		my $name = $i % 2 ? 'n2' : 'n1';
		on_node($name, "CREATE TABLE far_native_$i ($columns, PRIMARY KEY (id));");
		psql("CREATE FOREIGN TABLE far_native_$i PARTITION OF far_native FOR VALUES WITH (MODULUS 8, REMAINDER $i) SERVER $name;");
	}
	fill_far($rows);
	return;
}

# The rows that queries are about.
my $filled = 0;

sub fill_far
{
	my ($rows) = @_;

	return if $filled;
	$filled = 1;
	foreach my $t ('far', 'far_native', 'near', 'mixed')
	{
		psql("TRUNCATE $t;
			INSERT INTO $t SELECT g, g % 100, g, now() FROM generate_series(1, $rows) g;
			SELECT format('ANALYZE %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = '$t'::regclass \\gexec
			ANALYZE $t;");
	}
	on_node($_, 'VACUUM ANALYZE; CHECKPOINT;') for sort keys %node;
	psql('VACUUM ANALYZE; CHECKPOINT;');
	return;
}

# A work, with the nodes here and there.
sub far_work
{
	my (%w) = @_;

	foreach my $is_away (@{ $w{distances} // [ 0, 1 ] })
	{
		work(
			name => 'nodes: ' . $w{name} . ($is_away ? ', nodes 1 ms away' : ''),
			unit => $w{unit} // 'time',
			contenders => $w{contenders},
			yardstick => $w{yardstick},
			prepare => sub {
				create_far($w{rows});
				$w{writes} ? ($filled = 0) : fill_far($w{rows});
				set_distance($is_away);
			},
			run => $w{run});
	}
	return;
}

# Move a shard of so many rows to a node and back beside writers.  Returns how long each move takes, and
# the longest time that a writer has needed for a row, in ms.
sub move_there_and_back
{
	my ($tmp, $n, $key) = @_;
	my %result;

	on_node('n1', 'CREATE EXTENSION IF NOT EXISTS shard_fdw;');
	psql("SET client_min_messages = error;
		DROP FOREIGN TABLE IF EXISTS moved CASCADE; DROP TABLE IF EXISTS moved_model; DROP SEQUENCE IF EXISTS moved_ids;
		CREATE SEQUENCE moved_ids START 1000000000 CACHE 100;
		CREATE TABLE moved_model (id bigint $key, at timestamptz NOT NULL DEFAULT now(), message text);
		CREATE FOREIGN TABLE moved (id bigint, at timestamptz NOT NULL DEFAULT now(), message text)
		  SERVER shards OPTIONS (shards '2', route 'hash', key 'id', template 'moved_model');
		INSERT INTO moved (id, message) SELECT g, md5(g::text) FROM generate_series(1, 2 * $n) g;
		VACUUM ANALYZE; CHECKPOINT;");
	on_node('n1', 'CHECKPOINT;');
	foreach my $to ('n1', 'local')
	{
		$result{$to} = [
			beside_writers($tmp, 4, "INSERT INTO moved (id, message) VALUES (nextval('moved_ids'), 'new')",
				"DO \$\$ BEGIN PERFORM shard_fdw.move_shard('moved_0', '$to'); END \$\$") ];
	}
	return \%result;
}

sub nodes_works
{
	my (%args) = @_;
	my $rows = $args{rows};
	my $few = $rows < 100_000 ? $rows : 100_000;
	my $input = "$args{tmp}/far";

	# A connection to each node, and all caches warm.
	my $warm = 'SELECT count(*) FROM %s WHERE a = -1';
	my $query = sub {
		my ($sql, $settings) = @_;
		return sub {
			my ($name) = @_;
			my $q = sprintf($sql, $table{$name});
			my $partwise = $name eq $fetched ? 'off' : 'on';
			return timed("SET enable_partitionwise_aggregate = $partwise; $settings; $q", $q);
		};
	};

	far_work(
		name => "count(*) of $rows rows",
		rows => $rows,
		contenders => [ $fetched, $ours, $native ],
		yardstick => $fetched,
		run => $query->('SELECT count(*) FROM %s', 'SELECT 1'));
	far_work(
		name => "GROUP BY, 100 groups of $rows rows",
		rows => $rows,
		contenders => [ $fetched, $ours, $native ],
		yardstick => $fetched,
		run => $query->('SELECT a, count(*), sum(b), max(at) FROM %s GROUP BY a', 'SELECT 1'));
	far_work(
		name => "GROUP BY, 100 groups of $rows rows, 2 workers",
		rows => $rows,
		contenders => [ $local, $mixed ],
		yardstick => $local,
		run => $query->('SELECT a, count(*), sum(b), max(at) FROM %s GROUP BY a', 'SET max_parallel_workers_per_gather = 2'));
	far_work(
		name => 'SELECT by key, pgbench -M prepared, 1 client',
		unit => 'rate',
		rows => $rows,
		contenders => [ $ours, $native ],
		yardstick => $native,
		run => sub {
			my $t = $table{ $_[0] };
			return pgbench(1, 'prepared', '-c session_preload_libraries=shard_fdw', 0,
				sub { return "\\set id random(1, $rows)\nSELECT * FROM $t WHERE id = :id;\n" });
		});
	# PostgreSQL 15 sends the rows of a COPY one by one, and waits for each.
	my $fewer = $few / 10;
	foreach my $write (
		[ "INSERT ... SELECT of $few rows", $few, [ 0, 1 ], "INSERT INTO %s SELECT g, g, g, now() FROM generate_series(1, $few) g" ],
		[ "COPY of $few rows", $few, [0], "COPY %s FROM '$input$few'" ],
		[ "COPY of $fewer rows", $fewer, [1], "COPY %s FROM '$input$fewer'" ])
	{
		my ($name, $n, $distances, $command) = @$write;

		far_work(
			name => $name,
			rows => $rows,
			writes => 1,
			distances => $distances,
			contenders => [ $ours, $native ],
			yardstick => $native,
			run => sub {
				my $t = $table{ $_[0] };
				psql("COPY (SELECT g, g, g, now() FROM generate_series(1, $n) g) TO '$input$n';") if !-e "$input$n";
				return timed("TRUNCATE $t; " . sprintf($warm, $t), sprintf($command, $t));
			});
	}

	# A shard goes to a node and comes back.  Without a key, it is locked meanwhile.
	my %key = ('move_shard(), no key' => '', 'move_shard()' => 'PRIMARY KEY');
	my %seen;
	my $move = sub {
		my ($which, $to, $name, $round) = @_;
		$seen{"$name $round"} //= move_there_and_back($args{tmp}, $rows / 2, $key{$name});
		return $seen{"$name $round"}{$to}[$which];
	};
	foreach my $figure ([ 0, 'time of' ], [ 1, 'the longest wait of 4 writers beside' ])
	{
		foreach my $to ('n1', 'local')
		{
			my ($which, $what) = @$figure;

			far_work(
				name => "$what a move of " . $rows / 2 . ' rows ' . ($to eq 'n1' ? 'to a node' : 'from a node'),
				rows => $rows,
				distances => [0],
				contenders => [ sort { $b cmp $a } keys %key ],
				yardstick => 'move_shard(), no key',
				run => sub { return $move->($which, $to, @_) });
		}
	}
	if ($dir)
	{
		psql('SET client_min_messages = error;
			DROP TABLE far_native, far_model CASCADE; DROP FOREIGN TABLE IF EXISTS far, near, mixed, moved CASCADE;
			DROP SERVER n1, n2 CASCADE;');
	}
	return;
}

1;
