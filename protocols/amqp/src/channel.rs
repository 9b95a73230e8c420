//! One channel's state.

use crate::{
    codec::PublishMethod, publish::Assembly, reply_to::ReplyConsumer, transaction::Buffered,
    unacked::Unacked,
};
use std::collections::BTreeMap;
use understudy_model::{ConsumerNumber, Text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// `channel.close` is sent; everything but its answer is dropped.
    ClosedHere,
    /// `channel.close` came; it is answered once what was asked before is committed, so that no
    /// late effect meets a new channel of the same number.
    ClosedByClient,
}

/// The content that the frames of a channel are in the middle of.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each message")]
pub(crate) enum Content {
    None,
    /// Its header comes next.
    Header(PublishMethod),
    Body(Assembly),
}

/// Publisher confirms. Numbers up to `confirmed` are answered, up to `ready` committed.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) ready: u64,
}

pub(crate) enum Mode {
    Plain,
    Confirm(Confirms),
    Transaction(Box<Buffered>),
}

pub(crate) struct Channel {
    /// Tells this use of the channel's number from earlier ones.
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    pub(crate) content: Content,
    pub(crate) mode: Mode,
    pub(crate) unacked: Unacked,
    pub(crate) consumers: BTreeMap<Text, ConsumerNumber>,
    /// Under this number stand the deliveries of `basic.get`.
    pub(crate) getter: ConsumerNumber,
    /// For consumers to come; 0: no limit.
    pub(crate) prefetch: u16,
    pub(crate) has_shared_prefetch: bool,
    /// Direct reply-to.
    pub(crate) replies: Option<ReplyConsumer>,
    /// What an empty queue name means.
    pub(crate) last_queue: Option<Text>,
    /// A publish may still be refused.
    pub(crate) has_published: bool,
}

impl Channel {
    pub(crate) fn new(generation: u64, getter: ConsumerNumber) -> Self {
        Self {
            generation,
            phase: Phase::Open,
            content: Content::None,
            mode: Mode::Plain,
            unacked: Unacked::default(),
            consumers: BTreeMap::new(),
            getter,
            prefetch: 0,
            has_shared_prefetch: false,
            replies: None,
            last_queue: None,
            has_published: false,
        }
    }

    /// What of [`Connection::hold_bytes`](crate::connection::Connection::hold_bytes) is its own.
    pub(crate) fn held_bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Body(assembly) => assembly.received_bytes(),
            Content::None | Content::Header(_) => 0,
        };
        let transaction = match &self.mode {
            Mode::Transaction(buffered) => buffered.held_bytes(),
            Mode::Plain | Mode::Confirm(_) => 0,
        };
        content + transaction
    }
}

/// A channel number. While `draining` is not 0, effects of earlier uses may still come.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) channel: Option<Box<Channel>>,
    pub(crate) draining: u32,
}

impl Slot {
    /// The channel, if effects that name only its number can be meant for it.
    pub(crate) fn settled(&mut self) -> Option<&mut Channel> {
        self.channel
            .as_deref_mut()
            .filter(|channel| self.draining == 0 && channel.phase == Phase::Open)
    }
}
