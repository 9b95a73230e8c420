//! Epoch history: which mastership wrote which part of the log.
//!
//! Comparing two histories finds the point up to which two logs are equal (docs/replication.md, R6):
//! within one epoch only one node appends, so the shorter copy is a prefix of the longer.

use crate::{Epoch, Lsn, Malformed, NodeId, Reader, Writer};

/// The beginning of one mastership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochStart {
    pub epoch: Epoch,
    /// LSN of the first command of the epoch, its `NewEpoch`.
    pub first: Lsn,
    pub leader: NodeId,
}

/// Masterships in order of their numbers; first LSNs never decrease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EpochHistory(pub Vec<EpochStart>);

impl EpochHistory {
    pub fn last(&self) -> Option<&EpochStart> {
        self.0.last()
    }

    pub fn push(&mut self, start: EpochStart) {
        debug_assert!(self.0.last().is_none_or(|last| last.epoch.number < start.epoch.number));
        self.0.push(start);
    }

    /// Forgets masterships that begin behind `end`: their commands were cut off.
    pub fn truncate_after(&mut self, end: Lsn) {
        self.0.retain(|start| start.first <= end);
    }

    /// The last LSN up to which a log with this history that ends at `end` equals one with
    /// `other` that ends at `other_end`. `None`: nothing in common, not even the first epoch.
    pub fn common_point(&self, end: Lsn, other: &Self, other_end: Lsn) -> Option<Lsn> {
        let mut common = None;
        for (index, start) in self.0.iter().enumerate() {
            let Some(at) = other.0.iter().position(|o| o.epoch == start.epoch) else { continue };
            let mine = self.0.get(index + 1).map_or(end, |next| next.first.prev()).min(end);
            let theirs = other.0.get(at + 1).map_or(other_end, |n| n.first.prev()).min(other_end);
            common = common.max(Some(mine.min(theirs)));
        }
        common
    }

    pub fn encode(&self, out: &mut Writer<'_>) {
        out.varint(self.0.len() as u64);
        for start in &self.0 {
            out.varint(start.epoch.number);
            out.varint(start.epoch.generation);
            out.varint(start.first.0);
            out.u128(start.leader.0);
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.varint()?;
        let mut starts = Vec::new();
        for _ in 0..count {
            let epoch = Epoch { number: reader.varint()?, generation: reader.varint()? };
            starts.push(EpochStart {
                epoch,
                first: Lsn(reader.varint()?),
                leader: NodeId(reader.u128()?),
            });
        }
        Ok(Self(starts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(starts: &[(u64, u64, u64)]) -> EpochHistory {
        let start = |&(number, generation, first)| EpochStart {
            epoch: Epoch { number, generation },
            first: Lsn(first),
            leader: NodeId(1),
        };
        EpochHistory(starts.iter().map(start).collect())
    }

    #[test]
    fn the_shorter_copy_of_one_epoch_is_the_common_point() {
        let both = history(&[(1, 7, 1)]);
        assert_eq!(both.common_point(Lsn(10), &both, Lsn(8)), Some(Lsn(8)));
    }

    #[test]
    fn an_old_masters_tail_behind_the_takeover_is_not_common() {
        let old = history(&[(1, 7, 1)]);
        let new = history(&[(1, 7, 1), (2, 9, 6)]);
        assert_eq!(old.common_point(Lsn(9), &new, Lsn(20)), Some(Lsn(5)));
        assert_eq!(new.common_point(Lsn(20), &old, Lsn(9)), Some(Lsn(5)));
    }

    #[test]
    fn equal_numbers_of_different_generations_part_the_logs() {
        let one = history(&[(1, 7, 1), (2, 8, 5)]);
        let two = history(&[(1, 7, 1), (2, 9, 5)]);
        assert_eq!(one.common_point(Lsn(9), &two, Lsn(9)), Some(Lsn(4)));
        assert_eq!(one.common_point(Lsn(9), &history(&[(1, 6, 1)]), Lsn(9)), None);
    }
}
