//! Deciding bind and unbind. Texts as RabbitMQ gives them.

use crate::arguments::show;
use crate::broker::{Broker, Name};
use crate::decide::{Decided, Wait, no_exchange};
use crate::declare::{Outcome, allowed, check_count, not_default};
use crate::topology::Kind;
use understudy_model::{
    Bind, BindTarget, Binding, Command, ConnectionId, Refusal, RefusalKind, Reply, Table, type_name,
};

impl Broker {
    pub(crate) fn bind(
        &mut self,
        connection: ConnectionId,
        bind: &Bind,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let result = match self.binding(connection, bind)? {
            Ok(binding) => self.push_bind(binding, decided),
            Err(refusal) => Err(refusal),
        };
        decided.reply(connection, bind.token, result.map(|()| Reply::Done));
        Ok(())
    }

    fn push_bind(&self, binding: Binding, decided: &mut Decided<'_>) -> Result<(), Refusal> {
        let exchange = self.topology.exchange(&binding.vhost, &binding.source);
        let Some(exchange) = exchange else {
            return Err(no_exchange(&binding.source, &binding.vhost));
        };
        let bindings = &exchange.bindings.all;
        if bindings.contains(&binding) {
            return Ok(());
        }
        check_count(bindings.len(), self.limits.bindings_per_exchange_max, "bindings")?;
        if exchange.kind == Kind::Headers {
            check_headers_match(&binding)?;
        }
        decided.push(&Command::Bind(binding));
        decided.topology = true;
        Ok(())
    }

    /// Unbinding what is not bound, or not there, succeeds.
    pub(crate) fn unbind(
        &mut self,
        connection: ConnectionId,
        bind: &Bind,
        decided: &mut Decided<'_>,
    ) -> Result<(), Wait> {
        let result = match self.binding(connection, bind)? {
            Ok(binding) => {
                let exchange = self.topology.exchange(&binding.vhost, &binding.source);
                if exchange.is_some_and(|exchange| exchange.bindings.all.contains(&binding)) {
                    let (vhost, source) = (binding.vhost.clone(), binding.source.clone());
                    let target = binding.target.clone();
                    decided.push(&Command::Unbind(binding.clone()));
                    decided.topology = true;
                    self.auto_delete_exchange(&vhost, &source, &target, Some(&binding), decided);
                }
                Ok(Reply::Done)
            }
            Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(Reply::Done),
            Err(refusal) => Err(refusal),
        };
        decided.reply(connection, bind.token, result);
        Ok(())
    }

    /// Both ends must be there and free of uncommitted changes.
    fn binding(&self, connection: ConnectionId, bind: &Bind) -> Outcome<Binding> {
        let vhost = self.vhost_of(connection);
        allowed!(not_default(&bind.source));
        self.wait_for_name(&Name::Exchange(vhost.clone(), bind.source.clone()))?;
        let target = if bind.to_exchange {
            allowed!(not_default(&bind.destination));
            self.wait_for_name(&Name::Exchange(vhost.clone(), bind.destination.clone()))?;
            if self.topology.exchange(&vhost, &bind.destination).is_none() {
                return Ok(Err(no_exchange(&bind.destination, &vhost)));
            }
            BindTarget::Exchange(bind.destination.clone())
        } else {
            self.wait_for_name(&Name::Queue(vhost.clone(), bind.destination.clone()))?;
            BindTarget::Queue(allowed!(self.find_queue(connection, &vhost, &bind.destination)))
        };
        if self.topology.exchange(&vhost, &bind.source).is_none() {
            return Ok(Err(no_exchange(&bind.source, &vhost)));
        }
        Ok(Ok(Binding {
            vhost,
            source: bind.source.clone(),
            target,
            key: bind.key.clone(),
            arguments: bind.arguments.clone(),
        }))
    }
}

fn check_headers_match(binding: &Binding) -> Result<(), Refusal> {
    let table = Table::decode(&binding.arguments).unwrap_or_default();
    let allowed = ["all", "any", "all-with-x", "any-with-x"];
    let Some(value) = table.get("x-match") else { return Ok(()) };
    let text = match value.as_str() {
        Some(mode) if allowed.contains(&mode) => return Ok(()),
        Some(mode) => format!(
            "Invalid x-match field value <<\"{mode}\">>; expected all, any, all-with-x, or any-with-x"
        ),
        None => format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            type_name(value),
            show(value)
        ),
    };
    Err(Refusal::new(RefusalKind::PreconditionFailed, text))
}
