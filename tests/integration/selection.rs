//! Selectors and browsers over STOMP, with more messages than memory holds.

use crate::support::Node;
use crate::support::stomp::{Frame, Stomp};

const MESSAGES: usize = 3_000;
/// Of the messages, one in so many is wanted.
const WANTED: usize = 100;

fn publish(stomp: &mut Stomp, destination: &str) {
    let padding = "x".repeat(1_000);
    for number in 0..MESSAGES {
        let wanted = number % WANTED == 0;
        stomp.send(&format!(
            "SEND\ndestination:{destination}\npersistent:true\nnumber:{number}\n\
             wanted:{wanted}\nreceipt:{number}\n\n{padding}"
        ));
        if number % 500 == 499 {
            (0..500).for_each(|_| assert_eq!(stomp.receive().command, "RECEIPT"));
        }
    }
}

fn number(frame: &Frame) -> usize {
    assert_eq!(frame.command, "MESSAGE", "{frame:?}");
    frame.header("number").parse().unwrap()
}

#[test]
fn a_selector_finds_what_it_wants_in_a_backlog_on_disk_and_leaves_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    // A fraction of what is published.
    node.configure("[limits]\ncache_bytes_max = 1048576\n");
    node.start_serving();
    let mut stomp = Stomp::connect(&node.ports.stomp);
    publish(&mut stomp, "/queue/selected");

    let mut selecting = Stomp::connect(&node.ports.stomp);
    selecting.send(
        "SUBSCRIBE\nid:1\ndestination:/queue/selected\nack:client-individual\n\
         selector:wanted = TRUE AND number >= 100\nprefetch-count:5\n\n",
    );
    for wanted in (WANTED..MESSAGES).step_by(WANTED) {
        let message = selecting.receive();
        assert_eq!(number(&message), wanted);
        assert_eq!(message.header("redelivered"), "false");
        selecting.send(&format!("ACK\nid:{}\n\n", message.header("ack")));
    }
    selecting.send("DISCONNECT\nreceipt:d\n\n");
    assert_eq!(selecting.receive().command, "RECEIPT");

    let mut browser = Stomp::connect(&node.ports.stomp);
    browser.send("SUBSCRIBE\nid:b\ndestination:/queue/selected\nbrowser:true\n\n");
    let left: Vec<usize> = (0..MESSAGES).filter(|n| *n < WANTED || n % WANTED > 0).collect();
    for wanted in &left {
        assert_eq!(number(&browser.receive()), *wanted);
    }
    assert_eq!(browser.receive().header("browser"), "end");

    let mut rest = Stomp::connect(&node.ports.stomp);
    rest.send("SUBSCRIBE\nid:2\ndestination:/queue/selected\nack:auto\n\n");
    for wanted in &left {
        assert_eq!(number(&rest.receive()), *wanted);
    }
}

#[test]
fn a_topics_subscription_gets_what_it_selects_and_keeps_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let mut subscriber = Stomp::connect(&node.ports.stomp);
    subscriber.send(
        "SUBSCRIBE\nid:1\ndestination:/topic/news\nselector:number IN ('3', '5')\nreceipt:s\n\n",
    );
    assert_eq!(subscriber.receive().command, "RECEIPT");
    let mut stomp = Stomp::connect(&node.ports.stomp);
    for n in 0..7 {
        stomp.send(&format!("SEND\ndestination:/topic/news\nnumber:{n}\nreceipt:{n}\n\nx"));
        assert_eq!(stomp.receive().command, "RECEIPT");
    }
    assert_eq!(number(&subscriber.receive()), 3);
    assert_eq!(number(&subscriber.receive()), 5);
    node.wait("empty", |status| status["counts"]["messages"] == 0);

    let mut bad = Stomp::connect(&node.ports.stomp);
    bad.send("SUBSCRIBE\nid:1\ndestination:/queue/q\nselector:number ==\n\n");
    let error = bad.receive();
    assert_eq!(error.header("message"), "precondition_failed");
    assert!(error.body.contains("invalid selector: column"), "{error:?}");
}
