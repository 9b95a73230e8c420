"""Runs every work on every broker, round after round, so that what else the machine does hits all of
them alike; takes medians; writes the report."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile

import report
from brokers import ActiveMq, BINARY, Pair, Quorum, RabbitMq, Standalone


class Work:
    def __init__(self, name, title, protocol, brokers, arguments):
        self.name, self.title, self.protocol = name, title, protocol
        self.brokers, self.arguments = brokers, arguments.split()


AMQP = (Standalone, RabbitMq, Pair, Quorum)
STOMP = (Standalone, RabbitMq, ActiveMq)
WORKS = [
    Work("flow", "1 producer, 1 consumer, 1 KiB persistent, window 1,000, ack each 100", "amqp", AMQP, ""),
    Work("queues", "4 producers, 4 consumers on 4 queues, else the same", "amqp", AMQP,
         "--producers 4 --consumers 4 --queues 4"),
    Work("transient", "100 bytes transient, no confirms, automatic ack", "amqp", (Standalone, RabbitMq),
         "--size 100 --transient --transient-queues --window 0 --ack auto --prefetch 0"),
    Work("single", "one outstanding publish, 1 KiB persistent, no consumer", "amqp", AMQP,
         "--window 1 --phases fill --keep-queues"),
    Work("paced", "5,000 messages per second, 1 KiB persistent, ack each 10", "amqp", AMQP,
         "--rate 5000 --ack-every 10"),
    Work("stomp", "STOMP: 1 producer, 1 consumer, 1 KiB persistent, window 1,000, client-individual acks",
         "stomp", STOMP, "--ack individual"),
    Work("stomp-single", "STOMP: one outstanding, 1 KiB persistent, with a consumer", "stomp", STOMP,
         "--window 1 --ack-every 1"),
]


def load(broker, work, seconds):
    command = [BINARY, "bench", "--url", broker.urls[work.protocol], "--json", "--quiet",
               "--name", f"bench-{work.name}", "--duration", str(seconds), *work.arguments,
               *broker.arguments]
    for pid in broker.pids:
        command += ["--server-pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{broker.name}, {work.name}: {done.stderr}") from None
    verification = result["verification"]
    if not verification["good"]:
        print(f"  {broker.name}: {verification}", flush=True)
    if "--keep-queues" in work.arguments:
        # Emptied by the next one's preparations, or else here: no backlog may slow others down.
        clean = [*command[:command.index("--duration")], "--messages", "1", *broker.arguments]
        subprocess.run(clean, capture_output=True, check=True)
    return result


def figures(result):
    phase = result["phases"][0]
    confirm, end_to_end = phase["confirm_us"] or {}, phase["end_to_end_us"] or {}
    return {
        "rate": phase["messages_per_second"],
        "cpu": phase["server_cpu_us_per_message"],
        "confirm_p50": confirm.get("p50"),
        "confirm_p99": confirm.get("p99"),
        "end_p50": end_to_end.get("p50"),
        "end_p99": end_to_end.get("p99"),
        "memory": sum(server["resident_bytes_peak"] for server in phase["servers"]) / 1e6,
        "anonymous": sum(server["anonymous_bytes_peak"] for server in phase["servers"]) / 1e6,
        "tool_cpu": phase["client_cpu_us_per_message"],
        "bad": 0 if result["verification"]["good"] else 1,
    }


def median(runs):
    def middle(key):
        values = [run[key] for run in runs if run[key] is not None]
        return statistics.median(values) if values else None

    merged = {key: middle(key) for key in runs[0]}
    merged["bad"] = sum(run["bad"] for run in runs)
    merged["spread"] = (min(run["rate"] for run in runs), max(run["rate"] for run in runs))
    return merged


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=6, help="of each load")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", help="these works, separated by commas; the others keep their figures", default="")
    options.add_argument("--results", default="target/peers.json", help="figures, for a report anew")
    options.add_argument("--report-only", action="store_true")
    chosen = options.parse_args()
    if not chosen.report_only:
        works = [work for work in WORKS if not chosen.only or work.name in chosen.only.split(",")]
        measured = measure(works, chosen.seconds, chosen.rounds)
        for work in measured:
            work.update(rounds=chosen.rounds, seconds=chosen.seconds)
        if chosen.only and os.path.exists(chosen.results):
            # The others stay as they were measured before.
            with open(chosen.results) as file:
                before = {work["name"]: work for work in json.load(file)["works"]}
            now = {work["name"]: work for work in measured}
            measured = [{**before, **now}[work.name] for work in WORKS if work.name in {**before, **now}]
        with open(chosen.results, "w") as file:
            json.dump({"works": measured}, file, indent=1)
    with open(chosen.results) as file:
        report.write(json.load(file))


def measure(works, seconds, rounds):
    # On a disk, not in memory: /var/tmp.
    directory = tempfile.mkdtemp(prefix="understudy-peers-", dir="/var/tmp")
    brokers = {kind: kind(directory) for kind in (Standalone, Pair, RabbitMq, Quorum, ActiveMq)
               if any(kind in work.brokers for work in works)}
    try:
        for broker in brokers.values():
            print(f"starting {broker.name}", flush=True)
            broker.start()
        runs = {}
        for number in range(rounds + 1):
            for work in works:
                for kind in work.brokers:
                    # Round 0 warms up: the JVM, code loading, files.
                    result = figures(load(brokers[kind], work, seconds if number else 2))
                    print(f"round {number} {work.name:14} {brokers[kind].name:40} "
                          f"{result['rate']:9.0f}/s {result['cpu']:7.1f} µs", flush=True)
                    if number:
                        runs.setdefault((work.name, brokers[kind].name), []).append(result)
        return [{"name": work.name, "title": work.title,
                 "brokers": {brokers[kind].name: median(runs[work.name, brokers[kind].name])
                             for kind in work.brokers}}
                for work in works]
    finally:
        for broker in brokers.values():
            broker.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
