//! Short prints of states: equal for two states that differ in nothing that counts.
//!
//! A print is made from what `Hash` writes. Numbers are told apart by where they lie: times count
//! only by their distance from the node's clock, versions of the view only by whether they are
//! saved, the numbers of hellos and of calls not at all (their order is hashed beside them).

use crate::pair::core::COUNT_FROM;
use std::hash::{Hash, Hasher};

/// Clocks begin here.
pub(super) const TIME_FROM_MS: u64 = 1 << 40;
const TIMES: std::ops::Range<u64> = TIME_FROM_MS / 2..2 * TIME_FROM_MS;
const VERSIONS: std::ops::Range<u64> = COUNT_FROM..3 * COUNT_FROM / 2;
const SERIALS: std::ops::Range<u64> = 2 * COUNT_FROM..3 * COUNT_FROM;
/// Farther back, no deadline depends on it, but for one: how long a slave may take to catch up.
const PAST_MS: i64 = 4_000;
const FUTURE_MS: i64 = 12_000;

pub(super) struct Printer {
    now_ms: u64,
    saved: u64,
    state: u64,
}

impl Printer {
    /// For what belongs to a node with this clock, whose view is saved up to this version.
    pub(super) fn new(now_ms: u64, saved: u64) -> Self {
        Self { now_ms, saved, state: 0x243f_6a88_85a3_08d3 }
    }

    pub(super) fn of(value: &impl Hash) -> u64 {
        let mut printer = Self::new(0, 0);
        value.hash(&mut printer);
        printer.finish()
    }

    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.state = (product as u64) ^ ((product >> 64) as u64).rotate_left(23);
    }
}

impl Hasher for Printer {
    fn write_u64(&mut self, number: u64) {
        if TIMES.contains(&number) {
            let distance = number as i64 - self.now_ms as i64;
            self.mix(distance.clamp(-PAST_MS, FUTURE_MS) as u64);
        } else if VERSIONS.contains(&number) {
            self.mix(number.saturating_sub(self.saved));
        } else if !SERIALS.contains(&number) {
            self.mix(number);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_u128(&mut self, number: u128) {
        self.mix(number as u64);
        self.mix((number >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        let mut end = Self { state: self.state, ..*self };
        end.mix(0x1319_8a2e_0370_7344);
        end.state
    }
}
