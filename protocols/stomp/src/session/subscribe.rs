//! SUBSCRIBE and UNSUBSCRIBE: which queue is read, and what is declared for it.

use super::{
    Pending, Result, StompSession,
    send::{missing_destination, not_valid_for},
};
use crate::{
    codec::{Headers, Version},
    destination::{Destination, TEMP_QUEUE, TOPIC_EXCHANGE, binding_key, parse_list},
    error::StompError,
    options::Dialect,
    queue::{self, Defaults},
    subscription::{Ack, NewSubscription, Subscription, as_given},
};
use understudy_model::{
    AckMode, Bind, Consume, ConsumeMode, ConsumerNumber, Credit, DeleteQueue, Outbox, Request,
    Text, Token,
};

/// Spellings of a durable subscription's name, each of some broker; RabbitMQ takes `id`. The last one
/// is ActiveMQ's up to 5.5, and what PHP's clients send.
const DURABLE_NAMES: [&str; 4] = [
    "durable-subscription-name",
    "durable-subscriber-name",
    "activemq.subscriptionName",
    "activemq.subcriptionName",
];

/// In front of a selector: own headers are texts in STOMP, and are compared with numbers and
/// booleans as what they spell. ActiveMQ does the same.
const CONVERT_STRINGS: &str = "convert_string_expressions:";

/// Where a subscription reads.
struct Source {
    queue: Text,
    durable: bool,
    temp_queue: Option<Text>,
    /// MESSAGEs say the subscription's destination, not the one they were sent to.
    echoes: bool,
    /// Nobody else reads the queue, or only who subscribes by the same name.
    own: bool,
}

/// How a subscription reads, whatever its destination.
struct Reading {
    ack: Ack,
    prefetch: u32,
    priority: i32,
    exclusive: bool,
    browses: bool,
    selector: Text,
}

impl Reading {
    fn of(headers: &Headers, prefetch_default: u32) -> Result<Self> {
        let prefetch = headers.number(&["prefetch-count", "activemq.prefetchSize"])?;
        Ok(Self {
            ack: ack_mode(headers)?,
            prefetch: prefetch.unwrap_or(prefetch_default),
            priority: headers.number(&["x-priority", "activemq.priority"])?.unwrap_or(0),
            exclusive: headers.bool("activemq.exclusive")?.unwrap_or(false),
            browses: headers.bool("browser")?.unwrap_or(false),
            selector: selector(headers),
        })
    }

    fn consume(&self, token: Token, consumer: ConsumerNumber, source: Source) -> Consume {
        let mode = match (self.browses, source.own && !self.selector.is_empty()) {
            (true, _) => ConsumeMode::Browse,
            (false, true) => ConsumeMode::Filter,
            (false, false) => ConsumeMode::Take,
        };
        Consume {
            token,
            consumer,
            channel: 0,
            queue: source.queue,
            ack: if self.ack == Ack::Auto { AckMode::Auto } else { AckMode::Manual },
            exclusive: self.exclusive,
            priority: self.priority,
            credit: Credit::Prefetch(self.prefetch),
            selector: self.selector.clone(),
            mode,
        }
    }
}

impl Source {
    fn plain(queue: Text) -> Self {
        Self { queue, durable: false, temp_queue: None, echoes: false, own: false }
    }
}

impl StompSession {
    pub(super) fn subscribe(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let text = headers.get("destination").ok_or_else(|| missing_destination("SUBSCRIBE"))?;
        if self.requires_id() && headers.get("id").is_none() {
            return Err(if durable_name_wanted(headers)? {
                missing_id()
            } else {
                StompError::missing_header("SUBSCRIBE", "id")
            });
        }
        let tag = subscription_tag(headers, "SUBSCRIBE")?;
        if self.subscriptions.has_tag(&tag) {
            let body = format!("A subscription identified by '{tag}' already exists.");
            return Err(StompError::new("Duplicated subscription identifier", body));
        }
        let reading = Reading::of(headers, self.options.prefetch_default)?;
        let destinations = self.destinations(text, headers, reading.browses)?;
        self.check_subscriptions(destinations.len())?;
        let single = destinations.len() == 1;
        // All before the first consumer, so that no MESSAGE precedes the receipt.
        let sources = destinations.into_iter().map(|place| self.source(place, text, headers, out));
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let consumers: Vec<_> = sources.iter().map(|_| self.subscriptions.next_number()).collect();
        let (Some(source), Some((&consumer, more))) = (sources.first(), consumers.split_first())
        else {
            return Ok(());
        };

        let echoes = reading.browses || source.echoes && single;
        let mut subscription = Subscription::new(NewSubscription {
            consumer,
            tag,
            // Copied: a slice would keep all that was read with it.
            id: headers.get("id").map(|id| Text::from(&**id)),
            ack: if reading.browses { Ack::Auto } else { reading.ack },
            queue: source.queue.clone(),
            destination: echoes.then_some(text),
            session_id: &self.session_id,
            version: self.version,
        });
        if self.version == Version::V10 {
            subscription.subscribed_to = Some(Text::from(&**text));
        }
        subscription.more = more.to_vec();
        subscription.durable = source.durable;
        subscription.browses = reading.browses;
        subscription.temp_queue = source.temp_queue.clone();
        self.subscriptions.insert(subscription);
        let automatic = source.temp_queue.clone();
        for (consumer, source) in consumers.iter().zip(sources) {
            let receipt = headers.receipt();
            let last = Some(consumer) == consumers.last();
            let pending = if last { Pending::Finish(receipt) } else { Pending::Step(receipt) };
            let token = self.await_reply(pending);
            out.requests.push(Request::Consume(reading.consume(token, *consumer, source)));
        }
        if let Some(name) = automatic {
            self.replace_automatic(&name, out);
        }
        Ok(())
    }

    /// One destination, or those of ActiveMQ's list.
    fn destinations(
        &self,
        text: &str,
        headers: &Headers,
        browses: bool,
    ) -> Result<Vec<Destination>> {
        use Destination::{AmqQueue, Exchange, Queue, TempQueue, TempTopic, Topic};
        let list = self.options.dialect == Dialect::Activemq && text.contains(',');
        let destinations = match list {
            false => vec![Destination::parse(text, self.options.dialect)?],
            true => parse_list(text)?,
        };
        let any = |is: fn(&Destination) -> bool| destinations.iter().any(is);
        if browses && any(|place| !matches!(place, Queue(_) | AmqQueue(_) | TempQueue(_))) {
            return Err(not_supported("A browser looks into a queue.\n"));
        }
        let durable = durable_name_wanted(headers)?
            && any(|place| matches!(place, Topic(_) | Exchange { .. }));
        let temporary = any(|place| matches!(place, TempQueue(_) | TempTopic(_)));
        if list && (browses || durable || temporary) {
            let body =
                "A browser, a durable subscription and a temporary destination stand alone.\n";
            return Err(not_supported(body));
        }
        Ok(destinations)
    }

    /// Declares and binds what the destination needs.
    fn source(
        &mut self,
        destination: Destination,
        text: &Text,
        headers: &Headers,
        out: &mut Outbox,
    ) -> Result<Source> {
        let activemq = self.options.dialect == Dialect::Activemq;
        match destination {
            Destination::Queue(name) if activemq && is_pattern(&name) => {
                Err(not_supported("A wildcard reads topics; name a queue as it is.\n"))
            }
            Destination::Queue(name) => {
                let durable = queue::durable(headers)?.unwrap_or(true);
                let defaults = Defaults { durable, ..Defaults::LASTING };
                let declare = queue::declare(name.clone(), headers, defaults)?;
                self.declare(declare, headers.receipt(), out);
                Ok(Source { echoes: true, ..Source::plain(name) })
            }
            Destination::AmqQueue(name) => Ok(Source::plain(name)),
            Destination::Topic(key) => {
                let key = if activemq { binding_key(&key) } else { key };
                self.bound_queue(Text::from_static(TOPIC_EXCHANGE), key, text, headers, out)
            }
            Destination::Exchange { name, key } => self.bound_queue(name, key, text, headers, out),
            Destination::TempQueue(name) => {
                let queue = self.temp_queue(&name, headers.receipt(), out)?;
                Ok(Source { temp_queue: Some(name), echoes: activemq, ..Source::plain(queue) })
            }
            Destination::TempTopic(name) => {
                let key = self.temp_topic_key(&name);
                let exchange = Text::from_static(TOPIC_EXCHANGE);
                let source = self.bound_queue(exchange, key, text, headers, out)?;
                Ok(Source { echoes: true, ..source })
            }
            Destination::ReplyQueue(_) => Err(not_valid_for(text, "SUBSCRIBE")),
        }
    }

    /// A queue for this subscription, with a binding to an exchange.
    fn bound_queue(
        &mut self,
        exchange: Text,
        key: Text,
        destination: &str,
        headers: &Headers,
        out: &mut Outbox,
    ) -> Result<Source> {
        let durable = durable_name_wanted(headers)?;
        let given = headers.get("x-queue-name").filter(|name| !name.is_empty());
        let (name, defaults) = match (given, durable) {
            (Some(name), true) => (name.clone(), Defaults::LASTING),
            // A name is given so that others can find the queue.
            (Some(name), false) => {
                (name.clone(), Defaults { exclusive: false, ..Defaults::PRIVATE })
            }
            (None, true) => (self.durable_queue(destination, headers)?, Defaults::LASTING),
            (None, false) => (self.new_queue_name("stomp-subscription"), Defaults::PRIVATE),
        };
        let declare = queue::declare(name.clone(), headers, defaults)?;
        let receipt = headers.receipt();
        self.declare(declare, receipt.clone(), out);
        let token = self.await_reply(Pending::Step(receipt));
        out.requests.push(Request::Bind(Bind {
            token,
            source: exchange,
            destination: name.clone(),
            key,
            ..Bind::default()
        }));
        // A queue with a given name is meant to be shared, with whatever selectors.
        Ok(Source { durable, own: given.is_none(), ..Source::plain(name) })
    }

    fn durable_queue(&self, destination: &str, headers: &Headers) -> Result<Text> {
        let name = headers.any(&DURABLE_NAMES).map(|(_, name)| name);
        let name = name.or_else(|| headers.get("id")).ok_or_else(missing_id)?;
        let client_id = headers.get("client-id").unwrap_or(&self.client_id);
        Ok(queue::durable_name([client_id, destination, name]))
    }

    /// The client reads its temporary queue itself: the automatic subscription would take half
    /// of it. Cancelled after the new one was made, for the queue goes with its last reader.
    fn replace_automatic(&mut self, name: &Text, out: &mut Outbox) {
        let temp = self.temp_queues.get_mut(name);
        let Some(tag) = temp.and_then(|temp| temp.automatic.take()) else { return };
        let Some(old) = self.subscriptions.cancel(&tag) else { return };
        let consumer = old.consumer;
        self.cancel(consumer, None, out);
    }

    pub(super) fn unsubscribe(&mut self, headers: &Headers, out: &mut Outbox) -> Result {
        let mut tag = subscription_tag(headers, "UNSUBSCRIBE")?;
        if !self.subscriptions.has_tag(&tag) && headers.get("id").is_none() {
            // 1.0 lets a client name the destination although it has given an id.
            let destination = headers.get("destination").map_or("", |destination| &**destination);
            tag = self.subscriptions.tag_of_destination(destination).unwrap_or(tag);
        }
        let delete = durable_name_wanted(headers)?;
        let receipt = headers.receipt();
        let Some(subscription) = self.subscriptions.cancel(&tag) else {
            return self.unsubscribe_offline(&tag, delete, headers, out);
        };
        let (consumer, more) = (subscription.consumer, subscription.more.clone());
        let queue = (delete && subscription.durable).then(|| subscription.queue.clone());
        if let Some(name) = subscription.temp_queue.clone() {
            // The queue goes with its reader; the name may be used for a new one.
            self.temp_queues.remove(&name);
        }
        for other in more {
            self.cancel(other, None, out);
        }
        match queue {
            None => self.cancel(consumer, receipt, out),
            Some(queue) => {
                self.cancel(consumer, None, out);
                self.delete(queue, receipt, out);
            }
        }
        Ok(())
    }

    /// A durable subscription may be ended without being taken up first.
    fn unsubscribe_offline(
        &mut self,
        tag: &str,
        delete: bool,
        headers: &Headers,
        out: &mut Outbox,
    ) -> Result {
        match headers.get("destination") {
            Some(destination) if delete => {
                let queue = self.durable_queue(destination, headers)?;
                self.delete(queue, headers.receipt(), out);
                Ok(())
            }
            _ => {
                let body = format!(
                    "UNSUBSCRIBE must refer to an existing subscription.\n\
                     Subscription to '{}' not found.\n",
                    as_given(tag)
                );
                Err(StompError::new("No subscription found", body))
            }
        }
    }

    fn delete(&mut self, queue: Text, receipt: Option<Text>, out: &mut Outbox) {
        let token = self.await_reply(Pending::Finish(receipt));
        let delete = DeleteQueue { token, name: queue, ..DeleteQueue::default() };
        out.requests.push(Request::DeleteQueue(delete));
    }
}

/// Empty: none.
fn selector(headers: &Headers) -> Text {
    match headers.get("selector") {
        Some(text) if !text.trim().is_empty() => Text::from(format!("{CONVERT_STRINGS}{text}")),
        _ => Text::new(),
    }
}

fn is_pattern(name: &str) -> bool {
    name.split('.').any(|word| matches!(word, "*" | ">"))
}

fn not_supported(body: &str) -> StompError {
    StompError::new("Unsupported destination", body)
}

fn ack_mode(headers: &Headers) -> Result<Ack> {
    match headers.get("ack").map(|ack| &**ack) {
        None | Some("auto") => Ok(Ack::Auto),
        Some("client") => Ok(Ack::Client),
        Some("client-individual") => Ok(Ack::Individual),
        Some(_) => Err(StompError::invalid_header("ack", "auto, client or client-individual")),
    }
}

/// Does the frame mean a durable subscription?
fn durable_name_wanted(headers: &Headers) -> Result<bool> {
    let named = headers.any(&DURABLE_NAMES).is_some();
    Ok(named || queue::durable(headers)?.unwrap_or(false))
}

fn subscription_tag(headers: &Headers, command: &str) -> Result<Text> {
    match (headers.get("id"), headers.get("destination")) {
        (Some(id), _) if id.starts_with(TEMP_QUEUE) => {
            let body = format!("{command} 'id' may not start with {TEMP_QUEUE}\n");
            Err(StompError::new("Invalid id", body))
        }
        (Some(id), _) => Ok(Text::from(format!("T_{id}"))),
        (None, Some(_))
            if durable_name_wanted(headers)? && headers.any(&DURABLE_NAMES).is_none() =>
        {
            Err(missing_id())
        }
        (None, Some(destination)) => Ok(Text::from(format!("Q_{destination}"))),
        (None, None) => {
            let body = format!("{command} must include a 'destination' or 'id' header\n");
            Err(StompError::new("Missing destination or id", body))
        }
    }
}

fn missing_id() -> StompError {
    StompError::new("Missing Header", "Header 'id' is required for durable subscriptions")
}
