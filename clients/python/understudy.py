"""Client of the Understudy broker's native protocol (docs/native-protocol.md): one file, only
Python's standard library (3.10 or later), blocking calls, one thread per client.

    with Client([("a", 61616), ("b", 61616)], user="guest", password="guest") as client:
        client.declare_queue("orders")
        client.publish("orders", b"one tea")          # returns when both nodes have it
        client.consume("orders", credit=100)
        delivery = client.next(timeout=5)
        client.settle(delivery)

A lost connection is made again through the list of addresses, within `timeout` seconds. Publishes
without an answer are then sent again with their sequence numbers and stored once; consumers start
again, and what was delivered before is void: settling it raises Stale, and it comes again. Of a
transaction without an answer the new master is asked whether it has it, so it happens once. At a
switchover the broker says where the new master is, and the client goes there at once.

Heartbeats are sent while a call waits. A program that makes no call for twice `heartbeat` seconds
is closed by the broker, and connects again with its next call.
"""
import collections
import itertools
import secrets
import socket
import struct
import time

Delivery = collections.namedtuple("Delivery", (
    "consumer", "queue", "lsn", "redelivered", "exchange", "routing_key", "properties", "body",
    "generation"))
Deliveries = collections.namedtuple("Deliveries", "consumer queue lsns")

PREAMBLE = b"\xf5UNDST\x01\x00"
# An AMQP property block with delivery-mode 2 alone.
PERSISTENT = b"\x10\x00\x02"
CONFIRM, MANDATORY, DECLARE_MISSING, ONCE = 1, 2, 4, 8
AUTO, MANUAL = 0, 1

DELIVER = "int int int bool text text bytes bytes"
PUBLISH = "int int text text bytes bytes"
DELIVERIES = "int int ints"
# The table of docs/native-protocol.md: kind and types of the fields.
FRAMES = {
    "Hello": (0x01, "text u128 int"), "HelloOk": (0x02, "text text int int int"),
    "Login": (0x03, "text bytes"), "LoginOk": (0x04, "text"), "Open": (0x05, "int text"),
    "Ping": (0x06, "int"), "Pong": (0x07, "int"), "Goodbye": (0x08, "text"),
    "Error": (0x09, "int text"),
    "DeclareQueue": (0x10, "int text bool bool bool bool bytes"),
    "DeleteQueue": (0x11, "int text bool bool"), "PurgeQueue": (0x12, "int text"),
    "DeclareExchange": (0x13, "int text text bool bool bool bool bytes"),
    "DeleteExchange": (0x14, "int text bool"),
    "Bind": (0x15, "int text text bool text bytes"),
    "Unbind": (0x16, "int text text bool text bytes"),
    "Publish": (0x20, PUBLISH), "Transaction": (0x21, "int int publishes sets sets sets"), "Outcome": (0x22, "int int"),
    "Consume": (0x30, "int int text int bool zigzag bool int"), "Cancel": (0x31, "int int"),
    "Credit": (0x32, "int int"), "Get": (0x33, "int text int"),
    "Settle": (0x34, "int " + DELIVERIES), "Discard": (0x35, "int " + DELIVERIES),
    "Return": (0x36, "int " + DELIVERIES),
    "Done": (0x40, "int"), "QueueOk": (0x41, "int text int int"), "Removed": (0x42, "int int"),
    "GetEmpty": (0x43, "int"), "Got": (0x44, "int int " + DELIVER),
    "Refused": (0x45, "int int text"), "AlreadyCommitted": (0x46, "int"),
    "Confirm": (0x50, "int"), "Nack": (0x51, "int"),
    "PublishRefused": (0x52, "int int text"),
    "Returned": (0x53, "int text text text bytes bytes"), "Deliver": (0x54, DELIVER),
    "Cancelled": (0x55, "int"), "Blocked": (0x56, "text"), "Unblocked": (0x57, ""),
    "Moved": (0x58, "text"),
}
NAMES = {kind: name for name, (kind, _) in FRAMES.items()}


class Refused(Exception):
    """The broker refused a request or a publish: `code` is AMQP's."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")
        self.code = code


class Stale(Exception):
    """The delivery belongs to a former connection; the broker delivers it again. Of a transaction:
    nothing of it happened."""


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def encode_field(kind, value):
    if kind == "int":
        return varint(value)
    if kind == "bool":
        return b"\x01" if value else b"\x00"
    if kind == "zigzag":
        return varint((value << 1) ^ (value >> 31) if value < 0 else value << 1)
    if kind == "u128":
        return value.to_bytes(16, "big")
    if kind in ("text", "bytes"):
        data = value.encode() if isinstance(value, str) else bytes(value)
        return varint(len(data)) + data
    item = {"ints": "int", "publishes": PUBLISH, "sets": DELIVERIES}[kind]
    parts = (encode_fields(item, (each,) if kind == "ints" else each) for each in value)
    return varint(len(value)) + b"".join(parts)


def encode_fields(kinds, values):
    pairs = zip(kinds.split(), values, strict=True)
    return b"".join(encode_field(kind, value) for kind, value in pairs)


def encode(name, *values):
    kind, kinds = FRAMES[name]
    fields = encode_fields(kinds, values)
    return struct.pack(">IB", 1 + len(fields), kind) + fields


def decode(frame):
    """A frame behind its length: its name (None if unknown) and its fields."""
    name, at, values = NAMES.get(frame[0]), 1, []
    for kind in FRAMES[name][1].split() if name else ():
        if kind in ("text", "bytes"):
            size, at = take_varint(frame, at)
            data = bytes(frame[at:at + size])
            at += size
            values.append(data.decode() if kind == "text" else data)
        else:
            value, at = take_varint(frame, at)
            values.append(bool(value) if kind == "bool" else value)
    return name, values


class Client:
    def __init__(self, addresses, user="guest", password="guest", vhost="/", timeout=60,
                 heartbeat=10, connect_timeout=2, tls=None):
        """`addresses`: (host, port) of each node. `tls`: an ssl.SSLContext; with a certificate of
        the client's own, user "" is the one that it stands for."""
        self.addresses, self.login, self.vhost = list(addresses), (user, password), vhost
        self.timeout, self.heartbeat, self.connect_timeout = timeout, heartbeat, connect_timeout
        self.tls, self.moved = tls, None
        self.producer = secrets.randbits(128)
        self.requests, self.numbers = itertools.count(1), itertools.count(1)
        self.sequence = 0
        self.generation = 0
        self.unconfirmed = collections.OrderedDict()  # sequence: encoded Publish
        self.failures = {}                            # sequence: Refused
        self.returned = []                            # fields of Returned frames
        self.consumers = {}                           # number: (queue, ack, credit, ...)
        self.deliveries = collections.deque()
        self.answers = {}
        self.blocked = None
        self.socket = None
        self._connect()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Connection

    def _connect(self):
        deadline, delay = time.monotonic() + self.timeout, 0.01
        moved, self.moved = self.moved, None
        patience = time.monotonic() + 2
        while moved and time.monotonic() < patience:  # it is about to let clients in
            try:
                return self._open(moved)
            except OSError:
                self._drop()
                time.sleep(0.002)
        while True:
            for address in self.addresses:
                try:
                    return self._open(address)
                except OSError as error:
                    self._drop()
                    last = error
            if time.monotonic() + delay > deadline:
                raise ConnectionError(f"no broker of {self.addresses}: {last}")
            time.sleep(delay)
            delay = min(delay * 2, 1)

    def _open(self, address):
        self.socket = socket.create_connection(address, self.connect_timeout)
        if self.tls:
            self.socket = self.tls.wrap_socket(self.socket, server_hostname=address[0])
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.generation += 1
        self.buffer = bytearray()
        self.answers.clear()
        self.deliveries.clear()
        self.blocked, self.interval = None, 0
        self.heard = self.sent = time.monotonic()
        request = next(self.requests)
        self._send(PREAMBLE + encode("Hello", "understudy.py", self.producer, self.heartbeat * 1000)
                   + encode("Login", *self.login) + encode("Open", request, self.vhost))
        try:
            self._answer(request, time.monotonic() + 10)
        except TimeoutError as error:
            raise ConnectionError("the broker does not answer") from error
        for number in list(self.consumers):
            consumer = self.consumers.pop(number)
            self.consumers[next(self.numbers)] = consumer
        for number, consumer in self.consumers.items():
            self._send(self._consume_frame(0, number, consumer))
        self._send(b"".join(self.unconfirmed.values()))

    def _drop(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    def close(self):
        """Waits for the answers to all publishes, then closes in order."""
        try:
            self.wait_confirmed()
            self._send(encode("Goodbye", ""))
        finally:
            self._drop()

    def _send(self, data):
        if self.socket is None:
            raise ConnectionError("not connected")
        self.socket.settimeout(self.timeout)
        self.socket.sendall(data)
        self.sent = time.monotonic()

    def _receive(self, deadline):
        """Handles one frame; TimeoutError at the deadline, other OSErrors for a lost connection."""
        while True:
            size = int.from_bytes(self.buffer[:4], "big") if len(self.buffer) >= 4 else None
            if size is not None and len(self.buffer) >= 4 + size:
                frame = bytes(self.buffer[4:4 + size])
                del self.buffer[:4 + size]
                return self._handle(*decode(frame))
            now = time.monotonic()
            if deadline <= now:
                raise TimeoutError
            if self.interval and now - self.sent >= self.interval / 2:
                self._send(encode("Ping", 0))
            if self.interval and now - self.heard >= 2 * self.interval:
                raise ConnectionError("the broker is silent")
            self.socket.settimeout(min(deadline - now, self.interval / 2 or 60))
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("the broker closed the connection")
            self.heard = time.monotonic()
            self.buffer += data

    def _handle(self, name, fields):
        if name == "Deliver" and fields[0] in self.consumers:
            self.deliveries.append(Delivery(*fields, self.generation))
        elif name == "Confirm":
            while self.unconfirmed and next(iter(self.unconfirmed)) <= fields[0]:
                self.unconfirmed.popitem(last=False)
        elif name in ("Nack", "PublishRefused"):
            code, text = fields[1:] or (506, "the queue is full")
            self.unconfirmed.pop(fields[0], None)
            self.failures[fields[0]] = Refused(code, text)
        elif name == "HelloOk":
            self.interval = fields[4] / 1000
        elif name == "Ping":
            self._send(encode("Pong", *fields))
        elif name == "Error":
            self._drop()
            raise Refused(*fields)
        elif name == "Goodbye":
            raise ConnectionError(f"the broker closes: {fields[0]}")
        elif name == "Moved":
            scheme = "ssl://" if self.tls else "tcp://"
            for uri in filter(lambda uri: uri.startswith(scheme), fields[0].split(",")):
                host, _, port = uri.removeprefix(scheme).rpartition(":")
                self.moved = host.strip("[]"), int(port)
        elif name == "Cancelled":
            self.consumers.pop(fields[0], None)
        elif name == "Returned":
            self.returned.append(fields)
        elif name in ("Blocked", "Unblocked"):
            self.blocked = fields[0] if fields else None
        elif name in ("Done", "QueueOk", "Removed", "GetEmpty", "Got", "Refused", "AlreadyCommitted"):
            self.answers[fields[0]] = (name, fields[1:])

    def _answer(self, request, deadline):
        while request not in self.answers:
            self._receive(deadline)
        name, fields = self.answers.pop(request)
        if name == "Refused":
            raise Refused(*fields)
        return name, fields

    def _again(self, step):
        """Does what needs a connection, on a new one if it is lost."""
        while True:
            try:
                return step()
            except TimeoutError:
                raise
            except OSError:
                self._drop()
                self._connect()

    def _ask(self, name, *fields):
        def step():
            request = next(self.requests)
            self._send(encode(name, request, *fields))
            return self._answer(request, time.monotonic() + self.timeout)
        return self._again(step)

    # Topology. What is declared or removed is on disk, on both nodes while the slave is in-sync.

    def declare_queue(self, name, durable=True, exclusive=False, auto_delete=False, passive=False,
                      arguments=b""):
        """Returns name, ready messages and consumers. `arguments`: inside of an AMQP table."""
        _, fields = self._ask("DeclareQueue", name, passive, durable, exclusive, auto_delete,
                              arguments)
        return tuple(fields)

    def delete_queue(self, name, if_unused=False, if_empty=False):
        return self._ask("DeleteQueue", name, if_unused, if_empty)[1][0]

    def purge_queue(self, name):
        return self._ask("PurgeQueue", name)[1][0]

    def declare_exchange(self, name, kind="direct", durable=True, auto_delete=False,
                         internal=False, passive=False, arguments=b""):
        self._ask("DeclareExchange", name, kind, passive, durable, auto_delete, internal, arguments)

    def delete_exchange(self, name, if_unused=False):
        self._ask("DeleteExchange", name, if_unused)

    def bind(self, source, destination, key="", to_exchange=False, arguments=b""):
        self._ask("Bind", source, destination, to_exchange, key, arguments)

    def unbind(self, source, destination, key="", to_exchange=False, arguments=b""):
        self._ask("Unbind", source, destination, to_exchange, key, arguments)

    # Publishing

    def publish_nowait(self, routing_key, body, exchange="", properties=PERSISTENT, flags=0):
        """Sends without waiting for the answer; returns the sequence."""
        self.sequence += 1
        sequence = self.sequence
        frame = encode("Publish", sequence, flags | CONFIRM | ONCE, exchange, routing_key,
                       properties, body)
        self.unconfirmed[sequence] = frame
        try:
            self._send(frame)
        except OSError:
            self._again(lambda: self._send(b""))  # reconnecting has sent it again
        return sequence

    def wait_confirmed(self, most=0):
        """Waits until at most `most` publishes have no answer. Raises the first refusal."""
        while len(self.unconfirmed) > most:
            self._again(lambda: self._receive(time.monotonic() + self.timeout))
        for sequence in sorted(self.failures):
            raise self.failures.pop(sequence)

    def publish(self, routing_key, body, **options):
        """Publishes, and returns when all is committed that was published."""
        sequence = self.publish_nowait(routing_key, body, **options)
        self.wait_confirmed()
        return sequence

    def transaction(self, publishes=(), settles=()):
        """`publishes`: (exchange, routing key, body); `settles`: deliveries. All or nothing, and
        once; raises Stale if nothing happened because the deliveries are void. True: the new
        master had it already when it was asked."""
        self._check(settles)
        commit = self.sequence + 1
        frames = [(number, 0, exchange, key, PERSISTENT, body)
                  for number, (exchange, key, body) in enumerate(publishes, commit)]
        self.sequence += max(len(frames), 1)
        settled = [Deliveries(each.consumer, each.queue, [each.lsn]) for each in settles]
        generation = self.generation

        def step():
            request = next(self.requests)
            asks = settled and self.generation != generation
            self._send(encode("Outcome", request, commit) if asks else
                       encode("Transaction", request, commit, frames, settled, [], []))
            try:
                name, _ = self._answer(request, time.monotonic() + self.timeout)
            except Refused as error:
                if asks and error.code == 404:
                    raise Stale from error
                raise
            return name == "AlreadyCommitted"
        return self._again(step)

    # Consuming

    def consume(self, queue, credit=256, ack=MANUAL, exclusive=False, priority=0):
        """Starts a consumer, with at most `credit` unsettled deliveries at a time."""
        consumer = (queue, ack, exclusive, priority, credit)

        def step():
            number, request = next(self.numbers), next(self.requests)
            self.consumers[number] = consumer
            try:
                self._send(self._consume_frame(request, number, consumer))
                self._answer(request, time.monotonic() + self.timeout)
            except BaseException:
                del self.consumers[number]
                raise
        self._again(step)

    @staticmethod
    def _consume_frame(request, number, consumer):
        queue, ack, exclusive, priority, credit = consumer
        return encode("Consume", request, number, queue, ack, exclusive, priority, False, credit)

    def next(self, timeout=None):
        """The next delivery; None after `timeout` seconds."""
        deadline = time.monotonic() + (timeout if timeout is not None else 1e9)
        while not self.deliveries:
            try:
                self._again(lambda: self._receive(deadline))
            except TimeoutError:
                return None
        return self.deliveries.popleft()

    def get(self, queue):
        """One message, or None if no message is ready."""
        name, fields = self._ask("Get", queue, MANUAL)
        return Delivery(*fields[1:], self.generation) if name == "Got" else None

    def settle(self, *deliveries):
        """They are done with. Without an answer: what a lost settle meant comes again."""
        self._finish("Settle", deliveries)

    def discard(self, *deliveries):
        """They failed: dead-lettered where their queue says so."""
        self._finish("Discard", deliveries)

    def give_back(self, *deliveries):
        """They are to be handed out again."""
        self._finish("Return", deliveries)

    def _finish(self, name, deliveries):
        self._check(deliveries)
        sets = collections.defaultdict(list)
        for delivery in deliveries:
            sets[delivery.consumer, delivery.queue].append(delivery.lsn)
        try:
            self._send(b"".join(encode(name, 0, *key, lsns) for key, lsns in sets.items()))
        except OSError as error:
            raise Stale from error

    def _check(self, deliveries):
        if any(delivery.generation != self.generation for delivery in deliveries):
            raise Stale
