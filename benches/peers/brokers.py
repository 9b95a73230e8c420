"""Brokers as processes: started in a directory of their own, on ports of their own, killed at the end.

Each promises that a confirm or receipt means synced to disk: RabbitMQ's durable classic queues
(written and fsynced, in groups), its quorum queues (a majority of three nodes), ActiveMQ's KahaDB
with enableJournalDiskSyncs, and ours (one node, or both nodes of the pair).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

BINARY = os.path.abspath("target/release/understudy")
RABBITMQ = "/usr/lib/rabbitmq/bin"
ACTIVEMQ_JAR = "/usr/share/activemq/bin/activemq.jar"
PATIENCE_S = 90


def free_port(ports=iter(range(20_000 + os.getpid() % 5_000, 32_000))):
    """Below the ports that outgoing connections are given, and never the same twice."""
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise SystemExit("no free port")


def wait_for(what, check):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            if check():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come up in {PATIENCE_S} s")


def answers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


class Broker:
    """`urls` by protocol; `arguments` are added to every load; `pids` are those to be measured."""

    name = ""
    arguments = ()

    def __init__(self, directory):
        self.directory = os.path.join(directory, type(self).__name__)
        os.makedirs(self.directory)
        self.urls = {}
        self.pids = []
        self.children = []

    def spawn(self, command, **environment):
        log = open(os.path.join(self.directory, "log"), "ab")
        child = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory,
            env={**os.environ, **environment}, start_new_session=True)
        self.children.append(child)
        return child

    def stop(self):
        for child in self.children:
            # Its group: an Erlang node has helpers.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Standalone(Broker):
    name = "understudy"

    def start(self):
        self.node("one", 'backend = "standalone"')

    def node(self, name, replication, role="master", replication_port=0):
        ready = os.path.join(self.directory, f"{name}.json")
        config = os.path.join(self.directory, f"{name}.toml")
        ports = {key: free_port() for key in ("amqp", "stomp", "native", "http")}
        listen = "".join(f'{key} = "127.0.0.1:{port}"\n' for key, port in ports.items())
        with open(config, "w") as file:
            file.write(
                f'[broker]\nname = "{name}"\nrole = "{role}"\n'
                f'data_dir = "{self.directory}/{name}"\n[listen]\n{listen}'
                f'replication = "127.0.0.1:{replication_port or free_port()}"\n'
                f"[replication]\n{replication}\n")
        child = self.spawn([BINARY, "serve", "--config", config, "--ready-file", ready])
        self.pids.append(child.pid)
        if role == "master":
            self.urls = {"amqp": f"amqp://127.0.0.1:{ports['amqp']}",
                         "stomp": f"stomp://127.0.0.1:{ports['stomp']}",
                         "native": f"tcp://127.0.0.1:{ports['native']}"}
            self.http = ports["http"]
            if "pair" not in replication:
                wait_for(self.name, lambda: answers(ports["amqp"]))


class Pair(Standalone):
    name = "understudy, pair in-sync"

    def start(self):
        port = free_port()
        common = 'backend = "pair"\nuser = "pair"\npassword = "secret"\n'
        self.node("master", common, replication_port=port)
        self.node("slave", f'{common}master_uri = "tcp://127.0.0.1:{port}"\n', role="slave")
        wait_for(self.name, self.in_sync)

    def in_sync(self):
        url = f"http://127.0.0.1:{self.http}/api/replication"
        with urllib.request.urlopen(url, timeout=1) as answer:
            return json.load(answer)["state"] == "in-sync"


class RabbitMq(Broker):
    name = "RabbitMQ, classic durable queue"

    def start(self):
        self.start_epmd()
        self.node("bench-classic")

    def start_epmd(self):
        # Where Erlang nodes find each other: one of our own, so that none is left behind.
        self.epmd = free_port()
        self.spawn(["epmd", "-address", "127.0.0.1", "-port", str(self.epmd)])
        wait_for("epmd", lambda: answers(self.epmd))

    def environment(self, node):
        # Everything a node keeps lies below our directory; the cookie, too.
        base = os.path.join(self.directory, node)
        return {
            "HOME": self.directory,
            "ERL_EPMD_PORT": str(self.epmd),
            "RABBITMQ_NODENAME": f"{node}@localhost",
            "RABBITMQ_MNESIA_BASE": f"{base}/mnesia",
            "RABBITMQ_LOG_BASE": f"{base}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{base}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{base}/rabbitmq",
            "RABBITMQ_PID_FILE": f"{base}/pid",
        }

    def control(self, node, *words):
        command = [f"{RABBITMQ}/rabbitmqctl", "-q", "-n", f"{node}@localhost", *words]
        environment = {**os.environ, **self.environment(node)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def node(self, name):
        base = os.path.join(self.directory, name)
        os.makedirs(f"{base}/log")
        amqp, stomp = free_port(), free_port()
        with open(f"{base}/plugins", "w") as file:
            file.write("[rabbitmq_stomp].\n")
        with open(f"{base}/rabbitmq.conf", "w") as file:
            file.write(f"listeners.tcp.default = 127.0.0.1:{amqp}\n"
                       f"stomp.listeners.tcp.1 = 127.0.0.1:{stomp}\n"
                       # Neither memory nor disk alarms on a machine that others use too.
                       "vm_memory_high_watermark.relative = 0.6\ndisk_free_limit.absolute = 1GB\n")
        # The distribution's port is found by epmd.
        environment = {**self.environment(name), "RABBITMQ_DIST_PORT": str(free_port())}
        self.spawn([f"{RABBITMQ}/rabbitmq-server"], **environment)
        wait_for(name, lambda: answers(amqp))
        wait_for(name, lambda: os.path.exists(f"{base}/pid"))
        with open(f"{base}/pid") as file:
            self.pids.append(int(file.read()))
        if not self.urls:
            self.urls = {"amqp": f"amqp://127.0.0.1:{amqp}", "stomp": f"stomp://127.0.0.1:{stomp}"}


class Quorum(RabbitMq):
    name = "RabbitMQ, quorum queue on three nodes"
    arguments = ("--queue-argument", "x-queue-type=quorum")

    def start(self):
        self.start_epmd()
        nodes = [f"bench-quorum-{number}" for number in (1, 2, 3)]
        for node in nodes:
            self.node(node)
        for node in nodes[1:]:
            for words in (("stop_app",), ("join_cluster", f"{nodes[0]}@localhost"), ("start_app",)):
                done = self.control(node, *words)
                if done.returncode:
                    raise SystemExit(f"{node}: {words}: {done.stdout}{done.stderr}")


class ActiveMq(Broker):
    name = "ActiveMQ, KahaDB synced"

    def start(self):
        port = free_port()
        with open(os.path.join(self.directory, "activemq.xml"), "w") as file:
            file.write(f"""<beans xmlns="http://www.springframework.org/schema/beans"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="bench"
      dataDirectory="{self.directory}/data">
    <persistenceAdapter>
      <kahaDB directory="{self.directory}/data/kahadb" journalDiskSyncStrategy="always"/>
    </persistenceAdapter>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="512 mb"/></memoryUsage>
      <storeUsage><storeUsage limit="20 gb"/></storeUsage>
      <tempUsage><tempUsage limit="1 gb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp+nio://127.0.0.1:{port}"/>
    </transportConnectors>
  </broker>
</beans>
""")
        opens = ("java.base/java.lang", "java.base/java.util", "java.base/java.net",
                 "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic")
        child = self.spawn(
            ["java", "-Xms1G", "-Xmx1G", *(f"--add-opens={name}=ALL-UNNAMED" for name in opens),
             "-Dactivemq.home=/usr/share/activemq", f"-Dactivemq.base={self.directory}",
             f"-Dactivemq.conf={self.directory}", f"-Dactivemq.data={self.directory}/data",
             f"-Dactivemq.classpath={self.directory}", "-jar", ACTIVEMQ_JAR, "start",
             f"xbean:file:{self.directory}/activemq.xml"])
        self.pids.append(child.pid)
        self.urls = {"stomp": f"stomp://127.0.0.1:{port}"}
        wait_for(self.name, lambda: answers(port))
