//! Consumers that want some messages only, and such that look without taking.
//!
//! A message that a selector refuses stays where it is, and its selector is not asked again: each
//! filter remembers how far it has looked. So a queue with such consumers may be served from the
//! middle, and a message costs one evaluation per selector, however long the queue is.

use crate::broker::Broker;
use crate::dispatch::{Contents, READ_AHEAD_MAX, ReadAhead, Step};
use crate::queue::{ConsumerKey, FIRST_PLACE, Place, Queue};
use crate::traffic::Handed;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use understudy_model::{
    ConnectionId, ConsumeMode, Delivery, Effect, Lsn, QueueId, Refusal, RefusalKind, message_of,
};
use understudy_selector::{Candidate, Selector};

/// # Errors
/// The client's: it is no selector.
pub(crate) fn parse_selector(text: &str) -> Result<Option<Selector>, Refusal> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Selector::parse(text).map(Some).map_err(|error| {
        Refusal::new(RefusalKind::PreconditionFailed, format!("invalid selector: {error}"))
    })
}

/// A queue's consumers that select.
#[derive(Default)]
pub(crate) struct Filters(BTreeMap<ConsumerKey, Filter>);

struct Filter {
    selector: Selector,
    mode: ConsumeMode,
    /// Every message of this priority up to this one was looked at.
    seen: BTreeMap<Reverse<u8>, Lsn>,
    /// Ready messages among those that were given back since.
    again: BTreeSet<Place>,
}

impl Filter {
    fn seen_up_to(&self, priority: Reverse<u8>) -> Lsn {
        self.seen.get(&priority).copied().unwrap_or(Lsn::ZERO)
    }

    fn has_seen(&self, place: Place) -> bool {
        place.1 <= self.seen_up_to(place.0) && !self.again.contains(&place)
    }

    fn see(&mut self, place: Place) {
        if !self.again.remove(&place) && place.1 > self.seen_up_to(place.0) {
            self.seen.insert(place.0, place.1);
        }
    }

    /// The first ready message that it has not looked at.
    fn next_unseen(&self, queue: &Queue) -> Option<Place> {
        let mut from = FIRST_PLACE;
        let ahead = loop {
            // Once for each priority at most: what is seen of one is jumped over.
            match queue.ready_from(from).next() {
                Some((priority, lsn)) if lsn <= self.seen_up_to(priority) => {
                    from = (priority, self.seen_up_to(priority).next());
                }
                found => break found,
            }
        };
        [self.again.first().copied(), ahead].into_iter().flatten().min()
    }
}

impl Filters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, key: ConsumerKey, selector: Selector, mode: ConsumeMode) {
        let filter = Filter { selector, mode, seen: BTreeMap::new(), again: BTreeSet::new() };
        self.0.insert(key, filter);
    }

    pub(crate) fn remove(&mut self, key: ConsumerKey) {
        self.0.remove(&key);
    }

    /// The message is not ready any more.
    pub(crate) fn left(&mut self, place: Place) {
        self.0.values_mut().for_each(|filter| {
            filter.again.remove(&place);
        });
    }

    pub(crate) fn given_back(&mut self, place: Place) {
        for filter in self.0.values_mut() {
            if place.1 <= filter.seen_up_to(place.0) {
                filter.again.insert(place);
            }
        }
    }

    /// A consumer without a selector wants everything.
    fn wants(&self, key: ConsumerKey, place: Place, message: &Candidate<'_>) -> bool {
        let filter = self.0.get(&key);
        filter.is_none_or(|f| !f.has_seen(place) && f.selector.selects(message))
    }

    fn see(&mut self, key: ConsumerKey, place: Place) {
        if let Some(filter) = self.0.get_mut(&key) {
            filter.see(place);
        }
    }

    /// Nobody will ever want it, whether it has credit now or not.
    fn refuse(&self, consumers: &[(i32, ConsumerKey)], message: &Candidate<'_>) -> bool {
        let refuses = |filter: &Filter| {
            filter.mode == ConsumeMode::Filter && !filter.selector.selects(message)
        };
        consumers.iter().all(|(_, key)| self.0.get(key).is_some_and(refuses))
    }
}

/// A consumer that looks at what was in the queue when it came.
pub(crate) struct Browser {
    pub(crate) key: ConsumerKey,
    selector: Option<Selector>,
    cursor: Lsn,
    end: Lsn,
}

impl Browser {
    pub(crate) fn new(key: ConsumerKey, selector: Option<Selector>, last: Option<Lsn>) -> Self {
        Self { key, selector, cursor: Lsn::ZERO, end: last.unwrap_or(Lsn::ZERO) }
    }
}

/// The raw properties of a stored message.
fn properties(record: &[u8]) -> &[u8] {
    message_of(record).map_or(&[], |message| message.properties)
}

impl Broker {
    /// The first message that a consumer which may take one has not looked at. For consumers
    /// without a selector that is the head.
    pub(crate) fn next_unseen(&mut self, id: QueueId) -> Option<Lsn> {
        let queue = self.queues.get(&id)?;
        let places = self.able(queue).filter_map(|key| match queue.memory.filters.0.get(&key) {
            Some(filter) => filter.next_unseen(queue),
            None => queue.head().map(|head| queue.place(head)),
        });
        let next = places.min();
        if next.is_none() {
            self.note_congested(id);
        }
        next.map(|(_, lsn)| lsn)
    }

    fn able<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = ConsumerKey> + 'a {
        let memory = &queue.memory;
        let active = queue.rules.single_active_consumer.then_some(memory.active_consumer);
        let keys = memory.consumers.iter().map(|(_, key)| *key);
        keys.filter(move |key| active.is_none_or(|active| active == Some(*key)))
            .filter(|key| self.may_take(*key))
    }

    /// Offers one message to all who may take one, in turn.
    pub(crate) fn offer(
        &mut self,
        id: QueueId,
        lsn: Lsn,
        contents: &mut impl Contents,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) -> Step {
        let Some(record) = contents.record(lsn) else { return Step::NotInMemory };
        let message = Candidate::new(properties(&record));
        let Some(place) = self.queues.get(&id).map(|queue| queue.place(lsn)) else {
            return Step::NobodyCanTake;
        };
        let wants =
            |queue: &Queue, key: ConsumerKey| queue.memory.filters.wants(key, place, &message);
        let chosen = self.choose_consumer(id, wants);
        let lookers: Vec<ConsumerKey> = match chosen {
            Some(key) => vec![key],
            None => self.queues.get(&id).map(|q| self.able(q).collect()).unwrap_or_default(),
        };
        let Some(queue) = self.queues.get_mut(&id) else { return Step::NobodyCanTake };
        lookers.into_iter().for_each(|key| queue.memory.filters.see(key, place));
        if let Some(key) = chosen {
            self.deliver(id, lsn, key, record, effects);
            return Step::Delivered;
        }
        if queue.memory.filters.refuse(&queue.memory.consumers, &message) {
            queue.take(lsn);
            queue.settle_later(lsn);
            self.settles_due.insert(id);
        }
        Step::NobodyWants
    }

    /// Shows browsers what they have not seen yet, and tells them when they have seen all.
    pub(crate) fn serve_browsers(
        &mut self,
        id: QueueId,
        contents: &mut impl Contents,
        effects: &mut Vec<(ConnectionId, Effect)>,
        reads: &mut Vec<ReadAhead>,
        budget: &mut usize,
    ) {
        let mut at = 0;
        while *budget > 0 {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            let Some(browser) = queue.memory.browsers.get(at) else { return };
            let key = browser.key;
            let next = queue.unsettled().next_after(browser.cursor);
            let Some(lsn) = next.filter(|lsn| *lsn <= browser.end) else {
                queue.memory.browsers.remove(at);
                self.clients.forget(key);
                effects.push((key.0, Effect::BrowseEnd { consumer: key.1 }));
                continue;
            };
            let Some(connection) = self.clients.connections.get_mut(&key.0) else { return };
            if connection.is_congested(self.limits.outbound_bytes_max) {
                connection.passed_over.insert(id);
                at += 1;
                continue;
            }
            let Some(record) = contents.record(lsn) else {
                queue.memory.reading = true;
                let lsns = queue.unsettled().range(lsn, queue.memory.browsers[at].end);
                let lsns = lsns.take(READ_AHEAD_MAX).collect();
                reads.push(ReadAhead { queue: id, lsns });
                return;
            };
            *budget -= 1;
            self.show(id, at, lsn, record, effects);
        }
    }

    fn show(
        &mut self,
        id: QueueId,
        at: usize,
        lsn: Lsn,
        record: bytes::Bytes,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let expired = queue.deadline_ms(lsn).is_some_and(|deadline_ms| deadline_ms <= self.now_ms);
        let (redelivered, returns) = (queue.is_redelivery(lsn), queue.returns(lsn));
        let Some(browser) = queue.memory.browsers.get_mut(at) else { return };
        browser.cursor = lsn;
        let selects = |s: &Selector| s.selects(&Candidate::new(properties(&record)));
        if expired || !browser.selector.as_ref().is_none_or(selects) {
            return;
        }
        let (connection, consumer) = browser.key;
        self.account(connection, &record, Handed::Browsed, redelivered);
        let delivery = Delivery { consumer, queue: id, lsn, redelivered, returns, record };
        effects.push((connection, Effect::Deliver(delivery)));
    }
}
