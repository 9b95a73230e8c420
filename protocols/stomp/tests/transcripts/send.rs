//! SEND: destinations, properties, receipts, temporary reply queues.

use crate::common::{Message, Peer, body, options, publish};
use bytes::Bytes;
use understudy_model::{
    AckMode, Credit, Effect, Properties, Publish, Refusal, RefusalKind, Request, Text,
};
use understudy_stomp::StompOptions;

fn sent(peer: &mut Peer, headers: &str) -> Publish {
    peer.feed(&format!("SEND\n{headers}\n\nbody\0"));
    publish(peer.request())
}

#[test]
fn each_destination_has_its_exchange_and_key() {
    for (destination, exchange, key, declare) in [
        ("/queue/a%2Fb", "", "a/b", true),
        ("/amq/queue/a", "", "a", false),
        ("/reply-queue/a/b", "", "a/b", false),
        ("/topic/a.b", "amq.topic", "a.b", false),
        ("/exchange/e", "e", "", false),
        ("/exchange/e/k", "e", "k", false),
    ] {
        let mut peer = Peer::open("1.2");
        let publish = sent(&mut peer, &format!("destination:{destination}"));
        assert_eq!((&*publish.exchange, &*publish.routing_key), (exchange, key));
        assert_eq!(publish.declare_missing, declare, "{destination}");
        assert_eq!((publish.confirm, publish.channel, publish.mandatory), (None, 0, false));
        assert_eq!(body(&publish), b"body");
    }
}

#[test]
fn headers_become_properties() {
    let mut peer = Peer::open("1.2");
    let publish = sent(&mut peer, "destination:/queue/a\npersistent:true\nmine:a\\cb\nmine:2");
    let properties = Properties::decode(&publish.properties).unwrap();
    assert_eq!(properties.delivery_mode, Some(2));
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("mine").and_then(|v| v.as_str()), Some("a:b"));
    assert_eq!(headers.0.len(), 1);
}

/// ActiveMQ's clients look for it in the MESSAGE.
#[test]
fn a_point_in_time_is_a_time_to_live_and_stays_a_header() {
    let mut peer = Peer::open("1.2");
    let publish = sent(&mut peer, "destination:/queue/a\nexpires:3000");
    let properties = Properties::decode(&publish.properties).unwrap();
    assert_eq!(properties.expiration.as_deref(), Some("2000"));
    let consumer = peer.subscribe("id:1\ndestination:/queue/a");
    peer.deliver(consumer, 1, &Message { key: "a", properties, ..Message::default() });
    let written = peer.written();
    assert!(written.contains("\nexpiration:2000\nexpires:3000\n"), "{written}");
}

#[test]
fn without_a_header_the_option_says_what_is_persistent() {
    for (default_persistent, wanted) in [(false, None), (true, Some(2))] {
        let mut peer = Peer::open_with(StompOptions { default_persistent, ..options() }, "1.2");
        for (header, wanted) in
            [("a:b", wanted), ("persistent:true", Some(2)), ("persistent:false", None)]
        {
            let publish = sent(&mut peer, &format!("destination:/queue/a\n{header}"));
            let properties = Properties::decode(&publish.properties).unwrap();
            assert_eq!(properties.delivery_mode, wanted, "{header}");
        }
    }
}

#[test]
fn what_may_not_be_sent_is_refused() {
    for (headers, message, body) in [
        ("foo:1", "Missing destination", "'SEND' must include a 'destination' header\n"),
        (
            "destination:/queue/a\nmessage-id:1",
            "Invalid header",
            "'message-id' is not allowed on 'SEND'.\n",
        ),
        (
            "destination:/queue/a/b",
            "Invalid destination",
            "'/a/b' is not a valid queue destination\n",
        ),
        (
            "destination:/temp-queue/a",
            "Invalid destination",
            "'/temp-queue/a' is not a valid destination for 'SEND'\n",
        ),
        (
            "destination:/queue/a\ntransaction:t",
            "Bad transaction",
            "Invalid transaction identifier: 't'\n",
        ),
        (
            "destination:/queue/a\nuser-id:root",
            "precondition_failed",
            "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'\n",
        ),
    ] {
        let mut peer = Peer::open("1.2");
        peer.feed(&format!("SEND\n{headers}\n\n\0"));
        peer.assert_error(message, body);
        assert_eq!(peer.requests(), []);
    }
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\ndestination:/something/interesting\n\n\0");
    peer.assert_error_message("Unknown destination");
}

#[test]
fn receipts_follow_confirms() {
    let mut peer = Peer::open("1.2");
    let with = |receipt| format!("destination:/queue/a\nreceipt:{receipt}");
    assert_eq!(sent(&mut peer, &with("a")).confirm, Some(1));
    assert_eq!(sent(&mut peer, "destination:/queue/a").confirm, None);
    assert_eq!(sent(&mut peer, &with("b")).confirm, Some(2));
    assert_eq!(sent(&mut peer, &with("c")).confirm, Some(3));
    assert_eq!(peer.written(), "");
    peer.effect(Effect::Confirm { channel: 0, through: 2 });
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:a\n\n\0RECEIPT\nreceipt-id:b\n\n\0");
    peer.effect(Effect::Nack { channel: 0, number: 3 });
    let written = peer.written();
    assert!(written.starts_with("ERROR\nmessage:resource_error\n"));
    assert!(written.contains("\nreceipt-id:c\n") && peer.out.close);
}

#[test]
fn a_refused_publish_is_an_error() {
    let mut peer = Peer::open("1.2");
    sent(&mut peer, "destination:/exchange/does.not.exist");
    let refusal = Refusal::new(RefusalKind::NotFound, "no exchange 'does.not.exist' in vhost '/'");
    peer.effect(Effect::PublishRefused { channel: 0, number: None, refusal });
    peer.assert_error("not_found", "NOT_FOUND - no exchange 'does.not.exist' in vhost '/'\n");
}

#[test]
fn a_send_that_describes_its_queue_declares_it_once() {
    let mut peer = Peer::open("1.2");
    let frame = "SEND\ndestination:/queue/a\nx-max-length:5\npersistent:false\n\n\0";
    peer.feed(&format!("{frame}{frame}"));
    let requests = peer.requests();
    let [Request::DeclareQueue(declare), Request::Publish(_), Request::Publish(_)] = &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert_eq!((&*declare.name, declare.durable, declare.auto_delete), ("a", true, false));
    assert_eq!(declare.arguments, Bytes::from_static(b"\x0cx-max-lengthl\0\0\0\0\0\0\0\x05"));
}

#[test]
fn a_temporary_reply_queue_is_made_once_and_read() {
    let mut peer = Peer::open("1.2");
    let frame = "SEND\ndestination:/queue/service\nreply-to:/temp-queue/me\n\nask\0";
    peer.feed(frame);
    let requests = peer.answer_all();
    let [Request::DeclareQueue(declare), Request::Consume(consume), Request::Publish(ask)] =
        &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert!(declare.exclusive && declare.auto_delete && !declare.durable);
    assert_eq!(declare.name, "stomp-temp-session-s-1");
    assert_eq!((&consume.queue, consume.ack), (&declare.name, AckMode::Auto));
    assert_eq!(consume.credit, Credit::Prefetch(0));
    let properties = Properties::decode(&ask.properties).unwrap();
    assert_eq!(properties.reply_to.as_ref(), Some(&declare.name));
    assert_eq!(properties.headers, None);

    // The service sees where to send, and the reply comes under the client's own name.
    let mut service = Peer::open("1.2");
    let reading = service.subscribe("id:1\ndestination:/queue/service");
    service.deliver(reading, 5, &Message { key: "service", properties, ..Message::default() });
    let written = service.written();
    assert!(written.contains("\nreply-to:/reply-queue/stomp-temp-session-s-1\n"), "{written}");
    let reply = sent(&mut service, "destination:/reply-queue/stomp-temp-session-s-1");
    assert_eq!((reply.routing_key, reply.declare_missing), (declare.name.clone(), false));

    let message = Message { key: "stomp-temp-session-s-1", body: b"re", ..Message::default() };
    peer.deliver(consume.consumer, 9, &message);
    assert_eq!(
        peer.written(),
        "MESSAGE\nsubscription:/temp-queue/me\ndestination:/queue/stomp-temp-session-s-1\n\
         message-id:T_/temp-queue/me@@session-s@@1-1\nredelivered:false\ncontent-length:2\n\nre\0"
    );
    peer.feed(frame);
    assert_eq!(peer.requests().len(), 1);
}

#[test]
fn other_reply_addresses_are_passed_on() {
    let mut peer = Peer::open("1.2");
    for reply_to in ["/queue/reply", "amq.gen-1", "/nonsense"] {
        let publish = sent(&mut peer, &format!("destination:/queue/a\nreply-to:{reply_to}"));
        let properties = Properties::decode(&publish.properties).unwrap();
        assert_eq!(properties.reply_to, Some(Text::from(reply_to)));
    }
    peer.feed("SEND\ndestination:/queue/a\nreply-to:/temp-queue/\n\n\0");
    peer.assert_error_message("Invalid destination");
}
