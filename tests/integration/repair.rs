//! Bytes of the data files are flipped while a node is down: what it finds then is fetched from the
//! other node, and without one it stops. Nothing is handed out wrong, skipped or lost.

use crate::support::stomp::Stomp;
use crate::support::{Node, Pair};
use serde_json::Value;
use std::path::Path;

/// Distinct bodies of a few kilobytes: each piece of the log holds some of them.
fn bodies(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|n| format!("<{n}>").repeat(500))
}

/// Flips a bit of the message in the file, in whatever page a copy of it lies.
fn corrupt(data_dir: &Path, message: usize) {
    let path = data_dir.join("log/data.mdb");
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = format!("<{message}>").repeat(100);
    let mut found = 0;
    let mut at = 0;
    while let Some(next) = bytes[at..].windows(needle.len()).position(|w| w == needle.as_bytes()) {
        bytes[at + next + 1] ^= 1;
        found += 1;
        at += next + needle.len() * 5;
    }
    assert!(found > 0, "message {message} is not in {}", path.display());
    std::fs::write(path, bytes).unwrap();
}

const SCRUB_AT_ONCE: &str = "[storage]\nscrub_bytes_per_second = 1000000000\n";
const NO_SCRUB: &str = "[storage]\nscrub_bytes_per_second = 0\n";

fn pair(storage: &str) -> Pair {
    let mut pair = Pair::new("", "");
    pair.master.configure(storage);
    pair.slave.configure(storage);
    pair.start_in_sync();
    pair
}

fn is_repaired(status: &Value) -> bool {
    status["repair"]["damaged"] == 0 && status["repair"]["repaired"].as_u64() > Some(0)
}

#[test]
fn a_slaves_damaged_log_is_found_by_the_scrub_and_fetched_from_the_master() {
    let mut pair = pair(SCRUB_AT_ONCE);
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    for round in 0..3 {
        stomp.publish("/queue/q", bodies(round * 100, round * 100 + 100));
    }
    assert!(pair.slave.terminate().success());
    for message in [10, 150] {
        corrupt(&pair.directory.path().join("slave"), message);
    }
    stomp.publish("/queue/q", bodies(300, 400));
    pair.slave.start();
    pair.slave.wait_in_sync();
    let status = pair.slave.wait("repaired", |status| {
        is_repaired(status) && status["scrub"]["passes"].as_u64() > Some(0)
    });
    assert!(status["repair"]["repaired"].as_u64() >= Some(2), "{status}");
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let mut stomp = Stomp::connect(&pair.slave.ports.stomp);
    assert!(stomp.consume("/queue/q", 400).into_iter().eq(bodies(0, 400)));
}

#[test]
fn a_slave_whose_log_cannot_be_read_at_start_takes_a_whole_copy() {
    let mut pair = pair(NO_SCRUB);
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", bodies(0, 300));
    // Killed, it has its state to make from the log.
    pair.slave.kill();
    corrupt(&pair.directory.path().join("slave"), 150);
    stomp.publish("/queue/q", bodies(300, 400));
    pair.slave.start();
    pair.slave.wait_in_sync();
    assert!(pair.slave.log().contains("is damaged: checksum of a piece: a whole copy"));
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let mut stomp = Stomp::connect(&pair.slave.ports.stomp);
    assert!(stomp.consume("/queue/q", 400).into_iter().eq(bodies(0, 400)));
}

#[test]
fn a_masters_damaged_message_waits_for_the_slave_and_others_go_on() {
    let mut pair = pair(NO_SCRUB);
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", bodies(0, 200));
    stomp.publish("/queue/other", bodies(1_000, 1_010));
    // The slave leaves, so the master goes on alone; then it stops, too.
    assert!(pair.slave.terminate().success());
    pair.master.wait("alone", |status| status["state"] == "alone");
    assert!(pair.master.terminate().success());
    corrupt(&pair.directory.path().join("master"), 120);
    pair.master.start_serving();
    let address = pair.master.ports.stomp.clone();
    let consumer = std::thread::spawn(move || Stomp::connect(&address).consume("/queue/q", 200));
    pair.master.wait("damaged", |status| status["repair"]["damaged"] == 1);
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    assert!(stomp.consume("/queue/other", 10).into_iter().eq(bodies(1_000, 1_010)));
    pair.slave.start();
    assert!(consumer.join().unwrap().into_iter().eq(bodies(0, 200)));
    pair.master.wait("repaired", is_repaired);
    pair.master.wait_in_sync();
}

#[test]
fn a_standalone_broker_stops_at_a_damaged_message_and_hands_out_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure(NO_SCRUB);
    node.start_serving();
    Stomp::connect(&node.ports.stomp).publish("/queue/q", bodies(0, 200));
    assert!(node.terminate().success());
    corrupt(&directory.path().join("standalone"), 120);
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    stomp.send("SUBSCRIBE\nid:1\ndestination:/queue/q\nack:auto\n\n");
    let status = node.wait_exit();
    assert!(!status.success());
    let log = node.log();
    assert!(log.contains("is damaged (checksum of a piece)"), "{log}");
    assert!(log.contains("cannot be handed out"), "{log}");
    // What came before it stopped is a part of the front, unchanged.
    let received = stomp.rest();
    assert!(received.len() <= 120 && received.into_iter().zip(bodies(0, 120)).all(|(a, b)| a == b));
}

#[test]
fn a_standalone_broker_finds_damage_by_the_scrub_and_does_not_mind_dead_messages() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure(SCRUB_AT_ONCE);
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    stomp.publish("/queue/q", bodies(0, 100));
    assert!(stomp.consume("/queue/q", 100).into_iter().eq(bodies(0, 100)));
    drop(stomp);
    node.wait("settled", |status| status["counts"]["messages"] == 0);
    let mut stomp = Stomp::connect(&node.ports.stomp);
    stomp.publish("/queue/q", bodies(100, 200));
    node.wait("stored", |status| status["counts"]["messages"] == 100);
    assert!(node.terminate().success());
    corrupt(&directory.path().join("standalone"), 20);
    node.start_serving();
    node.wait("repaired", is_repaired);
    let mut stomp = Stomp::connect(&node.ports.stomp);
    assert!(stomp.consume("/queue/q", 100).into_iter().eq(bodies(100, 200)));
    drop(stomp);
    let mut stomp = Stomp::connect(&node.ports.stomp);
    stomp.publish("/queue/q", bodies(200, 210));
    assert!(node.terminate().success());
    corrupt(&directory.path().join("standalone"), 205);
    node.start();
    assert!(!node.wait_exit().success());
    let log = node.log();
    assert!(log.contains("of q (vhost /) cannot be handed out"), "{log}");
}

const SAVE_AT_ONCE: &str = "[storage]\nscrub_bytes_per_second = 0\nsave_after_bytes = 4096\n";
const NAMED: &str = "a-queue-whose-name-is-found-in-the-saved-state";

/// Flips a bit of what the saved state says of the queue.
fn corrupt_state(data_dir: &Path) {
    let path = data_dir.join("state/data.mdb");
    let mut bytes = std::fs::read(&path).unwrap();
    let found: Vec<usize> = (0..bytes.len() - NAMED.len())
        .filter(|at| bytes[*at..].starts_with(NAMED.as_bytes()))
        .collect();
    assert!(!found.is_empty(), "nothing is saved in {}", path.display());
    found.into_iter().for_each(|at| bytes[at + 2] ^= 1);
    std::fs::write(path, bytes).unwrap();
}

fn queue() -> String {
    format!("/queue/{NAMED}")
}

fn holds_all(node: &Node, count: usize) {
    let mut stomp = Stomp::connect(&node.ports.stomp);
    assert!(stomp.consume(&queue(), count).into_iter().eq(bodies(0, count)));
}

#[test]
fn damaged_saved_state_is_made_anew_from_a_log_that_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure(SAVE_AT_ONCE);
    node.start_serving();
    Stomp::connect(&node.ports.stomp).publish(&queue(), bodies(0, 100));
    assert!(node.terminate().success());
    corrupt_state(&directory.path().join("standalone"));
    node.start_serving();
    assert!(node.log().contains("state is made anew from the log"), "{}", node.log());
    holds_all(&node, 100);
    // It is saved anew, too.
    assert!(node.terminate().success());
    node.start_serving();
    assert_eq!(node.log().matches("state is made anew").count(), 1, "{}", node.log());
}

/// The log of a node that took a copy begins behind it, so it cannot give the state again.
#[test]
fn damaged_saved_state_without_the_whole_log_is_copied_from_the_peer_or_keeps_the_node_down() {
    let mut pair = pair(SAVE_AT_ONCE);
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish(&queue(), bodies(0, 100));
    let verb = std::process::Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["resync", "-D"])
        .arg(pair.slave.data_dir())
        .output()
        .unwrap();
    assert!(verb.status.success(), "{verb:?}");
    pair.slave.wait_in_sync();
    stomp.publish(&queue(), bodies(100, 200));
    assert!(pair.slave.terminate().success());
    corrupt_state(&pair.directory.path().join("slave"));
    pair.slave.start();
    pair.slave.wait_in_sync();
    assert!(pair.slave.log().contains("a whole copy is taken"), "{}", pair.slave.log());
    stomp.publish(&queue(), bodies(200, 300));
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    holds_all(&pair.slave, 300);
    // Now nobody else has it.
    assert!(pair.slave.terminate().success());
    corrupt_state(&pair.directory.path().join("slave"));
    let before = pair.slave.log().len();
    pair.slave.start();
    assert!(!pair.slave.wait_exit().success());
    let log = pair.slave.log();
    assert!(log[before..].contains("state"), "{}", &log[before..]);
}
