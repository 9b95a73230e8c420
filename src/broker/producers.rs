//! Publisher de-duplication: the last stored sequence of each producer (replicated state).

use std::collections::BTreeMap;
use understudy_model::{Lsn, Malformed, ProducerSequence, Reader, Writer};

/// Beyond this many producers, the one that has been silent longest is forgotten.
const PRODUCERS_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct Producers {
    last: BTreeMap<u128, (u64, Lsn)>,
    by_use: BTreeMap<Lsn, u128>,
}

impl Producers {
    pub(crate) fn last_sequence(&self, producer: u128) -> u64 {
        self.last.get(&producer).map_or(0, |(sequence, _)| *sequence)
    }

    pub(crate) fn apply(&mut self, lsn: Lsn, stored: ProducerSequence) {
        let sequence = stored.sequence.max(self.last_sequence(stored.producer));
        if let Some((_, used)) = self.last.insert(stored.producer, (sequence, lsn)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(lsn, stored.producer);
        if self.last.len() > PRODUCERS_MAX
            && let Some((_, silent)) = self.by_use.pop_first()
        {
            self.last.remove(&silent);
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.varint(self.last.len() as u64);
        for (lsn, producer) in &self.by_use {
            w.u128(*producer);
            w.varint(self.last_sequence(*producer));
            w.varint(lsn.0);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut producers = Self::default();
        for _ in 0..r.varint()? {
            let stored = ProducerSequence { producer: r.u128()?, sequence: r.varint()? };
            producers.apply(Lsn(r.varint()?), stored);
        }
        Ok(producers)
    }
}
