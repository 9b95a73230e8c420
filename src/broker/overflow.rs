//! Queues of limited length: what is dropped at the head, and what is not let in.

use crate::broker::Broker;
use crate::dead_letter::Reason;
use crate::decide::Decided;
use crate::queue::Queue;
use crate::rules::Overflow;
use understudy_model::{Effect, EnqueueView, Lsn, MessageView, Publish, QueueId};

impl Queue {
    fn is_too_long(&self) -> bool {
        self.rules.length_max.is_some_and(|max| self.ready() > max)
            || self.rules.length_bytes_max.is_some_and(|max| self.ready_bytes() > max)
    }

    /// Counts also what is decided and not committed yet.
    fn has_room_for(&self, body_bytes: u64) -> bool {
        let arriving = self.memory.arriving.len() as u64;
        let arriving_bytes: u64 = self.memory.arriving.iter().map(|(_, bytes)| *bytes).sum();
        let length_max = self.rules.length_max.unwrap_or(u64::MAX);
        let bytes_max = self.rules.length_bytes_max.unwrap_or(u64::MAX);
        self.ready() + arriving < length_max
            && self.ready_bytes() + arriving_bytes + body_bytes <= bytes_max
    }
}

impl Broker {
    /// Drops the heads of a queue that is too long. Whoever wants some has had its chance.
    pub(crate) fn drop_heads(&mut self, id: QueueId, budget: &mut usize) {
        while *budget > 0 {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            if queue.rules.overflow != Overflow::DropHead || !queue.is_too_long() {
                return;
            }
            let Some(head) = queue.head() else { return };
            queue.take(head);
            *budget -= 1;
            self.die(id, head, Reason::MaxLength);
        }
    }

    /// The queues among these that take the message. If one does not, the publisher is told so,
    /// instead of a confirm, and the message may go to that queue's dead-letter exchange.
    pub(crate) fn queues_with_room(
        &mut self,
        queues: &[QueueId],
        publish: &Publish,
        decided: &mut Decided<'_>,
    ) -> (Vec<QueueId>, bool) {
        let bytes = publish.body.len() as u64;
        let is_full = |id: &QueueId| {
            self.queues.get(id).is_some_and(|q| q.rules.rejects() && !q.has_room_for(bytes))
        };
        let (full, open): (Vec<QueueId>, Vec<QueueId>) =
            queues.iter().copied().partition(|id| is_full(id));
        for id in &full {
            self.dead_letter_refused(*id, publish, decided);
        }
        (open, !full.is_empty())
    }

    fn dead_letter_refused(&mut self, id: QueueId, publish: &Publish, decided: &mut Decided<'_>) {
        let overflow = self.queues.get(&id).map(|queue| queue.rules.overflow);
        if overflow != Some(Overflow::RejectPublishDeadLetter) {
            return;
        }
        let message = MessageView {
            exchange: &publish.exchange,
            routing_key: &publish.routing_key,
            properties: &publish.properties,
            body: &[],
        };
        let body = publish.body.clone();
        if let Some((targets, letter)) = self.dead_letter(id, &message, body, Reason::MaxLength) {
            decided.open.push(|out| EnqueueView::encode(&targets, &letter, out));
            self.traffic.dead_letter(Reason::MaxLength);
        }
    }

    /// Notes a publish that counts against the limit before it is committed.
    pub(crate) fn arriving(&mut self, queues: &[QueueId], lsn: Lsn, bytes: u64) {
        for id in queues {
            if let Some(queue) = self.queues.get_mut(id)
                && queue.rules.rejects()
            {
                queue.memory.arriving.push_back((lsn, bytes));
            }
        }
    }
}

/// The answer to a publish that a full queue did not take.
pub(crate) fn nack(publish: &Publish) -> Option<Effect> {
    publish.confirm.map(|number| Effect::Nack { channel: publish.channel, number })
}
