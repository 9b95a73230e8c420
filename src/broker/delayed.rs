//! Messages of `x-delayed-message` exchanges, kept until they are due. They are routed then, not
//! when they were published (as RabbitMQ's plugin of that name).

use crate::broker::Broker;
use crate::decide::Decided;
use crate::dispatch::{Contents, ReadAhead};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use understudy_model::{
    Body, Command, DeadLetterView, Lsn, Malformed, PropertiesView, Publish, QueueId, Reader,
    SettleRanges, Table, Text, Value, Writer, message_of,
};

/// Stands for the delayed messages where a command names the queue that a message leaves.
pub(crate) const DELAYED: QueueId = QueueId(Lsn::ZERO);

const RELEASED_PER_TURN_MAX: usize = 1_024;
const RELEASED_BYTES_PER_TURN_MAX: usize = 4 << 20;
const DELAY_MS_MAX: i64 = (1 << 32) - 1;

#[derive(Default)]
pub(crate) struct Delayed {
    /// Committed: when each is due, milliseconds since 1970, and the vhost it is in.
    messages: BTreeMap<Lsn, (u64, Text)>,
    pub(crate) dirty: bool,
    // The master's memory.
    due: BTreeSet<(u64, Lsn)>,
    reading: bool,
}

impl Delayed {
    /// False if it was there before: a replay over saved state.
    pub(crate) fn apply(&mut self, lsn: Lsn, due_ms: u64, vhost: Text) -> bool {
        self.dirty = true;
        self.due.insert((due_ms, lsn));
        self.messages.insert(lsn, (due_ms, vhost)).is_none()
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, lsn: Lsn) -> bool {
        let Some((due_ms, _)) = self.messages.remove(&lsn) else { return false };
        self.due.remove(&(due_ms, lsn));
        self.dirty = true;
        true
    }

    pub(crate) fn begin_epoch(&mut self) {
        self.due = self.messages.iter().map(|(lsn, (due_ms, _))| (*due_ms, *lsn)).collect();
        self.reading = false;
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.first().filter(|_| !self.reading).map(|(due_ms, _)| *due_ms)
    }

    pub(crate) fn contains(&self, lsn: Lsn) -> bool {
        self.messages.contains_key(&lsn)
    }

    pub(crate) fn range(&self, first: Lsn, last: Lsn) -> impl Iterator<Item = Lsn> {
        self.messages.range(first..=last).map(|(lsn, _)| *lsn)
    }

    pub(crate) fn of_vhost(&self, name: &str) -> Vec<Lsn> {
        let inside = self.messages.iter().filter(|(_, (_, vhost))| *vhost == name);
        inside.map(|(lsn, _)| *lsn).collect()
    }

    pub(crate) fn read_done(&mut self) {
        self.reading = false;
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.varint(self.messages.len() as u64);
        for (lsn, (due_ms, vhost)) in &self.messages {
            w.varint(lsn.0);
            w.varint(*due_ms);
            w.text(vhost);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut delayed = Self::default();
        for _ in 0..r.varint()? {
            let (lsn, due_ms) = (Lsn(r.varint()?), r.varint()?);
            delayed.messages.insert(lsn, (due_ms, r.text()?));
        }
        Ok(delayed)
    }
}

/// The `x-delay` header, milliseconds. None: not to be delayed.
pub(crate) fn delay_ms(properties: &[u8]) -> Option<u64> {
    if !PropertiesView::has_headers(properties) {
        return None;
    }
    let view = PropertiesView::decode(properties).ok()?;
    let delay = Table::decode(view.headers?).ok()?.get("x-delay").and_then(Value::as_i64)?;
    u64::try_from(delay.min(DELAY_MS_MAX)).ok().filter(|delay| *delay > 0)
}

/// Consumers see the delay with its sign turned.
fn released(properties: &[u8]) -> Bytes {
    let decoded = PropertiesView::decode(properties).ok().and_then(|view| {
        let mut headers = Table::decode(view.headers?).ok()?;
        let (_, delay) = headers.0.iter_mut().find(|(name, _)| name == "x-delay")?;
        *delay = Value::I64(-delay.as_i64()?);
        Some(view.with_headers(&headers))
    });
    decoded.unwrap_or_else(|| Bytes::copy_from_slice(properties))
}

impl Broker {
    /// Routes what is due. Returns true if there is more to do now.
    pub fn release_delayed(
        &mut self,
        contents: &mut impl Contents,
        decided: &mut Decided<'_>,
        reads: &mut Vec<ReadAhead>,
    ) -> bool {
        let bytes_end = decided.open.bytes_len() + RELEASED_BYTES_PER_TURN_MAX;
        for _ in 0..RELEASED_PER_TURN_MAX {
            let Some(&(due_ms, lsn)) = self.delayed.due.first() else { return false };
            if self.delayed.reading || due_ms > self.now_ms {
                return false;
            }
            if decided.open.bytes_len() >= bytes_end {
                return true;
            }
            let Some(record) = contents.record(lsn) else {
                let due = self.delayed.due.iter().take_while(|(due_ms, _)| *due_ms <= self.now_ms);
                let lsns = due.take(RELEASED_PER_TURN_MAX).map(|(_, lsn)| *lsn).collect();
                self.delayed.reading = true;
                reads.push(ReadAhead { queue: DELAYED, lsns });
                return false;
            };
            self.delayed.due.pop_first();
            self.release_one(lsn, &record, decided);
        }
        true
    }

    fn release_one(&mut self, lsn: Lsn, record: &Bytes, decided: &mut Decided<'_>) {
        let message = message_of(record).ok();
        let vhost = self.delayed.messages.get(&lsn).map(|(_, vhost)| vhost);
        let found = message.zip(vhost).and_then(|(message, vhost)| {
            let exchange = self.topology.exchange(vhost, message.exchange)?;
            let keys = [message.routing_key];
            let queues = self.topology.route(vhost, exchange, &keys, message.properties).queues;
            (!queues.is_empty()).then_some((message, queues))
        });
        let Some((message, queues)) = found else {
            let ranges = SettleRanges(vec![(lsn, lsn)]);
            decided.push(&Command::Settle { queue: DELAYED, ranges });
            return;
        };
        let publish = Publish {
            exchange: Text::from(message.exchange),
            routing_key: Text::from(message.routing_key),
            properties: released(message.properties),
            body: Body::from(record.slice_ref(message.body)),
            ..Publish::default()
        };
        decided.open.push(|out| DeadLetterView::encode(DELAYED, lsn, &queues, &publish, out));
        self.mark_with_group(&queues);
    }
}
