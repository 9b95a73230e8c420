//! Deliveries of one channel that the client has not settled, in the order of their tags.

use std::collections::VecDeque;
use understudy_model::DeliveryRef;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outstanding,
    /// Settled in a transaction that is not committed: unknown to acks until a rollback.
    Held,
    /// Settled, and only here until everything in front of it is settled too.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u64,
    delivery: DeliveryRef,
    since_ms: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    ForGood,
    IntoTransaction,
}

#[derive(Debug, Default)]
pub(crate) struct Unacked {
    entries: VecDeque<Entry>,
    last_tag: u64,
    gone: usize,
}

/// Below this length, entries that are gone are not worth sweeping.
const SWEEP_MIN: usize = 64;

impl Unacked {
    pub(crate) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    pub(crate) fn push(&mut self, tag: u64, delivery: DeliveryRef, since_ms: u64) {
        self.entries.push_back(Entry { tag, delivery, since_ms, state: State::Outstanding });
    }

    /// When the delivery was made that has waited longest for the client to settle it.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let outstanding = |entry: &&Entry| entry.state == State::Outstanding;
        self.entries.iter().find(outstanding).map(|entry| entry.since_ms)
    }

    /// Takes the delivery with this tag, if it is outstanding.
    pub(crate) fn take_one(&mut self, tag: u64, take: Take) -> Option<DeliveryRef> {
        let at = self.find(tag)?;
        let delivery = self.entries[at].delivery;
        self.mark(at, take);
        self.sweep();
        Some(delivery)
    }

    /// Takes all outstanding deliveries up to this tag; 0 means all there are. `None` if the tag
    /// itself is not outstanding.
    pub(crate) fn take_through(&mut self, tag: u64, take: Take) -> Option<Vec<DeliveryRef>> {
        let end = match tag {
            0 => self.entries.len(),
            _ => self.find(tag)? + 1,
        };
        let mut taken = Vec::with_capacity(end);
        for at in 0..end {
            if self.entries[at].state == State::Outstanding {
                taken.push(self.entries[at].delivery);
                self.mark(at, take);
            }
        }
        self.sweep();
        Some(taken)
    }

    /// All that is not settled for good.
    pub(crate) fn take_all(&mut self) -> Vec<DeliveryRef> {
        self.release_held();
        self.take_through(0, Take::ForGood).unwrap_or_default()
    }

    /// The transaction is committed: what it held is gone.
    pub(crate) fn forget_held(&mut self) {
        self.entries.retain(|entry| entry.state == State::Outstanding);
        self.gone = 0;
    }

    /// The transaction is rolled back: what it held can be settled again.
    pub(crate) fn release_held(&mut self) {
        for entry in &mut self.entries {
            if entry.state == State::Held {
                entry.state = State::Outstanding;
            }
        }
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let at = match self.entries.front() {
            Some(front) if front.tag == tag => 0,
            _ => self.entries.partition_point(|entry| entry.tag < tag),
        };
        let entry = self.entries.get(at)?;
        (entry.tag == tag && entry.state == State::Outstanding).then_some(at)
    }

    fn mark(&mut self, at: usize, take: Take) {
        self.entries[at].state = match take {
            Take::ForGood => {
                self.gone += 1;
                State::Gone
            }
            Take::IntoTransaction => State::Held,
        };
    }

    /// Drops what is gone at the front; and everything that is gone once that is most of it, or
    /// one delivery that is never acked would keep all later ones.
    fn sweep(&mut self) {
        while self.entries.front().is_some_and(|front| front.state == State::Gone) {
            self.entries.pop_front();
            self.gone -= 1;
        }
        if self.entries.len() > SWEEP_MIN && self.gone > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.state != State::Gone);
            self.gone = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::{ConsumerNumber, Lsn, QueueId};

    fn delivery(lsn: u64) -> DeliveryRef {
        DeliveryRef { consumer: ConsumerNumber(1), queue: QueueId(Lsn(1)), lsn: Lsn(lsn) }
    }

    fn with(count: u64) -> Unacked {
        let mut unacked = Unacked::default();
        for lsn in 1..=count {
            let tag = unacked.next_tag();
            unacked.push(tag, delivery(lsn), lsn);
        }
        unacked
    }

    #[test]
    fn a_tag_is_known_once() {
        let mut unacked = with(3);
        assert_eq!(unacked.take_one(2, Take::ForGood), Some(delivery(2)));
        assert_eq!(unacked.take_one(2, Take::ForGood), None);
        assert_eq!(unacked.take_through(2, Take::ForGood), None);
        let rest = unacked.take_through(3, Take::ForGood).unwrap();
        assert_eq!(rest, [delivery(1), delivery(3)]);
        assert_eq!(unacked.take_through(0, Take::ForGood), Some(vec![]));
        assert_eq!(unacked.take_one(4, Take::ForGood), None);
    }

    #[test]
    fn one_delivery_that_is_never_acked_does_not_keep_the_others() {
        let mut unacked = with(1);
        for lsn in 2..10_000 {
            let tag = unacked.next_tag();
            unacked.push(tag, delivery(lsn), lsn);
            assert!(unacked.take_one(tag, Take::ForGood).is_some());
        }
        assert!(unacked.entries.len() <= SWEEP_MIN + 1);
        assert_eq!(unacked.take_through(0, Take::ForGood), Some(vec![delivery(1)]));
        assert!(unacked.entries.is_empty());
    }

    #[test]
    fn a_rollback_makes_tags_known_again_and_a_commit_does_not() {
        let mut unacked = with(3);
        unacked.take_through(2, Take::IntoTransaction).unwrap();
        assert_eq!(unacked.take_one(1, Take::ForGood), None);
        assert_eq!(unacked.oldest_ms(), Some(3), "what is held has been settled");
        unacked.release_held();
        assert_eq!(unacked.take_one(1, Take::IntoTransaction), Some(delivery(1)));
        unacked.forget_held();
        assert_eq!(unacked.take_one(1, Take::ForGood), None);
        assert_eq!(unacked.take_through(0, Take::ForGood).unwrap().len(), 2);
    }
}
