//! Every client with its own failover string, or behind HAProxy, while the sitting master is killed
//! with SIGKILL in mid-stream. The same pair for all: the dead node comes back as slave, and the next
//! client has it the other way round. Each run is counted alike (`failover/counting.py`); the table
//! is printed, and docs/failover.md shows one. Debian's clients, which have a suite with a takeover
//! each and take minutes here, run with UNDERSTUDY_FAILOVER=all. STOMP's clients are sent to `127.1`,
//! which is no IP address to us: as with a machine's name, who says it in `host` asks for a vhost.

use crate::support::haproxy::HaProxy;
use crate::support::{Pair, Ports};
use crate::{is_installed, limited, node_modules, python, run_quietly, runs, script};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use understudy_client::{Client, Message, QueueOptions, SubscribeOptions};

/// Of a client whose publish is confirmed before the next: the one in flight at the kill. Deliveries
/// that were not acked yet come again, too.
const DUPLICATES_MAX: u64 = 60;
const COUNT: usize = 200;

struct Field {
    pair: Pair,
    proxy: Option<(HaProxy, Ports)>,
    rows: Vec<(String, Value)>,
}

impl Field {
    fn ports(&self, address: fn(&Ports) -> &String) -> Vec<String> {
        let nodes = [&self.pair.master.ports, &self.pair.slave.ports];
        nodes.map(|ports| Ports::port(address(ports)).to_string()).into()
    }

    /// Runs a recipe; the master dies when it says KILL.
    fn run(&mut self, name: &str, recipe: Command) {
        let mut child = limited(&recipe).stdout(Stdio::piped()).spawn().unwrap();
        let mut counted = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line == "KILL" {
                self.pair.master.kill();
            } else if let Ok(value) = serde_json::from_str(&line) {
                counted = Some(value);
            }
        }
        assert!(child.wait().unwrap().success(), "{name}: {recipe:?} failed");
        self.note(name, counted.unwrap_or_else(|| panic!("{name} does not count")));
    }

    fn note(&mut self, name: &str, counted: Value) {
        assert_eq!(counted["lost"], json!([]), "{name}: {counted}");
        assert_eq!(counted["confirmed"], COUNT, "{name}: {counted}");
        assert!(counted["duplicates"].as_u64().unwrap() <= DUPLICATES_MAX, "{name}: {counted}");
        println!("{name}: {counted}");
        self.rows.push((name.to_owned(), counted));
        self.swap();
    }

    /// The node that was killed follows the other, and is the next to be waited for.
    fn swap(&mut self) {
        let Pair { master, slave, .. } = &mut self.pair;
        slave.wait("serving", |status| status["serving"] == true);
        master.start();
        master.wait_in_sync();
        slave.wait_in_sync();
        std::mem::swap(master, slave);
    }

    fn table(&self) -> String {
        let head = "| client | sent | confirmed | received | duplicates | lost | s without service |\n\
                    |---|---|---|---|---|---|---|\n";
        let rows = self.rows.iter().map(|(name, counted)| {
            let [sent, confirmed, received, duplicates, without] =
                ["sent", "confirmed", "received", "duplicates", "without_service_s"]
                    .map(|key| counted[key].to_string());
            let lost = counted["lost"].as_array().map_or(0, Vec::len);
            format!("| {name} | {sent} | {confirmed} | {received} | {duplicates} | {lost} | {without} |\n")
        });
        head.to_owned() + &rows.collect::<String>()
    }
}

fn recipe(program: impl AsRef<std::ffi::OsStr>, name: &str, arguments: Vec<String>) -> Command {
    let mut command = Command::new(program);
    command.arg(script("failover").join(name)).args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn amqp(ports: &Ports) -> &String {
    &ports.amqp
}

fn stomp(ports: &Ports) -> &String {
    &ports.stomp
}

fn native(ports: &Ports) -> &String {
    &ports.native
}

fn python_clients(field: &mut Field) {
    let Some(python) = python() else { return crate::skipped("failover", "python3-venv") };
    for (name, file, address) in [
        ("pika", "pika_list.py", amqp as fn(&Ports) -> &String),
        ("kombu (Celery)", "kombu_urls.py", amqp),
        ("stomp.py", "stomp_py_list.py", stomp),
    ] {
        let ports = field.ports(address);
        field.run(name, recipe(&python, file, ports));
    }
    if let Some(proxy) = field.proxy.as_ref().map(|(_, own)| Ports::port(&own.amqp).to_string()) {
        field.run("aio-pika, HAProxy", recipe(&python, "aio_pika_proxy.py", vec![proxy]));
    }
}

fn node_clients(field: &mut Field) {
    let Some(folder) = node_modules() else { return crate::skipped("failover", "nodejs and npm") };
    let node = |file, ports| {
        let mut command = recipe("node", file, ports);
        command.env("NODE_PATH", folder.join("node_modules"));
        command
    };
    let ports = field.ports(amqp);
    field.run("amqp-connection-manager", node("amqp_connection_manager.js", ports));
    let ports = field.ports(amqp);
    field.run("rabbitmq-client", node("rabbitmq_client.js", ports));
    let ports = field.ports(stomp);
    field.run("stompit", node("stompit_uri.js", ports));
    if let Some(proxy) = field.proxy.as_ref().map(|(_, own)| Ports::port(&own.amqp).to_string()) {
        field.run("amqplib, HAProxy", node("amqplib_proxy.js", vec![proxy]));
    }
}

fn debians_clients(field: &mut Field) {
    match runs("ruby", &["-rbunny", "-e", ""]) {
        false => crate::skipped("failover", "ruby-bunny"),
        true => {
            let ports = field.ports(amqp);
            field.run("Bunny", recipe("ruby", "bunny_addresses.rb", ports));
        }
    }
    match runs("ruby", &["-rstomp", "-e", ""]) {
        false => crate::skipped("failover", "ruby-stomp"),
        true => {
            let ports = field.ports(stomp);
            field.run("ruby-stomp", recipe("ruby", "ruby_stomp_uri.rb", ports));
        }
    }
    match runs("perl", &["-MNet::Stomp", "-e", ""]) {
        false => crate::skipped("failover", "libnet-stomp-perl"),
        true => {
            let ports = field.ports(stomp);
            field.run("Net::Stomp", recipe("perl", "net_stomp_uri.pl", ports));
        }
    }
    match runs("php", &["-r", crate::PHP_AMQPLIB]) {
        false => crate::skipped("failover", "php-cli and php-amqplib"),
        true => {
            let ports = field.ports(amqp);
            field.run("php-amqplib", recipe("php", "php_amqplib_hosts.php", ports));
        }
    }
    java(field);
}

fn java(field: &mut Field) {
    let [client, logging, silent] = crate::JARS;
    if !is_installed("javac") || !Path::new(client).exists() {
        return crate::skipped("failover", "default-jdk-headless and librabbitmq-client-java");
    }
    let classes = tempfile::tempdir().unwrap();
    let source = script("failover").join("JavaAddresses.java");
    run_quietly(Command::new("javac").args(["-cp", client, "-d"]).arg(classes.path()).arg(source));
    let mut command = Command::new("java");
    let path = [&classes.path().to_string_lossy(), client, logging, silent].join(":");
    command.args(["-cp", &path, "JavaAddresses"]).args(field.ports(amqp));
    field.run("RabbitMQ Java", command);
}

fn counted(sent: usize, received: &[usize], without: Duration) -> Value {
    let unique: std::collections::BTreeSet<_> = received.iter().copied().collect();
    let lost: Vec<usize> = (0..COUNT).filter(|number| !unique.contains(number)).collect();
    json!({
        "sent": sent, "confirmed": COUNT, "received": received.len(),
        "duplicates": received.len() - unique.len(), "lost": lost,
        "without_service_s": (without.as_secs_f64() * 1e3).round() / 1e3,
    })
}

fn failover_uri(ports: &[String]) -> String {
    format!(
        "failover:(tcp://127.0.0.1:{},tcp://127.0.0.1:{})?randomize=false&maxReconnectDelay=100\
         &timeout=60000&nested.connectionTimeout=2000",
        ports[0], ports[1]
    )
}

async fn publish_and_take(client: Client, kill: impl FnOnce()) -> Value {
    client.declare_queue("failover.native", QueueOptions::default()).await.unwrap();
    let options = SubscribeOptions::default();
    let mut subscription = client.subscribe("failover.native", options).await.unwrap();
    let taking = tokio::spawn(async move {
        let mut received = Vec::new();
        while received.last() != Some(&(COUNT - 1)) {
            let delivery = subscription.next().await.unwrap();
            received.push(std::str::from_utf8(delivery.body()).unwrap().parse().unwrap());
            delivery.settle();
        }
        received
    });
    let mut kill = Some(kill);
    let (mut without, mut last) = (Duration::ZERO, Instant::now());
    for number in 0..COUNT {
        if number == COUNT / 2
            && let Some(kill) = kill.take()
        {
            kill();
        }
        client.publish(Message::to_queue("failover.native", number.to_string())).await.unwrap();
        without = without.max(last.elapsed());
        last = Instant::now();
    }
    let received = taking.await.unwrap();
    client.close().await;
    counted(COUNT, &received, without)
}

fn understudy_client(field: &mut Field) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let uri = failover_uri(&field.ports(native));
    let result = runtime.block_on(async {
        let client = Client::connect(&uri).await.unwrap();
        publish_and_take(client, || field.pair.master.kill()).await
    });
    field.note("understudy-client", result);
}

/// `understudy publish` reads lines, `understudy consume` writes them, as in a shell. Publishes are
/// confirmed in a window, so the gap is one of the consumer's.
fn command_line(field: &mut Field) {
    let uri = failover_uri(&field.ports(native));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&uri).await.unwrap();
        client.declare_queue("failover.cli", QueueOptions::default()).await.unwrap();
        client.close().await;
    });
    let verb = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
        command.args([verb, "--url", &uri, "--queue", "failover.cli"]);
        command
    };
    let mut publisher = verb("publish").stdin(Stdio::piped()).spawn().unwrap();
    let mut consumer = verb("consume").arg("--ack").stdout(Stdio::piped()).spawn().unwrap();
    let mut bodies = BufReader::new(consumer.stdout.take().unwrap()).lines();
    let mut lines = publisher.stdin.take().unwrap();
    let mut received: Vec<usize> = Vec::new();
    let (mut without, mut last) = (Duration::ZERO, Instant::now());
    for number in 0..COUNT {
        if number == COUNT / 2 {
            field.pair.master.kill();
        }
        writeln!(lines, "{number}").unwrap();
        while received.last().is_none_or(|seen| *seen != number) {
            received.push(bodies.next().unwrap().unwrap().parse().unwrap());
        }
        without = without.max(last.elapsed());
        last = Instant::now();
    }
    drop(lines);
    assert!(publisher.wait().unwrap().success());
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    field.note("understudy publish and consume", counted(COUNT, &received, without));
}

fn lapin(field: &mut Field) {
    let Some((_, own)) = &field.proxy else { return };
    let addresses = [own.amqp.clone()];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = runtime.block_on(async {
        let connected = crate::lapin_suite::connect(&addresses, "failover.lapin").await;
        let (mut connection, mut channel) = connected;
        let (mut sent, mut number) = (0, 0);
        let (mut without, mut last) = (Duration::ZERO, Instant::now());
        let mut killed = false;
        while number < COUNT {
            if number == COUNT / 2 && !killed {
                killed = true;
                field.pair.master.kill();
            }
            sent += 1;
            match crate::lapin_suite::publish(&channel, "failover.lapin", number).await {
                Ok(acked) => {
                    assert!(acked);
                    number += 1;
                    without = without.max(last.elapsed());
                    last = Instant::now();
                }
                Err(_) => {
                    (connection, channel) =
                        crate::lapin_suite::connect(&addresses, "failover.lapin").await;
                }
            }
        }
        let received = crate::lapin_suite::take_all(&channel, "failover.lapin", COUNT).await;
        connection.close(200, "".into()).await.unwrap();
        counted(sent, &received, without)
    });
    field.note("lapin, HAProxy", result);
}

#[test]
fn every_client_goes_on_when_its_master_is_killed() {
    let pair = Pair::in_sync();
    let proxy = match runs("haproxy", &["-v"]) {
        true => {
            let own = Ports::free();
            let proxy = HaProxy::in_front_of(&pair, &own);
            Some((proxy, own))
        }
        false => {
            crate::skipped("failover", "haproxy");
            None
        }
    };
    let mut field = Field { pair, proxy, rows: Vec::new() };
    understudy_client(&mut field);
    command_line(&mut field);
    python_clients(&mut field);
    node_clients(&mut field);
    if std::env::var("UNDERSTUDY_FAILOVER").is_ok_and(|which| which == "all") {
        debians_clients(&mut field);
    }
    lapin(&mut field);
    println!("{}", field.table());
}
