//! What the shells know of the driver: a channel of events in, published values out.

use crate::commit_times::CommitTimes;
use crate::inbox::ClientSender;
use crate::lag::Behind;
use crate::mailbox::EffectSender;
use crate::scrub::{ScrubJson, ScrubProgress};
use crate::space::SpaceLeft;
use crate::trace::TraceSwitch;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use understudy_broker::{
    Accounts, BindingRow, Broker, ConnectionRow, ConsumerRow, ExchangeRow, Page, Query, QueueRow,
    Traffic,
};
use understudy_model::{ConnectionId, Lsn, Request, UserRecord};
use understudy_replication::Status;

/// What connections tell the driver.
pub enum ClientEvent {
    Opened {
        connection: ConnectionId,
        effects: EffectSender,
        /// None for what comes from this process.
        peer: Option<SocketAddr>,
        trace: TraceSwitch,
    },
    /// One batch: what one read of the socket asked for.
    Requests {
        connection: ConnectionId,
        requests: Vec<Request>,
    },
    /// The socket took so many bytes more.
    Drained {
        connection: ConnectionId,
        bytes: u64,
    },
    Closed {
        connection: ConnectionId,
    },
    Inspect(Inspect),
    /// The operator wants to see what a client sends and gets, or no longer. Answered with false if
    /// no such client is logged in: what comes before the login is never shown.
    Trace {
        connection: ConnectionId,
        on: bool,
        answer: oneshot::Sender<bool>,
    },
    /// The applied LSN, and a hash of all state that the two nodes have in common there.
    Digest(oneshot::Sender<(Lsn, u128)>),
    /// The operator wants the slave to lead.
    HandOver,
    /// The operator says that the peer is dead. Answered with what the node makes of it.
    Promote {
        force: bool,
        answer: oneshot::Sender<Status>,
    },
    /// The operator wants this slave to take a whole copy.
    Resync(oneshot::Sender<Status>),
    /// The operator says that this master's slave is gone for good.
    ForgetSlave {
        force: bool,
        answer: oneshot::Sender<Status>,
    },
}

/// A page of a listing, whatever the node's role.
pub enum Inspect {
    Accounts(oneshot::Sender<Accounts>),
    Queues(Query, oneshot::Sender<Page<QueueRow>>),
    Exchanges(Query, oneshot::Sender<Page<ExchangeRow>>),
    Bindings(Query, oneshot::Sender<Page<BindingRow>>),
    Consumers(Query, oneshot::Sender<Page<ConsumerRow>>),
    Connections(Query, oneshot::Sender<(Page<ConnectionRow>, Peers)>),
}

/// Where connections come from.
pub type Peers = BTreeMap<ConnectionId, SocketAddr>;

/// All connections of clients.
pub struct Connections {
    pub rows: Vec<ConnectionRow>,
    pub peers: Peers,
}

impl Inspect {
    /// Answers from the committed state. Who asked may have gone: then nobody listens.
    pub fn answer(self, broker: &Broker, peer: impl Fn(ConnectionId) -> Option<SocketAddr>) {
        match self {
            Self::Accounts(answer) => drop(answer.send(broker.accounts())),
            Self::Queues(query, answer) => drop(answer.send(broker.list_queues(&query))),
            Self::Exchanges(query, answer) => drop(answer.send(broker.list_exchanges(&query))),
            Self::Bindings(query, answer) => drop(answer.send(broker.list_bindings(&query))),
            Self::Consumers(query, answer) => drop(answer.send(broker.list_consumers(&query))),
            Self::Connections(query, answer) => {
                let page = broker.list_connections(&query);
                let peers = page.rows.iter().filter_map(|row| Some((row.id, peer(row.id)?)));
                let peers = peers.collect();
                drop(answer.send((page, peers)));
            }
        }
    }
}

#[derive(Clone)]
pub struct NodeHandle {
    pub events: ClientSender,
    pub overview: watch::Receiver<Arc<Overview>>,
    pub users: watch::Receiver<Arc<Vec<UserRecord>>>,
    /// Whether client listeners are open.
    pub serving: watch::Receiver<bool>,
    /// Open listeners: protocol and real address.
    pub listeners: watch::Receiver<Listeners>,
    /// Protocols for clients that have a listener while the node serves.
    pub client_protocols: Vec<&'static str>,
    pub measured: Measured,
}

/// What the threads of the store measure.
#[derive(Clone, Default)]
pub struct Measured {
    pub scrubbed: Arc<ScrubProgress>,
    pub commits: Arc<CommitTimes>,
    pub left: Arc<SpaceLeft>,
}

pub type Listeners = Vec<(&'static str, String)>;

/// What `status` and the HTTP API show.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub name: String,
    pub replication: Status,
    pub serving: bool,
    pub connections: u64,
    pub consumers: u64,
    pub queues: u64,
    pub messages: u64,
    pub messages_ready: u64,
    pub messages_unacked: u64,
    /// Too little room is left on the disk: publishers wait.
    pub disk_alarm: bool,
    pub repair: RepairJson,
    pub digest: DigestJson,
    pub applied: u64,
    pub durable: u64,
    pub appended: u64,
    /// Since the start.
    pub appended_bytes: u64,
    pub masterships: u64,
    /// At the master, as far as it is known.
    pub slave_behind: Option<Behind>,
    pub traffic: Traffic,
}

/// Damage on this node's disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RepairJson {
    /// Places that are not repaired yet.
    pub damaged: u64,
    /// The first of them.
    pub first: String,
    /// Repairs since the start.
    pub repaired: u64,
}

/// The state as compared with the peer's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DigestJson {
    /// Parts that were compared since the start.
    pub compared: u64,
    /// Where they differ, and in what; empty: nowhere.
    pub differs: String,
    pub differs_at: Option<u64>,
}

/// The same as JSON.
#[derive(Serialize)]
pub struct OverviewJson {
    pub name: String,
    pub version: &'static str,
    pub role: &'static str,
    pub state: &'static str,
    pub serving: bool,
    /// Too little room is left on the disk: publishers wait.
    pub disk_alarm: bool,
    /// `none`: not configured; `answers`; `silent`.
    pub arbiter: &'static str,
    pub repair: RepairJson,
    pub digest: DigestJson,
    pub scrub: ScrubJson,
    pub epoch: u64,
    pub node_id: String,
    pub cluster_id: String,
    pub cursors: Cursors,
    pub peer: Peer,
    pub copies: Copies,
    pub listeners: BTreeMap<&'static str, String>,
    pub counts: Counts,
    pub uptime_ms: u64,
}

#[derive(Serialize)]
pub struct Cursors {
    pub applied: u64,
    pub commit: u64,
    pub durable: u64,
    pub appended: u64,
}

#[derive(Serialize)]
pub struct Peer {
    pub node_id: String,
    pub address: String,
    pub in_sync: bool,
    pub durable: u64,
    pub lag: u64,
    pub reason: String,
}

/// Whole copies that were begun since the start, taken from the peer or given to it.
#[derive(Serialize)]
pub struct Copies {
    pub begun: u64,
    /// Of the last one, so far.
    pub bytes: u64,
}

#[derive(Serialize)]
pub struct Counts {
    pub connections: u64,
    pub consumers: u64,
    pub queues: u64,
    pub messages: u64,
    pub messages_ready: u64,
    pub messages_unacked: u64,
}

impl NodeHandle {
    /// Whether a client that connects now is let in: the node serves, and every listener that is
    /// configured is open already.
    pub fn is_ready(&self) -> bool {
        let listeners = self.listeners.borrow();
        let is_open = |protocol| listeners.iter().any(|(name, _)| *name == protocol);
        *self.serving.borrow() && self.client_protocols.iter().all(|protocol| is_open(*protocol))
    }

    pub fn overview_json(&self, uptime_ms: u64) -> OverviewJson {
        let overview = self.overview.borrow().clone();
        let status = &overview.replication;
        OverviewJson {
            name: overview.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            role: status.role,
            state: status.state,
            serving: self.is_ready(),
            disk_alarm: overview.disk_alarm,
            arbiter: status.arbiter,
            repair: overview.repair.clone(),
            digest: overview.digest.clone(),
            scrub: self.measured.scrubbed.json(),
            epoch: status.epoch,
            node_id: status.node_id.clone(),
            cluster_id: status.cluster_id.clone(),
            cursors: Cursors {
                applied: overview.applied,
                commit: status.commit,
                durable: overview.durable,
                appended: overview.appended,
            },
            peer: Peer {
                node_id: status.peer_node_id.clone(),
                address: status.peer_address.clone(),
                in_sync: status.in_sync,
                durable: status.peer_durable,
                lag: status.lag,
                reason: status.reason.clone(),
            },
            copies: Copies { begun: status.copies_begun, bytes: status.copied_bytes },
            listeners: self.listeners.borrow().iter().cloned().collect(),
            counts: Counts {
                connections: overview.connections,
                consumers: overview.consumers,
                queues: overview.queues,
                messages: overview.messages,
                messages_ready: overview.messages_ready,
                messages_unacked: overview.messages_unacked,
            },
            uptime_ms,
        }
    }
}
