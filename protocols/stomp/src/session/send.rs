//! SEND: where a message goes, and what is declared for it.

use super::{Pending, Result, StompSession, TempQueue};
use crate::{
    codec::{Frame, Headers, Version},
    destination::{self, Destination, TOPIC_EXCHANGE, parse_list},
    error::StompError,
    mapping::{Sender, properties},
    options::Dialect,
    queue::{self, Defaults},
    subscription::{Ack, NewSubscription, Subscription},
    transaction::Transaction,
};
use understudy_model::{
    AckMode, Consume, ConsumerNumber, Credit, DeclareQueue, Outbox, Publish, Request, Text,
};

/// So many queues are remembered as declared; declaring one again does no harm.
const DECLARED_MAX: usize = 1_000;

impl StompSession {
    pub(super) fn send(&mut self, now_ms: u64, frame: &Frame, out: &mut Outbox) -> Result {
        let headers = &frame.headers;
        if headers.get("message-id").is_some() {
            let body = "'message-id' is not allowed on 'SEND'.\n";
            return Err(StompError::new("Invalid header", body));
        }
        let text = headers.get("destination").ok_or_else(|| missing_destination("SEND"))?;
        let transaction = headers.get("transaction");
        if let Some(name) = transaction {
            self.transactions.check(name)?;
        }
        if self.options.dialect == Dialect::Activemq && text.contains(',') {
            return self.send_composite(now_ms, frame, text, out);
        }
        let destination = Destination::parse(text, self.options.dialect)?;
        let mut publish = self.addressed(destination, text, headers, out)?;
        let reply_queue = self.reply_queue(headers, out)?;
        let sender = self.sender(now_ms, reply_queue);
        publish.properties = properties(headers, &sender)?;
        publish.body = frame.body.clone().into();
        match transaction {
            None => self.publish(publish, headers.receipt(), out),
            Some(name) => {
                let receipt = self.receipt_within(headers, out);
                self.transactions.add_publish(name, publish, receipt, &self.options)?;
            }
        }
        Ok(())
    }

    fn sender(&self, now_ms: u64, reply_queue: Option<Text>) -> Sender<'_> {
        let default_persistent = self.options.default_persistent;
        Sender { user: &self.user, now_ms, reply_queue, default_persistent }
    }

    /// One message to several destinations, ActiveMQ's `/queue/a,/topic/b`: all get it or none.
    fn send_composite(
        &mut self,
        now_ms: u64,
        frame: &Frame,
        text: &Text,
        out: &mut Outbox,
    ) -> Result {
        let headers = &frame.headers;
        let destinations = parse_list(text)?;
        let reply_queue = self.reply_queue(headers, out)?;
        let sender = self.sender(now_ms, reply_queue);
        let properties = properties(headers, &sender)?;
        let mut publishes = Vec::with_capacity(destinations.len());
        for destination in destinations {
            let mut publish = self.addressed(destination, text, headers, out)?;
            publish.properties = properties.clone();
            publish.body = frame.body.clone().into();
            publishes.push(publish);
        }
        let Some(name) = headers.get("transaction") else {
            self.commit_now(Transaction::of(publishes), headers.receipt(), out);
            return Ok(());
        };
        let mut receipt = self.receipt_within(headers, out);
        for publish in publishes {
            self.transactions.add_publish(name, publish, receipt.take(), &self.options)?;
        }
        Ok(())
    }

    /// A publish without its content; what it needs is declared.
    fn addressed(
        &mut self,
        destination: Destination,
        text: &str,
        headers: &Headers,
        out: &mut Outbox,
    ) -> Result<Publish> {
        let mut publish = Publish::default();
        match destination {
            Destination::Queue(name) => {
                self.declare_described(&name, headers, out)?;
                publish.declare_missing = true;
                publish.routing_key = name;
            }
            Destination::AmqQueue(name) | Destination::ReplyQueue(name) => {
                publish.routing_key = name;
            }
            Destination::Topic(key) => {
                publish.exchange = Text::from_static(TOPIC_EXCHANGE);
                publish.routing_key = key;
            }
            Destination::TempTopic(name) => {
                publish.exchange = Text::from_static(TOPIC_EXCHANGE);
                publish.routing_key = self.temp_topic_key(&name);
            }
            Destination::Exchange { name, key } => {
                publish.exchange = name;
                publish.routing_key = key;
            }
            Destination::TempQueue(name) if self.options.dialect == Dialect::Activemq => {
                publish.routing_key = self.temp_queue(&name, headers.receipt(), out)?;
            }
            Destination::TempQueue(_) => return Err(not_valid_for(text, "SEND")),
        }
        Ok(publish)
    }

    /// The name of the session in it keeps it apart from every other connection's.
    pub(super) fn temp_topic_key(&self, name: &str) -> Text {
        Text::from(format!("stomp-temp.{}.{name}", self.session_id))
    }

    /// A SEND may describe its queue; `declare_missing` alone makes the plain one.
    fn declare_described(&mut self, name: &Text, headers: &Headers, out: &mut Outbox) -> Result {
        if !queue::is_described(headers) || self.declared.contains(name) {
            return Ok(());
        }
        let durable = headers.bool("durable")?.unwrap_or(true);
        let defaults = Defaults { durable, ..Defaults::LASTING };
        let declare = queue::declare(name.clone(), headers, defaults)?;
        self.declare(declare, headers.receipt(), out);
        if self.declared.len() >= DECLARED_MAX {
            self.declared.clear();
        }
        self.declared.insert(name.clone());
        Ok(())
    }

    pub(super) fn declare(
        &mut self,
        declare: DeclareQueue,
        receipt: Option<Text>,
        out: &mut Outbox,
    ) {
        let token = self.await_reply(Pending::Step(receipt));
        out.requests.push(Request::DeclareQueue(DeclareQueue { token, ..declare }));
    }

    /// What a `reply-to` of `/temp-queue/NAME` means to others. The queue is made when it is
    /// first named, and subscribed to; but not in ActiveMQ's dialect, whose clients subscribe.
    fn reply_queue(&mut self, headers: &Headers, out: &mut Outbox) -> Result<Option<Text>> {
        let Some(reply_to) = headers.get("reply-to").filter(|to| to.starts_with("/temp-")) else {
            return Ok(None);
        };
        let name = match (Destination::parse(reply_to, self.options.dialect)?, self.options.dialect)
        {
            (Destination::TempQueue(name), Dialect::Rabbitmq) => name,
            (Destination::TempQueue(name), Dialect::Activemq) => {
                return self.temp_queue(&name, headers.receipt(), out).map(Some);
            }
            (Destination::TempTopic(name), _) => {
                let key = self.temp_topic_key(&name);
                return Ok(Some(Text::from(destination::format(
                    TOPIC_EXCHANGE,
                    &key,
                    Dialect::Rabbitmq,
                ))));
            }
            _ => return Ok(None),
        };
        if let Some(known) = self.temp_queues.get(&name) {
            return Ok(Some(known.queue.clone()));
        }
        self.check_subscriptions(1)?;
        let receipt = headers.receipt();
        let queue = self.temp_queue(&name, receipt.clone(), out)?;
        let consumer = self.subscriptions.next_number();
        let tag = Text::from(format!("T_{reply_to}"));
        if let Some(temp) = self.temp_queues.get_mut(&name) {
            temp.automatic = Some(tag.clone());
        }
        self.subscriptions.insert(Subscription::new(NewSubscription {
            consumer,
            tag,
            id: Some(reply_to.clone()),
            ack: Ack::Auto,
            queue: queue.clone(),
            destination: None,
            session_id: &self.session_id,
            version: self.version,
        }));
        let token = self.await_reply(Pending::Step(receipt));
        out.requests.push(Request::Consume(Consume {
            token,
            consumer,
            channel: 0,
            queue: queue.clone(),
            ack: AckMode::Auto,
            exclusive: false,
            priority: 0,
            credit: Credit::Prefetch(0),
            ..Consume::default()
        }));
        Ok(Some(queue))
    }

    /// The queue behind a temporary name of this connection; declared if it is new.
    pub(super) fn temp_queue(
        &mut self,
        name: &Text,
        receipt: Option<Text>,
        out: &mut Outbox,
    ) -> Result<Text> {
        if let Some(known) = self.temp_queues.get(name) {
            return Ok(known.queue.clone());
        }
        let most = self.options.subscriptions_max;
        if self.temp_queues.len() >= most {
            let body = format!("A connection may have {most} temporary queues.\n");
            return Err(StompError::new("Temporary queue limit exceeded", body));
        }
        let queue = self.new_queue_name("stomp-temp");
        let declare = DeclareQueue {
            name: queue.clone(),
            exclusive: true,
            auto_delete: true,
            ..DeclareQueue::default()
        };
        self.declare(declare, receipt, out);
        let temp = TempQueue { queue: queue.clone(), automatic: None };
        self.temp_queues.insert(name.clone(), temp);
        Ok(queue)
    }

    /// Made here and not by the broker, so that what uses the queue need not wait for the reply:
    /// a SEND right behind a SUBSCRIBE finds its binding.
    pub(super) fn new_queue_name(&mut self, prefix: &str) -> Text {
        self.queues_named += 1;
        Text::from(format!("{prefix}-{}-{}", self.session_id, self.queues_named))
    }

    pub(super) fn check_subscriptions(&self, more: usize) -> Result {
        let most = self.options.subscriptions_max;
        if self.subscriptions.len() + more <= most {
            return Ok(());
        }
        let body = format!("A connection may have {most} subscriptions.\n");
        Err(StompError::new("Subscription limit exceeded", body))
    }

    pub(super) fn cancel(
        &mut self,
        consumer: ConsumerNumber,
        receipt: Option<Text>,
        out: &mut Outbox,
    ) {
        let token = self.await_reply(Pending::Cancel(consumer, receipt));
        out.requests.push(Request::Cancel { token, consumer });
    }

    pub(super) fn requires_id(&self) -> bool {
        self.version > Version::V10
    }
}

pub(super) fn missing_destination(command: &str) -> StompError {
    let body = format!("'{command}' must include a 'destination' header\n");
    StompError::new("Missing destination", body)
}

pub(super) fn not_valid_for(destination: &str, command: &str) -> StompError {
    let body = format!("'{destination}' is not a valid destination for '{command}'\n");
    StompError::new("Invalid destination", body)
}
