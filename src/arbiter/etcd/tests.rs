//! The seam's promises, kept by a real etcd (Debian's, which .ci/run installs).

use super::Etcd;
use crate::config::{ArbiterKind, ArbiterSettings};
use crate::peer::Security;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use understudy_model::{Epoch, NodeId};
use understudy_replication::{ArbiterAnswer, ArbiterCall, Held, Register};

struct Server {
    address: String,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    /// None without an etcd; `.ci/run` fails on what was skipped.
    #[allow(clippy::print_stdout, reason = "tells what was skipped")]
    fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED etcd: install Debian's etcd-server");
            return None;
        }
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < until, "etcd does not start");
            let mut server = Self::spawn();
            // One whose port was taken meanwhile ends.
            while server.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&server.address).is_ok() {
                    return Some(server);
                }
                assert!(Instant::now() < until, "etcd does not listen");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn spawn() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, peers] = listeners.map(|l| l.local_addr().unwrap().to_string());
        let (clients, peers) = (format!("http://{address}"), format!("http://{peers}"));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { address, child, _directory: directory }
    }

    fn client(&self, node: &str) -> Etcd {
        let settings = ArbiterSettings {
            kind: ArbiterKind::None,
            register: "pair".into(),
            user: String::new(),
            password: String::new(),
            tls: None,
            lease_ms: 2_000,
        };
        Etcd::new(&settings, std::slice::from_ref(&self.address), None, Security::clear(), node)
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const fn epoch(number: u64) -> Epoch {
    Epoch { number, generation: 1 }
}

fn register(leader: u128, number: u64) -> Register {
    Register { cluster: 1, epoch: epoch(number), leader: NodeId(leader), slave: Some(NodeId(9)) }
}

fn swap(expected: u64, register: Register) -> ArbiterCall {
    ArbiterCall::Swap { expected, register, lease_ms: 60_000, force: false }
}

fn renew(leader: u128, number: u64) -> ArbiterCall {
    ArbiterCall::Renew { leader: NodeId(leader), epoch: epoch(number), lease_ms: 60_000 }
}

async fn told(client: &mut Etcd, call: ArbiterCall) -> (bool, Option<Held>) {
    match client.call(&call).await.unwrap() {
        ArbiterAnswer::Told { done, held } => (done, held),
        ArbiterAnswer::Silent => panic!("silence is an error here"),
    }
}

async fn version(client: &mut Etcd) -> u64 {
    told(client, ArbiterCall::Read).await.1.map_or(0, |held| held.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_is_compared_by_version_and_a_lease_keeps_the_other_node_out() {
    let Some(server) = Server::start() else { return };
    let (mut one, mut two) = (server.client("one"), server.client("two"));
    assert_eq!(told(&mut one, ArbiterCall::Read).await, (true, None));
    assert!(!told(&mut one, renew(1, 1)).await.0, "there is no register");
    assert!(told(&mut one, swap(0, register(1, 1))).await.0);
    assert!(!told(&mut two, swap(0, register(2, 2))).await.0, "the version has moved on");
    let first = version(&mut two).await;
    assert!(!told(&mut two, swap(first, register(2, 2))).await.0, "the lease lives");
    let (done, held) = told(&mut one, renew(1, 1)).await;
    let held = held.unwrap();
    assert!(done && held.register == register(1, 1) && held.version == first);
    assert!(held.lease_ms > 0);
    assert!(!told(&mut two, renew(2, 1)).await.0);
    // Given back: only by who leads.
    let release = |leader| ArbiterCall::Release { leader: NodeId(leader), epoch: epoch(1) };
    assert!(!told(&mut two, release(2)).await.0);
    let (done, held) = told(&mut one, release(1)).await;
    assert!(done && held.unwrap().lease_ms == 0);
    assert!(told(&mut two, swap(first, register(2, 2))).await.0);
    assert!(!told(&mut one, renew(1, 1)).await.0, "replaced");
    // The operator's word.
    let expected = version(&mut one).await;
    let register = register(1, 3);
    let forced = ArbiterCall::Swap { expected, register, lease_ms: 60_000, force: true };
    assert!(told(&mut one, forced).await.0);
    assert!(!told(&mut two, renew(2, 2)).await.0, "replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_the_keys_own_is_not_taken_for_it() {
    let Some(server) = Server::start() else { return };
    let mut one = server.client("one");
    assert!(told(&mut one, swap(0, register(1, 1))).await.0);
    // As after a swap whose answer was lost: the key is tied to a later lease than is known here.
    let known = one.lease.clone();
    let expected = version(&mut one).await;
    assert!(told(&mut one, swap(expected, register(1, 2))).await.0);
    one.lease.clone_from(&known);
    assert!(told(&mut one, renew(1, 2)).await.0);
    assert_ne!(one.lease, known, "tied anew");
    // The key is tied to it: it goes with it.
    let ended = serde_json::json!({ "ID": one.lease.clone().unwrap() });
    one.post("/v3/lease/revoke", &ended).await.unwrap();
    assert_eq!(told(&mut one, ArbiterCall::Read).await.1.unwrap().lease_ms, 0);
    // It ended, and nobody took the role.
    assert!(told(&mut one, renew(1, 2)).await.0);
    assert!(told(&mut one, ArbiterCall::Read).await.1.unwrap().lease_ms > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_new_connection_cuts_off_what_its_old_one_still_holds() {
    let Some(server) = Server::start() else { return };
    let (mut old, mut new) = (server.client("one"), server.client("one"));
    told(&mut old, ArbiterCall::Read).await;
    told(&mut new, ArbiterCall::Read).await;
    assert_eq!(told(&mut old, swap(0, register(1, 1))).await, (false, None));
    assert!(told(&mut new, swap(0, register(1, 1))).await.0);
}
