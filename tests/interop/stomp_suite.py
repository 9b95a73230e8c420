"""stomp.py against a pair: arguments are the STOMP ports of both nodes, sitting master first."""
import json
import sys
import threading
import time

import stomp

PORTS = [int(port) for port in sys.argv[1:]]
COUNT = 600
LOST = (stomp.exception.StompException, OSError, AttributeError)


class Listener(stomp.ConnectionListener):
    def __init__(self):
        self.messages, self.receipts, self.errors = [], set(), []
        self.lost = threading.Event()
        self.changed = threading.Condition()

    def _note(self, act):
        with self.changed:
            act()
            self.changed.notify_all()

    def on_message(self, frame):
        self._note(lambda: self.messages.append(frame))

    def on_receipt(self, frame):
        self._note(lambda: self.receipts.add(frame.headers["receipt-id"]))

    def on_error(self, frame):
        self._note(lambda: self.errors.append(frame))

    def on_disconnected(self):
        self.lost.set()
        self._note(lambda: None)

    def wait(self, condition, seconds=20):
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise SystemExit(f"waited in vain: {self.errors} {len(self.messages)} messages")


def connected(kind=stomp.Connection12):
    """Goes through its own list of both nodes until one lets it in, now and after each loss."""
    connection = kind([("127.0.0.1", port) for port in PORTS], prefer_localhost=False,
                      reconnect_attempts_max=-1, reconnect_sleep_initial=0.01, reconnect_sleep_max=0.05)
    listener = Listener()
    connection.set_listener("", listener)
    log_in(connection, listener)
    return connection, listener


def log_in(connection, listener):
    deadline = time.monotonic() + 30
    while True:
        listener.lost.clear()
        try:
            return connection.connect("guest", "guest", wait=True)
        # Let in by a node that went down at once. stomp.py's own reader may take the socket away
        # under a send then.
        except LOST:
            if time.monotonic() > deadline:
                raise


def basics():
    for kind in (stomp.Connection10, stomp.Connection11, stomp.Connection12):
        connection, listener = connected(kind)
        name = "/queue/interop-" + kind.__name__
        connection.subscribe(name, id="1", ack="client-individual", receipt="sub")
        listener.wait(lambda: "sub" in listener.receipts)
        connection.send(name, "a body: with\ncolons", headers={"custom": "x y", "persistent": "true"},
                        receipt="one")
        listener.wait(lambda: listener.messages and "one" in listener.receipts)
        message = listener.messages[0]
        assert message.body == "a body: with\ncolons", message.body
        assert message.headers["custom"] == "x y" and message.headers["destination"] == name
        if kind is stomp.Connection12:
            connection.ack(message.headers["ack"])
        elif kind is stomp.Connection11:
            connection.ack(message.headers["message-id"], "1")
        else:
            connection.ack(message.headers["message-id"])
        connection.disconnect(receipt="bye")
        listener.wait(lambda: "bye" in listener.receipts)
    connection, listener = connected()
    transaction = connection.begin()
    connection.send("/queue/interop-tx", "committed", transaction=transaction)
    connection.commit(transaction)
    aborted = connection.begin()
    connection.send("/queue/interop-tx", "aborted", transaction=aborted)
    connection.abort(aborted)
    connection.subscribe("/queue/interop-tx", id="tx", ack="auto")
    # What was aborted would have come in front of it.
    connection.send("/queue/interop-tx", "last")
    listener.wait(lambda: len(listener.messages) >= 2)
    assert [m.body for m in listener.messages] == ["committed", "last"]
    connection.subscribe("/topic/interop.*", id="t", ack="auto", receipt="t")
    listener.wait(lambda: "t" in listener.receipts)
    connection.send("/topic/interop.news", "to all")
    listener.wait(lambda: len(listener.messages) == 3)
    connection.disconnect()


def failover():
    queue = "/queue/interop-stomp"
    connection, listener = connected()
    number = 0
    while number < COUNT:
        try:
            if listener.lost.is_set():
                log_in(connection, listener)
            connection.send(queue, str(number), receipt=str(number), persistent="true")
        except LOST:
            continue
        with listener.changed:
            listener.changed.wait_for(
                lambda: str(number) in listener.receipts or listener.lost.is_set(), 20)
        if str(number) in listener.receipts:
            number += 1
            if number == COUNT // 2:
                print("KILL", flush=True)
    connection.subscribe(queue, id="1", ack="client-individual")
    listener.wait(lambda: len({m.body for m in listener.messages}) == COUNT)
    received = [int(m.body) for m in listener.messages]
    for message in listener.messages:
        connection.ack(message.headers["ack"])
    connection.disconnect(receipt="bye")
    lost = sorted(set(range(COUNT)) - set(received))
    print(json.dumps({"confirmed": number, "received": len(received), "lost": lost,
                      "duplicates": len(received) - len(set(received))}), flush=True)


basics()
failover()
