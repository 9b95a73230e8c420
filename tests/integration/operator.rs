//! The operator's verbs about a pair, against real processes.

use crate::support::stomp::Stomp;
use crate::support::{Node, Pair};
use std::process::{Command, Output};

fn numbered(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|n| format!("m{n}"))
}

/// A verb, as an operator types it.
fn verb(pair: &Pair, node: &Node, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(words)
        .arg("--data-dir")
        .arg(pair.directory.path().join(node.name))
        .output()
        .unwrap()
}

fn join(pair: &Pair, node: &Node, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["join", "--config"])
        .arg(pair.directory.path().join(format!("{}.toml", node.name)))
        .args(words)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

fn refused(output: &Output, why: &str) {
    assert!(!output.status.success() && text(output).contains(why), "{}", text(output));
}

#[test]
fn a_resync_gives_the_slave_a_whole_new_copy_and_sets_the_old_data_aside() {
    let mut pair = Pair::in_sync();
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 1_000));
    refused(&verb(&pair, &pair.master, &["resync"]), "resync refused: this is the master");
    done(&verb(&pair, &pair.slave, &["resync"]));
    let status = text(&verb(&pair, &pair.slave, &["replication-status"]));
    assert!(status.contains("copies.begun\t1"), "{status}");
    // The master serves meanwhile.
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(1_000, 1_100));
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    let status = pair.slave.status().unwrap();
    assert!(status["copies"]["bytes"].as_u64().unwrap() > 1_000, "{status}");
    assert!(pair.directory.path().join("slave/diverged-1/log/data.mdb").exists());
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let bodies = Stomp::connect(&pair.slave.ports.stomp).consume("/queue/q", 1_100);
    assert!(bodies.into_iter().eq(numbered(0, 1_100)));
}

#[test]
fn a_forgotten_slave_is_replaced_by_a_new_node_and_comes_back_only_as_a_new_one() {
    let mut pair = Pair::in_sync();
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 100));
    refused(&verb(&pair, &pair.slave, &["forget_slave"]), "not the master");
    refused(&verb(&pair, &pair.master, &["forget_slave"]), "the slave is attached");
    pair.slave.kill();
    pair.master.wait("alone", |status| status["state"] == "alone");
    done(&verb(&pair, &pair.master, &["forget-slave"]));
    done(&verb(&pair, &pair.master, &["forget_slave"]));
    assert_eq!(pair.master.status().unwrap()["peer"]["node_id"], "");
    pair.slave.start();
    assert!(!pair.slave.wait_exit().success());
    assert!(pair.slave.log().contains("FORGOTTEN"), "{}", pair.slave.log());
    let mut third = pair.third("user = \"pair\"\npassword = \"secret\"\n");
    third.start();
    third.wait_in_sync();
    // The new one is gone too; the first comes back, with nothing of what it had.
    third.kill();
    done(&verb(&pair, &pair.master, &["forget_slave", "--force"]));
    refused(&join(&pair, &pair.slave, &[]), "--discard-local-data deletes it");
    done(&join(&pair, &pair.slave, &["--discard-local-data"]));
    pair.slave.start();
    pair.slave.wait_in_sync();
    refused(&join(&pair, &pair.slave, &["--discard-local-data"]), "");
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let bodies = Stomp::connect(&pair.slave.ports.stomp).consume("/queue/q", 100);
    assert!(bodies.into_iter().eq(numbered(0, 100)));
}

#[test]
fn a_master_takes_no_part_in_joining() {
    let mut pair = Pair::new("", "");
    pair.master.start_serving();
    pair.master.kill();
    refused(&join(&pair, &pair.master, &["--discard-local-data"]), "joining is for a slave");
    assert!(pair.directory.path().join("master/log").exists());
}
