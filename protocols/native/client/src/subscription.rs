//! Receiving messages and finishing them.

use crate::command::{Command, Finish, Verb};
use crate::{AckMode, Error, Result};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};
use understudy_native::{Deliver, Properties};

/// What every part of a client holds of its background task.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Number of the connection; a delivery of a former one is void.
    pub(crate) generation: Arc<AtomicU64>,
    /// Why the client ended by itself; told by the background task before it goes.
    pub(crate) ended: Arc<OnceLock<Error>>,
}

impl Link {
    /// # Errors
    /// As [`Self::error`].
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| self.error())
    }

    /// Of whatever is asked of a client that has ended.
    pub(crate) fn error(&self) -> Error {
        self.ended.get().cloned().unwrap_or(Error::Closed)
    }

    fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }
}

pub(crate) enum Event {
    /// `number`: its place among those of the connection, with manual acks.
    Deliver {
        generation: u64,
        number: u64,
        deliver: Deliver,
    },
    End(Error),
}

/// Messages of one queue. Dropping it ends the consumer; unread deliveries go back to the queue.
#[derive(Debug)]
pub struct Subscription {
    link: Link,
    consumer: u32,
    ack: AckMode,
    credit: u32,
    /// Deliveries read since the credit was last refilled, with automatic acks; and the
    /// connection that they came by, whose credit alone they spent.
    read: u32,
    read_generation: u64,
    events: mpsc::UnboundedReceiver<Event>,
    ended: Option<Error>,
}

impl Subscription {
    pub(crate) fn new(
        link: Link,
        consumer: u32,
        ack: AckMode,
        credit: u32,
        events: mpsc::UnboundedReceiver<Event>,
    ) -> Self {
        Self { link, consumer, ack, credit, read: 0, read_generation: 0, events, ended: None }
    }

    /// The next message; none when the subscription has ended, see [`Self::error`]. It goes on
    /// over lost connections.
    ///
    /// # Cancel safety
    /// Dropped, no delivery is lost: fit for `select!`.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            match self.events.recv().await? {
                // It comes again: handling it now would be for nothing.
                Event::Deliver { generation, .. }
                    if self.ack == AckMode::Manual && !self.link.is_current(generation) => {}
                Event::Deliver { generation, number, deliver } => {
                    self.refill(generation);
                    let link = self.link.clone();
                    return Some(Delivery { link, generation, ack: self.ack, number, deliver });
                }
                Event::End(error) => {
                    self.ended = Some(error);
                    self.events.close();
                    return None;
                }
            }
        }
    }

    /// Why the subscription ended: its queue was deleted, the broker refused it after a
    /// reconnect, or the client was closed.
    pub fn error(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// Ends the consumer. The same as dropping it.
    pub fn close(self) {}

    /// With automatic acks the credit is spent by reading; half of it is given back at a time.
    fn refill(&mut self, generation: u64) {
        if self.ack != AckMode::Auto || self.credit == 0 {
            return;
        }
        if self.read_generation != generation {
            self.read_generation = generation;
            self.read = 0;
        }
        self.read += 1;
        if self.read >= self.credit.div_ceil(2) {
            let credit = std::mem::take(&mut self.read);
            let _ = self.link.send(Command::Refill { consumer: self.consumer, generation, credit });
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.link.send(Command::Unsubscribe { consumer: self.consumer });
        self.events.close();
        while let Ok(event) = self.events.try_recv() {
            if let Event::Deliver { generation, number, deliver } = event
                && self.ack == AckMode::Manual
            {
                let link = self.link.clone();
                Delivery { link, generation, ack: self.ack, number, deliver }.give_back();
            }
        }
    }
}

/// One message handed to this client. Dropping it without finishing it leaves it outstanding
/// until the connection ends; then the broker delivers it again.
#[derive(Debug)]
pub struct Delivery {
    link: Link,
    generation: u64,
    ack: AckMode,
    number: u64,
    deliver: Deliver,
}

impl Delivery {
    pub(crate) fn new(link: Link, generation: u64, ack: AckMode, deliver: Deliver) -> Self {
        Self { link, generation, ack, number: 0, deliver }
    }

    /// The message's body.
    pub fn body(&self) -> &Bytes {
        &self.deliver.body
    }

    /// The exchange it was published to; empty for the default one.
    pub fn exchange(&self) -> &str {
        &self.deliver.exchange
    }

    /// The key it was published with; the queue's name on the default exchange.
    pub fn routing_key(&self) -> &str {
        &self.deliver.routing_key
    }

    /// Whether it may have been handed out before.
    pub fn redelivered(&self) -> bool {
        self.deliver.redelivered
    }

    /// The AMQP properties.
    ///
    /// # Errors
    /// [`Error::Protocol`] if another client published a block that cannot be read.
    pub fn properties(&self) -> Result<Properties> {
        let properties = Properties::decode(&self.deliver.properties);
        properties.map_err(|error| Error::Protocol(error.to_string()))
    }

    /// Finishes it for good. False if its connection is lost: then it comes again.
    pub fn settle(self) -> bool {
        self.finish(Verb::Settle, false, None)
    }

    /// Finishes for good this one and all that its subscription handed out before it, but those
    /// that a transaction finishes. Of a delivery that [`Client::get`](crate::Client::get)
    /// brought: this one alone. False as for [`Self::settle`].
    pub fn settle_through(self) -> bool {
        self.finish(Verb::Settle, true, None)
    }

    /// Finishes it without success: dead-lettered where the queue says so. False as for
    /// [`Self::settle`].
    pub fn discard(self) -> bool {
        self.finish(Verb::Discard, false, None)
    }

    /// Gives it back, to be handed out again. False as for [`Self::settle`].
    pub fn give_back(self) -> bool {
        self.finish(Verb::Return, false, None)
    }

    /// Finishes it, and waits until that is committed on the pair: it never comes again.
    ///
    /// # Errors
    /// [`Error::Stale`] if its connection is lost, [`Error::ConnectionLost`] if that happens
    /// before the answer: then it may come again.
    ///
    /// # Cancel safety
    /// Dropped, it is finished all the same.
    pub async fn settle_confirmed(self) -> Result<()> {
        if self.is_settled() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        if !self.finish(Verb::Settle, false, Some(answer)) {
            return Err(Error::Stale);
        }
        answered.await.unwrap_or(Err(Error::Closed)).map(|_| ())
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// It was settled when it was handed out.
    pub(crate) fn is_settled(&self) -> bool {
        self.ack == AckMode::Auto
    }

    /// Consumer, and the place among its deliveries: what a cumulative settle counts by.
    pub(crate) fn place(&self) -> (u32, u64) {
        (self.deliver.consumer, self.number)
    }

    /// Consumer, queue and LSN: what the broker knows it by.
    pub(crate) fn reference(&self) -> (u32, u64, u64) {
        (self.deliver.consumer, self.deliver.queue, self.deliver.lsn)
    }

    fn finish(self, verb: Verb, through: bool, answer: Option<crate::command::Answer>) -> bool {
        if !self.link.is_current(self.generation) {
            return false;
        }
        if self.is_settled() {
            return true;
        }
        let (consumer, queue, lsn) = self.reference();
        let (generation, number) = (self.generation, self.number);
        let finish = Finish { verb, generation, consumer, queue, lsn, number, through, answer };
        self.link.send(Command::Finish(finish)).is_ok()
    }
}
