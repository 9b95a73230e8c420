<?php
// php-amqplib against a pair: arguments are the AMQP ports of both nodes, master first. A new
// connection is made through the library's list of hosts.

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

const COUNT = 600;
const PATIENCE_S = 60;
$ports = array_slice($argv, 1);

function check(bool $holds, string $what): void
{
    if (!$holds) {
        throw new RuntimeException($what);
    }
}

function connect(): AMQPStreamConnection
{
    global $ports;
    $host = fn ($port) => ['host' => '127.0.0.1', 'port' => $port, 'user' => 'guest', 'password' => 'guest'];
    $deadline = microtime(true) + PATIENCE_S;
    while (true) {
        try {
            return AMQPStreamConnection::create_connection(
                array_map($host, $ports),
                ['connection_timeout' => 2, 'read_write_timeout' => 10]
            );
        } catch (Exception $error) {
            check(microtime(true) < $deadline, "no node: $error");
            usleep(10_000);
        }
    }
}

// The step ends its channel with this code; the connection goes on.
function refused(AMQPStreamConnection $connection, int $code, callable $step): void
{
    $channel = $connection->channel();
    try {
        $step($channel);
        $channel->basic_qos(0, 0, false);
    } catch (AMQPProtocolChannelException $error) {
        check($error->amqp_reply_code === $code, "wanted $code, got $error");
        check($connection->isConnected(), 'the connection is closed');
        return;
    }
    throw new RuntimeException("not refused with $code");
}

function topology(AMQPStreamConnection $connection): void
{
    $channel = $connection->channel();
    [$queue] = $channel->queue_declare('', false, false, true, true);
    check(str_starts_with($queue, 'amq.gen-'), $queue);
    $channel->exchange_declare('php.source', 'topic', false, false, true);
    $channel->exchange_declare('php.target', 'headers', false, false, true);
    $channel->exchange_bind('php.target', 'php.source', 'a.#');
    $match = new AMQPTable(['x-match' => 'all', 'colour' => 'green']);
    $channel->queue_bind($queue, 'php.target', '', false, $match);
    $channel->confirm_select();
    $headers = ['colour' => 'green', 'number' => 5, 'deep' => ['list' => [1, -5_000_000_000, true, null, 'x']]];
    $properties = [
        'content_type' => 'text/plain', 'correlation_id' => 'c1', 'message_id' => 'm1', 'priority' => 3,
        'delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT, 'timestamp' => 1_700_000_000,
        'application_headers' => new AMQPTable($headers),
    ];
    $channel->basic_publish(new AMQPMessage('one', $properties), 'php.source', 'a.b');
    $channel->basic_publish(new AMQPMessage('not bound', $properties), 'php.source', 'b.b');
    $channel->wait_for_pending_acks(PATIENCE_S);
    $got = $channel->basic_get($queue);
    check($got->getBody() === 'one' && $got->getMessageCount() === 0, 'one message');
    $back = $got->get('application_headers')->getNativeData();
    check($back === $headers, json_encode($back));
    check($got->get('timestamp') === 1_700_000_000 && $got->get('priority') === 3, 'properties');
    $got->nack(true);
    $got = $channel->basic_get($queue);
    check($got->isRedelivered(), 'flagged redelivered');
    $channel->basic_recover(true);
    check($channel->basic_get($queue, true) !== null, 'recovered');
    $large = str_repeat("\x07", 1_000_000);
    $channel->basic_publish(new AMQPMessage($large), '', $queue);
    $channel->basic_publish(new AMQPMessage(''), '', $queue);
    $channel->wait_for_pending_acks(PATIENCE_S);
    check($channel->basic_get($queue, true)->getBody() === $large, 'a large body');
    check($channel->basic_get($queue, true)->getBody() === '', 'an empty body');
    $events = [];
    $channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$events) {
        $events[] = "$code $text {$message->getBody()}";
    });
    $channel->set_ack_handler(function () use (&$events) {
        $events[] = 'ack';
    });
    $channel->basic_publish(new AMQPMessage('x'), '', 'php.nobody', true);
    $channel->wait_for_pending_acks_returns(PATIENCE_S);
    check($events === ['312 NO_ROUTE x', 'ack'], json_encode($events));
    $channel->close();
}

function transactions(AMQPStreamConnection $connection): void
{
    $channel = $connection->channel();
    [$queue] = $channel->queue_declare('', false, false, true, true);
    $channel->tx_select();
    $channel->basic_publish(new AMQPMessage('kept'), '', $queue);
    check($channel->basic_get($queue, true) === null, 'nothing before the commit');
    $channel->tx_commit();
    $channel->basic_publish(new AMQPMessage('dropped'), '', $queue);
    $channel->tx_rollback();
    check($channel->basic_get($queue, true)->getBody() === 'kept', 'committed');
    check($channel->basic_get($queue, true) === null, 'rolled back');
    $channel->close();
}

function consuming(AMQPStreamConnection $connection): void
{
    $channel = $connection->channel();
    $queue = 'php.consumed';
    $channel->queue_declare($queue, false, false, false, false);
    for ($n = 0; $n < 5; $n++) {
        $channel->basic_publish(new AMQPMessage((string) $n), '', $queue);
    }
    $channel->basic_qos(0, 2, false);
    $got = [];
    $tag = $channel->basic_consume($queue, '', false, false, false, false, function ($message) use (&$got) {
        $got[] = $message;
    });
    check(str_starts_with($tag, 'amq.ctag-'), $tag);
    $wait = function (int $count) use ($channel, &$got) {
        while (count($got) < $count) {
            $channel->wait(null, false, PATIENCE_S);
        }
    };
    $wait(2);
    [, $ready, $consumers] = $channel->queue_declare($queue, true);
    check([$ready, $consumers] === [3, 1], "$ready ready, $consumers consumers");
    $got[1]->ack(true);
    $wait(4);
    check(array_map(fn ($m) => $m->getBody(), $got) === ['0', '1', '2', '3'], 'in order');
    $connection->channel()->queue_delete($queue);
    try {
        $channel->wait(null, false, PATIENCE_S);
        throw new RuntimeException("not told of the queue's end");
    } catch (PhpAmqpLib\Exception\AMQPBasicCancelException $cancelled) {
        check($cancelled->consumerTag === $tag, 'the tag');
    }
    refused($connection, 404, fn ($c) => $c->queue_declare('php.none', true));
    refused($connection, 403, fn ($c) => $c->queue_declare('amq.mine'));
    refused($connection, 406, fn ($c) => $c->basic_ack(99));
    refused($connection, 406, function ($c) {
        $c->queue_declare('php.equal', false, false, true, true);
        $c->queue_declare('php.equal', false, false, true, false);
    });
}

function takeOver(): void
{
    $queue = 'interop.php';
    $channel = null;
    $number = 0;
    while ($number < COUNT) {
        try {
            if ($channel === null) {
                $channel = connect()->channel();
                $channel->confirm_select();
                $channel->queue_declare($queue, false, true, false, false);
            }
            $message = new AMQPMessage((string) $number, ['delivery_mode' => 2]);
            $channel->basic_publish($message, '', $queue);
            $channel->wait_for_pending_acks(PATIENCE_S);
            $number++;
            if ($number === intdiv(COUNT, 2)) {
                echo "KILL\n";
            }
        } catch (AMQPExceptionInterface $error) {
            $channel = null;
        }
    }
    $received = [];
    $channel->basic_consume($queue, '', false, false, false, false, function ($message) use (&$received) {
        $received[] = (int) $message->getBody();
        $message->ack();
    });
    while (count(array_unique($received)) < COUNT) {
        $channel->wait(null, false, PATIENCE_S);
    }
    $unique = array_unique($received);
    echo json_encode([
        'confirmed' => $number,
        'received' => count($received),
        'lost' => array_values(array_diff(range(0, COUNT - 1), $unique)),
        'duplicates' => count($received) - count($unique),
    ]), "\n";
    $channel->getConnection()->close();
}

$connection = connect();
topology($connection);
transactions($connection);
consuming($connection);
$connection->close();
takeOver();
