//! Serving: ready messages of committed queues go to consumers that have credit.

use crate::broker::Broker;
use crate::dead_letter::Reason;
use crate::delayed::DELAYED;
use crate::facts::AT_ONCE_MS;
use crate::queue::{ConsumerKey, Getter, Queue};
use crate::traffic::Handed;
use std::ops::Bound;
use understudy_model::{
    AckMode, ConnectionId, Credit, Delivery, Effect, Lsn, QueueId, Reply, message_of,
};

/// Where the content of committed messages is had.
pub trait Contents {
    /// The `Enqueue` record, if it is in memory.
    fn record(&mut self, lsn: Lsn) -> Option<bytes::Bytes>;
}

/// Messages of a queue that are about to be handed out and must be read from the log first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    pub queue: QueueId,
    pub lsns: Vec<Lsn>,
}

/// So many messages are asked for in one read at most; how many of them come is a matter of bytes.
pub(crate) const READ_AHEAD_MAX: usize = 4_096;
/// A turn ends after so many deliveries, so that other work is not kept waiting.
const DELIVERIES_PER_TURN_MAX: usize = 4_096;

/// What became of one attempt to hand out a queue's head.
pub(crate) enum Step {
    Delivered,
    /// Nobody who has credit wants it; it stays for those who have none now.
    NobodyWants,
    NobodyCanTake,
    NotInMemory,
}

/// Of a queue with consumers that select.
enum Selected {
    /// The next message that not all of them have seen.
    Offered(Lsn),
    /// They have seen all; a get takes the head.
    OnlyAsked,
    /// A message was over, and is out of the queue.
    Expired,
    Nothing,
}

impl Broker {
    /// Hands out what can be handed out. Returns true if the turn's limit was reached and there
    /// may be more to do.
    pub fn serve(
        &mut self,
        contents: &mut impl Contents,
        effects: &mut Vec<(ConnectionId, Effect)>,
        reads: &mut Vec<ReadAhead>,
    ) -> bool {
        let mut budget = DELIVERIES_PER_TURN_MAX;
        self.to_serve.extend(self.clients.queues_of_freed_channels());
        while let Some(id) = self.next_to_serve() {
            self.serve_queue(id, contents, effects, reads, &mut budget);
            self.set_timer(id);
            if budget == 0 {
                self.to_serve.insert(id);
                return true;
            }
        }
        false
    }

    /// Round and round, so that no queue is left behind where several share a channel's prefetch.
    fn next_to_serve(&mut self) -> Option<QueueId> {
        let behind = (Bound::Excluded(self.served_last), Bound::Unbounded);
        let next = self.to_serve.range(behind).next().or_else(|| self.to_serve.first());
        let next = next.copied()?;
        self.to_serve.remove(&next);
        Some(next)
    }

    /// The content that was asked for by [`ReadAhead`] is in memory now.
    pub fn read_done(&mut self, queue: QueueId) {
        if queue == DELAYED {
            self.delayed.read_done();
        }
        if let Some(state) = self.queues.get_mut(&queue) {
            state.memory.reading = false;
            self.to_serve.insert(queue);
        }
    }

    /// Whether the message still waits to be handed out from this queue.
    pub fn is_unsettled(&self, queue: QueueId, lsn: Lsn) -> bool {
        let delayed = queue == DELAYED && self.delayed.contains(lsn);
        delayed || self.queues.get(&queue).is_some_and(|queue| queue.unsettled().contains(lsn))
    }

    fn serve_queue(
        &mut self,
        id: QueueId,
        contents: &mut impl Contents,
        effects: &mut Vec<(ConnectionId, Effect)>,
        reads: &mut Vec<ReadAhead>,
        budget: &mut usize,
    ) {
        while *budget > 0 {
            let Some(queue) = self.queues.get(&id) else { return };
            if queue.memory.reading {
                return;
            }
            let Some(head) = queue.head() else { break };
            if self.expire(id, head, false) {
                *budget -= 1;
                continue;
            }
            let Some(queue) = self.queues.get(&id) else { return };
            let asked = !queue.memory.getters.is_empty();
            let wanted = asked || !queue.memory.consumers.is_empty();
            let selects = !queue.memory.filters.is_empty();
            let (mut next, mut is_marked, mut is_offered) = (head, queue.is_marked(head), true);
            if selects {
                match self.next_selected(id, head, asked) {
                    Selected::Expired => {
                        *budget -= 1;
                        continue;
                    }
                    Selected::Offered(unseen) => next = unseen,
                    Selected::OnlyAsked => is_offered = false,
                    Selected::Nothing => break,
                }
                is_marked = self.queues.get(&id).is_some_and(|queue| queue.is_marked(next));
            }
            if wanted && !is_marked {
                // Served again when the mark is applied.
                self.marks_due.insert(id);
                self.mark_awaited = true;
                return;
            }
            let step = if !is_offered {
                Step::NobodyCanTake
            } else if selects {
                self.offer(id, next, contents, effects)
            } else {
                self.deliver_head(id, head, contents, effects)
            };
            let step = match step {
                Step::NobodyCanTake if asked => {
                    // Consumers have had their chance; a get counts what the limit leaves.
                    let left = *budget;
                    self.drop_heads(id, budget);
                    if *budget < left {
                        continue;
                    }
                    self.answer_get(id, head, contents, effects)
                }
                step => step,
            };
            match step {
                Step::Delivered => {
                    self.served_last = id;
                    *budget -= 1;
                }
                Step::NobodyWants => *budget -= 1,
                Step::NobodyCanTake if self.expire(id, head, true) => *budget -= 1,
                Step::NobodyCanTake => break,
                Step::NotInMemory => return self.read_ahead(id, next, reads),
            }
        }
        self.serve_browsers(id, contents, effects, reads, budget);
        self.drop_heads(id, budget);
        self.answer_empty_gets(id, effects);
    }

    /// What a queue with consumers that select comes to next. `asked`: a get waits.
    fn next_selected(&mut self, id: QueueId, head: Lsn, asked: bool) -> Selected {
        match self.next_unseen(id) {
            Some(unseen) if unseen != head && self.expire(id, unseen, false) => Selected::Expired,
            Some(unseen) => Selected::Offered(unseen),
            None if asked => Selected::OnlyAsked,
            None if self.expire(id, head, true) => Selected::Expired,
            None => Selected::Nothing,
        }
    }

    /// The queue is served again when its messages from `next` on are in memory.
    fn read_ahead(&mut self, id: QueueId, next: Lsn, reads: &mut Vec<ReadAhead>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.memory.reading = true;
        let ready = queue.ready_from(queue.place(next)).take(READ_AHEAD_MAX);
        reads.push(ReadAhead { queue: id, lsns: ready.map(|(_, lsn)| lsn).collect() });
    }

    /// Takes a ready message out if its time is over. One that is to be handed out at once or not
    /// at all is `tried` first, and has been if it was given back.
    fn expire(&mut self, id: QueueId, lsn: Lsn, tried: bool) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        let Some(deadline_ms) = queue.deadline_ms(lsn) else { return false };
        let expired = match deadline_ms {
            AT_ONCE_MS => tried || queue.is_redelivery(lsn),
            _ => deadline_ms <= self.now_ms,
        };
        if expired {
            queue.take(lsn);
            self.die(id, lsn, Reason::Expired);
        }
        expired
    }

    fn deliver_head(
        &mut self,
        id: QueueId,
        head: Lsn,
        contents: &mut impl Contents,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) -> Step {
        let Some(key) = self.choose_consumer(id, |_, _| true) else { return Step::NobodyCanTake };
        let Some(record) = contents.record(head) else { return Step::NotInMemory };
        self.deliver(id, head, key, record, effects);
        Step::Delivered
    }

    pub(crate) fn deliver(
        &mut self,
        id: QueueId,
        lsn: Lsn,
        key: ConsumerKey,
        record: bytes::Bytes,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let Some(consumer) = self.clients.consumers.get_mut(&key) else { return };
        queue.memory.turn = queue.memory.turn.wrapping_add(1);
        let returns = queue.returns(lsn);
        let redelivered = queue.take(lsn);
        if let Credit::Window(left) = &mut consumer.credit {
            *left -= 1;
        }
        if consumer.ack == AckMode::Auto {
            queue.settle_later(lsn);
            self.settles_due.insert(id);
        } else {
            consumer.outstanding.insert((id, lsn));
            if let Some(channel) = self.clients.channels.get_mut(&(key.0, consumer.channel)) {
                channel.outstanding += 1;
            }
        }
        let ack = consumer.ack;
        self.account(key.0, &record, Handed::Consumed(ack), redelivered);
        let delivery = Delivery { consumer: key.1, queue: id, lsn, redelivered, returns, record };
        effects.push((key.0, Effect::Deliver(delivery)));
    }

    /// The next consumer in turn that `wants` the message. Connections with too much unsent are
    /// passed over, and looked at again when it is out.
    pub(crate) fn choose_consumer(
        &mut self,
        id: QueueId,
        wants: impl Fn(&Queue, ConsumerKey) -> bool,
    ) -> Option<ConsumerKey> {
        let queue = self.queues.get(&id)?;
        let chosen = queue.choose(|key| self.may_take(key) && wants(queue, key));
        if chosen.is_none() {
            self.note_congested(id);
        }
        chosen
    }

    pub(crate) fn may_take(&self, key: ConsumerKey) -> bool {
        let limit = self.limits.outbound_bytes_max;
        let connection = self.clients.connections.get(&key.0);
        self.clients.can_take(key) && connection.is_some_and(|c| !c.is_congested(limit))
    }

    pub(crate) fn note_congested(&mut self, id: QueueId) {
        let limit = self.limits.outbound_bytes_max;
        let Some(queue) = self.queues.get(&id) else { return };
        for (_, key) in &queue.memory.consumers {
            if let Some(connection) = self.clients.connections.get_mut(&key.0)
                && connection.is_congested(limit)
            {
                connection.passed_over.insert(id);
            }
        }
    }

    fn answer_get(
        &mut self,
        id: QueueId,
        head: Lsn,
        contents: &mut impl Contents,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) -> Step {
        let Some(record) = contents.record(head) else { return Step::NotInMemory };
        let Some(queue) = self.queues.get_mut(&id) else { return Step::NobodyCanTake };
        let Some(Getter { key, token, ack }) = queue.memory.getters.pop_front() else {
            return Step::NobodyCanTake;
        };
        let returns = queue.returns(head);
        let redelivered = queue.take(head);
        if ack == AckMode::Auto {
            queue.settle_later(head);
            self.settles_due.insert(id);
        } else {
            self.clients.got(key, id, head);
        }
        let remaining = u32::try_from(queue.ready()).unwrap_or(u32::MAX);
        self.account(key.0, &record, Handed::Got(ack), redelivered);
        let delivery =
            Delivery { consumer: key.1, queue: id, lsn: head, redelivered, returns, record };
        effects.push((key.0, Effect::Got { token, delivery, remaining }));
        Step::Delivered
    }

    fn answer_empty_gets(&mut self, id: QueueId, effects: &mut Vec<(ConnectionId, Effect)>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.memory.getters.is_empty() || queue.head().is_some() {
            return;
        }
        for getter in queue.memory.getters.drain(..) {
            if let Some(state) = self.clients.connections.get(&getter.key.0) {
                self.traffic.to(state.protocol).get_empty += 1;
            }
            let effect = Effect::Reply { token: getter.token, result: Ok(Reply::GetEmpty) };
            effects.push((getter.key.0, effect));
        }
    }

    pub(crate) fn account(
        &mut self,
        connection: ConnectionId,
        record: &[u8],
        handed: Handed,
        redelivered: bool,
    ) {
        let body = message_of(record).map_or(0, |message| message.body.len());
        if let Some(connection) = self.clients.connections.get_mut(&connection) {
            connection.add_unsent(body);
            self.traffic.to(connection.protocol).handed(handed, redelivered);
        }
    }
}
