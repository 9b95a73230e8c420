//! What must hold at every step and at rest (docs/replication.md section 13).

use crate::world::Side;
use std::collections::{BTreeMap, BTreeSet};
use understudy::node::{Node, Outputs};
use understudy_model::{Effect, Lsn};

#[derive(Default)]
pub struct Checks {
    sent: BTreeSet<String>,
    confirmed: BTreeSet<String>,
    settled: BTreeSet<String>,
    /// Sent again without a producer sequence: may be stored twice.
    resent: BTreeSet<String>,
    deliveries: BTreeMap<String, u64>,
    handed_out: BTreeSet<String>,
    /// Highest first-delivered number of each publisher.
    order: BTreeMap<String, u64>,
    /// Who served in an epoch.
    served: BTreeMap<u64, Side>,
    /// Highest epoch in which something was committed by its master, and what that was first.
    committed_in: (u64, Lsn),
    /// What an in-sync slave's disk held before it was replaced.
    pub(crate) replaced: [Lsn; 2],
    /// Publishers whose messages wait by the masters' clocks, which differ.
    pub unordered: BTreeSet<String>,
    applied: [Lsn; 2],
    epoch: [u64; 2],
    pub violations: Vec<String>,
    /// With a partition that lets both serve, order and finality of settles are not promised.
    pub partitioned: bool,
    /// A node's state was spoilt: it is to be told.
    pub spoilt: bool,
}

impl Checks {
    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    pub(crate) fn sent(&mut self, body: String) {
        self.sent.insert(body);
    }

    pub(crate) fn resent(&mut self, body: String) {
        self.resent.insert(body);
    }

    pub(crate) fn confirmed(&mut self, body: String) {
        self.confirmed.insert(body);
    }

    pub(crate) fn settled(&mut self, body: String) {
        self.settled.insert(body);
    }

    pub(crate) fn outstanding(&mut self, outstanding: u32, prefetch: u32) {
        if prefetch > 0 && outstanding > prefetch {
            self.violation(format!("{outstanding} outstanding with a prefetch of {prefetch}"));
        }
    }

    pub(crate) fn received(&mut self, body: &str, redelivered: bool) {
        if !self.sent.contains(body) {
            self.violation(format!("{body:?} came from nowhere"));
        }
        let count = self.deliveries.entry(body.to_owned()).or_default();
        *count += 1;
        let flagged = redelivered || self.partitioned || self.resent.contains(body);
        if *count > 1 && !flagged {
            self.violation(format!("{body} came again without a flag"));
        }
        let final_settle = !self.partitioned && !self.resent.contains(body);
        if final_settle && self.settled.contains(body) {
            self.violation(format!("{body} came again after its settle was receipted"));
        }
    }

    /// A node hands a message out. Order is checked here: what two clients see of it depends on
    /// their links.
    pub(crate) fn handed_out(&mut self, body: &str) {
        let first = self.handed_out.insert(body.to_owned());
        let Some((publisher, number)) = body.split_once('-') else { return };
        let number = number.parse().unwrap_or(0);
        let highest = self.order.entry(publisher.to_owned()).or_default();
        let ordered = !self.partitioned && !self.unordered.contains(publisher);
        if first && number < *highest && ordered {
            let text = format!("{body} was first delivered after number {highest}");
            self.violation(text);
        } else if first {
            *highest = number;
        }
    }

    /// After each turn of a node. `peer_end`: the last LSN on the other's disk.
    pub(crate) fn node(&mut self, side: Side, node: &Node, peer_end: Lsn, seed: u64) {
        let cursors = (node.applied(), node.durable(), node.appended());
        if cursors.0 > cursors.1 || cursors.1 > cursors.2 {
            self.violation(format!("seed {seed}: {side:?} cursors out of order {cursors:?}"));
        }
        if let Some((at, part)) = node.differs()
            && !self.spoilt
        {
            self.violation(format!("seed {seed}: {side:?} differs at LSN {at}: {part:?}"));
        }
        let status = node.status();
        let moved = node.applied() > self.applied[side as usize];
        self.applied[side as usize] = node.applied();
        if status.epoch < self.epoch[side as usize] {
            self.violation(format!("{side:?} went back to epoch {}", status.epoch));
        }
        self.epoch[side as usize] = status.epoch;
        if !node.is_serving() || status.state == "stopped" {
            return;
        }
        if status.role != "master" {
            self.violation(format!("{side:?} serves as {}", status.role));
        }
        // R2: what was answered is on both disks.
        let peer_end = peer_end.max(self.replaced[side.other() as usize]);
        if status.state == "in-sync" && node.applied() > peer_end && !self.partitioned {
            let text = format!("{side:?} committed {} alone: {peer_end}", node.applied());
            self.violation(text);
        }
        // One that was asleep may still learn that its slave had stored what it sent, and that is
        // part of the newer mastership's log.
        let (newest, begin) = self.committed_in;
        if moved && status.epoch < newest && node.applied() >= begin && !self.partitioned {
            let text = format!("{side:?} commits in epoch {} beside {newest}", status.epoch);
            self.violation(text);
        }
        if moved && status.epoch > newest {
            self.committed_in = (status.epoch, node.applied());
        }
        let served = *self.served.entry(status.epoch).or_insert(side);
        // Apart, two masters may take the same number; the generation tells them from each other.
        if served != side && !self.partitioned {
            self.violation(format!("both nodes served in epoch {}", status.epoch));
        }
    }

    /// A slave gives nothing to clients.
    pub(crate) fn effects(&mut self, side: Side, node: &Node, out: &Outputs) {
        let told = |effect: &Effect| matches!(effect, Effect::Deliver(_) | Effect::Confirm { .. });
        let status = node.status();
        // A master that stops in order answers what is committed in its last turn.
        if status.role == "slave"
            && status.state != "stopped"
            && out.effects.values().flatten().any(told)
        {
            self.violation(format!("{side:?} serves clients as slave"));
        }
    }

    /// The process has ended: what it had only in memory is gone.
    pub(crate) fn forget(&mut self, side: Side) {
        self.applied[side as usize] = Lsn::ZERO;
        self.epoch[side as usize] = 0;
    }

    pub(crate) fn replaced(&mut self, side: Side, end: Lsn) {
        self.replaced[side as usize] = end;
    }

    pub fn confirmed_count(&self) -> usize {
        self.confirmed.len()
    }

    pub fn duplicates(&self) -> u64 {
        self.deliveries.values().map(|count| count - 1).sum()
    }

    /// Confirmed messages that never came.
    pub fn lost(&self) -> Vec<&String> {
        self.confirmed.iter().filter(|body| !self.deliveries.contains_key(*body)).collect()
    }
}
