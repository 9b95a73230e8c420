//! `tx` and `confirm`: what a channel does with publishes and acks.

use crate::{
    channel::{Confirms, Mode},
    connection::{Connection, unimplemented_method},
    fault::{Fault, MethodId, ReplyCode},
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
    bytes: u64,
}

impl Buffered {
    pub(crate) fn publish(&mut self, publish: Publish, bytes_max: u64) -> Result<(), Fault> {
        self.bytes += (publish.body.len() + publish.properties.len()) as u64;
        if self.bytes > bytes_max {
            let text = format!("transaction is larger than {bytes_max} bytes");
            return Err(Fault::new(ReplyCode::RESOURCE_ERROR, text));
        }
        self.transaction.publishes.push(publish);
        Ok(())
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
                **buffered = Buffered::default();
                channel.unacked.release_held();
                RollbackOk(tx::RollbackOk {})
            }
            (Commit(_), Mode::Transaction(buffered)) => {
                let mut transaction = Box::new(std::mem::take(&mut **buffered).transaction);
                channel.unacked.forget_held();
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
