//! A queue: the committed set of its unsettled messages, and the master's memory of who holds
//! which. What the master remembers dies with it; then every message is ready again.

mod consumers;
mod ready;

use crate::dead_letter::Reason;
use crate::facts::Facts;
use crate::lsn_set::LsnSet;
use crate::rules::QueueRules;
use crate::selection::{Browser, Filters};
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use understudy_model::{
    AckMode, ConnectionId, ConsumerNumber, Lsn, Malformed, MessageView, QueueId, QueueSpec, Reader,
    SettleRanges, Text, Token, Writer,
};

/// A consumer, or a connection's gets under one number.
pub(crate) type ConsumerKey = (ConnectionId, ConsumerNumber);

/// Where a message stands in the order in which they are handed out. The priority is 0 in a queue
/// without priorities.
pub(crate) type Place = (Reverse<u8>, Lsn);
pub(crate) const FIRST_PLACE: Place = (Reverse(u8::MAX), Lsn::ZERO);

pub(crate) struct Queue {
    pub(crate) spec: QueueSpec,
    /// Follow from the arguments and the policy.
    pub(crate) rules: QueueRules,
    /// Exchanges with a binding to this queue, so that its end need not search all of them.
    pub(crate) bound_to: Vec<Text>,
    unsettled: LsnSet,
    /// Messages up to here may have been handed out before; logged by `Delivered`.
    mark: Lsn,
    pub(crate) facts: Option<Box<Facts>>,
    pub(crate) memory: Memory,
}

/// What only the master knows.
#[derive(Default)]
pub(crate) struct Memory {
    /// The mark when this epoch began: up to it, a first delivery is flagged redelivered.
    epoch_mark: Lsn,
    /// The last mark that was put into the log, perhaps not committed yet.
    logged_mark: Lsn,
    /// A mark is due with the next group.
    pub(crate) mark_due: bool,
    /// Everything up to here was handed out at least once in this epoch, unless in `returned`.
    cursor: Lsn,
    /// Given back: to be handed out again before anything behind the cursor.
    returned: BTreeSet<Lsn>,
    /// Handed out before by the other side of a partition: flagged redelivered.
    flagged: LsnSet,
    /// Unsettled, behind the cursor, and yet not fresh: a consumer that selects has taken them, or
    /// the other side of a partition has finished them.
    passed: LsnSet,
    /// Unsettled messages that are not ready: outstanding, or settled but not committed.
    taken: u64,
    /// Bodies of `taken`, if the queue's bytes are limited.
    taken_bytes: u64,
    /// A priority queue's ready messages in the order in which they are handed out.
    by_priority: Option<BTreeSet<Place>>,
    /// Taken out by a rule, to be dead-lettered.
    pub(crate) dying: VecDeque<(Lsn, Reason)>,
    /// Returned, and ready again when the log has the count.
    pub(crate) returning: BTreeSet<Lsn>,
    /// Publishes to a queue that may refuse them, decided and not committed: LSN, bytes.
    pub(crate) arriving: VecDeque<(Lsn, u64)>,
    /// When the broker looks at this queue again, milliseconds since 1970.
    pub(crate) timer_ms: Option<u64>,
    pub(crate) last_use_ms: Option<u64>,
    /// Settled here, not yet in the log.
    settling: Vec<(Lsn, Lsn)>,
    /// Descending priority; within one priority in order of arrival.
    pub(crate) consumers: Vec<(i32, ConsumerKey)>,
    pub(crate) getters: VecDeque<Getter>,
    /// Counts deliveries, for taking turns among consumers.
    pub(crate) turn: usize,
    /// The connection that an exclusive queue belongs to.
    pub(crate) owner: Option<ConnectionId>,
    pub(crate) exclusive_consumer: Option<ConsumerKey>,
    /// The one that is served, where only one may be.
    pub(crate) active_consumer: Option<ConsumerKey>,
    /// Of the consumers that select.
    pub(crate) filters: Filters,
    pub(crate) browsers: Vec<Browser>,
    /// Its head's content is being read from the log.
    pub(crate) reading: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Getter {
    pub(crate) key: ConsumerKey,
    pub(crate) token: Token,
    pub(crate) ack: AckMode,
}

impl Queue {
    pub(crate) fn new(spec: QueueSpec) -> Self {
        Self {
            spec,
            rules: QueueRules::default(),
            facts: None,
            bound_to: Vec::new(),
            unsettled: LsnSet::default(),
            mark: Lsn::ZERO,
            memory: Memory::default(),
        }
    }

    pub(crate) fn unsettled(&self) -> &LsnSet {
        &self.unsettled
    }

    /// False if it was there before: a replay over saved state.
    pub(crate) fn apply_enqueue(
        &mut self,
        lsn: Lsn,
        time_ms: u64,
        message: &MessageView<'_>,
    ) -> bool {
        while self.memory.arriving.front().is_some_and(|(arriving, _)| *arriving <= lsn) {
            self.memory.arriving.pop_front();
        }
        if !self.unsettled.push(lsn) {
            return false;
        }
        if Facts::wanted(&self.rules, message) || self.facts.is_some() {
            self.facts.get_or_insert_default().note(lsn, time_ms, &self.rules, message);
        }
        let priority = self.priority(lsn);
        if let Some(ready) = &mut self.memory.by_priority {
            ready.insert((Reverse(priority), lsn));
        }
        true
    }

    /// A first delivery of this message will be flagged redelivered.
    pub(crate) fn flag(&mut self, lsn: Lsn) {
        self.memory.flagged.push(lsn);
    }

    /// Settles those messages up to `through` that are not in `kept`. Returns how many.
    pub(crate) fn retire_all_but(&mut self, kept: &LsnSet, through: Lsn) -> u64 {
        let all = self.unsettled.range(Lsn(1), through);
        let gone: Vec<Lsn> = all.filter(|lsn| !kept.contains(*lsn)).collect();
        for &lsn in &gone {
            if self.is_ready(lsn) {
                self.memory.taken += 1;
                self.leave_ready(lsn, false);
            }
            self.settle_later(lsn);
        }
        gone.len() as u64
    }

    /// Up to here the other side of a partition may have handed messages out.
    pub(crate) fn mark_of_other_side(&mut self, other: &Self, common: Lsn) -> Option<Lsn> {
        let through = other.mark.min(common);
        self.memory.epoch_mark = self.memory.epoch_mark.max(through);
        (through > self.mark).then_some(through)
    }

    /// Returns how many messages went.
    pub(crate) fn apply_settle(&mut self, from: Lsn, to: Lsn) -> u64 {
        if !self.memory.returned.is_empty() {
            // Given back by a consumer after something else had settled it.
            let back: Vec<Lsn> = self.memory.returned.range(from..=to).copied().collect();
            back.into_iter().for_each(|lsn| _ = self.take(lsn));
        }
        if self.memory.by_priority.is_some() {
            let gone: Vec<Lsn> = self.unsettled.range(from, to).collect();
            gone.into_iter().for_each(|lsn| self.remove_by_priority(lsn));
        }
        let removed = self.unsettled.remove_range(from, to);
        self.memory.passed.remove_range(from, to);
        self.memory.taken = self.memory.taken.saturating_sub(removed);
        if let Some(facts) = &mut self.facts {
            let before = facts.size_total();
            facts.settled(from, to, self.unsettled.first());
            let freed = before - facts.size_total();
            self.memory.taken_bytes = self.memory.taken_bytes.saturating_sub(freed);
        }
        removed
    }

    fn priority(&self, lsn: Lsn) -> u8 {
        self.facts.as_ref().map_or(0, |facts| facts.priority(lsn))
    }

    fn size(&self, lsn: Lsn) -> u64 {
        self.facts.as_ref().map_or(0, |facts| facts.size(lsn))
    }

    pub(crate) fn has_facts(&self) -> bool {
        self.facts.is_some()
    }

    /// When the message expires, milliseconds since 1970.
    pub(crate) fn deadline_ms(&self, lsn: Lsn) -> Option<u64> {
        self.facts.as_ref().and_then(|facts| facts.deadline_ms(lsn))
    }

    /// How often the message was returned, where that is counted.
    pub(crate) fn returns(&self, lsn: Lsn) -> u32 {
        self.facts.as_ref().map_or(0, |facts| facts.returns(lsn))
    }

    pub(crate) fn apply_returned(&mut self, lsn: Lsn, count: u32) {
        if self.unsettled.contains(lsn) {
            self.facts.get_or_insert_default().set_returns(lsn, count);
        }
    }

    /// When the queue goes if nobody uses it until then, milliseconds since 1970.
    pub(crate) fn unused_until_ms(&self) -> Option<u64> {
        let expires_ms = self.rules.expires_ms.filter(|_| self.memory.consumers.is_empty())?;
        Some(self.memory.last_use_ms?.saturating_add(expires_ms))
    }

    pub(crate) fn apply_delivered(&mut self, through: Lsn) {
        self.mark = self.mark.max(through);
    }

    /// A new mastership: nobody holds anything.
    pub(crate) fn begin_epoch(&mut self) {
        self.memory = Memory {
            epoch_mark: self.mark,
            logged_mark: self.mark,
            owner: None,
            by_priority: self.all_by_priority(),
            ..Memory::default()
        };
    }

    /// A taken message is finished; the log hears of it with the next [`Self::flush_settles`].
    pub(crate) fn settle_later(&mut self, lsn: Lsn) {
        if let Some((_, to)) = self.memory.settling.last_mut()
            && self.unsettled.next_after(*to) == Some(lsn)
        {
            *to = lsn;
        } else {
            self.memory.settling.push((lsn, lsn));
        }
    }

    /// What is settled but not in the log yet, as ranges over the queue's own messages.
    pub(crate) fn flush_settles(&mut self) -> Option<SettleRanges> {
        if self.memory.settling.is_empty() {
            return None;
        }
        let mut parts = std::mem::take(&mut self.memory.settling);
        parts.sort_unstable();
        let mut ranges: Vec<(Lsn, Lsn)> = Vec::with_capacity(parts.len());
        for (from, to) in parts {
            match ranges.last_mut() {
                // Settled twice: by its consumer, and because the other side of a partition had.
                Some((_, end)) if from <= *end => *end = to.max(*end),
                Some((_, end)) if self.unsettled.next_after(*end) == Some(from) => *end = to,
                _ => ranges.push((from, to)),
            }
        }
        Some(SettleRanges(ranges))
    }

    /// Takes and settles everything that is ready; returns how many that were.
    pub(crate) fn purge(&mut self) -> u64 {
        let ready: Vec<Lsn> = self.ready_messages().collect();
        for &lsn in &ready {
            self.take(lsn);
            self.settle_later(lsn);
        }
        ready.len() as u64
    }

    /// Whether the log says already, committed, that this message may be handed out: only then
    /// may it be, so that after a takeover every message that was handed out is flagged.
    pub(crate) fn is_marked(&self, lsn: Lsn) -> bool {
        lsn <= self.mark
    }

    /// A mark ahead of what may be handed out before the next one, if the log does not have it
    /// yet: up to the `ahead`-th ready message, or all of the group that ends at `group_end`.
    pub(crate) fn flush_mark(&mut self, ahead: usize, group_end: Lsn) -> Option<Lsn> {
        self.memory.mark_due = false;
        if self.memory.by_priority.is_some() || !self.memory.filters.is_empty() {
            // Any message may be the next one.
            let due = group_end > self.memory.logged_mark;
            self.memory.logged_mark = self.memory.logged_mark.max(group_end);
            return due.then_some(group_end);
        }
        // Counting costs per chunk, looking ahead per message: look again at half-way only.
        let (cursor, logged) = (self.memory.cursor, self.memory.logged_mark);
        if self.unsettled.count_range(cursor.next(), logged) * 2 > ahead as u64 {
            return None;
        }
        let mark = self.ready_messages().nth(ahead).unwrap_or(group_end);
        (mark > self.memory.logged_mark).then(|| {
            self.memory.logged_mark = mark;
            mark
        })
    }

    /// All but what is kept for messages.
    pub(crate) fn encode_head(&self, id: QueueId, w: &mut Writer<'_>) {
        w.varint(id.0.0);
        self.spec.encode(w);
        w.varint(self.mark.0);
        w.varint(self.bound_to.len() as u64);
        self.bound_to.iter().for_each(|name| w.text(name));
    }

    pub(crate) fn encode(&self, id: QueueId, w: &mut Writer<'_>) {
        self.encode_head(id, w);
        self.unsettled.encode(w);
        w.bool(self.facts.is_some());
        if let Some(facts) = &self.facts {
            facts.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<(QueueId, Self), Malformed> {
        let id = QueueId(Lsn(r.varint()?));
        let mut queue = Self::new(QueueSpec::decode(r)?);
        queue.mark = Lsn(r.varint()?);
        for _ in 0..r.varint()? {
            queue.bound_to.push(r.text()?);
        }
        queue.unsettled = LsnSet::decode(r)?;
        queue.facts = if r.bool()? { Some(Box::new(Facts::decode(r)?)) } else { None };
        Ok((id, queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn queue(messages: &[u64]) -> Queue {
        let mut queue = Queue::new(QueueSpec {
            vhost: Text::from_static("/"),
            name: Text::from_static("q"),
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: bytes::Bytes::new(),
        });
        for lsn in messages {
            enqueue(&mut queue, *lsn);
        }
        queue
    }

    fn enqueue(queue: &mut Queue, lsn: u64) {
        let message = MessageView { exchange: "", routing_key: "", properties: &[0, 0], body: b"" };
        queue.apply_enqueue(Lsn(lsn), 0, &message);
    }

    fn take_all(queue: &mut Queue) -> Vec<(u64, bool)> {
        let mut taken = Vec::new();
        while let Some(lsn) = queue.head() {
            taken.push((lsn.0, queue.take(lsn)));
        }
        taken
    }

    #[test]
    fn returned_messages_come_first_in_their_old_order_and_flagged() {
        let mut queue = queue(&[2, 4, 6]);
        assert_eq!(take_all(&mut queue), [(2, false), (4, false), (6, false)]);
        queue.give_back(Lsn(6));
        queue.give_back(Lsn(2));
        enqueue(&mut queue, 9);
        assert_eq!(queue.ready(), 3);
        assert_eq!(queue.ready_messages().map(|l| l.0).collect::<Vec<_>>(), [2, 6, 9]);
        assert_eq!(take_all(&mut queue), [(2, true), (6, true), (9, false)]);
    }

    #[test]
    fn settles_merge_over_the_queues_own_messages() {
        let mut queue = queue(&[2, 4, 6, 9]);
        take_all(&mut queue);
        for lsn in [2, 9, 4] {
            queue.settle_later(Lsn(lsn));
        }
        let ranges = queue.flush_settles().unwrap();
        assert_eq!(ranges.0, [(Lsn(2), Lsn(4)), (Lsn(9), Lsn(9))]);
        assert_eq!(queue.ready(), 0);
        ranges.0.iter().for_each(|(from, to)| {
            queue.apply_settle(*from, *to);
        });
        assert_eq!((queue.unsettled().len(), queue.memory.taken), (1, 1));
        assert!(queue.flush_settles().is_none());
    }

    #[test]
    fn a_new_epoch_flags_what_may_have_been_delivered() {
        let mut queue = queue(&[1, 2, 3]);
        assert!(!queue.is_marked(Lsn(1)));
        let mark = queue.flush_mark(1, Lsn(9)).unwrap();
        assert_eq!((mark, queue.flush_mark(1, Lsn(9))), (Lsn(2), None));
        assert_eq!(queue.flush_mark(3, Lsn(2)), None);
        queue.apply_delivered(mark);
        assert!(queue.is_marked(Lsn(2)) && !queue.is_marked(Lsn(3)));
        queue.take(Lsn(1));
        queue.begin_epoch();
        assert_eq!(queue.ready(), 3);
        assert_eq!(take_all(&mut queue), [(1, true), (2, true), (3, false)]);
    }

    #[test]
    fn what_the_other_side_finished_is_not_handed_out_and_counts_stay_right() {
        let mut queue = queue(&[1, 2, 3, 4, 5, 6]);
        queue.take(Lsn(1));
        queue.take(Lsn(2));
        queue.give_back(Lsn(2));
        let mut kept = LsnSet::default();
        kept.push(Lsn(4));
        // Twice, as when a transfer broke off.
        assert_eq!(queue.retire_all_but(&kept, Lsn(5)), 4);
        assert_eq!(queue.retire_all_but(&kept, Lsn(5)), 4);
        assert_eq!(queue.ready(), 2);
        assert_eq!(queue.ready_messages().map(|l| l.0).collect::<Vec<_>>(), [4, 6]);
        for (from, to) in queue.flush_settles().unwrap().0 {
            queue.apply_settle(from, to);
        }
        assert_eq!((queue.unsettled().len(), queue.ready(), queue.memory.taken), (2, 2, 0));
        assert_eq!(take_all(&mut queue), [(4, false), (6, false)]);
    }

    #[test]
    fn what_is_settled_from_both_sides_is_one_range_and_counts_stay_right() {
        let mut queue = queue(&[1, 2, 3, 4, 5]);
        for lsn in 1..=4 {
            queue.take(Lsn(lsn));
        }
        queue.settle_later(Lsn(2));
        queue.settle_later(Lsn(3));
        queue.retire_all_but(&LsnSet::default(), Lsn(4));
        // The consumer gives one back that the other side had finished.
        queue.give_back(Lsn(4));
        let ranges = queue.flush_settles().unwrap();
        assert_eq!(ranges.0, [(Lsn(1), Lsn(4))]);
        queue.apply_settle(Lsn(1), Lsn(4));
        assert_eq!((queue.ready(), queue.memory.taken, queue.memory.returned.len()), (1, 0, 0));
        assert_eq!(take_all(&mut queue), [(5, false)]);
    }

    #[test]
    fn purge_leaves_what_is_outstanding() {
        let mut queue = queue(&[1, 2, 3]);
        queue.take(Lsn(1));
        assert_eq!(queue.purge(), 2);
        assert_eq!(queue.flush_settles().unwrap().0, [(Lsn(2), Lsn(3))]);
        assert_eq!(queue.ready(), 0);
    }
}
