//! Effects of the broker: replies, confirms, deliveries, and what else it tells.

use super::{Pending, State, StompSession};
use crate::{
    error::StompError,
    mapping::{put_browse_end, put_message},
    options::Dialect,
    subscription::as_given,
};
use understudy_model::{
    ConsumerNumber, Delivery, DeliveryRef, Effect, Outbox, Refusal, RefusalKind, Reply, Request,
    Text, Token,
};

impl StompSession {
    pub(super) fn take_effect(&mut self, now_ms: u64, effect: Effect, out: &mut Outbox) {
        match effect {
            Effect::Deliver(delivery) => self.deliver(&delivery, out),
            Effect::Confirm { through, .. } => {
                while let Some((_, id)) = self.receipts.pop_front_if(|(n, _)| *n <= through) {
                    self.receipt(Some(id), out);
                }
            }
            Effect::Reply { token, result } => self.answered(now_ms, token, result, out),
            Effect::Nack { number, .. } => {
                let text = "the queue is full and refuses the message";
                let refusal = Refusal::new(RefusalKind::ResourceError, text);
                self.publish_refused(Some(number), &refusal, out);
            }
            Effect::PublishRefused { number, refusal, .. } => {
                self.publish_refused(number, &refusal, out);
            }
            Effect::BrowseEnd { consumer } => {
                if let Some(subscription) = self.subscriptions.get_mut(consumer) {
                    put_browse_end(out.write.tail(), subscription);
                }
            }
            Effect::Cancelled { consumer } => self.consumer_ended(consumer, out),
            Effect::Close { reason } => {
                // Nobody's mistake: no complaint.
                let error = StompError::new("connection-forced", format!("{reason}\n"));
                self.fail(&error, None, out);
                out.complaint = None;
            }
            // Sessions never publish mandatorily nor get; a blocked publisher is held back by
            // its connection, which stops reading.
            Effect::Returned(_) | Effect::Got { .. } | Effect::Blocked { .. } => {}
            // STOMP has no word for where to go.
            Effect::Unblocked | Effect::Moved { .. } => {}
        }
    }

    fn deliver(&mut self, delivery: &Delivery, out: &mut Outbox) {
        let Some(subscription) = self.subscriptions.get_mut(delivery.consumer) else { return };
        let Delivery { consumer, queue, lsn, .. } = *delivery;
        let number = subscription.deliver(DeliveryRef { consumer, queue, lsn });
        let (version, dialect) = (self.version, self.options.dialect);
        let written = put_message(&mut out.write, version, dialect, subscription, number, delivery);
        if let Err(malformed) = written {
            let error = StompError::new("Internal error", format!("{malformed}\n"));
            self.fail(&error, None, out);
        }
    }

    fn answered(
        &mut self,
        now_ms: u64,
        token: Token,
        result: Result<Reply, Refusal>,
        out: &mut Outbox,
    ) {
        let Some(pending) = self.pending.remove(&token) else { return };
        if let Pending::Connect = pending {
            return self.connect_answered(now_ms, result.err().as_ref(), out);
        }
        if let Err(refusal) = result {
            let receipt = pending.into_receipt();
            return self.fail(&StompError::refusal(&refusal), receipt.as_ref(), out);
        }
        match pending {
            Pending::Connect | Pending::Step(_) => {}
            Pending::Finish(receipt) => self.receipt(receipt, out),
            Pending::Cancel(consumer, receipt) => {
                self.subscription_ended(consumer, out);
                self.receipt(receipt, out);
            }
            Pending::Commit(receipts, own) => {
                receipts.into_iter().chain(own).for_each(|id| self.receipt(Some(id), out));
            }
            Pending::Disconnect(receipt) => {
                self.receipt(receipt, out);
                self.state = State::Closed;
                self.close(out);
            }
        }
    }

    /// ActiveMQ hands a subscription's unacked messages to others when it ends, RabbitMQ when its
    /// connection does.
    fn subscription_ended(&mut self, consumer: ConsumerNumber, out: &mut Outbox) {
        match self.options.dialect {
            Dialect::Rabbitmq => self.subscriptions.end(consumer),
            Dialect::Activemq => {
                let deliveries = self.subscriptions.end_returning(consumer);
                if !deliveries.is_empty() {
                    out.requests.push(Request::Return { deliveries, token: None });
                }
            }
        }
    }

    fn publish_refused(&mut self, number: Option<u64>, refusal: &Refusal, out: &mut Outbox) {
        let receipt = self.receipts.iter().find(|(n, _)| Some(*n) == number);
        let receipt = receipt.map(|(_, id)| id.clone());
        self.fail(&StompError::refusal(refusal), receipt.as_ref(), out);
    }

    /// The queue went away under the subscription. The client must hear of it, and the only way
    /// is an ERROR; it may connect and subscribe again.
    fn consumer_ended(&mut self, consumer: ConsumerNumber, out: &mut Outbox) {
        let Some(subscription) = self.subscriptions.get_mut(consumer) else { return };
        if subscription.cancelled {
            return;
        }
        let body = format!(
            "The server has canceled a subscription.\n\
             No more messages will be delivered for '{}'.\n",
            as_given(&subscription.tag)
        );
        let mut error = StompError::new("Server cancelled subscription", body);
        error.subscription = subscription.id.clone();
        self.fail(&error, None, out);
        out.complaint = None;
    }
}

impl Pending {
    fn into_receipt(self) -> Option<Text> {
        match self {
            Self::Connect => None,
            Self::Step(receipt)
            | Self::Finish(receipt)
            | Self::Cancel(_, receipt)
            | Self::Commit(_, receipt)
            | Self::Disconnect(receipt) => receipt,
        }
    }
}
