# Net::Stomp: `failover:(tcp://host:port,…)?randomize=false`; it connects again, and subscribes again,
# when a call finds the connection broken.
use strict;
use warnings;
use Net::Stomp;
use Time::HiRes qw(time);

my $COUNT = 200;
$| = 1;

my $nodes = join ',', map { "tcp://127.1:$_" } @ARGV;
my $client = Net::Stomp->new({
    failover => "failover:($nodes)?randomize=false",
    initial_reconnect_attempts => 0,
    reconnect_attempts => 0,
    connect_delay => 1,
});
$client->connect({ login => 'guest', passcode => 'guest', host => '/' });

my $destination = '/queue/failover.perl';
# A body that is "0" counts as none in Perl.
my ($number, $sent, $without_s, $last) = (0, 0, 0);
while ($number < $COUNT) {
    print "KILL\n" if $number == $COUNT / 2 and not $sent > $number;
    $sent += 1;
    my $confirmed = eval {
        $client->send_with_receipt({
            destination => $destination, body => "n$number", persistent => 'true', timeout => 5,
        });
    };
    next unless $confirmed;
    my $now = time;
    $without_s = $now - $last if defined $last and $now - $last > $without_s;
    $last = $now;
    $number += 1;
}
my (%seen, $received);
$client->subscribe({ destination => $destination, id => 1, ack => 'client' });
while (keys %seen < $COUNT) {
    my $frame = $client->receive_frame({ timeout => 30 }) or last;
    next unless $frame->command eq 'MESSAGE';
    $client->ack({ frame => $frame });
    $seen{ $frame->body } += 1;
    $received += 1;
}
$client->disconnect;
my $lost = join ',', grep { not $seen{"n$_"} } 0 .. $COUNT - 1;
my $duplicates = $received - keys %seen;
printf qq({"sent":%d,"confirmed":%d,"received":%d,"duplicates":%d,"lost":[%s],"without_service_s":%.3f}\n),
    $sent, $number, $received, $duplicates, $lost, $without_s;
