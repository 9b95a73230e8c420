//! Connections, consumers, credit and outstanding deliveries: the master's memory, never logged.

use crate::queue::{ConsumerKey, Queue};
use std::collections::{BTreeMap, BTreeSet};
use understudy_model::{
    AckMode, Connect, ConnectionId, ConsumerNumber, Credit, Effect, Lsn, Protocol, QueueId, Reply,
    Text,
};

/// An unsent delivery counts at least so much beside its body, so that empty ones are bounded
/// too. No protocol sends fewer bytes for one, else the account would never be balanced.
const DELIVERY_OVERHEAD_BYTES: u64 = 16;

/// Bounds of how far a mark looks ahead, messages. After a takeover so many that were not handed
/// out may be flagged redelivered.
const MARK_AHEAD_MIN: usize = 16;
const MARK_AHEAD_MAX: usize = 8_192;

#[derive(Default)]
pub(crate) struct Clients {
    /// Boxed: a tree of ids that only rise has half of its places empty.
    pub(crate) connections: BTreeMap<ConnectionId, Box<Connection>>,
    pub(crate) consumers: BTreeMap<ConsumerKey, Consumer>,
    /// `basic.qos global`: shared by the consumers of a channel.
    pub(crate) channels: BTreeMap<(ConnectionId, u16), Channel>,
    /// Channels that were full and are not any more.
    freed_channels: BTreeSet<(ConnectionId, u16)>,
    /// Queues at which gets wait, and some at which none does any more.
    pub(crate) getting: BTreeSet<QueueId>,
    /// The connection of each producer that has one.
    producers: BTreeMap<u128, ConnectionId>,
    /// Who will own an exclusive queue once its declaration is applied.
    owners: BTreeMap<QueueId, ConnectionId>,
}

pub(crate) struct Connection {
    pub(crate) vhost: Text,
    pub(crate) user: Text,
    pub(crate) protocol: Protocol,
    pub(crate) client_name: Text,
    producer: Option<u128>,
    /// The exchange it was last permitted to publish to, while the topology has this version.
    pub(crate) may_write: Option<(u64, Text)>,
    /// Message bytes handed to the connection and not yet reported as written.
    unsent_bytes: u64,
    /// Queues that passed this connection over because of `unsent_bytes`.
    pub(crate) passed_over: BTreeSet<QueueId>,
    pub(crate) consumers: BTreeSet<ConsumerNumber>,
    pub(crate) exclusive_queues: BTreeSet<QueueId>,
    /// The route of the last publish, while the topology is unchanged.
    pub(crate) route: Option<CachedRoute>,
}

pub(crate) struct CachedRoute {
    pub(crate) version: u64,
    pub(crate) exchange: Text,
    pub(crate) key: Text,
    pub(crate) queues: Vec<QueueId>,
    /// One of the queues may refuse a message because it is full.
    pub(crate) may_refuse: bool,
}

pub(crate) struct Consumer {
    pub(crate) queue: QueueId,
    pub(crate) channel: u16,
    pub(crate) ack: AckMode,
    pub(crate) credit: Credit,
    pub(crate) outstanding: BTreeSet<(QueueId, Lsn)>,
    /// Gets no more; stays while deliveries are outstanding. Gets use such an entry, too.
    pub(crate) cancelled: bool,
}

#[derive(Default)]
pub(crate) struct Channel {
    pub(crate) limit: u32,
    pub(crate) outstanding: u32,
}

impl Connection {
    pub(crate) fn new(connect: &Connect, vhost: Text) -> Self {
        Self {
            vhost,
            user: connect.user.clone(),
            protocol: connect.protocol,
            client_name: connect.client_name.clone(),
            producer: connect.producer,
            may_write: None,
            unsent_bytes: 0,
            passed_over: BTreeSet::new(),
            consumers: BTreeSet::new(),
            exclusive_queues: BTreeSet::new(),
            route: None,
        }
    }

    pub(crate) fn is_congested(&self, outbound_bytes_max: u64) -> bool {
        self.unsent_bytes > outbound_bytes_max
    }

    pub(crate) fn add_unsent(&mut self, body_bytes: usize) {
        self.unsent_bytes += DELIVERY_OVERHEAD_BYTES + body_bytes as u64;
    }
}

impl Consumer {
    pub(crate) fn has_credit(&self) -> bool {
        match self.credit {
            Credit::Prefetch(0) => true,
            Credit::Prefetch(limit) => {
                self.ack == AckMode::Auto || self.outstanding.len() < limit as usize
            }
            Credit::Window(left) => left > 0,
        }
    }
}

impl Clients {
    pub(crate) fn can_take(&self, key: ConsumerKey) -> bool {
        let Some(consumer) = self.consumers.get(&key) else { return false };
        let channel = self.channels.get(&(key.0, consumer.channel));
        let channel_full = channel
            .is_some_and(|channel| channel.limit > 0 && channel.outstanding >= channel.limit);
        // As in RabbitMQ, a full channel holds back its consumers without acks, too.
        !consumer.cancelled && consumer.has_credit() && !channel_full
    }

    /// The queues that waited for the channels that have had room again since the last call.
    pub(crate) fn queues_of_freed_channels(&mut self) -> Vec<QueueId> {
        let mut queues = Vec::new();
        for (connection, channel) in std::mem::take(&mut self.freed_channels) {
            let of_connection =
                (connection, ConsumerNumber(0))..=(connection, ConsumerNumber(u32::MAX));
            let consumers = self.consumers.range(of_connection).map(|(_, consumer)| consumer);
            queues.extend(consumers.filter(|c| c.channel == channel).map(|c| c.queue));
        }
        queues
    }

    /// How many messages of the queue its consumers may get soon: what a mark looks ahead.
    pub(crate) fn hunger(&self, queue: &Queue) -> usize {
        let credit = |key: &ConsumerKey| match self.consumers.get(key).map(|c| c.credit) {
            Some(Credit::Prefetch(0)) => MARK_AHEAD_MAX,
            // Credit comes back with settles before the next mark is committed.
            Some(Credit::Prefetch(limit)) => limit as usize * 4,
            Some(Credit::Window(left)) => left as usize,
            None => 0,
        };
        let consumers = queue.memory.consumers.iter().map(|(_, key)| credit(key));
        let total = consumers.fold(queue.memory.getters.len(), usize::saturating_add);
        total.clamp(MARK_AHEAD_MIN, MARK_AHEAD_MAX)
    }

    /// The delivery is finished or given back: its credit is free. False if it was not
    /// outstanding under this number.
    pub(crate) fn release(&mut self, key: ConsumerKey, queue: QueueId, lsn: Lsn) -> bool {
        let Some(consumer) = self.consumers.get_mut(&key) else { return false };
        if !consumer.outstanding.remove(&(queue, lsn)) {
            return false;
        }
        if let Some(channel) = self.channels.get_mut(&(key.0, consumer.channel)) {
            if channel.limit > 0 && channel.outstanding >= channel.limit {
                self.freed_channels.insert((key.0, consumer.channel));
            }
            channel.outstanding = channel.outstanding.saturating_sub(1);
        }
        if consumer.cancelled && consumer.outstanding.is_empty() {
            self.forget(key);
        }
        true
    }

    /// A message was got without a consumer: it is outstanding under the number of the get.
    pub(crate) fn got(&mut self, key: ConsumerKey, queue: QueueId, lsn: Lsn) {
        let Some(connection) = self.connections.get_mut(&key.0) else { return };
        connection.consumers.insert(key.1);
        let entry = self.consumers.entry(key).or_insert_with(|| Consumer {
            queue: QueueId::default(),
            channel: u16::MAX,
            ack: AckMode::Manual,
            credit: Credit::Window(0),
            outstanding: BTreeSet::new(),
            cancelled: true,
        });
        entry.outstanding.insert((queue, lsn));
    }

    /// The socket took `bytes` more. Returns the queues that may have waited for that.
    pub(crate) fn drained(
        &mut self,
        id: ConnectionId,
        bytes: u64,
        outbound_bytes_max: u64,
    ) -> BTreeSet<QueueId> {
        let Some(connection) = self.connections.get_mut(&id) else { return BTreeSet::new() };
        connection.unsent_bytes = connection.unsent_bytes.saturating_sub(bytes);
        // Half is the mark for going on, so that a queue is not served message by message.
        if connection.unsent_bytes <= outbound_bytes_max / 2 {
            return std::mem::take(&mut connection.passed_over);
        }
        BTreeSet::new()
    }

    pub(crate) fn will_own(&mut self, queue: QueueId, connection: ConnectionId) {
        self.owners.insert(queue, connection);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.exclusive_queues.insert(queue);
        }
    }

    /// The producer's connection is this one now; returns the former.
    pub(crate) fn new_link(&mut self, producer: u128, id: ConnectionId) -> Option<ConnectionId> {
        self.producers.insert(producer, id).filter(|former| *former != id)
    }

    pub(crate) fn end_link(&mut self, gone: &Connection, id: ConnectionId) {
        if let Some(producer) = gone.producer
            && self.producers.get(&producer) == Some(&id)
        {
            self.producers.remove(&producer);
        }
    }

    pub(crate) fn take_owner(&mut self, queue: QueueId) -> Option<ConnectionId> {
        self.owners.remove(&queue)
    }

    /// Consumers of a queue that is gone are told; their outstanding deliveries mean nothing now.
    pub(crate) fn queue_deleted(
        &mut self,
        id: QueueId,
        queue: &Queue,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        for &(_, key) in &queue.memory.consumers {
            effects.push((key.0, Effect::Cancelled { consumer: key.1 }));
        }
        for browser in &queue.memory.browsers {
            effects.push((browser.key.0, Effect::Cancelled { consumer: browser.key.1 }));
        }
        for getter in &queue.memory.getters {
            let result = Ok(Reply::GetEmpty);
            effects.push((getter.key.0, Effect::Reply { token: getter.token, result }));
        }
        if let Some(owner) = queue.memory.owner
            && let Some(connection) = self.connections.get_mut(&owner)
        {
            connection.exclusive_queues.remove(&id);
        }
        for key in self.concerned_by(id, queue) {
            self.forget_outstanding(key, id);
        }
    }

    /// The queue's consumers and, if something of it is outstanding, those that are cancelled and
    /// gets, which it does not know.
    fn concerned_by(&self, id: QueueId, queue: &Queue) -> Vec<ConsumerKey> {
        if queue.unsettled().len() == queue.ready() {
            return queue.memory.consumers.iter().map(|(_, key)| *key).collect();
        }
        let keys = self.consumers.iter().filter(|(_, c)| {
            c.queue == id
                || c.outstanding.range((id, Lsn::ZERO)..).next().is_some_and(|o| o.0 == id)
        });
        keys.map(|(key, _)| *key).collect()
    }

    /// The connection's channels are not there any more.
    pub(crate) fn close_channels(&mut self, id: ConnectionId) {
        let open = self.channels.range((id, 0)..=(id, u16::MAX));
        for key in open.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.channels.remove(&key);
        }
    }

    /// Nothing is outstanding on it, and nothing more comes.
    pub(crate) fn forget(&mut self, key: ConsumerKey) {
        self.consumers.remove(&key);
        if let Some(connection) = self.connections.get_mut(&key.0) {
            connection.consumers.remove(&key.1);
        }
    }

    fn forget_outstanding(&mut self, key: ConsumerKey, queue: QueueId) {
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        consumer.cancelled |= consumer.queue == queue;
        let of_queue = (queue, Lsn::ZERO)..=(queue, Lsn(u64::MAX));
        let lost: Vec<Lsn> = consumer.outstanding.range(of_queue).map(|o| o.1).collect();
        if consumer.cancelled && consumer.outstanding.is_empty() {
            self.forget(key);
        }
        for lsn in lost {
            self.release(key, queue, lsn);
        }
    }
}
