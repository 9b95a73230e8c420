//! Consumers and gets.

use crate::{
    connection::{Connection, Consumer},
    fault::{Fault, MethodId, ReplyCode},
    reply::Answer,
    reply_to::REPLY_TO,
};
use amq_protocol::protocol::basic;
use understudy_model::{
    AckMode, Consume, ConsumerNumber, Credit, Get, Outbox, Request, Table, Text, type_name,
};

fn ack_mode(no_ack: bool) -> AckMode {
    if no_ack { AckMode::Auto } else { AckMode::Manual }
}

impl Connection {
    pub(crate) fn on_consume(
        &mut self,
        number: u16,
        id: MethodId,
        consume: &basic::Consume,
        arguments: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let queue = self.queue_name(number, &consume.queue)?;
        if queue == REPLY_TO {
            return self.consume_replies(number, id, consume, out);
        }
        let priority = priority(arguments, &queue, &self.vhost)?;
        let ack = ack_mode(consume.no_ack);
        let consumer = self.new_consumer(number, consume.consumer_tag.as_str(), ack)?;
        let prefetch = self.channel(number)?.prefetch;
        let answer = Answer::Consume { consumer, nowait: consume.nowait };
        out.requests.push(Request::Consume(Consume {
            token: self.ask(number, id, answer)?,
            consumer,
            channel: number,
            queue,
            ack,
            exclusive: consume.exclusive,
            priority,
            credit: Credit::Prefetch(prefetch.into()),
            ..Consume::default()
        }));
        Ok(())
    }

    pub(crate) fn new_consumer(
        &mut self,
        number: u16,
        tag: &str,
        ack: AckMode,
    ) -> Result<ConsumerNumber, Fault> {
        let limit = self.options.consumers_per_channel_max;
        let consumer = self.next_consumer();
        let tag = if tag.is_empty() {
            let seed = self.options.connection_seed;
            Text::from(format!("amq.ctag-{seed:016x}.{}", consumer.0))
        } else {
            Text::from(tag)
        };
        let consumers = &mut self.channel(number)?.consumers;
        if consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text));
        }
        if consumers.len() >= limit {
            let text = format!("more than {limit} consumers on one channel");
            return Err(Fault::new(ReplyCode::RESOURCE_ERROR, text));
        }
        consumers.insert(tag.clone(), consumer);
        self.consumers.insert(consumer, Consumer { channel: number, tag, ack, cancelling: false });
        Ok(consumer)
    }

    /// The consumer is known until its cancel is answered, for deliveries that are on their way.
    pub(crate) fn cancelling(&mut self, consumer: ConsumerNumber) {
        if let Some(consumer) = self.consumers.get_mut(&consumer) {
            consumer.cancelling = true;
        }
    }

    /// Forgets the consumer; returns what it was, if it was known.
    pub(crate) fn forget_consumer(
        &mut self,
        number: ConsumerNumber,
    ) -> Result<Option<Consumer>, Fault> {
        let Some(consumer) = self.consumers.remove(&number) else { return Ok(None) };
        // A new consumer may have taken the tag of one that is being cancelled.
        if !consumer.cancelling {
            self.channel(consumer.channel)?.consumers.remove(&consumer.tag);
        }
        Ok(Some(consumer))
    }

    pub(crate) fn on_get(
        &mut self,
        number: u16,
        id: MethodId,
        get: &basic::Get,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let queue = self.queue_name(number, &get.queue)?;
        let consumer = self.channel(number)?.getter;
        let ack = ack_mode(get.no_ack);
        let token = self.ask(number, id, Answer::Get { ack })?;
        out.requests.push(Request::Get(Get { token, queue, ack, consumer }));
        Ok(())
    }
}

/// The argument `x-priority`: any integer.
fn priority(arguments: &[u8], queue: &Text, vhost: &Text) -> Result<i32, Fault> {
    if arguments.is_empty() {
        return Ok(0);
    }
    let arguments = Table::decode(arguments)
        .map_err(|malformed| Fault::new(ReplyCode::SYNTAX_ERROR, malformed.to_string()))?;
    let Some(value) = arguments.get("x-priority") else { return Ok(0) };
    let Some(priority) = value.as_i64() else {
        return Err(Fault::precondition(format!(
            "invalid arg 'x-priority' for queue '{queue}' in vhost '{vhost}': \
             \"expected integer, got {}\"",
            type_name(value)
        )));
    };
    Ok(priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
}
