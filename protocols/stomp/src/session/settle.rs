//! ACK, NACK, and transactions.

use super::{Pending, Result, StompSession};
use crate::{
    codec::{Headers, Version},
    error::StompError,
    options::Dialect,
    subscription::{Taken, parse_message_id},
    transaction::{Transaction, Verdict},
};
use understudy_model::{DeliveryRef, Outbox, Request, Text};

impl StompSession {
    pub(super) fn ack(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let taken = self.take_outstanding("ACK", headers)?;
        self.settle(Verdict::Settle, taken, headers, out)
    }

    pub(super) fn nack(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let requeue = headers.bool("requeue")?.unwrap_or(true);
        let verdict = if requeue { Verdict::Return } else { Verdict::Discard };
        let taken = self.take_outstanding("NACK", headers)?;
        self.settle(verdict, taken, headers, out)
    }

    /// 1.2 names it `id`, before that it was `message-id`. A 1.1 client's `subscription` is not looked
    /// at: the message-id says it.
    fn take_outstanding(&mut self, command: &str, headers: &Headers) -> Result<Vec<Taken>> {
        if let Some(name) = headers.get("transaction") {
            self.transactions.check(name)?;
        }
        let name = if self.version == Version::V12 { "id" } else { "message-id" };
        let id = headers.get(name).ok_or_else(|| StompError::missing_header(command, name))?;
        let parsed = parse_message_id(id, &self.session_id);
        let (consumer, number) = parsed.ok_or_else(|| {
            let body = format!("'{command}' must include a valid '{name}' header\n");
            StompError::new("Invalid header", body)
        })?;
        let taken = self.subscriptions.take(consumer, number);
        if taken.is_empty() && !self.subscriptions.browses(consumer) {
            let body = format!("Message with id '{id}' is not waiting for an ACK\n");
            return Err(StompError::new("Unknown message", body));
        }
        Ok(taken)
    }

    fn settle(
        &mut self,
        verdict: Verdict,
        taken: Vec<Taken>,
        headers: &Headers,
        out: &mut Outbox,
    ) -> Result {
        if let Some(name) = headers.get("transaction") {
            let receipt = self.receipt_within(headers, out);
            let taken = taken.into_iter().map(|taken| (verdict, taken));
            return self.transactions.add_settles(name, taken, receipt, &self.options);
        }
        let receipt = headers.receipt();
        let deliveries: Vec<_> = taken.iter().map(|taken| taken.delivery).collect();
        let token = receipt.map(|id| self.await_reply(Pending::Finish(Some(id))));
        let last = out.requests.last_mut();
        if let (None, Some(open)) = (token, last.and_then(|last| open_settle(last, verdict))) {
            // A run of ACKs is one request.
            open.extend(deliveries);
            return Ok(());
        }
        out.requests.push(match verdict {
            Verdict::Settle => Request::Settle { deliveries, token },
            Verdict::Discard => Request::Discard { deliveries, token },
            Verdict::Return => Request::Return { deliveries, token },
        });
        Ok(())
    }

    /// The receipt that a frame in a transaction leaves for COMMIT. ActiveMQ's clients (Net::Stomp)
    /// wait for it before they commit, so in that dialect it only says that the frame was read.
    pub(super) fn receipt_within(&self, headers: &Headers, out: &mut Outbox) -> Option<Text> {
        match self.options.dialect {
            Dialect::Rabbitmq => headers.receipt(),
            Dialect::Activemq => {
                self.receipt(headers.receipt(), out);
                None
            }
        }
    }

    pub(super) fn begin(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let name = transaction_name("BEGIN", headers)?;
        self.transactions.begin(name.clone(), &self.options)?;
        self.receipt(headers.receipt(), out);
        Ok(())
    }

    pub(super) fn commit(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let name = transaction_name("COMMIT", headers)?;
        let transaction = self.transactions.end(name)?;
        self.commit_now(transaction, headers.receipt(), out);
        Ok(())
    }

    pub(super) fn commit_now(
        &mut self,
        transaction: Transaction,
        receipt: Option<Text>,
        out: &mut Outbox,
    ) {
        let token = self.next_token();
        let (request, receipts) = transaction.commit(token);
        self.pending.insert(token, Pending::Commit(receipts, receipt));
        out.requests.push(Request::Transaction(Box::new(request)));
    }

    pub(super) fn abort(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let name = transaction_name("ABORT", headers)?;
        let mut orphans = Vec::new();
        for taken in self.transactions.end(name)?.abort() {
            match self.subscriptions.get_mut(taken.delivery.consumer) {
                Some(subscription) => subscription.put_back(&taken),
                None => orphans.push(taken.delivery),
            }
        }
        if !orphans.is_empty() {
            // Their subscription has ended meanwhile: nobody can ack them any more.
            out.requests.push(Request::Return { deliveries: orphans, token: None });
        }
        self.receipt(headers.receipt(), out);
        Ok(())
    }
}

fn open_settle(request: &mut Request, verdict: Verdict) -> Option<&mut Vec<DeliveryRef>> {
    match (verdict, request) {
        (Verdict::Settle, Request::Settle { deliveries, token: None })
        | (Verdict::Discard, Request::Discard { deliveries, token: None })
        | (Verdict::Return, Request::Return { deliveries, token: None }) => Some(deliveries),
        _ => None,
    }
}

fn transaction_name<'h>(command: &str, headers: &'h Headers) -> Result<&'h Text> {
    headers.get("transaction").ok_or_else(|| {
        let body = format!("'{command}' must include a 'transaction' header\n");
        StompError::new("Missing transaction", body)
    })
}
