//! Master and slave as two processes: takeover, return, and what the `shutdown_on_…_failure` flags say.

use crate::support::stomp::Stomp;
use crate::support::{Node, Pair, is_refused};
use std::process::Command;
use std::time::{Duration, Instant};

fn numbered(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|n| format!("m{n}"))
}

#[test]
fn the_slave_refuses_clients_until_it_takes_over_and_then_has_everything() {
    let mut pair = Pair::in_sync();
    for address in [&pair.slave.ports.amqp, &pair.slave.ports.stomp, &pair.slave.ports.native] {
        assert!(is_refused(address), "{address} is open at the slave");
    }
    assert_eq!((pair.master.ready(), pair.slave.ready()), (200, 503));
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", numbered(0, 1_000));
    pair.master.kill();
    let killed = Instant::now();
    let status = pair.slave.wait("serving", |status| status["serving"] == true);
    assert!(killed.elapsed() < Duration::from_secs(2), "took {:?}", killed.elapsed());
    assert_eq!(
        (status["role"].as_str(), status["state"].as_str()),
        (Some("master"), Some("alone"))
    );
    let mut stomp = Stomp::connect(&pair.slave.ports.stomp);
    let bodies = stomp.consume("/queue/q", 1_000);
    assert!(bodies.iter().cloned().eq(numbered(0, 1_000)));
}

#[test]
fn roles_alternate_as_nodes_die_and_come_back_and_nothing_confirmed_is_lost() {
    let mut pair = Pair::in_sync();
    let mut published = 0;
    for _ in 0..4 {
        let mut stomp = Stomp::connect(&pair.master.ports.stomp);
        stomp.publish("/queue/q", numbered(published, published + 200));
        published += 200;
        pair.master.kill();
        pair.slave.wait("serving", |status| status["serving"] == true);
        pair.master.start();
        pair.master.wait_in_sync();
        pair.slave.wait_in_sync();
        assert!(is_refused(&pair.master.ports.stomp), "the old master follows");
        // From here on the former slave is the one that sits.
        let Pair { master, slave, .. } = &mut pair;
        std::mem::swap(master, slave);
    }
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    let bodies = stomp.consume("/queue/q", published);
    assert!(bodies.iter().cloned().eq(numbered(0, published)));
}

/// A verb, as an operator types it.
fn verb_command(pair: &Pair, node: &Node, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
    command.args(words).arg("--data-dir").arg(pair.directory.path().join(node.name));
    command
}

fn verb(pair: &Pair, node: &Node, words: &[&str]) -> std::process::Output {
    verb_command(pair, node, words).output().unwrap()
}

fn says(output: &std::process::Output, text: &str) -> bool {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).contains(text)
}

#[test]
fn a_waiting_slave_is_promoted_by_hand() {
    let mut pair = Pair::in_sync();
    assert!(verb(&pair, &pair.slave, &["await_in_sync"]).status.success());
    let status = verb(&pair, &pair.slave, &["replication_status"]);
    assert!(says(&status, "role\tslave") && says(&status, "peer.in_sync\ttrue"), "{status:?}");
    for node in [&pair.master, &pair.slave] {
        let refused = verb(&pair, node, &["promote", "--force"]);
        assert!(!refused.status.success(), "{refused:?}");
        assert!(says(&refused, "promotion refused: "), "{refused:?}");
    }
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", numbered(0, 100));
    pair.master.kill();
    pair.slave.kill();
    pair.slave.start();
    pair.slave.wait("waiting", |status| status["state"] == "waiting");
    let late = verb(&pair, &pair.slave, &["await_in_sync", "--timeout", "1"]);
    assert_eq!(late.status.code(), Some(75), "{late:?}");
    let done = verb(&pair, &pair.slave, &["promote"]);
    assert!(done.status.success(), "{done:?}");
    pair.slave.wait("serving", |status| status["serving"] == true);
    let mut stomp = Stomp::connect(&pair.slave.ports.stomp);
    assert!(stomp.consume("/queue/q", 100).iter().cloned().eq(numbered(0, 100)));
    // A script may wait for a node that it has only begun to start.
    let mut waits = verb_command(&pair, &pair.master, &["await_in_sync"]).spawn().unwrap();
    pair.master.start();
    assert!(waits.wait().unwrap().success());
    pair.master.kill();
    let off = verb(&pair, &pair.master, &["await_in_sync", "--timeout", "1"]);
    assert_eq!(off.status.code(), Some(69), "{off:?}");
}

#[test]
fn a_switchover_swaps_the_roles_and_a_restart_keeps_them() {
    let mut pair = Pair::in_sync();
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", numbered(0, 500));
    let refused = verb(&pair, &pair.slave, &["switchover"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(says(&refused, "this is the slave"), "{refused:?}");
    let done = verb(&pair, &pair.master, &["switchover"]);
    assert!(done.status.success(), "{done:?}");
    pair.slave.wait("serving", |status| status["serving"] == true);
    assert!(is_refused(&pair.master.ports.stomp), "the old master follows");
    pair.slave.wait_in_sync();
    // Both stop in order and start in the other order: what is on disk decides, not the file.
    pair.master.kill();
    pair.slave.kill();
    pair.slave.start();
    pair.master.start();
    pair.slave.wait("serving", |status| status["serving"] == true);
    pair.slave.wait_in_sync();
    pair.master.wait_in_sync();
    let back = verb(&pair, &pair.slave, &["switchover"]);
    assert!(back.status.success(), "{back:?}");
    pair.master.wait("serving", |status| status["serving"] == true);
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    assert!(stomp.consume("/queue/q", 500).iter().cloned().eq(numbered(0, 500)));
}

#[test]
fn a_master_goes_on_alone_and_takes_its_slave_back() {
    let mut pair = Pair::in_sync();
    pair.slave.kill();
    let mut stomp = Stomp::connect(&pair.master.ports.stomp);
    stomp.publish("/queue/q", numbered(0, 100));
    pair.master.wait("alone", |status| status["state"] == "alone");
    pair.slave.start();
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let mut stomp = Stomp::connect(&pair.slave.ports.stomp);
    assert_eq!(stomp.consume("/queue/q", 100).len(), 100);
}

#[test]
fn a_slave_told_so_stops_with_its_master() {
    let mut pair = Pair::new("", "shutdown_on_master_failure = true");
    pair.start_in_sync();
    pair.master.kill();
    assert!(pair.slave.wait_exit().success());
}

#[test]
fn a_master_told_so_stops_with_its_slave() {
    let mut pair = Pair::new("shutdownOnSlaveFailure = true", "");
    pair.start_in_sync();
    pair.slave.kill();
    let _ = pair.master.wait_exit();
}

#[test]
fn a_slave_that_is_stopped_in_order_does_not_stop_its_master() {
    let flags = "shutdown_on_slave_failure = true\nshutdown_on_master_failure = true";
    let mut pair = Pair::new(flags, flags);
    pair.start_in_sync();
    assert!(pair.slave.terminate().success());
    pair.master.wait("alone", |status| status["state"] == "alone");
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 50));
    pair.slave.start();
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
    pair.slave.kill();
    assert!(pair.master.wait_exit().success());
}

#[test]
fn a_master_that_waits_for_its_slave_lets_nobody_in_before() {
    let mut pair = Pair::new("wait_for_slave = true", "");
    pair.master.start();
    pair.master.wait("waiting", |status| status["state"] == "waiting");
    assert!(is_refused(&pair.master.ports.stomp));
    assert_eq!(pair.master.ready(), 503);
    pair.slave.start();
    pair.master.wait("serving", |status| status["serving"] == true);
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 1));
}

#[test]
fn a_master_stops_cleanly_and_its_slave_takes_over() {
    let mut pair = Pair::in_sync();
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 50));
    assert!(pair.master.terminate().success());
    pair.slave.wait("serving", |status| status["serving"] == true);
    let mut stomp = Stomp::connect(&pair.slave.ports.stomp);
    assert_eq!(stomp.consume("/queue/q", 50).len(), 50);
}

#[test]
fn a_wrong_password_makes_no_slave_and_disturbs_nobody() {
    let mut pair = Pair::new("", "");
    pair.master.start_serving();
    let mut stranger = pair.third("user = \"pair\"\npassword = \"wrong\"\n");
    stranger.start();
    stranger.wait_log("wrong replication user or password");
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 10));
    assert_eq!(pair.master.status().unwrap()["state"], "alone");
    assert_ne!(stranger.status().unwrap()["state"], "in-sync");
}

#[test]
fn a_second_slave_is_refused_and_the_first_is_untouched() {
    let pair = Pair::in_sync();
    let mut second = pair.third("user = \"pair\"\npassword = \"secret\"\n");
    second.start();
    assert!(!second.wait_exit().success());
    assert!(second.log().contains("slave"), "{}", second.log());
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", numbered(0, 10));
    assert_eq!(pair.master.status().unwrap()["state"], "in-sync");
    assert_eq!(pair.slave.status().unwrap()["state"], "in-sync");
}
