//! Deciding: a request is checked against the committed state and becomes commands of the open
//! group, and effects that are released when those are committed.

use crate::access;
use crate::broker::{Broker, Name};
use crate::clients::{CachedRoute, Connection, Consumer};
use crate::queue::{ConsumerKey, Getter};
use std::collections::BTreeSet;
use understudy_model::{
    Command, Connect, ConnectionId, Consume, ConsumerNumber, Credit, DeliveryRef, Effect,
    EnqueueView, Get, Lsn, OpenGroup, Publish, QueueId, QueueSpec, Refusal, RefusalKind, Reply,
    Request, Returned, Text, Token, Transaction,
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
    fn confirm(&mut self, connection: ConnectionId, publish: &Publish) {
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
        if !self.clients.connections.contains_key(&connection) {
            return Ok(());
        }
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
            // Without a dead-letter rule a discarded message is finished like an acked one.
            Request::Settle { deliveries, token } | Request::Discard { deliveries, token } => {
                self.settle(connection, deliveries);
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
        let result = self.check_vhost(connect.protocol, &connect.user, &connect.vhost);
        if result.is_ok() {
            self.clients.connections.insert(id, Connection::new(connect));
        }
        decided.reply(id, connect.token, result.map(|()| Reply::Done));
    }

    fn publish(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        match self.route(connection, publish)? {
            Ok(queues) => self.enqueue(connection, publish, &queues, decided),
            Err(refusal) => {
                let (channel, number) = (publish.channel, publish.confirm);
                decided.effect(connection, Effect::PublishRefused { channel, number, refusal });
            }
        }
        Ok(())
    }

    /// The queues that the message enters, from the connection's cache if nothing has changed.
    fn route(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
    ) -> Result<Result<Vec<QueueId>, Refusal>, Wait> {
        if let Err(refusal) = self.check_user_id(connection, publish) {
            return Ok(Err(refusal));
        }
        let Some(state) = self.clients.connections.get(&connection) else { return Ok(Ok(vec![])) };
        if let Some(route) = &state.route
            && route.version == self.topology.version
            && route.key == publish.routing_key
            && route.exchange == publish.exchange
        {
            return Ok(Ok(route.queues.clone()));
        }
        let vhost = state.vhost.clone();
        if let Err(refusal) = self.check_publish(connection, &publish.exchange) {
            return Ok(Err(refusal));
        }
        let Some(exchange) = self.topology.exchange(&vhost, &publish.exchange) else {
            self.wait_for_name(&Name::Exchange(vhost.clone(), publish.exchange.clone()))?;
            return Ok(Err(no_exchange(&publish.exchange, &vhost)));
        };
        if exchange.spec.internal {
            let text = format!(
                "cannot publish to internal exchange '{}' in vhost '{vhost}'",
                publish.exchange
            );
            return Ok(Err(Refusal::new(RefusalKind::AccessRefused, text)));
        }
        let key = &publish.routing_key;
        let queues = self.topology.route(&vhost, exchange, key, &publish.properties);
        if queues.is_empty()
            && publish.declare_missing
            && publish.exchange.is_empty()
            && let Err(refusal) = self.check_declare_missing(connection, key)
        {
            return Ok(Err(refusal));
        }
        // A headers exchange looks at the message, so its routes are not reusable.
        if exchange.kind != crate::topology::Kind::Headers
            && let Some(state) = self.clients.connections.get_mut(&connection)
        {
            state.route = Some(CachedRoute {
                version: self.topology.version,
                exchange: publish.exchange.clone(),
                key: key.clone(),
                queues: queues.clone(),
            });
        }
        Ok(Ok(queues))
    }

    fn enqueue(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
        queues: &[QueueId],
        decided: &mut Decided<'_>,
    ) {
        if let Some(known) = self.duplicate_of(publish) {
            decided.depends_on = decided.depends_on.max(known);
            decided.confirm(connection, publish);
            return;
        }
        let made;
        let queues = if queues.is_empty() && publish.declare_missing && publish.exchange.is_empty()
        {
            made = [self.declare_missing(connection, &publish.routing_key, decided)];
            &made[..]
        } else {
            queues
        };
        if queues.is_empty() {
            if publish.mandatory {
                decided.effect(connection, Effect::Returned(Box::new(unroutable(publish))));
            }
            decided.confirm(connection, publish);
            return;
        }
        let lsn = decided.open.push(|out| EnqueueView::encode(queues, publish, out));
        self.mark_with_group(queues);
        if let Some(producer) = publish.producer {
            self.decided_sequences.insert(producer.producer, (producer.sequence, lsn));
        }
        decided.confirm(connection, publish);
    }

    /// The command that stored this publish already, if a producer sends it again.
    fn duplicate_of(&self, publish: &Publish) -> Option<Lsn> {
        let producer = publish.producer?;
        if let Some((sequence, lsn)) = self.decided_sequences.get(&producer.producer)
            && producer.sequence <= *sequence
        {
            return Some(*lsn);
        }
        let stored = self.producers.last_sequence(producer.producer);
        (producer.sequence <= stored).then_some(self.applied)
    }

    fn declare_missing(
        &mut self,
        connection: ConnectionId,
        name: &Text,
        decided: &mut Decided<'_>,
    ) -> QueueId {
        let vhost = self.vhost_of(connection);
        let reserved = Name::Queue(vhost.clone(), name.clone());
        if let Some(&lsn) = self.reserved.get(&reserved)
            && lsn > self.applied
        {
            return QueueId(lsn);
        }
        let lsn = decided.push(&Command::DeclareQueue(QueueSpec {
            vhost,
            name: name.clone(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: bytes::Bytes::new(),
        }));
        self.reserved.insert(reserved, lsn);
        QueueId(lsn)
    }

    fn transaction(
        &mut self,
        connection: ConnectionId,
        transaction: &Transaction,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let mut routes = Vec::with_capacity(transaction.publishes.len());
        for publish in &transaction.publishes {
            match self.route(connection, publish)? {
                Ok(queues) => routes.push(queues),
                Err(refusal) => {
                    decided.reply(connection, transaction.token, Err(refusal));
                    return Ok(());
                }
            }
        }
        // All commands go into the open group, and a group is never cut: all or nothing.
        for (publish, queues) in transaction.publishes.iter().zip(&routes) {
            self.enqueue(connection, publish, queues, decided);
        }
        self.settle(connection, &transaction.settles);
        self.settle(connection, &transaction.discards);
        self.give_back(connection, &transaction.returns);
        self.flush_settles(decided.open);
        decided.reply(connection, transaction.token, Ok(Reply::Done));
        Ok(())
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
        if state.consumers.len() >= limit {
            let text = format!("more than {limit} consumers on one connection");
            return Err(Refusal::new(RefusalKind::ResourceError, text));
        }
        let Some(queue) = self.queues.get_mut(&id) else { return Ok(()) };
        let occupied = consume.exclusive && !queue.memory.consumers.is_empty();
        if queue.memory.exclusive_consumer.is_some() || occupied {
            return Err(in_use());
        }
        let key = (connection, consume.consumer);
        if consume.exclusive {
            queue.memory.exclusive_consumer = Some(key);
        }
        queue.add_consumer(consume.priority, key);
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
            self.clients.consumers.remove(&key);
            if let Some(state) = self.clients.connections.get_mut(&connection) {
                state.consumers.remove(&number);
            }
        }
        self.remove_consumer(queue, key, decided);
    }

    /// An auto-delete queue goes with its last consumer.
    fn remove_consumer(&mut self, id: QueueId, key: ConsumerKey, decided: &mut Decided<'_>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let was_there = queue.remove_consumer(key);
        let last = was_there && queue.memory.consumers.is_empty();
        if last && queue.spec.auto_delete {
            self.push_delete_queue(id, decided);
        }
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
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.head().is_none() || queue.memory.exclusive_consumer.is_some() {
            return decided.reply(connection, get.token, Ok(Reply::GetEmpty));
        }
        let key = (connection, get.consumer);
        queue.memory.getters.push_back(Getter { key, token: get.token, ack: get.ack });
        self.to_serve.insert(id);
    }

    fn settle(&mut self, connection: ConnectionId, deliveries: &[DeliveryRef]) {
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
        }
    }

    fn give_back(&mut self, connection: ConnectionId, deliveries: &[DeliveryRef]) {
        for delivery in deliveries {
            let key = (connection, delivery.consumer);
            if self.clients.release(key, delivery.queue, delivery.lsn)
                && let Some(queue) = self.queues.get_mut(&delivery.queue)
            {
                queue.give_back(delivery.lsn);
                self.to_serve.insert(delivery.queue);
            }
        }
    }

    /// The connection is gone: what it held is ready again, what lived with it is deleted.
    pub fn disconnect(&mut self, id: ConnectionId, decided: &mut Decided<'_>) {
        let Some(state) = self.clients.connections.remove(&id) else { return };
        self.clients.channels.retain(|(connection, _), _| *connection != id);
        for number in state.consumers {
            let key = (id, number);
            let Some(consumer) = self.clients.consumers.remove(&key) else { continue };
            for (queue_id, lsn) in consumer.outstanding {
                if let Some(queue) = self.queues.get_mut(&queue_id) {
                    queue.give_back(lsn);
                    self.to_serve.insert(queue_id);
                }
            }
            self.remove_consumer(consumer.queue, key, decided);
        }
        for queue in state.exclusive_queues {
            self.push_delete_queue(queue, decided);
        }
        for queue in self.queues.values_mut().filter(|q| !q.memory.getters.is_empty()) {
            queue.memory.getters.retain(|getter| getter.key.0 != id);
        }
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
    fn mark_with_group(&mut self, queues: &[QueueId]) {
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

fn unroutable(publish: &Publish) -> Returned {
    Returned {
        channel: publish.channel,
        code: 312,
        text: Text::from_static("NO_ROUTE"),
        exchange: publish.exchange.clone(),
        routing_key: publish.routing_key.clone(),
        properties: publish.properties.clone(),
        body: publish.body.clone(),
    }
}
