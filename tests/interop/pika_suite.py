"""pika against a pair: arguments are the AMQP ports of both nodes, sitting master first.

Prints KILL when the master may be killed, and a JSON object at the end.
"""
import json

import pika
from pika_pair import PORTS, connect

COUNT = 600


def basics():
    connection = connect()
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    assert name.startswith("amq.gen-"), name
    channel.exchange_declare("interop.topic", "topic", durable=True)
    channel.queue_bind(name, "interop.topic", "a.#")
    channel.confirm_delivery()
    properties = pika.BasicProperties(
        content_type="text/plain", headers={"n": 1, "s": "text", "t": {"deep": [1, 2]}},
        correlation_id="c1", delivery_mode=2, priority=3, message_id="m1", timestamp=1700000000,
    )
    channel.basic_publish("interop.topic", "a.b.c", b"hello", properties, mandatory=True)
    method, received, body = channel.basic_get(name)
    assert (body, method.routing_key, method.redelivered) == (b"hello", "a.b.c", False)
    assert received.headers == properties.headers, received.headers
    assert received.correlation_id == "c1" and received.timestamp == 1700000000
    channel.basic_nack(method.delivery_tag, requeue=True)
    method, _, _ = channel.basic_get(name)
    assert method.redelivered
    channel.basic_ack(method.delivery_tag)
    assert channel.basic_get(name) == (None, None, None)
    big = bytes(range(256)) * 4000
    channel.basic_publish("", name, big)
    method, _, body = channel.basic_get(name, auto_ack=True)
    assert body == big
    try:
        channel.basic_publish("interop.topic", "nobody.there", b"x", mandatory=True)
        raise SystemExit("a mandatory message without a queue was not returned")
    except pika.exceptions.UnroutableError:
        pass
    try:
        channel.queue_declare("interop.missing", passive=True)
        raise SystemExit("a missing queue was found")
    except pika.exceptions.ChannelClosedByBroker as closed:
        assert closed.reply_code == 404, closed
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2)
    channel.queue_declare("interop.qos", durable=True)
    channel.queue_purge("interop.qos")
    for n in range(5):
        channel.basic_publish("", "interop.qos", str(n).encode())
    got = []
    for method, _, body in channel.consume("interop.qos", inactivity_timeout=0.5):
        if method is None:
            break
        got.append((method.delivery_tag, body))
    assert [body for _, body in got] == [b"0", b"1"], got
    channel.basic_ack(got[-1][0], multiple=True)
    channel.cancel()
    assert channel.queue_delete("interop.qos").method.message_count == 3
    connection.close()
    for user, password in (("guest", "wrong"), ("nobody", "guest")):
        try:
            pika.BlockingConnection(pika.ConnectionParameters(
                "127.0.0.1", PORTS[0], credentials=pika.PlainCredentials(user, password),
                connection_attempts=1))
            raise SystemExit("a wrong login was let in")
        except pika.exceptions.ProbableAuthenticationError:
            pass


def a_close_that_is_answered_has_given_back():
    connection = connect()
    channel = connection.channel()
    channel.queue_declare("interop.close", durable=True)
    channel.queue_purge("interop.close")
    channel.basic_publish("", "interop.close", b"once")
    for n in range(50):
        # Not acked: after close-ok it is ready for others, at once.
        method, _, body = channel.basic_get("interop.close")
        assert body == b"once" and method.redelivered == (n > 0), n
        connection.close()
        connection = connect()
        channel = connection.channel()
    channel.queue_delete("interop.close")
    connection.close()


def failover():
    queue = "interop.pika"
    confirmed, attempts, number = 0, 0, 0
    connection = channel = None
    while number < COUNT:
        try:
            if channel is None:
                connection = connect()
                channel = connection.channel()
                channel.confirm_delivery()
                channel.queue_declare(queue, durable=True)
            attempts += 1
            channel.basic_publish("", queue, str(number).encode(),
                                  pika.BasicProperties(delivery_mode=2))
            confirmed += 1
            number += 1
            if number == COUNT // 2:
                print("KILL", flush=True)
        except (pika.exceptions.AMQPError, OSError):
            channel = None
    received = []
    for method, _, body in channel.consume(queue, inactivity_timeout=2):
        if method is None:
            break
        received.append(int(body))
        channel.basic_ack(method.delivery_tag)
        if len(set(received)) == COUNT:
            break
    connection.close()
    lost = sorted(set(range(COUNT)) - set(received))
    print(json.dumps({"confirmed": confirmed, "received": len(received), "lost": lost,
                      "duplicates": len(received) - len(set(received))}), flush=True)


basics()
a_close_that_is_answered_has_given_back()
failover()
