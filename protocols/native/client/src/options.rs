//! Options of connections, queues, exchanges and subscriptions, with their defaults.

use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use understudy_native::{AckMode, Table, Text};

/// What a connection is opened with, besides the address.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Overrides the address's; `guest` if neither has one. Empty: the user that the client's
    /// certificate stands for.
    pub user: Option<Text>,
    /// Overrides the address's; `guest` if neither has one.
    pub password: Option<Bytes>,
    /// Overrides the address's; `/` if neither has one.
    pub vhost: Option<Text>,
    /// What the broker shows for this connection.
    pub client_name: Text,
    /// The longest silence that the client wishes between frames; it takes the connection for
    /// dead after twice that. The broker may shorten it. The address's
    /// `wireFormat.maxInactivityDuration` overrides it.
    pub heartbeat: Duration,
    /// How much may be published and not yet confirmed, counted as one for each message and one
    /// for each 4 KiB of its body. Publishing waits beyond it.
    pub publish_window: u32,
    /// The longest frame taken from the broker. The address's `wireFormat.maxFrameSize` overrides
    /// it.
    pub frame_bytes_max: usize,
    /// For `ssl://` addresses.
    pub tls: TlsOptions,
}

/// Without the password.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, vhost, client_name, heartbeat, publish_window, tls, .. } = self;
        let mut shown = f.debug_struct("ConnectOptions");
        shown.field("user", user).field("vhost", vhost).field("client_name", client_name);
        shown.field("heartbeat", heartbeat).field("publish_window", publish_window);
        shown.field("tls", tls).finish_non_exhaustive()
    }
}

/// PEM files for `ssl://` addresses; an address may name its own.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Who signs the broker's certificate. Needed, here or in the address (`cacertfile`).
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, for brokers that ask for one (`certfile`).
    pub certificate_file: Option<PathBuf>,
    /// Its key (`keyfile`).
    pub key_file: Option<PathBuf>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            user: None,
            password: None,
            vhost: None,
            client_name: Text::from_static("understudy-client"),
            heartbeat: Duration::from_secs(10),
            publish_window: 8_192,
            frame_bytes_max: 256 * 1024 * 1024,
            tls: TlsOptions::default(),
        }
    }
}

/// How a queue is declared; durable unless changed.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// Only ask whether it is there.
    pub passive: bool,
    /// Stays over a restart of the broker.
    pub durable: bool,
    /// For this connection only, and gone with it.
    pub exclusive: bool,
    /// Deleted when its last consumer goes.
    pub auto_delete: bool,
    /// The `x-` arguments.
    pub arguments: Table,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        }
    }
}

/// What the broker says of a declared queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Chosen by the broker if the name asked for was empty.
    pub name: Text,
    /// Ready messages.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Conditions for deleting a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteQueueOptions {
    /// Refuse if it has consumers.
    pub if_unused: bool,
    /// Refuse if it has messages.
    pub if_empty: bool,
}

/// How an exchange is declared; durable unless changed.
#[derive(Clone, Debug)]
pub struct ExchangeOptions {
    /// Only ask whether it is there.
    pub passive: bool,
    /// Stays over a restart of the broker.
    pub durable: bool,
    /// Deleted when its last binding goes.
    pub auto_delete: bool,
    /// Takes messages from other exchanges only.
    pub internal: bool,
    /// The `x-` arguments.
    pub arguments: Table,
}

impl Default for ExchangeOptions {
    fn default() -> Self {
        Self {
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Table::default(),
        }
    }
}

/// Where messages of an exchange go.
#[derive(Clone, Debug)]
pub struct Binding {
    pub(crate) source: Text,
    pub(crate) destination: Text,
    pub(crate) to_exchange: bool,
    pub(crate) key: Text,
    pub(crate) arguments: Table,
}

impl Binding {
    /// From an exchange to a queue.
    pub fn to_queue(source: impl Into<Text>, queue: impl Into<Text>, key: impl Into<Text>) -> Self {
        Self {
            source: source.into(),
            destination: queue.into(),
            to_exchange: false,
            key: key.into(),
            arguments: Table::default(),
        }
    }

    /// From an exchange to another.
    pub fn to_exchange(
        source: impl Into<Text>,
        exchange: impl Into<Text>,
        key: impl Into<Text>,
    ) -> Self {
        Self { to_exchange: true, ..Self::to_queue(source, exchange, key) }
    }

    /// Arguments, e.g. what a headers exchange matches.
    #[must_use]
    pub fn arguments(mut self, arguments: Table) -> Self {
        self.arguments = arguments;
        self
    }
}

/// How a queue is consumed.
#[derive(Clone, Copy, Debug)]
pub struct SubscribeOptions {
    /// How many deliveries may be unsettled, or with [`AckMode::Auto`] unread, at a time. It is
    /// refilled as they are settled or read. 0: no limit.
    pub credit: u32,
    /// With `Auto` a delivery counts as settled when the broker sends it: what was on its way is
    /// lost with the connection.
    pub ack: AckMode,
    /// Refuse if others consume the queue, and keep them away.
    pub exclusive: bool,
    /// Higher is served first.
    pub priority: i32,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { credit: 256, ack: AckMode::Manual, exclusive: false, priority: 0 }
    }
}
