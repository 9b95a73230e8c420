//! The one function that changes what is committed: `apply`. The same on the master, on the slave and
//! after a restart.

use crate::broker::Broker;
use crate::dead_letter::Reason;
use crate::delayed::DELAYED;
use crate::queue::Queue;
use understudy_model::{
    BindTarget, Binding, Command, ConnectionId, Effect, EnqueueView, Group, Lsn, Malformed,
    QueueId, QueueSpec,
};

impl Broker {
    /// Applies a committed group. Total: a command about something that is gone does nothing.
    ///
    /// # Errors
    /// A record that this version cannot read: the log must not be used any further.
    pub fn apply_group(
        &mut self,
        group: &Group,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) -> Result<(), Malformed> {
        let bytes = group.bytes().len() as u64;
        let time_ms = group.header().time_ms;
        let bytes_min = self.limits.segment_bytes_min;
        self.segments.add_group(group.first(), group.last(), bytes, bytes_min);
        for (lsn, record) in group.records() {
            self.apply(lsn, time_ms, Command::decode(record)?, effects);
        }
        self.applied = group.last();
        Ok(())
    }

    fn apply(
        &mut self,
        lsn: Lsn,
        time_ms: u64,
        command: Command<'_>,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        match command {
            Command::Enqueue(enqueue) => self.apply_enqueue(lsn, time_ms, &enqueue),
            Command::DeadLetter(moved) => {
                self.apply_settle(moved.queue, &[(moved.lsn, moved.lsn)]);
                self.apply_enqueue(lsn, time_ms, &moved.enqueue);
            }
            Command::Delay(delay) => {
                if self.delayed.apply(lsn, delay.due_ms, delay.vhost) {
                    self.segments.enqueued(lsn, 1);
                }
                if let Some(stored) = delay.enqueue.producer {
                    self.producers.apply(lsn, stored);
                }
            }
            Command::Returned { queue, counts } => self.apply_returned(queue, &counts),
            Command::Settle { queue, ranges } => self.apply_settle(queue, &ranges.0),
            Command::Delivered { queue: id, through } => {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.apply_delivered(through);
                    self.to_serve.insert(id);
                    self.dirty_queues.insert(id);
                }
            }
            Command::FeaturesOn(features) => self.features = self.features.with(features),
            Command::Committed(commit) => self.producers.apply_commit(lsn, commit),
            Command::NewEpoch(_) => self.apply_new_epoch(effects),
            Command::DeclareQueue(spec) => self.apply_declare_queue(QueueId(lsn), spec),
            Command::DeleteQueue { queue } => self.apply_delete_queue(queue, effects),
            topology => self.apply_topology(topology, effects),
        }
    }

    fn apply_enqueue(&mut self, lsn: Lsn, time_ms: u64, enqueue: &EnqueueView<'_>) {
        let mut queues = 0;
        for queue_id in enqueue.queues() {
            if let Some(queue) = self.queues.get_mut(&queue_id)
                && queue.apply_enqueue(lsn, time_ms, &enqueue.message)
            {
                queues += 1;
                if enqueue.redelivered {
                    queue.flag(lsn);
                }
                self.to_serve.insert(queue_id);
                self.dirty_queues.insert(queue_id);
            }
        }
        self.segments.enqueued(lsn, queues);
        if let Some(stored) = enqueue.producer {
            self.producers.apply(lsn, stored);
        }
    }

    /// Where the messages were returned just now, they are ready again, or dead.
    fn apply_returned(&mut self, id: QueueId, counts: &[(Lsn, u32)]) {
        for &(lsn, count) in counts {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            queue.apply_returned(lsn, count);
            if !queue.memory.returning.remove(&lsn) {
                continue;
            }
            if queue.rules.delivery_limit.is_some_and(|limit| count > limit) {
                self.die(id, lsn, Reason::DeliveryLimit);
            } else {
                queue.give_back(lsn);
            }
        }
        self.to_serve.insert(id);
        self.dirty_queues.insert(id);
    }

    fn apply_settle(&mut self, id: QueueId, ranges: &[(Lsn, Lsn)]) {
        if id == DELAYED {
            for &(lsn, _) in ranges {
                self.delayed_gone(lsn);
            }
            return;
        }
        let Some(queue) = self.queues.get_mut(&id) else { return };
        for &(from, to) in ranges {
            if self.segments.in_one(from, to) {
                let removed = queue.apply_settle(from, to);
                self.segments.settled(from, to, removed, |_, _| removed);
            } else {
                self.segments
                    .settled(from, to, 0, |from, to| queue.unsettled().count_range(from, to));
                queue.apply_settle(from, to);
            }
        }
        self.dirty_queues.insert(id);
    }

    /// Delayed messages leave one by one.
    pub(crate) fn delayed_gone(&mut self, lsn: Lsn) {
        if self.delayed.remove(lsn) {
            self.segments.settled(lsn, lsn, 1, |_, _| 1);
        }
    }

    /// Sessions of the former epoch are over: what lived with them goes, the rest is ready again.
    fn apply_new_epoch(&mut self, effects: &mut Vec<(ConnectionId, Effect)>) {
        let transient = |queue: &Queue| !queue.spec.durable || queue.spec.exclusive;
        let swept = self.queues.iter().filter(|(_, queue)| transient(queue)).map(|(id, _)| *id);
        for id in swept.collect::<Vec<_>>() {
            self.apply_delete_queue(id, effects);
        }
        for (vhost, name) in self.topology.transient_exchanges() {
            self.topology.delete_exchange(&vhost, &name);
            self.topology_dirty = true;
        }
        self.begin_epoch();
    }

    fn apply_declare_queue(&mut self, id: QueueId, spec: QueueSpec) {
        // Replay over saved state: the queue's slice can be older than the topology's, and newer.
        let named = self.topology.declare_queue(id, &spec);
        if self.queues.contains_key(&id) || !named {
            return;
        }
        let mut queue = Queue::new(spec);
        queue.rules = self.rules_of(&queue.spec);
        queue.begin_epoch();
        queue.memory.owner = self.clients.take_owner(id);
        self.queues.insert(id, Box::new(queue));
        self.dirty_queues.insert(id);
        self.to_serve.insert(id);
    }

    pub(crate) fn apply_delete_queue(
        &mut self,
        id: QueueId,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        let Some(queue) = self.queues.remove(&id) else { return };
        self.topology.delete_queue(id, &queue.spec, &queue.bound_to);
        self.topology_dirty = true;
        self.dirty_queues.insert(id);
        self.segments_forget(&queue);
        self.clients.queue_deleted(id, &queue, effects);
        self.to_serve.remove(&id);
        self.settles_due.remove(&id);
        self.marks_due.remove(&id);
        self.returns_due.remove(&id);
        self.dying.remove(&id);
        if let Some(at_ms) = queue.memory.timer_ms {
            self.timers.remove(&(at_ms, id));
        }
    }

    fn segments_forget(&mut self, queue: &Queue) {
        let unsettled = queue.unsettled();
        if let (Some(from), Some(to)) = (unsettled.first(), unsettled.last()) {
            if self.segments.in_one(from, to) {
                self.segments.settled(from, to, unsettled.len(), |_, _| 0);
            } else {
                self.segments.settled(from, to, 0, |from, to| unsettled.count_range(from, to));
            }
        }
    }

    fn apply_topology(&mut self, command: Command<'_>, effects: &mut Vec<(ConnectionId, Effect)>) {
        self.topology_dirty = true;
        self.topology.version += 1;
        match command {
            Command::DeclareExchange(spec) => {
                let (vhost, name) = (spec.vhost.clone(), spec.name.clone());
                self.topology.declare_exchange(spec);
                self.topology.apply_policy(&vhost, &name, &self.access.policies);
            }
            Command::DeleteExchange { vhost, name } => self.topology.delete_exchange(&vhost, &name),
            Command::Bind(binding) => self.apply_bind(binding),
            Command::Unbind(binding) => self.topology.unbind(&binding),
            access => self.apply_access(access, effects),
        }
    }

    fn apply_bind(&mut self, binding: Binding) {
        if let BindTarget::Queue(id) = &binding.target {
            let Some(queue) = self.queues.get_mut(id) else { return };
            if !queue.bound_to.contains(&binding.source) {
                queue.bound_to.push(binding.source.clone());
                self.dirty_queues.insert(*id);
            }
        }
        self.topology.bind(binding);
    }
}
