//! ActiveMQ's dialect.

use crate::common::{Message, Peer, body, options, plain, publish};
use understudy_model::{AckMode, Properties, Request, Text};
use understudy_stomp::{Dialect, StompOptions};

fn activemq() -> Peer {
    let options = StompOptions { dialect: Dialect::Activemq, ..options() };
    Peer::open_with(options, "1.2")
}

#[test]
fn names_may_hold_slashes_and_topics_wildcards() {
    let mut peer = activemq();
    peer.feed("SEND\ndestination:/queue/a/b\n\nx\0");
    let sent = publish(peer.request());
    assert_eq!((&*sent.exchange, &*sent.routing_key), ("", "a/b"));
    assert!(sent.declare_missing);

    peer.feed("SUBSCRIBE\nid:1\ndestination:/topic/prices.*.>\n\n\0");
    let requests = peer.answer_all();
    let Request::Bind(bind) = &requests[1] else { panic!("{requests:?}") };
    assert_eq!((&*bind.source, &*bind.key), ("amq.topic", "prices.*.#"));

    peer.feed("SEND\ndestination:/topic/prices.x.>\n\nx\0");
    assert_eq!(&*publish(peer.request()).routing_key, "prices.x.>", "a SEND names one topic");
}

#[test]
fn rabbitmqs_dialect_takes_the_same_names_for_what_they_are_there() {
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\ndestination:/queue/a,/topic/b\n\nx\0");
    peer.assert_error_message("Invalid destination");
    let mut peer = Peer::open("1.2");
    peer.feed("SUBSCRIBE\nid:1\ndestination:/topic/a.>\n\n\0");
    let requests = peer.answer_all();
    let Request::Bind(bind) = &requests[1] else { panic!("{requests:?}") };
    assert_eq!(&*bind.key, "a.>");
}

#[test]
fn a_list_is_sent_as_one_and_answered_once() {
    let mut peer = activemq();
    peer.feed("SEND\ndestination:/queue/a,b,/topic/c\nreceipt:r\npersistent:true\n\nx\0");
    let request = peer.request();
    let Request::Transaction(sent) = &request else { panic!("{request:?}") };
    let places: Vec<_> = sent.publishes.iter().map(|p| (&*p.exchange, &*p.routing_key)).collect();
    assert_eq!(places, [("", "a"), ("", "b"), ("amq.topic", "c")]);
    for publish in &sent.publishes {
        assert_eq!(body(publish), b"x");
        assert_eq!(Properties::decode(&publish.properties).unwrap().delivery_mode, Some(2));
    }
    assert_eq!(peer.written(), "", "nothing is committed yet");
    peer.answer(sent.token);
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0");
}

#[test]
fn a_list_in_a_transaction_waits_for_its_commit() {
    let mut peer = activemq();
    peer.feed("BEGIN\ntransaction:t\n\n\0");
    peer.feed("SEND\ndestination:/queue/a,/queue/b\ntransaction:t\nreceipt:s\n\nx\0");
    peer.feed("SEND\ndestination:/queue/c\ntransaction:t\n\ny\0");
    assert!(peer.requests().is_empty());
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:s\n\n\0", "clients wait for it to commit");
    peer.feed("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let request = peer.request();
    let Request::Transaction(commit) = &request else { panic!("{request:?}") };
    assert_eq!(commit.publishes.len(), 3);
    peer.answer(commit.token);
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:c\n\n\0");
}

#[test]
fn a_temporary_queue_is_read_by_its_own_subscription_only() {
    let mut peer = activemq();
    peer.feed("SEND\ndestination:/queue/work\nreply-to:/temp-queue/r\n\n?\0");
    let requests = peer.answer_all();
    let [Request::DeclareQueue(declare), Request::Publish(sent)] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert!(declare.exclusive);
    let properties = Properties::decode(&sent.properties).unwrap();
    assert_eq!(properties.reply_to.as_ref(), Some(&declare.name));

    peer.feed("SUBSCRIBE\nid:1\ndestination:/temp-queue/r\n\n\0");
    let requests = peer.answer_all();
    let [Request::Consume(consume)] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((&consume.queue, consume.ack), (&declare.name, AckMode::Auto));
    peer.deliver(consume.consumer, 5, &plain(&declare.name, b"!"));
    let written = peer.written();
    assert!(written.starts_with("MESSAGE\nsubscription:1\ndestination:/temp-queue/r\n"));

    peer.feed("SEND\ndestination:/temp-queue/r\n\nself\0");
    assert_eq!(publish(peer.request()).routing_key, declare.name);
}

#[test]
fn a_temporary_topic_is_known_by_its_full_name_to_others() {
    let mut peer = activemq();
    let consumer = peer.subscribe("id:1\ndestination:/temp-topic/t");
    peer.feed("SEND\ndestination:/queue/work\nreply-to:/temp-topic/t\n\n?\0");
    let sent = publish(peer.request());
    let reply_to = Properties::decode(&sent.properties).unwrap().reply_to;
    let key = "stomp-temp.session-s.t";
    assert_eq!(reply_to, Some(Text::from(format!("/topic/{key}"))));
    peer.deliver(consumer, 5, &Message { exchange: "amq.topic", ..plain(key, b"!") });
    let written = peer.written();
    assert!(written.starts_with("MESSAGE\nsubscription:1\ndestination:/temp-topic/t\n"));
    peer.feed("SEND\ndestination:/temp-topic/t\n\nx\0");
    let sent = publish(peer.request());
    assert_eq!((&*sent.exchange, &*sent.routing_key), ("amq.topic", key));
}

#[test]
fn what_is_not_there_is_refused_and_not_misread() {
    for (frame, message) in [
        ("SUBSCRIBE\nid:1\ndestination:/queue/a.>\n\n\0", "Unsupported destination"),
        ("SUBSCRIBE\nid:1\ndestination:/queue/*\n\n\0", "Unsupported destination"),
        ("SUBSCRIBE\nid:1\ndestination:/queue/a,/queue/b\n\n\0", "Unsupported destination"),
        ("SEND\ndestination:/queue/a,\n\nx\0", "Invalid destination"),
        ("SEND\ndestination:/temp-queue/\n\nx\0", "Invalid destination"),
    ] {
        let mut peer = activemq();
        peer.feed(frame);
        peer.assert_error_message(message);
    }
}

#[test]
fn temporary_queues_are_limited() {
    let limited = StompOptions { dialect: Dialect::Activemq, subscriptions_max: 2, ..options() };
    let mut peer = Peer::open_with(limited, "1.2");
    for name in ["a", "b", "a"] {
        peer.feed(&format!("SEND\ndestination:/queue/w\nreply-to:/temp-queue/{name}\n\n\0"));
    }
    assert_eq!(peer.written(), "");
    peer.feed("SEND\ndestination:/temp-queue/c\n\n\0");
    peer.assert_error_message("Temporary queue limit exceeded");
}
