//! After a partition: the state and messages that the losing node had committed alone come in, part
//! by part, and are brought into this one's log. A part is answered when all that came of it is
//! committed.

use super::{Node, Outputs};
use crate::upkeep::Snapshot;
use bytes::Bytes;
use std::collections::VecDeque;
use understudy_broker::Divergence;
use understudy_model::Lsn;
use understudy_replication::Input as BackendInput;

pub(super) struct Reinjection {
    common: Lsn,
    producer: u128,
    /// The state, until all of it is there.
    slices: Vec<(Bytes, Bytes)>,
    divergence: Option<Divergence>,
    records: VecDeque<Vec<(Lsn, Bytes)>>,
    last: bool,
    /// What was made of it so far is committed when this is.
    until: Lsn,
    /// A part came in and is not answered.
    owes_answer: bool,
    stored: u64,
    settled: u64,
}

impl Node {
    pub(super) fn reinject(
        &mut self,
        first: bool,
        last: bool,
        (common, producer): (Lsn, u128),
        chunk: &Bytes,
        out: &mut Outputs,
    ) {
        if first {
            self.reinjection = Some(Reinjection {
                common,
                producer,
                slices: Vec::new(),
                divergence: None,
                records: VecDeque::new(),
                last: false,
                until: Lsn::ZERO,
                owes_answer: false,
                stored: 0,
                settled: 0,
            });
        }
        let Some(reinjection) = &mut self.reinjection else { return };
        match Snapshot::decode(chunk, &mut reinjection.slices) {
            Ok(records) if records.is_empty() => {}
            Ok(records) => reinjection.records.push_back(records),
            Err(malformed) => out.notices.push((true, unreadable(&malformed))),
        }
        reinjection.last = last;
        reinjection.owes_answer = true;
    }

    /// As far as it goes now; goes on after the next commit.
    pub(super) fn reinject_some(&mut self, now_ms: u64, out: &mut Outputs) {
        while self.reinject_step(now_ms, out) {}
    }

    /// False: nothing to do, or not before a commit.
    fn reinject_step(&mut self, now_ms: u64, out: &mut Outputs) -> bool {
        let applied = self.broker.applied();
        let Some(reinjection) = &mut self.reinjection else { return false };
        if !reinjection.owes_answer || applied < reinjection.until.max(self.epoch_begins) {
            return false;
        }
        let state_is_there = reinjection.last || !reinjection.records.is_empty();
        if reinjection.divergence.is_none() && state_is_there {
            return self.reinject_state(out);
        }
        if let Some(divergence) = &reinjection.divergence
            && let Some(records) = reinjection.records.pop_front()
        {
            let open = &mut self.inflight.open;
            match self.broker.reinject_messages(divergence, &records, open) {
                Ok(stored) => reinjection.stored += stored,
                Err(malformed) => out.notices.push((true, unreadable(&malformed))),
            }
            reinjection.until = open.next_lsn().prev();
            return true;
        }
        reinjection.owes_answer = false;
        if reinjection.last {
            let text = format!(
                "taken over from the returning node: {} messages stored, {} finished there",
                reinjection.stored, reinjection.settled
            );
            out.notices.push((true, text));
            self.reinjection = None;
        }
        self.backend_input(now_ms, BackendInput::Reinjected, out);
        false
    }

    fn reinject_state(&mut self, out: &mut Outputs) -> bool {
        let Some(reinjection) = &mut self.reinjection else { return false };
        let (common, producer) = (reinjection.common, reinjection.producer);
        let loaded = Divergence::load(self.options.limits, &reinjection.slices, common, producer);
        let divergence = match loaded {
            Ok(divergence) => divergence,
            Err(malformed) => {
                // Its log is set aside on its own disk before it is replaced.
                out.notices.push((true, unreadable(&malformed)));
                reinjection.records.clear();
                reinjection.slices.clear();
                reinjection.owes_answer = false;
                return false;
            }
        };
        let open = &mut self.inflight.open;
        if !self.broker.reinject_definitions(&divergence, open) {
            return false;
        }
        reinjection.settled = self.broker.reinject_settles(&divergence, open);
        self.broker.flush_settles(open);
        reinjection.until = open.next_lsn().prev();
        reinjection.slices = Vec::new();
        reinjection.divergence = Some(divergence);
        true
    }
}

fn unreadable(why: &dyn std::fmt::Display) -> String {
    format!("what the returning node had committed alone cannot be read: {why}")
}
