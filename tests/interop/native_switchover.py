"""The Python client of the native protocol while the roles of a pair are exchanged: the argument is
the native port of the sitting master alone, so where to go is what the master says; or those of both,
with a comma between. Under TLS with the authority's file as a second one. Prints SWITCHOVER when it
is at work, and counts at the end."""
import contextlib
import json
import ssl
import sys
import time

import understudy

AFTER, WINDOW, QUEUE = 200, 20, "interop.native.switchover"

ports, *ca = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca[0]) if ca else None
nodes = [("localhost", int(port)) for port in ports.split(",")]

with contextlib.closing(understudy.Client(nodes, tls=tls)) as client:
    client.declare_queue(QUEUE)
    client.consume(QUEUE, credit=WINDOW)
    first, published, since_then = client.socket, 0, 0
    received, places = [], set()
    longest, last = 0, time.monotonic()

    def take(timeout):
        delivery = client.next(timeout)
        if delivery is None:
            return False
        # What was settled on its way to the connection's end comes again, flagged.
        assert delivery.redelivered or int(delivery.body) not in received
        received.append(int(delivery.body))
        places.add(delivery.lsn)
        client.settle(delivery)
        return True

    while since_then < AFTER:
        client.publish(QUEUE, str(published).encode(), wait=False)
        client.wait_confirmed(most=WINDOW - 1)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        published += 1
        since_then += client.socket is not first
        if published == AFTER:
            print("SWITCHOVER", flush=True)
        while client.deliveries:
            take(0)
    client.wait_confirmed()
    while set(received) != set(range(published)) and take(30):
        pass
    assert list(dict.fromkeys(received)) == sorted(set(received)), "out of order"
    assert client.declare_queue(QUEUE)[1] == 0
    print(json.dumps({
        "confirmed": published, "received": len(received),
        "duplicates": len(places) - len(set(received)),
        "lost": sorted(set(range(published)) - set(received)),
        "longest_wait_s": round(longest, 3)}), flush=True)
