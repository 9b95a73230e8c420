//! Listings: what there is, in pages, so that a long listing never holds up the node.

use crate::broker::Broker;
use std::ops::Bound::{Excluded, Unbounded};
use understudy_model::{
    AckMode, ApplyTo, BindTarget, Binding, ConnectionId, ConsumerNumber, Credit, ExchangeSpec, Lsn,
    PermissionRecord, PolicyRecord, Protocol, QueueSpec, Text, UserRecord,
};

/// Which rows: all of a kind, of one vhost, or behind the last one of the page before.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub vhost: Option<Text>,
    /// Queues, exchanges: only this one, looked up and not searched. Bindings: of this source.
    pub name: Option<Text>,
    pub after: Option<Cursor>,
    pub rows_max: usize,
}

/// Where a page ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    vhost: Text,
    name: Text,
    number: (u64, u64),
}

pub struct Page<T> {
    pub rows: Vec<T>,
    /// There may be more behind this.
    pub next: Option<Cursor>,
}

#[derive(Clone, Debug)]
pub struct QueueRow {
    pub spec: QueueSpec,
    pub ready: u64,
    pub unacked: u64,
    pub consumers: u64,
    pub owner: Option<ConnectionId>,
    pub policy: Option<Text>,
}

#[derive(Clone, Debug)]
pub struct ExchangeRow {
    pub spec: ExchangeSpec,
    pub policy: Option<Text>,
}

#[derive(Clone, Debug)]
pub struct BindingRow {
    pub vhost: Text,
    pub source: Text,
    pub destination: Text,
    pub to_exchange: bool,
    pub key: Text,
    /// Inside of an AMQP field table.
    pub arguments: bytes::Bytes,
}

#[derive(Clone, Debug)]
pub struct ConnectionRow {
    pub id: ConnectionId,
    pub vhost: Text,
    pub user: Text,
    pub protocol: Protocol,
    pub client_name: Text,
    pub consumers: u64,
}

#[derive(Clone, Debug)]
pub struct ConsumerRow {
    pub connection: ConnectionId,
    pub number: ConsumerNumber,
    pub channel: u16,
    pub vhost: Text,
    pub queue: Text,
    pub ack_required: bool,
    /// 0: no limit.
    pub prefetch: u32,
    pub exclusive: bool,
}

/// What is short enough to be listed at once.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    pub users: Vec<UserRecord>,
    pub vhosts: Vec<Text>,
    pub permissions: Vec<PermissionRecord>,
    pub policies: Vec<PolicyRecord>,
}

impl Broker {
    pub fn accounts(&self) -> Accounts {
        Accounts {
            users: self.topology.users.values().cloned().collect(),
            vhosts: self.topology.vhosts.keys().cloned().collect(),
            permissions: self.access.permissions().cloned().collect(),
            policies: self.access.policies.records().cloned().collect(),
        }
    }

    /// Vhosts of the query, from where the page before ended.
    fn queried_vhosts<'a>(
        &'a self,
        query: &'a Query,
    ) -> impl Iterator<Item = (&'a Text, &'a crate::topology::Vhost)> {
        let from = query.after.as_ref().map(|after| after.vhost.clone()).unwrap_or_default();
        let wanted = |name: &Text| query.vhost.as_ref().is_none_or(|vhost| vhost == name);
        self.topology.vhosts.range(from..).filter(move |(name, _)| wanted(name))
    }

    /// Names of queues that hold the message, for the operator.
    pub fn queues_holding(&self, lsn: Lsn) -> Vec<String> {
        let holding = self.queues.values().filter(|queue| queue.unsettled().contains(lsn));
        holding.map(|queue| format!("{} (vhost {})", queue.spec.name, queue.spec.vhost)).collect()
    }

    pub fn list_queues(&self, query: &Query) -> Page<QueueRow> {
        let mut page = Page { rows: Vec::new(), next: None };
        for (vhost, state) in self.queried_vhosts(query) {
            let begin = begin(query, vhost);
            for (name, id) in state.queues.range((begin, Unbounded)) {
                if query.name.as_ref().is_some_and(|wanted| wanted != name) {
                    break;
                }
                let Some(queue) = self.queues.get(id) else { continue };
                let policy = self.access.policies.effective(vhost, ApplyTo::Queues, name);
                page.rows.push(QueueRow {
                    spec: queue.spec.clone(),
                    ready: queue.ready(),
                    unacked: queue.unsettled().len().saturating_sub(queue.ready()),
                    consumers: queue.memory.consumers.len() as u64,
                    owner: queue.memory.owner,
                    policy: policy.map(|policy| policy.record.name.clone()),
                });
                if page.rows.len() >= query.rows_max {
                    let (vhost, name) = (vhost.clone(), name.clone());
                    page.next = Some(Cursor { vhost, name, number: (0, 0) });
                    return page;
                }
            }
        }
        page
    }

    pub fn list_exchanges(&self, query: &Query) -> Page<ExchangeRow> {
        let mut page = Page { rows: Vec::new(), next: None };
        for (vhost, state) in self.queried_vhosts(query) {
            let begin = begin(query, vhost);
            for (name, exchange) in state.exchanges.range((begin, Unbounded)) {
                if query.name.as_ref().is_some_and(|wanted| wanted != name) {
                    break;
                }
                let policy = self.access.policies.effective(vhost, ApplyTo::Exchanges, name);
                let policy = policy.map(|policy| policy.record.name.clone());
                page.rows.push(ExchangeRow { spec: exchange.spec.clone(), policy });
                if page.rows.len() >= query.rows_max {
                    let (vhost, name) = (vhost.clone(), name.clone());
                    page.next = Some(Cursor { vhost, name, number: (0, 0) });
                    return page;
                }
            }
        }
        page
    }

    /// Without those of the default exchange, which follow from the queues' names.
    pub fn list_bindings(&self, query: &Query) -> Page<BindingRow> {
        let mut page = Page { rows: Vec::new(), next: None };
        for (vhost, state) in self.queried_vhosts(query) {
            let after = query.after.as_ref().filter(|after| after.vhost == *vhost);
            let from = after.map(|after| after.name.clone()).unwrap_or_default();
            for (name, exchange) in state.exchanges.range(from..) {
                if query.name.as_ref().is_some_and(|wanted| wanted != name) {
                    continue;
                }
                let done = after.filter(|after| after.name == *name).map_or(0, |a| a.number.0);
                let all = exchange.bindings.all.iter().enumerate().skip(done as usize);
                for (index, binding) in all {
                    page.rows.extend(self.binding_row(binding));
                    if page.rows.len() >= query.rows_max {
                        let (vhost, name) = (vhost.clone(), name.clone());
                        page.next = Some(Cursor { vhost, name, number: (index as u64 + 1, 0) });
                        return page;
                    }
                }
            }
        }
        page
    }

    fn binding_row(&self, binding: &Binding) -> Option<BindingRow> {
        let (destination, to_exchange) = match &binding.target {
            BindTarget::Queue(id) => (self.queues.get(id)?.spec.name.clone(), false),
            BindTarget::Exchange(name) => (name.clone(), true),
        };
        Some(BindingRow {
            vhost: binding.vhost.clone(),
            source: binding.source.clone(),
            destination,
            to_exchange,
            key: binding.key.clone(),
            arguments: binding.arguments.clone(),
        })
    }

    /// Whether it has logged in, and not only over HTTP.
    pub fn has_client(&self, connection: ConnectionId) -> bool {
        let state = self.clients.connections.get(&connection);
        state.is_some_and(|state| state.protocol != Protocol::Management)
    }

    pub fn list_connections(&self, query: &Query) -> Page<ConnectionRow> {
        let mut page = Page { rows: Vec::new(), next: None };
        let begin =
            query.after.as_ref().map_or(Unbounded, |after| Excluded(ConnectionId(after.number.0)));
        for (id, state) in self.clients.connections.range((begin, Unbounded)) {
            let wanted = query.vhost.as_ref().is_none_or(|vhost| *vhost == state.vhost);
            if !wanted || state.protocol == Protocol::Management {
                continue;
            }
            page.rows.push(ConnectionRow {
                id: *id,
                vhost: state.vhost.clone(),
                user: state.user.clone(),
                protocol: state.protocol,
                client_name: state.client_name.clone(),
                consumers: state.consumers.len() as u64,
            });
            if page.rows.len() >= query.rows_max {
                page.next = Some(Cursor { number: (id.0, 0), ..Cursor::default() });
                return page;
            }
        }
        page
    }

    pub fn list_consumers(&self, query: &Query) -> Page<ConsumerRow> {
        let mut page = Page { rows: Vec::new(), next: None };
        let begin = query.after.as_ref().map_or(Unbounded, |after| {
            Excluded((ConnectionId(after.number.0), ConsumerNumber(after.number.1 as u32)))
        });
        for (&(connection, number), consumer) in self.clients.consumers.range((begin, Unbounded)) {
            let Some(queue) = self.queues.get(&consumer.queue) else { continue };
            let wanted = query.vhost.as_ref().is_none_or(|vhost| *vhost == queue.spec.vhost);
            if !wanted || consumer.cancelled {
                continue;
            }
            page.rows.push(ConsumerRow {
                connection,
                number,
                channel: consumer.channel,
                vhost: queue.spec.vhost.clone(),
                queue: queue.spec.name.clone(),
                ack_required: consumer.ack == AckMode::Manual,
                prefetch: match consumer.credit {
                    Credit::Prefetch(limit) | Credit::Window(limit) => limit,
                },
                exclusive: queue.memory.exclusive_consumer == Some((connection, number)),
            });
            if page.rows.len() >= query.rows_max {
                let number = (connection.0, number.0.into());
                page.next = Some(Cursor { number, ..Cursor::default() });
                return page;
            }
        }
        page
    }
}

/// Where to begin among the names of this vhost.
fn begin(query: &Query, vhost: &Text) -> std::ops::Bound<Text> {
    match &query.after {
        Some(after) if after.vhost == *vhost => Excluded(after.name.clone()),
        _ => match &query.name {
            Some(name) => std::ops::Bound::Included(name.clone()),
            None => Unbounded,
        },
    }
}
