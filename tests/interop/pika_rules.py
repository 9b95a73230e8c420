"""Queue rules with pika against a pair, before and after a takeover: arguments are the AMQP ports
of both nodes, sitting master first.

Prints KILL when the master may be killed, and a JSON object at the end.
"""
import json

import pika
from pika_pair import connect

WAIT_S = 30
# A message that a rule moves goes from one queue to another in one step.
COUNT = 300


def take(channel, queue, count):
    """So many messages, waiting for them; acknowledged."""
    got = []
    for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=WAIT_S):
        assert method is not None, f"{len(got)} of {count} came from {queue}"
        got.append((body.decode(), properties))
        if len(got) == count:
            break
    channel.cancel()
    return got


def declare(channel):
    to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "rules.dead"}
    channel.queue_declare("rules.dead", durable=True)
    channel.queue_declare("rules.short", durable=True, arguments={**to_dead, "x-message-ttl": 50})
    channel.queue_declare("rules.limited", durable=True, arguments={**to_dead, "x-max-length": 10})
    channel.queue_declare("rules.work", durable=True, arguments={
        **to_dead, "x-queue-type": "quorum", "x-delivery-limit": 2})
    channel.queue_declare("rules.urgent", durable=True, arguments={"x-max-priority": 9})
    channel.exchange_declare("rules.later", "x-delayed-message", durable=True,
                             arguments={"x-delayed-type": "direct"})
    channel.queue_bind("rules.dead", "rules.later", "dead")


def reasons(got):
    return sorted({properties.headers["x-death"][0]["reason"] for _, properties in got})


def basics():
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    declare(channel)
    durable = pika.BasicProperties(delivery_mode=2)
    for n in range(15):
        channel.basic_publish("", "rules.limited", str(n).encode(), durable)
    dropped = take(channel, "rules.dead", 5)
    assert [body for body, _ in dropped] == ["0", "1", "2", "3", "4"], dropped
    assert reasons(dropped) == ["maxlen"]
    channel.basic_publish("", "rules.short", b"stale", durable)
    stale = take(channel, "rules.dead", 1)
    death = stale[0][1].headers["x-death"][0]
    assert (death["reason"], death["queue"], death["count"]) == ("expired", "rules.short", 1), death
    assert death["routing-keys"] == ["rules.short"], death
    for priority in (1, 9, 5):
        properties = pika.BasicProperties(priority=priority)
        channel.basic_publish("", "rules.urgent", str(priority).encode(), properties)
    order = [channel.basic_get("rules.urgent", auto_ack=True)[2] for _ in range(3)]
    assert order == [b"9", b"5", b"1"], order
    channel.basic_publish("", "rules.work", b"poison", durable)
    counts = []
    for method, properties, _ in channel.consume("rules.work", inactivity_timeout=WAIT_S):
        counts.append((properties.headers or {}).get("x-delivery-count", 0))
        channel.basic_nack(method.delivery_tag, requeue=True)
        if len(counts) == 3:
            break
    channel.cancel()
    assert counts == [0, 1, 2], counts
    assert reasons(take(channel, "rules.dead", 1)) == ["delivery_limit"]
    channel.basic_publish("rules.later", "dead", b"later", pika.BasicProperties(headers={"x-delay": 80}))
    assert channel.basic_get("rules.dead", auto_ack=True) == (None, None, None)
    assert take(channel, "rules.dead", 1)[0][0] == "later"
    refusing = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare("rules.full", durable=True, arguments=refusing)
    channel.basic_publish("", "rules.full", b"1")
    try:
        channel.basic_publish("", "rules.full", b"2")
        raise SystemExit("a full queue took a message")
    except pika.exceptions.NackError:
        pass
    assert take(channel, "rules.limited", 10)
    connection.close()


def takeover():
    """Messages that the dead master had not moved yet are moved by the next one, each once."""
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    confirmed = []
    for n in range(COUNT):
        properties = pika.BasicProperties(delivery_mode=2, headers={"x-delay": 5 * n})
        channel.basic_publish("rules.later", "dead", f"later {n}".encode(), properties)
        channel.basic_publish("", "rules.short", f"short {n}".encode(),
                              pika.BasicProperties(delivery_mode=2, expiration=str(5 * n)))
        confirmed += [f"later {n}", f"short {n}"]
    print("KILL", flush=True)
    try:
        while True:
            connection.process_data_events(0.1)
            channel.queue_declare("rules.dead", passive=True)
    except pika.exceptions.AMQPError:
        pass
    channel = connect().channel()
    got = [body for body, _ in take(channel, "rules.dead", len(confirmed))]
    missing, twice = set(confirmed) - set(got), {body for body in got if got.count(body) > 1}
    assert not missing and not twice, (missing, twice)
    assert channel.basic_get("rules.dead") == (None, None, None)
    return len(confirmed)


basics()
moved = takeover()
print(json.dumps({"confirmed": moved, "received": moved, "lost": [], "duplicates": 0}))
