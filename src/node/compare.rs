//! The states of the two nodes are compared, a part at a time, each at an LSN that both pass. What
//! differs is an alarm on both, and nothing else: their logs are equal by chain, so all that was
//! confirmed is on both disks; which of the two has kept its books wrong is not known, and to take the
//! right to lead from one of them would make an outage of a suspicion. A part of the node, sans-io.

use super::{Node, Outputs};
use understudy_broker::Part;
use understudy_model::Lsn;
use understudy_replication::{Input as BackendInput, StateDigest};

#[derive(Default)]
pub(super) struct Comparisons {
    due_ms: u64,
    /// The last part that was compared in the round.
    last: Option<Part>,
    /// Slave: to be compared when this LSN is applied.
    waiting: Option<StateDigest>,
    compared: u64,
    /// The whole round so far, from its first part on, was equal.
    equal_round: bool,
    differs: Option<(Lsn, Part)>,
}

impl Comparisons {
    pub(super) fn forget_peer(&mut self) {
        self.waiting = None;
        self.last = None;
        self.equal_round = false;
    }

    /// What differed is no alarm any more when a whole round was equal since.
    fn outcome(&mut self, at: Lsn, part: Part, differs: bool) {
        self.compared += 1;
        if part == Part::Topology {
            self.equal_round = true;
        }
        if differs {
            self.differs = Some((at, part));
            self.equal_round = false;
        } else if part.ends_round() && self.equal_round {
            self.differs = None;
        }
    }
}

impl Node {
    /// Parts of the state that were compared with the peer's since the start.
    pub fn compared(&self) -> u64 {
        self.comparisons.compared
    }

    /// Where the states of the nodes were found to differ.
    pub fn differs(&self) -> Option<(Lsn, Part)> {
        self.comparisons.differs
    }

    pub(super) fn comparison_due_ms(&self) -> Option<u64> {
        let compares = self.leading.is_some() && self.options.digest_interval_ms > 0;
        compares.then_some(self.comparisons.due_ms)
    }

    /// Master, once a turn.
    pub(super) fn compare_some(&mut self, now_ms: u64, out: &mut Outputs) {
        if self.comparison_due_ms().is_none_or(|due_ms| due_ms > now_ms) {
            return;
        }
        self.comparisons.due_ms = now_ms + self.options.digest_interval_ms;
        if !self.serving || !self.backend.status().in_sync {
            return;
        }
        let last = self.comparisons.last;
        let part = last.map_or(Part::Topology, |last| self.broker.part_after(last));
        self.comparisons.last = Some(part);
        let digest = StateDigest {
            at: self.broker.applied(),
            part: part.encode(),
            hash: self.broker.digest_of(part),
            differs: None,
        };
        self.backend_input(now_ms, BackendInput::Compare(digest), out);
    }

    /// From the peer: a question at the slave, the answer at the master.
    pub(super) fn on_digest(&mut self, now_ms: u64, digest: StateDigest, out: &mut Outputs) {
        match (digest.differs, Part::decode(&digest.part)) {
            (Some(differs), Ok(part)) => self.compared_part(digest.at, part, differs, out),
            (None, Ok(_)) => {
                self.comparisons.waiting = Some(digest);
                self.compare_if_applied(now_ms, out);
            }
            (_, Err(malformed)) => {
                out.notices.push((true, format!("a digest of the peer: {malformed}")));
            }
        }
    }

    /// After each group that is applied.
    pub(super) fn compare_if_applied(&mut self, now_ms: u64, out: &mut Outputs) {
        let applied = self.broker.applied();
        let Some(digest) = self.comparisons.waiting.take_if(|digest| digest.at <= applied) else {
            return;
        };
        // Passed already, which only a new session can bring about.
        if digest.at < applied {
            return;
        }
        let Ok(part) = Part::decode(&digest.part) else { return };
        let differs = self.broker.digest_of(part) != digest.hash;
        self.compared_part(digest.at, part, differs, out);
        let answer = StateDigest { differs: Some(differs), ..digest };
        self.backend_input(now_ms, BackendInput::Compare(answer), out);
    }

    fn compared_part(&mut self, at: Lsn, part: Part, differs: bool, out: &mut Outputs) {
        if differs {
            let text = format!(
                "the states of master and slave differ at LSN {at}: {part:?}. Compare `understudy \
                 list_queues` on both; a resync of the slave takes over what the master has"
            );
            out.notices.push((true, text));
        }
        self.comparisons.outcome(at, part, differs);
    }
}
