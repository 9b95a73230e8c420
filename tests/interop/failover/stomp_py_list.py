"""stomp.py: `connect` goes through `host_and_ports` until a node lets it in; the listener says when to
call it again. Without `vhost` it says the machine's name in `host`, where a vhost is expected."""
import sys
import threading

import stomp

from counting import Count

NODES = [("127.1", int(port)) for port in sys.argv[1:]]
QUEUE = "/queue/failover.stomp_py"
# AttributeError: stomp.py's receiver took the socket away under the send.
LOST = (stomp.exception.StompException, OSError, AttributeError)
count = Count()


class Client(stomp.ConnectionListener):
    def __init__(self):
        self.receipts, self.changed = set(), threading.Condition()
        self.lost = threading.Event()
        self.connection = stomp.Connection12(
            NODES, vhost="/", heartbeats=(5000, 5000), prefer_localhost=False,
            reconnect_attempts_max=-1, reconnect_sleep_initial=0.01, reconnect_sleep_max=0.05)
        self.connection.set_listener("", self)

    def connect(self):
        while True:
            self.lost.clear()
            try:
                self.connection.connect("guest", "guest", wait=True)
                return self.connection.subscribe(QUEUE, id="1", ack="client-individual")
            except LOST:
                # Let in by a node that went down at once.
                pass

    def on_message(self, frame):
        try:
            self.connection.ack(frame.headers["ack"])
        except LOST:
            pass
        count.take(frame.body)

    def on_receipt(self, frame):
        with self.changed:
            self.receipts.add(frame.headers["receipt-id"])
            self.changed.notify_all()

    def on_disconnected(self):
        self.lost.set()
        with self.changed:
            self.changed.notify_all()

    def publish(self, body):
        if self.lost.is_set():
            self.connect()
        receipt = f"{body}-{count.sent}"
        self.connection.send(QUEUE, body, receipt=receipt, persistent="true")
        with self.changed:
            self.changed.wait_for(lambda: receipt in self.receipts or self.lost.is_set(), 20)
        if receipt not in self.receipts:
            raise ConnectionError("no receipt")


client = Client()
client.connect()
count.publish_all(client.publish, LOST)
count.wait()
client.connection.disconnect(receipt="bye")
count.report()
