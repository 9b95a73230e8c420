//! Dead-lettering: a message that a rule takes out of its queue goes on to the queue's dead-letter
//! exchange, in one record. Headers and cycle rule as RabbitMQ 3.10 (documentation, "Dead Letter
//! Exchanges"; byte for byte, because clients compare them).

use crate::broker::Broker;
use crate::decide::Decided;
use crate::dispatch::{Contents, ReadAhead};
use crate::rules::QueueRules;
use crate::sender_selected::{BCC, CC};
use bytes::Bytes;
use understudy_model::{
    Body, DeadLetterView, Lsn, MessageView, PropertiesView, Publish, QueueId, Table, Text, Value,
    message_of,
};

/// A turn ends after so many, so that other work is not kept waiting.
const LETTERS_PER_TURN_MAX: usize = 1_024;
const LETTER_BYTES_PER_TURN_MAX: usize = 4 << 20;
const READ_AHEAD_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    pub(crate) const ALL: [Self; 4] =
        [Self::Rejected, Self::Expired, Self::MaxLength, Self::DeliveryLimit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message on its way to a dead-letter exchange.
pub(crate) struct Letter {
    exchange: Text,
    keys: Vec<Text>,
    properties: Bytes,
    deaths: Vec<Value>,
    reason: Reason,
}

impl Broker {
    /// A message that was taken from the queue is finished by a rule. It goes on to the dead-letter
    /// exchange at the end of the turn, or is gone if there is none.
    pub(crate) fn die(&mut self, id: QueueId, lsn: Lsn, reason: Reason) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.rules.dead_letter_exchange.is_some() {
            queue.memory.dying.push_back((lsn, reason));
            self.dying.insert(id);
        } else {
            queue.settle_later(lsn);
            self.settles_due.insert(id);
        }
    }

    /// Moves what is dying on to where it belongs. Returns true if there is more to do.
    pub fn bury(
        &mut self,
        contents: &mut impl Contents,
        decided: &mut Decided<'_>,
        reads: &mut Vec<ReadAhead>,
    ) -> bool {
        if self.dying.is_empty() {
            return false;
        }
        let bytes_end = decided.open.bytes_len() + LETTER_BYTES_PER_TURN_MAX;
        let mut budget = LETTERS_PER_TURN_MAX;
        for id in std::mem::take(&mut self.dying) {
            while budget > 0 && decided.open.bytes_len() < bytes_end {
                let Some(queue) = self.queues.get_mut(&id) else { break };
                let Some(&(lsn, reason)) = queue.memory.dying.front() else { break };
                if queue.memory.reading {
                    break;
                }
                let Some(record) = contents.record(lsn) else {
                    queue.memory.reading = true;
                    let dying = queue.memory.dying.iter().take(READ_AHEAD_MAX);
                    reads.push(ReadAhead { queue: id, lsns: dying.map(|(lsn, _)| *lsn).collect() });
                    break;
                };
                queue.memory.dying.pop_front();
                budget -= 1;
                self.bury_one(id, lsn, reason, &record, decided);
            }
            if self.queues.get(&id).is_some_and(|queue| !queue.memory.dying.is_empty()) {
                self.dying.insert(id);
            }
        }
        let can_go_on = |id: &QueueId| self.queues.get(id).is_some_and(|q| !q.memory.reading);
        self.dying.iter().any(can_go_on)
    }

    fn bury_one(
        &mut self,
        id: QueueId,
        lsn: Lsn,
        reason: Reason,
        record: &Bytes,
        decided: &mut Decided<'_>,
    ) {
        let found = message_of(record).ok().and_then(|message| {
            let body = Body::from(record.slice_ref(message.body));
            self.dead_letter(id, &message, body, reason)
        });
        match found {
            Some((targets, publish)) => {
                decided.open.push(|out| DeadLetterView::encode(id, lsn, &targets, &publish, out));
                self.mark_with_group(&targets);
                self.traffic.dead_letter(reason);
            }
            None => {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.settle_later(lsn);
                    self.settles_due.insert(id);
                }
            }
        }
    }

    /// Where the message goes from this queue, and as what. None: nowhere.
    pub(crate) fn dead_letter(
        &self,
        id: QueueId,
        message: &MessageView<'_>,
        body: Body,
        reason: Reason,
    ) -> Option<(Vec<QueueId>, Publish)> {
        let queue = self.queues.get(&id)?;
        let (vhost, name) = (&queue.spec.vhost, &queue.spec.name);
        let letter = Letter::new(message, name, &queue.rules, reason, self.now_ms / 1_000)?;
        let exchange = self.topology.exchange(vhost, &letter.exchange)?;
        let keys: Vec<&str> = letter.keys.iter().map(|key| &key[..]).collect();
        let mut targets = self.topology.route(vhost, exchange, &keys, &letter.properties).queues;
        targets.retain(|target| {
            self.queues.get(target).is_some_and(|queue| !letter.goes_in_circles(&queue.spec.name))
        });
        let publish = Publish {
            exchange: letter.exchange,
            routing_key: letter.keys.into_iter().next().unwrap_or_default(),
            properties: letter.properties,
            body,
            ..Publish::default()
        };
        (!targets.is_empty()).then_some((targets, publish))
    }
}

impl Letter {
    fn new(
        message: &MessageView<'_>,
        queue: &Text,
        rules: &QueueRules,
        reason: Reason,
        now_s: u64,
    ) -> Option<Self> {
        let exchange = rules.dead_letter_exchange.clone()?;
        let mut view = PropertiesView::decode(message.properties).unwrap_or_default();
        let headers = view.headers.and_then(|inside| Table::decode(inside).ok());
        let mut headers = headers.unwrap_or_default();
        let mut keys = vec![Text::from(message.routing_key)];
        if let Some(Value::Array(further)) = headers.get(CC) {
            keys.extend(further.iter().filter_map(Value::as_str).map(Text::from));
        }
        let death = death(message, queue, reason, now_s, &keys, view.expiration.take());
        let deaths = add_death(&mut headers, death, queue, reason);
        if let Some(key) = &rules.dead_letter_key {
            headers.0.retain(|(name, _)| name != CC && name != BCC);
            keys = vec![key.clone()];
        }
        headers.0.sort_by(|(one, _), (other, _)| one.cmp(other));
        Some(Self { exchange, keys, properties: view.with_headers(&headers), deaths, reason })
    }

    /// It was in that queue before, and nothing but rules has moved it since: no client rejected
    /// it on the way. Such a letter would go round for ever.
    fn goes_in_circles(&self, queue: &str) -> bool {
        if self.reason == Reason::Rejected {
            return false;
        }
        let field = |death: &Value, name: &str, is: &str| match death {
            Value::Table(death) => death.get(name).and_then(Value::as_str) == Some(is),
            _ => false,
        };
        let Some(last) = self.deaths.iter().position(|death| field(death, "queue", queue)) else {
            return false;
        };
        let mut circle = self.deaths[..=last].iter();
        circle.all(|death| !field(death, "reason", Reason::Rejected.name()))
    }
}

fn death(
    message: &MessageView<'_>,
    queue: &Text,
    reason: Reason,
    now_s: u64,
    keys: &[Text],
    expiration: Option<&[u8]>,
) -> Table {
    let mut death = Table::default();
    death.push("count", Value::I64(1));
    death.push("reason", Value::text(reason.name()));
    death.push("queue", Value::text(queue));
    death.push("time", Value::Timestamp(now_s));
    death.push("exchange", Value::text(message.exchange));
    let keys = keys.iter().map(|key| Value::text(key)).collect();
    death.push("routing-keys", Value::Array(keys));
    if let Some(expiration) = expiration {
        death.push("original-expiration", Value::String(Bytes::copy_from_slice(expiration)));
    }
    death
}

/// The newest death stands first; a further one in the same queue for the same reason is counted
/// in the entry that is there. Returns all of them.
fn add_death(headers: &mut Table, death: Table, queue: &Text, reason: Reason) -> Vec<Value> {
    let before = match headers.get("x-death") {
        Some(Value::Array(deaths)) => Some(deaths.clone()),
        _ => None,
    };
    let deaths = match before {
        None => {
            set(headers, "x-first-death-reason", Value::text(reason.name()));
            set(headers, "x-first-death-queue", Value::text(queue));
            let exchange = death.get("exchange").cloned().unwrap_or(Value::Void);
            set(headers, "x-first-death-exchange", exchange);
            vec![Value::Table(death)]
        }
        Some(mut deaths) => {
            let is_same = |known: &Value| match known {
                Value::Table(known) => {
                    let text = |name: &str| known.get(name).and_then(Value::as_str);
                    text("queue") == Some(queue) && text("reason") == Some(reason.name())
                }
                _ => false,
            };
            let mut newest = death;
            if let Some(at) = deaths.iter().position(is_same)
                && let Value::Table(known) = deaths.remove(at)
            {
                newest = known;
                let count = newest.get("count").and_then(Value::as_i64).unwrap_or_default();
                set(&mut newest, "count", Value::I64(count.saturating_add(1)));
            }
            newest.0.sort_by(|(one, _), (other, _)| one.cmp(other));
            deaths.insert(0, Value::Table(newest));
            deaths
        }
    };
    set(headers, "x-death", Value::Array(deaths.clone()));
    deaths
}

fn set(table: &mut Table, name: &str, value: Value) {
    match table.0.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => table.push(name, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::Properties;

    fn letter(properties: &Bytes, queue: &str, reason: Reason, key: Option<&str>) -> Letter {
        let rules = QueueRules {
            dead_letter_exchange: Some(Text::from_static("dlx")),
            dead_letter_key: key.map(Text::from),
            ..QueueRules::default()
        };
        let message = MessageView { exchange: "ex", routing_key: "key", properties, body: b"" };
        Letter::new(&message, &Text::from(queue), &rules, reason, 1_700_000_000).unwrap()
    }

    fn headers(letter: &Letter) -> Table {
        Properties::decode(&letter.properties).unwrap().headers.unwrap()
    }

    fn names(table: &Table) -> Vec<&str> {
        table.0.iter().map(|(name, _)| &name[..]).collect()
    }

    #[test]
    fn the_first_death_says_where_why_and_when() {
        let expiration = Some(Text::from_static("100"));
        let raw = Properties { expiration, ..Properties::default() }.to_bytes();
        let letter = letter(&raw, "q", Reason::Expired, None);
        assert_eq!(Properties::decode(&letter.properties).unwrap().expiration, None);
        let headers = headers(&letter);
        let first = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
        assert_eq!(names(&headers), [&["x-death"][..], &first[..]].concat());
        let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("no x-death") };
        let [Value::Table(death)] = &deaths[..] else { panic!("not one death") };
        let mut expected = Table::default();
        expected.push("count", Value::I64(1));
        expected.push("reason", Value::text("expired"));
        expected.push("queue", Value::text("q"));
        expected.push("time", Value::Timestamp(1_700_000_000));
        expected.push("exchange", Value::text("ex"));
        expected.push("routing-keys", Value::Array(vec![Value::text("key")]));
        expected.push("original-expiration", Value::text("100"));
        assert_eq!(*death, expected);
    }

    #[test]
    fn deaths_are_counted_by_queue_and_reason_newest_first() {
        let mut raw = Properties::default().to_bytes();
        for (queue, reason) in [
            ("a", Reason::Rejected),
            ("b", Reason::Expired),
            ("a", Reason::Rejected),
            ("a", Reason::MaxLength),
        ] {
            raw = letter(&raw, queue, reason, None).properties;
        }
        let headers = Properties::decode(&raw).unwrap().headers.unwrap();
        let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("no x-death") };
        let said = deaths.iter().map(|death| {
            let Value::Table(death) = death else { panic!("not a table") };
            let text = |name: &str| death.get(name).and_then(Value::as_str).unwrap().to_owned();
            (text("queue"), text("reason"), death.get("count").and_then(Value::as_i64).unwrap())
        });
        let said: Vec<_> = said.collect();
        let expected = [("a", "maxlen", 1), ("a", "rejected", 2), ("b", "expired", 1)];
        assert_eq!(said, expected.map(|(q, r, n)| (q.to_owned(), r.to_owned(), n)));
        assert_eq!(headers.get("x-first-death-queue"), Some(&Value::text("a")));
        assert_eq!(headers.get("x-first-death-reason"), Some(&Value::text("rejected")));
    }

    #[test]
    fn a_key_of_the_queue_takes_the_place_of_all_others() {
        let mut table = Table::default();
        table.push("CC", Value::Array(vec![Value::text("two")]));
        let raw = Properties { headers: Some(table), ..Properties::default() }.to_bytes();
        let kept = letter(&raw, "q", Reason::Rejected, None);
        assert_eq!(kept.keys, ["key", "two"]);
        assert!(headers(&kept).get("CC").is_some());
        let replaced = letter(&raw, "q", Reason::Rejected, Some("dead"));
        assert_eq!(replaced.keys, ["dead"]);
        assert!(headers(&replaced).get("CC").is_none());
    }

    #[test]
    fn only_rules_make_a_circle() {
        let raw = Properties::default().to_bytes();
        let expired = letter(&raw, "q", Reason::Expired, None);
        assert!(expired.goes_in_circles("q") && !expired.goes_in_circles("other"));
        assert!(!letter(&raw, "q", Reason::Rejected, None).goes_in_circles("q"));
        let rejected_between = letter(
            &letter(&expired.properties, "r", Reason::Rejected, None).properties,
            "s",
            Reason::Expired,
            None,
        );
        assert!(!rejected_between.goes_in_circles("q"));
        assert!(rejected_between.goes_in_circles("s"));
    }
}
