//! One frame of each kind, every field away from its default.

use bytes::Bytes;
use understudy_native::*;

pub(crate) fn deliveries() -> Deliveries {
    Deliveries { consumer: 3, queue: 500, lsns: vec![1, 1 << 20, u64::MAX] }
}

pub(crate) fn publish(sequence: u64, body: &'static [u8]) -> Publish {
    Publish {
        sequence,
        flags: PublishFlags { confirm: true, mandatory: true, declare_missing: true, dedup: true },
        exchange: "exchange".into(),
        routing_key: "a.ключ".into(),
        properties: Bytes::from_static(&[0x10, 0, 2]),
        body: Bytes::from_static(body),
    }
}

fn deliver() -> Deliver {
    Deliver {
        consumer: 3,
        queue: 500,
        lsn: 1 << 33,
        redelivered: true,
        exchange: "exchange".into(),
        routing_key: "key".into(),
        properties: Bytes::from_static(&[0, 0]),
        body: Bytes::from_static(b"body"),
    }
}

fn arguments() -> Bytes {
    let mut table = Table::default();
    table.push("x-max-length", Value::I32(7));
    table.to_bytes()
}

fn handshake() -> Vec<Frame> {
    vec![
        Hello { client_name: "me".into(), producer: u128::MAX - 5, heartbeat_ms: 1_000 }.into(),
        HelloOk {
            node_name: "master".into(),
            version: "0.1".into(),
            frame_bytes_max: 1 << 24,
            message_bytes_max: 1 << 23,
            heartbeat_ms: 500,
        }
        .into(),
        Login { user: "guest".into(), password: Bytes::from_static(b"\xff\0") }.into(),
        LoginOk { user: "guest".into() }.into(),
        Open { request: 1, vhost: "/".into() }.into(),
        Ping { number: 200 }.into(),
        Pong { number: 200 }.into(),
        Goodbye { reason: "enough".into() }.into(),
        Error { code: 501, text: "what?".into() }.into(),
    ]
}

fn requests() -> Vec<Frame> {
    let (request, name) = (300, Text::from("queue"));
    let (source, destination, key) = (Text::from("ex"), Text::from("q"), Text::from("#"));
    vec![
        DeclareQueue {
            request,
            name: name.clone(),
            passive: true,
            durable: true,
            exclusive: true,
            auto_delete: true,
            arguments: arguments(),
        }
        .into(),
        DeleteQueue { request, name: name.clone(), if_unused: true, if_empty: true }.into(),
        PurgeQueue { request, name: name.clone() }.into(),
        DeclareExchange {
            request,
            name: name.clone(),
            kind: "topic".into(),
            passive: true,
            durable: true,
            auto_delete: true,
            internal: true,
            arguments: arguments(),
        }
        .into(),
        DeleteExchange { request, name: name.clone(), if_unused: true }.into(),
        Bind {
            request,
            source: source.clone(),
            destination: destination.clone(),
            to_exchange: true,
            key: key.clone(),
            arguments: arguments(),
        }
        .into(),
        Unbind { request, source, destination, to_exchange: true, key, arguments: arguments() }
            .into(),
        publish(9, b"body").into(),
        Transaction {
            request,
            commit: 10,
            publishes: vec![publish(10, b"one"), publish(11, b"")],
            settles: vec![deliveries(), deliveries()],
            discards: vec![deliveries()],
            returns: vec![deliveries()],
        }
        .into(),
        Outcome { request, commit: 10 }.into(),
        Consume {
            request,
            consumer: 3,
            queue: name.clone(),
            ack: AckMode::Manual,
            exclusive: true,
            priority: -9,
            windowed: true,
            credit: 1_000,
        }
        .into(),
        Cancel { request, consumer: 3 }.into(),
        Credit { consumer: 3, credit: 500 }.into(),
        Get { request, queue: name, ack: AckMode::Manual }.into(),
        Settle { request, deliveries: deliveries() }.into(),
        Discard { request, deliveries: deliveries() }.into(),
        Return { request, deliveries: deliveries() }.into(),
    ]
}

fn answers() -> Vec<Frame> {
    let request = 300;
    vec![
        Done { request }.into(),
        QueueOk { request, name: "queue".into(), messages: 1_000, consumers: 2 }.into(),
        Removed { request, messages: 1_000 }.into(),
        GetEmpty { request }.into(),
        Got { request, remaining: 1_000, delivery: deliver() }.into(),
        Refused { request, code: 404, text: "NOT_FOUND".into() }.into(),
        AlreadyCommitted { request }.into(),
        Confirm { through: 1 << 40 }.into(),
        Nack { sequence: 1 << 40 }.into(),
        PublishRefused { sequence: 1 << 40, code: 404, text: "NOT_FOUND".into() }.into(),
        Returned {
            code: 312,
            text: "NO_ROUTE".into(),
            exchange: "exchange".into(),
            routing_key: "key".into(),
            properties: Bytes::from_static(&[0, 0]),
            body: Bytes::from_static(b"body"),
        }
        .into(),
        deliver().into(),
        Cancelled { consumer: 3 }.into(),
        Blocked { reason: "disk".into() }.into(),
        Unblocked {}.into(),
        Moved { addresses: "tcp://b:61616,ssl://b:61617".into() }.into(),
    ]
}

pub(crate) fn frames() -> Vec<Frame> {
    [handshake(), requests(), answers()].concat()
}
