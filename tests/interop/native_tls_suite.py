"""The Python client of the native protocol under TLS: arguments are the port, then the files of the
authority, the client's certificate and its key."""
import contextlib
import ssl
import sys

import understudy

PORT, CA, CERTIFICATE, KEY = sys.argv[1:]
NODES = [("localhost", int(PORT))]
BIG = bytes(range(256)) * 8_000


def context(with_certificate):
    made = ssl.create_default_context(cafile=CA)
    if with_certificate:
        made.load_cert_chain(CERTIFICATE, KEY)
    return made


def work(**login):
    with contextlib.closing(understudy.Client(NODES, timeout=30, **login)) as client:
        client.declare_queue("native.tls")
        client.consume("native.tls", credit=10)
        bodies = [BIG] + [str(number).encode() for number in range(200)] + [BIG]
        for body in bodies:
            client.publish("native.tls", body, wait=False)
        for body in bodies:
            delivery = client.next(30)
            assert delivery and delivery.body == body
            client.settle(delivery)
        # A lost connection is made again, TLS and all.
        former = client.socket
        former.close()
        client.publish("native.tls", b"again")
        assert client.socket is not former
        client.settle(client.next(30))


work(tls=context(False))
work(tls=context(True), user="", password="")
try:
    understudy.Client(NODES, user="", password="", tls=context(False), timeout=5)
    raise SystemExit("let in without user and certificate")
except understudy.Refused as error:
    assert error.args[0] == 403, error
try:
    understudy.Client(NODES, tls=ssl.create_default_context(), timeout=0.3)
    raise SystemExit("a broker of an unknown authority was believed")
except ConnectionError as error:
    assert "CERTIFICATE_VERIFY_FAILED" in str(error), error
