//! Several publishes and settles that happen as a whole, or not at all.

use crate::client::{Client, Confirmed};
use crate::command::Command;
use crate::{Delivery, Error, Message, Result};
use tokio::sync::oneshot;
use understudy_native::{Deliveries, LIST_ITEMS_MAX, Publish, Transaction as Frame};

/// Gathers publishes and settles; nothing leaves the client before [`Self::commit`]. Dropping it
/// forgets the publishes and leaves the deliveries outstanding.
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    publishes: Vec<Publish>,
    settles: Vec<Deliveries>,
    discards: Vec<Deliveries>,
    generation: Option<u64>,
    weight: u32,
    /// Deliveries of different connections can never be settled together.
    stale: bool,
}

impl Transaction {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            publishes: Vec::new(),
            settles: Vec::new(),
            discards: Vec::new(),
            generation: None,
            weight: 0,
            stale: false,
        }
    }

    /// Adds a message.
    ///
    /// # Errors
    /// [`Error::Invalid`] for names or properties that cannot be encoded, and for too many.
    pub fn publish(&mut self, message: Message) -> Result<()> {
        if self.publishes.len() == LIST_ITEMS_MAX {
            return Err(Error::Invalid("a transaction has at most 65536 messages"));
        }
        let publish = message.into_publish()?;
        self.weight = self.weight.saturating_add(Client::weight(publish.body.len()));
        self.publishes.push(publish);
        Ok(())
    }

    /// Adds the settling of a delivery.
    pub fn settle(&mut self, delivery: &Delivery) {
        self.involve(delivery);
        push(&mut self.settles, delivery);
    }

    /// Adds the discarding of a delivery: dead-lettered where its queue says so.
    pub fn discard(&mut self, delivery: &Delivery) {
        self.involve(delivery);
        push(&mut self.discards, delivery);
    }

    fn involve(&mut self, delivery: &Delivery) {
        let generation = delivery.generation();
        self.stale |= self.generation.is_some_and(|other| other != generation);
        self.generation = Some(generation);
    }

    /// Carries all of it out, and waits until that is committed on the pair.
    ///
    /// # Errors
    /// [`Error::Stale`] if a delivery is of a former connection: nothing happened.
    /// [`Error::InDoubt`] if the connection was lost before the answer and deliveries are part of
    /// it. [`Error::Refused`] if the broker refuses a publish: nothing happened.
    pub async fn commit(self) -> Result<Confirmed> {
        if self.stale {
            return Err(Error::Stale);
        }
        let weight = self.client.reserve(self.weight.max(1)).await?;
        let transaction = Frame {
            request: 0,
            publishes: self.publishes,
            settles: self.settles,
            discards: self.discards,
            returns: Vec::new(),
        };
        let (done, answered) = oneshot::channel();
        let generation = self.generation;
        let command = Command::Transaction { transaction, weight, generation, done };
        if !self.client.link.send(command) {
            return Err(Error::Closed);
        }
        answered.await.unwrap_or(Err(Error::Closed))
    }
}

fn push(runs: &mut Vec<Deliveries>, delivery: &Delivery) {
    let (consumer, queue, lsn) = delivery.reference();
    let fits = |run: &&mut Deliveries| {
        (run.consumer, run.queue) == (consumer, queue) && run.lsns.len() < LIST_ITEMS_MAX
    };
    match runs.iter_mut().find(fits) {
        Some(run) => run.lsns.push(lsn),
        None => runs.push(Deliveries { consumer, queue, lsns: vec![lsn] }),
    }
}
