//! Several publishes and settles that happen as a whole, or not at all.

use crate::client::Client;
use crate::command::Command;
use crate::unconfirmed::Held;
use crate::{Delivery, Error, Message, Result};
use tokio::{sync::oneshot, time::Instant};
use understudy_native::{Deliveries, LIST_ITEMS_MAX, Publish, Transaction as Frame};

/// A transaction is on disk on the master, and on the slave while that is in-sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its number among this client's publishes and transactions.
    pub commit: u64,
    /// The connection was lost before the first answer, and the broker, after a takeover the new
    /// master, says that it has the transaction already.
    pub already: bool,
}

/// Gathers publishes and settles; nothing leaves the client before [`Self::commit`]. Dropping it
/// forgets the publishes and leaves the deliveries outstanding.
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    publishes: Vec<Publish>,
    settles: Vec<Deliveries>,
    discards: Vec<Deliveries>,
    /// Of what is settled or discarded: see [`Delivery::place`].
    places: Vec<(u32, u64)>,
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
            places: Vec::new(),
            generation: None,
            weight: 0,
            stale: false,
        }
    }

    /// Adds a message.
    ///
    /// # Errors
    /// [`Error::Invalid`] for names or properties that cannot be encoded, for too many, and for a
    /// mandatory one: the broker's answer to a transaction cannot tell it.
    pub fn publish(&mut self, message: Message) -> Result<()> {
        if self.publishes.len() == LIST_ITEMS_MAX {
            return Err(Error::Invalid("a transaction has at most 65536 messages"));
        }
        let publish = message.into_publish()?;
        if publish.flags.mandatory {
            return Err(Error::Invalid("a message of a transaction cannot be mandatory"));
        }
        self.weight = self.weight.saturating_add(Client::weight(publish.body.len()));
        self.publishes.push(publish);
        Ok(())
    }

    /// Adds the settling of a delivery. One with [`AckMode::Auto`](crate::AckMode::Auto) is settled
    /// already.
    pub fn settle(&mut self, delivery: &Delivery) {
        if self.involve(delivery) {
            push(&mut self.settles, delivery);
        }
    }

    /// Adds the discarding of a delivery: dead-lettered where its queue says so. One with
    /// [`AckMode::Auto`](crate::AckMode::Auto) is settled already.
    pub fn discard(&mut self, delivery: &Delivery) {
        if self.involve(delivery) {
            push(&mut self.discards, delivery);
        }
    }

    /// False: there is nothing to do about it.
    fn involve(&mut self, delivery: &Delivery) -> bool {
        if delivery.is_settled() {
            return false;
        }
        let generation = delivery.generation();
        self.stale |= self.generation.is_some_and(|other| other != generation);
        self.generation = Some(generation);
        self.places.push(delivery.place());
        true
    }

    /// Carries all of it out, and waits until that is committed on the pair. Over a lost
    /// connection the broker is asked what became of it, so it happens once or not at all, and
    /// which is known. Waits while 64 others have no answer.
    ///
    /// # Errors
    /// [`Error::Stale`] if a delivery is of a former connection, or the connection was lost and
    /// the broker has not got the transaction: nothing happened, and the deliveries come again.
    /// [`Error::Refused`] if the broker refuses a publish: nothing happened. [`Error::InDoubt`]
    /// if the connection was lost and no other could be had to ask. [`Error::Timeout`] and those
    /// after which the client is closed: nothing happened.
    ///
    /// # Cancel safety
    /// Dropped before it is handed over, nothing happens; afterwards the answer alone is lost.
    pub async fn commit(self) -> Result<Committed> {
        if self.stale {
            return Err(Error::Stale);
        }
        let made = Instant::now();
        let commit = self.client.reserve_commit().await?;
        let weight = self.client.reserve(self.weight.max(1)).await?;
        let transaction = Frame {
            request: 0,
            commit: 0,
            publishes: self.publishes,
            settles: self.settles,
            discards: self.discards,
            returns: Vec::new(),
        };
        let (done, answered) = oneshot::channel();
        let (generation, places) = (self.generation, self.places);
        let held = Held { weight, commit: Some(commit), made };
        let command = Command::Transaction { transaction, held, generation, places, done };
        self.client.link.send(command)?;
        let stored = answered.await.unwrap_or(Err(Error::Closed))?;
        Ok(Committed { commit: stored.sequence, already: stored.already })
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
