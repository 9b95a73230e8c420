"""A client of the Understudy broker's native protocol, to use and to follow in other languages:
docs/native-protocol.md. Python's standard library (3.10 or later), blocking calls, one thread.

    client = Client([("a", 61616), ("b", 61616)])
    client.declare_queue("orders")
    client.publish("orders", b"one tea")      # returns when both nodes have it
    client.consume("orders", credit=100)
    client.settle(client.next(timeout=5))

A lost connection is made again through the list. What was published and has no answer is sent again
with its sequence, and stored once; consumers start again, and what they were handed before is void:
settling it raises Stale, and it comes again. A transaction without an answer is asked for.
Heartbeats are sent while a call waits: who makes none for twice `heartbeat` seconds is closed.
"""
import collections
import io
import itertools
import secrets
import socket
import time
import urllib.parse

PREAMBLE = b"\xf5UNDST\x01\x00"
PERSISTENT = b"\x10\x00\x02"  # AMQP properties: delivery-mode 2 alone
CONFIRM, MANDATORY, DECLARE_MISSING, ONCE = 1, 2, 4, 8  # flags of a publish
MANUAL = 1  # ack mode

# Names and fields of the frames that this client sends or understands, by kind. Booleans are ints.
FRAMES = {
    0x01: ("Hello", "text u128 int"), 0x02: ("HelloOk", "text text int int int"),
    0x03: ("Login", "text text"), 0x05: ("Open", "int text"), 0x06: ("Ping", "int"),
    0x07: ("Pong", "int"), 0x08: ("Goodbye", "text"), 0x09: ("Error", "int text"),
    0x10: ("DeclareQueue", "int text int int int int bytes"),
    0x11: ("DeleteQueue", "int text int int"), 0x15: ("Bind", "int text text int text bytes"),
    0x13: ("DeclareExchange", "int text text int int int int bytes"),
    0x20: ("Publish", "int int text text bytes bytes"),
    0x21: ("Transaction", "int int list list list list"), 0x22: ("Outcome", "int int"),
    0x30: ("Consume", "int int text int int int int int"), 0x33: ("Get", "int text int"),
    0x34: ("Settle", "int int int list"), 0x35: ("Discard", "int int int list"),
    0x36: ("Return", "int int int list"), 0x40: ("Done", "int"),
    0x41: ("QueueOk", "int text int int"), 0x42: ("Removed", "int int"),
    0x43: ("GetEmpty", "int"), 0x44: ("Got", "int int int int int int text text bytes bytes"),
    0x45: ("Refused", "int int text"), 0x46: ("AlreadyCommitted", "int"),
    0x50: ("Confirm", "int"), 0x51: ("Nack", "int"), 0x52: ("PublishRefused", "int int text"),
    0x53: ("Returned", "int text text text bytes bytes"), 0x58: ("Moved", "text"),
    0x54: ("Deliver", "int int int int text text bytes bytes"),
}
KINDS = {name: kind for kind, (name, _) in FRAMES.items()}
ANSWERS = {name for kind, (name, _) in FRAMES.items() if 0x40 <= kind < 0x50}
# `connection` is the one that it came by, and may be settled on.
Delivery = collections.namedtuple(
    "Delivery", "consumer queue lsn redelivered exchange routing_key properties body connection")


class Refused(Exception):
    """The broker refused a request or a publish: AMQP's code, and a text."""


class Stale(Exception):
    """The delivery is of a former connection. Of a transaction: nothing of it happened."""


def varint(value):
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def take_varint(stream):
    byte = stream.read(1)[0]
    return byte & 0x7F | take_varint(stream) << 7 if byte & 0x80 else byte


def encode(name, *values):
    out = [bytes([KINDS[name]])]
    for kind, value in zip(FRAMES[KINDS[name]][1].split(), values, strict=True):
        if kind == "int":
            out.append(varint(value))
        elif kind == "u128":
            out.append(value.to_bytes(16, "big"))
        elif kind == "list":  # of items that are encoded already
            out += [varint(len(value)), *value]
        else:
            data = value.encode() if kind == "text" else value
            out += [varint(len(data)), data]
    frame = b"".join(out)
    return len(frame).to_bytes(4, "big") + frame


def decode(frame):
    """A frame behind its length: its name, None if it is not of the table, and its fields."""
    name, kinds = FRAMES.get(frame[0], (None, ""))
    frame, values = io.BytesIO(frame[1:]), [name]
    for kind in kinds.split():
        value = take_varint(frame)
        if kind != "int":
            value = frame.read(value)
        values.append(value.decode() if kind == "text" else value)
    return values


class Client:
    def __init__(self, addresses, user="guest", password="guest", vhost="/", timeout=60,
                 heartbeat=10, tls=None):
        """`addresses`: (host, port) of each node. `timeout`: seconds that a call waits. `tls`: an
        ssl.SSLContext; user "" is the one that its certificate stands for."""
        self.addresses, self.login, self.vhost = addresses, (user, password), vhost
        self.timeout, self.heartbeat, self.tls, self.moved = timeout, heartbeat, tls, None
        # The same over all connections.
        self.producer, self.sequence, self.numbers = secrets.randbits(128), 0, itertools.count(1)
        self.unconfirmed = collections.OrderedDict()  # Encoded publishes by sequence.
        self.refused, self.returned, self.consumers = [], [], []
        self._connect()

    def _connect(self):
        start, moved, self.moved, last = time.monotonic(), self.moved, None, "no time is left"
        while time.monotonic() < start + self.timeout:
            # Where the broker has sent us clients are let in soon; then it is the list's turn.
            following = moved and time.monotonic() < start + 2
            for address in [moved] if following else self.addresses:
                try:
                    return self._open(address)
                except OSError as error:  # Trying again makes a certificate no better.
                    last, moved = error, isinstance(error, ConnectionError) and moved
            time.sleep(0.002 if following else 0.05)
        raise ConnectionError(f"no broker of {self.addresses}: {last}")

    def _open(self, address):
        self.socket = socket.create_connection(address, timeout=2)
        if self.tls:
            self.socket = self.tls.wrap_socket(self.socket, server_hostname=address[0])
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input, self.interval, self.sent = bytearray(), min(self.heartbeat, 1), time.monotonic()
        self.heard, self.answers, self.deliveries = self.sent, {}, collections.deque()
        hello = encode("Hello", "understudy.py", self.producer, self.heartbeat * 1000)
        self._send(PREAMBLE + hello + encode("Login", *self.login))
        self._ask("Open", self.vhost)
        for fields in self.consumers:
            self._send(encode("Consume", 0, *fields))
        self._send(b"".join(self.unconfirmed.values()))

    def _send(self, data):
        try:
            self.socket.settimeout(2 * self.interval)
            self.socket.sendall(data)
            self.sent = time.monotonic()
        except ConnectionError:
            pass  # Receiving says so, after what the broker has said last.
        except OSError:
            self.heard = float("-inf")

    def _receive_frame(self, deadline):
        while len(self.input) < 4 + int.from_bytes(self.input[:4], "big"):
            now = time.monotonic()
            if now >= self.heard + 2 * self.interval:
                raise ConnectionError("the broker is silent")
            if now >= self.sent + self.interval / 2:
                self._send(encode("Ping", 0))
            try:
                self.socket.settimeout(max(min(deadline - now, self.interval / 2), 0.001))
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise
                continue
            except OSError:
                data = b""
            if not data:
                raise ConnectionError("the broker closed the connection")
            self.heard = time.monotonic()
            self.input += data
        end = 4 + int.from_bytes(self.input[:4], "big")
        frame, self.input[:end] = bytes(self.input[4:end]), b""
        return decode(frame)

    def _again(self, step, *arguments):
        """Does what needs a connection, on a new one if it is lost."""
        while True:
            try:
                return step(*arguments)
            except ConnectionError:
                self.socket.close()
                self._connect()

    def _receive(self, deadline):
        match self._receive_frame(deadline):
            case "HelloOk", *_, heartbeat_ms:  # Until then one that stands still has 2 s.
                self.interval = heartbeat_ms / 1000 or 1e6
            case "Ping", number:
                self._send(encode("Pong", number))
            case "Deliver", *fields:
                self.deliveries.append(Delivery(*fields, self.socket))
            case "Confirm", through:
                while self.unconfirmed and next(iter(self.unconfirmed)) <= through:
                    self.unconfirmed.popitem(last=False)
            case ["Nack" | "PublishRefused", sequence, *why]:
                self.unconfirmed.pop(sequence, None)
                self.refused.append(Refused(*why or (506, "the queue is full")))
            case "Returned", *fields:
                self.returned.append(fields)
            case "Moved", uris:
                for uri in map(urllib.parse.urlsplit, uris.split(",")):
                    if uri.scheme == ("ssl" if self.tls else "tcp"):
                        self.moved = uri.hostname, uri.port
            case "Goodbye", reason:
                raise ConnectionError(f"the broker closes: {reason}")
            case "Error", code, text:
                raise Refused(code, text)
            case [name, request, *fields] if name in ANSWERS:
                self.answers[request] = name, *fields

    def _ask(self, name, *fields):
        request, deadline = next(self.numbers), time.monotonic() + self.timeout
        self._send(encode(name, request, *fields))
        while request not in self.answers:
            self._receive(deadline)
        name, *fields = self.answers.pop(request)
        if name == "Refused":
            raise Refused(*fields)
        return name, *fields

    def ask(self, name, *fields):
        """Any request of the table, by its fields; returns name and fields of its answer. What is
        declared or removed is on disk then, on both nodes while the slave is in-sync."""
        return self._again(self._ask, name, *fields)

    def declare_queue(self, name, durable=True, arguments=b""):
        """Returns name, ready messages and consumers. `arguments`: inside of an AMQP table."""
        return self.ask("DeclareQueue", name, False, durable, False, False, arguments)[1:]

    def publish(self, routing_key, body, exchange="", properties=PERSISTENT, flags=0, wait=True):
        """Returns when it is committed, and all before it; without `wait`: at once."""
        self.sequence += 1
        frame = encode("Publish", self.sequence, flags | CONFIRM | ONCE, exchange, routing_key,
                       properties, body)
        self.unconfirmed[self.sequence] = frame
        self._send(frame)
        if wait:
            self.wait_confirmed()

    def wait_confirmed(self, most=0):
        """Waits until at most `most` publishes, a window, have no answer. Raises a refusal."""
        while len(self.unconfirmed) > most:
            self._again(self._receive, time.monotonic() + self.timeout)
        if self.refused:
            raise self.refused.pop(0)

    def transaction(self, publishes=(), settles=()):
        """Publishes (exchange, routing key, body) and settles deliveries: all once, or nothing of
        it, and then raises. True: it had happened already when the broker was asked."""
        commit, former = self.sequence + 1, self.socket
        self.sequence += max(len(publishes), 1)
        frames = [encode("Publish", sequence, 0, exchange, key, PERSISTENT, body)[5:]
                  for sequence, (exchange, key, body) in enumerate(publishes, commit)]
        settled = [self._set("Settle", each)[6:] for each in settles]

        def step():
            if not settled or self.socket is former:
                return self._ask("Transaction", commit, frames, settled, [], [])
            try:  # Void deliveries cannot be settled again: were they before?
                return self._ask("Outcome", commit)
            except Refused as error:
                raise Stale from error
        return self._again(step)[0] == "AlreadyCommitted"

    def consume(self, queue, credit=256):
        """Starts a consumer, with at most `credit` unsettled deliveries at a time."""
        fields = next(self.numbers), queue, MANUAL, False, 0, False, credit
        self.ask("Consume", *fields)
        self.consumers.append(fields)

    def next(self, timeout=1e9):
        """The next delivery of any consumer; None after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.deliveries:
            try:
                self._again(self._receive, deadline)
            except TimeoutError:
                return None
        return self.deliveries.popleft()

    def get(self, queue):
        """One message, or None if no message is ready."""
        name, *fields = self.ask("Get", queue, MANUAL)
        return Delivery(*fields[1:], self.socket) if name == "Got" else None

    def settle(self, *deliveries, how="Settle"):
        """They are done with; `how`: or "Discard", to be dead-lettered, or "Return", to be handed
        out again. There is no answer: what a lost settle meant comes again."""
        self._send(b"".join(self._set(how, each) for each in deliveries))

    def _set(self, how, delivery):
        if delivery.connection is not self.socket:
            raise Stale
        return encode(how, 0, delivery.consumer, delivery.queue, [varint(delivery.lsn)])

    def close(self):
        """Waits for the answers to all publishes, then closes in order."""
        self.wait_confirmed()
        self._send(encode("Goodbye", ""))
        self.socket.close()
