"""Makes the corpus of tests/fuzz.rs: what clients say, as bytes.

  record_corpus.py record LISTEN_PORT BROKER_PORT FOLDER NAME   until it is interrupted
  record_corpus.py hostile FOLDER

`record` stands between a client and a broker and keeps the client's bytes, a file a connection.
"""
import os
import socket
import struct
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../tests/interop"))
from raw_frames import (
    CONTENT_OF_2, HEADER, METHOD, PUBLISH, RAW_CASES, deep_table, frame, method, short, start_ok, table)

KEPT_BYTES = 12 * 1024
BODY_BYTES_MAX = 2_000


def pump(source, sink, kept):
    while octets := source.recv(65_536):
        kept.extend(octets)
        sink.sendall(octets)
    sink.shutdown(socket.SHUT_WR)


def record(listen_port, broker_port, folder, name):
    listener = socket.create_server(("127.0.0.1", listen_port))
    number = 0
    while True:
        client, _ = listener.accept()
        number += 1
        threading.Thread(target=keep, args=(client, broker_port, f"{folder}/{name}-{number}")).start()


def without_large_bodies(octets):
    """The header and the frames, but for publishes of large bodies, up to the limit."""
    kept, at, left_out = bytearray(octets[:8]), 8, set()
    while at + 8 <= len(octets) and len(kept) < KEPT_BYTES:
        kind, channel, size = struct.unpack_from(">BHI", octets, at)
        one = octets[at:at + 8 + size]
        at += len(one)
        if kind == 3 and channel in left_out:
            continue
        left_out.discard(channel)
        if kind == 2 and struct.unpack_from(">Q", one, 11)[0] > BODY_BYTES_MAX:
            left_out.add(channel)
            # Its publish is in front of it: clients write the two in one go.
            kept = kept[:publish_at]
            continue
        publish_at = len(kept)
        kept += one
    return kept


def keep(client, broker_port, file):
    broker = socket.create_connection(("127.0.0.1", broker_port))
    kept = bytearray()
    back = threading.Thread(target=pump, args=(broker, client, bytearray()))
    back.start()
    try:
        pump(client, broker, kept)
        back.join()
    except OSError:
        pass
    with open(file, "wb") as out:
        out.write(without_large_bodies(kept))


def hostile(folder):
    def put(name, octets):
        with open(f"{folder}/hostile-{name}", "wb") as out:
            out.write(octets)

    opening = start_ok() + method(0, 10, 31, struct.pack(">HIH", 0, 0, 5)) + method(0, 10, 40, short("/") + b"\0\0")
    opened = HEADER + opening + method(1, 20, 10, b"\0")
    for name, octets, _, _ in RAW_CASES:
        put(name, opened + octets)
    put("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    put("header-0-8", b"AMQP\x01\x01\x08\x00")
    put("deep-client-properties", HEADER + start_ok(deep_table(1_000)))
    put("deep-amqplain", HEADER + start_ok(mechanism="AMQPLAIN", response=deep_table(1_000)))
    for name, class_id, method_id, head in [
        ("exchange-declare", 40, 10, b"\0\0" + short("e") + short("direct") + b"\0"),
        ("queue-declare", 50, 10, b"\0\0" + short("q") + b"\0"),
        ("queue-bind", 50, 20, b"\0\0" + short("q") + short("e") + short("k") + b"\0"),
        ("consume", 60, 20, b"\0\0" + short("q") + short("t") + b"\0"),
    ]:
        put(f"deep-{name}", opened + method(1, class_id, method_id, head + table(deep_table(1_000))))
    headers = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table(deep_table(1_000))
    put("deep-headers", opened + PUBLISH + frame(2, 1, headers))
    put("body-of-exabytes", opened + PUBLISH + frame(2, 1, struct.pack(">HHQH", 60, 0, 1 << 60, 0)))
    put("frame-of-gigabytes", opened + struct.pack(">BHI", METHOD, 1, 0xffff_fff0) + b"x" * 40)
    put("bodies-never-finished", opened + b"".join(
        method(n, 20, 10, b"\0") + (PUBLISH + frame(2, 1, struct.pack(">HHQH", 60, 0, 9000, 0))
                                    + frame(3, 1, b"x" * 100)).replace(b"\0\1\0\0", struct.pack(">HH", n, 0))
        for n in range(2, 40)))
    empty = PUBLISH + frame(2, 1, struct.pack(">HHQH", 60, 0, 0, 0))
    put("transaction-without-end", opened + method(1, 90, 10) + empty * 200)
    put("channels-opened-and-closed", opened + (method(2, 20, 10, b"\0") + method(2, 20, 40, b"\0\xc8\0\0\0\0\0")) * 100)
    consume = b"".join(
        method(1, 60, 20, b"\0\0" + short("q") + short(f"t{n}") + b"\0" + table(b"")) for n in range(60))
    put("consumers", opened + consume + method(1, 60, 80, struct.pack(">QB", 0, 1)) * 20
        + method(1, 60, 110, b"\1"))
    put("replies-twice", opened + method(1, 60, 20, b"\0\0" + short("amq.rabbitmq.reply-to") + short("") + b"\2" + table(b"")) * 2)


if sys.argv[1] == "record":
    record(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
else:
    hostile(sys.argv[2])
