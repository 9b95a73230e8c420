//! Two processes on one data directory: one owns it, the other waits.

use crate::support::stomp::Stomp;
use crate::support::{Node, eventually, is_refused};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SECTIONS: &str = "[storage]\nowner_lease_ms = 1000\n";

fn nodes(directory: &std::path::Path) -> [Node; 2] {
    ["one", "two"].map(|name| {
        let mut node = Node::sharing(name, directory);
        node.configure(SECTIONS);
        node
    })
}

fn serves(node: &Node) -> bool {
    node.status().is_some_and(|status| status["serving"] == true)
}

/// Publishes at whoever serves, until told to stop; what was confirmed.
fn publish_until(stop: &AtomicBool, addresses: &[String; 2], confirmed: &Mutex<usize>) {
    let mut next = 0;
    while !stop.load(Ordering::SeqCst) {
        for address in addresses {
            let Some(mut stomp) = Stomp::try_connect(address) else { continue };
            while !stop.load(Ordering::SeqCst) && stomp.try_publish("/queue/q", &format!("m{next}"))
            {
                next += 1;
                *confirmed.lock().unwrap() = next;
            }
            // Whether the last one was taken is not known: it is published again.
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn times_owned(node: &Node) -> usize {
    node.log().matches("the data directory is this node's now").count()
}

/// A signal for the owner, under load; the other one takes over.
fn depose(nodes: &mut [Node; 2], owner: usize, how: &str, confirmed: &Mutex<usize>) {
    let before = *confirmed.lock().unwrap();
    let other = 1 - owner;
    let owned = times_owned(&nodes[other]);
    nodes[owner].signal(how);
    if how == "TERM" || how == "KILL" {
        nodes[owner].wait_exit();
    }
    if how == "STOP" {
        // On one machine it cannot open the store yet if the owner was stopped inside a commit.
        eventually(
            || times_owned(&nodes[other]) > owned,
            || format!("the lease is not taken: {}", nodes[other].log()),
        );
        nodes[owner].signal("CONT");
        assert!(!nodes[owner].wait_exit().success(), "it has lost, so it ends");
    }
    eventually(
        || serves(&nodes[other]),
        || format!("{other} does not serve: {}", nodes[other].log()),
    );
    let confirms = || *confirmed.lock().unwrap() >= before + 20;
    eventually(confirms, || format!("nothing is confirmed after {how}"));
    nodes[owner].start();
    nodes[owner].wait("waiting", |status| status["state"] == "waiting");
}

#[test]
fn three_owners_go_down_under_a_publisher_and_nothing_confirmed_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut nodes = nodes(directory.path());
    nodes[0].start_serving();
    nodes[1].start();
    let status = nodes[1].wait("waiting", |status| status["state"] == "waiting");
    assert_eq!((status["serving"].as_bool(), nodes[1].ready()), (Some(false), 503));
    assert!(is_refused(&nodes[1].ports.stomp));
    let (stop, confirmed) = (AtomicBool::new(false), Mutex::new(0));
    let addresses = [0, 1].map(|n| nodes[n].ports.stomp.clone());
    let owner = std::thread::scope(|scope| {
        scope.spawn(|| publish_until(&stop, &addresses, &confirmed));
        let mut owner = 0;
        for how in ["KILL", "STOP", "TERM"] {
            depose(&mut nodes, owner, how, &confirmed);
            owner = 1 - owner;
        }
        stop.store(true, Ordering::SeqCst);
        owner
    });
    let confirmed = *confirmed.lock().unwrap();
    let mut stomp = Stomp::connect(&nodes[owner].ports.stomp);
    stomp.send("SUBSCRIBE\nid:1\ndestination:/queue/q\nack:auto\n\n");
    let mut missing: BTreeSet<String> = (0..confirmed).map(|n| format!("m{n}")).collect();
    let mut taken = 0;
    while !missing.is_empty() {
        let Some(message) = stomp.try_receive() else {
            panic!("{} of {confirmed} are lost: {missing:?}", missing.len());
        };
        assert_eq!(message.command, "MESSAGE", "{message:?}");
        missing.remove(&message.body);
        taken += 1;
    }
    println!("{confirmed} confirmed, {taken} taken");
}
