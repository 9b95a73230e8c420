//! A pair and an arbiter as real processes, the nodes' link and each node's way to the arbiter over
//! wires that can be cut.

use crate::support::stomp::Stomp;
use crate::support::wire::Wire;
use crate::support::{Node, PATIENCE, Pair, arbiter, eventually, free_address};
use base64::Engine;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Short, for the tests' sake: the arbiter keeps a lease of it for 3.25 s.
const LEASE: &str = "lease_ms = 1500\n";
const HOLD: Duration = Duration::from_millis(3_250);
/// etcd's with `lease_ms = 2000`.
const ETCD_HOLD: Duration = Duration::from_secs(4);

pub(crate) struct Arbiter {
    pub(crate) address: String,
    directory: tempfile::TempDir,
    /// Beyond what each has.
    settings: Vec<String>,
    child: Option<Child>,
}

impl Arbiter {
    fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// `settings`: KEY=VALUE.
    pub(crate) fn start_with(settings: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut arbiter = Self { address: free_address(), directory, settings, child: None };
        arbiter.restart();
        arbiter
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn restart(&mut self) {
        let directory = self.directory.path();
        let log = File::create(directory.join("log")).unwrap();
        self.child = Some(arbiter::spawn(&self.address, directory, &self.settings, log.into()));
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("a running arbiter");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Debian's etcd, one member.
pub(crate) struct Etcd {
    address: String,
    pub(crate) tls_address: String,
    directory: tempfile::TempDir,
    child: Child,
}

impl Etcd {
    /// Listens in clear, and with TLS; its certificate is `ca.pem`. None without an etcd.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = rcgen::generate_simple_self_signed(hosts).unwrap();
        let [certificate, key] = ["ca.pem", "key.pem"].map(|file| directory.path().join(file));
        std::fs::write(&certificate, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        Self::start_with(directory, &certificate, &key, &[])
    }

    /// `arguments`: further ones. None without an etcd.
    pub(crate) fn start_with(
        directory: tempfile::TempDir,
        certificate: &Path,
        key: &Path,
        arguments: &[&str],
    ) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED etcd: install Debian's etcd-server");
            return None;
        }
        let [address, tls_address, peers] = [(); 3].map(|()| free_address());
        let clients = format!("http://{address},https://{tls_address}");
        let peers = format!("http://{peers}");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .arg("--cert-file")
            .arg(certificate)
            .arg("--key-file")
            .arg(key)
            .args(arguments)
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { address, tls_address, directory, child };
        let listens = || std::net::TcpStream::connect(&etcd.address).is_ok();
        eventually(listens, || "etcd does not listen".to_owned());
        Some(etcd)
    }

    fn administrate(&self, what: &str, body: &str) {
        let mut socket = std::net::TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST /v3/auth/{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        let length = body.len();
        write!(socket, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
    }

    /// From here on only root, and `pair` below the keys of one register, may do anything.
    fn demand_passwords(&self, register: &str) {
        let [first, end] = ["/", "0"].map(|end| {
            base64::prelude::BASE64_STANDARD.encode(format!("/understudy/{register}{end}"))
        });
        for name in ["root", "pair"] {
            self.administrate("user/add", &format!(r#"{{"name":"{name}","password":"third"}}"#));
            self.administrate("role/add", &format!(r#"{{"name":"{name}"}}"#));
            self.administrate("user/grant", &format!(r#"{{"user":"{name}","role":"{name}"}}"#));
        }
        let keys = format!(r#"{{"permType":"READWRITE","key":"{first}","range_end":"{end}"}}"#);
        self.administrate("role/grant", &format!(r#"{{"name":"pair","perm":{keys}}}"#));
        self.administrate("enable", "{}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn section(address: &str) -> String {
    format!(
        "[arbiter]\nkind = \"understudy\"\nuri = \"tcp://{address}\"\nuser = \"arbiter\"\n\
         password = \"third\"\n{LEASE}"
    )
}

/// The pair in-sync; its wires, and each node's wire to the arbiter.
fn in_sync() -> (Pair, [Wire; 2], Arbiter, [Wire; 2]) {
    let arbiter = Arbiter::start();
    let (mut pair, links) = Pair::over_wires();
    let ways = [0, 1].map(|_| Wire::to(&arbiter.address));
    for (node, way) in [&mut pair.master, &mut pair.slave].into_iter().zip(&ways) {
        node.configure(&section(&way.address));
    }
    pair.start_in_sync();
    (pair, links, arbiter, ways)
}

fn numbered(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|n| format!("m{n}"))
}

fn publish(node: &Node, from: usize, to: usize) {
    Stomp::connect(&node.ports.stomp).publish("/queue/q", numbered(from, to));
}

fn holds(node: &Node, count: usize) {
    let bodies = Stomp::connect(&node.ports.stomp).consume("/queue/q", count);
    assert!(bodies.into_iter().eq(numbered(0, count)), "all that was confirmed, in order");
}

pub(crate) fn wait_serving(node: &mut Node) {
    node.wait("serving", |status| status["serving"] == true);
}

#[test]
fn a_killed_master_is_replaced_when_its_lease_ends_and_a_killed_slave_is_left_behind() {
    let (mut pair, _links, _arbiter, _ways) = in_sync();
    publish(&pair.master, 0, 200);
    pair.master.kill();
    let killed = Instant::now();
    wait_serving(&mut pair.slave);
    assert!(killed.elapsed() > HOLD / 3, "not before the lease ends: {:?}", killed.elapsed());
    publish(&pair.slave, 200, 300);
    pair.master.start();
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    pair.master.kill();
    publish(&pair.slave, 300, 400);
    pair.slave.wait("alone", |status| status["state"] == "alone" && status["serving"] == true);
    holds(&pair.slave, 400);
}

#[test]
fn a_partition_never_makes_two_masters_and_loses_nothing() {
    let (mut pair, links, _arbiter, ways) = in_sync();
    publish(&pair.master, 0, 200);
    links.iter().for_each(Wire::cut);
    pair.master.wait("alone", |status| status["state"] == "alone" && status["serving"] == true);
    publish(&pair.master, 200, 300);
    std::thread::sleep(2 * HOLD);
    assert_eq!(pair.slave.status().unwrap()["serving"], false);
    links.iter().for_each(Wire::heal);
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    // Now the master loses the arbiter, too: it serves nobody before the slave serves.
    ways[0].cut();
    links.iter().for_each(Wire::cut);
    let serves = |node: &Node| node.status().is_some_and(|status| status["serving"] == true);
    eventually(|| serves(&pair.slave), || pair.slave.log());
    // Asked in this order: once the slave serves, the master has stopped.
    assert!(!serves(&pair.master), "two masters");
    publish(&pair.slave, 300, 400);
    links.iter().for_each(Wire::heal);
    pair.master.wait_in_sync();
    assert_eq!(pair.master.status().unwrap()["role"], "slave");
    holds(&pair.slave, 400);
}

#[test]
fn a_stopped_master_serves_nobody_when_it_goes_on() {
    let (mut pair, _links, _arbiter, _ways) = in_sync();
    publish(&pair.master, 0, 200);
    pair.master.signal("STOP");
    wait_serving(&mut pair.slave);
    publish(&pair.slave, 200, 300);
    pair.master.signal("CONT");
    // What it tells first may be of before its stop.
    pair.master.wait("a slave in-sync", |status| {
        status["role"] == "slave" && status["state"] == "in-sync"
    });
    pair.slave.wait_in_sync();
    holds(&pair.slave, 300);
}

#[test]
fn a_connected_pair_does_not_miss_its_arbiter_and_a_second_failure_waits_for_it() {
    let (mut pair, _links, mut arbiter, _ways) = in_sync();
    arbiter.kill();
    pair.master.wait("without arbiter", |status| status["arbiter"] == "silent");
    std::thread::sleep(2 * HOLD);
    publish(&pair.master, 0, 200);
    let status = pair.master.status().unwrap();
    assert!(status["state"] == "in-sync" && status["serving"] == true, "{status}");
    pair.master.kill();
    std::thread::sleep(2 * HOLD + Duration::from_secs(3));
    assert_eq!(pair.slave.status().unwrap()["serving"], false);
    arbiter.restart();
    wait_serving(&mut pair.slave);
    holds(&pair.slave, 200);
}

#[test]
fn a_node_of_another_pair_is_refused_at_its_start() {
    let (mut pair, _links, arbiter, _ways) = in_sync();
    let mut stranger = Node::pair_master("stranger", pair.directory.path());
    stranger.configure(&section(&arbiter.address));
    stranger.start();
    assert!(!stranger.wait_exit().success());
    assert!(stranger.log().contains("another pair"), "{}", stranger.log());
    pair.master.wait_in_sync();
}

/// Until the log of a node that serves nobody tells why.
pub(crate) fn wait_refused(node: &Node, why: &str) {
    node.wait_log(why);
    assert_eq!(node.status().unwrap()["serving"], false);
}

#[test]
fn etcd_is_an_arbiter_too() {
    let Some(etcd) = Etcd::start() else { return };
    let (mut pair, links) = Pair::over_wires();
    for node in [&mut pair.master, &mut pair.slave] {
        node.configure(&format!(
            "[arbiter]\nkind = \"etcd\"\nuri = \"http://{}\"\nlease_ms = 2000\n",
            etcd.address
        ));
    }
    pair.start_in_sync();
    publish(&pair.master, 0, 100);
    // Away for longer than its lease: nothing happens while the nodes reach each other.
    etcd.signal("-STOP");
    pair.master.wait("without etcd", |status| status["arbiter"] == "silent");
    let until = Instant::now() + ETCD_HOLD;
    let mut published = 100;
    while Instant::now() < until {
        let status = pair.master.status().unwrap();
        assert!(status["state"] == "in-sync" && status["serving"] == true, "{status}");
        publish(&pair.master, published, published + 10);
        published += 10;
    }
    etcd.signal("-CONT");
    // Its lease has ended there meanwhile, and is taken again.
    pair.master.wait("with etcd", |status| status["arbiter"] == "answers");
    // A cut: the master goes on, the slave asks and is refused.
    links.iter().for_each(Wire::cut);
    pair.master.wait("alone", |status| status["state"] == "alone" && status["serving"] == true);
    publish(&pair.master, published, published + 100);
    published += 100;
    wait_refused(&pair.slave, "not in the in-sync set");
    assert!(!pair.master.log().contains("stepping down"), "{}", pair.master.log());
    links.iter().for_each(Wire::heal);
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    // A death: the slave takes over when etcd's lease has ended.
    pair.master.kill();
    let killed = Instant::now();
    wait_serving(&mut pair.slave);
    assert!(killed.elapsed() > ETCD_HOLD / 3, "not before the lease ends: {:?}", killed.elapsed());
    publish(&pair.slave, published, published + 100);
    published += 100;
    pair.master.start();
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    // An end in order gives the lease back.
    pair.slave.terminate();
    let ended = Instant::now();
    wait_serving(&mut pair.master);
    assert!(ended.elapsed() < ETCD_HOLD / 2, "the lease was given back: {:?}", ended.elapsed());
    holds(&pair.master, published);
}

#[test]
fn etcd_is_asked_over_tls_and_with_a_password_and_a_wrong_one_is_no_voice() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.demand_passwords("orders");
    let mut pair = Pair::new("", "");
    let section = |password: &str| {
        format!(
            "[arbiter]\nkind = \"etcd\"\nuri = \"https://{}\"\ntls_ca_file = {:?}\n\
             register = \"orders\"\nuser = \"pair\"\npassword = \"{password}\"\n",
            etcd.tls_address,
            etcd.directory.path().join("ca.pem"),
        )
    };
    for node in [&mut pair.master, &mut pair.slave] {
        node.configure(&section("third"));
    }
    pair.start_in_sync();
    publish(&pair.master, 0, 100);
    pair.master.terminate();
    wait_serving(&mut pair.slave);
    publish(&pair.slave, 100, 200);
    holds(&pair.slave, 200);
    let mut stranger = Pair::new("", "");
    stranger.master.configure(&section("wrong"));
    stranger.master.start();
    wait_refused(&stranger.master, "authentication failed");
}
