//! The newest groups of the log, which only [`crate::redo`] has on disk.

use std::sync::{Mutex, MutexGuard, PoisonError};
use understudy_model::{Group, Lsn};

/// Whoever reads takes what it wants from here first and looks into LMDB afterwards: groups enter LMDB
/// before they leave the tail, so none is missed.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Vec<Group>>);

impl Tail {
    /// The groups that hold any of `from..=to`.
    pub(crate) fn between(&self, from: Lsn, to: Lsn) -> Vec<Group> {
        let groups = self.lock();
        let begin = groups.partition_point(|group| group.last() < from);
        let end = groups.partition_point(|group| group.first() <= to);
        groups.get(begin..end).unwrap_or_default().to_vec()
    }

    pub(crate) fn holding(&self, lsn: Lsn) -> Option<Group> {
        find(&self.lock(), lsn).cloned()
    }

    pub(crate) fn push(&self, groups: &[Group]) {
        self.lock().extend_from_slice(groups);
    }

    /// All of it, for the thread that writes.
    pub(crate) fn groups(&self) -> Vec<Group> {
        self.lock().clone()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one of these consecutive groups that holds `lsn`.
pub(crate) fn find(groups: &[Group], lsn: Lsn) -> Option<&Group> {
    let at = groups.partition_point(|group| group.last() < lsn);
    groups.get(at).filter(|group| group.contains(lsn))
}
