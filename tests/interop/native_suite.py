"""The Python client of the native protocol against a pair: arguments are the native ports of both
nodes, sitting master first. Prints KILL when the master may be killed, and counts at the end.
"""
import contextlib
import json
import socket
import sys
import time

import understudy

ADDRESSES = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
COUNT, WINDOW = 600, 50


def refused(code, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except understudy.Refused as error:
        assert error.args[0] == code, error
    else:
        raise SystemExit(f"{call.__name__}{arguments} was not refused")


def basics(client):
    assert client.declare_queue("interop.native.basics") == ("interop.native.basics", 0, 0)
    client.ask("DeclareExchange", "interop.native.topic", "topic", False, True, False, False, b"")
    client.ask("Bind", "interop.native.topic", "interop.native.basics", False, "a.#", b"")
    body = bytes(range(256)) * 4000
    client.publish("a.b", body, exchange="interop.native.topic")
    taken = client.get("interop.native.basics")
    assert (taken.body, taken.routing_key, taken.redelivered) == (body, "a.b", False)
    client.settle(taken, how="Return")
    again = client.get("interop.native.basics")
    assert again.redelivered and again.lsn == taken.lsn
    client.transaction([("", "interop.native.basics", b"t1"), ("", "interop.native.basics", b"t2")],
                       settles=[again])
    assert [client.get("interop.native.basics").body for _ in range(2)] == [b"t1", b"t2"]
    assert client.get("interop.native.basics") is None
    client.publish("nobody.there", b"", exchange="interop.native.topic",
                   flags=understudy.MANDATORY)
    assert [fields[0] for fields in client.returned] == [312]
    # Refusals leave the connection as it is.
    connection = client.socket
    missing = ("interop.native.missing", True, True, False, False, b"")
    refused(404, client.ask, "DeclareQueue", *missing)
    refused(404, client.consume, "interop.native.missing")
    refused(406, client.declare_queue, "interop.native.basics", durable=False)
    refused(404, client.publish, "key", b"", exchange="interop.native.missing")
    # A program that looks by and by, and never waits.
    client.declare_queue("interop.native.polled")
    client.consume("interop.native.polled")
    client.publish("interop.native.polled", b"one")
    while not (delivery := client.next(timeout=0)):
        pass
    client.settle(delivery)
    several = []
    for number in range(3):
        client.publish("interop.native.basics", str(number).encode())
        several.append(client.get("interop.native.basics"))
    client.settle(*several)
    assert client.declare_queue("interop.native.basics")[1] == 0
    assert client.ask("DeleteQueue", "interop.native.basics", False, False) == ("Removed", 0)
    assert client.socket is connection


def repeated_commit(client):
    """A transaction whose answer is lost: the connection goes between sending and reading it."""
    queue = "interop.native.commit"
    client.declare_queue(queue)
    client.publish(queue, b"in")
    for lost in (True, False):
        taken = client.get(queue)
        receive = client._receive

        def lose(deadline):
            client._receive = receive
            while lost and not client.answers:
                receive(deadline)
            raise ConnectionError("as if")

        client._receive = lose
        if lost:
            assert client.transaction([("", queue, b"out")], settles=[taken]) is True
        else:
            # Sent, and dropped before the broker read it or behind: it says which.
            try:
                client.transaction([("", queue, b"out")], settles=[taken])
            except understudy.Stale:
                again = client.get(queue)
                assert again.redelivered and again.lsn == taken.lsn
                client.settle(again)
            else:
                client.settle(client.get(queue))
    assert client.get(queue) is None
    client.ask("DeleteQueue", queue, False, False)


def takeover(client):
    """A window of publishes, a consumer and a transaction over the death of the master."""
    queue = "interop.native"
    client.declare_queue(queue)
    client.consume(queue, credit=WINDOW)
    connection, received, stored, stale = client.socket, [], set(), 0

    def take(timeout):
        nonlocal stale
        delivery = client.next(timeout)
        if delivery is None:
            return False
        received.append(int(delivery.body))
        stored.add(delivery.lsn)
        try:
            client.settle(delivery)
        except understudy.Stale:
            stale += 1
        return True

    for number in range(COUNT):
        client.publish(queue, str(number).encode(), wait=False)
        client.wait_confirmed(most=WINDOW)
        if number == COUNT // 2:
            held = client.next(30)
            print("KILL", flush=True)
            while client.socket is connection:
                client.publish("", b"", exchange="amq.fanout")
            try:
                client.settle(held)
                raise SystemExit("a delivery of a lost connection was settled")
            except understudy.Stale:
                pass
        while client.deliveries:
            take(0)
    client.wait_confirmed()
    assert client.transaction([("", queue, str(COUNT).encode())]) is False
    while set(received) != set(range(COUNT + 1)) and take(30):
        pass
    lost = sorted(set(range(COUNT + 1)) - set(received))
    # What was handed out and not settled comes again under the same LSN on the new master, so
    # this counts what is stored twice.
    duplicates = len(stored) - len(set(received))
    assert duplicates == 0, duplicates
    print(json.dumps({"confirmed": COUNT + 1, "received": len(received), "stale": stale,
                      "duplicates": duplicates, "lost": lost}), flush=True)


def passes_over_a_broker_that_stands_still():
    """As of a stopped process: the kernel takes the connection, and nobody says anything."""
    with socket.create_server(("127.0.0.1", 0)) as still:
        begun = time.monotonic()
        understudy.Client([still.getsockname(), *ADDRESSES]).close()
        assert time.monotonic() < begun + 10


refused(403, understudy.Client, ADDRESSES, password="wrong")
passes_over_a_broker_that_stands_still()
with contextlib.closing(understudy.Client(ADDRESSES)) as client:
    basics(client)
    repeated_commit(client)
    takeover(client)
