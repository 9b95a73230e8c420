//! What is to be done, checked: the arguments become this.

use super::address::Address;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Ack {
    /// The broker settles when it sends.
    Auto,
    /// One acknowledgement for all since the last.
    Cumulative,
    /// One for each delivery.
    Individual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PhaseKind {
    /// Publishers and consumers together.
    Flow,
    /// Publishers alone.
    Fill,
    /// Consumers alone.
    Drain,
}

impl PhaseKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Fill => "fill",
            Self::Drain => "drain",
        }
    }

    pub(super) fn publishes(self) -> bool {
        self != Self::Drain
    }

    pub(super) fn consumes(self) -> bool {
        self != Self::Fill
    }
}

#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) servers: Vec<Address>,
    /// Queues are this with their number; the fanout exchange is this.
    pub(super) name: String,
    pub(super) run: u32,
    pub(super) producers: usize,
    pub(super) consumers: usize,
    pub(super) queues: usize,
    pub(super) fanout: bool,
    /// Bytes of a body.
    pub(super) size: usize,
    pub(super) persistent: bool,
    pub(super) durable: bool,
    pub(super) queue_arguments: Vec<(String, String)>,
    /// Unconfirmed publishes of one producer; 0: no confirms.
    pub(super) window: usize,
    pub(super) ack: Ack,
    pub(super) ack_every: u64,
    /// Of one consumer connection; 0: no limit.
    pub(super) prefetch: u16,
    /// Messages per second of all producers; none: as fast as the broker takes them.
    pub(super) rate: Option<f64>,
    /// Of all producers, in each phase that publishes.
    pub(super) messages: u64,
    /// Ends a phase that publishes earlier.
    pub(super) duration: Option<Duration>,
    /// A phase gives up when nothing has come for so long.
    pub(super) patience: Duration,
    pub(super) reconnects: bool,
    /// Queues are emptied first.
    pub(super) purges: bool,
}

impl Load {
    pub(super) fn queue_name(&self, queue: usize) -> String {
        format!("{}-{queue}", self.name)
    }

    pub(super) fn confirms(&self) -> bool {
        self.window > 0
    }

    /// Bodies too short for a stamp are sent, but neither timed nor verified.
    pub(super) fn is_stamped(&self) -> bool {
        self.size >= super::wire::STAMP_BYTES
    }

    /// Every queue has a worker of each kind; with more workers than queues, several share one.
    pub(super) fn queues_of(&self, worker: usize, workers: usize) -> Vec<usize> {
        if workers >= self.queues {
            return vec![worker % self.queues];
        }
        (0..self.queues).filter(|queue| queue % workers == worker).collect()
    }

    /// The producer's part of `messages`.
    pub(super) fn share_of(&self, producer: usize) -> u64 {
        let producers = self.producers as u64;
        self.messages / producers + u64::from((producer as u64) < self.messages % producers)
    }

    /// How often each message is delivered.
    pub(super) fn copies(&self) -> u64 {
        if self.fanout { self.queues as u64 } else { 1 }
    }
}
