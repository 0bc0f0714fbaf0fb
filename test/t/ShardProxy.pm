# A proxy between a server and a node, which can cut or stall connections.
package ShardProxy;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

# Start a proxy in front of a node.  It listens on $proxy->{port} of 127.0.0.1.
sub new
{
	my ($class, $node) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', Listen => 20, ReuseAddr => 1) or die "cannot listen: $!";
	my $self = bless {
		port => $listener->sockport,
		socket => $node->host . '/.s.PGSQL.' . $node->port,
		mode_file => PostgreSQL::Test::Utils::tempdir() . '/mode',
		owner => $$,
	}, $class;

	$self->mode('pass');
	$self->{pid} = fork() // die "cannot fork: $!";
	if (!$self->{pid})
	{
		$self->_serve($listener);
		# Without the END blocks of the test.
		POSIX::_exit(0);
	}
	close($listener);
	return $self;
}

# What happens to connections from now on:
#   pass             nothing
#   cut WORD         ends when a client sends this, before it reaches the node
#   swallow WORD     ends when a client has sent this, and the node has answered
#   bytes N          ends when a client has sent so many bytes since
#   stall            nothing is passed on, in new connections either
sub mode
{
	my ($self, $mode) = @_;
	my $new = "$self->{mode_file}.new";

	$self->{serial}++;
	open(my $out, '>', $new) or die "$new: $!";
	print $out "$self->{serial} $mode";
	close($out);
	rename($new, $self->{mode_file}) or die "$new: $!";
	# It looks at the file before it passes anything on.
	return;
}

sub _serve
{
	my ($self, $listener) = @_;
	my $select = IO::Select->new($listener);
	my (%peer, %is_client, %dying);
	my ($serial, $word, $mode, $sent) = ('', '', 'pass', 0);
	my $end = sub {
		foreach my $socket (grep { defined } $_[0], $peer{ $_[0] })
		{
			$select->remove($socket);
			close($socket);
		}
	};

	$SIG{PIPE} = 'IGNORE';
	while (kill(0, $self->{owner}))
	{
		my @ready = $select->can_read(0.1);
		open(my $in, '<', $self->{mode_file}) or next;
		my ($new, $line) = split(/ /, <$in>, 2);
		close($in);

		if ($new ne $serial)
		{
			$serial = $new;
			$sent = 0;
			($mode, $word) = split(/ /, $line, 2);
		}
		if ($mode eq 'stall')
		{
			usleep(50_000);
			next;
		}
		foreach my $socket (@ready)
		{
			if ($socket == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $self->{socket});

				if (!$server)
				{
					close($client);
					next;
				}
				@peer{ $client, $server } = ($server, $client);
				$is_client{$client} = 1;
				$is_client{$server} = 0;
				delete @dying{ $client, $server };
				$select->add($client, $server);
				next;
			}
			next if !defined(fileno($socket));
			my $n = sysread($socket, my $data, 65536);
			if (!$n)
			{
				$end->($socket);
				next;
			}
			if ($is_client{$socket})
			{
				$sent += $n;
				if (   ($mode eq 'cut' && index($data, $word) >= 0)
					|| ($mode eq 'bytes' && $sent > $word))
				{
					$end->($socket);
					next;
				}
				$dying{ $peer{$socket} } = 1 if $mode eq 'swallow' && index($data, $word) >= 0;
			}
			elsif ($dying{$socket})
			{
				$end->($socket);
				next;
			}
			my $to = $peer{$socket};
			for (my $at = 0; $at < $n;)
			{
				my $written = syswrite($to, $data, $n - $at, $at);

				if (!defined($written))
				{
					$end->($socket);
					last;
				}
				$at += $written;
			}
		}
	}
	return;
}

sub DESTROY
{
	my ($self) = @_;

	return if $$ != $self->{owner} || !$self->{pid};
	local $?;
	kill('KILL', $self->{pid});
	waitpid($self->{pid}, 0);
	return;
}

1;
