//! What the rules of a queue must know of its messages: deadlines, sizes, priorities, returns.
//! Committed state, saved with the queue. A queue without such rules has none of it.

use std::collections::{BTreeMap, VecDeque};
use understudy_model::{Lsn, Malformed, MessageView, PropertiesView, Reader, Writer};

use crate::rules::QueueRules;

/// Handed out at once or not at all: a time to live of 0.
pub(crate) const AT_ONCE_MS: u64 = 0;
const NEVER_MS: u64 = u64::MAX;

#[derive(Default)]
pub(crate) struct Facts {
    /// From this message on, up to the next entry's, the queue's own time to live ends at this
    /// time, milliseconds since 1970. Few, because messages of about one time share an entry.
    ttl: VecDeque<(Lsn, u64)>,
    /// Deadlines of messages with an `expiration`, milliseconds since 1970.
    expirations: BTreeMap<Lsn, u64>,
    /// Bytes of bodies, kept only while they are limited.
    sizes: BTreeMap<Lsn, u64>,
    size_total: u64,
    /// Priorities other than 0.
    priorities: BTreeMap<Lsn, u8>,
    /// How often a message was returned, if it was.
    returns: BTreeMap<Lsn, u32>,
}

impl Facts {
    /// Whether the message has to be noted at all: no more than a look at two flags.
    pub(crate) fn wanted(rules: &QueueRules, message: &MessageView<'_>) -> bool {
        rules.notes_messages || PropertiesView::has_expiration(message.properties)
    }

    pub(crate) fn note(
        &mut self,
        lsn: Lsn,
        time_ms: u64,
        rules: &QueueRules,
        message: &MessageView<'_>,
    ) {
        self.note_ttl(lsn, time_ms, rules.message_ttl_ms);
        if rules.length_bytes_max.is_some() {
            self.sizes.insert(lsn, message.body.len() as u64);
            self.size_total += message.body.len() as u64;
        }
        let Ok(view) = PropertiesView::decode(message.properties) else { return };
        let expiration = view.expiration.and_then(|given| std::str::from_utf8(given).ok());
        if let Some(after_ms) = expiration.and_then(|given| given.parse::<u64>().ok()) {
            self.expirations.insert(lsn, deadline_ms(time_ms, after_ms));
        }
        if let (Some(max), Some(priority)) = (rules.priority_max, view.priority)
            && priority > 0
        {
            self.priorities.insert(lsn, priority.min(max));
        }
    }

    fn note_ttl(&mut self, lsn: Lsn, time_ms: u64, ttl_ms: Option<u64>) {
        let last = self.ttl.back().map_or(NEVER_MS, |(_, at)| *at);
        let Some(ttl_ms) = ttl_ms else {
            if last != NEVER_MS {
                self.ttl.push_back((lsn, NEVER_MS));
            }
            return;
        };
        let at = deadline_ms(time_ms, ttl_ms);
        // Late by a small part of the time at most, never early.
        let step_ms = ttl_ms / 256;
        let shared = last != NEVER_MS && at <= last && last <= at.saturating_add(step_ms);
        if !shared {
            self.ttl.push_back((lsn, at.saturating_add(step_ms)));
        }
    }

    /// When the message is to leave the queue, if ever.
    pub(crate) fn deadline_ms(&self, lsn: Lsn) -> Option<u64> {
        let entry = self.ttl.partition_point(|(first, _)| *first <= lsn).checked_sub(1);
        let of_queue = entry.and_then(|at| self.ttl.get(at)).map_or(NEVER_MS, |(_, at)| *at);
        let own = self.expirations.get(&lsn).copied().unwrap_or(NEVER_MS);
        Some(of_queue.min(own)).filter(|at| *at != NEVER_MS)
    }

    pub(crate) fn size(&self, lsn: Lsn) -> u64 {
        self.sizes.get(&lsn).copied().unwrap_or_default()
    }

    pub(crate) fn size_total(&self) -> u64 {
        self.size_total
    }

    pub(crate) fn priority(&self, lsn: Lsn) -> u8 {
        self.priorities.get(&lsn).copied().unwrap_or_default()
    }

    pub(crate) fn returns(&self, lsn: Lsn) -> u32 {
        self.returns.get(&lsn).copied().unwrap_or_default()
    }

    pub(crate) fn set_returns(&mut self, lsn: Lsn, count: u32) {
        let entry = self.returns.entry(lsn).or_default();
        *entry = count.max(*entry);
    }

    /// The messages of the range are gone; `first` is the first that is left.
    pub(crate) fn settled(&mut self, from: Lsn, to: Lsn, first: Option<Lsn>) {
        remove_range(&mut self.expirations, from, to, |_| {});
        remove_range(&mut self.priorities, from, to, |_| {});
        remove_range(&mut self.returns, from, to, |_| {});
        let total = &mut self.size_total;
        remove_range(&mut self.sizes, from, to, |size| *total = total.saturating_sub(size));
        let first = first.unwrap_or(Lsn(u64::MAX));
        while self.ttl.get(1).is_some_and(|(next, _)| *next <= first) {
            self.ttl.pop_front();
        }
    }

    /// Of what is kept for single messages.
    pub(crate) fn count(&self) -> usize {
        let maps = [self.expirations.len(), self.sizes.len(), self.priorities.len()];
        self.ttl.len() + maps.iter().sum::<usize>() + self.returns.len()
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.varint(self.ttl.len() as u64);
        self.ttl.iter().for_each(|(lsn, at)| put(w, *lsn, *at));
        put_map(w, &self.expirations, |at| at);
        put_map(w, &self.sizes, |size| size);
        put_map(w, &self.priorities, u64::from);
        put_map(w, &self.returns, u64::from);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut facts = Self::default();
        for _ in 0..r.varint()? {
            facts.ttl.push_back((Lsn(r.varint()?), r.varint()?));
        }
        facts.expirations = get_map(r, Some)?;
        facts.sizes = get_map(r, Some)?;
        facts.priorities = get_map(r, |priority| u8::try_from(priority).ok())?;
        facts.returns = get_map(r, |count| u32::try_from(count).ok())?;
        facts.size_total = facts.sizes.values().sum();
        Ok(facts)
    }
}

fn deadline_ms(time_ms: u64, after_ms: u64) -> u64 {
    if after_ms == 0 { AT_ONCE_MS } else { time_ms.saturating_add(after_ms) }
}

fn remove_range<V>(map: &mut BTreeMap<Lsn, V>, from: Lsn, to: Lsn, mut gone: impl FnMut(V)) {
    while let Some((&lsn, _)) = map.range(from..=to).next() {
        map.remove(&lsn).into_iter().for_each(&mut gone);
    }
}

fn put(w: &mut Writer<'_>, lsn: Lsn, value: u64) {
    w.varint(lsn.0);
    w.varint(value);
}

fn put_map<V: Copy>(w: &mut Writer<'_>, map: &BTreeMap<Lsn, V>, number: impl Fn(V) -> u64) {
    w.varint(map.len() as u64);
    map.iter().for_each(|(lsn, value)| put(w, *lsn, number(*value)));
}

fn get_map<V>(
    r: &mut Reader<'_>,
    value: impl Fn(u64) -> Option<V>,
) -> Result<BTreeMap<Lsn, V>, Malformed> {
    let count = r.varint()?;
    let entry = |r: &mut Reader<'_>| {
        let lsn = Lsn(r.varint()?);
        Ok((lsn, value(r.varint()?).ok_or(Malformed("queue: a number is too big"))?))
    };
    (0..count).map(|_| entry(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use understudy_model::{Properties, Text};

    fn message<'a>(properties: &'a [u8], body: &'a [u8]) -> MessageView<'a> {
        MessageView { exchange: "", routing_key: "q", properties, body }
    }

    fn properties(expiration: Option<&str>, priority: Option<u8>) -> bytes::Bytes {
        let expiration = expiration.map(Text::from);
        Properties { expiration, priority, ..Properties::default() }.to_bytes()
    }

    #[test]
    fn messages_of_about_one_time_share_a_deadline_that_is_never_early() {
        let rules = QueueRules { message_ttl_ms: Some(2_560), ..QueueRules::default() };
        let mut facts = Facts::default();
        let plain = properties(None, None);
        for (lsn, time_ms) in [(1, 1_000), (2, 1_004), (5, 1_010), (9, 1_011), (12, 2_000)] {
            facts.note(Lsn(lsn), time_ms, &rules, &message(&plain, b""));
        }
        let deadlines = [1, 2, 5, 9, 12].map(|lsn| facts.deadline_ms(Lsn(lsn)).unwrap());
        assert_eq!(deadlines, [3_570, 3_570, 3_570, 3_581, 4_570]);
        facts.note(Lsn(20), 3_000, &QueueRules::default(), &message(&plain, b""));
        assert_eq!(facts.deadline_ms(Lsn(20)), None);
        facts.settled(Lsn(1), Lsn(9), Some(Lsn(12)));
        assert_eq!((facts.ttl.len(), facts.deadline_ms(Lsn(12))), (2, Some(4_570)));
    }

    #[test]
    fn facts_are_saved_and_go_with_their_messages() {
        let rules = QueueRules {
            length_bytes_max: Some(100),
            priority_max: Some(5),
            ..QueueRules::default()
        };
        let mut facts = Facts::default();
        let urgent = properties(Some("50"), Some(9));
        facts.note(Lsn(3), 1_000, &rules, &message(&urgent, b"12345"));
        facts.note(Lsn(4), 1_000, &rules, &message(&properties(Some("0"), None), b"1"));
        facts.set_returns(Lsn(4), 2);
        facts.set_returns(Lsn(4), 1);
        let mut out = BytesMut::new();
        facts.encode(&mut Writer(&mut out));
        let mut facts = Facts::decode(&mut Reader(&out)).unwrap();
        assert_eq!(facts.deadline_ms(Lsn(3)), Some(1_050));
        assert_eq!(facts.deadline_ms(Lsn(4)), Some(AT_ONCE_MS));
        assert_eq!((facts.priority(Lsn(3)), facts.priority(Lsn(4))), (5, 0));
        assert_eq!((facts.returns(Lsn(3)), facts.returns(Lsn(4))), (0, 2));
        assert_eq!(facts.size_total(), 6);
        facts.settled(Lsn(1), Lsn(3), Some(Lsn(4)));
        assert_eq!((facts.size_total(), facts.deadline_ms(Lsn(3))), (1, None));
        facts.settled(Lsn(4), Lsn(4), None);
        assert_eq!((facts.size_total(), facts.returns(Lsn(4))), (0, 0));
    }
}
