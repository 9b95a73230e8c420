//! The node and its replication backend, made from the settings and what the data directory holds.

use crate::auth;
use crate::boot::{Found, boot};
use crate::clock::Clock;
use crate::config::{ArbiterKind, ArbiterSettings, BackendKind, Role, Settings};
use crate::node::{Node, NodeOptions, Outputs};
use crate::ownership::Ownership;
use anyhow::anyhow;
use std::net::SocketAddr;
use understudy_broker::Limits;
use understudy_model::{Features, Text};
use understudy_replication::{
    ArbiterConfig, Backend, Pair, PairConfig, Role as PairRole, Standalone,
};
use understudy_storage::LogReader;

const REPLAY_BYTES_PER_READ: usize = 8 << 20;

/// # Errors
/// What is on disk does not fit together or cannot be read.
pub(super) fn make_node(
    settings: &Settings,
    clock: &Clock,
    found: Found,
    reader: &LogReader,
    advertised: Option<SocketAddr>,
    ownership: Option<&Ownership>,
) -> anyhow::Result<(Node, Outputs)> {
    let mut random = [0u64; 8];
    for number in &mut random {
        *number = getrandom::u64().map_err(|error| anyhow!("no randomness: {error}"))?;
    }
    let pair = pair_config(settings, advertised);
    let is_pair = settings.replication.backend == BackendKind::Pair;
    let made = boot(
        &node_options(settings),
        found,
        clock.now_ms(),
        random,
        |boot, out| -> Result<Box<dyn Backend>, String> {
            if is_pair {
                Ok(Box::new(Pair::new(boot, pair.clone(), out).map_err(|error| error.to_string())?))
            } else if let Some(why) = &boot.damaged {
                let data = settings.data_dir.display();
                Err(format!("{why}; nobody else has it: restore {data} from a copy"))
            } else if let Some(ownership) = ownership {
                let owner = Standalone::owner(boot, ownership.epoch(), out);
                Ok(Box::new(owner.map_err(|error| error.to_string())?))
            } else {
                Ok(Box::new(Standalone::new(boot, out).map_err(|error| error.to_string())?))
            }
        },
        |after| reader.groups(after, REPLAY_BYTES_PER_READ).map_err(|error| error.to_string()),
    );
    made.map_err(|error| anyhow!("{error}"))
}

fn pair_config(settings: &Settings, advertised: Option<SocketAddr>) -> PairConfig {
    let replication = &settings.replication;
    let own = replication.advertised_address.clone();
    let own = own.or(advertised.map(|address| address.to_string())).unwrap_or_default();
    PairConfig {
        role: match settings.role {
            Role::Master => PairRole::Master,
            Role::Slave => PairRole::Slave,
        },
        peer_address: replication.master_address.as_deref().map(Text::from),
        advertised_address: Text::from(own),
        client_addresses: Text::from(replication.client_uris.as_str()),
        shutdown_on_master_failure: replication.shutdown_on_master_failure,
        shutdown_on_slave_failure: replication.shutdown_on_slave_failure,
        wait_for_slave: replication.wait_for_slave,
        wait_for_slave_timeout_ms: replication.wait_for_slave_timeout_ms,
        meet_timeout_ms: replication.meet_timeout_ms,
        beat_ms: replication.beat_ms,
        suspect_ms: replication.suspect_ms,
        takeover_ms: replication.takeover_ms,
        arbiter: arbiter_config(&settings.arbiter),
        ..PairConfig::default()
    }
}

/// Tells one arbiter and register from another; the way there may differ between the nodes.
fn arbiter_config(settings: &ArbiterSettings) -> Option<ArbiterConfig> {
    let kind = match &settings.kind {
        ArbiterKind::None => return None,
        ArbiterKind::Understudy { .. } => 1,
        ArbiterKind::Etcd { .. } => 2,
    };
    let name = crc32fast::hash(settings.register.as_bytes());
    Some(ArbiterConfig { id: kind << 32 | u64::from(name), lease_ms: settings.lease_ms })
}

fn node_options(settings: &Settings) -> NodeOptions {
    let outbound_bytes_max = settings.limits.outbound_bytes_max;
    NodeOptions {
        limits: Limits { outbound_bytes_max, ..Limits::default() },
        group_bytes_max: settings.limits.group_bytes_max,
        commit_interval_ms: settings.storage.commit_interval_ms,
        cache_bytes_max: settings.limits.cache_bytes_max,
        alarm_policy: settings.alarm_policy,
        save_after_bytes: settings.storage.save_after_bytes,
        retain_bytes: settings.storage.retain_bytes,
        features: Features::KNOWN,
        digest_interval_ms: match settings.replication.backend {
            BackendKind::Standalone => 0,
            _ => settings.replication.digest_interval_ms,
        },
        users: settings.users.iter().map(auth::configured).collect(),
        default_user: auth::default_user(),
    }
}
