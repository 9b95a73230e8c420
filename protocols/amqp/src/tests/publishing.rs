use super::*;
use amq_protocol::{protocol::confirm, types::FieldTable};
use understudy_model::{Returned, Text};

fn confirm_select() -> AMQPClass {
    AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: true }))
}

fn ack(tag: u64, multiple: bool) -> AMQPFrame {
    let ack = basic::Ack { delivery_tag: tag, multiple };
    method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)))
}

fn nack(tag: u64) -> AMQPFrame {
    let nack = basic::Nack { delivery_tag: tag, multiple: false, requeue: false };
    method(1, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)))
}

fn confirming(publishes: usize) -> Client {
    let mut client = Client::with_channel();
    client.send(1, confirm_select());
    for _ in 0..publishes {
        client.send_bytes(&plain_publish(1, "q", b"x"));
    }
    client.forget();
    client
}

fn with_properties(properties: basic::AMQPProperties) -> Client {
    let mut client = Client::with_channel();
    client.send_bytes(&publish_frames(1, basic::Publish::default(), properties, b"body"));
    client
}

#[test]
fn qos_is_answered_behind_the_refusal_of_a_publish() {
    let mut client = Client::with_channel();
    client.send_bytes(&plain_publish(1, "k", b""));
    let qos = basic::Qos { prefetch_count: 1, global: false };
    client.basic(basic::AMQPMethod::Qos(qos));
    assert!(client.frames().is_empty());
    let token = client.token();
    let refusal = Refusal::new(RefusalKind::AccessRefused, "no");
    client.effects([Effect::PublishRefused { channel: 1, number: None, refusal }, done(token)]);
    client.expect_channel_closed(403, "ACCESS_REFUSED - no", (60, 40));
}

#[test]
fn a_publish_is_taken_in_pieces_of_any_size() {
    let properties = basic::AMQPProperties::default()
        .with_content_type("text/plain".into())
        .with_headers(FieldTable::default())
        .with_user_id("guest".into())
        .with_expiration("1000".into());
    let publish = basic::Publish {
        exchange: "e".into(),
        routing_key: "k".into(),
        mandatory: true,
        immediate: false,
    };
    let frames = publish_frames(1, publish, properties, b"hello");
    for step in [1, 2, 7, frames.len()] {
        let mut client = Client::with_channel();
        frames.chunks(step).for_each(|piece| client.send_bytes(piece));
        let requests = client.requests();
        let [Request::Publish(publish)] = &requests[..] else { panic!("step {step}") };
        assert_eq!((&publish.exchange[..], &publish.routing_key[..]), ("e", "k"));
        assert!(publish.mandatory && publish.confirm.is_none() && publish.channel == 1);
        assert_eq!(publish.body.pieces().flatten().copied().collect::<Vec<_>>(), b"hello");
        assert_eq!(&publish.properties[..2], &0xA110_u16.to_be_bytes());
    }
}

#[test]
fn an_empty_body_needs_no_body_frame_and_a_long_one_many() {
    let mut client = Client::with_channel();
    client.send_bytes(&plain_publish(1, "q", b""));
    let body: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let frames = plain_publish(1, "q", &body);
    let body_at = frames.len() - body.len() - 8;
    client.send_bytes(&frames[..body_at]);
    for piece in body.chunks(100_000) {
        client.send_bytes(&bytes_of(&AMQPFrame::Body(1, piece.to_vec())));
    }
    let requests = client.requests();
    let [Request::Publish(empty), Request::Publish(long)] = &requests[..] else { panic!() };
    assert!(empty.body.is_empty());
    assert_eq!(long.body.pieces().flatten().copied().collect::<Vec<_>>(), body);
    assert_eq!(long.body.pieces().count(), 3);
}

#[test]
fn a_message_that_is_too_large_costs_the_channel_and_its_body_is_skipped() {
    let options = AmqpOptions { message_bytes_max: 10, ..AmqpOptions::default() };
    let mut client = Client::open_with(options, 131_072);
    client.open_channel(1);
    client.send_bytes(&plain_publish(1, "q", b"eleven byte"));
    let text = "PRECONDITION_FAILED - message size 11 is larger than configured max size 10";
    client.expect_channel_closed(406, text, (60, 40));
    client.send(1, channel_close_ok());
    client.open_channel(1);
    client.forget();
    client.send_bytes(&plain_publish(1, "q", b"ten  bytes"));
    assert_eq!(client.requests().len(), 1);
}

#[test]
fn wrong_properties_are_refused() {
    let user = basic::AMQPProperties::default().with_user_id("somebody".into());
    with_properties(user).expect_channel_closed(
        406,
        "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was \
         'guest'",
        (60, 40),
    );
    let expiration = basic::AMQPProperties::default().with_expiration("-1".into());
    with_properties(expiration).expect_channel_closed(
        406,
        "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}",
        (60, 40),
    );
    let mut client = Client::with_channel();
    let mut frames = plain_publish(1, "q", b"");
    let flags_at = frames.len() - 3;
    frames[flags_at] = 0x80;
    client.send_bytes(&frames);
    client.expect_connection_closed(502, "SYNTAX_ERROR - malformed properties", (60, 40));
}

#[test]
fn frames_out_of_order_close_the_connection() {
    let frames = plain_publish(1, "q", b"body");
    let method_end = frames.iter().position(|octet| *octet == 0xCE).unwrap() + 1;
    let mut client = Client::with_channel();
    client.send_bytes(&frames[..method_end]);
    client.send_bytes(&frames[..method_end]);
    client.expect_connection_closed(
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame \
         instead",
        (60, 40),
    );
    let mut client = Client::with_channel();
    client.send_bytes(&frames[..frames.len() - 12]);
    client.send(1, confirm_select());
    client.expect_connection_closed(
        505,
        "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        (60, 40),
    );
    let mut client = Client::with_channel();
    client.send_bytes(&frames[..frames.len() - 12]);
    client.send_bytes(&bytes_of(&AMQPFrame::Body(1, b"longer".to_vec())));
    assert!(client.out.complaint.unwrap().contains("longer than its header announced"));
    let mut client = Client::with_channel();
    client.send_bytes(&frames[..method_end]);
    let properties = basic::AMQPProperties::default();
    let header = AMQPContentHeader { class_id: 50, body_size: 4, properties };
    client.send_bytes(&bytes_of(&AMQPFrame::Header(1, header)));
    client.expect_connection_closed(
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
        (60, 40),
    );
}

#[test]
fn immediate_is_not_implemented() {
    let mut client = Client::with_channel();
    let publish = basic::Publish { immediate: true, ..basic::Publish::default() };
    client.basic(basic::AMQPMethod::Publish(publish));
    client.expect_connection_closed(540, "NOT_IMPLEMENTED - immediate=true", (60, 40));
}

#[test]
fn publishes_are_numbered_from_one_and_confirms_are_folded() {
    let mut client = Client::with_channel();
    client.send(1, confirm_select());
    client.send(1, confirm_select());
    for _ in 0..3 {
        client.send_bytes(&plain_publish(1, "q", b"x"));
    }
    let numbers: Vec<_> = client
        .requests()
        .iter()
        .map(|request| match request {
            Request::Publish(publish) => publish.confirm,
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    client.effects([Effect::Confirm { channel: 1, through: 1 }]);
    assert_eq!(client.frames(), [ack(1, false)]);
    client.effects((2..=3).map(|through| Effect::Confirm { channel: 1, through }));
    assert_eq!(client.frames(), [ack(3, true)]);
    client.effects([Effect::Confirm { channel: 1, through: 3 }]);
    assert!(client.frames().is_empty());
}

#[test]
fn a_nack_goes_out_before_the_ack_that_passes_it() {
    let mut client = confirming(8);
    client.effects([
        Effect::Confirm { channel: 1, through: 3 },
        Effect::Nack { channel: 1, number: 4 },
        Effect::Confirm { channel: 1, through: 6 },
    ]);
    assert_eq!(client.frames(), [nack(4), ack(6, true)]);
    client.effects([
        Effect::Nack { channel: 1, number: 7 },
        Effect::Confirm { channel: 1, through: 8 },
    ]);
    assert_eq!(client.frames(), [nack(7), ack(8, false)]);
}

#[test]
fn a_refused_publish_closes_the_channel_after_what_is_confirmed() {
    let mut client = confirming(3);
    let refusal = Refusal::new(RefusalKind::NotFound, "no exchange 'e' in vhost '/'");
    client.effects([
        Effect::Confirm { channel: 1, through: 2 },
        Effect::PublishRefused { channel: 1, number: Some(3), refusal },
        Effect::Confirm { channel: 1, through: 3 },
    ]);
    let frames = client.frames();
    assert_eq!(frames[0], ack(2, true));
    let [AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::Close(close)))] =
        &frames[1..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!((close.reply_code, close.class_id, close.method_id), (404, 60, 40));
}

#[test]
fn an_unroutable_message_comes_back_before_its_confirm() {
    let mut client = confirming(1);
    let returned = Returned {
        channel: 1,
        code: 312,
        text: Text::from_static("NO_ROUTE"),
        exchange: "amq.direct".into(),
        routing_key: "nobody".into(),
        properties: Bytes::from_static(&[0, 0]),
        body: (&b"x"[..]).into(),
    };
    client.effects([
        Effect::Returned(Box::new(returned)),
        Effect::Confirm { channel: 1, through: 1 },
    ]);
    let returned = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: "amq.direct".into(),
        routing_key: "nobody".into(),
    };
    let header = AMQPContentHeader {
        class_id: 60,
        body_size: 1,
        properties: basic::AMQPProperties::default(),
    };
    let expected = [
        method(1, AMQPClass::Basic(basic::AMQPMethod::Return(returned))),
        AMQPFrame::Header(1, header),
        AMQPFrame::Body(1, b"x".to_vec()),
        ack(1, false),
    ];
    assert_eq!(client.frames(), expected);
}
