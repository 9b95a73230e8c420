//! What a message costs in steady state: nothing of the heap for a frame, and no copy of a body
//! but the one into the group.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::{BufMut, Bytes, BytesMut};
use fuzzing::allocations;
use std::io::IoSlice;
use understudy_amqp::{AmqpOptions, AmqpSession};
use understudy_model::{
    ConsumerNumber, Delivery, Effect, EnqueueView, LoginOutcome, Lsn, Outbox, Publish, QueueId,
    Reply, Request, Session, Token,
};

const MESSAGES: u64 = 1_000;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.put_u16(channel);
    bytes.put_u32(payload.len() as u32);
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

struct Peer {
    session: AmqpSession,
    out: Outbox,
}

impl Peer {
    fn says(&mut self, bytes: &[u8]) {
        self.session.on_bytes(0, &mut BytesMut::from(bytes), &mut self.out);
    }

    fn done(&mut self, token: Token) {
        let mut effects = vec![Effect::Reply { token, result: Ok(Reply::Done) }];
        self.session.on_effects(0, &mut effects, &mut self.out);
    }

    /// Open, with channel 1.
    fn open() -> Self {
        let session = AmqpSession::new(AmqpOptions::default(), 0);
        let mut peer = Self { session, out: Outbox::default() };
        peer.says(b"AMQP\0\0\x09\x01");
        let start_ok = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x04\0g\0g\x05en_US";
        peer.says(&frame(1, 0, start_ok));
        let outcome = LoginOutcome::Accepted { user: "g".into(), tags: Vec::new() };
        peer.session.on_login(0, outcome, &mut peer.out);
        peer.says(&frame(1, 0, b"\0\x0a\0\x1f\0\0\0\0\0\0\0\0"));
        peer.says(&frame(1, 0, b"\0\x0a\0\x28\x01/\0\0"));
        let Some(Request::Connect(connect)) = peer.out.requests.pop() else { panic!() };
        peer.done(connect.token);
        peer.says(&frame(1, 1, b"\0\x14\0\x0a\0"));
        peer.sent();
        peer
    }

    /// The socket takes all.
    fn sent(&mut self) {
        let length = self.out.write.len();
        self.out.write.advance(length);
    }

    /// As the connection does with each read.
    fn take_requests(&mut self) {
        self.out.requests.clear();
    }
}

fn publish(body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(1, 1, b"\0\x3c\0\x28\0\0\x08exchange\x0brouting.key\0");
    let mut header = b"\0\x3c\0\0".to_vec();
    header.put_u64(body.len() as u64);
    // Content type, headers with one field, delivery mode.
    header.put_slice(b"\xb0\0\x0atext/plain\0\0\0\x0b\x04nameS\0\0\0\x01v\x02");
    bytes.extend(frame(2, 1, &header));
    bytes.extend(frame(3, 1, body));
    bytes
}

fn consumer_of(peer: &mut Peer) -> ConsumerNumber {
    peer.says(&frame(1, 1, b"\0\x3c\0\x14\0\0\x01q\x01t\0\0\0\0\0"));
    let Some(Request::Consume(consume)) = peer.out.requests.pop() else { panic!() };
    peer.done(consume.token);
    peer.sent();
    consume.consumer
}

fn delivery(consumer: ConsumerNumber, lsn: u64, record: &Bytes) -> Effect {
    Effect::Deliver(Delivery {
        consumer,
        queue: QueueId(Lsn(1)),
        lsn: Lsn(lsn),
        redelivered: false,
        returns: 0,
        record: record.clone(),
    })
}

fn record(body: &'static [u8]) -> Bytes {
    let publish = Publish {
        exchange: "exchange".into(),
        routing_key: "routing.key".into(),
        properties: Bytes::from_static(b"\x80\0\x0atext/plain"),
        body: body.into(),
        ..Publish::default()
    };
    let mut record = BytesMut::new();
    EnqueueView::encode(&[QueueId(Lsn(1))], &publish, &mut record);
    record.freeze()
}

#[test]
fn publishes_cost_no_allocation_each() {
    let mut peer = Peer::open();
    let read = publish(b"a body").repeat(MESSAGES as usize);
    for round in 0..3 {
        let mut input = BytesMut::from(&read[..]);
        let count = allocations(|| peer.session.on_bytes(0, &mut input, &mut peer.out));
        assert_eq!(peer.out.requests.len() as u64, MESSAGES);
        peer.take_requests();
        // The buffer is shared once for all; the list of requests had its size after the first.
        assert!(round == 0 || count <= 1, "{count} allocations for {MESSAGES} messages");
    }
}

#[test]
fn deliveries_and_acks_cost_no_allocation_each() {
    let mut peer = Peer::open();
    let consumer = consumer_of(&mut peer);
    let record = record(b"a body");
    let (mut lsn, mut tag) = (0, 0);
    for round in 0..4 {
        let mut effects = Vec::new();
        for _ in 0..MESSAGES {
            lsn += 1;
            effects.push(delivery(consumer, lsn, &record));
        }
        let out = &mut peer.out;
        let count = allocations(|| peer.session.on_effects(0, &mut effects, out));
        assert!(peer.out.write.len() > 50 * MESSAGES as usize);
        peer.sent();
        assert!(round < 2 || count == 0, "{count} allocations for {MESSAGES} deliveries");
        let mut acks = BytesMut::new();
        for _ in 0..MESSAGES {
            tag += 1;
            let mut ack = b"\0\x3c\0\x50".to_vec();
            ack.put_u64(tag);
            ack.put_u8(0);
            acks.put_slice(&frame(1, 1, &ack));
        }
        let out = &mut peer.out;
        let count = allocations(|| peer.session.on_bytes(0, &mut acks, out));
        assert_eq!(peer.out.requests.len(), 1, "a run of acks is one request");
        peer.take_requests();
        // The list of what is settled grows by doubling; the buffer is shared once.
        assert!(round < 2 || count <= 14, "{count} allocations for {MESSAGES} acks");
    }
}

fn lies_within(part: &[u8], whole: std::ops::Range<*const u8>) -> bool {
    let part = part.as_ptr_range();
    whole.start <= part.start && part.end <= whole.end
}

#[test]
fn a_published_body_is_a_part_of_what_was_read() {
    let mut peer = Peer::open();
    let mut input = BytesMut::from(&publish(&[7; 50_000])[..]);
    let read = input.as_ptr_range();
    peer.session.on_bytes(0, &mut input, &mut peer.out);
    let Some(Request::Publish(publish)) = peer.out.requests.pop() else { panic!() };
    assert_eq!(publish.body.len(), 50_000);
    assert!(publish.body.pieces().all(|piece| lies_within(piece, read.clone())));
    assert!(lies_within(&publish.properties, read.clone()));
    assert!(lies_within(publish.routing_key.as_bytes(), read));
}

#[test]
fn a_delivered_body_is_a_part_of_its_group() {
    let mut peer = Peer::open();
    let consumer = consumer_of(&mut peer);
    let record = record(&[7; 50_000]);
    let mut effects = vec![delivery(consumer, 1, &record)];
    peer.session.on_effects(0, &mut effects, &mut peer.out);
    let mut slices = [IoSlice::new(&[]); 8];
    let filled = peer.out.write.io_slices(&mut slices);
    let body: Vec<_> = slices[..filled].iter().filter(|slice| slice.len() >= 50_000).collect();
    assert_eq!(body.len(), 1);
    assert!(lies_within(body[0], record.as_ptr_range()));
}
