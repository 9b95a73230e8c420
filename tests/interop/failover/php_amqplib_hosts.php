<?php
// php-amqplib: a list of hosts for each connection; the loop around it is the program's.

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Message\AMQPMessage;

const COUNT = 200;
const PATIENCE_S = 60;
const QUEUE = 'failover.php';

$hosts = array_map(
    fn ($port) => ['host' => '127.0.0.1', 'port' => $port, 'user' => 'guest', 'password' => 'guest'],
    array_slice($argv, 1)
);

function connect(array $hosts)
{
    while (true) {
        try {
            $options = ['connection_timeout' => 2, 'read_write_timeout' => 11, 'heartbeat' => 5];
            $channel = AMQPStreamConnection::create_connection($hosts, $options)->channel();
            $channel->confirm_select();
            $channel->queue_declare(QUEUE, false, true, false, false);
            return $channel;
        } catch (Exception $error) {
            usleep(20_000);
        }
    }
}

$channel = connect($hosts);
[$number, $sent, $without, $last] = [0, 0, 0.0, null];
while ($number < COUNT) {
    if ($number === intdiv(COUNT, 2) && $sent === $number) {
        echo "KILL\n";
    }
    $sent++;
    try {
        $message = new AMQPMessage((string) $number, ['delivery_mode' => 2]);
        $channel->basic_publish($message, '', QUEUE);
        $channel->wait_for_pending_acks(PATIENCE_S);
    } catch (AMQPExceptionInterface $error) {
        $channel = connect($hosts);
        continue;
    }
    $now = microtime(true);
    $without = max($without, $now - ($last ?? $now));
    $last = $now;
    $number++;
}
$received = [];
$channel->basic_consume(QUEUE, '', false, false, false, false, function ($message) use (&$received) {
    $received[] = (int) $message->getBody();
    $message->ack();
});
while (count(array_unique($received)) < COUNT) {
    $channel->wait(null, false, PATIENCE_S);
}
$unique = array_unique($received);
echo json_encode([
    'sent' => $sent,
    'confirmed' => $number,
    'received' => count($received),
    'duplicates' => count($received) - count($unique),
    'lost' => array_values(array_diff(range(0, COUNT - 1), $unique)),
    'without_service_s' => round($without, 3),
]), "\n";
$channel->getConnection()->close();
