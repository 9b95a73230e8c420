//! A whole copy of the state: made for a new slave, or installed as one.

use super::compare::Comparisons;
use super::repair::Repairs;
use super::{LogJob, Node, Outputs};
use crate::inflight::Inflight;
use crate::upkeep::{Snapshot, Upkeep};
use bytes::Bytes;
use understudy_broker::Broker;
use understudy_model::Lsn;
use understudy_replication::{Input, LogEnd, Output, SnapshotCursor};

impl Node {
    pub(super) fn read_snapshot(
        &mut self,
        now_ms: u64,
        cursor: SnapshotCursor,
        since: Option<Lsn>,
        out: &mut Outputs,
    ) {
        if cursor.0 == 0 {
            let snapshot = Snapshot::take(&mut self.broker, self.applied_chain, since);
            self.upkeep.snapshot = Some(snapshot);
        }
        let Some(snapshot) = &mut self.upkeep.snapshot else { return };
        if let Some(lsns) = snapshot.next_lsns() {
            out.snapshot_read = Some(lsns);
            return;
        }
        let answer = snapshot.next_slices(cursor);
        if matches!(answer, Input::SnapshotRead { next: None, .. }) {
            self.upkeep.snapshot = None;
        }
        self.backend_input(now_ms, answer, out);
    }

    pub(super) fn snapshot_records(
        &mut self,
        now_ms: u64,
        records: &[(Lsn, Bytes)],
        out: &mut Outputs,
    ) {
        if let Some(snapshot) = &mut self.upkeep.snapshot
            && let Some(answer) = snapshot.records_chunk(records)
        {
            self.backend_input(now_ms, answer, out);
        }
    }

    /// One part of a copy.
    pub(super) fn install(&mut self, part: Output, out: &mut Outputs) {
        let Output::InstallSnapshot { first, last, set_aside, number, at, chain, chunk } = part
        else {
            return;
        };
        if first {
            out.log.push(LogJob::Reset { set_aside });
            self.installing = Some(Vec::new());
            self.broker = Broker::new(self.options.limits);
            self.cache.clear();
            self.upkeep = Upkeep::default();
            self.repairs = Repairs::default();
            self.comparisons = Comparisons::default();
            self.saved_through = Lsn::ZERO;
            self.inflight = Inflight::new(Lsn::ZERO, 0);
        }
        let Some(slices) = &mut self.installing else { return };
        match Snapshot::decode(&chunk, slices) {
            // Without records, too: the answer tells that all before is on disk.
            Ok(records) => out.log.push(LogJob::PutCold { records, at, number }),
            Err(malformed) => {
                out.stop = Some(Err(format!("the master's snapshot is unreadable: {malformed}")));
                return;
            }
        }
        if last {
            let state = slices.clone();
            out.log.push(LogJob::SetBase { at, chain, state });
        }
    }

    /// The copy is on disk: memory becomes what it holds.
    pub(super) fn installed(&mut self, log: LogEnd, out: &mut Outputs) {
        let Some(slices) = self.installing.take() else { return };
        match Broker::load(self.options.limits, &slices) {
            Ok((broker, chain)) if broker.applied() == log.last => {
                self.broker = broker;
                self.broker.reset_segments();
                self.broker.replayed();
                self.applied_chain = chain;
                self.saved_through = log.last;
                self.inflight = Inflight::new(log.last, chain);
                out.users_changed = true;
                self.look_at_features(out);
            }
            Ok((broker, _)) => {
                let (held, end) = (broker.applied(), log.last);
                let text = format!("the copy holds state at {held} and a log that ends at {end}");
                out.stop = Some(Err(text));
            }
            Err(malformed) => {
                let text = format!("the master's snapshot is unreadable: {malformed}");
                out.stop = Some(Err(text));
            }
        }
    }
}
