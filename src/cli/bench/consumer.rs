//! A consumer: what came, in which order, how late.

use super::load::{Ack, Load};
use super::meter::{Latencies, Shared, add};
use super::wire::{Stamp, Wire};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) struct Consumer {
    load: Arc<Load>,
    queues: Vec<usize>,
    /// Highest sequence seen and one, by queue and producer.
    next_sequences: Vec<u64>,
    unsettled: u64,
    tally: Tally,
}

/// Since the last report.
#[derive(Default)]
struct Tally {
    received: u64,
    new: u64,
    duplicates: u64,
    duplicates_unflagged: u64,
    out_of_order: u64,
    foreign: u64,
}

impl Consumer {
    pub(super) fn new(number: usize, load: Arc<Load>) -> Self {
        Self {
            queues: load.queues_of(number, load.consumers),
            next_sequences: vec![0; load.queues * load.producers],
            load,
            unsettled: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn queues(&self) -> Vec<usize> {
        self.queues.clone()
    }

    pub(super) fn receive(
        &mut self,
        (queue, redelivered, stamp): (usize, bool, Option<Stamp>),
        now_ns: u64,
        latencies: &mut Latencies,
        shared: &Shared,
    ) {
        self.tally.received += 1;
        self.unsettled += 1;
        let known = stamp.filter(|stamp| {
            stamp.run == self.load.run
                && (stamp.producer as usize) < self.load.producers
                && queue < self.load.queues
        });
        let Some(stamp) = known else {
            // Without stamps every message counts, else it is another run's.
            let counted = u64::from(!self.load.is_stamped());
            self.tally.new += counted;
            self.tally.foreign += 1 - counted;
            return;
        };
        let producer = stamp.producer as usize;
        let next = &mut self.next_sequences[queue * self.load.producers + producer];
        if shared.ledger.receive(queue, producer, stamp.sequence) {
            self.tally.new += 1;
            if stamp.sequence < *next && !redelivered {
                self.tally.out_of_order += 1;
            }
            latencies.end_to_end.saturating_record(now_ns.saturating_sub(stamp.due_ns));
        } else {
            self.tally.duplicates += 1;
            self.tally.duplicates_unflagged += u64::from(!redelivered);
        }
        *next = (*next).max(stamp.sequence + 1);
    }

    /// After a read: what came is counted, and settled if it is time.
    pub(super) fn after_read(
        &mut self,
        wire: &mut dyn Wire,
        out: &mut Vec<u8>,
        now_ns: u64,
        shared: &Shared,
    ) {
        let tally = std::mem::take(&mut self.tally);
        if tally.received > 0 {
            let counters = &shared.counters;
            add(&counters.received, tally.received);
            add(&counters.received_new, tally.new);
            add(&counters.duplicates, tally.duplicates);
            add(&counters.duplicates_unflagged, tally.duplicates_unflagged);
            add(&counters.out_of_order, tally.out_of_order);
            add(&counters.foreign, tally.foreign);
            counters.last_ns.fetch_max(now_ns, Ordering::Relaxed);
        }
        self.settle_if_due(wire, out);
    }

    /// Called after each delivery too: `ack_every` is exact, whatever a read brings.
    pub(super) fn settle_if_due(&mut self, wire: &mut dyn Wire, out: &mut Vec<u8>) {
        if self.load.ack != Ack::Auto && self.unsettled >= self.load.ack_every {
            self.settle(wire, out);
        }
    }

    pub(super) fn settle(&mut self, wire: &mut dyn Wire, out: &mut Vec<u8>) {
        if self.load.ack != Ack::Auto && self.unsettled > 0 {
            wire.settle(out);
        }
        self.unsettled = 0;
    }

    pub(super) fn on_lost_connection(&mut self) {
        self.unsettled = 0;
    }
}
