# Net::Stomp (Perl) against a pair: arguments are the STOMP ports of both nodes, master first.
use strict;
use warnings;
use Net::Stomp;

my $COUNT = 600;
$| = 1;

# The client's own list of brokers, which it goes through when a connection breaks.
sub client {
    my @hosts = map { { hostname => '127.0.0.1', port => $_ } } @ARGV;
    my $client = Net::Stomp->new({
        hosts => \@hosts,
        initial_reconnect_attempts => 0,
        reconnect_attempts => 0,
        connect_delay => 1,
    });
    my $answer = $client->connect({ login => 'guest', passcode => 'guest', host => '/' });
    die 'not connected' unless $answer->command eq 'CONNECTED';
    return $client;
}

# Takes `count` messages, each acked.
sub take {
    my ($client, $destination, $count) = @_;
    $client->subscribe({ destination => $destination, id => 1, ack => 'client' });
    my @frames;
    while (@frames < $count) {
        my $frame = $client->receive_frame({ timeout => 30 }) or die 'no message';
        next unless $frame->command eq 'MESSAGE';
        $client->ack({ frame => $frame });
        push @frames, $frame;
    }
    $client->unsubscribe({ id => 1, destination => $destination });
    return @frames;
}

sub basics {
    my $client = client();
    my $destination = '/queue/interop-perl-basics';
    $client->send_with_receipt({
        destination => $destination, body => 'one', colour => 'a:b', priority => 4,
    }) or die 'no receipt';
    my $large = "\0" x 500_000;
    $client->send_with_receipt({
        destination => $destination, body => $large, 'content-length' => length $large,
    }) or die 'no receipt';
    my ($one, $two) = take($client, $destination, 2);
    die 'body' unless $one->body eq 'one';
    die 'header' unless $one->headers->{colour} eq 'a:b' and $one->headers->{priority} == 4;
    die 'NULs' unless $two->body eq $large;
    for my $end ('ABORT', 'COMMIT') {
        my %transaction = (transaction => $end);
        $client->send_frame(Net::Stomp::Frame->new({ command => 'BEGIN', headers => {%transaction} }));
        $client->send({ destination => $destination, body => $end, %transaction });
        $client->send_frame(Net::Stomp::Frame->new({ command => $end, headers => {%transaction} }));
    }
    my ($committed) = take($client, $destination, 1);
    die 'transaction' unless $committed->body eq 'COMMIT';
    $client->disconnect;
}

sub takeover {
    my $client = client();
    my $destination = '/queue/interop-perl';
    my $number = 0;
    while ($number < $COUNT) {
        my $sent = eval {
            $client->send_with_receipt({
                destination => $destination, body => "n$number", persistent => 'true', timeout => 5,
            });
        };
        next unless $sent;
        $number += 1;
        print "KILL\n" if $number == $COUNT / 2;
    }
    my (%seen, $received);
    $client->subscribe({ destination => $destination, id => 1, ack => 'client' });
    while (keys %seen < $COUNT) {
        my $frame = $client->receive_frame({ timeout => 30 }) or die 'no message';
        next unless $frame->command eq 'MESSAGE';
        $client->ack({ frame => $frame });
        $seen{ $frame->body } += 1;
        $received += 1;
    }
    $client->disconnect;
    my $lost = join ',', grep { not $seen{"n$_"} } 0 .. $COUNT - 1;
    my $duplicates = $received - keys %seen;
    print qq({"confirmed":$number,"received":$received,"lost":[$lost],"duplicates":$duplicates}\n);
}

basics();
takeover();
