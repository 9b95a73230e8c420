"""What no client library sends: frames by hand, and what the broker says to them."""
import socket
import struct
import time

HEADER = b"AMQP\0\0\x09\x01"
METHOD, CONTENT, BODY, HEARTBEAT = 1, 2, 3, 8


def frame(kind, channel, payload, end=0xCE):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def method(channel, class_id, method_id, arguments=b""):
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text):
    return bytes([len(text)]) + text.encode()


def deep_table(levels):
    """The inside of a table whose only field holds a table, and so on."""
    inside = b""
    for _ in range(levels):
        inside = b"\x01aF" + struct.pack(">I", len(inside)) + inside
    return inside


def table(inside):
    return struct.pack(">I", len(inside)) + inside


def start_ok(properties=b"", mechanism="PLAIN", response=b"\0guest\0guest"):
    octets = table(properties) + short(mechanism) + table(response) + short("en_US")
    return method(0, 10, 11, octets)


class Peer:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.buffer = b""

    def send(self, octets):
        self.socket.sendall(octets)

    def read(self, count):
        while len(self.buffer) < count:
            got = self.socket.recv(65_536)
            if not got:
                raise EOFError
            self.buffer += got
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def frame(self):
        """Kind, channel, payload; heartbeats are skipped."""
        while True:
            kind, channel, size = struct.unpack(">BHI", self.read(7))
            payload = self.read(size)
            assert self.read(1) == b"\xce"
            if kind != HEARTBEAT:
                return kind, channel, payload

    def expect(self, class_id, method_id, channel=None):
        kind, number, payload = self.frame()
        ids = struct.unpack_from(">HH", payload)
        assert kind == METHOD and ids == (class_id, method_id), (kind, number, payload)
        assert channel in (None, number), (channel, number)
        return payload[4:]

    def open(self, channel_max=0, frame_max=131_072, heartbeat=0, capabilities=b""):
        self.send(HEADER)
        self.expect(10, 10)
        self.send(start_ok(short("capabilities") + b"F" + table(capabilities)))
        tune = struct.unpack(">HIH", self.expect(10, 30))
        self.send(method(0, 10, 31, struct.pack(">HIH", channel_max, frame_max, heartbeat)))
        self.send(method(0, 10, 40, short("/") + b"\0\0"))
        self.expect(10, 41)
        return tune

    def open_channel(self, number):
        self.send(method(number, 20, 10, b"\0"))
        self.expect(20, 11, number)

    def close_said(self):
        """The next connection.close or channel.close: scope, code, text."""
        while True:
            kind, channel, payload = self.frame()
            ids = struct.unpack_from(">HH", payload)
            if kind == METHOD and ids in ((10, 50), (20, 40)):
                code, length = struct.unpack_from(">HB", payload, 4)
                text = payload[7:7 + length].decode()
                return "channel" if ids[0] == 20 else "connection", code, text

    def is_closed(self):
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


PUBLISH = method(1, 60, 40, b"\0\0" + short("") + short("probe.none") + b"\0")
CONTENT_OF_2 = frame(CONTENT, 1, struct.pack(">HHQH", 60, 0, 2, 0))
UNEXPECTED = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
DEEP = deep_table(3_000)
TOO_DEEP = "SYNTAX_ERROR - malformed field table: nested too deeply"
# Every method with a table: name, ids, what stands in front of it and behind it.
WITH_TABLE = [
    ("exchange_declare", 40, 10, b"\0\0" + short("e") + short("direct") + b"\0", b""),
    ("exchange_bind", 40, 30, b"\0\0" + short("d") + short("s") + short("k") + b"\0", b""),
    ("exchange_unbind", 40, 40, b"\0\0" + short("d") + short("s") + short("k") + b"\0", b""),
    ("queue_declare", 50, 10, b"\0\0" + short("q") + b"\0", b""),
    ("queue_bind", 50, 20, b"\0\0" + short("q") + short("e") + short("k") + b"\0", b""),
    ("queue_unbind", 50, 50, b"\0\0" + short("q") + short("e") + short("k"), b""),
    ("consume", 60, 20, b"\0\0" + short("q") + short("t") + b"\0", b""),
]
# name, bytes on a connection with channel 1 open, code and text of the connection.close
RAW_CASES = [
    ("frame_type_unknown", frame(9, 1, b"x"), 501, 'FRAME_ERROR - type 9, all octets = <<"x">>: unknown_frame'),
    ("frame_end_wrong", frame(METHOD, 1, b"\0\x14\0\x0a", 0), 501, "FRAME_ERROR - type 1, all octets = <<0,20,0,10>>: {invalid_frame_end_marker,0}"),
    ("method_unknown", method(1, 50, 99), 501, "FRAME_ERROR - cannot decode <<>>"),
    # RabbitMQ 3.10.8 drops the connection without a word here.
    ("class_unknown", method(1, 99, 10), 501, "FRAME_ERROR - cannot decode <<>>"),
    ("header_frame_without_method", CONTENT_OF_2, 505, UNEXPECTED),
    ("body_frame_without_header", frame(BODY, 1, b"xx"), 505, UNEXPECTED),
    ("content_class_differs", PUBLISH + frame(CONTENT, 1, struct.pack(">HHQH", 50, 0, 2, 0)), 505, None),
    ("method_instead_of_body", PUBLISH + CONTENT_OF_2 + method(1, 60, 10, b"\0" * 7), 505, None),
    ("method_instead_of_header", PUBLISH + method(1, 60, 10, b"\0" * 7), 505, None),
    ("channel_open_twice", method(1, 20, 10, b"\0"), 504, "CHANNEL_ERROR - second 'channel.open' seen"),
    ("method_on_unopened_channel", method(2, 60, 10, b"\0" * 7), 504, "CHANNEL_ERROR - expected 'channel.open'"),
    ("channel_method_on_channel_0", method(0, 20, 10, b"\0"), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ("heartbeat_on_channel_1", frame(HEARTBEAT, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    ("frame_too_large", struct.pack(">BHI", BODY, 1, 200_000) + b"x" * 20, 501, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,200000,131064}"),
    ("queue_declare_cut_short", method(1, 50, 10, b"\0\0\x05ab"), 501, "FRAME_ERROR - cannot decode <<0,0,5,97,98>>"),
    ("publish_body_too_long", PUBLISH + CONTENT_OF_2 + frame(BODY, 1, b"xxxx"), 501, None),
    *[(f"deep_table_in_{name}", method(1, class_id, method_id, head + table(DEEP) + tail), 502, TOO_DEEP)
      for name, class_id, method_id, head, tail in WITH_TABLE],
    ("deep_table_in_headers", PUBLISH + frame(CONTENT, 1, struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table(DEEP)), 502, TOO_DEEP),
    ("channel_above_the_maximum", method(3000, 20, 10, b"\0"), 530, None),
]


def run_raw(port, case):
    """What differs."""
    name, octets, code, text = case
    peer = Peer(port)
    peer.open()
    peer.open_channel(1)
    peer.send(octets)
    said = peer.close_said()
    peer.send(method(0, 10, 51))
    if said[:2] != ("connection", code) or text not in (None, said[2]):
        return [f"{name}: wanted {code} {text!r} got {said}"]
    return [] if peer.is_closed() else [f"{name}: not closed after close-ok"]


def handshakes(port):
    """What differs of the answers to protocol headers, logins with deep tables, and tuning."""
    wrong = []

    def expect(name, said, wanted):
        if said != wanted:
            wrong.append(f"{name}: wanted {wanted!r} got {said!r}")

    for header in (b"GET / HT", b"AMQP\0\1\0\0", b"AMQP\3\1\0\0"):
        peer = Peer(port)
        peer.send(header)
        expect(header, (peer.read(8), peer.is_closed()), (HEADER, True))
    for header in (HEADER, b"AMQP\1\1\0\x09"):
        peer = Peer(port)
        peer.send(header)
        expect(header, peer.expect(10, 10)[:2], b"\0\x09")
    for name, answer in (("client properties", start_ok(DEEP)),
                         ("AMQPLAIN", start_ok(mechanism="AMQPLAIN", response=DEEP))):
        peer = Peer(port)
        peer.send(HEADER)
        peer.expect(10, 10)
        peer.send(answer)
        expect(f"deep table in {name}", peer.close_said(), ("connection", 502, TOO_DEEP))
    for name, tune, text in (
        ("small frames", (0, 4_095, 0), "NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        ("large frames", (0, 131_073, 0), "NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        ("many channels", (2_048, 0, 0), "NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    ):
        peer = Peer(port)
        peer.send(HEADER)
        peer.expect(10, 10)
        peer.send(start_ok())
        peer.expect(10, 30)
        peer.send(method(0, 10, 31, struct.pack(">HIH", *tune)))
        expect(name, peer.close_said(), ("connection", 530, text))
    return wrong


def silence(port):
    """A client that announced heartbeats of a second and says nothing is hung up on after two."""
    peer = Peer(port)
    peer.open(heartbeat=1)
    start, beats = time.monotonic(), 0
    try:
        while True:
            beats += peer.read(8) == frame(HEARTBEAT, 0, b"")
    except EOFError:
        pass
    took = time.monotonic() - start
    return [] if beats >= 2 and 1.8 < took < 8 else [f"silence: {beats} beats, closed after {took} s"]


def small_frames(port):
    """With frames of 4096 bytes: bodies are cut, and longer frames refused."""
    peer = Peer(port)
    peer.open(frame_max=4_096)
    peer.open_channel(1)
    peer.send(method(1, 50, 10, b"\0\0" + short("") + b"\4" + table(b"")))
    name = peer.expect(50, 11, 1)
    name = name[1:1 + name[0]].decode()
    body = bytes(range(256)) * 40
    publish = method(1, 60, 40, b"\0\0" + short("") + short(name) + b"\0")
    pieces = [frame(BODY, 1, body[at:at + 4_088]) for at in range(0, len(body), 4_088)]
    peer.send(publish + frame(CONTENT, 1, struct.pack(">HHQH", 60, 0, len(body), 0)) + b"".join(pieces))
    peer.send(method(1, 60, 70, b"\0\0" + short(name) + b"\1"))
    peer.expect(60, 71, 1)
    peer.frame()
    got = []
    while sum(map(len, got)) < len(body):
        got.append(peer.frame()[2])
    wrong = [] if [len(piece) for piece in got] == [4_088, 4_088, 2_064] and b"".join(got) == body else ["small frames"]
    peer.send(frame(BODY, 1, b"x" * 4_089))
    text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4089,4088}"
    said = peer.close_said()
    return wrong + ([] if said == ("connection", 501, text) else [f"small frames: {said}"])


def numbers_of_channels(port):
    """A channel that the broker closed: what is under way is dropped, and the number is free."""
    peer = Peer(port)
    peer.open()
    wrong = []
    for round in range(3):
        peer.open_channel(7)
        missing = method(7, 50, 10, b"\0\0" + short("probe.none") + b"\1" + table(b""))
        qos = method(7, 60, 10, b"\0" * 7)
        peer.send(missing + qos * 5 + PUBLISH.replace(b"\0\1\0\0", b"\0\7\0\0", 1))
        said = peer.close_said()
        if said[:2] != ("channel", 404):
            wrong.append(f"round {round}: {said}")
        # Dropped until the answer; then the number is as new.
        peer.send(qos * 5 + method(7, 20, 41))
    peer.open_channel(7)
    peer.send(method(7, 60, 10, b"\0" * 7))
    peer.expect(60, 11, 7)
    peer.send(method(0, 10, 50, struct.pack(">H", 200) + short("") + b"\0" * 4))
    peer.expect(10, 51, 0)
    return wrong
