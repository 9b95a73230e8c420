use super::*;
use understudy_model::{AckMode, Credit, DeliveryRef};

fn consume(tag: &str, no_ack: bool) -> basic::AMQPMethod {
    basic::AMQPMethod::Consume(basic::Consume {
        queue: "q".into(),
        consumer_tag: tag.into(),
        no_ack,
        ..basic::Consume::default()
    })
}

/// A client with a consumer on channel 1.
fn consuming(no_ack: bool) -> (Client, ConsumerNumber) {
    let mut client = Client::with_channel();
    client.basic(consume("t", no_ack));
    let requests = client.requests();
    let [Request::Consume(asked)] = &requests[..] else { panic!() };
    let (token, consumer) = (asked.token, asked.consumer);
    client.effects([done(token)]);
    client.forget();
    (client, consumer)
}

fn deliveries(client: &mut Client, consumer: ConsumerNumber, lsns: std::ops::RangeInclusive<u64>) {
    client.effects(lsns.map(|lsn| Effect::Deliver(delivery(consumer, lsn, b"body"))));
    client.forget();
}

fn references(consumer: ConsumerNumber, lsns: &[u64]) -> Vec<DeliveryRef> {
    let queue = QueueId(Lsn(1));
    lsns.iter().map(|&lsn| DeliveryRef { consumer, queue, lsn: Lsn(lsn) }).collect()
}

fn ack(tag: u64, multiple: bool) -> basic::AMQPMethod {
    basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple })
}

#[test]
fn a_consumer_gets_a_tag_and_its_deliveries_rising_numbers() {
    let mut client = Client::with_channel();
    let qos = basic::Qos { prefetch_count: 7, global: false };
    client.basic(basic::AMQPMethod::Qos(qos));
    client.basic(consume("", false));
    let requests = client.requests();
    let [Request::Consume(asked)] = &requests[..] else { panic!() };
    assert_eq!(asked.credit, Credit::Prefetch(7));
    assert_eq!((asked.ack, asked.priority, &asked.queue[..]), (AckMode::Manual, 0, "q"));
    client.effects([done(asked.token), Effect::Deliver(delivery(asked.consumer, 5, b"body"))]);
    let frames = client.frames();
    let [_, AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok))), ..] =
        &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert!(ok.consumer_tag.as_str().starts_with("amq.ctag-"));
    let deliver = basic::Deliver {
        consumer_tag: ok.consumer_tag.clone(),
        delivery_tag: 1,
        redelivered: false,
        exchange: "x".into(),
        routing_key: "k".into(),
    };
    let header = AMQPContentHeader {
        class_id: 60,
        body_size: 4,
        properties: basic::AMQPProperties::default().with_delivery_mode(2),
    };
    let expected = [
        method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))),
        AMQPFrame::Header(1, header),
        AMQPFrame::Body(1, b"body".to_vec()),
    ];
    assert_eq!(frames[2..], expected);
}

#[test]
fn bodies_are_split_by_the_agreed_frame_max() {
    let mut client = Client::open_with(AmqpOptions::default(), 4_096);
    client.open_channel(1);
    client.basic(consume("t", true));
    let requests = client.requests();
    let [Request::Consume(asked)] = &requests[..] else { panic!() };
    static BODY: [u8; 10_000] = [7; 10_000];
    client.effects([Effect::Deliver(delivery(asked.consumer, 1, &BODY))]);
    let lengths: Vec<_> = client
        .frames()
        .iter()
        .filter_map(|frame| match frame {
            AMQPFrame::Body(1, body) => Some(body.len()),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [4_088, 4_088, 1_824]);
}

#[test]
fn acks_of_one_read_are_one_request() {
    let (mut client, consumer) = consuming(false);
    deliveries(&mut client, consumer, 11..=16);
    let mut bytes = Vec::new();
    for (tag, multiple) in [(2, false), (1, false), (4, true)] {
        bytes.extend(bytes_of(&method(1, AMQPClass::Basic(ack(tag, multiple)))));
    }
    client.send_bytes(&bytes);
    let all = references(consumer, &[12, 11, 13, 14]);
    assert_eq!(client.requests(), [Request::Settle { deliveries: all, token: None }]);
    client.basic(basic::AMQPMethod::Reject(basic::Reject { delivery_tag: 5, requeue: false }));
    let nack = basic::Nack { delivery_tag: 0, multiple: true, requeue: true };
    client.basic(basic::AMQPMethod::Nack(nack));
    let expected = [
        Request::Discard { deliveries: references(consumer, &[15]), token: None },
        Request::Return { deliveries: references(consumer, &[16]), token: None },
    ];
    assert_eq!(client.requests(), expected);
    client.basic(ack(0, true));
    assert!(client.requests().is_empty() && client.frames().is_empty());
}

#[test]
fn unknown_tags_cost_the_channel() {
    for (tag, multiple) in [(1, false), (0, false), (9, true)] {
        let (mut client, consumer) = consuming(false);
        deliveries(&mut client, consumer, 1..=2);
        client.basic(ack(1, false));
        client.forget();
        client.basic(ack(tag, multiple));
        let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
        client.expect_channel_closed(406, &text, (60, 80));
        // What the channel held goes back, and its consumer first.
        let requests = client.requests();
        let [Request::Cancel { token: Token(0), .. }, Request::Return { deliveries, .. }, _] =
            &requests[..]
        else {
            panic!("{requests:?}")
        };
        assert_eq!(*deliveries, references(consumer, &[2]));
        client.effects([Effect::Deliver(delivery(consumer, 3, b""))]);
        let late = references(consumer, &[3]);
        assert_eq!(client.requests(), [Request::Return { deliveries: late, token: None }]);
        assert!(client.frames().is_empty());
    }
}

#[test]
fn deliveries_without_ack_are_not_remembered() {
    let (mut client, consumer) = consuming(true);
    deliveries(&mut client, consumer, 1..=2);
    client.basic(ack(1, false));
    client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", (60, 80));
}

#[test]
fn a_cancel_is_answered_and_its_deliveries_stay() {
    let (mut client, consumer) = consuming(false);
    deliveries(&mut client, consumer, 1..=1);
    let cancel = basic::Cancel { consumer_tag: "t".into(), nowait: false };
    client.basic(basic::AMQPMethod::Cancel(cancel.clone()));
    let token = client.token();
    // One that was on its way.
    client.effects([Effect::Deliver(delivery(consumer, 2, b"")), done(token)]);
    let frames = client.frames();
    let cancel_ok = basic::CancelOk { consumer_tag: "t".into() };
    let cancel_ok = method(1, AMQPClass::Basic(basic::AMQPMethod::CancelOk(cancel_ok)));
    assert_eq!((frames.len(), frames.last()), (3, Some(&cancel_ok)));
    client.basic(ack(2, true));
    let both = references(consumer, &[1, 2]);
    assert_eq!(client.requests(), [Request::Settle { deliveries: both, token: None }]);
    client.basic(basic::AMQPMethod::Cancel(cancel));
    assert_eq!(client.frames(), [cancel_ok]);
    assert!(client.requests().is_empty());
}

#[test]
fn the_brokers_cancel_is_told() {
    let (mut client, consumer) = consuming(false);
    client.effects([Effect::Cancelled { consumer }]);
    let cancel = basic::Cancel { consumer_tag: "t".into(), nowait: true };
    let cancel = AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel));
    assert_eq!(client.frames(), [method(1, cancel)]);
    client.basic(consume("t", false));
    assert_eq!(client.requests().len(), 1);
}

#[test]
fn a_tag_in_use_is_not_allowed() {
    let (mut client, _) = consuming(false);
    client.basic(consume("t", false));
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 't'";
    client.expect_connection_closed(530, text, (60, 20));
}

/// Its cancel is not answered yet, and must not take the new one's place.
#[test]
fn a_tag_is_free_once_its_cancel_is_asked_for() {
    let (mut client, _) = consuming(false);
    let cancel = || {
        let cancel = basic::Cancel { consumer_tag: "t".into(), nowait: false };
        basic::AMQPMethod::Cancel(cancel)
    };
    client.basic(cancel());
    let cancelled = client.token();
    client.basic(consume("t", false));
    let requests = client.requests();
    let [Request::Consume(again)] = &requests[..] else { panic!("{requests:?}") };
    client.effects([done(cancelled), done(again.token)]);
    client.forget();
    client.basic(cancel());
    let requests = client.requests();
    let [Request::Cancel { consumer, .. }] = requests[..] else { panic!("{requests:?}") };
    assert_eq!(consumer, again.consumer);
}

#[test]
fn consumers_of_a_channel_are_limited() {
    let options = AmqpOptions { consumers_per_channel_max: 2, ..AmqpOptions::default() };
    let mut client = Client::open_with(options, 131_072);
    client.open_channel(1);
    for tag in ["one", "two"] {
        client.basic(consume(tag, false));
        assert_eq!(client.requests().len(), 1, "{tag}");
    }
    client.basic(consume("three", false));
    let text = "RESOURCE_ERROR - more than 2 consumers on one channel";
    client.expect_connection_closed(506, text, (60, 20));
}

#[test]
fn a_refused_consume_frees_its_tag() {
    let mut client = Client::with_channel();
    client.basic(consume("t", false));
    let token = client.token();
    client.effects([refused(token, RefusalKind::NotFound, "no queue 'q' in vhost '/'")]);
    client.expect_channel_closed(404, "NOT_FOUND - no queue 'q' in vhost '/'", (60, 20));
    let [Request::Barrier { token }] = client.requests()[..] else { panic!("a barrier") };
    client.send(1, channel_close_ok());
    client.effects([done(token)]);
    client.open_channel_after(1);
    client.basic(consume("t", false));
    assert!(matches!(client.requests()[..], [Request::Consume(_)]));
}

#[test]
fn x_priority_must_be_an_integer() {
    use amq_protocol::types::AMQPValue;
    let with = |value| {
        let mut client = Client::with_channel();
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), value);
        let consume = basic::Consume { queue: "q".into(), arguments, ..basic::Consume::default() };
        client.basic(basic::AMQPMethod::Consume(consume));
        client
    };
    let requests = with(AMQPValue::LongLongInt(-4)).requests();
    assert!(matches!(&requests[..], [Request::Consume(asked)] if asked.priority == -4));
    with(AMQPValue::LongString("high".into())).expect_channel_closed(
        406,
        "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \
         \"expected integer, got longstr\"",
        (60, 20),
    );
}

#[test]
fn a_get_is_answered_with_a_message_or_empty() {
    let mut client = Client::with_channel();
    let get = basic::Get { queue: "q".into(), no_ack: false };
    client.basic(basic::AMQPMethod::Get(get.clone()));
    let requests = client.requests();
    let [Request::Get(asked)] = &requests[..] else { panic!() };
    let got = Effect::Got {
        token: asked.token,
        delivery: delivery(asked.consumer, 3, b""),
        remaining: 2,
    };
    client.effects([got]);
    let frames = client.frames();
    let [AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::GetOk(ok))), _] = &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!((ok.delivery_tag, ok.message_count), (1, 2));
    client.basic(ack(1, false));
    let settled = references(asked.consumer, &[3]);
    assert_eq!(client.requests(), [Request::Settle { deliveries: settled, token: None }]);

    client.basic(basic::AMQPMethod::Get(get.clone()));
    let token = client.token();
    client.effects([Effect::Reply { token, result: Ok(Reply::GetEmpty) }]);
    let empty = AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {}));
    assert_eq!(client.frames(), [method(1, empty)]);

    // The channel is gone when the message comes: it goes back.
    client.basic(basic::AMQPMethod::Get(get));
    let token = client.token();
    client.send(1, channel_close());
    client.requests();
    let delivery = delivery(asked.consumer, 4, b"");
    client.effects([Effect::Got { token, delivery, remaining: 0 }]);
    let back = references(asked.consumer, &[4]);
    assert_eq!(client.requests(), [Request::Return { deliveries: back, token: None }]);
}

#[test]
fn recover_gives_everything_back() {
    let (mut client, consumer) = consuming(false);
    deliveries(&mut client, consumer, 1..=2);
    client.basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true }));
    let requests = client.requests();
    let [Request::Return { deliveries, token: Some(token) }] = &requests[..] else { panic!() };
    assert_eq!(*deliveries, references(consumer, &[1, 2]));
    client.effects([done(*token)]);
    let recover_ok = AMQPClass::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {}));
    assert_eq!(client.frames(), [method(1, recover_ok)]);
    client.basic(basic::AMQPMethod::RecoverAsync(basic::RecoverAsync { requeue: false }));
    client.expect_connection_closed(540, "NOT_IMPLEMENTED - requeue=false", (60, 100));
}

#[test]
fn a_shared_prefetch_ends_with_its_channel() {
    let mut client = Client::with_channel();
    let qos = basic::Qos { prefetch_count: 5, global: true };
    client.basic(basic::AMQPMethod::Qos(qos));
    let expected = [Request::ChannelPrefetch { channel: 1, limit: 5 }];
    assert_eq!(client.requests(), expected);
    client.send(1, channel_close());
    let requests = client.requests();
    assert_eq!(requests[0], Request::ChannelPrefetch { channel: 1, limit: 0 });

    let mut client = Client::with_channel();
    client.send_bytes(&[1, 0, 1, 0, 0, 0, 11, 0, 60, 0, 10, 0, 0, 0, 10, 0, 1, 0, 0xCE]);
    client.expect_connection_closed(540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)", (60, 10));
}

#[test]
fn a_delivery_that_is_never_acked_costs_the_channel_if_time_is_limited() {
    let options = AmqpOptions { consumer_timeout_ms: 30_000, ..AmqpOptions::default() };
    let mut client = Client::open_with(options, 131_072);
    client.open_channel(1);
    client.basic(consume("t", false));
    let requests = client.requests();
    let [Request::Consume(asked)] = &requests[..] else { panic!() };
    let (token, consumer) = (asked.token, asked.consumer);
    client.effects([done(token)]);
    client.now_ms = 5_000;
    deliveries(&mut client, consumer, 1..=2);
    client.timer(20_000);
    client.basic(ack(1, false));
    deliveries(&mut client, consumer, 3..=3);
    client.forget();
    client.timer(34_000);
    assert!(client.session.deadline_ms().unwrap() <= 37_000);
    client.forget();
    client.timer(38_000);
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. \
                Timeout value used: 30000 ms";
    client.expect_channel_closed(406, text, (0, 0));
    let returned = client.requests().into_iter().find_map(|request| match request {
        Request::Return { deliveries, .. } => Some(deliveries),
        _ => None,
    });
    assert_eq!(returned, Some(references(consumer, &[2, 3])));
}
