"""What the failover recipes in Python count. A recipe publishes each number until it is confirmed,
takes them at the same time, and says KILL when the master may be killed: in mid-stream."""
import json
import threading
import time

COUNT = 200
PATIENCE_S = 60


class Count:
    def __init__(self):
        self.sent = self.confirmed = 0
        self.received = []
        self.without_s, self.last = 0.0, None
        self.changed = threading.Condition()

    def numbers(self):
        for number in range(COUNT):
            if number == COUNT // 2:
                print("KILL", flush=True)
            yield number

    def publish_all(self, publish, lost):
        """`publish` returns when the body is confirmed, and raises one of `lost` if it is not."""
        for number in self.numbers():
            while True:
                self.sent += 1
                try:
                    publish(str(number))
                    break
                except lost:
                    time.sleep(0.005)
            self.confirm()

    def confirm(self):
        now = time.monotonic()
        self.without_s = max(self.without_s, now - (self.last or now))
        self.last = now
        self.confirmed += 1

    def take(self, body):
        """True: that was all."""
        with self.changed:
            self.received.append(int(body))
            self.changed.notify_all()
            return self.is_complete()

    def is_complete(self):
        return len(set(self.received)) == COUNT

    def wait(self):
        with self.changed:
            self.changed.wait_for(self.is_complete, PATIENCE_S)

    def report(self):
        unique = set(self.received)
        print(json.dumps({
            "sent": self.sent, "confirmed": self.confirmed, "received": len(self.received),
            "duplicates": len(self.received) - len(unique),
            "lost": sorted(set(range(COUNT)) - unique),
            "without_service_s": round(self.without_s, 3)}), flush=True)
