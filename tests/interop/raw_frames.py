"""What no client library sends: frames by hand, and what the broker says to them."""
import socket
import struct

HEADER = b"AMQP\0\0\x09\x01"
METHOD, CONTENT, BODY, HEARTBEAT = 1, 2, 3, 8


def frame(kind, channel, payload, end=0xCE):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def method(channel, class_id, method_id, arguments=b""):
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text):
    return bytes([len(text)]) + text.encode()


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
        table = short("capabilities") + b"F" + struct.pack(">I", len(capabilities)) + capabilities
        start_ok = struct.pack(">I", len(table)) + table + short("PLAIN")
        login = b"\0guest\0guest"
        self.send(method(0, 10, 11, start_ok + struct.pack(">I", len(login)) + login + short("en_US")))
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
