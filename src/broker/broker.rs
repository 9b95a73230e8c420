//! The broker's state: what is committed, which only `apply.rs` changes, and the master's memory.

use crate::access::Access;
use crate::clients::Clients;
use crate::delayed::Delayed;
use crate::lsn_set::LsnSet;
use crate::producers::Producers;
use crate::queue::Queue;
use crate::rules::QueueRules;
use crate::segments::{Segment, Segments};
use crate::topology::Topology;
use crate::traffic::Traffic;
use std::collections::{BTreeMap, BTreeSet};
use understudy_model::{
    ApplyTo, Features, Lsn, ProducerSequence, QueueId, QueueSpec, Table, Text, UserRecord,
};

/// Bounds on what one client can make the broker hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A connection with more unsent message bytes than this gets no further deliveries.
    pub outbound_bytes_max: u64,
    pub queues_max: usize,
    /// Of all vhosts, those that are predeclared too.
    pub exchanges_max: usize,
    pub bindings_per_exchange_max: usize,
    pub consumers_per_connection_max: usize,
    /// The log is given back in stretches of at least so many bytes.
    pub segment_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbound_bytes_max: 4 << 20,
            queues_max: 200_000,
            exchanges_max: 200_000,
            bindings_per_exchange_max: 200_000,
            consumers_per_connection_max: 10_000,
            segment_bytes_min: 16 << 20,
        }
    }
}

/// What listings and health pages show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    pub consumers: u64,
    pub queues: u64,
    pub ready: u64,
    pub unsettled: u64,
}

/// Names that an uncommitted command will make or remove; a request that touches one waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Exchange(Text, Text),
    Queue(Text, Text),
}

pub struct Broker {
    pub(crate) limits: Limits,
    // Committed.
    pub(crate) topology: Topology,
    pub(crate) access: Access,
    /// Boxed: ids ascend, and a tree that grows at its end is half empty.
    pub(crate) queues: BTreeMap<QueueId, Box<Queue>>,
    pub(crate) producers: Producers,
    pub(crate) delayed: Delayed,
    pub(crate) segments: Segments,
    pub(crate) applied: Lsn,
    /// What the log may hold from here on.
    pub(crate) features: Features,
    // The master's memory.
    /// Milliseconds since 1970, as the node last said.
    pub(crate) now_ms: u64,
    pub(crate) clients: Clients,
    pub(crate) reserved: BTreeMap<Name, Lsn>,
    /// Sequences that were decided in this epoch: the committed table lags behind them.
    pub(crate) decided_sequences: BTreeMap<u128, (u64, Lsn)>,
    /// Transactions that were decided in this epoch, likewise.
    pub(crate) decided_commits: BTreeMap<ProducerSequence, Lsn>,
    /// Queues that may have something to hand out.
    pub(crate) to_serve: BTreeSet<QueueId>,
    /// The queue that handed something out last.
    pub(crate) served_last: QueueId,
    pub(crate) settles_due: BTreeSet<QueueId>,
    pub(crate) returns_due: BTreeSet<QueueId>,
    /// Queues with messages that are to be dead-lettered.
    pub(crate) dying: BTreeSet<QueueId>,
    /// When to look at queues again, milliseconds since 1970.
    pub(crate) timers: BTreeSet<(u64, QueueId)>,
    pub(crate) marks_due: BTreeSet<QueueId>,
    /// A consumer waits for a mark to be committed.
    pub(crate) mark_awaited: bool,
    pub(crate) traffic: Traffic,
    // For saving.
    pub(crate) dirty_queues: BTreeSet<QueueId>,
    pub(crate) topology_dirty: bool,
    pub(crate) access_dirty: bool,
}

/// Messages that some queue held at one time, in ascending order. Sets of LSNs are small where
/// messages lie side by side, so that taking them takes far less time than listing them.
pub struct LiveMessages {
    sets: Vec<LsnSet>,
    from: Lsn,
    last: Lsn,
}

impl LiveMessages {
    /// The next ones, within so many LSNs from the first of them; none: there are no more.
    pub fn next_within(&mut self, span: u64) -> Vec<Lsn> {
        let before = Lsn(self.from.0.saturating_sub(1));
        let first = self.sets.iter().filter_map(|set| set.next_after(before)).min();
        let Some(first) = first.filter(|first| *first <= self.last) else { return Vec::new() };
        let last = Lsn(first.0.saturating_add(span - 1)).min(self.last);
        let mut live: Vec<Lsn> = self.sets.iter().flat_map(|set| set.range(first, last)).collect();
        live.sort_unstable();
        live.dedup();
        self.from = last.next();
        live
    }
}

impl Broker {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            topology: Topology::default(),
            access: Access::default(),
            queues: BTreeMap::new(),
            producers: Producers::default(),
            delayed: Delayed::default(),
            segments: Segments::default(),
            applied: Lsn::ZERO,
            features: Features::NONE,
            now_ms: 0,
            clients: Clients::default(),
            reserved: BTreeMap::new(),
            decided_sequences: BTreeMap::new(),
            decided_commits: BTreeMap::new(),
            to_serve: BTreeSet::new(),
            served_last: QueueId::default(),
            settles_due: BTreeSet::new(),
            returns_due: BTreeSet::new(),
            dying: BTreeSet::new(),
            timers: BTreeSet::new(),
            marks_due: BTreeSet::new(),
            mark_awaited: false,
            traffic: Traffic::default(),
            dirty_queues: BTreeSet::new(),
            topology_dirty: false,
            access_dirty: false,
        }
    }

    pub fn features(&self) -> Features {
        self.features
    }

    pub fn applied(&self) -> Lsn {
        self.applied
    }

    pub fn users(&self) -> impl Iterator<Item = &UserRecord> {
        self.topology.users.values()
    }

    /// Changes whenever users, vhosts, exchanges, queues or bindings do.
    pub fn topology_version(&self) -> u64 {
        self.topology.version
    }

    pub fn has_vhost(&self, name: &str) -> bool {
        self.topology.vhosts.contains_key(name)
    }

    pub fn counts(&self) -> Counts {
        let unsettled = self.queues.values().map(|queue| queue.unsettled().len()).sum();
        Counts {
            connections: self.clients.connections.len() as u64,
            consumers: self.clients.consumers.values().filter(|c| !c.cancelled).count() as u64,
            queues: self.queues.len() as u64,
            ready: self.queues.values().map(|queue| queue.ready()).sum(),
            unsettled,
        }
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Live messages from `first` to `last`, ascending, each once.
    pub fn live_messages(&self, first: Lsn, last: Lsn) -> Vec<Lsn> {
        let mut live: Vec<Lsn> = self.delayed.range(first, last).collect();
        for queue in self.queues.values() {
            live.extend(queue.unsettled().range(first, last));
        }
        live.sort_unstable();
        live.dedup();
        live
    }

    /// The same as of now, to be listed bit by bit.
    pub fn live_now(&self, first: Lsn, last: Lsn) -> LiveMessages {
        let mut delayed = LsnSet::default();
        self.delayed.range(first, last).for_each(|lsn| _ = delayed.push(lsn));
        let queues = self.queues.values().map(|queue| queue.unsettled());
        let sets = queues.filter(|set| !set.is_empty()).cloned().chain([delayed]).collect();
        LiveMessages { sets, from: first, last }
    }

    /// As [`Self::live_messages`], of what lies in the cold store.
    pub fn live_cold_messages(&self, first: Lsn, last: Lsn) -> Vec<Lsn> {
        let cold = self.segments.iter().filter(|segment| segment.cold);
        let within = cold.filter(|segment| segment.first <= last && first <= segment.last);
        within
            .flat_map(|segment| {
                self.live_messages(segment.first.max(first), segment.last.min(last))
            })
            .collect()
    }

    /// Stretches of the log that no segment covers, to be given back (again) after a start.
    pub fn dead_log(&self) -> impl Iterator<Item = (Lsn, Lsn)> {
        self.segments.gaps()
    }

    pub fn segment_removed(&mut self, first: Lsn) {
        self.segments.remove(first);
    }

    pub fn segment_cold(&mut self, first: Lsn, bytes: u64) {
        self.segments.set_cold(first, bytes);
    }

    /// Nobody holds anything, and every queue is looked at: its time may have come.
    pub(crate) fn begin_epoch(&mut self) {
        self.queues.values_mut().for_each(|queue| queue.begin_epoch());
        self.delayed.begin_epoch();
        self.dying.clear();
        self.timers.clear();
        self.returns_due.clear();
        self.to_serve.extend(self.queues.keys());
    }

    pub(crate) fn rules_of(&self, spec: &QueueSpec) -> QueueRules {
        let arguments = Table::decode(&spec.arguments).unwrap_or_default();
        let policy = self.access.policies.effective(&spec.vhost, ApplyTo::Queues, &spec.name);
        QueueRules::new(&arguments, policy.map(|policy| &policy.definition))
    }

    /// The node leads no more, or not yet: clients and everything undecided are forgotten.
    pub fn forget_clients(&mut self) {
        for state in std::mem::take(&mut self.clients).connections.into_values() {
            self.traffic.to(state.protocol).closed += 1;
        }
        self.reserved.clear();
        self.decided_sequences.clear();
        self.decided_commits.clear();
        self.settles_due.clear();
        self.marks_due.clear();
        self.mark_awaited = false;
        self.begin_epoch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_messages_come_window_by_window_without_repeats() {
        let set = |lsns: &[u64]| {
            let mut set = LsnSet::default();
            lsns.iter().for_each(|lsn| _ = set.push(Lsn(*lsn)));
            set
        };
        let sets = vec![set(&[2, 5, 1_000]), set(&[]), set(&[5, 6, 14, 2_000])];
        let mut live = LiveMessages { sets, from: Lsn(3), last: Lsn(1_500) };
        let mut windows = Vec::new();
        loop {
            let window = live.next_within(10);
            if window.is_empty() {
                break;
            }
            windows.push(window.into_iter().map(|lsn| lsn.0).collect::<Vec<_>>());
        }
        assert_eq!(windows, [vec![5, 6, 14], vec![1_000]]);
    }
}
