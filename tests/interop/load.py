"""Publishes with confirms until standard input ends, over any number of takeovers; then consumes
all of it and prints a JSON object. Arguments: pika|stomp, queue, ports of both nodes."""
import json
import sys
import threading
import time

KIND, QUEUE = sys.argv[1:3]
PORTS = [int(port) for port in sys.argv[3:]]
stop = threading.Event()


def until_input_ends():
    sys.stdin.read()
    stop.set()


threading.Thread(target=until_input_ends, daemon=True).start()


class Pika:
    import pika

    def __init__(self):
        nodes = [self.pika.ConnectionParameters("127.0.0.1", port, connection_attempts=1,
                                                socket_timeout=2) for port in PORTS]
        self.connection = self.pika.BlockingConnection(nodes)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.channel.queue_declare(QUEUE, durable=True)

    def publish(self, body):
        self.channel.basic_publish("", QUEUE, body.encode(),
                                   self.pika.BasicProperties(delivery_mode=2))

    def consume(self, enough):
        for method, _, body in self.channel.consume(QUEUE, inactivity_timeout=5):
            if method is None:
                return
            self.channel.basic_ack(method.delivery_tag)
            if enough(body.decode()):
                return


class Stomp:
    import stomp

    def __init__(self):
        self.changed = threading.Condition()
        self.receipts, self.messages, self.lost = set(), [], False
        self.connection = self.stomp.Connection12(
            [("127.0.0.1", port) for port in PORTS], reconnect_attempts_max=1)
        self.connection.set_listener("", self.listener())
        self.connection.connect("guest", "guest", wait=True)

    def listener(self):
        client = self

        class Listener(self.stomp.ConnectionListener):
            def note(self, act):
                with client.changed:
                    act()
                    client.changed.notify_all()

            def on_receipt(self, frame):
                self.note(lambda: client.receipts.add(frame.headers["receipt-id"]))

            def on_message(self, frame):
                self.note(lambda: client.messages.append(frame))

            def on_disconnected(self):
                self.note(lambda: setattr(client, "lost", True))

        return Listener()

    def publish(self, body):
        self.connection.send("/queue/" + QUEUE, body, receipt=body, persistent="true")
        with self.changed:
            self.changed.wait_for(lambda: body in self.receipts or self.lost, 30)
        if body not in self.receipts:
            raise ConnectionError("no receipt")

    def consume(self, enough):
        self.connection.subscribe("/queue/" + QUEUE, id="1", ack="client-individual")
        while True:
            with self.changed:
                if not self.changed.wait_for(lambda: self.messages, 5):
                    return
                messages, self.messages = self.messages, []
            for message in messages:
                self.connection.ack(message.headers["ack"])
                if enough(message.body):
                    self.connection.disconnect(receipt="bye")
                    with self.changed:
                        self.changed.wait_for(lambda: "bye" in self.receipts, 10)
                    return


def connect():
    deadline = time.monotonic() + 30
    while True:
        try:
            return Pika() if KIND == "pika" else Stomp()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


client, number, reconnects = None, 0, 0
while not stop.is_set():
    try:
        client = client or connect()
        client.publish(str(number))
        number += 1
    except Exception:
        client, reconnects = None, reconnects + 1
received = []


def enough(body):
    received.append(int(body))
    return len(set(received)) == number


connect().consume(enough)
print(json.dumps({"confirmed": number, "received": len(received), "reconnects": reconnects,
                  "lost": sorted(set(range(number)) - set(received)),
                  "duplicates": len(received) - len(set(received))}))
