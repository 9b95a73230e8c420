//! A store that fills up blocks publishers, lets consumers go on, and loses nothing.

use crate::support::stomp::Stomp;
use crate::support::{Node, Pair};

const MESSAGES: usize = 3_000;
const BODY_BYTES: usize = 60_000;

fn body(number: usize) -> String {
    format!("{number:>BODY_BYTES$}")
}

#[test]
fn a_full_store_blocks_publishers_until_consumers_have_made_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure("[limits]\ninflight_bytes_max = 4194304\n[storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\n");
    node.start_serving();
    let address = node.ports.stomp.clone();
    let publisher = std::thread::spawn(move || {
        Stomp::connect(&address).publish("/queue/big", (0..MESSAGES).map(body));
    });
    node.wait("a disk alarm", |status| status["disk_alarm"] == true);
    // 180 MB do not fit into a map of 128: it comes only as this consumer makes room.
    let mut consumer = Stomp::connect(&node.ports.stomp);
    let bodies = consumer.consume("/queue/big", MESSAGES);
    assert!(bodies.into_iter().eq((0..MESSAGES).map(body)));
    publisher.join().unwrap();
    node.wait("the end of the alarm", |status| status["disk_alarm"] == false);
}

/// The slave's store is the smaller one: the master's publishers must wait for it.
#[test]
fn a_slave_that_fills_up_blocks_the_masters_publishers_and_stays_in_sync() {
    let mut pair = Pair::new("", "");
    pair.slave.configure("[limits]\ninflight_bytes_max = 4194304\n[storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\nretain_bytes = 0\n");
    pair.start_in_sync();
    let address = pair.master.ports.stomp.clone();
    let publisher = std::thread::spawn(move || {
        Stomp::connect(&address).publish("/queue/big", (0..MESSAGES).map(body));
    });
    pair.master.wait("a disk alarm", |status| status["disk_alarm"] == true);
    assert!(pair.master.log().contains("the slave is low on disk"), "{}", pair.master.log());
    assert!(!pair.master.log().contains("low on disk: publishers are blocked"));
    let mut consumer = Stomp::connect(&pair.master.ports.stomp);
    let bodies = consumer.consume("/queue/big", MESSAGES);
    assert!(bodies.into_iter().eq((0..MESSAGES).map(body)));
    publisher.join().unwrap();
    pair.master.wait("the end of the alarm", |status| status["disk_alarm"] == false);
    assert_eq!(pair.master.status().unwrap()["state"], "in-sync");
}
