//! Deciding changes of topology: declare, delete, purge; `bind.rs` has the bindings. Texts as RabbitMQ
//! gives them.

use crate::arguments;
use crate::broker::{Broker, Name};
use crate::decide::{Decided, Wait, locked, no_exchange};
use crate::topology::{DELAYING, Kind};
use understudy_model::{
    BindTarget, Binding, Command, ConnectionId, DeclareExchange, DeclareQueue, DeleteExchange,
    DeleteQueue, ExchangeSpec, Lsn, PurgeQueue, QueueId, QueueSpec, Refusal, RefusalKind, Reply,
    Table, Text,
};

/// Queues behind direct reply-to: who answers a request may ask whether its sender still waits.
const REPLIES_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// A decision that may be refused as the client's mistake, or put off.
pub(crate) type Outcome<T> = Result<Result<T, Refusal>, Wait>;

fn refuse<T>(kind: RefusalKind, text: String) -> Outcome<T> {
    Ok(Err(Refusal::new(kind, text)))
}

/// Unwraps the inner result of an [`Outcome`], or returns the refusal.
macro_rules! allowed {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}
pub(crate) use allowed;

impl Broker {
    pub(crate) fn declare_queue(
        &mut self,
        connection: ConnectionId,
        declare: &DeclareQueue,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let result = self.decide_queue(connection, declare, decided)?;
        self.traffic.queues_declared += u64::from(result.is_ok() && !declare.passive);
        decided.reply(connection, declare.token, result);
        Ok(())
    }

    fn decide_queue(
        &mut self,
        connection: ConnectionId,
        declare: &DeclareQueue,
        decided: &mut Decided<'_>,
    ) -> Outcome<Reply> {
        let vhost = self.vhost_of(connection);
        let name = if declare.name.is_empty() && !declare.passive {
            server_name(&declare.server_named_prefix, decided.open.next_lsn())
        } else {
            declare.name.clone()
        };
        self.wait_for_name(&Name::Queue(vhost.clone(), name.clone()))?;
        if let Some(id) = self.topology.queue(&vhost, &name) {
            self.used(id);
            return self.redeclare_queue(connection, declare, id);
        }
        if declare.passive {
            let text = format!("no queue '{name}' in vhost '{vhost}'");
            return refuse(RefusalKind::NotFound, text);
        }
        if declare.name.starts_with("amq.") && !declare.named_by_frontend {
            let text = format!("queue name '{name}' contains reserved prefix 'amq.*'");
            return refuse(RefusalKind::AccessRefused, text);
        }
        allowed!(self.check_queue_count());
        let spec = QueueSpec {
            vhost: vhost.clone(),
            name: name.clone(),
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments.clone(),
        };
        allowed!(arguments::check_queue(&spec));
        let lsn = decided.push(&Command::DeclareQueue(spec));
        self.traffic.queues_created += 1;
        self.reserved.insert(Name::Queue(vhost, name.clone()), lsn);
        if declare.exclusive {
            self.clients.will_own(QueueId(lsn), connection);
        }
        decided.topology = true;
        Ok(Ok(Reply::Queue { name, messages: 0, consumers: 0 }))
    }

    /// Whether there may be one more. Those that are not committed yet do not count.
    pub(crate) fn check_queue_count(&self) -> Result<(), Refusal> {
        check_count(self.queues.len(), self.limits.queues_max, "queues")
    }

    fn redeclare_queue(
        &self,
        connection: ConnectionId,
        declare: &DeclareQueue,
        id: QueueId,
    ) -> Outcome<Reply> {
        let Some(queue) = self.queues.get(&id) else {
            return refuse(RefusalKind::NotFound, format!("no queue '{}'", declare.name));
        };
        let spec = &queue.spec;
        let asks_whether_alive = declare.passive && spec.name.starts_with(REPLIES_PREFIX);
        let exclusive = spec.exclusive && queue.memory.owner != Some(connection);
        if (exclusive && !asks_whether_alive)
            || (!declare.passive && spec.exclusive != declare.exclusive)
        {
            return Ok(Err(locked(&spec.vhost, &spec.name)));
        }
        if !declare.passive {
            let what = format!("queue '{}' in vhost '{}'", spec.name, spec.vhost);
            allowed!(equal_flag("durable", declare.durable, spec.durable, &what));
            allowed!(equal_flag("auto_delete", declare.auto_delete, spec.auto_delete, &what));
            let difference = arguments::queue_difference(&declare.arguments, &spec.arguments);
            if let Some((argument, how)) = difference {
                return refuse(
                    RefusalKind::PreconditionFailed,
                    format!("inequivalent arg '{argument}' for {what}: {how}"),
                );
            }
        }
        Ok(Ok(Reply::Queue {
            name: spec.name.clone(),
            messages: u32::try_from(queue.ready()).unwrap_or(u32::MAX),
            consumers: queue.memory.consumers.len() as u32,
        }))
    }

    pub(crate) fn delete_queue(
        &mut self,
        connection: ConnectionId,
        delete: &DeleteQueue,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let vhost = self.vhost_of(connection);
        self.wait_for_name(&Name::Queue(vhost.clone(), delete.name.clone()))?;
        let result = self.decide_delete_queue(connection, &vhost, delete, decided);
        decided.reply(connection, delete.token, result);
        Ok(())
    }

    fn decide_delete_queue(
        &mut self,
        connection: ConnectionId,
        vhost: &Text,
        delete: &DeleteQueue,
        decided: &mut Decided<'_>,
    ) -> Result<Reply, Refusal> {
        // Deleting what is not there succeeds (RabbitMQ since 3.2).
        if self.topology.queue(vhost, &delete.name).is_none() {
            return Ok(Reply::Removed { messages: 0 });
        }
        let id = self.find_queue(connection, vhost, &delete.name)?;
        let Some(queue) = self.queues.get(&id) else { return Ok(Reply::Removed { messages: 0 }) };
        let refused = |why: &str| {
            let text = format!("queue '{}' in vhost '{vhost}' {why}", delete.name);
            Err(Refusal::new(RefusalKind::PreconditionFailed, text))
        };
        if delete.if_unused && !queue.memory.consumers.is_empty() {
            return refused("in use");
        }
        if delete.if_empty && queue.ready() > 0 {
            return refused("not empty");
        }
        let messages = u32::try_from(queue.ready()).unwrap_or(u32::MAX);
        self.push_delete_queue(id, decided);
        Ok(Reply::Removed { messages })
    }

    /// Also deletes auto-delete exchanges that lose their last binding by it.
    pub(crate) fn push_delete_queue(&mut self, id: QueueId, decided: &mut Decided<'_>) {
        let Some(queue) = self.queues.get(&id) else {
            // Declared, not applied yet: the deletion follows it in the log.
            decided.push(&Command::DeleteQueue { queue: id });
            self.traffic.queues_deleted += 1;
            return;
        };
        let name = Name::Queue(queue.spec.vhost.clone(), queue.spec.name.clone());
        if self.wait_for_name(&name).is_err() {
            return;
        }
        let vhost = queue.spec.vhost.clone();
        let sources = queue.bound_to.clone();
        let lsn = decided.push(&Command::DeleteQueue { queue: id });
        self.traffic.queues_deleted += 1;
        decided.topology = true;
        self.reserved.insert(name, lsn);
        for source in sources {
            self.auto_delete_exchange(&vhost, &source, &BindTarget::Queue(id), None, decided);
        }
    }

    pub(crate) fn purge_queue(
        &mut self,
        connection: ConnectionId,
        purge: &PurgeQueue,
        decided: &mut Decided<'_>,
    ) {
        let vhost = self.vhost_of(connection);
        let result = self.find_queue(connection, &vhost, &purge.name).map(|id| {
            let messages = self.queues.get_mut(&id).map_or(0, |queue| queue.purge());
            self.settles_due.insert(id);
            self.flush_settles(decided.open);
            Reply::Removed { messages: u32::try_from(messages).unwrap_or(u32::MAX) }
        });
        decided.reply(connection, purge.token, result);
    }

    pub(crate) fn declare_exchange(
        &mut self,
        connection: ConnectionId,
        declare: &DeclareExchange,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let result = self.decide_exchange(connection, declare, decided)?;
        decided.reply(connection, declare.token, result.map(|()| Reply::Done));
        Ok(())
    }

    fn decide_exchange(
        &mut self,
        connection: ConnectionId,
        declare: &DeclareExchange,
        decided: &mut Decided<'_>,
    ) -> Outcome<()> {
        let vhost = self.vhost_of(connection);
        let name = &declare.name;
        allowed!(not_default(name));
        let reserved = Name::Exchange(vhost.clone(), name.clone());
        self.wait_for_name(&reserved)?;
        if !declare.passive {
            allowed!(check_kind(declare, &vhost));
        }
        if let Some(exchange) = self.topology.exchange(&vhost, name) {
            let same =
                if declare.passive { Ok(()) } else { equal_exchange(declare, &exchange.spec) };
            return Ok(same);
        }
        if declare.passive {
            return Ok(Err(no_exchange(name, &vhost)));
        }
        if name.starts_with("amq.") {
            let text = format!("exchange name '{name}' contains reserved prefix 'amq.*'");
            return refuse(RefusalKind::AccessRefused, text);
        }
        let count = self.topology.exchange_count();
        allowed!(check_count(count, self.limits.exchanges_max, "exchanges"));
        let lsn = decided.push(&Command::DeclareExchange(ExchangeSpec {
            vhost,
            name: name.clone(),
            kind: declare.kind.clone(),
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: declare.arguments.clone(),
        }));
        self.reserved.insert(reserved, lsn);
        decided.topology = true;
        Ok(Ok(()))
    }

    pub(crate) fn delete_exchange(
        &mut self,
        connection: ConnectionId,
        delete: &DeleteExchange,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let result = self.decide_delete_exchange(connection, delete, decided)?;
        decided.reply(connection, delete.token, result.map(|()| Reply::Done));
        Ok(())
    }

    fn decide_delete_exchange(
        &mut self,
        connection: ConnectionId,
        delete: &DeleteExchange,
        decided: &mut Decided<'_>,
    ) -> Outcome<()> {
        let vhost = self.vhost_of(connection);
        let name = &delete.name;
        allowed!(not_default(name));
        let reserved = Name::Exchange(vhost.clone(), name.clone());
        self.wait_for_name(&reserved)?;
        let Some(exchange) = self.topology.exchange(&vhost, name) else { return Ok(Ok(())) };
        if exchange.predeclared {
            let text =
                format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
            return refuse(RefusalKind::AccessRefused, text);
        }
        if delete.if_unused && !exchange.bindings.all.is_empty() {
            let text = format!("exchange '{name}' in vhost '{vhost}' in use");
            return refuse(RefusalKind::PreconditionFailed, text);
        }
        self.push_delete_exchange(vhost, name.clone(), decided);
        decided.topology = true;
        Ok(Ok(()))
    }

    /// Deletes the auto-delete exchange `source` if it has no binding but those that go now.
    pub(crate) fn auto_delete_exchange(
        &mut self,
        vhost: &Text,
        source: &Text,
        target: &BindTarget,
        binding: Option<&Binding>,
        decided: &mut Decided<'_>,
    ) {
        let Some(exchange) = self.topology.exchange(vhost, source) else { return };
        let goes = |b: &Binding| {
            binding.map_or(b.target == *target, |gone| b == gone) || self.is_on_its_way_out(b)
        };
        if !exchange.spec.auto_delete || !exchange.bindings.all.iter().all(goes) {
            return;
        }
        if self.wait_for_name(&Name::Exchange(vhost.clone(), source.clone())).is_ok() {
            self.push_delete_exchange(vhost.clone(), source.clone(), decided);
        }
    }

    /// Whether what the binding leads to is being deleted. Nothing else reserves the name of a thing
    /// that is there already.
    fn is_on_its_way_out(&self, binding: &Binding) -> bool {
        let name = match &binding.target {
            BindTarget::Exchange(name) => Name::Exchange(binding.vhost.clone(), name.clone()),
            BindTarget::Queue(id) => match self.queues.get(id) {
                Some(queue) => Name::Queue(binding.vhost.clone(), queue.spec.name.clone()),
                None => return true,
            },
        };
        self.wait_for_name(&name).is_err()
    }

    /// Also deletes auto-delete exchanges that lose their last binding by it.
    fn push_delete_exchange(&mut self, vhost: Text, name: Text, decided: &mut Decided<'_>) {
        let deleted = Command::DeleteExchange { vhost: vhost.clone(), name: name.clone() };
        let lsn = decided.push(&deleted);
        self.reserved.insert(Name::Exchange(vhost.clone(), name.clone()), lsn);
        let target = BindTarget::Exchange(name);
        for source in self.topology.auto_delete_sources_of(&vhost, &target) {
            self.auto_delete_exchange(&vhost, &source, &target, None, decided);
        }
    }
}

pub(crate) fn check_count(count: usize, max: usize, of_what: &str) -> Result<(), Refusal> {
    if count < max {
        return Ok(());
    }
    Err(Refusal::new(RefusalKind::ResourceError, format!("more than {max} {of_what}")))
}

fn check_kind(declare: &DeclareExchange, vhost: &str) -> Result<(), Refusal> {
    let arguments = Table::decode(&declare.arguments).unwrap_or_default();
    if Kind::of(&declare.kind, &arguments).is_some() {
        return arguments::check_exchange(&declare.name, vhost, &arguments);
    }
    if declare.kind != DELAYING {
        let text = format!("unknown exchange type '{}'", declare.kind);
        return Err(Refusal::new(RefusalKind::CommandInvalid, text));
    }
    let text = "Invalid argument, 'x-delayed-type' must be an existing exchange type";
    Err(Refusal::new(RefusalKind::PreconditionFailed, text))
}

pub(crate) fn not_default(exchange: &str) -> Result<(), Refusal> {
    if exchange.is_empty() {
        let text = "operation not permitted on the default exchange";
        return Err(Refusal::new(RefusalKind::AccessRefused, text));
    }
    Ok(())
}

fn equal_flag(flag: &str, received: bool, current: bool, what: &str) -> Result<(), Refusal> {
    if received == current {
        return Ok(());
    }
    let text = format!(
        "inequivalent arg '{flag}' for {what}: received '{received}' but current is '{current}'"
    );
    Err(Refusal::new(RefusalKind::PreconditionFailed, text))
}

fn equal_exchange(declare: &DeclareExchange, spec: &ExchangeSpec) -> Result<(), Refusal> {
    let what = format!("exchange '{}' in vhost '{}'", spec.name, spec.vhost);
    let different = |arg: &str, how: &str| {
        let text = format!("inequivalent arg '{arg}' for {what}: {how}");
        Err(Refusal::new(RefusalKind::PreconditionFailed, text))
    };
    if declare.kind != spec.kind {
        let how = format!("received '{}' but current is '{}'", declare.kind, spec.kind);
        return different("type", &how);
    }
    equal_flag("durable", declare.durable, spec.durable, &what)?;
    equal_flag("auto_delete", declare.auto_delete, spec.auto_delete, &what)?;
    equal_flag("internal", declare.internal, spec.internal, &what)?;
    let known = ["alternate-exchange"];
    match arguments::first_difference(&declare.arguments, &spec.arguments, &known) {
        Some((arg, how)) => different(arg, &how),
        None => Ok(()),
    }
}

/// Unique because the LSN is; mixed so that neighbours do not look alike.
pub(crate) fn server_name(prefix: &str, lsn: Lsn) -> Text {
    let mut mixed = lsn.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let prefix = if prefix.is_empty() { "amq.gen-" } else { prefix };
    Text::from(format!("{prefix}{:016x}", mixed ^ (mixed >> 31)))
}
