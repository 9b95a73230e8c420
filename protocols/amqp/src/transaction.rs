//! `tx` and `confirm`: what a channel does with publishes and acks.

use crate::{
    channel::{Confirms, Mode},
    connection::{Connection, unimplemented_method},
    fault::{Fault, MethodId},
    method::put_method,
    reply::Answer,
    settle::Disposition,
};
use amq_protocol::protocol::{AMQPClass, confirm, tx};
use understudy_model::{DeliveryRef, Outbox, Publish, Request, Transaction};

/// What a transaction has gathered since its last commit or rollback.
#[derive(Default)]
pub(crate) struct Buffered {
    transaction: Transaction,
    held_bytes: u64,
}

impl Buffered {
    /// Returns what it holds of it.
    pub(crate) fn publish(&mut self, publish: Publish) -> u64 {
        let names = publish.exchange.len() + publish.routing_key.len();
        let content = publish.properties.len() + publish.body.len();
        let bytes = (size_of::<Publish>() + names + content) as u64;
        self.held_bytes += bytes;
        self.transaction.publishes.push(publish);
        bytes
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub(crate) fn dispose(
        &mut self,
        disposition: Disposition,
        deliveries: impl Iterator<Item = DeliveryRef>,
    ) {
        match disposition {
            Disposition::Settle => self.transaction.settles.extend(deliveries),
            Disposition::Discard => self.transaction.discards.extend(deliveries),
            Disposition::Return => self.transaction.returns.extend(deliveries),
        }
    }
}

impl Connection {
    pub(crate) fn on_tx(
        &mut self,
        number: u16,
        id: MethodId,
        method: &tx::AMQPMethod,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        use tx::AMQPMethod::{Commit, Rollback, RollbackOk, Select, SelectOk};
        let channel = self.channel(number)?;
        let answer = match (method, &mut channel.mode) {
            (Select(_), Mode::Confirm(_)) => {
                return Err(Fault::precondition("cannot switch from confirm to tx mode"));
            }
            (Select(_), mode) => {
                if matches!(mode, Mode::Plain) {
                    *mode = Mode::Transaction(Box::default());
                }
                SelectOk(tx::SelectOk {})
            }
            (Rollback(_), Mode::Transaction(buffered)) => {
                let held_bytes = std::mem::take(&mut **buffered).held_bytes;
                channel.unacked.release_held();
                self.release_bytes(held_bytes);
                RollbackOk(tx::RollbackOk {})
            }
            (Commit(_), Mode::Transaction(buffered)) => {
                let Buffered { transaction, held_bytes } = std::mem::take(&mut **buffered);
                let mut transaction = Box::new(transaction);
                channel.unacked.forget_held();
                self.release_bytes(held_bytes);
                let settled = [&transaction.settles, &transaction.discards, &transaction.returns];
                let deliveries = settled.into_iter().flatten().copied().collect();
                transaction.token = self.ask(number, id, Answer::TxCommit { deliveries })?;
                out.requests.push(Request::Transaction(transaction));
                return Ok(());
            }
            (Commit(_) | Rollback(_), _) => {
                return Err(Fault::precondition("channel is not transactional"));
            }
            _ => return Err(unimplemented_method()),
        };
        put_method(&mut out.write, number, AMQPClass::Tx(answer));
        Ok(())
    }

    pub(crate) fn on_confirm(
        &mut self,
        number: u16,
        method: &confirm::AMQPMethod,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let confirm::AMQPMethod::Select(select) = method else {
            return Err(unimplemented_method());
        };
        let channel = self.channel(number)?;
        match channel.mode {
            Mode::Transaction(_) => {
                return Err(Fault::precondition("cannot switch from tx to confirm mode"));
            }
            Mode::Plain => channel.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
        }
        if !select.nowait {
            let answer = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
            put_method(&mut out.write, number, AMQPClass::Confirm(answer));
        }
        Ok(())
    }
}
