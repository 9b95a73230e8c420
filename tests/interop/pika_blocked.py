"""A store that runs full: publishers are told, and go on when consumers have made room. Argument:
the AMQP port of a node with a small store.
"""
import sys
import time

import pika

PORT = int(sys.argv[1])
BODY = b"x" * 1_000_000
told = []


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", PORT, heartbeat=0))


publisher, consumer = connect(), connect()
publisher.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
publisher.add_on_connection_unblocked_callback(lambda _, frame: told.append(None))
sending, taking = publisher.channel(), consumer.channel()
sending.queue_declare("blocked", durable=True)
sent = 0
deadline = time.monotonic() + 240
while not told:
    assert time.monotonic() < deadline, f"never blocked after {sent} messages"
    sending.basic_publish("", "blocked", BODY, pika.BasicProperties(delivery_mode=2))
    sent += 1
    # Not more than the broker reads while it is full: pika would hang in the write, and not listen.
    publisher.process_data_events(0.1)
assert told == ["low on disk"], told
taken = 0
while told[-1] is not None or taken < sent:
    assert time.monotonic() < deadline, f"{taken} of {sent}, {told}"
    method, _, body = taking.basic_get("blocked")
    if method:
        taking.basic_ack(method.delivery_tag)
        taken += 1
        assert body == BODY
    publisher.process_data_events(0)
# What waited may fill the store once more.
assert told == ["low on disk", None] * (len(told) // 2), told
publisher.close()
consumer.close()
