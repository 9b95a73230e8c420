//! Settings as a user types them. The defaults here are the product's defaults;
//! `conf/standalone.toml` shows them with units and reasons, and a test keeps the two equal.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Given {
    pub(super) broker: Broker,
    pub(super) listen: Listen,
    pub(super) replication: Replication,
    pub(super) arbiter: Arbiter,
    pub(super) users: Vec<User>,
    pub(super) limits: LimitSettings,
    pub(super) amqp: AmqpSettings,
    pub(super) stomp: StompSettings,
    pub(super) storage: StorageSettings,
    pub(super) tls: TlsSettings,
    pub(super) hooks: HookSettings,
    pub(super) log: Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Broker {
    pub(super) name: String,
    pub(super) data_dir: String,
    pub(super) role: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) amqp: String,
    pub(super) stomp: String,
    pub(super) native: String,
    pub(super) amqp_tls: String,
    pub(super) stomp_tls: String,
    pub(super) native_tls: String,
    pub(super) stomp_ws: String,
    pub(super) stomp_wss: String,
    pub(super) http: String,
    pub(super) replication: String,
    pub(super) arbiter: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Replication {
    pub(super) backend: String,
    pub(super) master_uri: String,
    pub(super) advertised_uri: String,
    pub(super) client_uris: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) tls: String,
    pub(super) tls_ca_file: String,
    pub(super) shutdown_on_master_failure: bool,
    pub(super) shutdown_on_slave_failure: bool,
    pub(super) wait_for_slave: bool,
    pub(super) wait_for_slave_timeout: u64,
    pub(super) meet_timeout_ms: u64,
    pub(super) beat_ms: u64,
    pub(super) suspect_ms: u64,
    pub(super) takeover_ms: u64,
    pub(super) digest_interval_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Arbiter {
    pub(super) kind: String,
    pub(super) uri: String,
    pub(super) register: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) tls: String,
    pub(super) tls_ca_file: String,
    pub(super) lease_ms: u64,
}

impl Default for Arbiter {
    fn default() -> Self {
        Self {
            kind: "none".into(),
            uri: String::new(),
            register: "understudy".into(),
            user: String::new(),
            password: String::new(),
            tls: "off".into(),
            tls_ca_file: String::new(),
            lease_ms: 2_000,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_hash: Option<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) permissions: Option<Vec<super::PermissionSetting>>,
}

/// Bounds; each with its unit in the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    pub connections_max: usize,
    pub unreachable_s: u32,
    pub message_bytes_max: u64,
    pub group_bytes_max: usize,
    pub inflight_bytes_max: usize,
    pub outbound_bytes_max: u64,
    pub cache_bytes_max: usize,
    pub worker_threads: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpSettings {
    pub heartbeat_s: u16,
    pub frame_max_bytes: u32,
    pub channel_max: u16,
    pub handshake_timeout_ms: u64,
    pub consumer_timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StompSettings {
    pub dialect: String,
    pub dialect_tls: String,
    pub dialect_ws: String,
    pub dialect_wss: String,
    pub prefetch_default: u32,
    pub default_persistent: bool,
    pub handshake_timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    pub map_bytes_max: usize,
    pub free_bytes_min: u64,
    pub alarm_policy: String,
    pub commit_interval_ms: u64,
    pub save_after_bytes: u64,
    pub retain_bytes: u64,
    pub scrub_bytes_per_second: u64,
    pub scrub_interval_s: u64,
    pub owner_lease_ms: u64,
    pub disk_stall_ms: u64,
}

/// Commands for `/bin/sh`; empty: none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookSettings {
    pub on_promoted: String,
    pub on_demoted: String,
    pub timeout_ms: u64,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self { on_promoted: String::new(), on_demoted: String::new(), timeout_ms: 10_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    pub certificate_file: String,
    pub key_file: String,
    pub client_ca_file: String,
    pub require_client_certificate: bool,
    pub min_version: String,
    pub login_from: String,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            certificate_file: String::new(),
            key_file: String::new(),
            client_ca_file: String::new(),
            require_client_certificate: false,
            min_version: "1.2".into(),
            login_from: "distinguished_name".into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) level: String,
    pub(super) format: String,
}

impl Default for Broker {
    fn default() -> Self {
        Self { name: "understudy".into(), data_dir: "./data".into(), role: "master".into() }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            amqp: "127.0.0.1:5672".into(),
            stomp: "127.0.0.1:61613".into(),
            native: "127.0.0.1:61616".into(),
            amqp_tls: String::new(),
            stomp_tls: String::new(),
            native_tls: String::new(),
            stomp_ws: String::new(),
            stomp_wss: String::new(),
            http: "127.0.0.1:15672".into(),
            replication: "127.0.0.1:62001".into(),
            arbiter: String::new(),
        }
    }
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            backend: "standalone".into(),
            master_uri: String::new(),
            advertised_uri: String::new(),
            client_uris: String::new(),
            user: String::new(),
            password: String::new(),
            tls: "off".into(),
            tls_ca_file: String::new(),
            shutdown_on_master_failure: false,
            shutdown_on_slave_failure: false,
            wait_for_slave: false,
            wait_for_slave_timeout: 600_000,
            meet_timeout_ms: 5_000,
            beat_ms: 250,
            suspect_ms: 2_000,
            takeover_ms: 4_000,
            digest_interval_ms: 1_000,
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            connections_max: 50_000,
            unreachable_s: 120,
            message_bytes_max: 16 << 20,
            group_bytes_max: 1 << 20,
            inflight_bytes_max: 32 << 20,
            outbound_bytes_max: 1 << 20,
            cache_bytes_max: 64 << 20,
            worker_threads: 2,
        }
    }
}

impl Default for AmqpSettings {
    fn default() -> Self {
        Self {
            heartbeat_s: 60,
            frame_max_bytes: 131_072,
            channel_max: 2_047,
            handshake_timeout_ms: 10_000,
            consumer_timeout_ms: 0,
        }
    }
}

impl Default for StompSettings {
    fn default() -> Self {
        Self {
            dialect: "rabbitmq".into(),
            dialect_tls: "rabbitmq".into(),
            dialect_ws: "rabbitmq".into(),
            dialect_wss: "rabbitmq".into(),
            prefetch_default: 1_000,
            default_persistent: false,
            handshake_timeout_ms: 10_000,
        }
    }
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            map_bytes_max: 64 << 30,
            free_bytes_min: 256 << 20,
            alarm_policy: "block".into(),
            commit_interval_ms: 1,
            save_after_bytes: 64 << 20,
            retain_bytes: 64 << 20,
            scrub_bytes_per_second: 4 << 20,
            scrub_interval_s: 24 * 60 * 60,
            owner_lease_ms: 2_000,
            disk_stall_ms: 5_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into() }
    }
}
