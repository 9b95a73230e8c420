//! Subscriptions and what is outstanding on them.

use crate::codec::{Version, escape, put_header};
use bytes::{Bytes, BytesMut};
use std::{collections::BTreeMap, fmt::Write};
use understudy_model::{ConsumerNumber, DeliveryRef, Text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Auto,
    /// Cumulative.
    Client,
    Individual,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) consumer: ConsumerNumber,
    /// The others of a subscription to a list: a consumer reads one queue.
    pub(crate) more: Vec<ConsumerNumber>,
    /// `T_` and the id, or `Q_` and the destination where a 1.0 client gave no id.
    pub(crate) tag: Text,
    /// The header `subscription`.
    pub(crate) id: Option<Text>,
    pub(crate) ack: Ack,
    pub(crate) queue: Text,
    /// The destination, which a 1.0 client may name in UNSUBSCRIBE; kept for no other.
    pub(crate) subscribed_to: Option<Text>,
    /// UNSUBSCRIBE may ask for its queue to be deleted.
    pub(crate) durable: bool,
    /// The name of the connection's own temporary queue that it reads.
    pub(crate) temp_queue: Option<Text>,
    /// Its MESSAGEs carry the destination it was made with.
    pub(crate) echoes_destination: bool,
    /// Its MESSAGEs are copies: there is nothing to ack, and an ACK does no harm.
    pub(crate) browses: bool,
    /// UNSUBSCRIBE came. Its deliveries may still be acked, so it stays while it has any.
    pub(crate) cancelled: bool,
    /// So many of its consumers' cancels are answered: nothing more will come from them.
    ended: usize,
    /// How each of its MESSAGEs begins, and how their ids do: made once.
    pub(crate) message_start: Bytes,
    pub(crate) id_start: Bytes,
    delivered: u64,
    outstanding: BTreeMap<u64, DeliveryRef>,
}

/// What a new subscription is made of.
pub(crate) struct NewSubscription<'a> {
    pub(crate) consumer: ConsumerNumber,
    pub(crate) tag: Text,
    pub(crate) id: Option<Text>,
    pub(crate) ack: Ack,
    pub(crate) queue: Text,
    /// Given if its MESSAGEs shall carry it.
    pub(crate) destination: Option<&'a str>,
    pub(crate) session_id: &'a str,
    pub(crate) version: Version,
}

/// The id, or the destination of a 1.0 client that gave none, for the text of an ERROR.
pub(crate) fn as_given(tag: &str) -> &str {
    tag.split_once('_').map_or(tag, |(_, given)| given)
}

impl Subscription {
    pub(crate) fn new(new: NewSubscription<'_>) -> Self {
        let id_start = message_id_start(&new);
        let NewSubscription { consumer, tag, id, ack, queue, destination, .. } = new;
        let mut start = BytesMut::from(&b"MESSAGE\n"[..]);
        if let Some(id) = &id {
            put_header(&mut start, new.version, "subscription", id.as_bytes());
        }
        if let Some(destination) = destination {
            put_header(&mut start, new.version, "destination", destination.as_bytes());
        }
        Self {
            message_start: start.freeze(),
            id_start,
            echoes_destination: destination.is_some(),
            consumer,
            more: Vec::new(),
            tag,
            id,
            ack,
            queue,
            subscribed_to: None,
            durable: false,
            temp_queue: None,
            browses: false,
            cancelled: false,
            ended: 0,
            delivered: 0,
            outstanding: BTreeMap::new(),
        }
    }

    /// Numbers a delivery and keeps it, if it is to be acked.
    pub(crate) fn deliver(&mut self, delivery: DeliveryRef) -> u64 {
        self.delivered += 1;
        if self.ack != Ack::Auto {
            self.outstanding.insert(self.delivered, delivery);
        }
        self.delivered
    }

    /// Takes what an ACK or NACK of `number` means. Empty: it is not outstanding.
    pub(crate) fn take(&mut self, number: u64) -> Vec<Taken> {
        if !self.outstanding.contains_key(&number) {
            return Vec::new();
        }
        let numbers = if self.ack == Ack::Client { 0..=number } else { number..=number };
        let taken = self.outstanding.extract_if(numbers, |_, _| true);
        taken.map(|(number, delivery)| Taken { number, delivery }).collect()
    }

    /// An aborted transaction gives back what it took.
    pub(crate) fn put_back(&mut self, taken: &Taken) {
        self.outstanding.insert(taken.number, taken.delivery);
    }

    fn has_ended(&self) -> bool {
        self.ended > self.more.len()
    }

    fn is_over(&self) -> bool {
        self.has_ended() && self.outstanding.is_empty()
    }
}

/// A delivery taken off its subscription by an ACK or NACK.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Taken {
    pub(crate) number: u64,
    pub(crate) delivery: DeliveryRef,
}

fn message_id_start(new: &NewSubscription<'_>) -> Bytes {
    let plain = format!("{}@@{}@@", new.tag, new.session_id);
    let mut id = BytesMut::new();
    escape(plain.as_bytes(), new.version, false, &mut id);
    // Writing to a buffer cannot fail.
    let _ = write!(id, "{}-", new.consumer.0);
    id.freeze()
}

/// What a message-id says: of which consumer, and its number there.
pub(crate) fn parse_message_id(id: &str, session_id: &str) -> Option<(ConsumerNumber, u64)> {
    let (start, end) = id.rsplit_once("@@")?;
    let (_, session) = start.split_at_checked(start.len().checked_sub(session_id.len())?)?;
    let (consumer, number) = end.split_once('-')?;
    let consumer = ConsumerNumber(consumer.parse().ok()?);
    (session == session_id).then_some((consumer, number.parse().ok()?))
}

#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    all: BTreeMap<ConsumerNumber, Subscription>,
    /// Under which consumer in `all` a list's other consumers are found.
    more: BTreeMap<ConsumerNumber, ConsumerNumber>,
    /// Those that are not cancelled.
    by_tag: BTreeMap<Text, ConsumerNumber>,
    numbers: u32,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.all.len() + self.more.len()
    }

    pub(crate) fn next_number(&mut self) -> ConsumerNumber {
        self.numbers += 1;
        ConsumerNumber(self.numbers)
    }

    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.by_tag.contains_key(tag)
    }

    pub(crate) fn insert(&mut self, subscription: Subscription) {
        self.by_tag.insert(subscription.tag.clone(), subscription.consumer);
        self.more.extend(subscription.more.iter().map(|&other| (other, subscription.consumer)));
        self.all.insert(subscription.consumer, subscription);
    }

    pub(crate) fn browses(&self, consumer: ConsumerNumber) -> bool {
        self.all.get(&consumer).is_some_and(|subscription| subscription.browses)
    }

    pub(crate) fn get_mut(&mut self, consumer: ConsumerNumber) -> Option<&mut Subscription> {
        let first = self.first(consumer);
        self.all.get_mut(&first)
    }

    fn first(&self, consumer: ConsumerNumber) -> ConsumerNumber {
        self.more.get(&consumer).copied().unwrap_or(consumer)
    }

    pub(crate) fn tag_of_destination(&self, destination: &str) -> Option<Text> {
        let mut open = self.all.values().filter(|subscription| !subscription.cancelled);
        let found = open.find(|open| open.subscribed_to.as_deref() == Some(destination));
        found.map(|subscription| subscription.tag.clone())
    }

    /// The tag is free again at once.
    pub(crate) fn cancel(&mut self, tag: &str) -> Option<&mut Subscription> {
        let consumer = self.by_tag.remove(tag)?;
        let subscription = self.all.get_mut(&consumer)?;
        subscription.cancelled = true;
        Some(subscription)
    }

    /// Nothing more will come from the consumer. What is outstanding may still be acked.
    pub(crate) fn end(&mut self, consumer: ConsumerNumber) {
        let first = self.first(consumer);
        if let Some(subscription) = self.all.get_mut(&first) {
            subscription.ended += 1;
        }
        self.forget_if_over(first);
    }

    /// The same, but what is outstanding when nothing more will come at all is to be given back.
    pub(crate) fn end_returning(&mut self, consumer: ConsumerNumber) -> Vec<DeliveryRef> {
        let first = self.first(consumer);
        let Some(subscription) = self.all.get_mut(&first) else { return Vec::new() };
        subscription.ended += 1;
        if !subscription.has_ended() {
            return Vec::new();
        }
        let outstanding = std::mem::take(&mut subscription.outstanding);
        self.forget_if_over(first);
        outstanding.into_values().collect()
    }

    pub(crate) fn take(&mut self, consumer: ConsumerNumber, number: u64) -> Vec<Taken> {
        let subscription = self.all.get_mut(&consumer);
        let taken = subscription.map(|s| s.take(number)).unwrap_or_default();
        self.forget_if_over(consumer);
        taken
    }

    fn forget_if_over(&mut self, consumer: ConsumerNumber) {
        if self.all.get(&consumer).is_some_and(Subscription::is_over) {
            self.all.remove(&consumer);
            self.more.retain(|_, first| *first != consumer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::{Lsn, QueueId};

    fn subscription(ack: Ack) -> Subscription {
        Subscription::new(NewSubscription {
            consumer: ConsumerNumber(3),
            tag: Text::from("T_a:b"),
            id: Some(Text::from("a:b")),
            ack,
            queue: Text::from("q"),
            destination: Some("/queue/q"),
            session_id: "session-x",
            version: Version::V11,
        })
    }

    fn reference(lsn: u64) -> DeliveryRef {
        DeliveryRef { consumer: ConsumerNumber(3), queue: QueueId(Lsn(1)), lsn: Lsn(lsn) }
    }

    #[test]
    fn ids_lead_back_to_their_delivery() {
        assert_eq!(&subscription(Ack::Auto).id_start[..], b"T_a\\cb@@session-x@@3-");
        let parse = |id| parse_message_id(id, "session-x");
        assert_eq!(parse("T_a:b@@session-x@@3-17"), Some((ConsumerNumber(3), 17)));
        assert_eq!(parse("T_@@@@session-x@@3-17"), Some((ConsumerNumber(3), 17)));
        for bad in ["", "x", "T_a@@session-y@@3-17", "T_a@@session-x@@17", "@@1-1", "é@@1-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn client_acks_are_cumulative_and_individual_ones_are_not() {
        for (ack, wanted) in [(Ack::Client, vec![1, 2]), (Ack::Individual, vec![2])] {
            let mut subscription = subscription(ack);
            (1..=3).for_each(|lsn| {
                subscription.deliver(reference(lsn * 10));
            });
            let taken = subscription.take(2);
            let numbers: Vec<_> = taken.iter().map(|taken| taken.number).collect();
            assert_eq!(numbers, wanted);
            assert_eq!(taken.last().map(|taken| taken.delivery.lsn), Some(Lsn(20)));
            assert!(subscription.take(2).is_empty());
            subscription.put_back(&taken[0]);
            assert_eq!(subscription.take(taken[0].number), taken[..1]);
        }
        let mut auto = subscription(Ack::Auto);
        assert_eq!(auto.deliver(reference(1)), 1);
        assert!(auto.take(1).is_empty());
    }

    #[test]
    fn a_cancelled_subscription_stays_while_something_is_outstanding() {
        let mut all = Subscriptions::default();
        let consumer = ConsumerNumber(3);
        all.insert(subscription(Ack::Individual));
        all.get_mut(consumer).unwrap().deliver(reference(5));
        assert!(all.cancel("T_a:b").is_some() && !all.has_tag("T_a:b"));
        all.end(consumer);
        assert_eq!(all.len(), 1);
        assert_eq!(all.take(consumer, 1).len(), 1);
        assert_eq!(all.len(), 0);
    }
}
