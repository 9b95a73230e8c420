"""How the suites of pika reach a pair: arguments are the AMQP ports of both nodes, sitting master first."""
import sys
import time

import pika

PORTS = [int(port) for port in sys.argv[1:]]
WAIT_S = 60


def connect():
    """To whichever node lets clients in, until the time is up."""
    parameters = [
        pika.ConnectionParameters("127.0.0.1", port, connection_attempts=1, socket_timeout=2)
        for port in PORTS
    ]
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return pika.BlockingConnection(parameters)
        except pika.exceptions.AMQPConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
