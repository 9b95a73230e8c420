//! Effects: deliveries, confirms, returns, and what else the broker tells.

use crate::{
    channel::Mode,
    codec::{
        DeliveryTag, Origin, put_body, put_content_header, put_deliver, put_get_ok, put_nack,
        put_return,
    },
    connection::{Connection, Next},
    fault::{Fault, MethodId, ReplyCode},
    method::{put_method, short},
    reply::{Answer, Pending},
    settle::{Disposition, put_disposition},
};
use amq_protocol::protocol::{
    AMQPClass,
    basic::{AMQPMethod as BasicMethod, Cancel},
    connection::{AMQPMethod as ConnectionMethod, Blocked, Unblocked},
};
use understudy_model::{
    AckMode, ConsumerNumber, Delivery, DeliveryRef, Effect, Malformed, MessageView, Outbox,
    Refusal, Returned, Text, Token,
};

impl Connection {
    pub(crate) fn on_effect(&mut self, effect: Effect, out: &mut Outbox) -> Result<Next, Fault> {
        match effect {
            Effect::Deliver(delivery) => self.on_deliver(&delivery, out)?,
            Effect::Confirm { channel, through } => self.confirm_later(channel, through),
            Effect::Reply { token, result } => return self.on_reply(token, result, out),
            Effect::Nack { channel, number } => self.on_nacked(channel, number, out),
            Effect::PublishRefused { channel, refusal, .. } => {
                self.on_publish_refused(channel, &refusal, out)?;
            }
            Effect::Returned(returned) => self.on_returned(&returned, out),
            Effect::Got { token, delivery, remaining } => {
                self.on_got(token, &delivery, remaining, out)?;
            }
            // No consumer of this protocol browses.
            Effect::BrowseEnd { .. } => {}
            Effect::Cancelled { consumer } => self.on_cancelled(consumer, out)?,
            Effect::Blocked { reason, .. } => self.on_blocked(Some(&reason), out),
            Effect::Unblocked => self.on_blocked(None, out),
            // The protocol has no word for it any more: `connection.redirect` went with 0-9-1.
            Effect::Moved { .. } => {}
            Effect::Close { reason } => return Ok(Next::Forced(reason)),
        }
        Ok(Next::Continue)
    }

    fn on_deliver(&mut self, delivery: &Delivery, out: &mut Outbox) -> Result<(), Fault> {
        let frame_max = self.tuning.frame_max;
        let Some(consumer) = self.consumers.get(&delivery.consumer) else {
            put_disposition(out, Disposition::Return, [reference(delivery)]);
            return Ok(());
        };
        let (number, ack) = (consumer.channel, consumer.ack);
        let consumer_tag = consumer.tag.clone();
        let message = delivery.message().map_err(unreadable)?;
        let delivery_tag = self.tag(number, ack, delivery)?;
        put_deliver(out.write.tail(), number, &consumer_tag, delivery_tag, origin(&message));
        put_content(out, number, frame_max, delivery, &message);
        Ok(())
    }

    fn on_got(
        &mut self,
        token: Token,
        delivery: &Delivery,
        remaining: u32,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let frame_max = self.tuning.frame_max;
        let (number, ack) =
            match self.pending.remove(&token) {
                Some(Pending::Channel {
                    channel, generation, answer: Answer::Get { ack }, ..
                }) if self.is_current(channel, generation) => (channel, ack),
                _ => {
                    put_disposition(out, Disposition::Return, [reference(delivery)]);
                    return Ok(());
                }
            };
        let message = delivery.message().map_err(unreadable)?;
        let delivery_tag = self.tag(number, ack, delivery)?;
        put_get_ok(out.write.tail(), number, delivery_tag, origin(&message), remaining);
        put_content(out, number, frame_max, delivery, &message);
        Ok(())
    }

    /// The next delivery tag of the channel; it is remembered if the client is to ack it.
    fn tag(
        &mut self,
        number: u16,
        ack: AckMode,
        delivery: &Delivery,
    ) -> Result<DeliveryTag, Fault> {
        let now_ms = self.now_ms;
        let unacked = &mut self.channel(number)?.unacked;
        let tag = unacked.next_tag();
        if ack == AckMode::Manual {
            unacked.push(tag, reference(delivery), now_ms);
        }
        Ok(DeliveryTag { tag, redelivered: delivery.redelivered })
    }

    fn on_nacked(&mut self, number: u16, publish: u64, out: &mut Outbox) {
        let Some(channel) = self.settled_channel(number) else { return };
        let Mode::Confirm(confirms) = &mut channel.mode else { return };
        // A later ack of several includes this number, which the client no longer waits for.
        if publish == confirms.confirmed + 1 {
            confirms.confirmed = publish;
            confirms.ready = confirms.ready.max(publish);
        }
        put_nack(out.write.tail(), number, publish);
    }

    fn on_publish_refused(
        &mut self,
        number: u16,
        refusal: &Refusal,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if self.settled_channel(number).is_none() {
            return Ok(());
        }
        self.contain(number, Err(Fault::refused(refusal).at(MethodId::PUBLISH)), out)
    }

    fn on_returned(&mut self, returned: &Returned, out: &mut Outbox) {
        let number = returned.channel;
        let frame_max = self.tuning.frame_max;
        if self.settled_channel(number).is_none() {
            return;
        }
        let tail = out.write.tail();
        let origin = Origin { exchange: &returned.exchange, routing_key: &returned.routing_key };
        put_return(tail, number, returned.code, &returned.text, origin);
        put_content_header(tail, number, returned.body.len(), &returned.properties);
        let pieces = returned.body.pieces().map(|piece| (piece, &piece[..]));
        put_body(&mut out.write, number, frame_max, returned.body.len(), pieces);
    }

    fn on_cancelled(&mut self, consumer: ConsumerNumber, out: &mut Outbox) -> Result<(), Fault> {
        let Some(consumer) = self.forget_consumer(consumer)? else { return Ok(()) };
        if self.client.consumer_cancel_notify && !consumer.cancelling {
            let cancel = Cancel { consumer_tag: short(&consumer.tag), nowait: true };
            let class = AMQPClass::Basic(BasicMethod::Cancel(cancel));
            put_method(&mut out.write, consumer.channel, class);
        }
        Ok(())
    }

    fn on_blocked(&self, reason: Option<&Text>, out: &mut Outbox) {
        if !self.client.connection_blocked {
            return;
        }
        let method = match reason {
            Some(reason) => ConnectionMethod::Blocked(Blocked { reason: short(reason) }),
            None => ConnectionMethod::Unblocked(Unblocked {}),
        };
        put_method(&mut out.write, 0, AMQPClass::Connection(method));
    }
}

fn origin<'a>(message: &MessageView<'a>) -> Origin<'a> {
    Origin { exchange: message.exchange, routing_key: message.routing_key }
}

fn put_content(
    out: &mut Outbox,
    number: u16,
    frame_max: u32,
    delivery: &Delivery,
    message: &MessageView<'_>,
) {
    let body = message.body;
    let counted = delivery.counted_properties(message);
    let properties = counted.as_deref().unwrap_or(message.properties);
    put_content_header(out.write.tail(), number, body.len(), properties);
    let pieces = std::iter::once((&delivery.record, body));
    put_body(&mut out.write, number, frame_max, body.len(), pieces);
}

fn reference(delivery: &Delivery) -> DeliveryRef {
    DeliveryRef { consumer: delivery.consumer, queue: delivery.queue, lsn: delivery.lsn }
}

fn unreadable(malformed: Malformed) -> Fault {
    Fault::new(ReplyCode::INTERNAL_ERROR, malformed.to_string())
}
