//! Contents of committed messages in memory: the newest groups, and what was read ahead.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use understudy_broker::Contents;
use understudy_model::{Group, Lsn};

const GROUP_OVERHEAD_BYTES: usize = 256;

pub(crate) struct Cache {
    /// The newest committed groups, without gap, oldest first.
    recent: VecDeque<Group>,
    recent_bytes: usize,
    recent_bytes_max: usize,
    /// Records read from the log for queues that are about to hand them out.
    read: BTreeMap<Lsn, Bytes>,
    read_bytes: usize,
    read_bytes_max: usize,
}

impl Cache {
    /// Half of `bytes_max` is for recent groups, half for what is read ahead.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max: bytes_max / 2,
            read: BTreeMap::new(),
            read_bytes: 0,
            read_bytes_max: bytes_max / 2,
        }
    }

    pub(crate) fn push(&mut self, group: Group) {
        self.recent_bytes += held_bytes(&group);
        self.recent.push_back(group);
        // The newest stays whatever its size: its messages are likely to be handed out next.
        while self.recent_bytes > self.recent_bytes_max && self.recent.len() > 1 {
            if let Some(old) = self.recent.pop_front() {
                self.recent_bytes -= held_bytes(&old);
            }
        }
    }

    pub(crate) fn add_read(&mut self, records: Vec<(Lsn, Bytes)>) {
        for (lsn, record) in records {
            self.read_bytes += record.len();
            if let Some(before) = self.read.insert(lsn, record) {
                self.read_bytes -= before.len();
            }
        }
        // The highest are needed last; a queue that misses one asks again.
        while self.read_bytes > self.read_bytes_max && self.read.len() > 1 {
            if let Some((_, dropped)) = self.read.pop_last() {
                self.read_bytes -= dropped.len();
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.recent.clear();
        self.read.clear();
        self.recent_bytes = 0;
        self.read_bytes = 0;
    }
}

/// Small groups are many: what surrounds their bytes counts too.
fn held_bytes(group: &Group) -> usize {
    group.bytes().len() + GROUP_OVERHEAD_BYTES
}

impl Contents for Cache {
    fn record(&mut self, lsn: Lsn) -> Option<Bytes> {
        // Read for one delivery: a message in several queues is read again for the others.
        if let Some(record) = self.read.remove(&lsn) {
            self.read_bytes -= record.len();
            return Some(record);
        }
        let at = self.recent.partition_point(|group| group.last() < lsn);
        self.recent.get(at).and_then(|group| group.record(lsn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use understudy_model::OpenGroup;

    /// For groups and for what is read ahead: of either, room for about two.
    const BYTES_MAX: usize = 4_000;

    fn group(first: u64) -> Group {
        let mut open = OpenGroup::new(Lsn(first));
        open.push(|out| out.put_bytes(first as u8, 600));
        open.seal(1, 0, 0)
    }

    fn read(lsns: &[u64]) -> Vec<(Lsn, Bytes)> {
        lsns.iter().map(|&lsn| (Lsn(lsn), Bytes::from(vec![lsn as u8; 900]))).collect()
    }

    fn held(cache: &mut Cache, lsns: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        lsns.filter(|&lsn| cache.record(Lsn(lsn)).is_some()).collect()
    }

    #[test]
    fn the_newest_groups_are_kept() {
        let mut cache = Cache::new(BYTES_MAX);
        (1..=5).for_each(|lsn| cache.push(group(lsn)));
        assert_eq!(held(&mut cache, 1..=6), [4, 5]);
        assert_eq!(cache.record(Lsn(5)).unwrap(), vec![5; 600]);
    }

    #[test]
    fn of_what_was_read_the_lowest_are_kept_and_what_is_taken_makes_room() {
        let mut cache = Cache::new(BYTES_MAX);
        cache.add_read(read(&[4, 2, 3, 1, 1]));
        assert_eq!(held(&mut cache, 1..=4), [1, 2]);
        for lsn in 5..50 {
            cache.add_read(read(&[lsn, lsn + 1]));
            assert_eq!(held(&mut cache, lsn..=lsn + 1), [lsn, lsn + 1]);
        }
    }
}
