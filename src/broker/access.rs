//! Who may do what: permissions as committed state, and the checks that requests must pass. Which
//! operation needs which permission on what is RabbitMQ's table, name for name.

use crate::broker::Broker;
use crate::decide::Decided;
use crate::declare::server_name;
use crate::pattern::Pattern;
use std::collections::BTreeMap;
use understudy_model::{
    Bind, ConnectionId, DeclareExchange, DeclareQueue, Effect, Lsn, Malformed, PermissionRecord,
    PolicyRecord, PropertiesView, Protocol, Publish, Reader, Refusal, RefusalKind, Request, Table,
    Text, Token, Writer,
};

/// The tag of users that may publish under another user's name.
const IMPERSONATOR: &str = "impersonator";

#[derive(Default)]
pub(crate) struct Access {
    /// By user and vhost.
    permissions: BTreeMap<(Text, Text), Permission>,
    pub(crate) policies: crate::policy::Policies,
}

struct Permission {
    record: PermissionRecord,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

#[derive(Clone, Copy)]
pub(crate) enum Need {
    Configure,
    Write,
    Read,
}

impl Access {
    pub(crate) fn permissions(&self) -> impl Iterator<Item = &PermissionRecord> {
        self.permissions.values().map(|permission| &permission.record)
    }

    pub(crate) fn permission(&self, user: &Text, vhost: &Text) -> Option<&PermissionRecord> {
        self.permissions.get(&(user.clone(), vhost.clone())).map(|p| &p.record)
    }

    pub(crate) fn put_permission(&mut self, record: PermissionRecord) {
        // Checked when it was decided; one that this version cannot read permits nothing.
        let permission = Permission {
            configure: Pattern::of_permission(&record.configure),
            write: Pattern::of_permission(&record.write),
            read: Pattern::of_permission(&record.read),
            record,
        };
        let key = (permission.record.user.clone(), permission.record.vhost.clone());
        self.permissions.insert(key, permission);
    }

    pub(crate) fn clear_permission(&mut self, user: Text, vhost: Text) {
        self.permissions.remove(&(user, vhost));
    }

    pub(crate) fn user_deleted(&mut self, name: &str) {
        self.permissions.retain(|(user, _), _| user != name);
    }

    pub(crate) fn vhost_deleted(&mut self, name: &str) {
        self.permissions.retain(|(_, vhost), _| vhost != name);
        self.policies.vhost_deleted(name);
    }

    fn permits(&self, user: &Text, vhost: &Text, need: Need, name: &str) -> bool {
        let permission = self.permissions.get(&(user.clone(), vhost.clone()));
        permission.is_some_and(|permission| match need {
            Need::Configure => permission.configure.matches(name),
            Need::Write => permission.write.matches(name),
            Need::Read => permission.read.matches(name),
        })
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.varint(self.permissions.len() as u64);
        self.permissions().for_each(|permission| permission.encode(w));
        let policies: Vec<&PolicyRecord> = self.policies.records().collect();
        w.varint(policies.len() as u64);
        policies.iter().for_each(|policy| policy.encode(w));
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut access = Self::default();
        for _ in 0..r.varint()? {
            access.put_permission(PermissionRecord::decode(r)?);
        }
        for _ in 0..r.varint()? {
            access.policies.put(PolicyRecord::decode(r)?);
        }
        Ok(access)
    }
}

/// A thing with a name that a permission is about.
#[derive(Clone, Copy)]
enum Resource<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

impl Resource<'_> {
    fn name(&self) -> &str {
        match self {
            // The default exchange goes by this name where permissions are concerned.
            Self::Exchange("") => "amq.default",
            Self::Queue(name) | Self::Exchange(name) => name,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Queue(_) => "queue",
            Self::Exchange(_) => "exchange",
        }
    }
}

impl Broker {
    /// Whether a client that logged in as `user` may work in `vhost` at all.
    pub(crate) fn check_vhost(
        &self,
        protocol: Protocol,
        user: &Text,
        vhost: &Text,
    ) -> Result<(), Refusal> {
        if is_trusted(protocol, user) && vhost.is_empty() {
            return Ok(());
        }
        if !self.has_vhost(vhost) {
            let text = format!("vhost {vhost} not found");
            return Err(Refusal::new(RefusalKind::NotAllowed, text));
        }
        if is_trusted(protocol, user) || self.access.permission(user, vhost).is_some() {
            return Ok(());
        }
        let text = format!("access to vhost '{vhost}' refused for user '{user}'");
        Err(Refusal::new(RefusalKind::NotAllowed, text))
    }

    /// What the request needs beyond the connection itself. Publishes are checked where they are
    /// routed: there the answer is cached.
    pub(crate) fn check_access(
        &self,
        connection: ConnectionId,
        request: &Request,
        next_lsn: Lsn,
    ) -> Result<(), Refusal> {
        let check = |resource, need| self.check(connection, resource, need);
        match request {
            Request::DeclareQueue(declare) => self.check_declare(connection, declare, next_lsn),
            Request::DeleteQueue(delete) => check(Resource::Queue(&delete.name), Need::Configure),
            Request::PurgeQueue(purge) => check(Resource::Queue(&purge.name), Need::Read),
            Request::DeclareExchange(declare) => self.check_exchange(connection, declare),
            Request::DeleteExchange(delete) if !delete.name.is_empty() => {
                check(Resource::Exchange(&delete.name), Need::Configure)
            }
            Request::Bind(bind) | Request::Unbind(bind) => self.check_bind(connection, bind),
            Request::Consume(consume) => check(Resource::Queue(&consume.queue), Need::Read),
            Request::Get(get) => check(Resource::Queue(&get.queue), Need::Read),
            Request::Manage(_) => match self.clients.connections.get(&connection) {
                Some(state) if is_trusted(state.protocol, &state.user) => Ok(()),
                _ => Err(Refusal::new(RefusalKind::AccessRefused, "not a management connection")),
            },
            _ => Ok(()),
        }
    }

    fn check(
        &self,
        connection: ConnectionId,
        resource: Resource<'_>,
        need: Need,
    ) -> Result<(), Refusal> {
        let Some(state) = self.clients.connections.get(&connection) else { return Ok(()) };
        let name = resource.name();
        if is_trusted(state.protocol, &state.user)
            || self.access.permits(&state.user, &state.vhost, need, name)
        {
            return Ok(());
        }
        let (kind, vhost, user) = (resource.kind(), &state.vhost, &state.user);
        let text =
            format!("access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'");
        Err(Refusal::new(RefusalKind::AccessRefused, text))
    }

    fn check_declare(
        &self,
        connection: ConnectionId,
        declare: &DeclareQueue,
        next_lsn: Lsn,
    ) -> Result<(), Refusal> {
        if declare.passive {
            return Ok(());
        }
        let made;
        let name: &str = if declare.name.is_empty() {
            made = server_name(&declare.server_named_prefix, next_lsn);
            &made
        } else {
            &declare.name
        };
        self.check(connection, Resource::Queue(name), Need::Configure)?;
        let vhost = self.vhost_of(connection);
        if declare.arguments.is_empty() || self.topology.queue(&vhost, name).is_some() {
            return Ok(());
        }
        let arguments = Table::decode(&declare.arguments).unwrap_or_default();
        if let Some(dead_letters) = arguments.get("x-dead-letter-exchange").and_then(|v| v.as_str())
        {
            self.check(connection, Resource::Queue(name), Need::Read)?;
            self.check(connection, Resource::Exchange(dead_letters), Need::Write)?;
        }
        Ok(())
    }

    fn check_exchange(
        &self,
        connection: ConnectionId,
        declare: &DeclareExchange,
    ) -> Result<(), Refusal> {
        // Nothing may be done to the default exchange, and that is said first.
        if declare.passive || declare.name.is_empty() {
            return Ok(());
        }
        self.check(connection, Resource::Exchange(&declare.name), Need::Configure)?;
        let vhost = self.vhost_of(connection);
        if declare.arguments.is_empty() || self.topology.exchange(&vhost, &declare.name).is_some() {
            return Ok(());
        }
        let arguments = Table::decode(&declare.arguments).unwrap_or_default();
        if let Some(alternate) = arguments.get("alternate-exchange").and_then(|v| v.as_str()) {
            self.check(connection, Resource::Exchange(&declare.name), Need::Read)?;
            self.check(connection, Resource::Exchange(alternate), Need::Write)?;
        }
        Ok(())
    }

    fn check_bind(&self, connection: ConnectionId, bind: &Bind) -> Result<(), Refusal> {
        let destination = if bind.to_exchange {
            Resource::Exchange(&bind.destination)
        } else {
            Resource::Queue(&bind.destination)
        };
        self.check(connection, destination, Need::Write)?;
        if bind.source.is_empty() {
            return Ok(());
        }
        self.check(connection, Resource::Exchange(&bind.source), Need::Read)
    }

    /// The write permission for a publish whose route is not cached. The last exchange that was
    /// permitted is remembered until something about the topology changes, so that publishes with
    /// ever new keys do not pay for a match each.
    pub(crate) fn check_publish(
        &mut self,
        connection: ConnectionId,
        exchange: &Text,
    ) -> Result<(), Refusal> {
        let version = self.topology.version;
        let Some(state) = self.clients.connections.get(&connection) else { return Ok(()) };
        if state.may_write.as_ref().is_some_and(|(v, e)| *v == version && e == exchange) {
            return Ok(());
        }
        self.check(connection, Resource::Exchange(exchange), Need::Write)?;
        if let Some(state) = self.clients.connections.get_mut(&connection) {
            state.may_write = Some((version, exchange.clone()));
        }
        Ok(())
    }

    /// A publish may also make the queue that it goes to.
    pub(crate) fn check_declare_missing(
        &self,
        connection: ConnectionId,
        queue: &Text,
    ) -> Result<(), Refusal> {
        self.check(connection, Resource::Queue(queue), Need::Configure)
    }

    /// A `user_id` property must name the user that publishes. Looks at the properties only if
    /// their flags say that there is one.
    pub(crate) fn check_user_id(
        &self,
        connection: ConnectionId,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        if !PropertiesView::has_user_id(&publish.properties) {
            return Ok(());
        }
        let Some(state) = self.clients.connections.get(&connection) else { return Ok(()) };
        let claimed = PropertiesView::decode(&publish.properties).ok().and_then(|p| p.user_id);
        let claimed = claimed.unwrap_or_default();
        if claimed == state.user.as_bytes() || is_trusted(state.protocol, &state.user) {
            return Ok(());
        }
        let record = self.topology.users.get(&state.user);
        if record.is_some_and(|user| user.tags.iter().any(|tag| tag == IMPERSONATOR)) {
            return Ok(());
        }
        let text = format!(
            "user_id property set to '{}' but authenticated user was '{}'",
            String::from_utf8_lossy(claimed),
            state.user
        );
        Err(Refusal::new(RefusalKind::PreconditionFailed, text))
    }

    /// Connections to which `chosen` applies are told to close.
    pub(crate) fn close_connections(
        &self,
        chosen: impl Fn(&crate::clients::Connection) -> bool,
        reason: &str,
        effects: &mut Vec<(ConnectionId, Effect)>,
    ) {
        for (id, state) in &self.clients.connections {
            if state.protocol != Protocol::Management && chosen(state) {
                effects.push((*id, Effect::Close { reason: Text::from(reason) }));
            }
        }
    }
}

/// The management interface itself, which has asked for nobody's name: it checked before.
fn is_trusted(protocol: Protocol, user: &str) -> bool {
    protocol == Protocol::Management && user.is_empty()
}

/// Answers a request that may not be done.
pub(crate) fn refuse(
    connection: ConnectionId,
    request: &Request,
    refusal: Refusal,
    decided: &mut Decided<'_>,
) {
    if let Some(token) = token_of(request) {
        decided.reply(connection, token, Err(refusal));
    }
}

fn token_of(request: &Request) -> Option<Token> {
    Some(match request {
        Request::DeclareQueue(declare) => declare.token,
        Request::DeleteQueue(delete) => delete.token,
        Request::PurgeQueue(purge) => purge.token,
        Request::DeclareExchange(declare) => declare.token,
        Request::DeleteExchange(delete) => delete.token,
        Request::Bind(bind) | Request::Unbind(bind) => bind.token,
        Request::Consume(consume) => consume.token,
        Request::Get(get) => get.token,
        Request::Manage(manage) => manage.token,
        Request::Outcome { token, .. } => *token,
        _ => return None,
    })
}
