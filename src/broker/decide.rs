//! Deciding: a request is checked against the committed state and becomes commands of the open
//! group, and effects that are released when those are committed.

use crate::access;
use crate::broker::{Broker, Name};
use crate::clients::{Connection, Consumer};
use crate::dead_letter::Reason;
use crate::declare::check_count;
use crate::queue::{ConsumerKey, Getter, Queue};
use crate::selection::{Browser, parse_selector};
use std::collections::BTreeSet;
use understudy_model::{
    Command, Connect, ConnectionId, Consume, ConsumeMode, ConsumerNumber, Credit, DeliveryRef,
    Effect, Get, Lsn, OpenGroup, Publish, QueueId, Refusal, RefusalKind, Reply, Request, Text,
    Token,
};

/// What a decision leaves behind.
pub struct Decided<'a> {
    pub open: &'a mut OpenGroup,
    /// To be released once everything the connection asked so far is committed.
    pub effects: &'a mut Vec<(ConnectionId, Effect)>,
    /// The effects also depend on this command, which may be of an earlier group.
    pub depends_on: Lsn,
    /// Topology changed: the connection's later requests wait for its commit.
    pub topology: bool,
}

/// The request touches what an uncommitted command will change: to be decided again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub until: Lsn,
}

impl Decided<'_> {
    pub(crate) fn push(&mut self, command: &Command<'_>) -> Lsn {
        self.open.push(|out| command.encode(out))
    }

    pub(crate) fn effect(&mut self, connection: ConnectionId, effect: Effect) {
        self.effects.push((connection, effect));
    }

    pub(crate) fn reply(
        &mut self,
        connection: ConnectionId,
        token: Token,
        result: Result<Reply, Refusal>,
    ) {
        self.effect(connection, Effect::Reply { token, result });
    }

    /// One effect for a run of confirms of one channel.
    pub(crate) fn confirm(&mut self, connection: ConnectionId, publish: &Publish) {
        let Some(number) = publish.confirm else { return };
        if let Some((c, Effect::Confirm { channel, through })) = self.effects.last_mut()
            && *c == connection
            && *channel == publish.channel
        {
            *through = number;
            return;
        }
        let channel = publish.channel;
        self.effect(connection, Effect::Confirm { channel, through: number });
    }
}

/// Whether the request reads committed state that the connection's own pipelined requests may
/// still change, so that it waits until they are committed.
pub fn waits_for_own_commits(request: &Request) -> bool {
    matches!(
        request,
        Request::Consume(_)
            | Request::Get(_)
            | Request::Cancel { .. }
            | Request::PurgeQueue(_)
            | Request::DeleteQueue(_)
    ) || matches!(request, Request::DeclareQueue(declare) if declare.passive)
}

impl Broker {
    /// # Errors
    /// [`Wait`]: nothing was done; ask again when that LSN is applied.
    pub fn decide(
        &mut self,
        connection: ConnectionId,
        request: &Request,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        if let Request::Connect(connect) = request {
            self.connect(connection, connect, decided);
            return Ok(());
        }
        let Some(state) = self.clients.connections.get(&connection) else { return Ok(()) };
        self.traffic.asks(state.protocol);
        let next_lsn = decided.open.next_lsn();
        if let Err(refusal) = self.check_access(connection, request, next_lsn) {
            access::refuse(connection, request, refusal, decided);
            return Ok(());
        }
        match request {
            Request::Connect(_) => {}
            Request::Manage(manage) => self.manage(connection, manage, decided),
            Request::Publish(publish) => return self.publish(connection, publish, decided),
            Request::Transaction(transaction) => {
                return self.transaction(connection, transaction, decided);
            }
            Request::Outcome { token, commit } => {
                self.outcome(connection, *token, *commit, decided);
            }
            Request::DeclareQueue(declare) => {
                return self.declare_queue(connection, declare, decided);
            }
            Request::DeleteQueue(delete) => return self.delete_queue(connection, delete, decided),
            Request::PurgeQueue(purge) => self.purge_queue(connection, purge, decided),
            Request::DeclareExchange(declare) => {
                return self.declare_exchange(connection, declare, decided);
            }
            Request::DeleteExchange(delete) => {
                return self.delete_exchange(connection, delete, decided);
            }
            Request::Bind(bind) => return self.bind(connection, bind, decided),
            Request::Unbind(bind) => return self.unbind(connection, bind, decided),
            Request::Consume(consume) => {
                let result = self.consume(connection, consume).map(|()| Reply::Done);
                decided.reply(connection, consume.token, result);
            }
            Request::Cancel { token, consumer } => {
                self.cancel(connection, *consumer, decided);
                decided.reply(connection, *token, Ok(Reply::Done));
            }
            Request::AddCredit { consumer, credit } => {
                self.add_credit((connection, *consumer), *credit);
            }
            Request::ChannelPrefetch { channel, limit } => {
                self.channel_prefetch(connection, *channel, *limit);
            }
            Request::Get(get) => self.get(connection, get, decided),
            Request::Settle { deliveries, token } => {
                self.settle(connection, deliveries);
                if let Some(token) = token {
                    self.flush_settles(decided.open);
                    decided.reply(connection, *token, Ok(Reply::Done));
                }
            }
            Request::Discard { deliveries, token } => {
                self.discard(connection, deliveries);
                if let Some(token) = token {
                    self.flush_settles(decided.open);
                    decided.reply(connection, *token, Ok(Reply::Done));
                }
            }
            Request::Return { deliveries, token } => {
                self.give_back(connection, deliveries);
                if let Some(token) = token {
                    decided.reply(connection, *token, Ok(Reply::Done));
                }
            }
            Request::Barrier { token } => decided.reply(connection, *token, Ok(Reply::Done)),
        }
        Ok(())
    }

    fn connect(&mut self, id: ConnectionId, connect: &Connect, decided: &mut Decided<'_>) {
        let vhost = match &connect.vhost_else {
            Some(other) if !self.has_vhost(&connect.vhost) => other,
            _ => &connect.vhost,
        };
        let result = self.check_vhost(connect.protocol, &connect.user, vhost);
        if result.is_ok() {
            if let Some(former) = connect.producer.and_then(|p| self.clients.new_link(p, id)) {
                let reason = Text::from_static("the client has connected anew");
                self.disconnect(former, decided);
                decided.effect(former, Effect::Close { reason });
            }
            let state = Box::new(Connection::new(connect, vhost.clone()));
            if self.clients.connections.insert(id, state).is_none() {
                self.traffic.to(connect.protocol).opened += 1;
            }
        }
        decided.reply(id, connect.token, result.map(|()| Reply::Done));
    }

    fn consume(&mut self, connection: ConnectionId, consume: &Consume) -> Result<(), Refusal> {
        let vhost = self.vhost_of(connection);
        let id = self.find_queue(connection, &vhost, &consume.queue)?;
        let in_use = || {
            let text = format!("queue '{}' in vhost '{vhost}' in exclusive use", consume.queue);
            Refusal::new(RefusalKind::AccessRefused, text)
        };
        let limit = self.limits.consumers_per_connection_max;
        let Some(state) = self.clients.connections.get_mut(&connection) else { return Ok(()) };
        check_count(state.consumers.len(), limit, "consumers on one connection")?;
        let selector = parse_selector(&consume.selector)?;
        let Some(queue) = self.queues.get_mut(&id) else { return Ok(()) };
        let key = (connection, consume.consumer);
        if consume.mode == ConsumeMode::Browse {
            queue.memory.browsers.push(Browser::new(key, selector, queue.unsettled().last()));
        } else {
            let occupied = consume.exclusive && !queue.memory.consumers.is_empty();
            if queue.memory.exclusive_consumer.is_some() || occupied {
                return Err(in_use());
            }
            if consume.exclusive {
                queue.memory.exclusive_consumer = Some(key);
            }
            queue.add_consumer(consume.priority, key);
            if let Some(selector) = selector {
                queue.memory.filters.add(key, selector, consume.mode);
            }
            choose_active(queue);
        }
        state.consumers.insert(consume.consumer);
        let consumer = Consumer {
            queue: id,
            channel: consume.channel,
            ack: consume.ack,
            credit: consume.credit,
            outstanding: BTreeSet::new(),
            cancelled: false,
        };
        self.clients.consumers.insert(key, consumer);
        self.to_serve.insert(id);
        Ok(())
    }

    fn cancel(
        &mut self,
        connection: ConnectionId,
        number: ConsumerNumber,
        decided: &mut Decided<'_>,
    ) {
        let key = (connection, number);
        let Some(consumer) = self.clients.consumers.get_mut(&key) else { return };
        consumer.cancelled = true;
        let (queue, idle) = (consumer.queue, consumer.outstanding.is_empty());
        if idle {
            self.clients.forget(key);
        }
        self.remove_consumer(queue, key, decided);
    }

    /// An auto-delete queue goes with its last consumer.
    fn remove_consumer(&mut self, id: QueueId, key: ConsumerKey, decided: &mut Decided<'_>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let was_there = queue.remove_consumer(key);
        choose_active(queue);
        let last = was_there && queue.memory.consumers.is_empty();
        if last && queue.spec.auto_delete {
            self.push_delete_queue(id, decided);
        }
        self.used(id);
        self.to_serve.insert(id);
    }

    fn add_credit(&mut self, key: ConsumerKey, credit: u32) {
        if let Some(consumer) = self.clients.consumers.get_mut(&key)
            && let Credit::Window(left) = &mut consumer.credit
        {
            *left = left.saturating_add(credit);
            self.to_serve.insert(consumer.queue);
        }
    }

    fn channel_prefetch(&mut self, connection: ConnectionId, channel: u16, limit: u32) {
        let of_connection =
            (connection, ConsumerNumber(0))..=(connection, ConsumerNumber(u32::MAX));
        let consumers = self.clients.consumers.range(of_connection);
        let mut outstanding = 0;
        for consumer in consumers.map(|(_, c)| c).filter(|c| c.channel == channel) {
            outstanding += consumer.outstanding.len() as u32;
            self.to_serve.insert(consumer.queue);
        }
        let entry = self.clients.channels.entry((connection, channel)).or_default();
        entry.limit = limit;
        entry.outstanding = outstanding;
    }

    fn get(&mut self, connection: ConnectionId, get: &Get, decided: &mut Decided<'_>) {
        let vhost = self.vhost_of(connection);
        let id = match self.find_queue(connection, &vhost, &get.queue) {
            Ok(id) => id,
            Err(refusal) => return decided.reply(connection, get.token, Err(refusal)),
        };
        self.used(id);
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.head().is_none() || queue.memory.exclusive_consumer.is_some() {
            self.traffic.asking().get_empty += 1;
            return decided.reply(connection, get.token, Ok(Reply::GetEmpty));
        }
        let key = (connection, get.consumer);
        queue.memory.getters.push_back(Getter { key, token: get.token, ack: get.ack });
        self.clients.getting.insert(id);
        self.to_serve.insert(id);
    }

    pub(crate) fn settle(&mut self, connection: ConnectionId, deliveries: &[DeliveryRef]) {
        for delivery in deliveries {
            let key = (connection, delivery.consumer);
            if !self.clients.release(key, delivery.queue, delivery.lsn) {
                continue;
            }
            if let Some(queue) = self.queues.get_mut(&delivery.queue) {
                queue.settle_later(delivery.lsn);
                self.settles_due.insert(delivery.queue);
                self.to_serve.insert(delivery.queue);
            }
            self.traffic.asking().acknowledged += 1;
        }
    }

    /// Finished without being used: to be dead-lettered, if the queue has a rule for that.
    pub(crate) fn discard(&mut self, connection: ConnectionId, deliveries: &[DeliveryRef]) {
        for delivery in deliveries {
            let key = (connection, delivery.consumer);
            if self.clients.release(key, delivery.queue, delivery.lsn) {
                self.die(delivery.queue, delivery.lsn, Reason::Rejected);
                self.to_serve.insert(delivery.queue);
            }
        }
    }

    /// Ready again at once, or, where returns are counted, when the log has the count.
    fn give_back_one(&mut self, id: QueueId, lsn: Lsn) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.rules.counts_returns {
            queue.memory.returning.insert(lsn);
            self.returns_due.insert(id);
        } else {
            queue.give_back(lsn);
            self.to_serve.insert(id);
        }
    }

    pub(crate) fn give_back(&mut self, connection: ConnectionId, deliveries: &[DeliveryRef]) {
        for delivery in deliveries {
            let key = (connection, delivery.consumer);
            if self.clients.release(key, delivery.queue, delivery.lsn) {
                self.give_back_one(delivery.queue, delivery.lsn);
            }
        }
    }

    /// The connection is gone: what it held is ready again, what lived with it is deleted.
    pub fn disconnect(&mut self, id: ConnectionId, decided: &mut Decided<'_>) {
        let Some(state) = self.clients.connections.remove(&id) else { return };
        self.traffic.to(state.protocol).closed += 1;
        self.clients.end_link(&state, id);
        self.clients.close_channels(id);
        for number in state.consumers {
            let key = (id, number);
            let Some(consumer) = self.clients.consumers.remove(&key) else { continue };
            for (queue_id, lsn) in consumer.outstanding {
                self.give_back_one(queue_id, lsn);
            }
            self.remove_consumer(consumer.queue, key, decided);
        }
        for queue in state.exclusive_queues {
            self.push_delete_queue(queue, decided);
        }
        let queues = &mut self.queues;
        self.clients.getting.retain(|queue| {
            let Some(queue) = queues.get_mut(queue) else { return false };
            queue.memory.getters.retain(|getter| getter.key.0 != id);
            !queue.memory.getters.is_empty()
        });
    }

    /// The socket took `bytes` more of what was delivered.
    pub fn drained(&mut self, connection: ConnectionId, bytes: u64) {
        let limit = self.limits.outbound_bytes_max;
        self.to_serve.extend(self.clients.drained(connection, bytes, limit));
    }

    /// What is finished but not in the log goes onto the open group, one command a queue.
    pub fn flush_settles(&mut self, open: &mut OpenGroup) {
        for id in std::mem::take(&mut self.settles_due) {
            let ranges = self.queues.get_mut(&id).and_then(|queue| queue.flush_settles());
            if let Some(ranges) = ranges {
                open.push(|out| Command::Settle { queue: id, ranges }.encode(out));
            }
        }
    }

    /// Counts of returned messages go onto the open group; those messages are ready when it is
    /// committed.
    pub fn flush_returns(&mut self, open: &mut OpenGroup) {
        for id in std::mem::take(&mut self.returns_due) {
            let Some(queue) = self.queues.get(&id) else { continue };
            let due = queue.memory.returning.iter();
            let counts: Vec<_> = due.map(|lsn| (*lsn, queue.returns(*lsn) + 1)).collect();
            if !counts.is_empty() {
                open.push(|out| Command::Returned { queue: id, counts }.encode(out));
            }
        }
    }

    pub fn returns_due(&self) -> bool {
        !self.returns_due.is_empty()
    }

    /// Notes in the open group how far queues may be handed out before the next such note.
    pub fn flush_marks(&mut self, open: &mut OpenGroup) {
        self.mark_awaited = false;
        for id in std::mem::take(&mut self.marks_due) {
            let ahead = self.queues.get(&id).map_or(0, |queue| self.clients.hunger(queue));
            let group_end = open.next_lsn();
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            if let Some(through) = queue.flush_mark(ahead, group_end) {
                open.push(|out| Command::Delivered { queue: id, through }.encode(out));
            }
        }
    }

    /// A queue that somebody consumes will hand out what this group brings: its mark rides along,
    /// and the delivery need not wait for one of its own.
    pub(crate) fn mark_with_group(&mut self, queues: &[QueueId]) {
        for id in queues {
            if let Some(queue) = self.queues.get_mut(id)
                && !queue.memory.mark_due
                && !queue.memory.consumers.is_empty()
            {
                queue.memory.mark_due = true;
                self.marks_due.insert(*id);
            }
        }
    }

    pub fn settles_due(&self) -> bool {
        !self.settles_due.is_empty()
    }

    /// A consumer waits for it: to be sealed without delay.
    pub fn mark_awaited(&self) -> bool {
        self.mark_awaited
    }

    pub(crate) fn vhost_of(&self, connection: ConnectionId) -> Text {
        self.clients.connections.get(&connection).map(|c| c.vhost.clone()).unwrap_or_default()
    }

    pub(crate) fn wait_for_name(&self, name: &Name) -> Result<(), Wait> {
        match self.reserved.get(name) {
            Some(&until) if until > self.applied => Err(Wait { until }),
            _ => Ok(()),
        }
    }

    /// Names whose commands are applied are free again.
    pub fn release_names(&mut self) {
        let applied = self.applied;
        self.reserved.retain(|_, lsn| *lsn > applied);
        if self.decided_sequences.len() > 1_000 {
            self.decided_sequences.retain(|_, (_, lsn)| *lsn > applied);
        }
        if self.decided_commits.len() > 1_000 {
            self.decided_commits.retain(|_, lsn| *lsn > applied);
        }
    }

    /// A queue by name that this connection may use.
    pub(crate) fn find_queue(
        &self,
        connection: ConnectionId,
        vhost: &Text,
        name: &Text,
    ) -> Result<QueueId, Refusal> {
        let found = self.topology.queue(vhost, name);
        let Some((id, queue)) = found.and_then(|id| Some((id, self.queues.get(&id)?))) else {
            let text = format!("no queue '{name}' in vhost '{vhost}'");
            return Err(Refusal::new(RefusalKind::NotFound, text));
        };
        if queue.spec.exclusive && queue.memory.owner != Some(connection) {
            return Err(locked(vhost, name));
        }
        Ok(id)
    }
}

/// The first to come is served alone until it goes.
fn choose_active(queue: &mut Queue) {
    if queue.rules.single_active_consumer && queue.memory.active_consumer.is_none() {
        queue.memory.active_consumer = queue.memory.consumers.first().map(|(_, key)| *key);
    }
}

pub(crate) fn locked(vhost: &str, name: &str) -> Refusal {
    let text = format!(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be \
         originally declared on another connection or the exclusive property value does not match \
         that of the original declaration."
    );
    Refusal::new(RefusalKind::ResourceLocked, text)
}

pub(crate) fn no_exchange(name: &str, vhost: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
}
