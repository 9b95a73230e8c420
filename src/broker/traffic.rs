//! What clients have done since this broker was made, counted for monitoring: nothing depends on
//! it, and nothing of it is logged.

use crate::dead_letter::Reason;
use understudy_model::{AckMode, Protocol, Publish};

/// Of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub opened: u64,
    pub closed: u64,
    /// Publishes that were decided, refused ones too.
    pub received: u64,
    /// … of clients that want confirms.
    pub received_confirm: u64,
    /// Confirms that were decided. They are told when committed.
    pub confirmed: u64,
    /// Once for each queue.
    pub routed: u64,
    pub unroutable_dropped: u64,
    pub unroutable_returned: u64,
    /// To consumers, in `AckMode::Auto` and `Manual`.
    pub consumed: [u64; 2],
    /// Answers to gets, likewise.
    pub got: [u64; 2],
    pub browsed: u64,
    pub get_empty: u64,
    pub redelivered: u64,
    /// Deliveries that clients settled.
    pub acknowledged: u64,
}

/// How a message was handed out.
#[derive(Clone, Copy)]
pub(crate) enum Handed {
    Consumed(AckMode),
    Got(AckMode),
    Browsed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    by_protocol: [Counted; 4],
    /// Of whose request is being decided.
    asking: Protocol,
    /// Declarations that were not refused, of queues that were there too.
    pub queues_declared: u64,
    pub queues_created: u64,
    pub queues_deleted: u64,
    dead_lettered: [u64; 4],
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            by_protocol: Default::default(),
            asking: Protocol::Management,
            queues_declared: 0,
            queues_created: 0,
            queues_deleted: 0,
            dead_lettered: [0; 4],
        }
    }
}

impl Counted {
    pub(crate) fn handed(&mut self, handed: Handed, redelivered: bool) {
        match handed {
            Handed::Consumed(ack) => self.consumed[usize::from(ack == AckMode::Manual)] += 1,
            Handed::Got(ack) => self.got[usize::from(ack == AckMode::Manual)] += 1,
            Handed::Browsed => self.browsed += 1,
        }
        self.redelivered += u64::from(redelivered);
    }
}

impl Traffic {
    #[must_use]
    pub fn of(&self, protocol: Protocol) -> &Counted {
        &self.by_protocol[protocol as usize]
    }

    /// Dead-lettered messages by the reason's name, as in `x-death`.
    pub fn dead_lettered(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().map(|reason| (reason.name(), self.dead_lettered[*reason as usize]))
    }

    pub(crate) fn to(&mut self, protocol: Protocol) -> &mut Counted {
        &mut self.by_protocol[protocol as usize]
    }

    pub(crate) fn asks(&mut self, protocol: Protocol) {
        self.asking = protocol;
    }

    pub(crate) fn asking(&mut self) -> &mut Counted {
        self.to(self.asking)
    }

    pub(crate) fn received(&mut self, publish: &Publish) {
        let counted = self.asking();
        counted.received += 1;
        counted.received_confirm += u64::from(publish.confirm.is_some());
    }

    pub(crate) fn dead_letter(&mut self, reason: Reason) {
        self.dead_lettered[reason as usize] += 1;
    }
}
