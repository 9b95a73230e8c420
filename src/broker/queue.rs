//! A queue: the committed set of its unsettled messages, and the master's memory of who holds
//! which. What the master remembers dies with it; then every message is ready again.

use crate::lsn_set::LsnSet;
use std::collections::{BTreeSet, VecDeque};
use understudy_model::{
    AckMode, ConnectionId, ConsumerNumber, Lsn, Malformed, QueueId, QueueSpec, Reader,
    SettleRanges, Text, Token, Writer,
};

/// A consumer, or a connection's gets under one number.
pub(crate) type ConsumerKey = (ConnectionId, ConsumerNumber);

pub(crate) struct Queue {
    pub(crate) spec: QueueSpec,
    /// Exchanges with a binding to this queue, so that its end need not search all of them.
    pub(crate) bound_to: Vec<Text>,
    unsettled: LsnSet,
    /// Messages up to here may have been handed out before; logged by `Delivered`.
    mark: Lsn,
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
    /// Unsettled messages that are not ready: outstanding, or settled but not committed.
    taken: u64,
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
            bound_to: Vec::new(),
            unsettled: LsnSet::default(),
            mark: Lsn::ZERO,
            memory: Memory::default(),
        }
    }

    /// Messages that wait for a consumer.
    pub(crate) fn ready(&self) -> u64 {
        self.unsettled.len().saturating_sub(self.memory.taken)
    }

    pub(crate) fn unsettled(&self) -> &LsnSet {
        &self.unsettled
    }

    pub(crate) fn apply_enqueue(&mut self, lsn: Lsn) -> bool {
        self.unsettled.push(lsn)
    }

    /// Returns how many messages went.
    pub(crate) fn apply_settle(&mut self, from: Lsn, to: Lsn) -> u64 {
        let removed = self.unsettled.remove_range(from, to);
        self.memory.taken = self.memory.taken.saturating_sub(removed);
        removed
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
            ..Memory::default()
        };
    }

    /// The message to hand out next.
    pub(crate) fn head(&self) -> Option<Lsn> {
        let fresh = self.unsettled.next_after(self.memory.cursor);
        match self.memory.returned.first() {
            Some(&returned) => Some(fresh.map_or(returned, |fresh| fresh.min(returned))),
            None => fresh,
        }
    }

    /// The ready messages in the order in which they will be handed out.
    pub(crate) fn ready_messages(&self) -> impl Iterator<Item = Lsn> {
        let fresh = self.unsettled.range(self.memory.cursor.next(), Lsn(u64::MAX - 1));
        let mut fresh = fresh.peekable();
        let mut returned = self.memory.returned.iter().copied().peekable();
        std::iter::from_fn(move || match (returned.peek(), fresh.peek()) {
            (Some(r), Some(f)) if r > f => fresh.next(),
            (Some(_), _) => returned.next(),
            (None, _) => fresh.next(),
        })
    }

    /// Hands out the head; returns whether it is to be flagged redelivered.
    pub(crate) fn take(&mut self, lsn: Lsn) -> bool {
        self.memory.taken += 1;
        if self.memory.returned.remove(&lsn) {
            return true;
        }
        self.memory.cursor = lsn;
        lsn <= self.memory.epoch_mark
    }

    /// Takes a message back. Messages that are settled meanwhile (the queue was purged or made
    /// anew) stay gone.
    pub(crate) fn give_back(&mut self, lsn: Lsn) {
        if self.unsettled.contains(lsn) {
            self.memory.taken = self.memory.taken.saturating_sub(1);
            self.memory.returned.insert(lsn);
        }
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

    pub(crate) fn add_consumer(&mut self, priority: i32, key: ConsumerKey) {
        let at = self.memory.consumers.partition_point(|(p, _)| *p >= priority);
        self.memory.consumers.insert(at, (priority, key));
    }

    /// True if it was there.
    pub(crate) fn remove_consumer(&mut self, key: ConsumerKey) -> bool {
        let before = self.memory.consumers.len();
        self.memory.consumers.retain(|(_, k)| *k != key);
        if self.memory.exclusive_consumer == Some(key) {
            self.memory.exclusive_consumer = None;
        }
        self.memory.consumers.len() < before
    }

    /// The next consumer in turn that `can_take` one, highest priority first.
    pub(crate) fn choose(
        &self,
        mut can_take: impl FnMut(ConsumerKey) -> bool,
    ) -> Option<ConsumerKey> {
        let mut rest = &self.memory.consumers[..];
        while let Some((priority, _)) = rest.first() {
            let equals = rest.iter().take_while(|(p, _)| p == priority).count();
            let (group, lower) = rest.split_at(equals);
            let found = (0..equals).map(|i| group[(self.memory.turn + i) % equals].1);
            if let Some(key) = found.into_iter().find(|key| can_take(*key)) {
                return Some(key);
            }
            rest = lower;
        }
        None
    }

    pub(crate) fn encode(&self, id: QueueId, w: &mut Writer<'_>) {
        w.varint(id.0.0);
        self.spec.encode(w);
        w.varint(self.mark.0);
        w.varint(self.bound_to.len() as u64);
        self.bound_to.iter().for_each(|name| w.text(name));
        self.unsettled.encode(w);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<(QueueId, Self), Malformed> {
        let id = QueueId(Lsn(r.varint()?));
        let mut queue = Self::new(QueueSpec::decode(r)?);
        queue.mark = Lsn(r.varint()?);
        for _ in 0..r.varint()? {
            queue.bound_to.push(r.text()?);
        }
        queue.unsettled = LsnSet::decode(r)?;
        Ok((id, queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(messages: &[u64]) -> Queue {
        let mut queue = Queue::new(QueueSpec {
            vhost: Text::from_static("/"),
            name: Text::from_static("q"),
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: bytes::Bytes::new(),
        });
        for lsn in messages {
            queue.apply_enqueue(Lsn(*lsn));
        }
        queue
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
        queue.apply_enqueue(Lsn(9));
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
    fn consumers_of_one_priority_take_turns() {
        let mut queue = queue(&[]);
        let key = |n| (ConnectionId(1), ConsumerNumber(n));
        queue.add_consumer(0, key(1));
        queue.add_consumer(5, key(2));
        queue.add_consumer(5, key(3));
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(queue.choose(|_| true).unwrap().1.0);
            queue.memory.turn += 1;
        }
        assert_eq!(order, [2, 3, 2, 3]);
        assert_eq!(queue.choose(|k| k == key(1)), Some(key(1)));
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
