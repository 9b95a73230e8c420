"""pika and stomp.py under TLS: arguments are the ports for AMQP and STOMP, then the files of the
authority, the client's certificate and its key."""
import ssl
import sys
import threading

import pika
import stomp

AMQP, STOMP, CA, CERTIFICATE, KEY = sys.argv[1:]
BIG = bytes(range(256)) * 8_000


def context(with_certificate):
    made = ssl.create_default_context(cafile=CA)
    if with_certificate:
        made.load_cert_chain(CERTIFICATE, KEY)
    return made


def amqp(with_certificate):
    credentials = (pika.credentials.ExternalCredentials() if with_certificate
                   else pika.PlainCredentials("guest", "guest"))
    connection = pika.BlockingConnection(pika.ConnectionParameters(
        "127.0.0.1", int(AMQP), credentials=credentials, socket_timeout=30,
        ssl_options=pika.SSLOptions(context(with_certificate), "localhost")))
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True).method.queue
    bodies = [BIG] + [str(n).encode() for n in range(200)] + [BIG]
    for body in bodies:
        channel.basic_publish("", queue, body)
    for body in bodies:
        method, _, got = channel.basic_get(queue, auto_ack=True)
        assert got == body, (len(got or b""), len(body))
    # Much at once, in both directions.
    for n in range(20):
        channel.basic_publish("", queue, BIG)
    count = 0
    for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=30):
        assert body == BIG
        count += 1
        if count == 20:
            break
    connection.close()


class Listener(stomp.ConnectionListener):
    def __init__(self):
        self.got = []
        self.done = threading.Event()

    def on_message(self, frame):
        self.got.append(frame.body)
        if len(self.got) == 50:
            self.done.set()


def connect(connection, login):
    """stomp.py reads in one thread and writes in another; before Python 3.13 nothing keeps them
    apart within TLS, and about one connection in 150 is lost to that at once."""
    for left in reversed(range(5)):
        try:
            return connection.connect(wait=True, **login)
        except stomp.exception.ConnectFailedException:
            if not left:
                raise


def over_stomp(with_certificate):
    connection = stomp.Connection12([("127.0.0.1", int(STOMP))])
    files = {"cert_file": CERTIFICATE, "key_file": KEY} if with_certificate else {}
    connection.set_ssl([("127.0.0.1", int(STOMP))], ca_certs=CA, **files)
    listener = Listener()
    connection.set_listener("", listener)
    login = {} if with_certificate else {"username": "guest", "passcode": "guest"}
    connect(connection, login)
    connection.subscribe("/queue/tls", id="1", ack="auto")
    for n in range(50):
        connection.send("/queue/tls", str(n) * 1_000)
    assert listener.done.wait(30), len(listener.got)
    assert listener.got == [str(n) * 1_000 for n in range(50)]
    connection.disconnect()


for shown in (False, True):
    amqp(shown)
    over_stomp(shown)
