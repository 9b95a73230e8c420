//! Which messages were confirmed and which came: one bit a message, set by any thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const SEGMENT_BITS: u64 = 1 << 18;
const SEGMENT_WORDS: usize = (SEGMENT_BITS / 64) as usize;
/// Of one producer on one queue.
const SEGMENTS_MAX: usize = 4096;
/// A billion; what lies beyond is not verified.
pub(super) const MESSAGES_MAX: u64 = SEGMENT_BITS * SEGMENTS_MAX as u64;

type Segment = Box<[AtomicU64]>;

/// A set of sequences; memory is taken for those that occur.
#[derive(Default)]
pub(super) struct SequenceSet(OnceLock<Box<[OnceLock<Segment>]>>);

impl SequenceSet {
    fn segment(&self, number: usize) -> Option<&Segment> {
        self.0.get()?.get(number)?.get()
    }

    /// False if it was there already, or is too large to be kept.
    pub(super) fn insert(&self, sequence: u64) -> bool {
        let new = || (0..SEGMENTS_MAX).map(|_| OnceLock::new()).collect();
        let segments = self.0.get_or_init(new);
        let Some(segment) = segments.get((sequence / SEGMENT_BITS) as usize) else { return false };
        let words = segment.get_or_init(|| (0..SEGMENT_WORDS).map(|_| AtomicU64::new(0)).collect());
        let at = sequence % SEGMENT_BITS;
        let bit = 1 << (at % 64);
        words[(at / 64) as usize].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn words(&self, segment: usize) -> impl Iterator<Item = u64> {
        let words = self.segment(segment).map_or(&[][..], |words| words);
        let padding = SEGMENT_WORDS - words.len();
        words.iter().map(|word| word.load(Ordering::Relaxed)).chain(std::iter::repeat_n(0, padding))
    }

    /// How many of these are missing in `other`.
    pub(super) fn missing_in(&self, other: &Self) -> u64 {
        let segments = (0..SEGMENTS_MAX).filter(|&segment| self.segment(segment).is_some());
        segments
            .flat_map(|segment| self.words(segment).zip(other.words(segment)))
            .map(|(wanted, there)| u64::from((wanted & !there).count_ones()))
            .sum()
    }
}

/// The books of one run: sets by queue and producer.
pub(super) struct Ledger {
    producers: usize,
    /// One stream for all queues: each gets every message.
    fanout: bool,
    confirmed: Vec<SequenceSet>,
    received: Vec<SequenceSet>,
}

impl Ledger {
    pub(super) fn new(producers: usize, queues: usize, fanout: bool) -> Self {
        let streams = if fanout { producers } else { producers * queues };
        Self {
            producers,
            fanout,
            confirmed: (0..streams).map(|_| SequenceSet::default()).collect(),
            received: (0..producers * queues).map(|_| SequenceSet::default()).collect(),
        }
    }

    pub(super) fn confirm(&self, queue: usize, producer: usize, sequence: u64) {
        let queue = if self.fanout { 0 } else { queue };
        self.confirmed[queue * self.producers + producer].insert(sequence);
    }

    /// False: it came before.
    pub(super) fn receive(&self, queue: usize, producer: usize, sequence: u64) -> bool {
        self.received[queue * self.producers + producer].insert(sequence)
    }

    /// Confirmed messages that nobody received, counted once for each queue.
    pub(super) fn lost(&self) -> u64 {
        let received = self.received.iter().enumerate();
        let pairs = received.map(|(at, received)| {
            let stream = if self.fanout { at % self.producers } else { at };
            self.confirmed[stream].missing_in(received)
        });
        pairs.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_and_did_not_come_is_lost() {
        let ledger = Ledger::new(2, 2, false);
        for sequence in [0, 63, 64, SEGMENT_BITS - 1, SEGMENT_BITS, 3 * SEGMENT_BITS] {
            ledger.confirm(1, 0, sequence);
        }
        assert_eq!(ledger.lost(), 6);
        assert!(ledger.receive(1, 0, SEGMENT_BITS));
        assert!(!ledger.receive(1, 0, SEGMENT_BITS), "twice");
        assert!(ledger.receive(1, 1, 0), "another producer's");
        assert!(ledger.receive(0, 0, 63), "another queue's");
        assert_eq!(ledger.lost(), 5);
        assert!(!ledger.receive(0, 0, MESSAGES_MAX));
    }

    #[test]
    fn each_queue_of_a_fanout_is_to_have_every_message() {
        let ledger = Ledger::new(1, 3, true);
        ledger.confirm(0, 0, 5);
        ledger.receive(0, 0, 5);
        ledger.receive(2, 0, 5);
        assert_eq!(ledger.lost(), 1);
    }
}
