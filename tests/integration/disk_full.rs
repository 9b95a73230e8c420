//! A store that fills up blocks publishers, lets consumers go on, and loses nothing.

use crate::support::Node;
use crate::support::stomp::Stomp;

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
