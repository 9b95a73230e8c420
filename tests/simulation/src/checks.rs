//! What must hold at every step and at rest (design.md section 9, replication.md part 9).

use crate::world::Side;
use std::collections::{BTreeMap, BTreeSet};
use understudy::node::Node;
use understudy_model::Lsn;

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
    applied: [Lsn; 2],
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
        if first && number < *highest && !self.partitioned {
            let text = format!("{body} was first delivered after number {highest}");
            self.violation(text);
        } else if first {
            *highest = number;
        }
    }

    pub(crate) fn node(&mut self, side: Side, node: &Node, seed: u64) {
        let cursors = (node.applied(), node.durable(), node.appended());
        if cursors.0 > cursors.1 || cursors.1 > cursors.2 {
            self.violation(format!("seed {seed}: {side:?} cursors out of order {cursors:?}"));
        }
        self.applied[side as usize] = node.applied();
        if let Some((at, part)) = node.differs()
            && !self.spoilt
        {
            self.violation(format!("seed {seed}: {side:?} differs at LSN {at}: {part:?}"));
        }
        if node.is_serving() {
            let epoch = node.status().epoch;
            let served = *self.served.entry(epoch).or_insert(side);
            // Apart, two masters may take the same number; the generation tells them from each other.
            if served != side && !self.partitioned {
                self.violation(format!("both nodes served in epoch {epoch}"));
            }
        }
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
