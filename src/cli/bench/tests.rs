//! Without a broker: what one says in any pieces, before it closes too, and how a producer keeps count.

use super::address::Address;
use super::amqp::AmqpWire;
use super::connection::{Connection, Role};
use super::load::{Ack, Load};
use super::meter::{Counters, Latencies, Shared};
use super::native::NativeWire;
use super::producer::Producer;
use super::seen::Ledger;
use super::stomp::StompWire;
use super::wire::{Event, Purpose, Stamp, Wire};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use understudy_native::{Confirm, Decoder, Frame, WriteBuffer};

fn load(ack: Ack) -> Arc<Load> {
    Arc::new(Load {
        servers: vec!["amqp://one".parse().unwrap()],
        name: "bench".to_owned(),
        run: 1,
        producers: 1,
        consumers: 1,
        queues: 2,
        fanout: false,
        size: 64,
        persistent: true,
        durable: true,
        queue_arguments: Vec::new(),
        window: 10,
        ack,
        ack_every: 1,
        prefetch: 10,
        rate: None,
        messages: 10,
        duration: None,
        patience: Duration::from_secs(1),
        reconnects: false,
        purges: true,
    })
}

fn address() -> Address {
    "stomp://one".parse().unwrap()
}

/// All events of `input`, which comes `step` bytes at a time.
fn events(wire: &mut dyn Wire, input: &[u8], step: usize) -> Vec<Event> {
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for part in input.chunks(step) {
        buffer.extend_from_slice(part);
        loop {
            let (used, event) = wire.next(&buffer, &mut Vec::new()).unwrap();
            buffer.drain(..used);
            match event {
                Some(event) => found.push(event),
                None => break,
            }
        }
    }
    assert!(buffer.is_empty());
    found
}

const PUBLISH: Purpose = Purpose::Publish { producer: 1 };
const STAMP: Stamp = Stamp { run: 1, producer: 0, sequence: 9, due_ns: 5 };

fn body() -> Vec<u8> {
    let mut body = STAMP.encode().to_vec();
    body.resize(64, b'x');
    body
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = (payload.len() as u32).to_be_bytes();
    [&[kind, 0, 1], &size[..], payload, &[0xCE]].concat()
}

#[test]
fn amqp_events_come_out_whatever_the_pieces() {
    let tag = |tag: u64| tag.to_be_bytes();
    let body = body();
    let deliver = [&[0, 60, 0, 60, 1, b'1'], &tag(3)[..], &[1, 0, 7], b"bench-1"].concat();
    let header = [&[0, 60, 0, 0], &64_u64.to_be_bytes()[..], &[0x10, 0, 2]].concat();
    let input = [
        frame(1, &[&[0, 60, 0, 80], &tag(7)[..], &[1]].concat()),
        frame(8, &[]),
        frame(1, &deliver),
        frame(2, &header),
        // The stamp in two frames.
        frame(3, &body[..10]),
        frame(3, &body[10..]),
        frame(1, &[&[0, 60, 0, 120], &tag(8)[..], &[0]].concat()),
    ]
    .concat();
    for step in 1..input.len() {
        let mut wire =
            AmqpWire::new(address(), load(Ack::Cumulative), Purpose::Consume(vec![0, 1]));
        let wanted = [
            Event::Confirmed { number: 7, multiple: true },
            Event::Delivered { queue: 1, redelivered: true, stamp: Some(STAMP) },
            Event::Nacked { number: 8, multiple: false },
        ];
        assert_eq!(events(&mut wire, &input, step), wanted, "{step} at a time");
        let mut out = Vec::new();
        wire.settle(&mut out);
        assert_eq!(out, frame(1, &[&[0, 60, 0, 80], &tag(3)[..], &[1]].concat()));
        out.clear();
        wire.settle(&mut out);
        assert!(out.is_empty(), "settled already");
    }
}

#[test]
fn a_body_longer_than_a_frame_is_cut() {
    let long = Load { size: 300_000, ..(*load(Ack::Auto)).clone() };
    let mut wire = AmqpWire::new(address(), Arc::new(long), PUBLISH);
    let mut out = Vec::new();
    wire.publish(0, 1, &STAMP, &mut out);
    let (mut bodies, mut at) = (Vec::new(), 0);
    while at < out.len() {
        let size = u32::from_be_bytes(out[at + 3..at + 7].try_into().unwrap()) as usize;
        assert!(size + 8 <= 128 * 1024);
        if out[at] == 3 {
            bodies.extend_from_slice(&out[at + 7..at + 7 + size]);
        }
        at += size + 8;
    }
    assert_eq!((bodies.len(), Stamp::decode(&bodies)), (300_000, Some(STAMP)));
}

#[test]
fn stomp_events_come_out_whatever_the_pieces() {
    let message = |head: &str| [head.as_bytes(), &body(), b"\0\n"].concat();
    let input = [
        b"RECEIPT\nreceipt-id:12\n\n\0\n\n".to_vec(),
        message("MESSAGE\nsubscription:1\nack:a\\cb\ncontent-length:64\n\n"),
        message(
            "MESSAGE\r\nredelivered:true\r\nsubscription:0\r\nack:z\r\ncontent-length:64\r\n\r\n",
        ),
        message("MESSAGE\nsubscription:1\nack:last\ncontent-length:64\n\n"),
    ]
    .concat();
    let delivered =
        |queue, redelivered| Event::Delivered { queue, redelivered, stamp: Some(STAMP) };
    let wanted = [
        Event::Confirmed { number: 12, multiple: false },
        delivered(1, false),
        delivered(0, true),
        delivered(1, false),
    ];
    let acks = [
        (Ack::Cumulative, "ACK\nid:z\n\n\0ACK\nid:last\n\n\0"),
        (Ack::Individual, "ACK\nid:z\n\n\0ACK\nid:a\\cb\n\n\0ACK\nid:last\n\n\0"),
        (Ack::Auto, ""),
    ];
    for (ack, settled) in acks {
        for step in 1..input.len() {
            let mut wire = StompWire::new(address(), load(ack), Purpose::Consume(vec![0, 1]));
            // The last line end waits for the next frame.
            let input = &input[..input.len() - 1];
            assert_eq!(events(&mut wire, input, step), wanted, "{step} at a time");
            let mut out = Vec::new();
            wire.settle(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), settled);
        }
    }
}

#[test]
fn what_cannot_be_understood_is_an_error() {
    let wire = || AmqpWire::new(address(), load(Ack::Auto), Purpose::Consume(vec![0]));
    let say = |input: &[u8]| {
        wire().next(input, &mut Vec::new()).map_err(|error| error.to_string()).unwrap_err()
    };
    let close = [&[0, 10, 0, 50, 1, 0x93, 4], &b"nope"[..], &[0; 4]].concat();
    assert_eq!(say(&frame(1, &close)), "the broker says: nope");
    assert_eq!(say(&frame(3, b"body")), "content without a delivery");
    assert_eq!(say(&[1, 0, 1, 0, 0, 0, 0, 7]), "a frame without its end");
    assert_eq!(say(&frame(1, &[0, 60, 0, 60, 9])), "a delivery cut short");
    let mut stomp = StompWire::new(address(), load(Ack::Auto), PUBLISH);
    let error = stomp.next(b"ERROR\nmessage:Bad\n\nwhy\0", &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "the broker says: Bad: why");
}

/// A phase of one producer that has begun.
fn shared() -> Shared {
    let ledger = Arc::new(Ledger::new(1, 2, false));
    let shared = Shared::new(Instant::now(), ledger, 1, 1).unwrap();
    shared.began_ns.store(shared.now_ns().max(1), Ordering::Release);
    shared
}

/// Sequences of the publishes in `bytes`.
fn sequences(bytes: &[u8]) -> Vec<u64> {
    let mut input = bytes::BytesMut::from(bytes);
    let decoder = Decoder { frame_bytes_max: 1 << 20, text_bytes_max: 255 };
    let frames = std::iter::from_fn(|| decoder.next(&mut input).unwrap());
    let publishes = frames.filter_map(|frame| match frame {
        Frame::Publish(publish) => Some(publish.sequence),
        _ => None,
    });
    publishes.collect()
}

#[test]
fn what_is_sent_again_keeps_its_number_and_the_gap_counts_the_time_without_a_connection() {
    let native = Load { servers: vec!["tcp://one".parse().unwrap()], ..(*load(Ack::Auto)).clone() };
    let native = Arc::new(native);
    let shared = shared();
    let mut producer = Producer::new(0, Arc::clone(&native), Vec::new()).unwrap();
    let wire = || NativeWire::new("tcp://one".parse().unwrap(), Arc::clone(&native), PUBLISH);
    let (mut first, mut out) = (wire(), Vec::new());
    producer.fill(&mut first, &mut out, &shared);
    assert_eq!(sequences(&out), (1..=10).collect::<Vec<u64>>());

    let mut latencies = Latencies::new().unwrap();
    let mut confirm = |wire: &mut NativeWire, producer: &mut Producer, through, now_ns| {
        let mut input = WriteBuffer::default();
        Frame::from(Confirm { through }).encode(&mut input);
        let (_, event) = wire.next(&input.take_all(), &mut Vec::new()).unwrap();
        let Some(Event::Confirmed { number, multiple }) = event else { panic!("{event:?}") };
        producer.confirm(number, multiple, now_ns, &mut latencies, &shared);
    };
    let now_ns = shared.now_ns();
    confirm(&mut first, &mut producer, 4, now_ns);
    const OUTAGE_NS: u64 = 500_000_000;
    producer.on_lost_connection(now_ns);
    let mut second = wire();
    out.clear();
    producer.fill(&mut second, &mut out, &shared);
    assert_eq!(sequences(&out), (5..=10).collect::<Vec<u64>>());
    confirm(&mut second, &mut producer, 7, now_ns + OUTAGE_NS);
    confirm(&mut second, &mut producer, 10, now_ns + OUTAGE_NS + 1);
    assert_eq!(Counters::get(&shared.counters.confirm_gap_ns), OUTAGE_NS);
    assert_eq!(Counters::get(&shared.counters.confirmed), 10);
    let counts = [&shared.counters.published, &shared.counters.sent_again].map(Counters::get);
    assert_eq!(counts, [16, 6]);
    assert_eq!(shared.producers_left.load(Ordering::Acquire), 0);

    // Nothing was awaited when the connection went: the gap begins then.
    producer.on_lost_connection(now_ns + 2 * OUTAGE_NS);
    producer.confirm(1, true, now_ns + 4 * OUTAGE_NS, &mut Latencies::new().unwrap(), &shared);
    assert_eq!(Counters::get(&shared.counters.confirm_gap_ns), 2 * OUTAGE_NS);
}

#[test]
fn what_a_broker_says_before_it_closes_is_heard_though_writing_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("stomp://{}", listener.local_addr().unwrap());
    let load = Arc::new(Load {
        servers: vec![url.parse().unwrap()],
        size: 300_000,
        window: 1_000,
        messages: 1_000,
        ..(*load(Ack::Auto)).clone()
    });
    let (shared, mut latencies) = (shared(), Latencies::new().unwrap());
    let producer = Producer::new(0, Arc::clone(&load), Vec::new()).unwrap();
    let mut connection = Connection::new(load, Role::Producer(Box::new(producer)));
    connection.work(&shared, &mut latencies);
    let (mut broker, _) = listener.accept().unwrap();
    let mut connect = [0; 7];
    broker.read_exact(&mut connect).unwrap();
    assert_eq!(&connect, b"CONNECT");
    broker.write_all(b"CONNECTED\n\n\0").unwrap();
    while shared.opening.load(Ordering::Acquire) > 0 {
        connection.read(&shared, &mut latencies);
    }
    connection.work(&shared, &mut latencies);
    // It closes without having read the rest: what is written from now on is refused.
    broker.write_all(b"ERROR\nmessage:Too large\n\nwhy\0").unwrap();
    drop(broker);
    while !connection.is_ended() {
        connection.work(&shared, &mut latencies);
    }
    let failure = shared.failure.lock().unwrap().take().unwrap();
    assert_eq!(failure.root_cause().to_string(), "the broker says: Too large: why");
}
