<?php
// PHP's stomp extension against a pair: arguments are the STOMP ports of both nodes, master first.
// Its address is one broker's; going through both is the user's own loop, as its manual has it.
const COUNT = 600;
ini_set('stomp.default_connection_timeout_sec', '5');
$ports = array_slice($argv, 1);

function client(): Stomp
{
    global $ports;
    $until = microtime(true) + 60;
    for ($try = 0; ; $try++) {
        try {
            $client = new Stomp('tcp://127.0.0.1:' . $ports[$try % count($ports)], 'guest', 'guest');
            $client->setReadTimeout(20);
            return $client;
        } catch (StompException $refused) {
            if (microtime(true) > $until) {
                throw $refused;
            }
            usleep(10_000);
        }
    }
}

function check(bool $true, string $what): void
{
    if (!$true) {
        fwrite(STDERR, "$what\n");
        exit(1);
    }
}

/** Takes `count` messages, each acked. */
function take(Stomp $client, string $destination, int $count): array
{
    $client->subscribe($destination, ['id' => '1', 'ack' => 'client']);
    $frames = [];
    while (count($frames) < $count) {
        $frame = $client->readFrame();
        check($frame !== false && $frame->command === 'MESSAGE', 'no message');
        check($client->ack($frame, ['receipt' => 'ack-' . count($frames)]), 'no receipt of an ack');
        $frames[] = $frame;
    }
    $client->unsubscribe($destination, ['id' => '1']);
    return $frames;
}

function basics(): void
{
    $client = client();
    check(str_starts_with($client->getSessionId(), 'session-'), 'session');
    $destination = '/queue/interop-php-basics';
    $headers = ['receipt' => 'one', 'colour' => 'green', 'priority' => '4'];
    check($client->send($destination, 'one', $headers), 'no receipt');
    $large = str_repeat("\0", 500_000);
    check($client->send($destination, $large, ['receipt' => 'two']), 'no receipt');
    [$one, $two] = take($client, $destination, 2);
    check($one->body === 'one' && $two->body === $large, 'body');
    check($one->headers['colour'] === 'green' && $one->headers['priority'] === '4', 'header');
    foreach (['abort', 'commit'] as $end) {
        $client->begin($end);
        $client->send($destination, $end, ['transaction' => $end]);
        check($client->$end($end, ['receipt' => "of-$end"]), "no receipt of $end");
    }
    [$committed] = take($client, $destination, 1);
    check($committed->body === 'commit', 'transaction');
}

function takeover(): void
{
    $client = client();
    $destination = '/queue/interop-php';
    $number = 0;
    while ($number < COUNT) {
        try {
            $sent = $client->send($destination, "n$number", ['receipt' => "r$number", 'persistent' => 'true']);
        } catch (StompException $lost) {
            $sent = false;
        }
        if (!$sent) {
            $client = client();
            continue;
        }
        $number++;
        if ($number === COUNT / 2) {
            echo "KILL\n";
        }
    }
    $client->subscribe($destination, ['id' => '1', 'ack' => 'client']);
    $seen = [];
    $received = 0;
    while (count($seen) < COUNT) {
        $frame = $client->readFrame();
        check($frame !== false && $frame->command === 'MESSAGE', 'no message');
        $client->ack($frame);
        $seen[$frame->body] = true;
        $received++;
    }
    $lost = array_values(array_filter(range(0, COUNT - 1), fn ($n) => !isset($seen["n$n"])));
    echo json_encode([
        'confirmed' => $number, 'received' => $received, 'lost' => $lost,
        'duplicates' => $received - count($seen),
    ]), "\n";
}

basics();
takeover();
