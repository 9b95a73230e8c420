//! Deciding publishes and transactions: where a message goes, and what its publisher hears.

use crate::access;
use crate::broker::{Broker, Name};
use crate::clients::CachedRoute;
use crate::decide::{Decided, Wait, no_exchange};
use crate::delayed;
use crate::expiry;
use crate::overflow;
use crate::routing::Found;
use crate::sender_selected::{self, Selected};
use bytes::Bytes;
use understudy_model::{
    Command, ConnectionId, DelayView, Effect, EnqueueView, Lsn, ProducerSequence, Publish, QueueId,
    QueueSpec, Refusal, RefusalKind, Reply, Request, Returned, Text, Token, Transaction,
};

/// Where a message goes.
#[derive(Default)]
struct Routed {
    queues: Vec<QueueId>,
    /// Its properties, if they are not to be stored as they came.
    properties: Option<Bytes>,
    /// One of the queues may refuse it because it is full.
    may_refuse: bool,
    /// The exchange holds it back until then, milliseconds since 1970.
    due_ms: Option<u64>,
}

impl Broker {
    pub(crate) fn publish(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let routed = self.route(connection, publish)?;
        self.traffic.received(publish);
        match routed {
            Ok(routed) => self.enqueue(connection, publish, &routed, decided),
            Err(refusal) => refuse(connection, publish, refusal, decided),
        }
        Ok(())
    }

    /// Answers a request that publishes while nothing may be stored: refused as a whole. What is
    /// stored already is said to be so: a client that asks again after a lost connection would
    /// take it for not done.
    pub fn refuse_to_store(
        &mut self,
        connection: ConnectionId,
        request: &Request,
        refusal: Refusal,
        decided: &mut Decided<'_>,
    ) {
        let Some(state) = self.clients.connections.get(&connection) else { return };
        self.traffic.asks(state.protocol);
        match request {
            Request::Publish(publish) => {
                self.traffic.received(publish);
                if !self.confirm_duplicate(connection, publish, decided) {
                    refuse(connection, publish, refusal, decided);
                }
            }
            Request::Transaction(transaction) => {
                if !self.answer_committed(connection, transaction, decided) {
                    decided.reply(connection, transaction.token, Err(refusal));
                }
            }
            _ => access::refuse(connection, request, refusal, decided),
        }
    }

    /// The queues that the message enters, from the connection's cache if nothing has changed.
    fn route(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
    ) -> Result<Result<Routed, Refusal>, Wait> {
        let selected = match self.check_properties(connection, publish) {
            Ok(selected) => selected,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(state) = self.clients.connections.get(&connection) else {
            return Ok(Ok(Routed::default()));
        };
        if selected.is_none()
            && let Some(route) = &state.route
            && route.version == self.topology.version
            && route.key == publish.routing_key
            && route.exchange == publish.exchange
        {
            let (queues, may_refuse) = (route.queues.clone(), route.may_refuse);
            return Ok(Ok(Routed { queues, may_refuse, ..Routed::default() }));
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
        if exchange.delays
            && let Some(delay_ms) = delayed::delay_ms(&publish.properties)
        {
            let due_ms = Some(self.now_ms.saturating_add(delay_ms));
            return Ok(Ok(Routed { due_ms, ..Routed::default() }));
        }
        let may_be_delayed = exchange.delays;
        let key = &publish.routing_key;
        let mut keys = vec![&key[..]];
        keys.extend(selected.iter().flat_map(|selected| &selected.keys).map(|key| &key[..]));
        let found = self.topology.route(&vhost, exchange, &keys, &publish.properties);
        let Found { queues, depends_on_key_only } = found;
        if queues.is_empty()
            && publish.declare_missing
            && publish.exchange.is_empty()
            && let Err(refusal) =
                self.check_declare_missing(connection, key).and_then(|()| self.check_queue_count())
        {
            return Ok(Err(refusal));
        }
        let may_refuse =
            queues.iter().any(|id| self.queues.get(id).is_some_and(|queue| queue.rules.rejects()));
        let Some(selected) = selected else {
            if depends_on_key_only
                && !may_be_delayed
                && let Some(state) = self.clients.connections.get_mut(&connection)
            {
                state.route = Some(CachedRoute {
                    version: self.topology.version,
                    exchange: publish.exchange.clone(),
                    key: key.clone(),
                    queues: queues.clone(),
                    may_refuse,
                });
            }
            return Ok(Ok(Routed { queues, may_refuse, ..Routed::default() }));
        };
        let properties = selected.without_bcc;
        Ok(Ok(Routed { queues, properties, may_refuse, due_ms: None }))
    }

    /// What a message's properties must fulfil, and the further keys they name.
    fn check_properties(
        &self,
        connection: ConnectionId,
        publish: &Publish,
    ) -> Result<Option<Selected>, Refusal> {
        self.check_user_id(connection, publish)?;
        expiry::check(&publish.properties)?;
        sender_selected::further_keys(&publish.properties)
    }

    fn enqueue(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
        routed: &Routed,
        decided: &mut Decided<'_>,
    ) {
        let stripped;
        let as_sent = publish;
        let publish = match &routed.properties {
            None => publish,
            Some(properties) => {
                stripped = Publish { properties: properties.clone(), ..publish.clone() };
                &stripped
            }
        };
        let queues = &routed.queues[..];
        if self.confirm_duplicate(connection, publish, decided) {
            return;
        }
        if let Some(due_ms) = routed.due_ms {
            let vhost = self.vhost_of(connection);
            let lsn = decided.open.push(|out| DelayView::encode(&vhost, due_ms, publish, out));
            self.stored(lsn, publish);
            self.confirm(connection, publish, decided);
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
                // Native clients know their own by its whole content.
                decided.effect(connection, Effect::Returned(Box::new(unroutable(as_sent))));
                self.traffic.asking().unroutable_returned += 1;
            } else {
                self.traffic.asking().unroutable_dropped += 1;
            }
            self.confirm(connection, publish, decided);
            return;
        }
        let open;
        let mut refused = false;
        let queues = if routed.may_refuse {
            (open, refused) = self.queues_with_room(queues, publish, decided);
            &open[..]
        } else {
            queues
        };
        if refused {
            decided.effects.extend(overflow::nack(publish).map(|effect| (connection, effect)));
            if queues.is_empty() {
                return;
            }
        }
        let lsn = decided.open.push(|out| EnqueueView::encode(queues, publish, out));
        self.traffic.asking().routed += queues.len() as u64;
        if routed.may_refuse {
            self.arriving(queues, lsn, publish.body.len() as u64);
        }
        self.mark_with_group(queues);
        self.stored(lsn, publish);
        if !refused {
            self.confirm(connection, publish, decided);
        }
    }

    fn stored(&mut self, lsn: Lsn, publish: &Publish) {
        if let Some(producer) = publish.producer {
            self.decided_sequences.insert(producer.producer, (producer.sequence, lsn));
        }
    }

    fn confirm(&mut self, connection: ConnectionId, publish: &Publish, decided: &mut Decided<'_>) {
        decided.confirm(connection, publish);
        self.traffic.asking().confirmed += u64::from(publish.confirm.is_some());
    }

    /// False if it is not stored yet.
    fn confirm_duplicate(
        &mut self,
        connection: ConnectionId,
        publish: &Publish,
        decided: &mut Decided<'_>,
    ) -> bool {
        let Some(known) = self.duplicate_of(publish) else { return false };
        decided.depends_on = decided.depends_on.max(known);
        self.confirm(connection, publish, decided);
        true
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
        self.traffic.queues_created += 1;
        let lsn = decided.push(&Command::DeclareQueue(QueueSpec {
            vhost,
            name: name.clone(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Bytes::new(),
        }));
        self.reserved.insert(reserved, lsn);
        QueueId(lsn)
    }

    pub(crate) fn transaction(
        &mut self,
        connection: ConnectionId,
        transaction: &Transaction,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        if self.answer_committed(connection, transaction, decided) {
            return Ok(());
        }
        let mut routes = Vec::with_capacity(transaction.publishes.len());
        for publish in &transaction.publishes {
            match self.route(connection, publish)? {
                Ok(routed) => routes.push(routed),
                Err(refusal) => {
                    decided.reply(connection, transaction.token, Err(refusal));
                    return Ok(());
                }
            }
        }
        // All commands go into the open group, and a group is never cut: all or nothing.
        for (publish, routed) in transaction.publishes.iter().zip(&routes) {
            self.traffic.received(publish);
            self.enqueue(connection, publish, routed, decided);
        }
        self.settle(connection, &transaction.settles);
        self.discard(connection, &transaction.discards);
        self.give_back(connection, &transaction.returns);
        self.flush_settles(decided.open);
        if let Some(commit) = transaction.commit {
            let lsn = decided.push(&Command::Committed(commit));
            self.decided_commits.insert(commit, lsn);
        }
        decided.reply(connection, transaction.token, Ok(Reply::Done));
        Ok(())
    }

    /// False if it is not committed yet.
    fn answer_committed(
        &self,
        connection: ConnectionId,
        transaction: &Transaction,
        decided: &mut Decided<'_>,
    ) -> bool {
        let known = transaction.commit.and_then(|commit| self.committed_at(commit));
        let Some(known) = known else { return false };
        decided.depends_on = decided.depends_on.max(known);
        decided.reply(connection, transaction.token, Ok(Reply::AlreadyCommitted));
        true
    }

    /// The connection that sent the transaction is over by now, if it was another: what the
    /// tables do not hold will not be decided any more.
    pub(crate) fn outcome(
        &mut self,
        connection: ConnectionId,
        token: Token,
        commit: ProducerSequence,
        decided: &mut Decided<'_>,
    ) {
        let result = match self.committed_at(commit) {
            Some(known) => {
                decided.depends_on = decided.depends_on.max(known);
                Ok(Reply::AlreadyCommitted)
            }
            None => {
                let text = format!("transaction {} was not committed", commit.sequence);
                Err(Refusal::new(RefusalKind::NotFound, text))
            }
        };
        decided.reply(connection, token, result);
    }

    /// The command that says so, or any that is applied.
    fn committed_at(&self, commit: ProducerSequence) -> Option<Lsn> {
        let decided = self.decided_commits.get(&commit).copied();
        decided.or_else(|| self.producers.is_committed(commit).then_some(self.applied))
    }
}

fn refuse(
    connection: ConnectionId,
    publish: &Publish,
    refusal: Refusal,
    decided: &mut Decided<'_>,
) {
    let (channel, number) = (publish.channel, publish.confirm);
    decided.effect(connection, Effect::PublishRefused { channel, number, refusal });
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
