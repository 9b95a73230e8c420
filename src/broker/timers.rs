//! What happens to queues because time has passed: heads that expire, queues that nobody uses.
//! The node says what time it is; nothing here asks a clock.

use crate::broker::Broker;
use crate::decide::Decided;
use crate::facts::AT_ONCE_MS;
use understudy_model::QueueId;

impl Broker {
    /// Milliseconds since 1970; never goes back.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// When [`Self::on_time`] has something to do next.
    pub fn deadline_ms(&self) -> Option<u64> {
        let of_queues = self.timers.first().map(|(at_ms, _)| *at_ms);
        [of_queues, self.delayed.next_ms()].into_iter().flatten().min()
    }

    /// Queues whose time has come are served again, or deleted if nobody has used them for as long
    /// as their `expires` says.
    pub fn on_time(&mut self, decided: &mut Decided<'_>) {
        while let Some(&(at_ms, id)) = self.timers.first()
            && at_ms <= self.now_ms
        {
            self.timers.pop_first();
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.memory.timer_ms = None;
            if queue.unused_until_ms().is_some_and(|until_ms| until_ms <= self.now_ms) {
                self.push_delete_queue(id, decided);
            } else {
                self.to_serve.insert(id);
            }
        }
    }

    /// Looks at the queue again when its head expires, or when nobody has used it for too long.
    pub(crate) fn set_timer(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let timed = queue.has_facts() || queue.rules.expires_ms.is_some();
        if !timed && queue.memory.timer_ms.is_none() {
            return;
        }
        if queue.rules.expires_ms.is_some() && queue.memory.last_use_ms.is_none() {
            queue.memory.last_use_ms = Some(self.now_ms);
        }
        let head = queue.head().and_then(|head| queue.deadline_ms(head));
        let head = head.filter(|at_ms| *at_ms != AT_ONCE_MS);
        let at_ms = [head, queue.unused_until_ms()].into_iter().flatten().min();
        if at_ms == queue.memory.timer_ms {
            return;
        }
        if let Some(before_ms) = std::mem::replace(&mut queue.memory.timer_ms, at_ms) {
            self.timers.remove(&(before_ms, id));
        }
        self.timers.extend(at_ms.map(|at_ms| (at_ms, id)));
    }

    /// Somebody used the queue: declared it, got from it, or stopped consuming.
    pub(crate) fn used(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && queue.rules.expires_ms.is_some()
        {
            queue.memory.last_use_ms = Some(self.now_ms);
            self.to_serve.insert(id);
        }
    }
}
