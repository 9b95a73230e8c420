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
