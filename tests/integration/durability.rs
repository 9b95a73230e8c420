//! What was confirmed is there after kill -9.

use crate::support::Node;
use crate::support::stomp::Stomp;

fn numbered(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|n| format!("m{n}"))
}

#[test]
fn confirmed_messages_survive_a_kill_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    for round in 0..3 {
        node.start_serving();
        let mut stomp = Stomp::connect(&node.ports.stomp);
        stomp.publish("/queue/durable", numbered(round * 500, (round + 1) * 500));
        node.kill();
    }
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    let bodies = stomp.consume("/queue/durable", 1_500);
    assert!(bodies.iter().cloned().eq(numbered(0, 1_500)));
}

#[test]
fn a_receipted_ack_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    stomp.publish("/queue/acks", numbered(0, 10));
    let consumed = {
        // One at a time, so that exactly four are taken.
        stomp.send(
            "SUBSCRIBE\nid:1\ndestination:/queue/acks\nack:client-individual\nprefetch-count:1\n\n",
        );
        let mut consumed = Vec::new();
        for number in 0..4 {
            let message = stomp.receive();
            stomp.send(&format!("ACK\nid:{}\nreceipt:r{number}\n\n", message.header("ack")));
            consumed.push(message.body);
            let mut receipts = 0;
            while receipts == 0 {
                let frame = stomp.receive();
                if frame.command == "RECEIPT" {
                    receipts = 1;
                } else if number == 3 {
                    // The fifth message is outstanding when the node dies.
                } else {
                    stomp.send(&format!("NACK\nid:{}\n\n", frame.header("ack")));
                }
            }
        }
        consumed
    };
    node.kill();
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    let rest = stomp.consume("/queue/acks", 10 - 4);
    for body in &consumed {
        assert!(!rest.contains(body), "{body} came again");
    }
}

#[test]
fn a_stop_is_clean_and_a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    Stomp::connect(&node.ports.stomp).publish("/queue/q", numbered(0, 10));
    let data = directory.path().join("standalone");
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["serve", "--set", "listen.http=", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
    assert!(node.terminate().success());
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    assert_eq!(stomp.consume("/queue/q", 10).len(), 10);
}
