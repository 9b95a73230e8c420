//! Publisher de-duplication: the last stored sequence of each producer, and which of its last
//! transactions are committed (replicated state).

use std::collections::{BTreeMap, VecDeque};
use understudy_model::{Lsn, Malformed, ProducerSequence, Reader, Writer};

/// Beyond this many producers, the one that has been silent longest is forgotten.
const PRODUCERS_MAX: usize = 100_000;

/// A client has at most so many transactions without an answer (docs/native-protocol.md), so
/// those it can be in doubt about are among the last that were committed.
const COMMITS_PER_PRODUCER_MAX: usize = 64;

#[derive(Default)]
struct Producer {
    /// Of the last stored publish; 0: none.
    sequence: u64,
    used: Lsn,
    /// Numbers of transactions, in the order of their commits.
    commits: VecDeque<u64>,
}

#[derive(Default)]
pub(crate) struct Producers {
    known: BTreeMap<u128, Producer>,
    by_use: BTreeMap<Lsn, u128>,
}

impl Producers {
    pub(crate) fn last_sequence(&self, producer: u128) -> u64 {
        self.known.get(&producer).map_or(0, |producer| producer.sequence)
    }

    pub(crate) fn is_committed(&self, commit: ProducerSequence) -> bool {
        let producer = self.known.get(&commit.producer);
        producer.is_some_and(|producer| producer.commits.contains(&commit.sequence))
    }

    pub(crate) fn apply(&mut self, lsn: Lsn, stored: ProducerSequence) {
        let producer = self.used(lsn, stored.producer);
        producer.sequence = producer.sequence.max(stored.sequence);
        self.forget();
    }

    /// Once more does nothing: replay runs over saved state.
    pub(crate) fn apply_commit(&mut self, lsn: Lsn, commit: ProducerSequence) {
        let producer = self.used(lsn, commit.producer);
        if !producer.commits.contains(&commit.sequence) {
            producer.commits.push_back(commit.sequence);
            if producer.commits.len() > COMMITS_PER_PRODUCER_MAX {
                producer.commits.pop_front();
            }
        }
        self.forget();
    }

    fn used(&mut self, lsn: Lsn, producer: u128) -> &mut Producer {
        let entry = self.known.entry(producer).or_default();
        self.by_use.remove(&entry.used);
        entry.used = lsn;
        self.by_use.insert(lsn, producer);
        entry
    }

    fn forget(&mut self) {
        if self.known.len() > PRODUCERS_MAX
            && let Some((_, silent)) = self.by_use.pop_first()
        {
            self.known.remove(&silent);
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        self.encode_newest(w, usize::MAX);
    }

    /// At most so many of those that were used last, behind the number of all.
    pub(crate) fn encode_newest(&self, w: &mut Writer<'_>, most: usize) {
        w.varint(self.known.len() as u64);
        let surplus = self.by_use.len().saturating_sub(most);
        for (lsn, id) in self.by_use.iter().skip(surplus) {
            let Some(producer) = self.known.get(id) else { continue };
            w.u128(*id);
            w.varint(producer.sequence);
            w.varint(lsn.0);
            w.varint(producer.commits.len() as u64);
            producer.commits.iter().for_each(|number| w.varint(*number));
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut producers = Self::default();
        for _ in 0..r.varint()? {
            let (id, sequence, used) = (r.u128()?, r.varint()?, Lsn(r.varint()?));
            let commits = (0..r.varint()?).map(|_| r.varint()).collect::<Result<_, _>>()?;
            producers.known.insert(id, Producer { sequence, used, commits });
            producers.by_use.insert(used, id);
        }
        Ok(producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn commit(producer: u128, sequence: u64) -> ProducerSequence {
        ProducerSequence { producer, sequence }
    }

    #[test]
    fn the_last_commits_of_each_producer_survive_saving_and_replay() {
        let mut producers = Producers::default();
        for number in 1..=100 {
            producers.apply_commit(Lsn(number), commit(7, number));
        }
        producers.apply(Lsn(200), commit(8, 3));
        let mut saved = BytesMut::new();
        producers.encode(&mut Writer(&mut saved));
        let mut again = Producers::decode(&mut Reader(&saved)).unwrap();
        for number in 90..=100 {
            again.apply_commit(Lsn(number), commit(7, number));
        }
        for producers in [&producers, &again] {
            assert!(!producers.is_committed(commit(7, 36)));
            assert!((37..=100).all(|number| producers.is_committed(commit(7, number))));
            assert!(!producers.is_committed(commit(8, 100)));
            assert_eq!((producers.last_sequence(7), producers.last_sequence(8)), (0, 3));
        }
    }

    #[test]
    fn the_longest_silent_is_forgotten() {
        let mut producers = Producers::default();
        producers.apply_commit(Lsn(1), commit(1, 1));
        producers.apply_commit(Lsn(2), commit(2, 1));
        producers.apply_commit(Lsn(3), commit(1, 2));
        for number in 3..=PRODUCERS_MAX as u64 + 1 {
            producers.apply(Lsn(number + 1), commit(u128::from(number), 1));
        }
        assert!(!producers.is_committed(commit(2, 1)));
        assert!(producers.is_committed(commit(1, 1)));
    }
}
