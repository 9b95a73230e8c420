"""stomp.py against a pair: arguments are the STOMP ports of both nodes, sitting master first."""
import json
import sys
import threading
import time

import stomp

PORTS = [int(port) for port in sys.argv[1:]]
COUNT = 600


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


def connect(kind=stomp.Connection12):
    deadline = time.monotonic() + 30
    while True:
        connection = kind([("127.0.0.1", port) for port in PORTS], reconnect_attempts_max=1,
                          reconnect_sleep_initial=0.01)
        listener = Listener()
        connection.set_listener("", listener)
        try:
            connection.connect("guest", "guest", wait=True)
            return connection, listener
        # stomp.py's own reader may close the socket under a send, when the server goes.
        except (stomp.exception.StompException, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def basics():
    for kind in (stomp.Connection10, stomp.Connection11, stomp.Connection12):
        connection, listener = connect(kind)
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
    connection, listener = connect()
    transaction = connection.begin()
    connection.send("/queue/interop-tx", "committed", transaction=transaction)
    connection.commit(transaction)
    aborted = connection.begin()
    connection.send("/queue/interop-tx", "aborted", transaction=aborted)
    connection.abort(aborted)
    connection.subscribe("/queue/interop-tx", id="tx", ack="auto")
    listener.wait(lambda: listener.messages)
    time.sleep(0.2)
    assert [m.body for m in listener.messages] == ["committed"]
    connection.subscribe("/topic/interop.*", id="t", ack="auto", receipt="t")
    listener.wait(lambda: "t" in listener.receipts)
    connection.send("/topic/interop.news", "to all")
    listener.wait(lambda: len(listener.messages) == 2)
    connection.disconnect()


def failover():
    queue = "/queue/interop-stomp"
    connection = None
    number, confirmed = 0, 0
    while number < COUNT:
        if connection is None:
            connection, listener = connect()
        try:
            connection.send(queue, str(number), receipt=str(number), persistent="true")
        except (stomp.exception.StompException, OSError):
            connection = None
            continue
        with listener.changed:
            listener.changed.wait_for(
                lambda: str(number) in listener.receipts or listener.lost.is_set(), 20)
        if str(number) in listener.receipts:
            confirmed += 1
            number += 1
            if number == COUNT // 2:
                print("KILL", flush=True)
        else:
            connection = None
    connection.subscribe(queue, id="1", ack="client-individual")
    listener.wait(lambda: len({m.body for m in listener.messages}) == COUNT)
    received = [int(m.body) for m in listener.messages]
    for message in listener.messages:
        connection.ack(message.headers["ack"])
    connection.disconnect(receipt="bye")
    lost = sorted(set(range(COUNT)) - set(received))
    print(json.dumps({"confirmed": confirmed, "received": len(received), "lost": lost,
                      "duplicates": len(received) - len(set(received))}), flush=True)


basics()
failover()
