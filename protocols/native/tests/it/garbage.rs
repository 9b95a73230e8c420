//! Whatever comes in, a session goes on or closes; it never panics and never asks while closed.

use crate::{samples, session::Peer};
use understudy_native::WriteBuffer;

/// xorshift64*: the same garbage in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn feed(peer: &mut Peer, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(random.below(rest.len()) + 1);
        let closed = peer.out.close;
        let asked = peer.out.requests.len();
        peer.bytes(chunk);
        if closed {
            assert_eq!(peer.out.requests.len(), asked, "asked after the end");
        }
        rest = tail;
    }
    assert!(peer.out.close || peer.out.complaint.is_none(), "a complaint without an end");
}

#[test]
fn random_bytes_behind_any_state() {
    let mut random = Random(0x5eed);
    for round in 0..3_000 {
        let mut peer = if round % 2 == 0 { Peer::new() } else { Peer::ready() };
        let mut bytes: Vec<u8> = (0..random.below(300) + 1).map(|_| random.next() as u8).collect();
        if round % 3 == 0 {
            // A length that is believed.
            bytes.splice(0..0, [0, 0, 0, random.next() as u8]);
        }
        if round % 4 == 0 {
            bytes.splice(0..0, understudy_native::PREAMBLE);
        }
        feed(&mut peer, &bytes, &mut random);
    }
}

#[test]
fn frames_with_flipped_bytes() {
    let mut random = Random(0xf11b);
    let frames = samples::frames();
    let mut survived = 0;
    for _ in 0..10_000 {
        let mut out = WriteBuffer::default();
        let frame = &frames[random.below(frames.len())];
        frame.encode(&mut out);
        let mut bytes = out.take_all().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        let mut peer = Peer::ready();
        feed(&mut peer, &bytes, &mut random);
        survived += usize::from(!peer.out.close);
    }
    assert!(survived > 1_000, "the flips were too rough to reach anything: {survived}");
}
