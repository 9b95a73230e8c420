//! Groups between sealing and commit, and what their commit releases.
//!
//! Cursors: `applied ≤ durable ≤ appended`. A group leaves at its commit; its effects go out then
//! and not before, which is the one rule of release (ARCHITECTURE.md, "The idea").

use std::collections::{BTreeMap, VecDeque};
use understudy_model::{ConnectionId, Effect, Group, Lsn, OpenGroup};

pub(crate) type Effects = Vec<(ConnectionId, Effect)>;

pub(crate) struct Inflight {
    pub(crate) open: OpenGroup,
    /// Released with the open group.
    pub(crate) open_effects: Effects,
    sealed: VecDeque<(Group, Effects)>,
    sealed_bytes: usize,
    /// Last command that was given to the log writer, a group's end, and the chain hash there.
    appended: Lsn,
    chain: u128,
    durable: Lsn,
    /// Bytes of all groups that were appended since the start, cut ones too.
    appended_bytes: u64,
    /// Connections whose next request waits for the commit of this command.
    waiting: BTreeMap<Lsn, Vec<ConnectionId>>,
}

impl Inflight {
    pub(crate) fn new(end: Lsn, chain: u128) -> Self {
        Self {
            open: OpenGroup::new(end.next()),
            open_effects: Vec::new(),
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            appended: end,
            chain,
            durable: end,
            appended_bytes: 0,
            waiting: BTreeMap::new(),
        }
    }

    pub(crate) fn appended(&self) -> Lsn {
        self.appended
    }

    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(crate) fn set_durable(&mut self, through: Lsn) {
        self.durable = self.durable.max(through);
    }

    /// Nothing is on its way to the disk.
    pub(crate) fn writer_is_free(&self) -> bool {
        self.durable >= self.appended
    }

    /// Bytes that are sealed or open and not committed.
    pub(crate) fn bytes(&self) -> usize {
        self.sealed_bytes + self.open.bytes_len()
    }

    pub(crate) fn seal(&mut self, epoch: u64, now_ms: u64) -> Group {
        let group = self.open.seal(epoch, now_ms, self.chain);
        let effects = std::mem::take(&mut self.open_effects);
        self.push(group.clone(), effects);
        group
    }

    /// A group that was sealed elsewhere: by the master, or in an earlier run.
    pub(crate) fn push_foreign(&mut self, group: Group) {
        self.push(group, Vec::new());
        self.open = OpenGroup::new(self.appended.next());
    }

    fn push(&mut self, group: Group, effects: Effects) {
        assert_eq!(group.first(), self.appended.next(), "groups follow one another without gap");
        self.appended = group.last();
        self.chain = group.header().chain;
        self.sealed_bytes += group.bytes().len();
        self.appended_bytes += group.bytes().len() as u64;
        self.sealed.push_back((group, effects));
    }

    /// The next group that is committed when everything `through` is.
    pub(crate) fn pop_committed(&mut self, through: Lsn) -> Option<(Group, Effects)> {
        if self.sealed.front().is_none_or(|(group, _)| group.last() > through) {
            return None;
        }
        let popped = self.sealed.pop_front();
        self.sealed_bytes -= popped.as_ref().map_or(0, |(group, _)| group.bytes().len());
        popped
    }

    /// Moves the open group's effects from `start` on to where `lsn` is committed. False if that
    /// is so already: then they are to be released at once, and stay for the caller to take.
    pub(crate) fn place_effects(&mut self, start: usize, lsn: Lsn) -> bool {
        if lsn > self.appended {
            return true;
        }
        if self.sealed.front().is_none_or(|(group, _)| lsn < group.first()) {
            return false;
        }
        let at = self.sealed.partition_point(|(group, _)| group.last() < lsn);
        let Some((_, effects)) = self.sealed.get_mut(at) else { return false };
        effects.extend(self.open_effects.drain(start..));
        true
    }

    pub(crate) fn wait(&mut self, connection: ConnectionId, until: Lsn) {
        self.waiting.entry(until).or_default().push(connection);
    }

    pub(crate) fn pop_waiting(&mut self, applied: Lsn) -> Option<Vec<ConnectionId>> {
        let entry = self.waiting.first_entry()?;
        (*entry.key() <= applied).then(|| entry.remove())
    }

    /// Leadership ended: nothing undecided or waiting is kept. Sealed groups are in the log, and
    /// whether they will be committed is for the next master to say.
    pub(crate) fn forget_clients(&mut self) {
        self.open = OpenGroup::new(self.appended.next());
        self.open_effects.clear();
        self.waiting.clear();
        self.sealed.iter_mut().for_each(|(_, effects)| effects.clear());
    }

    /// The log was cut behind `end`.
    pub(crate) fn truncate(&mut self, end: Lsn, chain: u128) {
        while self.sealed.back().is_some_and(|(group, _)| group.last() > end) {
            if let Some((group, _)) = self.sealed.pop_back() {
                self.sealed_bytes -= group.bytes().len();
            }
        }
        self.appended = end;
        self.chain = chain;
        self.durable = end;
        self.open = OpenGroup::new(end.next());
        self.open_effects.clear();
    }
}
