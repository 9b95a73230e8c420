//! SUBSCRIBE, MESSAGE, ACK, NACK and UNSUBSCRIBE.

use crate::common::{Message, Peer, options, plain, token};
use understudy_model::{
    AckMode, ConsumerNumber, Credit, DeclareQueue, DeliveryRef, Effect, Lsn, Properties, QueueId,
    Request, Table, Text, Value,
};
use understudy_stomp::StompOptions;

fn reference(consumer: ConsumerNumber, lsn: u64) -> DeliveryRef {
    DeliveryRef { consumer, queue: QueueId(Lsn(1)), lsn: Lsn(lsn) }
}

fn requests_of(headers: &str) -> Vec<Request> {
    let mut peer = Peer::open("1.2");
    peer.feed(&format!("SUBSCRIBE\nid:1\n{headers}\n\n\0"));
    peer.requests()
}

fn declared(requests: &[Request]) -> &DeclareQueue {
    match &requests[0] {
        Request::DeclareQueue(declare) => declare,
        other => panic!("not a declare: {other:?}"),
    }
}

#[test]
fn a_queue_is_declared_and_consumed() {
    let requests = requests_of(
        "destination:/queue/a\nack:client\nprefetch-count:7\nx-priority:-3\n\
         activemq.exclusive:true\nx-message-ttl:60000",
    );
    let declare = declared(&requests);
    assert_eq!((&*declare.name, declare.durable, declare.exclusive), ("a", true, false));
    let arguments = Table::decode(&declare.arguments).unwrap();
    assert_eq!(arguments.0, [(Text::from("x-message-ttl"), Value::I64(60_000))]);
    let [_, Request::Consume(consume)] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((&*consume.queue, consume.ack, consume.priority), ("a", AckMode::Manual, -3));
    assert_eq!((consume.credit, consume.exclusive), (Credit::Prefetch(7), true));

    let [Request::Consume(consume)] = &requests_of("destination:/amq/queue/a")[..] else {
        panic!("not a consume alone")
    };
    assert_eq!((&*consume.queue, consume.ack), ("a", AckMode::Auto));
    assert_eq!(consume.credit, Credit::Prefetch(1_000));
    let requests = requests_of("destination:/queue/a\nactivemq.prefetchSize:9\ndurable:false");
    assert!(!declared(&requests).durable);
    assert!(matches!(&requests[1], Request::Consume(c) if c.credit == Credit::Prefetch(9)));
}

#[test]
fn topics_and_exchanges_get_a_bound_queue_of_their_own() {
    for (destination, source, key) in [
        ("/topic/a.*", "amq.topic", "a.*"),
        ("/exchange/amq.fanout", "amq.fanout", ""),
        ("/exchange/e/k", "e", "k"),
    ] {
        let requests = requests_of(&format!("destination:{destination}"));
        let declare = declared(&requests);
        assert_eq!(declare.name, "stomp-subscription-session-s-1");
        assert!(declare.exclusive && declare.auto_delete && !declare.durable);
        let [_, Request::Bind(bind), Request::Consume(consume)] = &requests[..] else {
            panic!("{requests:?}")
        };
        assert_eq!((&*bind.source, &*bind.key), (source, key));
        assert_eq!((&bind.destination, &consume.queue), (&declare.name, &declare.name));
    }
    let requests = requests_of("destination:/topic/a\nx-queue-name:mine");
    let declare = declared(&requests);
    assert_eq!((&*declare.name, declare.exclusive, declare.auto_delete), ("mine", false, true));
}

#[test]
fn a_durable_subscription_has_the_same_queue_every_time() {
    let name = |version: &str, headers: &str| {
        let mut peer = Peer::open(version);
        peer.feed(&format!("SUBSCRIBE\ndestination:/topic/a\n{headers}\n\n\0"));
        let requests = peer.requests();
        let declare = declared(&requests);
        assert!(declare.durable && !declare.exclusive && !declare.auto_delete);
        declare.name.clone()
    };
    let wanted = name("1.2", "id:n\ndurable:true\nauto-delete:false");
    assert!(wanted.starts_with("stomp-subscription-"));
    assert_eq!(name("1.0", "id:n\npersistent:true"), wanted);
    for header in [
        "durable-subscription-name",
        "durable-subscriber-name",
        "activemq.subscriptionName",
        "activemq.subcriptionName",
    ] {
        assert_eq!(name("1.2", &format!("id:other\n{header}:n")), wanted);
        assert_eq!(name("1.0", &format!("durable:true\n{header}:n")), wanted);
    }
    assert_ne!(name("1.2", "id:m\ndurable:true"), wanted);
    assert_ne!(name("1.2", "id:n\ndurable:true\nclient-id:c"), wanted);

    for version in ["1.0", "1.2"] {
        let mut peer = Peer::open(version);
        peer.feed("SUBSCRIBE\ndestination:/topic/a\ndurable:true\n\n\0");
        let body = "Header 'id' is required for durable subscriptions";
        peer.assert_error("Missing Header", body);
    }
}

#[test]
fn the_receipt_precedes_the_first_message() {
    let mut peer = Peer::open("1.1");
    peer.feed("SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:r\n\n\0");
    let requests = peer.answer_all();
    let consumer = requests.iter().find_map(crate::common::consumer).unwrap();
    peer.deliver(consumer, 4, &plain("a", b"hello\n"));
    assert_eq!(
        peer.written(),
        "RECEIPT\nreceipt-id:r\n\n\0MESSAGE\nsubscription:1\ndestination:/queue/a\n\
         message-id:T_1@@session-s@@1-1\nredelivered:false\ncontent-length:6\n\nhello\n\0"
    );
}

#[test]
fn what_is_wrong_with_a_subscribe_is_said() {
    for (headers, message) in [
        ("id:1", "Missing destination"),
        ("destination:/queue/a", "Missing header"),
        ("id:/temp-queue/1\ndestination:/queue/a", "Invalid id"),
        ("id:1\ndestination:/reply-queue/a", "Invalid destination"),
        ("id:1\ndestination:/queue/a\nack:maybe", "Invalid header"),
        ("id:1\ndestination:/queue/a\nprefetch-count:-1", "Invalid header"),
    ] {
        let mut peer = Peer::open("1.2");
        peer.feed(&format!("SUBSCRIBE\n{headers}\n\n\0"));
        peer.assert_error_message(message);
    }
    let mut peer = Peer::open("1.2");
    peer.subscribe("id:1\ndestination:/queue/a");
    peer.feed("SUBSCRIBE\nid:1\ndestination:/queue/b\n\n\0");
    let body = "A subscription identified by 'T_1' already exists.";
    peer.assert_error("Duplicated subscription identifier", body);
    let mut peer = Peer::open_with(StompOptions { subscriptions_max: 1, ..options() }, "1.2");
    peer.subscribe("id:1\ndestination:/queue/a");
    peer.feed("SUBSCRIBE\nid:2\ndestination:/queue/a\n\n\0");
    peer.assert_error_message("Subscription limit exceeded");
}

#[test]
fn a_1_0_client_needs_no_id() {
    let mut peer = Peer::open("1.0");
    let consumer = peer.subscribe("destination: /exchange/amq.fanout\nack:client");
    peer.deliver(consumer, 4, &Message { exchange: "amq.fanout", ..plain("", b"x") });
    assert_eq!(
        peer.written(),
        "MESSAGE\ndestination:/exchange/amq.fanout\n\
         message-id:Q_/exchange/amq.fanout@@session-s@@1-1\nredelivered:false\n\
         content-length:1\n\nx\0"
    );
    peer.feed("ACK\nmessage-id: Q_/exchange/amq.fanout@@session-s@@1-1\n\n\0");
    let wanted = Request::Settle { deliveries: vec![reference(consumer, 4)], token: None };
    assert_eq!(peer.request(), wanted);
    peer.feed("UNSUBSCRIBE\ndestination:/exchange/amq.fanout\n\n\0");
    assert!(matches!(peer.request(), Request::Cancel { .. }));
}

#[test]
fn a_message_has_its_headers_in_order() {
    let mut peer = Peer::open("1.2");
    let consumer = peer.subscribe("id:1\ndestination:/exchange/amq.topic/k\nack:client");
    let text = |t: &str| Some(Text::from(t));
    let mut headers = Table::default();
    headers.push("mine", Value::text("a:b\nc"));
    headers.push("number", Value::I32(42));
    headers.push("ack", Value::text("forged"));
    headers.push("content-length", Value::text("1"));
    let properties = Properties {
        content_type: text("text/plain"),
        content_encoding: text("utf-8"),
        headers: Some(headers),
        delivery_mode: Some(2),
        priority: Some(5),
        correlation_id: text("c"),
        reply_to: text("back"),
        expiration: text("1000"),
        message_id: text("m"),
        timestamp: Some(1_700_000_000),
        kind: text("t"),
        user_id: text("guest"),
        app_id: text("a"),
        cluster_id: None,
    };
    let message =
        Message { exchange: "amq.topic", key: "k", properties, body: b"\0x", redelivered: true };
    peer.deliver(consumer, 4, &message);
    assert_eq!(
        peer.written(),
        "MESSAGE\nsubscription:1\ndestination:/topic/k\nmessage-id:T_1@@session-s@@1-1\n\
         redelivered:true\nack:T_1@@session-s@@1-1\ncontent-type:text/plain\n\
         content-encoding:utf-8\npersistent:true\npriority:5\ncorrelation-id:c\n\
         reply-to:/reply-queue/back\nexpiration:1000\namqp-message-id:m\n\
         timestamp:1700000000\ntype:t\nuser-id:guest\napp-id:a\nmine:a\\cb\\nc\nnumber:42\n\
         content-length:2\n\n\0x\0"
    );
}

#[test]
fn acks_are_cumulative_for_client_and_single_for_individual() {
    for (mode, wanted) in [("client", vec![1, 2]), ("client-individual", vec![2])] {
        let mut peer = Peer::open("1.1");
        let consumer = peer.subscribe(&format!("id:s\ndestination:/queue/a\nack:{mode}"));
        let other = peer.subscribe("id:o\ndestination:/queue/b\nack:client");
        peer.deliver(other, 9, &plain("b", b""));
        (1..=3).for_each(|lsn| peer.deliver(consumer, lsn, &plain("a", b"")));
        peer.feed("ACK\nsubscription:s\nmessage-id:T_s@@session-s@@1-2\nreceipt:r\n\n\0");
        let Request::Settle { deliveries, token } = peer.request() else { panic!("no settle") };
        let wanted: Vec<_> = wanted.into_iter().map(|lsn| reference(consumer, lsn)).collect();
        assert_eq!(deliveries, wanted);
        peer.written();
        peer.answer(token.unwrap());
        assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0");
        peer.feed("ACK\nsubscription:s\nmessage-id:T_s@@session-s@@1-2\n\n\0");
        peer.assert_error_message("Unknown message");
    }
}

#[test]
fn a_run_of_acks_is_one_request() {
    let mut peer = Peer::open("1.2");
    let consumer = peer.subscribe("id:s\ndestination:/queue/a\nack:client-individual");
    (1..=4).for_each(|lsn| peer.deliver(consumer, lsn, &plain("a", b"")));
    let frame = |command: &str, n: u32| format!("{command}\nid:T_s@@session-s@@1-{n}\n\n\0");
    peer.feed(&[frame("ACK", 1), frame("ACK", 2), frame("NACK", 3)].concat());
    peer.feed("NACK\nid:T_s@@session-s@@1-4\nrequeue:false\n\n\0");
    let of = |lsns: &[u64]| lsns.iter().map(|&lsn| reference(consumer, lsn)).collect();
    assert_eq!(
        peer.requests(),
        [
            Request::Settle { deliveries: of(&[1, 2]), token: None },
            Request::Return { deliveries: of(&[3]), token: None },
            Request::Discard { deliveries: of(&[4]), token: None },
        ]
    );
}

#[test]
fn acks_that_mean_nothing_are_errors() {
    for (headers, message) in [
        ("foo:1", "Missing header"),
        ("message-id:T_s@@session-s@@1-1", "Missing header"),
        ("id:x", "Invalid header"),
        ("id:T_s@@session-other@@1-1", "Invalid header"),
        ("id:T_s@@session-s@@1-2", "Unknown message"),
        ("id:T_s@@session-s@@9-1", "Unknown message"),
        ("id:T_s@@session-s@@1-1\ntransaction:t", "Bad transaction"),
    ] {
        let mut peer = Peer::open("1.2");
        let consumer = peer.subscribe("id:s\ndestination:/queue/a\nack:client");
        peer.deliver(consumer, 1, &plain("a", b""));
        peer.written();
        peer.feed(&format!("ACK\n{headers}\n\n\0"));
        peer.assert_error_message(message);
    }
}

#[test]
fn before_1_2_a_message_is_acked_by_its_message_id() {
    for version in ["1.0", "1.1"] {
        let mut peer = Peer::open(version);
        let consumer = peer.subscribe("id:s\ndestination:/queue/a\nack:client");
        peer.deliver(consumer, 1, &plain("a", b""));
        peer.feed("ACK\nmessage-id:T_s@@session-s@@1-1\nsubscription:s\n\n\0");
        assert!(matches!(peer.request(), Request::Settle { .. }));
        peer.written();
        peer.feed("NACK\nid:T_s@@session-s@@1-1\n\n\0");
        peer.assert_error("Missing header", "'NACK' must include the 'message-id' header\n");
    }
}

#[test]
fn unsubscribing_frees_the_id_and_keeps_what_is_outstanding() {
    let mut peer = Peer::open("1.2");
    let first = peer.subscribe("id:s\ndestination:/queue/a\nack:client");
    peer.deliver(first, 1, &plain("a", b""));
    peer.feed("UNSUBSCRIBE\nid:s\nreceipt:r\n\n\0");
    let second = peer.requests();
    peer.feed("SUBSCRIBE\nid:s\ndestination:/queue/a\nack:client\n\n\0");
    assert_eq!(peer.requests().len(), 2);
    peer.written();
    peer.answer(token(&second[0]).unwrap());
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0");
    peer.feed("ACK\nid:T_s@@session-s@@1-1\n\n\0");
    let wanted = Request::Settle { deliveries: vec![reference(first, 1)], token: None };
    assert_eq!(peer.request(), wanted);
    peer.deliver(first, 2, &plain("a", b""));
    assert_eq!(peer.written(), "");
    peer.feed("UNSUBSCRIBE\nid:t\n\n\0");
    let written = peer.written();
    assert!(written.starts_with("ERROR\nmessage:No subscription found\n") && peer.out.close);
    assert!(written.contains("Subscription to 't' not found."), "{written}");
}

#[test]
fn a_1_0_client_may_name_the_destination_although_it_gave_an_id() {
    let unsubscribe = "UNSUBSCRIBE\ndestination:/queue/a\nreceipt:r\n\n\0";
    let mut peer = Peer::open("1.0");
    let named = peer.subscribe("id:s\ndestination:/queue/a");
    let unnamed = peer.subscribe("destination:/queue/a");
    for wanted in [unnamed, named] {
        peer.feed(unsubscribe);
        let request = peer.request();
        let Request::Cancel { consumer, token } = request else { panic!("{request:?}") };
        assert_eq!(consumer, wanted, "the one without an id comes first");
        peer.answer(token);
        assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0");
    }
    peer.feed(unsubscribe);
    peer.assert_error_message("No subscription found");

    let mut peer = Peer::open("1.1");
    peer.subscribe("id:s\ndestination:/queue/a");
    peer.feed(unsubscribe);
    peer.assert_error_message("No subscription found");
}

#[test]
fn unsubscribe_may_delete_a_durable_queue() {
    let mut peer = Peer::open("1.2");
    peer.subscribe("id:s\ndestination:/topic/a\ndurable:true\nauto-delete:false");
    peer.feed("UNSUBSCRIBE\nid:s\ndurable:true\nreceipt:r\n\n\0");
    let requests = peer.answer_all();
    let [Request::Cancel { .. }, Request::DeleteQueue(delete)] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0");
    // The same without being subscribed.
    peer.feed("UNSUBSCRIBE\nid:s\ndestination:/topic/a\ndurable:true\n\n\0");
    assert!(matches!(peer.request(), Request::DeleteQueue(again) if again.name == delete.name));

    peer.subscribe("id:q\ndestination:/queue/a");
    peer.feed("UNSUBSCRIBE\nid:q\ndurable:true\n\n\0");
    assert!(matches!(peer.request(), Request::Cancel { .. }));
}

#[test]
fn a_temporary_queue_can_be_subscribed_to() {
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\ndestination:/queue/s\nreply-to:/temp-queue/me\n\n\0");
    let requests = peer.answer_all();
    let automatic = requests.iter().find_map(crate::common::consumer).unwrap();
    peer.feed("SUBSCRIBE\nid:1\ndestination:/temp-queue/me\nack:client\n\n\0");
    let requests = peer.answer_all();
    let [Request::Consume(consume), Request::Cancel { consumer, .. }] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!((&*consume.queue, *consumer), ("stomp-temp-session-s-1", automatic));
    peer.feed("UNSUBSCRIBE\nid:1\n\n\0SEND\ndestination:/queue/s\nreply-to:/temp-queue/me\n\n\0");
    let requests = peer.requests();
    assert!(matches!(&requests[1], Request::DeclareQueue(d) if d.name == "stomp-temp-session-s-2"));
}

#[test]
fn a_queue_that_goes_away_is_told() {
    let mut peer = Peer::open("1.2");
    let consumer = peer.subscribe("id:s\ndestination:/queue/a");
    peer.effect(Effect::Cancelled { consumer });
    let written = peer.written();
    assert!(written.starts_with("ERROR\nmessage:Server cancelled subscription\n"));
    assert!(written.contains("\nsubscription:s\n") && peer.out.close);
    assert!(written.contains("No more messages will be delivered for 's'."), "{written}");

    let mut peer = Peer::open("1.2");
    let consumer = peer.subscribe("id:s\ndestination:/queue/a");
    peer.feed("UNSUBSCRIBE\nid:s\n\n\0");
    peer.effect(Effect::Cancelled { consumer });
    assert!(!peer.out.close);
}
