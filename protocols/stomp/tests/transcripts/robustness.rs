//! Any cut of a stream means the same; no bytes make a session panic or grow without bound.

use crate::common::{Peer, options, plain};
use understudy_model::Request;

const STREAM: &str = "\n\r\n\0SUBSCRIBE\r\nid:1\r\ndestination:/queue/a\r\nack:client\r\nreceipt:1\r\n\r\n\0\n\
    SEND\ndestination:/queue/a\ncontent-length:5\nmine:x\\cy\n\na\0b\nc\0\n\n\
    BEGIN\ntransaction:t\n\n\0SEND\ndestination:/topic/k\ntransaction:t\n\nin tx\0\
    SEND\ndestination:/queue/a\nreceipt:2\nreply-to:/temp-queue/r\n\n\0COMMIT\ntransaction:t\n\n\0\
    UNSUBSCRIBE\nid:1\n\n\0\n\0DISCONNECT\nreceipt:3\n\n\0";

fn outcome(pieces: &[&[u8]]) -> (Vec<Request>, String) {
    let mut peer = Peer::open("1.2");
    pieces.iter().for_each(|piece| peer.feed_bytes(piece));
    let requests = peer.answer_all();
    (requests, peer.written())
}

#[test]
fn a_mixed_stream_may_be_cut_anywhere() {
    let bytes = STREAM.as_bytes();
    let whole = outcome(&[bytes]);
    assert_eq!(whole.0.len(), 9, "{:?}", whole.0);
    assert_eq!(whole.1, "RECEIPT\nreceipt-id:1\n\n\0RECEIPT\nreceipt-id:3\n\n\0");
    for cut in 0..=bytes.len() {
        assert_eq!(outcome(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(outcome(&single), whole);
}

#[test]
fn a_large_body_passes_both_ways() {
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let mut peer = Peer::open("1.2");
    peer.feed("SEND\ndestination:/queue/a\ncontent-length:100000\n\n");
    body.chunks(191).for_each(|piece| peer.feed_bytes(piece));
    assert_eq!(peer.requests(), []);
    peer.feed("\0");
    assert_eq!(crate::common::body(&crate::common::publish(peer.request())), body);
    let consumer = peer.subscribe("id:1\ndestination:/queue/a");
    peer.deliver(consumer, 1, &plain("a", &body));
    let written = peer.out.write.take_all();
    assert_eq!(&written[written.len() - 100_002..written.len() - 2], &body[..]);
    assert!(written.ends_with(b"\0\n"));
    peer.feed("SEND\ndestination:/queue/a\ncontent-length:100001\n\n");
    peer.assert_error_message("Frame too large");
}

/// A linear congruential generator: the same bytes every time.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

const WORDS: [&str; 40] = [
    "SEND",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "ACK",
    "NACK",
    "BEGIN",
    "COMMIT",
    "ABORT",
    "DISCONNECT",
    "CONNECT",
    "\n",
    "\n",
    "\n\n",
    "\n\n\0",
    "\n\n\0",
    "\0",
    "\r\n",
    ":",
    "\\",
    "\\c",
    "%2F",
    "%",
    "destination:/queue/a\n",
    "destination:/topic/a\n",
    "destination:/temp-queue/a\n",
    "id:1\n",
    "id:T_1@@session-s@@1-1\n",
    "ack:client\n",
    "transaction:t\n",
    "receipt:r\n",
    "content-length:3\n",
    "content-length:99999999999999999999\n",
    "reply-to:/temp-queue/x\n",
    "durable:true\n",
    "requeue:false\n",
    "priority:9\n",
    "abc",
    "\u{e9}",
    "x-expires:1\n",
    "@@",
];

#[test]
fn garbage_is_survived() {
    let mut random = Random(42);
    for round in 0..20_000 {
        let version = ["1.0", "1.1", "1.2"][round % 3];
        let mut peer = if round % 10 == 0 { Peer::new(options()) } else { Peer::open(version) };
        let mut bytes = Vec::new();
        for _ in 0..random.next(40) {
            match random.next(20) {
                0 => bytes.push(random.next(256) as u8),
                _ => bytes.extend(WORDS[random.next(WORDS.len())].as_bytes()),
            }
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(random.next(rest.len()) + 1);
            peer.feed_bytes(piece);
            let requests = peer.answer_all();
            if let Some(consumer) = requests.iter().find_map(crate::common::consumer) {
                peer.deliver(consumer, 1, &plain("a", b"x"));
            }
            rest = tail;
        }
    }
}

#[test]
fn endless_heads_and_bodies_are_cut_off() {
    for start in ["", "SEND\n", "SEND\nname:", "SEND\n\n", "SEND\ndestination:/queue/a\n\nx"] {
        let mut peer = Peer::open("1.2");
        peer.feed(start);
        let mut fed = 0;
        while !peer.out.close {
            peer.feed(&"x".repeat(1_000));
            fed += 1_000;
            assert!(fed <= 102_000, "{start:?}");
        }
        peer.assert_error_message("Frame too large");
    }
    let mut peer = Peer::open("1.2");
    (0..300).for_each(|n| peer.feed(&format!("{}h{n}:v\n", if n == 0 { "SEND\n" } else { "" })));
    peer.assert_error_message("Malformed frame");
    // Heart-beats alone are no frame, however many.
    let mut peer = Peer::open("1.2");
    (0..1_000).for_each(|_| peer.feed(&"\n".repeat(1_000)));
    assert!(!peer.out.close);
}
