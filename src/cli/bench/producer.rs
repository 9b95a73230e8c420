//! A producer: what it has sent and what of it is confirmed.

use super::load::Load;
use super::meter::{Latencies, Shared, add};
use super::wire::{Stamp, Wire};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Enough for one write; more would only lie in our memory.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

#[derive(Clone, Copy)]
struct Outstanding {
    queue: usize,
    /// Among all of this producer's, from 1.
    number: u64,
    stamp: Stamp,
    done: bool,
}

pub(super) struct Producer {
    number: usize,
    /// By which a broker can tell what it has already.
    id: u128,
    load: Arc<Load>,
    queues: Vec<usize>,
    /// Index into `queues` of the next message's.
    turn: usize,
    /// By index into `queues`; with a fanout the first for all.
    next_sequences: Vec<u64>,
    made: u64,
    share: u64,
    /// Unconfirmed on this connection, in the order of their numbers.
    outstanding: VecDeque<Outstanding>,
    /// The front's number on this connection.
    front_number: u64,
    /// Unconfirmed when a connection was lost: to be sent again, first.
    again: VecDeque<Outstanding>,
    /// Or when something began to be awaited: gaps between confirms count from here.
    last_confirm_ns: u64,
    /// A connection was lost since: the gap goes on, whatever is sent on the next one.
    interrupted: bool,
    done: bool,
}

impl Producer {
    /// # Errors
    /// The system has no random number for an identity.
    pub(super) fn new(
        number: usize,
        load: Arc<Load>,
        first_sequences: Vec<u64>,
    ) -> anyhow::Result<Self> {
        let queues = load.queues_of(number, load.producers);
        let next_sequences =
            if first_sequences.is_empty() { vec![0; queues.len()] } else { first_sequences };
        let id = u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?);
        Ok(Self {
            number,
            id,
            share: load.share_of(number),
            load,
            queues,
            turn: 0,
            next_sequences,
            made: 0,
            outstanding: VecDeque::new(),
            front_number: 1,
            again: VecDeque::new(),
            last_confirm_ns: 0,
            interrupted: false,
            done: false,
        })
    }

    pub(super) fn id(&self) -> u128 {
        self.id
    }

    /// When the message that is made next is due; none: at once.
    fn due_ns(&self, began_ns: u64) -> Option<u64> {
        let rate = self.load.rate? / self.load.producers as f64;
        // Producers take turns.
        let position = self.made as f64 + self.number as f64 / self.load.producers as f64;
        Some(began_ns + (position * 1e9 / rate) as u64)
    }

    fn is_finished(&self, shared: &Shared) -> bool {
        self.made >= self.share || shared.stop_publishing.load(Ordering::Relaxed)
    }

    /// Nanoseconds until there is something to send; none: only a confirm brings it.
    pub(super) fn wait_ns(&self, now_ns: u64, shared: &Shared) -> Option<u64> {
        let began_ns = shared.began()?;
        if self.is_finished(shared) || self.window_is_full() {
            return None;
        }
        Some(self.due_ns(began_ns).map_or(0, |due_ns| due_ns.saturating_sub(now_ns)))
    }

    fn window_is_full(&self) -> bool {
        self.load.confirms() && self.outstanding.len() >= self.load.window
    }

    fn make(&mut self, due_ns: u64) -> Outstanding {
        let queue = self.queues[self.turn];
        let stream = if self.load.fanout { 0 } else { self.turn };
        self.turn = if self.turn + 1 == self.queues.len() { 0 } else { self.turn + 1 };
        let sequence = self.next_sequences[stream];
        self.next_sequences[stream] += 1;
        self.made += 1;
        let producer = self.number as u32;
        let stamp = Stamp { run: self.load.run, producer, sequence, due_ns };
        Outstanding { queue, number: self.made, stamp, done: false }
    }

    /// Publishes what is due and fits into the window.
    pub(super) fn fill(&mut self, wire: &mut dyn Wire, out: &mut Vec<u8>, shared: &Shared) {
        let Some(began_ns) = shared.began() else { return };
        let now_ns = shared.now_ns();
        let (mut published, mut sent_again) = (0, 0);
        while out.len() < OUTPUT_BYTES_MAX && !self.window_is_full() {
            let message = if let Some(message) = self.again.pop_front() {
                sent_again += 1;
                message
            } else if self.is_finished(shared) {
                break;
            } else {
                let due_ns = self.due_ns(began_ns).unwrap_or(now_ns);
                if due_ns > now_ns {
                    break;
                }
                self.make(due_ns)
            };
            wire.publish(message.queue, message.number, &message.stamp, out);
            published += 1;
            if self.load.confirms() {
                if self.outstanding.is_empty() && !self.interrupted {
                    self.last_confirm_ns = now_ns;
                }
                self.outstanding.push_back(message);
            } else {
                let stamp = &message.stamp;
                shared.ledger.confirm(message.queue, self.number, stamp.sequence);
            }
        }
        add(&shared.counters.published, published);
        add(&shared.counters.sent_again, sent_again);
        if !self.load.confirms() && published > 0 {
            add(&shared.counters.confirmed, published);
            shared.counters.last_ns.fetch_max(now_ns, Ordering::Relaxed);
        }
        self.finish(shared);
    }

    pub(super) fn confirm(
        &mut self,
        number: u64,
        multiple: bool,
        now_ns: u64,
        latencies: &mut Latencies,
        shared: &Shared,
    ) {
        let confirmed = self.settle(number, multiple, |message| {
            latencies.confirm.saturating_record(now_ns.saturating_sub(message.stamp.due_ns));
            shared.ledger.confirm(
                message.queue,
                message.stamp.producer as usize,
                message.stamp.sequence,
            );
        });
        add(&shared.counters.confirmed, confirmed);
        let gap_ns = now_ns.saturating_sub(self.last_confirm_ns);
        shared.counters.confirm_gap_ns.fetch_max(gap_ns, Ordering::Relaxed);
        shared.counters.last_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.last_confirm_ns = now_ns;
        self.interrupted = false;
        self.finish(shared);
    }

    pub(super) fn nack(&mut self, number: u64, multiple: bool, shared: &Shared) {
        let nacked = self.settle(number, multiple, |_| {});
        add(&shared.counters.nacked, nacked);
        self.finish(shared);
    }

    fn settle(&mut self, number: u64, multiple: bool, mut each: impl FnMut(&Outstanding)) -> u64 {
        let Some(at) = number.checked_sub(self.front_number) else { return 0 };
        let at = at as usize;
        let first = if multiple { 0 } else { at };
        let mut settled = 0;
        let end = self.outstanding.len().min(at + 1);
        for message in self.outstanding.range_mut(first.min(end)..end) {
            if !message.done {
                message.done = true;
                settled += 1;
                each(message);
            }
        }
        while self.outstanding.front().is_some_and(|message| message.done) {
            self.outstanding.pop_front();
            self.front_number += 1;
        }
        settled
    }

    fn finish(&mut self, shared: &Shared) {
        let idle = self.outstanding.is_empty() && self.again.is_empty();
        if !self.done && idle && self.is_finished(shared) {
            self.done = true;
            shared.producers_left.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// What was not confirmed is sent again on the next connection.
    pub(super) fn on_lost_connection(&mut self, now_ns: u64) {
        if self.outstanding.is_empty() && !self.interrupted {
            self.last_confirm_ns = now_ns;
        }
        self.interrupted = true;
        let open = self.outstanding.drain(..).filter(|message| !message.done);
        let open: Vec<Outstanding> = open.collect();
        for message in open.into_iter().rev() {
            self.again.push_front(message);
        }
        self.front_number = 1;
    }

    /// Where the next phase goes on.
    pub(super) fn into_next_sequences(self) -> (usize, Vec<u64>) {
        (self.number, self.next_sequences)
    }
}
