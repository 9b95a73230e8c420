//! The losing side of a partition gives the winning one what it had committed alone, part by part:
//! the next is read when the last one is committed there. Nothing is changed here meanwhile, so a
//! transfer that breaks off begins again with the same content.

use crate::pair::core::Core;
use crate::{Output, SnapshotCursor};
use understudy_model::Lsn;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exporting {
    common: Lsn,
    /// An answer to an earlier read is due; that comes first and is not wanted.
    stale: bool,
    begun: bool,
    /// To be read when the present part is committed; none: it is the last.
    next: Option<SnapshotCursor>,
}

impl Exporting {
    pub(crate) fn begin(core: &mut Core, common: Lsn, out: &mut Vec<Output>) -> Self {
        let stale = core.copy_read;
        let exporting = Self { common, stale, begun: false, next: None };
        if !stale {
            exporting.ask(core, SnapshotCursor::default(), out);
        }
        exporting
    }

    fn ask(self, core: &mut Core, cursor: SnapshotCursor, out: &mut Vec<Output>) {
        core.copy_read = true;
        out.push(Output::ReadSnapshot { cursor, since: Some(self.common) });
    }

    /// What was read is to be sent: whether it is the first part, and the common point.
    pub(crate) fn read(
        &mut self,
        core: &mut Core,
        next: Option<SnapshotCursor>,
        out: &mut Vec<Output>,
    ) -> Option<(bool, Lsn)> {
        if std::mem::take(&mut self.stale) {
            self.ask(core, SnapshotCursor::default(), out);
            return None;
        }
        self.next = next;
        let first = !std::mem::replace(&mut self.begun, true);
        Some((first, self.common))
    }

    /// True when that was all.
    pub(crate) fn acked(&mut self, core: &mut Core, out: &mut Vec<Output>) -> bool {
        match self.next.take() {
            Some(cursor) => self.ask(core, cursor, out),
            None => return self.begun,
        }
        false
    }
}
