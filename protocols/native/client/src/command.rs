//! What handles ask of the background task.

use crate::{
    Error, SubscribeOptions,
    subscription::Event,
    unconfirmed::{Done, Held},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use understudy_native::{Deliveries, Discard, Frame, Publish, Return, Settle, Text, Transaction};

/// Makes a request's frame from its number.
pub(crate) type Make = Box<dyn Fn(u64) -> Frame + Send>;
/// The answer, and the connection it came by.
pub(crate) type Answer = oneshot::Sender<Result<(u64, Frame), Error>>;

pub(crate) enum Command {
    /// In this order.
    Publish(Vec<NewPublish>),
    /// `generation`: of its deliveries; none without any. `places`: their consumers and numbers, as
    /// in [`Finish`].
    Transaction {
        transaction: Transaction,
        held: Held,
        generation: Option<u64>,
        places: Vec<(u32, u64)>,
        done: Done,
    },
    /// `repeat`: no harm is done if the broker sees it twice. `made`: see [`Held`].
    Request {
        make: Make,
        repeat: bool,
        made: Instant,
        answer: Answer,
    },
    Finish(Finish),
    Subscribe(Subscribe),
    Unsubscribe {
        consumer: u32,
    },
    Refill {
        consumer: u32,
        generation: u64,
        credit: u32,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

pub(crate) struct NewPublish {
    pub(crate) publish: Publish,
    pub(crate) held: Held,
    pub(crate) done: Done,
}

/// A delivery is done with.
pub(crate) struct Finish {
    pub(crate) verb: Verb,
    pub(crate) generation: u64,
    pub(crate) consumer: u32,
    pub(crate) queue: u64,
    pub(crate) lsn: u64,
    /// Its place among the deliveries of its subscription on this connection; 0: of a get.
    pub(crate) number: u64,
    /// And all that were handed out before it.
    pub(crate) through: bool,
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Settle,
    Discard,
    Return,
}

impl Verb {
    pub(crate) fn frame(self, request: u64, deliveries: Deliveries) -> Frame {
        match self {
            Self::Settle => Settle { request, deliveries }.into(),
            Self::Discard => Discard { request, deliveries }.into(),
            Self::Return => Return { request, deliveries }.into(),
        }
    }
}

pub(crate) struct Subscribe {
    pub(crate) queue: Text,
    pub(crate) options: SubscribeOptions,
    /// See [`Held`].
    pub(crate) made: Instant,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Told its number once the broker has taken it.
    pub(crate) ready: Option<oneshot::Sender<Result<u32, Error>>>,
}
