"""A store that runs full with `storage.alarm_policy = "reject"`: publishes are refused on their channel,
everything else of the connection goes on. Argument: the AMQP port of a node with a small store.
"""
import sys
import time

import pika

PORT = int(sys.argv[1])
BODY = b"x" * 1_000_000
TEXT = "PRECONDITION_FAILED - the node is low on disk"
told = []


def refused(ask):
    try:
        ask()
    except pika.exceptions.ChannelClosedByBroker as closed:
        assert (closed.reply_code, closed.reply_text) == (406, TEXT), closed
        return True
    return False


connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", PORT, heartbeat=0))
connection.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
connection.add_on_connection_unblocked_callback(lambda _, frame: told.append(None))
other = connection.channel()
other.queue_declare("alarm", durable=True)
sending = connection.channel()
sending.confirm_delivery()
stored = 0
deadline = time.monotonic() + 240
while not refused(lambda: sending.basic_publish("", "alarm", BODY)):
    stored += 1
    assert time.monotonic() < deadline, f"never refused after {stored} messages"
connection.process_data_events(0)
assert told == ["low on disk"], told

# Without confirms the channel is closed as well, whatever is asked next on it.
plain = connection.channel()
assert refused(lambda: (plain.basic_publish("", "alarm", b"y"), plain.queue_declare("alarm", passive=True)))

# An ack and a publish are one: the message comes back. An ack alone is committed.
mixed = connection.channel()
mixed.tx_select()
method, _, _ = mixed.basic_get("alarm")
mixed.basic_publish("", "alarm", b"z")
mixed.basic_ack(method.delivery_tag)
assert refused(mixed.tx_commit)
acking = connection.channel()
acking.tx_select()
method, _, body = acking.basic_get("alarm")
assert method.redelivered and body == BODY
acking.basic_ack(method.delivery_tag)
acking.tx_commit()
connection.process_data_events(0)
assert told == ["low on disk"], told

# The channel that only takes has seen nothing of all that; nothing refused was stored.
taken = 1
while taken < stored or told[-1] is not None:
    assert time.monotonic() < deadline, f"{taken} of {stored}, {told}"
    method, _, body = other.basic_get("alarm")
    if method:
        assert body == BODY
        other.basic_ack(method.delivery_tag)
        taken += 1
    else:
        connection.process_data_events(0.05)
assert (taken, told) == (stored, ["low on disk", None]), (taken, stored, told)
again = connection.channel()
again.confirm_delivery()
again.basic_publish("", "alarm", b"again")
assert other.basic_get("alarm")[2] == b"again"
connection.close()
