//! Direct reply-to: consuming from the name below receives the replies to one's own requests.
//!
//! Behind it stands an exclusive queue for each such consumer, so that a reply takes the way of
//! any message. A request's `reply-to` is rewritten to that queue's name when it is published.

use crate::{
    connection::Connection,
    fault::{Fault, MethodId},
    method::{put_method, short},
    reply::Answer,
};
use amq_protocol::protocol::{AMQPClass, basic, queue};
use bytes::{BufMut, Bytes, BytesMut};
use understudy_model::{
    AckMode, Consume, ConsumerNumber, Credit, DeclareQueue, Outbox, PropertiesView, Request, Text,
};

pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const REPLY_QUEUE_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// A channel's consumer of replies.
pub(crate) struct ReplyConsumer {
    consumer: ConsumerNumber,
    queue: Text,
}

impl Connection {
    /// The queue is named here, so that a request may follow without waiting for the answer.
    pub(crate) fn consume_replies(
        &mut self,
        number: u16,
        id: MethodId,
        consume: &basic::Consume,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if !consume.no_ack {
            return Err(Fault::precondition("reply consumer cannot acknowledge"));
        }
        if self.channel(number)?.replies.is_some() {
            return Err(Fault::precondition("reply consumer already set"));
        }
        let tag = consume.consumer_tag.as_str();
        let consumer = self.new_consumer(number, tag, AckMode::Auto)?;
        let seed = self.options.connection_seed;
        let queue = Text::from(format!("{REPLY_QUEUE_PREFIX}{seed:016x}.{}", consumer.0));
        self.channel(number)?.replies = Some(ReplyConsumer { consumer, queue: queue.clone() });
        out.requests.push(Request::DeclareQueue(DeclareQueue {
            token: self.ask(number, id, Answer::Nothing)?,
            name: queue.clone(),
            named_by_frontend: true,
            exclusive: true,
            auto_delete: true,
            ..DeclareQueue::default()
        }));
        out.requests.push(Request::Consume(Consume {
            token: self.ask(number, id, Answer::Consume { consumer, nowait: consume.nowait })?,
            consumer,
            channel: number,
            queue,
            ack: AckMode::Auto,
            exclusive: false,
            priority: 0,
            credit: Credit::Prefetch(0),
            ..Consume::default()
        }));
        Ok(())
    }

    pub(crate) fn forget_replies(
        &mut self,
        number: u16,
        consumer: ConsumerNumber,
    ) -> Result<(), Fault> {
        let replies = &mut self.channel(number)?.replies;
        if replies.as_ref().is_some_and(|replies| replies.consumer == consumer) {
            *replies = None;
        }
        Ok(())
    }

    /// The properties with `reply-to` naming the channel's own queue, if they ask for that.
    pub(crate) fn address_replies(
        &mut self,
        number: u16,
        raw: Bytes,
        properties: &PropertiesView<'_>,
    ) -> Result<Bytes, Fault> {
        let Some(reply_to) = properties.reply_to.filter(|name| *name == REPLY_TO.as_bytes()) else {
            return Ok(raw);
        };
        let Some(ReplyConsumer { queue, .. }) = &self.channel(number)?.replies else {
            return Err(Fault::precondition("fast reply consumer does not exist"));
        };
        let at = reply_to.as_ptr() as usize - raw.as_ptr() as usize;
        let mut addressed = BytesMut::with_capacity(raw.len() + queue.len());
        // Up to the length octet in front of the name.
        addressed.put_slice(&raw[..at - 1]);
        addressed.put_u8(queue.len() as u8);
        addressed.put_slice(queue.as_bytes());
        addressed.put_slice(&raw[at + reply_to.len()..]);
        Ok(addressed.freeze())
    }
}

/// Declaring the name that is no queue succeeds, as if it were one.
pub(crate) fn put_reply_to_declared(number: u16, out: &mut Outbox) {
    let answer = queue::DeclareOk { queue: short(REPLY_TO), message_count: 0, consumer_count: 0 };
    let class = AMQPClass::Queue(queue::AMQPMethod::DeclareOk(answer));
    put_method(&mut out.write, number, class);
}
