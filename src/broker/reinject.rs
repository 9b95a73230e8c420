//! After a partition in which both nodes served: what the losing side had confirmed is brought
//! into the state of the winning one (docs/replication.md section 7.4).
//!
//! Both sides share the log up to the common point, so LSNs up to there name the same messages and
//! queues. Behind it, queues are found by name. The rules, all idempotent, so that a transfer that
//! broke off begins again:
//! - a durable definition that is missing here is made; one that one side deleted and the other
//!   kept comes back;
//! - a message from before the common point that either side finished is finished;
//! - a message that the losing side stored behind the common point and did not finish is stored
//!   here, once, flagged redelivered.

use crate::broker::{Broker, Limits, Name};
use crate::delayed::DELAYED;
use bytes::Bytes;
use understudy_model::{
    BindTarget, Binding, Command, EnqueueView, Lsn, Malformed, OpenGroup, ProducerSequence,
    QueueId, SettleRanges,
};

/// The state that the losing side ended with.
pub struct Divergence {
    theirs: Broker,
    common: Lsn,
    /// Names the divergent log: its messages are stored as this producer's, by their LSN there.
    producer: u128,
}

impl Divergence {
    /// # Errors
    /// A slice that cannot be read.
    pub fn load(
        limits: Limits,
        slices: &[(Bytes, Bytes)],
        common: Lsn,
        producer: u128,
    ) -> Result<Self, Malformed> {
        let (theirs, _) = Broker::load(limits, slices)?;
        Ok(Self { theirs, common, producer })
    }
}

impl Broker {
    /// Makes what is missing here. False: a name that matters is about to change, so nothing was
    /// done; ask again after the next commit.
    pub fn reinject_definitions(&mut self, from: &Divergence, open: &mut OpenGroup) -> bool {
        if self.reserved.values().any(|lsn| *lsn > self.applied) {
            return false;
        }
        self.reinject_accounts(&from.theirs, open);
        for (vhost, theirs) in &from.theirs.topology.vhosts {
            for exchange in theirs.exchanges.values() {
                let spec = &exchange.spec;
                let known = self.topology.exchange(vhost, &spec.name).is_some();
                if spec.durable && !exchange.predeclared && !known {
                    let lsn = push(open, &Command::DeclareExchange(spec.clone()));
                    self.reserved.insert(Name::Exchange(vhost.clone(), spec.name.clone()), lsn);
                }
            }
        }
        let specs = from.theirs.queues.values().map(|queue| &queue.spec);
        for spec in specs.filter(|spec| spec.durable && !spec.exclusive) {
            if self.topology.queue(&spec.vhost, &spec.name).is_none() {
                let lsn = push(open, &Command::DeclareQueue(spec.clone()));
                self.reserved.insert(Name::Queue(spec.vhost.clone(), spec.name.clone()), lsn);
            }
        }
        self.reinject_bindings(&from.theirs, open);
        true
    }

    fn reinject_accounts(&self, theirs: &Self, open: &mut OpenGroup) {
        let mine = &self.topology;
        for name in theirs.topology.vhosts.keys().filter(|v| !mine.vhosts.contains_key(*v)) {
            push(open, &Command::PutVhost { name: name.clone() });
        }
        for (name, user) in &theirs.topology.users {
            if !mine.users.contains_key(name) {
                push(open, &Command::PutUser(user.clone()));
            }
        }
        for record in theirs.access.permissions() {
            if self.access.permission(&record.user, &record.vhost).is_none() {
                push(open, &Command::PutPermission(record.clone()));
            }
        }
        for record in theirs.access.policies.records() {
            if !self.access.policies.contains(&record.vhost, &record.name) {
                push(open, &Command::PutPolicy(record.clone()));
            }
        }
    }

    fn reinject_bindings(&self, theirs: &Self, open: &mut OpenGroup) {
        let exchanges = theirs.topology.vhosts.values().flat_map(|v| v.exchanges.values());
        for binding in exchanges.filter(|e| e.spec.durable).flat_map(|e| &e.bindings.all) {
            let target = match &binding.target {
                BindTarget::Exchange(name) => BindTarget::Exchange(name.clone()),
                BindTarget::Queue(id) => match self.counterpart_soon(theirs, *id) {
                    Some(id) => BindTarget::Queue(id),
                    None => continue,
                },
            };
            let binding = Binding { target, ..binding.clone() };
            let exchange = self.topology.exchange(&binding.vhost, &binding.source);
            if exchange.is_none_or(|exchange| !exchange.bindings.all.contains(&binding)) {
                push(open, &Command::Bind(binding));
            }
        }
    }

    /// The queue here, or the one that the open group makes, that has the name of their queue.
    fn counterpart_soon(&self, theirs: &Self, id: QueueId) -> Option<QueueId> {
        let spec = &theirs.queues.get(&id)?.spec;
        let made = || {
            let name = Name::Queue(spec.vhost.clone(), spec.name.clone());
            self.reserved.get(&name).copied().map(QueueId)
        };
        self.topology.queue(&spec.vhost, &spec.name).or_else(made)
    }

    /// Finishes what was finished there, and flags what may have been handed out there.
    pub fn reinject_settles(&mut self, from: &Divergence, open: &mut OpenGroup) -> u64 {
        let mut settled = 0;
        for (id, queue) in self.queues.range_mut(..=QueueId(from.common)) {
            let Some(theirs) = from.theirs.queues.get(id) else { continue };
            let gone = queue.retire_all_but(theirs.unsettled(), from.common);
            if let Some(through) = queue.mark_of_other_side(theirs, from.common) {
                push(open, &Command::Delivered { queue: *id, through });
            }
            if gone > 0 {
                self.settles_due.insert(*id);
                settled += gone;
            }
        }
        // Delayed messages that went on there.
        let mine: Vec<Lsn> = self.delayed.range(Lsn(1), from.common).collect();
        for lsn in mine.into_iter().filter(|lsn| !from.theirs.delayed.contains(*lsn)) {
            let ranges = SettleRanges(vec![(lsn, lsn)]);
            push(open, &Command::Settle { queue: DELAYED, ranges });
            settled += 1;
        }
        settled
    }

    /// Stores messages of theirs, in ascending order of LSN, into the queues of the same names.
    /// The queues must be there: what [`Self::reinject_definitions`] made is committed.
    ///
    /// # Errors
    /// A record that cannot be read; those before it are stored.
    pub fn reinject_messages(
        &mut self,
        from: &Divergence,
        records: &[(Lsn, Bytes)],
        open: &mut OpenGroup,
    ) -> Result<u64, Malformed> {
        let mut stored = 0;
        let mut marks = std::collections::BTreeMap::new();
        for (lsn, record) in records.iter().filter(|(lsn, _)| *lsn > from.common) {
            let decided = self.decided_sequences.get(&from.producer).map_or(0, |(s, _)| *s);
            if lsn.0 <= decided.max(self.producers.last_sequence(from.producer)) {
                continue;
            }
            let producer = ProducerSequence { producer: from.producer, sequence: lsn.0 };
            let message = match Command::decode(record)? {
                Command::Enqueue(message) => message,
                // What it left is finished there, hence here.
                Command::DeadLetter(moved) => moved.enqueue,
                Command::Delay(delay) => {
                    if from.theirs.delayed.contains(*lsn) {
                        let here = open.push(|out| delay.encode_again(producer, out));
                        self.decided_sequences.insert(from.producer, (lsn.0, here));
                        stored += 1;
                    }
                    continue;
                }
                _ => continue,
            };
            let live = message.queues().filter_map(|id| {
                let theirs = from.theirs.queues.get(&id)?;
                let spec = &theirs.spec;
                let mine = self.topology.queue(&spec.vhost, &spec.name)?;
                theirs.unsettled().contains(*lsn).then_some(mine)
            });
            let queues: Vec<QueueId> = live.collect();
            if queues.is_empty() {
                continue;
            }
            let here = open.push(|out| {
                EnqueueView::encode_again(&queues, producer, &message.message, out);
            });
            self.decided_sequences.insert(from.producer, (lsn.0, here));
            marks.extend(queues.into_iter().map(|queue| (queue, here)));
            stored += 1;
        }
        // After a takeover the memory of the flag is gone; the mark says the same.
        for (queue, through) in marks {
            push(open, &Command::Delivered { queue, through });
        }
        Ok(stored)
    }
}

fn push(open: &mut OpenGroup, command: &Command<'_>) -> Lsn {
    open.push(|out| command.encode(out))
}
