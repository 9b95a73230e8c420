"""The targets that need no peer: a backlog of five millions, a restart on it, a fanout to a hundred
queues, ten thousand empty queues. Prints the rows of docs/benchmarks.md. Called after `run`, which
builds the release binary."""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from brokers import BINARY, Standalone


def bench(broker, arguments, protocol="amqp"):
    command = [BINARY, "bench", "--url", broker.urls[protocol], "--json", "--quiet",
               "--server-pid", str(broker.pids[-1]), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(done.stdout) if done.stdout else {}
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}{json.dumps(result.get('verification'))}")
    return result["phases"]


def resident(pid):
    """All, and without file pages, bytes."""
    with open(f"/proc/{pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file if line.startswith(("VmRSS", "RssAnon")))
    return tuple(int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))


class Restarted(Standalone):
    """Started anew on what the killed one left."""

    def restart(self):
        child = self.children[-1]
        child.kill()
        child.wait()
        config = os.path.join(self.directory, "one.toml")
        self.began = time.monotonic()
        child = self.spawn([BINARY, "serve", "--config", config])
        self.pids.append(child.pid)

    def first_message_s(self, queue):
        """From the start of the process to a message at a STOMP client that knocks all the time."""
        host, port = self.urls["stomp"].removeprefix("stomp://").split(":")
        while True:
            try:
                client = socket.create_connection((host, int(port)), timeout=60)
                break
            except OSError:
                time.sleep(0.001)
        subscribe = f"SUBSCRIBE\nid:0\nack:client\nprefetch-count:1\ndestination:/queue/{queue}\n\n\0"
        client.sendall(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0"
                       + subscribe.encode())
        seen = b""
        while b"MESSAGE\n" not in seen:
            part = client.recv(65536)
            if not part:
                raise SystemExit(f"no message, but {seen!r}")
            seen += part
        took = time.monotonic() - self.began
        client.close()
        return took


def fresh(kind, use):
    directory = tempfile.mkdtemp(prefix="understudy-targets-", dir="/var/tmp")
    broker = kind(directory)
    try:
        broker.start()
        return use(broker)
    finally:
        broker.stop()
        shutil.rmtree(directory, ignore_errors=True)


def backlog(count):
    common = f"--messages {count} --run 7 --name backlog --window 5000"

    def use(broker):
        fill = bench(broker, f"{common} --phases fill --keep-queues")[0]
        broker.restart()
        first = broker.first_message_s("backlog-0")
        after = resident(broker.pids[-1])
        drain = bench(broker, f"{common} --phases drain")[0]
        return fill, first, after, drain

    return use


def plain_file(count):
    """How the disk alone takes as many bytes, 1 MiB and a sync at a time: rates of the first and the
    last tenth, bytes per second. Disks of virtual machines are quick until their burst is used up."""
    block, blocks = os.urandom(1 << 20), max(count * 1024 >> 20, 20)
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        times = [time.monotonic()]
        for _ in range(blocks):
            os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
            times.append(time.monotonic())
    tenth = blocks // 10
    span = tenth << 20
    return span / (times[tenth] - times[0]), span / (times[-1] - times[-1 - tenth])


def log_bytes(broker):
    """Taken on the disk by the log's environment."""
    total = 0
    for folder, _, files in os.walk(os.path.join(broker.directory, "one")):
        if "state" not in folder:
            total += sum(os.stat(os.path.join(folder, name)).st_blocks * 512 for name in files)
    return total


def fanout_bytes(queues):
    def use(broker):
        before = log_bytes(broker)
        bench(broker, f"--messages 200000 --fanout --queues {queues} --phases fill --keep-queues")
        return log_bytes(broker) - before

    return use


def fanout_rate(size):
    def use(broker):
        load = f"--messages 50000 --fanout --queues 100 --consumers 100 --size {size}"
        return bench(broker, load)[0]

    return use


def empty_queues(count):
    def use(broker):
        before = resident(broker.pids[-1])
        start = time.monotonic()
        bench(broker, f"--queues {count} --phases fill --messages 1 --keep-queues")
        took = time.monotonic() - start
        after = resident(broker.pids[-1])
        return took, (after[1] - before[1]) / count

    return use


def middle(values):
    return statistics.median(values)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--backlog", type=int, default=5_000_000)
    chosen = options.parse_args()
    rounds = range(chosen.rounds)
    print("| what | measured |\n|---|---|", flush=True)

    plain, runs = [], []
    for _ in rounds:
        plain.append(plain_file(chosen.backlog))
        runs.append(fresh(Restarted, backlog(chosen.backlog)))
    fills, drains = [run[0] for run in runs], [run[3] for run in runs]
    slowdown = middle([fill["last_tenth_per_second"] / fill["first_tenth_per_second"] for fill in fills])
    peak = middle([fill["servers"][0]["resident_bytes_peak"] for fill in fills]) / 1e6
    anonymous = middle([fill["servers"][0]["anonymous_bytes_peak"] for fill in fills]) / 1e6
    fill_rate = middle([fill["messages_per_second"] for fill in fills])
    drain_rate = middle([drain["messages_per_second"] for drain in drains])
    name = f"{chosen.backlog:,} x 1 KiB"
    print(f"| fill {name}, window 5,000 | {fill_rate:,.0f} msg/s; the last tenth {slowdown:.2f} of the first; "
          f"memory at most {peak:.0f} MB ({anonymous:.0f} MB without file pages) |")
    print(f"| … a plain file of as many bytes, 1 MiB a sync | {middle([p[0] for p in plain]) / 1e6:.0f} MB/s in the "
          f"first tenth, {middle([p[1] for p in plain]) / 1e6:.0f} in the last: "
          f"{middle([p[1] / p[0] for p in plain]):.2f} of the first |")
    print(f"| kill -9 with that backlog, start to first delivery | {middle([run[1] for run in runs]):.2f} s; "
          f"memory {middle([run[2][0] for run in runs]) / 1e6:.0f} MB |")
    drain_peak = middle([drain["servers"][0]["resident_bytes_peak"] for drain in drains]) / 1e6
    print(f"| drain it | {drain_rate:,.0f} msg/s, {drain_rate / fill_rate:.2f} of the fill; "
          f"memory at most {drain_peak:.0f} MB |")

    ratios = []
    for _ in rounds:
        one, hundred = fresh(Standalone, fanout_bytes(1)), fresh(Standalone, fanout_bytes(100))
        ratios.append(hundred / one)
    print(f"| fanout of 200,000 x 1 KiB to 100 queues | log bytes {middle(ratios):.2f} times those of one queue |")
    for size in (1024, 100):
        flows = [fresh(Standalone, fanout_rate(size)) for _ in rounds]
        rate = middle([flow["received_per_second"] for flow in flows])
        cpu = middle([flow["server_cpu_us_per_message"] for flow in flows])
        print(f"| fanout to 100 queues with a consumer each, {size} bytes | {rate:,.0f} deliveries/s, "
              f"{rate * size / 1e6:,.0f} MB/s; server CPU {cpu:.2f} µs a delivery |")
    queues = [fresh(Standalone, empty_queues(10_000)) for _ in rounds]
    print(f"| 10,000 empty durable queues, declared one after the other | {middle([q[0] for q in queues]):.1f} s; "
          f"{middle([q[1] for q in queues]):,.0f} bytes each |")


if __name__ == "__main__":
    main()
