//! ActiveMQ's dialect.

use crate::common::{Message, Peer, body, options, plain, publish, token};
use understudy_model::{AckMode, ConsumerNumber, Effect, Properties, Request, Text};
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
fn a_message_says_the_destination_that_it_was_sent_to() {
    for (topic, rabbitmqs) in [
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("caf\u{e9}", "caf%C3%A9"),
        ("a%2Cb", "a,b"),
        ("a b", "a b"),
    ] {
        for (mut peer, wanted) in [(activemq(), topic), (Peer::open("1.2"), rabbitmqs)] {
            let consumer = peer.subscribe("id:1\ndestination:/topic/#");
            let key = topic.replace("%2C", ",");
            peer.deliver(consumer, 5, &Message { exchange: "amq.topic", ..plain(&key, b"") });
            let written = peer.written();
            assert!(written.contains(&format!("\ndestination:/topic/{wanted}\n")), "{written}");
        }
    }
}

#[test]
fn the_machines_name_is_no_vhost() {
    for (dialect, instead) in
        [(Dialect::Activemq, Some(Text::from("/"))), (Dialect::Rabbitmq, None)]
    {
        let mut peer = Peer::new(StompOptions { dialect, ..options() });
        peer.feed("CONNECT\naccept-version:1.2\nhost:mq.example\nlogin:u\npasscode:p\n\n\0");
        peer.login_accepted();
        let Request::Connect(connect) = peer.request() else { panic!("no connect") };
        assert_eq!((&*connect.vhost, &connect.vhost_else), ("mq.example", &instead));
    }
}

#[test]
fn what_a_subscription_leaves_unacked_goes_to_others_when_it_ends() {
    let mut peer = activemq();
    let consumer = peer.subscribe("id:s\ndestination:/queue/a\nack:client-individual");
    (1..=3).for_each(|lsn| peer.deliver(consumer, lsn, &plain("a", b"")));
    peer.feed("BEGIN\ntransaction:t\n\n\0");
    peer.feed("ACK\nid:T_s@@session-s@@1-1\ntransaction:t\n\n\0UNSUBSCRIBE\nid:s\n\n\0");
    let cancel = token(&peer.request()).unwrap();
    // On its way when the client said so.
    peer.deliver(consumer, 4, &plain("a", b""));
    peer.feed("ACK\nid:T_s@@session-s@@1-2\n\n\0");
    assert!(matches!(peer.request(), Request::Settle { .. }));
    peer.answer(cancel);
    let Request::Return { deliveries, .. } = peer.request() else { panic!("no return") };
    let lsns: Vec<_> = deliveries.iter().map(|delivery| delivery.lsn.0).collect();
    assert_eq!(lsns, [3, 4], "but for what the transaction holds");
    peer.written();
    peer.feed("ACK\nid:T_s@@session-s@@1-3\n\n\0");
    peer.assert_error_message("Unknown message");
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

fn consumers(requests: &[Request]) -> Vec<(ConsumerNumber, &str)> {
    let mut found = Vec::new();
    for request in requests {
        if let Request::Consume(consume) = request {
            found.push((consume.consumer, &*consume.queue));
        }
    }
    found
}

#[test]
fn a_list_is_read_as_one_subscription() {
    let mut peer = activemq();
    let list = "destination:/queue/a,b,/topic/c.>\nactivemq.subcriptionName:n";
    peer.feed(&format!("SUBSCRIBE\nid:s\n{list}\nack:client\nreceipt:r\n\n\0"));
    peer.assert_error_message("Unsupported destination");

    let mut peer = activemq();
    let list = "destination:/queue/a,b,/topic/c.>";
    peer.feed(&format!("SUBSCRIBE\nid:s\n{list}\nack:client\nreceipt:r\n\n\0"));
    let requests = peer.requests();
    let read = consumers(&requests);
    let [(a, "a"), (b, "b"), (c, "stomp-subscription-session-s-1")] = read[..] else {
        panic!("{requests:?}")
    };
    let first = requests.iter().position(|request| matches!(request, Request::Consume(_)));
    assert_eq!(first, Some(requests.len() - 3), "what it needs is there before the first reads");
    for request in &requests {
        assert_eq!(peer.written(), "");
        peer.answer(token(request).unwrap());
    }
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0", "with the last one's");

    peer.deliver(a, 1, &plain("a", b""));
    peer.deliver(c, 2, &Message { exchange: "amq.topic", ..plain("c.d", b"") });
    peer.deliver(b, 3, &plain("b", b""));
    let written = peer.written();
    for (number, destination) in ["/queue/a", "/topic/c.d", "/queue/b"].iter().enumerate() {
        let id = format!("message-id:T_s@@session-s@@{}-{}", a.0, number + 1);
        let wanted = format!("MESSAGE\nsubscription:s\ndestination:{destination}\n{id}\n");
        assert!(written.contains(&wanted), "{wanted} in {written}");
    }
    peer.feed(&format!("ACK\nid:T_s@@session-s@@{}-2\n\n\0", a.0));
    let Request::Settle { deliveries, .. } = peer.request() else { panic!("no settle") };
    let settled: Vec<_> = deliveries.iter().map(|of| (of.consumer, of.lsn.0)).collect();
    assert_eq!(settled, [(a, 1), (c, 2)], "all that came before, wherever from");

    peer.feed("UNSUBSCRIBE\nid:s\nreceipt:u\n\n\0");
    let cancels = peer.requests();
    let cancelled = |request: &Request| match request {
        Request::Cancel { consumer, .. } => *consumer,
        other => panic!("not a cancel: {other:?}"),
    };
    let mut ended: Vec<_> = cancels.iter().map(cancelled).collect();
    ended.sort_unstable();
    assert_eq!(ended, [a, b, c]);
    for cancel in &cancels {
        assert_eq!((peer.requests(), peer.written()), (vec![], String::new()));
        peer.answer(token(cancel).unwrap());
    }
    let Request::Return { deliveries, .. } = peer.request() else { panic!("no return") };
    assert_eq!((deliveries.len(), deliveries[0].consumer), (1, b));
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:u\n\n\0");
}

#[test]
fn each_queue_of_a_list_counts_as_a_subscription_and_ends_it() {
    let limited = StompOptions { dialect: Dialect::Activemq, subscriptions_max: 4, ..options() };
    let mut peer = Peer::open_with(limited, "1.2");
    peer.feed("SUBSCRIBE\nid:1\ndestination:/queue/a,b\nactivemq.subcriptionName:n\n\n\0");
    let requests = peer.answer_all();
    assert_eq!(consumers(&requests).len(), 2, "a queue's subscription has no name to keep");
    peer.feed("UNSUBSCRIBE\nid:1\n\n\0");
    peer.answer_all();
    peer.feed("SUBSCRIBE\nid:1\ndestination:/queue/a,b,/queue/a\n\n\0");
    peer.answer_all();
    peer.feed("SUBSCRIBE\nid:2\ndestination:/queue/c,d\n\n\0");
    peer.answer_all();
    assert_eq!(peer.written(), "");
    peer.feed("SUBSCRIBE\nid:3\ndestination:/queue/e\n\n\0");
    peer.assert_error_message("Subscription limit exceeded");

    let mut peer = activemq();
    peer.feed("SUBSCRIBE\nid:1\ndestination:/queue/a,b\n\n\0");
    let requests = peer.answer_all();
    let gone = consumers(&requests)[1].0;
    peer.effect(Effect::Cancelled { consumer: gone });
    peer.assert_error_message("Server cancelled subscription");
}

#[test]
fn a_name_without_a_kind_is_a_queues() {
    let mut peer = activemq();
    peer.feed("SEND\ndestination:orders\n\nx\0");
    let sent = publish(peer.request());
    assert_eq!((&*sent.exchange, &*sent.routing_key), ("", "orders"));
    let consumer = peer.subscribe("id:1\ndestination:orders");
    peer.deliver(consumer, 5, &plain("orders", b""));
    assert!(peer.written().contains("\ndestination:orders\n"), "as it was subscribed to");
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\ndestination:orders\n\nx\0");
    peer.assert_error_message("Unknown destination");
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
        ("SUBSCRIBE\nid:1\ndestination:/queue/a,/queue/*\n\n\0", "Unsupported destination"),
        ("SUBSCRIBE\nid:1\ndestination:/queue/a,b\nbrowser:true\n\n\0", "Unsupported destination"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/a,b\ndurable:true\n\n\0", "Unsupported destination"),
        ("SUBSCRIBE\nid:1\ndestination:/temp-queue/a,b\n\n\0", "Unsupported destination"),
        ("SUBSCRIBE\nid:1\ndestination:/queue/a,/topic/\n\n\0", "Invalid destination"),
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
