//! What a transaction holds until COMMIT or ABORT.

use crate::{error::StompError, options::StompOptions, subscription::Taken};
use std::collections::BTreeMap;
use understudy_model::{self as model, Publish, Text, Token};

/// How an ACK or NACK ends its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Settle,
    Discard,
    Return,
}

#[derive(Debug, Default)]
pub(crate) struct Transaction {
    publishes: Vec<Publish>,
    settles: Vec<(Verdict, Taken)>,
    /// Asked for by its frames; answered after COMMIT.
    receipts: Vec<Text>,
    bytes: usize,
}

impl Transaction {
    /// Of one frame, without receipts of its own.
    pub(crate) fn of(publishes: Vec<Publish>) -> Self {
        Self { publishes, ..Self::default() }
    }

    /// The request, and the receipts that its reply allows.
    pub(crate) fn commit(self, token: Token) -> (model::Transaction, Vec<Text>) {
        let of = |verdict| {
            let settles = self.settles.iter().filter(move |(v, _)| *v == verdict);
            settles.map(|(_, taken)| taken.delivery).collect()
        };
        let request = model::Transaction {
            commit: None,
            token,
            settles: of(Verdict::Settle),
            discards: of(Verdict::Discard),
            returns: of(Verdict::Return),
            publishes: self.publishes,
        };
        (request, self.receipts)
    }

    /// What its ACKs and NACKs had taken. Its SENDs, and their receipts, are forgotten.
    pub(crate) fn abort(self) -> impl Iterator<Item = Taken> {
        self.settles.into_iter().map(|(_, taken)| taken)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Transactions {
    open: BTreeMap<Text, Transaction>,
    bytes: usize,
}

impl Transactions {
    pub(crate) fn begin(&mut self, name: Text, options: &StompOptions) -> Result<(), StompError> {
        if self.open.contains_key(&name) {
            let body = format!("Transaction '{name}' has begun already\n");
            return Err(StompError::new("Bad transaction", body));
        }
        if self.open.len() >= options.transactions_max {
            let body = format!("A connection may have {} open.\n", options.transactions_max);
            return Err(StompError::new("Transaction limit exceeded", body));
        }
        self.open.insert(name, Transaction::default());
        Ok(())
    }

    pub(crate) fn check(&self, name: &str) -> Result<(), StompError> {
        if self.open.contains_key(name) { Ok(()) } else { Err(unknown(name)) }
    }

    pub(crate) fn end(&mut self, name: &str) -> Result<Transaction, StompError> {
        let transaction = self.open.remove(name).ok_or_else(|| unknown(name))?;
        self.bytes -= transaction.bytes;
        Ok(transaction)
    }

    pub(crate) fn add_publish(
        &mut self,
        name: &str,
        publish: Publish,
        receipt: Option<Text>,
        options: &StompOptions,
    ) -> Result<(), StompError> {
        let text = publish.exchange.len() + publish.routing_key.len();
        let bytes = size_of::<Publish>() + text + publish.properties.len() + publish.body.len();
        let transaction = self.grow(name, bytes, receipt, options)?;
        transaction.publishes.push(publish);
        Ok(())
    }

    pub(crate) fn add_settles(
        &mut self,
        name: &str,
        settles: impl ExactSizeIterator<Item = (Verdict, Taken)>,
        receipt: Option<Text>,
        options: &StompOptions,
    ) -> Result<(), StompError> {
        let bytes = settles.len() * size_of::<(Verdict, Taken)>();
        let transaction = self.grow(name, bytes, receipt, options)?;
        transaction.settles.extend(settles);
        Ok(())
    }

    fn grow(
        &mut self,
        name: &str,
        bytes: usize,
        receipt: Option<Text>,
        options: &StompOptions,
    ) -> Result<&mut Transaction, StompError> {
        let transaction = self.open.get_mut(name).ok_or_else(|| unknown(name))?;
        let bytes = bytes + receipt.as_ref().map_or(0, |id| size_of::<Text>() + id.len());
        if self.bytes + bytes > options.transaction_bytes_max {
            let most = options.transaction_bytes_max;
            let body = format!("A connection's transactions may hold {most} bytes.\n");
            return Err(StompError::new("Transaction too large", body));
        }
        self.bytes += bytes;
        transaction.bytes += bytes;
        transaction.receipts.extend(receipt);
        Ok(transaction)
    }
}

fn unknown(name: &str) -> StompError {
    StompError::new("Bad transaction", format!("Invalid transaction identifier: '{name}'\n"))
}
