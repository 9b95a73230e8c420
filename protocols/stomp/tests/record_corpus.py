"""Makes the corpus of tests/fuzz: what clients say, as bytes.

  record_corpus.py record LISTEN_PORT BROKER_PORT FOLDER NAME   until it is interrupted
  record_corpus.py hostile FOLDER

`record` stands between a client and a broker and keeps the client's bytes, a file a connection.
"""
import socket
import sys
import threading

KEPT_BYTES = 6 * 1024
CONNECT = b"CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\nheart-beat:1000,1000\n\n\0"
OLD_CONNECT = b"CONNECT\nlogin: guest\npasscode: guest\n\n\0"
SEND = b"SEND\ndestination:/queue/a\nreceipt:1\ncontent-length:3\n\na\0b\0"


def pump(source, sink, kept):
    while octets := source.recv(65_536):
        kept.extend(octets)
        sink.sendall(octets)
    sink.shutdown(socket.SHUT_WR)


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
    whole = kept if len(kept) <= KEPT_BYTES else kept[:kept.rfind(b"\0", 0, KEPT_BYTES) + 1]
    with open(file, "wb") as out:
        out.write(whole)


def record(listen_port, broker_port, folder, name):
    listener = socket.create_server(("127.0.0.1", listen_port))
    number = 0
    while True:
        client, _ = listener.accept()
        number += 1
        threading.Thread(target=keep, args=(client, broker_port, f"{folder}/{name}-{number}")).start()


def subscribe(*headers):
    return b"SUBSCRIBE\n" + b"".join(header + b"\n" for header in headers) + b"\n\0"


def message_id(kind, number, tag=b"T_1", consumer=1):
    return kind + b"\nid:%s@@session-x@@%d-%d\n\n\0" % (tag, consumer, number)


def hostile(folder):
    work = subscribe(b"id:1", b"destination:/queue/a", b"ack:client", b"prefetch-count:10")
    cases = {
        "eols-and-nuls": b"\n\r\n\0" + CONNECT + b"\n\n\0" + SEND + b"\r\n\r\n",
        "crlf": CONNECT.replace(b"\n", b"\r\n") + SEND.replace(b"\n\na", b"\r\n\r\na"),
        "old": OLD_CONNECT + subscribe(b"destination: /queue/a", b"ack: client")
        + b"SEND\ndestination: /queue/a\n\nx\0" + b"ACK\nmessage-id:Q_/queue/a@@session-x@@1-1\n\n\0",
        "escapes": CONNECT + b"SEND\ndestination:/queue/a\\cb\nx\\n:\\\\\\r\n\n\0"
        + b"SEND\ndestination:/queue/a\nx:\\t\n\n\0",
        "repeated-headers": CONNECT + b"SEND\ndestination:/queue/a\ndestination:/queue/b\nx:1\nx:2\n\n\0",
        "wrong-length": CONNECT + SEND.replace(b":3", b":4"),
        "huge-length": CONNECT + SEND.replace(b":3", b":99999999999999999999"),
        "negative-length": CONNECT + SEND.replace(b":3", b":-1"),
        "no-colon": CONNECT + b"SEND\ndestination\n\n\0",
        "not-utf8": CONNECT + b"SEND\ndestination:/queue/\xff\n\n\0",
        "long-header": CONNECT + b"SEND\nx:" + b"y" * 9000 + b"\n\n\0",
        "many-headers": CONNECT + b"SEND\n" + b"".join(b"h%d:1\n" % n for n in range(70)) + b"\n\0",
        "unknown-command": CONNECT + b"FROB\n\n\0",
        "no-login": SEND + CONNECT,
        "twice": CONNECT + CONNECT,
        "acks": CONNECT + work + SEND * 6 + b"".join(message_id(b"ACK", n) for n in (2, 1, 3, 3, 99)),
        "nacks": CONNECT + work + SEND * 6 + message_id(b"NACK", 1).replace(b"\n\n", b"\nrequeue:false\n\n")
        + message_id(b"NACK", 2),
        "transactions": CONNECT + work + SEND * 4 + b"BEGIN\ntransaction:t\n\n\0"
        + SEND.replace(b"receipt", b"transaction:t\nreceipt")
        + message_id(b"ACK", 1).replace(b"\n\n", b"\ntransaction:t\n\n")
        + b"ABORT\ntransaction:t\n\n\0BEGIN\ntransaction:u\n\n\0"
        + message_id(b"ACK", 1).replace(b"\n\n", b"\ntransaction:u\n\n")
        + b"COMMIT\ntransaction:u\nreceipt:c\n\n\0UNSUBSCRIBE\nid:1\n\n\0",
        "many-transactions": CONNECT + b"".join(b"BEGIN\ntransaction:%d\n\n\0" % n for n in range(20)),
        "temp-queues": CONNECT + b"SEND\ndestination:/queue/a\nreply-to:/temp-queue/r\n\n?\0"
        + subscribe(b"id:t", b"destination:/temp-queue/r") + b"UNSUBSCRIBE\nid:t\n\n\0",
        "lists": CONNECT + b"SEND\ndestination:/queue/a,b,/topic/c.>,/temp-topic/d\nreceipt:l\n\nx\0",
        "selector": CONNECT + subscribe(b"id:1", b"destination:/topic/a", b"selector:a > 3 OR b LIKE '%'")
        + subscribe(b"id:2", b"destination:/queue/a", b"browser:true") + SEND * 5
        + message_id(b"ACK", 1, b"T_2", 2) + b"UNSUBSCRIBE\nid:2\n\n\0",
        "durable": CONNECT + subscribe(b"id:d", b"destination:/topic/a.*", b"durable:true",
                                       b"x-message-ttl:1000", b"x-max-length:5")
        + b"UNSUBSCRIBE\nid:d\ndurable:true\n\n\0",
        "subscriptions": CONNECT + b"".join(
            subscribe(b"id:%d" % n, b"destination:/exchange/amq.fanout/k%d" % n) for n in range(60)),
        "disconnect": CONNECT + SEND + b"DISCONNECT\nreceipt:77\n\n\0" + SEND,
        "properties": CONNECT + b"SEND\ndestination:/amq/queue/q%2F\npersistent:True\nexpires:99\n"
        b"priority:255\ntype:t\ncorrelation-id:c\ntimestamp:5\nuser-id:guest\namqp-message-id:m\n\nx\0",
    }
    for name, octets in cases.items():
        with open(f"{folder}/hostile-{name}", "wb") as out:
            out.write(octets)


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
    else:
        hostile(sys.argv[2])
