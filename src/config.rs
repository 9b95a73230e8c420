//! Settings in two steps: typed as given (`given.rs`), then checked once into [`Settings`].
//!
//! Layers: defaults < file < environment (`UNDERSTUDY__SECTION__KEY`) < flags. There is no global
//! configuration: what needs a setting is given it.

mod check;
mod given;
mod layers;
mod unknown;

pub use given::{
    AmqpSettings, HookSettings, LimitSettings, StompSettings, StorageSettings, TlsSettings,
};
pub use layers::{Flags, load};

use crate::node::AlarmPolicy;
use std::path::PathBuf;

/// What a node runs with: every value checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub name: String,
    pub data_dir: PathBuf,
    pub role: Role,
    pub listen: Listen,
    pub replication: ReplicationSettings,
    pub arbiter: ArbiterSettings,
    pub users: Vec<UserSetting>,
    pub limits: LimitSettings,
    pub amqp: AmqpSettings,
    pub stomp: StompSettings,
    pub storage: StorageSettings,
    pub alarm_policy: AlarmPolicy,
    pub hooks: HookSettings,
    pub tls: TlsSettings,
    pub log_level: String,
    pub log_json: bool,
}

/// A preference for the first meeting; afterwards what is on disk decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Slave,
}

/// Addresses to listen on; none: switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub amqp: Option<String>,
    pub stomp: Option<String>,
    pub native: Option<String>,
    pub amqp_tls: Option<String>,
    pub stomp_tls: Option<String>,
    pub native_tls: Option<String>,
    pub stomp_ws: Option<String>,
    pub stomp_wss: Option<String>,
    pub http: Option<String>,
    pub replication: Option<String>,
    /// Of `understudy arbiter` only.
    pub arbiter: Option<String>,
}

impl Listen {
    /// Those that need a certificate.
    pub fn under_tls(&self) -> [&Option<String>; 4] {
        [&self.amqp_tls, &self.stomp_tls, &self.native_tls, &self.stomp_wss]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    Standalone,
    Pair,
    /// One data directory that another broker can reach, too.
    SharedStorage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    pub backend: BackendKind,
    /// `host:port` of the other node's replication listener.
    pub master_address: Option<String>,
    pub advertised_address: Option<String>,
    /// Where native clients find this node while it leads: URIs with commas between.
    pub client_uris: String,
    pub user: String,
    pub password: String,
    /// None: the link is in clear.
    pub tls: Option<LinkTls>,
    pub shutdown_on_master_failure: bool,
    pub shutdown_on_slave_failure: bool,
    pub wait_for_slave: bool,
    pub wait_for_slave_timeout_ms: u64,
    pub meet_timeout_ms: u64,
    pub beat_ms: u64,
    pub suspect_ms: u64,
    pub takeover_ms: u64,
    pub digest_interval_ms: u64,
}

/// Who decides which node of a pair leads; for `understudy arbiter` itself, whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArbiterSettings {
    pub kind: ArbiterKind,
    /// Name of the pair's register: the same on both nodes, another one for each pair.
    pub register: String,
    pub user: String,
    pub password: String,
    pub tls: Option<LinkTls>,
    pub lease_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterKind {
    None,
    Understudy {
        /// `host:port`
        address: String,
    },
    Etcd {
        /// `host:port` of each member's client listener.
        endpoints: Vec<String>,
        /// Who signs their certificates; none: in clear.
        ca_file: Option<String>,
    },
}

/// TLS of the link between the nodes, with the node's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTls {
    /// The setting that names `ca_file`, for errors.
    pub ca_key: String,
    /// Who signs the nodes' certificates.
    pub ca_file: String,
    /// The node that accepts asks for a certificate, too.
    pub mutual: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSetting {
    pub name: String,
    pub secret: Secret,
    pub tags: Vec<String>,
    /// None: everything in the vhost `/`.
    pub permissions: Option<Vec<PermissionSetting>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionSetting {
    pub vhost: String,
    #[serde(default)]
    pub configure: String,
    #[serde(default)]
    pub write: String,
    #[serde(default)]
    pub read: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Password(String),
    /// As [`crate::auth`] makes it, or RabbitMQ's salted SHA-256.
    Hash(String),
}

/// A setting that is wrong: where it came from, which key, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {key}: {problem}")]
pub struct ConfigError {
    pub origin: String,
    pub key: String,
    pub problem: String,
}

#[cfg(test)]
mod tests;
