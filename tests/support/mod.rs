//! Real processes for tests: nodes on free ports, with SIGKILL and restart.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "shared by test binaries; a panic is the report"
)]

pub mod arbiter;
pub mod haproxy;
pub mod link;
pub mod network;
pub mod stomp;
pub mod wire;

use link::Link;
use network::{Cable, Machine, Network};
use serde_json::Value;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wire::Wire;

pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// And password: `guest` comes from loopback only.
pub const USER: &str = "tester";
/// By a hash that costs nothing, for clients that log in all the time.
const USERS: &str = "[[users]]\nname = \"tester\"\n\
                     password_hash = \"sha256:c2FsdOGh49lWQhOrRHBZeJX2a3AlFHVhxA5zfNEH8FvVzyNy\"\n";
/// On a machine of its own.
const REPLICATION_PORT: u16 = 7_400;

/// One node's fixed addresses: a slave's must be known before it opens them, and a restarted
/// node comes back to its own.
#[derive(Clone, Debug)]
pub struct Ports {
    pub amqp: String,
    pub stomp: String,
    pub native: String,
    pub http: String,
    pub replication: String,
}

/// Polls until it holds. `problem`: what it means if that never comes.
pub fn eventually(mut holds: impl FnMut() -> bool, problem: impl Fn() -> String) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{}", problem());
        std::thread::sleep(POLL);
    }
}

/// A port below those that outgoing connections are given: nobody may sit on a slave's ports when
/// it opens them. Each is this test process's own, by a lock, for as long as it lives.
fn free_listener() -> TcpListener {
    static OWNED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let directory = std::env::temp_dir().join("understudy-test-ports");
    std::fs::create_dir_all(&directory).unwrap();
    let mut owned = OWNED.lock().unwrap();
    for port in 10_000..30_000 {
        let lock = File::create(directory.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok()
            && let Ok(listener) = TcpListener::bind(("127.0.0.1", port))
        {
            owned.push(lock);
            return listener;
        }
    }
    panic!("no free port");
}

/// For a process that is none of a pair's nodes.
pub fn free_address() -> String {
    free_listener().local_addr().unwrap().to_string()
}

impl Ports {
    pub fn free() -> Self {
        let listeners: Vec<TcpListener> = (0..5).map(|_| free_listener()).collect();
        let address = |n: usize| listeners[n].local_addr().unwrap().to_string();
        Self {
            amqp: address(0),
            stomp: address(1),
            native: address(2),
            http: address(3),
            replication: address(4),
        }
    }

    /// Of a machine that nobody else is on: as clients and as its peer reach it.
    fn on(machine: &str, to_peer: &str) -> Self {
        let address = |port: u16| format!("{machine}:{port}");
        Self {
            amqp: address(5672),
            stomp: address(61613),
            native: address(61616),
            http: address(15672),
            replication: format!("{to_peer}:{REPLICATION_PORT}"),
        }
    }

    pub fn port(address: &str) -> u16 {
        address.rsplit(':').next().unwrap().parse().unwrap()
    }
}

/// A node that can be started, killed and started again on the same ports and data.
pub struct Node {
    pub name: &'static str,
    pub ports: Ports,
    /// Where it runs, if not where the test does.
    pub machine: Option<Arc<Machine>>,
    directory: PathBuf,
    config: String,
    child: Option<Child>,
}

impl Node {
    fn new(
        name: &'static str,
        directory: &std::path::Path,
        ports: Ports,
        replication: &str,
    ) -> Self {
        let role = if name == "slave" || name == "third" { "slave" } else { "master" };
        let config = format!(
            "[broker]\nname = \"{name}\"\nrole = \"{role}\"\ndata_dir = {:?}\n\
             [listen]\namqp = \"{}\"\nstomp = \"{}\"\nnative = \"{}\"\nhttp = \"{}\"\n\
             replication = \"{}\"\n[replication]\n{replication}\n",
            directory.join(name),
            ports.amqp,
            ports.stomp,
            ports.native,
            ports.http,
            ports.replication,
        );
        let directory = directory.to_owned();
        Self { name, ports, machine: None, directory, config, child: None }
    }

    pub fn standalone(directory: &std::path::Path) -> Self {
        Self::new("standalone", directory, Ports::free(), "backend = \"standalone\"")
    }

    /// Reached from inside the network; clients log in as `USER`.
    pub fn standalone_on(machine: Machine, directory: &std::path::Path) -> Self {
        let ports = Ports::on(&machine.address, &machine.address);
        let mut node = Self::new("standalone", directory, ports, "backend = \"standalone\"");
        node.machine = Some(Arc::new(machine));
        node.configure(USERS);
        node
    }

    /// One of the brokers that share the data directory `shared`.
    pub fn sharing(name: &'static str, directory: &std::path::Path) -> Self {
        let replication = "backend = \"shared_storage\"\n";
        let mut node = Self::new(name, directory, Ports::free(), replication);
        let own = format!("{:?}", directory.join(name));
        let shared = format!("{:?}", directory.join("shared"));
        node.config = node.config.replacen(&own, &shared, 1);
        node
    }

    /// A master of a pair of its own.
    pub fn pair_master(name: &'static str, directory: &std::path::Path) -> Self {
        let replication = "backend = \"pair\"\nuser = \"pair\"\npassword = \"secret\"\n";
        Self::new(name, directory, Ports::free(), replication)
    }

    /// More settings, as further TOML sections.
    pub fn configure(&mut self, sections: &str) {
        self.config.push_str(sections);
    }

    /// More keys of the section `[listen]`.
    pub fn listen(&mut self, keys: &str) {
        self.config = self.config.replacen("[listen]\n", &format!("[listen]\n{keys}"), 1);
    }

    /// More keys of the section `[replication]`.
    pub fn replication(&mut self, keys: &str) {
        let section = "[replication]\n";
        self.config = self.config.replacen(section, &format!("{section}{keys}"), 1);
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let config = self.directory.join(format!("{}.toml", self.name));
        std::fs::write(&config, &self.config).unwrap();
        let log = self.directory.join(format!("{}.log", self.name));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
        command
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = match &self.machine {
            Some(machine) => machine.inside(|| command.spawn()),
            None => command.spawn(),
        };
        self.child = Some(child.unwrap());
    }

    /// Starts it and waits until it serves clients.
    pub fn start_serving(&mut self) {
        self.start();
        self.wait("serving", |status| status["serving"] == Value::Bool(true));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running node");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and the exit that follows.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }

    /// TERM, STOP, CONT, …
    pub fn signal(&self, name: &str) {
        let signal = format!("-{name}");
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([&signal, &pid]).status().unwrap().success());
    }

    /// Starts it again if it has ended, as a supervisor would. True if it had.
    pub fn revive(&mut self) -> bool {
        if self.is_running() {
            return false;
        }
        self.child = None;
        self.start();
        true
    }

    /// From its next start on it is the slave of the node at `address`.
    pub fn follow(&mut self, address: &str) {
        self.config = self.config.replace("role = \"master\"", "role = \"slave\"");
        if !self.config.contains("master_uri") {
            self.replication(&format!("master_uri = \"tcp://{address}\"\n"));
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.join(self.name)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running node");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > until {
                let _ = child.kill();
                panic!("{} does not end:\n{}", self.name, self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join(format!("{}.log", self.name)))
            .unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.ports.http)
    }

    pub fn status(&self) -> Option<Value> {
        understudy::cli::status::fetch(&self.url()).ok()
    }

    /// Polls the log until it says that.
    pub fn wait_log(&self, wanted: &str) {
        eventually(
            || self.log().contains(wanted),
            || format!("{} never says {wanted:?}:\n{}", self.name, self.log()),
        );
    }

    /// Polls the status until it is as wanted.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            assert!(self.is_running(), "{} ended, waiting for {what}:\n{}", self.name, self.log());
            assert!(
                Instant::now() < until,
                "{} is not {what}: {status:?}\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(POLL);
        }
    }

    pub fn wait_in_sync(&mut self) {
        self.wait("in-sync", |status| status["state"] == "in-sync");
    }

    /// The status code of `/api/health/ready`.
    pub fn ready(&self) -> u16 {
        use std::io::{Read, Write};
        let mut socket = TcpStream::connect(&self.ports.http).unwrap();
        socket
            .write_all(b"GET /api/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
    }
}

/// A master and a slave.
pub struct Pair {
    pub master: Node,
    pub slave: Node,
    pub directory: tempfile::TempDir,
}

impl Pair {
    /// Not started yet; `master` and `slave` are further lines of `[replication]`.
    pub fn new(master: &str, slave: &str) -> Self {
        Self::at([Ports::free(), Ports::free()], master, slave)
    }

    fn at([one, two]: [Ports; 2], master: &str, slave: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let common = "backend = \"pair\"\nuser = \"pair\"\npassword = \"secret\"\n";
        let uri = format!("master_uri = \"tcp://{}\"\n", one.replication);
        let master = Node::new("master", directory.path(), one, &format!("{common}{master}"));
        let slave = Node::new("slave", directory.path(), two, &format!("{common}{uri}{slave}"));
        Self { master, slave, directory }
    }

    pub fn in_sync() -> Self {
        let mut pair = Self::new("", "");
        pair.start_in_sync();
        pair
    }

    /// The nodes reach each other only by these: the master's side first, then the slave's.
    pub fn over_wires() -> (Self, [Wire; 2]) {
        let pair = Self::new("", "");
        let wires = [&pair.master, &pair.slave].map(|node| Wire::to(&node.ports.replication));
        let Self { mut master, mut slave, directory } = pair;
        let to_master = format!("tcp://{}", master.ports.replication);
        slave.config = slave.config.replace(&to_master, &format!("tcp://{}", wires[0].address));
        for (node, wire) in [&mut master, &mut slave].into_iter().zip(&wires) {
            node.config.push_str(&format!("advertised_uri = \"tcp://{}\"\n", wire.address));
        }
        (Self { master, slave, directory }, wires)
    }

    /// The nodes reach each other only by the link; its first end is the master's. Clients log in
    /// as `USER`. With a network the nodes are on machines of their own, which are reached from
    /// inside of it.
    pub fn over_link(network: Option<&Network>) -> (Self, Link) {
        let (mut pair, link) = match network {
            None => {
                let (pair, wires) = Self::over_wires();
                (pair, Link::Wires(wires.into()))
            }
            Some(network) => {
                let (pair, cable) = Self::over_cable(network);
                (pair, Link::Cable(cable))
            }
        };
        pair.master.configure(USERS);
        pair.slave.configure(USERS);
        (pair, link)
    }

    fn over_cable(network: &Network) -> (Self, Cable) {
        let machines = [network.machine(), network.machine()];
        let cable = network.cable([&machines[0], &machines[1]]);
        let ports = [0, 1].map(|end| Ports::on(&machines[end].address, &cable.addresses[end]));
        let mut pair = Self::at(ports, "", "");
        for (node, machine) in [&mut pair.master, &mut pair.slave].into_iter().zip(machines) {
            node.machine = Some(Arc::new(machine));
        }
        (pair, cable)
    }

    pub fn start_in_sync(&mut self) {
        self.master.start();
        self.slave.start();
        self.master.wait_in_sync();
        self.slave.wait_in_sync();
    }

    /// Another slave for the same master.
    pub fn third(&self, replication: &str) -> Node {
        let uri = format!("master_uri = \"tcp://{}\"\n", self.master.ports.replication);
        let lines = format!("backend = \"pair\"\n{uri}{replication}");
        Node::new("third", self.directory.path(), Ports::free(), &lines)
    }
}

/// Nobody listens there.
pub fn is_refused(address: &str) -> bool {
    matches!(
        TcpStream::connect(address),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused
    )
}
