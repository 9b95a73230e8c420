"""Transactions over several queues, moved by a takeover: arguments are the AMQP ports of both nodes.

Each takes a message from one queue and publishes it to three others: the ack and the publishes are
one, on both nodes, so that nothing is lost, doubled or in one of the three only.
"""
import json

import pika
from pika_pair import connect

COUNT = 300
TARGETS = ["tx.a", "tx.b", "tx.c"]


def fill():
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    for queue in ["tx.source", *TARGETS]:
        channel.queue_declare(queue, durable=True)
    for n in range(COUNT):
        channel.basic_publish("", "tx.source", str(n).encode(), pika.BasicProperties(delivery_mode=2))
    # A rollback gives the publish up, and the ack can be sent again.
    channel = connection.channel()
    channel.tx_select()
    method, _, body = channel.basic_get("tx.source")
    channel.basic_publish("", "tx.a", body)
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    channel.basic_reject(method.delivery_tag, requeue=True)
    channel.tx_commit()
    # Answered and ignored: a password does not expire.
    connection.update_secret("another", "test")
    connection.close()


def move():
    """Moves messages until there are none; how often the connection was lost."""
    lost = 0
    channel = None
    moved = 0
    while True:
        try:
            if channel is None:
                channel = connect().channel()
                channel.tx_select()
            method, _, body = channel.basic_get("tx.source")
            if method is None:
                return lost
            for queue in TARGETS:
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
            channel.basic_ack(method.delivery_tag)
            moved += 1
            if moved == COUNT // 2:
                print("KILL", flush=True)
            channel.tx_commit()
        except (pika.exceptions.AMQPError, OSError):
            lost += 1
            channel = None


fill()
assert move() >= 1, "the master was not killed"
connection = connect()
channel = connection.channel()
got = []
for queue in TARGETS:
    bodies = []
    while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
        bodies.append(int(body))
    got.append(sorted(bodies))
connection.close()
assert got[0] == got[1] == got[2], "a transaction is in some of its queues only"
missing = sorted(set(range(COUNT)) - set(got[0]))
assert len(got[0]) == len(set(got[0])), "a transaction happened twice"
print(json.dumps({"confirmed": COUNT, "received": len(got[0]), "lost": missing, "duplicates": 0}))
