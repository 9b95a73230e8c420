use super::*;
use amq_protocol::protocol::{exchange, queue};

fn declare(name: &str) -> AMQPClass {
    let declare = queue::Declare { queue: name.into(), ..queue::Declare::default() };
    AMQPClass::Queue(queue::AMQPMethod::Declare(declare))
}

fn purge(name: &str) -> AMQPClass {
    let purge = queue::Purge { queue: name.into(), nowait: false };
    AMQPClass::Queue(queue::AMQPMethod::Purge(purge))
}

#[test]
fn a_channel_error_costs_the_channel_and_its_number_can_be_used_again() {
    let mut client = Client::with_channel();
    client.send(1, purge("none"));
    let token = client.token();
    client.effects([refused(token, RefusalKind::NotFound, "no queue 'none' in vhost '/'")]);
    client.expect_channel_closed(404, "NOT_FOUND - no queue 'none' in vhost '/'", (50, 30));
    let barrier = client.token();

    // What was in flight is dropped until the client has answered.
    client.send(1, declare("q"));
    client.send_bytes(&plain_publish(1, "q", b"body"));
    assert!(client.requests().is_empty() && client.frames().is_empty());
    client.send(1, channel_close_ok());
    client.open_channel(1);
    // A late effect of the old channel is not the new one's.
    let refusal = Refusal::new(RefusalKind::NotFound, "no exchange");
    client.effects([Effect::PublishRefused { channel: 1, number: None, refusal }]);
    assert!(client.frames().is_empty());
    client.effects([done(barrier)]);
    assert!(client.frames().is_empty());
    let refusal = Refusal::new(RefusalKind::NotFound, "no exchange 'e' in vhost '/'");
    client.effects([Effect::PublishRefused { channel: 1, number: None, refusal }]);
    client.expect_channel_closed(404, "NOT_FOUND - no exchange 'e' in vhost '/'", (60, 40));
}

#[test]
fn a_clients_close_is_answered_after_what_it_asked() {
    let mut client = Client::with_channel();
    client.send(1, declare("q"));
    client.requests();
    client.send(1, channel_close());
    let barrier = client.token();
    assert!(client.frames().is_empty());
    client.effects([done(barrier)]);
    assert_eq!(client.frames(), [method(1, channel_close_ok())]);
    client.open_channel(1);
}

#[test]
fn crossing_closes_are_both_answered() {
    let mut client = Client::with_channel();
    client.basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 9, multiple: false }));
    client.written();
    client.send(1, channel_close());
    assert_eq!(client.frames(), [method(1, channel_close_ok())]);
    client.send(1, channel_close_ok());
    client.open_channel(1);
}

#[test]
fn hard_errors_close_the_connection() {
    type Act = fn(&mut Client);
    let cases: [(Act, u16, &str, (u16, u16)); 9] = [
        (
            |client| client.send(2, declare("q")),
            504,
            "CHANNEL_ERROR - expected 'channel.open'",
            (50, 10),
        ),
        (
            |client| client.send(1, channel_open()),
            504,
            "CHANNEL_ERROR - second 'channel.open' seen",
            (20, 10),
        ),
        (
            |client| client.send(0, declare("q")),
            504,
            "CHANNEL_ERROR - unexpected method in connection state running",
            (50, 10),
        ),
        (
            |client| client.send(2_048, channel_open()),
            530,
            "NOT_ALLOWED - channel 2048 is above the agreed channel_max (2047)",
            (0, 0),
        ),
        (
            |client| client.send_bytes(&[8, 0, 1, 0, 0, 0, 0, 0xCE]),
            505,
            "UNEXPECTED_FRAME - type 8, all octets = <<>>",
            (0, 0),
        ),
        (
            |client| client.send_bytes(&[9, 0, 1, 0, 0, 0, 1, b'x', 0xCE]),
            501,
            "FRAME_ERROR - type 9, all octets = <<\"x\">>: unknown_frame",
            (0, 0),
        ),
        (
            |client| client.send_bytes(&[1, 0, 1, 0, 0, 0, 9, 0, 50, 0, 10, 0, 0, 5, 97, 98, 0xCE]),
            501,
            "FRAME_ERROR - cannot decode <<0,0,5,97,98>>",
            (50, 10),
        ),
        (
            |client| {
                let flow = channel::Flow { active: false };
                client.send(1, AMQPClass::Channel(channel::AMQPMethod::Flow(flow)));
            },
            540,
            "NOT_IMPLEMENTED - active=false",
            (20, 20),
        ),
        (
            |client| client.send_bytes(&[3, 0, 1, 0, 0, 0, 1, b'x', 0xCE]),
            505,
            "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
            (0, 0),
        ),
    ];
    for (act, code, text, id) in cases {
        let mut client = Client::with_channel();
        act(&mut client);
        client.expect_connection_closed(code, text, id);
    }
}

#[test]
fn an_empty_queue_name_is_the_last_one_declared() {
    let mut client = Client::with_channel();
    client.send(1, purge(""));
    client.expect_channel_closed(404, "NOT_FOUND - no previously declared queue", (50, 30));

    let mut client = Client::with_channel();
    client.send(1, declare(""));
    let requests = client.requests();
    let [Request::DeclareQueue(asked)] = &requests[..] else { panic!() };
    assert_eq!((&asked.name[..], &asked.server_named_prefix[..]), ("", "amq.gen-"));
    let reply = Reply::Queue { name: "amq.gen-7".into(), messages: 3, consumers: 2 };
    client.effects([Effect::Reply { token: asked.token, result: Ok(reply) }]);
    let answer =
        queue::DeclareOk { queue: "amq.gen-7".into(), message_count: 3, consumer_count: 2 };
    let answer = AMQPClass::Queue(queue::AMQPMethod::DeclareOk(answer));
    assert_eq!(client.frames(), [method(1, answer)]);

    let bind = queue::Bind { exchange: "amq.direct".into(), ..queue::Bind::default() };
    client.send(1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    let requests = client.requests();
    let [Request::Bind(bind)] = &requests[..] else { panic!() };
    assert_eq!((&bind.destination[..], &bind.key[..]), ("amq.gen-7", "amq.gen-7"));
    client.effects([done(bind.token)]);
    let answer = AMQPClass::Queue(queue::AMQPMethod::BindOk(queue::BindOk {}));
    assert_eq!(client.frames(), [method(1, answer)]);
}

#[test]
fn topology_methods_become_requests_with_their_raw_arguments() {
    let mut client = Client::with_channel();
    let mut arguments = FieldTable::default();
    arguments.insert("alternate-exchange".into(), amq_protocol::types::AMQPValue::LongInt(3));
    let declare = exchange::Declare {
        exchange: "e\r\n".into(),
        kind: "topic".into(),
        durable: true,
        nowait: true,
        arguments,
        ..exchange::Declare::default()
    };
    client.send(1, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)));
    let requests = client.requests();
    let [Request::DeclareExchange(asked)] = &requests[..] else { panic!() };
    assert_eq!((&asked.name[..], &asked.kind[..], asked.durable), ("e", "topic", true));
    assert_eq!(&asked.arguments[..], b"\x12alternate-exchangeI\0\0\0\x03");
    client.effects([done(asked.token)]);
    assert!(client.frames().is_empty());

    let bind = exchange::Bind {
        destination: "d".into(),
        source: "s".into(),
        routing_key: "k".into(),
        ..exchange::Bind::default()
    };
    client.send(1, AMQPClass::Exchange(exchange::AMQPMethod::Bind(bind)));
    let requests = client.requests();
    let [Request::Bind(bind)] = &requests[..] else { panic!() };
    assert!(bind.to_exchange && bind.source == "s" && bind.destination == "d");
    client.effects([refused(bind.token, RefusalKind::CommandInvalid, "no")]);
    client.expect_connection_closed(503, "COMMAND_INVALID - no", (40, 30));
}

#[test]
fn deletes_and_purges_tell_how_many_messages_went() {
    let mut client = Client::with_channel();
    let delete = queue::Delete { queue: "q".into(), if_empty: true, ..queue::Delete::default() };
    client.send(1, AMQPClass::Queue(queue::AMQPMethod::Delete(delete)));
    let token = client.token();
    client.effects([Effect::Reply { token, result: Ok(Reply::Removed { messages: 4 }) }]);
    client.send(1, purge("q"));
    let token = client.token();
    client.effects([Effect::Reply { token, result: Ok(Reply::Removed { messages: 5 }) }]);
    let expected = [
        queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count: 4 }),
        queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count: 5 }),
    ];
    let expected = expected.map(|answer| method(1, AMQPClass::Queue(answer)));
    assert_eq!(client.frames(), expected);
}

#[test]
fn many_channels_open_and_close_in_a_loop() {
    let mut client = Client::open();
    for _ in 0..1_000 {
        client.open_channel(3);
        client.send(3, channel_close());
        let barrier = client.token();
        client.effects([done(barrier)]);
        assert_eq!(client.frames(), [method(3, channel_close_ok())]);
    }
}
